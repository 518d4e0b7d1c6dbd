"""FLOW_ESTABLISHED: a connection becomes a flow (LAY-4..LAY-8).

Owns the classification of that layer and the birth of a flow. It must not know how the connection was authorised.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from wfpstream.fwp import NtStatus

from . import _stream_state as rules
from ._addresses import flow_established_values, is_v6, layer_for, local_and_remote, stream_values
from ._arbitration import Arbitration
from ._constants import MetadataField
from ._flow import ABORT_NOW, ENDED, LIVE, Flow
from ._records import ClassifyOut, IncomingMetadataValues, IncomingValues

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
        flow = Flow(self.inputs, attempt.flow_id, endpoints, layer_for("stream", v6), core.next_tick())
        flow.upstream = attempt.upstream
        flow.redirect_context = attempt.redirect_context
        flow.established_at = flow.activity = core.clock()
        flow.stream_values = IncomingValues(flow.layer_id, stream_values(endpoints, core.options.profile))
        core.flows[flow.id] = flow
        layer = layer_for("ale_flow_established", v6)
        arbitration = self._arbitration(flow, layer)
        arbitration.run()
        if arbitration.verdict.action == rules.BLOCK or flow.doomed is not None:
            self._refuse(flow, arbitration, layer.name.lower())
            return None
        flow.phase = LIVE
        self.pipeline.build(flow)
        if core.sinks:
            self._emit(flow, layer.name.lower())
        core.mark(flow)
        core.settle()
        core.after_outside_call(flow)
        return flow

    def _arbitration(self, flow: Flow, layer: int) -> Arbitration:
        endpoints = flow.endpoints
        values = IncomingValues(layer, flow_established_values(endpoints))

        def meta() -> IncomingMetadataValues:
            made = IncomingMetadataValues(_METADATA)
            made.flow_handle = flow.id
            made.compartment_id = 1
            made.listener = endpoints.listener
            made.upstream_address = flow.upstream
            made.redirect_context = flow.redirect_context
            return made

        arbitration = Arbitration(
            self.core,
            self.callouts,
            layer,
            lambda: values,
            meta,
            lambda: None,
            None,
            flow,
            endpoints.listener,
        )
        arbitration.after_callout = partial(self._lint, arbitration)
        return arbitration

    def _lint(self, arbitration: Arbitration, filter: Filter2, entry: CalloutEntry, out: ClassifyOut) -> None:
        """V-44: neither Block nor Permit belongs here (LAY-6)."""
        hinted = out.action_type == rules.PLAIN_PERMIT and self.core.options.verify.hints
        if out.action_type == rules.PLAIN_BLOCK or hinted:
            arbitration.tell("V-44", f"{entry.name} decides at FLOW_ESTABLISHED", filter, entry)

    def _refuse(self, flow: Flow, arbitration: Arbitration, layer: str) -> None:
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
