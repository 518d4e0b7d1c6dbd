"""Who is at the other end of a Unix socket, and whether anybody is (SO_PEERCRED; unix(7)).

Owns the credentials and the trust in them: ourselves and root.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

_CREDENTIALS = struct.Struct("iII")
# As socket(2) has it for AF_UNIX: room for the path and the NUL behind it.
_MAX_PATH = 107


@dataclass(frozen=True)
class Peer:
    """A process as it was when it connected, or when it began to listen. pid 0: not one that we can see."""

    pid: int
    uid: int


def peer_of(sock: socket.socket) -> Peer:
    """The other end's process.

    Raises:
        OSError: as the system says.
    """
    pid, uid, _ = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(pid, uid)


def is_trusted(uid: int) -> bool:
    """Ourselves and root: who could take what they want anyway."""
    return uid in (0, os.geteuid())


def listener_at(path: Path) -> Peer | None:
    """Who listens at the socket `path`; None when nobody does: it is left over from a process that is gone.

    Raises:
        OSError: it cannot be told.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(os.fspath(path))
        except BlockingIOError:
            return Peer(0, -1)  # so many are waiting there that we cannot: it lives
        except OSError as error:
            if error.errno in (errno.ECONNREFUSED, errno.ENOENT):
                return None
            raise
        return peer_of(sock)


def path_problem(path: Path) -> str | None:
    """Why no socket can have this path, whatever the file system says."""
    text = os.fspath(path)
    if "\0" in text:
        return "it has a NUL character"
    length = len(os.fsencode(text))
    return f"its path has {length} bytes, a socket's at most {_MAX_PATH}" if length > _MAX_PATH else None
