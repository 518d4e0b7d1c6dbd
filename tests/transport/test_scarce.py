"""Few descriptors: pipes give way to connections, and nobody waits who could be served."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest
from trio.testing import wait_all_tasks_blocked

from tests.transport.kit import Live, Probe, bounded, live, read_all, read_exactly
from tests.transport.test_dial import full_backlog
from tests.transport.test_door import dial, talk, wait_told
from tests.transport.test_left_lying import fill
from tests.transport.test_offload import MIB, hub_of, make_bulky, noise, offloaded_pair, relay_exactly
from wfpstream.engine import EngineOptions, Limits
from wfpstream.transport import _dial, _door
from wfpstream.transport._reactor import Reactor


def leave_room_for(run: Live, pairs: int) -> None:
    """For so many connections and pipes together."""
    room = run.proxy._room
    room._descriptors = room._others + 2 * pairs


@bounded
async def test_pipes_that_nobody_needs_make_room_for_a_connection() -> None:
    async with live(quiet=False) as run:
        await offloaded_pair(run)
        assert hub_of(run).pipes.open == 1
        leave_room_for(run, 2)
        await talk(*await run.pair())
        assert hub_of(run).pipes.open == 0


@bounded
async def test_who_waits_for_the_descriptors_of_a_pipe_is_served_when_it_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No connection ends, and nobody else comes: nothing else would tell."""
    monkeypatch.setattr(_door, "FULL_PAUSE", 0.01)
    async with live(quiet=False) as run:
        client, server = await offloaded_pair(run)
        sent = await fill(run, client)
        assert hub_of(run).pipes.lent == 1
        leave_room_for(run, 2)
        (late,) = dial(run, 1)
        await wait_told(run, "who comes now waits")
        assert run.proxy.connections == 1
        await read_exactly(server, sent)
        await talk(late, await run.accept())


@bounded
async def test_who_waits_for_a_limit_is_served_when_it_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_door, "FULL_PAUSE", 0.01)
    options = EngineOptions(limits=Limits(flows=1))
    async with live(Probe(), options=options, quiet=False) as run:
        await run.pair()
        (late,) = dial(run, 1)
        await wait_told(run, "who comes now waits")
        run.engine.options.limits.flows = 2
        await talk(late, await run.accept())


@bounded
async def test_a_pipe_takes_no_descriptor_that_a_connection_on_its_way_will_need() -> None:
    async with live() as run:
        client, server = await run.pair()
        leave_room_for(run, 1)
        await relay_exactly(client, server, noise(8, 2 * MIB))
        assert hub_of(run).pipes.open == 0
        leave_room_for(run, 2)
        driver: Any = hub_of(run).drivers[run.flow.id]
        driver._not_before = 0.0  # the while is over
        await make_bulky(run, client, server)


@bounded
async def test_a_connect_that_cannot_be_waited_for_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user has as many sockets in epoll objects as he may: it is told as any other failure."""
    add = Reactor.add

    def full(reactor: Reactor, fd: int, handler: Any, events: int) -> None:
        if isinstance(handler, _dial.Dial):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(reactor, fd, handler, events)

    monkeypatch.setattr(Reactor, "add", full)
    with full_backlog() as listener:
        port = listener.getsockname()[1]
        async with live(Probe(), upstream_port=port, quiet=False) as run:
            client = await run.client()
            assert await read_all(client) == (b"", "reset")
            await wait_all_tasks_blocked()
            assert run.events.named("connect_failed")[0]["reason"] == "no space left on device"
            assert run.lines == [f"listener web: cannot connect to 127.0.0.1:{port}: no space left on device"]
            assert run.proxy.connections == 0
            assert run.events.named("flow_established") == []
