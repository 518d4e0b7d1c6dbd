"""What `wfpstream replay` shows to people: the table of streams, sums below it, a progress bar.

Owns the form. It keeps at most as many streams as it shows.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from wfpstream.observe import safe_text

if TYPE_CHECKING:
    from rich.table import Table

    from wfpstream.replay import CaptureSummary, StreamResult

MAX_ROWS = 200
_PATIENCE = 2.0
_WIDTH = 200


class StreamTable:
    """One row per stream, then sums over all of them.

    Args:
        several: there are several captures, so each row names its own.
    """

    def __init__(self, several: bool) -> None:
        self._several = several
        self._rows: list[tuple[str, ...]] = []
        self._streams = 0
        self._sums = [0] * 5
        self._changed = 0

    def add(self, result: StreamResult) -> None:
        """One more stream."""
        up, down = result.client_to_server, result.server_to_client
        numbers = (up.bytes_in, up.bytes_out, down.bytes_in, down.bytes_out, up.missing + down.missing)
        self._streams += 1
        self._changed += result.changed
        self._sums = [total + number for total, number in zip(self._sums, numbers, strict=True)]
        if len(self._rows) < MAX_ROWS:
            ended = f"{result.ended}, midstream" if result.midstream else result.ended
            row = (_address(result.client), _address(result.server), *map(_number, numbers))
            name = (safe_text(result.capture),) if self._several else ()
            self._rows.append((*name, str(result.stream), *row, "yes" if result.changed else "", ended))

    def lines(self, file: TextIO) -> Iterator[str]:
        """The table as it fits `file`: a terminal's width, or as wide as it has to be."""
        if not self._streams:
            yield "no TCP streams"
            return
        from rich.console import Console

        if file.isatty():
            width = shutil.get_terminal_size().columns
        else:
            width = max(_WIDTH, 2 * max(len("".join(row)) for row in self._rows))
        text = StringIO()
        console = Console(file=text, width=width, highlight=False, color_system=None, emoji=False)
        console.print(self._table((file.encoding or "").lower().startswith("utf")))
        for line in text.getvalue().splitlines():
            yield line.rstrip()
        if self._streams > len(self._rows):
            yield f"and {self._streams - len(self._rows)} more"

    def _table(self, is_unicode: bool) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=box.SIMPLE_HEAD if is_unicode else box.ASCII, show_footer=True, pad_edge=False, padding=(0, 1)
        )
        sums = [*map(_number, self._sums), str(self._changed) if self._changed else "", ""]
        # fmt: off
        names = ["stream", "client", "server", "sent", "passed on", "answered", "passed on", "missing", "changed",
                 "ended"]
        # fmt: on
        feet = [str(self._streams), "", "", *sums]
        if self._several:
            names, feet = ["capture", *names], ["", *feet]
        for name, foot in zip(names, feet, strict=True):
            is_text = name in ("capture", "client", "server", "changed", "ended")
            # Of a narrow terminal numbers get what they need; names and addresses are folded.
            justify: Any = "left" if is_text else "right"
            table.add_column(name, footer=foot, justify=justify, overflow="fold", no_wrap=not is_text)
        for row in self._rows:
            table.add_row(*map(Text, row))
        return table


def summary_lines(summaries: Sequence[CaptureSummary]) -> Iterator[str]:
    """Below the table: what was read, what was left out, what was given up."""
    packets = sum(summary.packets for summary in summaries)
    parts = [f"{packets} packets"]
    if len(summaries) > 1:
        parts.append(f"{len(summaries)} captures")
    ignored: Counter[str] = Counter()
    for summary in summaries:
        ignored.update(summary.ignored)
    left_out = ", ".join(f"{count} {safe_text(reason)}" for reason, count in sorted(ignored.items()))
    yield f"{', '.join(parts)}{f'; left out: {left_out}' if left_out else ''}"
    for summary in summaries:
        yield from map(safe_text, summary.notes)


def violation_text(summaries: Sequence[CaptureSummary]) -> str:
    """The rules that were broken, and how often: `V-5 (3), V-9`."""
    counts: Counter[str] = Counter()
    for summary in summaries:
        counts.update(summary.violations)
    return ", ".join(f"{rule} ({count})" if count > 1 else rule for rule, count in sorted(counts.items()))


class FirstLines:
    """Writes the first lines only: a lossy capture has a line for every hole."""

    def __init__(self, write: Callable[[str], None], last: Callable[[str], None], limit: int) -> None:
        self._write = write
        self._last = last
        self._left = limit

    def __call__(self, line: str) -> None:
        """One more line."""
        if self._left > 0:
            self._write(line)
        elif self._left == 0:
            self._last("more of these are not shown (-v shows all)")
        self._left -= 1


class ProgressBar:
    """Shows how much of the captures is read, if that takes long.

    Args:
        captures: their names.
        shown: there is somebody who looks.
        clock: monotonic seconds.
    """

    def __init__(
        self, captures: Sequence[str], shown: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shown = shown
        self._total = _total_size(captures) if shown else None
        self._clock = clock
        self._begun = clock()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Callable[[int], None] | None:
        return self._update if self._shown else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _update(self, position: int) -> None:
        if self._bar is None:
            if self._clock() - self._begun < _PATIENCE:
                return
            self._start()
        self._bar.update(self._task, completed=position)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bar = Progress(
            BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
            console=Console(file=sys.stderr), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=self._total)
        self._bar.start()


def _total_size(captures: Sequence[str]) -> int | None:
    """Bytes of all captures together; None if one of them has no end that is known."""
    try:
        return sum(os.stat(capture).st_size for capture in captures if capture != "-") or None
    except (OSError, ValueError):
        return None


def _address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _number(number: int) -> str:
    return f"{number:,}"
