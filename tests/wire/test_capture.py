"""pcap and pcapng as written, read back by scapy: another hand read the same specifications."""

from __future__ import annotations

import io
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.system import require
from wfpstream.wire import (
    LINK_ETHERNET,
    LINK_RAW,
    pcap_header,
    pcap_record,
    pcapng_header,
    pcapng_record,
)

SECOND = 1_000_000_000
PCAP_END = (SECOND << 32) - 1

Packet = tuple[int, bytes]
packets = st.lists(st.tuples(st.integers(0, PCAP_END), st.binary(max_size=70)), max_size=6)


def scapy_reader(data: bytes, name: str) -> Any:
    """scapy's reader of that name over `data`; its annotations know only names of files, and few attributes."""
    import scapy.utils

    return getattr(scapy.utils, name)(io.BytesIO(data))


def read_pcap(data: bytes) -> Iterator[Packet]:
    """Times in the file's own unit since 1970, and frames."""
    with scapy_reader(data, "RawPcapReader") as reader:
        unit = SECOND if reader.nano else 1_000_000
        for frame, meta in reader:
            assert meta.caplen == len(frame)
            yield meta.sec * unit + meta.usec, frame


def read_pcapng(data: bytes) -> Iterator[Packet]:
    with scapy_reader(data, "RawPcapNgReader") as reader:
        for frame, meta in reader:
            assert meta.tsresol == SECOND
            assert meta.wirelen == len(frame)
            yield meta.tshigh << 32 | meta.tslow, frame


@given(packets)
def test_a_pcap_has_microseconds(written: list[Packet]) -> None:
    data = pcap_header(LINK_ETHERNET) + b"".join(pcap_record(*packet) for packet in written)
    assert list(read_pcap(data)) == [(time // 1_000, frame) for time, frame in written]


@given(packets)
def test_a_pcap_may_have_nanoseconds(written: list[Packet]) -> None:
    records = [pcap_record(time, frame, nanoseconds=True) for time, frame in written]
    data = pcap_header(LINK_ETHERNET, nanoseconds=True) + b"".join(records)
    assert list(read_pcap(data)) == written


@given(packets)
def test_a_pcapng_has_nanoseconds(written: list[Packet]) -> None:
    data = pcapng_header(LINK_ETHERNET) + b"".join(pcapng_record(*packet) for packet in written)
    assert list(read_pcapng(data)) == written


@pytest.mark.parametrize("link_type", [LINK_ETHERNET, LINK_RAW, 276])
def test_the_link_type_is_told(link_type: int) -> None:
    with scapy_reader(pcap_header(link_type), "RawPcapReader") as reader:
        assert reader.linktype == link_type
    data = pcapng_header(link_type) + pcapng_record(0, b"x")
    with scapy_reader(data, "RawPcapNgReader") as ng_reader:
        assert next(iter(ng_reader))[1].linktype == link_type


def test_a_cut_frame_tells_its_length_on_the_wire() -> None:
    with scapy_reader(pcap_header(1) + pcap_record(0, b"abc", original_length=90), "RawPcapReader") as reader:
        frame, meta = next(iter(reader))
    assert (frame, meta.caplen, meta.wirelen) == (b"abc", 3, 90)


@pytest.mark.system("tshark")
def test_a_comment_stands_beside_its_packet(tmp_path: Path) -> None:
    path = tmp_path / "comments.pcapng"
    comments = ["one", None, "größer, 4 bytes: \N{GRINNING FACE}", ""]
    frame = bytes(61)
    path.write_bytes(pcapng_header(1) + b"".join(pcapng_record(7, frame, comment) for comment in comments))
    command = [
        require("tshark"),
        "-n",
        "-r",
        str(path),
        "-T",
        "fields",
        "-e",
        "frame.len",
        "-e",
        "frame.comment",
    ]
    read = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    assert read.stdout.splitlines() == [f"61\t{comment or ''}" for comment in comments]


@given(comment=st.text(max_size=9), frame=st.binary(max_size=9))
def test_a_comment_leaves_the_packets_alone(comment: str, frame: bytes) -> None:
    data = pcapng_header(1) + pcapng_record(7, frame, comment) + pcapng_record(8, b"next")
    assert list(read_pcapng(data)) == [(7, frame), (8, b"next")]


def test_a_comment_that_is_no_unicode_is_escaped() -> None:
    assert b"a\\udc80b" in pcapng_record(0, b"", "a\udc80b")


def test_a_comment_has_its_limit() -> None:
    record = pcapng_record(0, b"", "x" * 65_535)
    assert struct.unpack("<I", record[-4:]) == (len(record),)
    with pytest.raises(ValueError, match="65,535"):
        pcapng_record(0, b"", "x" * 65_536)


def test_a_time_out_of_range_becomes_the_nearest() -> None:
    assert [
        time for time, _ in read_pcap(pcap_header(1) + pcap_record(-1, b"") + pcap_record(1 << 70, b""))
    ] == [
        0,
        (1 << 32) * 1_000_000 - 1,
    ]
    data = pcapng_header(1) + pcapng_record(-1, b"") + pcapng_record(1 << 70, b"")
    assert [time for time, _ in read_pcapng(data)] == [0, (1 << 64) - 1]
