"""Objects of an engine changed in one transaction: all of it, or nothing.

Owns the order of the management calls, and the registered code behind callout objects. What is to change is `_steps`',
why is nobody's here.
"""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from wfpstream.config._errors import KeyPath, Problem
from wfpstream.config._matching import Invalid
from wfpstream.config._planned import PlannedCallout, PlannedFilter, PlannedSubLayer
from wfpstream.config._steps import Steps
from wfpstream.engine import FilterEngine
from wfpstream.fwp import NtStatus
from wfpstream.fwpm import Callout, CalloutFlags, DisplayData, Filter, Session, SubLayer, layer_key_of


class Refused(Invalid):
    """Management refused a call."""

    def __init__(self, path: KeyPath, call: str, status: NtStatus, text: str = "") -> None:
        self.status = status
        super().__init__([Problem(path, text or f"{call} was refused: {status.name}")])


class Busy(Refused):
    """The transaction could not begin: nothing was tried."""


class Objects:
    """What a configuration has made of an engine.

    Attributes:
        filter_ids: by key.
        ages: when each sublayer and filter was added, by key; larger is later.
    """

    def __init__(self, engine: FilterEngine) -> None:
        self.filter_ids: dict[UUID, int] = {}
        self.ages: dict[UUID, int] = {}
        self._engine = engine
        # Of each callout object the key at each layer (REG-9).
        self._keys: dict[PlannedCallout, dict[UUID, UUID]] = {}
        self._successors: Counter[str] = Counter()
        self._clock = 0

    def change(self, steps: Steps, *, drain: bool = True) -> None:
        """Carry the steps out.

        Args:
            steps: what to do.
            drain: filters that go finish what they hold (MGMT-16); if not, a busy one refuses it all.

        Raises:
            Invalid: something was refused; everything is as it was.
        """
        registered: dict[PlannedCallout, dict[UUID, UUID]] = {}
        try:
            added = self._change(steps, registered, drain)
        except Busy:
            raise
        except BaseException:
            for one in steps.callouts_in:
                self._engine.release_callout(one.object)
            raise
        self._note(steps, registered, added)

    def deleted_by_others(self) -> set[UUID]:
        """Keys of the filters and sublayers that are no longer there, though nobody here has deleted them."""
        _, session = self._engine.management.engine_open()
        if session is None:
            return set()
        _, filters = session.filter_enum()
        _, sub_layers = session.sub_layer_enum()
        session.engine_close()
        there = {one.filter_id for one in filters if not one.retiring}
        gone = {key for key, filter_id in self.filter_ids.items() if filter_id not in there}
        return gone | self.ages.keys() - self.filter_ids.keys() - {one.sub_layer_key for one in sub_layers}

    def delete_foreign(self, filter_id: int, *, drain: bool) -> NtStatus:
        """Delete a filter that is not ours."""
        _, session = self._engine.management.engine_open()
        if session is None:
            return NtStatus.STATUS_INVALID_HANDLE
        remove = session.filter_retire_by_id if drain else session.filter_delete_by_id
        status = remove(filter_id)
        session.engine_close()
        return status

    def _change(
        self, steps: Steps, registered: dict[PlannedCallout, dict[UUID, UUID]], drain: bool
    ) -> dict[UUID, int]:
        """The transaction; the ids of the filters that are new. Closing the session aborts one that fails (OBJ-1)."""
        _, session = self._engine.management.engine_open()
        if session is None:
            raise Busy((), "", NtStatus.STATUS_INVALID_HANDLE, "the engine takes no changes now")
        try:
            _begin(session)
            for one in steps.callouts_in:
                registered[one] = self._register(one)
            added = self._change_in(session, steps, self._keys | registered, drain)
            _require((), "transaction_commit", session.transaction_commit())
        finally:
            session.engine_close()
        return added

    def _change_in(
        self, session: Session, steps: Steps, keys: dict[PlannedCallout, dict[UUID, UUID]], drain: bool
    ) -> dict[UUID, int]:
        """The calls of the transaction; the ids of the filters that are new."""
        remove = session.filter_retire_by_key if drain else session.filter_delete_by_key
        for one in steps.filters_out:
            _require_gone(one.path, "filter_delete", remove(one.key))
        for sub_layer in steps.sub_layers_out:
            status = session.sub_layer_delete_by_key(sub_layer.key)
            _require_gone(sub_layer.path, "sub_layer_delete", status)
        for callout in steps.callouts_in:
            _add_callout(session, callout, keys[callout])
        for sub_layer in steps.sub_layers_in:
            _require(sub_layer.path, "sub_layer_add", session.sub_layer_add(_sub_layer_record(sub_layer)))
        added = {}
        for one in steps.filters_in:
            callout_key = keys[one.callout][one.layer.key] if one.callout is not None else None
            status, filter_id = session.filter_add(_filter_record(one, callout_key))
            if not status.ok:
                why = self._engine.fwps.why_refused(status)
                raise Refused(one.path, "filter_add", status, f"filter_add was refused: {status.name}{why}")
            added[one.key] = filter_id
        return added

    def _register(self, planned: PlannedCallout) -> dict[UUID, UUID]:
        """Register the code of a callout; its key at each layer."""
        number = self._successors[planned.owner]
        self._successors[planned.owner] += 1
        key_name = None
        if planned.owner != f"callout/{planned.name}" or number:
            key_name = f"{planned.owner}/{number}"
        try:
            made = self._engine.fwps.register(planned.object, planned.name, key_name)
        except ValueError as error:
            raise Invalid([Problem(planned.path, str(error))]) from error
        except (Exception, SystemExit) as error:  # out of its `on_registered`
            text = f"{planned.name}: {type(error).__name__}: {error}".rstrip(": ")
            raise Invalid([Problem(planned.path, text)]) from error
        keys = {}
        for layer_id, key, _ in made:
            layer = layer_key_of(layer_id)
            if layer is None:
                raise Invalid([Problem(planned.path, f"there is no layer {layer_id!r}")])
            keys[layer] = key
        return keys

    def _note(
        self, steps: Steps, registered: dict[PlannedCallout, dict[UUID, UUID]], added: dict[UUID, int]
    ) -> None:
        """Remember what is there now, and let go of what is not."""
        for one in steps.filters_out:
            self.filter_ids.pop(one.key, None)
        for gone in steps.gone:
            self.ages.pop(gone.key, None)
        for come in steps.come:
            self._clock += 1
            self.ages[come.key] = self._clock
        self.filter_ids |= added
        self._keys |= registered
        for callout in steps.callouts_out:
            del self._keys[callout]
            self._engine.release_callout(callout.object)


def _begin(session: Session) -> None:
    status = session.transaction_begin()
    if status is NtStatus.STATUS_PENDING:
        text = "another session has a transaction open; nothing was done, try again"
        raise Busy((), "", NtStatus.STATUS_FWP_TIMEOUT, text)
    _require((), "transaction_begin", status)


def _add_callout(session: Session, planned: PlannedCallout, keys: dict[UUID, UUID]) -> None:
    for layer, key in keys.items():
        # MGMT-18: what the configuration adds gets its filters' options.
        record = Callout(
            callout_key=key,
            display_data=DisplayData(planned.name),
            flags=CalloutFlags.USES_PROVIDER_CONTEXT,
            applicable_layer=layer,
        )
        _require(planned.path, "callout_add", session.callout_add(record)[0])


def _sub_layer_record(planned: PlannedSubLayer) -> SubLayer:
    return SubLayer(sub_layer_key=planned.key, display_data=DisplayData(planned.name), weight=planned.weight)


def _filter_record(planned: PlannedFilter, callout_key: UUID | None) -> Filter:
    return Filter(
        filter_key=planned.key,
        display_data=DisplayData(planned.name),
        flags=planned.flags,
        layer_key=planned.layer.key,
        sub_layer_key=planned.sub_layer,
        weight=planned.weight,
        conditions=planned.conditions,
        action_type=planned.action,
        callout_key=callout_key,
        provider_object=planned.options,
    )


def _require_gone(path: KeyPath, call: str, status: NtStatus) -> None:
    """What others have deleted is gone as well."""
    if status not in (NtStatus.STATUS_FWP_FILTER_NOT_FOUND, NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND):
        _require(path, call, status)


def _require(path: KeyPath, call: str, status: NtStatus) -> None:
    if not status.ok:
        raise Refused(path, call, status)
