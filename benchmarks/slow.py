"""What one slow callout costs everybody else: 32 ping-pong flows beside a flow whose callout takes 50 ms per call.

The running proxy on loopback, two listeners: the quick flows have a monitor, the slow one has the slow callout. Inline
it costs every flow of its process; out of band, in a thread or a process, or in another worker it does not. Wall clock:
that is what the others feel.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import trio

from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, OutOfBandCallout, Worker

ROOT = Path(__file__).resolve().parent.parent
CALL = 0.05
QUICK_FLOWS = 32
MESSAGE = bytes(64)
SECONDS = 2.5
# A flow that shares its process with the slow one waits for whole calls; this tells the two kinds apart.
HIT = CALL / 2
PERMIT = int(ActionType.PERMIT)


def wait() -> None:
    """Work that waits for somebody else: a look-up, a disk."""
    time.sleep(CALL)


def compute() -> None:
    """Work that needs the processor, in Python: it holds the interpreter's lock."""
    until = time.monotonic() + CALL
    while time.monotonic() < until:
        sum(range(1000))


class Inline(Callout):
    """Waits inside classify."""

    def classify_fn(self, *call: Any) -> None:
        call[-1].action_type = PERMIT
        if call[2].stream_data.data_length:
            self.work()

    def work(self) -> None:
        """50 ms."""
        wait()


class InlineCompute(Inline):
    """Computes inside classify."""

    def work(self) -> None:
        """50 ms."""
        compute()


class Moved(Worker):
    """The same work in a thread; the loop goes on meanwhile."""

    async def run(self) -> None:
        """One item after the other, as they came."""
        callout = self.callout
        assert isinstance(callout, OutOfBand)
        while (item := await self.next()).kind == "data":
            await self.call(trio.to_thread.run_sync, callout.work)
            await self.inject(item)
        if item.kind == "end":
            await self.inject_fin()


class OutOfBand(OutOfBandCallout):
    """Waits in a thread."""

    worker_class = Moved

    def work(self) -> None:
        """50 ms."""
        wait()


class OutOfBandCompute(OutOfBand):
    """Computes in a thread."""

    def work(self) -> None:
        """50 ms."""
        compute()


class InProcess(OutOfBand):
    """Computes in another process; a thread waits for it."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def work(self) -> None:
        """50 ms."""
        self.pool.submit(compute).result()


# Name: the slow flow's callout (None: there is no slow flow), further options of `run`.
CASES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "no slow flow": (None, ()),
    "inline, waits": ("Inline", ()),
    "inline, computes": ("InlineCompute", ()),
    "thread, waits": ("OutOfBand", ()),
    "thread, computes": ("OutOfBandCompute", ()),
    "process, computes": ("InProcess", ()),
    "inline, --workers 2": ("Inline", ("--workers", "2")),
}


@contextlib.contextmanager
def proxy(upstream: int, callout: str | None, options: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """The ports of a running proxy: for the quick flows, and for the slow one."""
    command = [sys.executable, "-m", "wfpstream", "run", "-q", *options]
    for name in ("quick", "slow"):
        command += ["--mode", f"{name}=reverse:127.0.0.1:{upstream}"]
    command += ["--callout", "quick:monitor,summary=false"]
    if callout is not None:
        command += ["--callout", f"slow:benchmarks.slow:{callout}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        ports = [int(line.split()[2].rpartition(":")[2]) for line in lines]
        yield ports[0], ports[1]
        process.terminate()


def echo(listener: socket.socket) -> None:
    """The upstream: everything comes back. Ends with its listener."""
    epoll = select.epoll()
    epoll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while listener.fileno() != -1:
        for fd, _ in epoll.poll(0.5):
            if fd not in connections:
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    connections[connection.fileno()] = connection
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    epoll.register(connection.fileno(), select.EPOLLIN)
                continue
            try:
                data = connections[fd].recv(4096)
            except OSError:
                data = b""
            if data:
                connections[fd].sendall(data)
            else:
                connections.pop(fd).close()
    epoll.close()


class PingPong:
    """Flows that send a message, and the next one when it has come back."""

    def __init__(self) -> None:
        self.trips: dict[int, list[float]] = {}
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._sent: dict[int, float] = {}
        self._quick: set[int] = set()

    def connect(self, port: int, *, is_quick: bool) -> None:
        """One more flow; its first trip is not counted."""
        sock = socket.create_connection(("127.0.0.1", port), 10.0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(MESSAGE)
        left = len(MESSAGE)
        while left:
            left -= len(sock.recv(left))
        fd = sock.fileno()
        self._sockets[fd] = sock
        self._epoll.register(fd, select.EPOLLIN)
        if is_quick:
            self._quick.add(fd)
            self.trips[fd] = []

    def run(self, seconds: float) -> None:
        """Play for so long."""
        for fd in self._sockets:
            self._send(fd)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for fd, _ in self._epoll.poll(0.1):
                self._sockets[fd].recv(4096)
                if fd in self._quick:
                    self.trips[fd].append(time.monotonic() - self._sent[fd])
                self._send(fd)

    def _send(self, fd: int) -> None:
        self._sent[fd] = time.monotonic()
        self._sockets[fd].sendall(MESSAGE)

    def close(self) -> None:
        """The end."""
        for sock in self._sockets.values():
            sock.close()
        self._epoll.close()


def quantile(values: list[float], share: float) -> float:
    """Of sorted or unsorted values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def one_round(upstream: int, name: str) -> tuple[float, float, float, float, float]:
    """Trips per second, p50 and p99 of all (ms), flows that were hit, p99 of the others (ms; 0: there are none)."""
    callout, options = CASES[name]
    with proxy(upstream, callout, options) as (quick, slow):
        game = PingPong()
        for _ in range(QUICK_FLOWS):
            game.connect(quick, is_quick=True)
        if callout is not None:
            game.connect(slow, is_quick=False)
        game.run(SECONDS)
        game.close()
    every = [trip for trips in game.trips.values() for trip in trips]
    others = [trips for trips in game.trips.values() if not trips or quantile(trips, 0.5) < HIT]
    spared = [trip for trips in others for trip in trips]
    return (
        len(every) / SECONDS,
        quantile(every, 0.5) * 1e3,
        quantile(every, 0.99) * 1e3,
        QUICK_FLOWS - len(others),
        quantile(spared, 0.99) * 1e3 if spared else 0.0,
    )


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Medians over interleaved rounds."""
    seen: dict[str, list[tuple[float, ...]]] = {name: [] for name in CASES}
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threading.Thread(target=echo, args=(listener,), daemon=True).start()
        for _ in range(rounds):
            for name in CASES:
                seen[name].append(one_round(listener.getsockname()[1], name))
    print(
        f"slow: {QUICK_FLOWS} ping-pong flows beside one whose callout takes 50 ms per call, median of {rounds}"
    )
    print(f"{'':>22} {'trips/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'flows hit':>10} {'p99 of the others':>18}")
    keys = ("trips_per_s", "p50_ms", "p99_ms", "flows_hit", "p99_of_others_ms")
    figures = {}
    for name, rows in seen.items():
        values = [median(column) for column in zip(*rows, strict=True)]
        figures[name] = dict(zip(keys, values, strict=True))
        trips, p50, p99, hit, others = values
        rest = f"{others:.2f}" if others else "-"
        print(f"{name:>22} {trips:>9.0f} {p50:>8.2f} {p99:>8.2f} {hit:>10.0f} {rest:>18}")
    return figures
