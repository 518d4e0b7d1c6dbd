"""What notifyFn is told, when, and what its answer does (NTF-1..NTF-7, SC-104, SC-106)."""

from __future__ import annotations

from tests.fwpm.support import (
    ADD,
    DELETE,
    POST_COMMIT,
    SUCCESS,
    a_callout,
    a_callout_filter,
    added,
    key,
    with_callout,
)
from wfpstream.fwp import NtStatus
from wfpstream.fwps._filter import Filter2


def test_ntf_1_add_is_announced_inside_the_call() -> None:
    fake, session = with_callout()
    at_the_call: list[tuple[int, list[str]]] = []

    def notify(notify_type: int, filter: Filter2) -> int:
        at_the_call.append((filter.filter_id, fake.installed_at(20)))
        return SUCCESS

    fake.on_notify = notify
    filter_id = added(session.filter_add(a_callout_filter(filter_key=key("f"))))
    assert fake.notified == [(ADD, key("f"), filter_id)]
    assert at_the_call == [(filter_id, [])]


def test_sc_104_a_refusing_notify_fn_prevents_the_filter() -> None:
    """SC-104, NTF-2."""
    fake, session = with_callout()
    fake.on_notify = lambda notify_type, filter: NtStatus.STATUS_UNSUCCESSFUL
    answer = session.filter_add(a_callout_filter(filter_key=key("f")))
    assert answer == (NtStatus.STATUS_FWP_CALLOUT_NOTIFICATION_FAILED, 0)
    assert session.filter_get_by_key(key("f"))[0] is NtStatus.STATUS_FWP_FILTER_NOT_FOUND
    assert fake.installed_at(20) == []


def test_sc_104_inside_a_transaction_the_refused_filter_is_not_announced_again() -> None:
    fake, session = with_callout()
    assert session.transaction_begin() is SUCCESS
    fake.on_notify = lambda notify_type, filter: NtStatus.STATUS_UNSUCCESSFUL
    assert not session.filter_add(a_callout_filter("refused"))[0].ok
    fake.on_notify = lambda notify_type, filter: SUCCESS
    accepted = added(session.filter_add(a_callout_filter("accepted")))
    fake.notified.clear()
    assert session.transaction_abort() is SUCCESS
    assert fake.notified == [(DELETE, None, accepted)]


def test_ntf_2_informational_statuses_are_no_failure() -> None:
    """NT_SUCCESS: STATUS_PENDING and STATUS_OBJECT_NAME_EXISTS pass, a warning does not."""
    fake, session = with_callout()
    for status, expected in (
        (NtStatus.STATUS_PENDING, SUCCESS),
        (NtStatus.STATUS_OBJECT_NAME_EXISTS, SUCCESS),
        (NtStatus.STATUS_DEVICE_BUSY, NtStatus.STATUS_FWP_CALLOUT_NOTIFICATION_FAILED),
    ):
        fake.on_notify = lambda notify_type, filter, status=status: status  # type: ignore[misc]
        assert session.filter_add(a_callout_filter())[0] is expected


def test_ntf_3_notify_fn_may_set_the_context() -> None:
    """NTF-3: rawContext before the call; what notifyFn sets is what classify and DELETE see."""
    fake, session = with_callout()
    seen: list[tuple[int, int]] = []

    def notify(notify_type: int, filter: Filter2) -> int:
        seen.append((notify_type, filter.context))
        if notify_type == ADD:
            filter.context = 0x1234
        return SUCCESS

    fake.on_notify = notify
    filter_id = added(session.filter_add(a_callout_filter(raw_context=7)))
    (installed,) = fake.installed
    assert installed.context == 0x1234
    assert session.filter_delete_by_id(filter_id) is SUCCESS
    assert seen == [(ADD, 7), (DELETE, 0x1234)]


def test_ntf_4_and_5_registered_later_no_add_but_delete() -> None:
    fake, session = with_callout()
    fake.registered.clear()
    filter_id = added(session.filter_add(a_callout_filter()))
    fake.registered.add(key("c"))
    assert fake.notified == []
    assert session.filter_delete_by_id(filter_id) is SUCCESS
    assert fake.notified == [(DELETE, None, filter_id)]


def test_ntf_5_a_failing_delete_notification_changes_nothing() -> None:
    fake, session = with_callout()
    filter_id = added(session.filter_add(a_callout_filter()))
    fake.on_notify = lambda notify_type, filter: NtStatus.STATUS_UNSUCCESSFUL
    assert session.filter_delete_by_id(filter_id) is SUCCESS
    assert fake.installed_at(20) == []


def test_ntf_5_delete_comes_with_the_commit() -> None:
    fake, session = with_callout()
    filter_id = added(session.filter_add(a_callout_filter()))
    fake.notified.clear()
    assert session.transaction_begin() is SUCCESS
    assert session.filter_delete_by_id(filter_id) is SUCCESS
    assert fake.notified == []
    assert session.transaction_commit() is SUCCESS
    assert fake.notified == [(DELETE, None, filter_id)]


def test_sc_106_post_commit_only_with_the_flag() -> None:
    """SC-106, NTF-6: ADD at once; POST_COMMIT, with the filter's key, after the commit for who asked."""
    fake, session = with_callout()
    added(session.callout_add(a_callout("eager")))
    fake.registered.add(key("eager"))
    fake.wants_commit_notify.add(key("eager"))
    assert session.transaction_begin() is SUCCESS
    plain = added(session.filter_add(a_callout_filter(filter_key=key("plain"))))
    eager = added(session.filter_add(a_callout_filter("e", callout="eager", filter_key=key("e"))))
    assert fake.notified == [(ADD, key("plain"), plain), (ADD, key("e"), eager)]
    fake.notified.clear()
    assert session.transaction_commit() is SUCCESS
    assert fake.notified == [(POST_COMMIT, key("e"), eager)]


def test_ntf_6_no_post_commit_for_an_implicit_transaction() -> None:
    fake, session = with_callout()
    fake.wants_commit_notify.add(key("c"))
    filter_id = added(session.filter_add(a_callout_filter(filter_key=key("f"))))
    assert fake.notified == [(ADD, key("f"), filter_id)]


def test_ntf_6_no_post_commit_for_a_filter_deleted_in_the_same_transaction() -> None:
    fake, session = with_callout()
    fake.wants_commit_notify.add(key("c"))
    assert session.transaction_begin() is SUCCESS
    filter_id = added(session.filter_add(a_callout_filter(filter_key=key("f"))))
    assert session.filter_delete_by_id(filter_id) is SUCCESS
    assert session.transaction_commit() is SUCCESS
    assert fake.notified == [(ADD, key("f"), filter_id), (DELETE, None, filter_id)]


def test_ntf_7_abort_announces_the_end_of_accepted_filters_once() -> None:
    fake, session = with_callout()
    existing = added(session.filter_add(a_callout_filter("existing")))
    fake.notified.clear()
    assert session.transaction_begin() is SUCCESS
    kept = added(session.filter_add(a_callout_filter("kept", filter_key=key("kept"))))
    dropped = added(session.filter_add(a_callout_filter("dropped", filter_key=key("dropped"))))
    assert session.filter_delete_by_id(dropped) is SUCCESS
    assert session.filter_delete_by_id(existing) is SUCCESS
    assert session.transaction_abort() is SUCCESS
    assert fake.notified == [
        (ADD, key("kept"), kept),
        (ADD, key("dropped"), dropped),
        (DELETE, None, kept),
        (DELETE, None, dropped),
    ]
    assert fake.installed_at(20) == ["existing"]


def test_ntf_7_abort_is_silent_for_filters_never_announced() -> None:
    fake, session = with_callout()
    fake.registered.clear()
    assert session.transaction_begin() is SUCCESS
    added(session.filter_add(a_callout_filter()))
    fake.registered.add(key("c"))
    assert session.transaction_abort() is SUCCESS
    assert fake.notified == []
