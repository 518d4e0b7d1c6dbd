"""What CONNECT_REDIRECT callouts make of one connection, and redirect records (LAY-24..LAY-29).

Owns the versions of FWPS_CONNECT_REQUEST0, which change takes effect, and the records of redirects, also across
the sockets of one process. It must not know classify handles, pending, or how a layer is walked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from wfpstream.fwp import profile_at_least

from ._addresses import local_and_remote, parse
from ._constants import ConnectionRedirectState
from ._records import ConnectRequest

if TYPE_CHECKING:
    from ._core import Core
    from ._endpoints import Address, Endpoints
    from ._filter import Filter2

MAX_REDIRECTS = 8
"""LAY-29: a connection that has been redirected so often is blocked (DECISION)."""

_WRITABLE = (
    "remote_address_and_port",
    "port_reservation_token",
    "local_redirect_target_pid",
    "local_redirect_handle",
    "local_redirect_context",
    "local_redirect_context_size",
)
_FIXED = ("local_address_and_port", "previous_version", "modifier_filter_id")


class RedirectRecord(NamedTuple):
    """One redirect that took effect: the redirect handle it named (0: none) and its context."""

    handle: int
    context: Any


class Lineage(NamedTuple):
    """What is known of the connections a connection came from: records, oldest first, and redirected hops."""

    records: tuple[RedirectRecord, ...] = ()
    hops: int = 0


NO_LINEAGE = Lineage()  # of a connection that came from none of ours: of nearly every one


class AppliedRequest(ConnectRequest):
    """A version that counts: the one asked for, or an applied copy. Read-only (LAY-16, LAY-24)."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"ConnectRequest.{name} is read-only here; acquire writable layer data")


def applied(version: ConnectRequest) -> AppliedRequest:
    """A read-only copy: what a callout does to its pointer after the apply has no effect."""
    copy = AppliedRequest.__new__(AppliedRequest)
    for name in (*_WRITABLE, *_FIXED):
        object.__setattr__(copy, name, getattr(version, name))
    return copy


class Redirection:
    """The CONNECT_REDIRECT layer of one connection.

    Attributes:
        original: where the client asked to go.
        current: the version that counts now.
        records: every redirect of this connection and of those it came from, oldest first.
        modifier: filter id and callout name of the last redirect, None without one.
    """

    def __init__(self, core: Core, endpoints: Endpoints, lineage: Lineage) -> None:
        local, self.original = local_and_remote(endpoints)
        self.current: ConnectRequest = applied(ConnectRequest(local, self.original))
        self.records = list(lineage.records)
        self.modifier: tuple[int, str] | None = None
        self._core = core
        self._own_address = endpoints.listener_address
        self._queried: set[int] = set()
        self._watching: dict[int, Filter2] = {}

    @property
    def redirected(self) -> bool:
        """The connection goes elsewhere than the client asked."""
        return self.current.remote_address_and_port != self.original

    def query(self, handle: int) -> tuple[ConnectionRedirectState, Any]:
        """LAY-29: state for this redirect handle, and the context of its newest redirect."""
        self._queried.add(handle)
        return self._state(handle)

    def _state(self, handle: int) -> tuple[ConnectionRedirectState, Any]:
        records = self.records
        if not records:
            return ConnectionRedirectState.NOT_REDIRECTED, None
        if records[-1].handle == handle:
            return ConnectionRedirectState.REDIRECTED_BY_SELF, records[-1].context
        for record in reversed(records):
            if record.handle == handle:
                return ConnectionRedirectState.PREVIOUSLY_REDIRECTED_BY_SELF, record.context
        return ConnectionRedirectState.REDIRECTED_BY_OTHER, None

    def watch(self, filter: Filter2) -> None:
        """LAY-25: REAUTHORIZE_IF_MODIFIED_BY_OTHERS."""
        self._watching[filter.filter_id] = filter

    def apply(
        self, data: ConnectRequest, filter: Filter2, callout: str, knows_handle: Callable[[int], bool]
    ) -> list[Filter2]:
        """Make `data` the current version. Returns the filters that asked to hear of a change by others."""
        before = self.current
        changed = any(getattr(data, name) != getattr(before, name) for name in _WRITABLE)
        if data.remote_address_and_port != before.remote_address_and_port:
            self._lint(data, knows_handle)
            handle = data.local_redirect_handle
            self.records.append(RedirectRecord(handle, data.local_redirect_context))
            self.modifier = (filter.filter_id, callout)
        self.current = applied(data)
        if not changed:
            return []
        return [other for other in self._watching.values() if other.filter_id != filter.filter_id]

    def _lint(self, data: ConnectRequest, knows_handle: Callable[[int], bool]) -> None:
        """V-62, V-63."""
        win8 = profile_at_least(self._core.options.profile, "win8")
        handle = data.local_redirect_handle
        told = data.local_redirect_target_pid and (knows_handle(handle) or not win8)
        if self._is_local(data.remote_address_and_port) and not told:
            text = "redirect to the local host without localRedirectTargetPID or localRedirectHandle"
            self._core.violation("V-62", text)
        if not win8:
            return
        if not (handle in self._queried if handle else self._queried):
            self._core.violation("V-63", "redirect without a query of the connection's redirect state")
        elif handle and self._state(handle)[0] in _BY_SELF:
            self._core.violation("V-63", "redirect of a connection this handle has redirected already")

    def _is_local(self, target: Address) -> bool:
        """Loopback, or the address our own listener was reached at."""
        host = parse(target[0])
        return host.is_loopback or (self._own_address is not None and host == parse(self._own_address[0]))


_BY_SELF = (
    ConnectionRedirectState.REDIRECTED_BY_SELF,
    ConnectionRedirectState.PREVIOUSLY_REDIRECTED_BY_SELF,
)


class Lineages:
    """Redirect records of upstream legs, by the address pair of the leg (LAY-29); inside one process."""

    def __init__(self) -> None:
        self._legs: dict[tuple[Address, Address], tuple[Lineage, Callable[[], bool]]] = {}
        self._sweep_at = 64

    @property
    def are_there(self) -> bool:
        """Some leg carries records, or did."""
        return bool(self._legs)

    def note(self, own: Address, remote: Address, lineage: Lineage, lives: Callable[[], bool]) -> None:
        """An upstream leg from `own` to `remote` carries these records as long as `lives()`."""
        if len(self._legs) >= self._sweep_at:
            self._legs = {pair: leg for pair, leg in self._legs.items() if leg[1]()}
            self._sweep_at = 64 + 2 * len(self._legs)
        self._legs[_plain(own), _plain(remote)] = (lineage, lives)

    def of(self, endpoints: Endpoints) -> Lineage:
        """What an accepted connection brings along: it is the other end of one of our upstream legs, or not."""
        if self._legs:
            client = _plain(endpoints.client)
            for ours in (endpoints.listener_address, endpoints.destination):
                leg = self._legs.get((client, _plain(ours))) if ours is not None else None
                if leg is not None and leg[1]():
                    return leg[0]
        return NO_LINEAGE


def _plain(address: Address) -> Address:
    return str(parse(address[0])), address[1]
