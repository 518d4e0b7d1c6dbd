"""Every demand as a line of the table: those of `_targets`, and those that no ratio to a rival can tell.

Owns the words of the latter: what is only to be stated, the long run, and the straight line through the sublayers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.peers._engine_tables import straight_line
from benchmarks.peers._long import MOMENTS
from benchmarks.peers._record import Record, case_named
from benchmarks.peers._statistics import significant
from benchmarks.peers._targets import Outcome, outcomes, unit_of

_MESSAGES = 10_000_000  # a round trip is two: one through the relay each way
# What the allocator keeps in another order the second time: so much more is no growth.
_ALLOCATOR = 1.03
# A figure of microseconds is no better than this.
_OFF_THE_LINE = 0.1
_COST = "64 bytes, one call"
# Counted where valgrind is there: other load does not bend that line.
_COUNTED = "instructions, one call"
_STATED = (
    ("connect", ("haproxy",)),
    ("idle", ("envoy", "haproxy")),
)


@dataclass(frozen=True)
class Line:
    """A demand and what came out.

    Attributes:
        measure, figure, demand: what was asked for.
        ours, theirs, ratio: what came out, as text; empty where there is none.
        verdict: in words.
        is_met: None where it cannot be said, or where a figure was only to be stated.
    """

    measure: str
    figure: str
    demand: str
    ours: str
    theirs: str
    ratio: str
    verdict: str
    is_met: bool | None


def demands(record: Record, long: Mapping[str, Any], engine: Mapping[str, Any]) -> list[Line]:
    """All of them, as far as the records have their measure.

    Args:
        record: of the peers.
        long: what `benchmarks long` wrote; may be empty.
        engine: what `benchmarks engine` found; may be empty.
    """
    lines = [_of_outcome(outcome) for outcome in outcomes(record)]
    lines += [_stated(record, case, rivals) for case, rivals in _STATED if case in record.cases]
    if "wfpstream" in long.get("runs", {}):
        lines += _of_long(long["runs"]["wfpstream"])
    if engine:
        lines.append(_of_engine(engine))
    return lines


def _of_outcome(outcome: Outcome) -> Line:
    case, target = case_named(outcome.target.case), outcome.target
    return Line(
        case.title,
        unit_of(case, target.figure),
        target.text(),
        _text(outcome.ours),
        f"{outcome.rival} {significant(outcome.theirs)}" if outcome.theirs is not None else "",
        _text(outcome.ratio),
        outcome.verdict(),
        outcome.is_met,
    )


def _text(value: float | None) -> str:
    return significant(value) if value is not None else ""


def _stated(record: Record, name: str, rivals: tuple[str, ...]) -> Line:
    case = case_named(name)
    ours = record.figure(name, "wfpstream", "cpu")
    theirs = {rival: record.figure(name, rival, "cpu") for rival in rivals}
    known = {rival: figure for rival, figure in theirs.items() if figure}
    return Line(
        case.title,
        case.cpu_unit,
        f"state that of {' and '.join(rivals)}",
        _text(ours),
        ", ".join(f"{rival} {significant(figure)}" for rival, figure in known.items()),
        ", ".join(significant(ours / figure) for figure in known.values()) if ours else "",
        "stated" if known else "not measured",
        None,
    )


def _of_long(run: Mapping[str, Any]) -> list[Line]:
    memory = dict(zip(MOMENTS, run["memory_mib"], strict=True))
    held = dict(zip(MOMENTS, run["descriptors"], strict=True))
    measure = f"{run['flows']:,} flows, {run['messages']:,} round trips"
    growth = max(
        memory["at the end"] / memory["after a tenth of the time"],
        memory["as many open again"] / memory["all open"],
    )
    has_all = 2 * run["messages"] >= _MESSAGES
    stays = growth <= _ALLOCATOR and held["all closed again"] <= held["before"]
    verdict = "met" if stays and has_all else "grows" if not stays else "not with so many messages"
    return [
        Line(
            measure,
            "MiB, and descriptors",
            f"{_MESSAGES:,} messages in all, no growth of memory or descriptors",
            f"{memory['all open']:,.0f} all open, {memory['after a tenth of the time']:,.0f} after a tenth of the "
            f"time, {memory['at the end']:,.0f} at the end, "
            f"{memory['as many open again']:,.0f} as many open again; {held['before']} descriptors before, "
            f"{held['all closed again']} after",
            "",
            significant(growth),
            verdict,
            stays and has_all,
        ),
        Line(measure, "us, p99", "state it", _text(run["p99_us"]), "", "", "stated", None),
    ]


def _of_engine(engine: Mapping[str, Any]) -> Line:
    slope, off = straight_line(engine, _COST)
    ours = f"{significant(slope)} us"
    if any(name.endswith(_COUNTED) for name in engine):
        counted, off = straight_line(engine, _COUNTED)
        ours += f", {significant(counted)} instructions"
    return Line(
        "engine, per added inspecting sublayer, 1 to 8",
        "CPU per item of 64 bytes",
        f"linear (no figure more than {_OFF_THE_LINE:.0%} off the line)",
        f"{ours}; at most {significant(off * 100, 2)}% off",
        "",
        "",
        "met" if off <= _OFF_THE_LINE else "not linear",
        off <= _OFF_THE_LINE,
    )
