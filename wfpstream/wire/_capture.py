"""pcap and pcapng as bytes: the headers and records of a capture file; pcapng with any number of interfaces.

Formats only: pcap as in draft-ietf-opsawg-pcap, pcapng as in draft-ietf-opsawg-pcapng, always little-endian.
Knows nothing of files, nor of what the frames hold. Times are nanoseconds since 1970 UTC; one that a format
cannot express becomes the nearest that it can.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_MAGIC_MICROSECONDS, _MAGIC_NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D
# The most that Wireshark and libpcap take for one frame.
_SNAP_LENGTH = 262_144
_SECOND = 1_000_000_000
_PCAP_LATEST = (_SECOND << 32) - 1
_PCAPNG_LATEST = (1 << 64) - 1

_SECTION_HEADER, _INTERFACE_DESCRIPTION, _ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D
_OPTION_COMMENT, _OPTION_INTERFACE_NAME, _OPTION_TIME_RESOLUTION = 1, 2, 9
_OPTIONS_END = b"\0\0\0\0"
# What follows a length of so many bytes modulo 4.
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

_pcap_record = struct.Struct("<IIII").pack
_block_start = struct.Struct("<II").pack
_block_end = struct.Struct("<I").pack
_packet_block = struct.Struct("<IIIIIII").pack


def pcap_header(link_type: int, nanoseconds: bool = False) -> bytes:
    """The file header of a pcap whose records have microseconds, or nanoseconds."""
    magic = _MAGIC_NANOSECONDS if nanoseconds else _MAGIC_MICROSECONDS
    return struct.pack("<IHHiIII", magic, 2, 4, 0, 0, _SNAP_LENGTH, link_type)


def pcap_record(
    time_ns: int, frame: bytes, nanoseconds: bool = False, original_length: int | None = None
) -> bytes:
    """One frame of a pcap.

    Args:
        time_ns: Nanoseconds since 1970, cut to microseconds unless `nanoseconds` (as in `pcap_header`).
        frame: The captured bytes.
        original_length: The frame's length on the wire in bytes, if it was cut; else that of `frame`.
    """
    if not 0 <= time_ns <= _PCAP_LATEST:
        time_ns = min(max(time_ns, 0), _PCAP_LATEST)
    seconds, fraction = divmod(time_ns, _SECOND)
    if not nanoseconds:
        fraction //= 1_000
    size = len(frame)
    return _pcap_record(seconds, fraction, size, size if original_length is None else original_length) + frame


def pcapng_header(link_type: int, interfaces: Sequence[str] = ()) -> bytes:
    """The section header and the description of each interface (one without a name, by default).

    Times are in nanoseconds.

    Raises:
        ValueError: a name has more than 65,535 bytes in UTF-8.
    """
    section = struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1)
    blocks = [_block(_SECTION_HEADER, section)]
    for name in interfaces or ("",):
        options = _option(_OPTION_INTERFACE_NAME, name.encode("utf-8", "backslashreplace")) if name else b""
        options += _option(_OPTION_TIME_RESOLUTION, b"\x09") + _OPTIONS_END
        blocks.append(_block(_INTERFACE_DESCRIPTION, struct.pack("<HHI", link_type, 0, 0) + options))
    return b"".join(blocks)


def pcapng_record(time_ns: int, frame: bytes, comment: str | None = None, interface: int = 0) -> bytes:
    """One frame of a pcapng, as an enhanced packet block; `comment` is what Wireshark shows beside the packet.

    `interface` is the position of its interface in the header, counted from 0.

    Raises:
        ValueError: `comment` has more than 65,535 bytes in UTF-8.
    """
    if not 0 <= time_ns <= _PCAPNG_LATEST:
        time_ns = min(max(time_ns, 0), _PCAPNG_LATEST)
    size = len(frame)
    tail = _PADDING[size & 3]
    if comment is not None:
        tail += _option(_OPTION_COMMENT, comment.encode("utf-8", "backslashreplace")) + _OPTIONS_END
    length = 32 + size + len(tail)
    head = _packet_block(_ENHANCED_PACKET, length, interface, time_ns >> 32, time_ns & 0xFFFFFFFF, size, size)
    return b"".join((head, frame, tail, _block_end(length)))


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return _block_start(kind, length) + body + _block_end(length)


def _option(code: int, value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise ValueError(f"a pcapng option has at most 65,535 bytes, not {len(value):,}")
    return struct.pack("<HH", code, len(value)) + value + _PADDING[len(value) & 3]
