"""The committed objects: what a commit, an abort and a forced removal set off at the run time.

Owns the one set of tables that is in force, its generations, and the notifications of a transaction's end
(NTF-5..NTF-7). Must not know the checks of single calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from wfpstream.fwp import NtStatus
from wfpstream.fwpm._changes import ChangeFeed
from wfpstream.fwpm._compile import compile_filter_set
from wfpstream.fwpm._handles import Handles
from wfpstream.fwpm._keys import SUBLAYER_INSPECTION, SUBLAYER_UNIVERSAL, ZERO_KEY
from wfpstream.fwpm._objects import Entry, FilterEntry, Tables
from wfpstream.fwpm._runtime import RunTime
from wfpstream.fwpm._templates import SessionRecord
from wfpstream.fwpm._transaction import Transaction, WriteLock
from wfpstream.fwpm._types import DisplayData, SubLayer
from wfpstream.fwps._constants import NotifyType

# Behind every sublayer of the same weight (MGMT-8): INSPECTION is "lowest of all", without a known number.
_LAST: Final = 2**63


def _built_in_tables() -> Tables:
    tables = Tables.empty()
    for key, name, weight, order in (
        (SUBLAYER_UNIVERSAL, "FWPM_SUBLAYER_UNIVERSAL", 0x8000, 0),
        (SUBLAYER_INSPECTION, "FWPM_SUBLAYER_INSPECTION", 0, _LAST),
    ):
        record = SubLayer(sub_layer_key=key, display_data=DisplayData(name), weight=weight)
        tables.sub_layers.put(Entry(key=key, record=record, order=order, builtin=True))
    return tables


class Store:
    """Committed tables, the write lock, and the way from one generation to the next."""

    def __init__(self, run_time: RunTime) -> None:
        self.run_time = run_time
        self.committed = _built_in_tables()
        self.lock = WriteLock(run_time)
        self.changes = ChangeFeed(run_time)
        # Called when filters have been deleted: what they named may be free now.
        self.filters_gone: Callable[[], None] = lambda: None
        # The open sessions, and what they have open: neither belongs to a transaction.
        self.sessions: dict[UUID, SessionRecord] = {}
        self.handles = Handles()
        # The explicit transaction that holds the lock: a forced removal has to reach it too.
        self._open: Transaction | None = None
        self._generation = 0
        self._orders = count(1)
        self._last_filter_id = 0
        self._filter_ids_ahead: set[int] = set()
        self.wished_filter_ids: dict[UUID, int] = {}

    def next_order(self) -> int:
        """Place in the order of adding, unique over all objects."""
        return next(self._orders)

    def next_filter_id(self, key: UUID) -> int:
        """A filterId, never given twice (OBJ-9); the one that is wished for `key`, if there is one."""
        wished = self.wished_filter_ids.pop(key, 0)
        if wished > self._last_filter_id + 1 and wished not in self._filter_ids_ahead:
            self._filter_ids_ahead.add(wished)
            return wished
        self._last_filter_id += 1
        while self._last_filter_id in self._filter_ids_ahead:
            self._filter_ids_ahead.remove(self._last_filter_id)
            self._last_filter_id += 1
        return self._last_filter_id

    def key_or_generated(self, key: UUID, order: int) -> UUID:
        """OBJ-6: a zero key is replaced. Generated from `order`, so that a replay gives the same keys."""
        return key if key != ZERO_KEY else uuid5(NAMESPACE_URL, f"urn:wfpstream:object:{order}")

    def begin_explicit(self, author: object) -> Transaction:
        """The write transaction of whoever has the lock."""
        self._open = Transaction(self.committed.fork(), explicit=True, author=author)
        return self._open

    def begin_implicit(self, author: object) -> Transaction:
        return Transaction(self.committed.fork(), explicit=False, author=author)

    def begin_read_only(self) -> Transaction:
        """A snapshot: needs no lock, and sees nothing of later commits (MGMT-2)."""
        return Transaction(self.committed.fork(), explicit=True, read_only=True)

    def commit(self, transaction: Transaction) -> NtStatus:
        """Puts the transaction's tables in force; its lock, if it has one, is released.

        STATUS_FWP_IN_USE when a filter it deletes has become busy since: nothing changes, the transaction
        stays open and can be committed again or aborted (MGMT-13).
        """
        if any(self.busy(entry) for entry in transaction.deleted):
            return NtStatus.STATUS_FWP_IN_USE
        before = self.committed
        if not transaction.read_only:
            self.committed = transaction.tables
        if transaction.recompile:
            self._install()
        gone = self._begin_retiring(transaction.retired)
        self.changes.record(before, self.committed, transaction.author)
        self._notify_deleted([*transaction.deleted, *gone])
        if transaction.explicit:
            self._notify_post_commit(transaction)
            self._close(transaction)
        self.changes.deliver()
        if transaction.deleted or gone:
            self.filters_gone()
        return NtStatus.STATUS_SUCCESS

    def abort(self, transaction: Transaction) -> None:
        """Forgets an explicit transaction; callouts that accepted a filter of it get DELETE (NTF-7)."""
        self._notify_deleted(entry for entry in transaction.added if entry.announced)
        self._close(transaction)

    def busy(self, entry: FilterEntry) -> bool:
        """MGMT-13: the filter must not be deleted now; V-38 is reported."""
        if not self.run_time.filter_busy(entry.run_time.filter_id):
            return False
        name = entry.record.display_data.name
        text = f"filter {name!r} deleted while its callout is at work on a flow"
        self.run_time.report("V-38", text, entry.run_time.filter_id)
        return True

    def _begin_retiring(self, entries: Iterable[FilterEntry]) -> list[FilterEntry]:
        """Let the run time finish with filters that are out of force; those that it has no stage of are gone."""
        gone = [e for e in entries if self.run_time.retire(e.run_time, partial(self._retired, e))]
        for entry in gone:
            del self.committed.retiring[entry.run_time.filter_id]
        return gone

    def _retired(self, entry: FilterEntry) -> None:
        """The last flow has finished with a retiring filter: the object disappears (MGMT-16)."""
        before = self.committed.fork()
        for tables in (self.committed, *([self._open.tables] if self._open is not None else [])):
            tables.retiring.pop(entry.run_time.filter_id, None)
        self.changes.record(before, self.committed)
        self._notify_deleted([entry])
        self.changes.deliver()
        self.filters_gone()

    def remove_by_force(self, filters: Iterable[FilterEntry], discard: Callable[[Tables], None]) -> None:
        """Deletes filters even where they are busy (V-38), and whatever else `discard` takes out (MGMT-13).

        Reaches an open transaction of another session as well, so that its commit does not bring them back.
        """
        filters = tuple(filters)
        for entry in filters:
            self.busy(entry)
        before = self.committed.fork()
        discard(self.committed)
        self.changes.record(before, self.committed)
        if self._open is not None:
            discard(self._open.tables)
            self._open.deleted = [entry for entry in self._open.deleted if entry not in filters]
            self._open.retired = [entry for entry in self._open.retired if entry not in filters]
        if self._concerns_run_time(before):
            self._install()
        for filter_id in before.retiring.keys() - self.committed.retiring.keys():
            self.run_time.end_retiring(filter_id)
        self._notify_deleted(filters)
        self.changes.deliver()

    def _concerns_run_time(self, before: Tables) -> bool:
        """Filters or callouts are not what they were."""
        now = self.committed
        return not (now.filters.same_storage(before.filters) and now.callouts.same_storage(before.callouts))

    def _close(self, transaction: Transaction) -> None:
        if not transaction.read_only:
            self._open = None
            self.lock.release()

    def _install(self) -> None:
        self._generation += 1
        self.run_time.install(compile_filter_set(self.committed, self._generation))

    def _notify_deleted(self, entries: Iterable[FilterEntry]) -> None:
        """NTF-5: DELETE has no filter key, goes to callouts never told of the filter too, and cannot fail."""
        for entry in entries:
            key = entry.run_time.callout_key
            if key is not None:
                self.run_time.notify(key, NotifyType.DELETE_FILTER, None, entry.run_time)

    def _notify_post_commit(self, transaction: Transaction) -> None:
        """NTF-6: a second call, after the commit, for those that asked for it."""
        for entry in transaction.added:
            key = entry.run_time.callout_key
            still_there = transaction.tables.filters.get(entry.key) is entry
            if key is not None and still_there and entry.announced and self.run_time.commit_add_notify(key):
                self.run_time.notify(key, NotifyType.ADD_FILTER_POST_COMMIT, entry.key, entry.run_time)
