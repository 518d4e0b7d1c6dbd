"""From a configuration to an engine with its objects, in one transaction: all of it, or nothing.

Owns the order of the management calls; what to add is `_plan`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from wfpstream.config._callout_text import CalloutText
from wfpstream.config._errors import KeyPath, Problem
from wfpstream.config._load import LoadedConfig
from wfpstream.config._matching import Invalid
from wfpstream.config._plan import Plan, PlannedCallout, PlannedFilter, PlannedSubLayer, make_plan
from wfpstream.config._settings import engine_options
from wfpstream.engine import FilterEngine
from wfpstream.fwp import NtStatus
from wfpstream.fwpm import (
    Callout,
    CalloutFlags,
    DisplayData,
    Filter,
    Session,
    SubLayer,
    layer_key_of,
)


def _stopped() -> float:
    return 0.0


def build_engine(
    loaded: LoadedConfig,
    callouts: Sequence[CalloutText] = (),
    clock: Callable[[], float] = _stopped,
) -> FilterEngine:
    """Make an engine as a configuration wants it.

    Args:
        loaded: the configuration.
        callouts: callouts of the command line, each in its own sublayer, asked before the file's rules.
        clock: monotonic seconds; without one time stands still, which is enough to look at the engine.

    Raises:
        ConfigError: something in it cannot be used; every such thing is named, and nothing was left behind.
    """
    plan = make_plan(loaded, callouts)
    engine = FilterEngine(clock, engine_options(loaded.config))
    try:
        _apply(plan, engine)
    except Invalid as error:
        raise loaded.error(list(error.problems)) from error
    return engine


def _apply(plan: Plan, engine: FilterEngine) -> None:
    """Add everything in one transaction; what was registered for one that fails is unregistered."""
    _, session = engine.management.engine_open()
    if session is None:
        raise Invalid([Problem((), "the engine takes no changes now")])
    builder = _Builder(engine, session)
    try:
        _require((), "transaction_begin", session.transaction_begin())
        for callout in plan.callouts:
            builder.add_callout(callout)
        for sub_layer in plan.sub_layers:
            builder.add_sub_layer(sub_layer)
        for one in plan.filters:
            builder.add_filter(one)
        _require((), "transaction_commit", session.transaction_commit())
    except Invalid:
        session.transaction_abort()
        builder.unregister()
        raise
    finally:
        session.engine_close()


class _Builder:
    def __init__(self, engine: FilterEngine, session: Session) -> None:
        self._fwps = engine.fwps
        self._session = session
        # (callout name, layer) to the key it was registered under (REG-9).
        self._keys: dict[tuple[str, UUID], UUID] = {}

    def add_callout(self, planned: PlannedCallout) -> None:
        """Register the object, and add it, once per layer and family."""
        try:
            made = self._fwps.register(planned.object, planned.name)
        except ValueError as error:
            raise Invalid([Problem(planned.path, str(error))]) from error
        for layer_id, key, _ in made:
            layer = layer_key_of(layer_id)
            if layer is None:
                raise Invalid([Problem(planned.path, f"there is no layer {layer_id!r}")])
            self._keys[planned.name, layer] = key
            # MGMT-18: what the configuration adds gets its filters' options.
            record = Callout(
                callout_key=key,
                display_data=DisplayData(planned.name),
                flags=CalloutFlags.USES_PROVIDER_CONTEXT,
                applicable_layer=layer,
            )
            _require(planned.path, "callout_add", self._session.callout_add(record)[0])

    def add_sub_layer(self, planned: PlannedSubLayer) -> None:
        """Add one sublayer."""
        record = SubLayer(
            sub_layer_key=planned.key, display_data=DisplayData(planned.name), weight=planned.weight
        )
        _require(planned.path, "sub_layer_add", self._session.sub_layer_add(record))

    def add_filter(self, planned: PlannedFilter) -> None:
        """Add one filter at one layer."""
        callout = planned.callout
        record = Filter(
            display_data=DisplayData(planned.name),
            flags=planned.flags,
            layer_key=planned.layer.key,
            sub_layer_key=planned.sub_layer,
            weight=planned.weight,
            conditions=planned.conditions,
            action_type=planned.action,
            callout_key=self._keys[callout.name, planned.layer.key] if callout else None,
            provider_object=planned.options,
        )
        _require(planned.path, "filter_add", self._session.filter_add(record)[0])

    def unregister(self) -> None:
        """Take the registrations back; nothing has been classified yet, so nothing holds them."""
        for key in self._keys.values():
            self._fwps.callout_unregister_by_key(key)


def _require(path: KeyPath, call: str, status: NtStatus) -> None:
    if not status.ok:
        raise Invalid([Problem(path, f"{call} was refused: {status.name}")])
