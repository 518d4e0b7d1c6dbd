"""The plain way: one item through idle stages that each pass it on whole, sent whole, and nothing else going on.

That is nearly every item of nearly every flow. Owns the shortest form of the cycle input - output - settle, and
`Flow.plain`, the summary of some thirty conditions that allow it: a flow that is plain need not be looked at. Whoever
changes one of them clears it (`tests/rules/test_straight.py` holds the summary
against the conditions at every step, and this way against the general one);
`look` sets it again. It must not have effects of its own.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from ._classify import STREAM_CONTEXT
from ._core import Frame
from ._flow import ABORT_NONE, LIVE, QUIET, YES
from ._held import HeldWay
from ._pieces import Pieces
from ._records import ClassifyOut, StreamCalloutIoPacket
from ._run import EMPTY_VIEW, NO_RUNS, Run
from ._stream_data import IndicatedData
from ._stream_state import CALL, DATA, DIRECTION_FLAG, FLUSH_FLAG
from ._violations import CALLOUT_FAULTS

if TYPE_CHECKING:
    from ._core import Core
    from ._flow import Flow, Lane, Way
    from ._lifecycle import Lifecycle
    from ._overruns import Overruns
    from ._waterfall import Waterfall

# Flow.plain: bit d, the next item of direction d may go the plain way; bit 2 + d, one has gone and is not sent yet
# (bit 4 + d: `_held`).
WAYS: Final = (1, 2)
UNSENT: Final = (4, 8)
ANY_UNSENT: Final = 12
# What of it must be how for an item to enter: its own bit set, nothing unsent.
_LOOKED_AT = (ANY_UNSENT | 1, ANY_UNSENT | 2)
_NOTHING = [0, 0]
# The very objects that ClassifyOut and StreamCalloutIoPacket begin with: small integers exist once.
_ZERO, _ONE = 0, 1
_NODELAY, _PUSH = FLUSH_FLAG


def _unknown(_: object) -> int:
    return 0


# CPython only: without it nobody knows what a callout kept, and every indication has objects of its own.
_COUNTS: Final = hasattr(sys, "getrefcount")
getrefcount: Callable[[object], int] = sys.getrefcount if _COUNTS else _unknown


class GeneralWay(Protocol):
    """What takes any input in any state; `_inputs` implements it."""

    def received(
        self, flow: Flow, direction: int, view: memoryview, urgent: bool, fin: bool, push: bool | None
    ) -> None: ...
    def sent(self, flow: Flow, direction: int, count: int) -> None: ...
    def settle_output(self, flow: Flow) -> None: ...


class PlainWay:
    """One per engine.

    The objects of an indication and its run are used again as long as nobody has kept them.
    """

    __slots__ = (
        "_classifier",
        "_core",
        "_data",
        "_free",
        "_general",
        "_lifecycle",
        "_new",
        "_out",
        "_overruns",
        "_owed",
        "_packet",
        "_pieces",
        "_place",
        "_run",
        "_waterfall",
        "held",
    )

    def __init__(self, core: Core, waterfall: Waterfall, lifecycle: Lifecycle, general: GeneralWay) -> None:
        self._core = core
        self._waterfall = waterfall
        self._classifier = waterfall.classifier
        self._overruns = core.overruns
        self._lifecycle = lifecycle
        self._general = general
        self.held = HeldWay(core)
        self._pieces = Pieces(core, waterfall)
        self._run: Run | None = None
        self._owed: deque[Run] | None = None  # lent to the output of a flow until its bytes are sent
        self._new: list[Lane] = []  # they are treated as if they had been asked, while they are
        # Stands in for a lane's queue while its callout is asked.
        self._place: deque[Run] = deque((Run(EMPTY_VIEW, None, 0, 0, 0),))
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
        self._free = -1  # their reference counts, in sum, while only `pass_on` knows them

    def _renewed(self, answer: int) -> tuple[IndicatedData, StreamCalloutIoPacket, ClassifyOut]:
        self._renew()
        self._out.action_type = answer
        return self._data, self._packet, self._out

    # -- the cycle -----------------------------------------------------------------------------------------

    def pass_on(self, flow: Flow, direction: int, view: memoryview) -> bool:
        """`FilterEngine.pass_on`: one item of plain bytes (IND-3), counted as written if it passes whole (CMP-4).

        The loop over the stages stands here, and what it needs in tuples: an item of 64 bytes costs little else.
        """
        core = self._core
        plain, length = flow.plain, len(view)
        if (
            (plain != QUIET and plain & _LOOKED_AT[direction] != WAYS[direction])
            or not core.plain
            or core.frame is not None
            or not length
        ):
            return self._otherwise(flow, direction, view)
        flags, shown, values, output, asked = flow.ways[direction]  # type: ignore[misc]
        read = flow.read
        offset = read[direction]
        read[direction] = offset + length
        flow.activity = now = core.clock()
        run = self._run
        if run is None:
            run = self._make_run()
        run.view = view
        run.length = length
        run.offset = offset
        run.flags = flags
        clocked, overruns = self._classifier.clocked, self._overruns
        data, packet, out, place = self._data, self._packet, self._out, self._place
        out.action_type = answer = 0
        fault: BaseException | None = None
        left: Lane | None = None
        own = place
        core.running = True
        try:
            for lane, frame, classify_fn, meta, filter, context, passing in asked:
                packet.stream_data = data
                if getrefcount(data) + getrefcount(packet) + getrefcount(out) != self._free:
                    data, packet, out = self._renewed(answer)
                    if _COUNTS:
                        self._free = getrefcount(data) + getrefcount(packet) + getrefcount(out)
                # As IndicatedData, StreamCalloutIoPacket and ClassifyOut begin (IND-8).
                data.flags = shown
                data.data_length = length
                data._view = view
                data._offset = None
                data.lane = lane
                packet.missed_bytes = packet.count_bytes_enforced = 0
                out.out_context = out.filter_id = out.reserved = 0
                # As Lane.append, mark_seen and show.
                own = lane.queue
                lane.queue = place
                lane.in_o += length
                overruns.since = began = now
                core.frame = frame
                classify_fn(values, meta, packet, STREAM_CONTEXT, filter, context, out)
                if clocked and (now := core.clock()) - began > overruns.budget:
                    _note(overruns, lane, now)
                action = out.action_type
                enforced = packet.count_bytes_enforced
                if (
                    flow.plain != plain
                    or packet.stream_action is not _ZERO
                    or packet.count_bytes_required is not _ZERO
                    or out.flags is not _ZERO
                    or out.rights is not _ONE
                    or data._chain is not None
                    or type(action) is not int
                    or (enforced is not _ZERO and (type(enforced) is not int or enforced != length))
                    or action not in passing
                ):
                    left = lane
                    break
                # As Waterfall._move and Passage._release.
                lane.queue = own
                lane.permitted_o += length
                answer = action
        except CALLOUT_FAULTS as error:
            left, fault = lane, error
        except BaseException:
            self._hold(flow, lane, own, run, answer)
            raise
        finally:
            core.frame = None
            core.running = False
            data._view = data._segments = data._offset = None  # as `invalidate`
        if left is not None or not core.plain:
            self._go_the_other_way(flow, direction, left, own, run, answer, fault)
            return False
        output.written_o += length
        if flags:
            output.push = True
        return True

    def owe(self, flow: Flow, direction: int, view: memoryview, sent: int) -> None:
        """`FilterEngine.owe`: of the item that has just been passed on, only `sent` bytes were taken (CMP-4)."""
        flow.plain = 0
        output = flow.out[direction]
        length = len(view)
        output.written_o -= length - sent
        run = Run(
            view[sent:] if sent else view,
            None,
            _flags_of(flow, direction),
            0,
            flow.read[direction] - length + sent,
            True,
        )
        run.seen = True
        output.put(run)

    def relay(self, flow: Flow, direction: int, view: memoryview) -> bool:
        """`Flow.received` of plain bytes. True: exactly `view` is owed in that direction, and nothing else changed."""
        own = flow.out[direction]
        if not self.pass_on(flow, direction, view):
            other = flow.out[1 - direction]
            return (
                len(own.runs) == 1
                and own.runs[0].view is view
                and own.fin_run is None
                and not (flow.abort or other.length or other.fin)
            )
        flow.plain |= UNSENT[direction]
        length = len(view)
        run = self._run or self._make_run()
        run.view = view
        run.length = length
        run.offset = flow.read[direction] - length
        run.flags = _flags_of(flow, direction)
        self._run = None
        owed = self._owed
        if owed is None:
            owed = deque()
        else:
            self._owed = None
        owed.append(run)
        own.runs = owed
        own.written_o -= length
        own.length = length
        own.fresh = 1
        return True

    def relayed(self, flow: Flow, direction: int) -> bool:
        """`Flow.sent` of all that is owed (CMP-4). True: nothing is kept, and that direction may be read on."""
        output = flow.out[direction]
        if not flow.plain & UNSENT[direction]:
            return self._settled(flow, direction, output.length)
        self._owed = owed = output.runs
        output.runs = NO_RUNS
        run = owed.pop()
        output.written_o += output.length
        output.length = 0
        run.view = EMPTY_VIEW
        self._run = self._place[0] = run
        flow.plain &= ~ANY_UNSENT
        return True

    def _make_run(self) -> Run:
        """What stands for the item while callouts are asked about it; used again unless somebody has to keep it."""
        self._run = self._place[0] = run = Run(EMPTY_VIEW, None, 0, 0, 0, True)
        run.seen = True
        return run

    def _otherwise(self, flow: Flow, direction: int, view: memoryview) -> bool:
        if flow.queued and self.held.add(flow, direction, view):
            return False
        self._new = new = [lane for lane in flow.lanes[direction] if not lane.classified]
        for lane in new:
            _take_for_old(lane)
        if self.look(flow) & WAYS[direction] and len(view):
            done = self.pass_on(flow, direction, view)
            self._new = []
            return done
        for lane in new:
            _take_for_new(lane)
        self._new = []
        flow.plain = 0
        self._general.received(flow, direction, view, False, False, None)
        return False

    def _settled(self, flow: Flow, direction: int, count: int) -> bool:
        self._general.sent(flow, direction, count)
        self._general.settle_output(flow)
        own, other = flow.out[direction], flow.out[1 - direction]
        if flow.abort != ABORT_NONE or own.length or own.fin or other.length or other.fin:
            return False
        return flow.may_read(direction) == YES

    # -- the stages ----------------------------------------------------------------------------------------

    def _go_the_other_way(
        self,
        flow: Flow,
        direction: int,
        left: Lane | None,
        own: deque[Run],
        run: Run,
        answer: int,
        fault: BaseException | None,
    ) -> None:
        """There is more to do: about the item, which lies in front of a stage, or beside it."""
        if left is None:
            self._go_on(flow, direction, run)
            return
        self._hold(flow, left, own, run, answer)
        self._leave(flow, left, run, run.flags | DIRECTION_FLAG[direction], fault)

    def _hold(self, flow: Flow, lane: Lane, own: deque[Run], run: Run, answer: int) -> None:
        """The item lies in front of a stage that was asked: what the general way would find there."""
        for new in self._new:
            if new.stage.index > lane.stage.index:
                _take_for_new(new)
            elif new is lane:
                new.last_blocked = None
        self._new = []
        self._run = None
        lane.queue = own
        lane.queue_up(run)
        lane.bytes = lane.visible = run.length
        lane.fresh += 1
        run.target = lane.stage.index
        run.answer = answer
        flow.queued += run.length
        flow.occupied[lane.direction] = True
        flow.plain = 0

    def _leave(self, flow: Flow, lane: Lane, run: Run, flags: int, fault: BaseException | None) -> None:
        """This answer is for the way of pieces or the general one, and so is all that follows."""
        core = self._core
        data, packet, out = self._data, self._packet, self._out
        self._renew()
        core.running = True
        core.callbacks = lane.stage.index + 1
        try:
            answer = self._classifier.answered(lane, DATA, data, packet, out, fault)
            done = self._pieces.take(flow, lane, run, flags, answer)
            if done:
                flow.occupied[lane.direction] = False
            if not done or core.dirty or core.due:
                self._lifecycle.flow_on(flow, lane.direction)
                core.work()
        finally:
            core.running = False
            core.deliver_events()
        if core.touched:
            core.after_outside_call(flow)

    def _go_on(self, flow: Flow, direction: int, run: Run) -> None:
        """The item is through, and a callout has done something else meanwhile."""
        core = self._core
        self._run = None
        flow.plain = 0
        output = flow.out[direction]
        output.append(run)
        if run.flags:
            output.push = True
        core.running = True
        core.callbacks = len(flow.stages)
        try:
            if core.dirty or core.due:
                self._lifecycle.flow_on(flow, direction)
                core.work()
        finally:
            core.running = False
            core.deliver_events()
        if core.touched:
            core.after_outside_call(flow)

    # -- the summary ---------------------------------------------------------------------------------------

    def look(self, flow: Flow) -> int:
        """Set `flow.plain` anew, and return it; 0 as well where the engine has something else to do."""
        core = self._core
        if not core.plain:
            core.plain = self.is_engine_plain()
        flow.plain = plain = self.ways_of(flow) if core.plain and core.frame is None else 0
        if plain:
            # Nothing that a way is made of changes without `plain` being cleared.
            flow.ways = (
                _way_of(flow, 0) if plain & WAYS[0] else None,
                _way_of(flow, 1) if plain & WAYS[1] else None,
            )
        return plain

    def is_engine_plain(self) -> bool:
        """No work waits anywhere, nothing runs, and nobody wants to see single indications."""
        core = self._core
        return not (
            core.dirty
            or core.due
            or core.ending
            or core.running
            or core.touched
            or core.tracing
            or core.short_of_memory
            or self._classifier.verifying
        )

    def ways_of(self, flow: Flow) -> int:
        """The directions of a flow whose next item may go the plain way, if it is the next input."""
        out, options = flow.out, self._core.options
        limits = options.limits
        if (
            flow.phase != LIVE
            or flow.stored
            or flow.queued
            or out[0].length
            or out[1].length
            or flow.pended_total
            or flow.doomed is not None
            or True in flow.occupied
            or flow.injected != _NOTHING
            or True in flow.paused
            or True in flow.over_taken
            or flow.hole != _NOTHING
            or flow.marked
            or flow.needs_stages
            or flow.draining
            or flow.removing
            or len(flow.stages) >= options.callbacks_per_turn
            or not (limits.unsent and limits.injected and limits.pended and limits.per_flow)
        ):
            return 0
        return (1 if _is_way_plain(flow, 0) else 0) | (2 if _is_way_plain(flow, 1) else 0)


def _flags_of(flow: Flow, direction: int) -> int:
    """IND-5, IND-6."""
    return _PUSH if direction else _NODELAY if flow.endpoints.nodelay else 0


def _way_of(flow: Flow, direction: int) -> Way:
    flags = _flags_of(flow, direction)
    asked = tuple(
        (
            lane,
            lane.frame,
            lane.stage.entry.classify_fn,  # type: ignore[union-attr]
            lane.stage.meta,
            lane.stage.filter,
            lane.stage.context,
            lane.stage.passing,
        )
        for lane in flow.lanes[direction]
    )
    return flags, flags | DIRECTION_FLAG[direction], flow.stream_values, flow.out[direction], asked


def _note(overruns: Overruns, lane: Lane, now: float) -> None:
    stage = lane.stage
    assert stage.entry is not None
    overruns.note(stage.flow, stage.entry.name, stage.entry.classify_code, now - overruns.since)


def _is_way_plain(flow: Flow, direction: int) -> bool:
    if flow.input_ended[direction] or flow.out[direction].fin_run is not None:
        return False
    for lane in flow.lanes[direction]:
        stage = lane.stage
        # It is asked, as the only one of its sublayer, with all arguments of today.
        if stage.kind != CALL or stage.next_sub_layer != stage.index + 1:
            return False
        if stage.entry is None or stage.entry.version == 0 or not _is_lane_plain(lane):
            return False
    return True


def _take_for_old(lane: Lane) -> None:
    """A lane that has not been asked, as it is after an answer that passed everything on: it is asked right now."""
    lane.classified = True
    lane.last_blocked = False
    if lane.frame is None:
        stage = lane.stage
        lane.frame = Frame("classify", stage.flow, lane, stage.filter.callout_id)
        lane.frame.layer_id = stage.filter.layer_id


def _take_for_new(lane: Lane) -> None:
    """It is not asked now."""
    lane.classified = False
    lane.last_blocked = None


def _is_lane_plain(lane: Lane) -> bool:
    """Its latest decision passed everything on, and nothing of it is left."""
    return (
        lane.classified
        and lane.last_blocked is False
        and not (
            lane.closed
            or lane.let_go
            or lane.missed
            or lane.carry
            or lane.pended_buffers
            or lane.fin_pended
            or lane.oob_ever
            or lane.asked_again
            or lane.held_since
            or lane.frame is None
            or lane.frame.clones
            or lane.frame.abort
            or lane.frame.fin
        )
    )
