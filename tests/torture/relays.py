"""A relay that can be told how to misbehave, so that every case of the suite is seen to fail."""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import trio

RESET = struct.pack("ii", 1, 0)
Socket = trio.socket.SocketType


@dataclass(frozen=True, slots=True)
class Manners:
    """How the relay behaves; the defaults are as right as a simple relay can be.

    Args:
        on_fin: of one side: pass it on, close both, reset both.
        on_reset: of one side: pass it on, end the other with FIN, or swallow what the other still says.
        spoil: (offset, bytes read) to bytes written.
        inline: urgent bytes are read in their place; else they fall out of the stream.
        hold: seconds each piece waits.
        idle: seconds of silence after which it closes both.
        greedy: reads on whatever the other side takes.
        sulks: refuses for ever once the upstream refused.
        every: drops each n-th connection.
        on_refused: what the client gets when the upstream refuses.
    """

    on_fin: Literal["pass", "close", "reset"] = "pass"
    on_reset: Literal["pass", "fin", "swallow"] = "pass"
    spoil: Callable[[int, bytes], bytes] = lambda _, data: data
    inline: bool = True
    hold: float = 0.0
    idle: float = float("inf")
    greedy: bool = False
    sulks: bool = False
    every: int = 0
    on_refused: Literal["reset", "fin"] = "reset"


class Relay:
    """Relays what its listener takes to `upstream`."""

    def __init__(self, manners: Manners, upstream: tuple[str, int]) -> None:
        self._manners = manners
        self._upstream = upstream
        self._count = 0
        self._sulking = False

    async def serve(self, client: Socket) -> None:
        """One connection."""
        self._count += 1
        manners = self._manners
        with client:
            if self._sulking or (manners.every and self._count % manners.every == 0):
                return
            with trio.socket.socket() as server:
                for sock in (client, server):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, manners.inline)
                try:
                    await server.connect(self._upstream)
                except OSError:
                    self._sulking = manners.sulks
                    if manners.on_refused == "reset":
                        _set_reset(client)
                    else:
                        # What is left unread would make the close a reset.
                        await client.recv(65536)
                    return
                async with trio.open_nursery() as nursery:
                    for near, far in ((client, server), (server, client)):
                        nursery.start_soon(self._direction, near, far, nursery)

    async def _direction(self, near: Socket, far: Socket, nursery: trio.Nursery) -> None:
        write = partial(self._write, near, far, nursery.cancel_scope)
        if self._manners.greedy:
            send, receive = trio.open_memory_channel[bytes](math.inf)
            nursery.start_soon(_write_all, receive, write)
            await self._read(near, far, send.send, nursery.cancel_scope)
        else:
            await self._read(near, far, write, nursery.cancel_scope)

    async def _read(self, near: Socket, far: Socket, write: Write, both: trio.CancelScope) -> None:
        offset = 0
        while True:
            try:
                with trio.fail_after(self._manners.idle):
                    piece = await near.recv(65536)
            except trio.TooSlowError:
                return both.cancel()
            except OSError:
                return self._on_reset(far, both)
            await write(self._manners.spoil(offset, piece))
            offset += len(piece)
            if not piece:
                return None

    async def _write(self, near: Socket, far: Socket, both: trio.CancelScope, piece: bytes) -> None:
        """Write a piece; an empty one is the FIN."""
        await trio.sleep(self._manners.hold)
        try:
            view = memoryview(piece)
            while view:
                view = view[await far.send(view) :]
            if not piece:
                self._on_fin(near, far, both)
        except OSError:
            self._on_reset(near, both)

    def _on_fin(self, near: Socket, far: Socket, both: trio.CancelScope) -> None:
        if self._manners.on_fin == "pass":
            far.shutdown(socket.SHUT_WR)
            return
        if self._manners.on_fin == "reset":
            _set_reset(near)
            _set_reset(far)
        both.cancel()

    def _on_reset(self, sock: Socket, both: trio.CancelScope) -> None:
        if self._manners.on_reset == "swallow":
            return
        if self._manners.on_reset == "pass":
            _set_reset(sock)
        both.cancel()


Write = Callable[[bytes], Awaitable[None]]


async def _write_all(pieces: trio.MemoryReceiveChannel[bytes], write: Write) -> None:
    async for piece in pieces:
        await write(piece)


def _set_reset(sock: Socket) -> None:
    """Its close will be a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


@asynccontextmanager
async def relaying(manners: Manners, upstream: tuple[str, int]) -> AsyncIterator[tuple[str, int]]:
    """Run such a relay; where it listens."""
    relay = Relay(manners, upstream)

    async def served(stream: trio.SocketStream) -> None:
        await relay.serve(stream.socket)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, served, [listener])
        yield listener.socket.getsockname()[:2]
        nursery.cancel_scope.cancel()
