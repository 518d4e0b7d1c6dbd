"""A worker as a process: started with a socket to its parent, heard, waited for, killed.

Owns the process and the socket. It must not know what is said over it, nor why it is started.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import trio

__all__ = ["WORKER_DEAF_TO", "WorkerProcess", "start_worker"]

# A terminal, and systemd, send these to all processes of a service: what is to be done then the parent says.
WORKER_DEAF_TO = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CHUNK = 1 << 16
_POLL_EVERY = 0.05


class WorkerProcess:
    """A process that runs, or has run, and our end of the socket to it."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self._process = process
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self.pid = process.pid

    async def send(self, data: bytes) -> None:
        """Raises trio.BrokenResourceError: nobody reads it any more."""
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """Some bytes; none at the end. Raises trio.BrokenResourceError."""
        return bytes(await self._stream.receive_some(_CHUNK))

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def wait(self) -> int:
        """Its exit code; -n if signal n killed it."""
        code = self._process.poll()
        if code is not None:
            return code
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return await self._poll()  # an old container run-time forbids what it does not know
        try:
            while (code := self._process.poll()) is None:
                await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)
        return code

    async def _poll(self) -> int:
        while (code := self._process.poll()) is None:
            await trio.sleep(_POLL_EVERY)
        return code

    def close(self) -> None:
        """Say no more, and hear no more."""
        self._stream.socket.close()


def start_worker(
    command: Sequence[str], environment: Mapping[str, str], descriptors: Sequence[int]
) -> WorkerProcess:
    """Start a worker: it finds the number of its socket as the last argument.

    It is started by this thread: a worker asks the kernel to be killed when its parent's thread ends. And it is born
    with the signals blocked that it will ignore: none of them can end it before it has said so.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs, _blocked():
            process = subprocess.Popen(
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=(theirs.fileno(), *descriptors),
            )
    except BaseException:
        ours.close()
        raise
    ours.setblocking(False)
    return WorkerProcess(process, ours)


@contextmanager
def _blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WORKER_DEAF_TO)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
