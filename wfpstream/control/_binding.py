"""Opening the control socket so that nobody else can have a hand in it, and removing it again.

Owns the conditions on folder and path, what is left over from dead processes, and the end. It must not know
what is said over the socket.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

import trio

from ._paths import is_pid_socket
from ._peer import listener_at, path_problem
from ._protocol import ControlError

BACKLOG = 64
_LOCK_PAUSE = 0.02
_LOCK_TRIES = 100


class BoundSocket:
    """A control socket that listens.

    Attributes:
        path: where.
        sock: the socket; it does not block.
    """

    def __init__(self, path: Path, sock: socket.socket) -> None:
        self.path = path
        self.sock = sock
        found = path.lstat()
        self._identity = (found.st_dev, found.st_ino)

    def close(self) -> None:
        """Remove it, if it is still ours, and stop listening: in this order, so that nobody finds it dead."""
        try:
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == self._identity:
                self.path.unlink()
        except OSError:
            pass  # gone already, or out of reach: nothing that the end could mend
        self.sock.close()


async def bind_private(path: Path) -> BoundSocket:
    """Listen at `path`, for its owner only.

    A folder that is missing is made, for its owner only. What a dead process of ours left there is replaced.

    Raises:
        ControlError: one line: why not.
    """
    path = Path(os.path.abspath(path))
    problem = path_problem(path)
    if problem is not None:
        raise _refused(path, problem)
    try:
        folder = _open_folder(path)
    except OSError as error:
        raise _refused(path, _reason(error)) from error
    try:
        await _lock(folder, path)
        _clear(path)
        return _bind(path)
    except OSError as error:
        raise _refused(path, _reason(error)) from error
    finally:
        os.close(folder)


def _refused(path: Path, reason: str) -> ControlError:
    return ControlError(f"cannot open the control socket {path}: {reason}")


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _open_folder(path: Path) -> int:
    """The folder of `path`, made if it is missing, opened, and found safe.

    Raises:
        ControlError: others can write there.
        OSError: as the system says.
    """
    folder = path.parent
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _refused(
                path, f"{folder} is no folder, or a link to one: name the folder itself"
            ) from error
        raise
    found = os.fstat(fd)
    if found.st_uid not in (0, os.geteuid()):
        problem = f"{folder} belongs to another user (uid {found.st_uid})"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem = f"others can write in {folder}; name a folder in it, which will be made for you alone"
    else:
        return fd
    os.close(fd)
    raise _refused(path, problem)


async def _lock(folder: int, path: Path) -> None:
    """One process at a time looks what is there and replaces it; the lock goes with the descriptor."""
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await trio.sleep(_LOCK_PAUSE)
        else:
            return
    raise _refused(path, f"somebody keeps a lock on {path.parent}")


def _clear(path: Path) -> None:
    """Make room at `path`, and take away what other processes of ours left beside it when they were killed."""
    problem = _occupied(path)
    if problem is not None:
        raise _refused(path, problem)
    if not is_pid_socket(path.name):
        return
    for name in os.listdir(path.parent):
        if is_pid_socket(name):
            try:
                _occupied(path.parent / name)
            except OSError:
                continue


def _occupied(path: Path) -> str | None:
    """Why `path` cannot be had; None if it is free, and after a dead socket of ours was removed.

    Raises:
        OSError: as the system says.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISSOCK(found.st_mode):
        return "something else is there, and it is no socket"
    if found.st_uid != os.geteuid():
        return f"it belongs to another user (uid {found.st_uid})"
    listener = listener_at(path)
    if listener is not None:
        return f"another wfpstream{f' (pid {listener.pid})' if listener.pid else ''} listens there"
    path.unlink()
    return None


def _bind(path: Path) -> BoundSocket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Linux gives the file the mode of the socket: at no time can others open it, whatever the umask.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(os.fspath(path))
        sock.listen(BACKLOG)
        return BoundSocket(path, sock)
    except BaseException:
        sock.close()
        raise
