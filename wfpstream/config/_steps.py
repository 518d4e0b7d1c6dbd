"""From what is in force to what is wanted: which objects go, which come, which stay.

Owns when an object must be replaced: WFP changes none in place. It touches no engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from wfpstream.config._order import displaced_filters, displaced_sub_layers
from wfpstream.config._planned import Plan, PlannedCallout, PlannedFilter, PlannedSubLayer


@dataclass(slots=True)
class Steps:
    """What one transaction does. A replaced object is in both lists, under the same key.

    Args:
        displaced: keys of objects that are replaced only for the sake of the order.
    """

    callouts_out: list[PlannedCallout] = field(default_factory=list)
    callouts_in: list[PlannedCallout] = field(default_factory=list)
    sub_layers_out: list[PlannedSubLayer] = field(default_factory=list)
    sub_layers_in: list[PlannedSubLayer] = field(default_factory=list)
    filters_out: list[PlannedFilter] = field(default_factory=list)
    filters_in: list[PlannedFilter] = field(default_factory=list)
    displaced: set[UUID] = field(default_factory=set)

    @property
    def gone(self) -> list[PlannedFilter | PlannedSubLayer]:
        """Filters and sublayers that go, in an order in which they can."""
        return [*self.filters_out, *self.sub_layers_out]

    @property
    def come(self) -> list[PlannedFilter | PlannedSubLayer]:
        """Filters and sublayers that come, in an order in which they can."""
        return [*self.sub_layers_in, *self.filters_in]

    def __bool__(self) -> bool:
        return bool(self.callouts_out or self.callouts_in or self.gone or self.come)


def steps_between(live: Plan, target: Plan, ages: Mapping[UUID, int], profile: str) -> Steps:
    """What is to be done.

    Args:
        live: what is in force.
        target: what is wanted; its unchanged callouts are those of `live`.
        ages: when each sublayer and filter in force was added.
        profile: of the engine.
    """
    steps = Steps()
    callouts = {id(one) for one in live.callouts.values()}
    wanted = {id(one) for one in target.callouts.values()}
    steps.callouts_out = [one for one in live.callouts.values() if id(one) not in wanted]
    steps.callouts_in = [one for one in target.callouts.values() if id(one) not in callouts]

    kept = {key for key, one in target.sub_layers.items() if live.sub_layers.get(key) == one}
    displaced = displaced_sub_layers(target.sub_layers.values(), kept, ages)
    kept -= displaced
    steps.sub_layers_out = [one for key, one in live.sub_layers.items() if key not in kept]
    steps.sub_layers_in = [one for key, one in target.sub_layers.items() if key not in kept]

    replaced = {one.key for one in steps.sub_layers_in}
    kept = {
        key
        for key, one in target.filters.items()
        if one.sub_layer not in replaced and live.filters.get(key) == one
    }
    moved = displaced_filters(target.filters.values(), kept, ages, profile)
    kept -= moved
    steps.filters_out = [one for key, one in live.filters.items() if key not in kept]
    steps.filters_in = [one for key, one in target.filters.items() if key not in kept]
    steps.displaced = displaced | moved
    return steps
