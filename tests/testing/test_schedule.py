"""Timers and workers held back: what a schedule may change, and what it may not (IRQ-5).

A schedule moves work to later turns; the bytes and their order within a direction are those of the plain one.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from wfpstream.callouts import Latency, StreamEdit, Throttle
from wfpstream.engine import EngineOptions, Work
from wfpstream.fwps import Callout, OutOfBandCallout
from wfpstream.testing import FlowEnds, MemoryDriver
from wfpstream.testing._schedule import LateSchedule, PlannedSchedule, Schedule

WORKS = st.lists(st.sampled_from(Work), max_size=30)


def connected(schedule: Schedule | None, *callouts: Callout, **options: Any) -> tuple[MemoryDriver, FlowEnds]:
    engine = EngineOptions(**options)
    engine.verify.level = "warn"
    driver = MemoryDriver(engine, schedule=schedule)
    for callout in callouts:
        driver.add(callout)
    flow = driver.connect()
    assert flow is not None
    return driver, flow


def test_without_a_schedule_a_worker_runs_at_once() -> None:
    _, flow = connected(None, OutOfBandCallout())
    flow.send(b"data")
    assert bytes(flow.remote.data) == b"data"


def test_a_late_worker_waits_until_nothing_else_can_happen() -> None:
    driver, flow = connected(LateSchedule(), OutOfBandCallout())
    flow.send(b"one ")
    flow.send(b"two")
    flow.send_fin()
    driver.settle()
    assert bytes(flow.remote.data) == b""
    assert driver.engine.work_waits
    driver.catch_up()
    assert bytes(flow.remote.data) == b"one two"
    assert flow.remote.fin
    assert not driver.engine.work_waits


def test_time_does_not_pass_over_work_that_waits() -> None:
    driver, flow = connected(LateSchedule(), OutOfBandCallout())
    flow.send(b"data")
    driver.advance(0.0)
    assert bytes(flow.remote.data) == b"data"


def test_a_timer_that_is_due_is_work_too() -> None:
    done: list[str] = []
    driver, _ = connected(LateSchedule())
    driver.fwps.after(0.0, done.append, "timer")
    driver.settle()
    assert done == []
    driver.catch_up()
    assert done == ["timer"]


@pytest.mark.parametrize(("work", "first"), [(Work.FIRST, "to_upstream"), (Work.LAST, "to_client")])
def test_the_first_or_the_last_worker_may_go_before_the_others(work: Work, first: str) -> None:
    driver, flow = connected(LateSchedule(), OutOfBandCallout())
    flow.send(b"up")
    flow.receive(b"down")
    assert (bytes(flow.remote.data), bytes(flow.local.data)) == (b"", b"")
    driver.engine.turn(work)
    flow.serve()
    arrived = [*["to_upstream"] * bool(flow.remote.data), *["to_client"] * bool(flow.local.data)]
    assert arrived == [first]
    driver.close()


def test_a_plan_is_followed_choice_by_choice_and_then_everything_runs() -> None:
    schedule = PlannedSchedule([Work.NONE, Work.LAST])
    assert [schedule.choose() for _ in range(4)] == [Work.NONE, Work.LAST, Work.ALL, Work.ALL]


@pytest.mark.parametrize("per_turn", [1, 2, 1000])
@given(plan=WORKS, cut=st.integers(0, 12))
def test_no_plan_changes_what_arrives(per_turn: int, plan: list[Work], cut: int) -> None:
    driver, flow = connected(
        PlannedSchedule(plan),
        StreamEdit(find="rainy", replace="dry", mode="oob"),
        Latency(delay=0.001),
        Throttle(rate=1000, burst=4),
        callbacks_per_turn=per_turn,
    )
    with driver:
        flow.send(b"it is rainy."[:cut])
        flow.receive(b"rainyrainy")
        flow.send(b"it is rainy."[cut:])
        flow.receive_fin()
        flow.send_fin()
        driver.run_until(lambda: flow.ended)
        assert (bytes(flow.remote.data), flow.remote.fin) == (b"it is dry.", True)
        assert (bytes(flow.local.data), flow.local.fin) == (b"drydry", True)
    assert driver.violations == []


def test_an_engine_that_stops_settles_to_the_end() -> None:
    """However few callbacks a turn may have: what flows still hold is given back before leaks are told (V-23)."""
    driver, flow = connected(None, Throttle(rate=1, burst=3), callbacks_per_turn=1)
    others = [driver.connect() for _ in range(3)]
    for each in (flow, *others):
        assert each is not None
        each.send(b"data")
        each.send_fin()
    driver.close()
    assert driver.violations == []
