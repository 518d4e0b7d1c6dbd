"""Reading captures: every format, every way in, and every way a file can be damaged.

A damaged file gives the whole packets before the fault and one line that says where and why; a file of which
nothing can be read is a `CaptureError`. Nothing else is ever raised, and memory does not follow what a file claims.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import itertools
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.replay.support_captures import (
    ETHERNET,
    ROOT,
    SECOND,
    SHARED,
    PcapNg,
    Record,
    block,
    option,
    pcap,
    pcap_record,
    pcapng,
    shared_captures,
    zipped,
)
from tests.support.rights import as_nobody
from tests.support.system import require
from wfpstream.replay._reader import CaptureError, CaptureReader, open_capture

START = 1_700_000_000 * SECOND
# Times on whole microseconds, so that every format can hold them; frames of every remainder modulo 4, one empty.
RECORDS: list[Record] = [
    (START, ETHERNET, b"first packet"),
    (START + 1_000, ETHERNET, b""),
    (START + 999_999_000, ETHERNET, b"third" * 3),
    (START + 2 * SECOND, ETHERNET, b"\0" * 61),
    (START + 3 * SECOND + 7_000, ETHERNET, bytes(range(256))),
]
FORMATS: dict[str, Callable[[list[Record], str], bytes]] = {
    "pcap": pcap,
    "pcap-nano": lambda records, order: pcap(records, order, nano=True),
    "pcapng": pcapng,
}
ORDERS = {"little": "<", "big": ">"}
EVERY_FORMAT = [
    pytest.param(FORMATS[kind], ORDERS[order], id=f"{kind}-{order}") for kind in FORMATS for order in ORDERS
]


def read(data: bytes) -> tuple[list[Record], str | None]:
    """The records and the problem of a capture in memory."""
    with open_capture(io.BytesIO(data)) as reader:
        records = list(reader)
    assert reader.packets == len(records)
    return records, reader.problem


def read_or_refuse(data: bytes) -> tuple[list[Record], str | None]:
    """As `read`; a capture that is refused has no records, and its refusal is the problem."""
    try:
        return read(data)
    except CaptureError as error:
        return [], str(error)


def is_one_line(text: str | None) -> bool:
    return text is not None and text.isprintable() and len(text) < 400


# --- what is read -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "order"), EVERY_FORMAT)
@pytest.mark.parametrize("wrap", [bytes, zipped], ids=["plain", "gzip"])
def test_every_format_gives_the_same_records(
    make: Callable[[list[Record], str], bytes], order: str, wrap: Callable[[bytes], bytes]
) -> None:
    assert read(wrap(make(RECORDS, order))) == (RECORDS, None)


@pytest.mark.parametrize(("make", "order"), EVERY_FORMAT)
def test_a_capture_without_packets_is_no_fault(
    make: Callable[[list[Record], str], bytes], order: str
) -> None:
    assert read(make([], order)) == ([], None)


def test_nanoseconds_are_kept() -> None:
    records = [(START + 123_456_789, ETHERNET, b"x")]
    assert read(pcap(records, nano=True)) == (records, None)
    assert read(pcapng(records)) == (records, None)


def test_a_time_past_2038_is_read() -> None:
    records = [(0xFFFFFFFF * SECOND, ETHERNET, b"x")]
    assert read(pcap(records)) == (records, None)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_link_type_is_the_lower_half_of_its_field(order: str) -> None:
    # Upper bits: a frame check sequence of 4 bytes is present.
    data = pcap([(START, 113, b"x")], order, link_type=0x44000000 | 113)
    assert read(data) == ([(START, 113, b"x")], None)


def test_a_path_standard_input_and_an_open_file_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(RECORDS))
    for capture in (path, str(path)):
        with open_capture(capture) as reader:
            assert list(reader) == RECORDS
            assert reader.position == reader.size == path.stat().st_size
    with path.open("rb") as file:
        with open_capture(file) as reader:
            assert list(reader) == RECORDS
        assert not file.closed
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(cast(Any, file)))
        with open_capture("-") as reader:
            assert list(reader) == RECORDS
        assert not file.closed


def test_position_and_size_of_a_zipped_file_are_those_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap.gz"
    path.write_bytes(zipped(pcap([(START, ETHERNET, b"a" * 60_000)] * 50)))
    with open_capture(path) as reader:
        assert len(list(reader)) == 50
    assert reader.position == reader.size == path.stat().st_size


def test_a_pipe_is_read_as_it_comes() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as source, os.fdopen(theirs, "wb", buffering=0) as sink:
        sink.write(pcap(RECORDS[:1]))
        with open_capture(source) as reader:
            records = iter(reader)
            assert next(records) == RECORDS[0]  # while the writer has not ended
            assert reader.size is None
            sink.write(pcap(RECORDS)[24:])
            sink.close()
            assert list(records) == RECORDS


class Dribble(io.RawIOBase):
    """A file that gives a byte or few at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data = io.BytesIO(data)
        self.step = step

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self.data.read(self.step if size < 0 else min(size, self.step))


@pytest.mark.parametrize("step", [1, 7])
@pytest.mark.parametrize(("make", "order"), EVERY_FORMAT)
@pytest.mark.parametrize("wrap", [bytes, zipped], ids=["plain", "gzip"])
def test_short_reads_are_no_end(
    make: Callable[[list[Record], str], bytes], order: str, wrap: Callable[[bytes], bytes], step: int
) -> None:
    with open_capture(cast(IO[bytes], Dribble(wrap(make(RECORDS, order)), step))) as reader:
        assert list(reader) == RECORDS
    assert reader.problem is None


def test_records_across_the_borders_of_chunks() -> None:
    records = [(START + n * 1000, ETHERNET, bytes([n % 251]) * (n * 37 % 3_001)) for n in range(3_000)]
    assert len(pcap(records)) > 4 << 20
    for data in (pcap(records), pcapng(records, ">"), zipped(pcap(records))):
        assert read(data) == (records, None)


def test_gzip_members_one_after_the_other_and_padding() -> None:
    data = pcap(RECORDS)
    members = zipped(data[:30]) + zipped(data[30:90]) + bytes(100) + zipped(data[90:]) + bytes(7)
    assert read(members) == (RECORDS, None)


# --- pcapng -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ticks", "count", "nanoseconds"),
    [
        (None, 1_700_000_000_123_456, 1_700_000_000_123_456_000),
        (0, 1_700_000_000, 1_700_000_000 * SECOND),
        (3, 1_700_000_000_123, 1_700_000_000_123_000_000),
        (9, 1_700_000_000_123_456_789, 1_700_000_000_123_456_789),
        (12, 1_700_000_000_999, 1_700_000_000),
        (0x80 | 10, 1024 * 5 + 512, 5_500_000_000),
        (0x80 | 30, 3 << 30, 3 * SECOND),
        (0x7F, 2**63, 0),
        (0xFF, 2**64 - 1, 0),
    ],
)
def test_every_resolution_of_time(ticks: int | None, count: int, nanoseconds: int) -> None:
    data = PcapNg().section().interface(ticks=ticks).enhanced(count, b"x").obsolete(count, b"y").data
    assert read(data) == ([(nanoseconds, ETHERNET, b"x"), (nanoseconds, ETHERNET, b"y")], None)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_an_interface_s_time_offset_is_added(order: str) -> None:
    offset = option(14, struct.pack(order + "q", -3), order)
    data = PcapNg(order).section().interface(options=offset).enhanced(10_000_000, b"x").data
    assert read(data) == ([(7 * SECOND, ETHERNET, b"x")], None)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_each_interface_has_its_link_type_and_clock(order: str) -> None:
    file = PcapNg(order).section().interface(1, 9).interface(113, 6).interface(101, 0x81)
    for number in (2, 0, 1, 0, 2):
        file.enhanced(4, bytes([number]), number)
    times = {0: 4, 1: 4_000, 2: 2 * SECOND}
    links = {0: 1, 1: 113, 2: 101}
    assert read(file.data)[0] == [(times[n], links[n], bytes([n])) for n in (2, 0, 1, 0, 2)]


def test_sections_have_their_own_order_and_interfaces() -> None:
    file = PcapNg("<").section().interface(1).interface(101).enhanced(5, b"a", 1)
    file.section(">").interface(113, 9).enhanced(7, b"b").section("<").enhanced(9, b"lost").interface(228)
    records, problem = read(file.enhanced(1, b"c").data)
    assert records == [(5_000, 101, b"a"), (7, 113, b"b"), (1_000, 228, b"c")]
    assert problem == "capture: packet 3: names interface 0, which the file does not describe; skipped"


def test_simple_packets_have_the_time_of_the_packet_before() -> None:
    file = PcapNg().section().interface(1, 9, snaplen=8).interface(113)
    data = file.simple(b"early").enhanced(5 * SECOND, b"timed").simple(b"cut here", 100).simple(b"late").data
    times = [(0, b"early"), (5 * SECOND, b"timed"), (5 * SECOND, b"cut here"), (5 * SECOND, b"late")]
    assert read(data) == ([(time, ETHERNET, frame) for time, frame in times], None)


def test_blocks_and_options_of_no_concern_are_passed_over() -> None:
    file = PcapNg().section(options=option(2, b"hardware") + option(0, b""))
    file.interface(options=option(2, b"eth0") + option(0, b"") + option(9, b"\x03")).block(5, b"s" * 20)
    file.block(4, b"names").block(10, b"KEYS" + b"\xff" * 40).block(0x80000001, b"").block(0xBAD, b"!" * 99)
    file.enhanced(1, b"x", options=option(1, b"a comment") + option(0, b"")).block(0xBAD, b"end")
    assert read(file.data) == ([(1_000, ETHERNET, b"x")], None)


def test_a_huge_block_of_no_concern_is_passed_over() -> None:
    data = PcapNg().section().interface().block(0xBAD, bytes(5 << 20)).enhanced(1, b"x").data
    assert read(data) == ([(1_000, ETHERNET, b"x")], None)


@pytest.mark.parametrize(
    "options", [b"\x09\0", b"\x09\0\xff\xff\x03", option(9, b""), option(9, b"\x03\x03")]
)
def test_options_that_lie_are_not_believed(options: bytes) -> None:
    data = PcapNg().section().interface(options=options).enhanced(1, b"x").data
    assert read(data) == ([(1_000, ETHERNET, b"x")], None)


# --- cut anywhere -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "order"), EVERY_FORMAT)
def test_cut_at_every_byte(make: Callable[[list[Record], str], bytes], order: str) -> None:
    data = make(RECORDS, order)
    header = len(PcapNg().section().data) if make is pcapng else 24
    ends = [len(make(RECORDS[:count], order)) for count in range(len(RECORDS) + 1)]
    whole = {header, *ends}  # a pcapng file may end before its interface
    for cut in range(len(data)):
        if cut < header:
            with pytest.raises(CaptureError, match=r"^capture: ") as refused:
                open_capture(io.BytesIO(data[:cut]))
            assert is_one_line(str(refused.value))
            continue
        count = sum(end <= cut for end in ends[1:])
        records, problem = read(data[:cut])
        assert records == RECORDS[:count], cut
        if cut in whole:
            assert problem is None
        else:
            assert problem is not None
            assert problem.startswith(f"capture: packet {count + 1}: the file ends inside ")
            assert is_one_line(problem)


@pytest.mark.parametrize(("make", "order"), EVERY_FORMAT)
def test_a_gzip_stream_cut_at_every_byte(make: Callable[[list[Record], str], bytes], order: str) -> None:
    data = zipped(make(RECORDS, order))
    counts = set()
    for cut in range(len(data)):
        records, problem = read_or_refuse(data[:cut])
        assert records == RECORDS[: len(records)]
        assert is_one_line(problem), cut
        counts.add(len(records))
    # What lies before the cut is used, also when only the check sum is missing.
    assert {0, len(RECORDS)} <= counts


def letters(count: int, number: int) -> bytes:
    """Bytes that compress by about a quarter, evenly, so that places in the gzip stream are places in the file."""
    words = hashlib.shake_128(str(number).encode()).digest(count // 2)
    return base64.b16encode(words)


LETTERS = [(START, ETHERNET, letters(1_000, number)) for number in range(2_000)]


def test_a_cut_gzip_stream_gives_what_lies_before_the_cut() -> None:
    data = zipped(pcap(LETTERS))
    assert len(data) > 1 << 20
    records, problem = read(data[: len(data) // 2])
    assert records == LETTERS[: len(records)]
    assert 980 < len(records) < 1_020
    assert problem == f"capture: packet {len(records) + 1}: the gzip stream is cut"


def test_damage_inside_a_gzip_stream_keeps_the_packets_before_it() -> None:
    data = bytearray(zipped(pcap(LETTERS)))
    half = len(data) // 2
    data[half : half + 400] = b"\xff" * 400
    records, problem = read(bytes(data))
    # zlib may take some of the damage for data before it notices.
    assert records[:975] == LETTERS[:975]
    assert len(records) < 1_040
    assert problem is not None
    assert problem.startswith(f"capture: packet {len(records) + 1}: ")
    assert is_one_line(problem)


@pytest.mark.parametrize("from_end", [8, 5, 4, 1])
def test_a_wrong_check_sum_or_length_loses_no_packet(from_end: int) -> None:
    data = bytearray(zipped(pcap(RECORDS)))
    data[-from_end] ^= 0x55
    records, problem = read(bytes(data))
    assert records == RECORDS
    assert problem is not None
    assert problem.startswith("capture: packet 6: the gzip stream is damaged (")


def test_something_after_a_gzip_stream_is_told() -> None:
    assert read(zipped(pcap(RECORDS)) + b"rubbish") == (
        RECORDS,
        "capture: packet 6: the gzip stream is followed by something else",
    )


# --- refused as a whole -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is empty"),
        (b"\n", "ends inside the file header"),
        (b"GET / HTTP/1.1\r\n\r\n" * 9, "is no pcap or pcapng capture"),
        (bytes(100), "is no pcap or pcapng capture"),
        (struct.pack("<I", 0xA1B2CD34) + bytes(60), "is no pcap or pcapng capture"),
        (b"\x1f\x8b", "the gzip stream is cut"),
        (b"\x1f\x8bnot gzip at all", "the gzip stream is damaged"),
        (zipped(b""), "is empty"),
        (zipped(b"plain text, zipped"), "is no pcap or pcapng capture"),
        (zipped(zipped(pcap(RECORDS))), "is no pcap or pcapng capture"),
        (struct.pack("<III", 0x0A0D0D0A, 28, 0) + bytes(60), "is no pcap or pcapng capture"),
        (struct.pack("<III", 0x0A0D0D0A, 0, 0x1A2B3C4D) + bytes(60), "is no pcap or pcapng capture"),
        (struct.pack("<IIIH", 0x0A0D0D0A, 0xFFFFFFF0, 0x1A2B3C4D, 1) + bytes(60), "claims 42949672"),
        (PcapNg().section(major=2).data, "is no pcap or pcapng capture"),
        (PcapNg().section().data[:-4] + bytes(4), "is no pcap or pcapng capture"),
    ],
)
def test_what_is_no_capture_is_refused_in_one_line(data: bytes, why: str, capfd: Any) -> None:
    with pytest.raises(CaptureError) as refused:
        open_capture(io.BytesIO(data))
    assert str(refused.value).startswith("capture: ")
    assert why in str(refused.value)
    assert is_one_line(str(refused.value))
    assert capfd.readouterr() == ("", "")


def test_a_path_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path, why in (
        (tmp_path / "missing.pcap", "No such file or directory"),
        (tmp_path, "Is a directory"),
        ("a\0b", "null byte"),
    ):
        with pytest.raises(CaptureError, match=why) as refused:
            open_capture(path)
        assert is_one_line(str(refused.value))
    with pytest.raises(CaptureError, match=r"missing\\nhere\.pcap"):
        open_capture(tmp_path / "missing\nhere.pcap")


def test_a_path_without_the_right_to_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "secret.pcap"
    path.write_bytes(pcap(RECORDS))
    open_capture(path).close()
    path.chmod(0)
    with as_nobody(), pytest.raises(CaptureError, match=r"secret\.pcap: Permission denied"):
        open_capture(path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_a_path_that_opens_and_cannot_be_read_is_named() -> None:
    with pytest.raises(CaptureError, match=r"^/proc/self/mem: reading failed: Input/output error$"):
        open_capture("/proc/self/mem")


def test_standard_input_that_is_closed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CaptureError, match="standard input: closed"):
        open_capture("-")


class Failing(io.BytesIO):
    """A file whose reading fails after some bytes."""

    error: Exception = OSError(5, "Input/output error")

    def read1(self, size: int | None = -1, /) -> bytes:
        data = super().read1(size)
        if not data:
            raise self.error
        return data


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), RuntimeError("two\nlines"), EOFError()])
def test_a_read_that_fails_keeps_the_packets_before_it(error: Exception) -> None:
    data = pcap(RECORDS)
    for cut in (len(data), len(data) - 3):
        file = Failing(data[:cut])
        file.error = error
        with open_capture(file) as reader:
            records = list(reader)
        assert records == RECORDS[: len(records)]
        assert len(records) >= len(RECORDS) - 1
        assert reader.problem is not None
        assert reader.problem.startswith(f"capture: packet {len(records) + 1}: reading failed: ")
        assert is_one_line(reader.problem)
    empty = Failing(b"")
    empty.error = error
    with pytest.raises(CaptureError, match="reading failed"):
        open_capture(empty)


def test_a_file_open_as_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_text("text", encoding="utf-8")
    with path.open(encoding="utf-8") as file, pytest.raises(CaptureError, match="binary mode"):
        open_capture(cast(IO[bytes], file))


# --- lengths that lie -------------------------------------------------------------------------------


def damaged_pcapng(blocks: bytes) -> tuple[list[Record], str | None]:
    """One good packet, then `blocks`, then a good packet again."""
    return read(PcapNg().section().interface().enhanced(1, b"good").raw(blocks).enhanced(2, b"after").data)


GOOD, AFTER = (1_000, ETHERNET, b"good"), (2_000, ETHERNET, b"after")


def packet_block(captured: int, interface: int = 0, kind: int = 6) -> bytes:
    """An enhanced packet block whose captured length is what it is said to be."""
    return block(kind, struct.pack("<5I", interface, 0, 5, captured, captured) + b"data")


@pytest.mark.parametrize("kind", [6, 2])
@pytest.mark.parametrize(
    ("captured", "interface", "why"),
    [
        (5, 0, "claims 5 bytes in a block of 36"),
        (0xFFFFFFFF, 0, "claims 4294967295 bytes in a block of 36"),
        (4, 1, "names interface 1, which the file does not describe"),
        (4, 0xFFFF, "names interface 65535, which the file does not describe"),
    ],
)
def test_a_packet_that_lies_in_a_sound_block_is_skipped(
    kind: int, captured: int, interface: int, why: str
) -> None:
    lie = packet_block(captured, interface, kind)
    assert damaged_pcapng(lie) == ([GOOD, AFTER], f"capture: packet 2: {why}; skipped")
    assert damaged_pcapng(lie * 3) == ([GOOD, AFTER], f"capture: packet 2: {why}; skipped (and 2 more)")


def test_a_simple_packet_that_lies_is_skipped() -> None:
    lie = block(3, struct.pack("<I", 100) + b"four")
    assert damaged_pcapng(lie) == (
        [GOOD, AFTER],
        "capture: packet 2: claims 100 bytes in a block of 20; skipped",
    )
    lonely = PcapNg().section().simple(b"x").data
    assert read(lonely) == ([], "capture: packet 1: comes before any interface is described; skipped")


SOUND = packet_block(4)


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        (struct.pack("<II", 6, 0) + SOUND[8:], "a block of type 0x6 has the impossible length 0"),
        (struct.pack("<II", 6, 28) + SOUND[8:], "a block of type 0x6 has the impossible length 28"),
        (struct.pack("<II", 6, 35) + SOUND[8:], "a block of type 0x6 has the impossible length 35"),
        (struct.pack("<II", 9, 8) + SOUND[8:], "a block of type 0x9 has the impossible length 8"),
        (struct.pack("<II", 1, 16) + SOUND[8:], "a block of type 0x1 has the impossible length 16"),
        (struct.pack("<II", 3, 12) + SOUND[8:], "a block of type 0x3 has the impossible length 12"),
        (SOUND[:-4] + bytes(4), "a block of type 0x6 does not end with its length"),
        (block(9, b"body")[:-4] + bytes(4), "a block does not end with its length"),
        (struct.pack("<II", 6, 0x7FFFFFFC) + SOUND[8:], "a block of type 0x6 claims 2147483644 bytes"),
        (struct.pack("<II", 6, 1 << 20) + SOUND[8:], "the file ends inside a block"),
        (struct.pack("<II", 9, 0xFFFFFFFC) + SOUND[8:], "the file ends inside a block of 4294967292 bytes"),
        (block(0x0A0D0D0A, struct.pack("<IHHq", 5, 1, 0, -1)), "a section header has no byte order"),
        (PcapNg().section(major=3).data, "a section of pcapng version 3"),
    ],
)
def test_a_block_whose_length_lies_ends_the_reading(blocks: bytes, why: str) -> None:
    records, problem = damaged_pcapng(blocks)
    assert records == [GOOD]
    assert problem is not None
    assert problem.startswith(f"capture: packet 2: {why}")
    assert is_one_line(problem)


def test_a_fault_after_skipped_packets_counts_them() -> None:
    records, problem = damaged_pcapng(packet_block(99) * 2 + SOUND[:-4] + bytes(4))
    assert records == [GOOD]
    assert problem == (
        "capture: packet 4: a block of type 0x6 does not end with its length (2 packets before it skipped)"
    )


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("claimed", [(16 << 20) + 1, 0x7FFFFFFF, 0xFFFFFFFF])
def test_an_absurd_length_ends_the_reading_of_a_pcap(order: str, claimed: int) -> None:
    data = pcap(RECORDS[:1], order) + struct.pack(order + "IIII", 0, 0, claimed, claimed) + bytes(1000)
    assert read(data) == (
        RECORDS[:1],
        f"capture: packet 2: its header claims {claimed} bytes, more than 16777216",
    )


def test_the_largest_packet_allowed_is_read() -> None:
    records = [RECORDS[0], (START, ETHERNET, bytes(16 << 20)), RECORDS[2]]
    assert read(pcap(records)) == (records, None)
    assert read(pcapng(records)) == (records, None)


# --- memory -----------------------------------------------------------------------------------------


class Endless(io.RawIOBase):
    """A file that gives parts made as they are read, so that the file itself takes no memory."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self.parts = parts
        self.rest = b""

    def read(self, size: int = -1) -> bytes:
        if not self.rest:
            self.rest = next(self.parts, b"")
        data, self.rest = self.rest[:size], self.rest[size:]
        return data


def peak_while_reading(parts: Iterator[bytes]) -> tuple[int, CaptureReader]:
    """The largest memory in use while a capture is read to its end."""
    tracemalloc.start()
    try:
        reader = open_capture(cast(IO[bytes], Endless(parts)))
        for _ in reader:
            pass
        return tracemalloc.get_traced_memory()[1], reader
    finally:
        tracemalloc.stop()


def repeated(head: bytes, part: bytes, count: int) -> Iterator[bytes]:
    return itertools.chain([head], itertools.repeat(part, count))


FRAME = bytes(60_000)


@pytest.mark.parametrize(
    ("parts", "packets"),
    [
        (repeated(pcap([]), pcap_record(START, FRAME), 2_000), 2_000),
        (repeated(pcapng([]), PcapNg().enhanced(1, FRAME).data, 2_000), 2_000),
        (repeated(pcapng([]), PcapNg().block(0xBAD, bytes(1 << 20)).data, 120), 0),
        (repeated(zipped(pcap([])), zipped(pcap_record(START, FRAME) * 100), 20), 2_000),
        (iter([zipped(pcap([(START, ETHERNET, FRAME)] * 2_000))]), 2_000),
    ],
    ids=["pcap", "pcapng", "pcapng-unknown-blocks", "gzip-members", "gzip-bomb"],
)
def test_memory_does_not_grow_with_the_file(parts: Iterator[bytes], packets: int) -> None:
    peak, reader = peak_while_reading(parts)
    assert (reader.packets, reader.problem) == (packets, None)
    assert peak < 8 << 20  # of 120 MB


@pytest.mark.parametrize(
    "start",
    [
        pcap([]) + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF),
        pcapng([]) + struct.pack("<II", 6, 0xFFFFFFFC),
        pcapng([]) + struct.pack("<II", 0xBAD, 0x7FFFFFFC),
        pcapng([]) + struct.pack("<IIIH", 0x0A0D0D0A, 0xFFFFFFFC, 0x1A2B3C4D, 1) + bytes(60),
    ],
)
def test_memory_does_not_follow_a_lie(start: bytes) -> None:
    peak, reader = peak_while_reading(repeated(start, bytes(1 << 20), 60))
    assert reader.problem is not None
    assert peak < 8 << 20


# --- whatever the bytes -----------------------------------------------------------------------------

SEEDS = [
    pcap(RECORDS),
    pcap(RECORDS, ">", nano=True),
    pcapng(RECORDS),
    pcapng(RECORDS, ">"),
    PcapNg().section().interface(ticks=9).simple(b"abc").obsolete(4, b"defg").block(5, bytes(8)).data,
    PcapNg(">").section().interface(ticks=0x8A).enhanced(4, b"z").section("<").interface(113).data,
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid capture with bytes and words changed, pieces cut out, doubled or put in; zipped now and then."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    zip_first = draw(st.booleans())
    if zip_first:
        data = bytearray(zipped(bytes(data)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 40))
        new = draw(
            st.one_of(
                st.binary(max_size=8),
                st.sampled_from([0, 1, 6, 12, 28, 0xFFFFFFFF, 0x7FFFFFFC]).map(
                    lambda n: struct.pack("<I", n)
                ),
                st.just(bytes(data[at : at + length])),
            )
        )
        replaced = draw(st.sampled_from([0, len(new), length]))
        data[at : at + replaced] = new
    if not zip_first and draw(st.booleans()):
        data = bytearray(zipped(bytes(data)))
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@given(damaged())
def test_no_damage_raises_anything_but_capture_error(data: bytes) -> None:
    records, problem = read_or_refuse(data)
    assert problem is None or is_one_line(problem)
    for time, link_type, frame in records:
        assert isinstance(time, int)
        assert 0 <= link_type <= 0xFFFF
        assert type(frame) is bytes


@given(st.binary(max_size=200), st.sampled_from(["", "pcap", "pcapng", "gzip"]))
def test_no_bytes_raise_anything_but_capture_error(data: bytes, head: str) -> None:
    start = {"": b"", "pcap": pcap([]), "pcapng": pcapng([]), "gzip": b"\x1f\x8b\x08"}[head]
    _, problem = read_or_refuse(start + data)
    assert problem is None or is_one_line(problem)


@given(damaged(), st.integers(1, 50))
def test_how_the_bytes_arrive_changes_nothing(data: bytes, step: int) -> None:
    def slowly() -> tuple[list[Record], str | None]:
        try:
            with open_capture(cast(IO[bytes], Dribble(data, step))) as reader:
                return list(reader), reader.problem
        except CaptureError as error:
            return [], str(error)

    assert slowly() == read_or_refuse(data)


# --- closing and quiet ------------------------------------------------------------------------------


def test_files_are_closed_at_the_end_at_a_fault_and_on_refusal(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for data in (pcap(RECORDS), pcap(RECORDS)[:-1], b"no capture", b""):
            path.write_bytes(data)
            with contextlib.suppress(CaptureError):
                list(open_capture(path))


def test_a_reader_that_is_closed_gives_no_more(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(RECORDS))
    reader = open_capture(path)
    records = iter(reader)
    next(records)
    reader.close()
    assert list(records) == []
    reader.close()


def test_scapy_says_nothing_and_its_loggers_are_as_before() -> None:
    code = (
        "import io, logging\n"
        "from wfpstream.replay._reader import open_capture, CaptureError\n"
        "for data in (b'\\x0a\\x0d\\x0d\\x0a' + bytes(40), b'\\xd4\\xc3\\xb2\\xa1'):\n"
        "    try: open_capture(io.BytesIO(data))\n"
        "    except CaptureError: pass\n"
        "assert not logging.getLogger('scapy.runtime').disabled\n"
        "assert not logging.getLogger().handlers\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert (run.stdout, run.stderr) == (b"", b"")


# --- the shared captures ----------------------------------------------------------------------------

CAPTURES = [pytest.param(kind, entry, id=entry["file"]) for kind, entry in shared_captures()]
needs_captures = pytest.mark.skipif(not SHARED.exists(), reason="the shared captures are not there")


@needs_captures
@pytest.mark.parametrize(("kind", "entry"), CAPTURES)
def test_shared_captures_are_read_whole(kind: str, entry: dict[str, Any]) -> None:
    with open_capture(SHARED / kind / entry["file"]) as reader:
        for _ in reader:
            pass
    assert reader.packets == entry["packets_whole"]
    assert (reader.problem is None) == (entry["tshark_exit"] == 0)


@needs_captures
@pytest.mark.system("tshark")
@pytest.mark.parametrize(("kind", "entry"), [one for one in CAPTURES if one.values[0] == "real"])
def test_times_and_lengths_are_tshark_s(kind: str, entry: dict[str, Any]) -> None:
    path = SHARED / kind / entry["file"]
    fields = ["-T", "fields", "-e", "frame.time_epoch", "-e", "frame.cap_len"]
    run = subprocess.run(
        [require("tshark"), "-n", "-r", path, *fields],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    with open_capture(path) as reader:
        ours = [f"{time // SECOND}.{time % SECOND:09}\t{len(frame)}" for time, _, frame in reader]
    assert ours == run.stdout.splitlines()
