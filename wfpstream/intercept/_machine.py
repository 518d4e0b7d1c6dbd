"""What is there: tables, routing rules and routes, families, rights, and which network namespace this is.

Owns reading the state of the machine, through the tools and /proc. Changes nothing.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wfpstream.intercept._errors import InterceptError
from wfpstream.intercept._plan import Family
from wfpstream.intercept._rules import COMMENT, Numbers, RoutePart, RulePart
from wfpstream.intercept._tools import SystemTools, Tools, check

CAP_NET_ADMIN, CAP_NET_RAW = 12, 13
_SO_NETNS_COOKIE = 71
_FLAGS: dict[Family, str] = {"ipv4": "-4", "ipv6": "-6"}
_LOCAL = ("local", "2")
_FIRST_TABLE, _LAST_TABLE = 577, 1577
_WANTED_PRIORITY = 100


@dataclass(frozen=True)
class Machine:
    """What an interception is made on; tests have one in memory.

    Attributes:
        tools: the programs to use.
        proc: where /proc is.
        state: the folder of undo records; None: the usual one.
    """

    tools: Tools = field(default_factory=SystemTools)
    proc: Path = Path("/proc")
    state: Path | None = None


# --- nft ------------------------------------------------------------------------------------------


def has_table(tools: Tools, name: str) -> bool:
    """Whether there is a table `inet NAME`, whoever made it."""
    listed = check("nft", tools.run("nft", ["-j", "list", "tables"]), "cannot list the nft tables")
    tables = [entry["table"] for entry in _json(listed.out, "nft").get("nftables", ()) if "table" in entry]
    return any(table.get("family") == "inet" and table.get("name") == name for table in tables)


def is_our_table(tools: Tools, name: str) -> bool:
    """Whether that table carries our comment; one that somebody else made under the name does not."""
    listed = check("nft", tools.run("nft", ["-t", "list", "table", "inet", name]), "cannot list an nft table")
    return f'comment "{COMMENT}"' in [line.strip() for line in listed.out.splitlines()[:3]]


def dropping_chains(tools: Tools) -> list[str]:
    """The chains that drop what comes to this machine unless a rule of theirs accepts it."""
    listed = check("nft", tools.run("nft", ["-j", "list", "chains"]), "cannot list the nft chains")
    chains = [entry["chain"] for entry in _json(listed.out, "nft").get("nftables", ()) if "chain" in entry]
    return [
        f"{chain.get('family')} {chain.get('table')} {chain.get('name')}"
        for chain in chains
        if chain.get("hook") == "input" and chain.get("policy") == "drop"
    ]


# --- ip -------------------------------------------------------------------------------------------


def rules_of(tools: Tools, family: Family) -> list[dict[str, Any]]:
    """The routing rules, as `ip -j` has them."""
    listed = tools.run("ip", ["-j", "-N", _FLAGS[family], "rule", "show"])
    check("ip", listed, "cannot list the routing rules")
    return list(_json(listed.out or "[]", "ip"))


def has_rule(tools: Tools, part: RulePart) -> bool:
    """Whether exactly this rule is there."""
    wanted = (part.priority, str(part.table), part.mark)
    return any(
        (rule.get("priority"), str(rule.get("table")), _number(rule.get("fwmark"))) == wanted
        for rule in rules_of(tools, part.family)
        if "fwmask" not in rule
    )


def has_route(tools: Tools, part: RoutePart) -> bool:
    """Whether exactly this route is there."""
    return any(
        route.get("dst") == "default" and route.get("dev") == "lo" and str(route.get("type")) in _LOCAL
        for route in routes_of(tools, part.family, part.table)
    )


def routes_of(tools: Tools, family: Family, table: int) -> list[dict[str, Any]]:
    """The routes of one routing table, as `ip -j` has them."""
    listed = tools.run("ip", ["-j", "-N", _FLAGS[family], "route", "show", "table", str(table)])
    # A table without routes is not there, and `ip` calls that an error.
    if not listed.ok and "table does not exist" in listed.error:
        return []
    check("ip", listed, "cannot list the routes")
    return list(_json(listed.out or "[]", "ip"))


def loopback_is_up(tools: Tools) -> bool:
    """Whether `lo` is up: routes over it need that."""
    listed = check("ip", tools.run("ip", ["-j", "link", "show", "dev", "lo"]), "cannot look at lo")
    return any("UP" in link.get("flags", ()) for link in _json(listed.out, "ip"))


def free_numbers(tools: Tools, families: tuple[Family, ...]) -> Numbers:
    """A routing table that is empty and named by no rule, and a priority before all rules but the first."""
    rules = [rule for family in families for rule in rules_of(tools, family)]
    used = {_number(rule.get("priority")) for rule in rules}
    named = {str(rule.get("table")) for rule in rules}
    for table in range(_FIRST_TABLE, _LAST_TABLE):
        if str(table) not in named and not any(routes_of(tools, family, table) for family in families):
            return Numbers(table, _free_priority(used))
    raise InterceptError(f"no routing table from {_FIRST_TABLE} to {_LAST_TABLE} is free")


def _free_priority(used: set[int]) -> int:
    """Before every rule but the one of priority 0 (the machine's own addresses), if a number is left there."""
    first = min((number for number in used if number > 0), default=_WANTED_PRIORITY + 1)
    if first > 1:
        return min(first - 1, _WANTED_PRIORITY)
    return next(number for number in range(1, 32766) if number not in used)


def _number(value: object) -> int:
    try:
        return int(str(value), 0)
    except ValueError:
        return -1


def _json(text: str, program: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise InterceptError(f"{program} printed no JSON; is it a very old one?") from None


# --- the kernel -----------------------------------------------------------------------------------


def family_is_on(family: Family, proc: Path = Path("/proc")) -> bool:
    """Whether the kernel of this network namespace has the family switched on."""
    if family == "ipv4":
        return True
    if not (proc / "net/if_inet6").exists():
        return False
    return read_setting("net/ipv6/conf/all/disable_ipv6", proc) == "0"


def read_setting(name: str, proc: Path = Path("/proc")) -> str | None:
    """A sysctl by its path, or None if there is no such one."""
    try:
        return (proc / "sys" / name).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None


def may_change_network(proc: Path = Path("/proc")) -> bool:
    """Whether programs we start have CAP_NET_ADMIN: root with it, or others with it as an ambient capability."""
    found = capabilities(proc / "self/status")
    kind = "CapEff" if os.geteuid() == 0 else "CapAmb"
    return bool(found.get(kind, 0) >> CAP_NET_ADMIN & 1)


def capabilities(status: Path) -> dict[str, int]:
    """The capability sets of a process by their names in /proc; empty if it is gone."""
    try:
        lines = status.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = [line.split(":", 1) for line in lines if line.startswith("Cap")]
    return {name: int(value, 16) for name, value in pairs}


def this_namespace() -> int:
    """A number for the network namespace we are in: its cookie, unique until the machine starts again."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    except OSError:
        # Before Linux 5.14: the inode, which another namespace may get when this one is gone.
        return os.stat("/proc/self/ns/net").st_ino


def boot_id(proc: Path = Path("/proc")) -> str:
    """Which start of the machine this is."""
    try:
        return (proc / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def start_time(pid: int, proc: Path = Path("/proc")) -> int | None:
    """When a process started, in clock ticks since the machine did; None if it is gone (or only its corpse is left)."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything, parentheses and blanks too.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def cgroup_folder(path: str, root: Path = Path("/sys/fs/cgroup")) -> str:
    """Where nft finds the control group `path`: "" below the root, or "unified/" on hybrid systems.

    Raises:
        InterceptError: there is no such control group.
    """
    for folder in ("", "unified/"):
        if (root / folder / "cgroup.procs").exists() and (root / folder / path).is_dir():
            return folder
        # The root group of the pure hierarchy may lack the file in containers; its groups never do.
        if (root / folder / path / "cgroup.controllers").exists():
            return folder
    raise InterceptError(f"there is no control group {path} (version 2) below {root}")
