"""Pipes and conduits over real TCP sockets: every trap of splice, and that no byte is lost whatever happens."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import select
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wfpstream.transport._splice import (
    END,
    IDLE_PIPES,
    LARGE_PIPES,
    MORE,
    MOST_PIPES,
    NO_PIPE,
    PIPE_SIZE,
    READ_BLOCKED,
    REFUSED,
    RESET_READING,
    RESET_WRITING,
    SMALL_PIPE,
    SMALLEST_PIPE,
    URGENT,
    WRITE_BLOCKED,
    Conduit,
    PipePool,
)

PLENTY = 1 << 20
PATIENCE = 100
_RESET = struct.pack("ii", 1, 0)


class Legs(NamedTuple):
    """`sender -> (inner, outer) -> receiver`: a conduit moves from `inner` to `outer`."""

    sender: socket.socket
    inner: socket.socket
    outer: socket.socket
    receiver: socket.socket


def pair(send_buffer: int = 0) -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection over loopback; the first one does not block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.socket()
        if send_buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer)
        ours.connect(listener.getsockname())
        theirs, _ = listener.accept()
    ours.setblocking(False)
    for sock in (ours, theirs):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(PATIENCE if sock is theirs else 0)
    return ours, theirs


def make_legs(buffer: int = 0) -> Legs:
    inner, sender = pair()
    inner.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    outer, receiver = pair(buffer)
    return Legs(sender, inner, outer, receiver)


@pytest.fixture
def pool() -> Iterator[PipePool]:
    pool = PipePool()
    yield pool
    assert pool.lent == 0
    pool.close()
    assert pool.open == 0


@pytest.fixture
def legs() -> Iterator[Legs]:
    legs = make_legs()
    yield legs
    for sock in legs:
        sock.close()


@pytest.fixture
def narrow() -> Iterator[Legs]:
    """The receiver's leg takes little before it blocks."""
    legs = make_legs(buffer=4096)
    yield legs
    for sock in legs:
        sock.close()


def wait_for(sock: socket.socket, events: int = select.POLLIN) -> None:
    poll = select.poll()
    poll.register(sock, events)
    assert poll.poll(1000 * PATIENCE), "nothing came"


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def receive_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        assert piece, "the stream ended early"
        data += piece
    return data


def fill(sender: socket.socket, conduit: Conduit) -> bytes:
    """Send until the receiver's leg blocks; what was sent."""
    sender.setblocking(False)
    noise = random.Random(7)
    sent = b""
    while True:
        piece = noise.randbytes(64 * 1024)
        try:
            sent += piece[: sender.send(piece)]
        except BlockingIOError:
            pass
        if conduit.pump(PLENTY) == WRITE_BLOCKED:
            sender.settimeout(PATIENCE)
            return sent


# --- moving -----------------------------------------------------------------------------------------------


def test_moves_what_is_there_and_keeps_no_pipe(legs: Legs, pool: PipePool) -> None:
    """An idle direction holds no pipe."""
    conduit = Conduit(pool, legs.inner, legs.outer)
    assert conduit.pump(PLENTY) == READ_BLOCKED
    assert (pool.lent, pool.open) == (0, 1)
    for word in (b"one", b"two"):
        legs.sender.sendall(word)
        wait_for(legs.inner)
        assert conduit.pump(PLENTY) == READ_BLOCKED
        assert receive_exactly(legs.receiver, 3) == word
    assert (conduit.take_count(), conduit.take_count()) == (6, 0)
    assert (pool.lent, pool.open) == (0, 1)


def test_a_budget_stops_it_with_more_to_come(legs: Legs, pool: PipePool) -> None:
    conduit = Conduit(pool, legs.inner, legs.outer)
    legs.sender.sendall(b"abcdef")
    wait_for(legs.inner)
    assert conduit.pump(4) == MORE
    assert conduit.take_count() == 4
    assert conduit.pump(4) == READ_BLOCKED
    assert receive_exactly(legs.receiver, 6) == b"abcdef"


def test_many_small_pieces_fill_the_slots_of_a_pipe_and_nothing_stops(legs: Legs) -> None:
    """Would-block for want of slots is not would-block for want of data."""
    pool = PipePool(size=SMALLEST_PIPE)
    conduit = Conduit(pool, legs.inner, legs.outer)
    sent = b""
    for number in range(500):
        word = number.to_bytes(2, "big") * 40
        legs.sender.send(word)
        sent += word
    got = b""
    while len(got) < len(sent):
        wait_for(legs.inner) if not got else None
        assert conduit.pump(PLENTY) == READ_BLOCKED
        got += receive_exactly(legs.receiver, conduit.take_count())
    assert got == sent
    assert pool.lent == 0


def test_a_receiver_that_reads_nothing_stops_the_reading(narrow: Legs, pool: PipePool) -> None:
    """Back-pressure: at most one pipe full is read ahead, and no more until that is written."""
    conduit = Conduit(pool, narrow.inner, narrow.outer)
    sent = fill(narrow.sender, conduit)
    assert conduit.held
    assert conduit.pump(PLENTY) == WRITE_BLOCKED
    held, written = conduit.held, conduit.take_count()
    assert written + held <= len(sent)
    # Nothing more is read, however much comes.
    narrow.sender.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            sent += b"x" * narrow.sender.send(b"x" * 65536)
            assert conduit.pump(PLENTY) == WRITE_BLOCKED
    assert conduit.held + conduit.unreported == held
    got = b""
    while len(got) < len(sent):
        got += narrow.receiver.recv(PLENTY)
        conduit.pump(PLENTY)
    assert got == sent


def test_a_budget_covers_what_is_read_not_what_waits(narrow: Legs, pool: PipePool) -> None:
    """With a budget of nothing the pipe is still emptied."""
    conduit = Conduit(pool, narrow.inner, narrow.outer)
    fill(narrow.sender, conduit)
    waiting, before = conduit.held, conduit.take_count()
    receive_exactly(narrow.receiver, before)
    got = 0
    while conduit.held:
        conduit.pump(0)
        got += len(narrow.receiver.recv(PLENTY))
    assert conduit.pump(0) == MORE
    assert conduit.take_count() == waiting
    assert receive_exactly(narrow.receiver, waiting - got) is not None


# --- ends -------------------------------------------------------------------------------------------------


def test_end_of_stream_comes_behind_the_last_byte(legs: Legs, pool: PipePool) -> None:
    conduit = Conduit(pool, legs.inner, legs.outer)
    legs.sender.sendall(b"last")
    legs.sender.shutdown(socket.SHUT_WR)
    wait_for(legs.inner, select.POLLRDHUP)
    assert conduit.pump(PLENTY) == END
    assert conduit.pump(PLENTY) == END
    assert receive_exactly(legs.receiver, 4) == b"last"


def test_end_of_stream_waits_for_a_receiver_that_is_slow(narrow: Legs, pool: PipePool) -> None:
    """A FIN is relayed only after the pipe is empty (ALW-8)."""
    conduit = Conduit(pool, narrow.inner, narrow.outer)
    sent = fill(narrow.sender, conduit)
    narrow.sender.shutdown(socket.SHUT_WR)
    got = b""
    outcome = WRITE_BLOCKED
    while outcome != END:
        assert outcome in (WRITE_BLOCKED, READ_BLOCKED)
        if outcome == WRITE_BLOCKED:
            got += narrow.receiver.recv(PLENTY)
        else:
            wait_for(narrow.inner)
        outcome = conduit.pump(PLENTY)
    assert conduit.held == 0
    got += receive_exactly(narrow.receiver, len(sent) - len(got))
    assert got == sent


@pytest.mark.parametrize("fin", [False, True])
def test_it_stops_before_an_urgent_byte(legs: Legs, pool: PipePool, fin: bool) -> None:
    """With a FIN behind it splice says 0 there, which is no end; without one it says that there is nothing."""
    conduit = Conduit(pool, legs.inner, legs.outer)
    legs.sender.sendall(b"plain")
    legs.sender.send(b"!", socket.MSG_OOB)
    legs.sender.sendall(b"after")
    if fin:
        legs.sender.shutdown(socket.SHUT_WR)
    wait_for(legs.inner, select.POLLRDHUP if fin else select.POLLPRI)
    assert conduit.pump(PLENTY) == (URGENT if fin else READ_BLOCKED)
    assert conduit.pump(PLENTY) == (URGENT if fin else READ_BLOCKED)
    assert receive_exactly(legs.receiver, 5) == b"plain"
    assert not conduit.ended
    assert legs.inner.recv(100) in (b"!", b"!after")  # nothing was taken from it


def test_a_reset_of_the_sender_is_not_its_end(legs: Legs, pool: PipePool) -> None:
    conduit = Conduit(pool, legs.inner, legs.outer)
    legs.sender.sendall(b"before")
    wait_for(legs.inner)
    assert conduit.pump(PLENTY) == READ_BLOCKED
    reset(legs.sender)
    wait_for(legs.inner, select.POLLHUP)
    assert conduit.pump(PLENTY) == RESET_READING
    assert receive_exactly(legs.receiver, 6) == b"before"
    assert conduit.close() == 0


def test_a_reset_of_the_receiver_says_what_was_lost(narrow: Legs, pool: PipePool) -> None:
    conduit = Conduit(pool, narrow.inner, narrow.outer)
    fill(narrow.sender, conduit)
    held = conduit.held
    reset(narrow.receiver)
    wait_for(narrow.outer, select.POLLHUP)
    assert conduit.pump(PLENTY) == RESET_WRITING
    assert conduit.close() == held > 0
    assert conduit.held == 0
    assert (pool.lent, pool.open) == (0, 0), "a pipe with bytes in it is not used again"
    assert conduit.close() == 0


def test_what_the_pipe_holds_can_be_had_back(narrow: Legs, pool: PipePool) -> None:
    """Whoever takes the direction over writes it: order and bytes exact."""
    conduit = Conduit(pool, narrow.inner, narrow.outer)
    sent = fill(narrow.sender, conduit)
    written, held = conduit.take_count(), conduit.held
    rest = conduit.take_back()
    assert len(rest) == held
    assert receive_exactly(narrow.receiver, written) + rest == sent[: written + held]
    assert (conduit.held, pool.lent, pool.open) == (0, 0, 1)
    assert conduit.take_back() == b""
    conduit.pump(0)


# --- a kernel that says no --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_kernel_that_does_not_splice_is_no_failure(
    legs: Legs, pool: PipePool, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*args: object, **kwargs: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "splice", refuse)
    assert Conduit(pool, legs.inner, legs.outer).pump(PLENTY) == REFUSED


def test_an_error_no_socket_gives_is_a_defect(
    legs: Legs, pool: PipePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    conduit = Conduit(pool, legs.inner, legs.outer)
    legs.inner.close()
    with pytest.raises(OSError, match="Bad file"):
        conduit.pump(PLENTY)


# --- the pool ---------------------------------------------------------------------------------------------


def test_a_pool_lends_no_more_than_it_may(legs: Legs) -> None:
    pool = PipePool(most=2, idle=1)
    first, second = pool.borrow(), pool.borrow()
    assert first is not None
    assert second is not None
    assert pool.is_exhausted
    assert pool.borrow() is None
    conduit = Conduit(pool, legs.inner, legs.outer)
    legs.sender.sendall(b"copy me")
    wait_for(legs.inner)
    assert conduit.pump(PLENTY) == NO_PIPE
    assert pool.exhausted == 2
    pool.give_back(first)
    assert conduit.pump(PLENTY) == READ_BLOCKED
    assert receive_exactly(legs.receiver, 7) == b"copy me"
    pool.give_back(second)
    assert pool.open == 1, "one idle pipe is kept, the other one closed"
    pool.close()


def test_many_pipes_are_smaller_ones() -> None:
    """Who has a slow receiver keeps a pipe: the first few may be large, all together must be bounded."""
    pool = PipePool()
    pipes = []
    while (pipe := pool.borrow()) is not None:
        pipes.append(pipe)
    assert [pipe.capacity for pipe in pipes[:LARGE_PIPES]] == [PIPE_SIZE] * LARGE_PIPES
    assert {pipe.capacity for pipe in pipes[LARGE_PIPES:]} == {SMALL_PIPE}
    assert len(pipes) == MOST_PIPES
    assert sum(pipe.capacity for pipe in pipes) <= 48 * PLENTY
    for pipe in pipes:
        pool.give_back(pipe)
    assert pool.open == IDLE_PIPES
    pool.close()


def test_a_closed_pool_closes_what_comes_back() -> None:
    pool = PipePool()
    pipe = pool.borrow()
    assert pipe is not None
    pool.close()
    assert pool.borrow() is None
    pool.give_back(pipe)
    assert pool.open == 0
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(pipe.reader)


def test_no_descriptor_left_means_not_now(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pipe2", full)
    pool = PipePool()
    assert pool.borrow() is None
    assert (pool.lent, pool.exhausted) == (0, 1)


def limit_pipes(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """As `pipe-max-size`, and `pipe-user-pages-soft`, for a user without rights."""
    real = fcntl.fcntl

    def limited(fd: int, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETPIPE_SZ and argument > limit:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(fd, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", limited)


def test_a_pipe_is_as_large_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_pipes(monkeypatch, 128 * 1024)
    pool = PipePool(size=512 * 1024)
    pipe = pool.borrow()
    assert pipe is not None
    assert fcntl.fcntl(pipe.writer, fcntl.F_GETPIPE_SZ) == 128 * 1024 == pipe.capacity
    pool.throw_away(pipe)


def test_a_pipe_too_small_to_be_worth_it_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user beyond `pipe-user-pages-soft` gets pipes of two pages, and may not enlarge them."""
    real = os.pipe2

    def small(flags: int) -> tuple[int, int]:
        reader, writer = real(flags)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8192)
        limit_pipes(monkeypatch, 8192)
        return reader, writer

    monkeypatch.setattr(os, "pipe2", small)
    descriptors = len(os.listdir("/proc/self/fd"))
    assert PipePool().borrow() is None
    assert len(os.listdir("/proc/self/fd")) == descriptors


# --- at random --------------------------------------------------------------------------------------------

Step = tuple[str, int]
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 40_000)),
        st.tuples(st.just("receive"), st.integers(1, 60_000)),
        st.tuples(st.just("pump"), st.integers(0, 100_000)),
        st.tuples(st.just("take"), st.just(0)),
    ),
    max_size=40,
)


@given(steps=_STEPS, seed=st.integers(0, 1000), small=st.booleans())
@settings(deadline=None, max_examples=60)
def test_no_byte_is_lost_whatever_the_order(steps: list[Step], seed: int, small: bool) -> None:
    """Sends, reads of any size, budgets and take-overs in any order: the receiver has exactly what was sent."""
    pool = PipePool(most=1, size=SMALLEST_PIPE)
    legs = make_legs(buffer=4096 if small else 0)
    relayed = Relayed(Conduit(pool, legs.inner, legs.outer), legs)
    try:
        for name, amount in steps:
            relayed.step(name, amount, seed)
        relayed.finish()
    finally:
        relayed.conduit.close()
        pool.close()
        for sock in legs:
            sock.close()
    assert relayed.got == relayed.sent
    assert pool.open == 0


class Relayed:
    """What went in, what came out, and what was taken out of the pipe and not yet written."""

    def __init__(self, conduit: Conduit, legs: Legs) -> None:
        self.conduit = conduit
        self.legs = legs
        self.sent = bytearray()
        self.got = bytearray()
        self.owed = bytearray()
        self.outcome = READ_BLOCKED
        legs.sender.setblocking(False)
        legs.receiver.setblocking(False)

    def step(self, name: str, amount: int, seed: int) -> None:
        if name == "send":
            piece = random.Random(seed + len(self.sent)).randbytes(amount)
            try:
                self.sent += piece[: self.legs.sender.send(piece)]
            except BlockingIOError:
                pass
        elif name == "receive":
            try:
                self.got += self.legs.receiver.recv(amount)
            except BlockingIOError:
                pass
        elif name == "take":
            self.owed += self.conduit.take_back()
        else:
            self.pump(amount)

    def pump(self, budget: int) -> None:
        try:
            while self.owed:  # what was taken back comes first
                del self.owed[: self.legs.outer.send(self.owed)]
        except BlockingIOError:
            return
        self.outcome = self.conduit.pump(budget)

    def finish(self) -> None:
        self.legs.sender.shutdown(socket.SHUT_WR)
        self.pump(PLENTY)
        while self.outcome != END or len(self.got) < len(self.sent):
            if self.outcome == READ_BLOCKED and not self.owed:
                wait_for(self.legs.inner)
            else:
                wait_for(self.legs.receiver)
                self.step("receive", PLENTY, 0)
            self.pump(PLENTY)
        assert self.conduit.held == 0
