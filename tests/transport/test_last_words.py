"""A leg that is reset while something else is done with its flow: its last bytes are heard all the same (IND-27)."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from tests.transport.kit import RESET, Probe, bounded, live, read_all
from tests.transport.test_left_lying import raw
from tests.transport.test_offload import Ears
from wfpstream.fwp import ActionType
from wfpstream.fwps import ClassifyOut, StreamCalloutIoPacket, StreamFlags


class Acting(Probe):
    """Does something at the word of the upstream, in the middle of the call; keeps what the client said."""

    def __init__(self) -> None:
        super().__init__()
        self.act: Callable[[], object] = lambda: None
        self.blocks = False

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        if flags & int(StreamFlags.RECEIVE):
            self.act()
            if self.blocks:
                out.action_type = int(ActionType.BLOCK)

    @property
    def said(self) -> bytes:
        """By the client."""
        return b"".join(data for flags, data in self.seen if flags & int(StreamFlags.SEND))


@bounded
async def test_the_last_words_before_a_reset_are_heard_when_a_fin_comes_first() -> None:
    """IND-27: the FIN of the upstream cannot be passed on any more, and the client's bytes are still there."""
    callout = Acting()
    async with live(callout) as run:
        client, server = await run.pair()

        def end() -> None:
            raw(server).shutdown(socket.SHUT_WR)
            raw(client).send(b"last words")
            raw(client).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            raw(client).close()

        callout.act, callout.blocks = end, True
        await server.send_all(b"now")
        assert (await read_all(server)) == (b"last words", "reset")
        assert (await run.deleted())["reason"] == "rst_client"
        assert callout.said == b"last words"


@pytest.mark.parametrize("tapped", [False, True])
@bounded
async def test_the_last_words_before_a_reset_are_heard_when_a_write_meets_it(tapped: bool) -> None:
    """IND-27: it is the write of this turn that learns of the reset."""
    callout = Acting()
    async with live(callout, tap=Ears() if tapped else None) as run:
        client, server = await run.pair()

        def end() -> None:
            raw(client).send(b"last words")
            raw(client).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            raw(client).close()

        callout.act = end
        await server.send_all(b"now")
        assert (await read_all(server)) == (b"last words", "reset")
        assert callout.said == b"last words"


class Echoing(Acting):
    """Acts at the client's first word, and answers it itself."""

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        if len(self.seen) == 1:
            self.act()
            assert self.inject(self.flow_id, self.layer_id, int(StreamFlags.RECEIVE), b"echo").ok


@pytest.mark.parametrize("tapped", [False, True])
@bounded
async def test_what_came_after_a_read_and_before_a_reset_is_heard(tapped: bool) -> None:
    """IND-27: the read found all that was there then, the answer met the reset, and in between came more."""
    callout = Echoing()
    async with live(callout, tap=Ears() if tapped else None) as run:
        client, server = await run.pair()

        def end() -> None:
            raw(client).send(b", last words")
            raw(client).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            raw(client).close()

        callout.act = end
        await client.send_all(b"first")
        assert (await read_all(server)) == (b"first, last words", "reset")
        assert callout.said == b"first, last words"
