"""The straight way of an item that its stage decides piece by piece: edits inline (INL-1).

Owns the short form of what `_waterfall` does with PERMIT and BLOCK of the first bytes, with what was injected in front
of them, and with asking again about the rest. Like `_straight`, whose part it is, it must not have effects of its own:
at whatever is out of the ordinary it stops in a state in which the general way can go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _stream_state as rules
from ._cutting import Cutting
from ._stream_state import BLOCK, CALL, DATA, DIRECTION_FLAG, EXPEDITED_FLAG, FLUSH_FLAG

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow, Lane
    from ._records import ClassifyOut, StreamCalloutIoPacket
    from ._run import Run
    from ._waterfall import Waterfall

Answer = tuple["ClassifyOut", "StreamCalloutIoPacket"] | None


class Pieces:
    """One per engine."""

    __slots__ = ("_classifier", "_core", "_cutting", "_open", "_waterfall")

    def __init__(self, core: Core, waterfall: Waterfall) -> None:
        self._core = core
        self._waterfall = waterfall
        self._classifier = waterfall.classifier
        self._cutting = Cutting(core, waterfall)
        self._open = not core.options.verify.hints

    def take(self, flow: Flow, lane: Lane, run: Run, flags: int, answer: Answer) -> bool:
        """The stage has answered about `run`, original bytes and all that is in its queue. Obey, and ask again.

        True: the item is decided and has left the last stage. False: the general way goes on from here.
        """
        core, stage = self._core, lane.stage
        flow.plain = 0
        direction = lane.direction
        is_last = stage.index + 1 == len(flow.lanes[direction])
        limit = core.options.callbacks_per_turn
        if answer is not None and is_last and self._cutting.may_begin(flow, lane, run):
            left = self._cutting.go_on(flow, lane, run, answer)
            if left is False:
                lane.rest()
                return not lane.queue
            answer = left
        while True:
            if not self._obey(flow, lane, run, answer):
                self._waterfall.conclude(flow, lane, DATA, run.length, flags, 0, answer)
                return False
            if not is_last:
                # All stages below take the first item before they, or this one, see the next (NMD-9).
                self._waterfall.run(flow, direction, stage.index + 1)
            elif lane.outbox and not self._emerge(flow, lane):
                return False
            if not lane.remainder:
                lane.rest()
                return is_last and not lane.queue
            if (
                core.dirty
                or core.due
                or core.callbacks >= limit
                or flow.doomed is not None
                or stage.kind != CALL
                or len(lane.queue) != 1  # something came from above, or does not stand alone
                or lane.outbox
            ):
                return False
            # As Waterfall._indicate with a remainder: the stage was shown these bytes before (IND-11).
            flags = run.flags | DIRECTION_FLAG[direction]
            answer = self._classifier.classify(
                flow, lane, DATA, flags, [(run.view, run.provenance)], run.length, 0, run.answer, run.offset
            )

    def _obey(self, flow: Flow, lane: Lane, run: Run, answer: Answer) -> bool:
        """As Waterfall._decide, _enforce and _move for a legal PERMIT, CONTINUE or BLOCK. False: nothing was done."""
        if answer is None or not self._open or self._core.tracing:
            return False
        out, packet = answer
        stage, length = lane.stage, run.length
        effect, rule = rules.ACTION_EFFECT[stage.filter.action_type].get(out.action_type, _UNKNOWN)
        count = packet.count_bytes_enforced or length
        if (
            packet.stream_action
            or rule is not None
            or not 0 < count <= length
            or lane.closed
            or flow.removing
            or flow.doomed is not None
            # What a decision means for what is pended is judged, and may be a fault (V-17).
            or lane.pended_buffers
            or lane.fin_pended
            or lane.oob_ever
        ):
            return False
        lane.asked_again = 0
        lane.held_since = 0.0
        # As Lane.took: these bytes have left the queue.
        lane.remainder = lane.bytes = lane.visible = length - count
        lane.stage.flow.queued -= count
        if count == length:
            lane.queue.clear()
            lane.fresh = 0
        if effect == BLOCK:
            lane.last_blocked = True
            lane.uncompensated = not lane.frame.injected
            lane.blocked_o += count
            lane.carry += run.missed + count
            run.missed = 0
            if count < length:
                run.view = run.view[count:]
                run.length -= count
                run.offset += count
            return True
        front = run.split(count) if count < length else run
        lane.last_blocked = False
        lane.permitted_o += count
        if lane.carry:
            front.missed += lane.carry
            lane.carry = 0
        front.answer = out.action_type
        front.target = stage.next_sub_layer if effect == rules.PERMIT else stage.index + 1
        lane.hand_on(front)
        return True

    def _emerge(self, flow: Flow, lane: Lane) -> bool:
        """What left the last stage is owed to the receiver. False: there is something special among it."""
        direction = lane.direction
        output, outbox = flow.out[direction], lane.outbox
        urgent, flush = EXPEDITED_FLAG[direction], FLUSH_FLAG[direction]
        while outbox:
            run = outbox[0]
            if run.fin or run.flags & urgent or output.fin_run is not None:
                return False
            outbox.popleft()
            run.seen = False
            output.put(run)
            if run.flags & flush:
                output.push = True
        return True


# An action type that has no rule of its own: judged by the general way (ACT-5).
_UNKNOWN: rules.Effect = (BLOCK, "V-6")
