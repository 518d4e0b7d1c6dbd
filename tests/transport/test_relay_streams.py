"""`relay` between trio streams that are no sockets, and between sockets that somebody else connected."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trustme
from trio.testing import memory_stream_pair

from tests.transport import kit
from tests.transport.kit import (
    CHUNK,
    RESET,
    AskingCallout,
    Deferring,
    Dropping,
    Events,
    Probe,
    assert_clean,
    bounded,
    listening,
    make_engine,
    read_all,
    read_exactly,
)
from wfpstream.engine import Endpoints, EngineOptions, FilterEngine, Timeouts
from wfpstream.transport import Capabilities, capabilities
from wfpstream.transport import relay as relay_with

ENDPOINTS = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
Relay = tuple[trio.abc.Stream, trio.abc.Stream]


async def relay(
    client: trio.abc.Stream, upstream: trio.abc.Stream, engine: FilterEngine, endpoints: Endpoints
) -> None:
    """`relay` with the driver whose turn it is, if both are sockets."""
    await relay_with(client, upstream, engine, endpoints, driver=kit.current_driver)


class NoHalfClose(trio.abc.Stream):
    """A stream that can only be closed whole, as TLS."""

    def __init__(self, inner: trio.StapledStream[Any, Any]) -> None:
        self.inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return bytes(await self.inner.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self.inner.aclose()


@asynccontextmanager
async def relaying(
    engine: FilterEngine, wrap: Callable[[Any], trio.abc.Stream] = lambda stream: stream
) -> AsyncIterator[Relay]:
    """The far ends of two memory streams with a relay in between."""
    client, near = memory_stream_pair()
    upstream_near, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, wrap(near), wrap(upstream_near), engine, ENDPOINTS)
        yield wrap(client), wrap(server)
    assert_clean(engine)


@bounded
async def test_memory_streams_with_half_closes() -> None:
    probe, events = Probe(), Events()
    engine = make_engine(probe)
    engine.add_sink(events)
    async with relaying(engine) as (client, server):
        await client.send_all(b"question")
        assert await read_exactly(server, 8) == b"question"
        assert isinstance(client, trio.abc.HalfCloseableStream)
        await client.send_eof()
        assert await read_all(server) == (b"", "fin")
        await server.send_all(CHUNK * 4)
        assert await read_exactly(client, 4 * len(CHUNK)) == CHUNK * 4
        await server.aclose()
        assert await read_all(client) == (b"", "fin")
    assert events.named("flow_deleted")[0]["reason"] == "fin"
    assert [data for _, data in probe.seen][:1] == [b"question"]


@bounded
async def test_without_half_close_a_fin_waits_for_the_other_direction() -> None:
    """The client can half-close, the upstream's stream cannot: its answer still arrives."""
    client, near = memory_stream_pair()
    upstream_near, server = memory_stream_pair()
    engine = make_engine(Probe())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, near, NoHalfClose(upstream_near), engine, ENDPOINTS)
        await client.send_all(b"question")
        await client.send_eof()
        assert await read_exactly(server, 8) == b"question"
        await trio.testing.wait_all_tasks_blocked()
        await server.send_all(b"answer")
        await server.aclose()
        assert await read_all(client) == (b"answer", "fin")
    assert_clean(engine)


@bounded
async def test_a_whole_close_closes_the_other_side_too() -> None:
    """Where an end of stream can only be a full close, there is nothing to wait for."""
    engine = make_engine(Probe())
    async with relaying(engine, NoHalfClose) as (client, server):
        await client.send_all(b"bye")
        await client.aclose()
        assert await read_all(server) == (b"bye", "fin")


@bounded
async def test_a_broken_stream_is_a_reset() -> None:
    class Breaking(NoHalfClose):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            data = await super().receive_some(max_bytes)
            if data == b"break":
                raise trio.BrokenResourceError
            return data

    events = Events()
    engine = make_engine(Probe())
    engine.add_sink(events)
    client, near = memory_stream_pair()
    upstream_near, server = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, Breaking(near), upstream_near, engine, ENDPOINTS)
        await client.send_all(b"break")
        assert (await read_all(server))[0] == b""
    assert events.named("flow_deleted")[0]["reason"] == "rst_client"
    assert_clean(engine)


@bounded
async def test_a_stream_that_takes_nothing_more_is_a_reset() -> None:
    events = Events()
    engine = make_engine(Probe())
    engine.add_sink(events)
    client, near = memory_stream_pair()
    upstream_near, server = memory_stream_pair()
    await server.receive_stream.aclose()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, near, upstream_near, engine, ENDPOINTS)
        await client.send_all(b"anybody there?")
        await read_all(client)
    assert events.named("flow_deleted")[0]["reason"] == "rst_upstream"
    assert_clean(engine)


@bounded
async def test_deferred_and_continued() -> None:
    probe = Deferring()
    async with relaying(make_engine(probe)) as (client, server):
        await server.send_all(b"held")
        while not probe.deferred:
            await trio.lowlevel.checkpoint()
        await server.send_all(b" back")
        probe.go()
        assert await read_exactly(client, 9) == b"held back"
        await client.aclose()
        await server.aclose()


@bounded
async def test_dropped() -> None:
    async with relaying(make_engine(Dropping(b"evil"))) as (client, server):
        await client.send_all(b"evil")
        assert (await read_all(server))[0] == b""
        assert (await read_all(client))[0] == b""


@bounded
async def test_an_idle_relay_ends() -> None:
    engine = make_engine(Probe(), options=EngineOptions(timeouts=Timeouts(idle=0.05)))
    async with relaying(engine) as ends:
        for end in ends:
            assert await read_all(end) == (b"", "fin")


@bounded
async def test_a_slow_stream_holds_up_the_sender() -> None:
    """Nothing is taken from one end that the other end has no room for."""
    client, near = trio.testing.lockstep_stream_pair()
    upstream_near, _server = trio.testing.lockstep_stream_pair()
    engine = make_engine(Probe())
    sent = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, near, upstream_near, engine, ENDPOINTS)

        async def send() -> None:
            nonlocal sent
            while True:
                await client.send_all(CHUNK)
                sent += len(CHUNK)

        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        (flow,) = engine.flows
        assert sent <= 2 * engine.options.limits.unsent
        assert flow.stored <= engine.options.limits.unsent
        nursery.cancel_scope.cancel()
    assert_clean(engine)


@bounded
async def test_a_relay_that_is_cancelled_leaves_nothing() -> None:
    events = Events()
    engine = make_engine(Probe(), AskingCallout())
    engine.add_sink(events)
    client, near = memory_stream_pair()
    upstream_near, server = memory_stream_pair()
    with trio.move_on_after(5) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relay, near, upstream_near, engine, ENDPOINTS)
            await client.send_all(b"x")
            await read_exactly(server, 1)
            scope.cancel()
    assert events.named("flow_deleted")[0]["reason"] == "stop"
    assert await read_all(client) == (b"", "fin")
    assert_clean(engine)


@bounded
async def test_a_defect_is_raised_and_both_streams_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine(Probe())
    client, near = memory_stream_pair()
    upstream_near, server = memory_stream_pair()

    def broken(flow: object) -> None:
        raise RuntimeError("defect")

    monkeypatch.setattr(engine, "settle_output", broken)
    with pytest.raises(RuntimeError, match="defect"):
        await relay(near, upstream_near, engine, ENDPOINTS)
    assert await read_all(client) == (b"", "fin")
    assert await read_all(server) == (b"", "fin")
    assert_clean(engine)


@bounded
async def test_relays_share_an_engine_and_the_first_may_end_first() -> None:
    """The task that runs the engine's turns passes from one relay to the next."""
    probe = Deferring()
    engine = make_engine(probe)
    async with relaying(engine) as (client, server), trio.open_nursery() as nursery:
        first_client, near = memory_stream_pair()
        upstream_near, first_server = memory_stream_pair()
        nursery.start_soon(relay, near, upstream_near, engine, ENDPOINTS)
        await first_client.aclose()
        await first_server.aclose()
        while len(engine.flows) != 1:
            await trio.lowlevel.checkpoint()
        await server.send_all(b"held")
        while not probe.deferred:
            await trio.lowlevel.checkpoint()
        probe.after(0.01, probe.go)
        assert await read_exactly(client, 4) == b"held"
        await client.aclose()
        await server.aclose()


# --- sockets and TLS --------------------------------------------------------------------------------


async def socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Two ends of one TCP connection."""
    listener = await listening()
    with listener:
        one = await trio.open_tcp_stream(*listener.getsockname())
        sock, _ = await listener.accept()
    return one, trio.SocketStream(sock)


@bounded
async def test_socket_streams_keep_all_of_tcp() -> None:
    client, near = await socket_pair()
    upstream_near, server = await socket_pair()
    assert capabilities(near, upstream_near) == Capabilities(True, True, True, True)
    engine = make_engine(Probe())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, near, upstream_near, engine, ENDPOINTS)
        await client.send_all(b"x")
        assert await read_exactly(server, 1) == b"x"
        await client.send_eof()
        assert await read_all(server) == (b"", "fin")
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await server.aclose()
        assert await read_all(client) == (b"", "reset")
    with pytest.raises(trio.ClosedResourceError):
        await near.receive_some()
    await client.aclose()
    assert_clean(engine)


@bounded
async def test_a_pended_relay_ends_with_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make_engine()
    client, near = await socket_pair()
    upstream_near, server = await socket_pair()
    request = engine.connection_requested

    def pend(endpoints: Endpoints) -> Any:
        attempt = request(endpoints)
        attempt.verdict = "pended"
        return attempt

    monkeypatch.setattr(engine, "connection_requested", pend)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, near, upstream_near, engine, ENDPOINTS)
        await trio.testing.wait_all_tasks_blocked()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await client.aclose()
        assert await read_all(server) == (b"", "reset")
    await server.aclose()
    assert_clean(engine)


@bounded
async def test_tls_on_one_side() -> None:
    """TLS has no half-close: the upstream's end becomes the client's, whole."""
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("web.example").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    client_socket, near_socket = await socket_pair()
    upstream_near, server = await socket_pair()
    client = trio.SSLStream(client_socket, client_side, server_hostname="web.example")
    near = trio.SSLStream(near_socket, server_side, server_side=True)
    assert capabilities(near, upstream_near) == Capabilities(False, False, False, False)
    probe = Probe()
    engine = make_engine(probe)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, near, upstream_near, engine, ENDPOINTS)
        await client.send_all(b"secret")
        assert await read_exactly(server, 6) == b"secret"
        assert probe.seen[0][1] == b"secret"
        nursery.start_soon(server.send_all, CHUNK * 20)
        assert await read_exactly(client, 20 * len(CHUNK)) == CHUNK * 20
        await server.send_eof()
        await client.aclose()
        assert await read_all(server) == (b"", "fin")
        await server.aclose()
    assert_clean(engine)


@bounded
async def test_a_reset_upstream_is_no_clean_end_below_tls() -> None:
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("web.example").configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    client_socket, near_socket = await socket_pair()
    upstream_near, server = await socket_pair()
    client = trio.SSLStream(client_socket, client_side, server_hostname="web.example")
    near = trio.SSLStream(near_socket, server_side, server_side=True)
    engine = make_engine(Probe())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay, near, upstream_near, engine, ENDPOINTS)
        await client.send_all(b"x")
        await read_exactly(server, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        await server.aclose()
        # Below TLS: an end without a goodbye is an error to TLS anyway, but not to everybody.
        assert (await read_all(client_socket))[1] == "reset"
    await trio.aclose_forcefully(client)
    assert_clean(engine)


@bounded
async def test_a_stopped_engine_ends_the_flows_of_its_drivers() -> None:
    engine = make_engine(Probe())
    async with relaying(engine) as (client, server):
        await client.send_all(b"question")
        assert await read_exactly(server, 8) == b"question"
        engine.stop()
        assert await read_all(client) == (b"", "fin")
        assert await read_all(server) == (b"", "fin")
