"""Crowds of bad peers: bounded by the pinned limits and timeouts, told, and nothing left behind. The proxy is a process
of its own, so that its descriptors and its memory are seen; both drivers.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.transport.crowd import Burst, source_address

MIB = 1 << 20
PATIENCE = 60.0
# A time that runs out when a test lets it pass, and not before.
HOUR = 3600.0
DRIVERS = ("reactor", "stream")
# A process with trio, msgspec and the engine in it starts at about 34 MiB.
MEMORY_BOUND = 96 * 1024  # KiB
CHUNK = bytes(256 * 1024)


class ChildProxy:
    """A proxy in a process of its own.

    Attributes:
        first: what it saw of itself when it listened.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.first = self._read()
        self.ports: list[int] = self.first["ports"]
        self.address = ("127.0.0.1", self.ports[0])

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the proxy has ended"
        seen: dict[str, Any] = json.loads(line)
        return seen

    def look(self, seconds: float = 0.0) -> dict[str, Any]:
        """What it sees of itself now; for it, so many seconds pass before."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n" if seconds else "\n")
        self._process.stdin.flush()
        return self._read()

    def pass_until_empty(self, seconds: float) -> None:
        """Let so much time pass until all connections have ended by it: some may have been at work yet."""
        until = time.monotonic() + PATIENCE
        while self.look(seconds)["connections"]:
            assert time.monotonic() < until

    def wait(self, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Until it sees that."""
        until = time.monotonic() + PATIENCE
        while True:
            seen = self.look()
            if is_so(seen):
                return seen
            assert time.monotonic() < until, seen

    def connect(self, number: int = 0) -> socket.socket:
        """A connection from one of many addresses."""
        return socket.create_connection(self.address, PATIENCE, source_address=(source_address(number), 0))

    def wait_empty(self) -> dict[str, Any]:
        """Until there is no connection any more: no descriptor is left over, and no byte."""
        seen = self.wait(lambda seen: not seen["connections"])
        assert seen["flows"] == seen["stored"] == 0
        # Pipes for offloaded flows may be kept for the next ones.
        assert seen["descriptors"] <= self.first["descriptors"] + 2
        assert "ledger_faults" not in seen["counters"]
        return seen

    def stop(self) -> dict[str, Any]:
        """Stop it: what it saw at the end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        seen = self._read()
        assert self._process.wait(PATIENCE) == 0
        assert seen["connections"] == seen["flows"] == seen["stored"] == 0
        return seen


@contextlib.contextmanager
def running(driver: str, upstream: int, **wanted: Any) -> Iterator[ChildProxy]:
    """A proxy before that port of this host; `wanted` as `child_proxy` takes it."""
    command = [sys.executable, "-m", "tests.transport.child_proxy"]
    text = json.dumps({"driver": driver, "upstream": upstream, **wanted})
    process = subprocess.Popen([*command, text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield ChildProxy(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """The port of an upstream that echoes, in a process of its own."""
    command = [sys.executable, "-m", "tests.transport.crowd", "echo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextlib.contextmanager
def many(count: int) -> Iterator[list[socket.socket]]:
    """A list of sockets that are closed at the end; room for so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 200:
        pytest.skip(f"only {hard} descriptors are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 200)), hard))
    sockets: list[socket.socket] = []
    try:
        yield sockets
    finally:
        close_all(sockets)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_over(sock: socket.socket) -> bool:
    """Whether the connection has ended, however; bytes that came before are read."""
    sock.settimeout(PATIENCE)
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def drip(sockets: list[socket.socket], byte: bytes = b"P") -> int:
    """A byte on each; how many took it."""
    taken = 0
    for sock in sockets:
        with contextlib.suppress(OSError):
            taken += sock.send(byte)
    return taken


def is_served(proxy: ChildProxy, number: int) -> bool:
    """Whether somebody who behaves gets his answer."""
    request = b"is anybody there?"
    with proxy.connect(number) as sock:
        sock.sendall(request)
        return sock.recv(len(request), socket.MSG_WAITALL) == request


# --- slowloris ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("count", [200, pytest.param(3000, marks=pytest.mark.long)])
def test_headers_that_never_end_are_bounded_by_their_timeout(driver: str, count: int) -> None:
    """Dripping bytes do not prolong it. Whoever comes meanwhile is served."""
    with (
        echo() as upstream,
        many(count) as sockets,
        running(driver, upstream, accept_proxy=["127.0.0.0/8"], timeouts={"proxy_header": HOUR}) as proxy,
    ):
        for number in range(count):
            sockets.append(proxy.connect(number))
            drip(sockets[-1:])
        with proxy.connect() as sock:
            sock.sendall(b"PROXY UNKNOWN\r\nhallo")
            assert sock.recv(5, socket.MSG_WAITALL) == b"hallo"
        proxy.wait(lambda seen: seen["accepted"] == count + 1)
        for byte in b"ROXY":  # what could not be a header yet would be refused at once
            assert not proxy.look()["rejected"]
            assert drip(sockets, bytes([byte])) == count
            proxy.look(HOUR / 4)
        while proxy.look(1.0)["rejected"].get("proxy_header", 0) < count:
            pass
        assert all(is_over(sock) for sock in sockets)
        seen = proxy.wait_empty()
        assert seen["events"]["connect_failed proxy_header"] == count
        # The first of its kind is told of; three thousand lines would hide the others.
        (line,) = seen["lines"]
        assert "(proxy_header)" in line
        assert seen["most_resident"] < MEMORY_BOUND
        proxy.stop()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("count", [200, pytest.param(3000, marks=pytest.mark.long)])
def test_clients_that_drip_are_bounded_per_client(driver: str, count: int) -> None:
    """`limits.flows_per_client`: who has too many is reset, counted and told of; others are served."""
    sources, most = 4, count // 8
    with (
        echo() as upstream,
        many(count) as sockets,
        running(driver, upstream, limits={"flows_per_client": most}) as proxy,
    ):
        for number in range(count):
            with contextlib.suppress(ConnectionResetError):  # before we even had it
                sockets.append(proxy.connect(number % sources))
        seen = proxy.wait(
            lambda seen: seen["accepted"] == count and seen["flows"] == seen["connections"] == sources * most
        )
        assert seen["refused"] == count - sources * most
        assert seen["connections"] == sources * most
        drip(sockets)
        assert is_served(proxy, sources)
        told = [line for line in seen["lines"] if "flows_per_client" in line]
        assert len(told) == 1
        for sock in sockets:
            sock.close()
        assert proxy.wait_empty()["most_resident"] < MEMORY_BOUND
        proxy.stop()


@pytest.mark.parametrize("driver", DRIVERS)
def test_who_says_nothing_makes_room_for_those_who_wait(driver: str) -> None:
    """`limits.flows`: accepting rests, which is told; `timeouts.idle` ends the silent ones; all are served in turn."""
    count, most = 100, 20
    with (
        echo() as upstream,
        many(count) as sockets,
        running(driver, upstream, limits={"flows": most}, timeouts={"idle": HOUR}) as proxy,
    ):
        for number in range(count):
            sockets.append(proxy.connect(number))
        until = time.monotonic() + PATIENCE
        while (seen := proxy.look())["accepted"] < count:
            assert seen["connections"] <= most
            assert time.monotonic() < until
            if seen["flows"] == most:
                proxy.look(HOUR)
        proxy.wait(lambda seen: seen["flows"] == seen["connections"])
        proxy.pass_until_empty(HOUR)
        assert all(is_over(sock) for sock in sockets)
        seen = proxy.wait_empty()
        assert seen["events"]["flow_deleted timeout"] == count
        (line,) = seen["lines"]
        assert "limits.flows" in line
        assert is_served(proxy, 0)
        proxy.stop()


# --- those who never read, and never answer -----------------------------------------------------------


@contextlib.contextmanager
def pouring() -> Iterator[tuple[socket.socket, Callable[[], int]]]:
    """An upstream that sends for ever and reads nothing: its listener, and what pours once, as far as it is taken."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        listener.setblocking(False)
        accepted: list[socket.socket] = []
        stack.callback(close_all, accepted)

        def pour() -> int:
            """Bytes that were taken."""
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted.append(listener.accept()[0])
                    accepted[-1].setblocking(False)
            return sum(map(push, accepted))

        yield listener, pour


def close_all(sockets: list[socket.socket]) -> None:
    """Whatever they hold."""
    for sock in sockets:
        sock.close()


def push(sock: socket.socket) -> int:
    """As much as it takes now."""
    taken = 0
    with contextlib.suppress(OSError):
        while True:
            taken += sock.send(CHUNK)
    return taken


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("total", [1 * MIB, 1 << 30])
def test_peers_that_never_read_fill_no_memory_and_end_when_idle(driver: str, total: int) -> None:
    """Both ends send all they can and read nothing: `limits.unsent` and `limits.total` bound what is stored."""
    count = 8
    unsent = 256 * 1024
    with (
        pouring() as (upstream, pour),
        many(3 * count) as clients,
        running(
            driver,
            upstream.getsockname()[1],
            limits={"total": total, "unsent": unsent},
            timeouts={"idle": HOUR},
        ) as proxy,
    ):
        for number in range(count):
            clients.append(proxy.connect(number))
            clients[-1].setblocking(False)
        proxy.wait(lambda seen: seen["flows"] == count)
        poured, in_vain = 0, 0
        while poured <= 8 * MIB or in_vain < 10:  # until all are held up
            taken = pour() + sum(map(push, clients))
            poured += taken
            in_vain = 0 if taken or not proxy.look()["stored"] else in_vain + 1
        proxy.pass_until_empty(HOUR)
        seen = proxy.wait_empty()
        assert 0 < seen["most_stored"] <= min(total, 2 * count * unsent)
        assert seen["most_resident"] < MEMORY_BOUND
        assert seen["events"]["flow_deleted timeout"] == count
        proxy.stop()


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_upstream_that_accepts_and_never_answers_is_bounded_by_the_idle_time(driver: str) -> None:
    count = 100
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1024) as upstream,
        many(count) as clients,
        running(driver, upstream.getsockname()[1], timeouts={"idle": HOUR}) as proxy,
    ):
        for number in range(count):
            clients.append(proxy.connect(number))
            clients[-1].sendall(b"hallo?")
        proxy.wait(lambda seen: seen["flows"] == count)
        proxy.pass_until_empty(HOUR)
        assert all(is_over(sock) for sock in clients)
        seen = proxy.wait_empty()
        assert seen["events"]["flow_deleted timeout"] == count
        proxy.stop()


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_upstream_that_does_not_even_accept_is_bounded_by_the_connect_time(driver: str) -> None:
    count = 100
    with socket.socket() as upstream, socket.socket() as first, many(count) as clients:
        upstream.bind(("127.0.0.1", 0))
        upstream.listen(0)
        first.connect(upstream.getsockname())
        select.select([upstream], [], [])
        port = upstream.getsockname()[1]
        with running(driver, port, timeouts={"connect": HOUR}) as proxy:
            for number in range(count):
                clients.append(proxy.connect(number))
            proxy.wait(lambda seen: seen["connections"] == count)
            proxy.pass_until_empty(HOUR)
            assert all(is_over(sock) for sock in clients)
            seen = proxy.wait_empty()
            assert seen["events"]["connect_failed no answer within 3600 s"] == count
            assert sum(n for line, n in seen["lines"].items() if "no answer within 3600 s" in line) == count
            proxy.stop()


# --- a burst ------------------------------------------------------------------------------------------


def burst(proxy: ChildProxy, processes: int, each: int) -> dict[str, int]:
    """So many connects at once from each of so many processes, to one listener each: what became of them."""
    command = [sys.executable, "-m", "tests.transport.crowd", "burst"]
    with contextlib.ExitStack() as stack:
        crowds = []
        for number in range(processes):
            arguments = map(str, (proxy.ports[number], each, 10 * number))
            crowds.append(
                stack.enter_context(
                    subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True)
                )
            )
        fates: dict[str, int] = {}
        for crowd in crowds:
            assert crowd.stdout is not None
            for fate, count in json.loads(crowd.stdout.readline()).items():
                fates[fate] = fates.get(fate, 0) + count
    return fates


@pytest.mark.timeout(900)
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("processes", "each", "descriptors"), [(2, 250, 64), pytest.param(5, 4000, 256, marks=pytest.mark.long)]
)
def test_a_burst_of_connects_with_few_descriptors_is_served_to_the_last(
    driver: str, processes: int, each: int, descriptors: int
) -> None:
    """Nobody hangs, nobody is lost, nothing is left open, and it is told.

    A listener per process: the kernel lets no more than `net.core.somaxconn` (4,096) wait at one, and who comes then
    tries again after ever longer times of the kernel's own.
    """
    count = processes * each
    with (
        echo() as upstream,
        running(driver, upstream, nofile=descriptors, listeners=processes) as proxy,
    ):
        fates = burst(proxy, processes, each)
        assert fates == {"served": count, "hanging": 0}
        seen = proxy.wait_empty()
        assert seen["accepted"] == count
        assert seen["events"]["flow_deleted fin"] == count
        assert any(f"the limit of open files allows ({descriptors} files)" in line for line in seen["lines"])
        assert seen["most_resident"] < MEMORY_BOUND
        assert is_served(proxy, 0)
        proxy.stop()


def test_the_crowd_tells_fates_apart() -> None:
    """The load generator itself: who is served, refused, reset."""
    with echo() as upstream:
        assert burst_at(upstream) == {"served": 5, "hanging": 0}
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert burst_at(nobody.getsockname()[1]) == {"refused": 5, "hanging": 0}


def burst_at(port: int) -> dict[str, int]:
    """Five connects."""
    return dict(Burst(port, 5, 0).run(PATIENCE))
