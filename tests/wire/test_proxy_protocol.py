"""PROXY headers, read and built: every form of the specification, every cut, and what is none."""

from __future__ import annotations

import ipaddress
import itertools
import re
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wfpstream.wire import (
    MAX_PROXY_HEADER,
    ProxyHeader,
    ProxyHeaderError,
    build_proxy_header,
    parse_proxy_header,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + (50000).to_bytes(2, "big") + (443).to_bytes(2, "big")
V6 = ipaddress.IPv6Address("2001:db8::1").packed + ipaddress.IPv6Address("2001:db8::2").packed + V4[8:]
UNIX = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
A, B = ("192.0.2.1", 50000), ("198.51.100.7", 443)
A6, B6 = ("2001:db8::1", 50000), ("2001:db8::2", 443)


def binary(byte13: int, byte14: int, block: bytes = b"", length: int | None = None) -> bytes:
    """A version 2 header; `length` lies about the block."""
    size = len(block) if length is None else length
    return SIGNATURE + bytes((byte13, byte14)) + size.to_bytes(2, "big") + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def crc32c(data: bytes) -> int:
    """Bit by bit, as RFC 4960 describes it: nothing shared with the table of the package."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def checked(byte14: int, block: bytes, *tlvs: bytes) -> bytes:
    """A version 2 header with a right checksum in front of `tlvs`."""
    blank = binary(0x21, byte14, block + tlv(3, bytes(4)) + b"".join(tlvs))
    at = 16 + len(block) + 3
    return blank[:at] + crc32c(blank).to_bytes(4, "big") + blank[at + 4 :]


def spoiled(header: bytes, at: int) -> bytes:
    return header[:at] + bytes((header[at] ^ 1,)) + header[at + 1 :]


TLVS = tlv(1, b"h2") + tlv(4, b"") + tlv(0xE0, b"own")
LONGEST_V6 = b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n"
LONGEST_UNKNOWN = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"

GOOD = {
    b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n": (1, "proxy", A, B, b""),
    b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n": (
        1,
        "proxy",
        ("0.0.0.0", 0),
        ("255.255.255.255", 65535),
        b"",
    ),
    b"PROXY TCP6 2001:db8::1 2001:DB8:0:0::0002 50000 443\r\n": (1, "proxy", A6, B6, b""),
    b"PROXY TCP6 ::ffff:192.0.2.1 ::FFFF:c633:6407 50000 443\r\n": (1, "proxy", A, B, b""),
    b"PROXY TCP6 :: ::0.2.0.3 1 2\r\n": (1, "proxy", ("::", 1), ("::2:3", 2), b""),
    LONGEST_V6: (1, "proxy", ("ffff:" * 7 + "ffff", 65535), ("ffff:" * 7 + "ffff", 65535), b""),
    b"PROXY UNKNOWN\r\n": (1, "proxy", None, None, b""),
    b"PROXY UNKNOWN \r\n": (1, "proxy", None, None, b""),
    b"PROXY UNKNOWN TCP4  \xff\x00 whatever\r\n": (1, "proxy", None, None, b""),
    LONGEST_UNKNOWN: (1, "proxy", None, None, b""),
    binary(0x21, 0x11, V4): (2, "proxy", A, B, b""),
    binary(0x21, 0x11, V4 + TLVS): (2, "proxy", A, B, TLVS),
    binary(0x21, 0x21, V6): (2, "proxy", A6, B6, b""),
    binary(0x21, 0x21, bytes(10) + b"\xff\xff" + V4[:4] + bytes(10) + b"\xff\xff" + V4[4:]): (
        2,
        "proxy",
        A,
        B,
        b"",
    ),
    binary(0x21, 0x31, UNIX + TLVS): (2, "proxy", None, None, TLVS),
    binary(0x21, 0x00): (2, "proxy", None, None, b""),
    binary(0x21, 0x00, b"no fields at all"): (2, "proxy", None, None, b""),
    binary(0x21, 0x10, b"?"): (2, "proxy", None, None, b""),
    binary(0x21, 0x01, b"?"): (2, "proxy", None, None, b""),
    binary(0x20, 0x00): (2, "local", None, None, b""),
    # The family of LOCAL is ignored, whatever it is; its length is not.
    binary(0x20, 0xFF, b"\r\n\r\n"): (2, "local", None, None, b""),
    binary(0x20, 0x11): (2, "local", None, None, b""),
    binary(0x21, 0x11, V4 + tlv(0xEA, bytes(MAX_PROXY_HEADER - 16 - 12 - 3))): (
        2,
        "proxy",
        A,
        B,
        tlv(0xEA, bytes(MAX_PROXY_HEADER - 16 - 12 - 3)),
    ),
    checked(0x11, V4, TLVS): (2, "proxy", A, B, checked(0x11, V4, TLVS)[28:]),
    checked(0x21, V6): (2, "proxy", A6, B6, checked(0x21, V6)[52:]),
}

# What cannot be a header, and how many of its bytes can still be the beginning of one.
BAD = [
    (b"GET / HTTP/1.1\r\n", 0),
    (b"\0", 0),
    (b"PROXy TCP4", 4),
    (b"proxy TCP4", 0),
    (b"PROXYTCP4", 5),
    (b"PROXY\r\n", 5),
    (b"PROXY  TCP4", 6),
    (b"PROXY TCP5", 9),
    (b"PROXY UDP4", 7),
    (b"PROXY tcp4", 6),
    (b"PROXY TCP\r\n", 9),
    (b"PROXY TCP4\r\n", 10),
    (b"PROXY UNKNOWNS", 13),
    (b"PROXY UNKNOWN\n", 13),
    (b"PROXY UNKNOWN x\ny\r\n", 15),
    (b"PROXY UNKNOWN\r\r\n", 14),
    (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", 105),
    (b"PROXY UNKNOWN " + b"x" * 200, 105),
    (b"PROXY TCP4 \r\n", 11),
    (b"PROXY TCP4  192", 11),
    (b"PROXY TCP4 256.0.0.1", 13),
    (b"PROXY TCP4 01.2.3.4", 12),
    (b"PROXY TCP4 1.2.3 4", 16),
    (b"PROXY TCP4 1..3.4", 13),
    (b"PROXY TCP4 1.2.3.4.5", 18),
    (b"PROXY TCP4 -1.2.3.4", 11),
    (b"PROXY TCP4 0x1.2.3.4", 12),
    (b"PROXY TCP4 1.2.3.4\t5.6.7.8 1 2\r\n", 18),
    (b"PROXY TCP4 1.2.3.4 ::1 1 2\r\n", 19),
    (b"PROXY TCP4 ::ffff:1.2.3.4 1.2.3.4 1 2\r\n", 11),
    ("PROXY TCP4 1.2.3.٣".encode(), 17),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 65536 1\r\n", 31),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 100000 1\r\n", 32),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 01 1\r\n", 28),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 +1 1\r\n", 27),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1_0 1\r\n", 28),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", 28),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1  2\r\n", 29),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2 \r\n", 30),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", 30),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\rX", 31),
    (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 \r\n", 29),
    (b"PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", 12),
    (b"PROXY TCP6 ::1%lo ::1 1 2\r\n", 14),
    (b"PROXY TCP6 [::1] ::1 1 2\r\n", 11),
    (b"PROXY TCP6 :1", 12),
    (b"PROXY TCP6 :::", 13),
    (b"PROXY TCP6 1::2::3", 16),
    (b"PROXY TCP6 12345::", 15),
    (b"PROXY TCP6 g::", 11),
    (b"PROXY TCP6 1:2:3:4:5:6:7 ", 24),
    (b"PROXY TCP6 1:2:3:4:5:6:7:8:9", 26),
    (b"PROXY TCP6 1:2:3:4:5:6::7:8", 25),
    (b"PROXY TCP6 1:2:3:4:5:6:7:8::", 26),
    (b"PROXY TCP6 1: ", 13),
    (b"PROXY TCP6 ::ffff:1.2.3 ::1 1 2\r\n", 23),
    (b"PROXY TCP6 ::fffe:1.2.3.4 ::1 1 2\r\n", 19),
    (SIGNATURE[:4] + b"\1", 4),
    (SIGNATURE[:11] + b"\r", 11),
    (binary(0x11, 0x11, V4), 12),
    (binary(0x31, 0x11, V4), 12),
    (binary(0x22, 0x11, V4), 12),
    (binary(0x2F, 0x00), 12),
    (binary(0x21, 0x12, V4), 13),
    (binary(0x21, 0x22, V6), 13),
    (binary(0x21, 0x32, UNIX), 13),
    (binary(0x21, 0x13, V4), 13),
    (binary(0x21, 0x41, V4), 13),
    (binary(0x21, 0x11, V4[:-1]), 15),
    (binary(0x21, 0x11), 15),
    (binary(0x21, 0x21, V4), 15),
    (binary(0x21, 0x31, UNIX[:-1]), 15),
    (binary(0x21, 0x11, V4, 0xFFFF), 14),
    (binary(0x21, 0x11, V4, MAX_PROXY_HEADER), 14),
    (binary(0x21, 0x11, V4, MAX_PROXY_HEADER - 15), 15),
    (binary(0x20, 0x00, b"", 0x1000), 14),
    # What is behind the addresses is judged when it is all there.
    (binary(0x21, 0x11, V4 + b"\1"), 28),
    (binary(0x21, 0x11, V4 + b"\1\0"), 29),
    (binary(0x21, 0x11, V4 + b"\1\0\1"), 30),
    (binary(0x21, 0x11, V4 + b"\1\xff\xff?"), 31),
    (binary(0x21, 0x31, UNIX + TLVS[:-1]), 16 + 216 + len(TLVS) - 2),
    (binary(0x21, 0x11, V4 + tlv(3, b"abc")), 33),
    (binary(0x21, 0x11, V4 + tlv(3, b"abcd")), 34),
    (binary(0x21, 0x11, V4 + tlv(3, b"abcd") * 2), 41),
    (spoiled(checked(0x11, V4, TLVS), 31), len(checked(0x11, V4, TLVS)) - 1),
    (spoiled(checked(0x11, V4, TLVS), 16), len(checked(0x11, V4, TLVS)) - 1),
    (spoiled(checked(0x11, V4, TLVS), -2), len(checked(0x11, V4, TLVS)) - 1),
]


def fate(data: bytes) -> tuple[ProxyHeader, int] | str | None:
    """What reading it comes to; an error as its text. Nothing else may be raised."""
    try:
        return parse_proxy_header(data)
    except ProxyHeaderError as error:
        return str(error)


def fate_by_bytes(data: bytes) -> tuple[ProxyHeader, int] | str | None:
    """As `fate`, asked after each byte, like a reader to whom they come one by one."""
    for size in range(len(data) + 1):
        found = fate(data[:size])
        if found is not None:
            return found
    return None


# --- the specification's forms ----------------------------------------------------------------------


@pytest.mark.parametrize(("data", "said"), GOOD.items(), ids=range(len(GOOD)))
def test_good_headers(data: bytes, said: tuple[object, ...]) -> None:
    assert parse_proxy_header(data) == (said, len(data))


@pytest.mark.parametrize("data", GOOD, ids=range(len(GOOD)))
@pytest.mark.parametrize("behind", [b"\r\n", b"GET /", b"PROXY UNKNOWN\r\n", SIGNATURE, bytes(5000)])
def test_what_is_behind_a_header_is_none_of_it(data: bytes, behind: bytes) -> None:
    found = parse_proxy_header(data + behind)
    assert found is not None
    assert found == parse_proxy_header(data)
    assert found[1] == len(data)


@pytest.mark.parametrize("data", GOOD, ids=range(len(GOOD)))
def test_every_beginning_of_a_header_asks_for_more(data: bytes) -> None:
    assert [fate(data[:size]) for size in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize(("data", "possible"), BAD, ids=range(len(BAD)))
def test_bad_headers_are_told_at_the_first_byte_that_cannot_be(data: bytes, possible: int) -> None:
    told = [fate(data[:size]) for size in range(len(data) + 1)]
    assert told[: possible + 1] == [None] * (possible + 1)
    assert all(isinstance(one, str) for one in told[possible + 1 :])


@pytest.mark.parametrize("data", [data for data, _ in BAD], ids=range(len(BAD)))
def test_errors_are_one_plain_line(data: bytes) -> None:
    text = fate(data)
    assert isinstance(text, str)
    assert text.isprintable()
    assert text.isascii()
    assert len(text) < 200


def test_other_buffers_are_read_too() -> None:
    header = binary(0x21, 0x11, V4)
    for buffer in (bytearray(header), memoryview(header)):
        assert parse_proxy_header(buffer) == parse_proxy_header(header)


def test_crc32c_is_the_known_one() -> None:
    """The check value of CRC-32C, so that the test's own sum is right; the package is held against it above."""
    assert crc32c(b"123456789") == 0xE3069283


# --- everything else --------------------------------------------------------------------------------

GOOD_HEADERS = st.sampled_from(list(GOOD))


@given(st.binary(max_size=120) | st.binary(max_size=120).map(lambda rest: SIGNATURE + b"\x21" + rest))
def test_random_bytes(data: bytes) -> None:
    """Whatever comes: a header, more wanted, or the one error; and the same byte by byte."""
    assert fate(data) == fate_by_bytes(data)


@given(GOOD_HEADERS, st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=3), st.binary())
@example(b"PROXY UNKNOWN\r\n", [(13, 32), (14, 32)], b"\n" * 200)
def test_changed_headers(data: bytes, changes: list[tuple[int, int]], behind: bytes) -> None:
    """Byte by byte is as whole; what was found stays found, what failed stays failed, whatever follows."""
    changed = bytearray(data)
    for at, value in changes:
        changed[at % len(changed)] = value
    found = fate(bytes(changed))
    if len(changed) < 200:
        by_bytes = fate_by_bytes(bytes(changed))
        assert by_bytes == found or (isinstance(by_bytes, str) and isinstance(found, str))
    if found is not None:
        later = fate(bytes(changed) + behind)
        assert later == found or (isinstance(later, str) and isinstance(found, str))


LINE_CHARACTERS = st.text("0129.:fF PROXYTCUNKNW46\r\n", max_size=60).map(str.encode)


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY TCP6 ::1 "]), LINE_CHARACTERS)
def test_random_lines(start: bytes, rest: bytes) -> None:
    data = start + rest
    found, by_bytes = fate(data), fate_by_bytes(data)
    assert by_bytes == found or (isinstance(by_bytes, str) and isinstance(found, str))


@given(st.text("012345fF:.", max_size=20))
@example("1:2:3:4:5:6:7::")
@example("::1:2:3:4:5:6:7")
@example("1:2:3:4:5:6:7:8::")
@example("::ffff:1.2.3.4")
def test_ipv6_texts_are_those_of_the_library(text: str) -> None:
    """What ipaddress takes is taken, and nothing else; of the dotted forms only the two that inet_ntop writes."""
    expected = library(text)
    if "." in text and not re.fullmatch(r"::(ffff:)?[0-9.]+", text, re.IGNORECASE):
        expected = None
    found = fate(f"PROXY TCP6 {text} 1::2 3 4\r\n".encode())
    if expected is None:
        assert isinstance(found, str)
    else:
        assert isinstance(found, tuple)
        assert found[0].source == (str(expected.ipv4_mapped or expected), 3)


def library(text: str) -> ipaddress.IPv6Address | None:
    try:
        return ipaddress.IPv6Address(text)
    except ValueError:
        return None


def test_the_beginnings_of_ipv6_texts() -> None:
    """Of all texts of one digit and colons: a beginning asks for more exactly if there is an end for it."""
    every = ["".join(signs) for size in range(16) for signs in itertools.product("1:", repeat=size)]
    possible = {text[:size] for text in every if library(text) for size in range(len(text) + 1)}
    short = [text for text in every if len(text) <= 12]  # within three more there is an end for each
    assert [text for text in short if fate(f"PROXY TCP6 {text}".encode()) is None] == [
        text for text in short if text in possible
    ]


# --- building ---------------------------------------------------------------------------------------

PORTS = st.integers(0, 65535)
V4_ENDS = st.tuples(st.ip_addresses(v=4).map(str), PORTS)
V6_ENDS = st.tuples(st.ip_addresses(v=6).map(str).filter(lambda text: not text.startswith("::ffff:")), PORTS)
ENDS = V4_ENDS | V6_ENDS


@given(st.sampled_from([1, 2]), ENDS, ENDS, st.binary(max_size=10))
def test_what_was_built_is_read(
    version: int, source: tuple[str, int], destination: tuple[str, int], behind: bytes
) -> None:
    header = build_proxy_header(version, source, destination)
    assert len(header) <= 107
    found = parse_proxy_header(header + behind)
    assert found == ((version, "proxy", source, destination, b""), len(header))


@pytest.mark.parametrize("nobody", [(None, B), (A, None), (None, None)])
def test_without_addresses(nobody: tuple[tuple[str, int] | None, tuple[str, int] | None]) -> None:
    assert build_proxy_header(1, *nobody) == b"PROXY UNKNOWN\r\n"
    assert build_proxy_header(2, *nobody) == binary(0x20, 0)


def test_the_bytes_of_the_specification() -> None:
    assert build_proxy_header(1, A, B) == b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n"
    assert build_proxy_header(1, A6, B6) == b"PROXY TCP6 2001:db8::1 2001:db8::2 50000 443\r\n"
    assert build_proxy_header(2, A, B) == binary(0x21, 0x11, V4)
    assert build_proxy_header(2, A6, B6) == binary(0x21, 0x21, V6)


def test_mixed_families_become_ipv6() -> None:
    """In hexadecimal: the specification knows no dots there."""
    line = build_proxy_header(1, ("0.0.2.1", 1), ("::1%lo", 2))
    assert line == b"PROXY TCP6 ::ffff:0:201 ::1 1 2\r\n"
    assert len(build_proxy_header(2, A6, B)) == 16 + 36


@pytest.mark.parametrize(
    ("version", "source"),
    [(0, A), (3, A), (1, ("localhost", 1)), (2, ("", 1)), (2, ("1.2.3.4", 65536)), (1, ("1.2.3.4", -1))],
)
def test_what_cannot_be_built(version: int, source: tuple[str, int]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        build_proxy_header(version, source, B)


def test_no_line_breaks_out_of_its_header() -> None:
    """An address is parsed, not pasted."""
    for character in string.whitespace:
        with pytest.raises(ValueError, match="address"):
            build_proxy_header(1, (f"1.2.3.4{character}", 1), B)
