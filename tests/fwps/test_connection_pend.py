"""Pended authorisations rule by rule (LAY-14, LAY-17..LAY-19, LAY-30, V-59, V-61, V-64)."""

from __future__ import annotations

import pytest

from tests.fwps.support_connection import (
    SUCCESS,
    Asked,
    Door,
    Pender,
    block,
    complete,
    events,
    go_on,
    permit,
    request,
    world,
)
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import (
    ClassifyOutFlags,
    LayerId,
    NetBufferList,
)

CANNOT_PEND = NtStatus.STATUS_FWP_CANNOT_PEND


# --- pending --------------------------------------------------------------------------------------


def test_lay_17_outside_a_classify() -> None:
    driver, _ = world()
    assert driver.fwps.pend_operation(1)[0] == NtStatus.STATUS_INVALID_DEVICE_STATE
    (event,) = events(driver, "refused")
    assert (event["call"], event["rule"]) == ("pend_operation", "LAY-17")


@pytest.mark.parametrize("layer", ["stream", "ale_flow_established", "ale_connect_redirect"])
def test_lay_17_at_other_layers(layer: str) -> None:
    statuses: list[NtStatus] = []

    def pend(asked: Asked) -> None:
        statuses.append(asked.door.fwps.pend_operation(1)[0])
        go_on(asked)

    driver, _ = world(Door((layer,), pend))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"x")
    assert statuses == [CANNOT_PEND]


def test_lay_17_null_and_foreign_handles() -> None:
    statuses: list[NtStatus] = []

    def pend(asked: Asked) -> None:
        statuses.append(asked.door.fwps.pend_operation(0)[0])
        statuses.append(asked.door.fwps.pend_operation(asked.meta.completion_handle + 1000)[0])
        with pytest.raises(TypeError):
            asked.door.fwps.pend_operation(None)  # type: ignore[arg-type]
        permit(asked)

    driver, _ = world(Door(("ale_auth_connect",), pend))
    assert request(driver).verdict == "permit"
    assert statuses == [NtStatus.STATUS_FWP_NULL_POINTER, NtStatus.STATUS_INVALID_PARAMETER]
    assert driver.violations == []


def test_lay_17_engine_stopped() -> None:
    pender = Pender()
    driver, _ = world(Door(("ale_auth_connect",), pender))
    driver.engine.stop()
    assert request(driver).verdict == "block"  # what the callout answered
    assert pender.statuses == [NtStatus.STATUS_FWP_TCPIP_NOT_READY]


def test_lay_17_twice_in_one_classify() -> None:
    pender = Pender()

    def twice(asked: Asked) -> None:
        pender(asked)
        pender(asked)

    driver, _ = world(Door(("ale_auth_connect",), twice))
    assert request(driver).verdict == "pended"
    assert pender.statuses == [SUCCESS, CANNOT_PEND]
    complete(driver, pender.contexts[0])
    assert driver.violations == []


@pytest.mark.parametrize(
    ("action", "flags", "violations"),
    [
        (ActionType.BLOCK, ClassifyOutFlags.ABSORB, []),
        (ActionType.BLOCK, 0, ["V-64"]),
        (ActionType.PERMIT, ClassifyOutFlags.ABSORB, ["V-64"]),
    ],
)
def test_v_64_the_answer_beside_a_pend(action: ActionType, flags: int, violations: list[str]) -> None:
    pender = Pender()

    def pend(asked: Asked) -> None:
        pender.pend(asked)
        asked.out.action_type = action
        asked.out.flags |= flags

    driver, _ = world(Door(("ale_auth_connect",), pend))
    attempt = request(driver)
    assert attempt.verdict == "pended"
    complete(driver, pender.contexts[0])
    assert attempt.verdict == "permit"
    assert driver.violations == violations


def test_lay_18_nobody_is_asked_while_it_is_pended() -> None:
    first, second = Pender(), Pender()
    door = ("ale_auth_recv_accept",)
    driver, log = world(
        Door(door, first, name="first"), Door(door, second, name="second"), Door(door, name="third")
    )
    attempt = request(driver, local="server")
    assert [asked.door.name for asked in log] == ["first"]
    complete(driver, first.contexts[0], first.list)
    assert [asked.door.name for asked in log] == ["first", "second"]
    assert second.statuses == [SUCCESS]
    complete(driver, second.contexts[0], second.list)
    assert [asked.door.name for asked in log] == ["first", "second", "third"]
    assert attempt.verdict == "permit"
    assert not any(asked.reauthorizing for asked in log)
    assert driver.violations == []


def test_lay_19_all_filters_are_asked_again_from_the_top() -> None:
    pender = Pender()
    layer = ("ale_auth_connect",)
    driver, log = world(
        Door(layer, name="heavy"), Door(layer, pender, block, name="K"), Door(layer, name="light")
    )
    attempt = request(driver)
    complete(driver, pender.contexts[0])
    assert [(asked.door.name, asked.reauthorizing) for asked in log] == [
        ("heavy", False),
        ("K", False),
        ("heavy", True),
        ("K", True),
        ("light", True),
    ]
    assert attempt.verdict == "block"


@pytest.mark.parametrize("of", ["itself", "clone", "none"])
def test_lay_19_the_request_goes_on_or_is_discarded(of: str) -> None:
    clones: list[NetBufferList | None] = []
    pender = Pender()

    def pend(asked: Asked) -> None:
        clones.append(asked.door.fwps.allocate_clone_net_buffer_list(asked.layer_data)[1])
        pender(asked)

    driver, log = world(Door(("ale_auth_recv_accept",), pend), Door(("ale_auth_recv_accept",)))
    attempt = request(driver, local="server")
    given = {"itself": pender.list, "clone": clones[0], "none": None}[of]
    complete(driver, pender.contexts[0], given)
    assert clones[0] is not None
    driver.fwps.free_clone_net_buffer_list(clones[0])
    assert attempt.verdict == ("block" if of == "none" else "permit")
    assert len(log) == (1 if of == "none" else 2)
    assert driver.violations == []


def test_lay_19_no_completion_inside_the_classify() -> None:
    pender = Pender()

    def pend_and_complete(asked: Asked) -> None:
        pender(asked)
        asked.door.fwps.complete_operation(pender.contexts[0])

    driver, _ = world(Door(("ale_auth_connect",), pend_and_complete))
    attempt = request(driver)
    driver.settle()
    assert attempt.verdict == "pended"
    assert driver.violations == ["V-61"]
    complete(driver, pender.contexts[0])
    assert attempt.verdict == "permit"


def test_v_61_a_context_works_once() -> None:
    pender = Pender()
    driver, log = world(Door(("ale_auth_connect",), pender))
    request(driver)
    complete(driver, pender.contexts[0])
    complete(driver, pender.contexts[0])
    complete(driver, 12345)
    assert driver.violations == ["V-61", "V-61"]
    assert len(log) == 2


def test_cmp_16_a_completion_from_another_callback_nests_nothing() -> None:
    pender = Pender()
    layer = ("ale_auth_connect",)
    depth: list[int] = []

    def completes(asked: Asked) -> None:
        asked.door.fwps.complete_operation(pender.contexts[0])
        depth.append(len(asked.door.log))
        permit(asked)

    driver, log = world(Door(layer, pender, completes, name="K"))
    first = request(driver)
    second = request(driver, client=("10.0.0.7", 1))
    assert depth == [2]  # the other one's second classify came later
    assert [asked.meta.flow_handle for asked in log] == [first.flow_id, second.flow_id, first.flow_id]
    assert (first.verdict, second.verdict) == ("permit", "permit")


def test_lay_14_time_limit() -> None:
    options = EngineOptions()
    options.verify.level = "warn"
    options.timeouts.pend_connect = 5
    pender = Pender()
    door = Door(("ale_auth_connect",), pender, name="K")
    driver, _ = world(door, options=options)
    attempt = request(driver)
    told: list[str] = []
    attempt.on_verdict = lambda: told.append(attempt.verdict)
    driver.advance(4.9)
    assert told == []
    driver.advance(0.2)
    assert told == ["block"]
    (event,) = events(driver, "flow_blocked")
    assert (event["layer"], event["callout"]) == ("ale_auth_connect_v4", "K")
    assert driver.violations == ["V-59"]
    complete(driver, pender.contexts[0])
    assert (told, driver.violations) == (["block"], ["V-59"])
    complete(driver, pender.contexts[0])
    assert driver.violations == ["V-59", "V-61"]
    assert driver.fwps.callout_unregister_by_id(door.callout_id(LayerId.ALE_AUTH_CONNECT_V4)) == SUCCESS


def test_lay_14_zero_is_no_limit() -> None:
    options = EngineOptions()
    options.timeouts.pend_connect = 0
    pender = Pender()
    driver, _ = world(Door(("ale_auth_connect",), pender), options=options)
    attempt = request(driver)
    driver.advance(10_000)
    assert attempt.verdict == "pended"


def test_lay_14_a_completion_in_time_stops_the_clock() -> None:
    pender = Pender()
    driver, _ = world(Door(("ale_auth_connect",), pender))
    attempt = request(driver)
    driver.advance(29)
    complete(driver, pender.contexts[0])
    driver.advance(100)
    assert attempt.verdict == "permit"
    assert driver.violations == []


def test_lay_17_the_clients_reset_ends_the_wait() -> None:
    pender = Pender()
    door = Door(("ale_auth_connect",), pender)
    driver, log = world(door)
    attempt = request(driver)
    told: list[str] = []
    attempt.on_verdict = lambda: told.append(attempt.verdict)
    attempt.gone()
    assert driver.fwps.callout_unregister_by_id(door.callout_id(LayerId.ALE_AUTH_CONNECT_V4)) == SUCCESS
    complete(driver, pender.contexts[0])
    driver.advance(100)
    assert (len(log), told, driver.violations) == (1, [], [])
    assert events(driver, "flow_blocked") == []


def test_lay_17_a_reset_between_completion_and_turn() -> None:
    pender = Pender()
    driver, log = world(Door(("ale_auth_connect",), pender))
    attempt = request(driver)
    driver.fwps.complete_operation(pender.contexts[0])
    attempt.gone()
    driver.settle()
    assert len(log) == 1
    assert attempt.verdict == "block"


def test_lay_30_unregister_with_a_pended_connection() -> None:
    pender = Pender()
    door = Door(("ale_auth_connect",), pender)
    driver, _ = world(door)
    request(driver)
    callout_id = door.callout_id(LayerId.ALE_AUTH_CONNECT_V4)
    assert driver.fwps.callout_unregister_by_id(callout_id) == NtStatus.STATUS_DEVICE_BUSY
    assert driver.violations == ["V-59"]
    complete(driver, pender.contexts[0])
    assert driver.fwps.callout_unregister_by_id(callout_id) == SUCCESS


def test_v_59_engine_stop() -> None:
    pender = Pender()
    driver, _ = world(Door(("ale_auth_connect",), pender))
    attempt = request(driver)
    driver.close()
    assert attempt.verdict == "block"
    assert driver.violations == ["V-59"]


def test_a_memory_connection_waits_for_its_verdict() -> None:
    pender = Pender()

    def pend(asked: Asked) -> None:
        pender(asked)
        asked.door.after(0.5, asked.door.fwps.complete_operation, pender.contexts[0])

    driver, _ = world(Door(("ale_auth_connect",), pend))
    flow = driver.connect()
    assert flow is not None
    assert driver.now == 0.5
