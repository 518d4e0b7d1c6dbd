"""A server to relay to, and `wfpstream run` as a process whose lines a test can wait for."""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# Bounds what would otherwise hang for ever; never what a test waits for.
TIMEOUT = 100.0


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            return  # a reset behind an end that is still to be read is told as a broken pipe


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def echo_server() -> Iterator[int]:
    """A server that says what it hears; its port."""
    with _Server(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def wfpstream(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        command_line(*arguments), capture_output=True, text=True, timeout=TIMEOUT, check=False, **options
    )


def command_line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "wfpstream", *map(str, arguments)]


class Running:
    """`wfpstream run` in a process of its own, listening."""

    def __init__(self, process: subprocess.Popen[str], listeners: int) -> None:
        self.process = process
        self.lines: list[str] = []
        self.addresses: list[tuple[str, int]] = []
        while len(self.addresses) < listeners:
            line = self.wait_line("listening on ")
            host, _, port = line.split()[2].rpartition(":")
            self.addresses.append((host.strip("[]"), int(port)))

    @property
    def stderr(self) -> IO[str]:
        assert self.process.stderr is not None
        return self.process.stderr

    def wait_line(self, text: str) -> str:
        """The next line on stderr that holds `text`."""
        for line in self.stderr:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return line
        raise AssertionError(f"ended without {text!r}: {self.lines}")

    def connect(self, listener: int = 0) -> socket.socket:
        return socket.create_connection(self.addresses[listener], timeout=TIMEOUT)

    def ask(self, request: bytes, listener: int = 0) -> bytes:
        """Send all, half-close, and read to the end; beside each other, whatever the buffers between can hold."""
        with self.connect(listener) as client:
            return talk(client, request)

    def assert_turns_away(self) -> None:
        """Who connects now is reset, whatever he is doing when it reaches him: connecting already, or reading."""
        with pytest.raises(ConnectionResetError), self.connect() as client:
            client.recv(1)

    def wait_turned_away(self) -> None:
        """Until nobody is accepted any more."""
        with pytest.raises(OSError, match=r"refused|reset"):
            while True:
                self.connect().close()

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code; what was still said is in `lines`."""
        _, rest = self.process.communicate(timeout=TIMEOUT)
        self.lines += rest.splitlines()
        return self.process.returncode

    def stop(self) -> int:
        self.send_signal(signal.SIGTERM)
        return self.wait()


def talk(client: socket.socket, request: bytes) -> bytes:
    """What comes back of `request`, which is sent meanwhile, and an end behind it."""
    failures: list[OSError] = []

    def send() -> None:
        try:
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
        except OSError as error:
            failures.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        answer = read_all(client)
    finally:
        sender.join()
    if failures:
        raise failures[0]
    return answer


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port where connections are refused, and which nobody else can get: it is bound, and does not listen."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def read_all(client: socket.socket) -> bytes:
    data = b""
    while chunk := client.recv(65536):
        data += chunk
    return data


def read_exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = client.recv(count - len(data))
        assert chunk, f"the end after {data!r}"
        data += chunk
    return data


@contextmanager
def running(*arguments: str | Path, listeners: int = 1, **options: Any) -> Iterator[Running]:
    """Start `wfpstream run` and wait until it listens."""
    settings: dict[str, Any] = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.PIPE,
        "text": True,
    } | options
    with subprocess.Popen(command_line("run", *arguments), **settings) as process:
        try:
            yield Running(process, listeners)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


def json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def mode_of(path: Path) -> int:
    return os.stat(path).st_mode & 0o777


def python(code: str) -> Sequence[str]:
    """A command that runs `code`."""
    return [sys.executable, "-c", code]
