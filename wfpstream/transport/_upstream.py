"""Connecting to where a flow goes.

Owns addresses: numeric ones without any resolution, names through the resolver, both tried in a sensible order;
the errors say what was tried. It must not know the engine, flows or listeners.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import os
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, zip_longest
from typing import NamedTuple

import trio

from ._sockets import connect_error, new_leg

__all__ = [
    "Address",
    "Before",
    "ConnectError",
    "OnOwn",
    "connect",
    "connect_failure",
    "no_answer",
    "numeric",
    "refuse_itself",
    "resolve",
    "unmapped",
]

# RFC 8305 advises 250 ms until the next address is tried beside the one still on its way.
NEXT_ATTEMPT = 0.25


class Address(NamedTuple):
    """One numeric address to connect to; `scope` is the zone of a link-local one."""

    family: int
    host: str
    port: int
    scope: int = 0

    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """In the form the socket calls take."""
        if self.family == socket.AF_INET6:
            return (self.host, self.port, 0, self.scope)
        return (self.host, self.port)


class ConnectError(Exception):
    """The upstream cannot be reached. The text is one line for people, without the address."""


# Is told of a leg on its way: our own address, and the one it goes to.
OnOwn = Callable[[tuple[str, int], Address], object]


def _nobody(own: tuple[str, int], address: Address) -> None:
    """The default of `on_own`."""


# What is done to an upstream socket between its making and its connect. Raises OSError or ConnectError.
Before = Callable[[socket.socket, Address], None]


def _nothing(sock: socket.socket, address: Address) -> None:
    """The default of `before`."""


def unmapped(host: str) -> str:
    """An IPv4 address that came through an IPv6 socket, in its own form (LAY-10)."""
    return host.removeprefix("::ffff:") if "." in host else host


def numeric(host: str, port: int) -> Address | None:
    """The address if `host` is one already; None for a name."""
    if "%" not in host:
        return _numeric(host, port)
    return _numeric_in_zone(host, port)


@lru_cache(maxsize=1024)  # the same few come with every connection
def _numeric(host: str, port: int) -> Address | None:
    address = _parsed(host)
    if address is None:
        return None
    return Address(socket.AF_INET if address.version == 4 else socket.AF_INET6, host, port)


def _numeric_in_zone(host: str, port: int) -> Address | None:
    """Which zone a name means may change."""
    address = _parsed(host)
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    zone = address.scope_id
    if zone is None:
        return Address(socket.AF_INET6, host, port)
    try:
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    except OSError:
        return None
    return Address(socket.AF_INET6, host.partition("%")[0], port, scope)


def _parsed(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, in the order to try them.

    Raises:
        ConnectError: the name has none.
    """
    known = numeric(host, port)
    if known is not None:
        return [known]
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        text = error.strerror if isinstance(error, socket.gaierror) else str(error)
        raise ConnectError(f"cannot resolve {host}: {text}") from error
    addresses: list[Address] = []
    for family, _, _, _, sockaddr in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            scope = int(sockaddr[3]) if len(sockaddr) == 4 else 0
            addresses.append(Address(family, str(sockaddr[0]), port, scope))
    if not addresses:
        raise ConnectError(f"cannot resolve {host}: it has no address")
    return _in_turns(addresses)


def _in_turns(addresses: list[Address]) -> list[Address]:
    """The families by turns, the resolver's first one first: a dead family costs one attempt, not all."""
    same = [address for address in addresses if address.family == addresses[0].family]
    other = [address for address in addresses if address.family != addresses[0].family]
    return [address for address in chain(*zip_longest(same, other)) if address is not None]


async def connect(
    addresses: Sequence[Address], timeout: float, on_own: OnOwn = _nobody, before: Before = _nothing
) -> socket.socket:
    """Connect to the first address that answers; a prepared socket (`_sockets.prepare`).

    Args:
        addresses: at least one, in the order to try them.
        timeout: seconds for all of it; 0 for no limit.
        on_own: is told of every attempt, before anybody can have accepted it (LAY-29).
        before: gets every socket before it connects: marks, a source address.

    Raises:
        ConnectError: refused, unreachable, out of descriptors, or too slow.
    """
    with trio.move_on_after(timeout or math.inf):
        if len(addresses) == 1:
            return await _connect_one(addresses[0], on_own, before)
        return await _connect_any(addresses, on_own, before)
    raise no_answer(timeout)


async def _connect_one(address: Address, on_own: OnOwn, before: Before) -> socket.socket:
    sock: socket.socket | None = None
    try:
        sock = new_leg(address.family)
        before(sock, address)
        await _finish_connect(sock, sock.connect_ex(address.sockaddr()), address, on_own)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            raise connect_failure(error) from error
        raise
    return sock


async def _finish_connect(sock: socket.socket, begun: int, address: Address, on_own: OnOwn) -> None:
    """`begun` is what `connect_ex` said. Raises OSError."""
    if begun not in (0, errno.EINPROGRESS):
        raise OSError(begun, os.strerror(begun))
    own = sock.getsockname()
    on_own((own[0], own[1]), address)
    if begun:
        await trio.lowlevel.wait_writable(sock)
        error = connect_error(sock)
        if error is not None:
            raise error
    refuse_itself(sock, own[1], address)


def refuse_itself(sock: socket.socket, own_port: int, address: Address) -> None:
    """Nobody listens there, and the kernel chose that very port for us: TCP connected us to ourselves.

    Raises OSError then.
    """
    if own_port == address.port and sock.getsockname() == sock.getpeername():
        raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def connect_failure(error: OSError) -> ConnectError:
    """What the kernel said, in our words."""
    return ConnectError((error.strerror or str(error)).lower())


def no_answer(seconds: float) -> ConnectError:
    """`timeouts.connect` has passed."""
    return ConnectError(f"no answer within {seconds:g} s")


async def _connect_any(addresses: Sequence[Address], on_own: OnOwn, before: Before) -> socket.socket:
    """RFC 8305: the next attempt starts when the last one failed, or is slow; the first success wins."""
    winners: list[socket.socket] = []
    errors: list[ConnectError] = []

    async def attempt(address: Address, failed: trio.Event, nursery: trio.Nursery) -> None:
        try:
            sock = await _connect_one(address, on_own, before)
        except ConnectError as error:
            errors.append(error)
            failed.set()
            return
        winners.append(sock)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                failed = trio.Event()
                nursery.start_soon(attempt, address, failed, nursery)
                with trio.move_on_after(NEXT_ATTEMPT):
                    await failed.wait()
    except BaseException:
        for sock in winners:
            sock.close()
        raise
    if not winners:
        raise errors[0]
    for sock in winners[1:]:
        sock.close()
    return winners[0]
