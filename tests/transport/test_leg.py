"""Flows in the reactor over real sockets: the traps of edge-triggered reading and of closing, each by its name."""

from __future__ import annotations

import fcntl
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport import kit
from tests.transport.kit import (
    Deferring,
    Live,
    Probe,
    bounded,
    live,
    pass_time,
    read_all,
    read_exactly,
    reset,
    timed,
)
from wfpstream.engine import DEFERRED, EngineOptions, Flow, Timeouts
from wfpstream.fwps import ClassifyOut, OutOfBandCallout, StreamCalloutIoPacket, StreamFlags, Worker
from wfpstream.transport._hub import _hubs
from wfpstream.transport._socket_flow import SocketFlow
from wfpstream.transport._sockets import send_queue_length

_SIOCATMARK = 0x8905
EXPEDITED = int(StreamFlags.SEND_EXPEDITED) | int(StreamFlags.RECEIVE_EXPEDITED)
READ = 2048


def small_reads() -> EngineOptions:
    """A read takes at most `READ` bytes."""
    options = EngineOptions()
    options.limits.unsent = 2 * READ
    return options


async def wait_deferred(run: Live, side: str) -> None:
    """What comes from that side is not read at present."""
    while run.flow.may_read(run.flow.direction_from(side)) != DEFERRED:
        await trio.lowlevel.checkpoint()


def raw(stream: trio.SocketStream) -> socket.socket:
    """The stdlib socket of a stream."""
    sock: socket.socket = stream.socket._sock  # type: ignore[attr-defined]
    return sock


# --- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", ["client", "server"])
@bounded
async def test_an_edge_that_came_while_paused_is_replayed_by_us_on_resume(local: str) -> None:
    """The kernel said all it had to say while nobody read; nothing comes after the resume."""
    probe = Deferring()
    async with live(probe, local=local, options=small_reads()) as run:
        client, server = await run.pair()
        sender, receiver, side = (
            (server, client, "upstream") if local == "client" else (client, server, "client")
        )
        await sender.send_all(b"1")
        await wait_deferred(run, side)
        await sender.send_all(b"2" * 9 * READ)
        await sender.send_eof()
        await wait_all_tasks_blocked()  # whatever the edges of these brought about has come to rest
        probe.go()
        assert await read_all(receiver) == (b"1" + b"2" * 9 * READ, "fin")


@bounded
async def test_a_read_that_did_not_empty_the_socket_is_followed_by_another() -> None:
    """All lies in the kernel before the first read: no further edge comes."""
    async with live(Probe(), options=small_reads()) as run:
        client, server = await run.pair()
        data = bytes(range(256)) * 10 * (READ // 256) + b"and the rest"
        assert raw(client).send(data) == len(data)
        assert await read_exactly(server, len(data)) == data


@bounded
async def test_bytes_in_front_of_an_end_that_came_with_them_are_read() -> None:
    """The FIN's edge is the last one there is."""
    async with live(Probe(), options=small_reads()) as run:
        client, server = await run.pair()
        data = b"z" * (7 * READ + 1)
        assert raw(client).send(data) == len(data)
        raw(client).shutdown(socket.SHUT_WR)
        assert await read_all(server) == (data, "fin")


# --- ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["client", "server"])
@bounded
async def test_a_hang_up_after_both_fins_is_no_reset(first: str) -> None:
    async with live(Probe()) as run:
        client, server = await run.pair()
        one, other = (client, server) if first == "client" else (server, client)
        await one.send_eof()
        assert await read_all(other) == (b"", "fin")
        await other.send_all(b"last words")
        await other.send_eof()
        assert await read_all(one) == (b"last words", "fin")
        assert (await run.deleted())["reason"] == "fin"


@pytest.mark.parametrize("local", ["client", "server"])
@bounded
async def test_a_hang_up_while_the_last_bytes_are_held_back_is_no_reset(local: str) -> None:
    """Our FIN was sent and the peer's is in the kernel, behind bytes that nobody may read yet: EPOLLHUP says so."""
    probe = Deferring()
    async with live(probe, local=local) as run:
        client, server = await run.pair()
        one, other, side = (client, server, "upstream") if local == "client" else (server, client, "client")
        await one.send_eof()
        assert await read_all(other) == (b"", "fin")
        await other.send_all(b"last ")
        await wait_deferred(run, side)
        await other.send_all(b"words")
        await other.send_eof()
        await wait_all_tasks_blocked()
        assert run.flow.abort == 0
        probe.go()
        assert await read_all(one) == (b"last words", "fin")
        assert (await run.deleted())["reason"] == "fin"


@pytest.mark.parametrize("resetter", ["client", "server"])
@bounded
async def test_a_reset_is_never_taken_for_an_end(resetter: str) -> None:
    """Nobody asks for SO_ERROR after the connect: that would clear it, and the next read would say EOF."""
    async with live(Probe()) as run:
        client, server = await run.pair()
        one, other = (client, server) if resetter == "client" else (server, client)
        await one.send_all(b"x")
        assert await read_exactly(other, 1) == b"x"
        reset(one)
        assert await read_all(other) == (b"", "reset")
        assert (await run.deleted())["reason"] == ("rst_client" if resetter == "client" else "rst_upstream")


class OneWord(Worker):
    """Ends what goes to the server behind the client's first word; what the client says later nobody reads."""

    async def run(self) -> None:
        """One item, then the FIN."""
        if self.direction_name == "to_client":
            await super().run()
            return
        await self.inject(await self.next())
        await self.inject_fin()


class OneWordCallout(OutOfBandCallout):
    """One worker per direction."""

    worker_class = OneWord


@bounded
async def test_what_nobody_reads_does_not_destroy_the_last_answer() -> None:
    """Closed at once, the leg would answer what comes yet with a reset, and part of the answer was not sent yet."""
    answer = b""
    async with live(OneWordCallout(), options=small_reads()) as run:
        client, server = await run.pair()
        await client.send_all(b"word")
        assert await read_all(server) == (b"word", "fin")
        (driven,) = _hubs[id(run.engine)].drivers.values()
        assert isinstance(driven, SocketFlow)
        leg = driven.sides[run.flow.direction_from("client")].sock
        while send_queue_length(leg) < 1 << 16:  # the client's kernel takes no more
            answer += kit.CHUNK
            await server.send_all(kit.CHUNK)
            while run.flow.ledger(run.flow.direction_from("upstream")).written < len(answer):
                await trio.lowlevel.checkpoint()
        await server.send_eof()
        while not driven.over:  # both FINs are on their way, and the client has read nothing
            await trio.lowlevel.checkpoint()
        raw(client).send(b"nobody reads this")
        assert await read_all(client) == (answer, "fin")
        await client.send_eof()
        assert (await run.deleted())["reason"] == "fin"


@timed
async def test_the_courtesy_of_draining_is_bounded() -> None:
    """The client never ends."""
    options = small_reads()
    options.timeouts = Timeouts(reset_flush=600.0)
    async with live(OneWordCallout(), options=options) as run:
        client, server = await run.pair()
        await client.send_all(b"word")
        assert await read_all(server) == (b"word", "fin")
        raw(client).send(b"nobody reads this " * 1000)
        await server.send_eof()
        assert await read_all(client) == (b"", "fin")
        await wait_all_tasks_blocked()
        assert run.proxy.connections == 1
        pass_time(600.0)
        assert (await run.deleted())["reason"] == "fin"


# --- urgent data ------------------------------------------------------------------------------------


async def read_marked(stream: trio.SocketStream, count: int) -> tuple[bytes, list[int]]:
    """So many bytes, and where among them the urgent ones were."""
    data, marks = bytearray(), []
    while len(data) < count:
        await trio.lowlevel.wait_readable(stream.socket)
        marked = fcntl.ioctl(stream.socket.fileno(), _SIOCATMARK, bytes(4)) != bytes(4)
        piece = await stream.receive_some(1 if marked else count - len(data))
        assert piece
        if marked:
            marks.append(len(data))
        data += piece
    return bytes(data), marks


PLACES = {
    "alone": (b"", b""),
    "first": (b"", b"after"),
    "in the middle": (b"before", b"after"),
    "at the end": (b"before", b""),
    "behind exactly one full read": (b"b" * READ, b"after"),
    "behind several full reads": (b"b" * (3 * READ), b"a" * READ),
    "behind more than full reads": (b"b" * (2 * READ + 1), b"a"),
}


@pytest.mark.parametrize("sender", ["client", "server"])
@pytest.mark.parametrize("place", PLACES)
@bounded
async def test_an_urgent_byte_keeps_its_place_and_its_mark(place: str, sender: str) -> None:
    """IND-7. All of it is there before the first read."""
    before, after = PLACES[place]
    probe = Probe()
    async with live(probe, options=small_reads()) as run:
        ends = await run.pair()
        one, other = ends if sender == "client" else ends[::-1]
        other.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if before:
            raw(one).send(before)
        raw(one).send(b"!", socket.MSG_OOB)
        if after:
            raw(one).send(after)
        whole = before + b"!" + after
        assert await read_marked(other, len(whole)) == (whole, [len(before)])
        assert [data for flags, data in probe.seen if flags & EXPEDITED] == [b"!"]
        assert b"".join(data for _, data in probe.seen) == whole


@pytest.mark.parametrize("place", PLACES)
@bounded
async def test_an_urgent_byte_that_came_while_paused_keeps_its_place(place: str) -> None:
    before, after = PLACES[place]
    probe = Deferring()
    async with live(probe, options=small_reads()) as run:
        client, server = await run.pair()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        await server.send_all(b"#")
        await wait_deferred(run, "upstream")
        for piece, flags in ((before, 0), (b"!", socket.MSG_OOB), (after, 0)):
            if piece:
                raw(server).send(piece, flags)
                await wait_all_tasks_blocked()
        probe.go()
        whole = b"#" + before + b"!" + after
        assert await read_marked(client, len(whole)) == (whole, [1 + len(before)])


@pytest.mark.parametrize("sender", ["client", "server"])
@bounded
async def test_several_urgent_bytes_each_keep_their_mark(sender: str) -> None:
    """The kernel keeps one mark at a time: the next one is sent when the last has been read."""
    async with live(Probe(), options=small_reads()) as run:
        ends = await run.pair()
        one, other = ends if sender == "client" else ends[::-1]
        other.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        for number in range(6):
            plain = bytes([65 + number]) * (number * 700)
            if plain:
                await one.send_all(plain)
            raw(one).send(b"!", socket.MSG_OOB)
            assert await read_marked(other, len(plain) + 1) == (plain + b"!", [len(plain)])


# --- from inside classify ---------------------------------------------------------------------------


class Acting(Probe):
    """Does something once, in the middle of a call."""

    def __init__(self) -> None:
        super().__init__()
        self.act: Callable[[], object] | None = None

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """Act, and permit."""
        act, self.act = self.act, None
        if act is not None:
            act()


@pytest.mark.parametrize("what", ["request_stop", "abort_flows", "stop_engine", "retire"])
@bounded
async def test_a_callout_may_end_things_from_inside_classify(what: str) -> None:
    """Its own flow and another one are in the middle of a batch."""
    callout = Acting()
    async with live(quiet=False) as run:
        added = run.engine.add_callout(callout)
        pairs = [await run.pair() for _ in range(3)]
        acts: dict[str, Callable[[], object]] = {
            "request_stop": lambda: run.proxy.request_stop(0.0),
            "abort_flows": run.engine.abort_flows,
            "stop_engine": run.engine.stop,
            "retire": lambda: run.engine.retire_callout(added),
        }
        callout.act = acts[what]
        for client, _ in pairs:
            raw(client).send(b"all at once")
        if what == "retire":
            for client, server in pairs:
                assert await read_exactly(server, 11) == b"all at once"
                await server.send_all(b"still here")
                assert await read_exactly(client, 10) == b"still here"
            run.engine.abort_flows()
        for client, server in pairs:
            assert (await read_all(client))[1] == "reset"
            assert (await read_all(server))[1] == "reset"
        await run.deleted(3)
        assert not run.lines


# --- others' events while the reactor sleeps --------------------------------------------------------


class Patient(Worker):
    """Answers each item when a thread, or the clock, says so."""

    gate = threading.Event()
    asked = threading.Event()

    async def run(self) -> None:
        while True:
            item = await self.next()
            if item.kind != "data":
                await self.inject_fin()
                return
            item.release()
            if item.data == b"thread":
                await self.call(trio.to_thread.run_sync, self.gate.wait)
            else:
                await self.sleep(0.01)
            await self.inject(item.data.upper())


class PatientCallout(OutOfBandCallout):
    """One worker per direction."""

    worker_class = Patient


@pytest.mark.parametrize("waits_for", [b"thread", b"sleep"])
@bounded
async def test_what_a_worker_injects_leaves_while_the_reactor_sleeps(waits_for: bytes) -> None:
    """No event of any socket comes: the injection itself has to get things going."""
    Patient.gate.clear()
    async with live(PatientCallout()) as run:
        client, server = await run.pair()
        await client.send_all(waits_for)
        if waits_for == b"thread":
            await wait_all_tasks_blocked(0.01)
            Patient.gate.set()
        assert await read_exactly(server, len(waits_for)) == waits_for.upper()


@bounded
async def test_a_timer_of_a_callout_comes_while_the_reactor_is_busy() -> None:
    """The bulk goes on until it has come."""
    probe = Probe()
    came = trio.Event()
    async with live(probe) as run:
        client, server = await run.pair()

        async def bulk() -> None:
            while not came.is_set():
                await client.send_all(kit.CHUNK)
            await client.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(bulk)
            nursery.start_soon(read_all, server)
            probe.after(0.05, came.set)


# --- one flow's trouble is its own ------------------------------------------------------------------


@pytest.mark.parametrize("where", ["pass_on", "settle_output", "received", "sent"])
@bounded
async def test_a_defect_ends_its_own_flow_and_no_other(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(Probe(), options=small_reads(), quiet=False) as run:
        owner: Any = Flow if where in ("received", "sent") else run.engine
        kept, doomed = getattr(owner, where), [0]

        def spoilt(flow: Flow, *args: Any) -> Any:
            if flow.id == doomed[0]:
                doomed[0] = 0
                raise RuntimeError("defect")
            return kept(flow, *args)

        monkeypatch.setattr(owner, where, spoilt)
        ill = await run.pair()
        doomed[0] = -run.flow.id
        well = await run.pair()
        for client, server in (await run.pair(), well):
            await client.send_all(b"x" * 5 * READ)
            assert await read_exactly(server, 5 * READ) == b"x" * 5 * READ
        doomed[0] = -doomed[0]
        raw(ill[0]).send(b"y" * 5 * READ)
        if where != "pass_on":  # the others are for those who have to look closely
            raw(ill[0]).send(b"!", socket.MSG_OOB)
        assert (await read_all(ill[1]))[1] == "reset"
        assert (await read_all(ill[0]))[1] == "reset"
        await well[1].send_all(b"well")
        assert await read_exactly(well[0], 4) == b"well"
        assert run.lines == ["listener web: RuntimeError: defect"]
