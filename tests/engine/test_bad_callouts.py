"""Callouts that hold the loop or answer rubbish: named, met by the policy, and no other flow is touched."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from wfpstream.engine import Endpoints, EngineOptions, FilterEngine, Flow
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, OutOfBandCallout, Worker
from wfpstream.testing import MemoryDriver


class Slow(Callout):
    """Takes as long as it is told, by moving the clock itself."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def classify_fn(self, *call: Any) -> None:
        self.clock[0] += self.seconds
        call[-1].action_type = ActionType.PERMIT


def flow_of(engine: FilterEngine) -> Flow:
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    return flow


@pytest.mark.parametrize(("seconds", "named"), [(0.15, 2), (0.05, 0)])
def test_a_callout_that_holds_the_loop_is_named_once_a_second(seconds: float, named: int) -> None:
    """`timeouts.turn`: 100 ms; it interrupts nothing. Ten calls take 1.5 s, or 0.5 s."""
    clock = [0.0]
    engine = FilterEngine(lambda: clock[0])
    events: list[dict[str, Any]] = []
    engine.add_sink(events.append)
    engine.add_callout(Slow(clock, seconds))
    flow = flow_of(engine)
    for _ in range(10):
        flow.received(0, b"x")
    slow = [event for event in events if event["event"] == "slow_callback"]
    assert [(event["callout"], event["seconds"]) for event in slow] == [
        ("Slow", pytest.approx(seconds))
    ] * named
    assert all(event["where"].startswith(__file__) for event in slow)
    assert flow.output(0).length == 10


class Rubbish(Callout):
    """On one flow the answer is no integer; on every other it permits."""

    def __init__(self, member: str, value: object) -> None:
        self.member, self.value = member, value
        self.victim = 0

    def classify_fn(self, *call: Any) -> None:
        packet, out = call[2], call[-1]
        out.action_type = ActionType.PERMIT
        if call[1].flow_handle == self.victim:
            setattr(out if hasattr(out, self.member) else packet, self.member, self.value)


@pytest.mark.parametrize("policy", ["drop", "permit"])
@pytest.mark.parametrize(
    ("member", "value"),
    [("action_type", "PERMIT"), ("stream_action", None), ("count_bytes_enforced", 1.5), ("rights", b"")],
)
def test_rubbish_meets_the_policy_and_no_other_flow(member: str, value: object, policy: str) -> None:
    """ACT-14, V-40: as an exception; the ledgers close (`close` checks them)."""
    options = EngineOptions()
    options.policy.on_callout_error = policy
    callout = Rubbish(member, value)
    with MemoryDriver(options) as driver:
        driver.add(callout)
        victim, other = driver.connect(), driver.connect()
        assert victim is not None
        assert other is not None
        callout.victim = victim.id
        victim.send(b"abc")
        other.send(b"def")
        assert bytes(victim.remote.data) == (b"" if policy == "drop" else b"abc")
        assert victim.remote.reset is (policy == "drop")
        assert (bytes(other.remote.data), other.remote.reset) == (b"def", False)
        assert driver.violations == ["V-40"]


class Leaving(Callout):
    """Ends the process it is a guest in, or tries to."""

    def __init__(self, where: str) -> None:
        self.where = where

    def classify_fn(self, *call: Any) -> None:
        call[-1].action_type = ActionType.PERMIT
        self.leave("classify")
        fwps, meta = self.fwps, call[1]
        layer_id = call[0].layer_id
        fwps.flow_associate_context(meta.flow_handle, layer_id, self.callout_id(layer_id), 7)
        if self.where == "timer":
            self.after(1.0, self.leave, "timer")

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        self.leave("flow_delete")

    def notify_fn(self, notify_type: int, filter_key: object, filter: object) -> int:
        if notify_type == 1:
            self.leave("notify")
        return 0

    def leave(self, where: str) -> None:
        if where == self.where:
            sys.exit(4)


@pytest.mark.parametrize("where", ["classify", "flow_delete", "notify", "timer"])
def test_sys_exit_in_a_callout_is_a_fault_like_any_other(where: str) -> None:
    """ACT-14, V-40: a guest does not end the process, nor a flow that is not its own."""
    options = EngineOptions()
    options.policy.on_callout_error = "permit"
    with MemoryDriver(options) as driver:
        added = driver.add(Leaving(where))
        flow = driver.connect()
        assert flow is not None
        flow.send(b"abc")
        driver.advance(2.0)
        added.retire()
        driver.settle()
        flow.send(b"def")
        assert bytes(flow.remote.data) == b"abcdef"
        assert set(driver.violations) == {"V-40"}


def test_sys_exit_in_a_worker_is_a_fault_like_any_other() -> None:
    class Quitting(Worker):
        async def run(self) -> None:
            await self.next()
            sys.exit(4)

    class Quits(OutOfBandCallout):
        worker_class = Quitting

    options = EngineOptions()
    options.policy.on_callout_error = "permit"
    with MemoryDriver(options) as driver:
        driver.add(Quits())
        flow = driver.connect()
        assert flow is not None
        flow.send(b"abc")
        assert bytes(flow.remote.data) == b"abc"
        assert driver.violations == ["V-40"]
