"""The tables of the docs, from the records. Owns which columns they have; the words around them are the page's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from benchmarks.peers._long import MOMENTS
from benchmarks.peers._record import Entry, Record, case_named
from benchmarks.peers._report import US, ratio
from benchmarks.peers._statistics import Summary, significant
from benchmarks.peers._targets import Outcome, Target, outcomes, unit_of


def targets_table(record: Record) -> str:
    """Every target, what it is held against, and whether it is met."""
    head = ["measure", "figure", "asked for", "wfpstream", "the rival", "ratio", "verdict"]
    return _table(head, (_target_row(outcome) for outcome in outcomes(record)))


def _target_row(outcome: Outcome) -> list[str]:
    case, target = case_named(outcome.target.case), outcome.target
    rival = f"{outcome.rival} {significant(outcome.theirs)}" if outcome.theirs is not None else ""
    return [
        case.title,
        unit_of(case, target.figure),
        target.text(),
        significant(outcome.ours) if outcome.ours is not None else "",
        rival,
        significant(outcome.ratio) if outcome.ratio is not None else "",
        outcome.verdict() if outcome.is_met else f"**{outcome.verdict()}**",
    ]


def misses_text(record: Record) -> str:
    """What is missed, a line per target; that nothing is, where nothing is."""
    missed = [outcome for outcome in outcomes(record) if outcome.is_met is False]
    if not missed:
        return "Every target is met in this run."
    lines = [
        f"- {_measure(outcome.target)}: {outcome.target.text()}; {outcome.verdict()}." for outcome in missed
    ]
    return "\n".join([f"{len(missed)} of {len(outcomes(record))} targets are missed:", "", *lines])


def _measure(target: Target) -> str:
    case = case_named(target.case)
    return f"{case.title} ({unit_of(case, target.figure)})"


def case_tables(record: Record) -> str:
    """A heading and a table for every case: all peers, CPU first, with spreads."""
    parts = []
    for name, entries in record.cases.items():
        case = case_named(name)
        has_latency = any("p50_us" in entry.figures for entry in entries.values())
        head = [
            "relay",
            case.cpu_unit,
            "ratio",
            case.wall_unit,
            "ratio",
            *(["p50, us", "p99, us"] if has_latency else []),
        ]
        ours = entries.get(US, Entry()).figures
        rows = [_case_row(record, peer, entry, ours, has_latency) for peer, entry in entries.items()]
        parts.append(f"### {case.title[:1].upper()}{case.title[1:]}\n\n{_table(head, rows)}")
    return "\n\n".join(parts)


def _case_row(
    record: Record, peer: str, entry: Entry, ours: dict[str, Summary], has_latency: bool
) -> list[str]:
    title = record.peers.get(peer, {}).get("title", peer)
    if entry.failed:
        return [title, f"none: {entry.failed}", "", "", "", *(["", ""] if has_latency else [])]
    cells = [
        f"{title} ({entry.note})" if entry.note else title,
        _spread(entry.figures["cpu"]),
        ratio(entry, ours, "cpu"),
        _spread(entry.figures["wall"]),
        ratio(entry, ours, "wall"),
    ]
    if has_latency:
        cells += [_spread(entry.figures[key]) if key in entry.figures else "" for key in ("p50_us", "p99_us")]
    return cells


def _spread(summary: Summary) -> str:
    if summary.low == summary.high:
        return significant(summary.median)
    return f"{significant(summary.median)} ({significant(summary.low)} to {significant(summary.high)})"


def versions_table(record: Record) -> str:
    """Which relays, and which versions of them."""
    rows = [[fields["title"], fields["version"]] for fields in record.peers.values()]
    return _table(["relay", "version"], rows)


def machine_text(record: Record) -> str:
    """One sentence on where and how."""
    machine = record.machine
    pinned = (
        "the relay on a CPU of its own, the load on the others"
        if record.pinned
        else "nothing pinned to a CPU"
    )
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}, Python {machine['python']}; "
        f"{record.rounds} rounds, {pinned}; commit {machine['commit'] or 'unknown'}, {machine['date']}."
    )


def long_table(long: dict[str, Any]) -> str:
    """The long runs: how many, how fast, and memory and descriptors at five moments."""
    parts = []
    for name, run in long["runs"].items():
        parts.append(
            f"{name}: {run['flows']:,} flows, {run['messages']:,} messages of 64 bytes, {run['outstanding']} on their "
            f"way at once, {run['seconds']:,.0f} s. A round trip: p50 {significant(run['p50_us'])} us, "
            f"p99 {significant(run['p99_us'])} us, longest {significant(run['max_us'])} us; "
            f"CPU {significant(run['cpu_us'])} us."
        )
        rows = [
            [moment, significant(memory), f"{number:,}"]
            for moment, memory, number in zip(MOMENTS, run["memory_mib"], run["descriptors"], strict=True)
        ]
        rows.append(
            ["the most in between", significant(run["most_memory_mib"]), f"{run['most_descriptors']:,}"]
        )
        parts.append(_table(["moment", "memory, MiB", "descriptors"], rows))
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def engine_text(figures: dict[str, float]) -> str:
    """What an item costs by number of inspecting sublayers, and the straight lines through it.

    Args:
        figures: of `benchmarks engine`: microseconds by "N sublayers, SIZE bytes, CALLS", or instructions by
            "N sublayers, instructions, CALLS"; anything else is left out.
    """
    columns: dict[str, dict[int, float]] = {}
    for name, value in figures.items():
        found = re.fullmatch(r"(\d+) sublayers, (.+)", name)
        if found:
            columns.setdefault(found[2], {})[int(found[1])] = value
    numbers = sorted({number for column in columns.values() for number in column})
    rows = [
        [
            str(number),
            *(significant(column[number]) if number in column else "" for column in columns.values()),
        ]
        for number in numbers
    ]
    lines = []
    for name, column in columns.items():
        inspecting = {number: value for number, value in column.items() if number}
        slope, off = _line(inspecting)
        lines.append(
            f"- {name}: {significant(slope)} for every inspecting sublayer more, from the first to the "
            f"{max(inspecting)}th; no figure is more than {significant(off * 100, 2)}% off the straight line."
        )
    return f"{_table(['inspecting sublayers', *columns], rows)}\n\n" + "\n".join(lines)


def _line(values: dict[int, float]) -> tuple[float, float]:
    """Slope of the least-squares line, and how far the worst figure is from it, as a share of the figure."""
    middle_x, middle_y = fmean(values), fmean(values.values())
    slope = sum((x - middle_x) * (y - middle_y) for x, y in values.items()) / sum(
        (x - middle_x) ** 2 for x in values
    )
    off = max(abs(middle_y + slope * (x - middle_x) - y) / y for x, y in values.items())
    return slope, off
