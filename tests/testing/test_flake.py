"""The runner behind `make flake`: it says what it ran, and keeps what failed."""

from __future__ import annotations

import json
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


def test_a_series_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs of the same code and suite count, each seed once; those of another commit do not."""
    asked = ["--rounds", "1", "--jobs", "2", "--suite", suite(tmp_path, "pass")]
    assert flake.main(["--runs", "2", *asked]) == 0
    results = tmp_path / "kept" / "results.jsonl"
    assert [json.loads(line)["seed"] for line in sorted(results.read_text().splitlines())] == [1, 2]
    assert flake.main(["--runs", "3", *asked]) == 0
    assert "3 runs in random order in 3 sessions (seeds 1 to 3), 2 runs of them" in capsys.readouterr().out
    assert [json.loads(line)["seed"] for line in results.read_text().splitlines()][2:] == [3]
    results.write_text(results.read_text().replace(flake.code_here(), "another one"))
    assert flake.main(["--runs", "1", *asked]) == 0
    assert "1 runs in random order in 1 sessions (seeds 1 to 1)" in capsys.readouterr().out


def test_a_failure_counts_after_an_interruption_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--rounds", "1", "--suite", suite(tmp_path, "assert False")]
    assert flake.main(["--runs", "1", *asked]) == 1
    (tmp_path / "test_it.py").write_text("def test_one(): pass\n")
    assert flake.main(["--runs", "2", *asked]) == 1
    assert "in 2 sessions (seeds 1 to 2)" in (said := capsys.readouterr().out)
    assert "1 failed (seeds 1;" in said


def test_no_session_is_started_when_time_is_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert flake.main(["--runs", "4", "--minutes", "1e-9", "--suite", suite(tmp_path, "pass")]) == 1
    assert "0 runs in random order in 0 sessions" in capsys.readouterr().out
    assert not (tmp_path / "kept").exists()


def test_an_interrupted_session_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C kills it, and the line says what there is."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(flake, "wait", interrupted)
    hangs = "__import__('threading').Event().wait()"
    assert flake.main(["--runs", "1", "--suite", suite(tmp_path, hangs)]) == 1
    assert "interrupted" in (said := capsys.readouterr().out)
    assert "0 runs in random order in 0 sessions" in said
    assert "0 failed" in said


def test_what_fails_is_kept_with_its_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It fails only under xdist, as flakes do."""
    only_there = "assert 'PYTEST_XDIST_WORKER' not in os.environ"
    assert flake.main(["--runs", "1", "--suite", suite(tmp_path, only_there)]) == 1
    assert "1 failed (seeds 1;" in capsys.readouterr().out
    kept = tmp_path / "kept" / "seed-1.txt"
    assert "--random-order-seed=1" in kept.read_text()
    assert "AssertionError" in kept.read_text()


def test_a_run_that_hangs_is_a_flake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flake, "LONGEST", 0.01)
    assert flake.main(["--runs", "1", "--suite", suite(tmp_path, "pass")]) == 1
    assert "still running" in (tmp_path / "kept" / "seed-1.txt").read_text()
