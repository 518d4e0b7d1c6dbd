"""The text table on the terminal."""

from __future__ import annotations

from benchmarks.peers._record import Entry, Record, case_named
from benchmarks.peers._statistics import Summary, significant

US = "wfpstream"


def report(record: Record) -> str:
    """Every case as a table: CPU first, then the wall clock, each with its spread and its ratio to wfpstream."""
    machine = record.machine
    pinned = "the relay on a CPU of its own" if record.pinned else "nothing pinned"
    parts = [
        f"peers: medians of {record.rounds} interleaved rounds (lowest..highest), {pinned};"
        f" {machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}, Python {machine['python']}"
        f" ({machine['python_build']})"
    ]
    for name, entries in record.cases.items():
        parts.append("\n".join(_case_lines(name, entries)))
    return "\n\n".join(parts)


def _case_lines(name: str, entries: dict[str, Entry]) -> list[str]:
    case = case_named(name)
    width = max(len(peer) for peer in entries) + 1
    lines = [
        f"{name}: {case.title}",
        f"{'':{width}} {case.cpu_unit:>24} {'x us':>6} {case.wall_unit:>26} {'x us':>6} {'p50 us':>8} {'p99 us':>8}",
    ]
    ours = entries.get(US, Entry()).figures
    for peer, entry in entries.items():
        if entry.failed:
            lines.append(f"{peer:{width}} {entry.failed}")
            continue
        cells = [
            f"{_spread(entry.figures['cpu']):>24} {ratio(entry, ours, 'cpu'):>6}",
            f"{_spread(entry.figures['wall']):>26} {ratio(entry, ours, 'wall'):>6}",
        ]
        cells += [
            f"{significant(entry.figures[key].median):>8}"
            for key in ("p50_us", "p99_us")
            if key in entry.figures
        ]
        lines.append(f"{peer:{width}} {' '.join(cells)}{'  ' if entry.note else ''}{entry.note}")
    return lines


def _spread(summary: Summary) -> str:
    return f"{significant(summary.median)} ({significant(summary.low)}..{significant(summary.high)})"


def ratio(entry: Entry, ours: dict[str, Summary], key: str) -> str:
    """How many times wfpstream's figure; nothing where either is missing."""
    if key not in ours or key not in entry.figures or not ours[key].median:
        return ""
    return significant(entry.figures[key].median / ours[key].median)
