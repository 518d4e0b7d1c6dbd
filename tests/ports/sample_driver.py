"""What every sample driver does around its callouts: entry, management objects, unload.

Owns the order of DriverEntry and of unloading (UNR-8). It must not know what a callout does with a stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from uuid import UUID, uuid5

from wfpstream.fwp import ActionType, CalloutFlags, FwpError, NtStatus
from wfpstream.fwpm import (
    Callout,
    DisplayData,
    Filter,
    FilterCondition,
    Management,
    Session,
    SessionFlags,
    SubLayer,
    layer_key_of,
)
from wfpstream.fwps import Callout1, Filter1, InjectionType, LayerId, RunTime

AF_UNSPEC = 0
DEVICE_OBJECT = object()
"""Opaque to the run time (REG-1)."""

_NAMESPACE = UUID("7d3f1c52-0a64-5d0b-9f5e-2a4a6c1b8e90")

ClassifyFn = Callable[..., None]
FlowDeleteFn = Callable[[int, int, int], None]


@dataclass
class Machine:
    """Where a driver is loaded.

    Attributes:
        fwps: the run time.
        management: the base filtering engine.
        wait: waits until a condition holds; on Windows the call that needs it waits by itself (IRQ-6).
        assertion: told of an NT_ASSERT that failed.
    """

    fwps: RunTime
    management: Management
    wait: Callable[[Callable[[], bool]], None]
    assertion: Callable[[str], None]


@dataclass
class Unloading:
    """The statuses an unload met, in the order of the calls."""

    remove_context: list[NtStatus] = field(default_factory=list)
    handle_destroy: NtStatus = NtStatus.STATUS_SUCCESS
    unregister: list[NtStatus] = field(default_factory=list)
    sub_layer_delete: NtStatus = NtStatus.STATUS_SUCCESS
    engine_close: NtStatus = NtStatus.STATUS_SUCCESS


def check(status: NtStatus, what: str) -> None:
    """DriverEntry gives up on the first failure."""
    if status != NtStatus.STATUS_SUCCESS:
        raise FwpError(status, f"{what}: {status.name}")


class SampleDriver:
    """One driver: an injection handle, a dynamic session, one sublayer, its callouts and filters."""

    display_name: ClassVar[str]
    sub_layer_weight: int = 0x40

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.fwps = machine.fwps
        self.injection_handle = 0
        self.unloading = False
        self.sub_layer_key = uuid5(_NAMESPACE, f"{self.display_name}/sublayer")
        self.callout_ids: dict[LayerId, int] = {}
        self._session: Session | None = None

    # -- for the drivers ----------------------------------------------------------------------------------

    def register_callouts(self) -> None:
        """Add every callout with `add_callout`; called inside the transaction of DriverEntry."""
        raise NotImplementedError

    def stop_flows(self, unloading: Unloading) -> None:
        """Remove every flow context; no new one comes, `unloading` is set."""

    def nt_assert(self, holds: bool, text: str) -> None:
        """NT_ASSERT: reports, and goes on as a free build would."""
        if not holds:
            self.machine.assertion(text)

    def notify_fn(self, notify_type: int, filter_key: UUID | None, filter: Filter1) -> NtStatus:
        """The samples take no notice of notifications (NTF-8)."""
        return NtStatus.STATUS_SUCCESS

    @property
    def session(self) -> Session:
        """The engine handle, after DriverEntry."""
        assert self._session is not None
        return self._session

    def add_callout(
        self,
        layer_id: LayerId,
        classify_fn: ClassifyFn,
        flow_delete_fn: FlowDeleteFn | None = None,
        *,
        action_type: ActionType,
        flags: int = 0,
        callout_object_flags: int = 0,
        conditions: Sequence[FilterCondition] = (),
        filter_flags: int = 0,
        provider_context_key: UUID | None = None,
    ) -> None:
        """FwpsCalloutRegister1, FwpmCalloutAdd0 and FwpmFilterAdd0 for one layer."""
        name = f"{self.display_name} {layer_id.name}"
        key = uuid5(_NAMESPACE, name)
        layer_key = layer_key_of(layer_id)
        assert layer_key is not None
        status, callout_id = self.fwps.callout_register1(
            DEVICE_OBJECT, Callout1(key, flags, classify_fn, self.notify_fn, flow_delete_fn)
        )
        check(status, "FwpsCalloutRegister1")
        self.callout_ids[layer_id] = callout_id
        status, _ = self.session.callout_add(
            Callout(
                callout_key=key,
                display_data=DisplayData(name),
                flags=callout_object_flags,
                applicable_layer=layer_key,
            )
        )
        check(status, "FwpmCalloutAdd0")
        status, _ = self.session.filter_add(
            Filter(
                display_data=DisplayData(name),
                flags=filter_flags,
                layer_key=layer_key,
                sub_layer_key=self.sub_layer_key,
                conditions=tuple(conditions),
                action_type=action_type,
                callout_key=key,
                provider_context_key=provider_context_key,
            )
        )
        check(status, "FwpmFilterAdd0")

    # -- entry and unload ---------------------------------------------------------------------------------

    def driver_entry(self) -> None:
        """DriverEntry. FwpError when a call of it fails."""
        status, self.injection_handle = self.fwps.injection_handle_create(AF_UNSPEC, InjectionType.STREAM)
        check(status, "FwpsInjectionHandleCreate0")
        status, self._session = self.machine.management.engine_open(SessionFlags.DYNAMIC)
        check(status, "FwpmEngineOpen0")
        check(self.session.transaction_begin(), "FwpmTransactionBegin0")
        status = self.session.sub_layer_add(
            SubLayer(
                sub_layer_key=self.sub_layer_key,
                display_data=DisplayData(self.display_name),
                weight=self.sub_layer_weight,
            )
        )
        check(status, "FwpmSubLayerAdd0")
        self.register_callouts()
        check(self.session.transaction_commit(), "FwpmTransactionCommit0")

    def unload(self) -> Unloading:
        """The unload routine: no new contexts, contexts removed, handle, callouts, objects (UNR-8)."""
        self.unloading = True
        statuses = Unloading()
        self.stop_flows(statuses)
        statuses.handle_destroy = self.fwps.injection_handle_destroy(self.injection_handle)
        if statuses.handle_destroy == NtStatus.STATUS_PENDING:
            self.machine.wait(lambda: self.fwps.injection_handle_closed(self.injection_handle))
        for callout_id in self.callout_ids.values():
            statuses.unregister.append(self.fwps.callout_unregister_by_id(callout_id))
        # The filters still name it: STATUS_FWP_IN_USE, which the drivers ignore. Closing ends them all (OBJ-2).
        statuses.sub_layer_delete = self.session.sub_layer_delete_by_key(self.sub_layer_key)
        statuses.engine_close = self.session.engine_close()
        return statuses


CONDITIONAL_ON_FLOW = int(CalloutFlags.CONDITIONAL_ON_FLOW)
STREAM_OF_FLOW_ESTABLISHED = {
    LayerId.ALE_FLOW_ESTABLISHED_V4: LayerId.STREAM_V4,
    LayerId.ALE_FLOW_ESTABLISHED_V6: LayerId.STREAM_V6,
}
"""The stream layer of the same family, for which FLOW_ESTABLISHED associates a context (CTX-7)."""
