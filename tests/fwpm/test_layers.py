"""Layers and the fields they offer (LAY-1, FLD-1..FLD-13, OBJ-15), against literal tables."""

from __future__ import annotations

from uuid import UUID

import pytest

from wfpstream import fwpm
from wfpstream.fwp import DataType

STREAM = {
    "ip_local_address": 0,
    "ip_local_address_type": 1,
    "ip_remote_address": 2,
    "ip_local_port": 3,
    "ip_remote_port": 4,
    "direction": 5,
    "flags": 6,
    "compartment_id": 7,
    "listener": -1,
}
FLOW_ESTABLISHED = {
    "ale_app_id": 0,
    "ale_user_id": 1,
    "ip_local_address": 2,
    "ip_local_address_type": 3,
    "ip_local_port": 4,
    "ip_protocol": 5,
    "ip_remote_address": 6,
    "ip_remote_port": 7,
    "ale_remote_user_id": 8,
    "ale_remote_machine_id": 9,
    "ip_destination_address_type": 10,
    "ip_local_interface": 11,
    "direction": 12,
    "interface_type": 13,
    "tunnel_type": 14,
    "flags": 15,
    "ale_package_id": 17,
    "compartment_id": 19,
    "listener": -1,
}
AUTH_CONNECT = {
    "ale_app_id": 0,
    "ale_user_id": 1,
    "ip_local_address": 2,
    "ip_local_address_type": 3,
    "ip_local_port": 4,
    "ip_protocol": 5,
    "ip_remote_address": 6,
    "ip_remote_port": 7,
    "ale_remote_user_id": 8,
    "ale_remote_machine_id": 9,
    "ip_destination_address_type": 10,
    "ip_local_interface": 11,
    "flags": 12,
    "interface_type": 13,
    "tunnel_type": 14,
    "ale_package_id": 33,
    "compartment_id": 36,
    "listener": -1,
}
AUTH_RECV_ACCEPT = {
    "ale_app_id": 0,
    "ale_user_id": 1,
    "ip_local_address": 2,
    "ip_local_address_type": 3,
    "ip_local_port": 4,
    "ip_protocol": 5,
    "ip_remote_address": 6,
    "ip_remote_port": 7,
    "ale_remote_user_id": 8,
    "ale_remote_machine_id": 9,
    "ip_local_interface": 10,
    "flags": 11,
    "interface_type": 14,
    "tunnel_type": 15,
    "ale_package_id": 32,
    "listener": -1,
}
CONNECT_REDIRECT = {
    "ale_app_id": 0,
    "ale_user_id": 1,
    "ip_local_address": 2,
    "ip_local_address_type": 3,
    "ip_local_port": 4,
    "ip_protocol": 5,
    "ip_remote_address": 6,
    "ip_destination_address_type": 7,
    "ip_remote_port": 8,
    "flags": 9,
    "ale_original_app_id": 10,
    "ale_package_id": 11,
    "listener": -1,
}

LAYERS = [
    ("stream_v4", "3b89653c-c170-49e4-b1cd-e0eeeee19a3e", 20, STREAM),
    ("stream_v4_discard", "25c4c2c2-25ff-4352-82f9-c54a4a4726dc", 21, STREAM),
    ("stream_v6", "47c9137a-7ec4-46b3-b6e4-48e926b1eda4", 22, STREAM),
    ("stream_v6_discard", "10a59fc7-b628-4c41-9eb8-cf37d55103cf", 23, STREAM),
    ("ale_auth_recv_accept_v4", "e1cd9fe7-f4b5-4273-96c0-592e487b8650", 44, AUTH_RECV_ACCEPT),
    ("ale_auth_recv_accept_v6", "a3b42c97-9f04-4672-b87e-cee9c483257f", 46, AUTH_RECV_ACCEPT),
    ("ale_auth_connect_v4", "c38d57d1-05a7-4c33-904f-7fbceee60e82", 48, AUTH_CONNECT),
    ("ale_auth_connect_v6", "4a72393b-319f-44bc-84c3-ba54dcb3b6b4", 50, AUTH_CONNECT),
    ("ale_flow_established_v4", "af80470a-5596-4c13-9992-539e6fe57967", 52, FLOW_ESTABLISHED),
    ("ale_flow_established_v6", "7021d2b3-dfa4-406e-afeb-6afaf7e70efd", 54, FLOW_ESTABLISHED),
    ("ale_connect_redirect_v4", "c6e63c8c-b784-4562-aa7d-0a67cfcaf9a3", 66, CONNECT_REDIRECT),
    ("ale_connect_redirect_v6", "587e54a7-8046-42ba-a0aa-b716250fc7fd", 67, CONNECT_REDIRECT),
]


@pytest.mark.parametrize(("name", "key", "layer_id", "fields"), LAYERS, ids=[row[0] for row in LAYERS])
def test_fld_1_to_13_each_layer_offers_exactly_its_fields(
    name: str, key: str, layer_id: int, fields: dict[str, int]
) -> None:
    layer = fwpm.find_layer(UUID(key), "win10")
    assert layer is not None
    assert (layer.name, layer.layer_id) == (name, layer_id)
    assert fwpm.LAYER_KEYS[name] == UUID(key)
    assert fwpm.layer_key_of(layer_id) == UUID(key)
    assert {one.name: one.index for one in layer.fields.values()} == fields


def test_lay_1_no_other_layers() -> None:
    assert {layer.name for layer in fwpm.LAYERS.values()} == {row[0] for row in LAYERS}
    assert fwpm.layer_key_of(64) is None


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (fwpm.CONDITION_IP_LOCAL_ADDRESS_TYPE, DataType.UINT8),
        (fwpm.CONDITION_IP_LOCAL_PORT, DataType.UINT16),
        (fwpm.CONDITION_IP_REMOTE_PORT, DataType.UINT16),
        (fwpm.CONDITION_IP_PROTOCOL, DataType.UINT8),
        (fwpm.CONDITION_DIRECTION, DataType.UINT32),
        (fwpm.CONDITION_FLAGS, DataType.UINT32),
        (fwpm.CONDITION_COMPARTMENT_ID, DataType.UINT32),
        (fwpm.CONDITION_IP_LOCAL_INTERFACE, DataType.UINT64),
        (fwpm.CONDITION_ALE_APP_ID, DataType.BYTE_BLOB_TYPE),
        (fwpm.CONDITION_LISTENER, DataType.UNICODE_STRING_TYPE),
    ],
)
def test_field_types(condition: UUID, expected: DataType) -> None:
    assert fwpm.LAYERS[fwpm.LAYER_ALE_FLOW_ESTABLISHED_V4].fields[condition].type is expected


@pytest.mark.parametrize("name", ["ip_local_address", "ip_remote_address"])
def test_fld_1_addresses_depend_on_the_family(name: str) -> None:
    condition = fwpm.CONDITION_KEYS[name]
    assert fwpm.LAYERS[fwpm.LAYER_STREAM_V4].fields[condition].type is DataType.UINT32
    assert fwpm.LAYERS[fwpm.LAYER_STREAM_V6].fields[condition].type is DataType.BYTE_ARRAY16_TYPE


@pytest.mark.parametrize(
    ("profile", "expected"), [("vista", False), ("win7", False), ("win8", False), ("win10", True)]
)
def test_obj_15_compartment_id_needs_win10(profile: str, expected: bool) -> None:
    layer = fwpm.LAYERS[fwpm.LAYER_STREAM_V4]
    assert (fwpm.find_field(layer, fwpm.CONDITION_COMPARTMENT_ID, profile) is not None) is expected


@pytest.mark.parametrize(("profile", "expected"), [("vista", False), ("win7", True), ("win10", True)])
def test_obj_15_connect_redirect_needs_win7(profile: str, expected: bool) -> None:
    assert (fwpm.find_layer(fwpm.LAYER_ALE_CONNECT_REDIRECT_V4, profile) is not None) is expected


def test_names_for_people_mean_both_families() -> None:
    assert fwpm.layer_keys("stream") == (fwpm.LAYER_STREAM_V4, fwpm.LAYER_STREAM_V6)
    assert fwpm.layer_keys("stream_discard") == (fwpm.LAYER_STREAM_V4_DISCARD, fwpm.LAYER_STREAM_V6_DISCARD)
    assert fwpm.layer_keys("stream_v6") == (fwpm.LAYER_STREAM_V6,)
    assert fwpm.layer_keys("ale_auth_connect") == (
        fwpm.LAYER_ALE_AUTH_CONNECT_V4,
        fwpm.LAYER_ALE_AUTH_CONNECT_V6,
    )
    with pytest.raises(KeyError, match="nonsense"):
        fwpm.layer_keys("nonsense")
