"""Our own proxy, tortured over real sockets: nothing is lost and nothing distorted, whoever looks on or delays."""

from __future__ import annotations

import time

import pytest
import trio

from tests.torture.kit import HOLDS_UP, held_port
from wfpstream.config import build_engine, parse_config
from wfpstream.torture import FULL, CaseResult, Profile, Verdict, list_cases, torture
from wfpstream.transport import ListenerSpec, Proxy, serve_proxy
from wfpstream.transport._connection import Driver

BOTH_DRIVERS = pytest.mark.parametrize("driver", ["reactor", "stream"])
# Longer than a busy machine takes; no case is about them.
PATIENCE = '[timeouts]\nconnect = "100s"\nreset_flush = "100s"\n'
RULE = '[[rule]]\ncallout = "{}"\n'
# What a callout still holds when a reset comes is discarded (IND-18), and what it injects is not urgent.
ORDERLY = [name for name, _ in list_cases() if not name.startswith(("reset_", "urgent_data"))]


def through_our_proxy(
    *callouts: str,
    only: list[str],
    profile: Profile = HOLDS_UP,
    limit: float = 100.0,
    driver: Driver = "reactor",
) -> list[CaseResult]:
    """What the suite says about a proxy with these callouts, which must be clean afterwards."""

    async def tried() -> list[CaseResult]:
        rules = parse_config(PATIENCE + "".join(RULE.format(one) for one in callouts), "torture.toml")
        engine = build_engine(rules, clock=time.monotonic)

        async def serve(task_status: trio.TaskStatus[Proxy]) -> None:
            await serve_proxy(engine, [spec], grace=0.0, driver=driver, task_status=task_status)

        with held_port() as upstream, trio.fail_after(limit):
            spec = ListenerSpec(upstream_host=upstream[0], upstream_port=upstream[1])
            async with trio.open_nursery() as nursery:
                proxy: Proxy = await nursery.start(serve)
                relay = ("127.0.0.1", proxy.listeners[0].port)
                results = await torture(relay, upstream, profile=profile, only=only)
                await proxy.stop()
        assert engine.flows == []
        assert engine.counters.get("ledger_faults", 0) == 0
        return results

    return trio.run(tried)


def faults(results: list[CaseResult]) -> list[tuple[str, object]]:
    """All but a slow round trip, which is the machine's doing."""
    assert results
    kept = [one for one in results if one.verdict is Verdict.KEPT or one.name == "round_trips"]
    return [(one.name, one.findings) for one in results if one not in kept or one.verdict.is_fault]


@BOTH_DRIVERS
@pytest.mark.parametrize("callouts", [(), ("monitor",)])
def test_everything_is_kept(callouts: tuple[str, ...], driver: Driver) -> None:
    """Also IND-18: bytes owed are delivered before a reset."""
    assert faults(through_our_proxy(*callouts, only=[], driver=driver)) == []


@BOTH_DRIVERS
def test_everything_orderly_is_kept_behind_callouts_that_hold_data(driver: Driver) -> None:
    callouts = ("latency,delay=1ms", "throttle,rate=1GiB/s")
    assert faults(through_our_proxy(*callouts, only=ORDERLY, driver=driver)) == []


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_everything_is_kept_of_the_full_profile() -> None:
    """10,000 connections, 64 MiB each way, and pauses as real peers make them."""
    assert faults(through_our_proxy(only=[], profile=FULL, limit=1000.0)) == []
