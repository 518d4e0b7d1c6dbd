"""What is checked, and playing its cases against what the plain way gives.

Owns the question, and the outcomes that others are compared with. It must not know which cases are tried, nor how a
case becomes smaller.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wfpstream.engine import EngineOptions
from wfpstream.testing._api_faults import CallSite
from wfpstream.testing._canonical import canonical, canonical_diff
from wfpstream.testing._world import Side

from ._judge import Expected, Problem, Severities, problems_of
from ._play import Make, Played, play
from ._samples import SIDES, Sample
from ._variation import Variation


@dataclass(frozen=True, slots=True)
class Question:
    """What is checked, and against what.

    Attributes:
        make: makes the callouts anew.
        samples: what the two sides say.
        options: engine options that cases do not set.
        expected: what should arrive of a direction's bytes, if anyone knows.
        depends: members of `DEPENDENCES` on which the output may depend.
        severities: which violations count.
        repeat_fin: also indicate a FIN twice.
        api_failures: also make API calls fail.
        answers: what `Worker.call(fn, ...)` gets, by `fn`.
        locals: the sides that are the local host, one after the other.
    """

    make: Make
    samples: Sequence[Sample]
    options: EngineOptions
    expected: Expected | None = None
    depends: frozenset[str] = frozenset()
    severities: Severities = field(default_factory=Severities)
    repeat_fin: bool = False
    api_failures: bool = True
    answers: Mapping[Any, Any] = field(default_factory=dict)
    locals: Sequence[Side] = SIDES


@dataclass(slots=True)
class Found:
    """A problem and the smallest case known to show it."""

    problem: Problem
    variation: Variation


class Trials:
    """Plays cases, and remembers the plain outcomes they are compared with.

    Attributes:
        runs: cases played.
        sites: call sites met while calls were made to fail.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.runs = 0
        self.sites: set[CallSite] = set()
        self._plain: dict[Variation, Played] = {}

    def problems(self, variation: Variation) -> list[Problem]:
        """What is wrong with a case."""
        question = self.question
        plain = variation.plain(self.question.depends)
        reference = self._plain_outcome(plain)
        played = reference if variation == plain else self.play(variation)
        return problems_of(
            variation,
            played,
            None if variation == plain else reference,
            question.expected,
            question.severities,
        )

    def unsteady(self, variation: Variation) -> bool:
        """The same case twice, and not the same outcome."""
        first = self._plain_outcome(variation.plain(self.question.depends))
        second = self.play(variation.plain(self.question.depends))
        return first.ends != second.ends

    def logs_differ(self, variation: Variation) -> str:
        """Where the canonical log of a case (IND-26) differs first from that of the plain way; "" if nowhere."""
        plain = variation.plain(self.question.depends)
        logs = [canonical(self.play(each, trace=True).events) for each in (plain, variation)]
        return canonical_diff(*logs)

    def calls_of(self, variation: Variation) -> list[CallSite]:
        """The call sites of the API calls made in a case, call by call."""
        if not self.question.api_failures:
            return []
        calls = self.play(variation, watch_calls=True).calls
        found = calls.sites if calls is not None else []
        self.sites.update(found)
        return found

    def failing_at(self, variation: Variation, sites: Sequence[CallSite]) -> Variation | None:
        """A case with the first call at each of these sites failing, one after the other; None: one is not reached."""
        failing = replace(variation, fails=())
        for site in sites:
            calls = self.calls_of(failing)
            if site not in calls:
                return None
            failing = replace(failing, fails=(*failing.fails, calls.index(site)))
        return failing

    def _plain_outcome(self, plain: Variation) -> Played:
        outcome = self._plain.get(plain)
        if outcome is None:
            outcome = self._plain[plain] = self.play(plain)
        return outcome

    def play(self, variation: Variation, **how: bool) -> Played:
        """Play a case; `how` as for `play`."""
        self.runs += 1
        question = self.question
        return play(question.make, variation, question.options, answers=question.answers, **how)
