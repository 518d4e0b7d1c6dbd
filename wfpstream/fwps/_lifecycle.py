"""The life of a flow: its stages, its end, and what happens in between settlings.

Owns building and rebuilding the pipeline (MGMT-11, MID-1), taking a flow down (IND-18, DRP-2, DRP-3) and the
order of its last callbacks (CTX-21). It must not know how a connection was authorised.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from wfpstream.fwp import NtStatus, profile_at_least

from . import _stream_state as rules
from ._constants import MetadataField
from ._flow import ABORT_FLUSH, ABORT_NOW, ENDED, ENDING, LIVE, Stage
from ._records import IncomingMetadataValues
from ._watched_metadata import watched_metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._callout import CalloutEntry, CalloutTable
    from ._contexts import Contexts
    from ._core import Core
    from ._filter import Filter2
    from ._flow import Flow, Lane
    from ._injection import Injector
    from ._ownership import Ownership
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
        callouts: CalloutTable,
        waterfall: Waterfall,
        ownership: Ownership,
        contexts: Contexts,
        injector: Injector,
    ) -> None:
        self.core = core
        self.callouts = callouts
        self.waterfall = waterfall
        self.ownership = ownership
        self.contexts = contexts
        self.injector = injector
        self.flow_ended: Callable[[Flow], None] = lambda flow: None  # the workers' part
        core.pump = self.pump
        core.finish = self.finish
        core.complete = injector.complete
        core.strict_fault = self.strict_fault

    # -- the pipeline ----------------------------------------------------------------------------------

    def build(self, flow: Flow) -> None:
        """The stages of a new flow: every stream filter that matches, in order (ARB-1, MGMT-12)."""
        flow.stages = [self._stage(flow, f, False) for f in self._matching(flow)]
        self._arrange(flow)
        self._lint_sub_layers(flow.stages, {id(stage) for stage in flow.stages})

    def rebuild(self, flow: Flow) -> None:
        """MGMT-11: a committed change reaches a running flow at a byte boundary; new stages are mid-stream."""
        flow.needs_stages = False
        wanted = self._matching(flow)
        old = flow.stages
        known = {stage.filter.filter_id: stage for stage in old}
        stages = [known.get(f.filter_id) or self._stage(flow, f, True) for f in wanted]
        kept = {id(stage) for stage in stages}
        self._keep_ghosts(flow, old, stages, kept)
        places = {id(stage): index for index, stage in enumerate(stages)}
        moved = [places[id(stage)] for stage in old]
        for lanes in flow.lanes:
            for lane in lanes:
                for run in (*lane.queue, *lane.outbox):
                    run.target = _moved_target(run.target, moved)
        flow.stages = stages
        self._arrange(flow)
        added = places.keys() - {id(stage) for stage in old}
        for direction in (0, 1):
            self._count_past(flow, direction, added)
        self._lint_sub_layers(stages, added)
        for stage in old:
            if id(stage) not in kept:
                for lane in stage.lanes:
                    self.waterfall.release_all(flow, lane)

    def _keep_ghosts(self, flow: Flow, old: list[Stage], stages: list[Stage], kept: set[int]) -> None:
        """A stage whose filter is gone stays, transparent, so that its share of the ledger stays with the flow."""
        for position, stage in enumerate(old):
            if id(stage) in kept:
                continue
            stage.retired = True
            before = old[position - 1] if position else None
            place = next((i + 1 for i, s in enumerate(stages) if s is before), 0)
            stages.insert(place, stage)

    def _count_past(self, flow: Flow, direction: int, added: set[int]) -> None:
        """What went by before a stage was there counts as bypassed (LED-2)."""
        original, injected = flow.read[direction] - flow.discarded_unread[direction], 0
        for lane in flow.lanes[direction]:
            if id(lane.stage) in added:
                lane.bypassed_o, lane.bypassed_i = original, injected
            waiting = [0, 0]  # bytes that have left this stage and not reached the next
            for run in lane.outbox:
                waiting[run.owner is not None] += run.length
            original = lane.permitted_o + lane.bypassed_o - waiting[0]
            injected = lane.permitted_i + lane.injected + lane.bypassed_i - waiting[1]

    def _matching(self, flow: Flow) -> list[Filter2]:
        values = flow.stream_values.incoming_value
        listener = flow.endpoints.listener
        return [f for f in self.core.filters.filters_at(flow.layer_id) if f.matches(values, listener)]

    def _stage(self, flow: Flow, filter: Filter2, later: bool) -> Stage:
        entry = self.callouts.find(filter.callout_key)
        stage = Stage(flow, filter, entry, later)
        meta = self._metadata(stage)
        meta.flow_handle = flow.id
        meta.compartment_id = 1
        meta.listener = flow.endpoints.listener
        meta.upstream_address = flow.upstream
        meta.redirect_context = flow.redirect_context
        stage.set_meta(meta)
        return stage

    def _metadata(self, stage: Stage) -> IncomingMetadataValues:
        """Watched under the verifier (MET-3)."""
        if self.core.options.verify.level == "off":
            return IncomingMetadataValues(STREAM_METADATA)
        lane = stage.lanes[0]

        def report(member: str) -> None:
            self.core.violation("V-30", f"metadata member {member} read without its presence bit", lane)

        return watched_metadata(STREAM_METADATA, report)

    def _arrange(self, flow: Flow) -> None:
        """Number the stages, find where each sublayer ends, and make the lanes reachable."""
        stages = flow.stages
        for index in range(len(stages) - 1, -1, -1):
            stage = stages[index]
            stage.index = index
            following = stages[index + 1] if index + 1 < len(stages) else None
            same = following is not None and following.filter.sub_layer_key == stage.filter.sub_layer_key
            stage.next_sub_layer = following.next_sub_layer if following is not None and same else index + 1
        flow.lanes = ([s.lanes[0] for s in stages], [s.lanes[1] for s in stages])
        for stage in stages:
            stage.refresh()

    def _lint_sub_layers(self, stages: list[Stage], added: set[int]) -> None:
        """V-47: two callout filters of one sublayer match the same flow; said once for each pair."""
        for heavy, light in pairwise([stage for stage in stages if not stage.retired]):
            if id(heavy) not in added and id(light) not in added:
                continue
            both = heavy.filter.callout_id and light.filter.callout_id
            if both and heavy.next_sub_layer > light.index and not heavy.is_inspection:
                self.core.violation(
                    "V-47",
                    "the heavier of two callout filters in one sublayer hides the other",
                    heavy.lanes[0],
                )

    def callout_changed(self, entry: CalloutEntry) -> None:
        """Registered or unregistered: REG-8, MID-1, UNR-6."""
        for flow in list(self.core.flows.values()):
            for stage in flow.stages:
                if stage.entry is not entry:
                    continue
                if entry.registered and entry.registered_at > flow.born:
                    stage.mid_stream = True
                    stage.set_meta(stage.meta or IncomingMetadataValues(STREAM_METADATA))
                stage.refresh()
                self.waterfall.stage_changed(flow, stage)

    # -- settling --------------------------------------------------------------------------------------

    def pump(self, flow: Flow) -> None:
        """Everything a flow can do now, short of callbacks that must wait for an empty stack."""
        if flow.phase != LIVE:
            return
        if flow.doomed is not None:
            self.terminate(flow)
            return
        if flow.needs_stages and not any(lane.remainder for lanes in flow.lanes for lane in lanes):
            self.rebuild(flow)
        self.flow_on(flow, 0)

    def flow_on(self, flow: Flow, first: int) -> None:
        """Let the stages act, from direction `first` on, and see what came of it."""
        for direction in range(first, 2):
            self.waterfall.run(flow, direction)
        if self.core.options.completion == "early":
            self.injector.complete_early_everywhere(flow)
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
        if any(lane.outstanding for lanes in flow.lanes for lane in lanes):
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
        count = flow.out[direction].discard()
        if count and self.core.tracing:
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
        self.flow_ended(flow)
        self.contexts.delete_all(flow)
        flow.phase = ENDED
        self.core.flows.pop(flow.id, None)
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
        known = self.core.reset_at
        if len(known) >= REMEMBERED_RESETS:
            known.pop(next(iter(known)))
        known[flow.id] = flow.reset_at

    def _leaks(self, flow_id: int) -> None:
        self.ownership.report_leaks(flow_id=flow_id)

    def _lint_pended_fin(self, flow: Flow) -> None:
        """V-52: a FIN pended for at least the grace and never injected."""
        now, grace = self.core.clock(), self.core.options.verify.grace
        for lanes in flow.lanes:
            for lane in lanes:
                if lane.fin_pended and now - lane.fin_pended_at >= grace:
                    self.core.violation("V-52", "a pended FIN was never injected", lane)

    def report_deleted(self, flow: Flow) -> None:
        """The last event of a flow, with its ledger (LED-4); a ledger that does not close is our defect (LED-5)."""
        if flow.reported:
            return
        flow.reported = True
        for direction in (0, 1):
            for line in flow.ledger(direction).faults():
                self.core.count("ledger_faults")
                if self.core.sinks:
                    self.core.emit("ledger_fault", flow, dir=flow.direction_name(direction), text=line)
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


def _moved_target(target: int, moved: list[int]) -> int:
    """Where a target index of the old pipeline lies in the new one."""
    if target < len(moved):
        return moved[target]
    return (moved[-1] if moved else -1) + 1
