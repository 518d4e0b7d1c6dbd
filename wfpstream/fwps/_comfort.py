"""`Callout`: a callout in its comfortable form, one object for several layers.

Owns the contract of each callback, written where an author overrides it, and short forms of common calls. The
run time is given to it when it is registered; nothing below knows this class.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar
from uuid import UUID

from wfpstream.fwp import NtStatus

from ._constants import StreamFlags
from ._filter import Filter2
from ._net_buffer import NetBufferList
from ._records import ClassifyOut, IncomingMetadataValues, IncomingValues
from ._services import RunTime

_RECEIVE = int(StreamFlags.RECEIVE)
_SUCCESS = NtStatus.STATUS_SUCCESS
_SEND_FIN = StreamFlags.SEND | StreamFlags.SEND_DISCONNECT


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
        flows_are_independent: what it does to a flow depends on that flow alone; if not, replay leaves the flows of
            a capture in one process.
        output_depends_on: on what its output depends besides the bytes: "cuts" (segment borders), "order" (of the two
            directions), "time"; `check_callout` compares only what agrees in these.
        breaks_by_design: violations ("V-19") that are this callout's purpose: they are told as lint.
        version: 2; 0 calls `classify_fn` without `classify_context` (CFN-17).
        fwps: the run time, set when registered.
    """

    layers: ClassVar[Sequence[str]] = ("stream",)
    flags: int = 0
    filter_action: str = "callout_unknown"
    flows_are_independent: bool = True
    output_depends_on: Collection[str] = ()
    breaks_by_design: Collection[str] = ()
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

    @property
    def drains(self) -> bool:
        """The callout brings a `drain` of its own (MGMT-16)."""
        return type(self).drain is not Callout.drain

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
        inbound = bool(stream_flags & _RECEIVE)
        return self.fwps.direction_name(flow_handle, inbound)

    def inject(self, flow_id: int, layer_id: int, stream_flags: int, data: bytes) -> NtStatus:
        """Inject a copy of `data` (FwpsStreamInjectAsync0); its buffer is freed in the completion.

        Returns the status of the call; on a refusal nothing was injected and the buffer is freed at once.
        """
        callout_id = self._ids.get(layer_id, 0) if self._ids else 0
        quick = self.fwps.quick_injection
        if quick.inject(self.injection_handle, flow_id, callout_id, layer_id, stream_flags, data):
            return _SUCCESS
        status, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, data, 0, len(data))
        if nbl is None:
            return status
        status = self.fwps.stream_inject_async(
            self.injection_handle,
            None,
            0,
            flow_id,
            callout_id,
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
