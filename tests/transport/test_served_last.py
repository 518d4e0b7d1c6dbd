"""Flows whose callout overran its time are served after all others, one item per turn, and lose nothing by it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.transport.kit import Live, Probe, bounded, live, read_all, read_exactly
from tests.transport.test_door import dial
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, ClassifyOut, OutOfBandCallout, StreamCalloutIoPacket
from wfpstream.transport._reactor import IN, Reactor

PIECE = 2048
BUDGET = 0.002
SLOW, QUICK = b"s", b"q"


def options_with(budget: float) -> EngineOptions:
    """Pieces of 2 KiB, and so long for a call, seconds."""
    options = EngineOptions()
    options.limits.unsent = 2 * PIECE
    options.limits.need_more_data = PIECE  # else a flow that has much to read is given more at once
    options.verify.callback_budget = budget
    return options


class Journal(Probe):
    """Writes down whose turn it is; takes its time with those flows that say they are slow.

    That time is the engine's, and nothing else takes any: on a busy machine whoever is quick may be slow, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 1000.0
        self.calls: list[tuple[bytes, int]] = []

    def take_time(self) -> None:
        """A call that overruns its time."""
        self.seconds += 2 * BUDGET

    @asynccontextmanager
    async def live(self, *others: Callout) -> AsyncIterator[Live]:
        """A proxy with this callout, and a clock that only slow calls put forward."""
        async with live(self, *others, options=options_with(BUDGET), clock=lambda: self.seconds) as run:
            run.engine.overruns.count_waiting(None)  # for a processor: that is time of the machine's
            yield run

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        kind = self.seen[-1][1][:1]
        self.calls.append((kind, self.flow_id))
        if kind == SLOW:
            self.take_time()


@bounded
async def test_others_are_served_between_two_calls_of_slow_flows_which_take_turns() -> None:
    journal = Journal()
    async with journal.live() as run:
        quick = await run.pair()
        slow = [await run.pair() for _ in range(3)]
        # Known as slow by their first call.
        for client, server in slow:
            await client.send_all(SLOW)
            assert await read_exactly(server, 1) == SLOW
        journal.calls.clear()
        # All of it lies in the kernel before the proxy runs again.
        for client, _ in slow:
            assert client.socket._sock.send(SLOW * (6 * PIECE)) == 6 * PIECE  # type: ignore[attr-defined]
        assert quick[0].socket._sock.send(QUICK * (30 * PIECE)) == 30 * PIECE  # type: ignore[attr-defined]
        async with trio.open_nursery() as nursery:
            for _, server in slow:
                nursery.start_soon(read_exactly, server, 6 * PIECE)
            nursery.start_soon(read_exactly, quick[1], 30 * PIECE)
    kinds = b"".join(kind for kind, _ in journal.calls)
    contended = kinds[: kinds.rindex(QUICK)]
    # One may have been on its way when the quick flow was heard of first.
    assert SLOW * 3 not in contended
    assert contended.count(SLOW + SLOW) <= 1
    assert contended.count(SLOW) >= 3
    turns = [flow for kind, flow in journal.calls if kind == SLOW]
    for start in range(0, 15, 3):
        assert len(set(turns[start : start + 3])) == 3


@pytest.mark.parametrize("out_of_band", [False, True])
@bounded
async def test_where_every_call_overruns_nothing_is_lost_and_nothing_stands_still(out_of_band: bool) -> None:
    """Back-pressure, ends and order are those of flows that are served as ever."""
    callout = OutOfBandCallout() if out_of_band else Probe()
    data = [bytes([65 + number]) * (40 * PIECE) for number in range(4)]
    async with live(callout, options=options_with(1e-9)) as run:
        pairs = [await run.pair() for _ in data]

        async def talk(number: int) -> None:
            client, server = pairs[number]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say, client, data[number])
                nursery.start_soon(say, server, data[number].lower())
                assert await read_all(server) == (data[number], "fin")
                assert await read_all(client) == (data[number].lower(), "fin")

        async def say(stream: trio.SocketStream, text: bytes) -> None:
            await stream.send_all(text)
            await stream.send_eof()

        async with trio.open_nursery() as nursery:
            for number in range(len(data)):
                nursery.start_soon(talk, number)
        await run.deleted(len(data))
        assert run.engine.overruns.flows == set()
    assert run.engine.counters["overruns"] >= len(data) * 80


@bounded
async def test_a_flow_that_ends_while_it_waits_behind_is_forgotten() -> None:
    async with live(Probe(), options=options_with(1e-9)) as run:
        client, server = await run.pair()
        await client.send_all(b"x" * (20 * PIECE))
        assert await read_exactly(server, PIECE) == b"x" * PIECE
        run.engine.abort_flows()
        await run.deleted()
        assert (await read_all(client))[1] == "reset"


class AtTheDoor(Callout):
    """Takes its time about every newcomer, at one of the layers before the stream."""

    def __init__(self, layer: str, journal: Journal) -> None:
        self.layers = (layer,)  # type: ignore[misc]
        self.journal = journal

    def classify_fn(self, *args: Any) -> None:
        self.journal.calls.append((SLOW, args[1].flow_handle))
        self.journal.take_time()
        args[-1].action_type = int(ActionType.CONTINUE)


@pytest.mark.parametrize("layer", ["ale_auth_connect", "ale_flow_established"])
@bounded
async def test_others_are_served_between_two_newcomers_that_are_slow(layer: str) -> None:
    """One backlog full of them, told of by one edge."""
    journal = Journal()
    async with journal.live(AtTheDoor(layer, journal)) as run:
        client, server = await run.pair()
        journal.calls.clear()
        assert client.socket._sock.send(QUICK * (30 * PIECE)) == 30 * PIECE  # type: ignore[attr-defined]
        dial(run, 8)
        await read_exactly(server, 30 * PIECE)
        servers = [await run.accept() for _ in range(8)]
        await run.events.wait("flow_established", 9)
        assert run.proxy.accepted == 9
        assert run.engine.overruns.flows == set()
        for one in servers:
            await one.aclose()
    kinds = b"".join(kind for kind, _ in journal.calls)
    contended = kinds[: kinds.rindex(QUICK)]
    assert contended.count(SLOW) >= 3
    # One may have been on its way when the flow was heard of first.
    assert SLOW * 3 not in contended
    assert kinds.count(SLOW) == 8


class Taking:
    """Something in a reactor's queues; writes down its turns."""

    def __init__(self, name: str, reactor: Reactor, journal: list[str], again: int = 0) -> None:
        self.name, self.reactor, self.journal, self.again = name, reactor, journal, again
        self.queued = False
        self.since = 0

    def ready(self, events: int) -> None:
        self.journal.append(self.name)

    def go_on(self) -> None:
        self.journal.append(self.name)

    def go_last(self) -> None:
        self.journal.append(self.name)
        if self.again:
            self.again -= 1
            self.reactor.last(self)


def test_one_batch_has_one_of_those_behind_and_it_comes_last() -> None:
    journal: list[str] = []
    roused: list[int] = []
    reactor = Reactor(lambda: roused.append(1))
    try:
        first, second = Taking("a", reactor, journal, 1), Taking("b", reactor, journal)
        reactor.last(first)
        reactor.last(second)
        reactor.last(first)
        assert len(roused) == 2
        other = Taking("other", reactor, journal)
        for _ in range(3):
            assert reactor.has_unfinished
            reactor.again(other)
            assert reactor.batch()
            journal.append("|")
        assert "".join(journal) == "othera|otherb|othera|"
        assert not reactor.has_unfinished
        assert not reactor.batch()
    finally:
        reactor.close()


def test_sockets_that_are_ready_come_before_them() -> None:
    journal: list[str] = []
    reactor = Reactor()
    one, other = socket.socketpair()
    with one, other:
        try:
            reactor.add(one.fileno(), Taking("socket", reactor, journal), IN)
            reactor.batch()
            reactor.last(Taking("behind", reactor, journal))
            other.send(b"x")
            assert reactor.batch()
            assert journal == ["socket", "behind"]
        finally:
            reactor.close()
