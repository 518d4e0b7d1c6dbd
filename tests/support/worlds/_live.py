"""Both live drivers as worlds: `relay` between two connections of which we hold the far ends.

Owns both far ends and when all has come to rest: over sockets that is when everything that was sent has been read
by who reads, over streams when nobody on the loop has anything to do. It must not know what a case expects.
"""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from wfpstream.engine import YES, Attempt, Endpoints, FilterEngine, Flow
from wfpstream.testing import (
    Act,
    Connect,
    EndState,
    EventList,
    Fin,
    Reset,
    Send,
    Side,
    Step,
    Wait,
    Window,
    WorldOutcome,
    WorldScript,
)
from wfpstream.transport import relay

CLIENT, SERVER = "10.0.0.1", ("10.0.0.2", 80)
FIRST_PORT = 40_000
_RESET = struct.pack("ii", 1, 0)
_PATIENCE = 100.0
_SIOCATMARK = 0x8905
# Over sockets: nobody has anything to do for so long, seconds. What was sent is accounted for besides.
_QUIET = 0.002

Streams = tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream]


class _LiveWorld:
    """What both have in common."""

    name = "stream"
    capabilities: frozenset[str]
    driver: Literal["reactor", "stream"] = "stream"
    quiet = 0.0

    def run(self, script: WorldScript) -> WorldOutcome:
        """Play the script. Raises trio.TooSlowError: it does not come to rest."""

        async def main() -> WorldOutcome:
            # The deadline of a mock clock is virtual: a case may wait for an hour.
            with trio.fail_after(_PATIENCE + sum(s.seconds for s in script.steps if isinstance(s, Wait))):
                return await _Play(self, script, self.clock()).run()

        return trio.run(main, clock=self.loop_clock())

    def loop_clock(self) -> trio.abc.Clock | None:
        return None

    def clock(self) -> Callable[[], float]:
        raise NotImplementedError

    async def pair(self, windowed: bool) -> Streams:
        """Two ends of a new connection; a windowed one holds nothing on its way."""
        raise NotImplementedError


class SocketWorld(_LiveWorld):
    """Real TCP connections over the loopback, real time: the stream driver's way with them."""

    capabilities = frozenset(
        (
            "half_close",
            "reset",
            "watch_paused",
            "urgent",
            "second_flow",
            "connection",
            "addresses",
            "comes_back",
        )
    )
    quiet = _QUIET

    def clock(self) -> Callable[[], float]:
        return time.monotonic

    async def pair(self, windowed: bool) -> Streams:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            far = socket.create_connection(listener.getsockname())
            near, _ = listener.accept()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ends = [trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in (far, near)]
        return ends[0], ends[1]


class ReactorWorld(SocketWorld):
    """Real TCP connections over the loopback, real time: the reactor's way with them."""

    name = "reactor"
    driver = "reactor"


class StreamWorld(_LiveWorld):
    """Streams of trio's in memory, which know half-closes but no resets, under virtual time."""

    capabilities = frozenset(
        ("half_close", "virtual_time", "window", "second_flow", "connection", "addresses", "comes_back")
    )

    def loop_clock(self) -> trio.abc.Clock | None:
        return MockClock(autojump_threshold=0)

    def clock(self) -> Callable[[], float]:
        began = trio.current_time()
        return lambda: trio.current_time() - began

    async def pair(self, windowed: bool) -> Streams:
        return lockstep_stream_pair() if windowed else memory_stream_pair()


@dataclass
class _End:
    """A far end: what it has sent, and what it has got."""

    stream: trio.abc.HalfCloseableStream
    sent: int = 0
    fin_sent: bool = False
    left: bool = False
    got: bytearray = field(default_factory=bytearray)
    fin: bool = False
    reset: bool = False
    urgent: list[tuple[int, bytes]] = field(default_factory=list)
    window: int | None = None
    opened: trio.Event = field(default_factory=trio.Event)
    reading: trio.CancelScope = field(default_factory=trio.CancelScope)

    def open_window(self, size: int | None) -> None:
        """So many bytes more are taken, None: all."""
        self.window = size
        self.reading.cancel()
        self.opened.set()

    @property
    def over(self) -> bool:
        return self.fin or self.reset

    def state(self) -> EndState:
        # A reset behind a FIN is seen by who looks, not by who reads.
        if self.fin and not self.left and isinstance(self.stream, trio.SocketStream):
            poll = select.poll()
            poll.register(self.stream.socket.fileno(), 0)
            self.reset = any(mask & select.POLLERR for _, mask in poll.poll(0))
        return EndState(bytes(self.got), self.fin, self.reset, tuple(self.urgent))

    async def read(self) -> None:
        """To the end."""
        try:
            while True:
                if isinstance(self.stream, trio.SocketStream):
                    await trio.lowlevel.wait_readable(self.stream.socket)
                marked = self._is_at_mark()
                piece = await self._take(1 if marked else 65_536)
                if not piece:
                    break
                if marked:
                    self.urgent.append((len(self.got), bytes(piece)))
                self.got += piece
            self.fin = True
        except trio.BrokenResourceError:
            self.reset = True
        except trio.ClosedResourceError:
            self.left = True

    async def _take(self, most: int) -> bytes:
        """What comes next, as far as it is wanted."""
        while True:
            if self.window == 0:
                self.opened = trio.Event()
                await self.opened.wait()
                continue
            self.reading = trio.CancelScope()
            with self.reading:
                piece = await self.stream.receive_some(
                    most if self.window is None else min(most, self.window)
                )
                self.window = None if self.window is None else self.window - len(piece)
                return bytes(piece)

    def _is_at_mark(self) -> bool:
        if not isinstance(self.stream, trio.SocketStream):
            return False
        answer = bytearray(4)
        fcntl.ioctl(self.stream.socket.fileno(), _SIOCATMARK, answer)
        return bool(struct.unpack("i", answer)[0])

    async def send(self, data: bytes, urgent: bool) -> None:
        try:
            if urgent and isinstance(self.stream, trio.SocketStream):
                self.sent += await self.stream.socket.send(data, socket.MSG_OOB)
            else:
                await self.stream.send_all(data)
                self.sent += len(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.left = True  # the relay is gone; what it has of us by now is all it gets

    async def half_close(self) -> None:
        try:
            await self.stream.send_eof()
            self.fin_sent = True
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.left = True

    def break_off(self) -> None:
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.stream.socket.close()
        self.reset = self.left = True


class _Engine(FilterEngine):
    """Remembers which connection was asked for last."""

    _attempt: Attempt | None = None

    def connection_requested(self, endpoints: Endpoints) -> Attempt:
        self._attempt = super().connection_requested(endpoints)
        return self._attempt

    def came_from(self, address: tuple[str, int] | None) -> None:
        """That one was connected to its upstream from this address."""
        assert self._attempt is not None
        assert address is not None
        self._attempt.connected_from(address)

    def is_blocked(self) -> bool:
        """It comes to nothing."""
        return self._attempt is not None and self._attempt.verdict == "block"

    def is_pended(self) -> bool:
        """It waits for its verdict."""
        return self._attempt is not None and self._attempt.verdict == "pended"


class _Play:
    """One script over one engine."""

    def __init__(self, world: _LiveWorld, script: WorldScript, clock: Callable[[], float]) -> None:
        self.world = world
        self.script = script
        self.events = EventList()
        # Real time is what the machine has left for us: no case depends on it (VRF-3).
        script.options.verify.virtual_time = True
        self.engine = _Engine(clock, script.options)
        self.engine.add_sink(self.events)
        self.nursery: trio.Nursery
        self._ends: dict[Side, _End] = {}
        self._held: list[_End] = []
        self._connections = 0
        self._relaying = 0

    async def run(self) -> WorldOutcome:
        self.script.setup(self.engine)
        async with trio.open_nursery() as self.nursery:
            if self.script.connect:
                await self._connect(Connect())
            for step in self.script.steps:
                await self._perform(step)
                await self._rest()
            outcome = [
                self._ends[side].state() if self._ends else EndState() for side in ("client", "server")
            ]
            self.engine.stop()
            await wait_all_tasks_blocked(self.world.quiet)
            self.nursery.cancel_scope.cancel()
        for end in self._held:
            await trio.aclose_forcefully(end.stream)
        return WorldOutcome(outcome[0], outcome[1], list(self.events))

    async def _connect(self, step: Connect) -> None:
        if step.comes_back:
            self.engine.came_from(step.client)
        windowed = any(isinstance(one, Window) for one in self.script.steps)
        client, near = await self.world.pair(windowed)
        server, upstream_near = await self.world.pair(windowed)
        self._ends = {"client": _End(client), "server": _End(server)}
        self._held += self._ends.values()
        endpoints = Endpoints(
            step.client or (CLIENT, FIRST_PORT + self._connections),
            step.server or SERVER,
            listener_address=step.listener,
            local=step.local or self.script.local,
        )
        self._connections += 1
        self.nursery.start_soon(self._relay, near, upstream_near, endpoints)
        for end in self._ends.values():
            self.nursery.start_soon(end.read)
        await self._rest()

    async def _relay(
        self, near: trio.abc.Stream, upstream_near: trio.abc.Stream, endpoints: Endpoints
    ) -> None:
        self._relaying += 1
        try:
            await relay(near, upstream_near, self.engine, endpoints, driver=self.world.driver)
        finally:
            self._relaying -= 1

    async def _perform(self, step: Step) -> None:
        if isinstance(step, Send):
            await self._ends[step.by].send(step.data, step.urgent)
        elif isinstance(step, Fin):
            await self._ends[step.by].half_close()
        elif isinstance(step, Reset):
            self._ends[step.by].break_off()
        elif isinstance(step, Window):
            self._ends[step.of].open_window(step.size)
        elif isinstance(step, Wait):
            await trio.sleep(step.seconds)
        elif isinstance(step, Act):
            step.fn()
        elif isinstance(step, Connect):
            await self._connect(step)
        else:
            raise AssertionError(
                f"no {type(step).__name__} in this world: the case needs a capability it lacks"
            )

    async def _rest(self) -> None:
        while True:
            await wait_all_tasks_blocked(self.world.quiet)
            if not self.world.quiet or self._is_at_rest():
                return

    def _is_at_rest(self) -> bool:
        """Everything sent has been read by who reads, to its end."""
        if self.engine.has_pending:
            if not self._relaying:
                self.engine.turn()  # nobody drives it any more
            return False
        if self.engine.is_blocked():
            return all(end.over or end.left for end in self._ends.values())
        flow = self._flow()
        if flow is None and self.engine.is_pended() and not self._ends["client"].reset:
            return True
        if flow is None:
            return not self._relaying and all(end.over or end.left for end in self._ends.values())
        if any(end.reset for end in self._ends.values()):
            return False  # the flow will hear of it
        return self._has_passed(flow, "client", "server") and self._has_passed(flow, "server", "client")

    def _flow(self) -> Flow | None:
        flows = [flow for flow in self.engine.flows if not flow.ended]
        return flows[-1] if flows else None

    def _has_passed(self, flow: Flow, source: Side, sink: Side) -> bool:
        direction = flow.direction_from(source)
        ledger: Any = flow.ledger(direction)
        sender, receiver = self._ends[source], self._ends[sink]
        if (
            flow.may_read(direction) == YES
            and not sender.left
            and (sender.fin_sent or ledger.read < sender.sent)
        ):
            return False
        return bool(receiver.over or receiver.left or ledger.written == len(receiver.got))
