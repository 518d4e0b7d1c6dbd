"""IP fragments put together: in any order, doubled, overlapping, lying; bounded in bytes and in time.

Fragments are made here from whole packets and go through the header walk, as captured ones do; what comes out is
compared with the packet they were cut from.
"""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterable, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.replay.support_captures import SECOND, shared_capture
from wfpstream.replay._fragments import Fragments
from wfpstream.replay._reader import open_capture
from wfpstream.wire import Fragment, Segment, internet_checksum, walk, walk_ip

TCP = 6
V4 = (bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
V6 = (bytes(15) + b"\1", bytes(15) + b"\2")
ADDRESSES = {4: V4, 6: V6}
both_versions = pytest.mark.parametrize("version", [4, 6])


def ip_header(
    version: int, length: int, identification: int = 7, spot: int | None = None, options: bytes = b""
) -> bytes:
    """An IP header in front of `length` bytes; `spot` is a fragment's offset and flag, None for no fragment."""
    source, destination = ADDRESSES[version]
    if version == 6:
        inner = b"" if spot is None else struct.pack("!BxHI", TCP, spot, identification)
        following = 44 if inner else TCP
        return (
            struct.pack("!IHBB", 6 << 28, length + len(inner), following, 64) + source + destination + inner
        )
    size = 20 + len(options)
    header = struct.pack(
        "!BBHHHBBH", 0x40 | size // 4, 0, size + length, identification, spot or 0, 64, TCP, 0
    )
    header += source + destination + options
    checksum = internet_checksum(header).to_bytes(2, "big")
    return header[:10] + checksum + header[12:]


def whole_packet(version: int, payload: bytes, identification: int = 7) -> bytes:
    return ip_header(version, len(payload), identification) + payload


def fragment(
    version: int, offset: int, data: bytes, *, more: bool, identification: int = 7, options: bytes = b""
) -> Fragment:
    """One fragment, as the walk makes it of a packet."""
    spot = (offset >> 3) | more << 13 if version == 4 else offset | more
    walked = walk_ip(ip_header(version, len(data), identification, spot, options) + data)
    assert isinstance(walked, Fragment)
    assert (walked.offset, walked.more, bytes(walked.payload)) == (offset, more, data)
    return walked


def cut(version: int, payload: bytes, borders: Iterable[int], identification: int = 7) -> list[Fragment]:
    """The fragments of a payload, cut at `borders` (in units of 8 bytes)."""
    places = sorted({0, *(border * 8 for border in borders if 0 < border * 8 < len(payload))})
    ends = [*places[1:], len(payload)]
    return [
        fragment(version, start, payload[start:end], more=end < len(payload), identification=identification)
        for start, end in zip(places, ends, strict=True)
    ]


def add_all(fragments: Fragments, parts: Sequence[Fragment], time_ns: int = 0) -> list[bytes]:
    """What comes out, in order."""
    return [whole for part in parts if (whole := fragments.add(part, time_ns)) is not None]


PAYLOAD = bytes(range(256)) * 5 + b"tail!"


@both_versions
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0], [1, 0, 2]])
def test_fragments_in_any_order_make_the_packet(version: int, order: list[int]) -> None:
    parts = cut(version, PAYLOAD, [40, 90])
    fragments = Fragments()
    assert add_all(fragments, [parts[n] for n in order]) == [whole_packet(version, PAYLOAD)]
    assert (fragments.given_up, fragments.waiting, fragments.cost) == (0, 0, 0)


@both_versions
@given(st.data())
def test_random_datagrams_cut_shuffled_and_doubled_come_back_whole(version: int, data: st.DataObject) -> None:
    parts, expected = [], set()
    for identification in range(data.draw(st.integers(1, 4))):
        payload = data.draw(st.binary(min_size=17, max_size=300))
        expected.add(whole_packet(version, payload, identification))
        # The same bytes again, cut elsewhere: doubles and overlaps that agree.
        for _ in range(data.draw(st.integers(1, 3))):
            borders = data.draw(st.sets(st.integers(1, (len(payload) - 1) // 8), min_size=1))
            parts += cut(version, payload, borders, identification)
    shuffled = data.draw(st.permutations(parts))
    fragments = Fragments()
    assert set(add_all(fragments, shuffled)) == expected
    assert fragments.given_up == 0


@both_versions
def test_what_comes_out_is_walked_as_a_segment(version: int) -> None:
    tcp = struct.pack("!HHIIBBHHH", 1000, 2000, 1, 2, 0x50, 0x18, 100, 0, 0) + b"d" * 100
    (whole,) = add_all(Fragments(), cut(version, tcp, [1, 2, 3]))
    segment = walk_ip(whole)
    assert isinstance(segment, Segment)
    assert (segment.source_port, segment.destination_port, bytes(segment.payload)) == (1000, 2000, b"d" * 100)
    assert (segment.source, segment.destination, segment.missing) == (*ADDRESSES[version], 0)


@both_versions
def test_the_largest_datagram(version: int) -> None:
    size = 65_535 - (20 if version == 4 else 0)
    payload = Random(1).randbytes(size)
    assert add_all(Fragments(), cut(version, payload, range(0, 8192, 100))) == [
        whole_packet(version, payload)
    ]


def test_options_count_against_the_largest_datagram() -> None:
    options = b"\1" * 40
    parts = [
        fragment(4, 0, bytes(65_000), more=True, options=options),
        fragment(4, 65_000, bytes(500), more=False),
    ]
    fragments = Fragments()
    assert add_all(fragments, parts) == []
    assert (fragments.given_up, fragments.waiting, fragments.cost) == (1, 0, 0)


def test_ipv4_options_are_those_of_the_first_fragment() -> None:
    first = fragment(4, 0, b"a" * 8, more=True, options=b"\1\1\1\0")
    last = fragment(4, 8, b"b" * 3, more=False, options=b"\0\0\0\0\0\0\0\0")
    (whole,) = add_all(Fragments(), [last, first])
    assert whole == ip_header(4, 11, options=b"\1\1\1\0") + b"a" * 8 + b"b" * 3
    assert internet_checksum(whole[:24]) == 0


# --- overlaps and lies ------------------------------------------------------------------------------


@both_versions
def test_the_first_copy_wins(version: int) -> None:
    parts = [
        fragment(version, 8, b"B" * 16, more=True),
        fragment(version, 0, b"a" * 32, more=True),  # around the first, and beyond
        fragment(version, 16, b"c" * 24, more=True),
        fragment(version, 40, b"d" * 5, more=False),
    ]
    (whole,) = add_all(Fragments(), parts)
    assert whole == whole_packet(version, b"a" * 8 + b"B" * 16 + b"a" * 8 + b"c" * 8 + b"d" * 5)


@both_versions
def test_of_two_ends_the_first_counts(version: int) -> None:
    parts = [
        fragment(version, 16, b"end", more=False),
        fragment(version, 24, b"later end", more=False),
        fragment(version, 8, b"b" * 24, more=True),  # beyond the end
        fragment(version, 8, b"B" * 8, more=True),
        fragment(version, 0, b"a" * 8, more=True),
    ]
    assert add_all(Fragments(), parts) == [whole_packet(version, b"a" * 8 + b"B" * 8 + b"end")]


@both_versions
def test_an_end_before_what_is_there_is_left_out(version: int) -> None:
    parts = [
        fragment(version, 16, b"c" * 8, more=True),
        fragment(version, 8, b"lie", more=False),
        fragment(version, 24, b"end", more=False),
        fragment(version, 0, b"a" * 16, more=True),
    ]
    assert add_all(Fragments(), parts) == [whole_packet(version, b"a" * 16 + b"c" * 8 + b"end")]


def test_an_ipv4_fragment_of_broken_units_counts_for_its_whole_ones() -> None:
    parts = [
        fragment(4, 0, b"a" * 11, more=True),
        fragment(4, 0, b"x" * 5, more=True),  # no whole unit at all
        fragment(4, 8, b"b" * 3, more=False),
    ]
    assert add_all(Fragments(), parts) == [whole_packet(4, b"a" * 8 + b"b" * 3)]


def test_an_ipv6_fragment_of_broken_units_is_discarded() -> None:
    parts = [fragment(6, 0, b"a" * 11, more=True), fragment(6, 8, b"b" * 3, more=False)]
    assert add_all(Fragments(), parts) == []


@both_versions
def test_a_fragment_the_capture_cut_brings_nothing(version: int) -> None:
    payload = PAYLOAD[:48]
    first, last = cut(version, payload, [3])
    # The header promises 24 bytes more than were captured.
    header = ip_header(version, 24, spot=3 if version == 4 else 24)
    short = walk_ip(header + payload[24:40])
    assert isinstance(short, Fragment)
    assert short.missing == 8
    fragments = Fragments()
    assert add_all(fragments, [first, short]) == []
    assert add_all(fragments, [last]) == [whole_packet(version, payload)]


def test_datagrams_differ_by_every_part_of_their_key() -> None:
    def made(source: int, destination: int, identification: int, protocol: int) -> list[Fragment]:
        parts = cut(4, PAYLOAD, [5], identification)
        for part in parts:
            part.source, part.destination = bytes([10, 0, 0, source]), bytes([10, 0, 0, destination])
            part.protocol = protocol
        return parts

    kinds = [made(1, 2, 7, 6), made(3, 2, 7, 6), made(1, 3, 7, 6), made(1, 2, 8, 6), made(1, 2, 7, 17)]
    fragments = Fragments()
    assert add_all(fragments, [first for first, _ in kinds]) == []
    # No last fragment finds the first one of another datagram.
    assert fragments.waiting == len(kinds)
    assert len(add_all(fragments, [last for _, last in kinds])) == len(kinds)


def test_versions_do_not_mix() -> None:
    fragments = Fragments()
    assert add_all(fragments, [cut(4, PAYLOAD, [5])[0], cut(6, PAYLOAD, [5])[1]]) == []
    assert fragments.waiting == 2


# --- bounds -----------------------------------------------------------------------------------------


@both_versions
def test_a_datagram_too_old_is_given_up(version: int) -> None:
    first, last = cut(version, PAYLOAD, [5])
    fragments = Fragments(max_age_ns=30 * SECOND)
    assert fragments.add(first, 100 * SECOND) is None
    assert fragments.add(last, 130 * SECOND) == whole_packet(version, PAYLOAD)
    assert fragments.add(first, 200 * SECOND) is None
    assert fragments.add(last, 230 * SECOND + 1) is None
    assert (fragments.given_up, fragments.waiting) == (1, 1)


def test_age_counts_from_the_first_fragment() -> None:
    one, two, three = cut(4, PAYLOAD, [5, 9])
    fragments = Fragments(max_age_ns=10)
    assert [fragments.add(one, 0), fragments.add(two, 9), fragments.add(three, 11)] == [None] * 3
    assert fragments.given_up == 1


def test_time_that_runs_backwards_gives_nothing_up() -> None:
    first, last = cut(4, PAYLOAD, [5])
    fragments = Fragments(max_age_ns=10)
    assert fragments.add(first, 100 * SECOND) is None
    assert fragments.add(last, 1) == whole_packet(4, PAYLOAD)


@both_versions
def test_the_oldest_go_first_when_the_bytes_run_out(version: int) -> None:
    fragments = Fragments(max_bytes=100_000)
    datagrams = [cut(version, PAYLOAD * 8, [600], number) for number in range(40)]
    for first, _ in datagrams:
        assert fragments.add(first, 0) is None
        assert fragments.cost <= 100_000
    assert fragments.waiting + fragments.given_up == 40
    assert 10 < fragments.waiting < 20
    kept = [len(add_all(fragments, [last])) for _, last in reversed(datagrams)]
    assert kept[:10] == [1] * 10  # the youngest are there
    assert kept[20:] == [0] * 20


def test_one_datagram_above_the_bound_is_given_up_itself() -> None:
    fragments = Fragments(max_bytes=10)
    assert fragments.add(cut(4, PAYLOAD, [5])[0], 0) is None
    assert (fragments.given_up, fragments.waiting, fragments.cost) == (1, 0, 0)


def small_fragments(version: int, datagrams: int, pieces: int) -> Iterable[Fragment]:
    """Fragments of 8 bytes, no two joined, and never a last one."""
    for identification in range(datagrams):
        for number in range(pieces):
            yield fragment(version, number * 16, b"12345678", more=True, identification=identification)


@both_versions
@pytest.mark.parametrize(("datagrams", "pieces"), [(4_000, 1), (1, 4_000), (60, 60)])
def test_what_is_kept_costs_no_more_than_is_counted(version: int, datagrams: int, pieces: int) -> None:
    made = list(small_fragments(version, datagrams, pieces))
    fragments = Fragments()
    tracemalloc.start()
    try:
        add_all(fragments, made)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert fragments.given_up == 0
    assert used <= fragments.cost
    assert fragments.cost > 8 * len(made)


def test_a_lying_offset_costs_what_it_takes() -> None:
    made = [fragment(4, 65_504, b"12345678", more=True, identification=number) for number in range(2_000)]
    fragments = Fragments()
    tracemalloc.start()
    try:
        add_all(fragments, made)
        used = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert used <= fragments.cost


def test_doubles_without_end_take_no_memory() -> None:
    first = fragment(4, 0, b"a" * 800, more=True)
    fragments = Fragments()
    fragments.add(first, 0)
    before = fragments.cost
    add_all(fragments, [first] * 1_000)
    assert fragments.cost == before


@given(
    st.lists(
        st.tuples(
            st.sampled_from([4, 6]),
            st.integers(0, 12).map(lambda units: units * 8),
            st.binary(min_size=1, max_size=40),
            st.booleans(),
            st.integers(0, 1),
            st.integers(0, 100),
        ).filter(lambda part: part[1] or part[3]),  # else it is no fragment
        max_size=40,
    )
)
def test_whatever_comes_the_counts_hold(
    parts: list[tuple[int, int, bytes, bool, int, int]],
) -> None:
    fragments = Fragments(max_bytes=8_000, max_age_ns=50)
    for version, offset, data, more, identification, time_ns in parts:
        whole = fragments.add(
            fragment(version, offset, data, more=more, identification=identification), time_ns
        )
        assert whole is None or whole[0] >> 4 == version
        assert 0 <= fragments.cost <= 8_000
        assert (fragments.waiting == 0) == (fragments.cost == 0)


# --- a real capture ---------------------------------------------------------------------------------


def test_a_real_capture_of_ipv6_fragments() -> None:
    path = shared_capture("real", "ipfrag-vlan-v6.pcap")
    fragments = Fragments()
    whole = []
    with open_capture(path) as reader:
        for time_ns, link_type, frame in reader:
            walked = walk(link_type, frame)
            if isinstance(walked, Fragment):
                packet = fragments.add(walked, time_ns)
                if packet is not None:
                    whole.append(walk_ip(packet))
    assert whole
    for segment in whole:
        assert isinstance(segment, Segment)
        assert segment.checksum_ok()
    assert fragments.given_up == fragments.waiting == 0
