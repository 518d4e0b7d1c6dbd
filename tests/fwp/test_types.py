"""The shared enumerations against literal tables, one per section of the constants reference."""

from __future__ import annotations

from enum import IntEnum

import pytest

from wfpstream import fwp
from wfpstream.fwp import (
    CALLOUT_FLAG_SINCE,
    PROFILES,
    ActionType,
    AddressType,
    CalloutFlags,
    ConditionFlags,
    DataType,
    Direction,
    IpVersion,
    MatchType,
    profile_at_least,
)

ACTIONS = {
    "BLOCK": 0x1001,
    "PERMIT": 0x1002,
    "CALLOUT_TERMINATING": 0x5003,
    "CALLOUT_INSPECTION": 0x6004,
    "CALLOUT_UNKNOWN": 0x4005,
    "CONTINUE": 0x2006,
    "NONE": 0x0007,
    "NONE_NO_MATCH": 0x0008,
}

# Flag, value, structure that first documents it, profile that introduced it.
CALLOUT_FLAGS = [
    ("CONDITIONAL_ON_FLOW", 0x0001, 0, "vista"),
    ("ALLOW_OFFLOAD", 0x0002, 0, "vista"),
    ("ENABLE_COMMIT_ADD_NOTIFY", 0x0004, 1, "win7"),
    ("ALLOW_MID_STREAM_INSPECTION", 0x0008, 1, "win7"),
    ("ALLOW_RECLASSIFY", 0x0010, 1, "win7"),
    ("RESERVED1", 0x0020, 2, "win8"),
    ("ALLOW_RSC", 0x0040, 2, "win8"),
    ("ALLOW_L2_BATCH_CLASSIFY", 0x0080, 2, "win8"),
    ("ALLOW_USO", 0x0100, 2, "win10"),
    ("ALLOW_URO", 0x0200, 2, "win10"),
    ("RESERVED2", 0x0400, 2, "win10"),
]

MATCH_TYPES = {
    "EQUAL": 0,
    "GREATER": 1,
    "LESS": 2,
    "GREATER_OR_EQUAL": 3,
    "LESS_OR_EQUAL": 4,
    "RANGE": 5,
    "FLAGS_ALL_SET": 6,
    "FLAGS_ANY_SET": 7,
    "FLAGS_NONE_SET": 8,
    "EQUAL_CASE_INSENSITIVE": 9,
    "NOT_EQUAL": 10,
    "PREFIX": 11,
    "NOT_PREFIX": 12,
}

DATA_TYPES = {
    "EMPTY": 0,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 3,
    "UINT64": 4,
    "INT8": 5,
    "INT16": 6,
    "INT32": 7,
    "INT64": 8,
    "FLOAT": 9,
    "DOUBLE": 10,
    "BYTE_ARRAY16_TYPE": 11,
    "BYTE_BLOB_TYPE": 12,
    "SID": 13,
    "SECURITY_DESCRIPTOR_TYPE": 14,
    "TOKEN_INFORMATION_TYPE": 15,
    "TOKEN_ACCESS_INFORMATION_TYPE": 16,
    "UNICODE_STRING_TYPE": 17,
    "BYTE_ARRAY6_TYPE": 18,
    "V4_ADDR_MASK": 0x100,
    "V6_ADDR_MASK": 0x101,
    "RANGE_TYPE": 0x102,
}

CONDITION_FLAGS = {
    "IS_LOOPBACK": 0x0000_0001,
    "IS_IPSEC_SECURED": 0x0000_0002,
    "IS_REAUTHORIZE": 0x0000_0004,
    "IS_WILDCARD_BIND": 0x0000_0008,
    "IS_RAW_ENDPOINT": 0x0000_0010,
    "IS_FRAGMENT": 0x0000_0020,
    "IS_FRAGMENT_GROUP": 0x0000_0040,
    "IS_IPSEC_NATT_RECLASSIFY": 0x0000_0080,
    "REQUIRES_ALE_CLASSIFY": 0x0000_0100,
    "IS_IMPLICIT_BIND": 0x0000_0200,
    "IS_REASSEMBLED": 0x0000_0400,
    "IS_NAME_APP_SPECIFIED": 0x0000_4000,
    "IS_PROMISCUOUS": 0x0000_8000,
    "IS_AUTH_FW": 0x0001_0000,
    "IS_RECLASSIFY": 0x0002_0000,
    "IS_OUTBOUND_PASS_THRU": 0x0004_0000,
    "IS_INBOUND_PASS_THRU": 0x0008_0000,
    "IS_CONNECTION_REDIRECTED": 0x0010_0000,
    "IS_PROXY_CONNECTION": 0x0020_0000,
    "IS_APPCONTAINER_LOOPBACK": 0x0040_0000,
    "IS_NON_APPCONTAINER_LOOPBACK": 0x0080_0000,
    "IS_RESERVED": 0x0100_0000,
    "IS_HONORING_POLICY_AUTHORIZE": 0x0200_0000,
}

ADDRESS_TYPES = {
    "UNSPECIFIED": 0,
    "UNICAST": 1,
    "ANYCAST": 2,
    "MULTICAST": 3,
    "BROADCAST": 4,
    "INVALID": 5,
}


@pytest.mark.parametrize(
    ("enumeration", "table"),
    [
        pytest.param(ActionType, ACTIONS, id="FWP_ACTION"),
        pytest.param(CalloutFlags, {row[0]: row[1] for row in CALLOUT_FLAGS}, id="FWP_CALLOUT_FLAG"),
        pytest.param(AddressType, ADDRESS_TYPES, id="NL_ADDRESS_TYPE"),
        pytest.param(MatchType, MATCH_TYPES, id="FWP_MATCH_TYPE"),
        pytest.param(DataType, DATA_TYPES, id="FWP_DATA_TYPE"),
        pytest.param(Direction, {"OUTBOUND": 0, "INBOUND": 1}, id="FWP_DIRECTION"),
        pytest.param(IpVersion, {"V4": 0, "V6": 1, "NONE": 2}, id="FWP_IP_VERSION"),
        pytest.param(ConditionFlags, CONDITION_FLAGS, id="FWP_CONDITION_FLAG"),
    ],
)
def test_members_are_those_of_the_section(enumeration: type[IntEnum], table: dict[str, int]) -> None:
    """Every name and value of the section, and nothing else."""
    assert {member.name: member.value for member in enumeration} == table


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACTION_FLAG_TERMINATING", 0x1000),
        ("ACTION_FLAG_NON_TERMINATING", 0x2000),
        ("ACTION_FLAG_CALLOUT", 0x4000),
        ("DIRECTION_MAX", 2),
        ("MATCH_TYPE_MAX", 13),
        ("SINGLE_DATA_TYPE_MAX", 0xFF),
        ("DATA_TYPE_MAX", 0x103),
        ("REAUTHORIZE_REASON_MID_STREAM_INSPECTION", 0x40),
        ("RESERVED_CALLOUT_FLAGS", 0x420),
    ],
)
def test_markers_and_masks(name: str, value: int) -> None:
    """FWP_ACTION_FLAG_*, the ..._MAX markers, and the one REAUTHORIZE_REASON."""
    assert getattr(fwp, name) == value


def test_what_a_callout_returns_has_no_callout_bit() -> None:
    """FWP_ACTION_*: one stub header in public gives CONTINUE, NONE and NONE_NO_MATCH that bit, wrongly."""
    returned = [
        ActionType.BLOCK,
        ActionType.PERMIT,
        ActionType.CONTINUE,
        ActionType.NONE,
        ActionType.NONE_NO_MATCH,
    ]
    assert [action for action in returned if action & fwp.ACTION_FLAG_CALLOUT] == []


def test_bitmap_index_set_is_no_action() -> None:
    """FWP_ACTION_BITMAP_INDEX_SET (9) is newer than every profile."""
    with pytest.raises(ValueError, match="9 is not a valid ActionType"):
        ActionType(9)


@pytest.mark.parametrize(("name", "value", "structure", "profile"), CALLOUT_FLAGS)
def test_callout_flag_since(name: str, value: int, structure: int, profile: str) -> None:
    """FWP_CALLOUT_FLAG_*: first structure and its profile; a plain int finds the row too."""
    assert CALLOUT_FLAG_SINCE[CalloutFlags[name]] == (structure, profile)
    assert CALLOUT_FLAG_SINCE[CalloutFlags(value)].structure == structure


def test_callout_flag_since_is_complete() -> None:
    """FWP_CALLOUT_FLAG_*: no flag without a row."""
    assert set(CALLOUT_FLAG_SINCE) == set(CalloutFlags)


@pytest.mark.parametrize(
    "name",
    [
        "BYTE_ARRAY16",
        "BYTE_BLOB",
        "SECURITY_DESCRIPTOR",
        "TOKEN_INFORMATION",
        "TOKEN_ACCESS_INFORMATION",
        "UNICODE_STRING",
        "BYTE_ARRAY6",
        "RANGE",
    ],
)
def test_data_type_short_names(name: str) -> None:
    """FWP_DATA_TYPE: the name without `_TYPE` is the same member."""
    assert DataType[name] is DataType[f"{name}_TYPE"]


def test_profiles_are_ordered() -> None:
    """OBJ-15: each profile is at least itself and all before it, and no later one."""
    assert PROFILES == ("vista", "win7", "win8", "win10")
    for index, profile in enumerate(PROFILES):
        reached = [minimum for minimum in PROFILES if profile_at_least(profile, minimum)]
        assert reached == list(PROFILES[: index + 1])


@pytest.mark.parametrize(("profile", "minimum"), [("win9", "vista"), ("vista", "win11"), ("", "")])
def test_unknown_profile(profile: str, minimum: str) -> None:
    """OBJ-15: there are four profiles."""
    with pytest.raises(ValueError, match="unknown OS profile"):
        profile_at_least(profile, minimum)


def test_all_is_what_the_room_exports() -> None:
    """`__all__` names things that exist, once each."""
    assert len(set(fwp.__all__)) == len(fwp.__all__)
    assert [name for name in fwp.__all__ if not hasattr(fwp, name)] == []
