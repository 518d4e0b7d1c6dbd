"""The byte ledger, rule by rule (section 16.2), with the numbers written out.

Every other test closes its ledgers too; here the single terms are told apart.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from tests.rules.answers import answering, block, once, permit
from tests.rules.minimal import DEFER, DROP, NEED_MORE_DATA, NONE, RECEIVE, SEND, SUCCESS, World
from tests.scenarios.support import ALLOW, NMD, B, Bench, C, P, Script, inj
from tests.scenarios.support_api import ManagedBench, in_one_sub_layer
from wfpstream.engine import EngineOptions
from wfpstream.fwps._ledger import DirectionLedger, StageLedger


def test_led_1_terms_of_a_stage() -> None:
    """LED-1: permitted, blocked, held and injected of one stage; CONTINUE counts as permitted."""
    a = Script(P(3), B(2), C(1), NMD(100), name="A")
    with Bench(a, violations=["V-21"]) as bench:
        bench.send(b"aaabbcdddd")
        assert a.inject_bytes(SEND, b"xx") == SUCCESS
        bench.settle()
        (stage,) = bench.flow.ledger(0).stages
        assert (stage.in_, stage.permitted, stage.blocked, stage.held, stage.discarded) == (10, 4, 2, 4, 0)
        assert (stage.injected, stage.out) == (2, 6)
        assert bench.to_remote == (b"aaacxx", False)
        assert len(bench.completions) == 1
        bench.send_fin()
        (stage,) = bench.flow.ledger(0).stages
        assert (stage.in_, stage.permitted, stage.held) == (10, 8, 0)


@pytest.mark.parametrize("action", [NEED_MORE_DATA, DEFER])
def test_led_1_held_is_discarded_at_a_reset(action: int) -> None:
    """LED-1: what NEED_MORE_DATA or DEFER keeps is held; what a reset throws away is discarded."""
    w = World(once(answering(NONE, stream_action=action)))
    w.receive(b"abcd")
    assert [stage.held for stage in w.flow.ledger(1).stages] == [4]
    w.reset()
    (stage,) = w.flow.ledger(1).stages
    assert (stage.in_, stage.held, stage.discarded) == (4, 0, 4)
    assert w.close() == []


def test_led_1_out_of_band_is_blocked_and_injected() -> None:
    """LED-1: bytes cloned for out-of-band work are `blocked`, their return is `injected`."""

    def pend(*call: Any) -> None:
        w.keep_clone(call[2])
        block(*call)

    w = World(pend)
    w.send(b"abc")
    (stage,) = w.flow.ledger(0).stages
    assert (stage.blocked, stage.injected, stage.held) == (3, 0, 0)
    assert w.inject_kept(SEND) == SUCCESS
    w.settle()
    (stage,) = w.flow.ledger(0).stages
    assert (stage.in_, stage.blocked, stage.injected, stage.out) == (3, 3, 3, 3)
    assert w.close() == []


def test_led_2_between_two_stages() -> None:
    """LED-2: what the upper lets out is in, queued or discarded before the lower."""
    a, b = Script(P(0), P(0), inj_then_permit(), name="A"), Script(P(2), NMD(100), name="B")
    with Bench(a, b) as bench:
        bench.send(b"abcd", b"ef", b"gh")
        upper, lower = bench.flow.ledger(0).stages
        assert (upper.out, upper.injected) == (10, 2)
        assert (lower.in_, lower.permitted, lower.held) == (4, 2, 2)
        assert (lower.queued, lower.bypassed, lower.discarded_between) == (6, 0, 0)
        bench.reset("remote")
        upper, lower = bench.flow.ledger(0).stages
        assert (lower.in_, lower.discarded, lower.discarded_between) == (4, 2, 6)
        assert (lower.held, lower.queued) == (0, 0)
        assert bench.to_remote == (b"ab", False)
        assert bench.completions == ["cmp('xy', CONNECTION_RESET)"]


def inj_then_permit() -> Any:
    return P(0, inj(b"xy"))


def test_led_2_bypass_inside_a_sub_layer() -> None:
    """LED-2: what PERMIT takes past the rest of its sublayer is bypassed there (ARB-6)."""
    a, b = Script(P(3), C(0), name="A"), Script(name="B")
    with ManagedBench(a, b, add=in_one_sub_layer(a, b), violations=["V-47"]) as bench:
        bench.send(b"abcde")
        upper, lower = bench.flow.ledger(0).stages
        assert (upper.out, lower.in_, lower.bypassed) == (5, 2, 3)
        assert bench.to_remote == (b"abcde", False)


def test_led_2_inactive_stage_counts_everything_as_bypassed() -> None:
    """Section 16.2: after ALLOW_CONNECTION a stage counts what passes as bypassed."""
    a = Script(ALLOW(), name="A")
    with Bench(a) as bench:
        bench.send(b"abc", b"de")
        (stage,) = bench.flow.ledger(0).stages
        assert (stage.in_, stage.bypassed) == (3, 2)
        assert bench.to_remote == (b"abcde", False)


def test_led_3_unsent_and_discarded_out() -> None:
    """LED-3: owed bytes are unsent, and discarded_out once a drop gave them up."""
    w = World(once(permit, answering(NONE, stream_action=DROP)))
    w.flow.remote.window = 2
    w.send(b"abcde")
    ledger = w.flow.ledger(0)
    assert (ledger.read, ledger.written, ledger.unsent, ledger.discarded_out) == (5, 2, 3, 0)
    w.send(b"fg")
    ledger = w.flow.ledger(0)
    assert (ledger.read, ledger.written, ledger.unsent, ledger.discarded_out) == (7, 2, 0, 3)
    assert ledger.discarded == 2
    assert w.close() == []


def test_led_3_without_a_stage() -> None:
    """LED-3: read = written + unsent + discarded_out."""
    with Bench() as bench:
        bench.flow.remote.window = 4
        bench.send(b"abcdef")
        ledger = bench.flow.ledger(0)
        assert ledger.stages == ()
        assert (ledger.read, ledger.written, ledger.unsent) == (6, 4, 2)
        bench.reset("remote")
        ledger = bench.flow.ledger(0)
        assert (ledger.written, ledger.unsent, ledger.discarded_out) == (4, 0, 2)
        assert bench.to_remote == (b"abcd", False)


def test_led_4_summary_with_the_event() -> None:
    """LED-4: read - blocked + injected = written, and the event `flow_deleted` carries it, held and unsent 0."""
    a, b = Script(P(1), B(2, inj(b"xyz")), P(0), name="A"), Script(P(1), B(1), P(0), name="B")
    with Bench(a, b) as bench:
        bench.send(b"abcd")
        bench.send_fin()
        bench.receive_fin()
        (event,) = [e for e in bench.driver.events if e["event"] == "flow_deleted"]
        assert event["ledger"]["to_upstream"] == {
            "read": 4,
            "blocked_original": 2,
            "injected": 3,
            "blocked_injected": 1,
            "held": 0,
            "queued": 0,
            "discarded": 0,
            "written": 4,
            "unsent": 0,
            "discarded_out": 0,
        }
        assert event["ledger"]["to_client"]["read"] == 0
        assert bench.to_remote == (b"ayzd", True)
        assert bench.to_local == (b"", True)
        assert bench.completions == ["cmp('xyz', SUCCESS)"]


@pytest.mark.parametrize("end", ["stop", "abort", "reset local", "reset remote"])
@pytest.mark.parametrize("action", [NONE, NEED_MORE_DATA])
def test_led_4_nothing_left_at_the_end(action: int, end: str) -> None:
    """LED-4: at flow end held, queued and unsent are 0, whatever the end."""
    decide = block if action == NONE else answering(NONE, stream_action=action)
    w = World(once(permit, decide), options=EngineOptions(indicate_abort=False))
    w.flow.local.window = w.flow.remote.window = 1
    w.send(b"abc")
    w.send(b"def")
    assert w.inject_bytes(RECEIVE, b"xyz") == SUCCESS
    if end.startswith("reset"):
        w.reset(end.removeprefix("reset "))
        w.driver.advance(2.5)
    elif end == "abort":
        assert w.fwps.flow_abort(w.flow.id) == SUCCESS
        w.settle()
    else:
        w.driver.engine.stop()
    for d in (0, 1):
        ledger = w.flow.ledger(d)
        assert (ledger.held, ledger.queued, ledger.unsent) == (0, 0, 0)
        assert ledger.faults() == []
        assert ledger.balance == 0
    assert w.flow.ledger(0).read == 6
    assert [rule for rule, _ in w.close()] == []


def test_led_5_no_fault_event_after_violations() -> None:
    """LED-5: a balance that does not close is an engine defect, never a callout's: illegal answers close too."""

    def wild(*call: Any) -> None:
        packet, out = call[2], call[-1]
        calls.append(1)
        out.action_type = (99, 0x1002, 0x1001)[len(calls) % 3]
        packet.count_bytes_enforced = 1000 if len(calls) % 2 else 1
        out.rights = 0

    calls: list[int] = []
    w = World(wild)
    for piece in (b"abc", b"defg", b"h"):
        w.send(piece)
        w.receive(piece)
    assert w.inject(SEND, None) != SUCCESS
    w.close()
    assert w.events("ledger_fault") == []
    assert len(w.caught) > 3


def test_led_2_what_is_between_two_stages_has_left_one_and_not_reached_the_other() -> None:
    """LED-2, LED-4: three of ten bytes are on their way from the first stage to the second."""
    first = stage_ledger(in_=10, permitted=10, in_transit=3)
    second = stage_ledger(in_=7, permitted=7)
    assert direction_ledger(read=10, queued=3, written=7, stages=(first, second)).faults() == []
    for wrong in (0, 2, 4):
        ledger = direction_ledger(
            read=10, queued=3, written=7, stages=(replace(first, in_transit=wrong), second)
        )
        (fault,) = ledger.faults()
        assert fault.startswith(f"LED-2 before stage 1: {10 - wrong} arrived")


@pytest.mark.parametrize("wrong", [-3, 2])
def test_led_3_bytes_that_left_the_stages_are_not_lost_and_not_made(wrong: int) -> None:
    """LED-3, LED-4: with fewer bytes written than left the last stage, and with more."""
    stage = stage_ledger(in_=10, permitted=10)
    assert direction_ledger(read=10, written=4, unsent=5, discarded_out=1, stages=(stage,)).faults() == []
    ledger = direction_ledger(read=10, written=4 + wrong, unsent=5, discarded_out=1, stages=(stage,))
    assert ledger.faults() == [
        f"LED-3: 10 left the stages, {4 + wrong}+5+1",
        f"LED-4: off by {-wrong}",
    ]


def stage_ledger(**counts: int) -> StageLedger:
    """A stage in which nothing happened but `counts`."""
    names = [field.name for field in fields(StageLedger)]
    return StageLedger(**(dict.fromkeys(names, 0) | counts))


def direction_ledger(stages: tuple[StageLedger, ...], **counts: int) -> DirectionLedger:
    """A direction in which nothing happened but `counts`, and what its stages say."""
    names = [field.name for field in fields(DirectionLedger) if field.name != "stages"]
    return DirectionLedger(stages=stages, **(dict.fromkeys(names, 0) | counts))
