"""The undo record: what was made, as names and values.

Owns what a record says and which values it may have. It holds no commands: what removes a part follows from its values
(`_rules`). Where records are kept, and how they are protected, is `_records`'s.
"""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from wfpstream.intercept._machine import boot_id, start_time, this_namespace
from wfpstream.intercept._plan import Family, Interception
from wfpstream.intercept._rules import Part, RoutePart, RulePart, Script, TablePart

VERSION = 1

_Name = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
_Table = Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
_Whole = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Owner(Struct, frozen=True, forbid_unknown_fields=True):
    """A process: its id, and its start, since ids are used again."""

    pid: Annotated[int, Meta(ge=1, le=1 << 22)]
    start: _Whole

    @property
    def is_alive(self) -> bool:
        """Whether that very process is still there."""
        return start_time(self.pid) == self.start


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """A routing rule that was made."""

    family: Family
    priority: Annotated[int, Meta(ge=1, le=32765)]
    mark: Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
    table: _Table

    def part(self) -> RulePart:
        """As the rules' room knows it."""
        return RulePart(self.family, self.priority, self.mark, self.table)


class Route(Struct, frozen=True, forbid_unknown_fields=True):
    """A route that was made."""

    family: Family
    table: _Table

    def part(self) -> RoutePart:
        """As the rules' room knows it."""
        return RoutePart(self.family, self.table)


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """What was made, for whom, when and where.

    Attributes:
        version: of this form.
        name: of the interception and its nft table.
        made: wall-clock time, seconds since 1970.
        boot, namespace: the start of the machine and the network namespace it was made in.
        plan: what was asked for.
        rules, routes: what was made beside the nft table.
        owner: the proxy it belongs to, which takes it back at its end; None: it stays until somebody does.
    """

    version: Annotated[int, Meta(ge=VERSION, le=VERSION)]
    name: _Name
    made: _Whole
    boot: Annotated[str, Meta(max_length=64)]
    namespace: _Whole
    plan: Interception
    rules: Annotated[tuple[Rule, ...], Meta(max_length=2)]
    routes: Annotated[tuple[Route, ...], Meta(max_length=2)]
    owner: Owner | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that may have been made, in the order of making."""
        routes = tuple(route.part() for route in self.routes)
        return (*routes, *(rule.part() for rule in self.rules), TablePart(self.name))

    @property
    def is_live(self) -> bool:
        """Whether it belongs to a process that is there."""
        return self.owner is not None and self.owner.is_alive

    @property
    def is_from_here(self) -> bool:
        """Whether it was made in this network namespace, since the machine's start."""
        return self.boot == boot_id() and self.namespace == this_namespace()

    def describe(self) -> str:
        """Who made it and when, for people."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(min(self.made, 1 << 40)))
        if self.owner is None:
            return f"applied by `wfpstream transparent apply` at {when}"
        state = "running" if self.owner.is_alive else "which has ended"
        return f"applied at {when} by the proxy with pid {self.owner.pid}, {state}"


def new_record(plan: Interception, made: Script, owner: int | None) -> Record:
    """The record of what `made` is about to make here.

    Args:
        plan: what was asked for.
        made: what will be run.
        owner: the pid of the proxy that it belongs to.
    """
    start = start_time(owner) if owner is not None else None
    return Record(
        VERSION,
        plan.name,
        int(time.time()),
        boot_id(),
        this_namespace(),
        plan,
        tuple(Rule(part.family, part.priority, part.mark, part.table) for part in made.rules),
        tuple(Route(part.family, part.table) for part in made.routes),
        Owner(owner, start) if owner is not None and start is not None else None,
    )


def encode_record(record: Record) -> bytes:
    """As it is kept."""
    return msgspec.json.encode(record) + b"\n"


def decode_record(data: bytes) -> Record:
    """The record that was kept as `data`.

    Raises:
        ValueError: it is none of ours; the text says why.
    """
    try:
        record = msgspec.json.decode(data, type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if record.plan.name != record.name:
        raise ValueError("it names two interceptions")
    return record
