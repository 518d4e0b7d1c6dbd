"""Segmentation on purpose: where a stream is cut before the engine sees it.

Owns the written form of a chop and where its borders are: they depend on the seed, the connection's number, the side
and the place in the stream alone, never on how the bytes came. It must not know who sends them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

OFF, RANDOM = "off", "random"
_FORMS = "off, random, a length in bytes such as 1, or a range such as 1-7"
_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?")
# "random": as often a few bytes as anything up to a full segment.
_FEW, _FULL = 8, 1460


@dataclass(frozen=True, slots=True)
class Chop:
    """How streams are cut.

    Attributes:
        text: "off", "random", "N" (every N bytes) or "A-B" (lengths drawn from A to B, both included).
    """

    text: str = OFF

    def __post_init__(self) -> None:
        if self.text in (OFF, RANDOM):
            return
        match = _RANGE.fullmatch(self.text)
        if match is None or not 1 <= int(match[1]) <= int(match[2] or match[1]):
            raise ValueError(f"a chop is {_FORMS}; not {self.text!r}")

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        """Does it cut at all?"""
        return self.text != OFF

    @property
    def lengths(self) -> tuple[int, int]:
        """The shortest and the longest segment, bytes."""
        if self.text in (OFF, RANDOM):
            return 1, _FULL
        first, _, last = self.text.partition("-")
        return int(first), int(last or first)

    def cutter(self, seed: int, connection: int, side: str) -> Cutter:
        """Where to cut what one side of the n-th connection sends."""
        return Cutter(self, Random(f"{seed}/{connection}/{side}"))  # a text is seeded by its hash alone


class Cutter:
    """Cuts one stream as it comes."""

    def __init__(self, chop: Chop, random: Random) -> None:
        self._chop = chop
        self._random = random
        self._left = self._draw()

    def cut(self, length: int) -> list[int]:
        """The lengths into which the next `length` bytes fall; their sum is `length`."""
        if not self._chop:
            return [length] if length else []
        pieces = []
        while length:
            piece = min(length, self._left)
            pieces.append(piece)
            length -= piece
            self._left -= piece
            if not self._left:
                self._left = self._draw()
        return pieces

    def _draw(self) -> int:
        shortest, longest = self._chop.lengths
        if self._chop.text == RANDOM and self._random.random() < 0.5:
            longest = _FEW
        return self._random.randint(shortest, longest)
