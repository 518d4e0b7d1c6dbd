"""The reactor driver's way with a flow: no task, only calls from the reactor and from the engine's turns.

Owns a flow from its establishment to `flow.gone`: its idle time and the order of its end (IND-18, DRP-2). A task is
begun only where an end has to wait for a peer. It must not know listeners and connecting.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import trio

from wfpstream.engine import ABORT_FLUSH

from ._flow_cycle import FlowCycle, no_limit_if_off
from ._leg import Leg
from ._offload import TRY_AGAIN, Offload, may_begin
from ._sockets import is_dead, send_queue_length

if TYPE_CHECKING:
    from wfpstream.engine import Flow

    from ._deadlines import Deadline
    from ._hub import Hub

__all__ = ["SocketFlow", "Spawn", "WhenOver"]

# Starts a task: an async function and its arguments.
Spawn = Callable[..., object]
# Is told of the end, with what went wrong, if something did.
WhenOver = Callable[[BaseException | None], object]


class SocketFlow(FlowCycle[Leg]):
    """Drives one established flow between two connected sockets, which it closes.

    Attributes:
        moved_at: when bytes moved last, on the reactor's clock.
        is_bulky: a read brought so much that handing the flow over pays.
    """

    __slots__ = (
        "_deadline",
        "_idle",
        "_is_flushing",
        "_not_before",
        "_offload",
        "_reset_flush",
        "_scope",
        "_spawn",
        "_when_over",
        "is_bulky",
        "moved_at",
    )

    def __init__(
        self,
        hub: Hub,
        flow: Flow,
        client: socket.socket,
        upstream: socket.socket,
        spawn: Spawn,
        when_over: WhenOver,
    ) -> None:
        client_leg, upstream_leg = Leg(client, hub.reactor), Leg(upstream, hub.reactor)
        super().__init__(hub, flow, client_leg, upstream_leg)
        client_leg.attach(self, self.sides.index(client_leg), "rst_client")
        upstream_leg.attach(self, self.sides.index(upstream_leg), "rst_upstream")
        client_leg.other, upstream_leg.other = upstream_leg, client_leg
        self._spawn = spawn
        self._when_over = when_over
        timeouts = self.engine.options.timeouts
        self._idle = timeouts.idle
        self._reset_flush = timeouts.reset_flush
        self._is_flushing = False
        self._scope: trio.CancelScope | None = None
        self._deadline: Deadline | None = None
        self.moved_at = hub.reactor.now
        self.is_bulky = False
        self._offload: Offload | None = None
        self._not_before = 0.0

    @property
    def sockets(self) -> list[socket.socket]:
        """Both legs'."""
        return [leg.sock for leg in self.sides]

    def start(self) -> None:
        """Begin; from now on the reactor and the hub call."""
        hub = self.hub
        hub.adapt()
        hub.drivers[self.flow.id] = self
        self.moved_at = hub.deadlines.now()
        if self._idle:
            self._deadline = hub.deadlines.add(self.moved_at + self._idle, self._look_at_time)
        try:
            for leg in self.sides:
                leg.start()
        except OSError as error:
            self.fail(error)
            return
        to_upstream, to_client = self.flow.output(0), self.flow.output(1)
        if self.flow.abort or to_upstream.length or to_client.length or to_upstream.fin or to_client.fin:
            self.serve_safely()  # a callback of its establishment has left something

    def serve(self) -> None:
        super().serve()
        if not self.over:
            for leg in self.sides:
                leg.review()

    def abandon(self) -> None:
        """Reset both legs now, whatever they owe."""
        if self._offload is not None:
            self._offload.drop()
        if not self.over:
            self.over = True
            self._leave()
        elif self._scope is not None:
            self._scope.cancel()

    # --- offload ---

    def is_handed_over(self) -> bool:
        """Of a flow that moves much: hand it over, if that can be. True: its bytes move by themselves now."""
        self.is_bulky = False
        if self.over or self.hub.reactor.now < self._not_before or not self.flow.offload_wanted:
            return False
        if not may_begin(self):
            self.is_bulky = True  # perhaps at the next read: something is owed still
            return False
        hub = self.hub
        if hub.pipes.is_exhausted:
            self._not_before = hub.reactor.now + TRY_AGAIN
            return False
        self._offload = Offload(self)
        self._offload.begin()
        return True

    def is_taken_back(self, try_again_at: float) -> None:
        """It moves no more by itself, and is not to before that time."""
        self._offload = None
        self._not_before = try_again_at

    # --- time ---

    def touch(self) -> None:
        self.moved_at = self.hub.reactor.now

    def flush(self) -> None:
        if self._is_flushing:
            return
        self._is_flushing = True
        self.moved_at = self.hub.deadlines.now()
        self._watch_time()

    def _due(self) -> float:
        if self._is_flushing:
            return self.moved_at + no_limit_if_off(self._reset_flush)
        return self.moved_at + self._idle if self._idle else math.inf

    def _watch_time(self) -> None:
        self._watch_time_no_more()
        due = self._due()
        if due != math.inf:
            self._deadline = self.hub.deadlines.add(due, self._look_at_time)

    def _watch_time_no_more(self) -> None:
        if self._deadline is not None:
            self.hub.deadlines.take_back(self._deadline)
            self._deadline = None

    def _look_at_time(self) -> None:
        if self._due() <= self.hub.deadlines.now():
            self.end(self.reason if self.flow.abort else "timeout")
        else:
            self._watch_time()

    # --- the end ---

    def end(self, reason: str) -> None:
        if self.over:
            return
        if self._offload is not None:
            self._offload.drop()
        self.over = True
        self.reason = reason
        waits = [leg for leg in self.sides if not self._leave_leg(leg)]
        if waits:
            self._scope = trio.CancelScope()  # it may be cut short before the task has begun
            self._spawn(self._leave_slowly, waits, self._scope)
        else:
            self._leave()

    def _leave_leg(self, leg: Leg) -> bool:
        """Close it as the flow ended, if that takes no waiting; what is open yet is reset by `_leave`."""
        if self.graceful:
            if leg.read_ended:
                leg.close()
            return leg.read_ended
        if self.flow.abort != ABORT_FLUSH or self.error is not None or leg.lost:
            return True
        if not send_queue_length(leg.sock, fin_sent=leg.fin_sent):
            leg.reset_owing_nothing()
            return True
        return is_dead(leg.sock)

    async def _leave_slowly(self, legs: list[Leg], scope: trio.CancelScope) -> None:
        limit = no_limit_if_off(self._reset_flush)
        try:
            with scope:
                for leg in legs:
                    if self.graceful:
                        await leg.close_gracefully(limit)
                    else:
                        await leg.reset_flushed(limit)
        finally:
            self._leave()

    def _leave(self) -> None:
        """Nothing is open any more, and the engine hears of it."""
        self._watch_time_no_more()
        when_over: Any
        when_over, self._when_over = self._when_over, _nobody
        del self.hub.drivers[self.flow.id]
        try:
            for leg in self.sides:
                if leg.sock.fileno() != -1:
                    leg.reset()
            self._let_go()
            self.flow.gone(self.reason)
        except Exception as error:
            # A defect, which is told: whoever counts connections has to hear of this end too.
            self.error = self.error or error
        finally:
            when_over(self.error)

    def _let_go(self) -> None:
        """Nothing of it refers to itself any more: it is freed when the last call for it returns, not by a collector.

        A leg keeps its driver, and asks whether that is `over`.
        """
        for leg in self.sides:
            del leg.other
        del self.sides


def _nobody(error: BaseException | None) -> None:
    """Who was told already."""
