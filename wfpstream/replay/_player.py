"""The replay driver: one engine, capture time, and the streams of a capture as its flows.

Owns the virtual clock, what is due when, and the traffic between a stream and its flow in both directions. A completion
comes as soon as its bytes have left the engine, at that instant of capture time. It must not know files, frames or how
streams are found.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from socket import AF_INET, AF_INET6, inet_ntop
from typing import TYPE_CHECKING, Any, cast

from wfpstream.engine import (
    ABORT_NONE,
    Endpoints,
    FilterEngine,
    Flow,
)

from ._feed import Feed
from ._order import DUE

if TYPE_CHECKING:
    from ._half import Half
    from ._options import ReplayOptions
    from ._order import Order
    from ._results import Address
    from ._stream import Stream

EngineFactory = Callable[[Callable[[], float]], FilterEngine]
"""Makes the engine, with its callouts, on the clock it is given (seconds)."""

_MAX_TURNS = 100_000
NEVER = 1 << 63
# Captures say anything; a time of theirs beyond this (the year 2116; pcap ends before) does not move the clock.
LATEST_NS = 1 << 62
# Reasons in a StreamResult that no `flow_deleted` gives.
BLOCKED, REFUSED, LIMIT, OPEN, EVICTED, NONE = "blocked", "refused", "limit", "open", "evicted", "none"


class Player:
    """Plays the streams of one capture to one engine.

    Args:
        make_engine: makes the engine on the clock of this player.
        options: how to replay.
        start_ns: capture time at which the engine's clock is 0, ns.
        on_closed: hears of every stream whose flow is over.
        order: is told what happens between packets, and when.
        answers: what `Worker.call(fn, ...)` gets, by `fn`; a callable is asked with the arguments.
    """

    def __init__(
        self,
        make_engine: EngineFactory,
        options: ReplayOptions,
        start_ns: int,
        on_closed: Callable[[Stream], None],
        order: Order,
        answers: Mapping[Any, Any] | None = None,
    ) -> None:
        self.options = options
        self.last_wins = options.overlap == "last"
        self.ahead_limit = options.ahead
        self.ahead_total = options.ahead_total
        self.ahead_bytes = self.backlog_bytes = 0
        self.start_ns = start_ns
        self.due_ns = NEVER
        self.order = order
        order.now_ns = start_ns
        self.engine = make_engine(self._clock)
        self.engine.use_virtual_time()
        self._settle_output = self.engine.settle_output
        self.engine.on_pending = self._note_pending
        self.engine.run_soon = self._run_soon
        self.engine.spawn_call = self._answer_call
        self.on_closed = on_closed
        self._answers = dict(answers or {})
        self._wanted = self.engine.has_pending
        self._turning = False
        self._soon: deque[Callable[[], None]] = deque()
        self._agenda: list[tuple[int, int, int, Callable[[], None]]] = []
        self._serial = 0
        self._streams: dict[int, Stream] = {}  # by flow id
        self._serving: set[int] = set()

    # -- time ------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """Capture time, ns."""
        return self.order.now_ns

    def _clock(self) -> float:
        """The engine's clock: seconds of capture time since its start, a function of the instant and nothing else."""
        return (self.order.now_ns - self.start_ns) / 1e9

    def run_until(self, time_ns: int) -> None:
        """Everything due up to then, instant by instant: runs and holes of the streams first, then the engine."""
        self.order.hold(DUE)
        time_ns = min(time_ns, NEVER - 1)
        while self.due_ns <= time_ns:
            self.order.now_ns = max(self.due_ns, self.order.now_ns)
            agenda = self._agenda
            while agenda and agenda[0][0] <= self.now_ns:
                heapq.heappop(agenda)[3]()
            self._wanted = True
            self._turns()
        self.order.release()

    def back_to(self, time_ns: int) -> None:
        """The capture has ended and nothing is due any more: streams are taken down at instants of their own."""
        self.order.now_ns = time_ns

    def _look_at_clock(self) -> None:
        """When is the next thing due?"""
        due = self._agenda[0][0] if self._agenda else NEVER
        deadline = self.engine.next_deadline
        if deadline is not None:
            due = min(due, self.start_ns + first_ns_at(deadline))
        self.due_ns = due

    def _at(self, due_ns: int, stream: Stream, fn: Callable[[], None]) -> None:
        self._serial += 1
        heapq.heappush(self._agenda, (due_ns, stream.first_packet, self._serial, fn))
        self.due_ns = min(self.due_ns, due_ns)

    def flush_at(self, due_ns: int, feed: Feed) -> None:
        """Look at a run again at that instant."""
        self._at(due_ns, feed.stream, feed.flush_if_due)

    def check_at(self, due_ns: int, stream: Stream, half: Half) -> None:
        """Look at a hole again at that instant."""
        self._at(due_ns, stream, lambda: stream.check_hole(half, self.now_ns))

    # -- connections -----------------------------------------------------------------------------------

    def opened(self, stream: Stream) -> None:
        """The client is known: ask the connection layers."""
        client = stream.client
        assert client is not None
        local_is_client = self.options.local == "client"
        for half in stream.halves:
            outbound = (half is client) == local_is_client
            half.feed = Feed(self, stream, 0 if outbound else 1)
        one, other = feeds_of(stream)
        one.other, other.other = other, one
        source, destination = addresses_of(client.key)
        endpoints = Endpoints(source, destination, local=self.options.local, label=stream.number)
        stream.is_waiting = True
        if stream.attempt is not None and stream.writer is not None:
            stream.writer.syn_again(self.now_ns)
        stream.ended = ""
        stream.attempt = self.engine.connection_requested(endpoints)
        if stream.attempt.verdict == "block":
            self._shut(stream, BLOCKED)
        self._after_call()

    def established(self, stream: Stream) -> None:
        """The connection is there; so is the flow, unless a layer before still thinks."""
        attempt = stream.attempt
        if not stream.is_waiting or attempt is None:
            return
        if attempt.verdict == "pended":
            attempt.on_verdict = lambda: self._soon.append(lambda: self._decided(stream))
            return
        flow = self.engine.flow_established(attempt)
        if flow is None:
            self._shut(stream, BLOCKED)
            self._after_call()
            return
        stream.flow = flow
        stream.is_waiting = False
        for feed in feeds_of(stream):
            feed.output = flow.output(feed.direction)
        self._streams[flow.id] = stream
        if stream.writer is not None:
            stream.writer.established(self.now_ns)
        if stream.midstream:
            flow.midstream()
        self.serve(stream)

    def _decided(self, stream: Stream) -> None:
        """A pended attempt has its verdict."""
        attempt = stream.attempt
        if not stream.is_waiting or attempt is None or attempt.verdict == "pended":
            return
        if attempt.verdict == "block":
            self._shut(stream, BLOCKED)
        else:
            self.established(stream)

    def refused(self, stream: Stream, by_server: bool) -> None:
        """A reset before the connection was there."""
        if not stream.is_waiting or stream.attempt is None:
            return
        if by_server:
            stream.attempt.failed("refused")
        else:
            stream.attempt.gone()
        if stream.writer is not None:
            stream.writer.refused(self.now_ns)
        self._shut(stream, REFUSED)
        self._after_call()

    def was_reset(self, stream: Stream, half: Half) -> None:
        """One side reset the connection: what is held back of it counts as the live drivers do (IND-27)."""
        for feed in feeds_of(stream):
            feed.flush()
        flow = stream.flow
        if flow is None:
            if stream.is_waiting and stream.attempt is not None:
                stream.attempt.gone()
                self._shut(stream, "rst_client" if half is stream.client else "rst_upstream")
            return
        self._empty_backlogs(stream, flow)
        if stream.flow is flow:
            flow.reset(cast(Feed, half.feed).direction, "captured")
            self.serve(stream)

    def _empty_backlogs(self, stream: Stream, flow: Flow) -> None:
        """A paused leg is read to its end before its reset counts; a deferred one is not, and counted (IND-27)."""
        for feed in feeds_of(stream):
            if feed.direction and flow.is_deferred():
                flow.unread(feed.direction, feed.drop_backlog())
            while stream.flow is flow and feed.feed_one(flow, force=True):
                self._write(stream, flow)
                self.engine.settle_output(flow)

    def overflow(self, stream: Stream) -> None:
        """More waits for the verdict on a pended connection than a sender could have sent ahead."""
        if stream.attempt is not None:
            stream.attempt.gone()
        self._shut(stream, LIMIT)

    def _shut(self, stream: Stream, reason: str) -> None:
        """No flow, or none any more: what still comes is only counted."""
        if stream.is_waiting and reason in (BLOCKED, LIMIT) and stream.writer is not None:
            attempt = stream.attempt
            if attempt is not None and attempt.verdict == "block" and attempt.close_as == "fin":
                stream.writer.fin(self.now_ns, 1)  # behind a handshake: the client was accepted (LAY-21)
            else:
                stream.writer.refused(self.now_ns)
        stream.is_waiting = False
        stream.ended = reason
        for feed in feeds_of(stream):
            feed.drop_backlog()
        self.on_closed(stream)

    # -- items -----------------------------------------------------------------------------------------

    def written(self, stream: Stream, flow: Flow, feed: Feed, data: bytes) -> None:
        """Take what left after `data` went in; usually that is `data` itself, and no second digest is needed."""
        output, back = feed.output, feed.other.output
        if feed.sha_out is None:
            length = len(data)
            if output.length == length:
                pieces, _ = output.batch()
            if output.length != length or len(pieces) != 1 or pieces[0].obj is not data:
                feed.sha_out = feed.sha_in.copy()
            else:
                feed.bytes_out += length
                if stream.writer is not None:
                    stream.writer.data(self.now_ns, feed.stream_direction, pieces)
                flow.sent(feed.direction, length)
        if output.length or back.length or output.fin_run is not None or back.fin_run is not None:
            self._write(stream, flow)

    def settled(self, stream: Stream, flow: Flow) -> None:
        """After an input and what it let out: memory, other flows, the flow's end."""
        self._settle_output(flow)
        if self._wanted:
            self._turns()
        if flow.abort or flow.ended:
            self._conclude(stream, flow)

    def serve(self, stream: Stream) -> None:
        """Move bytes both ways until nothing moves."""
        flow = stream.flow
        if flow is None or flow.id in self._serving:
            return
        self._serving.add(flow.id)
        stream.moved_ns = self.now_ns
        try:
            moved = True
            while moved:
                moved = self._write(stream, flow)
                for feed in feeds_of(stream):
                    if flow.abort == ABORT_NONE and feed.feed_one(flow):
                        moved = True
                        self._write(stream, flow)
                        self.engine.settle_output(flow)
        finally:
            self._serving.discard(flow.id)
        self.settled(stream, flow)

    def _write(self, stream: Stream, flow: Flow) -> bool:
        """The receivers take everything at once; that is when injections complete."""
        moved = False
        for feed in feeds_of(stream):
            output = flow.output(feed.direction)
            while output.length:
                pieces, urgent = output.batch()
                feed.left(pieces)
                if stream.writer is not None:
                    if urgent:
                        stream.writer.urgent(self.now_ns, feed.stream_direction, bytes(pieces[0]))
                    else:
                        stream.writer.data(self.now_ns, feed.stream_direction, pieces)
                flow.sent(feed.direction, sum(map(len, pieces)))
                moved = True
            if output.fin:
                if stream.writer is not None:
                    stream.writer.fin(self.now_ns, feed.stream_direction)
                flow.fin_sent(feed.direction)
                moved = True
        return moved

    def _conclude(self, stream: Stream, flow: Flow) -> None:
        """The flow is over: by itself, or because it has to be aborted."""
        if stream.flow is not flow:
            return
        self._write(stream, flow)
        if flow.abort != ABORT_NONE and stream.writer is not None:
            self._write_reset(stream, flow)
        self._let_go(stream, flow, flow.end_reason)

    def _write_reset(self, stream: Stream, flow: Flow) -> None:
        """A captured reset goes on where it came from; one of our own making goes to both sides."""
        assert stream.writer is not None
        resetting = [cast(Feed, half.feed).stream_direction for half in stream.halves if half.rst]
        for direction in resetting or (1, 0):
            stream.writer.reset(self.now_ns, direction)

    def _let_go(self, stream: Stream, flow: Flow, reason: str) -> None:
        stream.flow = None
        flow.gone(reason)
        self._streams.pop(flow.id, None)
        for feed in feeds_of(stream):
            feed.settle_accounts(flow)
        self._shut(stream, flow.end_reason or reason)

    def end(self, stream: Stream, reason: str) -> None:
        """The capture, or our patience, is at its end before the connection: take the flow down."""
        if stream.attempt is not None:
            for feed in feeds_of(stream):
                feed.flush()
        if stream.flow is not None:
            flow = stream.flow
            self.serve(stream)
            if stream.flow is flow:
                self._let_go(stream, flow, "stop")
        elif stream.is_waiting and stream.attempt is not None:
            stream.attempt.gone()
            self._shut(stream, reason)
        stream.ended = reason if stream.ended in ("", "stop") else stream.ended
        self._after_call()

    # -- turns -----------------------------------------------------------------------------------------

    def _after_call(self) -> None:
        if self._wanted or self._soon:
            self._turns()

    def _turns(self) -> None:
        """Give the engine its turns until it rests at the present instant; within one, the outer loop goes on."""
        if self._turning:
            return
        self._turning = True
        try:
            self._take_turns()
        finally:
            self._turning = False
            self._look_at_clock()

    def _take_turns(self) -> None:
        engine = self.engine
        for _ in range(_MAX_TURNS):
            self._wanted = False
            while self._soon:
                self._soon.popleft()()
            for flow in engine.turn():
                stream = self._streams.get(flow.id)
                if stream is not None:
                    self.serve(stream)
            deadline = engine.next_deadline
            if not (self._wanted or self._soon or (deadline is not None and deadline <= self._clock())):
                return
        raise RuntimeError(f"the engine did not come to rest within {_MAX_TURNS} turns")

    def _note_pending(self) -> None:
        self._wanted = True

    def _run_soon(self, fn: Callable[[], None]) -> None:
        self._soon.append(fn)
        self._wanted = True

    def _answer_call(self, async_fn: Any, args: tuple[Any, ...], deliver: Any) -> None:
        if async_fn not in self._answers:
            error = RuntimeError(f"no answer was given for {async_fn!r}: replay has no event loop")
            self._run_soon(lambda: deliver(None, error))
            return
        value = self._answers[async_fn]
        answer = value(*args) if callable(value) else value
        self._run_soon(lambda: deliver(answer, None))


def feeds_of(stream: Stream) -> tuple[Feed, Feed]:
    """Both directions of a stream that was opened here."""
    one, other = stream.halves
    return cast(Feed, one.feed), cast(Feed, other.feed)


def first_ns_at(seconds: float) -> int:
    """The first nanosecond that is not before `seconds` on a clock of floating seconds."""
    if seconds > NEVER / 1e9:
        return NEVER
    found = round(seconds * 1e9)
    while found / 1e9 < seconds:
        found += 1
    return found


def addresses_of(key: bytes) -> tuple[Address, Address]:
    """Source and destination of a direction's key: both addresses as in the header, then both ports."""
    size = (len(key) - 4) // 2
    family = AF_INET if size == 4 else AF_INET6
    ports = key[-4:]
    return (
        (inet_ntop(family, key[:size]), int.from_bytes(ports[:2], "big")),
        (inet_ntop(family, key[size : 2 * size]), int.from_bytes(ports[2:], "big")),
    )
