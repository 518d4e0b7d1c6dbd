"""Which flows a rule or filter is for: `when` and `[[filter.condition]]` to the conditions of one layer.

Owns the fields' names and their combination (alternatives, families); the values are `_conditions`'.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from wfpstream.config._conditions import condition_value, is_range
from wfpstream.config._errors import KeyPath, Problem, did_you_mean
from wfpstream.config._model import Condition, When
from wfpstream.fwp import FwpValue, MatchType
from wfpstream.fwpm import CONDITION_KEYS, FilterCondition, Layer, find_field

# The keys of `when`, in the words of WFP.
_WHEN_FIELDS = {
    "listener": "listener",
    "remote_address": "ip_remote_address",
    "remote_port": "ip_remote_port",
    "local_address": "ip_local_address",
    "local_port": "ip_local_port",
    "direction": "direction",
}


class Invalid(Exception):
    """Something in the configuration cannot be used; carries its problems."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Wanted:
    """One condition as the file says it, and where it says so."""

    path: KeyPath
    field: str
    match: MatchType
    value: object


def wanted_by_when(when: When, path: KeyPath) -> list[Wanted]:
    """The conditions of a rule's `when`; the values of a list are alternatives (MGMT-10)."""
    wanted = []
    for key, field in _WHEN_FIELDS.items():
        said = getattr(when, key)
        if said is None:
            continue
        is_list = isinstance(said, list)
        values = said if is_list else [said]
        if not values:
            raise Invalid([Problem((*path, key), "expected at least one value")])
        for index, value in enumerate(values):
            where = (*path, key, index) if is_list else (*path, key)
            has_order = key.endswith(("_port", "_address"))
            match = MatchType.RANGE if has_order and is_range(value) else MatchType.EQUAL
            wanted.append(Wanted(where, field, match, value))
    return wanted


def wanted_by_filter(conditions: Sequence[Condition], path: KeyPath) -> list[Wanted]:
    """The conditions of a filter, as they are written."""
    return [
        Wanted(
            (*path, "condition", index), condition.field, MatchType[condition.match.upper()], condition.value
        )
        for index, condition in enumerate(conditions)
    ]


def check_listeners(wanted: Iterable[Wanted], listeners: Sequence[str] | None) -> list[Problem]:
    """Conditions on listeners there are not. `None`: nothing is known about listeners."""
    if listeners is None:
        return []
    return [
        Problem(one.path, f'no listener is named "{one.value}"{did_you_mean(str(one.value), listeners)}')
        for one in wanted
        if one.field == "listener" and one.match == MatchType.EQUAL and one.value not in listeners
    ]


def conditions_at(layer: Layer, wanted: Sequence[Wanted], profile: str) -> tuple[FilterCondition, ...] | None:
    """The conditions in the words of one layer, or None if there they can never be true.

    Raises:
        Invalid: the layer does not offer a field, or the field takes another value.
    """
    conditions: list[FilterCondition] = []
    problems: list[Problem] = []
    possible = True
    for _, group in groupby(wanted, key=lambda condition: condition.field):
        alternatives: list[FilterCondition] = []
        always = False
        for one in group:
            try:
                value = _value(layer, one, profile)
            except ValueError as error:
                problems.append(Problem(one.path, str(error)))
                continue
            if value is not None:
                alternatives.append(FilterCondition(CONDITION_KEYS[one.field], one.match, value))
            # An address this family never has differs from every address it has.
            always = always or (value is None and one.match == MatchType.NOT_EQUAL)
        if not always:
            conditions += alternatives
            possible = possible and bool(alternatives)
    if problems:
        raise Invalid(problems)
    return tuple(conditions) if possible else None


def _value(layer: Layer, one: Wanted, profile: str) -> FwpValue | None:
    key = CONDITION_KEYS.get(one.field)
    if key is None:
        raise ValueError(f'no field "{one.field}"{did_you_mean(one.field, CONDITION_KEYS)}')
    field = find_field(layer, key, profile)
    if field is None:
        offered = ", ".join(sorted(field.name for field in layer.fields.values()))
        # Without its family: both of them say the same.
        stem = layer.name.replace("_v4", "").replace("_v6", "")
        raise ValueError(f"layer {stem} does not offer {one.field}; it offers {offered}")
    return condition_value(one.field, field.type, one.match, one.value)
