"""The built-in layers: management key to run-time id, and the condition fields each one offers.

Owns where a condition field lies among a layer's fixed values and which type it has (FLD-1..FLD-13). Must not
know filters or objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from wfpstream.fwp import DataType, profile_at_least
from wfpstream.fwpm._keys import CONDITION_KEYS, LAYER_KEYS
from wfpstream.fwps._conditions import LISTENER_FIELD
from wfpstream.fwps._constants import (
    FieldsAleAuthConnect,
    FieldsAleAuthRecvAccept,
    FieldsAleConnectRedirect,
    FieldsAleFlowEstablished,
    FieldsStream,
    LayerId,
)


@dataclass(frozen=True, slots=True)
class Field:
    """A condition field of one layer: its name, place among the fixed values, and type."""

    name: str
    index: int
    type: DataType


@dataclass(frozen=True, slots=True)
class Layer:
    """A built-in layer (FWPM_LAYER0): key, name such as "stream_v4", run-time id, fields by condition key."""

    key: UUID
    name: str
    layer_id: LayerId
    fields: Mapping[UUID, Field]
    since: str = "vista"

    @property
    def is_stream(self) -> bool:
        return self.name.startswith("stream")


# An address is not listed: its type depends on the family. The identity types follow the FWP_MATCH_TYPE page.
_TYPES: Final = {
    "ip_local_address_type": DataType.UINT8,
    "ip_local_port": DataType.UINT16,
    "ip_remote_port": DataType.UINT16,
    "direction": DataType.UINT32,
    "flags": DataType.UINT32,
    "compartment_id": DataType.UINT32,
    "ip_protocol": DataType.UINT8,
    "ip_destination_address_type": DataType.UINT8,
    "ip_local_interface": DataType.UINT64,
    "interface_type": DataType.UINT32,
    "tunnel_type": DataType.UINT32,
    "ale_app_id": DataType.BYTE_BLOB_TYPE,
    "ale_user_id": DataType.TOKEN_ACCESS_INFORMATION_TYPE,
    "ale_remote_user_id": DataType.TOKEN_INFORMATION_TYPE,
    "ale_remote_machine_id": DataType.TOKEN_INFORMATION_TYPE,
    "ale_package_id": DataType.SID,
    "ale_original_app_id": DataType.BYTE_BLOB_TYPE,
    "listener": DataType.UNICODE_STRING_TYPE,
}

# OBJ-15: the fixed value, and so the condition, exists from Windows 10 1703 on.
_COMPARTMENT_ID: Final = CONDITION_KEYS["compartment_id"]


_STREAM: Final = {field.name.lower(): int(field) for field in FieldsStream}

# FCL lists these for FLOW_ESTABLISHED; ALE_ORIGINAL_APP_ID is a field there but not a condition.
_FLOW_ESTABLISHED: Final = {
    field.name.lower(): int(field)
    for field in FieldsAleFlowEstablished
    if field.name not in ("ALE_ORIGINAL_APP_ID", "ALE_SECURITY_ATTRIBUTE_FQBN_VALUE")
}

# FLD-11: as FLOW_ESTABLISHED without DIRECTION.
_AUTH_CONNECT: Final = {
    name: int(FieldsAleAuthConnect[name.upper()]) for name in _FLOW_ESTABLISHED if name != "direction"
}

# FLD-12. Interface conditions are accepted; their fields are empty, so they never match.
_AUTH_RECV_ACCEPT: Final = {
    name: int(FieldsAleAuthRecvAccept[name.upper()])
    for name in _AUTH_CONNECT
    if name not in ("ip_destination_address_type", "compartment_id")
}

# FLD-13.
_CONNECT_REDIRECT: Final = {
    field.name.lower(): int(field)
    for field in FieldsAleConnectRedirect
    if field.name not in ("ALE_SECURITY_ATTRIBUTE_FQBN_VALUE", "COMPARTMENT_ID")
}


def _fields(indices: Mapping[str, int], address: DataType) -> dict[UUID, Field]:
    table = {**indices, "listener": LISTENER_FIELD}
    return {
        CONDITION_KEYS[name]: Field(name, index, _TYPES.get(name, address)) for name, index in table.items()
    }


def _layers() -> Iterable[Layer]:
    offered = {
        "stream": _STREAM,
        "ale_flow_established": _FLOW_ESTABLISHED,
        "ale_auth_connect": _AUTH_CONNECT,
        "ale_auth_recv_accept": _AUTH_RECV_ACCEPT,
        "ale_connect_redirect": _CONNECT_REDIRECT,
    }
    for name, key in LAYER_KEYS.items():
        stem, _, family = name.removesuffix("_discard").rpartition("_")
        address = DataType.UINT32 if family == "v4" else DataType.BYTE_ARRAY16_TYPE
        since = "win7" if stem == "ale_connect_redirect" else "vista"
        yield Layer(key, name, LayerId[name.upper()], _fields(offered[stem], address), since)


LAYERS: Final[dict[UUID, Layer]] = {layer.key: layer for layer in _layers()}
"""Every layer of this engine by key, whatever the profile."""

_KEY_OF_ID: Final[dict[int, UUID]] = {layer.layer_id: layer.key for layer in LAYERS.values()}


def find_layer(key: UUID, profile: str) -> Layer | None:
    """The layer of that key if it exists under that OS profile (OBJ-15)."""
    layer = LAYERS.get(key)
    if layer is None or not profile_at_least(profile, layer.since):
        return None
    return layer


def find_field(layer: Layer, condition_key: UUID, profile: str) -> Field | None:
    """The field a condition names, if the layer offers it under that OS profile (MGMT-9, OBJ-15)."""
    if condition_key == _COMPARTMENT_ID and not profile_at_least(profile, "win10"):
        return None
    return layer.fields.get(condition_key)


def layer_key_of(layer_id: int) -> UUID | None:
    """Management key of a run-time layer id; None for a layer this engine does not have."""
    return _KEY_OF_ID.get(layer_id)
