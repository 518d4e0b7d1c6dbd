"""FwpmFilterAdd and FwpmFilterDelete: checks, conditions, flags (MGMT-4..MGMT-14)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.fwpm.support import (
    DELETE,
    SUCCESS,
    a_callout,
    a_callout_filter,
    a_filter,
    added,
    condition,
    key,
    named,
    open_session,
    remote_port,
    start,
    with_callout,
)
from wfpstream import fwpm
from wfpstream.fwp import (
    ActionType,
    DataType,
    Direction,
    FwpValue,
    MatchType,
    NtStatus,
    Range,
    V4AddrMask,
    V6AddrMask,
    ipv4_value,
    ipv6_value,
    uint8,
    uint16,
    uint32,
    uint64,
)
from wfpstream.fwps._filter import Filter2, match_always

FLAGS = fwpm.FilterFlags
FLOW_V4 = (
    ipv4_value("10.1.2.3"),
    uint8(1),
    ipv4_value("192.0.2.7"),
    uint16(40000),
    uint16(80),
    uint32(Direction.OUTBOUND),
    uint32(0),
    uint32(1),
)


def status_with(layer_key: Any = fwpm.LAYER_STREAM_V4, profile: str = "win10", **fields: Any) -> NtStatus:
    _, management = start(profile=profile)
    return open_session(management).filter_add(a_filter(layer_key=layer_key, **fields))[0]


# -- MGMT-4: what is checked, and in which order


def test_mgmt_4_order_of_the_checks() -> None:
    """Everything is wrong at first; each step mends what was complained of."""
    _, session = with_callout()
    added(session.callout_add(a_callout("v6", applicable_layer=fwpm.LAYER_STREAM_V6)))
    wrong = fwpm.Filter(
        layer_key=fwpm.ZERO_KEY,
        sub_layer_key=key("nowhere"),
        provider_key=key("nobody"),
        action_type=ActionType.CONTINUE,
        flags=FLAGS.HAS_PROVIDER_CONTEXT | FLAGS.DISABLED,
        provider_context_key=key("nothing"),
        callout_key=key("none"),
        weight=uint8(16),
        conditions=[
            condition(fwpm.CONDITION_IP_REMOTE_PORT, uint16(80), MatchType.PREFIX),
            condition(fwpm.CONDITION_IP_PROTOCOL, uint8(6)),
        ],
    )
    steps: list[tuple[NtStatus, dict[str, Any]]] = [
        (NtStatus.STATUS_FWP_LAYER_NOT_FOUND, {"layer_key": fwpm.LAYER_STREAM_V4}),
        (NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND, {"sub_layer_key": fwpm.ZERO_KEY}),
        (NtStatus.STATUS_FWP_PROVIDER_NOT_FOUND, {"provider_key": None}),
        (NtStatus.STATUS_FWP_NULL_DISPLAY_NAME, {"display_data": named("f")}),
        (NtStatus.STATUS_FWP_INVALID_ACTION_TYPE, {"action_type": ActionType.CALLOUT_INSPECTION}),
        (NtStatus.STATUS_FWP_PROVIDER_CONTEXT_NOT_FOUND, {"flags": FLAGS.DISABLED}),
        (NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND, {"callout_key": key("v6")}),
        (NtStatus.STATUS_FWP_ACTION_INCOMPATIBLE_WITH_LAYER, {"callout_key": key("c")}),
        (NtStatus.STATUS_FWP_INVALID_FLAGS, {"flags": 0}),
        (NtStatus.STATUS_FWP_INVALID_WEIGHT, {"weight": uint8(15)}),
        (NtStatus.STATUS_FWP_MATCH_TYPE_MISMATCH, {"conditions": list(wrong.conditions)[1:]}),
        (NtStatus.STATUS_FWP_CONDITION_NOT_FOUND, {"conditions": []}),
        (SUCCESS, {}),
    ]
    for expected, mended in steps:
        assert session.filter_add(wrong)[0] is expected
        wrong = replace(wrong, **mended)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (ActionType.BLOCK, SUCCESS),
        (ActionType.PERMIT, SUCCESS),
        (ActionType.CALLOUT_TERMINATING, SUCCESS),
        (ActionType.CALLOUT_INSPECTION, SUCCESS),
        (ActionType.CALLOUT_UNKNOWN, SUCCESS),
        (ActionType.CONTINUE, NtStatus.STATUS_FWP_INVALID_ACTION_TYPE),
        (ActionType.NONE, NtStatus.STATUS_FWP_INVALID_ACTION_TYPE),
        (ActionType.NONE_NO_MATCH, NtStatus.STATUS_FWP_INVALID_ACTION_TYPE),
        (9, NtStatus.STATUS_FWP_INVALID_ACTION_TYPE),
    ],
)
def test_mgmt_4_action_types(action: int, expected: NtStatus) -> None:
    _, session = with_callout()
    assert session.filter_add(a_callout_filter(action_type=action))[0] is expected


def test_mgmt_4_layers_of_the_profile() -> None:
    redirect = fwpm.LAYER_ALE_CONNECT_REDIRECT_V4
    assert status_with(redirect, profile="vista") is NtStatus.STATUS_FWP_LAYER_NOT_FOUND
    assert status_with(redirect, profile="win7") is SUCCESS


def test_mgmt_4_a_callout_action_without_a_callout() -> None:
    _, management = start()
    answer = open_session(management).filter_add(a_filter(action_type=ActionType.CALLOUT_UNKNOWN))
    assert answer == (NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND, 0)


def test_mgmt_4_the_run_time_filter() -> None:
    """Every field of what is put in force."""
    fake, session = with_callout()
    sub_layer = fwpm.SubLayer(sub_layer_key=key("s"), display_data=named("s"), weight=0x20)
    assert session.sub_layer_add(sub_layer) is SUCCESS
    filter_id = added(
        session.filter_add(
            a_callout_filter(
                "edit",
                filter_key=key("edit"),
                sub_layer_key=key("s"),
                weight=uint64(77),
                flags=FLAGS.CLEAR_ACTION_RIGHT | FLAGS.PERMIT_IF_CALLOUT_UNREGISTERED,
                raw_context=0xABC,
            )
        )
    )
    (installed,) = fake.installed.filters_at(20)
    assert isinstance(installed, Filter2)
    assert installed.filter_id == filter_id
    assert installed.filter_key == key("edit")
    assert installed.layer_id == 20
    assert installed.weight == 77
    assert (installed.sub_layer_key, installed.sub_layer_weight) == (key("s"), 0x20)
    assert installed.flags == 0x3
    assert installed.action_type == 0x5003
    assert (installed.callout_id, installed.callout_key) == (fake.ids[key("c")], key("c"))
    assert (installed.context, installed.provider_context) == (0xABC, None)
    assert installed.matches is match_always
    assert installed.name == "edit"
    for layer_id in (21, 22, 23, 52):
        assert fake.installed.filters_at(layer_id) == ()


def test_filter_get_and_enum_give_back_what_was_added() -> None:
    _, session = with_callout()
    record = a_callout_filter("f", filter_key=key("f"), weight=uint64(5), conditions=(remote_port(80),))
    filter_id = added(session.filter_add(record))
    other = added(session.filter_add(a_filter("v6", layer_key=fwpm.LAYER_STREAM_V6)))
    expected = replace(
        record,
        sub_layer_key=fwpm.SUBLAYER_UNIVERSAL,
        filter_id=filter_id,
        effective_weight=uint64(5),
    )
    assert session.filter_get_by_id(filter_id) == (SUCCESS, expected)
    assert session.filter_get_by_key(key("f")) == (SUCCESS, expected)
    assert session.filter_enum(fwpm.LAYER_STREAM_V4) == (SUCCESS, [expected])
    assert {one.filter_id for one in session.filter_enum()[1]} == {filter_id, other}


# -- MGMT-5, REG-6: flags


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (FLAGS.PERSISTENT, SUCCESS),
        (FLAGS.BOOTTIME, SUCCESS),
        (FLAGS.PERSISTENT | FLAGS.BOOTTIME, NtStatus.STATUS_FWP_INVALID_FLAGS),
        (FLAGS.DISABLED, NtStatus.STATUS_FWP_INVALID_FLAGS),
        (FLAGS.INDEXED, SUCCESS),
        (0x1000, NtStatus.STATUS_FWP_INVALID_FLAGS),
        (FLAGS.PERMIT_IF_CALLOUT_UNREGISTERED, NtStatus.STATUS_FWP_INVALID_FLAGS),
    ],
)
def test_mgmt_5_flags(flags: int, expected: NtStatus) -> None:
    assert status_with(flags=flags) is expected


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (ActionType.CALLOUT_TERMINATING, SUCCESS),
        (ActionType.CALLOUT_UNKNOWN, SUCCESS),
        (ActionType.CALLOUT_INSPECTION, NtStatus.STATUS_FWP_INVALID_FLAGS),
        (ActionType.BLOCK, NtStatus.STATUS_FWP_INVALID_FLAGS),
    ],
)
def test_reg_6_permit_if_callout_unregistered(action: ActionType, expected: NtStatus) -> None:
    """REG-6, SC-102: legal with TERMINATING and UNKNOWN, and carried to the run time."""
    fake, session = with_callout()
    flags = FLAGS.PERMIT_IF_CALLOUT_UNREGISTERED
    assert session.filter_add(a_callout_filter(action_type=action, flags=flags))[0] is expected
    assert [one.flags for one in fake.installed] == ([0x2] if expected is SUCCESS else [])


# -- MGMT-9, MGMT-10: conditions


def test_sc_109_ip_protocol_is_not_offered_at_stream() -> None:
    """SC-109, FLD-9, V-55: the stream layer is TCP only."""
    fake, management = start()
    session = open_session(management)
    protocol = condition(fwpm.CONDITION_IP_PROTOCOL, uint8(6))
    assert session.filter_add(a_filter(conditions=[protocol])) == (
        NtStatus.STATUS_FWP_CONDITION_NOT_FOUND,
        0,
    )
    assert fake.reports == ["V-55"]
    added(session.filter_add(a_filter(layer_key=fwpm.LAYER_ALE_FLOW_ESTABLISHED_V4, conditions=[protocol])))
    assert fake.reports == ["V-55"]


def test_fld_11_direction_is_not_offered_at_auth_connect() -> None:
    outbound = condition(fwpm.CONDITION_DIRECTION, uint32(Direction.OUTBOUND))
    missing = NtStatus.STATUS_FWP_CONDITION_NOT_FOUND
    assert status_with(fwpm.LAYER_ALE_AUTH_CONNECT_V4, conditions=[outbound]) is missing
    assert status_with(fwpm.LAYER_ALE_AUTH_RECV_ACCEPT_V6, conditions=[outbound]) is missing
    assert status_with(fwpm.LAYER_ALE_FLOW_ESTABLISHED_V4, conditions=[outbound]) is SUCCESS


@pytest.mark.parametrize(("profile", "offered"), [("vista", False), ("win8", False), ("win10", True)])
def test_obj_15_compartment_condition_by_profile(profile: str, offered: bool) -> None:
    conditions = [condition(fwpm.CONDITION_COMPARTMENT_ID, uint32(1))]
    expected = SUCCESS if offered else NtStatus.STATUS_FWP_CONDITION_NOT_FOUND
    assert status_with(profile=profile, conditions=conditions) is expected


def text(value: str) -> FwpValue:
    return FwpValue(DataType.UNICODE_STRING, value)


def ranged(low: FwpValue, high: FwpValue) -> FwpValue:
    return FwpValue(DataType.RANGE, Range(low, high))


V4_MASK = FwpValue(DataType.V4_ADDR_MASK, V4AddrMask(0x0A00_0000, 0xFF00_0000))
V6_MASK = FwpValue(DataType.V6_ADDR_MASK, V6AddrMask(bytes(16), 64))
DESCRIPTOR = FwpValue(DataType.SECURITY_DESCRIPTOR, b"\x01")
BLOB = FwpValue(DataType.BYTE_BLOB, b"app")
WRONG_VALUE = NtStatus.STATUS_FWP_TYPE_MISMATCH
WRONG_MATCH = NtStatus.STATUS_FWP_MATCH_TYPE_MISMATCH
STREAM_V4, STREAM_V6, FLOW_V4_LAYER = "stream_v4", "stream_v6", "ale_flow_established_v4"


@pytest.mark.parametrize(
    ("layer", "field", "match_type", "value", "expected"),
    [
        (STREAM_V4, "ip_remote_port", MatchType.EQUAL, uint16(80), SUCCESS),
        (STREAM_V4, "ip_remote_port", MatchType.EQUAL, uint32(80), WRONG_VALUE),
        (STREAM_V4, "ip_remote_port", MatchType.EQUAL, uint8(80), WRONG_VALUE),
        (STREAM_V4, "ip_remote_port", MatchType.EQUAL, text("80"), WRONG_VALUE),
        (STREAM_V4, "ip_remote_port", MatchType.EQUAL, FwpValue(DataType.EMPTY), WRONG_VALUE),
        (STREAM_V4, "ip_remote_port", MatchType.RANGE, ranged(uint16(1), uint16(9)), SUCCESS),
        (STREAM_V4, "ip_remote_port", MatchType.RANGE, ranged(uint32(1), uint32(9)), WRONG_VALUE),
        (STREAM_V4, "ip_remote_port", MatchType.RANGE, uint16(80), WRONG_MATCH),
        (STREAM_V4, "ip_remote_port", MatchType.EQUAL, ranged(uint16(1), uint16(9)), WRONG_MATCH),
        (STREAM_V4, "ip_remote_port", MatchType.GREATER, uint16(80), SUCCESS),
        (STREAM_V4, "ip_remote_port", MatchType.NOT_EQUAL, uint16(80), SUCCESS),
        (STREAM_V4, "ip_remote_port", MatchType.FLAGS_ANY_SET, uint16(1), SUCCESS),
        (STREAM_V4, "ip_remote_port", MatchType.PREFIX, uint16(80), WRONG_MATCH),
        (STREAM_V4, "ip_remote_port", MatchType.EQUAL_CASE_INSENSITIVE, uint16(80), WRONG_MATCH),
        (STREAM_V4, "flags", MatchType.FLAGS_ALL_SET, uint32(1), SUCCESS),
        (STREAM_V4, "ip_local_address", MatchType.EQUAL, V4_MASK, SUCCESS),
        (STREAM_V4, "ip_local_address", MatchType.NOT_EQUAL, V4_MASK, SUCCESS),
        (STREAM_V4, "ip_local_address", MatchType.GREATER, V4_MASK, WRONG_MATCH),
        (STREAM_V4, "ip_local_address", MatchType.EQUAL, V6_MASK, WRONG_VALUE),
        (STREAM_V4, "ip_local_address", MatchType.EQUAL, ipv6_value("::1"), WRONG_VALUE),
        (STREAM_V4, "direction", MatchType.EQUAL, V4_MASK, WRONG_VALUE),
        (STREAM_V6, "ip_local_address", MatchType.EQUAL, V6_MASK, SUCCESS),
        (STREAM_V6, "ip_local_address", MatchType.EQUAL, ipv6_value("::1"), SUCCESS),
        (STREAM_V6, "ip_local_address", MatchType.FLAGS_ALL_SET, ipv6_value("::1"), WRONG_MATCH),
        (STREAM_V6, "ip_local_address", MatchType.EQUAL, V4_MASK, WRONG_VALUE),
        (STREAM_V4, "listener", MatchType.EQUAL, text("web"), SUCCESS),
        (STREAM_V4, "listener", MatchType.EQUAL_CASE_INSENSITIVE, text("web"), SUCCESS),
        (STREAM_V4, "listener", MatchType.PREFIX, text("web"), SUCCESS),
        (STREAM_V4, "listener", MatchType.FLAGS_ANY_SET, text("web"), WRONG_MATCH),
        (FLOW_V4_LAYER, "listener", MatchType.NOT_PREFIX, text("web"), SUCCESS),
        (FLOW_V4_LAYER, "ale_app_id", MatchType.PREFIX, BLOB, SUCCESS),
        (FLOW_V4_LAYER, "ale_user_id", MatchType.EQUAL, DESCRIPTOR, SUCCESS),
        (FLOW_V4_LAYER, "ale_user_id", MatchType.NOT_EQUAL, DESCRIPTOR, WRONG_MATCH),
        (FLOW_V4_LAYER, "ale_remote_user_id", MatchType.EQUAL, DESCRIPTOR, SUCCESS),
        (FLOW_V4_LAYER, "ale_app_id", MatchType.EQUAL, DESCRIPTOR, WRONG_VALUE),
    ],
)
def test_mgmt_9_value_types_and_match_types(
    layer: str, field: str, match_type: MatchType, value: FwpValue, expected: NtStatus
) -> None:
    conditions = [condition(fwpm.CONDITION_KEYS[field], value, match_type)]
    assert status_with(fwpm.LAYER_KEYS[layer], conditions=conditions) is expected


def test_mgmt_9_an_unknown_match_type() -> None:
    conditions = [fwpm.FilterCondition(fwpm.CONDITION_IP_REMOTE_PORT, 13, uint16(1))]  # type: ignore[arg-type]
    assert status_with(conditions=conditions) is WRONG_MATCH


def test_sc_110_same_field_twice_is_no_duplicate_but_an_alternative() -> None:
    """SC-110, MGMT-10: two IP_REMOTE_PORT conditions match either port."""
    fake, management = start()
    session = open_session(management)
    added(session.filter_add(a_filter(conditions=[remote_port(80), remote_port(8080)])))
    (installed,) = fake.installed
    other_port = (*FLOW_V4[:4], uint16(443), *FLOW_V4[5:])
    assert installed.matches(FLOW_V4, "")
    assert installed.matches((*FLOW_V4[:4], uint16(8080), *FLOW_V4[5:]), "")
    assert not installed.matches(other_port, "")


def test_sc_108_direction_of_the_connection() -> None:
    fake, management = start()
    session = open_session(management)
    inbound = condition(fwpm.CONDITION_DIRECTION, uint32(Direction.INBOUND))
    added(session.filter_add(a_filter(conditions=[inbound])))
    (installed,) = fake.installed
    assert not installed.matches(FLOW_V4, "")


def test_listener_condition_at_a_stream_layer() -> None:
    fake, management = start()
    session = open_session(management)
    added(session.filter_add(a_filter(conditions=[condition(fwpm.CONDITION_LISTENER, text("web"))])))
    (installed,) = fake.installed
    assert installed.matches(FLOW_V4, "web")
    assert not installed.matches(FLOW_V4, "mail")


# -- MGMT-13: deleting


@pytest.mark.parametrize("by_key", [False, True])
def test_sc_105_a_busy_filter_is_in_use(by_key: bool) -> None:
    """SC-105, MGMT-13: IN_USE and V-38, nothing changed; later it works, DELETE with a NULL key."""
    fake, session = with_callout()
    filter_id = added(session.filter_add(a_callout_filter(filter_key=key("f"))))

    def delete() -> NtStatus:
        if by_key:
            return session.filter_delete_by_key(key("f"))
        return session.filter_delete_by_id(filter_id)

    fake.notified.clear()
    fake.busy.add(filter_id)
    assert delete() is NtStatus.STATUS_FWP_IN_USE
    assert fake.reports == ["V-38"]
    assert fake.notified == []
    assert fake.installed_at(20) == ["f"]
    fake.busy.clear()
    assert delete() is SUCCESS
    assert fake.reports == ["V-38"]
    assert fake.notified == [(DELETE, None, filter_id)]
    assert fake.installed_at(20) == []


def test_mgmt_13_a_filter_that_becomes_busy_holds_up_the_commit() -> None:
    """The transaction stays open, so it can be committed once the callout is idle, or aborted."""
    fake, session = with_callout()
    filter_id = added(session.filter_add(a_callout_filter()))
    fake.notified.clear()
    assert session.transaction_begin() is SUCCESS
    assert session.filter_delete_by_id(filter_id) is SUCCESS
    fake.busy.add(filter_id)
    assert session.transaction_commit() is NtStatus.STATUS_FWP_IN_USE
    assert (fake.reports, fake.notified, fake.installed_at(20)) == (["V-38"], [], ["f"])
    fake.busy.clear()
    assert session.transaction_commit() is SUCCESS
    assert (fake.notified, fake.installed_at(20)) == ([(DELETE, None, filter_id)], [])


def test_mgmt_13_force_delete() -> None:
    fake, management = start()
    session = open_session(management)
    busy, idle = (added(session.filter_add(a_filter(name))) for name in ("busy", "idle"))
    fake.busy.add(busy)
    assert management.force_delete(busy) is SUCCESS
    assert fake.reports == ["V-38"]
    assert management.force_delete(idle) is SUCCESS
    assert fake.reports == ["V-38"]
    assert len(fake.installed) == 0
    assert management.force_delete(busy) is NtStatus.STATUS_FWP_FILTER_NOT_FOUND


def test_the_run_time_filter_is_read_only_but_for_its_context() -> None:
    fake, session = with_callout()
    added(session.filter_add(a_callout_filter()))
    (installed,) = fake.installed
    installed.context = 1
    with pytest.raises(AttributeError, match="read-only"):
        installed.weight = 1
    with pytest.raises(AttributeError, match="read-only"):
        fake.installed.generation = 9
