"""Cases a random mixture of callouts, limits and options brought up, kept as the smallest form of each."""

from __future__ import annotations

import pytest

from tests.rules.answers import permit
from tests.rules.minimal import SEND, SUCCESS, World
from tests.scenarios.support import Script
from wfpstream.engine import YES, EngineOptions
from wfpstream.fwp import CalloutFlags

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
