"""The leak check at the end of a test: what a callout, or a test, did not give back."""

from __future__ import annotations

import socket

import pytest

from tests.pytest_plugin.inner import run, text_of
from wfpstream.pytest_plugin._leaks import open_sockets

PAIR = """
def test_it(wfp_pair):
    pair = wfp_pair([Leaking()])
    pair.client.send(b"abc")
    assert pair.server.receive() == b"abc"
"""
PROXY = """
import socket

@pytest.fixture
def upstream():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server

def talk(proxy, upstream):
    "One connection, from its beginning to its end."
    with socket.create_connection(proxy.address) as client:
        served, _ = upstream.accept()
        with served:
            client.sendall(b"abc")
            assert served.recv(3, socket.MSG_WAITALL) == b"abc"
    proxy.wait_flow(state="closed")
"""


def test_a_clone_that_was_kept_fails_the_test_and_says_where_it_was_made(pytester: pytest.Pytester) -> None:
    """V-23, CLN-9."""
    result = run(pytester, PAIR)
    result.assert_outcomes(passed=1, errors=1)
    assert "pair 1 was left with: Leaking: clone of 3 bytes leaked, made at" in text_of(result)
    assert "test_inner.py:" in text_of(result)


def test_also_over_a_live_proxy(pytester: pytest.Pytester) -> None:
    """V-23."""
    source = "def test_it(wfp_proxy, upstream):\n    talk(wfp_proxy(upstream.getsockname(), [Leaking()]), upstream)"
    result = run(pytester, PROXY + source)
    result.assert_outcomes(passed=1, errors=1)
    assert "was left with: Leaking: clone of 3 bytes leaked, made at" in text_of(result)


def test_a_callout_that_gives_everything_back_is_left_alone(pytester: pytest.Pytester) -> None:
    source = """
def test_it(wfp_proxy, wfp_pair, upstream):
    callouts = ["latency,delay=1ms", "stream_edit,find=a,replace=b,mode=oob", "throttle,rate=1MiB/s"]
    pair = wfp_pair(callouts)
    pair.client.send(b"abc")
    talk(wfp_proxy(upstream.getsockname(), ["monitor,log=none"]), upstream)
"""
    run(pytester, PROXY + source).assert_outcomes(passed=1)


def test_the_check_can_be_switched_off_for_a_test(pytester: pytest.Pytester) -> None:
    run(pytester, f"@pytest.mark.wfpstream(leaks=False)\n{PAIR.strip()}").assert_outcomes(passed=1)


def test_a_connection_left_open_is_named_with_what_to_do(pytester: pytest.Pytester) -> None:
    source = """
def test_it(upstream, wfp_proxy):
    proxy = wfp_proxy(upstream.getsockname())
    client = socket.create_connection(proxy.address)
    proxy.wait_flow()
    globals()["kept"] = client

def test_then():
    kept.close()
"""
    result = run(pytester, PROXY + source)
    result.assert_outcomes(passed=2, errors=1)
    assert "that lived still when the test ended: close it in the test" in text_of(result)


def test_connections_of_a_proxy_that_the_test_closed_itself_are_not_missed(pytester: pytest.Pytester) -> None:
    source = """
def test_it(wfp_proxy, upstream):
    with wfp_proxy(upstream.getsockname()) as proxy:
        client = socket.create_connection(proxy.address)
        proxy.wait_flow()
    client.close()
"""
    run(pytester, PROXY + source).assert_outcomes(passed=1)


def test_a_socket_of_ours_that_is_open_is_found_and_nobody_elses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as client:
            accepted, _ = listener.accept()
            with accepted:
                ours = {(accepted.getsockname(), accepted.getpeername())}
                assert open_sockets(ours) == [
                    f"the socket from {address[0]}:{address[1]} to 127.0.0.1:{client.getsockname()[1]} is still open"
                ]
                # The test's own ends: the same two addresses, the other way round.
                assert open_sockets({(client.getpeername(), ("127.0.0.1", 1))}) == []
            assert open_sockets(ours) == []
        assert open_sockets((), [address]) == [
            f"the socket that listened at {address[0]}:{address[1]} is still open"
        ]
    assert open_sockets((), [address]) == []
