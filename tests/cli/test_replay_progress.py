"""The progress bar of `wfpstream replay`: on a terminal, and only when it takes long."""

from __future__ import annotations

import os
import sys
from io import TextIOBase
from pathlib import Path

import pytest

from wfpstream.cli._replay_show import ProgressBar

MARK = "so far"


def what_is_there(master: int, terminal: TextIOBase) -> str:
    """What a terminal has been sent so far. It arrives in its order, but not at once: so a mark is sent behind it."""
    terminal.write(MARK)
    terminal.flush()
    text = ""
    while not text.endswith(MARK):
        text += os.read(master, 65_536).decode()
    return text.removesuffix(MARK)


def test_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds of nothing, then bytes read of bytes in all, then nothing again."""
    capture = tmp_path / "big.pcap"
    capture.write_bytes(bytes(4_000))
    now = [100.0]
    master, slave = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with open(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with ProgressBar([str(capture)], shown=True, clock=lambda: now[0]) as update:
            assert update is not None
            update(1_000)
            assert what_is_there(master, terminal) == "", "nobody wants to see a bar for a moment"
            now[0] += 3
            update(3_000)
        shown = what_is_there(master, terminal)
    os.close(master)
    assert "3.0/4.0 kB" in shown
    assert shown.rstrip().endswith("\x1b[2K"), "and the line is clean afterwards"


def test_nobody_looks(tmp_path: Path) -> None:
    """Without a terminal nothing is called at all."""
    with ProgressBar([str(tmp_path / "any.pcap")], shown=False) as update:
        assert update is None
