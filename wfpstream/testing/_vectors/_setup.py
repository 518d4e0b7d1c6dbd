"""A conformance case's callouts and filters, put in force through management as a driver does.

Owns sublayers, callout objects and filters of a case. It must not know steps, nor what callouts answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import NAMESPACE_OID, UUID, uuid5

from wfpstream.engine import FilterEngine
from wfpstream.fwp import EMPTY, ActionType, CalloutFlags, FwpValue, NtStatus, uint64
from wfpstream.fwpm import (
    LAYER_STREAM_V4,
    LAYER_STREAM_V6,
    SUBLAYER_UNIVERSAL,
    DisplayData,
    Filter,
    SubLayer,
    layer_key_of,
)
from wfpstream.fwpm import Callout as CalloutObject

from ._callout import Scripted

FIRST_SUB_LAYER = 64
"""Weight of the first callout's sublayer; each further one has half."""


class VectorSetup:
    """Adds what a case declares to an engine."""

    def __init__(self, engine: FilterEngine) -> None:
        self._engine = engine
        self._session = engine.session
        self._sub_layers: dict[int, UUID] = {}

    def add_callouts(self, callouts: Iterable[Scripted]) -> None:
        """Register each, and add its filters in a sublayer; raises AssertionError when management refuses."""
        weight = FIRST_SUB_LAYER
        for callout in callouts:
            if not callout.spec.get("managed"):
                self._add_callout(callout, self._sub_layer(callout.spec.get("sublayer", weight)))
                weight //= 2

    def add_filter(self, spec: dict[str, Any]) -> None:
        """A filter without a callout, at both stream layers."""
        where = spec.get("sublayer", "universal")
        key = SUBLAYER_UNIVERSAL if where == "universal" else self._sub_layer(int(where))
        for layer in (LAYER_STREAM_V4, LAYER_STREAM_V6):
            self._add_filter("plain", layer, key, ActionType[spec["action"]], None, spec.get("weight"))

    def _add_callout(self, callout: Scripted, sub_layer: UUID) -> None:
        callout.flags = sum(CalloutFlags[name] for name in callout.spec.get("flags", ()))
        for layer, key, _ in self._engine.fwps.register(callout, callout.name):
            layer_key = layer_key_of(layer)
            assert layer_key is not None, f"{layer.name} has no management key"
            status, _ = self._session.callout_add(
                CalloutObject(
                    callout_key=key, display_data=DisplayData(callout.name), applicable_layer=layer_key
                )
            )
            _check(status, f"callout {callout.name}")
            action = ActionType[callout.filter_action.upper()]
            self._add_filter(callout.name, layer_key, sub_layer, action, key, callout.spec.get("weight"))

    def _add_filter(
        self, name: str, layer: UUID, sub_layer: UUID, action: ActionType, callout: UUID | None, weight: Any
    ) -> None:
        status, _ = self._session.filter_add(
            Filter(
                display_data=DisplayData(name),
                layer_key=layer,
                sub_layer_key=sub_layer,
                weight=_weight(weight),
                action_type=action,
                callout_key=callout,
            )
        )
        _check(status, f"filter {name}")

    def _sub_layer(self, weight: int) -> UUID:
        if weight not in self._sub_layers:
            key = uuid5(NAMESPACE_OID, f"wfpstream vector sublayer {weight}")
            layer = SubLayer(sub_layer_key=key, display_data=DisplayData(f"sublayer {weight}"), weight=weight)
            _check(self._session.sub_layer_add(layer), f"sublayer {weight}")
            self._sub_layers[weight] = key
        return self._sub_layers[weight]


def _weight(value: Any) -> FwpValue:
    return EMPTY if value is None else uint64(int(value))


def _check(status: NtStatus, what: str) -> None:
    if not status.ok:
        raise AssertionError(f"{what}: {status.name}")
