"""What becomes of an accepted connection: counted, understood, refused by a rule, or passed on to its flow.

Owns how many connections there are, of whom, and why others were turned away. It must not know accepting, nor how a
connection reaches its upstream (`_connection`).
"""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from wfpstream.wire import ProxyHeaderError

from ._arrival import (
    OriginalDestination,
    OwnListeners,
    Pair,
    find_requested,
    resolve_requested,
)
from ._connection import Connection
from ._destinations import Rejected
from ._guest import Guest
from ._networks import is_in
from ._proxy_header import read_proxy_header
from ._sockets import reset_now

if TYPE_CHECKING:
    from wfpstream.engine import Attempt

    from ._connection import Driver
    from ._hub import Hub
    from ._listeners import Accepted, Listener
    from ._socket_flow import Spawn
    from ._transparent import Departures

__all__ = ["Reception"]

Log = Callable[[str], object]


class _OneTooMany(Exception):
    """`limits.flows_per_client`."""


class Reception:
    """Receives the connections of all listeners.

    Args:
        may_come_back: whether a connection of ours to that port may meet a listener of ours.

    Attributes:
        connections: how many there are now, established or on their way.
        accepted: how many were accepted so far.
        refused: how many of these were reset for `limits.flows_per_client`.
        rejected: how many were reset by a rule, by its name.
    """

    def __init__(
        self,
        hub: Hub,
        own_listeners: OwnListeners,
        departures: Departures,
        original: OriginalDestination,
        log: Log,
        changed: Callable[[], object],
        driver: Driver,
        count: Callable[[int], object],
        may_come_back: Callable[[int], bool],
    ) -> None:
        self.connections = 0
        self.accepted = 0
        self.refused = 0
        self.rejected: Counter[str] = Counter()
        self._hub = hub
        self._own_listeners = own_listeners
        self.departures = departures
        self._original = original
        self._log = log
        self._changed = changed
        self._driver: Driver = driver
        self._tell_count = count
        self.may_come_back = may_come_back
        self._per_client: dict[str, int] = {}
        self._guests: set[Guest] = set()
        self._left = trio.lowlevel.ParkingLot()
        self._legs: set[Pair] = set()
        self._told: set[tuple[str, str]] = set()

    def receive(self, listener: Listener, accepted: Accepted, spawn: Spawn) -> None:
        """Take a connection over. Where nothing has to be waited for, the engine is asked here and now:
        connections are numbered as they came.

        Args:
            spawn: starts a task for what has to be waited for.
        """
        self.accepted += 1
        self.connections += 1
        self._tell_count(self.connections)
        guest = Guest(self, listener, listener.spec, accepted, self._own_listeners)
        self._guests.add(guest)
        begun = False
        try:
            attempt = self._begin(guest)
            if attempt is not None:
                begun = self._connect(guest, attempt, spawn).begin()
        except Exception as error:
            self.turn_away(guest, error)
            begun = True
        if not begun:
            guest.scope = trio.CancelScope()
            spawn(self._host, guest, attempt, spawn)
        elif not guest.is_handed_over:
            self.leave(guest)

    def _begin(self, guest: Guest) -> Attempt | None:
        """The engine's view of the connection; None if something has to be waited for first."""
        spec = guest.spec
        if spec.accept_proxy:
            host = guest.accepted.peer[0]
            if not is_in(host, spec.accept_proxy):
                raise Rejected("proxy_header", f"{host} is not trusted to send PROXY headers")
            return None
        self._count(guest)
        return self._ask(guest) if find_requested(guest, self._original) else None

    async def abort_all(self, patience: float) -> None:
        """Reset every connection there is at present, and wait until they are gone: flows as FwpsFlowAbort would.

        Args:
            patience: seconds after which a flow that ended already, and writes what it owes, is cut short.
        """
        doomed = set(self._guests)
        for guest in doomed:
            if not guest.is_relayed:
                guest.abandon()
        self._hub.engine.abort_flows()
        with trio.move_on_after(patience):
            await self._wait_gone(doomed)
        for guest in doomed & self._guests:
            guest.abandon()
        await self._wait_gone(doomed)

    def abandon_all(self) -> None:
        """Reset, now, what has no task that could be cancelled."""
        for guest in list(self._guests):
            guest.abandon()

    @property
    def on_their_way(self) -> int:
        """How many connections are not relayed yet."""
        return sum(not guest.is_relayed for guest in self._guests)

    def shut_down_all(self) -> None:
        """Shut all sockets down, from any thread: for when the loop's own thread does not answer any more."""
        for guest in list(self._guests):
            connection = guest.connection
            for sock in [guest.accepted.sock] if connection is None else list(connection.legs):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    async def _wait_gone(self, guests: set[Guest]) -> None:
        while guests & self._guests:
            await self._left.park()

    async def _host(self, guest: Guest, attempt: Attempt | None, spawn: Spawn) -> None:
        assert guest.scope is not None
        try:
            with guest.scope:
                if attempt is None:
                    attempt = await self._begin_slowly(guest)
                    self._connect(guest, attempt, spawn)
                assert guest.connection is not None
                await guest.connection.run()
        except Exception as error:
            self.turn_away(guest, error)
        finally:
            guest.scope = None
            if not guest.is_handed_over:
                self.leave(guest)

    async def _begin_slowly(self, guest: Guest) -> Attempt:
        if guest.spec.accept_proxy:
            timeout = self._hub.engine.options.timeouts.proxy_header
            try:
                guest.believe(await read_proxy_header(guest.accepted.sock, timeout))
            except ProxyHeaderError as error:
                raise Rejected("proxy_header", str(error)) from error
            self._count(guest)
        if not guest.requested and not find_requested(guest, self._original):
            await resolve_requested(guest)
        return self._ask(guest)

    def _ask(self, guest: Guest) -> Attempt:
        if self._legs and guest.pair in self._legs:
            raise Rejected(
                "own_connection", "it is a connection of our own, which interception has to leave out"
            )
        guest.check_original()
        return self._hub.engine.connection_requested(guest.endpoints)

    def _connect(self, guest: Guest, attempt: Attempt, spawn: Spawn) -> Connection:
        """Its way to the upstream; nothing has begun yet."""
        guest.connection = Connection(self._hub, guest.accepted.sock, attempt, guest, spawn, self._driver)
        return guest.connection

    # --- the books ---

    def _count(self, guest: Guest) -> None:
        """Under the name of who asks, which is known now."""
        most = self._hub.engine.options.limits.flows_per_client
        host = guest.client[0]
        there = self._per_client.get(host, 0)
        if most and there >= most:
            raise _OneTooMany
        self._per_client[host] = there + 1
        guest.counted = host

    def note_leg(self, leg: Pair) -> None:
        """A connection of ours: should it come back to us, it is known."""
        self._legs.add(leg)

    def leave(self, guest: Guest) -> None:
        """It is over: one connection less. Nothing happens if it has left already."""
        if guest not in self._guests:
            return
        guest.connection = None  # which refers to it
        if guest.accepted.sock.fileno() != -1:
            reset_now(guest.accepted.sock)
        if guest.legs:
            self._legs.difference_update(guest.legs)
        self.connections -= 1
        self._tell_count(self.connections)
        self._guests.discard(guest)
        if self._left:
            self._left.unpark_all()
        host = guest.counted
        if host is not None:
            left = self._per_client[host] - 1
            if left:
                self._per_client[host] = left
            else:
                del self._per_client[host]
        self._changed()

    # --- turning away ---

    def turn_away(self, guest: Guest, error: Exception) -> None:
        """One connection's trouble is not the others': it is told, and its legs are reset."""
        if isinstance(error, _OneTooMany):
            self.refused += 1
            self._tell_once(guest, "flows_per_client", "it has as many as limits.flows_per_client allows")
        elif isinstance(error, Rejected):
            self.note(guest, error)
            self._hub.engine.connection_refused(guest.endpoints, error.reason)
        else:
            self.tell(guest, f"{type(error).__name__}: {error}")

    def note(self, guest: Guest, rejected: Rejected) -> None:
        """Count it. The first of its kind is told: who comes again and again must not fill the log."""
        self.rejected[rejected.reason] += 1
        self._tell_once(guest, rejected.reason, str(rejected))

    def _tell_once(self, guest: Guest, reason: str, why: str) -> None:
        kind = (str(guest.listener), reason)
        if kind not in self._told:
            self._told.add(kind)
            self.tell(guest, f"refused a connection of {guest.client[0]}: {why} ({reason})")

    def tell(self, guest: Guest, line: str) -> None:
        """One line for people."""
        self._log(f"{guest.listener}: {line}")
