"""The connection layers rule by rule: order, arbitration, what is shown, the end (LAY-10..LAY-21, FLD-11..13)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

import pytest

from tests.fwps.support_connection import (
    SUCCESS,
    Asked,
    Door,
    Pender,
    block,
    boom,
    complete,
    events,
    go_on,
    permit,
    request,
    world,
)
from wfpstream import fwpm
from wfpstream.engine import Attempt, EngineOptions
from wfpstream.fwp import ActionType, CalloutFlags, ConditionFlags, DataType, MatchType, NtStatus, uint64
from wfpstream.fwps import (
    RIGHT_ACTION_WRITE,
    FieldsAleAuthConnect,
    FieldsAleAuthRecvAccept,
    FieldsAleConnectRedirect,
    LayerId,
    MetadataField,
)
from wfpstream.testing import MemoryDriver

CANNOT_PEND = NtStatus.STATUS_FWP_CANNOT_PEND


def plain(
    driver: MemoryDriver,
    action: ActionType,
    weight: int,
    layer: Any = None,
    flags: int = 0,
    callout_key: UUID | None = None,
) -> tuple[UUID, int]:
    """A filter in a sublayer of its own, of no callout or of an object nobody registered: (sublayer key, filter id)."""
    key = uuid5(NAMESPACE_OID, f"weight {weight}")
    sub_layer = fwpm.SubLayer(sub_layer_key=key, display_data=fwpm.DisplayData("plain"), weight=weight)
    assert driver.session.sub_layer_add(sub_layer).ok
    wanted = fwpm.Filter(
        display_data=fwpm.DisplayData("plain"),
        layer_key=layer or fwpm.LAYER_ALE_AUTH_CONNECT_V4,
        sub_layer_key=key,
        action_type=action,
        flags=flags,
        callout_key=callout_key,
    )
    status, filter_id = driver.session.filter_add(wanted)
    assert status == SUCCESS
    return key, filter_id


# --- order and arbitration ------------------------------------------------------------------------


def test_lay_11_nothing_to_ask_permits() -> None:
    driver, log = world()
    attempt = request(driver)
    assert attempt.verdict == "permit"
    assert attempt.upstream == ("10.0.0.2", 80)
    assert log == []


@pytest.mark.parametrize(
    ("local", "layers"),
    [
        ("client", ["ALE_CONNECT_REDIRECT_V4", "ALE_AUTH_CONNECT_V4"]),
        ("server", ["ALE_AUTH_RECV_ACCEPT_V4"]),
    ],
)
def test_lay_12_layers_in_their_order(local: str, layers: list[str]) -> None:
    names = ("ale_auth_connect", "ale_connect_redirect", "ale_auth_recv_accept")
    driver, log = world(Door(names, name="K"))
    assert request(driver, local=local).verdict == "permit"
    assert [asked.layer for asked in log] == layers


def test_lay_10_the_clients_family_counts() -> None:
    driver, log = world(Door(("ale_auth_connect",)))
    request(driver, client=("2001:db8::1", 40000), server=("10.0.0.2", 80))
    (asked,) = log
    assert asked.fixed.layer_id == LayerId.ALE_AUTH_CONNECT_V6
    assert asked.value("IP_REMOTE_ADDRESS") == IPv6Address("::ffff:10.0.0.2").packed


@pytest.mark.parametrize(
    ("answer", "verdict", "rights"),
    [(permit, "permit", 0), (block, "block", 0), (go_on, "permit", 0)],
)
def test_arb_14_only_a_callout_may_veto_a_hard_permit(answer: Any, verdict: str, rights: int) -> None:
    driver, log = world(Door(("ale_auth_connect",), answer))
    plain(driver, ActionType.PERMIT, 0xFFFF, flags=fwpm.FilterFlags.CLEAR_ACTION_RIGHT)
    plain(driver, ActionType.BLOCK, 1)  # a plain filter cannot
    assert request(driver).verdict == verdict
    assert log[0].entry_rights == rights


def test_lay_13_rights_are_there_after_soft_decisions() -> None:
    driver, log = world(Door(("ale_auth_connect",), permit), Door(("ale_auth_connect",), block))
    third = Door(("ale_auth_connect",), permit)
    third.log = log
    driver.add(third)
    assert request(driver).verdict == "block"
    assert [asked.entry_rights for asked in log] == [RIGHT_ACTION_WRITE] * 3
    assert events(driver, "flow_blocked")[0]["callout"] == log[1].door.name


def test_lay_13_a_callout_decides_hard_by_clearing_the_right() -> None:
    def hard_permit(asked: Asked) -> None:
        asked.out.action_type = ActionType.PERMIT
        asked.out.rights = 0

    driver, log = world(Door(("ale_auth_connect",), hard_permit), Door(("ale_auth_connect",), permit))
    plain(driver, ActionType.BLOCK, 1)
    assert request(driver).verdict == "permit"
    assert [asked.entry_rights for asked in log] == [1, 0]


@pytest.mark.parametrize(
    ("action", "answer", "verdict", "violations"),
    [
        ("callout_terminating", go_on, "block", ["V-6"]),
        ("callout_terminating", lambda asked: None, "block", ["V-6"]),
        ("callout_unknown", go_on, "permit", []),
        ("callout_inspection", block, "permit", ["V-6"]),
        ("callout_inspection", permit, "permit", []),
    ],
)
def test_lay_13_actions_mean_what_they_do_elsewhere(
    action: str, answer: Any, verdict: str, violations: list[str]
) -> None:
    door = Door(("ale_auth_connect",), answer)
    door.filter_action = action
    driver, _ = world(door)
    assert request(driver).verdict == verdict
    assert driver.violations == violations


@pytest.mark.parametrize(
    ("policy", "verdict"), [("drop", "block"), ("permit", "permit"), ("bypass", "permit")]
)
@pytest.mark.parametrize("action", ["callout_unknown", "callout_terminating"])
def test_act_14_an_exception_meets_the_policy(policy: str, verdict: str, action: str) -> None:
    options = EngineOptions()
    options.verify.level = "warn"
    options.policy.on_callout_error = policy
    door = Door(("ale_auth_connect",), boom)
    door.filter_action = action
    driver, _ = world(door, options=options)
    assert request(driver).verdict == verdict
    assert driver.violations == ["V-40"]


def test_act_14_an_exception_voids_the_pend() -> None:
    pender = Pender()

    def pend_and_raise(asked: Asked) -> None:
        pender.pend(asked)
        boom(asked)

    door = Door(("ale_auth_connect",), pend_and_raise)
    driver, _ = world(door)
    assert request(driver).verdict == "block"
    complete(driver, pender.contexts[0])
    driver.advance(100)
    assert driver.violations == ["V-40"]
    assert driver.fwps.callout_unregister_by_id(door.callout_id(LayerId.ALE_AUTH_CONNECT_V4)) == SUCCESS


def test_reg_5_an_unregistered_callout_blocks() -> None:
    door = Door(("ale_auth_connect",))
    driver, log = world(door)
    assert driver.fwps.callout_unregister_by_id(door.callout_id(LayerId.ALE_AUTH_CONNECT_V4)) == SUCCESS
    assert request(driver).verdict == "block"
    assert log == []


NO_FLAG, IF_UNREGISTERED, CLEAR = (
    0,
    int(fwpm.FilterFlags.PERMIT_IF_CALLOUT_UNREGISTERED),
    int(fwpm.FilterFlags.CLEAR_ACTION_RIGHT),
)


@pytest.mark.parametrize(
    ("action", "flags", "verdict"),
    [
        (ActionType.CALLOUT_TERMINATING, NO_FLAG, "block"),
        (ActionType.CALLOUT_TERMINATING, CLEAR, "block"),
        (ActionType.CALLOUT_TERMINATING, IF_UNREGISTERED, "permit"),
        (ActionType.CALLOUT_UNKNOWN, IF_UNREGISTERED | CLEAR, "permit"),
        (ActionType.CALLOUT_INSPECTION, NO_FLAG, "permit"),
    ],
)
def test_reg_6_what_stands_in_for_an_unregistered_callout(
    action: ActionType, flags: int, verdict: str
) -> None:
    """REG-5, REG-6 before the stream: one flag permits, no other does; an inspection was never to decide."""
    driver, _ = world()
    key = uuid5(NAMESPACE_OID, "nobody's")
    nobodys = fwpm.Callout(
        callout_key=key,
        display_data=fwpm.DisplayData("nobody's"),
        applicable_layer=fwpm.LAYER_ALE_AUTH_CONNECT_V4,
    )
    assert driver.session.callout_add(nobodys)[0] == SUCCESS
    plain(driver, action, 5, flags=flags, callout_key=key)
    assert request(driver).verdict == verdict


@pytest.mark.parametrize(("flags", "verdict"), [(NO_FLAG, "block"), (CLEAR, "permit")])
def test_arb_14_one_flag_makes_a_plain_permit_hard(flags: int, verdict: str) -> None:
    """ARB-14: against a plain block in a lighter sublayer."""
    driver, _ = world()
    plain(driver, ActionType.PERMIT, 9, flags=flags)
    plain(driver, ActionType.BLOCK, 5)
    assert request(driver).verdict == verdict


@pytest.mark.parametrize(
    ("heavier", "lighter", "verdict"),
    [(ActionType.PERMIT, ActionType.BLOCK, "permit"), (ActionType.BLOCK, ActionType.PERMIT, "block")],
)
def test_arb_2_the_first_decision_in_a_sublayer_stands(
    heavier: ActionType, lighter: ActionType, verdict: str
) -> None:
    """ARB-2 before the stream: who is lighter in the same sublayer is not asked any more."""
    driver, _ = world()
    for weight, action in ((uint64(9), heavier), (uint64(5), lighter)):
        wanted = fwpm.Filter(
            display_data=fwpm.DisplayData("plain"),
            layer_key=fwpm.LAYER_ALE_AUTH_CONNECT_V4,
            sub_layer_key=fwpm.SUBLAYER_UNIVERSAL,
            action_type=action,
            weight=weight,
        )
        assert driver.session.filter_add(wanted)[0] == SUCCESS
    assert request(driver).verdict == verdict


# --- what the layers are shown --------------------------------------------------------------------

LOCAL, REMOTE = int(IPv4Address("10.0.0.1")), int(IPv4Address("10.0.0.2"))


def shown(fields: Any, asked: Asked) -> dict[str, Any]:
    """The fixed values that are not EMPTY, by field name; every other index must be EMPTY."""
    values = asked.fixed.incoming_value
    assert asked.fixed.value_count == len(values)
    named = {int(field): field.name for field in fields}
    return {named[i]: v.value for i, v in enumerate(values) if v.type is not DataType.EMPTY}


def test_fld_11_auth_connect() -> None:
    driver, (asked, *_) = asked_at("ale_auth_connect", "client")
    assert shown(FieldsAleAuthConnect, asked) == {
        "IP_LOCAL_ADDRESS": LOCAL,
        "IP_LOCAL_ADDRESS_TYPE": 1,
        "IP_LOCAL_PORT": 40000,
        "IP_PROTOCOL": 6,
        "IP_REMOTE_ADDRESS": REMOTE,
        "IP_REMOTE_PORT": 80,
        "IP_DESTINATION_ADDRESS_TYPE": 1,
        "FLAGS": 0,
        "COMPARTMENT_ID": 1,
    }
    assert driver.violations == []


def test_fld_12_auth_recv_accept() -> None:
    _, (asked, *_) = asked_at("ale_auth_recv_accept", "server")
    assert shown(FieldsAleAuthRecvAccept, asked) == {
        "IP_LOCAL_ADDRESS": REMOTE,
        "IP_LOCAL_ADDRESS_TYPE": 1,
        "IP_LOCAL_PORT": 80,
        "IP_PROTOCOL": 6,
        "IP_REMOTE_ADDRESS": LOCAL,
        "IP_REMOTE_PORT": 40000,
        "FLAGS": 0,
        "COMPARTMENT_ID": 1,
    }


def test_fld_13_connect_redirect() -> None:
    _, (asked, *_) = asked_at("ale_connect_redirect", "client")
    assert shown(FieldsAleConnectRedirect, asked) == {
        "IP_LOCAL_ADDRESS": LOCAL,
        "IP_LOCAL_ADDRESS_TYPE": 1,
        "IP_LOCAL_PORT": 40000,
        "IP_PROTOCOL": 6,
        "IP_REMOTE_ADDRESS": REMOTE,
        "IP_DESTINATION_ADDRESS_TYPE": 1,
        "IP_REMOTE_PORT": 80,
        "FLAGS": 0,
        "COMPARTMENT_ID": 1,
    }


def asked_at(layer: str, local: str, profile: str = "win10") -> tuple[MemoryDriver, list[Asked]]:
    """One request, and how the callout at that layer was asked."""
    options = EngineOptions(profile=profile)
    options.verify.level = "warn"
    door = Door((layer,))
    door.version = 0 if profile == "vista" else 1
    driver, log = world(door, options=options)
    request(driver, local=local)
    return driver, log


@pytest.mark.parametrize(
    ("layer", "local", "fields"),
    [
        ("ale_auth_connect", "client", FieldsAleAuthConnect),
        ("ale_auth_recv_accept", "server", FieldsAleAuthRecvAccept),
        ("ale_connect_redirect", "client", FieldsAleConnectRedirect),
    ],
)
def test_obj_15_the_compartment_needs_win10(layer: str, local: str, fields: Any) -> None:
    _, (new, *_) = asked_at(layer, local)
    _, (old, *_) = asked_at(layer, local, "win8")
    assert new.fixed.value_count == fields.COMPARTMENT_ID + 1
    assert old.fixed.value_count == fields.COMPARTMENT_ID


def test_obj_15_no_connect_redirect_under_vista() -> None:
    _, log = asked_at("ale_connect_redirect", "client", "vista")
    assert log == []


def test_fld_12_an_interface_condition_never_matches() -> None:
    driver, log = world(Door(("ale_auth_recv_accept",)))
    sub_layer, _ = plain(driver, ActionType.PERMIT, 1, fwpm.LAYER_ALE_AUTH_RECV_ACCEPT_V4)
    condition = fwpm.FilterCondition(fwpm.CONDITION_IP_LOCAL_INTERFACE, MatchType.EQUAL, uint64(1))
    blocking = fwpm.Filter(
        display_data=fwpm.DisplayData("interface"),
        layer_key=fwpm.LAYER_ALE_AUTH_RECV_ACCEPT_V4,
        sub_layer_key=sub_layer,
        action_type=ActionType.BLOCK,
        conditions=(condition,),
    )
    assert driver.session.filter_add(blocking)[0] == SUCCESS
    assert request(driver, local="server").verdict == "permit"
    assert len(log) == 1


def test_lay_15_metadata() -> None:
    names = ("ale_connect_redirect", "ale_auth_connect", "ale_auth_recv_accept")
    driver, log = world(Door(names))
    attempt = request(driver, listener="web")
    request(driver, local="server")
    redirect, connect, accept = (asked.meta for asked in log)
    bits = MetadataField
    assert redirect.current_metadata_values == (
        bits.TRANSPORT_ENDPOINT_HANDLE | bits.REDIRECT_RECORD_HANDLE | bits.LOCAL_REDIRECT_TARGET_PID
    )
    expected = (
        bits.FLOW_HANDLE | bits.COMPLETION_HANDLE | bits.COMPARTMENT_ID | bits.TRANSPORT_ENDPOINT_HANDLE
    )
    assert connect.current_metadata_values == expected
    assert accept.current_metadata_values == expected
    assert connect.flow_handle == attempt.flow_id
    assert connect.completion_handle
    assert connect.transport_endpoint_handle == redirect.transport_endpoint_handle != 0
    assert connect.compartment_id == 1
    assert (redirect.listener, connect.upstream_address) == ("web", ("10.0.0.2", 80))


def test_lay_15_a_context_has_to_wait_for_the_flow() -> None:
    statuses: list[NtStatus] = []

    def associate(asked: Asked) -> None:
        callout_id = asked.door.callout_id(LayerId.STREAM_V4)
        statuses.append(
            asked.door.fwps.flow_associate_context(asked.meta.flow_handle, LayerId.STREAM_V4, callout_id, 7)
        )
        permit(asked)

    driver, _ = world(Door(("ale_auth_connect", "stream"), associate))
    request(driver)
    assert statuses == [NtStatus.STATUS_FWP_NOT_FOUND]


def test_obj_11_the_flow_keeps_the_handle() -> None:
    driver, log = world(Door(("ale_auth_connect", "ale_flow_established")))
    flow = driver.connect()
    assert flow is not None
    assert [asked.meta.flow_handle for asked in log] == [flow.id, flow.id]


def test_lay_16_layer_data() -> None:
    names = ("ale_connect_redirect", "ale_auth_connect", "ale_auth_recv_accept")
    driver, log = world(Door(names))
    request(driver)
    request(driver, local="server")
    redirect, connect, accept = (asked.layer_data for asked in log)
    assert redirect.remote_address_and_port == ("10.0.0.2", 80)
    assert redirect.local_address_and_port == ("10.0.0.1", 40000)
    assert redirect.previous_version is None
    with pytest.raises(AttributeError):
        redirect.remote_address_and_port = ("10.0.0.3", 80)
    assert connect is None
    assert accept.data_length == 0
    assert driver.violations == []


@pytest.mark.parametrize("late", [False, True])
def test_lay_16_the_request_can_be_cloned_during_the_classify(late: bool) -> None:
    clones: list[Any] = []

    def clone(asked: Asked) -> None:
        clones.append(asked.door.fwps.allocate_clone_net_buffer_list(asked.layer_data))
        permit(asked)

    driver, log = world(Door(("ale_auth_recv_accept",), permit if late else clone))
    request(driver, local="server")
    if late:
        clones.append(driver.fwps.allocate_clone_net_buffer_list(log[0].layer_data))
    ((status, nbl),) = clones
    if late:
        assert (status, driver.violations) == (NtStatus.STATUS_INVALID_PARAMETER, ["V-27"])
    else:
        assert status == SUCCESS
        driver.fwps.free_clone_net_buffer_list(nbl)
        driver.close()
        assert driver.violations == []


# --- how it ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("on_block", ["rst", "fin"])
def test_lay_21_a_block(on_block: str) -> None:
    options = EngineOptions()
    options.policy.on_block = on_block
    driver, _ = world(Door(("ale_auth_connect",), block, name="K"), options=options)
    attempt = request(driver, listener="web")
    assert (attempt.verdict, attempt.close_as) == ("block", on_block)
    (event,) = events(driver, "flow_blocked")
    assert event["listener"] == "web"
    assert event["client"] == ["10.0.0.1", 40000]
    assert (event["layer"], event["callout"]) == ("ale_auth_connect_v4", "K")
    assert event["filter"]


def test_lay_21_a_plain_filter_has_no_callout() -> None:
    driver, _ = world()
    _, filter_id = plain(driver, ActionType.BLOCK, 5)
    assert request(driver).verdict == "block"
    (event,) = events(driver, "flow_blocked")
    assert (event["callout"], event["filter"]) == (None, filter_id)


def test_lay_12_the_upstream_refuses() -> None:
    driver, log = world(Door(("ale_flow_established",)))
    attempt = request(driver, listener="web")
    attempt.failed("connection refused")
    attempt.failed("again")
    (event,) = events(driver, "connect_failed")
    assert (event["listener"], event["client"]) == ("web", ["10.0.0.1", 40000])
    assert event["reason"] == "connection refused"
    assert attempt.close_as == "rst"
    assert log == []


# --- policy changes (LAY-20) ----------------------------------------------------------------------


def reauthorizing() -> EngineOptions:
    options = EngineOptions(reauthorize=True)
    options.verify.level = "warn"
    return options


@pytest.mark.parametrize("reauthorize", [False, True])
def test_lay_20_a_new_filter_reauthorises_only_if_told(reauthorize: bool) -> None:
    options = reauthorizing()
    options.reauthorize = reauthorize
    driver, _ = world(options=options)
    flow = driver.connect()
    assert flow is not None
    plain(driver, ActionType.BLOCK, 5)
    driver.settle()
    assert flow.ended is reauthorize
    assert flow.remote.reset is reauthorize
    assert len(events(driver, "flow_deleted")) == int(reauthorize)


def test_lay_20_cfn_5_only_callouts_that_allow_it() -> None:
    layer = ("ale_auth_connect",)
    quiet, willing = Door(layer, name="quiet"), Door(layer, name="willing")
    willing.flags = int(CalloutFlags.ALLOW_RECLASSIFY)
    driver, log = world(quiet, willing, options=reauthorizing())
    flow = driver.connect()
    other = driver.connect(local="server")
    assert flow is not None
    assert other is not None
    plain(driver, ActionType.PERMIT, 5)
    driver.settle()
    assert [(asked.door.name, asked.reauthorizing) for asked in log] == [
        ("quiet", False),
        ("willing", False),
        ("willing", True),
    ]
    assert log[2].meta.flow_handle == flow.id
    assert not flow.ended


def test_lay_20_changes_elsewhere_do_not_count() -> None:
    door = Door(("ale_auth_connect",))
    door.flags = int(CalloutFlags.ALLOW_RECLASSIFY)
    driver, log = world(door, options=reauthorizing())
    driver.connect()
    plain(driver, ActionType.PERMIT, 5, fwpm.LAYER_STREAM_V4)
    driver.settle()
    assert len(log) == 1


def test_lay_17_a_policy_reauthorisation_cannot_be_pended() -> None:
    pender = Pender()

    def pend(asked: Asked) -> None:
        pender.pend(asked)
        permit(asked)

    door = Door(("ale_auth_recv_accept",), permit, pend)
    door.flags = int(CalloutFlags.ALLOW_RECLASSIFY)
    driver, log = world(door, options=reauthorizing())
    flow = driver.connect(local="server")
    assert flow is not None
    plain(driver, ActionType.PERMIT, 5, fwpm.LAYER_ALE_AUTH_RECV_ACCEPT_V4)
    driver.settle()
    assert pender.statuses == [CANNOT_PEND]
    assert driver.violations == ["V-61"]
    assert log[1].value("FLAGS") & ConditionFlags.IS_REAUTHORIZE
    assert not flow.ended


def test_an_attempt_is_public() -> None:
    driver, _ = world()
    assert isinstance(request(driver), Attempt)
