"""What is known of a connection when it is accepted: both its addresses, however the listener was opened."""

from __future__ import annotations

import socket

import pytest
import trio

from tests.transport.kit import bounded
from wfpstream.transport._listener_spec import ListenerSpec
from wfpstream.transport._listeners import open_listener


@pytest.mark.parametrize(
    ("host", "dialled"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.5", "127.0.0.5"),
        ("0.0.0.0", "127.0.0.7"),
        ("::1", "::1"),
        ("::", "::1"),
        ("::", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
    ],
)
@pytest.mark.parametrize("drained", [False, True])
@bounded
async def test_fld_10_both_addresses_are_those_of_the_connection(
    host: str, dialled: str, drained: bool
) -> None:
    """In numbers, IPv4 in its own form (LAY-10); so are those of who waited in the backlog of a closed listener."""
    listener = await open_listener(ListenerSpec(host=host, upstream_host="127.0.0.1", upstream_port=9))
    try:
        with socket.create_connection((dialled, listener.port), 100) as client:
            while not listener.has_waiting:
                await trio.lowlevel.checkpoint()
            accepted = listener.drain()[0] if drained else listener.accept()
            assert accepted is not None
            with accepted.sock as sock:
                assert accepted.peer == client.getsockname()[:2]
                assert accepted.own == client.getpeername()[:2]
                assert not sock.getblocking()
                assert not sock.get_inheritable()
                assert (sock.family, sock.type) == (listener_family(sock), socket.SOCK_STREAM)
                client.sendall(b"x")
                sock.setblocking(True)
                assert sock.recv(2) == b"x"
    finally:
        listener.close()


def listener_family(sock: socket.socket) -> int:
    """As the kernel says it."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
