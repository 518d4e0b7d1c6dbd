"""Scripted callouts of the connection layers, and the operations that belong there: pending and redirecting.

Owns their notation, `K(AUTH_CONNECT 80 REAUTHORIZE)`, their answers and the table of operations. It must not know
steps or expectations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from wfpstream.fwp import ActionType, ConditionFlags, NtStatus
from wfpstream.fwpm import ZERO_KEY
from wfpstream.fwps import (
    CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS,
    RIGHT_ACTION_WRITE,
    ClassifyOut,
    ClassifyOutFlags,
    ConnectionRedirectState,
    ConnectRequest,
    FieldsAleAuthConnect,
    FieldsAleAuthRecvAccept,
    FieldsAleConnectRedirect,
    FieldsAleFlowEstablished,
    IncomingMetadataValues,
    IncomingValues,
    MetadataField,
)

from ._callout import Call, Scripted
from ._fields import fixed_values, plain_address
from ._operations import Operation
from ._scene import Scene

_SUCCESS = NtStatus.STATUS_SUCCESS
_FIELDS: dict[str, type[IntEnum]] = {
    "ale_auth_connect": FieldsAleAuthConnect,
    "ale_auth_recv_accept": FieldsAleAuthRecvAccept,
    "ale_connect_redirect": FieldsAleConnectRedirect,
    "ale_flow_established": FieldsAleFlowEstablished,
}
_ACTIONS = {"P": ActionType.PERMIT, "B": ActionType.BLOCK, "C": ActionType.CONTINUE}
_APPLY_FLAGS = {"REAUTHORIZE_IF_MODIFIED_BY_OTHERS": CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS}


class LayerCallout(Scripted):
    """A callout of a connection layer."""

    def classify_fn(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        call = Call(
            in_fixed_values, in_meta_values, layer_data, classify_context, filter, flow_context, classify_out
        )
        layer = self.layers[0]
        values = fixed_values(_FIELDS[layer], in_fixed_values)
        self.scene.filters[filter.filter_id] = self.name
        self.scene.note("call", self.name, _call_text(self.name, layer, values), self._sees(call, values))
        entry = self.next_entry("call")
        self.perform(call, entry.get("do", ()))
        write_answer(entry.get("answer", "P"), classify_out)

    def _sees(self, call: Call, values: dict[str, Any]) -> dict[str, Any]:
        sees = values | {
            "writeRight": bool(call.out.rights & RIGHT_ACTION_WRITE),
            "upstreamAddress": plain_address(call.meta.upstream_address),
        }
        if call.meta.current_metadata_values & MetadataField.ORIGINAL_DESTINATION:
            sees["originalDestination"] = plain_address(call.meta.original_destination)
        if isinstance(call.layer_data, ConnectRequest):
            sees["versions"] = list(_versions(self.scene, call.layer_data))
        return sees


def _call_text(name: str, layer: str, values: dict[str, Any]) -> str:
    words = [layer.removeprefix("ale_").upper()]
    if layer != "ale_flow_established":
        flags = values["FLAGS"]
        words.append(str(values["IP_REMOTE_PORT"]))
        words += ["REAUTHORIZE"] if flags & ConditionFlags.IS_REAUTHORIZE else []
        words += ["REDIRECTED"] if flags & ConditionFlags.IS_CONNECTION_REDIRECTED else []
    return f"{name}({' '.join(words)})"


def _versions(scene: Scene, request: ConnectRequest | None) -> list[dict[str, Any]]:
    """The versions of a connect request, newest first: where to, and whose callout made it."""
    found: list[dict[str, Any]] = []
    while request is not None:
        modifier = scene.filters.get(request.modifier_filter_id)
        found.append({"remote": plain_address(request.remote_address_and_port), "by": modifier})
        request = request.previous_version
    return found


def write_answer(text: str, out: ClassifyOut) -> None:
    """`P`, `B` or `C`, with ABSORB and WRITE (which gives the write right back). ValueError: none of these."""
    action, *words = [word for word in text.split() if word != "0"]
    if action not in _ACTIONS or not set(words) <= {"ABSORB", "WRITE"}:
        raise ValueError(f"no answer of a connection layer: {text!r}")
    out.action_type = _ACTIONS[action]
    if "ABSORB" in words:
        out.flags |= ClassifyOutFlags.ABSORB
    if "WRITE" in words:
        out.rights |= RIGHT_ACTION_WRITE


# -- pending an authorisation --------------------------------------------------------------------------------


def pend_operation(scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsPendOperation0 with the completion handle of the call, or `completionHandle`."""
    handle = operation.get("completionHandle") or _present(call).meta.completion_handle
    status, context = by.fwps.pend_operation(handle)
    if status == _SUCCESS:
        scene.labels[operation["as"]] = context
    return status


def complete_operation(scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsCompleteOperation0; `list`: label of the list that was kept, none for NULL."""
    label = operation.get("list")
    by.fwps.complete_operation(
        scene.labels[operation["context"]], None if label is None else scene.labels[label]
    )
    return _SUCCESS


# -- redirecting -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _ClassifyHandle:
    """A classify handle, the filter it was acquired for, and the answer of a worker."""

    handle: int
    filter_id: int
    out: ClassifyOut = field(default_factory=ClassifyOut)


def redirect_handle_create(
    scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """FwpsRedirectHandleCreate0; it is destroyed at the end of the case, if it still lives."""
    status, handle = scene.fwps.redirect_handle_create(ZERO_KEY, 0)
    scene.labels[operation["as"]] = handle
    scene.undo.append(lambda: scene.fwps.redirect_handle_destroy(handle))
    return status


def query_redirect_state(
    scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """FwpsQueryConnectionRedirectState0 of the call's records; `state`: what it says."""
    records = _present(call).meta.redirect_records
    state, _ = by.fwps.query_connection_redirect_state(records, scene.labels[operation["redirectHandle"]])
    _expect(scene, operation, "state", ConnectionRedirectState(state).name)
    return _SUCCESS


def acquire_handle(scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsAcquireClassifyHandle0."""
    present = _present(call)
    status, handle = by.fwps.acquire_classify_handle(present.classify_context, 0)
    scene.labels[operation["as"]] = _ClassifyHandle(handle, present.filter.filter_id)
    return status


def release_handle(scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsReleaseClassifyHandle0."""
    by.fwps.release_classify_handle(scene.labels[operation["classifyHandle"]].handle)
    return _SUCCESS


def acquire_data(scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsAcquireWritableLayerDataPointer0; `previous`: the versions under the copy, newest first.

    It must leave BLOCK without the write right in the answer (LAY-24).
    """
    handle = scene.labels[operation["classifyHandle"]]
    out = handle.out if call is None else call.out
    status, request = by.fwps.acquire_writable_layer_data_pointer(handle.handle, handle.filter_id, 0, out)
    if request is not None:
        scene.labels[operation["as"]] = request
        if out.action_type != ActionType.BLOCK or out.rights & RIGHT_ACTION_WRITE:
            scene.problem(f"{operation['op']}: the answer is not BLOCK without the write right")
        if "previous" in operation:
            _expect(scene, operation, "previous", _versions(scene, request.previous_version))
    return status


def write_request(scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """Write members of the copy: `remote`, `local`, `redirectHandle`, `targetPid`."""
    request: ConnectRequest = scene.labels[operation["request"]]
    if "remote" in operation:
        request.remote_address_and_port = _pair(operation["remote"])
    if "local" in operation:
        request.local_address_and_port = _pair(operation["local"])
    if "redirectHandle" in operation:
        request.local_redirect_handle = scene.labels[operation["redirectHandle"]]
    if "targetPid" in operation:
        request.local_redirect_target_pid = operation["targetPid"]
    return _SUCCESS


def apply_data(scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsApplyModifiedLayerData0."""
    handle = scene.labels[operation["classifyHandle"]].handle
    flags = sum(_APPLY_FLAGS[name] for name in operation.get("flags", ()))
    by.fwps.apply_modified_layer_data(handle, scene.labels[operation["request"]], flags)
    return _SUCCESS


def pend_classify(scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsPendClassify0."""
    handle = scene.labels[operation["classifyHandle"]]
    return by.fwps.pend_classify(handle.handle, handle.filter_id, 0, _present(call).out)


def complete_classify(scene: Scene, by: Scripted, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsCompleteClassify0 with `answer`."""
    handle = scene.labels[operation["classifyHandle"]]
    write_answer(operation["answer"], handle.out)
    by.fwps.complete_classify(handle.handle, 0, handle.out)
    return _SUCCESS


LAYER_OPERATIONS: dict[str, Operation] = {
    "FwpsPendOperation0": pend_operation,
    "FwpsCompleteOperation0": complete_operation,
    "FwpsRedirectHandleCreate0": redirect_handle_create,
    "FwpsQueryConnectionRedirectState0": query_redirect_state,
    "FwpsAcquireClassifyHandle0": acquire_handle,
    "FwpsReleaseClassifyHandle0": release_handle,
    "FwpsAcquireWritableLayerDataPointer0": acquire_data,
    "Write": write_request,
    "FwpsApplyModifiedLayerData0": apply_data,
    "FwpsPendClassify0": pend_classify,
    "FwpsCompleteClassify0": complete_classify,
}


def _present(call: Call | None) -> Call:
    if call is None:
        raise ValueError("this operation is one of a call")
    return call


def _pair(address: list[Any]) -> tuple[str, int]:
    host, port = address
    return host, port


def _expect(scene: Scene, operation: dict[str, Any], member: str, found: Any) -> None:
    if found != operation[member]:
        scene.problem(f"{operation['op']}: {member} is {found!r}, expected {operation[member]!r}")
