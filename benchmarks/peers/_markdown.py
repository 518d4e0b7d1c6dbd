"""The tables of the docs, from the records. Owns which columns they have; the words around them are the page's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers._demands import Line
from benchmarks.peers._engine_tables import NOT_MEASURED, table
from benchmarks.peers._long import MOMENTS
from benchmarks.peers._record import Entry, Record, case_named
from benchmarks.peers._report import US, ratio
from benchmarks.peers._statistics import Summary, significant


def targets_table(lines: Sequence[Line]) -> str:
    """Every demand, what it is held against, and whether it is met."""
    head = ["measure", "figure", "asked for", "wfpstream", "the rival", "ratio", "verdict"]
    return table(head, (_target_row(line) for line in lines))


def _target_row(line: Line) -> list[str]:
    verdict = line.verdict if line.is_met or line.verdict == "stated" else f"**{line.verdict}**"
    return [line.measure, line.figure, line.demand, line.ours, line.theirs, line.ratio, verdict]


def misses_text(lines: Sequence[Line]) -> str:
    """What is missed, a line per target; that nothing is, where nothing is."""
    judged = [line for line in lines if line.verdict != "stated"]
    unknown = [line for line in judged if line.is_met is None]
    missed = [line for line in judged if line.is_met is False]
    parts = [f"{len(judged) - len(missed) - len(unknown)} of {len(judged)} targets are met."]
    for heading, some in (("Missed:", missed), ("Not measured:", unknown)):
        if some:
            parts.append(heading)
            parts.append(
                "\n".join(
                    f"- {line.measure} ({line.figure}): {line.demand}; {line.verdict}." for line in some
                )
            )
    return "\n\n".join(parts)


def workers_table(record: Record) -> str:
    """One worker and two, in the cases that have both."""
    rows = []
    for name, entries in record.cases.items():
        found = [entries.get(peer, Entry()).figures for peer in (US, f"{US}-workers")]
        if all(found):
            case = case_named(name)
            cells = [significant(one[key].median) for key in ("cpu", "wall") for one in found]
            ratios = [found[1][key].median / found[0][key].median for key in ("cpu", "wall")]
            rows.append(
                [
                    f"{case.title}: {case.cpu_unit}, {case.wall_unit}",
                    *(*cells[:2], significant(ratios[0])),
                    *(*cells[2:], significant(ratios[1])),
                ]
            )
    if not rows:
        return NOT_MEASURED
    return table(["case", "CPU, one worker", "two", "ratio", "rate, one worker", "two", "ratio"], rows)


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
        parts.append(f"### {case.title[:1].upper()}{case.title[1:]}\n\n{table(head, rows)}")
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
    return table(["relay", "version"], rows)


def machine_text(record: Record) -> str:
    """One sentence on where and how."""
    machine = record.machine
    pinned = (
        "the relay on a CPU of its own, the load on the others"
        if record.pinned
        else "nothing pinned to a CPU"
    )
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}; "
        f"{rounds_text(record.rounds)}, {pinned}; commit {machine['commit'] or 'unknown'}, {machine['date']}. "
        f"All relays in Python on Python {machine['python']} ({machine['python_build']})."
    )


def rounds_text(rounds: int) -> str:
    """How many, in words a reader expects."""
    return f"{rounds} round{'s' if rounds > 1 else ''}"


def made_text(whole: Mapping[str, Any]) -> str:
    """When and with what a record other than the peers' was made."""
    machine = whole["machine"]
    rounds = f", medians of {rounds_text(whole['rounds'])}" if "rounds" in whole else ""
    return f"Commit {machine['commit'] or 'unknown'}, {machine['date']}, Python {machine['python']}{rounds}."


def long_table(long: Mapping[str, Any]) -> str:
    """The long runs: how many, how fast, and memory and descriptors at seven moments."""
    parts = []
    for name, run in long["runs"].items():
        parts.append(
            f"{name}: {run['flows']:,} flows, {run['messages']:,} round trips of 64 bytes, {run['outstanding']} on "
            f"their way at once, {run['seconds']:,.0f} s. A round trip: p50 {significant(run['p50_us'])} us, "
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
        parts.append(table(["moment", "memory, MiB", "descriptors"], rows))
    return "\n\n".join(parts)
