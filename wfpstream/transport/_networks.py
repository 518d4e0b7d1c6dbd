"""Addresses and networks as text, parsed once: an IPv4 address in an IPv6 coat is an IPv4 address (LAY-2).

Owns the parsing only. It must not know sockets, listeners, or what a network is allowed or trusted to do.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

__all__ = ["NumericAddress", "canonical", "is_in", "parse_address", "parse_networks"]

NumericAddress = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")


@lru_cache(maxsize=1024)  # the same few come with every connection
def parse_address(host: str) -> NumericAddress | None:
    """The address without its zone; None for a name."""
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=1024)
def canonical(host: str) -> str:
    """The one way to write an address, without its zone; empty for a name."""
    address = parse_address(host)
    return str(address) if address is not None else ""


@lru_cache(maxsize=1024)
def parse_networks(texts: tuple[str, ...]) -> tuple[_Network, ...]:
    """Addresses ("10.0.0.1") and networks ("10.0.0.0/8") as networks.

    Raises:
        ValueError: one is neither; the text names it.
    """
    return tuple(_network(text) for text in texts)


def _network(text: str) -> _Network:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is neither an address nor a network such as 10.0.0.0/8") from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        assert network.network_address.ipv4_mapped is not None
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def is_in(host: str, networks: tuple[str, ...]) -> bool:
    """Whether a numeric address lies in one of the networks (as text); a name lies in none.

    Raises:
        ValueError: see `parse_networks`.
    """
    address = parse_address(host)
    return address is not None and any(address in network for network in parse_networks(networks))
