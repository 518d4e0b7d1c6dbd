"""The plain-socket toolbox that both live drivers share.

Owns what Linux does with a TCP socket and how we ask for it: options, resets that lose nothing owed, a
hang-up of a leg nobody reads, urgent bytes at their place, errors that mean "reset", closing without harm to
the last answer, the original destination. It takes stdlib sockets that are non-blocking.

It must not know the engine, flows, directions or configuration. Only what has to wait is async (trio); the
rest is plain calls that raise what the kernel says, `BlockingIOError` included. The plain calls do not tell
trio about a closed socket: where a task may still wait on it, call `trio.lowlevel.notify_closing` first.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable
from types import TracebackType
from typing import Self

import trio

__all__ = [
    "RESET_ERRNOS",
    "HangupWatch",
    "Watched",
    "at_mark",
    "begins_plain",
    "close_ended",
    "connect_error",
    "discard_input",
    "drain_then_close",
    "is_dead",
    "is_readable",
    "is_reset",
    "let_legs_die_with_a_reset",
    "new_leg",
    "original_destination",
    "prepare",
    "prepare_listener",
    "receive",
    "reset_after_flush",
    "reset_flushed_now",
    "reset_now",
    "send_queue_length",
    "send_room",
    "send_urgent",
    "wait_flushed",
]

# IND-27 names the first four. ENETUNREACH is EHOSTUNREACH seen from one hop nearer, ECONNABORTED what a
# stack says when it gave the connection up on its own, ENOTCONN what `shutdown` says of one that is no more.
RESET_ERRNOS = frozenset(
    {
        errno.ECONNRESET,
        errno.EPIPE,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ECONNABORTED,
        errno.ENOTCONN,
    }
)

_SIOCATMARK = 0x8905
_SO_ORIGINAL_DST = 80  # IP6T_SO_ORIGINAL_DST has the same number
_SO_MEMINFO = 55
_MEMINFO_SIZE = 36
_MEMORY = struct.Struct("I4xI")  # SK_MEMINFO_SNDBUF, and after SK_MEMINFO_FWD_ALLOC SK_MEMINFO_WMEM_QUEUED
_TCP_CLOSE = 7
_NO_INT = bytes(4)
_LINGER_RESET = struct.pack("ii", 1, 0)
_LINGER_OFF = struct.pack("ii", 0, 0)
_die_with_a_reset = False

FIRST_POLL = 0.005
LAST_POLL = 0.1

DRAIN_LIMIT = 1 << 20
_scratch = bytearray(1 << 16)


# Options


def prepare(sock: socket.socket) -> None:
    """Make a connected, connecting or accepted socket one of our legs.

    An accepted socket inherits the options of a `prepare_listener` socket: `setblocking(False)` is enough.
    """
    sock.setblocking(False)
    _leg_options(sock)


def new_leg(family: int) -> socket.socket:
    """A new TCP socket that is one of our legs, not connected yet."""
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _leg_options(sock)
    except OSError:
        sock.close()
        raise
    return sock


def prepare_listener(sock: socket.socket, *, v6_only: bool | None = None) -> None:
    """Make a socket one of our listeners, before `bind`. `v6_only` None keeps the system's default."""
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if v6_only is not None and sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6_only)
    # An urgent byte may come before accept returns: set later, SO_OOBINLINE would lose it (IND-7).
    _leg_options(sock)


def let_legs_die_with_a_reset() -> None:
    """Should this process be killed, what its legs' peers see from now on is a reset.

    Otherwise the kernel sends FINs for it: half a stream would look like a whole one.
    """
    global _die_with_a_reset
    _die_with_a_reset = True


def close_ended(sock: socket.socket) -> None:
    """Close a leg that has ended as it should."""
    if _die_with_a_reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
    sock.close()


def _leg_options(sock: socket.socket) -> None:
    if _die_with_a_reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


# Errors


def is_reset(error: BaseException | None) -> bool:
    """Whether an error of a receive or a send means that the leg was reset (IND-27).

    Looks through what wraps it: trio raises `BrokenResourceError` from the `OSError`.
    """
    while error is not None:
        if isinstance(error, OSError):
            return error.errno in RESET_ERRNOS
        error = error.__cause__
    return False


def connect_error(sock: socket.socket) -> OSError | None:
    """How a non-blocking connect ended, asked once when the socket turned writable.

    At no other time: SO_ERROR clears the error, and the reset then looks like an end of stream (IND-27).
    """
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return OSError(number, os.strerror(number)) if number else None


def is_dead(sock: socket.socket) -> bool:
    """Whether the kernel has no connection any more: nothing will be sent or acknowledged again."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


def is_readable(sock: socket.socket) -> bool:
    """Whether `recv`, or `accept` on a listening socket, would return at once; not of a closed socket."""
    if sock.fileno() == -1:
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


# Reset (IND-18, DRP-2)


def send_queue_length(sock: socket.socket, *, fin_sent: bool = False) -> int:
    """Bytes `send` accepted that the peer's kernel has not acknowledged (SIOCOUTQ).

    SIOCOUTQNSD would leave out those on their way, and nothing is sent again after a reset (IND-18). A FIN
    counts as one byte until it is acknowledged: say so if `shutdown(SHUT_WR)` was called.
    """
    length = int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, _NO_INT), sys.byteorder)
    return length - 1 if fin_sent and length else length


def send_room(sock: socket.socket) -> int:
    """Bytes that a `send` is sure to take now (SO_MEMINFO), unless the whole system is short of memory for TCP.

    The kernel counts what a packet takes in its memory: at the worst, one of 1,448 bytes takes 2,304.
    """
    send_buffer: int
    queued: int
    send_buffer, queued = _MEMORY.unpack_from(
        sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_SIZE), 12
    )
    return max(0, send_buffer - queued) // 2


def reset_now(sock: socket.socket, *, fin_sent: bool = False) -> int:
    """Close with a RST, without waiting (DRP-4); how many accepted bytes are given up: `discarded_out`.

    At most so many are lost: some may have arrived without being acknowledged yet.
    """
    if sock.fileno() == -1:
        return 0
    try:
        lost = send_queue_length(sock, fin_sent=fin_sent)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    finally:
        sock.close()
    return lost


def reset_flushed_now(sock: socket.socket) -> None:
    """As `reset_now`, where it is known that nothing is given up."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    finally:
        sock.close()


async def wait_flushed(sock: socket.socket, timeout: float, *, fin_sent: bool = False) -> None:
    """Wait until all accepted bytes are acknowledged, the leg is dead or closed, or time is up (IND-18).

    No event tells, so it polls. No checkpoint if there is nothing to wait for.
    """
    deadline = trio.current_time() + timeout
    delay = FIRST_POLL
    while _still_owes(sock, fin_sent):
        left = deadline - trio.current_time()
        if left <= 0:
            return
        await trio.sleep(min(delay, left))
        delay = min(2 * delay, LAST_POLL)


def _still_owes(sock: socket.socket, fin_sent: bool) -> bool:
    if sock.fileno() == -1:
        return False
    return send_queue_length(sock, fin_sent=fin_sent) > 0 and not is_dead(sock)


async def reset_after_flush(sock: socket.socket, timeout: float, *, fin_sent: bool = False) -> int:
    """Reset a leg once what it owes was delivered (IND-18); the bytes given up at `timeout`.

    Resets at once when cancelled. A caller that then needs the count uses `wait_flushed` and `reset_now`.
    """
    try:
        await wait_flushed(sock, timeout, fin_sent=fin_sent)
    finally:
        _notify_closing(sock)
        lost = reset_now(sock, fin_sent=fin_sent)
    return lost


def _notify_closing(sock: socket.socket) -> None:
    if sock.fileno() != -1:
        trio.lowlevel.notify_closing(sock)


# Close without a reset


def discard_input(sock: socket.socket, limit: int = DRAIN_LIMIT) -> tuple[int, bool]:
    """Read and discard what the kernel holds now, at most `limit` bytes: how many, and whether input ended.

    Also for what a deferred leg still held when it was reset (IND-27).
    """
    discarded = 0
    try:
        while discarded < limit:
            # MSG_TRUNC: the kernel drops the bytes and copies nothing.
            n = sock.recv_into(_scratch, min(len(_scratch), limit - discarded), socket.MSG_TRUNC)
            if not n:
                return discarded, True
            discarded += n
    except BlockingIOError:
        return discarded, False
    except OSError:
        return discarded, True
    return discarded, False


async def drain_then_close(sock: socket.socket, timeout: float, limit: int = DRAIN_LIMIT) -> int:
    """Send a FIN, read the peer out up to its own end, then close; the bytes discarded.

    A socket closed with unread input, or that gets input after its close, answers with a reset, and what was
    still to be sent of the last answer is gone. `timeout` and `limit` bound the courtesy.
    """
    discarded = 0
    try:
        _send_fin(sock)
        with trio.move_on_after(timeout):
            while discarded < limit:
                await trio.lowlevel.wait_readable(sock)
                n, ended = discard_input(sock, limit - discarded)
                discarded += n
                if ended:
                    break
    except trio.ClosedResourceError:
        pass
    finally:
        _notify_closing(sock)
        if sock.fileno() != -1:
            close_ended(sock)
    return discarded


def _send_fin(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # reset already: reading tells


# Urgent data (IND-7)


def at_mark(sock: socket.socket) -> bool:
    """Whether the next byte is the urgent one (sockatmark). Sure only if there is a next byte already."""
    return fcntl.ioctl(sock, _SIOCATMARK, _NO_INT) != _NO_INT


def begins_plain(sock: socket.socket) -> bool:
    """Whether there is something to read, and the first byte is no urgent one; an error is for `receive` to meet."""
    try:
        return bool(sock.recv_into(_scratch, 1, socket.MSG_PEEK)) and not at_mark(sock)
    except OSError:
        return False


def receive(sock: socket.socket, buffer: bytearray | memoryview, *, careful: bool = True) -> tuple[int, bool]:
    """Receive into `buffer`: how many bytes (0: end of stream), and whether it is the one urgent byte.

    A read that starts before the mark stops there whatever arrives meanwhile; one that starts at the mark
    runs on past it. So all depends on knowing the first byte. `careful` peeks, so that there is one, and asks
    for the mark: exact at any time, for two small calls more. `careful=False` is one call, and as exact where
    the first byte is known to be plain: for one read after a readiness report of an epoll that has EPOLLPRI
    armed and did not show it. Reading again without a new report takes care; so does every read on a leg
    that has shown EPOLLPRI once. trio's `wait_readable` does not tell.
    """
    if careful:
        if not sock.recv_into(buffer, 1, socket.MSG_PEEK):
            return 0, False
        if at_mark(sock):
            return sock.recv_into(buffer, 1), True
    return sock.recv_into(buffer), False


def send_urgent(sock: socket.socket, byte: bytes | bytearray | memoryview) -> None:
    """Send one byte as urgent. The kernel keeps one mark: an earlier one not yet read becomes plain data."""
    if len(byte) != 1:
        raise ValueError("exactly one byte is urgent: send what is before it as plain data")
    sock.send(byte, socket.MSG_OOB)


# Hang-up watch (IND-27)


class Watched:
    """One socket under watch. Set `fin_sent` before `shutdown(SHUT_WR)`; call `remove` before `close`."""

    __slots__ = ("_fd", "_on_reset", "_on_urgent", "_round", "_watch", "fin_sent")

    def __init__(
        self,
        watch: HangupWatch,
        fd: int,
        round_: int,
        on_reset: Callable[[], object],
        on_urgent: Callable[[], object] | None,
    ) -> None:
        self._watch = watch
        self._fd = fd
        self._round = round_
        self._on_reset = on_reset
        self._on_urgent = on_urgent
        self.fin_sent = False

    @property
    def active(self) -> bool:
        """False once removed, told of a reset, or hung up after both FINs."""
        return self._watch._entries.get(self._fd) is self

    def rearm_urgent(self) -> None:
        """Ask to be told of urgent data again: after the urgent byte was read, else it reports at once."""
        if self.active and self._on_urgent is not None:
            self._watch._epoll.modify(self._fd, select.EPOLLPRI)

    def remove(self) -> None:
        """Watch no longer. Needed when both FINs are exchanged, and before the socket is closed."""
        if not self.active:
            return
        del self._watch._entries[self._fd]
        try:
            self._watch._epoll.unregister(self._fd)
        except OSError:
            pass  # closed first, and the kernel dropped it

    def _tell(self, events: int) -> int:
        calls = 0
        if events & select.EPOLLPRI and self._on_urgent is not None:
            self._watch._epoll.modify(self._fd, 0)  # said once, else it spins until the byte is read
            self._on_urgent()
            calls += 1
        if not events & (select.EPOLLERR | select.EPOLLHUP) or not self.active:
            return calls
        self.remove()
        if events & select.EPOLLERR or not self.fin_sent:
            self._on_reset()
            calls += 1
        return calls


class HangupWatch:
    """Learns of resets, and of urgent data, on sockets that nobody reads.

    trio can only wait for readable and writable, and a paused leg with EPOLLIN armed wakes at every segment.
    So one epoll of ours holds the sockets with no event asked for: EPOLLERR and EPOLLHUP always come.
    EPOLLRDHUP stays out: a FIN is not a reset, and is not acted on before the bytes in front of it (IND-27).

    One task awaits `run`. Nothing spins: what was told is taken out, and plain data or a FIN wakes nobody.
    EPOLLHUP with `fin_sent` is the peer's FIN meeting ours: normal, the watch ends without a call. The urgent
    callback only hints (a read may come before it; `receive` is exact), for legs paused or spliced.
    """

    __slots__ = ("_entries", "_epoll", "_round")

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._entries: dict[int, Watched] = {}
        self._round = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(
        self,
        sock: socket.socket,
        on_reset: Callable[[], object],
        on_urgent: Callable[[], object] | None = None,
    ) -> Watched:
        """Watch a connected socket (an unconnected one counts as hung up). What is so already is told too."""
        events = 0 if on_urgent is None else select.EPOLLPRI
        fd = sock.fileno()
        self._epoll.register(fd, events)
        # A leftover of a socket closed without `remove` is replaced: the kernel has forgotten it already.
        entry = self._entries[fd] = Watched(self, fd, self._round, on_reset, on_urgent)
        return entry

    def dispatch(self) -> int:
        """Tell what the kernel has to say now, without waiting; how many callbacks were called."""
        self._round += 1
        calls = 0
        for fd, events in self._epoll.poll(0):
            entry = self._entries.get(fd)
            # A callback may close a socket and open and add another under the same number: what this batch
            # says of that number is about the first one.
            if entry is not None and entry._round != self._round:
                calls += entry._tell(events)
        return calls

    async def run(self) -> None:
        """Dispatch for ever. What a callback raises ends it. Cancel it before `close`."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self.dispatch()

    def close(self) -> None:
        """Forget all sockets. They stay open."""
        self._entries.clear()
        self._epoll.close()


# Original destination


def original_destination(sock: socket.socket) -> tuple[str, int] | None:
    """Where an accepted connection wanted to go before a redirect rule sent it here, or None.

    A connect straight to the listener gives our own address once conntrack is on: that is None too. With
    TPROXY nothing was rewritten: ask `getsockname` there.
    """
    try:
        own_host, own_port = sock.getsockname()[:2]
        if sock.family == socket.AF_INET6 and not own_host.startswith("::ffff:"):
            raw = sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, 28)
            host, port, scope = _unpack_v6(raw)
        else:
            raw = sock.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, 16)
            host, port, scope = *_unpack_v4(raw), 0
    except OSError:
        return None
    if (host, port) == (own_host.removeprefix("::ffff:"), own_port):
        return None
    return (f"{host}%{scope}" if scope else host), port


def _unpack_v4(raw: bytes) -> tuple[str, int]:
    port, address = struct.unpack_from("!2xH4s", raw)
    return socket.inet_ntop(socket.AF_INET, address), port


def _unpack_v6(raw: bytes) -> tuple[str, int, int]:
    port, address = struct.unpack_from("!2xH4x16s", raw)
    (scope,) = struct.unpack_from("=24xI", raw)
    return socket.inet_ntop(socket.AF_INET6, address), port, scope
