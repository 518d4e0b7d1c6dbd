"""What a vector's operations call: the Fwps functions of injection, cloning, deferring, aborting and contexts.

Owns the table of these by name. It must not know steps or expectations; a status is given back, not judged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wfpstream.fwp import NtStatus

from ._callout import Call, ScriptedCallout
from ._scene import Pended, Scene
from ._text import DISCONNECT, decode_bytes, flag_bits

Operation = Callable[[Scene, ScriptedCallout, "Call | None", dict[str, Any]], NtStatus]
"""Calls one function for a callout, inside the classify `call` or outside (None); returns its status."""

_SUCCESS = NtStatus.STATUS_SUCCESS


def inject(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsStreamInjectAsync0 of bytes of our own, of a clone, or without a buffer. ValueError: none of these."""
    flags = flag_bits(operation["flags"]) if "flags" in operation else None
    if "data" in operation:
        if flags is None:
            flags = _indicated(call) & ~DISCONNECT  # INL-7
        return by.inject_bytes(flags, decode_bytes(operation["data"]))
    if operation.get("null"):
        own = _indicated(call) if flags is None else flags
        return by.inject_chain(own, None, 0, by.fwps.free_net_buffer_list)
    if "clone" not in operation:
        raise ValueError("an injection needs data, clone or null")
    status = _SUCCESS
    for pended in scene.take_clones(operation["clone"], by.name):
        own = pended.flags if flags is None else flags
        status = by.inject_chain(own, pended.chain, pended.length, by.fwps.free_clone_net_buffer_list)
        if status != _SUCCESS:
            by.fwps.discard_cloned_stream_data(pended.chain)
            break
    return status


def clone(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsCloneStreamData0 of the whole indication."""
    if call is None:
        raise ValueError("only an indication can be cloned")
    status, chain = by.fwps.clone_stream_data(call.layer_data.stream_data)
    if chain is not None:
        pended = Pended(chain, len(call.data), call.flags, by.name)
        if "as" in operation:
            scene.labels[operation["as"]] = pended
        else:
            scene.unlabelled.append(pended)
    return status


def discard(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsDiscardClonedStreamData0; it has no status of its own."""
    for pended in scene.take_clones(operation["clone"], by.name):
        by.fwps.discard_cloned_stream_data(pended.chain)
    return _SUCCESS


def resume(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsStreamContinue0, by default with the flags of the call that deferred (V-15)."""
    flags = (
        flag_bits(operation["flags"]) if "flags" in operation else by.deferred_flags or flag_bits(["RECEIVE"])
    )
    return by.fwps.stream_continue(scene.flow_id, by.callout_id(scene.layer), scene.layer, flags)


def abort(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsFlowAbort0."""
    return by.fwps.flow_abort(operation.get("flow", scene.flow_id))


def associate(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsFlowAssociateContext0, for the stream layer of the flow."""
    return by.fwps.flow_associate_context(
        scene.flow_id, scene.layer, by.callout_id(scene.layer), operation["context"]
    )


OPERATIONS: dict[str, Operation] = {
    "FwpsStreamInjectAsync0": inject,
    "FwpsCloneStreamData0": clone,
    "FwpsDiscardClonedStreamData0": discard,
    "FwpsStreamContinue0": resume,
    "FwpsFlowAbort0": abort,
    "FwpsFlowAssociateContext0": associate,
}


def _indicated(call: Call | None) -> int:
    if call is None:
        raise ValueError("outside a call an injection needs flags")
    return call.flags
