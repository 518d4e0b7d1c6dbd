"""Pended connections: who waits for which completion, and for how long (LAY-14, LAY-17, LAY-23).

Owns completion contexts, their time limit and the callouts' counts of pended connections (LAY-30). It must not
know what a completion means to the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ._arbitration import Arbitration

if TYPE_CHECKING:
    from ._callout import CalloutEntry
    from ._core import Core
    from ._filter import Filter2
    from ._timers import Timer


class Pending:
    """One pended classification.

    Attributes:
        key: the completion context, or the classify handle, that completes it.
        by_handle: FwpsPendClassify0 was used, else FwpsPendOperation0.
        gave_up: called when it was not completed in time, or the engine stops.
    """

    __slots__ = ("arbitration", "by_handle", "entry", "filter", "gave_up", "key", "timer")

    def __init__(
        self, key: int, by_handle: bool, arbitration: Arbitration, filter: Filter2, entry: CalloutEntry
    ) -> None:
        self.key = key
        self.by_handle = by_handle
        self.arbitration = arbitration
        self.filter = filter
        self.entry = entry
        self.gave_up: Callable[[], None]
        self.timer: Timer | None = None


class Pendings:
    """The pended connections of one engine."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._waiting: dict[int, Pending] = {}
        self._over: set[int] = set()  # the connection ended first: one late completion is a no-op

    def begin(self, pending: Pending, gave_up: Callable[[], None]) -> None:
        """The connection waits from now on, at most for `timeouts.pend_connect`."""
        core = self._core
        pending.gave_up = gave_up
        pending.entry.pended += 1
        self._waiting[pending.key] = pending
        limit = core.options.timeouts.pend_connect
        if limit:
            pending.timer = core.at(core.clock() + limit, lambda: self._give_up(pending))

    def find(self, key: int) -> Pending | None:
        """The pended classification that `key` completes."""
        return self._waiting.get(key)

    def finish(self, pending: Pending) -> None:
        """Completed: the key is used up."""
        del self._waiting[pending.key]
        pending.entry.pended -= 1
        if pending.timer is not None:
            pending.timer.cancel()

    def drop(self, pending: Pending) -> None:
        """The connection ended without a completion; one that comes later does nothing."""
        self.finish(pending)
        self._over.add(pending.key)

    def late(self, key: int) -> bool:
        """Whether this is the one completion that may come after its connection's end."""
        if key not in self._over:
            return False
        self._over.remove(key)
        return True

    def stop(self) -> None:
        """The engine stops: nobody will complete these any more."""
        for pending in list(self._waiting.values()):
            self._give_up(pending)

    def _give_up(self, pending: Pending) -> None:
        pending.arbitration.tell(
            "V-59", f"{pending.entry.name} never completed a pended connection", pending.filter, pending.entry
        )
        self.drop(pending)
        pending.gave_up()
