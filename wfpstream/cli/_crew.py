"""The workers of a run, seen from their parent: what they are told to run, what becomes of them, who follows a change.

Owns the descriptions workers get, what is said of their ends, and the two steps in which all of them change their
policy. How processes are kept running is the transport's (`Workers`), what people ask for is `_crew_commands`'.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import trio

from wfpstream.cli._base import note
from wfpstream.cli._gathering import Gathering
from wfpstream.cli._plan import RunPlan
from wfpstream.cli._served import Arranged, Open, Switch
from wfpstream.cli._worker import BOOT, describe, environment
from wfpstream.config import (
    ConfigError,
    Deployment,
    Difference,
    LoadedConfig,
    filter_ids_text,
    policy_text,
)
from wfpstream.observe import safe_text
from wfpstream.transport import (
    Gone,
    ListenerSpec,
    SharedAddresses,
    Tally,
    WorkerError,
    WorkerProcess,
    Workers,
    start_worker,
)

# Reading configurations and callouts, and resolving names, may take its time.
CHANGE_TIMEOUT = 60.0


class Crew:
    """All workers; to the runner it is what serves the listeners (`Served`), to `Workers` who is told (`Told`).

    Attributes:
        workers: the processes.
        addresses: where they listen.
        violations: what those that have ended had found, and the first of each rule of the others.
        gone: how many ended without being asked to; `reset`: how many connections that has cost.
        left: counts of those that have ended, by what they count; of one that was killed those it had told of.
    """

    def __init__(
        self, plan: RunPlan, deployment: Deployment, gathering: Gathering, log: Callable[[str], object]
    ) -> None:
        self.addresses = SharedAddresses()
        self.violations: Counter[str] = Counter()
        self.gone = 0
        self.reset = 0
        self.left: dict[str, Counter[str]] = {}
        self._told: dict[int, dict[str, Any]] = {}  # by those that live: what they had counted a moment ago
        self._plan = plan
        self._deployment = deployment
        self._gathering = gathering
        self._log = log
        self._tally = Tally(plan.workers)
        self._event_pipes: dict[int, int | None] = {}
        self._one_change = trio.Lock()
        self.workers = Workers(
            plan.workers, self._launch, self._describe, self, connections=self._tally.connections
        )

    def close(self) -> None:
        """When no worker lives."""
        self.addresses.close()
        self._tally.close()

    # --- Served ---

    @property
    def listeners(self) -> Sequence[Open]:
        """Where the workers listen."""
        return self.addresses.listeners

    @property
    def connections(self) -> int:
        """How many connections all of them have."""
        return sum(map(self._tally.connections, range(1, self.workers.count + 1)))

    @property
    def accepted(self) -> int:
        """How many connections all of them have accepted, those that have ended included."""
        return sum(map(self._tally.accepted, range(1, self.workers.count + 1)))

    @property
    def refused(self) -> int:
        """What those have refused that have ended."""
        return self.left.get("counts", Counter())["refused"]

    @property
    def rejected(self) -> Mapping[str, int]:
        """What those have rejected that have ended."""
        return self.left.get("rejected", Counter())

    def counts_of(self, number: int) -> dict[str, int]:
        """What is known of a worker without asking it."""
        return {"connections": self._tally.connections(number), "accepted": self._tally.accepted(number)}

    def request_stop(self, grace: float | None = None) -> None:
        """All of them accept nothing more, and end when their flows have."""
        self.addresses.close()
        self.workers.request_stop(self._plan.grace if grace is None else grace)

    async def prepare(self, specs: Sequence[ListenerSpec]) -> Arranged:
        """Bind what `specs` ask for beside what there is. Raises OSError, RuntimeError."""
        return await self.addresses.prepare(specs)

    # --- what a worker is ---

    def _launch(self, number: int) -> WorkerProcess:
        writing = self._gathering.pipe()
        self._event_pipes[number] = writing
        inherited = [self._tally.fileno(), *([writing] if writing is not None else [])]
        command = [sys.executable, *_interpreter_flags(), "-c", BOOT, str(number), str(os.getpid())]
        try:
            return start_worker(command, environment(), inherited)
        finally:
            if writing is not None:
                os.close(writing)

    def _describe(self, number: int) -> dict[str, Any]:
        return describe(
            self._plan,
            policy_text(self._deployment),
            [(one.host, one.port) for one in self.addresses.listeners],
            self._event_pipes[number],
            self._gathering.waits,
            self._tally.fileno(),
        )

    # --- Told ---

    def worker_listens(self, number: int, pid: int, is_again: bool) -> None:
        """Only of those that others have gone before, anything is said."""
        if is_again:
            self._log(f"worker {number} (pid {pid}) listens")
            self._deployment.engine.tell("worker_started", worker=number, pid=pid)

    def worker_gone(self, gone: Gone) -> None:
        """Said also with -q: connections may be lost."""
        self.gone += 1
        self.reset += gone.connections
        self._tally.clear(gone.number)
        self._keep(self._told.pop(gone.number, None))
        which = f"worker {gone.number} (pid {gone.pid})" if gone.pid else f"worker {gone.number}"
        note(f"error: {which} {safe_text(gone.how)}: {_lost(gone.connections)}{_next(gone.delay)}")
        self._deployment.engine.tell(
            "worker_gone",
            worker=gone.number,
            pid=gone.pid,
            how=gone.how,
            connections=gone.connections,
            delay=gone.delay,
        )

    def worker_noticed(self, number: int, what: dict[str, Any]) -> None:
        """What counts even if the worker does not live to say it in the end: a violation, or all its counts."""
        if "counted" in what:
            self._told[number] = what["counted"]
        else:
            self.violations.setdefault(str(what.get("violation")), 1)

    def worker_ended(self, number: int, summary: dict[str, Any]) -> None:
        """What it has counted stays counted."""
        self._told.pop(number, None)
        self._keep(summary)

    def _keep(self, summary: dict[str, Any] | None) -> None:
        if summary is None:
            return
        for rule, count in summary["violations"].items():
            others = self.left.setdefault("strict", Counter())
            others[rule] += count
            self.violations[rule] = others[rule]
        stats = summary["stats"]
        self.left.setdefault("counts", Counter())["refused"] += stats["refused"]
        for name in ("rejected", "counters", "violations"):
            self.left.setdefault(name, Counter()).update(stats[name])

    # --- changes ---

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """One change at a time, and no worker starts meanwhile: it would have the policy from before."""
        async with self._one_change, self.workers.settled():
            yield

    @asynccontextmanager
    async def following(self, loaded: LoadedConfig, listeners: Sequence[Open]) -> AsyncIterator[Switch]:
        """`Following`: all workers have read the configuration, and listen where it says; then they switch."""
        async with self.changing():
            prepared = await self._prepare(loaded, listeners)
            is_committed = False

            async def switch(difference: Difference) -> str:
                nonlocal is_committed
                is_committed = True
                changes = {
                    "filter_ids": filter_ids_text(self._deployment),
                    "changes": difference.as_data(),
                }
                switched = await self.apply("commit", changes)
                self.addresses.let_go()
                return f" by {_named(switched)}"

            try:
                yield switch
            finally:
                if not is_committed and prepared:
                    with trio.CancelScope(shield=True):
                        await self.workers.ask_all("abandon")

    async def _prepare(self, loaded: LoadedConfig, listeners: Sequence[Open]) -> list[int]:
        """The workers that are ready for it. Raises ConfigError: one of them cannot be."""
        arguments = {
            "text": loaded.text,
            "source": loaded.source,
            "addresses": [[one.host, one.port] for one in listeners],
        }
        answers = await self.workers.ask_all("prepare", arguments, CHANGE_TIMEOUT)
        problems = [
            f"worker {number}: {line}"
            for number, answer in answers.items()
            if isinstance(answer, WorkerError) and answer.code != "gone"
            for line in answer.text.splitlines()
        ]
        if problems:
            await self.workers.ask_all("abandon")
            raise ConfigError("; ".join(problems))
        return list(answers)

    async def apply(self, command: str, arguments: Mapping[str, Any]) -> dict[int, Any]:
        """Let all workers do what the parent has done; who cannot is told, and replaced by one that has it.

        Returns:
            The answers of those that did it, by number.
        """
        answers = await self.workers.ask_all(command, arguments, CHANGE_TIMEOUT)
        done: dict[int, Any] = {}
        for number, answer in answers.items():
            if not isinstance(answer, WorkerError):
                done[number] = answer
            elif answer.code != "gone":
                text = safe_text("; ".join(answer.text.splitlines()))
                note(f"error: worker {number} did not switch: {text}; it is replaced")
                grace = self._plan.grace if self._plan.grace < math.inf else CHANGE_TIMEOUT
                self.workers.dismiss(number, "was replaced, as it did not switch", grace)
        return done


def _named(numbers: Mapping[int, Any]) -> str:
    if not numbers:
        return "no worker"
    listed = ", ".join(map(str, sorted(numbers)))
    return f"worker {listed}" if len(numbers) == 1 else f"workers {listed}"


def _lost(connections: int) -> str:
    if not connections:
        return "it had no connections"
    return f"{connections:,} {'connection was' if connections == 1 else 'connections were'} reset"


def _next(delay: float | None) -> str:
    if delay is None:
        return ""
    return f"; another one is started in {delay:.1f} s" if delay else "; another one is started"


def _interpreter_flags() -> list[str]:
    """Those of this interpreter, as multiprocessing passes them on as well."""
    flags: list[str] = []
    with suppress(AttributeError):
        flags = cast("list[str]", subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]
    return flags
