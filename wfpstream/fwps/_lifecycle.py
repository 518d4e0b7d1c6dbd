"""The life of a flow: what happens in between settlings, and its end.

Owns taking a flow down (IND-18, DRP-2, DRP-3) and the order of its last callbacks (CTX-21). It must not know how a
connection was authorised, nor which stages a flow has (`_pipeline`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wfpstream.fwp import NtStatus, profile_at_least

from . import _stream_state as rules
from ._bookkeeping import put_away
from ._constants import MetadataField
from ._core import PastFlow
from ._flow import ABORT_FLUSH, ABORT_NOW, ENDED, ENDING, LIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._contexts import Contexts
    from ._core import Core
    from ._flow import Flow, Lane
    from ._injection import Injector
    from ._ownership import Ownership
    from ._pipeline import Pipeline
    from ._retiring import Retiring
    from ._waterfall import Waterfall

REMEMBERED_RESETS = 1000
STREAM_METADATA = int(
    MetadataField.FLOW_HANDLE | MetadataField.SYSTEM_FLAGS | MetadataField.COMPARTMENT_ID
)  # MET-1


class Lifecycle:
    """Builds, settles and ends the flows of one engine."""

    def __init__(
        self,
        core: Core,
        waterfall: Waterfall,
        ownership: Ownership,
        contexts: Contexts,
        injector: Injector,
        pipeline: Pipeline,
        retiring: Retiring,
    ) -> None:
        self.core = core
        self.waterfall = waterfall
        self.ownership = ownership
        self.contexts = contexts
        self.injector = injector
        self.pipeline = pipeline
        self.retiring = retiring
        self.flow_ended: Callable[[Flow], None] = lambda flow: None  # the workers' part
        core.pump = self.pump
        core.finish = self.finish
        core.complete = injector.complete
        core.strict_fault = self.strict_fault

    # -- settling --------------------------------------------------------------------------------------

    def pump(self, flow: Flow) -> None:
        """Everything a flow can do now, short of callbacks that must wait for an empty stack."""
        if flow.phase != LIVE:
            return
        if flow.doomed is not None:
            self.terminate(flow)
            return
        if flow.needs_stages and not any(lane.remainder for lanes in flow.lanes for lane in lanes):
            self.pipeline.rebuild(flow)
        self.flow_on(flow, 0)

    def flow_on(self, flow: Flow, first: int) -> None:
        """Let the stages act, from direction `first` on, and see what came of it."""
        for direction in range(first, 2):
            self.waterfall.run(flow, direction)
        if self.core.options.completion == "early":
            self.injector.complete_early_everywhere(flow)
        if flow.draining:
            self.retiring.look_at(flow)
        if flow.doomed is None:
            self._check_taken(flow)
            if not flow.marked:  # one direction may have given the other more to do
                self.finish_if_done(flow)

    def _check_taken(self, flow: Flow) -> None:
        """IND-24: bytes a worker took never stop the reading, so their limit is a policy's."""
        limit = self.core.options.limits.taken
        for direction in (0, 1):
            told, flow.over_taken[direction] = flow.over_taken[direction], flow.taken[direction] > limit
            if told or not flow.over_taken[direction]:
                continue
            lane = next((x for x in flow.lanes[direction] if x.pended_bytes), None)
            self.waterfall.report_policy(flow, lane, "on_limit", self.core.options.policy.on_limit)
            self.drain_or_drop(flow, lane)

    def drain_or_drop(self, flow: Flow, lane: Lane | None) -> None:
        """POL-3: permit and bypass ask the callout to drain; without that they are `drop`."""
        owner = lane.stage.entry.owner if lane is not None and lane.stage.entry is not None else None
        if self.core.options.policy.on_limit != rules.POLICY_DROP and owner is not None and owner.drains:
            self.core.at(self.core.clock(), owner.drain)
        else:
            self.waterfall.doom(flow, "drop")

    def strict_fault(self, lane: Lane) -> None:
        """`--verify strict`: an E-class violation meets `on_callout_error`."""
        flow = lane.stage.flow
        if flow.phase != LIVE:
            return
        policy = rules.policy_for(self.core.options.policy.on_callout_error, lane.stage.filter.action_type)
        if policy == rules.POLICY_DROP:
            self.waterfall.doom(flow, "drop")
        elif policy == rules.POLICY_BYPASS:
            lane.stage.allowed = True
            lane.stage.refresh()
            self.core.mark(flow)

    # -- the end ---------------------------------------------------------------------------------------

    def finish_if_done(self, flow: Flow) -> None:
        """OBJ-13: both FINs performed, nothing owed, no injection pending."""
        if flow.phase != LIVE or flow.doomed is not None:
            return
        if not (flow.out[0].fin_done and flow.out[1].fin_done):
            return
        if flow.out[0].length or flow.out[1].length:
            return
        for lanes in flow.lanes:
            for lane in lanes:
                if lane.outstanding:
                    return
        flow.end_reason = "fin"
        self.waterfall.discard_queues(flow)  # bytes behind an injected FIN that a stage still holds
        flow.end_status = NtStatus.STATUS_CONNECTION_DISCONNECTED
        flow.phase = ENDING
        self.core.ending.append(flow)

    def terminate(self, flow: Flow) -> None:
        """Reset, drop or abort: discard, then ABORT indications, then the last callbacks (IND-18, DRP-3)."""
        assert flow.doomed is not None
        reason, leg = flow.doomed
        flow.end_reason = reason
        if self.core.options.verify.level != "off":
            self._lint_pended_fin(flow)
        self.waterfall.discard_queues(flow)
        if leg is None:
            self.give_up_output(flow, 0)
            self.give_up_output(flow, 1)
            flow.abort = ABORT_NOW
            flow.end_status = NtStatus.STATUS_CONNECTION_ABORTED
        else:
            self.give_up_output(flow, 1 - leg)  # what the dead leg should have received
            flow.abort = ABORT_FLUSH
            flow.end_status = NtStatus.STATUS_CONNECTION_RESET
            self._indicate_abort(flow, leg)
        flow.phase = ENDING
        self.core.touch(flow)
        self.core.ending.append(flow)

    def give_up_output(self, flow: Flow, direction: int) -> None:
        """What is still owed in that direction is lost: `discarded_out` (IND-18, DRP-4)."""
        output = flow.out[direction]
        if not output.length:
            return
        count = output.discard()
        if self.core.tracing:
            self.core.emit("discard", flow, dir=flow.direction_name(direction), len=count, reason="unsent")

    def _indicate_abort(self, flow: Flow, leg: int) -> None:
        """IND-16: once per direction of origin, to every stage that knows the flow."""
        options = self.core.options
        if not options.indicate_abort or not profile_at_least(options.profile, "win7"):
            return
        for stage in flow.stages:
            stage.lanes[leg].missed += flow.hole[leg]  # POL-4: nothing else of this direction follows
            if stage.kind == rules.CALL and (stage.ever_classified or stage.context):
                self.waterfall.indicate_abort(flow, stage, leg)

    def finish(self, flow: Flow) -> None:
        """CTX-21: no more classify, completions, flowDelete per stage order, id invalid."""
        verify = self.core.options.verify
        if self.injector.fail_outstanding(flow, flow.end_status):
            self.core.ending.append(flow)  # the completions run first
            return
        if verify.hints:
            self._hint_at_lost_bytes(flow)
            self.waterfall.order_hints.forget(lane for lanes in flow.lanes for lane in lanes)
        if flow.time_limit is not None:
            flow.time_limit.cancel()
            flow.time_limit = None
        if flow.workers:
            self.flow_ended(flow)
        self.contexts.delete_all(flow)
        flow.phase = ENDED
        self.core.flows.pop(flow.id, None)
        self.retiring.flow_ended(flow)
        self.core.touch(flow)
        if verify.level != "off" and flow.resetting_leg >= 0:
            self._remember_reset(flow)
        if verify.level != "off" and any(r.flow_id == flow.id for r in self.ownership.live):
            due = self.core.clock() + verify.grace
            self.core.at(due, lambda: self._leaks(flow.id))
        if flow.gone_reported:
            self.report_deleted(flow)

    def _hint_at_lost_bytes(self, flow: Flow) -> None:
        """V-20, a hint: plain removal is legal, but so looks a private copy that was forgotten at the end (INL-5)."""
        for lanes in flow.lanes:
            for lane in lanes:
                if lane.uncompensated:
                    self.core.violation("V-20", "bytes were blocked and never made up for", lane)

    def _remember_reset(self, flow: Flow) -> None:
        """V-37 is about injections long after a reset, when the flow itself is forgotten."""
        known = self.core.reset
        if len(known) >= REMEMBERED_RESETS:
            known.pop(next(iter(known)))
        filters = {stage.filter.callout_id: stage.filter.filter_id for stage in reversed(flow.stages)}
        known[flow.id] = PastFlow(flow.number, flow.reset_at, filters)

    def _leaks(self, flow_id: int) -> None:
        self.ownership.report_leaks(flow_id=flow_id)

    def _lint_pended_fin(self, flow: Flow) -> None:
        """V-52: a FIN pended for at least the grace and never injected."""
        now, grace = self.core.clock(), self.core.options.verify.grace
        for lanes in flow.lanes:
            for lane in lanes:
                if lane.fin_pended and now - lane.fin_pended_at >= grace:
                    self.core.violation("V-52", "a pended FIN was never injected", lane)

    def _report_faults(self, flow: Flow) -> None:
        for direction in (0, 1):
            for line in flow.ledger(direction).faults():
                self.core.count("ledger_faults")
                if self.core.sinks:
                    self.core.emit("ledger_fault", flow, dir=flow.direction_name(direction), text=line)

    def report_deleted(self, flow: Flow) -> None:
        """The last event of a flow, with its ledger (LED-4); a ledger that does not close is our defect (LED-5)."""
        if flow.reported:
            return
        flow.reported = True
        if not put_away(flow, self.core.options.verify.level != "off"):
            self._report_faults(flow)
        if not self.core.sinks:
            return
        ledger: dict[str, Any] = {flow.direction_name(d): flow.ledger(d).summary() for d in (0, 1)}
        self.core.emit(
            "flow_deleted",
            flow,
            reason=flow.end_reason,
            ledger=ledger,
            duration=self.core.clock() - flow.established_at,
        )
