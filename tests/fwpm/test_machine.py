"""Random histories of sessions and transactions against a model of plain copied dictionaries (OBJ-2..OBJ-5,
MGMT-1..MGMT-3, NTF-1, NTF-5, NTF-7): whatever happens, exactly the committed filters are in force, and every
filter a callout accepted ends with exactly one DELETE."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fwpm.support import ADD, DELETE, SUCCESS, a_callout, a_filter, key, named, open_session, start
from wfpstream import fwpm
from wfpstream.fwp import ActionType, NtStatus

SUB_LAYERS = ("s", "t")
# Index of a session; the last one is dynamic.
SESSIONS = st.integers(0, 2)
DYNAMIC = 2


@dataclass
class Model:
    """Objects by name or id, each with the index of the dynamic session it dies with, or None."""

    sub_layers: dict[str, int | None] = field(default_factory=dict)
    # filterId -> (sublayer name, owner)
    filters: dict[int, tuple[str, int | None]] = field(default_factory=dict)

    def drop_owned_by(self, owner: int) -> None:
        self.filters = {number: one for number, one in self.filters.items() if one[1] != owner}
        self.sub_layers = {name: one for name, one in self.sub_layers.items() if one != owner}


def _sub_layer(name: str) -> fwpm.SubLayer:
    return fwpm.SubLayer(sub_layer_key=key(name), display_data=named(name))


class Sessions(RuleBasedStateMachine):
    @initialize()
    def open_sessions(self) -> None:
        self.fake, self.management = start()
        self.sessions = [open_session(self.management, flags) for flags in (0, 0, fwpm.SessionFlags.DYNAMIC)]
        status, _ = self.sessions[0].callout_add(a_callout())
        assert status is SUCCESS
        self.fake.registered.add(key("c"))
        # Present from the start: a history without filters says little.
        assert self.sessions[0].sub_layer_add(_sub_layer("s")) is SUCCESS
        self.committed = Model({"s": None})
        self.writer: int | None = None
        self.working = Model()

    def model_for(self, who: int) -> tuple[Model, bool]:
        """What the session sees, and whether it may write now."""
        if self.writer == who:
            return self.working, True
        return self.committed, self.writer is None

    @rule(who=SESSIONS)
    def begin(self, who: int) -> None:
        if self.writer == who:
            assert self.sessions[who].transaction_begin() is NtStatus.STATUS_FWP_TXN_IN_PROGRESS
        elif self.writer is None:
            assert self.sessions[who].transaction_begin() is SUCCESS
            self.writer, self.working = who, deepcopy(self.committed)

    @rule(who=SESSIONS)
    def commit(self, who: int) -> None:
        status = self.sessions[who].transaction_commit()
        if self.writer != who:
            assert status is NtStatus.STATUS_FWP_NO_TXN_IN_PROGRESS
            return
        assert status is SUCCESS
        self.committed, self.writer = self.working, None

    @rule(who=SESSIONS)
    def abort(self, who: int) -> None:
        status = self.sessions[who].transaction_abort()
        assert status is (SUCCESS if self.writer == who else NtStatus.STATUS_FWP_NO_TXN_IN_PROGRESS)
        if self.writer == who:
            self.writer = None

    @rule(who=SESSIONS, name=st.sampled_from(SUB_LAYERS))
    def add_sub_layer(self, who: int, name: str) -> None:
        model, may_write = self.model_for(who)
        status = self.sessions[who].sub_layer_add(_sub_layer(name))
        if not may_write:
            assert status is NtStatus.STATUS_FWP_TIMEOUT
        elif name in model.sub_layers:
            assert status is NtStatus.STATUS_FWP_ALREADY_EXISTS
        else:
            assert status is SUCCESS
            model.sub_layers[name] = DYNAMIC if who == DYNAMIC else None

    @rule(who=SESSIONS, name=st.sampled_from(SUB_LAYERS))
    def delete_sub_layer(self, who: int, name: str) -> None:
        model, may_write = self.model_for(who)
        status = self.sessions[who].sub_layer_delete_by_key(key(name))
        if not may_write:
            assert status is NtStatus.STATUS_FWP_TIMEOUT
        elif name not in model.sub_layers:
            assert status is NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND
        elif any(one[0] == name for one in model.filters.values()):
            assert status is NtStatus.STATUS_FWP_IN_USE
        else:
            assert status is SUCCESS
            del model.sub_layers[name]

    @rule(who=SESSIONS, name=st.sampled_from(SUB_LAYERS), accepted=st.sampled_from([True, True, True, False]))
    def add_filter(self, who: int, name: str, accepted: bool) -> None:
        model, may_write = self.model_for(who)
        self.fake.on_notify = lambda notify_type, filter: (
            SUCCESS if accepted or notify_type != ADD else NtStatus.STATUS_UNSUCCESSFUL
        )
        status, filter_id = self.sessions[who].filter_add(
            a_filter(sub_layer_key=key(name), action_type=ActionType.CALLOUT_UNKNOWN, callout_key=key("c"))
        )
        if not may_write:
            assert status is NtStatus.STATUS_FWP_TIMEOUT
        elif name not in model.sub_layers:
            assert status is NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND
        elif model.sub_layers[name] is not None and who != DYNAMIC:
            assert status is NtStatus.STATUS_FWP_LIFETIME_MISMATCH
        elif not accepted:
            assert status is NtStatus.STATUS_FWP_CALLOUT_NOTIFICATION_FAILED
            self.fake.notified.pop()
        else:
            assert status is SUCCESS
            model.filters[filter_id] = (name, DYNAMIC if who == DYNAMIC else None)

    @rule(who=SESSIONS, data=st.data())
    def delete_filter(self, who: int, data: st.DataObject) -> None:
        model, may_write = self.model_for(who)
        filter_id = data.draw(st.sampled_from([*model.filters, 10**6]))
        status = self.sessions[who].filter_delete_by_id(filter_id)
        if not may_write:
            assert status is NtStatus.STATUS_FWP_TIMEOUT
        elif filter_id not in model.filters:
            assert status is NtStatus.STATUS_FWP_FILTER_NOT_FOUND
        else:
            assert status is SUCCESS
            del model.filters[filter_id]

    @rule(data=st.data())
    @precondition(lambda self: self.committed.filters)
    def force_delete(self, data: st.DataObject) -> None:
        filter_id = data.draw(st.sampled_from(list(self.committed.filters)))
        assert self.management.force_delete(filter_id) is SUCCESS
        del self.committed.filters[filter_id]
        self.working.filters.pop(filter_id, None)

    @rule(who=SESSIONS)
    def close_and_open_again(self, who: int) -> None:
        assert self.sessions[who].engine_close() is SUCCESS
        if self.writer == who:
            self.writer = None
        if who == DYNAMIC:
            self.committed.drop_owned_by(DYNAMIC)
            self.working.drop_owned_by(DYNAMIC)
        flags = fwpm.SessionFlags.DYNAMIC if who == DYNAMIC else 0
        self.sessions[who] = open_session(self.management, flags)

    @invariant()
    def committed_filters_are_in_force(self) -> None:
        assert {one.filter_id for one in self.fake.installed} == set(self.committed.filters)

    @invariant()
    def every_session_sees_its_tables(self) -> None:
        for who, session in enumerate(self.sessions):
            model, _ = self.model_for(who)
            assert {one.filter_id for one in session.filter_enum()[1]} == set(model.filters)

    @invariant()
    def accepted_filters_end_with_one_delete(self) -> None:
        told = Counter((number, notify_type) for notify_type, _, number in self.fake.notified)
        assert set(told.values()) <= {1}
        alive = {number for number, kind in told if kind == ADD} - {
            number for number, kind in told if kind == DELETE
        }
        known = set(self.committed.filters)
        if self.writer is not None:
            known |= set(self.working.filters)
        # A filter added and deleted in the open transaction is told of its end only when that ends.
        assert known <= alive
        assert self.writer is not None or known == alive


TestSessions = Sessions.TestCase
