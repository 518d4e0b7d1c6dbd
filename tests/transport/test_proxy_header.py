"""PROXY headers on real sockets: taken exactly, in whatever pieces they come, or refused in time."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.kit import RESET, bounded
from wfpstream.transport._proxy_header import read_proxy_header, send_proxy_header
from wfpstream.transport._sockets import prepare, prepare_listener
from wfpstream.transport._upstream import ConnectError
from wfpstream.wire import MAX_PROXY_HEADER, ProxyHeader, ProxyHeaderError, build_proxy_header

PATIENCE = 3600.0
A, B = ("192.0.2.1", 50000), ("198.51.100.7", 443)
A6, B6 = ("2001:db8::1", 50000), ("2001:db8::2", 443)
LONGEST = build_proxy_header(2, A, B)[:14] + (MAX_PROXY_HEADER - 16).to_bytes(2, "big")
LONGEST += build_proxy_header(2, A, B)[16:]
LONGEST += b"\x04" + (MAX_PROXY_HEADER - len(LONGEST) - 3).to_bytes(2, "big")
LONGEST += bytes(MAX_PROXY_HEADER - len(LONGEST))
HEADERS = [
    *(build_proxy_header(version, *ends) for version in (1, 2) for ends in ((A, B), (A6, B6), (None, None))),
    LONGEST,
]
IDS = ["v1-4", "v1-6", "v1-unknown", "v2-4", "v2-6", "v2-local", "v2-longest"]


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """A loopback connection: the sender's end, which is blocking, and the accepted one, as a listener makes it."""
    with socket.socket() as listener:
        prepare_listener(listener)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.socket() as sender:
            sender.connect(listener.getsockname())
            sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await trio.lowlevel.wait_readable(listener)
            accepted = listener.accept()[0]
            with accepted:
                accepted.setblocking(False)
                yield sender, accepted


async def rest_of(sock: socket.socket) -> bytes:
    """What can be read up to the FIN."""
    data = b""
    while True:
        await trio.lowlevel.wait_readable(sock)
        piece = sock.recv(65536)
        if not piece:
            return data
        data += piece


# --- reading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", HEADERS, ids=IDS)
def test_the_stream_begins_right_behind_the_header(header: bytes) -> None:
    """Also when it looks like another header, and came in the same segment."""

    @bounded
    async def test() -> None:
        async with pair() as (sender, accepted):
            behind = header + b"PROXY UNKNOWN\r\n" + bytes(range(256)) * 64
            sender.sendall(header + behind)
            sender.shutdown(socket.SHUT_WR)
            said = await read_proxy_header(accepted, PATIENCE)
            assert said.version == (1 if header.startswith(b"P") else 2)
            assert await rest_of(accepted) == behind

    test()


@pytest.mark.parametrize("header", HEADERS[:-1], ids=IDS[:-1])
def test_a_header_in_single_bytes(header: bytes) -> None:
    """Each byte is taken as it comes; the last one brings the answer, and not one more is read."""

    @bounded
    async def test() -> None:
        async with pair() as (sender, accepted), trio.open_nursery() as nursery:
            said: list[ProxyHeader] = []

            async def read() -> None:
                said.append(await read_proxy_header(accepted, PATIENCE))

            nursery.start_soon(read)
            for at in range(len(header)):
                assert not said
                sender.sendall(header[at : at + 1])
                await wait_all_tasks_blocked()
            while not said:
                await trio.lowlevel.checkpoint()
            sender.sendall(b"stream")
            sender.shutdown(socket.SHUT_WR)
            assert len(said) == 1
            assert await rest_of(accepted) == b"stream"

    test()


@bounded
async def test_addresses_are_those_of_the_header() -> None:
    for version in (1, 2):
        for ends in ((A, B), (A6, B6)):
            async with pair() as (sender, accepted):
                sender.sendall(build_proxy_header(version, *ends))
                said = await read_proxy_header(accepted, PATIENCE)
                assert (said.version, said.source, said.destination) == (version, *ends)


@pytest.mark.parametrize("header", HEADERS, ids=IDS)
@pytest.mark.parametrize("how", ["fin", "reset"])
def test_an_early_end(header: bytes, how: str) -> None:
    """After nothing, in the middle, and one byte before the end."""

    @bounded
    async def test() -> None:
        for size in (0, 1, len(header) // 2, len(header) - 1):
            async with pair() as (sender, accepted):
                sender.sendall(header[:size])
                if how == "reset":
                    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    sender.close()
                else:
                    sender.shutdown(socket.SHUT_WR)
                text = (
                    rf"ended after {size} bytes" if how == "fin" else "connection reset by peer|ended after"
                )
                with pytest.raises(ProxyHeaderError, match=text):
                    await read_proxy_header(accepted, PATIENCE)

    test()


@bounded
async def test_an_end_right_behind_the_header_is_no_error() -> None:
    async with pair() as (sender, accepted):
        sender.sendall(HEADERS[0])
        sender.shutdown(socket.SHUT_WR)
        assert (await read_proxy_header(accepted, PATIENCE)).source == A
        assert await rest_of(accepted) == b""


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\n", b"PROXY TCP4 1.2.3.4 5.6.7.8 99999", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff"]
)
def test_what_is_no_header_is_refused_without_waiting_for_more(start: bytes) -> None:
    @bounded
    async def test() -> None:
        async with pair() as (sender, accepted):
            sender.sendall(start)
            with pytest.raises(ProxyHeaderError):
                await read_proxy_header(accepted, 0)

    test()


@pytest.mark.parametrize("sent", [b"", b"PROXY TCP4 ", HEADERS[4][:-1]])
def test_a_header_that_does_not_come_in_time(sent: bytes) -> None:
    @bounded
    async def test() -> None:
        async with pair() as (sender, accepted):
            sender.sendall(sent)
            with pytest.raises(ProxyHeaderError, match=r"within 0\.05 s"):
                await read_proxy_header(accepted, 0.05)

    test()


@bounded
async def test_the_time_is_for_the_whole_header() -> None:
    """Dripping bytes do not prolong it (slowloris)."""
    async with pair() as (sender, accepted), trio.open_nursery() as nursery:

        async def drip() -> None:
            for at in range(len(LONGEST)):
                sender.send(LONGEST[at : at + 1])
                await trio.sleep(0.01)

        nursery.start_soon(drip)
        with pytest.raises(ProxyHeaderError, match="within"):
            await read_proxy_header(accepted, 0.1)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("header", [HEADERS[0], LONGEST], ids=["v1", "v2"])
def test_a_slow_sender_takes_no_processor_time(header: bytes) -> None:
    """An unfinished header leaves nothing readable behind: the reader sleeps, however little came."""

    @bounded
    async def test() -> None:
        async with pair() as (sender, accepted), trio.open_nursery() as nursery:
            nursery.start_soon(read_proxy_header, accepted, PATIENCE)
            sender.sendall(header[:-1])
            # With a reader that is woken again and again this would never be so.
            await wait_all_tasks_blocked(0.1)
            sender.sendall(header[-1:])

    test()


@bounded
async def test_a_socket_closed_meanwhile() -> None:
    async with pair() as (_, accepted), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await read_proxy_header(accepted, PATIENCE)

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        trio.lowlevel.notify_closing(accepted)
        accepted.close()


# --- sending ----------------------------------------------------------------------------------------


@bounded
async def test_what_was_sent_is_read() -> None:
    for version in (1, 2):
        for ends in ((A, B), (A6, B6), (None, None)):
            async with pair() as (sender, accepted):
                prepare(sender)
                await send_proxy_header(sender, version, ends[0], ends[1], timeout=PATIENCE)
                sender.send(b"stream")
                sender.shutdown(socket.SHUT_WR)
                said = await read_proxy_header(accepted, PATIENCE)
                assert (said.version, said.source, said.destination) == (version, *ends)
                assert await rest_of(accepted) == b"stream"


class Narrow(socket.socket):
    """A socket that takes no more than a few bytes at a time, and nothing every other time."""

    calls = 0

    def send(self, data: memoryview, flags: int = 0) -> int:  # type: ignore[override]
        self.calls += 1
        if self.calls % 2:
            raise BlockingIOError
        return super().send(data[:5], flags)


@bounded
async def test_a_header_goes_out_whole_through_a_socket_that_takes_it_in_pieces() -> None:
    async with pair() as (sender, accepted):
        prepare(sender)
        with Narrow(fileno=sender.detach()) as narrow:
            await send_proxy_header(narrow, 1, A6, B6)
            assert narrow.calls > len(HEADERS[1]) // 5
            narrow.shutdown(socket.SHUT_WR)
            assert await rest_of(accepted) == HEADERS[1]


@bounded
async def test_an_upstream_that_takes_nothing() -> None:
    async with pair() as (sender, _):
        prepare(sender)
        await fill(sender)
        with pytest.raises(ConnectError, match=r"within 0\.05 s"):
            while True:  # the kernel may find a little more room after a while, but not for ever
                await send_proxy_header(sender, 1, A, B, timeout=0.05)


@bounded
async def test_an_upstream_that_resets() -> None:
    async with pair() as (sender, accepted):
        prepare(sender)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        accepted.close()
        await trio.lowlevel.wait_readable(sender)
        with pytest.raises(ConnectError, match="connection reset by peer"):
            await send_proxy_header(sender, 2, A, B)


async def fill(sock: socket.socket) -> None:
    """Until the kernel takes no byte more for good: it moves to the receiver's buffer what fits there."""
    refused = 0
    while refused < 2:
        try:
            sock.send(bytes(1 << 20))
            refused = 0
        except BlockingIOError:
            refused += 1
            with trio.move_on_after(0.05):
                await trio.lowlevel.wait_writable(sock)
