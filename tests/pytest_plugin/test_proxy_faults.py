"""What users of other fault proxies suffer from, each as a test: nothing of it happens here.

Faults miss live connections, hang when they are taken away, close what they should have let go on, lose bytes, act
although their probability is 0, choose other connections each time, or need a server to be built for a new one.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pytest_plugin.kit import (
    LIMIT,
    SOON,
    Pair,
    Upstream,
    is_silent,
    is_turned_away,
    read_all,
    read_exactly,
    reset,
    send_until_blocked,
    took,
    works,
)
from wfpstream.callouts import Latency, StreamEdit
from wfpstream.fwp import ActionType, CalloutFlags
from wfpstream.fwps import Callout, OutOfBandCallout, Worker
from wfpstream.pytest_plugin import Change, ProxyFactory, WfpProxy

# More than a sender and a receiver have room for between them, however large the kernel lets that become.
PLENTY = 1 << 28

RECOVERABLE = [
    "latency,delay=20ms",
    "latency,delay=30s",
    "throttle,rate=10kB/s",
    "fault,do=slice,size=7",
    "fault,do=stall",
    "fault,do=stall,for=10ms",
    "framer,by=line,limit=64",
    "stream_edit,find=never there,replace=x",
    "stream_edit,find=never there,replace=x,mode=oob",
    "monitor,log=none",
    "pend_fin,delay=30s",
]


@contextmanager
def pumping(sender: socket.socket, receiver: socket.socket, burst: int = 20) -> Iterator[Callable[[], bytes]]:
    """Numbered lines all the while, so many at once; the result ends it, and gives what has arrived.

    The first of them has arrived when the block begins.
    After a few thousand they come slowly: on a machine that has other things to do "all the while" is long.
    """
    stop, has_begun = threading.Event(), threading.Event()
    sent = bytearray()
    received = bytearray()

    def send() -> None:
        number = 0
        while not stop.is_set():
            line = b"%d\n" % number
            try:
                sender.sendall(line)
            except OSError:
                return
            sent.extend(line)
            number += 1
            if number > 4_000:
                stop.wait(0.005)
            elif not number % burst:
                stop.wait(0.001)
        sender.shutdown(socket.SHUT_WR)

    def receive() -> None:
        received.extend(read_exactly(receiver, 2))
        has_begun.set()
        received.extend(read_all(receiver)[0])

    threads = [threading.Thread(target=send), threading.Thread(target=receive)]
    for thread in threads:
        thread.start()

    def finish() -> bytes:
        stop.set()
        for thread in threads:
            thread.join(2 * LIMIT)
        assert not any(thread.is_alive() for thread in threads), "the stream stands still"
        assert bytes(received) == bytes(sent)
        return bytes(received)

    try:
        assert has_begun.wait(LIMIT)
        yield finish
    finally:
        stop.set()
        for thread in threads:
            thread.join(2 * LIMIT)


# --- in force, at once, for everybody -----------------------------------------------------------------


def test_live_connections_get_the_fault_too(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    old = upstream.pair(proxy)
    works(old)
    with proxy.fault("stream_edit,find=rainy,replace=sunny"):
        new = upstream.pair(proxy)
        for pair in (old, new):
            pair.client.sendall(b"rainy")
            assert read_exactly(pair.server, 5) == b"sunny"
    for pair in (old, new):
        pair.client.sendall(b"rainy")
        assert read_exactly(pair.server, 5) == b"rainy"


def test_the_first_byte_after_the_call_meets_the_fault(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """And the first one after its end does not; a hundred times in a row."""
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    for _ in range(100):
        with proxy.fault("stream_edit,find=a,replace=b"):
            client.sendall(b"a")
            assert server.recv(1) == b"b"
        client.sendall(b"a")
        assert server.recv(1) == b"a"


def test_a_fault_given_at_the_start_meets_the_first_connection(
    wfp_proxy: ProxyFactory, upstream: Upstream
) -> None:
    proxy = wfp_proxy(upstream.address, callouts=["fault,do=rst,after=2,direction=to_upstream"])
    client, server = upstream.pair(proxy)
    client.sendall(b"abcd")
    assert read_all(server) == (b"ab", "reset")
    assert read_all(client)[1] == "reset"


@pytest.mark.parametrize("callout", RECOVERABLE)
def test_adding_and_taking_back_takes_milliseconds(
    wfp_proxy: ProxyFactory, upstream: Upstream, callout: str
) -> None:
    """Also with bytes held, and with a receiver that takes none."""
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    assert send_until_blocked(client, PLENTY) < PLENTY
    began = time.monotonic()
    with proxy.fault(callout):
        server.sendall(b"x" * 1000)
    with proxy.stalled():
        pass
    assert time.monotonic() - began < SOON
    assert read_exactly(client, 1000) == b"x" * 1000
    client.close()
    server.close()


# --- taken back: nothing is lost, nothing is closed -----------------------------------------------------


@pytest.mark.parametrize("callout", RECOVERABLE)
def test_nothing_is_lost_when_a_fault_comes_and_goes(
    wfp_proxy: ProxyFactory, upstream: Upstream, callout: str
) -> None:
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    with pumping(client, server) as up, pumping(server, client) as down:
        for _ in range(10):
            with proxy.fault(callout):
                time.sleep(0.005)
            time.sleep(0.005)
        assert up()
        assert down()
    assert proxy.wait_flow(state="closed").ended == "fin"


def test_nothing_is_lost_when_many_faults_overlap(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """Taken back in another order than they were made."""
    # Two dozen stages that slice take their time on a machine that has other things to do: that is no hang, and
    # a line at a time is enough for them.
    proxy = wfp_proxy(upstream.address, timeout=60)
    client, server = upstream.pair(proxy)
    with pumping(client, server, burst=1) as up, pumping(server, client, burst=1) as down:
        for first in range(0, len(RECOVERABLE), 3):
            added = [proxy.fault(callout) for callout in RECOVERABLE]
            time.sleep(0.005)
            for index in range(len(added)):
                added[(first + 3 * index) % len(added)].remove()
        assert up()
        assert down()


steps = st.one_of(
    st.tuples(st.just("fault"), st.sampled_from(RECOVERABLE)),
    st.tuples(st.just("stall"), st.sampled_from(["to_client", "to_upstream", "both"])),
    st.tuples(st.just("down"), st.sampled_from(["refuse", "accept_rst", "blackhole"])),
    st.tuples(st.just("take back"), st.integers(0, 9)),
    st.tuples(st.just("send"), st.integers(0, 1)),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(steps, max_size=14), local=st.sampled_from(["client", "server"]))
def test_whatever_is_done_and_taken_back_every_byte_arrives(
    wfp_proxy: ProxyFactory, upstream: Upstream, steps: list[tuple[str, Any]], local: str
) -> None:
    # A callback's time goes by the clock, and is not what is tested here.
    verify = {"level": "strict", "callback_budget": "1000s"}
    with wfp_proxy(upstream.address, local=local, verify=verify) as proxy:
        pair = upstream.pair(proxy)
        sent = [bytearray(), bytearray()]
        changes: list[Change] = []
        for number, (what, which) in enumerate(steps):
            if what == "fault":
                changes.append(proxy.fault(which))
            elif what == "stall":
                changes.append(proxy.stalled(which))
            elif what == "down":
                changes.append(proxy.down(which, live="keep"))
            elif what == "take back" and changes:
                changes.pop(which % len(changes)).remove()
            elif what == "send":
                data = b"%d: " % number + bytes(range(256)) * (number % 3)
                pair[which].sendall(data)
                sent[which] += data
        for change in changes:
            change.remove()
        for sock in pair:
            sock.shutdown(socket.SHUT_WR)
        assert read_all(pair.server) == (bytes(sent[0]), "fin")
        assert read_all(pair.client) == (bytes(sent[1]), "fin")
        assert proxy.violations() == []
        for sock in pair:
            sock.close()


@pytest.mark.parametrize("local", ["client", "server"])
@pytest.mark.parametrize("direction", ["to_client", "to_upstream", "both"])
def test_a_stall_recovers(wfp_proxy: ProxyFactory, upstream: Upstream, direction: Any, local: str) -> None:
    """It turns into no close, neither when it begins nor when it ends."""
    proxy = wfp_proxy(upstream.address, local=local)
    pair = upstream.pair(proxy)
    works(pair)
    stalled = {"to_client": [(1, 0)], "to_upstream": [(0, 1)], "both": [(0, 1), (1, 0)]}[direction]
    for _ in range(3):
        with proxy.stalled(direction):
            for sender, receiver in ((0, 1), (1, 0)):
                pair[sender].sendall(b"held")
                if (sender, receiver) in stalled:
                    assert is_silent(pair[receiver])
                    way = "to_upstream" if sender == 0 else "to_client"
                    proxy.wait_event("indicate", callout="stall", dir=way)  # as the guide has it
                else:
                    assert read_exactly(pair[receiver], 4) == b"held"
        for _, receiver in stalled:
            assert read_exactly(pair[receiver], 4) == b"held"
        works(pair)


@pytest.mark.parametrize("data", [b"", b"last"])
@pytest.mark.parametrize("ends", [(0, 1), (1, 0)])
def test_a_stall_holds_the_end_of_a_stream_as_well(
    wfp_proxy: ProxyFactory, upstream: Upstream, ends: tuple[int, int], data: bytes
) -> None:
    proxy = wfp_proxy(upstream.address)
    pair = upstream.pair(proxy)
    sender, receiver = (pair[index] for index in ends)
    with proxy.stalled():
        sender.sendall(data)
        sender.shutdown(socket.SHUT_WR)
        assert is_silent(receiver)
    assert read_all(receiver) == (data, "fin")
    receiver.sendall(b"answer")
    assert read_exactly(sender, 6) == b"answer"


def test_a_stall_of_a_stream_that_stays_silent(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    pair = upstream.pair(proxy)
    with proxy.stalled():
        pass
    works(pair)
    with proxy.stalled(), proxy.stalled("to_client"), proxy.stalled("to_upstream"):
        pair.server.sendall(b"once")
        assert is_silent(pair.client)
    assert read_exactly(pair.client, 4) == b"once"


def test_a_stall_within_a_stall(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    outer = proxy.stalled("to_client")
    server.sendall(b"1")
    inner = proxy.stalled("to_client")
    server.sendall(b"2")
    outer.remove()
    assert is_silent(client)
    inner.remove()
    assert read_exactly(client, 2) == b"12"


@pytest.mark.parametrize("direction", ["to_client", "to_upstream"])
def test_a_stall_holds_the_sender_up_and_takes_no_memory_for_it(
    wfp_proxy: ProxyFactory, upstream: Upstream, direction: Any
) -> None:
    proxy = wfp_proxy(upstream.address)
    pair = upstream.pair(proxy)
    sender, receiver = pair if direction == "to_upstream" else (pair.server, pair.client)
    with proxy.stalled(direction):
        taken = send_until_blocked(sender, PLENTY)
        assert taken < PLENTY
        assert proxy.flows[0].sent + proxy.flows[0].received < 2 << 20
    sender.shutdown(socket.SHUT_WR)
    data, end = read_all(receiver)
    assert (len(data), end) == (taken, "fin")


def test_a_reset_passes_a_stall(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """Whoever is gone is gone: nobody could use what is held."""
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    with proxy.stalled():
        reset(server)
        assert read_all(client) == (b"", "reset")
    assert proxy.wait_flow(state="closed").ended == "rst_upstream"


def test_half_open_only_one_direction_is_dead(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """`blackhole` of one direction: lost, as asked for, and the other one works."""
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    with proxy.fault("fault,do=blackhole,direction=to_upstream"):
        client.sendall(b"into the void")
        while proxy.flows[0].sent < len(b"into the void"):
            continue
        server.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"
        assert is_silent(server)
    client.sendall(b"again")
    assert read_exactly(server, 5) == b"again"


# --- the faults themselves ----------------------------------------------------------------------------


def test_latency_in_one_direction_only(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    with proxy.fault("latency,delay=60s,direction=to_client"):
        client.sendall(b"question")
        assert read_exactly(server, 8) == b"question"
        server.sendall(b"answer")
        assert is_silent(client)
    assert read_exactly(client, 6) == b"answer"


def test_latency_is_at_least_what_was_asked_for(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address, callouts=["latency,delay=80ms,direction=to_client"])
    client, server = upstream.pair(proxy)

    def answered() -> None:
        server.sendall(b"x")
        assert read_exactly(client, 1) == b"x"

    assert took(answered) > 0.05


def test_cut_after_some_time(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    upstream.pair(proxy)
    with proxy.fault("fault,do=rst,at=20ms"):
        assert is_turned_away(proxy)
        assert read_all(upstream.accept())[1] == "reset"


@pytest.mark.parametrize("callout", ["fault,do=rst,after=0", "pattern_drop,find=x"])
def test_after_a_reset_new_connections_are_welcome(
    wfp_proxy: ProxyFactory, upstream: Upstream, callout: str
) -> None:
    proxy = wfp_proxy(upstream.address)
    for _ in range(3):
        with proxy.fault(callout):
            client, server = upstream.pair(proxy)
            client.sendall(b"x")
            assert read_all(client) == (b"", "reset")
            assert read_all(server) == (b"", "reset")
        works(upstream.pair(proxy))


def test_a_cut_connection_is_reset_on_both_sides(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    pairs = [upstream.pair(proxy) for _ in range(5)]
    proxy.reset()
    # In force when the call returns: the flows are gone. Both ends are told by the kernel, mostly at once.
    assert [flow.ended for flow in proxy.flows] == ["abort"] * 5
    for pair in pairs:
        for sock in pair:
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
    works(upstream.pair(proxy))


@pytest.mark.parametrize("how", [WfpProxy.reset, WfpProxy.down])
def test_who_has_connected_a_moment_ago_is_reset_too(
    wfp_proxy: ProxyFactory, upstream: Upstream, how: Callable[[WfpProxy], Any]
) -> None:
    """The proxy may not have accepted it yet, or be on its way to the upstream."""
    proxy = wfp_proxy(upstream.address)
    for _ in range(50):
        client = upstream.connect(proxy)
        change = how(proxy)
        assert read_all(client) == (b"", "reset")
        if change is not None:
            change.remove()
    assert {flow.ended for flow in proxy.flows} <= {"abort"}


def test_probability_0_never_acts(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address, callouts=["fault,do=rst,after=0,probability=0"])
    for _ in range(20):
        works(upstream.pair(proxy))


def hit(proxy: WfpProxy, upstream: Upstream, size: int) -> list[bool]:
    """Which of a dozen connections were reset."""
    found = []
    for _ in range(12):
        client, server = upstream.pair(proxy)
        client.sendall(bytes(size))
        found.append(read_all_of(server, size) == "reset")
        client.close()
        server.close()
    return found


def read_all_of(sock: socket.socket, size: int) -> str:
    try:
        read_exactly(sock, size)
    except ConnectionResetError:
        return "reset"
    return "all"


def test_a_seed_chooses_the_same_connections_each_time(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    half = "fault,do=rst,after=0,probability=0.5"
    first = hit(wfp_proxy(upstream.address, callouts=[f"{half},seed=7"]), upstream, 1)
    again = hit(wfp_proxy(upstream.address, callouts=[f"{half},seed=7"]), upstream, 1000)
    other = hit(wfp_proxy(upstream.address, callouts=[f"{half},seed=8"]), upstream, 1)
    assert first == again
    assert first != other
    assert {True, False} == set(first)


# --- callouts of the test ------------------------------------------------------------------------------


class Shouting(Worker):
    """Capital letters, in its own time."""

    async def run(self) -> None:
        while True:
            item = await self.next()
            if item.kind == "end":
                await self.inject_fin()
                return
            if item.kind != "data":
                return
            item.release()
            if not self.draining:
                await self.sleep(30)
            await self.inject(item.data.upper())


class Shout(OutOfBandCallout):
    """Out of band, and slow on purpose."""

    worker_class = Shouting
    flags = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)


def test_what_a_callout_of_the_test_holds_is_drained(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    with proxy.add_callout(Shout()):
        client.sendall(b"held back")
        assert is_silent(server)
    assert read_exactly(server, 9).lower() == b"held back"
    client.sendall(b"and free")
    assert read_exactly(server, 8) == b"and free"


class Counter(Callout):
    """Counts what it is shown, and holds nothing: it has nothing to drain."""

    flags = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)
    count = 0

    def classify_fn(self, *args: Any) -> None:
        self.count += 1
        args[-1].action_type = int(ActionType.PERMIT)


class Gatekeeper(Callout):
    """Decides about connections, not about bytes."""

    layers = ("ale_auth_connect",)

    def classify_fn(self, *args: Any) -> None:
        args[-1].action_type = int(ActionType.BLOCK)


def test_a_callout_at_another_layer(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    with proxy.add_callout(Gatekeeper()):
        assert is_turned_away(proxy)
        assert proxy.wait_event("flow_blocked")["callout"] == "Gatekeeper"
    works(upstream.pair(proxy))


def test_one_object_may_be_added_again(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    pair = upstream.pair(proxy)
    counter = Counter()
    for number in range(1, 4):
        with proxy.add_callout(counter) as added:
            assert added.callout is counter
            works(pair)
        works(pair)
        assert counter.count == 2 * number


def test_an_object_that_has_drained_is_refused_in_words(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """All built-in ones drain for good: added again they would do nothing, and nobody would know."""
    proxy = wfp_proxy(upstream.address)
    latency = Latency(delay="60s")
    with proxy.add_callout(latency):
        pass
    with pytest.raises(ValueError, match=r"was taken back .* make a new one"):
        proxy.add_callout(latency)


def test_an_object_at_work_in_another_proxy_is_refused_in_words(
    wfp_proxy: ProxyFactory, upstream: Upstream
) -> None:
    """What it injects into the first one's connections would be the second one's."""
    edit = StreamEdit(find="rainy", replace="sunny")
    first = wfp_proxy(upstream.address, callouts=[edit])
    with pytest.raises(ValueError, match="this StreamEdit is at work in another engine"):
        wfp_proxy(upstream.address, callouts=[edit])
    second = wfp_proxy(upstream.address)
    with pytest.raises(ValueError, match=r"give each engine .* an object of its own"):
        second.add_callout(edit)
    first.close()
    second.add_callout(edit)  # nobody has it any more


def test_a_fault_is_taken_back_when_its_test_fails(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    client, server = upstream.pair(proxy)
    with pytest.raises(ZeroDivisionError), proxy.stalled():
        client.sendall(b"x")
        raise ZeroDivisionError
    assert server.recv(1) == b"x"


def test_a_handle_says_what_it_is_and_is_taken_back_once(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    handle = proxy.add_callout("monitor,log=none")
    assert handle.is_active
    assert repr(handle) == "<callout monitor>"
    assert proxy.callout("monitor") is handle.callout
    handle.remove()
    handle.remove()
    assert "taken back" in repr(handle)
    with pytest.raises(RuntimeError, match=r"callout monitor, taken back.*: make a new one"), handle:
        pass
    with pytest.raises(LookupError):
        proxy.callout("monitor")


@pytest.mark.parametrize("wrong", ["latncy", "latency,delay=fast", "fault", "", "web:monitor"])
def test_a_fault_that_cannot_be_changes_nothing(
    wfp_proxy: ProxyFactory, upstream: Upstream, wrong: str
) -> None:
    proxy = wfp_proxy(upstream.address)
    pair = upstream.pair(proxy)
    with pytest.raises((ValueError, LookupError)):
        proxy.fault(wrong)
    with pytest.raises(ValueError, match="direction is one of"):
        proxy.stalled("upward")  # type: ignore[arg-type]
    works(pair)


# --- between the tests of a session --------------------------------------------------------------------


def test_restore_takes_everything_back(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address, callouts=["stream_edit,find=ping,replace=PING"])
    old: Pair = upstream.pair(proxy)
    proxy.stalled()
    proxy.fault("fault,do=rst,after=0")
    proxy.down("blackhole", live="keep")
    assert proxy.events
    proxy.restore()
    assert read_all(old.client)[1] == "reset"
    assert proxy.flows == []
    assert proxy.log == []
    client, server = upstream.pair(proxy)
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"PING"
    assert [flow.state for flow in proxy.flows] == ["established"]


def test_the_sessions_factory_resets_all_of_its_proxies(
    upstream: Upstream, pytestconfig: pytest.Config
) -> None:
    factory = ProxyFactory(pytestconfig)
    one, two = (factory(upstream.address) for _ in range(2))
    closed = factory(upstream.address)
    closed.close()
    stall = one.stalled()
    upstream.pair(two)
    factory.reset()
    assert not stall.is_active
    assert one.flows == two.flows == []
    works(upstream.pair(one))
    with pytest.raises(AttributeError, match="proxy = wfp_proxy_session"):
        factory.fault("monitor")
    factory.finish()
