"""Starting and stopping a relay. Ends only what it started: each relay has a session of its own."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers._programs import Peer, Start

START_PATIENCE = 20.0
# Below the kernel's range for outgoing connections, of which the loads make thousands.
_PORTS = range(18_000, 32_000)


class StartError(Exception):
    """A relay did not start; its last line says why."""


@dataclass(frozen=True)
class Running:
    """A relay that accepts.

    Attributes:
        pid: its process; 0 where there is none, because the load talks to its own server.
        port: where it listens, on 127.0.0.1.
    """

    pid: int
    port: int


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now. Most relays cannot say which one they took."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise StartError("found no free port")


@contextlib.contextmanager
def running(
    peer: Peer, upstream: int, wrap: Callable[[Sequence[str]], Sequence[str]] = lambda command: command
) -> Iterator[Running]:
    """The relay, for as long as the block runs.

    Raises:
        MissingError: it is not on this machine.
        StartError: it ended, or did not accept in time.
    """
    if peer.command is None:
        yield Running(0, upstream)
        return
    with tempfile.TemporaryDirectory(prefix="wfpstream-benchmark-") as folder:
        start = Start(free_port(), upstream, Path(folder))
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                wrap(peer.command(start)),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder,
                env={**os.environ, **peer.environment}, start_new_session=True,
            )  # fmt: skip
        try:
            _wait_accepting(process, start.port, log)
            yield Running(process.pid, start.port)
        finally:
            _end(process)


def _wait_accepting(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_PATIENCE
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as probe:
            probe.settimeout(START_PATIENCE)
            # Through to the upstream: its echo comes back.
            probe.sendall(b"R")
            if probe.recv(1) == b"R":
                return
        time.sleep(0.02)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    raise StartError(lines[-1].strip() if lines else f"did not accept within {START_PATIENCE:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    for last_word in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, last_word)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)
            break
    # Children that outlived it, such as socat's.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
