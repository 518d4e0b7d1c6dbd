"""`wfpstream ctl` and `wfpstream run`, two processes: what is asked and changed while bytes flow, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.support import TIMEOUT, echo_server, json_lines, read_all, read_exactly, running, wfpstream
from tests.control.kit import Client
from wfpstream.control import ControlError, ask


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server that says what it hears."""
    with echo_server() as number:
        yield number


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def file(tmp_path: Path, path: Path, port: int) -> Path:
    """A configuration with a socket of its own, named from its folder."""
    found = tmp_path / "f.toml"
    write(found, port)
    return found


def write(file: Path, port: int, *parts: str, control: str = 'socket = "run/control.sock"') -> None:
    listener = f'[[proxy.listener]]\nname = "web"\nlisten = "127.0.0.1:0"\nupstream = "127.0.0.1:{port}"\n'
    file.write_text("".join([listener, f"[control]\n{control}\n", *parts]))


def rule(callout: str, name: str) -> str:
    return f'[[rule]]\nname = "{name}"\ncallout = "{callout}"\n'


def ctl(path: Path, *arguments: str | Path) -> str:
    """What a command of a process of its own prints."""
    done = wfpstream("ctl", *arguments, "--socket", path)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def echoed(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return read_exactly(client, len(data))


def test_flows_are_seen_and_aborted(file: Path, path: Path) -> None:
    with running("-c", file) as run, run.connect() as client:
        assert echoed(client, b"hello") == b"hello"
        with run.connect() as other:
            assert echoed(other, b"x") == b"x"
            first, second = json_lines(ctl(path, "flows", "--json"))
            assert (first["to_upstream"]["read"], first["to_client"]["written"]) == (5, 5)
            assert first["client"] == list(client.getsockname())
            assert second["client"] == list(other.getsockname())
            host, port = first["client"]
            assert f"  {host}:{port} to 127.0.0.1:" in ctl(path, "show", str(first["id"]))
            assert ctl(path, "abort", str(first["id"])) == f"flow {first['id']}: aborted\n"
            assert_reset(client)
            assert echoed(other, b"y") == b"y"
            stats = ask(path, "stats")
            assert (stats["pid"], stats["accepted"], stats["listeners"][0]["name"]) == (
                run.process.pid,
                2,
                "web",
            )
        assert run.stop() == 0
    assert not path.exists()


def test_rules_come_and_go_under_a_flow_that_lives(file: Path, path: Path) -> None:
    with running("-c", file) as run, run.connect() as client:
        assert echoed(client, b"a rainy day") == b"a rainy day"
        edit = "stream_edit,find=rainy,replace=sunny"
        assert ctl(path, "add-filter", edit, "--when", "listener=web", "--name", "w") == '+ rule "w"\n'
        assert echoed(client, b"a rainy day") == b"a sunny day"
        shown = json.loads(wfpstream("show", "--json", "--socket", path).stdout)
        assert shown == ask(path, "filters")
        layers = {layer["name"]: layer["sublayers"] for layer in shown["layers"]}
        for name in ("stream_v4", "stream_v6"):
            (one,) = layers[name][0]["filters"]
            answer = ask(path, "delete-filter", {"filter": one["id"], "drain": True})
            assert answer["state"] in ("deleted", "draining")
        assert echoed(client, b"a rainy day") == b"a rainy day"
        assert run.process.poll() is None


def test_a_piece_of_configuration_is_added_whole_or_not_at_all(
    file: Path, path: Path, tmp_path: Path
) -> None:
    piece = tmp_path / "piece.toml"
    with running("-c", file) as run, run.connect() as client:
        piece.write_text(rule("stream_edit,find=rainy,replace=sunny", "w") + rule("nonsense", "x"))
        done = wfpstream("ctl", "add-filter", "--file", piece, "--socket", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "nonsense" in done.stderr
        assert all(line.startswith("wfpstream: error: ") for line in done.stderr.splitlines())
        assert echoed(client, b"rainy") == b"rainy"
        piece.write_text(rule("stream_edit,find=rainy,replace=sunny", "w"))
        assert ask(path, "add-filter", {"toml": piece.read_text()})["lines"] == ['+ rule "w"']
        assert echoed(client, b"rainy") == b"sunny"


def test_reload_keeps_what_was_added_and_says_what_changes(file: Path, path: Path, port: int) -> None:
    with running("-c", file) as run, run.connect() as client:
        ask(path, "add-filter", {"callout": "stream_edit,find=rain,replace=snow", "name": "by hand"})
        write(file, port, rule("stream_edit,find=dull,replace=nice", "mine"))
        assert ctl(path, "reload") == '+ rule "mine"\n'
        assert echoed(client, b"dull rain") == b"nice snow"
        assert ask(path, "reload") == {"changes": [], "lines": []}
        assert run.process.poll() is None


@pytest.mark.parametrize(
    "control", ['socket = "off"', 'socket = "run/other.sock"', 'socket = "/nowhere/at/all"', ""]
)
def test_no_reload_can_lock_us_out(file: Path, path: Path, port: int, control: str) -> None:
    """What the socket is cannot change while running: the reload is refused, all of it, and we can still ask."""
    with running("-c", file) as run, run.connect() as client:
        write(file, port, rule("stream_edit,find=rainy,replace=sunny", "w"), control=control)
        with pytest.raises(
            ControlError, match=r"control\.socket: cannot change while running; restart"
        ) as caught:
            ask(path, "reload")
        assert caught.value.code == "usage"
        assert echoed(client, b"rainy") == b"rainy"
        assert ask(path, "stats")["pid"] == run.process.pid


def test_a_policy_that_blocks_everything_does_not_lock_us_out(file: Path, path: Path, port: int) -> None:
    block = '[[filter]]\nname = "all"\nlayer = "ale_auth_connect"\naction = "block"\n'
    with running("-c", file) as run:
        write(file, port, block, "[limits]\nflows = 1\n")
        assert '+ filter "all"' in ask(path, "reload")["lines"]
        run.assert_turns_away()
        write(file, port)
        assert '- filter "all"' in ask(path, "reload")["lines"]
        assert run.ask(b"x") == b"x"


def assert_reset(client: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        client.recv(1)


# --- which socket, and its end ----------------------------------------------------------------------


def test_the_default_socket_is_found(port: int, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("RUNTIME_DIRECTORY", None)
    with running(f"--mode=reverse:127.0.0.1:{port}", env=environment) as run:
        assert run.ask(b"x") == b"x"
        path = tmp_path / "wfpstream" / f"{run.process.pid}.sock"
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o600
        assert ask(path, "stats")["pid"] == run.process.pid
        assert run.stop() == 0
    assert os.listdir(path.parent) == []


def test_it_can_be_off(file: Path, path: Path, port: int) -> None:
    write(file, port, control='socket = "off"')
    with running("-c", file) as run:
        assert run.ask(b"x") == b"x"
        assert not path.parent.exists()
        assert run.stop() == 0


def test_without_a_place_for_the_default_socket_the_proxy_runs_all_the_same(
    port: int, tmp_path: Path
) -> None:
    folder = tmp_path / "wfpstream"
    folder.mkdir()
    folder.chmod(0o777)
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("RUNTIME_DIRECTORY", None)
    with running(f"--mode=reverse:127.0.0.1:{port}", env=environment) as run:
        assert run.ask(b"x") == b"x"
        assert run.stop() == 0
    (line,) = (line for line in run.lines if "control socket" in line)
    assert f"others can write in {folder}" in line


def test_a_second_instance_is_refused_and_the_first_goes_on(file: Path, path: Path) -> None:
    with running("-c", file) as run:
        second = wfpstream("run", "-c", file)
        assert second.returncode == 1
        (line,) = (line for line in second.stderr.splitlines() if "error" in line)
        assert line == (
            f"wfpstream: error: cannot open the control socket {path}: "
            f"another wfpstream (pid {run.process.pid}) listens there"
        )
        assert ask(path, "stats")["pid"] == run.process.pid
        assert run.ask(b"x") == b"x"


@pytest.mark.parametrize("kind", ["file", "link", "long"])
def test_a_socket_that_cannot_be_had_is_one_line_and_nothing_runs(
    file: Path, path: Path, port: int, kind: str
) -> None:
    path.parent.mkdir()
    if kind == "file":
        path.write_text("keep me")
    elif kind == "link":
        path.symlink_to(file)
    else:
        write(file, port, control=f'socket = "run/{"x" * 120}"')
    done = wfpstream("run", "-c", file)
    assert done.returncode == 1
    (line,) = (line for line in done.stderr.splitlines() if not line.startswith("listening on "))
    assert line.startswith("wfpstream: error: cannot open the control socket ")
    assert kind == "long" or path.read_text()


def test_what_a_killed_one_leaves_is_replaced(file: Path, path: Path) -> None:
    with running("-c", file) as run:
        run.send_signal(signal.SIGKILL)
        run.process.wait(TIMEOUT)
    assert path.is_socket()
    done = wfpstream("ctl", "flows", "--socket", path)
    assert (done.returncode, done.stderr) == (
        1,
        f"wfpstream: error: nobody listens at {path}: its wfpstream is gone\n",
    )
    with running("-c", file) as run:
        assert ask(path, "stats")["pid"] == run.process.pid


def test_drain_lets_flows_end_and_exits(file: Path, path: Path) -> None:
    with running("-c", file) as run, run.connect() as client:
        assert echoed(client, b"x") == b"x"
        assert ask(path, "drain") == {"connections": 1, "grace": None}
        with pytest.raises(OSError, match=r"refused|reset"), run.connect() as late:
            late.recv(1)
        assert echoed(client, b"still there") == b"still there"
        assert ask(path, "flows")[0]["id"] == 1
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b""
        assert run.wait() == 0
    assert not path.exists()


def test_a_stop_after_drain_is_the_first_one(file: Path, path: Path) -> None:
    """As in a preStop hook of Kubernetes: flows get the time of --grace, and only a second SIGTERM cuts them off."""
    with running("-c", file, "--grace", "600") as run, run.connect() as live:
        assert echoed(live, b"one") == b"one"
        ctl(path, "drain")
        for number in (signal.SIGTERM, signal.SIGHUP):
            run.send_signal(number)
            ctl(path, "flows")
            assert echoed(live, b"two") == b"two"
        run.send_signal(signal.SIGTERM)
        assert run.wait() == 0
        with pytest.raises(ConnectionResetError):
            live.recv(1)


def test_drain_with_grace_aborts_what_is_left(file: Path, path: Path) -> None:
    with running("-c", file) as run, run.connect() as client:
        assert echoed(client, b"x") == b"x"
        assert ctl(path, "drain", "--grace", "50ms") == "draining, 1 connections\n"
        assert_reset(client)
        assert run.wait() == 0


def test_rubbish_costs_the_flows_nothing(file: Path, path: Path) -> None:
    """Clients that connect a thousand times, never read, never finish, while a numbered stream runs both ways."""
    stream = b"".join(b"%07d\n" % number for number in range(200_000))
    answer: list[bytes] = []
    with ExitStack() as at_the_end, running("-c", file) as run:

        def converse() -> None:
            try:
                answer.append(run.ask(stream))
            except OSError:
                return  # there is no answer, and the test says so

        thread = threading.Thread(target=converse)
        thread.start()
        at_the_end.callback(thread.join)
        with ExitStack() as open_clients:
            for rubbish in (b'{"command": "filters"}\n' * 2_000, b'{"command": "fl'):
                for _ in range(4):
                    say_if_let_in(open_clients.enter_context(Client(path)), rubbish)
            for _ in range(1_000):
                with Client(path) as client:
                    say_if_let_in(client, os.urandom(64) + b"\n")
            while thread.is_alive():
                assert is_there(path, run.process.pid)
        assert answer == [stream]
        assert run.stop() == 0
    assert len(run.lines) == 1


def say_if_let_in(client: Client, data: bytes) -> None:
    """Who is refused, as one of too many, may be hung up on before it has said all."""
    try:
        client.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass


def is_there(path: Path, pid: int) -> bool:
    try:
        return bool(ask(path, "stats")["pid"] == pid)
    except ControlError as error:
        return error.code == "busy"  # of the thousand, some are not seen to have gone yet
