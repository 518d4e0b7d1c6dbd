"""The live proxy: accept loops, connection limits, graceful stop.

Owns how many connections there are and when the proxy is over. It must not know how a connection becomes a flow
(`_connection`) or how bytes move.
"""

from __future__ import annotations

import math
import socket
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from wfpstream.engine import Endpoints

from ._connection import Connection
from ._hub import Hub
from ._listeners import Accepted, Listener, ListenerSpec, OutOfDescriptors, open_listeners
from ._sockets import reset_now
from ._upstream import Address, ConnectError, numeric, resolve

if TYPE_CHECKING:
    from wfpstream.engine import Attempt, FilterEngine

__all__ = ["Proxy", "serve_proxy"]

Log = Callable[[str], object]

# How long accepting rests without descriptors, unless a connection ends before.
EXHAUSTED_PAUSE = 0.1
# Fairness: a full backlog does not keep the connections that are there from working.
ACCEPTS_IN_A_ROW = 16


def _quiet(line: str) -> None:
    """The default log."""


class Proxy:
    """A running proxy.

    Attributes:
        listeners: the open listeners, in the order given: name, mode, host, port, upstream.
        connections: how many there are now, established or on their way.
        accepted: how many were accepted so far.
        refused: how many of these were reset for `limits.flows_per_client`.
    """

    def __init__(self, hub: Hub, listeners: Sequence[Listener], grace: float, log: Log) -> None:
        self.listeners = tuple(listeners)
        self.connections = 0
        self.accepted = 0
        self.refused = 0
        self._hub = hub
        self._grace = grace
        self._log = log
        self._per_client: Counter[str] = Counter()
        self._changed = trio.lowlevel.ParkingLot()
        self._stop = trio.Event()
        self._done = trio.Event()
        self._deadline = math.inf
        self._patience = trio.CancelScope()

    # --- for the owner ---

    def request_stop(self, grace: float | None = None) -> None:
        """Stop accepting, let flows end for `grace` seconds (default: as given at the start), then abort them.

        Returns at once. Asked again, the earlier end counts.
        """
        allowed = self._grace if grace is None else grace
        self._deadline = min(self._deadline, trio.current_time() + allowed)
        self._patience.deadline = self._deadline
        self._stop.set()

    async def stop(self, grace: float | None = None) -> None:
        """As `request_stop`, and wait until every flow has ended."""
        self.request_stop(grace)
        await self._done.wait()

    async def wait_connections(self, most: int = 0) -> None:
        """Wait until there are no more than `most` connections."""
        while self.connections > most:
            await self._changed.park()

    # --- tasks ---

    async def _run(
        self, task_status: trio.TaskStatus[Proxy], ready: Callable[[Proxy], object] | None
    ) -> None:
        async with trio.open_nursery() as connections:
            try:
                async with trio.open_nursery() as accepting:
                    for listener in self.listeners:
                        accepting.start_soon(self._accept, listener, connections)
                    if ready is not None:
                        ready(self)
                    task_status.started(self)
                    await self._stop.wait()
                    accepting.cancel_scope.cancel()
            finally:
                for listener in self.listeners:
                    listener.close()
            with trio.CancelScope(deadline=self._deadline) as self._patience:
                await self.wait_connections()
            connections.cancel_scope.cancel()

    async def _accept(self, listener: Listener, connections: trio.Nursery) -> None:
        limits = self._hub.engine.options.limits
        short = False
        while True:
            # The rest waits in the backlog: a client sees a slow connect, not a refused one.
            await self.wait_connections((limits.flows or sys.maxsize) - 1)
            try:
                accepted = await listener.accept()
            except OutOfDescriptors as error:
                if not short:
                    self._log_of(listener, f"cannot accept: {error}; waiting")
                short = True
                with trio.move_on_after(EXHAUSTED_PAUSE):
                    await self._changed.park()
                continue
            short = False
            self.accepted += 1
            if self._is_one_too_many(accepted.peer[0], limits.flows_per_client):
                self.refused += 1
                reset_now(accepted.sock)
                continue
            self.connections += 1
            self._per_client[accepted.peer[0]] += 1
            self._begin(listener, accepted, connections)
            if self.accepted % ACCEPTS_IN_A_ROW == 0:
                await trio.lowlevel.checkpoint()

    def _is_one_too_many(self, host: str, most: int) -> bool:
        return bool(most) and self._per_client[host] >= most

    def _begin(self, listener: Listener, accepted: Accepted, connections: trio.Nursery) -> None:
        """Without a name to resolve the engine is asked here and now: connections are numbered as they came."""
        known = numeric(*listener.upstream)
        attempt = None
        if known is not None:
            try:
                attempt = self._request(listener, accepted, [known])
            except Exception as error:
                self._failed(listener, error)
                self._ended(accepted)
                return
        requested = [known] if known is not None else []
        connections.start_soon(self._connection, listener, accepted, requested, attempt)

    async def _connection(
        self, listener: Listener, accepted: Accepted, requested: list[Address], attempt: Attempt | None
    ) -> None:
        try:
            reason = ""
            if attempt is None:
                try:
                    requested = await resolve(*listener.upstream)
                except ConnectError as error:
                    reason = str(error)
                attempt = self._request(listener, accepted, requested)
            log = partial(self._log_of, listener)
            await Connection(self._hub, accepted.sock, attempt, requested, reason, log).run()
        except Exception as error:
            self._failed(listener, error)
        finally:
            self._ended(accepted)

    def _failed(self, listener: Listener, error: Exception) -> None:
        """One connection's trouble is not the others': it is told, and its legs are reset."""
        self._log_of(listener, f"{type(error).__name__}: {error}")

    def _log_of(self, listener: Listener, line: str) -> None:
        self._log(f"{listener}: {line}")

    def _request(self, listener: Listener, accepted: Accepted, requested: Sequence[Address]) -> Attempt:
        return self._hub.engine.connection_requested(_endpoints(listener, accepted, requested))

    def _ended(self, accepted: Accepted) -> None:
        reset_now(accepted.sock)
        host = accepted.peer[0]
        self.connections -= 1
        self._per_client[host] -= 1
        if not self._per_client[host]:
            del self._per_client[host]
        self._changed.unpark_all()


def _endpoints(listener: Listener, accepted: Accepted, requested: Sequence[Address]) -> Endpoints:
    """FLD-10: in reverse mode the destination is the configured upstream, in numbers."""
    spec = listener.spec
    unknown = "::" if ":" in accepted.peer[0] else "0.0.0.0"
    return Endpoints(
        client=accepted.peer,
        destination=(requested[0].host if requested else unknown, spec.upstream_port),
        listener_address=accepted.own,
        listener=spec.name,
        local=spec.local,
        nodelay=spec.nodelay,
    )


async def serve_proxy(
    engine: FilterEngine,
    listeners: Sequence[ListenerSpec],
    *,
    bound: Sequence[socket.socket | None] = (),
    grace: float = 5.0,
    log: Log = _quiet,
    ready: Callable[[Proxy], object] | None = None,
    task_status: trio.TaskStatus[Proxy] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Relay the connections of all listeners through `engine`, until `Proxy.stop` or cancellation.

    Args:
        engine: used on this trio loop only while this runs; starting and stopping it is the caller's.
        listeners: what to listen on, and where it goes.
        bound: sockets bound already, by position, None where one is to be opened. They are closed at the end.
        grace: seconds a stop lets flows end by themselves (default 5) before they are aborted.
        log: gets one line for people when a connection fails.
        ready: called with the `Proxy` when all listen; `task_status.started` gets it too.

    Raises:
        OSError: an address cannot be listened on; nothing is left open then.
    """
    opened = await open_listeners(listeners, bound)
    hub = Hub.open(engine)
    proxy = Proxy(hub, opened, grace, log)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            await proxy._run(task_status, ready)
            nursery.cancel_scope.cancel()
    finally:
        for listener in opened:
            listener.close()
        hub.close()
        proxy._done.set()
