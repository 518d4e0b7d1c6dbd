"""Capture files made byte by byte from the formats' texts, and where the shared ones lie.

Written apart from the package on purpose: what the reader is compared with must not come from our own writer.
"""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SHARED = ROOT.parent / "shared" / "captures"

SECOND = 10**9
ETHERNET = 1
Record = tuple[int, int, bytes]


def shared_capture(kind: str, name: str) -> Path:
    """The path of a shared capture; the test skips where the folder is missing."""
    path = SHARED / kind / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def shared_captures() -> list[tuple[str, dict[str, Any]]]:
    """Every shared capture's folder and manifest entry; none where the folder is missing."""
    found = []
    for kind in ("real", "crafted"):
        manifest = SHARED / kind / "manifest.json"
        if manifest.exists():
            found += [(kind, one) for one in json.loads(manifest.read_text(encoding="utf-8"))["captures"]]
    return found


def pcap(
    records: list[Record],
    order: str = "<",
    *,
    nano: bool = False,
    link_type: int = ETHERNET,
    snaplen: int = 262144,
) -> bytes:
    """A classic pcap file."""
    magic = 0xA1B23C4D if nano else 0xA1B2C3D4
    return struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link_type) + b"".join(
        pcap_record(time, frame, order, nano=nano) for time, _, frame in records
    )


def pcap_record(time: int, frame: bytes, order: str = "<", *, nano: bool = False) -> bytes:
    """One record of a classic pcap file."""
    fraction = time % SECOND // (1 if nano else 1000)
    return struct.pack(order + "IIII", time // SECOND, fraction, len(frame), len(frame)) + frame


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """A pcapng block; `body` is padded."""
    body += bytes(-len(body) % 4)
    length = len(body) + 12
    return struct.pack(order + "II", kind, length) + body + struct.pack(order + "I", length)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    """A pcapng option."""
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


@dataclass
class PcapNg:
    """A pcapng file as it grows, block by block."""

    order: str = "<"
    data: bytes = b""
    interfaces: list[tuple[int, int]] = field(default_factory=list)

    def section(self, order: str | None = None, major: int = 1, options: bytes = b"") -> PcapNg:
        """A section header block; the interfaces before it are forgotten."""
        self.order = order or self.order
        self.interfaces = []
        return self.block(0x0A0D0D0A, struct.pack(self.order + "IHHq", 0x1A2B3C4D, major, 0, -1) + options)

    def interface(
        self,
        link_type: int = ETHERNET,
        ticks: int | None = None,
        *,
        snaplen: int = 262144,
        options: bytes = b"",
    ) -> PcapNg:
        """An interface description block; `ticks` is the byte of if_tsresol."""
        self.interfaces.append((link_type, 10**6 if ticks is None else units(ticks)))
        if ticks is not None:
            options += option(9, bytes([ticks]), self.order)
        return self.block(1, struct.pack(self.order + "HHI", link_type, 0, snaplen) + options)

    def enhanced(self, ticks: int, frame: bytes, interface: int = 0, options: bytes = b"") -> PcapNg:
        """An enhanced packet block."""
        head = struct.pack(
            self.order + "5I", interface, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame)
        )
        return self.block(6, head + frame + bytes(-len(frame) % 4) + options)

    def obsolete(self, ticks: int, frame: bytes, interface: int = 0, drops: int = 0xFFFF) -> PcapNg:
        """An obsolete packet block."""
        head = struct.pack(
            self.order + "HH4I", interface, drops, ticks >> 32, ticks & 0xFFFFFFFF, len(frame), len(frame)
        )
        return self.block(2, head + frame)

    def simple(self, frame: bytes, original: int | None = None) -> PcapNg:
        """A simple packet block."""
        return self.block(3, struct.pack(self.order + "I", original or len(frame)) + frame)

    def block(self, kind: int, body: bytes) -> PcapNg:
        """Any block."""
        self.data += block(kind, body, self.order)
        return self

    def raw(self, data: bytes) -> PcapNg:
        """Bytes as they are."""
        self.data += data
        return self


def units(ticks: int) -> int:
    """Ticks in a second by if_tsresol's byte."""
    return int((2 if ticks & 0x80 else 10) ** (ticks & 0x7F))


def pcapng(records: list[Record], order: str = "<", *, link_type: int = ETHERNET) -> bytes:
    """A pcapng file with one interface and a clock of nanoseconds."""
    file = PcapNg(order).section().interface(link_type, 9)
    for time, _, frame in records:
        file.enhanced(time, frame)
    return file.data


def zipped(data: bytes) -> bytes:
    """A gzip stream, the same one each time."""
    return gzip.compress(data, mtime=0)
