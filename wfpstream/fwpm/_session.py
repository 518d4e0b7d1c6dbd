"""A session: the Fwpm* calls, one method each (REG-10).

Owns the list of calls, the beginning and the end of its transactions, and its own end. Must not know the checks of
single calls nor how a commit is carried out.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from uuid import UUID

from wfpstream.fwp import FwpError, NtStatus
from wfpstream.fwpm import _adding, _filters
from wfpstream.fwpm._enumeration import Enumerating
from wfpstream.fwpm._layers import Layer, find_layer, layer_key_of
from wfpstream.fwpm._objects import FilterEntry, Tables
from wfpstream.fwpm._store import Store
from wfpstream.fwpm._subscriptions import Subscribing
from wfpstream.fwpm._templates import SessionRecord
from wfpstream.fwpm._transaction import Ticket
from wfpstream.fwpm._types import (
    Callout,
    Filter,
    Provider,
    ProviderContext,
    SubLayer,
    TransactionFlags,
)

_SUCCESS = NtStatus.STATUS_SUCCESS


class Session(Enumerating, Subscribing):
    """An engine handle (OBJ-1), made by `Management.engine_open`.

    Calls with a status only return their NtStatus, the others (NtStatus, value); a refused call never raises,
    an argument of the wrong type raises TypeError (REG-10). Without an open transaction every call is its own
    implicit one (MGMT-1). While *another* session holds the write lock an implicit write cannot wait on the
    engine's thread and returns STATUS_FWP_TIMEOUT at once; `transaction_begin` is what queues (IRQ-6).
    `ticket` is the latest begin that had to wait.
    """

    def __init__(self, store: Store, record: SessionRecord) -> None:
        super().__init__(store, record)
        self.ticket: Ticket | None = None

    # -- session and transaction

    def engine_close(self) -> NtStatus:
        """FwpmEngineClose0: aborts its open transaction (OBJ-1), deletes its dynamic objects (OBJ-2)."""
        refused = self._refused("FwpmEngineClose0")
        if refused is None:
            self.end(NtStatus.STATUS_INVALID_HANDLE)
        return refused or _SUCCESS

    def end(self, later_status: NtStatus) -> None:
        """Ends the session by whatever cause; every later call returns `later_status`."""
        # First of all: what follows gives the lock to others, and runs their code.
        self._ended = later_status
        self._close_handles()
        if self.ticket is not None:
            self._store.lock.withdraw(self.ticket)
        del self._store.sessions[self.session_key]
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            self._store.abort(transaction)
        if self.dynamic:
            owned = [entry for entry in self._store.committed.all_filters() if entry.owner is self]
            self._store.remove_by_force(owned, lambda tables: tables.discard_owned_by(self))

    def transaction_begin(self, flags: int = 0) -> NtStatus:
        """FwpmTransactionBegin0; `flags`: TransactionFlags.

        STATUS_PENDING when another session holds the write lock: `ticket` then says when the transaction has
        begun or failed (MGMT-3, IRQ-6). A read-only transaction never waits: it reads a snapshot.
        """
        refused = self._refused("FwpmTransactionBegin0")
        if refused is not None:
            return refused
        if self._transaction is not None or (self.ticket is not None and not self.ticket.done):
            return self._told("FwpmTransactionBegin0", NtStatus.STATUS_FWP_TXN_IN_PROGRESS)
        if flags not in (0, TransactionFlags.READ_ONLY):
            return self._told("FwpmTransactionBegin0", NtStatus.STATUS_FWP_INVALID_FLAGS)
        if flags == TransactionFlags.READ_ONLY:
            self._transaction = self._store.begin_read_only()
            return _SUCCESS
        if self._store.lock.acquire(self):
            self._begin()
            return _SUCCESS
        self.ticket = self._store.lock.wait(self, self._record.txn_wait_timeout, self._begin)
        self.ticket.when_done(partial(self._waited, self.ticket))
        return NtStatus.STATUS_PENDING

    def _waited(self, ticket: Ticket) -> None:
        """VRF-6: a begin that waited in vain is a refused call too."""
        self._told("FwpmTransactionBegin0", ticket.status, "MGMT-3")

    def _begin(self) -> None:
        self._transaction = self._store.begin_explicit(self)

    def transaction_commit(self) -> NtStatus:
        """FwpmTransactionCommit0.

        STATUS_FWP_IN_USE when a filter deleted in it has become busy: nothing changed, and the transaction is
        still open (MGMT-13).
        """
        refused = self._refused("FwpmTransactionCommit0")
        if refused is not None:
            return refused
        if self._transaction is None:
            return self._told("FwpmTransactionCommit0", NtStatus.STATUS_FWP_NO_TXN_IN_PROGRESS)
        transaction, self._transaction = self._transaction, None
        status = self._store.commit(transaction)
        if not status.ok:
            self._transaction = transaction
        return self._told("FwpmTransactionCommit0", status)

    def transaction_abort(self) -> NtStatus:
        """FwpmTransactionAbort0: callouts get DELETE for each filter they had accepted in it (NTF-7)."""
        refused = self._refused("FwpmTransactionAbort0")
        if refused is not None:
            return refused
        if self._transaction is None:
            return self._told("FwpmTransactionAbort0", NtStatus.STATUS_FWP_NO_TXN_IN_PROGRESS)
        transaction, self._transaction = self._transaction, None
        self._store.abort(transaction)
        return _SUCCESS

    # -- layers

    def layer_get_by_key(self, key: UUID) -> tuple[NtStatus, Layer | None]:
        """FwpmLayerGetByKey0: STATUS_FWP_LAYER_NOT_FOUND also for one that the OS profile does not have."""
        return self._layer("FwpmLayerGetByKey0", key)

    def layer_get_by_id(self, layer_id: int) -> tuple[NtStatus, Layer | None]:
        """FwpmLayerGetById0: by the run time's id, an `fwps.LayerId`."""
        return self._layer("FwpmLayerGetById0", layer_key_of(layer_id))

    def _layer(self, call: str, key: UUID | None) -> tuple[NtStatus, Layer | None]:
        def find() -> Layer | None:
            layer = None if key is None else find_layer(key, self._store.run_time.profile)
            if layer is None:
                raise FwpError(NtStatus.STATUS_FWP_LAYER_NOT_FOUND, f"{key}")
            return layer

        return self._read(call, find, None)

    # -- providers

    def provider_add(self, provider: Provider) -> NtStatus:
        """FwpmProviderAdd0."""
        return self._add("FwpmProviderAdd0", Provider, provider, _adding.add_provider)[0]

    def provider_delete_by_key(self, key: UUID) -> NtStatus:
        """FwpmProviderDeleteByKey0."""
        missing = NtStatus.STATUS_FWP_PROVIDER_NOT_FOUND
        return self._delete("FwpmProviderDeleteByKey0", lambda tables: tables.providers, key, missing)

    def provider_get_by_key(self, key: UUID) -> tuple[NtStatus, Provider | None]:
        """FwpmProviderGetByKey0."""
        missing = NtStatus.STATUS_FWP_PROVIDER_NOT_FOUND
        return self._get(
            "FwpmProviderGetByKey0", lambda tables: tables.providers.get(key), missing, lambda one: one.record
        )

    # -- sublayers

    def sub_layer_add(self, sub_layer: SubLayer) -> NtStatus:
        """FwpmSubLayerAdd0."""
        return self._add("FwpmSubLayerAdd0", SubLayer, sub_layer, _adding.add_sub_layer)[0]

    def sub_layer_delete_by_key(self, key: UUID) -> NtStatus:
        """FwpmSubLayerDeleteByKey0: STATUS_FWP_IN_USE while a filter is in it (OBJ-5)."""
        missing = NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND
        return self._delete("FwpmSubLayerDeleteByKey0", lambda tables: tables.sub_layers, key, missing)

    def sub_layer_get_by_key(self, key: UUID) -> tuple[NtStatus, SubLayer | None]:
        """FwpmSubLayerGetByKey0."""
        missing = NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND
        return self._get(
            "FwpmSubLayerGetByKey0",
            lambda tables: tables.sub_layers.get(key),
            missing,
            lambda one: one.record,
        )

    # -- callouts

    def callout_add(self, callout: Callout) -> tuple[NtStatus, int]:
        """FwpmCalloutAdd0: (status, calloutId); the id is 0 when refused."""
        return self._add("FwpmCalloutAdd0", Callout, callout, _adding.add_callout)

    def callout_delete_by_id(self, callout_id: int) -> NtStatus:
        """FwpmCalloutDeleteById0 (MGMT-15)."""
        key = self._store.run_time.callout_key_of(callout_id)
        return self._write("FwpmCalloutDeleteById0", lambda txn: _adding.delete_callout(txn, key))

    def callout_delete_by_key(self, key: UUID) -> NtStatus:
        """FwpmCalloutDeleteByKey0 (MGMT-15)."""
        return self._write("FwpmCalloutDeleteByKey0", lambda txn: _adding.delete_callout(txn, key))

    def callout_get_by_key(self, key: UUID) -> tuple[NtStatus, Callout | None]:
        """FwpmCalloutGetByKey0: with its calloutId, and REGISTERED in `flags` if code is registered."""
        missing = NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND
        return self._get(
            "FwpmCalloutGetByKey0", lambda tables: tables.callouts.get(key), missing, self._callout_record
        )

    def callout_get_by_id(self, callout_id: int) -> tuple[NtStatus, Callout | None]:
        """FwpmCalloutGetById0: as `callout_get_by_key`."""
        key = self._store.run_time.callout_key_of(callout_id)
        missing = NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND
        return self._get(
            "FwpmCalloutGetById0", lambda tables: tables.callouts.get(key), missing, self._callout_record
        )

    # -- provider contexts

    def provider_context_add(self, provider_context: ProviderContext) -> NtStatus:
        """FwpmProviderContextAdd0: the data is copied (MGMT-17)."""
        add = _adding.add_provider_context
        return self._add("FwpmProviderContextAdd0", ProviderContext, provider_context, add)[0]

    def provider_context_delete_by_key(self, key: UUID) -> NtStatus:
        """FwpmProviderContextDeleteByKey0: STATUS_FWP_IN_USE while a filter names it (SC-136)."""
        missing = NtStatus.STATUS_FWP_PROVIDER_CONTEXT_NOT_FOUND
        return self._delete(
            "FwpmProviderContextDeleteByKey0", lambda tables: tables.provider_contexts, key, missing
        )

    def provider_context_get_by_key(self, key: UUID) -> tuple[NtStatus, ProviderContext | None]:
        """FwpmProviderContextGetByKey0."""
        missing = NtStatus.STATUS_FWP_PROVIDER_CONTEXT_NOT_FOUND
        return self._get(
            "FwpmProviderContextGetByKey0",
            lambda tables: tables.provider_contexts.get(key),
            missing,
            lambda one: one.record,
        )

    # -- filters

    def filter_add(self, filter: Filter) -> tuple[NtStatus, int]:
        """FwpmFilterAdd0: (status, filterId), checked in the order of MGMT-4; the id is 0 when refused."""
        return self._add("FwpmFilterAdd0", Filter, filter, _filters.add_filter)

    def filter_delete_by_id(self, filter_id: int) -> NtStatus:
        """FwpmFilterDeleteById0: STATUS_FWP_IN_USE and V-38 while its callout is at work (MGMT-13)."""
        return self._filter_delete("FwpmFilterDeleteById0", lambda tables: tables.filter_by_id(filter_id))

    def filter_delete_by_key(self, key: UUID) -> NtStatus:
        """FwpmFilterDeleteByKey0: as `filter_delete_by_id`."""
        return self._filter_delete("FwpmFilterDeleteByKey0", lambda tables: tables.filter_by_key(key))

    def filter_get_by_id(self, filter_id: int) -> tuple[NtStatus, Filter | None]:
        """FwpmFilterGetById0: with filterId and effective weight."""
        missing = NtStatus.STATUS_FWP_FILTER_NOT_FOUND
        return self._get(
            "FwpmFilterGetById0", lambda tables: tables.filter_by_id(filter_id), missing, self._filter_record
        )

    def filter_get_by_key(self, key: UUID) -> tuple[NtStatus, Filter | None]:
        """FwpmFilterGetByKey0: with filterId and effective weight."""
        missing = NtStatus.STATUS_FWP_FILTER_NOT_FOUND
        return self._get(
            "FwpmFilterGetByKey0", lambda tables: tables.filter_by_key(key), missing, self._filter_record
        )

    def _filter_delete(self, call: str, find: Callable[[Tables], FilterEntry | None]) -> NtStatus:
        busy = self._store.busy
        return self._write(call, lambda txn: _adding.delete_filter(txn, find(txn.tables), busy))

    def filter_retire_by_id(self, filter_id: int) -> NtStatus:
        """Delete a filter that may be busy (MGMT-16; ours, WFP has no such call).

        With the commit it is out of force and gives up its key. What its callout holds, has pended or deferred on
        running flows is finished first, for at most `timeouts.drain`; until then the object is still to be found,
        as `retiring`, and a plain delete answers STATUS_FWP_IN_USE. The DELETE notification comes at the end.
        """
        return self._filter_retire("FwpmFilterRetireById", lambda tables: tables.filter_by_id(filter_id))

    def filter_retire_by_key(self, key: UUID) -> NtStatus:
        """As `filter_retire_by_id`."""
        return self._filter_retire("FwpmFilterRetireByKey", lambda tables: tables.filter_by_key(key))

    def _filter_retire(self, call: str, find: Callable[[Tables], FilterEntry | None]) -> NtStatus:
        return self._write(call, lambda txn: _adding.retire_filter(txn, find(txn.tables)))
