"""The workloads, by name: what the load does, what is counted, and which relays take part by default.

Amounts are those of a relay that moves about 1.5 GB/s; slower ones take a share of them (`Peer.pace`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GB = 10**9

Kind = Literal["bulk", "ping-pong", "connect", "idle"]

# The peers of the table that every line is compared with.
PLAIN = ("wfpstream", "haproxy", "nginx", "envoy", "mitmproxy", "socat", "asyncio", "uvloop", "direct")


@dataclass(frozen=True)
class Case:
    """One workload.

    Attributes:
        name: as `--only` takes it; a prefix of it will do.
        title: for tables.
        kind: the load generator's workload; `idle` is a ping-pong that never plays.
        options: the load generator's options.
        scaled: the option that a slow relay gets a share of.
        peers: who takes part unless `--peers` says otherwise.
        most_rounds: a figure that hardly varies is not worth more.
    """

    name: str
    title: str
    kind: Kind
    options: dict[str, float]
    scaled: str | None
    peers: tuple[str, ...] = PLAIN
    most_rounds: int = 1_000

    @property
    def workload(self) -> str:
        """As the load generator calls it."""
        return "ping-pong" if self.kind == "idle" else self.kind

    @property
    def cpu_unit(self) -> str:
        """What a figure of CPU (or, idle, of memory) counts."""
        return {
            "bulk": "CPU s/GB",
            "ping-pong": "CPU us/round trip",
            "connect": "CPU s/10,000 connections",
            "idle": "KiB/flow",
        }[self.kind]

    @property
    def wall_unit(self) -> str:
        """What a figure of wall clock counts; more is better."""
        return {
            "bulk": "Gbit/s",
            "ping-pong": "round trips/s",
            "connect": "connections/s",
            "idle": "flows",
        }[self.kind]


def _bulk(flows: int, to_upstream: bool) -> Case:
    direction = "to-upstream" if to_upstream else "to-client"
    return Case(
        name=f"bulk-{flows}-{direction}",
        title=f"bulk, {flows} flow{'s' if flows > 1 else ''}, {direction.replace('-', ' ')}",
        kind="bulk",
        options={"connections": flows, "bytes": 1.2 * GB / flows, "to_upstream": to_upstream},
        scaled="bytes",
        peers=(*PLAIN, "wfpstream-relay", *(["wfpstream-workers"] if flows > 1 else [])),
    )


def _offload(flows: int) -> Case:
    return Case(
        name=f"offload-{flows}",
        title=f"bulk after ALLOW_CONNECTION, {flows} flow{'s' if flows > 1 else ''}, to client",
        kind="bulk",
        options={"connections": flows, "bytes": 1.2 * GB / flows},
        scaled="bytes",
        peers=("wfpstream-offload", "wfpstream-relay", "haproxy-splice", "haproxy-splice-auto", "mitmproxy"),
    )


_EDITORS = ("wfpstream", "wfpstream-edit", "wfpstream-edit-whole", "mitmproxy-edit")

CASES: tuple[Case, ...] = (
    *(_bulk(flows, to_upstream) for flows in (1, 8) for to_upstream in (False, True)),
    Case(
        "ping-pong-32", "ping-pong 64 B, 32 connections", "ping-pong",
        {"connections": 32, "seconds": 1.5}, None, (*PLAIN, "wfpstream-relay", "wfpstream-workers"),
    ),
    Case(
        "ping-pong-1", "ping-pong 64 B, 1 connection", "ping-pong",
        {"connections": 1, "seconds": 1.5}, None, (*PLAIN, "wfpstream-relay"),
    ),
    Case(
        "connect", "connect + echo + close, 16 at once", "connect",
        {"connections": 16, "messages": 5_000, "reset": 1}, "messages",
        (*PLAIN, "wfpstream-relay", "wfpstream-workers"),
    ),
    _offload(1),
    _offload(8),
    Case(
        "edit-match", "stream_edit, a match per 4 KiB, to client", "bulk",
        {"connections": 1, "bytes": 0.4 * GB, "needles": 1}, "bytes", _EDITORS,
    ),
    Case(
        "edit-none", "stream_edit, no match, to client", "bulk",
        {"connections": 1, "bytes": 0.8 * GB}, "bytes", _EDITORS,
    ),
    Case(
        "idle", "5,000 idle flows", "idle",
        {"connections": 5_000}, "connections", (*PLAIN[:-1], "wfpstream-relay"), most_rounds=1,
    ),
)  # fmt: skip


def choose_cases(only: str | None) -> list[Case]:
    """The cases whose names begin with one of the comma-separated words; all without any.

    Raises:
        ValueError: a word that fits no case.
    """
    if not only:
        return list(CASES)
    words = [word.strip() for word in only.split(",")]
    for word in words:
        if not any(case.name.startswith(word) for case in CASES):
            raise ValueError(f"{word!r} begins no case; there are {', '.join(case.name for case in CASES)}")
    return [case for case in CASES if any(case.name.startswith(word) for word in words)]
