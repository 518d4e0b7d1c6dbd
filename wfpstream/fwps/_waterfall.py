"""The waterfall: one direction's runs on their way down the stages of a flow.

Owns which stage is asked next and what its answer does to the bytes (sections 5-12 of the semantics); the
rules themselves stand in `_stream_state`. Depth first (ARB-15): the lowest stage that can act goes first. It
must not know drivers, nor how a service call is validated.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from . import _stream_state as rules
from ._passage import Passage
from ._run import EXPEDITED, Run
from ._stream_data import Pieces, Segment
from ._stream_state import ABORT, DATA, DEFERRED, FIN, IDLE, NEED_MORE, URGENT

if TYPE_CHECKING:
    from ._flow import Flow, Lane, Stage
    from ._records import ClassifyOut, StreamCalloutIoPacket

ENDLESS_REQUESTS = 64  # V-51


class Waterfall(Passage):
    """Asks the stages and obeys their answers; one per engine."""

    # -- running the stages ----------------------------------------------------------------------------

    def run(self, flow: Flow, direction: int, first: int = 0) -> None:
        """Let the stages from index `first` down act until none can (ARB-15, ARB-16).

        What left a stage goes down item by item: all lower stages take the first before they see the second
        (NMD-9, INJ-5). For a stage above `first` only that is done: bytes it injected are on their way (INJ-12).
        """
        lanes = flow.lanes[direction]
        outer = (self._flow, self._direction)
        self._flow, self._direction = flow, direction
        index = len(lanes) - 1
        while index >= 0 and flow.doomed is None:
            lane = lanes[index]
            if lane.outbox:
                self._touched = index
                self._send_down(flow, lane)
                index = self._touched
                continue
            if lane.queue and index >= first:
                if self.core.callbacks >= self.core.options.callbacks_per_turn:
                    self.core.mark(flow)
                    break
                self._touched = index
                if self._step(flow, lane):
                    index = self._touched
                    continue
            index -= 1
        self._flow, self._direction = outer

    def _send_down(self, flow: Flow, lane: Lane) -> None:
        """One item of those that left this stage reaches the next stage that looks at it, or the output."""
        outbox = lane.outbox
        while outbox:
            run = outbox[0].first_item() if outbox[0].many else outbox[0]
            if run is outbox[0]:
                outbox.popleft()
            self.deliver(flow, lane.direction, run, lane.stage.index + 1)
            if run.last:
                return

    def _step(self, flow: Flow, lane: Lane) -> bool:
        """One indication of this lane, or one run past it. False: it can do nothing now."""
        if lane.stage.kind != rules.CALL or lane.let_go:
            self.release_all(flow, lane)
            return True
        mode = lane.mode
        if mode == NEED_MORE:
            return self._step_waiting(flow, lane)
        if mode == DEFERRED and not lane.continued:
            return False
        head = lane.queue[0]
        if head.target > lane.stage.index:
            self._pass_item_by(flow, lane)
            return True
        if mode == DEFERRED:
            return self._step_continued(flow, lane)
        if lane.stage.draining and not lane.remainder:
            return False  # MGMT-16: what is new waits until the stage has finished what it has
        if head.fin:
            self._indicate_fin(flow, lane, head)
        elif head.flags & EXPEDITED:
            self._indicate_urgent(flow, lane, head)
        elif lane.remainder:
            self._indicate(flow, lane, lane.remainder, False)
        else:
            self._indicate(flow, lane, 0, True)
        return True

    def _step_continued(self, flow: Flow, lane: Lane) -> bool:
        """DEF-5: held bytes and all that queued behind them in one indication; FIN and urgent bytes apart."""
        lane.mode = IDLE
        lane.continued = False
        lane.remainder = 0
        head = lane.queue[0]
        if head.fin:
            self._indicate_fin(flow, lane, head)
        elif head.flags & EXPEDITED:
            self._indicate_urgent(flow, lane, head)
        else:
            # MGMT-16: a retiring stage gets back what it held, and nothing new with it.
            wanted = lane.held if lane.stage.draining else lane.visible
            self._indicate(flow, lane, wanted, False)
        return True

    def _step_waiting(self, flow: Flow, lane: Lane) -> bool:
        """NMD-2..NMD-9: is there enough, or the limit, or the end?"""
        if lane.urgent_queued:
            # An urgent byte never counts for the wait (IND-7): it is shown now, or it would wait for ever.
            urgent = next(r for r in lane.queue if r.flags & EXPEDITED and r.target <= lane.stage.index)
            self._indicate_urgent(flow, lane, urgent)
            return True
        limit = self.core.options.limits.need_more_data
        if lane.visible >= limit:
            lane.limit_shown = True  # NMD-6: exactly the held bytes, at most the limit
            self._indicate(flow, lane, limit, False)
            return True
        if lane.visible >= lane.required or lane.fin_queued:
            self._indicate(flow, lane, lane.visible, False)
            return True
        return False

    # -- indications -----------------------------------------------------------------------------------

    def _indicate(self, flow: Flow, lane: Lane, wanted: int, one_item: bool) -> None:
        """Show data: one item, or exactly `wanted` visible bytes merged from several (NMD-2, DEF-5)."""
        segments, length, extra, answer, offset = self._collect(lane, wanted, one_item)
        direction = lane.direction
        lane.mode = IDLE
        out_flags = rules.BUFFER_LIMIT_REACHED if lane.limit_shown else 0
        flags = rules.DIRECTION_FLAG[direction] | extra
        if lane.fin_queued and length == lane.visible and not lane.urgent_queued:
            out_flags |= rules.NO_MORE_DATA  # NMD-9
            if self.core.options.fin_with_data:
                flags |= rules.DISCONNECT_FLAG[direction]  # IND-13, SD's wording
                self._see_fin(lane)
        result = self.classifier.classify(
            flow, lane, DATA, flags, segments, length, out_flags, answer, offset
        )
        self.conclude(flow, lane, DATA, length, flags, out_flags, result)

    def _collect(self, lane: Lane, wanted: int, one_item: bool) -> tuple[list[Segment], int, int, int, int]:
        """The runs of the next indication as views, their length, their extra flags, and where they begin."""
        queue = lane.queue
        head = queue[0]
        if one_item and head.many:
            first = head.first_item()
            if first is not head:
                queue.appendleft(first)
                head = first
        if one_item and head.last:  # the common case: one read, one indication (IND-3)
            lane.show(head)
            return _segments_of([head]), head.length, head.flags, head.answer, head.offset
        shown = self._gather(lane, wanted, one_item)
        again = head.seen
        lane.show(shown[0])
        length = extra = 0
        for run in shown:
            lane.mark_seen(run)
            length += run.length
            extra = (extra | run.flags) & ~rules.FLUSH_FLAG[0] | run.flags & rules.FLUSH_FLAG[0]  # NMD-5
        if again and len(shown) > 1:
            # Asked for again and again, what is held would be put together again and again.
            last = shown[-1]
            lane.put_together(next(place for place, run in enumerate(queue, 1) if run is last))
            shown = self._gather(lane, length, one_item)
        return _segments_of(shown), length, extra, shown[0].answer, shown[0].offset

    def _gather(self, lane: Lane, wanted: int, one_item: bool) -> list[Run]:
        """The runs of one item, or of `wanted` bytes: at their end a run may be cut in two."""
        queue, index = lane.queue, lane.stage.index
        shown: list[Run] = []
        length = cut = 0
        for run in queue:
            if run.fin or (run.flags & EXPEDITED and run.target <= index):
                break
            if run.target > index:
                if one_item:
                    break
                self._count_missed_inside(lane, run)
                continue
            if wanted and length + run.length > wanted:
                cut = wanted - length
                break
            if one_item and run.many and run.hoard is not None:
                cut = run.hoard.first_item(
                    run.offset, run.length
                )  # less than all: one more item is behind it
                break
            shown.append(run)
            length += run.length
            if length == wanted or (one_item and run.last):
                break
        if cut:
            front = run.split(cut)
            front.many = front.many and not one_item
            queue.insert(queue.index(run), front)
            lane.fresh += 1
            shown.append(front)
        return shown

    def _count_missed_inside(self, lane: Lane, run: Run) -> None:
        """ARB-13: bytes that bypass the stage in the middle of a merged view count as missed once."""
        if not run.seen:
            run.seen = True
            lane.missed += run.missed + (run.length if run.owner is None else 0)

    def _indicate_urgent(self, flow: Flow, lane: Lane, run: Run) -> None:
        """IND-7: an urgent byte is an indication of its own, never merged."""
        if run is lane.queue[0]:
            lane.show(run)
        lane.mark_seen(run)
        direction = lane.direction
        flags = rules.DIRECTION_FLAG[direction] | run.flags
        out_flags = (
            rules.NO_MORE_DATA if lane.fin_queued and not lane.visible and lane.urgent_queued == 1 else 0
        )
        segments: list[Segment] = [(run.view, run.provenance)]
        result = self.classifier.classify(
            flow, lane, URGENT, flags, segments, run.length, out_flags, run.answer, run.offset
        )
        if flow.doomed is None:
            if lane.queue[0] is not run:  # it overtakes bytes held for NEED_MORE_DATA
                lane.queue.remove(run)
                lane.queue.appendleft(run)
                run.keep()  # it is not among the last ones any more, where `Lane.keep` looks
            waiting = (lane.mode, lane.required, lane.remainder)
            lane.mode = IDLE
            self._decide(flow, lane, URGENT, run.length, flags, out_flags, result)
            if lane.mode == IDLE and waiting[0] == NEED_MORE and lane.stage.kind == rules.CALL:
                lane.mode, lane.required, lane.remainder = waiting
        self.classifier.finish(flow, lane)

    def _indicate_fin(self, flow: Flow, lane: Lane, run: Run) -> None:
        """IND-13: the FIN is an indication of its own, with NO_MORE_DATA."""
        lane.show(run)
        flags = rules.DIRECTION_FLAG[lane.direction] | rules.DISCONNECT_FLAG[lane.direction]
        result = self.classifier.classify(
            flow, lane, FIN, flags, [], 0, rules.NO_MORE_DATA, run.answer, run.offset
        )
        self.conclude(flow, lane, FIN, 0, flags, rules.NO_MORE_DATA, result)
        if self.core.options.repeat_fin and lane.closed and flow.doomed is None:
            self._repeat_fin(flow, lane, flags, run)

    def _repeat_fin(self, flow: Flow, lane: Lane, flags: int, run: Run) -> None:
        """IND-20: Windows promises that it does not come twice; a callout should not depend on it (V-57)."""
        if lane.stage.kind == rules.CALL:
            offset = run.offset
            self.classifier.classify(flow, lane, FIN, flags, [], 0, rules.NO_MORE_DATA, 0, offset)
            self.classifier.finish(flow, lane)

    def indicate_abort(self, flow: Flow, stage: Stage, direction: int) -> None:
        """IND-16, IND-17: informational, whatever is returned."""
        lane = stage.lanes[direction]
        flags = rules.DIRECTION_FLAG[direction] | rules.ABORT_FLAG[direction]
        offset = flow.read[direction]
        result = self.classifier.classify(flow, lane, ABORT, flags, [], 0, rules.NO_MORE_DATA, 0, offset)
        if result is not None and not rules.is_legal_on_abort(result[1].stream_action):
            self.core.judged(
                "ACT-13", f"stream action {result[1].stream_action} on an ABORT indication", lane
            )
        self.classifier.finish(flow, lane)

    # -- answers ---------------------------------------------------------------------------------------

    def conclude(
        self,
        flow: Flow,
        lane: Lane,
        kind: int,
        length: int,
        flags: int,
        out_flags: int,
        result: tuple[ClassifyOut, StreamCalloutIoPacket] | None,
    ) -> None:
        """The classify is over: apply its answer, then what had to wait for that."""
        if flow.doomed is None:
            self._decide(flow, lane, kind, length, flags, out_flags, result)
        self.classifier.finish(flow, lane)

    def _decide(
        self,
        flow: Flow,
        lane: Lane,
        kind: int,
        length: int,
        flags: int,
        out_flags: int,
        result: tuple[ClassifyOut, StreamCalloutIoPacket] | None,
    ) -> None:
        """Apply an answer: the stream action if there is one, else the action type (ACT-6)."""
        if result is None:  # ACT-14: the callout raised; V-40 is reported
            self._fault(
                flow, lane, kind, length, self.core.options.policy.on_callout_error, "on_callout_error"
            )
            return
        out, packet = result
        action = packet.stream_action
        if action == rules.NONE:
            self._enforce(flow, lane, kind, length, out, packet)
            return
        fault = rules.stream_action_fault(action, lane.direction, kind, out_flags, self.core.options.profile)
        if fault is not None:
            self._illegal(flow, lane, kind, length, action, fault)
        elif action == rules.NEED_MORE_DATA:
            self._wait(lane, length, packet)
        elif action == rules.DEFER:
            self._defer(flow, lane, length, flags, packet)
        elif action == rules.ALLOW_CONNECTION:
            self.allow(flow, lane)
        else:
            self._drop(flow, lane, kind, length)

    def _illegal(self, flow: Flow, lane: Lane, kind: int, length: int, action: int, fault: str) -> None:
        """ACT-13."""
        self.core.judged(fault, f"stream action {action} is not allowed here", lane)
        name = "on_limit" if fault == "V-2" else "on_callout_error"
        self._fault(flow, lane, kind, length, getattr(self.core.options.policy, name), name)

    def _fault(self, flow: Flow, lane: Lane, kind: int, length: int, policy: str, name: str) -> None:
        """POL-1, POL-2: fail closed unless configured otherwise; an inspection stage never modifies."""
        value = rules.policy_for(policy, lane.stage.filter.action_type)
        self.report_policy(flow, lane, name, value)
        if value == rules.POLICY_DROP:
            self.doom(flow, "drop")
        elif value == rules.POLICY_BYPASS:
            self.allow(flow, lane)
        else:
            self._move(flow, lane, kind, length, rules.CONTINUE, 0)

    def report_policy(self, flow: Flow, lane: Lane | None, name: str, value: str, **place: Any) -> None:
        """POL-6: every use of a policy is an event and a counter; `place` adds keys to the event."""
        self.core.count(f"policy.{name}.{value}")
        if self.core.sinks:
            entry = lane.stage.entry if lane is not None else None
            where = entry.name if entry else None
            self.core.emit("policy", flow, name=name, value=value, where=where, **place)

    def _drop(self, flow: Flow, lane: Lane, kind: int, length: int) -> None:
        """DRP-1."""
        dropped, rule = rules.DROP_EFFECT[lane.stage.filter.action_type]
        if rule is not None:
            self.core.judged(rule, "DROP_CONNECTION under this filter type", lane)
        if dropped:
            self.doom(flow, "drop")
        else:
            self._move(flow, lane, kind, length, rules.CONTINUE, 0)

    def doom(self, flow: Flow, reason: str) -> None:
        """The flow ends; it is taken down as soon as no classify of it runs (ABT-1)."""
        if flow.doomed is None:
            flow.doomed = (reason, None)
        self.core.mark(flow)

    def _wait(self, lane: Lane, length: int, packet: StreamCalloutIoPacket) -> None:
        """NMD-1..NMD-4: the whole indication stays."""
        if packet.count_bytes_required > self.core.options.limits.need_more_data:
            self.core.judged("V-12", f"{packet.count_bytes_required} bytes asked for, above the limit", lane)
        lane.asked_again = lane.asked_again + 1 if 0 < packet.count_bytes_required <= length else 0
        if lane.asked_again == ENDLESS_REQUESTS:
            self.core.judged("V-51", "NEED_MORE_DATA again and again for bytes that are there", lane)
        lane.mode = NEED_MORE
        lane.remainder = 0
        lane.limit_shown = False
        lane.held_since = self.core.clock()
        lane.required = rules.required_bytes(
            self.core.options.need_more_mode, length, packet.count_bytes_required
        )

    def _defer(self, flow: Flow, lane: Lane, length: int, flags: int, packet: StreamCalloutIoPacket) -> None:
        """DEF-2, DEF-3."""
        lane.mode = DEFERRED
        lane.continued = False
        lane.remainder = 0
        lane.limit_shown = False
        lane.deferred_flags = flags
        lane.held_since = self.core.clock()
        if self.core.tracing:
            self.core.emit(
                "defer", flow, dir=flow.direction_name(lane.direction), held=length, **lane.stage.named
            )

    def allow(self, flow: Flow, lane: Lane) -> None:
        """ALW-1..ALW-3: this callout is not asked any more; what it holds goes on, in both directions."""
        stage = lane.stage
        if any(each.pended_buffers or each.fin_pended for each in stage.lanes):
            self.core.judged("V-18", "ALLOW_CONNECTION with something pended", lane)
        self.bypass(flow, stage)

    def bypass(self, flow: Flow, stage: Stage) -> None:
        """ALW-1, ALW-3, whoever wanted it: the callout (ALLOW_CONNECTION) or a policy (POL-1)."""
        stage.allowed = True
        stage.refresh()
        for each in stage.lanes:
            if each.queue:
                self.release_all(flow, each)
        self.core.mark(flow)

    def _enforce(
        self, flow: Flow, lane: Lane, kind: int, length: int, out: ClassifyOut, packet: StreamCalloutIoPacket
    ) -> None:
        """ACT-1..ACT-12: the action type on the first n bytes."""
        filter_action = lane.stage.filter.action_type
        effect, rule = (
            rules.ACTION_EFFECT[filter_action].get(out.action_type) or rules.OTHER_ACTION[filter_action]
        )
        if rule is not None:
            self.core.judged(rule, f"action type {out.action_type:#x} under this filter type", lane)
        count = packet.count_bytes_enforced
        if not 0 <= count <= length:
            if kind != FIN:  # ACT-9: irrelevant there
                self.core.judged("V-8", f"{count} bytes enforced of {length}", lane)
            count = length
        elif count == 0:
            count = length
        if count < length and lane.limit_shown:
            self.core.judged("V-13", f"{count} of {length} bytes decided at the buffer limit", lane)
        self._move(flow, lane, kind, count, effect, out.action_type, length - count)

    def _move(
        self, flow: Flow, lane: Lane, kind: int, count: int, effect: int, answer: int, remainder: int = 0
    ) -> None:
        """Take the decided bytes, or the FIN, out of the queue and send them where they belong."""
        lane.asked_again = 0
        lane.held_since = 0.0
        lane.remainder = remainder
        if not remainder:
            lane.limit_shown = False
        self.classifier.note_decision(lane, kind, effect)
        if kind == FIN:
            self._move_fin(flow, lane, effect, answer)
            return
        with_fin = kind == DATA and self.core.options.fin_with_data and not remainder and lane.fin_queued
        destination = lane.stage.next_sub_layer if effect == rules.PERMIT else lane.stage.index + 1
        released: Run | None = None
        if effect == rules.BLOCK and self.core.options.verify.hints:
            self._note_blocked(lane, count)
        while count:
            if lane.queue[0].target > lane.stage.index:
                released = None  # a run that bypasses keeps its place: the item ends before it
                self._pass_by(flow, lane, lane.pop())
                continue
            run = lane.pop_bytes(count)
            count -= run.length
            if effect == rules.BLOCK:
                self._block(flow, lane, run)
                continue
            if released is not None:
                released.last = False
            released = self._release(flow, lane, run, destination, answer)
        if with_fin and not lane.visible:
            self._take_fin_along(flow, lane, effect, answer)

    def _note_blocked(self, lane: Lane, count: int) -> None:
        """For V-53: the bytes of one decision, before they go."""
        pieces: list[memoryview] = []
        for run in lane.queue:
            if count and not run.fin and run.target <= lane.stage.index:
                pieces.append(run.view[:count])
                count -= len(pieces[-1])
        self.order_hints.blocked(lane, pieces)

    def _see_fin(self, lane: Lane) -> None:
        """The FIN is shown on the bytes before it, and with it what was lost between (ARB-11)."""
        lane.mark_seen(next(run for run in reversed(lane.queue) if run.fin))

    def _take_fin_along(self, flow: Flow, lane: Lane, effect: int, answer: int) -> None:
        """`fin_with_data`: the indication carried the FIN, so its answer is the FIN's as well (IND-13)."""
        while lane.queue and not lane.queue[0].fin:
            self._pass_by(flow, lane, lane.pop())
        if lane.queue:
            lane.mark_seen(lane.queue[0])
            self._move_fin(flow, lane, effect, answer)

    def _move_fin(self, flow: Flow, lane: Lane, effect: int, answer: int) -> None:
        """IND-14: pass the FIN on, or pend it."""
        run = lane.pop()
        if lane.closed:  # a FIN was injected here before (OOB-7): nothing is left to do for this one
            self.gone(run, 0)
            return
        if effect == rules.BLOCK:
            lane.fin_pended = True
            lane.fin_pended_at = self.core.clock()
            lane.carry += run.missed
            self.gone(run, 0)
            return
        lane.closed = True
        destination = lane.stage.next_sub_layer if effect == rules.PERMIT else lane.stage.index + 1
        self._release(flow, lane, run, destination, answer)


def _segments_of(runs: list[Run]) -> list[Segment]:
    segments: list[Segment] = [(run.view, run.provenance) for run in runs]
    for run in runs:
        if run.hoard is not None:
            return Pieces(segments, partial(_pieces_of, runs))
    return segments


def _pieces_of(runs: list[Run]) -> list[Segment]:
    return [(piece, run.provenance) for run in runs for _, piece in run.pieces()]
