"""Which unchanged objects must be added anew, so that those of equal weight are asked in the order of the file.

At equal weight the one added first is asked first (MGMT-8), so a change in front of others would put the changed one
behind them. Owns when that matters: not between filters that no flow can meet both, nor where the answer is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, pairwise
from uuid import UUID

from wfpstream.config._planned import PlannedFilter, PlannedSubLayer
from wfpstream.fwp import DataType, MatchType, Range, V4AddrMask, V6AddrMask
from wfpstream.fwpm import FilterCondition, preview_weight

# Values as closed intervals of numbers, or as texts.
_Values = list[tuple[int, int]] | frozenset[str]
_Point = int | str
_NEVER = float("inf")
_ADDRESS_BITS = 128


def displaced_sub_layers(
    sub_layers: Iterable[PlannedSubLayer], kept: Container[UUID], ages: Mapping[UUID, int]
) -> set[UUID]:
    """Sublayers that stay as they are, and stand behind one of the same weight that is added later than they were.

    Args:
        sub_layers: in the order of the file.
        kept: those that would stay.
        ages: when those were added.
    """
    latest: dict[int, float] = {}
    displaced = set()
    for one in sub_layers:
        age = ages[one.key] if one.key in kept else _NEVER
        if age < latest.get(one.weight, -1.0):
            displaced.add(one.key)
            age = _NEVER
        latest[one.weight] = age
    return displaced


def displaced_filters(
    filters: Iterable[PlannedFilter], kept: Container[UUID], ages: Mapping[UUID, int], profile: str
) -> set[UUID]:
    """Filters that stay as they are, and stand behind one that is added later than they were and is not equal to them.

    Args:
        filters: in the order of the file.
        kept: those that would stay.
        ages: when those were added.
        profile: of the engine.
    """
    places: defaultdict[tuple[UUID, UUID], list[_Placed]] = defaultdict(list)
    for one in filters:
        age = ages[one.key] if one.key in kept else _NEVER
        places[one.layer.key, one.sub_layer].append(_Placed(one, age))
    displaced: set[UUID] = set()
    for together in places.values():
        if not _is_in_order(together):
            displaced |= _displaced(together, profile)
    return displaced


def _is_in_order(filters: Sequence[_Placed]) -> bool:
    """Nothing stands behind one that is added later: so it is as long as the file only grows at its end."""
    return all(one.age <= two.age for one, two in pairwise(filters))


def _displaced(filters: Sequence[_Placed], profile: str) -> set[UUID]:
    """The same for the filters of one sublayer at one layer."""
    displaced = set()
    before: defaultdict[int, _Before] = defaultdict(_Before)
    for one in filters:
        planned = one.planned
        same_weight = before[preview_weight(planned.layer, planned.weight, planned.conditions, profile)]
        if one.age < _NEVER and same_weight.has_later(one):
            displaced.add(planned.key)
            one.age = _NEVER
        same_weight.add(one)
    return displaced


class _Placed:
    """A filter, and when it was added; infinity: not yet."""

    __slots__ = ("_values", "age", "planned")

    def __init__(self, planned: PlannedFilter, age: float) -> None:
        self.planned = planned
        self.age = age
        self._values: dict[UUID, _Values | None] | None = None

    def comes_later(self, other: _Placed) -> bool:
        """It stands before the other in the file, would be asked after it, and that makes a difference."""
        return self.age > other.age and not self._does_the_same(other) and self._may_meet(other)

    def _does_the_same(self, other: _Placed) -> bool:
        one, two = self.planned, other.planned
        return one.callout is two.callout is None and one.action == two.action and one.flags == two.flags

    def _may_meet(self, other: _Placed) -> bool:
        """Whether one flow could match both; yes where it cannot be told."""
        theirs = other.values()
        return not any(
            field in theirs and _are_disjoint(values, theirs[field])
            for field, values in self.values().items()
        )

    def values(self) -> dict[UUID, _Values | None]:
        """For each field what the filter accepts; None: not known."""
        if self._values is None:
            groups = groupby(self.planned.conditions, key=lambda one: one.field_key)
            self._values = {field: _accepted(list(group)) for field, group in groups}
        return self._values

    def points(self) -> tuple[UUID, list[_Point]] | None:
        """A field of which it accepts single values only, and these."""
        for field in self.values():
            found = self.points_of(field)
            if found is not None:
                return field, found
        return None

    def points_of(self, field: UUID) -> list[_Point] | None:
        """The single values that it accepts of a field; None: there is more, or nothing is said of it."""
        values = self.values().get(field)
        if isinstance(values, frozenset):
            return list(values)
        if values is None or any(low != high for low, high in values):
            return None
        return [low for low, _ in values]


class _Before:
    """The filters of one weight that stand before some place in the file, found by what they accept."""

    def __init__(self) -> None:
        self._latest = -1.0
        self._anything: list[_Placed] = []
        self._by_point: dict[UUID, dict[_Point, list[_Placed]]] = {}

    def add(self, one: _Placed) -> None:
        self._latest = max(self._latest, one.age)
        found = one.points()
        if found is None:
            self._anything.append(one)
            return
        field, points = found
        by_point = self._by_point.setdefault(field, {})
        for point in points:
            by_point.setdefault(point, []).append(one)

    def has_later(self, other: _Placed) -> bool:
        """One of them comes later, though it stands before the other."""
        return self._latest > other.age and any(one.comes_later(other) for one in self._that_may_meet(other))

    def _that_may_meet(self, other: _Placed) -> Iterator[_Placed]:
        yield from self._anything
        for field, by_point in self._by_point.items():
            points = other.points_of(field)
            for point in by_point if points is None else points:
                yield from by_point.get(point, ())


def _accepted(alternatives: Sequence[FilterCondition]) -> _Values | None:
    texts = [_text(one) for one in alternatives]
    if all(text is not None for text in texts):
        return frozenset(text for text in texts if text is not None)
    intervals = [_interval(one) for one in alternatives]
    if all(interval is not None for interval in intervals):
        return [interval for interval in intervals if interval is not None]
    return None


def _text(condition: FilterCondition) -> str | None:
    value = condition.condition_value
    is_text = value.type is DataType.UNICODE_STRING_TYPE and condition.match_type == MatchType.EQUAL
    return str(value.value) if is_text else None


def _interval(condition: FilterCondition) -> tuple[int, int] | None:
    value = condition.condition_value.value
    if condition.match_type not in (MatchType.EQUAL, MatchType.RANGE):
        return None
    match value:
        case Range(low, high):
            first, last = _number(low.value), _number(high.value)
            return None if first is None or last is None else (first, last)
        case V4AddrMask(addr, mask):
            return addr, addr | ~mask & 0xFFFF_FFFF
        case V6AddrMask(addr, length):
            start = int.from_bytes(addr, "big")
            return start, start | (1 << (_ADDRESS_BITS - length)) - 1
        case _:
            number = _number(value)
            return None if number is None else (number, number)


def _number(value: object) -> int | None:
    if isinstance(value, bytes):
        return int.from_bytes(value, "big") if len(value) * 8 == _ADDRESS_BITS else None
    return value if isinstance(value, int) else None


def _are_disjoint(ours: _Values | None, theirs: _Values | None) -> bool:
    if isinstance(ours, frozenset) and isinstance(theirs, frozenset):
        return ours.isdisjoint(theirs)
    if isinstance(ours, list) and isinstance(theirs, list):
        return all(a[1] < b[0] or b[1] < a[0] for a in ours for b in theirs)
    return False
