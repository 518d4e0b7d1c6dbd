"""The file format: one msgspec Struct per table of the TOML, with the pinned defaults.

Owns names, types, defaults and the words that describe them (the JSON Schema and the error messages are made
from them). Structs hold what the file says, units included; turning that into engine settings and management
objects is `_settings` and `_build`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

# The units of `callouts.parse_size` and `callouts.parse_time`, as the schema says them.
SIZE_PATTERN = r"^\s*\d+(\.\d+)?\s*([kKMGT](i?B)?|B)?\s*$"
DURATION_PATTERN = r"^\s*\d+(\.\d+)?\s*(us|ms|s|m|h)?\s*$"


def _size(meaning: str) -> Meta:
    return Meta(description=meaning, extra={"expected": 'a size such as "256KiB", or a number of bytes'})


def _time(meaning: str) -> Meta:
    return Meta(
        description=meaning, extra={"expected": 'a time such as "250ms" or "10s", or a number of seconds'}
    )


def _one(meaning: str) -> Meta:
    return Meta(description=meaning)


Size = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=SIZE_PATTERN)]
Time = (
    Annotated[int, Meta(ge=0)] | Annotated[float, Meta(ge=0)] | Annotated[str, Meta(pattern=DURATION_PATTERN)]
)
Side = Literal["client", "server"]
Fate = Literal["drop", "permit", "bypass"]
Text = str | list[str]
Ports = int | str | list[int | str]
Name = Annotated[str, Meta(min_length=1, extra={"expected": "a name"})]
ListenerName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9_.-]*$",
        description="the name that rules and CALLOUTs know it by",
        extra={"expected": "letters, digits, '_', '-' and '.'"},
    ),
]

_PORTS = Meta(description='a port, a range "1000-2000", or a list of them', examples=[80, "1000-2000"])
_ADDRESSES = Meta(description="an address, a network, or a list of them", examples=["10.0.0.0/8", "::1"])


class _Table(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What all tables share: an unknown key is an error."""


class Listener(_Table, frozen=True):
    """`[[proxy.listener]]`: where to accept connections, and where to take them."""

    name: ListenerName = ""
    mode: Annotated[Literal["reverse", "redirect", "tproxy"], _one("where connections are taken to")] = (
        "reverse"
    )
    listen: Annotated[str, _one("HOST:PORT to listen on; port 0 lets the system choose")] = "127.0.0.1:0"
    upstream: Annotated[str | None, _one("HOST:PORT to connect to; needed by mode reverse")] = None
    local: Annotated[Side | None, _one("which side is the local host; absent: as [proxy] says")] = None
    nodelay: Annotated[bool, _one("the local leg counts as one with TCP_NODELAY (IND-6)")] = False
    keep_client_address: Annotated[
        bool, _one("mode tproxy: connect to the upstream from the client's address")
    ] = False
    keep_port: Annotated[
        bool, _one("with keep_client_address: from the client's port as well, not from any free one")
    ] = False
    accept_proxy: Annotated[
        Text | None,
        _one(
            "addresses or networks whose connections begin with a PROXY header (v1 or v2); others are refused"
        ),
    ] = None
    send_proxy: Annotated[
        Literal["off", "v1", "v2"], _one("begin the connection to the upstream with a PROXY header")
    ] = "off"
    allow_destinations: Annotated[
        Text | None, _one("addresses or networks that connections may go to; absent: any but those denied")
    ] = None
    deny_destinations: Annotated[
        Text | None, _one("addresses or networks that connections may not go to; they are closed")
    ] = None


class Proxy(_Table, frozen=True):
    """`[proxy]`."""

    local: Annotated[Side, _one("which side is the local host, whose outbound is SEND")] = "client"
    listener: list[Listener] = field(default_factory=list)


class When(_Table, frozen=True):
    """`when = {…}` of a rule: every key must hold, the values of a list are alternatives."""

    listener: Annotated[Text | None, _one("names of listeners")] = None
    remote_address: Annotated[Text | None, _ADDRESSES] = None
    remote_port: Annotated[Ports | None, _PORTS] = None
    local_address: Annotated[Text | None, _ADDRESSES] = None
    local_port: Annotated[Ports | None, _PORTS] = None
    direction: Annotated[
        Literal["outbound", "inbound"] | None, _one("who connected: the local host (outbound) or the remote")
    ] = None


class Rule(_Table, frozen=True):
    """`[[rule]]`: one callout in a sublayer of its own; rules are asked in the order of the file."""

    callout: Annotated[Name, _one("a CALLOUT string, or the name of a [[callout]]")]
    when: When = field(default_factory=When)
    name: Annotated[str, _one("what it is known by, also when the file is read again")] = ""


class SubLayer(_Table, frozen=True):
    """`[[sublayer]]`: sublayers are asked by weight, the heaviest first."""

    name: Name
    weight: Annotated[
        int,
        Meta(ge=0, le=65535, description="larger is heavier", extra={"expected": "a number from 0 to 65535"}),
    ]


class Callout(_Table, frozen=True):
    """`[[callout]]`: one callout object with its options."""

    name: Name
    use: Annotated[Name, _one("a built-in or entry-point name, package.module:Class, or ./file.py:Class")]
    options: dict[str, Any] = field(default_factory=dict)


class Condition(_Table, frozen=True):
    """`[[filter.condition]]`: consecutive conditions of one field are alternatives (MGMT-10)."""

    field: Annotated[Name, _one("a field of the layer, such as ip_remote_port; `listener` is ours")]
    value: Annotated[Any, _one("what the field is compared with")]
    match: Annotated[
        Literal[
            "equal", "not_equal", "greater", "less", "greater_or_equal", "less_or_equal", "range",
            "flags_all_set", "flags_any_set", "flags_none_set",
            "equal_case_insensitive", "prefix", "not_prefix",
        ],
        _one("how the field is compared with the value"),
    ] = "equal"  # fmt: skip


class Filter(_Table, frozen=True):
    """`[[filter]]`: which flows meet which action, at which layer, in which order."""

    name: Name
    layer: Annotated[Name, _one("such as stream or stream_v4; without a suffix both families")]
    action: Annotated[
        Literal["permit", "block", "callout_terminating", "callout_inspection", "callout_unknown"],
        _one("what happens to what matches"),
    ]
    sublayer: Annotated[
        str | None, _one("the name of a [[sublayer]]; needed when the action is a callout")
    ] = None
    callout: Annotated[str | None, _one("the name of a [[callout]]; for the callout_… actions")] = None
    weight: Annotated[
        Annotated[int, Meta(ge=0, le=15)] | None,
        Meta(
            description="0..15, larger is heavier; absent: automatic",
            extra={"expected": "a number from 0 to 15 (weight64 takes an exact one)"},
        ),
    ] = None
    weight64: Annotated[
        Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=r"^(0x[0-9A-Fa-f]{1,16}|\d{1,20})$")] | None,
        Meta(
            description="an exact 64-bit weight, as text since TOML's numbers end at 2**63 - 1",
            extra={"expected": 'a text such as "0xF000000000000000"'},
        ),
    ] = None
    options: Annotated[dict[str, Any] | None, _one("becomes the filter's provider context (MGMT-18)")] = None
    clear_action_right: bool = False
    permit_if_callout_unregistered: bool = False
    condition: list[Condition] = field(default_factory=list)


class Limits(_Table, frozen=True):
    """`[limits]`: per flow and direction, but for the last four."""

    unsent: Annotated[Size, _size("output not yet taken by the receiver; stops reading")] = "256KiB"
    injected: Annotated[Size, _size("injected and not completed; stops reading")] = "1MiB"
    pended: Annotated[Size, _size("pended and waiting for the callout; stops reading")] = "1MiB"
    taken: Annotated[Size, _size("pended and taken by the callout; on_limit")] = "8MiB"
    deferred: Annotated[
        Size | None, _size("held by DEFER; stops reading; absent: what was read when DEFER came")
    ] = None
    need_more_data: Annotated[Size, _size("held for NEED_MORE_DATA, per stage")] = "8MiB"
    per_flow: Annotated[Size, _size("all that one flow stores")] = "64MiB"
    total: Annotated[Size, _size("all that the process stores; with workers each has its share")] = "1GiB"
    flows: Annotated[
        int, Meta(ge=0, description="flows at once; accepting pauses; with workers each has its share")
    ] = 10000
    flows_per_client: Annotated[
        int,
        Meta(
            ge=0, description="flows per client address; 0 = off; with workers each has its share, rounded up"
        ),
    ] = 0


class Timeouts(_Table, frozen=True):
    """`[timeouts]`; 0 switches one off."""

    connect: Annotated[Time, _time("connecting to the upstream")] = "10s"
    proxy_header: Annotated[Time, _time("waiting for a PROXY protocol header")] = "5s"
    idle: Annotated[Time, _time("no byte in either direction")] = 0
    half_closed: Annotated[
        Time, _time("from the first FIN relayed; 0: 120s once both legs were read out")
    ] = 0
    pend_connect: Annotated[Time, _time("a pended connection")] = "30s"
    reset_flush: Annotated[Time, _time("delivering owed bytes before a reset is passed on")] = "2s"
    stuck: Annotated[Time, _time("a flow paused by pended bytes alone, without progress")] = "60s"
    drain: Annotated[Time, _time("a retiring filter finishing what it holds")] = "10s"
    turn: Annotated[Time, _time("one batch of callbacks, before the watchdog names the callout")] = "100ms"


class Policy(_Table, frozen=True):
    """`[policy]`: drop aborts the flow, permit passes these bytes, bypass asks the callout no more."""

    on_callout_error: Annotated[Fate, _one("a callout raised, or answered what it may not")] = "drop"
    on_limit: Annotated[Fate, _one("a limit is met that stopping to read cannot help")] = "drop"
    on_gap: Annotated[Fate, _one("bytes are missing in a capture")] = "permit"
    on_midstream: Annotated[Fate, _one("the capture begins within a connection")] = "permit"
    on_block: Annotated[Literal["rst", "fin"], _one("how a blocked connection ends for the client")] = "rst"


class Engine(_Table, frozen=True):
    """`[engine]`: which system is emulated, and the choices its documents leave open."""

    profile: Annotated[Literal["vista", "win7", "win8", "win10"], _one("what exists")] = "win10"
    need_more_mode: Annotated[Literal["total", "additional"], _one("what count_bytes_required counts")] = (
        "total"
    )
    indicate_abort: Annotated[bool, _one("a reset is indicated to the stages")] = True
    inject_delivery: Annotated[Literal["inline", "queued"], _one("when injected bytes travel on")] = "inline"
    completion: Annotated[Literal["normal", "early"], _one("when an injection completes")] = "normal"
    fin_lookahead: Annotated[bool, _one("NO_MORE_DATA on data whose FIN is known already")] = False
    fin_with_data: Annotated[bool, _one("DISCONNECT on the last data indication")] = False
    discard_layer: Annotated[bool, _one("indicate the STREAM_*_DISCARD layers")] = False
    callbacks_per_turn: Annotated[int, Meta(ge=1, description="callbacks before other flows are served")] = (
        1000
    )


class Verify(_Table, frozen=True):
    """`[verify]`: the checks of callouts' behaviour."""

    level: Annotated[Literal["off", "warn", "strict"], _one("strict: violations fail the run")] = "off"
    hints: Annotated[bool, _one("also guesses that fit legal callouts")] = False
    grace: Annotated[Time, _time("before something left over counts as leaked")] = "5s"
    clone_age: Annotated[Time, _time("how old a clone may become")] = "30s"
    callback_budget: Annotated[
        Time, _time("how long a callback may take, before its flow is served last")
    ] = "10ms"


class Control(_Table, frozen=True):
    """`[control]`: the Unix socket of `wfpstream ctl`."""

    socket: Annotated[
        str | None, _one('its path, or "off"; absent: one per process in the user\'s run-time folder')
    ] = None


class Transparent(_Table, frozen=True):
    """`[transparent]`: what `run --transparent` intercepts for the redirect or tproxy listener."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$",
            description="the name of our nft table and of the undo record",
            extra={"expected": "up to 32 letters, digits, '_' and '-', a letter first"},
        ),
    ] = "wfpstream"
    ports: Annotated[Ports | None, _one("destination ports taken; absent: all")] = None
    scope: Annotated[
        Literal["local", "forward", "both"] | None,
        _one("connections made on this machine, forwarded through it, or both; absent: all the mode can"),
    ] = None
    exempt_uid: Annotated[
        Annotated[int, Meta(ge=0)] | None, _one("a user whose connections are left alone")
    ] = None
    only_uid: Annotated[
        Annotated[int, Meta(ge=0)] | None, _one("the only user whose connections are taken")
    ] = None
    only_cgroup: Annotated[
        str | None, _one("the only control group (v2 path) whose connections are taken")
    ] = None
    interface: Annotated[str | None, _one("the only interface where forwarded connections are taken")] = None


class Replay(_Table, frozen=True):
    """`[replay]`: how captures are read; `run` has no use for it."""

    push: Annotated[
        Literal["always", "captured"], _one("PUSH on inbound data always, as live, or as captured (IND-5)")
    ] = "always"
    overlap: Annotated[
        Literal["first", "last"], _one("which copy counts of bytes that came twice before their turn")
    ] = "first"
    coalesce: Annotated[bool, _one("segments in a row may be indicated as one item of up to 64 KiB")] = True
    verify_checksums: Annotated[bool, _one("leave out segments whose checksum is wrong")] = False
    ahead: Annotated[
        Size, _size("waiting for a hole before it, per direction; then the hole meets on_gap")
    ] = "16MiB"
    ahead_total: Annotated[Size, _size("the same for all streams of a capture")] = "256MiB"
    streams: Annotated[
        int, Meta(ge=1, description="streams followed at a time; beyond it the quietest are ended")
    ] = 65536
    idle: Annotated[Time, _time("a stream quiet for so long is ended; 0: never")] = 0
    linger: Annotated[
        Time, _time("how long capture time goes on after the last packet, for delays and throttles")
    ] = "1h"


class Config(_Table, frozen=True):
    """The whole file."""

    proxy: Proxy = field(default_factory=Proxy)
    rule: list[Rule] = field(default_factory=list)
    sublayer: list[SubLayer] = field(default_factory=list)
    callout: list[Callout] = field(default_factory=list)
    filter: list[Filter] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    policy: Policy = field(default_factory=Policy)
    engine: Engine = field(default_factory=Engine)
    verify: Verify = field(default_factory=Verify)
    control: Control = field(default_factory=Control)
    transparent: Transparent = field(default_factory=Transparent)
    replay: Replay = field(default_factory=Replay)


def config_schema() -> dict[str, object]:
    """The JSON Schema of the file format, made from the Structs; `config.schema.json` is its shipped copy."""
    schema = msgspec.json.schema(Config)
    schema.pop("$ref")
    definitions = schema.pop("$defs")
    top = definitions.pop("Config")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "wfpstream configuration",
        **top,
        "$defs": definitions,
    }
