"""The plot for the docs: horizontal bars as SVG, drawn by hand so that nothing has to be installed for it.

Owns geometry and colours. A panel per case; a bar far longer than the others is cut, and its number says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.peers._record import Record, case_named
from benchmarks.peers._report import US
from benchmarks.peers._statistics import significant

# What is shown, and under which heading: CPU (or memory) throughout, where less is better.
PANELS = (
    ("bulk-1-to-client", "Bulk, one flow"),
    ("bulk-8-to-client", "Bulk, eight flows"),
    ("ping-pong-32", "Ping-pong of 64 bytes, 32 connections"),
    ("connect", "Connect, echo, close"),
    ("offload-1", "Bulk after ALLOW_CONNECTION, or spliced"),
    ("idle", "Memory of an idle flow"),
)

_WIDTH = 900
_COLUMNS = 2
_PANEL_WIDTH = 430
_LABELS = 150
_NUMBERS = 105
_BARS = _PANEL_WIDTH - _LABELS - _NUMBERS
_BAR = 16
_STEP = 22
_HEAD = 44
_GAP = 26
# A bar longer than so many times wfpstream's is cut, and then so much longer than the longest whole one.
_CUT = 4.0
_ROOM_FOR_CUT = 1.25

_INK = "#1f2933"
_FAINT = "#66717d"
_OURS = "#0b6e99"
_THEIRS = "#b4bfc9"


@dataclass(frozen=True)
class Bar:
    """One bar: a name, its value, its ratio to wfpstream's (None where that is missing)."""

    name: str
    value: float
    ratio: float | None


@dataclass(frozen=True)
class Panel:
    """The bars of one case, the best first."""

    heading: str
    unit: str
    bars: tuple[Bar, ...]

    @property
    def height(self) -> int:
        """In pixels, with its heading."""
        return _HEAD + _STEP * len(self.bars)


def panels_of(record: Record) -> list[Panel]:
    """The panels for which the record has figures."""
    panels = []
    for name, heading in PANELS:
        medians = {
            peer: entry.figures["cpu"].median
            for peer, entry in record.cases.get(name, {}).items()
            if "cpu" in entry.figures and peer != "direct"
        }
        if not medians:
            continue
        ours = medians.get(US) or medians.get(f"{US}-offload")
        bars = [Bar(peer, value, value / ours if ours else None) for peer, value in medians.items()]
        panels.append(
            Panel(heading, case_named(name).cpu_unit, tuple(sorted(bars, key=lambda bar: bar.value)))
        )
    return panels


def plot(record: Record) -> str:
    """The whole picture.

    Raises:
        ValueError: the record has none of the panels' cases.
    """
    panels = panels_of(record)
    if not panels:
        raise ValueError("nothing to plot: the record has none of the plotted cases")
    rows = [panels[start : start + _COLUMNS] for start in range(0, len(panels), _COLUMNS)]
    shapes, top = [], 64
    for row in rows:
        for column, panel in enumerate(row):
            shapes += _panel(panel, 10 + column * (_PANEL_WIDTH + 20), top)
        top += max(panel.height for panel in row) + _GAP
    machine = record.machine
    foot = f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['kernel']}; {machine['date']}; wfpstream with a monitor"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top + 16}" '
            f'viewBox="0 0 {_WIDTH} {top + 16}" font-family="system-ui, sans-serif" font-size="13">',
            f'<rect width="{_WIDTH}" height="{top + 16}" fill="#ffffff"/>',
            _text(10, 24, "The relay's own CPU, and its memory: less is better", _INK, size=17, weight="600"),
            _text(10, 44, f"Medians of {record.rounds} interleaved rounds, each relay on one thread", _FAINT),
            *shapes,
            _text(10, top + 4, foot, _FAINT, size=11),
            "</svg>",
            "",
        ]
    )


def _panel(panel: Panel, left: int, top: int) -> list[str]:
    shapes = [
        _text(left, top + 16, panel.heading, _INK, size=14, weight="600"),
        _text(left, top + 33, panel.unit, _FAINT, size=11),
    ]
    longest = _longest(panel.bars)
    for number, bar in enumerate(panel.bars):
        shapes += _bar(bar, left, top + _HEAD + number * _STEP, longest)
    return shapes


def _longest(bars: Sequence[Bar]) -> float:
    """The value that fills the width. Bars that are far off fill it as well, cut; the others then stay shorter."""
    whole = [bar.value for bar in bars if not _is_far_off(bar, bars)]
    return max(whole) * (1.0 if len(whole) == len(bars) else _ROOM_FOR_CUT)


def _is_far_off(bar: Bar, bars: Sequence[Bar]) -> bool:
    usual = next((one.value for one in bars if one.ratio == 1), bars[len(bars) // 2].value)
    return bar.value > usual * _CUT


def _bar(bar: Bar, left: int, top: int, longest: float) -> list[str]:
    is_ours = bar.name.startswith(US)
    width = max(1.0, _BARS * min(bar.value, longest) / longest)
    x, fill = left + _LABELS, _OURS if is_ours else _THEIRS
    shapes = [
        _text(x - 8, top + 13, bar.name, _INK, anchor="end", weight="600" if is_ours else "400"),
        f'<rect x="{x}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{fill}"/>',
    ]
    if bar.value > longest:
        shapes.append(_tear(x + width - 22, top))
    number = significant(bar.value)
    if bar.ratio is not None and bar.ratio != 1:
        number += f"  ({significant(bar.ratio, 2)} x)"
    return [*shapes, _text(x + width + 6, top + 13, number, _INK)]


def _tear(x: float, top: int) -> str:
    """Two slanted white strokes: the bar is longer than it looks."""
    path = " ".join(f"M{x + shift:.1f} {top + _BAR} l6 -{_BAR}" for shift in (0, 6))
    return f'<path d="{path}" stroke="#ffffff" stroke-width="3"/>'


def _text(
    x: float, y: float, text: str, fill: str, *, size: int = 13, anchor: str = "start", weight: str = "400"
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{fill}" font-size="{size}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
