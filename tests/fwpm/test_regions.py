"""Conditions as sets: what `contains` and `overlaps` say is held against the run time's answer, value by value."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from wfpstream.fwp import (
    DataType,
    FwpValue,
    MatchType,
    Range,
    V4AddrMask,
    V6AddrMask,
    ipv6_value,
    uint8,
    uint32,
)
from wfpstream.fwpm._regions import contains, overlaps
from wfpstream.fwps._conditions import Condition, compile_conditions

# Where conditions begin and end, the ends of the type among them ...
VALUES = (0, 1, 2, 3, 7, 8, 254, 255)
# ... and where they are tried: in each of the gaps too.
PROBES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 128, 253, 254, 255)
TYPES = {0: DataType.UINT8, 1: DataType.UINT8}

ORDERED = [
    MatchType.EQUAL,
    MatchType.NOT_EQUAL,
    MatchType.GREATER,
    MatchType.GREATER_OR_EQUAL,
    MatchType.LESS,
    MatchType.LESS_OR_EQUAL,
]
FLAGS = [MatchType.FLAGS_ALL_SET, MatchType.FLAGS_ANY_SET, MatchType.FLAGS_NONE_SET]


def conditions(field: int, match_types: list[MatchType]) -> st.SearchStrategy[Condition]:
    values = st.sampled_from(VALUES).map(uint8)
    ranges = st.tuples(values, values).map(lambda ends: sorted(ends, key=lambda one: int(one.value)))
    return st.one_of(
        st.builds(Condition, st.just(field), st.sampled_from(match_types), values),
        st.builds(
            lambda ends: Condition(field, MatchType.RANGE, FwpValue(DataType.RANGE_TYPE, Range(*ends))),
            ranges,
        ),
    )


def filters(match_types: list[MatchType]) -> st.SearchStrategy[list[Condition]]:
    """Alternatives, and fields that come back later as further demands."""
    return st.lists(st.integers(0, 1).flatmap(lambda field: conditions(field, match_types)), max_size=4)


def templates(match_types: list[MatchType]) -> st.SearchStrategy[dict[int, Condition]]:
    return st.fixed_dictionaries({}, optional={field: conditions(field, match_types) for field in TYPES})


def described(conditions: list[Condition]) -> set[tuple[int, int]]:
    """The pairs of values that the run time lets through."""
    matches = compile_conditions(conditions)
    return {(one, two) for one, two in product(PROBES, PROBES) if matches([uint8(one), uint8(two)], "")}


@given(filters(ORDERED), templates(ORDERED))
def test_ordered_conditions_are_compared_exactly(own: list[Condition], wanted: dict[int, Condition]) -> None:
    of_filter, of_template = described(own), described(list(wanted.values()))
    assert overlaps(own, wanted, TYPES) == bool(of_template & of_filter)
    # A template that describes nothing is contained in anything, but is asked about field by field.
    if of_template:
        assert contains(own, wanted, TYPES) == (of_template <= of_filter)


@given(filters([*ORDERED, *FLAGS]), templates([*ORDERED, *FLAGS]))
def test_where_conditions_cannot_be_compared_the_answer_errs_on_the_known_side(
    own: list[Condition], wanted: dict[int, Condition]
) -> None:
    """`contains` never claims too much, `overlaps` never too little."""
    of_filter, of_template = described(own), described(list(wanted.values()))
    assert not contains(own, wanted, TYPES) or of_template <= of_filter
    assert overlaps(own, wanted, TYPES) or not of_template & of_filter


def test_a_single_value_is_tried_on_flags_and_endings() -> None:
    """A value decides; what is no value is compared by its wording."""
    types = {0: DataType.UINT32, 1: DataType.UNICODE_STRING_TYPE}
    flag = Condition(0, MatchType.FLAGS_ANY_SET, uint32(4))
    ending = Condition(1, MatchType.PREFIX, FwpValue(DataType.UNICODE_STRING_TYPE, "in"))
    exactly = Condition(1, MatchType.EQUAL, FwpValue(DataType.UNICODE_STRING_TYPE, "main"))
    assert contains([flag], {0: Condition(0, MatchType.EQUAL, uint32(6))}, types)
    assert not contains([flag], {0: Condition(0, MatchType.EQUAL, uint32(2))}, types)
    assert not overlaps([flag], {0: Condition(0, MatchType.EQUAL, uint32(2))}, types)
    assert contains([flag], {0: flag}, types)
    assert not contains([flag], {0: Condition(0, MatchType.FLAGS_ALL_SET, uint32(4))}, types)
    assert overlaps([flag], {0: Condition(0, MatchType.FLAGS_ALL_SET, uint32(4))}, types)
    assert contains([ending], {1: exactly}, types)
    assert not contains([exactly], {1: ending}, types)
    assert not contains([ending], {}, types)


def test_networks_of_both_families() -> None:
    def v4(addr: int, mask: int) -> dict[int, Condition]:
        return {0: Condition(0, MatchType.EQUAL, FwpValue(DataType.V4_ADDR_MASK, V4AddrMask(addr, mask)))}

    def v6(addr: str, length: int) -> dict[int, Condition]:
        network = V6AddrMask(ipv6_value(addr).value, length)
        return {0: Condition(0, MatchType.EQUAL, FwpValue(DataType.V6_ADDR_MASK, network))}

    for kind, wide, narrow, other in (
        (DataType.UINT32, v4(0x0A000000, 0xFF000000), v4(0x0A010000, 0xFFFF0000), v4(0x0B000000, 0xFF000000)),
        (DataType.BYTE_ARRAY16_TYPE, v6("2001:db8::", 32), v6("2001:db8:1::", 48), v6("2001:db9::", 32)),
    ):
        types = {0: kind}
        assert contains([wide[0]], narrow, types)
        assert not contains([narrow[0]], wide, types)
        assert overlaps([narrow[0]], wide, types)
        assert not overlaps([other[0]], wide, types)
        apart = wide[0]._replace(match_type=MatchType.NOT_EQUAL)
        assert contains([apart], other, types)
        assert not overlaps([apart], narrow, types)
        # Two halves of everything, as alternatives, are everything.
        assert contains([apart, wide[0]], {}, types)
