"""The suite: every case, one after the other, each in connections of its own."""

from __future__ import annotations

from collections.abc import Callable, Collection

import trio

from wfpstream.torture._arena import Address, Arena, NoConnection, open_arena
from wfpstream.torture._case import Case
from wfpstream.torture._closing import CASES as CLOSING
from wfpstream.torture._moving import CASES as MOVING
from wfpstream.torture._moving import FIRST, LAST
from wfpstream.torture._records import FULL, CaseResult, Judge, Profile, TortureError
from wfpstream.torture._resetting import CASES as RESETTING
from wfpstream.torture._upstreams import CASES as UPSTREAMS

CASES: tuple[Case, ...] = (*FIRST, *CLOSING, *RESETTING, *MOVING, *UPSTREAMS, *LAST)


def list_cases() -> list[tuple[str, str]]:
    """(name, what is done and what must arrive) of every case, in the order they run in."""
    return [(case.name, case.title) for case in CASES]


async def torture(
    relay: Address,
    upstream: Address,
    *,
    profile: Profile = FULL,
    only: Collection[str] = (),
    on_result: Callable[[CaseResult], None] | None = None,
) -> list[CaseResult]:
    """Try a relay from both of its sides.

    Args:
        relay: (host, port) where it listens.
        upstream: (host, port) it connects to; we listen there.
        profile: how much is asked of it.
        only: names of cases; a name without its `_by_…` means both. Empty: all.
        on_result: told of each case as it ends.

    Returns:
        The results, in the order of the cases.

    Raises:
        TortureError: a case does not exist, the upstream's address cannot be had, or nothing listens at `relay`.
    """
    chosen = choose_cases(only)
    results = []
    async with open_arena(relay, upstream, profile) as arena:
        await _probe(arena)
        for case in chosen:
            result = await _try(case, arena)
            results.append(result)
            if on_result is not None:
                on_result(result)
    return results


def choose_cases(only: Collection[str]) -> list[Case]:
    """The cases of these names, all if there are none.

    Raises:
        TortureError: one does not exist.
    """
    chosen = [case for case in CASES if not only or {case.name, case.name.partition("_by_")[0]} & set(only)]
    known = {name for case in CASES for name in (case.name, case.name.partition("_by_")[0])}
    for name in only:
        if name not in known:
            raise TortureError(
                f"there is no case {name!r}; there are {', '.join(case.name for case in CASES)}"
            )
    return chosen


async def _probe(arena: Arena) -> None:
    try:
        async with arena.client():
            pass
    except NoConnection as error:
        raise TortureError(str(error)) from error


async def _try(case: Case, arena: Arena) -> CaseResult:
    judge = Judge()
    start = trio.current_time()
    with trio.move_on_after(arena.profile.limit) as limit:
        try:
            await case.run(arena, judge)
        except NoConnection as error:
            judge.failed(str(error))
        except OSError as error:
            judge.failed(f"the connection broke: {(error.strerror or str(error)).lower()}")
        except BaseExceptionGroup as errors:
            _, others = errors.split((NoConnection, OSError))
            if others is not None:
                raise
            judge.failed("a connection broke")
    if limit.cancelled_caught:
        judge.failed(f"not over within {arena.profile.limit:g} s")
    seconds = round(trio.current_time() - start, 2)
    return CaseResult(case.name, judge.verdict, tuple(judge.findings), judge.facts, seconds)
