"""One way in which a sample can reach a callout: every dimension that a check varies, in one record.

Owns the dimensions, their plainest values, and turning a sample into what is sent, piece by piece. It must not know an
engine, nor what is expected of a callout.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Literal

from wfpstream.testing._world import Side

from ._samples import SIDES, Said, Sample

Cuts = tuple[tuple[int, ...], tuple[int, ...]]
Workers = Literal["normal", "early", "late"]

# What a callout's output may depend on, and the fields that say it.
_BORDERS = frozenset(("cuts", "merged", "need_more", "windows", "holds", "workers", "preempt"))
DEPENDENCES: dict[str, frozenset[str]] = {
    "cuts": _BORDERS,
    "order": frozenset(("order", "merged", "windows", "holds", "workers", "preempt")),
    "time": frozenset(("pause",)),
}

# What decides the input itself, or (a limit) what a callout can do with it; a case is compared with the plainest one
# of the same.
_INPUT = frozenset(("sample", "local", "stop", "connections", "held_at_most"))


@dataclass(frozen=True, slots=True)
class Broken:
    """A conversation that ends before its end: after `pieces` pieces `by` resets, or (None) the engine stops."""

    pieces: int
    by: Side | None


@dataclass(frozen=True, slots=True)
class Variation:
    """A sample, and how it comes. The defaults are the plain way; pairs are (client, server).

    Attributes:
        sample: what is said.
        local: which side is the local host; the other one's bytes are RECEIVE.
        stop: how many bytes of each side come before its FIN; None: all.
        connections: how many of them have the same conversation at the same time.
        cuts: offsets in each side's stream at which it is cut, besides the sample's own borders.
        merged: without those borders.
        order: at piece n, True: the side whose turn it is not goes first.
        broken: it ends before its end.
        windows: bytes each side takes before it has to read; None: all.
        pause: seconds between two pieces.
        workers: "early": in every gap between two callbacks; "late": when nothing else can happen.
        holds: instead, turn by turn: 0 all work, 1 none, 2 the first piece of it, 3 the last.
        preempt: API calls outside callbacks (counted from 0) in front of which the next piece arrives.
        need_more: reading of countBytesRequired (NMD-3).
        early_completion: completions as soon as the lower stages have returned (CMP-14).
        queued_delivery: injections are delivered after the call has returned (INJ-12).
        mdls: MDLs of an indicated list (CLN-12).
        repeat_fin: a FIN that was permitted is indicated once more (IND-20).
        fails: API calls of the callout that fail, counted from 0.
        held_at_most: bytes held for NEED_MORE_DATA before BUFFER_LIMIT_REACHED comes (NMD-7); None: as the options say.
    """

    sample: Sample
    local: Side = "client"
    stop: tuple[int | None, int | None] = (None, None)
    connections: int = 1
    cuts: Cuts = ((), ())
    merged: bool = False
    order: tuple[bool, ...] = ()
    broken: Broken | None = None
    windows: tuple[int | None, int | None] = (None, None)
    pause: float = 0.0
    workers: Workers = "normal"
    holds: tuple[int, ...] = ()
    preempt: tuple[int, ...] = ()
    need_more: Literal["total", "additional"] = "total"
    early_completion: bool = False
    queued_delivery: bool = False
    mdls: int = 1
    repeat_fin: bool = False
    fails: tuple[int, ...] = ()
    held_at_most: int | None = None

    @property
    def different(self) -> tuple[str, ...]:
        """The fields beside the sample that are not plain."""
        return tuple(
            each.name
            for each in fields(self)
            if each.name != "sample" and getattr(self, each.name) != each.default
        )

    def plain(self, depends: Iterable[str] = ()) -> Variation:
        """The same input in the plain way; what the output may depend on stays."""
        staying = _INPUT.union(*(DEPENDENCES[name] for name in depends))
        if any(name in staying and getattr(self, name) for name in ("order", "pause")):
            staying |= {"cuts", "merged"}  # both count pieces
        plain: dict[str, Any] = {each.name: each.default for each in fields(self) if each.name not in staying}
        return replace(self, **plain)

    def without(self, name: str) -> Variation:
        """One dimension made plain."""
        default: Any = next(each.default for each in fields(self) if each.name == name)
        return replace(self, **{name: default})

    def input(self, side: Side) -> bytes:
        """What a side sends in all."""
        return self.sample.stream(side)[: self.stop[SIDES.index(side)]]


@dataclass(frozen=True, slots=True)
class Piece:
    """One side sends some bytes, or its FIN (`end`).

    Attributes:
        offset: of the first byte in the side's stream.
        cut: it begins where a variation cuts, not where the sample does.
    """

    by: Side
    offset: int
    data: bytes = b""
    end: bool = False
    cut: bool = False


def pieces_of(variation: Variation) -> list[Piece]:
    """What is sent, in order, the FIN of each side last."""
    queues = [_cut(variation, index) for index in range(2)]
    ranks = [[rank for rank, _ in queue] for queue in queues]
    pieces = [[piece for _, piece in queue] for queue in queues]
    done = [0, 0]
    found: list[Piece] = []
    turn = 0
    while any(done[i] < len(pieces[i]) for i in range(2)):
        side = _next_side(ranks, done)
        other_has_some = done[1 - side] < len(pieces[1 - side])
        if turn < len(variation.order) and variation.order[turn] and other_has_some:
            side = 1 - side
        found.append(pieces[side][done[side]])
        done[side] += 1
        turn += 1
    return found


def _next_side(ranks: list[list[int]], done: list[int]) -> int:
    """Whose next piece comes first in the sample."""
    places = [ranks[i][done[i]] if done[i] < len(ranks[i]) else None for i in range(2)]
    if places[0] is None:
        return 1
    return 0 if places[1] is None or places[0] <= places[1] else 1


def _cut(variation: Variation, index: int) -> list[tuple[int, Piece]]:
    """(place in the sample, piece) of one side's stream."""
    side, sample = SIDES[index], variation.sample
    data = variation.input(side)
    turns = _turns(sample, side)
    own = set() if variation.merged else {start for start, _ in turns}
    borders = sorted({0, len(data)} | {at for at in own | set(variation.cuts[index]) if 0 < at < len(data)})
    made = [
        (_rank(turns, a), Piece(side, a, data[a:b], cut=a > 0 and a not in own))
        for a, b in pairwise(borders)
        if a < b
    ]
    end = next(
        (rank for rank, said in enumerate(sample.said) if said.by == side and said.end), len(sample.said)
    )
    if len(data) < len(sample.stream(side)):
        end = made[-1][0] if made else 0
    return [*made, (end, Piece(side, len(data), end=True))]


def _turns(sample: Sample, side: Side) -> list[tuple[int, int]]:
    """(offset in the side's stream, place in the sample) of each of its turns."""
    found, offset = [], 0
    for place, said in enumerate(sample.said):
        if said.by == side and said.data:
            found.append((offset, place))
            offset += len(said.data)
    return found


def _rank(turns: list[tuple[int, int]], offset: int) -> int:
    return max((place for start, place in turns if start <= offset), default=0)


# -- as text: what a report prints so that a case can be run again ------------------------------------------------


def case_text(variation: Variation, samples: list[Sample]) -> str:
    """A case in one line. Samples that the checker made up are written out, others named by their number."""
    parts: dict[str, Any] = {name: getattr(variation, name) for name in variation.different}
    if variation.broken is not None:
        parts["broken"] = [variation.broken.pieces, variation.broken.by]
    if variation.sample in samples:
        parts["sample"] = samples.index(variation.sample)
    else:
        parts["said"] = [[said.by, said.data.decode("latin-1"), said.end] for said in variation.sample.said]
    return json.dumps(parts, separators=(",", ":"))


def read_case(text: str, samples: list[Sample]) -> Variation:
    """The case that `case_text` wrote.

    Raises:
        ValueError: it is not one, or names a sample that is not there.
    """
    try:
        parts = json.loads(text)
        said = parts.pop("said", None)
        number = parts.pop("sample", None)
        if said is not None:
            sample = Sample(
                tuple(Said(by, data.encode("latin-1"), bool(end)) for by, data, end in said),
                "given",
                free=True,
            )
        else:
            sample = samples[0 if number is None else number]
        if "broken" in parts:
            parts["broken"] = Broken(*parts["broken"])
        case = Variation(sample, **{name: _frozen(value) for name, value in parts.items()})
        pieces_of(case)  # what has a wrong shape shows here
        return case
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{text!r} is no case of this check: {error}") from None


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value
