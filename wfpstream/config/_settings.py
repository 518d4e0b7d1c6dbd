"""From the sections of the file to plain values: for the engine, replay, listeners and interception.

The Structs and the options have the same names, so this owns only the units, and the names that others use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from wfpstream.callouts import parse_size, parse_time
from wfpstream.config._addresses import parse_address
from wfpstream.config._listening import parse_networks, parse_ports
from wfpstream.config._model import Config, Listener, Timeouts
from wfpstream.engine import EngineOptions

_SIZES = ("unsent", "injected", "pended", "taken", "deferred", "need_more_data", "per_flow", "total")
_REPLAY_SIZES = ("ahead", "ahead_total")
_REPLAY_TIMES = ("idle", "linger")
_VERIFY_TIMES = ("grace", "clone_age", "callback_budget")
_PROXY_HEADER_VERSIONS = {"off": 0, "v1": 1, "v2": 2}


def engine_options(config: Config) -> EngineOptions:
    """The engine's options that a configuration asks for; what it leaves out has the pinned defaults."""
    options = EngineOptions()
    _apply(options.limits, config.limits, sizes=_SIZES)
    _apply(options.timeouts, config.timeouts, times=Timeouts.__struct_fields__)
    _apply(options.policy, config.policy)
    _apply(options.verify, config.verify, times=_VERIFY_TIMES)
    _apply(options, config.engine)
    return options


def divided(config: Config, number: int, of: int) -> Config:
    """The share of a configuration's limits that worker `number` (1..`of`) gets; what is per flow stays as it is.

    `flows` is divided exactly, but nobody gets less than one; `total` as well, by bytes. `flows_per_client` is rounded
    up: the kernel does not spread the connections of one client evenly.
    """
    limits = config.limits
    share = msgspec.structs.replace(
        limits,
        flows=_share(limits.flows, number, of),
        total=_share(parse_size(limits.total), number, of),
        flows_per_client=-(-limits.flows_per_client // of),
    )
    return msgspec.structs.replace(config, limits=share)


def _share(whole: int, number: int, of: int) -> int:
    """0 is no limit, and stays so."""
    return max(whole // of + (number <= whole % of), 1) if whole else 0


def replay_settings(config: Config) -> dict[str, Any]:
    """`[replay]` in bytes and seconds, and the side that is local: arguments for `ReplayOptions`."""
    settings = msgspec.structs.asdict(config.replay)
    for name in _REPLAY_SIZES:
        settings[name] = parse_size(settings[name])
    for name in _REPLAY_TIMES:
        settings[name] = parse_time(settings[name])
    return {**settings, "local": config.proxy.local}


def listener_settings(listener: Listener, local: str) -> dict[str, Any]:
    """One listener of a configuration that was checked: arguments for the transport's `ListenerSpec`.

    Args:
        listener: the listener.
        local: `[proxy] local`, for a listener that does not say its own.
    """
    host, port = parse_address(listener.listen, default_host="127.0.0.1")
    upstream_host, upstream_port = parse_address(listener.upstream) if listener.upstream else ("", 0)
    return {
        "name": listener.name,
        "mode": listener.mode,
        "host": host,
        "port": port,
        "upstream_host": upstream_host,
        "upstream_port": upstream_port,
        "local": listener.local or local,
        "nodelay": listener.nodelay,
        "keep_client": listener.keep_client_address,
        "keep_port": listener.keep_port,
        "accept_proxy": parse_networks(listener.accept_proxy),
        "send_proxy": _PROXY_HEADER_VERSIONS[listener.send_proxy],
        "allow": parse_networks(listener.allow_destinations),
        "deny": parse_networks(listener.deny_destinations),
    }


def transparent_settings(config: Config) -> dict[str, Any]:
    """`[transparent]` of a configuration that was checked, for an `Interception`; the rest is the listener's.

    `redirect_ports` has ports and (low, high) ranges, empty for all; `scope` None is all that the mode can.
    """
    settings = msgspec.structs.asdict(config.transparent)
    return {"redirect_ports": parse_ports(settings.pop("ports")), **settings}


def _apply(
    target: object,
    table: msgspec.Struct,
    *,
    sizes: Sequence[str] = (),
    times: Sequence[str] = (),
) -> None:
    for name in table.__struct_fields__:
        value = getattr(table, name)
        if value is None:
            continue
        if name in sizes:
            value = parse_size(value)
        elif name in times:
            value = parse_time(value)
        setattr(target, name, value)
