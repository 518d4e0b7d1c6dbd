"""The captures kept beside the repository, read by scapy's raw readers: (link type, frame) and their manifest."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CAPTURES = ROOT.parent / "shared" / "captures"
SETS = ("real", "crafted")


def files() -> list[Path]:
    """Every capture there is; none where the folder is missing."""
    return sorted(path for name in SETS for path in (CAPTURES / name).glob("*.pcap*"))


def parameters() -> list[Any]:
    """`files()` as parameters of a test; one that skips where the folder is missing."""
    found = [pytest.param(path, id=path.name) for path in files()]
    reason = "there is no folder ../shared/captures beside the repository"
    return found or [pytest.param(CAPTURES, marks=pytest.mark.skip(reason=reason), id="none")]


@cache
def frames(path: Path) -> list[tuple[int, bytes]]:
    """(link type, captured bytes) of each packet of a capture."""
    from scapy.utils import RawPcapReader

    with RawPcapReader(str(path)) as reader:
        everything = list(reader)
        of_file = getattr(reader, "linktype", -1)
    # pcapng keeps the link type per interface, pcap one per file.
    return [(int(getattr(about, "linktype", of_file)), data) for data, about in everything]


@cache
def manifest(folder: Path) -> dict[str, Any]:
    """What tshark found in the captures of `folder`, by file name."""
    listed = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return {entry["file"]: entry for entry in listed["captures"]}
