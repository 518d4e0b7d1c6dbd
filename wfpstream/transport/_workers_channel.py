"""A worker's end of what is said between it and its parent, and what a process does to be a worker.

Owns the order: a start, then questions in any number, a stop; the parent's death is a stop as well. It must not know
what commands do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio

from ._sockets import let_legs_die_with_a_reset
from ._workers import WorkerError
from ._workers_process import WORKER_DEAF_TO
from ._workers_protocol import (
    Answered,
    Ask,
    Ended,
    Failed,
    FromWorker,
    Listening,
    Noticed,
    ProtocolError,
    Start,
    Stop,
    ToWorker,
    encode,
    to_worker,
)

__all__ = ["WorkerChannel", "become_worker"]

Perform = Callable[[str, dict[str, Any]], Awaitable[Any]]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_CHUNK = 1 << 16


def become_worker(number: int, parent: int) -> None:
    """Leave to the parent what a terminal or systemd tell the whole group, and do not outlive it.

    Should it be killed, its connections are reset.

    Raises:
        SystemExit: the parent is gone already.
    """
    for signal_number in WORKER_DEAF_TO:
        signal.signal(signal_number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WORKER_DEAF_TO)
    # Also when a callout does not return, and the end of the channel is not heard. Elsewhere than on Linux that is all.
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        libc.prctl(_PR_SET_NAME, f"wfpstream/{number}".encode(), 0, 0, 0)
    let_legs_die_with_a_reset()
    if os.getppid() != parent:
        sys.exit(1)


class WorkerChannel:
    """The channel over an inherited socket.

    Args:
        sock: the socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._lines = to_worker()
        self._came: list[ToWorker] = []
        self._outbox = bytearray()
        self._is_writing = False

    async def start(self) -> Start | None:
        """The first message; None: the parent is gone.

        Raises:
            ProtocolError: it is something else.
        """
        message = await self._next()
        if message is not None and not isinstance(message, Start):
            raise ProtocolError("expected a start first")
        return message

    async def obey(self, perform: Perform, stop: Callable[[float | None], object]) -> None:
        """Do what the parent asks, until it is gone.

        Args:
            perform: does a command; `WorkerError` says why not.
            stop: told to end, within so many seconds (None: however long it takes).
        """
        async with trio.open_nursery() as nursery:
            while True:
                message = await self._next()
                if message is None:
                    stop(0.0)
                    return
                if isinstance(message, Ask):
                    nursery.start_soon(self._answer, message, perform)
                elif isinstance(message, Stop):
                    stop(message.grace)

    async def listening(self) -> None:
        """Say so."""
        await self._send(Listening())

    async def failed(self, error: str) -> None:
        """Say why it cannot start."""
        await self._send(Failed(error))

    async def noticed(self, what: dict[str, Any]) -> None:
        """Say what has to be known whatever happens."""
        await self._send(Noticed(what))

    async def ended(self, summary: dict[str, Any]) -> None:
        """Say the last."""
        await self._send(Ended(summary))

    async def _answer(self, question: Ask, perform: Perform) -> None:
        try:
            answer = Answered(question.id, True, await perform(question.command, question.arguments))
        except WorkerError as error:
            answer = Answered(question.id, False, None, error.text, error.code)
        await self._send(answer)

    async def _next(self) -> ToWorker | None:
        while not self._came:
            try:
                data = await self._stream.receive_some(_CHUNK)
            except trio.BrokenResourceError:
                return None
            if not data:
                return None
            self._came = self._lines.feed(bytes(data))
        return self._came.pop(0)

    async def _send(self, message: FromWorker) -> None:
        """One writes; what others want to say meanwhile goes along."""
        self._outbox += encode(message)
        if self._is_writing:
            return
        self._is_writing = True
        try:
            while self._outbox:
                data, self._outbox = bytes(self._outbox), bytearray()
                await self._stream.send_all(data)
        except trio.BrokenResourceError:
            self._outbox.clear()  # the parent is gone: reading tells
        finally:
            self._is_writing = False
