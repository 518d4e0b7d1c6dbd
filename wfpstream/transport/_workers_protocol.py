"""What the parent of workers and a worker say to each other: one JSON object a line, each way.

Owns the messages and their form on the wire. It must not know sockets or processes, nor what commands mean: a
description, arguments and results pass through as the two ends of floor 5 have them.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

__all__ = [
    "Answered",
    "Ask",
    "Ended",
    "Failed",
    "FromWorker",
    "Lines",
    "Listening",
    "Noticed",
    "ProtocolError",
    "Start",
    "Stop",
    "ToWorker",
    "encode",
    "from_worker",
    "to_worker",
]

# The description of 10,000 flows takes some 10 MB, a configuration at most 8 MiB.
MAX_LINE = 1 << 28


class ProtocolError(Exception):
    """What came is none of these messages: the other end is not what it should be, or is broken."""


class _Message(msgspec.Struct, frozen=True, tag_field="is", omit_defaults=True):
    """One line."""


class Start(_Message, frozen=True, tag="start"):
    """To the worker, first: who it is (1..`of`) and what to run."""

    number: int
    of: int
    description: dict[str, Any]


class Ask(_Message, frozen=True, tag="ask"):
    """To the worker: do this, and answer."""

    id: int
    command: str
    arguments: dict[str, Any] = {}


class Stop(_Message, frozen=True, tag="stop"):
    """To the worker: accept nothing more, and end when the flows have ended, after `grace` seconds at the latest.

    `grace` None: however long that takes.
    """

    grace: float | None = None


class Listening(_Message, frozen=True, tag="listening"):
    """To the parent: it listens everywhere."""


class Failed(_Message, frozen=True, tag="failed"):
    """To the parent: it cannot start; a line that says why."""

    error: str


class Answered(_Message, frozen=True, tag="answer"):
    """To the parent: what came of an `Ask`: a result, or an error and its code."""

    id: int
    ok: bool
    result: Any = None
    error: str = ""
    code: str = "failed"


class Noticed(_Message, frozen=True, tag="noticed"):
    """To the parent, unasked: something that it has to know whatever becomes of the worker."""

    what: dict[str, Any]


class Ended(_Message, frozen=True, tag="ended"):
    """To the parent, last: all flows have ended; what there is to say of them."""

    summary: dict[str, Any] = {}


ToWorker = Start | Ask | Stop
FromWorker = Listening | Failed | Answered | Noticed | Ended
M = TypeVar("M")

_ENCODER = msgspec.json.Encoder(enc_hook=str)
_TO_WORKER: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)
_FROM_WORKER: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)


def encode(message: msgspec.Struct) -> bytes:
    """The line of a message; what JSON has no form for becomes text."""
    return _ENCODER.encode(message) + b"\n"


class Lines(Generic[M]):
    """Cuts what is received into messages.

    Args:
        decoder: of the messages that are expected.
        limit: bytes of a line.
    """

    def __init__(self, decoder: msgspec.json.Decoder[M], limit: int = MAX_LINE) -> None:
        self._decoder = decoder
        self._limit = limit
        self._rest = bytearray()
        self._searched = 0

    @property
    def is_whole(self) -> bool:
        """No half message is left."""
        return not self._rest

    def feed(self, data: bytes) -> list[M]:
        """The messages that are complete now.

        Raises:
            ProtocolError: a line is none of the messages, or is too long.
        """
        self._rest += data
        messages = []
        start = 0
        while (end := self._rest.find(b"\n", max(start, self._searched))) >= 0:
            messages.append(self._decode(bytes(self._rest[start:end])))
            start = end + 1
        del self._rest[:start]
        self._searched = len(self._rest)
        if len(self._rest) > self._limit:
            raise ProtocolError(f"a line of more than {self._limit} bytes")
        return messages

    def _decode(self, line: bytes) -> M:
        if len(line) > self._limit:
            raise ProtocolError(f"a line of more than {self._limit} bytes")
        try:
            return self._decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"not a message: {' '.join(str(error).split())[:200]}") from error


def to_worker() -> Lines[ToWorker]:
    """For the worker's end."""
    return Lines(_TO_WORKER)


def from_worker() -> Lines[FromWorker]:
    """For the parent's end."""
    return Lines(_FROM_WORKER)
