"""Relaying one connection between any two trio streams: for embedding, TLS and memory streams.

Owns turning streams into sides or sockets, which driver takes them, and what stands in for connecting here: the caller
connected both already. It must not know listeners or connecting.
"""

from __future__ import annotations

import socket
from contextlib import nullcontext
from typing import TYPE_CHECKING

import trio

from ._connection import COURTESY, decided, while_alive
from ._flow_driver import FlowDriver
from ._hub import Hub
from ._sides import Capabilities
from ._socket_flow import SocketFlow
from ._sockets import drain_then_close, prepare, reset_now
from ._task_sides import SocketSide, StreamSide, TaskSide

if TYPE_CHECKING:
    from wfpstream.engine import Attempt, Endpoints, FilterEngine, Flow

    from ._connection import Driver

__all__ = ["capabilities", "relay"]


async def relay(
    client_stream: trio.abc.Stream,
    upstream_stream: trio.abc.Stream,
    engine: FilterEngine,
    endpoints: Endpoints,
    *,
    driver: Driver = "reactor",
) -> None:
    """Relay between two connected streams through `engine` until the flow has ended.

    Both streams are this call's: closed when it returns, and not to be used meanwhile. Between two
    `trio.SocketStream`s everything of TCP is kept (half-close, resets both ways, urgent bytes); otherwise what
    `capabilities` says. On a stream without `send_eof` a FIN waits until the other direction has ended.

    Args:
        client_stream: the connection that was accepted.
        upstream_stream: the connection to where it goes.
        engine: any number of relays and a proxy may share one, on one trio loop.
        endpoints: what the layers are told about both. A redirect has no effect: both are connected already.
        driver: what moves the bytes between two `trio.SocketStream`s: "reactor", which has one task for all flows of
            the engine, or "stream", which has three per flow. Between other streams it is always "stream".

    Raises:
        Exception: a defect of the engine or of a stream; both streams are closed all the same.
    """
    hub = Hub.open(engine)
    error: Exception | None = None
    both = (client_stream, upstream_stream)
    in_reactor = driver == "reactor" and all(isinstance(stream, trio.SocketStream) for stream in both)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            try:
                await (_relay_sockets if in_reactor else _relay)(hub, *both, endpoints)
            except Exception as caught:
                error = caught
            nursery.cancel_scope.cancel()
    finally:
        hub.close()
    if error is not None:
        raise error


def capabilities(client_stream: trio.abc.Stream, upstream_stream: trio.abc.Stream) -> Capabilities:
    """What of TCP a relay between these two keeps: what both can do."""
    return Capabilities(*map(all, zip(_able(client_stream), _able(upstream_stream), strict=True)))


def _able(stream: trio.abc.Stream) -> Capabilities:
    if isinstance(stream, trio.SocketStream):
        return SocketSide.capabilities
    return StreamSide.capabilities_of(stream)


async def _relay(hub: Hub, client: trio.abc.Stream, upstream: trio.abc.Stream, endpoints: Endpoints) -> None:
    sides = (_side(client, hub), _side(upstream, hub))
    try:
        attempt = hub.engine.connection_requested(endpoints)
        await _wait_for(hub, attempt, sides[0].sock if isinstance(sides[0], SocketSide) else None)
        flow = None if attempt.verdict == "block" else hub.engine.flow_established(attempt)
        if flow is not None:
            await FlowDriver(hub, flow, *sides).run()
        elif attempt.close_as == "fin":
            for side in sides:
                await side.close_gracefully(COURTESY)
    finally:
        with trio.CancelScope(shield=True):
            for side in sides:
                await side.abandon()


async def _relay_sockets(
    hub: Hub, client: trio.abc.Stream, upstream: trio.abc.Stream, endpoints: Endpoints
) -> None:
    """As `_relay`, in the reactor."""
    sockets = (_taken_out(client), _taken_out(upstream))
    try:
        attempt = hub.engine.connection_requested(endpoints)
        await _wait_for(hub, attempt, sockets[0])
        flow = None if attempt.verdict == "block" else hub.engine.flow_established(attempt)
        if flow is not None:
            await _drive(hub, flow, *sockets)
        elif attempt.close_as == "fin":
            for sock in sockets:
                await drain_then_close(sock, COURTESY)
    finally:
        for sock in sockets:
            reset_now(sock)


async def _drive(hub: Hub, flow: Flow, client: socket.socket, upstream: socket.socket) -> None:
    """Until the flow is over; raises the defect that ended it."""
    errors: list[BaseException] = []
    over = trio.Event()

    def when_over(error: BaseException | None) -> None:
        if error is not None:
            errors.append(error)
        over.set()

    async with trio.open_nursery() as nursery:
        driven = SocketFlow(hub, flow, client, upstream, nursery.start_soon, when_over)
        driven.start()
        try:
            await over.wait()
        finally:
            driven.abandon()
    if errors:
        raise errors[0]


def _side(stream: trio.abc.Stream, hub: Hub) -> TaskSide:
    if not isinstance(stream, trio.SocketStream):
        return StreamSide(stream, len(hub.buffer))
    return SocketSide(_taken_out(stream))


def _taken_out(stream: trio.abc.Stream) -> socket.socket:
    """A stream's socket: whoever uses the stream by mistake finds it closed, and never another's socket."""
    assert isinstance(stream, trio.SocketStream)
    sock = socket.socket(fileno=stream.socket.detach())
    prepare(sock)
    return sock


async def _wait_for(hub: Hub, attempt: Attempt, client: socket.socket | None) -> None:
    """Wait for the verdict of a pended attempt, if the client does, which is only known of a socket."""
    told = False
    try:
        with nullcontext() if client is None else while_alive(hub, client):
            await decided(attempt)
            told = True
    finally:
        if not told:
            attempt.gone()
