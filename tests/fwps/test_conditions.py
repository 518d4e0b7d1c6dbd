"""What each match type means, and how conditions combine (MGMT-9, MGMT-10, FLD-12, SC-108, SC-110)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from wfpstream.fwp import (
    EMPTY,
    DataType,
    Direction,
    FwpValue,
    MatchType,
    Range,
    V4AddrMask,
    V6AddrMask,
    ipv4_value,
    ipv6_value,
    uint8,
    uint16,
    uint32,
)
from wfpstream.fwps._conditions import LISTENER_FIELD, Condition, compile_conditions
from wfpstream.fwps._filter import match_always

# Fixed values of a STREAM_V4 flow: 10.1.2.3:40000 -> 192.0.2.7:80, outbound.
FLOW_V4 = (
    ipv4_value("10.1.2.3"),
    uint8(1),
    ipv4_value("192.0.2.7"),
    uint16(40000),
    uint16(80),
    uint32(Direction.OUTBOUND),
    uint32(0b0101),
    uint32(1),
)
LOCAL_ADDRESS, REMOTE_ADDRESS, LOCAL_PORT, REMOTE_PORT, DIRECTION, FLAGS = 0, 2, 3, 4, 5, 6


def text(value: str) -> FwpValue:
    return FwpValue(DataType.UNICODE_STRING, value)


def ports(low: int, high: int) -> FwpValue:
    return FwpValue(DataType.RANGE, Range(uint16(low), uint16(high)))


def v4_network(address: str, mask: str) -> FwpValue:
    return FwpValue(DataType.V4_ADDR_MASK, V4AddrMask(int(IPv4Address(address)), int(IPv4Address(mask))))


def v6_network(address: str, prefix_length: int) -> FwpValue:
    return FwpValue(DataType.V6_ADDR_MASK, V6AddrMask(IPv6Address(address).packed, prefix_length))


def matches_one(field: FwpValue, match_type: MatchType, value: FwpValue) -> bool:
    return compile_conditions([Condition(0, match_type, value)])((field,), "")


def test_mgmt_10_no_conditions_is_the_shared_function() -> None:
    """MGMT-10: without conditions a filter always matches, and nothing is computed for it."""
    assert compile_conditions([]) is match_always
    assert match_always(FLOW_V4, "web") is True


@pytest.mark.parametrize(
    ("match_type", "value", "expected"),
    [
        (MatchType.EQUAL, 80, True),
        (MatchType.EQUAL, 81, False),
        (MatchType.NOT_EQUAL, 80, False),
        (MatchType.NOT_EQUAL, 81, True),
        (MatchType.GREATER, 79, True),
        (MatchType.GREATER, 80, False),
        (MatchType.LESS, 81, True),
        (MatchType.LESS, 80, False),
        (MatchType.GREATER_OR_EQUAL, 80, True),
        (MatchType.GREATER_OR_EQUAL, 81, False),
        (MatchType.LESS_OR_EQUAL, 80, True),
        (MatchType.LESS_OR_EQUAL, 79, False),
    ],
)
def test_mgmt_9_comparisons(match_type: MatchType, value: int, expected: bool) -> None:
    assert matches_one(uint16(80), match_type, uint16(value)) is expected


@pytest.mark.parametrize(
    ("match_type", "bits", "expected"),
    [
        (MatchType.FLAGS_ALL_SET, 0b0101, True),
        (MatchType.FLAGS_ALL_SET, 0b0111, False),
        (MatchType.FLAGS_ANY_SET, 0b0110, True),
        (MatchType.FLAGS_ANY_SET, 0b1010, False),
        (MatchType.FLAGS_NONE_SET, 0b1010, True),
        (MatchType.FLAGS_NONE_SET, 0b0001, False),
    ],
)
def test_mgmt_9_flag_comparisons(match_type: MatchType, bits: int, expected: bool) -> None:
    assert matches_one(uint32(0b0101), match_type, uint32(bits)) is expected


@pytest.mark.parametrize(("port", "expected"), [(999, False), (1000, True), (2000, True), (2001, False)])
def test_mgmt_9_range_includes_both_ends(port: int, expected: bool) -> None:
    assert matches_one(uint16(port), MatchType.RANGE, ports(1000, 2000)) is expected


@pytest.mark.parametrize(
    ("address", "network", "mask", "expected"),
    [
        ("10.255.255.255", "10.0.0.0", "255.0.0.0", True),
        ("11.0.0.0", "10.0.0.0", "255.0.0.0", False),
        ("10.1.2.3", "10.1.2.99", "255.255.255.0", True),
        ("203.0.113.9", "0.0.0.0", "0.0.0.0", True),
        ("10.1.2.3", "10.1.2.3", "255.255.255.255", True),
        ("10.1.2.4", "10.1.2.3", "255.255.255.255", False),
    ],
)
def test_mgmt_9_v4_address_against_mask(address: str, network: str, mask: str, expected: bool) -> None:
    value = v4_network(network, mask)
    assert matches_one(ipv4_value(address), MatchType.EQUAL, value) is expected
    assert matches_one(ipv4_value(address), MatchType.NOT_EQUAL, value) is not expected


@pytest.mark.parametrize(
    ("address", "network", "prefix_length", "expected"),
    [
        ("2001:db8::1", "2001:db8::", 32, True),
        ("2001:db9::1", "2001:db8::", 32, False),
        ("2001:db8:7fff::", "2001:db8::", 33, True),
        ("2001:db8:8000::", "2001:db8::", 33, False),
        ("fe80::1", "::", 0, True),
        ("::1", "::1", 128, True),
        ("::2", "::1", 128, False),
    ],
)
def test_mgmt_9_v6_address_against_mask(
    address: str, network: str, prefix_length: int, expected: bool
) -> None:
    value = v6_network(network, prefix_length)
    assert matches_one(ipv6_value(address), MatchType.EQUAL, value) is expected
    assert matches_one(ipv6_value(address), MatchType.NOT_EQUAL, value) is not expected


def test_mgmt_9_v6_addresses_sort_in_network_order() -> None:
    low, high = ipv6_value("2001:db8::1"), ipv6_value("2001:db8::ff")
    value = FwpValue(DataType.RANGE, Range(low, high))
    assert matches_one(ipv6_value("2001:db8::a0"), MatchType.RANGE, value)
    assert not matches_one(ipv6_value("2001:db8::100"), MatchType.RANGE, value)


@pytest.mark.parametrize(
    ("match_type", "value", "expected"),
    [
        (MatchType.EQUAL, "Web.Internal", True),
        (MatchType.EQUAL, "web.internal", False),
        (MatchType.EQUAL_CASE_INSENSITIVE, "WEB.internal", True),
        (MatchType.EQUAL_CASE_INSENSITIVE, "web", False),
        (MatchType.PREFIX, ".Internal", True),
        (MatchType.PREFIX, "Web", False),
        (MatchType.NOT_PREFIX, "Web", True),
        (MatchType.NOT_PREFIX, "nal", False),
    ],
)
def test_mgmt_9_strings(match_type: MatchType, value: str, expected: bool) -> None:
    """MGMT-9; FWP_MATCH_PREFIX tests the end of the string, whatever its name says."""
    assert matches_one(text("Web.Internal"), match_type, text(value)) is expected


def test_mgmt_9_blob_prefix_tests_the_end() -> None:
    blob = FwpValue(DataType.BYTE_BLOB, b"\\device\\x.exe")
    assert matches_one(blob, MatchType.PREFIX, FwpValue(DataType.BYTE_BLOB, b"x.exe"))
    assert not matches_one(blob, MatchType.PREFIX, FwpValue(DataType.BYTE_BLOB, b"\\device"))


@pytest.mark.parametrize(
    ("match_type", "value"),
    [
        (MatchType.EQUAL, uint32(0)),
        (MatchType.NOT_EQUAL, uint32(0)),
        (MatchType.GREATER_OR_EQUAL, uint32(0)),
        (MatchType.FLAGS_NONE_SET, uint32(0)),
    ],
)
def test_fld_12_an_empty_field_never_matches(match_type: MatchType, value: FwpValue) -> None:
    assert matches_one(EMPTY, match_type, value) is False


def test_sc_110_consecutive_conditions_of_one_field_are_ored() -> None:
    """SC-110, MGMT-10: IP_REMOTE_PORT = 80, = 8080 matches either."""
    either = compile_conditions(
        [
            Condition(REMOTE_PORT, MatchType.EQUAL, uint16(8080)),
            Condition(REMOTE_PORT, MatchType.EQUAL, uint16(80)),
        ]
    )
    assert either(FLOW_V4, "")
    assert either((*FLOW_V4[:REMOTE_PORT], uint16(8080), *FLOW_V4[REMOTE_PORT + 1 :]), "")
    assert not either((*FLOW_V4[:REMOTE_PORT], uint16(443), *FLOW_V4[REMOTE_PORT + 1 :]), "")


def test_mgmt_10_conditions_of_different_fields_are_anded() -> None:
    both = [
        Condition(REMOTE_PORT, MatchType.EQUAL, uint16(80)),
        Condition(LOCAL_PORT, MatchType.EQUAL, uint16(40000)),
    ]
    assert compile_conditions(both)(FLOW_V4, "")
    wrong_port = [both[0], Condition(LOCAL_PORT, MatchType.EQUAL, uint16(40001))]
    assert not compile_conditions(wrong_port)(FLOW_V4, "")


def test_mgmt_10_same_field_apart_is_anded() -> None:
    """MGMT-10: only *consecutive* conditions are alternatives."""
    apart = [
        Condition(REMOTE_PORT, MatchType.EQUAL, uint16(80)),
        Condition(DIRECTION, MatchType.EQUAL, uint32(Direction.OUTBOUND)),
        Condition(REMOTE_PORT, MatchType.EQUAL, uint16(8080)),
    ]
    assert not compile_conditions(apart)(FLOW_V4, "")


def test_sc_108_direction_is_that_of_the_connection() -> None:
    """SC-108: INBOUND does not match an outbound flow, whichever way the data goes."""
    inbound = compile_conditions([Condition(DIRECTION, MatchType.EQUAL, uint32(Direction.INBOUND))])
    assert not inbound(FLOW_V4, "")


def test_listener_field_is_read_from_beside_the_fixed_values() -> None:
    """4.1: `listener` is an extension field, offered at every layer."""
    web = compile_conditions(
        [
            Condition(LISTENER_FIELD, MatchType.EQUAL, text("web")),
            Condition(LISTENER_FIELD, MatchType.EQUAL, text("api")),
            Condition(REMOTE_PORT, MatchType.EQUAL, uint16(80)),
        ]
    )
    assert web(FLOW_V4, "web")
    assert web(FLOW_V4, "api")
    assert not web(FLOW_V4, "mail")
    assert not web(FLOW_V4, "")
