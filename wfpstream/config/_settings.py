"""From the sections `[limits] [timeouts] [policy] [engine] [verify]` to the engine's options, `[replay]` to values.

The Structs and the options have the same names, so this owns only the units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from wfpstream.callouts import parse_size, parse_time
from wfpstream.config._model import Config, Timeouts
from wfpstream.engine import EngineOptions

_SIZES = ("unsent", "injected", "pended", "taken", "deferred", "need_more_data", "per_flow", "total")
_REPLAY_SIZES = ("ahead", "ahead_total")
_REPLAY_TIMES = ("idle", "linger")
_VERIFY_TIMES = ("grace", "clone_age", "callback_budget")


def engine_options(config: Config) -> EngineOptions:
    """The engine's options that a configuration asks for; what it leaves out has the pinned defaults."""
    options = EngineOptions()
    _apply(options.limits, config.limits, sizes=_SIZES)
    _apply(options.timeouts, config.timeouts, times=Timeouts.__struct_fields__)
    _apply(options.policy, config.policy)
    _apply(options.verify, config.verify, times=_VERIFY_TIMES)
    _apply(options, config.engine)
    return options


def replay_settings(config: Config) -> dict[str, Any]:
    """`[replay]` in bytes and seconds, and the side that is local: arguments for `ReplayOptions`."""
    settings = msgspec.structs.asdict(config.replay)
    for name in _REPLAY_SIZES:
        settings[name] = parse_size(settings[name])
    for name in _REPLAY_TIMES:
        settings[name] = parse_time(settings[name])
    return {**settings, "local": config.proxy.local}


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
