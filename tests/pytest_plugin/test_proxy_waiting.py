"""Waiting for what a proxy does: in plain tests, under asyncio, under trio; never by blocking an event loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.pytest_plugin.kit import (
    SOON,
    Upstream,
    delivered,
    is_turned_away,
    read_exactly,
    refusing_address,
    took,
    works,
)
from wfpstream.pytest_plugin import ProxyClosed, ProxyFactory, WfpProxy

# Bounds what would otherwise hang for ever; never what a test waits for.
LIMIT = 100.0

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def under_asyncio(main: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(main(), LIMIT)

    return asyncio.run(limited())


def under_trio(main: Callable[[], Awaitable[Any]]) -> Any:
    async def limited() -> Any:
        with trio.fail_after(LIMIT):
            return await main()

    return trio.run(limited)


both_loops = pytest.mark.parametrize("run", [under_asyncio, under_trio])


# --- plain ---------------------------------------------------------------------------------------------


def test_it_waits_for_what_comes(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    clients: list[socket.socket] = []
    timer = threading.Timer(0.05, lambda: clients.append(upstream.connect(proxy)))
    timer.start()
    flow = proxy.wait_flow()
    assert proxy.wait_flow() is flow
    assert proxy.flows == [flow]
    timer.join()
    clients[0].close()
    timer = threading.Timer(0.05, upstream.accept().close)
    timer.start()
    assert proxy.wait_flow(state="closed") is flow
    timer.join()


def test_flows_are_counted_in_the_order_in_which_they_became_so(
    wfp_proxy: ProxyFactory, upstream: Upstream
) -> None:
    proxy = wfp_proxy(upstream.address)
    pairs = [upstream.pair(proxy) for _ in range(3)]
    ports = [proxy.wait_flow(n).client[1] for n in (1, 2, 3)]
    assert ports == [pair.client.getsockname()[1] for pair in pairs]
    for number, index in enumerate((2, 0, 1), start=1):
        for sock in pairs[index]:
            sock.close()
        assert proxy.wait_flow(number, state="closed").client[1] == ports[index]


def test_events_are_found_by_name_number_and_keys(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address, callouts=["monitor,log=none"])
    client, server = upstream.pair(proxy)
    for size in (1, 22, 333):
        client.sendall(bytes(size))
        read_exactly(server, size)
    assert proxy.wait_event("indicate", len=22)["dir"] == "to_upstream"
    assert proxy.wait_event("indicate", n=3)["len"] == 333
    assert proxy.wait_event("indicate", len=lambda length: length > 100, dir="to_upstream")["len"] == 333
    with pytest.raises(TimeoutError, match=r"no 1. event 'indicate', dir='to_client'"):
        proxy.wait_event("indicate", dir="to_client", timeout=0.05)
    with pytest.raises(TimeoutError, match=r"no 1. event 'inject', rule='INJ-1'"):
        proxy.wait_event("inject", rule="INJ-1", timeout=0)
    waiting = threading.Timer(0.05, lambda: server.sendall(b"x"))
    waiting.start()
    assert proxy.wait_event("indicate", dir="to_client")["len"] == 1
    waiting.join()


def test_a_timeout_says_what_has_happened(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    with refusing_address() as gone:
        proxy = wfp_proxy(gone, callouts=["monitor,log=none"])
        with pytest.raises(
            TimeoutError, match=r"after 0.01 s <wfp_proxy .* running> has no 1. connection"
        ) as caught:
            proxy.wait_flow(timeout=0.01)
        assert "no event so far" in str(caught.value)
        assert is_turned_away(proxy)
        proxy.wait_event("connect_failed")
    with pytest.raises(TimeoutError) as caught:
        proxy.wait_flow(2, "closed", timeout=0.01)
    text = str(caught.value)
    assert "has no 2. connection that is closed" in text
    assert "a connection failed: connect_failed (connection refused" in text
    assert "log: listener proxy: cannot connect to 127.0.0.1" in text
    assert "last events: connect_failed" in text


@pytest.mark.parametrize(
    ("wait", "says"),
    [
        (lambda proxy: proxy.wait_flow(0), "n counts from 1"),
        (lambda proxy: proxy.wait_event("indicate", n=-1), "n counts from 1"),
        (lambda proxy: proxy.wait_flow(state="open"), "'established' or 'closed'"),
        (lambda proxy: proxy.wait_event("indciate"), r"no event 'indciate'; did you mean 'indicate'\?"),
        (
            lambda proxy: proxy.wait_event("sunrise"),
            "no event 'sunrise'; there are classify, connect_failed, ",
        ),
        (
            lambda proxy: proxy.wait_event("violation", rul="V-5"),
            r"an event 'violation' has no 'rul'; did you mean 'rule'\?",
        ),
        (lambda proxy: proxy.wait_event("offload", sky=1), "has no 'sky'; there are capture, dir, event, "),
    ],
)
def test_a_question_without_sense_is_refused(
    wfp_proxy: ProxyFactory, upstream: Upstream, wait: Any, says: str
) -> None:
    proxy = wfp_proxy(upstream.address)
    with pytest.raises(ValueError, match=says):
        wait(proxy)


def test_whoever_waits_learns_that_the_proxy_is_closed(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    timer = threading.Timer(0.05, proxy.close)
    timer.start()
    with pytest.raises(ProxyClosed):
        proxy.wait_event("ledger_fault", timeout=20)
    timer.join()


def test_idle_means_that_all_has_gone_out(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address, callouts=["latency,delay=50ms"])
    proxy.idle()
    client = upstream.connect(proxy)
    proxy.idle()
    assert len(proxy.flows) == 1
    server = upstream.accept()
    for number in range(1, 6):
        client.sendall(b"x" * 1000)
        delivered(client)
        proxy.idle()
        assert proxy.flows[0].sent == 1000 * number
        kinds = Counter(event["event"] for event in proxy.events)
        assert kinds["inject_complete"] == kinds["inject"] >= number
        assert read_exactly(server, 1000) == b"x" * 1000
    for sock in (client, server):
        sock.shutdown(socket.SHUT_WR)
    delivered(client, server)
    proxy.idle()
    assert proxy.flows[0].state == "closed"


def test_idle_says_what_is_still_to_do(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    with proxy.stalled():
        proxy.idle()
        client.sendall(b"12345")
        server.sendall(b"123")
        # Once the proxy has read both; until then it says less.
        said = ""
        while not ("flow 1 to_upstream: 5 bytes held" in said and "flow 1 to_client: 3 bytes held" in said):
            with pytest.raises(TimeoutError, match="is not idle") as caught:
                proxy.idle(0.1)
            said = str(caught.value)
    assert "flow 1 to_client: 3 bytes held, deferred" in said
    proxy.idle()


# --- under an event loop ---------------------------------------------------------------------------------


@both_loops
def test_what_blocks_is_refused_at_once_and_names_its_twin(
    wfp_proxy: ProxyFactory, upstream: Upstream, run: Run
) -> None:
    proxy = wfp_proxy(upstream.address)
    loop = run.__name__.removeprefix("under_")

    async def main() -> None:
        for name, call in (
            ("wait_flow", proxy.wait_flow),
            ("wait_event", lambda: proxy.wait_event("indicate")),
            ("idle", proxy.idle),
        ):
            says = rf"{name}\(\) would block this thread's {loop} event loop; .*: await proxy\.{name}_async\("

            def refused(call: Callable[[], object] = call, says: str = says) -> None:
                with pytest.raises(RuntimeError, match=says):
                    call()

            assert took(refused) < SOON

    run(main)


@both_loops
def test_the_twins_wait(wfp_proxy: ProxyFactory, upstream: Upstream, run: Run) -> None:
    async def main() -> None:
        proxy = wfp_proxy(upstream.address, callouts=["monitor,log=none"])
        timer = threading.Timer(0.05, lambda: upstream.pair(proxy).client.sendall(b"four"))
        timer.start()
        flow = await proxy.wait_flow_async()
        assert (await proxy.wait_event_async("indicate", len=4))["dir"] == "to_upstream"
        assert flow.sent == 4
        await proxy.idle_async()
        with proxy.stalled("to_client"), proxy.fault("latency,delay=1ms"):
            proxy.reset()
        assert (await proxy.wait_flow_async(state="closed")).ended == "abort"
        with pytest.raises(TimeoutError, match=r"has no 2. connection that is closed"):
            await proxy.wait_flow_async(2, "closed", timeout=0.05)
        with pytest.raises(TimeoutError, match=r"no 1. event 'ledger_fault'"):
            await proxy.wait_event_async("ledger_fault", timeout=0.05)
        with proxy.stalled("to_client"):
            client, server = upstream.pair_without_waiting(proxy)
            await proxy.wait_flow_async(2)
            server.sendall(b"x")
            await proxy.wait_event_async("defer", dir="to_client")
            with pytest.raises(TimeoutError, match="is not idle"):
                await proxy.idle_async(timeout=0.05)
        assert client.recv(1) == b"x"
        timer.join()

    run(main)


@both_loops
def test_the_loop_goes_on_meanwhile(wfp_proxy: ProxyFactory, upstream: Upstream, run: Run) -> None:
    """The client, the server and who waits are all on the one loop."""

    async def main() -> None:
        proxy = wfp_proxy(upstream.address)
        if run is under_trio:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio_client, proxy)
                flow = await proxy.wait_flow_async(state="closed")
        else:
            task = asyncio.create_task(asyncio_client(proxy))
            flow = await proxy.wait_flow_async(state="closed")
            await task
        assert flow.ended == "fin"

    async def trio_client(proxy: WfpProxy) -> None:
        async with await trio.open_tcp_stream(*proxy.address):
            pass

    async def asyncio_client(proxy: WfpProxy) -> None:
        _, writer = await asyncio.open_connection(*proxy.address)
        writer.close()
        await writer.wait_closed()

    closing = threading.Timer(0.05, lambda: upstream.accept().close())
    closing.start()
    run(main)
    closing.join()


def test_waiting_may_be_cancelled_under_trio(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)

    async def main() -> None:
        for wait in (proxy.wait_flow_async, lambda: proxy.wait_event_async("ledger_fault"), proxy.idle_async):
            with trio.move_on_after(0.01), proxy.stalled("to_client"):
                await wait()
                await trio.sleep_forever()

    under_trio(main)
    works(upstream.pair(proxy))


def test_waiting_may_be_cancelled_under_asyncio(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)

    async def main() -> None:
        for wait in (proxy.wait_flow_async(), proxy.wait_event_async("ledger_fault")):
            task = asyncio.create_task(wait)
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    under_asyncio(main)
    works(upstream.pair(proxy))


def test_a_virtual_clock_is_refused_in_words(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """It would let every timeout pass at once, or none ever."""
    proxy = wfp_proxy(upstream.address)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="leave mock_clock or autojump_clock out, or use wfp_pair"):
            await proxy.wait_flow_async()
        with pytest.raises(RuntimeError, match="a MockClock, whose time passes without them"):
            wfp_proxy(upstream.address)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@both_loops
def test_a_proxy_in_an_async_with(wfp_proxy: ProxyFactory, upstream: Upstream, run: Run) -> None:
    async def main() -> WfpProxy:
        async with wfp_proxy(upstream.address) as proxy:
            works(upstream.pair_without_waiting(proxy))
        with pytest.raises(ProxyClosed):
            await proxy.idle_async()
        return proxy

    proxy = run(main)
    assert proxy.is_closed
    assert [flow.ended for flow in proxy.flows] == ["stop"]


def test_a_twin_without_a_loop_is_told(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    waiting = proxy.wait_flow_async()
    with pytest.raises(RuntimeError, match="without an event loop use the plain ones"):
        waiting.send(None)


def test_threads_of_a_loop_may_block(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)

    async def in_trio() -> None:
        await trio.to_thread.run_sync(proxy.idle)

    async def in_asyncio() -> None:
        await asyncio.to_thread(proxy.idle)

    under_trio(in_trio)
    under_asyncio(in_asyncio)


def test_many_wait_at_once(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    found: list[int] = []

    async def main() -> None:
        async def wait(n: int) -> None:
            found.append((await proxy.wait_flow_async(n)).id)

        async with trio.open_nursery() as nursery:
            for n in range(1, 21):
                nursery.start_soon(wait, n)
            for _ in range(20):
                upstream.connect(proxy)

    under_trio(main)
    assert sorted(found) == sorted(flow.id for flow in proxy.flows)


def test_calls_return_within_milliseconds_under_a_loop(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """Also with a flow that keeps the proxy busy. (On an idle machine: 0.1 to 4 ms each.)"""
    proxy = wfp_proxy(upstream.address)
    stop = threading.Event()
    client, server = upstream.pair(proxy)

    def pump() -> None:
        try:
            while not stop.is_set():
                client.sendall(bytes(1 << 16))
                server.recv(1 << 20)
        except OSError:
            pass

    thread = threading.Thread(target=pump)
    thread.start()

    async def main() -> None:
        began = time.monotonic()
        for _ in range(5):
            with proxy.fault("latency,delay=1ms"), proxy.stalled("to_client"), proxy.down(live="keep"):
                assert proxy.flows
                assert proxy.events
        assert time.monotonic() - began < 5 * SOON

    try:
        under_asyncio(main)
    finally:
        stop.set()
        thread.join()
