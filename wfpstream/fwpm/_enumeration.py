"""The enumeration calls of a session: handles that page through a snapshot, and whole lists at once.

Owns what an enumeration handle holds, and the records that are shown. Must not know what a template means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar
from uuid import UUID

from wfpstream.fwp import FwpError, NtStatus, uint64
from wfpstream.fwpm import _matching
from wfpstream.fwpm._calls import Calls
from wfpstream.fwpm._layers import LAYERS, Layer, find_layer
from wfpstream.fwpm._members import require_members
from wfpstream.fwpm._objects import CalloutEntry, FilterEntry, Tables
from wfpstream.fwpm._templates import (
    CalloutEnumTemplate,
    FilterEnumFlags,
    FilterEnumTemplate,
    LayerEnumTemplate,
    ProviderContextEnumTemplate,
    ProviderEnumTemplate,
    SessionEnumTemplate,
    SessionRecord,
    SubLayerEnumTemplate,
)
from wfpstream.fwpm._types import (
    Callout,
    CalloutFlags,
    Filter,
    Provider,
    ProviderContext,
    SubLayer,
)

RecordT = TypeVar("RecordT")
TemplateT = TypeVar("TemplateT")

_SUCCESS: Final = NtStatus.STATUS_SUCCESS


class _Enumeration:
    """What one handle pages through: the records of one type as they were when it was made."""

    def __init__(self, kind: type[Any], records: list[Any]) -> None:
        self.kind = kind
        self._records = records
        self._next = 0

    def page(self, count: int) -> list[Any]:
        start = self._next
        self._next = min(start + count, len(self._records))
        return self._records[start : self._next]


class Enumerating(Calls):
    """The calls that list objects.

    `..._create_enum_handle(template)` gives (status, handle) for a snapshot of what the session sees at that
    moment; None chooses all. `..._enum(handle, num_entries)` gives (status, records): the next ones, fewer than
    asked for at the end. A handle lives until `..._destroy_enum_handle(handle)` or the end of its session.
    Short form of ours: `..._enum(template)`, or without an argument, is the whole list at once.

    A wrong handle: STATUS_INVALID_HANDLE; the handle of another session: STATUS_FWP_WRONG_SESSION; a wrong
    template: the status that `_matching` names.
    """

    # -- filters

    def filter_create_enum_handle(self, template: FilterEnumTemplate | None = None) -> tuple[NtStatus, int]:
        """FwpmFilterCreateEnumHandle0."""
        return self._create(
            "FwpmFilterCreateEnumHandle0", Filter, template, FilterEnumTemplate, self._filters
        )

    def filter_enum(
        self, what: int | FilterEnumTemplate | UUID | None = None, num_entries: int | None = None
    ) -> tuple[NtStatus, list[Filter]]:
        """FwpmFilterEnum0: the next `num_entries` of a handle.

        Short forms: the filters of a template, of a layer key, or all; but for a template without SORTED they
        come in evaluation order (ARB-1).
        """
        if isinstance(what, UUID):
            what = FilterEnumTemplate(
                layer_key=what, flags=FilterEnumFlags.SORTED | FilterEnumFlags.INCLUDE_BOOTTIME
            )
        return self._list("FwpmFilterEnum0", Filter, what, num_entries, FilterEnumTemplate, self._filters)

    def filter_destroy_enum_handle(self, enum_handle: int) -> NtStatus:
        """FwpmFilterDestroyEnumHandle0."""
        return self._destroy("FwpmFilterDestroyEnumHandle0", Filter, enum_handle)

    def _filters(self, tables: Tables, template: FilterEnumTemplate | None) -> list[Filter]:
        chosen = filter(_matching.chosen_filters(template, self._profile), tables.all_filters())
        return [self._filter_record(one) for one in _matching.in_template_order(chosen, template)]

    def _filter_record(self, entry: FilterEntry) -> Filter:
        """The record with what the engine adds: filterId, effective weight, and whether it retires."""
        run_time = entry.run_time
        return replace(
            entry.record,
            filter_id=run_time.filter_id,
            effective_weight=uint64(run_time.weight),
            retiring=run_time.filter_id in self._visible().retiring,
        )

    # -- callouts

    def callout_create_enum_handle(self, template: CalloutEnumTemplate | None = None) -> tuple[NtStatus, int]:
        """FwpmCalloutCreateEnumHandle0."""
        return self._create(
            "FwpmCalloutCreateEnumHandle0", Callout, template, CalloutEnumTemplate, self._callouts
        )

    def callout_enum(
        self, what: int | CalloutEnumTemplate | None = None, num_entries: int | None = None
    ) -> tuple[NtStatus, list[Callout]]:
        """FwpmCalloutEnum0: the next `num_entries` of a handle; short form: a whole list, in order of adding."""
        return self._list("FwpmCalloutEnum0", Callout, what, num_entries, CalloutEnumTemplate, self._callouts)

    def callout_destroy_enum_handle(self, enum_handle: int) -> NtStatus:
        """FwpmCalloutDestroyEnumHandle0."""
        return self._destroy("FwpmCalloutDestroyEnumHandle0", Callout, enum_handle)

    def _callouts(self, tables: Tables, template: CalloutEnumTemplate | None) -> list[Callout]:
        chosen = filter(_matching.chosen_callouts(template, self._profile), tables.callouts)
        return [self._callout_record(one) for one in chosen]

    def _callout_record(self, entry: CalloutEntry) -> Callout:
        registered = self._store.run_time.callout_registered(entry.key)
        return replace(entry.record, flags=entry.record.flags | CalloutFlags.REGISTERED * registered)

    # -- sublayers

    def sub_layer_create_enum_handle(
        self, template: SubLayerEnumTemplate | None = None
    ) -> tuple[NtStatus, int]:
        """FwpmSubLayerCreateEnumHandle0."""
        return self._create(
            "FwpmSubLayerCreateEnumHandle0", SubLayer, template, SubLayerEnumTemplate, self._sub_layers
        )

    def sub_layer_enum(
        self, what: int | SubLayerEnumTemplate | None = None, num_entries: int | None = None
    ) -> tuple[NtStatus, list[SubLayer]]:
        """FwpmSubLayerEnum0: the next `num_entries` of a handle; short form: a whole list.

        In evaluation order: heaviest first, built-in ones included.
        """
        return self._list(
            "FwpmSubLayerEnum0", SubLayer, what, num_entries, SubLayerEnumTemplate, self._sub_layers
        )

    def sub_layer_destroy_enum_handle(self, enum_handle: int) -> NtStatus:
        """FwpmSubLayerDestroyEnumHandle0."""
        return self._destroy("FwpmSubLayerDestroyEnumHandle0", SubLayer, enum_handle)

    def _sub_layers(self, tables: Tables, template: SubLayerEnumTemplate | None) -> list[SubLayer]:
        chosen = filter(_matching.chosen_sub_layers(template, self._profile), tables.sub_layers)
        ordered = sorted(chosen, key=lambda entry: (-entry.record.weight, entry.order))
        return [entry.record for entry in ordered]

    # -- providers

    def provider_create_enum_handle(
        self, template: ProviderEnumTemplate | None = None
    ) -> tuple[NtStatus, int]:
        """FwpmProviderCreateEnumHandle0."""
        return self._create(
            "FwpmProviderCreateEnumHandle0", Provider, template, ProviderEnumTemplate, self._providers
        )

    def provider_enum(
        self, what: int | ProviderEnumTemplate | None = None, num_entries: int | None = None
    ) -> tuple[NtStatus, list[Provider]]:
        """FwpmProviderEnum0: the next `num_entries` of a handle; short form: all, in order of adding."""
        return self._list(
            "FwpmProviderEnum0", Provider, what, num_entries, ProviderEnumTemplate, self._providers
        )

    def provider_destroy_enum_handle(self, enum_handle: int) -> NtStatus:
        """FwpmProviderDestroyEnumHandle0."""
        return self._destroy("FwpmProviderDestroyEnumHandle0", Provider, enum_handle)

    def _providers(self, tables: Tables, template: ProviderEnumTemplate | None) -> list[Provider]:
        chosen = filter(_matching.chosen_providers(template, self._profile), tables.providers)
        return [entry.record for entry in chosen]

    # -- provider contexts

    def provider_context_create_enum_handle(
        self, template: ProviderContextEnumTemplate | None = None
    ) -> tuple[NtStatus, int]:
        """FwpmProviderContextCreateEnumHandle0."""
        return self._create(
            "FwpmProviderContextCreateEnumHandle0",
            ProviderContext,
            template,
            ProviderContextEnumTemplate,
            self._provider_contexts,
        )

    def provider_context_enum(
        self, what: int | ProviderContextEnumTemplate | None = None, num_entries: int | None = None
    ) -> tuple[NtStatus, list[ProviderContext]]:
        """FwpmProviderContextEnum0: the next `num_entries` of a handle; short form: a list, in order of adding."""
        return self._list(
            "FwpmProviderContextEnum0",
            ProviderContext,
            what,
            num_entries,
            ProviderContextEnumTemplate,
            self._provider_contexts,
        )

    def provider_context_destroy_enum_handle(self, enum_handle: int) -> NtStatus:
        """FwpmProviderContextDestroyEnumHandle0."""
        return self._destroy("FwpmProviderContextDestroyEnumHandle0", ProviderContext, enum_handle)

    def _provider_contexts(
        self, tables: Tables, template: ProviderContextEnumTemplate | None
    ) -> list[ProviderContext]:
        chosen = filter(_matching.chosen_provider_contexts(template, self._profile), tables.provider_contexts)
        return [entry.record for entry in chosen]

    # -- sessions

    def session_create_enum_handle(self, template: SessionEnumTemplate | None = None) -> tuple[NtStatus, int]:
        """FwpmSessionCreateEnumHandle0."""
        return self._create(
            "FwpmSessionCreateEnumHandle0", SessionRecord, template, SessionEnumTemplate, self._sessions
        )

    def session_enum(
        self, what: int | SessionEnumTemplate | None = None, num_entries: int | None = None
    ) -> tuple[NtStatus, list[SessionRecord]]:
        """FwpmSessionEnum0: the next `num_entries` of a handle; short form: all, in order of opening."""
        return self._list(
            "FwpmSessionEnum0", SessionRecord, what, num_entries, SessionEnumTemplate, self._sessions
        )

    def session_destroy_enum_handle(self, enum_handle: int) -> NtStatus:
        """FwpmSessionDestroyEnumHandle0."""
        return self._destroy("FwpmSessionDestroyEnumHandle0", SessionRecord, enum_handle)

    def _sessions(self, tables: Tables, template: SessionEnumTemplate | None) -> list[SessionRecord]:
        return list(self._store.sessions.values())

    # -- layers

    def layer_create_enum_handle(self, template: LayerEnumTemplate | None = None) -> tuple[NtStatus, int]:
        """FwpmLayerCreateEnumHandle0."""
        return self._create("FwpmLayerCreateEnumHandle0", Layer, template, LayerEnumTemplate, self._layers)

    def layer_enum(
        self, what: int | LayerEnumTemplate | None = None, num_entries: int | None = None
    ) -> tuple[NtStatus, list[Layer]]:
        """FwpmLayerEnum0: the next `num_entries` of a handle; short form: all that the OS profile has."""
        return self._list("FwpmLayerEnum0", Layer, what, num_entries, LayerEnumTemplate, self._layers)

    def layer_destroy_enum_handle(self, enum_handle: int) -> NtStatus:
        """FwpmLayerDestroyEnumHandle0."""
        return self._destroy("FwpmLayerDestroyEnumHandle0", Layer, enum_handle)

    def _layers(self, tables: Tables, template: LayerEnumTemplate | None) -> list[Layer]:
        return [layer for layer in LAYERS.values() if find_layer(layer.key, self._profile) is not None]

    # -- what they have in common

    @property
    def _profile(self) -> str:
        return self._store.run_time.profile

    def _create(
        self,
        call: str,
        kind: type[RecordT],
        template: TemplateT | None,
        template_kind: type[TemplateT],
        choose: Callable[[Tables, TemplateT | None], list[RecordT]],
    ) -> tuple[NtStatus, int]:
        _require(call, template, template_kind)

        def create() -> int:
            records = choose(self._visible(), template)
            return self._store.handles.open(self, _Enumeration(kind, records))

        return self._read(call, create, 0)

    def _list(
        self,
        call: str,
        kind: type[RecordT],
        what: int | TemplateT | None,
        num_entries: int | None,
        template_kind: type[TemplateT],
        choose: Callable[[Tables, TemplateT | None], list[RecordT]],
    ) -> tuple[NtStatus, list[RecordT]]:
        if isinstance(what, int):
            handle, count = what, _require_count(call, num_entries)
            return self._read(call, lambda: self._enumeration(kind, handle).page(count), [])
        _require(call, what, template_kind)
        return self._read(call, lambda: choose(self._visible(), what), [])

    def _destroy(self, call: str, kind: type[Any], handle: int) -> NtStatus:
        def destroy() -> None:
            self._enumeration(kind, handle)
            self._store.handles.close(handle)

        return self._read(call, destroy, None)[0]

    def _enumeration(self, kind: type[Any], handle: int) -> _Enumeration:
        """The enumeration of a handle, which must be of that type of object."""
        enumeration = self._store.handles.find(self, handle, _Enumeration)
        if enumeration.kind is not kind:
            raise FwpError(
                NtStatus.STATUS_INVALID_HANDLE, f"handle {handle} is for {enumeration.kind.__name__}"
            )
        return enumeration


def _require(call: str, template: object, kind: type[Any]) -> None:
    if template is None:
        return
    if not isinstance(template, kind):
        raise TypeError(f"{call} takes a fwpm.{kind.__name__}, not {type(template).__name__}")
    require_members(template)


def _require_count(call: str, num_entries: int | None) -> int:
    if not isinstance(num_entries, int) or num_entries < 0:
        raise TypeError(f"{call} takes a handle and how many entries are wanted, not {num_entries!r}")
    return num_entries
