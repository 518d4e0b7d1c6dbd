"""Clients that send rubbish, never finish, never read, are somebody else: none of them costs the others anything."""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.control.kit import COMMANDS, Client, Served, serving
from tests.support.system import require_root
from wfpstream.control import ControlLimits, ask, serve_control


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("control") / "1.sock") as found:
        yield found


@given(st.lists(st.binary(max_size=200), max_size=5))
@settings(max_examples=200)
def test_rubbish_is_answered_line_by_line_with_errors(served: Served, pieces: list[bytes]) -> None:
    with Client(served.path) as client:
        for piece in pieces:
            client.send(piece)
        client.sock.shutdown(socket.SHUT_WR)
        answers = client.lines()
    said = b"".join(pieces).split(b"\n")[:-1]
    assert [answer["code"] for answer in answers] == ["bad_request"] * sum(
        bool(line.strip()) for line in said
    )
    assert ask(served.path, "echo", {"still": "there"}) == {"still": "there"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.fixed_dictionaries({}, optional={"id": JSON, "command": JSON, "arguments": JSON}))
@settings(max_examples=200)
def test_requests_of_another_form_are_errors(served: Served, request_: dict[str, Any]) -> None:
    with Client(served.path) as client:
        client.send(json.dumps(request_).encode() + b"\n")
        answer = client.line()
    assert answer is not None
    well_formed = isinstance(request_.get("command"), str) and isinstance(request_.get("arguments", {}), dict)
    if answer["ok"]:
        assert well_formed
    else:
        assert answer["code"] in ("bad_request", "unknown_command")
        assert "\n" not in answer["error"]
        assert len(answer["error"]) < 1000


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b'{"command": "echo", "arguments": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        b'{"command": "' + b"x" * 900_000 + b'"}',
        b'{"command": "\xff\xfe"}',
        b'{"command": "\\ud800"}',
        b'{"command": "echo", "id": 1e999}',
        b"GET / HTTP/1.1\r",
        b"\0" * 1000,
    ],
    ids=lambda line: repr(line[:12]),
)
def test_lines_made_to_hurt(served: Served, line: bytes) -> None:
    with Client(served.path) as client:
        client.send(line + b"\n")
        answer = client.line()
        assert answer is not None
        assert answer["code"] in ("bad_request", "unknown_command")
        assert len(answer["error"]) < 1000
        assert client.ask("echo", n=1)["result"] == {"n": 1}


def test_a_line_without_end_is_given_up(served: Served) -> None:
    with Client(served.path) as client:
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            while True:
                client.send(b"x" * 65536)
        (answer,) = client.lines()
        assert (answer["code"], answer["error"]) == ("too_long", "a request has at most 1048576 bytes")


def test_a_line_of_the_greatest_length_is_taken(tmp_path: Path) -> None:
    whole = b'{"command": "echo"}'
    with serving(tmp_path / "s", limits=ControlLimits(line=len(whole))) as served:
        with Client(served.path) as client:
            client.send(whole + b"\n")
            answer = client.line()
            assert answer is not None
            assert answer["ok"]
        with Client(served.path) as client:
            client.send(whole + b" \n" + whole + b"\n")
            (refused,) = client.lines()
            assert refused["code"] == "too_long"


def test_half_a_line_and_the_end_is_nothing(served: Served) -> None:
    with Client(served.path) as client:
        client.send(b'{"command": "ec')
        client.sock.shutdown(socket.SHUT_WR)
        assert client.lines() == []


def test_a_client_that_resets_in_the_middle_of_an_answer(served: Served) -> None:
    for _ in range(20):
        with Client(served.path) as client:
            client.say("bulk", size=10_000_000)
            client.sock.recv(10)
    assert ask(served.path, "echo") == {}
    assert served.log == []


# --- patience, in virtual time ----------------------------------------------------------------------


def in_virtual_time(path: Path, story: Callable[[MockClock], Awaitable[None]]) -> None:
    """Run `story` beside a server; it moves the clock."""
    clock = MockClock()

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[Path]) -> None:
                await serve_control(path, COMMANDS, task_status=task_status)

            await nursery.start(serve)
            await story(clock)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


def connected(path: Path) -> closing[socket.socket]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(str(path))
    sock.setblocking(False)
    return closing(sock)


def heard(sock: socket.socket) -> bytes | None:
    """All that is there; None if that is nothing and no end either."""
    data = b""
    while True:
        try:
            chunk = sock.recv(1 << 20)
        except BlockingIOError:
            return data or None
        except ConnectionResetError:
            return data
        if not chunk:
            return data
        data += chunk


def test_a_client_that_says_nothing_is_let_go(tmp_path: Path) -> None:
    async def story(clock: MockClock) -> None:
        with connected(tmp_path / "s") as sock:
            await wait_all_tasks_blocked()
            clock.jump(59.0)
            await wait_all_tasks_blocked()
            assert heard(sock) is None
            clock.jump(2.0)
            await wait_all_tasks_blocked()
            assert heard(sock) == b""

    in_virtual_time(tmp_path / "s", story)


def test_half_a_line_holds_its_place_for_seconds_however_it_drips(tmp_path: Path) -> None:
    async def story(clock: MockClock) -> None:
        with connected(tmp_path / "s") as sock:
            for _ in range(9):
                sock.send(b"x")
                await wait_all_tasks_blocked()
                clock.jump(1.0)
                await wait_all_tasks_blocked()
                assert heard(sock) is None
            sock.send(b"x")
            clock.jump(1.5)
            await wait_all_tasks_blocked()
            answer = heard(sock)
            assert answer is not None
            assert b'"code":"timeout"' in answer

    in_virtual_time(tmp_path / "s", story)


def test_a_client_that_never_reads_is_let_go(tmp_path: Path) -> None:
    async def story(clock: MockClock) -> None:
        with connected(tmp_path / "s") as deaf, connected(tmp_path / "s") as other:
            deaf.send(b'{"command": "bulk", "arguments": {"size": 20000000}}\n' * 3)
            await wait_all_tasks_blocked()
            other.send(b'{"command": "echo"}\n')
            await wait_all_tasks_blocked()
            assert heard(other) == b'{"id":null,"ok":true,"result":{}}\n'
            clock.jump(11.0)
            await wait_all_tasks_blocked()
            answer = heard(deaf)
            assert answer is not None
            assert len(answer) < 20_000_000
            with pytest.raises(BrokenPipeError):
                deaf.send(b"x")

    in_virtual_time(tmp_path / "s", story)


def test_reading_a_little_now_and_then_does_not_help(tmp_path: Path) -> None:
    async def story(clock: MockClock) -> None:
        with connected(tmp_path / "s") as slow:
            slow.send(b'{"command": "bulk", "arguments": {"size": 20000000}}\n')
            for _ in range(12):
                await wait_all_tasks_blocked()
                clock.jump(1.0)
                await wait_all_tasks_blocked()
                slow.recv(1)
            with pytest.raises(BrokenPipeError):
                slow.send(b"x")

    in_virtual_time(tmp_path / "s", story)


# --- rights and resources ---------------------------------------------------------------------------


def test_another_user_is_refused_even_where_the_file_would_let_him(tmp_path: Path) -> None:
    """The mode of the file keeps others away; should it ever be opened, the peer's credentials do."""
    require_root()
    tmp_path.chmod(0o711)
    with serving(tmp_path / "s") as served:
        served.path.chmod(0o666)
        answer = as_nobody_hears(served.path)
        assert '"error":"uid 65534 may not control this process","code":"denied"' in answer
        served.path.chmod(0o600)
        assert as_nobody_hears(served.path) == os.strerror(errno.EACCES)


_AS_ANOTHER = """
import os, socket, sys
os.chdir(sys.argv[1])
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
    try:
        sock.connect(sys.argv[2])
        print(sock.recv(4096).decode())
    except OSError as error:
        print(error.strerror)
"""


def as_nobody_hears(path: Path) -> str:
    """What a process of another user hears when it connects; or why it cannot."""
    command = [sys.executable, "-c", _AS_ANOTHER, str(path.parent), path.name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """The process can open no other file."""
    gc.collect()  # of earlier tests: nothing of theirs is closed meanwhile
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_client_gets_in_when_the_flows_have_taken_all_descriptors(tmp_path: Path) -> None:
    with serving(tmp_path / "s") as served, ExitStack() as opened:
        socks = [opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) for _ in range(3)]
        with no_descriptors_left():
            for sock in socks:
                with sock:
                    sock.connect(str(served.path))
                    sock.sendall(b'{"command": "echo"}\n')
                    assert sock.recv(4096) == b'{"id":null,"ok":true,"result":{}}\n'
