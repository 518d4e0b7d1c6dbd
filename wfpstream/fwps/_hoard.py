"""A hoard: bytes that wait together in one buffer, and the borders of the items they came in.

Owns how held bytes are stored so that a stream that arrives in tiny pieces costs memory and copying in proportion to
its bytes: a buffer that doubles, and five bytes for each border. It must not know runs, stages or rules; the bytes in
a hoard never change, so views of it stay true for as long as somebody has them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

SMALLEST = 64


class Hoard:
    """A buffer that is filled from the front. Places count bytes of the original stream.

    Attributes:
        origin: the place of the first byte.
        end: the place behind the last one.
    """

    __slots__ = ("_buffer", "_ends", "_lasts", "_shown", "end", "origin")

    def __init__(self, origin: int, capacity: int) -> None:
        self.origin = origin
        self.end = origin
        self._buffer = memoryview(bytearray(max(SMALLEST, capacity)))
        self._shown = self._buffer.toreadonly()
        self._ends = array("Q")  # where each piece ends, from the origin
        self._lasts = bytearray()  # whether an item ends with it as well

    @property
    def capacity(self) -> int:
        """Bytes of memory."""
        return len(self._buffer)

    def has_room(self, length: int) -> bool:
        return self.end - self.origin + length <= len(self._buffer)

    def add(self, view: memoryview, last: bool) -> None:
        """One piece; `last`: it ends an item."""
        self._put(view)
        self._ends.append(self.end - self.origin)
        self._lasts.append(last)

    def add_pieces(self, view: memoryview, other: Hoard, start: int, inner: bool, last: bool) -> None:
        """What lies in `other` from `start` on, with its borders; `inner`: items end inside of it as well."""
        shift = self.end - start
        self._put(view)
        for end, is_last in other._borders(start, start + len(view)):
            self._ends.append(end + shift - self.origin)
            self._lasts.append(inner and is_last)
        self._lasts[-1] = last

    def settle(self, start: int, inner: bool, last: bool) -> None:
        """Whether an item ends with the latest piece, and (`inner`) also where some did from `start` on.

        What was decided together is one item from then on, however many it came in (IND-21).
        """
        if not inner:
            begin = bisect_right(self._ends, start - self.origin)
            self._lasts[begin:] = bytes(len(self._lasts) - begin)
        self._lasts[-1] = last

    def ends_item(self, place: int, inner: bool) -> bool:
        """Whether an item ends where it is cut: in a piece always, at a border where one ended (`settle`)."""
        ends, cut = self._ends, place - self.origin
        number = bisect_left(ends, cut)
        return ends[number] != cut or (inner and bool(self._lasts[number]))

    def _put(self, view: memoryview) -> None:
        at = self.end - self.origin
        self._buffer[at : at + len(view)] = view
        self.end += len(view)

    def view(self, start: int, length: int) -> memoryview:
        """Bytes from place `start` on."""
        return self._shown[start - self.origin : start - self.origin + length]

    def lengths(self, start: int, length: int) -> Iterator[int]:
        """The pieces of a part, by their lengths."""
        for end, _ in self._borders(start, start + length):
            yield end - start
            start = end

    def first_item(self, start: int, length: int) -> int:
        """The length of the first item of a part."""
        for end, is_last in self._borders(start, start + length):
            if is_last:
                return end - start
        return length

    def _borders(self, start: int, end: int) -> Iterator[tuple[int, bool]]:
        """Where the pieces of a part end, cut where the part is, and whether items end there."""
        ends, lasts, origin = self._ends, self._lasts, self.origin
        begin, until = bisect_right(ends, start - origin), bisect_left(ends, end - origin)
        for number in range(begin, until):
            yield origin + ends[number], bool(lasts[number])
        yield end, bool(lasts[until])
