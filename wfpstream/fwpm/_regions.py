"""Whether a filter matches all, or some, of what a template's conditions describe (FWP_FILTER_ENUM_TYPE).

Owns the arithmetic of conditions as sets of field values. Must not know filters, templates or layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from wfpstream.fwp import DataType, FwpValue, MatchType, Range, V4AddrMask, V6AddrMask
from wfpstream.fwps._conditions import Condition, compile_conditions

# First and last number of a field; addresses of IPv6 are numbers too.
_DOMAINS: Final[dict[DataType, tuple[int, int]]] = {
    DataType.UINT8: (0, 2**8 - 1),
    DataType.UINT16: (0, 2**16 - 1),
    DataType.UINT32: (0, 2**32 - 1),
    DataType.UINT64: (0, 2**64 - 1),
    DataType.BYTE_ARRAY16_TYPE: (0, 2**128 - 1),
}

# Sorted intervals of numbers, both ends included, with gaps between them.
_Region = tuple[tuple[int, int], ...]
_NOTHING: Final[_Region] = ()


def contains(
    conditions: Sequence[Condition], wanted: Mapping[int, Condition], types: Mapping[int, DataType]
) -> bool:
    """Whatever meets all of `wanted` (one condition per field index) meets `conditions`.

    `types`: type of each field by its index. Conditions on flags and on parts of strings are compared with
    a single value; with anything else they contain only what is written in the same way.
    """
    return all(
        _covers(list(group), wanted.get(index), types[index]) for index, group in _by_field(conditions)
    )


def overlaps(
    conditions: Sequence[Condition], wanted: Mapping[int, Condition], types: Mapping[int, DataType]
) -> bool:
    """Something meets all of `wanted` and `conditions`; True where conditions cannot be compared."""
    alternatives: dict[int, list[list[Condition]]] = {index: [[one]] for index, one in wanted.items()}
    for index, group in _by_field(conditions):
        alternatives.setdefault(index, []).append(list(group))
    return all(_meet(groups, types[index]) for index, groups in alternatives.items())


def _by_field(conditions: Sequence[Condition]) -> groupby[int, Condition]:
    """Consecutive conditions of one field are alternatives (MGMT-10)."""
    return groupby(conditions, key=lambda one: one.field_index)


def _covers(group: list[Condition], wanted: Condition | None, kind: DataType) -> bool:
    """One of the alternatives is true for every value `wanted` allows; None allows all."""
    union = _union([_region(one, kind) or _NOTHING for one in group])
    if wanted is None:
        return kind in _DOMAINS and union == (_DOMAINS[kind],)
    target = _region(wanted, kind)
    if target is not None and _intersection(target, union) == target:
        return True
    single = _single_value(wanted)
    return _allows(group, single) if single is not None else wanted in group


def _meet(groups: list[list[Condition]], kind: DataType) -> bool:
    """Some value is allowed by each of the groups."""
    single = next((value for group in groups if (value := _lone_value(group)) is not None), None)
    if single is not None:
        return all(_allows(group, single) for group in groups)
    common: _Region = (_DOMAINS[kind],) if kind in _DOMAINS else _NOTHING
    for group in groups:
        regions = [_region(one, kind) for one in group]
        known = [one for one in regions if one is not None]
        if len(known) < len(regions):
            return True
        common = _intersection(common, _union(known))
    return bool(common)


def _allows(group: list[Condition], value: FwpValue) -> bool:
    """The run time's own answer, for a flow of one field."""
    return compile_conditions([one._replace(field_index=0) for one in group])([value], "")


def _lone_value(group: list[Condition]) -> FwpValue | None:
    return _single_value(group[0]) if len(group) == 1 else None


def _single_value(condition: Condition) -> FwpValue | None:
    """The only value the condition allows, if it is written as one."""
    value = condition.value
    masked = isinstance(value.value, V4AddrMask | V6AddrMask)
    return value if condition.match_type == MatchType.EQUAL and not masked else None


def _region(condition: Condition, kind: DataType) -> _Region | None:
    """The numbers it allows; None if it does not say so in terms of order."""
    if kind not in _DOMAINS:
        return None
    low, high = _DOMAINS[kind]
    value = condition.value.value
    first, last = _bounds(value)
    match condition.match_type:
        case MatchType.EQUAL | MatchType.RANGE:
            return ((first, last),)
        case MatchType.NOT_EQUAL:
            return _kept((low, first - 1), (last + 1, high))
        case MatchType.GREATER:
            return _kept((first + 1, high))
        case MatchType.GREATER_OR_EQUAL:
            return _kept((first, high))
        case MatchType.LESS:
            return _kept((low, first - 1))
        case MatchType.LESS_OR_EQUAL:
            return _kept((low, first))
        case _:
            return None


def _bounds(value: object) -> tuple[int, int]:
    """First and last number of a value, a range or a network."""
    match value:
        case Range(low, high):
            return _number(low.value), _number(high.value)
        case V4AddrMask(addr, mask):
            return addr, addr | mask ^ 0xFFFF_FFFF
        case V6AddrMask(addr6, length):
            start = _number(addr6)
            return start, start | (1 << 128 - length) - 1
        case _:
            return _number(value), _number(value)


def _number(value: object) -> int:
    if isinstance(value, bytes):
        return int.from_bytes(value, "big")
    assert isinstance(value, int)
    return value


def _kept(*intervals: tuple[int, int]) -> _Region:
    return tuple((low, high) for low, high in intervals if low <= high)


def _union(regions: Sequence[_Region]) -> _Region:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(interval for region in regions for interval in region):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _intersection(one: _Region, other: _Region) -> _Region:
    return _union([_kept((max(low, start), min(high, end))) for low, high in one for start, end in other])
