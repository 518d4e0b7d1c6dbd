"""Event lines of several processes into one file, pipe or terminal: each line whole, none twice.

Owns the reading of their pipes and the one writing. A slow reader makes it read no more: what is then too much, the
processes' own sinks count (`JsonLines`). A half line of a process that was killed is left out.
"""

from __future__ import annotations

import fcntl
import os
import select
import stat
from collections.abc import Callable

import trio

_CHUNK = 1 << 18
# A pipe that polls writable takes this much without waiting (PIPE_BUF).
_PIECE = 4096
_PIPE_SIZE = 1 << 20


def open_event_pipe() -> tuple[int, int]:
    """A pipe for one process' lines, with room for a burst: where to read, where it writes.

    Raises:
        OSError: there are no descriptors.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        pass  # beyond what this user may have: the usual 64 KiB do as well
    os.set_blocking(reading, False)
    return reading, writing


class LineMerger:
    """One place for the lines of many.

    Args:
        fd: where to write; taken over, and closed by `close`, if `owned`.
        owned: whether it is ours.
        on_failure: called once with one line of text when writing has failed; what comes then is discarded.
    """

    def __init__(self, fd: int, *, owned: bool, on_failure: Callable[[str], None]) -> None:
        # A regular file is always ready; nobody reads it while we wait.
        self.waits = stat.S_ISREG(os.fstat(fd).st_mode)
        self._fd = fd
        self._owned = owned
        self._on_failure = on_failure
        self._failed = False
        self._turn = trio.Lock()

    async def merge(self, reading: int) -> None:
        """A task per pipe: write its lines, until all who write into it have gone. Closes `reading`."""
        rest = bytearray()
        try:
            while True:
                await trio.lowlevel.wait_readable(reading)
                try:
                    data = os.read(reading, _CHUNK)
                except BlockingIOError:
                    continue
                if not data:
                    return
                rest += data
                end = rest.rfind(b"\n") + 1
                if end:
                    await self._write(bytes(rest[:end]))
                    del rest[:end]
        finally:
            trio.lowlevel.notify_closing(reading)
            os.close(reading)

    def close(self) -> None:
        """Write no more."""
        if self._owned and self._fd != -1:
            os.close(self._fd)
        self._fd = -1

    async def _write(self, lines: bytes) -> None:
        view = memoryview(lines)
        async with self._turn:
            while view and not self._failed:
                try:
                    view = view[await self._write_some(view) :]
                except OSError as error:
                    self._failed = True
                    self._on_failure(f"events cannot be written: {error.strerror}")

    async def _write_some(self, view: memoryview) -> int:
        if self.waits:
            return os.write(self._fd, view)
        if not _is_writable(self._fd):
            await trio.lowlevel.wait_writable(self._fd)
        try:
            return os.write(self._fd, view[:_PIECE])
        except BlockingIOError:
            # Somebody made it non-blocking, and another one was quicker.
            await trio.lowlevel.wait_writable(self._fd)
            return 0


def _is_writable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))
