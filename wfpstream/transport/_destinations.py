"""Where a connection must not go (architecture, section 6): no self-dialling, no open relay.

Owns the rules, as a table, and the words for them. Pure: it must not know sockets, the engine or how a
destination was found; whether an address is one of this machine's is asked of a function that is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from ._networks import NumericAddress, is_in, parse_address

__all__ = ["ORIGINAL", "REDIRECTED", "UPSTREAM", "Case", "Rejected", "Rule", "check", "unknown"]

_BROADCAST = IPv4Address("255.255.255.255")
_LOOPBACK = (IPv4Address("127.0.0.1"), parse_address("::1"))


class Rejected(Exception):
    """A connection must not go on.

    Attributes:
        reason: the rule's name, for counters and events.
    """

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True)
class Case:
    """One destination, and all that its rules look at.

    Attributes:
        host, port: the destination, numeric.
        clients: who asks: the peer of the socket, and whom its PROXY header speaks for, if it has one.
        listeners: where we listen ourselves, numeric.
        is_own: whether an address is one of this machine's.
        allow, deny: the listener's networks; an empty `allow` is any.
    """

    host: str
    port: int
    clients: Sequence[str]
    listeners: Iterable[tuple[str, int]]
    is_own: Callable[[str], bool]
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()


Breaks = Callable[[Case, NumericAddress], bool]


@dataclass(frozen=True)
class Rule:
    """A rule: its name, what is said of a destination that breaks it, and when it does."""

    reason: str
    text: str
    breaks: Breaks


def _is_loopback_for_others(case: Case, address: NumericAddress) -> bool:
    """Who is not on this machine must not reach through us what listens for this machine only."""
    return address.is_loopback and not all(_is_loopback(client) for client in case.clients)


def _is_loopback(host: str) -> bool:
    address = parse_address(host)
    return address is not None and address.is_loopback


def _is_own_listener(case: Case, address: NumericAddress) -> bool:
    return any(
        port == case.port and _meets(parse_address(host), address, case) for host, port in case.listeners
    )


def _meets(listener: NumericAddress | None, address: NumericAddress, case: Case) -> bool:
    """Whether a connection to `address` meets a listener there. Linux takes 0.0.0.0 and :: for loopback."""
    if listener is None:
        return False
    if listener == address:
        return True
    if listener.is_unspecified:
        takes_family = listener.version in (address.version, 6)  # :: takes IPv4 too, unless told otherwise
        return takes_family and (address.is_unspecified or address.is_loopback or case.is_own(case.host))
    return address.is_unspecified and listener in _LOOPBACK


def _is_forbidden(case: Case, address: NumericAddress) -> bool:
    if not (case.allow or case.deny):
        return False
    host = met = str(address)
    if address.is_unspecified:
        # A name may resolve to it, and Linux connects to the loopback then: that is what is allowed or not.
        met = str(_LOOPBACK[address.version == 6])
    is_denied = is_in(host, case.deny) or is_in(met, case.deny)
    return is_denied or bool(case.allow and not is_in(met, case.allow))


def unknown() -> Rejected:
    """There is no destination to check."""
    return Rejected("unknown_destination", "where it was going is not known: no redirect rule sent it here")


_OWN = Rule("own_listener", "that is one of our own listeners", _is_own_listener)
_FORBIDDEN = Rule("forbidden_destination", "the listener does not allow that destination", _is_forbidden)
_NOWHERE = (
    Rule(
        "unspecified_destination",
        "that is no destination",
        lambda case, address: address.is_unspecified or not case.port,
    ),
    Rule("multicast_destination", "that is a multicast address", lambda _, address: address.is_multicast),
    Rule("broadcast_destination", "that is the broadcast address", lambda _, address: address == _BROADCAST),
)
_LOCAL_ONLY = Rule("loopback_destination", "loopback is for local clients only", _is_loopback_for_others)

# A destination that a client chose, or a callout for a client that chose the first one.
ORIGINAL = (*_NOWHERE, _LOCAL_ONLY, _OWN, _FORBIDDEN)
# The upstream that the configuration names may be loopback, and is: services behind a proxy listen there.
UPSTREAM = (_OWN, _FORBIDDEN)
# What a callout redirects to, where the configuration names the upstream.
REDIRECTED = (*_NOWHERE, _OWN, _FORBIDDEN)


def check(case: Case, rules: Iterable[Rule]) -> Rejected | None:
    """The first of the rules that the destination breaks, in words; None if it breaks none."""
    address = parse_address(case.host)
    if address is None:
        return unknown()
    for rule in rules:
        if rule.breaks(case, address):
            where = f"[{address}]:{case.port}" if address.version == 6 else f"{address}:{case.port}"
            return Rejected(rule.reason, f"{where}: {rule.text}")
    return None
