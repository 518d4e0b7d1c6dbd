"""Cases about resets: each must arrive as a reset, behind every byte the relay had acknowledged before it."""

from __future__ import annotations

import trio

from wfpstream.torture._arena import Arena, Side
from wfpstream.torture._case import SMALL, Case, both_sides, judge_bytes, judge_end, transfer, warm_up
from wfpstream.torture._records import Judge

_AT_ONCE = 64 * 1024
_UNREAD = 128 * 1024
_ENDLESS = 1 << 30


async def reset_when_idle(arena: Arena, judge: Judge, by: Side) -> None:
    """A reset with nothing under way."""
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        near, far = pair.sides(by)
        near.reset()
        await far.receive()
        judge_end(judge, far, SMALL, "reset")


async def reset_after_data(arena: Arena, judge: Judge, by: Side) -> None:
    """A reset right behind data, to a reader who reads."""
    for _ in range(arena.profile.rounds):
        async with arena.pair() as pair:
            await warm_up(judge, pair)
            near, far = pair.sides(by)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(far.receive)
                await near.send(_AT_ONCE)
                owed = await near.accepted()
                near.reset()
            judge_end(judge, far, owed, "reset", near.sent)


async def reset_with_data_owed(arena: Arena, judge: Judge, by: Side) -> None:
    """A reset behind data nobody has read yet: the relay accepted it, and owes it."""
    for _ in range(arena.profile.rounds):
        async with arena.pair() as pair:
            await warm_up(judge, pair)
            near, far = pair.sides(by)
            await near.send(_UNREAD)
            owed = await near.accepted()
            near.reset()
            await trio.sleep(0.02)
            await far.receive()
            judge_end(judge, far, owed, "reset", near.sent)


async def reset_in_bulk(arena: Arena, judge: Judge, by: Side) -> None:
    """A reset while both directions are full."""
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        near, far = pair.sides(by)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.receive)
            nursery.start_soon(far.flood, _ENDLESS, arena.profile.patience)
            async with trio.open_nursery() as reading:
                reading.start_soon(near.receive)
                await near.send(arena.profile.owed)
                reading.cancel_scope.cancel()
            owed = near.sent - near.unacknowledged()
            near.reset()
        judge_end(judge, far, owed, "reset", near.sent)
        judge_bytes(judge, near, 0, far.sent)


async def reset_after_own_fin(arena: Arena, judge: Judge, by: Side) -> None:
    """First FIN, then a reset: the other end, which still may answer, learns that nobody will read it."""
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        near, far = pair.sides(by)
        await transfer(near, far, _AT_ONCE, fin=True)
        judge_end(judge, far, SMALL + _AT_ONCE, "fin")
        near.reset()
        if not await far.is_reset_soon():
            judge.distorted(f"the reset behind the FIN never reached the {far.name}")


async def reset_after_other_fin(arena: Arena, judge: Judge, by: Side) -> None:
    """The answer to a half-closed request is cut off by a reset."""
    async with arena.pair() as pair:
        await warm_up(judge, pair)
        near, far = pair.sides(by)
        await transfer(far, near, _AT_ONCE, fin=True)
        judge_end(judge, near, SMALL + _AT_ONCE, "fin")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(far.receive)
            await near.send(_AT_ONCE)
            owed = await near.accepted()
            near.reset()
        judge_end(judge, far, owed, "reset", near.sent)


CASES: list[Case] = [
    *both_sides(
        "reset_when_idle", "{by} resets, nothing is under way: {other} gets a reset", reset_when_idle
    ),
    *both_sides(
        "reset_after_data",
        "{by} sends, waits for the acknowledgement and resets while {other} reads, many times: "
        "all acknowledged bytes, then a reset",
        reset_after_data,
    ),
    *both_sides(
        "reset_with_data_owed",
        "{by} sends, waits for the acknowledgement and resets before {other} reads, many times: "
        "all acknowledged bytes, then a reset",
        reset_with_data_owed,
    ),
    *both_sides(
        "reset_in_bulk",
        "{by} resets while both directions are full: all acknowledged bytes, then a reset",
        reset_in_bulk,
    ),
    *both_sides(
        "reset_after_own_fin",
        "{by} half-closes, {other} reads the FIN, {by} resets: {other} gets a reset",
        reset_after_own_fin,
    ),
    *both_sides(
        "reset_after_other_fin",
        "{other} half-closes, {by} answers and resets: the FIN, all acknowledged bytes, then a reset",
        reset_after_other_fin,
    ),
]
