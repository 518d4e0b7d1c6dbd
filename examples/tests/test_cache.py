"""Plain tests: the cache, and a redis that misbehaves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from station import Cache

LONG = "sunny " * 200
# For what has to succeed, on a machine that has other things to do as well.
PATIENCE = 30


@pytest.fixture
def proxy(wfp_proxy, redis_server):
    """A proxy in front of redis. It takes a port of its own and keeps it."""
    return wfp_proxy(redis_server, callouts=["monitor"])


@pytest.fixture
def cache(proxy) -> Iterator[Cache]:
    cache = Cache(proxy.url("redis://{}/0"), timeout=PATIENCE)
    yield cache
    cache.close()


@pytest.fixture
def hasty_cache(proxy) -> Iterator[Cache]:
    """One that gives up soon."""
    cache = Cache(proxy.url("redis://{}/0"), timeout=0.2)
    yield cache
    cache.close()


def test_reports_are_kept(proxy, cache):
    assert cache.put("oslo", "rainy")
    assert cache.get("oslo") == "rainy"
    assert cache.get("atlantis") is None
    cache.close()
    flow = proxy.wait_flow(state="closed", timeout=PATIENCE)
    assert flow.ended == "fin"
    assert flow.sent > 0
    assert flow.received > 0


def test_an_answer_may_come_byte_by_byte(proxy, cache):
    cache.put("cairo", LONG)
    with proxy.fault("fault,do=slice,size=1,after=0,direction=to_client"):
        assert cache.get("cairo") == LONG


def test_a_redis_that_stops_answering_is_given_up_and_recovers(proxy, cache, hasty_cache):
    cache.put("lima", "foggy")
    with proxy.stalled("to_client"):
        assert hasty_cache.get("lima") is None
    assert cache.get("lima") == "foggy"


def test_a_redis_that_goes_away_comes_back_at_the_same_port(proxy, cache):
    cache.put("quito", "cloudy")
    with proxy.down(mode="refuse", live="reset"):
        assert cache.get("quito") is None
        assert not cache.put("quito", "sunny")
    assert cache.get("quito") == "cloudy"
