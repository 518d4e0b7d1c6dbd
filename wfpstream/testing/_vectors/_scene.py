"""What the callouts of a conformance case share: the transcript, what was cloned, the flow, and the faults.

Owns the bookkeeping of one run. It must not know what a case expects (`_run`), nor how operations are called
(`_operations`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wfpstream.engine import FilterEngine
from wfpstream.fwp import NtStatus
from wfpstream.fwps import NetBufferList, RunTime

Perform = Callable[[Any, Any, Iterable[dict[str, Any]]], None]
"""(callout, call or None, operations)"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the transcript.

    Attributes:
        kind: the key of the vector's entry: "call", "completion", "flowDelete" ...
        of: the callout's name.
        text: what the vector must say.
        sees: members as a call found them; empty otherwise.
    """

    kind: str
    of: str
    text: str
    sees: dict[str, Any] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return self.text if self.kind == "call" else f"{self.of}: {self.text}"


@dataclass(slots=True)
class Pended:
    """A clone chain that a callout owns, its length in bytes and the flags it was indicated with."""

    chain: NetBufferList
    length: int
    flags: int
    of: str


@dataclass
class Scene:
    """One run of one case.

    Attributes:
        engine: the engine; there once the world has set one up.
        callouts: the callouts of the case by name.
        local: which side is the local host.
        perform: calls operations, for a callout and inside its call (or None), and judges their statuses.
        steps: the lines of each step, in order; the last list is of the step under way.
        violations: rule ids reported in each step, likewise.
        faults: what went wrong whatever the vector says.
        labels: results of operations (clones, ...) by the label the vector gave them.
        unlabelled: clones that got none, oldest first.
        flow_id: FLOW_HANDLE of the newest connection; 0 before there is one.
        layer: the stream layer of that connection.
        classifying: flows of which a stream classify runs.
        open_injections: per callout and accepted injection, the NBLs whose completion is due.
        filters: the callouts of connection layers by the filters through which they were asked.
        undo: takes away what operations added, oldest first.
    """

    engine: FilterEngine = field(init=False)
    callouts: dict[str, Any] = field(default_factory=dict)
    local: str = "client"
    perform: Perform = field(default=lambda by, call, operations: None)
    filters: dict[int, str] = field(default_factory=dict)
    undo: list[Callable[[], object]] = field(default_factory=list)
    steps: list[list[Line]] = field(default_factory=lambda: [[]])
    violations: list[list[str]] = field(default_factory=lambda: [[]])
    faults: list[str] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)
    unlabelled: list[Pended] = field(default_factory=list)
    flow_id: int = 0
    layer: int = 0
    classifying: set[int] = field(default_factory=set)
    open_injections: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def fwps(self) -> RunTime:
        """The run time."""
        return self.engine.fwps

    @property
    def lines(self) -> list[Line]:
        """The whole transcript."""
        return [line for step in self.steps for line in step]

    def problem(self, text: str) -> None:
        """Something that must not happen in any case."""
        self.faults.append(text)

    def note(self, kind: str, of: str, text: str, sees: dict[str, Any] | None = None) -> None:
        """One more line."""
        self.steps[-1].append(Line(kind, of, text, sees or {}))

    def step_done(self) -> None:
        """All that followed from a step has come to rest."""
        self.steps.append([])
        self.violations.append([])

    def unload(self) -> None:
        """What a driver does at its end: take away what is left of what it added, the newest first."""
        while self.undo:
            self.undo.pop()()

    def hear(self, event: dict[str, Any]) -> None:
        """An event of the engine."""
        if event["event"] == "violation":
            self.violations[-1].append(event["rule"])
        elif event["event"] == "ledger_fault":
            self.faults.append(f"the byte ledger does not close: {event.get('text', '')}")

    def take_clones(self, label: str, of: str) -> Sequence[Pended]:
        """The clone of a label; "every": all of that callout without one, oldest first. KeyError: there is none."""
        if label != "every":
            return [self.labels.pop(label)]
        taken = [one for one in self.unlabelled if one.of == of]
        self.unlabelled = [one for one in self.unlabelled if one.of != of]
        return taken

    def compare_status(self, what: str, status: int, wanted: str) -> None:
        """A status that is not the expected one is a fault."""
        name = NtStatus(status).name
        if name != wanted:
            self.faults.append(f"{what}: {name} instead of {wanted}")
