"""Medians, spreads, and numbers as people read them."""

from __future__ import annotations

import pytest

from benchmarks.peers._statistics import from_json, significant, summarize


def test_the_median_is_shown_with_its_spread() -> None:
    summary = summarize([3.0, 1.0, 2.0])
    assert (summary.median, summary.low, summary.high) == (2.0, 1.0, 3.0)
    assert summary.spread == 1.0
    assert summary.values == (3.0, 1.0, 2.0)


def test_an_even_number_of_rounds_has_its_median_between_two() -> None:
    assert summarize([4.0, 1.0, 2.0, 3.0]).median == 2.5


def test_a_figure_without_a_round_is_none() -> None:
    with pytest.raises(ValueError, match="no round"):
        summarize([])


def test_a_median_of_nothing_has_no_spread() -> None:
    assert summarize([0.0, 0.0]).spread == 0.0


def test_a_summary_survives_its_record() -> None:
    summary = summarize([1.5, 2.5, 9.0])
    assert from_json(summary.to_json()) == summary


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (0.00123, "0.00123"), (0.0104, "0.0104"), (0.4949, "0.495"), (1.0, "1.00"), (9.999, "10.0"),
        (9.876, "9.88"), (12.34, "12.3"), (98.76, "98.8"), (123.4, "123"), (1234.5, "1,234"),
        (48_123.0, "48,123"), (-1.5, "-1.50"),
    ],
)  # fmt: skip
def test_three_digits_count(value: float, text: str) -> None:
    assert significant(value) == text


def test_fewer_digits() -> None:
    assert significant(12.34, 2) == "12"
    assert significant(1.234, 2) == "1.2"
