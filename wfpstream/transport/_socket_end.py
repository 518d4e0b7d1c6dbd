"""A leg that is a plain TCP socket: writing to it, and leaving it; full fidelity.

Owns all that needs no waiting for input, the same for both drivers: what `send` takes, FINs, what a reset destroyed,
closing without harm to the last answer. How it is learned that there is something to read is the driver's.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wfpstream.engine import FULL, YES

from ._sides import Capabilities, Side
from ._sockets import (
    close_ended,
    discard_input,
    drain_then_close,
    is_readable,
    is_reset,
    reset_now,
    send_urgent,
    wait_flushed,
)

if TYPE_CHECKING:
    from wfpstream.engine import Place

__all__ = ["SocketEnd"]

# Fairness: after so many sends others get their turn.
SENDS_IN_A_ROW = 8
# How many pieces one sendmsg takes; the kernel refuses more than 1,024.
MOST_VIEWS = 1000


class SocketEnd(Side):
    """A TCP socket (stdlib, non-blocking, prepared)."""

    __slots__ = ("blocked", "sock")

    capabilities = Capabilities(half_close=True, reset=True, watch_paused=True, urgent=True)

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.sock = sock
        self.blocked = False

    def places(self) -> tuple[Place | None, Place | None]:
        try:
            return self.sock.getsockname()[:2], self.sock.getpeername()[:2]
        except OSError:
            return None, None  # it was reset already

    # --- reading ---

    def may_go_on(self) -> bool:
        """Read on; a leg that was reset while back-pressure had paused it is read to its end (IND-27)."""
        state = self.flow.may_read(self.index)
        return state == YES or (state == FULL and self.lost)

    def discard(self) -> None:
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
        if self.blocked or self.lost or self.fin_sent:
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
            self.blocked = True
            self.wait_writable()
        except OSError as error:
            self.lost = True
            # After a reset the kernel may hold bytes to read, and then says EOF; after anything else it need not.
            self.reader_done = self.reader_done or not is_reset(error)
        return moved

    def wait_writable(self) -> None:
        """Have `blocked` taken back, and the flow served, when the socket takes more."""
        raise NotImplementedError

    def _send(self, views: Sequence[memoryview], urgent: bool) -> int:
        if urgent:
            send_urgent(self.sock, views[0])
            return 1
        if len(views) == 1:
            return self.sock.send(views[0])
        return self.sock.sendmsg(views[:MOST_VIEWS])

    def _send_fin(self) -> None:
        self.about_to_send_fin()
        self.sock.shutdown(socket.SHUT_WR)
        self.fin_sent = True
        self.flow.fin_sent(self.out)
        self.unwatch_if_done()

    def about_to_send_fin(self) -> None:
        """A hang-up from now on is the peer's FIN meeting ours."""

    def unwatch_if_done(self) -> None:
        """Both FINs exchanged: nothing is left to reset, a hang-up is normal (IND-27)."""
        if self.read_ended and self.fin_sent:
            self.unwatch()

    def unwatch(self) -> None:
        """Hear of the socket no more; before it is closed."""
        raise NotImplementedError

    # --- closing ---

    def closes_at_once(self) -> bool:
        """After both FINs: whether nothing is left to wait for, and then it is closed."""
        self.unwatch()
        if self.read_ended:
            close_ended(self.sock)
        return self.read_ended

    async def close_gracefully(self, timeout: float) -> None:
        if not self.closes_at_once():
            await drain_then_close(self.sock, timeout)

    async def reset_flushed(self, timeout: float) -> None:
        self.unwatch()
        await wait_flushed(self.sock, timeout, fin_sent=self.fin_sent)
        self.reset()

    def reset(self) -> None:
        """Close at once, with a reset; what that destroys is counted. Nothing happens if it is closed already."""
        self.unwatch()
        try:
            lost = reset_now(self.sock, fin_sent=self.fin_sent)
        except OSError:
            return  # closed all the same; only the question what was lost failed
        if lost:
            self.flow.lost(self.out, lost)
