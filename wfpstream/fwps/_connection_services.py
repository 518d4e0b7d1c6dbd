"""The Fwps* calls of the connection layers, in WFP's parameter order (LAY-17..LAY-29).

Owns the checks and statuses of these calls; `_connections` and what it holds do the work. A call that returns
nothing in WFP returns nothing here: what is wrong with it is a violation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from wfpstream.fwp import NtStatus, profile_at_least

from ._connection import AUTH_CONNECT, CONNECT_REDIRECT, Walk
from ._constants import ConnectionRedirectState
from ._net_buffer import NetBufferList
from ._records import ClassifyOut, ConnectRequest
from ._violations import where_in_callout

if TYPE_CHECKING:
    from ._classify_handle import ClassifyHandle
    from ._connections import Connections
    from ._core import Core

Refusal = tuple[NtStatus, str] | None


class ConnectionServices:
    """FwpsPendOperation0 to FwpsQueryConnectionRedirectState0; a part of the run time."""

    core: Core
    connections: Connections

    if TYPE_CHECKING:

        def passive_call_refused(self, call: str) -> NtStatus | None: ...

    # -- pending an authorisation ------------------------------------------------------------------------

    def pend_operation(self, completion_handle: int) -> tuple[NtStatus, int]:
        """FwpsPendOperation0 (LAY-17): (status, completion context). From inside an AUTH_* classify only.

        Answer BLOCK with ABSORB afterwards, and complete within `timeouts.pend_connect`.
        """
        _integer(completion_handle, "completion_handle")
        refusal = self._may_pend_operation(completion_handle)
        if refusal is not None:
            return self.core.refused("pend_operation", *refusal), 0
        walk = self._walk_on_stack()
        assert walk is not None
        context = self.connections.next_handle()
        self.connections.pend(walk, context, by_handle=False)
        return NtStatus.STATUS_SUCCESS, context

    def _may_pend_operation(self, completion_handle: int) -> Refusal:
        frame = self.core.frame
        if frame is None or frame.kind != "classify":
            return NtStatus.STATUS_INVALID_DEVICE_STATE, "LAY-17"
        walk = self._walk_on_stack()
        if walk is None or walk.layer_name == CONNECT_REDIRECT:
            return NtStatus.STATUS_FWP_CANNOT_PEND, "LAY-17" if walk is not None else "LAY-7"
        if not completion_handle:
            return NtStatus.STATUS_FWP_NULL_POINTER, "LAY-17"
        if not self.core.started:
            return NtStatus.STATUS_FWP_TCPIP_NOT_READY, "LAY-17"
        if walk.attempt.reauthorizing:
            self.core.violation("V-61", "pend attempted in a reauthorisation")
            return NtStatus.STATUS_FWP_CANNOT_PEND, "LAY-17"
        if walk.attempt.pending is not None:
            return NtStatus.STATUS_FWP_CANNOT_PEND, "LAY-17"
        if completion_handle != walk.attempt.completion_handle:
            return NtStatus.STATUS_INVALID_PARAMETER, "LAY-17"
        return None

    def complete_operation(
        self, completion_context: int, net_buffer_list: NetBufferList | None = None
    ) -> None:
        """FwpsCompleteOperation0 (LAY-19), once per context, not inside the classify that pended.

        After AUTH_CONNECT the layer is classified once more, with IS_REAUTHORIZE. After AUTH_RECV_ACCEPT a
        list (that of the classify, its clone or reference) lets the request go on, None discards it. The list
        stays the caller's. The connection goes on in the engine's next turn.
        """
        _integer(completion_context, "completion_context")
        if net_buffer_list is not None and not isinstance(net_buffer_list, NetBufferList):
            raise TypeError("net_buffer_list must be a NetBufferList or None")
        connections = self.connections
        pending = connections.pendings.find(completion_context)
        if pending is None or pending.by_handle:
            if not connections.pendings.late(completion_context):
                self.core.violation("V-61", "completion context unknown, or used before")
            return
        walk = pending.arbitration
        assert isinstance(walk, Walk)
        if walk is self._walk_on_stack():
            self.core.violation("V-61", "operation completed inside the classify that pended it")
            return
        connections.completed(walk, pending)
        if walk.layer_name == AUTH_CONNECT:
            connections.authorize_again(walk)
        elif net_buffer_list is not None:
            connections.request_reinjected(walk, pending)
        else:
            connections.request_discarded(walk, pending)

    # -- classify handles --------------------------------------------------------------------------------

    def acquire_classify_handle(self, classify_context: int | None, flags: int = 0) -> tuple[NtStatus, int]:
        """FwpsAcquireClassifyHandle0 (LAY-22), Windows 7 and later: (status, handle).

        Each handle is released exactly once.
        """
        refusal = self._may_acquire(classify_context, flags)
        if refusal is not None:
            return self.core.refused("acquire_classify_handle", *refusal), 0
        walk = self._walk_on_stack()
        assert walk is not None
        redirection = walk.attempt.redirection if walk.layer_name == CONNECT_REDIRECT else None
        return NtStatus.STATUS_SUCCESS, self.connections.handles.acquire(walk, redirection)

    def _may_acquire(self, classify_context: int | None, flags: int) -> Refusal:
        if not profile_at_least(self.core.options.profile, "win7"):
            return NtStatus.STATUS_NOT_SUPPORTED, "OBJ-15"
        if flags:
            return NtStatus.STATUS_INVALID_PARAMETER, "LAY-22"
        if not classify_context:
            return NtStatus.STATUS_FWP_NULL_POINTER, "LAY-22"
        _integer(classify_context, "classify_context")
        walk = self._walk_on_stack()
        if walk is None or walk.classify_context != classify_context:
            return NtStatus.STATUS_INVALID_PARAMETER, "LAY-22"
        return None

    def release_classify_handle(self, classify_handle: int) -> None:
        """FwpsReleaseClassifyHandle0 (LAY-22)."""
        _integer(classify_handle, "classify_handle")
        self.connections.handles.release(classify_handle)

    def pend_classify(
        self, classify_handle: int, filter_id: int, flags: int, classify_out: ClassifyOut | None
    ) -> NtStatus:
        """FwpsPendClassify0 (LAY-23): from inside a CONNECT_REDIRECT classify. Answer BLOCK afterwards."""
        _integer(classify_handle, "classify_handle")
        _answer(classify_out)
        refusal = self._may_pend_classify(classify_handle, filter_id, flags, classify_out)
        if refusal is not None:
            return self.core.refused("pend_classify", *refusal)
        walk, handle = self._walk_on_stack(), self.connections.handles.find(classify_handle)
        assert walk is not None
        assert handle is not None
        self.connections.handles.pend(handle)
        self.connections.pend(walk, classify_handle, by_handle=True)
        return NtStatus.STATUS_SUCCESS

    def _may_pend_classify(
        self, classify_handle: int, filter_id: int, flags: int, classify_out: ClassifyOut | None
    ) -> Refusal:
        frame = self.core.frame
        if frame is None or frame.kind != "classify":
            return NtStatus.STATUS_INVALID_DEVICE_STATE, "LAY-23"
        walk = self._walk_on_stack()
        if walk is None or walk.layer_name != CONNECT_REDIRECT:
            return NtStatus.STATUS_FWP_CANNOT_PEND, "LAY-23"
        handle = self._handle(classify_handle)
        if handle is None or handle.arbitration is not walk or not handle.usable or flags:
            return NtStatus.STATUS_INVALID_PARAMETER, "LAY-23"
        if classify_out is None:
            return NtStatus.STATUS_FWP_NULL_POINTER, "LAY-23"
        if filter_id != handle.filter.filter_id:
            return NtStatus.STATUS_INVALID_PARAMETER, "LAY-23"
        if not self.core.started:
            return NtStatus.STATUS_FWP_TCPIP_NOT_READY, "LAY-23"
        if walk.attempt.pending is not None:
            return NtStatus.STATUS_FWP_CANNOT_PEND, "LAY-23"
        return None

    def complete_classify(self, classify_handle: int, flags: int, classify_out: ClassifyOut | None) -> None:
        """FwpsCompleteClassify0 (LAY-23), once per pend, not inside the classify that pended.

        With an answer: it is this callout's final decision. None: the layer is classified again from the top.
        The connection goes on in the engine's next turn.
        """
        _integer(classify_handle, "classify_handle")
        _answer(classify_out)
        connections = self.connections
        pending = connections.pendings.find(classify_handle)
        if pending is None or not pending.by_handle:
            if connections.pendings.late(classify_handle):
                connections.handles.completed_late(classify_handle)
            else:
                self.core.violation("V-61", "classify completed that is not pended, or not any more")
            return
        walk, handle = pending.arbitration, connections.handles.find(classify_handle)
        assert isinstance(walk, Walk)
        assert handle is not None
        if walk is self._walk_on_stack():
            self.core.violation("V-61", "classify completed inside the classify that pended it")
            return
        connections.completed(walk, pending)
        connections.handles.unpend(handle)
        if classify_out is None:
            connections.authorize_again(walk)
        else:
            connections.answer_later(walk, pending, int(classify_out.action_type), int(classify_out.rights))

    # -- writable layer data -----------------------------------------------------------------------------

    def acquire_writable_layer_data_pointer(
        self, classify_handle: int, filter_id: int, flags: int, classify_out: ClassifyOut | None
    ) -> tuple[NtStatus, ConnectRequest | None]:
        """FwpsAcquireWritableLayerDataPointer0 (LAY-24): (status, a copy of the current ConnectRequest).

        Sets the answer to BLOCK without the write right: set your own afterwards. Every copy is applied once.
        """
        _integer(classify_handle, "classify_handle")
        _answer(classify_out)
        handle = self._handle(classify_handle)
        refusal = self._may_acquire_data(handle, filter_id, flags, classify_out)
        if refusal is not None:
            return self.core.refused("acquire_writable_layer_data_pointer", *refusal), None
        assert handle is not None
        assert classify_out is not None
        return NtStatus.STATUS_SUCCESS, self.connections.handles.acquire_data(handle, classify_out)

    def _may_acquire_data(
        self, handle: ClassifyHandle | None, filter_id: int, flags: int, classify_out: ClassifyOut | None
    ) -> Refusal:
        if handle is None or flags:
            return NtStatus.STATUS_INVALID_PARAMETER, "LAY-24"
        if classify_out is None:
            return NtStatus.STATUS_FWP_NULL_POINTER, "LAY-24"
        if handle.redirection is None:
            return NtStatus.STATUS_FWP_INCOMPATIBLE_LAYER, "LAY-24"
        if filter_id != handle.filter.filter_id:
            return NtStatus.STATUS_INVALID_PARAMETER, "LAY-24"
        if not handle.usable:
            return NtStatus.STATUS_INVALID_DEVICE_STATE, "LAY-23"
        return None

    def apply_modified_layer_data(self, classify_handle: int, data: ConnectRequest, flags: int = 0) -> None:
        """FwpsApplyModifiedLayerData0 (LAY-25, LAY-26): once for each copy, even when it is unmodified."""
        _integer(classify_handle, "classify_handle")
        if not isinstance(data, ConnectRequest):
            raise TypeError("data must be the ConnectRequest that was acquired")
        host, port = data.remote_address_and_port
        _integer(port, "the port of remote_address_and_port")
        _text(host, "the host of remote_address_and_port")
        handle = self._handle(classify_handle)
        if handle is not None:
            self.connections.handles.apply(handle, data, int(flags))

    # -- redirect handles and records --------------------------------------------------------------------

    def redirect_handle_create(self, provider_guid: UUID | None, flags: int = 0) -> tuple[NtStatus, int]:
        """FwpsRedirectHandleCreate0 (LAY-28), Windows 8 and later: (status, handle). PASSIVE only."""
        refusal = self._may_create_redirect_handle(provider_guid, flags)
        if refusal is not None:
            return self.core.refused("redirect_handle_create", *refusal), 0
        handle = self.connections.next_handle()
        verifying = self.core.options.verify.level != "off"
        self.connections.redirect_handles[handle] = where_in_callout() if verifying else None
        return NtStatus.STATUS_SUCCESS, handle

    def _may_create_redirect_handle(self, provider_guid: UUID | None, flags: int) -> Refusal:
        if provider_guid is not None and not isinstance(provider_guid, UUID):
            raise TypeError("provider_guid must be a UUID")
        refused = self.passive_call_refused("redirect_handle_create")
        if refused is not None:
            return refused, "IRQ-3"
        if not profile_at_least(self.core.options.profile, "win8"):
            return NtStatus.STATUS_NOT_SUPPORTED, "OBJ-15"
        if provider_guid is None:
            return NtStatus.STATUS_FWP_NULL_POINTER, "LAY-28"
        return (NtStatus.STATUS_INVALID_PARAMETER, "LAY-28") if flags else None

    def redirect_handle_destroy(self, redirect_handle: int) -> None:
        """FwpsRedirectHandleDestroy0 (LAY-28). PASSIVE only; redirects made with it stay recorded."""
        _integer(redirect_handle, "redirect_handle")
        if self.passive_call_refused("redirect_handle_destroy") is None:
            self.connections.redirect_handles.pop(redirect_handle, None)

    def query_connection_redirect_state(
        self, redirect_records: int, redirect_handle: int
    ) -> tuple[ConnectionRedirectState, Any]:
        """FwpsQueryConnectionRedirectState0 (LAY-29): (state, localRedirectContext of this handle's redirect).

        Args:
            redirect_records: metadata REDIRECT_RECORD_HANDLE of a CONNECT_REDIRECT classify, until the layer
                of that connection is decided; 0 for none.
            redirect_handle: the caller's redirect handle.
        """
        _integer(redirect_records, "redirect_records")
        _integer(redirect_handle, "redirect_handle")
        redirection = self.connections.redirections.get(redirect_records)
        if redirection is None or not profile_at_least(self.core.options.profile, "win8"):
            return ConnectionRedirectState.NOT_REDIRECTED, None
        return redirection.query(redirect_handle)

    # -- common ------------------------------------------------------------------------------------------

    def _walk_on_stack(self) -> Walk | None:
        """The layer whose classifyFn is calling, if it is one of the connection layers."""
        frame = self.core.frame
        walk = frame.pending if frame is not None and frame.kind == "classify" else None
        return walk if isinstance(walk, Walk) else None

    def _handle(self, classify_handle: int) -> ClassifyHandle | None:
        handle = self.connections.handles.find(classify_handle)
        if handle is None:
            self.core.violation("V-61", "unknown classify handle, or released before")
        return handle


def _integer(value: object, name: str) -> None:
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an integer")


def _text(value: object, name: str) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be text")


def _answer(classify_out: object) -> None:
    if classify_out is not None and not isinstance(classify_out, ClassifyOut):
        raise TypeError("classify_out must be a ClassifyOut or None")
