"""The load generator: what it counts is what went through, and what goes wrong has one line. Tiny amounts."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import _load
from benchmarks.peers._cases import Case
from benchmarks.peers._load import Load, LoadError, compiled
from benchmarks.peers._long import MOMENTS, long_run
from benchmarks.peers._programs import PEERS, Peer, Start
from benchmarks.peers._rounds import Run, measure
from benchmarks.peers._running import StartError, running
from tests.support.system import missing

NAMED = {peer.name: peer for peer in PEERS}


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        missing("cc is not installed")
    return compiled(tmp_path_factory.mktemp("load"))


@pytest.fixture
def load(program: Path) -> Iterator[Load]:
    load = Load(program)
    yield load
    load.close()


def played(load: Load, workload: str, port: float | None = None, **options: float) -> dict[str, Any]:
    """What the load says after one run, straight to its own upstream by default."""
    with load.client(workload, int(port or load.port), options) as client:
        return client.run()


pytestmark = pytest.mark.system("cc")


@pytest.mark.parametrize("to_upstream", [0, 1])
@pytest.mark.parametrize("flows", [1, 3])
def test_bulk_counts_every_byte(load: Load, flows: int, to_upstream: int) -> None:
    answer = played(load, "bulk", connections=flows, bytes=300_001, to_upstream=to_upstream)
    assert (answer["flows"], answer["bytes"]) == (flows, flows * 300_001)
    assert answer["seconds"] > 0


def test_bulk_with_matches_finds_them_in_every_step(load: Load) -> None:
    answer = played(load, "bulk", bytes=4096 * 100, needles=1)
    # Where a read ends within a match it is not looked at.
    assert 90 <= answer["needles_left"] <= 100
    assert answer["needles_replaced"] == 0


@pytest.mark.parametrize(
    "options", [{"connections": 5, "messages": 500}, {"connections": 40, "outstanding": 3, "messages": 100}]
)
def test_ping_pong_counts_every_message(load: Load, options: dict[str, float]) -> None:
    answer = played(load, "ping-pong", **options)
    assert answer["messages"] == options["messages"]
    assert 0 < answer["p50_us"] <= answer["p99_us"] <= answer["max_us"] * 1.04


def test_large_messages_come_back_whole(load: Load) -> None:
    assert played(load, "ping-pong", connections=2, messages=20, size=60_000)["messages"] == 20


def test_ping_pong_for_a_time(load: Load) -> None:
    answer = played(load, "ping-pong", connections=2, seconds=0.05)
    assert answer["seconds"] >= 0.05
    assert answer["messages"] >= 2


def test_idle_flows_are_held_until_the_end(load: Load) -> None:
    with load.client("ping-pong", load.port, {"connections": 50}) as client:
        assert client.run()["messages"] == 0


@pytest.mark.parametrize("reset", [0, 1])
def test_connect_counts_every_connection(load: Load, reset: int) -> None:
    answer = played(load, "connect", connections=4, messages=150, reset=reset)
    assert (answer["connections"], answer["at_once"]) == (150, 4)


def test_nobody_there_is_told(load: Load) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(LoadError, match="connect: Connection refused"):
            played(load, "connect", held.getsockname()[1], messages=1)


def test_bytes_that_are_lost_are_told(load: Load) -> None:
    """An upstream that sends less than it was asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(9)
                connection.sendall(bytes(1000))
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)

        server = threading.Thread(target=answer)
        server.start()
        with pytest.raises(LoadError, match=r"the flow ended \d+ bytes early"):
            played(load, "bulk", listener.getsockname()[1], bytes=5000)
        server.join()


def test_an_unknown_option_is_refused(load: Load) -> None:
    with pytest.raises(LoadError, match="no such option"):
        played(load, "bulk", colour=1)


def test_the_program_is_compiled_once(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert compiled(program.parent) == program


def test_no_compiler_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LoadError, match=r"^no C compiler .* cannot be built$"):
        compiled(tmp_path)


def test_what_the_compiler_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad.c").write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(_load, "SOURCES", tmp_path)
    with pytest.raises(LoadError, match=r"refused the load generator: .*error"):
        compiled(tmp_path)


TINY = [
    Case("tiny-bulk", "bulk", "bulk", {"connections": 2, "bytes": 200_000}, "bytes"),
    Case("tiny-upload", "bulk", "bulk", {"connections": 1, "bytes": 200_000, "to_upstream": 1}, "bytes"),
    Case("tiny-trips", "ping-pong", "ping-pong", {"connections": 3, "messages": 60}, None),
    Case("tiny-connect", "connect", "connect", {"connections": 2, "messages": 20, "reset": 1}, None),
    Case("tiny-idle", "idle", "idle", {"connections": 20}, None),
]


@pytest.mark.parametrize("name", ["wfpstream", "wfpstream-stream", "asyncio"])
def test_relays_are_started_measured_and_ended(load: Load, name: str) -> None:
    with running(NAMED[name], load.port) as relay:
        for case in TINY:
            figures, _ = measure(case, NAMED[name], relay, load)
            assert set(figures) >= {"cpu", "wall"}
            assert figures["wall"] > 0, case.name
            if case.kind != "idle":
                assert figures["cpu"] > 0, case.name
    with socket.socket() as after:
        assert after.connect_ex(("127.0.0.1", relay.port)) != 0


def test_the_long_run_watches_memory_and_descriptors(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers._long.compiled", lambda: program)
    found = long_run(NAMED["wfpstream"], 30, 300, 4)
    assert (found.flows, found.messages, found.outstanding) == (30, 300, 4)
    assert len(found.memory_mib) == len(found.descriptors) == len(MOMENTS)
    before, opened, *_, closed_again = found.descriptors
    assert opened >= before + 58, "the connection that tried the relay may still be there at the start"
    assert closed_again <= before + 2
    assert found.descriptors[MOMENTS.index("as many open again")] >= before + 58


def test_our_edit_replaces_every_match(load: Load) -> None:
    case = Case("tiny-edit", "edit", "bulk", {"connections": 1, "bytes": 4096 * 50, "needles": 1}, "bytes")
    with running(NAMED["wfpstream-edit"], load.port) as relay:
        _, answer = measure(case, NAMED["wfpstream-edit"], relay, load)
    assert answer["needles_left"] == 0
    assert answer["needles_replaced"] > 0


def test_a_run_keeps_figures_of_every_round_and_reasons_of_every_failure(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.peers._rounds.compiled", lambda: program)

    def absent(start: Start) -> list[str]:
        return ["/bin/sh", "-c", "echo first; echo out of order >&2; exit 1"]

    broken = Peer("broken", "ends at once", absent)
    peers = [NAMED["direct"], broken]
    table = Run(TINY[:1], {"tiny-bulk": peers}).perform(3)
    assert len(table["tiny-bulk"]["direct"].values["wall"]) == 3
    assert table["tiny-bulk"]["broken"].values == {}
    assert table["tiny-bulk"]["broken"].failures == ["out of order"] * 2, "after two it is left alone"


def test_a_relay_that_ends_at_once_is_told_with_its_last_line(load: Load) -> None:
    peer = Peer("false", "false", lambda start: ["/bin/false"])
    with pytest.raises(StartError), running(peer, load.port):
        pass
