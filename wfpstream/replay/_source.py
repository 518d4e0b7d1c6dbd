"""The bytes of a capture file: opened, unzipped, handed out in chunks, faults remembered instead of raised.

Owns the opening of a path, of standard input and of a file somebody else opened, and the gzip stream around
them. Knows nothing of packets. Memory: one chunk, one chunk's unzipping, and what a reader asks to see at once
with `need`, which the reader bounds.
"""

from __future__ import annotations

import os
import stat
import sys
import zlib
from collections.abc import Callable
from io import FileIO, RawIOBase
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from zlib import _Decompress

CHUNK = 1 << 18
GZIP_CHUNK = 1 << 16
GZIP_MAGIC = b"\x1f\x8b"
# A gzip header, and a trailer with CRC-32 and length that zlib checks itself (zlib.h, inflateInit2).
GZIP_WINDOW = 31

CaptureFileName = str | os.PathLike[str] | IO[bytes]


class CaptureError(ValueError):
    """Nothing can be read of a capture; the message is one line that names the file."""


class Source:
    """The unzipped bytes of one file, in order, a chunk at a time.

    `buffer[offset:]` is what has been read and not been used; a reader moves `offset` itself. `fault` says, in a
    few words, why the bytes ended early (a read that failed, a gzip stream cut or damaged); None: the file ended.
    `position` counts the bytes taken from the file, zipped if it is, and `size` is the file's size if it has one.
    """

    __slots__ = ("_file", "_next_chunk", "_owned", "buffer", "fault", "name", "offset", "position", "size")

    def __init__(self, file: IO[bytes] | RawIOBase, name: str, *, owned: bool) -> None:
        """Take `file`, open for reading bytes; it is closed by `close` if `owned`.

        Raises: nothing. A file that cannot be read ends at once, with a `fault`.
        """
        self._file = file
        self._owned = owned
        self.name = name
        self.size = _size_of(file)
        self.position = 0
        self.fault: str | None = None
        self.buffer = b""
        self.offset = 0
        self._next_chunk: Callable[[], bytes] = self._read_file
        if self.need(len(GZIP_MAGIC)) and self.buffer.startswith(GZIP_MAGIC):
            zipped, self.buffer = self.buffer, b""
            self._next_chunk = _Unzip(self, zipped).read

    def need(self, count: int) -> bool:
        """Have `count` bytes from `offset` on in the buffer; False if the file ends before. Moves `offset` to 0."""
        have = len(self.buffer) - self.offset
        if have >= count:
            return True
        parts = [self.buffer[self.offset :]]
        while have < count:
            chunk = self._next_chunk()
            if not chunk:
                break
            parts.append(chunk)
            have += len(chunk)
        self.buffer = b"".join(parts)
        self.offset = 0
        return have >= count

    def skip(self, count: int) -> bool:
        """Pass over `count` bytes without keeping them; False if the file ends before."""
        have = len(self.buffer) - self.offset
        while have < count:
            count -= have
            self.buffer, self.offset = self._next_chunk(), 0
            have = len(self.buffer)
            if not have:
                return False
        self.offset += count
        return True

    def left(self) -> int:
        """How many bytes are in the buffer; after a `need` that failed: how many the file still had."""
        return len(self.buffer) - self.offset

    def close(self) -> None:
        """Close the file if we opened it, and let go of the bytes. Twice is fine."""
        self.buffer = b""
        self.offset = 0
        self._next_chunk = bytes
        if self._owned:
            self._file.close()

    def read_file(self, count: int) -> bytes:
        """At most `count` bytes of the file as it lies on the disk; none at its end or at a fault."""
        # `read1` gives what a pipe holds now, so a live capture is replayed as it comes.
        read = getattr(self._file, "read1", self._file.read)
        try:
            chunk = read(count)
        except OSError as error:
            self.fault = f"reading failed: {error.strerror or error}"
            return b""
        except Exception as error:  # somebody else's file object: whatever it raises is this capture's fault
            self.fault = f"reading failed: {type(error).__name__}: {first_line(error)}"
            return b""
        if not isinstance(chunk, bytes):
            self.fault = "reading gives no bytes (a file not open in binary mode, or one that does not wait?)"
            return b""
        self.position += len(chunk)
        return chunk

    def _read_file(self) -> bytes:
        return self.read_file(CHUNK)


class _Unzip:
    """A gzip stream (RFC 1952) of one or more members, read as it comes.

    Python's own `gzip` loses what it had unzipped when it meets a cut or a wrong check sum, so the packets before
    the fault would be lost with it.
    """

    __slots__ = ("_member", "_source", "_zipped")

    def __init__(self, source: Source, zipped: bytes) -> None:
        self._source = source
        self._zipped = zipped
        self._member: _Decompress | None = zlib.decompressobj(GZIP_WINDOW)

    def read(self) -> bytes:
        """The next unzipped bytes, at most a chunk; none at the end or at a fault."""
        while self._source.fault is None:
            if not self._zipped:
                self._zipped = self._source.read_file(GZIP_CHUNK)
            if not self._zipped:
                if self._member is not None and self._source.fault is None:
                    self._source.fault = "the gzip stream is cut"
                break
            data = self._begin_member() if self._member is None else self._unzip(self._member)
            if data:
                return data
        return b""

    def _begin_member(self) -> bytes:
        """After a member: zeros are padding, another member goes on, anything else is a fault."""
        self._zipped = self._zipped.lstrip(b"\0")
        if len(self._zipped) == 1:
            self._zipped += self._source.read_file(GZIP_CHUNK)
        if self._zipped.startswith(GZIP_MAGIC):
            self._member = zlib.decompressobj(GZIP_WINDOW)
        elif self._zipped:
            self._source.fault = "the gzip stream is followed by something else"
        return b""

    def _unzip(self, member: _Decompress) -> bytes:
        piece = self._zipped[:GZIP_CHUNK]
        before = member.copy()
        try:
            data = member.decompress(piece, CHUNK)
        except zlib.error as error:
            self._source.fault = f"the gzip stream is damaged ({first_line(error)})"
            return _unzip_up_to_fault(before, piece)
        if member.eof:
            rest, self._member = member.unused_data, None
        else:
            rest = member.unconsumed_tail
        self._zipped = rest + self._zipped[GZIP_CHUNK:]
        return data


def _unzip_up_to_fault(member: _Decompress, piece: bytes) -> bytes:
    """What can be unzipped of a piece that holds a fault: zlib throws all of a call's bytes away with it."""
    good = []
    try:
        for at in range(len(piece)):
            good.append(member.decompress(piece[at : at + 1]))
    except zlib.error:
        pass
    return b"".join(good)


def open_source(capture: CaptureFileName) -> Source:
    """Open a path, "-" (standard input) or take a file that is open.

    Raises: CaptureError, one line: missing, unreadable, a directory, not a name a file can have.
    """
    if not isinstance(capture, str | os.PathLike):
        return Source(capture, printable(str(getattr(capture, "name", "capture"))), owned=False)
    if capture == "-":
        standard_input = getattr(sys.stdin, "buffer", None)
        if standard_input is None:
            raise CaptureError("standard input: closed, or replaced by something without bytes")
        return Source(standard_input, "standard input", owned=False)
    name = printable(os.fspath(capture))
    try:
        return Source(FileIO(os.fspath(capture)), name, owned=True)
    except OSError as error:
        raise CaptureError(f"{name}: {error.strerror or error}") from None
    except ValueError as error:  # a zero byte in the name
        raise CaptureError(f"{name}: {first_line(error)}") from None


def printable(name: str) -> str:
    """A file's name on one line, whatever is in it."""
    return name if name.isprintable() else repr(name)


def first_line(error: BaseException) -> str:
    """An exception's text, cut to one line that is not too long."""
    text = str(error).strip().partition("\n")[0]
    return printable(text[:200]) if text else type(error).__name__


def _size_of(file: IO[bytes] | RawIOBase) -> int | None:
    """The size of a plain file; None for a pipe, a terminal or something that only behaves like a file."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError, AttributeError):  # io.UnsupportedOperation is both of the first two
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
