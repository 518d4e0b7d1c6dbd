"""Run-time filters: `Filter0`, `Filter1`, `Filter2`, what classifyFn and notifyFn are given.

Owns one filter. Knows nothing of sublayer objects, sessions or transactions: management decides ids, weights and
order and hands them over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from wfpstream.fwp import FwpValue

from ._point_index import NO_POINTS, Points

__all__ = [
    "Filter",
    "Filter0",
    "Filter1",
    "Filter2",
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
    `points` say again a part of what `matches` asks for, so that it need not be asked of each flow.
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
        "points",
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
    points: Points
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
        points: Points = NO_POINTS,
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
        put("points", points)
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
