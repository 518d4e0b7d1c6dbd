"""Condition values as people write them, to FWPM conditions.

Owns the spelling of addresses, networks, ranges, flags and directions for each field. Where a layer name
means both families, an IPv4 value is also understood on the IPv6 layer, as the v4-mapped address it is
presented there (LAY-10); an IPv6 value cannot occur on the IPv4 layer.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from wfpstream.fwp import (
    ConditionFlags,
    DataType,
    Direction,
    FwpError,
    FwpValue,
    MatchType,
    Range,
    V4AddrMask,
    V6AddrMask,
)

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_INTEGERS = (DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64)
_MAPPED_PREFIX = b"\0" * 10 + b"\xff\xff"
_MAPPED_BITS = 96
_RANGE = re.compile(r"\s*(.+?)\s*-\s*(.+?)\s*")


def is_range(value: object) -> bool:
    """Whether a value of `when` is a range, `1000-2000`."""
    return isinstance(value, str) and _RANGE.fullmatch(value) is not None


def condition_value(name: str, kind: DataType, match: MatchType, value: object) -> FwpValue | None:
    """The FWP value a condition compares with.

    Args:
        name: the field's name, such as `ip_remote_port`.
        kind: the field's type at that layer.
        match: the match type.
        value: what the configuration says.

    Returns:
        The value, or None if the layer's family never has such an address.

    Raises:
        ValueError: the field takes something else; the text says what.
    """
    try:
        if match == MatchType.RANGE:
            return _range(name, kind, value)
        if name.endswith("_address"):
            return _network(kind, value)
        return _scalar(name, kind, match, value)
    except FwpError as error:
        raise ValueError(error.text) from error


def _range(name: str, kind: DataType, value: object) -> FwpValue | None:
    if isinstance(value, str) and (found := _RANGE.fullmatch(value)):
        ends: Sequence[object] = found.groups()
    elif isinstance(value, list) and len(value) == 2:
        ends = value
    else:
        raise ValueError('expected a range such as "1000-2000" or [1000, 2000]')
    values = [_range_end(name, kind, end) for end in ends]
    low, high = values
    if low is None or high is None:
        return None
    return FwpValue(DataType.RANGE_TYPE, Range(low, high))


def _range_end(name: str, kind: DataType, end: object) -> FwpValue | None:
    if name.endswith("_address"):
        return _address(kind, end)
    if isinstance(end, str) and kind in _INTEGERS and end.isdecimal():
        end = int(end)
    return _scalar(name, kind, MatchType.EQUAL, end)


def _scalar(name: str, kind: DataType, match: MatchType, value: object) -> FwpValue:
    if name == "direction":
        return FwpValue(kind, _direction(value))
    if name == "flags":
        return FwpValue(kind, _flags(value))
    if name == "ip_protocol" and value == "tcp":
        return FwpValue(kind, 6)
    if kind in _INTEGERS:
        if isinstance(value, bool) or not isinstance(value, int):
            what = 'a range needs match = "range"' if is_range(value) else f"expected a number for {name}"
            raise ValueError(what)
        return FwpValue(kind, value)
    if kind in (DataType.UNICODE_STRING_TYPE, DataType.BYTE_BLOB_TYPE):
        if not isinstance(value, str):
            raise ValueError(f"expected text for {name}")
        return FwpValue(kind, value if kind == DataType.UNICODE_STRING_TYPE else value.encode())
    raise ValueError(f"{name} has no value a configuration could name")


def _direction(value: object) -> int:
    names = {direction.name.lower(): int(direction) for direction in Direction}
    if isinstance(value, str) and value in names:
        return names[value]
    if isinstance(value, int) and value in names.values():
        return int(value)
    raise ValueError('expected "outbound" or "inbound"')


def _flags(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    names = value if isinstance(value, list) else [value]
    flags = 0
    for name in names:
        known = ConditionFlags.__members__.get(str(name).upper())
        if known is None:
            raise ValueError('expected flags such as "is_loopback", a list of them, or a number')
        flags |= int(known)
    return flags


def _network(kind: DataType, value: object) -> FwpValue | None:
    network = _parse_network(value)
    if network.num_addresses == 1:
        return _address(kind, str(network.network_address))
    if isinstance(network, ipaddress.IPv4Network):
        if kind == DataType.UINT32:
            mask = V4AddrMask(int(network.network_address), int(network.netmask))
            return FwpValue(DataType.V4_ADDR_MASK, mask)
        mapped = _MAPPED_PREFIX + network.network_address.packed
        return FwpValue(DataType.V6_ADDR_MASK, V6AddrMask(mapped, _MAPPED_BITS + network.prefixlen))
    if kind == DataType.UINT32:
        return None
    return FwpValue(DataType.V6_ADDR_MASK, V6AddrMask(network.network_address.packed, network.prefixlen))


def _parse_network(value: object) -> _Network:
    try:
        if not isinstance(value, str):
            raise ValueError
        return ipaddress.ip_network(value)
    except ValueError as error:
        hint = f" ({error})" if "host bits" in str(error) else ""
        raise ValueError(
            f'expected an address or a network such as "10.0.0.0/8" or "fe80::/10"{hint}'
        ) from None


def _address(kind: DataType, value: object) -> FwpValue | None:
    network = _parse_network(value)
    if network.num_addresses != 1:
        raise ValueError("expected an address, not a network")
    address = network.network_address
    if kind == DataType.UINT32:
        return FwpValue(kind, int(address)) if isinstance(address, ipaddress.IPv4Address) else None
    packed = address.packed
    return FwpValue(kind, packed if len(packed) == 16 else _MAPPED_PREFIX + packed)
