"""Calls that take longer than one may: whose flows are served last, what is on the stack, and who tells of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.test_bad_callouts import Slow, flow_of
from wfpstream.engine import EngineOptions, FilterEngine, Flow
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, LayerId, OutOfBandCallout, Worker


def engine_with(
    *callouts: Callout, clock: list[float], turn: float = 0.1, budget: float = 0.01
) -> FilterEngine:
    """An engine on that clock."""
    options = EngineOptions()
    options.timeouts.turn, options.verify.callback_budget = turn, budget
    engine = FilterEngine(lambda: clock[0], options)
    for callout in callouts:
        engine.add_callout(callout)
    return engine


@pytest.mark.parametrize(
    ("seconds", "turn", "budget", "overruns", "slow"),
    [
        (0.05, 0.1, 0.01, 1, 0),
        (0.15, 0.1, 0.01, 1, 1),
        (0.005, 0.1, 0.01, 0, 0),
        (0.05, 0.02, 5.0, 1, 1),  # a call may never take more than a turn
        (0.05, 0.0, 0.01, 0, 0),  # switched off
    ],
)
def test_the_flow_of_a_call_that_overran_is_known_to_the_driver(
    seconds: float, turn: float, budget: float, overruns: int, slow: int
) -> None:
    clock = [0.0]
    engine = engine_with(Slow(clock, seconds), clock=clock, turn=turn, budget=budget)
    flow, other = flow_of(engine), flow_of(engine)
    flow.received(0, memoryview(b"x"))
    assert engine.overruns.flows == ({flow.id} if overruns else set())
    assert engine.counters.get("overruns", 0) == overruns
    assert engine.counters.get("slow_callbacks", 0) == slow
    assert other.id not in engine.overruns.flows


def test_what_the_driver_has_seen_to_is_forgotten_until_the_next_time() -> None:
    clock = [0.0]
    engine = engine_with(Slow(clock, 0.05), clock=clock)
    flow, flows = flow_of(engine), engine.overruns.flows
    for _ in range(3):
        flow.received(0, memoryview(b"x"))
        assert engine.overruns.flows is flows
        assert flows == {flow.id}
        flows.discard(flow.id)
    assert engine.counters["overruns"] == 3


def test_a_flow_that_has_gone_is_not_waited_upon() -> None:
    clock = [0.0]
    engine = engine_with(Slow(clock, 0.05), clock=clock)
    flow = flow_of(engine)
    flow.received(0, memoryview(b"x"))
    flow.gone("stop")
    assert engine.overruns.flows == set()


def test_time_that_is_not_real_overruns_nothing() -> None:
    """VRF-3: in a replay the clock is the capture's."""
    clock = [0.0]
    engine = engine_with(Slow(clock, 5.0), clock=clock)
    engine.use_virtual_time()
    flow = flow_of(engine)
    flow.received(0, memoryview(b"x"))
    assert (engine.overruns.flows, engine.counters.get("overruns", 0)) == (set(), 0)


def test_an_engine_that_is_watched_leaves_the_telling_to_the_watchdog() -> None:
    """The longest of each callout, once, until it is asked for again."""
    clock = [0.0]
    slow = Slow(clock, 0.15)
    engine = engine_with(slow, clock=clock)
    events: list[dict[str, Any]] = []
    engine.add_sink(events.append)
    overruns = engine.overruns
    overruns.watched = True
    flow = flow_of(engine)
    for slow.seconds in (0.15, 0.25, 0.2, 0.05):
        flow.received(0, memoryview(b"x"))
    before = overruns.has_longest
    ((name, call),) = overruns.take_longest().items()
    assert name == "Slow"
    assert call.seconds == pytest.approx(0.25)
    assert call.where is not None
    assert call.where.startswith(Slow.classify_fn.__code__.co_filename)
    assert (before, overruns.has_longest) == (True, False)
    assert overruns.take_longest() == {}
    assert engine.counters["slow_callbacks"] == 3
    assert not [event for event in events if event["event"] == "slow_callback"]


def test_a_callout_is_named_for_its_own_time_only() -> None:
    """What the thread waited for a processor is not its own; its flow is served last all the same: others waited."""
    clock, waited = [0.0], [0.0]

    class Waiting(Slow):
        def classify_fn(self, *call: Any) -> None:
            waited[0] += self.waits
            super().classify_fn(*call)

        waits = 0.0

    slow = Waiting(clock, 0.15)
    engine = engine_with(slow, clock=clock)
    engine.overruns.waited = lambda: waited[0]
    engine.overruns.watched = True
    engine.overruns.look()
    flow = flow_of(engine)
    slow.waits = 0.1
    flow.received(0, memoryview(b"x"))
    assert engine.overruns.take_longest() == {}
    assert (engine.overruns.flows, engine.counters["overruns"]) == ({flow.id}, 1)
    assert "slow_callbacks" not in engine.counters
    slow.waits = 0.02
    flow.received(0, memoryview(b"x"))
    ((_, call),) = engine.overruns.take_longest().items()
    assert call.seconds == pytest.approx(0.13)
    assert engine.counters["slow_callbacks"] == 1


def test_own_time_goes_by_the_last_look_before_the_call() -> None:
    clock, waited = [0.0], [0.0]
    overruns = engine_with(clock=clock).overruns
    overruns.waited = lambda: waited[0]
    assert overruns.own_time(0.0, 1.0) == 1.0
    for second in range(20):
        clock[0], waited[0] = float(second), second / 2
        overruns.look()
    clock[0], waited[0] = 20.0, 10.0
    assert overruns.own_time(18.5, 20.0) == pytest.approx(
        0.5
    )  # of the second since the look at 18 half was waiting
    assert overruns.own_time(18.0, 20.0) == pytest.approx(1.0)
    assert overruns.own_time(0.0, 20.0) == pytest.approx(16.0)  # nobody remembers: in doubt it is blamed
    # A driver that has gone, and another thread's: what the former knew is nothing to the latter.
    overruns.count_waiting(None)
    assert overruns.own_time(18.5, 20.0) == 1.5
    overruns.count_waiting(lambda: 0.25)
    assert overruns.own_time(18.5, 20.0) == 1.5


class Everywhere(Callout):
    """Slow wherever it is told to be."""

    layers = ("ale_auth_connect", "ale_flow_established", "stream")

    def __init__(self, clock: list[float], where: str) -> None:
        self.clock, self.where = clock, where
        self.timers = 0

    def take_time(self, where: str) -> None:
        if where == self.where:
            self.clock[0] += 0.15

    def classify_fn(self, *call: Any) -> None:
        layer = LayerId(call[0].layer_id)
        call[-1].action_type = int(ActionType.CONTINUE)
        self.take_time(layer.name.rpartition("_")[0].lower())
        if layer.name.startswith("STREAM") and call[2].stream_data.data_length:
            call[-1].action_type = int(ActionType.PERMIT)
            handle, ident = call[1].flow_handle, call[0].layer_id
            if not self.timers:
                self.fwps.flow_associate_context(handle, ident, self.callout_id(ident), 7)
                for _ in range(3):
                    self.after(1.0, self.tick)

    def tick(self) -> None:
        self.timers += 1
        self.take_time("timer")

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        self.take_time("flow_delete")


@pytest.mark.parametrize(
    ("where", "calls"),
    [("ale_auth_connect", 1), ("ale_flow_established", 1), ("timer", 3), ("flow_delete", 1), ("nowhere", 0)],
)
def test_every_callback_has_the_same_budget_and_is_named(where: str, calls: int) -> None:
    clock = [0.0]
    engine = engine_with(Everywhere(clock, where), clock=clock)
    engine.overruns.watched = True
    flow = flow_of(engine)
    assert engine.overruns.newcomer is where.startswith("ale_")
    flow.received(0, memoryview(b"x"))
    clock[0] += 2.0
    while engine.has_pending:
        engine.turn()
    flow.gone("stop")
    assert engine.overruns.flows == set()
    assert engine.counters.get("overruns", 0) == engine.counters.get("slow_callbacks", 0) == calls
    longest = engine.overruns.take_longest()
    assert list(longest) == ["Everywhere"] * bool(calls)
    assert all(call.seconds == pytest.approx(0.15) for call in longest.values())


@pytest.mark.parametrize(("where", "turns"), [("timer", [1, 2, 3]), ("nowhere", [3, 3, 3])])
def test_of_timers_that_overrun_one_runs_per_turn(where: str, turns: list[int]) -> None:
    clock = [0.0]
    callout = Everywhere(clock, where)
    engine = engine_with(callout, clock=clock)
    flow = flow_of(engine)
    flow.received(0, memoryview(b"x"))
    engine.turn()
    clock[0] += 2.0
    found = []
    for _ in turns:
        engine.turn()
        found.append(callout.timers)
    assert found == turns


# --- what is on the stack -----------------------------------------------------------------------------


class Looking(Callout):
    """Notes what is said to be on the stack, in every kind of callback."""

    look: Callable[[], object]

    def __init__(self, clock: list[float]) -> None:
        self.clock = clock
        self.found: list[tuple[str, object]] = []

    def note(self, kind: str) -> None:
        """A second later than the callback began."""
        self.clock[0] += 1.0
        self.found.append((kind, self.look()))

    def classify_fn(self, *call: Any) -> None:
        call[-1].action_type = ActionType.PERMIT
        layer_id = call[0].layer_id
        self.note("classify")
        self.fwps.flow_associate_context(call[1].flow_handle, layer_id, self.callout_id(layer_id), 7)
        self.after(1.0, self.note, "timer")

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        self.note("flow_delete")

    def notify_fn(self, notify_type: int, filter_key: object, filter: object) -> int:
        if hasattr(self, "look"):
            self.note("notify")
        return 0


def test_every_callback_can_be_seen_on_the_stack_and_since_when() -> None:
    clock = [10.0]
    looking = Looking(clock)
    engine = engine_with(clock=clock)
    added = engine.add_callout(looking)
    looking.look = engine.overruns.on_stack
    flow = flow_of(engine)
    assert engine.overruns.on_stack() is None
    began = []
    for act in (lambda: flow.received(0, memoryview(b"x")), engine.turn, lambda: flow.gone("stop")):
        began.append(clock[0])
        act()
        clock[0] = round(clock[0]) + 1.0
        assert engine.overruns.on_stack() is None
    assert looking.found[:2] == [("classify", ("Looking", began[0])), ("timer", ("Looking", began[1]))]
    assert looking.found[-1] == ("flow_delete", ("Looking", clock[0] - 2.0))
    looking.found.clear()
    began = [clock[0]]
    engine.remove_callout(added)
    assert looking.found[0] == ("notify", ("Looking", began[0]))
    assert engine.overruns.on_stack() is None


# --- out of band --------------------------------------------------------------------------------------


class Grinding(Worker):
    """Works on each item, inline, as long as its callout says."""

    async def run(self) -> None:
        callout = self.callout
        assert isinstance(callout, GrindingCallout)
        while (item := await self.next()).kind == "data":
            callout.clock[0] += callout.seconds
            callout.stack = self.callout.fwps.core.overruns.on_stack()
            await self.inject(item)
        if item.kind == "end":
            await self.inject_fin()


class GrindingCallout(OutOfBandCallout):
    """One worker per direction."""

    worker_class = Grinding

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds
        self.stack: object = None


def drained(flow: Flow) -> bytes:
    """What the flow has for its receiver, which takes it."""
    output = flow.output(0)
    data = b"".join(bytes(view) for view in output.batch()[0]) if output.length else b""
    flow.sent(0, len(data))
    return data


@pytest.mark.parametrize(("seconds", "turns"), [(0.05, [b"a", b"b", b"c", b""]), (0.001, [b"abc", b""])])
def test_a_worker_that_overruns_has_one_item_per_turn(seconds: float, turns: list[bytes]) -> None:
    """It waits for nothing but its turn, and loses nothing; a quick one goes through all that it has."""
    clock = [0.0]
    callout = GrindingCallout(clock, seconds)
    engine = engine_with(callout, clock=clock)
    flow = flow_of(engine)
    for item in (b"a", b"b", b"c"):
        flow.received(0, memoryview(item))
        engine.settle_output(flow)
    came = []
    for _ in turns:
        engine.turn()
        came.append(drained(flow))
    assert came == turns
    assert callout.stack is not None
    assert engine.overruns.on_stack() is None
    assert (flow.id in engine.overruns.flows) is (seconds > 0.01)
    assert not engine.has_pending
    flow.received_fin(0)
    engine.turn()
    assert flow.output(0).fin


def test_the_end_of_a_flow_ends_a_worker_that_overruns() -> None:
    clock = [0.0]
    engine = engine_with(GrindingCallout(clock, 0.05), clock=clock)
    flow = flow_of(engine)
    for item in (b"a", b"b"):
        flow.received(0, memoryview(item))
        engine.settle_output(flow)
    engine.turn()
    flow.reset(0, "rst_client")
    engine.turn()
    flow.gone("rst_client")
    engine.turn()
    assert engine.flows == []
    assert engine.counters.get("ledger_faults", 0) == 0
    assert not engine.has_pending


def test_workers_that_overrun_take_turns_and_a_quick_one_is_not_kept_for_ever() -> None:
    """One late step ends a turn; who had to wait comes first in the next one, whatever the flows' order."""
    clock = [0.0]
    callout = GrindingCallout(clock, 0.05)
    engine = engine_with(callout, clock=clock)
    flows = [flow_of(engine) for _ in range(3)]
    for flow in flows:
        for item in (b"a", b"b"):
            flow.received(0, memoryview(item))
            engine.settle_output(flow)
    came = []
    while engine.has_pending:
        engine.turn()
        came.append([drained(flow) for flow in flows])
    first_of_each, then = came[:3], came[3:6]
    for turns, item in ((first_of_each, b"a"), (then, b"b")):
        assert [sum(map(len, turn)) for turn in turns] == [1, 1, 1]
        assert [b"".join(column) for column in zip(*turns, strict=True)] == [item] * 3
    assert not any(any(turn) for turn in came[6:])


def test_a_worker_that_waits_for_the_next_turn_may_be_ended_meanwhile() -> None:
    clock = [0.0]
    engine = engine_with(GrindingCallout(clock, 0.05), clock=clock)
    first, second = flow_of(engine), flow_of(engine)
    for flow in (first, second):
        flow.received(0, memoryview(b"a"))
        engine.settle_output(flow)
    engine.turn()
    assert (drained(first), drained(second)) == (b"a", b"")
    second.reset(0, "rst_client")
    second.gone("rst_client")
    while engine.has_pending:
        engine.turn()
    assert engine.flows == [first]
    assert engine.counters.get("ledger_faults", 0) == 0
