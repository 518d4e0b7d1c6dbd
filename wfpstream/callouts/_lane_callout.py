"""The bases of the built-in callouts: state per flow and direction, and what all of them leave alone.

Owns the way from `classify_fn` to the lane of the indication. Resets, urgent bytes, unchosen directions and
everything once a callout drains pass. It must not know any decision.
"""

from __future__ import annotations

from typing import Any, Generic

from wfpstream.fwp import CalloutFlags
from wfpstream.fwps import (
    Callout,
    ClassifyOut,
    Filter,
    IncomingMetadataValues,
    IncomingValues,
    OutOfBandCallout,
    StreamCalloutIoPacket,
    StreamData,
)

from ._answers import DISCONNECT, INJECTABLE, UNTOUCHED, block, drop, permit
from ._insist import ENDED
from ._lanes import Lane, Lanes, LaneT, NoLane, Opened

# Built-ins join flows that are already there: a test adds and removes them while it runs.
JOINS = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)


class LaneCallout(Callout, Generic[LaneT]):
    """Decides inline: `decide` answers each indication of a chosen direction."""

    flags = JOINS

    def __init__(
        self,
        lane_class: type[LaneT],
        direction: str,
        *,
        per_stage: bool = True,
        opened: Opened[LaneT] | None = None,
    ) -> None:
        self.lanes: Lanes[LaneT] = Lanes(self, lane_class, direction, per_stage=per_stage, opened=opened)
        self.draining = False

    def classify_fn(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Filter,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Permit, unless the lane decides otherwise."""
        permit(layer_data, classify_out)
        stream: StreamData = layer_data.stream_data
        if self.draining or stream.flags & UNTOUCHED:
            return
        try:
            lane = self.lanes.find(in_fixed_values, in_meta_values, filter, flow_context, stream.flags)
        except NoLane:
            drop(layer_data, classify_out)
            return
        if lane is not None:
            self.decide(lane, stream, layer_data, classify_out)

    def decide(
        self, lane: LaneT, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        """Answer one indication of data or FIN; the answer is PERMIT of everything until changed."""
        raise NotImplementedError

    def closed(self, lane: LaneT) -> None:
        """A lane is gone; cancel what was still to come."""

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        """The flow has ended: forget its lanes."""
        for lane in self.lanes.free(flow_context):
            self.closed(lane)

    def drain(self) -> None:
        """Pass everything from now on."""
        self.draining = True


class WorkerCallout(OutOfBandCallout, Generic[LaneT]):
    """Decides inline or leaves a direction to its worker: `pends` says which, each time.

    A direction that went out of band stays there (OOB-3), also when the callout drains: its worker then
    passes everything on at once. With several stages on a flow the first one asked does the work.
    """

    flags = JOINS

    def __init__(
        self, lane_class: type[LaneT], direction: str, *, opened: Opened[LaneT] | None = None
    ) -> None:
        self.lanes: Lanes[LaneT] = Lanes(self, lane_class, direction, per_stage=False, opened=opened)
        self.draining = False

    def classify_fn(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Filter,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Permit, unless the lane decides otherwise or leaves it to the worker."""
        permit(layer_data, classify_out)
        stream: StreamData = layer_data.stream_data
        if stream.flags & UNTOUCHED:
            return
        try:
            lane = self.lanes.find(in_fixed_values, in_meta_values, filter, flow_context, stream.flags)
        except NoLane:
            drop(layer_data, classify_out)
            return
        if lane is None or (self.draining and not lane.pended):
            return
        if self.pends(lane, stream, layer_data, classify_out):
            lane.pended = True
            super().classify_fn(
                in_fixed_values,
                in_meta_values,
                layer_data,
                classify_context,
                filter,
                flow_context,
                classify_out,
            )

    def pends(
        self, lane: LaneT, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> bool:
        """Whether the worker gets this indication; else it is answered here (PERMIT until changed)."""
        return True

    def closed(self, lane: LaneT) -> None:
        """A lane is gone; cancel what was still to come."""

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        """The flow has ended: forget its lanes."""
        for lane in self.lanes.free(flow_context):
            self.closed(lane)

    def drain(self) -> None:
        """Release what is pended now, in order, and pass everything from now on."""
        self.draining = True
        super().drain()


def inject_here(
    callout: Callout,
    lane: Lane,
    stream: StreamData,
    data: bytes,
    packet: StreamCalloutIoPacket,
    answer: ClassifyOut,
) -> bool:
    """Inject before the first byte indicated (INL-2); without room for it the connection is dropped.

    Passing the indication would show what was to be replaced, blocking it would lose it. Returns whether the
    data is in.
    """
    if not data or callout.inject(lane.flow_id, lane.layer_id, stream.flags & INJECTABLE, data).ok:
        return True
    drop(packet, answer)
    return False


def block_here(
    callout: Callout,
    lane: Lane,
    stream: StreamData,
    packet: StreamCalloutIoPacket,
    answer: ClassifyOut,
    count: int,
) -> None:
    """Take the first `count` bytes out of the stream, but never its end.

    With engine option `fin_with_data` the FIN is shown on the last bytes: blocking those would pend it (IND-14).
    """
    block(packet, answer, count)
    if stream.flags & DISCONNECT and count == stream.data_length:
        status = callout.inject_fin(lane.flow_id, lane.layer_id, lane.flags)
        if not status.ok and status not in ENDED:
            drop(packet, answer)
