"""PROXY headers with programs that have their own idea of them: HAProxy in front and behind, nginx, curl."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.system import require
from tests.system.kit import RunningProxy, configured_proxy, nginx

pytestmark = pytest.mark.system("haproxy", "curl")

# Loopback has many addresses: the client is told from the proxies by its own.
CLIENT = "127.0.0.9"
HAPROXY_TELLS = (
    "http-request return status 200 content-type text/plain lf-string %[src]:%[src_port]>%[dst]:%[dst_port]"
)


@contextlib.contextmanager
def haproxy(folder: Path, sections: str, *hosts: str) -> Iterator[list[int]]:
    """HAProxy with these sections, in which {0}, {1} ... are listening sockets at `hosts`; their ports."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server((host, 0), family=family(host))) for host in hosts
        ]
        ports = [int(sock.getsockname()[1]) for sock in sockets]
        config = folder / f"haproxy-{ports[0]}.cfg"
        config.write_text(
            "global\n  maxconn 100\ndefaults\n  timeout connect 10s\n  timeout client 10s\n  timeout server 10s\n"
            + sections.format(*(f"fd@{sock.fileno()}" for sock in sockets))
        )
        # It need not be waited for: the sockets listen already, and are closed if it ends.
        process = subprocess.Popen(
            [require("haproxy"), "-db", "-q", "-f", str(config)],
            pass_fds=[sock.fileno() for sock in sockets],
            stderr=subprocess.DEVNULL,
        )
    try:
        yield ports
    finally:
        process.kill()
        process.wait()


def family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def front(target: RunningProxy, how: str) -> str:
    """A section that sends all connections on with PROXY headers."""
    return f"listen front\n  mode tcp\n  bind {{0}}\n  server next {target.host}:{target.port} {how}\n"


def behind() -> str:
    """A section that wants PROXY headers, and tells what they said."""
    return f"frontend behind\n  mode http\n  bind {{0}} accept-proxy\n  {HAPROXY_TELLS}\n"


def get(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """curl, from the client's address."""
    command = [require("curl"), "-sS", "--max-time", "20", *options, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def listener(upstream: int, accept: str = "", send: str = "off") -> str:
    accepting = f'accept_proxy = "{accept}"\n' if accept else ""
    return f'[[proxy.listener]]\nupstream = "127.0.0.1:{upstream}"\n{accepting}send_proxy = "{send}"\n'


EDIT = '[[rule]]\ncallout = "monitor"\n'


def clients_of(running: RunningProxy) -> list[str]:
    """Addresses of the clients whose flows were established, after the proxy has ended."""
    established = [event for event in running.events() if event["event"] == "flow_established"]
    return [str(event["client"][0]) for event in established if isinstance(event["client"], list)]


@pytest.mark.parametrize("send", ["v1", "v2"])
@pytest.mark.parametrize(
    "how",
    ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"],
    ids=["v1", "v2", "crc"],
)
def test_between_two_haproxies(tmp_path: Path, how: str, send: str) -> None:
    """What the one in front sent is believed, and the one behind is told it: client and destination."""
    with (
        haproxy(tmp_path, behind(), "127.0.0.1") as (upstream,),
        configured_proxy(listener(upstream, "127.0.0.1", send) + EDIT, tmp_path) as running,
        haproxy(tmp_path, front(running, how), "127.0.0.1") as (port,),
    ):
        answer = get(f"http://127.0.0.1:{port}/", "--interface", CLIENT, "--write-out", " %{local_port}")
        assert answer.returncode == 0, answer.stderr
        told, client_port = answer.stdout.split()
        assert told == f"{CLIENT}:{client_port}>127.0.0.1:{port}"
    assert CLIENT in clients_of(running)


def test_ipv6_clients_over_ipv4(tmp_path: Path) -> None:
    """The header's family is the client's, not the connection's."""
    with (
        haproxy(tmp_path, behind(), "127.0.0.1") as (upstream,),
        configured_proxy(listener(upstream, "127.0.0.1", "v1") + EDIT, tmp_path) as running,
        haproxy(tmp_path, front(running, "send-proxy-v2"), "::1") as (port,),
    ):
        answer = get(f"http://[::1]:{port}/", "--write-out", " %{local_port}")
        assert answer.returncode == 0, answer.stderr
        told, client_port = answer.stdout.split()
        assert told == f"::1:{client_port}>::1:{port}"
    assert "::1" in clients_of(running)


@pytest.mark.parametrize("send", ["v1", "v2"])
@pytest.mark.system("nginx")
def test_nginx_behind(tmp_path: Path, send: str) -> None:
    """Without a header from in front, the connection's own addresses are told."""
    body = """set_real_ip_from 127.0.0.0/8; real_ip_header proxy_protocol;
              location / { return 200 "$remote_addr:$remote_port>$proxy_protocol_server_port"; }"""
    with (
        nginx(tmp_path, body, "proxy_protocol") as upstream,
        configured_proxy(listener(upstream, send=send), tmp_path) as running,
    ):
        url = f"http://{running.host}:{running.port}/"
        answer = get(url, "--interface", CLIENT, "--write-out", " %{local_port}")
        assert answer.returncode == 0, answer.stderr
        told, client_port = answer.stdout.split()
        assert told == f"{CLIENT}:{client_port}>{running.port}"


def test_curl_in_front(tmp_path: Path) -> None:
    """`--haproxy-protocol` sends version 1; a stream of some length follows it."""
    (tmp_path / "www").mkdir()
    page = bytes(range(256)) * 4096
    (tmp_path / "www" / "page").write_bytes(page)
    with (
        nginx(tmp_path, "") as upstream,
        configured_proxy(listener(upstream, "127.0.0.0/8"), tmp_path) as running,
    ):
        command = [require("curl"), "-sS", "--haproxy-protocol", "--interface", CLIENT, "--max-time", "20"]
        url = f"http://{running.host}:{running.port}/page"
        assert subprocess.run([*command, url], capture_output=True, check=True, timeout=30).stdout == page
    assert clients_of(running) == [CLIENT]


def test_headers_that_are_not_accepted(tmp_path: Path) -> None:
    """None, a bad one, one from who is not trusted, one that is cut: reset, and the next connection works."""
    with (
        haproxy(tmp_path, behind(), "127.0.0.1") as (upstream,),
        configured_proxy(listener(upstream, CLIENT, "v2"), tmp_path) as running,
    ):
        url = f"http://{running.host}:{running.port}/"
        good = ("--haproxy-protocol", "--interface", CLIENT)
        # curl meets the reset while it connects, writes or reads.
        assert get(url, "--interface", CLIENT).returncode in (7, 52, 55, 56)
        assert get(url, "--haproxy-protocol", "--interface", "127.0.0.8").returncode in (7, 52, 55, 56)
        for start in (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"):
            assert refused(running, start)
        for start in (b"", b"PROXY TCP4 1.2.3.4", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c1234"):
            assert refused(running, start, end=True)
        answer = get(url, *good)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.startswith(f"{CLIENT}:")
    assert clients_of(running) == [CLIENT]


def refused(running: RunningProxy, start: bytes, end: bool = False) -> bool:
    """Whether a connection that begins so is closed on us without a byte."""
    with socket.create_connection((running.host, running.port), 20, (CLIENT, 0)) as connection:
        connection.sendall(start)
        if end:
            connection.shutdown(socket.SHUT_WR)
        try:
            return connection.recv(100) == b""
        except ConnectionResetError:
            return True
