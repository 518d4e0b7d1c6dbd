"""The straight way: one item through stages that hold nothing, each of which passes it on whole.

Owns the short form of what `_waterfall`, `_passage` and the settling loop do together in that case, which is nearly
every item of nearly every flow. It must not have effects of its own: whatever is out of the ordinary, before or
after any stage, is handed to the general way in the very state in which that would be (`tests/rules/test_straight`
compares the two).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ._flow import LIVE
from ._pieces import Pieces
from ._run import EMPTY_VIEW, Run
from ._stream_state import CALL, DATA, DIRECTION_FLAG, DISCONNECT_FLAG, FIN, FLUSH_FLAG, NO_MORE_DATA, PERMIT

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow, Lane
    from ._lifecycle import Lifecycle
    from ._records import ClassifyOut, StreamCalloutIoPacket
    from ._waterfall import Waterfall

Answer = tuple["ClassifyOut", "StreamCalloutIoPacket"]


class StraightWay:
    """One per engine."""

    __slots__ = ("_classifier", "_core", "_lifecycle", "_pieces", "_place", "_waterfall")

    def __init__(self, core: Core, waterfall: Waterfall, lifecycle: Lifecycle) -> None:
        self._core = core
        self._waterfall = waterfall
        self._classifier = waterfall.classifier
        self._lifecycle = lifecycle
        self._pieces = Pieces(core, waterfall)
        # Stands in for a lane's queue while its callout is asked.
        self._place: deque[Run] = deque((Run(EMPTY_VIEW, None, 0, 0, 0),))

    def is_open(self, flow: Flow, direction: int) -> bool:
        """Nothing is before the next item, and settling would have nothing else to do."""
        return not (
            flow.occupied[direction]
            or flow.input_ended[direction]
            or flow.out[direction].fin_run is not None
            or len(flow.stages) >= self._core.options.callbacks_per_turn
        ) and self.is_quiet(flow)

    def is_quiet(self, flow: Flow) -> bool:
        """Settling would find nothing to do, of this flow or any other."""
        core = self._core
        return not (
            flow.phase != LIVE
            or flow.doomed is not None
            or flow.needs_stages
            or flow.draining
            or core.dirty
            or core.due
            or core.ending
            or core.running
            or core.frame is not None
            or flow.over_taken[0]
            or flow.over_taken[1]
        )

    def take(self, flow: Flow, direction: int, run: Run) -> None:
        """An item of plain original bytes, where `is_open`. Does what `Inputs._settle` does with it (CMP-15)."""
        core = self._core
        if not flow.stages:
            self._emerge(flow, direction, run)
            if core.touched:
                core.after_outside_call(flow)
            return
        core.running = True
        core.callbacks = 0
        try:
            if not self._pass_stages(flow, direction, run):
                self._lifecycle.flow_on(flow, direction)
                core.work()
        finally:
            core.running = False
            if core.events:
                core.deliver_events()
        if core.touched:
            core.after_outside_call(flow)

    def take_fin(self, flow: Flow, direction: int, run: Run) -> None:
        """A FIN by itself, where `is_open`. Does what `Inputs._settle` does with it."""
        core = self._core
        core.running = True
        core.callbacks = 0
        try:
            if not self._end_stages(flow, direction, run):
                self._lifecycle.flow_on(flow, direction)
                core.work()
        finally:
            core.running = False
            if core.events:
                core.deliver_events()
        if core.touched:
            core.after_outside_call(flow)

    def _end_stages(self, flow: Flow, direction: int, run: Run) -> bool:
        """Tell the stages in turn of the FIN. False: there is more to do, the general way does it."""
        core, place = self._core, self._place
        place[0] = run
        occupied = flow.occupied
        flags = DIRECTION_FLAG[direction] | DISCONNECT_FLAG[direction]
        for index, lane in enumerate(flow.lanes[direction]):
            stage = lane.stage
            if stage.kind != CALL or run.target > index or lane.closed:
                occupied[direction] = False
                self._waterfall.deliver(flow, direction, run, index)
                return not (occupied[direction] or core.dirty or core.due)
            # As Lane.append and show.
            occupied[direction] = True
            own, lane.queue = lane.queue, place
            lane.fin_queued = True
            lane.show(run)
            # As Waterfall._indicate_fin.
            effect = 0
            try:
                answer = self._classifier.classify(
                    flow, lane, FIN, flags, [], 0, NO_MORE_DATA, run.answer, run.offset
                )
                effect = self._effect_on_all(flow, lane, answer, 0)
            finally:
                lane.queue = own
                if not effect:
                    lane.queue_up(run)
            if not effect:
                lane.fresh += 1
                self._waterfall.conclude(flow, lane, FIN, 0, flags, NO_MORE_DATA, answer)
                return False
            # As Waterfall._move, _move_fin and Passage._release, then Passage.deliver at the next stage.
            lane.fin_queued = False
            lane.asked_again = 0
            lane.held_since = 0.0
            lane.closed = True
            if lane.carry:
                run.missed = lane.carry
                lane.carry = 0
            run.seen = False
            run.answer = answer[0].action_type  # type: ignore[index]
            run.target = stage.next_sub_layer if effect == PERMIT else index + 1
        occupied[direction] = False
        flow.out[direction].fin_run = run
        return not (core.dirty or core.due)

    def _pass_stages(self, flow: Flow, direction: int, run: Run) -> bool:
        """Ask the stages in turn. False: there is more to do, the general way does it."""
        core, place = self._core, self._place
        place[0] = run
        occupied = flow.occupied
        length = run.length
        flags = run.flags | DIRECTION_FLAG[direction]
        for index, lane in enumerate(flow.lanes[direction]):
            stage = lane.stage
            if stage.kind != CALL or run.target > index or lane.closed:
                occupied[direction] = False
                self._waterfall.deliver(flow, direction, run, index)
                return not (occupied[direction] or core.dirty or core.due)
            # As Lane.append, mark_seen and show.
            occupied[direction] = True
            own, lane.queue = lane.queue, place
            lane.bytes = lane.visible = length
            flow.queued += length
            lane.in_o += length
            run.seen = True
            if run.missed:
                lane.missed += run.missed
                lane.carry += run.missed
                run.missed = 0
            # As Waterfall._indicate for an item that met an idle stage: never NO_MORE_DATA (NMD-9).
            effect = 0
            try:
                answer = self._classifier.classify(
                    flow, lane, DATA, flags, [(run.view, run.provenance)], length, 0, run.answer, run.offset
                )
                effect = self._effect_on_all(flow, lane, answer, length)
            finally:
                lane.queue = own
                if not effect:
                    lane.queue_up(run)
            if not effect:
                lane.fresh += 1
                if not self._pieces.take(flow, lane, run, flags, answer):
                    return False
                occupied[direction] = False
                return not (core.dirty or core.due)
            # As Waterfall._move and Passage._release, then Passage.deliver at the next stage.
            lane.last_blocked = False
            lane.bytes = lane.visible = 0
            flow.queued -= length
            lane.asked_again = 0
            lane.held_since = 0.0
            lane.permitted_o += length
            if lane.carry:
                run.missed = lane.carry
                lane.carry = 0
            run.seen = False
            run.answer = answer[0].action_type  # type: ignore[index]
            run.target = stage.next_sub_layer if effect == PERMIT else index + 1
        occupied[direction] = False
        self._emerge(flow, direction, run)
        return not (core.dirty or core.due)

    def _effect_on_all(self, flow: Flow, lane: Lane, answer: Answer | None, length: int) -> int:
        """PERMIT or CONTINUE when that is the answer for all the bytes, or the FIN, and nothing else happened; or 0."""
        # A decision of a lane with out-of-band work is judged, and may be a fault (V-17): not the short way.
        judged = lane.pended_buffers or lane.fin_pended or lane.oob_ever
        if answer is None or lane.outbox or flow.removing or judged or flow.doomed is not None:
            return 0
        out, packet = answer
        enforced = packet.count_bytes_enforced
        if packet.stream_action or (enforced and enforced != length):
            return 0
        return lane.stage.passing.get(out.action_type, 0)

    def _emerge(self, flow: Flow, direction: int, run: Run) -> None:
        """As Passage._emerge; the driver looks at this flow now, so nobody need tell it to."""
        output = flow.out[direction]
        output.put(run)
        if run.flags & FLUSH_FLAG[direction]:
            output.push = True
