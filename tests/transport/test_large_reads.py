"""A flow that moves much is read in large pieces, as far as the other leg's kernel has room for them.

The batches are asked for by hand, so that all of it is a matter of counting.
"""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
import trio

from tests.transport.kit import Live, Probe, bounded, live
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType
from wfpstream.fwps import ClassifyOut, StreamActionType, StreamCalloutIoPacket
from wfpstream.transport import _reactor
from wfpstream.transport._hub import LARGEST_READ, RECEIVE_SIZE, _hubs
from wfpstream.transport._reactor import Reactor

MUCH = 24 << 20
HELD = 1 << 20


class Lengths(Probe):
    """Keeps how long each piece was."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        self.lengths.append(packet.stream_data.data_length)


class Holding(Lengths):
    """Wants to see 1 MiB before it lets anything through, once."""

    def answer(self, flags: int, packet: StreamCalloutIoPacket, out: ClassifyOut) -> None:
        super().answer(flags, packet, out)
        if max(self.lengths) < HELD:
            packet.stream_action = int(StreamActionType.NEED_MORE_DATA)
            packet.count_bytes_required = 1
            out.action_type = int(ActionType.NONE)


def raw(stream: trio.SocketStream) -> socket.socket:
    """The stdlib socket of a stream."""
    sock: socket.socket = stream.socket._sock  # type: ignore[attr-defined]
    return sock


def noise(length: int) -> bytes:
    """The same bytes each time, without a period that a mistake could hide in."""
    return hashlib.shake_128(b"large").digest(length)


class Bulk:
    """A client that sends as fast as its kernel takes it, and a server that reads when told to."""

    def __init__(self, run: Live, client: socket.socket, server: socket.socket) -> None:
        self.reactor: Reactor = _hubs[id(run.engine)].reactor
        self.flow = run.flow
        self.direction = run.flow.direction_from("client")
        self.client, self.server = client, server
        self.data = b""
        self.sent = self.received = 0
        self.most_owed = 0
        # More than a usual read on its way at once; by itself the kernel comes to that sooner or later.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        driver: Any = _hubs[id(run.engine)].drivers[self.flow.id]
        for leg in driver.sides:
            leg.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def send(self) -> bool:
        """As much as the kernel takes."""
        before = self.sent
        with suppressed_block():
            while self.sent < len(self.data):
                self.sent += self.client.send(self.data[self.sent : self.sent + (1 << 18)])
        return self.sent > before

    def turn(self) -> bool:
        """One batch."""
        some = self.reactor.batch()
        self.most_owed = max(self.most_owed, self.flow.output(self.direction).length)
        return some

    def receive(self) -> None:
        """Take what has arrived, which is what was sent."""
        with suppressed_block():
            while data := self.server.recv(1 << 20):
                assert data == self.data[self.received : self.received + len(data)]
                self.received += len(data)

    def move_until_large(self, callout: Lengths) -> None:
        """When the kernel lets so much be on its way that a piece is large, is its own affair."""
        self.move_all()
        while max(callout.lengths) <= RECEIVE_SIZE:
            self.move_all()

    def move_all(self, length: int = MUCH) -> None:
        """As fast as both ends can: the kernel then lets more and more be on its way."""
        self.data += noise(length)
        while self.received < len(self.data):
            self.send()
            self.turn()
            self.receive()


@contextmanager
def suppressed_block() -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        return


async def bulk(run: Live) -> Bulk:
    client, server = await run.pair()
    return Bulk(run, raw(client), raw(server))


@bounded
async def test_ind_3_a_bulk_flow_is_read_in_large_pieces() -> None:
    callout = Lengths()
    async with live(callout, quiet=False) as run:
        flow = await bulk(run)
        flow.move_until_large(callout)
        assert max(callout.lengths) <= LARGEST_READ
        flow.move_all(100)
        assert callout.lengths[-1] == 100


@bounded
async def test_ind_24_what_is_owed_stays_within_its_limit() -> None:
    """The server reads no more: what its kernel has no room for is not read in large pieces either."""
    options = EngineOptions()
    callout = Lengths()
    async with live(callout, options=options, quiet=False) as run:
        flow = await bulk(run)
        flow.move_until_large(callout)
        flow.data += noise(MUCH)
        while flow.send() | flow.turn() or not run.flow.paused[flow.direction]:
            await trio.lowlevel.checkpoint()
        assert 0 < flow.most_owed <= options.limits.unsent
        flow.move_all(1)


@bounded
async def test_a_flow_that_holds_bytes_is_read_as_usual() -> None:
    callout = Holding()
    async with live(callout, quiet=False) as run:
        flow = await bulk(run)
        flow.data = noise(2 * HELD)
        while max(callout.lengths, default=0) < HELD:
            flow.send()
            flow.turn()
        held = next(place for place, length in enumerate(callout.lengths) if length >= HELD)
        lengths = callout.lengths[: held + 1]
        grown = [after - before for before, after in pairwise(lengths)]
        assert grown
        assert all(0 < more <= RECEIVE_SIZE for more in grown)
        flow.move_all()


def of_injected(options: EngineOptions, length: int) -> None:
    options.limits.injected = length


def of_pended(options: EngineOptions, length: int) -> None:
    options.limits.pended = length


def of_taken(options: EngineOptions, length: int) -> None:
    options.limits.taken = length


def of_need_more_data(options: EngineOptions, length: int) -> None:
    options.limits.need_more_data = length


@pytest.mark.parametrize("limit", [of_injected, of_pended, of_taken, of_need_more_data])
@bounded
async def test_ind_24_no_item_alone_passes_a_limit(limit: Callable[[EngineOptions, int], None]) -> None:
    options = EngineOptions()
    limit(options, 3 * RECEIVE_SIZE // 2)
    callout = Lengths()
    async with live(callout, options=options, quiet=False) as run:
        flow = await bulk(run)
        flow.move_until_large(callout)
        assert max(callout.lengths) <= 3 * RECEIVE_SIZE // 2


@bounded
async def test_among_many_every_piece_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """All who are ready wait for the one that moves much."""
    monkeypatch.setattr(_reactor, "FEW", 0)
    callout = Lengths()
    async with live(callout, quiet=False) as run:
        flow = await bulk(run)
        flow.move_all()
        assert max(callout.lengths) <= RECEIVE_SIZE


def test_several_share_what_a_batch_moves() -> None:
    class Always:
        queued = False

        def __init__(self, reactor: Reactor, shares: list[int]) -> None:
            self.reactor, self.shares = reactor, shares

        def go_on(self) -> None:
            self.shares.append(self.reactor.share)
            self.reactor.again(self)

    shares: dict[int, Any] = {}
    for count in (1, 4, 8, 24, 25):
        reactor, shares[count] = Reactor(), []
        for _ in range(count):
            reactor.again(Always(reactor, shares[count]))
        assert reactor.batch()
        assert len(shares[count]) == count
        reactor.close()
    assert shares[1] == [1 << 20]
    assert shares[4] == 4 * [1 << 20]
    assert shares[8] == 8 * [1 << 19]
    assert sum(shares[24]) <= 4 << 20
    assert sum(shares[25]) == 0
