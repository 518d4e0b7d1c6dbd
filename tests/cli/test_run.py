"""`wfpstream run` as a process: bytes, lines, files, signals and exit codes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from tests.cli.support import (
    TIMEOUT,
    echo_server,
    json_lines,
    mode_of,
    read_all,
    read_exactly,
    refusing_port,
    running,
    wfpstream,
)
from wfpstream.observe import events_schema


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server that says what it hears."""
    with echo_server() as number:
        yield number


@pytest.fixture
def mode(port: int) -> str:
    return f"--mode=reverse:127.0.0.1:{port}"


def test_a_plain_relay(mode: str) -> None:
    body = bytes(range(256)) * 4096
    with running(mode) as run:
        assert run.ask(body) == body
        assert run.stop() == 0
    assert len(run.lines) == 1


def test_the_ready_line_and_file(port: int, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    modes = [f"--mode=one=reverse:127.0.0.1:{port}", f"--mode=reverse:localhost:{port}"]
    with running("-q", *modes, "--ready-file", ready, listeners=2) as run:
        (host, first), (_, second) = run.addresses
        assert run.ask(b"x") == b"x"
        # The file comes before the lines.
        assert json.loads(ready.read_text()) == {
            "pid": run.process.pid,
            "listeners": [
                {
                    "name": "one",
                    "mode": "reverse",
                    "host": "127.0.0.1",
                    "port": first,
                    "upstream": ["127.0.0.1", port],
                },
                {
                    "name": "",
                    "mode": "reverse",
                    "host": "127.0.0.1",
                    "port": second,
                    "upstream": ["localhost", port],
                },
            ],
        }
        assert mode_of(ready) == 0o600
        assert run.stop() == 0
    assert run.lines == [
        f"listening on {host}:{first} (reverse to 127.0.0.1:{port})",
        f"listening on {host}:{second} (reverse to localhost:{port})",
    ]


def test_ipv6(port: int) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 on this machine: {error}")
    with running(f"--mode=reverse:127.0.0.1:{port}@[::1]:0") as run:
        assert run.lines[0].startswith("listening on [::1]:")
        assert run.ask(b"six") == b"six"


def test_callouts_are_asked_in_the_order_named(mode: str) -> None:
    edits = ["--callout", "stream_edit,find=a,replace=b", "--callout", "stream_edit,find=b,replace=c"]
    only_up = [edit.replace("replace=", "direction=to_upstream,replace=") for edit in edits]
    with running(mode, *only_up) as run:
        assert run.ask(b"ab") == b"cc"
    with running(mode, *only_up[2:], *only_up[:2]) as run:
        assert run.ask(b"ab") == b"bc"


def test_a_callout_of_one_listener(port: int) -> None:
    modes = [f"--mode={name}=reverse:127.0.0.1:{port}" for name in ("plain", "edited")]
    with running(*modes, "--callout", "edited:stream_edit,find=a,replace=b", listeners=2) as run:
        assert run.ask(b"a", listener=0) == b"a"
        assert run.ask(b"a", listener=1) == b"b"


def test_a_configuration_and_the_command_line_together(port: int, tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    config.write_text(
        f'[[proxy.listener]]\nname = "web"\nupstream = "127.0.0.1:{port}"\n'
        '[[rule]]\ncallout = "stream_edit,find=b,replace=c,direction=to_upstream"\n'
    )
    extra = f"--mode=more=reverse:127.0.0.1:{port}"
    callout = "stream_edit,find=a,replace=b,direction=to_upstream"
    with running("-c", config, extra, "--callout", callout, listeners=2) as run:
        assert run.ask(b"a", listener=0) == b"c"
        assert run.ask(b"a", listener=1) == b"c"


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_flows_end(mode: str, number: signal.Signals, tmp_path: Path) -> None:
    events = tmp_path / "e"
    with running(mode, "--grace", "30s", "--events", events) as run:
        with run.connect() as client:
            client.sendall(b"before")
            assert read_exactly(client, 6) == b"before"
            run.send_signal(number)
            # Nobody is accepted any more; who was there goes on.
            run.wait_turned_away()
            client.sendall(b"after")
            assert read_exactly(client, 5) == b"after"
        assert run.wait() == 0
    assert json_lines(events.read_text())[-1]["event"] == "flow_deleted"


def test_flows_that_do_not_end_are_aborted(mode: str, tmp_path: Path) -> None:
    events = tmp_path / "e"
    with running(mode, "--grace", "10ms", "--events", events) as run, run.connect() as client:
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
        assert run.stop() == 0
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    last = json_lines(events.read_text())[-1]
    assert (last["event"], last["reason"]) in (("flow_deleted", "stop"), ("flow_deleted", "abort"))


def test_who_asks_twice_does_not_want_to_wait(mode: str) -> None:
    with running(mode, "--grace", "1000s") as run, run.connect() as client:
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
        run.send_signal(signal.SIGTERM)
        run.wait_turned_away()
        assert run.stop() == 0


def test_sighup_without_a_file_is_said_to_do_nothing(mode: str) -> None:
    with running(mode) as run:
        run.send_signal(signal.SIGHUP)
        assert run.wait_line("SIGHUP") == (
            "wfpstream: SIGHUP: there is no configuration file to read again (-c FILE)\n"
        )
        assert run.ask(b"still here") == b"still here"
        assert run.stop() == 0


# --- what is said ---------------------------------------------------------------------------------


def test_one_line_per_flow(mode: str) -> None:
    with running(mode, "-v") as run:
        assert run.ask(b"12345") == b"12345"
        line = run.wait_line("flow 1")
        assert run.stop() == 0
    assert line.startswith("flow 1 127.0.0.1:")
    assert ", fin, to_upstream 5 B, to_client 5 B, " in line


def test_one_line_per_indication(mode: str) -> None:
    with running(mode, "-vvv", "--callout", "monitor,summary=false") as run:
        assert run.ask(b"\x1b]0;x") == b"\x1b]0;x"
        run.wait_line("flow 1 flow_established client=")
        line = run.wait_line("flow 1 indicate")
        run.wait_line(", fin, ")
        assert run.stop() == 0
    assert "callout=monitor" in line
    assert "dir=to_upstream flags=SEND offset=0 len=5" in line
    assert r"data='\x1b]0;x'" in line


def test_an_upstream_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    events = tmp_path / "e"
    with (
        refusing_port() as port,
        running(f"--mode=reverse:127.0.0.1:{port}", "-v", "--events", events) as run,
    ):
        with pytest.raises(ConnectionResetError), run.connect() as client:
            read_all(client)
        run.wait_line("connect failed")
        assert run.stop() == 0
    (event,) = [event for event in json_lines(events.read_text()) if event["event"] == "connect_failed"]
    assert "refused" in event["reason"]


# --- events ---------------------------------------------------------------------------------------


def test_events_to_a_file(mode: str, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    options = [
        "--events",
        str(events),
        "--events-data",
        "full",
        "--callout",
        "stream_edit,find=a,replace=b,mode=oob",
    ]
    with running(mode, *options) as run:
        assert run.ask(b"aa") == b"bb"
        assert run.stop() == 0
    assert mode_of(events) == 0o600
    lines = json_lines(events.read_text())
    validator = jsonschema.Draft202012Validator(events_schema())
    for line in lines:
        validator.validate(line)
    names = [line["event"] for line in lines]
    assert names[0] == "flow_established"
    assert names[-1] == "flow_deleted"
    assert {"indicate", "classify", "inject", "inject_complete"} < set(names)
    assert next(line for line in lines if line["event"] == "indicate")["data"] == "YWE="
    assert [line["seq"] for line in lines] == sorted(line["seq"] for line in lines)


def test_events_to_stdout(mode: str) -> None:
    with running(mode, "--events", "-", stdout=subprocess.PIPE) as run:
        assert run.ask(b"x") == b"x"
        assert run.process.stdout is not None
        lines = [json.loads(run.process.stdout.readline()) for _ in range(2)]
        assert [line["event"] for line in lines] == ["flow_established", "flow_deleted"]
        assert run.stop() == 0


def test_a_reader_of_events_that_never_reads_stops_nothing(mode: str) -> None:
    options = ["--callout", "monitor,summary=false", "--events", "-", "--events-data", "full"]
    with running(mode, *options, stdout=subprocess.PIPE) as run:
        body = bytes(4_000_000)
        assert run.ask(body) == body
        assert run.ask(b"still here") == b"still here"
        run.send_signal(signal.SIGTERM)
        run.wait_line("bytes of events were not read")
        assert run.process.wait(TIMEOUT) == 0


def test_a_reader_of_events_that_went_away_stops_nothing(mode: str) -> None:
    with running(mode, "--events", "-", stdout=subprocess.PIPE) as run:
        assert run.process.stdout is not None
        run.process.stdout.close()
        assert run.ask(b"x") == b"x"
        assert run.ask(b"y") == b"y"
        assert run.stop() == 0
    assert run.lines[1:] == ["wfpstream: error: events cannot be written: Broken pipe"]


# --- failures -------------------------------------------------------------------------------------


def test_a_port_in_use(port: int, tmp_path: Path) -> None:
    stale = tmp_path / "ready"
    stale.write_text("{}")
    done = wfpstream("run", f"--mode=reverse:127.0.0.1:{port}@{port}", "--ready-file", stale)
    assert done.returncode == 1
    assert done.stderr == f"wfpstream: error: cannot listen on 127.0.0.1:{port}: address already in use\n"
    assert not stale.exists()


@pytest.mark.parametrize("option", ["--events", "--ready-file"])
def test_a_file_that_cannot_be_written(mode: str, option: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    done = wfpstream("run", mode, option, tmp_path / "folder")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("listening")]
    assert line.startswith("wfpstream: error: cannot write ")
    assert line.endswith(": is a directory")


BROKEN = """
from wfpstream.fwps import Callout

class Broken(Callout):
    filter_action = "callout_terminating"

    def classify_fn(self, fixed, meta, packet, context, filter, flow_context, out):
        pass
"""


def test_strict_verification_fails_the_run(mode: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    callout = f"{tmp_path}/broken.py:Broken"
    for level, code in (("warn", 0), ("strict", 1)):
        with running(mode, "--grace", "10ms", "--verify", level, "--callout", callout) as run:
            with run.connect() as client:
                client.sendall(b"x")
                run.wait_line("flow 1 violation callout=broken.py:Broken")
            assert run.stop() == code
        said = [
            line for line in run.lines if line.startswith("wfpstream: error: callouts broke their contract")
        ]
        assert len(said) == code


def test_a_callout_that_keeps_its_contract_passes_strict_verification(mode: str) -> None:
    callouts = ["--callout", "stream_edit,find=a,replace=b,mode=oob", "--callout", "latency,delay=1ms"]
    with running(mode, "--verify", "strict", *callouts) as run:
        assert run.ask(b"aaa") == b"bbb"
        assert run.stop() == 0


RAISES = """
from wfpstream.fwps import Callout

class Raises(Callout):
    def classify_fn(self, fixed, meta, packet, context, filter, flow_context, out):
        raise ZeroDivisionError("in the callout")
"""


def test_a_callout_that_raises_is_told_without_being_asked(mode: str, tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text(RAISES)
    with running(mode, "--callout", f"{tmp_path}/raises.py:Raises") as run:
        with pytest.raises(ConnectionResetError), run.connect() as client:
            client.sendall(b"x")
            read_all(client)
        line = run.wait_line("violation")
        assert run.stop() == 0
    assert "rule=V-40" in line
    assert "ZeroDivisionError" in line
    assert "raises.py:" in line
