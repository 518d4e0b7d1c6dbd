"""The stream injection callouts of WFPSampler, basic and fast.

Both pass the stream through by injecting it: every indication, FIN included, is cloned, the clone injected with
the flags it was indicated with, and the original blocked (OOB-10). "Fast" does so in classifyFn and nothing else;
"basic" can also do it in a worker, which its provider context says: then it references the indicated lists,
and the worker clones from a private FWPS_STREAM_DATA0 (REF-1), one at a time and in order (OOB-9).
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID

from tests.ports.sample_driver import Machine, SampleDriver, check
from wfpstream.fwp import ActionType
from wfpstream.fwpm import (
    CalloutFlags,
    DisplayData,
    FilterFlags,
    ProviderContext,
    ProviderContextType,
)
from wfpstream.fwps import (
    ClassifyOut,
    Filter1,
    IncomingMetadataValues,
    IncomingValues,
    LayerId,
    MetadataField,
    NetBufferList,
    StreamActionType,
    StreamCalloutIoPacket,
    StreamData,
    StreamDataOffset,
)

STREAM_LAYERS = (LayerId.STREAM_V4, LayerId.STREAM_V6)

# The basic sample's provider context data: one UINT32, nonzero to inject from a worker.
INJECTION_DATA = struct.Struct("<I")
PROVIDER_CONTEXT_KEY = UUID("0c8a5f4e-95fb-4a2e-8f3b-6b2f6c7e6d11")


@dataclass
class StreamToInject:
    """What an injection needs of the classify it came from."""

    flow_id: int
    callout_id: int
    layer_id: int
    stream_data: StreamData


class StreamInjection(SampleDriver):
    """What both callouts share."""

    def classify_stream(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: StreamCalloutIoPacket | None,
        classify_context: Any,
        filter: Filter1,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """classifyFn1: inject, and block the original whatever came of it."""
        has_flow = bool(in_meta_values.current_metadata_values & MetadataField.FLOW_HANDLE)
        self.nt_assert(has_flow, "FLOW_HANDLE is present")
        if layer_data is None or not has_flow:  # never so at this layer (CFN-13)
            classify_out.action_type = ActionType.PERMIT
            return
        item = StreamToInject(
            in_meta_values.flow_handle, filter.callout_id, in_fixed_values.layer_id, layer_data.stream_data
        )
        self.perform(item, filter)
        layer_data.stream_action = StreamActionType.NONE
        layer_data.count_bytes_enforced = 0
        classify_out.action_type = ActionType.BLOCK

    def perform(self, item: StreamToInject, filter: Filter1) -> None:
        """Inject one indication, now or later."""
        raise NotImplementedError

    def clone_and_inject(self, item: StreamToInject) -> None:
        """FwpsCloneStreamData0, FwpsStreamInjectAsync0; refused, the clone is discarded (INJ-1)."""
        stream_data = item.stream_data
        status, chain = self.fwps.clone_stream_data(stream_data, None, None, 0)
        if not status.ok:
            return
        status = self.fwps.stream_inject_async(
            self.injection_handle,
            None,
            0,
            item.flow_id,
            item.callout_id,
            item.layer_id,
            stream_data.flags,
            chain,
            stream_data.data_length,
            self.inject_complete,
            None,
        )
        if not status.ok:
            self.fwps.discard_cloned_stream_data(chain, 0, False)

    def inject_complete(self, context: Any, net_buffer_list: NetBufferList, dispatch_level: bool) -> None:
        """Completion, once per list of the clone."""
        self.fwps.free_clone_net_buffer_list(net_buffer_list, 0)


class FastStreamInjection(StreamInjection):
    """FastStreamInjection."""

    display_name = "Fast stream injection"

    def register_callouts(self) -> None:
        for layer in STREAM_LAYERS:
            self.add_callout(layer, self.classify_stream, action_type=ActionType.CALLOUT_TERMINATING)

    def perform(self, item: StreamToInject, filter: Filter1) -> None:
        self.clone_and_inject(item)


class BasicStreamInjection(StreamInjection):
    """BasicStreamInjection.

    Args:
        machine: where it is loaded.
        out_of_band: goes into the provider context: inject from a worker.
    """

    display_name = "Basic stream injection"

    def __init__(self, machine: Machine, out_of_band: bool) -> None:
        super().__init__(machine)
        self.out_of_band = out_of_band
        self.serialization_list: deque[StreamToInject] = deque()

    def register_callouts(self) -> None:
        status = self.session.provider_context_add(
            ProviderContext(
                provider_context_key=PROVIDER_CONTEXT_KEY,
                display_data=DisplayData(self.display_name),
                type=ProviderContextType.GENERAL_CONTEXT,
                data=INJECTION_DATA.pack(self.out_of_band),
            )
        )
        check(status, "FwpmProviderContextAdd0")
        for layer in STREAM_LAYERS:
            self.add_callout(
                layer,
                self.classify_stream,
                action_type=ActionType.CALLOUT_TERMINATING,
                callout_object_flags=CalloutFlags.USES_PROVIDER_CONTEXT,
                filter_flags=FilterFlags.HAS_PROVIDER_CONTEXT,
                provider_context_key=PROVIDER_CONTEXT_KEY,
            )

    def perform(self, item: StreamToInject, filter: Filter1) -> None:
        context = filter.provider_context
        self.nt_assert(isinstance(context, ProviderContext), "the filter has a provider context")
        context = cast(ProviderContext, context)
        self.nt_assert(context.type == ProviderContextType.GENERAL_CONTEXT, "it is a general context")
        data = cast(bytes, context.data)
        self.nt_assert(len(data) == INJECTION_DATA.size, "its data has the expected size")
        (out_of_band,) = INJECTION_DATA.unpack(data)
        if out_of_band:
            self.keep(item)
        else:
            self.clone_and_inject(item)

    def keep(self, item: StreamToInject) -> None:
        """Reference every list and copy the structure, which is valid in this classify only (IND-22)."""
        indicated = item.stream_data
        offset = indicated.data_offset
        for nbl in lists_of(indicated.net_buffer_list_chain):
            self.fwps.reference_net_buffer_list(nbl, False)
        item.stream_data = StreamData(
            indicated.flags,
            StreamDataOffset(offset.net_buffer_list, offset.net_buffer, offset.mdl, offset.mdl_offset),
            indicated.data_length,
            indicated.net_buffer_list_chain,
        )
        self.serialization_list.append(item)

    def run_worker(self) -> None:
        """Inject what was kept, in order; the references end with the clones made."""
        while self.serialization_list:
            item = self.serialization_list.popleft()
            self.clone_and_inject(item)
            for nbl in lists_of(item.stream_data.net_buffer_list_chain):
                self.fwps.dereference_net_buffer_list(nbl, False)


def lists_of(chain: NetBufferList | None) -> list[NetBufferList]:
    """The lists of a chain."""
    found = []
    while chain is not None:
        found.append(chain)
        chain = chain.next
    return found
