"""Run-time filters and the immutable set of them that is in force.

Owns `Filter0`, `Filter1`, `Filter2` (what classifyFn and notifyFn are given) and `FilterSet`. Knows nothing
of sublayer objects, sessions or transactions: management decides ids, weights and order and hands them over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final
from uuid import UUID

from wfpstream.fwp import FwpValue

__all__ = [
    "EMPTY_FILTER_SET",
    "Candidate",
    "Filter",
    "Filter0",
    "Filter1",
    "Filter2",
    "FilterSet",
    "MatchFunction",
    "SplitMatch",
    "match_always",
]

MatchFunction = Callable[[Sequence[FwpValue], str], bool]
"""(fixed values in the layer's field order, name of the proxy listener) -> does the filter match."""

_NO_KEY: Final = UUID(int=0)


def match_always(fixed_values: Sequence[FwpValue], listener: str) -> bool:
    """A filter without conditions (MGMT-10): one shared function, so callers may compare with `is`."""
    return True


class SplitMatch:
    """A match function in two parts: what depends on the listener alone is the same for all its connections.

    `of_values` is None where nothing else is asked for.
    """

    __slots__ = ("of_listener", "of_values")

    def __init__(self, of_listener: Callable[[str], bool], of_values: MatchFunction | None) -> None:
        self.of_listener = of_listener
        self.of_values = of_values

    def __call__(self, fixed_values: Sequence[FwpValue], listener: str) -> bool:
        return self.of_listener(listener) and (
            self.of_values is None or self.of_values(fixed_values, listener)
        )


class Filter0:
    """FWPS_FILTER0: one filter as the run time and callouts see it. Constant, except `context`.

    `weight` is the effective UINT64, `sub_layer_weight` a UINT16; `flags` are FWPS_FILTER_FLAG_* bits;
    `callout_id` is 0 and `callout_key` None for a filter without callout. `context` holds rawContext until
    notifyFn sets another UINT64 (NTF-3). `provider_context` is the provider context, or None (MGMT-18).
    """

    __slots__ = (
        "action_type",
        "callout_id",
        "callout_key",
        "context",
        "filter_id",
        "filter_key",
        "flags",
        "layer_id",
        "matches",
        "name",
        "provider_context",
        "sub_layer_key",
        "sub_layer_weight",
        "weight",
    )

    filter_id: int
    filter_key: UUID
    layer_id: int
    weight: int
    sub_layer_key: UUID
    sub_layer_weight: int
    flags: int
    action_type: int
    callout_id: int
    callout_key: UUID | None
    context: int
    provider_context: object | None
    matches: MatchFunction
    name: str

    def __init__(
        self,
        *,
        filter_id: int,
        layer_id: int,
        action_type: int,
        filter_key: UUID = _NO_KEY,
        weight: int = 0,
        sub_layer_key: UUID = _NO_KEY,
        sub_layer_weight: int = 0,
        flags: int = 0,
        callout_id: int = 0,
        callout_key: UUID | None = None,
        context: int = 0,
        provider_context: object | None = None,
        matches: MatchFunction = match_always,
        name: str = "",
    ) -> None:
        put = super().__setattr__
        put("filter_id", filter_id)
        put("filter_key", filter_key)
        put("layer_id", layer_id)
        put("weight", weight)
        put("sub_layer_key", sub_layer_key)
        put("sub_layer_weight", sub_layer_weight)
        put("flags", flags)
        put("action_type", action_type)
        put("callout_id", callout_id)
        put("callout_key", callout_key)
        put("context", context)
        put("provider_context", provider_context)
        put("matches", matches)
        put("name", name)

    def __setattr__(self, name: str, value: object) -> None:
        """A callout may set `context` (NTF-3) and nothing else: the filter is shared by every flow."""
        if name != "context":
            raise AttributeError(f"{type(self).__name__}.{name} is read-only")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted")

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.filter_id} {self.name!r} layer={self.layer_id} "
            f"weight={self.weight:#x} action={int(self.action_type):#x} callout={self.callout_id}>"
        )


class Filter1(Filter0):
    """FWPS_FILTER1: differs from `Filter0` only in the type of the provider context (CFN-12)."""

    __slots__ = ()


class Filter2(Filter1):
    """FWPS_FILTER2: differs from `Filter1` only in the type of the provider context (CFN-12).

    Management builds this newest form; being a `Filter1` and a `Filter0` too, the same object serves callouts
    of every version, so a context set by one notifyFn is the context every classifyFn reads.
    """

    __slots__ = ()


Filter = Filter2


Candidate = tuple[Filter2, MatchFunction | None, int]
"""A filter that may match connections of one listener; what must still be asked of each of them, None for nothing;
and the place of the first candidate of the next sublayer (ARB-6)."""

_LISTENERS_KEPT = 1000  # more names than any configuration has: a driver that makes up names fills no memory


class FilterSet:
    """The filters in force, never changed after construction.

    `generation` tells two sets apart (a cached match set stays valid while it is equal: MGMT-12).
    `added_callouts` are the (calloutId, layerId) pairs that exist as management objects (OBJ-8, CTX-4).
    The filters of a layer must come in evaluation order (ARB-1, MGMT-8).
    """

    __slots__ = ("_by_layer", "_candidates", "added_callouts", "generation")

    generation: int
    added_callouts: frozenset[tuple[int, int]]
    _by_layer: dict[int, tuple[Filter2, ...]]
    _candidates: dict[tuple[int, str], tuple[Candidate, ...]]

    def __init__(
        self,
        generation: int = 0,
        by_layer: Mapping[int, Sequence[Filter2]] = MappingProxyType({}),
        added_callouts: Iterable[tuple[int, int]] = (),
    ) -> None:
        put = super().__setattr__
        put("generation", generation)
        put("_by_layer", {int(layer): tuple(filters) for layer, filters in by_layer.items()})
        put("_candidates", {})
        put("added_callouts", frozenset(added_callouts))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"FilterSet.{name} is read-only")

    def filters_at(self, layer_id: int) -> tuple[Filter2, ...]:
        """Filters of a layer in evaluation order: sublayer by sublayer, heaviest first (ARB-1)."""
        return self._by_layer.get(layer_id, ())

    def candidates(self, layer_id: int, listener: str) -> tuple[Candidate, ...]:
        """Those of `filters_at` that this listener does not rule out, in the same order; worked out once."""
        key = (layer_id, listener)
        known = self._candidates.get(key)
        if known is None:
            if len(self._candidates) >= _LISTENERS_KEPT:
                self._candidates.clear()
            known = self._candidates[key] = _candidates(self._by_layer.get(layer_id, ()), listener)
        return known

    def __iter__(self) -> Iterator[Filter2]:
        for filters in self._by_layer.values():
            yield from filters

    def __len__(self) -> int:
        return sum(len(filters) for filters in self._by_layer.values())


def _candidates(filters: Sequence[Filter2], listener: str) -> tuple[Candidate, ...]:
    """The filters which this listener does not rule out, in the order given, and what is to be asked about them."""
    open_questions: list[tuple[Filter2, MatchFunction | None]] = []
    for filter in filters:
        match = filter.matches
        if match is match_always:
            open_questions.append((filter, None))
        elif not isinstance(match, SplitMatch):
            open_questions.append((filter, match))
        elif match.of_listener(listener):
            open_questions.append((filter, match.of_values))
    found: list[Candidate] = []
    following = len(open_questions)
    for place in range(len(open_questions) - 1, -1, -1):
        filter, question = open_questions[place]
        if found and found[-1][0].sub_layer_key != filter.sub_layer_key:
            following = place + 1
        found.append((filter, question, following))
    return tuple(reversed(found))


EMPTY_FILTER_SET: Final = FilterSet()
