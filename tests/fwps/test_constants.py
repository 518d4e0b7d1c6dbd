"""The run time's constants against literal tables, one per section of the constants reference."""

from __future__ import annotations

from enum import IntEnum

import pytest

from wfpstream.fwps import _constants as constants
from wfpstream.fwps._constants import LAYERS_BY_NAME, LayerId, StreamFlags

STREAM_FLAGS = {
    "RECEIVE": 0x0000_0001,
    "RECEIVE_EXPEDITED": 0x0000_0002,
    "RECEIVE_DISCONNECT": 0x0000_0004,
    "RECEIVE_ABORT": 0x0000_0008,
    "RECEIVE_PUSH": 0x0000_0010,
    "SEND": 0x0001_0000,
    "SEND_EXPEDITED": 0x0002_0000,
    "SEND_NODELAY": 0x0004_0000,
    "SEND_DISCONNECT": 0x0008_0000,
    "SEND_ABORT": 0x0010_0000,
}

STREAM_ACTIONS = {
    "NONE": 0,
    "NEED_MORE_DATA": 1,
    "DROP_CONNECTION": 2,
    "DEFER": 3,
    "ALLOW_CONNECTION": 4,
}

CLASSIFY_OUT_FLAGS = {
    "ABSORB": 0x01,
    "BUFFER_LIMIT_REACHED": 0x02,
    "NO_MORE_DATA": 0x04,
    "ALE_FAST_CACHE_CHECK": 0x08,
    "ALE_FAST_CACHE_POSSIBLE": 0x10,
}

FILTER_FLAGS = {
    "CLEAR_ACTION_RIGHT": 0x0001,
    "PERMIT_IF_CALLOUT_UNREGISTERED": 0x0002,
    "OR_CONDITIONS": 0x0004,
    "HAS_SECURITY_REALM_PROVIDER_CONTEXT": 0x0008,
    "SILENT_MODE": 0x0010,
    "IPSEC_NO_ACQUIRE_INITIATE": 0x0020,
    "RESERVED0": 0x0040,
    "RESERVED1": 0x0080,
    "RESERVED2": 0x0100,
}

NOTIFY_TYPES = {"ADD_FILTER": 0, "DELETE_FILTER": 1, "ADD_FILTER_POST_COMMIT": 2}

METADATA_FIELDS = {
    "DISCARD_REASON": 0x0000_0001,
    "FLOW_HANDLE": 0x0000_0002,
    "IP_HEADER_SIZE": 0x0000_0004,
    "PROCESS_PATH": 0x0000_0008,
    "TOKEN": 0x0000_0010,
    "PROCESS_ID": 0x0000_0020,
    "SYSTEM_FLAGS": 0x0000_0040,
    "RESERVED": 0x0000_0080,
    "SOURCE_INTERFACE_INDEX": 0x0000_0100,
    "DESTINATION_INTERFACE_INDEX": 0x0000_0200,
    "TRANSPORT_HEADER_SIZE": 0x0000_0400,
    "COMPARTMENT_ID": 0x0000_0800,
    "FRAGMENT_DATA": 0x0000_1000,
    "PATH_MTU": 0x0000_2000,
    "COMPLETION_HANDLE": 0x0000_4000,
    "TRANSPORT_ENDPOINT_HANDLE": 0x0000_8000,
    "TRANSPORT_CONTROL_DATA": 0x0001_0000,
    "REMOTE_SCOPE_ID": 0x0002_0000,
    "PACKET_DIRECTION": 0x0004_0000,
    "PACKET_SYSTEM_CRITICAL": 0x0008_0000,
    "FORWARD_LAYER_OUTBOUND_PASS_THRU": 0x0010_0000,
    "FORWARD_LAYER_INBOUND_PASS_THRU": 0x0020_0000,
    "ALE_CLASSIFY_REQUIRED": 0x0040_0000,
    "TRANSPORT_HEADER_INCLUDE_HEADER": 0x0080_0000,
    "DESTINATION_PREFIX": 0x0100_0000,
    "ETHER_FRAME_LENGTH": 0x0200_0000,
    "PARENT_ENDPOINT_HANDLE": 0x0400_0000,
    "ICMP_ID_AND_SEQUENCE": 0x0800_0000,
    "LOCAL_REDIRECT_TARGET_PID": 0x1000_0000,
    "ORIGINAL_DESTINATION": 0x2000_0000,
    "REDIRECT_RECORD_HANDLE": 0x4000_0000,
    "SUB_PROCESS_TAG": 0x8000_0000,
}

INCOMING_FLAGS = {
    "CACHE_SAFE": 0x001,
    "ENFORCE_QUERY": 0x002,
    "ABSORB": 0x004,
    "CONNECTION_FAILING_INDICATION": 0x008,
    "MID_STREAM_INSPECTION": 0x010,
    "RECLASSIFY": 0x020,
    "IS_LOOSE_SOURCE_FLOW": 0x040,
    "IS_LOCAL_ONLY_FLOW": 0x080,
    "RESERVED0": 0x100,
}

LAYERS = {
    "STREAM_V4": 20,
    "STREAM_V4_DISCARD": 21,
    "STREAM_V6": 22,
    "STREAM_V6_DISCARD": 23,
    "ALE_AUTH_RECV_ACCEPT_V4": 44,
    "ALE_AUTH_RECV_ACCEPT_V4_DISCARD": 45,
    "ALE_AUTH_RECV_ACCEPT_V6": 46,
    "ALE_AUTH_RECV_ACCEPT_V6_DISCARD": 47,
    "ALE_AUTH_CONNECT_V4": 48,
    "ALE_AUTH_CONNECT_V4_DISCARD": 49,
    "ALE_AUTH_CONNECT_V6": 50,
    "ALE_AUTH_CONNECT_V6_DISCARD": 51,
    "ALE_FLOW_ESTABLISHED_V4": 52,
    "ALE_FLOW_ESTABLISHED_V4_DISCARD": 53,
    "ALE_FLOW_ESTABLISHED_V6": 54,
    "ALE_FLOW_ESTABLISHED_V6_DISCARD": 55,
    "ALE_ENDPOINT_CLOSURE_V4": 64,
    "ALE_ENDPOINT_CLOSURE_V6": 65,
    "ALE_CONNECT_REDIRECT_V4": 66,
    "ALE_CONNECT_REDIRECT_V6": 67,
}

STREAM = {
    "IP_LOCAL_ADDRESS": 0,
    "IP_LOCAL_ADDRESS_TYPE": 1,
    "IP_REMOTE_ADDRESS": 2,
    "IP_LOCAL_PORT": 3,
    "IP_REMOTE_PORT": 4,
    "DIRECTION": 5,
    "FLAGS": 6,
    "COMPARTMENT_ID": 7,
}

ALE_FLOW_ESTABLISHED = {
    "ALE_APP_ID": 0,
    "ALE_USER_ID": 1,
    "IP_LOCAL_ADDRESS": 2,
    "IP_LOCAL_ADDRESS_TYPE": 3,
    "IP_LOCAL_PORT": 4,
    "IP_PROTOCOL": 5,
    "IP_REMOTE_ADDRESS": 6,
    "IP_REMOTE_PORT": 7,
    "ALE_REMOTE_USER_ID": 8,
    "ALE_REMOTE_MACHINE_ID": 9,
    "IP_DESTINATION_ADDRESS_TYPE": 10,
    "IP_LOCAL_INTERFACE": 11,
    "DIRECTION": 12,
    "INTERFACE_TYPE": 13,
    "TUNNEL_TYPE": 14,
    "FLAGS": 15,
    "ALE_ORIGINAL_APP_ID": 16,
    "ALE_PACKAGE_ID": 17,
    "ALE_SECURITY_ATTRIBUTE_FQBN_VALUE": 18,
    "COMPARTMENT_ID": 19,
}

ALE_AUTH_CONNECT = {
    "ALE_APP_ID": 0,
    "ALE_USER_ID": 1,
    "IP_LOCAL_ADDRESS": 2,
    "IP_LOCAL_ADDRESS_TYPE": 3,
    "IP_LOCAL_PORT": 4,
    "IP_PROTOCOL": 5,
    "IP_REMOTE_ADDRESS": 6,
    "IP_REMOTE_PORT": 7,
    "ALE_REMOTE_USER_ID": 8,
    "ALE_REMOTE_MACHINE_ID": 9,
    "IP_DESTINATION_ADDRESS_TYPE": 10,
    "IP_LOCAL_INTERFACE": 11,
    "FLAGS": 12,
    "INTERFACE_TYPE": 13,
    "TUNNEL_TYPE": 14,
    "REAUTHORIZE_REASON": 28,
    "ALE_ORIGINAL_APP_ID": 32,
    "ALE_PACKAGE_ID": 33,
    "ALE_SECURITY_ATTRIBUTE_FQBN_VALUE": 34,
    "COMPARTMENT_ID": 36,
}

ALE_AUTH_RECV_ACCEPT = {
    "ALE_APP_ID": 0,
    "ALE_USER_ID": 1,
    "IP_LOCAL_ADDRESS": 2,
    "IP_LOCAL_ADDRESS_TYPE": 3,
    "IP_LOCAL_PORT": 4,
    "IP_PROTOCOL": 5,
    "IP_REMOTE_ADDRESS": 6,
    "IP_REMOTE_PORT": 7,
    "ALE_REMOTE_USER_ID": 8,
    "ALE_REMOTE_MACHINE_ID": 9,
    "IP_LOCAL_INTERFACE": 10,
    "FLAGS": 11,
    "SIO_FIREWALL_SYSTEM_PORT": 12,
    "NAP_CONTEXT": 13,
    "INTERFACE_TYPE": 14,
    "TUNNEL_TYPE": 15,
    "REAUTHORIZE_REASON": 29,
    "ALE_PACKAGE_ID": 32,
    "ALE_SECURITY_ATTRIBUTE_FQBN_VALUE": 33,
    "COMPARTMENT_ID": 34,
}

ALE_CONNECT_REDIRECT = {
    "ALE_APP_ID": 0,
    "ALE_USER_ID": 1,
    "IP_LOCAL_ADDRESS": 2,
    "IP_LOCAL_ADDRESS_TYPE": 3,
    "IP_LOCAL_PORT": 4,
    "IP_PROTOCOL": 5,
    "IP_REMOTE_ADDRESS": 6,
    "IP_DESTINATION_ADDRESS_TYPE": 7,
    "IP_REMOTE_PORT": 8,
    "FLAGS": 9,
    "ALE_ORIGINAL_APP_ID": 10,
    "ALE_PACKAGE_ID": 11,
    "ALE_SECURITY_ATTRIBUTE_FQBN_VALUE": 12,
    "COMPARTMENT_ID": 13,
}

INJECTION_STATES = {
    "NOT_INJECTED": 0,
    "INJECTED_BY_SELF": 1,
    "INJECTED_BY_OTHER": 2,
    "PREVIOUSLY_INJECTED_BY_SELF": 3,
}

REDIRECT_STATES = {
    "NOT_REDIRECTED": 0,
    "REDIRECTED_BY_SELF": 1,
    "REDIRECTED_BY_OTHER": 2,
    "PREVIOUSLY_REDIRECTED_BY_SELF": 3,
}


@pytest.mark.parametrize(
    ("enumeration", "table"),
    [
        pytest.param(constants.StreamFlags, STREAM_FLAGS, id="FWPS_STREAM_FLAG"),
        pytest.param(constants.StreamActionType, STREAM_ACTIONS, id="FWPS_STREAM_ACTION_TYPE"),
        pytest.param(constants.ClassifyOutFlags, CLASSIFY_OUT_FLAGS, id="FWPS_CLASSIFY_OUT_FLAG"),
        pytest.param(constants.FilterRunFlags, FILTER_FLAGS, id="FWPS_FILTER_FLAG"),
        pytest.param(constants.NotifyType, NOTIFY_TYPES, id="FWPS_CALLOUT_NOTIFY_TYPE"),
        pytest.param(constants.MetadataField, METADATA_FIELDS, id="FWPS_METADATA_FIELD"),
        pytest.param(constants.IncomingFlag, INCOMING_FLAGS, id="FWPS_INCOMING_FLAG"),
        pytest.param(
            constants.DiscardModule, {"NETWORK": 0, "TRANSPORT": 1, "GENERAL": 2}, id="FWPS_DISCARD_MODULE0"
        ),
        pytest.param(
            constants.GeneralDiscardReason,
            {"FIREWALL_POLICY": 0, "IPSEC": 1},
            id="FWPS_GENERAL_DISCARD_REASON",
        ),
        pytest.param(constants.LayerId, LAYERS, id="FWPS_BUILTIN_LAYERS"),
        pytest.param(constants.FieldsStream, STREAM, id="FWPS_FIELDS_STREAM"),
        pytest.param(
            constants.FieldsAleFlowEstablished, ALE_FLOW_ESTABLISHED, id="FWPS_FIELDS_ALE_FLOW_ESTABLISHED"
        ),
        pytest.param(constants.FieldsAleAuthConnect, ALE_AUTH_CONNECT, id="FWPS_FIELDS_ALE_AUTH_CONNECT"),
        pytest.param(
            constants.FieldsAleAuthRecvAccept, ALE_AUTH_RECV_ACCEPT, id="FWPS_FIELDS_ALE_AUTH_RECV_ACCEPT"
        ),
        pytest.param(
            constants.FieldsAleConnectRedirect, ALE_CONNECT_REDIRECT, id="FWPS_FIELDS_ALE_CONNECT_REDIRECT"
        ),
        pytest.param(
            constants.InjectionType,
            {"STREAM": 0x1, "TRANSPORT": 0x2, "NETWORK": 0x4, "FORWARD": 0x8, "L2": 0x10},
            id="FWPS_INJECTION_TYPE",
        ),
        pytest.param(constants.PacketInjectionState, INJECTION_STATES, id="FWPS_PACKET_INJECTION_STATE"),
        pytest.param(constants.ConnectionRedirectState, REDIRECT_STATES, id="FWPS_CONNECTION_REDIRECT_STATE"),
    ],
)
def test_members_are_those_of_the_section(enumeration: type[IntEnum], table: dict[str, int]) -> None:
    """Every name and value of the section, and nothing else."""
    assert {member.name: member.value for member in enumeration} == table


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RECEIVE_FAMILY", 0x0000_001F),
        ("SEND_FAMILY", 0x001F_0000),
        ("DEFINED_STREAM_FLAGS", 0x001F_001F),
        ("STREAM_ACTION_TYPE_MAX", 5),
        ("RIGHT_ACTION_WRITE", 1),
        ("NOTIFY_TYPE_MAX", 3),
        ("PACKET_INJECTION_STATE_MAX", 4),
        ("CONNECTION_REDIRECT_STATE_MAX", 4),
        ("FIELDS_STREAM_MAX", 8),
        ("NEED_MORE_DATA_LIMIT", 8_388_608),
        ("AF_UNSPEC", 0),
        ("AF_INET", 2),
        ("AF_INET6", 23),
    ],
)
def test_masks_markers_and_limits(name: str, value: int) -> None:
    """FWPS_STREAM_FLAG_* masks, rights, ..._MAX markers, Limits, Injection handle types."""
    assert getattr(constants, name) == value


def test_stream_masks_cover_the_flags() -> None:
    """FWPS_STREAM_FLAG_*: each flag belongs to the family its name says, and every mask bit is a flag."""
    for flag in StreamFlags:
        receiving = flag.name is not None and flag.name.startswith("RECEIVE")
        assert bool(flag & constants.RECEIVE_FAMILY) is receiving
        assert bool(flag & constants.SEND_FAMILY) is not receiving
    assert sum(StreamFlags) == constants.DEFINED_STREAM_FLAGS


def test_metadata_fields_fill_the_word() -> None:
    """FWPS_METADATA_FIELD_*: 32 fields, 32 bits."""
    assert sum(constants.MetadataField) == 0xFFFF_FFFF


def test_reauthorize_flag_is_one_bit() -> None:
    """FWPS_CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS: value not found, ours is a single 32-bit flag."""
    assert constants.CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS.bit_count() == 1
    assert constants.CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS < 2**32


@pytest.mark.parametrize("number", [70, 71])
def test_stream_packet_layers_are_left_out(number: int) -> None:
    """FWPS_BUILTIN_LAYERS: STREAM_PACKET_V4 and _V6 see packets, which this package does not have."""
    with pytest.raises(ValueError, match="is not a valid LayerId"):
        LayerId(number)


def test_layers_by_name() -> None:
    """FWPS_BUILTIN_LAYERS: each family name gives its V4 and its V6 layer."""
    assert {name: (int(v4), int(v6)) for name, (v4, v6) in LAYERS_BY_NAME.items()} == {
        "stream": (20, 22),
        "stream_discard": (21, 23),
        "ale_auth_recv_accept": (44, 46),
        "ale_auth_connect": (48, 50),
        "ale_flow_established": (52, 54),
        "ale_endpoint_closure": (64, 65),
        "ale_connect_redirect": (66, 67),
    }


def test_plain_ints_compare() -> None:
    """Hot path: flags are plain ints there, and the members are equal to them."""
    assert constants.RECEIVE_FAMILY & 0x4 == StreamFlags.RECEIVE_DISCONNECT
    assert {20: "stream"}[LayerId.STREAM_V4] == "stream"
