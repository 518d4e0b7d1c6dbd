"""`pattern_drop`: resets a connection in which a byte pattern appears.

Owns that one decision; finding the pattern across borders is the matcher's.
"""

from __future__ import annotations

from wfpstream.fwps import ClassifyOut, StreamCalloutIoPacket, StreamData

from ._answers import LAST, drop, need_more, permit
from ._lane_callout import LaneCallout
from ._lanes import Direction, Lane
from ._matcher import Matcher
from ._options import Text, as_bytes


class PatternDrop(LaneCallout[Lane]):
    """Resets the connection (DROP_CONNECTION) when a pattern appears.

    What precedes the pattern is permitted, no byte of it is, wherever segment borders fall; bytes that may
    begin it wait for the next ones (NEED_MORE_DATA). Like every reset this one does not wait for what was
    permitted just before.

    Args:
        find: the pattern, at least one byte.
        direction: where to look.

    Raises:
        ValueError: the pattern is empty.
    """

    name = "pattern_drop"
    example = "pattern_drop,find=DROP TABLE,direction=to_upstream"

    def __init__(self, find: Text, direction: Direction = "both") -> None:
        super().__init__(Lane, direction)
        self._matcher = Matcher(as_bytes(find))

    def decide(
        self, lane: Lane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        """Permit up to the match, then drop; hold a tail that may begin one."""
        data = stream.tobytes()
        match = self._matcher.find(data)
        if match == 0:
            drop(packet, answer)
        elif match > 0:
            permit(packet, answer, match)
        elif not answer.flags & LAST:
            self._hold_tail(data, packet, answer)

    def _hold_tail(self, data: bytes, packet: StreamCalloutIoPacket, answer: ClassifyOut) -> None:
        tail = self._matcher.tail(data)
        if tail == len(data) > 0:
            need_more(packet, answer)  # one more byte may settle it: never the whole pattern at once
        elif tail:
            permit(packet, answer, len(data) - tail)
