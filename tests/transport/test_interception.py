"""Redirect listeners with a stand-in for conntrack, and the destination rules on real connections."""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.transport.kit import (
    Live,
    Probe,
    bounded,
    free_port,
    listening,
    live,
    make_engine,
    read_all,
    read_exactly,
    reset,
)
from tests.transport.test_proxy import Answers, Redirecting
from wfpstream.transport import ListenerSpec, serve_proxy
from wfpstream.transport._arrival import Arrival, find_requested
from wfpstream.transport._destinations import Rejected
from wfpstream.transport._listeners import Accepted
from wfpstream.transport._transparent import is_own_address
from wfpstream.wire import ProxyHeader


class Conntrack:
    """Says of every socket that it was going there."""

    def __init__(self, *destination: Any) -> None:
        self.destination: tuple[str, int] | None = destination or None

    def __call__(self, sock: socket.socket) -> tuple[str, int] | None:
        return self.destination


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@bounded
async def test_a_redirected_connection_goes_where_it_was_going(host: str) -> None:
    """FLD-10: the callouts see the original destination."""
    conntrack = Conntrack()
    async with live(Probe(), host=host, mode="redirect", original=conntrack) as run:
        conntrack.destination = run.upstream.getsockname()[:2]
        client, server = await run.pair()
        await client.send_all(b"ping")
        assert await read_exactly(server, 4) == b"ping"
        (event,) = run.events.named("flow_established")
        assert event["server"] == list(conntrack.destination)
        assert event["client"] == list(client.socket.getsockname()[:2])
        assert event["remote"] == event["server"]
        assert event["local"] == event["client"]


@bounded
async def test_with_the_server_as_local_host_the_original_destination_is_local() -> None:
    """FLD-10."""
    conntrack = Conntrack()
    async with live(Probe(), mode="redirect", local="server", original=conntrack) as run:
        conntrack.destination = run.upstream.getsockname()[:2]
        await run.pair()
        (event,) = run.events.named("flow_established")
        assert event["local"] == list(conntrack.destination)


@bounded
async def test_an_ipv4_client_of_a_dual_stack_redirect_listener() -> None:
    """LAY-10."""
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    conntrack = Conntrack()
    async with live(Probe(), bound=sock, mode="redirect", original=conntrack) as run:
        conntrack.destination = run.upstream.getsockname()[:2]
        with socket.create_connection(("127.0.0.1", run.proxy.listeners[0].port)):
            await run.accept()
            event = await run.events.wait("flow_established")
            assert event["layer"].lower() == "ale_flow_established_v4"


@bounded
async def test_a_direct_connection_to_a_redirect_listener_goes_nowhere() -> None:
    async with live(Probe(), mode="redirect", quiet=False) as run:
        for _ in range(3):
            assert await read_all(await run.client()) == (b"", "reset")
        event = await run.events.wait("connect_failed", 3)
        assert event["reason"] == "unknown_destination"
        assert event["listener"] == "web"
        assert run.proxy.rejected == {"unknown_destination": 3}
        assert run.lines == [
            "listener web: refused a connection of 127.0.0.1: where it was going is not known: "
            "no redirect rule sent it here (unknown_destination)"
        ]


@pytest.mark.parametrize(
    ("destination", "fields", "reason"),
    [
        (("0.0.0.0", 80), {}, "unspecified_destination"),
        (("224.0.0.1", 80), {}, "multicast_destination"),
        (("255.255.255.255", 80), {}, "broadcast_destination"),
        (("10.1.2.3", 80), {"deny": ("10.0.0.0/8",)}, "forbidden_destination"),
        (("10.1.2.3", 80), {"allow": ("192.0.2.0/24",)}, "forbidden_destination"),
    ],
)
@bounded
async def test_a_refused_destination_is_reset_before_anybody_is_asked(
    destination: tuple[str, int], fields: dict[str, Any], reason: str
) -> None:
    asked = Redirecting("127.0.0.1", 9)
    async with live(asked, mode="redirect", original=Conntrack(*destination), quiet=False, **fields) as run:
        assert await read_all(await run.client()) == (b"", "reset")
        assert (await run.events.wait("connect_failed"))["reason"] == reason
        assert run.proxy.rejected == {reason: 1}
        assert len(run.lines) == 1


@bounded
async def test_a_loop_by_interception_ends_at_once() -> None:
    """Our own listener as original destination, also one on a wildcard address."""
    conntrack = Conntrack()
    async with live(Probe(), host="0.0.0.0", mode="redirect", original=conntrack, quiet=False) as run:
        conntrack.destination = ("127.0.0.1", run.proxy.listeners[0].port)
        assert await read_all(await run.client()) == (b"", "reset")
        assert run.proxy.rejected == {"own_listener": 1}
        assert run.proxy.accepted == 1


@pytest.mark.parametrize("name", ["127.0.0.1", "loop.example", "0.0.0.0"])
@bounded
async def test_a_listener_whose_upstream_is_itself_does_not_loop(name: str) -> None:
    port = free_port()
    async with live(
        Probe(), port=port, upstream_host=name, upstream_port=port, quiet=False, resolver=Answers("127.0.0.1")
    ) as run:
        assert await read_all(await run.client()) == (b"", "reset")
        assert (await run.events.wait("connect_failed"))["reason"] == "own_listener"
        assert run.proxy.rejected == {"own_listener": 1}
        assert run.proxy.accepted == 1


@bounded
async def test_a_callout_does_not_redirect_to_our_own_listener() -> None:
    """LAY-26: what it chose passes the same rules."""
    port = free_port()
    async with live(Redirecting("127.0.0.1", port), port=port, quiet=False) as run:
        assert await read_all(await run.client()) == (b"", "reset")
        assert run.proxy.rejected == {"own_listener": 1}


@pytest.mark.parametrize("mode", ["reverse", "redirect"])
@bounded
async def test_a_callout_does_not_redirect_to_a_denied_network(mode: str) -> None:
    """LAY-26."""
    conntrack = Conntrack("127.0.0.1", 9)
    callout = Redirecting("10.1.2.3", 80)
    async with live(callout, mode=mode, original=conntrack, deny=("10.0.0.0/8",), quiet=False) as run:
        assert await read_all(await run.client()) == (b"", "reset")
        assert (await run.events.wait("connect_failed"))["reason"] == "forbidden_destination"
        assert run.proxy.rejected == {"forbidden_destination": 1}


@bounded
async def test_a_redirect_of_an_intercepted_connection() -> None:
    """LAY-26: elsewhere instead of where it was going; the fields keep that (FLD-10)."""
    elsewhere = await listening()
    with elsewhere:
        callout = Redirecting(*elsewhere.getsockname())
        async with live(callout, mode="redirect", original=Conntrack("127.0.0.1", 9)) as run:
            client = await run.client()
            server, _ = await elsewhere.accept()
            with server:
                await client.send_all(b"x")
                assert await server.recv(1) == b"x"
                (event,) = run.events.named("flow_established")
                assert event["remote"] == ["127.0.0.1", 9]


@bounded
async def test_of_the_addresses_of_a_name_only_allowed_ones_are_tried() -> None:
    async with live(
        Probe(), upstream_host="web.example", deny=("10.0.0.0/8",), resolver=Answers("10.1.2.3", "127.0.0.1")
    ) as run:
        client, server = await run.pair()
        await client.send_all(b"x")
        assert await read_exactly(server, 1) == b"x"
        assert run.proxy.rejected == {}


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("192.0.2.77", False),
        ("2001:db8::77", False),
        ("fe80::77%1", False),
    ],
)
def test_which_addresses_are_ours(host: str, own: bool) -> None:
    assert is_own_address(host) is own


async def bound_where_we_were(run: Live) -> socket.socket:
    """A socket that has the port of a connection of ours, which is over."""
    for number in itertools.count(1):
        first = await run.client()
        sock, ours = await run.upstream.accept()
        with sock:
            reset(first)
            await run.deleted(number)
            await run.proxy.wait_connections(0)
        second = socket.socket()
        second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            second.bind(ours)
        except OSError as error:
            second.close()
            # Another program of this machine was given the port meanwhile: once more.
            if error.errno != errno.EADDRINUSE or number == 20:
                raise
        else:
            return second
    raise AssertionError


@bounded
async def test_a_client_may_have_the_port_that_was_ours() -> None:
    """Our own connections are known by their addresses only as long as they live."""
    conntrack = Conntrack()
    async with live(Probe(), mode="redirect", original=conntrack) as run:
        conntrack.destination = run.upstream.getsockname()[:2]
        second = await bound_where_we_were(run)
        second.connect((run.proxy.listeners[0].host, run.proxy.listeners[0].port))
        with second, (await run.accept()).socket as server:
            second.send(b"x")
            assert await server.recv(1) == b"x"


def test_a_header_does_not_make_a_client_local() -> None:
    """A trusted sender elsewhere names 127.0.0.1: loopback is for who is here himself, and for whom he speaks."""
    spec = ListenerSpec(mode="redirect", accept_proxy=("203.0.113.0/24",))
    with socket.socket() as sock:
        accepted = Accepted(sock, ("203.0.113.9", 5), ("192.0.2.1", 15001))
        arrival = Arrival("listener", spec, accepted, own_listeners=lambda: ())
        arrival.believe(ProxyHeader(1, "proxy", ("127.0.0.1", 6), ("192.0.2.1", 22), b""))
        assert find_requested(arrival, Conntrack("127.0.0.1", 22))
        assert arrival.client == ("127.0.0.1", 6)
        with pytest.raises(Rejected) as info:
            arrival.check_original()
        assert info.value.reason == "loopback_destination"


# --- rights -----------------------------------------------------------------------------------------


class Unprivileged(socket.socket):
    """A socket of a process without CAP_NET_ADMIN."""

    def setsockopt(self, level: int, option: int, *value: Any) -> None:
        """EPERM for what needs it."""
        if (level, option) in ((0, 19), (41, 75), (1, 36)):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        super().setsockopt(level, option, *value)


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every new socket is one of an ordinary user."""
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Unprivileged)
        yield


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1:0"), ("::1", "[::1]:0")])
@pytest.mark.usefixtures("unprivileged")
@bounded
async def test_mode_tproxy_without_its_capability_is_one_line(host: str, shown: str) -> None:
    with pytest.raises(OSError, match="mode tproxy") as info:
        await serve_proxy(make_engine(), [ListenerSpec(mode="tproxy", host=host)])
    assert info.value.errno == errno.EPERM
    assert info.value.strerror == (
        f"cannot listen on {shown}: mode tproxy needs the capability CAP_NET_ADMIN"
    )


@bounded
async def test_without_the_right_to_mark_connections_go_unmarked_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with live(Probe(), mark=0x7766, quiet=False) as run:
        monkeypatch.setattr(socket, "socket", Unprivileged)
        for _ in range(2):
            client, server = await run.pair()
            await client.send_all(b"x")
            assert await read_exactly(server, 1) == b"x"
        monkeypatch.undo()
        (line,) = run.lines
        assert line.startswith("cannot mark upstream connections: operation not permitted")
