"""A live proxy that takes nobody for a while: refuse, reset, ignore, and serve again at the same port.

What is done to newcomers must never touch who is connected already, nor give the port away.
"""

from __future__ import annotations

import errno
import socket

import pytest
import trio
import trio.testing

from tests.transport.kit import Live, bounded, live, read_all, read_exactly, send_until_blocked
from wfpstream.transport._door import Admission
from wfpstream.transport._hub import _hubs


def connect_now(run: Live, timeout: float = 100.0) -> socket.socket:
    """A connection that waits in the backlog: nothing is awaited, so that the proxy cannot have accepted it."""
    listener = run.proxy.listeners[0]
    sock = socket.create_connection((listener.host, listener.port), timeout)
    while not listener.has_waiting:
        pass  # the kernel is at it
    return sock


async def echoed(client: trio.SocketStream, server: trio.SocketStream) -> None:
    """Both directions work."""
    await client.send_all(b"ping")
    assert await read_exactly(server, 4) == b"ping"
    await server.send_all(b"pong")
    assert await read_exactly(client, 4) == b"pong"


@bounded
async def test_refused_connects_are_refused_and_the_port_comes_back() -> None:
    async with live() as run:
        pair = await run.pair()
        port = run.proxy.listeners[0].port
        for _ in range(3):
            run.proxy.admit("refuse")
            with pytest.raises(ConnectionRefusedError):
                connect_now(run)
            await echoed(*pair)
            run.proxy.admit("serve")
            assert run.proxy.listeners[0].port == port
            await echoed(*await run.pair())
        await echoed(*pair)


@bounded
async def test_the_port_cannot_be_had_while_connects_are_refused() -> None:
    async with live() as run:
        await run.pair()
        run.proxy.admit("refuse")
        address = ("127.0.0.1", run.proxy.listeners[0].port)
        for option in (None, socket.SO_REUSEADDR):
            with socket.socket() as thief:
                if option is not None:
                    thief.setsockopt(socket.SOL_SOCKET, option, 1)
                with pytest.raises(OSError, match="in use") as caught:
                    thief.bind(address)
                assert caught.value.errno == errno.EADDRINUSE
        run.proxy.admit("serve")
        await echoed(*await run.pair())


@bounded
async def test_no_connect_of_this_machine_meets_itself_there() -> None:
    """A connect from a free port may get the port it connects to, if nobody has it bound."""
    async with live() as run:
        run.proxy.admit("refuse")
        address = ("127.0.0.1", run.proxy.listeners[0].port)
        with socket.socket() as sock, pytest.raises(OSError, match=r"in use|refused"):
            sock.bind(address)
            sock.connect(address)


@bounded
async def test_reset_accepts_and_resets() -> None:
    async with live() as run:
        pair = await run.pair()
        run.proxy.admit("reset")
        for _ in range(3):
            client = await run.client()
            assert await read_all(client) == (b"", "reset")
        await echoed(*pair)
        run.proxy.admit("serve")
        await echoed(*await run.pair())


@bounded
async def test_ignored_connects_wait_and_get_through_afterwards() -> None:
    async with live() as run:
        pair = await run.pair()
        run.proxy.admit("ignore")
        sock = trio.socket.socket()
        listener = run.proxy.listeners[0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sock.connect, (listener.host, listener.port))
            await trio.testing.wait_all_tasks_blocked()
            await echoed(*pair)
            assert run.proxy.accepted == 1
            run.proxy.admit("serve")
        client = trio.SocketStream(sock)
        server = await run.accept()
        await echoed(client, server)
        await client.aclose()
        await server.aclose()


@bounded
async def test_changing_from_one_to_another() -> None:
    async with live() as run:
        for how in ("refuse", "ignore", "refuse", "reset", "refuse", "serve", "ignore", "reset", "serve"):
            run.proxy.admit(how)
            if how == "refuse":
                with pytest.raises(ConnectionRefusedError):
                    connect_now(run)
            elif how == "ignore":
                with pytest.raises(TimeoutError):
                    connect_now(run, 0.05)
            elif how == "reset":
                assert await read_all(await run.client()) == (b"", "reset")
        await echoed(*await run.pair())


@pytest.mark.parametrize("how", ["refuse", "ignore", "reset"])
def test_who_waits_in_the_backlog_is_served(how: Admission) -> None:
    """Who got a connection before the change keeps it."""

    @bounded
    async def main() -> None:
        async with live() as run:
            sock = connect_now(run)
            run.proxy.admit(how)
            client = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            await echoed(client, await run.accept())
            await client.aclose()

    main()


@pytest.mark.parametrize("how", ["refuse", "ignore", "reset"])
def test_stopping_meanwhile(how: Admission) -> None:
    @bounded
    async def main() -> None:
        async with live() as run:
            run.proxy.admit(how)
            address = run.proxy.listeners[0].host, run.proxy.listeners[0].port
            await run.proxy.stop()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, 100)
            run.proxy.admit("serve")

    main()


@bounded
async def test_aborting_everything_takes_flows_and_those_on_their_way() -> None:
    async with live() as run:
        client, server = await run.pair()
        await server.send_all(b"owed")
        await run.proxy.abort_connections()
        assert run.proxy.connections == 0
        assert (await read_all(client))[1] == "reset"
        assert await read_all(server) == (b"", "reset")
        assert (await run.deleted())["reason"] == "abort"
        await echoed(*await run.pair())


@bounded
async def test_aborting_a_connection_that_has_just_reached_its_upstream() -> None:
    """Whether it is a flow already or not, nobody hears of one that was stopped."""
    async with live() as run:
        for rounds in range(30):
            sock = connect_now(run)
            for _ in range(rounds % 10):
                await trio.lowlevel.checkpoint()
            await run.proxy.abort_connections()
            assert run.proxy.connections == run.proxy.accepted * 0
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
            sock.close()
        reasons = {event["reason"] for event in run.events.named("flow_deleted")}
        assert reasons <= {"abort"}


@bounded
async def test_aborting_with_nobody_there() -> None:
    async with live() as run:
        await run.proxy.abort_connections()
        await echoed(*await run.pair())


@bounded
async def test_aborting_does_not_wait_for_a_flow_that_cannot_deliver_what_it_owes() -> None:
    async with live() as run:
        client, server = await run.pair()
        await client.send_eof()
        pipes = _hubs[id(run.engine)].pipes
        await send_until_blocked(server, lambda: bool(pipes.lent or run.flow.stored), 1 << 30)
        await run.proxy.abort_connections(0.01)
        assert run.proxy.connections == 0


@bounded
async def test_what_is_unfinished_is_named() -> None:
    async with live() as run:
        assert run.proxy.unfinished() == []
        sock = connect_now(run)
        assert "somebody waits" in " ".join(run.proxy.unfinished())
        server = await run.accept()
        await run.events.wait("flow_established")
        assert run.proxy.unfinished() == []
        sock.sendall(b"x")
        while "something to read" not in " ".join(run.proxy.unfinished()):
            pass  # nothing is awaited: nobody reads it meanwhile
        assert await read_exactly(server, 1) == b"x"
        assert run.proxy.unfinished() == []
        sock.close()
