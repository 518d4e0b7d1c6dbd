"""The out-of-band editor of the stream edit sample, faults included.

classifyFn clones and blocks every indication, FIN too; a worker looks for the pattern and injects the edited
stream. With more than the busy threshold pended, inbound data is deferred until a quarter of it is left. Kept as
they are, because the golden transcripts show them:

- one state for both directions of a flow: while inbound data is deferred, outbound data and FIN, and an ABORT,
  meet a switch without a case for them (SC-119, SC-120, SC-121);
- the first FIN marks the whole flow as terminating: the other direction is blocked and never injected (SC-123);
- an ABORT is queued for the worker like data (SC-122).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, ClassVar

from tests.ports.sample_driver import Machine, Unloading
from tests.ports.stream_edit import (
    ABORT,
    DISCONNECT,
    OOB_SUB_LAYER_WEIGHT,
    FlowContext,
    Settings,
    StreamEdit,
    block,
    need_more_data,
    stream_action,
)
from wfpstream.fwp import NtStatus
from wfpstream.fwps import (
    ClassifyOut,
    ClassifyOutFlags,
    Filter1,
    IncomingMetadataValues,
    IncomingValues,
    Mdl,
    NetBufferList,
    StreamActionType,
    StreamCalloutIoPacket,
    StreamData,
    StreamDataOffset,
    StreamFlags,
)

RECEIVE = int(StreamFlags.RECEIVE)
MUST_DECIDE = int(ClassifyOutFlags.NO_MORE_DATA | ClassifyOutFlags.BUFFER_LIMIT_REACHED)


class State(Enum):
    """Idle takes data; busy has deferred the inbound direction."""

    IDLE = auto()
    BUSY = auto()


@dataclass
class PendedData:
    """One cloned indication, waiting for the worker."""

    chain: NetBufferList
    length: int
    stream_flags: int


@dataclass
class OobContext(FlowContext):
    """The editor's part of a flow context.

    Attributes:
        terminating: a FIN was pended.
        pended_bytes: bytes the worker has not injected yet, both directions together.
        deferred_flags: flags of the deferred indication, to continue with.
        work_queued: a work item is on its way.
    """

    state: State = State.IDLE
    terminating: bool = False
    pended: deque[PendedData] = field(default_factory=deque)
    pended_bytes: int = 0
    deferred_flags: int = 0
    work_queued: bool = False


class OobEdit(StreamEdit):
    """OobEdit. Its work items wait in `work_items` until the test runs them."""

    display_name = "Stream edit, out of band"
    sub_layer_weight = OOB_SUB_LAYER_WEIGHT
    context_class: ClassVar[type[FlowContext]] = OobContext

    def __init__(self, machine: Machine, settings: Settings) -> None:
        super().__init__(machine, settings)
        self.work_items: deque[OobContext] = deque()

    # -- classify -----------------------------------------------------------------------------------------

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
        context: OobContext = self.fwps.tracked(flow_context)
        stream_data = layer_data.stream_data
        if context.terminating:
            block(layer_data, classify_out)
            return
        length = stream_data.data_length
        if 0 < length < len(self.settings.find) and not classify_out.flags & MUST_DECIDE:
            need_more_data(layer_data, classify_out, len(self.settings.find))
            return
        match context.state:
            case State.IDLE:
                self.take(context, layer_data, classify_out)
            case _:
                self.nt_assert(False, f"no case for state {context.state.name}")
                block(layer_data, classify_out)

    def take(self, context: OobContext, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """Clone and block, or defer: only inbound data, never a FIN (DEF-11)."""
        stream_data = packet.stream_data
        flags = stream_data.flags
        too_much = context.pended_bytes > self.settings.busy_threshold
        if too_much and flags & RECEIVE and stream_data.data_length:
            context.state = State.BUSY
            context.deferred_flags = flags
            stream_action(packet, out, StreamActionType.DEFER)
            return
        status, chain = self.fwps.clone_stream_data(stream_data, None, None, 0)
        if not status.ok:
            stream_action(packet, out, StreamActionType.DROP_CONNECTION)
            return
        self.nt_assert(chain is not None, "a clone is never NULL")
        assert chain is not None
        if flags & DISCONNECT:
            no_more_data = bool(out.flags & ClassifyOutFlags.NO_MORE_DATA)
            self.nt_assert(stream_data.data_length == 0, "a FIN carries no data")
            self.nt_assert(no_more_data, "no more data comes with a FIN")
            context.terminating = True
        context.pended.append(PendedData(chain, stream_data.data_length, flags))
        context.pended_bytes += stream_data.data_length
        self.queue_work(context)
        block(packet, out)

    def queue_work(self, context: OobContext) -> None:
        """IoQueueWorkItem, once until it runs; the work item holds a reference on the context."""
        if not context.work_queued:
            context.work_queued = True
            self.reference(context)
            self.work_items.append(context)

    # -- the worker ---------------------------------------------------------------------------------------

    def run_work_items(self) -> None:
        """The system's worker thread."""
        while self.work_items:
            context = self.work_items.popleft()
            context.work_queued = False
            while context.pended:
                self.work(context, context.pended.popleft())
            self.dereference(context)

    def work(self, context: OobContext, item: PendedData) -> None:
        """Edit and inject one item; continue when a quarter of the threshold is left."""
        if item.stream_flags & DISCONNECT or item.length == 0:
            self.inject_clone(context, item)
        else:
            self.edit(context, item)
        context.pended_bytes -= item.length
        if context.state is State.BUSY and context.pended_bytes <= self.settings.busy_threshold // 4:
            # The state changes first: the data may be indicated at any moment from here on (DEF-6).
            context.state = State.IDLE
            self.fwps.stream_continue(
                context.flow_id, context.callout_id, context.layer_id, context.deferred_flags
            )

    def edit(self, context: OobContext, item: PendedData) -> None:
        """Inject the item with every match in it replaced; without a match the clone itself goes back."""
        data = self.gather(item)
        pattern = self.settings.find
        at = data.find(pattern)
        if at < 0:
            self.inject_clone(context, item)
            return
        flags = item.stream_flags & ~DISCONNECT
        begin = 0
        injected = True
        while injected and at >= 0:
            injected = self.inject_bytes(context, flags, data[begin:at])
            if injected:
                injected = self.inject_mdl(context, flags, self.replace_mdl, len(self.settings.replace)).ok
            begin = at + len(pattern)
            at = data.find(pattern, begin)
        if injected:
            self.inject_bytes(context, flags, data[begin:])
        self.fwps.discard_cloned_stream_data(item.chain, 0, False)

    def gather(self, item: PendedData) -> bytearray:
        """The bytes of a clone chain, copied list by list through a private FWPS_STREAM_DATA0.

        Its length stays that of the whole chain while the offset moves: the copy stops where it is told (CPY-2).
        """
        data = bytearray(item.length)
        view = memoryview(data)
        private = StreamData(item.stream_flags, None, item.length, item.chain)
        filled = 0
        nbl: NetBufferList | None = item.chain
        while nbl is not None:
            net_buffer = nbl.first_net_buffer
            assert net_buffer is not None
            private.data_offset = StreamDataOffset(
                nbl, net_buffer, net_buffer.current_mdl, net_buffer.current_mdl_offset
            )
            filled += self.fwps.copy_stream_data_to_buffer(private, view[filled:], nbl.data_length)
            nbl = nbl.next
        self.nt_assert(filled == item.length, "the whole clone was copied")
        view.release()
        return data

    def inject_bytes(self, context: OobContext, flags: int, data: bytearray) -> bool:
        """Inject what lies between matches, if anything does."""
        if not data:
            return True
        return self.inject_mdl(context, flags, Mdl(bytes(data)), len(data)).ok

    def inject_clone(self, context: OobContext, item: PendedData) -> NtStatus:
        """Inject a clone chain as it is, a FIN too (OOB-6); refused, it is discarded (INJ-1)."""
        status = self.fwps.stream_inject_async(
            self.injection_handle,
            None,
            0,
            context.flow_id,
            context.callout_id,
            context.layer_id,
            item.stream_flags & ~ABORT,
            item.chain,
            item.length,
            self.clone_complete,
            None,
        )
        if not status.ok:
            self.fwps.discard_cloned_stream_data(item.chain, 0, False)
        return status

    def clone_complete(self, context: Any, net_buffer_list: NetBufferList, dispatch_level: bool) -> None:
        """Completion of `inject_clone`, once per list (CMP-1)."""
        self.fwps.free_clone_net_buffer_list(net_buffer_list, 0)

    def stop_flow(self, context: FlowContext) -> None:
        """Nothing of a flow is kept outside of its work items."""

    def stop_flows(self, unloading: Unloading) -> None:
        """The work items run out first, those of flows that are gone too."""
        self.run_work_items()
        super().stop_flows(unloading)
