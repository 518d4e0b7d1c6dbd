"""The watchdog of a proxy: a thread that looks which callout has the loop, for how much of the time, and where.

Owns the looks, what they add up to in a second, and the line for people. It interrupts nothing and takes no lock of
the engine's: it reads one attribute, and the stack of the loop's thread only when a call is overdue. It must not know
flows, sockets, or what is done about a slow callout (`_sides`).
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple

import trio

from wfpstream.fwps import OnStack, where_on_stack

from ._processor_wait import ProcessorWait

if TYPE_CHECKING:
    from wfpstream.engine import FilterEngine

__all__ = ["Report", "Sampler", "Watchdog"]

# While nothing is overdue: a look costs 20 to 100 us, so a dozen a second are a thousandth of a processor. Uneven, so
# that work that comes round every tenth of a second is not missed for ever.
_AT_EASE = (0.067, 0.101, 0.083)
# While no callback is called at all: whoever hangs next is found a little later, which he will still be there for.
_ASLEEP = 0.5
# While something is: a call of 50 ms is seen five times.
_ALERT = 0.01
# Without `timeouts.turn` there is nothing to look at; a reload may bring it.
_OFF = 1.0
_WINDOW = 1.0
# Of the last second. Less is no trouble for the others: half of them meet nothing, and one call is over soon.
_SHARE = 0.1
# A call that does not return is told of after this many seconds, and then ever more rarely.
_FIRST_TOLD, _SELDOM = 1.0, 60.0


class Report(NamedTuple):
    """A callout that was slow.

    Attributes:
        callout: its name.
        where: file:line of its code where it was met most, None if it was not met there.
        share: of the wall-clock time of the last second, 0 to 1.
        seconds: its longest call, so far.
        samples: how many looks met it.
        since: when the call that is still running began, engine seconds; None: it has returned.
    """

    callout: str
    where: str | None
    share: float
    seconds: float
    samples: int
    since: float | None


class _Tally:
    """One callout's overdue calls in the present second."""

    __slots__ = ("age", "lines", "longest", "samples", "seen", "since", "spent")

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()
        self.samples = 0
        self.spent = 0.0
        self.longest = 0.0
        self.since: float | None = None  # the call that was on the stack at the last look, and when that was
        self.seen = 0.0
        self.age = 0.0  # what it had taken by then

    def see(self, since: float, now: float, age: float, window: float, line: str | None) -> None:
        self.spent += max(0.0, age - self.age) if since == self.since else min(age, now - window)
        self.since, self.seen, self.age = since, now, age
        self.longest = max(self.longest, age)
        self.samples += 1
        if line is not None:
            self.lines[line] += 1

    def end(self, by: float) -> None:
        """The call has returned since the last look: on the average in the middle between the two.

        A look that came late, on a busy machine, says nothing of the call.
        """
        if self.since is not None:
            rest = min(_ALERT, max(0.0, by - self.seen)) / 2
            self.spent += rest
            self.longest = max(self.longest, self.age + rest)
            self.since = None

    def begin_anew(self) -> None:
        """Another second: a call that has not returned is carried over."""
        self.lines.clear()
        self.samples = 0
        self.spent = self.longest = 0.0


def _all_of_it(began: float, now: float) -> float:
    return now - began


def _nobody() -> None:
    """Nobody takes notes."""


class Sampler:
    """What the looks add up to. Without a thread or a clock of its own.

    Args:
        on_stack: what runs now.
        where: the line that has been reached; asked only about calls that are overdue.
        clock: the engine's, seconds.
        began: when the last callback began, by that clock; another value: there was one.
        own_time: of the time from then to now, what a call took itself and not the machine, which had others to serve.
        note: called at a look, but once only while one call is on the stack.
    """

    def __init__(
        self,
        on_stack: Callable[[], OnStack | None],
        where: Callable[[], str | None],
        clock: Callable[[], float],
        began: Callable[[], float],
        own_time: Callable[[float, float], float] = _all_of_it,
        note: Callable[[], object] = _nobody,
    ) -> None:
        self._began = began
        self._own_time = own_time
        self._note = note
        self._met: float | None = None  # when the call began that was on the stack at the last look
        self._last = -1.0
        self._on_stack = on_stack
        self._where = where
        self._clock = clock
        self._tallies: dict[str, _Tally] = {}
        self._window = 0.0
        self._looks_again = False
        self._pauses = cycle(_AT_EASE)

    @property
    def is_alert(self) -> bool:
        """A call was overdue a moment ago."""
        return bool(self._tallies)

    def look(self, budget: float) -> float:
        """Look once. Returns how many seconds to wait until the next look.

        Args:
            budget: seconds after which a call is overdue.
        """
        found, now = self._on_stack(), self._clock()
        age = now - found.since if found is not None else 0.0
        if found is not None and age >= budget:
            age = self._own_time(found.since, now)
        if found is None or found.since != self._met:
            self._note()
        self._met = found.since if found is not None else None
        overdue = found if age >= budget else None
        for name, tally in self._tallies.items():
            if overdue is None or name != overdue.callout or tally.since != overdue.since:
                tally.end(min(now, found.since) if found is not None else now)
        if overdue is not None:
            self._see(overdue, now, age)
        if self._tallies:
            return _ALERT
        last, self._last = self._last, self._began()
        if found is None and last == self._last and not self._looks_again:
            return _ASLEEP
        self._looks_again = found is not None and not self._looks_again
        # What is on the stack may be a long call that has only begun: one more look tells.
        return max(0.001, budget - age) if self._looks_again else next(self._pauses)

    def _see(self, overdue: OnStack, now: float, age: float) -> None:
        if not self._tallies:
            self._window = overdue.since
        tally = self._tallies.setdefault(overdue.callout, _Tally())
        tally.see(overdue.since, now, age, self._window, self._where())

    def take(self) -> list[Report] | None:
        """What a full second has shown, the worst first; None while it is not over, or nothing was overdue."""
        now = self._clock()
        length = now - self._window
        if not self._tallies or length < _WINDOW:
            return None
        reports = [_report(name, tally, length) for name, tally in self._tallies.items() if tally.samples]
        # Who was met in this second is watched closely for another one.
        self._tallies = {name: tally for name, tally in self._tallies.items() if tally.samples}
        for tally in self._tallies.values():
            tally.begin_anew()
        self._window = now
        return sorted((one for one in reports if one.share >= _SHARE), key=lambda one: -one.share)


def _report(name: str, tally: _Tally, length: float) -> Report:
    line = max(tally.lines, key=tally.lines.__getitem__, default=None)
    return Report(name, line, min(1.0, tally.spent / length), tally.longest, tally.samples, tally.since)


class Watchdog:
    """Watches the callbacks of an engine, whose thread makes it.

    Once a second it says which callouts took more than a tenth of the time in calls longer than one may be: by the
    event `slow_callback` and by one line. A call that does not return is named by lines from the watchdog's own thread,
    since the loop can tell nobody.

    Args:
        log: takes one line for people; called on this thread, and on the watchdog's while the loop hangs.
    """

    def __init__(self, engine: FilterEngine, log: Callable[[str], object]) -> None:
        self._engine = engine
        self._log = log
        self._token = trio.lowlevel.current_trio_token()
        self._watched = threading.get_ident()
        overruns = engine.overruns
        self._wait = ProcessorWait()
        self._sampler = Sampler(
            overruns.on_stack,
            self._where,
            engine.now,
            lambda: overruns.since,
            overruns.own_time,
            overruns.look,
        )
        self._reports: list[
            Report
        ] = []  # on their way to the loop; replaced as long as it does not take them
        self._hanging = _Hanging()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wfpstream watchdog", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._engine.overruns.watched = True
        self._engine.overruns.count_waiting(self._wait.seconds)
        self._thread.start()

    def stop(self) -> None:
        """End, and tell what there is still to tell."""
        self._ended.set()
        self._thread.join()
        self._deliver()
        self._engine.overruns.watched = False
        self._engine.overruns.count_waiting(None)
        self._wait.close()

    # --- on its own thread ---

    def _run(self) -> None:
        overruns = self._engine.overruns
        pause = 0.0
        while not self._ended.wait(pause):
            if self._engine.options.timeouts.turn <= 0:
                pause = _OFF
                continue
            pause = self._sampler.look(overruns.budget)
            reports = self._sampler.take()
            if reports or (overruns.has_longest and (reports is not None or not self._sampler.is_alert)):
                self._post(reports or [])

    def _where(self) -> str | None:
        return where_on_stack(sys._current_frames().get(self._watched))

    def _post(self, reports: list[Report]) -> None:
        now = self._engine.now()
        for report in reports:
            if report.since is not None and self._hanging.is_due(report.since, now - report.since):
                self._log(
                    f"callout {report.callout} has not returned for {now - report.since:.1f} s: it is at "
                    f"{report.where}; no flow is served meanwhile"
                )
        self._reports = reports
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._deliver, idempotent=True)

    # --- on the loop's ---

    def _deliver(self) -> None:
        reports, self._reports = self._reports, []
        longest = self._engine.overruns.take_longest()
        for report in reports:
            exact = longest.pop(report.callout, None)
            seconds = max(report.seconds, exact.seconds) if exact is not None else report.seconds
            where = report.where or (exact.where if exact is not None else None)
            self._engine.tell(
                "slow_callback",
                callout=report.callout,
                seconds=seconds,
                where=where,
                share=report.share,
                samples=report.samples,
            )
            self._log(
                f"callout {report.callout}: calls of up to {seconds * 1000:.0f} ms took {report.share:.0%} of the last "
                f"second, most of it at {where}; every flow waits meanwhile"
            )
        for name, call in longest.items():
            self._engine.tell("slow_callback", callout=name, seconds=call.seconds, where=call.where)
            self._log(
                f"callout {name}: a call took {call.seconds * 1000:.0f} ms, in the function at {call.where}; every "
                "flow waited meanwhile"
            )


class _Hanging:
    """When to tell of a call that does not return: after a second, and then ever more rarely."""

    def __init__(self) -> None:
        self._since = 0.0
        self._next = 0.0

    def is_due(self, since: float, age: float) -> bool:
        if since != self._since:
            self._since, self._next = since, _FIRST_TOLD
        if age < self._next:
            return False
        self._next = age + min(age, _SELDOM)
        return True
