"""Callouts: the plain structures, the comfortable base class, and the table of what is registered.

Owns keys, run-time ids and registration (section 2). It must not know flows' insides; the run time is given
to a callout when it is registered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import CodeType
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID, uuid5

from wfpstream.fwp import CalloutFlags, NtStatus

from ._constants import LAYERS_BY_NAME, LayerId, StreamFlags
from ._net_buffer import NetBufferList

if TYPE_CHECKING:
    from ._filter import Filter2
    from ._records import ClassifyOut, IncomingMetadataValues, IncomingValues
    from ._services import RunTime

ClassifyFn = Callable[..., None]
NotifyFn = Callable[..., int]
FlowDeleteFn = Callable[[int, int, int], None]
CompletionFn = Callable[[Any, NetBufferList, bool], None]

NAMESPACE = UUID("5b2c3d8e-4f0a-5e61-9a77-0d6c1e2f3a4b")

_CONDITIONAL = int(CalloutFlags.CONDITIONAL_ON_FLOW)
_MID_STREAM = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)


class Callout0:
    """FWPS_CALLOUT0 (Vista): classify_fn without classifyContext (CFN-11).

    Args:
        callout_key: identifies the callout (GUID).
        flags: `CalloutFlags` bits.
        classify_fn: classifyFn0, called with (in_fixed_values, in_meta_values, layer_data, filter,
            flow_context, classify_out).
        notify_fn: notifyFn(notify_type, filter_key, filter) -> NTSTATUS.
        flow_delete_fn: flowDeleteFn(layer_id, callout_id, flow_context), may be None.
    """

    __slots__ = ("callout_key", "classify_fn", "flags", "flow_delete_fn", "notify_fn")

    version: ClassVar[int] = 0

    def __init__(
        self,
        callout_key: UUID,
        flags: int,
        classify_fn: ClassifyFn | None,
        notify_fn: NotifyFn | None,
        flow_delete_fn: FlowDeleteFn | None = None,
    ) -> None:
        self.callout_key = callout_key
        self.flags = flags
        self.classify_fn = classify_fn
        self.notify_fn = notify_fn
        self.flow_delete_fn = flow_delete_fn


class Callout1(Callout0):
    """FWPS_CALLOUT1 (Windows 7): classify_fn has `classify_context` after `layer_data` (CFN-12)."""

    __slots__ = ()
    version: ClassVar[int] = 1


class Callout2(Callout0):
    """FWPS_CALLOUT2 (Windows 8): as version 1, `layer_data` optional."""

    __slots__ = ()
    version: ClassVar[int] = 2


class CalloutEntry:
    """One key of the callout table: shared by registration and addition (OBJ-8, OBJ-9)."""

    __slots__ = (
        "callout_id",
        "classify_code",
        "classify_fn",
        "conditional_on_flow",
        "contexts",
        "flags",
        "flow_delete_fn",
        "key",
        "mid_stream_allowed",
        "name",
        "notify_fn",
        "owner",
        "pended",
        "registered",
        "registered_at",
        "version",
    )

    def __init__(self, key: UUID, callout_id: int) -> None:
        self.key = key
        self.callout_id = callout_id
        self.name = str(key)
        self.owner: Callout | None = None
        self.contexts = 0
        self.pended = 0
        self.registered_at = 0
        self.clear()

    def clear(self) -> None:
        """Not registered (any more)."""
        self.registered = False
        self.version = 2
        self.flags = 0
        self.classify_fn: ClassifyFn | None = None
        self.classify_code: CodeType | None = None
        self.notify_fn: NotifyFn | None = None
        self.flow_delete_fn: FlowDeleteFn | None = None
        self.conditional_on_flow = False
        self.mid_stream_allowed = False

    def register(self, structure: Callout0, tick: int) -> None:
        """Take over the code of a registered structure."""
        self.registered = True
        self.registered_at = tick
        self.version = structure.version
        self.flags = structure.flags
        self.classify_fn = structure.classify_fn
        function = getattr(structure.classify_fn, "__func__", structure.classify_fn)
        self.classify_code = getattr(function, "__code__", None)
        self.notify_fn = structure.notify_fn
        self.flow_delete_fn = structure.flow_delete_fn
        self.conditional_on_flow = bool(structure.flags & _CONDITIONAL)
        self.mid_stream_allowed = bool(structure.flags & _MID_STREAM)


class CalloutTable:
    """Every key ever seen, its run-time id, and what is registered under it."""

    def __init__(self) -> None:
        self._by_key: dict[UUID, CalloutEntry] = {}
        self._by_id: dict[int, CalloutEntry] = {}

    def entry(self, key: UUID) -> CalloutEntry:
        """The entry of a key; its id is assigned on first use and never reused (OBJ-9)."""
        entry = self._by_key.get(key)
        if entry is None:
            entry = CalloutEntry(key, len(self._by_id) + 1)
            self._by_key[key] = entry
            self._by_id[entry.callout_id] = entry
        return entry

    def find(self, key: UUID | None) -> CalloutEntry | None:
        return self._by_key.get(key) if key is not None else None

    def find_id(self, callout_id: int) -> CalloutEntry | None:
        return self._by_id.get(callout_id)

    def registered_id(self, callout_id: int) -> CalloutEntry | None:
        """The entry of a registered callout, else None."""
        entry = self._by_id.get(callout_id)
        return entry if entry is not None and entry.registered else None

    def registered(self) -> list[CalloutEntry]:
        return [entry for entry in self._by_key.values() if entry.registered]


class Callout:
    """A callout in its comfortable form: one object, several layers (REG-9).

    Subclass it and override `classify_fn` (or `classify_<layer>`), and what else you need. It is registered
    and added once per layer and address family, each time under its own key; `callout_id(layer_id)` gives
    the run-time id that injecting, continuing and associating want. Bytes shown to `classify_fn` are lent:
    `stream_data.view()` is valid only during the call; keep `tobytes()`, a clone or a reference (IND-22).

    The functions must not wait, sleep or do blocking I/O (IRQ-1): they run on the engine's thread, and every
    flow of the worker waits with them.

    Attributes:
        layers: layer names, each meaning V4 and V6 unless suffixed `_v4` / `_v6`.
        flags: `CalloutFlags`.
        filter_action: the filter type made for it: callout_unknown, callout_terminating, callout_inspection.
        version: 2; 0 calls `classify_fn` without `classify_context` (CFN-17).
        fwps: the run time, set when registered.
    """

    layers: ClassVar[Sequence[str]] = ("stream",)
    flags: int = 0
    filter_action: str = "callout_unknown"
    version: int = 2
    name: str = ""
    fwps: RunTime
    injection_handle: int = 0
    _ids: dict[int, int] | None = None

    def classify_fn(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Filter2,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """classifyFn2. Called once per indication; answers through `classify_out` and `layer_data`.

        At the stream layer `layer_data` is a `StreamCalloutIoPacket`. It may clone, inject, associate; it must
        not continue (V-14) nor create or destroy handles (V-32). An exception meets `on_callout_error` (V-40).
        Source: FWPS_CALLOUT_CLASSIFY_FN2.
        """
        raise NotImplementedError

    def notify_fn(self, notify_type: int, filter_key: UUID | None, filter: Filter2) -> int:
        """notifyFn2. Called when a filter naming this callout is added or deleted (NTF-1, NTF-5).

        Returns an NTSTATUS; a failure refuses the filter (NTF-2). Source: FWPS_CALLOUT_NOTIFY_FN2.
        """
        return NtStatus.STATUS_SUCCESS

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        """flowDeleteFn. Called exactly once for every associated context (CTX-15).

        Source: FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0.
        """

    def drain(self) -> None:
        """Release everything pended now, in order, and hold nothing any more (MGMT-16)."""

    def on_registered(self) -> None:
        """Called after registration, when `fwps` and `injection_handle` are set."""

    # -- what the run time offers, in short form ----------------------------------------------------

    def callout_id(self, layer_id: int) -> int:
        """The run-time id under which this object serves `layer_id`; 0 if it does not."""
        return self._ids.get(layer_id, 0) if self._ids else 0

    def now(self) -> float:
        """The engine's clock, seconds; virtual in memory and replay."""
        return self.fwps.now()

    def after(self, seconds: float, fn: Callable[..., None], *args: Any) -> Any:
        """Call `fn(*args)` on the engine's thread after `seconds`; the result has `cancel()`."""
        return self.fwps.after(seconds, fn, *args)

    def direction_of(self, flow_handle: int, stream_flags: int) -> str:
        """ "to_client" or "to_upstream" for a stream direction of a flow."""
        inbound = bool(int(stream_flags) & int(StreamFlags.RECEIVE))
        return self.fwps.direction_name(flow_handle, inbound)

    def inject(self, flow_id: int, layer_id: int, stream_flags: int, data: bytes) -> NtStatus:
        """Inject a copy of `data` (FwpsStreamInjectAsync0); its buffer is freed in the completion.

        Returns the status of the call; on a refusal nothing was injected and the buffer is freed at once.
        """
        status, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, data, 0, len(data))
        if nbl is None:
            return status
        status = self.fwps.stream_inject_async(
            self.injection_handle,
            None,
            0,
            flow_id,
            self.callout_id(layer_id),
            layer_id,
            stream_flags,
            nbl,
            len(data),
            self._injected,
            None,
        )
        if not status.ok:
            self.fwps.free_net_buffer_list(nbl)
        return status

    def inject_fin(self, flow_id: int, layer_id: int, stream_flags: int) -> NtStatus:
        """Inject a FIN into the direction of `stream_flags` (OOB-6): no buffer, no completion (INJ-38)."""
        inbound = bool(int(stream_flags) & int(StreamFlags.RECEIVE))
        flags = StreamFlags.RECEIVE | StreamFlags.RECEIVE_DISCONNECT if inbound else _SEND_FIN
        return self.fwps.stream_inject_async(
            self.injection_handle,
            None,
            0,
            flow_id,
            self.callout_id(layer_id),
            layer_id,
            int(flags),
            None,
            0,
            self._injected,
            None,
        )

    def _injected(self, context: Any, nbl: NetBufferList, dispatch_level: bool) -> None:
        self.fwps.free_net_buffer_list(nbl)


_SEND_FIN = StreamFlags.SEND | StreamFlags.SEND_DISCONNECT

_STRUCTURES: dict[int, type[Callout0]] = {0: Callout0, 1: Callout1, 2: Callout2, 3: Callout2}  # CFN-15


def layers_of(callout: Callout) -> list[tuple[str, LayerId]]:
    """(layer name without suffix, run-time layer) for every layer and family a callout serves.

    Raises ValueError naming an unknown layer.
    """
    result = []
    for name in callout.layers:
        base, family = (name[:-3], name[-2:]) if name.endswith(("_v4", "_v6")) else (name, "")
        if base not in LAYERS_BY_NAME:
            raise ValueError(f"unknown layer {name!r}; known: {', '.join(sorted(LAYERS_BY_NAME))}")
        v4, v6 = LAYERS_BY_NAME[base]
        result += [(base, layer) for layer, wanted in ((v4, "v6"), (v6, "v4")) if family != wanted]
    return result


def callout_key(name: str, layer: LayerId) -> UUID:
    """REG-9: UUIDv5 of callout name, layer and family."""
    return uuid5(NAMESPACE, f"{name}/{layer.name}")


def structure_for(callout: Callout, layer_name: str, key: UUID) -> Callout0:
    """The plain structure under which a comfortable callout is registered for one layer."""
    classify = getattr(callout, f"classify_{layer_name}", None) or callout.classify_fn
    return _STRUCTURES[callout.version](
        key, int(callout.flags), classify, callout.notify_fn, callout.flow_delete_fn
    )
