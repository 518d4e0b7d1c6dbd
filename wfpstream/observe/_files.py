"""Files that others may read while we write: private (0600), written beside their place and renamed into it.

So a reader never sees half a file, and a link planted under the name is replaced, not followed. What is no
regular file (a FIFO, a device) has no "beside" and is opened as it is.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Captures are written in small records.
_BUFFER = 1 << 18


def write_private_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Put `data` at `path` in one step.

    Raises:
        OSError: as the system says; nothing is left beside `path`.
    """
    with _beside(path) as file:
        file.write(data)


@contextmanager
def replace_private_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write for as long as the block lasts: it comes to `path` in one step when the block ends well.

    If the block raises, what was at `path` stays there. A FIFO or device is written as it is, as one goes.

    Raises:
        OSError: as the system says; nothing is left beside `path`.
    """
    if _is_special(Path(path)):
        with open(path, "wb", buffering=_BUFFER) as special:
            yield special
    else:
        with _beside(path) as file:
            yield file


def open_private_file(path: str | os.PathLike[str]) -> int:
    """A descriptor to write at `path`: a new, empty, private file, or the FIFO or device that is there.

    Raises:
        OSError: as the system says.
    """
    if _is_special(Path(path)):
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    folder, name = os.path.split(os.fspath(path))
    fd, beside = tempfile.mkstemp(prefix=f".{name}.", dir=folder or ".")
    try:
        os.replace(beside, path)
    except BaseException:
        os.close(fd)
        os.unlink(beside)
        raise
    return fd


@contextmanager
def _beside(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    folder, name = os.path.split(os.fspath(path))
    fd, beside = tempfile.mkstemp(prefix=f".{name}.", dir=folder or ".")
    try:
        with os.fdopen(fd, "wb", buffering=_BUFFER) as file:
            yield file
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _is_special(path: Path) -> bool:
    # /dev/stderr and /dev/fd/3 are links to whatever is behind the descriptor, a regular file perhaps.
    if path.is_relative_to("/dev") or path.is_relative_to("/proc"):
        return True
    try:
        return not stat.S_ISREG(path.lstat().st_mode) and not path.is_symlink()
    except FileNotFoundError:
        return False
