"""What a vector's operations call at registration and management: the Fwpm functions, and FwpsCalloutRegister1.

Owns the table of these by name, and the way back: whatever was added is taken away at the end of a case, newest
first. It must not know steps or expectations.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

from wfpstream import fwpm
from wfpstream.fwp import (
    EMPTY,
    ActionType,
    CalloutFlags,
    DataType,
    FwpValue,
    MatchType,
    NtStatus,
    V4AddrMask,
    uint64,
)
from wfpstream.fwps import Callout1, LayerId

from ._callout import Call, ScriptedCallout
from ._keys import key_of
from ._operations import Operation
from ._scene import Scene

_SUCCESS = NtStatus.STATUS_SUCCESS


def _flags(kind: Any, operation: dict[str, Any]) -> int:
    bits = 0
    for name in operation.get("flags", ()):
        bits |= int(kind[name])
    return bits


# -- registration ------------------------------------------------------------------------------------------


def register(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsCalloutRegister1 of a managed callout, under the key of its name; `flowDeleteFn`: false leaves it NULL."""
    flow_delete = by.flow_delete_fn if operation.get("flowDeleteFn", True) else None
    bits = 0
    for name in by.spec.get("flags", ()):
        bits |= int(CalloutFlags[name])
    structure = Callout1(key_of(by.name), bits, by.classify_fn, by.notify_fn, flow_delete)
    status, callout_id = scene.fwps.callout_register1(None, structure)
    if status == _SUCCESS:
        by.registered_as(scene.fwps, callout_id)
        scene.undo.append(lambda: scene.fwps.callout_unregister_by_id(callout_id))
    return status


def unregister_by_id(
    scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """FwpsCalloutUnregisterById0."""
    return scene.fwps.callout_unregister_by_id(by.callout_id(int(LayerId.STREAM_V4)))


def unregister_by_key(
    scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """FwpsCalloutUnregisterByKey0."""
    return scene.fwps.callout_unregister_by_key(key_of(by.name))


# -- sessions and transactions -----------------------------------------------------------------------------


def engine_open(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpmEngineOpen0; `flags`: of the session, such as DYNAMIC."""
    status, session = scene.engine.management.engine_open(_flags(fwpm.SessionFlags, operation))
    if session is not None:
        scene.labels[operation["as"]] = session
        scene.undo.append(lambda: session.engine_close() if session.is_open else _SUCCESS)
    return status


def session_of(scene: Scene, operation: dict[str, Any]) -> fwpm.Session:
    """The session an operation names; without a name the one that is always open."""
    label = operation.get("session")
    session: fwpm.Session = scene.engine.session if label is None else scene.labels[label]
    return session


def _of_session(call_it: Callable[[fwpm.Session], NtStatus]) -> Operation:
    """An operation without arguments of its own."""

    def operate(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
        return call_it(session_of(scene, operation))

    return operate


# -- objects -----------------------------------------------------------------------------------------------


def sub_layer_add(
    scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """FwpmSubLayerAdd0."""
    session, key = session_of(scene, operation), key_of(operation["key"])
    layer = fwpm.SubLayer(
        sub_layer_key=key, display_data=fwpm.DisplayData(operation["key"]), weight=operation["weight"]
    )
    return _added(scene, session, session.sub_layer_add(layer), lambda: session.sub_layer_delete_by_key(key))


def callout_add(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpmCalloutAdd0."""
    session, key = session_of(scene, operation), key_of(operation["key"])
    status, _ = session.callout_add(
        fwpm.Callout(
            callout_key=key,
            display_data=fwpm.DisplayData(operation["key"]),
            applicable_layer=_layer_key(operation),
            flags=_flags(fwpm.CalloutFlags, operation),
        )
    )
    return _added(scene, session, status, lambda: session.callout_delete_by_key(key))


def provider_context_add(
    scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """FwpmProviderContextAdd0."""
    session, key = session_of(scene, operation), key_of(operation["key"])
    context = fwpm.ProviderContext(
        provider_context_key=key,
        display_data=fwpm.DisplayData(operation["key"]),
        data=operation["data"].encode("latin-1"),
    )
    status = session.provider_context_add(context)
    return _added(scene, session, status, lambda: session.provider_context_delete_by_key(key))


def filter_add(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpmFilterAdd0; `options`: what our engine hands to the callout as provider context (MGMT-18)."""
    session = session_of(scene, operation)
    callout, context = operation.get("callout"), operation.get("providerContext")
    status, filter_id = session.filter_add(
        fwpm.Filter(
            filter_key=key_of(operation["key"]),
            display_data=fwpm.DisplayData(operation["key"]),
            layer_key=_layer_key(operation),
            sub_layer_key=key_of(operation["subLayer"]),
            weight=uint64(operation["weight"]) if "weight" in operation else EMPTY,
            flags=_flags(fwpm.FilterFlags, operation),
            action_type=ActionType[operation["action"]],
            callout_key=None if callout is None else key_of(callout),
            conditions=tuple(map(_condition, operation.get("conditions", ()))),
            provider_context_key=None if context is None else key_of(context),
            provider_object=operation.get("options"),
        )
    )
    return _added(scene, session, status, lambda: session.filter_delete_by_id(filter_id))


def filter_state(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpmFilterGetByKey0; `retiring`: whether it has left force and drains (MGMT-16)."""
    status, found = session_of(scene, operation).filter_get_by_key(key_of(operation["key"]))
    if found is not None and found.retiring != operation.get("retiring", False):
        scene.problem(f"filter {operation['key']}: retiring is {found.retiring}")
    return status


def _by_key(method: str) -> Operation:
    """A call of a session whose one argument is a key."""

    def operate(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
        status: NtStatus = getattr(session_of(scene, operation), method)(key_of(operation["key"]))
        return status

    return operate


def filter_delete_by_id(
    scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """FwpmFilterDeleteById0 of the filter with that key; STATUS_FWP_FILTER_NOT_FOUND: there is none."""
    session = session_of(scene, operation)
    status, found = session.filter_get_by_key(key_of(operation["key"]))
    return status if found is None else session.filter_delete_by_id(found.filter_id)


def _added(scene: Scene, session: fwpm.Session, status: NtStatus, delete: Callable[[], NtStatus]) -> NtStatus:
    if status == _SUCCESS:
        scene.undo.append(lambda: delete() if session.is_open else _SUCCESS)
    return status


def _layer_key(operation: dict[str, Any]) -> Any:
    return fwpm.layer_key_of(LayerId[operation.get("layer", "STREAM_V4")])


def _condition(spec: dict[str, Any]) -> fwpm.FilterCondition:
    kind, value = DataType[spec["type"]], spec["value"]
    if kind == DataType.V4_ADDR_MASK:
        value = V4AddrMask(*(int(IPv4Address(text)) for text in value))
    field_key = getattr(fwpm, f"CONDITION_{spec['field']}")
    return fwpm.FilterCondition(field_key, MatchType[spec.get("match", "EQUAL")], FwpValue(kind, value))


MANAGEMENT_OPERATIONS: dict[str, Operation] = {
    "FwpsCalloutRegister1": register,
    "FwpsCalloutUnregisterById0": unregister_by_id,
    "FwpsCalloutUnregisterByKey0": unregister_by_key,
    "FwpmEngineOpen0": engine_open,
    "FwpmEngineClose0": _of_session(lambda session: session.engine_close()),
    "FwpmTransactionBegin0": _of_session(lambda session: session.transaction_begin()),
    "FwpmTransactionCommit0": _of_session(lambda session: session.transaction_commit()),
    "FwpmTransactionAbort0": _of_session(lambda session: session.transaction_abort()),
    "FwpmSubLayerAdd0": sub_layer_add,
    "FwpmSubLayerDeleteByKey0": _by_key("sub_layer_delete_by_key"),
    "FwpmCalloutAdd0": callout_add,
    "FwpmProviderContextAdd0": provider_context_add,
    "FwpmProviderContextDeleteByKey0": _by_key("provider_context_delete_by_key"),
    "FwpmFilterAdd0": filter_add,
    "FwpmFilterGetByKey0": filter_state,
    "FwpmFilterDeleteById0": filter_delete_by_id,
    "FwpmFilterDeleteByKey0": _by_key("filter_delete_by_key"),
    "RetireFilter": _by_key("filter_retire_by_key"),
}
