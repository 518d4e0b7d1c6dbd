"""Filter conditions turned into one predicate over a flow's fixed values.

Owns what each match type means for a value. Which fields a layer offers, and whether a match type is legal
for a type, was settled by management before (MGMT-9); nothing is refused here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Final, NamedTuple

from wfpstream.fwp import DataType, FwpValue, MatchType, Range, V4AddrMask, V6AddrMask
from wfpstream.fwps._filter import MatchFunction, SplitMatch, match_always
from wfpstream.fwps._point_index import Points

__all__ = ["LISTENER_FIELD", "Condition", "compile_conditions", "points_of"]

LISTENER_FIELD: Final = -1
"""Field index of the extension field `listener` (4.1): not a fixed value, given beside them."""

_EMPTY: Final = DataType.EMPTY
_Test = Callable[[Any], bool]


class Condition(NamedTuple):
    """One condition, its field already resolved: index into the layer's fixed values, or `LISTENER_FIELD`."""

    field_index: int
    match_type: MatchType
    value: FwpValue


def compile_conditions(conditions: Sequence[Condition]) -> MatchFunction:
    """Predicate: all conditions are true, consecutive ones on the same field being ORed (MGMT-10)."""
    of_listener: list[tuple[_Test, ...]] = []
    of_values: list[MatchFunction] = []
    for field_index, group in groupby(conditions, key=lambda one: one.field_index):
        tests = tuple(_test(one.match_type, one.value) for one in group)
        if field_index == LISTENER_FIELD:
            of_listener.append(tests)
        else:
            of_values.append(_field_match(field_index, tests))
    values_match = _all_of(tuple(of_values)) if of_values else None
    if of_listener:
        return SplitMatch(_listener_match(tuple(of_listener)), values_match)
    return values_match or match_always


def points_of(conditions: Sequence[Condition]) -> Points:
    """The fields of which the conditions accept single values only, and these."""
    points = []
    for field_index, group in groupby(conditions, key=lambda one: one.field_index):
        alternatives = list(group)
        if field_index != LISTENER_FIELD and all(map(_is_point, alternatives)):
            points.append((field_index, frozenset(one.value.value for one in alternatives)))
    return tuple(points)


def _is_point(condition: Condition) -> bool:
    """Ranges and address masks are equal to more than one value."""
    return condition.match_type == MatchType.EQUAL and isinstance(condition.value.value, int | str | bytes)


def _all_of(groups: tuple[MatchFunction, ...]) -> MatchFunction:
    if len(groups) == 1:
        return groups[0]

    def matches(fixed_values: Sequence[FwpValue], listener: str) -> bool:
        return all(group(fixed_values, listener) for group in groups)

    return matches


def _listener_match(groups: tuple[tuple[_Test, ...], ...]) -> Callable[[str], bool]:
    """All groups of conditions on the listener's name."""
    return lambda listener: all(any(test(listener) for test in tests) for tests in groups)


def _field_match(field_index: int, tests: tuple[_Test, ...]) -> MatchFunction:
    """One field against its alternatives."""
    if len(tests) == 1:  # most conditions, and thousands of them are asked when a policy is large
        test = tests[0]

        def value_matches(fixed_values: Sequence[FwpValue], listener: str) -> bool:
            value = fixed_values[field_index]
            return value.type is not _EMPTY and test(value.value)

        return value_matches

    def field_matches(fixed_values: Sequence[FwpValue], listener: str) -> bool:
        value = fixed_values[field_index]
        # FLD-12: nothing matches a field without a value, not even "not equal".
        return value.type is not _EMPTY and any(test(value.value) for test in tests)

    return field_matches


_COMPARISONS: Final[dict[MatchType, Callable[[Any, Any], bool]]] = {
    MatchType.EQUAL: operator.eq,
    MatchType.NOT_EQUAL: operator.ne,
    MatchType.GREATER: operator.gt,
    MatchType.LESS: operator.lt,
    MatchType.GREATER_OR_EQUAL: operator.ge,
    MatchType.LESS_OR_EQUAL: operator.le,
    MatchType.FLAGS_ALL_SET: lambda field, bits: field & bits == bits,
    MatchType.FLAGS_ANY_SET: lambda field, bits: field & bits != 0,
    MatchType.FLAGS_NONE_SET: lambda field, bits: field & bits == 0,
    # Despite their names these two test the end of the field (FWP_MATCH_TYPE page).
    MatchType.PREFIX: lambda field, ending: bool(field.endswith(ending)),
    MatchType.NOT_PREFIX: lambda field, ending: not field.endswith(ending),
}


def _test(match_type: MatchType, value: FwpValue) -> _Test:
    """Test of one raw field value against one condition value."""
    wanted = value.value
    if isinstance(wanted, Range):
        return _within(wanted)
    if isinstance(wanted, V4AddrMask):
        return _masked_v4(wanted, match_type)
    if isinstance(wanted, V6AddrMask):
        return _masked_v6(wanted, match_type)
    if match_type == MatchType.EQUAL_CASE_INSENSITIVE:
        folded = wanted.casefold()
        return lambda field: bool(field.casefold() == folded)
    if match_type == MatchType.EQUAL:
        return partial(operator.eq, wanted)
    compare = _COMPARISONS[match_type]
    return lambda field: compare(field, wanted)


def _within(wanted: Range) -> _Test:
    low, high = wanted.low.value, wanted.high.value
    return lambda field: bool(low <= field <= high)


def _masked_v4(wanted: V4AddrMask, match_type: MatchType) -> _Test:
    network, mask = wanted.addr, wanted.mask
    if match_type == MatchType.NOT_EQUAL:
        return lambda field: field & mask != network
    return lambda field: field & mask == network


def _masked_v6(wanted: V6AddrMask, match_type: MatchType) -> _Test:
    shift = 128 - wanted.prefix_length
    network = int.from_bytes(wanted.addr, "big") >> shift
    if match_type == MatchType.NOT_EQUAL:
        return lambda field: int.from_bytes(field, "big") >> shift != network
    return lambda field: int.from_bytes(field, "big") >> shift == network
