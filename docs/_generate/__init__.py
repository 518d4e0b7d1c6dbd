"""Writes the reference pages that follow from the code: `python -m docs._generate`.

Owns which pages those are. The tests compare the pages with what is written here, so a change of the code that
a page tells of is followed by running it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs._generate.benchmarks import benchmarks_page, benchmarks_plot
from docs._generate.callouts import callouts_page
from docs._generate.cli import cli_page
from docs._generate.configuration import configuration_page
from docs._generate.events import events_page
from docs._generate.names import names_page
from docs._generate.torture import torture_page
from docs._generate.violations import violations_page

DOCS = Path(__file__).resolve().parent.parent

PAGES: dict[str, Callable[[], str]] = {
    "reference/benchmarks.md": benchmarks_page,
    "reference/benchmarks.svg": benchmarks_plot,
    "reference/callouts.md": callouts_page,
    "reference/cli.md": cli_page,
    "reference/configuration.md": configuration_page,
    "reference/events.md": events_page,
    "reference/violations.md": violations_page,
    "reference/torture.md": torture_page,
    "reference/wfp_names.md": names_page,
}


def write_pages(folder: Path = DOCS) -> list[str]:
    """Write every page that has changed; their names."""
    changed = []
    for name, make in PAGES.items():
        path, text = folder / name, make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed
