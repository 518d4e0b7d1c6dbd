"""`down`: a proxy that is gone for a while, in three ways, and is at the same port afterwards, which stays ours."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from tests.pytest_plugin.kit import (
    LIMIT,
    SOON,
    Upstream,
    full_upstream,
    in_use,
    is_silent,
    is_turned_away,
    read_all,
    read_exactly,
    took,
    works,
)
from tests.support.hosts import own_host
from wfpstream.pytest_plugin import ProxyFactory, WfpProxy

MODES = ["refuse", "accept_rst", "blackhole"]


def meets(proxy: WfpProxy, mode: str) -> None:
    """A new client is treated as `mode` says."""
    if mode == "refuse":
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(proxy.address, LIMIT)
    elif mode == "accept_rst":
        assert is_turned_away(proxy)
    else:
        with pytest.raises(TimeoutError):
            socket.create_connection(proxy.address, 0.05)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("live", ["reset", "keep"])
def test_down_and_up_again(wfp_proxy: ProxyFactory, upstream: Upstream, mode: Any, live: Any) -> None:
    proxy = wfp_proxy(upstream.address)
    address = proxy.address
    for _ in range(3):
        pair = upstream.pair(proxy)
        with proxy.down(mode, live):
            if live == "keep":
                works(pair)
            else:
                assert read_all(pair.client) == (b"", "reset")
                assert read_all(pair.server) == (b"", "reset")
            meets(proxy, mode)
            meets(proxy, mode)
        assert proxy.address == address
        works(upstream.pair(proxy))
        if live == "keep":
            works(pair)


def test_refusing_and_resetting_is_what_down_means_without_more(
    wfp_proxy: ProxyFactory, upstream: Upstream
) -> None:
    proxy = wfp_proxy(upstream.address)
    pair = upstream.pair(proxy)
    with proxy.down():
        assert proxy.flows[0].ended == "abort"
        assert read_all(pair.client)[1] == "reset"
        meets(proxy, "refuse")
    works(upstream.pair(proxy))


def test_it_takes_milliseconds_and_is_in_force_then(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    for mode in MODES * 5:
        pairs = [upstream.pair(proxy) for _ in range(3)]
        down: Any = None

        def go(mode: Any = mode) -> None:
            nonlocal down
            down = proxy.down(mode)

        assert took(go) < SOON
        meets(proxy, mode)
        assert took(down.remove) < SOON
        works(upstream.pair(proxy))
        for pair in pairs:
            assert read_all(pair.client)[1] == "reset"


def test_who_was_ignored_gets_through_in_the_end(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """A blackhole that recovers: the client's TCP tries again by itself."""
    proxy = wfp_proxy(upstream.address)
    connected: list[socket.socket] = []

    def connect() -> None:
        connected.append(upstream.connect(proxy))

    thread = threading.Thread(target=connect)
    with proxy.down("blackhole"):
        thread.start()
        with pytest.raises(TimeoutError):
            proxy.wait_flow(timeout=0.1)
    thread.join()
    [client] = connected
    server = upstream.accept()
    client.sendall(b"late")
    assert read_exactly(server, 4) == b"late"


def test_nobody_else_can_have_the_port(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    """Not while it is down, not around its edges: the port is never given back and taken again."""
    proxy = wfp_proxy(upstream.address)
    stop = threading.Event()
    stolen: list[str] = []

    def steal() -> None:
        while not stop.is_set():
            for reuse in (0, 1):
                with socket.socket() as thief:
                    thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                    try:
                        thief.bind(proxy.address)
                        thief.listen()
                    except OSError as error:
                        if in_use(error):
                            continue
                        raise
                    stolen.append(f"with SO_REUSEADDR={reuse}")

    thieves = [threading.Thread(target=steal) for _ in range(2)]
    for thief in thieves:
        thief.start()
    pair = upstream.pair(proxy)
    try:
        for _ in range(50):
            with proxy.down(live="keep"):
                pass
        with proxy.down():
            assert read_all(pair.server)[1] == "reset"
    finally:
        stop.set()
        for thief in thieves:
            thief.join()
    assert stolen == []
    works(upstream.pair(proxy))


def test_the_port_is_free_when_the_proxy_is_closed(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address, host=own_host())
    proxy.down()
    proxy.close()
    with socket.socket() as heir:
        heir.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        heir.bind(proxy.address)
        heir.listen()


def test_several_at_once_the_last_counts(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    refused = proxy.down("refuse")
    reset = proxy.down("accept_rst")
    meets(proxy, "accept_rst")
    with proxy.down("blackhole"):
        meets(proxy, "blackhole")
        reset.remove()
        meets(proxy, "blackhole")
    meets(proxy, "refuse")
    refused.remove()
    refused.remove()
    works(upstream.pair(proxy))


def test_it_comes_up_when_the_test_fails(wfp_proxy: ProxyFactory, upstream: Upstream) -> None:
    proxy = wfp_proxy(upstream.address)
    with pytest.raises(ZeroDivisionError), proxy.down():
        raise ZeroDivisionError
    works(upstream.pair(proxy))


def test_connections_on_their_way_are_reset_too(wfp_proxy: ProxyFactory) -> None:
    with full_upstream() as full:
        proxy = wfp_proxy(full.address)
        client = full.connect(proxy)
        assert is_silent(client)
        with proxy.down():
            assert read_all(client) == (b"", "reset")
        proxy.idle()


@pytest.mark.parametrize(
    ("mode", "live", "says"), [("closed", "reset", "mode is one of refuse"), ("refuse", "drop", "'keep'")]
)
def test_what_cannot_be_is_said_in_words(
    wfp_proxy: ProxyFactory, upstream: Upstream, mode: Any, live: Any, says: str
) -> None:
    proxy = wfp_proxy(upstream.address)
    with pytest.raises(ValueError, match=says):
        proxy.down(mode, live)
    works(upstream.pair(proxy))
