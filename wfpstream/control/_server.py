"""The server of the control socket: clients, their limits, and one request after the other for each.

Owns who is let in and for how long. It must not know what a command does: it is given callables.
"""

from __future__ import annotations

import errno
import inspect
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from ._binding import bind_private
from ._peer import is_trusted, peer_of
from ._protocol import (
    BUSY,
    DEFECT,
    DENIED,
    TIMEOUT,
    TOO_LONG,
    UNKNOWN,
    ControlError,
    ControlLimits,
    error_line,
    read_request,
    result_line,
)

__all__ = ["Commands", "serve_control"]

Commands = Mapping[str, Callable[[dict[str, Any]], Any]]
"""By name, what is called with the arguments; it returns plain data, or an awaitable of it."""

_CHUNK = 1 << 16
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE = 0.1


class _Gone(Exception):
    """There is nobody to talk to any more."""


async def serve_control(
    path: str | os.PathLike[str],
    commands: Commands,
    *,
    limits: ControlLimits | None = None,
    log: Callable[[str], object] = lambda line: None,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer at the Unix socket `path` until cancelled; the socket is removed then.

    Args:
        path: where; see `default_socket_path`. It is opened for its owner only.
        commands: what can be asked for. They are called on this thread; one that raises is an error for its
            client, `ControlError` with the code it says.
        limits: what a client may have of us.
        log: gets a line when a command raised what it should not have.
        task_status: told the path when it listens.

    Raises:
        ControlError: it cannot be opened.
    """
    bound = await bind_private(Path(path))
    try:
        server = _Server(bound.sock, commands, limits or ControlLimits(), log)
        with server.spare:
            async with trio.open_nursery() as clients:
                task_status.started(bound.path)
                await server.accept(clients)
    finally:
        bound.close()


class _Spare:
    """A descriptor kept for the day when there are no others: then, above all, somebody wants to ask."""

    def __init__(self) -> None:
        self._fd: int | None = None

    def __enter__(self) -> None:
        self.renew()

    def __exit__(self, *args: object) -> None:
        self.give()

    def renew(self) -> None:
        """Have one, if it can be had."""
        if self._fd is None:
            try:
                self._fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return

    def give(self) -> bool:
        """Free it; whether there was one."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
        return fd is not None


class _Server:
    def __init__(
        self,
        listener: socket.socket,
        commands: Commands,
        limits: ControlLimits,
        log: Callable[[str], object],
    ) -> None:
        self.spare = _Spare()
        self.limits = limits
        self._listener = listener
        self._commands = commands
        self._log = log
        self._clients = 0

    # --- who is let in ---

    async def accept(self, clients: trio.Nursery) -> None:
        """Let clients in, for ever."""
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._listener)
                continue
            except OSError as error:
                # Out of descriptors the spare one lets one client in; the others wait in the backlog.
                if error.errno not in _EXHAUSTED or not self.spare.give():
                    await trio.sleep(_PAUSE)
                continue
            sock.setblocking(False)
            refused = self._refusal(sock)
            if refused is None:
                self._clients += 1
                clients.start_soon(self._serve, sock)
            else:
                _turn_away(sock, refused)
                self.spare.renew()
            # A thousand of them in a row do not keep the proxy from its work.
            await trio.lowlevel.checkpoint()

    def _refusal(self, sock: socket.socket) -> ControlError | None:
        try:
            uid = peer_of(sock).uid
        except OSError as error:
            return ControlError(f"who are you? {error.strerror}", DENIED)
        if not is_trusted(uid):
            return ControlError(f"uid {uid} may not control this process", DENIED)
        if self._clients >= self.limits.clients:
            return ControlError(f"busy: {self._clients} others are connected; try again", BUSY)
        return None

    async def _serve(self, sock: socket.socket) -> None:
        try:
            await _Client(sock, self).run()
        except _Gone:
            pass
        finally:
            sock.close()
            self._clients -= 1
            self.spare.renew()

    # --- what is asked ---

    async def answer(self, line: bytes) -> bytes:
        """The line that answers `line`."""
        request_id = None
        try:
            request = read_request(line)
            request_id = request.id
            return result_line(request_id, await self._perform(request.command, request.arguments))
        except ControlError as error:
            return error_line(request_id, error)

    async def _perform(self, name: str, arguments: dict[str, Any]) -> Any:
        command = self._commands.get(name)
        if command is None:
            known = ", ".join(self._commands)
            raise ControlError(f"unknown command {name[:60]!r}; known: {known}", UNKNOWN)
        try:
            result = command(arguments)
            return await result if inspect.isawaitable(result) else result
        except ControlError:
            raise
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            self._log(f"control command {name}: {what}")
            raise ControlError(f"this is a defect of wfpstream: {what}", DEFECT) from error


class _Client:
    """One connection: its half-read request, and the requests behind that one."""

    def __init__(self, sock: socket.socket, server: _Server) -> None:
        self._sock = sock
        self._server = server
        self._limits = server.limits
        self._buffer = bytearray()
        self._searched = 0

    async def run(self) -> None:
        """Answer until the client has gone, or has had its chance."""
        while True:
            try:
                line = await self._next_line()
            except ControlError as error:
                _turn_away(self._sock, error)
                return
            if line.strip():
                await self._write(await self._server.answer(line))
            # Who asks without end asks in turns with everybody else.
            await trio.lowlevel.checkpoint()

    async def _next_line(self) -> bytes:
        """Without its end.

        Raises:
            ControlError: it is too long, or took too long.
            _Gone: there will be none.
        """
        patience = self._limits.read if self._buffer else self._limits.idle
        with trio.move_on_after(patience) as scope:
            while (line := self._line_in_buffer()) is None:
                is_first = not self._buffer
                self._buffer += await self._receive()
                if is_first:
                    scope.deadline = trio.current_time() + self._limits.read
            return line
        if self._buffer:
            raise ControlError(f"no end of the line within {self._limits.read:g} s", TIMEOUT)
        raise _Gone

    def _line_in_buffer(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._searched)
        if (end if end >= 0 else len(self._buffer)) > self._limits.line:
            raise ControlError(f"a request has at most {self._limits.line} bytes", TOO_LONG)
        if end < 0:
            self._searched = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        return line

    async def _receive(self) -> bytes:
        while True:
            try:
                data = self._sock.recv(_CHUNK)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
                continue
            except OSError:
                raise _Gone from None
            if not data:
                raise _Gone
            return data

    async def _write(self, line: bytes) -> None:
        """Write at once what the socket takes: an answer goes out even when we are cancelled right after it."""
        rest = memoryview(line)
        with trio.move_on_after(self._limits.write):
            while rest:
                try:
                    rest = rest[self._sock.send(rest) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._sock)
                except OSError:
                    raise _Gone from None
            return
        raise _Gone


def _turn_away(sock: socket.socket, error: ControlError) -> None:
    """Say why, if that can be said without waiting, and close."""
    try:
        sock.send(error_line(None, error))
    except OSError:
        pass
    sock.close()
