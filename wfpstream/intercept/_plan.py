"""What is to be intercepted: a plain description, checked when it is made.

Owns the meaning of the options, their defaults and which of them exclude each other. It must not know how rules
look or what the machine can do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from wfpstream.intercept._errors import PlanError

Family = Literal["ipv4", "ipv6"]
Mode = Literal["redirect", "tproxy"]
Scope = Literal["local", "forward", "both"]
PortRange = int | tuple[int, int]

FAMILIES: tuple[Family, ...] = ("ipv4", "ipv6")
# Set by SO_MARK on the proxy's sockets towards upstreams. Kept below 0x1000 and out of the high half: container
# networks (0x4000, 0x8000) and VPNs (0xff0000) give single bits there a meaning of their own.
DEFAULT_MARK = 0x577
MAX_MARK = 0xFFFFFFFE
MAX_UID = 0xFFFFFFFE
MAX_PORT = 65535

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@+-]{1,15}\*?")
_CGROUP_ROOT = "/sys/fs/cgroup/"


@dataclass(frozen=True)
class Interception:
    """Which connections are led to the proxy's listener, and which are left alone.

    Attributes:
        port: of the proxy's listener on this machine.
        name: of the nft table and of the undo record.
        mode: "redirect" changes the destination to the listener (`SO_ORIGINAL_DST` still tells it); "tproxy"
            hands connections to a transparent listener unchanged, with both their addresses.
        redirect_ports: destination ports taken, single or (lowest, highest); empty: all.
        scope: connections made on this machine ("local"), routed through it ("forward"), or "both". None: all
            that the mode and the other limits can mean; afterwards never None.
        exempt_uid: a user whose connections are left alone: the proxy's, if it may not set marks.
        only_uid: the only user whose connections are taken (local ones; forwarded ones have no user).
        only_cgroup: the only control group, as a path in the version 2 hierarchy (local ones).
        interface: the only interface on which forwarded connections are taken; a final `*` is a wildcard.
        mark: what the proxy's own upstream sockets carry; `mark + 1` steers tproxy's packets to it.
        families: "ipv4", "ipv6" or both.

    Raises:
        PlanError: a value is out of its range, or two of them exclude each other.
    """

    port: int
    name: str = "wfpstream"
    mode: Mode = "redirect"
    redirect_ports: tuple[PortRange, ...] = ()
    scope: Scope | None = None
    exempt_uid: int | None = None
    only_uid: int | None = None
    only_cgroup: str | None = None
    interface: str | None = None
    mark: int = DEFAULT_MARK
    families: tuple[Family, ...] = FAMILIES

    def __post_init__(self) -> None:
        _check_values(self)
        if self.only_cgroup is not None:
            object.__setattr__(self, "only_cgroup", _control_group(self.only_cgroup))
        object.__setattr__(self, "redirect_ports", _merged(self.redirect_ports))
        object.__setattr__(self, "families", tuple(f for f in FAMILIES if f in self.families))
        object.__setattr__(self, "scope", self.scope or _default_scope(self))
        _check_together(self)

    @property
    def takes_local(self) -> bool:
        """Whether connections made on this machine are taken."""
        return self.scope in ("local", "both")

    @property
    def takes_forwarded(self) -> bool:
        """Whether connections routed through this machine are taken."""
        return self.scope in ("forward", "both")

    @property
    def route_mark(self) -> int:
        """The mark that a routing rule turns into "this packet is for us" (tproxy)."""
        return self.mark + 1

    def describe(self) -> str:
        """What is taken and where it goes, for people."""
        shown = ", ".join(f"{p[0]}-{p[1]}" if isinstance(p, tuple) else str(p) for p in self.redirect_ports)
        words = {
            "local": "connections made here",
            "forward": "forwarded connections",
            "both": "all connections",
        }
        ports = f"to port {shown}" if shown else "to any port"
        family = "" if len(self.families) == len(FAMILIES) else f" ({self.families[0]} only)"
        return f"{words[self.scope or 'both']} {ports}{family} go to the listener on port {self.port} ({self.mode})"


def parse_ports(value: object) -> tuple[PortRange, ...]:
    """Ports as people write them: `80`, `"80,443"`, `"1000-2000"`, or a list of these; None: none named.

    Raises:
        PlanError: something in it is no port and no range.
    """
    if value is None:
        return ()
    if isinstance(value, list | tuple):
        return tuple(port for part in value for port in parse_ports(part))
    if isinstance(value, str):
        return tuple(_port_range(part) for part in value.split(","))
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    raise PlanError(f"expected a port or a range such as 1000-2000, got {value!r}")


def _port_range(text: str) -> PortRange:
    found = re.fullmatch(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*", text, re.ASCII)
    if found is None:
        raise PlanError(f"expected a port or a range such as 1000-2000, got {text!r}")
    low, high = int(found[1]), int(found[2] or found[1])
    return low if low == high else (low, high)


def find_overlap(one: Interception, other: Interception) -> str | None:
    """Which connections both would take, in words; None if no connection can be meant by both.

    Two that take the same connections would fight, and which one wins would follow from the order of their start.
    """
    if not set(one.families) & set(other.families) or not _ports_meet(one, other):
        return None
    if one.takes_local and other.takes_local and _users_meet(one, other):
        return "connections made on this machine"
    if one.takes_forwarded and other.takes_forwarded and _interfaces_meet(one.interface, other.interface):
        return "forwarded connections"
    return None


def _ports_meet(one: Interception, other: Interception) -> bool:
    if not one.redirect_ports or not other.redirect_ports:
        return True
    theirs = [_bounds(port) for port in other.redirect_ports]
    return any(
        low <= other_high and other_low <= high
        for low, high in map(_bounds, one.redirect_ports)
        for other_low, other_high in theirs
    )


def _users_meet(one: Interception, other: Interception) -> bool:
    return _same(one.only_uid, other.only_uid) and _same(one.only_cgroup, other.only_cgroup)


def _same(one: object, other: object) -> bool:
    return one is None or other is None or one == other


def _interfaces_meet(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return True
    stem, other_stem = one.removesuffix("*"), other.removesuffix("*")
    if one.endswith("*") and other.startswith(stem):
        return True
    return one == other or (other.endswith("*") and one.startswith(other_stem))


# --- checks ---------------------------------------------------------------------------------------


def check_name(name: str) -> None:
    """Whether a table, and a file, can be called so.

    Raises:
        PlanError: they cannot.
    """
    if not _NAME.fullmatch(name):
        raise PlanError(
            f"the name {name!r} is not usable: up to 32 letters, digits, '_' and '-', a letter first"
        )


def _check_values(plan: Interception) -> None:
    check_name(plan.name)
    if plan.mode not in ("redirect", "tproxy"):
        raise PlanError(f"the mode is redirect or tproxy, not {plan.mode!r}")
    if plan.scope not in (None, "local", "forward", "both"):
        raise PlanError(f"the scope is local, forward or both, not {plan.scope!r}")
    _check_number("the listener's port", plan.port, 1, MAX_PORT)
    for port in plan.redirect_ports:
        low, high = _bounds(port)
        _check_number("a redirected port", low, 1, MAX_PORT)
        _check_number("a redirected port", high, 1, MAX_PORT)
        if low > high:
            raise PlanError(f"the port range {low}-{high} ends before it begins")
    for what, uid in (("exempt_uid", plan.exempt_uid), ("only_uid", plan.only_uid)):
        if uid is not None:
            _check_number(what, uid, 0, MAX_UID)
    _check_number("the mark", plan.mark, 1, MAX_MARK)
    if not plan.families or not set(plan.families) <= set(FAMILIES):
        raise PlanError(f"the families are ipv4, ipv6 or both, not {plan.families!r}")
    if plan.interface is not None and not _INTERFACE.fullmatch(plan.interface):
        raise PlanError(f"{plan.interface!r} is not the name of an interface")


def _check_number(what: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise PlanError(f"{what} is a number from {low} to {high}, not {value!r}")


def _check_together(plan: Interception) -> None:
    local_limit = "only_uid" if plan.only_uid is not None else "only_cgroup" if plan.only_cgroup else None
    if plan.mode == "tproxy" and plan.takes_local:
        raise PlanError(
            "tproxy takes forwarded connections only; for those made on this machine use mode redirect"
        )
    if local_limit is not None and not plan.takes_local:
        raise PlanError(
            f"{local_limit} limits connections made on this machine; "
            f"mode {plan.mode} with scope {plan.scope} takes none of them"
        )
    if plan.interface is not None and not plan.takes_forwarded:
        raise PlanError("interface limits forwarded connections; scope local takes none of them")
    if plan.only_uid is not None and plan.only_uid == plan.exempt_uid:
        raise PlanError(f"user {plan.only_uid} is both the only one taken and exempt: nothing is left")


def _default_scope(plan: Interception) -> Scope:
    if plan.mode == "tproxy":
        return "forward"
    limits_local = plan.only_uid is not None or plan.only_cgroup is not None
    if limits_local and plan.interface is None:
        return "local"
    if plan.interface is not None and not limits_local:
        return "forward"
    return "both"


def _control_group(text: str) -> str:
    """The path below the root of the hierarchy, without slashes around it."""
    path = text.removeprefix(_CGROUP_ROOT).strip("/")
    parts = path.split("/")
    # nft's quoted strings know no escapes, so a quote in one cannot be written at all.
    if not path or not path.isprintable() or '"' in path or len(path) > 1024 or {"", ".", ".."} & set(parts):
        raise PlanError(
            f'{text!r} is not the path of a control group below {_CGROUP_ROOT}, such as "system.slice/x.service"'
        )
    return path


def _bounds(port: PortRange) -> tuple[int, int]:
    if isinstance(port, tuple):
        if len(port) != 2:
            raise PlanError(f"a port range has two ends, not {port!r}")
        return port
    return port, port


def _merged(ports: Iterable[PortRange]) -> tuple[PortRange, ...]:
    """In order, without overlaps: nft refuses a set that names a port twice."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(map(_bounds, ports)):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(low if low == high else (low, high) for low, high in merged)
