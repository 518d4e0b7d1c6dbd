"""Management records: what Fwpm* calls are given and give back, and the flags they carry (prefix `FWPM_`).

Owns the shape of the records only; they are plain frozen data. Must not know tables, sessions or rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final
from uuid import UUID

from wfpstream.fwp import EMPTY, ActionType, FwpValue, MatchType
from wfpstream.fwpm._keys import ZERO_KEY


class SessionFlags(IntFlag):
    """FWPM_SESSION_FLAG_* (Win32 metadata)."""

    DYNAMIC = 0x0000_0001


class ChangeType(IntEnum):
    """FWPM_CHANGE_TYPE: what happened to an object."""

    ADD = 1
    DELETE = 2


class TransactionFlags(IntFlag):
    """FWPM_TXN_* (Win32 metadata)."""

    READ_ONLY = 0x0000_0001


class ProviderFlags(IntFlag):
    """FWPM_PROVIDER_FLAG_* (Win32 metadata). PERSISTENT is treated as static (OBJ-3)."""

    PERSISTENT = 0x0000_0001
    DISABLED = 0x0000_0010


class SubLayerFlags(IntFlag):
    """FWPM_SUBLAYER_FLAG_* (Win32 metadata). PERSISTENT is treated as static (OBJ-3)."""

    PERSISTENT = 0x0000_0001


class CalloutFlags(IntFlag):
    """FWPM_CALLOUT_FLAG_* (Win32 metadata), of the management object; the run time has `fwp.CalloutFlags`."""

    PERSISTENT = 0x0001_0000
    USES_PROVIDER_CONTEXT = 0x0002_0000
    REGISTERED = 0x0004_0000


class FilterFlags(IntFlag):
    """FWPM_FILTER_FLAG_* (Win32 metadata; FWPM_FILTER0)."""

    PERSISTENT = 0x0000_0001
    BOOTTIME = 0x0000_0002
    HAS_PROVIDER_CONTEXT = 0x0000_0004
    CLEAR_ACTION_RIGHT = 0x0000_0008
    PERMIT_IF_CALLOUT_UNREGISTERED = 0x0000_0010
    DISABLED = 0x0000_0020
    INDEXED = 0x0000_0040
    HAS_SECURITY_REALM_PROVIDER_CONTEXT = 0x0000_0080
    SYSTEMOS_ONLY = 0x0000_0100
    GAMEOS_ONLY = 0x0000_0200
    SILENT_MODE = 0x0000_0400
    IPSEC_NO_ACQUIRE_INITIATE = 0x0000_0800


class ProviderContextType(IntEnum):
    """FWPM_PROVIDER_CONTEXT_TYPE (order of that page): the one type this engine needs (MGMT-17)."""

    GENERAL_CONTEXT = 8


AUTO_WEIGHT_BITS: Final = 60
WEIGHT_RANGE_MAX: Final = 15


@dataclass(frozen=True, slots=True)
class DisplayData:
    """FWPM_DISPLAY_DATA0: a name, required on every add (OBJ-7), and an optional description."""

    name: str = ""
    description: str = ""


_NO_DISPLAY: Final = DisplayData()


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """FWPM_PROVIDER0: a label for a group of objects, without effect at run time (OBJ-6)."""

    provider_key: UUID = ZERO_KEY
    display_data: DisplayData = _NO_DISPLAY
    flags: int = 0
    provider_data: bytes = b""
    service_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubLayer:
    """FWPM_SUBLAYER0. `weight` is a UINT16, larger is asked first (ARB-1)."""

    sub_layer_key: UUID = ZERO_KEY
    display_data: DisplayData = _NO_DISPLAY
    flags: int = 0
    provider_key: UUID | None = None
    provider_data: bytes = b""
    weight: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Callout:
    """FWPM_CALLOUT0: the management side of a callout, bound to one layer (OBJ-8).

    `callout_id` is filled in by the engine, and REGISTERED in `flags` when the record is read.
    """

    callout_key: UUID = ZERO_KEY
    display_data: DisplayData = _NO_DISPLAY
    flags: int = 0
    provider_key: UUID | None = None
    provider_data: bytes = b""
    applicable_layer: UUID = ZERO_KEY
    callout_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderContext:
    """FWPM_PROVIDER_CONTEXT0: data a filter carries to its callout (MGMT-17).

    `type` is a FWPM_PROVIDER_CONTEXT_TYPE number. For GENERAL_CONTEXT `data` must be bytes-like; any other
    type is accepted and never interpreted. The engine keeps a copy.
    """

    provider_context_key: UUID = ZERO_KEY
    display_data: DisplayData = _NO_DISPLAY
    provider_key: UUID | None = None
    provider_data: bytes = b""
    type: int = ProviderContextType.GENERAL_CONTEXT
    data: object = b""


@dataclass(frozen=True, slots=True)
class FilterCondition:
    """FWPM_FILTER_CONDITION0: field, match type, value. Consecutive ones of one field are ORed (MGMT-10)."""

    field_key: UUID
    match_type: MatchType
    condition_value: FwpValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """FWPM_FILTER0.

    A zero `sub_layer_key` is FWPM_SUBLAYER_UNIVERSAL (MGMT-4). `callout_key` counts for callout actions only.
    `weight`: EMPTY (automatic), UINT8 0..15 (range) or UINT64 (exact) (MGMT-6). `provider_context_key` counts
    with FilterFlags.HAS_PROVIDER_CONTEXT only. Extension: `provider_object` is handed to the callout as the
    provider context, in place of the record that `provider_context_key` names (MGMT-18).
    `filter_id` and `effective_weight` are filled in by the engine, and so is `retiring` (extension): it is out of
    force, and finishes what it has to do for running flows (MGMT-16).
    """

    filter_key: UUID = ZERO_KEY
    display_data: DisplayData = _NO_DISPLAY
    flags: int = 0
    provider_key: UUID | None = None
    provider_data: bytes = b""
    layer_key: UUID = ZERO_KEY
    sub_layer_key: UUID = ZERO_KEY
    weight: FwpValue = EMPTY
    conditions: Sequence[FilterCondition] = ()
    action_type: int = ActionType.PERMIT
    callout_key: UUID | None = None
    raw_context: int = 0
    provider_context_key: UUID | None = None
    provider_object: object | None = None
    filter_id: int = 0
    effective_weight: FwpValue = EMPTY
    retiring: bool = False
