"""A flow: one TCP connection through the proxy, its stages, and what each has in front of it.

Owns the data model of the run time - `Flow`, its `Stage`s (one filter and the callout it names) and their `Lane`s
(one direction of a stage; what a lane holds and counts is `_lane_store`'s) - and the levels a driver reads
(architecture, the engine's border).
It must not decide anything: `_stream_state` has the rules, `_waterfall` moves the bytes, `_inputs` takes them in.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

from ._constants import FilterRunFlags, IncomingFlag
from ._lane_store import LaneStore
from ._ledger import DirectionLedger
from ._output import Output
from ._run import EXPEDITED, NO_RUNS, Run
from ._stream_state import (
    CALL,
    DEFERRED,
    IDLE,
    INSPECTION,
    NEED_MORE,
    PASS,
    PERMIT_ALL,
    PLAIN_BLOCK,
    PLAIN_PERMIT,
    REMOVE,
    WHOLE_AND_SILENT,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._callout import CalloutEntry
    from ._endpoints import Address, Endpoints
    from ._filter import Filter2
    from ._records import IncomingMetadataValues, IncomingValues
    from ._run import InjectedBuffer
    from ._timers import Timer

# Phases of a flow's life.
ESTABLISHING, LIVE, ENDING, ENDED = 0, 1, 2, 3

# plain: nothing is owed, held or under way, and both directions may be read.
QUIET = 3

# may_read: a level, not an edge.
YES, HELD_BACK, FULL, READ_ENDED = 0, 1, 2, 3

# abort: what the driver must do to the legs.
ABORT_NONE, ABORT_FLUSH, ABORT_NOW = 0, 1, 2


_PERMIT_IF_UNREGISTERED = int(FilterRunFlags.PERMIT_IF_CALLOUT_UNREGISTERED)
_MID_STREAM = int(IncomingFlag.MID_STREAM_INSPECTION)


class Lane(LaneStore):
    """One stage in one direction, and how runs come to it and leave it."""

    __slots__ = ("direction", "stage")

    def __init__(self, stage: Stage, direction: int) -> None:
        super().__init__()
        self.stage = stage
        self.direction = direction

    def append(self, run: Run) -> None:
        """Put a run at the tail; one that bypasses this stage only keeps its place (ARB-13)."""
        self.queue_up(run)
        flow = self.stage.flow
        flow.occupied[self.direction] = True
        flow.plain = 0
        flow.queued += run.length
        self.bytes += run.length
        self.fresh += 1
        if run.fin:
            self.fin_queued = True
        elif run.target <= self.stage.index:
            if run.flags & EXPEDITED:
                self.urgent_queued += 1
            else:
                self.visible += run.length

    def hand_on(self, run: Run) -> None:
        """The run has left this stage; the stages below get it item by item (NMD-9, INJ-5)."""
        if self.outbox is NO_RUNS:
            self.outbox = deque()
        self.outbox.append(run)
        flow = self.stage.flow
        flow.occupied[self.direction] = True
        flow.plain = 0

    def took(self, run: Run) -> None:
        """Bookkeeping for a run, or the front of one, that left the queue."""
        self.bytes -= run.length
        self.stage.flow.queued -= run.length
        if run.fin:
            self.fin_queued = False
        elif run.target <= self.stage.index:
            if run.flags & EXPEDITED:
                self.urgent_queued -= 1
            else:
                self.visible -= run.length

    def pop(self) -> Run:
        """Take the head."""
        run = self.queue.popleft()
        self.took(run)
        return run

    def pop_bytes(self, length: int) -> Run:
        """Take the head, at most `length` bytes of it."""
        head = self.queue[0]
        if head.length <= length:
            return self.pop()
        front = head.split(length)
        if head.flags & EXPEDITED:
            self.bytes -= length  # the mark stays with the last byte; none of them ever counted as visible
            self.stage.flow.queued -= length
        else:
            self.took(front)
        return front

    def keep(self) -> None:
        """Copy what lies in the driver's buffer; what waits for more, or for a continue, is put together."""
        if self.mode != IDLE and self.fresh:
            self._keep_together()
        super().keep()
        if self.queue:
            self.queue[0].trim()

    def _keep_together(self) -> None:
        """Only runs put in since the last time can be borrowed (linear in them)."""
        queue, index = self.queue, self.stage.index
        late = [queue.pop() for _ in range(min(self.fresh, len(queue)))]
        self.fresh = 0
        while late:
            run = late.pop()
            before = queue[-1] if queue else None
            if before is None or before.target > index or run.target > index or not before.absorb(run):
                run.keep()
                queue.append(run)

    def put_together(self, count: int) -> None:
        """The first `count` runs are shown together, once more: they lie together from now on."""
        queue, index = self.queue, self.stage.index
        shown = [queue.popleft() for _ in range(count)]
        more = sum(run.length for run in shown)
        kept: list[Run] = []
        for run in shown:
            more -= run.length
            if not (kept and kept[-1].target <= index and run.target <= index and kept[-1].absorb(run, more)):
                kept.append(run)
        queue.extendleft(reversed(kept))

    def expect(self, buffers: Iterable[InjectedBuffer]) -> None:
        """Injections of this stage are under way; they complete in this order (CMP-6)."""
        patches = self.stage.flow.out[self.direction].patches
        if patches is not None:
            patches.name_all()
        super().expect(buffers)

    @property
    def outstanding(self) -> deque[InjectedBuffer]:
        """The injections of this lane that are not complete, oldest first (CMP-6), those in pieces among them."""
        patches = self.stage.flow.out[self.direction].patches
        if patches is not None:
            patches.name_all()
        return self.under_way

    @property
    def held(self) -> int:
        """Bytes shown and not decided (LED-1)."""
        index = self.stage.index
        return sum(run.length for run in self.queue if run.seen and run.target <= index)


Way = tuple[int, int, Any, Output, tuple[tuple[Lane, Any, Any, Any, Any, int, dict[int, int]], ...]]
"""What an item of a direction needs on the plain way: flags of its run and of its indications, fixed values, where it
goes; of each stage the lane, its frame, classifyFn, metadata, filter, flow context, and the answers that pass all."""

NO_WAYS: Final[tuple[Way | None, Way | None]] = (None, None)

LaneCounts = tuple[int, int, int, int, int, int, int, int, int, int, int, int]
"""A line of the ledger: filter id; bytes in, permitted, blocked (original, injected), discarded (shown, not shown),
injected, bypassed; held, in the queue, on their way to the next stage. Only `_bookkeeping` reads it."""


class Stage:
    """One (filter, callout) pair of a flow.

    Attributes:
        index: place in the flow's pipeline, 0 is asked first.
        next_sub_layer: index of the first stage of the next sublayer: where PERMIT leads (ARB-6).
        kind: CALL, PASS, REMOVE or PERMIT_ALL of `_stream_state`.
        mid_stream: the stage began after the flow was established (MID-1).
        passing: answers under this filter that let all the bytes go on and are no violation, and their effects.
        draining: the filter is retiring; the stage finishes what it has and gets nothing new (MGMT-16).
        retired: the filter is gone; the stage is transparent and keeps its place for the ledger's sake.
    """

    __slots__ = (
        "allowed",
        "context",
        "draining",
        "entry",
        "filter",
        "flow",
        "index",
        "kind",
        "lanes",
        "meta",
        "mid_stream",
        "next_sub_layer",
        "passing",
        "retired",
    )

    def __init__(self, flow: Flow, filter: Filter2, entry: CalloutEntry | None, mid_stream: bool) -> None:
        self.flow = flow
        self.filter = filter
        self.entry = entry
        self.mid_stream = mid_stream
        self.index = 0
        self.next_sub_layer = 0
        self.allowed = False
        self.draining = False
        self.retired = False
        self.context = 0
        self.kind = PASS
        self.meta: IncomingMetadataValues | None = None
        self.passing = WHOLE_AND_SILENT.get(filter.action_type, {})
        self.lanes: tuple[Lane, ...] = (Lane(self, 0), Lane(self, 1))  # none once the flow is put away

    @property
    def is_inspection(self) -> bool:
        """The filter may not modify the stream (ACT-2, POL-2)."""
        return self.filter.action_type == INSPECTION

    @property
    def ever_classified(self) -> bool:
        """The callout was asked at least once on this flow (IND-16)."""
        return self.lanes[0].classified or self.lanes[1].classified

    @property
    def permits_as_allowed(self) -> bool:
        """ALW-1, while its filter is in force: the one that takes its place in the sublayer is to see the bytes."""
        return self.allowed and not (self.draining or self.retired)

    @property
    def keeps_back(self) -> bool:
        """Its callout has pended or deferred something (MGMT-14)."""
        return any(lane.pended_buffers or lane.fin_pended or lane.mode == DEFERRED for lane in self.lanes)

    @property
    def named(self) -> dict[str, Any]:
        """Whose doing an event tells of."""
        name = self.entry.name if self.entry is not None else None
        return {"stage": self.index, "callout": name, "filter": self.filter.filter_id}

    def refresh(self) -> None:
        """Work out `kind` anew: after registration, association, ALLOW_CONNECTION or retiring."""
        self.flow.plain = 0
        action = self.filter.action_type
        if self.retired:
            self.kind = PASS  # whatever the filter was: it is gone
        elif action == PLAIN_PERMIT:
            self.kind = PERMIT_ALL
        elif action == PLAIN_BLOCK:
            self.kind = REMOVE
        elif self.entry is None or not self.entry.registered:
            self.kind = self._kind_without_callout()
        else:
            self.kind = self._kind_with_callout(self.entry)
        self.flow.stage_changed(self.kind == CALL)

    def _kind_without_callout(self) -> int:
        """REG-5, REG-6: an added callout that is not registered."""
        if self.is_inspection:
            return PASS
        return PERMIT_ALL if self.filter.flags & _PERMIT_IF_UNREGISTERED else REMOVE

    def _kind_with_callout(self, entry: CalloutEntry) -> int:
        self.context = self.flow.contexts.get((self.filter.layer_id, entry.callout_id), 0)
        if self.allowed:
            return PASS
        if self.mid_stream and not entry.mid_stream_allowed:
            return PASS  # MID-1: skipped on this flow for good
        if entry.conditional_on_flow and not self.context:
            return PASS  # CFN-1: skipped, and skipping never blocks
        return CALL

    def set_meta(self, meta: IncomingMetadataValues) -> None:
        """Give the stage its metadata; MET-4 marks one that began mid-stream."""
        meta.flags = _MID_STREAM if self.mid_stream else 0
        self.meta = meta


class FlowOffloading(Protocol):
    """Where a flow sends what concerns its being moved by its driver; `_offload` implements it."""

    def is_wanted(self, flow: Flow) -> bool: ...
    def begin(self, flow: Flow) -> None: ...
    def end(self, flow: Flow) -> None: ...
    def passed(self, flow: Flow, direction: int, count: int) -> None: ...
    def left_over(self, flow: Flow, direction: int, data: bytes) -> None: ...
    def look_again(self, flow: Flow) -> None: ...


class FlowInputs(Protocol):
    """Where a flow sends what its driver tells it; `_inputs` implements it."""

    @property
    def offloading(self) -> FlowOffloading: ...
    def received(
        self, flow: Flow, direction: int, view: memoryview, urgent: bool, fin: bool, push: bool | None
    ) -> None: ...
    def relay(self, flow: Flow, direction: int, view: memoryview) -> bool: ...
    def received_fin(self, flow: Flow, direction: int) -> None: ...
    def gap(self, flow: Flow, direction: int, length: int) -> None: ...
    def midstream(self, flow: Flow) -> None: ...
    def reset(self, flow: Flow, leg: int, reason: str) -> None: ...
    def sent(self, flow: Flow, direction: int, count: int) -> None: ...
    def fin_sent(self, flow: Flow, direction: int) -> None: ...
    def gone(self, flow: Flow, reason: str) -> None: ...
    def is_full(self, flow: Flow, direction: int) -> bool: ...
    def ledger(self, flow: Flow, direction: int) -> DirectionLedger: ...


class Flow:
    """One flow at the engine's border.

    A data direction is 0 (SEND: local host to remote) or 1 (RECEIVE). The driver calls the inputs and reads
    `output`, `may_read`, `abort` and `ended` after every call for this flow. Bytes given to `received` are
    borrowed until `settle_output` or the next input.

    Attributes:
        occupied: False where every lane of that direction is known to be empty and idle; True says nothing. It is
            what makes a flow that holds nothing cheap.
        nobody_asks: every stage is inactive for good; None: look at them.
        plain: what `_plain` knows about the next item of each direction without looking; 0 says nothing.
        queued: bytes in the queues of all lanes.
        ways: of the directions that `plain` tells of, what `_plain` has put together for their items.
    """

    __slots__ = (
        "_inputs",
        "abort",
        "activity",
        "born",
        "contexts",
        "discarded_unread",
        "doomed",
        "draining",
        "end_reason",
        "end_status",
        "endpoints",
        "established_at",
        "fin_in",
        "fin_time",
        "gone_reported",
        "hole",
        "id",
        "injected",
        "input_ended",
        "is_offloaded",
        "lanes",
        "layer_id",
        "marked",
        "missing",
        "needs_stages",
        "nobody_asks",
        "number",
        "occupied",
        "ordinal",
        "out",
        "over_taken",
        "past",
        "past_filters",
        "paused",
        "pended_total",
        "pended_waiting",
        "phase",
        "plain",
        "queued",
        "read",
        "redirect_context",
        "removing",
        "reported",
        "reset_at",
        "resetting_leg",
        "stages",
        "stored",
        "stream_values",
        "taken",
        "time_limit",
        "upstream",
        "urgent_seen",
        "waits_since",
        "ways",
        "workers",
    )

    def __init__(
        self, inputs: FlowInputs, flow_id: int, endpoints: Endpoints, layer_id: int, born: int
    ) -> None:
        self._inputs = inputs
        self.id = flow_id
        self.number = flow_id if endpoints.label is None else endpoints.label
        self.ordinal = flow_id
        self.endpoints = endpoints
        self.layer_id = layer_id
        self.born = born
        self.phase = ESTABLISHING
        self.stages: list[Stage] = []
        self.lanes: tuple[list[Lane], list[Lane]] = ([], [])
        self.out = (Output(), Output())
        self.contexts: dict[tuple[int, int], int] = {}
        self.removing: frozenset[tuple[int, int]] = frozenset()
        self.stream_values: IncomingValues
        self.upstream: Address = endpoints.destination
        self.redirect_context: Any = None
        self.read = [0, 0]
        self.discarded_unread = [0, 0]
        self.missing = [0, 0]  # bytes a capture does not hold; the ledger and offsets do not count them
        self.hole = [0, 0]  # those of them that no run carries down the stages yet (POL-4)
        self.input_ended = [False, False]
        self.fin_in = [False, False]
        self.fin_time = 0.0
        self.time_limit: Timer | None = None  # of a flow that is half-closed, or read to its end (OBJ-14)
        self.waits_since: float | None = None  # both legs are read to their end, and no limit is set yet
        # All that is kept of the stages; under the verifier the filter of each callout as well.
        self.past: tuple[list[LaneCounts], list[LaneCounts]] | None = None
        self.past_filters: dict[int, int] | None = None
        self.paused = [False, False]
        self.injected = [0, 0]
        self.pended_waiting = [0, 0]
        self.pended_total = 0
        self.taken = [0, 0]
        self.over_taken = [False, False]
        self.stored = 0
        self.activity = 0.0
        self.established_at = 0.0
        self.abort = ABORT_NONE
        self.doomed: tuple[str, Any] | None = None
        self.resetting_leg = -1
        self.reset_at = 0.0
        self.end_reason = ""
        self.end_status: Any = None
        self.gone_reported = False
        self.reported = False
        self.needs_stages = False
        self.nobody_asks: bool | None = None
        self.draining = False  # some stage of it is
        self.occupied = [False, False]
        self.plain = 0
        self.ways = NO_WAYS
        self.queued = 0
        self.marked = False
        self.is_offloaded = False
        self.urgent_seen = False
        self.workers: dict[
            tuple[int, int], Any
        ] = {}  # (callout, direction) -> worker; None: not wanted there

    # -- inputs (driver -> engine) -------------------------------------------------------------------

    def received(
        self,
        direction: int,
        view: bytes | bytearray | memoryview,
        urgent: bool = False,
        fin: bool = False,
        push: bool | None = None,
    ) -> None:
        """Bytes were read: one item (IND-3).

        Args:
            direction: 0 SEND, 1 RECEIVE.
            view: the bytes, lent until `settle_output` or the next input.
            urgent: they are the one byte at the urgent mark (IND-7).
            fin: the driver already knows that the end of stream follows; the FIN is then part of this call.
                Only `fin_lookahead` and `fin_with_data` make a difference of it (NMD-9, IND-13).
            push: whether the segment had PSH, where that is known and wanted: RECEIVE items then show it. None
                sets RECEIVE_PUSH on every RECEIVE item (IND-5). SEND items have no such flag.
        """
        if type(view) is not memoryview:
            view = memoryview(view)
        if urgent or fin or push is not None:
            self._inputs.received(self, direction, view, urgent, fin, push)
        else:
            self._inputs.relay(self, direction, view)

    def received_fin(self, direction: int) -> None:
        """End of stream was read in that direction (IND-13)."""
        self._inputs.received_fin(self, direction)

    def gap(self, direction: int, length: int) -> None:
        """`length` bytes of that direction are missing for good, right here: policy `on_gap` (POL-4).

        They are counted in `missing`, in no ledger and in no offset. With `permit` the next call of every stage
        says so in missedBytes. Raises ValueError unless `length` is positive.
        """
        self._inputs.gap(self, direction, length)

    def midstream(self) -> None:
        """The beginning of this connection is unknown: policy `on_midstream` (POL-5). Before any input."""
        self._inputs.midstream(self)

    def reset(self, leg: int, reason: str = "") -> None:
        """A leg was reset by its peer (IND-27): 0 the local host's, 1 the remote's."""
        self._inputs.reset(self, leg, reason)

    def unread(self, direction: int, count: int) -> None:
        """Bytes the kernel held for a deferred leg that was reset: read and discarded (IND-27, LED-3)."""
        self.read[direction] += count
        self.discarded_unread[direction] += count

    def sent(self, direction: int, count: int) -> None:
        """The receiver's socket accepted `count` bytes of `output(direction)` (CMP-4)."""
        self._inputs.sent(self, direction, count)

    def lost(self, direction: int, count: int) -> None:
        """`count` bytes that `sent` had reported were destroyed by a reset (IND-18): `discarded_out`."""
        self.out[direction].lost(count)

    def fin_sent(self, direction: int) -> None:
        """The half-close of `output(direction).fin` was performed."""
        self._inputs.fin_sent(self, direction)

    def passed(self, direction: int, count: int) -> None:
        """Offloaded bytes went by without the engine (ALW-7): read, bypassed, written."""
        self._inputs.offloading.passed(self, direction, count)

    def left_over(self, direction: int, data: bytes) -> None:
        """Bytes the driver read while the flow was offloaded and has not written: it does, from `output` (ALW-8).

        They are past every stage, and come before anything else that is owed. Call it before `onloaded`.
        """
        self._inputs.offloading.left_over(self, direction, data)

    def gone(self, reason: str = "") -> None:
        """The driver has let go of both legs. Always called, once, in a `finally`."""
        self._inputs.gone(self, reason)

    # -- state (engine -> driver) --------------------------------------------------------------------

    def output(self, direction: int) -> Output:
        """What is owed to the receiver of that direction."""
        return self.out[direction]

    def may_read(self, direction: int) -> int:
        """YES, HELD_BACK (deferred), FULL (back-pressure) or READ_ENDED: a level, not an edge."""
        if self.plain in (QUIET, 16 << direction):  # see `_plain`, `_held`
            return YES
        if self.phase != LIVE or self.input_ended[direction]:
            return READ_ENDED
        if direction and self.occupied[1] and self.is_deferred():
            return HELD_BACK
        return FULL if self._inputs.is_full(self, direction) else YES

    @property
    def ended(self) -> bool:
        """Every callback of this flow is over and its id is invalid (CTX-21)."""
        return self.phase == ENDED

    def direction_from(self, side: str) -> int:
        """Data direction of bytes read from the "client" or the "upstream" side."""
        return 0 if (side == "client") == (self.endpoints.local == "client") else 1

    @property
    def offload_wanted(self) -> bool:
        """The driver may move this flow's bytes by itself (ALW-7), once it has written what is owed.

        A driver that does and finds this False takes the flow back before it does anything else for it (ALW-8).
        """
        return self.nobody_asks is not False and self._inputs.offloading.is_wanted(self)

    def offloaded(self) -> None:
        """The driver moves the bytes from now on, and reports them by `passed` (ALW-7)."""
        self._inputs.offloading.begin(self)

    def onloaded(self) -> None:
        """The driver's pipe is empty: bytes come by `received` again (ALW-8)."""
        self._inputs.offloading.end(self)

    # -- for the engine's own parts ------------------------------------------------------------------

    def stage_changed(self, asks: bool) -> None:
        """A stage is another than before; `asks` says that its callout is asked now."""
        self.nobody_asks = False if asks else None
        if self.is_offloaded:
            self._inputs.offloading.look_again(self)

    def is_deferred(self) -> bool:
        """Some stage holds the inbound direction back (DEF-3)."""
        return any(lane.mode == DEFERRED and not lane.continued for lane in self.lanes[1])

    def direction_name(self, direction: int) -> str:
        """`to_client` or `to_upstream`: what people call a data direction."""
        outbound_is_upstream = self.endpoints.local == "client"
        return "to_upstream" if (direction == 0) == outbound_is_upstream else "to_client"

    def offset_at(self, lane: Lane) -> int:
        """Where in the original stream this lane is, bytes."""
        return lane.queue[0].offset if lane.queue else self.read[lane.direction]

    def stage_of(self, callout_id: int) -> Stage | None:
        """The highest-weight stage of a callout on this flow (INJ-10).

        Before others a retiring one that has something to finish (MGMT-16); behind them one that has not, and last one
        that is gone.
        """
        found: Stage | None = None
        for stage in self.stages:
            if stage.entry is None or stage.entry.callout_id != callout_id:
                continue
            if found is None or _rank_of_stage(stage) < _rank_of_stage(found):
                found = stage
        return found

    def filter_of(self, callout_id: int) -> int:
        """The filter of `stage_of`, also when the flow is over and the verifier is on; 0 without one."""
        if self.past_filters is not None:
            return self.past_filters.get(callout_id, 0)
        stage = self.stage_of(callout_id)
        return stage.filter.filter_id if stage is not None else 0

    def is_waiting(self, lane: Lane) -> bool:
        """The lane waits for NEED_MORE_DATA or a continue (MGMT-13)."""
        return lane.mode in (NEED_MORE, DEFERRED)

    def ledger(self, direction: int) -> DirectionLedger:
        """The byte ledger of one direction (LED-1..LED-4)."""
        return self._inputs.ledger(self, direction)


def _rank_of_stage(stage: Stage) -> int:
    if stage.draining:
        return 0 if stage.keeps_back else 2
    return 3 if stage.retired else 1
