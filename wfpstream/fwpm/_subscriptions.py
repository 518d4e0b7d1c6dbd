"""The change subscriptions of a session: who is told which changes of the committed objects.

Owns what a subscription lets through, and the change records. Must not know when changes are told: that is the feed's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar
from uuid import UUID

from wfpstream.fwp import FwpError, NtStatus
from wfpstream.fwpm import _matching
from wfpstream.fwpm._calls import Calls
from wfpstream.fwpm._changes import Change
from wfpstream.fwpm._members import require_members
from wfpstream.fwpm._objects import CalloutEntry, Entry, FilterEntry
from wfpstream.fwpm._templates import (
    NOTIFY_ALWAYS,
    CalloutChange,
    CalloutSubscription,
    FilterChange,
    FilterSubscription,
    ProviderChange,
    ProviderContextChange,
    ProviderContextSubscription,
    ProviderSubscription,
    SubLayerChange,
    SubLayerSubscription,
    SubscriptionFlags,
)
from wfpstream.fwpm._types import Callout, ChangeType, Filter, Provider, ProviderContext, SubLayer

ChangeT = TypeVar("ChangeT")

_FLAG: Final = {
    ChangeType.ADD: SubscriptionFlags.NOTIFY_ON_ADD,
    ChangeType.DELETE: SubscriptionFlags.NOTIFY_ON_DELETE,
}


class _Subscription:
    """One subscription, as a listener of the feed."""

    def __init__(
        self,
        session: object,
        kind: type[Any],
        record: Any,
        chosen: Callable[[Any], bool],
        callback: Callable[[Any], object],
    ) -> None:
        self.kind = kind
        self.record = record
        self._session = session
        self._chosen = chosen
        self._callback = callback

    def __call__(self, change: Change) -> None:
        """Subscribers know what they did themselves: they hear of others only (FwpmFilterSubscribeChanges0)."""
        own = change.author is self._session
        wanted = isinstance(change.entry.record, self.kind) and self.record.flags & _FLAG[change.type]
        if wanted and not own and self._chosen(change.entry):
            self._callback(_change_record(change.type, change.entry))


def _change_record(change_type: ChangeType, entry: Entry[Any]) -> object:
    """What the callback is given."""
    match entry:
        case FilterEntry():
            return FilterChange(change_type, entry.key, entry.run_time.filter_id)
        case CalloutEntry():
            return CalloutChange(change_type, entry.key, entry.callout_id)
    plain: dict[type[Any], Callable[[ChangeType, UUID], object]] = {
        SubLayer: SubLayerChange,
        Provider: ProviderChange,
        ProviderContext: ProviderContextChange,
    }
    return plain[entry.record.__class__](change_type, entry.key)


class Subscribing(Calls):
    """The calls about change notifications.

    `..._subscribe_changes(subscription, callback)` gives (status, handle). From then on `callback(change)` is
    called for each object that a commit or a forced removal adds or deletes, if the subscription's template
    chooses it: after the fact, in order, for the objects of other sessions and of the engine itself, not for
    what this session did. An object that came and went within one transaction never was. The callback may make
    any call, and what it raises harms nobody (V-40). Subscriptions end with `..._unsubscribe_changes(handle)` or
    with the session; `..._subscriptions_get()` lists those of all sessions.

    STATUS_FWP_TXN_IN_PROGRESS inside an explicit transaction; STATUS_FWP_NULL_POINTER without a callback;
    STATUS_FWP_INVALID_FLAGS without a flag, or with an unknown one; wrong handles and templates as in
    enumerations.
    """

    # -- filters

    def filter_subscribe_changes(
        self, subscription: FilterSubscription, callback: Callable[[FilterChange], object] | None
    ) -> tuple[NtStatus, int]:
        """FwpmFilterSubscribeChanges0."""
        _require(subscription, FilterSubscription)
        chosen = _matching.chosen_filters
        return self._subscribe("FwpmFilterSubscribeChanges0", Filter, subscription, chosen, callback)

    def filter_unsubscribe_changes(self, change_handle: int) -> NtStatus:
        """FwpmFilterUnsubscribeChanges0."""
        return self._unsubscribe("FwpmFilterUnsubscribeChanges0", Filter, change_handle)

    def filter_subscriptions_get(self) -> tuple[NtStatus, list[FilterSubscription]]:
        """FwpmFilterSubscriptionsGet0."""
        return self._subscriptions("FwpmFilterSubscriptionsGet0", Filter)

    # -- callouts

    def callout_subscribe_changes(
        self, subscription: CalloutSubscription, callback: Callable[[CalloutChange], object] | None
    ) -> tuple[NtStatus, int]:
        """FwpmCalloutSubscribeChanges0."""
        _require(subscription, CalloutSubscription)
        chosen = _matching.chosen_callouts
        return self._subscribe("FwpmCalloutSubscribeChanges0", Callout, subscription, chosen, callback)

    def callout_unsubscribe_changes(self, change_handle: int) -> NtStatus:
        """FwpmCalloutUnsubscribeChanges0."""
        return self._unsubscribe("FwpmCalloutUnsubscribeChanges0", Callout, change_handle)

    def callout_subscriptions_get(self) -> tuple[NtStatus, list[CalloutSubscription]]:
        """FwpmCalloutSubscriptionsGet0."""
        return self._subscriptions("FwpmCalloutSubscriptionsGet0", Callout)

    # -- sublayers

    def sub_layer_subscribe_changes(
        self, subscription: SubLayerSubscription, callback: Callable[[SubLayerChange], object] | None
    ) -> tuple[NtStatus, int]:
        """FwpmSubLayerSubscribeChanges0."""
        _require(subscription, SubLayerSubscription)
        chosen = _matching.chosen_sub_layers
        return self._subscribe("FwpmSubLayerSubscribeChanges0", SubLayer, subscription, chosen, callback)

    def sub_layer_unsubscribe_changes(self, change_handle: int) -> NtStatus:
        """FwpmSubLayerUnsubscribeChanges0."""
        return self._unsubscribe("FwpmSubLayerUnsubscribeChanges0", SubLayer, change_handle)

    def sub_layer_subscriptions_get(self) -> tuple[NtStatus, list[SubLayerSubscription]]:
        """FwpmSubLayerSubscriptionsGet0."""
        return self._subscriptions("FwpmSubLayerSubscriptionsGet0", SubLayer)

    # -- providers

    def provider_subscribe_changes(
        self, subscription: ProviderSubscription, callback: Callable[[ProviderChange], object] | None
    ) -> tuple[NtStatus, int]:
        """FwpmProviderSubscribeChanges0."""
        _require(subscription, ProviderSubscription)
        chosen = _matching.chosen_providers
        return self._subscribe("FwpmProviderSubscribeChanges0", Provider, subscription, chosen, callback)

    def provider_unsubscribe_changes(self, change_handle: int) -> NtStatus:
        """FwpmProviderUnsubscribeChanges0."""
        return self._unsubscribe("FwpmProviderUnsubscribeChanges0", Provider, change_handle)

    def provider_subscriptions_get(self) -> tuple[NtStatus, list[ProviderSubscription]]:
        """FwpmProviderSubscriptionsGet0."""
        return self._subscriptions("FwpmProviderSubscriptionsGet0", Provider)

    # -- provider contexts

    def provider_context_subscribe_changes(
        self,
        subscription: ProviderContextSubscription,
        callback: Callable[[ProviderContextChange], object] | None,
    ) -> tuple[NtStatus, int]:
        """FwpmProviderContextSubscribeChanges0."""
        _require(subscription, ProviderContextSubscription)
        chosen = _matching.chosen_provider_contexts
        call = "FwpmProviderContextSubscribeChanges0"
        return self._subscribe(call, ProviderContext, subscription, chosen, callback)

    def provider_context_unsubscribe_changes(self, change_handle: int) -> NtStatus:
        """FwpmProviderContextUnsubscribeChanges0."""
        return self._unsubscribe("FwpmProviderContextUnsubscribeChanges0", ProviderContext, change_handle)

    def provider_context_subscriptions_get(self) -> tuple[NtStatus, list[ProviderContextSubscription]]:
        """FwpmProviderContextSubscriptionsGet0."""
        return self._subscriptions("FwpmProviderContextSubscriptionsGet0", ProviderContext)

    # -- what they have in common

    def _subscribe(
        self,
        call: str,
        kind: type[Any],
        record: Any,
        chosen: Callable[[Any, str], Callable[[Any], bool]],
        callback: Callable[[Any], object] | None,
    ) -> tuple[NtStatus, int]:
        if callback is not None and not callable(callback):
            raise TypeError(f"{call} takes a function, not {type(callback).__name__}")

        def subscribe() -> int:
            self._require_no_transaction()
            if callback is None:
                raise FwpError(NtStatus.STATUS_FWP_NULL_POINTER, "no callback")
            if not record.flags or record.flags & ~int(NOTIFY_ALWAYS):
                raise FwpError(NtStatus.STATUS_FWP_INVALID_FLAGS, f"flags {record.flags:#x}")
            own_key = replace(record, session_key=self.session_key)
            profile = self._store.run_time.profile
            listener = _Subscription(self, kind, own_key, chosen(record.enum_template, profile), callback)
            self._store.changes.listen(listener)
            return self._store.handles.open(self, listener)

        return self._read(call, subscribe, 0)

    def _unsubscribe(self, call: str, kind: type[Any], handle: int) -> NtStatus:
        def unsubscribe() -> None:
            self._require_no_transaction()
            subscription = self._store.handles.find(self, handle, _Subscription)
            if subscription.kind is not kind:
                raise FwpError(
                    NtStatus.STATUS_INVALID_HANDLE, f"handle {handle} is for {subscription.kind.__name__}"
                )
            self._store.changes.ignore(subscription)
            self._store.handles.close(handle)

        return self._read(call, unsubscribe, None)[0]

    def _subscriptions(self, call: str, kind: type[Any]) -> tuple[NtStatus, list[Any]]:
        return self._read(
            call,
            lambda: [one.record for one in self._store.handles.all_of(_Subscription) if one.kind is kind],
            [],
        )

    def _require_no_transaction(self) -> None:
        if self._transaction is not None:
            raise FwpError(NtStatus.STATUS_FWP_TXN_IN_PROGRESS, "not inside a transaction")

    def _close_handles(self) -> None:
        """The session ends: what it has opened goes, and nobody is told anything more on its behalf."""
        for subscription in self._store.handles.of(self, _Subscription):
            self._store.changes.ignore(subscription)
        self._store.handles.close_all(self)


def _require(subscription: Any, kind: type[Any]) -> None:
    if not isinstance(subscription, kind):
        raise TypeError(f"a fwpm.{kind.__name__} is needed, not {type(subscription).__name__}")
    require_members(subscription)
    if subscription.enum_template is not None:
        require_members(subscription.enum_template)
