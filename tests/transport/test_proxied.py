"""PROXY headers at the listener and towards the upstream (architecture, section 6: trusted addresses only)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.kit import Live, Probe, bounded, live, read_all, read_exactly, reset
from tests.transport.test_interception import Conntrack
from tests.transport.test_proxy import Answers
from wfpstream.engine import EngineOptions, Limits, Timeouts
from wfpstream.wire import build_proxy_header

CLIENT = ("203.0.113.9", 4711)
MET = ("198.51.100.1", 443)
TRUSTED = ("127.0.0.0/8", "::1")


async def speak(run: Live, data: bytes) -> trio.SocketStream:
    """A connection that begins with these bytes."""
    client = await run.client()
    await client.send_all(data)
    return client


@pytest.mark.parametrize("upstream_host", ["127.0.0.1", "web.example"])
@pytest.mark.parametrize("version", [1, 2])
@bounded
async def test_the_client_is_whom_the_header_speaks_for(version: int, upstream_host: str) -> None:
    """FLD-10; the stream begins right behind the header."""
    resolver = Answers("127.0.0.1")
    async with live(Probe(), accept_proxy=TRUSTED, upstream_host=upstream_host, resolver=resolver) as run:
        header = build_proxy_header(version, CLIENT, MET)
        async with await speak(run, header + b"GET"), await run.accept() as server:
            assert await read_exactly(server, 3) == b"GET"
            (event,) = run.events.named("flow_established")
            assert event["client"] == list(CLIENT)
            assert event["local"] == list(CLIENT)


@bounded
async def test_the_address_that_was_met_is_the_headers() -> None:
    """FLD-10: LOCAL, with the server as the local host."""
    async with live(Probe(), accept_proxy=TRUSTED, local="server") as run:
        await speak(run, build_proxy_header(2, CLIENT, MET))
        event = await run.events.wait("flow_established")
        assert event["local"] == list(MET)
        assert event["remote"] == list(CLIENT)


@bounded
async def test_an_intercepted_connection_goes_where_the_kernel_says() -> None:
    conntrack = Conntrack()
    async with live(Probe(), mode="redirect", accept_proxy=TRUSTED, original=conntrack) as run:
        conntrack.destination = run.upstream.getsockname()[:2]
        async with await speak(run, build_proxy_header(2, ("127.0.0.1", 5), MET)), await run.accept():
            event = await run.events.wait("flow_established")
            assert event["client"] == ["127.0.0.1", 5]
            assert event["remote"] == list(conntrack.destination)


@pytest.mark.parametrize("version", [1, 2])
@bounded
async def test_a_header_that_names_nobody_changes_nothing(version: int) -> None:
    """UNKNOWN and LOCAL: the sender's health checks."""
    async with live(Probe(), accept_proxy=TRUSTED) as run:
        client = await speak(run, build_proxy_header(version, None, None) + b"x")
        server = await run.accept()
        assert await read_exactly(server, 1) == b"x"
        (event,) = run.events.named("flow_established")
        assert event["client"] == list(client.socket.getsockname())


@bounded
async def test_an_untrusted_sender_is_refused_with_its_header() -> None:
    async with live(Probe(), accept_proxy=("10.0.0.0/8",), quiet=False) as run:
        for _ in range(3):
            assert await read_all(await run.client()) == (b"", "reset")
        assert (await run.events.wait("connect_failed", 3))["reason"] == "proxy_header"
        assert run.proxy.rejected == {"proxy_header": 3}
        assert run.lines == [
            "listener web: refused a connection of 127.0.0.1: 127.0.0.1 is not trusted to send PROXY headers "
            "(proxy_header)"
        ]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        build_proxy_header(2, CLIENT, MET)[:12] + b"\xff\xff\xff\xff",
    ],
)
@bounded
async def test_no_header_no_connection(data: bytes) -> None:
    async with live(Probe(), accept_proxy=TRUSTED, quiet=False) as run:
        assert await read_all(await speak(run, data)) == (b"", "reset")
        assert run.proxy.rejected == {"proxy_header": 1}
        assert (await run.events.wait("connect_failed"))["reason"] == "proxy_header"
        await run.proxy.wait_connections(0)


@bounded
async def test_a_connection_that_ends_within_its_header() -> None:
    async with live(Probe(), accept_proxy=TRUSTED, quiet=False) as run:
        client = await speak(run, b"PROXY TC")
        await client.send_eof()
        assert await read_all(client) == (b"", "reset")
        reset(await speak(run, b"PROXY TC"))
        await run.proxy.wait_connections(0)
        assert run.proxy.rejected == {"proxy_header": 2}


@bounded
async def test_a_header_has_its_time() -> None:
    options = EngineOptions(timeouts=Timeouts(proxy_header=0.05))
    async with live(Probe(), accept_proxy=TRUSTED, options=options, quiet=False) as run:
        assert await read_all(await speak(run, b"PROXY ")) == (b"", "reset")
        assert run.lines[0].endswith("no complete PROXY header within 0.05 s (proxy_header)")


@bounded
async def test_a_slow_header_holds_up_nobody_else() -> None:
    async with live(Probe(), accept_proxy=TRUSTED, quiet=False) as run:
        for _ in range(20):
            await speak(run, b"P")
        client = await speak(run, build_proxy_header(1, CLIENT, MET) + b"quick")
        server = await run.accept()
        assert await read_exactly(server, 5) == b"quick"
        assert run.proxy.connections == 21
        await client.aclose()
        await server.aclose()
        await run.deleted()


@bounded
async def test_those_who_never_finish_their_header_count_as_flows() -> None:
    """Slowloris: `limits.flows` bounds them, and `timeouts.proxy_header` ends them."""
    options = EngineOptions(limits=Limits(flows=2), timeouts=Timeouts(proxy_header=0.0))
    async with live(Probe(), accept_proxy=TRUSTED, options=options, quiet=False) as run:
        slow = [await speak(run, b"P") for _ in range(2)]
        await speak(run, build_proxy_header(1, CLIENT, MET) + b"patient")
        await wait_all_tasks_blocked()
        assert run.proxy.accepted == 2
        for client in slow:
            reset(client)
        assert await read_exactly(await run.accept(), 7) == b"patient"
        assert run.proxy.rejected == {"proxy_header": 2}


@bounded
async def test_the_limit_per_client_counts_whom_the_header_names() -> None:
    options = EngineOptions(limits=Limits(flows_per_client=1))
    async with live(Probe(), accept_proxy=TRUSTED, options=options, quiet=False) as run:
        header, other = (build_proxy_header(1, (host, 5), MET) for host in ("203.0.113.9", "203.0.113.10"))
        first = await speak(run, header)
        server = await run.accept()
        assert await read_all(await speak(run, header)) == (b"", "reset")
        assert run.proxy.refused == 1
        assert [line.endswith("(flows_per_client)") for line in run.lines] == [True]
        await speak(run, other + b"x")
        assert await read_exactly(await run.accept(), 1) == b"x"
        await first.aclose()
        await server.aclose()
        await run.deleted()
        await run.proxy.wait_connections(1)
        await speak(run, header + b"again")
        assert await read_exactly(await run.accept(), 5) == b"again"


@bounded
async def test_a_stop_does_not_wait_for_a_header() -> None:
    async with live(Probe(), accept_proxy=TRUSTED) as run:
        client = await speak(run, b"PROXY")
        await wait_all_tasks_blocked()
        await run.proxy.stop(0.0)
        assert await read_all(client) == (b"", "reset")


# --- towards the upstream ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2])
@bounded
async def test_the_upstream_gets_the_header_before_the_first_byte(version: int) -> None:
    """The connection as the client made it. No byte of the stream is it: the ledger knows nothing of it."""
    async with live(Probe(), send_proxy=version) as run:
        client = await run.client()
        await client.send_all(b"hello")
        server = await run.accept()
        met = (run.proxy.listeners[0].host, run.proxy.listeners[0].port)
        header = build_proxy_header(version, client.socket.getsockname(), met)
        assert await read_exactly(server, len(header) + 5) == header + b"hello"
        await client.send_eof()
        await server.send_eof()
        ledger = (await run.deleted())["ledger"]["to_upstream"]
        assert (ledger["read"], ledger["written"]) == (5, 5)


@bounded
async def test_a_header_is_passed_on_and_the_original_destination_with_it() -> None:
    conntrack = Conntrack()
    async with live(Probe(), mode="redirect", original=conntrack, accept_proxy=TRUSTED, send_proxy=2) as run:
        conntrack.destination = run.upstream.getsockname()[:2]
        source = ("127.0.0.3", 5)
        client = await speak(run, build_proxy_header(1, source, MET))
        header = build_proxy_header(2, source, conntrack.destination)
        server = await run.accept()
        assert await read_exactly(server, len(header)) == header
        await client.aclose()


@bounded
async def test_in_reverse_mode_the_next_proxy_learns_what_the_first_one_said() -> None:
    async with live(Probe(), accept_proxy=TRUSTED, send_proxy=1) as run:
        header = build_proxy_header(1, CLIENT, MET)
        await speak(run, header)
        assert await read_exactly(await run.accept(), len(header)) == header
