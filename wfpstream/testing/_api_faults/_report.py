"""Does a callout survive failing calls: every call site tried, each run judged against the one without failures.

Owns what surviving means, and the report. It must not know how calls are made to fail.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from wfpstream.engine import FilterEngine
from wfpstream.fwp import NtStatus
from wfpstream.testing._memory_world import MemoryWorld
from wfpstream.testing._world import EndState, Send, World, WorldOutcome, WorldScript

from ._plans import ApiFaults, FailedCall, explore_api_faults
from ._sites import CallSite

Fate = Literal["same", "reset", "unchanged", "stuck", "lost"]

SURVIVED: Final[frozenset[Fate]] = frozenset(("same", "reset", "unchanged"))

_FATES: Final[dict[Fate, str]] = {
    "same": "nothing came of it",
    "reset": "the connection was reset, and nothing wrong had been delivered",
    "unchanged": "the streams went through as they were sent",
    "stuck": "an end of the stream never came",
    "lost": "bytes were lost, doubled or changed",
}


def fate_of(baseline: WorldOutcome, faulted: WorldOutcome, sent: tuple[bytes, bytes] | None = None) -> Fate:
    """What a failure did to a connection.

    Args:
        baseline: how both sides ended without it.
        faulted: how they ended with it.
        sent: what the client and what the server said; without it a callout that lets the bytes go unchanged (it
            fails open) is taken for one that loses some.

    Returns:
        "same": as without it. "reset": ended by a reset, after a beginning of what arrives without it (it fails
        closed), or after more where that ends by a reset too. "unchanged": ended as without it, each side with
        what the other said. "stuck": a FIN or reset that comes without it did not come. "lost": anything else.
    """
    usual, now = (baseline.client, baseline.server), (faulted.client, faulted.server)
    if now == usual:
        return "same"
    if any(end.reset for end in now) and all(map(_is_beginning, now, usual)):
        return "reset"
    if any(end.reset for end in now):
        return "lost"
    if not all(map(_ended_alike, now, usual)):
        return "stuck" if all(map(_is_beginning, now, usual)) else "lost"
    if sent is not None and (now[1].data, now[0].data) == sent:
        return "unchanged"
    return "lost"


def _is_beginning(end: EndState, usual: EndState) -> bool:
    if usual.reset and end.data.startswith(usual.data):
        return True  # a reset that comes later lets more through
    return usual.data.startswith(end.data) and (not end.fin or usual.fin or usual.reset)


def _ended_alike(end: EndState, usual: EndState) -> bool:
    return (end.fin, end.reset) == (usual.fin, usual.reset)


@dataclass(slots=True)
class FaultResult:
    """One run with failing calls.

    Attributes:
        what: the plan, in words.
        site: the call site it was for; None for one that fails at random.
        failed: the calls that failed.
        fate: what became of the connection; None when the run raised.
        violations: rule ids the verifier told that it does not tell without failures; leaks are among them, lint
            (severity L) is not.
        where: a line for each of those violations.
        error: what the run raised, in a line.
        start_failed: what the driver's start raised, in a line: it refused to start, which is no fault by itself.
    """

    what: str
    site: CallSite | None = None
    failed: Sequence[FailedCall] = ()
    fate: Fate | None = None
    violations: Sequence[str] = ()
    where: Sequence[str] = ()
    error: str | None = None
    start_failed: str | None = None

    @property
    def survived(self) -> bool:
        """No byte lost in silence, nothing stuck, no leak, no violation, no exception."""
        return self.fate in SURVIVED and not self.violations and self.error is None


@dataclass(slots=True)
class ApiFaultReport:
    """What came of every failure tried.

    Attributes:
        sites: the call sites, in the order in which they were found.
        results: one per run.
        complete: every call site was tried.
    """

    sites: list[CallSite] = field(default_factory=list)
    results: list[FaultResult] = field(default_factory=list)
    complete: bool = True

    @property
    def failures(self) -> list[FaultResult]:
        """The runs that were not survived."""
        return [result for result in self.results if not result.survived]

    @property
    def survived(self) -> bool:
        """Every failure at every call site was."""
        return self.complete and not self.failures

    def text(self) -> str:
        """For people: the call sites with what came of failures there, then what was not survived."""
        runs, bad = len(self.results), len(self.failures)
        lines = [f"{len(self.sites)} call sites, {runs} runs with failures, {bad} not survived"]
        if not self.complete:
            lines.append("not every call site was tried: the limit of runs was reached")
        lines += [f"  {self._fates(site):10} {site}" for site in self.sites]
        for result in self.failures:
            lines += ["", *_told(result)]
        return "\n".join(lines)

    def _fates(self, site: CallSite) -> str:
        """What came of failures at this site, in a word or two."""
        words = [result.fate or "error" for result in self.results if result.site == site]
        return ", ".join(dict.fromkeys(words))


def _told(result: FaultResult) -> list[str]:
    lines = [result.what]
    for failed in result.failed[:3]:
        lines.append(f"  {failed.site}, call {failed.number}: {failed.status.name}")
    if len(result.failed) > 3:
        lines.append(f"  and {len(result.failed) - 3} more failed")
    if result.start_failed is not None:
        lines.append(f"  the start failed: {result.start_failed}")
    if result.error is not None:
        lines.append(f"  the run failed: {result.error}")
    if result.fate is not None and result.fate not in SURVIVED:
        lines.append(f"  {result.fate}: {_FATES[result.fate]}")
    return lines + [f"  {line}" for line in result.where]


def check_api_faults(
    make_script: Callable[[], WorldScript],
    world: World | None = None,
    *,
    times: Sequence[int | None] = (1, None),
    random_runs: int = 0,
    rate: float = 0.1,
    seed: int = 0,
    limit: int = 1000,
    calls: Collection[str] | None = None,
    statuses: Mapping[str, NtStatus] | None = None,
) -> ApiFaultReport:
    """Play a script with failing calls, and judge how its callouts take it.

    Args:
        make_script: builds a script and its callouts anew. Give it waits in which what is delayed can come through.
        world: where to play it; in memory, if not given.
        times: failures in a row that are tried at each call site; None is one that does not end.
        random_runs: so many runs more, in which calls fail anywhere.
        rate: share of the calls that fail in these.
        seed: of these.
        limit: most runs for each of `times`.
        calls: only these may fail; None means all of `FAILING_CALLS`.
        statuses: what they fail with.

    Raises:
        Exception: what the script raises when nothing fails.
    """
    trial = _Trial(make_script, world or MemoryWorld())
    report = ApiFaultReport()
    for count in times:
        found = explore_api_faults(trial.run, times=count, limit=limit, calls=calls, statuses=statuses)
        report.complete = report.complete and found.complete
        for one in found.runs:
            if one.site not in report.sites:
                report.sites.append(one.site)
            often = "for good" if count is None else "once" if count == 1 else f"{count} times"
            what = f"failing {often}: " + ", and then ".join(map(str, one.sites))
            report.results.append(_judged(what, one.site, one.plan, found.baseline, one.outcome, one.error))
    if random_runs:
        _try_at_random(trial, report, random_runs, rate, seed, calls, statuses)
    return report


def _try_at_random(
    trial: _Trial,
    report: ApiFaultReport,
    runs: int,
    rate: float,
    seed: int,
    calls: Collection[str] | None,
    statuses: Mapping[str, NtStatus] | None,
) -> None:
    baseline = trial.run(ApiFaults(calls=calls))
    for number in range(seed, seed + runs):
        plan = ApiFaults.random(rate, number, calls=calls, statuses=statuses)
        outcome, error = None, None
        try:
            outcome = trial.run(plan)
        except Exception as raised:  # judged below
            error = raised
        what = f"failing at random: rate {rate:g}, seed {number}"
        report.results.append(_judged(what, None, plan, baseline, outcome, error))


@dataclass(slots=True)
class _Ending:
    outcome: WorldOutcome
    sent: tuple[bytes, bytes]
    start_failed: Exception | None


class _Trial:
    """The script, with a plan put in front of its setup."""

    def __init__(self, make_script: Callable[[], WorldScript], world: World) -> None:
        self._make_script = make_script
        self._world = world

    def run(self, plan: ApiFaults) -> _Ending:
        script = self._make_script()
        refused: list[Exception] = []

        def setup(engine: FilterEngine) -> None:
            plan.install(engine)
            try:
                script.setup(engine)
            except Exception as error:
                if not plan.failed:
                    raise
                refused.append(
                    error
                )  # a driver may refuse to start; what it leaves behind is told at the stop

        outcome = self._world.run(replace(script, setup=setup))
        said = [(step.by, step.data) for step in script.steps if isinstance(step, Send) and not step.urgent]
        client = b"".join(data for by, data in said if by == "client")
        server = b"".join(data for by, data in said if by == "server")
        return _Ending(outcome, (client, server), refused[0] if refused else None)


def _judged(
    what: str,
    site: CallSite | None,
    plan: ApiFaults,
    baseline: _Ending,
    ending: _Ending | None,
    error: Exception | None,
) -> FaultResult:
    result = FaultResult(what, site, plan.failed)
    if error is not None:
        result.error = _line(error)
    if ending is None:
        return result
    if ending.start_failed is not None:
        result.start_failed = _line(ending.start_failed)
    result.fate = fate_of(baseline.outcome, ending.outcome, ending.sent)
    excused = Counter(event["rule"] for event in _violations(baseline.outcome))
    fresh = []
    for event in _violations(ending.outcome):
        if excused[event["rule"]]:
            excused[event["rule"]] -= 1
        else:
            fresh.append(event)
    result.violations = [event["rule"] for event in fresh]
    result.where = [
        f"{event['rule']}: {event['text']} ({event.get('where') or 'no place'})" for event in fresh
    ]
    return result


def _violations(outcome: WorldOutcome) -> list[dict[str, Any]]:
    return [event for event in outcome.events if event["event"] == "violation" and event["severity"] != "L"]


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
