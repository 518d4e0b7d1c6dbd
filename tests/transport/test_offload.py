"""Flows that the kernel moves, over real sockets: in, out again, and every way to end (ALW-7, ALW-8)."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.kit import (
    CHUNK,
    Events,
    Live,
    Probe,
    bounded,
    live,
    pass_time,
    read_all,
    read_exactly,
    reset,
    send_until_blocked,
    timed,
)
from wfpstream.engine import EngineOptions, Timeouts
from wfpstream.fwp import ActionType, CalloutFlags
from wfpstream.fwps import ClassifyOut, StreamActionType, StreamCalloutIoPacket
from wfpstream.transport import _offload, _socket_flow
from wfpstream.transport._hub import Hub, _hubs
from wfpstream.transport._leg import MUCH
from wfpstream.transport._splice import PipePool

MIB = 1 << 20


class Allowing(Probe):
    """Answers ALLOW_CONNECTION when it has seen so many bytes in all."""

    def __init__(self, after: int = 1) -> None:
        super().__init__()
        self.left = after

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """Permit, or let all go."""
        self.left -= packet.stream_data.data_length
        if self.left <= 0:
            out.action_type = int(ActionType.NONE)
            packet.stream_action = int(StreamActionType.ALLOW_CONNECTION)


class Late(Probe):
    """Joins a flow that runs."""

    flags = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)

    def all_of(self, direction: int) -> bytes:
        """What it saw of a direction."""
        return b"".join(data for flags, data in self.seen if flags & direction)


class Ears:
    """A tap that counts what is read."""

    def __init__(self) -> None:
        self.heard = 0

    def joined(self, flow: int, leg: str, own: object, peer: object) -> None:
        """Nothing to do."""

    def cut(self, flow: int, leg: str, data: memoryview) -> tuple[int, ...]:
        """In one."""
        return ()

    def read(self, flow: int, leg: str, data: bytes, urgent: bool) -> None:
        """Count."""
        self.heard += len(data)

    def wrote(self, flow: int, leg: str, data: bytes, urgent: bool) -> None:
        """Nothing to do."""

    def fin_read(self, flow: int, leg: str) -> None:
        """Nothing to do."""

    def fin_wrote(self, flow: int, leg: str) -> None:
        """Nothing to do."""

    def reset_read(self, flow: int, leg: str) -> None:
        """Nothing to do."""


def hub_of(run: Live) -> Hub:
    return _hubs[id(run.engine)]


def offloads(run: Live) -> int:
    return run.engine.counters.get("offloads", 0)


async def offloaded_pair(run: Live) -> tuple[trio.SocketStream, trio.SocketStream]:
    """A relayed connection that the kernel moves by now; whatever was sent has arrived."""
    client, server = await run.pair()
    await make_bulky(run, client, server)
    return client, server


async def make_bulky(run: Live, client: trio.SocketStream, server: trio.SocketStream) -> None:
    before = offloads(run)
    while offloads(run) == before:
        await relay_exactly(client, server, CHUNK * 2)
    assert run.flow.is_offloaded


async def relay_exactly(sender: trio.SocketStream, receiver: trio.SocketStream, data: bytes) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send_all, data)
        assert await read_exactly(receiver, len(data)) == data


def noise(seed: int, size: int) -> bytes:
    return Random(seed).randbytes(size)


# --- in ---------------------------------------------------------------------------------------------------


@bounded
async def test_a_bulky_flow_that_nobody_looks_at_is_moved_by_the_kernel() -> None:
    """ALW-7: in both directions, counted, without a pipe while nothing moves."""
    probe = Allowing()
    async with live(probe) as run:
        client, server = await offloaded_pair(run)
        seen = len(probe.seen)
        flow = run.flow
        for sender, receiver, direction in ((client, server, 0), (server, client, 1)):
            data, before = noise(direction, 2 * MIB), flow.ledger(direction)
            await relay_exactly(sender, receiver, data)
            after = flow.ledger(direction)
            assert after.read - before.read == after.written - before.written == len(data)
            assert after.faults() == []
        assert len(probe.seen) == seen
        while hub_of(run).pipes.lent:
            await trio.lowlevel.checkpoint()
        assert [event["dir"] for event in run.events.named("offload")] == ["to_upstream", "to_client"]
        await client.aclose()
        await server.aclose()
        assert (await run.deleted())["reason"] == "fin"


@bounded
async def test_a_flow_of_small_messages_stays() -> None:
    """It would pay with a system call more for each of them."""
    async with live() as run:
        client, server = await run.pair()
        for _ in range(50):
            await relay_exactly(client, server, b"x" * 64)
            await relay_exactly(server, client, b"y" * (MUCH // 8))
        assert offloads(run) == 0
        await make_bulky(run, client, server)


@bounded
async def test_a_flow_that_turns_to_small_messages_is_taken_back() -> None:
    """Each costs a system call more; when the flow is bulky again it is handed over again."""
    async with live() as run:
        client, server = await offloaded_pair(run)
        sent = 0
        while run.flow.is_offloaded:
            await relay_exactly(client, server, b"x" * 64)
            await relay_exactly(server, client, b"y" * 64)
            sent += 2
        assert _offload.TOO_OFTEN - 2 <= sent <= _offload.TOO_OFTEN + 2
        assert offloads(run) == 1
        await make_bulky(run, client, server)


@bounded
async def test_a_flow_somebody_looks_at_stays() -> None:
    async with live(Probe()) as run:
        client, server = await run.pair()
        await relay_exactly(client, server, bytes(MIB))
        assert offloads(run) == 0


@bounded
async def test_a_tapped_flow_stays() -> None:
    """Who listens in on the legs wants to hear of every byte."""

    tap = Ears()
    async with live(tap=tap) as run:
        client, server = await run.pair()
        await relay_exactly(client, server, bytes(MIB))
        assert run.flow.offload_wanted
        assert offloads(run) == 0
        assert tap.heard == MIB


@pytest.mark.parametrize("seed", range(6))
@bounded
async def test_the_switch_comes_anywhere_and_no_byte_is_lost(seed: int) -> None:
    """ALLOW_CONNECTION at a random place of a stream that runs both ways, in pieces of random sizes."""
    dice = Random(seed)
    sizes = [dice.randrange(2 * MIB, 5 * MIB) for _ in range(2)]
    async with live(Allowing(after=dice.randrange(1, MIB)), local=dice.choice(["client", "server"])) as run:
        client, server = await run.pair()
        found: dict[str, str] = {}

        async def send(stream: trio.SocketStream, data: bytearray) -> None:
            place = 0
            # Whether there is ever much to read at once is the machine's affair: until it was handed over.
            while place < len(data) or not offloads(run):
                size = dice.choice([1, 100, 5000, 70_000, 300_000])
                if place >= len(data):
                    data += dice.randbytes(size)
                await stream.send_all(data[place : place + size])
                place += size
            await stream.send_eof()

        async def receive(name: str, stream: trio.SocketStream) -> None:
            data, how = await read_all(stream)
            found[name] = hashlib.sha256(data).hexdigest() + how

        sent = [bytearray(noise(seed, sizes[0])), bytearray(noise(seed + 100, sizes[1]))]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, client, sent[0])
            nursery.start_soon(send, server, sent[1])
            nursery.start_soon(receive, "server", server)
            nursery.start_soon(receive, "client", client)
        digests = [hashlib.sha256(data).hexdigest() + "fin" for data in sent]
        assert [found["server"], found["client"]] == digests
        assert offloads(run)
        assert (await run.deleted())["reason"] == "fin"


# --- out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@bounded
async def test_a_filter_that_is_added_sees_exactly_what_comes_later(seed: int) -> None:
    """ALW-8, MID-2: from one byte on it sees all, in order, and what was in a pipe is before it."""
    dice = Random(seed)
    async with live(Allowing()) as run:
        client, server = await offloaded_pair(run)
        data = noise(seed, 6 * MIB)
        late = Late()
        got = bytearray()

        async def receive() -> None:
            while len(got) < len(data):
                got.extend(await server.receive_some(dice.choice([1000, 50_000, 500_000])))

        is_back = trio.Event()

        async def send() -> None:
            await client.send_all(data[: len(data) // 2])
            await is_back.wait()
            await client.send_all(data[len(data) // 2 :])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            nursery.start_soon(send)
            enough = dice.randrange(1, 2 * MIB)
            while len(got) < enough:
                await trio.lowlevel.checkpoint()
            added = run.engine.add_callout(late)
            await run.events.wait("onload", 2)
            is_back.set()
        assert got == data
        seen = late.all_of(late.seen[0][0])
        assert 0 < len(seen) < len(data)
        assert data.endswith(seen)
        assert not run.flow.is_offloaded
        assert run.events.named("onload")
        added.retire()
        await make_bulky(run, client, server)


@pytest.mark.parametrize("seed", range(3))
@bounded
async def test_rules_that_come_and_go_see_their_own_stretch_of_the_stream(seed: int) -> None:
    """In and out many times under full load: every rule sees one stretch without a hole, in the order of the rules."""
    dice = Random(seed)
    data, got = bytearray(), bytearray()
    rules: list[Late] = []
    async with live(Allowing()) as run:
        client, server = await offloaded_pair(run)
        sent = trio.Event()

        async def send() -> None:
            # However the tasks fall: until the rules have been in and out.
            while len(data) < 24 * MIB or offloads(run) < 3 or not any(rule.seen for rule in rules):
                piece = dice.randbytes(MIB)
                data.extend(piece)
                await client.send_all(piece)
            sent.set()  # before the last bytes: they wake the receiver, which looks
            data.extend(b"end")
            await client.send_all(b"end")

        async def receive() -> None:
            while not sent.is_set() or len(got) < len(data):
                got.extend(await server.receive_some(dice.choice([5000, 100_000, 500_000])))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            nursery.start_soon(receive)
            while not sent.is_set() or len(got) < len(data):
                rules.append(Late())
                added = run.engine.add_callout(rules[-1])
                for _ in range(dice.randrange(1, 60)):
                    await trio.lowlevel.checkpoint()
                added.retire()
                for _ in range(dice.randrange(1, 60)):
                    await trio.lowlevel.checkpoint()
        assert got == data
        place = 0
        for rule in rules:
            seen = b"".join(piece for _, piece in rule.seen)
            if seen:
                place = data.index(seen, place) + len(seen)
        assert place


@bounded
async def test_a_sink_that_wants_bytes_takes_flows_back() -> None:
    class Curious(Events):
        wants_data = "preview"

    async with live() as run:
        client, server = await offloaded_pair(run)
        sink = Curious()
        run.engine.add_sink(sink)
        await run.events.wait("onload")
        await relay_exactly(client, server, CHUNK * 4)
        assert not run.flow.is_offloaded
        run.engine.remove_sink(sink)
        await make_bulky(run, client, server)


@bounded
async def test_an_urgent_byte_takes_it_back_for_good() -> None:
    """A splice would stop there; it arrives at its place and with its mark."""
    async with live() as run:
        client, server = await offloaded_pair(run)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        await client.send_all(b"before")
        with trio.socket.from_stdlib_socket(socket.socket(fileno=os.dup(client.socket.fileno()))) as raw:
            await raw.send(b"!", socket.MSG_OOB)
        await client.send_all(b"after")
        assert await read_exactly(server, 12) == b"before!after"
        assert run.flow.urgent_seen
        await relay_exactly(client, server, bytes(MIB))
        assert not run.flow.is_offloaded
        assert offloads(run) == 1


@bounded
async def test_a_flow_that_saw_an_urgent_byte_is_never_handed_over() -> None:
    async with live() as run:
        client, server = await run.pair()
        with trio.socket.from_stdlib_socket(socket.socket(fileno=os.dup(client.socket.fileno()))) as raw:
            await raw.send(b"!", socket.MSG_OOB)
        await client.send_all(b"after")
        await read_exactly(server, 5)
        await relay_exactly(client, server, bytes(MIB))
        assert offloads(run) == 0


# --- ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["client", "server"])
@bounded
async def test_a_half_close_leaves_the_other_half(first: str) -> None:
    """The FIN comes behind the last byte, and the other direction goes on, by the kernel again."""
    async with live(Allowing()) as run:
        ends = await offloaded_pair(run)
        early, late = ends if first == "client" else ends[::-1]
        data = noise(1, MIB)
        async with trio.open_nursery() as nursery:

            async def say_and_end() -> None:
                await early.send_all(data)
                await early.send_eof()

            nursery.start_soon(say_and_end)
            assert await read_all(late) == (data, "fin")
        before = offloads(run)
        await relay_exactly(late, early, noise(2, 2 * MIB))
        while offloads(run) == before:
            await relay_exactly(late, early, CHUNK * 2)
        await late.send_eof()
        assert await read_all(early) == (b"", "fin")
        assert (await run.deleted())["reason"] == "fin"


@pytest.mark.parametrize("who", ["client", "server"])
@bounded
async def test_a_reset_is_relayed_as_one(who: str) -> None:
    """IND-27, while nothing moves."""
    async with live() as run:
        client, server = await offloaded_pair(run)
        victim, other = (client, server) if who == "client" else (server, client)
        await relay_exactly(victim, other, b"last words")
        reset(victim)
        assert await read_all(other) == (b"", "reset")
        reason = "rst_client" if who == "client" else "rst_upstream"
        assert (await run.deleted())["reason"] == reason


@pytest.mark.parametrize("who", ["sender", "receiver"])
@bounded
async def test_a_reset_while_the_receiver_is_slow(who: str) -> None:
    """Bytes in a pipe are owed to a living receiver and given up with a dead one; all are accounted for."""
    async with live() as run:
        client, server = await offloaded_pair(run)
        accepted = await send_until_blocked(client, lambda: bool(hub_of(run).pipes.lent), 1 << 30)
        if who == "sender":
            reset(client)
            data, how = await read_all(server)
            assert how == "reset"
            assert len(data) <= accepted
            assert (await run.deleted())["reason"] == "rst_client"
        else:
            reset(server)
            assert (await run.deleted())["reason"] == "rst_upstream"
        ledger = (await run.deleted())["ledger"]["to_upstream"]
        assert ledger["read"] == ledger["written"] + ledger["discarded_out"]
        assert hub_of(run).pipes.lent == 0


@bounded
async def test_an_abort_does_not_wait_for_a_slow_receiver() -> None:
    async with live() as run:
        client, server = await offloaded_pair(run)
        await send_until_blocked(client, lambda: bool(hub_of(run).pipes.lent), 1 << 30)
        run.engine.abort_flows()
        event = await run.deleted()
        assert event["reason"] == "abort"
        assert (await read_all(server))[1] == "reset"
        assert hub_of(run).pipes.lent == 0


@bounded
async def test_a_stop_resets_a_flow_whose_pipe_is_full() -> None:
    async with live() as run:
        client, _ = await offloaded_pair(run)
        await send_until_blocked(client, lambda: bool(hub_of(run).pipes.lent), 1 << 30)
        pipes = hub_of(run).pipes
        await run.proxy.stop()
        assert (await run.deleted())["reason"] == "stop"
        assert pipes.lent == 0


@timed
async def test_an_idle_flow_times_out() -> None:
    """Bytes that the kernel moves count as such; when none do, the time runs."""
    async with live(options=EngineOptions(timeouts=Timeouts(idle=3600.0))) as run:
        client, server = await offloaded_pair(run)
        for _ in range(4):
            await relay_exactly(client, server, CHUNK)
            pass_time(2000.0)
            await wait_all_tasks_blocked()
        assert run.flow.is_offloaded
        pass_time(3600.0)
        assert (await run.deleted())["reason"] == "timeout"
        assert (await read_all(client))[1] == "reset"


@timed
async def test_a_half_closed_flow_lives_no_longer_than_it_may() -> None:
    """OBJ-14: however much the other half moves."""
    async with live(options=EngineOptions(timeouts=Timeouts(half_closed=3600.0))) as run:
        client, server = await offloaded_pair(run)
        await client.send_eof()
        assert await read_all(server) == (b"", "fin")
        pass_time(3599.0)
        await relay_exactly(server, client, CHUNK * 4)
        pass_time(1.0)
        async with trio.open_nursery() as nursery:

            async def talk() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    while True:
                        await server.send_all(CHUNK)

            nursery.start_soon(talk)
            assert (await read_all(client))[1] == "reset"
        assert (await run.deleted())["reason"] == "timeout"


# --- back-pressure and pipes ------------------------------------------------------------------------------


@bounded
async def test_a_receiver_that_reads_nothing_stops_the_sender() -> None:
    """The window closes as ever: what is under way is bounded by the kernel's buffers and one pipe."""
    async with live() as run:
        client, server = await offloaded_pair(run)
        pipes, dice, data = hub_of(run).pipes, Random(3), bytearray()
        until = trio.Event()

        async def send() -> None:
            while not until.is_set():
                data.extend(piece := dice.randbytes(65536))
                await client.send_all(piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            before = -1
            while before != len(data) or not pipes.lent:
                before = len(data)
                await wait_all_tasks_blocked(0.05)
            assert pipes.lent == 1
            until.set()
            got = await read_exactly(server, len(data))
        assert got == data
        assert run.flow.is_offloaded
        while pipes.lent:  # that it is empty is seen when the next bytes are asked for
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(("few", "budget"), [(1000, 64 * 1024), (0, 16 * 1024)])
@bounded
async def test_a_turn_moves_no_more_than_its_budget(
    few: int, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits: others get their turn in between, and among many sooner."""
    async with live() as run:
        client, server = await offloaded_pair(run)
        monkeypatch.setattr(_offload, "BUDGET", 64 * 1024)
        monkeypatch.setattr(_offload, "BUDGET_AMONG_MANY", 16 * 1024)
        monkeypatch.setattr(_offload, "FEW_SOCKETS", few)
        reactor, flow = hub_of(run).reactor, run.flow
        data = noise(6, 512 * 1024)
        before = flow.read[0]
        # Nobody else runs from here on, as nothing is awaited.
        half = client.socket._sock.send(data)  # type: ignore[attr-defined]
        assert half > budget
        seen: list[int] = []
        while sum(seen) < half:
            reactor.batch()
            seen.append(flow.read[0] - before - sum(seen))
        assert max(seen) <= budget
        await client.send_all(data[half:])
        assert await read_exactly(server, len(data)) == data


@pytest.mark.parametrize("why", ["all are lent", "no descriptor is left"])
@bounded
async def test_without_a_pipe_it_is_copied_and_tried_again_later(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def full(flags: int) -> tuple[int, int]:
        nonlocal tries
        tries += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with live() as run:
        hub = hub_of(run)
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe2", full)
            patch.setattr(_offload, "TRY_AGAIN", 3600.0)
            patch.setattr(_socket_flow, "TRY_AGAIN", 3600.0)
            lent, hub.pipes = hub.pipes, PipePool(most=0 if why == "all are lent" else 10)
            client, server = await run.pair()
            driver: Any = hub.drivers[run.flow.id]
            while not driver._not_before:  # until it was tried
                await relay_exactly(client, server, noise(4, 2 * MIB))
                driver = hub.drivers[run.flow.id]
            await relay_exactly(client, server, noise(4, 2 * MIB))
            assert not run.flow.is_offloaded
            assert tries == (0 if why == "all are lent" else 1), "the next try is a while off"
        hub.pipes = lent
        driver._not_before = 0.0  # the while is over
        await make_bulky(run, client, server)


@bounded
async def test_a_kernel_that_cannot_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def refuse(*args: object, **kwargs: object) -> int:
        nonlocal calls
        calls += 1
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "splice", refuse)
    async with live() as run:
        client, server = await run.pair()
        while not calls:
            await relay_exactly(client, server, noise(5, MIB))
        await relay_exactly(client, server, noise(5, 3 * MIB))
        assert calls == 1
        await client.aclose()
        await server.aclose()
        assert (await run.deleted())["reason"] == "fin"


class Servers:
    """The upstream's ends of many connections, by the number each client says first."""

    def __init__(self, run: Live) -> None:
        self._run = run
        self._found: dict[bytes, trio.SocketStream] = {}
        self._lot = trio.lowlevel.ParkingLot()

    async def accept(self) -> None:
        """For ever."""
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._greet, await self._run.accept())

    async def _greet(self, stream: trio.SocketStream) -> None:
        self._found[await read_exactly(stream, 4)] = stream
        self._lot.unpark_all()

    async def of(self, name: bytes) -> trio.SocketStream:
        """The end that belongs to this client."""
        while name not in self._found:
            await self._lot.park()
        return self._found[name]


@bounded
async def test_two_hundred_flows_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pipes, rules that come and go, resets among them: all bytes exact, nothing left behind."""
    monkeypatch.setattr(_offload, "TRY_AGAIN", 0.0)
    monkeypatch.setattr(_socket_flow, "TRY_AGAIN", 0.0)
    descriptors = len(os.listdir("/proc/self/fd"))
    dice = Random(11)
    done = 0
    async with live() as run:
        hub_of(run).pipes = PipePool(most=4, idle=2)
        servers = Servers(run)

        async def one(number: int, client: trio.SocketStream) -> None:
            nonlocal done
            name = number.to_bytes(4, "big")
            await client.send_all(name)
            server = await servers.of(name)
            data = noise(number, dice.randrange(1, 400_000))
            await relay_exactly(client, server, data)
            if number % 3 == 0:
                await relay_exactly(server, client, data)
            if number % 7 == 0:
                reset(client)
            else:
                await client.aclose()
            await server.aclose()
            done += 1

        async with trio.open_nursery() as background:
            background.start_soon(servers.accept)
            begun = 0
            while not offloads(run):  # at the first time, unless the rules always came at the wrong moment
                async with trio.open_nursery() as nursery:
                    for number in range(begun, begun + 200):
                        nursery.start_soon(one, number, await run.client())
                    begun += 200
                    while done < begun - 50:
                        added = run.engine.add_callout(Late())
                        await trio.sleep(0.01)
                        added.retire()
                        await trio.sleep(0.01)
            background.cancel_scope.cancel()
        await run.deleted(begun)
        assert hub_of(run).pipes.lent == 0
        hub_of(run).pipes.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors
