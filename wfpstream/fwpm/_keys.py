"""Built-in keys: layers, condition fields, sublayers (WFP prefix `FWPM_`), and the names people give them.

Owns the UUIDs and the name tables configuration uses. Must not know which layer offers which field.
Values: Win32 metadata projections of the SDK; names: the WFP documentation.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

ZERO_KEY: Final = UUID(int=0)
"""GUID_NULL: on add, the engine generates a key (OBJ-6)."""

# FWPM_LAYER_*: only the layers this engine has (LAY-1).
LAYER_STREAM_V4: Final = UUID("3b89653c-c170-49e4-b1cd-e0eeeee19a3e")
LAYER_STREAM_V4_DISCARD: Final = UUID("25c4c2c2-25ff-4352-82f9-c54a4a4726dc")
LAYER_STREAM_V6: Final = UUID("47c9137a-7ec4-46b3-b6e4-48e926b1eda4")
LAYER_STREAM_V6_DISCARD: Final = UUID("10a59fc7-b628-4c41-9eb8-cf37d55103cf")
LAYER_ALE_FLOW_ESTABLISHED_V4: Final = UUID("af80470a-5596-4c13-9992-539e6fe57967")
LAYER_ALE_FLOW_ESTABLISHED_V6: Final = UUID("7021d2b3-dfa4-406e-afeb-6afaf7e70efd")
LAYER_ALE_AUTH_CONNECT_V4: Final = UUID("c38d57d1-05a7-4c33-904f-7fbceee60e82")
LAYER_ALE_AUTH_CONNECT_V6: Final = UUID("4a72393b-319f-44bc-84c3-ba54dcb3b6b4")
LAYER_ALE_AUTH_RECV_ACCEPT_V4: Final = UUID("e1cd9fe7-f4b5-4273-96c0-592e487b8650")
LAYER_ALE_AUTH_RECV_ACCEPT_V6: Final = UUID("a3b42c97-9f04-4672-b87e-cee9c483257f")
LAYER_ALE_CONNECT_REDIRECT_V4: Final = UUID("c6e63c8c-b784-4562-aa7d-0a67cfcaf9a3")
LAYER_ALE_CONNECT_REDIRECT_V6: Final = UUID("587e54a7-8046-42ba-a0aa-b716250fc7fd")

# FWPM_CONDITION_*.
CONDITION_IP_LOCAL_ADDRESS: Final = UUID("d9ee00de-c1ef-4617-bfe3-ffd8f5a08957")
CONDITION_IP_LOCAL_ADDRESS_TYPE: Final = UUID("6ec7f6c4-376b-45d7-9e9c-d337cedcd237")
CONDITION_IP_REMOTE_ADDRESS: Final = UUID("b235ae9a-1d64-49b8-a44c-5ff3d9095045")
CONDITION_IP_LOCAL_PORT: Final = UUID("0c1ba1af-5765-453f-af22-a8f791ac775b")
CONDITION_IP_REMOTE_PORT: Final = UUID("c35a604d-d22b-4e1a-91b4-68f674ee674b")
CONDITION_DIRECTION: Final = UUID("8784c146-ca97-44d6-9fd1-19fb1840cbf7")
CONDITION_FLAGS: Final = UUID("632ce23b-5167-435c-86d7-e903684aa80c")
CONDITION_COMPARTMENT_ID: Final = UUID("35a791ab-04ac-4ff2-a6bb-da6cfac71806")
CONDITION_IP_PROTOCOL: Final = UUID("3971ef2b-623e-4f9a-8cb1-6e79b806b9a7")
CONDITION_IP_DESTINATION_ADDRESS_TYPE: Final = UUID("1ec1b7c9-4eea-4f5e-b9ef-76beaaaf17ee")
CONDITION_IP_LOCAL_INTERFACE: Final = UUID("4cd62a49-59c3-4969-b7f3-bda5d32890a4")
CONDITION_INTERFACE_TYPE: Final = UUID("daf8cd14-e09e-4c93-a5ae-c5c13b73ffca")
CONDITION_TUNNEL_TYPE: Final = UUID("77a40437-8779-4868-a261-f5a902f1c0cd")
CONDITION_ALE_APP_ID: Final = UUID("d78e1e87-8644-4ea5-9437-d809ecefc971")
CONDITION_ALE_USER_ID: Final = UUID("af043a0a-b34d-4f86-979c-c90371af6e66")
CONDITION_ALE_REMOTE_USER_ID: Final = UUID("f63073b7-0189-4ab0-95a4-6123cbfab862")
CONDITION_ALE_REMOTE_MACHINE_ID: Final = UUID("1aa47f51-7f93-4508-a271-81abb00c9cab")
CONDITION_ALE_PACKAGE_ID: Final = UUID("71bc78fa-f17c-4997-a602-6abb261f351c")
CONDITION_ALE_ORIGINAL_APP_ID: Final = UUID("0e6cd086-e1fb-4212-842f-8a9f993fb3f6")
# Extension (4.1): the name of the proxy listener, offered at every layer. Our own key, a UUIDv5.
CONDITION_LISTENER: Final = UUID("9e09e411-de21-5cdd-82c5-d019e27abbaa")

# FWPM_SUBLAYER_*: the two whose weight is known well enough to keep their place.
SUBLAYER_UNIVERSAL: Final = UUID("eebecc03-ced4-4380-819a-2734397b2b74")
SUBLAYER_INSPECTION: Final = UUID("877519e1-e6a9-41a5-81b4-8c4f118e4a60")

LAYER_KEYS: Final[dict[str, UUID]] = {
    "stream_v4": LAYER_STREAM_V4,
    "stream_v4_discard": LAYER_STREAM_V4_DISCARD,
    "stream_v6": LAYER_STREAM_V6,
    "stream_v6_discard": LAYER_STREAM_V6_DISCARD,
    "ale_flow_established_v4": LAYER_ALE_FLOW_ESTABLISHED_V4,
    "ale_flow_established_v6": LAYER_ALE_FLOW_ESTABLISHED_V6,
    "ale_auth_connect_v4": LAYER_ALE_AUTH_CONNECT_V4,
    "ale_auth_connect_v6": LAYER_ALE_AUTH_CONNECT_V6,
    "ale_auth_recv_accept_v4": LAYER_ALE_AUTH_RECV_ACCEPT_V4,
    "ale_auth_recv_accept_v6": LAYER_ALE_AUTH_RECV_ACCEPT_V6,
    "ale_connect_redirect_v4": LAYER_ALE_CONNECT_REDIRECT_V4,
    "ale_connect_redirect_v6": LAYER_ALE_CONNECT_REDIRECT_V6,
}
"""Layer names with family: "stream_v4", "stream_v4_discard", "ale_flow_established_v6", ..."""

CONDITION_KEYS: Final[dict[str, UUID]] = {
    "ip_local_address": CONDITION_IP_LOCAL_ADDRESS,
    "ip_local_address_type": CONDITION_IP_LOCAL_ADDRESS_TYPE,
    "ip_remote_address": CONDITION_IP_REMOTE_ADDRESS,
    "ip_local_port": CONDITION_IP_LOCAL_PORT,
    "ip_remote_port": CONDITION_IP_REMOTE_PORT,
    "direction": CONDITION_DIRECTION,
    "flags": CONDITION_FLAGS,
    "compartment_id": CONDITION_COMPARTMENT_ID,
    "ip_protocol": CONDITION_IP_PROTOCOL,
    "ip_destination_address_type": CONDITION_IP_DESTINATION_ADDRESS_TYPE,
    "ip_local_interface": CONDITION_IP_LOCAL_INTERFACE,
    "interface_type": CONDITION_INTERFACE_TYPE,
    "tunnel_type": CONDITION_TUNNEL_TYPE,
    "ale_app_id": CONDITION_ALE_APP_ID,
    "ale_user_id": CONDITION_ALE_USER_ID,
    "ale_remote_user_id": CONDITION_ALE_REMOTE_USER_ID,
    "ale_remote_machine_id": CONDITION_ALE_REMOTE_MACHINE_ID,
    "ale_package_id": CONDITION_ALE_PACKAGE_ID,
    "ale_original_app_id": CONDITION_ALE_ORIGINAL_APP_ID,
    "listener": CONDITION_LISTENER,
}
"""Condition field names: "ip_remote_port", "direction", "listener", ..."""


def layer_keys(name: str) -> tuple[UUID, ...]:
    """Keys of a layer named for people: "stream_v4" is one layer, "stream" its IPv4 and its IPv6 form.

    Raises KeyError for a name that is neither.
    """
    if name in LAYER_KEYS:
        return (LAYER_KEYS[name],)
    stem, tail = (name.removesuffix("_discard"), "_discard") if name.endswith("_discard") else (name, "")
    both = (f"{stem}_v4{tail}", f"{stem}_v6{tail}")
    if both[0] not in LAYER_KEYS:
        raise KeyError(name)
    return (LAYER_KEYS[both[0]], LAYER_KEYS[both[1]])
