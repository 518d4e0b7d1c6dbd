"""State per flow and direction, kept under a flow context.

Owns when a lane is made (first indication), when it is freed (flowDeleteFn), and which directions a callout
was asked to work on. It must not know what a callout keeps in its lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Generic, Literal, TypeVar

from wfpstream.fwp import NtStatus
from wfpstream.fwps import (
    LAYERS_BY_NAME,
    Callout,
    Filter,
    IncomingFlag,
    IncomingMetadataValues,
    IncomingValues,
)

from ._answers import RECEIVE, SEND
from ._insist import ENDED, insist

Direction = Literal["to_client", "to_upstream", "both", "inbound", "outbound"]


class Lane:
    """One direction of one flow, as one stage of a callout meets it.

    Attributes:
        flow_id: the flow handle.
        layer_id: STREAM_V4 or STREAM_V6.
        flags: SEND or RECEIVE, for injections.
        inbound: whether it is RECEIVE.
        direction: `to_client` or `to_upstream`.
        from_start: it was there from the first byte on, not added to a running flow (MET-4).
        filter_id: the stage it belongs to.
        pended: its bytes go out of band, and will to the end (OOB-3).
    """

    __slots__ = ("direction", "filter_id", "flags", "flow_id", "from_start", "inbound", "layer_id", "pended")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        self.flow_id = flow_id
        self.layer_id = layer_id
        self.inbound = inbound
        self.flags = RECEIVE if inbound else SEND
        self.direction = direction
        self.from_start = True
        self.filter_id = 0
        self.pended = False


class NoLane(Exception):
    """There is no memory for the state of a flow. Without it every indication would be taken for the first."""


LaneT = TypeVar("LaneT", bound=Lane)
Pair = tuple[LaneT | None, LaneT | None]
Opened = Callable[[list[LaneT], IncomingValues, IncomingMetadataValues], None]

_STREAM_V4, _STREAM_V6 = (int(layer) for layer in LAYERS_BY_NAME["stream"])
_ESTABLISHED_V4 = int(LAYERS_BY_NAME["ale_flow_established"][0])
_MID_STREAM = int(IncomingFlag.MID_STREAM_INSPECTION)


class Lanes(Generic[LaneT]):
    """The lanes of one callout object.

    A flow has two of them for each stage (filter) of the callout, since stages must not share the place where
    they stand in the stream. What is done once per connection has two in all, for the first stage asked.

    Args:
        callout: whose they are; its `flow_delete_fn` must call `free`.
        lane_class: what to make.
        direction: the directions the callout works on.
        per_stage: two lanes for each stage of a flow, or two for the flow.
        opened: told about new lanes of a flow, once for both.

    Attributes:
        pairs: where they are not `per_stage`, the two of each flow that has a context, by direction (0 SEND): the
            short way to what `find` returns, for a stage that was asked before (`filter_id`).
    """

    __slots__ = (
        "_callout",
        "_direction",
        "_flows",
        "_lane_class",
        "_opened",
        "_per_stage",
        "_refused",
        "pairs",
    )

    def __init__(
        self,
        callout: Callout,
        lane_class: type[LaneT],
        direction: str,
        *,
        per_stage: bool = True,
        opened: Opened[LaneT] | None = None,
    ) -> None:
        self._callout = callout
        self._lane_class = lane_class
        self._direction = checked_direction(direction)
        self._per_stage = per_stage
        self._opened = opened
        self._flows: dict[int, dict[int, Pair[LaneT]]] = {}
        self.pairs: dict[int, Pair[LaneT]] = {}
        # Flows that are to be reset; until that is done nothing of theirs may pass.
        self._refused: set[int] = set()

    def find(
        self, fixed: IncomingValues, meta: IncomingMetadataValues, filter: Filter, context: int, flags: int
    ) -> LaneT | None:
        """The lane of an indication, made on first use; None where the callout has nothing to do.

        Raises NoLane when the run time takes no context for the flow.
        """
        stages = self._flows.get(meta.flow_handle)
        if stages is None:
            if meta.flow_handle in self._refused:
                raise NoLane("refused when it was established")
            stages = self._open(meta.flow_handle, fixed.layer_id, context)
        filter_id = filter.filter_id
        pair = stages.get(filter_id if self._per_stage else 0)
        if pair is None:
            pair = self._pair(fixed, meta, fixed.layer_id)
            stages[filter_id if self._per_stage else 0] = pair
            if not self._per_stage and meta.flow_handle in self._flows:
                self.pairs[meta.flow_handle] = pair
        lane = pair[flags & RECEIVE]
        if lane is not None and lane.filter_id != filter_id:
            # A stage whose filter has retired leaves its place to the next one.
            if lane.filter_id and self._callout.fwps.has_stage(lane.flow_id, lane.filter_id, lane.inbound):
                return None
            lane.filter_id = filter_id
        return lane

    def establish(self, fixed: IncomingValues, meta: IncomingMetadataValues) -> None:
        """Make the lanes of a flow at ALE_FLOW_ESTABLISHED, before a byte comes (CTX-7); not `per_stage`.

        Raises NoLane when the run time takes no context for the flow.
        """
        if meta.flow_handle not in self._flows:
            layer_id = _STREAM_V4 if fixed.layer_id == _ESTABLISHED_V4 else _STREAM_V6
            stages = self._open(meta.flow_handle, layer_id, 0)
            stages[0] = pair = self._pair(fixed, meta, layer_id)
            if meta.flow_handle in self._flows:
                self.pairs[meta.flow_handle] = pair

    def refuse(self, flow_id: int) -> None:
        """Reset a flow there are no lanes for: its own classify must not decide that (V-44), so it is done soon."""
        self._refused.add(flow_id)
        self._callout.after(0.0, insist, self._callout, flow_id, partial(self._abort, flow_id))

    def _abort(self, flow_id: int) -> NtStatus:
        status = self._callout.fwps.flow_abort(flow_id)
        if status.ok or status in ENDED:
            self._refused.discard(flow_id)
        return status

    def get(self, flow_id: int, inbound: bool) -> LaneT | None:
        """The lane of a direction, if there is one; not `per_stage`."""
        pair = self._flows.get(flow_id, {}).get(0)
        return pair[inbound] if pair is not None else None

    def free(self, flow_context: int) -> list[LaneT]:
        """Forget the flow; its lanes, for what is still to be cancelled."""
        self.pairs.pop(flow_context, None)
        stages = self._flows.pop(flow_context, {})
        return [lane for pair in stages.values() for lane in pair if lane is not None]

    @property
    def is_empty(self) -> bool:
        """No flow has lanes here."""
        return not self._flows

    def __iter__(self) -> Iterator[LaneT]:
        """Every lane there is, oldest flow first."""
        for stages in list(self._flows.values()):
            for pair in list(stages.values()):
                yield from (lane for lane in pair if lane is not None)

    def _open(self, flow_id: int, layer_id: int, context: int) -> dict[int, Pair[LaneT]]:
        stages: dict[int, Pair[LaneT]] = {}
        callout = self._callout
        # The flow handle is nonzero and never reused (OBJ-11): a context without bookkeeping of its own.
        status = callout.fwps.flow_associate_context(flow_id, layer_id, callout.callout_id(layer_id), flow_id)
        if status == NtStatus.STATUS_SUCCESS or context:
            self._flows[flow_id] = stages
        elif not status.ok and status != NtStatus.STATUS_FWP_NOT_FOUND:
            raise NoLane(status.name)
        return stages  # else the flow is ending: used once, and forgotten

    def _pair(self, fixed: IncomingValues, meta: IncomingMetadataValues, layer_id: int) -> Pair[LaneT]:
        flow_id = meta.flow_handle
        inbound = self._callout.direction_of(flow_id, RECEIVE)
        outbound = "to_client" if inbound == "to_upstream" else "to_upstream"
        make, chosen = self._lane_class, self._direction
        is_both = chosen == "both"
        pair = (
            make(flow_id, layer_id, False, outbound)
            if is_both or works_on(chosen, outbound, False)
            else None,
            make(flow_id, layer_id, True, inbound) if is_both or works_on(chosen, inbound, True) else None,
        )
        lanes = [lane for lane in pair if lane is not None]
        if meta.flags & _MID_STREAM:
            for lane in lanes:
                lane.from_start = False
        if self._opened is not None:
            self._opened(lanes, fixed, meta)
        return pair


def works_on(chosen: str, direction: str, inbound: bool) -> bool:
    """Whether option `direction=chosen` takes in this direction (`to_client` or `to_upstream`) of a flow."""
    return chosen in ("both", direction, "inbound" if inbound else "outbound")


def checked_direction(direction: str) -> str:
    """The direction itself.

    Raises:
        ValueError: there is no such direction.
    """
    known = ("to_client", "to_upstream", "both", "inbound", "outbound")
    if direction not in known:
        raise ValueError(f"direction={direction!r}: expected one of {', '.join(known)}")
    return direction
