"""The run time's enumerations and flag sets (WFP prefix `FWPS_`), the layers and their field indices.

Owns names and values; must not know what the run time does with them. Members drop the WFP prefix:
`FWPS_STREAM_FLAG_SEND` is `StreamFlags.SEND`. `..._MAX` markers are module constants. On the hot path flags
are plain ints; comparing those with the members works. "fwpsk.h" below is a third-party copy of that header.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final


class StreamFlags(IntFlag):
    """FWPS_STREAM_FLAG_* (values fwpsk.h; names FWPS_STREAM_DATA0, FwpsStreamInjectAsync0).

    The two ABORT bits are undefined under the vista profile and never legal in an injection (OBJ-15).
    """

    RECEIVE = 0x0000_0001
    RECEIVE_EXPEDITED = 0x0000_0002
    RECEIVE_DISCONNECT = 0x0000_0004
    RECEIVE_ABORT = 0x0000_0008
    RECEIVE_PUSH = 0x0000_0010
    SEND = 0x0001_0000
    SEND_EXPEDITED = 0x0002_0000
    SEND_NODELAY = 0x0004_0000
    SEND_DISCONNECT = 0x0008_0000
    SEND_ABORT = 0x0010_0000


# Masks over StreamFlags, plain ints for the hot path.
RECEIVE_FAMILY: Final = 0x0000_001F
SEND_FAMILY: Final = 0x001F_0000
DEFINED_STREAM_FLAGS: Final = 0x001F_001F


class StreamActionType(IntEnum):
    """FWPS_STREAM_ACTION_TYPE (values fwpsk.h; names FWPS_STREAM_CALLOUT_IO_PACKET0).

    ALLOW_CONNECTION needs win7; under vista the value 4 is invalid (OBJ-15, ACT-13).
    """

    NONE = 0
    NEED_MORE_DATA = 1
    DROP_CONNECTION = 2
    DEFER = 3
    ALLOW_CONNECTION = 4


STREAM_ACTION_TYPE_MAX: Final = 5

# NMD-6: 8 MiB held for one callout, then BUFFER_LIMIT_REACHED. Stream Inspection says "8 MB"; MiB is our
# reading.
NEED_MORE_DATA_LIMIT: Final = 8_388_608


class ClassifyOutFlags(IntFlag):
    """FWPS_CLASSIFY_OUT_FLAG_* (fwpstypes.h)."""

    ABSORB = 0x0000_0001
    BUFFER_LIMIT_REACHED = 0x0000_0002
    NO_MORE_DATA = 0x0000_0004
    ALE_FAST_CACHE_CHECK = 0x0000_0008
    ALE_FAST_CACHE_POSSIBLE = 0x0000_0010


# FWPS_RIGHT_ACTION_WRITE (fwpstypes.h): the one bit of FWPS_CLASSIFY_OUT0.rights.
RIGHT_ACTION_WRITE: Final = 0x0000_0001

# FWPS_CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS (FwpsAcquireWritableLayerDataPointer0, LAY-25).
# The name is WFP's, the value is OUR OWN CHOICE: no trustworthy source gives the number. Use the name.
CLASSIFY_FLAG_REAUTHORIZE_IF_MODIFIED_BY_OTHERS: Final = 0x0000_0001


class FilterRunFlags(IntFlag):
    """FWPS_FILTER_FLAG_* of a run-time filter, 16 bits (fwpstypes.h).

    Only CLEAR_ACTION_RIGHT and PERMIT_IF_CALLOUT_UNREGISTERED have an effect here, in every profile.
    """

    CLEAR_ACTION_RIGHT = 0x0001
    PERMIT_IF_CALLOUT_UNREGISTERED = 0x0002
    OR_CONDITIONS = 0x0004
    HAS_SECURITY_REALM_PROVIDER_CONTEXT = 0x0008
    SILENT_MODE = 0x0010
    IPSEC_NO_ACQUIRE_INITIATE = 0x0020
    RESERVED0 = 0x0040
    RESERVED1 = 0x0080
    RESERVED2 = 0x0100


class NotifyType(IntEnum):
    """FWPS_CALLOUT_NOTIFY_TYPE (fwpstypes.h)."""

    ADD_FILTER = 0
    DELETE_FILTER = 1
    ADD_FILTER_POST_COMMIT = 2


NOTIFY_TYPE_MAX: Final = 3


class MetadataField(IntFlag):
    """FWPS_METADATA_FIELD_* (fwpsk.h, Win32 metadata): bits of currentMetadataValues.

    Which layer has which: Metadata Fields at Each Filtering Layer.
    """

    DISCARD_REASON = 0x0000_0001
    FLOW_HANDLE = 0x0000_0002
    IP_HEADER_SIZE = 0x0000_0004
    PROCESS_PATH = 0x0000_0008
    TOKEN = 0x0000_0010
    PROCESS_ID = 0x0000_0020
    SYSTEM_FLAGS = 0x0000_0040
    RESERVED = 0x0000_0080
    SOURCE_INTERFACE_INDEX = 0x0000_0100
    DESTINATION_INTERFACE_INDEX = 0x0000_0200
    TRANSPORT_HEADER_SIZE = 0x0000_0400
    COMPARTMENT_ID = 0x0000_0800
    FRAGMENT_DATA = 0x0000_1000
    PATH_MTU = 0x0000_2000
    COMPLETION_HANDLE = 0x0000_4000
    TRANSPORT_ENDPOINT_HANDLE = 0x0000_8000
    TRANSPORT_CONTROL_DATA = 0x0001_0000
    REMOTE_SCOPE_ID = 0x0002_0000
    PACKET_DIRECTION = 0x0004_0000
    PACKET_SYSTEM_CRITICAL = 0x0008_0000
    FORWARD_LAYER_OUTBOUND_PASS_THRU = 0x0010_0000
    FORWARD_LAYER_INBOUND_PASS_THRU = 0x0020_0000
    ALE_CLASSIFY_REQUIRED = 0x0040_0000
    TRANSPORT_HEADER_INCLUDE_HEADER = 0x0080_0000
    DESTINATION_PREFIX = 0x0100_0000
    ETHER_FRAME_LENGTH = 0x0200_0000
    PARENT_ENDPOINT_HANDLE = 0x0400_0000
    ICMP_ID_AND_SEQUENCE = 0x0800_0000
    LOCAL_REDIRECT_TARGET_PID = 0x1000_0000
    ORIGINAL_DESTINATION = 0x2000_0000
    REDIRECT_RECORD_HANDLE = 0x4000_0000
    SUB_PROCESS_TAG = 0x8000_0000


class IncomingFlag(IntFlag):
    """FWPS_INCOMING_FLAG_* (fwpstypes.h): FWPS_INCOMING_METADATA_VALUES0.flags; internal per docs (MET-4)."""

    CACHE_SAFE = 0x0000_0001
    ENFORCE_QUERY = 0x0000_0002
    ABSORB = 0x0000_0004
    CONNECTION_FAILING_INDICATION = 0x0000_0008
    MID_STREAM_INSPECTION = 0x0000_0010
    RECLASSIFY = 0x0000_0020
    IS_LOOSE_SOURCE_FLOW = 0x0000_0040
    IS_LOCAL_ONLY_FLOW = 0x0000_0080
    RESERVED0 = 0x0000_0100


class DiscardModule(IntEnum):
    """FWPS_DISCARD_MODULE0 (fwpstypes.h)."""

    NETWORK = 0
    TRANSPORT = 1
    GENERAL = 2


class GeneralDiscardReason(IntEnum):
    """FWPS_GENERAL_DISCARD_REASON (fwpstypes.h)."""

    FIREWALL_POLICY = 0
    IPSEC = 1


class InjectionType(IntFlag):
    """FWPS_INJECTION_TYPE_* (fwpsk.h). Zero: STREAM | TRANSPORT | FORWARD (FwpsInjectionHandleCreate0)."""

    STREAM = 0x1
    TRANSPORT = 0x2
    NETWORK = 0x4
    FORWARD = 0x8
    L2 = 0x10


# Address families of FwpsInjectionHandleCreate0: Windows' numbers, not those of Linux (IPv6 is 10 there).
AF_UNSPEC: Final = 0
AF_INET: Final = 2
AF_INET6: Final = 23


class PacketInjectionState(IntEnum):
    """FWPS_PACKET_INJECTION_STATE (order of that page)."""

    NOT_INJECTED = 0
    INJECTED_BY_SELF = 1
    INJECTED_BY_OTHER = 2
    PREVIOUSLY_INJECTED_BY_SELF = 3


PACKET_INJECTION_STATE_MAX: Final = 4


class ConnectionRedirectState(IntEnum):
    """FWPS_CONNECTION_REDIRECT_STATE (order of that page)."""

    NOT_REDIRECTED = 0
    REDIRECTED_BY_SELF = 1
    REDIRECTED_BY_OTHER = 2
    PREVIOUSLY_REDIRECTED_BY_SELF = 3


CONNECTION_REDIRECT_STATE_MAX: Final = 4


class LayerId(IntEnum):
    """FWPS_BUILTIN_LAYERS (positions in fwpsk.h; the FWPS_BUILTIN_LAYERS page has the same order).

    Only the layers this package indicates. ALE_ENDPOINT_CLOSURE and ALE_CONNECT_REDIRECT need win7 (OBJ-15).
    """

    STREAM_V4 = 20
    STREAM_V4_DISCARD = 21
    STREAM_V6 = 22
    STREAM_V6_DISCARD = 23
    ALE_AUTH_RECV_ACCEPT_V4 = 44
    ALE_AUTH_RECV_ACCEPT_V4_DISCARD = 45
    ALE_AUTH_RECV_ACCEPT_V6 = 46
    ALE_AUTH_RECV_ACCEPT_V6_DISCARD = 47
    ALE_AUTH_CONNECT_V4 = 48
    ALE_AUTH_CONNECT_V4_DISCARD = 49
    ALE_AUTH_CONNECT_V6 = 50
    ALE_AUTH_CONNECT_V6_DISCARD = 51
    ALE_FLOW_ESTABLISHED_V4 = 52
    ALE_FLOW_ESTABLISHED_V4_DISCARD = 53
    ALE_FLOW_ESTABLISHED_V6 = 54
    ALE_FLOW_ESTABLISHED_V6_DISCARD = 55
    ALE_ENDPOINT_CLOSURE_V4 = 64
    ALE_ENDPOINT_CLOSURE_V6 = 65
    ALE_CONNECT_REDIRECT_V4 = 66
    ALE_CONNECT_REDIRECT_V6 = 67


# The family names callouts and configuration use, each with its IPv4 and its IPv6 layer.
LAYERS_BY_NAME: Final[dict[str, tuple[LayerId, LayerId]]] = {
    "stream": (LayerId.STREAM_V4, LayerId.STREAM_V6),
    "stream_discard": (LayerId.STREAM_V4_DISCARD, LayerId.STREAM_V6_DISCARD),
    "ale_auth_connect": (LayerId.ALE_AUTH_CONNECT_V4, LayerId.ALE_AUTH_CONNECT_V6),
    "ale_auth_recv_accept": (LayerId.ALE_AUTH_RECV_ACCEPT_V4, LayerId.ALE_AUTH_RECV_ACCEPT_V6),
    "ale_connect_redirect": (LayerId.ALE_CONNECT_REDIRECT_V4, LayerId.ALE_CONNECT_REDIRECT_V6),
    "ale_flow_established": (LayerId.ALE_FLOW_ESTABLISHED_V4, LayerId.ALE_FLOW_ESTABLISHED_V6),
    "ale_endpoint_closure": (LayerId.ALE_ENDPOINT_CLOSURE_V4, LayerId.ALE_ENDPOINT_CLOSURE_V6),
}


class FieldsStream(IntEnum):
    """FWPS_FIELDS_STREAM_V4 and _V6 (those pages, the same order): indices into incomingValue.

    COMPARTMENT_ID needs win10: valueCount is 8 there, 7 in earlier profiles (FLD-8).
    """

    IP_LOCAL_ADDRESS = 0
    IP_LOCAL_ADDRESS_TYPE = 1
    IP_REMOTE_ADDRESS = 2
    IP_LOCAL_PORT = 3
    IP_REMOTE_PORT = 4
    DIRECTION = 5
    FLAGS = 6
    COMPARTMENT_ID = 7


FIELDS_STREAM_MAX: Final = 8


class FieldsAleFlowEstablished(IntEnum):
    """FWPS_FIELDS_ALE_FLOW_ESTABLISHED_V4 and _V6 (those pages, the same order)."""

    ALE_APP_ID = 0
    ALE_USER_ID = 1
    IP_LOCAL_ADDRESS = 2
    IP_LOCAL_ADDRESS_TYPE = 3
    IP_LOCAL_PORT = 4
    IP_PROTOCOL = 5
    IP_REMOTE_ADDRESS = 6
    IP_REMOTE_PORT = 7
    ALE_REMOTE_USER_ID = 8
    ALE_REMOTE_MACHINE_ID = 9
    IP_DESTINATION_ADDRESS_TYPE = 10
    IP_LOCAL_INTERFACE = 11
    DIRECTION = 12
    INTERFACE_TYPE = 13
    TUNNEL_TYPE = 14
    FLAGS = 15
    ALE_ORIGINAL_APP_ID = 16
    ALE_PACKAGE_ID = 17
    ALE_SECURITY_ATTRIBUTE_FQBN_VALUE = 18
    COMPARTMENT_ID = 19


class FieldsAleAuthConnect(IntEnum):
    """FWPS_FIELDS_ALE_AUTH_CONNECT_V4 and _V6 (those pages). Indices without a member carry EMPTY."""

    ALE_APP_ID = 0
    ALE_USER_ID = 1
    IP_LOCAL_ADDRESS = 2
    IP_LOCAL_ADDRESS_TYPE = 3
    IP_LOCAL_PORT = 4
    IP_PROTOCOL = 5
    IP_REMOTE_ADDRESS = 6
    IP_REMOTE_PORT = 7
    ALE_REMOTE_USER_ID = 8
    ALE_REMOTE_MACHINE_ID = 9
    IP_DESTINATION_ADDRESS_TYPE = 10
    IP_LOCAL_INTERFACE = 11
    FLAGS = 12
    INTERFACE_TYPE = 13
    TUNNEL_TYPE = 14
    REAUTHORIZE_REASON = 28
    ALE_ORIGINAL_APP_ID = 32
    ALE_PACKAGE_ID = 33
    ALE_SECURITY_ATTRIBUTE_FQBN_VALUE = 34
    COMPARTMENT_ID = 36


class FieldsAleAuthRecvAccept(IntEnum):
    """FWPS_FIELDS_ALE_AUTH_RECV_ACCEPT_V4 and _V6 (those pages). Indices without a member carry EMPTY."""

    ALE_APP_ID = 0
    ALE_USER_ID = 1
    IP_LOCAL_ADDRESS = 2
    IP_LOCAL_ADDRESS_TYPE = 3
    IP_LOCAL_PORT = 4
    IP_PROTOCOL = 5
    IP_REMOTE_ADDRESS = 6
    IP_REMOTE_PORT = 7
    ALE_REMOTE_USER_ID = 8
    ALE_REMOTE_MACHINE_ID = 9
    IP_LOCAL_INTERFACE = 10
    FLAGS = 11
    SIO_FIREWALL_SYSTEM_PORT = 12
    NAP_CONTEXT = 13
    INTERFACE_TYPE = 14
    TUNNEL_TYPE = 15
    REAUTHORIZE_REASON = 29
    ALE_PACKAGE_ID = 32
    ALE_SECURITY_ATTRIBUTE_FQBN_VALUE = 33
    COMPARTMENT_ID = 34


class FieldsAleConnectRedirect(IntEnum):
    """FWPS_FIELDS_ALE_CONNECT_REDIRECT_V4 and _V6 (those pages).

    Beware: unlike at its neighbours, index 7 is the destination address type and the remote port is 8.
    """

    ALE_APP_ID = 0
    ALE_USER_ID = 1
    IP_LOCAL_ADDRESS = 2
    IP_LOCAL_ADDRESS_TYPE = 3
    IP_LOCAL_PORT = 4
    IP_PROTOCOL = 5
    IP_REMOTE_ADDRESS = 6
    IP_DESTINATION_ADDRESS_TYPE = 7
    IP_REMOTE_PORT = 8
    FLAGS = 9
    ALE_ORIGINAL_APP_ID = 10
    ALE_PACKAGE_ID = 11
    ALE_SECURITY_ATTRIBUTE_FQBN_VALUE = 12
    COMPARTMENT_ID = 13
