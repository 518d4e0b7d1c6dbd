"""What the docs take from a record: its tables and the plot."""

from benchmarks.peers._markdown import (
    case_tables,
    engine_text,
    long_table,
    machine_text,
    misses_text,
    targets_table,
    versions_table,
)
from benchmarks.peers._plot import plot
from benchmarks.peers._record import read_record

__all__ = [
    "case_tables",
    "engine_text",
    "long_table",
    "machine_text",
    "misses_text",
    "plot",
    "read_record",
    "targets_table",
    "versions_table",
]
