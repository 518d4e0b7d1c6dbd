"""Starting real servers, and `wfpstream run` in front of them.

Servers get a listening socket bound to port 0 where they can inherit one (nginx); the others are started on a
port the kernel gave, which we hold for them.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.system import require

START_TIMEOUT = 60.0


class RunningProxy:
    """A `wfpstream run` process."""

    def __init__(self, process: subprocess.Popen[str], host: str, port: int, events: Path) -> None:
        self.process = process
        self.host = host
        self.port = port
        self.events_file = events

    @property
    def pid(self) -> int:
        return self.process.pid

    def events(self) -> list[dict[str, object]]:
        """The events written so far; complete after `stop`."""
        return [json.loads(line) for line in self.events_file.read_text().splitlines()]

    def peak_memory(self) -> int:
        """Peak resident memory of the process, bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(entry for entry in status.splitlines() if entry.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def descriptors(self) -> int:
        """How many files the process has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_TIMEOUT)


@contextlib.contextmanager
def proxy(
    upstream: tuple[str, int], folder: Path, *callouts: str, options: Sequence[str] = (), events: bool = True
) -> Iterator[RunningProxy]:
    """`wfpstream run` in reverse mode before `upstream`; must end with exit code 0 and balanced ledgers."""
    arguments = ["-q", "--mode", f"reverse:{upstream[0]}:{upstream[1]}"]
    for callout in callouts:
        arguments += ["--callout", callout]
    with _running([*arguments, *options], folder, events) as running:
        yield running


@contextlib.contextmanager
def configured_proxy(config: str, folder: Path, *options: str, events: bool = True) -> Iterator[RunningProxy]:
    """As `proxy`, from the text of a configuration file; its first listener is the one of `host` and `port`."""
    file = folder / "wfpstream.toml"
    file.write_text(config)
    file.chmod(0o600)
    with _running(["-c", str(file), *options], folder, events) as running:
        yield running


@contextlib.contextmanager
def _running(arguments: Sequence[str], folder: Path, events: bool) -> Iterator[RunningProxy]:
    log = folder / "events.jsonl"
    command = [sys.executable, "-m", "wfpstream", "run", *arguments]
    if events:
        command += ["--events", str(log)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        assert line.startswith("listening on "), line + process.stderr.read()
        host, _, port = line.split()[2].rpartition(":")
        running = RunningProxy(process, host.strip("[]"), int(port), log)
        yield running
        code = running.stop() if process.poll() is None else process.returncode
        assert code == 0, process.stderr.read()
        if events:
            assert not [e for e in running.events() if e["event"] == "ledger_fault"]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether the process listens on `port`; False when it ended first."""
    while process.poll() is None:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
    return False


@contextlib.contextmanager
def server(make_command: object) -> Iterator[int]:
    """A server started by `make_command(port) -> argv`, on a port of the kernel's choice."""
    assert callable(make_command)
    # Bound, and no listener: nobody is given it, and who says SO_REUSEADDR, as servers do, may listen there.
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        process = subprocess.Popen(make_command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert wait_for_port(process, port), "the server did not start"
            yield port
        finally:
            process.terminate()
            process.wait(START_TIMEOUT)


@contextlib.contextmanager
def nginx(folder: Path, body: str, listen: str = "") -> Iterator[int]:
    """nginx with `body` inside its server block, on an inherited socket bound to port 0; `listen`: its options."""
    program = require("nginx")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port = listener.getsockname()[1]
        for name in ("client", "proxy", "logs"):
            (folder / name).mkdir(exist_ok=True)
        config = folder / "nginx.conf"
        config.write_text(
            f"""daemon off; worker_processes 1; user {getpass.getuser()};
            pid {folder}/nginx.pid; error_log {folder}/logs/error.log;
            events {{ worker_connections 256; }}
            http {{
              access_log off; client_body_temp_path {folder}/client; client_max_body_size 0;
              proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/proxy;
              uwsgi_temp_path {folder}/proxy; scgi_temp_path {folder}/proxy;
              server {{ listen 127.0.0.1:{port} {listen}; root {folder}/www; {body} }}
            }}"""
        )
        os.set_inheritable(listener.fileno(), True)
        process = subprocess.Popen(
            [program, "-p", str(folder), "-c", str(config)],
            env={**os.environ, "NGINX": f"{listener.fileno()};"},
            pass_fds=[listener.fileno()],
            stderr=subprocess.DEVNULL,
        )
    try:
        assert wait_for_port(process, port), (folder / "logs" / "error.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(START_TIMEOUT)
