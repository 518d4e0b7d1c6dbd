"""The engine's half of handing a flow over (ALW-7, ALW-8): when it wants it, and what it counts."""

from __future__ import annotations

from typing import Any

import pytest

from wfpstream.engine import ABORT_FLUSH, ABORT_NOW, Endpoints, FilterEngine, Flow
from wfpstream.fwp import ActionType, CalloutFlags
from wfpstream.fwps import Callout, StreamActionType, StreamFlags


class AllowsAfter(Callout):
    """Answers ALLOW_CONNECTION at the n-th call, PERMIT before."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def classify_fn(self, *call: Any) -> None:
        packet, out = call[2], call[-1]
        self.left -= 1
        out.action_type = ActionType.PERMIT
        if self.left <= 0:
            out.action_type = ActionType.NONE
            packet.stream_action = StreamActionType.ALLOW_CONNECTION


class MidStream(AllowsAfter):
    flags = CalloutFlags.ALLOW_MID_STREAM_INSPECTION


def flow_with(*callouts: Callout) -> tuple[FilterEngine, Flow]:
    engine = FilterEngine(lambda: 0.0)
    for callout in callouts:
        engine.add_callout(callout)
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    return engine, flow


def write(flow: Flow, direction: int) -> None:
    flow.sent(direction, flow.output(direction).length)


def test_alw_7_wanted_only_when_every_stage_is_inactive_for_good() -> None:
    """ALW-7: a callout that may still be asked keeps the flow."""
    _, flow = flow_with(AllowsAfter(1), AllowsAfter(2))
    flow.received(0, b"a")
    assert not flow.offload_wanted
    flow.received(1, b"b")
    assert flow.offload_wanted


def test_alw_7_a_flow_without_stages_is_wanted_at_once() -> None:
    """ALW-7: or there is none."""
    assert flow_with()[1].offload_wanted


def test_alw_7_never_after_urgent_data() -> None:
    """ALW-7: a splice stops for good at an urgent mark."""
    _, flow = flow_with()
    flow.received(0, b"!", urgent=True)
    assert not flow.offload_wanted


class Sink:
    """Keeps the events."""

    def __init__(self, wants_data: str) -> None:
        self.wants_data = wants_data
        self.events: list[dict[str, Any]] = []

    def __call__(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def told(self, *names: str) -> list[tuple[Any, ...]]:
        keys = ("event", "dir", "len")
        return [tuple(e[k] for k in keys if k in e) for e in self.events if e["event"] in names]


@pytest.mark.parametrize(("wants", "wanted"), [("off", True), ("preview", False), ("full", False)])
def test_alw_7_not_while_a_sink_wants_bytes(wants: str, wanted: bool) -> None:
    """ALW-7: nobody is asked, so a sink that does without the bytes misses nothing."""
    engine, flow = flow_with()
    sink = Sink(wants)
    engine.add_sink(sink)
    assert flow.offload_wanted is wanted
    engine.remove_sink(sink)
    assert flow.offload_wanted


def test_alw_7_moved_bytes_count_as_read_bypassed_and_written() -> None:
    """ALW-7, LED-3."""
    _, flow = flow_with(AllowsAfter(1))
    flow.received(0, b"abc")
    write(flow, 0)
    flow.offloaded()
    flow.passed(0, 1000)
    flow.onloaded()
    flow.received(0, b"de")
    write(flow, 0)
    ledger = flow.ledger(0)
    assert (ledger.read, ledger.written, ledger.stages[0].bypassed) == (1005, 1005, 1002)
    assert ledger.faults() == []


def test_alw_8_taken_back_for_a_mid_stream_stage() -> None:
    """ALW-8: a stage that may join a running flow must see what comes (MID-1)."""
    engine, flow = flow_with(AllowsAfter(1))
    flow.received(0, b"a")
    assert flow.offload_wanted
    engine.add_callout(MidStream(2))
    engine.turn()
    assert not flow.offload_wanted


# --- what takes a flow back -----------------------------------------------------------------------------


def offloaded_flow(*callouts: Callout) -> tuple[FilterEngine, Flow, list[int]]:
    """A flow that its driver moves, and a count of how often the engine asked for a turn since."""
    engine, flow = flow_with(*callouts)
    if callouts:
        flow.received(0, b"first")
        write(flow, 0)
        engine.settle_output(flow)
    assert flow.offload_wanted
    flow.offloaded()
    engine.turn()
    asked: list[int] = []
    engine.on_pending = lambda: asked.append(1)
    return engine, flow, asked


def told_to_look(engine: FilterEngine, flow: Flow, asked: list[int]) -> bool:
    """The driver was roused and given this flow, which it finds not to be its own any more."""
    return bool(asked) and flow in engine.turn() and not flow.offload_wanted


def test_alw_8_a_mid_stream_stage_takes_it_back() -> None:
    engine, flow, asked = offloaded_flow(AllowsAfter(1))
    engine.add_callout(MidStream(99))
    assert told_to_look(engine, flow, asked)


def test_alw_8_a_stage_that_may_not_join_leaves_it() -> None:
    """MID-1: it is skipped for good, so nobody asks."""
    engine, flow, _ = offloaded_flow(AllowsAfter(1))
    engine.add_callout(AllowsAfter(99))
    engine.turn()
    assert flow.offload_wanted


def test_alw_8_an_abort_takes_it_back() -> None:
    engine, flow, asked = offloaded_flow()
    engine.abort_flows()
    assert told_to_look(engine, flow, asked)
    assert flow.abort == ABORT_NOW


def test_alw_8_a_sink_that_wants_bytes_takes_it_back() -> None:
    engine, flow, asked = offloaded_flow()
    engine.add_sink(Sink("preview"))
    assert told_to_look(engine, flow, asked)


def test_alw_8_a_sink_that_wants_none_leaves_it() -> None:
    engine, flow, asked = offloaded_flow()
    engine.add_sink(Sink("off"))
    assert not asked
    assert flow.offload_wanted


def test_unr_4_an_allowed_callout_that_goes_takes_it_back() -> None:
    """REG-5: under its filter everything is removed from now on, and only the engine does that."""
    engine, flow, asked = offloaded_flow(allows := AllowsAfter(1))
    assert engine.fwps.callout_unregister_by_id(allows.callout_id(flow.layer_id)).ok
    assert told_to_look(engine, flow, asked)


def test_mgmt_16_retiring_the_callout_that_allowed_leaves_it() -> None:
    """MGMT-16: its stage goes, and nobody is asked as before."""
    engine = FilterEngine(lambda: 0.0)
    added = engine.add_callout(AllowsAfter(1))
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    flow.received(0, b"x")
    write(flow, 0)
    flow.offloaded()
    added.retire()
    engine.turn()
    assert all(stage.retired for stage in flow.stages)
    assert flow.offload_wanted
    flow.passed(1, 10)
    assert flow.ledger(1).faults() == []


def test_alw_8_what_a_new_stage_injects_comes_behind_what_the_driver_holds() -> None:
    """The driver is told, empties its pipe, and writes what was injected after that."""
    engine, flow, asked = offloaded_flow(AllowsAfter(1))
    engine.add_callout(late := MidStream(99))
    assert told_to_look(engine, flow, asked)
    assert late.inject(flow.id, flow.layer_id, int(StreamFlags.SEND), b"injected").ok
    assert flow.output(0).length == 8
    flow.left_over(0, b"before ")
    flow.onloaded()
    views, _ = flow.output(0).batch()
    assert b"".join(views) == b"before injected"
    write(flow, 0)
    engine.turn()
    assert not flow.offload_wanted
    assert flow.ledger(0).faults() == []


# --- bytes, offsets, events -------------------------------------------------------------------------------


def test_alw_8_what_the_driver_still_has_comes_before_all_else() -> None:
    """ALW-8: bytes in its pipe are past every stage; whatever the engine puts out meanwhile comes behind."""
    _, flow, _ = offloaded_flow(AllowsAfter(1))
    flow.passed(0, 100)
    flow.left_over(0, b"in the pipe")
    flow.onloaded()
    flow.received(0, b" and new")
    views, urgent = flow.output(0).batch()
    assert (b"".join(views), urgent) == (b"in the pipe and new", False)
    assert flow.output(0).length == 19
    write(flow, 0)
    ledger = flow.ledger(0)
    assert (ledger.read, ledger.written, ledger.unsent) == (124, 124, 0)
    assert ledger.faults() == []


def test_ind_3_later_indications_are_at_their_place_in_the_stream() -> None:
    """Offsets count the bytes that nobody saw."""
    engine, flow, _ = offloaded_flow(AllowsAfter(1))
    flow.passed(0, 1000)
    flow.left_over(0, b"12")
    sink = Sink("off")
    engine.add_sink(sink)
    engine.add_callout(MidStream(99))
    engine.turn()
    flow.onloaded()
    flow.received(0, b"seen")
    seen = [event for event in sink.events if event["event"] == "indicate"]
    assert [(event["offset"], event["len"], event["missed"]) for event in seen] == [(1007, 4, 0)]
    write(flow, 0)
    assert flow.ledger(0).faults() == []


def test_led_3_what_was_in_the_pipe_at_a_reset_is_discarded_out() -> None:
    """LED-3: read, and given up."""
    _, flow, _ = offloaded_flow()
    flow.passed(0, 100)
    flow.lost(0, 30)
    flow.gone("abort")
    ledger = flow.ledger(0)
    assert (ledger.read, ledger.written, ledger.discarded_out) == (100, 70, 30)
    assert ledger.faults() == []


def test_evt_both_directions_are_told_of_and_counted() -> None:
    """The `offload` event, once per direction that is open, and `onload` with what went by."""
    engine, flow = flow_with()
    sink = Sink("off")
    engine.add_sink(sink)
    flow.received_fin(1)
    flow.fin_sent(1)
    flow.offloaded()
    flow.offloaded()
    flow.passed(0, 5)
    flow.passed(0, 7)
    flow.onloaded()
    flow.onloaded()
    assert sink.told("offload", "onload") == [
        ("offload", "to_upstream"),
        ("onload", "to_upstream", 12),
    ]
    assert (engine.counters["offloads"], engine.counters["offloaded_bytes"]) == (1, 12)


def test_evt_a_flow_that_ends_offloaded_is_told_of() -> None:
    engine, flow = flow_with()
    sink = Sink("off")
    engine.add_sink(sink)
    flow.offloaded()
    flow.passed(0, 5)
    flow.gone("stop")
    assert [event["event"] for event in sink.events] == [*["offload"] * 2, *["onload"] * 2, "flow_deleted"]
    assert flow.ledger(0).faults() == []


def test_ind_13_a_fin_of_an_offloaded_flow_goes_on_without_taking_it_back() -> None:
    """The other direction stays with the driver; the end is as graceful as ever."""
    _, flow, _ = offloaded_flow(AllowsAfter(1))
    flow.received_fin(0)
    assert flow.output(0).fin
    assert flow.offload_wanted
    flow.fin_sent(0)
    flow.passed(1, 50)
    flow.received_fin(1)
    flow.fin_sent(1)
    assert (flow.ended, flow.end_reason) == (True, "fin")


def test_ind_27_a_reset_of_an_offloaded_flow_ends_it() -> None:
    _, flow, _ = offloaded_flow()
    flow.left_over(0, b"owed")
    flow.onloaded()
    flow.reset(0, "rst_client")
    assert (flow.abort, flow.output(0).length) == (ABORT_FLUSH, 4)
