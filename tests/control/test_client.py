"""Asking: what goes wrong is one line each, and nothing is waited for without end."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.control.kit import TIMEOUT, serving
from tests.support.rights import as_nobody
from tests.support.system import require_root
from wfpstream.control import ControlError, ask


def problem(path: Path, timeout: float = TIMEOUT) -> tuple[str, str]:
    """The one line and the code."""
    with pytest.raises(ControlError) as caught:
        ask(path, "echo", {"a": 1}, timeout)
    (line,) = caught.value.lines
    return line, caught.value.code


@contextmanager
def false_server(path: Path, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Something that listens and is no wfpstream; `serve` gets one connection."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            sock, _ = listener.accept()
            with sock:
                serve(sock)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            thread.join(TIMEOUT)


def test_an_answer(tmp_path: Path) -> None:
    with serving(tmp_path / "s") as served:
        assert ask(served.path, "echo", {"text": "ä\n\0", "list": [1, 2.5, None]}) == {
            "text": "ä\n\0",
            "list": [1, 2.5, None],
        }
        assert ask(str(served.path), "bulk", {"size": 5_000_000}) == "x" * 5_000_000


def test_an_error_of_the_command(tmp_path: Path) -> None:
    def two(arguments: object) -> None:
        raise ControlError("first\nsecond\n", "usage")

    with serving(tmp_path / "s", {"two": two}) as served, pytest.raises(ControlError) as caught:
        ask(served.path, "two")
    assert (caught.value.lines, caught.value.code) == (["first", "second"], "usage")


def test_nobody_there(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert problem(path) == (f"no such control socket: {path}", "unreachable")
    path.write_text("")
    assert problem(path)[0] == f"{path} is no socket"
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
    assert problem(path)[0] == f"nobody listens at {path}: its wfpstream is gone"
    assert problem(tmp_path / ("x" * 200))[0].endswith("bytes, a socket's at most 107")
    assert problem(Path("a\0b"))[0] == r"no such control socket: 'a\x00b': it has a NUL character"
    assert problem(path / "below")[0] == f"cannot use {path / 'below'}: not a directory"


def test_somebody_elses(tmp_path: Path) -> None:
    require_root()
    with serving(tmp_path / "s") as served:
        with as_nobody():
            assert problem(served.path) == (
                f"permission denied: {served.path} (its owner and root may use it)",
                "unreachable",
            )
        assert ask(served.path, "echo") == {}


_FOREIGN_SERVER = """
import os, socket, sys
os.chdir(sys.argv[1])
os.setresuid(65534, 65534, 65534)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind("s")
    os.chmod("s", 0o777)
    listener.listen()
    print("listening", flush=True)
    print(listener.accept()[0].recv(100), flush=True)
"""


def test_a_server_that_is_neither_ours_nor_roots_hears_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can listen somewhere in /tmp; what one asks is not for them."""
    require_root()
    tmp_path.chmod(0o777)
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", _FOREIGN_SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        os.seteuid(1)
        try:
            found = problem(Path("s"))
        finally:
            os.seteuid(0)
        assert process.stdout.readline() == "b''\n"
    assert found == ("who listens at s is another user (uid 65534)", "denied")


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (b"", "the wfpstream at {} ended before it answered"),
        (b'{"id": 1, "ok": tr', "the wfpstream at {} ended before it answered"),
        (b"HTTP/1.1 400 Bad Request\r\n", "not an answer: JSON is malformed: invalid character (byte 0)"),
        (b"[" * 100_000 + b"\n", None),
        (b'{"ok": "yes"}\n', "not an answer: Expected `bool`, got `str` - at `$.ok`"),
        (b'{"ok": false}\n', "failed"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, said: bytes, line: str | None) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(said)

    with false_server(tmp_path / "s", serve):
        text, _ = problem(tmp_path / "s")
    if line is not None:
        assert text == line.format(tmp_path / "s")


def test_a_server_that_ends_without_reading(tmp_path: Path) -> None:
    with false_server(tmp_path / "s", lambda sock: None):
        text, code = problem(tmp_path / "s")
    assert text == f"the wfpstream at {tmp_path / 's'} ended before it answered"
    assert code == "unreachable"


def test_a_server_that_never_answers(tmp_path: Path) -> None:
    done = threading.Event()

    def serve(sock: socket.socket) -> None:
        done.wait(TIMEOUT)

    with false_server(tmp_path / "s", serve):
        assert problem(tmp_path / "s", 0.05) == (f"no answer from {tmp_path / 's'} within 0.05 s", "timeout")
        done.set()


def test_a_server_that_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
            first.connect(str(path))
            text, _ = problem(path, 0.05)
    assert text == f"too many wait at {path}: not let in within 0.05 s"


def test_what_cannot_be_said(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="cannot be sent"):
        ask(tmp_path / "s", "echo", {"a": "\udc80"})


def test_asking_needs_no_event_loop() -> None:
    code = "import sys, wfpstream.control\nprint('trio' in sys.modules, 'rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_names_there_are_none_of() -> None:
    import wfpstream.control

    with pytest.raises(AttributeError, match="nonsense"):
        _ = wfpstream.control.nonsense
