"""The engine's half of handing a flow over (ALW-7, ALW-8): when it wants it, and what it counts."""

from __future__ import annotations

from typing import Any

from wfpstream.engine import Endpoints, FilterEngine, Flow
from wfpstream.fwp import ActionType, CalloutFlags
from wfpstream.fwps import Callout, StreamActionType


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


def test_alw_7_not_while_a_sink_wants_bytes() -> None:
    """ALW-7, ALW-8: attaching a sink takes the flow back."""
    engine, flow = flow_with()
    events: list[dict[str, Any]] = []
    engine.add_sink(events.append)
    assert not flow.offload_wanted
    engine.remove_sink(events.append)
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
