"""Ethernet frames with one TCP segment inside IPv4 (RFC 791) or IPv6 (RFC 8200), checksums right.

Knows headers, not connections: sequence numbers, windows and the order of segments are the caller's.

Frames are not padded to Ethernet's 60 bytes, as a capture of what a host sends is not. IPv4 packets have the
identification 0 and "don't fragment" (RFC 6864: an atomic datagram needs no identification), so that everything
before the TCP header stays the same from one full segment to the next.
"""

from __future__ import annotations

import struct

from ._checksum import word_sum

_TCP = 6
_HOP_LIMIT = 64
_DONT_FRAGMENT = 0x4000
# Locally administered, so that they belong to no maker of cards.
_CLIENT_ETHERNET, _SERVER_ETHERNET = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")

_tcp_header = struct.Struct(">IIHHHH").pack
_ipv6_header = struct.Struct(">IHBB").pack
_ipv4_header = struct.Struct(">BBHHHBBH").pack
# Version and header length, class of service; total length; identification, flags, hops, protocol; checksum.
_IPV4_START, _IPV4_REST = (0x45, 0), (0, _DONT_FRAGMENT, _HOP_LIMIT, _TCP)
_LONGEST_HEADER = 60
_LARGEST = 0xFFFF


class FrameMaker:
    """The frames that one side of one TCP connection sends.

    What does not change is made once, and what changes with the payload's length once per run of equal
    lengths: a bulk transfer packs sixteen bytes of header per segment.
    """

    __slots__ = (
        "_front",
        "_front_sum",
        "_ip_sum",
        "_is_v4",
        "_length",
        "_link",
        "_network",
        "_ports",
        "_pseudo_sum",
        "_window",
    )

    def __init__(
        self,
        source: bytes,
        destination: bytes,
        source_port: int,
        destination_port: int,
        *,
        window: int = 65_535,
        is_server: bool = False,
    ) -> None:
        """
        Args:
            source: Packed address, 4 or 16 bytes; decides between IPv4 and IPv6.
            destination: As `source`, of the same length.
            source_port: 0 to 65,535.
            destination_port: 0 to 65,535.
            window: The header's window field, not scaled.
            is_server: Swaps the two made-up Ethernet addresses, so that both sides of a connection look right.

        Raises:
            ValueError: Addresses of different or impossible lengths.
        """
        if len(source) != len(destination) or len(source) not in {4, 16}:
            raise ValueError(f"not two addresses of one kind: {len(source)} and {len(destination)} bytes")
        self._window = window
        self._is_v4 = len(source) == 4
        ends = (_CLIENT_ETHERNET, _SERVER_ETHERNET) if is_server else (_SERVER_ETHERNET, _CLIENT_ETHERNET)
        self._link = b"".join((*ends, b"\x08\x00" if self._is_v4 else b"\x86\xdd"))
        self._network = source + destination
        self._ports = struct.pack(">HH", source_port, destination_port)
        network_sum = word_sum(self._network)
        self._pseudo_sum = network_sum + word_sum(self._ports) + _TCP
        self._ip_sum = network_sum + word_sum(_ipv4_header(*_IPV4_START, 0, *_IPV4_REST, 0))
        self._length = -1
        self._front = b""
        self._front_sum = 0

    def frame(
        self,
        sequence: int,
        acknowledgement: int,
        flags: int,
        payload: bytes | memoryview = b"",
        options: bytes = b"",
        urgent: int = 0,
    ) -> bytes:
        """One frame.

        Args:
            sequence: 0 to 2**32 - 1, as is `acknowledgement`.
            flags: The eight flag bits of the TCP header.
            payload: The segment's bytes.
            options: TCP options, padded to a multiple of four bytes.
            urgent: The urgent pointer, counted from `sequence`.

        Raises:
            ValueError: `options` are not a multiple of 4 bytes up to 40, or the packet exceeds what IP can say.
        """
        length = 20 + len(options) + len(payload)
        if length != self._length:
            self._set_length(length)
        flags |= 0x5000
        total = self._front_sum + sequence + acknowledgement + urgent + word_sum(payload)
        if options:
            flags += self._option_words(options) << 12
            total += word_sum(options)
        # Never 0 before the complement (the protocol number is part of it), so modulo 65,535 is exact.
        checksum = -(total + flags) % 65_535
        header = _tcp_header(sequence, acknowledgement, flags, self._window, checksum, urgent)
        return b"".join((self._front, header, options, payload))

    @staticmethod
    def _option_words(options: bytes) -> int:
        if len(options) % 4 or len(options) > _LONGEST_HEADER - 20:
            raise ValueError(f"TCP options come in fours up to 40 bytes, not {len(options)}")
        return len(options) // 4

    def _set_length(self, length: int) -> None:
        """Make everything up to the ports for a TCP header and payload of `length` bytes."""
        if length + (20 if self._is_v4 else 0) > _LARGEST:
            raise ValueError(f"one IP packet cannot hold a TCP segment of {length:,} bytes")
        self._front = b"".join((self._link, self._ip_header(length), self._network, self._ports))
        self._front_sum = self._pseudo_sum + length + self._window
        self._length = length

    def _ip_header(self, length: int) -> bytes:
        if not self._is_v4:
            return _ipv6_header(6 << 28, length, _TCP, _HOP_LIMIT)
        length += 20
        return _ipv4_header(*_IPV4_START, length, *_IPV4_REST, -(self._ip_sum + length) % 65_535)


def tcp_frame(
    source: bytes,
    destination: bytes,
    source_port: int,
    destination_port: int,
    sequence: int,
    acknowledgement: int,
    flags: int,
    payload: bytes | memoryview = b"",
    *,
    window: int = 65_535,
    options: bytes = b"",
    urgent: int = 0,
) -> bytes:
    """One Ethernet frame by itself; the arguments and errors are those of `FrameMaker` and its `frame`."""
    maker = FrameMaker(source, destination, source_port, destination_port, window=window)
    return maker.frame(sequence, acknowledgement, flags, payload, options, urgent)


def handshake_options(segment_size: int, window_shift: int) -> bytes:
    """The options of a SYN: maximum segment size in bytes (RFC 9293) and window scale (RFC 7323), 8 bytes."""
    return struct.pack(">BBHBBBB", 2, 4, segment_size, 1, 3, 3, window_shift)
