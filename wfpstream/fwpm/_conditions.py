"""Which conditions a filter may have: value types and match types against fields (MGMT-9).

Owns the legality only; what a match type means for a value is the run time's business.
"""

from __future__ import annotations

from typing import Final

from wfpstream.fwp import DataType, FwpValue, MatchType, NtStatus
from wfpstream.fwpm._layers import Layer, find_field
from wfpstream.fwpm._types import FilterCondition
from wfpstream.fwps._conditions import Condition

_UNSIGNED: Final = frozenset({DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64})
_SORTABLE: Final = _UNSIGNED | {
    DataType.INT8,
    DataType.INT16,
    DataType.INT32,
    DataType.INT64,
    DataType.BYTE_ARRAY16_TYPE,
    DataType.BYTE_BLOB_TYPE,
    DataType.UNICODE_STRING_TYPE,
}
_SUFFIXED: Final = frozenset({DataType.BYTE_BLOB_TYPE, DataType.UNICODE_STRING_TYPE})
_MASKS: Final = frozenset({DataType.V4_ADDR_MASK, DataType.V6_ADDR_MASK})

# Legal types of the condition's value, by match type; EQUAL takes all but a range (FWP_MATCH_TYPE page).
_LEGAL: Final[dict[int, frozenset[DataType]]] = {
    MatchType.EQUAL: frozenset(DataType) - {DataType.EMPTY, DataType.RANGE_TYPE},
    MatchType.NOT_EQUAL: _SORTABLE | _MASKS,
    MatchType.GREATER: _SORTABLE,
    MatchType.LESS: _SORTABLE,
    MatchType.GREATER_OR_EQUAL: _SORTABLE,
    MatchType.LESS_OR_EQUAL: _SORTABLE,
    MatchType.RANGE: frozenset({DataType.RANGE_TYPE}),
    MatchType.FLAGS_ALL_SET: _UNSIGNED,
    MatchType.FLAGS_ANY_SET: _UNSIGNED,
    MatchType.FLAGS_NONE_SET: _UNSIGNED,
    MatchType.EQUAL_CASE_INSENSITIVE: frozenset({DataType.UNICODE_STRING_TYPE}),
    MatchType.PREFIX: _SUFFIXED,
    MatchType.NOT_PREFIX: _SUFFIXED,
}

# MGMT-9: the only comparisons across types.
_PARTNERS: Final = {
    (DataType.UINT32, DataType.V4_ADDR_MASK),
    (DataType.BYTE_ARRAY16_TYPE, DataType.V6_ADDR_MASK),
    (DataType.TOKEN_INFORMATION_TYPE, DataType.SECURITY_DESCRIPTOR_TYPE),
    (DataType.TOKEN_ACCESS_INFORMATION_TYPE, DataType.SECURITY_DESCRIPTOR_TYPE),
}


def resolve_condition(
    layer: Layer, condition: FilterCondition, profile: str
) -> tuple[NtStatus, Condition | None]:
    """The condition with its field resolved, or the status that refuses it (MGMT-9)."""
    field = find_field(layer, condition.field_key, profile)
    if field is None:
        return NtStatus.STATUS_FWP_CONDITION_NOT_FOUND, None
    status = condition_status(field.name, field.type, condition.match_type, condition.condition_value)
    if not status.ok:
        return status, None
    return status, Condition(field.index, MatchType(condition.match_type), condition.condition_value)


def condition_status(field_name: str, field_type: DataType, match_type: int, value: FwpValue) -> NtStatus:
    """STATUS_SUCCESS, STATUS_FWP_TYPE_MISMATCH or STATUS_FWP_MATCH_TYPE_MISMATCH (MGMT-9)."""
    if not _fits(field_name, field_type, value):
        return NtStatus.STATUS_FWP_TYPE_MISMATCH
    if value.type not in _LEGAL.get(match_type, frozenset()):
        return NtStatus.STATUS_FWP_MATCH_TYPE_MISMATCH
    return NtStatus.STATUS_SUCCESS


def _fits(field_name: str, field_type: DataType, value: FwpValue) -> bool:
    """The value is of the field's type, a range of it, or its partner."""
    if value.type is field_type:
        return True
    if value.type is DataType.RANGE_TYPE:
        return bool(value.value.low.type is field_type)
    # A mask goes with addresses, not with every UINT32 field.
    if value.type in _MASKS and not field_name.endswith("_address"):
        return False
    return (field_type, value.type) in _PARTNERS
