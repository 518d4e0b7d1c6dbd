"""Intercepted connections as the kernel delivers them: REDIRECT, TPROXY, foreign source addresses, marks.

Three networks without names, made by the test and gone with it: client, proxy, server. The test's thread is in the
proxy's; sockets of the other two are made there and used from here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from tests.support.system import require, require_root
from tests.transport.kit import Live, Probe, bounded, live, read_all, read_exactly
from tests.transport.test_proxy import Redirecting
from wfpstream.transport import ListenerSpec

pytestmark = pytest.mark.system

CLONE_NEWNET = 0x40000000
MARK = 0x77660001
CLIENT = {4: "10.1.0.2", 6: "fd00:1::2"}
PROXY = {4: "10.1.0.1", 6: "fd00:1::1"}
SERVER = {4: "10.2.0.2", 6: "fd00:2::2"}
# Nobody has it: only who looks at the original destination knows where it is.
ELSEWHERE = {4: "192.0.2.80", 6: "2001:db8::80"}
FAMILIES = pytest.mark.parametrize("version", [4, 6])

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Namespace:
    """A network namespace without a name: it ends with the last file and socket in it."""

    def __init__(self) -> None:
        with _staying():
            _checked(_libc.unshare(CLONE_NEWNET))
            self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            run("ip", "link", "set", "lo", "up")

    @property
    def path(self) -> str:
        """As `ip` takes it."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """What this thread makes belongs there: sockets, processes."""
        with _staying():
            _checked(_libc.setns(self.fd, CLONE_NEWNET))
            yield

    def close(self) -> None:
        os.close(self.fd)


@contextmanager
def _staying() -> Iterator[None]:
    """Come back to the namespace this thread was in."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        yield
    finally:
        _checked(_libc.setns(here, CLONE_NEWNET))
        os.close(here)


def run(*command: str, input: str | None = None) -> None:
    done = subprocess.run(command, input=input, text=True, capture_output=True, check=False)
    assert not done.returncode, f"{' '.join(command)}: {done.stderr}"


class Network:
    """client - proxy - server, each the other's gateway."""

    def __init__(self) -> None:
        self.client, self.proxy, self.server = Namespace(), Namespace(), Namespace()
        with self.proxy.entered():
            for number, peer in ((1, self.client), (2, self.server)):
                run(
                    "ip",
                    "link",
                    "add",
                    f"v{number}",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    "gate",
                    "netns",
                    peer.path,
                )
                run("ip", "addr", "add", f"10.{number}.0.1/24", "dev", f"v{number}")
                run("ip", "addr", "add", f"fd00:{number}::1/64", "dev", f"v{number}", "nodad")
                run("ip", "link", "set", f"v{number}", "up")
            for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                _write(f"/proc/sys/net/{setting}", "1")
        for number, peer in ((1, self.client), (2, self.server)):
            with peer.entered():
                run("ip", "addr", "add", f"10.{number}.0.2/24", "dev", "gate")
                run("ip", "addr", "add", f"fd00:{number}::2/64", "dev", "gate", "nodad")
                run("ip", "link", "set", "gate", "up")
                run("ip", "route", "add", "default", "via", f"10.{number}.0.1")
                run("ip", "-6", "route", "add", "default", "via", f"fd00:{number}::1")

    def listen(self, version: int) -> socket.socket:
        """A server's socket."""
        with self.server.entered():
            sock = socket.socket(_family(version))
        sock.bind((SERVER[version], 0))
        sock.listen()
        sock.settimeout(30)
        return sock

    def dial(self, version: int) -> socket.socket:
        """A client's socket, not connected yet."""
        with self.client.entered():
            sock = socket.socket(_family(version))
        sock.bind((CLIENT[version], 0))
        sock.settimeout(30)
        return sock

    def close(self) -> None:
        for namespace in (self.client, self.proxy, self.server):
            namespace.close()


def _family(version: int) -> int:
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


@pytest.fixture
def net() -> Iterator[Network]:
    """The networks; the test's thread is at the proxy's."""
    require_root()
    require("ip")
    require("nft")
    network = Network()
    try:
        with network.proxy.entered():
            yield network
    finally:
        network.close()


def dual_stack() -> socket.socket:
    """One socket for both families."""
    sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 0))
    return sock


def filter_by(kind: str, *rules: str) -> None:
    """A chain of this kind in the namespace of this thread."""
    lines = ["table inet test {", "chain rules {", f"type {kind};", *rules, "}", "}"]
    run("nft", "-f", "-", input="\n".join(lines))


def redirect_all(port: int) -> None:
    """What comes from the client to port 80 comes to us instead."""
    filter_by("nat hook prerouting priority dstnat", f"iifname v1 tcp dport 80 redirect to :{port}")


def tproxy_all(port: int) -> None:
    """The same without rewriting; answers to addresses that we borrowed come to us too."""
    filter_by(
        "filter hook prerouting priority mangle",
        "meta l4proto tcp socket transparent 1 meta mark set 1 accept",
        f"iifname v1 tcp dport 80 tproxy to :{port} meta mark set 1 accept",
    )
    for version, everything in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        run("ip", version, "rule", "add", "fwmark", "1", "lookup", "100")
        run("ip", version, "route", "add", "local", everything, "dev", "lo", "table", "100")


async def in_thread(fn: Any, *args: Any) -> Any:
    """A blocking call of a peer."""
    return await trio.to_thread.run_sync(fn, *args)


async def connected(net: Network, version: int, destination: tuple[str, int]) -> trio.SocketStream:
    sock = net.dial(version)
    await in_thread(sock.connect, destination)
    return as_stream(sock)


async def is_reset(client: socket.socket, destination: tuple[str, int]) -> bool:
    """Whether a connection ends in a reset without a byte, perhaps before `connect` has returned."""
    async with as_stream(client) as stream:
        try:
            await stream.socket.connect(destination)
        except ConnectionResetError:
            return True
        return await read_all(stream) == (b"", "reset")


def as_stream(sock: socket.socket) -> trio.SocketStream:
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))


def port_of(run: Live) -> int:
    return run.proxy.listeners[0].port


@pytest.mark.parametrize("listener", ["dual", "own"])
@FAMILIES
@bounded
async def test_redirect(version: int, listener: str, net: Network) -> None:
    """SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, also of an IPv4 client on a socket of both families (LAY-10)."""
    bound = dual_stack() if listener == "dual" else None
    with net.listen(version) as server:
        host = "::" if listener == "dual" else PROXY[version]
        redirecting = Redirecting(*server.getsockname()[:2])
        async with live(redirecting, Probe(), bound=bound, host=host, mode="redirect", mark=MARK) as at:
            redirect_all(port_of(at))
            client = await connected(net, version, (ELSEWHERE[version], 80))
            sock, peer = await in_thread(server.accept)
            async with client, as_stream(sock) as upstream:
                await client.send_all(b"ping")
                assert await read_exactly(upstream, 4) == b"ping"
            event = await at.events.wait("flow_established")
            assert event["remote"] == [ELSEWHERE[version], 80]
            assert event["client"][0] == CLIENT[version]
            assert event["layer"].lower() == f"ale_flow_established_v{version}"
            assert peer[0] == SERVER[version].removesuffix("2") + "1"
            await at.deleted()


@FAMILIES
@bounded
async def test_redirect_to_where_it_was_going(version: int, net: Network) -> None:
    """Without any callout: the server itself is asked for, at a port that is redirected."""
    with net.server.entered():
        server = socket.socket(_family(version))
    with server:
        server.bind((SERVER[version], 80))
        server.listen()
        server.settimeout(30)
        async with live(Probe(), bound=dual_stack(), mode="redirect") as at:
            redirect_all(port_of(at))
            async with await connected(net, version, (SERVER[version], 80)) as client:
                sock, _ = await in_thread(server.accept)
                async with as_stream(sock) as upstream:
                    await client.send_all(b"ping")
                    assert await read_exactly(upstream, 4) == b"ping"
            await at.deleted()


@FAMILIES
@bounded
async def test_a_direct_connection_to_a_redirect_listener(version: int, net: Network) -> None:
    """With connection tracking the kernel then gives our own address as the original destination."""
    async with live(Probe(), bound=dual_stack(), mode="redirect", quiet=False) as at:
        redirect_all(port_of(at))
        assert await is_reset(net.dial(version), (PROXY[version], port_of(at)))
        assert at.proxy.rejected == {"unknown_destination": 1}


@FAMILIES
@bounded
async def test_a_redirect_of_what_was_meant_for_ourselves(version: int, net: Network) -> None:
    """A remote client is not let in to loopback by asking for one of our addresses with a service of its own."""
    async with live(Probe(), bound=dual_stack(), mode="redirect", quiet=False) as at:
        redirect_all(port_of(at))
        assert await is_reset(net.dial(version), (PROXY[version], 80))
        assert (await at.events.wait("connect_failed"))["reason"] == "connection refused"


@FAMILIES
@bounded
async def test_a_loop_that_interception_makes_ends_at_once(version: int, net: Network) -> None:
    """Rules for local connections that forgot to leave out the proxy's own: each would come back for ever."""
    async with live(Probe(), bound=dual_stack(), mode="redirect", quiet=False) as at:
        filter_by("nat hook output priority -100", f"tcp dport 80 redirect to :{port_of(at)}")
        client = socket.socket(_family(version))
        assert await is_reset(client, (SERVER[version], 80))
        await at.proxy.wait_connections(0)
        assert at.proxy.accepted == 2
        assert at.proxy.rejected == {"own_connection": 1}
        assert at.lines[0].endswith("which interception has to leave out (own_connection)")


@pytest.mark.parametrize("keep", ["nothing", "address", "port"])
@FAMILIES
@bounded
async def test_tproxy(version: int, keep: str, net: Network) -> None:
    """The original destination is what the accepted socket says; the client's address goes on where asked."""
    fields: dict[str, Any] = {"keep_client": keep != "nothing", "keep_port": keep == "port"}
    with net.listen(version) as server:
        redirecting = Redirecting(*server.getsockname()[:2])
        async with live(redirecting, Probe(), bound=dual_stack(), mode="tproxy", mark=MARK, **fields) as at:
            tproxy_all(port_of(at))
            for _ in range(2):
                client = await connected(net, version, (ELSEWHERE[version], 80))
                sock, peer = await in_thread(server.accept)
                async with client, as_stream(sock) as upstream:
                    here = client.socket.getsockname()
                    await client.send_all(b"ping")
                    assert await read_exactly(upstream, 4) == b"ping"
                    await upstream.send_all(b"pong")
                    assert await read_exactly(client, 4) == b"pong"
                assert (peer[0] == CLIENT[version]) is (keep != "nothing")
                assert (peer[1] == here[1]) is (keep == "port")
            event = await at.events.wait("flow_established")
            assert event["remote"] == [ELSEWHERE[version], 80]
            assert event["client"][0] == CLIENT[version]
            await at.deleted(2)


@pytest.mark.parametrize("keep", ["address", "port"])
@FAMILIES
@bounded
async def test_one_client_and_more_servers_than_ports(version: int, keep: str, net: Network) -> None:
    """A port is taken towards one server only: ours of the client's address, and the client's own."""
    hosts = [SERVER[version] + digit for digit in "123"]
    with net.server.entered():
        for host in hosts:
            run("ip", "addr", "add", f"{host}/{24 if version == 4 else 64}", "dev", "gate", "noprefixroute")
        server = socket.create_server(("", 80) if version == 4 else ("::", 80), family=_family(version))
    server.settimeout(30)
    own_port = 0
    with server, contextlib.ExitStack() as open_ones:
        fields: dict[str, Any] = {"keep_client": True, "keep_port": keep == "port"}
        async with live(bound=dual_stack(), mode="tproxy", **fields) as at:
            tproxy_all(port_of(at))
            _write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001")
            for host in hosts:
                with net.client.entered():
                    client = open_ones.enter_context(socket.socket(_family(version)))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind((CLIENT[version], own_port if keep == "port" else 0))
                own_port = client.getsockname()[1]
                client.settimeout(30)
                await in_thread(client.connect, (host, 80))
                sock, peer = await in_thread(server.accept)
                open_ones.enter_context(sock)
                assert peer[0] == CLIENT[version]
                assert peer[1] in ([own_port] if keep == "port" else [40000, 40001])


@FAMILIES
@bounded
async def test_a_port_that_cannot_be_kept(version: int, net: Network) -> None:
    with net.listen(version) as server, socket.socket(_family(version)) as taken:
        level, option = (socket.IPPROTO_IP, 19) if version == 4 else (socket.IPPROTO_IPV6, 75)
        taken.setsockopt(level, option, 1)
        redirecting = Redirecting(*server.getsockname()[:2])
        fields: dict[str, Any] = {"keep_client": True, "keep_port": True}
        async with live(redirecting, bound=dual_stack(), mode="tproxy", quiet=False, **fields) as at:
            tproxy_all(port_of(at))
            client = net.dial(version)
            host, port = client.getsockname()[:2]
            taken.bind((host, port))
            taken.listen()
            assert await is_reset(client, (ELSEWHERE[version], 80))
            reason = (await at.events.wait("connect_failed"))["reason"]
            assert (
                reason == f"cannot keep the client's address and port {host}:{port}: address already in use"
            )
            assert len(at.lines) == 1


@bounded
async def test_the_clients_address_cannot_go_on_in_the_other_family(net: Network) -> None:
    """LAY-10, LAY-26: a callout sends an IPv4 client to an IPv6 server."""
    with net.listen(6) as server:
        redirecting = Redirecting(*server.getsockname()[:2])
        async with live(redirecting, bound=dual_stack(), mode="tproxy", keep_client=True, quiet=False) as at:
            tproxy_all(port_of(at))
            assert await is_reset(net.dial(4), (ELSEWHERE[4], 80))
            reason = (await at.events.wait("connect_failed"))["reason"]
            assert (
                reason
                == f"cannot keep the client's address {CLIENT[4]}: address family not supported by protocol"
            )


@FAMILIES
@bounded
async def test_a_direct_connection_to_a_tproxy_listener_does_not_loop(version: int, net: Network) -> None:
    async with live(Probe(), bound=dual_stack(), mode="tproxy", quiet=False) as at:
        tproxy_all(port_of(at))
        assert await is_reset(net.dial(version), (PROXY[version], port_of(at)))
        assert at.proxy.rejected == {"own_listener": 1}
        assert at.proxy.accepted == 1


@FAMILIES
@bounded
async def test_a_reverse_listener_becomes_a_tproxy_one_without_closing(version: int, net: Network) -> None:
    with net.listen(version) as server:
        async with live(Redirecting(*server.getsockname()[:2]), bound=dual_stack()) as at:
            before = at.proxy.listeners
            tproxy_all(port_of(at))
            spec = ListenerSpec(name="web", mode="tproxy", host="::", port=port_of(at), keep_client=True)
            (await at.proxy.prepare([spec])).commit()
            assert at.proxy.listeners == before
            async with await connected(net, version, (ELSEWHERE[version], 80)):
                sock, peer = await in_thread(server.accept)
                sock.close()
                assert peer[0] == CLIENT[version]


@bounded
async def test_only_a_tproxy_listener_takes_foreign_addresses(net: Network) -> None:
    """Neither a change that was abandoned nor a mode that is over leaves the socket as TPROXY needs it."""
    with dual_stack() as bound:
        port = bound.getsockname()[1]
        reverse, tproxy = (
            ListenerSpec(name="web", host="::", port=port, **fields)
            for fields in ({"upstream_host": PROXY[4], "upstream_port": 9}, {"mode": "tproxy"})
        )

        def takes_foreign() -> bool:
            return bool(watched.getsockopt(socket.IPPROTO_IPV6, 75))

        with bound.dup() as watched:
            async with live(bound=bound, upstream_host=PROXY[4], upstream_port=9) as at:
                (await at.proxy.prepare([tproxy])).abandon()
                assert not takes_foreign()
                (await at.proxy.prepare([tproxy])).commit()
                assert takes_foreign()
                (await at.proxy.prepare([reverse])).abandon()
                assert takes_foreign()
                (await at.proxy.prepare([reverse])).commit()
                assert not takes_foreign()


@FAMILIES
@bounded
async def test_upstream_connections_carry_the_mark(version: int, net: Network) -> None:
    """By it interception lets them pass; here nothing without it gets out."""
    filter_by("filter hook output priority 0", f"oifname v2 tcp flags syn meta mark != {MARK} drop")
    with net.listen(version) as server:
        host, port = server.getsockname()[:2]
        async with live(host=PROXY[version], upstream_host=host, upstream_port=port, mark=MARK) as at:
            client = await connected(net, version, (PROXY[version], port_of(at)))
            sock, _ = await in_thread(server.accept)
            sock.close()
            await client.aclose()


def test_without_the_capability_mode_tproxy_is_one_line(net: Network) -> None:
    """A process of root's without CAP_NET_ADMIN and CAP_NET_RAW."""
    setpriv = require("setpriv")
    code = """
import errno, trio
from wfpstream.engine import FilterEngine
from wfpstream.transport import ListenerSpec, serve_proxy
import time
try:
    trio.run(serve_proxy, FilterEngine(time.monotonic), [ListenerSpec(mode="tproxy", host="::1")])
except OSError as error:
    print(error.errno, error.strerror)
"""
    command = [setpriv, "--bounding-set", "-net_admin,-net_raw", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr == ""
    message = "cannot listen on [::1]:0: mode tproxy needs the capability CAP_NET_ADMIN"
    assert done.stdout == f"{errno.EPERM} {message}\n"
