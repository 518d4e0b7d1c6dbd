"""Where a connection must not go (architecture, section 6): every rule of the table, alone and in its place."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.transport._destinations import ORIGINAL, REDIRECTED, UPSTREAM, Case, Rule, check
from wfpstream.transport._networks import is_in, parse_networks
from wfpstream.transport._transparent import is_own_address

OWN_ADDRESSES = ("192.0.2.1", "2001:db8::1", "fe80::1%3")
HERE = "127.0.0.1"
AWAY = "203.0.113.9"


def refusal(
    destination: str,
    *,
    port: int = 80,
    clients: Sequence[str] = (AWAY,),
    listeners: Sequence[tuple[str, int]] = (),
    allow: tuple[str, ...] = (),
    deny: tuple[str, ...] = (),
    rules: Sequence[Rule] = ORIGINAL,
) -> str | None:
    """The name of the rule that is broken."""
    case = Case(destination, port, clients, listeners, OWN_ADDRESSES.__contains__, allow, deny)
    rejected = check(case, rules)
    return rejected.reason if rejected else None


@pytest.mark.parametrize(
    ("destination", "reason"),
    [
        ("198.51.100.7", None),
        ("2001:db8::7", None),
        ("fe80::7%2", None),
        ("::ffff:198.51.100.7", None),
        ("0.0.0.0", "unspecified_destination"),
        ("::", "unspecified_destination"),
        ("::ffff:0.0.0.0", "unspecified_destination"),
        ("224.0.0.1", "multicast_destination"),
        ("239.255.255.255", "multicast_destination"),
        ("ff02::1%2", "multicast_destination"),
        ("255.255.255.255", "broadcast_destination"),
        ("::ffff:255.255.255.255", "broadcast_destination"),
        ("127.0.0.1", "loopback_destination"),
        ("127.255.0.9", "loopback_destination"),
        ("::1", "loopback_destination"),
        ("::ffff:127.0.0.1", "loopback_destination"),
        ("web.example", "unknown_destination"),
    ],
)
def test_destinations_that_clients_may_not_choose(destination: str, reason: str | None) -> None:
    assert refusal(destination) == reason


def test_port_zero_is_no_destination() -> None:
    assert refusal("198.51.100.7", port=0) == "unspecified_destination"


@pytest.mark.parametrize(
    ("clients", "reason"),
    [
        (("127.0.0.1",), None),
        (("::1",), None),
        (("::ffff:127.0.0.9",), None),
        (("192.0.2.1",), "loopback_destination"),
        (("127.0.0.1", AWAY), "loopback_destination"),  # a local proxy speaks for a client that is not
        ((AWAY, "127.0.0.1"), "loopback_destination"),  # a PROXY header says it is local; its sender is not
    ],
)
def test_loopback_is_for_local_clients(clients: tuple[str, ...], reason: str | None) -> None:
    assert refusal("127.0.0.5", clients=clients) == reason


@pytest.mark.parametrize(
    ("listener", "destination", "is_own"),
    [
        (("192.0.2.1", 80), "192.0.2.1", True),
        (("192.0.2.1", 80), "::ffff:192.0.2.1", True),
        (("192.0.2.1", 81), "192.0.2.1", False),
        (("192.0.2.2", 80), "192.0.2.1", False),
        (("0.0.0.0", 80), "192.0.2.1", True),
        (("0.0.0.0", 80), "198.51.100.7", False),
        (("0.0.0.0", 80), "2001:db8::1", False),
        (("0.0.0.0", 80), "127.8.8.8", True),
        (("::", 80), "2001:db8::1", True),
        (("::", 80), "192.0.2.1", True),
        (("::", 80), "198.51.100.7", False),
        (("::", 80), "2001:db8::7", False),
        (("::", 80), "::1", True),
        (("fe80::1%3", 80), "fe80::1%3", True),
        (("::", 80), "fe80::1%3", True),
        (("::1", 80), "::1", True),
        (("127.0.0.1", 80), "127.0.0.2", False),
        (("127.0.0.1", 80), "::1", False),
    ],
)
@pytest.mark.parametrize("rules", [ORIGINAL, UPSTREAM, REDIRECTED])
def test_nobody_is_sent_to_our_own_listeners(
    rules: Sequence[Rule], listener: tuple[str, int], destination: str, is_own: bool
) -> None:
    reason = refusal(destination, listeners=[("198.51.100.9", 1), listener], clients=(HERE,), rules=rules)
    assert reason == ("own_listener" if is_own else None)


@pytest.mark.parametrize(
    ("listener", "upstream", "is_own"),
    [
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "0.0.0.0", True),
        ("::", "0.0.0.0", True),
        ("::1", "::", True),
        ("::", "::", True),
        ("192.0.2.1", "0.0.0.0", False),
    ],
)
def test_a_configured_upstream_that_is_unspecified_is_loopback(
    listener: str, upstream: str, is_own: bool
) -> None:
    reason = refusal(upstream, listeners=[(listener, 80)], rules=UPSTREAM)
    assert reason == ("own_listener" if is_own else None)


@pytest.mark.parametrize(
    ("allow", "deny", "forbidden"),
    [
        ((), (), False),
        (("198.51.100.0/24",), (), False),
        (("198.51.100.7",), (), False),
        (("::ffff:198.51.100.0/120",), (), False),
        (("198.51.100.0/25", "10.0.0.0/8"), (), False),
        (("10.0.0.0/8",), (), True),
        (("2001:db8::/32",), (), True),
        ((), ("198.51.100.7/32",), True),
        ((), ("198.51.100.8",), False),
        (("198.51.100.0/24",), ("198.51.100.7",), True),
        ((), ("::/0",), False),
        ((), ("0.0.0.0/0",), True),
    ],
)
@pytest.mark.parametrize("destination", ["198.51.100.7", "::ffff:198.51.100.7"])
@pytest.mark.parametrize("rules", [ORIGINAL, UPSTREAM, REDIRECTED])
def test_networks_that_are_allowed_or_denied(
    rules: Sequence[Rule], destination: str, allow: tuple[str, ...], deny: tuple[str, ...], forbidden: bool
) -> None:
    reason = refusal(destination, allow=allow, deny=deny, rules=rules)
    assert reason == ("forbidden_destination" if forbidden else None)


def test_a_configured_upstream_may_be_loopback_for_anybody() -> None:
    """So may what a callout redirects to instead; but nowhere is nowhere."""
    assert refusal("127.0.0.1", rules=UPSTREAM) is None
    assert refusal("127.0.0.1", rules=REDIRECTED) is None
    assert refusal("224.0.0.1", rules=REDIRECTED) == "multicast_destination"


@pytest.mark.parametrize(
    ("upstream", "denied"),
    [("0.0.0.0", "127.0.0.0/8"), ("::ffff:0.0.0.0", "127.0.0.1"), ("::", "::1"), ("0.0.0.0", "0.0.0.0")],
)
def test_the_unspecified_address_is_no_way_around_a_denied_loopback(upstream: str, denied: str) -> None:
    """Whoever answers for the name of an upstream could say 0.0.0.0, and Linux would connect to 127.0.0.1."""
    assert refusal(upstream, deny=(denied,), rules=UPSTREAM) == "forbidden_destination"
    assert refusal(upstream, allow=("198.51.100.0/24",), rules=UPSTREAM) == "forbidden_destination"
    assert refusal(upstream, allow=("127.0.0.1", "::1"), rules=UPSTREAM) is None


@pytest.mark.parametrize(
    "spelling", ["::1", "0:0:0:0:0:0:0:1", "0::1", "127.0.0.1", "::ffff:127.0.0.1", "::FFFF:7f00:1"]
)
def test_an_address_of_this_machine_is_one_however_it_is_written(spelling: str) -> None:
    assert is_own_address(spelling)


def test_the_words_name_the_destination() -> None:
    case = Case("::ffff:127.0.0.1", 22, (AWAY,), (), OWN_ADDRESSES.__contains__)
    assert str(check(case, ORIGINAL)) == "127.0.0.1:22: loopback is for local clients only"
    case = Case("ff02::1", 22, (AWAY,), (), OWN_ADDRESSES.__contains__)
    assert str(check(case, ORIGINAL)) == "[ff02::1]:22: that is a multicast address"


addresses = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))


@given(addresses, st.integers(0, 65535), addresses)
def test_what_is_refused_in_one_form_is_refused_in_the_other(
    destination: ipaddress.IPv4Address | ipaddress.IPv6Address,
    port: int,
    client: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """LAY-2: an IPv4 address in an IPv6 coat gets no further than without it."""

    def coated(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
        return f"::ffff:{address}" if address.version == 4 else str(address)

    plain = refusal(str(destination), port=port, clients=(str(client),))
    assert refusal(coated(destination), port=port, clients=(coated(client),)) == plain


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_a_network_holds_its_own_addresses(address: ipaddress.IPv4Address, length: int) -> None:
    network = f"{address}/{length}"
    assert is_in(str(address), (network,))
    assert is_in(f"::ffff:{address}", (network,))
    assert parse_networks((f"::ffff:{address}/{96 + length}",)) == parse_networks((network,))
