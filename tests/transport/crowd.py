"""Many clients at once, or an upstream for them, from one thread and one epoll object; also as processes of their own.

`python -m tests.transport.crowd echo` prints its port and echoes; `... burst PORT COUNT FIRST_SOURCE` opens COUNT
connections at once, sends each its number, and prints what became of them.
"""

from __future__ import annotations

import errno
import json
import resource
import select
import socket
import sys
import time
from collections import Counter

IP_BIND_ADDRESS_NO_PORT = 24
SOURCES = 4
PATIENCE = 600.0


def raise_descriptor_limit() -> int:
    """As many as we may; how many that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def source_address(number: int) -> str:
    """One of many loopback addresses."""
    return f"127.{1 + number % 200}.0.1"


def begin(port: int, source: str) -> socket.socket:
    """A connect under way."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    sock.bind((source, 0))
    begun = sock.connect_ex(("127.0.0.1", port))
    assert begun in (0, errno.EINPROGRESS), errno.errorcode[begun]
    return sock


class Burst:
    """Connections that all begin at once; each wants its own number back, and then a FIN for its own.

    Attributes:
        fates: served, reset, closed (without an answer), refused, wrong; how many of each.
    """

    def __init__(self, port: int, count: int, first_source: int) -> None:
        self.fates: Counter[str] = Counter()
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, bytes, bytearray]] = {}
        self._connected: set[int] = set()
        for number in range(count):
            sock = begin(port, source_address(first_source + number % SOURCES))
            self._open[sock.fileno()] = (sock, b"number %d" % number, bytearray())
            self._epoll.register(sock.fileno(), select.EPOLLOUT)

    def run(self, patience: float = PATIENCE) -> Counter[str]:
        """To the end of them all, or of our patience: those left over are "hanging"."""
        until = time.monotonic() + patience
        while self._open and time.monotonic() < until:
            for fd, _ in self._epoll.poll(1.0):
                self._step(fd)
        self.fates["hanging"] = len(self._open)
        for sock, _, _ in self._open.values():
            sock.close()
        self._epoll.close()
        return self.fates

    def _step(self, fd: int) -> None:
        sock, text, got = self._open[fd]
        try:
            if fd not in self._connected:
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if error:
                    raise OSError(error, "connect")
                self._connected.add(fd)
                sock.send(text)
                self._epoll.modify(fd, select.EPOLLIN)
                return
            piece = sock.recv(4096)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(fd, "refused" if error.errno == errno.ECONNREFUSED else "reset")
            return
        got += piece
        if piece and bytes(got) == text:
            sock.shutdown(socket.SHUT_WR)
        elif not piece:
            self._end(fd, "served" if bytes(got) == text else "wrong" if got else "closed")

    def _end(self, fd: int, fate: str) -> None:
        self.fates[fate] += 1
        self._connected.discard(fd)
        sock, _, _ = self._open.pop(fd)
        sock.close()


def echo() -> None:
    """Echo every connection to its end, for ever."""
    epoll = select.epoll()
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        listener.setblocking(False)
        epoll.register(listener.fileno(), select.EPOLLIN)
        print(listener.getsockname()[1], flush=True)
        connections: dict[int, socket.socket] = {}
        while True:
            for fd, _ in epoll.poll():
                if fd == listener.fileno():
                    connection, _ = listener.accept()
                    connection.setblocking(False)
                    connections[connection.fileno()] = connection
                    epoll.register(connection.fileno(), select.EPOLLIN)
                    continue
                try:
                    data = connections[fd].recv(65536)
                    if data:
                        connections[fd].send(data)
                        continue
                except BlockingIOError:
                    continue
                except OSError:
                    pass  # reset: it is closed like all that have ended
                connections.pop(fd).close()


if __name__ == "__main__":
    raise_descriptor_limit()
    if sys.argv[1] == "echo":
        echo()
    else:
        burst = Burst(*map(int, sys.argv[2:5]))
        print(json.dumps(burst.run()), flush=True)
