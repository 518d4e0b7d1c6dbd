"""The two ends of a flow: what one leg can do, its reader and its writer.

A side reads its leg into the engine (direction `index`) and writes what the engine has for it (direction
`out`). Owns readiness, pausing, the mark of a reset (IND-27) and closing. When a flow is over, and why, is the
flow driver's business; a side must not know the other one, listeners or configuration.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio

from wfpstream.engine import DEFERRED, ENDED, FULL, YES, tapped

from ._sockets import (
    discard_input,
    drain_then_close,
    is_readable,
    is_reset,
    receive,
    reset_now,
    send_urgent,
    wait_flushed,
)

if TYPE_CHECKING:
    from wfpstream.engine import Flow, Leg, Place

    from ._hub import Hub
    from ._sockets import Watched

__all__ = ["Capabilities", "Side", "SocketSide", "StreamSide"]

# Fairness: after so many full reads, or sends, others get their turn.
READS_IN_A_ROW = 8
SENDS_IN_A_ROW = 8
# How many pieces one sendmsg takes; the kernel refuses more than 1,024.
MOST_VIEWS = 256
# What one `send_all` gets: all that is copied at a time for a stream that is no socket.
PIECE = 64 * 1024
_LINGER_RESET = struct.pack("ii", 1, 0)


class DriverOfSides(Protocol):
    """What a side needs of the flow driver above it."""

    hub: Hub
    flow: Flow

    def start(self, task: Callable[[], Awaitable[None]]) -> None: ...
    def serve(self) -> None: ...
    def serve_safely(self) -> None: ...
    def touch(self) -> None: ...
    def fin_was_read(self, side: Side) -> None: ...


class Capabilities(NamedTuple):
    """What a leg, or a driver over two legs, keeps of TCP; conformance scripts name what they need.

    Attributes:
        half_close: a FIN can be sent while the other direction goes on.
        reset: a reset is seen as one, and can be sent.
        watch_paused: a reset is noticed while the leg is not read.
        urgent: urgent bytes keep their place and their mark.
    """

    half_close: bool
    reset: bool
    watch_paused: bool
    urgent: bool


class Side:
    """One leg of one flow.

    Attributes:
        lost: a reset was seen (IND-27), or the leg cannot be used any more. Nothing is written any more.
        reader_done: nothing more will be read. Both together: the reset is due to be told to the engine.
        read_ended: the peer's FIN was read and told.
        fin_sent: our FIN was sent.
    """

    capabilities: Capabilities

    def __init__(self) -> None:
        self.lost = False
        self.reader_done = False
        self.read_ended = False
        self.fin_sent = False
        self.parked = False
        self._lot = trio.lowlevel.ParkingLot()

    def attach(self, driver: DriverOfSides, index: int, reset_reason: str) -> None:
        """Take part in `driver`'s flow as its leg `index`."""
        self.driver = driver
        self.flow: Flow = driver.flow
        self.index = index
        self.out = 1 - index
        self.reset_reason = reset_reason
        tap = driver.hub.tap
        if tap is not None:
            leg: Leg = "client" if reset_reason == "rst_client" else "upstream"
            tap.joined(driver.flow.number, leg, *self.places())
            self.flow = tapped(driver.flow, tap)

    def places(self) -> tuple[Place | None, Place | None]:
        """Our own address on this leg and the peer's, where there are such things."""
        return None, None

    def start(self) -> None:
        """Start the reader in the driver's nursery."""
        self.driver.start(self._read)

    def wake(self) -> None:
        """Let a paused reader go on if it may now: `may_read` is a level."""
        if self.parked and (self.lost or self.flow.may_read(self.index) in (YES, ENDED)):
            self.parked = False
            self._lot.unpark()

    def has_input(self) -> bool:
        """Whether bytes, or an end, are there to be read at this moment; a stream that is no socket cannot tell."""
        return False

    def lose(self) -> None:
        """A reset was seen outside of the reader, which first takes what the leg still holds (IND-27)."""
        self.lost = True
        if self.reader_done:
            self.driver.serve_safely()
        else:
            self.wake()

    def push(self) -> bool:
        """Write what the leg takes without waiting; whether bytes or a FIN were written."""
        raise NotImplementedError

    def full_close_seen(self) -> None:
        """The other leg ended and has no half-close: its peer is gone, holding a FIN back serves nobody."""

    async def close_gracefully(self, timeout: float) -> None:
        """Both FINs were sent: close without a reset."""
        raise NotImplementedError

    async def reset_flushed(self, timeout: float) -> None:
        """Reset the leg once what was written has arrived (IND-18)."""
        raise NotImplementedError

    async def abandon(self) -> None:
        """Close at once, with a reset where the leg has one. Nothing happens if it is closed already."""
        raise NotImplementedError

    async def _read(self) -> None:
        raise NotImplementedError

    async def _park(self) -> None:
        self.parked = True
        try:
            await self._lot.park()
        finally:
            self.parked = False

    def _end_of_stream(self) -> None:
        """EOF was read: on a marked leg that is the reset, else the FIN (IND-27)."""
        self.reader_done = True
        if not self.lost:
            self._fin_was_read()
        self.driver.serve()

    def _fin_was_read(self) -> None:
        self.read_ended = True
        self.flow.received_fin(self.index)
        self.driver.fin_was_read(self)

    def _read_failed(self) -> None:
        self.lost = True
        self.reader_done = True
        self.driver.serve()


class SocketSide(Side):
    """A TCP socket (stdlib, non-blocking, prepared): full fidelity."""

    capabilities = Capabilities(half_close=True, reset=True, watch_paused=True, urgent=True)

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock
        self._blocked = False
        self._has_writer = False
        self._watched: Watched | None = None

    def places(self) -> tuple[Place | None, Place | None]:
        try:
            return self.sock.getsockname()[:2], self.sock.getpeername()[:2]
        except OSError:
            return None, None  # it was reset already

    def start(self) -> None:
        self._watched = self.driver.hub.watch.add(self.sock, self.lose)
        super().start()

    # --- reading ---

    async def _read(self) -> None:
        flow, index = self.flow, self.index
        while not self.reader_done:
            if self._may_go_on():
                await self._read_some()
                continue
            state = flow.may_read(index)
            if state == ENDED or self.lost:
                if state == DEFERRED:
                    self._discard()
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
                self._read_failed()
                return
            if not n:
                # A reset that followed the FIN before we got here counts, not the FIN.
                driver.hub.watch.dispatch()
                self._end_of_stream()
                self._unwatch_if_done()
                return
            driver.touch()
            flow.received(index, buffer[:n], urgent)
            driver.serve()
            if not self._may_go_on():
                return
            if n < len(buffer) and not urgent:
                # The queue was empty a moment ago: another read would only say so.
                break
        else:
            await trio.lowlevel.checkpoint()
            return
        await trio.lowlevel.wait_readable(self.sock)

    def _may_go_on(self) -> bool:
        """Read on; a leg that was reset while back-pressure had paused it is read to its end (IND-27)."""
        state = self.flow.may_read(self.index)
        return state == YES or (state == FULL and self.lost)

    def _discard(self) -> None:
        """A deferred leg was reset: what the kernel holds is discarded and counted (IND-27)."""
        ended = False
        while not ended:
            n, ended = discard_input(self.sock)
            self.flow.unread(self.index, n)
            if not n:
                return

    def has_input(self) -> bool:
        return not self.reader_done and is_readable(self.sock)

    # --- writing ---

    def push(self) -> bool:
        if self._blocked or self.lost or self.fin_sent:
            return False
        moved = False
        flow, out = self.flow, self.out
        output = flow.output(out)
        try:
            # What was sent may complete an injection, and that bring the next one: not for ever.
            for _ in range(SENDS_IN_A_ROW):
                if not output.length:
                    break
                n = self._send(*output.batch())
                moved = True
                self.driver.touch()
                flow.sent(out, n)
            if output.fin and not output.length and not flow.abort:
                self._send_fin()
                moved = True
        except BlockingIOError:
            self._wait_writable()
        except OSError as error:
            self.lost = True
            # After a reset the kernel may hold bytes to read, and then says EOF; after anything else it need not.
            self.reader_done = self.reader_done or not is_reset(error)
        return moved

    def _send(self, views: Sequence[memoryview], urgent: bool) -> int:
        if urgent:
            send_urgent(self.sock, views[0])
            return 1
        if len(views) == 1:
            return self.sock.send(views[0])
        return self.sock.sendmsg(views[:MOST_VIEWS])

    def _send_fin(self) -> None:
        if self._watched is not None:
            self._watched.fin_sent = True
        self.sock.shutdown(socket.SHUT_WR)
        self.fin_sent = True
        self.flow.fin_sent(self.out)
        self._unwatch_if_done()

    def _wait_writable(self) -> None:
        self._blocked = True
        if not self._has_writer:
            # Most flows never meet a full socket, so they have no such task.
            self._has_writer = True
            self.driver.start(self._write)

    async def _write(self) -> None:
        try:
            while self._blocked:
                await trio.lowlevel.wait_writable(self.sock)
                self._blocked = False
                self.driver.serve()
        finally:
            self._has_writer = False

    def _unwatch_if_done(self) -> None:
        """Both FINs exchanged: nothing is left to reset, a hang-up is normal (IND-27)."""
        if self.read_ended and self.fin_sent:
            self._unwatch()

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._watched.remove()
            self._watched = None

    # --- closing ---

    async def close_gracefully(self, timeout: float) -> None:
        self._unwatch()
        if self.read_ended:
            self.sock.close()
        else:
            await drain_then_close(self.sock, timeout)

    async def reset_flushed(self, timeout: float) -> None:
        self._unwatch()
        await wait_flushed(self.sock, timeout, fin_sent=self.fin_sent)
        await self.abandon()

    async def abandon(self) -> None:
        self._unwatch()
        try:
            lost = reset_now(self.sock, fin_sent=self.fin_sent)
        except OSError:
            return  # closed all the same; only the question what was lost failed
        if lost:
            self.flow.lost(self.out, lost)


class StreamSide(Side):
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
                self._read_failed()
            self.reader_done = True
            return
        if self.flow.may_read(self.index) == ENDED:
            return
        if not data:
            self._end_of_stream()
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
                self._read_failed()

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
                self._fin_was_read()
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
