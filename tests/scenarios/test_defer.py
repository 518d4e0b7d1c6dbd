"""SC-41 to SC-49: DEFER and stream_continue."""

from __future__ import annotations

import pytest

from tests.scenarios.support import DEF, RECEIVE, Bench, C, Hook, P, Script, bytewise
from wfpstream.fwp import NtStatus

INBOUND = 1


def test_sc_41_the_sender_stops_until_continue() -> None:
    a = Script(DEF())
    with Bench(a) as bench:
        bench.receive(b"aaaa")
        bench.receive(b"bbb", b"cc")
        assert bench.calls == ["A(R4 'aaaa')"]
        assert bench.flow.pending_input(INBOUND) == 5
        bench.driver.advance(0.1)
        assert bench.calls == ["A(R4 'aaaa')"]
        assert a.resume() == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.calls == ["A(R4 'aaaa')", "A(R4 'aaaa')", "A(R3 'bbb')", "A(R2 'cc')"]
        assert bench.flow.pending_input(INBOUND) == 0
        assert bench.to_local == (b"aaaabbbcc", False)


def test_sc_41_nothing_is_read_after_defer_byte_by_byte() -> None:
    a = Script(DEF())
    with Bench(a) as bench:
        bench.receive(*bytewise(b"abcdef"))
        assert bench.calls == ["A(R1 'a')"]
        assert bench.flow.pending_input(INBOUND) == 5
        assert bench.to_local == (b"", False)
        bench.driver.advance(0.1)
        assert a.resume() == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.calls == [
            "A(R1 'a')", "A(R1 'a')", "A(R1 'b')", "A(R1 'c')", "A(R1 'd')", "A(R1 'e')", "A(R1 'f')",
        ]  # fmt: skip
        assert bench.to_local == (b"abcdef", False)


def test_sc_42_injection_while_deferred() -> None:
    a = Script(DEF(), P(0))
    with Bench(a) as bench:
        bench.receive(b"B")
        assert a.inject_bytes(RECEIVE, b"A") == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.to_local == (b"A", False)
        assert bench.log == ["A(R1 'B')", "cmp('A', SUCCESS)"]
        assert a.resume() == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.log == ["A(R1 'B')", "cmp('A', SUCCESS)", "A(R1 'B')"]
        assert bench.to_local == (b"AB", False)


def test_sc_42_injection_while_deferred_and_the_local_host_does_not_read() -> None:
    a = Script(DEF(), P(0))
    with Bench(a) as bench:
        bench.flow.local.window = 0
        bench.receive(b"B")
        assert a.inject_bytes(RECEIVE, b"A") == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.log == ["A(R1 'B')"]
        assert a.resume() == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.log == ["A(R1 'B')", "A(R1 'B')"]
        assert bench.to_local == (b"", False)
        bench.flow.local.window = None
        bench.settle()
        assert bench.log == ["A(R1 'B')", "A(R1 'B')", "cmp('A', SUCCESS)"]
        assert bench.to_local == (b"AB", False)


def test_sc_43_defer_outbound_drops() -> None:
    with Bench(Script(DEF()), violations=["V-3"], context=1) as bench:
        bench.send(b"x")
        assert bench.log == ["A(S1 'x')", "flowDelete(A)"]
        assert bench.to_remote == (b"", False)
        assert bench.resets == (True, True)


def test_sc_43_defer_outbound_under_inspection_passes() -> None:
    with Bench(Script(DEF(), then=C(0), action="callout_inspection"), violations=["V-3"]) as bench:
        bench.send(b"x")
        assert bench.calls == ["A(S1 'x')"]
        assert bench.to_remote == (b"x", False)
        assert bench.resets == (False, False)


def resume_inside(a: Script, statuses: list[NtStatus]) -> Hook:
    return lambda call: statuses.append(a.resume())


def test_sc_44_continue_inside_a_classify_of_the_flow() -> None:
    statuses: list[NtStatus] = []
    a = Script(DEF())
    a.add_answers(P(0, resume_inside(a, statuses)))
    with Bench(a, violations=["V-14"]) as bench:
        bench.receive(b"a")
        bench.send(b"s")
        assert statuses == [NtStatus.STATUS_INVALID_DEVICE_STATE]
        assert bench.calls == ["A(R1 'a')", "A(S1 's')"]
        assert bench.to_local == (b"", False)
        assert a.resume() == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.calls == ["A(R1 'a')", "A(S1 's')", "A(R1 'a')"]
        assert bench.to_local == (b"a", False)
        assert bench.to_remote == (b"s", False)


def test_sc_44_continue_inside_the_deferring_classify() -> None:
    statuses: list[NtStatus] = []
    a = Script()
    a.add_answers(DEF(resume_inside(a, statuses)))
    with Bench(a, violations=["V-14"]) as bench:
        bench.receive(b"a")
        assert statuses == [NtStatus.STATUS_INVALID_DEVICE_STATE]
        assert bench.calls == ["A(R1 'a')"]
        assert bench.to_local == (b"", False)
        assert a.resume() == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.calls == ["A(R1 'a')", "A(R1 'a')"]
        assert bench.to_local == (b"a", False)


def test_sc_45_continue_twice() -> None:
    a = Script(DEF())
    with Bench(a) as bench:
        bench.receive(b"a")
        assert a.resume() == NtStatus.STATUS_SUCCESS
        assert bench.calls == ["A(R1 'a')"]  # DEF-6: not inside the call
        assert a.resume() == NtStatus.STATUS_INVALID_DEVICE_STATE
        bench.settle()
        assert bench.calls == ["A(R1 'a')", "A(R1 'a')"]
        assert bench.to_local == (b"a", False)


def test_sc_46_fin_behind_deferred_bytes() -> None:
    a = Script(DEF())
    with Bench(a) as bench:
        bench.receive(b"a")
        bench.receive_fin()
        assert bench.calls == ["A(R1 'a')"]
        assert bench.to_local == (b"", False)
        assert a.resume() == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.calls == ["A(R1 'a')", "A(R1 'a')", "A(R FIN +N)"]
        assert bench.to_local == (b"a", True)


def test_sc_47_reset_while_deferred() -> None:
    a = Script(DEF())
    with Bench(a, context=1) as bench:
        bench.receive(b"a")
        bench.reset("remote")
        assert bench.log == ["A(R1 'a')", "A(R ABORT +N)", "flowDelete(A)"]
        assert a.resume() == NtStatus.STATUS_FWP_NOT_FOUND
        bench.settle()
        assert bench.log == ["A(R1 'a')", "A(R ABORT +N)", "flowDelete(A)"]
        assert bench.to_local == (b"", False)
        assert bench.flow.local.reset


@pytest.mark.parametrize("pieces", [[b"one two"], bytewise(b"one two")], ids=len)
def test_sc_48_send_flows_while_receive_is_deferred(pieces: list[bytes]) -> None:
    a = Script(DEF())
    with Bench(a) as bench:
        bench.receive(b"r")
        bench.send(*pieces)
        bench.send_fin()
        assert bench.calls[0] == "A(R1 'r')"
        assert len(bench.calls) == 2 + len(pieces)
        assert bench.calls[-1] == "A(S FIN +N)"
        assert bench.to_remote == (b"one two", True)
        assert bench.to_local == (b"", False)
        assert a.resume() == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.to_local == (b"r", False)


def test_sc_49_the_lower_stage_is_deferred_the_higher_is_not() -> None:
    # X stands for the driver that has read both already: it hands "1" and "2" on one by one.
    splitter, a, b = Script(P(1), P(0), name="X"), Script(), Script(DEF(), name="B")
    with Bench(splitter, a, b) as bench:
        bench.receive(b"12")
        assert bench.calls == ["X(R2 '12')", "A(R1 '1')", "B(R1 '1')", "X(R1 '2')", "A(R1 '2')"]
        assert b.resume() == NtStatus.STATUS_SUCCESS
        bench.settle()
        assert bench.calls[5:] == ["B(R2 '12')"]
        assert bench.to_local == (b"12", False)
