"""Containers that share a network, as compose and Kubernetes start them, without either.

Owns what their files mean as far as ours use it: order, conditions, users, rights, volumes, probes. A key that is
not understood here is an error, so that a test cannot pass by leaving something out.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from tests.system.network import Host, host, join
from tests.system.sandbox import Mount, Sandbox

PATIENCE = 60.0

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Container:
    """What is started: a sandbox, and the whole command in it."""

    name: str
    sandbox: Sandbox
    argv: list[str]
    healthcheck: list[str]

    def succeeds(self, argv: Sequence[str]) -> bool:
        """Whether a probe's command does, with the container's own user, rights and volumes."""
        command = self.sandbox.command(argv)
        done = subprocess.run(command, check=False, capture_output=True, timeout=PATIENCE)
        return done.returncode == 0


class Running:
    """A container that was started."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.process = subprocess.Popen(
            container.sandbox.command(container.argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def first_pid(self) -> int:
        """The number that the container's process 1 has out here."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return int(wait_for(children.read_text).split()[0])

    def wait_until(self, probe: Sequence[str]) -> None:
        """Return when the probe succeeds; fail when the container ends before."""

        def is_there() -> bool:
            assert self.process.poll() is None, f"{self.container.name} ended: {self.output()}"
            return self.container.succeeds(probe)

        wait_for(is_there)

    def send(self, number: signal.Signals) -> None:
        """A signal to process 1, as `docker stop` or the kubelet sends it."""
        os.kill(self.first_pid, number)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.send(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(PATIENCE)

    def read_line(self) -> str:
        """The next line of standard output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def output(self, patience: float = PATIENCE) -> str:
        """What there is left to read, up to its end."""
        out, error = self.process.communicate(timeout=patience)
        return f"{out}{error}"

    def remove(self) -> None:
        """The end, whatever it did; nothing of it stays."""
        self.process.kill()  # and with it process 1, and with that all others
        self.process.communicate(timeout=PATIENCE)


@contextmanager
def started(container: Container) -> Iterator[Running]:
    """The container, running."""
    running = Running(container)
    try:
        yield running
    finally:
        running.remove()


def run_to_its_end(container: Container, patience: float = PATIENCE) -> str:
    """A container whose work is done when it ends; it must end well. Returns what it printed."""
    with started(container) as running:
        output = running.output(patience)
        assert running.process.returncode == 0, f"{container.name}: {output}"
    return output


def wait_for(look: Callable[[], _Found]) -> _Found:
    """What `look` returns, once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen"
    return found


# --- networks -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Networks:
    """Two network namespaces with a cable between them."""

    pod: Host
    outside: Host
    pod_address: str = "10.99.7.2"
    outside_address: str = "10.99.7.1"

    def hosts(self, folder: Path, **names: str) -> Mount:
        """A hosts file with these names, as a mount."""
        path = folder / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
        path.write_text("\n".join([*lines, ""]), encoding="utf-8")
        return Mount(path, "/etc/hosts")


@contextmanager
def networks() -> Iterator[Networks]:
    """Networks of this process only; they are gone afterwards."""
    with host("pod") as pod, host("outside") as outside:
        made = Networks(pod, outside)
        join(pod, "eth0", [made.pod_address], outside, "eth0", [made.outside_address])
        yield made


_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(network: Host) -> Iterator[None]:
    """Sockets made meanwhile by this thread belong to the network, and stay there."""
    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{network.name}", "rb") as there:
        _enter(there)
        try:
            yield
        finally:
            _enter(home)


def _enter(namespace: BinaryIO) -> None:
    if _libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def accepts(network: Host, port: int) -> bool:
    """Whether something in the network listens on the port."""
    with inside(network), socket.socket() as probe:
        probe.settimeout(PATIENCE)
        return probe.connect_ex(("127.0.0.1", port)) == 0


# --- what containers share --------------------------------------------------------------------------


class Volumes:
    """Folders outside that containers see inside: what they share outlives each of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def empty(self, name: str, *, mode: int, uid: int = 0, gid: int = 0) -> Path:
        """A folder that is empty at first; the same name gives the same folder."""
        folder = self._folder / name
        if not folder.exists():
            folder.mkdir()
            os.chown(folder, uid, gid)
            folder.chmod(mode)
        return folder

    def config_map(self, name: str, data: Mapping[str, str]) -> Path:
        """Files as the kubelet lays them down: links through `..data`, which one rename changes all at once."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        version = folder / f"..{len(list(folder.glob('..[0-9]*')))}"
        version.mkdir()
        for file, text in data.items():
            (version / file).write_text(text, encoding="utf-8")
            if not (folder / file).is_symlink():
                (folder / file).symlink_to(f"..data/{file}")
        (folder / "..new").symlink_to(version.name)
        (folder / "..new").rename(folder / "..data")
        return folder

    def path(self, name: str) -> Path:
        """Where the folder of that name is, or would be."""
        return self._folder / name
