"""Cases about orderly ends: half-closing, closing with data under way, closing at the same time."""

from __future__ import annotations

import trio

from wfpstream.torture._arena import Arena, Side
from wfpstream.torture._case import SMALL, Case, both_sides, judge_bytes, judge_end, transfer, warm_up
from wfpstream.torture._end import End
from wfpstream.torture._records import MIB, Judge

_REQUEST = 64 * 1024
_ANSWER = 256 * 1024
_SWALLOWED = 16 * MIB


async def half_close(arena: Arena, judge: Judge, by: Side) -> None:
    """A request that ends with FIN, and an answer that comes later."""
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        near, far = pair.sides(by)
        await transfer(near, far, _REQUEST, fin=True)
        await trio.sleep(arena.profile.pause)
        await transfer(far, near, _ANSWER, fin=True)
        judge_end(judge, far, near.sent, "fin")
        judge_end(judge, near, SMALL + _ANSWER, "fin")


async def fin_with_data_owed(arena: Arena, judge: Judge, by: Side) -> None:
    """A FIN behind more than the reader has taken, and the reader takes its time."""
    owed = arena.profile.owed
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        near, far = pair.sides(by)
        await _send_to_late_reader(near, far, owed, near.fin)
        await transfer(far, near, SMALL, fin=True)
        judge_end(judge, far, SMALL + owed, "fin")
        judge_end(judge, near, 2 * SMALL, "fin")


async def close_with_data_owed(arena: Arena, judge: Judge, by: Side) -> None:
    """As a program that writes its answer, closes and exits."""
    owed = arena.profile.owed
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        near, far = pair.sides(by)
        await _send_to_late_reader(near, far, owed, near.close)
        judge_end(judge, far, SMALL + owed, "fin")


async def _send_to_late_reader(near: End, far: End, count: int, end: object) -> None:
    async def send() -> None:
        await near.send(count)
        assert callable(end)
        end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await trio.sleep(0.3)
        await far.receive(step=16 * 1024, delay=0.0005)


async def write_after_close(arena: Arena, judge: Judge, by: Side) -> None:
    """Who goes on writing to somebody who has closed must be told, as TCP tells by a reset."""
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        near, far = pair.sides(by)
        near.close()
        await far.receive()
        judge_end(judge, far, SMALL, "fin")
        with trio.move_on_after(arena.profile.patience):
            while not far.cut and far.sent < _SWALLOWED:
                await far.send(16 * 1024)
                await trio.sleep(0.002)
        if not far.cut:
            judge.distorted(
                f"the {far.name} could go on writing after the {near.name} had closed, and was never told"
            )


async def simultaneous_close(arena: Arena, judge: Judge) -> None:
    """Both ends send and close in the same moment."""
    for _ in range(arena.profile.rounds):
        async with arena.pair() as pair:
            await warm_up(judge, pair)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send_and_end, pair.client)
                nursery.start_soon(_send_and_end, pair.server)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pair.client.receive)
                nursery.start_soon(pair.server.receive)
            for end in (pair.client, pair.server):
                judge_end(judge, end, SMALL + _REQUEST // 4, "fin")


async def _send_and_end(end: End) -> None:
    await end.send(_REQUEST // 4)
    end.fin()


async def idle(arena: Arena, judge: Judge) -> None:
    """Silence, and then bytes again, both ways."""
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        await trio.sleep(arena.profile.pause)
        await transfer(pair.client, pair.server, SMALL)
        await transfer(pair.server, pair.client, SMALL)
        for end in (pair.client, pair.server):
            judge_bytes(judge, end, 2 * SMALL, 2 * SMALL)
            if end.ended:
                judge.distorted(f"the {end.name}'s connection ended while nobody ended it")


CASES: list[Case] = [
    *both_sides(
        "half_close",
        "{by} sends and half-closes, {other} answers after a pause and half-closes: all bytes, both FINs",
        half_close,
    ),
    *both_sides(
        "fin_with_data_owed",
        "{by} sends and half-closes, {other} reads late and slowly, then answers: all bytes, both FINs",
        fin_with_data_owed,
    ),
    *both_sides(
        "close_with_data_owed",
        "{by} sends and closes both directions, {other} reads late and slowly: all bytes, then FIN",
        close_with_data_owed,
    ),
    *both_sides(
        "write_after_close",
        "{by} closes both directions, {other} reads the FIN and goes on writing: it is told by a reset",
        write_after_close,
    ),
    Case(
        "simultaneous_close",
        "both ends send and half-close at the same moment, many times: all bytes, both FINs",
        simultaneous_close,
    ),
    Case("idle", "nothing is sent for a pause, then a few bytes each way: they arrive, nothing ends", idle),
]
