"""IP packets inside encapsulations: each encapsulation made by scapy or from its RFC, both IP versions inside.

What scapy builds and what our walk reads back meet in the middle, so neither is compared with itself. Damaged
packets give a `TunnelError` of one line or nothing, never anything else.
"""

from __future__ import annotations

import logging
import struct
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.replay.support_captures import ROOT, shared_capture
from wfpstream.replay._reader import open_capture
from wfpstream.replay._tunnels import TunnelError, inner_packets
from wfpstream.wire import SKIP_TUNNEL, SKIP_UNKNOWN_LINK, Segment, Skip, tcp_frame, walk, walk_ip

ETHERNET = 1
PAYLOAD = b"GET / HTTP/1.0\r\n\r\n"
ENDS = {4: (b"\x0a\0\0\1", b"\x0a\0\0\2"), 6: (bytes(15) + b"\1", bytes(15) + b"\2")}
# The inner Ethernet frame, and the same without Ethernet.
FRAMES = {version: tcp_frame(*ENDS[version], 4000, 80, 1, 2, 24, PAYLOAD) for version in (4, 6)}
PACKETS = {version: frame[14:] for version, frame in FRAMES.items()}
versions = pytest.mark.parametrize("version", [4, 6])


@cache
def layers() -> dict[str, Any]:
    """scapy's classes by name."""
    from scapy.contrib import erspan, etherip, geneve, gtp, mpls
    from scapy.layers import dot11, inet, inet6, l2, l2tp, ppp, vxlan
    from scapy.packet import Raw

    names: dict[str, Any] = {"Raw": Raw}
    for module in (erspan, etherip, geneve, gtp, mpls, dot11, l2, l2tp, ppp, vxlan, inet, inet6):
        names.update(vars(module))
    return names


def ethernet(**fields: int) -> Any:
    """An Ethernet header with addresses, so that scapy does not look for one."""
    return layers()["Ether"](src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **fields)


def ip(**fields: int) -> Any:
    return layers()["IP"](src="192.0.2.1", dst="192.0.2.2", **fields)


def ip6(**fields: int) -> Any:
    return layers()["IPv6"](src="2001:db8::1", dst="2001:db8::2", **fields)


def carriers(version: int) -> Iterator[tuple[str, int, bytes]]:
    """Every encapsulation: its name, the link type and the frame."""
    s = layers()
    UDP, GRE = s["UDP"], s["GRE"]
    frame, packet = FRAMES[version], PACKETS[version]
    ethertype = 0x0800 if version == 4 else 0x86DD
    ppp_protocol = 0x0021 if version == 4 else 0x0057
    outer, outer6 = ethernet() / ip(), ethernet() / ip6()

    def made(head: Any, inner: bytes, link: int = ETHERNET) -> tuple[int, bytes]:
        return link, bytes(head / s["Raw"](inner))

    yield "vxlan", *made(outer / UDP(dport=4789) / s["VXLAN"](vni=5, flags=8), frame)
    yield "vxlan-linux", *made(outer / UDP(dport=8472) / s["VXLAN"](vni=5, flags=8), frame)
    yield "vxlan-v6", *made(outer6 / UDP(dport=4789) / s["VXLAN"](vni=5, flags=8), frame)
    yield (
        "vxlan-vlan",
        *made(ethernet() / s["Dot1Q"](vlan=3) / outer.payload / UDP(dport=4789) / s["VXLAN"](flags=8), frame),
    )
    gpe = {4: 1, 6: 2}[version]
    yield "vxlan-gpe", *made(outer / UDP(dport=4790) / s["VXLAN"](flags=12, NextProtocol=gpe), packet)
    yield "geneve", *made(outer / UDP(dport=6081) / s["GENEVE"](proto=0x6558), frame)
    option = s["GeneveOptions"](data=b"12345678")
    yield (
        "geneve-ip",
        *made(outer6 / UDP(dport=6081) / s["GENEVE"](proto=ethertype, options=[option]), packet),
    )
    yield "gre", *made(outer / GRE(proto=ethertype), packet)
    yield "gre-v6", *made(outer6 / GRE(proto=ethertype), packet)
    yield (
        "gre-options",
        *made(outer / GRE(proto=ethertype, key_present=1, seqnum_present=1, chksum_present=1), packet),
    )
    yield "nvgre", *made(outer / GRE(proto=0x6558, key_present=1, key=0x123400), frame)
    yield "gre-mpls", *made(outer / GRE(proto=0x8847) / s["MPLS"](label=16, s=1), packet)
    pptp = s["GRE_PPTP"](seqnum_present=1, sequence_number=3, payload_len=len(packet) + 4, call_id=9)
    yield "pptp", *made(outer / pptp, b"\xff\x03" + struct.pack("!H", ppp_protocol) + packet)
    yield "erspan-1", *made(outer / GRE(proto=0x88BE), frame)
    yield "erspan-2", *made(outer / GRE(proto=0x88BE, seqnum_present=1) / s["ERSPAN_II"](session_id=5), frame)
    yield (
        "erspan-3",
        *made(outer / GRE(proto=0x22EB, seqnum_present=1) / s["ERSPAN_III"](session_id=5), frame),
    )
    yield "mpls", *made(ethernet() / s["MPLS"](label=16, s=0) / s["MPLS"](label=17, s=1), packet)
    yield (
        "mpls-deep",
        *made(
            ethernet(type=0x8847), struct.pack("!I", 16 << 12 | 64) * 9 + struct.pack("!I", 1 << 8) + packet
        ),
    )
    yield "mpls-multicast", *made(ethernet(type=0x8848), struct.pack("!I", 16 << 12 | 1 << 8) + packet)
    yield (
        "mpls-cooked",
        113,
        struct.pack("!HHH8sH", 0, 1, 6, b"mac", 0x8847) + struct.pack("!I", 1 << 8) + packet,
    )
    yield "pseudo-wire", *made(ethernet() / s["MPLS"](label=16, s=1), frame)
    yield "pseudo-wire-word", *made(ethernet() / s["MPLS"](label=16, s=1) / s["EoMCW"](), frame)
    yield "mpls-in-ip", *made(ethernet() / ip(proto=137) / s["MPLS"](label=16, s=1), packet)
    yield "mpls-in-udp", *made(outer / UDP(dport=6635) / s["MPLS"](label=16, s=1), packet)
    yield "pppoe", *made(ethernet() / s["PPPoE"](sessionid=1) / s["PPP"](proto=ppp_protocol), packet)
    yield (
        "pppoe-vlan",
        *made(
            ethernet() / s["Dot1Q"](vlan=7) / s["PPPoE"](sessionid=1) / s["PPP"](proto=ppp_protocol), packet
        ),
    )
    yield (
        "l2tp",
        *made(
            outer / UDP(dport=1701, sport=1701) / s["L2TP"](tunnel_id=1),
            b"\xff\x03" + struct.pack("!H", ppp_protocol) + packet,
        ),
    )
    yield "gtp", *made(outer / UDP(dport=2152, sport=2152) / s["GTP_U_Header"](teid=1, gtp_type=255), packet)
    session = s["GTPPDUSessionContainer"](type=1, QFI=9)
    yield (
        "gtp-5g",
        *made(outer / UDP(dport=2152) / s["GTP_U_Header"](teid=1, E=1, next_ex=0x85) / session, packet),
    )
    yield "etherip", *made(ethernet() / ip(proto=97) / s["EtherIP"](), frame)
    yield "teredo", *made(outer / UDP(dport=3544), PACKETS[6])
    data = s["Dot11"](type=2, FCfield=1) / s["LLC"](dsap=0xAA, ssap=0xAA, ctrl=3) / s["SNAP"](code=ethertype)
    qos = (
        s["Dot11"](type=2, subtype=8)
        / s["Dot11QoS"]()
        / s["LLC"](dsap=0xAA, ssap=0xAA, ctrl=3)
        / s["SNAP"](code=ethertype)
    )
    yield "802.11", *made(data, packet, 105)
    yield "802.11-qos", *made(qos, packet, 105)
    yield "radiotap", *made(s["RadioTap"]() / data, packet, 127)
    yield "prism", *made(s["PrismHeader"]() / data, packet, 119)
    yield "ppp", 9, b"\xff\x03" + struct.pack("!H", ppp_protocol) + packet
    yield "ppp-hdlc", 50, b"\xff\x03" + struct.pack("!H", ppp_protocol) + packet
    yield "ppp-ether", *made(s["PPPoE"](sessionid=1) / s["PPP"](proto=ppp_protocol), packet, 51)
    yield "ppp-direction", 204, b"\0\xff\x03" + struct.pack("!H", ppp_protocol) + packet
    yield "cisco-hdlc", 104, struct.pack("!BBH", 0x0F, 0, ethertype) + packet
    yield "mpls-link", 219, struct.pack("!I", 16 << 12 | 1 << 8) + packet
    yield "raw-bsd-gre", 14, bytes(ip() / GRE(proto=ethertype) / s["Raw"](packet))
    yield "ipip-gre", *made(ethernet() / ip() / ip() / GRE(proto=ethertype), packet)


# Written out, so that scapy is not loaded while tests are collected.
NAMES = [
    "vxlan",
    "vxlan-linux",
    "vxlan-v6",
    "vxlan-vlan",
    "vxlan-gpe",
    "geneve",
    "geneve-ip",
    "gre",
    "gre-v6",
    "gre-options",
    "nvgre",
    "gre-mpls",
    "pptp",
    "erspan-1",
    "erspan-2",
    "erspan-3",
    "mpls",
    "mpls-deep",
    "mpls-multicast",
    "mpls-cooked",
    "pseudo-wire",
    "pseudo-wire-word",
    "mpls-in-ip",
    "mpls-in-udp",
    "pppoe",
    "pppoe-vlan",
    "l2tp",
    "gtp",
    "gtp-5g",
    "etherip",
    "teredo",
    "802.11",
    "802.11-qos",
    "radiotap",
    "prism",
    "ppp",
    "ppp-hdlc",
    "ppp-ether",
    "ppp-direction",
    "cisco-hdlc",
    "mpls-link",
    "raw-bsd-gre",
    "ipip-gre",
]


@cache
def samples(version: int) -> dict[str, tuple[int, bytes]]:
    """Link type and frame of every encapsulation."""
    return {name: (link, frame) for name, link, frame in carriers(version)}


def all_samples() -> list[tuple[int, bytes]]:
    return [*samples(4).values(), *samples(6).values()]


def test_every_encapsulation_is_tested() -> None:
    assert list(samples(4)) == list(samples(6)) == NAMES


@versions
@pytest.mark.parametrize("name", NAMES)
def test_the_tcp_segment_inside(name: str, version: int) -> None:
    link, frame = samples(version)[name]
    outside = walk(link, frame)
    assert isinstance(outside, Skip), "our own walk reads this one"
    assert outside.kind in (SKIP_TUNNEL, SKIP_UNKNOWN_LINK)
    (packet,) = inner_packets(link, frame)
    assert packet == PACKETS[6 if name == "teredo" else version]
    segment = walk_ip(packet)
    assert isinstance(segment, Segment)
    assert bytes(segment.payload) == PAYLOAD


def test_padding_behind_the_inner_packet_stays_outside_its_segment() -> None:
    s = layers()
    head = ethernet() / ip() / s["GRE"](proto=0x0800)
    frame = bytes(head / s["Raw"](PACKETS[4])) + b"\xee" * 30
    (packet,) = inner_packets(ETHERNET, frame)
    segment = walk_ip(packet)
    assert isinstance(segment, Segment)
    assert bytes(segment.payload) == PAYLOAD


def test_a_packet_of_64_kib_inside_a_tunnel_comes_out_whole() -> None:
    s = layers()
    inner = tcp_frame(*ENDS[4], 4000, 80, 1, 2, 24, bytes(range(256)) * 250)
    for head in (
        ethernet() / ip(len=0) / s["UDP"](dport=4789, len=0) / s["VXLAN"](flags=8),
        ethernet() / ip(len=0) / s["GRE"](proto=0x6558),
        ethernet() / s["MPLS"](s=1),
    ):
        (packet,) = inner_packets(ETHERNET, bytes(head) + inner)
        assert packet == inner[14:]


def test_a_view_of_a_frame_does_as_well() -> None:
    _, frame = samples(4)["gre"]
    assert inner_packets(ETHERNET, memoryview(frame)) == [PACKETS[4]]  # type: ignore[arg-type]


# --- nesting ----------------------------------------------------------------------------------------


def nested(depth: int, version: int = 4) -> bytes:
    """GRE in GRE, `depth` tunnels around the segment."""
    packet = PACKETS[version]
    for _ in range(depth):
        packet = struct.pack(
            "!BBHHHBBH8s", 0x45, 0, 24 + len(packet), 0, 0, 64, 47, 0, b"\x0a\0\0\1\x0a\0\0\2"
        ) + (b"\0\0\x08\0" + packet)
    return bytes(12) + b"\x08\0" + packet


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_four_tunnels_in_one_another_are_followed(depth: int) -> None:
    assert inner_packets(ETHERNET, nested(depth)) == [PACKETS[4]]


@pytest.mark.parametrize("depth", [5, 6, 50, 2_000])
def test_more_than_four_are_not(depth: int) -> None:
    with pytest.raises(TunnelError, match=r"^more than 4 encapsulations in one another$"):
        inner_packets(ETHERNET, nested(depth))


def test_ethernet_in_ethernet_without_end_is_refused() -> None:
    wire = struct.pack("!I", 1 << 8)  # a label, then a frame
    frame = (b"\2" * 12 + b"\x88\x47" + wire) * 500
    with pytest.raises(TunnelError, match="more than"):
        inner_packets(ETHERNET, frame)


def test_labels_without_end_are_refused() -> None:
    with pytest.raises(TunnelError, match=r"^more than 64 headers in one another$"):
        inner_packets(ETHERNET, bytes(12) + b"\x88\x47" + bytes(60_000))


# --- nothing inside, and damage ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "frame"),
    [
        (ETHERNET, b""),
        (ETHERNET, bytes(12) + b"\x08\x06" + bytes(28)),  # ARP
        (ETHERNET, bytes(12) + b"\x88\x63\x11\x09" + bytes(20)),  # PPPoE discovery
        (ETHERNET, bytes(12) + b"\x88\x64\x11\0\0\1\0\x06\xc0\x21\1\1\0\4"),  # PPPoE with LCP
        (105, b"\x80\0" + bytes(60)),  # a beacon
        (105, b"\x08\x42" + bytes(22) + b"encrypted data"),
        (9, b"\xff\x03\xc0\x21\1\1\0\4"),
        (127, bytes(8)),
    ],
)
def test_no_ip_inside_is_no_error(link: int, frame: bytes) -> None:
    assert inner_packets(link, frame) == []


def test_a_control_message_of_l2tp_is_no_packet() -> None:
    s = layers()
    head = ethernet() / ip() / s["UDP"](dport=1701, sport=1701) / s["Raw"](b"\xc8\x02\0\x14" + bytes(16))
    assert inner_packets(ETHERNET, bytes(head)) == []


def test_a_link_type_scapy_does_not_know_is_an_error() -> None:
    with pytest.raises(TunnelError, match=r"^link type 147 is not known$"):
        inner_packets(147, b"whatever")


def test_every_exception_becomes_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from scapy.layers.l2 import GRE

    _, frame = samples(4)["gre"]
    for error in (RecursionError("too\ndeep"), IndexError(), MemoryError("x" * 1_000), struct.error("odd")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(GRE, "do_dissect", fail)
        with pytest.raises(TunnelError) as raised:
            inner_packets(ETHERNET, frame)
        text = str(raised.value)
        assert text.startswith(f"scapy, GRE: {type(error).__name__}")
        assert text.isprintable()
        assert len(text) < 300


def either(link: int, frame: bytes) -> None:
    """Whatever the bytes: a list of IP packets, or one line."""
    packets, problem = [], ""
    try:
        packets = inner_packets(link, frame)
    except TunnelError as error:
        problem = str(error)
    assert problem.isprintable() or not problem
    assert len(packets) <= 1
    assert all(packets)


@pytest.mark.parametrize("name", NAMES)
def test_cut_at_every_byte(name: str) -> None:
    link, frame = samples(4)[name]
    for cut in range(len(frame) - len(PACKETS[4])):
        either(link, frame[:cut])


@given(st.data())
def test_damage_anywhere_gives_packets_or_one_line(data: st.DataObject) -> None:
    link, sample = data.draw(st.sampled_from(all_samples()))
    frame = bytearray(sample)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(frame) - 1))
        new = data.draw(st.binary(max_size=4))
        frame[at : at + data.draw(st.integers(0, 4))] = new
        if not frame:
            break
    either(data.draw(st.sampled_from([link, link, 1, 127, 192])), bytes(frame))


@given(
    st.sampled_from([1, 9, 12, 50, 51, 104, 105, 117, 119, 127, 163, 192, 204, 219]), st.binary(max_size=120)
)
def test_any_bytes_under_any_link_type(link: int, frame: bytes) -> None:
    either(link, frame)


# --- nothing is kept, nothing is said ---------------------------------------------------------------


def test_a_packet_is_dissected_the_same_after_any_other() -> None:
    alone = {(link, frame): inner_packets(link, frame) for link, frame in all_samples()}
    for link, frame in reversed(all_samples()):
        either(link, frame[:-60])
        assert inner_packets(link, frame) == alone[link, frame]


QUIET = """
import logging, sys
from wfpstream.replay._tunnels import inner_packets, TunnelError
for link, frame in {samples!r}:
    for cut in range(0, len(frame), 7):
        try: inner_packets(link, frame[:cut])
        except TunnelError: pass
assert not logging.getLogger().handlers
assert not any(logging.getLogger(name).disabled for name in ("scapy", "scapy.runtime", "scapy.loading"))
assert "scapy.all" not in sys.modules
"""


def test_scapy_is_quiet_and_only_what_is_needed_is_loaded() -> None:
    code = QUIET.format(samples=all_samples()[:60])
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=100)
    assert (run.stdout, run.stderr) == (b"", b"")


def test_a_logger_the_program_has_silenced_stays_so() -> None:
    logger = logging.getLogger("scapy.runtime")
    before = logger.disabled
    try:
        logger.disabled = True
        inner_packets(*samples(4)["vxlan"])
        assert logger.disabled
    finally:
        logger.disabled = before


# --- a real capture ---------------------------------------------------------------------------------


def test_a_real_capture_of_vxlan() -> None:
    path = shared_capture("real", "http-vxlan.pcap")
    ports, count = set(), 0
    with open_capture(path) as reader:
        for _, link_type, frame in reader:
            outside = walk(link_type, frame)
            if isinstance(outside, Segment):
                continue
            assert outside == Skip(SKIP_TUNNEL, "VXLAN")
            count += 1
            (packet,) = inner_packets(link_type, frame)
            segment = walk_ip(packet)
            assert isinstance(segment, Segment)
            assert segment.checksum_ok()
            ports.add(frozenset((segment.source_port, segment.destination_port)))
    assert (ports, count) == ({frozenset((59856, 80))}, 28)
