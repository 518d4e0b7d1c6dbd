"""The add calls for providers, sublayers, callouts and provider contexts, and the deleting of any object.

Owns which status refuses what; a refusal is an `FwpError`, which the session turns into the call's status.
Must not know sessions, beyond the owner an object dies with.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from wfpstream.fwp import FwpError, NtStatus
from wfpstream.fwpm._layers import find_layer
from wfpstream.fwpm._objects import CalloutEntry, Entry, EntryT, FilterEntry, Table, outlives
from wfpstream.fwpm._store import Store
from wfpstream.fwpm._transaction import Transaction
from wfpstream.fwpm._types import (
    Callout,
    CalloutFlags,
    DisplayData,
    Provider,
    ProviderContext,
    ProviderContextType,
    ProviderFlags,
    SubLayer,
    SubLayerFlags,
)

# FWP Error Codes: at most 2^16 sublayers.
MAX_SUB_LAYERS: Final = 2**16
_MAX_UINT16: Final = 2**16 - 1
_PROVIDER_FLAGS: Final = ProviderFlags.PERSISTENT
_CALLOUT_FLAGS: Final = CalloutFlags.PERSISTENT | CalloutFlags.USES_PROVIDER_CONTEXT


def named(table: Table[EntryT], key: UUID | None, missing: NtStatus, owner: object | None) -> EntryT:
    """The object a new one refers to: it must exist and last as long (OBJ-4)."""
    entry = table.get(key)
    if entry is None:
        raise FwpError(missing, f"no object {key}")
    if not outlives(owner, entry):
        raise FwpError(NtStatus.STATUS_FWP_LIFETIME_MISMATCH, f"{key} belongs to a dynamic session")
    return entry


def named_provider(
    transaction: Transaction, key: UUID | None, owner: object | None
) -> tuple[Entry[Provider], ...]:
    """The provider an object names, if it names one."""
    if key is None:
        return ()
    return (named(transaction.tables.providers, key, NtStatus.STATUS_FWP_PROVIDER_NOT_FOUND, owner),)


def require_name(display_data: DisplayData) -> None:
    """OBJ-7."""
    if not display_data.name:
        raise FwpError(NtStatus.STATUS_FWP_NULL_DISPLAY_NAME)


def require_flags(flags: int, legal: int) -> None:
    """Bits outside `legal` are refused."""
    # int(): inverting an IntFlag would give its own other members only, not the undefined bits.
    if flags & ~int(legal):
        raise FwpError(NtStatus.STATUS_FWP_INVALID_FLAGS, f"flags {flags:#x}")


def require_new(table: Table[Any], key: UUID) -> None:
    """OBJ-7."""
    if table.get(key) is not None:
        raise FwpError(NtStatus.STATUS_FWP_ALREADY_EXISTS, f"{key}")


def add_provider(store: Store, transaction: Transaction, owner: object | None, record: Provider) -> int:
    table = transaction.tables.providers
    require_name(record.display_data)
    require_flags(record.flags, _PROVIDER_FLAGS)
    order = store.next_order()
    key = store.key_or_generated(record.provider_key, order)
    require_new(table, key)
    table.put(Entry(key=key, record=replace(record, provider_key=key), order=order, owner=owner))
    return 0


def add_sub_layer(store: Store, transaction: Transaction, owner: object | None, record: SubLayer) -> int:
    table = transaction.tables.sub_layers
    require_name(record.display_data)
    names = named_provider(transaction, record.provider_key, owner)
    require_flags(record.flags, SubLayerFlags.PERSISTENT)
    if not 0 <= record.weight <= _MAX_UINT16:
        raise FwpError(NtStatus.STATUS_FWP_INVALID_WEIGHT, f"sublayer weight {record.weight}")
    order = store.next_order()
    key = store.key_or_generated(record.sub_layer_key, order)
    require_new(table, key)
    if len(table) >= MAX_SUB_LAYERS:
        raise FwpError(NtStatus.STATUS_FWP_TOO_MANY_SUBLAYERS)
    record = replace(record, sub_layer_key=key)
    table.put(Entry(key=key, record=record, order=order, owner=owner, names=names))
    return 0


def add_callout(store: Store, transaction: Transaction, owner: object | None, record: Callout) -> int:
    """Returns the calloutId, which registration under the same key shares (OBJ-8)."""
    table = transaction.tables.callouts
    require_name(record.display_data)
    names = named_provider(transaction, record.provider_key, owner)
    require_flags(record.flags, _CALLOUT_FLAGS)
    layer = find_layer(record.applicable_layer, store.run_time.profile)
    if layer is None:
        raise FwpError(NtStatus.STATUS_FWP_LAYER_NOT_FOUND, f"{record.applicable_layer}")
    order = store.next_order()
    key = store.key_or_generated(record.callout_key, order)
    require_new(table, key)
    callout_id = store.run_time.callout_id_for(key)
    record = replace(record, callout_key=key, callout_id=callout_id)
    table.put(
        CalloutEntry(
            key=key,
            record=record,
            order=order,
            owner=owner,
            names=names,
            callout_id=callout_id,
            layer=layer,
        )
    )
    transaction.recompile = True
    return callout_id


def add_provider_context(
    store: Store, transaction: Transaction, owner: object | None, record: ProviderContext
) -> int:
    table = transaction.tables.provider_contexts
    require_name(record.display_data)
    names = named_provider(transaction, record.provider_key, owner)
    order = store.next_order()
    key = store.key_or_generated(record.provider_context_key, order)
    require_new(table, key)
    record = replace(record, provider_context_key=key, data=_copied(record))
    table.put(Entry(key=key, record=record, order=order, owner=owner, names=names))
    return 0


def _copied(record: ProviderContext) -> object:
    """MGMT-17: what the caller does to the data afterwards must not reach a running filter."""
    if record.type != ProviderContextType.GENERAL_CONTEXT:
        return deepcopy(record.data)
    if not isinstance(record.data, bytes | bytearray | memoryview):
        raise TypeError(f"a general context carries bytes, not {type(record.data).__name__}")
    return bytes(record.data)


def delete(transaction: Transaction, table: Table[EntryT], key: UUID | None, missing: NtStatus) -> EntryT:
    """Removes an object nobody names (OBJ-5); built-in ones stay (OBJ-3)."""
    entry = table.get(key)
    if entry is None:
        raise FwpError(missing, f"no object {key}")
    if entry.builtin:
        raise FwpError(NtStatus.STATUS_FWP_BUILTIN_OBJECT, f"{key}")
    if transaction.tables.in_use(entry):
        raise FwpError(NtStatus.STATUS_FWP_IN_USE, f"{key} is named by another object")
    table.remove(entry)
    return entry


def delete_callout(transaction: Transaction, key: UUID | None) -> None:
    """MGMT-15: the management object only; the code stays registered."""
    delete(transaction, transaction.tables.callouts, key, NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND)
    transaction.recompile = True


def delete_filter(
    transaction: Transaction, entry: FilterEntry | None, busy: Callable[[FilterEntry], bool]
) -> None:
    """MGMT-13: not while a flow is being worked on for it."""
    if entry is None:
        raise FwpError(NtStatus.STATUS_FWP_FILTER_NOT_FOUND)
    if busy(entry) or entry.run_time.filter_id in transaction.tables.retiring:
        raise FwpError(NtStatus.STATUS_FWP_IN_USE, f"filter {entry.record.display_data.name!r} is busy")
    transaction.tables.filters.remove(entry)
    transaction.deleted.append(entry)
    transaction.recompile = True


def retire_filter(transaction: Transaction, entry: FilterEntry | None) -> None:
    """MGMT-16: as `delete_filter`, and what its callout is doing for running flows is finished first."""
    if entry is None:
        raise FwpError(NtStatus.STATUS_FWP_FILTER_NOT_FOUND)
    filter_id = entry.run_time.filter_id
    if filter_id in transaction.tables.retiring:
        return
    transaction.tables.filters.remove(entry)
    transaction.recompile = True
    if entry in transaction.added:
        transaction.deleted.append(entry)  # it was never in force
        return
    transaction.tables.retiring[filter_id] = entry
    transaction.retired.append(entry)
