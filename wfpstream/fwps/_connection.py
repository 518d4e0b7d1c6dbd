"""One accepted connection before it is a flow, and what the layers there are shown of it (section 4.4).

Owns the driver's view of an attempt and the fixed values and metadata of CONNECT_REDIRECT, AUTH_CONNECT and
AUTH_RECV_ACCEPT (FLD-11..13, LAY-15). It must not know sockets, nor how the layers are walked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from wfpstream.fwp import ConditionFlags, FwpValue, profile_at_least

from ._addresses import (
    auth_connect_values,
    auth_recv_accept_values,
    connect_redirect_values,
    is_v6,
    layer_for,
)
from ._arbitration import Arbitration
from ._constants import LayerId, MetadataField
from ._net_buffer import NetBufferList, list_over
from ._records import ClassifyOut, IncomingMetadataValues, LaterValues
from ._redirect import NO_LINEAGE
from ._stream_data import IndicatedRecord

if TYPE_CHECKING:
    from ._callout import CalloutEntry, CalloutTable
    from ._core import Core
    from ._endpoints import Address, Endpoints
    from ._filter import Filter2
    from ._pending import Pending
    from ._redirect import Lineage, Redirection

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
    def after_callout(self, walk: Walk, filter: Filter2, entry: CalloutEntry, out: ClassifyOut) -> None: ...
    def after_fault(self, walk: Walk, filter: Filter2, entry: CalloutEntry) -> None: ...


def _no_verdict_wanted() -> None:
    """Nobody waits for the verdict of this attempt, or not yet."""


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

    __slots__ = (
        "_owner",
        "close_as",
        "completion_handle",
        "endpoint_handle",
        "endpoints",
        "flow_id",
        "inherited",
        "layers",
        "lineage",
        "on_verdict",
        "over",
        "pending",
        "reauthorizing",
        "records_handle",
        "redirect_context",
        "redirect_target_pid",
        "redirection",
        "request_list",
        "upstream",
        "verdict",
        "walk",
    )

    def __init__(self, owner: AttemptOwner, endpoints: Endpoints, flow_id: int, close_as: str) -> None:
        self._owner = owner
        self.endpoints = endpoints
        self.flow_id = flow_id
        self.verdict = "pended"
        self.upstream: Address = endpoints.destination
        self.close_as = close_as
        self.on_verdict: Callable[[], None] = _no_verdict_wanted
        self.redirect_context: object = None
        self.over = False
        # The engine's own.
        self.layers: tuple[str, ...] = ()  # those that are not decided yet
        self.walk: Walk | None = None
        self.pending: Pending | None = None
        self.reauthorizing = False
        self.redirection: Redirection | None = None
        self.redirect_target_pid = 0
        self.lineage: Lineage = NO_LINEAGE
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
    def carries_records(self) -> bool:
        """`connected_from` would be of use: it, or what it came from, was redirected (LAY-29)."""
        return bool(self.lineage.records)

    @property
    def number(self) -> int:
        """What events call the flow it may become."""
        return self.flow_id if self.endpoints.label is None else self.endpoints.label

    @property
    def redirected(self) -> bool:
        """It goes elsewhere than the client asked (LAY-27)."""
        return self.upstream != self.endpoints.destination


class Walk(Arbitration):
    """The arbitration of one layer for one attempt."""

    __slots__ = ("_owner", "attempt", "layer_name")

    def __init__(
        self,
        owner: AttemptOwner,
        core: Core,
        callouts: CalloutTable,
        attempt: Attempt,
        layer_name: str,
        classify_context: int,
    ) -> None:
        endpoints = attempt.endpoints
        layer = layer_for(layer_name, is_v6(endpoints))
        super().__init__(core, callouts, layer, classify_context, None, attempt.number, endpoints.listener)
        self._owner = owner
        self.attempt = attempt
        self.layer_name = layer_name

    def make_values(self) -> LaterValues:
        """FLD-11, FLD-12, FLD-13, as they are now."""
        attempt, name, profile = self.attempt, self.layer_name, self.core.options.profile
        flags = _IS_REAUTHORIZE if attempt.reauthorizing else 0
        if name == CONNECT_REDIRECT:
            if attempt.inherited and profile_at_least(profile, "win8"):
                flags |= _IS_PROXY
        elif name == AUTH_CONNECT and attempt.redirected:
            flags |= _IS_REDIRECTED
        return LaterValues(
            self.layer_id, _make_values, name, profile, attempt.endpoints, attempt.upstream, flags
        )

    def make_meta(self) -> IncomingMetadataValues:
        """LAY-15."""
        return metadata_for(self.attempt, self.layer_name)

    def layer_data(self) -> Any:
        """LAY-16."""
        attempt, name = self.attempt, self.layer_name
        if name == CONNECT_REDIRECT:
            assert attempt.redirection is not None
            return attempt.redirection.current
        if name == AUTH_CONNECT:
            return None
        if attempt.request_list is None:
            attempt.request_list = list_over(b"")
            attempt.request_list._record = IndicatedRecord(None, ())
        _record_of(attempt.request_list).valid = True
        return attempt.request_list

    def after_callout(self, filter: Filter2, entry: CalloutEntry, out: ClassifyOut) -> None:
        """What it asked for in its call is judged."""
        self._end_indication()
        self._owner.after_callout(self, filter, entry, out)

    def after_fault(self, filter: Filter2, entry: CalloutEntry) -> None:
        """ACT-14: what it asked for before it raised is void."""
        self._end_indication()
        self._owner.after_fault(self, filter, entry)

    def _end_indication(self) -> None:
        """The list of LAY-16 is lent for the classify; who needs it longer takes a reference or a clone (REF-1)."""
        if self.attempt.request_list is not None:
            _record_of(self.attempt.request_list).valid = False


def _record_of(nbl: NetBufferList) -> IndicatedRecord:
    record = nbl._record
    assert isinstance(record, IndicatedRecord)
    return record


def layer_of(attempt: Attempt, name: str) -> LayerId:
    """The layer's V4 or V6 member (LAY-10)."""
    return layer_for(name, is_v6(attempt.endpoints))


def _make_values(
    name: str, profile: str, endpoints: Endpoints, target: Address, flags: int
) -> list[FwpValue]:
    """The fixed values of a layer; `target` is where the connection goes after a redirect (LAY-27)."""
    if name == CONNECT_REDIRECT:
        values = connect_redirect_values(endpoints, flags)
    elif name == AUTH_RECV_ACCEPT:
        values = auth_recv_accept_values(endpoints, flags)
    else:
        # LAY-27: the new target is what is being authorised, so IS_LOOPBACK is the new target's too.
        values = auth_connect_values(endpoints._replace(destination=target), target, flags)
    if not profile_at_least(profile, "win10"):
        values = values[:-1]  # COMPARTMENT_ID is the last of each (OBJ-15)
    return values


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
