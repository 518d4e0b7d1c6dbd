"""What the docs take from the records: tables and the plot."""

from benchmarks.peers._demands import demands
from benchmarks.peers._engine_tables import from_engine_record
from benchmarks.peers._markdown import (
    case_tables,
    long_table,
    machine_text,
    made_text,
    misses_text,
    targets_table,
    versions_table,
    workers_table,
)
from benchmarks.peers._plot import plot
from benchmarks.peers._record import read_record

__all__ = [
    "case_tables",
    "demands",
    "from_engine_record",
    "long_table",
    "machine_text",
    "made_text",
    "misses_text",
    "plot",
    "read_record",
    "targets_table",
    "versions_table",
    "workers_table",
]
