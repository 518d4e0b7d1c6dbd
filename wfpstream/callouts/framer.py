"""`framer`: shows the callouts below whole records only.

Owns where records end (lines, or a length in front) and what happens to one that is too long. Bytes are never
changed, only held back.
"""

from __future__ import annotations

from typing import Literal

from wfpstream.fwps import NEED_MORE_DATA_LIMIT, ClassifyOut, StreamCalloutIoPacket, StreamData

from ._answers import LAST, LIMIT_REACHED, need_more, permit
from ._lane_callout import LaneCallout
from ._lanes import Direction, Lane
from ._options import Size, parse_size


class RecordLane(Lane):
    """Where the parsing of one direction stands.

    Attributes:
        searched: bytes at the start of the next indication that are known to hold no line end.
        passing: bytes of a record that is too long, still to be passed as they come.
        lost: the borders are lost, everything passes.
    """

    __slots__ = ("lost", "passing", "searched")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.searched = 0
        self.passing = 0
        self.lost = False


class Framer(LaneCallout[RecordLane]):
    """Holds bytes until a whole record is there (NEED_MORE_DATA), then permits it.

    A record longer than `limit`, or than the engine will hold (8 MiB, NMD-6), passes as it comes, and so does
    what is left at the end of the stream.

    Args:
        by: `line` (ends with a line feed) or `length` (a big-endian number in front of the body).
        size: bytes of that number, 1 to 8; it does not count itself.
        limit: longest record that is held, prefix included.
        each: permit one record at a time, so that each is an indication of its own for the callouts below.
        direction: which directions to frame.

    Raises:
        ValueError: an option is out of its range.
    """

    name = "framer"
    example = "framer,by=line"

    def __init__(
        self,
        by: Literal["line", "length"] = "line",
        size: int = 4,
        limit: Size = "1MiB",
        each: bool = False,
        direction: Direction = "both",
    ) -> None:
        super().__init__(RecordLane, direction)
        if by not in ("line", "length"):
            raise ValueError(f"by={by!r}: expected line or length")
        if not 1 <= size <= 8:
            raise ValueError(f"size={size}: expected 1 to 8 bytes")
        self._by_line = by == "line"
        self._size = size
        self._limit = min(parse_size(limit), NEED_MORE_DATA_LIMIT)
        self._each = each

    def decide(
        self, lane: RecordLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        """Permit the whole records at the front; hold an incomplete one if that is all there is."""
        length = stream.data_length
        if lane.lost or not length:
            return
        # NMD-7: at the engine's limit all of it is decided at once.
        at_limit = bool(answer.flags & LIMIT_REACHED)
        one = self._each and not at_limit
        whole, total = self._lines(lane, stream, one) if self._by_line else self._records(lane, stream, one)
        if whole and not at_limit:
            permit(packet, answer, whole)
        elif not answer.flags & LAST and max(total, length) <= self._limit:
            need_more(packet, answer, total)
        else:
            self._let_go(lane, length - whole, total)

    def _lines(self, lane: RecordLane, stream: StreamData, one: bool) -> tuple[int, int]:
        """(bytes of whole lines at the front, 0: nobody knows how long the next one is)."""
        start = lane.searched
        data = _bytes_from(stream, start)
        end = data.find(b"\n") if one else data.rfind(b"\n")
        if end < 0:
            lane.searched = stream.data_length
            return 0, 0
        lane.searched = 0
        return start + end + 1, 0

    def _records(self, lane: RecordLane, stream: StreamData, one: bool) -> tuple[int, int]:
        """(bytes of whole records at the front, length of the incomplete one behind them as far as known)."""
        data = stream.view()
        at = min(lane.passing, len(data))
        lane.passing -= at
        while at + self._size <= len(data) and not (one and at):
            total = self._size + int.from_bytes(data[at : at + self._size], "big")
            if at + total > len(data):
                return at, total
            at += total
        return at, self._size

    def _let_go(self, lane: RecordLane, cut: int, total: int) -> None:
        """Everything indicated passes, `cut` bytes of a record among it; keep in step with the rest of it."""
        lane.searched = 0
        if cut and not self._by_line:
            # Without its whole prefix nobody knows where a record ends.
            lane.lost = cut < self._size
            lane.passing = 0 if lane.lost else total - cut


def _bytes_from(stream: StreamData, start: int) -> bytes:
    """The bytes behind the first `start`: what was held before is not copied again."""
    fresh = []
    for piece in stream.pieces():
        if start < len(piece):
            fresh.append(piece[start:])
        start = max(0, start - len(piece))
    return b"".join(fresh)
