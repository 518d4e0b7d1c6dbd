"""Policies (POL-*): what `drop`, `permit` and `bypass` do to the bytes, and that every use is told.

Owns `on_callout_error` and `on_limit`; what a capture needs (`on_gap`, `on_midstream`) belongs to replay.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import NMD, UNSET, B, Bench, Call, P, Script, clone
from tests.scenarios.support_api import events
from wfpstream.engine import EngineOptions
from wfpstream.fwps import OutOfBandCallout, Worker
from wfpstream.testing import MemoryDriver


def policies(on_callout_error: str = "drop", on_limit: str = "drop") -> EngineOptions:
    options = EngineOptions()
    options.policy.on_callout_error = on_callout_error
    options.policy.on_limit = on_limit
    options.limits.need_more_data = 4
    return options


class Raises(Script):
    """The second indication is too much for it."""

    def __init__(self, action: str = "callout_unknown") -> None:
        super().__init__(action=action)
        self.count = 0

    def classify_fn(self, *arguments: object) -> None:
        self.count += 1
        if self.count == 2:
            raise ZeroDivisionError("by design")
        super().classify_fn(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "log", "to_remote", "resets"),
    [
        ("drop", ["A(S1 'a')"], b"a", (True, True)),
        ("permit", ["A(S1 'a')", "A(S1 'c')"], b"abc", (False, False)),
        ("bypass", ["A(S1 'a')"], b"abc", (False, False)),
    ],
)
def test_pol_1_what_the_values_do(
    value: str, log: list[str], to_remote: bytes, resets: tuple[bool, bool]
) -> None:
    """POL-1: drop as DRP-2; permit: this item passes and the callout stays; bypass as ALLOW_CONNECTION."""
    a = Raises()
    with Bench(a, options=policies(value), violations=["V-40"]) as bench:
        bench.send(b"a", b"b", b"c")
        assert bench.log == log
        assert bench.to_remote == (to_remote, False)
        assert bench.resets == resets
        assert bench.flow.ended == resets[0]


@pytest.mark.parametrize(
    ("value", "calls", "to_remote", "dropped"),
    [
        ("drop", 2, b"", True),
        ("permit", 3, b"abcde", False),
        ("bypass", 2, b"abcde", False),
    ],
)
def test_pol_1_on_limit(value: str, calls: int, to_remote: bytes, dropped: bool) -> None:
    """POL-1, IND-24: NEED_MORE_DATA answered to BUFFER_LIMIT_REACHED uses `on_limit`."""
    a = Script(NMD(9), NMD(9), P(0))
    with Bench(a, options=policies(on_limit=value), violations=["V-12", "V-2"]) as bench:
        bench.send(b"ab", b"cd", b"e")
        assert len(bench.log) == calls
        assert bench.log[1] == "A(S4 'abcd' +L)"
        assert bench.to_remote == (to_remote, False)
        assert bench.resets == (dropped, dropped)


@pytest.mark.parametrize("configured", ["drop", "bypass", "permit"])
def test_pol_2_an_inspection_stage_is_always_permitted(configured: str) -> None:
    """POL-2: under an INSPECTION filter the policy is `permit`, whatever is configured."""
    a = Raises("callout_inspection")
    with Bench(a, options=policies(configured), violations=["V-40"]) as bench:
        bench.send(b"a", b"b", b"c")
        assert bench.log == ["A(S1 'a')", "A(S1 'c')"]
        assert bench.to_remote == (b"abc", False)
        assert [event["value"] for event in events(bench.driver, "policy")] == ["permit"]


def test_pol_2_the_defaults_fail_closed() -> None:
    """POL-2: `on_limit` and `on_callout_error` default to `drop`."""
    policy = EngineOptions().policy
    assert (policy.on_limit, policy.on_callout_error) == ("drop", "drop")


# --- pended bytes ---------------------------------------------------------------------------------


class Gatherer(Worker):
    """Takes everything and gives nothing until it is told to drain."""

    async def run(self) -> None:
        kept: list[bytes] = []
        while True:
            item = await self.next()
            if item.kind == "data":
                kept.append(item.data)
            elif item.kind == "drain":
                await self.inject(b"".join(kept))
                return
            else:
                return


class Gathering(OutOfBandCallout):
    """The base class brings its own `drain`."""

    name = "gathering"
    worker_class = Gatherer


def gather(value: str) -> tuple[MemoryDriver, bytes, bool]:
    """Let a worker take more than the limit `taken`; what arrived, and whether the flow was dropped."""
    options = EngineOptions()
    options.verify.level = "warn"
    options.policy.on_limit = value
    options.limits.taken = 10
    driver = MemoryDriver(options)
    driver.add(Gathering())
    flow = driver.connect()
    assert flow is not None
    for _ in range(4):
        flow.send(b"0123")
        driver.settle()
    return driver, bytes(flow.remote.data), flow.remote.reset


@pytest.mark.parametrize("value", ["permit", "bypass"])
def test_pol_3_permit_and_bypass_ask_the_callout_to_drain(value: str) -> None:
    """POL-3: `taken` reached: the callout drains, nothing is lost."""
    driver, arrived, reset = gather(value)
    assert arrived == b"0123012301230123"
    assert not reset
    assert driver.engine.counters[f"policy.on_limit.{value}"] >= 1
    driver.close()
    assert driver.violations == []


def test_pol_3_drop_does_not_ask() -> None:
    """POL-3: `drop` is DRP-2: the pended bytes are gone."""
    driver, arrived, reset = gather("drop")
    assert arrived == b""
    assert reset
    driver.close()


@pytest.mark.parametrize("value", ["permit", "bypass", "drop"])
def test_pol_3_without_a_drain_of_its_own_the_flow_is_dropped(value: str) -> None:
    """POL-3, IND-24: `timeouts.stuck` under a callout that offers no `drain()` acts as `drop`."""
    options = EngineOptions()
    options.policy.on_limit = value
    options.limits.pended = 8
    options.timeouts.stuck = 60.0
    a = Script(then=B(0, clone))
    with Bench(a, options=options) as bench:
        bench.send(b"0123", b"4567")
        assert bench.flow.pending_input(0) == 4
        bench.driver.advance(59.0)
        assert bench.resets == (False, False)
        bench.driver.advance(2.0)
        assert bench.resets == (True, True)
        a.discard_pended()
        assert bench.to_remote == (b"", False)


# --- telling --------------------------------------------------------------------------------------


def wrong(call: Call) -> None:
    """A stream action that does not exist."""
    call.packet.stream_action = 99


@pytest.mark.parametrize("value", ["drop", "permit", "bypass"])
def test_pol_6_every_use_is_an_event_and_a_counter(value: str) -> None:
    """POL-6: event `policy` with name, value and where; and a counter."""
    a = Script(UNSET(wrong))
    with Bench(a, options=policies(value), violations=["ACT-13"]) as bench:
        bench.send(b"a")
        (event,) = events(bench.driver, "policy")
        assert (event["name"], event["value"], event["where"]) == ("on_callout_error", value, "A")
        assert bench.driver.engine.counters[f"policy.on_callout_error.{value}"] == 1
        assert bench.resets == ((value == "drop",) * 2)
        assert bench.to_remote == (b"" if value == "drop" else b"a", False)
