"""The addresses that processes of ours share: kept, shared, refused to others; and the shared counts."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

import pytest
import trio

from tests.transport.kit import bounded
from wfpstream.transport import KeptAddress, ListenerSpec, SharedAddresses, Tally
from wfpstream.transport._listeners import Listener, open_listener

ANOTHER_UID = 54321


def spec(host: str = "127.0.0.1", port: int = 0, name: str = "") -> ListenerSpec:
    return ListenerSpec(name=name, host=host, port=port, upstream_host="127.0.0.1", upstream_port=1)


@pytest.fixture
def addresses() -> Iterator[SharedAddresses]:
    found = SharedAddresses()
    yield found
    found.close()


async def worker_at(kept: KeptAddress) -> Listener:
    """What a worker opens there."""
    return await open_listener(spec(kept.host, kept.port), shared=True)


def taken(worker: Listener) -> int:
    """How many connections waited for it."""
    waiting = worker.take_waiting()
    for accepted in waiting:
        accepted.sock.close()
    return len(waiting)


def try_to_bind(port: int, *options: int) -> int:
    """As a stranger of the same uid that sets these options: 0, or what is refused."""
    with socket.socket() as sock:
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, 1)
        return errno_of(sock, port)


def errno_of(sock: socket.socket, port: int) -> int:
    try:
        sock.bind(("127.0.0.1", port))
        sock.listen()
    except OSError as error:
        return error.errno or -1
    return 0


def try_as(uid: int, port: int, *options: int) -> int:
    """The same as another user, in a process of its own."""
    child = os.fork()
    if not child:
        code = 255
        try:
            os.setgroups([])
            os.setuid(uid)
            code = try_to_bind(port, *options)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


EVERYTHING = (
    (),
    (socket.SO_REUSEADDR,),
    (socket.SO_REUSEPORT,),
    (socket.SO_REUSEADDR, socket.SO_REUSEPORT),
)


@bounded
async def test_the_parent_keeps_the_number_and_never_listens(addresses: SharedAddresses) -> None:
    await addresses.open([spec()])
    (kept,) = addresses.listeners
    assert kept.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((kept.host, kept.port))
    first, second = await worker_at(kept), await worker_at(kept)
    try:
        assert first.port == second.port == kept.port
        for _ in range(50):
            socket.create_connection((kept.host, kept.port)).close()
        count = 0
        while count < 50:
            count += taken(first) + taken(second)
        assert count == 50
    finally:
        first.close()
        second.close()
    # Also when none is left.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((kept.host, kept.port))
    (await worker_at(kept)).close()


@pytest.mark.parametrize("has_workers", [False, True])
@bounded
async def test_who_does_not_ask_to_share_is_refused(addresses: SharedAddresses, has_workers: bool) -> None:
    await addresses.open([spec()])
    (kept,) = addresses.listeners
    workers = [await worker_at(kept)] if has_workers else []
    assert try_to_bind(kept.port) == errno.EADDRINUSE
    assert try_to_bind(kept.port, socket.SO_REUSEADDR) == errno.EADDRINUSE
    # Ourselves, a second time, do not ask either.
    another = SharedAddresses()
    with pytest.raises(OSError, match="address already in use"):
        await another.open([spec(port=kept.port)])
    for worker in workers:
        worker.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user for a moment")
@pytest.mark.parametrize("options", EVERYTHING)
@pytest.mark.parametrize("has_workers", [False, True])
@bounded
async def test_another_user_gets_in_by_no_means(
    addresses: SharedAddresses, has_workers: bool, options: tuple[int, ...]
) -> None:
    await addresses.open([spec()])
    (kept,) = addresses.listeners
    workers = [await worker_at(kept)] if has_workers else []
    assert try_as(ANOTHER_UID, kept.port, *options) == errno.EADDRINUSE
    for worker in workers:
        worker.close()


@bounded
async def test_connections_of_an_earlier_run_are_no_reason_to_refuse(addresses: SharedAddresses) -> None:
    before = SharedAddresses()
    await before.open([spec()])
    (kept,) = before.listeners
    worker = await worker_at(kept)
    client = socket.create_connection((kept.host, kept.port))
    while not worker.has_waiting:
        await trio.lowlevel.checkpoint()
    (accepted,) = worker.take_waiting()
    accepted.sock.close()  # first, so that it is ours to wait
    client.close()
    worker.close()
    before.close()
    await addresses.open([spec(port=kept.port)])
    again = await worker_at(addresses.listeners[0])
    again.close()


@bounded
async def test_all_or_none(addresses: SharedAddresses) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"):
            await addresses.open([spec(), spec(port=port)])
    assert addresses.listeners == ()
    await addresses.open([spec(port=port)])


@bounded
async def test_other_addresses_while_it_runs(addresses: SharedAddresses) -> None:
    await addresses.open([spec(name="stays"), spec(name="goes")])
    stays, goes = addresses.listeners
    prepared = await addresses.prepare([spec(name="new"), spec(name="stays")])
    assert addresses.listeners == (stays, goes)
    with pytest.raises(RuntimeError):
        await addresses.prepare([])
    prepared.commit()
    new = addresses.listeners[0]
    assert addresses.listeners == (new, stays)
    # What goes is ours until its last worker has gone.
    assert try_to_bind(goes.port) == errno.EADDRINUSE
    addresses.let_go()
    assert try_to_bind(goes.port) == 0
    prepared = await addresses.prepare([*(spec(name=name) for name in ("new", "stays", "third"))])
    (opened,) = prepared.opened
    prepared.abandon()
    assert addresses.listeners == (new, stays)
    assert try_to_bind(opened.port) == 0


@bounded
async def test_a_wider_address_at_the_same_port(addresses: SharedAddresses) -> None:
    await addresses.open([spec()])
    (narrow,) = addresses.listeners
    old = await worker_at(narrow)
    prepared = await addresses.prepare([spec("0.0.0.0", narrow.port)])
    new = await worker_at(prepared.listeners[0])
    prepared.commit()
    old.close()
    addresses.let_go()
    socket.create_connection(("127.0.0.1", narrow.port)).close()
    while not new.has_waiting:
        await trio.lowlevel.checkpoint()
    assert taken(new) == 1
    new.close()


@bounded
async def test_when_it_is_closed_it_is_over(addresses: SharedAddresses) -> None:
    await addresses.open([spec()])
    (kept,) = addresses.listeners
    addresses.close()
    assert try_to_bind(kept.port) == 0
    with pytest.raises(RuntimeError):
        await addresses.prepare([spec()])
    await trio.lowlevel.checkpoint()


# --- the counts -----------------------------------------------------------------------------------


def test_counts_are_seen_by_all_who_have_the_memory() -> None:
    ours = Tally(2)
    theirs = Tally(2, os.dup(ours.fileno()))
    count = theirs.counter(2)
    for connections in (1, 2, 1, 2, 3):
        count(connections)
    assert (ours.connections(2), ours.accepted(2)) == (3, 4)
    assert (ours.connections(1), ours.accepted(1)) == (0, 0)
    ours.clear(2)
    assert (ours.connections(2), ours.accepted(2)) == (0, 4)
    count_again = Tally(2, os.dup(ours.fileno())).counter(2)
    count_again(1)
    assert (ours.connections(2), ours.accepted(2)) == (1, 5)
    theirs.close()
    ours.close()
