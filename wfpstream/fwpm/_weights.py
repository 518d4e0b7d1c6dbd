"""Effective filter weights (MGMT-6, MGMT-7).

Owns the arithmetic only: an exact weight, a range plus a generated part, or a generated weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from wfpstream.fwp import DataType, FwpValue, MatchType
from wfpstream.fwpm._types import AUTO_WEIGHT_BITS, WEIGHT_RANGE_MAX
from wfpstream.fwps._conditions import Condition

# MGMT-7: number of distinct fields above, exact-match bits below; together below 2^60.
_EXACT_BITS: Final = 40
_EXACT_MAX: Final = 2**_EXACT_BITS - 1

_INTEGER_BITS: Final = {
    DataType.UINT8: 8,
    DataType.UINT16: 16,
    DataType.UINT32: 32,
    DataType.UINT64: 64,
    DataType.INT8: 8,
    DataType.INT16: 16,
    DataType.INT32: 32,
    DataType.INT64: 64,
}


def weight_is_legal(weight: FwpValue) -> bool:
    """MGMT-6: UINT64, UINT8 0..15, or EMPTY; anything else is STATUS_FWP_INVALID_WEIGHT."""
    if weight.type is DataType.UINT8:
        return bool(weight.value <= WEIGHT_RANGE_MAX)
    return weight.type in (DataType.UINT64, DataType.EMPTY)


def effective_weight(weight: FwpValue, conditions: Sequence[Condition]) -> int:
    """The UINT64 a filter is sorted by; `weight` must be legal."""
    if weight.type is DataType.UINT64:
        return int(weight.value)
    generated = _generated(conditions)
    if weight.type is DataType.UINT8:
        return int(weight.value) << AUTO_WEIGHT_BITS | generated
    return generated


def _generated(conditions: Sequence[Condition]) -> int:
    """In [0, 2^60): more distinct fields weigh more, then more exact-match bits (MGMT-7).

    Alternatives (MGMT-10) are as specific as the least specific of them: a longer list is not more specific.
    """
    fields = {one.field_index for one in conditions}
    exact = sum(
        min(_exact_bits(one) for one in group)
        for _, group in groupby(conditions, key=lambda one: one.field_index)
    )
    return len(fields) << _EXACT_BITS | min(exact, _EXACT_MAX)


def _exact_bits(condition: Condition) -> int:
    """How many bits of the field the condition pins down."""
    value = condition.value
    match condition.match_type:
        case MatchType.EQUAL if value.type is DataType.V4_ADDR_MASK:
            return int(value.value.mask).bit_count()
        case MatchType.EQUAL if value.type is DataType.V6_ADDR_MASK:
            return int(value.value.prefix_length)
        case MatchType.EQUAL | MatchType.EQUAL_CASE_INSENSITIVE | MatchType.PREFIX:
            return _width(value)
        case MatchType.FLAGS_ALL_SET | MatchType.FLAGS_NONE_SET:
            return int(value.value).bit_count()
        case _:
            return 0


def _width(value: FwpValue) -> int:
    if value.type in _INTEGER_BITS:
        return _INTEGER_BITS[value.type]
    # A string counts UTF-16 units of two bytes, as Windows stores it.
    size = len(value.value) * (2 if value.type is DataType.UNICODE_STRING_TYPE else 1)
    return 8 * size
