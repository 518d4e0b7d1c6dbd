"""The frame of the stream edit sample: which flows are edited, their contexts, and its unload.

Owns the flow contexts from FLOW_ESTABLISHED to flowDeleteFn, reference counted (CMP-13). What is done with a
stream is `inline_edit` and `oob_edit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tests.ports.sample_driver import (
    CONDITIONAL_ON_FLOW,
    STREAM_OF_FLOW_ESTABLISHED,
    Machine,
    SampleDriver,
    Unloading,
)
from wfpstream.fwp import ActionType, MatchType, NtStatus, uint16
from wfpstream.fwpm import CONDITION_IP_LOCAL_PORT, FilterCondition
from wfpstream.fwps import (
    ClassifyOut,
    Filter1,
    IncomingMetadataValues,
    IncomingValues,
    LayerId,
    Mdl,
    MetadataField,
    NetBufferList,
    StreamActionType,
    StreamCalloutIoPacket,
    StreamFlags,
)

DISCONNECT = int(StreamFlags.SEND_DISCONNECT | StreamFlags.RECEIVE_DISCONNECT)
ABORT = int(StreamFlags.SEND_ABORT | StreamFlags.RECEIVE_ABORT)

INLINE_SUB_LAYER_WEIGHT = 0x20
OOB_SUB_LAYER_WEIGHT = 0x40


@dataclass(frozen=True)
class Settings:
    """What the sample reads from the registry.

    Attributes:
        find: the pattern.
        replace: what takes its place.
        local_port: the local port of the flows that are edited.
        busy_threshold: pended bytes of a flow above which the out-of-band editor defers.
    """

    find: bytes
    replace: bytes
    local_port: int = 8888
    busy_threshold: int = 0x4000


@dataclass
class FlowContext:
    """STREAM_FLOW_CONTEXT: one per edited flow, for both of its directions."""

    flow_id: int
    layer_id: int
    callout_id: int
    references: int = 1


class StreamEdit(SampleDriver):
    """DriverEntry, the FLOW_ESTABLISHED callout and unload of the stream edit sample.

    Attributes:
        flows: the contexts that are associated.
        contexts_alive: contexts whose memory is still in use.
    """

    context_class: ClassVar[type[FlowContext]] = FlowContext

    def __init__(self, machine: Machine, settings: Settings) -> None:
        super().__init__(machine)
        self.settings = settings
        self.flows: list[FlowContext] = []
        self.contexts_alive = 0
        # One static MDL backs every injected replacement (ALO-1).
        self.replace_mdl = Mdl(settings.replace)

    def register_callouts(self) -> None:
        port = FilterCondition(CONDITION_IP_LOCAL_PORT, MatchType.EQUAL, uint16(self.settings.local_port))
        for established, stream in STREAM_OF_FLOW_ESTABLISHED.items():
            self.add_callout(
                stream,
                self.stream_classify,
                self.flow_delete,
                action_type=ActionType.CALLOUT_TERMINATING,
                flags=CONDITIONAL_ON_FLOW,
                conditions=[port],
            )
            self.add_callout(
                established,
                self.flow_established_classify,
                action_type=ActionType.CALLOUT_INSPECTION,
                conditions=[port],
            )

    # -- flows --------------------------------------------------------------------------------------------

    def flow_established_classify(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Filter1,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Associate a context with the flow for the stream layer, so that the stream callout is asked."""
        classify_out.action_type = ActionType.CONTINUE
        has_flow = bool(in_meta_values.current_metadata_values & MetadataField.FLOW_HANDLE)
        self.nt_assert(has_flow, "FLOW_HANDLE is present")
        if self.unloading or not has_flow:
            return
        layer_id = STREAM_OF_FLOW_ESTABLISHED[LayerId(in_fixed_values.layer_id)]
        context = self.context_class(in_meta_values.flow_handle, layer_id, self.callout_ids[layer_id])
        handle = self.fwps.track(context)
        status = self.fwps.flow_associate_context(
            context.flow_id, context.layer_id, context.callout_id, handle
        )
        # OBJECT_NAME_EXISTS satisfies NT_SUCCESS and stores nothing (CTX-6).
        if status != NtStatus.STATUS_SUCCESS:
            self.fwps.untrack(handle)
            return
        self.contexts_alive += 1
        self.flows.append(context)

    def flow_delete(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        """flowDeleteFn: the engine's reference on the context is given back."""
        context: FlowContext = self.fwps.untrack(flow_context)
        self.flows.remove(context)
        self.dereference(context)

    def reference(self, context: FlowContext) -> None:
        """Keep a context for a worker."""
        context.references += 1

    def dereference(self, context: FlowContext) -> None:
        """Free a context with its last reference."""
        context.references -= 1
        if context.references == 0:
            self.contexts_alive -= 1

    # -- the stream layer ---------------------------------------------------------------------------------

    def stream_classify(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: StreamCalloutIoPacket,
        classify_context: Any,
        filter: Filter1,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """classifyFn1 at the stream layer."""
        raise NotImplementedError

    def stop_flow(self, context: FlowContext) -> None:
        """Unload: let go of what is kept for a flow, before its context is removed."""
        raise NotImplementedError

    def stop_flows(self, unloading: Unloading) -> None:
        for context in list(self.flows):
            self.stop_flow(context)
            status = self.fwps.flow_remove_context(context.flow_id, context.layer_id, context.callout_id)
            unloading.remove_context.append(status)

    # -- injection ----------------------------------------------------------------------------------------

    def inject_mdl(self, context: FlowContext, stream_flags: int, mdl: Mdl, length: int) -> NtStatus:
        """Inject bytes of our own; refused, the list is freed here (INJ-1)."""
        self.nt_assert(not stream_flags & DISCONNECT, "data is injected without DISCONNECT")
        status, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, mdl, 0, length)
        if nbl is None:
            return status
        status = self.fwps.stream_inject_async(
            self.injection_handle,
            None,
            0,
            context.flow_id,
            context.callout_id,
            context.layer_id,
            stream_flags,
            nbl,
            length,
            self.inject_complete,
            None,
        )
        if not status.ok:
            self.fwps.free_net_buffer_list(nbl)
        return status

    def inject_complete(self, context: Any, net_buffer_list: NetBufferList, dispatch_level: bool) -> None:
        """Completion of `inject_mdl`."""
        self.fwps.free_net_buffer_list(net_buffer_list)


# Answers. `count` bytes; 0 means the whole indication (ACT-7).


def permit(packet: StreamCalloutIoPacket, out: ClassifyOut, count: int = 0) -> None:
    """PERMIT."""
    packet.stream_action = StreamActionType.NONE
    packet.count_bytes_required = 0
    packet.count_bytes_enforced = count
    out.action_type = ActionType.PERMIT


def block(packet: StreamCalloutIoPacket, out: ClassifyOut, count: int = 0) -> None:
    """BLOCK."""
    packet.stream_action = StreamActionType.NONE
    packet.count_bytes_required = 0
    packet.count_bytes_enforced = count
    out.action_type = ActionType.BLOCK


def need_more_data(packet: StreamCalloutIoPacket, out: ClassifyOut, required: int) -> None:
    """NEED_MORE_DATA until `required` bytes are there."""
    packet.stream_action = StreamActionType.NEED_MORE_DATA
    packet.count_bytes_required = required
    packet.count_bytes_enforced = 0
    out.action_type = ActionType.NONE


def stream_action(packet: StreamCalloutIoPacket, out: ClassifyOut, action: StreamActionType) -> None:
    """DEFER or DROP_CONNECTION."""
    packet.stream_action = action
    packet.count_bytes_required = 0
    packet.count_bytes_enforced = 0
    out.action_type = ActionType.NONE
