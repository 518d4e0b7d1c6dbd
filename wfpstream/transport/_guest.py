"""A guest: an arrival on the books of the reception, from when it was accepted until all its sockets are closed.

Owns what its connection may ask about it, and whom to end it by. It must not know counting nor refusing (`_reception`).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

from ._arrival import Arrival, OwnListeners, Pair, pair_of
from ._proxy_header import send_proxy_header

if TYPE_CHECKING:
    import trio

    from ._connection import Connection
    from ._destinations import Rejected
    from ._listener_spec import ListenerSpec
    from ._listeners import Accepted
    from ._transparent import Departures
    from ._upstream import Address

__all__ = ["Guest"]


class Books(Protocol):
    """What the reception keeps."""

    departures: Departures

    def may_come_back(self, port: int) -> bool: ...
    def note_leg(self, leg: Pair) -> None: ...
    def note(self, guest: Guest, rejected: Rejected) -> None: ...
    def tell(self, guest: Guest, line: str) -> None: ...
    def turn_away(self, guest: Guest, error: Exception) -> None: ...
    def leave(self, guest: Guest) -> None: ...


class Guest(Arrival):
    """What a connection to the upstream needs of its client.

    Attributes:
        counted: among whose connections it is counted.
        connection: its way to the upstream, and its flow.
        scope: ends its task, while it has one.
        legs: connections towards the upstream that were tried.
    """

    __slots__ = ("_books", "connection", "counted", "legs", "scope")

    def __init__(
        self,
        books: Books,
        listener: object,
        spec: ListenerSpec,
        accepted: Accepted,
        own_listeners: OwnListeners,
    ) -> None:
        super().__init__(listener, spec, accepted, own_listeners)
        self._books = books
        self.counted: str | None = None
        self.connection: Connection | None = None
        self.scope: trio.CancelScope | None = None
        self.legs: tuple[Pair, ...] = ()

    @property
    def is_relayed(self) -> bool:
        """Its flow is established."""
        return self.connection is not None and self.connection.is_relayed

    @property
    def is_handed_over(self) -> bool:
        """Its end comes by `over`."""
        return self.connection is not None and self.connection.is_handed_over

    def abandon(self) -> None:
        """End it at once, whatever it is doing."""
        if self.scope is not None:
            self.scope.cancel()
        elif self.connection is not None:
            self.connection.abandon()

    # --- its connection's questions ---

    def wants_own(self, address: Address) -> bool:
        """A connection of ours to that address may come back to us: where a rule of the system's sends whatever it
        likes to one of our listeners, or where one listens on such a port."""
        return not self.spec.keep_client and self._books.may_come_back(address.port)

    @property
    def greets(self) -> bool:
        """The upstream is sent a PROXY header."""
        return bool(self.spec.send_proxy)

    def before(self, sock: socket.socket, address: Address) -> None:
        """Mark the upstream's socket, or give it the client's address."""
        departures = self._books.departures
        if self.spec.keep_client:
            departures.as_client(self.client, self.spec.keep_port)(sock, address)
        else:
            departures.plain(sock, address)

    def on_own(self, own: tuple[str, int], address: Address) -> None:
        """Should this leg come back to us, it is known. With the client's own address it could be the client's."""
        if not self.spec.keep_client:
            leg = pair_of(own, (address.host, address.port))
            self.legs += (leg,)
            self._books.note_leg(leg)

    async def greet(self, sock: socket.socket, seconds: float) -> None:
        """Send a PROXY header."""
        await send_proxy_header(sock, self.spec.send_proxy, *self.proxied_addresses, seconds)

    def tell(self, line: str) -> None:
        """One line for people."""
        self._books.tell(self, line)

    def reject(self, rejected: Rejected) -> None:
        """It may not go where it is going."""
        self._books.note(self, rejected)

    def over(self, error: BaseException | None) -> None:
        """The end of a connection that has no task of its own."""
        if isinstance(error, Exception):
            self._books.turn_away(self, error)
        self._books.leave(self)
