"""The findings about the machine and the listener: programs, rights, kernel, firewall, settings, and who listens.

Owns these judgements; each function tells of one matter. What was applied is `_doctor`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wfpstream.intercept._apply import NO_RIGHTS
from wfpstream.intercept._finding import ANY, SHOWN, Case, Finding
from wfpstream.intercept._listening import Listening, listeners_on, may_set_marks, transparent_sockets
from wfpstream.intercept._machine import (
    cgroup_folder,
    dropping_chains,
    loopback_is_up,
    may_change_network,
    read_setting,
)
from wfpstream.intercept._plan import Family, Interception
from wfpstream.intercept._tools import PACKAGES

_NEARLY_FULL = 0.9
_FEATURES = {
    "redirect": (
        ("nf_nat, nft_redir (redirect)", "type nat hook output priority -100;", "meta l4proto tcp redirect to :1"),
        ("nft_fib (own addresses)", "type nat hook output priority -100;", "fib daddr type local accept"),
    ),
    "tproxy": (
        ("nft_tproxy", "type filter hook prerouting priority mangle;", "meta l4proto tcp meta nfproto ipv4 "
         "tproxy ip to :1"),
        ("nft_socket", "type filter hook prerouting priority mangle;", "socket transparent 1 accept"),
        ("nft_fib (own addresses)", "type filter hook prerouting priority mangle;", "fib daddr type local accept"),
    ),
}  # fmt: skip


# --- programs, rights, kernel ---------------------------------------------------------------------


def programs(case: Case) -> Iterator[Finding]:
    """Whether the programs are there, and the right to use them."""
    for program in ("nft", "ip"):
        path = case.tools.find(program)
        if path is None:
            yield Finding(False, f"{program} is not installed", f"apt-get install {PACKAGES[program]}")
        else:
            yield Finding(True, f"{program} is {path}")
    if may_change_network(case.proc):
        yield Finding(True, "the right to change tables and routes (CAP_NET_ADMIN)")
    else:
        yield Finding(False, NO_RIGHTS, "ask as root: sudo wfpstream transparent doctor ...")


def kernel_features(case: Case) -> Iterator[Finding]:
    """Whether the kernel has what the rules use."""
    for what, hook, rule in _FEATURES[case.plan.mode]:
        text = f"table inet wfpstream_check {{\n chain c {{\n {hook}\n {rule}\n }}\n}}\n"
        done = case.tools.run("nft", ["--check", "-f", "-"], text)
        if done.ok:
            yield Finding(True, f"the kernel has {what}")
        else:
            module = what.split(" ")[0].rstrip(",")
            yield Finding(False, f"the kernel refuses {what}: {done.reason}", f"modprobe {module}")


def control_group(case: Case) -> Iterator[Finding]:
    """Whether the control group is there."""
    if case.plan.only_cgroup is not None:
        cgroup_folder(case.plan.only_cgroup)
        yield Finding(True, f"control group {case.plan.only_cgroup} is there")


def loopback(case: Case) -> Iterator[Finding]:
    """Whether lo is up."""
    if not loopback_is_up(case.tools):
        yield Finding(False, "the loopback interface is down", "ip link set lo up")


def firewall(case: Case) -> Iterator[Finding]:
    """Whether its rules let our connections in cannot be told from outside, so this is a note."""
    plan = case.plan
    what = f"TCP to port {plan.port}" if plan.mode == "redirect" else f"TCP with mark {plan.route_mark:#x}"
    for chain in dropping_chains(case.tools):
        yield Finding(
            True, f"chain {chain} drops what it does not know", f"it must accept what is intercepted: {what}"
        )


# --- the listener ---------------------------------------------------------------------------------


def listener(case: Case) -> Iterator[Finding]:
    """Whether anybody listens who gets what is intercepted, and whether it would loop."""
    plan = case.plan
    found = listeners_on(plan.port, case.proc)
    for family in plan.families:
        fitting = [one for one in found if _receives(one, family)]
        if not fitting:
            listen = f"wfpstream run --mode {plan.mode}@{ANY[family]}:{plan.port}"
            yield Finding(False, f"nothing listens on port {plan.port} for {SHOWN[family]}", listen)
        elif plan.takes_forwarded and all(one.address.is_loopback for one in fitting):
            yield Finding(
                False,
                f"port {plan.port} listens on {fitting[0].address} only: forwarded connections do not reach it",
                f"listen on {ANY[family]}",
            )
        else:
            yield Finding(True, f"port {plan.port} listens for {SHOWN[family]} on {fitting[0].address}")
    if found and plan.mode == "tproxy":
        yield from _transparent(case)
    if plan.takes_local:
        yield from _loops(plan, found, case.proc)


def _receives(one: Listening, family: Family) -> bool:
    """A wildcard socket of IPv6 usually takes IPv4 as well; /proc does not say when it does not."""
    return one.family == family or (one.family == "ipv6" and one.address.is_unspecified)


def _transparent(case: Case) -> Iterator[Finding]:
    sockets = transparent_sockets(case.tools, case.plan.port)
    if sockets is None:
        yield Finding(True, "whether the listener is transparent cannot be seen (ss --inet-sockopt)")
    elif sockets:
        yield Finding(True, "the listener is transparent (IP_TRANSPARENT)")
    else:
        yield Finding(
            False,
            f"the listener on port {case.plan.port} is not transparent: tproxy passes it by",
            f"wfpstream run --mode tproxy@{ANY['ipv4']}:{case.plan.port}, as root or with CAP_NET_ADMIN",
        )


def _loops(plan: Interception, found: list[Listening], proc: Path) -> Iterator[Finding]:
    """A proxy whose own connections are taken again would connect to itself for ever."""
    for uid in sorted({one.uid for one in found} - {plan.exempt_uid}):
        if plan.only_uid is not None and plan.only_uid != uid:
            continue
        sockets = [one for one in found if one.uid == uid]
        if may_set_marks(sockets[0], proc) is False:
            yield Finding(
                False,
                f"the listener's process (user {uid}) may not mark its connections: they would be taken again",
                f"apply with --exempt-uid {uid}, or give it CAP_NET_ADMIN",
            )


# --- settings of the kernel -----------------------------------------------------------------------


def forwarding(case: Case) -> Iterator[Finding]:
    """Whether what is not taken is forwarded."""
    if not case.plan.takes_forwarded:
        return
    names: dict[Family, str] = {"ipv4": "net/ipv4/ip_forward", "ipv6": "net/ipv6/conf/all/forwarding"}
    for family in case.plan.families:
        name = names[family]
        if read_setting(name, case.proc) == "1":
            yield Finding(True, f"{SHOWN[family]} forwarding is on")
        else:
            # Whoever names no scope may mean this machine alone.
            yield Finding(
                case.plan.scope == "both",
                f"{SHOWN[family]} forwarding is off: what is not taken (other ports, DNS) goes nowhere",
                f"sysctl -w {name.replace('/', '.')}=1",
            )


def source_checks(case: Case) -> Iterator[Finding]:
    """tproxy's mark leads to "local", which a source check that honours the mark takes for a forged address."""
    if case.plan.mode != "tproxy" or "ipv4" not in case.plan.families:
        return
    folder = case.proc / "sys/net/ipv4/conf"
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    values = {name: read_setting(f"net/ipv4/conf/{name}/src_valid_mark", case.proc) for name in names}
    marked = [name for name in names if name != "default" and values[name] == "1"]
    for name in marked:
        yield Finding(
            False,
            f"src_valid_mark is on for {name}: the kernel drops what tproxy marks as having a wrong source",
            f"sysctl -w net.ipv4.conf.{name}.src_valid_mark=0",
        )
    if not marked:
        yield Finding(True, "source checks (rp_filter) do not look at marks")
    strict = read_setting("net/ipv4/conf/all/rp_filter", case.proc) == "1"
    if strict or (case.plan.interface in names and _strict(case.plan.interface, case.proc)):
        yield Finding(
            True,
            "rp_filter is strict",
            "clients and servers must be reached over the interface they come in by; else: rp_filter=2",
        )


def _strict(name: str | None, proc: Path) -> bool:
    return read_setting(f"net/ipv4/conf/{name}/rp_filter", proc) == "1"


def tracking(case: Case) -> Iterator[Finding]:
    """Whether connection tracking has room."""
    if case.plan.mode != "redirect":
        return
    count = read_setting("net/netfilter/nf_conntrack_count", case.proc)
    limit = read_setting("net/netfilter/nf_conntrack_max", case.proc)
    if count is None or limit is None or not limit.isdigit() or not count.isdigit():
        return
    full = int(limit) > 0 and int(count) > _NEARLY_FULL * int(limit)
    yield Finding(
        not full,
        f"connection tracking holds {count} of {limit} connections",
        "sysctl -w net.netfilter.nf_conntrack_max=... with a larger number" if full else "",
    )
