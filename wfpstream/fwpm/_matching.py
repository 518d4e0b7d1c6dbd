"""Which objects a template chooses.

Owns the meaning of each member of a template, and which templates are refused. Must not know handles, sessions or
who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import UUID

from wfpstream.fwp import ACTION_FLAG_TERMINATING, FwpError, NtStatus
from wfpstream.fwpm._adding import require_flags
from wfpstream.fwpm._compile import evaluation_order
from wfpstream.fwpm._conditions import resolve_condition
from wfpstream.fwpm._keys import ZERO_KEY
from wfpstream.fwpm._layers import Layer, find_layer
from wfpstream.fwpm._objects import CalloutEntry, Entry, FilterEntry
from wfpstream.fwpm._regions import contains, overlaps
from wfpstream.fwpm._templates import (
    CalloutEnumTemplate,
    FilterEnumFlags,
    FilterEnumTemplate,
    FilterEnumType,
    ProviderContextEnumTemplate,
    ProviderEnumTemplate,
    SubLayerEnumTemplate,
)
from wfpstream.fwpm._types import FilterFlags, Provider, ProviderContext, SubLayer
from wfpstream.fwps._conditions import Condition

_FLAGS: Final = sum(FilterEnumFlags)
_ANY_BOOTTIME: Final = FilterEnumFlags.BOOTTIME_ONLY | FilterEnumFlags.INCLUDE_BOOTTIME


def chosen_providers(
    template: ProviderEnumTemplate | None, profile: str
) -> Callable[[Entry[Provider]], bool]:
    """Every provider."""
    return lambda entry: True


def chosen_sub_layers(
    template: SubLayerEnumTemplate | None, profile: str
) -> Callable[[Entry[SubLayer]], bool]:
    """The sublayers of the template's provider."""
    if template is None:
        return lambda entry: True
    return lambda entry: template.provider_key in (None, entry.record.provider_key)


def chosen_callouts(template: CalloutEnumTemplate | None, profile: str) -> Callable[[CalloutEntry], bool]:
    """The callouts of the template's provider and layer. FwpError LAYER_NOT_FOUND: there is no such layer."""
    if template is None:
        return lambda entry: True
    layer = _layer(template.layer_key, profile)
    return lambda entry: (
        template.provider_key in (None, entry.record.provider_key)
        and layer
        in (
            None,
            entry.layer,
        )
    )


def chosen_provider_contexts(
    template: ProviderContextEnumTemplate | None, profile: str
) -> Callable[[Entry[ProviderContext]], bool]:
    """The contexts of the template's provider and type."""
    if template is None:
        return lambda entry: True
    return lambda entry: (
        template.provider_key
        in (
            None,
            entry.record.provider_key,
        )
        and template.provider_context_type in (None, entry.record.type)
    )


def chosen_filters(template: FilterEnumTemplate | None, profile: str) -> Callable[[FilterEntry], bool]:
    """The filters that fit every member of the template, one by one.

    Raises FwpError: STATUS_FWP_INVALID_FLAGS; STATUS_FWP_INVALID_ENUMERATOR for an unknown `enum_type`;
    STATUS_FWP_LAYER_NOT_FOUND for an unknown layer, or conditions without one; the statuses of MGMT-9, and
    STATUS_FWP_DUPLICATE_CONDITION for two conditions on one field.
    """
    if template is None:
        return lambda entry: True
    require_flags(template.flags, _FLAGS)
    if template.enum_type not in tuple(FilterEnumType):
        raise FwpError(NtStatus.STATUS_FWP_INVALID_ENUMERATOR, f"enum_type {template.enum_type}")
    layer = _layer(template.layer_key, profile)
    tests: list[Callable[[FilterEntry], bool]] = [
        _fits_boot_time(template.flags),
        lambda entry: template.provider_key in (None, entry.record.provider_key),
        lambda entry: template.layer_key in (ZERO_KEY, entry.record.layer_key),
        lambda entry: bool(entry.record.action_type & template.action_mask),
        lambda entry: template.callout_key in (None, entry.run_time.callout_key),
    ]
    if template.provider_context_template is not None:
        tests.append(_fits_context(template.provider_context_template, profile))
    if template.conditions:
        tests.append(_fits_conditions(template, layer, profile))
    return lambda entry: all(test(entry) for test in tests)


def in_template_order(
    filters: Iterable[FilterEntry], template: FilterEnumTemplate | None
) -> list[FilterEntry]:
    """The chosen filters as SORTED and BEST_TERMINATING_MATCH want them; in the order of adding without."""
    flags = FilterEnumFlags.SORTED if template is None else template.flags
    if not flags & (FilterEnumFlags.SORTED | FilterEnumFlags.BEST_TERMINATING_MATCH):
        return sorted(filters, key=lambda entry: entry.order)
    heaviest_first = evaluation_order(filters)
    if flags & FilterEnumFlags.BEST_TERMINATING_MATCH:
        return [one for one in heaviest_first if one.record.action_type & ACTION_FLAG_TERMINATING][:1]
    return heaviest_first


def _layer(key: UUID, profile: str) -> Layer | None:
    if key == ZERO_KEY:
        return None
    layer = find_layer(key, profile)
    if layer is None:
        raise FwpError(NtStatus.STATUS_FWP_LAYER_NOT_FOUND, f"{key}")
    return layer


def _fits_boot_time(flags: int) -> Callable[[FilterEntry], bool]:
    if flags & FilterEnumFlags.BOOTTIME_ONLY:
        return lambda entry: bool(entry.record.flags & FilterFlags.BOOTTIME)
    return lambda entry: bool(flags & _ANY_BOOTTIME) or not entry.record.flags & FilterFlags.BOOTTIME


def _fits_context(template: ProviderContextEnumTemplate, profile: str) -> Callable[[FilterEntry], bool]:
    """One of the objects the filter names is a context that the inner template chooses."""
    chosen = chosen_provider_contexts(template, profile)

    def fits(entry: FilterEntry) -> bool:
        named: tuple[Entry[Any], ...] = entry.names
        return any(isinstance(one.record, ProviderContext) and chosen(one) for one in named)

    return fits


def _fits_conditions(
    template: FilterEnumTemplate, layer: Layer | None, profile: str
) -> Callable[[FilterEntry], bool]:
    if layer is None:
        raise FwpError(NtStatus.STATUS_FWP_LAYER_NOT_FOUND, "conditions are read against a layer")
    wanted: dict[int, Condition] = {}
    for condition in template.conditions:
        status, resolved = resolve_condition(layer, condition, profile)
        if resolved is None:
            raise FwpError(status, f"condition at {layer.name}")
        if wanted.setdefault(resolved.field_index, resolved) is not resolved:
            raise FwpError(NtStatus.STATUS_FWP_DUPLICATE_CONDITION, "one condition per field")
    types = {field.index: field.type for field in layer.fields.values()}
    compare = contains if template.enum_type == FilterEnumType.FULLY_CONTAINED else overlaps

    def fits(entry: FilterEntry) -> bool:
        resolved = (resolve_condition(layer, one, profile)[1] for one in entry.record.conditions)
        return compare([one for one in resolved if one is not None], wanted, types)

    return fits
