"""MGMT-9 in full: every field of every layer against every match type and every type of value.

The expectation is written down from the tables of match types and data types (FWP_MATCH_TYPE page), not from the
engine's own. What is accepted must also be of use: the run time can evaluate it.
"""

from __future__ import annotations

import pytest

from wfpstream import fwpm
from wfpstream.fwp import (
    EMPTY,
    DataType,
    FwpValue,
    MatchType,
    NtStatus,
    Range,
    V4AddrMask,
    V6AddrMask,
)
from wfpstream.fwpm._conditions import resolve_condition
from wfpstream.fwps._conditions import compile_conditions

T, M = DataType, MatchType

INTEGERS = {T.UINT8, T.UINT16, T.UINT32, T.UINT64, T.INT8, T.INT16, T.INT32, T.INT64}
UNSIGNED = {T.UINT8, T.UINT16, T.UINT32, T.UINT64}
SORTABLE = {*INTEGERS, T.BYTE_ARRAY16_TYPE, T.BYTE_BLOB_TYPE, T.UNICODE_STRING_TYPE}
TOKENS = {T.TOKEN_INFORMATION_TYPE, T.TOKEN_ACCESS_INFORMATION_TYPE}

# The legal field types of each match type.
FIELD_TYPES: dict[MatchType, set[DataType]] = {
    M.EQUAL: set(DataType),
    M.GREATER: SORTABLE,
    M.LESS: SORTABLE,
    M.GREATER_OR_EQUAL: SORTABLE,
    M.LESS_OR_EQUAL: SORTABLE,
    M.RANGE: SORTABLE,
    M.FLAGS_ALL_SET: UNSIGNED,
    M.FLAGS_ANY_SET: UNSIGNED,
    M.FLAGS_NONE_SET: UNSIGNED,
    M.EQUAL_CASE_INSENSITIVE: {T.UNICODE_STRING_TYPE},
    M.NOT_EQUAL: SORTABLE,
    M.PREFIX: {T.BYTE_BLOB_TYPE, T.UNICODE_STRING_TYPE},
    M.NOT_PREFIX: {T.BYTE_BLOB_TYPE, T.UNICODE_STRING_TYPE},
}

SAMPLES: dict[DataType, tuple[object, object]] = {
    **dict.fromkeys(INTEGERS, (1, 6)),
    T.FLOAT: (0.5, 1.5),
    T.DOUBLE: (0.5, 1.5),
    T.BYTE_ARRAY16_TYPE: (bytes(15) + b"\x01", b"\xfe\x80" + bytes(14)),
    T.BYTE_BLOB_TYPE: (b"app", b"whole/app"),
    T.SID: (b"\x01", b"\x02"),
    T.SECURITY_DESCRIPTOR_TYPE: (b"\x01", b"\x02"),
    T.TOKEN_INFORMATION_TYPE: (b"\x01", b"\x02"),
    T.TOKEN_ACCESS_INFORMATION_TYPE: (b"\x01", b"\x02"),
    T.UNICODE_STRING_TYPE: ("the web", "web"),
    T.BYTE_ARRAY6_TYPE: (bytes(6), b"\x02" * 6),
    T.V4_ADDR_MASK: (V4AddrMask(0x0A00_0000, 0xFF00_0000), V4AddrMask(0, 0)),
    T.V6_ADDR_MASK: (V6AddrMask(bytes(16), 64), V6AddrMask(bytes(16), 128)),
}


def values_of(kind: DataType) -> list[FwpValue]:
    return [FwpValue(kind, sample) for sample in SAMPLES[kind]]


def condition_values() -> list[FwpValue]:
    """Two of each type, and a range of each that has an order."""
    ranges = [FwpValue(T.RANGE_TYPE, Range(*values_of(kind))) for kind in sorted(SORTABLE)]
    return [EMPTY, *(value for kind in SAMPLES for value in values_of(kind)), *ranges]


def expected(field: fwpm.Field, match_type: MatchType, value: FwpValue) -> NtStatus:
    """MGMT-9, in its own words: no implicit conversion, except an address against an address and mask."""
    of = value.value.low.type if value.type is T.RANGE_TYPE else value.type
    is_address = field.name in ("ip_local_address", "ip_remote_address")
    exceptions = {
        T.V4_ADDR_MASK: is_address and field.type is T.UINT32,
        T.V6_ADDR_MASK: is_address and field.type is T.BYTE_ARRAY16_TYPE,
        T.SECURITY_DESCRIPTOR_TYPE: field.type in TOKENS,
    }
    if of is not field.type and not exceptions.get(of, False):
        return NtStatus.STATUS_FWP_TYPE_MISMATCH
    fits = field.type in FIELD_TYPES[match_type] and (match_type is M.RANGE) == (value.type is T.RANGE_TYPE)
    if value.type in (T.V4_ADDR_MASK, T.V6_ADDR_MASK):
        fits = match_type in (M.EQUAL, M.NOT_EQUAL)
    return NtStatus.STATUS_SUCCESS if fits else NtStatus.STATUS_FWP_MATCH_TYPE_MISMATCH


VALUES = condition_values()


@pytest.mark.parametrize("layer", fwpm.LAYERS.values(), ids=lambda layer: layer.name)
def test_mgmt_9_every_field_match_type_and_value(layer: fwpm.Layer) -> None:
    for condition_key, field in layer.fields.items():
        for match_type in MatchType:
            for value in VALUES:
                condition = fwpm.FilterCondition(condition_key, match_type, value)
                status, resolved = resolve_condition(layer, condition, "win10")
                assert status is expected(field, match_type, value), (field, match_type, value)
                if resolved is not None:
                    # A field of its own type, and an empty one, can be asked without harm (FLD-12).
                    matches = compile_conditions([resolved._replace(field_index=0)])
                    answers = [matches([one], "") for one in values_of(field.type)]
                    assert all(isinstance(answer, bool) for answer in answers)
                    assert matches([EMPTY], "") is False


@pytest.mark.parametrize("layer", fwpm.LAYERS.values(), ids=lambda layer: layer.name)
def test_mgmt_9_fields_a_layer_does_not_offer(layer: fwpm.Layer) -> None:
    missing = fwpm.CONDITION_KEYS.values() - layer.fields.keys()
    assert missing
    for condition_key in missing:
        for value in VALUES:
            condition = fwpm.FilterCondition(condition_key, M.EQUAL, value)
            answer = resolve_condition(layer, condition, "win10")
            assert answer == (NtStatus.STATUS_FWP_CONDITION_NOT_FOUND, None)
