"""The page of the benchmarks and its plot: the figures of record, the words around them from the template."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.peers.tables import (
    case_tables,
    demands,
    from_engine_record,
    long_table,
    machine_text,
    made_text,
    misses_text,
    plot,
    read_record,
    targets_table,
    versions_table,
    workers_table,
)
from docs._generate._markdown import generated, page

TEXTS = Path(__file__).with_name("benchmarks.md")
RECORDS = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "record"


def benchmarks_page() -> str:
    """`reference/benchmarks.md`: each `<!-- name -->` of the template becomes what the record says."""
    record = read_record(RECORDS / "peers.json")
    long = json.loads((RECORDS / "long.json").read_text())
    engine = json.loads((RECORDS / "engine.json").read_text())
    lines = demands(record, long, engine.get("engine", {}))
    text = TEXTS.read_text(encoding="utf-8")
    parts = {
        "machine": machine_text(record),
        "targets": targets_table(lines),
        "misses": misses_text(lines),
        "cases": case_tables(record),
        "workers": workers_table(record),
        "versions": versions_table(record),
        "long": f"{made_text(long)}\n\n{long_table(long)}",
        "engine-made": made_text(engine),
        **from_engine_record(engine),
    }
    for name, part in parts.items():
        text = text.replace(f"<!-- {name} -->", part)
    return page(generated("`benchmarks/record/` and `docs/_generate/benchmarks.md`"), text)


def benchmarks_plot() -> str:
    """`reference/benchmarks.svg`."""
    return plot(read_record(RECORDS / "peers.json"))
