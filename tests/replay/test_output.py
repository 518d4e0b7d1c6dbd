"""Streams as they are written: a model of the two hosts believes them, and so do scapy and tshark."""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.system import require
from wfpstream.replay._output import CaptureFile, format_of
from wfpstream.wire import LINK_ETHERNET, Segment, StreamWriter, walk

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
MASK = 0xFFFFFFFF
SECOND = 1_000_000_000

V4 = (bytes([10, 0, 0, 1]), 40_000), (bytes([10, 0, 0, 2]), 8_080)
V6 = (
    (bytes.fromhex("20010db8000000000000000000000001"), 40_000),
    (bytes.fromhex("20010db8" + "0" * 23 + "2"), 80),
)
Ends = tuple[tuple[bytes, int], tuple[bytes, int]]
Frames = list[tuple[int, bytes]]


def writer(frames: Frames, ends: Ends = V4, client_isn: int = 1_000, server_isn: int = 5_000) -> StreamWriter:
    return StreamWriter(lambda time_ns, frame: frames.append((time_ns, frame)), *ends, client_isn, server_isn)


def read(frame: bytes) -> Segment:
    found = walk(LINK_ETHERNET, frame)
    assert isinstance(found, Segment)
    assert found.checksum_ok()
    assert found.missing == 0
    return found


def brief(frames: Frames) -> list[tuple[int, int, int, int, int]]:
    """Source port, flags, sequence, acknowledgement and payload length of each frame."""
    segments = [read(frame) for _, frame in frames]
    return [(s.source_port, s.flags, s.sequence, s.acknowledgement, len(s.payload)) for s in segments]


# --- by example -----------------------------------------------------------------------------------


def conversation(stream: StreamWriter) -> None:
    """A request, a half-close, an answer after it."""
    stream.syn(1 * SECOND)
    stream.established(2 * SECOND)
    stream.data(3 * SECOND, 0, [b"GET", memoryview(b" /")])
    stream.fin(4 * SECOND, 0)
    stream.data(5 * SECOND, 1, [bytes(1_461)])
    stream.fin(6 * SECOND, 1)


CONVERSATION = [
    (1, 40_000, SYN, 1_000, 0, 0),
    (2, 8_080, SYN | ACK, 5_000, 1_001, 0),
    (2, 40_000, ACK, 1_001, 5_001, 0),
    (3, 40_000, PSH | ACK, 1_001, 5_001, 5),
    (3, 8_080, ACK, 5_001, 1_006, 0),
    (4, 40_000, FIN | ACK, 1_006, 5_001, 0),
    (4, 8_080, ACK, 5_001, 1_007, 0),
    (5, 8_080, ACK, 5_001, 1_007, 1_460),
    (5, 8_080, PSH | ACK, 6_461, 1_007, 1),
    (5, 40_000, ACK, 1_007, 6_462, 0),
    (6, 8_080, FIN | ACK, 6_462, 1_007, 0),
    (6, 40_000, ACK, 1_007, 6_463, 0),
]


def test_a_conversation() -> None:
    frames: Frames = []
    conversation(writer(frames))
    times = [time_ns // SECOND for time_ns, _ in frames]
    assert [(time, *rest) for time, rest in zip(times, brief(frames), strict=True)] == CONVERSATION


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_scapy_reads_the_conversation(kind: str) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.utils import rdpcap

    file = io.BytesIO()
    conversation(StreamWriter(CaptureFile(file, kind).write, *V4, 1_000, 5_000))
    file.seek(0)
    packets: list[Any] = list(rdpcap(file))
    assert [
        (int(p.time), p.sport, int(p[TCP].flags), p.seq, p.ack, len(p[TCP].payload)) for p in packets
    ] == CONVERSATION
    for packet in packets:
        before = bytes(packet)
        del packet[IP].chksum, packet[TCP].chksum
        assert bytes(packet) == before


@pytest.mark.parametrize(("ends", "size"), [(V4, 1_460), (V6, 1_440)])
def test_segments_are_full_and_told_in_the_handshake(ends: Ends, size: int) -> None:
    frames: Frames = []
    stream = writer(frames, ends)
    stream.data(1, 1, [bytes(size * 2 + 1)])
    segments = [read(frame) for _, frame in frames]
    assert [len(segment.payload) for segment in segments] == [0, 0, 0, size, size, 1, 0]
    assert [len(frame) for _, frame in frames[3:5]] == [14 + 1_500] * 2
    for _, frame in frames[:2]:
        assert frame[-8:-4] == bytes([2, 4, *size.to_bytes(2, "big")])


def test_an_urgent_byte_ends_its_segment() -> None:
    frames: Frames = []
    stream = writer(frames)
    stream.data(1, 1, [b"before"])
    stream.urgent(2, 1, b"!")
    stream.data(3, 1, [b"after"])
    segments = [read(frame) for _, frame in frames[3:] if len(read(frame).payload)]
    assert [(bytes(s.payload), s.flags & URG, s.urgent) for s in segments] == [
        (b"before", 0, 0),
        (b"!", URG, 1),
        (b"after", 0, 0),
    ]


@pytest.mark.parametrize("byte", [b"", bytes(1_461)])
def test_urgent_data_fits_a_segment(byte: bytes) -> None:
    with pytest.raises(ValueError, match="urgent data"):
        writer([]).urgent(1, 0, byte)


def refuse(stream: StreamWriter) -> None:
    stream.refused(2)


def give_up(stream: StreamWriter) -> None:
    stream.reset(2, 0)


@pytest.mark.parametrize("has_syn", [True, False])
@pytest.mark.parametrize(
    ("end", "answer"),
    [(refuse, (8_080, RST | ACK, 0, 1_001, 0)), (give_up, (40_000, RST, 1_001, 0, 0))],
)
def test_an_end_before_the_beginning(
    has_syn: bool, end: Callable[[StreamWriter], None], answer: tuple[int, ...]
) -> None:
    frames: Frames = []
    stream = writer(frames)
    if has_syn:
        stream.syn(1)
    end(stream)
    assert brief(frames) == [(40_000, SYN, 1_000, 0, 0), answer]


def test_nothing_follows_a_reset() -> None:
    frames: Frames = []
    stream = writer(frames)
    stream.established(1)
    stream.reset(2, 1)
    assert brief(frames)[-1] == (8_080, RST | ACK, 5_001, 1_001, 0)
    written = len(frames)
    stream.syn(3)
    stream.established(3)
    stream.data(3, 0, [b"x"])
    stream.urgent(3, 0, b"x")
    stream.fin(3, 0)
    stream.refused(3)
    stream.reset(3, 0)
    assert len(frames) == written


def test_bytes_after_a_fin_are_not_lost_silently() -> None:
    stream = writer([])
    stream.fin(1, 0)
    with pytest.raises(ValueError, match="follows a FIN"):
        stream.data(2, 0, [b"x"])
    with pytest.raises(ValueError, match="follows a FIN"):
        stream.urgent(2, 0, b"x")


def test_addresses_of_two_kinds() -> None:
    with pytest.raises(ValueError, match="one kind"):
        writer([], (V4[0], V6[1]))


# --- any order of calls ---------------------------------------------------------------------------


class Hosts:
    """What two hosts with a capture between them may see: fails on the first segment that is out of place."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.segment_size = 1_500 - 20 - (20 if len(ends[0][0]) == 4 else 40)
        self.next: list[int | None] = [None, None]
        self.acknowledged = [0, 0]
        self.since_ack = [0, 0]
        self.finished = [False, False]
        self.received = [bytearray(), bytearray()]
        self.urgent = [bytearray(), bytearray()]
        self.pushed = [True, True]
        self.is_reset = False
        self.latest = 0

    def take(self, time_ns: int, frame: bytes) -> None:
        assert time_ns >= self.latest
        self.latest = time_ns
        assert not self.is_reset
        segment = read(frame)
        ends = (segment.source, segment.source_port), (segment.destination, segment.destination_port)
        assert ends in (self.ends, self.ends[::-1])
        sender = int(ends != self.ends)
        self._see_numbers(segment, sender)
        self._see_acknowledgement(segment, sender)
        self._see_bytes(segment, sender)

    def _see_numbers(self, segment: Segment, sender: int) -> None:
        if segment.flags & SYN:
            assert self.next[sender] is None
            self.next[sender] = self.acknowledged[sender] = segment.sequence
        elif self.next[sender] is None:
            assert segment.flags == RST | ACK
            assert segment.sequence == 0
        else:
            assert segment.sequence == self.next[sender]
        self.is_reset = bool(segment.flags & RST)

    def _see_acknowledgement(self, segment: Segment, sender: int) -> None:
        other = 1 - sender
        if not segment.flags & ACK:
            assert segment.flags in (SYN, RST)
            assert segment.acknowledgement == 0
            return
        assert segment.acknowledgement == self.next[other]
        if segment.flags == ACK and not segment.payload:
            assert segment.acknowledgement != self.acknowledged[other], "a duplicate ACK"
        self.acknowledged[other] = segment.acknowledgement
        self.since_ack[other] = 0

    def _see_bytes(self, segment: Segment, sender: int) -> None:
        size = len(segment.payload)
        assert size <= self.segment_size
        if size:
            assert not self.finished[sender]
            assert None not in self.next
            self.since_ack[sender] += 1
            assert self.since_ack[sender] <= 16
            self.received[sender] += segment.payload
            self.pushed[sender] = bool(segment.flags & PSH)
        if segment.flags & URG:
            assert segment.urgent == size == 1
            self.urgent[sender] += segment.payload
        if segment.flags & FIN:
            assert not self.finished[sender]
            self.finished[sender] = True
        number = self.next[sender]
        if number is not None:
            number = (number + size + bool(segment.flags & (SYN | FIN))) & MASK
            assert (number - self.acknowledged[sender]) & MASK <= 65_535
            self.next[sender] = number

    def are_quiet(self) -> bool:
        """Everything is acknowledged, every run of bytes ended with PSH."""
        return self.is_reset or (
            all(number in (None, seen) for number, seen in zip(self.next, self.acknowledged, strict=True))
            and all(self.pushed)
        )


sizes = st.sampled_from([0, 1, 7, 1_439, 1_440, 1_441, 1_460, 1_461, 16 * 1_440, 16 * 1_460, 50_001])
directions = st.integers(0, 1)
calls = st.one_of(
    st.tuples(st.just("data"), directions, st.lists(sizes, max_size=3)),
    st.tuples(st.just("data"), directions, st.lists(sizes, max_size=3)),
    st.tuples(st.just("urgent"), directions),
    st.tuples(st.just("fin"), directions),
    st.tuples(st.sampled_from(["syn", "established"])),
)
ends_of_streams = st.one_of(st.just([]), st.sampled_from([[("refused",)], [("reset", 0)], [("reset", 1)]]))
# Bytes drawn one by one would use up what hypothesis grants an example long before a full window.
seeds = st.integers(0, 99)
numbers = st.one_of(
    st.integers(0, MASK), st.integers(MASK - 60_000, MASK), st.sampled_from([0, MASK - 1, MASK])
)


@given(
    st.sampled_from([V4, V6]), numbers, numbers, st.lists(calls, max_size=12), ends_of_streams,
    st.lists(calls, max_size=2), seeds,
)  # fmt: skip
def test_two_hosts_believe_it(
    ends: Ends,
    client_isn: int,
    server_isn: int,
    before: list[tuple[Any, ...]],
    end: list[tuple[Any, ...]],
    after: list[tuple[Any, ...]],
    seed: int,
) -> None:
    chance = Random(seed)
    hosts = Hosts(ends)
    stream = StreamWriter(hosts.take, *ends, client_isn, server_isn)
    sent, urgent, finished = [bytearray(), bytearray()], [bytearray(), bytearray()], [False, False]
    for time_ns, (name, *arguments) in enumerate([*before, *end, *after]):
        had_reset = hosts.is_reset
        if name in {"data", "urgent"} and finished[arguments[0]]:
            continue
        if name == "data":
            pieces = [chance.randbytes(size) for size in arguments[1]]
            stream.data(time_ns, arguments[0], [memoryview(piece) for piece in pieces])
            if not had_reset:
                sent[arguments[0]] += b"".join(pieces)
        elif name == "urgent":
            byte = chance.randbytes(1)
            stream.urgent(time_ns, arguments[0], byte)
            if not had_reset:
                sent[arguments[0]] += byte
                urgent[arguments[0]] += byte
        else:
            getattr(stream, name)(time_ns, *arguments)
            if name == "fin" and not had_reset:
                finished[arguments[0]] = True
        assert hosts.are_quiet() or hosts.next[1] is None
    assert hosts.received == sent
    assert hosts.urgent == urgent
    assert hosts.finished == finished
    assert hosts.is_reset == bool(end)


# --- tshark ---------------------------------------------------------------------------------------

COMPLAINTS = "tcp.analysis.flags || tcp.checksum.status==0 || ip.checksum.status==0 || _ws.malformed"
CHECKS = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
# Random bytes are no protocol: whatever tshark takes them for, they are malformed.
NO_GUESSING = ["-d", "tcp.port==0-65535,data"]


def tshark(path: Path, *arguments: str) -> str:
    run = subprocess.run(
        [require("tshark"), "-n", *CHECKS, *NO_GUESSING, "-r", str(path), *arguments],
        capture_output=True, check=True, text=True,
    )  # fmt: skip
    return run.stdout


def followed(path: Path, streams: int) -> list[tuple[bytes, bytes]]:
    """The bytes of both directions of each stream, the client's first."""
    found = [(bytearray(), bytearray()) for _ in range(streams)]
    taps = [part for number in range(streams) for part in ("-z", f"follow,tcp,raw,{number}")]
    current = found[0]
    for line in tshark(path, "-q", *taps).splitlines():
        if line.startswith("Filter: tcp.stream eq "):
            current = found[int(line.rpartition(" ")[2])]
        elif re.fullmatch(r"\t?[0-9a-f]+", line):
            current[line.startswith("\t")].extend(bytes.fromhex(line))
    return [(bytes(client), bytes(server)) for client, server in found]


def random_stream(stream: StreamWriter, chance: Random) -> tuple[bytes, bytes]:
    """Call `stream` at random until it is over one way or another; the bytes of both directions."""
    sent = [bytearray(), bytearray()]
    time_ns = 1_700_000_000 * SECOND + chance.randrange(SECOND)
    is_open = [0, 1]
    while is_open:
        time_ns += chance.choice([0, 1_000, 40_000_000, 3 * SECOND])
        direction = chance.choice(is_open)
        deed = chance.choice(["data", "data", "data", "urgent", "fin", "reset"])
        if deed == "data":
            data = chance.randbytes(int(1.5 ** chance.randrange(30)))
            cut = chance.randrange(len(data))
            stream.data(time_ns, direction, [data[:cut], memoryview(data)[cut:]])
            sent[direction] += data
        elif deed == "urgent":
            stream.urgent(time_ns, direction, b"!")
            sent[direction] += b"!"
        elif deed == "fin":
            stream.fin(time_ns, direction)
            is_open.remove(direction)
        elif chance.random() < 0.3:
            stream.reset(time_ns, direction)
            break
    return bytes(sent[0]), bytes(sent[1])


@pytest.mark.system("tshark")
@pytest.mark.parametrize(("ends", "name"), [(V4, "v4.pcap"), (V6, "v6.pcapng"), (V4, "v4.ntar")])
def test_tshark_finds_nothing_wrong(tmp_path: Path, ends: Ends, name: str) -> None:
    path = tmp_path / name
    chance = Random(name)
    sent = []
    isns = [0, 1, MASK, MASK - 1, MASK - 1_000, MASK >> 1]
    with path.open("wb") as file:
        capture = CaptureFile(file, format_of(path))
        for number in range(30):
            client = ends[0][0], 10_000 + number
            isn = [chance.choice([*isns, chance.randrange(MASK)]) for _ in range(2)]
            sent.append(random_stream(StreamWriter(capture.write, client, ends[1], *isn), chance))
    assert any(len(one) > 65_535 for pair in sent for one in pair)
    assert tshark(path, "-Y", COMPLAINTS) == ""
    assert followed(path, len(sent)) == sent


@pytest.mark.system("tshark")
def test_tshark_notices_what_is_wrong(tmp_path: Path) -> None:
    """The filter above sees a lost segment and a wrong checksum, or it would prove nothing."""
    frames: Frames = []
    writer(frames).data(1, 0, [bytes(5_000)])
    frames[4:6] = [(1, frames[5][1][:-1] + b"x")]
    path = tmp_path / "wrong.pcap"
    with path.open("wb") as file:
        capture = CaptureFile(file, "pcap")
        for frame in frames:
            capture.write(*frame)
    assert len(tshark(path, "-Y", "tcp.analysis.lost_segment").splitlines()) == 1
    assert len(tshark(path, "-Y", "tcp.checksum.status==0").splitlines()) == 1
    assert len(tshark(path, "-Y", COMPLAINTS).splitlines()) >= 1


@pytest.mark.system("tshark")
def test_tshark_reads_the_facts(tmp_path: Path) -> None:
    path = tmp_path / "facts.pcapng"
    with path.open("wb") as file:
        stream = StreamWriter(CaptureFile(file, "pcapng").write, *V4, MASK, MASK)
        stream.established(1_700_000_000_123_456_789)
        stream.urgent(1_700_000_001_000_000_001, 1, b"!")
    fields = [
        "frame.time_epoch",
        "tcp.options.mss_val",
        "tcp.options.wscale.shift",
        "tcp.seq",
        "tcp.urgent_pointer",
    ]
    arguments = [part for name in fields for part in ("-e", name)]
    assert tshark(path, "-T", "fields", "-E", "separator=,", *arguments).splitlines() == [
        "1700000000.123456789,1460,7,0,0",
        "1700000000.123456789,1460,7,0,0",
        "1700000000.123456789,,,1,0",
        "1700000001.000000001,,,1,1",
        "1700000001.000000001,,,1,0",
    ]


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.pcap", "pcap"), ("a.b.CAP", "pcap"), (Path("x/a.pcapng"), "pcapng"), ("a.ntar", "pcapng")],
)
def test_the_suffix_says_the_format(name: str | Path, kind: str) -> None:
    assert format_of(name) == kind


@pytest.mark.parametrize("name", ["a", "pcap", ".pcap", "a.pcap.gz", "a.pcap/x", "a\n.txt", ""])
def test_another_suffix_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=r"\.pcapng") as caught:
        format_of(name)
    assert "\n" not in str(caught.value)


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="erf"):
        CaptureFile(io.BytesIO(), "erf")


@given(st.lists(st.integers(-5, 5), max_size=8))
def test_time_never_goes_backwards(times: list[int]) -> None:
    from scapy.utils import RawPcapReader

    file = io.BytesIO()
    capture = CaptureFile(file, "pcap", nanoseconds=True)
    for time_ns in times:
        capture.write(time_ns, b"frame")
    assert capture.packets == len(times)
    file.seek(0)
    with RawPcapReader(file) as reader:  # type: ignore[arg-type]
        written = [meta.usec for _, meta in reader]
    assert written == [max([0, *times[: index + 1]]) for index in range(len(times))]


def test_the_file_stays_open_and_has_everything(tmp_path: Path) -> None:
    with (tmp_path / "a.pcap").open("wb", buffering=1 << 20) as file:
        capture = CaptureFile(file, "pcap")
        capture.write(1, bytes(60))
        capture.close()
        assert not file.closed
        assert os.path.getsize(file.name) == 24 + 16 + 60
