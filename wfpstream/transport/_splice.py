"""Bytes from one socket to another inside the kernel: pipes, and what moves through them.

Owns the pipes (`PipePool`) and one direction of a connection that goes through one (`Conduit`): when to read, when
to write, what the kernel's answers mean, and that no byte is lost on the way. It waits for nothing and knows no loop:
who has readiness calls `pump`. It must not know flows, the engine, nor when a flow is to be moved like this.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable

from ._sockets import is_reset

__all__ = [
    "END",
    "MORE",
    "NO_PIPE",
    "READ_BLOCKED",
    "REFUSED",
    "RESET_READING",
    "RESET_WRITING",
    "URGENT",
    "WRITE_BLOCKED",
    "Conduit",
    "Pipe",
    "PipePool",
]

# What a `pump` came to.
MORE = 0  # the budget is used up, and there may be more: call again after others
READ_BLOCKED = 1  # nothing to read, nothing in the pipe, which is back in the pool
WRITE_BLOCKED = 2  # the receiver takes no more for now; the pipe holds `held` bytes
END = 3  # end of stream, and everything before it is written: the FIN is next
URGENT = 4  # the next byte is an urgent one, which splice never moves; everything before it is written
RESET_READING = 5  # the sender's leg is reset (IND-27); the pipe is empty
RESET_WRITING = 6  # the receiver's leg is reset; the pipe holds `held` bytes that nobody will have
NO_PIPE = 7  # no pipe is to be had now, or no memory: copy; the pipe, if there is one, holds `held` bytes
REFUSED = 8  # the kernel does not splice between these two: copy for good

# A pipe has a slot per 4 KiB, and on a fast network a slot carries more than that: what one call moves grows with
# the number of slots. CPU seconds per GB of a bare relay over loopback, medians of nine: 0.63 with 256 KiB, 0.48 with
# 512 KiB, 0.42 with 1 MiB, which is the default of `pipe-max-size`; copying 0.88.
PIPE_SIZE = 1024 * 1024
# The kernel's default. What a user beyond `pipe-user-pages-soft` gets instead has one or two slots, which is slower
# than copying.
SMALLEST_PIPE = 64 * 1024
# Only a flow whose receiver is slower than its sender keeps a pipe between two pumps. So that such flows leave some to
# the others there are many pipes, and beyond the first ones they are smaller. Together three quarters of the 64 MiB
# that `pipe-user-pages-soft` allows one user by default.
MOST_PIPES = 144
LARGE_PIPES = 16
SMALL_PIPE = 256 * 1024
# Idle pipes hold no pages, but two descriptors each.
IDLE_PIPES = 8

# EBADF is not among them: a socket closed under a conduit is a defect of ours.
_NOT_POSSIBLE = frozenset((errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP))
_NOT_NOW = frozenset((errno.ENOMEM, errno.ENOBUFS))

_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """Two ends of a kernel pipe, in bytes that it can hold at least when full of whole pages."""

    __slots__ = ("capacity", "reader", "writer")

    def __init__(self, reader: int, writer: int, capacity: int) -> None:
        self.reader = reader
        self.writer = writer
        self.capacity = capacity

    def close(self) -> None:
        """Let go of it, and of what is in it."""
        os.close(self.reader)
        os.close(self.writer)


class PipePool:
    """A bounded number of pipes, made on demand; only empty ones come back.

    Attributes:
        lent: pipes that somebody has.
        exhausted: how often there was none to be had.
        has_room: whether the process has descriptors for another one: connections need them more.

    Args:
        most: pipes at the same time.
        idle: of those, kept open while nobody needs them.
        size: bytes wanted of each; a smaller one is taken down to `SMALLEST_PIPE`. When more than `LARGE_PIPES`
            are lent, further ones are of at most `SMALL_PIPE`.
    """

    def __init__(self, most: int = MOST_PIPES, idle: int = IDLE_PIPES, size: int = PIPE_SIZE) -> None:
        self._most = most
        self._keep = idle
        self._size = size
        self._idle: list[Pipe] = []
        self._closed = False
        self.lent = 0
        self.exhausted = 0
        self.has_room: Callable[[], bool] = lambda: True

    @property
    def is_exhausted(self) -> bool:
        """Everybody who asks now goes without."""
        return self.lent >= self._most

    @property
    def open(self) -> int:
        """Pipes that exist."""
        return self.lent + len(self._idle)

    def borrow(self) -> Pipe | None:
        """An empty pipe, or None: not now."""
        if self._idle:
            self.lent += 1
            return self._idle.pop()
        is_refused = self.is_exhausted or self._closed or not self.has_room()
        pipe = None if is_refused else _make(self._size_of_next())
        if pipe is None:
            self.exhausted += 1
        else:
            self.lent += 1
        return pipe

    def _size_of_next(self) -> int:
        return self._size if self.lent < LARGE_PIPES else min(self._size, SMALL_PIPE)

    def give_back(self, pipe: Pipe) -> None:
        """An empty pipe that is not needed now."""
        self.lent -= 1
        if self._closed or len(self._idle) >= self._keep:
            pipe.close()
        else:
            self._idle.append(pipe)

    def throw_away(self, pipe: Pipe) -> None:
        """A pipe that may hold bytes which are to go nowhere."""
        self.lent -= 1
        pipe.close()

    def close(self) -> None:
        """Close the idle ones; those that are lent are closed when they come back."""
        self._closed = True
        self.close_idle()

    def close_idle(self) -> None:
        """Give their descriptors back."""
        while self._idle:
            self._idle.pop().close()


def _make(size: int) -> Pipe | None:
    """A new pipe. None where descriptors or the user's share of pipe pages are used up."""
    try:
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # EMFILE, ENFILE: connections need them more
    capacity = _enlarged(writer, size)
    pipe = Pipe(reader, writer, capacity)
    if capacity >= min(size, SMALLEST_PIPE):
        return pipe
    pipe.close()
    return None


def _enlarged(fd: int, size: int) -> int:
    """Make the pipe as large as it may be, up to `size`; its size."""
    while size >= SMALLEST_PIPE:
        try:
            return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, size)
        except OSError:
            size //= 2  # EPERM: above `pipe-max-size`, or this user has enough pipe pages
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


class Conduit:
    """One direction between two non-blocking TCP sockets, through a pipe that is borrowed while bytes are in it.

    A `pump` writes out what the pipe holds before it reads again. So the pipe is empty at every read, and "would
    block" there means that the socket has nothing: with bytes in it, it could as well mean that many small pieces
    have filled all of its slots.

    Attributes:
        held: bytes in the pipe: read, and not written.
        unreported: bytes written since `take_count`.
        ended: end of stream was read.
    """

    __slots__ = ("_from", "_pipe", "_pool", "_sender", "_to", "ended", "held", "unreported")

    def __init__(self, pool: PipePool, sender: socket.socket, receiver: socket.socket) -> None:
        self._pool = pool
        self._sender = sender
        self._from = sender.fileno()
        self._to = receiver.fileno()
        self._pipe: Pipe | None = None
        self.held = 0
        self.unreported = 0
        self.ended = False

    def pump(self, budget: int) -> int:
        """Move what can be moved now, reading at most about `budget` bytes; what it came to, as above.

        Raises OSError where the kernel says what no TCP socket says.
        """
        while True:
            if self.held:
                blocked = self._write()
                if blocked is not None:
                    return blocked
            if self.ended:
                self._release()
                return END
            if budget <= 0:
                self._release()
                return MORE
            pipe = self._pipe
            if pipe is None:
                pipe = self._pipe = self._pool.borrow()
                if pipe is None:
                    return NO_PIPE
            try:
                count = os.splice(self._from, pipe.writer, budget, flags=_FLAGS)
            except BlockingIOError:
                self._release()
                return READ_BLOCKED
            except OSError as error:
                self._release()
                return _meaning(error, RESET_READING)
            if not count:
                self._release()
                return self._nothing_read()
            self.held = count
            budget -= count

    def _write(self) -> int | None:
        """Empty the pipe into the receiver. None: it is empty."""
        pipe = self._pipe
        assert pipe is not None
        try:
            while self.held:
                count = os.splice(pipe.reader, self._to, self.held, flags=_FLAGS)
                self.held -= count
                self.unreported += count
        except BlockingIOError:
            return WRITE_BLOCKED
        except OSError as error:
            return _meaning(error, RESET_WRITING)
        return None

    def _nothing_read(self) -> int:
        """0 is the end of the stream, or an urgent byte in front of one: only a look at the next byte tells."""
        try:
            if self._sender.recv(1, socket.MSG_PEEK):
                return URGENT
        except BlockingIOError:
            return READ_BLOCKED
        except OSError as error:
            return _meaning(error, RESET_READING)
        self.ended = True
        return END

    def _release(self) -> None:
        """An idle direction has no pipe."""
        if self._pipe is not None:
            self._pool.give_back(self._pipe)
            self._pipe = None

    def take_count(self) -> int:
        """Bytes written since the last time."""
        count, self.unreported = self.unreported, 0
        return count

    def take_back(self) -> bytes:
        """What the pipe holds, for whoever writes it now; the conduit is empty and has no pipe."""
        pieces = []
        while self.held:
            assert self._pipe is not None
            piece = os.read(self._pipe.reader, self.held)
            self.held -= len(piece)
            pieces.append(piece)
        self._release()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> int:
        """Give up what the pipe holds; how many bytes. They were read and went nowhere."""
        lost, self.held = self.held, 0
        if self._pipe is not None:
            if lost:
                self._pool.throw_away(self._pipe)
                self._pipe = None
            else:
                self._release()
        return lost


def _meaning(error: OSError, reset: int) -> int:
    """A reset of a leg, or a kernel that cannot do this, now or ever; anything else is a defect and raised."""
    if is_reset(error):
        return reset
    if error.errno in _NOT_NOW:
        return NO_PIPE
    if error.errno in _NOT_POSSIBLE:
        return REFUSED
    raise error
