"""The run time a callout is given: every Fwps* call, in WFP's parameter order (REG-10).

Owns registration and the border where handles and contexts are plain integers; a refused call returns its
status, an argument of the wrong Python type raises TypeError. The work is done by the parts it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from wfpstream.fwp import CALLOUT_FLAG_SINCE, CalloutFlags, NtStatus, profile_at_least

from . import _stream_state as rules
from ._callout import (
    Callout0,
    CalloutEntry,
    CalloutTable,
    ComfortableCallout,
    callout_key,
    layers_of,
    structure_for,
)
from ._connection_services import ConnectionServices
from ._connections import Connections
from ._constants import LayerId
from ._contexts import Contexts
from ._core import Core, Frame
from ._establish import Establisher
from ._flow import LIVE, Stage
from ._injection import InjectCall, Injector
from ._inputs import Inputs
from ._lifecycle import Lifecycle
from ._net_buffer import NetBufferList
from ._options import EngineOptions
from ._overruns import name_aside
from ._ownership import ALLOCATED, CLONE, Ownership
from ._pipeline import Pipeline
from ._quick_injection import QuickInjection
from ._retiring import Retiring
from ._stream_data import ExpiredData, StreamData
from ._timers import Timer
from ._tracking import Tracking
from ._violations import CALLOUT_FAULTS, where_defined, where_raised
from ._waterfall import Waterfall
from ._worker import WorkerHost

if TYPE_CHECKING:
    from ._constants import PacketInjectionState
    from ._filter import Filter2
    from ._filter_set import FilterSet

_KNOWN_FLAGS = 0
for _flag in CalloutFlags:
    _KNOWN_FLAGS |= int(_flag)
_STREAM_LAYERS = (int(LayerId.STREAM_V4), int(LayerId.STREAM_V6))
UNKNOWN_NOTIFY_TYPE = 0x7FFF  # what verification asks a notifyFn with (NTF-8)
_FIRST_PROFILE_OF_VERSION = {0: "vista", 1: "win7", 2: "win8"}


class RunTime(ConnectionServices):
    """The Fwps* services of one engine.

    Status-only calls return an `NtStatus`; calls with an out parameter return `(NtStatus, value)`.
    """

    def __init__(self, clock: Callable[[], float], options: EngineOptions) -> None:
        self.options = options
        self._last_handle = 0x1000
        self.core = core = Core(clock, options)
        self.callouts = CalloutTable()
        core.find_entry = self.callouts.find_id
        self.ownership = Ownership(core, self.callouts)
        self.waterfall = Waterfall(core)
        self.waterfall.classifier.ownership = self.ownership
        self.tracking = Tracking(core, self._next_handle)
        self.contexts = Contexts(core, self.callouts, self.waterfall, self.tracking)
        self.injector = Injector(core, self.callouts, self.ownership, self.waterfall)
        self.injector.next_handle = self._next_handle
        self.quick_injection = QuickInjection(core, self.injector)
        self.retiring = Retiring(core, self.callouts, self.waterfall)
        self.pipeline = Pipeline(core, self.callouts, self.waterfall, self.retiring)
        self.lifecycle = Lifecycle(
            core,
            self.waterfall,
            self.ownership,
            self.contexts,
            self.injector,
            self.pipeline,
            self.retiring,
        )
        self.inputs = Inputs(core, self.waterfall, self.lifecycle)
        self.connections = Connections(core, self.callouts, self._next_handle, self.waterfall.doom)
        self.establisher = Establisher(core, self.callouts, self.inputs, self.pipeline, self.contexts)
        self.workers = WorkerHost(core, self.ownership)
        self.lifecycle.flow_ended = self.workers.end_flow
        self._notify_refusal = ""

    # -- time, names, objects --------------------------------------------------------------------------

    @property
    def profile(self) -> str:
        """The OS profile (OBJ-15)."""
        return self.options.profile

    def now(self) -> float:
        """The engine's clock, seconds."""
        return self.core.clock()

    def at(self, when: float, fn: Callable[[], None]) -> Timer:
        """Call `fn` when the engine's clock has reached `when`."""
        return self.core.at(when, fn)

    def after(self, seconds: float, fn: Callable[..., None], *args: Any) -> Timer:
        """Call `fn(*args)` after `seconds`; an exception out of it is a violation (V-40)."""
        return self.core.at(self.core.clock() + seconds, lambda: self._timer_call(fn, args))

    def _timer_call(self, fn: Callable[..., None], args: tuple[Any, ...]) -> None:
        overruns = self.core.overruns
        began = overruns.since = self.core.clock()
        overruns.aside = fn
        try:
            fn(*args)
        except CALLOUT_FAULTS as error:
            self.core.violation("V-40", f"{type(error).__name__} out of a timer: {error}", error=error)
        finally:
            overruns.aside = None
        overruns.ended(None, name_aside(fn), fn, began)

    def direction_name(self, flow_handle: int, inbound: bool) -> str:
        """to_client or to_upstream for a data direction of a flow."""
        flow = self.core.flows.get(flow_handle)
        if flow is None:
            return "to_client" if inbound else "to_upstream"
        return flow.direction_name(1 if inbound else 0)

    def has_stage(self, flow_handle: int, filter_id: int, inbound: bool) -> bool:
        """A stage of that filter works on that direction of a flow; one that has retired does not (MGMT-16)."""
        flow = self.core.flows.get(flow_handle)
        return flow is not None and any(
            stage.filter.filter_id == filter_id and not stage.retired and not stage.lanes[inbound].let_go
            for stage in flow.stages
        )

    def track(self, obj: object) -> int:
        """An integer that stands for a Python object, for contexts.

        Of contexts made in this way the verifier knows who released them, and when (V-31, V-41, VRF-5): `untrack`
        them in flowDeleteFn, or at once where Associate did not answer STATUS_SUCCESS.
        """
        return self.tracking.track(obj)

    def tracked(self, handle: int) -> Any:
        """The object behind a tracked integer; KeyError when it was released or never was."""
        return self.tracking.find(handle)

    def untrack(self, handle: int) -> Any:
        """Release a tracked integer and return its object."""
        return self.tracking.release(handle)

    def _next_handle(self) -> int:
        self._last_handle += 1
        return self._last_handle

    # -- registration ----------------------------------------------------------------------------------

    def callout_register0(self, device_object: object, callout: Callout0) -> tuple[NtStatus, int]:
        """FwpsCalloutRegister0 (REG-1..REG-4): (status, calloutId)."""
        return self._register(callout, 0)

    def callout_register1(self, device_object: object, callout: Callout0) -> tuple[NtStatus, int]:
        """FwpsCalloutRegister1 (Windows 7 and later)."""
        return self._register(callout, 1)

    def callout_register2(self, device_object: object, callout: Callout0) -> tuple[NtStatus, int]:
        """FwpsCalloutRegister2 (Windows 8 and later)."""
        return self._register(callout, 2)

    callout_register3 = callout_register2  # CFN-15

    def _register(self, structure: Callout0, version: int) -> tuple[NtStatus, int]:
        status, rule = self._may_register(structure, version)
        if rule is not None:
            return self.core.refused("callout_register", status, rule), 0
        entry = self.callouts.entry(structure.callout_key)
        entry.register(structure, self.core.next_tick())
        self._lint_flags(structure, entry)
        self.pipeline.callout_changed(entry)
        return NtStatus.STATUS_SUCCESS, entry.callout_id

    def _may_register(self, structure: Callout0, version: int) -> tuple[NtStatus, str | None]:
        refused = self.passive_call_refused("callout_register")
        if refused is not None:
            return NtStatus(refused), "IRQ-3"
        if not profile_at_least(self.profile, _FIRST_PROFILE_OF_VERSION[version]):
            return NtStatus.STATUS_NOT_SUPPORTED, "OBJ-15"
        if structure.classify_fn is None or structure.notify_fn is None:
            return NtStatus.STATUS_FWP_NULL_POINTER, "REG-4"
        if structure.flags & ~_KNOWN_FLAGS:
            return NtStatus.STATUS_FWP_INVALID_FLAGS, "CFN-10"
        entry = self.callouts.find(structure.callout_key)
        if entry is not None and entry.registered:
            return NtStatus.STATUS_FWP_ALREADY_EXISTS, "REG-2"
        if self.callouts.full:
            return NtStatus.STATUS_FWP_TOO_MANY_CALLOUTS, "REG-3"
        return NtStatus.STATUS_SUCCESS, None

    def _lint_flags(self, structure: Callout0, entry: CalloutEntry) -> None:
        """V-45: a flag newer than the structure or the profile, or a reserved one (section 2.1)."""
        for flag, since in CALLOUT_FLAG_SINCE.items():
            if not structure.flags & int(flag):
                continue
            newer = since.structure > structure.version or not profile_at_least(self.profile, since.profile)
            if newer or "RESERVED" in str(flag.name):
                text = f"callout flag {flag.name} with FWPS_CALLOUT{structure.version}"
                self.core.violation("V-45", text, entry=entry, judged=True)

    def callout_unregister_by_id(self, callout_id: int) -> NtStatus:
        """FwpsCalloutUnregisterById0 (UNR-1..UNR-7)."""
        return self._unregister(self.callouts.registered_id(callout_id))

    def callout_unregister_by_key(self, callout_key: UUID) -> NtStatus:
        """FwpsCalloutUnregisterByKey0."""
        entry = self.callouts.find(callout_key)
        return self._unregister(entry if entry is not None and entry.registered else None)

    def _unregister(self, entry: CalloutEntry | None) -> NtStatus:
        refused = self.passive_call_refused("callout_unregister")
        if refused is not None:
            return self.core.refused("callout_unregister", NtStatus(refused), "IRQ-3")
        if entry is None:
            return self.core.refused("callout_unregister", NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND, "UNR-1")
        if entry.contexts:
            return self.core.refused("callout_unregister", NtStatus.STATUS_DEVICE_BUSY, "UNR-2")
        if entry.pended:
            self.core.violation("V-59", "callout unregistered with a pended connection")
            return self.core.refused("callout_unregister", NtStatus.STATUS_DEVICE_BUSY, "LAY-30")
        self.ownership.report_leaks(callout_id=entry.callout_id)
        self._probe_notify(entry)
        entry.clear()
        self.pipeline.callout_changed(entry)
        return NtStatus.STATUS_SUCCESS

    def register(
        self, callout: ComfortableCallout, name: str, key_name: str | None = None
    ) -> list[tuple[LayerId, UUID, int]]:
        """Register a comfortable callout once per layer and family (REG-9): (layer, key, callout id) each.

        Its keys are made from `key_name`, or from the name: the successor of a callout that is still at work has
        the same name and keys of its own. Raises ValueError for an unknown layer, when the callout is refused, or
        when the object is at work in another engine.
        """
        self._refuse_shared(callout)
        layers = layers_of(callout)
        made: list[tuple[LayerId, UUID, int]] = []
        callout.name = name
        callout.fwps = self
        callout._ids = {}
        _, callout.injection_handle = self.injector.create_handle(0, 1)
        for layer_name, layer in layers:
            if layer_name == "ale_connect_redirect" and not profile_at_least(self.profile, "win7"):
                continue
            key = callout_key(key_name or name, layer)
            self.callouts.entry(key).name = name
            status, callout_id = self._register(
                structure_for(callout, layer_name, key), min(callout.version, 2)
            )
            if not status.ok:
                raise ValueError(f"callout {name!r} was refused at {layer.name}: {status.name}")
            entry = self.callouts.entry(key)
            entry.name = name
            entry.owner = callout
            callout._ids[int(layer)] = callout_id
            made.append((layer, key, callout_id))
        callout.on_registered()
        return made

    def _refuse_shared(self, callout: ComfortableCallout) -> None:
        """A callout has one run time: what it injects would come out of the flows of the engine that got it last."""
        other = getattr(callout, "fwps", None)
        if (
            isinstance(other, RunTime)
            and other is not self
            and other.core.started
            and other.layers_of(callout)
        ):
            raise ValueError(
                f"this {type(callout).__name__} is at work in another engine: "
                f"give each engine (driver, proxy, pair) an object of its own, or stop the other one first"
            )

    def pends_connections(self, callout_key: UUID) -> bool:
        """A connection waits for this callout: it cannot be unregistered now (LAY-30)."""
        entry = self.callouts.find(callout_key)
        return entry is not None and entry.pended > 0

    def forget_callout(self, callout: ComfortableCallout, keys: Iterable[UUID]) -> None:
        """After its last unregistration, when no object names these keys: end what still works for it."""
        self.workers.forget(callout)
        for key in keys:
            self.callouts.forget(key)

    def report_left_behind(self) -> None:
        """V-39, CLN-9: what a driver must have given back before the engine stops.

        Comfortable callouts are the engine's own to unregister, and so are their handles.
        """
        self.connections.stop()
        self.tracking.report_refused()
        registered = self.callouts.registered()
        for entry in registered:
            self._probe_notify(entry)
            if entry.owner is None:
                text = f"engine stopped with callout {entry.name} registered"
                self.core.violation("V-39", text, entry=entry, judged=True)
        ours = {entry.owner.injection_handle for entry in registered if entry.owner is not None}
        for handle in self.injector.handles.values():
            if not handle.destroyed and handle.handle_id not in ours:
                text = f"engine stopped with injection handle {handle.handle_id} open"
                self.core.violation("V-39", text, where=handle.site)
        self.ownership.report_leaks()

    def layers_of(self, callout: ComfortableCallout) -> list[tuple[LayerId, UUID, int]]:
        """(layer, key, callout id) of everything this very object is registered for; empty when it is not."""
        return [
            (layer, entry.key, entry.callout_id)
            for entry in self.callouts.registered()
            if entry.owner is callout
            for layer in LayerId
            if callout.callout_id(layer) == entry.callout_id
        ]

    # -- what management asks (fwpm's RunTime protocol) --------------------------------------------------

    def callout_id_for(self, key: UUID) -> int:
        """OBJ-8: the id a key has, or will have."""
        return self.callouts.entry(key).callout_id

    def callout_registered(self, key: UUID) -> bool:
        """Is code registered under this key?"""
        entry = self.callouts.find(key)
        return entry is not None and entry.registered

    def callout_key_of(self, callout_id: int) -> UUID | None:
        """The key of a run-time id."""
        entry = self.callouts.find_id(callout_id)
        return entry.key if entry is not None else None

    def notify(self, key: UUID, notify_type: int, filter_key: UUID | None, filter: Filter2) -> int:
        """Call notifyFn of a registered callout (NTF-1..NTF-6); SUCCESS when there is none."""
        entry = self.callouts.find(key)
        if entry is None or entry.notify_fn is None:
            return NtStatus.STATUS_SUCCESS
        core = self.core
        core.overruns.since = core.clock()
        outer, core.frame = core.frame, Frame("notify", None, None, entry.callout_id)
        core.frame.filter_id = filter.filter_id
        try:
            status = int(entry.notify_fn(notify_type, filter_key, filter))
            if status == NtStatus.STATUS_SUCCESS:
                entry.last_filter = filter
            self._notify_refusal = f"notifyFn of {entry.name} answered {_named(status)}"
            return status
        except CALLOUT_FAULTS as error:
            text = f"{type(error).__name__} out of notifyFn: {error}".rstrip(": ")
            self._notify_refusal = f"{text} ({where_raised(error) or entry.name})"
            core.violation("V-40", text, error=error)
            return NtStatus.STATUS_UNSUCCESSFUL
        finally:
            core.frame = outer

    def why_refused(self, status: NtStatus) -> str:
        """A call has just answered `status`: what that status does not say, for people, as ": ..."; or "".

        What came out of a notifyFn is told here too, since who adds the filter need not have a sink (NTF-2).
        """
        notified = status is NtStatus.STATUS_FWP_CALLOUT_NOTIFICATION_FAILED
        return f": {self._notify_refusal}" if notified and self._notify_refusal else ""

    def _probe_notify(self, entry: CalloutEntry) -> None:
        """V-54, NTF-8: a notify type of a system to come. Asked when the callout goes, so that nothing hangs on it."""
        notify, filter, entry.last_filter = entry.notify_fn, entry.last_filter, None
        if notify is None or filter is None or self.options.verify.level == "off":
            return
        core = self.core
        core.overruns.since = core.clock()
        outer, core.frame = core.frame, Frame("notify", None, None, entry.callout_id)
        core.frame.filter_id = filter.filter_id
        text = ""
        try:
            status = notify(UNKNOWN_NOTIFY_TYPE, None, filter)
            if status != NtStatus.STATUS_SUCCESS:
                text = f"notifyFn answered {status!r} to an unknown notify type"
        except CALLOUT_FAULTS as error:
            text = f"{type(error).__name__} out of notifyFn at an unknown notify type: {error}"
        finally:
            core.frame = outer
        if text:
            where = where_defined(notify, entry.owner)
            core.violation("V-54", text, entry=entry, filter_id=filter.filter_id, where=where)

    def commit_add_notify(self, key: UUID) -> bool:
        """NTF-6."""
        entry = self.callouts.find(key)
        return entry is not None and bool(entry.flags & int(CalloutFlags.ENABLE_COMMIT_ADD_NOTIFY))

    def filter_busy(self, filter_id: int) -> bool:
        """MGMT-13, MGMT-14: out of band, waiting or deferring on any flow."""
        return self._busy_stage(filter_id) is not None

    def _busy_stage(self, filter_id: int) -> Stage | None:
        for flow in self.core.flows.values():
            for stage in flow.stages:
                if stage.filter.filter_id != filter_id or stage.retired:
                    continue
                for lane in stage.lanes:
                    if flow.is_waiting(lane) or lane.pended_buffers or lane.fin_pended or lane.outstanding:
                        return stage
        return None

    def install(self, filter_set: FilterSet) -> None:
        """A commit: effective for each flow at its next byte boundary (MGMT-11)."""
        core = self.core
        self.connections.policy_changed(filter_set)
        core.filters = filter_set
        for flow in core.flows.values():
            if flow.phase == LIVE:
                flow.needs_stages = True
                core.mark(flow)
        if core.dirty and not core.in_callback:
            core.request_turn()

    def retire(self, filter: Filter2, gone: Callable[[], None]) -> bool:
        """MGMT-16: a filter that `install` took out of force drains. True: no flow had a stage of it.

        Otherwise `gone` is called, outside of callbacks, when the last stage has finished.
        """
        return self.retiring.begin(filter, gone)

    def end_retiring(self, filter_id: int) -> None:
        """End what is left of a retiring filter by force (MGMT-13)."""
        self.retiring.end_now(filter_id)

    def passive_call_refused(self, call: str) -> NtStatus | None:
        """IRQ-3: PASSIVE only; inside classify, completion or flowDelete V-32, inside notifyFn V-33 for Fwpm*."""
        frame = self.core.frame
        if frame is None:
            return None
        if frame.kind == "notify":
            if not call.lower().startswith("fwpm"):
                return None
            self.core.violation("V-33", f"{call} from notifyFn")
        else:
            self.core.violation("V-32", f"{call} inside {frame.kind}", frame.lane, frame.flow)
        return NtStatus.STATUS_INVALID_DEVICE_STATE

    def report(self, rule: str, text: str, filter_id: int = 0) -> None:
        """A violation found by management; `filter_id` names the filter whose callout is at work."""
        stage = self._busy_stage(filter_id) if filter_id else None
        if stage is None:
            self.core.violation(rule, text)
        else:
            self.core.violation(rule, text, flow=stage.flow, entry=stage.entry, filter_id=filter_id)

    # -- flows -----------------------------------------------------------------------------------------

    def flow_associate_context(
        self, flow_id: int, layer_id: int, callout_id: int, flow_context: int
    ) -> NtStatus:
        """FwpsFlowAssociateContext0. Compare with STATUS_SUCCESS: OBJECT_NAME_EXISTS also satisfies `.ok` (CTX-6)."""
        return self.contexts.associate(flow_id, layer_id, callout_id, flow_context)

    def flow_remove_context(self, flow_id: int, layer_id: int, callout_id: int) -> NtStatus:
        """FwpsFlowRemoveContext0 (CTX-9..CTX-12)."""
        return self.contexts.remove(flow_id, layer_id, callout_id)

    def flow_abort(self, flow_id: int) -> NtStatus:
        """FwpsFlowAbort0, Windows 8 and later (ABT-1, ABT-2)."""
        core = self.core
        if not profile_at_least(self.profile, "win8"):
            return core.refused("flow_abort", NtStatus.STATUS_NOT_SUPPORTED, "OBJ-15")
        flow = core.flows.get(flow_id)
        if flow is None or flow.doomed is not None or flow.end_reason:
            return core.refused("flow_abort", NtStatus.STATUS_FWP_NOT_FOUND, "ABT-2")
        self.waterfall.doom(flow, "abort")
        core.touch(flow)
        if not core.in_callback:
            core.request_turn()
        return NtStatus.STATUS_SUCCESS

    # -- injection -------------------------------------------------------------------------------------

    def injection_handle_create(self, address_family: int = 0, flags: int = 1) -> tuple[NtStatus, int]:
        """FwpsInjectionHandleCreate0 (IHC-1): (status, handle)."""
        refused = self.passive_call_refused("injection_handle_create")
        if refused is not None:
            return self.core.refused("injection_handle_create", refused, "IRQ-3"), 0
        status, handle = self.injector.create_handle(address_family, flags)
        if not status.ok:
            self.core.refused("injection_handle_create", status, "IHC-1")
        return status, handle

    def injection_handle_destroy(self, injection_handle: int) -> NtStatus:
        """FwpsInjectionHandleDestroy0 (CMP-12): STATUS_PENDING while injections of the handle are pending."""
        frame = self.core.frame
        if frame is not None and frame.kind in ("classify", "completion", "flow_delete"):
            self.core.violation(
                "V-28", f"injection handle destroyed inside {frame.kind}", frame.lane, frame.flow
            )
            status = NtStatus.STATUS_INVALID_DEVICE_STATE
            return self.core.refused("injection_handle_destroy", status, "CMP-12")
        status = self.injector.destroy_handle(injection_handle)
        return status if status.ok else self.core.refused("injection_handle_destroy", status, "CMP-12")

    def injection_handle_closed(self, injection_handle: int) -> bool:
        """IRQ-6: the destroy is finished."""
        handle = self.injector.handles.get(injection_handle)
        return handle is None or handle.destroyed

    def stream_inject_async(
        self,
        injection_handle: int,
        injection_context: Any,
        flags: int,
        flow_id: int,
        callout_id: int,
        layer_id: int,
        stream_flags: int,
        net_buffer_list: NetBufferList | None,
        data_length: int,
        completion_fn: Callable[[Any, NetBufferList, bool], None] | None,
        completion_context: Any = None,
    ) -> NtStatus:
        """FwpsStreamInjectAsync0 (section 14). On anything but STATUS_SUCCESS the caller still owns the lists."""
        call = InjectCall(
            injection_handle,
            injection_context,
            flags,
            callout_id,
            layer_id,
            int(stream_flags),
            net_buffer_list,
            data_length,
            completion_fn,
            completion_context,
        )
        return self.injector.inject(flow_id, call)

    def stream_continue(self, flow_id: int, callout_id: int, layer_id: int, stream_flags: int) -> NtStatus:
        """FwpsStreamContinue0 (DEF-5..DEF-8)."""
        core = self.core
        flow = core.flows.get(flow_id)
        status, rule = self._may_continue(flow_id, callout_id, layer_id, int(stream_flags))
        if rule is not None:
            return core.refused("stream_continue", status, rule, flow)
        assert flow is not None
        lane = next(s for s in flow.stages if s.filter.callout_id == callout_id).lanes[1]
        if int(stream_flags) != lane.deferred_flags:
            core.violation("V-15", "continue flags differ from the deferred indication's", lane)
        lane.continued = True
        flow.activity = core.clock()
        core.touch(flow)
        core.mark(flow)
        if core.tracing:
            core.emit("continue", flow, dir=flow.direction_name(1), held=lane.bytes, **lane.stage.named)
        if not core.in_callback:
            core.request_turn()
        return NtStatus.STATUS_SUCCESS

    def _may_continue(
        self, flow_id: int, callout_id: int, layer_id: int, flags: int
    ) -> tuple[NtStatus, str | None]:
        """DEF-7, DEF-8."""
        frame = self.core.frame
        if frame is not None and frame.kind == "classify":
            self.core.violation("V-14", "FwpsStreamContinue inside a classify", frame.lane, frame.flow)
            return NtStatus.STATUS_INVALID_DEVICE_STATE, "DEF-7"
        flow = self.core.flows.get(flow_id)
        if layer_id not in _STREAM_LAYERS or (flow is not None and flow.layer_id != layer_id):
            return NtStatus.STATUS_FWP_INCOMPATIBLE_LAYER, "DEF-8"
        if self.callouts.registered_id(callout_id) is None:
            return NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND, "DEF-8"
        if flow is None or flow.phase != LIVE or flow.doomed is not None:
            return NtStatus.STATUS_FWP_NOT_FOUND, "DEF-8"
        if not flags & rules.DIRECTION_FLAG[1]:
            return NtStatus.STATUS_FWP_INVALID_PARAMETER, "DEF-8"
        stage = flow.stage_of(callout_id)
        if stage is None:
            return NtStatus.STATUS_FWP_NOT_FOUND, "DEF-8"
        lane = stage.lanes[1]
        if lane.mode != rules.DEFERRED or lane.continued:
            return NtStatus.STATUS_INVALID_DEVICE_STATE, "DEF-8"
        return NtStatus.STATUS_SUCCESS, None

    # -- buffers ---------------------------------------------------------------------------------------

    def clone_stream_data(
        self, stream_data: StreamData, nbl_pool: object = None, nb_pool: object = None, flags: int = 0
    ) -> tuple[NtStatus, NetBufferList | None]:
        """FwpsCloneStreamData0 (CLN-1..CLN-5): (status, chain)."""
        if not isinstance(stream_data, StreamData):
            raise TypeError("stream_data must be a StreamData")
        status, chain = self.ownership.clone_stream_data(stream_data, flags)
        if not status.ok:
            self.core.refused("clone_stream_data", status, "CLN-3" if flags else "CLN-2")
        return status, chain

    def discard_cloned_stream_data(
        self, chain: NetBufferList | None, flags: int = 0, dispatch_level: bool = False
    ) -> None:
        """FwpsDiscardClonedStreamData0: free a chain of clones (CLN-5)."""
        self.ownership.discard_chain(chain)

    def copy_stream_data_to_buffer(
        self, stream_data: StreamData, buffer: bytearray | memoryview, bytes_to_copy: int
    ) -> int:
        """FwpsCopyStreamDataToBuffer0: returns bytesCopied (CPY-1, CPY-2)."""
        if not self.ownership.is_valid(stream_data) and not isinstance(stream_data, ExpiredData):
            text = "stream data copied after the classify without a reference"
            self.ownership.tell_of_data(text, stream_data)
        return stream_data.copy_to(buffer, bytes_to_copy)

    def reference_net_buffer_list(
        self, net_buffer_list: NetBufferList, intend_to_modify: bool = False
    ) -> None:
        """FwpsReferenceNetBufferList0 (REF-1)."""
        self.ownership.reference(net_buffer_list)

    def dereference_net_buffer_list(
        self, net_buffer_list: NetBufferList, dispatch_level: bool = False
    ) -> None:
        """FwpsDereferenceNetBufferList0 (REF-2)."""
        self.ownership.dereference(net_buffer_list)

    def allocate_net_buffer_and_net_buffer_list(
        self,
        pool: object,
        context_size: int,
        context_back_fill: int,
        mdl_chain: Any,
        data_offset: int,
        data_length: int,
    ) -> tuple[NtStatus, NetBufferList | None]:
        """FwpsAllocateNetBufferAndNetBufferList0 (ALO-1). `mdl_chain` may be an Mdl, None, or plain bytes."""
        return self.ownership.allocate(mdl_chain, data_offset, data_length)

    def free_net_buffer_list(self, net_buffer_list: NetBufferList) -> None:
        """FwpsFreeNetBufferList0, for allocated lists (CLN-6)."""
        self.ownership.free(net_buffer_list, ALLOCATED)

    def free_clone_net_buffer_list(self, net_buffer_list: NetBufferList, flags: int = 0) -> None:
        """FwpsFreeCloneNetBufferList0, for one clone (CLN-6)."""
        self.ownership.free(net_buffer_list, CLONE)

    def allocate_clone_net_buffer_list(
        self, net_buffer_list: NetBufferList, nbl_pool: object = None, nb_pool: object = None, flags: int = 0
    ) -> tuple[NtStatus, NetBufferList | None]:
        """FwpsAllocateCloneNetBufferList0: one list, whole (CLN-10)."""
        return self._clone_list("allocate_clone_net_buffer_list", net_buffer_list, flags, False)

    def allocate_deep_clone_net_buffer_list(
        self, net_buffer_list: NetBufferList, nbl_pool: object = None, nb_pool: object = None, flags: int = 0
    ) -> tuple[NtStatus, NetBufferList | None]:
        """FwpsAllocateDeepCloneNetBufferList0 (CLN-11)."""
        return self._clone_list("allocate_deep_clone_net_buffer_list", net_buffer_list, flags, True)

    def _clone_list(
        self, call: str, net_buffer_list: NetBufferList, flags: int, deep: bool
    ) -> tuple[NtStatus, NetBufferList | None]:
        status, clone = self.ownership.clone_list(net_buffer_list, flags, deep)
        if not status.ok:
            self.core.refused(call, status, "CLN-10")
        return status, clone

    def refused(self, call: str, status: NtStatus, rule: str) -> NtStatus:
        """A refusal found by management (VRF-6)."""
        return self.core.refused(call, status, rule)

    def query_packet_injection_state(
        self, injection_handle: int, net_buffer_list: NetBufferList
    ) -> tuple[PacketInjectionState, object]:
        """FwpsQueryPacketInjectionState0 (QPI-1): (state, injectionContext)."""
        handle = self.injector.handles.get(injection_handle)
        known = handle is not None and not handle.destroyed  # QPI-2: unknown or destroyed is somebody else's
        return self.ownership.injection_state(injection_handle if known else 0, net_buffer_list)


def _named(status: int) -> str:
    try:
        return NtStatus(status).name
    except ValueError:
        return f"{status:#x}"
