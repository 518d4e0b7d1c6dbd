"""The packets of a capture file: pcap or pcapng, of either byte order, plain or gzip, as (time, link type, bytes).

Owns the opening of a capture, the record loop of classic pcap, and what is said when a file is damaged. Knows
nothing of what is in a packet. A capture is a stream: memory does not grow with the file, and nothing is ever
read twice, so standard input does as well as a file.

scapy's raw readers recognise the file (its format, byte order, resolution and link type). The loop over the
records is ours, over chunks of the same bytes: scapy takes a read call or two and a named tuple for each record.
Measured in one run (`python -m benchmarks.reader`, CPU time, a busy machine): 1,000,000 records a second against
325,000 for pcap with 64 bytes of payload, 545,000 against 230,000 with full segments; for pcapng 575,000 against
155,000 and 370,000 against 125,000. scapy's loops also hide what these report: a file that is cut, a length that
lies (its pcapng reader allocates by it); and they leave out time offsets, later sections' interfaces, and simple
packets' times. Loading scapy's readers costs a process 0.2 to 0.4 s of CPU time, once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from struct import Struct
from types import TracebackType
from typing import TYPE_CHECKING

from ._pcapng import MAX_BLOCK, MAX_PACKET, BlockReader, Cut, Fault, Record
from ._scapy import QuietScapy
from ._source import CaptureError, CaptureFileName, Source, first_line, open_source

if TYPE_CHECKING:
    from scapy.utils import RawPcapReader

__all__ = ["CaptureError", "CaptureReader", "open_capture"]

PCAP_HEADER = 24
RECORD_HEADER = 16
# The field's upper half holds the length of the frame check sequence and reserved bits (draft-ietf-opsawg-pcap).
LINK_TYPE_BITS = 0xFFFF


class CaptureReader:
    """The packets of one capture, once, in the order of the file.

    Iterating yields `(time_ns, link_type, frame)`: nanoseconds since 1970, the LINKTYPE_* number of the packet's
    interface, the captured bytes. It never raises; after it, `problem` says in one line, with the file's name and
    the packet's number (from 1, as Wireshark counts), why it ended early or what was skipped, or is None. The
    whole packets before a fault are yielded. At the end, or when the iteration is dropped, the file is closed.
    """

    def __init__(self, source: Source) -> None:
        """Recognise the capture in `source`.

        Raises: CaptureError, one line that names the file.
        """
        self._source = source
        self.packets = 0
        self.problem: str | None = None
        self._skipped = 0
        self._first_skip = ""
        self._iterator = self._until_fault(_records_of(source, self))

    @property
    def name(self) -> str:
        """The capture's name as messages show it."""
        return self._source.name

    @property
    def position(self) -> int:
        """Bytes of the file taken so far (zipped ones of a zipped file): up to a chunk ahead of the packets."""
        return self._source.position

    @property
    def size(self) -> int | None:
        """Bytes of the file, None where that is not known (a pipe)."""
        return self._source.size

    def __iter__(self) -> Iterator[Record]:
        return self._iterator

    def __enter__(self) -> CaptureReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, if we opened it. Twice is fine; the iteration then ends."""
        self._iterator.close()
        self._source.close()

    def skip(self, text: str) -> None:
        """Note a packet that is in the file and cannot be used, and why."""
        if not self._skipped:
            self._first_skip = f"packet {self.packets + 1}: {text}"
        self._skipped += 1

    def _until_fault(self, records: Iterator[Record]) -> Generator[Record, None, None]:
        source = self._source
        fault = None
        try:
            yield from records
            if source.fault is not None:
                fault = source.fault
        except Cut as error:
            fault = source.fault or str(error)
        except Fault as error:
            fault = str(error)
        finally:
            source.close()
        self.problem = self._describe(fault)

    def _describe(self, fault: str | None) -> str | None:
        """The one line for people, or None if there is nothing to say."""
        name, skipped = self.name, self._skipped
        if fault is not None:
            more = f" ({skipped} packets before it skipped)" if skipped else ""
            return f"{name}: packet {self.packets + skipped + 1}: {fault}{more}"
        if skipped:
            more = f" (and {skipped - 1} more)" if skipped > 1 else ""
            return f"{name}: {self._first_skip}; skipped{more}"
        return None


def open_capture(capture: CaptureFileName) -> CaptureReader:
    """Open a capture by path, from standard input ("-") or from a file open for reading bytes.

    The reader closes a file it opened itself, never one it was given.

    Raises: CaptureError (one line that names the file) if nothing of it can be read: it is missing, unreadable,
    a directory or empty, its header is cut or that of something else.
    """
    source = open_source(capture)
    try:
        return CaptureReader(source)
    except BaseException:
        source.close()
        raise


def _records_of(source: Source, reader: CaptureReader) -> Iterator[Record]:
    from scapy.utils import RawPcapNgReader

    recognised = _recognise(source)
    if isinstance(recognised, RawPcapNgReader):
        return iter(BlockReader(source, reader))
    source.offset += PCAP_HEADER
    scale = 1 if recognised.nano else 1000
    return _pcap_records(source, reader, recognised.endian, scale, recognised.linktype & LINK_TYPE_BITS)


def _pcap_records(
    source: Source, reader: CaptureReader, order: str, scale: int, link_type: int
) -> Iterator[Record]:
    """The records of a classic pcap file; `scale` is nanoseconds per unit of the time's lower half.

    Raises: Fault where the file cannot be read on.
    """
    header = Struct(order + "IIII")
    unpack = header.unpack_from
    packets = reader.packets
    needed = RECORD_HEADER
    while source.need(needed):
        buffer, offset = source.buffer, source.offset
        end = len(buffer)
        last = end - RECORD_HEADER
        needed = RECORD_HEADER
        while offset <= last:
            seconds, fraction, captured, _ = unpack(buffer, offset)
            start = offset + 16
            stop = start + captured
            if stop > end:
                if captured > MAX_PACKET:
                    raise Fault(f"its header claims {captured} bytes, more than {MAX_PACKET}")
                needed = RECORD_HEADER + captured
                break
            offset = source.offset = stop
            reader.packets = packets = packets + 1
            yield (seconds * 1_000_000_000 + fraction * scale, link_type, buffer[start:stop])
    left = source.left()
    if left:
        raise Cut(f"the file ends inside it ({left} of {needed} bytes)")


class _Head:
    """The start of a source as a file, for scapy: nothing is used up, lies are not allocated, faults are kept."""

    name = "capture"

    def __init__(self, source: Source) -> None:
        self._source = source
        self._at = 0
        self.fault: str | None = None

    def read(self, count: int) -> bytes:
        """The next `count` bytes, or fewer and a `fault`."""
        stop = self._at + count
        if not 0 <= count <= MAX_BLOCK:
            self.fault = f"its header claims {count} bytes"
            return b""
        if not self._source.need(stop):
            self.fault = self._source.fault or f"it ends inside the file header ({self._source.left()} bytes)"
        data = self._source.buffer[self._at : stop]
        self._at += len(data)
        return data


def _recognise(source: Source) -> RawPcapReader:
    """What scapy makes of the start of the file. The source stays where it is.

    Raises: CaptureError.
    """
    from scapy.utils import RawPcapNgReader

    if not source.need(1):
        raise CaptureError(f"{source.name}: {source.fault or 'is empty'}")
    head = _Head(source)
    try:
        with QuietScapy():
            return RawPcapNgReader(head)  # type: ignore[arg-type] # any file will do
    except Exception as error:  # whatever scapy raises means the same to us
        why = head.fault or f"is no pcap or pcapng capture ({first_line(error)})"
        raise CaptureError(f"{source.name}: {why}") from None
