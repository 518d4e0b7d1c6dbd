"""The end of a proxy in the middle of things: cancelled at any step, or while another one shares its engine."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio

from tests.transport.kit import (
    Deferring,
    Probe,
    assert_clean,
    bounded,
    listening,
    live,
    make_engine,
    read_all,
    read_exactly,
    reset,
)
from tests.transport.test_dial import full_backlog
from tests.transport.test_leg import OneWordCallout
from tests.transport.test_proxy import CancelAt
from wfpstream.engine import EngineOptions, FilterEngine, Limits, Timeouts
from wfpstream.transport import ListenerSpec, Proxy, serve_proxy

BRIEF = Timeouts(connect=0.02, reset_flush=0.02)


async def dialling(client: trio.SocketStream, upstream: trio.socket.SocketType) -> None:
    """Nobody answers the connect, until its time is up."""
    await client.send_all(b"hello?")
    await read_all(client)


async def flushing(client: trio.SocketStream, upstream: trio.socket.SocketType) -> None:
    """The server says much and resets; the client takes none of it, and that has its time."""
    sock, _ = await upstream.accept()
    server = trio.SocketStream(sock)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with suppress(OSError):
        while True:
            sock._sock.send(bytes(1 << 16))  # type: ignore[attr-defined]
    reset(server)
    with suppress(trio.BrokenResourceError):
        while True:  # it writes until the leg is reset
            await client.send_all(b"x")
            await trio.lowlevel.checkpoint()


async def draining(client: trio.SocketStream, upstream: trio.socket.SocketType) -> None:
    """Both FINs were sent, and the client goes on with what nobody reads, and never ends."""
    sock, _ = await upstream.accept()
    async with trio.SocketStream(sock) as server:
        await client.send_all(b"word")
        await read_all(server)
        await client.send_all(b"more " * 5000)
    await read_all(client)


Course = Callable[[trio.SocketStream, trio.socket.SocketType], Awaitable[None]]


async def cancelled_at(step: int, engine: FilterEngine, course: Course) -> bool:
    """Follow the course with the proxy cancelled at `step`; whether it came to that."""
    scope = trio.CancelScope()
    instrument = CancelAt(step, scope)
    upstream = await listening()
    with upstream, full_backlog() as deaf:
        where = deaf if course is dialling else upstream
        spec = ListenerSpec(upstream_host="127.0.0.1", upstream_port=where.getsockname()[1])

        async def serve(task_status: trio.TaskStatus[Proxy]) -> None:
            with scope:
                await serve_proxy(engine, [spec], task_status=task_status)

        async with trio.open_nursery() as nursery:
            proxy: Proxy = await nursery.start(serve)
            trio.lowlevel.add_instrument(instrument)

            async def follow() -> None:
                with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                    listener = proxy.listeners[0]
                    async with await trio.open_tcp_stream(listener.host, listener.port) as client:
                        await course(client, upstream)
                    await proxy.wait_connections(0)
                scope.cancel()
                nursery.cancel_scope.cancel()

            nursery.start_soon(follow)
            await proxy._done.wait()
            nursery.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(instrument)
    return instrument.left <= 0


@pytest.mark.parametrize("course", [dialling, flushing, draining])
def test_cancelled_at_any_step_of_what_takes_time_nothing_is_left(course: Course) -> None:
    """Every checkpoint of connecting, of writing what is owed before a reset, and of draining unread input."""

    async def main() -> None:
        before = len(os.listdir("/proc/self/fd"))
        for step in range(1, 3000):
            options = EngineOptions(timeouts=BRIEF, limits=Limits(unsent=4096))
            engine = make_engine(OneWordCallout() if course is draining else Probe(), options=options)
            with trio.fail_after(100):
                cancelled = await cancelled_at(step, engine, course)
            assert_clean(engine)
            assert len(os.listdir("/proc/self/fd")) == before, step
            if not cancelled:
                break
        assert 15 < step < 2999

    trio.run(main)


@bounded
async def test_the_reactor_goes_on_when_the_proxy_whose_tasks_ran_it_ends() -> None:
    """Two proxies of one engine have one hub; the one that leads ends in the middle of the other's work."""
    probe = Deferring()
    engine = make_engine(probe)
    upstream = await listening()
    spec = ListenerSpec(upstream_host="127.0.0.1", upstream_port=upstream.getsockname()[1])
    with upstream:
        async with trio.open_nursery() as nursery:
            serve = partial(serve_proxy, engine, [spec], grace=0.0)
            leads: Proxy = await nursery.start(serve)
            stays: Proxy = await nursery.start(serve)
            ends = []
            for proxy in (leads, stays):
                listener = proxy.listeners[0]
                client = await trio.open_tcp_stream(listener.host, listener.port)
                ends.append((client, trio.SocketStream((await upstream.accept())[0])))
                await client.send_all(b"x")
                assert await read_exactly(ends[-1][1], 1) == b"x"
            (gone, gone_server), (client, server) = ends
            await server.send_all(b"held back")
            while not probe.deferred:
                await trio.lowlevel.checkpoint()
            await leads.stop()
            assert (await read_all(gone))[1] == (await read_all(gone_server))[1] == "reset"
            # Bytes, a timer and an end go on, with nobody else's tasks.
            probe.after(0.01, probe.go)
            assert await read_exactly(client, 9) == b"held back"
            await client.send_all(bytes(300_000))
            await client.send_eof()
            assert await read_all(server) == (bytes(300_000), "fin")
            await server.send_eof()
            assert await read_all(client) == (b"", "fin")
            for stream in (gone, gone_server, client, server):
                await stream.aclose()
            await stays.stop()
    assert_clean(engine)


@bounded
async def test_what_waits_to_be_left_slowly_can_be_cut_short_before_its_task_has_begun() -> None:
    """Both FINs were sent in this very turn, and the owner takes all connections down in the next call."""
    options = EngineOptions(timeouts=Timeouts(reset_flush=3600.0), limits=Limits(unsent=4096))
    async with live(OneWordCallout(), options=options) as run:
        client, server = await run.pair()
        ended = trio.Event()

        await client.send_all(b"word")
        assert await read_all(server) == (b"word", "fin")
        await client.send_all(b"more " * 5000)
        (guest,) = run.proxy._reception._guests
        assert guest.connection is not None
        driven = guest.connection._flow
        assert driven is not None
        spawn = driven._spawn

        def spawn_and_end(*args: Any) -> None:
            spawn(*args)
            guest.abandon()
            ended.set()

        driven._spawn = spawn_and_end
        await server.send_eof()
        await ended.wait()
        await run.proxy.wait_connections(0)
        assert (await read_all(client))[1] in ("fin", "reset")
