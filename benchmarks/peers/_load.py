"""The load generator: compiled into the cache folder when its sources have changed, and talked to.

Owns the protocol of `benchmarks/load/` ("ready", "go", one line of JSON). Knows no proxy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import selectors
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

SOURCES = Path(__file__).parent.parent / "load"
FLAGS = ("-O2", "-Wall", "-Wextra")
# Opening thousands of connections, or millions of messages, through the slowest relay takes a while; the load gives up
# by itself after 30 s in which nothing moved.
PATIENCE = 1800.0

Options = Mapping[str, float]
Wrap = Callable[[Sequence[str]], Sequence[str]]


class LoadError(Exception):
    """The load could not be made or could not be put; one line."""


def cache_folder() -> Path:
    """Where compiled programs and the peers from PyPI are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "wfpstream-benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def compiled(folder: Path | None = None) -> Path:
    """The load generator's program.

    Raises:
        LoadError: there is no C compiler, or it refused.
    """
    folder = folder or cache_folder()
    sources = sorted(SOURCES.glob("*.c"))
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted(SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    program = folder / f"load-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise LoadError("no C compiler (cc, gcc or clang) on the PATH: the load generator cannot be built")
    building = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, *FLAGS, "-o", building, *sources], check=False, capture_output=True, text=True
    )
    if done.returncode:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise LoadError(f"{compiler} refused the load generator: {first}")
    building.rename(program)  # in one step: another run may be building the same
    return program


class Client:
    """A running workload: opened and warmed up; `run` it once, `close` it at the end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._expect("ready")

    def run(self) -> dict[str, Any]:
        """Give the word; what the load says when it has finished.

        Raises:
            LoadError: the relay lost something, or nothing moved any more.
        """
        _pipe(self._process.stdin).write("go\n")
        _pipe(self._process.stdin).flush()
        return self._read()

    def close(self) -> None:
        """End the connections that are still held."""
        _pipe(self._process.stdin).close()
        self._process.wait(PATIENCE)
        _pipe(self._process.stdout).close()

    def _expect(self, word: str) -> None:
        line = self._line()
        if line != word:
            self._fail(line)

    def _read(self) -> dict[str, Any]:
        line = self._line()
        answer: dict[str, Any] = json.loads(line) if line.startswith("{") else {"error": line or "it ended"}
        if "error" in answer:
            self._fail(line)
        return answer

    def _line(self) -> str:
        output = _pipe(self._process.stdout)
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            if not selector.select(PATIENCE):
                self._process.kill()
                raise LoadError(f"the load said nothing for {PATIENCE:.0f} s")
        return output.readline().strip()

    def _fail(self, line: str) -> None:
        self._process.kill()
        reason = json.loads(line).get("error", line) if line.startswith("{") else line or "it ended"
        raise LoadError(str(reason))


def _pipe(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


class Load:
    """The generator with its upstream server running.

    Args:
        program: from `compiled`.
        wrap: changes the command lines, such as to choose a CPU.
    """

    def __init__(self, program: Path, wrap: Wrap = lambda command: command) -> None:
        self._program = program
        self._wrap = wrap
        self._server = self._start(["serve"])
        self.port = int(_pipe(self._server.stdout).readline())

    @contextlib.contextmanager
    def client(self, workload: str, port: int, options: Options) -> Iterator[Client]:
        """A workload against a port of 127.0.0.1.

        Raises:
            LoadError: as the load says.
        """
        settings = [f"{name}={value:.17g}" for name, value in options.items()]
        process = self._start([workload, str(port), *settings])
        try:
            client = Client(process)
            yield client
            client.close()
        finally:
            _stop(process)

    def close(self) -> None:
        """End the upstream server."""
        _stop(self._server)

    def _start(self, arguments: list[str]) -> subprocess.Popen[str]:
        command = self._wrap([str(self._program), *arguments])
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
