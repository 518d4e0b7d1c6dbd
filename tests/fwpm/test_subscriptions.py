"""Change subscriptions: what is told, to whom, when, and in which order (Fwpm*SubscribeChanges0; MGMT-2, MGMT-13)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fwpm.support import (
    SUCCESS,
    FakeRunTime,
    a_callout,
    a_callout_filter,
    a_filter,
    added,
    key,
    named,
    open_session,
    remote_port,
    start,
)
from tests.scenarios.support import NMD, Bench, P, Script
from wfpstream import fwpm
from wfpstream.fwp import ActionType, NtStatus

ADD, DELETE = fwpm.ChangeType.ADD, fwpm.ChangeType.DELETE
ON_ADD, ON_DELETE = fwpm.SubscriptionFlags.NOTIFY_ON_ADD, fwpm.SubscriptionFlags.NOTIFY_ON_DELETE

TYPES = ("filter", "callout", "sub_layer", "provider", "provider_context")
SUBSCRIPTIONS: dict[str, Any] = {
    "filter": fwpm.FilterSubscription,
    "callout": fwpm.CalloutSubscription,
    "sub_layer": fwpm.SubLayerSubscription,
    "provider": fwpm.ProviderSubscription,
    "provider_context": fwpm.ProviderContextSubscription,
}


def subscribe(session: fwpm.Session, what: str, callback: Callable[[Any], object], **fields: Any) -> int:
    status, handle = getattr(session, f"{what}_subscribe_changes")(SUBSCRIPTIONS[what](**fields), callback)
    assert status is SUCCESS
    assert handle > 0
    return int(handle)


def unsubscribe(session: fwpm.Session, what: str, handle: int) -> NtStatus:
    status: NtStatus = getattr(session, f"{what}_unsubscribe_changes")(handle)
    return status


def two_sessions() -> tuple[FakeRunTime, fwpm.Management, fwpm.Session, fwpm.Session]:
    """The one that listens, and the one that acts."""
    fake, management = start()
    return fake, management, open_session(management), open_session(management)


def listen_to_all(session: fwpm.Session) -> list[Any]:
    told: list[Any] = []
    for what in TYPES:
        subscribe(session, what, told.append)
    return told


def add_one_of_each(session: fwpm.Session) -> tuple[int, int]:
    """In the order in which they name each other; ids of callout and filter."""
    assert session.provider_add(fwpm.Provider(provider_key=key("p"), display_data=named("p"))) is SUCCESS
    context = fwpm.ProviderContext(
        provider_context_key=key("x"), display_data=named("x"), provider_key=key("p")
    )
    assert session.provider_context_add(context) is SUCCESS
    sub_layer = fwpm.SubLayer(sub_layer_key=key("s"), display_data=named("s"), provider_key=key("p"))
    assert session.sub_layer_add(sub_layer) is SUCCESS
    callout_id = added(session.callout_add(a_callout("c", provider_key=key("p"))))
    full = a_callout_filter(
        sub_layer_key=key("s"),
        provider_key=key("p"),
        filter_key=key("f"),
        flags=fwpm.FilterFlags.HAS_PROVIDER_CONTEXT,
        provider_context_key=key("x"),
    )
    return callout_id, added(session.filter_add(full))


def changes(change_type: fwpm.ChangeType, callout_id: int, filter_id: int) -> list[Any]:
    """The records of `add_one_of_each`, in the order of adding."""
    return [
        fwpm.ProviderChange(change_type, key("p")),
        fwpm.ProviderContextChange(change_type, key("x")),
        fwpm.SubLayerChange(change_type, key("s")),
        fwpm.CalloutChange(change_type, key("c"), callout_id),
        fwpm.FilterChange(change_type, key("f"), filter_id),
    ]


# -- when and what


def test_every_type_of_object_is_told_as_it_comes_and_goes() -> None:
    _, _, listener, actor = two_sessions()
    told = listen_to_all(listener)
    callout_id, filter_id = add_one_of_each(actor)
    assert told == changes(ADD, callout_id, filter_id)
    told.clear()
    assert actor.filter_delete_by_id(filter_id) is SUCCESS
    assert actor.callout_delete_by_id(callout_id) is SUCCESS
    assert actor.sub_layer_delete_by_key(key("s")) is SUCCESS
    assert actor.provider_context_delete_by_key(key("x")) is SUCCESS
    assert actor.provider_delete_by_key(key("p")) is SUCCESS
    assert told == changes(DELETE, callout_id, filter_id)[::-1]


def test_mgmt_2_a_transaction_is_told_when_it_is_committed() -> None:
    """In one go, in the order of adding; deletions first, those that name others before those named."""
    _, _, listener, actor = two_sessions()
    told = listen_to_all(listener)
    assert actor.transaction_begin() is SUCCESS
    ids = add_one_of_each(actor)
    assert told == []
    assert actor.transaction_commit() is SUCCESS
    assert told == changes(ADD, *ids)
    told.clear()
    assert actor.transaction_begin() is SUCCESS
    assert actor.filter_delete_by_key(key("f")) is SUCCESS
    new = added(actor.filter_add(a_filter(filter_key=key("f"))))
    assert actor.callout_delete_by_key(key("c")) is SUCCESS
    assert actor.transaction_commit() is SUCCESS
    assert told == [
        fwpm.FilterChange(DELETE, key("f"), ids[1]),
        fwpm.CalloutChange(DELETE, key("c"), ids[0]),
        fwpm.FilterChange(ADD, key("f"), new),
    ]


def test_mgmt_2_an_aborted_transaction_never_was_and_a_read_only_one_neither() -> None:
    _, management, listener, actor = two_sessions()
    told = listen_to_all(listener)
    assert actor.transaction_begin() is SUCCESS
    add_one_of_each(actor)
    assert actor.transaction_abort() is SUCCESS
    assert actor.transaction_begin() is SUCCESS
    add_one_of_each(actor)
    assert actor.engine_close() is SUCCESS
    reader = open_session(management)
    assert reader.transaction_begin(fwpm.TransactionFlags.READ_ONLY) is SUCCESS
    assert told == []
    # Nor does its end undo, for listeners, what others committed meanwhile.
    ids = add_one_of_each(open_session(management))
    assert reader.transaction_commit() is SUCCESS
    assert told == changes(ADD, *ids)


def test_what_comes_and_goes_within_one_transaction_never_was() -> None:
    _, _, listener, actor = two_sessions()
    told = listen_to_all(listener)
    assert actor.transaction_begin() is SUCCESS
    assert actor.filter_delete_by_id(added(actor.filter_add(a_filter()))) is SUCCESS
    assert actor.transaction_commit() is SUCCESS
    assert told == []


def test_obj_2_the_end_of_a_dynamic_session_is_told() -> None:
    _, management, listener, _ = two_sessions()
    told = listen_to_all(listener)
    dynamic = open_session(management, fwpm.SessionFlags.DYNAMIC)
    ids = add_one_of_each(dynamic)
    told.clear()
    assert dynamic.engine_close() is SUCCESS
    assert sorted(told, key=repr) == sorted(changes(DELETE, *ids), key=repr)
    # What names others goes first.
    assert told[0] == fwpm.FilterChange(DELETE, key("f"), ids[1])
    assert told[-1] == fwpm.ProviderChange(DELETE, key("p"))


def test_mgmt_13_a_forced_removal_is_told_also_to_the_session_that_added_the_filter() -> None:
    fake, management, listener, _ = two_sessions()
    told: list[Any] = []
    filter_id = added(listener.filter_add(a_filter(filter_key=key("f"))))
    subscribe(listener, "filter", told.append)
    fake.busy.add(filter_id)
    assert management.force_delete(filter_id) is SUCCESS
    assert told == [fwpm.FilterChange(DELETE, key("f"), filter_id)]


def test_mgmt_13_a_refused_commit_tells_nothing() -> None:
    fake, _, listener, actor = two_sessions()
    told = listen_to_all(listener)
    filter_id = added(actor.filter_add(a_filter()))
    told.clear()
    assert actor.transaction_begin() is SUCCESS
    assert actor.filter_delete_by_id(filter_id) is SUCCESS
    fake.busy.add(filter_id)
    assert actor.transaction_commit() is NtStatus.STATUS_FWP_IN_USE
    assert told == []
    fake.busy.clear()
    assert actor.transaction_commit() is SUCCESS
    assert [one.change_type for one in told] == [DELETE]


def test_refused_calls_tell_nothing() -> None:
    _, _, listener, actor = two_sessions()
    told = listen_to_all(listener)
    assert actor.filter_add(a_filter("")) == (NtStatus.STATUS_FWP_NULL_DISPLAY_NAME, 0)
    assert actor.provider_delete_by_key(key("p")) is NtStatus.STATUS_FWP_PROVIDER_NOT_FOUND
    assert told == []


# -- who


def test_a_session_does_not_hear_of_what_it_did_itself() -> None:
    _, management, listener, actor = two_sessions()
    told = listen_to_all(listener)
    actors = listen_to_all(actor)
    ids = add_one_of_each(listener)
    assert told == []
    assert actors == changes(ADD, *ids)
    # Nor does the end of an engine reach a session: it has ended before.
    management.stop()
    assert told == []
    assert actors == changes(ADD, *ids)


def test_flags_choose_between_coming_and_going() -> None:
    _, _, listener, actor = two_sessions()
    came: list[fwpm.FilterChange] = []
    went: list[fwpm.FilterChange] = []
    subscribe(listener, "filter", came.append, flags=ON_ADD)
    subscribe(listener, "filter", went.append, flags=ON_DELETE)
    filter_id = added(actor.filter_add(a_filter()))
    assert actor.filter_delete_by_id(filter_id) is SUCCESS
    assert [one.change_type for one in came] == [ADD]
    assert [one.change_type for one in went] == [DELETE]


def test_templates_narrow_what_is_told() -> None:
    """Also for what goes: the object is judged as it was."""
    _, _, listener, actor = two_sessions()
    told: list[fwpm.FilterChange] = []
    template = fwpm.FilterEnumTemplate(
        layer_key=fwpm.LAYER_STREAM_V4,
        action_mask=int(ActionType.BLOCK) & 0xFF,
        conditions=[remote_port(80)],
    )
    subscribe(listener, "filter", told.append, enum_template=template)
    block = ActionType.BLOCK
    ids = [
        added(actor.filter_add(a_filter(action_type=block, conditions=[remote_port(80)]))),
        added(actor.filter_add(a_filter(action_type=block, conditions=[remote_port(81)]))),
        added(actor.filter_add(a_filter(conditions=[remote_port(80)]))),
        added(actor.filter_add(a_filter(action_type=block, layer_key=fwpm.LAYER_STREAM_V6))),
        added(actor.filter_add(a_filter(action_type=block))),
    ]
    for filter_id in ids:
        assert actor.filter_delete_by_id(filter_id) is SUCCESS
    assert [(one.change_type, one.filter_id) for one in told] == [
        (ADD, ids[0]),
        (ADD, ids[4]),
        (DELETE, ids[0]),
        (DELETE, ids[4]),
    ]


@pytest.mark.parametrize("what", TYPES)
def test_unsubscribing_ends_it(what: str) -> None:
    _, _, listener, actor = two_sessions()
    told: list[Any] = []
    handle = subscribe(listener, what, told.append)
    assert unsubscribe(actor, what, handle) is NtStatus.STATUS_FWP_WRONG_SESSION
    other = next(one for one in TYPES if one != what)
    assert unsubscribe(listener, other, handle) is NtStatus.STATUS_INVALID_HANDLE
    assert unsubscribe(listener, what, handle) is SUCCESS
    assert unsubscribe(listener, what, handle) is NtStatus.STATUS_INVALID_HANDLE
    add_one_of_each(actor)
    assert told == []


def test_a_closed_session_hears_nothing() -> None:
    """Not even of what its own end takes away."""
    _, management, _, actor = two_sessions()
    dynamic = open_session(management, fwpm.SessionFlags.DYNAMIC)
    told = listen_to_all(dynamic)
    add_one_of_each(dynamic)
    assert dynamic.engine_close() is SUCCESS
    add_one_of_each(actor)
    assert told == []


def test_subscriptions_of_all_sessions_can_be_listed() -> None:
    _, _, listener, actor = two_sessions()
    handles = {what: subscribe(listener, what, print, flags=ON_ADD) for what in TYPES}
    for what in TYPES:
        subscribe(actor, what, print)
        mine = SUBSCRIPTIONS[what](flags=ON_ADD, session_key=listener.session_key)
        theirs = SUBSCRIPTIONS[what](session_key=actor.session_key)
        assert getattr(actor, f"{what}_subscriptions_get")() == (SUCCESS, [mine, theirs])
        assert unsubscribe(listener, what, handles[what]) is SUCCESS
        assert getattr(listener, f"{what}_subscriptions_get")() == (SUCCESS, [theirs])
    assert actor.engine_close() is SUCCESS
    assert listener.filter_subscriptions_get() == (SUCCESS, [])


# -- with a run time that works


def test_mgmt_16_the_end_of_a_retiring_filter_is_told_and_may_be_answered() -> None:
    """It comes with a flow's own bytes, and is told outside of every callback: any call may be made."""
    a = Script(NMD(4), P(0))
    with Bench(a) as bench:
        status, watcher = bench.driver.engine.management.engine_open()
        assert status is SUCCESS
        assert watcher is not None
        told: list[tuple[str, int]] = []
        answers: list[NtStatus] = []

        def hear(change: fwpm.FilterChange) -> None:
            told.append((change.change_type.name, change.filter_id))
            answers.append(watcher.filter_add(a_filter("in its place"))[0])

        subscribe(watcher, "filter", hear)
        bench.send(b"ab")
        filter_id = bench.added[0].filter_ids.pop(0)
        assert bench.driver.session.filter_retire_by_id(filter_id) is SUCCESS
        assert told == []
        bench.send(b"cd")
        bench.settle()
        assert told == [("DELETE", filter_id)]
        assert answers == [SUCCESS]
        assert bench.to_remote == (b"abcd", False)


def test_v_40_is_reported_by_the_verifier() -> None:
    with Bench(violations=["V-40"]) as bench:
        status, watcher = bench.driver.engine.management.engine_open()
        assert status is SUCCESS
        assert watcher is not None
        subscribe(watcher, "filter", lambda change: 1 / 0)
        added(bench.driver.session.filter_add(a_filter()))
        bench.send(b"x")
        assert bench.to_remote == (b"x", False)


# -- refusals


@pytest.mark.parametrize("what", TYPES)
def test_mgmt_1_not_inside_a_transaction(what: str) -> None:
    fake, _, listener, _ = two_sessions()
    handle = subscribe(listener, what, print)
    for flags in (0, fwpm.TransactionFlags.READ_ONLY):
        assert listener.transaction_begin(flags) is SUCCESS
        call = getattr(listener, f"{what}_subscribe_changes")
        assert call(SUBSCRIPTIONS[what](), print) == (NtStatus.STATUS_FWP_TXN_IN_PROGRESS, 0)
        assert unsubscribe(listener, what, handle) is NtStatus.STATUS_FWP_TXN_IN_PROGRESS
        assert listener.transaction_abort() is SUCCESS
    assert {rule for _, _, rule in fake.refusals} == {"REG-10"}
    assert unsubscribe(listener, what, handle) is SUCCESS


@pytest.mark.parametrize("flags", [0, 4, 0x10000001])
def test_flags_that_mean_nothing(flags: int) -> None:
    _, _, listener, _ = two_sessions()
    answer = listener.filter_subscribe_changes(fwpm.FilterSubscription(flags=flags), print)
    assert answer == (NtStatus.STATUS_FWP_INVALID_FLAGS, 0)


def test_reg_10_wrong_arguments() -> None:
    _, _, listener, _ = two_sessions()
    no_callback = listener.filter_subscribe_changes(fwpm.FilterSubscription(), None)
    assert no_callback == (NtStatus.STATUS_FWP_NULL_POINTER, 0)
    wrong_template = fwpm.FilterEnumTemplate(enum_type=7)
    refused = listener.filter_subscribe_changes(fwpm.FilterSubscription(enum_template=wrong_template), print)
    assert refused == (NtStatus.STATUS_FWP_INVALID_ENUMERATOR, 0)
    wrong: Any = fwpm.CalloutSubscription()
    with pytest.raises(TypeError, match="FilterSubscription"):
        listener.filter_subscribe_changes(wrong, print)
    not_callable: Any = 5
    with pytest.raises(TypeError, match="function"):
        listener.filter_subscribe_changes(fwpm.FilterSubscription(), not_callable)
    assert listener.filter_subscriptions_get() == (SUCCESS, [])


# -- callbacks that do things


def test_v_40_a_callback_that_raises_takes_nothing_down() -> None:
    fake, _, listener, actor = two_sessions()
    told: list[Any] = []

    def fail(change: object) -> None:
        raise RuntimeError("the listener's own fault")

    subscribe(listener, "filter", fail)
    subscribe(listener, "filter", told.append)
    filter_id = added(actor.filter_add(a_filter()))
    assert [one.filter_id for one in told] == [filter_id]
    assert fake.reports == ["V-40"]
    assert [one.filter_id for one in actor.filter_enum()[1]] == [filter_id]


def test_a_callback_may_change_objects_and_everybody_hears_in_order() -> None:
    """The answer to a change is told after the change, also to those whose turn comes later."""
    _, management, listener, actor = two_sessions()
    told: list[str] = []
    answers: list[int] = []

    def answer(change: fwpm.FilterChange) -> None:
        if change.change_type is ADD and not answers:
            answers.append(added(listener.filter_add(a_filter("answer", filter_key=key("answer")))))

    subscribe(listener, "filter", answer)
    last = open_session(management)
    label = {key("first"): "first", key("second"): "second", key("answer"): "answer"}
    subscribe(last, "filter", lambda change: told.append(label[change.filter_key]))
    assert actor.transaction_begin() is SUCCESS
    added(actor.filter_add(a_filter("first", filter_key=key("first"))))
    added(actor.filter_add(a_filter("second", filter_key=key("second"))))
    assert actor.transaction_commit() is SUCCESS
    assert told == ["first", "second", "answer"]


def test_a_callback_may_end_its_own_or_another_subscription() -> None:
    _, _, listener, actor = two_sessions()
    told: list[str] = []
    handles: list[int] = []

    def first(change: fwpm.FilterChange) -> None:
        told.append("first")
        for handle in handles:
            assert unsubscribe(listener, "filter", handle) is SUCCESS

    handles.append(subscribe(listener, "filter", first))
    handles.append(subscribe(listener, "filter", lambda change: told.append("second")))
    assert actor.transaction_begin() is SUCCESS
    added(actor.filter_add(a_filter("one")))
    added(actor.filter_add(a_filter("two")))
    assert actor.transaction_commit() is SUCCESS
    assert told == ["first"]


def test_a_new_subscription_does_not_hear_of_the_past() -> None:
    _, _, listener, actor = two_sessions()
    told: list[int] = []

    def subscribe_another(change: fwpm.FilterChange) -> None:
        if not told:
            told.append(0)
            subscribe(listener, "filter", lambda change: told.append(change.filter_id))

    subscribe(listener, "filter", subscribe_another)
    assert actor.transaction_begin() is SUCCESS
    added(actor.filter_add(a_filter("one")))
    added(actor.filter_add(a_filter("two")))
    assert actor.transaction_commit() is SUCCESS
    assert told == [0]
    third = added(actor.filter_add(a_filter("three")))
    assert told == [0, third]


def test_irq_6_a_waiting_writer_that_commits_at_once_is_told_after_the_one_before() -> None:
    """The lock goes on before the first commit has returned; the order of the commits stays."""
    _, management, listener, actor = two_sessions()
    told: list[str] = []
    label = {key("early"): "early", key("late"): "late"}
    subscribe(listener, "filter", lambda change: told.append(label[change.filter_key]))
    late = open_session(management)
    assert actor.transaction_begin() is SUCCESS
    assert late.transaction_begin() is NtStatus.STATUS_PENDING
    assert late.ticket is not None

    def write_at_once() -> None:
        added(late.filter_add(a_filter("late", filter_key=key("late"))))
        assert late.transaction_commit() is SUCCESS

    late.ticket.when_done(write_at_once)
    added(actor.filter_add(a_filter("early", filter_key=key("early"))))
    assert actor.transaction_commit() is SUCCESS
    assert told == ["early", "late"]
