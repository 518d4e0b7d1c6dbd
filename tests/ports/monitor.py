"""The messenger monitor sample: watches the flows of one service, changes nothing.

FLOW_ESTABLISHED associates a record of the connection with the stream callout, which is CONDITIONAL_ON_FLOW and
so asked for those flows only; it reports the text messages it sees. The sample picks its flows by the
application's path; here that is the remote port, since a proxy does not know the application (FLD-10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.ports.sample_driver import (
    CONDITIONAL_ON_FLOW,
    STREAM_OF_FLOW_ESTABLISHED,
    Machine,
    SampleDriver,
    Unloading,
)
from wfpstream.fwp import ActionType, FwpValue, MatchType, NtStatus, uint16
from wfpstream.fwpm import CONDITION_IP_REMOTE_PORT, FilterCondition
from wfpstream.fwps import (
    ClassifyOut,
    FieldsAleFlowEstablished,
    Filter1,
    IncomingMetadataValues,
    IncomingValues,
    LayerId,
    MetadataField,
    StreamCalloutIoPacket,
    StreamFlags,
)

COMMAND = b"MSG "
CONTENT_TYPE = b"Content-Type: text/plain"
END_OF_HEADER = b"\r\n\r\n"
UNKNOWN_PATH = b""


@dataclass
class FlowData:
    """FLOW_DATA: what FLOW_ESTABLISHED said about a connection."""

    flow_handle: int
    layer_id: int
    callout_id: int
    ip_proto: FwpValue
    local_address: FwpValue
    local_port: FwpValue
    remote_address: FwpValue
    remote_port: FwpValue
    process_path: bytes


@dataclass(frozen=True)
class Message:
    """A text message that was seen."""

    inbound: bool
    local_port: int
    remote_port: int
    text: bytes


class Monitor(SampleDriver):
    """The monitor.

    Attributes:
        monitoring: switched on and off by the sample's user-mode program.
        flows: the flows that are watched.
        messages: what was reported.
    """

    display_name = "Messenger monitor"

    def __init__(self, machine: Machine, remote_port: int) -> None:
        super().__init__(machine)
        self.remote_port = remote_port
        self.monitoring = True
        self.flows: list[FlowData] = []
        self.messages: list[Message] = []

    def register_callouts(self) -> None:
        port = FilterCondition(CONDITION_IP_REMOTE_PORT, MatchType.EQUAL, uint16(self.remote_port))
        for established, stream in STREAM_OF_FLOW_ESTABLISHED.items():
            self.add_callout(
                established,
                self.flow_established_classify,
                action_type=ActionType.CALLOUT_INSPECTION,
                conditions=[port],
            )
            self.add_callout(
                stream,
                self.stream_classify,
                self.stream_flow_delete,
                action_type=ActionType.CALLOUT_INSPECTION,
                flags=CONDITIONAL_ON_FLOW,
            )

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
        """Associate a record of the connection for the stream layer."""
        if self.monitoring and not self.unloading:
            self.watch(in_fixed_values, in_meta_values)
        classify_out.action_type = ActionType.PERMIT

    def watch(self, in_fixed_values: IncomingValues, in_meta_values: IncomingMetadataValues) -> None:
        fields = FieldsAleFlowEstablished
        values = in_fixed_values.incoming_value
        present = in_meta_values.current_metadata_values
        layer_id = STREAM_OF_FLOW_ESTABLISHED[LayerId(in_fixed_values.layer_id)]
        path = in_meta_values.process_path if present & MetadataField.PROCESS_PATH else None
        flow = FlowData(
            in_meta_values.flow_handle,
            layer_id,
            self.callout_ids[layer_id],
            values[fields.IP_PROTOCOL],
            values[fields.IP_LOCAL_ADDRESS],
            values[fields.IP_LOCAL_PORT],
            values[fields.IP_REMOTE_ADDRESS],
            values[fields.IP_REMOTE_PORT],
            path or UNKNOWN_PATH,
        )
        handle = self.fwps.track(flow)
        status = self.fwps.flow_associate_context(flow.flow_handle, layer_id, flow.callout_id, handle)
        if status != NtStatus.STATUS_SUCCESS:
            self.fwps.untrack(handle)
            return
        self.flows.append(flow)

    def stream_classify(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: StreamCalloutIoPacket | None,
        classify_context: Any,
        filter: Filter1,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Look at the data of a watched flow."""
        if self.monitoring and layer_data is not None and flow_context:
            self.notify_message(layer_data, self.fwps.tracked(flow_context))
        classify_out.action_type = ActionType.CONTINUE

    def notify_message(self, packet: StreamCalloutIoPacket, flow: FlowData) -> None:
        """Report a text message that begins and ends in this indication."""
        stream_data = packet.stream_data
        if stream_data.data_length <= len(COMMAND):
            return
        buffer = bytearray(stream_data.data_length)
        copied = self.fwps.copy_stream_data_to_buffer(stream_data, buffer, stream_data.data_length)
        self.nt_assert(copied == stream_data.data_length, "the whole indication was copied")
        if not buffer.startswith(COMMAND) or CONTENT_TYPE not in buffer:
            return
        _, end, text = bytes(buffer).partition(END_OF_HEADER)
        if end:
            inbound = bool(stream_data.flags & StreamFlags.RECEIVE)
            self.messages.append(
                Message(inbound, int(flow.local_port.value), int(flow.remote_port.value), text)
            )

    def stream_flow_delete(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        """flowDeleteFn: the record goes with its flow."""
        self.flows.remove(self.fwps.untrack(flow_context))

    def stop_flows(self, unloading: Unloading) -> None:
        for flow in list(self.flows):
            status = self.fwps.flow_remove_context(flow.flow_handle, flow.layer_id, flow.callout_id)
            unloading.remove_context.append(status)
