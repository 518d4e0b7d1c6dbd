"""Arbitration and the waterfall (ARB-*): who is asked, in which order, and what the others are told they missed.

Owns what callouts and plain filters of several sublayers do to one stream. It must not know how stages are kept.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import (
    DEF,
    NMD,
    RECEIVE_PUSH,
    Answer,
    B,
    Bench,
    C,
    Call,
    P,
    Script,
    bytewise,
    inj,
)
from tests.scenarios.support_api import ManagedBench, Plane, in_one_sub_layer, registered
from tests.scenarios.support_connections import Gate, LayerAnswer, LayerCall, block, permit
from wfpstream import fwpm
from wfpstream.fwp import ActionType, NtStatus, uint64
from wfpstream.testing import MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS


def plain(plane: Plane, name: str, weight: int, action: ActionType, flags: int = 0) -> None:
    """A plain filter in a sublayer of its own."""
    sub_layer = plane.sub_layer(f"sublayer {name}", weight)
    assert plane.filter(name, sub_layer_key=sub_layer, action_type=action, flags=flags)[0] == SUCCESS


# --- order ----------------------------------------------------------------------------------------


def test_arb_1_sublayers_by_weight_then_filters_by_weight() -> None:
    """ARB-1: highest first, whatever the order of adding."""
    codes = [Script(then=C(0), name=name) for name in "ABCD"]
    a, b, c, d = codes

    def add(plane: Plane) -> None:
        low, high = plane.sub_layer("low", 0x10), plane.sub_layer("high", 0x20)
        for code, sub_layer, weight in ((d, low, 1), (c, low, 2), (b, high, 1), (a, high, 2)):
            plane.register(code)
            plane.callout(code.name)
            assert plane.callout_filter(code, sub_layer=sub_layer, weight=weight)[0] == SUCCESS

    with ManagedBench(*codes, add=add, violations=["V-47", "V-47"]) as bench:
        bench.send(b"x")
        bench.receive(b"y")
        assert bench.log == [
            *("A(S1 'x')", "B(S1 'x')", "C(S1 'x')", "D(S1 'x')"),
            *("A(R1 'y')", "B(R1 'y')", "C(R1 'y')", "D(R1 'y')"),
        ]
        assert bench.to_remote == (b"x", False)
        assert bench.to_local == (b"y", False)


@pytest.mark.parametrize(
    ("answer", "log", "to_remote"),
    [
        (P(0), ["A(S1 'x')", "C(S1 'x')"], b"x"),
        (B(0), ["A(S1 'x')"], b""),
        (C(0), ["A(S1 'x')", "B(S1 'x')", "C(S1 'x')"], b"x"),
    ],
    ids=["permit", "block", "continue"],
)
def test_arb_2_evaluation_in_a_sublayer_stops_at_the_first_decision(
    answer: Answer, log: list[str], to_remote: bytes
) -> None:
    """ARB-2: PERMIT and BLOCK end the sublayer, CONTINUE goes on; no decision: the next sublayer."""
    a, b, c = Script(answer), Script(C(0), name="B"), Script(C(0), name="C")

    def add(plane: Plane) -> None:
        in_one_sub_layer(a, b)(plane)
        plane.register(c)
        plane.callout("C")
        sub_layer = plane.sub_layer("lower", 0x20)
        assert plane.callout_filter(c, sub_layer=sub_layer)[0] == SUCCESS

    with ManagedBench(a, b, c, add=add, violations=["V-47"]) as bench:
        bench.send(b"x")
        assert bench.log == log
        assert bench.to_remote == (to_remote, False)


@pytest.mark.parametrize("shared", [True, False], ids=["same sublayer", "sublayers"])
def test_arb_3_blocked_bytes_are_gone_for_good(shared: bool) -> None:
    """ARB-3, ARB-4: no later callout sees what an earlier one blocked, in its own sublayer or a lower one."""
    a, b = Script(B(3), C(0)), Script(C(0), name="B")
    add = in_one_sub_layer(a, b) if shared else registered(a, b)
    with ManagedBench(a, b, add=add, violations=["V-47"] if shared else []) as bench:
        bench.send(b"abcdef")
        assert bench.log == ["A(S6 'abcdef')", "A(S3 'def')", "B(S3 'def' m3)"]
        assert bench.to_remote == (b"def", False)


def test_arb_4_a_lower_sublayer_is_not_evaluated_after_a_block() -> None:
    """ARB-4: SI's waterfall overrides "every sublayer is evaluated even after a block"."""
    a, b = Script(B(0), B(0)), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"abc")
        bench.send_fin()
        assert bench.log == ["A(S3 'abc')", "A(S FIN +N)"]
        assert bench.to_remote == (b"", False)


@pytest.mark.parametrize(
    ("answer", "action"),
    [(P(0), "callout_unknown"), (C(0), "callout_unknown"), (C(0), "callout_inspection")],
)
def test_arb_5_permit_and_continue_both_pass_bytes_down(answer: Answer, action: str) -> None:
    """ARB-5: only BLOCK stops bytes; a callout below an inspection callout still sees them."""
    a, b = Script(answer, action=action), Script(P(0), name="B")
    with Bench(a, b) as bench:
        bench.send(b"abc")
        assert bench.log == ["A(S3 'abc')", "B(S3 'abc')"]
        assert bench.to_remote == (b"abc", False)


def test_arb_6_permit_skips_the_sublayer_and_continue_does_not() -> None:
    """ARB-6: PERMIT of n bytes skips the remaining filters of the sublayer; CONTINUE passes them there."""
    a, b, c = Script(P(2), C(0)), Script(C(0), name="B"), Script(C(0), C(0), name="C")

    def add(plane: Plane) -> None:
        in_one_sub_layer(a, b)(plane)
        plane.register(c)
        plane.callout("C")
        assert plane.callout_filter(c, sub_layer=plane.sub_layer("lower", 0x20))[0] == SUCCESS

    with ManagedBench(a, b, c, add=add, violations=["V-47"]) as bench:
        bench.send(b"abcde")
        assert bench.calls_of("A") == ["A(S5 'abcde')", "A(S3 'cde')"]
        assert bench.calls_of("B") == ["B(S3 'cde' m2)"]
        assert bench.calls_of("C") == ["C(S2 'ab')", "C(S3 'cde')"]
        assert bench.to_remote == (b"abcde", False)


def test_arb_7_no_decision_anywhere_permits() -> None:
    """ARB-7: without a filter, and with nothing but CONTINUE."""
    with Bench() as bench:
        bench.send(b"abc")
        bench.send_fin()
        assert bench.to_remote == (b"abc", True)
    with Bench(Script(then=C(0)), Script(then=C(0), name="B")) as bench:
        bench.receive(b"abc")
        bench.receive_fin()
        assert bench.to_local == (b"abc", True)


def test_arb_8_rights_are_set_on_entry_and_mean_nothing() -> None:
    """ARB-8: FWPS_RIGHT_ACTION_WRITE at every stream classify; clearing it gives no veto (lint V-1)."""
    rights: list[int] = []

    def clear(call: Call) -> None:
        rights.append(call.out.rights)
        call.out.rights = 0

    def look(call: Call) -> None:
        rights.append(call.out.rights)

    a, b = Script(P(0, clear)), Script(B(0, look), name="B")
    with Bench(a, b, violations=["V-1"]) as bench:
        bench.send(b"abc")
        assert bench.log == ["A(S3 'abc')", "B(S3 'abc')"]
        assert rights == [1, 1]
        assert bench.to_remote == (b"", False)


@pytest.mark.parametrize("flags", [0, int(fwpm.FilterFlags.CLEAR_ACTION_RIGHT)])
def test_arb_9_a_plain_permit_filter_and_the_clear_action_right_flag(flags: int) -> None:
    """ARB-9: it permits everything; CLEAR_ACTION_RIGHT has no effect at the stream layer: B still blocks."""
    b = Script(B(1), C(0), C(0), name="B")

    def add(plane: Plane) -> None:
        plain(plane, "permit", 0x80, ActionType.PERMIT, flags)
        registered(b)(plane)

    with ManagedBench(b, add=add) as bench:
        bench.send(b"xy")
        bench.send_fin()
        assert bench.log == ["B(S2 'xy')", "B(S1 'y')", "B(S FIN +N)"]
        assert bench.to_remote == (b"y", True)


def test_arb_9_a_plain_permit_ends_its_own_sublayer() -> None:
    """ARB-9: what a plain PERMIT let through skips the lighter filters beside it, as after a callout's."""
    b = Script(name="B")

    def add(plane: Plane) -> None:
        sub_layer = plane.sub_layer("shared", 0x40)
        status, _ = plane.filter(
            "permit", sub_layer_key=sub_layer, action_type=ActionType.PERMIT, weight=uint64(9)
        )
        assert status == SUCCESS
        plane.register(b)
        plane.callout("B")
        assert plane.callout_filter(b, sub_layer=sub_layer, weight=1)[0] == SUCCESS

    with ManagedBench(b, add=add) as bench:
        bench.send(b"xy")
        assert bench.log == []
        assert bench.to_remote == (b"xy", False)


def test_arb_10_a_plain_block_filter_removes_bytes_and_fin_but_not_the_connection() -> None:
    """ARB-10: bytes and FIN go, the connection is not reset."""
    b = Script(name="B")

    def add(plane: Plane) -> None:
        plain(plane, "block", 0x80, ActionType.BLOCK)
        registered(b)(plane)

    with ManagedBench(b, add=add) as bench:
        bench.send(b"xy")
        bench.receive(b"z")
        bench.send_fin()
        bench.receive_fin()
        assert bench.log == []
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)
        assert bench.resets == (False, False)
        assert not bench.flow.ended


def test_arb_10_an_abort_still_propagates() -> None:
    """ARB-10: a reset passes a plain BLOCK filter."""
    with Bench(before=lambda driver: plain(Plane(driver), "block", 0x80, ActionType.BLOCK)) as bench:
        bench.send(b"xy")
        bench.reset("remote")
        assert bench.resets == (True, True)
        assert bench.flow.ended


# --- missed bytes ---------------------------------------------------------------------------------


def test_arb_11_missed_bytes_are_counted_by_stream_position() -> None:
    """ARB-11: bytes blocked after an injected run are reported on the call that follows that run."""
    a = Script(P(2), B(2, inj(b"!")), P(0))
    b = Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"abCDef")
        assert bench.calls_of("B") == ["B(S2 'ab')", "B(S1 '!')", "B(S2 'ef' m2)"]
        assert bench.completions == ["cmp('!', SUCCESS)"]
        assert bench.to_remote == (b"ab!ef", False)


def test_arb_12_missed_bytes_are_told_once_and_not_on_the_first_call() -> None:
    """ARB-12: 0 on the stage's first call when nothing was missed, reset after each classify."""
    a, b = Script(C(0), B(0), C(0), C(0)), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"a", b"bcd", b"e", b"f")
        assert bench.calls_of("B") == ["B(S1 'a')", "B(S1 'e' m3)", "B(S1 'f')"]
        assert bench.to_remote == (b"aef", False)


def test_arb_12_each_direction_counts_for_itself() -> None:
    """ARB-12: what is blocked in one direction is not missed in the other."""
    a, b = Script(B(0), C(0), C(0)), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"abc")
        bench.receive(b"x")
        bench.send(b"d")
        assert bench.calls_of("B") == ["B(R1 'x')", "B(S1 'd' m3)"]
        assert bench.to_remote == (b"d", False)
        assert bench.to_local == (b"x", False)


def test_arb_12_injected_bytes_never_count() -> None:
    """ARB-12: an injection that a higher stage removes again is not part of the original stream."""
    a = Script(B(2, inj(b"0123456789")), C(0))
    middle = Script(B(0), C(0), name="M")
    b = Script(name="B")
    with Bench(a, middle, b) as bench:
        bench.send(b"xy", b"z")
        assert bench.calls_of("M") == ["M(S10 '0123456789')", "M(S1 'z' m2)"]
        assert bench.calls_of("B") == ["B(S1 'z' m2)"]
        assert bench.completions == ["cmp('0123456789', SUCCESS)"]
        assert bench.to_remote == (b"z", False)


def test_arb_13_bypassing_bytes_keep_their_position() -> None:
    """ARB-13: they leave a stage's queue only after every visible byte ahead of them is decided."""
    a = Script(C(2), P(2), C(0))
    b = Script(NMD(4), C(0), name="B")
    with ManagedBench(a, b, add=in_one_sub_layer(a, b), violations=["V-47"]) as bench:
        bench.send(b"abCDef")
        # B waits with "ab"; "CD" was permitted past it; "ef" completes what it asked for.
        assert bench.calls_of("B") == ["B(S2 'ab')", "B(S4 'abef' m2)"]
        assert bench.to_remote == (b"abCDef", False)


def test_arb_13_they_do_not_overtake_what_is_held() -> None:
    """ARB-13: while the visible byte ahead is undecided, nothing behind it leaves."""
    a = Script(C(1), P(0))
    b = Script(NMD(9), C(0), name="B")
    with ManagedBench(a, b, add=in_one_sub_layer(a, b), violations=["V-47"]) as bench:
        bench.send(b"aBCD")
        assert bench.to_remote == (b"", False)
        bench.send_fin()
        assert bench.calls_of("B")[0] == "B(S1 'a')"
        assert bench.to_remote == (b"aBCD", True)


# --- other layers, depth first --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("heavy", "light", "verdict"),
    [
        (permit, block, "block"),
        (block, permit, "block"),
        (permit, permit, "permit"),
    ],
    ids=["block overrides permit", "a heavier block stays", "both permit"],
)
def test_arb_14_standard_arbitration_at_the_other_layers(
    heavy: LayerAnswer, light: LayerAnswer, verdict: str
) -> None:
    """ARB-14: Block overrides Permit whatever the weight."""
    gates = [
        Gate("ale_auth_connect", heavy, name="K1"),
        Gate("ale_auth_connect", light, name="K2"),
    ]
    with MemoryDriver() as driver:
        for gate in gates:
            driver.add(gate)
        assert (driver.connect() is None) == (verdict == "block")
        assert gates[0].faults == []


def test_arb_14_a_callout_decision_is_soft_and_a_veto_needs_no_right() -> None:
    """ARB-14: callout PERMIT is soft (write right kept); without the right a BLOCK is a veto."""
    rights: list[int] = []

    def permit_and_clear(call: LayerCall) -> None:
        rights.append(call.out.rights)
        call.out.action_type = ActionType.PERMIT
        call.out.rights = 0

    def veto(call: LayerCall) -> None:
        rights.append(call.out.rights)
        call.out.action_type = ActionType.BLOCK

    with MemoryDriver() as driver:
        driver.add(Gate("ale_auth_connect", permit_and_clear, name="K1"))
        driver.add(Gate("ale_auth_connect", veto, name="K2"))
        assert driver.connect() is None
        assert rights == [1, 0]


def test_arb_15_depth_first_before_the_remainder() -> None:
    """ARB-15: what one classify releases or injects passes all lower stages before the remainder is shown."""
    a = Script(C(1), B(1, inj(b"+")), C(0))
    b, c = Script(name="B", then=C(0)), Script(name="C", then=C(0))
    with Bench(a, b, c) as bench:
        bench.send(b"xyz")
        assert bench.calls == [
            *("A(S3 'xyz')", "B(S1 'x')", "C(S1 'x')"),
            *("A(S2 'yz')", "B(S1 '+')", "C(S1 '+')"),
            *("A(S1 'z')", "B(S1 'z' m1)", "C(S1 'z' m1)"),
        ]
        assert bench.completions == ["cmp('+', SUCCESS)"]
        assert bench.to_remote == (b"x+z", False)


def test_arb_16_a_waiting_stage_does_not_stop_the_one_above() -> None:
    """ARB-16: NEED_MORE_DATA below: the higher stage finishes its remainder, released bytes queue below."""
    a = Script(*(C(1) for _ in range(4)))
    b = Script(NMD(3), C(0), name="B")
    with Bench(a, b) as bench:
        bench.send(b"wxyz")
        assert bench.calls == [
            "A(S4 'wxyz')",
            "B(S1 'w')",
            "A(S3 'xyz')",
            "A(S2 'yz')",
            "B(S3 'wxy')",
            "A(S1 'z')",
            "B(S1 'z')",
        ]
        assert bench.to_remote == (b"wxyz", False)


def test_arb_16_a_deferring_stage_does_not_stop_the_one_above() -> None:
    """ARB-16: DEFER below: A goes on with its remainder; B gets everything at once after the continue."""
    a = Script(C(1), C(1), C(0))
    b = Script(DEF(), C(0), name="B")
    with Bench(a, b) as bench:
        bench.receive(b"xyz")
        assert bench.calls == ["A(R3 'xyz')", "B(R1 'x')", "A(R2 'yz')", "A(R1 'z')"]
        assert bench.to_local == (b"", False)
        assert b.resume(RECEIVE_PUSH) == SUCCESS
        bench.settle()
        assert bench.calls_of("B") == ["B(R1 'x')", "B(R3 'xyz')"]
        assert bench.to_local == (b"xyz", False)


@pytest.mark.parametrize("size", [1, 5])
def test_arb_3_the_cutting_of_the_input_does_not_matter(size: int) -> None:
    """ARB-3: A removes every second byte; B sees the others, however the input was cut."""
    answers = [B(1), C(1)] * 3
    a, b = Script(*answers), Script(name="B")
    pieces = bytewise(b"abcdef") if size == 1 else [b"abcdef"]
    with Bench(a, b) as bench:
        bench.send(*pieces)
        assert bench.calls_of("B") == ["B(S1 'b' m1)", "B(S1 'd' m1)", "B(S1 'f' m1)"]
        assert bench.to_remote == (b"bdf", False)
