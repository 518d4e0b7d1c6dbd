"""throttle: so many bytes per second, all of them, in order, the end behind them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.callouts.support import all_cuts, cut, memory_driver, relay, watched
from wfpstream.callouts import Throttle

both_ways = pytest.mark.parametrize("inbound", [False, True])
DATA = bytes(range(250)) * 4  # 1,000 bytes


@both_ways
def test_all_bytes_arrive_at_the_rate_for_every_cut(inbound: bool) -> None:
    for pieces in all_cuts(DATA, random=4):
        outcome = relay(Throttle(rate=100, burst=50), pieces, inbound=inbound)
        assert outcome.data == DATA
        assert outcome.fin
        assert outcome.seconds == pytest.approx(9.5, abs=0.2)  # 1,000 bytes less one burst at 100 a second
        assert outcome.violations == []


@both_ways
def test_never_more_than_the_rate_allows_has_arrived(inbound: bool) -> None:
    driver = memory_driver(Throttle(rate=100, burst=10))
    flow = driver.connect()
    assert flow is not None
    (flow.receive if inbound else flow.send)(DATA)
    end = flow.local if inbound else flow.remote
    for second in range(1, 9):
        driver.advance(1.0)
        assert 100 * second - 10 <= len(end.data) <= 100 * second + 10
    driver.close()


@both_ways
def test_a_pause_saves_up_one_burst_and_no_more(inbound: bool) -> None:
    driver = memory_driver(Throttle(rate=100, burst=30))
    flow = driver.connect()
    assert flow is not None
    put = flow.receive if inbound else flow.send
    end = flow.local if inbound else flow.remote
    put(b"x" * 30)
    assert len(end.data) == 30
    driver.advance(100)
    put(b"x" * 50)
    driver.settle()
    assert len(end.data) == 60
    driver.close()


def test_inbound_the_sender_is_stopped_by_the_window() -> None:
    driver = memory_driver(Throttle(rate=100, burst=10))
    flow = driver.connect()
    assert flow is not None
    for _ in range(5):
        flow.receive(b"x" * 100)
    assert flow.pending_input(1) == 400  # read once, then deferred
    driver.advance(100)
    assert len(flow.local.data) == 500
    driver.close()
    assert driver.violations == []


def test_outbound_the_sender_is_stopped_when_enough_is_pended() -> None:
    options = watched()
    options.limits.pended = 200
    driver = memory_driver(Throttle(rate=100, burst=10), options=options)
    flow = driver.connect()
    assert flow is not None
    for _ in range(10):
        flow.send(b"x" * 100)
    assert flow.pending_input(0) >= 500
    driver.advance(100)
    assert len(flow.remote.data) == 1000
    driver.close()
    assert driver.violations == []


def test_each_direction_has_its_own_rate() -> None:
    driver = memory_driver(Throttle(rate=100, burst=10, direction="to_client"))
    flow = driver.connect()
    assert flow is not None
    flow.send(DATA)
    flow.receive(DATA)
    driver.settle()
    assert flow.remote.data == DATA
    assert len(flow.local.data) == 10
    driver.close()


@given(
    rate=st.sampled_from([1, 7.5, 1000, 1e9]),
    burst=st.none() | st.integers(1, 100),
    data=st.binary(max_size=60),
    points=st.lists(st.integers(0, 60), max_size=5),
    inbound=st.booleans(),
)
def test_nothing_is_lost_or_reordered(
    rate: float, burst: int | None, data: bytes, points: list[int], inbound: bool
) -> None:
    outcome = relay(Throttle(rate=rate, burst=burst), cut(data, points) if data else [], inbound=inbound)
    assert outcome.data == data
    assert outcome.fin
    assert outcome.violations == []


@both_ways
def test_draining_releases_everything_at_once_in_order(inbound: bool) -> None:
    throttle = Throttle(rate=1, burst=1)
    driver = memory_driver(throttle)
    flow = driver.connect()
    assert flow is not None
    put = flow.receive if inbound else flow.send
    end = flow.local if inbound else flow.remote
    put(b"one ")
    put(b"two ")
    throttle.drain()
    driver.settle()
    assert end.data == b"one two "
    put(b"three")
    (flow.receive_fin if inbound else flow.send_fin)()
    driver.settle()
    assert [end.data, end.fin] == [b"one two three", True]
    driver.close()
    assert driver.violations == []


@both_ways
def test_a_reset_while_bytes_wait_leaves_nothing_behind(inbound: bool) -> None:
    driver = memory_driver(Throttle(rate=1, burst=1))
    flow = driver.connect()
    assert flow is not None
    (flow.receive if inbound else flow.send)(b"abc")
    flow.reset("remote")
    driver.advance(10)
    assert flow.ended
    driver.close()
    assert driver.violations == []


def test_an_urgent_byte_does_not_wait() -> None:
    driver = memory_driver(Throttle(rate=1, burst=1))
    flow = driver.connect()
    assert flow is not None
    flow.receive(b"a")
    flow.receive(b"!", urgent=True)
    driver.settle()
    assert flow.local.data == b"a!"
    driver.close()


@pytest.mark.parametrize("options", [{"rate": 0}, {"rate": 10, "burst": 0}])
def test_a_rate_of_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Throttle(**options)
