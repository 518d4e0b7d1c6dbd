"""What the first stage holds for NEED_MORE_DATA, made longer by one item, and nothing else going on (NMD-2).

A stream may come in millions of such items. Owns the short form of taking one, and when that is all there is to do;
`Flow.plain` remembers it (see `_plain`). It must not have effects of its own: `tests/rules/test_straight` compares it
with the general way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._flow import LIVE
from ._run import Run
from ._stream_state import CALL, DEFERRED, FLUSH_FLAG, NEED_MORE

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow, Lane

# Flow.plain, by direction: a stage holds what came, all of it is kept and counted, and it may be read on.
HELD: Final = (16, 32)
_NODELAY, _PUSH = FLUSH_FLAG


class HeldWay:
    """One per engine."""

    __slots__ = ("_core",)

    def __init__(self, core: Core) -> None:
        self._core = core

    def add(self, flow: Flow, direction: int, view: memoryview) -> bool:
        """The item is copied behind what is held, which still is not enough. False: nothing was done."""
        lanes, core = flow.lanes[direction], self._core
        if not lanes or not core.plain or core.frame is not None:
            return False
        lane = lanes[0]
        length = len(view)
        visible = lane.visible + length
        limits = core.options.limits
        if (
            visible >= lane.required
            or visible >= limits.need_more_data
            or (flow.stored + length) * 2 >= limits.per_flow
            or (core.stored + length) * 2 >= limits.total
            or not length
        ):
            return False
        if flow.plain != HELD[direction]:
            if not self.only_holds(flow, direction, lane):
                return False
            flow.plain = HELD[direction]
        flags = _PUSH if direction else _NODELAY if flow.endpoints.nodelay else 0  # IND-5, IND-6
        offset = flow.read[direction]
        tail = lane.queue[-1]
        if tail.seen or tail.target or not tail.extend(view, flags, offset):
            self._append(lane, Run(view, None, flags, 0, offset, True))
        lane.visible = visible
        lane.bytes += length
        flow.queued += length
        flow.stored += length
        core.stored += length
        flow.read[direction] = offset + length
        flow.activity = core.clock()
        return True

    def _append(self, lane: Lane, run: Run) -> None:
        tail = lane.queue[-1]
        if tail.target or not tail.absorb(run):
            run.keep()
            lane.queue.append(run)

    def only_holds(self, flow: Flow, direction: int, lane: Lane) -> bool:
        """The first stage of that direction waits for more; all that is held is kept and counted; nothing is full."""
        limits, out = self._core.options.limits, flow.out
        return (
            lane.mode == NEED_MORE
            and lane.stage.kind == CALL
            and flow.phase == LIVE
            and flow.doomed is None
            and flow.stored == flow.queued + flow.pended_total
            and bool(limits.unsent and limits.injected and limits.pended)
            and not (
                lane.fresh
                or lane.urgent_queued
                or lane.fin_queued
                or lane.let_go
                or out[0].length
                or out[1].length
                or flow.marked
                or flow.needs_stages
                or flow.draining
                or flow.input_ended[direction]
                or flow.paused[direction]
                or flow.injected[direction]
                or flow.pended_waiting[direction]
                or flow.hole[direction]
                or any(flow.over_taken)
                or any(other.fresh or other.outbox for others in flow.lanes for other in others)
                or any(other.mode == DEFERRED for other in flow.lanes[1])
            )
        )
