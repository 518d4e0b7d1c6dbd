"""From a new connection to its flow: ask the engine, reach the upstream, hand over to the flow driver.

Owns the time before a flow is established, and every way it can end there (LAY-12, LAY-14, LAY-21). It must
not know how bytes are relayed, nor who listens.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ._flow_driver import FlowDriver
from ._sides import SocketSide
from ._sockets import drain_then_close, reset_now
from ._upstream import Address, ConnectError, connect, resolve

if TYPE_CHECKING:
    from wfpstream.engine import Attempt

    from ._hub import Hub

__all__ = ["Connection", "decided", "while_alive"]

# A client that was told "no" by a FIN may take this long to close its own side (LAY-21).
COURTESY = 2.0


class Connection:
    """One accepted connection on its way to a flow. `await run()` is all; the socket is closed afterwards.

    Args:
        requested: where the client asked to go, resolved; empty if the name of the upstream cannot be.
        reason: why `requested` is empty.
        log: takes one line for people.
    """

    def __init__(
        self,
        hub: Hub,
        client: socket.socket,
        attempt: Attempt,
        requested: Sequence[Address],
        reason: str,
        log: Callable[[str], object],
    ) -> None:
        self._hub = hub
        self._client = client
        self._attempt = attempt
        self._requested = requested
        self._reason = reason
        self._log = log

    async def run(self) -> None:
        """Connect and relay until everything is over. Raises only what is a defect."""
        upstream: socket.socket | None = None
        try:
            upstream = await self._reach()
            if upstream is not None:
                await self._relay(upstream)
        finally:
            for sock in (self._client, upstream):
                if sock is not None:
                    reset_now(sock)

    async def _relay(self, upstream: socket.socket) -> None:
        flow = self._hub.engine.flow_established(self._attempt)
        if flow is None:
            await self._refuse()
            return
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
                    open_ = False
                    return upstream
                open_ = False
        except ConnectError as error:
            open_ = False
            self._log(f"cannot connect to {_name(attempt.upstream)}: {error}")
            attempt.failed(str(error))
        finally:
            if open_:
                attempt.gone()
        if not open_:
            await self._refuse()
        return None

    async def _connect(self) -> socket.socket:
        attempt, timeout = self._attempt, self._hub.engine.options.timeouts.connect
        addresses = self._requested
        if attempt.redirected:
            addresses = await resolve(*attempt.upstream)  # a callout sent it elsewhere (LAY-26)
        elif not addresses:
            raise ConnectError(self._reason)
        return await connect(addresses, timeout, attempt.connected_from)

    async def _refuse(self) -> None:
        """How a refusal looks to the client (LAY-21)."""
        if self._attempt.close_as == "fin":
            await drain_then_close(self._client, COURTESY)
        else:
            reset_now(self._client)


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
