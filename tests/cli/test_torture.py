"""`wfpstream torture`: what it prints, how it exits. A straight wire is a relay that keeps everything."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from tests.torture.kit import held_port
from wfpstream.cli import main
from wfpstream.torture import list_cases


@pytest.fixture
def wire() -> Iterator[str]:
    """One address for relay and upstream."""
    with held_port() as (host, port):
        yield f"{host}:{port}"


@pytest.fixture
def pit() -> Iterator[str]:
    """A relay that takes connections and does nothing with them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def run(*arguments: str) -> int:
    return int(main.main(["torture", *arguments], standalone_mode=False) or 0)


def test_a_relay_that_keeps_everything(wire: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(wire, "--upstream-listen", wire, "--quick", "--only", "plain", "--only", "urgent_data") == 0
    printed = capsys.readouterr()
    first, *_, last = printed.out.splitlines()
    assert first.split()[:2] == ["plain", "kept"]
    assert last == "3 cases: 3 kept"
    assert not printed.err


def test_a_relay_that_does_not(wire: str, pit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pit, "--upstream-listen", wire, "--quick", "--only", "plain", "--patience", "0.3") == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1:] == [
        "    failed: nothing arrived at the upstream within 0.3 s",
        "1 case: 1 failed",
    ]
    assert "says nothing about the relay's manners" in printed.err


def test_json(wire: str, pit: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--quick", "--only", "plain", "--patience", "0.3", "--json")
    assert run(pit, "--upstream-listen", wire, *options) == 1
    case, total = map(json.loads, capsys.readouterr().out.splitlines())
    assert case["name"] == "plain"
    assert case["verdict"] == "failed"
    assert case["findings"] == [{"verdict": "failed", "text": "nothing arrived at the upstream within 0.3 s"}]
    assert total == {
        "cases": 1,
        "verdicts": {"kept": 0, "noted": 0, "distorted": 0, "lost": 0, "failed": 1},
    }


def test_how_much(wire: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--quick", "--only", "short_connections", "--connections", "7", "--json")
    assert run(wire, "--upstream-listen", wire, *options) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["facts"]["connections"] == 7


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[::2] == [name for name, _ in list_cases()]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["127.0.0.1:1"], "--upstream-listen"),
        (["nowhere", "--upstream-listen", "127.0.0.1:1"], "HOST:PORT: expected HOST:PORT, got 'nowhere'"),
        (["127.0.0.1:1", "--upstream-listen", "127.0.0.1:0"], "--upstream-listen: port 0"),
        (
            ["127.0.0.1:1", "--upstream-listen", "127.0.0.1:2", "--only", "x\x1b[2J"],
            "--only: there is no case",
        ),
        (["127.0.0.1:1", "--upstream-listen", "127.0.0.1:2", "--patience", "nan"], "--patience"),
        (["127.0.0.1:1", "--upstream-listen", "127.0.0.1:2", "--bulk", "0"], "--bulk"),
    ],
)
def test_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("wfpstream: error: ")
    assert said in line
    assert "example: wfpstream torture" in line
    assert line.isprintable()


def test_nobody_listens(wire: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
        assert run(nobody, "--upstream-listen", wire) == 1
    assert capsys.readouterr().err == "wfpstream: error: the relay took no connection: connection refused\n"


def test_the_upstreams_address_is_taken(pit: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(pit, "--upstream-listen", pit) == 1
    where = pit.replace(":", " port ")
    error = f"wfpstream: error: cannot listen as the upstream on {where}: address already in use\n"
    assert capsys.readouterr().err == error
