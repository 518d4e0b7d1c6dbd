"""The running proxy on loopback: CPU of its process per GB and per round trip, and the wall clock beside it.

A direct connection between the same peers is measured in the same rounds, so that a noisy machine shows.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

GB = 10**9
BULK = GB // 2
ROUND_TRIPS = 5_000
CASES = {
    "direct": None,
    "relay": (),
    "monitor": ("monitor",),
    "stream_edit, no match": ("stream_edit,find=never-there,replace=x",),
}
TICK = os.sysconf("SC_CLK_TCK")


def serve(listener: socket.socket) -> None:
    """Upstream: `b` asks for the bulk, anything else is echoed."""
    block = bytes(1 << 18)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            first = connection.recv(64)
            if first == b"b":
                for _ in range(BULK // len(block)):
                    connection.sendall(block)
                connection.shutdown(socket.SHUT_WR)
            while first:
                if first != b"b":
                    connection.sendall(first)
                first = connection.recv(4096)


def bulk(port: int) -> float:
    """Seconds to receive the bulk."""
    buffer = bytearray(1 << 18)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"b")
        while connection.recv_into(buffer):
            pass
    return time.perf_counter() - began


def ping_pong(port: int) -> float:
    """Seconds for ROUND_TRIPS round trips of 64 bytes."""
    message = bytes(64)
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ROUND_TRIPS):
            connection.sendall(message)
            left = 64
            while left:
                left -= len(connection.recv(left))
    return time.perf_counter() - began


@contextlib.contextmanager
def running(callouts: tuple[str, ...] | None, upstream: int) -> Iterator[tuple[int, int]]:
    """(port, pid) of `wfpstream run`, or the upstream itself."""
    if callouts is None:
        yield upstream, 0
        return
    command = [sys.executable, "-m", "wfpstream", "run", "-q", "--mode", f"reverse:127.0.0.1:{upstream}"]
    for callout in callouts:
        command += ["--callout", callout]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        yield int(process.stderr.readline().split()[2].rpartition(":")[2]), process.pid
        process.terminate()


def cpu_of(pid: int) -> float:
    """User and system seconds of a process so far."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Medians over interleaved rounds."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    seen: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, callouts in CASES.items():
            with running(callouts, listener.getsockname()[1]) as (port, pid):
                before = cpu_of(pid)
                wall = bulk(port)
                between = cpu_of(pid)
                trips = ping_pong(port)
                after = cpu_of(pid)
            per_gb, per_trip = (between - before) * GB / BULK, (after - between) / ROUND_TRIPS * 1e6
            seen[name].append((per_gb, BULK * 8 / wall / 1e9, per_trip, trips / ROUND_TRIPS * 1e6))
    listener.close()
    print("loopback: the proxy's own CPU (user + system) and the wall clock, median of", rounds)
    print(f"{'':>24} {'CPU s/GB':>10} {'Gbit/s':>8} {'CPU us/trip':>12} {'us/trip':>9}")
    figures = {}
    for name, rows in seen.items():
        values = [median(column) for column in zip(*rows, strict=True)]
        print(f"{name:>24} {values[0]:>10.2f} {values[1]:>8.2f} {values[2]:>12.1f} {values[3]:>9.1f}")
        keys = ("cpu_s_per_gb", "gbit_per_s", "cpu_us_per_trip", "us_per_trip")
        figures[name] = dict(zip(keys, values, strict=True))
    return figures
