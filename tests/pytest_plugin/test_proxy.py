"""`wfp_proxy`: where it is, what it saw, what can be said to it and what not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from tests.pytest_plugin.kit import (
    LIMIT,
    Upstream,
    full_upstream,
    is_silent,
    is_turned_away,
    read_all,
    read_exactly,
    refusing_address,
    reset,
    works,
)
from tests.support.hosts import own_host
from wfpstream.callouts import Monitor, StreamEdit
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout
from wfpstream.pytest_plugin import FlowRecord, ProxyClosed, ProxyFactory, WfpProxy

# --- where it is ----------------------------------------------------------------------------------


def test_it_listens_when_the_call_returns(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    assert proxy.host == "127.0.0.1"
    assert proxy.address == (proxy.host, proxy.port)
    assert str(proxy) == f"127.0.0.1:{proxy.port}"
    assert proxy.url("redis://{}/0") == f"redis://127.0.0.1:{proxy.port}/0"
    assert proxy.url("http://{host}:{port}/") == f"http://127.0.0.1:{proxy.port}/"
    assert proxy.upstream == upstream.address
    works(upstream.pair(proxy))


def test_over_ipv6(wfp_proxy: ProxyFactory) -> None:
    with closing(Upstream("::1")) as upstream:
        proxy = wfp_proxy(upstream.address, host="::1")
        assert str(proxy) == f"[::1]:{proxy.port}"
        works(upstream.pair(proxy))
        with proxy.down(live="keep"), pytest.raises(ConnectionRefusedError):
            socket.create_connection(proxy.address, LIMIT)
        works(upstream.pair(proxy))


@pytest.mark.parametrize("template", ["redis://localhost/0", "redis://{0}:{1}/", "x{", "{nothing}", ""])
def test_an_address_that_goes_nowhere_is_refused(
    wfp_proxy: ProxyFactory, upstream: Upstream, template: str
) -> None:
    with pytest.raises(ValueError, match="where the address goes"):
        wfp_proxy(upstream.address).url(template)


@pytest.mark.parametrize("wrong", [-1, "soon", float("inf"), None])
def test_a_time_that_is_none_is_named(wfp_proxy: ProxyFactory, upstream: Upstream, wrong: object) -> None:
    with pytest.raises(ValueError, match=r"timeout=.*: expected seconds, or a time such as 250ms"):
        wfp_proxy(upstream.address, timeout=wrong)


def test_many_at_once_have_ports_of_their_own(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxies = [wfp_proxy(upstream.address) for _ in range(10)]
    assert len({proxy.port for proxy in proxies}) == 10
    for proxy in proxies:
        works(upstream.pair(proxy))


def test_one_proxy_behind_another(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    inner = wfp_proxy(upstream.address, callouts=["stream_edit,find=ping,replace=PING"])
    outer = wfp_proxy(inner.address)
    client = upstream.connect(outer)
    server = upstream.accept()
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"PING"


@pytest.mark.parametrize(
    "spelled",
    [
        lambda host, port: f"{host}:{port}",
        lambda host, port: f"tcp://{host}:{port}",
        lambda host, port: [host, port],
        lambda host, port: (host, port, 0, 0),
        lambda host, port: ("localhost", port),
    ],
)
def test_other_ways_to_name_the_upstream(wfp_proxy: ProxyFactory, upstream: Upstream, spelled: Any) -> None:
    works(upstream.pair(wfp_proxy(spelled(*upstream.address))))


# --- its end --------------------------------------------------------------------------------------


def test_the_end_of_the_with_closes_it(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    with wfp_proxy(upstream.address, host=own_host()) as proxy:
        works(upstream.pair(proxy))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(proxy.address, LIMIT)
    assert "closed" in repr(proxy)


def test_what_it_saw_can_be_asked_afterwards(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    with wfp_proxy(upstream.address, callouts=["framer,by=line"]) as proxy:
        pair = upstream.pair(proxy)
        works_by_line(pair.client, pair.server)
    [flow] = proxy.flows
    assert (flow.sent, flow.received, flow.ended) == (5, 0, "stop")
    assert proxy.left_open == [flow]
    assert proxy.events[-1]["event"] == "flow_deleted"
    assert proxy.callout("framer") is not None
    assert proxy.violations() == []
    proxy.close()


def works_by_line(client: socket.socket, server: socket.socket) -> None:
    client.sendall(b"line\n")
    assert read_exactly(server, 5) == b"line\n"


def test_nothing_can_be_done_to_it_afterwards(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    stall = proxy.stalled()
    proxy.close()
    stall.remove()
    for act in (proxy.reset, proxy.idle, proxy.stalled, proxy.down, proxy.wait_flow):
        with pytest.raises(ProxyClosed, match="has been closed"):
            act()
    with pytest.raises(ProxyClosed):
        proxy.add_callout("monitor,log=none")


def test_flows_that_end_by_themselves_are_not_cut_short(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address, grace=LIMIT)
    pair = upstream.pair(proxy)
    closing = threading.Thread(target=proxy.close)
    closing.start()
    pair.server.sendall(b"last words")
    pair.server.shutdown(socket.SHUT_WR)
    assert read_all(pair.client) == (b"last words", "fin")
    pair.client.close()
    closing.join()
    assert proxy.left_open == []
    assert proxy.flows[0].ended == "fin"


# --- what it saw ----------------------------------------------------------------------------------


def test_counts_are_there_as_soon_as_the_bytes_are(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """Whoever has received a byte may ask at once: the count is never behind."""
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    [flow] = proxy.flows
    for number in range(1, 200):
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert flow.sent == number
        server.sendall(b"yz")
        assert read_exactly(client, 2) == b"yz"
        assert flow.received == 2 * number
    assert flow.state == "established"
    assert flow.ended is None


def fin_from_both(client: socket.socket, server: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    assert read_all(server)[1] == "fin"
    server.close()


def rst_from_client(client: socket.socket, server: socket.socket) -> None:
    reset(client)
    assert read_all(server)[1] == "reset"


def rst_from_server(client: socket.socket, server: socket.socket) -> None:
    reset(server)
    assert read_all(client)[1] == "reset"


@pytest.mark.parametrize(
    ("end", "ended"),
    [(fin_from_both, "fin"), (rst_from_client, "rst_client"), (rst_from_server, "rst_upstream")],
)
def test_how_a_connection_ended(wfp_proxy: ProxyFactory, upstream: Upstream, end: Any, ended: str) -> None:
    proxy = wfp_proxy(upstream.address)
    pair = upstream.pair(proxy)
    works(pair)
    end(*pair)
    flow = proxy.wait_flow(state="closed")
    assert (flow.ended, flow.state) == (ended, "closed")
    assert (flow.sent, flow.received) == (4, 4)
    assert flow.client[0] == "127.0.0.1"
    assert flow.server == upstream.address
    assert flow.duration is not None
    assert flow.ledger["to_client"]["read"] == 4
    assert ended in repr(flow)


def test_half_close_both_ways(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    for first, second in ((0, 1), (1, 0)):
        pair = upstream.pair(proxy)
        pair[first].shutdown(socket.SHUT_WR)
        assert read_all(pair[second]) == (b"", "fin")
        pair[second].sendall(b"still")
        pair[second].shutdown(socket.SHUT_WR)
        assert read_all(pair[first]) == (b"still", "fin")


def test_the_callout_object_of_a_name(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    own = StreamEdit(find="a", replace="b")
    proxy = wfp_proxy(
        upstream.address, callouts=["monitor,log=none", own, "latency,delay=1ms", "latency,delay=2ms"]
    )
    assert isinstance(proxy.callout("monitor"), Monitor)
    assert proxy.callout("stream_edit") is own
    assert proxy.callout("latency") is not proxy.callout("latency-2")
    with pytest.raises(LookupError, match=r"no callout 'throttle' .* there are: monitor, .*stream_edit"):
        proxy.callout("throttle")


def test_callouts_are_asked_in_the_order_given(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    edits = ["stream_edit,find=a,replace=b", "stream_edit,find=b,replace=c", "stream_edit,find=c,replace=d"]
    proxy = wfp_proxy(upstream.address, callouts=edits)
    client, server = upstream.pair(proxy)
    client.sendall(b"a.b.c.")
    assert read_exactly(server, 6) == b"d.d.d."


class Shout(Callout):
    """What a test writes itself: replaces a byte, on the proxy's thread."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: Any,
    ) -> None:
        self.threads.add(threading.current_thread().name)
        stream = layer_data.stream_data
        if not stream.data_length:
            classify_out.action_type = int(ActionType.PERMIT)
            return
        data = stream.tobytes().upper()
        self.inject(in_meta_values.flow_handle, in_fixed_values.layer_id, stream.flags, data)
        classify_out.action_type = int(ActionType.BLOCK)


def test_a_callout_of_the_test_itself(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    shout = Shout()
    proxy = wfp_proxy(upstream.address, callouts=[shout])
    client, server = upstream.pair(proxy)
    client.sendall(b"hello")
    assert read_exactly(server, 5) == b"HELLO"
    assert len(shout.threads) == 1
    assert shout.threads != {threading.current_thread().name}


class AsksItsProxy(Shout):
    """A callout that calls what only others may call."""

    proxy: WfpProxy
    error = ""

    def classify_fn(self, *args: Any, **kwargs: Any) -> None:
        try:
            self.proxy.reset()
        except RuntimeError as error:
            self.error = str(error)
        super().classify_fn(*args, **kwargs)


def test_a_callout_that_calls_its_own_proxy_is_told(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    asks = AsksItsProxy()
    proxy = asks.proxy = wfp_proxy(upstream.address, callouts=[asks])
    client, server = upstream.pair(proxy)
    client.sendall(b"hello")
    assert read_exactly(server, 5) == b"HELLO"
    assert "the proxy's own thread" in asks.error


@pytest.mark.parametrize(("mode", "shown"), [("off", None), ("preview", 64), ("full", 100)])
def test_payload_in_events_when_asked_for(
    wfp_proxy: ProxyFactory, upstream: Upstream, mode: str, shown: int | None
) -> None:
    proxy = wfp_proxy(upstream.address, callouts=["monitor,log=none"], events_data=mode)
    client, server = upstream.pair(proxy)
    client.sendall(bytes(100))
    read_exactly(server, 100)
    event = proxy.wait_event("indicate", dir="to_upstream", len=100)
    assert (len(event["data"]) if "data" in event else None) == shown


def test_a_connection_that_failed_is_in_the_log(wfp_proxy: ProxyFactory) -> None:
    with refusing_address() as gone:
        proxy = wfp_proxy(gone)
        assert is_turned_away(proxy)
        assert proxy.wait_event("connect_failed")["reason"].startswith("connection refused")
    assert "cannot connect" in proxy.log[0]
    assert proxy.flows == []


def test_an_upstream_that_never_accepts(wfp_proxy: ProxyFactory) -> None:
    """Its backlog is full: nobody is refused, and nobody gets through. Closing does not wait for it."""
    with full_upstream() as full:
        proxy = wfp_proxy(full.address)
        client = full.connect(proxy)
        assert is_silent(client)
        # The proxy may have to accept it first.
        while "on their way to the upstream" not in timed_out(proxy.wait_flow):
            assert proxy.flows == []
        assert "on their way to the upstream" in timed_out(proxy.idle)
        proxy.close()
        assert read_all(client) == (b"", "reset")


def timed_out(wait: Callable[..., object]) -> str:
    """What waiting says when it has waited for a moment."""
    with pytest.raises(TimeoutError) as caught:
        wait(timeout=0.1)
    return str(caught.value)


def test_an_upstream_that_accepts_late(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """Its kernel accepts for it; what the client sends waits there."""
    proxy = wfp_proxy(upstream.address)
    client = upstream.connect(proxy)
    client.sendall(b"early")
    proxy.wait_flow()
    proxy.idle()
    assert read_exactly(upstream.accept(), 5) == b"early"


# --- options --------------------------------------------------------------------------------------


def test_sections_of_the_configuration(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(
        upstream.address,
        limits={"need_more_data": "4KiB"},
        policy={"on_callout_error": "permit"},
        timeouts={"idle": "50ms"},
        engine={"profile": "win8"},
        verify={"level": "strict"},
        name="db",
        callouts=["db:monitor,log=none"],
    )
    options = proxy.engine.options
    assert options.limits.need_more_data == 4096
    assert (options.policy.on_callout_error, options.profile) == ("permit", "win8")
    assert options.verify.level == "strict"
    upstream.pair(proxy)
    flow = proxy.wait_flow(state="closed")
    assert (flow.ended, flow.listener) == ("timeout", "db")


def test_verification_warns_unless_told_otherwise(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    assert wfp_proxy(upstream.address).engine.options.verify.level == "warn"
    assert wfp_proxy(upstream.address, verify="off").engine.options.verify.level == "off"


@pytest.mark.wfpstream(verify="strict")
def test_the_markers_level_holds_unless_the_proxy_has_its_own(
    wfp_proxy: ProxyFactory, upstream: Upstream
) -> None:
    levels = [
        wfp_proxy(upstream.address, verify=verify).engine.options.verify
        for verify in (None, {"callback_budget": "10ms"}, {"level": "off"})
    ]
    assert [verify.level for verify in levels] == ["strict", "strict", "off"]
    assert [verify.callback_budget for verify in levels] == [5, 0.01, 5]


def test_the_local_host_may_be_the_server(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address, callouts=["monitor,log=none"], local="server")
    client, server = upstream.pair(proxy)
    client.sendall(b"in")
    read_exactly(server, 2)
    assert "RECEIVE" in proxy.wait_event("indicate", dir="to_upstream")["flags"]


def test_a_proxy_header_for_the_upstream(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address, send_proxy=1)
    client = upstream.connect(proxy)
    server = upstream.accept()
    own_port = client.getsockname()[1]
    expected = f"PROXY TCP4 127.0.0.1 127.0.0.1 {own_port} {proxy.port}\r\n".encode()
    assert read_exactly(server, len(expected)) == expected


@pytest.mark.parametrize(
    ("arguments", "options", "error", "says"),
    [
        ((("127.0.0.1", 0),), {}, ValueError, "port from 1 to 65535"),
        ((("127.0.0.1", 70000),), {}, ValueError, "port from 1 to 65535"),
        (("no port",), {}, ValueError, "expected HOST:PORT"),
        ((6379,), {}, TypeError, r"upstream is \(host, port\)"),
        ((("h", 1), "monitor"), {}, TypeError, r"write callouts=\['monitor'\]"),
        ((("h", 1), [Monitor]), {}, TypeError, r"write Monitor\(\), an object"),
        ((("h", 1), [3]), {}, TypeError, "a CALLOUT string or a Callout object"),
        ((("h", 1), ["monitr"]), {}, LookupError, "did you mean monitor"),
        ((("h", 1), ["latency,dealy=3"]), {}, ValueError, "delay"),
        ((("h", 1), ["web:monitor"]), {}, ValueError, "no listener 'web' here; it is called 'proxy'"),
        ((("h", 1),), {"limit": 3}, TypeError, "no option 'limit'; there are .*limits"),
        ((("h", 1),), {"limits": {"unset": 3}}, ValueError, "did you mean"),
        ((("h", 1),), {"limits": {"unsent": "much"}}, ValueError, "limits.unsent"),
        ((("h", 1),), {"verify": "hard"}, ValueError, "verify.level"),
        ((("h", 1),), {"events_data": "all"}, ValueError, "'off', 'preview' or 'full'"),
        ((("h", 1),), {"local": "me"}, ValueError, "'client' or 'server'"),
        ((("h", 1),), {"host": "192.0.2.1"}, OSError, "cannot listen on 192.0.2.1"),
    ],
)
def test_what_cannot_be_is_said_in_words(
    wfp_proxy: ProxyFactory,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    threads = threading.active_count()
    with pytest.raises(error, match=says):
        wfp_proxy(*arguments, **options)
    assert threading.active_count() <= threads


def test_the_fixture_is_no_proxy(wfp_proxy: ProxyFactory) -> None:
    with pytest.raises(AttributeError, match=r"proxy = wfp_proxy\(\(host, port\)\), then proxy.port"):
        _ = wfp_proxy.port
    assert not hasattr(wfp_proxy, "_no_such_thing")


def test_many_threads_may_ask_at_once(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    upstream.pair(proxy)
    seen: list[FlowRecord] = []

    def ask() -> None:
        for _ in range(50):
            with proxy.fault("latency,delay=1ms"):
                seen.extend(proxy.flows)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 200
    assert len(set(seen)) == 1
