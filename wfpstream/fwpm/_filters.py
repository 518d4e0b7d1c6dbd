"""FwpmFilterAdd: its checks, in the order of MGMT-4, and the run-time filter made of the record.

Owns nothing that lasts. Must not know sessions, beyond the owner an object dies with.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from wfpstream.fwp import ACTION_FLAG_CALLOUT, ActionType, FwpError, NtStatus, nt_success
from wfpstream.fwpm._adding import named, named_provider, require_flags, require_name, require_new
from wfpstream.fwpm._compile import run_time_flags
from wfpstream.fwpm._conditions import resolve_condition
from wfpstream.fwpm._keys import CONDITION_KEYS, SUBLAYER_UNIVERSAL, ZERO_KEY
from wfpstream.fwpm._layers import Layer, find_layer
from wfpstream.fwpm._objects import CalloutEntry, Entry, FilterEntry
from wfpstream.fwpm._store import Store
from wfpstream.fwpm._transaction import Transaction
from wfpstream.fwpm._types import CalloutFlags, Filter, FilterFlags, ProviderContext, ProviderContextType
from wfpstream.fwpm._weights import effective_weight, weight_is_legal
from wfpstream.fwps._conditions import Condition, compile_conditions, points_of
from wfpstream.fwps._constants import NotifyType
from wfpstream.fwps._filter import Filter2

# FWPM_ACTION0: what a filter may carry.
_ACTIONS: Final = frozenset(
    {
        ActionType.BLOCK,
        ActionType.PERMIT,
        ActionType.CALLOUT_TERMINATING,
        ActionType.CALLOUT_INSPECTION,
        ActionType.CALLOUT_UNKNOWN,
    }
)
_BLOCKING_CALLOUTS: Final = frozenset({ActionType.CALLOUT_TERMINATING, ActionType.CALLOUT_UNKNOWN})
_NAME_OF_CONDITION: Final = {key: name for name, key in CONDITION_KEYS.items()}
_BOOT_AND_PERSISTENT: Final = FilterFlags.BOOTTIME | FilterFlags.PERSISTENT
# MGMT-5: DISABLED is a state the engine reports, not one to add a filter in.
_FLAGS: Final = sum(FilterFlags) - FilterFlags.DISABLED


def add_filter(store: Store, transaction: Transaction, owner: object | None, record: Filter) -> int:
    """Adds the filter, its callout agreeing; returns the filterId."""
    tables = transaction.tables
    layer = find_layer(record.layer_key, store.run_time.profile)
    if layer is None:
        raise FwpError(NtStatus.STATUS_FWP_LAYER_NOT_FOUND, f"{record.layer_key}")
    sub_layer_key = SUBLAYER_UNIVERSAL if record.sub_layer_key == ZERO_KEY else record.sub_layer_key
    sub_layer = named(tables.sub_layers, sub_layer_key, NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND, owner)
    provider = named_provider(transaction, record.provider_key, owner)
    require_name(record.display_data)
    if record.action_type not in _ACTIONS:
        raise FwpError(NtStatus.STATUS_FWP_INVALID_ACTION_TYPE, f"{record.action_type:#x}")
    context = _provider_context(transaction, owner, record)
    callout = _callout(transaction, owner, record, layer)
    _check_flags(record)
    if not weight_is_legal(record.weight):
        raise FwpError(NtStatus.STATUS_FWP_INVALID_WEIGHT, f"{record.weight}")
    conditions = _conditions(store, layer, record)
    order = store.next_order()
    key = store.key_or_generated(record.filter_key, order)
    require_new(tables.filters, key)

    record = replace(record, filter_key=key, sub_layer_key=sub_layer_key, conditions=tuple(record.conditions))
    run_time = Filter2(
        filter_id=store.next_filter_id(key),
        filter_key=key,
        layer_id=int(layer.layer_id),
        weight=effective_weight(record.weight, conditions),
        sub_layer_key=sub_layer_key,
        sub_layer_weight=sub_layer.record.weight,
        flags=run_time_flags(record.flags),
        action_type=int(record.action_type),
        callout_id=0 if callout is None else callout.callout_id,
        callout_key=None if callout is None else callout.key,
        context=record.raw_context,
        provider_context=_object_for_callout(record, callout, context),
        matches=compile_conditions(conditions),
        points=points_of(conditions),
        name=record.display_data.name,
    )
    announced = _announce(store, run_time)
    named_entries: tuple[Entry[Any] | None, ...] = (sub_layer, *provider, context, callout)
    entry = FilterEntry(
        key=key,
        record=record,
        order=order,
        owner=owner,
        names=tuple(one for one in named_entries if one is not None),
        run_time=run_time,
        announced=announced,
        sub_layer_order=sub_layer.order,
    )
    tables.filters.put(entry)
    transaction.added.append(entry)
    transaction.recompile = True
    return run_time.filter_id


def _provider_context(
    transaction: Transaction, owner: object | None, record: Filter
) -> Entry[ProviderContext] | None:
    """MGMT-17: the flag decides whether the key counts. Every layer here takes general contexts only."""
    if not record.flags & FilterFlags.HAS_PROVIDER_CONTEXT:
        return None
    missing = NtStatus.STATUS_FWP_PROVIDER_CONTEXT_NOT_FOUND
    entry = named(transaction.tables.provider_contexts, record.provider_context_key, missing, owner)
    if entry.record.type != ProviderContextType.GENERAL_CONTEXT:
        raise FwpError(NtStatus.STATUS_FWP_CONTEXT_INCOMPATIBLE_WITH_LAYER, f"type {entry.record.type}")
    return entry


def _callout(
    transaction: Transaction, owner: object | None, record: Filter, layer: Layer
) -> CalloutEntry | None:
    if not record.action_type & ACTION_FLAG_CALLOUT:
        return None
    missing = NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND
    callout = named(transaction.tables.callouts, record.callout_key, missing, owner)
    if callout.layer is not layer:
        raise FwpError(
            NtStatus.STATUS_FWP_ACTION_INCOMPATIBLE_WITH_LAYER,
            f"the callout was added for {callout.layer.name}, the filter is at {layer.name}",
        )
    return callout


def _check_flags(record: Filter) -> None:
    """MGMT-5, REG-6."""
    require_flags(record.flags, _FLAGS)
    if record.flags & _BOOT_AND_PERSISTENT == _BOOT_AND_PERSISTENT:
        raise FwpError(NtStatus.STATUS_FWP_INVALID_FLAGS, "BOOTTIME and PERSISTENT exclude each other")
    permits = record.flags & FilterFlags.PERMIT_IF_CALLOUT_UNREGISTERED
    if permits and record.action_type not in _BLOCKING_CALLOUTS:
        raise FwpError(
            NtStatus.STATUS_FWP_INVALID_FLAGS,
            "PERMIT_IF_CALLOUT_UNREGISTERED needs CALLOUT_TERMINATING or CALLOUT_UNKNOWN",
        )


def _conditions(store: Store, layer: Layer, record: Filter) -> list[Condition]:
    resolved = []
    for condition in record.conditions:
        status, one = resolve_condition(layer, condition, store.run_time.profile)
        if one is None:
            field = _NAME_OF_CONDITION.get(condition.field_key, str(condition.field_key))
            if status is NtStatus.STATUS_FWP_CONDITION_NOT_FOUND and layer.is_stream:
                name = record.display_data.name
                store.run_time.report("V-55", f"filter {name!r}: {layer.name} does not offer {field}")
            raise FwpError(status, f"condition on {field} at {layer.name}")
        resolved.append(one)
    return resolved


def _object_for_callout(
    record: Filter, callout: CalloutEntry | None, context: Entry[ProviderContext] | None
) -> object | None:
    """MGMT-18: only a callout that was added as using provider contexts is given one."""
    if callout is None or not callout.record.flags & CalloutFlags.USES_PROVIDER_CONTEXT:
        return None
    if record.provider_object is not None:
        return record.provider_object
    return None if context is None else context.record


def _announce(store: Store, run_time: Filter2) -> bool:
    """NTF-1, NTF-2: a registered callout is asked; its refusal is the call's."""
    key = run_time.callout_key
    if key is None or not store.run_time.callout_registered(key):
        return False
    status = store.run_time.notify(key, NotifyType.ADD_FILTER, run_time.filter_key, run_time)
    if not nt_success(status):
        raise FwpError(NtStatus.STATUS_FWP_CALLOUT_NOTIFICATION_FAILED, f"notifyFn returned {status:#x}")
    return True
