"""The addresses that several processes of ours listen at: kept by a parent that never listens itself.

Owns the sockets that keep them. One is bound for as long as the run lasts, so the number stays ours when no worker
lives, and nobody else gets it. It must not know processes, nor what listens there.

What Linux gives. Sockets may be bound to one port if all of them have SO_REUSEPORT and belong to one effective uid. So
another process of our uid that sets it can listen beside our workers, and gets a share of the connections; with another
uid nobody can, at any time and whatever they set. A parent binds without SO_REUSEPORT and sets it afterwards: a second
one on the same address is told that it is in use, instead of sharing it silently.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

from ._listener_spec import ListenerSpec, ListeningPlace
from ._listeners import explained, listening_address
from ._rearrangement import Rearrangement, arrange
from ._transparent import make_transparent
from ._upstream import Address

__all__ = ["KeptAddress", "SharedAddresses"]


class KeptAddress(ListeningPlace):
    """An address that is ours; what a `Listener` says of itself, this says too.

    Attributes:
        spec: what was asked for; a rearrangement gives it another one.
        host, port: where workers listen really.
    """

    def __init__(self, spec: ListenerSpec, sock: socket.socket) -> None:
        super().__init__(spec, sock.getsockname())
        self._sock = sock

    def set_transparent(self, on: bool) -> None:
        """As its listeners. Raises PermissionError."""
        make_transparent(self._sock, on)

    def close(self) -> None:
        """Give the address up."""
        self._sock.close()


class SharedAddresses:
    """All addresses of a run.

    Attributes:
        listeners: those in force, in the order asked for.
    """

    def __init__(self) -> None:
        self.listeners: tuple[KeptAddress, ...] = ()
        self._leaving: list[KeptAddress] = []
        self._is_rearranging = False
        self._is_closed = False

    async def open(self, specs: Sequence[ListenerSpec]) -> None:
        """Bind all or none.

        Raises:
            OSError: an address cannot be used, or a right is missing; the text names the address.
        """
        rearrangement = await self.prepare(specs)
        rearrangement.commit()

    async def prepare(self, specs: Sequence[ListenerSpec]) -> Rearrangement[KeptAddress]:
        """Bind, beside those in force, what `specs` ask for and is not bound yet. What goes stays ours till `let_go`.

        Raises:
            OSError: an address cannot be used, or a right is missing; the text names the address.
            RuntimeError: another rearrangement is neither committed nor abandoned, or all is closed.
        """
        if self._is_rearranging or self._is_closed:
            raise RuntimeError("the listeners are being rearranged already, or closed")
        self._is_rearranging = True
        try:
            rearrangement = await arrange(specs, self.listeners, _keep)
        except BaseException:
            self._is_rearranging = False
            raise

        def finish(in_force: bool) -> None:
            self._is_rearranging = False
            if in_force:
                self.listeners = rearrangement.listeners
                self._leaving += rearrangement.leaving
                return
            for one in rearrangement.opened:
                one.close()

        rearrangement.when_done(finish, lambda: self._is_closed)
        return rearrangement

    def let_go(self) -> None:
        """Give up what is no longer in force: its last listener has gone."""
        while self._leaving:
            self._leaving.pop().close()

    def close(self) -> None:
        """Give everything up."""
        self._is_closed = True
        self.let_go()
        for one in self.listeners:
            one.close()


async def _keep(spec: ListenerSpec, leaving: Sequence[KeptAddress]) -> KeptAddress:
    where = await listening_address(spec)
    # 127.0.0.1:80 instead of 0.0.0.0:80, or the reverse: our own is in the way, and shares.
    is_beside = any(one.port == spec.port for one in leaving)
    with explained(spec):
        return KeptAddress(spec, _bound(where, spec, is_beside))


def _bound(where: Address, spec: ListenerSpec, is_beside: bool) -> socket.socket:
    """Bound, and not listening. Connections of an earlier run that are still ending are no reason to refuse."""
    # A socket that does not listen gives way to whoever has SO_REUSEADDR as well: only where it is needed.
    try:
        return _try_bind(where, spec, is_beside, False)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    return _try_bind(where, spec, is_beside, True)


def _try_bind(where: Address, spec: ListenerSpec, is_beside: bool, beside_ended: bool) -> socket.socket:
    sock = socket.socket(where.family, socket.SOCK_STREAM)
    try:
        if spec.mode == "tproxy":
            make_transparent(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, is_beside)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, beside_ended)
        sock.bind(where.sockaddr())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError:
        sock.close()
        raise
    return sock
