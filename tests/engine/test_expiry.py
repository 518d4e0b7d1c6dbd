"""OBJ-14: half-closed flows, and flows read to their end, have a time; it keeps nothing of those that have gone."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from tests.engine.test_bad_callouts import flow_of
from wfpstream.engine import EngineOptions, FilterEngine, Flow
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout

Half = Callable[[FilterEngine, Flow], None]


class PendingFin(Callout):
    """Takes every FIN, and never gives it back."""

    def classify_fn(self, *call: object) -> None:
        data = call[2].stream_data  # type: ignore[attr-defined]
        call[-1].action_type = ActionType.PERMIT if data.data_length else ActionType.BLOCK  # type: ignore[attr-defined]


def both_read(engine: FilterEngine, flow: Flow) -> None:
    """Both FINs were read; none is relayed."""
    flow.received_fin(0)
    flow.received_fin(1)
    engine.settle_output(flow)


def half_closed(engine: FilterEngine, flow: Flow) -> None:
    """The first FIN was relayed."""
    flow.received_fin(0)
    flow.fin_sent(0)
    engine.settle_output(flow)


def engine_for(span: str, clock: list[float]) -> FilterEngine:
    """Ten seconds for that."""
    options = EngineOptions()
    setattr(options.timeouts, span, 10.0)
    engine = FilterEngine(lambda: clock[0], options)
    if span == "both_read":
        engine.add_callout(PendingFin())
    return engine


CASES = [("both_read", both_read), ("half_closed", half_closed)]


@pytest.mark.parametrize(("span", "act"), CASES)
def test_each_flow_has_its_time_in_the_order_of_the_events(span: str, act: Half) -> None:
    clock = [100.0]
    engine = engine_for(span, clock)
    flows = [flow_of(engine) for _ in range(3)]
    for flow in (flows[1], flows[0], flows[2]):
        act(engine, flow)
        act(engine, flow)  # what comes later does not count
        clock[0] += 1.0
    ended: list[tuple[float, Flow]] = []
    while (due := engine.next_deadline) is not None and len(ended) < 3:
        clock[0] = due
        for flow in engine.turn():
            if flow.abort and flow not in [one for _, one in ended]:
                ended.append((clock[0], flow))
    assert ended == [(110.0, flows[1]), (111.0, flows[0]), (112.0, flows[2])]


@pytest.mark.parametrize(("span", "act"), CASES)
def test_who_has_ended_by_itself_is_left_alone(span: str, act: Half) -> None:
    clock = [0.0]
    engine = engine_for(span, clock)
    first, second = flow_of(engine), flow_of(engine)
    for flow in (first, second):
        act(engine, flow)
    first.gone("fin")
    clock[0] = 10.0
    assert engine.turn() == [second]
    second.gone("timeout")
    clock[0] = 100.0
    assert engine.turn() == []
    assert engine.next_deadline is None


@pytest.mark.parametrize(("span", "act"), CASES)
def test_nothing_is_kept_of_flows_that_have_gone(span: str, act: Half) -> None:
    """Thousands of connections a second, for two minutes each, are gigabytes."""
    clock = [0.0]
    engine = engine_for(span, clock)
    before = flows_in_memory()
    for _ in range(50):
        flow = flow_of(engine)
        act(engine, flow)
        flow.gone("fin")
        engine.turn()
    del flow
    # A lane that is still referred to by the engine's last action, and its flow, may be there.
    assert flows_in_memory() <= before + 1


def flows_in_memory() -> int:
    """Of any engine."""
    gc.collect()
    return sum(isinstance(one, Flow) for one in gc.get_objects())
