"""Calls that are due at an instant of the engine's clock.

Owns their order, and that cancelled ones do not pile up. It must not know what they do, nor read a clock.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable


class Timer:
    """A call due at an instant of the engine's clock; `cancel` may come any time."""

    __slots__ = ("cancelled", "due", "fn", "rank", "timers")

    def __init__(self, timers: Timers, due: float, rank: int, fn: Callable[[], None]) -> None:
        self.timers = timers
        self.due = due
        self.rank = rank
        self.fn = fn
        self.cancelled = False

    def cancel(self) -> None:
        """Never run it, and let go of what it would have worked on."""
        if not self.cancelled:
            self.cancelled = True
            self.fn = _nothing
            self.timers.cancelled()


def _nothing() -> None:
    """What a cancelled timer does."""


class Timers:
    """The timers of one engine, in order of (due, creation)."""

    __slots__ = ("_cancelled", "_heap", "_rank")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._rank = 0
        self._cancelled = 0  # at most so many of them are in the heap

    def add(self, due: float, fn: Callable[[], None]) -> tuple[Timer, bool]:
        """A new timer, and whether it is the first one now."""
        self._rank += 1
        timer = Timer(self, due, self._rank, fn)
        heapq.heappush(self._heap, (due, self._rank, timer))
        return timer, self._heap[0][2] is timer

    def cancelled(self) -> None:
        """One more was cancelled. Most timers of a proxy are: they must not pile up until they would be due."""
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if not entry[2].cancelled]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def first(self) -> Timer | None:
        """The timer that is due next."""
        while self._heap:
            timer = self._heap[0][2]
            if not timer.cancelled:
                return timer
            heapq.heappop(self._heap)
        self._cancelled = 0
        return None

    def take_due(self, now: float) -> deque[Timer]:
        """Remove and return every timer that is due."""
        due: deque[Timer] = deque()
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due

    def put_back(self, timers: Iterable[Timer]) -> None:
        """Some that were taken and have not run, to where they were."""
        for timer in timers:
            heapq.heappush(self._heap, (timer.due, timer.rank, timer))

    def take_first(self) -> Timer:
        """Remove and return the timer that `first` named."""
        return heapq.heappop(self._heap)[2]

    def __len__(self) -> int:
        """How many are kept, cancelled ones that were not met yet among them."""
        return len(self._heap)
