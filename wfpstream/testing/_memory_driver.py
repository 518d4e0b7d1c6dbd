"""The memory driver: an engine with two scripted peers, virtual time, and no event loop.

Owns the peers' windows and outboxes, the virtual clock and the order in which things happen. It must not know
pytest, sockets or trio; drivers of other worlds do with real ones what this does with lists.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from wfpstream.engine import (
    ABORT_FLUSH,
    ABORT_NONE,
    ABORT_NOW,
    YES,
    AddedCallout,
    Endpoints,
    EngineOptions,
    FilterEngine,
    Flow,
    Tap,
    Work,
    tapped,
)
from wfpstream.fwps import Callout, DirectionLedger, RunTime

from ._schedule import Schedule

SEND, RECEIVE = 0, 1
LEGS = {"local": 0, "remote": 1}
MAX_TURNS = 100_000


class Item(NamedTuple):
    """One thing a peer sent: data, an urgent byte, a FIN, or a hole where a capture has none of it."""

    kind: str
    data: bytes = b""
    push: bool | None = None
    missing: int = 0


class Peer:
    """One end of the connection as it sees it: what arrived, and how much more it takes.

    Attributes:
        data: bytes that arrived.
        fin: a FIN arrived behind them.
        reset: the connection was reset under it.
        window: None for unbounded, else how many more bytes it takes before the sender must wait.
        urgent: (offset in `data`, byte) of every urgent byte that arrived.
    """

    def __init__(self, ends: FlowEnds) -> None:
        self.data = bytearray()
        self.fin = False
        self.reset = False
        self.urgent: list[tuple[int, bytes]] = []
        self._window: int | None = None
        self._ends = ends
        self._read = 0

    @property
    def window(self) -> int | None:
        """How many more bytes this peer takes now."""
        return self._window

    @window.setter
    def window(self, size: int | None) -> None:
        self._window = size
        self._ends.serve()

    def read(self, count: int | None = None) -> bytes:
        """Take up to `count` bytes that arrived and were not read yet; opens the window by as much."""
        end = len(self.data) if count is None else min(len(self.data), self._read + count)
        taken = bytes(self.data[self._read : end])
        self._read = end
        if self._window is not None:
            self.window = self._window + len(taken)
        return taken

    def take(self, pieces: list[memoryview], urgent: bool) -> int:
        """The driver writes: as much as the window allows."""
        if self.reset:
            return 0
        taken = 0
        for piece in pieces:
            room = len(piece) if self._window is None else min(len(piece), self._window)
            if urgent and room:
                self.urgent.append((len(self.data), bytes(piece[:room])))
            self.data += piece[:room]
            taken += room
            if self._window is not None:
                self._window -= room
            if room < len(piece):
                break
        return taken


class FlowEnds:
    """A flow in memory: both peers, and what they have not been able to send yet."""

    def __init__(self, driver: MemoryDriver, flow: Flow) -> None:
        self.flow = flow
        self.local = Peer(self)
        self.remote = Peer(self)
        self._driver = driver
        self._io = flow  # as the peers use it: with a tap in between, if there is one
        if driver.tap is not None:
            driver.tap.joined(flow.number, "client", None, flow.endpoints.client)
            driver.tap.joined(flow.number, "upstream", None, flow.endpoints.destination)
            self._io = tapped(flow, driver.tap)
        self._outbox: tuple[deque[Item], deque[Item]] = (deque(), deque())
        self._serving = False
        self._gone = False
        self._buffer = bytearray()
        self.flushing_until: float | None = None

    # -- what tests say --------------------------------------------------------------------------------

    def send(self, data: bytes, urgent: bool = False, fin: bool = False, push: bool | None = None) -> None:
        """The local host sends `data` (SEND); `fin` sends a FIN in the same read, `push` is a captured PSH."""
        self._put(SEND, data, urgent, fin, push)

    def receive(self, data: bytes, urgent: bool = False, fin: bool = False, push: bool | None = None) -> None:
        """The remote host sends `data` (RECEIVE)."""
        self._put(RECEIVE, data, urgent, fin, push)

    def send_fin(self) -> None:
        """The local host half-closes."""
        self._put_item(SEND, Item("fin"))

    def receive_fin(self) -> None:
        """The remote host half-closes."""
        self._put_item(RECEIVE, Item("fin"))

    def gap(self, direction: int, length: int) -> None:
        """As in a capture: the next `length` bytes of that direction (0 SEND, 1 RECEIVE) are missing for good."""
        self._put_item(direction, Item("gap", missing=length))

    def midstream(self) -> None:
        """As in a capture: the beginning of this connection is missing. Before anything is sent."""
        self.flow.midstream()
        self.serve()
        self._driver.settle()

    def reset(self, who: str) -> None:
        """`who` ("local" or "remote") resets its connection."""
        leg = LEGS[who]
        (self.local, self.remote)[leg].reset = True
        self._drain_outbox_before_reset(leg)
        self._io.reset(leg, f"reset by {who}")
        self._driver.settle()
        self.serve()

    # -- what tests ask --------------------------------------------------------------------------------

    @property
    def id(self) -> int:
        """FLOW_HANDLE."""
        return self.flow.id

    @property
    def ended(self) -> bool:
        """Every callback of the flow is over."""
        return self.flow.ended

    def ledger(self, direction: int) -> DirectionLedger:
        """The byte ledger of a direction."""
        return self.flow.ledger(direction)

    def may_read(self, direction: int) -> int:
        """The engine's level for that direction."""
        return self.flow.may_read(direction)

    def pending_input(self, direction: int) -> int:
        """Bytes the sender could not get rid of, because the direction is not read."""
        return sum(len(item.data) for item in self._outbox[direction])

    # -- the driver's cycle ----------------------------------------------------------------------------

    def _put(self, direction: int, data: bytes, urgent: bool, fin: bool, push: bool | None) -> None:
        kind = "urgent" if urgent else "data+fin" if fin else "data"
        self._put_item(direction, Item(kind, bytes(data), push))

    def _put_item(self, direction: int, item: Item) -> None:
        self._outbox[direction].append(item)
        self.serve()
        self._driver.settle()

    def serve(self) -> None:
        """Feed what may be read, write what is owed, until nothing moves."""
        if self._serving:
            return
        self._serving = True
        try:
            moved = True
            while moved:
                moved = self._write(SEND) | self._write(RECEIVE)
                self._obey_abort()
                for direction in (SEND, RECEIVE):
                    moved |= self._feed(direction)
            self._driver.engine.settle_output(self.flow)  # may meet a memory limit
            self._obey_abort()
        finally:
            self._serving = False

    def _feed(self, direction: int) -> bool:
        """One input, if the direction may be read: every input has the receive buffer to itself."""
        outbox = self._outbox[direction]
        if not outbox or self.flow.may_read(direction) != YES:
            return False
        kind, data, push, missing = outbox.popleft()
        if kind == "fin":
            self._io.received_fin(direction)
        elif kind == "gap":
            self.flow.gap(direction, missing)
        else:
            self._buffer = bytearray(data)
            self._io.received(direction, self._buffer, kind == "urgent", kind == "data+fin", push)
            self._write(SEND)
            self._write(RECEIVE)
            self._driver.engine.settle_output(self.flow)
            self._buffer[:] = b"\xee" * len(self._buffer)  # the next read overwrites it
        return True

    def _drain_outbox_before_reset(self, leg: int) -> None:
        """IND-27: a leg paused by back-pressure is read to its end first; deferred, it is discarded and counted."""
        outbox = self._outbox[leg]
        deferred = bool(leg) and self.flow.is_deferred()
        while outbox:
            kind, data, push, missing = outbox.popleft()
            if kind == "fin":
                continue
            if kind == "gap":
                self.flow.gap(leg, missing)
            elif deferred:
                self.flow.unread(leg, len(data))
            else:
                self._io.received(leg, data, urgent=kind == "urgent", push=push)
                self._driver.engine.settle_output(self.flow)

    def _write(self, direction: int) -> bool:
        """Write one direction's output to its receiver as far as the window goes."""
        output = self.flow.output(direction)
        peer = self.remote if direction == SEND else self.local
        moved = False
        while output.length and not peer.reset:
            pieces, urgent = output.batch()
            taken = peer.take(pieces, urgent)
            if not taken:
                break
            moved = True
            self._io.sent(direction, taken)
        if output.fin and not output.length and not peer.reset:
            peer.fin = True
            self._io.fin_sent(direction)
            moved = True
        return moved

    def _obey_abort(self) -> None:
        abort = self.flow.abort
        if abort == ABORT_NONE:
            if self.flow.ended and not self._gone:
                self._let_go()
            return
        if abort == ABORT_FLUSH and not self._flushed():
            return
        if abort in (ABORT_NOW, ABORT_FLUSH):
            self.local.reset = self.remote.reset = True
            self._let_go()

    def _flushed(self) -> bool:
        """IND-18: owed bytes first, at most for `timeouts.reset_flush`."""
        if not (self.flow.output(SEND).length or self.flow.output(RECEIVE).length):
            return True
        driver = self._driver
        if self.flushing_until is None:
            self.flushing_until = driver.now + driver.engine.options.timeouts.reset_flush
            driver.at(self.flushing_until, self.serve)
        return driver.now >= self.flushing_until

    def _let_go(self) -> None:
        if not self._gone and self.flow.ended:
            self._gone = True
            self.flow.gone()


class EventList(list[dict[str, Any]]):
    """A sink that keeps every event."""

    wants_data = "full"

    def __call__(self, event: dict[str, Any]) -> None:
        self.append(event)


class MemoryDriver:
    """Runs an engine in memory.

    Args:
        options: engine options; the default verifies (`warn`) under virtual time.
        local: which side is the local host of flows made by `connect`.
        tap: sees what both peers of every flow send and get, and may cut what they send.
        schedule: says in each turn what timers and workers may do; without one all of it, at once.

    Attributes:
        most_turns: turns after which an engine that does not come to rest is given up.
    """

    def __init__(
        self,
        options: EngineOptions | None = None,
        local: str = "client",
        engine: FilterEngine | None = None,
        tap: Tap | None = None,
        schedule: Schedule | None = None,
    ):
        if options is None:
            options = EngineOptions()
            options.verify.level = "warn"
        options.verify.virtual_time = True
        self.now = 0.0
        self.closed = False
        self.local = local
        self.tap = tap
        self.most_turns = MAX_TURNS
        self._schedule = schedule
        self.events = EventList()
        self.engine = engine or FilterEngine(lambda: self.now, options)
        self.engine.add_sink(self.events)
        self.engine.on_pending = self._note_pending
        self.engine.run_soon = self._run_soon
        self.engine.spawn_call = self._answer_call
        self.flows: list[FlowEnds] = []
        self._by_id: dict[int, FlowEnds] = {}
        self._soon: deque[Callable[[], None]] = deque()
        self._answers: dict[Any, Any] = {}
        self._alarms: list[tuple[float, int, Callable[[], None]]] = []
        self._settling = False
        self._next_port = 40000

    # -- short cuts ------------------------------------------------------------------------------------

    @property
    def fwps(self) -> RunTime:
        """The run time."""
        return self.engine.fwps

    @property
    def session(self) -> Any:
        """A management session."""
        return self.engine.session

    @property
    def violations(self) -> list[str]:
        """Rule ids of the violations reported so far, in order."""
        return [event["rule"] for event in self.events if event["event"] == "violation"]

    def add(self, callout: Callout, **filter_options: Any) -> AddedCallout:
        """Register a callout in a sublayer of its own, lighter than those added before."""
        added = self.engine.add_callout(callout, **filter_options)
        self.settle()
        return added

    def answer(self, async_fn: Any, value: Any) -> None:
        """Give the answer that a worker's `call(async_fn, ...)` gets; a callable is asked with the arguments."""
        self._answers[async_fn] = value

    # -- connections -----------------------------------------------------------------------------------

    def connect(
        self,
        client: tuple[str, int] | None = None,
        server: tuple[str, int] = ("10.0.0.2", 80),
        listener: str = "",
        local: str | None = None,
        **endpoint_options: Any,
    ) -> FlowEnds | None:
        """Open a connection. None when it was blocked; a pended one is waited for."""
        endpoints = Endpoints(
            client=client or ("10.0.0.1", self._port()),
            destination=server,
            listener=listener,
            local=local or self.local,
            **endpoint_options,
        )
        attempt = self.engine.connection_requested(endpoints)
        self.settle()
        if attempt.verdict == "pended":
            self.run_until(lambda: attempt.verdict != "pended")
        if attempt.verdict != "permit":
            return None
        return self.establish(attempt, endpoints)

    def establish(self, attempt: Any, endpoints: Endpoints) -> FlowEnds | None:
        """The upstream of a permitted attempt is connected."""
        flow = self.engine.flow_established(attempt, endpoints)
        if flow is None:
            return None
        ends = FlowEnds(self, flow)
        self.flows.append(ends)
        self._by_id[flow.id] = ends
        self.settle()
        ends.serve()
        return ends

    def _port(self) -> int:
        self._next_port += 1
        return self._next_port - 1

    # -- time and turns --------------------------------------------------------------------------------

    def at(self, when: float, fn: Callable[[], None]) -> None:
        """Call `fn` when virtual time reaches `when`."""
        self._alarms.append((when, len(self._alarms), fn))

    def settle(self) -> None:
        """Give the engine turns until nothing is pending at the present instant.

        With a schedule: until nothing is pending that it does not hold back.
        """
        self._settle(patient=True)

    def catch_up(self) -> None:
        """As `settle`, but what the schedule holds back happens too, as soon as nothing else can."""
        self._settle(patient=False)

    def _settle(self, *, patient: bool) -> None:
        if self._settling:
            return
        self._settling = True
        try:
            for _ in range(self.most_turns):
                while self._soon:
                    self._soon.popleft()()
                work = self._next_work(patient)
                if work is None:
                    return
                for flow in self.engine.turn(work):
                    self._serve(flow)
            raise AssertionError(f"the engine did not come to rest within {self.most_turns} turns")
        finally:
            self._settling = False

    def _next_work(self, patient: bool) -> Work | None:
        """What timers and workers may do in the next turn; None if there is nothing to have a turn for."""
        engine = self.engine
        if self._schedule is None or not engine.work_waits:
            return Work.ALL if engine.has_pending or engine.work_waits else None
        work = self._schedule.choose()
        if work is Work.NONE and not engine.has_pending:
            return None if patient else Work.FIRST
        return work

    def _serve(self, flow: Flow) -> None:
        ends = self._by_id.get(flow.id)
        if ends is not None:
            ends.serve()

    def advance(self, seconds: float) -> None:
        """Let virtual time pass; timers, workers and alarms run in order of their instants."""
        end = self.now + seconds
        self.catch_up()
        while True:
            instant = self.next_instant()
            if instant is None or instant > end:
                break
            self.now = max(self.now, instant)
            self._run_alarms()
            self.catch_up()
        self.now = end
        self.catch_up()

    def next_instant(self) -> float | None:
        """When something is due next, seconds of virtual time; None if nothing is."""
        instants = [when for when, _, _ in self._alarms]
        deadline = self.engine.next_deadline
        if deadline is not None:
            instants.append(deadline)
        return min(instants, default=None)

    def _run_alarms(self) -> None:
        due = sorted(a for a in self._alarms if a[0] <= self.now)
        self._alarms = [a for a in self._alarms if a[0] > self.now]
        for _, _, fn in due:
            fn()

    def run_until(self, predicate: Callable[[], bool], limit: float = 3600.0) -> None:
        """Let time pass from instant to instant until `predicate()`; AssertionError after `limit` seconds."""
        end = self.now + limit
        self.catch_up()
        while not predicate():
            instant = self.next_instant()
            if instant is None or instant > end:
                raise AssertionError("nothing left to wait for")
            self.advance(max(0.0, instant - self.now))

    def _note_pending(self) -> None:
        """The engine asks for a turn: `settle` sees `has_pending`."""

    def _run_soon(self, fn: Callable[[], None]) -> None:
        self._soon.append(fn)

    def _answer_call(self, async_fn: Any, args: tuple[Any, ...], deliver: Any) -> None:
        if async_fn not in self._answers:
            error = RuntimeError(f"no answer was given for {async_fn!r}; use MemoryDriver.answer")
            self._soon.append(lambda: deliver(None, error))
            return
        value = self._answers[async_fn]
        if inspect.isfunction(value):
            value = value(*args)
        self._soon.append(lambda: deliver(value, None))

    # -- the end ---------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the engine: flows are aborted, leaks reported; AssertionError when a ledger does not close."""
        self.closed = True
        self.engine.stop()
        self.catch_up()
        for ends in self.flows:
            ends.serve()
            ends.flow.gone("stop")
        faults = [e["text"] for e in self.events if e["event"] == "ledger_fault"]
        if faults:
            raise AssertionError("the byte ledger does not close: " + "; ".join(faults))

    def __enter__(self) -> MemoryDriver:
        return self

    def __exit__(self, *exc: object) -> None:
        if exc[0] is None:
            self.close()
