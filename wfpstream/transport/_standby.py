"""A listening socket that takes nobody for a while, and never gives its port away meanwhile.

Owns what Linux offers for that: a bound socket that does not listen (connects are refused), and a filter that drops
the first segment of every connect (they wait, and find us when it is gone). It must not know accepting.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from ._sockets import prepare_listener

__all__ = ["hold_port", "ignore_new", "listen_again", "notice_new"]

# Classic BPF over a TCP header: of the flags at byte 13, a SYN without an ACK is dropped, all else passes.
_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),
        (0x54, 0, 0, 0x12),
        (0x15, 0, 1, 0x02),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    )
)
_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27


def ignore_new(sock: socket.socket) -> None:
    """Let no new connection into the backlog: its SYN is dropped, as by a host that is not there. Needs no rights.

    Raises:
        OSError: the kernel has no socket filters.
    """
    program = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    filter_ = struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)


def notice_new(sock: socket.socket) -> None:
    """Undo `ignore_new`. Who was ignored tries again by itself: after 1 s, then 3, 7 ..., as TCP does."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


def hold_port(listening: socket.socket) -> socket.socket:
    """A guard: bound to the same address and port, and not listening. Close `listening` then; the port stays ours.

    Nobody else can bind it, and no connect of this machine gets it for its own port, which could meet itself there.

    Raises:
        OSError: the port cannot be held.
    """
    guard = _beside(listening)
    # Without either it conflicts with whoever wants the port. It stays without the second to its end: most servers
    # ask for that, and may share a port with a socket that does too and does not listen.
    guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return guard


def listen_again(guard: socket.socket, backlog: int) -> socket.socket:
    """A listening socket on the port that `guard` holds, which is closed.

    Raises:
        OSError: it cannot be listened on; the guard stays.
    """
    sock = _beside(guard)
    try:
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    guard.close()
    return sock


def _beside(other: socket.socket) -> socket.socket:
    """A socket bound where another one is. Both must ask for it (SO_REUSEPORT) while it is done; and beside connections
    that were accepted there it must have what those have (SO_REUSEADDR).
    """
    sock = socket.socket(other.family, socket.SOCK_STREAM)
    try:
        v6_only = None
        if other.family == socket.AF_INET6:
            v6_only = bool(other.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        prepare_listener(sock, v6_only=v6_only)
        for one in (other, sock):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(other.getsockname())
    except OSError:
        sock.close()
        raise
    finally:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)
    return sock
