"""Sessions, transactions and the write lock (OBJ-1, OBJ-2, MGMT-1..MGMT-3, IRQ-3, IRQ-6, SC-106, SC-107)."""

from __future__ import annotations

from math import inf

import pytest

from tests.fwpm.support import (
    DELETE,
    SUCCESS,
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

DYNAMIC = fwpm.SessionFlags.DYNAMIC
READ_ONLY = fwpm.TransactionFlags.READ_ONLY


def test_mgmt_1_calls_outside_a_transaction_take_effect_at_once() -> None:
    fake, management = start()
    session = open_session(management)
    filter_id = added(session.filter_add(a_filter("f")))
    assert fake.installed_at(20) == ["f"]
    assert session.filter_delete_by_id(filter_id) is SUCCESS
    assert fake.installed_at(20) == []


def test_mgmt_1_one_explicit_transaction_per_session() -> None:
    _, management = start()
    session = open_session(management)
    assert session.transaction_commit() is NtStatus.STATUS_FWP_NO_TXN_IN_PROGRESS
    assert session.transaction_abort() is NtStatus.STATUS_FWP_NO_TXN_IN_PROGRESS
    assert session.transaction_begin() is SUCCESS
    assert session.transaction_begin() is NtStatus.STATUS_FWP_TXN_IN_PROGRESS
    assert session.transaction_commit() is SUCCESS
    assert session.transaction_begin() is SUCCESS
    assert session.transaction_abort() is SUCCESS
    assert session.transaction_abort() is NtStatus.STATUS_FWP_NO_TXN_IN_PROGRESS


def test_sc_106_filters_of_an_open_transaction_are_not_effective() -> None:
    """SC-106, MGMT-2: nothing before commit, all of it in one step after."""
    fake, management = start()
    session = open_session(management)
    assert session.transaction_begin() is SUCCESS
    added(session.filter_add(a_filter("a")))
    added(session.filter_add(a_filter("b")))
    assert (fake.installed_at(20), fake.installs) == ([], 0)
    assert session.transaction_commit() is SUCCESS
    assert (fake.installed_at(20), fake.installs) == (["a", "b"], 1)


def test_mgmt_2_abort_forgets_additions_and_deletions() -> None:
    fake, management = start()
    session = open_session(management)
    kept = added(session.filter_add(a_filter("kept")))
    assert session.transaction_begin() is SUCCESS
    added(session.filter_add(a_filter("gone")))
    assert session.filter_delete_by_id(kept) is SUCCESS
    assert session.transaction_abort() is SUCCESS
    assert fake.installed_at(20) == ["kept"]
    assert session.filter_get_by_id(kept)[0] is SUCCESS


def test_mgmt_2_transactions_are_isolated() -> None:
    """Others, and read-only snapshots, see what was committed; the writer sees its own work."""
    _, management = start()
    writer, reader, snapshot = (open_session(management) for _ in range(3))
    assert snapshot.transaction_begin(READ_ONLY) is SUCCESS
    assert writer.transaction_begin() is SUCCESS
    filter_id = added(writer.filter_add(a_filter()))
    assert writer.filter_get_by_id(filter_id)[0] is SUCCESS
    assert reader.filter_get_by_id(filter_id) == (NtStatus.STATUS_FWP_FILTER_NOT_FOUND, None)
    assert writer.transaction_commit() is SUCCESS
    assert reader.filter_get_by_id(filter_id)[0] is SUCCESS
    assert snapshot.filter_get_by_id(filter_id) == (NtStatus.STATUS_FWP_FILTER_NOT_FOUND, None)
    assert snapshot.transaction_commit() is SUCCESS
    assert snapshot.filter_get_by_id(filter_id)[0] is SUCCESS


def test_mgmt_2_a_failing_call_does_not_abort_the_transaction() -> None:
    fake, management = start()
    session = open_session(management)
    assert session.transaction_begin() is SUCCESS
    added(session.filter_add(a_filter("good")))
    assert session.filter_add(a_filter(""))[0] is NtStatus.STATUS_FWP_NULL_DISPLAY_NAME
    assert session.transaction_commit() is SUCCESS
    assert fake.installed_at(20) == ["good"]


def test_mgmt_3_a_read_only_transaction_refuses_every_write() -> None:
    _, management = start()
    session = open_session(management)
    filter_id = added(session.filter_add(a_filter()))
    assert session.transaction_begin(READ_ONLY) is SUCCESS
    refused = NtStatus.STATUS_FWP_INCOMPATIBLE_TXN
    assert session.filter_add(a_filter()) == (refused, 0)
    assert session.callout_add(a_callout()) == (refused, 0)
    assert session.sub_layer_add(fwpm.SubLayer(display_data=named("s"))) is refused
    assert session.provider_add(fwpm.Provider(display_data=named("p"))) is refused
    assert session.provider_context_add(fwpm.ProviderContext(display_data=named("x"))) is refused
    assert session.filter_delete_by_id(filter_id) is refused
    assert session.sub_layer_delete_by_key(key("s")) is refused
    assert session.callout_delete_by_key(key("c")) is refused
    assert session.transaction_abort() is SUCCESS
    assert session.filter_delete_by_id(filter_id) is SUCCESS


def test_mgmt_3_unknown_transaction_flags() -> None:
    _, management = start()
    assert open_session(management).transaction_begin(2) is NtStatus.STATUS_FWP_INVALID_FLAGS


def test_irq_6_a_waiting_transaction_gets_a_ticket_and_is_served_in_order() -> None:
    """IRQ-6 (b): begin never waits on the engine's thread."""
    fake, management = start()
    first, second, third = (open_session(management) for _ in range(3))
    assert first.transaction_begin() is SUCCESS
    assert second.transaction_begin() is NtStatus.STATUS_PENDING
    assert third.transaction_begin() is NtStatus.STATUS_PENDING
    assert second.ticket is not None
    assert third.ticket is not None
    added(first.filter_add(a_filter("first")))
    assert not second.ticket.done
    assert second.ticket.status is NtStatus.STATUS_PENDING
    assert second.transaction_begin() is NtStatus.STATUS_FWP_TXN_IN_PROGRESS
    assert second.transaction_commit() is NtStatus.STATUS_FWP_NO_TXN_IN_PROGRESS

    assert first.transaction_commit() is SUCCESS
    assert (second.ticket.done, second.ticket.status) == (True, SUCCESS)
    assert not third.ticket.done
    added(second.filter_add(a_filter("second")))
    assert second.transaction_abort() is SUCCESS

    assert third.ticket.status is SUCCESS
    added(third.filter_add(a_filter("third")))
    assert third.transaction_commit() is SUCCESS
    assert fake.installed_at(20) == ["first", "third"]


def test_mgmt_3_waiting_ends_with_timeout() -> None:
    fake, management = start()
    holder, default, short = (
        open_session(management),
        *(open_session(management, txn_wait_timeout=limit) for limit in (0, 2.0)),
    )
    assert holder.transaction_begin() is SUCCESS
    assert default.transaction_begin() is NtStatus.STATUS_PENDING
    assert short.transaction_begin() is NtStatus.STATUS_PENDING
    assert default.ticket is not None
    assert short.ticket is not None
    fake.advance(2.0)
    assert short.ticket.status is NtStatus.STATUS_FWP_TIMEOUT
    assert not default.ticket.done
    fake.advance(12.9)
    assert not default.ticket.done
    fake.advance(0.1)
    assert default.ticket.status is NtStatus.STATUS_FWP_TIMEOUT
    # VRF-6: they were refused, only later.
    assert fake.refusals == [("FwpmTransactionBegin0", NtStatus.STATUS_FWP_TIMEOUT, "MGMT-3")] * 2
    # Neither holds the lock afterwards, and both may ask again.
    assert holder.transaction_commit() is SUCCESS
    assert short.transaction_begin() is SUCCESS


def test_mgmt_3_a_granted_ticket_does_not_time_out_later() -> None:
    fake, management = start()
    holder, waiting = open_session(management), open_session(management)
    assert holder.transaction_begin() is SUCCESS
    assert waiting.transaction_begin() is NtStatus.STATUS_PENDING
    assert holder.transaction_commit() is SUCCESS
    fake.advance(60)
    assert waiting.ticket is not None
    assert waiting.ticket.status is SUCCESS
    assert waiting.transaction_commit() is SUCCESS


def test_mgmt_3_infinite_wait_sets_no_timer() -> None:
    fake, management = start()
    holder, waiting = open_session(management), open_session(management, txn_wait_timeout=inf)
    assert holder.transaction_begin() is SUCCESS
    assert waiting.transaction_begin() is NtStatus.STATUS_PENDING
    assert fake.timers == []


def test_mgmt_3_an_implicit_write_cannot_wait() -> None:
    """IRQ-6: it would stop the thread it waits for, so it fails as if its time had passed."""
    _, management = start()
    holder, other = open_session(management), open_session(management)
    assert holder.transaction_begin() is SUCCESS
    assert other.filter_add(a_filter()) == (NtStatus.STATUS_FWP_TIMEOUT, 0)
    assert other.filter_enum() == (SUCCESS, [])
    assert holder.transaction_commit() is SUCCESS
    added(other.filter_add(a_filter()))


def test_obj_1_closing_aborts_the_open_transaction_and_passes_the_lock_on() -> None:
    fake, management = start()
    holder, waiting = open_session(management), open_session(management)
    assert holder.transaction_begin() is SUCCESS
    added(holder.filter_add(a_filter()))
    assert waiting.transaction_begin() is NtStatus.STATUS_PENDING
    assert holder.engine_close() is SUCCESS
    assert waiting.ticket is not None
    assert waiting.ticket.status is SUCCESS
    assert waiting.transaction_commit() is SUCCESS
    assert fake.installed_at(20) == []


def test_obj_1_closing_withdraws_a_waiting_ticket() -> None:
    _, management = start()
    holder, waiting = open_session(management), open_session(management)
    assert holder.transaction_begin() is SUCCESS
    assert waiting.transaction_begin() is NtStatus.STATUS_PENDING
    assert waiting.engine_close() is SUCCESS
    assert waiting.ticket is not None
    assert waiting.ticket.status is NtStatus.STATUS_FWP_SESSION_ABORTED
    assert holder.transaction_commit() is SUCCESS
    assert holder.transaction_begin() is SUCCESS


def test_obj_1_a_session_that_ends_has_ended_for_whoever_hears_of_it() -> None:
    """Its end gives the lock to another session, whose code may look at it, and try to end it again."""
    _, management = start()
    ending, waiting = open_session(management), open_session(management)
    assert ending.transaction_begin() is SUCCESS
    assert waiting.transaction_begin() is NtStatus.STATUS_PENDING
    assert waiting.ticket is not None
    answers: list[NtStatus] = []
    waiting.ticket.when_done(lambda: answers.extend((ending.engine_close(), ending.transaction_begin())))
    assert ending.engine_close() is SUCCESS
    assert answers == [NtStatus.STATUS_INVALID_HANDLE] * 2
    assert [one.session_key for one in waiting.session_enum()[1]] == [waiting.session_key]


def test_vrf_6_a_refused_open_is_told() -> None:
    fake, management = start()
    assert management.engine_open(2) == (NtStatus.STATUS_FWP_INVALID_FLAGS, None)
    fake.refusal = NtStatus.STATUS_INVALID_DEVICE_STATE
    assert management.engine_open() == (NtStatus.STATUS_INVALID_DEVICE_STATE, None)
    assert fake.refusals == [
        ("FwpmEngineOpen0", NtStatus.STATUS_FWP_INVALID_FLAGS, "OBJ-2"),
        ("FwpmEngineOpen0", NtStatus.STATUS_INVALID_DEVICE_STATE, "IRQ-3"),
    ]


def test_obj_1_a_closed_session_is_an_invalid_handle() -> None:
    _, management = start()
    session = open_session(management)
    assert session.engine_close() is SUCCESS
    assert not session.is_open
    invalid = NtStatus.STATUS_INVALID_HANDLE
    assert session.engine_close() is invalid
    assert session.transaction_begin() is invalid
    assert session.filter_add(a_filter()) == (invalid, 0)
    assert session.filter_enum() == (invalid, [])


def test_sc_107_a_dynamic_session_takes_its_objects_with_it() -> None:
    """SC-107, OBJ-2: filters vanish, their callouts get DELETE, in the order of adding."""
    fake, management = start()
    static, dynamic = open_session(management), open_session(management, DYNAMIC)
    fake.registered.add(key("c"))
    added(static.filter_add(a_filter("static")))
    assert dynamic.sub_layer_add(fwpm.SubLayer(sub_layer_key=key("s"), display_data=named("s"))) is SUCCESS
    added(dynamic.callout_add(a_callout()))
    first = added(dynamic.filter_add(a_callout_filter("one", sub_layer_key=key("s"))))
    second = added(dynamic.filter_add(a_callout_filter("two")))
    fake.notified.clear()
    assert dynamic.engine_close() is SUCCESS
    assert fake.installed_at(20) == ["static"]
    assert fake.installed.added_callouts == frozenset()
    assert fake.notified == [(DELETE, None, first), (DELETE, None, second)]
    assert static.callout_get_by_key(key("c"))[0] is NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND
    assert static.sub_layer_get_by_key(key("s"))[0] is NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND
    assert fake.reports == []


def test_obj_2_a_static_session_leaves_its_objects() -> None:
    fake, management = start()
    session = open_session(management)
    added(session.filter_add(a_filter("static")))
    assert session.engine_close() is SUCCESS
    assert fake.installed_at(20) == ["static"]


def test_sc_107_removal_reaches_the_open_transaction_of_another_session() -> None:
    """Its commit must not bring the filters back, nor announce their end twice."""
    fake, management = start()
    dynamic, writer = open_session(management, DYNAMIC), open_session(management)
    fake.registered.add(key("c"))
    added(dynamic.callout_add(a_callout()))
    kept = added(dynamic.filter_add(a_callout_filter("one")))
    dropped = added(dynamic.filter_add(a_callout_filter("two")))
    assert writer.transaction_begin() is SUCCESS
    assert writer.filter_delete_by_id(dropped) is SUCCESS
    added(writer.filter_add(a_filter("writer's")))
    fake.notified.clear()
    assert dynamic.engine_close() is SUCCESS
    assert fake.notified == [(DELETE, None, kept), (DELETE, None, dropped)]
    assert writer.transaction_commit() is SUCCESS
    assert fake.installed_at(20) == ["writer's"]
    assert fake.notified == [(DELETE, None, kept), (DELETE, None, dropped)]


def test_mgmt_13_dynamic_session_end_removes_busy_filters_and_reports() -> None:
    """MGMT-13: forced removal goes through, V-38 says so."""
    fake, management = start()
    dynamic = open_session(management, DYNAMIC)
    fake.busy.add(added(dynamic.filter_add(a_filter("busy"))))
    assert dynamic.engine_close() is SUCCESS
    assert fake.installed_at(20) == []
    assert fake.reports == ["V-38"]


def test_irq_3_every_call_asks_the_run_time_first() -> None:
    """IRQ-3, V-32, V-33: refused with the run time's status, without any effect."""
    fake, management = start()
    session = open_session(management)
    fake.refusal = NtStatus.STATUS_INVALID_DEVICE_STATE
    refused = NtStatus.STATUS_INVALID_DEVICE_STATE
    assert management.engine_open() == (refused, None)
    assert session.transaction_begin() is refused
    assert session.transaction_commit() is refused
    assert session.transaction_abort() is refused
    assert session.provider_add(fwpm.Provider(display_data=named("p"))) is refused
    assert session.sub_layer_add(fwpm.SubLayer(display_data=named("s"))) is refused
    assert session.callout_add(a_callout()) == (refused, 0)
    assert session.provider_context_add(fwpm.ProviderContext(display_data=named("x"))) is refused
    assert session.filter_add(a_filter()) == (refused, 0)
    assert session.filter_delete_by_id(1) is refused
    assert session.filter_delete_by_key(key("f")) is refused
    assert session.filter_get_by_id(1) == (refused, None)
    assert session.filter_enum() == (refused, [])
    assert session.sub_layer_enum() == (refused, [])
    assert session.callout_delete_by_id(1000) is refused
    assert session.engine_close() is refused
    assert session.is_open
    assert fake.refused_calls == [
        "FwpmEngineOpen0",
        "FwpmTransactionBegin0",
        "FwpmTransactionCommit0",
        "FwpmTransactionAbort0",
        "FwpmProviderAdd0",
        "FwpmSubLayerAdd0",
        "FwpmCalloutAdd0",
        "FwpmProviderContextAdd0",
        "FwpmFilterAdd0",
        "FwpmFilterDeleteById0",
        "FwpmFilterDeleteByKey0",
        "FwpmFilterGetById0",
        "FwpmFilterEnum0",
        "FwpmSubLayerEnum0",
        "FwpmCalloutDeleteById0",
        "FwpmEngineClose0",
    ]
    assert fake.installs == 0


def test_reg_10_a_record_of_the_wrong_type_raises() -> None:
    _, management = start()
    session = open_session(management)
    with pytest.raises(TypeError, match=r"fwpm\.Filter"):
        session.filter_add(a_callout())  # type: ignore[arg-type]


def test_session_flags() -> None:
    _, management = start()
    assert management.engine_open(2) == (NtStatus.STATUS_FWP_INVALID_FLAGS, None)
    assert open_session(management, DYNAMIC).dynamic
    assert not open_session(management).dynamic


def test_obj_3_engine_stop_ends_everything_but_the_built_in() -> None:
    fake, management = start()
    static, dynamic = open_session(management), open_session(management, DYNAMIC)
    fake.registered.add(key("c"))
    added(static.callout_add(a_callout()))
    fake.busy.add(added(static.filter_add(a_callout_filter("busy"))))
    added(dynamic.filter_add(a_filter("dynamic")))
    assert static.transaction_begin() is SUCCESS
    management.stop()
    assert len(fake.installed) == 0
    assert fake.installed.added_callouts == frozenset()
    assert fake.reports == ["V-38"]
    assert fake.notified[-1][0] == DELETE
    assert static.filter_enum() == (NtStatus.STATUS_FWP_SESSION_ABORTED, [])
    again = open_session(management)
    assert [one.sub_layer_key for one in again.sub_layer_enum()[1]] == [
        fwpm.SUBLAYER_UNIVERSAL,
        fwpm.SUBLAYER_INSPECTION,
    ]
    assert again.transaction_begin() is SUCCESS


def test_mgmt_12_every_installed_set_has_a_generation_of_its_own() -> None:
    fake, management = start()
    session = open_session(management)
    added(session.filter_add(a_filter("a")))
    first = fake.installed
    assert session.sub_layer_add(fwpm.SubLayer(display_data=named("s"))) is SUCCESS
    assert fake.installed is first
    added(session.filter_add(a_filter("b")))
    assert fake.installed.generation > first.generation
    assert [one.name for one in first.filters_at(20)] == ["a"]
