"""The walk over link layers: which are taken off, and what is said of the others."""

from __future__ import annotations

import struct

import pytest

from tests.wire.frames import A4, A6, B4, B6, cooked, ethernet, ipv4, ipv6, on_every_link, snap, tagged, tcp
from tests.wire.seen import KINDS, check_promises, values
from wfpstream.wire import (
    LINK_ETHERNET,
    LINK_IPV4,
    LINK_IPV6,
    LINK_LOOP,
    LINK_NULL,
    LINK_RAW,
    LINK_SLL,
    SKIP_MALFORMED,
    SKIP_NOT_IP,
    SKIP_TUNNEL,
    SKIP_UNKNOWN_LINK,
    Segment,
    Skip,
    walk,
    walk_ip,
)

PACKETS = [ipv4(tcp()), ipv6(tcp())]
LINKED4, LINKED6 = on_every_link(PACKETS[0]), on_every_link(PACKETS[1])


def kind(link_type: int, frame: bytes) -> int:
    found = walk(link_type, frame)
    assert isinstance(found, Skip), found
    return found.kind


@pytest.mark.parametrize(
    ("link_type", "frame", "ends"),
    [pytest.param(link, frame, (4, A4, B4), id=f"v4, {name}") for name, link, frame in LINKED4]
    + [pytest.param(link, frame, (6, A6, B6), id=f"v6, {name}") for name, link, frame in LINKED6],
)
@pytest.mark.parametrize("trailer", [b"", b"padding and trailer"])
@pytest.mark.parametrize("buffer", [bytes, memoryview])
def test_every_link_layer_is_taken_off(
    link_type: int, frame: bytes, ends: tuple[int, bytes, bytes], trailer: bytes, buffer: type
) -> None:
    found = walk(link_type, buffer(frame + trailer))
    assert isinstance(found, Segment)
    assert (found.version, found.source, found.destination) == ends
    assert (found.source_port, found.destination_port) == (40000, 80)
    assert (found.sequence, found.acknowledgement, found.flags) == (7, 9, 0x18)
    assert (found.window, found.urgent, found.missing) == (500, 3, 0)
    assert bytes(found.payload) == b"data"
    check_promises(found, frame)


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [pytest.param(link, frame, id=f"v4, {name}") for name, link, frame in LINKED4]
    + [pytest.param(link, frame, id=f"v6, {name}") for name, link, frame in LINKED6],
)
def test_every_truncation_says_what_is_missing_or_what_is_cut(link_type: int, frame: bytes) -> None:
    headers = len(frame) - len(b"data")
    for size in range(len(frame) + 1):
        found = walk(link_type, frame[:size])
        check_promises(found, frame)
        if size < headers:
            assert isinstance(found, Skip)
        else:
            assert isinstance(found, Segment)
            assert bytes(found.payload) == b"data"[: size - headers]
            assert found.missing == len(frame) - size


@pytest.mark.parametrize("packet", PACKETS)
def test_a_packet_without_link_layer_is_known_by_its_first_nibble(packet: bytes) -> None:
    assert values(walk_ip(packet)) == values(walk(LINK_RAW, packet))
    assert isinstance(walk_ip(packet), Segment)


@pytest.mark.parametrize("packet", [b"", b"\x75" + bytes(60), b"\x00" * 60, b"\xff" * 60])
def test_bytes_that_are_no_ip_packet(packet: bytes) -> None:
    found = walk_ip(packet)
    assert isinstance(found, Skip)
    assert found.kind == SKIP_MALFORMED


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (LINK_IPV6, PACKETS[0] + bytes(40)),
        (LINK_ETHERNET, ethernet(PACKETS[0] + bytes(40), 0x86DD)),
        (LINK_NULL, b"\x18\0\0\0" + PACKETS[0] + bytes(40)),
    ],
)
def test_ipv4_announced_as_ipv6_is_malformed(link_type: int, frame: bytes) -> None:
    assert kind(link_type, frame) == SKIP_MALFORMED


@pytest.mark.parametrize(
    ("link_type", "frame"),
    [
        (LINK_IPV4, PACKETS[1]),
        (LINK_ETHERNET, ethernet(PACKETS[1], 0x0800)),
        (LINK_ETHERNET, tagged(PACKETS[1], 0x8100, ethertype=0x0800)),
        (LINK_NULL, b"\2\0\0\0" + PACKETS[1]),
    ],
)
def test_ipv6_announced_as_ip_is_read_as_tshark_does(link_type: int, frame: bytes) -> None:
    found = walk(link_type, frame)
    assert isinstance(found, Segment)
    assert (found.version, found.source) == (6, A6)


@pytest.mark.parametrize("first", [0x05, 0x35, 0x55, 0x75, 0xF5])
def test_no_other_version_is_ip(first: int) -> None:
    packet = bytes([first]) + PACKETS[0][1:] + bytes(40)
    for link_type, frame in [(LINK_IPV4, packet), (LINK_IPV6, packet), (LINK_ETHERNET, ethernet(packet))]:
        assert kind(link_type, frame) == SKIP_MALFORMED


@pytest.mark.parametrize("tag", [0x8100, 0x88A8, 0x9100, 0x9200])
def test_at_most_four_tags(tag: int) -> None:
    assert isinstance(walk(LINK_ETHERNET, tagged(PACKETS[0], *[tag] * 4)), Segment)
    assert kind(LINK_ETHERNET, tagged(PACKETS[0], *[tag] * 5)) == SKIP_MALFORMED
    assert kind(LINK_ETHERNET, tagged(PACKETS[0], *[tag] * 5000)) == SKIP_MALFORMED


@pytest.mark.parametrize("family", [10, 23, 24, 28, 30])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("link_type", [LINK_NULL, LINK_LOOP])
def test_every_systems_number_of_the_ipv6_family(family: int, order: str, link_type: int) -> None:
    packed = struct.pack("<I" if order == "little" else ">I", family)
    assert isinstance(walk(link_type, packed + PACKETS[1]), Segment)


@pytest.mark.parametrize("family", [0, 7, 0x02000002, 0xFFFFFFFF])
def test_other_families_are_not_ip(family: int) -> None:
    assert kind(LINK_NULL, struct.pack("<I", family) + PACKETS[0]) == SKIP_NOT_IP


@pytest.mark.parametrize("ethertype", [0x8847, 0x8848, 0x8864, 0x88E7, 0x894F])
@pytest.mark.parametrize("tags", [(), (0x8100,), (0x88A8, 0x8100)])
def test_tunnels_below_ip_are_left_to_others(ethertype: int, tags: tuple[int, ...]) -> None:
    assert kind(LINK_ETHERNET, tagged(bytes(60), *tags, ethertype=ethertype)) == SKIP_TUNNEL
    assert kind(LINK_SLL, cooked(bytes(60), ethertype)) == SKIP_TUNNEL


@pytest.mark.parametrize("ethertype", [0x0806, 0x8863, 0x88CC, 0x86DE, 0x07FF, 0xFFFF])
def test_other_ethertypes_are_not_ip(ethertype: int) -> None:
    assert kind(LINK_ETHERNET, ethernet(PACKETS[0], ethertype)) == SKIP_NOT_IP
    assert kind(LINK_ETHERNET, ethernet(bytes(8), ethertype)) == SKIP_NOT_IP


@pytest.mark.parametrize("length", [0, 38, 1500])
def test_802_3_without_ip(length: int) -> None:
    spanning_tree = b"\x42\x42\x03" + bytes(57)
    assert kind(LINK_ETHERNET, ethernet(spanning_tree, length)) == SKIP_NOT_IP
    assert kind(LINK_ETHERNET, ethernet(snap(PACKETS[0], 0x2000, b"\0\0\x0c"), length)) == SKIP_NOT_IP
    assert kind(LINK_ETHERNET, ethernet(snap(snap(PACKETS[0]), 100), length)) == SKIP_NOT_IP


def test_bridged_snap_is_an_ethertype_too() -> None:
    frame = ethernet(snap(PACKETS[0], organisation=b"\0\0\xf8"), 60)
    assert isinstance(walk(LINK_ETHERNET, frame), Segment)


def test_cooked_frames_with_802_2_and_of_netlink() -> None:
    assert isinstance(walk(LINK_SLL, cooked(snap(PACKETS[0]), 4)), Segment)
    assert kind(LINK_SLL, cooked(snap(PACKETS[0]), 1)) == SKIP_NOT_IP
    assert kind(LINK_SLL, cooked(PACKETS[0], 0x0800, hardware=824)) == SKIP_NOT_IP


@pytest.mark.parametrize("link_type", [9, 51, 105, 127, 147, 1000, -1, 2**40])
def test_unknown_link_types(link_type: int) -> None:
    assert kind(link_type, ethernet(PACKETS[0])) == SKIP_UNKNOWN_LINK
    assert kind(link_type, b"") == SKIP_UNKNOWN_LINK


def test_the_kinds_differ() -> None:
    assert len(KINDS) == 5
