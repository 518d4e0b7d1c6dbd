"""Snapshots of traces: one file per test and name, beside the test.

Owns where they lie, their form, and comparing with them. It must not know fixtures.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ._artifacts import file_name

if TYPE_CHECKING:
    import pytest

__all__ = ["FOLDER", "Snapshot", "snapshot_of"]

FOLDER = "__wfp_snapshots__"
UPDATE = "--wfp-update-snapshots"
_HEAD = "# What wfp_trace saw; written by --wfp-update-snapshots."


@dataclass(frozen=True)
class Snapshot:
    """A file with the sections of a trace.

    Attributes:
        path: where it is, or is to be.
    """

    path: Path

    def read(self) -> dict[str, list[str]] | None:
        """The lines of each section; None: there is no file yet.

        Raises:
            OSError, UnicodeDecodeError: it cannot be read.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        sections: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in text.splitlines():
            if line.startswith("[") and line.endswith("]"):
                lines = sections.setdefault(line[1:-1], [])
            elif line and not line.startswith("#"):
                lines.append(line)
        return sections

    def write(self, sections: Mapping[str, list[str]]) -> bool:
        """Put these sections there, in one step. Returns whether anything changed.

        Raises:
            OSError: as the system says.
        """
        if self.read() == dict(sections):
            return False
        lines = [_HEAD]
        for name, content in sections.items():
            lines += [f"[{name}]", *content]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd, beside = tempfile.mkstemp(prefix=f".{self.path.name[:40]}.", dir=self.path.parent)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write("\n".join([*lines, ""]))
            os.chmod(beside, 0o666 & ~_umask())
            os.replace(beside, self.path)
        except BaseException:
            os.unlink(beside)
            raise
        return True


def snapshot_of(item: pytest.Item, name: str) -> Snapshot:
    """The snapshot of a test; `name` tells several of one test apart."""
    _, _, rest = item.nodeid.partition("::")
    of_test = f"{rest}--{name}" if name else rest
    # Not ".txt": pytest takes test*.txt for doctests.
    return Snapshot(item.path.parent / FOLDER / item.path.stem / f"{file_name(of_test)}.trace")


def _umask() -> int:
    """As `open` would have it: others who work on the tests are to read the file."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
