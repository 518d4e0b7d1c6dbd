"""Cases by chance: hypothesis draws mixtures of everything a case can have, and shrinks what shows something new.

Owns the strategies. It must not know what a problem is; only this file needs hypothesis, and imports it when asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._samples import SIDES, Sample
from ._trials import Found, Question, Trials
from ._variation import Broken, Variation, pieces_of

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

Key = tuple[str, str, str]

_MOST_CUTS = 12


class HypothesisMissing(RuntimeError):
    """hypothesis is not installed."""

    def __init__(self) -> None:
        super().__init__("checking a callout needs hypothesis: pip install 'wfpstream[test]'")


def require_hypothesis() -> None:
    """Raises HypothesisMissing if it cannot be imported."""
    try:
        import hypothesis  # noqa: F401
    except ImportError:
        raise HypothesisMissing from None


def try_mixtures(trials: Trials, effort: int, seed: int, known: set[Key]) -> Iterator[Found]:
    """Draw cases until nothing new was shown by `effort` of them; each new problem comes once, shrunk.

    Args:
        trials: plays them.
        effort: cases to draw.
        seed: same seed, same cases.
        known: problems that are found already; those found here are added.
    """
    while effort > 0:
        hunt = _Hunt(trials, known, effort)
        hunt.run(seed)
        if hunt.best is None:
            return
        known.add(hunt.best.problem.key)
        effort -= hunt.drawn
        seed += 1
        yield hunt.best


class _ShowsSomething(Exception):
    """A case shows a problem that was not known."""


class _Hunt:
    """One search: it ends with the first new problem, and hypothesis makes that one smaller.

    Attributes:
        drawn: cases drawn before it was found.
        best: the last, hence smallest, case that showed it.
    """

    def __init__(self, trials: Trials, known: set[Key], effort: int) -> None:
        self.drawn = 0
        self.best: Found | None = None
        self._trials = trials
        self._known = known
        self._effort = effort
        self._shrinks = 0

    def run(self, seed: int) -> None:
        """Draw, and shrink."""
        import hypothesis as h

        settings = h.settings(
            max_examples=self._effort,
            database=None,
            deadline=None,
            phases=(h.Phase.generate, h.Phase.shrink),
            suppress_health_check=list(h.HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
            verbosity=h.Verbosity.quiet,
            derandomize=False,
        )
        test = h.seed(seed)(settings(h.given(variations(self._trials.question))(self._try_one)))
        try:
            test()
        except (_ShowsSomething, h.errors.Flaky):
            pass  # `best` has it; flaky: shrinking was given up

    def _try_one(self, variation: Variation) -> None:
        if self.best is None:
            self.drawn += 1
        else:
            self._shrinks += 1
            if self._shrinks > self._effort:
                return
        for problem in self._trials.problems(variation):
            if self.best is not None and problem.key != self.best.problem.key:
                continue
            if problem.key not in self._known:
                self.best = Found(problem, variation)
                raise _ShowsSomething


def variations(question: Question) -> SearchStrategy[Variation]:
    """Cases of a question; what is drawn first, and its first choices, are the simplest."""
    import hypothesis.strategies as st

    samples = list(question.samples)

    @st.composite
    def drawn(draw: DrawFn) -> Variation:
        sample: Sample = draw(st.sampled_from(samples))
        lengths = [len(sample.stream(side)) for side in SIDES]

        def places(length: int) -> tuple[int, ...]:
            if length < 2:
                return ()
            return tuple(sorted(draw(st.sets(st.integers(1, length - 1), max_size=_MOST_CUTS))))

        def rarely(strategy: SearchStrategy[Any], plain: Any) -> Any:
            return draw(strategy) if draw(st.integers(0, 3)) == 3 else plain

        cuts = (places(lengths[0]), places(lengths[1]))
        stop = tuple(rarely(st.integers(0, length), None) for length in lengths)
        plain = Variation(
            sample,
            local=draw(st.sampled_from(question.locals)),
            cuts=cuts,
            stop=(stop[0], stop[1]),
            merged=rarely(st.just(True), False),
            connections=rarely(st.just(2), 1),
            order=rarely(st.lists(st.booleans(), max_size=12).map(tuple), ()),
            windows=rarely(st.tuples(*[st.none() | st.integers(1, 20)] * 2), (None, None)),
            pause=rarely(st.sampled_from((0.001, 0.1, 10.0)), 0.0),
            need_more=rarely(st.just("additional"), "total"),
            early_completion=rarely(st.just(True), False),
            queued_delivery=rarely(st.just(True), False),
            mdls=rarely(st.integers(2, 4), 1),
            workers=draw(st.sampled_from(("normal", "early", "late"))),
            holds=rarely(st.lists(st.integers(0, 3), max_size=24).map(tuple), ()),
            preempt=rarely(st.sets(st.integers(0, 20), max_size=6).map(lambda s: tuple(sorted(s))), ()),
            fails=rarely(st.integers(0, 30).map(lambda n: (n,)), ()) if question.api_failures else (),
            repeat_fin=question.repeat_fin and draw(st.booleans()),
        )
        broken = rarely(
            st.tuples(st.integers(0, len(pieces_of(plain))), st.sampled_from((*SIDES, None))), None
        )
        if broken is None:
            return plain
        return replace(plain, broken=Broken(*broken))

    return drawn()
