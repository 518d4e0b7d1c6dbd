"""One accepted connection before it is a flow, and what the layers there are shown of it (section 4.4).

Owns the driver's view of an attempt and the fixed values and metadata of CONNECT_REDIRECT, AUTH_CONNECT and
AUTH_RECV_ACCEPT (FLD-11..13, LAY-15). It must not know sockets, nor how the layers are walked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from wfpstream.fwp import ConditionFlags, profile_at_least

from ._addresses import (
    auth_connect_values,
    auth_recv_accept_values,
    connect_redirect_values,
    is_v6,
    layer_for,
)
from ._arbitration import Arbitration
from ._constants import LayerId, MetadataField
from ._records import IncomingMetadataValues, IncomingValues
from ._redirect import Lineage

if TYPE_CHECKING:
    from ._endpoints import Address, Endpoints
    from ._net_buffer import NetBufferList
    from ._pending import Pending
    from ._redirect import Redirection

CONNECT_REDIRECT, AUTH_CONNECT, AUTH_RECV_ACCEPT = (
    "ale_connect_redirect",
    "ale_auth_connect",
    "ale_auth_recv_accept",
)

_AUTH_METADATA = int(
    MetadataField.FLOW_HANDLE
    | MetadataField.COMPLETION_HANDLE
    | MetadataField.COMPARTMENT_ID
    | MetadataField.TRANSPORT_ENDPOINT_HANDLE
)
_REDIRECTED_METADATA = int(MetadataField.LOCAL_REDIRECT_TARGET_PID | MetadataField.ORIGINAL_DESTINATION)
_REDIRECT_METADATA = int(
    MetadataField.TRANSPORT_ENDPOINT_HANDLE
    | MetadataField.REDIRECT_RECORD_HANDLE
    | MetadataField.LOCAL_REDIRECT_TARGET_PID
)
_IS_REAUTHORIZE = int(ConditionFlags.IS_REAUTHORIZE)
_IS_REDIRECTED = int(ConditionFlags.IS_CONNECTION_REDIRECTED)
_IS_PROXY = int(ConditionFlags.IS_PROXY_CONNECTION)


class AttemptOwner(Protocol):
    """What an attempt needs of those who walk it through the layers."""

    def failed(self, attempt: Attempt, reason: str) -> None: ...
    def forget(self, attempt: Attempt) -> None: ...
    def connected_from(self, attempt: Attempt, address: Address) -> None: ...


class Walk(Arbitration):
    """The arbitration of one layer for one attempt."""

    attempt: Attempt
    layer_name: str


class Attempt:
    """One accepted connection on its way to the upstream.

    Attributes:
        verdict: "permit", "block" or "pended".
        upstream: where to connect to, once permitted.
        close_as: how the client's connection ends when blocked, or when the upstream refuses: "rst" or "fin"
            (LAY-12, LAY-21).
        on_verdict: called once when a pended attempt is decided.
        flow_id: FLOW_HANDLE, the same for the whole connection (LAY-15).
        redirect_context: localRedirectContext of the redirect that took effect (LAY-26).
    """

    def __init__(self, owner: AttemptOwner, endpoints: Endpoints, flow_id: int, close_as: str) -> None:
        self._owner = owner
        self.endpoints = endpoints
        self.flow_id = flow_id
        self.verdict = "pended"
        self.upstream: Address = endpoints.destination
        self.close_as = close_as
        self.on_verdict: Callable[[], None] = lambda: None
        self.redirect_context: object = None
        self.over = False
        # The engine's own.
        self.layers: list[str] = []
        self.walk: Walk | None = None
        self.pending: Pending | None = None
        self.reauthorizing = False
        self.redirection: Redirection | None = None
        self.redirect_target_pid = 0
        self.lineage = Lineage()
        self.inherited = False
        self.endpoint_handle = 0
        self.completion_handle = 0
        self.records_handle = 0
        self.request_list: NetBufferList | None = None

    def connected_from(self, address: Address) -> None:
        """The upstream leg's own address, as soon as it is known: if that leg comes back to one of our listeners,
        its redirect records are found by it (LAY-29)."""
        self._owner.connected_from(self, address)

    def failed(self, reason: str) -> None:
        """The upstream connect failed; FLOW_ESTABLISHED is not classified (LAY-12)."""
        self._owner.failed(self, reason)

    def gone(self) -> None:
        """The client's connection ended meanwhile."""
        self._owner.forget(self)

    @property
    def number(self) -> int:
        """What events call the flow it may become."""
        return self.flow_id if self.endpoints.label is None else self.endpoints.label

    @property
    def redirected(self) -> bool:
        """It goes elsewhere than the client asked (LAY-27)."""
        return self.upstream != self.endpoints.destination


def layer_of(attempt: Attempt, name: str) -> LayerId:
    """The layer's V4 or V6 member (LAY-10)."""
    return layer_for(name, is_v6(attempt.endpoints))


def values_for(attempt: Attempt, name: str, profile: str) -> IncomingValues:
    """FLD-11, FLD-12, FLD-13."""
    endpoints = attempt.endpoints
    flags = _IS_REAUTHORIZE if attempt.reauthorizing else 0
    if name == CONNECT_REDIRECT:
        if attempt.inherited and profile_at_least(profile, "win8"):
            flags |= _IS_PROXY
        values = connect_redirect_values(endpoints, flags)
    elif name == AUTH_RECV_ACCEPT:
        values = auth_recv_accept_values(endpoints, flags)
    else:
        if attempt.redirected:
            flags |= _IS_REDIRECTED
        # LAY-27: the new target is what is being authorised, so IS_LOOPBACK is the new target's too.
        values = auth_connect_values(
            replace(endpoints, destination=attempt.upstream), attempt.upstream, flags
        )
    if not profile_at_least(profile, "win10"):
        values = values[:-1]  # COMPARTMENT_ID is the last of each (OBJ-15)
    return IncomingValues(layer_of(attempt, name), values)


def metadata_for(attempt: Attempt, name: str) -> IncomingMetadataValues:
    """LAY-15, and the extensions of MET-5."""
    if name == CONNECT_REDIRECT:
        meta = IncomingMetadataValues(_REDIRECT_METADATA)
        meta.redirect_records = attempt.records_handle
        assert attempt.redirection is not None
        current = attempt.redirection.current
        meta.local_redirect_target_pid = current.local_redirect_target_pid
        meta.upstream_address = current.remote_address_and_port
        meta.redirect_context = current.local_redirect_context
    else:
        meta = IncomingMetadataValues(_AUTH_METADATA)
        meta.flow_handle = attempt.flow_id
        meta.compartment_id = 1
        meta.completion_handle = attempt.completion_handle
        meta.upstream_address = attempt.upstream
        meta.redirect_context = attempt.redirect_context
        if name == AUTH_CONNECT and attempt.redirected:
            meta.current_metadata_values |= _REDIRECTED_METADATA
            meta.local_redirect_target_pid = attempt.redirect_target_pid
            meta.original_destination = attempt.endpoints.destination
    meta.transport_endpoint_handle = attempt.endpoint_handle
    meta.listener = attempt.endpoints.listener
    return meta
