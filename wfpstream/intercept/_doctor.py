"""What is missing for an interception to work, and how to mend it.

Owns the judgements; what there is, it asks `_machine`, `_listening` and the tools. Changes nothing: kernel features
are tried with `nft --check`, which the kernel examines and then forgets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from wfpstream.intercept._apply import NO_RIGHTS
from wfpstream.intercept._errors import InterceptError, safe_line
from wfpstream.intercept._listening import Listening, listeners_on, may_set_marks, transparent_sockets
from wfpstream.intercept._machine import (
    Machine,
    cgroup_folder,
    dropping_chains,
    family_is_on,
    has_route,
    has_rule,
    has_table,
    is_our_table,
    loopback_is_up,
    may_change_network,
    read_setting,
    rules_of,
)
from wfpstream.intercept._plan import Family, Interception
from wfpstream.intercept._record import Record, default_folder, open_records
from wfpstream.intercept._tools import PACKAGES, Tools

_SHOWN: dict[Family, str] = {"ipv4": "IPv4", "ipv6": "IPv6"}
_ANY: dict[Family, str] = {"ipv4": "0.0.0.0", "ipv6": "[::]"}
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


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        ok: whether it is as it must be.
        what: what was found, one line.
        mend: how to mend it, or, if it is ok, what to keep in mind; may be empty.
    """

    ok: bool
    what: str
    mend: str = ""


@dataclass(frozen=True)
class _Case:
    """What is examined, and with what."""

    plan: Interception
    tools: Tools
    folder: Path
    proc: Path


def doctor(plan: Interception, machine: Machine | None = None) -> list[Finding]:
    """Everything that the interception needs, and whether it is there.

    Args:
        plan: what is, or is to be, intercepted.
        machine: where; None: here.
    """
    machine = machine or Machine()
    on = tuple(family for family in plan.families if family_is_on(family, machine.proc))
    findings = [
        Finding(True, f"{_SHOWN[family]} is off: its connections are not taken")
        for family in plan.families
        if family not in on
    ]
    if not on:
        return [*findings, Finding(False, "none of the families asked for is on", "switch one on")]
    case = _Case(replace(plan, families=on), machine.tools, machine.state or default_folder(), machine.proc)
    missing = list(_programs(case))
    findings += missing
    if all(finding.ok for finding in missing):
        for step in (_kernel, _control_group, _loopback, _applied, _leftovers, _firewall):
            findings += _attempt(step(case))
    for step in (_listener, _forwarding, _source_checks, _tracking):
        findings += _attempt(step(case))
    return [Finding(f.ok, safe_line(f.what), safe_line(f.mend)) for f in findings]


def _attempt(findings: Iterator[Finding]) -> Iterator[Finding]:
    """What cannot be examined is a finding too."""
    try:
        yield from findings
    except InterceptError as error:
        for line in error.lines:
            yield Finding(False, line, "mend that first, then ask again")


# --- programs, rights, kernel ---------------------------------------------------------------------


def _programs(case: _Case) -> Iterator[Finding]:
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


def _kernel(case: _Case) -> Iterator[Finding]:
    for what, hook, rule in _FEATURES[case.plan.mode]:
        text = f"table inet wfpstream_check {{\n chain c {{\n {hook}\n {rule}\n }}\n}}\n"
        done = case.tools.run("nft", ["--check", "-f", "-"], text)
        if done.ok:
            yield Finding(True, f"the kernel has {what}")
        else:
            module = what.split(" ")[0].rstrip(",")
            yield Finding(False, f"the kernel refuses {what}: {done.reason}", f"modprobe {module}")


def _control_group(case: _Case) -> Iterator[Finding]:
    if case.plan.only_cgroup is not None:
        cgroup_folder(case.plan.only_cgroup)
        yield Finding(True, f"control group {case.plan.only_cgroup} is there")


def _loopback(case: _Case) -> Iterator[Finding]:
    if not loopback_is_up(case.tools):
        yield Finding(False, "the loopback interface is down", "ip link set lo up")


def _firewall(case: _Case) -> Iterator[Finding]:
    """Whether its rules let our connections in cannot be told from outside, so this is a note."""
    plan = case.plan
    what = f"TCP to port {plan.port}" if plan.mode == "redirect" else f"TCP with mark {plan.route_mark:#x}"
    for chain in dropping_chains(case.tools):
        yield Finding(
            True, f"chain {chain} drops what it does not know", f"it must accept what is intercepted: {what}"
        )


# --- what was applied -----------------------------------------------------------------------------


def _applied(case: _Case) -> Iterator[Finding]:
    plan = case.plan
    record = _record(case)
    if not has_table(case.tools, plan.name):
        yield Finding(False, f"nothing is intercepted: there is no nft table inet {plan.name}", _how(plan))
    elif not is_our_table(case.tools, plan.name):
        yield Finding(
            False, f"nft table inet {plan.name} was made by somebody else", "choose another --name, and apply"
        )
    elif record is None:
        yield Finding(
            False,
            f"nft table inet {plan.name} has no undo record",
            f"remove it by hand: nft delete table inet {plan.name}; then apply",
        )
    else:
        yield Finding(True, f"nft table inet {plan.name} is there, {record.describe()}")
        yield from _as_asked(plan, record)
        yield from _routing(case, record)


def _record(case: _Case) -> Record | None:
    with open_records(case.folder, create=False) as records:
        return records.find(case.plan.name) if records is not None else None


def _how(plan: Interception) -> str:
    return f"wfpstream transparent apply --port {plan.port} --mode {plan.mode} --name {plan.name}"


def _as_asked(plan: Interception, record: Record) -> Iterator[Finding]:
    there = record.plan
    if (there.port, there.mode) != (plan.port, plan.mode):
        yield Finding(
            False,
            f"{plan.name} was applied for {there.mode} to port {there.port}, not {plan.mode} to {plan.port}",
            f"wfpstream transparent undo --name {plan.name}; then apply",
        )


def _routing(case: _Case, record: Record) -> Iterator[Finding]:
    again = f"wfpstream transparent undo --name {record.name}; then apply"
    for rule in record.rules:
        part = rule.part()
        if not has_rule(case.tools, part):
            yield Finding(False, f"the {part} is gone", again)
            continue
        before = [
            other["priority"]
            for other in rules_of(case.tools, part.family)
            if 0 < other.get("priority", 0) < part.priority and "fwmark" not in other
        ]
        if before:
            yield Finding(
                False,
                f"routing rules {before} come before the {part} and may lead its packets elsewhere",
                f"give them a larger priority, or: {again}",
            )
        else:
            yield Finding(True, f"{part}")
    for route in record.routes:
        path = route.part()
        there = has_route(case.tools, path)
        yield Finding(there, f"{path}" if there else f"the {path} is gone", "" if there else again)


def _leftovers(case: _Case) -> Iterator[Finding]:
    with open_records(case.folder, create=False) as records:
        found, faults = records.all_here() if records is not None else ([], [])
    for line in faults:
        yield Finding(False, line, f"look at it, and remove it from {case.folder}")
    for record in found:
        if record.owner is not None and not record.is_live:
            yield Finding(
                False,
                f"{record.name} is a leftover: {record.describe()}",
                f"wfpstream transparent undo --name {record.name}",
            )


# --- the listener ---------------------------------------------------------------------------------


def _listener(case: _Case) -> Iterator[Finding]:
    plan = case.plan
    found = listeners_on(plan.port, case.proc)
    for family in plan.families:
        fitting = [one for one in found if _receives(one, family)]
        if not fitting:
            listen = f"wfpstream run --mode {plan.mode}@{_ANY[family]}:{plan.port}"
            yield Finding(False, f"nothing listens on port {plan.port} for {_SHOWN[family]}", listen)
        elif plan.takes_forwarded and all(one.address.is_loopback for one in fitting):
            yield Finding(
                False,
                f"port {plan.port} listens on {fitting[0].address} only: forwarded connections do not reach it",
                f"listen on {_ANY[family]}",
            )
        else:
            yield Finding(True, f"port {plan.port} listens for {_SHOWN[family]} on {fitting[0].address}")
    if found and plan.mode == "tproxy":
        yield from _transparent(case)
    if plan.takes_local:
        yield from _loops(plan, found, case.proc)


def _receives(one: Listening, family: Family) -> bool:
    """A wildcard socket of IPv6 usually takes IPv4 as well; /proc does not say when it does not."""
    return one.family == family or (one.family == "ipv6" and one.address.is_unspecified)


def _transparent(case: _Case) -> Iterator[Finding]:
    sockets = transparent_sockets(case.tools, case.plan.port)
    if sockets is None:
        yield Finding(True, "whether the listener is transparent cannot be seen (ss --inet-sockopt)")
    elif sockets:
        yield Finding(True, "the listener is transparent (IP_TRANSPARENT)")
    else:
        yield Finding(
            False,
            f"the listener on port {case.plan.port} is not transparent: tproxy passes it by",
            f"wfpstream run --mode tproxy@{_ANY['ipv4']}:{case.plan.port}, as root or with CAP_NET_ADMIN",
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


def _forwarding(case: _Case) -> Iterator[Finding]:
    if not case.plan.takes_forwarded:
        return
    names: dict[Family, str] = {"ipv4": "net/ipv4/ip_forward", "ipv6": "net/ipv6/conf/all/forwarding"}
    for family in case.plan.families:
        name = names[family]
        if read_setting(name, case.proc) == "1":
            yield Finding(True, f"{_SHOWN[family]} forwarding is on")
        else:
            # Whoever names no scope may mean this machine alone.
            yield Finding(
                case.plan.scope == "both",
                f"{_SHOWN[family]} forwarding is off: what is not taken (other ports, DNS) goes nowhere",
                f"sysctl -w {name.replace('/', '.')}=1",
            )


def _source_checks(case: _Case) -> Iterator[Finding]:
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


def _tracking(case: _Case) -> Iterator[Finding]:
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
