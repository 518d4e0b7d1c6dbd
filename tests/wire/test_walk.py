"""The walk over frames built by hand: each link type, tag, extension header and lie of a length field."""

from __future__ import annotations

import struct

import pytest

from wfpstream.wire import LINK_ETHERNET, Segment, walk

A4, B4 = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])


def tcp(payload: bytes = b"data", *, options: bytes = b"") -> bytes:
    size = 20 + len(options)
    return struct.pack("!HHIIBBHHH", 40000, 80, 7, 9, size << 2, 0x18, 500, 0, 3) + options + payload


def ipv4(body: bytes, protocol: int = 6) -> bytes:
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, A4, B4) + body


def ethernet(body: bytes, ethertype: int = 0x0800) -> bytes:
    return bytes(12) + ethertype.to_bytes(2, "big") + body


@pytest.mark.parametrize("trailer", [b"", b"trailer"])
def test_a_plain_frame(trailer: bytes) -> None:
    found = walk(LINK_ETHERNET, ethernet(ipv4(tcp())) + trailer)
    assert isinstance(found, Segment)
    assert (found.version, found.source, found.destination) == (4, A4, B4)
    assert (found.source_port, found.destination_port) == (40000, 80)
    assert (found.sequence, found.acknowledgement, found.flags) == (7, 9, 0x18)
    assert (found.window, found.urgent, found.missing) == (500, 3, 0)
    assert bytes(found.payload) == b"data"
