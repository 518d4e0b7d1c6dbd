"""The things the reference model is made of: bytes, queues, stages, and the peers behind them.

Owns data only, and the small tables of the semantics (section 7); what moves is `reference`'s. It must not
know the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby

from . import script
from .script import SEND, StageScript

IDLE, WAITING, DEFERRED, CONTINUED = "idle", "waiting", "deferred", "continued"


@dataclass(eq=False)
class Buffer:
    """One NET_BUFFER_LIST of an injection, until its completion; `left` things of it are in the pipeline."""

    data: bytes
    left: int


@dataclass(eq=False)
class Unit:
    """A byte, a FIN marker, or a hole where bytes were removed (ARB-11)."""

    kind: str  # byte, fin, hole
    value: int = 0
    buffer: Buffer | None = None
    piece: object = None
    skip: int | None = None  # sublayer whose remaining filters do not see it (ARB-6, INJ-3)
    urgent: bool = False
    arrival: object = None
    seen: bool = False
    counted: bool = False

    @property
    def original(self) -> bool:
        return self.buffer is None

    @property
    def missing(self) -> int:
        """What the stage misses that is not shown it: original bytes only (ARB-12)."""
        return self.value if self.kind == "hole" else int(self.kind == "byte" and self.original)


@dataclass(eq=False)
class Lane:
    """One stage in one direction: its input queue and what it was told (section 0.3)."""

    queue: list[Unit] = field(default_factory=list)
    mode: str = IDLE
    shown: int = 0
    required: int = 0
    remainder: int = 0
    limited: bool = False
    closed: bool = False
    missed: int = 0
    calls: int = 0
    outstanding: list[Buffer] = field(default_factory=list)
    completed: list[tuple[bytes, str]] = field(default_factory=list)
    permitted: int = 0
    blocked: int = 0
    blocked_original: int = 0
    injected: int = 0
    bypassed: int = 0
    discarded: int = 0

    @property
    def stored(self) -> int:
        """Bytes held or queued (LED-1, LED-2)."""
        return sum(u.kind == "byte" for u in self.queue)


@dataclass(eq=False)
class Stage:
    """One (filter, callout) pair on the flow."""

    script: StageScript
    lanes: tuple[Lane, Lane] = field(default_factory=lambda: (Lane(), Lane()))
    allowed: bool = False
    context: int = 0
    removing: bool = False
    classified: bool = False
    deleted: list[int] = field(default_factory=list)
    kept: list[tuple[int, str, tuple[bytes, ...]]] = field(default_factory=list)

    @property
    def active(self) -> bool:
        """Asked at all: ALW-1, CFN-1."""
        return not self.allowed and (not self.script.conditional or bool(self.context))


@dataclass(eq=False)
class Receiver:
    """The end of a direction: what is owed, and the peer that takes it."""

    owed: list[Unit] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    urgent: list[tuple[int, bytes]] = field(default_factory=list)
    window: int | None = None
    fin_owed: Unit | None = None
    fin: bool = False
    reset: bool = False
    given_up: int = 0
    paused: bool = False


def effect_of(action: int, kind: str) -> int:
    """ACT-1 to ACT-5: what an action type does under a filter type."""
    if kind == script.INSPECTION:
        return script.CONTINUE
    if action == script.PERMIT:
        return script.PERMIT
    if action == script.BLOCK or kind == script.TERMINATING:
        return script.BLOCK
    return script.CONTINUE


def is_illegal(action: int, direction: int, kind: str, flags: int) -> bool:
    """ACT-13: stream actions that may not be returned here."""
    if action == script.NEED_MORE_DATA:
        return bool(flags) or kind == "urgent"
    if action == script.DEFER:
        return direction == SEND
    return action not in (script.DROP_CONNECTION, script.ALLOW_CONNECTION)


def pieces_of(units: list[Unit]) -> tuple[bytes, ...]:
    """The buffers of an indication: one for each merged item (NMD-5), an empty one for a FIN (CLN-4)."""
    if units[0].kind == "fin":
        return (b"",)
    return tuple(bytes(u.value for u in group) for _, group in groupby(units, key=lambda u: id(u.piece)))


def cut_off(rest: list[Unit], last: Unit) -> None:
    """What is left of an item whose buffer is cut behind `last` is an item of its own from now on."""
    if not rest or rest[0].piece is not last.piece:
        return
    old_arrival, old_piece = last.arrival, last.piece
    arrival, piece = object(), object()
    for unit in rest:
        unit.arrival = arrival if unit.arrival is old_arrival else unit.arrival
        unit.piece = piece if unit.piece is old_piece else unit.piece


def alike(units: list[Unit], key: Callable[[Unit], object]) -> list[list[Unit]]:
    """Neighbours of equal `key`; a hole belongs to whatever lies before it."""
    groups: list[list[Unit]] = []
    last: object = None
    for unit in units:
        if not groups or (unit.kind != "hole" and key(unit) != last):
            groups.append([])
            last = key(unit)
        groups[-1].append(unit)
    return groups
