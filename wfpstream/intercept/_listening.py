"""Who listens on a port of this network namespace, from /proc/net and `ss`.

Owns reading those; judges nothing.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from wfpstream.intercept._machine import CAP_NET_ADMIN, CAP_NET_RAW, capabilities
from wfpstream.intercept._plan import Family
from wfpstream.intercept._tools import Tools

_LISTEN = "0A"
_FILES: dict[Family, str] = {"ipv4": "net/tcp", "ipv6": "net/tcp6"}


@dataclass(frozen=True)
class Listening:
    """A listening TCP socket: its address, whose it is, and its inode."""

    family: Family
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    uid: int
    inode: int


def listeners_on(port: int, proc: Path = Path("/proc")) -> list[Listening]:
    """The sockets that listen on `port`."""
    found: list[Listening] = []
    for family, file in _FILES.items():
        try:
            lines = (proc / file).read_text(encoding="ascii").splitlines()[1:]
        except (OSError, ValueError):
            continue
        for line in lines:
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == _LISTEN and int(number, 16) == port:
                found.append(Listening(family, _address(address), int(fields[7]), int(fields[9])))
    return found


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The kernel prints 32-bit words of network order as numbers of the machine's own."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    raw = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return ipaddress.IPv4Address(raw) if len(raw) == 4 else ipaddress.IPv6Address(raw)


def may_set_marks(listening: Listening, proc: Path = Path("/proc")) -> bool | None:
    """Whether a process that has the socket may mark its connections; None if no such process can be seen."""
    wanted = f"socket:[{listening.inode}]"
    for process in proc.iterdir():
        if process.name.isdigit() and _has_file(process, wanted):
            # The latter suffices since Linux 5.17.
            wanted_sets = 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW
            return bool(capabilities(process / "status").get("CapEff", 0) & wanted_sets)
    return None


def _has_file(process: Path, wanted: str) -> bool:
    try:
        names = os.listdir(process / "fd")
    except OSError:
        return False
    for name in names:
        try:
            if os.readlink(process / "fd" / name) == wanted:
                return True
        except OSError:
            # Closed meanwhile.
            continue
    return False


def transparent_sockets(tools: Tools, port: int) -> set[str] | None:
    """The addresses on which a transparent socket listens, as `ss` prints them; None if it cannot tell."""
    if tools.find("ss") is None:
        return None
    done = tools.run("ss", ["-H", "-l", "-t", "-n", "--inet-sockopt", f"sport = :{port}"])
    if not done.ok or "inet-sockopt:" not in done.out:
        return None
    found: set[str] = set()
    local = ""
    for line in done.out.splitlines():
        if line.startswith("LISTEN"):
            local = line.split()[3].rpartition(":")[0]
        if re.search(r"\btransparent\b", line):
            found.add(local)
    return found
