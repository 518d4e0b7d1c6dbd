"""What Linux lends to a transparent proxy: foreign addresses on our sockets, and a mark on those that leave.

Owns the socket options that need a capability, and what is said when it is missing. It must not know listeners,
flows or the rules that decide which packets come to us.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from ._networks import parse_address
from ._upstream import Address, Before, ConnectError

__all__ = ["MISSING_CAPABILITY", "Departures", "is_own_address", "make_transparent"]

# <linux/in.h>, <linux/in6.h>, <asm-generic/socket.h>; not every Python names them.
_IP_TRANSPARENT = 19
_IP_BIND_ADDRESS_NO_PORT = 24
_IPV6_TRANSPARENT = 75
_SO_MARK = 36

MISSING_CAPABILITY = "mode tproxy needs the capability CAP_NET_ADMIN"


def make_transparent(sock: socket.socket, on: bool = True) -> None:
    """Let a socket have addresses that are not ours: a listener TPROXY's connections, another one a foreign source.

    An AF_INET6 socket that is not limited to IPv6 gets it for both families.

    Raises:
        PermissionError: with the capability that is missing.
    """
    v6 = sock.family == socket.AF_INET6
    level, option = (socket.IPPROTO_IPV6, _IPV6_TRANSPARENT) if v6 else (socket.IPPROTO_IP, _IP_TRANSPARENT)
    try:
        sock.setsockopt(level, option, on)
    except PermissionError as error:
        raise PermissionError(errno.EPERM, MISSING_CAPABILITY) from error


def is_own_address(host: str) -> bool:
    """Whether a numeric address belongs to this machine: the routes say so, and no packet is sent.

    A bind would be no proof: with `ip_nonlocal_bind` every address can be had.
    """
    host, _, zone = host.partition("%")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            scope = int(zone) if zone.isdigit() else 0
            probe.connect((host, 9, 0, scope) if family == socket.AF_INET6 else (host, 9))
            # In numbers: an IPv6 address can be written in many ways.
            return parse_address(probe.getsockname()[0]) == parse_address(host)
    except OSError:
        return False


class Departures:
    """How upstream sockets leave: with our mark, so that interception lets them pass; as the client, if asked.

    Args:
        mark: SO_MARK, 0 for none. Best effort: without the right to set it, `log` is told once.
    """

    def __init__(self, mark: int, log: Callable[[str], object]) -> None:
        self._mark = mark
        self._log = log

    def plain(self, sock: socket.socket, _: Address) -> None:
        """From an address of ours."""
        if not self._mark:
            return
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, self._mark)
        except OSError as error:
            self._mark = 0
            why = os.strerror(error.errno or 0).lower()
            self._log(f"cannot mark upstream connections: {why}; interception has to leave them out by user")

    def as_client(self, client: tuple[str, int], keep_port: bool) -> Before:
        """From the client's address; its port too, or any free one."""

        def before(sock: socket.socket, upstream: Address) -> None:
            self.plain(sock, upstream)
            try:
                _bind_as(sock, client, keep_port)
            except OSError as error:
                host, port = client
                what = f"address and port {host}:{port}" if keep_port else f"address {host}"
                why = (
                    MISSING_CAPABILITY
                    if error.errno == errno.EPERM
                    else os.strerror(error.errno or 0).lower()
                )
                raise ConnectError(f"cannot keep the client's {what}: {why}") from error

        return before


def _bind_as(sock: socket.socket, client: tuple[str, int], keep_port: bool) -> None:
    host, port = client
    bare, _, zone = host.partition("%")
    v6 = ":" in bare
    if v6 != (sock.family == socket.AF_INET6):
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    make_transparent(sock)
    if keep_port:
        # One port may be used towards many servers, and again while an earlier connection is in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    else:
        # The port is chosen at the connect, where it has to be free towards that one server only.
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    wanted = port if keep_port else 0
    sock.bind((bare, wanted, 0, int(zone or 0)) if v6 else (bare, wanted))
