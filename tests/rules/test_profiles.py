"""OS profiles (OBJ-15): what does not exist on an older system behaves as it does there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.support import ALLOW, Answer, B, P, Script
from tests.scenarios.support_api import Version0Script, key
from wfpstream import fwpm
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, CalloutFlags, NtStatus
from wfpstream.fwps import Callout0, Callout1, Callout2
from wfpstream.testing import MemoryDriver

SUCCESS, NOT_SUPPORTED = NtStatus.STATUS_SUCCESS, NtStatus.STATUS_NOT_SUPPORTED
PROFILES = ["vista", "win7", "win8", "win10"]


def system(profile: str) -> MemoryDriver:
    options = EngineOptions(profile=profile)
    options.verify.level = "warn"
    return MemoryDriver(options)


def classify(*arguments: Any) -> None:
    arguments[-1].action_type = ActionType.PERMIT


def agree(*arguments: object) -> int:
    return int(SUCCESS)


def test_obj_15_win10_is_the_default() -> None:
    """OBJ-15: `engine.profile`."""
    assert EngineOptions().profile == "win10"


@pytest.mark.parametrize(
    ("profile", "statuses"),
    [
        ("vista", [SUCCESS, NOT_SUPPORTED, NOT_SUPPORTED]),
        ("win7", [SUCCESS, SUCCESS, NOT_SUPPORTED]),
        ("win8", [SUCCESS, SUCCESS, SUCCESS]),
        ("win10", [SUCCESS, SUCCESS, SUCCESS]),
    ],
)
def test_obj_15_versions_of_registration(profile: str, statuses: list[NtStatus]) -> None:
    """OBJ-15: FwpsCalloutRegister1 needs win7, FwpsCalloutRegister2 win8."""
    with system(profile) as driver:
        fwps = driver.fwps
        got = [
            fwps.callout_register0(None, Callout0(key("0"), 0, classify, agree)),
            fwps.callout_register1(None, Callout1(key("1"), 0, classify, agree)),
            fwps.callout_register2(None, Callout2(key("2"), 0, classify, agree)),
        ]
        assert [status for status, _ in got] == statuses
        for status, callout_id in got:
            if status == SUCCESS:
                assert fwps.callout_unregister_by_id(callout_id) == SUCCESS


@pytest.mark.parametrize("profile", PROFILES)
def test_obj_15_flow_abort_and_redirect_handles_need_win8(profile: str) -> None:
    """OBJ-15: earlier: STATUS_NOT_SUPPORTED, and nothing happens."""
    there = profile in ("win8", "win10")
    with system(profile) as driver:
        flow = driver.connect()
        assert flow is not None
        status, handle = driver.fwps.redirect_handle_create(fwpm.ZERO_KEY, 0)
        assert status == (SUCCESS if there else NOT_SUPPORTED)
        if there:
            driver.fwps.redirect_handle_destroy(handle)
        assert driver.fwps.flow_abort(flow.id) == (SUCCESS if there else NOT_SUPPORTED)
        driver.settle()
        assert flow.remote.reset == there


def script_for(profile: str, *answers: Answer, then: Answer | None = None) -> Script:
    return (Version0Script if profile == "vista" else Script)(*answers, then=then)


@pytest.mark.parametrize("profile", PROFILES)
def test_obj_15_allow_connection_needs_win7(profile: str) -> None:
    """OBJ-15: before, it is an invalid stream action (ACT-13): dropped by default."""
    with system(profile) as driver:
        driver.add(script_for(profile, ALLOW(), then=B(0)))
        flow = driver.connect()
        assert flow is not None
        flow.send(b"x")
        flow.send(b"y")
        if profile == "vista":
            assert (flow.remote.data, flow.remote.reset) == (bytearray(), True)
            assert driver.violations == ["ACT-13"]
        else:
            assert (flow.remote.data, flow.remote.reset) == (bytearray(b"xy"), False)
            assert driver.violations == []


@pytest.mark.parametrize("profile", PROFILES)
def test_obj_15_no_abort_indication_under_vista(profile: str) -> None:
    """OBJ-15: flowDeleteFn is the first notice there."""
    with system(profile) as driver:
        a = script_for(profile, P(0))
        driver.add(a)
        flow = driver.connect()
        assert flow is not None
        assert a.associate(1, flow.id) == SUCCESS
        flow.send(b"x")
        flow.reset("remote")
        abort = [] if profile == "vista" else ["A(R ABORT +N)"]
        assert a.transcript.log == ["A(S1 'x')", *abort, "flowDelete(A)"]


@pytest.mark.parametrize(
    ("profile", "flag", "told"),
    [
        ("win7", CalloutFlags.ALLOW_MID_STREAM_INSPECTION, False),
        ("vista", CalloutFlags.CONDITIONAL_ON_FLOW, False),
        ("vista", CalloutFlags.ALLOW_MID_STREAM_INSPECTION, True),
        ("win10", CalloutFlags.ALLOW_USO, False),
        ("win8", CalloutFlags.ALLOW_USO, True),
        ("win7", CalloutFlags.ALLOW_RSC, True),
    ],
)
def test_obj_15_a_flag_newer_than_the_profile_is_lint(profile: str, flag: CalloutFlags, told: bool) -> None:
    """OBJ-15: accepted, V-45."""
    with system(profile) as driver:
        fwps = driver.fwps
        structure, register = {
            "vista": (Callout0, fwps.callout_register0),
            "win7": (Callout1, fwps.callout_register1),
        }.get(profile, (Callout2, fwps.callout_register2))
        status, callout_id = register(None, structure(key("f"), int(flag), classify, agree))
        assert status == SUCCESS
        assert driver.violations == (["V-45"] if told else [])
        assert fwps.callout_unregister_by_id(callout_id) == SUCCESS
