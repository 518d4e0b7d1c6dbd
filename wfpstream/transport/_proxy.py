"""The live proxy: which listeners are in force, the limit of connections, graceful stop.

Owns when connections are accepted and when the proxy is over. It must not know what becomes of an accepted
connection (`_reception`) or how bytes move.
"""

from __future__ import annotations

import math
import socket
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import trio

from ._door import Admission, Door
from ._hub import Hub
from ._listeners import Accepted, Listener, ListenerSpec, open_listeners
from ._rearrangement import Rearrangement, arrange, open_beside, open_shared
from ._reception import Reception
from ._room import Room
from ._sockets import original_destination, reset_now
from ._transparent import Departures
from ._watchdog import Watchdog

if TYPE_CHECKING:
    from wfpstream.engine import FilterEngine, Tap

    from ._arrival import OriginalDestination
    from ._connection import Driver

__all__ = ["Proxy", "serve_proxy"]

Log = Callable[[str], object]


def _quiet(line: str) -> None:
    """The default log."""


def _uncounted(connections: int) -> None:
    """Nobody counts along."""


class Proxy:
    """A running proxy.

    Attributes:
        listeners: the open listeners, in the order given: name, mode, host, port, upstream.
        rejected: how many connections were reset by a rule, by its name: unknown_destination, own_listener, ...
    """

    def __init__(
        self,
        hub: Hub,
        listeners: Sequence[Listener],
        grace: float,
        log: Log,
        departures: Departures,
        original: OriginalDestination,
        driver: Driver,
        shared: bool,
        count: Callable[[int], object],
    ) -> None:
        self.listeners = tuple(listeners)
        self._hub = hub
        self._shared = shared
        self._grace = grace
        self._log = log
        self._changed = trio.lowlevel.ParkingLot()
        # Tasks with connections that were accepted beyond the limit, and have to wait for room.
        self._in_line = 0
        self._reception = Reception(
            hub,
            self._addresses,
            departures,
            original,
            log,
            self._one_left,
            driver,
            count,
            self._may_come_back,
        )
        self.rejected = self._reception.rejected
        self._connections: trio.Nursery
        self._room = Room(hub, lambda: self.connections)
        hub.pipes.has_room = self._room.is_for_a_pipe
        self._door = Door(hub, self._room, self._receive, log)
        self._is_rearranging = False
        self._rearrangement: Rearrangement[Listener] | None = None
        self._stop = trio.Event()
        self._done = trio.Event()
        self._deadline = math.inf
        self._patience = trio.CancelScope()

    # --- for the owner ---

    @property
    def connections(self) -> int:
        """How many there are now, established or on their way."""
        return self._reception.connections

    @property
    def accepted(self) -> int:
        """How many connections were accepted so far."""
        return self._reception.accepted

    @property
    def refused(self) -> int:
        """How many of these were reset for `limits.flows_per_client`."""
        return self._reception.refused

    def request_stop(self, grace: float | None = None) -> None:
        """Stop accepting, let flows end for `grace` seconds (default: as given at the start), then abort them.

        Returns at once. Asked again, the earlier end counts.
        """
        allowed = self._grace if grace is None else grace
        self._deadline = min(self._deadline, trio.current_time() + allowed)
        self._patience.deadline = self._deadline
        is_first = not self._stop.is_set()
        self._stop.set()
        # Now, not when a task gets to it: who was told that nothing more is accepted may try.
        if is_first:
            self._receive_last()
        self._close_listeners()

    async def stop(self, grace: float | None = None) -> None:
        """As `request_stop`, and wait until every flow has ended."""
        self.request_stop(grace)
        await self._done.wait()

    async def wait_connections(self, most: int = 0) -> None:
        """Wait until there are no more than `most` connections."""
        while self.connections > most:
            await self._changed.park()

    def admit(self, how: Admission) -> None:
        """How newcomers are met from now on, at all listeners. Who is connected, or waits in a backlog, is served.

        Args:
            how: "serve" them; "refuse" connects, as where nobody listens; "reset" each as soon as it is accepted;
                "ignore" connects, as a host that is not there: who still tries when that ends is served then. The
                ports stay ours in all cases.

        Raises:
            OSError: the system does not allow it; the text says at which address.
        """
        waiting: deque[tuple[Listener, Accepted]] = deque()
        for listener in self.listeners if not self._stop.is_set() else ():
            waiting.extend((listener, accepted) for accepted in _MEET[how](listener))
        self._door.meet(how)
        self._receive_all(waiting)

    async def abort_connections(self, patience: float = 0.5) -> None:
        """Reset every connection there is, established, on its way or in a backlog, and wait until they are gone.

        `patience`: seconds for flows that have ended already and still deliver what they owe.
        """
        for listener in self.listeners:
            for accepted in listener.take_waiting():
                reset_now(accepted.sock)
        await self._reception.abort_all(patience)

    def unfinished(self) -> list[str]:
        """What the sockets have for us at this moment, one line each; what the engine holds comes on top."""
        lines = [f"{listener}: somebody waits" for listener in self.listeners if listener.has_waiting]
        on_their_way = self._reception.on_their_way
        if on_their_way:
            lines.append(f"{on_their_way} connections on their way to the upstream")
        ending = self.connections - on_their_way - len(self._hub.engine.flows)
        if ending > 0:
            lines.append(f"{ending} connections being closed")
        inputs = [number for number, driver in self._hub.drivers.items() if driver.has_input()]
        return lines + [f"flow handle {number}: something to read" for number in inputs]

    def shut_down_connections(self) -> None:
        """From any thread, for when this one's loop hangs: end every connection, so that peers need not wait.

        New ones are refused. Nothing else works any more.
        """
        for listener in self.listeners:
            listener.shut_down()
        self._reception.shut_down_all()

    async def prepare(self, specs: Sequence[ListenerSpec]) -> Rearrangement[Listener]:
        """Open, beside the listeners in force, what `specs` ask for and is not open yet; nothing else changes.

        A listener keeps its socket, and its place in the kernel's queue, if the address asked for is the one it has:
        the same host and port, or port 0 again under the same name or at the same position. Everything else in its
        spec, the mode and the name too, may differ: it counts for connections accepted after the commit.

        Raises:
            OSError: an address cannot be listened on, or a right is missing; the text names the address.
            RuntimeError: another rearrangement is neither committed nor abandoned, or the proxy is stopping.
        """
        if self._is_rearranging:
            raise RuntimeError("the listeners are being rearranged already")
        self._is_rearranging = True
        try:
            open_one = open_shared if self._shared else open_beside
            rearrangement = await arrange(specs, self.listeners, open_one)
        except BaseException:
            self._is_rearranging = False
            raise
        self._rearrangement = rearrangement
        rearrangement.when_done(partial(self._rearranged, rearrangement), self._stop.is_set)
        if self._stop.is_set():
            rearrangement.abandon()
            raise RuntimeError("the proxy is stopping: its listeners do not change any more")
        return rearrangement

    def _rearranged(self, rearrangement: Rearrangement[Listener], in_force: bool) -> None:
        self._is_rearranging = False
        self._rearrangement = None
        if self._stop.is_set():
            for listener in rearrangement.opened:
                listener.close()
            return
        waiting: deque[tuple[Listener, Accepted]] = deque()
        if in_force:
            self.listeners = rearrangement.listeners
            for listener in rearrangement.opened:
                self._door.open(listener)
            for listener in rearrangement.leaving:
                waiting.extend((listener, accepted) for accepted in listener.drain())
        else:
            for listener in rearrangement.opened:
                # Who came to it meanwhile because it was in front of one that stays is that one's.
                rightful = next((one for one in rearrangement.leaving if one.port == listener.port), None)
                if rightful is None:
                    listener.close()
                else:
                    waiting.extend((rightful, accepted) for accepted in listener.drain())
        self._receive_all(waiting)
        self._one_left()

    # --- connections ---

    def _receive(self, listener: Listener, accepted: Accepted) -> None:
        self._reception.receive(listener, accepted, self._connections.start_soon)

    def _receive_all(self, waiting: deque[tuple[Listener, Accepted]]) -> None:
        """Here and now, where there is room: they are connections like all others when this returns.

        Not from inside a callback that has stopped the proxy: nobody is asked while somebody else still is (CMP-16).
        """
        engine = self._hub.engine
        while waiting and self._room.is_there and not engine.in_callback:
            self._receive(*waiting.popleft())
        if waiting:
            self._in_line += 1
            self._connections.start_soon(self._receive_waiting, waiting)

    def _receive_last(self) -> None:
        """Who waits in a backlog was let in by the kernel before we said no: closing would reset them."""
        waiting: deque[tuple[Listener, Accepted]] = deque()
        for listener in self.listeners:
            waiting.extend((listener, accepted) for accepted in listener.drain())
        if self._door.admission == "reset":
            while waiting:
                reset_now(waiting.popleft()[1].sock)
        self._receive_all(waiting)

    def _one_left(self) -> None:
        """There may be room, and a descriptor, again."""
        if self._changed:
            self._changed.unpark_all()
        self._door.try_again()

    # --- tasks ---

    async def _run(
        self, task_status: trio.TaskStatus[Proxy], ready: Callable[[Proxy], object] | None
    ) -> None:
        async with trio.open_nursery() as self._connections:
            try:
                for listener in self.listeners:
                    self._door.open(listener)
                if ready is not None:
                    ready(self)
                task_status.started(self)
                await self._stop.wait()
                with trio.CancelScope(deadline=self._deadline) as self._patience:
                    while self.connections or self._in_line:
                        await self._changed.park()
            finally:
                self._stop.set()
                self._close_listeners()
                # First who waits for room: nobody is to come in behind the others' back.
                self._connections.cancel_scope.cancel()
                self._reception.abandon_all()

    def _close_listeners(self) -> None:
        if self._rearrangement is not None:
            self._rearrangement.abandon()
        for listener in self.listeners:
            listener.close()

    async def _receive_waiting(self, waiting: deque[tuple[Listener, Accepted]]) -> None:
        """Those who waited in a listener that left, when there is room for them."""
        try:
            while waiting:
                await self._wait_for_room()
                listener, accepted = waiting.popleft()
                self._receive(listener, accepted)
        finally:
            self._in_line -= 1
            self._changed.unpark_all()
            for _, accepted in waiting:
                reset_now(accepted.sock)

    async def _wait_for_room(self) -> None:
        """The rest waits in the backlog: a client sees a slow connect, not a refused one."""
        while not self._room.is_there:
            await self._changed.park()

    def _addresses(self) -> Sequence[tuple[str, int]]:
        """Where we listen at present."""
        return [(listener.host, listener.port) for listener in self.listeners]

    def _may_come_back(self, port: int) -> bool:
        """A connection of ours to that port may meet a listener of ours, directly or by a rule of the system's."""
        for listener in self.listeners:  # noqa: SIM110 - asked for every connection
            if listener.port == port or not listener.spec.is_reverse:
                return True
        return False


def _serve(listener: Listener) -> list[Accepted]:
    listener.serve()
    return []


def _reset(listener: Listener) -> list[Accepted]:
    listener.serve()
    return listener.take_waiting()


_MEET: dict[Admission, Callable[[Listener], list[Accepted]]] = {
    "serve": _serve,
    "refuse": Listener.refuse,
    "reset": _reset,
    "ignore": Listener.ignore,
}


async def serve_proxy(
    engine: FilterEngine,
    listeners: Sequence[ListenerSpec],
    *,
    bound: Sequence[socket.socket | None] = (),
    grace: float = 5.0,
    log: Log = _quiet,
    ready: Callable[[Proxy], object] | None = None,
    mark: int = 0,
    original: OriginalDestination = original_destination,
    tap: Tap | None = None,
    driver: Driver = "reactor",
    shared: bool = False,
    count: Callable[[int], object] = _uncounted,
    task_status: trio.TaskStatus[Proxy] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Relay the connections of all listeners through `engine`, until `Proxy.stop` or cancellation.

    Args:
        engine: used on this trio loop only while this runs; starting and stopping it is the caller's.
        listeners: what to listen on, and where it goes.
        bound: sockets bound already, by position, None where one is to be opened. They are closed at the end.
        grace: seconds a stop lets flows end by themselves (default 5) before they are aborted.
        log: gets one line for people when a connection fails, and once a second for a callout that keeps the loop;
            from another thread while one hangs.
        ready: called with the `Proxy` when all listen; `task_status.started` gets it too.
        mark: SO_MARK for upstream sockets, so that interception lets them pass; 0 for none. Without the right to
            set it `log` is told once, and they go unmarked.
        original: how a redirect listener learns where an accepted socket was going, None if that is not known.
        tap: sees what every leg reads and writes, and may cut what is read; None costs nothing.
        driver: what moves the bytes of flows: "reactor", which has no tasks, or "stream", which has three per flow.
        shared: other processes of this user listen at the same addresses (`Workers`): SO_REUSEPORT.
        count: told how many connections there are, whenever that changes.

    Raises:
        OSError: an address cannot be listened on, or mode tproxy lacks its capability; nothing is left open then.
    """
    opened = await open_listeners(listeners, bound, shared=shared)
    hub = Hub.open(engine)
    hub.tap = tap or hub.tap  # one engine, one tap: that of whoever brings one
    proxy = Proxy(hub, opened, grace, log, Departures(mark, log), original, driver, shared, count)
    watchdog = Watchdog(engine, log)
    watchdog.start()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            await proxy._run(task_status, ready)
            nursery.cancel_scope.cancel()
    finally:
        proxy._close_listeners()
        hub.close()
        watchdog.stop()
        proxy._done.set()
