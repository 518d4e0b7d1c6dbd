"""The walk of a connection through the layers before it is a flow (LAY-11..LAY-29).

Owns which layer comes next, what a decision does to the attempt, and going on after a completion. It must not
know sockets: a driver asks for the verdict and says what became of it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from wfpstream.fwp import CalloutFlags, profile_at_least

from . import _stream_state as rules
from ._addresses import is_v6
from ._arbitration import Decision
from ._classify_handle import ClassifyHandles
from ._connection import (
    AUTH_CONNECT,
    AUTH_RECV_ACCEPT,
    CONNECT_REDIRECT,
    Attempt,
    Walk,
    layer_of,
)
from ._constants import LAYERS_BY_NAME
from ._flow import LIVE
from ._pending import Pending, Pendings
from ._records import ClassifyOut
from ._redirect import MAX_REDIRECTS, Lineage, Lineages, Redirection

if TYPE_CHECKING:
    from ._callout import CalloutEntry, CalloutTable
    from ._core import Core
    from ._endpoints import Address, Endpoints
    from ._filter import Filter2
    from ._filter_set import FilterSet
    from ._flow import Flow

_ALLOW_RECLASSIFY = int(CalloutFlags.ALLOW_RECLASSIFY)
_AUTH_LAYERS = frozenset(
    int(layer) for name in (AUTH_CONNECT, AUTH_RECV_ACCEPT) for layer in LAYERS_BY_NAME[name]
)
_REDIRECT_LAYERS = LAYERS_BY_NAME[CONNECT_REDIRECT]
_INBOUND, _OUTBOUND, _OUTBOUND_VISTA = (AUTH_RECV_ACCEPT,), (CONNECT_REDIRECT, AUTH_CONNECT), (AUTH_CONNECT,)


class Connections:
    """The attempts of one engine."""

    def __init__(
        self,
        core: Core,
        callouts: CalloutTable,
        next_handle: Callable[[], int],
        doom: Callable[[Flow, str], None],
    ) -> None:
        self.core = core
        self.callouts = callouts
        self.redirect_handles: dict[int, str | None] = {}  # where each was made, under the verifier
        self.redirections: dict[
            int, Redirection
        ] = {}  # by the handle in the metadata, while their layer lasts
        self.pendings = Pendings(core)
        self.handles = ClassifyHandles(core, next_handle, self.redirect_handles.__contains__)
        self.next_handle = next_handle
        self._doom = doom
        self._lineages = Lineages()
        self._version0_told: set[int] = set()
        # Which ways through the layers have no filter: of the filters that were in force when that was asked last.
        self._silent_in: FilterSet | None = None
        self._silent: dict[tuple[tuple[str, ...], bool], bool] = {}

    # -- the driver's side -------------------------------------------------------------------------------

    def request(self, endpoints: Endpoints) -> Attempt:
        """A connection was accepted: classify it (LAY-11, LAY-12)."""
        core = self.core
        core.last_flow_id += 1
        attempt = Attempt(self, endpoints, core.last_flow_id, core.options.policy.on_block)
        if self._lineages.are_there:
            attempt.lineage = self._lineages.of(endpoints)
            attempt.inherited = bool(attempt.lineage.records)
        if endpoints.local != "client":
            attempt.layers = _INBOUND
        elif profile_at_least(core.options.profile, "win7"):
            attempt.layers = _OUTBOUND
        else:
            attempt.layers = _OUTBOUND_VISTA
        if self._nobody_asks(attempt):
            attempt.layers = ()
            attempt.verdict = "permit"
            return attempt
        self._go_on(attempt)
        if core.events:
            core.deliver_events()
        return attempt

    def _nobody_asks(self, attempt: Attempt) -> bool:
        """No layer on the way of this connection has a filter."""
        filters = self.core.filters
        if filters is not self._silent_in:
            self._silent_in = filters
            self._silent.clear()
        way = (attempt.layers, is_v6(attempt.endpoints))
        known = self._silent.get(way)
        if known is None:
            names, v6 = way
            known = not any(filters.filters_at(LAYERS_BY_NAME[name][v6]) for name in names)
            self._silent[way] = known
        return known

    def connected_from(self, attempt: Attempt, address: Address) -> None:
        """LAY-29: remember which redirects the upstream leg carries."""
        if attempt.lineage.records:
            lives = partial(self._lives, attempt)
            self._lineages.note(address, attempt.upstream, attempt.lineage, lives)

    def _lives(self, attempt: Attempt) -> bool:
        return not attempt.over or attempt.flow_id in self.core.flows

    def failed(self, attempt: Attempt, reason: str) -> None:
        """LAY-12."""
        if attempt.over:
            return
        attempt.over = True
        self._emit_failed(attempt.endpoints, reason)

    def refuse(self, endpoints: Endpoints, reason: str) -> None:
        """The driver does not let this connection go anywhere: no layer is asked about it."""
        self._emit_failed(endpoints, reason)
        self.core.deliver_events()

    def _emit_failed(self, endpoints: Endpoints, reason: str) -> None:
        if self.core.sinks:
            self.core.emit(
                "connect_failed",
                None,
                listener=endpoints.listener,
                client=list(endpoints.client),
                reason=reason,
            )

    def forget(self, attempt: Attempt) -> None:
        """LAY-17: a reset of the client ends the wait; what the callout does later has no effect."""
        attempt.over = True
        if attempt.pending is not None:
            self.pendings.drop(attempt.pending)
        if attempt.verdict == "pended":
            attempt.verdict = "block"
            self._abandon(attempt)

    def stop(self) -> None:
        """The engine stops: V-59, V-60 and V-39 for what is still open."""
        self.pendings.stop()
        self.handles.stop()
        for handle, site in sorted(self.redirect_handles.items()):
            self.core.violation("V-39", f"engine stopped with redirect handle {handle} open", where=site)

    # -- the walk ----------------------------------------------------------------------------------------

    def _go_on(self, attempt: Attempt) -> None:
        while attempt.layers and attempt.verdict == "pended":
            walk = attempt.walk or self._begin(attempt, attempt.layers[0])
            if walk is not None:
                if not walk.run():
                    return
                self._leave(attempt, walk)
            attempt.layers = attempt.layers[1:]
        if attempt.verdict == "pended":
            attempt.verdict = "permit"

    def _begin(self, attempt: Attempt, name: str) -> Walk | None:
        """The arbitration of a layer; None when no filter is there to ask."""
        layer = layer_of(attempt, name)
        filters = self.core.filters
        if not filters.filters_at(layer):
            return None
        if name != CONNECT_REDIRECT and not filters.candidates(layer, attempt.endpoints.listener):
            return None
        attempt.endpoint_handle = attempt.endpoint_handle or self.next_handle()
        if name == CONNECT_REDIRECT:
            for filter in filters.filters_at(layer):
                self._lint_version(filter)
            attempt.redirection = Redirection(self.core, attempt.endpoints, attempt.lineage)
            attempt.records_handle = self.next_handle()
            self.redirections[attempt.records_handle] = attempt.redirection
        else:
            attempt.completion_handle = self.next_handle()
        attempt.walk = walk = Walk(self, self.core, self.callouts, attempt, name, self.next_handle())
        return walk

    def after_callout(self, walk: Walk, filter: Filter2, entry: CalloutEntry, out: ClassifyOut) -> None:
        """A callout of the layer has returned: what it pended, and what it left of its handle (LAY-25, V-64)."""
        pending = walk.attempt.pending
        if pending is None:
            self.handles.after_classify(walk, filter)
            return
        absorbs = pending.by_handle or out.flags & rules.ABSORB
        if out.action_type != rules.PLAIN_BLOCK or not absorbs:
            walk.tell("V-64", f"{entry.name} pended and did not answer BLOCK with ABSORB", filter, entry)

    def after_fault(self, walk: Walk, filter: Filter2, entry: CalloutEntry) -> None:
        """ACT-14: what it pended before it raised is void."""
        attempt = walk.attempt
        pending = attempt.pending
        if pending is not None:
            attempt.pending = None
            self.pendings.drop(pending)
            self._unpend(pending)
        self.handles.after_classify(walk, filter)

    def _leave(self, attempt: Attempt, walk: Walk) -> None:
        """A layer is decided."""
        attempt.walk = None
        attempt.reauthorizing = False
        self.handles.after_layer(walk)
        verdict = walk.verdict  # after that, for what is found there may count under `strict`
        if verdict.action == rules.BLOCK:
            self._block(attempt, walk, verdict.filter_id, verdict.callout_name)
        elif walk.layer_name == CONNECT_REDIRECT:
            self._redirect(attempt, walk)
        self._close_redirection(attempt)

    def _redirect(self, attempt: Attempt, walk: Walk) -> None:
        """LAY-26, LAY-29: the upstream is where the current version says."""
        redirection = attempt.redirection
        assert redirection is not None
        current = redirection.current
        attempt.upstream = current.remote_address_and_port
        attempt.redirect_context = current.local_redirect_context
        attempt.redirect_target_pid = current.local_redirect_target_pid
        hops = attempt.lineage.hops + redirection.redirected
        attempt.lineage = Lineage(tuple(redirection.records), hops)
        if redirection.redirected and hops >= MAX_REDIRECTS and redirection.modifier is not None:
            self._block(attempt, walk, *redirection.modifier)

    def _close_redirection(self, attempt: Attempt) -> None:
        self.redirections.pop(attempt.records_handle, None)
        attempt.redirection = None

    def _block(self, attempt: Attempt, walk: Walk, filter_id: int, callout: str | None) -> None:
        """LAY-21."""
        attempt.verdict = "block"
        attempt.over = True
        if self.core.sinks:
            self.core.emit(
                "flow_blocked",
                None,
                listener=attempt.endpoints.listener,
                client=list(attempt.endpoints.client),
                layer=layer_of(attempt, walk.layer_name).name.lower(),
                callout=callout,
                filter=filter_id,
            )

    # -- pending -----------------------------------------------------------------------------------------

    def pend(self, walk: Walk, key: int, by_handle: bool) -> None:
        """The callout on the stack pends the connection (LAY-17, LAY-23)."""
        assert walk.current is not None
        pending = Pending(key, by_handle, walk, *walk.current)
        walk.pended = True
        walk.attempt.pending = pending
        self.pendings.begin(pending, lambda: self._gave_up(walk, pending))

    def completed(self, walk: Walk, pending: Pending) -> None:
        """It is completed: the wait is over, the caller says how it goes on."""
        self.pendings.finish(pending)
        walk.attempt.pending = None

    def authorize_again(self, walk: Walk) -> None:
        """LAY-19, LAY-23: from the top with IS_REAUTHORIZE."""
        self._later(walk, walk.restart)

    def answer_later(self, walk: Walk, pending: Pending, action_type: int, rights: int) -> None:
        """LAY-23: the callout's final decision; the filters after it are asked next, seeing IS_REAUTHORIZE."""
        self._later(walk, lambda: walk.answer(pending.filter, pending.entry, action_type, rights))

    def request_reinjected(self, walk: Walk, pending: Pending) -> None:
        """LAY-19: the request goes on, permitted as far as this callout is concerned; no reauthorisation."""
        permit = Decision(rules.PERMIT, False, pending.filter, pending.entry)
        self._later(walk, lambda: walk.decide(permit), reauthorizing=False)

    def request_discarded(self, walk: Walk, pending: Pending) -> None:
        """LAY-19: nobody is left to ask."""

        def discard() -> None:
            walk.attempt.walk = None
            self.handles.after_layer(walk)
            self._block(walk.attempt, walk, pending.filter.filter_id, pending.entry.name)

        self._later(walk, discard, reauthorizing=False)

    def _later(self, walk: Walk, step: Callable[[], None], reauthorizing: bool = True) -> None:
        """CMP-16: classifies never nest, so the connection goes on in the next turn."""
        self.core.at(self.core.clock(), lambda: self._resume(walk, step, reauthorizing))

    def _resume(self, walk: Walk, step: Callable[[], None], reauthorizing: bool) -> None:
        attempt = walk.attempt
        if attempt.over:
            return
        walk.renew()
        attempt.reauthorizing = reauthorizing
        step()
        self._go_on(attempt)
        self._tell(attempt)

    def _gave_up(self, walk: Walk, pending: Pending) -> None:
        """LAY-14: nobody completed it in time."""
        attempt = walk.attempt
        self._block(attempt, walk, pending.filter.filter_id, pending.entry.name)
        self._abandon(attempt)
        self._tell(attempt)

    def _abandon(self, attempt: Attempt) -> None:
        """The connection ended while it was pended."""
        pending, walk = attempt.pending, attempt.walk
        attempt.pending = attempt.walk = None
        if pending is not None:
            self._unpend(pending)
        if walk is not None:
            self.handles.after_layer(walk)
        self._close_redirection(attempt)

    def _unpend(self, pending: Pending) -> None:
        """There will be no completion to drop the reference of FwpsPendClassify0."""
        if pending.by_handle:
            handle = self.handles.find(pending.key)
            assert handle is not None
            self.handles.unpend(handle, over=True)

    def _tell(self, attempt: Attempt) -> None:
        self.core.deliver_events()
        if attempt.verdict != "pended":
            attempt.on_verdict()

    # -- policy changes ----------------------------------------------------------------------------------

    def policy_changed(self, new: FilterSet) -> None:
        """A commit, just before it is in force: V-62 for new filters, LAY-20 for established flows."""
        old = self.core.filters
        for layer in _REDIRECT_LAYERS:
            for filter in new.filters_at(layer):
                self._lint_version(filter)
        if not self.core.options.reauthorize:
            return
        layers = {layer for layer in _AUTH_LAYERS if _ids(old, layer) != _ids(new, layer)}
        if layers:
            self.core.at(self.core.clock(), lambda: self._reauthorize(layers))

    def _lint_version(self, filter: Filter2) -> None:
        """V-62: a version-0 callout gets no classifyContext, so it cannot redirect (LAY-22)."""
        entry = self.callouts.registered_id(filter.callout_id)
        if entry is not None and entry.version == 0 and filter.filter_id not in self._version0_told:
            self._version0_told.add(filter.filter_id)
            self.core.violation(
                "V-62",
                f"version-0 callout {entry.name} at CONNECT_REDIRECT",
                entry=entry,
                filter_id=filter.filter_id,
            )

    def _reauthorize(self, layers: set[int]) -> None:
        for flow in list(self.core.flows.values()):
            if flow.phase != LIVE or flow.doomed is not None:
                continue
            name = AUTH_CONNECT if flow.endpoints.local == "client" else AUTH_RECV_ACCEPT
            attempt = Attempt(self, flow.endpoints, flow.id, "rst")
            if layer_of(attempt, name) not in layers:
                continue
            attempt.upstream = flow.upstream
            attempt.redirect_context = flow.redirect_context
            attempt.reauthorizing = True
            self._classify_again(flow, attempt, name)

    def _classify_again(self, flow: Flow, attempt: Attempt, name: str) -> None:
        """LAY-20: one classification; CFN-5: only of callouts that allow it. A block aborts the flow (DRP-2)."""
        walk = self._begin(attempt, name)
        if walk is None:
            return
        walk.flow = flow
        walk.required_flags = _ALLOW_RECLASSIFY
        walk.run()
        self.handles.after_layer(walk)
        if walk.verdict.action == rules.BLOCK:
            self._doom(flow, "drop")


def _ids(filters: FilterSet, layer: int) -> list[int]:
    return [filter.filter_id for filter in filters.filters_at(layer)]
