"""The immutable set of filters that is in force, and which of them may match the connections of a listener.

Owns the order of evaluation as it was handed over, and what can be known of a filter before a connection is there.
Knows nothing of the objects of management.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from wfpstream.fwp import FwpValue

from ._filter import Filter2, MatchFunction, SplitMatch, match_always
from ._point_index import PointIndex

__all__ = ["EMPTY_FILTER_SET", "Candidate", "Candidates", "FilterSet"]

Candidate = tuple[Filter2, MatchFunction | None, int]
"""A filter that may match connections of one listener; what must still be asked of each of them, None for nothing;
and the place of the first candidate of the next sublayer (ARB-6)."""

_LISTENERS_KEPT = 1000  # more names than any configuration has: a driver that makes up names fills no memory
# So many filters that say single values are asked one by one in less time than an index takes to say which.
_FEW = 16


class _LaterValues(Protocol):
    """The values of a connection, which are made when they are asked for."""

    @property
    def incoming_value(self) -> Sequence[FwpValue]: ...


class Candidates(tuple[Candidate, ...]):
    """The filters which a listener does not rule out, in the order given, and what is to be asked about them.

    `by_value` is there when there are so many that a connection's values should say which of them come into question.
    """

    by_value: PointIndex | None

    def __new__(cls, filters: Sequence[Filter2], listener: str) -> Candidates:
        """Of the filters of a layer, in evaluation order."""
        made = super().__new__(cls, _candidates(filters, listener))
        selective = sum(bool(filter.points) for filter, _, _ in made)
        made.by_value = PointIndex([filter.points for filter, _, _ in made]) if selective > _FEW else None
        return made

    def of(self, later_values: _LaterValues) -> Iterable[Candidate]:
        """Those that come into question for a connection."""
        if self.by_value is None:
            return self
        return [self[place] for place in self.by_value.places(later_values.incoming_value)]


def _candidates(filters: Sequence[Filter2], listener: str) -> Iterator[Candidate]:
    open_questions: list[tuple[Filter2, MatchFunction | None]] = []
    for filter in filters:
        match = filter.matches
        if match is match_always:
            open_questions.append((filter, None))
        elif not isinstance(match, SplitMatch):
            open_questions.append((filter, match))
        elif match.of_listener(listener):
            open_questions.append((filter, match.of_values))
    found: list[Candidate] = []
    following = len(open_questions)
    for place in range(len(open_questions) - 1, -1, -1):
        filter, question = open_questions[place]
        if found and found[-1][0].sub_layer_key != filter.sub_layer_key:
            following = place + 1
        found.append((filter, question, following))
    return reversed(found)


class FilterSet:
    """The filters in force, never changed after construction.

    `generation` tells two sets apart (a cached match set stays valid while it is equal: MGMT-12).
    `added_callouts` are the (calloutId, layerId) pairs that exist as management objects (OBJ-8, CTX-4).
    The filters of a layer must come in evaluation order (ARB-1, MGMT-8).
    """

    __slots__ = ("_by_layer", "_candidates", "added_callouts", "generation")

    generation: int
    added_callouts: frozenset[tuple[int, int]]
    _by_layer: dict[int, tuple[Filter2, ...]]
    _candidates: dict[tuple[int, str], Candidates]

    def __init__(
        self,
        generation: int = 0,
        by_layer: Mapping[int, Sequence[Filter2]] = MappingProxyType({}),
        added_callouts: Iterable[tuple[int, int]] = (),
    ) -> None:
        put = super().__setattr__
        put("generation", generation)
        put("_by_layer", {int(layer): tuple(filters) for layer, filters in by_layer.items()})
        put("_candidates", {})
        put("added_callouts", frozenset(added_callouts))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"FilterSet.{name} is read-only")

    def filters_at(self, layer_id: int) -> tuple[Filter2, ...]:
        """Filters of a layer in evaluation order: sublayer by sublayer, heaviest first (ARB-1)."""
        return self._by_layer.get(layer_id, ())

    def candidates(self, layer_id: int, listener: str) -> Candidates:
        """Those of `filters_at` that this listener does not rule out, in the same order; worked out once."""
        key = (layer_id, listener)
        known = self._candidates.get(key)
        if known is None:
            if len(self._candidates) >= _LISTENERS_KEPT:
                self._candidates.clear()
            known = Candidates(self._by_layer.get(layer_id, ()), listener)
            self._candidates[key] = known
        return known

    def __iter__(self) -> Iterator[Filter2]:
        for filters in self._by_layer.values():
            yield from filters

    def __len__(self) -> int:
        return sum(len(filters) for filters in self._by_layer.values())


EMPTY_FILTER_SET: Final = FilterSet()
