"""The files that a failed test leaves: events, a capture of both sides, the trace, and how to run it again.

Owns their names and contents. It must not know when a test has failed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from ._options import arguments_of

if TYPE_CHECKING:
    import pytest

    from ._options import Settings
    from ._watched import Watched

__all__ = ["file_name", "reproducing_command", "trace_of", "write_artifacts"]

_LONGEST_NAME = 120


def reproducing_command(item: pytest.Item, settings: Settings) -> str:
    """The command line that runs this test again as it was run, from the same folder."""
    folder = item.config.invocation_params.dir
    path = os.path.relpath(item.path, folder)
    _, colons, rest = item.nodeid.partition("::")
    return " ".join(["python -m pytest", shlex.quote(f"{path}{colons}{rest}"), *arguments_of(settings)])


def trace_of(watched: Watched) -> list[str]:
    """The trace of one proxy or pair, as lines that are safe to show."""
    from wfpstream.observe import safe_text
    from wfpstream.testing import trace_lines

    lines = trace_lines(watched.entries, with_time=watched.kind == "pair")
    if watched.recorder.lost:
        lines.append(f"({watched.recorder.lost} later entries were not kept)")
    return [safe_text(line) for line in lines]


def write_artifacts(
    folder: Path, item: pytest.Item, settings: Settings, watched: Sequence[Watched]
) -> list[Path]:
    """Write the files of a failed test into a folder of its own below `folder`.

    Returns:
        What was written.

    Raises:
        OSError: as the system says.
    """
    place = folder / file_name(item.nodeid)
    place.mkdir(parents=True, exist_ok=True)
    written = [place / "reproduce.txt"]
    written[0].write_text(f"{reproducing_command(item, settings)}\n", encoding="utf-8")
    for one in watched:
        name = one.label.replace(" ", "-")
        written += [place / f"{name}.events.jsonl", place / f"{name}.pcapng", place / f"{name}.trace.txt"]
        _write_events(written[-3], one)
        written[-2].write_bytes(one.recorder.pcapng(one.zero, one.since))
        written[-1].write_text("\n".join([*trace_of(one), ""]), encoding="utf-8")
    return written


def file_name(text: str) -> str:
    """A file's name for any text: two different texts have different names."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")
    if name == text and len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{sha256(text.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def _write_events(path: Path, watched: Watched) -> None:
    from wfpstream.observe import JsonLines

    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    sink = JsonLines(fd, data="full", timestamp=lambda t: watched.zero + t)
    try:
        for event in watched.events:
            sink(event)
    finally:
        sink.close()
