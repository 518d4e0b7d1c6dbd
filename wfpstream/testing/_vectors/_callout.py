"""The callout that plays a conformance case: it answers by script and writes down what it lives through.

Owns classify, completion and flowDelete of a scripted stream callout, and the helper at FLOW_ESTABLISHED that learns
the flow handle. What an operation does comes in as a function; what is expected is `_run`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import (
    Callout,
    ClassifyOut,
    FieldsStream,
    IncomingFlag,
    IncomingMetadataValues,
    IncomingValues,
    LayerId,
    NetBufferList,
    NotifyType,
    RunTime,
    StreamCalloutIoPacket,
    StreamFlags,
)

from ._editors import Editor, make_editor
from ._fields import fixed_values, plain_address
from ._keys import name_of
from ._scene import Scene
from ._text import Answer, call_text, completion_text, flag_names, parse_answer

_STREAM_LAYERS = {
    int(LayerId.ALE_FLOW_ESTABLISHED_V4): int(LayerId.STREAM_V4),
    int(LayerId.ALE_FLOW_ESTABLISHED_V6): int(LayerId.STREAM_V6),
}


@dataclass(frozen=True, slots=True)
class Call:
    """One classify call: what was shown, and where the answer goes.

    Attributes:
        flags: of the indicated FWPS_STREAM_DATA0.
        data: a copy of the indicated bytes.
        layer_data: FWPS_STREAM_CALLOUT_IO_PACKET0; at other layers what that layer has.
    """

    fixed: IncomingValues
    meta: IncomingMetadataValues
    layer_data: Any
    classify_context: Any
    filter: Any
    flow_context: int
    out: ClassifyOut
    flags: int = 0
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class InjectAs:
    """The arguments of FwpsStreamInjectAsync0 that are seldom others than a callout's own.

    Attributes:
        handle: injection handle; None: the callout's.
        context: injectionContext.
        layer: layerId; None: the flow's stream layer.
        completes: False: completionFn is NULL.
    """

    handle: int | None = None
    context: int = 0
    layer: int | None = None
    completes: bool = True


class Scripted(Callout):
    """What the scripted callouts of all layers share: entries in the order of the script, by kind."""

    def __init__(self, scene: Scene, spec: dict[str, Any]) -> None:
        super().__init__()
        self.name = spec["name"]
        self.layers = (spec.get("layer", "stream"),)  # type: ignore[misc]  # one class serves every layer
        self.version = spec.get("version", 1)
        self.filter_action = spec.get("filter", "CALLOUT_UNKNOWN").lower()
        self.scene = scene
        self.spec = spec
        self._entries: dict[str, deque[dict[str, Any]]] = {}
        self._default = spec.get("default", {"answer": "P 0"})

    def script(self, kind: str, entry: dict[str, Any]) -> None:
        """One more entry that this callout will come to."""
        self._entries.setdefault(kind, deque()).append(entry)

    def next_entry(self, kind: str) -> dict[str, Any]:
        """The entry of a call, completion ... that happens now."""
        entries = self._entries.get(kind)
        if entries:
            return entries.popleft()
        return self._default if kind == "call" else {}

    def perform(self, call: Call | None, operations: Iterable[dict[str, Any]]) -> None:
        """Call operations; what goes wrong in our own code is a fault of the case, not V-40."""
        self.scene.perform(self, call, operations)

    def registered_as(self, run_time: RunTime, callout_id: int) -> None:
        """An operation registered it, for the stream layers."""
        self.fwps = run_time
        self._ids = dict.fromkeys(_STREAM_LAYERS.values(), callout_id)

    def notify_fn(self, notify_type: int, filter_key: UUID | None, filter: Any) -> int:
        if not self.spec.get("notifications") or notify_type not in tuple(NotifyType):
            return NtStatus.STATUS_SUCCESS  # NTF-8: unknown types too
        sees = {"filterKey": name_of(filter_key), "providerContext": _provider_context(filter)}
        self.scene.note("notify", self.name, NotifyType(notify_type).name, sees)
        entry = self.next_entry("notify")
        self.perform(None, entry.get("do", ()))
        return NtStatus[entry.get("returns", "STATUS_SUCCESS")]


class ScriptedCallout(Scripted):
    """A callout of the stream layer."""

    def __init__(self, scene: Scene, spec: dict[str, Any]) -> None:
        super().__init__(scene, spec)
        self.deferred_flags = 0
        self._injections: dict[int, tuple[int, Callable[[NetBufferList], object]]] = {}
        self._editor: Editor | None = make_editor(spec["edit"]) if "edit" in spec else None

    # -- callbacks -------------------------------------------------------------------------------------

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
        stream_data = layer_data.stream_data
        call = Call(
            in_fixed_values, in_meta_values, layer_data, classify_context, filter, flow_context, classify_out,
            int(stream_data.flags), stream_data.tobytes(),
        )  # fmt: skip
        self._note(call)
        flow = in_meta_values.flow_handle
        if flow in self.scene.classifying:  # IND-10
            self.scene.faults.append(f"{self.name}: called while another classify of the flow runs")
        self.scene.classifying.add(flow)
        try:
            self._answer(call)
        finally:
            self.scene.classifying.discard(flow)

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        self.scene.note("flowDelete", self.name, "flowDelete", {"context": flow_context})
        if callout_id != self.callout_id(layer_id):
            self.scene.problem(f"{self.name}: flowDelete for callout {callout_id} at layer {layer_id}")
        self.perform(None, self.next_entry("flowDelete").get("do", ()))

    def _note(self, call: Call) -> None:
        packet: StreamCalloutIoPacket = call.layer_data
        text = call_text(self.name, call.flags, call.data, packet.missed_bytes, int(call.out.flags))
        self.scene.note("call", self.name, text, sees_of(call))

    def _answer(self, call: Call) -> None:
        entry = self.next_entry("call")
        if self._editor is None:
            self.perform(call, entry.get("do", ()))
            write_answer(parse_answer(entry.get("answer", "P 0")), call)
        else:
            injected, answer = self._editor.decide(call.flags, call.data, int(call.out.flags))
            for data in injected:
                self.inject_bytes(call.flags & ~_DISCONNECT, data)
            write_answer(answer, call)
        if call.layer_data.stream_action:
            self.deferred_flags = call.flags

    # -- what operations use ---------------------------------------------------------------------------

    def inject_bytes(self, flags: int, data: bytes) -> NtStatus:
        """Inject bytes of our own (ALO-1); they are freed in the completion, or here if refused."""
        status, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, data, 0, len(data))
        if nbl is None:
            return status
        status = self.inject_chain(flags, nbl, len(data), self.fwps.free_net_buffer_list)
        if status != NtStatus.STATUS_SUCCESS:
            self.fwps.free_net_buffer_list(nbl)
        return status

    def inject_chain(
        self,
        flags: int,
        chain: NetBufferList | None,
        length: int,
        free: Callable[[NetBufferList], object],
        how: InjectAs = InjectAs(),
    ) -> NtStatus:
        """The bare call; `free` ends each NBL in its completion. A refused chain stays the caller's."""
        handle = self.injection_handle if how.handle is None else how.handle
        layer = self.scene.layer if how.layer is None else how.layer
        context = len(self._injections) + 1
        self._injections[context] = (flags, free)
        due, link = 0, chain
        while link is not None:
            due, link = due + 1, link.next
        self.scene.open_injections[self.name, context] = due
        status = self.fwps.stream_inject_async(
            handle, how.context, 0, self.scene.flow_id, self.callout_id(self.scene.layer),
            layer, flags, chain, length, self._complete if how.completes else None, context,
        )  # fmt: skip
        if status != NtStatus.STATUS_SUCCESS:
            del self.scene.open_injections[self.name, context]
        return status

    def _complete(self, context: int, nbl: NetBufferList, dispatch_level: bool) -> None:
        scene = self.scene
        flags, free = self._injections[context]
        data = nbl.tobytes()
        scene.note("completion", self.name, completion_text(flags, data, nbl.status))
        if nbl.next is not None:
            scene.faults.append(f"{self.name}: completion of an NBL that is still linked")
        left = scene.open_injections.get((self.name, context), 0)
        scene.open_injections[self.name, context] = left - 1
        if left < 1:
            scene.faults.append(f"{self.name}: a completion too many")
        free(nbl)
        self.perform(None, self.next_entry("completion").get("do", ()))


class ScriptedCallout0(ScriptedCallout):
    """The same of structure version 0: its classifyFn has no classifyContext (CFN-11)."""

    def classify_fn(  # type: ignore[override]
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        filter: Any,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        super().classify_fn(
            in_fixed_values, in_meta_values, layer_data, None, filter, flow_context, classify_out
        )


class FlowScout(Callout):
    """At FLOW_ESTABLISHED: learns the flow handle, and associates the contexts that the vector asks for."""

    layers = ("ale_flow_established",)
    filter_action = "callout_inspection"

    def __init__(self, scene: Scene, callouts: Iterable[Scripted]) -> None:
        super().__init__()
        self.name = "scout"
        self._scene = scene
        self._callouts = list(callouts)

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
        scene = self._scene
        scene.flow_id = in_meta_values.flow_handle
        scene.layer = _STREAM_LAYERS[in_fixed_values.layer_id]
        classify_out.action_type = int(ActionType.CONTINUE)
        for callout in self._callouts:
            context = callout.spec.get("context", 0)
            if context and callout.layers == ("stream",):
                status = self.fwps.flow_associate_context(
                    scene.flow_id, scene.layer, callout.callout_id(scene.layer), context
                )
                scene.compare_status(f"context of {callout.name}", status, "STATUS_SUCCESS")


_DISCONNECT = int(StreamFlags.SEND_DISCONNECT | StreamFlags.RECEIVE_DISCONNECT)


def write_answer(answer: Answer, call: Call) -> None:
    """Write the members that an answer has."""
    packet = call.layer_data
    if answer.action is not None:
        call.out.action_type = answer.action
    if answer.stream_action is not None:
        packet.stream_action = answer.stream_action
    if answer.enforced:
        packet.count_bytes_enforced = answer.enforced
    if answer.required:
        packet.count_bytes_required = answer.required


def sees_of(call: Call) -> dict[str, Any]:
    """The members of a stream classify on entry, under WFP's names."""
    packet, out = call.layer_data, call.out
    return {
        "streamFlags": flag_names(call.flags),
        "rights": out.rights,
        "actionType": out.action_type,
        "streamAction": packet.stream_action,
        "countBytesRequired": packet.count_bytes_required,
        "countBytesEnforced": packet.count_bytes_enforced,
        "missedBytes": packet.missed_bytes,
        "streamDataOffset": packet.stream_data.data_offset.stream_data_offset,
        "direction": call.fixed.incoming_value[FieldsStream.DIRECTION].value,
        "flowContext": call.flow_context,
        "metadataFlags": call.meta.flags,
        "midStream": bool(call.meta.flags & IncomingFlag.MID_STREAM_INSPECTION),
        "data": call.data,
        "layer": LayerId(call.fixed.layer_id).name,
        "upstreamAddress": plain_address(call.meta.upstream_address),
        "providerContext": _provider_context(call.filter),
        "mdlByteCounts": _mdl_byte_counts(packet.stream_data.net_buffer_list_chain),
        **fixed_values(FieldsStream, call.fixed),
    }


def _mdl_byte_counts(nbl: NetBufferList | None) -> list[list[int]]:
    """For each NET_BUFFER of a chain of lists, the lengths of its MDLs."""
    counts: list[list[int]] = []
    while nbl is not None:
        for net_buffer in nbl.net_buffers():
            counts.append([])
            mdl = net_buffer.mdl_chain
            while mdl is not None:
                counts[-1].append(mdl.byte_count)
                mdl = mdl.next
        nbl = nbl.next
    return counts


def _provider_context(filter: Any) -> Any:
    """What a filter brings: options as they are, a provider context by its data."""
    context = filter.provider_context
    return context.data.decode("latin-1") if isinstance(getattr(context, "data", None), bytes) else context
