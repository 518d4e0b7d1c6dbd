"""The reactor by itself: old events of a number used again, turns that ran out, fairness by counting."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest
import trio

from tests.transport.kit import Probe, live
from wfpstream.engine import EngineOptions
from wfpstream.transport._hub import _hubs
from wfpstream.transport._reactor import IN, MOST_EVENTS, TROUBLE, Reactor
from wfpstream.transport._sockets import discard_input

SMALL = 1000
BULK_READ = 2 * 1024


class Reader:
    """Owns one end of a pair of sockets; writes down what it is told, and then does something of its own."""

    def __init__(self, reactor: Reactor, sock: socket.socket) -> None:
        self.reactor = reactor
        self.sock = sock
        self.told: list[int] = []
        self.then: Callable[[], object] = self.nothing
        self.since = 0
        self.queued = False
        self.size = 1 << 16
        reactor.add(sock.fileno(), self, IN)

    def nothing(self) -> None:
        """The default of `then`."""

    def ready(self, events: int) -> None:
        """Note it."""
        self.told.append(events)
        self.then()

    def go_on(self) -> None:
        """Another turn, with no event to tell of."""
        self.told.append(0)
        self.then()

    def read_one(self) -> None:
        """Read so much; a turn that was filled is not the last one."""
        if len(self.sock.recv(self.size)) == self.size:
            self.reactor.again(self)


@contextmanager
def pairs(count: int) -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Connected pairs, the first ends non-blocking."""
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(count)]
        for one, other in made:
            stack.enter_context(one)
            stack.enter_context(other)
            one.setblocking(False)
        yield made


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """One that is not run: a test asks for each batch."""
    made = Reactor()
    yield made
    made.close()


def test_a_number_used_again_within_a_batch_does_not_get_the_events_of_the_one_before(
    reactor: Reactor,
) -> None:
    """The one whose turn is first closes the other, and opens a socket that gets its number."""
    with pairs(3) as ((one, far), (other, other_far), (fresh, _)):
        readers = [Reader(reactor, one), Reader(reactor, other)]
        newcomers: list[Reader] = []

        def replace(gone: Reader) -> None:
            if newcomers:
                return
            number = gone.sock.fileno()
            reactor.forget(number, gone)
            os.dup2(fresh.fileno(), number)  # closes the old one and takes its number in one call
            newcomers.append(Reader(reactor, gone.sock))

        readers[0].then = lambda: replace(readers[1])
        readers[1].then = lambda: replace(readers[0])
        far.send(b"x")
        other_far.send(b"x")
        assert reactor.batch()
        assert sorted(len(reader.told) for reader in readers) == [0, 1]
        (newcomer,) = newcomers
        assert newcomer.told == []


def test_what_comes_for_the_new_owner_of_a_number_reaches_it(reactor: Reactor) -> None:
    with pairs(2) as ((one, far), (fresh, fresh_far)):
        gone = Reader(reactor, one)
        newcomers: list[Reader] = []

        def replace() -> None:
            reactor.forget(one.fileno(), gone)
            os.dup2(fresh.fileno(), one.fileno())
            newcomers.append(Reader(reactor, one))
            fresh_far.send(b"for the new one")

        gone.then = replace
        far.send(b"x")
        assert reactor.batch()
        assert newcomers[0].told == []
        assert reactor.batch()
        assert newcomers[0].told == [IN]


def test_who_was_removed_hears_nothing_more(reactor: Reactor) -> None:
    """Not even what the present batch still has for it."""
    with pairs(2) as made:
        readers = [Reader(reactor, one) for one, _ in made]
        readers[0].then = lambda: reactor.remove(made[1][0].fileno(), readers[1])
        readers[1].then = lambda: reactor.remove(made[0][0].fileno(), readers[0])
        for _, far in made:
            far.send(b"x")
        assert reactor.batch()
        assert not reactor.batch()
        assert sorted(len(reader.told) for reader in readers) == [0, 1]
        assert len(reactor) == 1


def test_a_turn_that_ran_out_before_the_socket_was_empty_is_followed_by_another(reactor: Reactor) -> None:
    """An edge is said once: the rest is on our own list."""
    with pairs(1) as ((one, far),):
        reader = Reader(reactor, one)
        reader.size = 10
        reader.then = reader.read_one
        far.send(bytes(35))
        turns = 0
        while reactor.batch():
            turns += 1
        assert turns == 4
        assert reader.told == [IN, 0, 0, 0]
        with pytest.raises(BlockingIOError):
            one.recv(1)


def test_a_hang_up_is_told_to_who_asked_for_nothing(reactor: Reactor) -> None:
    with pairs(1) as ((one, far),):
        reader = Reader(reactor, one)
        reactor.change(one.fileno(), 0)
        far.send(b"x")
        assert not reactor.batch()
        far.close()
        assert reactor.batch()
        assert reader.told[0] & TROUBLE


def test_who_has_something_to_do_while_nobody_waits_for_events_rouses(reactor: Reactor) -> None:
    """And not while a batch is under way, which looks at its list by itself."""
    roused: list[bool] = []
    reactor.rouse = lambda: roused.append(reactor.is_busy)
    with pairs(1) as ((one, far),):
        reader = Reader(reactor, one)
        reactor.again(reader)
        reactor.again(reader)
        assert roused == [False]
        reader.then = lambda: reactor.again(reader) if len(reader.told) < 3 else None
        far.send(b"x")
        while reactor.batch():
            pass
        assert roused == [False]
        assert len(reader.told) == 3


# --- fairness ---------------------------------------------------------------------------------------


def needs_descriptors(count: int) -> None:
    """Skip where so many cannot be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        if hard < count:
            pytest.skip(f"needs {count} descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


@pytest.mark.parametrize("bulky", [1, 8])
def test_a_bulk_socket_has_one_turn_where_each_of_a_thousand_small_ones_has_one(
    reactor: Reactor, bulky: int
) -> None:
    """Who always has more to do is asked once per batch, and a batch takes those who are ready in their order."""
    needs_descriptors(2 * (SMALL + bulky) + 100)
    with pairs(SMALL + bulky) as made:
        readers = [Reader(reactor, one) for one, _ in made]
        bulk, small = readers[:bulky], readers[bulky:]
        for reader in readers:
            reader.size = 2
            reader.then = reader.read_one
        for (_, far), reader in zip(made, readers, strict=True):
            far.send(b"x" if reader in small else bytes(2 * SMALL))
        batches = 0
        while not all(reader.told for reader in small):
            assert reactor.batch()
            batches += 1
        assert batches <= -(-(SMALL + bulky) // MOST_EVENTS)
        assert all(len(reader.told) <= batches for reader in bulk)
        assert all(len(reader.told) == 1 for reader in small)


def test_a_thousand_small_flows_all_go_on_beside_bulk_flows_at_full_speed() -> None:
    """Every small flow has its answer before a bulk flow has moved more than one read per batch: beside one, and eight.

    The batches are asked for by hand, so that all of it is a matter of counting.
    """
    most = 9
    needs_descriptors(4 * (SMALL + most) + 100)
    options = EngineOptions()
    options.limits.unsent = 2 * BULK_READ

    async def main() -> None:
        async with live(Probe(), options=options, quiet=False) as run:
            made = [(await run.client(), await run.accept()) for _ in range(SMALL + most)]
            while len(run.engine.flows) < len(made):
                await trio.lowlevel.checkpoint()
            flows = [(raw(client), raw(server)) for client, server in made]
            reactor = _hubs[id(run.engine)].reactor
            for bulk in (flows[:1], flows[1:most]):
                ping_pong_beside(reactor, flows[most:], bulk)

    trio.run(main)


Ends = tuple[socket.socket, socket.socket]


def ping_pong_beside(reactor: Reactor, small: list[Ends], bulk: list[Ends]) -> None:
    """Small messages both ways, while the kernel holds more of the bulk flows than they can have moved."""
    for client, _ in bulk:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        assert fill(client) > 16 * BULK_READ
    for client, _ in small:
        client.send(b"ping")
    batches = batches_until(reactor, lambda: all(has_input(server) for _, server in small))
    for _, server in small:
        assert server.recv(100) == b"ping"
        server.send(b"pong")
    batches += batches_until(reactor, lambda: all(has_input(client) for client, _ in small))
    for client, _ in small:
        assert client.recv(100) == b"pong"
    assert batches <= 2 * (-(-(len(small) + len(bulk)) // MOST_EVENTS) + 1)
    for _, server in bulk:
        assert 0 < discard_input(server)[0] <= batches * BULK_READ


def raw(stream: trio.SocketStream) -> socket.socket:
    """The stdlib socket of a stream."""
    sock: socket.socket = stream.socket._sock  # type: ignore[attr-defined]
    return sock


def has_input(sock: socket.socket) -> bool:
    """Something has arrived."""
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more: how much it took."""
    sent = 0
    with suppress(BlockingIOError):
        while True:
            sent += sock.send(bytes(1 << 16))
    return sent


def batches_until(reactor: Reactor, done: Callable[[], bool]) -> int:
    """How many batches that takes."""
    count = 0
    while not done():
        count += reactor.batch()  # none where nobody was ready: the kernel is at it
    return count
