"""Accepting: the listening sockets in the reactor, and when accepting has to rest.

Owns the edges of the listeners: one that could not be used up, for want of descriptors, of room or of time, is not
said again, so accepting is tried again by itself. It must not know what becomes of a connection.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ._listeners import Accepted, Listener, OutOfDescriptors
from ._reactor import IN
from ._sockets import reset_now

if TYPE_CHECKING:
    from ._deadlines import Deadline
    from ._hub import Hub
    from ._room import Room

__all__ = ["Admission", "Door"]

Admission = Literal["serve", "refuse", "reset", "ignore"]
Receive = Callable[[Listener, Accepted], object]

# How long accepting rests without descriptors, unless a connection ends before.
EXHAUSTED_PAUSE = 0.1
# And without room: pipes that are given back, and limits that are raised, make some as well.
FULL_PAUSE = 1.0
# How often it is told that there is no room, seconds.
TELL_AGAIN = 60.0
# Fairness: a full backlog does not keep the connections that are there from working.
ACCEPTS_IN_A_ROW = 16


class Door:
    """Where connections come in, at all listeners of a proxy.

    Args:
        room: whether another connection may come in; the rest waits in the backlog: a client sees a slow connect,
            not a refused one.
        receive: gets each connection.
        log: gets one line for people.
    """

    def __init__(self, hub: Hub, room: Room, receive: Receive, log: Callable[[str], object]) -> None:
        self._hub = hub
        self._room = room
        self._receive = receive
        self._log = log
        self._admission: Admission = "serve"
        self._told_full = -math.inf
        self._waiting: set[_Watch] = set()

    def open(self, listener: Listener) -> None:
        """Accept from this one too, until it is closed."""
        watch = _Watch(self, listener)
        listener.watched_by(watch.change)

    @property
    def admission(self) -> Admission:
        """How newcomers are met."""
        return self._admission

    def meet(self, how: Admission) -> None:
        """How newcomers are met from now on."""
        self._admission = how

    def try_again(self) -> None:
        """There may be room, or a descriptor, again."""
        if self._waiting:
            waiting, self._waiting = self._waiting, set()
            for watch in waiting:
                watch.rest_no_more()

    # --- for the watches ---

    def accept_some(self, watch: _Watch) -> bool:
        """Accept what waits; whether more may wait."""
        listener = watch.listener
        for _ in range(ACCEPTS_IN_A_ROW):
            if not (self._room.is_there or self._room.is_made()):
                self._tell_full(listener)
                self._waiting.add(watch)
                watch.rest(self._hub, FULL_PAUSE)
                return False
            try:
                accepted = listener.accept()
            except OutOfDescriptors as error:
                if not watch.is_short:
                    self._log(f"{listener}: cannot accept: {error}; waiting")
                watch.is_short = True
                self._waiting.add(watch)
                watch.rest(self._hub, EXHAUSTED_PAUSE)
                return False
            if accepted is None:
                return False
            watch.is_short = False
            if self._admission == "reset":
                reset_now(accepted.sock)
            else:
                self._receive(listener, accepted)
                if self._hub.engine.overruns.newcomer:
                    return True  # one call that takes too long is enough for a turn
        return True

    def _tell_full(self, listener: Listener) -> None:
        """It comes and goes with every connection, so it is told now and then."""
        now = self._hub.deadlines.now()
        if now - self._told_full >= TELL_AGAIN:
            self._told_full = now
            self._log(f"{listener}: {self._room.why_not}; who comes now waits")

    def left(self, watch: _Watch) -> None:
        """Its listener accepts no more."""
        self._waiting.discard(watch)

    @property
    def hub(self) -> Hub:
        """Whose reactor it is."""
        return self._hub


class _Watch:
    """One listener's socket in the reactor."""

    def __init__(self, door: Door, listener: Listener) -> None:
        self.listener = listener
        self.since = 0
        self.queued = False
        self.is_short = False
        self._door = door
        self._fd = -1
        self._retry: Deadline | None = None

    def change(self, sock: socket.socket | None) -> None:
        """The listener's socket is this one from now on; None: it has none."""
        reactor = self._door.hub.reactor
        if self._fd != -1:
            reactor.remove(self._fd, self)
            self._fd = -1
            self._end_rest()
            self._door.left(self)
        if sock is not None:
            self._fd = sock.fileno()
            reactor.add(self._fd, self, IN)

    def ready(self, events: int) -> None:
        """Somebody waits."""
        self.go_on()

    def go_on(self) -> None:
        """Accept some, and the others later."""
        if self._stands_back() or self._fd == -1:
            return
        if self._door.accept_some(self) and not self._stands_back():
            self._door.hub.reactor.again(self)

    def _stands_back(self) -> bool:
        """The others come first, since a callout takes its time about newcomers."""
        hub = self._door.hub
        stands_back = hub.engine.overruns.newcomer
        if stands_back:
            hub.reactor.last(self)
        return stands_back

    def go_last(self) -> None:
        """The others have had their turn."""
        self._door.hub.engine.overruns.newcomer = False
        self.go_on()

    def rest(self, hub: Hub, seconds: float) -> None:
        """Try again by itself: the edge is gone, and nothing else may tell."""
        if self._retry is None:
            self._retry = hub.deadlines.add(hub.deadlines.now() + seconds, self._rested)

    def rest_no_more(self) -> None:
        """Try again now."""
        self._end_rest()
        if self._fd != -1:
            self._door.hub.reactor.again(self)

    def _rested(self) -> None:
        self._retry = None
        self._door.left(self)
        self.rest_no_more()

    def _end_rest(self) -> None:
        if self._retry is not None:
            self._door.hub.deadlines.take_back(self._retry)
            self._retry = None
