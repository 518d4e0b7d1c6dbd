"""Which Python the benchmarks take, and what is said of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.peers._interpreter import CHOSEN, Python, candidates, choose, describe_build
from benchmarks.peers._venv import MissingError, base_executable, home_of, prepare


def test_another_one_is_taken_only_where_it_is_clearly_faster() -> None:
    ours = Python("/one", "3.11.7", 100.0)
    assert choose([ours, Python("/other", "3.11.2", 80.0)]).base == "/other"
    assert choose([ours, Python("/other", "3.11.2", 97.0)]) == ours
    assert choose([ours, Python("/other", "3.11.2", 120.0)]) == ours


def test_the_one_that_is_named_is_the_only_candidate() -> None:
    (only,) = candidates(sys.executable)
    assert only.base == base_executable()
    assert only.version == sys.version.split()[0]
    assert only.cost > 0


def test_what_is_no_python_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PYTHON=no-such-python: there is no such program"):
        candidates("no-such-python")
    old = tmp_path / "old"
    old.write_text("#!/bin/sh\necho 'it is Python 3.9.1' >&2\nexit 1\n")
    old.chmod(0o755)
    with pytest.raises(ValueError, match=r"PYTHON=.* is no Python 3\.11 or newer .*: it is Python 3\.9\.1$"):
        candidates(str(old))


def test_it_is_told_how_it_was_built_and_what_the_other_one_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHOSEN, raising=False)
    assert "distribution's, " in describe_build()
    assert "other one" not in describe_build()
    found = [Python(base_executable(), "3.11.2", 80.0), Python("/other", "3.11.7", 100.0)]
    monkeypatch.setenv(CHOSEN, json.dumps([vars(python) for python in found]))
    assert describe_build().endswith("takes 0.80 of the CPU it takes on the other one here, 3.11.7")


def test_an_environment_that_may_not_be_made_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingError, match="is not set up"):
        prepare("/usr/bin/python3", "3.99", may_install=False)
    assert home_of("/a", "3.99") != home_of("/b", "3.99")
    assert not home_of("/a", "3.99").exists()
