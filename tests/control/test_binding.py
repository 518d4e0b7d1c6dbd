"""Opening and finding the socket: what may be there already, whose folders are taken, two instances."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.control.kit import Client, serving
from tests.support.system import require_root
from wfpstream.control import ControlError, ask, default_socket_path, find_socket, serve_control


def refusal(path: Path) -> str:
    """Why the socket cannot be opened: one line."""
    with pytest.raises(ControlError) as caught:
        trio.run(serve_control, path, {})
    (line,) = caught.value.lines
    prefix = f"cannot open the control socket {path}: "
    assert line.startswith(prefix)
    return line.removeprefix(prefix)


def leave_dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(path))
        sock.listen()


# --- what is there already --------------------------------------------------------------------------


def test_a_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    leave_dead_socket(path)
    with serving(path):
        assert ask(path, "echo") == {}
    assert not path.exists()


def test_a_live_socket_is_another_instances(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with serving(path):
        expected = f"another wfpstream (pid {os.getpid()}) listens there"
        assert refusal(path) == expected
        assert ask(path, "echo") == {}


def test_two_that_start_at_once_over_a_dead_socket(tmp_path: Path) -> None:
    """One of them gets it; the other hears of the first, and never takes its socket away."""
    path = tmp_path / "s"

    async def main() -> list[str]:
        refused: list[str] = []

        async def one(task_status: trio.TaskStatus[Path]) -> None:
            try:
                await serve_control(path, {"echo": lambda arguments: arguments}, task_status=task_status)
            except ControlError as error:
                refused.append(error.text)
                task_status.started(path)

        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as starting:
                for _ in range(2):
                    starting.start_soon(nursery.start, one)
            assert await trio.to_thread.run_sync(ask, path, "echo") == {}
            nursery.cancel_scope.cancel()
        return refused

    for _ in range(20):
        leave_dead_socket(path)
        (text,) = trio.run(main)
        assert text.endswith("listens there")
        assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "fifo", "link to a socket"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "s", tmp_path / "other"
    if kind == "file":
        path.write_text("keep me")
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        if kind == "link":
            other.write_text("keep me")
        elif kind == "link to a socket":
            leave_dead_socket(other)
        path.symlink_to(other)
    before = path.lstat()
    assert refusal(path) == "something else is there, and it is no socket"
    assert path.lstat() == before
    assert other.exists() == (kind in ("link", "link to a socket"))


def test_a_socket_of_another_user_is_left_alone(tmp_path: Path) -> None:
    require_root()
    path = tmp_path / "s"
    leave_dead_socket(path)
    os.chown(path, 65534, 65534)
    assert refusal(path) == "it belongs to another user (uid 65534)"
    assert path.is_socket()


# --- folders ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_others_can_write_in_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    folder.chmod(mode)
    expected = f"others can write in {folder}; name a folder in it, which will be made for you alone"
    assert refusal(folder / "s") == expected
    assert os.listdir(folder) == []
    with serving(folder / "mine" / "s") as served:
        assert ask(served.path, "echo") == {}
    assert (folder / "mine").stat().st_mode & 0o777 == 0o700


def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    require_root()
    folder = tmp_path / "f"
    folder.mkdir(mode=0o755)
    os.chown(folder, 65534, 65534)
    assert refusal(folder / "s") == f"{folder} belongs to another user (uid 65534)"


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "f")
    assert refusal(link / "s") == f"{link} is no folder, or a link to one: name the folder itself"


def test_paths_no_socket_can_have(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 200)
    length = len(str(long))
    assert refusal(long) == f"its path has {length} bytes, a socket's at most 107"
    assert refusal(tmp_path / "a\0b") == "it has a NUL character"
    assert refusal(tmp_path / "no" / "such" / "s") == "no such file or directory"
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file" / "s").startswith(f"{tmp_path / 'file'} is no folder")


# --- where it is ------------------------------------------------------------------------------------


@pytest.fixture
def run_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run-time folder of our own, and no other that could be found."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    return tmp_path


def test_the_default_is_in_the_users_run_time_folder(run_time: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{os.getpid()}.sock"
    assert default_socket_path() == run_time / "wfpstream" / name
    service = run_time / "service"
    service.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{service}:/run/other")
    assert default_socket_path() == service / name


@pytest.mark.parametrize("value", ["", "relative", "/nowhere/at/all"])
def test_a_run_time_folder_that_is_none_is_passed_over(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    uid = os.geteuid()
    folders = ["/run/wfpstream"] if uid == 0 else [f"/run/user/{uid}/wfpstream", f"/tmp/wfpstream-{uid}"]
    assert str(default_socket_path().parent) in folders


def test_a_run_time_folder_of_somebody_else_is_passed_over(
    run_time: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `su`, which keeps the environment."""
    require_root()
    os.chown(run_time, 65534, 65534)
    assert default_socket_path().parent == Path("/run/wfpstream")


@contextmanager
def process_with_socket() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process of its own that listens at its default socket."""
    code = (
        "import trio\nfrom wfpstream.control import default_socket_path, serve_control\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        async def serve(task_status):\n"
        "            await serve_control(default_socket_path(), {}, task_status=task_status)\n"
        "        print(await nursery.start(serve), flush=True)\n"
        "trio.run(main)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_the_only_one_that_runs_is_found(run_time: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_here(monkeypatch, run_time)
    with pytest.raises(ControlError, match="no wfpstream with a control socket is running here"):
        find_socket()
    with process_with_socket() as (process, path):
        assert path == run_time / "wfpstream" / f"{process.pid}.sock"
        assert find_socket() == path
        leave_dead_socket(path.with_name("1.sock"))
        path.with_name("2.sock").write_text("no socket")
        assert find_socket() == path
        with process_with_socket() as (second, other):
            with pytest.raises(ControlError) as caught:
                find_socket()
            (line,) = caught.value.lines
            assert f"{path} (pid {process.pid})" in line
            assert f"{other} (pid {second.pid})" in line
            assert "--socket" in line
            assert caught.value.code == "usage"
            assert not path.with_name("1.sock").exists()  # the second took the dead one away as it began
            assert path.with_name("2.sock").exists()
            second.send_signal(signal.SIGKILL)
            second.wait()
            assert other.is_socket()
            assert find_socket() == path
        with serving(other.with_name(f"{os.getpid()}.sock")):
            assert not other.exists()


def only_here(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """What other tests or users run on this machine is not found."""
    monkeypatch.setattr("wfpstream.control._paths._folders", lambda: iter([folder / "wfpstream"]))


def test_a_folder_that_others_made_is_not_searched(run_time: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/tmp/wfpstream-UID could have been made, and filled, by anybody."""
    require_root()
    only_here(monkeypatch, run_time)
    with serving(run_time / "wfpstream" / "1.sock") as served:
        assert find_socket() == served.path
        os.chown(run_time / "wfpstream", 65534, 65534)
        with pytest.raises(ControlError, match="no wfpstream"):
            find_socket()
        # But below /run it is that of a service, which root started as another user.
        monkeypatch.setattr("wfpstream.control._paths._OF_SYSTEM", run_time / "wfpstream")
        assert find_socket() == served.path


def test_a_lock_that_somebody_keeps_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wfpstream.control._binding._LOCK_PAUSE", 0)
    fd = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert refusal(tmp_path / "s") == f"somebody keeps a lock on {tmp_path}"
    finally:
        os.close(fd)


def test_a_relative_path_is_taken_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(Path("s")), Client(tmp_path / "s") as client:
        assert client.ask("echo")["ok"]
