"""Actions returned by classifyFn (ACT-*): action type by filter type, counts, and where stream actions are valid.

Owns the tables of section 7. What each stream action does in depth is tested beside it.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import (
    ALLOW,
    DEF,
    DROP,
    NMD,
    RECEIVE_PUSH,
    UNSET,
    Answer,
    B,
    Bench,
    C,
    Call,
    P,
    Script,
    inj,
)
from tests.scenarios.support_api import ManagedBench, events, in_one_sub_layer
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import StreamActionType

SUCCESS = NtStatus.STATUS_SUCCESS
TERMINATING, UNKNOWN, INSPECTION = "callout_terminating", "callout_unknown", "callout_inspection"
EVERY_TYPE = (TERMINATING, UNKNOWN, INSPECTION)

PERMITTED, BLOCKED, CONTINUED = "permit", "block", "continue"


# --- 7.1: action type by filter type --------------------------------------------------------------

TABLE = [
    pytest.param(0x1002, (PERMITTED, PERMITTED, CONTINUED), (0, 0, 0), id="act_1_permit"),
    pytest.param(0x1001, (BLOCKED, BLOCKED, CONTINUED), (0, 0, 1), id="act_2_block"),
    pytest.param(0x2006, (BLOCKED, CONTINUED, CONTINUED), (1, 0, 0), id="act_3_continue"),
    pytest.param(7, (BLOCKED, CONTINUED, CONTINUED), (1, 0, 0), id="act_4_none"),
    pytest.param(8, (BLOCKED, CONTINUED, CONTINUED), (1, 0, 0), id="act_4_none_no_match"),
    pytest.param(0x5003, (BLOCKED, CONTINUED, CONTINUED), (1, 1, 1), id="act_5_callout_terminating"),
    pytest.param(0x1234, (BLOCKED, CONTINUED, CONTINUED), (1, 1, 1), id="act_5_no_action_type"),
    pytest.param(None, (BLOCKED, CONTINUED, CONTINUED), (1, 1, 0), id="act_5_not_written"),
]


@pytest.mark.parametrize(("action", "effects", "reports"), TABLE)
@pytest.mark.parametrize("place", [0, 1, 2], ids=EVERY_TYPE)
def test_act_1_to_5_action_type_by_filter_type(
    action: int | None, effects: tuple[str, str, str], reports: tuple[int, int, int], place: int
) -> None:
    """ACT-1, ACT-2, ACT-3, ACT-4, ACT-5: data; the lighter filter beside A tells PERMIT from CONTINUE."""
    filter_action, effect = EVERY_TYPE[place], effects[place]
    a, b = Script(Answer(action), action=filter_action), Script(then=C(0), name="B")
    violations = ["V-47"] if filter_action != INSPECTION else []
    violations += ["V-6"] * reports[place]
    with ManagedBench(a, b, add=in_one_sub_layer(a, b), violations=violations) as bench:
        bench.send(b"xy")
        assert bench.calls_of("A") == ["A(S2 'xy')"]
        assert bench.calls_of("B") == (["B(S2 'xy')"] if effect == CONTINUED else [])
        assert bench.to_remote == (b"" if effect == BLOCKED else b"xy", False)


@pytest.mark.parametrize(("action", "effects", "reports"), TABLE)
@pytest.mark.parametrize("place", [0, 1, 2], ids=EVERY_TYPE)
def test_act_1_to_5_the_same_for_a_fin(
    action: int | None, effects: tuple[str, str, str], reports: tuple[int, int, int], place: int
) -> None:
    """ACT-1 to ACT-5: a FIN is passed on or pended by the same table (IND-14)."""
    filter_action, effect = EVERY_TYPE[place], effects[place]
    a, b = Script(Answer(action), action=filter_action), Script(then=C(0), name="B")
    violations = ["V-47"] if filter_action != INSPECTION else []
    violations += ["V-6"] * reports[place]
    with ManagedBench(a, b, add=in_one_sub_layer(a, b), violations=violations) as bench:
        bench.receive_fin()
        assert bench.calls_of("A") == ["A(R FIN +N)"]
        assert bench.calls_of("B") == (["B(R FIN +N)"] if effect == CONTINUED else [])
        assert bench.to_local == (b"", effect != BLOCKED)
        # A FIN that was pended keeps the filter in use (MGMT-14) until the flow is over.
        assert bench.driver.fwps.flow_abort(bench.flow.id) == SUCCESS
        bench.settle()
        assert bench.resets == (True, True)


@pytest.mark.parametrize(
    ("action", "violations"),
    [
        (None, []),
        (int(ActionType.NONE), []),
        (int(ActionType.NONE_NO_MATCH), []),
        (int(ActionType.CONTINUE), []),
        (int(ActionType.PERMIT), ["V-7"]),
        (int(ActionType.BLOCK), ["V-7"]),
    ],
)
def test_act_6_the_action_type_beside_a_stream_action(action: int | None, violations: list[str]) -> None:
    """ACT-6: ignored; NONE and CONTINUE (or nothing) are silent, anything else is V-7."""
    a = Script(Answer(action, 0, int(StreamActionType.NEED_MORE_DATA), 4), P(0))
    with Bench(a, violations=violations) as bench:
        bench.send(b"ab")
        assert bench.to_remote == (b"", False)
        bench.send(b"cd")
        assert bench.log == ["A(S2 'ab')", "A(S4 'abcd')"]
        assert bench.to_remote == (b"abcd", False)


@pytest.mark.parametrize("make", [P, B, C], ids=["permit", "block", "continue"])
@pytest.mark.parametrize("count", [0, 4])
def test_act_7_zero_and_all_are_the_whole_indication(make: type, count: int) -> None:
    """ACT-7: n = 0 or n = dataLength: the whole indication, one call."""
    with Bench(Script(make(count))) as bench:
        bench.send(b"abcd")
        assert bench.log == ["A(S4 'abcd')"]
        assert bench.to_remote == (b"" if make is B else b"abcd", False)


@pytest.mark.parametrize("count", [5, 2**32 - 3])
def test_act_7_more_than_there_is(count: int) -> None:
    """ACT-7: n > dataLength is dataLength and V-8."""
    with Bench(Script(B(count), P(0)), violations=["V-8"]) as bench:
        bench.send(b"abcd", b"e")
        assert bench.log == ["A(S4 'abcd')", "A(S1 'e')"]
        assert bench.to_remote == (b"e", False)


def test_act_8_permit_nothing_cannot_be_expressed() -> None:
    """ACT-8: a computed prefix of 0 permits everything; V-9 says so only with `verify.hints`."""
    options = EngineOptions()
    options.verify.hints = True
    with Bench(Script(P(0, inj(b"!"))), options=options, violations=["V-9"]) as bench:
        bench.send(b"abcd")
        assert bench.completions == ["cmp('!', SUCCESS)"]
        assert bench.to_remote == (b"!abcd", False)


@pytest.mark.parametrize("make", [P, B, C], ids=["permit", "block", "continue"])
@pytest.mark.parametrize("count", [0, 1, 77])
def test_act_9_the_count_is_irrelevant_for_a_fin(make: type, count: int) -> None:
    """ACT-9: for zero-length indications n does not matter, and is no V-8."""
    with Bench(Script(make(count))) as bench:
        bench.send_fin()
        assert bench.log == ["A(S FIN +N)"]
        assert bench.to_remote == (b"", make is not B)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(int(ActionType.PERMIT), 0, 0, 3),
        Answer(int(ActionType.NONE), 0, int(StreamActionType.ALLOW_CONNECTION), 3),
        Answer(int(ActionType.NONE), 0, int(StreamActionType.DROP_CONNECTION), 3),
    ],
    ids=["none", "allow", "drop"],
)
def test_act_10_count_bytes_required_without_need_more_data(answer: Answer) -> None:
    """ACT-10: lint V-10; it changes nothing."""
    with Bench(Script(answer), violations=["V-10"]) as bench:
        bench.send(b"ab")
        dropped = answer.stream_action == StreamActionType.DROP_CONNECTION
        assert bench.log == ["A(S2 'ab')"]
        assert bench.to_remote == (b"" if dropped else b"ab", False)
        assert bench.resets == (dropped, dropped)


@pytest.mark.parametrize("action", [UNKNOWN, INSPECTION])
def test_act_11_the_count_applies_to_continue_as_well(action: str) -> None:
    """ACT-11: the prefix passes to the next filter, the remainder is re-indicated."""
    a, b = Script(C(2), C(0), action=action), Script(name="B", then=C(0))
    violations = [] if action == INSPECTION else ["V-47"]
    with ManagedBench(a, b, add=in_one_sub_layer(a, b), violations=violations) as bench:
        bench.send(b"abcde")
        assert bench.log == ["A(S5 'abcde')", "B(S2 'ab')", "A(S3 'cde')", "B(S3 'cde')"]
        assert bench.to_remote == (b"abcde", False)


def test_act_12_block_discards_silently() -> None:
    """ACT-12: the sender is rid of the bytes, nothing replaces them; the event log has a `discard`."""
    options = EngineOptions(discard_layer=True)
    discard = Script(name="D")
    discard.layers = ("stream_discard",)  # type: ignore[misc]  # DSC-2: not for a callout's BLOCK
    with Bench(Script(B(2), P(0)), discard, options=options) as bench:
        bench.send(b"abcd")
        assert bench.log == ["A(S4 'abcd')", "A(S2 'cd')"]
        assert bench.flow.pending_input(0) == 0
        (event,) = events(bench.driver, "discard")
        assert (event["dir"], event["len"], event["offset"], event["reason"]) == (
            "to_upstream",
            2,
            0,
            "blocked",
        )
        assert bench.flow.ledger(0).blocked_original == 2
        assert bench.to_remote == (b"cd", False)


# --- invalid stream actions -----------------------------------------------------------------------


def unknown_action(call: Call) -> None:
    call.packet.stream_action = 5


@pytest.mark.parametrize(
    ("answer", "rule"),
    [(UNSET(unknown_action), "ACT-13"), (DEF(), "V-3")],
    ids=["no such action", "defer outbound"],
)
@pytest.mark.parametrize("action", EVERY_TYPE)
def test_act_13_invalid_stream_actions(answer: Answer, rule: str, action: str) -> None:
    """ACT-13: reported; TERMINATING and UNKNOWN drop by default, INSPECTION continues in full."""
    with Bench(Script(answer, action=action), violations=[rule]) as bench:
        bench.send(b"ab")
        dropped = action != INSPECTION
        assert bench.to_remote == (b"" if dropped else b"ab", False)
        assert bench.resets == (dropped, dropped)


def test_act_13_need_more_data_for_an_urgent_byte() -> None:
    """ACT-13: NEED_MORE_DATA on EXPEDITED data."""
    with Bench(Script(NMD(2)), violations=["ACT-13"]) as bench:
        bench.flow.send(b"!", urgent=True)
        bench.settle()
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)


@pytest.mark.parametrize("answer", [NMD(4), DEF()], ids=["need more data", "defer"])
def test_act_13_waiting_on_an_abort(answer: Answer) -> None:
    """ACT-13: any stream action other than NONE, ALLOW or DROP on ABORT is reported; the reset goes on."""
    with Bench(Script(P(0), answer), violations=["ACT-13"]) as bench:
        bench.send(b"x")
        bench.reset("remote")
        assert bench.log == ["A(S1 'x')", "A(R ABORT +N)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"x", False)


def test_act_14_an_exception_is_a_violation_and_drops() -> None:
    """ACT-14: as ACT-13, V-40."""

    class Raises(Script):
        def classify_fn(self, *arguments: object) -> None:
            raise KeyError("by design")

    with Bench(Raises(), violations=["V-40"]) as bench:
        bench.send(b"x")
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)


# --- 7.2: where stream actions are valid ----------------------------------------------------------


@pytest.mark.parametrize("action", [UNKNOWN, INSPECTION])
def test_act_15_none_leaves_the_decision_to_the_action_type(action: str) -> None:
    """ACT-15: NONE is valid on everything: data, urgent data, FIN, ABORT, in both directions."""
    with Bench(Script(then=C(0), action=action)) as bench:
        bench.send(b"a")
        bench.receive(b"b")
        bench.flow.send(b"!", urgent=True)
        bench.send_fin()
        bench.reset("remote")
        assert bench.log == [
            *("A(S1 'a')", "A(R1 'b')", "A(S1 EXPEDITED '!')", "A(S FIN +N)"),
            "A(R ABORT +N)",
        ]
        assert bench.to_remote == (b"a!", True)
        assert bench.to_local == (b"b", False)
        assert bench.resets == (True, True)


@pytest.mark.parametrize("action", EVERY_TYPE)
@pytest.mark.parametrize("inbound", [False, True])
def test_act_16_need_more_data_both_directions_every_filter_type(action: str, inbound: bool) -> None:
    """ACT-16: also under INSPECTION: delaying is not modifying."""
    side = "R" if inbound else "S"
    with Bench(Script(NMD(3), action=action)) as bench:
        give = bench.receive if inbound else bench.send
        give(b"ab")
        assert (bench.to_local if inbound else bench.to_remote) == (b"", False)
        give(b"c")
        assert bench.log == [f"A({side}2 'ab')", f"A({side}3 'abc')"]
        assert (bench.to_local if inbound else bench.to_remote) == (b"abc", False)


@pytest.mark.parametrize("action", EVERY_TYPE)
def test_act_17_defer_on_receive(action: str) -> None:
    """ACT-17: valid on RECEIVE, under every filter type."""
    a = Script(DEF(), action=action)
    with Bench(a) as bench:
        bench.receive(b"ab")
        assert bench.to_local == (b"", False)
        assert a.resume(RECEIVE_PUSH) == SUCCESS
        bench.settle()
        assert bench.log == ["A(R2 'ab')", "A(R2 'ab')"]
        assert bench.to_local == (b"ab", False)


@pytest.mark.parametrize("kind", ["send", "receive", "fin", "urgent"])
def test_act_18_allow_connection_on_everything(kind: str) -> None:
    """ACT-18: valid on data of both directions, FIN and urgent data."""
    with Bench(Script(ALLOW(), then=B(0))) as bench:
        give(bench, kind)
        bench.send(b"later") if kind != "fin" else bench.receive(b"later")
        assert len(bench.log) == 1
        expected = {
            "send": ((b"xlater", False), (b"", False)),
            "receive": ((b"later", False), (b"x", False)),
            "fin": ((b"", True), (b"later", False)),
            "urgent": ((b"!later", False), (b"", False)),
        }
        assert (bench.to_remote, bench.to_local) == expected[kind]


@pytest.mark.parametrize("kind", ["send", "receive", "fin", "urgent"])
def test_act_19_drop_connection_on_everything(kind: str) -> None:
    """ACT-19: valid on data of both directions, FIN and urgent data."""
    with Bench(Script(DROP())) as bench:
        give(bench, kind)
        assert len(bench.log) == 1
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)


def give(bench: Bench, kind: str) -> None:
    """One item of that kind."""
    if kind == "fin":
        bench.send_fin()
    elif kind == "urgent":
        bench.flow.send(b"!", urgent=True)
        bench.settle()
    elif kind == "send":
        bench.send(b"x")
    else:
        bench.receive(b"x")
