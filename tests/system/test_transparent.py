"""Interception end to end: three hosts, a web server that knows of no proxy, and `wfpstream run` on the router.

Client, proxy and server are network namespaces; curl and the web server are ordinary programs. The events tell
where each connection was going.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.system import require
from tests.system.network import (
    CLIENT4,
    CLIENT6,
    LAN4,
    LAN6,
    ROOT,
    SERVER4,
    SERVER6,
    TIMEOUT,
    WAN4,
    WAN6,
    Host,
    Network,
    control_group,
    network,
)

pytestmark = pytest.mark.system("nft", "ip", "nsenter", "setpriv", "curl", "root")

FAMILIES = [(CLIENT4, WAN4, SERVER4), (CLIENT6, WAN6, SERVER6)]
EDIT = ["--callout", "stream_edit,find=rainy,replace=sunny,direction=to_client"]
# The port is the same in every namespace, and nobody else is in it.
PORT = "15001"

WEB_SERVER = """
import http.server, socket, sys, threading

class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        name = self.client_address[0].removeprefix("::ffff:")
        body = f"rainy, says {sys.argv[1]} to {name}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    daemon_threads = True

servers = [Server(("::", port), Page) for port in (80, 8080)]
for server in servers:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def web_server(host: Host, says: str) -> Iterator[None]:
    """Pages at ports 80 and 8080 that tell who asked, as the server sees it."""
    with host.started(sys.executable, "-c", WEB_SERVER, says, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield


# Asks in two pieces: the second when its stdin has ended.
SLOW_CLIENT = """
import socket, sys

with socket.create_connection((sys.argv[1], 80), timeout=20) as server:
    server.sendall(b"GET / HTTP/1.1\\r\\n")
    print("connected", flush=True)
    sys.stdin.read()
    server.sendall(b"Host: x\\r\\nConnection: close\\r\\n\\r\\n")
    while data := server.recv(65536):
        print(data.decode(), flush=True)
"""


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not holds():
        assert time.monotonic() < deadline


@dataclass
class Running:
    """`wfpstream run` in a namespace."""

    process: subprocess.Popen[str]
    events_file: Path
    lines: list[str] = field(default_factory=list)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name so far."""
        written = [json.loads(line) for line in self.events_file.read_text().splitlines()]
        return [event for event in written if event["event"] == name]

    def destinations(self) -> list[str]:
        """Where connections were going, in the order of their establishment."""
        return [event["server"][0] for event in self.events("flow_established")]

    def stop(self) -> None:
        """SIGTERM; it must end well."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(TIMEOUT)
        assert self.process.returncode == 0, self.lines


@dataclass(frozen=True)
class Place:
    """The network and a folder for records and events."""

    net: Network
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "WFPSTREAM_STATE": str(self.folder / "records")}

    def transparent(self, *words: str) -> str:
        """`wfpstream transparent` on the router; it must succeed."""
        line = [sys.executable, "-m", "wfpstream", "transparent", *words]
        return self.net.proxy.run(*line, cwd=ROOT, env=self.environment).stdout

    @contextlib.contextmanager
    def intercepted(self, *words: str) -> Iterator[None]:
        """Rules for the time of the block, after which everything is textually as before."""
        before = self.net.proxy.state()
        self.transparent("apply", "--port", PORT, *words)
        yield
        self.transparent("undo")
        assert self.net.proxy.state() == before

    @contextlib.contextmanager
    def proxy(self, *words: str, around: tuple[str, ...] = ()) -> Iterator[Running]:
        """`wfpstream run` on the router, listening."""
        events = self.folder / "events.jsonl"
        ready = self.folder / "ready.json"
        options = ["--events", str(events), "--ready-file", str(ready), *words]
        line = [*around, sys.executable, "-m", "wfpstream", "run", *options]
        with self.net.proxy.started(*line, cwd=ROOT, env=self.environment) as process:
            running = Running(process, events)
            assert process.stdout is not None
            _until_listening(process.stdout, running)
            yield running


def _until_listening(output: IO[str], running: Running) -> None:
    for line in output:
        running.lines.append(line)
        if "listening on" in line:
            return
    raise AssertionError(f"it ended: {running.lines}")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with network() as net, web_server(net.server, "the server"):
        yield Place(net, tmp_path)


def url(host: str, port: int = 80) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def curl(host: Host, *words: str, around: tuple[str, ...] = ()) -> str:
    """What curl gets."""
    return host.run(*around, require("curl"), "-sS", "--max-time", "20", *words).stdout


def fails(host: Host, *words: str, patience: str = "20") -> int:
    """The exit code of a curl that must fail."""
    done = host.run(require("curl"), "-sS", "--max-time", patience, *words, check=False)
    assert done.returncode != 0, done.stdout
    return done.returncode


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of version 2, on systems that have only these and on hybrid ones."""
    with control_group(f"wfpstream-test-{os.getpid()}") as made:
        yield made


# --- redirect -------------------------------------------------------------------------------------


def test_redirect_of_forwarded_connections(place: Place) -> None:
    with place.proxy(*EDIT, "--mode", f"redirect@[::]:{PORT}") as running:
        with place.intercepted("--redirect-port", "80"):
            for client, router, server in FAMILIES:
                assert curl(place.net.client, url(server)) == f"sunny, says the server to {router}"
                event = running.events("flow_established")[-1]
                assert event["server"] == [server, 80]
                assert event["client"][0] == client
                # Another port is nobody's business.
                assert curl(place.net.client, url(server, 8080)) == f"rainy, says the server to {client}"
        for client, _, server in FAMILIES:
            assert curl(place.net.client, url(server)) == f"rainy, says the server to {client}"
        assert running.destinations() == [SERVER4, SERVER6]
        running.stop()


def test_redirect_of_connections_made_here(place: Place) -> None:
    """The proxy's own connections carry a mark and are not taken again."""
    with place.proxy(*EDIT, "--mode", f"redirect@[::]:{PORT}") as running:
        with place.intercepted("--scope", "local"):
            for client, router, server in FAMILIES:
                for port in (80, 8080):
                    assert curl(place.net.proxy, url(server, port)) == f"sunny, says the server to {router}"
                    assert running.events("flow_established")[-1]["server"] == [server, port]
                assert curl(place.net.client, url(server)) == f"rainy, says the server to {client}"
        running.stop()


def test_redirect_without_the_right_to_mark(place: Place) -> None:
    """The user who runs the proxy is exempt instead."""
    bare = (require("setpriv"), "--bounding-set", "-net_admin,-net_raw")
    nobody = (require("setpriv"), "--reuid", "65534", "--clear-groups")
    with place.proxy(*EDIT, "--mode", f"redirect@127.0.0.1:{PORT}", around=bare) as running:
        with place.intercepted("--scope", "local", "--exempt-uid", "root"):
            got = curl(place.net.proxy, url(SERVER4), around=nobody)
            assert got == f"sunny, says the server to {WAN4}"
            assert curl(place.net.proxy, url(SERVER4)).startswith("rainy"), "root is exempt"
            assert running.destinations() == [SERVER4]
        running.stop()


def test_redirect_of_one_user_or_one_control_group(place: Place, group: Path) -> None:
    inside = ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")
    nobody = (require("setpriv"), "--reuid", "65534", "--clear-groups")
    with place.proxy(*EDIT, "--mode", f"redirect@[::]:{PORT}") as running:
        with place.intercepted("--only-uid", "nobody"):
            assert curl(place.net.proxy, url(SERVER6), around=nobody).startswith("sunny")
            assert curl(place.net.proxy, url(SERVER6)).startswith("rainy")
        with place.intercepted("--only-cgroup", group.name):
            assert curl(place.net.proxy, url(SERVER4), around=inside).startswith("sunny")
            assert curl(place.net.proxy, url(SERVER4)).startswith("rainy")
        running.stop()


def test_redirect_to_loopback_for_local_clients(place: Place) -> None:
    """A local program that talks to a local server is taken too; the upstream connection is not."""
    neighbour = web_server(place.net.proxy, "the neighbour")
    with neighbour, place.proxy(*EDIT, "--mode", f"redirect@127.0.0.1:{PORT}") as running:
        with place.intercepted("--scope", "local", "--redirect-port", "8080"):
            got = curl(place.net.proxy, url("127.0.0.1", 8080))
            assert got == "sunny, says the neighbour to 127.0.0.1"
        running.stop()


# --- tproxy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("listen", "families"), [("[::]", FAMILIES), ("0.0.0.0", FAMILIES[:1])])
def test_tproxy(place: Place, listen: str, families: list[tuple[str, str, str]]) -> None:
    with place.proxy(*EDIT, "--mode", f"tproxy@{listen}:{PORT}") as running:
        with place.intercepted("--mode", "tproxy", "--redirect-port", "80", "--interface", "lan"):
            for client, router, server in families:
                assert curl(place.net.client, url(server)) == f"sunny, says the server to {router}"
                event = running.events("flow_established")[-1]
                assert event["server"] == [server, 80]
                assert event["client"][0] == client
                assert curl(place.net.client, url(server, 8080)) == f"rainy, says the server to {client}"
        for client, _, server in families:
            assert curl(place.net.client, url(server)) == f"rainy, says the server to {client}"
        running.stop()


@pytest.mark.parametrize("keep_port", [False, True])
def test_tproxy_keeps_the_clients_address(place: Place, keep_port: bool) -> None:
    config = place.folder / "router.toml"
    config.write_text(
        textwrap.dedent(f"""
            [[proxy.listener]]
            mode = "tproxy"
            listen = "[::]:{PORT}"
            keep_client_address = true
            keep_port = {str(keep_port).lower()}
            [[rule]]
            callout = "stream_edit,find=rainy,replace=sunny,direction=to_client"
        """)
    )
    with place.proxy("-c", str(config)) as running:
        with place.intercepted("--mode", "tproxy", "--redirect-port", "80"):
            for client, _, server in FAMILIES * 2:
                assert curl(place.net.client, url(server)) == f"sunny, says the server to {client}"
            assert running.destinations() == [SERVER4, SERVER6] * 2
        running.stop()


def test_tproxy_where_handshakes_use_syn_cookies(place: Place) -> None:
    """Between SYN and ACK there is no socket that the packets could be recognised by."""
    place.net.proxy.set(net__ipv4__tcp_syncookies=2)
    with place.proxy(*EDIT, "--mode", f"tproxy@[::]:{PORT}") as running:
        with place.intercepted("--mode", "tproxy"):
            for server in (SERVER4, SERVER6):
                assert curl(place.net.client, url(server)).startswith("sunny")
        running.stop()


# --- what is left alone ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_the_routers_own_services_stay_reachable_and_it_is_no_open_relay(place: Place, mode: str) -> None:
    with web_server(place.net.proxy, "the router"), place.proxy("--mode", f"{mode}@[::]:{PORT}") as running:
        with place.intercepted("--mode", mode):
            for address, client in ((LAN4, CLIENT4), (LAN6, CLIENT6), (WAN4, CLIENT4)):
                assert curl(place.net.client, url(address)) == f"rainy, says the router to {client}"
            # Straight to the listener: there is no destination to go to but the proxy itself.
            for address in (LAN4, LAN6):
                assert fails(place.net.client, url(address, int(PORT))) in (7, 52, 55, 56)
            assert running.destinations() == []
        running.stop()


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_nobody_outside_reaches_the_loopback_through_the_proxy(place: Place, mode: str) -> None:
    """A neighbour can put any destination on a packet, also 127.0.0.2; redirected, it would no longer be a martian."""
    client = place.net.client
    client.run("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
    client.run("ip", "route", "add", "127.0.0.2", "via", LAN4, "src", CLIENT4)
    client.set(net__ipv4__conf__uplink__route_localnet=1)
    secrets = web_server(place.net.proxy, "the router's secrets")
    with secrets, place.proxy("--mode", f"{mode}@[::]:{PORT}") as running:
        with place.intercepted("--mode", mode):
            # Dropped as the martian it is; the listener would have accepted, and reset.
            assert fails(client, url("127.0.0.2"), patience="1.5") == 28
            assert running.destinations() == []
            assert curl(client, url(SERVER4)).startswith("rainy"), "the rest works meanwhile"
        running.stop()


_TALK = """
import socket, sys
s = socket.create_connection((sys.argv[1], 80))
for line in sys.stdin:
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    data = b""
    while not data.endswith(sys.argv[2].encode()): data += s.recv(4096)
    print("answered", flush=True)
"""


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_connections_that_were_there_before_go_on(place: Place, mode: str) -> None:
    """Connection tracking begins with the first redirect rule and meets them in the middle."""
    with contextlib.ExitStack() as stack:
        old = [stack.enter_context(_talk(place.net.client, server, client)) for client, _, server in FAMILIES]
        _ask(old)
        with place.proxy(*EDIT, "--mode", f"{mode}@[::]:{PORT}") as running:
            with place.intercepted("--mode", mode):
                _ask(old)
                for _, router, server in FAMILIES:
                    assert curl(place.net.client, url(server)) == f"sunny, says the server to {router}"
                _ask(old)
                assert len(running.destinations()) == 2
            running.stop()
        _ask(old)


def _talk(host: Host, server: str, client: str) -> AbstractContextManager[subprocess.Popen[str]]:
    line = (sys.executable, "-c", _TALK, server, f"to {client}")
    return host.started(*line, stdin=subprocess.PIPE, bufsize=1)


def _ask(talks: list[subprocess.Popen[str]]) -> None:
    for talk in talks:
        assert talk.stdin is not None
        assert talk.stdout is not None
        talk.stdin.write("\n")
        assert talk.stdout.readline() == "answered\n"


# --- run --transparent ----------------------------------------------------------------------------


def config_of(place: Place, mode: str) -> str:
    """A configuration with `[transparent]`, for port 80."""
    path = place.folder / "wfpstream.toml"
    path.write_text(
        textwrap.dedent(f"""
            [[proxy.listener]]
            mode = "{mode}"
            listen = "[::]:{PORT}"
            [transparent]
            ports = 80
            name = "by-run"
            [[rule]]
            callout = "stream_edit,find=rainy,replace=sunny,direction=to_client"
        """)
    )
    return str(path)


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_run_transparent_undoes_at_its_end(place: Place, mode: str, workers: str) -> None:
    before = place.net.proxy.state()
    with place.proxy("-c", config_of(place, mode), "--transparent", "--workers", workers) as running:
        for server in (SERVER4, SERVER6):
            assert curl(place.net.client, url(server)).startswith("sunny")
        assert "left alone" in place.transparent("undo"), "it belongs to a proxy that is running"
        assert curl(place.net.client, url(SERVER4)).startswith("sunny")
        running.stop()
    assert place.net.proxy.state() == before


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_kill_9_of_the_proxy_and_undo(place: Place, mode: str) -> None:
    before = place.net.proxy.state()
    with place.proxy("-c", config_of(place, mode), "--transparent") as running:
        assert curl(place.net.client, url(SERVER4)).startswith("sunny")
        running.process.kill()
        running.process.wait(TIMEOUT)
    assert place.net.proxy.state() != before
    assert "removed" in place.transparent("undo")
    assert place.net.proxy.state() == before
    for server, client in ((SERVER4, CLIENT4), (SERVER6, CLIENT6)):
        assert curl(place.net.client, url(server)) == f"rainy, says the server to {client}"


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_flows_end_in_peace_when_the_proxy_stops(place: Place, mode: str, workers: str) -> None:
    """New connections find their own way meanwhile; what is intercepted already goes on, and then nothing is left."""
    before = place.net.proxy.state()
    options = ("-c", config_of(place, mode), "--transparent", "--grace", "600", "--workers", workers)
    talk = [sys.executable, "-c", SLOW_CLIENT, SERVER4]
    with place.proxy(*options) as running:
        with place.net.client.started(*talk, stdin=subprocess.PIPE) as talking:
            assert talking.stdin is not None
            assert talking.stdout is not None
            assert talking.stdout.readline() == "connected\n"
            _until(lambda: bool(running.events("flow_established")))
            running.process.send_signal(signal.SIGTERM)
            # One that is just being accepted is reset.
            words = [require("curl"), "-sS", "--max-time", "5", url(SERVER4)]
            _until(lambda: place.net.client.run(*words, check=False).stdout.startswith("rainy"))
            talking.stdin.close()
            assert "sunny" in talking.stdout.read()
        running.process.wait(TIMEOUT)
        assert running.process.returncode == 0
    assert place.net.proxy.state() == before


def test_a_proxy_that_comes_back_after_kill_9(place: Place) -> None:
    before = place.net.proxy.state()
    with place.proxy("-c", config_of(place, "tproxy"), "--transparent") as running:
        running.process.kill()
        running.process.wait(TIMEOUT)
    with place.proxy("-c", config_of(place, "redirect"), "--transparent") as running:
        assert curl(place.net.client, url(SERVER4)).startswith("sunny")
        running.stop()
    assert place.net.proxy.state() == before


def test_a_port_in_use_intercepts_nothing(place: Place) -> None:
    before = place.net.proxy.state()
    with place.proxy("--mode", f"redirect@[::]:{PORT}"):
        line = [sys.executable, "-m", "wfpstream", "run", "-c", config_of(place, "redirect"), "--transparent"]
        done = place.net.proxy.run(*line, cwd=ROOT, env=place.environment, check=False)
        assert done.returncode == 1
        assert f"cannot listen on [::]:{PORT}: address already in use" in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert place.net.proxy.state() == before


def test_a_name_that_is_taken_starts_no_proxy(place: Place) -> None:
    place.net.proxy.run("nft", "add", "table", "inet", "by-run")
    before = place.net.proxy.state()
    line = [sys.executable, "-m", "wfpstream", "run", "-c", config_of(place, "redirect"), "--transparent"]
    done = place.net.proxy.run(*line, cwd=ROOT, env=place.environment, check=False)
    assert done.returncode == 1
    assert "there is an nft table inet by-run already, made by somebody else" in done.stderr
    assert place.net.proxy.state() == before


def test_missing_rights_start_no_proxy(place: Place) -> None:
    around = (require("setpriv"), "--bounding-set", "-net_admin")
    line = [
        *around,
        sys.executable,
        "-m",
        "wfpstream",
        "run",
        "-c",
        config_of(place, "redirect"),
        "--transparent",
    ]
    before = place.net.proxy.state()
    done = place.net.proxy.run(*line, cwd=ROOT, env=place.environment, check=False)
    assert done.returncode == 1
    assert "wfpstream: error: changing nft tables and routes needs root" in done.stderr
    assert "Traceback" not in done.stderr
    assert place.net.proxy.state() == before
