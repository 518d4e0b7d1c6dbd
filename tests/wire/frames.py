"""Frames put together by hand for the tests of the walk: nothing here is computed by the code under test."""

from __future__ import annotations

import struct

from wfpstream.wire import (
    LINK_ETHERNET,
    LINK_LOOP,
    LINK_NULL,
    LINK_RAW,
    LINK_SLL,
    LINK_SLL2,
)

A4, B4 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
A6, B6 = bytes.fromhex("20010db8") + bytes(11) + b"\1", bytes.fromhex("20010db8") + bytes(11) + b"\2"

TCP, UDP, IPIP, IPV6, ROUTING, FRAGMENT, GRE, AH, ICMP6, NOTHING, OPTIONS = (
    6, 17, 4, 41, 43, 44, 47, 51, 58, 59, 60,
)  # fmt: skip


def tcp(payload: bytes = b"data", *, options: bytes = b"", size: int | None = None) -> bytes:
    """A segment with numbers of its own in every field; `size` is what the data offset says, in bytes."""
    words = (20 + len(options) if size is None else size) >> 2
    return struct.pack("!HHIIBBHHH", 40000, 80, 7, 9, words << 4, 0x18, 500, 0, 3) + options + payload


def udp(source_port: int, destination_port: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def ipv4(
    body: bytes,
    protocol: int = TCP,
    *,
    options: bytes = b"",
    total: int | None = None,
    words: int | None = None,
    spot: int = 0x4000,
    version: int = 4,
) -> bytes:
    """An IPv4 packet without checksum; `total`, `words` and `version` are what its header says of itself."""
    size = 20 + len(options)
    first = version << 4 | (size >> 2 if words is None else words)
    total = size + len(body) if total is None else total
    head = struct.pack("!BBHHHBBH4s4s", first, 0, total & 0xFFFF, 77, spot, 64, protocol, 0, A4, B4)
    return head + options + body


def ipv6(body: bytes, following: int = TCP, *, length: int | None = None, version: int = 6) -> bytes:
    length = len(body) if length is None else length
    return struct.pack("!IHBB", version << 28, length & 0xFFFF, following, 64) + A6 + B6 + body


def extension(following: int, data: bytes = b"\1\4\0\0\0\0", *, units: int | None = None) -> bytes:
    """Hop-by-hop, routing, destination options: `data` fills up 8 bytes, or 8 more for each of `units`."""
    return bytes([following, (len(data) + 2) // 8 - 1 if units is None else units]) + data


def fragment_header(following: int, offset: int, more: bool) -> bytes:
    return struct.pack("!BBHI", following, 0, offset | more, 0xABCD1234)


def authentication(following: int, check: bytes = bytes(12)) -> bytes:
    return struct.pack("!BBHII", following, len(check) // 4 + 1, 0, 1, 1) + check


def ethernet(body: bytes, ethertype: int = 0x0800) -> bytes:
    return bytes(12) + ethertype.to_bytes(2, "big") + body


def tagged(body: bytes, *tags: int, ethertype: int = 0x0800) -> bytes:
    """An Ethernet frame with a VLAN tag for each ethertype in `tags`, the outer one first."""
    for tag in reversed(tags):
        body = struct.pack("!HH", 5, ethertype) + body
        ethertype = tag
    return ethernet(body, ethertype)


def snap(body: bytes, ethertype: int = 0x0800, organisation: bytes = b"\0\0\0") -> bytes:
    return b"\xaa\xaa\x03" + organisation + ethertype.to_bytes(2, "big") + body


def cooked(body: bytes, protocol: int = 0x0800, *, hardware: int = 1) -> bytes:
    return struct.pack("!HHH8sH", 0, hardware, 6, bytes(8), protocol) + body


def cooked2(body: bytes, protocol: int = 0x0800, *, hardware: int = 1) -> bytes:
    return struct.pack("!HHIHBB8s", protocol, 0, 1, hardware, 0, 6, bytes(8)) + body


def on_every_link(packet: bytes) -> list[tuple[str, int, bytes]]:
    """(name, link type, frame) of one IP packet behind each link layer that says which version it is."""
    is_six = packet[0] >> 4 == 6
    ethertype, family = (0x86DD, 30) if is_six else (0x0800, 2)
    length = min(1500, 8 + len(packet))
    return [
        ("ethernet", LINK_ETHERNET, ethernet(packet, ethertype)),
        ("vlan", LINK_ETHERNET, tagged(packet, 0x8100, ethertype=ethertype)),
        ("provider", LINK_ETHERNET, tagged(packet, 0x88A8, 0x8100, ethertype=ethertype)),
        ("four tags", LINK_ETHERNET, tagged(packet, 0x9200, 0x9100, 0x8100, 0x88A8, ethertype=ethertype)),
        ("snap", LINK_ETHERNET, ethernet(snap(packet, ethertype), length)),
        ("cooked", LINK_SLL, cooked(packet, ethertype)),
        ("cooked, tagged", LINK_SLL, cooked(struct.pack("!HH", 5, ethertype) + packet, 0x8100)),
        ("cooked 2", LINK_SLL2, cooked2(packet, ethertype)),
        ("null, little", LINK_NULL, family.to_bytes(4, "little") + packet),
        ("null, big", LINK_NULL, family.to_bytes(4, "big") + packet),
        ("loop", LINK_LOOP, family.to_bytes(4, "big") + packet),
        ("raw", LINK_RAW, packet),
        ("raw as 12", 12, packet),
        ("raw as 14", 14, packet),
        ("ip version", 229 if is_six else 228, packet),
    ]
