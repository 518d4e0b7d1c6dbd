"""Transactions and the lock they wait for (MGMT-1..MGMT-3, IRQ-6).

Owns what one transaction has seen and done, and who may write next. Must not know what a commit sets off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from wfpstream.fwp import NtStatus
from wfpstream.fwpm._objects import FilterEntry, Tables
from wfpstream.fwpm._runtime import RunTime, Timer


class Transaction:
    """A fork of the tables and what was done to it; explicit, or implicit around one call (MGMT-1)."""

    __slots__ = ("added", "author", "deleted", "explicit", "read_only", "recompile", "retired", "tables")

    def __init__(
        self, tables: Tables, *, explicit: bool, read_only: bool = False, author: object | None = None
    ) -> None:
        self.tables = tables
        # The session whose transaction it is: it does not hear of its own changes.
        self.author = author
        self.explicit = explicit
        self.read_only = read_only
        # In order of the calls; a filter added and deleted again is in both.
        self.added: list[FilterEntry] = []
        self.deleted: list[FilterEntry] = []
        # Out of force with the commit, and deleted when no flow needs them any more (MGMT-16).
        self.retired: list[FilterEntry] = []
        # Set by what the run time has to know of: filters and callouts.
        self.recompile = False


class Ticket:
    """A transaction_begin that waits for the write lock (IRQ-6): poll `done`, then read `status`.

    `status` is STATUS_PENDING, then STATUS_SUCCESS when the transaction has begun, STATUS_FWP_TIMEOUT when
    the session's limit passed, or STATUS_FWP_SESSION_ABORTED when the session ended.
    """

    __slots__ = ("_begin", "_timer", "_waiters", "holder", "status")

    def __init__(self, holder: object, begin: Callable[[], None]) -> None:
        self.holder = holder
        self.status = NtStatus.STATUS_PENDING
        self._begin = begin
        self._timer: Timer | None = None
        self._waiters: list[Callable[[], None]] = []

    def when_done(self, fn: Callable[[], None]) -> None:
        """Call `fn` when the ticket is decided; at once if it is (the waiting form of IRQ-6)."""
        if self.done:
            fn()
        else:
            self._waiters.append(fn)

    @property
    def done(self) -> bool:
        return self.status is not NtStatus.STATUS_PENDING

    def limit(self, timer: Timer) -> None:
        self._timer = timer

    def finish(self, status: NtStatus) -> None:
        self.status = status
        if self._timer is not None:
            self._timer.cancel()
        if status.ok:
            self._begin()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()


class WriteLock:
    """One writer at a time; the others are served in the order they asked."""

    __slots__ = ("_holder", "_queue", "_run_time")

    def __init__(self, run_time: RunTime) -> None:
        self._run_time = run_time
        self._holder: object | None = None
        self._queue: deque[Ticket] = deque()

    @property
    def free(self) -> bool:
        return self._holder is None

    def acquire(self, holder: object) -> bool:
        """Takes the lock if nobody has it."""
        if self._holder is not None:
            return False
        self._holder = holder
        return True

    def wait(self, holder: object, timeout: float, begin: Callable[[], None]) -> Ticket:
        """Queues for the lock, at most `timeout` seconds (infinity: no limit); `begin` is called with it."""
        ticket = Ticket(holder, begin)
        self._queue.append(ticket)
        if timeout != float("inf"):
            ticket.limit(self._run_time.at(self._run_time.now() + timeout, lambda: self._expire(ticket)))
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Fails a ticket whose session ended; without effect when it is done."""
        if not ticket.done:
            self._queue.remove(ticket)
            ticket.finish(NtStatus.STATUS_FWP_SESSION_ABORTED)

    def release(self) -> None:
        """Gives the lock to whoever asked first."""
        self._holder = None
        if self._queue:
            ticket = self._queue.popleft()
            self._holder = ticket.holder
            ticket.finish(NtStatus.STATUS_SUCCESS)

    def _expire(self, ticket: Ticket) -> None:
        if not ticket.done:
            self._queue.remove(ticket)
            ticket.finish(NtStatus.STATUS_FWP_TIMEOUT)
