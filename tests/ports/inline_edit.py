"""The inline editor of the stream edit sample, faults included.

It replaces a pattern while the stream passes, in classifyFn alone: what comes before a match is permitted, the
match is blocked and the replacement injected; the beginning of a match at the end of an indication is copied to a
private buffer ("scratch") and blocked until the next indication tells. Kept as they are, because the golden
transcripts show them:

- one state for both directions of a flow (SC-118);
- after NEED_MORE_DATA behind a match it looks only at the bytes it had counted before the wait (SC-116, SC-117);
- a permit of 0 bytes is meant as "nothing", and permits everything (SC-115, ACT-8);
- blocking the beginning of a match blocks the whole indication (SC-117);
- lengths in scratch go stale and are flushed at FIN and at unload (SC-115, SC-118, SC-124).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, ClassVar

from tests.ports.stream_edit import (
    ABORT,
    DISCONNECT,
    INLINE_SUB_LAYER_WEIGHT,
    FlowContext,
    StreamEdit,
    block,
    need_more_data,
    permit,
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
    StreamActionType,
    StreamCalloutIoPacket,
    StreamData,
)

UINT32_MASK = 0xFFFF_FFFF
MUST_DECIDE = int(ClassifyOutFlags.NO_MORE_DATA | ClassifyOutFlags.BUFFER_LIMIT_REACHED)


class State(Enum):
    """What the next indication is expected to be."""

    IDLE = auto()
    MODIFYING = auto()  # it begins with a match
    COLLECTING = auto()  # it is the beginning of a match
    WAITING = auto()  # scratch holds the beginning of a match, it may be the rest
    SKIPPING = auto()  # it is the bytes behind a match, already counted


@dataclass
class InlineContext(FlowContext):
    """The editor's part of a flow context.

    Attributes:
        scratch_length: bytes in scratch; after a match the count of the bytes behind it.
        partial_length: how many bytes the beginning of a match has.
        stream_flags: of the indication that filled scratch, for a flush outside of it.
        classifying: a classify of this flow is running, in either direction (IND-10).
    """

    state: State = State.IDLE
    scratch: bytearray = field(default_factory=bytearray)
    scratch_length: int = 0
    partial_length: int = 0
    stream_flags: int = 0
    classifying: bool = False


def find(data: bytes | bytearray, pattern: bytes) -> tuple[int, int]:
    """First place where `data` agrees with the pattern to its end or to the pattern's: (offset, bytes agreeing)."""
    for offset in range(len(data)):
        length = min(len(pattern), len(data) - offset)
        if data[offset : offset + length] == pattern[:length]:
            return offset, length
    return len(data), 0


class InlineEdit(StreamEdit):
    """InlineEdit."""

    display_name = "Stream edit, inline"
    sub_layer_weight = INLINE_SUB_LAYER_WEIGHT
    context_class: ClassVar[type[FlowContext]] = InlineContext

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
        context: InlineContext = self.fwps.tracked(flow_context)
        self.nt_assert(not context.classifying, "one classify at a time per flow")
        context.classifying = True
        if len(context.scratch) < len(self.settings.find):
            context.scratch = bytearray(len(self.settings.find))
        self.edit(context, layer_data, classify_out)
        context.classifying = False

    def edit(self, context: InlineContext, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """What kind of indication it is, and for data what it was expected to be."""
        stream_data = packet.stream_data
        if stream_data.flags & ABORT:
            permit(packet, out)
        elif stream_data.flags & DISCONNECT:
            self.end_of_stream(context, packet, out)
        elif stream_data.data_length == 0:
            permit(packet, out)
        elif context.state is State.MODIFYING:
            self.modify(context, packet, out)
        elif context.state is State.COLLECTING:
            self.collect(context, packet, out)
        elif context.state is State.WAITING:
            self.complete_partial(context, packet, out)
        else:
            self.look(context, packet, out)

    def end_of_stream(self, context: InlineContext, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """FIN: what scratch holds goes first, or it would be lost (INL-5)."""
        self.nt_assert(packet.stream_data.data_length == 0, "a FIN carries no data")
        self.flush(context)
        if context.state is State.WAITING:
            context.state = State.IDLE
        self.nt_assert(context.state is State.IDLE, "state is idle at FIN")
        context.state = State.IDLE
        permit(packet, out)

    def look(self, context: InlineContext, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """Idle, or behind a match: look for the pattern."""
        pattern = self.settings.find
        length = packet.stream_data.data_length
        must_decide = bool(out.flags & MUST_DECIDE)
        if length < len(pattern) and not must_decide:
            need_more_data(packet, out, len(pattern))
            return
        # Behind a match the bytes counted then are looked at, however many came since.
        window = context.scratch_length if context.state is State.SKIPPING else length
        offset, matching = find(self.copy(packet.stream_data, window), pattern)
        if matching == len(pattern):
            context.state = State.MODIFYING
        elif matching and not must_decide:
            context.partial_length = matching
            context.state = State.COLLECTING
        else:
            context.state = State.IDLE
            context.scratch_length = 0
            permit(packet, out)
            return
        if offset:
            permit(packet, out, offset)
        elif context.state is State.MODIFYING:
            self.modify(context, packet, out)
        else:
            self.collect(context, packet, out)

    def modify(self, context: InlineContext, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """The indication begins with a match."""
        self.replace(context, packet, out, len(self.settings.find))

    def replace(
        self, context: InlineContext, packet: StreamCalloutIoPacket, out: ClassifyOut, matching: int
    ) -> None:
        """Inject the replacement and block the `matching` bytes of the match that are shown (INL-1)."""
        stream_data = packet.stream_data
        status = self.inject_mdl(
            context, stream_data.flags & ~DISCONNECT, self.replace_mdl, len(self.settings.replace)
        )
        if not status.ok:
            stream_action(packet, out, StreamActionType.DROP_CONNECTION)
            return
        context.scratch_length = stream_data.data_length - matching
        context.state = State.SKIPPING if context.scratch_length else State.IDLE
        block(packet, out, matching)

    def collect(self, context: InlineContext, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """The indication is taken for the beginning of a match: copy that, block all."""
        beginning = self.copy(packet.stream_data, context.partial_length)
        context.scratch[: len(beginning)] = beginning
        context.scratch_length = context.partial_length
        context.stream_flags = packet.stream_data.flags & ~DISCONNECT
        context.state = State.WAITING
        block(packet, out)

    def complete_partial(
        self, context: InlineContext, packet: StreamCalloutIoPacket, out: ClassifyOut
    ) -> None:
        """Scratch holds the beginning of a match: fill it up to a pattern's length and look there."""
        pattern = self.settings.find
        before = context.scratch_length
        added = self.copy(packet.stream_data, len(pattern) - before)
        context.scratch_length = before + len(added)
        context.scratch[before : context.scratch_length] = added
        offset, matching = find(context.scratch[: context.scratch_length], pattern)
        if offset == 0 and matching == len(pattern):
            self.replace(context, packet, out, len(added))
        elif offset == 0:
            block(packet, out)
        elif not self.inject_scratch(context, before).ok:
            stream_action(packet, out, StreamActionType.DROP_CONNECTION)
        elif matching:
            context.partial_length = matching
            context.state = State.COLLECTING
            # "match - partial", 32 bits wide (ACT-7): a difference of 0 was meant as nothing (ACT-8).
            permit(packet, out, (offset - before) & UINT32_MASK)
        else:
            context.scratch_length = 0
            context.state = State.IDLE
            permit(packet, out)

    # -- scratch ------------------------------------------------------------------------------------------

    def copy(self, stream_data: StreamData, length: int) -> bytearray:
        """The first bytes of an indication, at most `length`."""
        buffer = bytearray(length)
        copied = self.fwps.copy_stream_data_to_buffer(stream_data, buffer, length)
        return buffer[:copied]

    def inject_scratch(self, context: InlineContext, length: int) -> NtStatus:
        """Inject a copy of the first bytes of scratch with the flags they came with."""
        return self.inject_mdl(context, context.stream_flags, Mdl(bytes(context.scratch[:length])), length)

    def flush(self, context: InlineContext) -> None:
        """Give back what scratch is said to hold; a refusal is not looked at."""
        if context.scratch_length:
            self.inject_scratch(context, context.scratch_length)
            context.scratch_length = 0

    def stop_flow(self, context: FlowContext) -> None:
        """Unload: flush from outside of a classify."""
        assert isinstance(context, InlineContext)
        self.flush(context)
