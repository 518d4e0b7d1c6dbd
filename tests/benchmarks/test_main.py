"""`python -m benchmarks`: what it hands on, what it keeps, and what a measurement that breaks does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command


def test_names_and_options_are_handed_on_to_those_with_options_of_their_own() -> None:
    options = command._parser().parse_args(
        ["--quick", "--rounds", "1", "--keep", "kept", "long", "peers", "slow"]
    )
    assert options.names == ["long", "peers", "slow"]
    peers = command._arguments_of("peers", options)
    assert peers == ["--share", "0.02", "--rounds", "1", "--json", "kept/peers.json"]
    assert command._arguments_of("long", options) == ["--share", "0.02", "--json", "kept/long.json"]
    plain = command._parser().parse_args(["--no-install"])
    assert command._arguments_of("peers", plain) == ["--rounds", "3", "--no-install"]


def test_a_measurement_that_breaks_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(rounds: int) -> dict[str, float]:
        raise OSError("out of order")

    def sound(rounds: int) -> dict[str, float]:
        return {"rounds asked for": rounds}

    monkeypatch.setattr(command, "MEASUREMENTS", {"broken": broken, "sound": sound})
    assert not command._measure(["broken", "sound"], 2, tmp_path)
    kept = json.loads((tmp_path / "engine.json").read_text())
    assert kept["sound"] == {"rounds asked for": 2}
    assert "broken" not in kept
    assert "benchmarks: broken broke" in capsys.readouterr().err
    assert command._measure(["sound"], 1, None)


def test_a_python_that_cannot_be_taken_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WFPSTREAM_BENCHMARKS_CHOSEN", raising=False)
    monkeypatch.setenv("PYTHON", "no-such-python")
    monkeypatch.setattr("sys.argv", ["benchmarks", "engine"])
    assert command.main() == 2
    assert capsys.readouterr().err == "benchmarks: PYTHON=no-such-python: there is no such program\n"
