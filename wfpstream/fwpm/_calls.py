"""How a call of a session runs: refused, in the session's explicit transaction, or in an implicit one.

Owns what every Fwpm* call has in common: who may call now, what it sees, and how a refusal is told. Must not know
single calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar
from uuid import UUID

from wfpstream.fwp import FwpError, NtStatus
from wfpstream.fwpm import _adding
from wfpstream.fwpm._members import require_members
from wfpstream.fwpm._objects import EntryT, RecordT, Table, Tables
from wfpstream.fwpm._store import Store
from wfpstream.fwpm._templates import SessionRecord
from wfpstream.fwpm._transaction import Transaction
from wfpstream.fwpm._types import SessionFlags

_SUCCESS: Final = NtStatus.STATUS_SUCCESS

T = TypeVar("T")

# Which rule speaks of the refusals of a family of calls; the first whose part of the name fits.
_RULES: Final = {
    "Enum": "REG-10",
    "ubscri": "REG-10",
    "FwpmLayer": "LAY-1",
    "FwpmTransaction": "MGMT-1",
    "FwpmFilterAdd": "MGMT-4",
    "FwpmFilterDelete": "MGMT-13",
    "FwpmCalloutDelete": "MGMT-15",
    "FwpmProviderContext": "MGMT-17",
}


class Calls:
    """The part of a session that runs its calls; the calls themselves are in the classes made from it."""

    def __init__(self, store: Store, record: SessionRecord) -> None:
        self._store = store
        self._record = record
        self._transaction: Transaction | None = None
        # What every later call returns once the session has ended.
        self._ended: NtStatus | None = None

    @property
    def dynamic(self) -> bool:
        """Its objects die with it (OBJ-2)."""
        return bool(self._record.flags & SessionFlags.DYNAMIC)

    @property
    def session_key(self) -> UUID:
        """Names the session in lists of sessions and subscriptions."""
        return self._record.session_key

    @property
    def is_open(self) -> bool:
        return self._ended is None

    def _refused(self, call: str) -> NtStatus | None:
        """IRQ-3 first, then a handle whose session has ended."""
        status = self._store.run_time.passive_call_refused(call)
        if status is not None:
            return self._told(call, NtStatus(status), "IRQ-3")
        return None if self._ended is None else self._told(call, self._ended, "OBJ-1")

    def _told(self, call: str, status: NtStatus, rule: str | None = None) -> NtStatus:
        """VRF-6: a refusal is an event with the rule that decided it."""
        if status is not NtStatus.STATUS_SUCCESS:
            family = next((r for part, r in _RULES.items() if part in call), "OBJ-7")
            self._store.run_time.refused(call, status, rule or family)
        return status

    def _change(self, call: str, body: Callable[[Transaction], T], nothing: T) -> tuple[NtStatus, T]:
        """Runs a write in the explicit or an implicit transaction (MGMT-1); `nothing` goes with a refusal."""
        refused = self._refused(call)
        if refused is not None:
            return refused, nothing
        explicit = self._transaction
        if explicit is None and not self._store.lock.free:
            return self._told(call, NtStatus.STATUS_FWP_TIMEOUT, "MGMT-3"), nothing
        if explicit is not None and explicit.read_only:
            return self._told(call, NtStatus.STATUS_FWP_INCOMPATIBLE_TXN, "MGMT-3"), nothing
        transaction = explicit or self._store.begin_implicit(self)
        try:
            result = body(transaction)
        except FwpError as error:
            return self._told(call, error.status), nothing
        return (
            _SUCCESS if explicit is not None else self._told(call, self._store.commit(transaction))
        ), result

    def _write(self, call: str, body: Callable[[Transaction], object]) -> NtStatus:
        return self._change(call, body, None)[0]

    def _add(
        self,
        call: str,
        kind: type[RecordT],
        record: RecordT,
        add: Callable[[Store, Transaction, object | None, RecordT], int],
    ) -> tuple[NtStatus, int]:
        if not isinstance(record, kind):
            raise TypeError(f"{call} takes a fwpm.{kind.__name__}, not {type(record).__name__}")
        require_members(record)
        owner = self if self.dynamic else None
        return self._change(call, lambda txn: add(self._store, txn, owner, record), 0)

    def _delete(
        self, call: str, choose: Callable[[Tables], Table[EntryT]], key: UUID, missing: NtStatus
    ) -> NtStatus:
        return self._write(call, lambda txn: _adding.delete(txn, choose(txn.tables), key, missing))

    def _visible(self) -> Tables:
        return self._store.committed if self._transaction is None else self._transaction.tables

    def _get(
        self,
        call: str,
        find: Callable[[Tables], EntryT | None],
        missing: NtStatus,
        read: Callable[[EntryT], RecordT],
    ) -> tuple[NtStatus, RecordT | None]:
        refused = self._refused(call)
        if refused is not None:
            return refused, None
        entry = find(self._visible())
        if entry is None:
            return self._told(call, missing), None
        return _SUCCESS, read(entry)

    def _read(self, call: str, body: Callable[[], T], nothing: T) -> tuple[NtStatus, T]:
        """Runs a call that changes no object; `nothing` goes with a refusal."""
        refused = self._refused(call)
        if refused is not None:
            return refused, nothing
        try:
            return _SUCCESS, body()
        except FwpError as error:
            return self._told(call, error.status), nothing
