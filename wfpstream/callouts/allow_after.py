"""`allow_after`: looks at the beginning of a connection, then lets it go.

Owns the count of bytes seen; what is possible once nobody asks any more (offload) is the driver's.
"""

from __future__ import annotations

from wfpstream.fwps import ClassifyOut, StreamCalloutIoPacket, StreamData

from ._answers import allow
from ._lane_callout import LaneCallout
from ._lanes import Direction, Lane
from ._options import Size, parse_size


class CountingLane(Lane):
    """A lane that counts its bytes."""

    __slots__ = ("seen",)

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.seen = 0


class AllowAfter(LaneCallout[CountingLane]):
    """Permits, and after some bytes in one direction is asked no more (ALLOW_CONNECTION).

    Args:
        bytes: how many bytes a direction must have passed; 0 lets go at the first indication.
        direction: which directions count.
    """

    name = "allow_after"
    example = "allow_after,bytes=64KiB"

    def __init__(self, bytes: Size, direction: Direction = "both") -> None:
        super().__init__(CountingLane, direction)
        self._bytes = parse_size(bytes)

    def decide(
        self, lane: CountingLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        """Count; the indication that reaches the mark is permitted in full (ALW-2)."""
        lane.seen += stream.data_length
        if lane.seen >= self._bytes:
            allow(packet, answer)
