"""Addresses and connecting: without the resolver where it can be, in turns where there are several."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
import trio

from tests.transport.kit import bounded, free_port, listening
from wfpstream.transport import _upstream as upstream
from wfpstream.transport._upstream import Address, ConnectError, connect, numeric, resolve, unmapped

PATIENCE = 3600.0
V4, V6 = socket.AF_INET, socket.AF_INET6


class Answers(trio.abc.HostnameResolver):
    """Answers every name with the same hosts."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        return [
            (V6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0))
            if ":" in host
            else (V4, socket.SOCK_STREAM, 6, "", (host, port))
            for host in self.hosts
        ]

    async def getnameinfo(self, *args: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("192.0.2.1", Address(V4, "192.0.2.1", 80)),
        ("2001:db8::1", Address(V6, "2001:db8::1", 80)),
        ("fe80::1%1", Address(V6, "fe80::1", 80, 1)),
        ("fe80::1%lo", Address(V6, "fe80::1", 80, socket.if_nametoindex("lo"))),
        ("fe80::1%nosuchinterface", None),
        ("web.example", None),
        ("1.2.3", None),
        ("", None),
    ],
)
def test_numeric(host: str, expected: Address | None) -> None:
    assert numeric(host, 80) == expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1"), ("::ffff:1", "::ffff:1")],
)
def test_unmapped(host: str, expected: str) -> None:
    assert unmapped(host) == expected


@bounded
async def test_a_number_needs_no_resolver() -> None:
    resolver = Answers()
    trio.socket.set_custom_hostname_resolver(resolver)
    assert await resolve("192.0.2.1", 80) == [Address(V4, "192.0.2.1", 80)]
    assert not resolver.asked


@bounded
async def test_the_families_of_a_name_take_turns() -> None:
    trio.socket.set_custom_hostname_resolver(Answers("2001:db8::1", "2001:db8::2", "192.0.2.1"))
    found = await resolve("web.example", 80)
    assert [address.host for address in found] == ["2001:db8::1", "192.0.2.1", "2001:db8::2"]


@bounded
async def test_a_name_without_addresses() -> None:
    trio.socket.set_custom_hostname_resolver(Answers())
    with pytest.raises(ConnectError, match=r"cannot resolve web\.example: it has no address"):
        await resolve("web.example", 80)


@bounded
async def test_a_name_that_is_none() -> None:
    with pytest.raises(ConnectError, match=r"cannot resolve a\.\.b"):
        await resolve("a..b", 80)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@bounded
async def test_connected(host: str) -> None:
    listener = await listening(host)
    with listener:
        port = listener.getsockname()[1]
        with await connect(await resolve(host, port), PATIENCE) as sock:
            assert sock.getpeername()[:2] == (host, port)
            assert not sock.getblocking()


@bounded
async def test_refused() -> None:
    with pytest.raises(ConnectError, match=r"^connection refused$"):
        await connect([Address(V4, "127.0.0.1", free_port())], PATIENCE)


@bounded
async def test_a_connection_to_ourselves_is_refused() -> None:
    """A free port in the range the kernel chooses from can be chosen for the connecting socket itself."""
    port = free_port()

    def bind_there(sock: socket.socket, _: Address) -> None:
        sock.bind(("127.0.0.1", port))

    with pytest.raises(ConnectError, match=r"^connection refused$"):
        await connect([Address(V4, "127.0.0.1", port)], PATIENCE, before=bind_there)


@bounded
async def test_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*args: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", none_left)
    with pytest.raises(ConnectError, match=r"^too many open files$"):
        await connect([Address(V4, "127.0.0.1", 1)], PATIENCE)


@bounded
async def test_the_next_address_is_tried_at_once_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "NEXT_ATTEMPT", 3600.0)
    listener = await listening()
    with listener:
        dead = Address(V4, "127.0.0.1", free_port())
        live = Address(V4, *listener.getsockname())
        with await connect([dead, live], PATIENCE) as sock:
            assert sock.getpeername() == (live.host, live.port)


@bounded
async def test_a_slow_address_does_not_hold_up_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "NEXT_ATTEMPT", 0.01)
    listener = await listening()
    with listener, socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        first.connect(deaf.getsockname())  # its backlog is full now
        slow = Address(V4, *deaf.getsockname())
        live = Address(V4, *listener.getsockname())
        with await connect([slow, live], PATIENCE) as sock:
            assert sock.getpeername() == (live.host, live.port)


@bounded
async def test_when_all_fail_the_first_reason_is_told() -> None:
    addresses = [Address(V4, "127.0.0.1", free_port()), Address(V4, "255.255.255.255", 80)]
    with pytest.raises(ConnectError, match=r"^connection refused$"):
        await connect(addresses, PATIENCE)


@bounded
async def test_all_of_it_has_one_time_limit() -> None:
    with socket.socket() as deaf, socket.socket() as first:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        first.connect(deaf.getsockname())
        slow = Address(V4, *deaf.getsockname())
        with pytest.raises(ConnectError, match=r"^no answer within 0\.05 s$"):
            await connect([slow, slow], 0.05)
