"""Synthesized frames: the walk and scapy read back what was asked for, and find the checksums right."""

from __future__ import annotations

import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.wire import (
    LINK_ETHERNET,
    FrameMaker,
    Segment,
    handshake_options,
    internet_checksum,
    tcp_frame,
    walk,
)

V4 = (bytes([10, 0, 0, 1]), bytes([192, 168, 255, 254]))
V6 = (bytes.fromhex("20010db8000000000000000000000001"), bytes.fromhex("fe80000000000000fffffffffffffffe"))
SOME_OPTIONS = handshake_options(1_460, 7)

addresses = st.sampled_from([4, 16]).flatmap(
    lambda size: st.tuples(st.binary(min_size=size, max_size=size), st.binary(min_size=size, max_size=size))
)
ports = st.tuples(st.integers(0, 65_535), st.integers(0, 65_535))
numbers = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
flag_bits = st.integers(0, 255)
payloads = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [bytes(1_460), b"\xff" * 1_460, b"\xff\xfe" * 720, b"\x01" * 1_001, bytes(range(256)) * 250]
    ),
)


def slow_checksum(data: bytes) -> int:
    """As RFC 1071 has it, word by word."""
    total = 0
    for index, byte in enumerate(data):
        total += byte if index % 2 else byte << 8
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def read(frame: bytes) -> Segment:
    found = walk(LINK_ETHERNET, frame)
    assert isinstance(found, Segment)
    return found


# --- checksums ------------------------------------------------------------------------------------


@given(st.lists(payloads, max_size=5))
def test_the_checksum_is_that_of_the_rfc(parts: list[bytes]) -> None:
    assert internet_checksum(*parts) == slow_checksum(b"".join(parts))
    assert internet_checksum(*[memoryview(part) for part in parts]) == slow_checksum(b"".join(parts))


@given(st.integers(0, 10_000), st.integers(0, 99))
def test_the_checksum_of_any_length(size: int, seed: int) -> None:
    data = Random(seed).randbytes(size)
    assert internet_checksum(data) == slow_checksum(data)


@pytest.mark.parametrize("size", [0, 1, 2, 1_460])
def test_the_checksum_of_zeros(size: int) -> None:
    assert internet_checksum(bytes(size)) == 0xFFFF


def test_the_sum_over_a_right_packet_is_zero() -> None:
    header = bytes.fromhex("450000730000400040110000c0a80001c0a800c7")
    checksum = internet_checksum(header)
    assert checksum == 0xB861
    filled = header[:10] + struct.pack(">H", checksum) + header[12:]
    assert internet_checksum(filled) == 0


# --- frames ---------------------------------------------------------------------------------------


@given(addresses, ports, numbers, flag_bits, payloads, st.sampled_from([b"", SOME_OPTIONS, b"\x01" * 40]),
       st.integers(0, 65_535), st.integers(0, 65_535))  # fmt: skip
def test_the_walk_reads_what_was_asked_for(
    ends: tuple[bytes, bytes],
    ports: tuple[int, int],
    numbers: tuple[int, int],
    flags: int,
    payload: bytes,
    options: bytes,
    window: int,
    urgent: int,
) -> None:
    frame = tcp_frame(*ends, *ports, *numbers, flags, payload, window=window, options=options, urgent=urgent)
    found = read(frame)
    assert (found.source, found.destination) == ends
    assert (found.source_port, found.destination_port) == ports
    assert (found.sequence, found.acknowledgement) == numbers
    assert (found.flags, found.window, found.urgent) == (flags, window, urgent)
    assert (bytes(found.payload), found.missing) == (payload, 0)
    assert found.checksum_ok()


@pytest.mark.parametrize("ends", [V4, V6])
@pytest.mark.parametrize("payload", [b"", b"odd", bytes(1_440), b"\xff" * 1_440])
def test_scapy_makes_the_same_packet(ends: tuple[bytes, bytes], payload: bytes) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether

    frame = tcp_frame(*ends, 40_000, 80, 2**32 - 1, 7, 0x18, payload, options=SOME_OPTIONS)
    packet = Ether(frame)
    network = packet[IP] if len(ends[0]) == 4 else packet[IPv6]
    tcp = packet[TCP]
    assert bytes(tcp.payload) == payload
    assert tcp.options == [("MSS", 1_460), ("NOP", None), ("WScale", 7)]
    if len(ends[0]) == 4:
        assert network.flags == "DF"
        del network.chksum, network.len
    else:
        del network.plen
    del tcp.chksum, tcp.dataofs
    assert bytes(packet) == frame


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([b"", SOME_OPTIONS]), numbers), max_size=8))
def test_a_maker_does_not_mix_up_its_frames(asked: list[tuple[int, bytes, tuple[int, int]]]) -> None:
    maker = FrameMaker(*V4, 1, 2)
    for size, options, pair in asked:
        payload = b"x" * size
        assert maker.frame(*pair, 16, payload, options) == tcp_frame(
            *V4, 1, 2, *pair, 16, payload, options=options
        )


def test_both_sides_of_a_link_know_each_other() -> None:
    client = FrameMaker(*V6, 1, 2).frame(0, 0, 2)
    server = FrameMaker(*V6[::-1], 2, 1, is_server=True).frame(0, 1, 18)
    assert client[:6] == server[6:12] != client[6:12] == server[:6]


@pytest.mark.parametrize(("ends", "room"), [(V4, 65_535 - 40), (V6, 65_535 - 20)])
def test_a_packet_has_its_limit(ends: tuple[bytes, bytes], room: int) -> None:
    found = read(tcp_frame(*ends, 1, 2, 3, 4, 16, bytes(room)))
    assert len(found.payload) == room
    with pytest.raises(ValueError, match="cannot hold"):
        tcp_frame(*ends, 1, 2, 3, 4, 16, bytes(room + 1))


@pytest.mark.parametrize("options", [b"\x01", b"\x01" * 44])
def test_impossible_options(options: bytes) -> None:
    with pytest.raises(ValueError, match="fours"):
        tcp_frame(*V4, 1, 2, 3, 4, 16, options=options)


@pytest.mark.parametrize("ends", [(b"", b""), (V4[0], V6[0]), (bytes(5), bytes(5))])
def test_impossible_addresses(ends: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="one kind"):
        tcp_frame(*ends, 1, 2, 3, 4, 16)
