"""The engine's settings, with the defaults that are pinned outside (interfaces, configuration).

Owns names, units and defaults; decoding text into them is `config/`. Sizes are bytes, times seconds,
0 switches a time off.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KIB = 1024
MIB = 1024 * KIB


@dataclass
class Limits:
    """`[limits]`: per flow and direction unless said otherwise (IND-24)."""

    unsent: int = 256 * KIB
    injected: int = 1 * MIB
    pended: int = 1 * MIB
    taken: int = 8 * MIB
    deferred: int = 0
    need_more_data: int = 8 * MIB  # NMD-6: 8 MB, Stream Inspection; the MiB reading is a DECISION
    per_flow: int = 64 * MIB
    total: int = 1024 * MIB
    flows: int = 10000
    flows_per_client: int = 0


@dataclass
class Timeouts:
    """`[timeouts]`, in seconds; 0 = off."""

    connect: float = 10.0
    proxy_header: float = 5.0
    idle: float = 0.0
    half_closed: float = 0.0
    both_read: float = 0.0  # OBJ-14: both legs read to their end and half_closed off; 120 s in live drivers
    pend_connect: float = 30.0
    reset_flush: float = 2.0
    stuck: float = 0.0  # IND-24: 60 s live, set by `run`; off in memory and replay
    drain: float = 10.0
    turn: float = 0.1


@dataclass
class Policy:
    """`[policy]`: drop, permit or bypass (POL-1); `on_block` rst or fin (LAY-21)."""

    on_callout_error: str = "drop"
    on_limit: str = "drop"
    on_gap: str = "permit"
    on_midstream: str = "permit"
    on_block: str = "rst"


@dataclass
class Verify:
    """`[verify]`: level off, warn or strict; `grace` and `clone_age` in seconds (VRF-2, CLN-8)."""

    level: str = "off"
    hints: bool = False
    grace: float = 5.0
    clone_age: float = 30.0
    callback_budget: float = 0.01
    virtual_time: bool = False  # VRF-3: clock-based rules are off where time is virtual


@dataclass
class EngineOptions:
    """Everything an engine can be told. The `[engine]` section is this object's own attributes."""

    profile: str = "win10"
    need_more_mode: str = "total"
    indicate_abort: bool = True
    inject_delivery: str = "inline"
    completion: str = "normal"
    fin_lookahead: bool = False
    fin_with_data: bool = False
    repeat_fin: bool = False  # IND-20: a FIN that was permitted is indicated once more
    discard_layer: bool = False
    callbacks_per_turn: int = 1000
    reauthorize: bool = False
    dispatch_mode: bool = False  # CMP-7: what `dispatch_level` says in a completion
    indicate_mdls: int = 1
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    policy: Policy = field(default_factory=Policy)
    verify: Verify = field(default_factory=Verify)
