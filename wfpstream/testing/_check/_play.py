"""Playing one case of a check in memory, and what came of it.

Owns driving the memory driver piece by piece: windows, pauses, schedules, second connections, the end. It must not
know which outcome is right.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wfpstream.engine import EngineOptions, FilterEngine, Work
from wfpstream.fwp import NtStatus
from wfpstream.fwps import Callout
from wfpstream.testing._api_faults import FAILING_CALLS, ApiFaults, CallSite
from wfpstream.testing._memory_driver import FlowEnds, MemoryDriver, Peer
from wfpstream.testing._schedule import LateSchedule, PlannedSchedule, Schedule
from wfpstream.testing._world import EndState, Side

from ._samples import SIDES
from ._variation import Broken, Piece, Variation, pieces_of

Callouts = Callout | Sequence[Callout] | Callable[[FilterEngine], object]
Make = Callable[[], Callouts]
Unload = Callable[[], object]

# Virtual seconds a callout may take for what it has to do, and how often it may be woken meanwhile.
PATIENCE = 3600.0
WAKINGS = 5000

# Turns at one instant; more of them never end, and a search must not wait for each of its cases to find out.
_TURNS = 5000

# With a slow receiver the engine stops reading early, or no sample would ever meet back-pressure.
_SMALL_UNSENT = 64

# Without a way to abort a connection there would be no way out of anything that fails.
_MAY_FAIL = FAILING_CALLS - {"flow_abort"}

_WORK = (Work.ALL, Work.NONE, Work.FIRST, Work.LAST)


@dataclass(slots=True)
class Played:
    """What came of a case.

    Attributes:
        ends: what client and server have seen, of each connection.
        violations: the events of that name, in order.
        events: all events, if they were asked for.
        failure: the driver could not go on: what it said; "" if it could.
        open: after all its time, a connection was still there.
        calls: the API calls, if they were watched.
    """

    ends: list[tuple[EndState, EndState]] = field(default_factory=list)
    violations: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""
    open: bool = False
    calls: FailingCalls | None = None


class FailingCalls(ApiFaults):
    """Fails calls by their number in the run.

    Args:
        numbers: of the calls that fail, from 0.

    Attributes:
        sites: of each call, in order.
    """

    def __init__(self, numbers: Collection[int] = ()) -> None:
        super().__init__(calls=_MAY_FAIL)
        self.sites: list[CallSite] = []
        self._numbers = numbers
        self._fails = self._by_count

    def _by_count(self, site: CallSite, number: int) -> bool:
        self.sites.append(site)
        return len(self.sites) - 1 in self._numbers


class _Violations:
    """A sink that keeps violations; it asks for no other events, so that none are made."""

    wants_trace = False
    wants_data = "off"

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "violation":
            self.seen.append(event)


def play(
    make: Make,
    variation: Variation,
    options: EngineOptions,
    *,
    trace: bool = False,
    watch_calls: bool = False,
    answers: Mapping[Any, Any] | None = None,
) -> Played:
    """Play a case from the beginning, with callouts made anew.

    Args:
        make: makes the callouts, asked in the order given; or what adds them to an engine.
        variation: the case.
        options: what the case does not say itself; not changed.
        trace: keep every event.
        watch_calls: note the API calls.
        answers: what `Worker.call(fn, ...)` gets, by `fn`.
    """
    calls = FailingCalls(variation.fails) if variation.fails or watch_calls else None
    playing = _Play(variation, options, trace, calls)
    for async_fn, value in (answers or {}).items():
        playing.answer(async_fn, value)
    return playing.run(make)


def install(engine: FilterEngine, callouts: Callouts) -> Unload | None:
    """Add what a factory made. Returns what takes it away again, if the factory said it."""
    if isinstance(callouts, Callout):
        engine.add_callout(callouts)
    elif callable(callouts):
        unload = callouts(engine)
        return unload if callable(unload) else None
    else:
        for callout in callouts:
            engine.add_callout(callout)
    return None


def _options_of(variation: Variation, options: EngineOptions) -> EngineOptions:
    made = copy.deepcopy(options)
    if variation.need_more != "total":
        made.need_more_mode = variation.need_more
    if variation.early_completion:
        made.completion = "early"
    if variation.queued_delivery:
        made.inject_delivery = "queued"
    if variation.mdls > 1:
        made.indicate_mdls = variation.mdls
    if variation.workers == "early" or variation.holds:
        made.callbacks_per_turn = 1  # a turn, and with it a choice, between any two callbacks
    if any(window is not None for window in variation.windows):
        made.limits.unsent = min(made.limits.unsent, _SMALL_UNSENT)
    if variation.held_at_most is not None:
        made.limits.need_more_data = variation.held_at_most
    if variation.repeat_fin:
        made.repeat_fin = True
    return made


def _schedule_of(variation: Variation) -> Schedule | None:
    if variation.holds:
        return PlannedSchedule([_WORK[hold % len(_WORK)] for hold in variation.holds])
    return LateSchedule() if variation.workers == "late" else None


class _Play:
    def __init__(
        self, variation: Variation, options: EngineOptions, trace: bool, calls: FailingCalls | None
    ) -> None:
        self._variation = variation
        self._failing = calls
        self._driver = MemoryDriver(
            _options_of(variation, options), local=variation.local, schedule=_schedule_of(variation)
        )
        self._driver.most_turns = _TURNS
        self._sink = _Violations()
        self._driver.engine.add_sink(self._sink)
        if not trace:
            self._driver.engine.remove_sink(self._driver.events)
        self._flows: list[FlowEnds] = []
        self._pieces = self._all_pieces()
        self._at = 0
        self._calls = 0
        self._unload: Unload | None = None
        self._connected = False

    def _all_pieces(self) -> list[tuple[int, Piece]]:
        """(connection, piece), connections in turn; cut short where the conversation is broken off."""
        pieces = pieces_of(self._variation)
        broken = self._variation.broken
        if broken is not None:
            pieces = pieces[: broken.pieces]
        return [(number, piece) for piece in pieces for number in range(self._variation.connections)]

    def answer(self, async_fn: Any, value: Any) -> None:
        """As of the driver."""
        self._driver.answer(async_fn, value)

    def run(self, make: Make) -> Played:
        """The whole of it."""
        played = Played(calls=self._failing)
        try:
            if not self._begin(make):
                return played
            while self._at < len(self._pieces):
                self._next_piece()
                self._driver.settle()
                self._read_some()
                if self._variation.pause:
                    self._driver.advance(self._variation.pause)
            if self._variation.broken is not None:
                self._break_off(self._variation.broken)
            played.open = not self._wait_for_the_end()
            played.ends = [self._ends_of(flow) for flow in self._flows]
            if self._unload is not None:
                self._driver.engine.abort_flows()
                self._driver.catch_up()
                self._unload()
            self._driver.close()
        except Exception as error:
            played.ends = played.ends or [self._ends_of(flow) for flow in self._flows]
            played.failure = f"{type(error).__name__}: {error}"
        played.violations = self._sink.seen
        played.events = list(self._driver.events)
        return played

    def _begin(self, make: Make) -> bool:
        """Callouts, then connections; False: an API call failed, and with it the start, as it may."""
        engine, failing = self._driver.engine, self._failing
        if failing is not None:
            failing.install(engine)
        if self._variation.preempt:
            engine.put_judge(self._before_call)
        try:
            self._unload = install(engine, make())
        except Exception:
            if failing is None or not failing.failed:
                raise
            return False
        self._driver.settle()
        for _ in range(self._variation.connections):
            flow = self._driver.connect()
            if flow is None:
                continue
            for side, window in zip(SIDES, self._variation.windows, strict=True):
                if window is not None:
                    self._peer(flow, side).window = window
            self._flows.append(flow)
        self._connected = True
        if len(self._flows) < self._variation.connections:
            self._pieces = [each for each in self._pieces if each[0] < len(self._flows)]
        return True

    def _next_piece(self) -> None:
        number, piece = self._pieces[self._at]
        self._at += 1
        flow = self._flows[number]
        by_local = piece.by == self._variation.local
        if piece.end:
            (flow.send_fin if by_local else flow.receive_fin)()
        else:
            (flow.send if by_local else flow.receive)(piece.data)

    def _before_call(self, call: str) -> NtStatus | None:
        """An API call is about to be made: outside callbacks, the other side may get in between."""
        if self._connected and not self._driver.engine.in_callback:
            number, self._calls = self._calls, self._calls + 1
            if number in self._variation.preempt and self._at < len(self._pieces):
                self._next_piece()
        return self._failing.judge(call) if self._failing is not None else None

    def _read_some(self) -> None:
        """A slow receiver takes as much again."""
        for flow in self._flows:
            for side, window in zip(SIDES, self._variation.windows, strict=True):
                if window is not None:
                    self._peer(flow, side).read(window)

    def _break_off(self, broken: Broken) -> None:
        if broken.by is None:
            return
        for flow in self._flows:
            flow.reset("local" if broken.by == self._variation.local else "remote")

    def _wait_for_the_end(self) -> bool:
        """Windows open, time passes; False: it does not end."""
        driver = self._driver
        driver.catch_up()
        for flow in self._flows:
            for side, window in zip(SIDES, self._variation.windows, strict=True):
                if window is not None:
                    self._peer(flow, side).window = None
        driver.catch_up()
        if self._variation.broken is not None and self._variation.broken.by is None:
            return True
        give_up = driver.now + PATIENCE
        for _ in range(WAKINGS):
            if all(flow.ended for flow in self._flows):
                # What a callout still does with flows that are gone must not be missed.
                driver.advance(2 * driver.engine.options.verify.grace)
                return True
            instant = driver.next_instant()
            if instant is None or instant > give_up:
                break
            driver.advance(max(0.0, instant - driver.now))
        return all(flow.ended for flow in self._flows)

    def _peer(self, flow: FlowEnds, side: Side) -> Peer:
        return flow.local if side == self._variation.local else flow.remote

    def _ends_of(self, flow: FlowEnds) -> tuple[EndState, EndState]:
        client, server = (self._peer(flow, side) for side in SIDES)
        return _end_state(client), _end_state(server)


def _end_state(peer: Peer) -> EndState:
    return EndState(bytes(peer.data), peer.fin, peer.reset, tuple(peer.urgent))
