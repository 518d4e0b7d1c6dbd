"""Management objects to the run time's filter set: the only translator between the two worlds.

Owns the order of evaluation and the translation of flags. Must not know calls, sessions or transactions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from wfpstream.fwpm._objects import FilterEntry, Tables
from wfpstream.fwpm._types import FilterFlags
from wfpstream.fwps._constants import FilterRunFlags
from wfpstream.fwps._filter import Filter2
from wfpstream.fwps._filter_set import FilterSet

# Those of FWPM_FILTER_FLAG_* that have a counterpart at run time.
_RUN_TIME_FLAGS: Final = (
    (FilterFlags.CLEAR_ACTION_RIGHT, FilterRunFlags.CLEAR_ACTION_RIGHT),
    (FilterFlags.PERMIT_IF_CALLOUT_UNREGISTERED, FilterRunFlags.PERMIT_IF_CALLOUT_UNREGISTERED),
    (FilterFlags.HAS_SECURITY_REALM_PROVIDER_CONTEXT, FilterRunFlags.HAS_SECURITY_REALM_PROVIDER_CONTEXT),
    (FilterFlags.SILENT_MODE, FilterRunFlags.SILENT_MODE),
    (FilterFlags.IPSEC_NO_ACQUIRE_INITIATE, FilterRunFlags.IPSEC_NO_ACQUIRE_INITIATE),
)


def run_time_flags(flags: int) -> int:
    """FWPS_FILTER_FLAG_* bits for FWPM_FILTER_FLAG_* bits."""
    bits = 0
    for management, run_time in _RUN_TIME_FLAGS:
        if flags & management:
            bits |= run_time
    return bits


def evaluation_order(filters: Iterable[FilterEntry]) -> list[FilterEntry]:
    """Sublayers by weight, filters of one by weight, heaviest first (ARB-1); ties: earlier added (MGMT-8)."""
    return sorted(
        filters,
        key=lambda entry: (
            -entry.run_time.sub_layer_weight,
            entry.sub_layer_order,
            -entry.run_time.weight,
            entry.order,
        ),
    )


def compile_filter_set(tables: Tables, generation: int) -> FilterSet:
    """The set that puts these objects in force."""
    by_layer: dict[int, list[Filter2]] = {}
    for entry in evaluation_order(tables.filters):
        by_layer.setdefault(entry.run_time.layer_id, []).append(entry.run_time)
    added = ((entry.callout_id, int(entry.layer.layer_id)) for entry in tables.callouts)
    return FilterSet(generation, by_layer, added)
