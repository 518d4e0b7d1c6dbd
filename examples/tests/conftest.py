"""The two servers: a real redis, and a real HTTP server in a thread."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis

Address = tuple[str, int]

REPORT = "\n".join(f"hour {hour:02d}: sunny, {10 + hour % 12} degrees" for hour in range(200))


class Reports(BaseHTTPRequestHandler):
    """The same report for every city; connections are kept."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = REPORT.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests have words of their own."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Connections are broken on purpose here."""


@pytest.fixture(scope="session")
def web() -> Iterator[Address]:
    """Where the HTTP server is."""
    with Server(("127.0.0.1", 0), Reports) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield ("127.0.0.1", server.server_port)
        server.shutdown()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Where redis is."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    folder = tmp_path_factory.mktemp("redis")
    # Redis cannot take port 0. What we hold nobody else is given, and redis, which says SO_REUSEADDR, may listen there.
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                wait_until_it_answers(port, process)
                yield ("127.0.0.1", port)
            finally:
                process.kill()


def wait_until_it_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    with redis.Redis(port=port) as client:
        while process.poll() is None:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                time.sleep(0.02)
    pytest.fail("redis does not start")
