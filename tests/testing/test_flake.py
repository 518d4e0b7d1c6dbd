"""The runner behind `make flake`: it says what it ran, and keeps what failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import flake


def suite(folder: Path, body: str) -> str:
    """Options of pytest that run two tests of their own, without any settings of ours."""
    (folder / "test_it.py").write_text(f"import os\ndef test_one(): pass\ndef test_two(): {body}\n")
    return f"-c {folder / 'none.ini'} --rootdir {folder} {folder}"


@pytest.fixture(autouse=True)
def _kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "none.ini").write_text("[pytest]\n")
    monkeypatch.setattr(flake, "FOLDER", tmp_path / "kept")


def test_runs_are_counted_and_every_other_one_is_under_xdist(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_failures.py").write_text("def test_session(): pass\n")
    asked = [
        "--runs",
        "4",
        "--rounds",
        "3",
        "--first",
        "3",
        "--whole-every",
        "4",
        "--suite",
        suite(tmp_path, "pass"),
    ]
    assert flake.main(asked) == 0
    said = capsys.readouterr().out
    assert (
        "3-6 tests a session, 4 runs in random order in 2 sessions (seeds 3 to 4), 3 runs of them under xdist, "
        in said
    )
    assert "1 with the tests that start sessions of their own: 0 failed, " in said


def test_what_fails_is_kept_with_its_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It fails only under xdist, as flakes do."""
    only_there = "assert 'PYTEST_XDIST_WORKER' not in os.environ"
    assert flake.main(["--runs", "1", "--suite", suite(tmp_path, only_there)]) == 1
    assert "1 failed (seeds 1;" in capsys.readouterr().out
    [kept] = (tmp_path / "kept").iterdir()
    assert kept.name == "seed-1.txt"
    assert "--random-order-seed=1" in kept.read_text()
    assert "AssertionError" in kept.read_text()


def test_a_run_that_hangs_is_a_flake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flake, "LONGEST", 0.01)
    assert flake.main(["--runs", "1", "--suite", suite(tmp_path, "pass")]) == 1
    assert "still running" in (tmp_path / "kept" / "seed-1.txt").read_text()
