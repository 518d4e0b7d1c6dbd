"""Where control sockets are: one per process, `PID.sock`, in a folder of its user's.

Owns the order in which folders are taken and searched. Making them, and what must be true of them, is
`_binding`'s.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ._peer import listener_at
from ._protocol import UNREACHABLE, USAGE, ControlError

SUFFIX = ".sock"
_NAME = "wfpstream"
_OF_SYSTEM = Path("/run") / _NAME


def default_socket_path() -> Path:
    """Where this process has its control socket unless told otherwise.

    `$XDG_RUNTIME_DIR/wfpstream/PID.sock`; in a systemd service with a RuntimeDirectory, that folder; as root
    `/run/wfpstream`; else `/run/user/UID/wfpstream`, and where there is none `/tmp/wfpstream-UID`.
    """
    return next(_folders()) / f"{os.getpid()}{SUFFIX}"


def find_socket() -> Path:
    """The control socket of the only wfpstream of ours that runs.

    Raises:
        ControlError: none runs, or several: they are named.
    """
    found = dict(_live_sockets())
    if not found:
        raise ControlError("no wfpstream with a control socket is running here", UNREACHABLE)
    if len(found) > 1:
        names = ", ".join(f"{path} (pid {pid})" if pid else str(path) for path, pid in found.items())
        raise ControlError(f"several are running; say which with --socket: {names}", USAGE)
    return next(iter(found))


def is_pid_socket(name: str) -> bool:
    """Whether a file is called as a process' default socket is."""
    return name.endswith(SUFFIX) and name.removesuffix(SUFFIX).isdecimal()


def _folders() -> Iterator[Path]:
    """Best first. A run-time folder of somebody else's (root's environment after `su`) is none."""
    uid = os.geteuid()
    of_service = Path(os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0])
    if of_service.is_absolute() and _is_own_folder(of_service):
        yield of_service
    of_session = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if of_session.is_absolute() and _is_own_folder(of_session):
        yield of_session / _NAME
    if uid == 0:
        yield _OF_SYSTEM
    of_user = Path("/run/user") / str(uid)
    if _is_own_folder(of_user):
        yield of_user / _NAME
    yield Path("/tmp") / f"{_NAME}-{uid}"


def _is_own_folder(path: Path) -> bool:
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _live_sockets() -> Iterator[tuple[Path, int]]:
    """Sockets somebody listens at, in folders that nobody but their owner can have filled."""
    for folder in dict.fromkeys(_folders()):
        # Below /run root alone makes folders: this one may be of a service that it runs as another user.
        if not _is_own_folder(folder) and folder != _OF_SYSTEM:
            continue
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX))
        except OSError:
            continue
        for name in names:
            path = folder / name
            try:
                listener = listener_at(path)
            except OSError:
                continue
            if listener is not None:
                yield path, listener.pid
