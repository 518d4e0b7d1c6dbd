"""Flow contexts, rule by rule (section 17).

Owns what associating and removing return, when flowDeleteFn runs, and what a classify sees of it.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.rules.answers import answering, permit
from tests.rules.minimal import (
    BLOCK,
    CONTINUE,
    DROP,
    NEED_MORE_DATA,
    NONE,
    PERMIT,
    SEND,
    STREAM,
    SUCCESS,
    Plain,
    World,
)
from tests.scenarios.support import B, Bench, P, Script
from tests.scenarios.support_api import ManagedBench, Plane, Witness
from wfpstream.engine import EngineOptions
from wfpstream.fwp import CalloutFlags, NtStatus
from wfpstream.fwps import Callout, LayerId
from wfpstream.testing import MemoryDriver

INVALID = NtStatus.STATUS_INVALID_PARAMETER
PENDING = NtStatus.STATUS_PENDING
EXISTS = NtStatus.STATUS_OBJECT_NAME_EXISTS
UNSUCCESSFUL = NtStatus.STATUS_UNSUCCESSFUL
NOT_FOUND = NtStatus.STATUS_FWP_NOT_FOUND
CONDITIONAL = int(CalloutFlags.CONDITIONAL_ON_FLOW)


def test_ctx_1_one_for_each_flow_layer_and_callout() -> None:
    """CTX-1: several callouts may each have one on the same flow, one callout one on each flow."""
    a, b = Witness(name="A"), Witness(name="B")
    with Bench(a, b) as bench:
        first = a.flow_id
        assert (a.associate(1), b.associate(2)) == (SUCCESS, SUCCESS)
        second = bench.connect()
        assert a.associate(3, second.id) == SUCCESS
        bench.send(b"x")
        second.send(b"y")
        bench.settle()
        assert (a.contexts, b.contexts) == ([1, 3], [2, 0])
        assert first != second.id
        assert bench.to_remote == (b"x", False)


def test_ctx_2_context_zero() -> None:
    """CTX-2: STATUS_INVALID_PARAMETER."""
    w = World(permit)
    assert w.associate(0) == INVALID
    assert w.refusals() == [("flow_associate_context", "STATUS_INVALID_PARAMETER", "CTX-2")]
    assert w.callout.deleted == []


def test_ctx_3_callout_without_flow_delete_function() -> None:
    """CTX-3: STATUS_INVALID_PARAMETER."""
    a = Script(name="A")
    ids: list[int] = []

    def add(plane: Plane) -> None:
        ids.append(plane.register(a, flow_delete=False))
        assert plane.own_sub_layer(a)[0] == SUCCESS

    with ManagedBench(a, add=add, violations=["V-48"]) as bench:
        fwps = bench.driver.fwps
        assert fwps.flow_associate_context(a.flow_id, STREAM, ids[0], 1) == INVALID


@pytest.mark.parametrize(
    "layer", [LayerId.STREAM_V6, LayerId.ALE_FLOW_ESTABLISHED_V4, LayerId.ALE_AUTH_CONNECT_V4]
)
def test_ctx_4_callout_not_added_at_that_layer(layer: LayerId) -> None:
    """CTX-4: not added there, or a layer without flow support; unknown callout."""
    w = World(permit)
    associate = w.fwps.flow_associate_context
    assert associate(w.flow.id, int(layer), w.callout_id, 1) == INVALID
    assert associate(w.flow.id, STREAM, 4711, 1) == INVALID
    assert [rule for _, _, rule in w.refusals()] == ["CTX-4", "CTX-4"]
    assert w.callout.deleted == []
    assert w.close() == []


@pytest.mark.parametrize("end", ["never began", "graceful", "reset"])
def test_ctx_5_unknown_or_ended_flow(end: str) -> None:
    """CTX-5: STATUS_FWP_NOT_FOUND, for Associate; nothing to remove is STATUS_UNSUCCESSFUL (CTX-9)."""
    w = World(permit)
    flow_id = 987654 if end == "never began" else w.flow.id
    if end == "graceful":
        w.send_fin()
        w.receive_fin()
    elif end == "reset":
        w.reset()
    assert w.fwps.flow_associate_context(flow_id, STREAM, w.callout_id, 1) == NOT_FOUND
    assert w.fwps.flow_remove_context(flow_id, STREAM, w.callout_id) == UNSUCCESSFUL
    assert w.close() == []


def test_ctx_6_already_present() -> None:
    """CTX-6: STATUS_OBJECT_NAME_EXISTS, which satisfies NT_SUCCESS; the old one stays."""
    assert EXISTS == 0x40000000
    assert EXISTS.ok
    w = World(permit)
    assert (w.associate(1), w.associate(2)) == (SUCCESS, EXISTS)
    assert w.remove() == SUCCESS
    assert w.callout.deleted == [1]
    assert w.close() == []


def test_ctx_7_associated_at_flow_established_for_the_stream_layer() -> None:
    """CTX-7: by the classify of another callout, for the callout of the STREAM layer; also from a stream classify."""

    class Introducer(Callout):
        layers = ("ale_flow_established_v4",)

        def classify_ale_flow_established(self, *call: Any) -> None:
            fwps, flow_id = self.fwps, call[1].flow_handle
            answers.append(fwps.flow_associate_context(flow_id, STREAM, a.callout_id(STREAM), 5))
            call[-1].action_type = CONTINUE

    answers: list[NtStatus] = []
    a, b = Witness(name="A"), Witness(name="B")
    b.add_answers(P(0, lambda call: answers.append(b.associate(6))))
    with Bench(a, b, before=lambda driver: driver.add(Introducer())) as bench:
        bench.send(b"x", b"y")
        assert answers == [SUCCESS, SUCCESS]
        assert (a.contexts, b.contexts) == ([5, 5], [0, 6])
        assert bench.to_remote == (b"xy", False)


def test_ctx_8_value_when_the_call_starts() -> None:
    """CTX-8: associated inside a classify it shows in the next call, removed inside in the next call."""
    a = Witness(name="A")
    a.add_answers(
        P(0, lambda call: a.associate(7)), P(0, lambda call: a.fwps.flow_remove_context(*place_of(a))), P(0)
    )
    with Bench(a) as bench:
        bench.send(b"x", b"y", b"z")
        assert a.contexts == [0, 7, 0]
        assert [context for _, _, context in a.deleted] == [7]
        assert bench.to_remote == (b"xyz", False)


def place_of(a: Script) -> tuple[int, int, int]:
    return a.flow_id, STREAM, a.callout_id(STREAM)


def test_ctx_9_none_associated() -> None:
    """CTX-9: STATUS_UNSUCCESSFUL."""
    w = World(permit)
    assert w.remove() == UNSUCCESSFUL
    assert w.refusals() == [("flow_remove_context", "STATUS_UNSUCCESSFUL", "CTX-9")]
    assert w.close() == []


def test_ctx_10_removed_outside_its_classify() -> None:
    """CTX-10: flowDeleteFn before the call returns; also from inside a classify of another callout."""
    w = World(permit)
    assert w.associate(1) == SUCCESS
    assert w.remove() == SUCCESS
    assert w.callout.deleted == [1]
    seen: list[tuple[NtStatus, list[int]]] = []
    b = Script(name="B")
    b.add_answers(P(0, lambda call: seen.append((w.remove(), list(w.callout.deleted)))))
    w.driver.add(b)
    w.flow = w.connect()
    assert w.associate(2) == SUCCESS
    w.send(b"x")
    assert seen == [(SUCCESS, [1, 2])]
    assert w.close() == []


def test_ctx_11_removed_inside_its_own_classify() -> None:
    """CTX-11: STATUS_PENDING; flowDeleteFn after the classify returned and its answer was applied."""
    seen: list[tuple[NtStatus, list[int]]] = []
    permitted: list[int] = []

    def classify(*call: Any) -> None:
        seen.append((w.remove(), list(w.callout.deleted)))
        call[-1].action_type = PERMIT

    w = World(classify)
    w.callout.on_delete = lambda: permitted.append(w.flow.ledger(0).stages[0].permitted)
    assert w.associate(1) == SUCCESS
    w.send(b"abc")
    assert PENDING.ok
    assert seen == [(PENDING, [])]
    assert w.callout.deleted == [1]
    assert permitted == [3]
    assert w.close() == []


@pytest.mark.parametrize("inside", [False, True])
def test_ctx_12_flow_delete_is_called_also_for_a_removal(inside: bool) -> None:
    """CTX-12: Remove is no reason to free the context oneself: flowDeleteFn gets it, once."""

    def classify(*call: Any) -> None:
        if inside:
            w.remove()
        call[-1].action_type = PERMIT

    w = World(classify)
    assert w.associate(9) == SUCCESS
    w.send(b"x")
    if not inside:
        assert w.remove() == SUCCESS
    assert w.callout.deleted == [9]
    assert w.close() == []
    assert w.callout.deleted == [9]


def test_ctx_13_while_removal_is_pending() -> None:
    """CTX-13: Associate STATUS_OBJECT_NAME_EXISTS, a second Remove STATUS_UNSUCCESSFUL."""
    answers: list[NtStatus] = []

    def classify(*call: Any) -> None:
        if not answers:
            answers.extend((w.remove(), w.associate(2), w.remove()))
        call[-1].action_type = PERMIT

    w = World(classify)
    assert w.associate(1) == SUCCESS
    w.send(b"x")
    assert answers == [PENDING, EXISTS, UNSUCCESSFUL]
    assert w.callout.deleted == [1]
    assert w.associate(2) == SUCCESS
    assert w.close() == []
    assert w.callout.deleted == [1, 2]


def test_ctx_14_replace() -> None:
    """CTX-14: Remove, flowDeleteFn, then Associate; possible from flowDeleteFn on."""
    answers: list[NtStatus] = []
    a = Witness(name="A")
    with Bench(a) as bench:
        assert a.associate(1) == SUCCESS
        bench.send(b"x")
        assert a.fwps.flow_remove_context(*place_of(a)) == SUCCESS
        answers.append(a.associate(2))
        bench.send(b"y")
        assert answers == [SUCCESS]
        assert a.contexts == [1, 2]
        assert [context for _, _, context in a.deleted] == [1]
        assert bench.to_remote == (b"xy", False)


def test_ctx_15_exactly_once_with_its_layer_and_callout() -> None:
    """CTX-15: once for each association, never without one, and no classify sees the context after it."""
    a, b = Witness(name="A"), Witness(name="B")
    with Bench(a, b) as bench:
        assert a.associate(1) == SUCCESS
        bench.send(b"x")
        bench.receive_fin()
        bench.send_fin()
        assert a.deleted == [(STREAM, a.callout_id(STREAM), 1)]
        assert b.deleted == []
        assert bench.calls[-1] == "flowDelete(A)"
        assert bench.to_remote == (b"x", True)
        assert bench.to_local == (b"", True)


@pytest.mark.parametrize("end", ["graceful", "reset", "drop", "abort", "stop", "remove"])
def test_ctx_16_triggers(end: str) -> None:
    """CTX-16: flow end of every kind, and Remove."""
    w = World(answering(NONE, stream_action=DROP) if end == "drop" else permit)
    assert w.associate(7) == SUCCESS
    if end == "graceful":
        w.send_fin()
        w.receive_fin()
    elif end == "reset":
        w.reset()
    elif end == "drop":
        w.send(b"x")
    elif end == "abort":
        assert w.fwps.flow_abort(w.flow.id) == SUCCESS
        w.settle()
    elif end == "stop":
        w.driver.engine.stop()
    else:
        assert w.remove() == SUCCESS
    assert w.callout.deleted == [7]
    assert w.close() == []
    assert w.callout.deleted == [7]


def test_ctx_16_block_at_flow_established() -> None:
    """CTX-16: the contexts associated until then get flowDeleteFn; no stream indication occurs (LAY-6)."""

    class Blocker(Callout):
        layers = ("ale_flow_established_v4",)

        def classify_ale_flow_established(self, *call: Any) -> None:
            answers.append(
                self.fwps.flow_associate_context(call[1].flow_handle, STREAM, code.callout_id(STREAM), 3)
            )
            call[-1].action_type = BLOCK

    answers: list[NtStatus] = []
    code = Plain(permit, "A")
    driver = MemoryDriver()
    driver.add(code)
    driver.add(Blocker())
    assert driver.connect() is None
    assert answers == [SUCCESS]
    assert code.deleted == [3]
    assert [e for e in driver.events if e["event"] == "indicate"] == []
    driver.close()


@pytest.mark.parametrize("indicate_abort", [True, False])
def test_ctx_17_first_notice_after_a_reset(indicate_abort: bool) -> None:
    """CTX-17: flowDeleteFn may be the first notice; with `indicate_abort` a stage with a context is told."""
    a, b = Script(name="A"), Script(name="B")
    with Bench(a, b, options=EngineOptions(indicate_abort=indicate_abort)) as bench:
        assert a.associate(1) == SUCCESS
        bench.reset("remote")
        told = ["A(R ABORT +N)"] if indicate_abort else []
        assert bench.log == [*told, "flowDelete(A)"]
        assert bench.resets == (True, True)


def test_ctx_18_remove_from_flow_delete() -> None:
    """CTX-18: STATUS_UNSUCCESSFUL, at the end of a flow as well as from a removal."""
    answers: list[NtStatus] = []
    w = World(permit)
    w.callout.on_delete = lambda: answers.append(w.remove())
    assert w.associate(1) == SUCCESS
    assert w.remove() == SUCCESS
    assert w.associate(2) == SUCCESS
    w.reset()
    assert answers == [UNSUCCESSFUL, UNSUCCESSFUL]
    assert w.callout.deleted == [1, 2]
    assert w.close() == []


def test_ctx_19_conditional_on_flow() -> None:
    """CTX-19: called from the next item on; removal stops it at once, what it held goes on (NMD-15)."""
    a = Script(P(0), B(0), name="A", flags=CONDITIONAL)
    with Bench(a) as bench:
        bench.send(b"1")
        assert a.associate(1) == SUCCESS
        bench.send(b"2", b"3")
        assert a.fwps.flow_remove_context(*place_of(a)) == SUCCESS
        bench.send(b"4")
        assert bench.calls == ["A(S1 '2')", "A(S1 '3')", "flowDelete(A)"]
        assert bench.to_remote == (b"124", False)


def test_ctx_19_held_data_goes_on() -> None:
    """CTX-19, NMD-15: the bytes a waiting stage holds are passed on when its context goes."""
    w = World(answering(NONE, stream_action=NEED_MORE_DATA), flags=CONDITIONAL)
    assert w.associate(1) == SUCCESS
    w.send(b"held")
    assert w.to_remote == b""
    assert w.remove() == SUCCESS
    w.settle()
    assert w.to_remote == b"held"
    assert w.close() == []


def test_ctx_20_without_the_flag_called_with_context_zero() -> None:
    """CTX-20: before, between and after contexts."""
    a = Witness(name="A")
    with Bench(a) as bench:
        bench.send(b"x")
        assert a.associate(1) == SUCCESS
        bench.send(b"y")
        assert a.fwps.flow_remove_context(*place_of(a)) == SUCCESS
        bench.send(b"z")
        assert a.contexts == [0, 1, 0]
        assert bench.to_remote == (b"xyz", False)


def test_ctx_21_order_at_flow_end() -> None:
    """CTX-21: no more classify, completions, flowDeleteFn in stage order, then the flow id is invalid."""
    a, b = Script(name="A"), Script(name="B")
    with Bench(a, b, context=1, options=EngineOptions(indicate_abort=False)) as bench:
        bench.flow.remote.window = 0
        assert b.inject_bytes(SEND, b"y") == SUCCESS
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        bench.settle()
        before = len(bench.log)
        bench.reset("remote")
        ending = bench.log[before:]
        assert sorted(ending[:2]) == ["cmp('x', CONNECTION_RESET)", "cmp('y', CONNECTION_RESET)"]
        assert ending[2:] == ["flowDelete(A)", "flowDelete(B)"]
        assert a.fwps.flow_abort(a.flow_id) == NOT_FOUND
