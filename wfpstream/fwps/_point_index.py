"""Which of very many filters come into question for a connection, found by its values.

Owns the index over conditions that ask for single values (`remote_port = 443`). It knows places, not filters, and
decides nothing: what it leaves out cannot match, what it gives is still asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from wfpstream.fwp import DataType, FwpValue

__all__ = ["NO_POINTS", "PointIndex", "Points"]

Points = tuple[tuple[int, frozenset[Any]], ...]
"""(index of a fixed value, what it must be one of): all of it must be true, and more may be asked."""

NO_POINTS: Final[Points] = ()


class PointIndex:
    """Places of an ordered list by the values that they ask for."""

    __slots__ = ("_anything", "_by_field")

    def __init__(self, asked: Sequence[Points]) -> None:
        """What is asked for at each place."""
        variety = _variety(asked)
        self._anything: list[int] = []
        self._by_field: dict[int, dict[Any, list[int]]] = {}
        for place, points in enumerate(asked):
            if not points:
                self._anything.append(place)
                continue
            field, values = max(points, key=lambda one: variety[one[0]])
            by_value = self._by_field.setdefault(field, {})
            for value in values:
                by_value.setdefault(value, []).append(place)

    def places(self, fixed_values: Sequence[FwpValue]) -> list[int]:
        """Every place that these values may meet, in order."""
        places = list(self._anything)
        for field, by_value in self._by_field.items():
            value = fixed_values[field]
            if value.type is not DataType.EMPTY:  # FLD-12: nothing matches a field without a value
                places += by_value.get(value.value, ())
        places.sort()
        return places


def _variety(asked: Sequence[Points]) -> dict[int, int]:
    """How many values are asked for of each field: the more, the fewer filters are left by one of them."""
    seen: dict[int, set[Any]] = {}
    for points in asked:
        for field, values in points:
            seen.setdefault(field, set()).update(values)
    return {field: len(values) for field, values in seen.items()}
