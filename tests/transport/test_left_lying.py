"""Bytes that nobody would have looked at again: each test ends with all of them at their place."""

from __future__ import annotations

import socket

import trio

from tests.transport.kit import (
    Live,
    Probe,
    bounded,
    live,
    read_exactly,
    send_until_blocked,
)
from tests.transport.test_offload import Allowing, hub_of, offloaded_pair
from wfpstream.engine import EngineOptions
from wfpstream.fwps import ClassifyOut, StreamCalloutIoPacket, StreamFlags

SLOW = 4096


def raw(stream: trio.SocketStream) -> socket.socket:
    """The stdlib socket of a stream."""
    sock: socket.socket = stream.socket._sock  # type: ignore[attr-defined]
    return sock


def held(run: Live) -> int:
    """Bytes in the pipes of the one flow."""
    ways = getattr(hub_of(run).drivers[run.flow.id], "_ways", ())
    return sum(way.conduit.held for way in ways)


async def fill(run: Live, sender: trio.SocketStream) -> int:
    """Send to a receiver that does not read, until a pipe holds some of it: how much was sent."""
    return await send_until_blocked(sender, lambda: held(run) > 0, 64 << 20)


# --- taken back with bytes in the pipe ----------------------------------------------------------------


@bounded
async def test_small_messages_one_way_do_not_leave_what_the_pipe_of_the_other_way_holds() -> None:
    """The receiver writes small messages and reads only afterwards."""
    async with live(Allowing()) as run:
        client, server = await offloaded_pair(run)
        sent = await fill(run, client)
        while run.flow.is_offloaded:
            await server.send_all(b"a word")
            assert await read_exactly(client, 6) == b"a word"
        assert len(await read_exactly(server, sent)) == sent


@bounded
async def test_an_urgent_byte_behind_much_does_not_leave_what_the_pipe_holds() -> None:
    async with live(Allowing()) as run:
        client, server = await offloaded_pair(run)
        sent = await fill(run, client)
        while True:
            try:
                raw(client).send(b"!", socket.MSG_OOB)
                break
            except BlockingIOError:
                sent -= len(await server.receive_some(SLOW))
        raw(server).setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        assert (await read_exactly(server, sent + 1))[-1:] == b"!"
        assert not run.flow.is_offloaded


# --- a turn that ended early --------------------------------------------------------------------------


class Flooding(Probe):
    """Sends the client much at its first word."""

    much = bytes(16 << 20)

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        much, self.much = self.much, b""
        if much:
            assert self.inject(self.flow_id, self.layer_id, int(StreamFlags.RECEIVE), much).ok


@bounded
async def test_a_client_that_is_sent_more_than_it_takes_is_read_to_the_end() -> None:
    """Its own bytes lie in the kernel already, and no further edge tells of them."""
    options = EngineOptions()
    options.limits.unsent, options.limits.injected = 8192, 64 << 20
    async with live(Flooding(), options=options) as run:
        client, server = await run.pair()
        raw(client).send(bytes(32768))
        assert len(await read_exactly(server, 32768)) == 32768
        assert run.flow.output(1).length
