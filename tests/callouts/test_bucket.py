"""The token bucket: what may go, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.callouts._bucket import TokenBucket


def test_a_fresh_bucket_grants_one_burst() -> None:
    bucket = TokenBucket(rate=100, burst=10, now=5.0)
    assert bucket.take(5.0, 25) == 10
    assert bucket.take(5.0, 25) == 0


def test_a_pause_never_saves_up_more_than_a_burst() -> None:
    bucket = TokenBucket(rate=100, burst=10, now=0.0)
    assert bucket.take(1000.0, 25) == 10


def test_the_wait_for_more_than_a_burst_is_the_wait_for_a_burst() -> None:
    bucket = TokenBucket(rate=100, burst=10, now=0.0)
    bucket.take(0.0, 10)
    assert bucket.wait(0.0, 25) == pytest.approx(0.1)
    assert bucket.wait(0.0, 3) == pytest.approx(0.03)


@given(
    rate=st.floats(0.5, 1e9),
    burst=st.integers(1, 1_000_000),
    start=st.floats(0, 1e8),
    wanted=st.lists(st.integers(1, 100_000), min_size=1, max_size=20),
)
def test_two_waits_at_most_bring_a_burst_however_long_the_clock_has_run(
    rate: float, burst: int, start: float, wanted: list[int]
) -> None:
    bucket = TokenBucket(rate, burst, start)
    now = start
    for count in wanted:
        granted = 0
        for _ in range(2):
            now += bucket.wait(now, count - granted)
            granted += bucket.take(now, count - granted)
        assert granted >= min(count, burst)


@given(
    rate=st.floats(1, 1e6),
    burst=st.integers(1, 10_000),
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(0, 50_000)), max_size=30),
)
def test_never_more_than_the_rate_and_one_burst(
    rate: float, burst: int, steps: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(rate, burst, 0.0)
    now, granted = 0.0, 0
    for pause, wanted in steps:
        now += pause
        granted += bucket.take(now, wanted)
    assert granted <= burst + rate * now + 1
