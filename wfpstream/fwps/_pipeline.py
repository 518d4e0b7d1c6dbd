"""Which stages a flow has: built when it begins, and rebuilt when the filters in force change.

Owns the pipeline (ARB-1, MGMT-11, MGMT-12, MID-1): which filters match, where each stage stands, and what becomes of
those whose filter is gone. It must not know how bytes travel through it, nor when a flow ends.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from ._constants import MetadataField
from ._flow import Stage
from ._records import IncomingMetadataValues
from ._watched_metadata import watched_metadata

if TYPE_CHECKING:
    from ._callout import CalloutEntry, CalloutTable
    from ._core import Core
    from ._filter import Filter2
    from ._flow import Flow, Lane
    from ._retiring import Retiring
    from ._waterfall import Waterfall

STREAM_METADATA = int(
    MetadataField.FLOW_HANDLE | MetadataField.SYSTEM_FLAGS | MetadataField.COMPARTMENT_ID
)  # MET-1


class Pipeline:
    """Builds and rebuilds the stages of the flows of one engine."""

    def __init__(self, core: Core, callouts: CalloutTable, waterfall: Waterfall, retiring: Retiring) -> None:
        self.core = core
        self.callouts = callouts
        self.waterfall = waterfall
        self.retiring = retiring

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
        added = {id(stage) for stage in stages} - {id(stage) for stage in old}
        leaving = self._keep_leaving(old, stages)
        places = _without_idle_ghosts(stages)
        moved = [places[id(stage)] for stage in old]
        for lanes in flow.lanes:
            for lane in lanes:
                for run in (*lane.queue, *lane.outbox):
                    run.target = _moved_target(run.target, moved)
        flow.stages = stages
        self._arrange(flow)
        for direction in (0, 1):
            self._count_past(flow, direction, added)
        self._lint_sub_layers(stages, added)
        for stage in leaving:
            self.retiring.end_stage(flow, stage)
        flow.draining = any(stage.draining for stage in stages)

    def _keep_leaving(self, old: list[Stage], stages: list[Stage]) -> list[Stage]:
        """Stages whose filter is gone stay, transparent, so that their share of the ledger stays with the flow.

        Those of a retiring filter stay as they are until they are idle (MGMT-16). Returns those that leave now.
        """
        kept = {id(stage) for stage in stages}
        leaving = []
        for position, stage in enumerate(old):
            if id(stage) in kept:
                continue
            if stage.filter.filter_id in self.retiring:
                stage.draining = True
            elif not stage.retired:
                leaving.append(stage)
            before = old[position - 1] if position else None
            place = next((i + 1 for i, s in enumerate(stages) if s is before), 0)
            stages.insert(place, stage)
        return leaving

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
        listener = flow.endpoints.listener
        values = flow.stream_values
        return [
            filter
            for filter, match, _ in self.core.filters.candidates(flow.layer_id, listener).of(values)
            if match is None or match(values.incoming_value, listener)
        ]

    def _stage(self, flow: Flow, filter: Filter2, later: bool) -> Stage:
        entry = self.callouts.find_id(filter.callout_id)
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
        flow.nobody_asks = None
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
        if len(stages) < 2:
            return
        for heavy, light in pairwise([stage for stage in stages if not stage.retired and not stage.draining]):
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


def _without_idle_ghosts(stages: list[Stage]) -> dict[int, int]:
    """Fold each idle ghost into the ghost before it, so that a flow does not keep one for every filter it ever had.

    Returns the place of every stage by its identity, the folded ones' being that of what took them up.
    """
    places: dict[int, int] = {}
    kept: list[Stage] = []
    for stage in stages:
        last = kept[-1] if kept else None
        if last is not None and _is_idle_ghost(last) and _is_idle_ghost(stage):
            for lane, folded in zip(last.lanes, stage.lanes, strict=True):
                _fold(lane, folded)
        else:
            kept.append(stage)
        places[id(stage)] = len(kept) - 1
    stages[:] = kept
    return places


# What `_fold` adds up.
_SUMMED = (
    "in_o", "in_i", "permitted_o", "permitted_i", "blocked_o", "blocked_i", "discarded_o", "discarded_i",
    "unseen_discarded_o", "unseen_discarded_i", "injected", "carry",
)  # fmt: skip


def _fold(lane: Lane, following: Lane) -> None:
    """Give `lane` the counts of the next one: both are idle and their stages gone, and one place is enough.

    What left the first and reached the second is inside now, so the part of it that was not bypassed there no longer
    counts as bypassed here; every equation of the ledger still holds for the two as one.
    """
    lane.bypassed_o -= following.in_o + following.unseen_discarded_o
    lane.bypassed_i -= following.in_i + following.unseen_discarded_i
    for name in _SUMMED:
        setattr(lane, name, getattr(lane, name) + getattr(following, name))
    lane.closed = lane.closed or following.closed


def _is_idle_ghost(stage: Stage) -> bool:
    return stage.retired and all(
        not (lane.queue or lane.outbox or lane.outstanding or lane.pended_buffers or lane.fin_pended)
        for lane in stage.lanes
    )


def _moved_target(target: int, moved: list[int]) -> int:
    """Where a target index of the old pipeline lies in the new one."""
    if target < len(moved):
        return moved[target]
    return (moved[-1] if moved else -1) + 1
