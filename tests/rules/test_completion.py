"""Completions and injection handles, rule by rule (section 15).

Owns when completionFn runs, with what, in which order, and when destroying a handle is finished.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.rules.answers import block, permit
from tests.rules.minimal import RECEIVE, SEND, SEND_FIN, SUCCESS, World
from tests.scenarios.support import DROP, NMD, B, Bench, C, Call, Completion, P, Script, clone, inj
from tests.scenarios.support_api import allocate, chained
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus
from wfpstream.fwps import InjectionType
from wfpstream.testing import MemoryDriver

INVALID_STATE = NtStatus.STATUS_INVALID_DEVICE_STATE
PENDING = NtStatus.STATUS_PENDING


def test_cmp_1_once_per_list_with_the_same_context() -> None:
    """CMP-1: once for each list of the chain, always with the context of the call."""
    mark = object()
    heard: list[tuple[object, bytes]] = []

    def complete(context: object, nbl: Any, dispatch_level: bool) -> None:
        heard.append((context, nbl.tobytes()))
        w.fwps.free_net_buffer_list(nbl)

    w = World(permit)
    chain = chained(w.list_of(b"a"), w.list_of(b"b"))
    assert w.inject(SEND, chain, completion_fn=complete, completion_context=mark) == SUCCESS
    w.settle()
    assert heard == [(mark, b"a"), (mark, b"b")]
    assert w.close() == []


def test_cmp_2_not_called_for_a_refusal_or_without_a_list() -> None:
    """CMP-2."""
    w = World(block)
    w.send_fin()
    assert w.inject_bytes(SEND, b"x", flags=1) == NtStatus.STATUS_FWP_INVALID_FLAGS
    assert w.inject(SEND_FIN, None) == SUCCESS
    w.settle()
    assert w.fins() == (True, False)
    assert w.completed == []
    assert w.close() == []


def test_cmp_3_status_and_next_when_handed_over() -> None:
    """CMP-3: Status holds the result and Next is NULL, also for the first list of a chain."""
    a = Script()
    with Bench(a) as bench:
        chain = chained(allocate(a, b"a"), allocate(a, b"b"))
        assert a.inject_chain(SEND, chain, 2, a.fwps.free_net_buffer_list) == SUCCESS
        bench.settle()
        assert bench.completions == ["cmp('a', SUCCESS)", "cmp('b', SUCCESS)"]
        assert [(one.status, one.alone) for one in a.completed_nbls] == [(SUCCESS, True), (SUCCESS, True)]
        assert bench.to_remote == (b"ab", False)


def test_cmp_4_removed_by_a_lower_stage_is_a_success() -> None:
    """CMP-4: the injection itself succeeded."""
    a, b = Script(name="A"), Script(B(0), name="B")
    with Bench(a, b) as bench:
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        bench.settle()
        assert bench.log == ["B(S1 'x')", "cmp('x', SUCCESS)"]
        assert bench.to_remote == (b"", False)


def test_cmp_4_when_the_last_byte_was_accepted() -> None:
    """CMP-4: not while a part of the list still waits for the receiver."""
    a = Script()
    with Bench(a) as bench:
        bench.flow.remote.window = 2
        assert a.inject_bytes(SEND, b"abc") == SUCCESS
        bench.settle()
        assert bench.completions == []
        bench.flow.remote.window = None
        bench.settle()
        assert bench.completions == ["cmp('abc', SUCCESS)"]
        assert bench.to_remote == (b"abc", False)


def test_cmp_5_never_before_the_call_returned_nor_inside_a_classify() -> None:
    """CMP-5: looked at right after the call, inside and outside a classify."""
    heard: list[list[str]] = []

    def look(call: Call) -> None:
        assert call.inject(b"x") == SUCCESS
        heard.append(list(bench.completions))

    a = Script(B(0, look))
    with Bench(a) as bench:
        bench.send(b"o")
        assert heard == [[]]
        assert bench.log == ["A(S1 'o')", "cmp('x', SUCCESS)"]
        assert a.inject_bytes(SEND, b"y") == SUCCESS
        assert bench.completions == ["cmp('x', SUCCESS)"]
        bench.settle()
        assert bench.completions == ["cmp('x', SUCCESS)", "cmp('y', SUCCESS)"]
        assert bench.to_remote == (b"xy", False)


def test_cmp_6_fifo_per_direction_and_stage_a_lower_stage_may_be_first() -> None:
    """CMP-6: B holds A's bytes, so what B injects completes first and releases nothing else out of order."""
    a, b = Script(name="A"), Script(NMD(10), P(0), name="B")
    with Bench(a, b) as bench:
        assert a.inject_bytes(SEND, b"1") == SUCCESS
        assert b.inject_bytes(SEND, b"b") == SUCCESS
        assert a.inject_bytes(SEND, b"2") == SUCCESS
        bench.settle()
        assert bench.completions == ["cmp('b', SUCCESS)"]
        assert a.inject_bytes(SEND, b"34567890") == SUCCESS
        bench.settle()
        assert bench.completions == [
            "cmp('b', SUCCESS)",
            "cmp('1', SUCCESS)",
            "cmp('2', SUCCESS)",
            "cmp('34567890', SUCCESS)",
        ]
        assert bench.to_remote == (b"b1234567890", False)


@pytest.mark.parametrize("dispatch_mode", [False, True])
def test_cmp_7_dispatch_level(dispatch_mode: bool) -> None:
    """CMP-7: FALSE normally, TRUE in dispatch mode."""
    a = Script()
    with Bench(a, options=EngineOptions(dispatch_mode=dispatch_mode)) as bench:
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        bench.settle()
        assert a.completed_nbls == [Completion(b"x", SUCCESS, 1, alone=True, dispatch_level=dispatch_mode)]
        assert bench.completions == ["cmp('x', SUCCESS)"]
        assert bench.to_remote == (b"x", False)


@pytest.mark.parametrize("kind", ["clone", "allocated"])
def test_cmp_8_completion_owns_the_list_again(kind: str) -> None:
    """CMP-8: it frees by kind, exactly once; a second time is V-26."""

    def cloning(*call: Any) -> None:
        w.keep_clone(call[2])
        block(*call)

    w = World(cloning)
    w.send(b"x")
    nbl = w.kept[0] if kind == "clone" else w.list_of(b"y")
    free = w.fwps.free_clone_net_buffer_list if kind == "clone" else w.fwps.free_net_buffer_list

    def complete(context: object, given: Any, dispatch_level: bool) -> None:
        assert given is nbl
        free(given)
        heard.append(kind)

    heard: list[str] = []
    assert w.inject(SEND, nbl, completion_fn=complete) == SUCCESS
    w.settle()
    assert heard == [kind]
    assert w.caught == []
    free(nbl)
    assert [rule for rule, _ in w.caught] == ["V-26"]
    if kind == "allocated":
        w.discard()


@pytest.mark.parametrize(
    ("end", "status"),
    [("reset", "CONNECTION_RESET"), ("drop", "CONNECTION_ABORTED"), ("abort", "CONNECTION_ABORTED")],
)
def test_cmp_9_flow_end_with_injections_pending(end: str, status: str) -> None:
    """CMP-9: RESET after an endpoint's reset, ABORTED after drop and abort; before flowDeleteFn."""
    a = Script(name="A", then=B(0))
    with Bench(a, context=7, options=EngineOptions(indicate_abort=False)) as bench:
        bench.flow.local.window = 0
        assert a.inject_bytes(RECEIVE, b"x") == SUCCESS
        assert a.inject_bytes(RECEIVE, b"y") == SUCCESS
        bench.settle()
        if end == "reset":
            bench.reset("local")
        elif end == "abort":
            assert a.fwps.flow_abort(a.flow_id) == SUCCESS
        else:
            a.add_answers(DROP())
            bench.send(b"o")
        bench.settle()
        calls = ["A(S1 'o')"] if end == "drop" else []
        assert bench.log == [*calls, f"cmp('x', {status})", f"cmp('y', {status})", "flowDelete(A)"]
        assert bench.resets == (True, True)


def test_cmp_9_engine_stop() -> None:
    """CMP-9: ABORTED when the engine stops."""
    w = World(block)
    w.flow.remote.window = 0
    assert w.associate(7) == SUCCESS
    assert w.inject_bytes(SEND, b"x") == SUCCESS
    assert w.close() == []
    assert w.completed == [(b"x", NtStatus.STATUS_CONNECTION_ABORTED)]
    assert w.callout.deleted == [7]


def test_cmp_10_held_by_a_lower_stage() -> None:
    """CMP-10: bytes a lower stage waits with keep the injection pending."""
    a, b = Script(name="A"), Script(NMD(2), P(0), name="B")
    with Bench(a, b) as bench:
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        bench.settle()
        assert bench.log == ["B(S1 'x')"]
        assert a.inject_bytes(SEND, b"y") == SUCCESS
        bench.settle()
        assert bench.log == ["B(S1 'x')", "B(S2 'xy')", "cmp('x', SUCCESS)", "cmp('y', SUCCESS)"]
        assert bench.to_remote == (b"xy", False)


@pytest.mark.parametrize("performed", [True, False])
def test_cmp_11_fin_of_an_empty_clone(performed: bool) -> None:
    """CMP-11: one completion, when the half-close was performed, or when a lower stage consumed the FIN."""
    a, b = Script(B(0, clone), name="A"), Script(P(0) if performed else B(0), name="B")
    with Bench(a, b) as bench:
        bench.flow.remote.window = 0
        assert b.inject_bytes(SEND, b"z") == SUCCESS
        bench.send_fin()
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.completions == ([] if performed else ["cmp(FIN, SUCCESS)"])
        bench.flow.remote.window = None
        bench.settle()
        assert sorted(bench.completions) == ["cmp('z', SUCCESS)", "cmp(FIN, SUCCESS)"]
        assert bench.to_remote == (b"z", performed)


def test_cmp_12_destroy_without_pending_injections() -> None:
    """CMP-12: STATUS_SUCCESS at once; afterwards the handle is stale."""
    w = World(block)
    status, handle = w.fwps.injection_handle_create()
    assert status == SUCCESS
    assert w.inject_bytes(SEND, b"x", injection_handle=handle) == SUCCESS
    w.settle()
    assert w.fwps.injection_handle_destroy(handle) == SUCCESS
    assert w.fwps.injection_handle_closed(handle)
    stale = w.inject_bytes(SEND, b"y", injection_handle=handle)
    assert stale == NtStatus.STATUS_FWP_INJECT_HANDLE_STALE
    assert w.close() == []


def test_cmp_12_destroy_with_pending_injections() -> None:
    """CMP-12: STATUS_PENDING until every injection of the handle completed, also one of another flow."""
    w = World(block)
    other = w.connect()
    status, handle = w.fwps.injection_handle_create()
    assert status == SUCCESS
    for flow in (w.flow, other):
        flow.remote.window = 0
        assert w.inject_bytes(SEND, b"x", injection_handle=handle, flow_id=flow.id) == SUCCESS
    assert w.fwps.injection_handle_destroy(handle) == PENDING
    closing = w.inject_bytes(SEND, b"y", injection_handle=handle)
    assert closing == NtStatus.STATUS_FWP_INJECT_HANDLE_CLOSING
    w.flow.remote.window = None
    w.settle()
    assert not w.fwps.injection_handle_closed(handle)
    other.remote.window = None
    w.driver.run_until(lambda: w.fwps.injection_handle_closed(handle))
    stale = w.inject_bytes(SEND, b"y", injection_handle=handle)
    assert stale == NtStatus.STATUS_FWP_INJECT_HANDLE_STALE
    assert w.close() == []


def test_cmp_13_completion_after_unregister_and_removal() -> None:
    """CMP-13: pending injections still complete after the context was removed and the callout unregistered."""
    w = World(block)
    w.flow.remote.window = 0
    assert w.associate(7) == SUCCESS
    assert w.inject_bytes(SEND, b"x") == SUCCESS
    assert w.remove() == SUCCESS
    assert w.fwps.callout_unregister_by_id(w.callout_id) == SUCCESS
    assert w.completed == []
    w.flow.remote.window = None
    w.settle()
    assert w.completed == [(b"x", SUCCESS)]
    assert w.to_remote == b"x"


def test_cmp_14_early_completion() -> None:
    """CMP-14: early, the receiver is not waited for."""
    for completion, expected in (("early", ["cmp('x', SUCCESS)"]), ("normal", [])):
        a = Script()
        with Bench(a, options=EngineOptions(completion=completion)) as bench:
            bench.flow.remote.window = 0
            assert a.inject_bytes(SEND, b"x") == SUCCESS
            bench.settle()
            assert bench.completions == expected
            bench.flow.remote.window = None
            bench.settle()
            assert bench.completions == ["cmp('x', SUCCESS)"]
            assert bench.to_remote == (b"x", False)


def test_cmp_15_completions_run_after_every_stage_was_classified() -> None:
    """CMP-15: classify until no stage can take more, then completions; what one injects is classified next."""
    a, b = Script(P(1, inj(b"x")), P(0), name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"op")
        assert bench.log == [
            "A(S2 'op')",
            "B(S1 'x')",
            "B(S1 'o')",
            "A(S1 'p')",
            "B(S1 'p')",
            "cmp('x', SUCCESS)",
        ]
        assert bench.to_remote == (b"xop", False)


def test_cmp_15_completions_before_the_end_of_the_flow() -> None:
    """CMP-15: flow end comes last."""
    a = Script(B(0, clone), B(0, clone), name="A")
    with Bench(a, context=1) as bench:
        bench.receive_fin()
        bench.send_fin()
        assert a.inject_pended() == SUCCESS
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.log[-3:] == ["cmp(FIN, SUCCESS)", "cmp(FIN, SUCCESS)", "flowDelete(A)"]
        assert bench.to_remote == (b"", True)
        assert bench.to_local == (b"", True)


def test_cmp_15_callbacks_per_turn() -> None:
    """CMP-15: the loop stops after so many callbacks and leaves the flow to the next turn; nothing is lost."""
    order: list[int] = []

    def calls_until_the_end(limit: int) -> int:
        a = Script(*[C(1)] * 9)
        options = EngineOptions(callbacks_per_turn=limit)
        options.verify.level = "warn"
        driver = MemoryDriver(options=options)
        driver.add(a)
        flow = driver.connect()
        assert flow is not None
        flow.flow.received(0, b"0123456789")
        order.append(len(a.transcript.calls))
        driver.engine.settle_output(flow.flow)
        driver.settle()
        flow.serve()
        assert bytes(flow.remote.data) == b"0123456789"
        assert len(a.transcript.calls) == 10
        driver.close()
        return order[-1]

    assert calls_until_the_end(1000) == 10
    assert calls_until_the_end(3) < 10


def test_cmp_16_effects_of_a_call_inside_a_callback_only_queue() -> None:
    """CMP-16: also those for another flow; classifies never nest."""
    w = World(permit)
    b = Script(name="B")
    w.driver.add(b)
    first, second = w.connect(), w.connect()
    seen: list[int] = []

    def inject_into_the_second(call: Call) -> None:
        if call.flow_id == first.id:
            assert w.inject_bytes(SEND, b"x", flow_id=second.id) == SUCCESS
            seen.append(len(b.transcript.calls))

    b.add_answers(P(0, inject_into_the_second), P(0))
    first.send(b"o")
    w.settle()
    assert seen == [1]
    assert b.transcript.calls == ["B(S1 'o')", "B(S1 'x')"]
    assert bytes(second.remote.data) == b"x"
    assert b.transcript.faults == []


def test_cmp_17_due_through_a_call_from_outside() -> None:
    """CMP-17: not inside that call but in the driver's next turn, which the engine asks for at once."""
    asked: list[str] = []
    a, b = Script(name="A"), Script(B(0), name="B")
    with Bench(a, b) as bench:
        engine = bench.driver.engine
        engine.on_pending = lambda: asked.append("turn")
        before = engine.has_pending
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        assert bench.log == ["B(S1 'x')"]
        assert (before, engine.has_pending) == (False, True)
        assert asked == ["turn"]
        engine.turn()
        assert bench.log == ["B(S1 'x')", "cmp('x', SUCCESS)"]


# --- injection handles ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", [0, 2, 23, 99])
def test_ihc_1_address_family_is_ignored_for_stream(family: int) -> None:
    """IHC-1: the address family is optional for stream and ignored there."""
    w = World(block)
    status, handle = w.fwps.injection_handle_create(family, int(InjectionType.STREAM))
    assert status == SUCCESS
    assert handle
    assert w.inject_bytes(SEND, b"x", injection_handle=handle) == SUCCESS
    w.settle()
    assert w.fwps.injection_handle_destroy(handle) == SUCCESS
    assert w.close() == []


def test_ihc_1_flags() -> None:
    """IHC-1: 0 is transport, stream and forward; unknown bits are STATUS_INVALID_PARAMETER."""
    w = World(block)
    status, handle = w.fwps.injection_handle_create(0, 0)
    assert status == SUCCESS
    assert w.inject_bytes(SEND, b"x", injection_handle=handle) == SUCCESS
    w.settle()
    assert w.fwps.injection_handle_destroy(handle) == SUCCESS
    for flags in (1 << 20, 1 | 1 << 20):
        assert w.fwps.injection_handle_create(0, flags) == (NtStatus.STATUS_INVALID_PARAMETER, 0)
    assert w.close() == []


def test_ihc_1_engine_not_ready() -> None:
    """IHC-1: STATUS_FWP_TCPIP_NOT_READY."""
    w = World(block)
    w.driver.engine.stop()
    assert w.fwps.injection_handle_create() == (NtStatus.STATUS_FWP_TCPIP_NOT_READY, 0)
