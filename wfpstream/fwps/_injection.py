"""FwpsStreamInjectAsync0: handles, the validation table, placing the bytes, completions (sections 14, 15).

Owns injection handles and the order of completions. It must not know how lower stages are asked: it delivers
runs to `_waterfall`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from wfpstream.fwp import NtStatus

from . import _stream_state as rules
from ._constants import DEFINED_STREAM_FLAGS, RECEIVE_FAMILY, SEND_FAMILY, InjectionType, LayerId, StreamFlags
from ._core import Frame
from ._flow import ESTABLISHING, LIVE
from ._net_buffer import NetBufferList, chain_of
from ._ownership import BufferRecord, Ownership
from ._run import EMPTY_VIEW, InjectedBuffer, Provenance, Run
from ._violations import CALLOUT_FAULTS, where_in_callout

if TYPE_CHECKING:
    from ._callout import CalloutTable, CompletionFn
    from ._core import Core
    from ._flow import Flow, Lane, Stage
    from ._waterfall import Waterfall

_SEND = int(StreamFlags.SEND)
_RECEIVE = int(StreamFlags.RECEIVE)
_DISCONNECTS = int(StreamFlags.SEND_DISCONNECT | StreamFlags.RECEIVE_DISCONNECT)
_ABORTS = int(StreamFlags.SEND_ABORT | StreamFlags.RECEIVE_ABORT)
_DATA_FLAGS = ~(_SEND | _RECEIVE | _DISCONNECTS)
_STREAM = int(InjectionType.STREAM)
_INJECTION_TYPES = int(
    InjectionType.STREAM | InjectionType.TRANSPORT | InjectionType.FORWARD | InjectionType.NETWORK
)
_STREAM_LAYERS = (int(LayerId.STREAM_V4), int(LayerId.STREAM_V6))

RESOURCE_FACTOR = 4  # INJ-43: the bare call fails past four times limit `injected`


class InjectionHandle:
    """One injection handle (IHC-1): open, closing or destroyed."""

    __slots__ = (
        "address_family",
        "closing",
        "destroyed",
        "flags",
        "handle_id",
        "pending",
        "provenance",
        "serves_streams",
        "site",
        "waiters",
    )

    def __init__(self, handle_id: int, address_family: int, flags: int) -> None:
        self.handle_id = handle_id
        self.address_family = address_family
        self.flags = flags
        self.serves_streams = not flags or bool(flags & _STREAM)
        self.provenance: Provenance = ((handle_id, None),)  # of bytes injected without a context
        self.pending = 0
        self.closing = False
        self.destroyed = False
        self.site: str | None = None  # where it was made, under the verifier
        self.waiters: list[Callable[[], None]] = []


class InjectCall:
    """The arguments of one call, and what they name."""

    __slots__ = (
        "callout_id",
        "completion_context",
        "completion_fn",
        "context",
        "data_length",
        "direction",
        "flags",
        "flow",
        "handle",
        "handle_id",
        "layer_id",
        "nbl",
        "stage",
        "stream_flags",
    )

    def __init__(
        self,
        handle_id: int,
        context: Any,
        flags: int,
        callout_id: int,
        layer_id: int,
        stream_flags: int,
        nbl: NetBufferList | None,
        data_length: int,
        completion_fn: CompletionFn | None,
        completion_context: Any,
    ) -> None:
        self.handle_id = handle_id
        self.context = context
        self.flags = flags
        self.callout_id = callout_id
        self.layer_id = layer_id
        self.stream_flags = stream_flags
        self.nbl = nbl
        self.data_length = data_length
        self.completion_fn = completion_fn
        self.completion_context = completion_context
        self.handle: InjectionHandle | None = None
        self.flow: Flow | None = None
        self.stage: Stage | None = None
        self.direction = rules.RECEIVE if stream_flags & RECEIVE_FAMILY else rules.SEND

    @property
    def lane(self) -> Lane:
        """The lane that injects; only after the stage was found."""
        assert self.stage is not None
        return self.stage.lanes[self.direction]


def _both_families(flags: int) -> bool:
    return bool(flags & RECEIVE_FAMILY) and bool(flags & SEND_FAMILY)


Row = tuple[str, NtStatus, Callable[["Injector", InjectCall], bool]]

# The validation table (section 14.1): the first row whose test is true decides. Order is a DECISION.
VALIDATION: tuple[Row, ...] = (
    ("INJ-20", NtStatus.STATUS_FWP_NULL_POINTER, lambda i, c: c.completion_fn is None),
    ("INJ-21", NtStatus.STATUS_FWP_NULL_POINTER, lambda i, c: not c.handle_id),
    ("INJ-22", NtStatus.STATUS_INVALID_HANDLE, lambda i, c: c.handle is None),
    (
        "INJ-23",
        NtStatus.STATUS_FWP_INJECT_HANDLE_STALE,
        lambda i, c: c.handle is not None and c.handle.destroyed,
    ),
    (
        "INJ-24",
        NtStatus.STATUS_FWP_INJECT_HANDLE_CLOSING,
        lambda i, c: c.handle is not None and c.handle.closing,
    ),
    ("INJ-25", NtStatus.STATUS_FWP_INVALID_PARAMETER, lambda i, c: i.lacks_stream(c.handle)),
    ("INJ-26", NtStatus.STATUS_FWP_INVALID_FLAGS, lambda i, c: c.flags != 0),
    ("INJ-27", NtStatus.STATUS_FWP_INCOMPATIBLE_LAYER, lambda i, c: i.wrong_layer(c)),
    (
        "INJ-28",
        NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND,
        lambda i, c: i.callouts.registered_id(c.callout_id) is None,
    ),
    ("INJ-29", NtStatus.STATUS_FWP_TCPIP_NOT_READY, lambda i, c: i.not_ready(c)),
    ("INJ-30", NtStatus.STATUS_FWP_NOT_FOUND, lambda i, c: i.no_stage(c)),
    (
        "INJ-44",
        NtStatus.STATUS_FWP_NOT_FOUND,
        lambda i, c: c.stage is not None and c.stage.kind != rules.CALL,
    ),
    (
        "INJ-31",
        NtStatus.STATUS_FWP_INVALID_PARAMETER,
        lambda i, c: bool(c.stream_flags & ~DEFINED_STREAM_FLAGS or c.stream_flags & _ABORTS),
    ),
    ("INJ-32", NtStatus.STATUS_FWP_INVALID_PARAMETER, lambda i, c: not c.stream_flags & (_SEND | _RECEIVE)),
    (
        "INJ-33",
        NtStatus.STATUS_FWP_INVALID_PARAMETER,
        lambda i, c: bool(c.stream_flags & StreamFlags.RECEIVE_DISCONNECT) and not c.stream_flags & _RECEIVE,
    ),
    (
        "INJ-34",
        NtStatus.STATUS_FWP_INVALID_PARAMETER,
        lambda i, c: bool(c.stream_flags & StreamFlags.SEND_DISCONNECT) and not c.stream_flags & _SEND,
    ),
    ("INJ-35", NtStatus.STATUS_FWP_INVALID_PARAMETER, lambda i, c: _both_families(c.stream_flags)),
    (
        "INJ-36",
        NtStatus.STATUS_FWP_NULL_POINTER,
        lambda i, c: c.nbl is None and not c.stream_flags & _DISCONNECTS,
    ),
    ("INJ-37", NtStatus.STATUS_FWP_INVALID_PARAMETER, lambda i, c: c.nbl is None and c.data_length != 0),
    ("INJ-39", NtStatus.STATUS_FWP_INVALID_PARAMETER, lambda i, c: i.wrong_length(c)),
    ("INJ-40", NtStatus.STATUS_INVALID_PARAMETER, lambda i, c: i.not_owned(c)),
    ("INJ-41", NtStatus.STATUS_CONNECTION_DISCONNECTED, lambda i, c: c.lane.closed),
    ("INJ-43", NtStatus.STATUS_INSUFFICIENT_RESOURCES, lambda i, c: i.too_much(c)),
)


class Injector:
    """Injection handles, injections and completions of one engine."""

    def __init__(
        self, core: Core, callouts: CalloutTable, ownership: Ownership, waterfall: Waterfall
    ) -> None:
        self.core = core
        self.callouts: CalloutTable = callouts
        self.ownership = ownership
        self.waterfall = waterfall
        self.handles: dict[int, InjectionHandle] = {}
        self.next_handle: Callable[[], int]

    # -- handles ---------------------------------------------------------------------------------------

    def create_handle(self, address_family: int, flags: int) -> tuple[NtStatus, int]:
        """IHC-1."""
        if not self.core.started:
            return NtStatus.STATUS_FWP_TCPIP_NOT_READY, 0
        if flags & ~_INJECTION_TYPES:  # the address family is ignored for stream
            return NtStatus.STATUS_INVALID_PARAMETER, 0
        handle = InjectionHandle(self.next_handle(), address_family, flags)
        handle.site = where_in_callout() if self.ownership.verifying else None
        self.handles[handle.handle_id] = handle
        return NtStatus.STATUS_SUCCESS, handle.handle_id

    def destroy_handle(self, handle_id: int) -> NtStatus:
        """CMP-12: finished only when every injection of the handle completed."""
        handle = self.handles.get(handle_id)
        if handle is None or handle.destroyed:
            return NtStatus.STATUS_INVALID_HANDLE
        if handle.closing:
            return NtStatus.STATUS_PENDING
        if handle.pending:
            handle.closing = True
            return NtStatus.STATUS_PENDING
        self._close(handle)
        return NtStatus.STATUS_SUCCESS

    def when_closed(self, handle_id: int, fn: Callable[[], None]) -> None:
        """Call `fn` when the destroy of a closing handle is finished (IRQ-6)."""
        handle = self.handles.get(handle_id)
        if handle is None or handle.destroyed:
            fn()
        else:
            handle.waiters.append(fn)

    def _close(self, handle: InjectionHandle) -> None:
        handle.closing = False
        handle.destroyed = True
        self.ownership.report_leaks(handle_id=handle.handle_id)
        waiters, handle.waiters = handle.waiters, []
        for waiter in waiters:
            waiter()

    # -- tests of the validation table -----------------------------------------------------------------

    def lacks_stream(self, handle: InjectionHandle | None) -> bool:
        return handle is not None and not handle.serves_streams

    def wrong_layer(self, call: InjectCall) -> bool:
        if call.layer_id not in _STREAM_LAYERS:
            return True
        return call.flow is not None and call.flow.layer_id != call.layer_id

    def not_ready(self, call: InjectCall) -> bool:
        return not self.core.started or (call.flow is not None and call.flow.phase == ESTABLISHING)

    def no_stage(self, call: InjectCall) -> bool:
        return (
            call.flow is None or call.flow.phase != LIVE or call.flow.doomed is not None or call.stage is None
        )

    def wrong_length(self, call: InjectCall) -> bool:
        return call.nbl is not None and call.data_length != sum(n.data_length for n in chain_of(call.nbl))

    def not_owned(self, call: InjectCall) -> bool:
        if all(self.ownership.can_be_injected(nbl) for nbl in chain_of(call.nbl)):
            return False
        lane = call.stage.lanes[call.direction] if call.stage is not None else None
        text = "a list of the chain is pending in another injection, or freed"
        self.core.violation("V-26", text, lane, call.flow)
        return True

    def too_much(self, call: InjectCall) -> bool:
        assert call.flow is not None
        limit = RESOURCE_FACTOR * self.core.options.limits.injected
        return call.flow.injected[call.direction] + call.data_length > limit

    # -- the call --------------------------------------------------------------------------------------

    def inject(self, flow_id: int, call: InjectCall) -> NtStatus:
        """Check, place, and - from outside any callback - let the lower stages run (INJ-12)."""
        refused = self.check(flow_id, call)
        return refused if refused is not None else self.carry_out(call)

    def check(self, flow_id: int, call: InjectCall) -> NtStatus | None:
        """Section 14.1: the status the call is refused with, None when it is in order."""
        call.handle = self.handles.get(call.handle_id)
        call.flow = self.core.flows.get(flow_id)
        call.stage = self._stage_for(call)
        for rule, status, refuses in VALIDATION:
            if refuses(self, call):
                return self.refuse(call, rule, status, flow_id)
        return None

    def carry_out(self, call: InjectCall) -> NtStatus:
        """What a call that is in order does."""
        core = self.core
        self._lint(call)
        lane = call.lane
        buffers = self._place(call, lane)
        flow = call.flow
        assert flow is not None
        flow.plain = 0
        flow.activity = core.clock()
        frame = core.frame
        if frame is not None and frame.lane is lane:
            frame.injected = True
        if core.tracing:
            self._emit(call, flow, NtStatus.STATUS_SUCCESS, None)
        self._run_on(flow, lane, buffers)
        return NtStatus.STATUS_SUCCESS

    def _stage_for(self, call: InjectCall) -> Stage | None:
        """INJ-10: inside classify the classifying stage, else the highest-weight one of the callout."""
        if call.flow is None:
            return None
        frame = self.core.frame
        if frame is not None and frame.lane is not None and frame.flow is call.flow:
            stage = frame.lane.stage
            if stage.entry is not None and stage.entry.callout_id == call.callout_id:
                return stage
        return call.flow.stage_of(call.callout_id)

    def refuse(self, call: InjectCall, rule: str, status: NtStatus, flow_id: int) -> NtStatus:
        """INJ-1: nothing happens, the caller still owns the lists; one of them never freed is V-34."""
        for nbl in chain_of(call.nbl):
            if isinstance(nbl._record, BufferRecord):
                nbl._record.refused = True
                nbl._record.about = call.stage.lanes[call.direction] if call.stage is not None else None
        if rule == "INJ-30":
            self._check_late(call, flow_id)
        if self.core.tracing:
            self._emit(call, call.flow, status, rule)
        return status

    def _check_late(self, call: InjectCall, flow_id: int) -> None:
        """V-37: an injection in the ABORT's own classify, or long after the reset."""
        flow, frame = call.flow, self.core.frame
        past = self.core.reset.get(flow_id)
        reset_at = past.reset_at if past is not None else 0.0
        if flow is not None and flow.resetting_leg >= 0:
            reset_at = flow.reset_at
        elif past is None:
            return
        own = frame is not None and frame.abort and frame.flow is flow
        if own or self.core.clock() - reset_at > self.core.options.verify.grace:
            lane = frame.lane if frame is not None else None
            entry = self.callouts.find_id(call.callout_id) if lane is None else None
            filter_id = past.filters.get(call.callout_id, 0) if past is not None else 0
            text = "injection into a flow that was reset"
            self.core.violation("V-37", text, lane, flow, entry=entry, filter_id=filter_id, past=past)

    def _place(self, call: InjectCall, lane: Lane) -> list[InjectedBuffer]:
        """INJ-4: the tail of the stage's output; inside its own classify that is right before the shown bytes."""
        flow, stage = call.flow, call.stage
        assert flow is not None
        assert stage is not None
        assert call.handle is not None
        extra = call.stream_flags & _DATA_FLAGS
        plain = (
            extra & ~rules.EXPEDITED_FLAG[call.direction]
        )  # IND-7: only the last byte of a chain is urgent
        buffers: list[InjectedBuffer] = []
        runs: list[Run] = []
        last = _last_of(call.nbl)
        for nbl in chain_of(call.nbl):
            nbl.next = None  # CMP-3
            nbl.status = NtStatus.STATUS_PENDING
            buffer = InjectedBuffer(
                nbl, nbl.data_length, lane, call.handle, call.completion_fn, call.completion_context
            )
            buffers.append(buffer)
            runs += self._runs_of(
                nbl, buffer, call, extra if nbl is last else plain, flow.read[call.direction]
            )
            if isinstance(nbl._record, BufferRecord):
                self.ownership.hand_over(nbl._record, call.handle_id)
                nbl._record.about = lane
        take_over_missed(flow, lane)
        lane.expect(buffers)
        call.handle.pending += len(buffers)
        flow.injected[call.direction] += call.data_length
        lane.injected += call.data_length
        lane.uncompensated = False
        for run in runs:
            run.last = run is runs[-1]
            run.target = stage.next_sub_layer
            run.missed += lane.carry
            lane.carry = 0
            lane.hand_on(run)
        if call.stream_flags & _DISCONNECTS:
            self._place_fin(call, lane, buffers)
        for buffer in buffers:
            if buffer.remaining == 0 and not buffer.done:
                buffer.done = True  # INJ-42
        self.waterfall.complete_ready(lane)
        return buffers

    def _runs_of(
        self, nbl: NetBufferList, buffer: InjectedBuffer, call: InjectCall, extra: int, offset: int
    ) -> list[Run]:
        record = nbl._record
        earlier: Provenance = getattr(record, "provenance", ())
        provenance = (*earlier, (call.handle_id, call.context))
        if isinstance(record, BufferRecord):
            record.provenance = provenance
        views = list(nbl.pieces())
        runs = [Run(view, buffer, extra, 0, offset, provenance=provenance) for view in views]
        for run in runs[:-1]:
            run.flags &= ~rules.EXPEDITED_FLAG[call.direction]
        return runs

    def _place_fin(self, call: InjectCall, lane: Lane, buffers: list[InjectedBuffer]) -> None:
        """INJ-8, INJ-38, CMP-11: data first, then the FIN; the direction is closed for this stage."""
        flow, stage = call.flow, call.stage
        assert flow is not None
        assert stage is not None
        owner = buffers[-1] if buffers and call.data_length == 0 else None
        if owner is not None:
            owner.remaining = 1
        fin = Run(EMPTY_VIEW, owner, 0, stage.next_sub_layer, flow.read[call.direction], fin=True)
        fin.missed, lane.carry = lane.carry, 0
        lane.closed = True
        lane.fin_pended = False
        lane.hand_on(fin)

    def _run_on(self, flow: Flow, lane: Lane, buffers: list[InjectedBuffer]) -> None:
        core = self.core
        core.touch(flow)
        if core.in_callback:
            core.mark(flow)  # CMP-16: the running loop delivers
            return
        if flow.draining:  # MGMT-16: this may have been the last thing a retiring stage had
            core.mark(flow)
        if core.options.inject_delivery == "queued":
            core.mark(flow)
        else:
            core.running = True
            core.callbacks = 0
            try:
                self.waterfall.run(flow, lane.direction, lane.stage.index + 1)
            finally:
                core.running = False
        if core.options.completion == "early":
            self.complete_early(buffers)
            core.settle()
        core.request_turn()
        core.deliver_events()

    def complete_early(self, buffers: list[InjectedBuffer]) -> None:
        """CMP-14: the lower stages have returned; the completion need not wait for the socket."""
        for buffer in buffers:
            buffer.done = True
        if buffers:
            self.waterfall.complete_ready(buffers[0].lane)

    def complete_early_everywhere(self, flow: Flow) -> None:
        """CMP-14 for injections made inside a callback: after the loop ran the stages below."""
        for lanes in flow.lanes:
            for lane in lanes:
                if lane.outstanding:
                    self.complete_early(list(lane.outstanding))

    # -- contract checks -------------------------------------------------------------------------------

    def _lint(self, call: InjectCall) -> None:
        core, lane, frame = self.core, call.lane, self.core.frame
        own = frame is not None and frame.lane is lane
        if lane.stage.is_inspection:
            core.violation("V-46", "an inspection callout injects", lane)
        if call.stream_flags & _DISCONNECTS:
            self._lint_fin(call, lane, bool(own and frame is not None and frame.fin))
        if call.data_length and not own and not self._is_legal_occasion(lane):
            core.violation("V-21", "injection outside a classify after bytes were permitted here", lane)
        if core.options.verify.hints and not lane.pended_buffers:
            self.waterfall.order_hints.injected(lane, b"".join(nbl.tobytes() for nbl in chain_of(call.nbl)))
        several = any(sum(1 for _ in nbl.net_buffers()) > 1 for nbl in chain_of(call.nbl))
        if several and call.direction == rules.RECEIVE:
            core.violation("V-58", "inbound injection of a list with more than one NET_BUFFER", lane)

    def _lint_fin(self, call: InjectCall, lane: Lane, in_own_fin: bool) -> None:
        """V-19, V-50: a FIN may be injected where one is pended, or inside its own classify."""
        if lane.fin_pended or in_own_fin:
            return
        severity = "E" if call.direction == rules.SEND else "L"  # ABT-3: inbound it is only lint
        text = "DISCONNECT injected although no FIN of that direction is pended"
        self.core.violation("V-19", text, lane, severity=severity)
        if call.data_length:
            self.core.violation("V-50", "data injection carries a DISCONNECT bit", lane)

    def _is_legal_occasion(self, lane: Lane) -> bool:
        """OOB-5: deferred by this callout, its FIN pended, or its last decision there was no permit."""
        return lane.mode == rules.DEFERRED or lane.fin_pended or lane.last_blocked is not False

    # -- completions -----------------------------------------------------------------------------------

    def complete(self, buffer: InjectedBuffer) -> None:
        """CMP-1: call completionFn once for this list; a quick injection has none."""
        core = self.core
        lane, nbl = buffer.lane, buffer.nbl
        flow = lane.stage.flow
        flow.injected[lane.direction] -= buffer.length
        flow.activity = core.clock()
        if nbl is not None:
            nbl.status = buffer.status
            nbl.next = None
            self.ownership.hand_back(nbl)
        if core.tracing:
            core.emit(
                "inject_complete",
                flow,
                dir=flow.direction_name(lane.direction),
                status=buffer.status.name,
                len=buffer.length,
                **lane.stage.named,
            )
        if nbl is not None:
            self._call_completion(buffer, flow, lane)
        handle = buffer.handle
        handle.pending -= 1
        if handle.closing and not handle.pending:
            self._close(handle)
        core.touch(flow)
        core.mark(flow)

    def _call_completion(self, buffer: InjectedBuffer, flow: Flow, lane: Lane) -> None:
        core = self.core
        entry = lane.stage.entry
        frame = Frame("completion", flow, None, entry.callout_id if entry else 0)
        frame.about = lane
        began = core.overruns.since = core.clock()
        outer, core.frame = core.frame, frame
        core.callbacks += 1
        try:
            buffer.completion_fn(buffer.completion_context, buffer.nbl, core.options.dispatch_mode)
        except CALLOUT_FAULTS as error:
            core.violation("V-40", f"{type(error).__name__} out of completionFn: {error}", lane, error=error)
        finally:
            core.frame = outer
        core.overruns.ended(flow, entry.name if entry else "a callout", buffer.completion_fn, began)
        if core.times_callbacks:
            core.check_budget("completionFn", began, lane, None)

    def fail_outstanding(self, flow: Flow, status: NtStatus) -> bool:
        """CMP-9: the flow ends; every pending injection completes with `status`. False: there was none."""
        found = False
        for lanes in flow.lanes:
            for lane in lanes:
                while lane.outstanding:
                    buffer = lane.outstanding.popleft()
                    if not buffer.done:
                        buffer.status = status
                        buffer.done = True
                    self.core.due.append(buffer)
                    found = True
        return found

    def _emit(self, call: InjectCall, flow: Flow | None, status: NtStatus, rule: str | None) -> None:
        name = flow.direction_name(call.direction) if flow is not None else None
        keys: dict[str, Any] = {"dir": name, "len": call.data_length, "status": status.name}
        keys["flags"] = [str(f.name) for f in StreamFlags if f & call.stream_flags]
        if flow is not None:
            keys["offset"] = flow.read[call.direction]
        if call.stage is not None:
            keys |= call.stage.named
        if rule is not None:
            keys["rule"] = rule
            keys["value"] = int(status)
        self.core.emit("inject", flow, **keys)


def _last_of(first: NetBufferList | None) -> NetBufferList | None:
    last = None
    for nbl in chain_of(first):
        last = nbl
    return last


def take_over_missed(flow: Flow, lane: Lane) -> None:
    """ARB-11: what higher stages blocked lies before an injection, if nothing between them still waits.

    So does what a capture does not hold (POL-4).
    """
    lanes = flow.lanes[lane.direction]
    place = lane.stage.index
    for index in range(place - 1, -1, -1):
        upper = lanes[index]
        if lanes[index + 1].queue or upper.outbox:
            return
        for passed in lanes[index + 1 : place + 1]:
            passed.missed += upper.carry
        lane.carry += upper.carry
        upper.carry = 0
    hole = flow.hole[lane.direction]
    if hole and not lanes[0].queue:
        for passed in lanes[: place + 1]:
            passed.missed += hole
        lane.carry += hole
        flow.hole[lane.direction] = 0
