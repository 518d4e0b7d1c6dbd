"""Typed values: what is accepted, its normal form, and the status of every refusal."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.fwp import (
    EMPTY,
    DataType,
    Direction,
    FwpError,
    FwpValue,
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

MISMATCH = NtStatus.STATUS_FWP_TYPE_MISMATCH
BOUNDS = NtStatus.STATUS_FWP_OUT_OF_BOUNDS
NET_MASK = NtStatus.STATUS_FWP_INVALID_NET_MASK
RANGE = NtStatus.STATUS_FWP_INVALID_RANGE

INTEGERS = [
    (DataType.UINT8, 0, 255),
    (DataType.UINT16, 0, 65_535),
    (DataType.UINT32, 0, 4_294_967_295),
    (DataType.UINT64, 0, 18_446_744_073_709_551_615),
    (DataType.INT8, -128, 127),
    (DataType.INT16, -32_768, 32_767),
    (DataType.INT32, -2_147_483_648, 2_147_483_647),
    (DataType.INT64, -9_223_372_036_854_775_808, 9_223_372_036_854_775_807),
]
BYTES_TYPES = [
    DataType.BYTE_BLOB,
    DataType.SID,
    DataType.SECURITY_DESCRIPTOR,
    DataType.TOKEN_INFORMATION,
    DataType.TOKEN_ACCESS_INFORMATION,
]


def refusal(make: Any, *args: Any) -> NtStatus:
    """The status with which `make(*args)` fails."""
    with pytest.raises(FwpError) as caught:
        make(*args)
    assert "\n" not in str(caught.value)
    return caught.value.status


@pytest.mark.parametrize(("kind", "low", "high"), INTEGERS)
def test_integer_bounds(kind: DataType, low: int, high: int) -> None:
    """FWP_DATA_TYPE, integers: both bounds fit, one beyond is STATUS_FWP_OUT_OF_BOUNDS."""
    assert [FwpValue(kind, low).value, FwpValue(kind, high).value] == [low, high]
    assert refusal(FwpValue, kind, low - 1) is BOUNDS
    assert refusal(FwpValue, kind, high + 1) is BOUNDS


@pytest.mark.parametrize("value", [None, 1.0, True, "1", b"\x01"])
def test_integer_of_another_kind(value: object) -> None:
    """FWP_DATA_TYPE, integers: nothing is converted (MGMT-9), and a truth value is no number."""
    assert refusal(FwpValue, DataType.UINT32, value) is MISMATCH


def test_integer_loses_its_enumeration() -> None:
    """Normal form: a plain int, so that it prints and serialises as one."""
    assert type(FwpValue(DataType.UINT32, Direction.INBOUND).value) is int


def test_type_as_plain_int() -> None:
    """Normal form: `type` is a `DataType`, also when given as its number."""
    number: Any = 3
    assert FwpValue(number, 5) == uint32(5)
    assert FwpValue(number, 5).type is DataType.UINT32


@pytest.mark.parametrize("number", [19, 0xFF, 0x103])
def test_no_such_type(number: Any) -> None:
    """FWP_DATA_TYPE: the ..._MAX markers and unknown numbers are no types."""
    assert refusal(FwpValue, number, 0) is MISMATCH


def test_double_and_float() -> None:
    """FWP_DOUBLE keeps 64 bits, FWP_FLOAT rounds to 32, integers are numbers too."""
    assert FwpValue(DataType.DOUBLE, 0.1).value == 0.1
    assert FwpValue(DataType.FLOAT, 0.1).value == 0.100000001490116119384765625
    assert FwpValue(DataType.DOUBLE, 2).value == 2.0
    assert type(FwpValue(DataType.DOUBLE, 2).value) is float


def test_double_and_float_refusals() -> None:
    """FWP_FLOAT, FWP_DOUBLE: too large is out of bounds, text is a mismatch."""
    assert refusal(FwpValue, DataType.FLOAT, 1e39) is BOUNDS
    assert refusal(FwpValue, DataType.DOUBLE, 10**400) is BOUNDS
    assert refusal(FwpValue, DataType.DOUBLE, "1") is MISMATCH
    assert refusal(FwpValue, DataType.FLOAT, True) is MISMATCH


@pytest.mark.parametrize(("kind", "length"), [(DataType.BYTE_ARRAY16, 16), (DataType.BYTE_ARRAY6, 6)])
def test_byte_arrays(kind: DataType, length: int) -> None:
    """FWP_BYTE_ARRAY16_TYPE, FWP_BYTE_ARRAY6_TYPE: exactly that many bytes."""
    assert FwpValue(kind, bytes(length)).value == bytes(length)
    assert refusal(FwpValue, kind, bytes(length - 1)) is MISMATCH
    assert refusal(FwpValue, kind, bytes(length + 1)) is MISMATCH
    assert refusal(FwpValue, kind, "0" * length) is MISMATCH


@pytest.mark.parametrize("kind", BYTES_TYPES)
def test_blobs(kind: DataType) -> None:
    """FWP_BYTE_BLOB_TYPE, FWP_SID, security descriptor, tokens: bytes, not text."""
    assert FwpValue(kind, b"\x01\x02").value == b"\x01\x02"
    assert refusal(FwpValue, kind, "x") is MISMATCH


def test_blob_is_a_copy() -> None:
    """Normal form: a value does not change when the buffer it was made from does."""
    buffer = bytearray(b"abc")
    value = FwpValue(DataType.BYTE_BLOB, memoryview(buffer))
    buffer[0] = 0
    assert value.value == b"abc"
    assert type(value.value) is bytes


def test_string() -> None:
    """FWP_UNICODE_STRING_TYPE: text, not bytes."""
    assert FwpValue(DataType.UNICODE_STRING, "naïve").value == "naïve"
    assert refusal(FwpValue, DataType.UNICODE_STRING, b"x") is MISMATCH


def test_empty() -> None:
    """FWP_EMPTY: no value at all."""
    assert FwpValue(DataType.EMPTY, None) == EMPTY
    assert EMPTY.value is None
    assert refusal(FwpValue, DataType.EMPTY, 0) is MISMATCH


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (DataType.V4_ADDR_MASK, V4AddrMask(0x0A000000, 0xFF000000)),
        (DataType.V6_ADDR_MASK, V6AddrMask(bytes(16), 0)),
        (DataType.RANGE, Range(uint16(1), uint16(2))),
    ],
)
def test_composite(kind: DataType, value: object) -> None:
    """FWP_V4_ADDR_MASK, FWP_V6_ADDR_MASK, FWP_RANGE_TYPE: only the object of that type."""
    assert FwpValue(kind, value).value is value
    assert refusal(FwpValue, kind, 1) is MISMATCH


def test_value_cannot_change() -> None:
    """A value that exists stays valid."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        uint8(1).value = 256  # type: ignore[misc]


def test_values_are_keys_and_types_differ() -> None:
    """Equal values are one key; the same number in another type is another value (no conversion, MGMT-9)."""
    assert len({uint16(80), FwpValue(DataType.UINT16, 80), uint32(80)}) == 2


def test_v4_mask_normalises() -> None:
    """FWP_V4_ADDR_AND_MASK: bits outside the mask are dropped, so one network has one form."""
    assert V4AddrMask(0x0A010203, 0xFFFF0000) == V4AddrMask(0x0A010000, 0xFFFF0000)
    assert V4AddrMask(0x0A010203, 0).addr == 0


@given(addr=st.integers(0, 2**32 - 1), prefix=st.integers(0, 32))
def test_v4_every_prefix(addr: int, prefix: int) -> None:
    """FWP_V4_ADDR_AND_MASK: each of the 33 contiguous masks is valid."""
    mask = int("1" * prefix + "0" * (32 - prefix), 2)
    assert V4AddrMask(addr, mask).addr == addr & mask


@given(st.integers(0, 2**32 - 1))
def test_v4_mask_with_a_gap(mask: int) -> None:
    """STATUS_FWP_INVALID_NET_MASK exactly when a zero bit stands left of a one bit."""
    if "01" in f"{mask:032b}":
        assert refusal(V4AddrMask, 0, mask) is NET_MASK
    else:
        assert V4AddrMask(0, mask).mask == mask


@pytest.mark.parametrize(
    ("addr", "mask", "status"),
    [
        (0, 0xFF00FF00, NET_MASK),
        (0, 0x000000FF, NET_MASK),
        (0, 0x7FFFFFFF, NET_MASK),
        (2**32, 0, BOUNDS),
        (-1, 0, BOUNDS),
        (0, 2**32, BOUNDS),
        (0, -1, BOUNDS),
        ("10.0.0.0", 0, MISMATCH),
        (0, "255.0.0.0", MISMATCH),
        (b"\n\0\0\0", 0, MISMATCH),
        (0, True, MISMATCH),
    ],
)
def test_v4_refusals(addr: Any, mask: Any, status: NtStatus) -> None:
    """FWP_V4_ADDR_AND_MASK: gap, too large, not a number."""
    assert refusal(V4AddrMask, addr, mask) is status


def test_v6_prefix_normalises() -> None:
    """FWP_V6_ADDR_AND_MASK: bits beyond the prefix are dropped, within a byte too."""
    every = b"\xff" * 16
    assert V6AddrMask(every, 0).addr == bytes(16)
    assert V6AddrMask(every, 12).addr == b"\xff\xf0" + bytes(14)
    assert V6AddrMask(every, 128).addr == every


@pytest.mark.parametrize(
    ("addr", "prefix", "status"),
    [
        (bytes(16), 129, NET_MASK),
        (bytes(16), -1, NET_MASK),
        (bytes(15), 0, MISMATCH),
        (bytes(4), 0, MISMATCH),
        ("::1", 128, MISMATCH),
        (1, 128, MISMATCH),
        (bytes(16), "64", MISMATCH),
    ],
)
def test_v6_refusals(addr: Any, prefix: Any, status: NtStatus) -> None:
    """FWP_V6_ADDR_AND_MASK: prefix beyond 128, not 16 bytes, not a number."""
    assert refusal(V6AddrMask, addr, prefix) is status


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (uint16(1024), uint16(65535)),
        (uint32(7), uint32(7)),
        (FwpValue(DataType.INT8, -5), FwpValue(DataType.INT8, 3)),
        (ipv6_value("::1"), ipv6_value("::ffff")),
        (FwpValue(DataType.BYTE_BLOB, b"a"), FwpValue(DataType.BYTE_BLOB, b"ab")),
        (FwpValue(DataType.UNICODE_STRING, "a"), FwpValue(DataType.UNICODE_STRING, "b")),
    ],
)
def test_range(low: FwpValue, high: FwpValue) -> None:
    """FWP_RANGE0: every sortable type, and a range of one."""
    pair = Range(low, high)
    assert (pair.low, pair.high) == (low, high)
    if low != high:
        assert refusal(Range, high, low) is RANGE


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (uint16(1), uint32(2)),
        (EMPTY, EMPTY),
        (FwpValue(DataType.DOUBLE, 1.0), FwpValue(DataType.DOUBLE, 2.0)),
        (FwpValue(DataType.SID, b"a"), FwpValue(DataType.SID, b"b")),
        (FwpValue(DataType.BYTE_ARRAY6, bytes(6)), FwpValue(DataType.BYTE_ARRAY6, bytes(6))),
        (1, 2),
        (uint8(1), 2),
    ],
)
def test_range_of_unfit_ends(low: Any, high: Any) -> None:
    """FWP_RANGE0: ends of two types, of a type without order (FWP_MATCH_TYPE), or no values at all."""
    assert refusal(Range, low, high) is MISMATCH


@pytest.mark.parametrize(
    ("make", "kind", "beyond"),
    [
        (uint8, DataType.UINT8, 2**8),
        (uint16, DataType.UINT16, 2**16),
        (uint32, DataType.UINT32, 2**32),
        (uint64, DataType.UINT64, 2**64),
    ],
)
def test_uint_helpers(make: Any, kind: DataType, beyond: int) -> None:
    """The short forms make the type they are named after, and check it."""
    assert make(beyond - 1) == FwpValue(kind, beyond - 1)
    assert refusal(make, beyond) is BOUNDS


def test_ipv4_is_host_order() -> None:
    """IP_LOCAL_ADDRESS at a V4 layer: UINT32, first octet in the highest byte."""
    assert ipv4_value("10.1.2.3") == uint32(0x0A010203)


def test_ipv6_is_network_order() -> None:
    """IP_LOCAL_ADDRESS at a V6 layer: BYTE_ARRAY16 as on the wire."""
    value = ipv6_value("2001:db8::1")
    assert value.type is DataType.BYTE_ARRAY16_TYPE
    assert value.value == bytes.fromhex("20010db8000000000000000000000001")


def test_ipv6_scope_is_dropped() -> None:
    """A socket's name of a link-local peer carries the interface; the field holds the address."""
    assert ipv6_value("fe80::1%eth0") == ipv6_value("fe80::1")


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.256", "::1", "example.org", "10.0.0.0/8"])
def test_not_an_ipv4_address(text: str) -> None:
    """STATUS_FWP_TYPE_MISMATCH for text that is no IPv4 address."""
    assert refusal(ipv4_value, text) is MISMATCH


@pytest.mark.parametrize("text", ["", "10.0.0.1", "::g", "::/0", "[::1]"])
def test_not_an_ipv6_address(text: str) -> None:
    """STATUS_FWP_TYPE_MISMATCH for text that is no IPv6 address."""
    assert refusal(ipv6_value, text) is MISMATCH
