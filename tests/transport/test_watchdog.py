"""The watchdog: what its looks add up to, where it says a callout is, and that it says so while the loop hangs."""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.kit import Probe, bounded, listening, live, make_engine, read_exactly
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType
from wfpstream.fwps import (
    ClassifyOut,
    OnStack,
    OutOfBandCallout,
    StreamCalloutIoPacket,
    Worker,
    where_on_stack,
)
from wfpstream.transport import ListenerSpec, Proxy, serve_proxy
from wfpstream.transport._processor_wait import ProcessorWait
from wfpstream.transport._watchdog import Report, Sampler

BUDGET = 0.01
THREAD = "wfpstream watchdog"


# --- what looks add up to -----------------------------------------------------------------------------


class Plan:
    """Calls of callouts at given times, and a sampler that looks at them."""

    def __init__(self, calls: list[tuple[str, float, float]]) -> None:
        """`calls`: name, begin, end; one after the other."""
        self.calls = calls
        self.now = 0.0
        self.looks = 0
        self.sampler = Sampler(
            self.on_stack, lambda: f"{self.current}.py:1", lambda: self.now, self.last_began
        )

    @property
    def current(self) -> str:
        found = self.on_stack()
        assert found is not None
        return found.callout

    def on_stack(self) -> OnStack | None:
        return next((OnStack(name, a) for name, a, b in self.calls if a <= self.now < b), None)

    def last_began(self) -> float:
        return max((a for _, a, _ in self.calls if a <= self.now), default=0.0)

    def run(self, until: float) -> list[tuple[float, list[Report]]]:
        """Look until then: when something was to be said, and what."""
        said = []
        while self.now < until:
            pause = self.sampler.look(BUDGET)
            self.looks += 1
            reports = self.sampler.take()
            if reports:
                said.append((self.now, reports))
            assert pause > 0
            self.now += pause
        return said


def calls_of(name: str, length: float, every: float, until: float) -> list[tuple[str, float, float]]:
    """Calls that take `length`, one `every` so many seconds."""
    count = int(until / every)
    return [(name, number * every, number * every + length) for number in range(count)]


@pytest.mark.parametrize("every", [0.0501, 0.1, 0.2, 0.25])
def test_calls_of_50_ms_are_named_once_a_second_with_their_share(every: float) -> None:
    said = Plan(calls_of("Slow", 0.05, every, 10.0)).run(10.0)
    assert 8 <= len(said) <= 10
    for (one, _), (following, _) in pairwise(said):
        assert 0.999 < following - one < 1.02
    for _, reports in said:
        (report,) = reports
        assert (report.callout, report.where) == ("Slow", "Slow.py:1")
        assert report.share == pytest.approx(0.05 / every, abs=0.1)
        assert report.seconds == pytest.approx(0.05, abs=0.01)
        assert report.samples >= 3


def test_many_short_calls_are_never_named_however_much_time_they_take() -> None:
    """A proxy at full load is no slow callout: 5 ms calls without a pause."""
    plan = Plan(calls_of("Busy", 0.00499, 0.005, 10.0))
    assert plan.run(10.0) == []
    assert plan.looks < 25 * 10


def test_a_proxy_at_work_is_looked_at_about_a_dozen_times_a_second_and_a_quiet_one_hardly() -> None:
    plan = Plan(calls_of("Short", 0.0001, 0.02, 10.0))
    assert plan.run(10.0) == []
    assert 10 * 10 < plan.looks < 13 * 10
    plan = Plan([])
    assert plan.run(10.0) == []
    assert plan.looks <= 22


def test_a_call_that_does_not_return_is_named_every_second() -> None:
    said = Plan([("Stuck", 0.5, 1e9)]).run(10.0)
    assert len(said) == 9
    for when, (one,) in said:
        assert one.callout == "Stuck"
        assert one.share > 0.95
        assert one.since == 0.5
        assert one.seconds == pytest.approx(when - 0.5)


def test_the_worst_is_named_first_and_what_is_below_a_tenth_is_not() -> None:
    calls = [
        call
        for second in range(10)
        for call in (
            ("Much", second + 0.1, second + 0.6),
            ("Some", second + 0.6, second + 0.8),
            ("Little", second + 0.8, second + 0.83),
        )
    ]
    named = [[report.callout for report in reports] for _, reports in Plan(calls).run(10.0)]
    assert all(names == ["Much", "Some"] for names in named[1:-1])
    assert len(named) >= 8


def test_a_watchdog_that_is_late_accuses_nobody() -> None:
    """On a busy machine its own thread may wait for long: what it did not see was not the call."""
    plan = Plan([("Short", 0.0, 0.02), ("Other", 2.0, 2.001)])
    plan.now = 0.015
    plan.sampler.look(BUDGET)
    plan.now = 1.9
    plan.sampler.look(BUDGET)
    assert plan.sampler.take() == []


def test_what_the_machine_took_is_not_the_callouts() -> None:
    """Of 30 ms the thread has waited 25 for a processor: nobody is named, however often that happens."""
    calls = calls_of("Waiting", 0.03, 0.05, 10.0)
    plan = Plan(calls)
    plan.sampler = Sampler(
        plan.on_stack,
        lambda: "Waiting.py:1",
        lambda: plan.now,
        plan.last_began,
        lambda began, now: max(0.0, now - began - 0.025),
    )
    assert plan.run(10.0) == []


def test_of_a_call_that_is_slow_all_the_same_only_its_own_time_counts() -> None:
    """It has half of a processor: in 100 ms of each 200 it works for 50."""
    plan = Plan(calls_of("Slow", 0.1, 0.2, 10.0))
    plan.sampler = Sampler(
        plan.on_stack,
        lambda: "Slow.py:1",
        lambda: plan.now,
        plan.last_began,
        lambda began, now: (now - began) / 2,
    )
    said = plan.run(10.0)
    assert len(said) >= 8
    for _, (report,) in said:
        assert report.share == pytest.approx(0.25, abs=0.05)
        assert report.seconds == pytest.approx(0.05, abs=0.01)


def test_it_notes_how_long_the_thread_has_waited_once_per_call_it_meets() -> None:
    notes: list[float] = []
    plan = Plan([("Long", 1.0, 3.0), ("Other", 3.0, 4.0)])
    plan.sampler = Sampler(
        plan.on_stack,
        lambda: "x.py:1",
        lambda: plan.now,
        plan.last_began,
        note=lambda: notes.append(plan.now),
    )
    plan.run(4.0)
    assert len([at for at in notes if 1.0 <= at < 3.0]) == 1
    assert len([at for at in notes if 3.0 <= at < 4.0]) == 1
    assert [at for at in notes if at < 1.0]


def test_the_kernel_tells_how_long_a_thread_has_waited_for_a_processor() -> None:
    """Which is no more than the time that was neither sleep nor work."""
    waits: list[float] = []

    def measure() -> None:
        wait = ProcessorWait()
        # In this order: the time that was no work is to include all that it may have waited.
        began, worked, before = time.monotonic(), time.thread_time(), wait.seconds()
        while time.thread_time() - worked < 0.02:
            pass
        waits.append(wait.seconds() - before)
        work = time.thread_time() - worked
        waits.append(time.monotonic() - began - work)
        wait.close()
        assert wait.seconds() == 0.0

    thread = threading.Thread(target=measure)
    thread.start()
    thread.join()
    waited, most = waits
    assert 0.0 <= waited <= most + 0.005


def test_when_it_is_over_nothing_more_is_said() -> None:
    plan = Plan(calls_of("Slow", 0.05, 0.06, 2.0))
    assert plan.run(5.0)
    assert plan.run(10.0) == []
    assert not plan.sampler.is_alert


@given(
    st.lists(st.tuples(st.sampled_from("AB"), st.floats(0.0, 0.4), st.floats(0.02, 0.4)), min_size=1),
)
def test_shares_are_those_of_the_calls(steps: list[tuple[str, float, float]]) -> None:
    """Whatever the order of calls and pauses; all that a look can be off is half the time between two."""
    calls: list[tuple[str, float, float]] = []
    at = 0.2
    for name, pause, length in steps:
        at += pause + 0.001
        calls.append((name, at, at + length))
        at += length
    plan = Plan(calls)
    ended = 0.0
    for when, reports in plan.run(at + 3.0):
        assert sum(report.share for report in reports) <= 1.0 + 1e-9
        began, ended = max(ended, when - 1.6), when
        for report in reports:
            inside = [
                (max(a, began), min(b, when))
                for name, a, b in calls
                if name == report.callout and a < when and b > began
            ]
            # The second begins no earlier than the first overdue call, so it may be shorter than we take it for.
            spent = sum(b - a for a, b in inside)
            assert report.share <= spent + 0.007 * len(inside) + 1e-9
            assert report.seconds <= max(b - a for name, a, b in calls if name == report.callout) + 0.006


# --- where ----------------------------------------------------------------------------------------------


def test_the_line_is_the_callouts_own() -> None:
    """Not one of a library that it calls; one of a helper of its own it is."""
    found: list[str | None] = []

    def look(value: int) -> int:
        found.append(where_on_stack(sys._getframe()))
        return value

    def through_a_library() -> None:
        json.loads("{}", object_pairs_hook=lambda pairs: found.append(where_inside()))

    def where_inside() -> str | None:
        return where_on_stack(sys._getframe().f_back)

    class Asking(Probe):
        def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
            look(0)
            through_a_library()
            functools.reduce(lambda a, b: look(b), [1, 2])

    from wfpstream.testing import MemoryDriver

    with MemoryDriver() as driver:
        driver.add(Asking())
        flow = driver.connect()
        assert flow is not None
        flow.send(b"x")
    first = look.__code__.co_firstlineno + 1
    hook = through_a_library.__code__.co_firstlineno + 1
    assert found == [f"{__file__}:{first}", f"{__file__}:{hook}", f"{__file__}:{first}"]


def test_a_stack_without_a_callout_has_no_line() -> None:
    assert where_on_stack(sys._getframe()) is None
    assert where_on_stack(None) is None


# --- the thread -----------------------------------------------------------------------------------------


class Stuck(Probe):
    """Holds the loop until it is let go from another thread."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        self.wait()

    def wait(self) -> None:
        """Bounded, so that a watchdog that says nothing fails the test instead of hanging it."""
        self.let_go.wait(80)


def watchdogs() -> list[threading.Thread]:
    """Those that run."""
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


async def while_stuck(callout: Any, let_go: threading.Event, wait: Callable[..., object]) -> None:
    """A byte through a callout that holds the loop until a line was written: it names the callout and the place."""
    lines: list[tuple[str, str]] = []

    def log(line: str) -> None:
        lines.append((threading.current_thread().name, line))
        let_go.set()

    engine = make_engine(callout)
    events: list[dict[str, Any]] = []
    engine.add_sink(events.append)
    upstream = await listening()
    place = f"{__file__}:{wait.__code__.co_firstlineno + 2}"
    async with trio.open_nursery() as nursery:
        spec = ListenerSpec(name="web", upstream_host="127.0.0.1", upstream_port=upstream.getsockname()[1])

        async def serve(task_status: trio.TaskStatus[Proxy]) -> None:
            await serve_proxy(engine, [spec], grace=0.0, log=log, task_status=task_status)

        proxy: Proxy = await nursery.start(serve)
        assert len(watchdogs()) == 1
        listener = proxy.listeners[0]
        async with await trio.open_tcp_stream(listener.host, listener.port) as client:
            await client.send_all(b"x")
            sock, _ = await upstream.accept()
            async with trio.SocketStream(sock) as server:
                assert await read_exactly(server, 1) == b"x"
                while not [event for event in events if event["event"] == "slow_callback"]:
                    await trio.lowlevel.checkpoint()
        await proxy.stop()
    upstream.close()
    name = type(callout).__name__
    thread, line = lines[0]
    assert thread == THREAD
    assert line.startswith(f"callout {name} has not returned for ")
    assert place in line
    event = next(event for event in events if event["event"] == "slow_callback")
    assert (event["callout"], event["where"], event["flow"]) == (name, place, 0)
    # How much of its second it had itself, and how often it was met, is the machine's affair, too.
    assert 0.1 <= event["share"] <= 1.0
    assert event["seconds"] >= 0.1
    assert event["samples"] >= 1
    assert watchdogs() == []
    assert engine.overruns.watched is False


@bounded
async def test_a_callout_that_hangs_is_named_while_it_hangs() -> None:
    """By a line from the watchdog's own thread; the event follows when the loop can."""
    stuck = Stuck()
    await while_stuck(stuck, stuck.let_go, Stuck.wait)


class StuckWorker(Worker):
    """As `Stuck`, out of band."""

    async def run(self) -> None:
        """Hold the loop at the first item."""
        item = await self.next()
        assert isinstance(self.callout, StuckOutOfBand)
        self.callout.wait()
        await self.inject(item)


class StuckOutOfBand(OutOfBandCallout):
    """One worker per direction."""

    worker_class = StuckWorker

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def wait(self) -> None:
        """Bounded."""
        self.let_go.wait(80)


@bounded
async def test_a_worker_that_hangs_is_named_while_it_hangs() -> None:
    stuck = StuckOutOfBand()
    await while_stuck(stuck, stuck.let_go, StuckOutOfBand.wait)


class Reporting(Probe):
    """What the watchdog makes of it does not matter."""

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        out.action_type = int(ActionType.PERMIT)


@bounded
async def test_the_thread_ends_with_the_proxy_also_when_it_never_saw_anything() -> None:
    options = EngineOptions()
    options.verify.callback_budget = options.timeouts.turn = 3600.0  # the machine may take its time
    async with live(Reporting(), options=options) as run:
        client, server = await run.pair()
        await client.send_all(b"x")
        assert await read_exactly(server, 1) == b"x"
        assert len(watchdogs()) == 1
    assert watchdogs() == []
    assert run.events.named("slow_callback") == []
