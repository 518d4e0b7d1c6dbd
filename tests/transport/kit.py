"""A running proxy with real sockets around it, and callouts that say what they saw.

Everything binds to port 0 and waits for events; leaving `live` checks that nothing was left behind.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from random import SystemRandom
from types import SimpleNamespace
from typing import Any, ParamSpec
from unittest.mock import patch

import trio
from trio.testing import MockClock

from wfpstream.engine import EngineOptions, FilterEngine, Flow, Tap, Timeouts
from wfpstream.fwp import ActionType
from wfpstream.fwps import (
    Callout,
    ClassifyOut,
    IncomingMetadataValues,
    OutOfBandCallout,
    StreamActionType,
    StreamCalloutIoPacket,
    StreamFlags,
    Worker,
)
from wfpstream.transport import ListenerSpec, Proxy, _reactor, serve_proxy
from wfpstream.transport._connection import Driver
from wfpstream.transport._deadlines import Deadlines
from wfpstream.transport._sockets import original_destination

P = ParamSpec("P")

# Which driver `live` takes: every test runs with both (conftest).
current_driver: Driver = "reactor"
# What engines made here go by.
current_clock: Callable[[], float] = time.monotonic

CHUNK = bytes(64 * 1024)
RESET = struct.pack("ii", 1, 0)
_RECEIVE = int(StreamFlags.RECEIVE)


def bounded(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test under trio; it fails after 100 seconds, which is before pytest gives up."""

    @wraps(test)
    def sync(*args: P.args, **kwargs: P.kwargs) -> None:
        async def main() -> None:
            with trio.fail_after(100):
                await test(*args, **kwargs)

        trio.run(main)

    return sync


def timed(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """As `bounded`, with a clock for trio, engine and driver that goes as ever, and that `pass_time` puts forward.

    What is to come by time then comes when the test has seen what is to be before it, however slow the machine is.
    """

    @wraps(test)
    def sync(*args: P.args, **kwargs: P.kwargs) -> None:
        clock = MockClock(rate=1.0)
        with (
            patch.object(_reactor, "time", SimpleNamespace(monotonic=clock.current_time)),
            patch.object(Deadlines.__init__, "__defaults__", (clock.current_time,)),
            patch(f"{__name__}.current_clock", clock.current_time),
        ):
            trio.run(lambda: test(*args, **kwargs), clock=clock)

    return sync


def pass_time(seconds: float) -> None:
    """So long goes by at once, in a test that is `timed`."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    clock.jump(seconds)


# --- callouts ---------------------------------------------------------------------------------------


class Probe(Callout):
    """Sees everything and permits it; a test overrides `answer`.

    Attributes:
        seen: (stream flags, bytes) of every indication.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[int, bytes]] = []
        self.flow_id = 0
        self.layer_id = 0
        self.deleted = 0

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: IncomingMetadataValues,
        layer_data: StreamCalloutIoPacket,
        classify_context: object,
        filter: object,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Note it and answer."""
        self.flow_id = in_meta_values.flow_handle
        self.layer_id = in_fixed_values.layer_id
        stream = layer_data.stream_data
        self.seen.append((stream.flags, stream.tobytes()))
        classify_out.action_type = int(ActionType.PERMIT)
        if stream.data_length:
            self.answer(stream.flags, layer_data, classify_out)

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """What to say to data; permit unless overridden."""


class Deferring(Probe):
    """Defers what the upstream sends until `go` is called."""

    def __init__(self) -> None:
        super().__init__()
        self.open = False
        self.deferred = 0

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """DEFER, inbound."""
        if flags & _RECEIVE and not self.open:
            self.deferred = flags
            packet.stream_action = int(StreamActionType.DEFER)
            out.action_type = int(ActionType.NONE)

    def go(self) -> None:
        """Continue."""
        self.open = True
        callout_id = self.callout_id(self.layer_id)
        status = self.fwps.stream_continue(self.flow_id, callout_id, self.layer_id, self.deferred)
        assert status.ok


class Dropping(Probe):
    """Drops the connection at the first data that contains `word`."""

    def __init__(self, word: bytes) -> None:
        super().__init__()
        self.word = word

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """DROP_CONNECTION."""
        if self.word in self.seen[-1][1]:
            packet.stream_action = int(StreamActionType.DROP_CONNECTION)
            out.action_type = int(ActionType.NONE)


class Asking(Worker):
    """Asks the outside world about every item before it lets it go."""

    async def run(self) -> None:
        """Answers are injected in place of the data."""
        while True:
            item = await self.next()
            if item.kind != "data":
                await self.inject_fin()
                return
            item.release()
            try:
                answer = await self.call(_look_up, item.data)
            except LookupError as error:
                answer = f"error: {error}".encode()
            await self.inject(answer)


class AskingCallout(OutOfBandCallout):
    """One worker per direction."""

    worker_class = Asking


async def _look_up(word: bytes) -> bytes:
    await trio.sleep(0)
    if word == b"?":
        raise LookupError("no such word")
    return word.upper()


# --- peers ------------------------------------------------------------------------------------------


def reset(stream: trio.SocketStream) -> None:
    """Reset the connection."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stream.socket.close()


async def read_all(stream: trio.abc.ReceiveStream) -> tuple[bytes, str]:
    """Read to the end: the bytes, and "fin" or "reset"."""
    data = bytearray()
    while True:
        try:
            piece = await stream.receive_some()
        except trio.BrokenResourceError:
            return bytes(data), "reset"
        if not piece:
            return bytes(data), "fin"
        data += piece


async def read_exactly(stream: trio.abc.ReceiveStream, count: int) -> bytes:
    """Read `count` bytes; fails at an earlier end."""
    data = bytearray()
    while len(data) < count:
        piece = await stream.receive_some(count - len(data))
        assert piece, f"the stream ended after {len(data)} of {count} bytes"
        data += piece
    return bytes(data)


async def send_until_blocked(stream: trio.SocketStream, proxy_stops: Callable[[], bool], most: int) -> int:
    """Send until the kernel takes no more and the proxy has stopped reading: how much was accepted."""
    accepted = 0
    while True:
        try:
            accepted += _send_now(stream)
            assert accepted < most, "nothing holds the sender up"
        except BlockingIOError:
            if proxy_stops():
                with trio.move_on_after(0.05) as scope:
                    await trio.lowlevel.wait_writable(stream.socket)
                if scope.cancelled_caught:
                    return accepted
            await trio.lowlevel.checkpoint()


def _send_now(stream: trio.SocketStream) -> int:
    borrowed = socket.socket(fileno=stream.socket.fileno())
    try:
        return borrowed.send(CHUNK)
    finally:
        borrowed.detach()


class Events:
    """A sink that keeps everything and wakes who waits."""

    wants_data = "off"

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []
        self._lot = trio.lowlevel.ParkingLot()

    def __call__(self, event: dict[str, Any]) -> None:
        self.all.append(event)
        self._lot.unpark_all()

    def named(self, name: str) -> list[dict[str, Any]]:
        """All events of a name, in order."""
        return [event for event in self.all if event["event"] == name]

    async def wait(self, name: str, count: int = 1) -> dict[str, Any]:
        """The `count`-th event of a name, when it has come."""
        while len(self.named(name)) < count:
            await self._lot.park()
        return self.named(name)[count - 1]


class Live:
    """A proxy between `client()` and the upstream listener."""

    def __init__(self, engine: FilterEngine, upstream: trio.socket.SocketType) -> None:
        self.engine = engine
        self.events = Events()
        self.lines: list[str] = []
        self.upstream = upstream
        self.proxy: Proxy
        self._peers: list[trio.SocketStream] = []

    def log(self, line: str) -> None:
        """Keep what the proxy says; not what depends on how busy the machine is."""
        if not is_about_time(line):
            self.lines.append(line)

    @property
    def flow(self) -> Flow:
        """The one flow there is."""
        (flow,) = self.engine.flows
        return flow

    async def client(self, words: bytes = b"") -> trio.SocketStream:
        """A new connection to the proxy. `words` are said before the proxy can have answered anything."""
        listener = self.proxy.listeners[0]
        sock = socket.socket(socket.AF_INET6 if ":" in listener.host else socket.AF_INET)
        try:
            # Blocking, which takes no time here: the proxy cannot reset before `connect` has returned.
            sock.connect((listener.host, listener.port))
            sock.sendall(words)
        except BaseException:
            sock.close()
            raise
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._peers.append(stream)
        await trio.lowlevel.checkpoint()
        return stream

    async def accept(self) -> trio.SocketStream:
        """The next connection the proxy makes to the upstream."""
        sock, _ = await self.upstream.accept()
        self._peers.append(trio.SocketStream(sock))
        return self._peers[-1]

    async def pair(self) -> tuple[trio.SocketStream, trio.SocketStream]:
        """A relayed connection, when the engine has its flow: the client's end and the server's."""
        established = len(self.events.named("flow_established"))
        client, server = await self.client(), await self.accept()
        await self.events.wait("flow_established", established + 1)
        return client, server

    def close(self) -> None:
        """Close the ends the test held."""
        for peer in self._peers:
            peer.socket.close()
        self.upstream.close()

    async def deleted(self, count: int = 1) -> dict[str, Any]:
        """The `count`-th `flow_deleted`."""
        return await self.events.wait("flow_deleted", count)


async def listening(host: str = "127.0.0.1") -> trio.socket.SocketType:
    """An upstream that has nothing to do with the proxy."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = trio.socket.socket(family)
    await sock.bind((host, 0))
    sock.listen()
    return sock


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on, and that the kernel gives to nobody meanwhile who asks for any."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with socket.socket(family) as sock:
            try:
                sock.bind((host, SystemRandom().randrange(1024, lowest) if lowest > 4096 else 0))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return int(sock.getsockname()[1])


def patient(options: EngineOptions) -> EngineOptions:
    """The same, with all the time in the world for what is as by default: a test says which time is to run out."""
    usual = Timeouts()
    for name in ("connect", "proxy_header", "pend_connect", "reset_flush", "drain"):
        if getattr(options.timeouts, name) == getattr(usual, name):
            setattr(options.timeouts, name, 3600.0)
    return options


def make_engine(
    *callouts: Callout, options: EngineOptions | None = None, clock: Callable[[], float] | None = None
) -> FilterEngine:
    """An engine with these callouts in this order, and patience."""
    engine = FilterEngine(clock or current_clock, patient(options or EngineOptions()))
    for callout in callouts:
        engine.add_callout(callout)
    return engine


@asynccontextmanager
async def live(
    *callouts: Callout,
    options: EngineOptions | None = None,
    local: str = "client",
    host: str = "127.0.0.1",
    upstream_host: str | None = None,
    upstream_port: int | None = None,
    bound: socket.socket | None = None,
    quiet: bool = True,
    mark: int = 0,
    original: Callable[[socket.socket], tuple[str, int] | None] = original_destination,
    resolver: trio.abc.HostnameResolver | None = None,
    tap: Tap | None = None,
    clock: Callable[[], float] | None = None,
    **fields: Any,
) -> AsyncIterator[Live]:
    """Run a proxy; at the end every flow must be gone, accounted for, and (`quiet`) nothing complained of.

    `fields` are further ones of the listener; `original` stands in for what the kernel says of a redirected socket,
    `clock` for the one that the engine goes by.
    """
    if resolver is not None:
        trio.socket.set_custom_hostname_resolver(resolver)
    engine = make_engine(*callouts, options=options, clock=clock)
    upstream = await listening("127.0.0.1" if host == "0.0.0.0" else host)
    run = Live(engine, upstream)
    engine.add_sink(run.events)
    port = upstream_port or upstream.getsockname()[1]
    if fields.get("mode", "reverse") == "reverse":
        fields |= {"upstream_host": upstream_host or host, "upstream_port": port}
    spec = ListenerSpec(**({"name": "web", "host": host, "local": local} | fields))

    async def serve(task_status: trio.TaskStatus[Proxy]) -> None:
        await serve_proxy(
            engine,
            [spec],
            bound=[bound],
            grace=0.0,
            log=run.log,
            mark=mark,
            original=original,
            tap=tap,
            driver=current_driver,
            task_status=task_status,
        )

    try:
        async with trio.open_nursery() as nursery:
            run.proxy = await nursery.start(serve)
            yield run
            await run.proxy.stop()
    finally:
        run.close()
    assert_clean(engine)
    assert run.proxy.connections == 0
    assert not (quiet and run.lines), run.lines


def is_about_time(line: str) -> bool:
    """Whether the watchdog says that a call took long: under a hypervisor even a quick one may, by its clock."""
    return line.endswith(("every flow waits meanwhile", "every flow waited meanwhile"))


def assert_clean(engine: FilterEngine) -> None:
    """No flow is left, every byte is accounted for, and the driver took its hooks out."""
    assert engine.flows == []
    assert engine.counters.get("ledger_faults", 0) == 0
    assert engine.run_soon is None
    assert engine.spawn_call is None
