"""`wfp_proxy` in whole sessions: beside other plugins or alone, over several processes, quiet, cheap when not used."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from tests.pytest_plugin.sessions import run_session

SYNC = """
def test_sync(wfp_proxy, echo):
    proxy = wfp_proxy(echo, callouts=["stream_edit,find=a,replace=b,direction=to_upstream"])
    with socket.create_connection(proxy.address, 30) as client:
        client.sendall(b"a")
        assert client.recv(1) == b"b"
        assert proxy.wait_flow(timeout=30).sent == 1
        with proxy.stalled("to_client"):
            client.sendall(b"c")
            proxy.wait_event("defer", timeout=30)
        assert client.recv(1) == b"c"
"""

ASYNC = """
async def use(wfp_proxy, echo):
    proxy = wfp_proxy(echo)
    with pytest.raises(RuntimeError, match=r"await proxy\\.idle_async"):
        proxy.idle()
    with proxy.fault("latency,delay=1ms"):
        with socket.create_connection(proxy.address, 30) as client:
            client.sendall(b"a")
            flow = await proxy.wait_flow_async(timeout=30)
            await proxy.wait_event_async("inject_complete", dir="to_client", timeout=30)
            assert client.recv(1) == b"a"
    assert (await proxy.wait_flow_async(state="closed", timeout=30)) is flow
    await proxy.idle_async(timeout=30)
    async with wfp_proxy(echo) as other:
        await other.idle_async(timeout=30)
"""

WITH = {
    "trio": "@pytest.mark.trio\nasync def test_trio(wfp_proxy, echo):\n    await use(wfp_proxy, echo)\n",
    "asyncio": "@pytest.mark.asyncio\nasync def test_asyncio(wfp_proxy, echo):\n    await use(wfp_proxy, echo)\n",
    "anyio": "@pytest.mark.anyio\nasync def test_anyio(wfp_proxy, echo):\n    await use(wfp_proxy, echo)\n",
}
BY_HAND = """
def test_by_hand(wfp_proxy, echo):
    import asyncio, trio
    asyncio.run(use(wfp_proxy, echo))
    trio.run(use, wfp_proxy, echo)
"""


@pytest.mark.parametrize("plugins", [(), ("trio",), ("asyncio",), ("anyio",), ("anyio", "asyncio", "xdist")])
def test_beside_other_plugins_and_alone(tmp_path: Path, plugins: tuple[str, ...]) -> None:
    tests = "\n".join(WITH[plugin] for plugin in plugins if plugin in WITH)
    session = run_session(tmp_path, SYNC + ASYNC + BY_HAND + tests, plugins=plugins)
    assert session.code == 0, session.out + session.err
    count = 2 + sum({"anyio": 2, "xdist": 0}.get(plugin, 1) for plugin in plugins)
    assert f"{count} passed" in session.out


def test_spread_over_processes(tmp_path: Path) -> None:
    """Each process has its own proxies, the session's too, at ports of their own."""
    source = """
    @pytest.mark.parametrize("number", range(6))
    def test_it(wfp_proxy, wfp_proxy_session, echo, number):
        for proxy in (wfp_proxy(echo), wfp_proxy_session(echo)):
            with socket.create_connection(proxy.address, 30) as client, proxy.fault("latency,delay=1ms"):
                client.sendall(b"a")
                assert client.recv(1) == b"a"
            assert proxy.wait_flow(state="closed", timeout=30).ended == "fin"
    """
    session = run_session(tmp_path, source, "-n", "2", plugins=("xdist",))
    assert session.code == 0, session.out + session.err
    assert "6 passed" in session.out


def test_a_sessions_proxy_between_tests(tmp_path: Path) -> None:
    source = """
    @pytest.fixture(scope="session")
    def proxy(wfp_proxy_session, echo):
        return wfp_proxy_session(echo)

    @pytest.fixture(autouse=True)
    def fresh(wfp_proxy_session):
        yield
        wfp_proxy_session.reset()

    ports = set()

    @pytest.mark.parametrize("number", range(3))
    def test_it(proxy, number):
        ports.add(proxy.port)
        assert proxy.flows == []
        client = socket.create_connection(proxy.address, 30)
        with client:
            client.sendall(b"a")
            assert client.recv(1) == b"a"
            proxy.stalled()
            proxy.down(live="keep")
            assert [flow.id for flow in proxy.flows] == [number + 1]

    def test_it_was_one(proxy):
        assert ports == {proxy.port}
    """
    session = run_session(tmp_path, source)
    assert session.code == 0, session.out + session.err


def test_a_session_that_uses_nothing_of_it_loads_nothing(tmp_path: Path) -> None:
    """Neither trio nor the engine, nor anything else that takes time."""
    source = """
    def test_it():
        import sys
        ours = {name for name in sys.modules if name.startswith("wfpstream")}
        heavy = {"trio", "scapy", "msgspec", "click", "rich", "hypothesis"} & set(sys.modules)
        assert not heavy
        assert not {name for name in ours if not name.startswith("wfpstream.pytest_plugin")} - {"wfpstream"}
        assert "asyncio" not in sys.modules
    """
    session = run_session(tmp_path, source)
    assert session.code == 0, session.out + session.err


def test_it_is_quiet(tmp_path: Path) -> None:
    """Whatever becomes of connections: nothing is printed that nobody asked for."""
    source = """
    def test_it(wfp_proxy, echo):
        nobody = socket.create_server(("127.0.0.1", 0))
        for upstream in (echo, nobody.getsockname()):
            proxy = wfp_proxy(upstream, callouts=["latency,delay=1ms"])
            with socket.create_connection(proxy.address, 30) as client:
                client.sendall(b"a")
                proxy.wait_flow(timeout=30)
                proxy.reset()
            with proxy.down(), pytest.raises(ConnectionRefusedError):
                socket.create_connection(proxy.address, 30)
        nobody.close()
        with pytest.raises(ConnectionResetError), socket.create_connection(proxy.address, 30) as client:
            client.recv(1)
        proxy.wait_event("connect_failed", timeout=30)
    """
    session = run_session(tmp_path, source, "-s")
    assert session.code == 0, session.out + session.err
    assert session.err == ""
    assert session.out.splitlines()[0].startswith(".")


HANGING = """
import time
from wfpstream.fwps import Callout

class Hanging(Callout):
    def classify_fn(self, *args):
        self.wait_for_ever()

    def wait_for_ever(self):
        {how}
"""

HANG = """
def test_hangs(wfp_proxy, echo):
    proxy = wfp_proxy(echo, callouts=[Hanging()], timeout=2)
    client = socket.create_connection(proxy.address)
    client.sendall(b"a")
    assert client.recv(1) == b""       # without a limit: it is freed
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(proxy.address)
    assert "hung" in repr(proxy)
    with pytest.raises(RuntimeError, match="callout Hanging"):
        proxy.reset()
    client.close()
"""

WAITS = """
def test_waits(wfp_proxy, echo):
    proxy = wfp_proxy(echo, callouts=[Hanging()], timeout=2)
    with socket.create_connection(proxy.address) as client:
        client.sendall(b"a")
        proxy.wait_event("ledger_fault", timeout=1000)
"""


@pytest.mark.parametrize("how", ["time.sleep(1000)", "while True: pass", "threading.Event().wait(1000)"])
def test_a_callout_that_hangs(tmp_path: Path, how: str) -> None:
    """The test goes on, fails, and hears where; the tests behind it are not harmed."""
    session = run_session(tmp_path, HANGING.format(how=how) + HANG + SYNC)
    text = session.out + session.err
    assert session.code == 1, text
    assert "2 passed, 1 error" in session.out, text
    assert "ERROR at teardown of test_hangs" in session.out
    assert "callout Hanging, in Hanging.classify_fn, has kept the proxy's thread for 2 s" in session.out
    assert "in wait_for_ever" in session.out
    assert str(tmp_path / "test_inner.py") in session.out
    assert "cannot be rescued" in session.out


def test_a_callout_that_hangs_while_the_proxy_starts(tmp_path: Path) -> None:
    """Who starts the proxy hears of it, and the tests behind it are not harmed."""
    source = """
    class HangsAtOnce(Hanging):
        def notify_fn(self, *args):
            self.wait_for_ever()

    def test_starts(wfp_proxy, echo):
        wfp_proxy(echo, callouts=[HangsAtOnce()], timeout=2)
    """
    session = run_session(tmp_path, HANGING.format(how="time.sleep(1000)") + dedent(source) + SYNC)
    assert session.code == 1
    assert "1 failed, 1 passed" in session.out, session.out + session.err
    assert "ProxyHung: wfp_proxy: callout HangsAtOnce, in HangsAtOnce.notify_fn, has kept" in session.out
    assert "Traceback" not in session.err


def test_whoever_waits_for_a_proxy_that_hangs_hears_of_it(tmp_path: Path) -> None:
    session = run_session(tmp_path, HANGING.format(how="time.sleep(1000)") + WAITS + SYNC)
    assert session.code == 1
    assert "1 failed, 1 passed, 1 error" in session.out, session.out + session.err
    assert "ProxyHung" in session.out


def test_a_callout_that_is_only_slow_is_none_that_hangs(tmp_path: Path) -> None:
    source = """
    def test_slow(wfp_proxy, echo):
        for timeout in (5, 0):
            proxy = wfp_proxy(echo, callouts=[Hanging()], timeout=timeout)
            with socket.create_connection(proxy.address) as client:
                client.sendall(b"a")
                assert proxy.wait_event("slow_callback", timeout=30)["callout"] == "Hanging"
            proxy.close()
            assert proxy.hung is None
    """
    session = run_session(tmp_path, HANGING.format(how="time.sleep(0.2)") + dedent(source))
    assert session.code == 0, session.out + session.err


def test_a_test_that_forgets_to_close(tmp_path: Path) -> None:
    """Neither its connections nor its proxies keep the session: they are closed, and the connections named."""
    source = """
    kept = []

    def test_forgets(wfp_proxy, echo):
        proxy = wfp_proxy(echo)
        kept.append(socket.create_connection(proxy.address, 30))
        kept[0].sendall(b"a")
        assert kept[0].recv(1) == b"a"
        kept.append(proxy)
        proxy.stalled()

    def test_next():
        client, proxy = kept
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        client.close()
        assert proxy.is_closed
        assert [flow.ended for flow in proxy.left_open] == ["stop"]
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("wfp_proxy")]
    """
    session = run_session(tmp_path, source)
    assert "2 passed, 1 error" in session.out, session.out + session.err
    assert "a connection of 127.0.0.1:" in session.out
    assert "that lived still when the test ended" in session.out


def test_a_fork_is_told_where_the_proxy_is(tmp_path: Path) -> None:
    source = """
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_it(wfp_proxy, echo):
        import os
        proxy = wfp_proxy(echo)
        if not os.fork():
            try:
                proxy.reset()
            except RuntimeError as error:
                os._exit(0 if "runs in the process that started it" in str(error) else 2)
            os._exit(1)
        assert os.wait()[1] == 0
    """
    session = run_session(tmp_path, source)
    assert session.code == 0, session.out + session.err


def test_a_fixture_of_a_larger_scope_needs_the_sessions(tmp_path: Path) -> None:
    source = """
    @pytest.fixture(scope="module")
    def proxy(wfp_proxy, echo):
        return wfp_proxy(echo)

    def test_it(proxy):
        pass
    """
    session = run_session(tmp_path, source)
    assert session.code == 1
    assert "ScopeMismatch" in session.out


def test_the_fixtures_are_described(tmp_path: Path) -> None:
    session = run_session(tmp_path, "", "--fixtures")
    assert "wfp_proxy_session [session scope]" in session.out
    assert "Starts TCP proxies whose faults and edits a test controls" in session.out
