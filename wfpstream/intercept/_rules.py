"""From a plan to what the kernel is told: one nft table, and for tproxy a routing rule and a route per family.

Owns the exact text and arguments. Pure: the numbers that must be free on the machine (routing table, priority) are
given. Every part is values only; the commands that make and remove it follow from the values here, so an undo
record need not (and does not) contain commands.

The rules look at the first packet of a connection only: an nft table of type nat sees no other, and a SYN is asked
for explicitly, because connection tracking takes up connections that were there before it in the middle.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from wfpstream.intercept._plan import Family, Interception, PortRange

COMMENT = "made by wfpstream transparent"

_SYN = "tcp flags & (fin | syn | rst | ack) == syn"
_IP = {"ipv4": "ip", "ipv6": "ip6"}
_FLAG = {"ipv4": "-4", "ipv6": "-6"}
_NOT_OURS = "fib daddr type { local, broadcast, anycast, multicast }"
# Connections whose handshake the kernel does with SYN cookies have no socket between SYN and ACK.
_HANDSHAKE = "60s"
_MAX_HANDSHAKES = 65536


@dataclass(frozen=True)
class Numbers:
    """What must be free on the machine: a routing table, and a priority for the rules that lead to it."""

    table: int = 577
    priority: int = 100


@dataclass(frozen=True)
class TablePart:
    """The nft table."""

    name: str

    def __str__(self) -> str:
        return f"nft table inet {self.name}"


@dataclass(frozen=True)
class RulePart:
    """A routing rule: packets with `mark` are looked up in `table`."""

    family: Family
    priority: int
    mark: int
    table: int

    def __str__(self) -> str:
        return f"{self.family} rule {self.priority} (mark {self.mark:#x} to table {self.table})"


@dataclass(frozen=True)
class RoutePart:
    """A route: everything looked up in `table` is for this machine."""

    family: Family
    table: int

    def __str__(self) -> str:
        return f"{self.family} route in table {self.table} (local default)"


Part = TablePart | RulePart | RoutePart


@dataclass(frozen=True)
class Script:
    """What applying a plan runs, in this order: routes, rules, and last, in one step, the nft table.

    Attributes:
        table: the nft table's name, family inet.
        nft: the input of `nft -f -`.
        routes, rules: empty but for tproxy.
    """

    table: str
    nft: str
    routes: tuple[RoutePart, ...] = ()
    rules: tuple[RulePart, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that is made, in the order of making."""
        return (*self.routes, *self.rules, TablePart(self.table))

    def as_shell(self) -> str:
        """The same as commands for a shell, and how to take it back."""
        adding = [shlex.join(["ip", *add_route(part)]) for part in self.routes]
        adding += [shlex.join(["ip", *add_rule(part)]) for part in self.rules]
        removing = [f"nft delete table inet {self.table}"]
        removing += [shlex.join(["ip", *delete_rule(part)]) for part in self.rules]
        removing += [shlex.join(["ip", *delete_route(part)]) for part in self.routes]
        lines = [*adding, "nft -f - <<'END'", self.nft.rstrip("\n"), "END", "# to take it back:"]
        return "\n".join([*lines, *(f"# {line}" for line in removing)]) + "\n"


def script(plan: Interception, numbers: Numbers | None = None, cgroup_folder: str = "") -> Script:
    """What applying `plan` runs.

    Args:
        plan: what is to be intercepted.
        numbers: a free routing table and priority; only tproxy uses them.
        cgroup_folder: where below /sys/fs/cgroup the version 2 hierarchy is, "unified/" on hybrid systems.
    """
    if plan.mode == "redirect":
        return Script(plan.name, _redirect_table(plan, cgroup_folder))
    free = numbers or Numbers()
    return Script(
        plan.name,
        _tproxy_table(plan),
        tuple(RoutePart(family, free.table) for family in plan.families),
        tuple(RulePart(family, free.priority, plan.route_mark, free.table) for family in plan.families),
    )


def emptied(name: str) -> str:
    """What nft is told so that a redirecting table takes no new connections, and keeps those it has."""
    kept = 'ct state established accept comment "what was redirected stays so"'
    return (
        "\n".join([f"flush table inet {name}", f"table inet {name} {{", *_plain_chain("kept", kept), "}"])
        + "\n"
    )


# --- arguments of ip ------------------------------------------------------------------------------


def add_route(part: RoutePart) -> list[str]:
    """Arguments of `ip` that make this route."""
    return [_FLAG[part.family], "route", "add", *_route(part)]


def delete_route(part: RoutePart) -> list[str]:
    """Arguments of `ip` that remove this route and no other."""
    return [_FLAG[part.family], "route", "del", *_route(part)]


def add_rule(part: RulePart) -> list[str]:
    """Arguments of `ip` that make this rule."""
    return [_FLAG[part.family], "rule", "add", *_rule(part)]


def delete_rule(part: RulePart) -> list[str]:
    """Arguments of `ip` that remove this rule and no other."""
    return [_FLAG[part.family], "rule", "del", *_rule(part)]


def _route(part: RoutePart) -> list[str]:
    return ["local", "default", "dev", "lo", "table", str(part.table)]


def _rule(part: RulePart) -> list[str]:
    return ["priority", str(part.priority), "fwmark", f"{part.mark:#x}", "lookup", str(part.table)]


# --- the nft table --------------------------------------------------------------------------------


def _table(plan: Interception, *blocks: list[str]) -> str:
    # `create` fails if the table is there; in one transaction with the rest, so nothing is ever mixed.
    lines = [f'create table inet {plan.name} {{ comment "{COMMENT}"; }}', f"table inet {plan.name} {{"]
    for number, block in enumerate(blocks):
        lines += [""] if number else []
        lines += [f"\t{line}" if line else "" for line in block]
    return "\n".join([*lines, "}"]) + "\n"


def _plain_chain(name: str, rule: str) -> list[str]:
    return [f"\tchain {name} {{", f"\t\t{rule}", "\t}"]


def _chain(name: str, hook: str, rules: list[str]) -> list[str]:
    return [f"chain {name} {{", f"\t{hook}", *(f"\t{rule}" for rule in rules), "}"]


def _redirect_table(plan: Interception, cgroup_folder: str) -> str:
    take = _join(_family(plan), _SYN, _ports(plan.redirect_ports), f"redirect to :{plan.port}")
    blocks = []
    if plan.takes_local:
        rules = [*_left_alone_here(plan), _join(_whose(plan, cgroup_folder), take)]
        blocks.append(_chain("output", "type nat hook output priority -100; policy accept;", rules))
    if plan.takes_forwarded:
        rules = [*_left_alone_forwarded(plan), take]
        blocks.append(_chain("prerouting", "type nat hook prerouting priority dstnat; policy accept;", rules))
    return _table(plan, *blocks)


def _left_alone_here(plan: Interception) -> list[str]:
    rules = [_own_mark(plan)]
    if plan.exempt_uid is not None:
        rules.append(f'meta skuid {plan.exempt_uid} accept comment "the user who is exempt"')
    rules.append(f'fib daddr type local tcp dport {plan.port} accept comment "the listener itself"')
    return rules


def _whose(plan: Interception, cgroup_folder: str) -> str:
    """Whose connections are taken. "All others are left alone" would not do: a process less deep in the hierarchy
    than the group has no ancestor of that level, and a comparison with nothing is never true, not even `!=`.
    """
    user = f"meta skuid {plan.only_uid}" if plan.only_uid is not None else ""
    if plan.only_cgroup is None:
        return user
    level = plan.only_cgroup.count("/") + 1
    return _join(user, f'socket cgroupv2 level {level} "{cgroup_folder}{plan.only_cgroup}"')


def _left_alone_forwarded(plan: Interception) -> list[str]:
    rules = [_own_mark(plan), 'iifname "lo" accept']
    if plan.interface is not None:
        rules.append(f'iifname != "{plan.interface}" accept comment "other interfaces"')
    rules.append(f'{_NOT_OURS} accept comment "this machine\'s own services"')
    # Addressed to our loopback from outside: the kernel would drop it, but not once its destination is changed.
    if "ipv4" in plan.families:
        rules.append("ip daddr 127.0.0.0/8 accept")
    if "ipv6" in plan.families:
        rules.append("ip6 daddr ::1 accept")
    return rules


def _own_mark(plan: Interception) -> str:
    return f'meta mark {plan.mark:#010x} accept comment "the proxy\'s own connections"'


def _tproxy_table(plan: Interception) -> str:
    rules = [
        "meta l4proto != tcp accept",
        f'socket transparent 1 socket wildcard 0 {_to_us(plan)} comment "connections the proxy has"',
        *_left_alone_forwarded(plan),
    ]
    for family in plan.families:
        rules += _tproxy_rules(plan, family)
    hook = "type filter hook prerouting priority mangle; policy accept;"
    sets = [_handshakes(family) for family in plan.families]
    return _table(plan, *sets, _chain("prerouting", hook, rules))


def _tproxy_rules(plan: Interception, family: Family) -> list[str]:
    ip = _IP[family]
    taken = f"taken_{family}"
    key = f"{ip} saddr . tcp sport . {ip} daddr . tcp dport"
    begins = _join(f"meta nfproto {family}", _SYN, _ports(plan.redirect_ports))
    take = f"tproxy {ip} to :{plan.port} {_to_us(plan)}"
    return [
        f"{begins} update @{taken} {{ {key} }}",
        f"{begins} {take}",
        f'{key} @{taken} {take} comment "the end of a handshake with SYN cookies"',
    ]


def _handshakes(family: Family) -> list[str]:
    address = f"{family}_addr"
    return [
        f"set taken_{family} {{",
        f"\ttype {address} . inet_service . {address} . inet_service",
        f"\tsize {_MAX_HANDSHAKES}",
        "\tflags dynamic,timeout",
        f"\ttimeout {_HANDSHAKE}",
        "}",
    ]


def _to_us(plan: Interception) -> str:
    return f"meta mark set {plan.route_mark:#010x} accept"


def _family(plan: Interception) -> str:
    return f"meta nfproto {plan.families[0]}" if len(plan.families) == 1 else ""


def _ports(ports: tuple[PortRange, ...]) -> str:
    shown = [f"{port[0]}-{port[1]}" if isinstance(port, tuple) else str(port) for port in ports]
    return f"tcp dport {{ {', '.join(shown)} }}" if shown else ""


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)
