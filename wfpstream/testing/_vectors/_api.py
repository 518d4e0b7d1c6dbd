"""What a vector's operations call beyond bytes and clones: lists, references, injection handles, contexts, states.

Owns the table of these by name. It must not know steps or expectations; a status is given back, not judged, and what
a call gives besides its status is compared here with what the operation says.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from wfpstream.fwp import NtStatus
from wfpstream.fwps import (
    LayerId,
    Mdl,
    NetBuffer,
    NetBufferList,
    PacketInjectionState,
    StreamData,
    ndis_get_data_buffer,
)

from ._callout import Call, InjectAs, ScriptedCallout
from ._operations import OPERATIONS, Operation
from ._scene import Pended, Scene
from ._text import DISCONNECT, decode_bytes, flag_bits

_SUCCESS = NtStatus.STATUS_SUCCESS


# -- lists -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Kept:
    """What a callout keeps of an indication: a private FWPS_STREAM_DATA0 over its lists."""

    stream_data: StreamData
    lists: list[NetBufferList]


def allocate(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsAllocateNetBufferAndNetBufferList0: `mdls`, the pieces of one NET_BUFFER, or `netBuffers`, a list of such."""
    net_buffers = operation.get("netBuffers") or [operation["mdls"]]
    first, *more = [[decode_bytes(piece) for piece in pieces] for pieces in net_buffers]
    length = sum(map(len, first))
    status, nbl = by.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, _mdls(first), 0, length)
    if nbl is not None:
        last = nbl.first_net_buffer
        for pieces in more:
            assert last is not None
            last.next = NetBuffer(_mdls(pieces), 0, sum(map(len, pieces)))
            last = last.next
        scene.labels[operation["as"]] = nbl
    return status


def _mdls(pieces: list[bytes]) -> Mdl | None:
    chain: Mdl | None = None
    for piece in reversed(pieces):
        chain = Mdl(piece, chain)
    return chain


def free(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsFreeNetBufferList0; it has no status of its own."""
    by.fwps.free_net_buffer_list(scene.labels[operation["list"]])
    return _SUCCESS


def keep(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """Copy the FWPS_STREAM_DATA0 of this call, not what it points to; at a connection layer the pointer to its list."""
    layer_data = _present(call).layer_data
    if isinstance(layer_data, NetBufferList):
        scene.labels[operation["as"]] = layer_data
        return _SUCCESS
    shown = layer_data.stream_data
    chain = shown.net_buffer_list_chain
    lists: list[NetBufferList] = []
    link = chain
    while link is not None:
        lists.append(link)
        link = link.next
    copy = StreamData(shown.flags, shown.data_offset, shown.data_length, chain)
    scene.labels[operation["as"]] = Kept(copy, lists)
    return _SUCCESS


def reference(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsReferenceNetBufferList0, for every list of what was kept."""
    for nbl in _lists(scene, operation):
        by.fwps.reference_net_buffer_list(nbl)
    return _SUCCESS


def dereference(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsDereferenceNetBufferList0, likewise."""
    for nbl in _lists(scene, operation):
        by.fwps.dereference_net_buffer_list(nbl)
    return _SUCCESS


def _lists(scene: Scene, operation: dict[str, Any]) -> list[NetBufferList]:
    kept = scene.labels[operation["of"]]
    return kept.lists if isinstance(kept, Kept) else [kept]


def clone(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsCloneStreamData0 of the indication, or `of` what was kept of one."""
    if "of" not in operation:
        return OPERATIONS["FwpsCloneStreamData0"](scene, by, call, operation)
    data = scene.labels[operation["of"]].stream_data
    status, chain = by.fwps.clone_stream_data(data)
    if chain is not None:
        scene.labels[operation["as"]] = Pended(chain, data.data_length, data.flags, by.name)
    return status


def copy_data(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsCopyStreamDataToBuffer0 of the whole indication; `copied`: what the buffer then holds."""
    data = _present(call).layer_data.stream_data
    buffer = bytearray(data.data_length)
    count = by.fwps.copy_stream_data_to_buffer(data, buffer, len(buffer))
    _compare(scene, operation, "copied", bytes(buffer[:count]))
    return _SUCCESS


def get_data_buffer(
    scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """NdisGetDataBuffer of `bytesNeeded` from the first NET_BUFFER; `found`: what it points to, null for NULL.

    `storage`: true gives it room of that size, and `stored` is what the room holds afterwards.
    """
    nbl = _present(call).layer_data.stream_data.net_buffer_list_chain
    needed = operation["bytesNeeded"]
    storage = bytearray(needed) if operation.get("storage") else None
    found = ndis_get_data_buffer(nbl.first_net_buffer, needed, storage)
    if found is None or operation["found"] is None:
        if found is not operation["found"]:
            scene.problem(f"NdisGetDataBuffer of {needed}: {found!r}, expected {operation['found']!r}")
        return _SUCCESS
    _compare(scene, operation, "found", bytes(found))
    if storage is not None:
        _compare(scene, operation, "stored", bytes(storage))
    return _SUCCESS


# -- injection ---------------------------------------------------------------------------------------------


def inject(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsStreamInjectAsync0 with every argument a vector may name.

    A list that an operation allocated (`list`, or several linked: `chain`) is freed in its completion; refused, it
    stays the vector's.
    """
    how = _inject_as(scene, operation)
    if "list" not in operation and "chain" not in operation:
        if how == InjectAs() and "length" not in operation:
            return OPERATIONS["FwpsStreamInjectAsync0"](scene, by, call, operation)
        return _inject_own(by, call, operation, how)
    lists = [scene.labels[label] for label in operation.get("chain", (operation.get("list"),))]
    for one, following in pairwise(lists):
        one.next = following
    length = operation.get("length", sum(nbl.data_length for nbl in lists))
    return by.inject_chain(_flags(call, operation), lists[0], length, by.fwps.free_net_buffer_list, how)


def _inject_own(by: ScriptedCallout, call: Call | None, operation: dict[str, Any], how: InjectAs) -> NtStatus:
    """Bytes of our own, or no list at all; refused, the list is freed here."""
    flags = _flags(call, operation)
    if operation.get("null"):
        return by.inject_chain(flags, None, 0, by.fwps.free_net_buffer_list, how)
    data = decode_bytes(operation["data"])
    status, nbl = by.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, data, 0, len(data))
    if nbl is None:
        return status
    status = by.inject_chain(
        flags, nbl, operation.get("length", len(data)), by.fwps.free_net_buffer_list, how
    )
    if status != _SUCCESS:
        by.fwps.free_net_buffer_list(nbl)
    return status


def _inject_as(scene: Scene, operation: dict[str, Any]) -> InjectAs:
    layer = operation.get("layer")
    return InjectAs(
        handle=_handle(scene, operation) if "handle" in operation else None,
        context=operation.get("injectionContext", 0),
        layer=int(LayerId[layer]) if layer is not None else None,
        completes=operation.get("completionFn", True),
    )


def _flags(call: Call | None, operation: dict[str, Any]) -> int:
    if "flags" in operation:
        return flag_bits(operation["flags"])
    return _present(call).flags & ~DISCONNECT  # INL-7


def create_handle(
    scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """FwpsInjectionHandleCreate0; the first of a managed callout is the one it injects with."""
    status, handle = scene.fwps.injection_handle_create()
    scene.labels[operation["as"]] = handle
    if not by.injection_handle:
        by.injection_handle = handle
    scene.undo.append(lambda: scene.fwps.injection_handle_destroy(handle))
    return status


def destroy_handle(
    scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """FwpsInjectionHandleDestroy0."""
    return scene.fwps.injection_handle_destroy(_handle(scene, operation))


def query_state(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """FwpsQueryPacketInjectionState0 of the first list; `state`, and `injectionContext` of an injected one."""
    nbl = _present(call).layer_data.stream_data.net_buffer_list_chain
    state, context = by.fwps.query_packet_injection_state(_handle(scene, operation), nbl)
    _compare(scene, operation, "state", PacketInjectionState(state).name)
    if "injectionContext" in operation:
        _compare(scene, operation, "injectionContext", context)
    return _SUCCESS


def _handle(scene: Scene, operation: dict[str, Any]) -> int:
    """A handle by its label; a callout's name stands for the handle that the callout has from the beginning."""
    label = operation["handle"]
    return int(scene.callouts[label].injection_handle if label in scene.callouts else scene.labels[label])


# -- flows and the engine ----------------------------------------------------------------------------------


def remove_context(
    scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]
) -> NtStatus:
    """FwpsFlowRemoveContext0, for the stream layer of the flow."""
    return scene.fwps.flow_remove_context(scene.flow_id, scene.layer, by.callout_id(scene.layer))


def note(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """Write a line of the vector's own into the transcript: what happened before it, what after."""
    scene.note("note", "", operation["text"])
    return _SUCCESS


def stop_engine(scene: Scene, by: ScriptedCallout, call: Call | None, operation: dict[str, Any]) -> NtStatus:
    """The network stack goes away (STATUS_FWP_TCPIP_NOT_READY from then on)."""
    scene.engine.stop()
    return _SUCCESS


API_OPERATIONS: dict[str, Operation] = {
    "FwpsAllocateNetBufferAndNetBufferList0": allocate,
    "FwpsFreeNetBufferList0": free,
    "FwpsReferenceNetBufferList0": reference,
    "FwpsDereferenceNetBufferList0": dereference,
    "FwpsCloneStreamData0": clone,
    "FwpsCopyStreamDataToBuffer0": copy_data,
    "NdisGetDataBuffer": get_data_buffer,
    "FwpsStreamInjectAsync0": inject,
    "FwpsInjectionHandleCreate0": create_handle,
    "FwpsInjectionHandleDestroy0": destroy_handle,
    "FwpsQueryPacketInjectionState0": query_state,
    "FwpsFlowRemoveContext0": remove_context,
    "Keep": keep,
    "Note": note,
    "StopEngine": stop_engine,
}


def _present(call: Call | None) -> Call:
    if call is None:
        raise ValueError("this operation is one of a call")
    return call


def _compare(scene: Scene, operation: dict[str, Any], member: str, found: Any) -> None:
    wanted = operation[member]
    if isinstance(found, bytes):
        wanted = decode_bytes(wanted)
    if found != wanted:
        scene.problem(f"{operation['op']}: {member} is {found!r}, expected {wanted!r}")
