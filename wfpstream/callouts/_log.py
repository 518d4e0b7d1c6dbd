"""Where a callout's log lines go, and bytes made safe for a terminal.

Owns the file (opened when first written to, 0600) and the escaping. It must not know what is logged.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

_ROW = 16


class LogTarget:
    """Lines to stderr (`-`) or appended to a file.

    Args:
        to: `-` or the path.
    """

    __slots__ = ("_file", "_path")

    def __init__(self, to: str = "-") -> None:
        self._path = to
        self._file: TextIO | None = None

    def write(self, line: str) -> None:
        """Write one line, at once and in one piece: whoever follows the file, or writes there too, sees it."""
        target = self._target()
        target.write(f"{line}\n")
        target.flush()

    def close(self) -> None:
        """Close the file; writing opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _target(self) -> TextIO:
        if self._path == "-":
            return sys.stderr
        if self._file is None:
            # It may hold payload: nobody else's to read.
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(descriptor, "a", encoding="ascii")
        return self._file


def escaped(data: bytes) -> str:
    r"""ASCII text; everything else as `\n`, `\r`, `\t`, `\\` or `\xHH`: no byte reaches the terminal raw."""
    return "".join(map(_ESCAPED.__getitem__, data))


def hex_rows(data: bytes, offset: int) -> list[str]:
    """Sixteen bytes a row: offset in the stream, hex, and what is printable."""
    rows = []
    for start in range(0, len(data), _ROW):
        row = data[start : start + _ROW]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        rows.append(f"{offset + start:08x}  {row.hex(' '):<{3 * _ROW - 1}}  {shown}")
    return rows


def _escape(byte: int) -> str:
    named = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x5C: "\\\\"}
    if byte in named:
        return named[byte]
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


_ESCAPED = [_escape(byte) for byte in range(256)]
