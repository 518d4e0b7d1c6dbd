"""Who is told of `run`'s events: the file of `--events`, people on stderr, and the count of violations.

Owns their beginning and their end, and writing on when a slow reader of events reads again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import trio

from wfpstream.cli._base import JobError, note, say
from wfpstream.cli._plan import RunPlan
from wfpstream.engine import FilterEngine
from wfpstream.observe import HumanLines, JsonLines, open_private_file

_STDOUT = 1


class Violations:
    """A sink that counts what `--verify` found. Lint is never an error (VRF-3)."""

    wants_data = "off"
    wants_trace = False

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        # Told the first violation of each rule.
        self.on_first: Callable[[str], object] = lambda rule: None

    def __call__(self, event: dict[str, object]) -> None:
        """Count one violation, and nothing else."""
        if event.get("event") == "violation" and event.get("severity") != "L":
            rule = str(event.get("rule"))
            self.counts[rule] += 1
            if self.counts[rule] == 1:
                self.on_first(rule)

    def __str__(self) -> str:
        parts = [f"{rule} ({count})" if count > 1 else rule for rule, count in sorted(self.counts.items())]
        return ", ".join(parts)


class Sinks:
    """The sinks of one run."""

    def __init__(self, plan: RunPlan, engine: FilterEngine) -> None:
        self.violations = Violations()
        self._plan = plan
        self._engine = engine
        self._events: JsonLines | None = None
        self._has_backlog = trio.Event()

    def open(self, stack: ExitStack) -> None:
        """Begin; `stack` ends them.

        Raises:
            JobError: the events cannot be written where they should.
        """
        plan = self._plan
        self._events = self._open_events()
        if self._events is not None:
            stack.callback(self._events.close)
            self._engine.add_sink(self._events)
        if plan.verbosity >= 0:
            worker = plan.place.number if plan.place is not None else None
            self._engine.add_sink(HumanLines(say, plan.verbosity, note, worker))
        if self._engine.options.verify.level != "off":
            self._engine.add_sink(self.violations)

    def _open_events(self) -> JsonLines | None:
        plan, place = self._plan, self._plan.place
        if place is not None:
            fd, owned = place.events, True
        elif plan.events is not None:
            fd, owned = open_events(plan.events)
        else:
            fd = None
        if fd is None:
            return None
        return JsonLines(
            fd,
            data=plan.events_data,
            owned=owned,
            waits=place is not None and place.events_wait,
            worker=place.number if place is not None else None,
            on_failure=_complain,
            on_backlog=self._wake,
        )

    def _wake(self) -> None:
        self._has_backlog.set()

    async def drain(self) -> None:
        """A task: write what a slow reader left over, when it reads again."""
        while self._events is not None:
            await self._has_backlog.wait()
            self._has_backlog = trio.Event()
            while self._events.backlog:
                await trio.lowlevel.wait_writable(self._events.fileno())
                self._events.flush()


def open_events(target: str) -> tuple[int, bool]:
    """The descriptor that events are written to, and whether it is ours to close.

    Raises:
        JobError: it cannot be had.
    """
    try:
        return (_STDOUT, False) if target == "-" else (open_private_file(target), True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise JobError(f"cannot write events to {target}: {reason}") from error


def _complain(text: str) -> None:
    note(f"error: {text}")
