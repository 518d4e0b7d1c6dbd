"""The layers before a connection exists: AUTH_CONNECT, AUTH_RECV_ACCEPT (section 4.4).

Owns one accepted connection's way from accept to the upstream connect. It must not know sockets: a driver
asks for the verdict and says what became of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import _stream_state as rules
from ._addresses import auth_connect_values, auth_recv_accept_values, is_v6, layer_for
from ._arbitration import Arbitration
from ._constants import MetadataField
from ._records import IncomingMetadataValues, IncomingValues

if TYPE_CHECKING:
    from ._callout import CalloutTable
    from ._core import Core
    from ._flow import Address, Endpoints

_AUTH_METADATA = int(
    MetadataField.FLOW_HANDLE
    | MetadataField.COMPLETION_HANDLE
    | MetadataField.COMPARTMENT_ID
    | MetadataField.TRANSPORT_ENDPOINT_HANDLE
)


class Attempt:
    """One accepted connection on its way to the upstream.

    Attributes:
        verdict: "permit", "block" or "pended".
        upstream: where to connect to, once permitted.
        close_as: how the client's connection ends when blocked: "rst" or "fin" (LAY-21).
        on_verdict: called once when a pended attempt is decided.
        flow_id: FLOW_HANDLE, the same for the whole connection (LAY-15).
    """

    def __init__(self, connections: Connections, endpoints: Endpoints, flow_id: int) -> None:
        self._connections = connections
        self.endpoints = endpoints
        self.flow_id = flow_id
        self.verdict = "pended"
        self.upstream: Address = endpoints.destination
        self.close_as = connections.core.options.policy.on_block
        self.on_verdict: Callable[[], None] = lambda: None
        self.redirect_context: object = None
        self.over = False

    def failed(self, reason: str) -> None:
        """The upstream connect failed; FLOW_ESTABLISHED is not classified (LAY-12)."""
        self._connections.failed(self, reason)

    def gone(self) -> None:
        """The client's connection ended meanwhile."""
        self._connections.forget(self)


class Connections:
    """Attempts of one engine."""

    def __init__(self, core: Core, callouts: CalloutTable) -> None:
        self.core = core
        self.callouts = callouts

    def request(self, endpoints: Endpoints) -> Attempt:
        """A connection was accepted: classify it (LAY-11)."""
        self.core.last_flow_id += 1
        attempt = Attempt(self, endpoints, self.core.last_flow_id)
        outbound = endpoints.local == "client"
        name = "ale_auth_connect" if outbound else "ale_auth_recv_accept"
        layer = layer_for(name, is_v6(endpoints))

        def values() -> IncomingValues:
            fields = (
                auth_connect_values(endpoints, attempt.upstream, 0)
                if outbound
                else auth_recv_accept_values(endpoints, 0)
            )
            return IncomingValues(layer, fields)

        arbitration = Arbitration(
            self.core,
            self.callouts,
            layer,
            values,
            lambda: self._meta(attempt),
            lambda: None,
            attempt,
            None,
            endpoints.listener,
        )
        arbitration.run()
        blocked = arbitration.verdict.action == rules.BLOCK
        attempt.verdict = "block" if blocked else "permit"
        if blocked and self.core.sinks:
            self.core.emit(
                "flow_blocked",
                None,
                listener=endpoints.listener,
                client=list(endpoints.client),
                layer=layer.name,
                callout=arbitration.verdict.callout_name,
                filter=arbitration.verdict.filter_id,
            )
        self.core.deliver_events()
        return attempt

    def _meta(self, attempt: Attempt) -> IncomingMetadataValues:
        meta = IncomingMetadataValues(_AUTH_METADATA)
        meta.flow_handle = attempt.flow_id
        meta.compartment_id = 1
        meta.listener = attempt.endpoints.listener
        meta.upstream_address = attempt.upstream
        return meta

    def failed(self, attempt: Attempt, reason: str) -> None:
        if attempt.over:
            return
        attempt.over = True
        if self.core.sinks:
            self.core.emit(
                "connect_failed",
                None,
                listener=attempt.endpoints.listener,
                client=list(attempt.endpoints.client),
                reason=reason,
            )

    def forget(self, attempt: Attempt) -> None:
        attempt.over = True
