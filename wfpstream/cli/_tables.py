"""A table for people: as wide as the terminal, or as it has to be, and nothing in it can steer a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from io import StringIO
from typing import Any, TextIO

from wfpstream.observe import safe_text

_GAP = 2
_LEAST = 10
_NEVER_FOLDED = frozenset(("client", "server", "age", "direction"))


class Size(int):
    """Bytes, in a table for people."""

    def __str__(self) -> str:
        """`999`, `9.8KiB`, `118MiB`."""
        if self < 1024:
            return f"{int(self)}"
        size = self / 1024
        units = iter(("KiB", "MiB", "GiB"))
        unit = next(units)
        while size >= 1023.5 and (larger := next(units, None)):
            size, unit = size / 1024, larger
        return f"{size:.1f}{unit}" if size < 9.95 else f"{size:.0f}{unit}"


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[object]], file: TextIO) -> list[str]:
    """The lines of a table as it fits `file`. Columns of numbers stand to the right; cells are escaped.

    On a narrow terminal texts are folded, but for addresses and times.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[_cell(value) for value in row] for row in rows]
    is_unicode = (file.encoding or "").lower().startswith("utf")
    table = Table(box=box.SIMPLE_HEAD if is_unicode else box.ASCII, pad_edge=False, padding=(0, 1, 0, 0))
    least = widest = _GAP
    for number, name in enumerate(columns):
        is_text = any(isinstance(row[number], str) for row in rows)
        justify: Any = "left" if is_text else "right"
        keeps = not is_text or name in _NEVER_FOLDED
        width = max(len(name), *(len(row[number]) for row in cells))
        widest += width + _GAP
        least += (width if keeps else min(width, _LEAST)) + _GAP
        table.add_column(name, justify=justify, overflow="fold", no_wrap=keeps, min_width=min(width, _LEAST))
    for row in cells:
        table.add_row(*map(Text, row))
    # What a terminal has no room for at all it may break itself: better than to lose it.
    width = max(least, shutil.get_terminal_size().columns) if file.isatty() else widest
    text = StringIO()
    Console(file=text, width=width, highlight=False, color_system=None, emoji=False).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines() if line.strip()]


def address_text(address: Sequence[Any]) -> str:
    """`host:port`, an IPv6 host in brackets."""
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def time_text(seconds: float) -> str:
    """`0.8 s`, `59.0 s`, `1:02`, `3:04:05`, `2 d 3:04:05`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes}:{rest:02}"
    days, hours = divmod(hours, 24)
    return f"{f'{days} d ' if days else ''}{hours}:{minutes:02}:{rest:02}"


def _cell(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, Size):
        return f"{value:,}"
    return safe_text(str(value))
