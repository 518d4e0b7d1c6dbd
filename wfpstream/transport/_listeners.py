"""Listening sockets: what is asked for, and what came of it.

Owns binding and accepting, with the errors of both. It must not know the engine, flows or what is done with an
accepted connection.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from ._sockets import prepare, prepare_listener
from ._upstream import unmapped

__all__ = ["Accepted", "Listener", "ListenerSpec", "OutOfDescriptors", "open_listeners"]

BACKLOG = 1024
# What accept says when the process or the machine has nothing left; the connection stays in the backlog.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CLOSED = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})


class OutOfDescriptors(Exception):
    """`accept` cannot have another socket now."""


@dataclass(frozen=True)
class ListenerSpec:
    """One listener to open.

    Attributes:
        name: what filters and events call it (condition field `listener`).
        mode: "reverse": everything goes to the one upstream.
        host, port: where to listen; an address of this machine or a name for one, port 0 for a free one.
        upstream_host, upstream_port: where accepted connections go; an address or a name.
        local: which side is WFP's local host, "client" or "server".
        nodelay: the local leg counts as one with TCP_NODELAY: SEND_NODELAY is set (IND-6).
        keep_client: tproxy: connect to the upstream from the client's address; `keep_port`: and from its port.
        accept_proxy: networks trusted to begin a connection with a PROXY header; empty: none is expected.
        send_proxy: version of the PROXY header for the upstream; 0: none.
        allow, deny: networks that destinations must, or must not, lie in; an empty `allow` is any.
    """

    name: str = ""
    mode: str = "reverse"
    host: str = "127.0.0.1"
    port: int = 0
    upstream_host: str = ""
    upstream_port: int = 0
    local: str = "client"
    nodelay: bool = False
    keep_client: bool = False
    keep_port: bool = False
    accept_proxy: tuple[str, ...] = ()
    send_proxy: int = 0
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode != "reverse":
            raise ValueError(f"listener {self.name!r}: mode {self.mode!r} is not supported, only 'reverse'")
        if self.local not in ("client", "server"):
            raise ValueError(f"listener {self.name!r}: local is 'client' or 'server', not {self.local!r}")
        if not self.upstream_host or not 0 < self.upstream_port < 65536:
            raise ValueError(f"listener {self.name!r}: reverse mode needs an upstream host and port")


@dataclass(frozen=True)
class Accepted:
    """A new connection: its socket (ours to close), where it came from and which address it met."""

    sock: socket.socket
    peer: tuple[str, int]
    own: tuple[str, int]


class Listener:
    """An open listener.

    Attributes:
        spec: what was asked for.
        host, port: where it listens really.
    """

    def __init__(self, spec: ListenerSpec, sock: socket.socket) -> None:
        self.spec = spec
        self._sock = sock
        host, port = sock.getsockname()[:2]
        self.host: str = host
        self.port: int = port

    @property
    def name(self) -> str:
        """As filters and events call it."""
        return self.spec.name

    @property
    def mode(self) -> str:
        """How the destination of a connection is found."""
        return self.spec.mode

    @property
    def upstream(self) -> tuple[str, int]:
        """Where connections go, as configured."""
        return (self.spec.upstream_host, self.spec.upstream_port)

    def __str__(self) -> str:
        return f"listener {self.name or f'{self.host}:{self.port}'}"

    async def accept(self) -> Accepted:
        """The next connection.

        Raises:
            OutOfDescriptors: none can be had at present.
            trio.ClosedResourceError: the listener was closed.
        """
        while True:
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
                continue
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    raise OutOfDescriptors(os.strerror(error.errno).lower()) from error
                if error.errno in _CLOSED:
                    raise trio.ClosedResourceError(f"{self} is closed") from error
                # The connection died in the backlog, or the network has something to say about it.
                await trio.lowlevel.checkpoint()
                continue
            try:
                sock.setblocking(False)
                own = sock.getsockname()
            except OSError:
                sock.close()
                continue
            return Accepted(sock, (unmapped(address[0]), address[1]), (unmapped(own[0]), own[1]))

    def close(self) -> None:
        """Stop listening; connections in the backlog are reset by the kernel."""
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


async def open_listeners(
    specs: Sequence[ListenerSpec], bound: Sequence[socket.socket | None] = ()
) -> list[Listener]:
    """Open all or none. `bound`: sockets bound already, by position, which are ours from now on.

    Raises:
        OSError: an address cannot be used; the text names it.
    """
    listeners: list[Listener] = []
    given = [*bound, *[None] * (len(specs) - len(bound))]
    try:
        for spec, sock in zip(specs, given, strict=True):
            listeners.append(Listener(spec, await _bind(spec) if sock is None else _adopt(sock)))
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _adopt(sock: socket.socket) -> socket.socket:
    prepare(sock)
    sock.listen(BACKLOG)
    return sock


async def _bind(spec: ListenerSpec) -> socket.socket:
    where = f"{spec.host}:{spec.port}"
    try:
        found = await trio.socket.getaddrinfo(
            spec.host or None, spec.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise OSError(error.errno, f"cannot listen on {where}: {error.strerror}") from error
    family, _, _, _, address = found[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        prepare_listener(sock)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(error.errno, f"cannot listen on {where}: {(error.strerror or '').lower()}") from error
    return sock
