"""Cases about bytes on their way: much at once, one by one, to a slow or stopped reader, urgent ones."""

from __future__ import annotations

import socket
import statistics

import trio

from wfpstream.torture._arena import Arena, NoConnection, Side
from wfpstream.torture._case import SMALL, Case, both_sides, judge_bytes, judge_end, transfer, warm_up
from wfpstream.torture._end import End
from wfpstream.torture._records import MIB, Judge

_SLOW_ROUND_TRIP = 0.02
_BEFORE, _URGENT, _AFTER = b"before", b"!", b"after"
_SHORT = 64


async def plain(arena: Arena, judge: Judge) -> None:
    """A small question and a small answer."""
    async with arena.pair() as pair:
        await transfer(pair.client, pair.server, SMALL, fin=True)
        await transfer(pair.server, pair.client, SMALL, fin=True)
        for end in (pair.client, pair.server):
            judge_end(judge, end, SMALL, "fin")


async def bulk_both_ways(arena: Arena, judge: Judge) -> None:
    """Both directions as full as they get."""
    size = arena.profile.bulk
    async with arena.pair() as pair:
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for sender, receiver in (pair.sides("client"), pair.sides("server")):
                nursery.start_soon(_stream, sender, receiver, size)
        judge.facts["mib_per_second_both_ways"] = round(2 * size / MIB / (trio.current_time() - start), 1)
        for end in (pair.client, pair.server):
            judge_end(judge, end, size, "fin")


async def _stream(sender: End, receiver: End, size: int) -> None:
    await transfer(sender, receiver, size, fin=True)


async def single_bytes(arena: Arena, judge: Judge, by: Side) -> None:
    """Writes of one byte each, without waiting."""
    count = arena.profile.single_writes
    async with arena.pair() as pair:
        near, far = pair.sides(by)

        async def write() -> None:
            await near.send(count, step=1)
            near.fin()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(far.receive)
        judge_end(judge, far, count, "fin")


async def round_trips(arena: Arena, judge: Judge) -> None:
    """One byte there, one byte back, again and again: a relay that collects bytes is slow here."""
    count, times = arena.profile.round_trips, []
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        for _ in range(count):
            start = trio.current_time()
            await transfer(pair.client, pair.server, 1)
            await transfer(pair.server, pair.client, 1)
            times.append(trio.current_time() - start)
        for end in (pair.client, pair.server):
            judge_bytes(judge, end, SMALL + count, SMALL + count)
    median = statistics.median(times)
    judge.facts["median_ms"] = round(1000 * median, 2)
    judge.facts["worst_ms"] = round(1000 * max(times), 2)
    if median > _SLOW_ROUND_TRIP:
        judge.noted(f"a round trip of one byte takes {1000 * median:.0f} ms")


async def slow_reader(arena: Arena, judge: Judge, by: Side) -> None:
    """A reader that takes a little at a time: the sender waits, nothing is lost."""
    size = arena.profile.owed // 4
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        near, far = pair.sides(by)

        async def write() -> None:
            await far.send(size)
            far.fin()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            await near.receive(step=SMALL, delay=0.0002)
        judge_end(judge, near, SMALL + size, "fin")


async def stopped_reader(arena: Arena, judge: Judge, by: Side) -> None:
    """A reader that stops: the sender must be held up, and later get everything through."""
    most = arena.profile.flood
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        near, far = pair.sides(by)
        await far.flood(most, silence=1.0)
        judge.facts["mib_taken_unread"] = round(far.sent / MIB, 1)
        if far.sent >= most:
            judge.noted(f"took {far.sent // MIB} MiB that nobody read: it holds no sender up")
        far.fin()
        await near.receive()
        judge_end(judge, near, far.sent, "fin")


async def urgent_data(arena: Arena, judge: Judge, by: Side) -> None:
    """An urgent byte: it belongs between the others, and its mark with it."""
    async with arena.pair() as pair:
        near, far = pair.sides(by)
        await near.send_raw(_BEFORE)
        await near.send_raw(_URGENT, socket.MSG_OOB)
        await near.send_raw(_AFTER)
        near.fin()
        data, mark = await far.receive_raw()
    whole = _BEFORE + _URGENT + _AFTER
    if data == _BEFORE + _AFTER:
        judge.lost(f"the urgent byte never reached the {far.name}")
    elif data != whole:
        judge.lost(f"the {far.name} got {len(data)} bytes, not the {len(whole)} around an urgent one")
    elif mark != len(_BEFORE):
        judge.distorted(f"the urgent byte reached the {far.name} as an ordinary one")


async def short_connections(arena: Arena, judge: Judge) -> None:
    """Very many connections, each with a question and an answer."""
    left = arena.profile.connections

    async def some() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await _short_connection(arena, judge)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(arena.profile.at_once):
            nursery.start_soon(some)
    rate = arena.profile.connections / (trio.current_time() - start)
    judge.facts["connections"] = arena.profile.connections
    judge.facts["connections_per_second"] = round(rate)


async def _short_connection(arena: Arena, judge: Judge) -> None:
    try:
        async with arena.pair() as pair:
            await transfer(pair.client, pair.server, _SHORT, fin=True)
            await transfer(pair.server, pair.client, _SHORT, fin=True)
            for end in (pair.client, pair.server):
                judge_end(judge, end, _SHORT, "fin")
    except NoConnection as error:
        judge.lost(f"a connection did not come about: {error}")


FIRST: list[Case] = [
    Case("plain", "a kilobyte each way, each with its FIN: all bytes, both FINs", plain),
]
CASES: list[Case] = [
    *both_sides("single_bytes", "{by} writes bytes one by one: {other} gets all, in order", single_bytes),
    Case("round_trips", "one byte there and back, many times: how long it takes is noted", round_trips),
    *both_sides("slow_reader", "{by} reads a kilobyte at a time: it gets all, in order", slow_reader),
    *both_sides(
        "stopped_reader",
        "{by} stops to read until {other} is held up, then reads on: all bytes; how much was taken is noted",
        stopped_reader,
    ),
    *both_sides(
        "urgent_data", "{by} sends an urgent byte among others: it arrives at its place, marked", urgent_data
    ),
    Case("bulk_both_ways", "a big transfer in both directions at once: all bytes, both FINs", bulk_both_ways),
]
LAST: list[Case] = [
    Case("short_connections", "thousands of short connections: each gets its answer", short_connections),
]
