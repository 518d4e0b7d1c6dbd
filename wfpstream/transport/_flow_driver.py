"""One flow over two sides: the cycle of input, write, settle; when it is over, and how the legs are left.

Owns a flow from its establishment to `flow.gone`, its idle time and the order of its end (IND-18, DRP-2); how
long a half-closed flow may live is the engine's (OBJ-14). It must not know how bytes get in and out of a leg
(`_sides`), nor listeners and connecting.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from wfpstream.engine import ABORT_FLUSH, ABORT_NONE, ABORT_NOW

if TYPE_CHECKING:
    from wfpstream.engine import FilterEngine, Flow

    from ._hub import Hub
    from ._sides import Side

__all__ = ["FlowDriver", "no_limit_if_off"]

# A completion may inject, which is written and completes: after so many rounds others get their turn.
ROUNDS = 8


class FlowDriver:
    """Drives one established flow. `await run()` is all; it ends with the flow and closes both sides."""

    def __init__(self, hub: Hub, flow: Flow, client: Side, upstream: Side) -> None:
        self.hub = hub
        self.engine: FilterEngine = hub.engine
        self.flow = flow
        client_index = flow.direction_from("client")
        self.sides = (upstream, client) if client_index else (client, upstream)
        client.attach(self, client_index, "rst_client")
        upstream.attach(self, 1 - client_index, "rst_upstream")
        self.over = False
        # Whoever cancels `run` stops the flow; everything else says its own reason.
        self._reason = "stop"
        self._graceful = False
        self._flushing = False
        self._error: BaseException | None = None
        self._nursery: trio.Nursery | None = None
        self._lot = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        timeouts = self.engine.options.timeouts
        self._idle = timeouts.idle
        self._reset_flush = no_limit_if_off(timeouts.reset_flush)
        self._timed = bool(self._idle)
        self._moved_at = 0.0

    async def run(self) -> None:
        """Relay until the flow is over; then both legs are closed and `flow.gone` was called.

        Raises what a defect of the engine or of a stream raised; cancellation resets both legs.
        """
        self.hub.adapt()
        self.hub.drivers[self.flow.id] = self
        try:
            self._moved_at = trio.current_time()
            async with trio.open_nursery() as self._nursery:
                for side in self.sides:
                    side.start()
                self.serve_safely()
                await self._until_over()
                self._nursery.cancel_scope.cancel()
            await self._finish()
        finally:
            self.over = True
            await self._leave()
        if self._error is not None:
            raise self._error

    async def _leave(self) -> None:
        del self.hub.drivers[self.flow.id]
        try:
            with trio.CancelScope(shield=True):
                for side in self.sides:
                    await side.abandon()
        finally:
            self.flow.gone(self._reason)

    # --- the cycle ---

    def serve(self) -> None:
        """After any call into the engine: write what the legs take, settle, wake what may go on.

        Waits for nothing, so the bytes an input lent are not needed any more when it returns.
        """
        if self.over:
            return
        flow, (first, second) = self.flow, self.sides
        for _ in range(ROUNDS):
            moved = self._tell_resets()
            if flow.abort == ABORT_NOW:
                break
            if first.push():
                moved = True
            if second.push():
                moved = True
            if not moved:
                break
        else:
            self.hub.again(self)
        self.engine.settle_output(flow)
        self._judge()

    def serve_safely(self) -> None:
        """`serve` from outside this flow's own tasks: a defect ends this flow only."""
        try:
            self.serve()
        except Exception as error:
            self.fail(error)

    def has_input(self) -> bool:
        """Whether a leg that may be read has something to read."""
        return not self.over and any(side.has_input() for side in self.sides)

    def fail(self, error: BaseException) -> None:
        """End the flow with an error, which `run` raises."""
        if self._error is None:
            self._error = error
        self._end("abort")

    def start(self, async_fn: Callable[[], Awaitable[object]]) -> None:
        """Run one of a side's tasks as long as the flow lives."""
        if self._nursery is not None:
            self._nursery.start_soon(self._task, async_fn)

    async def _task(self, async_fn: Callable[[], Awaitable[object]]) -> None:
        try:
            await async_fn()
        except Exception as error:
            self.fail(error)

    def _tell_resets(self) -> bool:
        told = False
        for side in self.sides:
            if side.lost and side.reader_done and self.flow.abort == ABORT_NONE:
                side.flow.reset(side.index, side.reset_reason)
                self._reason = side.reset_reason
                told = True
        return told

    def _judge(self) -> None:
        """Whether the flow is over; if not, who may go on."""
        flow = self.flow
        abort = flow.abort
        if abort == ABORT_NONE:
            self._go_on()
        elif abort == ABORT_NOW or all(side.lost or not flow.output(side.out).length for side in self.sides):
            self._end("abort" if self._reason == "stop" else self._reason)
        else:
            self._flush()

    def _go_on(self) -> None:
        first, second = self.sides
        if first.fin_sent and second.fin_sent:
            self._graceful = True
            self._end("fin")
            return
        first.wake()
        second.wake()

    def _flush(self) -> None:
        """Owed bytes are written first, but a peer that takes none holds nobody up for ever (IND-18)."""
        if self._flushing:
            return
        self._flushing = self._timed = True
        self._moved_at = trio.current_time()
        self._rearm()

    # --- time ---

    def touch(self) -> None:
        """Bytes moved."""
        if self._timed:
            self._moved_at = trio.current_time()

    def fin_was_read(self, side: Side) -> None:
        """A stream that cannot half-close has closed for good."""
        if not side.capabilities.half_close:
            self.sides[side.out].full_close_seen()

    def _rearm(self) -> None:
        self._scope.deadline = self._deadline()

    def _deadline(self) -> float:
        if self.flow.abort == ABORT_FLUSH:
            return self._moved_at + self._reset_flush
        return self._moved_at + self._idle if self._idle else math.inf

    async def _until_over(self) -> None:
        while not self.over:
            with trio.CancelScope(deadline=self._deadline()) as self._scope:
                await self._lot.park()
            if self._deadline() <= trio.current_time():
                self._end(self._reason if self.flow.abort else "timeout")

    # --- the end ---

    def _end(self, reason: str) -> None:
        if self.over:
            return
        self.over = True
        self._reason = reason
        self._lot.unpark()

    async def _finish(self) -> None:
        """Leave the legs as the flow ended; what is still open after this is reset by `abandon`."""
        if self._graceful:
            for side in self.sides:
                await side.close_gracefully(self._reset_flush)
        elif self.flow.abort == ABORT_FLUSH and self._error is None:
            for side in self.sides:
                if not side.lost:
                    await side.reset_flushed(self._reset_flush)


def no_limit_if_off(seconds: float) -> float:
    """A configured time, where 0 means off, as a limit."""
    return seconds or math.inf
