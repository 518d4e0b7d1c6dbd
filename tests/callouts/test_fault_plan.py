"""The fault plan: which connections, what is refused, and repeatable corruption."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.callouts._fault_plan import Deed, FaultPlan


def plan(do: Deed = "rst", **changes: object) -> FaultPlan:
    base = FaultPlan("rst", 0, None, None, 1, None, None, None, 1.0, 0)
    return replace(base, do=do, **changes)  # type: ignore[arg-type]


def chosen(one: FaultPlan, listener: str = "", count: int = 12) -> list[int]:
    return [number for number in range(1, count + 1) if one.chooses(listener, number)]


def test_every_connection_is_chosen_by_default() -> None:
    assert chosen(plan(), count=4) == [1, 2, 3, 4]


def test_nth_chooses_one_connection() -> None:
    assert chosen(plan(nth=3)) == [3]


def test_every_chooses_each_kth_connection() -> None:
    assert chosen(plan(every=5)) == [5, 10]


def test_nth_and_every_both_have_to_fit() -> None:
    assert chosen(plan(nth=4, every=2)) == [4]
    assert chosen(plan(nth=3, every=2)) == []


def test_probability_0_never_and_1_always_chooses() -> None:
    assert chosen(plan(probability=0.0)) == []
    assert len(chosen(plan(probability=1.0))) == 12


def test_probability_depends_on_seed_listener_and_number_only() -> None:
    half = plan(probability=0.5)
    first = chosen(half, "web", 200)
    assert chosen(plan(probability=0.5), "web", 200) == first
    assert 60 < len(first) < 140
    assert chosen(half, "mail", 200) != first
    assert chosen(plan(probability=0.5, seed=1), "web", 200) != first


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"after": 1, "at": 2.0}, "not both"),
        ({"lasts": 1.0}, "do=stall"),
        ({"rate": 10.0}, "do=slice"),
        ({"size": 2}, "do=corrupt and do=slice"),
        ({"nth": 0}, "1 or more"),
        ({"every": -1}, "1 or more"),
        ({"probability": 1.5}, "from 0 to 1"),
        ({"do": "explode"}, "expected one of fin, rst"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        plan(**changes)  # type: ignore[arg-type]


@given(data=st.binary(min_size=1, max_size=700), offset=st.integers(0, 2000), cut=st.integers(0, 700))
def test_corruption_depends_on_the_offset_and_not_on_the_cut(data: bytes, offset: int, cut: int) -> None:
    one = plan("corrupt", size=10)
    whole = one.corrupt(data, "web", 1, "to_client", offset)
    parts = [(data[:cut], offset), (data[cut:], offset + min(cut, len(data)))]
    assert b"".join(one.corrupt(part, "web", 1, "to_client", at) for part, at in parts if part) == whole
    assert all(before != after for before, after in zip(data, whole, strict=True))


def test_corruption_differs_between_seeds_connections_and_directions() -> None:
    data = bytes(64)
    seen = {
        plan("corrupt", seed=seed).corrupt(data, "web", number, direction, 0)
        for seed in (0, 1)
        for number in (1, 2)
        for direction in ("to_client", "to_upstream")
    }
    assert len(seen) == 8
