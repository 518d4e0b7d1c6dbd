"""`check_callout`: does a callout keep the contract, and give the same bytes, however a stream reaches it?

Owns the public functions and what their arguments mean. Searching, playing and reporting are its neighbours'.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wfpstream.engine import EngineOptions
from wfpstream.fwps import VIOLATION_RULES, Callout
from wfpstream.testing._world import Side

from ._judge import Expected, severities_from
from ._mixtures import require_hypothesis
from ._play import Callouts, Make
from ._report import CheckReport, describe_failure
from ._samples import SIDES, SampleLike, sample_of, samples_of_words
from ._search import everywhere, search
from ._trials import Found, Question, Trials
from ._variation import DEPENDENCES, Variation, read_case

EFFORT = 300
MOST = 6


class CheckFailed(AssertionError):
    """A callout was found wanting; the text is the report.

    Attributes:
        report: what was found.
    """

    def __init__(self, report: CheckReport) -> None:
        super().__init__(f"\n{report}")
        self.report = report


def check_callout(
    callout: Callout | Sequence[Callout] | Callable[[], Callouts],
    samples: Sequence[SampleLike] = (),
    *,
    words: Collection[bytes] = (),
    expected: Expected | None = None,
    depends_on: Collection[str] | None = None,
    options: EngineOptions | None = None,
    effort: int = EFFORT,
    seed: int = 0,
    most: int = MOST,
    api_failures: bool = True,
    repeat_fin: bool = False,
    lint: bool = False,
    ignore: Collection[str] = (),
    answers: Mapping[Any, Any] | None = None,
    local: Side | None = None,
    case: str | None = None,
) -> CheckReport:
    """Run a callout over sample streams in every way they may come, and fail with the smallest case that goes wrong.

    Each sample is first played the plain way: as it is given, everything at once, workers right behind. Then it is cut,
    merged, ended early, reset, interleaved, slowed down, and the engine's freedoms are used: both readings of
    countBytesRequired, early completions, queued delivery, workers as early or as late as possible or at any moment in
    between. Whatever the way, both ends must get the bytes and ends of the plain way, and the verifier must find no
    error and no warning (VRF-1). Where the callout or a side resets the connection, what has arrived until then must be
    a beginning of it.

    Args:
        callout: a callout, several (asked in that order), or a function that makes them. It may also make a function
            that is given the engine, adds what it likes, and returns a function that takes it away again at the end,
            or None. Each run has its own: objects are copied, functions called again.
        samples: what the two sides say: `Sample`, `bytes` (both send them) or a pair (client, server). Without any:
            texts made of `words`, and plain ones.
        words: what the callout looks for.
        expected: `(direction, bytes sent) -> bytes that must arrive`; a callout that is always wrong in the same way is
            caught by nothing else. The direction is "to_upstream" or "to_client".
        depends_on: on what the output may depend besides the bytes: "cuts", "order" (of the two directions), "time".
            None: what the callouts say themselves in `output_depends_on`.
        options: engine options; those that a check varies are set by it.
        effort: how many cases to play, about. The default takes a few seconds.
        seed: of the mixtures: same seed, same cases.
        most: problems after which it is enough.
        api_failures: also make each API call fail, one call site after the other.
        repeat_fin: also indicate a FIN twice, which WFP does not promise never to do (IND-20).
        lint: lint findings count as well.
        ignore: rules ("V-19") that do not count, besides those the callouts break on purpose (`breaks_by_design`).
        answers: what `Worker.call(fn, ...)` gets, by `fn`: there is no event loop here.
        local: which side is the local host; None: first the client, then the server.
        case: play this case alone, as a report gives it.

    Returns:
        The report of a check that found nothing.

    Raises:
        CheckFailed: something is wrong.
        HypothesisMissing: hypothesis is not installed (extra `test`).
        TypeError: a sample or a callout that is none, or a callout that cannot be copied.
        ValueError: a case, a dependence, a side or a rule that is none.
    """
    report = examine_callout(
        callout,
        samples,
        words=words,
        expected=expected,
        depends_on=depends_on,
        options=options,
        effort=effort,
        seed=seed,
        most=most,
        api_failures=api_failures,
        repeat_fin=repeat_fin,
        lint=lint,
        ignore=ignore,
        answers=answers,
        local=local,
        case=case,
    )
    if not report.passed:
        raise CheckFailed(report)
    return report


def examine_callout(
    callout: Callout | Sequence[Callout] | Callable[[], Callouts],
    samples: Sequence[SampleLike] = (),
    *,
    words: Collection[bytes] = (),
    expected: Expected | None = None,
    depends_on: Collection[str] | None = None,
    options: EngineOptions | None = None,
    effort: int = EFFORT,
    seed: int = 0,
    most: int = MOST,
    api_failures: bool = True,
    repeat_fin: bool = False,
    lint: bool = False,
    ignore: Collection[str] = (),
    answers: Mapping[Any, Any] | None = None,
    local: Side | None = None,
    case: str | None = None,
) -> CheckReport:
    """`check_callout` that returns its report, whatever is in it."""
    require_hypothesis()
    make = _factory(callout)
    subject = _subject(make)
    listed = [sample_of(given, number) for number, given in enumerate(samples, 1)]
    if words or not listed:
        listed += samples_of_words(words)
    depends = subject.depends_on if depends_on is None else frozenset(depends_on)
    unknown = depends - DEPENDENCES.keys()
    if unknown:
        raise ValueError(f"depends_on: {min(unknown)!r} is none of {', '.join(sorted(DEPENDENCES))}")
    if local is not None and local not in SIDES:
        raise ValueError(f"local: {local!r} is none of {', '.join(SIDES)}")
    _refuse_unknown_rules("ignore", ignore)
    _refuse_unknown_rules(f"{subject.name}.breaks_by_design", subject.breaks_by_design)
    question = Question(
        make,
        tuple(listed),
        _watched(options),
        expected,
        depends,
        severities_from(lint, subject.breaks_by_design | frozenset(ignore)),
        repeat_fin,
        api_failures,
        answers or {},
        SIDES if local is None else (local,),
    )
    report = CheckReport(subject.name)
    if depends:
        report.notes.append(f"its output may depend on: {', '.join(sorted(depends))}")
    if subject.breaks_by_design:
        report.notes.append(f"it breaks on purpose: {', '.join(sorted(subject.breaks_by_design))}")
    trials = Trials(question)
    if case is not None:
        variation = read_case(case, listed)
        found = [Found(problem, variation) for problem in trials.problems(variation)]
    else:
        found = search(trials, effort, seed, most)
        if not found:
            report.same_log = _gives_same_log(trials, report)
    report.runs = trials.runs
    report.api_sites = len(trials.sites)
    report.failures = [describe_failure(trials, each, listed) for each in found]
    return report


def _refuse_unknown_rules(what: str, rules: Collection[str]) -> None:
    if isinstance(rules, str):
        raise TypeError(f"{what} is a collection of rules; write [{rules!r}]")
    for rule in rules:
        if rule not in VIOLATION_RULES:
            near = difflib.get_close_matches(str(rule), VIOLATION_RULES, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{what}: there is no rule {rule!r}{hint} (docs/reference/violations.md has them all)"
            )


def _gives_same_log(trials: Trials, report: CheckReport) -> bool:
    """Are the decisions the same wherever the stream is cut (IND-26)? If not, that is worth a note."""
    for sample in trials.question.samples:
        if trials.logs_differ(Variation(sample, trials.question.locals[0], cuts=everywhere(sample))):
            report.notes.append(
                "what it decides depends on where the stream is cut, although its output does not"
            )
            return False
    return True


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is known of the callouts before they are run."""

    name: str
    depends_on: frozenset[str]
    breaks_by_design: frozenset[str]


def _factory(callout: Callout | Sequence[Callout] | Callable[[], Callouts]) -> Make:
    if not isinstance(callout, Callout) and callable(callout):
        return callout
    if not isinstance(callout, Callout):
        _refuse_others(callout)
    try:
        copy.deepcopy(callout)
    except Exception as error:
        raise TypeError(
            f"{callout!r} cannot be copied for each run ({error}); give a function that makes it"
        ) from error
    return lambda: copy.deepcopy(callout)


def _refuse_others(made: object) -> None:
    listed = [] if isinstance(made, str) or not isinstance(made, Sequence) else list(made)
    if not listed or not all(isinstance(one, Callout) for one in listed):
        raise TypeError(
            f"expected a callout, a list of callouts, or a function that makes one, not {made!r}; "
            "a CALLOUT string is for `wfpstream verify`"
        )


def _subject(make: Make) -> _Subject:
    made = make()
    # A function may make none: what is checked then is the engine alone.
    if made != [] and not isinstance(made, Callout) and not callable(made):
        _refuse_others(made)
    callouts = [made] if isinstance(made, Callout) else [] if callable(made) else list(made)
    names = [callout.name or type(callout).__name__ for callout in callouts]
    return _Subject(
        ", ".join(names) or "callouts",
        frozenset().union(*(callout.output_depends_on for callout in callouts)),
        frozenset().union(*(callout.breaks_by_design for callout in callouts)),
    )


def _watched(options: EngineOptions | None) -> EngineOptions:
    watched = copy.deepcopy(options) if options is not None else EngineOptions()
    watched.verify.level = "warn"
    return watched
