"""A proxied connection over real sockets: bytes, half-closes, resets, back-pressure, urgent bytes, timeouts."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios
from typing import Any

import pytest
import trio
from trio.testing import check_half_closeable_stream, wait_all_tasks_blocked

from tests.transport.kit import (
    CHUNK,
    Deferring,
    Dropping,
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
from wfpstream.engine import DEFERRED, ENDED, FULL, EngineOptions, Limits, Timeouts
from wfpstream.fwps import ClassifyOut, Mdl, NetBufferList, StreamCalloutIoPacket, StreamFlags
from wfpstream.transport._hub import BOTH_READ_LIMIT

HOSTS = ["127.0.0.1", "::1"]
LOCALS = ["client", "server"]
RECEIVE, SEND = int(StreamFlags.RECEIVE), int(StreamFlags.SEND)


def is_paused(run: Live, side: str, level: int = FULL) -> bool:
    """The engine lets nothing be read from that side at present."""
    return run.flow.may_read(run.flow.direction_from(side)) == level


def unacknowledged(stream: trio.SocketStream) -> int:
    """Bytes the kernel accepted that the other end's kernel has not acknowledged (SIOCOUTQ)."""
    return int(struct.unpack("i", fcntl.ioctl(stream.socket.fileno(), termios.TIOCOUTQ, bytes(4)))[0])


async def wait_until_paused(run: Live, side: str, level: int = FULL) -> None:
    while not is_paused(run, side, level):
        await trio.lowlevel.checkpoint()


# --- bytes and half-closes --------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("local", LOCALS)
@bounded
async def test_bytes_go_both_ways(host: str, local: str) -> None:
    probe = Probe()
    async with live(probe, host=host, local=local) as run:
        client, server = await run.pair()
        await client.send_all(b"question")
        assert await read_exactly(server, 8) == b"question"
        await server.send_all(b"answer")
        assert await read_exactly(client, 6) == b"answer"
        out, back = (SEND, RECEIVE) if local == "client" else (RECEIVE, SEND)
        (first, asked), (second, answered) = probe.seen
        assert (first & out, asked) == (out, b"question")
        assert (second & back, answered) == (back, b"answer")
        await client.aclose()
        await server.aclose()
        assert (await run.deleted())["reason"] == "fin"


@pytest.mark.parametrize("local", LOCALS)
@bounded
async def test_the_client_may_close_its_half_first(local: str) -> None:
    async with live(Probe(), local=local) as run:
        client, server = await run.pair()
        await client.send_all(b"all I have to say")
        await client.send_eof()
        assert await read_all(server) == (b"all I have to say", "fin")
        await server.send_all(CHUNK)
        await server.send_eof()
        assert await read_all(client) == (CHUNK, "fin")
        assert (await run.deleted())["reason"] == "fin"


@bounded
async def test_the_server_may_close_its_half_first() -> None:
    async with live(Probe()) as run:
        client, server = await run.pair()
        await server.send_all(b"greeting")
        await server.send_eof()
        assert await read_all(client) == (b"greeting", "fin")
        await client.send_all(CHUNK)
        await client.send_eof()
        assert await read_all(server) == (CHUNK, "fin")
        assert (await run.deleted())["reason"] == "fin"


@bounded
async def test_a_relayed_connection_is_a_good_half_closeable_stream() -> None:
    async with live(Probe()) as run:

        async def make() -> tuple[trio.SocketStream, trio.SocketStream]:
            return await run.pair()

        await check_half_closeable_stream(make, None)


@bounded
async def test_a_megabyte_is_the_same_at_the_other_end() -> None:
    data = b"".join(struct.pack("!I", number) for number in range(1 << 18))
    async with live(Probe()) as run:
        client, server = await run.pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send_all, data)
            assert await read_exactly(server, len(data)) == data
        await client.aclose()
        await server.aclose()
        ledger = (await run.deleted())["ledger"]["to_upstream"]
        assert (ledger["read"], ledger["written"]) == (len(data), len(data))


# --- resets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize("resetter", ["client", "upstream"])
@bounded
async def test_a_reset_is_relayed_as_a_reset(resetter: str, local: str) -> None:
    async with live(Probe(), local=local) as run:
        client, server = await run.pair()
        one, other = (client, server) if resetter == "client" else (server, client)
        reset(one)
        assert await read_all(other) == (b"", "reset")
        assert (await run.deleted())["reason"] == f"rst_{resetter}"


@pytest.mark.parametrize("resetter", ["client", "upstream"])
@bounded
async def test_a_reset_does_not_overtake_bytes_already_taken(resetter: str) -> None:
    """IND-18, IND-27: the sender was paused, the proxy's kernel still held bytes of it, the receiver was slow."""
    async with live(Probe()) as run:
        client, server = await run.pair()
        one, other = (client, server) if resetter == "client" else (server, client)
        accepted = await send_until_blocked(one, lambda: is_paused(run, resetter), 1 << 30)
        taken = accepted - unacknowledged(one)
        reset(one)
        data, end = await read_all(other)
        ledger = (await run.deleted())["ledger"]["to_upstream" if resetter == "client" else "to_client"]
        assert end == "reset"
        assert len(data) >= taken  # an acknowledgement may have been on its way
        assert (ledger["read"], ledger["written"], ledger["discarded_out"]) == (len(data), len(data), 0)
        assert taken > 2 * Limits().unsent


@bounded
async def test_a_reset_behind_a_half_close_is_seen() -> None:
    async with live(Probe()) as run:
        client, server = await run.pair()
        await client.send_eof()
        assert await read_all(server) == (b"", "fin")
        reset(client)
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await server.send_all(CHUNK)
        assert (await run.deleted())["reason"] == "rst_client"


@bounded
async def test_a_reset_right_behind_a_fin_is_the_reset() -> None:
    """IND-27: EOF on a marked leg; both were there before the driver looked."""
    async with live(Probe()) as run:
        for count in range(1, 20):
            client, server = await run.pair()
            client.socket.shutdown(socket.SHUT_WR)
            reset(client)
            assert await read_all(server) == (b"", "reset")
            assert (await run.deleted(count))["reason"] == "rst_client"


@bounded
async def test_a_reset_of_a_deferred_leg_discards_what_the_kernel_holds() -> None:
    """IND-27, DEF-12: nothing of it is indicated or delivered, and it is counted."""
    probe = Deferring()
    async with live(probe) as run:
        client, server = await run.pair()
        await server.send_all(b"first")
        await wait_until_paused(run, "upstream", DEFERRED)
        await server.send_all(b"more" * 1000)
        reset(server)
        assert await read_all(client) == (b"", "reset")
        deleted = await run.deleted()
        ledger = deleted["ledger"]["to_client"]
        assert deleted["reason"] == "rst_upstream"
        assert (ledger["read"], ledger["written"]) == (4005, 0)
        assert [data for flags, data in probe.seen if data] == [b"first"]


@bounded
async def test_a_deferred_direction_goes_on_after_continue() -> None:
    probe = Deferring()
    async with live(probe) as run:
        client, server = await run.pair()
        await server.send_all(b"held")
        await wait_until_paused(run, "upstream", DEFERRED)
        await client.send_all(b"the other way is free")
        await read_exactly(server, 21)
        await server.send_all(b" back")
        await server.send_eof()
        probe.go()
        assert await read_all(client) == (b"held back", "fin")


@bounded
async def test_a_drop_resets_both_at_once() -> None:
    async with live(Dropping(b"evil")) as run:
        client, server = await run.pair()
        await client.send_all(b"evil")
        assert await read_all(server) == (b"", "reset")
        assert await read_all(client) == (b"", "reset")
        assert (await run.deleted())["reason"] == "drop"


@bounded
async def test_a_receiver_that_takes_nothing_holds_up_a_reset_only_so_long() -> None:
    options = EngineOptions(timeouts=Timeouts(reset_flush=0.05))
    async with live(Probe(), options=options) as run:
        client, server = await run.pair()
        await send_until_blocked(client, lambda: is_paused(run, "client"), 1 << 30)
        reset(client)
        deleted = await run.deleted()
        ledger = deleted["ledger"]["to_upstream"]
        assert deleted["reason"] == "rst_client"
        assert ledger["discarded_out"] > 0
        await server.aclose()


@bounded
async def test_both_legs_may_be_reset() -> None:
    async with live(Probe()) as run:
        client, server = await run.pair()
        await send_until_blocked(client, lambda: is_paused(run, "client"), 1 << 30)
        reset(client)
        reset(server)
        assert (await run.deleted())["reason"] in ("rst_client", "rst_upstream")


@bounded
async def test_what_an_abort_destroys_in_the_kernel_is_counted() -> None:
    """IND-18, LED-3: written is what the peer's kernel acknowledged, and no more than what it delivers."""
    probe = Probe()
    async with live(probe) as run:
        client, server = await run.pair()
        await send_until_blocked(client, lambda: is_paused(run, "client"), 1 << 30)
        assert run.engine.fwps.flow_abort(probe.flow_id).ok
        data, end = await read_all(server)
        ledger = (await run.deleted())["ledger"]["to_upstream"]
        assert end == "reset"
        assert 0 < ledger["written"] <= len(data)
        assert ledger["written"] + ledger["discarded_out"] == ledger["read"]


@bounded
async def test_an_abort_from_outside_resets_both() -> None:
    probe = Probe()
    async with live(probe) as run:
        client, server = await run.pair()
        await client.send_all(b"x")
        await read_exactly(server, 1)
        assert run.engine.fwps.flow_abort(probe.flow_id).ok
        assert await read_all(server) == (b"", "reset")
        assert await read_all(client) == (b"", "reset")
        assert (await run.deleted())["reason"] == "abort"


# --- back-pressure ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", ["client", "upstream"])
@bounded
async def test_a_slow_receiver_blocks_the_sender_and_memory_stays_bounded(sender: str) -> None:
    async with live(Probe()) as run:
        client, server = await run.pair()
        one, other = (client, server) if sender == "client" else (server, client)
        accepted = await send_until_blocked(one, lambda: is_paused(run, sender), 1 << 30)
        assert 0 < run.flow.stored <= Limits().unsent
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        await one.send_eof()
        data, end = await read_all(other)
        assert (len(data), end) == (accepted, "fin")
        await other.aclose()
        assert (await run.deleted())["reason"] == "fin"


class Chatty(Probe):
    """Injects one byte more whenever one was written."""

    left = 200

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        """Begin."""
        self.go_on(None, None, False)

    def go_on(self, context: Any, nbl: NetBufferList | None, dispatch_level: bool) -> None:
        """completionFn: free, and inject the next."""
        fwps = self.fwps
        if nbl is not None:
            fwps.free_net_buffer_list(nbl)
        if not self.left:
            return
        self.left -= 1
        _, fresh = fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, Mdl(b"."), 0, 1)
        assert fresh is not None
        callout_id = self.callout_id(self.layer_id)
        handle = self.injection_handle
        fwps.stream_inject_async(
            handle, None, 0, self.flow_id, callout_id, self.layer_id, SEND, fresh, 1, self.go_on, None
        )


@bounded
async def test_a_callout_that_goes_on_and_on_is_served_in_turns() -> None:
    async with live(Chatty()) as run:
        client, server = await run.pair()
        await client.send_all(b"!")
        assert sorted(await read_exactly(server, 201)) == sorted(b"!" + b"." * 200)


# --- urgent data ------------------------------------------------------------------------------------


def at_mark(stream: trio.SocketStream) -> bool:
    return fcntl.ioctl(stream.socket.fileno(), 0x8905, bytes(4)) != bytes(4)


@bounded
async def test_an_urgent_byte_keeps_its_place() -> None:
    """IND-7."""
    probe = Probe()
    async with live(probe) as run:
        client, server = await run.pair()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        await client.send_all(b"before")
        await client.socket.send(b"!", socket.MSG_OOB)
        await client.send_all(b"after")
        direction = run.flow.direction_from("client")
        while run.flow.ledger(direction).written < 12:  # a reader that is early reads on from the mark
            await trio.lowlevel.checkpoint()
        await client.send_eof()
        received = []
        while piece := await server.receive_some():
            received.append((piece, at_mark(server)))
        data = b"".join(piece for piece, _ in received)
        assert data == b"before!after"
        marked = len(
            b"".join(piece for piece, _ in received[: [mark for _, mark in received].index(True) + 1])
        )
        assert marked == len(b"before")
        assert (SEND | int(StreamFlags.SEND_EXPEDITED), b"!") in probe.seen


# --- time -------------------------------------------------------------------------------------------


@bounded
async def test_an_idle_flow_is_ended() -> None:
    async with live(Probe(), options=EngineOptions(timeouts=Timeouts(idle=0.05))) as run:
        client, server = await run.pair()
        assert await read_all(client) == (b"", "reset")
        assert await read_all(server) == (b"", "reset")
        assert (await run.deleted())["reason"] == "timeout"


@timed
async def test_a_busy_flow_is_not_idle() -> None:
    async with live(Probe(), options=EngineOptions(timeouts=Timeouts(idle=3600.0))) as run:
        client, server = await run.pair()
        for _ in range(4):
            await client.send_all(b"x")
            await read_exactly(server, 1)
            pass_time(2000.0)
            await wait_all_tasks_blocked()
        assert not run.events.named("flow_deleted")
        pass_time(3600.0)
        assert (await run.deleted())["reason"] == "timeout"


@timed
async def test_a_half_closed_flow_has_its_time() -> None:
    """OBJ-14: it counts from the first relayed FIN."""
    async with live(Probe(), options=EngineOptions(timeouts=Timeouts(half_closed=3600.0))) as run:
        client, server = await run.pair()
        pass_time(3600.0)
        await client.send_eof()
        assert await read_all(server) == (b"", "fin")
        await wait_all_tasks_blocked()
        assert not run.events.named("flow_deleted")
        pass_time(3600.0)
        assert await read_all(client) == (b"", "reset")
        assert (await run.deleted())["reason"] == "timeout"


@timed
async def test_both_legs_read_to_their_end_have_a_time_of_their_own() -> None:
    """OBJ-14: a FIN is pended for ever."""

    class PendsFin(Probe):
        def classify_fn(self, *args: object) -> None:
            super().classify_fn(*args)  # type: ignore[arg-type]
            if self.seen[-1][0] & int(StreamFlags.SEND_DISCONNECT):
                out = args[-1]
                out.action_type = 0x1001  # type: ignore[attr-defined]

    async with live(PendsFin()) as run:
        client, server = await run.pair()
        await client.send_eof()
        await server.send_eof()
        assert await read_all(client) == (b"", "fin")
        await wait_all_tasks_blocked()
        assert not run.events.named("flow_deleted")
        pass_time(BOTH_READ_LIMIT)
        assert (await run.deleted())["reason"] == "timeout"
        assert await read_all(server) == (b"", "reset")


@bounded
async def test_the_engine_wakes_the_driver_by_time() -> None:
    """A callout continues from a timer, with nobody sending anything."""
    probe = Deferring()
    async with live(probe) as run:
        client, server = await run.pair()
        await server.send_all(b"late")
        await wait_until_paused(run, "upstream", DEFERRED)
        probe.after(0.05, probe.go)
        assert await read_exactly(client, 4) == b"late"
        assert not is_paused(run, "upstream", ENDED)


@bounded
async def test_a_call_from_another_thread_gets_in() -> None:
    probe = Deferring()
    async with live(probe) as run:
        client, server = await run.pair()
        await server.send_all(b"held")
        await wait_until_paused(run, "upstream", DEFERRED)
        await trio.to_thread.run_sync(run.engine.from_thread, probe.go)
        assert await read_exactly(client, 4) == b"held"
