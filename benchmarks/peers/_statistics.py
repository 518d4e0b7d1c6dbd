"""Medians and spreads of what the rounds brought. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Summary:
    """One figure over the rounds.

    Attributes:
        median: the middle one.
        low, high: the smallest and the largest.
        values: all, in the order of the rounds.
    """

    median: float
    low: float
    high: float
    values: tuple[float, ...]

    @property
    def spread(self) -> float:
        """From the smallest to the largest, as a share of the median; 0 where the median is 0."""
        return (self.high - self.low) / self.median if self.median else 0.0

    def to_json(self) -> dict[str, Any]:
        """For the record."""
        return {"median": self.median, "low": self.low, "high": self.high, "values": list(self.values)}


def summarize(values: Sequence[float]) -> Summary:
    """The figure over the rounds.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("no round brought a value")
    return Summary(median(values), min(values), max(values), tuple(values))


def from_json(record: dict[str, Any]) -> Summary:
    """What `Summary.to_json` wrote."""
    return Summary(record["median"], record["low"], record["high"], tuple(record["values"]))


def significant(value: float, digits: int = 3) -> str:
    """A number as people read it: so many significant digits, thousands with commas, never an exponent."""
    if value == 0:
        return "0"
    exponent = int(
        f"{value:.{digits - 1}e}".partition("e")[2]
    )  # after rounding: 9.999 has the digits of 10.0
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"
