"""Typed values: what fields carry and what conditions compare with (FWP_VALUE0, FWP_CONDITION_VALUE0).

Owns construction: a value that exists is valid and in its one normal form, so equal values compare equal and
can be dictionary keys. Must not know fields, layers or how values are matched.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, Final, NoReturn

from wfpstream.fwp._errors import FwpError
from wfpstream.fwp._status import NtStatus
from wfpstream.fwp._types import DataType

_IPV4_BITS: Final = 32
_IPV4_ALL: Final = 0xFFFF_FFFF
_IPV6_BITS: Final = 128
_IPV6_BYTES: Final = 16


def _mismatch(text: str) -> NoReturn:
    raise FwpError(NtStatus.STATUS_FWP_TYPE_MISMATCH, text)


def _integer(what: str, value: object) -> int:
    """A plain int; enumerations lose their class, and bool is refused: a truth value is not a number."""
    if isinstance(value, bool) or not isinstance(value, int):
        _mismatch(f"{what} must be an integer, not {type(value).__name__}")
    return int(value)


def _within(what: str, value: object, low: int, high: int) -> int:
    number = _integer(what, value)
    if not low <= number <= high:
        raise FwpError(NtStatus.STATUS_FWP_OUT_OF_BOUNDS, f"{what} {number} is not within {low}..{high}")
    return number


def _bytes(what: str, value: object, length: int | None = None) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        _mismatch(f"{what} must be bytes, not {type(value).__name__}")
    data = bytes(value)
    if length is not None and len(data) != length:
        _mismatch(f"{what} must be {length} bytes, not {len(data)}")
    return data


@dataclass(frozen=True, slots=True)
class FwpValue:
    """FWP_VALUE0 / FWP_CONDITION_VALUE0: `type` says what `value` is.

    EMPTY: None. UINTn and INTn: int. FLOAT, DOUBLE: float (FLOAT rounded to single precision).
    BYTE_ARRAY16, BYTE_ARRAY6: bytes of that length. BYTE_BLOB, SID, SECURITY_DESCRIPTOR and the two token
    types: bytes. UNICODE_STRING: str. V4_ADDR_MASK, V6_ADDR_MASK, RANGE: `V4AddrMask`, `V6AddrMask`, `Range`.

    Raises FwpError: STATUS_FWP_TYPE_MISMATCH when `value` does not fit `type`, or there is no such type;
    STATUS_FWP_OUT_OF_BOUNDS when a number is too large or too small for it.
    """

    type: DataType
    # Any, not a union: whoever reads it knows the type from the field, as with C's union.
    value: Any = None

    def __post_init__(self) -> None:
        bounds = _BOUNDS.get(self.type)
        if bounds is not None and type(self.value) is int and type(self.type) is DataType:
            low, high = bounds
            if low <= self.value <= high:
                return  # the usual case, and in its normal form already
        normalise = _NORMALISE.get(self.type)
        if normalise is None:
            _mismatch(f"no data type {self.type!r}")
        kind = DataType(self.type)
        object.__setattr__(self, "type", kind)
        object.__setattr__(self, "value", normalise(kind.name, self.value))


@dataclass(frozen=True, slots=True)
class V4AddrMask:
    """FWP_V4_ADDR_AND_MASK: an IPv4 network, address and mask as host-order 32-bit integers.

    The address keeps only the bits under the mask. Raises FwpError: STATUS_FWP_INVALID_NET_MASK when the
    mask's one bits are not all on its left, STATUS_FWP_OUT_OF_BOUNDS beyond 32 bits, STATUS_FWP_TYPE_MISMATCH
    when either is not an integer.
    """

    addr: int
    mask: int

    def __post_init__(self) -> None:
        addr = _within("IPv4 address", self.addr, 0, _IPV4_ALL)
        mask = _within("IPv4 mask", self.mask, 0, _IPV4_ALL)
        host_bits = mask ^ _IPV4_ALL
        if host_bits & (host_bits + 1):
            raise FwpError(NtStatus.STATUS_FWP_INVALID_NET_MASK, f"IPv4 mask 0x{mask:08X} has a gap")
        object.__setattr__(self, "addr", addr & mask)
        object.__setattr__(self, "mask", mask)


@dataclass(frozen=True, slots=True)
class V6AddrMask:
    """FWP_V6_ADDR_AND_MASK: an IPv6 network, 16 address bytes in network order and a prefix length in bits.

    The address keeps only the bits of the prefix. Raises FwpError: STATUS_FWP_INVALID_NET_MASK for a prefix
    outside 0..128, STATUS_FWP_TYPE_MISMATCH when the address is not 16 bytes or the prefix not an integer.
    """

    addr: bytes
    prefix_length: int

    def __post_init__(self) -> None:
        addr = _bytes("IPv6 address", self.addr, _IPV6_BYTES)
        prefix = _integer("IPv6 prefix length", self.prefix_length)
        if not 0 <= prefix <= _IPV6_BITS:
            raise FwpError(
                NtStatus.STATUS_FWP_INVALID_NET_MASK, f"IPv6 prefix length {prefix} is not within 0..128"
            )
        host_bits = _IPV6_BITS - prefix
        network = int.from_bytes(addr, "big") >> host_bits << host_bits
        object.__setattr__(self, "addr", network.to_bytes(_IPV6_BYTES, "big"))
        object.__setattr__(self, "prefix_length", prefix)


@dataclass(frozen=True, slots=True)
class Range:
    """FWP_RANGE0: `low` to `high`, both included, of one sortable type (FWP_MATCH_TYPE page).

    Sortable: the integers, BYTE_ARRAY16, BYTE_BLOB, UNICODE_STRING. Raises FwpError:
    STATUS_FWP_TYPE_MISMATCH when an end is not an `FwpValue`, the ends differ in type, or it is not sortable;
    STATUS_FWP_INVALID_RANGE when `low` is above `high`.
    """

    low: FwpValue
    high: FwpValue

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            _instance(FwpValue)("an end of a range", end)
        if self.low.type is not self.high.type:
            _mismatch(f"a range from {self.low.type.name} to {self.high.type.name}")
        if self.low.type not in _SORTABLE:
            _mismatch(f"{self.low.type.name} has no order, so no range")
        if self.low.value > self.high.value:
            raise FwpError(
                NtStatus.STATUS_FWP_INVALID_RANGE,
                f"range from {self.low.value!r} down to {self.high.value!r}",
            )


_Normalise = Callable[[str, object], object]


def _bounded(low: int, high: int) -> _Normalise:
    return lambda what, value: _within(what, value, low, high)


def _sized(length: int | None) -> _Normalise:
    return lambda what, value: _bytes(what, value, length)


def _instance(kind: type) -> _Normalise:
    def check(what: str, value: object) -> object:
        if not isinstance(value, kind):
            _mismatch(f"{what} must be {kind.__name__}, not {type(value).__name__}")
        return value

    return check


def _real(what: str, value: object) -> float:
    if isinstance(value, float):
        return value
    try:
        return float(_integer(what, value))
    except OverflowError:
        raise FwpError(NtStatus.STATUS_FWP_OUT_OF_BOUNDS, f"{what} cannot hold {value}") from None


def _single(what: str, value: object) -> float:
    number = _real(what, value)
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        raise FwpError(NtStatus.STATUS_FWP_OUT_OF_BOUNDS, f"{what} cannot hold {number}") from None
    return rounded


_BOUNDS: Final[dict[DataType, tuple[int, int]]] = {
    DataType.UINT8: (0, 2**8 - 1),
    DataType.UINT16: (0, 2**16 - 1),
    DataType.UINT32: (0, 2**32 - 1),
    DataType.UINT64: (0, 2**64 - 1),
    DataType.INT8: (-(2**7), 2**7 - 1),
    DataType.INT16: (-(2**15), 2**15 - 1),
    DataType.INT32: (-(2**31), 2**31 - 1),
    DataType.INT64: (-(2**63), 2**63 - 1),
}

# Tables of their own, so that building a value costs one lookup.
_NORMALISE: Final[dict[DataType, _Normalise]] = {
    DataType.EMPTY: _instance(type(None)),
    **{kind: _bounded(low, high) for kind, (low, high) in _BOUNDS.items()},
    DataType.FLOAT: _single,
    DataType.DOUBLE: _real,
    DataType.BYTE_ARRAY16_TYPE: _sized(16),
    DataType.BYTE_BLOB_TYPE: _sized(None),
    DataType.SID: _sized(None),
    DataType.SECURITY_DESCRIPTOR_TYPE: _sized(None),
    DataType.TOKEN_INFORMATION_TYPE: _sized(None),
    DataType.TOKEN_ACCESS_INFORMATION_TYPE: _sized(None),
    DataType.UNICODE_STRING_TYPE: _instance(str),
    DataType.BYTE_ARRAY6_TYPE: _sized(6),
    DataType.V4_ADDR_MASK: _instance(V4AddrMask),
    DataType.V6_ADDR_MASK: _instance(V6AddrMask),
    DataType.RANGE_TYPE: _instance(Range),
}

_SORTABLE: Final = frozenset(
    {
        *(DataType(number) for number in range(DataType.UINT8, DataType.INT64 + 1)),
        DataType.BYTE_ARRAY16_TYPE,
        DataType.BYTE_BLOB_TYPE,
        DataType.UNICODE_STRING_TYPE,
    }
)

# What a field carries that this system has no value for.
EMPTY: Final = FwpValue(DataType.EMPTY)


def uint8(n: int) -> FwpValue:
    """An FWP_UINT8; raises FwpError as `FwpValue` does."""
    return FwpValue(DataType.UINT8, n)


def uint16(n: int) -> FwpValue:
    """An FWP_UINT16, such as a port in host order; raises FwpError as `FwpValue` does."""
    return FwpValue(DataType.UINT16, n)


def uint32(n: int) -> FwpValue:
    """An FWP_UINT32; raises FwpError as `FwpValue` does."""
    return FwpValue(DataType.UINT32, n)


def uint64(n: int) -> FwpValue:
    """An FWP_UINT64; raises FwpError as `FwpValue` does."""
    return FwpValue(DataType.UINT64, n)


def ipv4_value(text: str) -> FwpValue:
    """A dotted IPv4 address as FWP_UINT32 in host order; FwpError STATUS_FWP_TYPE_MISMATCH if it is none."""
    try:
        return FwpValue(DataType.UINT32, int(IPv4Address(text)))
    except AddressValueError as error:
        _mismatch(f"not an IPv4 address: {error}")


def ipv6_value(text: str) -> FwpValue:
    """An IPv6 address as FWP_BYTE_ARRAY16, network order; FwpError STATUS_FWP_TYPE_MISMATCH if it is none.

    A scope ("fe80::1%eth0") is dropped: in WFP it is metadata, not part of the address.
    """
    try:
        return FwpValue(DataType.BYTE_ARRAY16_TYPE, IPv6Address(text).packed)
    except AddressValueError as error:
        _mismatch(f"not an IPv6 address: {error}")
