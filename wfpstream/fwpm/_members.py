"""REG-10: an argument of the wrong Python type raises TypeError, and so does a record with such a member.

Owns the looking at members; which types they have is written in the records. Must not know what they mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import UnionType
from typing import Any, Final, get_origin, get_type_hints
from uuid import UUID

from wfpstream.fwp import FwpValue
from wfpstream.fwpm._types import FilterCondition

# Read once for each type of record: annotations are text until somebody asks.
_KNOWN: Final[dict[type[Any], dict[str, type[Any] | UnionType]]] = {}


def require_members(record: Any) -> None:
    """Raises TypeError naming the first member that is not of its type."""
    for name, kind in _kinds(type(record)).items():
        value = getattr(record, name)
        if not isinstance(value, kind):
            raise TypeError(f"{_name(record)}.{name} must be {_spelled(kind)}, not {_name(value)}")
        if name == "conditions":
            _require_conditions(value)


def _require_conditions(conditions: Sequence[object]) -> None:
    for one in conditions:
        if not isinstance(one, FilterCondition):
            raise TypeError(f"conditions must be FilterCondition, not {_name(one)}")
        # Not by its annotations: a match type that does not exist is a number, and refused by its status.
        for member, kind in (("field_key", UUID), ("match_type", int), ("condition_value", FwpValue)):
            if not isinstance(getattr(one, member), kind):
                raise TypeError(f"FilterCondition.{member} must be {kind.__name__}")


def _kinds(record_type: type[Any]) -> dict[str, type[Any] | UnionType]:
    """What isinstance wants to know of each member: of a sequence only that it is one."""
    kinds = _KNOWN.get(record_type)
    if kinds is None:
        hints = get_type_hints(record_type).items()
        kinds = {name: one if isinstance(one, UnionType) else get_origin(one) or one for name, one in hints}
        _KNOWN[record_type] = kinds
    return kinds


def _name(value: object) -> str:
    return type(value).__name__


def _spelled(kind: type[Any] | UnionType) -> str:
    return str(kind) if isinstance(kind, UnionType) else kind.__name__
