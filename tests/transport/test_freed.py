"""What a connection leaves behind in this process: nothing, and nothing for the garbage collector either."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio

from tests.transport.kit import Live, Probe, bounded, free_port, live, read_all, read_exactly, reset
from wfpstream.engine import EngineOptions, Policy
from wfpstream.transport._hub import _hubs

MANY = 100
OURS = ("wfpstream.transport", "wfpstream.engine", "wfpstream.fwps")


@contextmanager
def without_collector() -> Iterator[None]:
    """Only reference counts free anything."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive() -> Counter[str]:
    """How many objects of our classes there are, by class."""
    counted: Counter[str] = Counter()
    for found in gc.get_objects():
        kind = type(found)
        if str(kind.__module__).startswith(OURS):
            counted[kind.__qualname__] += 1
    return counted


async def talk_and_end(run: Live) -> None:
    """The usual course."""
    client, server = await run.client(), await run.accept()
    await client.send_all(b"question")
    assert await read_exactly(server, 8) == b"question"
    await server.send_all(b"answer")
    assert await read_exactly(client, 6) == b"answer"
    await client.send_eof()
    assert await read_all(server) == (b"", "fin")
    await server.aclose()
    assert await read_all(client) == (b"", "fin")
    await client.aclose()


async def be_reset(run: Live) -> None:
    """The client gives up in the middle."""
    client, server = await run.client(), await run.accept()
    await client.send_all(b"question")
    assert await read_exactly(server, 8) == b"question"
    reset(client)
    assert (await read_all(server))[1] == "reset"
    await server.aclose()


async def be_aborted(run: Live) -> None:
    """The owner ends it."""
    client, server = await run.pair()
    run.engine.abort_flows()
    assert (await read_all(client))[1] == "reset"
    assert (await read_all(server))[1] == "reset"
    await client.aclose()
    await server.aclose()


async def be_refused(run: Live) -> None:
    """Nobody listens where it goes."""
    client = await run.client()
    assert (await read_all(client))[1] == "reset"
    await client.aclose()


async def be_refused_politely(run: Live) -> None:
    """As `be_refused`, with a FIN, which takes a task."""
    client = await run.client()
    assert (await read_all(client))[1] == "fin"
    await client.aclose()


Course = Callable[[Live], Awaitable[None]]


@pytest.mark.parametrize("course", [talk_and_end, be_reset, be_aborted, be_refused, be_refused_politely])
@bounded
async def test_a_connection_that_is_over_is_freed_by_reference_counts_alone(course: Course) -> None:
    options = EngineOptions()
    port = None
    if course in (be_refused, be_refused_politely):
        port = free_port()
        options.policy = Policy(on_block="fin" if course is be_refused_politely else "reset")
    async with live(Probe(), options=options, upstream_port=port, quiet=False) as run:

        async def some(count: int) -> None:
            for _ in range(count):
                await course(run)
            await run.proxy.wait_connections(0)
            await trio.testing.wait_all_tasks_blocked(0.001)
            run.lines.clear()

        await some(20)
        with without_collector():
            before = alive()
            await some(MANY)
            grown = alive() - before
    # A book that is begun anew now and then is not a connection's.
    assert [(kind, count) for kind, count in grown.items() if count > MANY // 10] == []


@bounded
async def test_descriptors_and_registrations_stay_the_same_over_thousands_of_connections() -> None:
    """Those of the process, and those of the reactor's epoll object as the kernel sees them."""
    async with live(Probe()) as run:

        def held() -> tuple[int, int, int]:
            reactor = _hubs[id(run.engine)].reactor
            with open(f"/proc/self/fdinfo/{reactor._epoll.fileno()}", encoding="ascii") as info:
                registered = sum(line.startswith("tfd:") for line in info)
            return len(os.listdir("/proc/self/fd")), registered, len(reactor)

        async def some(count: int) -> None:
            for number in range(count):
                await (be_reset if number % 4 == 0 else talk_and_end)(run)
                run.events.all.clear()
            await run.proxy.wait_connections(0)

        await some(10)
        before = held()
        await some(1000)
        assert held() == before
