"""The answers a stream classify can give, one short name each.

Owns how an answer is written into classifyOut and the io packet; which one to give is the callout's.
"""

from __future__ import annotations

from wfpstream.fwp import ActionType
from wfpstream.fwps import (
    ClassifyOut,
    ClassifyOutFlags,
    StreamActionType,
    StreamCalloutIoPacket,
    StreamFlags,
)

# Plain ints: an IntFlag operation costs a microsecond.
RECEIVE = int(StreamFlags.RECEIVE)
SEND = int(StreamFlags.SEND)
DISCONNECT = int(StreamFlags.RECEIVE_DISCONNECT | StreamFlags.SEND_DISCONNECT)
ABORT = int(StreamFlags.RECEIVE_ABORT | StreamFlags.SEND_ABORT)
EXPEDITED = int(StreamFlags.RECEIVE_EXPEDITED | StreamFlags.SEND_EXPEDITED)

# What an injection may take over from the indication it replaces (INL-7: no DISCONNECT on data).
INJECTABLE = RECEIVE | SEND | int(StreamFlags.RECEIVE_PUSH | StreamFlags.SEND_NODELAY)

# No answer but permit or block, or nothing to decide: a reset is told, not asked (IND-17), and an urgent byte
# is never merged with others, so it passes as it is (IND-7).
UNTOUCHED = ABORT | EXPEDITED

# NEED_MORE_DATA is not an answer any more (NMD-7, NMD-10).
LAST = int(ClassifyOutFlags.NO_MORE_DATA | ClassifyOutFlags.BUFFER_LIMIT_REACHED)
LIMIT_REACHED = int(ClassifyOutFlags.BUFFER_LIMIT_REACHED)
NO_MORE_DATA = int(ClassifyOutFlags.NO_MORE_DATA)

_PERMIT = int(ActionType.PERMIT)
_BLOCK = int(ActionType.BLOCK)
CONTINUE = int(ActionType.CONTINUE)
_NONE = int(ActionType.NONE)


def permit(packet: StreamCalloutIoPacket, answer: ClassifyOut, count: int = 0) -> None:
    """Pass the first `count` bytes on; 0 means all of them, and the FIN (ACT-7)."""
    answer.action_type = _PERMIT
    packet.count_bytes_enforced = count


def block(packet: StreamCalloutIoPacket, answer: ClassifyOut, count: int = 0) -> None:
    """Take the first `count` bytes out of the stream; 0 means all of them, or pends the FIN (IND-14)."""
    answer.action_type = _BLOCK
    packet.count_bytes_enforced = count


def inspect(answer: ClassifyOut) -> None:
    """Look only: CONTINUE."""
    answer.action_type = CONTINUE


def need_more(packet: StreamCalloutIoPacket, answer: ClassifyOut, total: int = 0) -> None:
    """Hold everything until `total` bytes are there (NMD-3); 0 means one more byte (NMD-4)."""
    _stream_action(packet, answer, StreamActionType.NEED_MORE_DATA)
    packet.count_bytes_required = total


def defer(packet: StreamCalloutIoPacket, answer: ClassifyOut) -> None:
    """Hold everything and stop reading until continued; RECEIVE only (DEF-1)."""
    _stream_action(packet, answer, StreamActionType.DEFER)


def drop(packet: StreamCalloutIoPacket, answer: ClassifyOut) -> None:
    """Reset both legs; nothing indicated is delivered (DRP-2)."""
    _stream_action(packet, answer, StreamActionType.DROP_CONNECTION)


def allow(packet: StreamCalloutIoPacket, answer: ClassifyOut) -> None:
    """Pass everything from here on without being asked (ALW-1)."""
    _stream_action(packet, answer, StreamActionType.ALLOW_CONNECTION)


def _stream_action(packet: StreamCalloutIoPacket, answer: ClassifyOut, action: StreamActionType) -> None:
    answer.action_type = _NONE  # ACT-6: ignored, and anything but NONE is lint
    packet.stream_action = int(action)
