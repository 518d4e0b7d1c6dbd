"""The sides of the stream driver: each reads in a trio task of its own.

Owns waiting: for input, for the engine to want it, for a receiver to take more. What is read and written, and what an
end means, is the sides' common business (`_sides`, `_socket_end`).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from wfpstream.engine import DEFERRED, ENDED, YES

from ._sides import Capabilities, DriverOfSides, Side
from ._socket_end import SocketEnd
from ._sockets import receive

if TYPE_CHECKING:
    from ._sockets import Watched

__all__ = ["SocketSide", "StreamSide", "TaskDriver", "TaskSide"]

# Fairness: after so many full reads others get their turn.
READS_IN_A_ROW = 8
# What one `send_all` gets: all that is copied at a time for a stream that is no socket.
PIECE = 64 * 1024
_LINGER_RESET = struct.pack("ii", 1, 0)


class TaskDriver(DriverOfSides, Protocol):
    """What these sides need of the flow driver above them."""

    def start(self, task: Callable[[], Awaitable[None]]) -> None: ...


class TaskSide(Side):
    """A side whose reader is a task."""

    driver: TaskDriver

    def attach(self, driver: DriverOfSides, index: int, reset_reason: str) -> None:
        super().attach(driver, index, reset_reason)
        self._lot = trio.lowlevel.ParkingLot()

    def start(self) -> None:
        """Start the reader in the driver's nursery."""
        self.driver.start(self._read)

    def resume(self) -> None:
        self._lot.unpark()

    async def abandon(self) -> None:
        """Close at once, with a reset where the leg has one. Nothing happens if it is closed already."""
        raise NotImplementedError

    async def _read(self) -> None:
        raise NotImplementedError

    async def _wait_behind(self) -> None:
        """The others first: all who are ready now, and those who are behind for longer."""
        async with self.driver.hub.queue:
            await trio.lowlevel.checkpoint()
        self.end_behind()

    async def _park(self) -> None:
        self.parked = True
        try:
            await self._lot.park()
        finally:
            self.parked = False


class SocketSide(TaskSide, SocketEnd):
    """A plain socket, read by a task that trio wakes."""

    def __init__(self, sock: socket.socket) -> None:
        SocketEnd.__init__(self, sock)
        self._has_writer = False
        self._watched: Watched | None = None

    def start(self) -> None:
        self._watched = self.driver.hub.watch.add(self.sock, self.lose)
        super().start()

    async def _read(self) -> None:
        flow, index = self.flow, self.index
        while not self.reader_done:
            if self.is_behind:
                await self._wait_behind()
            if self.may_go_on():
                await self._read_some()
                continue
            state = flow.may_read(index)
            if state == ENDED or self.lost:
                if state == DEFERRED:
                    self.discard()
                self.reader_done = True
                self.driver.serve()
            else:
                await self._park()

    async def _read_some(self) -> None:
        flow, index, driver = self.flow, self.index, self.driver
        buffer = driver.hub.buffer
        for _ in range(READS_IN_A_ROW):
            try:
                n, urgent = receive(self.sock, buffer)
            except BlockingIOError:
                break
            except OSError:
                self.read_failed()
                return
            if not n:
                # A reset that followed the FIN before we got here counts, not the FIN.
                driver.hub.watch.dispatch()
                self.end_of_stream()
                self.unwatch_if_done()
                return
            driver.touch()
            flow.received(index, buffer[:n], urgent)
            driver.serve()
            if not self.may_go_on() or self.is_behind:
                return
            if n < len(buffer) and not urgent:
                # The queue was empty a moment ago: another read would only say so.
                break
        else:
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.wait_readable(self.sock)

    def wait_writable(self) -> None:
        if not self._has_writer:
            # Most flows never meet a full socket, so they have no such task.
            self._has_writer = True
            self.driver.start(self._write)

    async def _write(self) -> None:
        try:
            while self.blocked:
                await trio.lowlevel.wait_writable(self.sock)
                self.blocked = False
                self.driver.serve()
        finally:
            self._has_writer = False

    def about_to_send_fin(self) -> None:
        if self._watched is not None:
            self._watched.fin_sent = True

    def unwatch(self) -> None:
        if self._watched is not None:
            self._watched.remove()
            self._watched = None

    async def abandon(self) -> None:
        self.reset()


class StreamSide(TaskSide):
    """Any trio stream: memory, TLS, another process. Writing waits in a task of its own."""

    def __init__(self, stream: trio.abc.Stream, receive_size: int) -> None:
        super().__init__()
        self.stream = stream
        self.capabilities = self.capabilities_of(stream)
        self._receive_size = receive_size
        self._closing = False
        self._full_close_seen = False
        self._writer_lot = trio.lowlevel.ParkingLot()
        self._writer_parked = False

    @staticmethod
    def capabilities_of(stream: trio.abc.Stream) -> Capabilities:
        """What this stream keeps of TCP: half-close if it has that, no more."""
        half = isinstance(stream, trio.abc.HalfCloseableStream)
        return Capabilities(half_close=half, reset=False, watch_paused=False, urgent=False)

    def start(self) -> None:
        super().start()
        self.driver.start(self._write)

    async def _read(self) -> None:
        flow, index, driver = self.flow, self.index, self.driver
        while not self.reader_done:
            if self.is_behind:
                await self._wait_behind()
            state = flow.may_read(index)
            if state == ENDED:
                self.reader_done = True
                driver.serve()
            elif state == YES:
                await self._read_once()
            else:
                await self._park()

    async def _read_once(self) -> None:
        try:
            data = await self.stream.receive_some(self._receive_size)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if not self._closing:
                self.read_failed()
            self.reader_done = True
            return
        if self.flow.may_read(self.index) == ENDED:
            return
        if not data:
            self.end_of_stream()
            return
        self.driver.touch()
        # Bytes that were on their way when the direction was paused are the engine's already (DEF-4).
        self.flow.received(self.index, memoryview(data))
        self.driver.serve()

    def push(self) -> bool:
        if self._writer_parked and self._has_work():
            self._writer_parked = False
            self._writer_lot.unpark()
        return False

    def full_close_seen(self) -> None:
        self._full_close_seen = True
        self.push()

    def _has_work(self) -> bool:
        output = self.flow.output(self.out)
        return not self.lost and bool(output.length or self._fin_is_due())

    def _fin_is_due(self) -> bool:
        """A FIN on a leg that has none closes it whole, so it waits for the other direction's end."""
        if self.fin_sent or self.flow.abort or not self.flow.output(self.out).fin:
            return False
        return self.capabilities.half_close or self.read_ended or self._full_close_seen

    async def _write(self) -> None:
        while not self.fin_sent and not self.lost:
            if not self._has_work():
                await self._park_writer()
                continue
            try:
                await self._write_once()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # Without a watch and a marked EOF, nothing else would tell: the leg is gone now.
                self.read_failed()

    async def _write_once(self) -> None:
        output = self.flow.output(self.out)
        if output.length:
            views, _ = output.batch()
            # A copy: the engine may let go of these bytes (abort) while the stream still looks at them.
            data = _first_piece(views)
            await self.stream.send_all(data)
            self.driver.touch()
            self.flow.sent(self.out, len(data))
        elif isinstance(self.stream, trio.abc.HalfCloseableStream):
            await self.stream.send_eof()
            self._fin_was_sent()
        else:
            self._closing = True
            await self.stream.aclose()
            self._fin_was_sent()
            if not self.read_ended:
                self.reader_done = True
                self.tell_fin_read()
        self.driver.serve()

    def _fin_was_sent(self) -> None:
        self.fin_sent = True
        self.flow.fin_sent(self.out)

    async def _park_writer(self) -> None:
        self._writer_parked = True
        try:
            await self._writer_lot.park()
        finally:
            self._writer_parked = False

    async def close_gracefully(self, timeout: float) -> None:
        self._closing = True
        with trio.move_on_after(timeout):
            try:
                await self.stream.aclose()
            except trio.BrokenResourceError:
                pass  # the peer did not wait for our goodbye: everything had arrived before

    async def reset_flushed(self, timeout: float) -> None:
        await self.abandon()

    async def abandon(self) -> None:
        _make_close_a_reset(self.stream)
        try:
            await trio.aclose_forcefully(self.stream)
        except trio.BrokenResourceError:
            pass  # closed all the same


def _first_piece(views: Sequence[memoryview]) -> bytes:
    if len(views) == 1:
        return bytes(views[0][:PIECE])
    pieces = []
    left = PIECE
    for view in views:
        pieces.append(view[:left])
        left -= len(pieces[-1])
        if not left:
            break
    return b"".join(pieces)


def _make_close_a_reset(stream: trio.abc.AsyncResource) -> None:
    """Below TLS is a socket: then its peer shall see a reset too, not an end it could take for whole."""
    while isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        try:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
        except (OSError, trio.ClosedResourceError):
            pass  # closed or dead already
