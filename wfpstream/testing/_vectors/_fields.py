"""Fixed values and addresses as vectors write them.

Owns the plain form of an FWP_VALUE: numbers as they are, addresses as text. It must not know who is called.
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from wfpstream.fwp import DataType, FwpValue
from wfpstream.fwps import IncomingValues


def fixed_values(fields: type[IntEnum], fixed: IncomingValues) -> dict[str, Any]:
    """The fixed values of a call by the names of their fields."""
    values = fixed.incoming_value
    return {field.name: _plain(field.name, values[field]) for field in fields if field < len(values)}


def plain_address(address: tuple[str, int] | None) -> list[Any] | None:
    """Address and port as a vector writes them."""
    return None if address is None else list(address)


def _plain(name: str, value: FwpValue) -> Any:
    if not name.endswith("_ADDRESS") or value.value is None:
        return value.value
    if value.type == DataType.UINT32:
        return str(IPv4Address(value.value))
    address = IPv6Address(value.value)
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped else str(address)
