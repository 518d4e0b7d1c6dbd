"""A table for people: as wide as the terminal, or as it has to be, and nothing in it can steer a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from io import StringIO
from typing import Any, TextIO

from wfpstream.observe import safe_text

_WIDTH = 200


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[object]], file: TextIO) -> list[str]:
    """The lines of a table as it fits `file`. Columns of numbers stand to the right; cells are escaped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[_cell(value) for value in row] for row in rows]
    is_unicode = (file.encoding or "").lower().startswith("utf")
    table = Table(box=box.SIMPLE_HEAD if is_unicode else box.ASCII, pad_edge=False, padding=(0, 1))
    for number, name in enumerate(columns):
        is_text = any(isinstance(row[number], str) for row in rows)
        # Of a narrow terminal numbers get what they need; names and addresses are folded.
        justify: Any = "left" if is_text else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=not is_text)
    for row in cells:
        table.add_row(*map(Text, row))
    widest = max(len("".join(row)) for row in [list(columns), *cells])
    width = shutil.get_terminal_size().columns if file.isatty() else max(_WIDTH, 2 * widest)
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
    return f"{value:,}" if isinstance(value, int) else safe_text(str(value))
