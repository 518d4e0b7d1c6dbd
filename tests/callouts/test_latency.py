"""latency: later, in order, and the same variations in every run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.callouts.support import all_cuts, memory_driver, relay, streams, watched
from wfpstream.callouts import Latency, StreamEdit
from wfpstream.fwps import Callout

both_ways = pytest.mark.parametrize("inbound", [False, True])


@both_ways
def test_every_cut_arrives_whole_after_the_delay(inbound: bool) -> None:
    for pieces in all_cuts(b"some data that takes its time"):
        outcome = relay(Latency(delay="300ms"), pieces, inbound=inbound)
        assert outcome.data == b"some data that takes its time"
        assert outcome.fin
        assert outcome.seconds == pytest.approx(0.3)
        assert outcome.violations == []


@both_ways
def test_each_item_is_delayed_from_when_it_came_not_from_the_one_before(inbound: bool) -> None:
    driver = memory_driver(Latency(delay=1.0))
    flow = driver.connect()
    assert flow is not None
    put = flow.receive if inbound else flow.send
    end = flow.local if inbound else flow.remote
    arrived = []
    put(b"a")
    driver.advance(0.4)
    put(b"b")
    for _ in range(4):
        driver.advance(0.3)
        arrived.append(bytes(end.data))
    assert arrived == [b"", b"a", b"a", b"ab"]  # at 0.7, 1.0, 1.3 and 1.6
    driver.close()


def test_the_end_of_the_stream_is_delayed_too() -> None:
    driver = memory_driver(Latency(delay=1.0))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"a")
    driver.advance(0.5)
    flow.send_fin()
    driver.advance(0.6)
    assert [flow.remote.data, flow.remote.fin] == [b"a", False]
    driver.advance(0.4)
    assert flow.remote.fin
    driver.close()


def test_a_round_trip_takes_twice_the_delay() -> None:
    driver = memory_driver(Latency(delay=1.0))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"ping")
    driver.run_until(lambda: bool(flow.remote.data))
    flow.receive(b"pong")
    driver.run_until(lambda: bool(flow.local.data))
    assert driver.now == pytest.approx(2.0)
    driver.close()


def arrivals(seed: int, connection: int = 1, jitter: float = 0.5) -> list[float]:
    driver = memory_driver(Latency(delay=1.0, jitter=jitter, seed=seed))
    for _ in range(connection):
        flow = driver.connect()
    assert flow is not None
    times = []
    for count in range(1, 9):
        start = driver.now
        flow.send(b"x")
        driver.run_until(lambda count=count: len(flow.remote.data) == count)  # type: ignore[misc]
        times.append(driver.now - start)
    driver.close()
    return times


def test_jitter_stays_within_its_bounds_and_is_the_same_in_every_run() -> None:
    times = arrivals(seed=1)
    assert all(0.5 <= time <= 1.5 for time in times)
    assert len(set(times)) == len(times)
    assert arrivals(seed=1) == pytest.approx(times)


def test_jitter_differs_between_seeds_and_connections() -> None:
    assert arrivals(seed=2) != arrivals(seed=1)
    assert arrivals(seed=1, connection=2) != arrivals(seed=1)


def test_jitter_depends_on_the_connection_and_not_on_who_speaks_first() -> None:
    def times(order: list[int]) -> dict[int, float]:
        driver = memory_driver(Latency(delay=1.0, jitter=0.5))
        flows = [driver.connect() for _ in range(3)]
        for index in order:
            flow = flows[index]
            assert flow is not None
            flow.send(b"x")
        found: dict[int, float] = {}
        while len(found) < 3:
            driver.advance(0.001)
            for index, flow in enumerate(flows):
                if flow is not None and flow.remote.data:
                    found.setdefault(index, driver.now)
        driver.close()
        return found

    assert times([0, 1, 2]) == pytest.approx(times([2, 1, 0]))


@given(pieces=streams(), jitter=st.floats(0, 3), seed=st.integers(0, 5))
def test_jitter_never_changes_the_order(pieces: list[bytes], jitter: float, seed: int) -> None:
    outcome = relay(Latency(delay=1.0, jitter=jitter, seed=seed), pieces)
    assert outcome.data == b"".join(pieces)
    assert outcome.fin
    assert outcome.violations == []


def test_the_sender_is_stopped_when_enough_is_under_way() -> None:
    options = watched()
    options.limits.pended = 200
    driver = memory_driver(Latency(delay=1.0), options=options)
    flow = driver.connect()
    assert flow is not None
    for _ in range(10):
        flow.send(b"x" * 100)
    assert flow.pending_input(0) >= 500
    driver.advance(60)
    assert len(flow.remote.data) == 1000
    driver.close()


@both_ways
def test_draining_releases_everything_at_once_in_order(inbound: bool) -> None:
    latency = Latency(delay=1000)
    driver = memory_driver(latency)
    flow = driver.connect()
    assert flow is not None
    put = flow.receive if inbound else flow.send
    end = flow.local if inbound else flow.remote
    put(b"one ")
    put(b"two ")
    latency.drain()
    driver.settle()
    assert end.data == b"one two "
    put(b"three")
    (flow.receive_fin if inbound else flow.send_fin)()
    driver.settle()
    assert [end.data, end.fin] == [b"one two three", True]
    driver.close()
    assert driver.violations == []


def test_a_reset_while_bytes_are_under_way_leaves_nothing_behind() -> None:
    driver = memory_driver(Latency(delay=1.0))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"abc")
    flow.reset("remote")
    driver.advance(10)
    assert flow.ended
    driver.close()
    assert driver.violations == []


def test_two_of_them_add_up_and_what_is_below_sees_whole_text() -> None:
    chain: list[Callout] = [Latency(delay=1.0), StreamEdit(find="ab", replace="c"), Latency(delay=0.5)]
    outcome = relay(chain, [b"xa", b"bx"])
    assert outcome.data == b"xcx"
    assert outcome.seconds == pytest.approx(1.5)
    assert outcome.violations == []


def test_a_connection_that_was_already_running_is_delayed_from_now_on() -> None:
    driver = memory_driver()
    flow = driver.connect()
    assert flow is not None
    flow.send(b"one ")
    driver.add(Latency(delay=1.0))
    flow.send(b"two")
    driver.advance(0.9)
    assert flow.remote.data == b"one "
    driver.advance(0.1)
    assert flow.remote.data == b"one two"
    driver.close()
