"""What is due on one trio loop by time: idle flows, connects that take too long, retries.

Owns the order of deadlines and the task that waits for the first. Entries that were taken back do not pile up. It must
not know flows or sockets.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable

import trio

__all__ = ["Deadline", "Deadlines"]

# Taken-back entries stay in the heap until they are the first, or more than half of it.
_FEW = 64


class Deadline:
    """A call due at an instant of the monotonic clock, seconds."""

    __slots__ = ("due", "fn", "rank")

    def __init__(self, due: float, rank: int, fn: Callable[[], object]) -> None:
        self.due = due
        self.rank = rank
        self.fn: Callable[[], object] | None = fn

    def __lt__(self, other: Deadline) -> bool:
        return (self.due, self.rank) < (other.due, other.rank)


class Deadlines:
    """One per hub. The task that awaits `run` calls what is due."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heap: list[Deadline] = []
        self._rank = 0
        self._taken_back = 0
        self._scope: trio.CancelScope | None = None

    def __len__(self) -> int:
        """How many entries are kept."""
        return len(self._heap)

    def now(self) -> float:
        """The clock that `due` is read on, seconds."""
        return self._clock()

    def add(self, due: float, fn: Callable[[], object]) -> Deadline:
        """Call `fn` at `due`; it must not raise."""
        self._rank += 1
        deadline = Deadline(due, self._rank, fn)
        heapq.heappush(self._heap, deadline)
        if self._heap[0] is deadline:
            self._rearm()
        return deadline

    def take_back(self, deadline: Deadline) -> None:
        """Do not call it. Nothing happens if it was called already."""
        if deadline.fn is None:
            return
        deadline.fn = None
        self._taken_back += 1
        if self._taken_back > _FEW and self._taken_back * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry.fn is not None]
            heapq.heapify(self._heap)
            self._taken_back = 0

    async def run(self) -> None:
        """Call what is due, for ever."""
        while True:
            with trio.CancelScope(deadline=self._next()) as self._scope:
                await trio.sleep_forever()
            self.call_due()

    def call_due(self) -> None:
        """Call all that is due now, in order."""
        now = self._clock()
        while self._heap and self._heap[0].due <= now:
            deadline = heapq.heappop(self._heap)
            fn, deadline.fn = deadline.fn, None
            if fn is None:
                self._taken_back -= 1
            else:
                fn()

    def _next(self) -> float:
        """The first deadline on trio's clock."""
        if not self._heap:
            return math.inf
        return trio.current_time() + self._heap[0].due - self._clock()

    def _rearm(self) -> None:
        if self._scope is not None:
            self._scope.deadline = self._next()
