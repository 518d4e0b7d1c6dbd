"""Made-up records, as a run would leave them."""

from __future__ import annotations

from benchmarks.peers._record import Entry, Record
from benchmarks.peers._statistics import summarize

MACHINE = {
    "cpu": "Some CPU", "cpus": 2, "kernel": "Linux 6", "python": "3.11", "python_build": "built somehow",
    "commit": "abc", "date": "2026-11-22",
    "load_average": 0.1,
}  # fmt: skip


def entry(**figures: float | tuple[float, ...]) -> Entry:
    """An entry of these figures: a value, or one per round."""
    return Entry(
        {name: summarize(value if isinstance(value, tuple) else (value,)) for name, value in figures.items()}
    )


def record(cases: dict[str, dict[str, Entry]]) -> Record:
    """A record of these cases."""
    names = {peer for entries in cases.values() for peer in entries}
    peers = {name: {"title": f"the {name}", "version": "1.0"} for name in sorted(names)}
    return Record(MACHINE, 5, False, peers, cases)
