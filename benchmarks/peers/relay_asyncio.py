"""A plain TCP relay on asyncio, protocols and transports with back-pressure: what a careful author would write.

`python relay_asyncio.py [--uvloop] PORT UPSTREAM_PORT`. Measured beside wfpstream; no part of it.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import cast


class Leg(asyncio.Protocol):
    """One side of a flow; what it reads goes to `other`, and a full `other` stops its reading."""

    transport: asyncio.Transport
    other: Leg

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Small messages must not wait for more."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        """Pass a FIN on as a FIN; the other direction goes on."""
        if self.other.transport.can_write_eof():
            self.other.transport.write_eof()
        return True

    def pause_writing(self) -> None:
        """This side's buffer is full."""
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """There is room again."""
        self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Neither side outlives the other; a reset goes on as a reset."""
        if not hasattr(self, "other"):
            return
        if exc is not None:
            self.other.transport.abort()
        else:
            self.other.transport.close()


class ClientLeg(Leg):
    """The accepted side: reads no more than once before its upstream is connected."""

    def __init__(self, upstream_port: int) -> None:
        self._port = upstream_port
        self._early: list[bytes] = []
        self._early_eof = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect onwards."""
        super().connection_made(transport)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        """Pass it on; what comes before there is somewhere to pass it to waits."""
        if self._connecting.done():
            super().data_received(data)
        else:
            self._early.append(data)
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        """As data."""
        if self._connecting.done():
            return super().eof_received()
        self._early_eof = True
        return True

    async def _connect(self) -> None:
        try:
            _, upstream = await asyncio.get_running_loop().create_connection(Leg, "127.0.0.1", self._port)
        except OSError:
            self.transport.abort()
            return
        upstream.other, self.other = self, upstream
        if self.transport.is_closing():
            upstream.transport.abort()
            return
        for data in self._early:
            upstream.transport.write(data)
        if self._early_eof:
            upstream.transport.write_eof()
        if self._early:
            self._early.clear()
            self.transport.resume_reading()


async def main(port: int, upstream_port: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: ClientLeg(upstream_port), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--uvloop":
        import uvloop

        uvloop.run(main(int(arguments[1]), int(arguments[2])))
    else:
        asyncio.run(main(int(arguments[0]), int(arguments[1])))
