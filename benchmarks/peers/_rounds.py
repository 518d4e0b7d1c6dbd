"""The run: all peers in turn inside every case of every round, so that all meet the same weather.

Owns the order, the measuring of one workload, and what a failure does: it is kept with its reason, and the run
goes on.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.peers._cases import GB, Case
from benchmarks.peers._load import Load, LoadError, compiled
from benchmarks.peers._process import cpu_seconds, memory_bytes
from benchmarks.peers._programs import Peer
from benchmarks.peers._running import Running, StartError, running
from benchmarks.peers._statistics import Summary, summarize
from benchmarks.peers._venv import MissingError

# A relay may still be closing what the load has closed already.
_AFTER = 0.05
# Who fails twice fails always: the load's patience would eat the run.
_FAILURES = 2


@dataclass
class Row:
    """What one peer did in one case, a value per round.

    Attributes:
        values: by figure: `cpu` and `wall` in the case's units, `p50_us`, `p99_us`.
        failures: one line for each round that brought nothing.
        note: what the reader must know of this row.
    """

    values: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    note: str = ""

    def add(self, figures: dict[str, float]) -> None:
        """Keep one round's figures."""
        for name, value in figures.items():
            self.values.setdefault(name, []).append(value)

    def summaries(self) -> dict[str, Summary]:
        """Each figure over the rounds."""
        return {name: summarize(values) for name, values in self.values.items()}


Table = dict[str, dict[str, Row]]


def amounts(case: Case, peer: Peer, share: float = 1.0) -> dict[str, float]:
    """The load's options for one peer: slow ones get less; of everything only `share`."""
    options = dict(case.options)
    if case.scaled is not None:
        options[case.scaled] *= peer.pace.get(case.kind, 1.0) * share
    if "seconds" in options:
        options["seconds"] *= share
    if case.kind == "idle":
        options["connections"] = min(options["connections"], peer.most_idle)
    return {name: int(value) if name != "seconds" else value for name, value in options.items()}


def figures_of(case: Case, answer: dict[str, Any], used: float) -> dict[str, float]:
    """A round's figures, in the units of the case.

    Args:
        case: which says what is counted.
        answer: what the load said.
        used: CPU seconds of the relay; for an idle case bytes of its memory.
    """
    if case.kind == "idle":
        return {"cpu": used / answer["connections"] / 1024, "wall": answer["connections"]}
    seconds = answer["seconds"]
    if case.kind == "bulk":
        return {"cpu": used * GB / answer["bytes"], "wall": answer["bytes"] * 8 / seconds / 1e9}
    latency = {"p50_us": answer["p50_us"], "p99_us": answer["p99_us"]}
    if case.kind == "ping-pong":
        messages = answer["messages"]
        return {"cpu": used / messages * 1e6, "wall": messages / seconds, **latency}
    connections = answer["connections"]
    return {"cpu": used / connections * 10_000, "wall": connections / seconds, **latency}


def measure(
    case: Case, peer: Peer, relay: Running, load: Load, share: float = 1.0
) -> tuple[dict[str, float], dict[str, Any]]:
    """One workload through a running relay: its figures, and what the load said.

    Raises:
        LoadError: as the load says.
    """
    before = memory_bytes(relay.pid) if relay.pid and case.kind == "idle" else 0
    with load.client(case.workload, relay.port, amounts(case, peer, share)) as client:
        began = _used(case, relay)
        answer = client.run()
        if relay.pid:
            time.sleep(_AFTER)
        used = _used(case, relay) - (before if case.kind == "idle" else began)
    return figures_of(case, answer, used), answer


def _used(case: Case, relay: Running) -> float:
    if not relay.pid:
        return 0.0
    return memory_bytes(relay.pid) if case.kind == "idle" else cpu_seconds(relay.pid)


class Run:
    """One run of some cases with some peers.

    Args:
        cases: in this order.
        peers_of: who takes part in each, by the case's name.
        pinned: the relay has the last CPU to itself, the load gets the others.
        share: of the amounts.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        peers_of: dict[str, list[Peer]],
        *,
        pinned: bool = False,
        share: float = 1.0,
    ) -> None:
        self.cases = cases
        self.table: Table = {case.name: {peer.name: Row() for peer in peers_of[case.name]} for case in cases}
        self._peers_of, self._share = peers_of, share
        cpus = sorted(os.sched_getaffinity(0))
        self._pinned = pinned and len(cpus) > 1
        self._relay_cpus, self._load_cpus = cpus[-1:], cpus[:-1]

    def perform(self, rounds: int, after_round: Callable[[int], object] = lambda done: None) -> Table:
        """So many rounds; progress goes to stderr.

        Args:
            rounds: how many.
            after_round: called with how many are done, so that a run that is stopped keeps what it has.

        Raises:
            LoadError: the load generator cannot be built.
        """
        program = compiled()
        for number in range(rounds):
            for case in (case for case in self.cases if number < case.most_rounds):
                load = Load(program, lambda command: self._wrapped(command, self._load_cpus))
                try:
                    self._case(case, load, number, rounds)
                finally:
                    load.close()
            after_round(number + 1)
        return self.table

    def _case(self, case: Case, load: Load, number: int, rounds: int) -> None:
        began = time.monotonic()
        peers = self._peers_of[case.name]
        first = number % len(peers)  # nobody is always the one after the heaviest
        for peer in [*peers[first:], *peers[:first]]:
            row = self.table[case.name][peer.name]
            if len(row.failures) < _FAILURES and number < peer.most_rounds:
                self._one(case, peer, load, row)
        print(
            f"round {number + 1} of {rounds}: {case.name}, {len(peers)} peers, {time.monotonic() - began:.0f} s",
            file=sys.stderr,
        )

    def _one(self, case: Case, peer: Peer, load: Load, row: Row) -> None:
        try:
            with running(peer, load.port, lambda command: self._wrapped(command, self._relay_cpus)) as relay:
                figures, answer = measure(case, peer, relay, load, self._share)
        except MissingError as error:
            row.failures += [str(error)] * _FAILURES  # it will not appear during the run
        except (StartError, LoadError) as error:
            row.failures.append(str(error))
        else:
            row.add(figures)
            row.note = _note(case, peer, answer) or row.note

    def _wrapped(self, command: Sequence[str], cpus: Sequence[int]) -> list[str]:
        if not self._pinned:
            return list(command)
        return ["taskset", "-c", ",".join(map(str, cpus)), *command]


def _note(case: Case, peer: Peer, answer: dict[str, Any]) -> str:
    if case.options.get("needles") and "edit" in peer.name and answer["needles_left"]:
        total = answer["needles_left"] + answer["needles_replaced"]
        return f"left {answer['needles_left']} of {total} matches as they were"
    if case.kind == "idle" and answer["connections"] < case.options["connections"]:
        return f"asked to hold {answer['connections']:,} only"
    return ""


def raise_descriptor_limit() -> int:
    """As many descriptors as this process may have, for it and all it starts; how many that is."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft
