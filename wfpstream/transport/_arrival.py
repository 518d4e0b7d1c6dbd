"""Where an accepted connection comes from and where it is going, before anybody is asked about it (FLD-10).

Owns the three ways to a destination (configured, rewritten by a REDIRECT rule, untouched by a TPROXY rule), what a
PROXY header changes, and which destination rules apply when. It must not know how an upstream is reached.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from wfpstream.engine import Endpoints
from wfpstream.wire import ProxyHeader

from ._destinations import ORIGINAL, REDIRECTED, UPSTREAM, Case, Rejected, Rule, check, unknown
from ._listener_spec import ListenerSpec
from ._listeners import Accepted
from ._networks import canonical
from ._transparent import is_own_address
from ._upstream import Address, ConnectError, numeric, resolve

__all__ = [
    "Arrival",
    "OriginalDestination",
    "OwnListeners",
    "Pair",
    "find_requested",
    "pair_of",
    "resolve_requested",
]

OriginalDestination = Callable[[socket.socket], tuple[str, int] | None]
Pair = tuple[str, int, str, int]
OwnListeners = Callable[[], Sequence[tuple[str, int]]]


class Arrival:
    """An accepted connection.

    Attributes:
        listener: its listener; `str` of it is what people call it.
        spec: what its listener was when it came: a later change is for later connections.
        own_listeners: where we listen at present.
        client: who asks: the peer, or whom its PROXY header speaks for.
        met: the address it met; in reverse mode the one its PROXY header names.
        requested: where it wants to go, resolved; empty if it is not known (yet).
        reason: why `requested` is empty, if it stays so.
    """

    __slots__ = ("accepted", "client", "listener", "met", "own_listeners", "reason", "requested", "spec")

    def __init__(
        self, listener: object, spec: ListenerSpec, accepted: Accepted, own_listeners: OwnListeners
    ) -> None:
        self.listener = listener
        self.spec = spec
        self.accepted = accepted
        self.own_listeners = own_listeners
        self.client = accepted.peer
        self.met = accepted.own
        self.requested: Sequence[Address] = ()
        self.reason = ""

    def believe(self, header: ProxyHeader) -> None:
        """Take over what a PROXY header says. One that says nothing (LOCAL, UNKNOWN) changes nothing."""
        if header.source is not None:
            self.client = header.source
        if header.destination is not None and self.spec.is_reverse:
            self.met = header.destination

    @property
    def destination(self) -> tuple[str, int]:
        """Where the client asked to go, in numbers; an unspecified address if that is not known."""
        if self.requested:
            address = self.requested[0]
            host = f"{address.host}%{address.scope}" if address.scope else address.host
            return (host, address.port)
        return ("::" if ":" in self.client[0] else "0.0.0.0", self.spec.upstream_port)

    @property
    def pair(self) -> Pair:
        """Both ends of the client's connection as its maker knows them, whatever was rewritten on the way."""
        met = self.accepted.own if self.spec.is_reverse else self.destination
        return pair_of(self.accepted.peer, met)

    @property
    def endpoints(self) -> Endpoints:
        """What the layers are told."""
        spec = self.spec
        destination = self.destination
        # LOCAL of `local = "server"` is the original destination, where there is one.
        as_original = not spec.is_reverse and spec.local == "server"
        return Endpoints(
            self.client,
            destination,
            destination if as_original else self.met,
            spec.name,
            spec.local,
            spec.nodelay,
        )

    @property
    def proxied_addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Source and destination for a PROXY header of ours: the connection as the client made it."""
        return self.client, self.met if self.spec.is_reverse else self.destination

    # --- the destination rules ---

    def check_original(self) -> None:
        """The rules for a destination that the client chose. Raises Rejected."""
        if not self.spec.is_reverse:
            self._check(self.requested[0], ORIGINAL)

    def allowed(self, addresses: Sequence[Address], redirected: bool) -> Sequence[Address]:
        """Those of an upstream's addresses that may be connected to.

        Args:
            redirected: a callout chose them (LAY-26).

        Raises:
            Rejected: none may.
        """
        rules: Sequence[Rule] = ORIGINAL
        if self.spec.is_reverse:
            rules = REDIRECTED if redirected else UPSTREAM
        if rules is UPSTREAM and self._is_plainly_elsewhere(addresses):
            return addresses
        good: list[Address] = []
        refusal: Rejected | None = None
        for address in addresses:
            try:
                self._check(address, rules)
            except Rejected as rejected:
                refusal = refusal or rejected
            else:
                good.append(address)
        if refusal is not None and not good:
            raise refusal
        return good

    def _is_plainly_elsewhere(self, addresses: Sequence[Address]) -> bool:
        """Nothing is forbidden, and nobody of ours listens on such a port: no need to look closer."""
        if self.spec.allow or self.spec.deny:
            return False
        for _, port in self.own_listeners():
            for address in addresses:
                if address.port == port:
                    return False
        return True

    def _check(self, address: Address, rules: Sequence[Rule]) -> None:
        host = f"{address.host}%{address.scope}" if address.scope else address.host
        clients = (self.accepted.peer[0], self.client[0])
        spec = self.spec
        case = Case(host, address.port, clients, self.own_listeners(), is_own_address, spec.allow, spec.deny)
        refusal = check(case, rules)
        if refusal is not None:
            raise refusal


def pair_of(one: tuple[str, int], other: tuple[str, int]) -> Pair:
    """A connection by its ends, in whatever form they are written."""
    return (canonical(one[0]), one[1], canonical(other[0]), other[1])


def find_requested(arrival: Arrival, original: OriginalDestination) -> bool:
    """Fill in `requested` if that takes no waiting; whether it did.

    Raises:
        Rejected: nobody knows where the connection was going.
    """
    spec, accepted = arrival.spec, arrival.accepted
    if spec.is_reverse:
        wanted: tuple[str, int] | None = spec.upstream
    else:
        wanted = accepted.own if spec.mode == "tproxy" else original(accepted.sock)
    known = numeric(wanted[0], wanted[1]) if wanted is not None else None
    if known is not None:
        arrival.requested = [known]
    elif not spec.is_reverse:
        raise unknown()
    return known is not None


async def resolve_requested(arrival: Arrival) -> None:
    """Fill in `requested`, or `reason`, by asking for the name of the upstream."""
    try:
        arrival.requested = await resolve(*arrival.spec.upstream)
    except ConnectError as error:
        arrival.reason = str(error)
