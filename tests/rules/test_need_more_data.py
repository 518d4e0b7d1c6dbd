"""NEED_MORE_DATA (NMD-*): what is held, when the stage is asked again, and how a wait ends.

Owns the waiting of one stage. Limits over several stores are with the indications.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import (
    DROP,
    NMD,
    Answer,
    B,
    Bench,
    P,
    Script,
)
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import StreamActionType

SUCCESS = NtStatus.STATUS_SUCCESS


def small_limit(limit: int = 8) -> EngineOptions:
    options = EngineOptions()
    options.limits.need_more_data = limit
    return options


@pytest.mark.parametrize("enforced", [0, 1, 4, 9])
def test_nmd_1_the_whole_indication_is_held_whatever_is_enforced(enforced: int) -> None:
    """NMD-1: no byte passes or is lost; countBytesEnforced is ignored (V-11 when not 0)."""
    answer = Answer(int(ActionType.NONE), enforced, int(StreamActionType.NEED_MORE_DATA), 6)
    with Bench(Script(answer), violations=["V-11"] if enforced else []) as bench:
        bench.send(b"abcd")
        assert bench.to_remote == (b"", False)
        assert bench.flow.ledger(0).held == 4
        bench.send(b"ef")
        assert bench.log == ["A(S4 'abcd')", "A(S6 'abcdef')"]
        assert bench.to_remote == (b"abcdef", False)


def test_nmd_1_what_was_decided_before_the_wait_is_out() -> None:
    """NMD-1: a wait in a remainder holds the remainder only."""
    with Bench(Script(P(2), NMD(4))) as bench:
        bench.send(b"abcd")
        assert bench.to_remote == (b"ab", False)
        bench.send(b"ef")
        assert bench.log == ["A(S4 'abcd')", "A(S2 'cd')", "A(S4 'cdef')"]
        assert bench.to_remote == (b"abcdef", False)


def test_nmd_2_held_and_new_bytes_as_one_indication() -> None:
    """NMD-2: the first byte is unchanged, the new bytes follow."""
    with Bench(Script(NMD(), NMD(), P(0))) as bench:
        bench.receive(b"a", b"bc", b"def")
        assert bench.log == ["A(R1 'a')", "A(R3 'abc')", "A(R6 'abcdef')"]
        assert bench.to_local == (b"abcdef", False)


@pytest.mark.parametrize(
    ("mode", "log"),
    [
        ("total", ["A(S2 'ab')", "A(S3 'abc')"]),
        ("additional", ["A(S2 'ab')", "A(S5 'abcde')"]),
    ],
)
def test_nmd_3_total_or_additional(mode: str, log: list[str]) -> None:
    """NMD-3: 3 bytes: total counts what is held already; additional is the test switch."""
    with Bench(Script(NMD(3)), options=EngineOptions(need_more_mode=mode)) as bench:
        bench.send(b"ab", b"c")
        if mode == "additional":
            bench.send(b"d")
            assert bench.to_remote == (b"", False)
            bench.send(b"e")
        assert bench.log == log
        assert bench.to_remote == (b"abc" if mode == "total" else b"abcde", False)


@pytest.mark.parametrize("asked", [1, 2])
def test_nmd_3_at_least_one_new_byte(asked: int) -> None:
    """NMD-3: a request that is satisfied already still waits for progress."""
    with Bench(Script(NMD(asked))) as bench:
        bench.send(b"ab")
        assert bench.log == ["A(S2 'ab')"]
        bench.send(b"c")
        assert bench.log == ["A(S2 'ab')", "A(S3 'abc')"]
        assert bench.to_remote == (b"abc", False)


def test_nmd_4_zero_means_one_more_byte() -> None:
    """NMD-4: countBytesRequired = 0."""
    with Bench(Script(NMD(0))) as bench:
        bench.send(b"abc")
        assert bench.log == ["A(S3 'abc')"]
        bench.send(b"d")
        assert bench.log == ["A(S3 'abc')", "A(S4 'abcd')"]
        assert bench.to_remote == (b"abcd", False)


@pytest.mark.parametrize("answer", [P(0), B(0)], ids=["permit", "block"])
def test_nmd_6_at_the_limit_exactly_the_held_bytes(answer: Answer) -> None:
    """NMD-6: BUFFER_LIMIT_REACHED with at most the limit; excess stays queued."""
    with Bench(Script(NMD(8), answer, P(0)), options=small_limit()) as bench:
        bench.send(b"01234", b"56789")
        assert bench.log == ["A(S5 '01234')", "A(S8 '01234567' +L)", "A(S2 '89')"]
        assert bench.to_remote == (b"89" if answer.action == ActionType.BLOCK else b"0123456789", False)


def test_nmd_7_a_partial_decision_at_the_limit() -> None:
    """NMD-7: honoured, the remainder has the flag still set, V-13."""
    with Bench(Script(NMD(8), B(3), P(0)), options=small_limit(), violations=["V-13"]) as bench:
        bench.send(b"0123", b"4567")
        assert bench.log == ["A(S4 '0123')", "A(S8 '01234567' +L)", "A(S5 '34567' +L)"]
        assert bench.to_remote == (b"34567", False)


def test_nmd_8_a_request_above_the_limit() -> None:
    """NMD-8: accepted, lint V-12, and simply ends in NMD-6."""
    with Bench(Script(NMD(100)), options=small_limit(), violations=["V-12"]) as bench:
        bench.send(b"0123")
        assert bench.to_remote == (b"", False)
        bench.send(b"456")
        assert len(bench.log) == 1
        bench.send(b"7")
        assert bench.log == ["A(S4 '0123')", "A(S8 '01234567' +L)"]
        assert bench.to_remote == (b"01234567", False)


def test_nmd_8_the_default_limit_is_8_mebibytes() -> None:
    """NMD-6, NMD-8: 8 388 608 bytes; a request for exactly that much is no lint."""
    assert EngineOptions().limits.need_more_data == 8_388_608
    for asked, violations in ((8_388_608, []), (8_388_609, ["V-12"])):
        with Bench(Script(NMD(asked)), violations=violations) as bench:
            bench.send(b"x")
            assert bench.to_remote == (b"", False)


def test_nmd_8_one_indication_above_the_limit() -> None:
    """NMD-8: the test is on held + new bytes: one indication can reach the limit by itself."""
    with Bench(Script(NMD(9)), options=small_limit(), violations=["V-12"]) as bench:
        bench.send(b"0123456789")
        assert bench.log == ["A(S10 '0123456789')", "A(S8 '01234567' +L)", "A(S2 '89')"]
        assert bench.to_remote == (b"0123456789", False)


def test_nmd_9_no_more_data_on_held_bytes_and_their_remainders() -> None:
    """NMD-9: (a) held bytes when the FIN arrives, (b) their remainders, (c) the FIN; not the first indication."""
    with Bench(Script(NMD(9), P(1), P(0))) as bench:
        bench.flow.send(b"abc", fin=True)
        bench.settle()
        assert bench.log == ["A(S3 'abc')", "A(S3 'abc' +N)", "A(S2 'bc' +N)", "A(S FIN +N)"]
        assert bench.to_remote == (b"abc", True)


@pytest.mark.parametrize("last", [b"", b"c"], ids=["on the FIN", "on held bytes"])
def test_nmd_10_need_more_data_against_no_more_data(last: bytes) -> None:
    """NMD-10: ACT-13, V-5: dropped by default."""
    answers = [NMD(9), NMD(9)] if last else [NMD(9)]
    with Bench(Script(*answers), violations=["V-5"]) as bench:
        if last:
            bench.send(last)
        bench.send_fin()
        assert bench.log == (["A(S1 'c')", "A(S1 'c' +N)"] if last else ["A(S FIN +N)"])
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)


def test_nmd_11_the_other_direction_and_the_stages_below() -> None:
    """NMD-11: the other direction is unaffected; lower stages see nothing of the held bytes."""
    a, b = Script(NMD(4), P(0), P(0)), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"ab")
        bench.receive(b"x")
        assert bench.calls == ["A(S2 'ab')", "A(R1 'x')", "B(R1 'x')"]
        assert bench.to_local == (b"x", False)
        bench.send(b"cd")
        assert bench.calls[3:] == ["A(S4 'abcd')", "B(S4 'abcd')"]
        assert bench.to_remote == (b"abcd", False)


@pytest.mark.parametrize("how", ["reset", "drop", "abort"])
def test_nmd_12_held_bytes_are_discarded_with_the_flow(how: str) -> None:
    """NMD-12: reset, drop and abort while waiting."""
    a = Script(NMD(9), DROP() if how == "drop" else P(0))
    with Bench(a) as bench:
        bench.send(b"held")
        if how == "reset":
            bench.reset("local")
        elif how == "drop":
            bench.receive(b"x")
        else:
            assert bench.driver.fwps.flow_abort(bench.flow.id) == SUCCESS
        bench.settle()
        assert bench.flow.ended
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)
        ledger = bench.flow.ledger(0)
        assert (ledger.read, ledger.held, ledger.discarded) == (4, 0, 4)


def test_nmd_13_reading_continues_while_waiting() -> None:
    """NMD-13: up to the limit; no window closes as in DEFER."""
    a = Script(NMD(5000))
    with Bench(a) as bench:
        for _ in range(49):
            bench.receive(b"x" * 100)
        assert bench.flow.pending_input(1) == 0
        assert bench.flow.ledger(1).read == 4900
        assert len(bench.log) == 1
        bench.receive(b"x" * 100)
        assert bench.log == ["A(R100)", "A(R5000)"]
        assert bench.to_local == (b"x" * 5000, False)


def test_nmd_14_again_and_again() -> None:
    """NMD-14: on each re-indication until the limit or the FIN."""
    with Bench(Script(*(NMD(n) for n in range(2, 12)))) as bench:
        bench.send(*(b"x" for _ in range(10)))
        assert bench.log == [f"A(S{n} '{'x' * n}')" for n in range(1, 11)]
        assert bench.to_remote == (b"", False)
        bench.send_fin()
        assert bench.log[10:] == ["A(S10 'xxxxxxxxxx' +N)", "A(S FIN +N)"]
        assert bench.to_remote == (b"x" * 10, True)


def test_nmd_14_a_loop_of_satisfied_requests_is_told() -> None:
    """NMD-14, V-51: 64 requests in a row for bytes that were there, and never a decision."""
    with Bench(Script(*(NMD(1) for _ in range(64))), violations=["V-51"]) as bench:
        bench.send(*(b"x" for _ in range(64)))
        bench.send(b"y")
        assert len(bench.log) == 65
        assert bench.to_remote == (b"x" * 64 + b"y", False)
