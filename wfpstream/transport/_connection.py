"""From a new connection to its flow: ask the engine, reach the upstream, hand over to the flow driver.

Owns the time before a flow is established, and every way it can end there (LAY-12, LAY-14, LAY-21). It must
not know how bytes are relayed, nor who listens.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ._destinations import Rejected
from ._flow_driver import FlowDriver
from ._sides import SocketSide
from ._sockets import drain_then_close, reset_now
from ._upstream import Address, Before, ConnectError, OnOwn, connect, resolve

if TYPE_CHECKING:
    from wfpstream.engine import Attempt

    from ._hub import Hub

__all__ = ["Connection", "Route", "decided", "while_alive"]

# A client that was told "no" by a FIN may take this long to close its own side (LAY-21).
COURTESY = 2.0


@dataclass
class Route:
    """How a connection gets to its upstream.

    Attributes:
        requested: where the client asked to go, resolved; empty if the name of the upstream cannot be.
        reason: why `requested` is empty.
        allowed: those of some addresses that may be connected to, told whether a callout chose them; raises
            Rejected when none may.
        before: gets the upstream's socket before it connects.
        on_own: is told of every connection that is tried.
        greet: gets it when it is connected, and seconds to spend; sends what comes before the stream.
    """

    requested: Sequence[Address]
    reason: str
    allowed: Callable[[Sequence[Address], bool], Sequence[Address]]
    before: Before
    on_own: OnOwn
    greet: Callable[[socket.socket, float], Awaitable[None]] | None = None


class Connection:
    """One accepted connection on its way to a flow. `await run()` is all; the socket is closed afterwards.

    Attributes:
        is_relayed: its flow is established; what ends it now is the engine's.
        legs: its open sockets.

    Args:
        log: takes one line for people.
        note: takes why the connection may not go where it is going.
    """

    def __init__(
        self,
        hub: Hub,
        client: socket.socket,
        attempt: Attempt,
        route: Route,
        log: Callable[[str], object],
        note: Callable[[Rejected], object],
    ) -> None:
        self._hub = hub
        self._client = client
        self._attempt = attempt
        self._route = route
        self._log = log
        self._note = note
        self.is_relayed = False
        self.legs = [client]

    async def run(self) -> None:
        """Connect and relay until everything is over. Raises only what is a defect."""
        try:
            upstream = await self._reach()
            if upstream is not None:
                await self._relay(upstream)
        finally:
            for sock in self.legs:
                reset_now(sock)

    async def _relay(self, upstream: socket.socket) -> None:
        flow = self._hub.engine.flow_established(self._attempt)
        if flow is None:
            await self._refuse()
            return
        self.is_relayed = True
        await FlowDriver(self._hub, flow, SocketSide(self._client), SocketSide(upstream)).run()

    async def _reach(self) -> socket.socket | None:
        """The upstream's socket; None if there will be no flow, and everybody was told."""
        attempt = self._attempt
        open_ = True
        try:
            with while_alive(self._hub, self._client):
                await decided(attempt)
                if attempt.verdict != "block":
                    upstream = await self._connect()
                    self.legs.append(upstream)
                    # Whoever ends it now, when it has just been reached, is not to hear of a flow.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    open_ = False
                    return upstream
                open_ = False
        except ConnectError as error:
            open_ = False
            self._log(f"cannot connect to {_name(attempt.upstream)}: {error}")
            attempt.failed(str(error))
        except Rejected as error:
            open_ = False
            self._note(error)
            attempt.failed(error.reason)
            reset_now(self._client)
            return None
        finally:
            if open_:
                attempt.gone()
        if not open_:
            await self._refuse()
        return None

    async def _connect(self) -> socket.socket:
        attempt, route, timeout = self._attempt, self._route, self._hub.engine.options.timeouts.connect
        addresses = route.requested
        if attempt.redirected:
            addresses = await resolve(*attempt.upstream)  # a callout sent it elsewhere (LAY-26)
        elif not addresses:
            raise ConnectError(route.reason)
        addresses = route.allowed(addresses, attempt.redirected)
        sock = await connect(addresses, timeout, self._on_own, route.before)
        if route.greet is not None:
            await _greeted(sock, route.greet, timeout)
        return sock

    def _on_own(self, own: tuple[str, int], address: Address) -> None:
        self._attempt.connected_from(own)
        self._route.on_own(own, address)

    async def _refuse(self) -> None:
        """How a refusal looks to the client (LAY-21)."""
        if self._attempt.close_as == "fin":
            await drain_then_close(self._client, COURTESY)
        else:
            reset_now(self._client)


async def _greeted(
    sock: socket.socket, greet: Callable[[socket.socket, float], Awaitable[None]], timeout: float
) -> None:
    try:
        await greet(sock, timeout)
    except BaseException:
        reset_now(sock)
        raise


@contextmanager
def while_alive(hub: Hub, client: socket.socket) -> Iterator[None]:
    """A client that resets ends the wait, whatever it is for. Its FIN does not: it may want an answer."""
    with trio.CancelScope() as scope:
        watched = hub.watch.add(client, scope.cancel)
        try:
            yield
        finally:
            watched.remove()


async def decided(attempt: Attempt) -> None:
    """Wait while a callout pends the connection; the engine bounds that (LAY-14)."""
    while attempt.verdict == "pended":
        event = trio.Event()
        attempt.on_verdict = event.set
        await event.wait()


def _name(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
