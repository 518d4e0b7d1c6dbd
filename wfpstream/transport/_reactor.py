"""The reactor: one epoll object with all sockets of a proxy, edge-triggered, and what is done in one batch.

Owns waiting (through trio), the order in which ready sockets get their turn, and the list of those that have more to
do than one turn allows: an edge is said once, so what was not used up must not be forgotten. It must not know what a
socket is for, nor the engine.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio

__all__ = ["ERROR", "IN", "OUT", "READ_HANGUP", "TROUBLE", "URGENT", "Handler", "Reactor", "Unfinished"]

IN = select.EPOLLIN
OUT = select.EPOLLOUT
URGENT = select.EPOLLPRI
READ_HANGUP = select.EPOLLRDHUP
ERROR = select.EPOLLERR
TROUBLE = select.EPOLLERR | select.EPOLLHUP
_EDGES = select.EPOLLET

MOST_EVENTS = 256
# Reading and writing 1 MiB takes 0.6 ms and more: so much, about `TURN`, is what all bulk flows together move in a
# batch, no one more than a quarter of it; and only in a batch of few, since all who are ready wait for it.
BATCH_BYTES = 4 << 20
_FEWEST = 4
FEW = 24
# A turn of ours may take so long, seconds, before trio's other tasks get theirs; one round of those costs about 50 us.
TURN = 0.003
# Waiting through trio costs about 50 us of CPU and as much in time; one more look now and then is cheaper.
LOOK_AGAIN = 50e-6
# After so many vain looks in a row (as a power of two) so many opportunities are left out.
_MOST_DOUBT = 7


class Handler(Protocol):
    """Who owns a registered socket. `since` is the reactor's: the batch in which it was registered."""

    since: int

    def ready(self, events: int) -> None:
        """These events; must not raise, and must not wait."""


class Unfinished(Protocol):
    """Who had more to do than one turn allows. `queued` is the reactor's."""

    queued: bool

    def go_on(self) -> None:
        """Another turn; must not raise, and must not wait."""


class Behind(Protocol):
    """Who comes after everybody else, one of them per batch. `queued` is the reactor's."""

    queued: bool

    def go_last(self) -> None:
        """Its turn; must not raise, and must not wait."""


def _nothing_to_rouse() -> None:
    """The default of `rouse`."""


class Reactor:
    """Sockets by descriptor number, and whose turn it is.

    Attributes:
        now: the monotonic clock when the present batch began, seconds.
        number: that of the present batch.
        is_busy: a batch is under way: whoever has something to do will be looked at when it ends.
        rouse: called when there is something to do and no batch is under way; must only schedule.
        after_batch: called at the end of each batch.
        buffer: for whoever has a turn, and as long as that lasts.
        large_buffer: the same and more behind it, for whoever may use it.
    """

    def __init__(self, rouse: Callable[[], object] = _nothing_to_rouse) -> None:
        self.now = time.monotonic()
        self.is_busy = False
        self.rouse = rouse
        self.after_batch: Callable[[], object] = _nothing_to_rouse
        self.buffer = self.large_buffer = memoryview(bytearray(0))
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self.number = 0
        self._ready = 0
        self._waiting = 0
        self._unfinished: deque[Unfinished] = deque()
        self._behind: deque[Behind] = deque()
        self._doubt = 0
        self._left_out = 0

    def __len__(self) -> int:
        """How many sockets are registered."""
        return len(self._handlers)

    # --- for the owners of sockets ---

    def add(self, fd: int, handler: Handler, events: int) -> None:
        """Register a socket; what is so already is said too.

        Whatever the present batch still says of that number is about another socket, closed meanwhile, and is
        not told to `handler`.
        """
        handler.since = self.number
        self._epoll.register(fd, events | _EDGES)
        self._handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Ask for other events; what is so already is said."""
        self._epoll.modify(fd, events | _EDGES)

    def hand_over(self, fd: int, handler: Handler) -> None:
        """Another handler for a registered socket."""
        handler.since = self._handlers[fd].since
        self._handlers[fd] = handler

    def remove(self, fd: int, handler: Handler) -> None:
        """Hear of this socket no more. Nothing happens if it is not registered (any more)."""
        if self._handlers.get(fd) is handler:
            self._epoll.unregister(fd)
            del self._handlers[fd]

    def forget(self, fd: int, handler: Handler) -> None:
        """As `remove`, for a socket that is closed at once: the kernel drops it by itself."""
        if self._handlers.get(fd) is handler:
            del self._handlers[fd]

    def again(self, unfinished: Unfinished) -> None:
        """Give it another turn, after the others'."""
        if not unfinished.queued:
            unfinished.queued = True
            self._unfinished.append(unfinished)
            if not self.is_busy:
                self.rouse()

    def last(self, behind: Behind) -> None:
        """Give it a turn when everybody who is ready has had one; of those, the one that waits longest."""
        if not behind.queued:
            behind.queued = True
            self._behind.append(behind)
            if not self.is_busy:
                self.rouse()

    @property
    def share(self) -> int:
        """Bytes that one of those who always have more to do may move in this batch, if the others are few."""
        return BATCH_BYTES // max(self._waiting, _FEWEST) if self._ready <= FEW else 0

    @property
    def has_unfinished(self) -> bool:
        """Somebody waits for another turn."""
        return bool(self._unfinished or self._behind)

    # --- turns ---

    async def run(self) -> None:
        """Serve the sockets for ever; returns only by cancellation, which loses nothing."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            while self._work():
                await trio.lowlevel.checkpoint()

    def batch(self) -> bool:
        """Everybody who is ready gets one turn, and after them those who were not done. False: nobody was."""
        # Those who ask for another turn in this batch get it in the next one.
        self._waiting = waiting = len(self._unfinished)
        events = self._epoll.poll(0, MOST_EVENTS)
        if not events and not waiting and not self._behind:
            return False
        self._ready = len(events) + waiting
        self.number += 1
        self.now = time.monotonic()
        self.is_busy = True
        try:
            handlers = self._handlers
            for fd, happened in events:
                handler = handlers.get(fd)
                if handler is not None and handler.since != self.number:
                    handler.ready(happened)
            for _ in range(waiting):
                unfinished = self._unfinished.popleft()
                unfinished.queued = False
                unfinished.go_on()
            if self._behind:
                one = self._behind.popleft()
                one.queued = False
                one.go_last()
            self.after_batch()
        finally:
            self.is_busy = False
        return True

    def _work(self) -> bool:
        """Batches, as long as somebody is ready. True: still so, but others are to have their turn."""
        until = time.monotonic() + TURN
        while self.batch() or self._look_again():
            if time.monotonic() >= until:
                return True
        return False

    def _look_again(self) -> bool:
        """Nobody is ready: is somebody at once? In doubt, which grows with each vain look, that is not tried."""
        if self._left_out:
            self._left_out -= 1
            return False
        until = time.monotonic() + LOOK_AGAIN
        while time.monotonic() < until:
            if self.batch():
                self._doubt = 0
                return True
        self._doubt = min(self._doubt + 1, _MOST_DOUBT)
        self._left_out = 2**self._doubt
        return False

    def close(self) -> None:
        """Forget all sockets. They stay open."""
        self._handlers.clear()
        self._unfinished.clear()
        self._behind.clear()
        self._epoll.close()
