"""`wfpstream demo`: it tells the truth, and fails when it cannot."""

from __future__ import annotations

import io
import os
import subprocess

import pytest

from tests.cli.support import command_line, wfpstream
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


def test_it_is_colourful_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    assert _weather.perform(file)
    assert "\x1b[" in file.getvalue()


def test_wrong_bytes_are_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_weather, "EXPECTED", b"something else")
    assert main(["demo"], standalone_mode=False) == 1
    assert capsys.readouterr().err == "wfpstream: error: the demo's bytes are not what they should be\n"


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command_line("demo"), stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")
