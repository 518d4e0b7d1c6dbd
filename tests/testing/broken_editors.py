"""Editors that replace a word in the stream: four that are right, and many that are wrong in one place each.

Owns the seeded faults that `check_callout` must find. Each broken editor differs from a right one in the few lines it
overrides; what the fault is stands in its docstring.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from wfpstream.fwp import ActionType
from wfpstream.fwps import (
    Callout,
    ClassifyOutFlags,
    NetBufferList,
    StreamActionType,
    StreamData,
    StreamFlags,
)

WORD, OTHER = b"rainy", b"dry"

RECEIVE = int(StreamFlags.RECEIVE)
SEND = int(StreamFlags.SEND)
FIN = int(StreamFlags.RECEIVE_DISCONNECT | StreamFlags.SEND_DISCONNECT)
UNTOUCHED = int(
    StreamFlags.RECEIVE_ABORT
    | StreamFlags.SEND_ABORT
    | StreamFlags.RECEIVE_EXPEDITED
    | StreamFlags.SEND_EXPEDITED
)
CANNOT_WAIT = int(ClassifyOutFlags.NO_MORE_DATA | ClassifyOutFlags.BUFFER_LIMIT_REACHED)


def right(direction: str, data: bytes) -> bytes:
    """What a right editor makes of a direction."""
    return data.replace(WORD, OTHER)


def beginning_at_end(data: bytes, longest: int = len(WORD) - 1) -> int:
    """Length of the longest end of `data` that is a beginning of the word."""
    return next((n for n in range(min(longest, len(data)), 0, -1) if data.endswith(WORD[:n])), 0)


@dataclass
class Indication:
    """One call of classifyFn, in short."""

    flow: int
    layer: int
    packet: Any
    out: Any

    @property
    def stream(self) -> StreamData:
        stream: StreamData = self.packet.stream_data
        return stream

    @property
    def direction(self) -> int:
        return int(self.stream.flags) & (SEND | RECEIVE)

    @property
    def last(self) -> bool:
        """Nothing more will come, or may be waited for."""
        return bool(int(self.out.flags) & CANNOT_WAIT)

    def permit(self, count: int = 0) -> None:
        self.out.action_type = ActionType.PERMIT
        self.packet.count_bytes_enforced = count

    def block(self, count: int = 0) -> None:
        self.out.action_type = ActionType.BLOCK
        self.packet.count_bytes_enforced = count

    def need_more(self, count: int) -> None:
        self.packet.stream_action = StreamActionType.NEED_MORE_DATA
        self.packet.count_bytes_required = count
        self.out.action_type = ActionType.NONE


class Editor(Callout):
    """What all editors do alike: resets and urgent bytes pass."""

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: Any,
    ) -> None:
        call = Indication(in_meta_values.flow_handle, in_fixed_values.layer_id, layer_data, classify_out)
        if int(call.stream.flags) & UNTOUCHED:
            call.permit()
        else:
            self.decide(call)

    def decide(self, call: Indication) -> None:
        raise NotImplementedError

    def put_in(self, call: Indication, data: bytes) -> None:
        """Inject into the direction of the indication; without room for it, the connection is dropped."""
        if data and not self.inject(call.flow, call.layer, call.direction, data).ok:
            self.drop(call)

    def drop(self, call: Indication) -> None:
        call.packet.stream_action = StreamActionType.DROP_CONNECTION
        call.out.action_type = ActionType.NONE


# -- waits for the rest of a word (NEED_MORE_DATA) ----------------------------------------------------------------


class Waiting(Editor):
    """Right: permits what is no word, waits behind the beginning of one, blocks it and injects the other."""

    def decide(self, call: Indication) -> None:
        data = call.stream.tobytes()
        at = data.find(WORD)
        if at > 0:
            call.permit(at)
        elif at == 0:
            self.replace(call)
        else:
            self.without_word(call, data, self.tail(data))

    def replace(self, call: Indication) -> None:
        call.block(len(WORD))
        self.put_in(call, OTHER)

    def tail(self, data: bytes) -> int:
        return beginning_at_end(data)

    def without_word(self, call: Indication, data: bytes, tail: int) -> None:
        if not tail:
            call.permit()
        elif tail < len(data):
            call.permit(len(data) - tail)
        elif call.last:
            call.permit()
        else:
            call.need_more(tail + 1)


class OffByOne(Waiting):
    """A word whose last byte alone is missing is not waited for."""

    def tail(self, data: bytes) -> int:
        return beginning_at_end(data, len(WORD) - 2)


class BorderIgnored(Waiting):
    """A word must be in one segment."""

    def tail(self, data: bytes) -> int:
        return 0


class PermitZero(Waiting):
    """Takes a permit of 0 bytes for "nothing"; it permits everything (ACT-8)."""

    def without_word(self, call: Indication, data: bytes, tail: int) -> None:
        if tail and not call.last:
            call.permit(len(data) - tail)
        else:
            call.permit()


class AsksAtTheEnd(Waiting):
    """Asks for more where no more can come (V-5)."""

    def without_word(self, call: Indication, data: bytes, tail: int) -> None:
        if tail and tail == len(data):
            call.need_more(tail + 1)
        else:
            super().without_word(call, data, tail)


class WrongDirection(Waiting):
    """Injects into SEND, whichever way the word went (V-21)."""

    def put_in(self, call: Indication, data: bytes) -> None:
        self.inject(call.flow, call.layer, SEND, data)


class FinNotAnswered(Waiting):
    """Leaves the FIN without an answer (V-6)."""

    def decide(self, call: Indication) -> None:
        if not int(call.stream.flags) & FIN:
            super().decide(call)


class BlocksTooMuch(Waiting):
    """Blocks a whole word where only its beginning is there (V-8)."""

    def without_word(self, call: Indication, data: bytes, tail: int) -> None:
        if tail == len(WORD) - 1 == len(data):
            self.replace(call)
        else:
            super().without_word(call, data, tail)


class RefusalUnseen(Waiting):
    """Does not look whether the injection was accepted: then the word is gone, and nothing is in its place."""

    def put_in(self, call: Indication, data: bytes) -> None:
        self.inject(call.flow, call.layer, call.direction, data)


class OncePerIndication(Waiting):
    """Looks for one word in an indication and permits the rest unseen."""

    def __init__(self) -> None:
        self.replaced = False

    def decide(self, call: Indication) -> None:
        if self.replaced and not int(call.stream.flags) & FIN:
            self.replaced = False
            call.permit()
        else:
            super().decide(call)

    def replace(self, call: Indication) -> None:
        super().replace(call)
        self.replaced = True


# -- waits for the end (NEED_MORE_DATA without a bound) -------------------------------------------------------------


class AtTheEnd(Editor):
    """Right: waits for the whole stream, and edits it at its end, or as much as there is at the limit."""

    def decide(self, call: Indication) -> None:
        data = call.stream.tobytes()
        if not data:
            call.permit()
        elif self.may_wait(call):
            call.need_more(len(data) + 1)
        else:
            self.edit(call, data)

    def may_wait(self, call: Indication) -> bool:
        return not call.last

    def edit(self, call: Indication, data: bytes) -> None:
        call.block()
        self.put_in(call, data.replace(WORD, OTHER))


class LimitUnseen(AtTheEnd):
    """Asks for more where no more will be held (V-2)."""

    def may_wait(self, call: Indication) -> bool:
        return not int(call.out.flags) & int(ClassifyOutFlags.NO_MORE_DATA)


class HalfAtTheLimit(AtTheEnd):
    """Decides on the first half of what there is at the limit (V-13)."""

    def edit(self, call: Indication, data: bytes) -> None:
        if int(call.out.flags) & int(ClassifyOutFlags.BUFFER_LIMIT_REACHED) and len(data) > 1:
            call.permit(len(data) // 2)
        else:
            super().edit(call, data)


# -- keeps a copy of what may begin a word --------------------------------------------------------------------------


class Copying(Editor):
    """Right: blocks everything and injects it edited; the beginning of a word is kept in a private copy."""

    def __init__(self) -> None:
        self.copies: dict[Any, bytes] = {}

    def key(self, call: Indication) -> Any:
        return call.flow, call.direction

    def decide(self, call: Indication) -> None:
        kept = self.copies.pop(self.key(call), b"")
        if int(call.stream.flags) & FIN:
            self.at_fin(call, kept)
            return
        data = kept + call.stream.tobytes()
        edited = data.replace(WORD, OTHER)
        tail = beginning_at_end(data)
        self.copies[self.key(call)] = data[len(data) - tail :]
        call.block()
        self.put_in(call, edited[: len(edited) - tail])

    def at_fin(self, call: Indication, kept: bytes) -> None:
        call.permit()
        self.put_in(call, kept)


class CopyForgotten(Copying):
    """At the FIN the private copy is forgotten."""

    def at_fin(self, call: Indication, kept: bytes) -> None:
        call.permit()


class CopyShared(Copying):
    """One private copy for both directions."""

    def key(self, call: Indication) -> Any:
        return call.flow


class CopyOfAll(Copying):
    """One private copy for all connections."""

    def key(self, call: Indication) -> Any:
        return call.direction


class CopyTwice(Copying):
    """What was kept is kept again when a single byte follows it."""

    def decide(self, call: Indication) -> None:
        if call.stream.data_length == 1 and call.stream.tobytes() == WORD[1:2]:
            self.copies[self.key(call)] = self.copies.get(self.key(call), b"") + WORD[1:2]
        super().decide(call)


# -- out of band ------------------------------------------------------------------------------------------------------


@dataclass
class Pended:
    """What the worker has to do for one direction of a flow."""

    flow: int
    layer: int
    direction: int
    queue: deque[tuple[NetBufferList, bytes, bool]] = field(default_factory=deque)
    kept: bytes = b""
    asked: bool = False
    busy: bool = False
    used: bool = False


class OutOfBand(Editor):
    """Right: clones and blocks everything, FIN too; a work item edits and injects it, the FIN behind the last byte."""

    def __init__(self) -> None:
        self.pended: dict[tuple[int, int], Pended] = {}

    def decide(self, call: Indication) -> None:
        pended = self.pended.get((call.flow, call.direction))
        if pended is None:
            for direction in (SEND, RECEIVE):
                self.pended[call.flow, direction] = Pended(call.flow, call.layer, direction)
            pended = self.pended[call.flow, call.direction]
            self.fwps.flow_associate_context(call.flow, call.layer, self.callout_id(call.layer), call.flow)
        self.pend(call, pended)

    def pend(self, call: Indication, pended: Pended) -> None:
        status, chain = self.fwps.clone_stream_data(call.stream)
        if chain is None or not status.ok:
            self.drop(call)
            return
        call.block()
        pended.queue.append((chain, call.stream.tobytes(), bool(int(call.stream.flags) & FIN)))
        if not pended.asked:
            pended.asked = True
            self.after(0.0, self.work, pended)

    def work(self, pended: Pended) -> None:
        pended.asked = False
        while pended.queue:
            chain, data, fin = self.take(pended)
            if fin:
                self.edit(pended, pended.kept, b"")
                self.end(pended, chain)
            else:
                self.fwps.discard_cloned_stream_data(chain)
                data = pended.kept + data
                self.edit(pended, data, data[len(data) - beginning_at_end(data) :])

    def take(self, pended: Pended) -> tuple[NetBufferList, bytes, bool]:
        return pended.queue.popleft()

    def edit(self, pended: Pended, data: bytes, kept: bytes) -> None:
        pended.kept = kept
        edited = data[: len(data) - len(kept)].replace(WORD, OTHER)
        if edited and not self.put_out(pended, edited):
            self.fwps.flow_abort(pended.flow)

    def put_out(self, pended: Pended, data: bytes) -> bool:
        return self.inject(pended.flow, pended.layer, pended.direction, data).ok

    def end(self, pended: Pended, chain: NetBufferList) -> None:
        flag = StreamFlags.RECEIVE_DISCONNECT if pended.direction == RECEIVE else StreamFlags.SEND_DISCONNECT
        status = self.fwps.stream_inject_async(
            self.injection_handle,
            None,
            0,
            pended.flow,
            self.callout_id(pended.layer),
            pended.layer,
            pended.direction | int(flag),
            chain,
            0,
            self.fin_injected,
            None,
        )
        if not status.ok:
            self.not_injected(pended, chain)

    def not_injected(self, pended: Pended, chain: NetBufferList) -> None:
        self.fwps.discard_cloned_stream_data(chain)
        self.fwps.flow_abort(pended.flow)

    def fin_injected(self, context: Any, nbl: NetBufferList, dispatch_level: bool) -> None:
        self.fwps.free_clone_net_buffer_list(nbl)

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        for direction in (SEND, RECEIVE):
            pended = self.pended.pop((flow_context, direction), None)
            while pended is not None and pended.queue:
                chain, _, _ = pended.queue.popleft()
                self.fwps.discard_cloned_stream_data(chain)


class CloneLeaks(OutOfBand):
    """A clone is not given back when its injection is refused (V-23)."""

    def not_injected(self, pended: Pended, chain: NetBufferList) -> None:
        self.fwps.flow_abort(pended.flow)


class QueueLeaks(OutOfBand):
    """What still waits when the flow ends is forgotten, clones and all (V-23)."""

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        for direction in (SEND, RECEIVE):
            pended = self.pended.pop((flow_context, direction), None)
            if pended is not None:
                pended.queue.clear()


class FinOvertakes(OutOfBand):
    """Permits the FIN while data waits for the worker (V-17)."""

    def pend(self, call: Indication, pended: Pended) -> None:
        if int(call.stream.flags) & FIN:
            call.permit()
        else:
            super().pend(call, pended)


class NewestFirst(OutOfBand):
    """The worker takes what came last first."""

    def take(self, pended: Pended) -> tuple[NetBufferList, bytes, bool]:
        return pended.queue.pop()


class InlineAgain(OutOfBand):
    """Decides inline again once nothing waits (V-17w)."""

    def pend(self, call: Indication, pended: Pended) -> None:
        fresh = pended.used and not pended.queue and not pended.kept
        pended.used = True
        if fresh and WORD[:1] not in call.stream.tobytes() and call.stream.data_length:
            call.permit()
        else:
            super().pend(call, pended)


class GoneMeanwhile(OutOfBand):
    """The worker looks its flow up, which may be gone by then (V-40)."""

    def work(self, pended: Pended) -> None:
        super().work(self.pended[pended.flow, pended.direction])


class FreedTooEarly(OutOfBand):
    """Frees the clone after the injection and again in its completion (V-26)."""

    def end(self, pended: Pended, chain: NetBufferList) -> None:
        super().end(pended, chain)
        self.fwps.free_clone_net_buffer_list(chain)


class MarkedTooLate(OutOfBand):
    """One injection at a time, noted behind the call: a completion may have come before (CMP-14)."""

    def work(self, pended: Pended) -> None:
        pended.asked = False
        if pended.busy or not pended.queue:
            return
        chain, data, fin = self.take(pended)
        if fin:
            self.edit(pended, pended.kept, b"")
            self.end(pended, chain)
            return
        self.fwps.discard_cloned_stream_data(chain)
        data = pended.kept + data
        self.edit(pended, data, data[len(data) - beginning_at_end(data) :])
        if not pended.busy:
            self.after(0.0, self.work, pended)

    def put_out(self, pended: Pended, data: bytes) -> bool:
        _, nbl = self.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, data, 0, len(data))
        if nbl is None:
            return False
        status = self.fwps.stream_inject_async(
            self.injection_handle,
            None,
            0,
            pended.flow,
            self.callout_id(pended.layer),
            pended.layer,
            pended.direction,
            nbl,
            len(data),
            self.injected,
            pended,
        )
        if not status.ok:
            self.fwps.free_net_buffer_list(nbl)
            return False
        pended.busy = True
        return True

    def injected(self, pended: Pended, nbl: NetBufferList, dispatch_level: bool) -> None:
        self.fwps.free_net_buffer_list(nbl)
        pended.busy = False
        self.after(0.0, self.work, pended)


class AsksOutOfBand(OutOfBand):
    """Waits for the rest of a word in classifyFn, as if its worker saw what that one sees, and forgets its own part."""

    def pend(self, call: Indication, pended: Pended) -> None:
        data = call.stream.tobytes()
        if beginning_at_end(data) == len(data) > 0 and not call.last:
            call.need_more(len(WORD) - len(data))
        elif data and beginning_at_end(data) == len(data):
            call.permit()
        else:
            super().pend(call, pended)


RIGHT = (Waiting, AtTheEnd, Copying, OutOfBand)
