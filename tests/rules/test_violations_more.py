"""Callbacks and answers against the contract, continued (V-36, V-40, V-42..V-47, V-49, V-51).

As in `test_violations`: for each a minimal callout that is caught with id and place, and the closest legal
one that is not.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.rules.answers import answering, once, permit
from tests.rules.minimal import (
    BLOCK,
    CONTINUE,
    NEED_MORE_DATA,
    NONE,
    PERMIT,
    SEND,
    SUCCESS,
    Classify,
    HandClock,
    World,
    after_sending,
    connect,
    here,
    hints,
    place,
)
from tests.scenarios.support import Script
from tests.scenarios.support_api import ManagedBench, in_one_sub_layer
from wfpstream.engine import EngineOptions
from wfpstream.fwp import CalloutFlags
from wfpstream.fwps import ClassifyOutFlags, StreamData, StreamDataOffset
from wfpstream.testing import MemoryDriver

ABSORB = int(ClassifyOutFlags.ABSORB)


def test_v_36_absorb_at_the_stream_layer() -> None:
    """V-36: FWPS_CLASSIFY_OUT_FLAG_ABSORB has no effect there (DSC-3)."""

    def bad(*call: Any) -> None:
        call[-1].action_type = PERMIT
        call[-1].flags |= ABSORB

    assert after_sending(bad, b"a") == [("V-36", place(bad))]
    assert after_sending(permit, b"a") == []


def test_v_40_exception_out_of_classify() -> None:
    """V-40: the place is the raising line; the flow is dropped (ACT-14)."""
    where: list[str] = []

    def bad(*call: Any) -> None:
        where.append(here())
        raise ValueError("broken")

    w = World(bad)
    w.send(b"a")
    assert w.flow.remote.reset
    assert w.close() == [("V-40", where[0])]

    def good(*call: Any) -> None:
        try:
            raise ValueError("mended")
        except ValueError:
            call[-1].action_type = PERMIT

    assert after_sending(good, b"a") == []


def test_v_40_exception_out_of_completion_and_flow_delete() -> None:
    """V-40: out of any callback."""

    def broken_completion(context: object, nbl: Any, dispatch_level: bool) -> None:
        w.fwps.free_net_buffer_list(nbl)
        where.append(here())
        raise ValueError("broken")

    def broken_delete() -> None:
        where.append(here())
        raise ValueError("broken")

    where: list[str] = []
    w = World(permit)
    w.callout.on_delete = broken_delete
    assert w.associate(1) == SUCCESS
    assert w.inject(SEND, w.list_of(b"x"), completion_fn=broken_completion) == SUCCESS
    w.settle()
    assert w.remove() == SUCCESS
    assert w.close() == [("V-40", where[0]), ("V-40", where[1])]


@pytest.mark.parametrize(("seconds", "caught"), [(0.02, True), (0.005, False)])
def test_v_42_time_budget(seconds: float, caught: bool) -> None:
    """V-42: lint of the real clock; 10 ms by default (IRQ-1)."""
    clock = HandClock()

    def slow(*call: Any) -> None:
        clock.now += seconds
        call[-1].action_type = PERMIT

    w = World(slow, clock=clock)
    w.send(b"a")
    assert w.close() == ([("V-42", place(slow))] if caught else [])
    assert w.severities == ([("V-42", "L")] if caught else [])


@pytest.mark.parametrize("callback", ["completion", "flow delete"])
def test_v_42_time_budget_of_the_other_callbacks(callback: str) -> None:
    """V-42, IRQ-1: completionFn and flowDeleteFn have the same budget as classifyFn."""
    clock = HandClock()

    def dawdle() -> None:
        clock.now += 0.02

    def complete(context: object, nbl: Any, dispatch_level: bool) -> None:
        w.fwps.free_net_buffer_list(nbl)
        dawdle()

    w = World(permit, clock=clock)
    if callback == "completion":
        assert w.inject(SEND, w.list_of(b"x"), completion_fn=complete) == SUCCESS
        w.settle()
    else:
        w.callout.on_delete = dawdle
        assert w.associate(1) == SUCCESS
        assert w.remove() == SUCCESS
    w.close()
    assert w.severities == [("V-42", "L")]


@pytest.mark.parametrize(
    ("nodelay", "seconds", "caught"), [(True, 1.0, 1), (False, 1.0, 0), (True, 0.001, 0)]
)
def test_v_43_held_although_nodelay(nodelay: bool, seconds: float, caught: int) -> None:
    """V-43: data held beyond the budget although SEND_NODELAY asked for haste (IND-6)."""
    clock = HandClock()
    classify = once(answering(NONE, stream_action=NEED_MORE_DATA))
    w = World(classify, clock=clock, nodelay=nodelay)
    w.send(b"a")
    clock.now += seconds
    w.send(b"b")
    assert w.to_remote == b"ab"
    assert w.close() == [("V-43", place(classify))] * caught


class Established(Script):
    """A callout of FLOW_ESTABLISHED that answers `answer`."""

    layers = ("ale_flow_established",)

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.answer = answer

    def classify_ale_flow_established(self, *call: Any) -> None:
        call[-1].action_type = self.answer


@pytest.mark.parametrize(
    ("answer", "with_hints", "caught"),
    [(BLOCK, False, ["V-44"]), (PERMIT, True, ["V-44"]), (PERMIT, False, []), (CONTINUE, True, [])],
)
def test_v_44_decision_at_flow_established(answer: int, with_hints: bool, caught: list[str]) -> None:
    """V-44: BLOCK there; PERMIT only with `verify.hints` (LAY-6)."""
    options = hints() if with_hints else EngineOptions()
    options.verify.level = "warn"
    driver = MemoryDriver(options=options)
    driver.add(Established(answer))
    assert (connect(driver) is None) == (answer == BLOCK)
    driver.close()
    assert driver.violations == caught
    for event in driver.events:
        if event["event"] == "violation":
            assert event["where"] == place(Established.classify_ale_flow_established)
            assert event["severity"] == "L"


@pytest.mark.parametrize(
    ("flag", "version", "caught"),
    [
        (CalloutFlags.ALLOW_MID_STREAM_INSPECTION, 0, True),
        (CalloutFlags.ALLOW_MID_STREAM_INSPECTION, 1, False),
        (CalloutFlags.ALLOW_RSC, 1, True),
        (CalloutFlags.ALLOW_RSC, 2, False),
        (CalloutFlags.ALLOW_OFFLOAD, 0, False),
    ],
)
def test_v_45_flag_newer_than_the_structure(flag: CalloutFlags, version: int, caught: bool) -> None:
    """V-45: accepted, in effect, and lint; said for each of the two families it is registered for."""
    w = World(permit, flags=int(flag), version=version)
    assert [rule for rule, _ in w.close()] == (["V-45", "V-45"] if caught else [])
    assert {severity for _, severity in w.severities} <= {"L"}


def test_v_46_inspection_injects() -> None:
    """V-46: an INSPECTION callout must not modify the stream."""

    def bad(*call: Any) -> None:
        call[-1].action_type = CONTINUE
        assert w.inject_bytes(SEND, b"x") == SUCCESS

    w = World(bad, action="callout_inspection")
    w.send(b"a")
    assert w.close() == [("V-46", w.injected_at)]


def test_v_46_inspection_clones_and_blocks() -> None:
    """V-46: relying on BLOCK; a clone beside CONTINUE is legal."""

    def cloning(answer: int) -> Classify:
        def classify(*call: Any) -> None:
            w.keep_clone(call[2])
            call[-1].action_type = answer

        return classify

    bad, good = cloning(BLOCK), cloning(CONTINUE)
    w = World(bad, action="callout_inspection")
    w.send(b"a")
    w.discard()
    assert sorted(w.close()) == [("V-46", place(bad)), ("V-6", place(bad))]
    w = World(good, action="callout_inspection")
    w.send(b"a")
    w.discard()
    assert w.close() == []


@pytest.mark.parametrize(("heavy", "caught"), [("callout_unknown", ["V-47"]), ("callout_inspection", [])])
def test_v_47_two_callouts_of_one_sub_layer(heavy: str, caught: list[str]) -> None:
    """V-47: the heavier one hides the lighter one, unless it only inspects."""
    a, b = Script(action=heavy), Script(name="B")
    with ManagedBench(a, b, add=in_one_sub_layer(a, b), violations=caught):
        pass


@pytest.mark.parametrize("member", ["out_context", "filter_id", "reserved"])
def test_v_49_reserved_members_of_classify_out(member: str) -> None:
    """V-49: outContext, filterId and reserved are the engine's."""

    def bad(*call: Any) -> None:
        call[-1].action_type = PERMIT
        setattr(call[-1], member, 1)

    assert after_sending(bad, b"a") == [("V-49", place(bad))]


@pytest.mark.parametrize("member", ["net_buffer_offset", "stream_data_offset"])
def test_v_49_reserved_members_of_the_offset(member: str) -> None:
    """V-49: reserved in the indicated structure; a private FWPS_STREAM_DATA0 is the callout's own."""

    def bad(*call: Any) -> None:
        setattr(call[2].stream_data.data_offset, member, 1)
        call[-1].action_type = PERMIT

    def good(*call: Any) -> None:
        shown = call[2].stream_data
        mine = StreamDataOffset(shown.data_offset.net_buffer_list)
        setattr(mine, member, 1)
        StreamData(shown.flags, mine, len(shown), shown.net_buffer_list_chain)
        call[-1].action_type = PERMIT

    assert after_sending(bad, b"a") == [("V-49", place(bad))]
    assert after_sending(good, b"a") == []


@pytest.mark.parametrize(("requests", "caught"), [(64, 1), (63, 0)])
def test_v_51_endless_requests(requests: int, caught: int) -> None:
    """V-51: 64 requests in a row, each satisfied yet never decided."""
    classify = answering(NONE, stream_action=NEED_MORE_DATA, required=1)
    w = World(classify)
    for _ in range(requests):
        w.send(b"a")
    assert w.close() == [("V-51", place(classify))] * caught
