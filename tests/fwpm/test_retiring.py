"""Retiring as management sees it (MGMT-16): what happens to a busy filter's object, key and references, and what an
open transaction makes of it. What flows see is in `tests/rules/test_retiring.py`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fwpm.support import (
    ADD,
    DELETE,
    SUCCESS,
    FakeRunTime,
    a_callout,
    a_callout_filter,
    a_filter,
    added,
    key,
    named,
    open_session,
    start,
)
from wfpstream import fwpm
from wfpstream.fwp import NtStatus

IN_USE, NOT_FOUND = NtStatus.STATUS_FWP_IN_USE, NtStatus.STATUS_FWP_FILTER_NOT_FOUND


class Busy:
    """A session, another one that hears of changes, and a filter "f" at work for its callout "c"."""

    def __init__(self, flags: int = 0) -> None:
        self.fake, self.management = start()
        self.fake.registered.add(key("c"))
        self.session = open_session(self.management, flags)
        self.other = open_session(self.management)
        added(self.session.callout_add(a_callout()))
        sub_layer = fwpm.SubLayer(sub_layer_key=key("s"), display_data=named("s"))
        assert self.session.sub_layer_add(sub_layer) is SUCCESS
        record = a_callout_filter(filter_key=key("f"), sub_layer_key=key("s"))
        self.filter_id = added(self.session.filter_add(record))
        self.fake.busy.add(self.filter_id)
        self.fake.notified.clear()
        self.heard: list[tuple[str, int]] = []
        status, _ = self.other.filter_subscribe_changes(fwpm.FilterSubscription(), self.hear)
        assert status is SUCCESS

    def hear(self, change: fwpm.FilterChange) -> None:
        self.heard.append((change.change_type.name, change.filter_id))

    def retire(self) -> None:
        assert self.session.filter_retire_by_id(self.filter_id) is SUCCESS

    def state(self, session: fwpm.Session | None = None) -> str:
        status, found = (session or self.session).filter_get_by_id(self.filter_id)
        if found is None:
            assert status is NOT_FOUND
            return "gone"
        return "retiring" if found.retiring else "in force"


def notified(fake: FakeRunTime) -> list[tuple[int, int]]:
    return [(kind, number) for kind, _, number in fake.notified]


def test_mgmt_16_a_busy_filter_is_out_of_force_and_still_there() -> None:
    b = Busy()
    b.retire()
    assert list(b.fake.installed) == []
    assert b.state() == "retiring"
    assert [one.retiring for one in b.session.filter_enum()[1]] == [True]
    assert b.session.filter_delete_by_id(b.filter_id) is IN_USE
    assert b.session.filter_delete_by_key(key("f")) is IN_USE
    assert b.session.filter_retire_by_key(key("f")) is SUCCESS
    assert (b.heard, b.fake.notified) == ([], [])
    b.fake.finish_draining(b.filter_id)
    assert b.state() == "gone"
    assert notified(b.fake) == [(DELETE, b.filter_id)]
    assert b.heard == [("DELETE", b.filter_id)]
    assert b.session.filter_retire_by_id(b.filter_id) is NOT_FOUND


def test_mgmt_16_an_idle_filter_goes_as_if_deleted() -> None:
    b = Busy()
    b.fake.busy.clear()
    b.retire()
    assert b.state() == "gone"
    assert notified(b.fake) == [(DELETE, b.filter_id)]
    assert b.heard == [("DELETE", b.filter_id)]


def test_mgmt_16_the_key_is_free_at_once() -> None:
    b = Busy()
    b.retire()
    successor = added(b.session.filter_add(a_filter(filter_key=key("f"))))

    def of_key() -> int:
        found = b.session.filter_get_by_key(key("f"))[1]
        return 0 if found is None else found.filter_id

    assert (of_key(), b.state()) == (successor, "retiring")
    assert b.session.filter_delete_by_key(key("f")) is SUCCESS
    assert of_key() == b.filter_id
    b.fake.finish_draining(b.filter_id)
    assert of_key() == 0


def test_obj_5_it_keeps_its_callout_and_nothing_else() -> None:
    """OBJ-5, MGMT-15, MGMT-16: its sublayer is copied into it, its callout is at work."""
    b = Busy()
    b.retire()
    assert b.session.sub_layer_delete_by_key(key("s")) is SUCCESS
    assert b.session.callout_delete_by_key(key("c")) is IN_USE
    b.fake.finish_draining(b.filter_id)
    assert b.session.callout_delete_by_key(key("c")) is SUCCESS


def test_mgmt_2_in_a_transaction_it_begins_with_the_commit() -> None:
    b = Busy()
    assert b.session.transaction_begin() is SUCCESS
    b.retire()
    assert (b.state(), b.state(b.other)) == ("retiring", "in force")
    assert b.session.filter_delete_by_id(b.filter_id) is IN_USE
    assert [one.filter_id for one in b.fake.installed] == [b.filter_id]
    assert b.session.transaction_abort() is SUCCESS
    assert (b.state(), b.fake.draining, b.fake.notified) == ("in force", {}, [])
    assert b.session.transaction_begin() is SUCCESS
    b.retire()
    assert b.session.transaction_commit() is SUCCESS
    assert (b.state(), list(b.fake.draining)) == ("retiring", [b.filter_id])


def test_mgmt_16_a_filter_of_the_same_transaction_was_never_in_force() -> None:
    b = Busy()
    assert b.session.transaction_begin() is SUCCESS
    new = added(b.session.filter_add(a_callout_filter()))
    assert b.session.filter_retire_by_id(new) is SUCCESS
    assert b.session.filter_get_by_id(new) == (NOT_FOUND, None)
    assert b.session.transaction_commit() is SUCCESS
    assert b.fake.draining == {}
    assert notified(b.fake) == [(ADD, new), (DELETE, new)]


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_mgmt_16_it_is_gone_for_an_open_transaction_too(end: str) -> None:
    """MGMT-2, MGMT-16: what finishes while another session works on a copy does not come back with its commit."""
    b = Busy()
    b.retire()
    assert b.other.transaction_begin() is SUCCESS
    assert b.state(b.other) == "retiring"
    b.fake.finish_draining(b.filter_id)
    assert b.state(b.other) == "gone"
    added(b.other.filter_add(a_filter("new")))
    assert getattr(b.other, f"transaction_{end}")() is SUCCESS
    assert b.state() == "gone"
    assert notified(b.fake) == [(DELETE, b.filter_id)]


def test_mgmt_2_a_snapshot_keeps_what_has_gone() -> None:
    """A read-only transaction began before; it is no writer, and no commit of its brings anything back."""
    b = Busy()
    b.retire()
    assert b.other.transaction_begin(fwpm.TransactionFlags.READ_ONLY) is SUCCESS
    b.fake.finish_draining(b.filter_id)
    assert (b.state(), b.state(b.other)) == ("gone", "retiring")
    assert b.other.transaction_commit() is SUCCESS
    assert (b.state(b.other), b.heard) == ("gone", [("DELETE", b.filter_id)])


@pytest.mark.parametrize("call", ["filter_retire_by_id", "filter_delete_by_id"])
def test_mgmt_13_forced_out_while_a_transaction_was_about_to_remove_it(call: str) -> None:
    """The commit neither fails nor tells of it a second time."""
    b = Busy()
    b.fake.busy.clear()
    assert b.other.transaction_begin() is SUCCESS
    assert getattr(b.other, call)(b.filter_id) is SUCCESS
    b.fake.busy.add(b.filter_id)
    assert b.management.force_delete(b.filter_id) is SUCCESS
    assert b.other.transaction_commit() is SUCCESS
    assert b.state() == "gone"
    assert b.fake.draining == {}
    assert notified(b.fake) == [(DELETE, b.filter_id)]
    assert b.heard == [("DELETE", b.filter_id)]


def test_mgmt_13_forced_out_while_it_drains() -> None:
    b = Busy()
    b.retire()
    assert b.management.force_delete(b.filter_id) is SUCCESS
    assert (b.state(), b.fake.draining) == ("gone", {})
    assert notified(b.fake) == [(DELETE, b.filter_id)]
    assert b.heard == [("DELETE", b.filter_id)]


@pytest.mark.parametrize("how", ["close", "stop"])
def test_sc_107_a_dynamic_session_takes_its_retiring_filters_with_it(how: str) -> None:
    b = Busy(fwpm.SessionFlags.DYNAMIC)
    b.retire()
    if how == "close":
        assert b.session.engine_close() is SUCCESS
        assert b.heard == [("DELETE", b.filter_id)]
    else:
        b.management.stop()
    assert b.fake.draining == {}
    assert notified(b.fake) == [(DELETE, b.filter_id)]
    again = open_session(b.management)
    assert b.state(again) == "gone"


def test_reg_10_what_is_refused() -> None:
    b = Busy()
    assert b.session.filter_retire_by_id(10**6) is NOT_FOUND
    assert b.session.filter_retire_by_key(key("nothing")) is NOT_FOUND
    assert b.other.transaction_begin(fwpm.TransactionFlags.READ_ONLY) is SUCCESS
    assert b.other.filter_retire_by_id(b.filter_id) is NtStatus.STATUS_FWP_INCOMPATIBLE_TXN
    assert b.other.transaction_abort() is SUCCESS
    assert b.other.transaction_begin() is SUCCESS
    assert b.session.filter_retire_by_id(b.filter_id) is NtStatus.STATUS_FWP_TIMEOUT
    assert b.other.transaction_abort() is SUCCESS
    assert b.session.engine_close() is SUCCESS
    assert b.session.filter_retire_by_id(b.filter_id) is NtStatus.STATUS_INVALID_HANDLE


def test_enumeration_templates_choose_retiring_filters_too() -> None:
    b = Busy()
    b.retire()
    chosen: Any = b.session.filter_enum(fwpm.FilterEnumTemplate(callout_key=key("c")))[1]
    assert [(one.filter_id, one.retiring) for one in chosen] == [(b.filter_id, True)]
