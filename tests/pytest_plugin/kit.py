"""The two programs around a proxy under test: a server that a test plays by hand, and its clients.

Plain blocking sockets with a limit, no thread and no event loop: what is sent, and when, is the test's.
"""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from wfpstream.pytest_plugin import WfpProxy

LIMIT = 30.0
# No call may take so long, whatever the machine is doing: less than any delay of the callouts here. Each takes 1 to
# 3 ms on an idle one.
SOON = 20.0
_RESET = struct.pack("ii", 1, 0)


class Upstream:
    """A listening server; `accept` gives its side of the next connection."""

    def __init__(self, host: str = "127.0.0.1", backlog: int = 128) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sock = socket.socket(family)
        self._sock.bind((host, 0))
        self._sock.listen(backlog)
        self._sock.settimeout(LIMIT)
        self._open: list[socket.socket] = []

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._sock.getsockname()[:2]
        return host, port

    def accept(self) -> socket.socket:
        """The proxy's next connection."""
        sock, _ = self._sock.accept()
        return self.keep(sock)

    def connect(self, proxy: WfpProxy) -> socket.socket:
        """A new client of the proxy."""
        return self.keep(socket.create_connection(proxy.address, LIMIT))

    def pair(self, proxy: WfpProxy) -> Pair:
        """A connection through the proxy, when it is relayed."""
        established = len(proxy.flows)
        client = self.connect(proxy)
        server = self.accept()
        proxy.wait_flow(established + 1)
        return Pair(client, server)

    def pair_without_waiting(self, proxy: WfpProxy) -> Pair:
        """As `pair`, on a thread with an event loop: the proxy may not know of it yet."""
        client = self.connect(proxy)
        return Pair(client, self.accept())

    def keep(self, sock: socket.socket) -> socket.socket:
        sock.settimeout(LIMIT)
        self._open.append(sock)
        return sock

    def close(self) -> None:
        for sock in (self._sock, *self._open):
            sock.close()


@contextmanager
def full_upstream() -> Iterator[Upstream]:
    """A server that never accepts, and whose backlog is full: nobody is refused, and nobody gets through."""
    with ExitStack() as stack:
        upstream = Upstream(backlog=0)
        stack.callback(upstream.close)
        fillers = [stack.enter_context(socket.socket()) for _ in range(8)]
        for sock in fillers:
            sock.setblocking(False)
            sock.connect_ex(upstream.address)
        # There is room for one, and it is taken when that one is connected.
        assert select.select([], fillers, [], LIMIT)[1]
        yield upstream


@contextmanager
def refusing_address() -> Iterator[tuple[str, int]]:
    """Where connections are refused, and nobody else can listen: bound, and no listener."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()


def delivered(*socks: socket.socket) -> None:
    """Wait until all that was sent, ends of streams too, is at the other side's kernel."""
    deadline = time.monotonic() + LIMIT
    for sock in socks:
        while struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
            assert time.monotonic() < deadline, "not delivered"


class Pair(NamedTuple):
    """Both ends of one connection through the proxy."""

    client: socket.socket
    server: socket.socket


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes; fails at an earlier end."""
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, f"the stream ended after {len(data)} of {count} bytes"
        data += piece
    return data


def read_all(sock: socket.socket) -> tuple[bytes, str]:
    """Everything up to the end, and whether that was "fin" or "reset"."""
    data = bytearray()
    while True:
        try:
            piece = sock.recv(1 << 16)
        except ConnectionResetError:
            return bytes(data), "reset"
        if not piece:
            return bytes(data), "fin"
        data += piece


def is_turned_away(proxy: WfpProxy) -> bool:
    """Whether a new client is reset; that may be faster than its `connect` returns."""
    try:
        with socket.create_connection(proxy.address, LIMIT) as client:
            return read_all(client) == (b"", "reset")
    except ConnectionResetError:
        return True


def works(pair: Pair) -> None:
    """Both directions pass bytes."""
    pair.client.sendall(b"ping")
    assert read_exactly(pair.server, 4) == b"ping"
    pair.server.sendall(b"pong")
    assert read_exactly(pair.client, 4) == b"pong"


def is_silent(sock: socket.socket, seconds: float = 0.05) -> bool:
    """Whether neither bytes nor an end come within that time."""
    sock.settimeout(seconds)
    try:
        sock.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(LIMIT)
    return False


def send_until_blocked(sock: socket.socket, most: int) -> int:
    """Send until nothing has been taken for a while: how much was."""
    sock.setblocking(False)
    taken = 0
    waits_since = time.monotonic()
    try:
        while taken < most and time.monotonic() - waits_since < 0.3:
            try:
                taken += sock.send(bytes(1 << 16))
                waits_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.005)
    finally:
        sock.settimeout(LIMIT)
    return taken


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def took(fn: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    began = time.monotonic()
    fn()
    return time.monotonic() - began


def in_use(error: OSError) -> bool:
    """The error of a bind to a port that somebody has."""
    return error.errno == errno.EADDRINUSE
