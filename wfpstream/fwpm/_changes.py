"""The change feed: what each commit and forced removal added to the committed objects and took from them.

Owns the comparing of two states, and that listeners hear of the differences in order, after the fact and one at
a time. Must not know sessions, subscriptions or the calls that caused a change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from wfpstream.fwpm._objects import Entry, Tables
from wfpstream.fwpm._runtime import RunTime
from wfpstream.fwpm._types import ChangeType


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """An object that came or went: `author` is the session that did it, None for the engine itself."""

    type: ChangeType
    entry: Entry[Any]
    author: object | None


Listener = Callable[[Change], None]


def differences(before: Tables, after: Tables, author: object | None) -> list[Change]:
    """What must change to get from one state to the other.

    Deletions come first, those that name others before those named; additions in the order of adding. So
    whoever follows the feed never holds an object whose references it has not heard of, nor one key twice.
    """
    # A retiring filter is out of force, and still there (MGMT-16).
    retiring: set[Entry[Any]] = set(after.retiring.values())
    gone: list[Entry[Any]] = _by_order(set(before.retiring.values()) - retiring)
    come: list[Entry[Any]] = []
    for old, new in zip(before.by_type(), after.by_type(), strict=True):
        if not old.same_storage(new):
            gone += _by_order(set(old) - set(new) - retiring)
            come += set(new) - set(old)
    return [
        *(Change(ChangeType.DELETE, entry, author) for entry in gone),
        *(Change(ChangeType.ADD, entry, author) for entry in _by_order(come)),
    ]


def _by_order(entries: Iterable[Entry[Any]]) -> list[Entry[Any]]:
    return sorted(entries, key=lambda entry: entry.order)


class ChangeFeed:
    """Queues changes as states follow each other, and tells the listeners when it is asked to.

    Two steps, because what happens between a change of state and the end of the call that caused it (the lock
    goes to the next writer) may be the next change already.
    """

    def __init__(self, run_time: RunTime) -> None:
        self._run_time = run_time
        self._listeners: list[Listener] = []
        # With those who listened when it happened: a later listener must not hear of the past.
        self._queue: deque[tuple[Change, tuple[Listener, ...]]] = deque()
        self._delivering = False

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of every change from now on. It may call anything, also what changes objects."""
        self._listeners.append(listener)

    def ignore(self, listener: Listener) -> None:
        """End `listen`; changes still queued for it are not delivered. Without effect for a stranger."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def record(self, before: Tables, after: Tables, author: object | None = None) -> None:
        """Queue the differences of two committed states. Costs nothing while nobody listens."""
        if self._listeners:
            listeners = tuple(self._listeners)
            self._queue.extend((change, listeners) for change in differences(before, after, author))

    def deliver(self) -> None:
        """Tell the listeners. What a listener changes is told after everything that happened before."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._queue:
                change, listeners = self._queue.popleft()
                for listener in listeners:
                    if listener in self._listeners:
                        self._tell(listener, change)
        finally:
            self._delivering = False

    def _tell(self, listener: Listener, change: Change) -> None:
        try:
            listener(change)
        except Exception as error:
            # One listener's fault is neither the committer's nor the other listeners'.
            self._run_time.report("V-40", f"{type(error).__name__} out of a change callback: {error}")
