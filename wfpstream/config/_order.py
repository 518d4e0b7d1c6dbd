"""Which unchanged objects must be added anew, so that those of equal weight are asked in the order of the file.

At equal weight the one added first is asked first (MGMT-8), so a change in front of others would put the changed one
behind them. Owns when that matters: not between filters that no flow can meet both, nor where the answer is the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import groupby
from uuid import UUID

from wfpstream.config._planned import PlannedFilter, PlannedSubLayer
from wfpstream.fwp import DataType, MatchType, Range, V4AddrMask, V6AddrMask
from wfpstream.fwpm import FilterCondition, preview_weight

# Values as closed intervals of numbers, or as texts.
_Values = list[tuple[int, int]] | frozenset[str]
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
        age: float = ages[one.key] if one.key in kept else float("inf")
        if age < latest.get(one.weight, -1.0):
            displaced.add(one.key)
            age = float("inf")
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
    places: defaultdict[tuple[UUID, UUID], list[PlannedFilter]] = defaultdict(list)
    for one in filters:
        places[one.layer.key, one.sub_layer].append(one)
    displaced: set[UUID] = set()
    for together in places.values():
        if len(together) > 1 and any(one.key in kept for one in together):
            displaced |= _displaced(together, kept, ages, profile)
    return displaced


def _displaced(
    filters: Sequence[PlannedFilter], kept: Container[UUID], ages: Mapping[UUID, int], profile: str
) -> set[UUID]:
    """The same for the filters of one sublayer at one layer."""
    displaced = set()
    before: defaultdict[int, list[_Placed]] = defaultdict(list)
    for one in filters:
        weight = preview_weight(one.layer, one.weight, one.conditions, profile)
        stays = one.key in kept
        placed = _Placed(one, ages[one.key] if stays else float("inf"))
        if stays and any(other.comes_later(placed) for other in before[weight]):
            displaced.add(one.key)
            placed.age = float("inf")
        before[weight].append(placed)
    return displaced


class _Placed:
    """A filter, and when it was added; infinity: not yet."""

    __slots__ = ("_values", "age", "planned")

    def __init__(self, planned: PlannedFilter, age: float) -> None:
        self.planned = planned
        self.age = age
        self._values: list[tuple[UUID, _Values | None]] | None = None

    def comes_later(self, other: _Placed) -> bool:
        """It stands before the other in the file, would be asked after it, and that makes a difference."""
        return self.age > other.age and not self._does_the_same(other) and self._may_meet(other)

    def _does_the_same(self, other: _Placed) -> bool:
        one, two = self.planned, other.planned
        return one.callout is two.callout is None and one.action == two.action and one.flags == two.flags

    def _may_meet(self, other: _Placed) -> bool:
        """Whether one flow could match both; yes where it cannot be told."""
        theirs = dict(other.values())
        return not any(
            field in theirs and _are_disjoint(values, theirs[field]) for field, values in self.values()
        )

    def values(self) -> list[tuple[UUID, _Values | None]]:
        """For each field what the filter accepts; None: not known."""
        if self._values is None:
            groups = groupby(self.planned.conditions, key=lambda one: one.field_key)
            self._values = [(field, _accepted(list(group))) for field, group in groups]
        return self._values


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
