"""Whole pytest sessions in a process of their own, with exactly the plugins a test names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

OURS = "wfpstream.pytest_plugin"
PLUGINS = {
    "trio": "pytest_trio.plugin",
    "anyio": "anyio.pytest_plugin",
    "asyncio": "pytest_asyncio.plugin",
    "xdist": "xdist.plugin",
}
_SETTINGS = {"asyncio": ("-o", "asyncio_default_fixture_loop_scope=function")}

# What every one of them has: an echo server on a thread.
ECHO = """
import socket, socketserver, threading
import pytest

class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        try:
            while data := self.request.recv(65536):
                self.request.sendall(data)
        except (ConnectionResetError, BrokenPipeError):
            pass

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True

@pytest.fixture(scope="session")
def echo():
    with Server(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_address
        server.shutdown()
"""


class Session(NamedTuple):
    """How a session ended, and what it said."""

    code: int
    out: str
    err: str


def run_session(
    folder: Path, source: str, *arguments: str, plugins: tuple[str, ...] = (), limit: float = 110.0
) -> Session:
    """Run the tests in `source` with our plugin and those of `plugins`; fails after `limit` seconds."""
    file = folder / "test_inner.py"
    file.write_text(dedent(ECHO) + dedent(source), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "-p", OURS]
    for plugin in plugins:
        command += ["-p", PLUGINS[plugin], *_SETTINGS.get(plugin, ())]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [*command, *arguments, str(file)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    return Session(done.returncode, done.stdout, done.stderr)
