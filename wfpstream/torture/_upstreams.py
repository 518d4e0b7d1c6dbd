"""Cases about an upstream that is not as ready as the client: it accepts late, it refuses."""

from __future__ import annotations

import trio

from wfpstream.torture._arena import Arena, NoConnection
from wfpstream.torture._case import SMALL, Case, judge_end, transfer
from wfpstream.torture._records import Judge

_EARLY = 32 * 1024


async def late_accept(arena: Arena, judge: Judge) -> None:
    """The client has said everything and half-closed before the server accepts."""
    async with arena.shut_eyes(), arena.client() as (client, label):
        await client.send(_EARLY)
        client.fin()
        await trio.sleep(arena.profile.pause)
        arena.open_eyes()
        server = await arena.arrival(label)
        await server.receive()
        await transfer(server, client, SMALL, fin=True)
        judge_end(judge, server, _EARLY, "fin")
        judge_end(judge, client, SMALL, "fin")


async def refused(arena: Arena, judge: Judge) -> None:
    """Nobody listens upstream: the client must not take that for an empty answer, and later ones must pass."""
    start = trio.current_time()
    async with arena.refusing():
        try:
            async with arena.client() as (client, _):
                await client.receive()
        except NoConnection:
            client = None
    judge.facts["seconds"] = round(trio.current_time() - start, 2)
    if client is not None and client.ended == "fin":
        judge.distorted("a refused connection ended like an empty answer (FIN)")
    elif client is not None and not client.ended:
        judge.distorted(f"a refused connection was left open for {arena.profile.patience:g} s")
    await _is_back(arena, judge)


async def _is_back(arena: Arena, judge: Judge) -> None:
    for _ in range(2):
        try:
            async with arena.pair() as pair:
                await transfer(pair.client, pair.server, SMALL, fin=True)
                return
        except NoConnection:
            await trio.sleep(arena.profile.pause)
    judge.distorted("no connection came through any more when the upstream was back")


CASES: list[Case] = [
    Case(
        "late_accept",
        "the client sends and half-closes before the server accepts, which then answers: all bytes, both FINs",
        late_accept,
    ),
    Case(
        "refused",
        "the upstream refuses: the client is reset or refused, and is served again once the upstream is back",
        refused,
    ),
]
