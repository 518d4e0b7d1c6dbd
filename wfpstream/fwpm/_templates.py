"""What enumerations and subscriptions are asked with, and what a subscription answers (`FWPM_*_TEMPLATE0` and on).

Owns the shape of the records only; they are plain frozen data. Must not know which objects a template chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final
from uuid import UUID

from wfpstream.fwpm._keys import ZERO_KEY
from wfpstream.fwpm._types import ChangeType, DisplayData, FilterCondition

ACTION_MASK_ALL: Final = 0xFFFF_FFFF
"""FWPM_FILTER_ENUM_TEMPLATE0's actionMask that ignores the action type."""


class FilterEnumType(IntEnum):
    """FWP_FILTER_ENUM_TYPE: how a template's conditions are read.

    FULLY_CONTAINED: the filter matches all that the conditions describe; OVERLAPPING: it matches some of it.
    """

    FULLY_CONTAINED = 0
    OVERLAPPING = 1


class FilterEnumFlags(IntFlag):
    """FWP_FILTER_ENUM_FLAG_* (FWPM_FILTER_ENUM_TEMPLATE0)."""

    BEST_TERMINATING_MATCH = 0x01
    SORTED = 0x02
    BOOTTIME_ONLY = 0x04
    INCLUDE_BOOTTIME = 0x08
    INCLUDE_DISABLED = 0x10


class SubscriptionFlags(IntFlag):
    """FWPM_SUBSCRIPTION_FLAG_* (Win32 metadata)."""

    NOTIFY_ON_ADD = 0x1
    NOTIFY_ON_DELETE = 0x2


NOTIFY_ALWAYS: Final = SubscriptionFlags.NOTIFY_ON_ADD | SubscriptionFlags.NOTIFY_ON_DELETE


# -- templates


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderEnumTemplate:
    """FWPM_PROVIDER_ENUM_TEMPLATE0: it has no member that means anything, and chooses every provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubLayerEnumTemplate:
    """FWPM_SUBLAYER_ENUM_TEMPLATE0: the sublayers of one provider; None: all."""

    provider_key: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CalloutEnumTemplate:
    """FWPM_CALLOUT_ENUM_TEMPLATE0: the callouts of one provider and one layer; None and a zero key: any."""

    provider_key: UUID | None = None
    layer_key: UUID = ZERO_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderContextEnumTemplate:
    """FWPM_PROVIDER_CONTEXT_ENUM_TEMPLATE0: the contexts of one provider and one type; None: any."""

    provider_key: UUID | None = None
    provider_context_type: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterEnumTemplate:
    """FWPM_FILTER_ENUM_TEMPLATE0. Every member narrows the choice; the defaults do not.

    `layer_key`: zero for every layer, but conditions need a layer to be read against. `conditions`: one per
    field at most; none: whatever the filter matches. `flags`: FilterEnumFlags; without one of the two that
    speak of boot time, boot-time filters are left out. `action_mask`: the filter's action type must share a
    bit with it, so `ActionType.BLOCK ^ ACTION_FLAG_TERMINATING` chooses blocking filters.
    """

    provider_key: UUID | None = None
    layer_key: UUID = ZERO_KEY
    enum_type: int = FilterEnumType.FULLY_CONTAINED
    flags: int = 0
    provider_context_template: ProviderContextEnumTemplate | None = None
    conditions: Sequence[FilterCondition] = ()
    action_mask: int = ACTION_MASK_ALL
    callout_key: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEnumTemplate:
    """FWPM_SESSION_ENUM_TEMPLATE0: it has no member that means anything, and chooses every session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerEnumTemplate:
    """FWPM_LAYER_ENUM_TEMPLATE0: it has no member that means anything, and chooses every layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """FWPM_SESSION0 as enumerations show it: an open session. `txn_wait_timeout` in seconds."""

    session_key: UUID
    display_data: DisplayData
    flags: int
    txn_wait_timeout: float


# -- subscriptions: `session_key` is filled in by the engine


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSubscription:
    """FWPM_PROVIDER_SUBSCRIPTION0; without a template it is for every provider."""

    enum_template: ProviderEnumTemplate | None = None
    flags: int = NOTIFY_ALWAYS
    session_key: UUID = ZERO_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class SubLayerSubscription:
    """FWPM_SUBLAYER_SUBSCRIPTION0; without a template it is for every sublayer."""

    enum_template: SubLayerEnumTemplate | None = None
    flags: int = NOTIFY_ALWAYS
    session_key: UUID = ZERO_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class CalloutSubscription:
    """FWPM_CALLOUT_SUBSCRIPTION0; without a template it is for every callout."""

    enum_template: CalloutEnumTemplate | None = None
    flags: int = NOTIFY_ALWAYS
    session_key: UUID = ZERO_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderContextSubscription:
    """FWPM_PROVIDER_CONTEXT_SUBSCRIPTION0; without a template it is for every provider context."""

    enum_template: ProviderContextEnumTemplate | None = None
    flags: int = NOTIFY_ALWAYS
    session_key: UUID = ZERO_KEY


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterSubscription:
    """FWPM_FILTER_SUBSCRIPTION0; without a template it is for every filter."""

    enum_template: FilterEnumTemplate | None = None
    flags: int = NOTIFY_ALWAYS
    session_key: UUID = ZERO_KEY


# -- changes


@dataclass(frozen=True, slots=True)
class ProviderChange:
    """FWPM_PROVIDER_CHANGE0."""

    change_type: ChangeType
    provider_key: UUID


@dataclass(frozen=True, slots=True)
class SubLayerChange:
    """FWPM_SUBLAYER_CHANGE0."""

    change_type: ChangeType
    sub_layer_key: UUID


@dataclass(frozen=True, slots=True)
class CalloutChange:
    """FWPM_CALLOUT_CHANGE0."""

    change_type: ChangeType
    callout_key: UUID
    callout_id: int


@dataclass(frozen=True, slots=True)
class ProviderContextChange:
    """FWPM_PROVIDER_CONTEXT_CHANGE0, without the context's id: contexts are named by key here."""

    change_type: ChangeType
    provider_context_key: UUID


@dataclass(frozen=True, slots=True)
class FilterChange:
    """FWPM_FILTER_CHANGE0."""

    change_type: ChangeType
    filter_key: UUID
    filter_id: int
