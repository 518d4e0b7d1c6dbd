"""One end of a connection through the relay: bytes that say where they belong, and how the connection ended.

Owns what is read off a socket: how much arrived, the first byte that is not the one sent, FIN, reset or silence.
It must not know the relay, the cases or their verdicts.
"""

from __future__ import annotations

import errno
import fcntl
import random
import socket
import struct
import sys
import termios
from typing import Literal

import trio

Ended = Literal["", "fin", "reset"]

CHUNK = 65521
"""Prime, and most that is sent or read at once: a piece lost, doubled or moved shows in the bytes after it."""
_SIOCATMARK = 0x8905
_NO_INT = bytes(4)
_RESET = struct.pack("ii", 1, 0)
_TCP_CLOSE = 7
_POLL = 0.005
_STANDSTILL = 0.1
# The peer is gone already, and took what we wanted to tell it with it.
_GONE = frozenset({errno.ENOTCONN, errno.EPIPE, errno.ECONNRESET})


class Pattern:
    """An endless stream of bytes known at every offset."""

    def __init__(self, seed: str) -> None:
        self._twice = random.Random(seed).randbytes(CHUNK) * 2

    def at(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on, at most `CHUNK`."""
        start = offset % CHUNK
        return self._twice[start : start + count]


class End:
    """The client's or the server's end.

    Args:
        name: "client" or "server".
        sock: connected.
        label: of the connection; both ends know from it what the other sends.
        patience: seconds of silence after which it stops to wait.

    Attributes:
        sent: bytes the kernel took from us.
        received: bytes read.
        wrong_at: offset of the first byte that is not the one sent, or None.
        ended: how what we read ended; empty while it has not.
        cut: whether a send said that the connection is gone.
    """

    def __init__(self, name: str, sock: trio.socket.SocketType, label: bytes, patience: float) -> None:
        self.name = name
        self.sent = 0
        self.received = 0
        self.wrong_at: int | None = None
        self.ended: Ended = ""
        self.cut = False
        self._sock = sock
        self._has_fin = False
        self._patience = patience
        other = "server" if name == "client" else "client"
        self._outgoing = Pattern(f"{label!r} {name}")
        self._incoming = Pattern(f"{label!r} {other}")

    # --- sending --------------------------------------------------------------------------------------

    async def send(self, count: int, step: int = CHUNK) -> bool:
        """Send the next `count` bytes, `step` at once; False when cut off, or nobody took any for too long."""
        goal = self.sent + count
        while self.sent < goal:
            piece = self._outgoing.at(self.sent, min(step, goal - self.sent))
            taken = await self._send_some(piece, self._patience)
            if not taken:
                return False
            self.sent += taken
        return True

    async def flood(self, most: int, silence: float) -> None:
        """Send until nothing was taken for `silence` seconds, at most `most` bytes in all."""
        while self.sent < most:
            taken = await self._send_some(self._outgoing.at(self.sent, CHUNK), silence)
            if not taken:
                return
            self.sent += taken

    async def _send_some(self, piece: bytes, silence: float) -> int:
        with trio.move_on_after(silence):
            try:
                return await self._sock.send(piece)
            except OSError:
                self.cut = True
        return 0

    async def send_raw(self, data: bytes, flags: int = 0) -> None:
        """Send bytes outside the pattern, whole: for a few only."""
        assert await self._sock.send(data, flags) == len(data)

    def unacknowledged(self) -> int:
        """Bytes sent that the relay's kernel has not acknowledged."""
        return int.from_bytes(fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, _NO_INT), sys.byteorder)

    async def accepted(self) -> int:
        """How many of the bytes sent the relay's kernel acknowledged: all, or until it stopped to take any."""
        rest, deadline = self.unacknowledged(), trio.current_time() + _STANDSTILL
        while rest and trio.current_time() < deadline:
            await trio.sleep(_POLL)
            now = self.unacknowledged()
            if now != rest:
                rest, deadline = now, trio.current_time() + _STANDSTILL
        return self.sent - rest

    # --- ending ---------------------------------------------------------------------------------------

    def fin(self) -> None:
        """Send a FIN; reading goes on."""
        self._has_fin = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            if error.errno not in _GONE:
                raise
            self.cut = True

    def reset(self) -> None:
        """Close with a RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._sock.close()

    def close(self) -> None:
        """Close both directions, as programs do; harmless when closed."""
        self._sock.close()

    # --- receiving ------------------------------------------------------------------------------------

    async def receive(self, count: int | None = None, *, step: int = CHUNK, delay: float = 0.0) -> None:
        """Read on until `count` bytes were received in all, the end, or too long a silence.

        `step` bytes at once, `delay` seconds apart.
        """
        while not self.ended and (count is None or self.received < count):
            most = step if count is None else min(step, count - self.received)
            with trio.move_on_after(self._patience) as silence:
                await self._receive_some(most)
            if silence.cancelled_caught:
                return
            if delay:
                await trio.sleep(delay)

    async def _receive_some(self, most: int) -> None:
        try:
            piece = await self._sock.recv(most)
        except OSError:
            self.ended = "reset"
            return
        if not piece:
            self.ended = "reset" if self._was_reset() else "fin"
            return
        if self.wrong_at is None:
            expected = self._incoming.at(self.received, len(piece))
            if piece != expected:
                same = next(n for n, (a, b) in enumerate(zip(piece, expected, strict=True)) if a != b)
                self.wrong_at = self.received + same
        self.received += len(piece)

    def _was_reset(self) -> bool:
        """Whether an empty read was no FIN.

        The kernel tells of a reset once, and it may have told a send, or be about to; reading then ends as after
        a FIN. But a FIN alone never closes a connection that we have not ended too.
        """
        has_error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
        return self.cut or has_error or (self._state() == _TCP_CLOSE and not self._has_fin)

    async def receive_raw(self) -> tuple[bytes, int | None]:
        """All bytes to the end, and where the urgent mark stood among them, if there was one."""
        data, mark = b"", None
        with trio.move_on_after(self._patience):
            while True:
                await trio.lowlevel.wait_readable(self._sock.fileno())
                if mark is None and self._is_at_mark():
                    mark = len(data)
                try:
                    piece = await self._sock.recv(CHUNK)
                except OSError:
                    self.ended = "reset"
                    break
                if not piece:
                    self.ended = "fin"
                    break
                data += piece
        return data, mark

    def _is_at_mark(self) -> bool:
        return any(fcntl.ioctl(self._sock.fileno(), _SIOCATMARK, _NO_INT))

    async def is_reset_soon(self) -> bool:
        """Whether the kernel gives the connection up, also after a FIN, when reading no longer tells."""
        with trio.move_on_after(self._patience):
            while self._state() != _TCP_CLOSE:
                await trio.sleep(_POLL)
            return True
        return False

    def _state(self) -> int:
        return self._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
