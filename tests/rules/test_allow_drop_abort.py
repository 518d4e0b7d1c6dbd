"""ALLOW_CONNECTION, DROP_CONNECTION and FwpsFlowAbort (ALW-*, DRP-*, ABT-*).

Owns how a callout leaves a flow and how it ends one. It must not know what an abort looks like on a socket.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import (
    ALLOW,
    DEF,
    DROP,
    NMD,
    RECEIVE_FIN,
    SEND,
    SEND_FIN,
    Answer,
    B,
    Bench,
    C,
    Call,
    P,
    Script,
    clone,
    inj,
)
from tests.scenarios.support_api import events
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import StreamActionType

SUCCESS = NtStatus.STATUS_SUCCESS
EVERY_TYPE = ("callout_terminating", "callout_unknown", "callout_inspection")


# --- ALLOW_CONNECTION -----------------------------------------------------------------------------


@pytest.mark.parametrize("inbound", [False, True])
def test_alw_1_no_classify_in_either_direction_from_then_on(inbound: bool) -> None:
    """ALW-1: neither data nor FIN nor ABORT; all its future bytes are permitted."""
    with Bench(Script(ALLOW(), then=B(0))) as bench:
        (bench.receive if inbound else bench.send)(b"1")
        bench.send(b"s")
        bench.receive(b"r")
        bench.send_fin()
        bench.reset("remote")
        assert bench.log == ["A(R1 '1')" if inbound else "A(S1 '1')"]
        assert bench.to_remote == (b"s" if inbound else b"1s", True)
        assert bench.to_local == (b"1r" if inbound else b"r", False)


@pytest.mark.parametrize("action", [ActionType.BLOCK, ActionType.PERMIT])
@pytest.mark.parametrize("enforced", [0, 1])
def test_alw_2_the_current_indication_is_permitted_in_full(action: ActionType, enforced: int) -> None:
    """ALW-2: whatever actionType and countBytesEnforced say (V-7 for the action type)."""
    answer = Answer(int(action), enforced, int(StreamActionType.ALLOW_CONNECTION))
    with Bench(Script(answer), violations=["V-7"]) as bench:
        bench.send(b"abc")
        assert bench.log == ["A(S3 'abc')"]
        assert bench.to_remote == (b"abc", False)


def test_alw_2_a_fin_is_permitted_as_well() -> None:
    """ALW-2: BLOCK beside ALLOW does not pend the FIN."""
    answer = Answer(int(ActionType.BLOCK), 0, int(StreamActionType.ALLOW_CONNECTION))
    with Bench(Script(answer), violations=["V-7"]) as bench:
        bench.send_fin()
        assert bench.to_remote == (b"", True)


@pytest.mark.parametrize("waiting", [NMD(9), DEF()], ids=["need more data", "deferred"])
def test_alw_3_what_the_other_direction_held_is_released(waiting: Answer) -> None:
    """ALW-3: held and queued data is released as permitted, in order."""
    a = Script(waiting, ALLOW())
    with Bench(a) as bench:
        bench.receive(b"ab", b"cd")
        bench.send(b"x")
        bench.settle()
        assert bench.log == ["A(R2 'ab')", "A(S1 'x')"]
        assert bench.to_local == (b"abcd", False)
        assert bench.to_remote == (b"x", False)


def test_alw_4_other_callouts_and_the_context() -> None:
    """ALW-4: others are unaffected; the context stays and flowDeleteFn is called at flow end."""
    a, b = Script(ALLOW()), Script(name="B", then=C(0))
    with Bench(a, b, context=7) as bench:
        bench.send(b"x", b"y")
        assert bench.log == ["A(S1 'x')", "B(S1 'x')", "B(S1 'y')"]
        bench.send_fin()
        bench.receive_fin()
        assert bench.log[3:] == ["B(S FIN +N)", "B(R FIN +N)", "flowDelete(A)", "flowDelete(B)"]
        assert bench.to_remote == (b"xy", True)
        assert bench.to_local == (b"", True)


@pytest.mark.parametrize("action", EVERY_TYPE)
def test_alw_5_under_every_filter_type(action: str) -> None:
    """ALW-5: honoured under TERMINATING, UNKNOWN and INSPECTION."""
    with Bench(Script(ALLOW(), then=B(0), action=action)) as bench:
        bench.send(b"x", b"y")
        assert bench.log == ["A(S1 'x')"]
        assert bench.to_remote == (b"xy", False)


@pytest.mark.parametrize("pended", ["data", "fin"])
def test_alw_6_with_something_pended_it_is_a_mode_switch(pended: str) -> None:
    """ALW-6: V-18; the action is applied all the same."""
    a = Script(B(0, clone), ALLOW())
    with Bench(a, violations=["V-18"]) as bench:
        bench.send(b"x") if pended == "data" else bench.send_fin()
        bench.receive(b"y")
        assert len(bench.log) == 2
        assert bench.to_local == (b"y", False)
        a.discard_pended()
        if pended == "fin":
            assert bench.driver.fwps.flow_abort(bench.flow.id) == SUCCESS
            bench.settle()
        assert bench.resets == ((pended == "fin",) * 2)
        assert bench.to_remote == (b"", False)


def test_alw_6_without_anything_pended_it_is_legal() -> None:
    """ALW-6: the closest legal case: everything was injected and completed."""
    a = Script(B(0, clone), ALLOW())
    with Bench(a) as bench:
        bench.send(b"x")
        assert a.inject_pended() == SUCCESS
        bench.settle()
        bench.receive(b"y")
        assert bench.completions == ["cmp('x', SUCCESS)"]
        assert bench.to_remote == (b"x", False)
        assert bench.to_local == (b"y", False)


# --- DROP_CONNECTION ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "dropped", "violations"),
    [
        ("callout_unknown", True, []),
        ("callout_terminating", True, ["V-4b"]),
        ("callout_inspection", False, ["V-4"]),
    ],
)
@pytest.mark.parametrize("inbound", [False, True])
def test_drp_1_by_filter_type(action: str, dropped: bool, violations: list[str], inbound: bool) -> None:
    """DRP-1: UNKNOWN and TERMINATING drop, INSPECTION continues in full."""
    with Bench(Script(DROP(), action=action), violations=violations) as bench:
        (bench.receive if inbound else bench.send)(b"abc")
        assert len(bench.log) == 1
        assert bench.resets == (dropped, dropped)
        assert (bench.to_local if inbound else bench.to_remote) == (b"" if dropped else b"abc", False)


def test_drp_2_everything_queued_and_held_is_discarded() -> None:
    """DRP-2: both legs RST, both directions' data discarded, no further classify."""
    a, b = Script(NMD(9), P(0), DROP(), action="callout_unknown"), Script(DEF(), name="B")
    with Bench(a, b) as bench:
        bench.send(b"held by A")
        assert bench.calls == ["A(S9 'held by A')"]
        bench.receive(b"held by B")
        bench.flow.send(b"12345")
        bench.settle()
        assert bench.resets == (True, True)
        assert bench.flow.ended
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)
        assert [bench.flow.ledger(d).discarded for d in (0, 1)] == [14, 9]
        assert bench.calls[-1] == "A(S14 'held by A12345')"


def test_drp_3_order_of_the_last_callbacks() -> None:
    """DRP-3: injections complete with CONNECTION_ABORTED, then flowDeleteFn in stage order."""
    a, b = Script(P(0), DROP()), Script(name="B", then=C(0))
    with Bench(a, b, context=5) as bench:
        bench.flow.remote.window = 0
        assert a.inject_bytes(SEND, b"one") == SUCCESS
        assert a.inject_bytes(SEND, b"two") == SUCCESS
        bench.receive(b"x")
        bench.receive(b"y")
        end = ["cmp('one', CONNECTION_ABORTED)", "cmp('two', CONNECTION_ABORTED)"]
        assert bench.log[-5:] == ["A(R1 'y')", *end, "flowDelete(A)", "flowDelete(B)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"x", False)


def test_drp_4_owed_bytes_are_given_up() -> None:
    """DRP-4: a drop does not wait for what the receiver has not taken; it is `discarded_out`."""
    a = Script(P(0), DROP())
    with Bench(a) as bench:
        bench.flow.remote.window = 4
        bench.send(b"0123456789")
        bench.receive(b"x")
        assert bench.resets == (True, True)
        ledger = bench.flow.ledger(0)
        assert (ledger.written, ledger.unsent, ledger.discarded_out) == (4, 0, 6)
        assert bench.to_remote == (b"0123", False)


@pytest.mark.parametrize("inbound", [False, True])
def test_drp_5_on_a_fin(inbound: bool) -> None:
    """DRP-5: works on FIN indications too; the FIN is not delivered."""
    a = Script(DROP())
    with Bench(a, context=4) as bench:
        bench.receive_fin() if inbound else bench.send_fin()
        assert bench.log == [f"A({'R' if inbound else 'S'} FIN +N)", "flowDelete(A)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)
        assert bench.flow.ended


# --- FwpsFlowAbort --------------------------------------------------------------------------------


def test_abt_1_outside_a_classify() -> None:
    """ABT-1: as a drop: no further classify, contexts deleted; no ABORT indication."""
    a = Script(P(0))
    with Bench(a, context=4) as bench:
        bench.send(b"x")
        assert bench.driver.fwps.flow_abort(bench.flow.id) == SUCCESS
        bench.settle()
        assert bench.log == ["A(S1 'x')", "flowDelete(A)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"x", False)


def test_abt_1_inside_a_classify_of_the_flow_it_waits_for_the_return() -> None:
    """ABT-1: takes effect when the classify returns; its bytes are not delivered."""
    order: list[str] = []

    def abort(call: Call) -> None:
        order.append(str(call.owner.fwps.flow_abort(call.flow_id).name))
        order.append(f"log {len(call.owner.transcript.log)}")

    a = Script(P(0, abort))
    with Bench(a, context=4) as bench:
        bench.send(b"x")
        assert order == ["STATUS_SUCCESS", "log 1"]
        assert bench.log == ["A(S1 'x')", "flowDelete(A)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)


def test_abt_1_from_a_completion() -> None:
    """ABT-1: from any context at or below DISPATCH."""
    a = Script(P(0, inj(b"!")))
    with Bench(a) as bench:
        statuses: list[NtStatus] = []
        free = a.fwps.free_net_buffer_list

        def complete(context: object, nbl: object, dispatch_level: bool) -> None:
            statuses.append(a.fwps.flow_abort(bench.flow.id))
            free(nbl)  # type: ignore[arg-type]

        a._complete = complete  # type: ignore[method-assign]
        bench.send(b"x")
        assert statuses == [SUCCESS]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"!x", False)


def test_abt_2_unknown_or_ended_flow() -> None:
    """ABT-2: STATUS_FWP_NOT_FOUND, else STATUS_SUCCESS with flowDeleteFn for each context."""
    a, b = Script(), Script(name="B")
    with Bench(a, b, context=4) as bench:
        abort = bench.driver.fwps.flow_abort
        assert abort(0) == NtStatus.STATUS_FWP_NOT_FOUND
        assert abort(bench.flow.id + 1000) == NtStatus.STATUS_FWP_NOT_FOUND
        assert abort(bench.flow.id) == SUCCESS
        bench.settle()
        assert abort(bench.flow.id) == NtStatus.STATUS_FWP_NOT_FOUND
        assert bench.log == ["flowDelete(A)", "flowDelete(B)"]
        assert bench.resets == (True, True)


@pytest.mark.parametrize(("flags", "severity"), [(SEND_FIN, "E"), (RECEIVE_FIN, "L")])
def test_abt_3_an_arbitrary_fin(flags: int, severity: str) -> None:
    """ABT-3: V-19: broken contract in the outgoing stream, lint only in the inbound one; performed in both."""
    a = Script()
    with Bench(a, violations=["V-19"]) as bench:
        assert a.inject_null_fin(flags) == SUCCESS
        bench.settle()
        (event,) = events(bench.driver, "violation")
        assert event["severity"] == severity
        assert bench.to_remote == (b"", flags == SEND_FIN)
        assert bench.to_local == (b"", flags == RECEIVE_FIN)
        assert bench.log == []


def test_abt_3_the_ways_that_are_meant() -> None:
    """ABT-3: DROP_CONNECTION or FwpsFlowAbort end a connection without a violation."""
    for a in (Script(DROP()), Script(P(0, lambda call: call.owner.fwps.flow_abort(call.flow_id)))):
        with Bench(a) as bench:
            bench.receive(b"x")
            assert bench.resets == (True, True)
            assert bench.to_local == (b"", False)
