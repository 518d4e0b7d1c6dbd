"""The canonical form of an event log (IND-26): what is the same in every world and for every cut of the stream.

Owns the form, its text and the comparison of two. What became of each byte is read off the events by `_fates`. It
must not know a driver: live, in memory and replayed, the events are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from ._fates import DIRECTIONS, PUT_IN, Event, FlowFates, Side

_CONTEXT = 3


@dataclass(frozen=True, slots=True)
class CanonicalRun:
    """Bytes that met one fate at one stage.

    Attributes:
        offset: place of the first one in what reached the stage, bytes.
        length: bytes.
        fate: "permitted" (they went on, whether the stage was asked or not), "blocked", or "discarded" (permitted
            behind a FIN which the stage itself had injected).
        injected: a stage above put them in; else they are of the original stream.
    """

    offset: int
    length: int
    fate: str
    injected: bool = False

    def __str__(self) -> str:
        origin = ", injected above" if self.injected else ""
        return f"{self.offset}+{self.length} {self.fate}{origin}"


@dataclass(frozen=True, slots=True)
class CanonicalInjection:
    """Bytes that a stage put in.

    Attributes:
        offset: place of the first one in what left the stage, bytes.
        length: bytes.
    """

    offset: int
    length: int

    def __str__(self) -> str:
        return f"puts in {self.offset}+{self.length}"


@dataclass(frozen=True, slots=True)
class CanonicalStage:
    """One stage in one direction.

    Attributes:
        callout: its callout's name; None for a filter without one that took bytes out.
        runs: what became of the bytes that reached it.
        injections: what it put in.
        fin: what it did to the end of the stream: "permitted", "blocked" (and not released), "injected" (its own, in
            place of one it was shown or before one came); "" if none came for certain.
    """

    callout: str | None
    runs: tuple[CanonicalRun, ...]
    injections: tuple[CanonicalInjection, ...]
    fin: str


@dataclass(frozen=True, slots=True)
class CanonicalDirection:
    """One direction of a flow.

    Attributes:
        name: "to_upstream" or "to_client".
        stages: in the order in which they are asked.
        ended: "fin", the `reason` of `flow_deleted` without one, or "open" (stopping the driver is no end).
    """

    name: str
    stages: tuple[CanonicalStage, ...]
    ended: str


@dataclass(frozen=True, slots=True)
class CanonicalFlow:
    """One flow. `name`: 1, 2, ... in order of establishment, or what the `key` given to `canonical` says."""

    name: Hashable
    directions: tuple[CanonicalDirection, ...]


@dataclass(frozen=True, slots=True)
class CanonicalLog:
    """A whole log; two of them are equal if everything that IND-26 promises is. `str` is a readable form of it."""

    flows: tuple[CanonicalFlow, ...]

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def canonical(events: Iterable[Event], *, key: Callable[[Event], Hashable] | None = None) -> CanonicalLog:
    """The canonical form of a log (IND-26): the same in every world and for any segment borders.

    That holds for callouts that do the same wherever the stream is cut; so two logs of such a callout over the same
    bytes are equal, and `canonical_diff` says where others differ. Left out: times, the order between directions, where
    injections completed, PUSH and NODELAY (IND-5), filter and flow numbers, how often a callout was asked or waited
    (NEED_MORE_DATA, DEFER, back-pressure), whether a stage permitted bytes or was not asked about them any more, and,
    where a flow was dropped, aborted or reset, or a direction ended by an injected FIN, what had not got through then.
    Urgent bytes have the place at which they were decided.

    Args:
        events: dicts as the engine's sinks get them, or as decoded from JSON lines; of every event, also those that
            only sinks with `wants_trace` get.
        key: names a flow by its `flow_established` event, and orders flows by that name. Without it they are numbered
            in order of establishment.

    Raises:
        ValueError: two flows have the same name.
    """
    logs: dict[Hashable, list[Event]] = {}
    present: dict[tuple[Any, Any, int], Hashable] = {}
    for event in events:
        number = (event.get("worker"), event.get("capture"), event["flow"])
        if event["event"] == "flow_established":
            name = key(event) if key is not None else len(logs) + 1
            if name in logs:
                raise ValueError(f"two flows are named {name!r}")
            present[number] = name
            logs[name] = []
        if number in present:
            logs[present[number]].append(event)
    names: list[Any] = list(logs) if key is None else sorted(logs, key=_order)
    return CanonicalLog(tuple(_flow(name, FlowFates(logs[name])) for name in names))


def canonical_diff(first: CanonicalLog, second: CanonicalLog) -> str:
    """Where two canonical logs differ first, with what precedes it; "" if they are equal.

    Lines of the first log are marked with `-`, those of the second with `+`.
    """
    if first == second:
        return ""
    one, other = _lines(first), _lines(second)
    shorter = min(len(one), len(other))
    place = next((i for i in range(shorter) if one[i] != other[i]), shorter)
    where = _headings(one if place < len(one) else other, place)
    shared = [line for line in one[max(0, place - _CONTEXT) : place] if line not in where]
    changed = [f"- {line}" for line in one[place : place + _CONTEXT] or ["(the end)"]]
    changed += [f"+ {line}" for line in other[place : place + _CONTEXT] or ["(the end)"]]
    return "\n".join(["the logs differ:", *(f"  {line}" for line in [*where, *shared]), *changed])


# -- making it -----------------------------------------------------------------------------------------------


def _order(name: Any) -> Any:
    return list(name) if isinstance(name, tuple) else [name]


def _flow(name: Hashable, fates: FlowFates) -> CanonicalFlow:
    directions = []
    for direction in DIRECTIONS:
        stages = tuple(
            _stage(stage.callout, stage.sides[direction], fates.fin_of(place, direction))
            for place, stage in enumerate(fates.stages)
        )
        directions.append(CanonicalDirection(direction, stages, fates.ended(direction)))
    return CanonicalFlow(name, tuple(directions))


def _stage(callout: str | None, side: Side, fin: str) -> CanonicalStage:
    """Merge neighbours: runs by their place in what reached the stage, injections by theirs in what left it."""
    runs: list[CanonicalRun] = []
    injections: list[CanonicalInjection] = []
    shown = left = 0
    for entry in side.history:
        if entry.deed == PUT_IN:
            if injections and injections[-1].offset + injections[-1].length == left:
                before = injections.pop()
                injections.append(CanonicalInjection(before.offset, before.length + entry.length))
            else:
                injections.append(CanonicalInjection(left, entry.length))
        elif runs and (runs[-1].fate, runs[-1].injected) == (entry.deed, entry.from_above):
            run = runs.pop()
            runs.append(CanonicalRun(run.offset, run.length + entry.length, run.fate, run.injected))
        else:
            runs.append(CanonicalRun(shown, entry.length, entry.deed, entry.from_above))
        shown += entry.shown
        left += entry.left
    return CanonicalStage(callout, tuple(runs), tuple(injections), fin)


# -- showing it ----------------------------------------------------------------------------------------------


def _lines(log: CanonicalLog) -> list[str]:
    """Everything that is compared, a line each."""
    lines = []
    for flow in log.flows:
        lines.append(f"flow {flow.name}")
        for direction in flow.directions:
            lines.append(f"  {direction.name}, {direction.ended}")
            for place, stage in enumerate(direction.stages):
                lines.append(f"    stage {place}, {stage.callout or 'no callout'}")
                lines += [f"      {run}" for run in stage.runs]
                lines += [f"      {injection}" for injection in stage.injections]
                lines.append(f"      FIN {stage.fin or 'none'}")
    return lines


def _headings(lines: list[str], place: int) -> list[str]:
    """The lines under which line `place` stands."""
    found: list[str] = []
    depth = _depth(lines[place]) if place < len(lines) else 0
    for line in reversed(lines[:place]):
        if _depth(line) < depth:
            depth = _depth(line)
            found.append(line)
    return found[::-1]


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())
