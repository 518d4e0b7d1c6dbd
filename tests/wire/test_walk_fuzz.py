"""The walk over hostile bytes: random ones, real frames with bytes and lengths changed, and every truncation.

It must never raise, keep the promises of its answers, and say the same of a packet whatever is around it: the
short cut for plain frames and the walk by layers are held against each other that way.
"""

from __future__ import annotations

import struct
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wire.captures import files, frames
from tests.wire.frames import (
    AH,
    FRAGMENT,
    GRE,
    IPIP,
    IPV6,
    OPTIONS,
    ROUTING,
    TCP,
    UDP,
    authentication,
    ethernet,
    extension,
    fragment_header,
    ipv4,
    ipv6,
    on_every_link,
    snap,
    tagged,
    tcp,
    udp,
)
from tests.wire.seen import check_promises, values
from wfpstream.wire import LINK_ETHERNET, SKIP_MALFORMED, Fragment, Segment, Skip, walk, walk_ip

LINKS = [0, 1, 12, 14, 101, 108, 113, 228, 229, 276, 9, 105]

CHAIN = (
    extension(ROUTING) + extension(OPTIONS, b"\0\1" + bytes(20)) + extension(AH) + authentication(FRAGMENT)
)
PACKETS = [
    ipv4(tcp()),
    ipv4(tcp(options=bytes(12)), options=b"\1\x83\x0b\4" + bytes(8)),
    ipv4(b"12345678", spot=0x2000),
    ipv4(udp(9, 4789, bytes(20)), UDP),
    ipv4(bytes(20), GRE),
    ipv4(authentication(TCP) + tcp(), AH),
    ipv4(ipv6(ipv4(tcp(), total=0), IPIP), IPV6),
    ipv6(tcp()),
    ipv6(CHAIN + fragment_header(TCP, 0, False) + tcp(), 0),
    ipv6(CHAIN + fragment_header(OPTIONS, 8, True) + extension(TCP) + tcp(), 0),
    ipv6(extension(TCP, b"\1\2\0\0\xc9\x10" + bytes(16)) + tcp(), OPTIONS),
    ipv6(extension(TCP, b"\xc2\4\0\0\0\x20") + tcp(), 0, length=0),
]
MADE = [(link, frame) for packet in PACKETS for _, link, frame in on_every_link(packet)]
MADE += [(LINK_ETHERNET, ethernet(snap(bytes(9)), 17)), (LINK_ETHERNET, tagged(bytes(9), *[0x8100] * 5))]


@cache
def samples() -> list[tuple[int, bytes]]:
    """The frames made above and, where the captures are, some of each of them, cut to 300 bytes."""
    found = list(MADE)
    for path in files():
        every = frames(path)
        found += [(link_type, frame[:300]) for link_type, frame in every[:: max(1, len(every) // 6)]]
    return found


sample = st.deferred(lambda: st.sampled_from(samples()))
# Where the header bytes are is where the walk decides.
place = st.one_of(st.integers(0, 60), st.integers(0, 300))
interesting = st.one_of(
    st.sampled_from([0, 1, 2, 4, 6, 17, 41, 43, 44, 45, 46, 47, 51, 60, 0x7F, 0x80, 0xFE, 0xFF]),
    st.integers(0, 255),
)
changes = st.lists(st.tuples(place, interesting), max_size=8)


def changed(frame: bytes, where: list[tuple[int, int]]) -> bytes:
    mutable = bytearray(frame)
    for at, value in where:
        if at < len(mutable):
            mutable[at] = value
    return bytes(mutable)


@given(st.one_of(st.sampled_from(LINKS), st.integers()), st.binary(max_size=200))
@example(1, b"")
def test_random_bytes(link_type: int, frame: bytes) -> None:
    check_promises(walk(link_type, frame), frame)
    assert values(walk(link_type, memoryview(frame))) == values(walk(link_type, frame))


@given(st.sampled_from([0x40, 0x45, 0x46, 0x4F, 0x60]), st.binary(max_size=200))
def test_random_packets(first: int, rest: bytes) -> None:
    packet = bytes([first]) + rest
    check_promises(walk_ip(packet), packet)


@given(sample, changes, st.integers(0, 300) | st.none(), st.binary(max_size=20))
def test_frames_with_bytes_changed(
    taken: tuple[int, bytes], where: list[tuple[int, int]], size: int | None, trailer: bytes
) -> None:
    link_type, frame = taken
    frame = changed(frame, where)[:size] + trailer
    found = walk(link_type, frame)
    check_promises(found, frame)
    if isinstance(found, Fragment):
        check_rebuilt(found)


def check_rebuilt(found: Fragment) -> None:
    """Header and payload together are a packet that the walk gets on with, and no fragment of it again."""
    packet = bytearray(found.header + found.payload)
    at, size = (2, len(packet)) if found.version == 4 else (4, len(packet) - 40)
    packet[at : at + 2] = min(size, 0xFFFF).to_bytes(2, "big")
    again = walk_ip(bytes(packet))
    check_promises(again, bytes(packet))
    if found.version == 4 and found.protocol == TCP:
        assert not isinstance(again, Fragment)


@given(sample)
def test_frames_cut_at_every_byte(taken: tuple[int, bytes]) -> None:
    link_type, frame = taken
    for size in range(min(len(frame), 150)):  # the headers end before that
        check_promises(walk(link_type, frame[:size]), frame)


@pytest.mark.parametrize("packet", PACKETS)
def test_every_value_of_every_header_byte(packet: bytes) -> None:
    frame = bytearray(ethernet(packet, 0x0800 if packet[0] >> 4 == 4 else 0x86DD))
    for at in range(12, len(frame)):
        before = frame[at]
        for value in range(256):
            frame[at] = value
            check_promises(walk(LINK_ETHERNET, bytes(frame)), bytes(frame))
        frame[at] = before


@given(st.sampled_from(PACKETS), changes, st.integers(0, 100) | st.none(), st.binary(max_size=10))
def test_the_link_layer_makes_no_difference(
    packet: bytes, where: list[tuple[int, int]], size: int | None, trailer: bytes
) -> None:
    version = packet[0] >> 4
    packet = changed(packet, where)[:size] + trailer
    if not packet or packet[0] >> 4 != version:
        return  # the layers that announce a version are about to say another
    expected = values(walk_ip(packet))
    for name, link_type, frame in on_every_link(packet):
        if name != "snap" or len(packet) <= 1000:
            assert values(walk(link_type, frame)) == expected, name


@given(changes, st.integers(0, 1500), st.binary(max_size=30), st.sampled_from([4, 6]))
def test_a_header_without_meaning_makes_no_difference(
    where: list[tuple[int, int]], lost: int, payload: bytes, version: int
) -> None:
    """An option or an extension header that says nothing takes the frame off the short cut."""
    body = changed(tcp(payload, options=bytes(4)), where)
    if version == 4:
        plain = ipv4(body, total=20 + len(body) + lost)
        other = ipv4(body, total=24 + len(body) + lost, options=b"\1\1\1\1")
    else:
        plain = ipv6(body, length=len(body) + lost)
        other = ipv6(extension(TCP) + body, OPTIONS, length=8 + len(body) + lost)
    first, second = walk_ip(plain), walk_ip(other)
    assert type(first) is type(second)
    if isinstance(first, Segment):
        assert values(first)[:-1] == values(second)[:-1]  # but for the IPv4 header's checksum


numbers = st.sampled_from([0, ROUTING, OPTIONS, 135, AH, FRAGMENT, IPIP, IPV6, TCP, UDP, 59, 1])


@given(
    st.lists(st.tuples(numbers, st.integers(0, 255), st.binary(max_size=30)), max_size=12),
    st.integers(0, 0xFFFF),
)
def test_extension_headers_that_lie(headers: list[tuple[int, int, bytes]], length: int) -> None:
    body = b"".join(bytes([following, units]) + data for following, units, data in headers)
    for first in (0, AH, FRAGMENT, ROUTING):
        packet = ipv6(body + tcp(), first, length=length)
        check_promises(walk_ip(packet), packet)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 0xFFFF)), min_size=5, max_size=40),
    st.sampled_from([True, False]),
)
def test_packets_in_packets_without_end(layers: list[tuple[bool, int]], honest: bool) -> None:
    packet, protocol = ipv4(tcp()), IPIP
    for is_four, length in layers:
        if is_four:
            packet = ipv4(packet, protocol, total=None if honest else length)
        else:
            packet = ipv6(packet, protocol, length=None if honest else length)
        protocol = IPIP if is_four else IPV6
    found = walk_ip(packet)
    assert isinstance(found, Skip)
    assert found.kind == SKIP_MALFORMED


@given(st.lists(st.sampled_from([0x8100, 0x88A8, 0x9100, 0x9200]), max_size=4), st.integers(0, 0xFFFF))
def test_tags_in_any_order(tags: list[int], identity: int) -> None:
    frame = bytearray(tagged(ipv4(tcp()), *tags))
    for at in range(len(tags)):
        struct.pack_into("!H", frame, 14 + 4 * at, identity)
    found = walk(LINK_ETHERNET, bytes(frame))
    assert isinstance(found, Segment)
    assert bytes(found.payload) == b"data"
