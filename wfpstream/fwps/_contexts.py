"""Flow contexts: associate, remove, and flowDeleteFn exactly once for each (section 17).

Owns which contexts exist and when their deletion runs. It must not know what a context means to its callout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wfpstream.fwp import NtStatus

from ._constants import LAYERS_BY_NAME
from ._core import Frame
from ._flow import ENDED, ENDING
from ._violations import CALLOUT_FAULTS

if TYPE_CHECKING:
    from ._callout import CalloutEntry, CalloutTable
    from ._core import Core
    from ._flow import Flow
    from ._tracking import Tracking
    from ._waterfall import Waterfall

# Layers at which a flow may carry a context: those that see an established flow (FAC).
_FLOW_LAYERS = frozenset(
    int(layer) for name in ("stream", "ale_flow_established") for layer in LAYERS_BY_NAME[name]
)


class Contexts:
    """The flow contexts of one engine."""

    def __init__(self, core: Core, callouts: CalloutTable, waterfall: Waterfall, tracking: Tracking) -> None:
        self.core = core
        self.callouts = callouts
        self.waterfall = waterfall
        self.tracking = tracking
        waterfall.classifier.after_classify = self.finish_removals

    def associate(self, flow_id: int, layer_id: int, callout_id: int, context: int) -> NtStatus:
        """FwpsFlowAssociateContext0 (CTX-1..CTX-7)."""
        if not isinstance(context, int):
            raise TypeError("a flow context is an integer; track(obj) gives one for a Python object")
        entry = self.callouts.registered_id(callout_id)
        rule = self._refusal(entry, layer_id, callout_id, context)
        if rule is not None:
            if rule in ("CTX-2", "CTX-3"):
                text = "Associate with 0, or for a callout without flowDeleteFn"
                self.core.violation("V-48", text, flow=self.core.flows.get(flow_id), entry=entry)
            return self._refused("flow_associate_context", NtStatus.STATUS_INVALID_PARAMETER, rule)
        flow = self.core.flows.get(flow_id)
        if flow is None or flow.doomed is not None or flow.phase >= ENDED - 1:
            return self._refused("flow_associate_context", NtStatus.STATUS_FWP_NOT_FOUND, "CTX-5")
        key = (layer_id, callout_id)
        assert entry is not None
        if key in flow.contexts:
            self.tracking.refused(context, flow, entry)
            return self._refused("flow_associate_context", NtStatus.STATUS_OBJECT_NAME_EXISTS, "CTX-6", flow)
        flow.contexts[key] = context
        if self.tracking.verifying:
            self.tracking.stored(context)
        entry.contexts += 1
        if flow.stages:
            self._refresh(flow, callout_id)
        return NtStatus.STATUS_SUCCESS

    def _refusal(
        self, entry: CalloutEntry | None, layer_id: int, callout_id: int, context: int
    ) -> str | None:
        if context == 0:
            return "CTX-2"
        if entry is not None and entry.flow_delete_fn is None:
            return "CTX-3"
        known = entry is not None and (callout_id, layer_id) in self.core.filters.added_callouts
        return None if known and layer_id in _FLOW_LAYERS else "CTX-4"

    def remove(self, flow_id: int, layer_id: int, callout_id: int) -> NtStatus:
        """FwpsFlowRemoveContext0 (CTX-9..CTX-13)."""
        flow = self.core.flows.get(flow_id)
        key = (layer_id, callout_id)
        if flow is None or key not in flow.contexts or key in flow.removing:
            return self._refused("flow_remove_context", NtStatus.STATUS_UNSUCCESSFUL, "CTX-9", flow)
        frame = self.core.frame
        if (
            frame is not None
            and frame.kind == "classify"
            and frame.flow is flow
            and frame.callout_id == callout_id
        ):
            flow.removing |= {key}
            flow.plain = 0
            return NtStatus.STATUS_PENDING  # CTX-11
        self._delete(flow, key)
        return NtStatus.STATUS_SUCCESS

    def remove_all_of(self, callout_id: int) -> None:
        """Remove every context of one callout, on every flow: what a driver does before it unregisters (UNR-8)."""
        for flow in list(self.core.flows.values()):
            for layer_id, owner in list(flow.contexts):
                if owner == callout_id:
                    self.remove(flow.id, layer_id, callout_id)

    def finish_removals(self, flow: Flow) -> None:
        """CTX-11: the classify returned and its answer was applied."""
        for key in sorted(flow.removing):
            self._delete(flow, key)

    def delete_all(self, flow: Flow) -> None:
        """CTX-16, CTX-21: at flow end, in stage order, then the other layers'."""
        contexts = flow.contexts
        if contexts:
            for stage in flow.stages:
                key = (flow.layer_id, stage.filter.callout_id)
                if key in contexts:
                    self._delete(flow, key)
            for key in sorted(contexts) if contexts else ():
                self._delete(flow, key)
        if self.tracking.verifying:
            self.tracking.flow_over(flow)

    def _delete(self, flow: Flow, key: tuple[int, int]) -> None:
        layer_id, callout_id = key
        context = flow.contexts.pop(key)
        if flow.removing:
            flow.removing -= {key}
        entry = self.callouts.find_id(callout_id)
        assert entry is not None
        entry.contexts -= 1
        if flow.phase < ENDING:  # else nothing is asked any more
            self._refresh(flow, callout_id)
        if entry.flow_delete_fn is None:
            return
        core = self.core
        began = core.overruns.since = core.clock()
        outer, core.frame = core.frame, Frame("flow_delete", flow, None, callout_id)
        core.callbacks += 1
        tracking = self.tracking
        before = tracking.deleting(context) if tracking.verifying else None
        try:
            entry.flow_delete_fn(layer_id, callout_id, context)
        except CALLOUT_FAULTS as error:
            core.violation("V-40", f"{type(error).__name__} out of flowDeleteFn: {error}", error=error)
        finally:
            core.frame = outer
            if tracking.verifying:
                tracking.deleting(before)
        if tracking.verifying:
            tracking.deleted(context, flow, entry)
        core.overruns.ended(flow if flow.phase < ENDING else None, entry.name, entry.flow_delete_fn, began)
        if core.times_callbacks:
            core.check_budget("flowDeleteFn", began, None, entry)

    def _refresh(self, flow: Flow, callout_id: int) -> None:
        """CTX-19: a CONDITIONAL_ON_FLOW stage begins or ends with its context; what it held goes on (NMD-15)."""
        for stage in flow.stages:
            if stage.filter.callout_id != callout_id:
                continue
            stage.refresh()
            self.waterfall.stage_changed(flow, stage)

    def _refused(self, call: str, status: NtStatus, rule: str, flow: Flow | None = None) -> NtStatus:
        return self.core.refused(call, status, rule, flow)
