"""Effective weights (MGMT-6, MGMT-7) and the order they give (ARB-1, MGMT-8)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fwpm.support import (
    SUCCESS,
    a_filter,
    added,
    condition,
    key,
    named,
    open_session,
    remote_port,
    start,
)
from wfpstream import fwpm
from wfpstream.fwp import (
    EMPTY,
    DataType,
    FwpValue,
    MatchType,
    NtStatus,
    V4AddrMask,
    ipv4_value,
    uint8,
    uint16,
    uint32,
    uint64,
)


def weight_of(**fields: Any) -> int:
    """Effective weight of a filter at STREAM_V4."""
    _, management = start()
    session = open_session(management)
    filter_id = added(session.filter_add(a_filter(**fields)))
    status, record = session.filter_get_by_id(filter_id)
    assert status is SUCCESS
    assert record is not None
    assert record.effective_weight.type is DataType.UINT64
    return int(record.effective_weight.value)


def remote_network(mask: int) -> fwpm.FilterCondition:
    value = FwpValue(DataType.V4_ADDR_MASK, V4AddrMask(0x0A00_0000, mask))
    return condition(fwpm.CONDITION_IP_REMOTE_ADDRESS, value)


@pytest.mark.parametrize("weight", [0, 1, 2**60, 2**64 - 1])
def test_mgmt_6_exact_weight_is_used_as_is(weight: int) -> None:
    assert weight_of(weight=uint64(weight), conditions=[remote_port(80)]) == weight


@pytest.mark.parametrize("weight_range", [0, 7, 15])
def test_mgmt_6_weight_ranges(weight_range: int) -> None:
    """A range selects the top 4 bits; the low 60 are generated as for an empty weight."""
    generated = weight_of(conditions=[remote_port(80)])
    assert weight_of(weight=uint8(weight_range), conditions=[remote_port(80)]) == (
        weight_range * 0x1000_0000_0000_0000 + generated
    )


def test_mgmt_6_empty_weight_stays_below_2_to_the_60() -> None:
    assert 0 <= weight_of(weight=EMPTY) < 2**60
    long_name = condition(fwpm.CONDITION_LISTENER, FwpValue(DataType.UNICODE_STRING, "x" * 10_000))
    assert 0 <= weight_of(conditions=[long_name, remote_port(80)]) < 2**60


@pytest.mark.parametrize("weight", [uint8(16), uint8(255), uint16(1), uint32(1)])
def test_mgmt_6_other_weights_are_refused(weight: FwpValue) -> None:
    _, management = start()
    assert open_session(management).filter_add(a_filter(weight=weight)) == (
        NtStatus.STATUS_FWP_INVALID_WEIGHT,
        0,
    )


def test_mgmt_7_more_fields_weigh_more_than_more_bits() -> None:
    one_exact_field = [condition(fwpm.CONDITION_IP_REMOTE_ADDRESS, ipv4_value("10.0.0.1"))]
    two_loose_fields = [
        condition(fwpm.CONDITION_IP_REMOTE_PORT, uint16(1), MatchType.GREATER),
        condition(fwpm.CONDITION_IP_LOCAL_PORT, uint16(1), MatchType.GREATER),
    ]
    assert weight_of() < weight_of(conditions=one_exact_field) < weight_of(conditions=two_loose_fields)


def test_mgmt_7_more_exact_bits_weigh_more() -> None:
    wide, narrow, host = (
        weight_of(conditions=[remote_network(mask)]) for mask in (0xFF00_0000, 0xFFFF_FF00, 0xFFFF_FFFF)
    )
    assert wide < narrow < host
    assert host == weight_of(conditions=[condition(fwpm.CONDITION_IP_REMOTE_ADDRESS, ipv4_value("10.0.0.1"))])


def test_mgmt_7_an_alternative_does_not_make_a_filter_more_specific() -> None:
    either = weight_of(conditions=[remote_port(80), remote_port(8080)])
    assert either == weight_of(conditions=[remote_port(80)])


def test_arb_1_sublayers_by_weight_then_filters_by_weight() -> None:
    fake, management = start()
    session = open_session(management)
    for name, weight in (("light", 10), ("heavy", 20)):
        sub_layer = fwpm.SubLayer(sub_layer_key=key(name), display_data=named(name), weight=weight)
        assert session.sub_layer_add(sub_layer) is SUCCESS
    for name, sub_layer_name, weight in (
        ("light 9", "light", 9),
        ("heavy 1", "heavy", 1),
        ("heavy 3", "heavy", 3),
        ("light 2", "light", 2),
    ):
        added(session.filter_add(a_filter(name, sub_layer_key=key(sub_layer_name), weight=uint64(weight))))
    assert fake.installed_at(20) == ["heavy 3", "heavy 1", "light 9", "light 2"]


def test_mgmt_8_equal_weights_earlier_added_first_and_sublayers_do_not_mix() -> None:
    fake, management = start()
    session = open_session(management)
    for name in ("first", "second"):
        sub_layer = fwpm.SubLayer(sub_layer_key=key(name), display_data=named(name), weight=5)
        assert session.sub_layer_add(sub_layer) is SUCCESS
    for name, sub_layer_name in (("a", "second"), ("b", "first"), ("c", "second"), ("d", "first")):
        added(session.filter_add(a_filter(name, sub_layer_key=key(sub_layer_name), weight=uint64(7))))
    assert fake.installed_at(20) == ["b", "d", "a", "c"]


def test_built_in_sublayers_universal_in_the_middle_inspection_last() -> None:
    """INSPECTION comes after every other sublayer, also after one of weight 0 added later."""
    fake, management = start()
    session = open_session(management)
    for name, weight in (("zero", 0), ("above", 0x8001), ("below", 0x7FFF)):
        sub_layer = fwpm.SubLayer(sub_layer_key=key(name), display_data=named(name), weight=weight)
        assert session.sub_layer_add(sub_layer) is SUCCESS
    for name, sub_layer_key in (
        ("inspection", fwpm.SUBLAYER_INSPECTION),
        ("zero", key("zero")),
        ("default", fwpm.ZERO_KEY),
        ("above", key("above")),
        ("below", key("below")),
    ):
        added(session.filter_add(a_filter(name, sub_layer_key=sub_layer_key)))
    assert fake.installed_at(20) == ["above", "default", "below", "zero", "inspection"]
