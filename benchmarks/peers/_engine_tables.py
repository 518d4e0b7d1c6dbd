"""The docs' tables of what is measured without other relays: the engine by itself, and a slow callout.

Owns their columns. Reads the figures by the names under which the measurements keep them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.peers._statistics import significant

NOT_MEASURED = "Not measured for this page."


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def engine_text(figures: Mapping[str, float]) -> str:
    """What an item costs by number of inspecting sublayers, and the straight lines through it.

    Args:
        figures: of `benchmarks engine`: microseconds by "N sublayers, SIZE bytes, CALLS", or instructions by
            "N sublayers, instructions, CALLS"; anything else is left out.
    """
    columns = _columns(figures)
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
        slope, off = straight_line(figures, name)
        lines.append(
            f"- {name}: {significant(slope)} for every inspecting sublayer more, from the first to the "
            f"{max(column)}th; no figure is more than {significant(off * 100, 2)}% off the straight line."
        )
    return f"{table(['inspecting sublayers', *columns], rows)}\n\n" + "\n".join(lines)


def _columns(figures: Mapping[str, float]) -> dict[str, dict[int, float]]:
    columns: dict[str, dict[int, float]] = {}
    for name, value in figures.items():
        found = re.fullmatch(r"(\d+) sublayers, (.+)", name)
        if found:
            columns.setdefault(found[2], {})[int(found[1])] = value
    return columns


def straight_line(figures: Mapping[str, float], name: str) -> tuple[float, float]:
    """Slope of the least-squares line of a column, and how far its worst figure is off it, as a share of the figure.

    Without the figure for no sublayer: the first one costs more than another.
    """
    values = {number: value for number, value in _columns(figures)[name].items() if number}
    middle_x, middle_y = fmean(values), fmean(values.values())
    slope = sum((x - middle_x) * (y - middle_y) for x, y in values.items()) / sum(
        (x - middle_x) ** 2 for x in values
    )
    return slope, max(abs(middle_y + slope * (x - middle_x) - y) / y for x, y in values.items())


def held_table(figures: Mapping[str, float]) -> str:
    """What it costs to wait for so many bytes that come one at a time, and what a byte costs."""
    rows = []
    for name, seconds in figures.items():
        found = re.fullmatch(r"(\d+) MiB in single bytes, seconds", name)
        if found:
            mib = int(found[1])
            rows.append([str(mib), significant(seconds), significant(seconds / (mib << 20) * 1e6)])
    return table(["MiB in single bytes", "CPU s", "CPU us/byte"], rows)


def match_table(figures: Mapping[str, float]) -> str:
    """CPU of searching and editing by case."""
    rows = ([name, significant(value)] for name, value in figures.items() if not name.endswith(", us"))
    return table(["items of 128 KiB", "CPU s/GB"], rows)


def slow_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """What a callout of 50 ms per call costs the others."""
    head = ["the slow callout", "round trips/s", "p50, ms", "p99, ms", "flows hit", "p99 of the others, ms"]
    rows = [
        [name, *(significant(value) if value or key == "flows_hit" else "" for key, value in row.items())]
        for name, row in figures.items()
    ]
    return table(head, rows)


def birth_table(figures: Mapping[str, float]) -> str:
    """A connection's CPU in the engine, and the memory of a flow."""
    names = {name.partition(", ")[0]: None for name in figures}
    columns = ("life us", "traced", "traced used", "resident", "resident used")
    head = ["callouts", "CPU us", "traced bytes", "after an item", "resident bytes", "after an item"]
    return table(
        head, ([name, *(f"{figures[f'{name}, {column}']:,.0f}" for column in columns)] for name in names)
    )


def from_engine_record(whole: Mapping[str, Any]) -> dict[str, str]:
    """The parts of the page by name, each from its measurement; one that was not made says so.

    Args:
        whole: what `benchmarks --keep` wrote of everything but peers and the long run.
    """
    makers: dict[str, tuple[str, Callable[[Any], str]]] = {
        "engine": ("engine", engine_text),
        "held": ("engine", held_table),
        "birth": ("birth", birth_table),
        "match": ("match", match_table),
        "slow": ("slow", slow_table),
    }
    return {
        part: make(whole[name]) if name in whole else NOT_MEASURED for part, (name, make) in makers.items()
    }
