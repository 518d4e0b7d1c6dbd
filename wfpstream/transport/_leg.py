"""A leg of the reactor driver: what an event means for it, and reading one piece per turn.

Owns the traps of edge-triggered reading: an edge that comes while the leg is paused is kept and used on resume, a turn
that ends before the socket is empty asks for another one, and an urgent byte is not read as a plain one. It must not
know the other leg, nor how a flow ends.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Protocol

from wfpstream.engine import DEFERRED, ENDED, FULL, QUIET, YES

from ._reactor import ERROR, IN, OUT, READ_HANGUP, TROUBLE, URGENT
from ._sides import DriverOfSides
from ._socket_end import SocketEnd
from ._sockets import begins_plain, close_ended, is_dead, receive, reset_flushed_now, send_room

if TYPE_CHECKING:
    from wfpstream.engine import FilterEngine

    from ._reactor import Reactor

__all__ = ["EDGES", "MUCH", "Leg"]

EDGES = IN | OUT | URGENT | READ_HANGUP
# A flow is worth handing over to the kernel when a read brought this much. A conduit needs a system call more for each
# message than a read and a write do, and saves their copies: CPU per round trip 1.3 times that of copying at 8 KiB, as
# much at 32 to 64 KiB, 0.7 times at 128 KiB; a bulk stream 0.4 times.
MUCH = 64 * 1024
_TO_READ = IN | READ_HANGUP
_UNUSUAL = TROUBLE | URGENT | READ_HANGUP


class DriverOfLegs(DriverOfSides, Protocol):
    """What a leg needs of its flow's driver."""

    engine: FilterEngine
    is_bulky: bool
    moved_at: float
    over: bool

    def fail(self, error: BaseException) -> None: ...
    def is_handed_over(self) -> bool: ...


class Leg(SocketEnd):
    """A plain socket in the reactor.

    Attributes:
        other: the flow's other leg.
        is_plain: what comes in, and what goes out, needs no closer look at this leg: see `review`.
        input: there may be something to read, which no further edge will tell of.
        is_armed: events of input are asked for; while the leg is paused they would only wake us.
        is_careful: an urgent byte was announced once: every read asks for the mark first (IND-7).
        is_ending: the peer's FIN, or worse, is behind what can be read: no further edge will come.
        has_much: the latest read brought as much as usual reads can.
    """

    __slots__ = (
        "_behind",
        "_owe",
        "_pass_view",
        "_read_at",
        "_receive",
        "_send_view",
        "fd",
        "has_much",
        "input",
        "is_armed",
        "is_careful",
        "is_ending",
        "is_plain",
        "other",
        "queued",
        "reactor",
        "since",
    )

    driver: DriverOfLegs
    other: Leg

    def __init__(self, sock: socket.socket, reactor: Reactor) -> None:
        super().__init__(sock)
        self.reactor = reactor
        self.fd = sock.fileno()
        self._receive = sock.recv_into
        self._send_view = sock.send
        self._read_at = 0
        self.since = 0
        self.queued = False
        self.is_plain = False
        self.input = False
        self.is_armed = True
        self.is_careful = False
        self.is_ending = False
        self.has_much = False

    def attach(self, driver: DriverOfLegs, index: int, reset_reason: str) -> None:  # type: ignore[override]
        super().attach(driver, index, reset_reason)
        self._pass_view, self._owe = driver.engine.pass_on, driver.engine.owe
        self._behind = driver.hub.behind

    def start(self) -> None:
        self.reactor.add(self.fd, self, EDGES)
        self.review()

    def review(self) -> None:
        """Whether this leg is plain; to be asked after all that may have changed it."""
        self.is_plain = self.is_armed and not (
            self.blocked
            or self.parked
            or self.lost
            or self.is_ending
            or self.is_careful
            or self.reader_done
            or self.fin_sent
            or self.flow is not self.driver.flow  # there is a tap, which has to hear of everything
        )

    # --- the reactor's calls ---

    def ready(self, events: int) -> None:
        """What an edge says, acted on at once."""
        try:
            if not self.is_plain or events & _UNUSUAL or self._behind:
                self._look_closely(events)
            elif events & IN:
                self._pass_on()
        except Exception as error:
            self.driver.fail(error)

    def _pass_on(self) -> None:
        """Plain bytes through a plain flow: the short form of `_turn`, `_read` and the driver's cycle."""
        flow, index, reactor = self.flow, self.index, self.reactor
        if flow.plain != QUIET and flow.may_read(index) != YES:
            self.input = True
            self._pause()
            return
        buffer = self._much_room() if self.has_much else reactor.buffer
        try:
            n = self._receive(buffer)
        except BlockingIOError:
            self.input = False
            return
        except OSError:
            self.read_failed()
            return
        if not n:
            self._end()
            return
        self.driver.moved_at = reactor.now
        view = buffer[:n]
        if not self._pass_view(flow, index, view):
            self.driver.serve()
        else:
            other = self.other
            try:
                sent = other._send_view(view) if other.is_plain else 0
            except OSError:
                sent = 0  # the same again, where it is looked at closely
            if sent != n:
                self._owe(flow, index, view, sent)
                self.driver.serve()
        if n >= MUCH or n == len(buffer):
            self._go_on_with_much(n, n == len(buffer))

    def _go_on_with_much(self, n: int, more: bool) -> None:
        """A bulky flow may be the kernel's to move; else, if there is `more`, it has another turn."""
        self.input = more
        self.has_much = n >= len(self.reactor.buffer)
        if self.flow.nobody_asks is not False and self.driver.is_handed_over():
            return
        if more:
            self._read_at = self.reactor.number
            if not (self.parked or self.reader_done or self.driver.over):
                self.reactor.again(self)

    def _much_room(self) -> memoryview:
        """What the read after a full one may fill: as much as the other leg's kernel has room for.

        More would be owed, all at once (IND-24). A flow that owes or holds something already reads as usual.
        """
        self.has_much = False
        reactor, flow = self.reactor, self.driver.flow
        usual, share = reactor.buffer, reactor.share
        if share <= len(usual) or flow.stored or flow.output(self.index).length:
            return usual
        size = min(send_room(self.other.sock), share)
        return reactor.large_buffer[:size] if size > len(usual) else usual

    def _look_closely(self, events: int) -> None:
        if events & TROUBLE and not (self.read_ended and self.fin_sent):
            self.is_ending = self.input = True
            # A hang-up after our FIN is the peer's meeting it; all else is a reset (IND-27).
            if events & ERROR or not self.fin_sent:
                self.lost = True
        if events & URGENT:
            self.is_careful = True
        if events & _TO_READ:
            self.input = True
            if events & READ_HANGUP:
                self.is_ending = True
        if self.blocked and events & OUT:
            self.blocked = False
            self.driver.serve()
        if self.input:
            if self._behind and self.is_behind:
                self.reactor.last(self)
            else:
                self._turn(True)
        self.review()

    def go_on(self) -> None:
        """Another turn: no event has said anything of what comes first."""
        if self._behind and self.is_behind:
            self.reactor.last(self)
        else:
            self._go_on()

    def go_last(self) -> None:
        """The others have had their turn; whether this flow stays behind them is seen now."""
        self.end_behind()
        self._go_on()

    def _go_on(self) -> None:
        try:
            if self._read_at == self.reactor.number:
                # One turn in each batch: it had this one's when an event told of more.
                self.reactor.again(self)
            elif self.is_plain and self.input and begins_plain(self.sock):
                self._pass_on()
            elif self.input or self.lost:
                self._turn(False)
                self.review()
        except Exception as error:
            self.driver.fail(error)

    def _turn(self, is_announced: bool) -> None:
        """Read one piece if the engine wants it.

        Args:
            is_announced: an event of this batch has told that there is input, and that no urgent byte is.
        """
        if self.driver.over:
            return
        if self.reader_done:
            if self.lost:
                self.driver.serve()
            return
        state = self.flow.may_read(self.index)
        if state == YES or (state == FULL and self.lost):
            self.parked = False
            self.arm()  # else a leg that is never found empty would not be plain again
            self._read(is_announced)
        elif state == ENDED or self.lost:
            if state == DEFERRED:
                self.discard()
            self.reader_done = True
            self.driver.serve()
        else:
            self._pause()

    def _pause(self) -> None:
        """The input stays known; more of it need not wake us. A reset and the end of a wait to write still do."""
        self.parked = True
        self.is_plain = False
        if self.is_armed:
            self.is_armed = False
            self.reactor.change(self.fd, READ_HANGUP | OUT if self.blocked else READ_HANGUP)

    def resume(self) -> None:
        self.reactor.again(self)

    def _read(self, is_announced: bool) -> None:
        driver = self.driver
        if driver.is_bulky and driver.is_handed_over():
            return
        buffer = self._much_room() if self.has_much else self.reactor.buffer
        urgent = False
        try:
            if is_announced and not self.is_careful:
                n = self.sock.recv_into(buffer)
            else:
                n, urgent = receive(self.sock, buffer)
        except BlockingIOError:
            self._is_empty()
            return
        except OSError:
            self.read_failed()
            return
        if not n:
            self._end()
            return
        driver.moved_at = self.reactor.now
        self._read_at = self.reactor.number
        driver.is_bulky = n >= MUCH
        self.has_much = n >= len(self.reactor.buffer)
        self.flow.received(self.index, buffer[:n], urgent)
        driver.serve()
        if driver.over or self.reader_done:
            return
        if n < len(buffer) and not (self.is_careful or self.is_ending or self.lost):
            # All that was there when we looked: what comes later is an edge of its own.
            self._is_empty()
        elif not self.parked:
            self.reactor.again(self)

    def _is_empty(self) -> None:
        if self.lost:
            # The kernel has no connection any more and says so only once, to somebody else.
            self.read_failed()
            return
        self.input = False
        self.arm()

    def arm(self) -> None:
        """Ask for events of input again; what is so already is said."""
        if not self.is_armed:
            self.is_armed = True
            self.reactor.change(self.fd, EDGES)

    def _end(self) -> None:
        """EOF: after a reset that followed the FIN it counts as that."""
        if not self.fin_sent and is_dead(self.sock):
            self.lost = True
        self.end_of_stream()

    # --- the writer's ---

    def wait_writable(self) -> None:
        if not self.is_armed:
            self.reactor.change(self.fd, READ_HANGUP | OUT)

    def unwatch(self) -> None:
        self.reactor.remove(self.fd, self)

    def unwatch_if_done(self) -> None:
        """It is closed soon, and `ready` knows."""

    def reset_owing_nothing(self) -> None:
        """Close at once, with a reset that destroys nothing."""
        self.reactor.forget(self.fd, self)
        reset_flushed_now(self.sock)

    def reset(self) -> None:
        self.reactor.forget(self.fd, self)
        super().reset()

    def close(self) -> None:
        """Close at once: nothing is owed, and nothing is left to read."""
        self.reactor.forget(self.fd, self)
        close_ended(self.sock)
