"""Nothing of a flow stays behind: freed at its end, without the garbage collector, however it ended."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from wfpstream.callouts import monitor
from wfpstream.callouts.monitor import Monitor
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.engine import Attempt, Endpoints, EngineOptions, FilterEngine, Flow
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, _lifecycle, _tracking

ITEM = memoryview(b"some bytes with a needle in them")
PER_FLOW = ("Flow", "Stage", "Lane", "Attempt", "Walk", "Establishing", "Frame", "Run", "MonitorLane")
WARM_UP, FLOWS = 100, 300  # more than is remembered of those that ended, and than the cancelled timers kept


class Keeper(Callout):
    """Has a context on each flow, and asks at every layer."""

    layers = ("ale_connect_redirect", "ale_auth_connect", "ale_flow_established", "stream")
    filter_action = "callout_inspection"

    def classify_fn(self, *call: Any) -> None:
        call[-1].action_type = int(ActionType.CONTINUE)

    def classify_ale_flow_established(self, *call: Any) -> None:
        flow_id, layer = call[1].flow_handle, call[0].layer_id
        self.fwps.flow_associate_context(flow_id, layer, self.callout_id(layer), self.fwps.track(object()))
        self.classify_fn(*call)

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        self.fwps.untrack(flow_context)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Door:
    """An engine and the driver's side of its border, without a driver's own memory."""

    def __init__(self, verify: str) -> None:
        options = EngineOptions()
        options.verify.level = verify
        options.timeouts.both_read = 120.0
        self.clock = Clock()
        self.engine = FilterEngine(self.clock, options)
        for callout in (Keeper(), Monitor(summary=False), StreamEdit("needle", "thread")):
            self.engine.add_callout(callout)
        self.engine.turn()

    def request(self) -> Attempt:
        self.clock.now += 0.001
        return self.engine.connection_requested(Endpoints(("10.0.0.1", 40000), ("10.0.0.2", 80)))

    def begin(self) -> Flow:
        attempt = self.request()
        attempt.connected_from(("10.0.0.3", 50000))
        flow = self.engine.flow_established(attempt)
        assert flow is not None
        for direction in (0, 1):
            flow.received(direction, ITEM)
            self.serve(flow)
        return flow

    def serve(self, flow: Flow, takes: bool = True) -> None:
        for _ in range(4):
            for direction in (0, 1):
                output = flow.output(direction)
                if output.length and takes:
                    flow.sent(direction, output.length)
                if output.fin and not output.length:
                    flow.fin_sent(direction)
            if self.engine.has_pending:
                self.engine.turn()
        self.engine.settle_output(flow)

    def fin(self, flow: Flow, takes: bool = True) -> None:
        for direction in (0, 1):
            flow.received_fin(direction)
            self.serve(flow, takes)


def end_well(door: Door) -> None:
    flow = door.begin()
    door.fin(flow)
    assert flow.ended
    flow.gone("fin")


def end_late(door: Door) -> None:
    """The receiver takes nothing for a while, so the limit of a flow that is read to its end is set."""
    flow = door.begin()
    flow.received(0, ITEM)
    door.fin(flow, takes=False)
    door.serve(flow)
    assert flow.ended
    flow.gone("fin")


def end_by_reset(door: Door) -> None:
    flow = door.begin()
    flow.received(1, ITEM)
    flow.reset(0, "rst_client")
    door.serve(flow)
    flow.gone("rst_client")


def end_by_abort(door: Door) -> None:
    flow = door.begin()
    door.engine.fwps.flow_abort(flow.id)
    door.engine.turn()
    flow.gone("abort")


def end_by_giving_up(door: Door) -> None:
    door.begin().gone("idle")


def never_connect(door: Door) -> None:
    door.request().failed("refused")


def leave_early(door: Door) -> None:
    door.request().gone()


ENDS: list[Callable[[Door], None]] = [
    end_well,
    end_late,
    end_by_reset,
    end_by_abort,
    end_by_giving_up,
    never_connect,
    leave_early,
]


@pytest.fixture(autouse=True)
def remember_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of flows that are over, for the verifier or for people, has limits; here they are low."""
    monkeypatch.setattr(monitor, "_KEPT", 20)
    monkeypatch.setattr(_lifecycle, "REMEMBERED_RESETS", 20)
    monkeypatch.setattr(_tracking, "REMEMBERED", 20)


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive() -> dict[str, int]:
    kinds = [type(each).__name__ for each in gc.get_objects()]
    return {name: kinds.count(name) for name in PER_FLOW}


@pytest.mark.usefixtures("without_collector")
@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("verify", ["off", "warn"])
def test_a_flow_is_freed_with_its_end(end: Callable[[Door], None], verify: str) -> None:
    door = Door(verify)
    for _ in range(30):
        end(door)
    before = alive()
    for _ in range(10):
        end(door)
    assert alive() == before


@pytest.mark.parametrize("end", ENDS)
def test_thousands_of_flows_leave_nothing(end: Callable[[Door], None]) -> None:
    door = Door("off")
    for _ in range(WARM_UP):
        end(door)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(WARM_UP):
            end(door)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(FLOWS):
            end(door)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < FLOWS * 60  # one entry of a dictionary costs more


@pytest.mark.usefixtures("without_collector")
def test_the_ledger_of_a_flow_that_is_over_can_still_be_read() -> None:
    door = Door("off")
    flow = door.begin()
    flow.received(0, ITEM)
    door.serve(flow)
    before = [flow.ledger(direction) for direction in (0, 1)]
    door.fin(flow)
    flow.gone("fin")
    assert [flow.ledger(direction) for direction in (0, 1)] == before
    assert before[0].blocked_original > 0
    assert all(len(ledger.stages) == 3 for ledger in before)
    assert not any(ledger.faults() for ledger in before)


def test_limits_of_flows_that_ended_do_not_pile_up() -> None:
    door = Door("off")
    living = door.begin()
    living.received(0, ITEM)
    door.fin(living, takes=False)  # its limit stays
    for _ in range(300):
        end_late(door)
    assert len(door.engine.fwps.core.timers) < 150
    assert door.engine.next_deadline == pytest.approx(120.001, abs=0.0005)
    door.clock.now += 120.0
    door.engine.turn()
    assert living.ended
    assert living.abort
