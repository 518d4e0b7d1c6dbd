"""The cases that are tried: the simple ones in order, smallest first, then mixtures by chance.

Owns what is tried and when it is enough. It must not know how a case is judged, made smaller or shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from wfpstream.testing._api_faults import CallSite

from ._judge import Problem
from ._limit import comes_to_the_limit
from ._mixtures import try_mixtures
from ._samples import SIDES, Sample
from ._shrink import smaller
from ._trials import Found, Question, Trials
from ._variation import Broken, Variation, pieces_of

# Streams up to this many bytes are cut at every place; longer ones at places spread over them.
_EVERY_PLACE = 64
_MOST_PIECES = 128

# So many calls failing in a row: what was used up does not come back.
_FOR_GOOD = 40


# So many bytes are held before the limit is reached, that samples come to it.
_HELD_AT_MOST = (3, 1, 8)

Key = tuple[str, str, str]


def search(trials: Trials, effort: int, seed: int, most: int) -> list[Found]:
    """Try cases, and make each that shows something new as small as possible.

    Args:
        trials: plays them.
        effort: how many cases to play, about; making a found one smaller comes on top.
        seed: of the mixtures.
        most: problems after which it is enough.
    """
    found: dict[Key, Found] = {}
    for sample in trials.question.samples:
        if trials.unsteady(Variation(sample, trials.question.locals[0])):
            what = "the same case twice, and not the same output: seed what is random, use the engine's clock"
            return [Found(Problem("output", "", what), Variation(sample))]
    spent = 0
    for variation in simple_cases(trials, effort // 3):
        if spent >= effort:
            break
        spent += 1
        for problem in trials.problems(variation):
            if problem.key not in found:
                found[problem.key] = smaller(trials, Found(problem, variation))
            if len(found) >= most:
                return list(found.values())
    for new in try_mixtures(trials, max(effort // 2, effort - spent), seed, set(found)):
        found.setdefault(new.problem.key, smaller(trials, new))
        if len(found) >= most:
            break
    return list(found.values())


def simple_cases(trials: Trials, places: int) -> Iterator[Variation]:
    """The samples, then cases with one thing different, of every kind in turn.

    Args:
        trials: plays them.
        places: about how many single cuts, FINs and resets to try.
    """
    question = trials.question
    roots = [Variation(sample, local=local) for sample in question.samples for local in question.locals]
    share = max(4, places // max(1, len(roots)))
    yield from roots
    bytewise = [replace(root, cuts=everywhere(root.sample)) for root in roots]
    yield from bytewise
    yield from _in_turn(
        _with_one_mode(roots, question),
        _in_turn(*(_with_one_cut(root, share) for root in roots)),
        _with_one_mode(bytewise, question),
        _in_turn(*(_with_another_end(root, share) for root in roots)),
        failing_calls(trials),
        _at_the_limit([*roots, *bytewise], question),
    )


def _in_turn(*many: Iterable[Variation]) -> Iterator[Variation]:
    """One of each, round after round."""
    left = deque(iter(each) for each in many)
    while left:
        first = left.popleft()
        following = next(first, None)
        if following is not None:
            yield following
            left.append(first)


def everywhere(sample: Sample, step: int = 1) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Cuts every `step` bytes, as far as that is few enough to be played."""
    client, server = (_spread(len(sample.stream(side)), step) for side in SIDES)
    return client, server


def _spread(length: int, step: int) -> tuple[int, ...]:
    return tuple(range(step, min(length, _MOST_PIECES * step), step))


_MODES: tuple[dict[str, Any], ...] = (
    {"workers": "late"},
    {"connections": 2},
    {"early_completion": True},
    {"need_more": "additional"},
    {"workers": "early"},
    {"windows": (3, 3)},
    {"queued_delivery": True},
    {"order": (True,) * 8},
    {"pause": 1.0},
    {"merged": True},
    {"mdls": 2},
    {"early_completion": True, "workers": "late"},
)


def _with_one_mode(roots: Sequence[Variation], question: Question) -> Iterator[Variation]:
    """Every root in every mode; the first few of them have many different ones of both."""
    modes = (*_MODES, {"repeat_fin": True}) if question.repeat_fin else _MODES
    for first in range(len(modes)):
        for place, root in enumerate(roots):
            yield replace(root, **modes[(first + place) % len(modes)])


def _at_the_limit(roots: Sequence[Variation], question: Question) -> Iterator[Variation]:
    """Every root with little room for what is waited on, if the callout comes to the limit at all."""
    if comes_to_the_limit(question):
        yield from (replace(root, held_at_most=most) for most in _HELD_AT_MOST for root in roots)


def _with_one_cut(root: Variation, share: int) -> Iterator[Variation]:
    for index, side in enumerate(SIDES):
        for at in _places(len(root.sample.stream(side)), share):
            yield replace(root, cuts=((at,), ()) if index == 0 else ((), (at,)))


def _with_another_end(root: Variation, share: int) -> Iterator[Variation]:
    yield from _in_turn(_ended_early(root, share), _broken_off(root, share))


def _ended_early(root: Variation, share: int) -> Iterator[Variation]:
    for index, side in enumerate(SIDES):
        for at in (0, *_places(len(root.sample.stream(side)), share)):
            yield replace(root, stop=(at, None) if index == 0 else (None, at))


def _broken_off(root: Variation, share: int) -> Iterator[Variation]:
    pieces = len(pieces_of(root))
    for count in reversed(_places(pieces + 1, share // 2)):
        for by in (*SIDES, None):
            yield replace(root, broken=Broken(count, by), workers="late")
            yield replace(root, broken=Broken(count, by))


def _places(length: int, limit: int) -> Sequence[int]:
    """Places inside, all of them if there are few enough."""
    if length - 1 <= max(limit, 1) or length <= min(_EVERY_PLACE, limit):
        return range(1, length)
    step = (length - 1) / limit
    return sorted({1 + int(i * step) for i in range(limit)})


def failing_calls(trials: Trials) -> Iterator[Variation]:
    """Cases in which an API call fails, alone and with those behind it: for each call site, and for those that only an
    error path reaches.

    The samples are played whole and cut everywhere, so that also calls at borders are made.
    """
    known: set[CallSite] = set()
    for sample in trials.question.samples:
        for local in trials.question.locals:
            root = Variation(sample, local=local)
            for case in (root, replace(root, cuts=everywhere(sample, 2))):
                yield from _failing_one_more(trials, case, known)


def _failing_one_more(trials: Trials, case: Variation, known: set[CallSite]) -> Iterator[Variation]:
    untried = deque([case])
    while untried:
        case = untried.popleft()
        for number, site in enumerate(trials.calls_of(case)):
            if site not in known:
                known.add(site)
                failing = replace(case, fails=(*case.fails, number))
                yield failing
                yield replace(case, fails=(*case.fails, *range(number, number + _FOR_GOOD)))
                untried.append(failing)
