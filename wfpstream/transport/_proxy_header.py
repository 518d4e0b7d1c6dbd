"""PROXY headers on sockets: read from an accepted one, written to the upstream's.

Owns the waiting, and that the stream begins right behind the header: no byte of it is read here. The formats are
`wire`'s. It must not know the engine, flows or listeners, nor who may be believed. Sockets are stdlib
ones, non-blocking.
"""

from __future__ import annotations

import math
import os
import socket

import trio

from wfpstream.wire import (
    MAX_PROXY_HEADER,
    ProxyHeader,
    ProxyHeaderError,
    build_proxy_header,
    parse_proxy_header,
)

from ._upstream import ConnectError

__all__ = ["read_proxy_header", "send_proxy_header"]


async def read_proxy_header(sock: socket.socket, timeout: float) -> ProxyHeader:
    """Take the PROXY header, and nothing else, from the beginning of a connection.

    Args:
        sock: an accepted connection nobody has read from.
        timeout: seconds for the whole header, however its bytes drip in; 0 for no limit.

    Raises:
        ProxyHeaderError: there is no header or a bad one, the connection ended or was reset in it, or it is late.
            Where the stream stands is then undefined: all that is left is to reset the connection.
        trio.ClosedResourceError: another task closed the socket (and told trio).
    """
    with trio.move_on_after(timeout or math.inf):
        return await _read(sock)
    raise ProxyHeaderError(f"no complete PROXY header within {timeout:g} s")


async def _read(sock: socket.socket) -> ProxyHeader:
    taken = b""
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            seen = sock.recv(MAX_PROXY_HEADER - len(taken), socket.MSG_PEEK)
            if not seen:
                raise ProxyHeaderError(f"the connection ended after {len(taken)} bytes of its PROXY header")
            found = parse_proxy_header(taken + seen)
            # Short of a header all of it is the header's: it is taken, so that the socket is readable again only
            # when there is more, and a slow sender costs no time.
            rest = found[1] - len(taken) if found else len(seen)
            taken += sock.recv(rest)
        except BlockingIOError:
            continue
        except OSError as error:
            raise ProxyHeaderError(f"no PROXY header: {_reason(error)}") from error
        if found and len(taken) == found[1]:
            return found[0]


async def send_proxy_header(
    sock: socket.socket,
    version: int,
    source: tuple[str, int] | None,
    destination: tuple[str, int] | None,
    timeout: float = 0.0,
) -> None:
    """Begin a connection with a PROXY header; nothing may be sent on `sock` before this has returned.

    Args:
        sock: a connected socket on which nothing was sent.
        version: 1 or 2.
        source: the client, as (numeric address, port); None if it must not or cannot be said.
        destination: where the client connected to, in the same form; None likewise.
        timeout: seconds; 0 for no limit.

    Raises:
        ConnectError: the upstream reset the connection, or takes nothing.
        ValueError: see `wire.build_proxy_header`.
    """
    left = memoryview(build_proxy_header(version, source, destination))
    with trio.move_on_after(timeout or math.inf):
        while left:
            try:
                left = left[sock.send(left) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(sock)
            except OSError as error:
                raise ConnectError(f"the PROXY header was not taken: {_reason(error)}") from error
        return
    raise ConnectError(f"the PROXY header was not taken within {timeout:g} s")


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
