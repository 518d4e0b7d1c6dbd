"""Accepting in the reactor: an edge that could not be used up is not said again, so accepting is tried again by us."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.kit import Live, Probe, bounded, live, read_exactly
from wfpstream.engine import EngineOptions, Limits
from wfpstream.transport import _door


@contextmanager
def no_descriptors() -> Iterator[None]:
    """The kernel gives out no number any more: EMFILE."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def talk(client: trio.SocketStream, server: trio.SocketStream) -> None:
    """They are connected."""
    await client.send_all(b"hello")
    assert await read_exactly(server, 5) == b"hello"


async def wait_told(run: Live, word: str) -> None:
    """A line with that word was written."""
    while not any(word in line for line in run.lines):
        await trio.lowlevel.checkpoint()


def dial(run: Live, count: int) -> list[trio.SocketStream]:
    """So many clients in the backlog, all at once."""
    listener = run.proxy.listeners[0]
    streams = []
    for _ in range(count):
        sock = socket.create_connection((listener.host, listener.port))
        sock.setblocking(False)
        streams.append(trio.SocketStream(trio.socket.from_stdlib_socket(sock)))
        run._peers.append(streams[-1])
    return streams


@bounded
async def test_without_descriptors_accepting_is_tried_again_by_itself() -> None:
    """The kernel's own EMFILE. Nobody else comes and nobody leaves: no event brings it back."""
    async with live(Probe(), quiet=False) as run:
        (client,) = dial(run, 1)
        with no_descriptors():
            await wait_told(run, "too many open files")
            await wait_all_tasks_blocked()
        await talk(client, await run.accept())


@bounded
async def test_without_descriptors_accepting_goes_on_when_a_connection_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once, not when the pause is over."""
    monkeypatch.setattr(_door, "EXHAUSTED_PAUSE", 3600.0)
    async with live(Probe(), quiet=False) as run:
        client, server = await run.pair()
        (waits,) = dial(run, 1)
        with no_descriptors():
            await wait_told(run, "cannot accept")
        client.socket.close()
        server.socket.close()
        await talk(waits, await run.accept())


@bounded
async def test_beyond_the_limit_of_flows_each_that_leaves_lets_one_in() -> None:
    """One edge told of all of them."""
    options = EngineOptions(limits=Limits(flows=2))
    async with live(Probe(), options=options, quiet=False) as run:
        first, second = await run.pair(), await run.pair()
        waiting = dial(run, 3)
        await wait_all_tasks_blocked()
        assert run.proxy.accepted == 2
        inside = [first, second]
        for count, client in enumerate(waiting, start=3):
            leaver = inside.pop(0)
            for end in leaver:
                end.socket.close()
            server = await run.accept()
            await talk(client, server)
            inside.append((client, server))
            assert run.proxy.accepted == count


@bounded
async def test_more_than_one_turn_takes_are_all_accepted() -> None:
    """After `ACCEPTS_IN_A_ROW` the others have their turn, and no further edge comes."""
    count = 2 * _door.ACCEPTS_IN_A_ROW + 1
    async with live(Probe()) as run:
        clients = dial(run, count)
        servers = [await run.accept() for _ in clients]
        assert run.proxy.accepted == count
        # In whatever order the kernel lets them in.
        names = [number.to_bytes(2, "big") for number in range(count)]
        for client, name in zip(clients, names, strict=True):
            await client.send_all(name)
        assert sorted([await read_exactly(server, 2) for server in servers]) == names
