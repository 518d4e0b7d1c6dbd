"""The proxy: listening, connecting, refusing, limits, stop, cancellation."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.transport.kit import (
    AskingCallout,
    Probe,
    assert_clean,
    bounded,
    free_port,
    listening,
    live,
    make_engine,
    read_all,
    read_exactly,
    reset,
)
from wfpstream.engine import EngineOptions, FilterEngine, Flow, Limits, Policy, Timeouts
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, ClassifyOutFlags, OutOfBandCallout, Worker
from wfpstream.transport import ListenerSpec, Proxy, serve_proxy
from wfpstream.transport._socket_end import SocketEnd


class Refusing(Callout):
    """Blocks at the connect layers, or at FLOW_ESTABLISHED."""

    def __init__(self, layer: str) -> None:
        self.layers = (layer,)  # type: ignore[misc]

    def classify_fn(self, *args: Any) -> None:
        """BLOCK."""
        args[-1].action_type = int(ActionType.BLOCK)


class Answers(trio.abc.HostnameResolver):
    """A resolver with one answer for every name."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        """The hosts, as the system's resolver would say it."""
        await trio.lowlevel.checkpoint()
        if not self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0))
            if ":" in host
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))
            for host in self.hosts
        ]

    async def getnameinfo(self, *args: Any) -> Any:
        """Not asked."""
        raise NotImplementedError


@contextmanager
def deaf_upstream() -> Iterator[int]:
    """A port whose backlog is full: the kernel ignores who wants to connect."""
    with socket.socket() as sock, socket.socket() as first:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        first.connect(sock.getsockname())
        select.select([sock], [], [])  # it is in the backlog, and nobody else fits in
        yield sock.getsockname()[1]


# --- connecting and refusing ------------------------------------------------------------------------


@bounded
async def test_a_refused_upstream_is_a_reset_and_one_line() -> None:
    port = free_port()
    async with live(Probe(), upstream_port=port, quiet=False) as run:
        assert await read_all(await run.client()) == (b"", "reset")
        event = await run.events.wait("connect_failed")
        assert event["reason"] == "connection refused"
        assert run.lines == [f"listener web: cannot connect to 127.0.0.1:{port}: connection refused"]


@bounded
async def test_a_refused_upstream_can_look_like_an_end() -> None:
    """LAY-21."""
    options = EngineOptions(policy=Policy(on_block="fin"))
    async with live(options=options, upstream_port=free_port(), quiet=False) as run:
        # Said before it is told the end, on however busy a machine.
        client = await run.client(b"nobody reads this")
        assert await read_all(client) == (b"", "fin")


@bounded
async def test_an_upstream_that_does_not_answer() -> None:
    options = EngineOptions(timeouts=Timeouts(connect=0.05))
    with deaf_upstream() as port:
        async with live(options=options, upstream_port=port, quiet=False) as run:
            assert await read_all(await run.client()) == (b"", "reset")
            assert (await run.events.wait("connect_failed"))["reason"] == "no answer within 0.05 s"


@bounded
async def test_a_client_that_resets_ends_the_connect() -> None:
    with deaf_upstream() as port:
        async with live(upstream_port=port) as run:
            client = await run.client()
            while run.proxy.connections != 1:
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
            reset(client)
            await run.proxy.wait_connections(0)
            assert run.events.all == []


@bounded
async def test_a_name_with_no_address() -> None:
    trio.socket.set_custom_hostname_resolver(Answers())
    async with live(upstream_host="web.example", upstream_port=80, quiet=False) as run:
        assert await read_all(await run.client()) == (b"", "reset")
        event = await run.events.wait("connect_failed")
        assert event["reason"] == "cannot resolve web.example: Name or service not known"


@bounded
async def test_a_name_whose_first_address_is_dead() -> None:
    async with live(Probe(), upstream_host="web.example") as run:
        trio.socket.set_custom_hostname_resolver(Answers("::1", "127.0.0.1"))
        client, server = await run.pair()
        await client.send_all(b"x")
        assert await read_exactly(server, 1) == b"x"


@pytest.mark.parametrize(("policy", "end"), [("rst", "reset"), ("fin", "fin")])
@pytest.mark.parametrize("layer", ["ale_auth_connect", "ale_flow_established"])
@bounded
async def test_a_block_before_the_flow(layer: str, policy: str, end: str) -> None:
    """LAY-6, LAY-21: not a byte, no flow."""
    options = EngineOptions(policy=Policy(on_block=policy))
    async with live(Refusing(layer), options=options) as run:
        assert await read_all(await run.client()) == (b"", end)
        await run.events.wait("flow_blocked")
        assert not run.events.named("flow_established")


class Pending(Callout):
    """Pends every connection at AUTH_CONNECT; permits it when asked again (LAY-19)."""

    layers = ("ale_auth_connect",)

    def __init__(self) -> None:
        self.contexts: list[int] = []
        self.asked: set[int] = set()

    def classify_fn(self, *args: Any) -> None:
        """BLOCK with ABSORB, then PERMIT."""
        meta, out = args[1], args[-1]
        if meta.flow_handle in self.asked:
            out.action_type = int(ActionType.PERMIT)
            return
        self.asked.add(meta.flow_handle)
        status, context = self.fwps.pend_operation(meta.completion_handle)
        assert status.ok
        self.contexts.append(context)
        out.action_type = int(ActionType.BLOCK)
        out.flags |= int(ClassifyOutFlags.ABSORB)


@bounded
async def test_a_pended_connection_waits_for_its_verdict() -> None:
    """LAY-17: the upstream is connected only then; a client that resets is not waited for."""
    gate = Pending()
    async with live(gate) as run:
        client, gone = await run.client(), await run.client()
        await client.send_all(b"early")
        while len(gate.contexts) < 2:
            await trio.lowlevel.checkpoint()
        reset(gone)
        await run.proxy.wait_connections(1)
        assert not run.events.named("flow_established")
        run.engine.fwps.complete_operation(gate.contexts[0])
        server = await run.accept()
        assert await read_exactly(server, 5) == b"early"
        await client.aclose()
        await server.aclose()
        await run.deleted()


@bounded
async def test_a_connection_nobody_decides_is_blocked() -> None:
    """LAY-14."""
    async with live(Pending(), options=EngineOptions(timeouts=Timeouts(pend_connect=0.05))) as run:
        assert await read_all(await run.client()) == (b"", "reset")
        await run.events.wait("flow_blocked")


class Redirecting(Callout):
    """Sends every connection to another port."""

    layers = ("ale_connect_redirect",)

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)

    def classify_fn(self, *args: Any) -> None:
        """Acquire, write, apply, release (LAY-24, LAY-25)."""
        context, filter_, out = args[3], args[4], args[-1]
        _, handle = self.fwps.acquire_classify_handle(context, 0)
        _, request = self.fwps.acquire_writable_layer_data_pointer(handle, filter_.filter_id, 0, out)
        assert request is not None
        request.remote_address_and_port = self.target
        self.fwps.apply_modified_layer_data(handle, request, 0)
        out.action_type = int(ActionType.PERMIT)
        self.fwps.release_classify_handle(handle)


@pytest.mark.parametrize("upstream_host", ["127.0.0.1", "web.example"])
@bounded
async def test_a_redirected_connection_goes_elsewhere(upstream_host: str) -> None:
    """LAY-26."""
    trio.socket.set_custom_hostname_resolver(Answers("127.0.0.1"))
    elsewhere = await listening()
    with elsewhere:
        redirecting = Redirecting(*elsewhere.getsockname())
        async with live(redirecting, upstream_host=upstream_host, upstream_port=free_port()) as run:
            client = await run.client()
            sock, _ = await elsewhere.accept()
            server = trio.SocketStream(sock)
            await client.send_all(b"x")
            assert await read_exactly(server, 1) == b"x"
            await server.aclose()


# --- listening --------------------------------------------------------------------------------------


@bounded
async def test_an_address_in_use_is_named_and_nothing_stays_open() -> None:
    taken = await listening()
    before = open_descriptors()
    with taken:
        port = taken.getsockname()[1]
        specs = [
            ListenerSpec(upstream_host="127.0.0.1", upstream_port=1),
            ListenerSpec(port=port, upstream_host="127.0.0.1", upstream_port=1),
        ]
        with pytest.raises(
            OSError, match=f"cannot listen on 127.0.0.1:{port}: address already in use"
        ) as info:
            await serve_proxy(make_engine(), specs)
        assert info.value.errno == errno.EADDRINUSE
        assert open_descriptors() == before


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "bridge"}, "mode is 'reverse', 'redirect' or 'tproxy', not 'bridge'"),
        ({"mode": "redirect"}, "mode redirect has no upstream"),
        ({"keep_client": True}, "only mode tproxy can keep the client's address"),
        ({"keep_port": True}, "keep_port is for a listener that keeps the address"),
        ({"send_proxy": 3}, "send_proxy is 0, 1 or 2, not 3"),
        ({"accept_proxy": ("10.0.0.0/33",)}, "'10.0.0.0/33' is neither an address nor a network"),
        ({"allow": ("web.example",)}, "'web.example' is neither an address nor a network"),
        ({"deny": ("",)}, "'' is neither an address nor a network"),
        ({"local": "left"}, "local is 'client' or 'server', not 'left'"),
        ({"upstream_host": ""}, "needs an upstream"),
        ({"upstream_port": 0}, "needs an upstream"),
    ],
)
def test_a_listener_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    sensible: dict[str, Any] = {"name": "web", "upstream_host": "127.0.0.1", "upstream_port": 80}
    with pytest.raises(ValueError, match=message):
        ListenerSpec(**(sensible | fields))


@bounded
async def test_the_proxy_says_where_it_listens() -> None:
    ready: list[Proxy] = []
    specs = [
        ListenerSpec(name="a", upstream_host="localhost", upstream_port=80),
        ListenerSpec(name="b", host="::1", upstream_host="::1", upstream_port=81),
    ]
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[Proxy]) -> None:
            await serve_proxy(make_engine(), specs, ready=ready.append, task_status=task_status)

        proxy = await nursery.start(serve)
        assert ready == [proxy]
        first, second = proxy.listeners
        assert (first.name, first.mode, first.host, first.upstream) == (
            "a",
            "reverse",
            "127.0.0.1",
            ("localhost", 80),
        )
        assert (second.name, second.host, second.upstream) == ("b", "::1", ("::1", 81))
        assert first.port
        assert second.port
        await proxy.stop()


@bounded
async def test_a_client_of_a_dual_stack_listener_is_an_ipv4_flow() -> None:
    """LAY-10."""
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    async with live(Probe(), bound=sock) as run:
        with socket.create_connection(("127.0.0.1", run.proxy.listeners[0].port)) as client:
            await run.accept()
            event = await run.events.wait("flow_established")
            assert event["layer"].lower() == "ale_flow_established_v4"
            assert event["client"] == list(client.getsockname())


# --- limits -----------------------------------------------------------------------------------------


class Short(socket.socket):
    """A listener for which there is no socket to be had for `failures` times: `accept` says `number`."""

    failures = 3
    number = errno.EMFILE

    def _accept(self) -> tuple[int, Any]:
        """Nothing, until there is."""
        if self.failures:
            self.failures -= 1
            raise OSError(self.number, os.strerror(self.number))
        accepted: tuple[int, Any] = super()._accept()  # type: ignore[misc]
        return accepted


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
@bounded
async def test_when_no_socket_is_to_be_had_accepting_waits_and_says_so_once(number: int) -> None:
    """The process' limit, that of the machine, and no memory: no further edge comes, so accepting is tried again."""
    sock = Short()
    sock.number = number
    sock.bind(("127.0.0.1", 0))
    async with live(Probe(), bound=sock, quiet=False) as run:
        waiting = [await run.client() for _ in range(2)]
        for client in waiting:
            server = await run.accept()
            await client.send_all(b"x")
            assert await read_exactly(server, 1) == b"x"
        assert sock.failures == 0
        assert run.proxy.accepted == 2
        assert run.lines == [f"listener web: cannot accept: {os.strerror(number).lower()}; waiting"]


@bounded
async def test_a_connection_that_died_in_the_backlog_is_nobodys_trouble() -> None:
    class Unlucky(Short):
        def _accept(self) -> tuple[int, Any]:
            if self.failures:
                self.failures -= 1
                raise ConnectionAbortedError(errno.ECONNABORTED, "gone")
            return super()._accept()

    sock = Unlucky()
    sock.bind(("127.0.0.1", 0))
    async with live(Probe(), bound=sock) as run:
        client, server = await run.pair()
        await client.send_all(b"x")
        assert await read_exactly(server, 1) == b"x"


@bounded
async def test_beyond_the_limit_of_flows_accepting_pauses() -> None:
    async with live(Probe(), options=EngineOptions(limits=Limits(flows=1)), quiet=False) as run:
        client, server = await run.pair()
        second = await run.client()
        await second.send_all(b"patience")
        while not run.lines:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert run.proxy.accepted == 1
        await client.aclose()
        await server.aclose()
        next_server = await run.accept()
        assert await read_exactly(next_server, 8) == b"patience"
        full = "as many connections as limits.flows allows (1); who comes now waits"
        assert run.lines == [f"listener web: {full}"]


@bounded
async def test_one_client_may_have_only_so_many() -> None:
    options = EngineOptions(limits=Limits(flows_per_client=1))
    async with live(Probe(), options=options, quiet=False) as run:
        client, server = await run.pair()
        for refused in (1, 2):
            assert await read_all(await run.client()) == (b"", "reset")
            assert run.proxy.refused == refused
        (line,) = run.lines  # once: the count tells the rest
        assert line.startswith("listener web: refused a connection of 127.0.0.1: ")
        assert line.endswith("(flows_per_client)")
        await client.aclose()
        await server.aclose()
        await run.deleted()
        await run.proxy.wait_connections(0)
        third, _ = await run.pair()
        await third.send_all(b"x")


@bounded
async def test_other_limits_count_for_new_flows() -> None:
    """A reload may change them: how much one read takes follows `limits.unsent` (IND-24)."""
    probe = Probe()
    async with live(probe) as run:
        for unsent in (8192, 4096, 1 << 20):
            run.engine.options.limits = Limits(unsent=unsent)
            client, server = await run.pair()
            probe.seen.clear()
            data = bytes(100_000)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send_all, data)
                assert await read_exactly(server, len(data)) == data
            assert max(len(seen) for _, seen in probe.seen) <= unsent // 2


@bounded
async def test_a_raised_limit_of_flows_lets_in_who_waits() -> None:
    """A reload looks after it: with or without other listeners."""
    async with live(Probe(), options=EngineOptions(limits=Limits(flows=1)), quiet=False) as run:
        await run.pair()
        second = await run.client()
        await second.send_all(b"patience")
        await wait_all_tasks_blocked()
        run.engine.options.limits = Limits(flows=2)
        (await run.proxy.prepare([run.proxy.listeners[0].spec])).commit()
        assert await read_exactly(await run.accept(), 8) == b"patience"


@bounded
async def test_both_legs_are_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    legs: list[socket.socket] = []
    make = SocketEnd.__init__

    def watch(self: SocketEnd, sock: socket.socket) -> None:
        legs.append(sock)
        make(self, sock)

    monkeypatch.setattr(SocketEnd, "__init__", watch)
    async with live(Probe()) as run:
        await run.pair()
        assert [leg.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for leg in legs] == [1, 1]


# --- the end ----------------------------------------------------------------------------------------


@bounded
async def test_stop_lets_a_flow_end_by_itself() -> None:
    async with live(Probe()) as run, trio.open_nursery() as nursery:
        client, server = await run.pair()
        await client.send_all(b"last words")
        nursery.start_soon(run.proxy.stop, 3600.0)
        await wait_all_tasks_blocked()
        with pytest.raises(ConnectionRefusedError):
            await run.client()
        assert await read_exactly(server, 10) == b"last words"
        await server.send_all(b"understood")
        await server.send_eof()
        await client.send_eof()
        assert await read_all(client) == (b"understood", "fin")
        assert (await run.deleted())["reason"] == "fin"


@bounded
async def test_who_waits_in_the_backlog_at_a_stop_is_still_served() -> None:
    """The kernel has let it in: to close the listener over it would be a reset."""
    async with live(Probe(), options=EngineOptions(limits=Limits(flows=1)), quiet=False) as run:
        client, server = await run.pair()
        second = await run.client()
        await second.send_all(b"patience")
        while not run.lines:  # that it has to wait
            await trio.lowlevel.checkpoint()
        run.proxy.request_stop(3600.0)
        await client.aclose()
        await server.aclose()
        next_server = await run.accept()
        assert await read_exactly(next_server, 8) == b"patience"
        await second.send_eof()
        await next_server.send_eof()
        assert await read_all(second) == (b"", "fin")


@bounded
async def test_stop_aborts_what_outlives_the_grace() -> None:
    async with live(Probe()) as run:
        client, server = await run.pair()
        await client.send_all(b"x")
        await read_exactly(server, 1)
        await run.proxy.stop(0.05)
        assert (await run.deleted())["reason"] == "stop"
        assert await read_all(client) == (b"", "reset")
        assert await read_all(server) == (b"", "reset")


@pytest.mark.parametrize("graces", [(1000.0, 0.0), (0.05, 1000.0)])
@bounded
async def test_asked_to_stop_again_the_earlier_end_counts(graces: tuple[float, float]) -> None:
    async with live(Probe()) as run:
        client, server = await run.pair()
        await client.send_all(b"x")
        await read_exactly(server, 1)
        for grace in graces:
            run.proxy.request_stop(grace)
            await wait_all_tasks_blocked()
        assert (await run.deleted())["reason"] == "stop"


@bounded
async def test_a_defect_ends_one_connection_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(Probe(), quiet=False) as run:
        client, server = await run.pair()
        other, other_server = await run.pair()
        first = run.engine.flows[0]
        inputs = run.engine.fwps.inputs
        settle = inputs.settle_output

        def broken(flow: Flow) -> None:
            if flow is first:
                raise RuntimeError("defect")
            settle(flow)

        monkeypatch.setattr(inputs, "settle_output", broken)
        await client.send_all(b"x")
        await other.send_all(b"fine")
        assert await read_all(server) == (b"x", "reset")
        assert await read_exactly(other_server, 4) == b"fine"
        assert run.lines == ["listener web: RuntimeError: defect"]


@bounded
async def test_a_defect_before_the_flow_ends_one_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with live(Probe(), quiet=False) as run:

        def broken(endpoints: object) -> None:
            raise RuntimeError("defect")

        with monkeypatch.context() as patch:
            patch.setattr(run.engine, "connection_requested", broken)
            assert await read_all(await run.client()) == (b"", "reset")
        client, server = await run.pair()
        await client.send_all(b"fine")
        assert await read_exactly(server, 4) == b"fine"
        assert run.lines == ["listener web: RuntimeError: defect"]


@bounded
async def test_connections_are_numbered_as_they_came() -> None:
    async with live(Probe()) as run:
        clients = [await run.client() for _ in range(20)]
        await run.events.wait("flow_established", len(clients))
        ports = {tuple(event["client"]): event["flow"] for event in run.events.named("flow_established")}
        numbers = [ports[client.socket.getsockname()] for client in clients]
        assert numbers == sorted(numbers)


@bounded
async def test_a_worker_may_ask_the_outside_world() -> None:
    async with live(AskingCallout()) as run:
        client, server = await run.pair()
        await client.send_all(b"word")
        assert await read_exactly(server, 4) == b"WORD"
        await server.send_all(b"?")
        assert await read_exactly(client, 19) == b"error: no such word"
        await client.aclose()
        await server.aclose()
        assert (await run.deleted())["reason"] == "fin"


@bounded
async def test_a_call_still_under_way_ends_with_the_proxy() -> None:
    begun, ended = trio.Event(), trio.Event()

    async def wait() -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    class Waiting(Worker):
        async def run(self) -> None:
            await self.next()
            await self.call(wait)

    class WaitingCallout(OutOfBandCallout):
        worker_class = Waiting

    async with live(WaitingCallout()) as run:
        client, _ = await run.pair()
        await client.send_all(b"x")
        await begun.wait()
    await ended.wait()


def open_descriptors() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)}


def _is_open(fd: str) -> bool:
    try:
        os.fstat(int(fd))
    except OSError:
        return False
    return True


class CancelAt(trio.abc.Instrument):
    """Cancels a scope before the n-th step of any task."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self.left = step
        self.scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, and cancel."""
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


async def _one_connection(engine: FilterEngine, scope: trio.CancelScope, step: int) -> bool:
    """Connect, talk, half-close, end, with the proxy cancelled at `step`; whether it came to that."""
    upstream = await listening()
    instrument = CancelAt(step, scope)
    port = upstream.getsockname()[1]
    spec = ListenerSpec(upstream_host="127.0.0.1", upstream_port=port)

    async def serve(task_status: trio.TaskStatus[Proxy]) -> None:
        with scope:
            await serve_proxy(engine, [spec], task_status=task_status)

    async def answer() -> None:
        sock, _ = await upstream.accept()
        async with trio.SocketStream(sock) as stream:
            data, _ = await read_all(stream)
            with suppress(trio.BrokenResourceError):
                await stream.send_all(data)

    with upstream:
        async with trio.open_nursery() as nursery:
            proxy: Proxy = await nursery.start(serve)
            nursery.start_soon(answer)
            trio.lowlevel.add_instrument(instrument)
            with suppress(OSError, trio.BrokenResourceError):  # the proxy is gone
                await _talk(proxy)
            scope.cancel()
            nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(instrument)
    return instrument.left <= 0


async def _talk(proxy: Proxy) -> None:
    async with await trio.open_tcp_stream(proxy.listeners[0].host, proxy.listeners[0].port) as client:
        await client.send_all(b"hello")
        await client.send_eof()
        await read_all(client)


@bounded
async def test_cancelled_at_any_step_nothing_is_left() -> None:
    before = open_descriptors()
    for step in range(1, 1000):
        engine = make_engine(Probe(), AskingCallout())
        cancelled = await _one_connection(engine, trio.CancelScope(), step)
        assert_clean(engine)
        assert open_descriptors() <= before, step
        if not cancelled:
            break
    assert 20 < step < 999
