"""Whether listeners and interception can be what the file says: addresses, networks, ports, modes.

Owns these checks and the reading of networks and ports; it opens nothing and resolves no names.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from wfpstream.config._addresses import parse_address
from wfpstream.config._errors import KeyPath, Problem
from wfpstream.config._model import Config, Listener, Ports, Text, Transparent

PortRange = int | tuple[int, int]

MAX_PORT = 65535
_RANGE = re.compile(r"\s*(\d{1,5})\s*-\s*(\d{1,5})\s*")
# IFNAMSIZ of Linux is 16, its end mark included; nft reads a final * as a wildcard.
_INTERFACE = re.compile(r"[^\s/\"*]{1,15}|[^\s/\"*]{1,14}\*")
_MAX_UID = 2**32 - 2
_NETWORKS = ("accept_proxy", "allow_destinations", "deny_destinations")


def parse_networks(said: Text | None) -> tuple[str, ...]:
    """Networks from an address, a network, or a list of them; in the form `10.0.0.0/8`.

    Raises:
        ValueError: one of them is neither, or the list is empty.
    """
    if said is None:
        return ()
    texts = said if isinstance(said, list) else [said]
    if not texts:
        raise ValueError("expected at least one address or network")
    return tuple(_network(text) for text in texts)


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        hint = " (bits of a host are set)" if "host bits" in str(error) else ""
        raise ValueError(
            f'expected an address or a network such as "10.0.0.0/8" or "fe80::/10", got "{text}"{hint}'
        ) from None


def parse_ports(said: Ports | None) -> tuple[PortRange, ...]:
    """Ports and (low, high) ranges from a port, a range `1000-2000`, or a list of them.

    Raises:
        ValueError: one of them is neither, or the list is empty.
    """
    if said is None:
        return ()
    ports = said if isinstance(said, list) else [said]
    if not ports:
        raise ValueError("expected at least one port")
    return tuple(_ports(port) for port in ports)


def _ports(said: int | str) -> PortRange:
    found = _RANGE.fullmatch(said) if isinstance(said, str) else None
    if found is not None:
        low, high = int(found[1]), int(found[2])
        if 0 < low <= high <= MAX_PORT:
            return low, high
    elif isinstance(said, int):
        if 0 < said <= MAX_PORT:
            return said
    elif said.isdecimal() and 0 < int(said) <= MAX_PORT:
        return int(said)
    raise ValueError(f'expected a port from 1 to {MAX_PORT} or a range "1000-2000", got {said}')


def check_listening(config: Config) -> list[Problem]:
    """Listeners that cannot be opened as they are written, and interception that cannot be had."""
    return [*_check_listeners(config.proxy.listener), *_check_transparent(config)]


def _check_listeners(listeners: Sequence[Listener]) -> list[Problem]:
    problems: list[Problem] = []
    names: set[str] = set()
    taken: set[tuple[str, int]] = set()
    for index, listener in enumerate(listeners):
        path: KeyPath = ("proxy", "listener", index)
        if listener.name and listener.name in names:
            problems.append(Problem((*path, "name"), f'there is a listener "{listener.name}" already'))
        names.add(listener.name)
        problems += _check_place(path, listener, taken)
        if listener.upstream is not None:
            problems += _check_address((*path, "upstream"), listener.upstream)
        problems += _check_mode(path, listener)
        problems += _check_networks(path, listener)
    return problems


def _check_place(path: KeyPath, listener: Listener, taken: set[tuple[str, int]]) -> list[Problem]:
    """Its own address: of the right form, and nobody else's."""
    problems = _check_address((*path, "listen"), listener.listen, default_host="127.0.0.1")
    if not problems:
        host, port = parse_address(listener.listen, default_host="127.0.0.1")
        if (host, port) in taken:
            problems = [Problem((*path, "listen"), f'there is a listener on "{listener.listen}" already')]
        elif port:
            taken.add((host, port))
    return problems


def _check_address(path: KeyPath, text: str, default_host: str | None = None) -> list[Problem]:
    try:
        _, port = parse_address(text, default_host=default_host)
        if port == 0 and default_host is None:
            raise ValueError("expected a port from 1 to 65535, got 0")
    except ValueError as error:
        return [Problem(path, str(error))]
    return []


def _check_mode(path: KeyPath, listener: Listener) -> list[Problem]:
    problems = []
    mode = listener.mode
    if (listener.upstream is not None) != (mode == "reverse"):
        what = "needs an upstream, HOST:PORT" if mode == "reverse" else "takes no upstream"
        problems.append(Problem(path, f"mode {mode} {what}"))
    if listener.keep_client_address and mode != "tproxy":
        what = f"only mode tproxy can keep the client's address, not {mode}"
        problems.append(Problem((*path, "keep_client_address"), what))
    if listener.keep_port and not listener.keep_client_address:
        what = "the client's port can be kept only with its address (keep_client_address = true)"
        problems.append(Problem((*path, "keep_port"), what))
    return problems


def _check_networks(path: KeyPath, listener: Listener) -> list[Problem]:
    problems = []
    for key in _NETWORKS:
        try:
            parse_networks(getattr(listener, key))
        except ValueError as error:
            problems.append(Problem((*path, key), str(error)))
    return problems


def _check_transparent(config: Config) -> list[Problem]:
    wanted = config.transparent
    path: KeyPath = ("transparent",)
    problems = []
    try:
        parse_ports(wanted.ports)
    except ValueError as error:
        problems.append(Problem((*path, "ports"), str(error)))
    modes = {listener.mode for listener in config.proxy.listener} & {"redirect", "tproxy"}
    if modes == {"tproxy"} and wanted.scope in ("local", "both"):
        what = 'mode tproxy takes forwarded connections only; expected "forward"'
        problems.append(Problem((*path, "scope"), what))
    takes_local = wanted.scope in ("local", "both") or (wanted.scope is None and modes != {"tproxy"})
    for key in ("only_uid", "only_cgroup"):
        if getattr(wanted, key) is not None and not takes_local:
            what = "it limits connections made on this machine, and none of those are taken"
            problems.append(Problem((*path, key), what))
    if wanted.interface is not None and wanted.scope == "local":
        what = "it limits forwarded connections, and none of those are taken"
        problems.append(Problem((*path, "interface"), what))
    return problems + _check_who(path, wanted)


def _check_who(path: KeyPath, wanted: Transparent) -> list[Problem]:
    """Whose connections are taken: names that nft or the kernel would read as something else are refused."""
    problems = []
    for key in ("exempt_uid", "only_uid"):
        if (getattr(wanted, key) or 0) > _MAX_UID:
            problems.append(Problem((*path, key), f"a user's number is at most {_MAX_UID}"))
    if wanted.exempt_uid is not None and wanted.exempt_uid == wanted.only_uid:
        what = "the only user whose connections are taken cannot be the one left alone"
        problems.append(Problem((*path, "exempt_uid"), what))
    group, interface = wanted.only_cgroup, wanted.interface
    if group is not None and not _is_group(group):
        what = 'expected the path of a control group, such as "system.slice/web.service"'
        problems.append(Problem((*path, "only_cgroup"), what))
    if interface is not None and not _INTERFACE.fullmatch(interface):
        problems.append(Problem((*path, "interface"), 'expected the name of an interface, such as "eth0"'))
    return problems


def _is_group(path: str) -> bool:
    is_plain = bool(path.strip("/")) and path.isprintable() and '"' not in path
    return is_plain and not {"", ".", ".."} & set(path.strip("/").split("/"))
