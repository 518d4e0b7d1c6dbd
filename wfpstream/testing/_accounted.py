"""`accounted`: a callout's own count of the bytes it was shown, held against what it was shown (V-56, V-57).

Owns the comparison. It must not know how a callout counts: the callout says it, and nobody else can. Nothing here is
called for a callout that is not wrapped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from wfpstream.fwps import Callout, RunTime, StreamActionType, StreamFlags

# `fwps._violations` looks through frames of this module: the callout behind them is the place of a violation.
_PASSES_CALLS_ON = True

C = TypeVar("C", bound=Callout)

Count = Callable[[int, bool], int | None]

_INBOUND = int(StreamFlags.RECEIVE)
_END = int(StreamFlags.RECEIVE_DISCONNECT | StreamFlags.SEND_DISCONNECT)
_ABORT = int(StreamFlags.RECEIVE_ABORT | StreamFlags.SEND_ABORT)
_URGENT = int(StreamFlags.RECEIVE_EXPEDITED | StreamFlags.SEND_EXPEDITED)
_NONE = int(StreamActionType.NONE)
_DROP = int(StreamActionType.DROP_CONNECTION)
_ALLOW = int(StreamActionType.ALLOW_CONNECTION)


def accounted(callout: C, count: Count) -> C:
    """Have a callout's count of bytes checked after each classify at the stream layer.

    A callout that keeps a count of the bytes it has been shown can count wrong: after a decision on a part of an
    indication it is shown the rest once more, by itself, and those bytes are not new (IND-11). Only the callout knows
    its count, so it has to say it.

    Args:
        callout: before it is added; its `classify_stream` is wrapped, the object stays the same.
        count: called as count(flow_handle, inbound) after each classify; how many bytes of that direction the callout
            has been shown since the flow began, by its own count; None: it does not count on this flow. Urgent bytes do
            not count.

    A count that is higher or lower than what was shown is V-56; one that has grown after the FIN of its direction is
    V-57. Where it differs it is told once, and the difference is forgiven from then on. Returns `callout`.
    Source: the assertions of the WFP sample stmedit; Stream Inspection.
    """
    inner = getattr(callout, "classify_stream", None) or callout.classify_fn
    books: dict[tuple[int, bool], _Book] = {}

    def classify(*call: Any) -> None:
        meta, packet, out = call[1], call[2], call[-1]
        data = packet.stream_data
        flags, length, handle = int(data.flags), data.data_length, meta.flow_handle
        inner(*call)
        key = (handle, bool(flags & _INBOUND))
        if flags & _ABORT or packet.stream_action in (_DROP, _ALLOW):
            for inbound in (False, True):
                books.pop((handle, inbound), None)
            return
        if flags & _URGENT:
            return
        book = books.setdefault(key, _Book())
        fresh = book.note(length, packet, bool(flags & _END))
        said = count(*key)
        if said is not None:
            book.compare(callout.fwps, said, fresh)
        if book.ended and books.get((handle, not key[1]), book).ended:
            _forget_ended(books, callout.fwps)
        assert out is not None

    classify.__wrapped__ = inner  # type: ignore[attr-defined]  # the place of a violation is the callout's own
    callout.classify_stream = classify  # type: ignore[attr-defined]
    return callout


class _Book:
    """What one direction of one flow was shown."""

    __slots__ = ("ended", "forgiven", "held", "shown")

    def __init__(self) -> None:
        self.shown = 0
        self.held = 0  # shown and not decided: shown once more, with what is new behind it
        self.ended = False
        self.forgiven = 0

    def note(self, length: int, packet: Any, ends: bool) -> int:
        """An indication of `length` bytes and its answer; how many of them were new."""
        fresh = max(0, length - self.held)
        self.shown += fresh
        if packet.stream_action != _NONE:
            self.held = length
        else:
            decided = packet.count_bytes_enforced
            self.held = length - decided if 0 < decided <= length else 0
        self.ended = self.ended or ends
        return fresh

    def compare(self, run_time: RunTime, said: int, fresh: int) -> None:
        difference = said - self.shown - self.forgiven
        if not difference:
            return
        self.forgiven += difference
        if self.ended and difference > 0 and not fresh:
            text = f"{difference} bytes counted after the FIN of their direction"
            run_time.report("V-57", text)
        else:
            run_time.report("V-56", f"{said} bytes counted, {self.shown} shown")


def _forget_ended(books: dict[tuple[int, bool], _Book], run_time: RunTime) -> None:
    """Books of flows that are no more; asked only where a flow has come to its end."""
    for handle, inbound in list(books):
        if handle not in run_time.core.flows:
            del books[handle, inbound]
