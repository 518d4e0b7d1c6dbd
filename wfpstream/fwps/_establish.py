"""FLOW_ESTABLISHED: a connection becomes a flow (LAY-4..LAY-8).

Owns the classification of that layer and the birth of a flow. It must not know how the connection was authorised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfpstream.fwp import NtStatus

from . import _stream_state as rules
from ._addresses import flow_established_values, is_v6, local_and_remote, stream_values
from ._arbitration import Arbitration
from ._constants import LAYERS_BY_NAME, MetadataField
from ._flow import ABORT_NOW, ENDED, LIVE, Flow
from ._records import ClassifyOut, IncomingMetadataValues, LaterValues

if TYPE_CHECKING:
    from ._callout import CalloutEntry, CalloutTable
    from ._connection import Attempt
    from ._contexts import Contexts
    from ._core import Core
    from ._endpoints import Endpoints
    from ._filter import Filter2
    from ._inputs import Inputs
    from ._pipeline import Pipeline

_METADATA = int(MetadataField.FLOW_HANDLE | MetadataField.COMPARTMENT_ID)  # MET-2: only what we can fill
_STREAM_LAYERS, _ESTABLISHED_LAYERS = LAYERS_BY_NAME["stream"], LAYERS_BY_NAME["ale_flow_established"]


class Establishing(Arbitration):
    """The classification of FLOW_ESTABLISHED for one flow."""

    __slots__ = ("established",)

    def __init__(self, core: Core, callouts: CalloutTable, layer: int, flow: Flow) -> None:
        super().__init__(core, callouts, layer, None, flow, flow.number, flow.endpoints.listener)
        self.established = flow

    def make_values(self) -> LaterValues:
        """FLD-1..FLD-10."""
        return LaterValues(self.layer_id, flow_established_values, self.established.endpoints)

    def make_meta(self) -> IncomingMetadataValues:
        """MET-2, and the extensions of MET-5."""
        flow = self.established
        made = IncomingMetadataValues(_METADATA)
        made.flow_handle = flow.id
        made.compartment_id = 1
        made.listener = self.listener
        made.upstream_address = flow.upstream
        made.redirect_context = flow.redirect_context
        return made

    def after_callout(self, filter: Filter2, entry: CalloutEntry, out: ClassifyOut) -> None:
        """V-44: neither Block nor Permit belongs here (LAY-6)."""
        hinted = out.action_type == rules.PLAIN_PERMIT and self.core.options.verify.hints
        if out.action_type == rules.PLAIN_BLOCK or hinted:
            self.tell("V-44", f"{entry.name} decides at FLOW_ESTABLISHED", filter, entry)


class Establisher:
    """Turns attempts into flows; one per engine."""

    def __init__(
        self, core: Core, callouts: CalloutTable, inputs: Inputs, pipeline: Pipeline, contexts: Contexts
    ) -> None:
        self.core = core
        self.callouts = callouts
        self.inputs = inputs
        self.pipeline = pipeline
        self.contexts = contexts

    def establish(self, attempt: Attempt, endpoints: Endpoints) -> Flow | None:
        """Both legs are connected. None: a callout blocked it, the driver resets both legs (LAY-6)."""
        core = self.core
        attempt.over = True
        v6 = is_v6(endpoints)
        flow = Flow(self.inputs, attempt.flow_id, endpoints, _STREAM_LAYERS[v6], core.next_tick())
        flow.upstream = attempt.upstream
        flow.redirect_context = attempt.redirect_context
        flow.established_at = flow.activity = core.clock()
        flow.stream_values = LaterValues(flow.layer_id, stream_values, endpoints, core.options.profile)
        core.flows[flow.id] = flow
        layer = _ESTABLISHED_LAYERS[v6]
        candidates = core.filters.candidates(layer, endpoints.listener)
        if candidates:
            arbitration = Establishing(core, self.callouts, layer, flow)
            if len(candidates) == 1:
                arbitration.run_alone()
            else:
                arbitration.run()
            if arbitration.verdict.action == rules.BLOCK or flow.doomed is not None:
                self._refuse(flow, arbitration, layer.name.lower())
                return None
        flow.phase = LIVE
        self.pipeline.build(flow)
        if core.sinks:
            self._emit(flow, layer.name.lower())
        self._settle(flow)
        return flow

    def _settle(self, flow: Flow) -> None:
        """A new flow has nothing to move, unless a callback of its establishment has left something."""
        core = self.core
        if core.dirty or core.due or core.ending:
            core.mark(flow)
            core.settle()
        elif core.events:
            core.deliver_events()
        if core.touched:
            core.after_outside_call(flow)

    def _refuse(self, flow: Flow, arbitration: Establishing, layer: str) -> None:
        core = self.core
        flow.end_reason = "drop"
        flow.end_status = NtStatus.STATUS_CONNECTION_ABORTED
        flow.abort = ABORT_NOW
        self.contexts.delete_all(flow)
        flow.phase = ENDED
        core.flows.pop(flow.id, None)
        if core.sinks:
            core.emit(
                "flow_blocked",
                flow,
                listener=flow.endpoints.listener,
                client=list(flow.endpoints.client),
                layer=layer,
                callout=arbitration.verdict.callout_name,
                filter=arbitration.verdict.filter_id,
            )
        core.settle()
        core.deliver_events()

    def _emit(self, flow: Flow, layer: str) -> None:
        local, remote = local_and_remote(flow.endpoints)
        self.core.emit(
            "flow_established",
            flow,
            listener=flow.endpoints.listener,
            client=list(flow.endpoints.client),
            server=list(flow.upstream),
            local=list(local),
            remote=list(remote),
            layer=layer,
        )
