"""Two callouts in one waterfall: what the second sees, misses, and who completes when (SC-62..72, SC-151).

Owns the catalogue's section on two callouts. It must not know how stages are kept, only what they are shown.
"""

from __future__ import annotations

from tests.scenarios.support import (
    ALLOW,
    DEF,
    NMD,
    RECEIVE_PUSH,
    B,
    Bench,
    C,
    P,
    Script,
    clone,
    inj,
)
from tests.scenarios.support_api import ManagedBench, in_one_sub_layer
from wfpstream.fwp import NtStatus

SUCCESS = NtStatus.STATUS_SUCCESS


def test_sc_62_second_callout_misses_what_the_first_blocked() -> None:
    a, b = Script(B(5), P(0), P(0)), Script(P(0), P(0), name="B")
    with Bench(a, b) as bench:
        bench.send(b"HELLOworld", b"x")
        assert bench.log == [
            "A(S10 'HELLOworld')",
            "A(S5 'world')",
            "B(S5 'world' m5)",
            "A(S1 'x')",
            "B(S1 'x')",
        ]
        assert bench.to_remote == (b"worldx", False)
        assert bench.to_local == (b"", False)


def test_sc_63_nothing_is_shown_of_a_blocked_indication() -> None:
    a, b = Script(B(0), P(0)), Script(P(0), name="B")
    with Bench(a, b) as bench:
        bench.send(b"abc")
        assert bench.log == ["A(S3 'abc')"]
        assert bench.to_remote == (b"", False)
        bench.send(b"d")
        assert bench.log == ["A(S3 'abc')", "A(S1 'd')", "B(S1 'd' m3)"]
        assert bench.to_remote == (b"d", False)
        assert bench.to_local == (b"", False)


def test_sc_64_waterfall_is_depth_first() -> None:
    a, b = Script(P(3), B(6, inj(b"sunny")), P(0)), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"AB cloudy CD")
        assert bench.calls == [
            "A(S12 'AB cloudy CD')",
            "B(S3 'AB ')",
            "A(S9 'cloudy CD')",
            "B(S5 'sunny')",
            "A(S3 ' CD')",
            "B(S3 ' CD' m6)",
        ]
        assert bench.completions == ["cmp('sunny', SUCCESS)"]
        assert bench.to_remote == (b"AB sunny CD", False)
        assert bench.to_local == (b"", False)


def test_sc_65_injection_is_not_shown_to_heavier_callouts() -> None:
    a, b = Script(P(0)), Script(P(0, inj(b"z")), name="B")
    with Bench(a, b) as bench:
        bench.send(b"q")
        assert bench.log == ["A(S1 'q')", "B(S1 'q')", "cmp('z', SUCCESS)"]
        assert bench.to_remote == (b"zq", False)
        assert bench.to_local == (b"", False)


def test_sc_66_out_of_band_edit_above_an_inline_edit() -> None:
    a = Script(B(0, clone))
    b = Script(P(0), B(6, inj(b"sunny")), P(0), name="B")
    with Bench(a, b, local="server") as bench:
        bench.receive(b"it is rainy today")
        assert bench.log == ["A(R17 'it is rainy today')"]
        assert bench.to_local == (b"", False)
        for words in (b"it is ", b"cloudy", b" today"):
            assert a.inject_bytes(RECEIVE_PUSH, words) == SUCCESS
        a.discard_pended()
        bench.settle()
        assert bench.calls == [
            "A(R17 'it is rainy today')",
            "B(R6 'it is ' m17)",
            "B(R6 'cloudy')",
            "B(R6 ' today')",
        ]
        assert [(one.data, one.status) for one in a.completed_nbls] == [
            (b"it is ", SUCCESS),
            (b"cloudy", SUCCESS),
            (b" today", SUCCESS),
        ]
        assert [(one.data, one.status) for one in b.completed_nbls] == [(b"sunny", SUCCESS)]
        assert bench.to_local == (b"it is sunny today", False)
        assert bench.to_remote == (b"", False)


def test_sc_67_the_same_edits_in_the_other_order() -> None:
    a, b = Script(P(0)), Script(B(0, clone), name="B")
    with Bench(a, b, local="server") as bench:
        bench.receive(b"it is rainy today")
        for words in (b"it is ", b"cloudy", b" today"):
            assert b.inject_bytes(RECEIVE_PUSH, words) == SUCCESS
        b.discard_pended()
        bench.settle()
        assert bench.calls == ["A(R17 'it is rainy today')", "B(R17 'it is rainy today')"]
        assert bench.completions == [
            "cmp('it is ', SUCCESS)",
            "cmp('cloudy', SUCCESS)",
            "cmp(' today', SUCCESS)",
        ]
        assert bench.to_local == (b"it is cloudy today", False)
        assert bench.to_remote == (b"", False)


def test_sc_68_injected_bytes_a_lower_callout_blocks() -> None:
    a, b = Script(P(0, inj(b"ad"))), Script(B(0), P(0), name="B")
    with Bench(a, b) as bench:
        bench.send(b"x")
        assert bench.log == ["A(S1 'x')", "B(S2 'ad')", "B(S1 'x')", "cmp('ad', SUCCESS)"]
        assert bench.to_remote == (b"x", False)
        assert bench.to_local == (b"", False)
        summary = bench.flow.ledger(0)
        at_a, at_b = summary.stages
        assert (at_a.in_, at_a.permitted, at_a.blocked, at_a.injected, at_a.out) == (1, 1, 0, 2, 3)
        assert (at_b.in_, at_b.permitted, at_b.blocked, at_b.injected, at_b.out) == (3, 1, 2, 0, 1)
        assert (summary.read, summary.injected, summary.written) == (1, 2, 1)
        assert (summary.blocked_original, summary.blocked_injected) == (0, 2)
        assert (summary.unsent, summary.discarded_out) == (0, 0)


def test_sc_69_permit_passes_the_rest_of_the_sublayer_by() -> None:
    heavy = Script(P(0), P(0), C(0), name="A1")
    light = Script(name="A2")
    with ManagedBench(heavy, light, add=in_one_sub_layer(heavy, light), violations=["V-47"]) as bench:
        bench.send(b"abc", b"de")
        assert bench.log == ["A1(S3 'abc')", "A1(S2 'de')"]
        # Only a call can show what was missed, so the third answer lets A2 see a byte.
        bench.send(b"f")
        assert bench.log[2:] == ["A1(S1 'f')", "A2(S1 'f' m5)"]
        assert bench.to_remote == (b"abcdef", False)
        assert bench.to_local == (b"", False)


def test_sc_70_inspection_hands_on_inside_the_sublayer() -> None:
    heavy = Script(C(0), name="A1", action="callout_inspection")
    light = Script(P(0), name="A2")
    with ManagedBench(heavy, light, add=in_one_sub_layer(heavy, light)) as bench:
        bench.send(b"abc")
        assert bench.log == ["A1(S3 'abc')", "A2(S3 'abc')"]
        assert bench.to_remote == (b"abc", False)
        assert bench.to_local == (b"", False)


def test_sc_71_allow_ends_the_calls_of_one_callout_only() -> None:
    a, b = Script(ALLOW()), Script(name="B")
    with Bench(a, b, context=7) as bench:
        bench.send(b"a")
        bench.receive(b"r")
        bench.send(b"s")
        bench.send_fin()
        assert "flowDelete(A)" not in bench.log
        bench.receive_fin()
        assert bench.log == [
            "A(S1 'a')",
            "B(S1 'a')",
            "B(R1 'r')",
            "B(S1 's')",
            "B(S FIN +N)",
            "B(R FIN +N)",
            "flowDelete(A)",
            "flowDelete(B)",
        ]
        assert bench.to_remote == (b"as", True)
        assert bench.to_local == (b"r", True)


def test_sc_71_allow_releases_what_the_other_direction_holds() -> None:
    """ALW-3: what the callout held for more data is permitted, in order."""
    a = Script(NMD(9), ALLOW())
    with Bench(a) as bench:
        bench.receive(b"held")
        bench.send(b"a")
        bench.receive(b"+more")
        assert bench.log == ["A(R4 'held')", "A(S1 'a')"]
        assert bench.to_remote == (b"a", False)
        assert bench.to_local == (b"held+more", False)


def test_sc_72_fin_through_two_out_of_band_stages() -> None:
    a, b = Script(B(0, clone)), Script(B(0, clone), name="B")
    with Bench(a, b) as bench:
        bench.send_fin()
        assert bench.log == ["A(S FIN +N)"]
        assert bench.to_remote == (b"", False)
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.log == ["A(S FIN +N)", "B(S FIN +N)", "cmp(FIN, SUCCESS)"]
        assert bench.to_remote == (b"", False)
        assert b.inject_pended() == SUCCESS
        bench.settle()
        assert bench.log[3:] == ["cmp(FIN, SUCCESS)"]
        assert bench.to_remote == (b"", True)
        assert bench.to_local == (b"", False)
        assert bench.resets == (False, False)
        assert not bench.flow.ended


def test_sc_151_completions_of_two_stages_do_not_wait_for_each_other() -> None:
    a = Script(P(0, inj(b"a")))
    b = Script(DEF(), P(0), name="B")
    with Bench(a, b) as bench:
        bench.receive(b"x")
        assert bench.log == ["A(R1 'x')", "B(R1 'a')"]
        assert b.inject_bytes(RECEIVE_PUSH, b"b") == SUCCESS
        bench.settle()
        assert bench.to_local == (b"b", False)
        assert bench.completions == ["cmp('b', SUCCESS)"]
        assert b.resume() == SUCCESS
        bench.settle()
        assert bench.log == ["A(R1 'x')", "B(R1 'a')", "cmp('b', SUCCESS)", "B(R2 'ax')", "cmp('a', SUCCESS)"]
        assert bench.to_local == (b"bax", False)
        assert bench.to_remote == (b"", False)
