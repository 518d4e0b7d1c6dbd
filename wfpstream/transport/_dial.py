"""One connect in the reactor: begun, waited for without a task, ended by the network, the client or the time.

Owns the upstream's socket until it is connected, and the watch over the client's meanwhile. It must not know
what the engine does with it, nor where the address comes from.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from ._reactor import OUT, TROUBLE
from ._sockets import connect_error, new_leg
from ._upstream import Address, Before, ConnectError, OnOwn, connect_failure, no_answer, refuse_itself

if TYPE_CHECKING:
    from ._deadlines import Deadline
    from ._hub import Hub

__all__ = ["Dial", "begin_dial"]

_ESTABLISHED, _SYN_SENT = 1, 2

Then = Callable[[socket.socket | ConnectError], object]


def begin_dial(
    hub: Hub, client: socket.socket, address: Address, timeout: float, on_own: OnOwn | None, before: Before
) -> tuple[socket.socket, Dial | None]:
    """Begin to connect: the socket, which is connected if there is no `Dial`.

    Args:
        client: who waits for it.
        timeout: seconds; 0 for no limit.
        on_own: is told of the attempt, before anybody can have accepted it (LAY-29); None: nobody wants to know.
        before: gets the socket before it connects.

    Raises:
        ConnectError: it was refused at once, or there are no descriptors.
    """
    sock: socket.socket | None = None
    try:
        sock = new_leg(address.family)
        before(sock, address)
        begun = sock.connect_ex(address.sockaddr())
        if begun not in (0, errno.EINPROGRESS):
            raise OSError(begun, os.strerror(begun))
        own = sock.getsockname()
        if on_own is not None:
            on_own((own[0], own[1]), address)
        # On the same machine the answer is there already, whatever connect said.
        state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] if begun else _ESTABLISHED
        if state == _SYN_SENT:
            return sock, Dial(hub, client, sock, address, timeout)
        if state == _ESTABLISHED:
            refuse_itself(sock, own[1], address)
        else:
            _check(sock, own[1], address)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            raise connect_failure(error) from error
        raise
    return sock, None


def _check(sock: socket.socket, own_port: int, address: Address) -> None:
    """SO_ERROR is asked once, here. Raises OSError."""
    error = connect_error(sock)
    if error is not None:
        try:
            raise error
        finally:
            del error  # whose traceback refers to this frame
    refuse_itself(sock, own_port, address)


class Dial:
    """A connect under way. Its socket is a handler in the reactor, and so is the client's."""

    def __init__(
        self, hub: Hub, client: socket.socket, sock: socket.socket, address: Address, timeout: float
    ) -> None:
        self.since = 0
        self.queued = False
        self._is_over = False
        self._hub = hub
        self._sock = sock
        self._address = address
        self._timeout = timeout
        self._client = _Waiting(client, self._client_gave_up)
        self._deadline: Deadline | None = None
        self._then: Then
        self._client_gone: Callable[[], object]

    def then(self, then: Then, client_gone: Callable[[], object]) -> None:
        """Wait. One of the two is called in the end, unless it is abandoned; raises OSError, and all is closed."""
        self._then = then
        self._client_gone = client_gone
        reactor = self._hub.reactor
        try:
            reactor.add(self._sock.fileno(), self, OUT)
            reactor.add(self._client.sock.fileno(), self._client, 0)
        except OSError:
            self.abandon()
            raise
        if self._timeout:
            due = self._hub.deadlines.now() + self._timeout
            self._deadline = self._hub.deadlines.add(due, self._too_late)

    def ready(self, events: int) -> None:
        """The connect has ended."""
        if self._hub.engine.overruns.newcomer:
            self._hub.reactor.last(self)
        else:
            self._end()

    def go_last(self) -> None:
        """The others have had their turn."""
        if not self._is_over:
            self._hub.engine.overruns.newcomer = False
            self._end()

    def _end(self) -> None:
        self._stop_waiting()
        try:
            _check(self._sock, self._sock.getsockname()[1], self._address)
        except OSError as error:
            self._sock.close()
            self._then(connect_failure(error))
        else:
            self._then(self._sock)

    def abandon(self) -> None:
        """Close the socket; nobody is told."""
        self._stop_waiting()
        self._sock.close()

    def _too_late(self) -> None:
        if self.queued:  # it has ended, and only waits for its turn
            self._deadline = None
            return
        self.abandon()
        self._then(no_answer(self._timeout))

    def _client_gave_up(self) -> None:
        """A client that resets ends the wait. Its FIN does not: it may want an answer."""
        self.abandon()
        self._client_gone()

    def _stop_waiting(self) -> None:
        self._is_over = True
        reactor = self._hub.reactor
        reactor.remove(self._sock.fileno(), self)
        if self._client.sock.fileno() != -1:
            reactor.remove(self._client.sock.fileno(), self._client)
        self._client.gone = _nobody_waits
        if self._deadline is not None:
            self._hub.deadlines.take_back(self._deadline)
            self._deadline = None


class _Waiting:
    """The client's socket meanwhile: only a reset is of interest."""

    def __init__(self, sock: socket.socket, gone: Callable[[], object]) -> None:
        self.sock = sock
        self.since = 0
        self.gone = gone

    def ready(self, events: int) -> None:
        """Hung up before anything was sent to it."""
        if events & TROUBLE:
            self.gone()


def _nobody_waits() -> None:
    """Of a client that is not watched any more."""
