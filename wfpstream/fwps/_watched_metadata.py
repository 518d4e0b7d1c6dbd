"""Metadata under the verifier: a member whose bit is clear holds poison, and reading it is told (MET-3, V-30).

Owns which bit speaks for which member. Off, the plain record of `_records` is used and nothing is watched.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from ._constants import MetadataField
from ._records import IncomingMetadataValues

POISON = 0xDEAD_F00D

BIT_OF_MEMBER: dict[str, int] = {
    "flow_handle": int(MetadataField.FLOW_HANDLE),
    "system_flags": int(MetadataField.SYSTEM_FLAGS),
    "compartment_id": int(MetadataField.COMPARTMENT_ID),
    "completion_handle": int(MetadataField.COMPLETION_HANDLE),
    "transport_endpoint_handle": int(MetadataField.TRANSPORT_ENDPOINT_HANDLE),
    "parent_endpoint_handle": int(MetadataField.PARENT_ENDPOINT_HANDLE),
    "process_id": int(MetadataField.PROCESS_ID),
    "process_path": int(MetadataField.PROCESS_PATH),
    "token": int(MetadataField.TOKEN),
    "sub_process_tag": int(MetadataField.SUB_PROCESS_TAG),
    "redirect_records": int(MetadataField.REDIRECT_RECORD_HANDLE),
    "local_redirect_target_pid": int(MetadataField.LOCAL_REDIRECT_TARGET_PID),
    "original_destination": int(MetadataField.ORIGINAL_DESTINATION),
    "discard_metadata": int(MetadataField.DISCARD_REASON),
}


class WatchedMetadataValues(IncomingMetadataValues):
    """`IncomingMetadataValues` that tells `report` of a read that had no right to be made."""

    __slots__ = ("_report",)

    def __init__(self, current_metadata_values: int, report: Callable[[str], None]) -> None:
        super().__init__(current_metadata_values)
        self._report = report


def watched_metadata(bits: int, report: Callable[[str], None]) -> WatchedMetadataValues:
    """Metadata with these bits in `current_metadata_values`.

    Only members whose bit is clear are watched, so that reading the others costs nothing.
    """
    return _class_for(bits)(bits, report)


def watching(values: IncomingMetadataValues, report: Callable[[str], None]) -> WatchedMetadataValues:
    """The same metadata, watched from now on."""
    watched = watched_metadata(values.current_metadata_values, report)
    for member in IncomingMetadataValues.__slots__:
        setattr(watched, member, getattr(values, member))
    return watched


@cache
def _class_for(bits: int) -> type[WatchedMetadataValues]:
    members: dict[str, Any] = {
        member: _watched(member, bit) for member, bit in BIT_OF_MEMBER.items() if not bits & bit
    }
    return type("WatchedMetadataValues", (WatchedMetadataValues,), {"__slots__": (), **members})


def _watched(member: str, bit: int) -> property:
    place = getattr(IncomingMetadataValues, member)  # the slot behind it

    def read(values: WatchedMetadataValues) -> Any:
        if values.current_metadata_values & bit:
            return place.__get__(values)
        values._report(member)
        return POISON

    return property(read, place.__set__)
