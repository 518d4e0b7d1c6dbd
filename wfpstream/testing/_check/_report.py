"""What a check found, for people: the smallest case of each problem, step by step.

Owns the records and their text. It must not know how cases are found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._judge import Problem
from ._samples import SIDES, Sample
from ._trials import Found, Trials
from ._variation import Piece, Variation, case_text, pieces_of

_MOST_LINES = 40
_MOST_SHOWN = 60


@dataclass(frozen=True, slots=True)
class CheckFailure:
    """One problem, and the smallest case that shows it.

    Attributes:
        problem: what is wrong.
        conditions: what is not plain in the case, a line each.
        steps: what the two sides do, a line each.
        decisions: what the callout was asked, and what it answered and did, a line each.
        case: the case in one line; `check_callout(..., case=...)` plays it alone.
    """

    problem: Problem
    conditions: tuple[str, ...]
    steps: tuple[str, ...]
    decisions: tuple[str, ...]
    case: str

    def lines(self) -> Iterator[str]:
        """As text."""
        yield self.problem.text
        if self.problem.where:
            yield f"  in the callout: {self.problem.where}"
        yield from (f"  {line}" for line in self.problem.detail)
        yield "  the smallest case found:"
        yield from (f"    {line}" for line in (*self.conditions, *self.steps))
        if self.decisions:
            yield "  what the callout was asked, and did:"
            yield from (f"    {line}" for line in self.decisions)
        yield f"  to play it again: case={self.case!r}"


@dataclass(slots=True)
class CheckReport:
    """The result of a check.

    Attributes:
        name: of the callout.
        runs: how often it was run, whatever for.
        failures: what is wrong; empty if all is well.
        notes: what was left out, and why.
        api_sites: call sites at which an API call was made to fail.
        same_log: the canonical log is the same for any cut (IND-26); None: not looked at, because something is wrong.
    """

    name: str
    runs: int = 0
    failures: list[CheckFailure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    api_sites: int = 0
    same_log: bool | None = None

    @property
    def passed(self) -> bool:
        """Nothing is wrong."""
        return not self.failures

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """As text."""
        result = "passed" if self.passed else f"{_count(len(self.failures), 'problem')} found"
        sites = f", {_count(self.api_sites, 'API call site')} made to fail" if self.api_sites else ""
        yield f"{self.name}: {result} ({_count(self.runs, 'run')}{sites})"
        yield from (f"note: {note}" for note in self.notes)
        for number, failure in enumerate(self.failures, 1):
            yield ""
            first, *rest = failure.lines()
            yield f"{number}. {first}"
            yield from (f"  {line}" for line in rest)


def describe_failure(trials: Trials, found: Found, samples: Sequence[Sample]) -> CheckFailure:
    """Play the case once more, and write down what happens."""
    return CheckFailure(
        found.problem,
        tuple(_conditions(found.variation)),
        tuple(_shortened(_steps(found.variation))),
        tuple(_shortened(decisions(trials.play(found.variation, trace=True).events))),
        case_text(found.variation, list(samples)),
    )


def _conditions(variation: Variation) -> Iterator[str]:
    """What is not plain, in words."""
    other = "server" if variation.local == "client" else "client"
    yield f"{variation.sample.name}; the {variation.local} is the local host, what the {other} sends is inbound"
    for text, holds in (
        (f"{variation.connections} connections at once, the same on each", variation.connections > 1),
        (f"{variation.pause:g} s between two pieces", bool(variation.pause)),
        (
            "workers run in every gap between two callbacks",
            variation.workers == "early" and not variation.holds,
        ),
        ("workers run when nothing else can happen", variation.workers == "late" and not variation.holds),
        (f"workers run by plan: {_plan(variation.holds)}", bool(variation.holds)),
        (
            f"the next piece comes right before API call {_numbers(variation.preempt)} of the worker",
            bool(variation.preempt),
        ),
        ("countBytesRequired is read as additional bytes", variation.need_more != "total"),
        ("injections complete as soon as the stages below have returned", variation.early_completion),
        ("injections are delivered after the call has returned", variation.queued_delivery),
        (f"{variation.mdls} MDLs in each indicated list", variation.mdls > 1),
        ("a permitted FIN is indicated once more", variation.repeat_fin),
        (
            f"{_count(variation.held_at_most or 0, 'byte')} at most held for it (limits.need_more_data)",
            variation.held_at_most is not None,
        ),
        (f"of the callout's API calls these fail: {_numbers(variation.fails)}", bool(variation.fails)),
    ):
        if holds:
            yield text
    for side, window in zip(SIDES, variation.windows, strict=True):
        if window is not None:
            yield f"the {side} takes {window} bytes, then reads them"


def _plan(holds: tuple[int, ...]) -> str:
    return (
        ", ".join(("all", "none", "the first", "the last")[hold % 4] for hold in holds) + ", then all at once"
    )


def _numbers(values: Sequence[int]) -> str:
    return ", ".join(str(value + 1) for value in values[:5]) + (", ..." if len(values) > 5 else "")


def _steps(variation: Variation) -> list[str]:
    pieces = pieces_of(variation)
    broken = variation.broken
    if broken is not None:
        pieces = pieces[: broken.pieces]
    lines = [_step(piece, variation) for piece in pieces]
    if broken is not None:
        lines.append(f"the {broken.by} resets the connection" if broken.by else "the engine stops")
    return lines


def _step(piece: Piece, variation: Variation) -> str:
    if piece.end:
        early = len(variation.input(piece.by)) < len(variation.sample.stream(piece.by))
        return f"{piece.by} ends" + (f"  <- after byte {piece.offset}" if early else "")
    cut = f"  <- cut at byte {piece.offset}" if piece.cut else ""
    return f"{piece.by} sends {_shown(piece.data)}{cut}"


def _shown(data: bytes) -> str:
    if len(data) <= _MOST_SHOWN:
        return repr(data)
    return f"{data[:40]!r}... ({len(data)} bytes)"


def decisions(events: Sequence[dict[str, Any]]) -> list[str]:
    """What a callout was asked in a case, and what it did, a line each."""
    lines = []
    waiting: dict[Any, dict[str, Any]] = {}
    several = len({event.get("callout") for event in events if event["event"] == "indicate"}) > 1
    for event in events:
        who = f"{event.get('callout')}: " if several and event.get("callout") else ""
        if event["event"] == "indicate":
            waiting[event["flow"], event.get("stage")] = event
        elif event["event"] == "classify":
            asked = waiting.pop((event["flow"], event.get("stage")), event)
            lines.append(f"{who}{_asked(asked)} -> {_answer(event)}")
        elif event["event"] in _TOLD:
            lines.append(f"{who}{_TOLD[event['event']](event)}")
    return lines


def _asked(event: dict[str, Any]) -> str:
    flags = "|".join(
        name for name in event["flags"] if name not in ("SEND", "RECEIVE", "SEND_NODELAY", "RECEIVE_PUSH")
    )
    marks = "".join(f" {name}" for name in (flags, *event.get("out_flags", ())) if name)
    return f"{event['dir']} {event['offset']}+{event['len']}{marks}"


def _answer(event: dict[str, Any]) -> str:
    stream_action = event.get("stream_action")
    if stream_action and stream_action != "NONE":
        required = f" {event['required']}" if event.get("required") else ""
        return f"{stream_action}{required}"
    enforced = f" {event['enforced']}" if event.get("enforced") else ""
    return f"{event['action']}{enforced}"


_TOLD: dict[str, Any] = {
    "inject": lambda e: f"inject {e['dir']} {e['len']} bytes{_fin(e)} -> {e['status']}",
    "inject_complete": lambda e: f"completion of {e['len']} bytes: {e['status']}",
    "continue": lambda e: f"continue {e['dir']}",
    "refused": lambda e: f"{e['call']} refused: {e['status']} ({e['rule']})",
    "violation": lambda e: f"*** {e['rule']} ({e['severity']}): {e['text']}",
    "flow_deleted": lambda e: f"the flow ends: {e['reason']}",
}


def _fin(event: dict[str, Any]) -> str:
    return " FIN" if any("DISCONNECT" in name for name in event.get("flags", ())) else ""


def _shortened(lines: list[str]) -> list[str]:
    if len(lines) <= _MOST_LINES:
        return lines
    half = _MOST_LINES // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} more ...", *lines[-half:]]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
