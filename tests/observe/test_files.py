"""Private files: modes, atomicity, what is special."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from wfpstream.observe import open_private_file, replace_private_file, write_private_file


def test_a_written_file_is_private_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "ready.json"
    path.write_text("an older one")
    path.chmod(0o666)
    write_private_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["ready.json"]


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    written, opened = tmp_path / "written", tmp_path / "opened"
    written.symlink_to(precious)
    opened.symlink_to(precious)
    write_private_file(written, b"x")
    os.close(open_private_file(opened))
    assert not written.is_symlink()
    assert not opened.is_symlink()
    assert precious.read_text() == "keep me"


def test_nothing_is_left_behind_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_private_file(tmp_path / "folder", b"x")
    with pytest.raises(OSError, match=r"No such file"):
        write_private_file(tmp_path / "missing" / "file", b"x")
    assert os.listdir(tmp_path) == ["folder"]


def test_an_event_file_has_its_name_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("old")
    fd = open_private_file(path)
    os.write(fd, b"first line\n")
    assert path.read_bytes() == b"first line\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.close(fd)


def test_a_fifo_stays_a_fifo(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    fd = open_private_file(path)
    os.write(fd, b"through")
    os.close(fd)
    reader.join()
    assert read == [b"through"]
    assert path.is_fifo()


def test_a_device_is_not_replaced() -> None:
    fd = open_private_file("/dev/null")
    os.close(fd)
    assert Path("/dev/null").is_char_device()


def test_a_replaced_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    path.write_bytes(b"an older one")
    path.chmod(0o666)
    with replace_private_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"an older one"
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["out.pcap"]


def test_a_file_that_failed_halfway_replaces_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    path.write_bytes(b"an older one")
    with pytest.raises(ZeroDivisionError), replace_private_file(path) as file:
        file.write(b"half")
        file.write(bytes(1 // 0))
    assert path.read_bytes() == b"an older one"
    assert os.listdir(tmp_path) == ["out.pcap"]


def test_a_fifo_is_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(path.read_bytes()))
    reader.start()
    with replace_private_file(path) as file:
        file.write(b"through")
    reader.join()
    assert received == [b"through"]
    assert stat.S_ISFIFO(path.stat().st_mode)
