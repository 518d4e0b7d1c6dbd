"""What a run leaves behind: a record that is written as JSON and from which every table and plot is made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers._cases import CASES, Case
from benchmarks.peers._machine import describe_machine, version_text
from benchmarks.peers._programs import Peer
from benchmarks.peers._rounds import Table
from benchmarks.peers._statistics import Summary, from_json


@dataclass(frozen=True)
class Entry:
    """One peer in one case: its figures, or why it has none.

    Attributes:
        figures: `cpu` and `wall` in the case's units, `p50_us`, `p99_us`.
        failed: the reason, if no round brought figures.
        note: what the reader must know of them.
    """

    figures: dict[str, Summary] = field(default_factory=dict)
    failed: str = ""
    note: str = ""


@dataclass(frozen=True)
class Record:
    """A run.

    Attributes:
        machine: where it was made.
        rounds: how many.
        pinned: whether the relay had a CPU to itself.
        peers: title and version, by name.
        cases: entries by the case's name, then the peer's.
    """

    machine: dict[str, Any]
    rounds: int
    pinned: bool
    peers: dict[str, dict[str, str]]
    cases: dict[str, dict[str, Entry]]

    def figure(self, case: str, peer: str, name: str) -> float | None:
        """A median, or None where there is none."""
        entry = self.cases.get(case, {}).get(peer)
        return entry.figures[name].median if entry is not None and name in entry.figures else None


def case_named(name: str) -> Case:
    """The case of a record's table.

    Raises:
        KeyError: there is none of that name (any more).
    """
    return {case.name: case for case in CASES}[name]


def make_record(table: Table, peers: Sequence[Peer], rounds: int, pinned: bool) -> Record:
    """From what the rounds brought."""
    cases = {
        name: {
            peer: Entry(
                row.summaries(), "" if row.values else row.failures[0], _failures_note(row.note, row.failures)
            )
            for peer, row in rows.items()
        }
        for name, rows in table.items()
    }
    known = {peer.name: {"title": peer.title, "version": version_text(peer)} for peer in peers}
    return Record(describe_machine(), rounds, pinned, known, cases)


def _failures_note(note: str, failures: list[str]) -> str:
    failed = f"failed in {len(failures)} of the rounds: {failures[0]}" if failures else ""
    return "; ".join(part for part in (note, failed) if part)


def write_record(record: Record, path: Path) -> None:
    """As JSON."""
    cases = {
        name: {
            peer: {
                "figures": {key: summary.to_json() for key, summary in entry.figures.items()},
                "failed": entry.failed,
                "note": entry.note,
            }
            for peer, entry in entries.items()
        }
        for name, entries in record.cases.items()
    }
    whole = {
        "machine": record.machine, "rounds": record.rounds, "pinned": record.pinned,
        "peers": record.peers, "cases": cases,
    }  # fmt: skip
    path.write_text(json.dumps(whole, indent=1) + "\n")


def read_record(path: Path) -> Record:
    """What `write_record` wrote.

    Raises:
        OSError: it cannot be read.
    """
    whole = json.loads(path.read_text())
    cases = {
        name: {
            peer: Entry(
                {key: from_json(summary) for key, summary in entry["figures"].items()},
                entry["failed"],
                entry["note"],
            )
            for peer, entry in entries.items()
        }
        for name, entries in whole["cases"].items()
    }
    return Record(whole["machine"], whole["rounds"], whole["pinned"], whole["peers"], cases)
