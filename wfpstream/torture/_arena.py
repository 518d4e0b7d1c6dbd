"""Both sides of the relay: a client that connects to it and the upstream it connects to, brought together.

Each connection begins with a label of 16 bytes from the client; by it the server's end is found among all that
arrive at the upstream, health checks and strays included. Owns the upstream's port: it can let connections wait,
and refuse them, and the port stays ours.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import trio

from wfpstream.torture._end import End
from wfpstream.torture._records import Profile, TortureError

Side = Literal["client", "server"]
Address = tuple[str, int]

LABEL = 16
_BACKLOG = 4096


class NoConnection(Exception):
    """A connection did not come about; the text says how."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both ends of one connection through the relay."""

    client: End
    server: End

    def sides(self, by: Side) -> tuple[End, End]:
        """The end that acts, and the other."""
        return (self.client, self.server) if by == "client" else (self.server, self.client)


@dataclass(slots=True)
class _Meeting:
    arrived: trio.Event = field(default_factory=trio.Event)
    end: End | None = None


class Arena:
    """What the cases work in; `open_arena` makes it.

    Args:
        relay: where the relay listens.
        upstream: where we listen for what the relay connects.
        profile: how much is asked.
        nursery: what runs the upstream's side.
    """

    def __init__(self, relay: Address, upstream: Address, profile: Profile, nursery: trio.Nursery) -> None:
        self.profile = profile
        self._relay = relay
        self._upstream = upstream
        self._nursery = nursery
        self._expected: dict[bytes, _Meeting] = {}
        self._run = secrets.token_hex(4)
        self._count = 0
        # Bound and never listening: while we refuse, nobody else can take the port.
        self._guard = _bound(upstream)
        self._listener = _bound(upstream)
        self._accepting: trio.CancelScope | None = None

    def listen(self) -> None:
        """Begin to take connections."""
        self._listener.listen(_BACKLOG)
        self._accept()

    def close(self) -> None:
        """Give the port back."""
        self._listener.close()
        self._guard.close()

    # --- connections ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[Pair]:
        """A new connection through the relay; at the end both ends are closed.

        Raises:
            NoConnection: the relay took none, or made none to the upstream.
        """
        async with self.client() as (client, label):
            server = await self.arrival(label)
            try:
                yield Pair(client, server)
            finally:
                server.close()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[tuple[End, bytes]]:
        """A client's end alone, with its label sent; at the end it is closed.

        Raises:
            NoConnection: the relay took none.
        """
        self._count += 1
        label = f"{self._run}{self._count:08x}".encode()
        self._expected[label] = _Meeting()
        sock = await self._connected()
        end = End("client", sock, label, self.profile.patience)
        try:
            await end.send_raw(label)
            yield end, label
        finally:
            end.close()
            meeting = self._expected.pop(label)
            if meeting.end is not None:
                meeting.end.close()

    async def arrival(self, label: bytes) -> End:
        """The server's end of a client's connection, as soon as it is there.

        Raises:
            NoConnection: it never came.
        """
        meeting = self._expected[label]
        with trio.move_on_after(self.profile.patience):
            await meeting.arrived.wait()
        if meeting.end is None:
            raise NoConnection(f"nothing arrived at the upstream within {self.profile.patience:g} s")
        return meeting.end

    async def _connected(self) -> trio.socket.SocketType:
        sock = trio.socket.socket(_family(self._relay), socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            with trio.move_on_after(self.profile.patience) as late:
                await sock.connect(self._relay)
            if late.cancelled_caught:
                raise NoConnection(f"the relay took no connection within {self.profile.patience:g} s")
        except OSError as error:
            sock.close()
            raise NoConnection(f"the relay took no connection: {_said(error)}") from error
        except BaseException:
            sock.close()
            raise
        return sock

    # --- the upstream ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def shut_eyes(self) -> AsyncIterator[None]:
        """Until `open_eyes` or the end of the block nobody accepts: the kernel completes connections, they wait."""
        self._stop_accepting()
        try:
            yield
        finally:
            self.open_eyes()

    def open_eyes(self) -> None:
        """Accept again."""
        if self._accepting is None:
            self._accept()

    @asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """Meanwhile the upstream refuses connections; its port stays ours."""
        self._stop_accepting()
        self._listener.close()
        try:
            yield
        finally:
            self._listener = _bound(self._upstream)
            self.listen()

    def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None

    def _accept(self) -> None:
        self._accepting = trio.CancelScope()
        self._nursery.start_soon(self._accept_all, self._listener, self._accepting)

    async def _accept_all(self, listener: trio.socket.SocketType, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                try:
                    sock, _ = await listener.accept()
                except trio.ClosedResourceError:
                    return
                except OSError:
                    # The peer left before it was taken, or descriptors are short: neither ends the upstream.
                    await trio.sleep(0.01)
                    continue
                self._nursery.start_soon(self._admit, sock)

    async def _admit(self, sock: trio.socket.SocketType) -> None:
        """Find whose connection this is; a stranger's is closed."""
        label = b""
        try:
            with trio.move_on_after(self.profile.patience):
                while len(label) < LABEL and (piece := await sock.recv(LABEL - len(label))):
                    label += piece
        except OSError:
            pass
        except BaseException:
            sock.close()
            raise
        meeting = self._expected.get(label)
        if meeting is None or meeting.end is not None:
            sock.close()
            return
        meeting.end = End("server", sock, label, self.profile.patience)
        meeting.arrived.set()


@asynccontextmanager
async def open_arena(relay: Address, upstream: Address, profile: Profile) -> AsyncIterator[Arena]:
    """Listen as the upstream, until the end of the block.

    Raises:
        TortureError: the upstream's address cannot be bound, or the relay takes no connection.
    """
    try:
        async with trio.open_nursery() as nursery:
            arena = _made(relay, upstream, profile, nursery)
            try:
                arena.listen()
                yield arena
            finally:
                arena.close()
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        raise _only(errors) from None


def _made(relay: Address, upstream: Address, profile: Profile, nursery: trio.Nursery) -> Arena:
    try:
        return Arena(relay, upstream, profile, nursery)
    except OSError as error:
        where = f"{upstream[0]} port {upstream[1]}"
        raise TortureError(f"cannot listen as the upstream on {where}: {_said(error)}") from error


def _only(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error in a group of one, which nurseries make of it."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def _bound(address: Address) -> trio.socket.SocketType:
    sock = socket.socket(_family(address), socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted sockets inherit these; set later they could miss the first urgent byte.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return trio.socket.from_stdlib_socket(sock)


def _said(error: OSError) -> str:
    """What the kernel says; names that were not found have numbers of their own."""
    is_name = isinstance(error, socket.gaierror) or error.errno is None
    return (str(error.strerror or error) if is_name else os.strerror(error.errno or 0)).lower()
