"""Owns bad callouts that need nothing but a stream, so that every world can have them: one for each way of finding out.

They live apart from the driving code: a place is theirs only if nothing else is on the stack.
"""

from __future__ import annotations

from typing import Any

from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import Callout, OutOfBandCallout, StreamActionType, StreamFlags, Worker

PERMIT, BLOCK, NONE = int(ActionType.PERMIT), int(ActionType.BLOCK), int(ActionType.NONE)
RECEIVE = int(StreamFlags.RECEIVE)
SEND = int(StreamFlags.SEND)
STREAM_V4 = 20  # FWPS_LAYER_STREAM_V4


class Bad(Callout):
    """Breaks a rule at the first byte the client sends; permits everything else.

    Attributes:
        rule: what must be told.
        line: the text of the line that must be named.
    """

    rule = ""
    line = "def classify_fn"
    done = False

    def classify_fn(self, *call: Any) -> None:
        packet, out = call[2], call[-1]
        out.action_type = PERMIT
        data = packet.stream_data
        if data.data_length and not data.flags & RECEIVE and not self.done:
            self.done = True
            self.misbehave(call[1], packet, out)

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        raise NotImplementedError


class TooMuchEnforced(Bad):
    """An answer that is judged when the callback has returned."""

    rule = "V-8"

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        packet.count_bytes_enforced = packet.stream_data.data_length + 1


class NoAction(Bad):
    """An answer that is none."""

    rule = "V-6"

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        out.action_type = 77


class Deferring(Bad):
    """An answer that is not allowed here."""

    rule = "V-3"

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        packet.stream_action = int(StreamActionType.DEFER)
        out.action_type = NONE


class Raising(Bad):
    """An exception."""

    rule = "V-40"
    line = 'raise ValueError("broken")'

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        raise ValueError("broken")


class PassiveCall(Bad):
    """A call at the wrong level."""

    rule = "V-32"
    line = "self.fwps.injection_handle_create()"

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        self.fwps.injection_handle_create()


class UnreadMember(Bad):
    """A member without its bit."""

    rule = "V-30"
    line = "assert meta.process_id"

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        assert meta.process_id


class Leaking(Bad):
    """A buffer that nobody gives back, found a while after the flow's end."""

    rule = "V-23"
    line = "clone_stream_data(packet.stream_data)  # leaked"

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        self.fwps.clone_stream_data(packet.stream_data)  # leaked


class FreedTwice(Bad):
    """A buffer's life."""

    rule = "V-26"
    line = "discard_cloned_stream_data(clone)  # twice"

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        _, clone = self.fwps.clone_stream_data(packet.stream_data)
        self.fwps.discard_cloned_stream_data(clone)
        self.fwps.discard_cloned_stream_data(clone)  # twice


class TimerInjection(Bad):
    """A call outside of every callback, where the last decision was a permit."""

    rule = "V-21"
    line = "self.inject(flow_id, STREAM_V4, SEND"

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        self.after(0.0, self.later, meta.flow_handle)

    def later(self, flow_id: int) -> None:
        self.inject(flow_id, STREAM_V4, SEND, b"x")


class Notified(Bad):
    """A probe, when the callout goes."""

    rule = "V-54"
    line = "def notify_fn"

    def misbehave(self, meta: Any, packet: Any, out: Any) -> None:
        """Not here."""

    def notify_fn(self, notify_type: int, filter_key: Any, filter: Any) -> int:
        return NtStatus.STATUS_SUCCESS if notify_type < 3 else NtStatus.STATUS_INVALID_PARAMETER


class Failing(Worker):
    """An exception out of a coroutine."""

    async def run(self) -> None:
        await self.next()
        raise KeyError("broken worker")


class FailingWorker(OutOfBandCallout):
    rule = "V-40"
    line = 'raise KeyError("broken worker")'
    worker_class = Failing


EVERY_BAD: list[type[Any]] = [
    TooMuchEnforced, NoAction, Deferring, Raising, PassiveCall, UnreadMember, Leaking, FreedTwice, TimerInjection,
    Notified, FailingWorker,
]  # fmt: skip
