"""What replay writes: the capture file that the edited streams go to.

Owns its format and its order of time. Knows nothing of the engine, of how streams become frames (`wire`), nor of who
opens the file and puts it in place.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from wfpstream.wire import (
    LINK_ETHERNET,
    pcap_header,
    pcap_record,
    pcapng_header,
    pcapng_record,
)

_SUFFIXES = {".pcap": "pcap", ".cap": "pcap", ".pcapng": "pcapng", ".ntar": "pcapng"}


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that the suffix of `path` stands for: "pcap" (.pcap, .cap) or "pcapng" (.pcapng, .ntar).

    Raises:
        ValueError: Another suffix, or none.
    """
    name = os.fspath(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"{name!r} does not say its format: the suffixes are {', '.join(_SUFFIXES)}")
    return _SUFFIXES[suffix]


class CaptureFile:
    """The output capture, of Ethernet frames, written to an open file.

    The file stays its opener's, who closes it and puts it in place, or throws it away.
    """

    __slots__ = ("_file", "_is_pcapng", "_latest", "_nanoseconds", "packets")

    def __init__(self, file: BinaryIO, capture_format: str, nanoseconds: bool = False) -> None:
        """
        Args:
            file: Buffered (generously: the records are small), open for writing; need not be seekable.
            capture_format: "pcap" or "pcapng", see `format_of`.
            nanoseconds: A pcap with nanoseconds instead of microseconds; pcapng has them always.

        Raises:
            OSError: as the file says; so do all the methods.
            ValueError: Another format.
        """
        if capture_format not in _SUFFIXES.values():
            raise ValueError(f"a capture is pcap or pcapng, not {capture_format!r}")
        self._file = file
        self._is_pcapng = capture_format == "pcapng"
        self._nanoseconds = nanoseconds
        self._latest = 0
        self.packets = 0
        file.write(
            pcapng_header(LINK_ETHERNET) if self._is_pcapng else pcap_header(LINK_ETHERNET, nanoseconds)
        )

    def write(self, time_ns: int, frame: bytes) -> None:
        """Append one frame; its time is raised to that of the frame before it if it is earlier."""
        if time_ns < self._latest:
            time_ns = self._latest
        else:
            self._latest = time_ns
        self.packets += 1
        if self._is_pcapng:
            self._file.write(pcapng_record(time_ns, frame))
        else:
            self._file.write(pcap_record(time_ns, frame, self._nanoseconds))

    def close(self) -> None:
        """Hand what is buffered to the system; the file stays open."""
        self._file.flush()
