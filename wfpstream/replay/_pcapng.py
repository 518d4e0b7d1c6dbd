"""The blocks of a pcapng file, as packets (draft-ietf-opsawg-pcapng).

Owns sections and their byte order, interfaces and their clocks, the three kinds of packet block. A block that
is whole but says something impossible is skipped and noted; a block whose own length cannot be trusted ends the
reading, since nothing after it can be found.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct, unpack_from
from typing import Final, Protocol

from ._source import Source

# What a packet may be at most. An IP packet has 64 KiB, the usual longest snaplen is 256 KiB; the room above is
# for jumbograms and offloads yet to come. A length beyond it is a fault of the file, and none of it is allocated.
MAX_PACKET: Final = 16 << 20
# A packet block's options (comments, hashes) come on top; Wireshark's writers stay far below this.
MAX_BLOCK: Final = MAX_PACKET + (1 << 20)

SECTION_HEADER: Final = 0x0A0D0D0A
INTERFACE: Final = 1
OBSOLETE_PACKET: Final = 2
SIMPLE_PACKET: Final = 3
ENHANCED_PACKET: Final = 6
BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
OPTION_END, OPTION_TSRESOL, OPTION_TSOFFSET = 0, 9, 14
# Type and length, then as much of the body as is needed to decode it; the shortest whole block of each kind.
SHORTEST: Final = {
    SECTION_HEADER: 28,
    INTERFACE: 20,
    OBSOLETE_PACKET: 32,
    SIMPLE_PACKET: 16,
    ENHANCED_PACKET: 32,
}
NANOSECONDS: Final = 10**9

Record = tuple[int, int, bytes]


class Fault(Exception):
    """Why a capture cannot be read on, in a few words without the file's name."""


class Cut(Fault):
    """The bytes ran out inside something. The source may know a better reason than that the file ends."""


class Progress(Protocol):
    """What the loop over records keeps up to date for whoever watches."""

    packets: int

    def skip(self, text: str) -> None:
        """Note one packet that is not yielded."""


class Interface:
    """One interface description: its link type, its snaplen and how its ticks become nanoseconds."""

    __slots__ = ("link_type", "offset", "scale", "snaplen", "units")

    def __init__(self, link_type: int, snaplen: int, units: int, offset: int) -> None:
        self.link_type = link_type
        self.snaplen = snaplen
        self.units = units
        # Nanoseconds per tick, 0 where that is no whole number.
        self.scale = NANOSECONDS // units if NANOSECONDS % units == 0 else 0
        self.offset = offset

    def time(self, high: int, low: int) -> int:
        """Nanoseconds since 1970 of a 64-bit count of ticks; rounded down."""
        ticks = high << 32 | low
        if self.scale:
            return ticks * self.scale + self.offset
        return ticks * NANOSECONDS // self.units + self.offset


class BlockReader:
    """The packets of a pcapng file. Iterating raises Fault where the file cannot be read on."""

    def __init__(self, source: Source, progress: Progress) -> None:
        self._source = source
        self._progress = progress
        self._interfaces: list[Interface] = []
        self._last_time = 0
        self._use_order("<")

    def _use_order(self, order: str) -> None:
        self._order = order
        self._head = Struct(order + "II")
        self._packet_head = Struct(order + "7I")
        self._trailer = Struct(order + "I")

    def __iter__(self) -> Iterator[Record]:
        """The records; each block that is not a plain enhanced packet goes the careful way."""
        while True:
            yield from self._enhanced_packets()
            if not self._source.need(self._head.size):
                if self._source.left():
                    raise Cut("the file ends inside a block's header")
                return
            record = self._any_block()
            if record is not None:
                self._last_time = record[0]
                self._progress.packets += 1
                yield record

    def _enhanced_packets(self) -> Iterator[Record]:
        """The run of sound enhanced packet blocks that lies in the buffer: the path nearly all packets take."""
        source, progress = self._source, self._progress
        interfaces = [(one.link_type, one.scale, one.offset) for one in self._interfaces if one.scale]
        # One interface with an odd clock sends everything the careful way.
        known = len(interfaces) if len(interfaces) == len(self._interfaces) else 0
        unpack, trailer = self._packet_head.unpack_from, self._trailer.unpack_from
        buffer, offset, packets = source.buffer, source.offset, progress.packets
        end, time = len(buffer), self._last_time
        while offset + 32 <= end:
            kind, length, interface, high, low, captured, _ = unpack(buffer, offset)
            stop = offset + length
            if kind != 6 or interface >= known or captured + 32 > length or stop > end:
                break
            if length & 3 or trailer(buffer, stop - 4)[0] != length:
                break
            link_type, scale, base = interfaces[interface]
            time = (high << 32 | low) * scale + base
            start = offset + 28
            source.offset = offset = stop
            progress.packets = packets = packets + 1
            yield (time, link_type, buffer[start : start + captured])
        self._last_time = time

    def _any_block(self) -> Record | None:
        """Read one block of any kind; a record if it is a packet that can be used.

        Raises: Fault.
        """
        source = self._source
        kind, length = self._head.unpack_from(source.buffer, source.offset)
        if kind == SECTION_HEADER:
            length = self._begin_section()
        if length < SHORTEST.get(kind, 12) or length % 4:
            raise Fault(f"a block of type {kind:#x} has the impossible length {length}")
        if kind not in SHORTEST:
            self._skip_block(length)
            return None
        if length > MAX_BLOCK:
            raise Fault(f"a block of type {kind:#x} claims {length} bytes, more than {MAX_BLOCK}")
        if not source.need(length):
            raise Cut(f"the file ends inside a block ({source.left()} of {length} bytes)")
        start = source.offset
        if self._trailer.unpack_from(source.buffer, start + length - 4)[0] != length:
            raise Fault(f"a block of type {kind:#x} does not end with its length")
        source.offset += length
        if kind == SECTION_HEADER:
            return None
        if kind == INTERFACE:
            self._add_interface(source.buffer[start + 8 : start + length - 4])
            return None
        if kind == SIMPLE_PACKET:
            return self._simple_packet(source.buffer, start, length)
        return self._packet(kind, source.buffer, start, length)

    def _begin_section(self) -> int:
        """Take up the byte order of the section header block that lies ahead; its length."""
        source = self._source
        if not source.need(16):
            raise Cut("the file ends inside a section header")
        for order in "<>":
            length, magic, major = unpack_from(order + "IIH", source.buffer, source.offset + 4)
            if magic == BYTE_ORDER_MAGIC:
                break
        else:
            raise Fault("a section header has no byte order")
        if major != 1:
            raise Fault(f"a section of pcapng version {major}, which is not known")
        self._use_order(order)
        self._interfaces = []
        return int(length)

    def _skip_block(self, length: int) -> None:
        """Pass over a block of another kind (statistics, names, secrets, somebody's own), however long."""
        source = self._source
        if not source.skip(length - 4) or not source.need(4):
            raise Cut(f"the file ends inside a block of {length} bytes")
        if self._trailer.unpack_from(source.buffer, source.offset)[0] != length:
            raise Fault("a block does not end with its length")
        source.offset += 4

    def _add_interface(self, body: bytes) -> None:
        link_type, _, snaplen = unpack_from(self._order + "HHI", body)
        units, seconds = 10**6, 0
        at = 8
        while at + 4 <= len(body):
            code, size = unpack_from(self._order + "HH", body, at)
            value = body[at + 4 : at + 4 + size]
            if code == OPTION_END or len(value) < size:
                break
            if code == OPTION_TSRESOL and size == 1:
                units = (2 if value[0] & 0x80 else 10) ** (value[0] & 0x7F)
            elif code == OPTION_TSOFFSET and size == 8:
                seconds = int(unpack_from(self._order + "q", value)[0])
            at += 4 + size + -size % 4
        self._interfaces.append(Interface(link_type, snaplen, units, seconds * NANOSECONDS))

    def _packet(self, kind: int, buffer: bytes, start: int, length: int) -> Record | None:
        """An enhanced packet block, or the obsolete one, which has a drop count in half the interface's place."""
        interface, high, low, captured = self._packet_head.unpack_from(buffer, start)[2:6]
        if kind == OBSOLETE_PACKET:
            interface = unpack_from(self._order + "H", buffer, start + 8)[0]
        if interface >= len(self._interfaces):
            self._progress.skip(f"names interface {interface}, which the file does not describe")
            return None
        if captured + 32 > length:
            self._progress.skip(f"claims {captured} bytes in a block of {length}")
            return None
        described = self._interfaces[interface]
        data = buffer[start + 28 : start + 28 + captured]
        return (described.time(high, low), described.link_type, data)

    def _simple_packet(self, buffer: bytes, start: int, length: int) -> Record | None:
        """A simple packet block: the first interface, no time; the packet before gives it one."""
        if not self._interfaces:
            self._progress.skip("comes before any interface is described")
            return None
        described = self._interfaces[0]
        original = self._head.unpack_from(buffer, start + 4)[1]
        captured = min(original, described.snaplen or original)
        if captured + 16 > length:
            self._progress.skip(f"claims {captured} bytes in a block of {length}")
            return None
        return (self._last_time, described.link_type, buffer[start + 12 : start + 12 + captured])
