"""`wfpstream demo`: it tells the truth, and fails when it cannot."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.cli.support import wfpstream
from wfpstream.cli import _weather, main


def test_it_ends_by_itself_and_shows_both_edits() -> None:
    done = wfpstream("demo")
    assert (done.returncode, done.stderr) == (0, "")
    inline, oob = done.stdout.split("\n2. ")
    for scene in (inline, oob):
        assert scene.count("receives 'It is sunny today, sunny, and sunny tomorrow.\\n'") == 1
        assert scene.count("  balanced") == 2
        assert "inject       " in scene
        assert "reason fin" in scene
    assert "NEED_MORE_DATA" in inline
    assert "inject       the FIN" in oob
    assert "\x1b" not in done.stdout


def test_it_is_colourful_on_a_terminal() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    assert _weather.perform(console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert any("\x1b[" in line for line in lines)


def test_wrong_bytes_are_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_weather, "EXPECTED", b"something else")
    assert main(["demo"], standalone_mode=False) == 1
    assert capsys.readouterr().err == "wfpstream: error: the demo's bytes are not what they should be\n"
