"""Plans of failing calls: which call of a callout fails, and trying every place where one is made.

Owns the plan and the search for call sites. It must not know worlds, nor what it means to survive a failure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final, Generic, TypeVar

from wfpstream import fwpm, fwps
from wfpstream.engine import FilterEngine
from wfpstream.fwp import NtStatus

from ._sites import CallSite, call_site

# `fwps._violations` looks through frames of this module: the callout behind them is the place of a violation.
_PASSES_CALLS_ON = True

T = TypeVar("T")

#: Every call that can be made to fail, named like the methods of the run time and of a session.
FAILING_CALLS: Final = fwps.FAILING_CALLS | fwpm.FAILING_CALLS

# What a call fails with, where "no memory" is not what its callers must be ready for: UNR-2.
_USUAL: Final = NtStatus.STATUS_INSUFFICIENT_RESOURCES
_UNUSUAL: Final = {
    "callout_unregister_by_id": NtStatus.STATUS_DEVICE_BUSY,
    "callout_unregister_by_key": NtStatus.STATUS_DEVICE_BUSY,
}


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A call that was made to fail: where, the how manieth call there (from 1), and with what."""

    site: CallSite
    number: int
    status: NtStatus


class ApiFaults:
    """Which calls of one engine fail. A plan is for one engine and one run.

    Made by `ApiFaults()`, which only watches, `ApiFaults.at` or `ApiFaults.random`. The failure of a call has no
    effect but its status; free, discard, destroy, dereference, release and complete cannot fail.

    Args:
        calls: only these may fail (names of `FAILING_CALLS`); None means all.
        statuses: what a call fails with, where it is not STATUS_INSUFFICIENT_RESOURCES (STATUS_DEVICE_BUSY when a
            callout is unregistered).

    Attributes:
        seen: every call site met, in order, and how many calls were made there.
        failed: the calls that failed, in order.

    Raises:
        ValueError: a name is none of `FAILING_CALLS`, or a status is a success.
    """

    def __init__(
        self, *, calls: Collection[str] | None = None, statuses: Mapping[str, NtStatus] | None = None
    ) -> None:
        self._calls = FAILING_CALLS if calls is None else frozenset(calls)
        self._statuses = _UNUSUAL | dict(statuses or {})
        for name in sorted(self._calls | self._statuses.keys()):
            if name not in FAILING_CALLS:
                raise ValueError(
                    f"{name!r} is no call that can fail; known are {', '.join(sorted(FAILING_CALLS))}"
                )
        for name, status in self._statuses.items():
            if status is NtStatus.STATUS_SUCCESS:
                raise ValueError(f"{name} cannot fail with {status.name}")
        self.seen: dict[CallSite, int] = {}
        self.failed: list[FailedCall] = []
        self._fails: Callable[[CallSite, int], bool] = _never
        self._engine: FilterEngine | None = None

    @classmethod
    def at(
        cls,
        *sites: CallSite,
        nth: int = 1,
        times: int | None = 1,
        calls: Collection[str] | None = None,
        statuses: Mapping[str, NtStatus] | None = None,
    ) -> ApiFaults:
        """The `nth` call made at a site fails, and so many in a row: `times`, None for all from then on.

        Of several sites the last one is meant, and its first call fails; the others are the way to it.
        """
        if nth < 1 or (times is not None and times < 1):
            raise ValueError(f"nth={nth}, times={times}: expected 1 or more")
        plan = cls(calls=calls, statuses=statuses)
        after = None if times is None else nth + times
        way, last = (sites[:-1], sites[-1:]) if len(sites) > 1 else (sites, ())

        def fails(here: CallSite, number: int) -> bool:
            if here in last:
                return number == 1
            return here in way and number >= nth and (after is None or number < after)

        plan._fails = fails
        return plan

    @classmethod
    def random(
        cls,
        rate: float,
        seed: int = 0,
        *,
        calls: Collection[str] | None = None,
        statuses: Mapping[str, NtStatus] | None = None,
    ) -> ApiFaults:
        """Every call fails with probability `rate` (0 to 1); the same seed, the same failures in the same run."""
        if not 0 <= rate <= 1:
            raise ValueError(f"rate={rate}: expected 0 to 1")
        plan = cls(calls=calls, statuses=statuses)
        dice = Random(seed)
        plan._fails = lambda site, number: dice.random() < rate
        return plan

    def install(self, engine: FilterEngine) -> None:
        """Judge the calls of this engine from now on; before callouts are added to it.

        Raises:
            RuntimeError: the plan is at work in an engine, or was.
        """
        if self._engine is not None:
            raise RuntimeError("a plan of failing calls is for one engine: make another one")
        self._engine = engine
        engine.put_judge(self.judge)

    def remove(self) -> None:
        """Judge no more calls; what was seen and failed so far can still be read."""
        if self._engine is not None:
            self._engine.take_judge()

    def judge(self, call: str) -> NtStatus | None:
        """What a call that is made now must fail with; None: nothing."""
        if call not in self._calls:
            return None
        site = call_site(call)
        if site is None:
            return None
        number = self.seen.get(site, 0) + 1
        self.seen[site] = number
        if not self._fails(site, number):
            return None
        status = self._statuses.get(call, _USUAL)
        self.failed.append(FailedCall(site, number, status))
        return status


def _never(site: CallSite, number: int) -> bool:
    return False


@dataclass(slots=True)
class FaultRun(Generic[T]):
    """One run in which calls failed.

    Attributes:
        sites: where: one place, behind those that had to fail for it to be reached.
        plan: what was seen and failed.
        outcome: what `run` returned; None with an error.
        error: what `run` raised.
    """

    sites: tuple[CallSite, ...]
    plan: ApiFaults
    outcome: T | None = None
    error: Exception | None = None

    @property
    def site(self) -> CallSite:
        """The place this run was made for."""
        return self.sites[-1]


@dataclass(slots=True)
class Exploration(Generic[T]):
    """What came of failing at every call site.

    Attributes:
        baseline: the outcome when nothing fails.
        runs: one per call site, in the order in which the sites were found.
        complete: no site was left untried.
    """

    baseline: T
    runs: list[FaultRun[T]] = field(default_factory=list)
    complete: bool = True


def explore_api_faults(
    run: Callable[[ApiFaults], T],
    *,
    nth: int = 1,
    times: int | None = 1,
    limit: int = 1000,
    calls: Collection[str] | None = None,
    statuses: Mapping[str, NtStatus] | None = None,
) -> Exploration[T]:
    """Fail once at every call site, until no new one is found.

    A site that only an error path reaches is tried too: there what leads to it fails as well.

    Args:
        run: builds everything anew, installs the plan it is given, plays, and returns what came of it; it must do
            the same each time. What it raises with a failing call is kept; what it raises without one gets out.
        nth: which call at the site is the first to fail.
        times: how many in a row; None for all from then on.
        limit: most runs.
        calls: only these may fail.
        statuses: what they fail with.
    """
    watch = ApiFaults(calls=calls, statuses=statuses)
    found = Exploration(run(watch))
    known = set(watch.seen)
    untried: deque[tuple[CallSite, ...]] = deque((site,) for site in watch.seen)
    while untried:
        if len(found.runs) == limit:
            found.complete = False
            return found
        sites = untried.popleft()
        plan = ApiFaults.at(*sites, nth=nth, times=times, calls=calls, statuses=statuses)
        one: FaultRun[T] = FaultRun(sites, plan)
        try:
            one.outcome = run(plan)
        except Exception as error:  # kept for whoever judges the run
            one.error = error
        found.runs.append(one)
        untried.extend((*sites, each) for each in plan.seen if each not in known)
        known.update(plan.seen)
    return found
