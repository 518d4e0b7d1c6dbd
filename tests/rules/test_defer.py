"""DEFER and FwpsStreamContinue (DEF-*): what waits, what goes on, and how the wait ends.

Owns the deferral of one stage. It must not know how a driver stops reading a socket.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import (
    DEF,
    NMD,
    RECEIVE_FIN,
    RECEIVE_PUSH,
    SEND,
    Answer,
    B,
    Bench,
    C,
    Call,
    P,
    Script,
)
from wfpstream.engine import YES
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import LayerId, StreamActionType
from wfpstream.testing import MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS
STREAM = int(LayerId.STREAM_V4)


@pytest.mark.parametrize("kind", ["data", "fin"])
@pytest.mark.parametrize("action", ["callout_unknown", "callout_terminating"])
def test_def_1_outbound_is_illegal(kind: str, action: str) -> None:
    """DEF-1: legal only on RECEIVE; outbound → ACT-13, V-3."""
    with Bench(Script(DEF(), action=action), violations=["V-3"]) as bench:
        bench.send(b"x") if kind == "data" else bench.send_fin()
        assert len(bench.log) == 1
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)


@pytest.mark.parametrize("enforced", [0, 1, 4])
def test_def_2_the_whole_indication_is_held(enforced: int) -> None:
    """DEF-2: countBytesEnforced and actionType are ignored (V-11 for the count)."""
    a = Script(Answer(int(ActionType.NONE), enforced, int(StreamActionType.DEFER)))
    with Bench(a, violations=["V-11"] if enforced else []) as bench:
        bench.receive(b"abcd")
        assert bench.to_local == (b"", False)
        assert bench.flow.ledger(1).held == 4
        assert a.resume() == SUCCESS
        bench.settle()
        assert bench.log == ["A(R4 'abcd')", "A(R4 'abcd')"]
        assert bench.to_local == (b"abcd", False)


@pytest.mark.parametrize("action_type", [ActionType.PERMIT, ActionType.BLOCK])
def test_def_2_the_action_type_is_ignored(action_type: ActionType) -> None:
    """DEF-2: PERMIT or BLOCK beside DEFER do nothing (V-7)."""
    a = Script(Answer(int(action_type), 0, int(StreamActionType.DEFER)))
    with Bench(a, violations=["V-7"]) as bench:
        bench.receive(b"abcd")
        assert bench.to_local == (b"", False)
        assert a.resume() == SUCCESS
        bench.settle()
        assert bench.log == ["A(R4 'abcd')", "A(R4 'abcd')"]
        assert bench.to_local == (b"abcd", False)


def test_def_3_the_remote_leg_is_not_read_and_send_goes_on() -> None:
    """DEF-3: reading stops for that flow until the continue."""
    a = Script(DEF())
    with Bench(a) as bench:
        bench.receive(b"ab", b"cd")
        assert bench.flow.pending_input(1) == 2
        bench.send(b"x")
        assert bench.to_remote == (b"x", False)
        assert a.resume() == SUCCESS
        bench.settle()
        assert bench.flow.pending_input(1) == 0
        assert bench.log == ["A(R2 'ab')", "A(S1 'x')", "A(R2 'ab')", "A(R2 'cd')"]
        assert bench.to_local == (b"abcd", False)


def test_def_4_bytes_already_read_keep_moving_and_queue_before_the_stage() -> None:
    """DEF-4: what an upper stage still had when B deferred moves on and queues; nothing more is read."""
    a, b = Script(C(2), C(2), C(0)), Script(DEF(), name="B")
    with Bench(a, b) as bench:
        bench.receive(b"abcdef")
        bench.receive(b"later")
        assert bench.calls == ["A(R6 'abcdef')", "B(R2 'ab')", "A(R4 'cdef')", "A(R2 'ef')"]
        stage = bench.flow.ledger(1).stages[1]
        assert (stage.held, stage.queued) == (2, 4)
        assert bench.flow.pending_input(1) == 5
        assert b.resume() == SUCCESS
        bench.settle()
        assert bench.calls[4:] == ["B(R6 'abcdef')", "A(R5 'later')", "B(R5 'later')"]
        assert bench.to_local == (b"abcdeflater", False)


def test_def_4_an_upper_stage_that_waits_is_bounded_by_what_was_read() -> None:
    """DEF-4: A holds bytes for NEED_MORE_DATA; B defers; nothing is read until B goes on."""
    a, b = Script(C(1), NMD(4), C(0)), Script(DEF(), name="B")
    with Bench(a, b) as bench:
        bench.receive(b"abc")
        bench.receive(b"def")
        assert bench.calls == ["A(R3 'abc')", "B(R1 'a')", "A(R2 'bc')"]
        assert bench.flow.pending_input(1) == 3
        assert b.resume() == SUCCESS
        bench.settle()
        assert bench.calls[3:] == ["B(R1 'a')", "A(R5 'bcdef')", "B(R5 'bcdef')"]
        assert bench.to_local == (b"abcdef", False)


def test_def_5_held_and_queued_bytes_as_one_indication_fin_apart() -> None:
    """DEF-5: the callout may defer again."""
    a, b = Script(C(1), C(0), C(0)), Script(DEF(), DEF(), name="B")
    with Bench(a, b) as bench:
        bench.flow.receive(b"abc", fin=True)
        bench.settle()
        assert b.resume() == SUCCESS
        bench.settle()
        assert b.resume(int(RECEIVE_PUSH)) == SUCCESS
        bench.settle()
        assert bench.calls_of("B") == ["B(R1 'a')", "B(R3 'abc' +N)", "B(R3 'abc' +N)", "B(R FIN +N)"]
        assert bench.to_local == (b"abc", True)


def test_def_6_the_indication_does_not_run_inside_the_continue() -> None:
    """DEF-6: it is scheduled, and runs before any later-read byte."""
    a = Script(DEF())
    with Bench(a) as bench:
        bench.receive(b"ab")
        assert a.resume() == SUCCESS
        assert bench.log == ["A(R2 'ab')"]
        bench.receive(b"cd")
        assert bench.log == ["A(R2 'ab')", "A(R2 'ab')", "A(R2 'cd')"]
        assert bench.to_local == (b"abcd", False)


def test_def_7_not_from_inside_a_classify() -> None:
    """DEF-7: STATUS_INVALID_DEVICE_STATE, V-14; whatever flow and direction the classify is of."""
    statuses: list[NtStatus] = []

    def try_it(call: Call) -> None:
        assert isinstance(call.owner, Script)
        statuses.append(call.owner.resume())

    a = Script(DEF(), P(0, try_it))
    with Bench(a, violations=["V-14"]) as bench:
        bench.receive(b"ab")
        bench.send(b"x")
        assert statuses == [NtStatus.STATUS_INVALID_DEVICE_STATE]
        assert bench.to_local == (b"", False)
        assert a.resume() == SUCCESS
        bench.settle()
        assert bench.to_local == (b"ab", False)
        assert bench.to_remote == (b"x", False)
        assert len(bench.log) == 3


def test_def_7_from_a_timer_or_a_completion_it_is_legal() -> None:
    """DEF-7: only a call on the classifying stack is V-14 (a timer here)."""
    a = Script(DEF())
    statuses: list[NtStatus] = []
    with Bench(a) as bench:
        bench.receive(b"ab")
        a.after(1.0, lambda: statuses.append(a.resume()))
        bench.driver.advance(2.0)
        assert statuses == [SUCCESS]
        assert bench.log == ["A(R2 'ab')", "A(R2 'ab')"]
        assert bench.to_local == (b"ab", False)


def test_def_8_parameter_checks() -> None:
    """DEF-8: a code for each fault; other flags than the deferred indication's are lint V-15."""
    a = Script(DEF())
    with Bench(a, violations=["V-15"]) as bench:
        fwps, me, flow_id = a.fwps, a.callout_id(STREAM), bench.flow.id
        bad = NtStatus
        resume = fwps.stream_continue
        assert a.resume() == bad.STATUS_INVALID_DEVICE_STATE
        bench.receive(b"ab")
        v6, established = int(LayerId.STREAM_V6), int(LayerId.ALE_FLOW_ESTABLISHED_V4)
        assert resume(flow_id, me, v6, RECEIVE_PUSH) == bad.STATUS_FWP_INCOMPATIBLE_LAYER
        assert resume(flow_id, me, established, RECEIVE_PUSH) == bad.STATUS_FWP_INCOMPATIBLE_LAYER
        assert resume(flow_id, 9999, STREAM, RECEIVE_PUSH) == bad.STATUS_FWP_CALLOUT_NOT_FOUND
        assert resume(9999, me, STREAM, RECEIVE_PUSH) == bad.STATUS_FWP_NOT_FOUND
        assert resume(flow_id, me, STREAM, SEND) == bad.STATUS_FWP_INVALID_PARAMETER
        assert bench.to_local == (b"", False)
        assert resume(flow_id, me, STREAM, RECEIVE_FIN) == SUCCESS
        bench.settle()
        assert len(bench.log) == 2
        assert bench.to_local == (b"ab", False)


def test_def_10_an_injection_while_deferred_lands_before_the_held_bytes() -> None:
    """DEF-10: legal (no V-21), and in front."""
    a = Script(P(0), DEF())
    with Bench(a) as bench:
        bench.receive(b"1", b"3")
        assert a.inject_bytes(RECEIVE_PUSH, b"2") == SUCCESS
        bench.settle()
        assert bench.to_local == (b"12", False)
        assert a.resume() == SUCCESS
        bench.settle()
        assert bench.log == ["A(R1 '1')", "A(R1 '3')", "cmp('2', SUCCESS)", "A(R1 '3')"]
        assert bench.to_local == (b"123", False)


def test_def_11_a_deferred_fin_is_indicated_again() -> None:
    """DEF-11: accepted on a RECEIVE FIN, re-indicated on continue."""
    a = Script(DEF(), P(0))
    with Bench(a) as bench:
        bench.receive_fin()
        assert bench.to_local == (b"", False)
        assert a.resume(RECEIVE_FIN) == SUCCESS
        bench.settle()
        assert bench.log == ["A(R FIN +N)", "A(R FIN +N)"]
        assert bench.to_local == (b"", True)


def test_def_12_reset_while_deferred() -> None:
    """DEF-12: data discarded, later continue → STATUS_FWP_NOT_FOUND."""
    a = Script(DEF())
    with Bench(a) as bench:
        bench.receive(b"ab")
        bench.reset("local")
        assert bench.flow.ended
        assert a.resume() == NtStatus.STATUS_FWP_NOT_FOUND
        assert bench.to_local == (b"", False)
        assert bench.flow.ledger(1).discarded == 2


def test_def_13_only_its_own_flow_and_direction() -> None:
    """DEF-13: other flows and the other direction go on."""
    a = Script(DEF())
    with Bench(a) as bench:
        other = bench.driver.connect()
        assert other is not None
        bench.receive(b"held")
        bench.send(b"x")
        other.receive(b"free")
        other.send(b"y")
        assert bench.to_remote == (b"x", False)
        assert bench.to_local == (b"", False)
        assert (bytes(other.local.data), bytes(other.remote.data)) == (b"free", b"y")
        assert a.resume() == SUCCESS
        bench.settle()
        assert len(bench.log) == 5
        assert bench.to_local == (b"held", False)


def test_def_14_under_an_inspection_filter() -> None:
    """DEF-14: honoured: delay is not modification."""
    a = Script(DEF(), B(0), action="callout_inspection")
    with Bench(a, violations=["V-6"]) as bench:
        bench.receive(b"ab")
        assert bench.to_local == (b"", False)
        assert a.resume() == SUCCESS
        bench.settle()
        assert len(bench.log) == 2
        assert bench.to_local == (b"ab", False)


def test_def_3_the_driver_is_told_which_direction_to_hold_back() -> None:
    """DEF-3: RECEIVE may not be read while deferred, SEND may."""
    with MemoryDriver() as driver:
        a = Script(DEF())
        driver.add(a)
        flow = driver.connect()
        assert flow is not None
        flow.receive(b"x")
        assert flow.may_read(1) != YES
        assert flow.may_read(0) == YES
        a.flow_id = flow.id
        assert a.resume() == SUCCESS
        driver.settle()
        assert flow.may_read(1) == YES
