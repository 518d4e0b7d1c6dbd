"""Made-up captures to measure replay with: a bulk transfer in full segments, and an exchange of small messages.

Owns what the packets look like and their timing. It must not know who is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from wfpstream.wire import LINK_ETHERNET, pcap_header, pcap_record, tcp_frame

FULL, SMALL = 1460, 64
_START_NS = 1_700_000_000_000_000_000
_GAP_NS = 12_000  # a full frame on a gigabit line
_WINDOW = 44  # segments per send call: one item of 64 KiB, the last segment with PSH
_FIN, _SYN, _PSH, _ACK = 1, 2, 8, 16


class _Connection:
    """Both ends of a connection, as far as sequence numbers go."""

    def __init__(self, number: int) -> None:
        self.ends = (
            (bytes((10, 0, number >> 8, number & 255)), 40000 + number),
            (bytes((10, 1, 0, 1)), 80),
        )
        self.next = [1000 * number, 5000 * number]

    def segment(self, direction: int, flags: int, payload: bytes = b"") -> bytes:
        """One frame; `direction` 0 is the client's."""
        source, destination = self.ends[direction], self.ends[1 - direction]
        frame = tcp_frame(
            source[0],
            destination[0],
            source[1],
            destination[1],
            self.next[direction] & 0xFFFFFFFF,
            self.next[1 - direction] & 0xFFFFFFFF if flags & _ACK else 0,
            flags,
            payload,
        )
        self.next[direction] += len(payload) + (1 if flags & (_SYN | _FIN) else 0)
        return frame

    def begin(self) -> Iterator[bytes]:
        """The handshake."""
        yield self.segment(0, _SYN)
        yield self.segment(1, _SYN | _ACK)
        yield self.segment(0, _ACK)

    def end(self) -> Iterator[bytes]:
        """Both FINs."""
        yield self.segment(0, _FIN | _ACK)
        yield self.segment(1, _FIN | _ACK)
        yield self.segment(0, _ACK)


def bulk(segments: int, streams: int = 8) -> Iterator[bytes]:
    """`segments` full segments from the servers, an ACK for every second one."""
    connections = [_Connection(number) for number in range(1, streams + 1)]
    payload = bytes(number * 7 & 255 for number in range(FULL))
    for connection in connections:
        yield from connection.begin()
    for number in range(segments):
        connection = connections[number // _WINDOW % streams]
        last = number % _WINDOW == _WINDOW - 1
        yield connection.segment(1, _ACK | _PSH if last else _ACK, payload)
        if number % 2:
            yield connection.segment(0, _ACK)
    for connection in connections:
        yield from connection.end()


def exchange(packets: int, streams: int = 8, acks: bool = True) -> Iterator[bytes]:
    """Small requests and answers, each with PSH, and the client's ACK of the answer; or no ACKs of their own."""
    connections = [_Connection(number) for number in range(1, streams + 1)]
    payload = bytes(number * 5 & 255 for number in range(SMALL))
    for connection in connections:
        yield from connection.begin()
    for number in range(packets // (3 if acks else 2)):
        connection = connections[number % streams]
        yield connection.segment(0, _ACK | _PSH, payload)
        yield connection.segment(1, _ACK | _PSH, payload)
        if acks:
            yield connection.segment(0, _ACK)
    for connection in connections:
        yield from connection.end()


def write(file: BinaryIO, frames: Iterator[bytes]) -> int:
    """Write them as a pcap. Returns the number of packets."""
    file.write(pcap_header(LINK_ETHERNET))
    count = 0
    for count, frame in enumerate(frames, 1):
        file.write(pcap_record(_START_NS + count * _GAP_NS, frame))
    return count
