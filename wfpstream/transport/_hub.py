"""What the flows of one engine share on one trio loop: turns, timers, calls, the reactor, the buffer.

Owns the engine's hooks (`on_pending`, `run_soon`, `spawn_call`) while somebody drives its flows, and the one
task that runs `engine.turn()`. It knows flows only as something to `serve`; it must not know sockets' bytes,
listeners or configuration.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ._deadlines import Deadlines
from ._reactor import Reactor
from ._sockets import HangupWatch
from ._splice import PipePool

if TYPE_CHECKING:
    from wfpstream.engine import FilterEngine, Limits, Tap

__all__ = ["LARGEST_READ", "RECEIVE_SIZE", "Hub", "Served"]

# IND-3: one read is at most this long. Larger reads cost less per byte; half of `limits.unsent` is all that
# may come in one piece, since reading stops only at half of that limit (IND-24).
RECEIVE_SIZE = 128 * 1024
_SMALLEST_READ = 1024
# So long may a read be whose bytes the other leg is sure to take, so that nothing of them is owed. CPU per GB relayed:
# 128 KiB 1.22 s, 256 KiB 0.90 s, 512 KiB 0.78 s, 1 MiB 0.64 s.
LARGEST_READ = 1 << 20


AsyncFn = Callable[..., Awaitable[Any]]
Deliver = Callable[[Any, BaseException | None], None]


class Served(Protocol):
    """A flow's driver, as the hub sees it."""

    def serve(self) -> None:
        """Write, settle and wake what the flow's new state lets go on; waits for nothing."""

    def has_input(self) -> bool:
        """Whether there is something to read."""

    def fail(self, error: BaseException) -> None:
        """End the flow with `error`, which came out of `serve` on the hub's task."""


_hubs: dict[int, Hub] = {}

# OBJ-14: a flow whose legs were both read to their end lives on only for a FIN that is pended.
BOTH_READ_LIMIT = 120.0


class Hub:
    """One per engine: `async with` is not needed, `open` and `close` count its users.

    Each user has a task that awaits `run`. One of them leads; when it ends the next one takes over.

    Attributes:
        pipes: for the flows that the kernel moves.
        tap: sees what the legs of flows made from now on read and write; None costs nothing.
        behind: handles of the flows that are served after the others (the engine's `overruns.flows`).
        queue: those of them that have a task of their own wait in it, so that one is served per turn.
    """

    def __init__(self, engine: FilterEngine) -> None:
        self.engine = engine
        self.tap: Tap | None = None
        self.watch = HangupWatch()
        self.drivers: dict[int, Served] = {}
        self.reactor = Reactor(self._rouse)
        self.reactor.after_batch = self._turn_if_asked
        self._make_buffers()
        self.deadlines = Deadlines()
        self.behind = engine.overruns.flows
        self.queue = trio.Lock()
        self.pipes = PipePool()
        self._users = 0
        self._scope: trio.CancelScope | None = None
        self._lead = trio.Lock()
        self._lot = trio.lowlevel.ParkingLot()
        self._pending = True
        self._again: list[Served] = []
        self._calls: set[trio.CancelScope] = set()

    @classmethod
    def open(cls, engine: FilterEngine) -> Hub:
        """The engine's hub, made and hooked into the engine by the first user."""
        hub = _hubs.get(id(engine))
        if hub is None:
            hub = _hubs[id(engine)] = cls(engine)
            hub.adapt()
            engine.on_pending = hub.poke
            engine.run_soon = trio.lowlevel.current_trio_token().run_sync_soon
            engine.spawn_call = hub._spawn_call
        hub._users += 1
        return hub

    def close(self) -> None:
        """One user less; the last one takes the hooks out again and ends the calls still under way."""
        self._users -= 1
        if not self._users:
            del _hubs[id(self.engine)]
            self.engine.on_pending = _nobody_runs_turns
            self.engine.run_soon = None
            self.engine.spawn_call = None
            for scope in list(self._calls):
                scope.cancel()
            self.watch.close()
            self.reactor.close()
            self.pipes.close()

    # --- called by drivers and by the engine ---

    def adapt(self) -> None:
        """Follow the engine's options, which a reload may change; called when a flow begins.

        Nothing borrowed is pulled away: a view keeps the buffer that it lies in.
        """
        timeouts = self.engine.options.timeouts
        timeouts.both_read = timeouts.both_read or BOTH_READ_LIMIT
        if self._bounds != _bounds_of_reads(self.engine.options.limits):
            self._make_buffers()

    def _make_buffers(self) -> None:
        self._bounds = _bounds_of_reads(self.engine.options.limits)
        usual, largest = _sizes_of_reads(*self._bounds)
        self.reactor.large_buffer = memoryview(bytearray(largest))
        self.reactor.buffer = self.reactor.large_buffer[:usual]

    @property
    def buffer(self) -> memoryview:
        """What everybody receives into; who reads next uses it again."""
        return self.reactor.buffer

    def poke(self) -> None:
        """The engine's hook: something is to be done outside of a driver's own call. Only schedules."""
        self._pending = True
        if not self.reactor.is_busy:  # else at the end of the batch
            self._lot.unpark()

    def again(self, driver: Served) -> None:
        """Serve this flow once more, after others had their turn."""
        self._again.append(driver)
        self._lot.unpark()

    def _rouse(self) -> None:
        """The reactor's: somebody has more to do, and it sleeps."""
        self._lot.unpark()

    # --- a worker's calls (IRQ-4) ---

    def _spawn_call(self, async_fn: AsyncFn, args: tuple[Any, ...], deliver: Deliver) -> None:
        """Not a task of whoever runs the turns now: that one may end before the call does."""
        trio.lowlevel.spawn_system_task(self._call, async_fn, args, deliver)

    async def _call(self, async_fn: AsyncFn, args: tuple[Any, ...], deliver: Deliver) -> None:
        with trio.CancelScope() as scope:
            self._calls.add(scope)
            try:
                value = await async_fn(*args)
            except Exception as error:
                deliver(None, error)
            else:
                deliver(value, None)
            finally:
                self._calls.discard(scope)

    # --- the task ---

    async def run(self) -> None:
        """Run the engine's turns for ever; returns only by cancellation."""
        async with self._lead, trio.open_nursery() as nursery:
            nursery.start_soon(self.watch.run)
            nursery.start_soon(self.reactor.run)
            nursery.start_soon(self.deadlines.run)
            await self._turns()

    async def _turns(self) -> None:
        while True:
            while self._pending or self._again or self.reactor.has_unfinished or self._is_due():
                self._turn()
                self.reactor.batch()
                await trio.lowlevel.checkpoint()
            # A timer that becomes the first one asks for a turn, and that moves the deadline.
            with trio.CancelScope(deadline=self._deadline()) as self._scope:
                await self._lot.park()

    def _turn_if_asked(self) -> None:
        """At the end of a batch: what the engine has to do at once needs no task to wake up for."""
        if not self._pending:
            return
        self._turn()
        if self._pending:
            self._lot.unpark()  # the turn has asked for another one: that comes after others have had theirs
        if self._scope is not None and self.engine.next_deadline is not None:
            self._scope.deadline = min(self._scope.deadline, self._deadline())

    def _turn(self) -> None:
        self._pending = False
        self.reactor.now = self.deadlines.now()
        again, self._again = self._again, []
        for flow in self.engine.turn():
            driver = self.drivers.get(flow.id)
            if driver is not None:
                _serve(driver)
        for driver in again:
            _serve(driver)

    def _is_due(self) -> bool:
        due = self.engine.next_deadline
        return due is not None and due <= self.engine.now()

    def _deadline(self) -> float:
        """The engine's deadline on trio's clock."""
        due = self.engine.next_deadline
        if due is None:
            return math.inf
        return trio.current_time() + max(0.0, due - self.engine.now())


def _nobody_runs_turns() -> None:
    """The hook between two users: the next one begins with a turn."""


def _serve(driver: Served) -> None:
    try:
        driver.serve()
    except Exception as error:
        driver.fail(error)


def _bounds_of_reads(limits: Limits) -> tuple[int, int, int, int, int]:
    return limits.unsent, limits.injected, limits.pended, limits.taken, limits.need_more_data


def _sizes_of_reads(unsent: int, *others: int) -> tuple[int, int]:
    """The usual and the largest length. A large read alone passes no limit of what a callout may do with one item, and
    who wants less to be owed than usual gets no large ones.
    """
    usual = max(_SMALLEST_READ, min(RECEIVE_SIZE, unsent // 2))
    return usual, max(usual, min(LARGEST_READ, *others)) if usual == RECEIVE_SIZE else usual
