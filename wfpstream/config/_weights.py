"""Weights of the sublayers of the short form: in order, with gaps, and kept where they were.

Owns the bands of weights and how a place is found in them. It must not know what the sublayers are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

KeyT = TypeVar("KeyT")

STEP = 16


class NoRoom(Exception):
    """There are more sublayers than weights."""


@dataclass(frozen=True, slots=True)
class Band:
    """Weights from `lowest` to `highest`; the first ones are given from `start` down, `step` apart if possible."""

    highest: int
    start: int
    lowest: int
    step: int


# --callout is asked before rules added by hand, those before [[rule]]; a [[sublayer]] says its own weight.
COMMAND_LINE = Band(0xFFFF, 0xFFFF, 0xF000, 1)
BY_HAND = Band(0xEFFF, 0xEFFF, 0xE800, 1)
RULES = Band(0xE7FF, 0xDFFF, 0, STEP)
# The part of RULES that is used as long as there are not very many.
_USUAL_ROOM = 0x4000


def place(
    order: Sequence[KeyT], known: Mapping[KeyT, int], taken: Collection[int], band: Band
) -> dict[KeyT, int]:
    """Find a weight for everything in `order`, the heaviest first.

    What has a weight keeps it, unless its place among the others has changed, or there is no gap for what is new
    beside it.

    Args:
        order: what is to be asked first, then second, ...
        known: the weights of what was there before.
        taken: weights that others have.
        band: where the weights are.

    Raises:
        NoRoom: the band is too small.
    """
    blocked = set(taken)
    weights = [known.get(one) for one in order]
    in_place = _longest_descent([None if weight in blocked else weight for weight in weights])
    kept: list[int | None] = [weight if at in in_place else None for at, weight in enumerate(weights)]
    at = 0
    while at < len(kept):
        if kept[at] is None:
            at = _fill(kept, at, blocked, band)
        at += 1
    return {one: weight for one, weight in zip(order, kept, strict=True) if weight is not None}


def _longest_descent(weights: Sequence[int | None]) -> set[int]:
    """The positions of a longest strictly descending subsequence; None is in no such sequence."""
    ends: list[int] = []  # negated weights: the last one of the best sequence of each length
    at_end: list[int] = []
    before: dict[int, int] = {}
    for at, weight in enumerate(weights):
        if weight is None:
            continue
        length = bisect_left(ends, -weight)
        if length:
            before[at] = at_end[length - 1]
        ends[length:] = [-weight, *ends[length + 1 :]]
        at_end[length:] = [at, *at_end[length + 1 :]]
    found: set[int] = set()
    last = at_end[-1] if at_end else None
    while last is not None:
        found.add(last)
        last = before.get(last)
    return found


def _fill(kept: list[int | None], at: int, blocked: set[int], band: Band) -> int:
    """Give weights to the run of new ones at `at`, moving neighbours if need be; where the run ends."""
    first = last = at
    while last + 1 < len(kept) and kept[last + 1] is None:
        last += 1
    down = is_widened = False
    while True:
        above = kept[first - 1] if first else None
        below = kept[last + 1] if last + 1 < len(kept) else None
        count, is_everything = last - first + 1, above is None and below is None
        room = _room(above, below, blocked, band)
        # Where something has to move anyway, it makes room for more than the next one.
        if len(room) >= (2 * count if is_widened and not is_everything else count):
            break
        if is_everything:
            raise NoRoom
        down, is_widened = not down, True
        if below is not None and (down or above is None):
            last += 1
        else:
            first -= 1
        while last + 1 < len(kept) and kept[last + 1] is None:
            last += 1
    kept[first : last + 1] = _spread(room, count, above is None, below is None, band)
    return last


def _room(above: int | None, below: int | None, blocked: set[int], band: Band) -> list[int]:
    """The free weights between two neighbours, the heaviest first."""
    highest = band.highest if above is None else above - 1
    lowest = band.lowest if below is None else below + 1
    if above is None and below is None:
        highest = min(highest, band.start)
    return [weight for weight in range(highest, lowest - 1, -1) if weight not in blocked]


def _spread(room: list[int], count: int, is_first: bool, is_last: bool, band: Band) -> list[int]:
    """`count` of the free weights: a step apart beside a neighbour or the start, evenly in a gap."""
    if is_first and is_last:
        step = max(1, min(band.step, _USUAL_ROOM // count, len(room) // count))
        return room[: count * step : step]
    step = min(band.step, len(room) // (count + 1))
    if step and is_last:
        return room[step - 1 : count * step : step]
    if step and is_first:
        return room[len(room) - count * step :: step]
    return [room[(2 * at + 1) * len(room) // (2 * count)] for at in range(count)]
