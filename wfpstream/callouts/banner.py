"""`banner`: says something before the first byte of a direction.

Owns that it appears once, first, and even where the peer waits to be spoken to.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from wfpstream.fwp import NtStatus
from wfpstream.fwps import (
    ClassifyOut,
    Filter,
    IncomingMetadataValues,
    IncomingValues,
    StreamCalloutIoPacket,
    StreamData,
)

from ._answers import DISCONNECT, block, inspect
from ._insist import insist
from ._lane_callout import LaneCallout, inject_here
from ._lanes import Direction, Lane, NoLane
from ._options import Text, as_bytes


class BannerLane(Lane):
    """A lane that knows whether its banner is out.

    Attributes:
        said: it is, or never will be.
        timer: it is about to be.
        line: while it is being said, what is still to be injected, None for the FIN: what comes meanwhile, on another
            processor, stands behind the banner.
    """

    __slots__ = ("line", "said", "timer")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.said = False
        self.timer: Any = None
        self.line: deque[bytes | None] = deque()


class Banner(LaneCallout[BannerLane]):
    """Injects a text at the start of a connection, before anything else in that direction.

    It does not wait for a byte to come by. A connection that was already running is left alone.

    Args:
        text: what to say.
        direction: whom to say it to.

    Raises:
        ValueError: there is nothing to say.
    """

    layers = ("stream", "ale_flow_established")
    name = "banner"
    example = "banner,text=220 ready\\r\\n"

    def __init__(self, text: Text, direction: Direction = "to_client") -> None:
        super().__init__(BannerLane, direction, per_stage=False, opened=self._opened)
        self._text = as_bytes(text)
        if not self._text:
            raise ValueError("text is empty: expected something to say")

    def classify_ale_flow_established(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Filter,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Have the banner said as soon as the flow takes injections: after this classify (INJ-29)."""
        inspect(classify_out)
        try:
            self.lanes.establish(in_fixed_values, in_meta_values)
        except NoLane:
            self.lanes.refuse(in_meta_values.flow_handle)

    def _opened(self, lanes: list[BannerLane], fixed: IncomingValues, meta: IncomingMetadataValues) -> None:
        for lane in lanes:
            lane.said = self.draining or not lane.from_start
            if not lane.said:
                lane.timer = self.after(0.0, self._say, lane)

    def decide(
        self, lane: BannerLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        """A byte or FIN of the peer comes first: the banner goes in front of it."""
        if lane.line:
            lane.line += (stream.tobytes(), None) if stream.flags & DISCONNECT else (stream.tobytes(),)
            block(packet, answer)
        elif not lane.said:
            self._settle(lane)
            inject_here(self, lane, stream, self._text, packet, answer)

    def _say(self, lane: BannerLane) -> None:
        lane.timer = None
        insist(self, lane.flow_id, partial(self._inject, lane))

    def _inject(self, lane: BannerLane) -> NtStatus:
        """OOB-5 (c): no byte of this direction was decided yet; (a): what came meanwhile was blocked."""
        status = NtStatus.STATUS_SUCCESS
        if lane.said:
            return status
        if not lane.line:
            lane.line.append(self._text)
        while lane.line:
            status = self._inject_one(lane, lane.line[0])
            if not status.ok:
                self._let_others(lane)
                return status
            lane.line.popleft()
        lane.said = True
        return status

    def _inject_one(self, lane: BannerLane, what: bytes | None) -> NtStatus:
        if what is None:
            return self.inject_fin(lane.flow_id, lane.layer_id, lane.flags)
        if not what:
            return NtStatus.STATUS_SUCCESS
        return self.inject(lane.flow_id, lane.layer_id, lane.flags, what)

    def _let_others(self, lane: BannerLane) -> None:
        """The banner was refused and nothing stands behind it: whatever comes first may have it in front."""
        if len(lane.line) == 1 and lane.line[0] is self._text:
            lane.line.clear()

    def _settle(self, lane: BannerLane) -> None:
        lane.said = True
        self.closed(lane)

    def closed(self, lane: BannerLane) -> None:
        """Say nothing any more."""
        if lane.timer is not None:
            lane.timer.cancel()
            lane.timer = None

    def drain(self) -> None:
        """A banner that is not out yet stays unsaid; what stands behind one has to go."""
        super().drain()
        for lane in self.lanes:
            if lane.line and not self._inject(lane).ok:
                self.fwps.flow_abort(lane.flow_id)
            self._settle(lane)
