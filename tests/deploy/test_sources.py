"""Where Debian's packages come from is read from apt's own files, in both of their formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.debian import find_mirror, read_sources

ONE_LINE = """# deb http://gone.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian bookworm main contrib
deb-src http://one.example/debian bookworm main
deb http://other.example/tool stable tool
"""
PARAGRAPHS = """Types: deb deb-src
# a comment
URIs: http://two.example/debian
Suites: trixie trixie-updates
Components: main non-free

Types: deb
URIs: http://two.example/debian-security
Suites: trixie-security
Components: main
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_both_formats(folder: Path) -> None:
    (folder / "sources.list").write_text(ONE_LINE)
    (folder / "sources.list.d/debian.sources").write_text(PARAGRAPHS)
    assert list(read_sources(folder)) == [
        ("http://one.example/debian", "bookworm"),
        ("http://two.example/debian", "trixie"),
        ("http://two.example/debian", "trixie-updates"),
        ("http://two.example/debian-security", "trixie-security"),
    ]


def test_an_archive_of_another_release_will_do(folder: Path) -> None:
    """Archives hold all releases; those of security updates hold nothing to begin with."""
    (folder / "sources.list.d/debian.sources").write_text("\n\n".join(reversed(PARAGRAPHS.split("\n\n"))))
    assert find_mirror(folder) == "http://two.example/debian"
    (folder / "sources.list.d/more.list").write_text(ONE_LINE)
    assert find_mirror(folder) == "http://one.example/debian"
