"""From a captured frame to the TCP segment in it: `walk` and `walk_ip`, which never raise.

Owns the link layers (Ethernet with VLAN tags and SNAP, Linux cooked 1 and 2, null and loopback, raw IP). Must not
know captures, time or streams.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

from ._ip import Bytes, walk_ipv4, walk_ipv6, walk_packet
from ._records import (
    SKIP_NOT_IP,
    SKIP_TUNNEL,
    SKIP_UNKNOWN_LINK,
    Skip,
    Walked,
    malformed,
)

LINK_NULL: Final = 0
LINK_ETHERNET: Final = 1
LINK_RAW: Final = 101
LINK_LOOP: Final = 108
LINK_SLL: Final = 113
LINK_IPV4: Final = 228
LINK_IPV6: Final = 229
LINK_SLL2: Final = 276

MAX_TAGS = 4

# DLT_RAW as some systems write it into files.
_RAW_LINKS: Final = frozenset({LINK_RAW, 12, 14})
_NULL_LINKS: Final = frozenset({LINK_NULL, LINK_LOOP})
# The numbers of AF_INET6 on Linux, Windows, NetBSD/OpenBSD, FreeBSD and macOS.
_AF_INET: Final = 2
_AF_INET6: Final = frozenset({10, 23, 24, 28, 30})

_ETHERTYPE_IPV4: Final = 0x0800
_ETHERTYPE_IPV6: Final = 0x86DD
_VLAN: Final = frozenset({0x8100, 0x88A8, 0x9100, 0x9200})
_TUNNELS: Final = {
    0x22F3: "TRILL",
    0x4305: "B.A.T.M.A.N.",
    0x880B: "PPP",
    0x8847: "MPLS",
    0x8848: "MPLS",
    0x8864: "PPPoE",
    0x88E7: "802.1ah",
    0x893F: "802.1BR",
    0x894F: "NSH",
    0x8909: "Cisco metadata",
    0x8926: "VN-Tag",
}
_LARGEST_802_3_LENGTH = 1500
_SLL_LLC = 4
_SNAP: Final = b"\xaa\xaa\x03"
# Organisations whose SNAP protocol numbers are ethertypes: RFC 1042, and IEEE 802.1H's bridge tunnel.
_SNAP_ETHERTYPES: Final = frozenset({b"\0\0\0", b"\0\0\xf8"})

_HALF: Final = Struct("!H")
_FAMILY: Final = Struct("<I")
_SLL_TYPES: Final = Struct("!2xH10xH")
_SLL2_TYPES: Final = Struct("!H6xH")
_ARPHRD_NETLINK = 824


def walk(link_type: int, frame: Bytes) -> Walked:
    """The TCP segment or IP fragment in one captured frame, or why there is none. Never raises.

    `link_type` is the LINKTYPE_ number of the capture (tcpdump.org's list), `frame` the captured bytes.
    """
    end = len(frame)
    if link_type == LINK_ETHERNET:
        if end < 14:
            return malformed("an Ethernet header that is cut")
        return _payload(frame, _HALF.unpack_from(frame, 12)[0], 14, end)
    if link_type == LINK_SLL:
        return _cooked(frame, end)
    if link_type == LINK_SLL2:
        return _cooked2(frame, end)
    if link_type in _RAW_LINKS:
        return walk_packet(frame, 0, end, 0)
    if link_type in _NULL_LINKS:
        return _null(frame, end)
    if link_type == LINK_IPV4:
        return walk_ipv4(frame, 0, end, 0)
    if link_type == LINK_IPV6:
        return walk_ipv6(frame, 0, end, 0)
    return Skip(SKIP_UNKNOWN_LINK, f"link type {link_type}")


def walk_ip(packet: Bytes) -> Walked:
    """As `walk`, for bytes that begin at an IPv4 or IPv6 header. Never raises."""
    return walk_packet(packet, 0, len(packet), 0)


def _payload(frame: Bytes, ethertype: int, at: int, end: int) -> Walked:
    """What an ethertype announces at `at`, below VLAN tags and SNAP."""
    tags = 0
    while True:
        if ethertype == _ETHERTYPE_IPV4:
            return walk_ipv4(frame, at, end, 0)
        if ethertype == _ETHERTYPE_IPV6:
            return walk_ipv6(frame, at, end, 0)
        if ethertype in _VLAN:
            tags += 1
            if tags > MAX_TAGS:
                return malformed(f"more than {MAX_TAGS} VLAN tags")
            if end - at < 4:
                return malformed("a VLAN tag that is cut")
            ethertype = _HALF.unpack_from(frame, at + 2)[0]
            at += 4
        elif ethertype <= _LARGEST_802_3_LENGTH and frame[at : at + 3] == _SNAP and end - at >= 8:
            if bytes(frame[at + 3 : at + 6]) not in _SNAP_ETHERTYPES:
                return _no_ip(ethertype)
            ethertype = max(_HALF.unpack_from(frame, at + 6)[0], _LARGEST_802_3_LENGTH + 1)
            at += 8
        else:
            return _no_ip(ethertype)


@lru_cache(maxsize=256)
def _no_ip(ethertype: int) -> Skip:
    """The answer for an ethertype that is not walked, one object per type."""
    if ethertype in _TUNNELS:
        return Skip(SKIP_TUNNEL, _TUNNELS[ethertype])
    if ethertype <= _LARGEST_802_3_LENGTH:
        return Skip(SKIP_NOT_IP, "802.3 without IP")
    return Skip(SKIP_NOT_IP, f"ethertype 0x{ethertype:04x}")


def _cooked(frame: Bytes, end: int) -> Walked:
    """LINKTYPE_LINUX_SLL: 16 bytes, the ethertype last."""
    if end < 16:
        return malformed("a cooked header that is cut")
    hardware, protocol = _SLL_TYPES.unpack_from(frame)
    return _cooked_payload(frame, hardware, protocol, 16, end)


def _cooked2(frame: Bytes, end: int) -> Walked:
    """LINKTYPE_LINUX_SLL2: 20 bytes, the ethertype first."""
    if end < 20:
        return malformed("a cooked header that is cut")
    protocol, hardware = _SLL2_TYPES.unpack_from(frame)
    return _cooked_payload(frame, hardware, protocol, 20, end)


def _cooked_payload(frame: Bytes, hardware: int, protocol: int, at: int, end: int) -> Walked:
    if hardware == _ARPHRD_NETLINK:
        return Skip(SKIP_NOT_IP, "netlink")
    if protocol <= _LARGEST_802_3_LENGTH and protocol != _SLL_LLC:
        return Skip(SKIP_NOT_IP, f"cooked protocol {protocol}")
    return _payload(frame, protocol, at, end)


def _null(frame: Bytes, end: int) -> Walked:
    """LINKTYPE_NULL and LOOP: 4 bytes of address family, in the byte order of whoever captured."""
    if end < 4:
        return malformed("a loopback header that is cut")
    family = _FAMILY.unpack_from(frame)[0]
    if family > 0xFFFF:
        family = int.from_bytes(frame[:4], "big")
    if family == _AF_INET:
        return walk_ipv4(frame, 4, end, 0)
    if family in _AF_INET6:
        return walk_ipv6(frame, 4, end, 0)
    return Skip(SKIP_NOT_IP, f"address family {family}")
