"""What a capture does not hold: holes (POL-4), a beginning that is missing (POL-5), PUSH as captured (IND-5).

Owns the flow's part of it, in memory; finding holes in a capture is replay's.
"""

from __future__ import annotations

import pytest

from tests.rules.minimal import RECEIVE_PUSH, SEND, SEND_FIN, SUCCESS
from tests.scenarios.support import ALLOW, DEF, NMD, B, Bench, C, P, Script, clone, inj
from tests.scenarios.support_api import ManagedBench, events, in_one_sub_layer
from wfpstream.engine import EngineOptions
from wfpstream.fwps import StreamFlags

PUSH = int(StreamFlags.RECEIVE_PUSH)


def policies(
    on_gap: str = "permit", on_midstream: str = "permit", fin_with_data: bool = False
) -> EngineOptions:
    made = EngineOptions(fin_with_data=fin_with_data)
    made.policy.on_gap = on_gap
    made.policy.on_midstream = on_midstream
    return made


# --- the length travels with the stream (POL-4, ARB-11, ARB-12) ---------------------------------------


def test_pol_4_the_next_call_of_every_stage_says_how_much_is_missing() -> None:
    """POL-4: the first call included; the call behind it starts from 0 again (ARB-12)."""
    a, b = Script(name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.flow.gap(0, 10)
        bench.send(b"ab", b"cd")
        bench.flow.gap(0, 3)
        bench.flow.gap(0, 4)
        bench.send(b"ef")
        assert bench.log == [
            "A(S2 'ab' m10)", "B(S2 'ab' m10)", "A(S2 'cd')", "B(S2 'cd')", "A(S2 'ef' m7)", "B(S2 'ef' m7)",
        ]  # fmt: skip
        assert bench.to_remote == (b"abcdef", False)
        assert bench.flow.flow.missing == [17, 0]


def test_pol_4_a_hole_belongs_to_its_direction() -> None:
    """POL-4: the other direction does not hear of it."""
    with Bench(Script()) as bench:
        bench.flow.gap(1, 5)
        bench.send(b"a")
        bench.receive(b"b")
        assert bench.log == ["A(S1 'a')", "A(R1 'b' m5)"]
        assert (bench.to_remote, bench.to_local) == ((b"a", False), (b"b", False))


def test_pol_4_no_ledger_and_no_offset_counts_what_is_missing() -> None:
    """POL-4, LED-3: bytes that are missing were never read, and offsets go on without them."""
    with Bench(Script()) as bench:
        bench.send(b"abc")
        bench.flow.gap(0, 100)
        bench.send(b"de")
        assert bench.flow.ledger(0).read == 5
        shown = [(e["offset"], e["missed"]) for e in events(bench.driver, "indicate")]
        assert shown == [(0, 0), (3, 100)]
        assert bench.to_remote == (b"abcde", False)


def test_pol_4_before_the_fin() -> None:
    """POL-4: also when the next thing is the FIN, for a stage that was never called too."""
    a, b = Script(name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.flow.gap(0, 9)
        bench.send_fin()
        assert bench.log == ["A(S FIN m9 +N)", "B(S FIN m9 +N)"]
        assert bench.to_remote == (b"", True)


def test_pol_4_before_a_reset() -> None:
    """POL-4, IND-16: the ABORT is the last call of its direction."""
    with Bench(Script()) as bench:
        bench.receive(b"a")
        bench.flow.gap(1, 9)
        bench.reset("remote")
        assert bench.log == ["A(R1 'a')", "A(R ABORT m9 +N)"]
        assert bench.to_local == (b"a", False)


def test_pol_4_behind_a_stage_that_blocks() -> None:
    """POL-4, ARB-11: what a higher stage blocks is added to the hole before it."""
    a, b = Script(P(0), B(0), P(0), name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"a")
        bench.flow.gap(0, 10)
        bench.send(b"bcd", b"e")
        assert bench.log == ["A(S1 'a')", "B(S1 'a')", "A(S3 'bcd' m10)", "A(S1 'e')", "B(S1 'e' m13)"]
        assert bench.to_remote == (b"ae", False)


def test_pol_4_behind_a_plain_block_filter_that_takes_the_fin() -> None:
    """POL-4, ARB-10: nothing of that direction arrives below, and nothing is called there."""
    a = Script(action="block", name="A")
    b = Script(name="B")
    with Bench(a, b) as bench:
        bench.flow.gap(0, 10)
        bench.send(b"abc")
        bench.send_fin()
        assert bench.log == []
        assert b.inject_bytes(SEND, b"x") == SUCCESS
        bench.settle()
        assert bench.log == ["cmp('x', SUCCESS)"]
        assert bench.to_remote == (b"x", False)


def test_pol_4_held_bytes_do_not_swallow_the_hole() -> None:
    """POL-4, NMD-2: the merged indication tells it once; the stage below gets it where it lies."""
    a, b = Script(NMD(4), NMD(5), P(2), P(0), name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"ab")
        bench.flow.gap(0, 10)
        bench.send(b"cd", b"e")
        assert bench.log == [
            "A(S2 'ab')", "A(S4 'abcd' m10)", "A(S5 'abcde')", "B(S2 'ab')", "A(S3 'cde')", "B(S3 'cde' m10)",
        ]  # fmt: skip
        assert bench.to_remote == (b"abcde", False)


def test_pol_4_held_bytes_the_hole_and_the_fin() -> None:
    """POL-4, IND-15, ARB-11: counted by stream position, so on the FIN and not on the bytes before it."""
    a, b = Script(NMD(9), P(0), P(0), name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"ab")
        bench.flow.gap(0, 10)
        bench.send_fin()
        assert bench.log == [
            "A(S2 'ab')", "A(S2 'ab' +N)", "B(S2 'ab')", "A(S FIN m10 +N)", "B(S FIN m10 +N)",
        ]  # fmt: skip
        assert bench.to_remote == (b"ab", True)


def test_pol_4_the_fin_that_is_shown_with_the_bytes_before_it() -> None:
    """POL-4, IND-13 (`fin_with_data`): the hole lies inside what this one call shows."""
    a = Script(NMD(9), P(1), P(0))
    with Bench(a, options=policies(fin_with_data=True)) as bench:
        bench.send(b"ab")
        bench.flow.gap(0, 10)
        bench.send_fin()
        assert bench.log == ["A(S2 'ab')", "A(S2 FIN 'ab' m10 +N)", "A(S1 FIN 'b' +N)"]
        assert bench.to_remote == (b"ab", True)


def test_pol_4_deferred_bytes_and_a_hole_among_them() -> None:
    """POL-4, DEF-5: the hole waits with the stream, then lies inside the one indication."""
    a, b = Script(DEF(), P(0), name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.receive(b"ab")
        bench.flow.flow.gap(1, 10)
        bench.flow.flow.received(1, b"cd")
        bench.driver.engine.settle_output(bench.flow.flow)
        assert a.resume() == SUCCESS
        bench.settle()
        assert bench.log == ["A(R2 'ab')", "A(R4 'abcd' m10)", "B(R4 'abcd' m10)"]
        assert bench.to_local == (b"abcd", False)


def test_pol_4_pended_bytes() -> None:
    """POL-4, OOB-12: what comes back out of band stands for the bytes and for the hole before them."""
    a, b = Script(then=B(0, clone), name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.flow.gap(0, 10)
        bench.send(b"abc")
        assert a.inject_pended() == SUCCESS
        bench.flow.gap(0, 5)
        bench.send_fin()
        assert a.inject_null_fin(SEND_FIN) == SUCCESS
        bench.settle()
        assert bench.calls == [
            "A(S3 'abc' m10)", "B(S3 'abc' m13)", "A(S FIN m5 +N)", "B(S FIN m5 +N)",
        ]  # fmt: skip
        assert bench.to_remote == (b"abc", True)
        assert bench.completions == ["cmp('abc', SUCCESS)"]
        a.discard_pended()


def test_pol_4_an_injection_inside_the_call_that_tells_the_hole() -> None:
    """POL-4, INL-2: the injection lies behind the hole, so the stages below hear of it with the injection."""
    a, b = Script(P(0, inj(b"x")), name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.flow.gap(0, 10)
        bench.send(b"a")
        assert bench.calls == ["A(S1 'a' m10)", "B(S1 'x' m10)", "B(S1 'a')"]
        assert bench.to_remote == (b"xa", False)
        assert bench.completions == ["cmp('x', SUCCESS)"]


@pytest.mark.parametrize("held", [False, True])
def test_pol_4_an_injection_between_the_hole_and_the_next_bytes(held: bool) -> None:
    """POL-4, ARB-11: a hole lies before what is injected after it, unless bytes before the hole still wait."""
    a, b = Script(NMD(9) if held else B(0), P(0), name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"abc")
        bench.flow.gap(0, 10)
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        bench.settle()
        bench.send(b"defghi")
        if held:
            assert bench.calls == [
                "A(S3 'abc')",
                "B(S1 'x')",
                "A(S9 'abcdefghi' m10)",
                "B(S9 'abcdefghi' m10)",
            ]
            assert bench.to_remote == (b"xabcdefghi", False)
        else:
            assert bench.calls == ["A(S3 'abc')", "B(S1 'x' m13)", "A(S6 'defghi' m10)", "B(S6 'defghi')"]
            assert bench.to_remote == (b"xdefghi", False)
        assert bench.completions == ["cmp('x', SUCCESS)"]


def test_pol_4_past_a_stage_of_the_same_sub_layer() -> None:
    """POL-4, ARB-6: the stage that is passed by adds the hole and the bytes; the hole comes once."""
    a, b = Script(P(0), C(0), name="A"), Script(name="B")
    with ManagedBench(a, b, add=in_one_sub_layer(a, b), violations=["V-47"]) as bench:
        bench.flow.gap(0, 10)
        bench.send(b"ab", b"c")
        assert bench.log == ["A(S2 'ab' m10)", "A(S1 'c')", "B(S1 'c' m12)"]
        assert bench.to_remote == (b"abc", False)


def test_pol_4_a_stage_that_is_asked_no_more_lets_the_hole_pass() -> None:
    """POL-4, ALW-1: below an inactive stage it is still told."""
    a, b = Script(ALLOW(), name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"a")
        bench.flow.gap(0, 10)
        bench.send(b"b")
        assert bench.log == ["A(S1 'a')", "B(S1 'a')", "B(S1 'b' m10)"]
        assert bench.to_remote == (b"ab", False)


def test_pol_4_behind_the_end_there_is_nothing_to_miss() -> None:
    """POL-4: after the FIN of a direction a hole is counted, and meets no policy."""
    with Bench(Script(), options=policies("drop")) as bench:
        bench.send_fin()
        bench.flow.flow.gap(0, 5)
        assert bench.flow.flow.missing == [5, 0]
        assert events(bench.driver, "policy") == []
        assert bench.to_remote == (b"", True)


@pytest.mark.parametrize("length", [0, -1])
def test_pol_4_a_gap_has_a_length(length: int) -> None:
    with Bench() as bench, pytest.raises(ValueError, match=f"a gap of {length} bytes"):
        bench.flow.flow.gap(0, length)


# --- what the values do (POL-1, POL-2, POL-6) ---------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "log", "to_remote", "dropped"),
    [
        ("permit", ["A(S1 'a')", "B(S1 'a')", "A(S1 'b' m7)", "B(S1 'b' m7)"], b"ab", False),
        ("drop", ["A(S1 'a')", "B(S1 'a')"], b"a", True),
        ("bypass", ["A(S1 'a')", "B(S1 'a')"], b"ab", False),
    ],
)
def test_pol_1_on_gap(value: str, log: list[str], to_remote: bytes, dropped: bool) -> None:
    """POL-1, POL-6: drop as DRP-2, bypass as ALLOW_CONNECTION for all callouts; one event, one counter."""
    a, b = Script(name="A"), Script(name="B")
    with Bench(a, b, options=policies(value)) as bench:
        bench.send(b"a")
        bench.flow.gap(0, 7)
        bench.send(b"b")
        assert bench.log == log
        assert bench.to_remote == (to_remote, False)
        assert bench.resets == (dropped, dropped)
        assert bench.flow.flow.missing == [7, 0]
        (event,) = events(bench.driver, "policy")
        assert (event["name"], event["value"], event["where"]) == ("on_gap", value, None)
        assert (event["dir"], event["len"]) == ("to_upstream", 7)
        assert bench.driver.engine.counters[f"policy.on_gap.{value}"] == 1


def test_pol_1_bypass_lets_go_of_what_is_held() -> None:
    """POL-1, ALW-3: held bytes of both directions go on, in order."""
    a = Script(NMD(9), NMD(9))
    with Bench(a, options=policies("bypass")) as bench:
        bench.send(b"ab")
        bench.receive(b"cd")
        bench.flow.gap(0, 7)
        bench.send(b"e")
        assert bench.log == ["A(S2 'ab')", "A(R2 'cd')"]
        assert bench.to_remote == (b"abe", False)
        assert bench.to_local == (b"cd", False)


@pytest.mark.parametrize("value", ["drop", "bypass", "permit"])
def test_pol_2_inspection_callouts_see_what_is_behind_a_hole(value: str) -> None:
    """POL-2: where only inspection callouts look, the policy is `permit`, whatever is configured."""
    with Bench(Script(action="callout_inspection"), options=policies(value, value)) as bench:
        bench.flow.midstream()
        bench.flow.gap(0, 7)
        bench.send(b"a")
        assert bench.log == ["A(S1 'a' m7)"]
        assert bench.to_remote == (b"a", False)
        assert [event["value"] for event in events(bench.driver, "policy")] == ["permit", "permit"]


def test_pol_2_an_inspection_callout_beside_one_that_is_bypassed() -> None:
    """POL-1, POL-2: bypass is for those that could modify."""
    a, b = Script(name="A"), Script(action="callout_inspection", name="B")
    with Bench(a, b, options=policies("bypass")) as bench:
        bench.flow.gap(0, 7)
        bench.send(b"a")
        assert bench.log == ["B(S1 'a' m7)"]
        assert bench.to_remote == (b"a", False)


def test_pol_1_drop_without_any_callout() -> None:
    """POL-1: `drop` is for the flow."""
    with Bench(options=policies("drop")) as bench:
        bench.send(b"a")
        bench.flow.gap(0, 7)
        bench.send(b"b")
        assert bench.to_remote == (b"a", False)
        assert bench.resets == (True, True)
        assert bench.flow.ended


# --- the beginning (POL-5) ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "log", "to_remote", "dropped"),
    [
        ("permit", ["A(S1 'a')", "A(R1 'b')"], b"a", False),
        ("drop", [], b"", True),
        ("bypass", [], b"a", False),
    ],
)
def test_pol_5_on_midstream(value: str, log: list[str], to_remote: bytes, dropped: bool) -> None:
    """POL-1, POL-5, POL-6: nothing is counted as missing, the first call's missedBytes is 0."""
    with Bench(Script(), options=policies(on_midstream=value)) as bench:
        bench.flow.midstream()
        bench.send(b"a")
        bench.receive(b"b")
        assert bench.log == log
        assert bench.to_remote == (to_remote, False)
        assert bench.to_local == (b"" if dropped else b"b", False)
        assert bench.resets == (dropped, dropped)
        assert bench.flow.flow.missing == [0, 0]
        (event,) = events(bench.driver, "policy")
        assert (event["name"], event["value"], event["where"]) == ("on_midstream", value, None)
        assert bench.driver.engine.counters[f"policy.on_midstream.{value}"] == 1


def test_pol_4_pol_5_both_default_to_permit() -> None:
    policy = EngineOptions().policy
    assert (policy.on_gap, policy.on_midstream) == ("permit", "permit")


# --- PUSH as captured (IND-5) -------------------------------------------------------------------------


class Flags(Script):
    """Remembers the flags it was shown."""

    def __init__(self, *answers: object, name: str = "A") -> None:
        super().__init__(*answers, name=name)  # type: ignore[arg-type]
        self.flags_seen: list[int] = []

    def classify_fn(self, *arguments: object) -> None:
        self.flags_seen.append(int(arguments[2].stream_data.flags))  # type: ignore[attr-defined]
        super().classify_fn(*arguments)  # type: ignore[arg-type]


def test_ind_5_push_as_captured() -> None:
    """IND-5: always, unless the driver knows better; SEND items have NODELAY only (IND-6), a FIN has neither."""
    a = Flags()
    with Bench(a) as bench:
        for push in (None, True, False):
            bench.flow.receive(b"a", push=push)
            bench.flow.send(b"b", push=push)
        bench.receive_fin()
        received = [flags & PUSH for flags in a.flags_seen if flags & ~PUSH == RECEIVE_PUSH & ~PUSH]
        assert received == [PUSH, PUSH, 0]
        assert [flags for flags in a.flags_seen if flags & SEND] == [SEND] * 3
        assert not a.flags_seen[-1] & PUSH
        assert (bench.to_local, bench.to_remote) == ((b"aaa", True), (b"bbb", False))


def test_ind_5_nmd_5_merged_items_have_push_if_one_of_them_had_it() -> None:
    """IND-5, NMD-5."""
    a = Flags(NMD(4), P(0), NMD(4), P(0))
    with Bench(a) as bench:
        for first, second in ((False, False), (True, False)):
            bench.flow.receive(b"ab", push=first)
            bench.flow.receive(b"cd", push=second)
        assert [flags & PUSH for flags in a.flags_seen] == [0, 0, PUSH, PUSH]
        assert bench.to_local == (b"abcdabcd", False)
