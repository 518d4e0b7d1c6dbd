"""Other listeners while the proxy runs: nobody is lost, live flows live on, new connections follow the new rules."""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hosts import own_host
from tests.transport.kit import Live, Probe, bounded, live, read_all, read_exactly
from tests.transport.test_interception import Conntrack, Unprivileged
from tests.transport.test_proxy import open_descriptors
from wfpstream.engine import EngineOptions, Limits
from wfpstream.transport import Listener, ListenerSpec

# Nobody else's: what we close and open again must not be taken in between.
HOST = own_host()


@asynccontextmanager
async def upstream(word: bytes) -> AsyncIterator[tuple[str, int]]:
    """A server that says its word to everybody, then echoes."""

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await stream.send_all(word)
            async for data in stream:
                await stream.send_all(data)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listener.socket.getsockname()
        nursery.cancel_scope.cancel()


def to(address: tuple[str, int], **fields: Any) -> ListenerSpec:
    """A reverse listener for an upstream."""
    fields = {"name": "web", "host": HOST} | fields
    return ListenerSpec(upstream_host=address[0], upstream_port=address[1], **fields)


def elsewhere(address: tuple[str, int]) -> list[ListenerSpec]:
    """Two listeners, neither of them at a place that was there."""
    return [to(address, name=name, host="127.0.0.1") for name in ("other", "third")]


async def connect(listener: Listener) -> trio.SocketStream:
    return await trio.open_tcp_stream(listener.host, listener.port)


async def word_of(listener: Listener) -> bytes:
    """What a new connection through a listener hears."""
    async with await connect(listener) as stream:
        return await read_exactly(stream, 1)


async def rearrange(run: Live, *specs: ListenerSpec) -> None:
    (await run.proxy.prepare(specs)).commit()


def refuses(listener: Listener) -> bool:
    """Blocking, which takes no time on this machine."""
    with socket.socket() as sock:
        return sock.connect_ex((listener.host, listener.port)) == errno.ECONNREFUSED


class Two:
    """A proxy in front of upstream A, and another upstream B."""

    def __init__(self, run: Live, a: tuple[str, int], b: tuple[str, int]) -> None:
        self.run = run
        self.a = a
        self.b = b

    @property
    def first(self) -> Listener:
        return self.run.proxy.listeners[0]


@asynccontextmanager
async def two_upstreams(flows: int = 10000, **options: Any) -> AsyncIterator[Two]:
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(upstream(b"A"))
        b = await stack.enter_async_context(upstream(b"B"))
        limits = EngineOptions(limits=Limits(flows=flows))
        # Who makes room scarce hears of it.
        fields: dict[str, Any] = {"quiet": flows > 100} | options
        context = live(Probe(), host=HOST, upstream_host=a[0], upstream_port=a[1], options=limits, **fields)
        yield Two(await stack.enter_async_context(context), a, b)


# --- an address that stays --------------------------------------------------------------------------


@bounded
async def test_live_flows_stay_and_new_connections_follow() -> None:
    async with two_upstreams() as at, await connect(at.first) as old:
        assert await read_exactly(old, 1) == b"A"
        await rearrange(at.run, to(at.b))
        assert await word_of(at.first) == b"B"
        await old.send_all(b"still here")
        assert await read_exactly(old, 10) == b"still here"


@bounded
async def test_who_waits_in_the_backlog_of_an_address_that_stays_is_not_lost() -> None:
    async with two_upstreams(flows=1) as at:
        before = at.first
        async with AsyncExitStack() as stack:
            holder = await stack.enter_async_context(await connect(before))
            assert await read_exactly(holder, 1) == b"A"
            waiting = [await stack.enter_async_context(await connect(before)) for _ in range(20)]
            await rearrange(at.run, to(at.b))
            assert at.run.proxy.listeners == (before,)
            await holder.aclose()
            for stream in waiting:
                assert await read_exactly(stream, 1) == b"B"
                await stream.aclose()
        assert at.run.proxy.accepted == 21


@bounded
async def test_another_mode_on_the_same_address() -> None:
    conntrack = Conntrack()
    async with two_upstreams(original=conntrack) as at:
        conntrack.destination = at.b
        before = at.first
        port = before.port
        await rearrange(at.run, ListenerSpec(name="web", mode="redirect", host=HOST, port=port))
        assert at.run.proxy.listeners == (before,)
        assert (before.mode, before.upstream, before.port) == ("redirect", ("", 0), port)
        assert await word_of(before) == b"B"
        await rearrange(at.run, to(at.a, port=port))
        assert await word_of(before) == b"A"


@bounded
async def test_names_change_places() -> None:
    async with two_upstreams() as at:
        await rearrange(at.run, to(at.a, name="one"), to(at.b, name="two"))
        one, two = at.run.proxy.listeners
        # Addresses are what counts where they are given, names where any port will do.
        await rearrange(at.run, to(at.b, name="two", port=one.port), to(at.a, name="one", port=two.port))
        assert at.run.proxy.listeners == (one, two)
        assert [listener.name for listener in at.run.proxy.listeners] == ["two", "one"]
        await rearrange(at.run, to(at.b, name="two"), to(at.a, name="one"))
        assert await word_of(at.run.proxy.listeners[0]) == b"B"
        ports = {listener.name: listener.port for listener in at.run.proxy.listeners}
        await rearrange(at.run, to(at.a, name="one"), to(at.b, name="two"))
        assert {listener.name: listener.port for listener in at.run.proxy.listeners} == ports


@bounded
async def test_any_port_stays_the_port_it_was() -> None:
    """By name, else by position."""
    async with two_upstreams() as at:
        await rearrange(at.run, to(at.a), to(at.a, name=""), to(at.a, name=""))
        web, second, third = at.run.proxy.listeners
        await rearrange(at.run, to(at.b, name=""), to(at.b, name=""), to(at.b))
        assert at.run.proxy.listeners[1:] == (second, web)
        assert at.run.proxy.listeners[0] not in (web, second, third)
        await rearrange(at.run, to(at.b, name="renamed"), to(at.b, name=""))
        assert at.run.proxy.listeners[1] is second


@bounded
async def test_another_spelling_of_the_same_address() -> None:
    async with two_upstreams() as at:
        await rearrange(at.run, to(at.a, host="127.0.0.1"))
        (before,) = at.run.proxy.listeners
        await rearrange(at.run, to(at.b, host="localhost", port=before.port))
        assert at.run.proxy.listeners == (before,)
        await rearrange(at.run, to(at.b, host="127.0.0.1", port=before.port))
        assert at.run.proxy.listeners == (before,)
        assert await word_of(before) == b"B"


@bounded
async def test_other_fields_count_for_new_connections() -> None:
    async with two_upstreams() as at:
        async with await connect(at.first) as old:
            assert await read_exactly(old, 1) == b"A"
            await rearrange(at.run, to(at.a, local="server", name="other"))
            assert await word_of(at.first) == b"A"
        first, second = at.run.events.named("flow_established")
        assert first["listener"] == "web"
        assert second["listener"] == "other"
        assert second["local"] == [HOST, at.first.port]


# --- an address that goes ---------------------------------------------------------------------------


@bounded
async def test_a_listener_that_goes_leaves_its_flows_and_serves_who_waits() -> None:
    async with two_upstreams(flows=1) as at:
        gone = at.first
        async with AsyncExitStack() as stack:
            holder = await stack.enter_async_context(await connect(gone))
            assert await read_exactly(holder, 1) == b"A"
            waiting = [await stack.enter_async_context(await connect(gone)) for _ in range(20)]
            await rearrange(at.run, *elsewhere(at.b))
            assert gone not in at.run.proxy.listeners
            assert refuses(gone)
            await holder.send_all(b"still here")
            assert await read_exactly(holder, 10) == b"still here"
            await holder.aclose()
            for stream in waiting:
                assert await read_exactly(stream, 1) == b"A"
                await stream.aclose()
        assert await word_of(at.first) == b"B"


@bounded
async def test_who_waits_in_a_listener_that_went_is_reset_when_the_proxy_stops() -> None:
    async with (
        two_upstreams(flows=1) as at,
        await connect(at.first) as holder,
        await connect(at.first) as waiting,
    ):
        assert await read_exactly(holder, 1) == b"A"
        gone = at.first
        await rearrange(at.run, *elsewhere(at.b))
        assert refuses(gone)
        await at.run.proxy.stop(0.0)
        assert await read_all(waiting) == (b"", "reset")


@bounded
async def test_all_listeners_may_go_and_come_again() -> None:
    async with two_upstreams() as at:
        gone = at.first
        await rearrange(at.run)
        assert at.run.proxy.listeners == ()
        assert refuses(gone)
        await rearrange(at.run, to(at.b, port=gone.port))
        assert await word_of(at.first) == b"B"


@pytest.mark.parametrize(
    ("old", "new"),
    [("127.0.0.1", "0.0.0.0"), ("0.0.0.0", "127.0.0.1"), ("0.0.0.0", "::"), ("::", "127.0.0.1")],
)
@bounded
async def test_from_one_address_to_all_and_back_on_the_same_port(old: str, new: str) -> None:
    """The new one listens before the old one closes, though one is in the other's way."""
    async with two_upstreams() as at:
        await rearrange(at.run, to(at.a, host=old))
        (before,) = at.run.proxy.listeners
        rearrangement = await at.run.proxy.prepare([to(at.b, host=new, port=before.port)])
        async with await trio.open_tcp_stream("127.0.0.1", before.port) as early:
            rearrangement.commit()
            assert await read_exactly(early, 1) in (b"A", b"B")
        async with await trio.open_tcp_stream("127.0.0.1", before.port) as late:
            assert await read_exactly(late, 1) == b"B"
        assert (at.first.host, at.first.port) == (new, before.port)


@bounded
async def test_abandoned_it_gives_back_who_came_meanwhile() -> None:
    async with two_upstreams() as at:
        await rearrange(at.run, to(at.a, host="0.0.0.0"))
        port = at.first.port
        rearrangement = await at.run.proxy.prepare([to(at.b, host="127.0.0.1", port=port)])
        async with await trio.open_tcp_stream("127.0.0.1", port) as early:
            rearrangement.abandon()
            assert await read_exactly(early, 1) == b"A"
        async with await trio.open_tcp_stream("127.0.0.1", port) as late:
            assert await read_exactly(late, 1) == b"A"


# --- refusals ---------------------------------------------------------------------------------------


@bounded
async def test_an_address_in_use_changes_nothing() -> None:
    async with two_upstreams() as at:
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            taken.listen()
            port = taken.getsockname()[1]
            listeners, before = at.run.proxy.listeners, open_descriptors()
            with pytest.raises(OSError, match=f"cannot listen on {HOST}:{port}: address already in use"):
                await at.run.proxy.prepare([to(at.b), to(at.b, name="new"), to(at.b, name="x", port=port)])
            assert open_descriptors() == before
            assert at.run.proxy.listeners == listeners
            assert await word_of(at.first) == b"A"
        await rearrange(at.run, to(at.b))
        assert await word_of(at.first) == b"B"


@bounded
async def test_the_same_address_twice_is_in_use() -> None:
    async with two_upstreams() as at:
        port = at.first.port
        with pytest.raises(OSError, match="address already in use"):
            await at.run.proxy.prepare([to(at.a, port=port), to(at.b, name="twin", port=port)])
        assert await word_of(at.first) == b"A"


@bounded
async def test_a_missing_right_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the socket is there already."""
    monkeypatch.setattr(socket, "socket", Unprivileged)
    async with two_upstreams() as at:
        port = at.first.port
        with pytest.raises(
            OSError, match=f"cannot listen on {HOST}:{port}: mode tproxy needs .* CAP_NET_ADMIN"
        ):
            await at.run.proxy.prepare([ListenerSpec(name="web", mode="tproxy", host=HOST, port=port)])
        assert await word_of(at.first) == b"A"


@bounded
async def test_abandoned_nothing_has_changed() -> None:
    async with two_upstreams() as at:
        before, listeners = open_descriptors(), at.run.proxy.listeners
        rearrangement = await at.run.proxy.prepare([to(at.b, name="other", host="127.0.0.1"), to(at.b)])
        assert rearrangement.listeners[1:] == listeners == at.run.proxy.listeners
        (opened,) = rearrangement.opened
        assert opened.port
        rearrangement.abandon()
        rearrangement.abandon()
        with pytest.raises(RuntimeError, match="is over"):
            rearrangement.commit()
        assert open_descriptors() == before
        assert await word_of(at.first) == b"A"


@bounded
async def test_only_one_rearrangement_at_a_time() -> None:
    async with two_upstreams() as at:
        first = await at.run.proxy.prepare([to(at.b)])
        with pytest.raises(RuntimeError, match="being rearranged already"):
            await at.run.proxy.prepare([to(at.a)])
        first.commit()
        with pytest.raises(RuntimeError, match="is over"):
            first.commit()
        await rearrange(at.run, to(at.a))
        assert await word_of(at.first) == b"A"


@bounded
async def test_a_stop_is_stronger_than_a_rearrangement() -> None:
    async with two_upstreams() as at:
        rearrangement = await at.run.proxy.prepare(elsewhere(at.b))
        await at.run.proxy.stop()
        assert all(refuses(listener) for listener in rearrangement.listeners)
        rearrangement.commit()
        assert all(refuses(listener) for listener in rearrangement.listeners)
        with pytest.raises(RuntimeError, match="is stopping"):
            await at.run.proxy.prepare([to(at.b)])


@bounded
async def test_asked_to_stop_it_refuses_at_once() -> None:
    """Also what is not in force yet; flows go on."""
    async with two_upstreams() as at, await connect(at.first) as live_one:
        assert await read_exactly(live_one, 1) == b"A"
        rearrangement = await at.run.proxy.prepare(elsewhere(at.b))
        at.run.proxy.request_stop(3600.0)
        assert refuses(at.first)
        assert all(refuses(listener) for listener in rearrangement.listeners)
        await live_one.send_all(b"still here")
        assert await read_exactly(live_one, 10) == b"still here"


@bounded
async def test_committed_while_it_begins_to_stop() -> None:
    async with two_upstreams() as at:
        before = at.run.proxy.listeners
        rearrangement = await at.run.proxy.prepare(elsewhere(at.b))
        at.run.proxy.request_stop(0.0)
        rearrangement.commit()
        assert at.run.proxy.listeners == before
        await at.run.proxy.stop()
        assert all(refuses(listener) for listener in rearrangement.listeners)


@bounded
async def test_no_socket_is_left_of_a_cancelled_proxy() -> None:
    before = open_descriptors()
    with trio.CancelScope() as scope:
        async with two_upstreams() as at:
            await at.run.proxy.prepare(elsewhere(at.b))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert open_descriptors() <= before


@pytest.mark.parametrize("hosts", [["127.0.0.1"], ["127.0.0.1", "0.0.0.0", "::"]])
@bounded
async def test_nobody_is_lost_while_listeners_change_all_the_time(hosts: list[str]) -> None:
    """Clients in threads of their own, so that they meet every moment of a change."""
    async with two_upstreams() as at:
        await rearrange(at.run, to(at.a, host=hosts[0]))
        port = at.first.port
        heard: list[bytes] = []

        def connect_often() -> None:
            for _ in range(40):
                with socket.create_connection(("127.0.0.1", port), 100) as sock:
                    heard.append(sock.recv(1))

        async def change_often() -> None:
            for number in itertools.count():
                await rearrange(
                    at.run, to((at.a, at.b)[number % 2], host=hosts[number % len(hosts)], port=port)
                )
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as changing:
            changing.start_soon(change_often)
            async with trio.open_nursery() as clients:
                for _ in range(3):
                    clients.start_soon(trio.to_thread.run_sync, connect_often)
            changing.cancel_scope.cancel()
        assert len(heard) == 120
        assert set(heard) <= {b"A", b"B"}


# --- any sequence of them ---------------------------------------------------------------------------

PLACES = 3
wishes = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(-1, PLACES - 1), st.sampled_from("AB")),
    max_size=3,
    unique_by=(lambda wish: wish[0], lambda wish: wish[1] if wish[1] >= 0 else wish[0]),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(wishes, st.booleans()), max_size=5))
def test_any_sequence_leaves_what_was_asked_for_last(
    steps: list[tuple[list[tuple[str, int, str]], bool]],
) -> None:
    trio.run(_walk, steps)


async def _walk(steps: Sequence[tuple[list[tuple[str, int, str]], bool]]) -> None:
    async with two_upstreams() as at:
        words = {"A": at.a, "B": at.b}
        await rearrange(at.run, *(to(at.a, name=str(place)) for place in range(PLACES)))
        ports = [listener.port for listener in at.run.proxy.listeners]
        wanted = [(str(place), place, "A") for place in range(PLACES)]
        for wish, commits in steps:
            specs = [
                to(words[word], name=name, port=ports[place] if place >= 0 else 0)
                for name, place, word in wish
            ]
            open_before = {(listener.host, listener.port): listener for listener in at.run.proxy.listeners}
            rearrangement = await at.run.proxy.prepare(specs)
            if commits:
                rearrangement.commit()
                wanted = wish
            else:
                rearrangement.abandon()
            now = at.run.proxy.listeners
            assert [listener.name for listener in now] == [name for name, _, _ in wanted]
            for listener, (_, place, word) in zip(now, wanted, strict=True):
                assert place < 0 or listener.port == ports[place]
                assert await word_of(listener) == word.encode()
                # What was open at this address and is again was never closed.
                assert open_before.get((listener.host, listener.port), listener) is listener
            gone = [listener for listener in open_before.values() if listener not in now]
            assert all(refuses(listener) for listener in gone)
