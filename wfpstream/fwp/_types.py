"""The enumerations and flag sets that run time and management share (WFP prefix `FWP_`).

Owns names, values and what each OS profile knows of them. Must not know any layer, object or behaviour.
Members drop the WFP prefix: `FWP_ACTION_BLOCK` is `ActionType.BLOCK`. The `..._MAX` markers of the C
enumerations are module constants, so that iterating an enumeration gives usable values only.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

# OBJ-15: the systems a run can imitate, oldest first; "vista" is Vista SP1 / Server 2008.
PROFILES: Final[tuple[str, ...]] = ("vista", "win7", "win8", "win10")
_RANKS: Final = {profile: rank for rank, profile in enumerate(PROFILES)}

# FWP_ACTION_FLAG_* (fwptypes.h; FWPM_ACTION0).
ACTION_FLAG_TERMINATING: Final = 0x0000_1000
ACTION_FLAG_NON_TERMINATING: Final = 0x0000_2000
ACTION_FLAG_CALLOUT: Final = 0x0000_4000


def profile_at_least(profile: str, minimum: str) -> bool:
    """Whether `profile` is the OS profile `minimum` or a newer one (OBJ-15).

    Raises ValueError when either is not one of `PROFILES`.
    """
    try:
        return _RANKS[profile] >= _RANKS[minimum]
    except KeyError as error:
        known = ", ".join(PROFILES)
        raise ValueError(f"unknown OS profile {error.args[0]!r}, expected one of {known}") from None


class ActionType(IntEnum):
    """FWP_ACTION_TYPE (fwptypes.h; FWPM_ACTION0): a number plus `ACTION_FLAG_*` bits.

    FWP_ACTION_BITMAP_INDEX_SET is newer than every profile and never accepted, so it has no member.
    """

    BLOCK = 1 | ACTION_FLAG_TERMINATING
    PERMIT = 2 | ACTION_FLAG_TERMINATING
    CALLOUT_TERMINATING = 3 | ACTION_FLAG_CALLOUT | ACTION_FLAG_TERMINATING
    CALLOUT_INSPECTION = 4 | ACTION_FLAG_CALLOUT | ACTION_FLAG_NON_TERMINATING
    CALLOUT_UNKNOWN = 5 | ACTION_FLAG_CALLOUT
    CONTINUE = 6 | ACTION_FLAG_NON_TERMINATING
    NONE = 7
    NONE_NO_MATCH = 8


class Direction(IntEnum):
    """FWP_DIRECTION (fwptypes.h), seen from the local host."""

    OUTBOUND = 0
    INBOUND = 1


DIRECTION_MAX: Final = 2


class IpVersion(IntEnum):
    """FWP_IP_VERSION (Win32 metadata)."""

    V4 = 0
    V6 = 1
    NONE = 2


class AddressType(IntEnum):
    """NL_ADDRESS_TYPE (nldef.h): the IP_LOCAL_ADDRESS_TYPE and IP_DESTINATION_ADDRESS_TYPE fields."""

    UNSPECIFIED = 0
    UNICAST = 1
    ANYCAST = 2
    MULTICAST = 3
    BROADCAST = 4
    INVALID = 5


class MatchType(IntEnum):
    """FWP_MATCH_TYPE (0-10 fwptypes.h, 11-12 Win32 metadata).

    NOT_EQUAL needs win7. PREFIX and NOT_PREFIX test a *suffix*, despite the name (FWP_MATCH_TYPE page).
    """

    EQUAL = 0
    GREATER = 1
    LESS = 2
    GREATER_OR_EQUAL = 3
    LESS_OR_EQUAL = 4
    RANGE = 5
    FLAGS_ALL_SET = 6
    FLAGS_ANY_SET = 7
    FLAGS_NONE_SET = 8
    EQUAL_CASE_INSENSITIVE = 9
    NOT_EQUAL = 10
    PREFIX = 11
    NOT_PREFIX = 12


MATCH_TYPE_MAX: Final = 13


class DataType(IntEnum):
    """FWP_DATA_TYPE (fwptypes.h).

    Names ending in `_TYPE` also exist without that ending, the way the documentation's text writes them.
    """

    EMPTY = 0
    UINT8 = 1
    UINT16 = 2
    UINT32 = 3
    UINT64 = 4
    INT8 = 5
    INT16 = 6
    INT32 = 7
    INT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BYTE_ARRAY16_TYPE = 11
    BYTE_BLOB_TYPE = 12
    SID = 13
    SECURITY_DESCRIPTOR_TYPE = 14
    TOKEN_INFORMATION_TYPE = 15
    TOKEN_ACCESS_INFORMATION_TYPE = 16
    UNICODE_STRING_TYPE = 17
    BYTE_ARRAY6_TYPE = 18
    V4_ADDR_MASK = 0x100
    V6_ADDR_MASK = 0x101
    RANGE_TYPE = 0x102

    BYTE_ARRAY16 = BYTE_ARRAY16_TYPE
    BYTE_BLOB = BYTE_BLOB_TYPE
    SECURITY_DESCRIPTOR = SECURITY_DESCRIPTOR_TYPE
    TOKEN_INFORMATION = TOKEN_INFORMATION_TYPE
    TOKEN_ACCESS_INFORMATION = TOKEN_ACCESS_INFORMATION_TYPE
    UNICODE_STRING = UNICODE_STRING_TYPE
    BYTE_ARRAY6 = BYTE_ARRAY6_TYPE
    RANGE = RANGE_TYPE


SINGLE_DATA_TYPE_MAX: Final = 0xFF
DATA_TYPE_MAX: Final = 0x103


class ConditionFlags(IntFlag):
    """FWP_CONDITION_FLAG_* (fwptypes.h; Filtering condition flags): bits of the FLAGS field."""

    IS_LOOPBACK = 0x0000_0001
    IS_IPSEC_SECURED = 0x0000_0002
    IS_REAUTHORIZE = 0x0000_0004
    IS_WILDCARD_BIND = 0x0000_0008
    IS_RAW_ENDPOINT = 0x0000_0010
    IS_FRAGMENT = 0x0000_0020
    IS_FRAGMENT_GROUP = 0x0000_0040
    IS_IPSEC_NATT_RECLASSIFY = 0x0000_0080
    REQUIRES_ALE_CLASSIFY = 0x0000_0100
    IS_IMPLICIT_BIND = 0x0000_0200
    IS_REASSEMBLED = 0x0000_0400
    IS_NAME_APP_SPECIFIED = 0x0000_4000
    IS_PROMISCUOUS = 0x0000_8000
    IS_AUTH_FW = 0x0001_0000
    IS_RECLASSIFY = 0x0002_0000
    IS_OUTBOUND_PASS_THRU = 0x0004_0000
    IS_INBOUND_PASS_THRU = 0x0008_0000
    IS_CONNECTION_REDIRECTED = 0x0010_0000
    IS_PROXY_CONNECTION = 0x0020_0000
    IS_APPCONTAINER_LOOPBACK = 0x0040_0000
    IS_NON_APPCONTAINER_LOOPBACK = 0x0080_0000
    IS_RESERVED = 0x0100_0000
    IS_HONORING_POLICY_AUTHORIZE = 0x0200_0000


# FWP_CONDITION_REAUTHORIZE_REASON_MID_STREAM_INSPECTION (fwptypes.h), in the REAUTHORIZE_REASON field.
REAUTHORIZE_REASON_MID_STREAM_INSPECTION: Final = 0x0000_0040


class CalloutFlags(IntFlag):
    """FWP_CALLOUT_FLAG_* (FWPS_CALLOUT1, FWPS_CALLOUT2, fwptypes.h); effects: CFN-1 to CFN-9."""

    CONDITIONAL_ON_FLOW = 0x0000_0001
    ALLOW_OFFLOAD = 0x0000_0002
    ENABLE_COMMIT_ADD_NOTIFY = 0x0000_0004
    ALLOW_MID_STREAM_INSPECTION = 0x0000_0008
    ALLOW_RECLASSIFY = 0x0000_0010
    RESERVED1 = 0x0000_0020
    ALLOW_RSC = 0x0000_0040
    ALLOW_L2_BATCH_CLASSIFY = 0x0000_0080
    ALLOW_USO = 0x0000_0100
    ALLOW_URO = 0x0000_0200
    RESERVED2 = 0x0000_0400


class CalloutFlagSince(NamedTuple):
    """What introduced a callout flag: `structure` n of FWPS_CALLOUTn, and the OS `profile`."""

    structure: int
    profile: str


# V-45 reads this table (FWPS_CALLOUT0, FWPS_CALLOUT1, FWPS_CALLOUT2; the last three rows are the late ones).
CALLOUT_FLAG_SINCE: Final[dict[CalloutFlags, CalloutFlagSince]] = {
    CalloutFlags.CONDITIONAL_ON_FLOW: CalloutFlagSince(0, "vista"),
    CalloutFlags.ALLOW_OFFLOAD: CalloutFlagSince(0, "vista"),
    CalloutFlags.ENABLE_COMMIT_ADD_NOTIFY: CalloutFlagSince(1, "win7"),
    CalloutFlags.ALLOW_MID_STREAM_INSPECTION: CalloutFlagSince(1, "win7"),
    CalloutFlags.ALLOW_RECLASSIFY: CalloutFlagSince(1, "win7"),
    CalloutFlags.RESERVED1: CalloutFlagSince(2, "win8"),
    CalloutFlags.ALLOW_RSC: CalloutFlagSince(2, "win8"),
    CalloutFlags.ALLOW_L2_BATCH_CLASSIFY: CalloutFlagSince(2, "win8"),
    CalloutFlags.ALLOW_USO: CalloutFlagSince(2, "win10"),
    CalloutFlags.ALLOW_URO: CalloutFlagSince(2, "win10"),
    # Only headers name it, no page does: the row is our choice. CFN-6 reports a reserved flag in any case.
    CalloutFlags.RESERVED2: CalloutFlagSince(2, "win10"),
}

# CFN-6: accepted, ignored, reported.
RESERVED_CALLOUT_FLAGS: Final = CalloutFlags.RESERVED1 | CalloutFlags.RESERVED2
