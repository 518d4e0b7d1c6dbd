"""The passage between stages: how a run leaves one, passes those that do not look at it, and reaches the next.

Owns moving decided runs (ARB-3, ARB-6, ARB-13), what is lost on the way and when an injection has left the pipeline
(CMP-4, CMP-6). It must not know answers: `_waterfall` reads them and calls here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _stream_state as rules
from ._classify import Classifier
from ._order_hints import OrderHints
from ._run import EMPTY_VIEW, Run
from ._stream_state import IDLE

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow, Lane, Stage
    from ._patchwork import Patchwork


class Passage:
    """Moves runs from stage to stage; the base of `Waterfall`."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.classifier = Classifier(core)
        self.order_hints = OrderHints(core)
        self._flow: Flow | None = None
        self._direction = 0
        self._touched = 0

    # -- leaving a stage -------------------------------------------------------------------------------

    def _release(self, flow: Flow, lane: Lane, run: Run, destination: int, answer: int) -> Run | None:
        """A decided run leaves the stage; None when nothing can leave any more."""
        if not run.fin:
            if lane.closed:  # OOB-7: behind an injected FIN nothing can follow
                self._discard(flow, lane, run, "after_fin")
                return None
            lane.count_permitted(run)
        run.missed += lane.carry
        lane.carry = 0
        run.answer = answer
        run.last = True
        run.many = False
        run.target = destination
        lane.hand_on(run)
        return run

    def _block(self, flow: Flow, lane: Lane, run: Run) -> None:
        """ACT-12: the bytes are gone for everybody behind; ARB-11 lets them know how many."""
        lane.count_blocked(run)
        lane.carry += run.missed + (run.length if run.owner is None else 0)
        self._emit_discard(flow, lane.direction, run, "blocked", lane.stage)
        self.gone(run, run.length)

    def _discard(self, flow: Flow, lane: Lane, run: Run, reason: str) -> None:
        lane.count_discarded(run)
        self._emit_discard(flow, lane.direction, run, reason, lane.stage)
        self.gone(run, run.length)

    # -- transport between stages ------------------------------------------------------------------------

    def deliver(self, flow: Flow, direction: int, run: Run, index: int) -> None:
        """Put a run before the first stage at or behind `index` that must look at it, else into the output."""
        lanes = flow.lanes[direction]
        flow.plain = 0
        run.seen = False
        while index < len(lanes):
            lane = lanes[index]
            kind = lane.stage.kind
            owner = run.owner
            if owner is not None and owner.lane.stage.entry is lane.stage.entry and run.target <= index:
                run.target = index + 1  # INJ-2: never shown to the callout that injected it
            if lane.queue or (kind == rules.CALL and run.target <= index and not lane.let_go):
                lane.append(run)
                if flow is self._flow and direction == self._direction and index > self._touched:
                    self._touched = index
                return
            if kind == rules.REMOVE and run.target <= index:
                self._remove(flow, lane, run)
                return
            if not self._cross(flow, lane, run):
                return
            index += 1
        self._emerge(flow, direction, run)

    def _cross(self, flow: Flow, lane: Lane, run: Run) -> bool:
        """A run passes a stage that does not look at it. False: the direction is closed there (OOB-7)."""
        stage = lane.stage
        if lane.closed:
            run.seen = False
            if run.fin:
                self.gone(run, 0)
            else:
                self._discard(flow, lane, run, "after_fin")
            return False
        if stage.kind == rules.PERMIT_ALL and run.target <= stage.index:
            if run.fin:
                lane.closed = True
            lane.mark_seen(run)
            lane.count_permitted(run)
            run.seen = False
            run.target = stage.next_sub_layer
            return True
        if stage.permits_as_allowed and run.target <= stage.index:
            run.target = stage.next_sub_layer  # ALW-1: permitted at this stage
        if run.fin:
            lane.closed = True
        lane.count_bypass(run)
        if stage.kind == rules.CALL and not run.seen:
            lane.missed += run.missed + (run.length if run.owner is None else 0)  # ARB-11: permitted past it
        run.missed += lane.carry
        lane.carry = 0
        return True

    def _pass_by(self, flow: Flow, lane: Lane, run: Run) -> None:
        """A run that only kept its place in this queue goes on (ARB-13)."""
        if self._cross(flow, lane, run):
            lane.hand_on(run)

    def _pass_item_by(self, flow: Flow, lane: Lane) -> None:
        """The runs of one item stay together for the stages below (IND-21)."""
        queue = lane.queue
        while queue and queue[0].target > lane.stage.index:
            run = lane.pop()
            self._pass_by(flow, lane, run)
            if run.last:
                return

    def _remove(self, flow: Flow, lane: Lane, run: Run) -> None:
        """ARB-10, REG-7: a plain BLOCK filter, or a callout that is not registered, takes bytes and FIN."""
        lane.mark_seen(run)
        if run.fin:
            lane.carry += run.missed
            self.gone(run, 0)
            return
        self.classifier.indicate_discard(flow, lane, run)
        self._block(flow, lane, run)

    def _emerge(self, flow: Flow, direction: int, run: Run) -> None:
        """Behind the last stage: the bytes are owed to the receiver (IND-18)."""
        output = flow.out[direction]
        if output.fin_run is not None and not run.fin:
            # A FIN left before (OOB-7 with a stage gone since): nothing can follow it.
            output.count_discarded(run)
            self.gone(run, run.length)
            return
        output.append(run)
        if run.flags & rules.FLUSH_FLAG[direction]:
            output.push = True
        self.core.touch(flow)

    def stage_changed(self, flow: Flow, stage: Stage) -> None:
        """A stage may have become inactive: what it held goes on (NMD-15, ALW-3, UNR-6).

        From outside any callback at once; inside one the running loop does it, since a classify of this very stage
        may be on the stack.
        """
        core = self.core
        core.mark(flow)
        if core.in_callback:
            return
        if stage.kind != rules.CALL:
            for lane in stage.lanes:
                if lane.queue:
                    self.release_all(flow, lane)
        core.request_turn()

    def release_all(self, flow: Flow, lane: Lane) -> None:
        """The stage is asked no more: what it holds or has queued goes on as permitted (NMD-15, ALW-3, UNR-6)."""
        stage = lane.stage
        lane.mode = IDLE
        lane.remainder = 0
        lane.continued = lane.limit_shown = False
        lane.required = 0
        pending = [lane.pop() for _ in range(len(lane.queue))]
        for run in pending:
            if run.target > stage.index:
                self._pass_by(flow, lane, run)
            elif stage.kind == rules.REMOVE:
                self._remove(flow, lane, run)
            elif run.seen and not run.fin:
                self._go_on(flow, lane, run)
            else:
                self._pass_by(flow, lane, run)
        if lane.outbox:
            lane.outbox[-1].last = True

    def release_fin(self, flow: Flow, lane: Lane) -> None:
        """A pended FIN whose callout will not inject it any more goes on, behind all that was released (MGMT-13)."""
        fin = Run(EMPTY_VIEW, None, 0, lane.stage.index + 1, flow.read[lane.direction], fin=True)
        fin.missed, lane.carry = lane.carry, 0
        lane.fin_pended = False
        lane.closed = True
        lane.hand_on(fin)

    def _go_on(self, flow: Flow, lane: Lane, run: Run) -> None:
        """Bytes the stage was shown and never decided: permitted, in the items they came in."""
        stage = lane.stage
        permits = stage.permits_as_allowed or stage.kind == rules.PERMIT_ALL
        ends_item = run.last
        many = run.many
        self._release(flow, lane, run, stage.next_sub_layer if permits else stage.index + 1, run.answer)
        run.last, run.many = ends_item, many

    # -- bytes that leave ----------------------------------------------------------------------------------

    def gone(self, run: Run, count: int) -> None:
        """`count` bytes of a run (or its FIN) left the pipeline: their injection may be complete (CMP-4)."""
        owner = run.owner
        if owner is None:
            return
        owner.remaining -= 1 if run.fin else count
        if owner.remaining <= 0 and not owner.done:
            owner.done = True
            self.complete_ready(owner.lane)

    def pieces_gone(self, patches: Patchwork, count: int, is_all: bool) -> int:
        """As `gone` for what was injected of the first `count` bytes: how many bytes."""
        if patches.nameless and not self._completes_quietly(patches):
            patches.name_all()
        if is_all:
            gone, number, length = patches.take_all(), patches.nameless, patches.nameless_bytes
        else:
            gone, number, length = patches.take(count)
        if number:
            lane = patches.lane
            flow = lane.stage.flow
            patches.handle.pending -= number
            flow.injected[lane.direction] -= length
            flow.activity = self.core.clock()
        for run, part in gone:
            length += part
            self.gone(run, part)
        return length

    def _completes_quietly(self, patches: Patchwork) -> bool:
        """Nobody is to be told of these injections, and none before them is under way (as `complete_ready`)."""
        flow = patches.lane.stage.flow
        ended = flow.input_ended
        return not (
            patches.lane.under_way
            or patches.handle.closing
            or flow.draining
            or ended[0]
            or ended[1]
            or self.core.tracing
        )

    def complete_ready(self, lane: Lane) -> None:
        """CMP-6: completions of a stage and direction become due first in, first out."""
        core = self.core
        outstanding = lane.under_way
        while outstanding and outstanding[0].done:
            buffer = outstanding.popleft()
            flow, handle = lane.stage.flow, buffer.handle
            ended = flow.input_ended
            if (
                buffer.nbl is not None
                or handle.closing
                or flow.draining
                or ended[0]
                or ended[1]
                or core.tracing
            ):
                core.due.append(buffer)
                core.plain = False
            else:
                # As Injector.complete, where nobody is to be told, now or of what follows from it.
                handle.pending -= 1
                flow.injected[lane.direction] -= buffer.length
                flow.activity = core.clock()
        if core.due and not core.running:
            core.request_turn()  # CMP-17

    def discard_queues(self, flow: Flow) -> None:
        """IND-18, DRP-2: everything held, queued or on its way between stages, in both directions."""
        for direction in (0, 1):
            if not flow.occupied[direction]:
                continue
            lanes = flow.lanes[direction]
            for index, lane in enumerate(lanes):
                while lane.outbox:
                    self._lose_between(flow, direction, lane.outbox.popleft(), index + 1)
                while lane.queue:
                    run = lane.pop()
                    if run.target > lane.stage.index:
                        run.seen = False
                    if not run.fin:
                        lane.count_discarded(run)
                        self._emit_discard(flow, direction, run, flow.end_reason)
                lane.mode = IDLE
                lane.remainder = 0

    def _lose_between(self, flow: Flow, direction: int, run: Run, index: int) -> None:
        """Bytes on their way to stage `index` are lost: LED-2 `discarded_between`, LED-3 behind the last stage."""
        if run.fin:
            return
        run.seen = False
        lanes = flow.lanes[direction]
        if index < len(lanes):
            lanes[index].count_discarded(run)
        else:
            flow.out[direction].count_discarded(run)
        self._emit_discard(flow, direction, run, flow.end_reason)

    def _emit_discard(
        self, flow: Flow, direction: int, run: Run, reason: str, stage: Stage | None = None
    ) -> None:
        """One event for each piece, wherever the pieces lie."""
        if not self.core.tracing:
            return
        whose = stage.named if stage is not None else {}
        name = flow.direction_name(direction)
        for offset, piece in run.pieces():
            self.core.emit("discard", flow, dir=name, len=len(piece), reason=reason, offset=offset, **whose)
