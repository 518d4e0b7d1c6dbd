"""Addresses of a flow as fixed fields: families, v4-mapped forms and the values of every layer (FLD-*).

Owns the translation of (host, port) pairs into field values. It must not know filters or callouts.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from wfpstream.fwp import AddressType, DataType, FwpValue, profile_at_least, uint8, uint16, uint32

from ._constants import (
    LAYERS_BY_NAME,
    FieldsAleAuthConnect,
    FieldsAleAuthRecvAccept,
    FieldsAleConnectRedirect,
    FieldsAleFlowEstablished,
    LayerId,
)
from ._endpoints import Address, Endpoints

_EMPTY = FwpValue(DataType.EMPTY, None)
_UNICAST = uint8(int(AddressType.UNICAST))
_TCP = uint8(6)
_COMPARTMENT = uint32(1)  # FLD-8
_OUTBOUND, _INBOUND = uint32(0), uint32(1)
_flags = lru_cache(maxsize=64)(uint32)  # there are few combinations of flags
IS_LOOPBACK, IS_REAUTHORIZE, IS_CONNECTION_REDIRECTED = 0x1, 0x4, 0x00100000

_LENGTHS = {
    "flow_established": 20,
    "auth_connect": 37,
    "auth_recv_accept": 35,
    "connect_redirect": 14,
}


@lru_cache(maxsize=1024)  # a connection asks a dozen times, and its addresses come again
def parse(host: str) -> IPv4Address | IPv6Address:
    """A numeric address; a v4-mapped one is IPv4 (LAY-2), a scope is dropped, a name becomes 0.0.0.0."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return IPv4Address(0)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_v6(endpoints: Endpoints) -> bool:
    """LAY-10: the family of the client's connection decides."""
    host = endpoints.client[0]
    return ":" in host and isinstance(parse(host), IPv6Address)  # without a colon it is IPv4, or a name


def local_and_remote(endpoints: Endpoints) -> tuple[Address, Address]:
    """FLD-10: which addresses are LOCAL and REMOTE."""
    if endpoints.local == "client":
        return endpoints.client, endpoints.destination
    return endpoints.listener_address or endpoints.destination, endpoints.client


@lru_cache(maxsize=1024)
def address_value(host: str, v6: bool) -> FwpValue:
    """LAY-10: v4-mapped in a V6 flow, 0.0.0.0 for an IPv6 address in a V4 flow."""
    address = parse(host)
    if not v6:
        return uint32(int(address) if isinstance(address, IPv4Address) else 0)
    if isinstance(address, IPv4Address):
        address = IPv6Address(f"::ffff:{address}")
    return FwpValue(DataType.BYTE_ARRAY16_TYPE, address.packed)


def direction_value(endpoints: Endpoints) -> FwpValue:
    """FLD-6: of the connection, the same for both data directions: 0 outbound, 1 inbound."""
    return _OUTBOUND if endpoints.local == "client" else _INBOUND


def loopback_flag(endpoints: Endpoints) -> int:
    """FLD-7."""
    local, remote = local_and_remote(endpoints)
    return IS_LOOPBACK if parse(local[0]).is_loopback and parse(remote[0]).is_loopback else 0


def stream_values(endpoints: Endpoints, profile: str) -> list[FwpValue]:
    """FLD-1..FLD-10, in the order of FWPS_FIELDS_STREAM_V4."""
    v6 = is_v6(endpoints)
    local, remote = local_and_remote(endpoints)
    values = [
        address_value(local[0], v6),
        _UNICAST,
        address_value(remote[0], v6),
        uint16(local[1]),
        uint16(remote[1]),
        direction_value(endpoints),
        _flags(loopback_flag(endpoints)),
    ]
    if profile_at_least(profile, "win10"):
        values.append(_COMPARTMENT)
    return values


def flow_established_values(endpoints: Endpoints) -> list[FwpValue]:
    """FWPS_FIELDS_ALE_FLOW_ESTABLISHED_V4, identity fields FWP_EMPTY."""
    fields = FieldsAleFlowEstablished
    values = _ale_values(endpoints, fields, _LENGTHS["flow_established"], local_and_remote(endpoints)[1], 0)
    values[fields.DIRECTION] = direction_value(endpoints)
    values[fields.IP_DESTINATION_ADDRESS_TYPE] = _UNICAST
    return values


def auth_connect_values(endpoints: Endpoints, target: Address, flags: int) -> list[FwpValue]:
    """FLD-11; `target` is the destination after a redirect (LAY-27)."""
    values = _ale_values(endpoints, FieldsAleAuthConnect, _LENGTHS["auth_connect"], target, flags)
    values[FieldsAleAuthConnect.IP_DESTINATION_ADDRESS_TYPE] = _UNICAST
    return values


def auth_recv_accept_values(endpoints: Endpoints, flags: int) -> list[FwpValue]:
    """FLD-12."""
    remote = local_and_remote(endpoints)[1]
    return _ale_values(endpoints, FieldsAleAuthRecvAccept, _LENGTHS["auth_recv_accept"], remote, flags)


def connect_redirect_values(endpoints: Endpoints, flags: int) -> list[FwpValue]:
    """FLD-13."""
    fields = FieldsAleConnectRedirect
    remote = local_and_remote(endpoints)[1]
    values = _ale_values(endpoints, fields, _LENGTHS["connect_redirect"], remote, flags, loopback=False)
    values[fields.IP_DESTINATION_ADDRESS_TYPE] = _UNICAST
    return values


def _ale_values(
    endpoints: Endpoints,
    fields: type[FieldsAleFlowEstablished]
    | type[FieldsAleAuthConnect]
    | type[FieldsAleAuthRecvAccept]
    | type[FieldsAleConnectRedirect],
    length: int,
    remote: Address,
    flags: int,
    loopback: bool = True,
) -> list[FwpValue]:
    v6 = is_v6(endpoints)
    local = local_and_remote(endpoints)[0]
    values = [_EMPTY] * length
    values[fields.IP_LOCAL_ADDRESS] = address_value(local[0], v6)
    values[fields.IP_LOCAL_ADDRESS_TYPE] = _UNICAST
    values[fields.IP_LOCAL_PORT] = uint16(local[1])
    values[fields.IP_REMOTE_ADDRESS] = address_value(remote[0], v6)
    values[fields.IP_REMOTE_PORT] = uint16(remote[1])
    values[fields.IP_PROTOCOL] = _TCP
    values[fields.FLAGS] = _flags(flags | (loopback_flag(endpoints) if loopback else 0))
    values[fields.COMPARTMENT_ID] = _COMPARTMENT
    return values


def layer_for(name: str, v6: bool) -> LayerId:
    """The V4 or V6 member of a layer family."""
    return LAYERS_BY_NAME[name][v6]
