"""`pend_fin`: holds the end of a stream back, adds a trailer, then lets it go.

Owns the pended FIN (blocked, it is withheld until one is injected: IND-14). Data passes as it comes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from wfpstream.fwp import NtStatus
from wfpstream.fwps import ClassifyOut, StreamCalloutIoPacket, StreamData

from ._answers import DISCONNECT, block
from ._insist import insist
from ._lane_callout import LaneCallout, inject_here
from ._lanes import Direction, Lane
from ._options import Text, Time, as_bytes, parse_time


class FinLane(Lane):
    """A lane with, at its end, a FIN.

    Attributes:
        seen: the FIN came.
        said: the trailer is out.
        timer: it is held until then; None once it was let go.
    """

    __slots__ = ("said", "seen", "timer")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.seen = False
        self.said = False
        self.timer: Any = None


class PendFin(LaneCallout[FinLane]):
    """Holds the FIN for a while, injects a trailer, then releases the FIN.

    Args:
        delay: how long to hold it.
        trailer: what to add behind the last byte; may be empty.
        direction: which directions end that way.
    """

    name = "pend_fin"
    example = "pend_fin,delay=500ms,trailer=goodbye\\n"

    def __init__(self, delay: Time = 0.0, trailer: Text = b"", direction: Direction = "both") -> None:
        # With several stages the first one does it: what a timer injects goes in there (INJ-10).
        super().__init__(FinLane, direction, per_stage=False)
        self._delay = parse_time(delay)
        self._trailer = as_bytes(trailer)

    def decide(
        self, lane: FinLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        """Permit data; pend the FIN."""
        if not stream.flags & DISCONNECT or lane.seen:
            return
        # `fin_with_data` shows the FIN on the last bytes: those must not wait, so they go by injection.
        if inject_here(self, lane, stream, stream.tobytes(), packet, answer):
            lane.seen = True
            lane.timer = self.after(self._delay, self._release, lane)
            block(packet, answer)

    def _release(self, lane: FinLane) -> None:
        # OOB-5 (b): this callout has pended the FIN of this direction, so it may inject into it.
        lane.timer = None
        insist(self, lane.flow_id, partial(self._end, lane))

    def _end(self, lane: FinLane) -> NtStatus:
        """The trailer, once, and the FIN behind it."""
        if self._trailer and not lane.said:
            status = self.inject(lane.flow_id, lane.layer_id, lane.flags, self._trailer)
            if not status.ok:
                return status
            lane.said = True
        return self.inject_fin(lane.flow_id, lane.layer_id, lane.flags)

    def closed(self, lane: FinLane) -> None:
        """The flow is gone, and the FIN with it."""
        if lane.timer is not None:
            lane.timer.cancel()

    def drain(self) -> None:
        """Release every FIN that is held, with its trailer."""
        super().drain()
        for lane in self.lanes:
            if lane.timer is not None:
                lane.timer.cancel()
                self._release(lane)
