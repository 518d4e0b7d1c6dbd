"""Weights of the short form: in order, kept where they were, moved only where there is no gap."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.config._weights import BY_HAND, COMMAND_LINE, RULES, Band, NoRoom, place

TIGHT = Band(20, 12, 0, 4)


def test_the_first_rules_are_a_step_apart() -> None:
    assert list(place("abc", {}, (), RULES).values()) == [0xDFFF, 0xDFEF, 0xDFDF]


def test_callouts_of_the_command_line_follow_each_other() -> None:
    assert list(place("abc", {}, (), COMMAND_LINE).values()) == [0xFFFF, 0xFFFE, 0xFFFD]


def test_rules_added_by_hand_are_asked_after_each_other_and_before_those_of_the_file() -> None:
    found = place("abd", place("ab", {}, (), BY_HAND), (), BY_HAND)
    assert list(found.values()) == [0xEFFF, 0xEFFE, 0xEFFD]
    assert BY_HAND.lowest > RULES.highest


@pytest.mark.parametrize("order", ["xab", "axb", "abx", "b", "bx", ""])
def test_what_is_there_keeps_its_weight(order: str) -> None:
    known = place("ab", {}, (), RULES)
    found = place(order, known, (), RULES)
    assert {one: found[one] for one in order if one in known} == {
        one: known[one] for one in order if one in known
    }
    assert sorted(found.values(), reverse=True) == list(found.values())


def test_of_two_that_change_places_one_stays() -> None:
    known = place("abc", {}, (), RULES)
    found = place("acb", known, (), RULES)
    assert sum(found[one] == known[one] for one in "abc") == 2


def test_a_hundred_rules_one_after_the_other_in_front_move_nothing() -> None:
    known = place(["first"], {}, (), RULES)
    order = ["first"]
    for number in range(100):
        order.insert(0, str(number))
        found = place(order, known, (), RULES)
        assert found.items() >= known.items()
        known = found


def test_without_a_gap_only_neighbours_move() -> None:
    order = list("abcdefgh")
    known = place(order, {}, (), RULES)
    moved = 0
    for number in range(12):
        order.insert(4, str(number))
        found = place(order, known, (), RULES)
        moved += sum(found[one] != weight for one, weight in known.items())
        assert [found["a"], found["h"]] == [known["a"], known["h"]]
        known = found
    assert 0 < moved < 24


def test_weights_that_others_have_are_left_to_them() -> None:
    found = place("ab", {"a": 0xDFFF}, {0xDFFF, 0xDFEF}, RULES)
    assert not set(found.values()) & {0xDFFF, 0xDFEF}


def test_thousands_fit() -> None:
    assert len(place(range(57_344), {}, (), RULES)) == 57_344
    with pytest.raises(NoRoom):
        place(range(57_345), {}, (), RULES)


@given(
    st.lists(st.lists(st.integers(0, 15), unique=True, max_size=16), max_size=8), st.sets(st.integers(0, 20))
)
def test_any_order_after_any_other(orders: list[list[int]], taken: set[int]) -> None:
    known: dict[int, int] = {}
    for order in orders:
        try:
            found = place(order, known, taken, TIGHT)
        except NoRoom:
            assert len(order) > 20 - len(taken) - (TIGHT.highest - TIGHT.start)
            return
        assert list(found) == order
        assert all(first > second for first, second in pairwise(found.values()))
        assert not taken & set(found.values())
        assert all(TIGHT.lowest <= weight <= TIGHT.highest for weight in found.values())
        if order == list(known):
            assert found == known or taken & set(known.values())
        known = found
