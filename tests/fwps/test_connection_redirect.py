"""CONNECT_REDIRECT rule by rule: handles, writable data, what a redirect does (LAY-22..LAY-28, V-60, V-62)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from tests.fwps.support_connection import (
    ELSEWHERE,
    REDIRECT,
    SUCCESS,
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
from wfpstream.fwp import ActionType, ConditionFlags, NtStatus
from wfpstream.fwps import (
    CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS,
    RIGHT_ACTION_WRITE,
    Callout0,
    ConnectRequest,
    LayerId,
    MetadataField,
    RunTime,
)

# --- classify handles -----------------------------------------------------------------------------


def acquired(flags: int = 0, context: Any = None, profile: str = "win10") -> tuple[NtStatus, list[str]]:
    """The status of one acquire inside a classify."""
    statuses: list[NtStatus] = []

    def acquire(asked: Asked) -> None:
        given = asked.context if context is None else context
        status, handle = asked.door.fwps.acquire_classify_handle(given, flags)
        statuses.append(status)
        if handle:
            asked.door.fwps.release_classify_handle(handle)
        permit(asked)

    door = Door(("ale_auth_connect",), acquire)
    door.version = 1 if profile != "vista" else 0
    driver, _ = world(door, options=options(profile=profile))
    request(driver)
    return statuses[0], driver.violations


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ({}, SUCCESS),
        ({"flags": 1}, NtStatus.STATUS_INVALID_PARAMETER),
        ({"context": 0}, NtStatus.STATUS_FWP_NULL_POINTER),
        ({"context": 123456}, NtStatus.STATUS_INVALID_PARAMETER),
        ({"profile": "vista"}, NtStatus.STATUS_NOT_SUPPORTED),
    ],
)
def test_lay_22_acquire(arguments: dict[str, Any], status: NtStatus) -> None:
    assert acquired(**arguments) == (status, [])


def test_lay_22_acquire_outside_a_classify() -> None:
    door = Door(REDIRECT)
    driver, log = world(door)
    request(driver)
    status, _ = driver.fwps.acquire_classify_handle(log[0].context)
    assert status == NtStatus.STATUS_INVALID_PARAMETER
    with pytest.raises(TypeError):
        driver.fwps.acquire_classify_handle("context")  # type: ignore[arg-type]


@pytest.mark.parametrize(("releases", "violations"), [(0, ["V-60"]), (1, []), (2, ["V-60"])])
def test_v_60_released_exactly_once(releases: int, violations: list[str]) -> None:
    def acquire(asked: Asked) -> None:
        _, handle = asked.door.fwps.acquire_classify_handle(asked.context)
        for _ in range(releases):
            asked.door.fwps.release_classify_handle(handle)
        permit(asked)

    driver, _ = world(Door(REDIRECT, acquire))
    request(driver)
    assert driver.violations == violations
    driver.close()
    assert driver.violations == violations


@pytest.mark.parametrize("profile", ["win7", "win10"])
def test_v_62_version_0_cannot_redirect(profile: str) -> None:
    door = Door(REDIRECT)
    door.version = 0
    driver, log = world(door, options=options(profile=profile))
    assert driver.violations == ["V-62", "V-62"]  # once for each family, when the filter is added
    request(driver)
    request(driver)
    assert log[0].context is None
    assert len(driver.violations) == 2


def test_v_62_version_0_registered_after_its_filter() -> None:
    driver, _ = world()
    key = fwpm.SUBLAYER_UNIVERSAL  # any key will do for a callout
    session = driver.session
    record = fwpm.Callout(
        callout_key=key,
        display_data=fwpm.DisplayData("old"),
        applicable_layer=fwpm.LAYER_ALE_CONNECT_REDIRECT_V4,
    )
    assert session.callout_add(record)[0] == SUCCESS
    wanted = fwpm.Filter(
        display_data=fwpm.DisplayData("old"),
        layer_key=fwpm.LAYER_ALE_CONNECT_REDIRECT_V4,
        action_type=ActionType.CALLOUT_INSPECTION,
        callout_key=key,
    )
    assert session.filter_add(wanted)[0] == SUCCESS
    assert driver.violations == []

    def classify(*args: Any) -> None:
        args[-1].action_type = ActionType.CONTINUE

    driver.fwps.callout_register0(None, Callout0(key, 0, classify, lambda *args: SUCCESS))
    request(driver)
    request(driver)
    assert driver.violations == ["V-62"]


# --- writable data --------------------------------------------------------------------------------


def test_lay_24_acquiring_sets_the_answer() -> None:
    seen: list[Any] = []

    def look(asked: Asked) -> None:
        fwps = asked.door.fwps
        permit(asked)
        _, handle = fwps.acquire_classify_handle(asked.context)
        _, data = fwps.acquire_writable_layer_data_pointer(handle, asked.filter.filter_id, 0, asked.out)
        assert data is not None
        seen.append(
            (asked.out.action_type, asked.out.rights, data.modifier_filter_id == asked.filter.filter_id)
        )
        seen.append((data.remote_address_and_port, data.previous_version is asked.layer_data))
        fwps.apply_modified_layer_data(handle, data)
        fwps.release_classify_handle(handle)

    driver, _ = world(Door(REDIRECT, look))
    attempt = request(driver)
    assert seen == [(ActionType.BLOCK, 0, True), (UPSTREAM, True)]
    assert attempt.verdict == "block"  # it set no answer of its own afterwards
    assert driver.violations == []


def test_lay_24_statuses() -> None:
    statuses: list[NtStatus] = []

    def acquire(asked: Asked) -> None:
        fwps, filter_id = asked.door.fwps, asked.filter.filter_id
        _, handle = fwps.acquire_classify_handle(asked.context)
        for arguments in (
            (handle, filter_id, 1, asked.out),
            (handle, filter_id, 0, None),
            (handle, filter_id + 1, 0, asked.out),
            (handle + 1000, filter_id, 0, asked.out),
        ):
            status, data = fwps.acquire_writable_layer_data_pointer(*arguments)
            assert data is None
            statuses.append(status)
        fwps.release_classify_handle(handle)
        permit(asked)

    driver, _ = world(Door(REDIRECT, acquire))
    request(driver)
    invalid = NtStatus.STATUS_INVALID_PARAMETER
    assert statuses == [invalid, NtStatus.STATUS_FWP_NULL_POINTER, invalid, invalid]
    assert driver.violations == ["V-61"]


def test_lay_24_no_writable_data_at_other_layers() -> None:
    statuses: list[NtStatus] = []

    def acquire(asked: Asked) -> None:
        fwps = asked.door.fwps
        _, handle = fwps.acquire_classify_handle(asked.context)
        statuses.append(
            fwps.acquire_writable_layer_data_pointer(handle, asked.filter.filter_id, 0, asked.out)[0]
        )
        statuses.append(fwps.pend_classify(handle, asked.filter.filter_id, 0, asked.out))
        fwps.release_classify_handle(handle)
        permit(asked)

    driver, _ = world(Door(("ale_auth_connect",), acquire))
    assert request(driver).verdict == "permit"
    assert statuses == [NtStatus.STATUS_FWP_INCOMPATIBLE_LAYER, NtStatus.STATUS_FWP_CANNOT_PEND]


def spoil_local(data: ConnectRequest) -> None:
    data.local_address_and_port = ("10.9.9.9", 9)


def spoil_previous(data: ConnectRequest) -> None:
    data.previous_version = None


def spoil_modifier(data: ConnectRequest) -> None:
    data.modifier_filter_id = 0


@pytest.mark.parametrize("spoil", [spoil_local, spoil_previous, spoil_modifier])
def test_v_60_members_that_are_not_writable(spoil: Callable[[ConnectRequest], None]) -> None:
    redirect = Redirect(tweak=spoil)
    driver, log = world(Door(REDIRECT, redirect), Door(REDIRECT))
    redirect.handle = redirect_handle(driver)
    attempt = request(driver)
    version = log[1].layer_data
    assert attempt.upstream == ELSEWHERE
    assert version.local_address_and_port == ("10.0.0.1", 40000)
    assert version.previous_version.remote_address_and_port == UPSTREAM
    assert version.modifier_filter_id == log[0].filter.filter_id
    assert driver.violations == ["V-60"]


@pytest.mark.parametrize("how", ["never", "twice", "another", "after the apply", "unmodified"])
def test_lay_25_applied_once(how: str) -> None:
    redirect = Redirect()

    def apply(asked: Asked) -> None:
        fwps: RunTime = asked.door.fwps
        fwps.query_connection_redirect_state(asked.meta.redirect_records, 0)
        _, handle = fwps.acquire_classify_handle(asked.context)
        if how == "unmodified":
            redirect.target = UPSTREAM
        data = redirect.write(fwps, handle, asked.filter.filter_id, asked.out)
        if how == "another":
            fwps.apply_modified_layer_data(handle, ConnectRequest(UPSTREAM, ELSEWHERE))
        elif how != "never":
            fwps.apply_modified_layer_data(handle, data)
        if how == "twice":
            fwps.apply_modified_layer_data(handle, data)
        if how == "after the apply":
            data.remote_address_and_port = ("10.0.0.4", 1)
        permit(asked)
        fwps.release_classify_handle(handle)

    driver, _ = world(Door(REDIRECT, apply))
    attempt = request(driver)
    applied = how in ("twice", "after the apply")
    assert attempt.upstream == (ELSEWHERE if applied else UPSTREAM)
    assert driver.violations == (["V-60"] if how in ("never", "twice", "another") else [])


def test_lay_25_wrong_types() -> None:
    driver, _ = world()
    with pytest.raises(TypeError):
        driver.fwps.apply_modified_layer_data(1, "data")  # type: ignore[arg-type]
    data = ConnectRequest(UPSTREAM, UPSTREAM)
    data.remote_address_and_port = ("10.0.0.3", "80")  # type: ignore[assignment]
    with pytest.raises(TypeError):
        driver.fwps.apply_modified_layer_data(1, data)


def test_v_64_reauthorise_flag_inline() -> None:
    def apply(asked: Asked) -> None:
        fwps: RunTime = asked.door.fwps
        fwps.query_connection_redirect_state(asked.meta.redirect_records, 0)
        _, handle = fwps.acquire_classify_handle(asked.context)
        data = Redirect().write(fwps, handle, asked.filter.filter_id, asked.out)
        fwps.apply_modified_layer_data(handle, data, CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS)
        permit(asked)
        asked.out.rights |= RIGHT_ACTION_WRITE
        fwps.release_classify_handle(handle)

    driver, log = world(Door(REDIRECT, apply), Door(REDIRECT, Redirect(("10.0.0.4", 1))))
    attempt = request(driver)
    assert driver.violations == ["V-64"]
    assert len(log) == 2  # inline it means nothing
    assert attempt.upstream == ("10.0.0.4", 1)


def test_lay_26_no_redirect_without_the_write_right() -> None:
    def hard(asked: Asked) -> None:
        Redirect()(asked)
        asked.out.rights = 0

    driver, _ = world(Door(REDIRECT, hard), Door(REDIRECT, Redirect(("10.0.0.4", 1))))
    assert request(driver).upstream == ELSEWHERE
    assert driver.violations == ["V-60"]


# --- what a redirect does -------------------------------------------------------------------------


def test_lay_26_the_context_belongs_to_the_flow() -> None:
    class Context:
        """Something a weak reference can follow."""

    redirect = Redirect(context=Context())
    door = Door((*REDIRECT, "ale_auth_connect", "ale_flow_established"), redirect)
    driver, log = world(door)
    flow = driver.connect()
    assert flow is not None
    assert [asked.meta.redirect_context is redirect.context for asked in log] == [False, True, True]
    assert flow.flow.redirect_context is redirect.context
    followed = weakref.ref(redirect.context)
    redirect.context = None
    log.clear()
    flow.reset("remote")
    driver.close()
    driver.flows.clear()
    driver._by_id.clear()
    del flow
    gc.collect()
    assert followed() is None


def test_lay_26_a_block_of_the_layer_blocks() -> None:
    driver, _ = world(Door(REDIRECT, Redirect()), Door(REDIRECT, block))
    attempt = request(driver)
    assert attempt.verdict == "block"
    assert attempt.upstream == UPSTREAM


def test_lay_26_established_event_names_the_new_server() -> None:
    driver, _ = world(Door(REDIRECT, Redirect()))
    assert driver.connect() is not None
    (event,) = [event for event in driver.events if event["event"] == "flow_established"]
    assert event["server"] == list(ELSEWHERE)
    assert event["remote"] == list(UPSTREAM)


def test_lay_27_authorised_is_the_new_target() -> None:
    redirect = Redirect(("127.0.0.1", 8081), pid=77)
    driver, log = world(Door((*REDIRECT, "ale_auth_connect"), redirect))
    redirect.handle = redirect_handle(driver)
    request(driver, client=("127.0.0.1", 4000))
    connect = log[1]
    assert connect.value("IP_REMOTE_ADDRESS") == 0x7F000001
    assert connect.value("IP_REMOTE_PORT") == 8081
    assert connect.value("FLAGS") == (ConditionFlags.IS_CONNECTION_REDIRECTED | ConditionFlags.IS_LOOPBACK)
    bits = MetadataField.LOCAL_REDIRECT_TARGET_PID | MetadataField.ORIGINAL_DESTINATION
    assert connect.meta.current_metadata_values & bits == bits
    assert connect.meta.original_destination == UPSTREAM
    assert connect.meta.local_redirect_target_pid == 77
    assert connect.meta.upstream_address == ("127.0.0.1", 8081)
    assert driver.violations == []


def test_lay_10_a_redirect_may_change_the_family() -> None:
    driver, log = world(Door((*REDIRECT, "ale_auth_connect"), Redirect(("2001:db8::5", 80))))
    attempt = request(driver)
    assert attempt.upstream == ("2001:db8::5", 80)
    assert log[1].fixed.layer_id == LayerId.ALE_AUTH_CONNECT_V4
    assert log[1].value("IP_REMOTE_ADDRESS") == 0
    assert log[1].meta.upstream_address == ("2001:db8::5", 80)


def test_lay_27_an_unmodified_apply_is_no_redirect() -> None:
    driver, log = world(Door((*REDIRECT, "ale_auth_connect"), Redirect(UPSTREAM)))
    request(driver)
    assert log[1].value("FLAGS") == 0
    assert not log[1].meta.current_metadata_values & MetadataField.ORIGINAL_DESTINATION


@pytest.mark.parametrize(
    ("profile", "pid", "with_handle", "violations"),
    [
        ("win10", 0, False, ["V-62"]),
        ("win10", 9, False, ["V-62"]),
        ("win10", 0, True, ["V-62"]),
        ("win10", 9, True, []),
        ("win7", 9, False, []),
    ],
)
@pytest.mark.parametrize("target", ["127.0.0.1", "10.0.0.99", "::1"])
def test_v_62_redirect_to_the_local_host(
    profile: str, pid: int, with_handle: bool, violations: list[str], target: str
) -> None:
    redirect = Redirect((target, 8888), pid=pid)
    driver, _ = world(Door(REDIRECT, redirect), options=options(profile=profile))
    if with_handle:
        redirect.handle = redirect_handle(driver)
    attempt = request(driver, listener_address=("10.0.0.99", 8888))
    assert attempt.upstream == (target, 8888)  # LAY-28: accepted all the same
    assert driver.violations == violations
