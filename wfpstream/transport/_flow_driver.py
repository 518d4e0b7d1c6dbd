"""The stream driver's way with a flow: a task that lives as long as it does, and a reader task per side.

Owns a flow from its establishment to `flow.gone`, its idle time and the order of its end (IND-18, DRP-2); how
long a half-closed flow may live is the engine's (OBJ-14). It must not know how bytes get in and out of a leg
(`_task_sides`), nor listeners and connecting.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from wfpstream.engine import ABORT_FLUSH

from ._flow_cycle import FlowCycle, no_limit_if_off
from ._task_sides import TaskSide

if TYPE_CHECKING:
    from wfpstream.engine import Flow

    from ._hub import Hub

__all__ = ["FlowDriver"]


class FlowDriver(FlowCycle[TaskSide]):
    """Drives one established flow. `await run()` is all; it ends with the flow and closes both sides."""

    def __init__(self, hub: Hub, flow: Flow, client: TaskSide, upstream: TaskSide) -> None:
        super().__init__(hub, flow, client, upstream)
        client.attach(self, self.sides.index(client), "rst_client")
        upstream.attach(self, self.sides.index(upstream), "rst_upstream")
        self._flushing = False
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
        if self.error is not None:
            raise self.error

    async def _leave(self) -> None:
        del self.hub.drivers[self.flow.id]
        try:
            with trio.CancelScope(shield=True):
                for side in self.sides:
                    await side.abandon()
        finally:
            self.flow.gone(self.reason)

    def start(self, async_fn: Callable[[], Awaitable[object]]) -> None:
        """Run one of a side's tasks as long as the flow lives."""
        if self._nursery is not None:
            self._nursery.start_soon(self._task, async_fn)

    async def _task(self, async_fn: Callable[[], Awaitable[object]]) -> None:
        try:
            await async_fn()
        except Exception as error:
            self.fail(error)

    # --- time ---

    def touch(self) -> None:
        if self._timed:
            self._moved_at = trio.current_time()

    def flush(self) -> None:
        if self._flushing:
            return
        self._flushing = self._timed = True
        self._moved_at = trio.current_time()
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
                self.end(self.reason if self.flow.abort else "timeout")

    # --- the end ---

    def end(self, reason: str) -> None:
        if self.over:
            return
        self.over = True
        self.reason = reason
        self._lot.unpark()

    async def _finish(self) -> None:
        """Leave the legs as the flow ended; what is still open after this is reset by `abandon`."""
        if self.graceful:
            for side in self.sides:
                await side.close_gracefully(self._reset_flush)
        elif self.flow.abort == ABORT_FLUSH and self.error is None:
            for side in self.sides:
                if not side.lost:
                    await side.reset_flushed(self._reset_flush)
