"""Listening sockets: opening them all or none, accepting, closing without losing who waits.

Owns binding and accepting, with the errors of both. It must not know the engine, flows or what is done with an
accepted connection.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import trio

from ._listener_spec import ListenerSpec, ListeningPlace
from ._networks import parse_address
from ._sockets import is_readable, prepare, prepare_listener
from ._standby import hold_port, ignore_new, listen_again, notice_new
from ._transparent import MISSING_CAPABILITY, make_transparent
from ._upstream import Address, unmapped

__all__ = [
    "Accepted",
    "Listener",
    "ListenerSpec",
    "OutOfDescriptors",
    "explained",
    "listening_address",
    "open_listener",
    "open_listeners",
]

# As many as Linux lets wait by default (net.core.somaxconn): who comes when it is full is not refused, but tries again
# after ever longer times of its kernel's.
BACKLOG = 4096
# What accept says of one connection: it died in the backlog, or the network has something to say about it (accept(2)).
# Anything else may be said again and again: descriptors or memory are used up, or a rule of the system forbids it. Then
# the connection stays in the backlog.
_DIED = frozenset(
    {
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EPROTO,
        errno.ETIMEDOUT,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
    }
)
_CLOSED = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})


# Is told which socket is to be accepted from; None: from none.
Watch = Callable[[socket.socket | None], object]


class OutOfDescriptors(Exception):
    """`accept` cannot have another socket now; the text says why."""


class Accepted(NamedTuple):
    """A new connection: its socket (ours to close), where it came from and which address it met."""

    sock: socket.socket
    peer: tuple[str, int]
    own: tuple[str, int]


class Listener(ListeningPlace):
    """An open listener.

    Attributes:
        spec: what was asked for; a rearrangement gives an open listener another one, for new connections.
        host, port: where it listens really.
    """

    def __init__(self, spec: ListenerSpec, sock: socket.socket) -> None:
        super().__init__(spec, sock.getsockname())
        self._sock = sock
        # While refusing it is a guard, bound to the port and not listening.
        self._is_refusing = False
        self._is_ignoring = False
        self._watch: Watch | None = None
        # Where it listens at one address only, every connection has met that one. TPROXY's come to any.
        address = parse_address(self.host)
        is_one = address is not None and not address.is_unspecified and spec.mode != "tproxy"
        self._met = (unmapped(self.host), self.port) if is_one else None

    @property
    def is_open(self) -> bool:
        """It has not been closed."""
        return self._sock.fileno() != -1

    @property
    def has_waiting(self) -> bool:
        """Somebody waits in the backlog."""
        return not self._is_refusing and is_readable(self._sock)

    def set_transparent(self, on: bool) -> None:
        """Take TPROXY's connections or no longer. Raises PermissionError."""
        make_transparent(self._sock, on)
        if on:
            self._met = None

    def set_shared(self, on: bool) -> None:
        """Let another socket of this user that asks for it listen on the same port, or no longer."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, on)

    def watched_by(self, watch: Watch | None) -> None:
        """Have `watch` told, from now on and of what is so now, which socket is to be accepted from.

        None, and before a socket is closed: from none any more.
        """
        self._tell_watch(None)
        self._watch = watch
        if self.is_open and not self._is_refusing:
            self._tell_watch(self._sock)

    def _tell_watch(self, sock: socket.socket | None) -> None:
        if self._watch is not None:
            self._watch(sock)

    def accept(self) -> Accepted | None:
        """The next connection; None if nobody waits.

        Raises:
            OutOfDescriptors: none can be had at present.
        """
        while not self._is_refusing:
            try:
                sock, address = _accept(self._sock)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno in _DIED:
                    continue
                if error.errno in _CLOSED:
                    return None
                raise OutOfDescriptors((error.strerror or str(error)).lower()) from error
            accepted = _leg(sock, address, self._met)
            if accepted is not None:
                return accepted
        return None

    def refuse(self) -> list[Accepted]:
        """Refuse connects from now on; the port stays ours. Whoever waits in the backlog comes along.

        Raises:
            OSError: the port cannot be held; nothing has changed.
        """
        if self._is_refusing:
            return []
        guard = hold_port(self._sock)
        waiting = self._take_waiting()
        self._tell_watch(None)
        listening, self._sock = self._sock, guard
        self._is_refusing = True
        self._is_ignoring = False
        listening.close()
        return waiting

    def ignore(self) -> list[Accepted]:
        """Answer no connect from now on, as if nobody were there. Whoever waits in the backlog comes along.

        Raises:
            OSError: the kernel has no socket filters.
        """
        self.serve()
        ignore_new(self._sock)
        self._is_ignoring = True
        return self._take_waiting()

    def serve(self) -> None:
        """Take connections again, at the same port. Who was ignored, and tries still, is taken.

        Raises:
            OSError: the port cannot be listened on.
        """
        if self._is_refusing:
            with explained(self.spec):
                self._sock = listen_again(self._sock, BACKLOG)
                if self.mode == "tproxy":
                    make_transparent(self._sock)
            self._is_refusing = False
            self._tell_watch(self._sock)
        elif self._is_ignoring:
            notice_new(self._sock)
            self._is_ignoring = False

    def take_waiting(self) -> list[Accepted]:
        """Whoever waits in the backlog at present."""
        waiting: list[Accepted] = []
        try:
            while True:
                accepted = _leg(*_accept(self._sock), self._met)
                if accepted is not None:
                    waiting.append(accepted)
        except OSError:
            return waiting  # nobody is left; or no descriptor, and then they wait on

    def drain(self) -> list[Accepted]:
        """Close; whoever waits in the backlog comes along.

        New connections are refused from the first moment on, so that none is established and then reset. (What
        is in the middle of its handshake is: nothing in Linux hands that on.)
        """
        try:
            return self._take_waiting()
        finally:
            self.close()

    def _take_waiting(self) -> list[Accepted]:
        """As `take_waiting`, and nobody comes after the last of them."""
        with suppress(OSError):
            ignore_new(self._sock)
        return self.take_waiting()

    def shut_down(self) -> None:
        """Refuse everybody from now on, without the event loop; from any thread."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening; connections in the backlog are reset by the kernel."""
        if self._sock.fileno() != -1:
            self._tell_watch(None)
            self._sock.close()


def _accept(listening: socket.socket) -> tuple[socket.socket, tuple[Any, ...]]:
    """As `socket.accept`, which asks a listening socket what it is each time, and puts the answers into enumerations.

    Raises OSError.
    """
    fd, address = listening._accept()  # type: ignore[attr-defined]
    family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
    return socket.socket(family, socket.SOCK_STREAM, 0, fd), address


def _leg(sock: socket.socket, address: tuple[Any, ...], met: tuple[str, int] | None) -> Accepted | None:
    """What was accepted as one of our legs, None if it is gone already.

    Args:
        met: the address it met, if that is known.
    """
    try:
        sock.setblocking(False)
        if met is None:
            own = sock.getsockname()
            met = (unmapped(own[0]), own[1])
    except OSError:
        sock.close()
        return None
    host, port = address[:2]
    return Accepted(sock, (unmapped(host) if len(address) > 2 else host, port), met)


async def open_listeners(
    specs: Sequence[ListenerSpec], bound: Sequence[socket.socket | None] = (), *, shared: bool = False
) -> list[Listener]:
    """Open all or none. `bound`: sockets bound already, by position, which are ours from now on; `shared` as below.

    Raises:
        OSError: an address cannot be used, or a right is missing; the text names the address.
    """
    listeners: list[Listener] = []
    given = [*bound, *[None] * (len(specs) - len(bound))]
    try:
        for spec, sock in zip(specs, given, strict=True):
            opened = await open_listener(spec, shared=shared) if sock is None else _adopt(spec, sock)
            listeners.append(opened)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _adopt(spec: ListenerSpec, sock: socket.socket) -> Listener:
    prepare(sock)
    with explained(spec):
        if spec.mode == "tproxy":
            make_transparent(sock)
        sock.listen(BACKLOG)
    return Listener(spec, sock)


async def open_listener(spec: ListenerSpec, share: bool = False, *, shared: bool = False) -> Listener:
    """Bind and listen.

    Args:
        spec: where.
        share: beside those of ours that are `set_shared`.
        shared: beside those of other processes of ours, now and as long as it listens (`_workers_addresses`).

    Raises:
        OSError: the address cannot be used, or a right is missing; the text names the address.
    """
    where = await listening_address(spec)
    with explained(spec):
        sock = socket.socket(where.family, socket.SOCK_STREAM)
        try:
            prepare_listener(sock)
            if spec.mode == "tproxy":
                make_transparent(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share or shared)
            sock.bind(where.sockaddr())
            sock.listen(BACKLOG)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        except OSError:
            sock.close()
            raise
    return Listener(spec, sock)


async def listening_address(spec: ListenerSpec) -> Address:
    """What `host` and `port` mean in numbers. Raises OSError: the name has no address."""
    with explained(spec):
        found = await trio.socket.getaddrinfo(
            spec.host or None, spec.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    family, _, _, _, address = found[0]
    scope = int(address[3]) if len(address) == 4 else 0
    return Address(family, str(address[0]), spec.port, scope)


@contextmanager
def explained(spec: ListenerSpec) -> Iterator[None]:
    """Errors say which address they are about."""
    try:
        yield
    except OSError as error:
        where = f"[{spec.host}]:{spec.port}" if ":" in spec.host else f"{spec.host}:{spec.port}"
        why = error.strerror or str(error)
        if not isinstance(error, socket.gaierror) and why != MISSING_CAPABILITY:
            why = why.lower()
        raise OSError(error.errno, f"cannot listen on {where}: {why}") from error
