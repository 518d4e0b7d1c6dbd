"""The walk from an IP header to what it carries: TCP, a fragment, or a reason to skip.

Owns IPv4 (RFC 791), IPv6 and its extension headers (RFC 8200), IP in IP (RFC 2003, 4213) and TCP (RFC 9293).
Must not know link layers. Nothing here raises: `end` is always inside the frame, and whatever is read is
compared with it first. `end` is where the captured bytes end; `stop` is where the IP header says the packet
does, which lies behind `end` when the capture cut the packet.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

from ._records import (
    SKIP_NOT_TCP,
    SKIP_TUNNEL,
    Fragment,
    Segment,
    Skip,
    Walked,
    malformed,
)

MAX_NESTED: Final = 4
FRAGMENTED: Final = 0x3FFF  # in IPv4's seventh and eighth byte: more fragments, or an offset

_IPV4: Final = Struct("!BxHHHxB2x4s4s")
_IPV6: Final = Struct("!BxxxHBx16s16s")
_TCP: Final = Struct("!HHIIBBHxxH")
_PLAIN_IPV4: Final = Struct("!BxHxxHxBxx4s4sHHIIBBHxxH")
_PLAIN_IPV6: Final = Struct("!BxxxHBx16s16sHHIIBBHxxH")
_WORD: Final = Struct("!I")
_PORTS: Final = Struct("!HH")
_FRAGMENT: Final = Struct("!BxHI")

_HOP_BY_HOP = 0
_IPIP = 4
PROTOCOL_TCP: Final = 6
_UDP = 17
_IPV6_IN_IP = 41
_ROUTING = 43
_FRAGMENT_HEADER = 44
_GRE = 47
_AUTHENTICATION = 51
_DESTINATION_OPTIONS = 60

# Extension headers whose second byte counts the 8-byte units behind the first: RFC 8200, 6275 (mobility),
# 7401 (HIP), 5533 (Shim6).
_COUNTED_HEADERS: Final = frozenset({_HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS, 135, 139, 140})
_IPV6_HEADERS: Final = _COUNTED_HEADERS | {_FRAGMENT_HEADER, _AUTHENTICATION}
_IPV4_HEADERS: Final = frozenset({_AUTHENTICATION})
# GRE, EtherIP, L2TPv3, MPLS in IP.
_TUNNEL_PROTOCOLS: Final = {_GRE: "GRE", 97: "EtherIP", 115: "L2TPv3", 137: "MPLS in IP"}
_TUNNEL_PORTS: Final = {
    1701: "L2TP",
    2152: "GTP-U",
    3544: "Teredo",
    4789: "VXLAN",
    4790: "VXLAN-GPE",
    6081: "Geneve",
    6635: "MPLS in UDP",
    8472: "VXLAN",
}
# A fragment of anything else cannot turn out to be TCP, so nobody has to keep it.
_LEADS_TO_TCP: Final = (
    frozenset({_IPIP, PROTOCOL_TCP, _UDP, _IPV6_IN_IP}) | _IPV6_HEADERS | _TUNNEL_PROTOCOLS.keys()
)

_JUMBO_PAYLOAD = 0xC2
_HOME_ADDRESS = 0xC9
_SEGMENT_ROUTING = 4
_LISTED_ROUTING: Final = frozenset({0, 2})
_IPV4_SOURCE_ROUTES: Final = frozenset({0x83, 0x89})

Bytes = bytes | memoryview

_new_segment = Segment.__new__


def walk_packet(frame: Bytes, at: int, end: int, depth: int) -> Walked:
    """Walk the IP packet at `at`, of the version its first nibble says."""
    if at >= end:
        return malformed("an IP packet without a byte")
    version = frame[at] >> 4
    if version == 4:
        return walk_ipv4(frame, at, end, depth)
    if version == 6:
        return walk_ipv6(frame, at, end, depth)
    return malformed(f"an IP packet of version {version}")


def walk_ipv4(frame: Bytes, at: int, end: int, depth: int) -> Walked:
    """Walk the IPv4 packet at `at`; `depth` IP packets are around it."""
    if end - at >= 40:  # without options and with TCP: read both headers in one step
        segment = _new_segment(Segment)
        (
            first,
            total,
            spot,
            protocol,
            segment.source,
            segment.destination,
            segment.source_port,
            segment.destination_port,
            segment.sequence,
            segment.acknowledgement,
            offset,
            segment.flags,
            segment.window,
            segment.urgent,
        ) = _PLAIN_IPV4.unpack_from(frame, at)
        if first == 0x45 and protocol == PROTOCOL_TCP and not spot & FRAGMENTED:
            start = at + 20 + (offset >> 4 << 2)
            stop = at + total
            if at + 40 <= start <= stop and start <= end:
                return _filled(segment, 4, frame, at, at + 20, start, stop, end)
    return _any_ipv4(frame, at, end, depth)


def walk_ipv6(frame: Bytes, at: int, end: int, depth: int) -> Walked:
    """Walk the IPv6 packet at `at`; `depth` IP packets are around it."""
    if end - at >= 60:  # without extension headers and with TCP: read both headers in one step
        segment = _new_segment(Segment)
        (
            first,
            length,
            protocol,
            segment.source,
            segment.destination,
            segment.source_port,
            segment.destination_port,
            segment.sequence,
            segment.acknowledgement,
            offset,
            segment.flags,
            segment.window,
            segment.urgent,
        ) = _PLAIN_IPV6.unpack_from(frame, at)
        if first >> 4 == 6 and protocol == PROTOCOL_TCP:
            start = at + 40 + (offset >> 4 << 2)
            stop = at + 40 + length
            if at + 60 <= start <= stop and start <= end:
                return _filled(segment, 6, frame, at, at + 40, start, stop, end)
    return _any_ipv6(frame, at, end, depth)


def _filled(
    segment: Segment, version: int, frame: Bytes, ip_at: int, tcp_at: int, start: int, stop: int, end: int
) -> Segment:
    """`segment` with what is not read from its header; the payload is promised from `start` to `stop`."""
    segment.version = version
    segment.payload = memoryview(frame)[start : stop if stop < end else end]
    segment.missing = 0 if stop <= end else stop - (start if start > end else end)
    segment._frame = frame
    segment._ip_at = ip_at
    segment._tcp_at = tcp_at
    return segment


def _any_ipv4(frame: Bytes, at: int, end: int, depth: int) -> Walked:
    """As `walk_ipv4`, without its short cut."""
    if end - at < 20:
        return malformed("an IPv4 header that is cut")
    first, total, identification, spot, protocol, source, destination = _IPV4.unpack_from(frame, at)
    size = (first & 15) << 2
    if first >> 4 == 6:  # some encapsulations announce IP and mean either version
        return walk_ipv6(frame, at, end, depth)
    if first >> 4 != 4:
        return malformed(f"an IPv4 packet whose version is {first >> 4}")
    if size < 20 or size > end - at:
        return malformed(f"an IPv4 header of {size} bytes")
    # A total length of 0 is a packet the network card was to cut up (TSO): it goes on to the frame's end.
    stop = at + total if total else end
    upper = at + size
    if stop < upper:
        return malformed(f"an IPv4 total length of {total}, less than its header")
    if size > 20:
        destination = _last_hop(frame, at + 20, upper, destination)
    if spot & FRAGMENTED:
        header = bytes(frame[at : at + 6]) + b"\0\0" + bytes(frame[at + 8 : upper])
        where = (source, destination, identification, protocol)
        return _fragment(4, where, (spot & 0x1FFF) << 3, bool(spot & 0x2000), frame, upper, stop, end, header)
    if protocol == PROTOCOL_TCP:
        return _tcp(frame, upper, stop, end, 4, source, destination, at)
    if protocol == _AUTHENTICATION:
        return _chain(frame, protocol, at, upper, stop, end, depth, 4, source, destination)
    return _upper(frame, protocol, upper, min(stop, end), depth)


def _any_ipv6(frame: Bytes, at: int, end: int, depth: int) -> Walked:
    """As `walk_ipv6`, without its short cut."""
    if end - at < 40:
        return malformed("an IPv6 header that is cut")
    first, length, protocol, source, destination = _IPV6.unpack_from(frame, at)
    if first >> 4 != 6:
        return malformed(f"an IPv6 packet whose version is {first >> 4}")
    upper = at + 40
    # A payload length of 0 is a jumbogram (RFC 2675) or, without its option, a packet for TSO.
    stop = upper + (length or _jumbo_length(frame, protocol, upper, end) or end - upper)
    if protocol == PROTOCOL_TCP:
        return _tcp(frame, upper, stop, end, 6, source, destination, at)
    return _chain(frame, protocol, at, upper, stop, end, depth, 6, source, destination)


def _chain(
    frame: Bytes,
    protocol: int,
    ip_at: int,
    at: int,
    stop: int,
    end: int,
    depth: int,
    version: int,
    source: bytes,
    destination: bytes,
) -> Walked:
    """Walk the extension headers from `at` on. Each is at least 8 bytes, so the frame's length bounds this."""
    known = min(stop, end)
    named_at = ip_at + 6  # the byte that says `protocol`
    walked = _IPV6_HEADERS if version == 6 else _IPV4_HEADERS
    while protocol in walked:
        if known - at < 8:
            return malformed(f"an extension header ({protocol}) that is cut")
        size = _extension_size(frame, protocol, at)
        if size > known - at:
            return malformed(f"an extension header ({protocol}) of {size} bytes")
        if protocol == _FRAGMENT_HEADER:
            following, spot, identification = _FRAGMENT.unpack_from(frame, at)
            if spot & 0xFFF9:
                header = _unfragmented(frame, ip_at, at, named_at, following)
                where = (source, destination, identification, following)
                return _fragment(6, where, spot & 0xFFF8, bool(spot & 1), frame, at + 8, stop, end, header)
        elif protocol == _ROUTING:
            destination = _last_segment(frame, at, size, destination)
        elif protocol == _DESTINATION_OPTIONS:
            source = _home_address(frame, at + 2, at + size, source)
        protocol, named_at = frame[at], at
        at += size
    if protocol == PROTOCOL_TCP:
        return _tcp(frame, at, stop, end, version, source, destination, ip_at)
    return _upper(frame, protocol, at, known, depth)


def _extension_size(frame: Bytes, protocol: int, at: int) -> int:
    """The bytes an extension header says it has, at least 8; its first two bytes are there."""
    if protocol == _FRAGMENT_HEADER:
        return 8
    if protocol == _AUTHENTICATION:  # RFC 4302 counts in 4-byte units, less 2
        return max(8, (frame[at + 1] + 2) << 2)
    return (frame[at + 1] + 1) << 3


def _upper(frame: Bytes, protocol: int, at: int, end: int, depth: int) -> Walked:
    """What an IP packet carries when it is neither TCP nor an extension header."""
    if protocol in (_IPIP, _IPV6_IN_IP):
        if depth >= MAX_NESTED:
            return malformed(f"more than {MAX_NESTED} IP packets in one another")
        return (walk_ipv4 if protocol == _IPIP else walk_ipv6)(frame, at, end, depth + 1)
    if protocol == _UDP and end - at >= 4:
        source_port, destination_port = _PORTS.unpack_from(frame, at)
        tunnel = _TUNNEL_PORTS.get(destination_port) or _TUNNEL_PORTS.get(source_port)
        if tunnel:
            return Skip(SKIP_TUNNEL, tunnel)
    return _no_tcp(protocol)


@lru_cache(maxsize=256)
def _no_tcp(protocol: int) -> Skip:
    """The answer for an IP protocol that is not walked, one object per protocol."""
    if protocol in _TUNNEL_PROTOCOLS:
        return Skip(SKIP_TUNNEL, _TUNNEL_PROTOCOLS[protocol])
    return Skip(SKIP_NOT_TCP, f"IP protocol {protocol}")


def _tcp(
    frame: Bytes,
    at: int,
    stop: int,
    end: int,
    version: int,
    source: bytes,
    destination: bytes,
    ip_at: int,
) -> Walked:
    """The TCP segment at `at`. Of one that the capture cut, the first 20 bytes of the header must be there."""
    if stop - at < 20:
        return malformed(f"a TCP segment of {stop - at} bytes")
    if end - at < 20:
        return malformed("a TCP header that the capture cuts")
    segment = _new_segment(Segment)
    (
        segment.source_port,
        segment.destination_port,
        segment.sequence,
        segment.acknowledgement,
        offset,
        segment.flags,
        segment.window,
        segment.urgent,
    ) = _TCP.unpack_from(frame, at)
    size = offset >> 4 << 2
    start = at + size
    if size < 20 or start > stop:
        return malformed(f"a TCP header of {size} bytes in a segment of {stop - at}")
    segment.source = source
    segment.destination = destination
    return _filled(segment, version, frame, ip_at, at, start, stop, end)


def _fragment(
    version: int,
    where: tuple[bytes, bytes, int, int],
    offset: int,
    more: bool,
    frame: Bytes,
    at: int,
    stop: int,
    end: int,
    header: bytes,
) -> Walked:
    """The fragment whose payload begins at `at`, if anybody could want it."""
    source, destination, identification, protocol = where
    if protocol not in _LEADS_TO_TCP:
        return _no_tcp(protocol)
    if offset + stop - at > 65_535:
        return malformed("a fragment that ends behind 65,535 bytes")
    known = min(stop, end)
    if known <= at:
        return malformed("a fragment without a byte")
    payload = memoryview(frame)[at:known]
    missing = stop - known
    return Fragment(
        version, source, destination, identification, protocol, offset, more, payload, missing, header
    )


def _unfragmented(frame: Bytes, ip_at: int, at: int, named_at: int, following: int) -> bytes:
    """The headers in front of the fragment header at `at`; the last of them names what follows it."""
    header = bytearray(frame[ip_at:at])
    header[named_at - ip_at] = following
    return bytes(header)


# --- options that move an address ------------------------------------------------------------------


def _last_hop(frame: Bytes, at: int, upper: int, destination: bytes) -> bytes:
    """The end of an IPv4 source route (RFC 791 3.1) that still has hops ahead, else `destination`."""
    while at < upper and frame[at] != 0:
        if frame[at] == 1:
            at += 1
            continue
        if upper - at < 2 or frame[at + 1] < 2 or frame[at + 1] > upper - at:
            break
        size = frame[at + 1]
        # The pointer counts from 1 and stands at 4, 8, ... while there are hops ahead.
        if frame[at] in _IPV4_SOURCE_ROUTES and size >= 7 and frame[at + 2] in range(4, size - 2, 4):
            return bytes(frame[at + size - 4 : at + size])
        at += size
    return destination


def _last_segment(frame: Bytes, at: int, size: int, destination: bytes) -> bytes:
    """The last address of a routing header with segments left: types 0, 2 and 4 (RFC 8754), else as it was."""
    kind, left = frame[at + 2], frame[at + 3]
    if not left or size < 24:
        return destination
    if kind == _SEGMENT_ROUTING:  # in reverse order, and options may follow
        return bytes(frame[at + 8 : at + 24])
    if kind in _LISTED_ROUTING:
        last = at + 8 + (size - 24 & ~15)
        return bytes(frame[last : last + 16])
    return destination


def _home_address(frame: Bytes, at: int, until: int, source: bytes) -> bytes:
    """The address of a Home Address option (RFC 6275 6.3), which stands for the source in checksums."""
    found = _find_option(frame, at, until, _HOME_ADDRESS, 16)
    return bytes(frame[found : found + 16]) if found else source


def _jumbo_length(frame: Bytes, protocol: int, at: int, end: int) -> int:
    """The length a Jumbo Payload option gives (RFC 2675), 0 without one."""
    if protocol != _HOP_BY_HOP or end - at < 8:
        return 0
    until = at + _extension_size(frame, protocol, at)
    found = _find_option(frame, at + 2, min(until, end), _JUMBO_PAYLOAD, 4)
    return int(_WORD.unpack_from(frame, found)[0]) if found else 0


def _find_option(frame: Bytes, at: int, until: int, kind: int, size: int) -> int:
    """Where the data of the IPv6 option `kind` with `size` bytes begins, 0 if there is none."""
    while at < until:
        if frame[at] == 0:  # Pad1
            at += 1
            continue
        if until - at < 2 or frame[at + 1] > until - at - 2:
            return 0
        if frame[at] == kind and frame[at + 1] == size:
            return at + 2
        at += 2 + frame[at + 1]
    return 0
