"""Redirect handles and records, also across sockets (LAY-28, LAY-29, V-39, V-63)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fwps.support_connection import (
    ELSEWHERE,
    REDIRECT,
    UPSTREAM,
    Asked,
    Door,
    Redirect,
    block,
    options,
    permit,
    redirect_handle,
    request,
    world,
)
from wfpstream import fwpm
from wfpstream.engine import Attempt, Endpoints
from wfpstream.fwp import ConditionFlags, NtStatus
from wfpstream.fwps import (
    ConnectionRedirectState,
)
from wfpstream.testing import MemoryDriver

STATES = ConnectionRedirectState


# --- redirect handles and records -----------------------------------------------------------------


def test_lay_28_create() -> None:
    driver, _ = world()
    fwps = driver.fwps
    assert fwps.redirect_handle_create(fwpm.ZERO_KEY, 1) == (NtStatus.STATUS_INVALID_PARAMETER, 0)
    assert fwps.redirect_handle_create(None) == (NtStatus.STATUS_FWP_NULL_POINTER, 0)
    with pytest.raises(TypeError):
        fwps.redirect_handle_create("guid")  # type: ignore[arg-type]
    old, _ = world(options=options(profile="win7"))
    assert old.fwps.redirect_handle_create(fwpm.ZERO_KEY) == (NtStatus.STATUS_NOT_SUPPORTED, 0)


def test_irq_3_redirect_handles_are_passive_only() -> None:
    statuses: list[Any] = []

    def create(asked: Asked) -> None:
        statuses.append(asked.door.fwps.redirect_handle_create(fwpm.ZERO_KEY))
        asked.door.fwps.redirect_handle_destroy(handle)
        permit(asked)

    driver, _ = world(Door(REDIRECT, create))
    handle = redirect_handle(driver)
    request(driver)
    assert statuses == [(NtStatus.STATUS_INVALID_DEVICE_STATE, 0)]
    assert driver.violations == ["V-32", "V-32"]


def test_v_39_a_redirect_handle_left_open() -> None:
    driver, _ = world()
    kept, given_back = redirect_handle(driver), redirect_handle(driver)
    driver.fwps.redirect_handle_destroy(given_back)
    driver.engine.stop()
    assert driver.violations == ["V-39"]
    assert kept != given_back


def test_lay_29_states_within_one_connection() -> None:
    mine, theirs = Redirect(context="mine"), Redirect(("10.0.0.4", 1), context="theirs")
    seen: list[Any] = []

    def look(asked: Asked) -> None:
        query = asked.door.fwps.query_connection_redirect_state
        records = asked.meta.redirect_records
        seen.extend(query(records, handle) for handle in (mine.handle, theirs.handle, 1))
        permit(asked)

    driver, _ = world(
        Door(REDIRECT, look, mine), Door(REDIRECT, mine), Door(REDIRECT, theirs), Door(REDIRECT, look)
    )
    mine.handle, theirs.handle = redirect_handle(driver), redirect_handle(driver)
    request(driver)
    assert seen[:3] == [(STATES.NOT_REDIRECTED, None)] * 3
    assert seen[3:] == [
        (STATES.PREVIOUSLY_REDIRECTED_BY_SELF, "mine"),
        (STATES.REDIRECTED_BY_SELF, "theirs"),
        (STATES.REDIRECTED_BY_OTHER, None),
    ]
    assert mine.states == [(STATES.NOT_REDIRECTED, None)]
    assert theirs.states == [(STATES.REDIRECTED_BY_OTHER, None)]


def test_lay_29_records_last_as_long_as_their_layer() -> None:
    redirect = Redirect()
    driver, log = world(Door(REDIRECT, redirect))
    redirect.handle = redirect_handle(driver)
    request(driver)
    query = driver.fwps.query_connection_redirect_state
    assert query(log[0].meta.redirect_records, redirect.handle) == (STATES.NOT_REDIRECTED, None)
    assert query(0, redirect.handle) == (STATES.NOT_REDIRECTED, None)


LISTENER = ("10.0.0.99", 8888)


def leg(driver: MemoryDriver, port: int) -> Attempt:
    """A connection to our listener whose client is the upstream leg that `port` belongs to."""
    return request(driver, client=("10.0.0.99", port), server=UPSTREAM, listener_address=LISTENER)


def test_lay_29_records_across_sockets() -> None:
    redirect = Redirect(LISTENER, context="ours", pid=1)
    driver, log = world(Door(REDIRECT, redirect))
    redirect.handle = redirect_handle(driver)
    first = request(driver, listener_address=LISTENER)
    first.connected_from(("::ffff:10.0.0.99", 50000))
    redirect_again = Redirect(handle=redirect.handle)
    log[0].door.answers = [redirect_again]
    stranger, second = leg(driver, 50001), leg(driver, 50000)
    assert redirect_again.states == [(STATES.NOT_REDIRECTED, None)]
    assert stranger.upstream == ELSEWHERE
    assert log[1].value("FLAGS") == 0
    assert log[2].value("FLAGS") == ConditionFlags.IS_PROXY_CONNECTION
    assert second.upstream == UPSTREAM
    assert driver.violations == []


@pytest.mark.parametrize("end", ["gone", "failed", "flow", "refused"])
def test_lay_29_records_end_with_the_leg(end: str) -> None:
    redirect, look = Redirect(LISTENER, pid=1), Redirect()
    door = Door(REDIRECT, redirect, look)
    established = Door(("ale_flow_established",), block if end == "refused" else permit)
    driver, _ = world(door, established)
    redirect.handle = look.handle = redirect_handle(driver)
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=UPSTREAM, listener_address=LISTENER)
    first = driver.engine.connection_requested(endpoints)
    first.connected_from(("10.0.0.99", 50000))
    if end == "gone":
        first.gone()
    elif end == "failed":
        first.failed("refused")
    else:
        flow = driver.establish(first, endpoints)
        if end == "flow":
            assert flow is not None
            flow.reset("local")
    leg(driver, 50000)
    assert look.states == [(STATES.NOT_REDIRECTED, None)]


def go_round(driver: MemoryDriver, most: int) -> list[str]:
    """Connections that come back to our listener, each from the last one's upstream leg; their verdicts."""
    verdicts = []
    port = 50000
    for _ in range(most):
        attempt = leg(driver, port)
        verdicts.append(attempt.verdict)
        port += 1
        if attempt.verdict == "permit":
            attempt.connected_from(("10.0.0.99", port))
    return verdicts


@pytest.mark.parametrize("ask", [False, True])
def test_sc_150_a_loop_is_broken_at_the_eighth_redirect(ask: bool) -> None:
    redirect = Redirect(LISTENER, pid=1, ask=ask)
    door = Door(REDIRECT, name="K")
    door.answers = [redirect] * 20
    driver, log = world(door)
    redirect.handle = redirect_handle(driver)
    assert go_round(driver, 8) == ["permit"] * 7 + ["block"]
    (event,) = [event for event in driver.events if event["event"] == "flow_blocked"]
    assert (event["layer"], event["callout"]) == ("ale_connect_redirect_v4", "K")
    assert event["filter"] == log[0].filter.filter_id
    assert driver.violations == ["V-63"] * (7 if ask else 8)
    assert [state for state, _ in redirect.states] == (
        [STATES.NOT_REDIRECTED] + [STATES.REDIRECTED_BY_SELF] * 7 if ask else []
    )


def test_v_63_a_callout_that_looks_and_refrains_is_fine() -> None:
    redirect = Redirect(LISTENER, pid=1)
    states: list[int] = []

    def careful(asked: Asked) -> None:
        query = asked.door.fwps.query_connection_redirect_state
        state, _ = query(asked.meta.redirect_records, redirect.handle)
        states.append(state)
        if state == STATES.NOT_REDIRECTED:
            redirect(asked)
        else:
            permit(asked)

    door = Door(REDIRECT)
    door.answers = [careful] * 3
    driver, _ = world(door)
    redirect.handle = redirect_handle(driver)
    assert go_round(driver, 2) == ["permit", "permit"]
    assert states == [STATES.NOT_REDIRECTED, STATES.REDIRECTED_BY_SELF]
    assert driver.violations == []
