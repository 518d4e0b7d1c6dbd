"""A numbered stream, sent and checked as fast as a socket takes it: every byte says where it belongs.

Byte n of a stream is one hexadecimal digit of the number of its 8-byte word, as 0..15, so that the upper four bits
of each byte are free: who changes the stream on its way may leave a mark there, and the receiver finds every byte,
its place, and which mark it met. The two directions of a connection are told apart by complementing the digits.

`python -m tests.support.numbered serve|connect ...` is one end of a connection, in a process of its own; it prints
one JSON line (`Received`).
"""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

WORD = 8
WORDS = 1 << 16
BLOCK = WORD * WORDS
PIECE = 1 << 18

_LOW = bytes(value & 0x0F for value in range(256))
_HIGH = bytes(value >> 4 for value in range(256))
_UNIFORM = [bytes([mark]) * PIECE for mark in range(16)]


class Pattern:
    """The bytes of one direction, a block at a time."""

    def __init__(self, flip: bool) -> None:
        self._mask = 15 if flip else 0
        self._bytes = bytearray(BLOCK)
        for at, shift in enumerate((12, 8, 4, 0), start=4):
            digits = bytes((word >> shift & 15) ^ self._mask for word in range(WORDS))
            self._bytes[at::WORD] = digits
        self._digits: list[int] = [-1] * 4

    def block(self, number: int) -> bytearray:
        """Block `number`, in a buffer that the next call changes."""
        for at, shift in enumerate((12, 8, 4, 0)):
            digit = (number >> shift & 15) ^ self._mask
            if digit != self._digits[at]:
                self._bytes[at::WORD] = bytes([digit]) * WORDS
                self._digits[at] = digit
        return self._bytes


@dataclass
class Received:
    """What one end found.

    Attributes:
        size: bytes received, all of them right.
        wrong: what was the matter with the byte behind those; empty if nothing was.
        sent: SHA-256 of what this end sent.
        received: SHA-256 of what it received, marks taken off.
        runs: (mark, length) of each stretch of bytes with the same mark.
    """

    size: int = 0
    wrong: str = ""
    sent: str = ""
    received: str = ""
    runs: list[tuple[int, int]] = field(default_factory=list)


class Checker:
    """Takes a stream in pieces and compares it with what it must be."""

    def __init__(self, flip: bool) -> None:
        self.found = Received()
        self._pattern = Pattern(flip)
        self._number = -1
        self._expected = memoryview(b"")
        self._digest = hashlib.sha256()

    def take(self, data: memoryview) -> None:
        """The next bytes of the stream; nothing more is looked at once a byte was wrong."""
        while data and not self.found.wrong:
            number, at = divmod(self.found.size, BLOCK)
            if number != self._number:
                self._expected = memoryview(self._pattern.block(number))
                self._number = number
            piece = bytes(data[: min(BLOCK - at, PIECE)])
            self._compare(piece.translate(_LOW), at)
            if not self.found.wrong:
                self._note(piece.translate(_HIGH))
            data = data[len(piece) :]
        self.found.received = self._digest.hexdigest()

    def _compare(self, digits: bytes, at: int) -> None:
        expected = self._expected[at : at + len(digits)]
        if digits == expected:
            self._digest.update(digits)
            self.found.size += len(digits)
            return
        wrong = next(place for place, digit in enumerate(digits) if digit != expected[place])
        there = digits[wrong : wrong + 2 * WORD].hex()
        self.found.size += wrong
        self.found.wrong = (
            f"at byte {self.found.size}: {there}, not {expected[wrong : wrong + 2 * WORD].hex()}"
        )

    def _note(self, marks: bytes) -> None:
        while marks:
            mark = marks[0]
            if marks == _UNIFORM[mark][: len(marks)]:
                length = len(marks)
            else:
                length = len(marks) - len(marks.lstrip(marks[:1]))
            if self.found.runs and self.found.runs[-1][0] == mark:
                length_before = self.found.runs.pop()[1]
                self.found.runs.append((mark, length_before + length))
            else:
                self.found.runs.append((mark, length))
            marks = marks[length:]


def exchange(connection: socket.socket, size: int, serves: bool, until: threading.Event) -> Received:
    """Send `size` bytes and a FIN, and at the same time receive up to the FIN and check.

    If that is not yet, it goes on with blocks of the stream until `until` is set.
    """
    digest = hashlib.sha256()

    def send() -> None:
        pattern = Pattern(flip=serves)
        start = 0
        try:
            while start < size or not until.is_set():
                number, at = divmod(start, BLOCK)
                most = size - start if start < size else BLOCK
                part = memoryview(pattern.block(number))[at : at + most]
                digest.update(part)
                connection.sendall(part)
                start += len(part)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the receiving side says what happened

    checker = Checker(flip=not serves)
    sender = threading.Thread(target=send)
    sender.start()
    buffer = memoryview(bytearray(PIECE))
    try:
        while count := connection.recv_into(buffer):
            checker.take(buffer[:count])
    except OSError as error:
        checker.found.wrong = checker.found.wrong or f"at byte {checker.found.size}: {error}"
    sender.join()
    checker.found.sent = digest.hexdigest()
    return checker.found


def wait_for_end(until: threading.Event) -> None:
    """Whoever runs this process has closed its stdin: it has sent enough."""
    sys.stdin.buffer.read()
    until.set()


@contextmanager
def end(*words: object, open_ended: bool = False) -> Iterator[subprocess.Popen[str]]:
    """One end of the connection, in a process of its own; `open_ended`: it sends on until its stdin is closed."""
    command = [sys.executable, "-m", "tests.support.numbered", *map(str, words)]
    stdin = subprocess.PIPE if open_ended else subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def main(role: str, size: int, port: int = 0) -> None:
    """One end: `serve SIZE` prints its port first, `connect SIZE PORT`. Both send on until stdin has ended."""
    until = threading.Event()
    threading.Thread(target=wait_for_end, args=[until], daemon=True).start()
    if role == "serve":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            print(listener.getsockname()[1], flush=True)
            connection = listener.accept()[0]
    else:
        connection = socket.create_connection(("127.0.0.1", port))
    with connection:
        found = exchange(connection, size, serves=role == "serve", until=until)
    print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *(int(value) for value in sys.argv[2:]))
