"""What a case is, and what most of them do and judge alike.

Owns the sentences about bytes and ends, so that the same fault reads the same in every case. It must not know
which cases there are.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

import trio

from wfpstream.torture._arena import Arena, NoConnection, Pair, Side
from wfpstream.torture._end import End
from wfpstream.torture._records import Judge

Run = Callable[[Arena, Judge], Awaitable[None]]

SMALL = 1024


@dataclass(frozen=True, slots=True)
class Case:
    """One thing tried with a relay.

    Args:
        name: for `--only` and reports.
        title: what is done, and what must arrive.
        run: does it; what it finds goes to the judge.
    """

    name: str
    title: str
    run: Run


def both_sides(name: str, title: str, run: Callable[[Arena, Judge, Side], Awaitable[None]]) -> list[Case]:
    """The case begun by the client, and the one begun by the server; `title` speaks of `{by}` and `{other}`."""
    sides: list[tuple[Side, str]] = [("client", "server"), ("server", "client")]
    return [
        Case(f"{name}_by_{by}", title.format(by=f"the {by}", other=f"the {other}"), _begun_by(run, by))
        for by, other in sides
    ]


def _begun_by(run: Callable[[Arena, Judge, Side], Awaitable[None]], by: Side) -> Run:
    return lambda arena, judge: run(arena, judge, by)


async def transfer(sender: End, receiver: End, count: int, *, fin: bool = False) -> None:
    """Move `count` more bytes; with `fin` to the end of the stream."""
    goal = None if fin else receiver.received + count

    async def send() -> None:
        await sender.send(count)
        if fin:
            sender.fin()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receiver.receive, goal)


async def warm_up(judge: Judge, pair: Pair) -> None:
    """A few bytes each way: from here on the relay surely relays.

    Raises:
        NoConnection: they did not arrive.
    """
    for sender, receiver in (pair.sides("client"), pair.sides("server")):
        await transfer(sender, receiver, SMALL)
        if receiver.received != SMALL or receiver.wrong_at is not None:
            raise NoConnection(f"the first bytes did not reach the {receiver.name}")


def judge_end(
    judge: Judge, end: End, owed: int, ended: Literal["fin", "reset"], sent: int | None = None
) -> None:
    """Judge what an end received.

    Args:
        judge: takes it down.
        end: what is judged.
        owed: bytes that had to arrive.
        ended: how its stream had to end.
        sent: bytes that may have arrived; absent: those that had to.
    """
    judge_bytes(judge, end, owed, owed if sent is None else sent)
    if end.ended == ended:
        return
    if ended == "fin":
        if end.ended == "reset":
            judge.distorted(f"the {end.name} got a reset where the orderly end (FIN) belongs")
        else:
            judge.distorted(f"the end (FIN) never reached the {end.name}")
    elif end.ended == "fin":
        judge.distorted(f"the {end.name} got an orderly end (FIN) for a reset: a cut-off stream looks whole")
    else:
        judge.distorted(f"the reset never reached the {end.name}")


def judge_bytes(judge: Judge, end: End, owed: int, sent: int) -> None:
    """Judge how much arrived, and whether it is what was sent."""
    if end.wrong_at is not None:
        judge.lost(f"the {end.name} got other bytes than were sent, from byte {end.wrong_at} on")
    elif end.received < owed:
        missing = owed - end.received
        judge.lost(f"{missing} of {owed} bytes never reached the {end.name}")
    elif end.received > sent:
        judge.lost(f"the {end.name} got {end.received - sent} bytes that nobody sent")
