"""Making a case smaller while it still shows its problem.

Owns what is simpler than what: fewer things different, fewer cuts, shorter streams. hypothesis has shrunk what it found
already; this goes on where it cannot, and does the whole of it for cases that were found in order. It must not know
how a case is judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from wfpstream.testing._api_faults import CallSite

from ._judge import Problem
from ._samples import SIDES, Said, Sample
from ._trials import Found, Trials
from ._variation import Broken, Variation, pieces_of

T = TypeVar("T")

# Cases played to make one smaller; more would hardly be worth the wait.
_BUDGET = 400


def smaller(trials: Trials, found: Found) -> Found:
    """The smallest case found that shows the same problem."""
    return _Shrinking(trials, found).run()


class _Shrinking:
    def __init__(self, trials: Trials, found: Found) -> None:
        self._trials = trials
        self._best = found
        self._tried: set[Variation] = {found.variation}
        self._sites: list[CallSite] = []
        if found.variation.fails:
            calls = trials.calls_of(found.variation)
            self._sites = [calls[number] for number in found.variation.fails if number < len(calls)]

    def run(self) -> Found:
        """As long as something smaller does it."""
        while any(self._does(candidate) for candidate in _simpler(self._best.variation)):
            pass
        return self._best

    def _does(self, candidate: Variation) -> bool:
        """Does it show the same problem? Then it is the best so far."""
        if candidate in self._tried or len(self._tried) > _BUDGET:
            return False
        if candidate.local not in self._trials.question.locals:
            return False
        self._tried.add(candidate)
        if candidate.fails and candidate.fails == self._best.variation.fails:
            # In a smaller case the same call has another number.
            moved = self._trials.failing_at(candidate, self._sites)
            if moved is not None and moved not in self._tried and self._does(moved):
                return True
        same = _same_problem(self._trials.problems(candidate), self._best.problem)
        if same is not None:
            self._best = Found(same, candidate)
        return same is not None


def _same_problem(problems: Sequence[Problem], wanted: Problem) -> Problem | None:
    return next((each for each in problems if each.key == wanted.key), None)


def _simpler(variation: Variation) -> Iterator[Variation]:
    """Cases simpler than this one, the much simpler ones first."""
    yield variation.plain()
    for name in variation.different:
        if name not in ("stop", "cuts"):
            yield variation.without(name)
    if variation.sample.free:
        yield from _fewer_turns(variation)
    yield from _shorter(variation)
    for index in range(2):
        for cuts in _fewer(variation.cuts[index]):
            yield replace(variation, cuts=_with(variation.cuts, index, cuts))
    yield from _simpler_values(variation)
    if variation.sample.free:
        yield from _shorter_turns(variation)


def _simpler_values(variation: Variation) -> Iterator[Variation]:
    """One value of a dimension made simpler."""
    if variation.holds:
        yield replace(variation, holds=(), workers="early")
        yield replace(variation, holds=(), workers="late")
        yield from (replace(variation, holds=holds) for holds in _fewer(variation.holds))
    yield from (replace(variation, fails=calls) for calls in _fewer(variation.fails))
    yield from (replace(variation, preempt=calls) for calls in _fewer(variation.preempt))
    yield from (replace(variation, order=order) for order in _fewer(variation.order))
    if variation.held_at_most is not None and variation.held_at_most > 1:
        yield replace(variation, held_at_most=1)
    for index in range(2):
        if variation.windows[index] is not None:
            yield replace(variation, windows=_with(variation.windows, index, None))
    if variation.broken is not None:
        for pieces in range(variation.broken.pieces):
            yield replace(variation, broken=Broken(pieces, variation.broken.by))


def _shorter(variation: Variation) -> Iterator[Variation]:
    """The FIN of a side earlier: at once, or by a half, a quarter, an eighth, a byte; later cuts go with it."""
    for index, side in enumerate(SIDES):
        length = len(variation.input(side))
        for stop in sorted({0, length // 2, length - length // 4, length - length // 8, length - 1}):
            if 0 <= stop < length or (stop == 0 and variation.stop[index] is None):
                cuts = tuple(at for at in variation.cuts[index] if at < stop)
                yield replace(
                    variation,
                    stop=_with(variation.stop, index, stop),
                    cuts=_with(variation.cuts, index, cuts),
                )


def _fewer(items: tuple[T, ...]) -> Iterator[tuple[T, ...]]:
    """None of them, one half, then one less."""
    if not items:
        return
    yield ()
    half = len(items) // 2
    if half > 1:
        yield items[:half]
        yield items[half:]
    for place in range(len(items)):
        yield items[:place] + items[place + 1 :]


def _with(pair: tuple[T, T], index: int, value: T) -> tuple[T, T]:
    return (value, pair[1]) if index == 0 else (pair[0], value)


def _fewer_turns(variation: Variation) -> Iterator[Variation]:
    """Turns left out; cuts and FINs stay at the bytes where they are."""
    said = variation.sample.said
    yield from (_without_turns(variation, range(a, b)) for a, b in _spans(len(said)))


def _spans(length: int) -> Iterator[tuple[int, int]]:
    """Halves, quarters, single ones."""
    for parts in (2, 4):
        if length >= 2 * parts:
            yield from ((length * i // parts, length * (i + 1) // parts) for i in range(parts))
    yield from ((i, i + 1) for i in range(length))


def _without_turns(variation: Variation, places: range) -> Variation:
    for place in reversed(places):
        variation = _with_less_of(variation, place, 0, len(variation.sample.said[place].data), whole=True)
    return variation


def _shorter_turns(variation: Variation) -> Iterator[Variation]:
    """Bytes left out, at the beginning or the end of a turn."""
    for place, turn in enumerate(variation.sample.said):
        length = len(turn.data)
        for count in sorted({length // 2, length // 4, 1}, reverse=True):
            if 0 < count < length:
                yield _with_less_of(variation, place, 0, count)
                yield _with_less_of(variation, place, length - count, count)


def _with_less_of(variation: Variation, place: int, start: int, count: int, whole: bool = False) -> Variation:
    """Without `count` bytes of a turn, or without the turn."""
    said = variation.sample.said
    turn = said[place]
    index = SIDES.index(turn.by)
    begin = start + sum(len(each.data) for each in said[:place] if each.by == turn.by)

    def moved(at: int) -> int:
        return at - min(count, max(0, at - begin))

    rest = turn.data[:start] + turn.data[start + count :]
    left = () if whole else (Said(turn.by, rest, turn.end),)
    sample = Sample((*said[:place], *left, *said[place + 1 :]), variation.sample.name, free=True)
    stop = variation.stop[index]
    shorter = replace(
        variation,
        sample=sample,
        stop=_with(variation.stop, index, None if stop is None else moved(stop)),
        cuts=_with(variation.cuts, index, tuple(sorted({moved(at) for at in variation.cuts[index]} - {0}))),
    )
    if shorter.broken is None:
        return shorter
    most = len(pieces_of(replace(shorter, broken=None)))
    return replace(shorter, broken=Broken(min(shorter.broken.pieces, most), shorter.broken.by))
