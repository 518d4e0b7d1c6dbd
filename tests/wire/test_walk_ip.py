"""The walk inside IP: options, extension headers, fragments, IP in IP, and length fields that lie."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest

from tests.wire.frames import (
    A4,
    A6,
    AH,
    B4,
    B6,
    FRAGMENT,
    GRE,
    ICMP6,
    IPIP,
    IPV6,
    NOTHING,
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
    tcp,
    udp,
)
from tests.wire.seen import check_promises
from wfpstream.wire import (
    LINK_ETHERNET,
    SKIP_MALFORMED,
    SKIP_NOT_TCP,
    SKIP_TUNNEL,
    Fragment,
    Segment,
    Skip,
    internet_checksum,
    walk,
    walk_ip,
)

HOP_BY_HOP = 0
C4 = bytes([10, 9, 9, 9])
C6 = bytes.fromhex("20010db8") + bytes(11) + b"\3"


def segment(packet: bytes) -> Segment:
    """The segment found in `packet`, alone and as an Ethernet frame alike."""
    found = walk_ip(packet)
    assert isinstance(found, Segment), found
    check_promises(found, packet)
    ethertype = 0x86DD if packet[0] >> 4 == 6 else 0x0800
    framed = walk(LINK_ETHERNET, ethernet(packet, ethertype))
    assert isinstance(framed, Segment)
    assert (bytes(framed.payload), framed.missing) == (bytes(found.payload), found.missing)
    return found


def kind(packet: bytes) -> int:
    """Why `packet` is skipped, alone and as an Ethernet frame alike."""
    found = walk_ip(packet)
    assert isinstance(found, Skip), found
    ethertype = 0x86DD if packet and packet[0] >> 4 == 6 else 0x0800
    assert walk(LINK_ETHERNET, ethernet(packet, ethertype)) == found
    return found.kind


def fragment(packet: bytes) -> Fragment:
    found = walk_ip(packet)
    assert isinstance(found, Fragment), found
    check_promises(found, packet)
    return found


# --- options and extension headers -----------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [b"\1\1\1\0", b"\x94\x04\0\0" * 3, b"\xff" * 40, bytes(40), b"\x83\x01\0\0"]
)
def test_ipv4_options(options: bytes) -> None:
    found = segment(ipv4(tcp(), options=options))
    assert (bytes(found.payload), found.destination) == (b"data", B4)


@pytest.mark.parametrize("route", [0x83, 0x89])
@pytest.mark.parametrize("before", [b"", b"\1", b"\x94\x04\0\0"])
def test_the_last_hop_of_an_ipv4_source_route_is_the_destination(route: int, before: bytes) -> None:
    def routed(pointer: int) -> Segment:
        option = before + bytes([route, 11, pointer]) + bytes(4) + C4
        return segment(ipv4(tcp(), options=option + bytes(-len(option) % 4)))

    assert routed(4).destination == C4
    assert routed(8).destination == C4
    assert routed(12).destination == B4  # the route is used up
    assert routed(0).destination == routed(3).destination == routed(6).destination == B4


def test_tcp_options_are_no_payload() -> None:
    for packet in (ipv4(tcp(options=bytes(40))), ipv6(tcp(options=bytes(40)))):
        assert bytes(segment(packet).payload) == b"data"


@pytest.mark.parametrize("number", [HOP_BY_HOP, ROUTING, OPTIONS, 135, 139, 140])
@pytest.mark.parametrize("size", [6, 14, 254 * 8 - 2, 256 * 8 - 2])
def test_ipv6_extension_headers(number: int, size: int) -> None:
    found = segment(ipv6(extension(TCP, bytes(size)) + tcp(), number))
    assert (bytes(found.payload), found.source, found.destination) == (b"data", A6, B6)


def test_ipv6_extension_headers_in_a_row() -> None:
    numbers = [HOP_BY_HOP, OPTIONS, ROUTING, OPTIONS, AH, FRAGMENT, OPTIONS, TCP]
    body = b""
    for number, following in pairwise(numbers):
        if number == AH:
            body += authentication(following)
        elif number == FRAGMENT:
            body += fragment_header(following, 0, False)
        else:
            body += extension(following)
    assert bytes(segment(ipv6(body + tcp(), HOP_BY_HOP)).payload) == b"data"


def test_ipv6_extension_headers_without_end() -> None:
    many = extension(OPTIONS) * 8000
    assert kind(ipv6(many, OPTIONS)) == SKIP_MALFORMED
    assert bytes(segment(ipv6(many + extension(TCP) + tcp(), OPTIONS)).payload) == b"data"


@pytest.mark.parametrize("check", [b"", bytes(12), bytes(16), bytes(32)])
def test_authentication_headers(check: bytes) -> None:
    header = authentication(TCP, check)
    assert bytes(segment(ipv4(header + tcp(), AH)).payload) == b"data"
    assert bytes(segment(ipv6(header + tcp(), AH)).payload) == b"data"


def test_an_authentication_header_shorter_than_it_can_be_still_has_its_fixed_fields() -> None:
    assert bytes(segment(ipv4(bytes([TCP]) + bytes(7) + tcp(), AH)).payload) == b"data"
    assert kind(ipv4(bytes([AH]) + bytes(7), AH)) == SKIP_MALFORMED
    assert kind(ipv4(bytes([AH, 0, 0, 0]) * 5000, AH)) == SKIP_MALFORMED


@pytest.mark.parametrize(
    ("type_", "left", "addresses", "expected"),
    [
        (0, 2, C6 + B6 + C6, C6),
        (0, 0, A6 + C6, B6),
        (2, 1, C6, C6),
        (4, 1, C6 + A6, C6),
        (4, 0, C6 + A6, B6),
        (4, 1, C6 + A6 + bytes(8), C6),
        (3, 1, C6, B6),  # RPL compresses its addresses: not read
        (253, 1, C6, B6),
        (0, 1, b"", B6),
    ],
)
def test_the_last_segment_of_an_ipv6_route_is_the_destination(
    type_: int, left: int, addresses: bytes, expected: bytes
) -> None:
    header = extension(TCP, bytes([type_, left]) + bytes(4) + addresses)
    assert segment(ipv6(header + tcp(), ROUTING)).destination == expected


def test_the_home_address_is_the_source() -> None:
    header = extension(TCP, b"\1\2\0\0" + b"\xc9\x10" + C6)
    assert segment(ipv6(header + tcp(), OPTIONS)).source == C6
    lying = extension(TCP, b"\1\2\0\0" + b"\xc9\x11" + C6)
    assert segment(ipv6(lying + tcp(), OPTIONS)).source == A6


# --- lengths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 3, 1000])
def test_what_ip_promises_and_the_capture_lacks_is_missing(lost: int) -> None:
    four, six = tcp(b"da"), tcp(b"da")
    for packet in (ipv4(four, total=20 + len(four) + lost), ipv6(six, length=len(six) + lost)):
        found = segment(packet)
        assert (bytes(found.payload), found.missing) == (b"da", lost)


def test_a_capture_may_cut_inside_the_tcp_options() -> None:
    whole = tcp(b"0123456789", options=bytes(20))
    for body in (whole[:20], whole[:39], whole[:40]):
        for packet in (ipv4(body, total=20 + len(whole)), ipv6(body, length=len(whole))):
            found = segment(packet)
            assert (bytes(found.payload), found.missing) == (b"", 10)
            assert found.checksum_ok()
    cut = segment(ipv4(tcp(b"", options=bytes(20))[:20], total=60))
    assert (bytes(cut.payload), cut.missing, cut.checksum_ok()) == (b"", 0, True)


def test_a_capture_may_not_cut_the_tcp_header_before_its_options() -> None:
    assert kind(ipv4(tcp()[:19], total=44)) == SKIP_MALFORMED
    assert kind(ipv6(tcp()[:19], length=24)) == SKIP_MALFORMED


def test_a_length_of_zero_means_up_to_the_end() -> None:
    big = bytes(3000)
    for packet in (ipv4(tcp(big), total=0), ipv6(tcp(big), length=0)):
        found = segment(packet)
        assert (bytes(found.payload), found.missing) == (big, 0)


def test_a_jumbogram_has_its_length_in_an_option() -> None:
    body = tcp(bytes(70_000))
    option = extension(TCP, b"\xc2\x04" + struct.pack("!I", 8 + len(body)))
    assert len(segment(ipv6(option + body + b"trailer", HOP_BY_HOP, length=0)).payload) == 70_000
    assert segment(ipv6(option + body[:-7], HOP_BY_HOP, length=0)).missing == 7


def test_a_jumbo_option_beside_a_length_means_nothing() -> None:
    option = extension(TCP, b"\xc2\x04" + struct.pack("!I", 30))
    assert bytes(segment(ipv6(option + tcp(), HOP_BY_HOP)).payload) == b"data"


@pytest.mark.parametrize("total", [1, 19, 20, 39])
def test_an_ipv4_total_length_that_ends_in_a_header(total: int) -> None:
    assert kind(ipv4(tcp(), total=total)) == SKIP_MALFORMED


@pytest.mark.parametrize("length", [1, 19])
def test_an_ipv6_payload_length_that_ends_in_a_header(length: int) -> None:
    assert kind(ipv6(tcp(), length=length)) == SKIP_MALFORMED


@pytest.mark.parametrize("words", [0, 1, 4])
def test_an_ipv4_header_length_below_its_least(words: int) -> None:
    assert kind(ipv4(tcp(), words=words)) == SKIP_MALFORMED


def test_an_ipv4_header_length_behind_the_packet() -> None:
    assert kind(ipv4(tcp(b"")[:20], words=15)) == SKIP_MALFORMED
    assert kind(ipv4(tcp(), words=15, total=44)) == SKIP_MALFORMED


@pytest.mark.parametrize("size", [0, 4, 16, 28, 60])
def test_a_tcp_header_length_below_its_least_or_behind_the_segment(size: int) -> None:
    assert kind(ipv4(tcp(size=size))) == SKIP_MALFORMED
    assert kind(ipv6(tcp(size=size))) == SKIP_MALFORMED
    assert kind(ipv4(tcp(size=size), options=bytes(4))) == SKIP_MALFORMED
    assert kind(ipv6(extension(TCP) + tcp(size=size), OPTIONS)) == SKIP_MALFORMED


@pytest.mark.parametrize("number", [HOP_BY_HOP, ROUTING, OPTIONS, 135])
@pytest.mark.parametrize("units", [4, 255])
def test_an_extension_header_behind_the_packet(number: int, units: int) -> None:
    assert kind(ipv6(extension(TCP, units=units) + tcp(), number)) == SKIP_MALFORMED


# --- fragments -------------------------------------------------------------------------------------


def test_ipv4_fragments() -> None:
    first = fragment(ipv4(b"12345678", spot=0x2000, options=b"\1\1\1\0") + b"trailer")
    assert (first.version, first.source, first.destination) == (4, A4, B4)
    assert (first.identification, first.protocol) == (77, TCP)
    assert (first.offset, first.more, bytes(first.payload), first.missing) == (0, True, b"12345678", 0)
    last = fragment(ipv4(b"123", spot=3))
    assert (last.offset, last.more, bytes(last.payload)) == (24, False, b"123")


def test_ipv6_fragments() -> None:
    body = fragment_header(TCP, 0, True) + b"12345678"
    first = fragment(ipv6(body, FRAGMENT) + b"trailer")
    assert (first.version, first.source, first.destination) == (6, A6, B6)
    assert (first.identification, first.protocol) == (0xABCD1234, TCP)
    assert (first.offset, first.more, bytes(first.payload), first.missing) == (0, True, b"12345678", 0)
    last = fragment(ipv6(fragment_header(TCP, 64, False) + b"123", FRAGMENT))
    assert (last.offset, last.more, bytes(last.payload)) == (64, False, b"123")


@pytest.mark.parametrize("payload", [b"whole again", bytes(2000)])
def test_the_header_of_a_fragment_and_all_the_payload_are_the_packet(payload: bytes) -> None:
    body = tcp(payload)
    four = [fragment(ipv4(body[:24], spot=0x2000, options=b"\1\1\1\0")), fragment(ipv4(body[24:], spot=3))]
    joined = bytearray(four[0].header + b"".join(part.payload for part in four))
    joined[2:4] = len(joined).to_bytes(2, "big")
    assert bytes(segment(bytes(joined)).payload) == payload

    def six(part: bytes, offset: int, more: bool) -> Fragment:
        chain = extension(ROUTING) + extension(FRAGMENT) + fragment_header(OPTIONS, offset, more)
        return fragment(ipv6(chain + part, HOP_BY_HOP))

    body = extension(TCP) + body
    parts = [six(body[:16], 0, True), six(body[16:], 16, False)]
    assert parts[0].protocol == OPTIONS
    joined = bytearray(parts[0].header + b"".join(part.payload for part in parts))
    joined[4:6] = (len(joined) - 40).to_bytes(2, "big")
    assert bytes(segment(bytes(joined)).payload) == payload


def test_an_atomic_fragment_is_a_plain_packet() -> None:
    assert bytes(segment(ipv6(fragment_header(TCP, 0, False) + tcp(), FRAGMENT)).payload) == b"data"
    assert bytes(segment(ipv4(tcp(), spot=0x8000)).payload) == b"data"


def test_a_fragment_that_the_capture_cut_says_so() -> None:
    assert fragment(ipv4(b"1234", spot=0x2000, total=44)).missing == 20
    assert fragment(ipv6(fragment_header(TCP, 8, True) + b"1234", FRAGMENT, length=32)).missing == 20


def test_fragments_that_end_behind_the_largest_packet() -> None:
    assert kind(ipv4(bytes(100), spot=0x1FFF)) == SKIP_MALFORMED
    assert kind(ipv6(fragment_header(TCP, 0xFFF8, False) + bytes(100), FRAGMENT)) == SKIP_MALFORMED
    assert fragment(ipv4(bytes(7), spot=0x1FFF)).offset == 65_528


def test_fragments_without_a_byte() -> None:
    assert kind(ipv4(b"", spot=0x2000)) == SKIP_MALFORMED
    assert kind(ipv6(fragment_header(TCP, 8, True), FRAGMENT)) == SKIP_MALFORMED


@pytest.mark.parametrize("protocol", [TCP, UDP, IPIP, IPV6, GRE, AH])
def test_fragments_of_what_may_lead_to_tcp_are_kept(protocol: int) -> None:
    assert fragment(ipv4(bytes(8), protocol, spot=0x2000)).protocol == protocol
    assert fragment(ipv6(fragment_header(protocol, 0, True) + bytes(8), FRAGMENT)).protocol == protocol


@pytest.mark.parametrize("protocol", [1, 2, 50, ICMP6, NOTHING, 89, 132])
def test_fragments_of_anything_else_are_not(protocol: int) -> None:
    assert kind(ipv4(bytes(8), protocol, spot=0x2000)) == SKIP_NOT_TCP
    assert kind(ipv6(fragment_header(protocol, 0, True) + bytes(8), FRAGMENT)) == SKIP_NOT_TCP


# --- what is not TCP, and what is inside something -------------------------------------------------


@pytest.mark.parametrize("protocol", [1, 2, 50, ICMP6, NOTHING, 89, 132, 255])
def test_other_protocols(protocol: int) -> None:
    assert kind(ipv4(tcp(), protocol)) == SKIP_NOT_TCP
    assert kind(ipv6(tcp(), protocol)) == SKIP_NOT_TCP
    assert kind(ipv6(extension(protocol) + tcp(), OPTIONS)) == SKIP_NOT_TCP


def test_tcp_quoted_by_icmp_is_not_tcp() -> None:
    quoted = ipv4(tcp())
    assert kind(ipv4(b"\3\1\0\0\0\0\0\0" + quoted, 1)) == SKIP_NOT_TCP
    assert kind(ipv6(b"\1\4\0\0\0\0\0\0" + ipv6(tcp()), ICMP6)) == SKIP_NOT_TCP


def test_an_ipv4_packet_has_no_ipv6_extension_headers() -> None:
    for number in (HOP_BY_HOP, ROUTING, FRAGMENT, OPTIONS):
        assert kind(ipv4(extension(TCP) + tcp(), number)) == SKIP_NOT_TCP


@pytest.mark.parametrize("port", [1701, 2152, 3544, 4789, 4790, 6081, 6635, 8472])
def test_tunnels_over_udp_are_left_to_others(port: int) -> None:
    assert kind(ipv4(udp(5555, port), UDP)) == SKIP_TUNNEL
    assert kind(ipv6(udp(port, 5555), UDP)) == SKIP_TUNNEL


def test_other_udp() -> None:
    assert kind(ipv4(udp(5555, 53), UDP)) == SKIP_NOT_TCP
    assert kind(ipv4(udp(5555, 4789)[:3], UDP)) == SKIP_NOT_TCP


@pytest.mark.parametrize("protocol", [GRE, 97, 115, 137])
def test_tunnels_over_ip_are_left_to_others(protocol: int) -> None:
    assert kind(ipv4(bytes(40), protocol)) == SKIP_TUNNEL
    assert kind(ipv6(bytes(40), protocol)) == SKIP_TUNNEL


@pytest.mark.parametrize("outer", [ipv4, ipv6])
def test_ip_in_ip(outer: type) -> None:
    four, six = segment(outer(ipv4(tcp()) + b"pad", IPIP)), segment(outer(ipv6(tcp()) + b"pad", IPV6))
    assert (four.version, four.source, bytes(four.payload)) == (4, A4, b"data")
    assert (six.version, six.source, bytes(six.payload)) == (6, A6, b"data")


def nested(times: int) -> bytes:
    packet, protocol = ipv4(tcp()), IPIP
    for depth in range(times):
        is_four = depth % 2 == 0
        packet = (ipv4 if is_four else ipv6)(packet, protocol)
        protocol = IPIP if is_four else IPV6
    return packet


def test_at_most_four_packets_around_one() -> None:
    for _, link_type, frame in on_every_link(nested(4)) + on_every_link(nested(3)):
        found = walk(link_type, frame)
        assert isinstance(found, Segment)
        assert bytes(found.payload) == b"data"
    for times in (5, 6, 7, 1500):
        for _, link_type, frame in on_every_link(nested(times)):
            skipped = walk(link_type, frame)
            assert isinstance(skipped, Skip)
            assert skipped.kind == SKIP_MALFORMED


def test_the_inner_packet_ends_with_the_outer_one() -> None:
    inner = ipv4(tcp(b"0123456789"), total=40 + 10)
    found = segment(ipv4(inner, IPIP, total=20 + len(inner) - 4))
    assert (bytes(found.payload), found.missing) == (b"012345", 4)
    unlimited = segment(ipv4(ipv4(tcp(b"0123456789"), total=0), IPIP) + b"trailer")
    assert bytes(unlimited.payload) == b"0123456789"


def test_the_version_inside() -> None:
    assert kind(ipv4(ipv4(tcp()) + bytes(40), IPV6)) == SKIP_MALFORMED
    assert segment(ipv4(ipv6(tcp()), IPIP)).version == 6  # protocol 4 is IP, and tshark reads both


# --- checksums -------------------------------------------------------------------------------------


def summed(packet: bytes, tcp_at: int, ends: bytes) -> bytes:
    """`packet` with both checksums right, for the pseudo-header addresses `ends`."""
    whole = bytearray(packet)
    if whole[0] >> 4 == 4:
        whole[10:12] = internet_checksum(bytes(whole[: (whole[0] & 15) << 2])).to_bytes(2, "big")
    pseudo = ends + struct.pack("!IHH", len(whole) - tcp_at, 0, TCP)
    whole[tcp_at + 16 : tcp_at + 18] = internet_checksum(pseudo, bytes(whole[tcp_at:])).to_bytes(2, "big")
    return bytes(whole)


SUMMED = [
    summed(ipv4(tcp()), 20, A4 + B4),
    summed(ipv4(tcp(b"odd")), 20, A4 + B4),
    summed(ipv4(tcp(b""), options=b"\1\1\1\0"), 24, A4 + B4),
    summed(ipv4(tcp(), options=b"\x83\x07\x04" + C4 + b"\0"), 28, A4 + C4),
    summed(ipv6(tcp(b"odd")), 40, A6 + B6),
    summed(ipv6(extension(TCP) + tcp(), OPTIONS), 48, A6 + B6),
    summed(ipv6(extension(TCP, b"\4\1\1\0\0\0" + C6 + A6) + tcp(), ROUTING), 80, A6 + C6),
    summed(ipv6(extension(TCP, b"\1\2\0\0\xc9\x10" + C6) + tcp(), OPTIONS), 64, C6 + B6),
    summed(ipv6(fragment_header(TCP, 0, False) + tcp(), FRAGMENT), 48, A6 + B6),
]


@pytest.mark.parametrize("packet", SUMMED)
def test_right_checksums(packet: bytes) -> None:
    for name, link_type, frame in on_every_link(packet):
        for behind in (b"", b"trailer"):
            found = walk(link_type, frame + behind)
            assert isinstance(found, Segment)
            assert found.checksum_ok(), name


@pytest.mark.parametrize("packet", SUMMED)
def test_one_wrong_bit_in_the_segment(packet: bytes) -> None:
    for at in range(len(packet) - len(bytes(segment(packet).payload)) - 20, len(packet)):
        wrong = bytearray(packet)
        wrong[at] ^= 1
        found = walk_ip(bytes(wrong))
        assert not (isinstance(found, Segment) and found.checksum_ok())


def test_a_wrong_ipv4_header() -> None:
    wrong = bytearray(SUMMED[0])
    wrong[8] -= 1  # the time to live is in no pseudo-header
    assert not segment(bytes(wrong)).checksum_ok()


def test_a_cut_segment_is_not_doubted() -> None:
    assert segment(SUMMED[0][:-1]).checksum_ok()
