"""Connects that the reactor waits for: how they end, that their error is asked for once, and what stays behind."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.kit import Live, Probe, bounded, live, read_all, read_exactly, reset
from tests.transport.test_freed import alive, without_collector
from wfpstream.engine import EngineOptions, Timeouts
from wfpstream.transport import _dial
from wfpstream.transport._hub import _hubs
from wfpstream.transport._sockets import connect_error


@contextmanager
def full_backlog() -> Iterator[socket.socket]:
    """A listener that ignores who wants to connect, until somebody is accepted or it is closed.

    A connect tries again after a second: whatever becomes of it then.
    """
    with socket.socket() as listener, socket.socket() as first:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        first.connect(listener.getsockname())
        select.select([listener], [], [])  # it is in the backlog, and nobody else fits in
        yield listener


async def wait_dialling(run: Live, count: int = 1) -> None:
    """So many connects are under way."""
    reactor = _hubs[id(run.engine)].reactor
    while sum(isinstance(handler, _dial.Dial) for handler in reactor._handlers.values()) < count:
        await trio.lowlevel.checkpoint()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that SO_ERROR is asked for."""
    calls: list[int] = []

    def counted(sock: socket.socket) -> OSError | None:
        calls.append(sock.fileno())
        return connect_error(sock)

    monkeypatch.setattr(_dial, "connect_error", counted)
    return calls


@bounded
async def test_a_connect_that_had_to_wait_is_relayed_when_it_is_answered(asked: list[int]) -> None:
    with full_backlog() as listener:
        async with live(Probe(), upstream_port=listener.getsockname()[1]) as run:
            client = await run.client()
            await client.send_all(b"patience")
            await wait_dialling(run)
            assert asked == []
            listener.accept()[0].close()
            await run.events.wait("flow_established")
            with listener.accept()[0] as server:
                server.setblocking(False)
                await trio.lowlevel.wait_readable(server)
                assert server.recv(100) == b"patience"
                assert len(asked) == 1
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            assert await read_all(client) == (b"", "reset")  # its error is still there for who reads
            assert len(asked) == 1


@bounded
async def test_a_connect_that_had_to_wait_may_be_refused(asked: list[int]) -> None:
    with full_backlog() as listener:
        async with live(Probe(), upstream_port=listener.getsockname()[1], quiet=False) as run:
            client = await run.client()
            await wait_dialling(run)
            listener.close()
            assert await read_all(client) == (b"", "reset")
            assert (await run.events.wait("connect_failed"))["reason"] == "connection refused"
            assert len(asked) == 1


@bounded
async def test_a_connect_that_takes_too_long_ends_and_others_go_on() -> None:
    options = EngineOptions(timeouts=Timeouts(connect=0.05))
    with full_backlog() as listener:
        async with live(
            Probe(), options=options, upstream_port=listener.getsockname()[1], quiet=False
        ) as run:
            clients = [await run.client() for _ in range(3)]
            for client in clients:
                assert await read_all(client) == (b"", "reset")
            for count in (1, 2, 3):
                assert (await run.events.wait("connect_failed", count))["reason"] == "no answer within 0.05 s"
            await run.proxy.wait_connections(0)


@bounded
async def test_a_client_that_resets_meanwhile_ends_it_and_its_fin_does_not() -> None:
    with full_backlog() as listener:
        async with live(Probe(), upstream_port=listener.getsockname()[1]) as run:
            goes, stays = await run.client(), await run.client()
            await wait_dialling(run, 2)
            await stays.send_eof()
            reset(goes)
            await run.proxy.wait_connections(1)
            await wait_all_tasks_blocked()
            assert run.proxy.connections == 1
            await wait_dialling(run, 1)


@pytest.mark.parametrize("how", ["stop", "abort", "cancel"])
@bounded
async def test_a_proxy_that_ends_meanwhile_leaves_nothing(how: str) -> None:
    """No flow, no descriptor, and the client is told by a reset."""
    with full_backlog() as listener:
        before = len(os.listdir("/proc/self/fd"))
        async with live(Probe(), upstream_port=listener.getsockname()[1]) as run:
            clients = [await run.client() for _ in range(3)]
            await wait_dialling(run, 3)
            if how == "stop":
                await run.proxy.stop(0.0)
            elif how == "abort":
                await run.proxy.abort_connections()
            else:
                run.proxy._connections.cancel_scope.cancel()
            for client in clients:
                assert await read_all(client) == (b"", "reset")
            assert run.events.named("flow_established") == []
        assert len(os.listdir("/proc/self/fd")) == before


@bounded
async def test_who_gave_up_is_freed_by_reference_counts_alone() -> None:
    many = 50
    with full_backlog() as listener:
        async with live(Probe(), upstream_port=listener.getsockname()[1]) as run:

            async def some() -> None:
                clients = [await run.client() for _ in range(many)]
                await wait_dialling(run, many)
                for client in clients:
                    reset(client)
                await run.proxy.wait_connections(0)
                await wait_all_tasks_blocked()

            await some()
            with without_collector():
                before = alive()
                await some()
                grown = alive() - before
    assert [(kind, count) for kind, count in grown.items() if count > many // 10] == []


@bounded
async def test_another_client_is_served_while_connects_wait() -> None:
    with full_backlog() as listener:
        async with live(Probe(), upstream_port=listener.getsockname()[1]) as run:
            await run.client()
            await wait_dialling(run)
            listening_at = run.proxy.listeners[0]
            listening_at.spec = replace(listening_at.spec, upstream_port=run.upstream.getsockname()[1])
            client, server = await run.pair()
            await client.send_all(b"quick")
            assert await read_exactly(server, 5) == b"quick"
