"""The exact text: golden for the usual cases, properties for all."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.intercept import Interception, Numbers, script

REDIRECT = """\
create table inet web { comment "made by wfpstream transparent"; }
table inet web {
	chain output {
		type nat hook output priority -100; policy accept;
		meta mark 0x00000577 accept comment "the proxy's own connections"
		meta skuid 1000 accept comment "the user who is exempt"
		fib daddr type local tcp dport 15001 accept comment "the listener itself"
		tcp flags & (fin | syn | rst | ack) == syn tcp dport { 80, 443, 1000-2000 } redirect to :15001
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		meta mark 0x00000577 accept comment "the proxy's own connections"
		iifname "lo" accept
		iifname != "eth0" accept comment "other interfaces"
		fib daddr type { local, broadcast, anycast, multicast } accept comment "this machine's own services"
		ip daddr 127.0.0.0/8 accept
		ip6 daddr ::1 accept
		tcp flags & (fin | syn | rst | ack) == syn tcp dport { 80, 443, 1000-2000 } redirect to :15001
	}
}
"""

TPROXY = """\
ip -4 route add local default dev lo table 600
ip -4 rule add priority 99 fwmark 0x578 lookup 600
nft -f - <<'END'
create table inet wfpstream { comment "made by wfpstream transparent"; }
table inet wfpstream {
	set taken_ipv4 {
		type ipv4_addr . inet_service . ipv4_addr . inet_service
		size 65536
		flags dynamic,timeout
		timeout 60s
	}

	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		meta l4proto != tcp accept
		socket transparent 1 socket wildcard 0 meta mark set 0x00000578 accept comment "connections the proxy has"
		meta mark 0x00000577 accept comment "the proxy's own connections"
		iifname "lo" accept
		fib daddr type { local, broadcast, anycast, multicast } accept comment "this machine's own services"
		ip daddr 127.0.0.0/8 accept
		meta nfproto ipv4 tcp flags & (fin | syn | rst | ack) == syn update @taken_ipv4 { ip saddr . tcp sport . ip daddr . tcp dport }
		meta nfproto ipv4 tcp flags & (fin | syn | rst | ack) == syn tproxy ip to :15001 meta mark set 0x00000578 accept
		ip saddr . tcp sport . ip daddr . tcp dport @taken_ipv4 tproxy ip to :15001 meta mark set 0x00000578 accept comment "the end of a handshake with SYN cookies"
	}
}
END
# to take it back:
# nft delete table inet wfpstream
# ip -4 rule del priority 99 fwmark 0x578 lookup 600
# ip -4 route del local default dev lo table 600
"""  # noqa: E501


def test_redirect() -> None:
    plan = Interception(
        15001,
        name="web",
        redirect_ports=(443, 80, (1000, 2000)),
        exempt_uid=1000,
        interface="eth0",
        scope="both",
    )
    made = script(plan)
    assert made.nft == REDIRECT
    assert not made.rules
    assert not made.routes


def test_tproxy() -> None:
    plan = Interception(15001, mode="tproxy", families=("ipv4",))
    assert script(plan, Numbers(600, 99)).as_shell() == TPROXY


def chain(made: str, name: str) -> list[str]:
    found = re.search(rf"chain {name} {{\n(.*?)\n\t}}", made, re.DOTALL)
    return [line.strip() for line in found[1].splitlines()] if found else []


def test_only_what_is_named_is_taken() -> None:
    """Positively: the opposite would take processes that have no ancestor of the group's level."""
    output = chain(script(Interception(1, only_uid=33, only_cgroup="a.slice/b", scope="local")).nft, "output")
    assert output[-1].startswith('meta skuid 33 socket cgroupv2 level 2 "a.slice/b" tcp flags')
    assert output[-1].endswith("redirect to :1")


def test_a_control_group_of_a_hybrid_system_keeps_its_level() -> None:
    made = script(Interception(1, only_cgroup="a.slice/b"), cgroup_folder="unified/").nft
    assert 'socket cgroupv2 level 2 "unified/a.slice/b" tcp flags' in made


def plans() -> st.SearchStrategy[Interception]:
    ports = st.lists(st.integers(1, 65535), max_size=3).map(tuple)
    uids = st.none() | st.integers(0, 50)
    common: dict[str, Any] = {"port": st.integers(1, 65535), "redirect_ports": ports, "name": st.just("x")}
    families = st.sampled_from([("ipv4",), ("ipv6",), ("ipv4", "ipv6")])
    interface = st.none() | st.just("eth0")
    redirect = st.builds(
        Interception,
        **common,
        families=families,
        exempt_uid=st.none() | st.integers(51, 99),
        only_uid=uids,
        interface=interface,
        scope=st.sampled_from([None, "both"]),
    )
    return redirect | st.builds(
        Interception, **common, families=families, mode=st.just("tproxy"), interface=interface
    )


@given(plans())
def test_the_proxy_is_always_let_through_before_anything_is_taken(plan: Interception) -> None:
    made = script(plan)
    for name in ("output", "prerouting"):
        rules = chain(made.nft, name)
        takes = [n for n, rule in enumerate(rules) if "redirect to" in rule or "tproxy ip" in rule]
        assert bool(takes) == bool(rules)
        if not rules:
            continue
        before = rules[: takes[0]]
        assert any(rule.startswith(f"meta mark {plan.mark:#010x} accept") for rule in before)
        if name == "prerouting":
            assert any(rule.startswith("fib daddr type { local") and " accept" in rule for rule in before)
        elif plan.exempt_uid is not None:
            assert any(rule.startswith(f"meta skuid {plan.exempt_uid} accept") for rule in before)


@given(plans())
def test_only_first_packets_are_taken(plan: Interception) -> None:
    """Connections that were there before go on, also when connection tracking meets them in the middle."""
    for name in ("output", "prerouting"):
        for rule in chain(script(plan).nft, name):
            if "redirect to" in rule or "tproxy ip" in rule:
                assert "== syn" in rule or "@taken_" in rule


@given(plans())
def test_only_the_families_asked_for_are_taken(plan: Interception) -> None:
    made = script(plan)
    assert {rule.family for rule in made.rules} <= set(plan.families)
    assert {route.family for route in made.routes} <= set(plan.families)
    for family, word in (("ipv4", "ip saddr"), ("ipv6", "ip6 saddr")):
        if family not in plan.families:
            assert word not in made.nft
            assert f"nfproto {family}" not in made.nft


@given(plans())
def test_the_shell_form_is_the_same_and_parses(plan: Interception) -> None:
    made = script(plan, Numbers(700, 50))
    text = made.as_shell()
    assert made.nft in text
    commands, _, back = text.partition("# to take it back:\n")
    lines = commands.replace(made.nft, "").splitlines()
    assert all(shlex.split(line)[0] in ("ip", "nft", "END") for line in lines)
    assert len(back.splitlines()) == len(made.parts)


@pytest.mark.parametrize("mode", ["redirect", "tproxy"])
def test_the_text_is_stable(mode: Any) -> None:
    one = Interception(1, mode=mode, redirect_ports=(2, 1))
    other = Interception(1, mode=mode, redirect_ports=(1, 2), families=("ipv6", "ipv4"))
    assert script(one).as_shell() == script(other).as_shell()
