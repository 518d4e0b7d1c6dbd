"""What `_sockets` relies on is measured here, on real loopback connections."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import socket
import struct
import termios
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial, wraps
from typing import ParamSpec
from unittest.mock import Mock

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from wfpstream.transport import _sockets as sockets

P = ParamSpec("P")
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
QUIET = 0.05  # how long everybody has to sleep before we say that nothing happens


def live(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test under trio, bounded."""

    @wraps(test)
    def sync(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            with trio.fail_after(100):
                await test(*args, **kwargs)

        trio.run(bounded)

    return sync


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.001)


def unread(sock: socket.socket) -> int:
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0])


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more: how much it accepted."""
    accepted = 0
    try:
        while True:
            accepted += sock.send(bytes(65536))
    except BlockingIOError:
        return accepted


async def read_out(sock: socket.socket) -> tuple[int, str]:
    """Read to the end: how many bytes, and "fin" or "reset"."""
    total = 0
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            n = len(sock.recv(65536))
        except ConnectionResetError:
            return total, "reset"
        if not n:
            return total, "fin"
        total += n


class Net:
    """Makes connections that end with the test."""

    def __init__(self, family: socket.AddressFamily) -> None:
        self.family = family
        self.stack = ExitStack()

    def keep(self, sock: socket.socket) -> socket.socket:
        return self.stack.enter_context(sock)

    def listener(self) -> socket.socket:
        listener = self.keep(socket.socket(self.family))
        sockets.prepare_listener(listener)
        listener.bind((HOSTS[self.family], 0))
        listener.listen()
        return listener

    def pair(self, *, small: bool = False) -> tuple[socket.socket, socket.socket]:
        """(ours, peer). Small: the peer takes a few kB only, so that much stays in our send queue."""
        listener = self.listener()
        peer = self.keep(socket.socket(self.family))
        if small:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(listener.getsockname())
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setblocking(True)
        ours = self.keep(listener.accept()[0])
        listener.close()
        sockets.prepare(ours)
        return ours, peer


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["v4", "v6"])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    if request.param == socket.AF_INET6 and not has_ipv6():
        pytest.skip("no IPv6 loopback")
    net = Net(request.param)
    with net.stack:
        yield net


# Options


def leg_options(sock: socket.socket) -> list[bool]:
    return [
        bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)),
        bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)),
        bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE)),
    ]


def test_prepare_sets_the_options_of_a_leg(net: Net) -> None:
    sock = net.keep(socket.socket(net.family))
    sockets.prepare(sock)
    assert leg_options(sock) == [True, True, True]
    assert sock.gettimeout() == 0


def test_accepted_sockets_inherit_the_options(net: Net) -> None:
    listener = net.listener()
    assert listener.gettimeout() == 0
    net.keep(socket.create_connection(listener.getsockname()[:2]))
    listener.setblocking(True)
    assert leg_options(net.keep(listener.accept()[0])) == [True, True, True]


@pytest.mark.parametrize("asked", [True, False])
def test_v6_only_as_asked(asked: bool) -> None:
    with socket.socket(socket.AF_INET6) as sock:
        sockets.prepare_listener(sock, v6_only=asked)
        assert bool(sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)) == asked


def test_ind_7_urgent_byte_sent_before_accept_stays_in_the_stream(net: Net) -> None:
    listener = net.listener()
    peer = net.keep(socket.create_connection(listener.getsockname()[:2]))
    peer.send(b"!", socket.MSG_OOB)
    peer.send(b"ab")
    listener.setblocking(True)
    ours = net.keep(listener.accept()[0])
    while unread(ours) < 3:
        pass
    sockets.prepare(ours)
    assert take(ours) == [(b"!", True), (b"ab", False)]


# Errors


@pytest.mark.parametrize(
    "number", [errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH]
)
def test_ind_27_errnos_that_mean_a_reset(number: int) -> None:
    error = OSError(number, "x")
    wrapped = trio.BrokenResourceError()
    wrapped.__cause__ = error
    assert sockets.is_reset(error)
    assert sockets.is_reset(wrapped)


@pytest.mark.parametrize("error", [BlockingIOError(errno.EAGAIN, "x"), ValueError(), OSError(), None])
def test_ind_27_other_errors_do_not(error: BaseException | None) -> None:
    assert not sockets.is_reset(error)


@live
async def test_connect_error_tells_once(net: Net) -> None:
    listener = net.listener()
    address = listener.getsockname()
    listener.close()
    sock = net.keep(socket.socket(net.family))
    sockets.prepare(sock)
    if sock.connect_ex(address) == errno.EINPROGRESS:
        await trio.lowlevel.wait_writable(sock)
        error = sockets.connect_error(sock)
        assert isinstance(error, ConnectionRefusedError)
    assert sockets.connect_error(sock) is None


def test_connect_error_is_none_when_connected(net: Net) -> None:
    assert sockets.connect_error(net.pair()[0]) is None


@live
async def test_ind_27_the_kernel_tells_a_reset_once_and_then_end_of_stream(net: Net) -> None:
    ours, peer = net.pair()
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    with pytest.raises(ConnectionResetError):
        ours.recv(1)
    assert ours.recv(1) == b""


@live
async def test_ind_27_after_a_fin_a_reset_reads_as_end_of_stream(net: Net) -> None:
    ours, peer = net.pair()
    peer.shutdown(socket.SHUT_WR)
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    assert ours.recv(1) == b""


# Reset with flush


@live
async def test_ind_18_linger_zero_at_once_loses_accepted_bytes(net: Net) -> None:
    """Also DRP-4: what is lost is told, for discarded_out."""
    ours, peer = net.pair(small=True)
    accepted = fill(ours)
    lost = sockets.reset_now(ours)
    got, how = await read_out(peer)
    assert how == "reset"
    assert 0 < lost < accepted
    assert got < accepted
    assert got + lost >= accepted  # what was delivered but not yet acknowledged counts twice


@live
async def test_ind_18_reset_after_flush_delivers_all_then_resets(net: Net) -> None:
    ours, peer = net.pair(small=True)
    accepted = fill(ours)
    lost: list[int] = []

    async def reset() -> None:
        lost.append(await sockets.reset_after_flush(ours, math.inf))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reset)
        await wait_all_tasks_blocked()
        assert await read_out(peer) == (accepted, "reset")
    assert lost == [0]


@live
async def test_ind_18_timeout_gives_the_rest_up(net: Net) -> None:
    ours, peer = net.pair(small=True)
    accepted = fill(ours)
    lost = await sockets.reset_after_flush(ours, 0.02)
    got, how = await read_out(peer)
    assert how == "reset"
    assert 0 < lost < accepted
    assert got + lost >= accepted


@live
async def test_ind_18_a_dead_leg_is_not_waited_for(net: Net) -> None:
    ours, peer = net.pair(small=True)
    fill(ours)
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    assert await sockets.reset_after_flush(ours, math.inf) > 0
    assert ours.fileno() == -1


@live
async def test_ind_18_a_leg_dying_during_the_flush_ends_it(net: Net) -> None:
    ours, peer = net.pair(small=True)
    fill(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sockets.reset_after_flush, ours, math.inf)
        await wait_all_tasks_blocked()
        sockets.reset_now(peer)


@live
async def test_drp_2_a_cancelled_flush_resets_at_once(net: Net) -> None:
    ours, peer = net.pair(small=True)
    accepted = fill(ours)
    with trio.move_on_after(0.02):
        await sockets.reset_after_flush(ours, math.inf)
    got, how = await read_out(peer)
    assert (got < accepted, how) == (True, "reset")


@live
async def test_ind_18_polls_5_ms_doubling_to_100_ms(net: Net) -> None:
    ours, _ = net.pair()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))

    def owed(sock: socket.socket, *, fin_sent: bool = False) -> int:
        return 7 - len(slept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio, "sleep", sleep)
        patch.setattr(sockets, "send_queue_length", owed)
        await sockets.wait_flushed(ours, 10)
    assert slept == [0.005, 0.01, 0.02, 0.04, 0.08, 0.1, 0.1]


@live
async def test_led_3_an_unacknowledged_fin_is_no_byte(net: Net) -> None:
    ours, peer = net.pair(small=True)
    accepted = fill(ours)
    await until(lambda: sockets.send_queue_length(ours) == accepted - unread(peer))
    ours.shutdown(socket.SHUT_WR)
    # The kernel may move some on meanwhile, between the two that are asked.
    await until(lambda: sockets.send_queue_length(ours) == accepted - unread(peer) + 1)
    await until(lambda: sockets.send_queue_length(ours, fin_sent=True) == accepted - unread(peer))
    assert await read_out(peer) == (accepted, "fin")
    await until(lambda: sockets.send_queue_length(ours) == 0)
    assert sockets.send_queue_length(ours, fin_sent=True) == 0


@pytest.mark.parametrize("piece", [1, 100, 1448, 70_000])
def test_ind_24_all_that_there_is_room_for_is_taken(net: Net, piece: int) -> None:
    """However much lies in the kernel already, and in however small pieces it came."""
    ours, _ = net.pair()
    seen = set()
    while room := sockets.send_room(ours):
        seen.add(room)
        for _ in range(20):
            assert ours.send(bytes(min(piece, room))) == min(piece, room)
            room = sockets.send_room(ours)
            if not room:
                break
        else:
            assert ours.send(bytes(room)) == room
    assert max(seen) > 128 * 1024
    fill(ours)
    assert sockets.send_room(ours) == 0


@live
async def test_a_closed_socket_owes_nothing(net: Net) -> None:
    ours, _ = net.pair()
    ours.close()
    assert sockets.reset_now(ours) == 0
    assert await sockets.reset_after_flush(ours, math.inf) == 0


# Closing without a reset


@live
async def test_close_with_unread_input_destroys_the_last_answer(net: Net) -> None:
    """The fact behind drain_then_close."""
    ours, peer = net.pair(small=True)
    peer.send(b"unread")
    await trio.lowlevel.wait_readable(ours)
    accepted = fill(ours)
    ours.close()
    got, how = await read_out(peer)
    assert (got < accepted, how) == (True, "reset")


@live
async def test_drain_then_close_delivers_the_last_answer(net: Net) -> None:
    ours, peer = net.pair(small=True)
    peer.send(b"unread")
    accepted = fill(ours)
    discarded: list[int] = []

    async def close() -> None:
        discarded.append(await sockets.drain_then_close(ours, math.inf))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        await wait_all_tasks_blocked()
        peer.send(b", late")
        assert await read_out(peer) == (accepted, "fin")
        peer.close()
    assert discarded == [len("unread, late")]
    assert ours.fileno() == -1


@live
async def test_drain_then_close_is_bounded_in_time_and_bytes(net: Net) -> None:
    ours, _ = net.pair()
    assert await sockets.drain_then_close(ours, 0.01) == 0
    assert ours.fileno() == -1
    ours, peer = net.pair()
    fill(peer)
    assert await sockets.drain_then_close(ours, math.inf, limit=100_000) == 100_000
    assert ours.fileno() == -1


@live
async def test_drain_then_close_of_a_reset_leg(net: Net) -> None:
    ours, peer = net.pair()
    peer.send(b"abc")
    await trio.lowlevel.wait_readable(ours)
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    assert await sockets.drain_then_close(ours, math.inf) == 3


@live
async def test_ind_27_discard_input_counts_what_a_reset_leg_still_held(net: Net) -> None:
    ours, peer = net.pair()
    assert sockets.discard_input(ours) == (0, False)
    peer.send(b"abc")
    peer.send(b"!", socket.MSG_OOB)
    peer.send(b"def")
    await until(lambda: unread(ours) == 7)
    assert sockets.discard_input(ours, 2) == (2, False)
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    assert sockets.discard_input(ours) == (5, True)


# Urgent data


def take(sock: socket.socket, *, careful: bool = True) -> list[tuple[bytes, bool]]:
    """All that is there now, as `receive` gives it; b"" is the end of stream."""
    buffer = bytearray(100)
    items: list[tuple[bytes, bool]] = []
    try:
        while not items or items[-1][0]:
            n, urgent = sockets.receive(sock, buffer, careful=careful)
            items.append((bytes(buffer[:n]), urgent))
    except BlockingIOError:
        pass
    return items


async def send_mixed(peer: socket.socket, ours: socket.socket, text: str) -> None:
    """Send; "!" and "?" are urgent. Returns when all of it has arrived."""
    before = unread(ours)
    for byte in text.encode():
        if byte in b"!?":
            sockets.send_urgent(peer, bytes([byte]))
        else:
            peer.send(bytes([byte]))
    await until(lambda: unread(ours) == before + len(text))


@live
async def test_ind_7_the_urgent_byte_comes_alone_at_its_place(net: Net) -> None:
    ours, peer = net.pair()
    await send_mixed(peer, ours, "ab!cd")
    assert not sockets.at_mark(ours)
    assert take(ours) == [(b"ab", False), (b"!", True), (b"cd", False)]
    await send_mixed(peer, ours, "!ef")
    assert sockets.at_mark(ours)
    assert take(ours) == [(b"!", True), (b"ef", False)]


@live
async def test_ind_7_a_plain_read_stops_at_the_mark_and_runs_past_it_from_there(net: Net) -> None:
    ours, peer = net.pair()
    await send_mixed(peer, ours, "ab!cd")
    assert take(ours, careful=False) == [(b"ab", False), (b"!cd", False)]


@live
async def test_ind_7_of_two_urgent_bytes_in_flight_the_last_keeps_the_mark(net: Net) -> None:
    ours, peer = net.pair()
    await send_mixed(peer, ours, "a!b?c")
    assert take(ours) == [(b"a!b", False), (b"?", True), (b"c", False)]


@live
async def test_ind_7_adjacent_urgent_bytes_lose_none(net: Net) -> None:
    ours, peer = net.pair()
    await send_mixed(peer, ours, "!?")
    assert take(ours) == [(b"!", False), (b"?", True)]


@live
async def test_ind_7_two_urgent_bytes_read_one_by_one(net: Net) -> None:
    ours, peer = net.pair()
    await send_mixed(peer, ours, "a!")
    assert take(ours) == [(b"a", False), (b"!", True)]
    await send_mixed(peer, ours, "?b")
    assert take(ours) == [(b"?", True), (b"b", False)]


@live
async def test_ind_7_urgent_byte_followed_by_fin(net: Net) -> None:
    ours, peer = net.pair()
    await send_mixed(peer, ours, "a!")
    peer.shutdown(socket.SHUT_WR)
    assert take(ours)[:2] == [(b"a", False), (b"!", True)]
    await trio.lowlevel.wait_readable(ours)
    assert take(ours) == [(b"", False)]


@live
async def test_ind_7_a_buffer_that_ends_at_the_mark(net: Net) -> None:
    ours, peer = net.pair()
    await send_mixed(peer, ours, "x" * 100 + "!y")
    assert take(ours) == [(b"x" * 100, False), (b"!", True), (b"y", False)]


@live
async def test_receive_raises_what_the_kernel_says(net: Net) -> None:
    ours, peer = net.pair()
    with pytest.raises(BlockingIOError):
        sockets.receive(ours, bytearray(10))
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    with pytest.raises(ConnectionResetError) as caught:
        sockets.receive(ours, bytearray(10))
    assert sockets.is_reset(caught.value)


@pytest.mark.parametrize("data", [b"", b"ab"])
def test_send_urgent_takes_one_byte(net: Net, data: bytes) -> None:
    with pytest.raises(ValueError, match="one byte"):
        sockets.send_urgent(net.pair()[0], data)


def test_send_urgent_says_when_the_kernel_is_full(net: Net) -> None:
    ours, _ = net.pair(small=True)
    fill(ours)
    with pytest.raises(BlockingIOError):
        while True:
            sockets.send_urgent(ours, b"!")


# Hang-up watch


class Watch(sockets.HangupWatch):
    """Counts its own wake-ups and notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.wakeups = 0
        self.told: list[str] = []

    def dispatch(self) -> int:
        self.wakeups += 1
        return super().dispatch()

    def note(self, sock: socket.socket, name: str = "") -> sockets.Watched:
        return self.add(
            sock, lambda: self.told.append(f"{name}reset"), lambda: self.told.append(f"{name}urgent")
        )


@pytest.fixture
def watch() -> Iterator[Watch]:
    with Watch() as watch:
        yield watch


async def told(watch: Watch) -> list[str]:
    """What the watch says until all is quiet. A watch that spins never gets quiet and fails the test."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await wait_all_tasks_blocked(QUIET)
        nursery.cancel_scope.cancel()
    said, watch.told = watch.told, []
    return said


@pytest.mark.parametrize("before", ["nothing", "data", "full window", "fin"])
@live
async def test_ind_27_reset_noticed_while_paused(net: Net, watch: Watch, before: str) -> None:
    """Also DEF-3: what was in front of the reset stays readable."""
    ours, peer = net.pair()
    watched = watch.note(ours)
    if before == "data":
        peer.send(b"abc")
    elif before == "full window":
        fill(peer)
    elif before == "fin":
        peer.shutdown(socket.SHUT_WR)
    assert await told(watch) == []
    held = unread(ours)
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    assert await told(watch) == ["reset"]
    assert not watched.active
    assert sockets.discard_input(ours, 1 << 30) == (held, True)


@live
async def test_ind_27_reset_wakes_the_running_watch(net: Net, watch: Watch) -> None:
    ours, peer = net.pair()
    seen = trio.Event()
    watch.add(ours, seen.set)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        await wait_all_tasks_blocked()
        sockets.reset_now(peer)
        await seen.wait()
        nursery.cancel_scope.cancel()


@live
async def test_ind_27_reset_before_the_watch_began(net: Net, watch: Watch) -> None:
    ours, peer = net.pair()
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    watch.note(ours)
    assert await told(watch) == ["reset"]


@live
async def test_ind_27_reset_whose_error_someone_else_met(net: Net, watch: Watch) -> None:
    """EPOLLHUP alone, with our direction open, is a reset."""
    ours, peer = net.pair()
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    assert sockets.connect_error(ours) is not None
    watch.note(ours)
    assert await told(watch) == ["reset"]


@pytest.mark.parametrize("full_close", [False, True])
@live
async def test_ind_27_a_fin_while_paused_is_no_reset(net: Net, watch: Watch, full_close: bool) -> None:
    ours, peer = net.pair()
    watched = watch.note(ours)
    peer.send(b"abc")
    peer.shutdown(socket.SHUT_WR)
    if full_close:
        peer.close()
    assert await told(watch) == []
    assert watched.active
    assert take(ours) == [(b"abc", False), (b"", False)]


@live
async def test_ind_27_sending_to_a_closed_peer_shows_the_reset(net: Net, watch: Watch) -> None:
    ours, peer = net.pair()
    watch.note(ours)
    peer.close()
    assert await told(watch) == []
    ours.send(b"x")
    await until(lambda: sockets.is_dead(ours))
    assert await told(watch) == ["reset"]


@pytest.mark.parametrize("ours_first", [False, True])
@live
async def test_ind_27_a_hang_up_after_both_fins_is_normal(net: Net, watch: Watch, ours_first: bool) -> None:
    ours, peer = net.pair()
    watched = watch.note(ours)
    if not ours_first:
        peer.shutdown(socket.SHUT_WR)
    watched.fin_sent = True
    ours.shutdown(socket.SHUT_WR)
    assert await told(watch) == []
    if ours_first:
        assert watched.active
        peer.shutdown(socket.SHUT_WR)
    assert await told(watch) == []
    assert not watched.active
    watched.remove()


@live
async def test_ind_27_reset_after_our_fin_only(net: Net, watch: Watch) -> None:
    ours, peer = net.pair()
    watched = watch.note(ours)
    watched.fin_sent = True
    ours.shutdown(socket.SHUT_WR)
    await until(lambda: sockets.send_queue_length(ours) == 0)
    sockets.reset_now(peer)
    assert await told(watch) == ["reset"]


@live
async def test_removed_sockets_are_not_told(net: Net, watch: Watch) -> None:
    ours, peer = net.pair()
    watched = watch.note(ours)
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    watched.remove()
    watched.remove()
    watched.rearm_urgent()
    assert await told(watch) == []


def take_number(net: Net, old: socket.socket, new: socket.socket) -> socket.socket:
    """Close `old` and give its number to the connection `new`."""
    fd = old.fileno()
    os.dup2(new.fileno(), fd)
    old.detach()
    new.close()
    return net.keep(socket.socket(fileno=fd))


@live
async def test_watch_survives_a_number_reused_within_a_batch(net: Net, watch: Watch) -> None:
    """Two legs die at once; the first one told closes the other, and a new connection gets its number."""
    legs = [net.pair(), net.pair()]
    fresh, fresh_peer = net.pair()
    watched: list[sockets.Watched] = []

    def dies(number: int) -> None:
        watch.told.append("leg")
        watched[1 - number].remove()
        watch.note(take_number(net, legs[1 - number][0], fresh), "fresh ")

    for number, (ours, peer) in enumerate(legs):
        watched.append(watch.add(ours, partial(dies, number)))
        sockets.reset_now(peer)
    await until(lambda: all(sockets.is_dead(ours) for ours, _ in legs))
    assert await told(watch) == ["leg"]
    sockets.reset_now(fresh_peer)
    assert await told(watch) == ["fresh reset"]


@live
async def test_watch_survives_a_close_without_remove(net: Net, watch: Watch) -> None:
    ours, _ = net.pair()
    fresh, fresh_peer = net.pair()
    stale = watch.note(ours, "stale ")
    new = watch.note(take_number(net, ours, fresh), "fresh ")
    stale.remove()
    assert (stale.active, new.active) == (False, True)
    sockets.reset_now(fresh_peer)
    assert await told(watch) == ["fresh reset"]


def test_remove_after_close(net: Net, watch: Watch) -> None:
    ours, _ = net.pair()
    watched = watch.note(ours)
    ours.close()
    watched.remove()
    assert watch.dispatch() == 0


def test_a_socket_is_watched_once(net: Net, watch: Watch) -> None:
    ours, _ = net.pair()
    watched = watch.note(ours)
    with pytest.raises(FileExistsError):
        watch.note(ours)
    assert watched.active


@live
async def test_watch_sleeps_while_plain_data_and_a_fin_arrive(net: Net, watch: Watch) -> None:
    """DEF-3: a paused leg costs nothing per segment."""
    ours, peer = net.pair()
    watch.note(ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        for n in range(1, 101):
            peer.send(b"x")
            await until(lambda n=n: unread(ours) == n)  # type: ignore[misc]
        peer.shutdown(socket.SHUT_WR)
        await wait_all_tasks_blocked(QUIET)
        assert watch.wakeups == 0
        nursery.cancel_scope.cancel()


@live
async def test_watch_does_not_spin_on_what_is_left_as_it_is(net: Net, watch: Watch) -> None:
    """Unread urgent data, a reset and a normal hang-up: one wake-up or two each, then silence."""
    urgent, urgent_peer = net.pair()
    dead, dead_peer = net.pair()
    over, over_peer = net.pair()
    watch.note(urgent)
    watch.note(dead)
    watch.note(over).fin_sent = True
    over.shutdown(socket.SHUT_WR)
    over_peer.shutdown(socket.SHUT_WR)
    sockets.reset_now(dead_peer)
    await send_mixed(urgent_peer, urgent, "a!b")
    assert sorted(await told(watch)) == ["reset", "urgent"]
    assert watch.wakeups <= 6


@live
async def test_ind_7_urgent_data_is_told_once_until_rearmed(net: Net, watch: Watch) -> None:
    ours, peer = net.pair()
    watched = watch.note(ours)
    await send_mixed(peer, ours, "a!b")
    assert await told(watch) == ["urgent"]
    await send_mixed(peer, ours, "c?d")
    assert await told(watch) == []
    watched.rearm_urgent()
    assert await told(watch) == ["urgent"]  # still unread
    assert take(ours) == [(b"a!bc", False), (b"?", True), (b"d", False)]
    watched.rearm_urgent()
    assert await told(watch) == []
    await send_mixed(peer, ours, "!")
    assert await told(watch) == ["urgent"]


@live
async def test_ind_7_a_reset_is_still_told_after_urgent_data(net: Net, watch: Watch) -> None:
    ours, peer = net.pair()
    watch.note(ours)
    await send_mixed(peer, ours, "a!")
    assert await told(watch) == ["urgent"]
    sockets.reset_now(peer)
    assert await told(watch) == ["reset"]


@live
async def test_an_urgent_callback_may_remove_its_socket(net: Net, watch: Watch) -> None:
    ours, peer = net.pair()
    watched: list[sockets.Watched] = []
    watched.append(watch.add(ours, lambda: watch.told.append("reset"), lambda: watched.pop().remove()))
    await send_mixed(peer, ours, "a!")
    sockets.reset_now(peer)
    await until(lambda: sockets.is_dead(ours))
    assert await told(watch) == []


@live
async def test_urgent_data_is_not_told_unless_asked(net: Net, watch: Watch) -> None:
    ours, peer = net.pair()
    watched = watch.add(ours, lambda: None)
    await send_mixed(peer, ours, "a!")
    watched.rearm_urgent()
    assert watch.dispatch() == 0


# Original destination


def test_original_destination_of_a_direct_connection(net: Net) -> None:
    assert sockets.original_destination(net.pair()[0]) is None


def redirected(family: int, own: tuple[str, int], raw: bytes) -> Mock:
    sock = Mock(spec=socket.socket, family=family)
    sock.getsockname.return_value = own
    sock.getsockopt.return_value = raw
    return sock


V4 = struct.pack("=H", socket.AF_INET) + bytes([0x1F, 0x90, 192, 0, 2, 7]) + bytes(8)


def v6(host: str, scope: int = 0) -> bytes:
    address = socket.inet_pton(socket.AF_INET6, host)
    return struct.pack("=H", socket.AF_INET6) + b"\x1f\x90" + bytes(4) + address + struct.pack("=I", scope)


@pytest.mark.parametrize(
    ("family", "own", "raw", "wanted"),
    [
        (socket.AF_INET, ("127.0.0.1", 9000), V4, ("192.0.2.7", 8080)),
        (socket.AF_INET, ("192.0.2.7", 9000), V4, ("192.0.2.7", 8080)),
        (socket.AF_INET, ("192.0.2.7", 8080), V4, None),
        (socket.AF_INET6, ("::ffff:127.0.0.1", 9000), V4, ("192.0.2.7", 8080)),
        (socket.AF_INET6, ("::ffff:192.0.2.7", 8080), V4, None),
        (socket.AF_INET6, ("::1", 9000), v6("2001:db8::7"), ("2001:db8::7", 8080)),
        (socket.AF_INET6, ("::1", 9000), v6("fe80::7", 3), ("fe80::7%3", 8080)),
        (socket.AF_INET6, ("2001:db8::7", 8080), v6("2001:db8::7"), None),
    ],
)
def test_original_destination_as_the_kernel_writes_it(
    family: int, own: tuple[str, int], raw: bytes, wanted: tuple[str, int] | None
) -> None:
    sock = redirected(family, own, raw)
    assert sockets.original_destination(sock) == wanted
    assert sock.getsockopt.call_args.args[0] == (socket.IPPROTO_IP if raw is V4 else socket.IPPROTO_IPV6)
