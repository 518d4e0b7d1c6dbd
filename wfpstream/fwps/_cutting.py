"""The quick way of an item through its last stage, piece by piece: nothing but PERMIT, BLOCK and injections (INL-1).

That is an inline edit of a stream that is full of matches. Owns the loop that asks about the rest again and again, and
the shortest form of obeying; `Flow.plain` is `CUTTING` meanwhile, and whatever makes the conditions of that loop untrue
clears it (see `_plain`). It must not have effects of its own: at whatever is out of the ordinary it stops in a state in
which `_pieces`, whose part it is, can go on (`tests/rules/test_straight` compares them).
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

from ._classify import STREAM_CONTEXT
from ._records import ClassifyOut, StreamCalloutIoPacket
from ._stream_data import IndicatedData
from ._stream_state import CALL, DATA, DIRECTION_FLAG, EXPEDITED_FLAG, FLUSH_FLAG, PLAIN_BLOCK
from ._violations import CALLOUT_FAULTS

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow, Lane
    from ._output import Output
    from ._patchwork import Patchwork
    from ._run import Run
    from ._waterfall import Waterfall

Answer = tuple[ClassifyOut, StreamCalloutIoPacket]

# Flow.plain: an item is being cut up, and nothing else has happened to its flow since.
CUTTING: Final = 64
# The very objects that ClassifyOut and StreamCalloutIoPacket begin with: small integers exist once.
_ZERO, _ONE = 0, 1
_FLUSH = FLUSH_FLAG[0] | FLUSH_FLAG[1]


def _unknown(_: object) -> int:
    return 0


_COUNTS: Final = hasattr(sys, "getrefcount")
getrefcount: Callable[[object], int] = sys.getrefcount if _COUNTS else _unknown


class Cutting:
    """One per engine. The objects of an indication are used again as long as nobody has kept them."""

    __slots__ = ("_classifier", "_core", "_data", "_free", "_out", "_packet", "_quiet")

    def __init__(self, core: Core, waterfall: Waterfall) -> None:
        self._core = core
        self._classifier = waterfall.classifier
        self._quiet = core.options.verify.level == "off" and not core.options.verify.hints
        self._free = 0
        self._data: IndicatedData
        self._renew()

    def _renew(self) -> None:
        """Objects that nobody has seen yet; what somebody kept of the others shows nothing any more (IND-22)."""
        if self._free:
            self._data._view = self._data._segments = self._data._offset = None
        self._data = IndicatedData(0, 0, None, None, self._core.options.indicate_mdls)
        self._packet = StreamCalloutIoPacket(self._data, 0)
        self._out = ClassifyOut()
        self._free = -1  # their reference counts, in sum, while only `go_on` knows them

    def _others(self, lane: Lane) -> tuple[IndicatedData, StreamCalloutIoPacket, ClassifyOut]:
        """For somebody has kept one of those there were."""
        self._renew()
        data, packet, out = self._data, self._packet, self._out
        data.lane = lane
        if _COUNTS:
            # As `go_on` counts: `self` has it, a variable, and whoever counts; the data the packet as well.
            self._free = getrefcount(data) + getrefcount(packet) + getrefcount(out)
        return data, packet, out

    def may_begin(self, flow: Flow, lane: Lane, run: Run) -> bool:
        """The stage was asked about `run`, original bytes and all that is in its queue, and will be about its rest."""
        core, stage, direction = self._core, lane.stage, lane.direction
        urgent = EXPEDITED_FLAG[direction]
        return (
            self._quiet
            and core.plain
            and stage.kind == CALL
            and stage.entry is not None
            and stage.entry.version > 0
            and not (
                stage.is_inspection
                or run.missed
                or lane.closed
                or lane.missed
                or lane.limit_shown
                or flow.removing
                or flow.doomed is not None
                or flow.draining
                or flow.hole[direction]
                or lane.pended_buffers
                or lane.fin_pended
                or lane.oob_ever
                or lane.frame.clones
                or len(lane.queue) != 1
                or flow.out[direction].fin_run is not None
                or any(left.fin or left.flags & urgent for left in lane.outbox)
                or any(upper.carry for upper in flow.lanes[direction][: stage.index])
            )
        )

    def go_on(self, flow: Flow, lane: Lane, run: Run, answer: Answer) -> Answer | Literal[False] | None:
        """Obey, and ask about the rest, until nothing is left: then `queue` is empty, and the result False.

        Else the answer that is not of the usual kind (None: the callout raised), or False: enough for this turn.
        """
        core, stage = self._core, lane.stage
        overruns, clock, clocked = core.overruns, core.clock, self._classifier.clocked
        filter, meta, context, values = stage.filter, stage.meta, stage.context, flow.stream_values
        classify_fn = stage.entry.classify_fn  # type: ignore[union-attr]
        assert classify_fn is not None
        passing, frame = stage.passing, lane.frame
        output = flow.out[lane.direction]
        patches = output.piecewise()
        views, owners = patches.views, patches.owners
        kept, permitted = max(0, len(views) - patches.fresh), lane.permitted_o
        view, length, place = run.view, run.length, run.offset
        flags = run.flags | DIRECTION_FLAG[lane.direction]
        asked, most = core.callbacks, core.options.callbacks_per_turn
        zero, one, refs = _ZERO, _ONE, getrefcount
        out, packet = answer
        data = self._data
        data.lane = lane
        lane.asked_again = 0
        lane.held_since = 0.0
        flow.plain = CUTTING
        now = clock() if clocked else 0.0
        mine = False
        fault: BaseException | None = None
        try:
            while True:
                action, count = out.action_type, packet.count_bytes_enforced
                if (
                    flow.plain != CUTTING
                    or not core.plain
                    or packet.stream_action is not zero
                    or packet.count_bytes_required is not zero
                    or out.flags is not zero
                    or out.rights is not one
                    or data._chain is not None
                    or type(action) is not int
                    or type(count) is not int
                    or not 0 <= count <= length
                    or (action not in passing and action != PLAIN_BLOCK)
                ):
                    break
                # As Waterfall._decide, _enforce and _move, and what follows of it to the output.
                count = count or length
                if not mine:
                    self._emerge(lane.outbox, output, patches)
                if action != PLAIN_BLOCK:
                    lane.last_blocked = False
                    lane.permitted_o += count
                    lane.carry = 0
                    views.append(view[:count])
                    owners.append(place)
                    output.length += count
                else:
                    lane.last_blocked = True
                    lane.uncompensated = not frame.injected
                    lane.blocked_o += count
                    lane.carry += count
                length -= count
                lane.remainder = lane.bytes = lane.visible = length
                flow.queued -= count
                if not length:
                    lane.queue.clear()
                    lane.fresh = 0
                    return False
                run.view = view = view[count:]
                run.length = length
                run.offset = place = place + count
                if asked >= most:
                    return False
                asked += 1
                # As Classifier.classify and _call (IND-8, IND-11).
                mine = True
                data, packet, out = self._data, self._packet, self._out
                packet.stream_data = data
                if refs(data) + refs(packet) + refs(out) != self._free:
                    data, packet, out = self._others(lane)
                data.flags = flags
                data.data_length = length
                data._view = view
                data._segments = data._offset = None
                packet.missed_bytes = packet.count_bytes_enforced = 0
                out.action_type = run.answer
                out.out_context = out.filter_id = out.reserved = 0
                frame.injected = False
                core.frame = frame
                if clocked:
                    overruns.since = now
                    classify_fn(values, meta, packet, STREAM_CONTEXT, filter, context, out)
                    began, now = now, clock()
                    if now - began > overruns.budget:
                        self._note(lane, now - began)
                else:
                    classify_fn(values, meta, packet, STREAM_CONTEXT, filter, context, out)
                core.frame = None
        except CALLOUT_FAULTS as error:
            fault = error
        finally:
            flow.plain = 0
            core.frame = None
            core.callbacks = asked
            patches.fresh = len(views) - kept
            output.push = output.push or (lane.permitted_o != permitted and bool(run.flags & _FLUSH))
            data._view = data._segments = data._offset = None  # as `invalidate`
        if not mine:
            return answer
        self._renew()
        return self._classifier.answered(lane, DATA, data, packet, out, fault)

    def _emerge(self, outbox: deque[Run], output: Output, patches: Patchwork) -> None:
        """What was injected when the stage was asked for the first time."""
        while outbox:
            injected = outbox.popleft()
            injected.seen = False
            patches.views.append(injected.view)
            patches.owners.append(injected)
            patches.named += 1
            output.length += injected.length
            output.push = output.push or bool(injected.flags & _FLUSH)

    def _note(self, lane: Lane, spent: float) -> None:
        stage = lane.stage
        assert stage.entry is not None
        self._core.overruns.note(stage.flow, stage.entry.name, stage.entry.classify_code, spent)
