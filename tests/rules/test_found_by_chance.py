"""Cases a random mixture of callouts, limits and options brought up, kept as the smallest form of each."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rules.answers import answering, once, permit
from tests.rules.minimal import DROP, NONE, PERMIT, RECEIVE, SEND, STREAM, SUCCESS, Plain, World
from tests.scenarios.support import Script
from wfpstream.engine import YES, EngineOptions
from wfpstream.fwp import CalloutFlags
from wfpstream.testing import MemoryDriver

MID_STREAM = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)


def test_led_2_stage_added_while_an_injection_is_on_its_way() -> None:
    """LED-2, MID-2: queued bytes that the new stage is shown have not gone past it."""
    w = World(permit, options=EngineOptions(inject_delivery="queued"))
    assert w.inject_bytes(SEND, b"x") == SUCCESS
    late = Script(name="L", flags=MID_STREAM)
    w.driver.add(late)
    assert late.transcript.log == ["L(S1 'x')"]
    assert w.to_remote == b"x"
    assert w.close() == []


@pytest.mark.parametrize("limit", ["total", "per_flow"])
def test_ind_24_resumes_at_exactly_a_quarter(limit: str) -> None:
    """IND-24: stop at half the limit, resume at a quarter: 30 and 15 of 60."""
    options = EngineOptions()
    setattr(options.limits, limit, 60)
    w = World(permit, options=options)
    w.flow.remote.window = 0
    w.send(bytes(30))
    assert w.flow.may_read(0) != YES
    w.flow.remote.window = 14
    w.settle()
    assert w.flow.may_read(0) != YES
    w.flow.remote.window = 1
    w.settle()
    assert w.flow.may_read(0) == YES
    assert w.close() == []


def ended_by_what_was_still_to_be_decided() -> World:
    """Two callbacks a turn: "ab" is decided, "c" is left, and drops the flow at the next input."""
    decide = once(answering(PERMIT, enforced=1), once(answering(PERMIT, enforced=1), DROPPING))
    w = World(decide, options=EngineOptions(callbacks_per_turn=2))
    w.flow.flow.received(0, b"abc")
    return w


DROPPING = answering(NONE, stream_action=DROP)


def test_led_4_bytes_read_while_the_flow_ends() -> None:
    """LED-4, CMP-15: nothing stays queued in a flow that ended by the bytes before."""
    w = ended_by_what_was_still_to_be_decided()
    w.flow.flow.received(0, b"de")
    w.settle()
    ledger = w.flow.ledger(0)
    assert w.flow.ended
    assert (ledger.held, ledger.queued, ledger.unsent) == (0, 0, 0)
    assert ledger.faults() == []
    assert w.close() == []


def test_led_4_fin_read_while_the_flow_ends() -> None:
    """LED-4, CMP-15: the same for a FIN."""
    w = ended_by_what_was_still_to_be_decided()
    w.flow.flow.received_fin(0)
    w.settle()
    assert w.flow.ended
    assert w.fins() == (False, False)
    assert w.flow.ledger(0).faults() == []
    assert w.close() == []


def test_strict_bypass_inside_a_classify_leaves_the_shown_bytes_alone() -> None:
    """POL-1, CTX-1: a stage that becomes inactive inside its own classify still has its answer applied."""

    def classify(*call: Any) -> None:
        call[-1].action_type = PERMIT
        if call[2].stream_data.flags & SEND:
            assert flow is not None
            code.inject(flow.id, STREAM, RECEIVE, b"x")  # V-21, which meets `on_callout_error`
            ids = (flow.id, STREAM, code.callout_id(STREAM))
            assert driver.fwps.flow_associate_context(*ids, 1) == SUCCESS

    options = EngineOptions()
    options.verify.level = "strict"
    options.policy.on_callout_error = "bypass"
    driver = MemoryDriver(options=options)
    code = Plain(classify)
    driver.add(code)
    flow = driver.connect()
    assert flow is not None
    flow.receive(b"r")
    flow.send(b"mwr")
    driver.settle()
    assert (bytes(flow.remote.data), bytes(flow.local.data)) == (b"mwr", b"rx")
    assert driver.violations == ["V-21"]
    for d in (0, 1):
        assert flow.ledger(d).faults() == []
    driver.close()
