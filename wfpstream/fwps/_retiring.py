"""Retiring a filter: its stages finish what they have, get nothing new, and then are gone (MGMT-16).

Owns when a stage, and with the last one the filter, has nothing left to do, and the end by force when that takes too
long. A direction of a stage is let go by itself as soon as it is idle: one that waits for the other direction's
answer must not keep that answer back. It must not know management objects: who retires a filter says whom to tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import _stream_state as rules
from ._stream_state import DEFERRED, IDLE
from ._violations import CALLOUT_FAULTS

if TYPE_CHECKING:
    from ._callout import CalloutTable, ComfortableCallout
    from ._core import Core
    from ._filter import Filter2
    from ._flow import Flow, Lane, Stage
    from ._timers import Timer
    from ._waterfall import Waterfall


class Retirement:
    """One filter on its way out: the flows that still have a stage of it, and who is told when none has."""

    __slots__ = ("asked_to_drain", "asking", "filter", "flows", "gone", "timer")

    def __init__(self, filter: Filter2, flows: set[int], gone: Callable[[], None]) -> None:
        self.filter = filter
        self.flows = flows
        self.gone = gone
        self.timer: Timer | None = None
        self.asked_to_drain = False
        self.asking = False


class Retiring:
    """The filters of one engine that are on their way out."""

    def __init__(self, core: Core, callouts: CalloutTable, waterfall: Waterfall) -> None:
        self._core = core
        self._callouts = callouts
        self._waterfall = waterfall
        self._going: dict[int, Retirement] = {}

    def __contains__(self, filter_id: int) -> bool:
        return filter_id in self._going

    def begin(self, filter: Filter2, gone: Callable[[], None]) -> bool:
        """The filter is in force no more. True: no flow has a stage of it, so it is gone already.

        Otherwise `gone` is called, outside of all callbacks, when the last stage has finished, or has been ended by
        force after `timeouts.drain`.
        """
        flows = {flow.id for flow in self._core.flows.values() if _stages_of(flow, filter.filter_id)}
        if not flows:
            self._ask_to_drain(
                self._owner(filter)
            )  # it may have been the last that kept others from being asked
            return True
        retirement = Retirement(filter, flows, gone)
        self._going[filter.filter_id] = retirement
        limit = self._core.options.timeouts.drain
        if limit:
            due = self._core.clock() + limit
            retirement.timer = self._core.at(due, lambda: self._too_late(filter.filter_id))
        self._ask_to_drain(self._owner(filter))
        return False

    def _ask_to_drain(self, owner: ComfortableCallout | None) -> None:
        """A callout that no filter in force names releases what it pends or defers (MGMT-16, `drain`).

        One that has nothing of the kind is not asked: what it waits for still comes to it, and it is to decide on it
        as ever. Drained, it would let it pass.
        """
        if owner is None or not owner.drains or self._is_in_force(owner):
            return
        going = [other for other in self._going.values() if self._owner(other.filter) is owner]
        if not any(self._keeps_something_back(other) for other in going):
            return
        if any(other.asked_to_drain for other in going):
            return
        for other in going:
            other.asked_to_drain = True
        try:
            owner.drain()
        except CALLOUT_FAULTS as error:
            text = f"{type(error).__name__} out of drain: {error}"
            entry = self._callouts.find(going[0].filter.callout_key)
            self._core.violation("V-40", text, entry=entry, error=error)

    def _keeps_something_back(self, retirement: Retirement) -> bool:
        """Pended or deferred bytes, or a worker, which may have copies that nobody sees."""
        return any(
            self._worker(lane) is not None or _keeps_back(lane)
            for flow_id in retirement.flows
            for stage in _stages_of(self._core.flows[flow_id], retirement.filter.filter_id)
            for lane in stage.lanes
        )

    def _worker(self, lane: Lane) -> Any:
        owner = lane.stage.entry.owner if lane.stage.entry is not None else None
        return lane.stage.flow.workers.get((id(owner), lane.direction))

    def _works(self, lane: Lane) -> bool:
        """Its worker was told to drain, and is not through."""
        worker = self._worker(lane)
        return worker is not None and worker.draining and not worker.is_drained

    def _tell_a_late_worker(self, lane: Lane) -> None:
        """One that began when its callout had been asked, or was not asked as it had nothing then.

        It may have copies in hand of what it has released, and must not lose its callout over them. One whose
        callout stays, as another filter names it, goes on as ever.
        """
        worker = self._worker(lane)
        if worker is not None and not worker.draining and not self._is_in_force(worker.callout):
            worker.tell_to_drain()

    def _is_in_force(self, owner: ComfortableCallout) -> bool:
        return any(self._owner(filter) is owner for filter in self._core.filters)

    def _owner(self, filter: Filter2) -> ComfortableCallout | None:
        entry = self._callouts.find(filter.callout_key)
        return entry.owner if entry is not None else None

    # -- a flow's part -----------------------------------------------------------------------------------

    def look_at(self, flow: Flow) -> None:
        """Let go of the directions and stages of a flow that have become idle."""
        if flow.doomed is not None:
            return
        changed = False
        for stage in flow.stages:
            if not stage.draining:
                continue
            changed = self._has_let_go(flow, stage) or changed
            if any(_keeps_back(lane) for lane in stage.lanes):  # perhaps only since it got what it waited for
                self._ask_later(stage)
            if all(lane.let_go and is_idle(lane) for lane in stage.lanes):
                changed = True
                self._leave(flow, stage)
        if changed:
            flow.draining = any(stage.draining for stage in flow.stages)
            self._core.mark(flow)

    def _ask_later(self, stage: Stage) -> None:
        """`drain` is not called on top of a settling loop."""
        retirement = self._going.get(stage.filter.filter_id)
        if retirement is not None and not retirement.asked_to_drain and not retirement.asking:
            retirement.asking = True
            self._core.at(self._core.clock(), lambda: self._ask_now(retirement))

    def _ask_now(self, retirement: Retirement) -> None:
        retirement.asking = False
        self._ask_to_drain(self._owner(retirement.filter))

    def _has_let_go(self, flow: Flow, stage: Stage) -> bool:
        """Whether a direction of the stage is done since the last look."""
        changed = False
        for lane in stage.lanes:
            if lane.let_go or not holds_nothing(lane):
                continue
            self._tell_a_late_worker(lane)
            if not self._works(lane):
                lane.let_go = changed = True
                if lane.queue:
                    self._waterfall.release_all(flow, lane)
        return changed

    def _leave(self, flow: Flow, stage: Stage) -> None:
        """The stage stays in its place, transparent, until the pipeline is rebuilt."""
        stage.draining = False
        stage.retired = True
        stage.refresh()
        self._left(flow, stage.filter.filter_id)

    def flow_ended(self, flow: Flow) -> None:
        """Its stages need no longer be waited for."""
        for stage in flow.stages:
            if stage.filter.filter_id in self._going:
                self._left(flow, stage.filter.filter_id)

    def _left(self, flow: Flow, filter_id: int) -> None:
        retirement = self._going.get(filter_id)
        if retirement is None:
            return
        retirement.flows.discard(flow.id)
        if retirement.flows:
            return
        del self._going[filter_id]
        if retirement.timer is not None:
            retirement.timer.cancel()
        self._tell(retirement)

    # -- by force ----------------------------------------------------------------------------------------

    def end_now(self, filter_id: int) -> Retirement | None:
        """End what is left of a retiring filter by force (MGMT-13); nobody is told. None: it is gone already."""
        retirement = self._going.pop(filter_id, None)
        if retirement is None:
            return None
        if retirement.timer is not None:
            retirement.timer.cancel()
        for flow_id in sorted(retirement.flows):
            flow = self._core.flows[flow_id]
            for stage in _stages_of(flow, filter_id):
                self.end_stage(flow, stage)
            flow.draining = any(stage.draining for stage in flow.stages)
            self._core.mark(flow)
        self._core.request_turn()
        return retirement

    def _too_late(self, filter_id: int) -> None:
        going = self._going[filter_id]
        flow = self._core.flows[min(going.flows)] if going.flows else None
        entry = next((stage.entry for stage in _stages_of(flow, filter_id)), None) if flow else None
        text = f"filter {going.filter.name!r} had not finished when `timeouts.drain` passed"
        self._core.violation("V-38", text, flow=flow, entry=entry, filter_id=filter_id, judged=True)
        retirement = self.end_now(filter_id)
        if retirement is not None:
            self._tell(retirement)

    def _tell(self, retirement: Retirement) -> None:
        """Later: notifyFn and change callbacks run at PASSIVE, not on top of a settling loop."""
        self._core.at(self._core.clock(), retirement.gone)

    def end_stage(self, flow: Flow, stage: Stage) -> None:
        """MGMT-13: what the stage holds goes on as permitted, a pended FIN too.

        Pended bytes are the callout's, which cannot give them back any more. A stream with a hole in it must not
        look whole: such a flow is aborted.
        """
        stage.draining = False
        stage.retired = True
        stage.refresh()
        lost = next((lane for lane in stage.lanes if lane.pended_buffers or self._works(lane)), None)
        if lost is not None:
            place = {"dir": flow.direction_name(lost.direction), "len": lost.pended_bytes}
            self._waterfall.report_policy(flow, lost, "drain", rules.POLICY_DROP, **place)
            self._waterfall.doom(flow, "drop")
            return
        for lane in stage.lanes:
            self._waterfall.release_all(flow, lane)
            if lane.fin_pended:
                self._waterfall.release_fin(flow, lane)


def is_idle(lane: Lane) -> bool:
    """MGMT-14 turned round: nothing shown and undecided, nothing pended, no injection under way."""
    return holds_nothing(lane) and not lane.outstanding


def holds_nothing(lane: Lane) -> bool:
    """Nothing shown and undecided, nothing pended.

    Injections under way are below the stage already, and new bytes come behind them: waiting for them would wait for
    ever where a stage below needs those bytes to go on.
    """
    return (
        lane.mode == IDLE
        and not lane.remainder
        and not lane.pended_buffers
        and not lane.fin_pended
        and not lane.outbox
    )


def _keeps_back(lane: Lane) -> bool:
    return lane.mode == DEFERRED or lane.pended_buffers > 0 or lane.fin_pended


def _stages_of(flow: Flow, filter_id: int) -> list[Stage]:
    return [stage for stage in flow.stages if stage.filter.filter_id == filter_id and not stage.retired]
