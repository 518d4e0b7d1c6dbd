"""Sample streams: what the two sides of a connection say while a callout is checked.

Owns the record and the samples that are made of words. It must not know how a sample is cut or played.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wfpstream.testing._world import Side

SIDES: tuple[Side, Side] = ("client", "server")


@dataclass(frozen=True, slots=True)
class Said:
    """One side sends bytes, or ends its direction (no bytes and `end`)."""

    by: Side
    data: bytes = b""
    end: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """A conversation: what both sides send, in order. A side that does not end here does so after all of it.

    Attributes:
        said: the turns.
        name: for reports.
        free: any part of it is as good a sample; the search for the smallest case may shorten it.
    """

    said: tuple[Said, ...]
    name: str = "sample"
    free: bool = False

    def stream(self, side: Side) -> bytes:
        """All that a side sends."""
        return b"".join(said.data for said in self.said if said.by == side)


SampleLike = Sample | bytes | tuple[bytes, bytes]


def sample_of(given: object, number: int) -> Sample:
    """A sample from what a caller gives: bytes are sent by both sides, a pair by client and server.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(given, Sample):
        return given
    parts = (given, given) if isinstance(given, bytes | bytearray) else given
    if (
        isinstance(parts, tuple)
        and len(parts) == 2
        and all(isinstance(part, bytes | bytearray) for part in parts)
    ):
        said = tuple(Said(side, bytes(part)) for side, part in zip(SIDES, parts, strict=True) if part)
        return Sample(said, f"sample {number}")
    raise TypeError(f"sample {number}: expected a Sample, bytes, or (client's bytes, server's bytes)")


# Lines, a length-prefixed record, bytes of every kind.
_PLAIN = (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00\x05hello\x00\x00", b"aab\n\nb\xff\x00 the end")


def samples_of_words(words: Iterable[bytes] = ()) -> list[Sample]:
    """Samples in which these words occur: alone, in a row, overlapping themselves, unfinished at the end."""
    made = []
    for word in words:
        half = word[: len(word) // 2 + 1] if len(word) > 1 else word
        turns = (
            b"x" + word + b" y",
            half + word + word,
            b"z" + word[:-1] + word + b"\n",
            b"and " + half,
        )
        made.append(_conversation(turns, f"of {_short(word)}"))
    return [*made, _conversation(_PLAIN, "plain text")]


def _conversation(texts: Sequence[bytes], name: str) -> Sample:
    """Each text is said by the client, and by the server in answer."""
    return Sample(tuple(Said(side, text) for text in texts if text for side in SIDES), name, free=True)


def _short(word: bytes) -> str:
    return repr(word if len(word) <= 20 else word[:17] + b"...")[1:]
