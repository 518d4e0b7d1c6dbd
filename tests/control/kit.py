"""A control server on a thread of its own, and clients that say what no real one would."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio

from wfpstream.control import Commands, ControlError, ControlLimits, serve_control

# Bounds what would otherwise hang for ever; never what a test waits for.
TIMEOUT = 30.0


def fails(arguments: dict[str, Any]) -> None:
    raise ControlError("no flow 7")


def breaks(arguments: dict[str, Any]) -> None:
    raise KeyError("surprise\nin two lines")


async def later(arguments: dict[str, Any]) -> str:
    await trio.lowlevel.checkpoint()
    return "later"


COMMANDS: Commands = {
    "echo": lambda arguments: arguments,
    "fails": fails,
    "breaks": breaks,
    "later": later,
    "bulk": lambda arguments: "x" * int(arguments["size"]),
    "odd": lambda arguments: {"path": Path("/x"), "bad": "\udc80"},
    "plain": lambda arguments: {"path": Path("/x"), "number": 1.5},
}


class Served:
    """A server that listens; `log` has what it said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log: list[str] = []
        self.error: BaseException | None = None
        self._token: trio.lowlevel.TrioToken
        self._scope: trio.CancelScope
        self._ready = threading.Event()

    def run(self, commands: Commands, limits: ControlLimits | None) -> None:
        try:
            trio.run(self._main, commands, limits)
        except BaseException as error:
            self.error = error
        finally:
            self._ready.set()

    async def _main(self, commands: Commands, limits: ControlLimits | None) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:

                async def serve(task_status: trio.TaskStatus[Path]) -> None:
                    await serve_control(
                        self.path, commands, limits=limits, log=self.log.append, task_status=task_status
                    )

                await nursery.start(serve)
                self._ready.set()

    def wait(self) -> None:
        assert self._ready.wait(TIMEOUT)
        if self.error is not None:
            raise self.error

    def in_loop(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call `fn` on the server's thread."""
        return trio.from_thread.run_sync(fn, *args, trio_token=self._token)

    def stop(self) -> None:
        if self.error is None:
            self.in_loop(self._scope.cancel)


@contextmanager
def serving(
    path: Path, commands: Commands = COMMANDS, limits: ControlLimits | None = None
) -> Iterator[Served]:
    """Serve for as long as the block lasts; what the server raises comes out."""
    served = Served(path)
    thread = threading.Thread(target=served.run, args=(commands, limits))
    thread.start()
    try:
        served.wait()
        yield served
    finally:
        served.stop()
        thread.join(TIMEOUT)
    if served.error is not None:
        raise served.error


class Client:
    """A raw connection."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.connect(str(path))  # blocking: it waits for room in the backlog
        except OSError:
            self.sock.close()
            raise
        self.sock.settimeout(TIMEOUT)
        self._rest = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *args: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def say(self, command: str, **arguments: Any) -> None:
        self.send(json.dumps({"id": command, "command": command, "arguments": arguments}).encode() + b"\n")

    def line(self) -> dict[str, Any] | None:
        """The next answer; None at the end."""
        while b"\n" not in self._rest:
            try:
                data = self.sock.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self.say(command, **arguments)
        answer = self.line()
        assert answer is not None
        return answer

    def lines(self) -> list[dict[str, Any]]:
        """All answers to the end."""
        found = []
        while (line := self.line()) is not None:
            found.append(line)
        return found
