"""The folder of undo records: where only its owner can write, without links, locked against other changes.

Owns the folder, the files and every check on both. Whatever lies there and is not exactly a record of ours is refused,
whoever put it there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from wfpstream.intercept._errors import InterceptError
from wfpstream.intercept._machine import boot_id, this_namespace
from wfpstream.intercept._record import Record, decode_record, encode_record

MAX_SIZE = 1 << 16
LOCK_PATIENCE = 10.0
DEFAULT_FOLDER = "/run/wfpstream/intercept"

_FILE = re.compile(r"([A-Za-z][A-Za-z0-9_-]{0,31})\.(\d{1,20})")


def default_folder() -> Path:
    """Where records are kept; `WFPSTREAM_STATE` names another place, for tests."""
    return Path(os.environ.get("WFPSTREAM_STATE") or DEFAULT_FOLDER)


class Records:
    """The folder of records, opened once without following links, and locked against other changes."""

    def __init__(self, folder_fd: int, path: Path) -> None:
        self._fd = folder_fd
        self._path = path

    def all_here(self) -> tuple[list[Record], list[str]]:
        """The records of this network namespace, and a line for each file that is none.

        Records of an earlier start of the machine are removed: what they tell of went with it.
        """
        found: list[Record] = []
        faults: list[str] = []
        for file in sorted(os.listdir(self._fd)):
            if not _FILE.fullmatch(file):
                continue
            try:
                record = self._read(file)
            except InterceptError as error:
                faults.extend(error.lines)
                continue
            if record.boot != boot_id():
                os.unlink(file, dir_fd=self._fd)
            elif record.is_from_here:
                found.append(record)
        return found, faults

    def find(self, name: str) -> Record | None:
        """The record of `name` in this network namespace.

        Raises:
            InterceptError: there is a file for it that is no record of ours.
        """
        try:
            record = self._read(_file_name(name, this_namespace()))
        except FileNotFoundError:
            return None
        return record if record.is_from_here else None

    def write(self, record: Record) -> None:
        """Keep it, in one step, on the disk before anything else happens.

        Raises:
            OSError: as the system says.
        """
        file = _file_name(record.name, record.namespace)
        beside = f".{file}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=self._fd)
        fd = os.open(beside, flags, 0o600, dir_fd=self._fd)
        try:
            try:
                _write_all(fd, encode_record(record))
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(beside, file, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=self._fd)
            raise
        os.fsync(self._fd)

    def remove(self, record: Record) -> None:
        """Forget it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_file_name(record.name, record.namespace), dir_fd=self._fd)

    def _read(self, file: str) -> Record:
        shown = self._path / file
        try:
            # Not blocking: a FIFO under the name must not hold us.
            fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InterceptError(
                f"the undo record {shown} is refused: {(error.strerror or '').lower()}"
            ) from error
        try:
            _check_ours(fd, stat.S_ISREG, f"the undo record {shown}", "file")
            data = _read_all(fd, MAX_SIZE + 1)
        finally:
            os.close(fd)
        try:
            record = decode_record(data)
        except ValueError as error:
            raise InterceptError(f"the undo record {shown} is refused: {error}") from None
        if len(data) > MAX_SIZE or _file_name(record.name, record.namespace) != file:
            raise InterceptError(f"the undo record {shown} is refused: it is not what its name says")
        return record


@contextlib.contextmanager
def open_records(folder: Path, *, create: bool) -> Iterator[Records | None]:
    """The records in `folder`, locked; None if there is no such folder and none is to be made.

    Raises:
        InterceptError: the folder is not ours alone, cannot be used, or somebody keeps it locked.
    """
    try:
        fd = _open_folder(folder, create)
    except FileNotFoundError:
        if create:
            raise
        yield None
        return
    try:
        _check_ours(fd, stat.S_ISDIR, f"the folder of undo records {folder}", "folder")
        _lock(fd, folder)
        yield Records(fd, folder)
    finally:
        os.close(fd)


def _open_folder(folder: Path, create: bool) -> int:
    """Step by step from the root, so that no link on the way is followed and every folder is looked at."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    if not folder.is_absolute() or ".." in folder.parts:
        raise InterceptError(f"the folder of undo records must be an absolute path, not {folder}")
    here = os.open("/", flags)
    shown = Path("/")
    try:
        for number, part in enumerate(folder.parts[1:], 2):
            shown /= part
            is_last = number == len(folder.parts)
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700 if is_last else 0o755, dir_fd=here)
            step = os.open(part, flags, dir_fd=here)
            os.close(here)
            here = step
            _check_step(here, shown)
    except FileNotFoundError:
        os.close(here)
        raise
    except OSError as error:
        os.close(here)
        raise InterceptError(
            f"cannot use {shown} for undo records: {(error.strerror or '').lower()}"
        ) from None
    except InterceptError:
        os.close(here)
        raise
    return here


def _check_step(fd: int, shown: Path) -> None:
    """Nobody else may replace what lies in it: not writable by others, unless sticky as /tmp is."""
    found = os.fstat(fd)
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise InterceptError(f"{shown} is writable by others: undo records are not kept or read there")
    if found.st_uid not in (0, os.geteuid()):
        raise InterceptError(
            f"{shown} belongs to user {found.st_uid}: undo records are not kept or read there"
        )


def _check_ours(fd: int, kind: Callable[[int], bool], what: str, noun: str) -> None:
    found = os.fstat(fd)
    if not kind(found.st_mode):
        raise InterceptError(f"{what} is refused: it is no {noun}")
    if found.st_uid != os.geteuid():
        raise InterceptError(f"{what} is refused: it belongs to user {found.st_uid}")
    if found.st_mode & 0o022:
        raise InterceptError(f"{what} is refused: it is writable by others")


def _lock(fd: int, folder: Path) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise InterceptError(
                    f"another apply or undo has been at work for {LOCK_PATIENCE:g} s ({folder} is locked)"
                ) from None
            time.sleep(0.05)
        else:
            return


def _file_name(name: str, namespace: int) -> str:
    return f"{name}.{namespace}"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read_all(fd: int, limit: int) -> bytes:
    data = b""
    while len(data) < limit and (chunk := os.read(fd, limit - len(data))):
        data += chunk
    return data
