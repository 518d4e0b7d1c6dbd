"""A network of our own: client, proxy and server hosts as network namespaces, joined by cables, with both families.

    client 10.77.1.2 --- 10.77.1.1 "lan" proxy "wan" 10.77.2.1 --- 10.77.2.2 server
           fd77:1::2 --- fd77:1::1                   fd77:2::1 --- fd77:2::2

The proxy's host is the router between the other two. Names carry our process id, so test processes do not meet, and
everything is gone at the end. Nothing here touches the namespace the tests run in.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.system import missing, require, require_root

TIMEOUT = 100.0
ROOT = Path(__file__).resolve().parents[2]
_number = itertools.count(1)

CLIENT4, CLIENT6 = "10.77.1.2", "fd77:1::2"
LAN4, LAN6 = "10.77.1.1", "fd77:1::1"
WAN4, WAN6 = "10.77.2.1", "fd77:2::1"
SERVER4, SERVER6 = "10.77.2.2", "fd77:2::2"


@dataclass(frozen=True)
class Host:
    """A network namespace; programs run inside with the file system of the tests."""

    name: str

    def command(self, *words: str | Path) -> list[str]:
        """The command line that runs `words` inside."""
        return [require("nsenter"), f"--net=/run/netns/{self.name}", "--", *map(str, words)]

    def run(self, *words: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program inside to its end."""
        done = subprocess.run(
            self.command(*words), capture_output=True, text=True, timeout=TIMEOUT, check=False, **options
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def python(self, code: str, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run Python code inside to its end."""
        return self.run(sys.executable, "-c", code, *arguments, cwd=ROOT, **options)

    @contextlib.contextmanager
    def started(self, *words: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
        """A program that runs inside for as long as the block lasts; its stdout and stderr are one pipe."""
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | options
        with subprocess.Popen(self.command(*words), **settings) as process:
            try:
                yield process
            finally:
                process.kill()

    def set(self, **settings: object) -> None:
        """Kernel settings inside; `__` stands for a dot, which Python does not allow in a name."""
        for name, value in settings.items():
            self.run("sysctl", "-qw", f"{name.replace('__', '.')}={value}")

    def state(self) -> str:
        """Every table, rule and route, as text: what must be the same afterwards."""
        commands = [
            ["nft", "-s", "list", "ruleset"],
            ["ip", "rule"],
            ["ip", "-6", "rule"],
            ["ip", "route", "show", "table", "all"],
            ["ip", "-6", "route", "show", "table", "all"],
        ]
        return "".join(f"# {' '.join(words)}\n{self.run(*words).stdout}" for words in commands)


@dataclass(frozen=True)
class Network:
    """The three hosts."""

    client: Host
    proxy: Host
    server: Host


@contextlib.contextmanager
def host(role: str = "alone") -> Iterator[Host]:
    """One namespace without cables, its loopback up."""
    require_root()
    ip = require("ip")
    name = f"wfp{os.getpid()}-{next(_number)}-{role}"
    try:
        call(ip, "netns", "add", name)
    except subprocess.CalledProcessError as error:
        # Root of a container without CAP_SYS_ADMIN.
        missing(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
    try:
        call(ip, "-n", name, "link", "set", "lo", "up")
        yield Host(name)
    finally:
        call(ip, "netns", "del", name)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """The three hosts, joined and routed; forwarding is on."""
    with host("client") as client, host("proxy") as proxy, host("server") as server:
        join(client, "uplink", (CLIENT4, CLIENT6), proxy, "lan", (LAN4, LAN6))
        join(server, "uplink", (SERVER4, SERVER6), proxy, "wan", (WAN4, WAN6))
        for end, gateways in ((client, (LAN4, LAN6)), (server, (WAN4, WAN6))):
            for gateway in gateways:
                end.run("ip", "route", "add", "default", "via", gateway)
        proxy.set(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)
        yield Network(client, proxy, server)


def join(
    one: Host, interface: str, ours: Sequence[str], other: Host, their_interface: str, theirs: Sequence[str]
) -> None:
    """A cable between two hosts, with addresses at its ends."""
    cable = ["type", "veth", "peer", "name", their_interface, "netns", other.name]
    call(require("ip"), "link", "add", "name", interface, "netns", one.name, *cable)
    for end, name, addresses in ((one, interface, ours), (other, their_interface, theirs)):
        # The kernel's own link-local address would come some seconds later, and routes with it; a router needs one.
        end.run("ip", "link", "set", name, "addrgenmode", "none")
        for address in (*addresses, "fe80::1" if end is one else "fe80::2"):
            # Without `nodad` an IPv6 address is of no use for its first second.
            wide = [f"{address}/64", "nodad"] if ":" in address else [f"{address}/24"]
            end.run("ip", "address", "add", *wide, "dev", name)
        end.run("ip", "link", "set", name, "up")
    for end, name in ((one, interface), (other, their_interface)):
        _wait_for_carrier(end, name)


def _wait_for_carrier(end: Host, name: str) -> None:
    """The kernel tells itself of the cable a little later, and then makes the last routes."""
    deadline = time.monotonic() + TIMEOUT
    while (
        f"multicast ff00::/8 dev {name} " not in end.run("ip", "-6", "route", "show", "table", "local").stdout
    ):
        assert time.monotonic() < deadline, f"{name} has no carrier"


def call(*words: str) -> None:
    """Run a program outside the namespaces; it must succeed."""
    subprocess.run(words, check=True, capture_output=True, timeout=TIMEOUT)


@contextlib.contextmanager
def control_group(name: str) -> Iterator[Path]:
    """A control group of version 2; the test skips where none can be made (in most containers)."""
    root = Path("/sys/fs/cgroup")
    base = next((p for p in (root, root / "unified") if (p / "cgroup.controllers").exists()), None)
    if base is None:
        pytest.skip("no control groups of version 2 here")
    group = base / name
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error.strerror}")
    try:
        yield group
    finally:
        group.rmdir()
