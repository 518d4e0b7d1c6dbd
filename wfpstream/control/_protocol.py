"""What goes over the control socket: one JSON object a line, each way.

    {"id": 1, "command": "flows", "arguments": {}}
    {"id": 1, "ok": true, "result": [...]}
    {"id": 1, "ok": false, "error": "no flow 7", "code": "failed"}

Owns the form of requests and answers, the codes of errors and the limits. It must not know sockets or commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

# Codes of errors. The first four come from commands, the others from the two ends of the socket.
USAGE = "usage"  # arguments or a configuration that cannot be used
FAILED = "failed"  # asked for properly, and it did not work
UNKNOWN = "unknown_command"
DEFECT = "defect"  # a command raised what it should not
BAD_REQUEST = "bad_request"
TOO_LONG = "too_long"
TIMEOUT = "timeout"
BUSY = "busy"
DENIED = "denied"
UNREACHABLE = "unreachable"

MAX_LINE = 1 << 20


class ControlError(Exception):
    """Something that was asked of a control socket and cannot be had.

    Args:
        text: what is wrong, a line, or several lines.
        code: "usage" for what the asker should say otherwise, "failed" for the rest; the ends of the socket have
            codes of their own.
    """

    def __init__(self, text: str, code: str = FAILED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code

    @property
    def lines(self) -> list[str]:
        """The lines of the text that say something."""
        return [line for line in self.text.splitlines() if line.strip()] or [self.code]


@dataclass(frozen=True)
class ControlLimits:
    """How much a client may have of the server.

    Attributes:
        clients: how many at once; one more is told so and closed.
        line: bytes of a request.
        idle: seconds a client may be connected without asking.
        read: seconds from the first byte of a request to its last.
        write: seconds to take an answer.
    """

    clients: int = 16
    line: int = MAX_LINE
    idle: float = 60.0
    read: float = 10.0
    write: float = 10.0


class Request(msgspec.Struct, frozen=True):
    """A request; keys that we do not know are ignored."""

    command: str
    arguments: dict[str, Any] = {}
    id: int | str | None = None


class Answer(msgspec.Struct, frozen=True):
    """An answer: a result, or an error and its code."""

    ok: bool
    result: Any = None
    error: str = ""
    code: str = FAILED
    id: int | str | None = None


_REQUEST = msgspec.json.Decoder(Request)
_ANSWER = msgspec.json.Decoder(Answer)
_ENCODER = msgspec.json.Encoder(enc_hook=str)


def read_request(line: bytes | bytearray) -> Request:
    """Decode one line.

    Raises:
        ControlError: it is no request.
    """
    try:
        return _REQUEST.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ControlError(f"not a request: {_short(error)}", BAD_REQUEST) from error


def read_answer(line: bytes | bytearray) -> Answer:
    """Decode one line.

    Raises:
        ControlError: it is no answer.
    """
    try:
        return _ANSWER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ControlError(f"not an answer: {_short(error)}", UNREACHABLE) from error


def request_line(command: str, arguments: dict[str, Any]) -> bytes:
    """The line that asks.

    Raises:
        ControlError: an argument cannot be said in JSON.
    """
    try:
        return _ENCODER.encode({"id": 1, "command": command, "arguments": arguments}) + b"\n"
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ControlError(f"cannot be sent: {_short(error)}", USAGE) from error


def result_line(request_id: int | str | None, result: Any) -> bytes:
    """The line that answers; what JSON has no form for becomes text.

    Raises:
        ControlError: even so it cannot be said in JSON.
    """
    try:
        return _ENCODER.encode({"id": request_id, "ok": True, "result": result}) + b"\n"
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ControlError(f"the result cannot be sent: {_short(error)}", DEFECT) from error


def error_line(request_id: int | str | None, error: ControlError) -> bytes:
    """The line that refuses."""
    text = error.text.encode("utf-8", "backslashreplace").decode()
    return _ENCODER.encode({"id": request_id, "ok": False, "error": text, "code": error.code}) + b"\n"


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
