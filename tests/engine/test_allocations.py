"""What an item makes the engine allocate: the same, however many stages look at it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from wfpstream.engine import Endpoints, FilterEngine
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout

CONTINUE = int(ActionType.CONTINUE)
ENDPOINTS = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))


class Looking(Callout):
    """Looks at the bytes and goes on."""

    filter_action = "callout_inspection"

    def classify_fn(self, *call: Any) -> None:
        assert call[2].stream_data.view()[0] == 7
        call[-1].action_type = CONTINUE


class Keeping(Looking):
    """Keeps the latest objects it was given: they are its own from then on."""

    def __init__(self) -> None:
        self.kept: list[tuple[Any, ...]] = []

    def classify_fn(self, *call: Any) -> None:
        super().classify_fn(*call)
        self.kept.append((call[2], call[2].stream_data, call[-1], call[2].stream_data.tobytes()))


def begin(callouts: list[Callout]) -> tuple[FilterEngine, Any]:
    engine = FilterEngine(lambda: 0.0)
    engine.use_virtual_time()
    for callout in callouts:
        engine.add_callout(callout)
    flow = engine.flow_established(engine.connection_requested(ENDPOINTS))
    assert flow is not None
    return engine, flow


CYCLES = ("one call", "five calls")


def peak_of_an_item(stages: int, view: memoryview, cycle: str) -> int:
    """Most bytes that are there at any moment of one item and were not before, once the flow is warm."""
    tracemalloc.start()
    try:
        engine, flow = begin([Looking() for _ in range(stages)])
        peaks = []
        for number in range(8):
            direction = number & 1
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            if cycle == "one call":
                assert engine.pass_on(flow, direction, view)
            else:
                flow.received(direction, view)
                flow.sent(direction, flow.output(direction).length)
                engine.settle_output(flow)
                flow.may_read(direction)
            peaks.append(tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    return max(peaks[4:])


@pytest.mark.parametrize("cycle", CYCLES)
def test_nothing_is_allocated_for_a_stage(cycle: str) -> None:
    """One to eight stages: what is allocated for an item does not grow with them, nor with its length."""
    small, large = (memoryview(b"\7" * length) for length in (64, 65536))
    one = peak_of_an_item(1, small, cycle)
    for stages in range(2, 9):
        assert peak_of_an_item(stages, small, cycle) <= one + 64
    assert peak_of_an_item(8, large, cycle) <= one + 64
    assert one < 2048


def test_what_a_callout_kept_is_not_used_again() -> None:
    """IND-8, IND-22: every indication begins as ever, and what was kept of an earlier one stays what it was."""
    upper, lower = Keeping(), Keeping()
    engine, flow = begin([upper, lower])
    for number in range(6):
        view = memoryview(b"\7" + bytes([number]))
        flow.received(0, view)
        flow.sent(0, flow.output(0).length)
        engine.settle_output(flow)
        if number >= 3:
            lower.kept.clear()
    kept = upper.kept + lower.kept
    for of_one in zip(*((record[:3]) for record in kept), strict=True):
        assert len({id(each) for each in of_one}) == len(kept)
    for number, (packet, data, out, content) in enumerate(upper.kept):
        assert content == b"\7" + bytes([number])
        assert packet.stream_data is data
        assert data.data_length == 2
        assert out.action_type == CONTINUE
        assert data.net_buffer_list_chain is None, "the views went back when the classify returned"


def test_what_a_callout_wrote_where_nobody_reads_is_gone_with_the_next_call() -> None:
    """IND-8: reserved members, counts and offsets of an answer belong to that answer."""
    seen = []

    class Scribbling(Looking):
        def classify_fn(self, *call: Any) -> None:
            packet, out = call[2], call[-1]
            data = packet.stream_data
            seen.append(
                (packet.missed_bytes, packet.count_bytes_enforced, out.out_context, out.reserved,
                 out.filter_id, data.data_length, int(data.flags), data._offset is None)
            )  # fmt: skip
            super().classify_fn(*call)
            packet.missed_bytes, packet.count_bytes_enforced = 5, data.data_length
            out.out_context = out.reserved = out.filter_id = 9
            data.data_length, data.flags = 1, 0
            data.data_offset = object()
            packet.stream_data = None

    engine, flow = begin([Scribbling(), Scribbling()])
    for _ in range(5):
        flow.received(0, memoryview(b"\7abc"))
        assert flow.output(0).length == 4
        flow.sent(0, 4)
        engine.settle_output(flow)
    assert seen == [(0, 0, 0, 0, 0, 4, seen[0][6], True)] * 10
