"""Providers, sublayers, callouts: keys, lifetimes, references (OBJ-3..OBJ-9, MGMT-15), provider contexts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from tests.fwpm.support import (
    ADD,
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
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps._filter import Filter2

DYNAMIC = fwpm.SessionFlags.DYNAMIC
USES_CONTEXT = fwpm.CalloutFlags.USES_PROVIDER_CONTEXT
HAS_CONTEXT = fwpm.FilterFlags.HAS_PROVIDER_CONTEXT


def a_provider(name: str = "p") -> fwpm.Provider:
    return fwpm.Provider(provider_key=key(name), display_data=named(name))


def a_sub_layer(name: str = "s", provider_key: UUID | None = None, weight: int = 0) -> fwpm.SubLayer:
    return fwpm.SubLayer(
        sub_layer_key=key(name), display_data=named(name), provider_key=provider_key, weight=weight
    )


def a_context(name: str = "x", data: object = b"", type: int = 8) -> fwpm.ProviderContext:
    return fwpm.ProviderContext(
        provider_context_key=key(name), display_data=named(name), data=data, type=type
    )


# -- keys and names


def test_obj_6_keys_are_unique_per_type_only() -> None:
    _, management = start()
    session = open_session(management)
    assert session.provider_add(a_provider("same")) is SUCCESS
    assert session.sub_layer_add(a_sub_layer("same")) is SUCCESS
    added(session.callout_add(a_callout("same")))
    added(session.filter_add(a_filter(filter_key=key("same"))))
    assert session.provider_context_add(a_context("same")) is SUCCESS


def test_obj_6_a_zero_key_is_replaced_by_a_generated_one() -> None:
    _, management = start()
    session = open_session(management)
    for name in ("one", "two"):
        assert session.sub_layer_add(fwpm.SubLayer(display_data=named(name))) is SUCCESS
    keys = [one.sub_layer_key for one in session.sub_layer_enum()[1]]
    assert len(set(keys)) == 4
    assert fwpm.ZERO_KEY not in keys


def test_obj_7_existing_keys_and_missing_names() -> None:
    _, management = start()
    session = open_session(management)
    exists, nameless = NtStatus.STATUS_FWP_ALREADY_EXISTS, NtStatus.STATUS_FWP_NULL_DISPLAY_NAME
    assert session.provider_add(a_provider()) is SUCCESS
    assert session.provider_add(a_provider()) is exists
    assert session.provider_add(fwpm.Provider()) is nameless
    assert session.sub_layer_add(a_sub_layer()) is SUCCESS
    assert session.sub_layer_add(a_sub_layer()) is exists
    assert session.sub_layer_add(fwpm.SubLayer()) is nameless
    added(session.callout_add(a_callout()))
    assert session.callout_add(a_callout()) == (exists, 0)
    assert session.callout_add(fwpm.Callout(applicable_layer=fwpm.LAYER_STREAM_V4)) == (nameless, 0)
    assert session.provider_context_add(a_context()) is SUCCESS
    assert session.provider_context_add(a_context()) is exists
    assert session.provider_context_add(fwpm.ProviderContext()) is nameless
    added(session.filter_add(a_filter(filter_key=key("f"))))
    assert session.filter_add(a_filter(filter_key=key("f"))) == (exists, 0)


def test_obj_7_a_key_is_free_again_after_deletion() -> None:
    _, management = start()
    session = open_session(management)
    assert session.sub_layer_add(a_sub_layer(weight=1)) is SUCCESS
    assert session.sub_layer_delete_by_key(key("s")) is SUCCESS
    assert session.sub_layer_get_by_key(key("s")) == (NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND, None)
    assert session.sub_layer_add(a_sub_layer(weight=2)) is SUCCESS
    assert session.sub_layer_get_by_key(key("s")) == (SUCCESS, a_sub_layer(weight=2))


def test_obj_9_filter_ids_are_never_used_again() -> None:
    _, management = start()
    session = open_session(management)
    seen = set()
    for _ in range(3):
        filter_id = added(session.filter_add(a_filter(filter_key=key("f"))))
        assert filter_id not in seen
        seen.add(filter_id)
        assert session.filter_delete_by_key(key("f")) is SUCCESS


@pytest.mark.parametrize("weight", [-1, 0x10000])
def test_sub_layer_weight_is_a_uint16(weight: int) -> None:
    _, management = start()
    session = open_session(management)
    assert session.sub_layer_add(a_sub_layer(weight=weight)) is NtStatus.STATUS_FWP_INVALID_WEIGHT


def test_unknown_flags_are_refused() -> None:
    _, management = start()
    session = open_session(management)
    invalid = NtStatus.STATUS_FWP_INVALID_FLAGS
    assert session.provider_add(fwpm.Provider(display_data=named("p"), flags=0x10)) is invalid
    assert session.sub_layer_add(fwpm.SubLayer(display_data=named("s"), flags=2)) is invalid
    assert session.callout_add(a_callout(flags=fwpm.CalloutFlags.REGISTERED)) == (invalid, 0)
    assert session.callout_add(a_callout(flags=1)) == (invalid, 0)


def test_obj_3_persistent_is_accepted_as_static() -> None:
    _, management = start()
    session = open_session(management)
    persistent = fwpm.SubLayerFlags.PERSISTENT
    assert session.sub_layer_add(fwpm.SubLayer(display_data=named("s"), flags=persistent)) is SUCCESS


# -- lifetimes and references


def test_obj_3_built_in_sublayers_cannot_be_deleted() -> None:
    _, management = start()
    session = open_session(management)
    built_in = NtStatus.STATUS_FWP_BUILTIN_OBJECT
    assert session.sub_layer_delete_by_key(fwpm.SUBLAYER_UNIVERSAL) is built_in
    assert session.sub_layer_delete_by_key(fwpm.SUBLAYER_INSPECTION) is built_in


def test_deleting_what_does_not_exist() -> None:
    _, management = start()
    session = open_session(management)
    assert session.provider_delete_by_key(key("p")) is NtStatus.STATUS_FWP_PROVIDER_NOT_FOUND
    assert session.sub_layer_delete_by_key(key("s")) is NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND
    assert session.callout_delete_by_key(key("c")) is NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND
    assert session.callout_delete_by_id(77) is NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND
    assert session.filter_delete_by_id(77) is NtStatus.STATUS_FWP_FILTER_NOT_FOUND
    assert session.filter_delete_by_key(key("f")) is NtStatus.STATUS_FWP_FILTER_NOT_FOUND
    missing = NtStatus.STATUS_FWP_PROVIDER_CONTEXT_NOT_FOUND
    assert session.provider_context_delete_by_key(key("x")) is missing


def test_obj_4_static_may_not_name_dynamic() -> None:
    _, management = start()
    static, dynamic = open_session(management), open_session(management, DYNAMIC)
    assert dynamic.provider_add(a_provider()) is SUCCESS
    assert dynamic.sub_layer_add(a_sub_layer()) is SUCCESS
    added(dynamic.callout_add(a_callout()))
    assert dynamic.provider_context_add(a_context()) is SUCCESS
    mismatch = NtStatus.STATUS_FWP_LIFETIME_MISMATCH
    assert static.sub_layer_add(a_sub_layer("t", provider_key=key("p"))) is mismatch
    assert static.callout_add(a_callout("d", provider_key=key("p"))) == (mismatch, 0)
    assert static.filter_add(a_filter(provider_key=key("p"))) == (mismatch, 0)
    assert static.filter_add(a_filter(sub_layer_key=key("s"))) == (mismatch, 0)
    assert static.filter_add(a_callout_filter()) == (mismatch, 0)
    assert static.filter_add(a_filter(flags=HAS_CONTEXT, provider_context_key=key("x"))) == (mismatch, 0)


def test_obj_4_dynamic_may_name_static_and_its_own_but_not_anothers() -> None:
    _, management = start()
    static, mine, other = (open_session(management, flags) for flags in (0, DYNAMIC, DYNAMIC))
    assert static.sub_layer_add(a_sub_layer("static")) is SUCCESS
    assert mine.sub_layer_add(a_sub_layer("mine")) is SUCCESS
    added(mine.filter_add(a_filter(sub_layer_key=key("static"))))
    added(mine.filter_add(a_filter(sub_layer_key=key("mine"))))
    assert other.filter_add(a_filter(sub_layer_key=key("mine"))) == (
        NtStatus.STATUS_FWP_LIFETIME_MISMATCH,
        0,
    )


def test_obj_5_a_named_object_is_in_use() -> None:
    _, management = start()
    session = open_session(management)
    assert session.provider_add(a_provider()) is SUCCESS
    assert session.sub_layer_add(a_sub_layer(provider_key=key("p"))) is SUCCESS
    filter_id = added(session.filter_add(a_filter(sub_layer_key=key("s"))))
    in_use = NtStatus.STATUS_FWP_IN_USE
    assert session.provider_delete_by_key(key("p")) is in_use
    assert session.sub_layer_delete_by_key(key("s")) is in_use
    assert session.filter_delete_by_id(filter_id) is SUCCESS
    assert session.sub_layer_delete_by_key(key("s")) is SUCCESS
    assert session.provider_delete_by_key(key("p")) is SUCCESS


# Which member of which record names which type (OBJ-6): (the naming record, the type named).
NAMING: list[tuple[Callable[[], Any], str]] = [
    (lambda: a_sub_layer("naming", provider_key=key("p")), "provider"),
    (lambda: a_callout("naming", provider_key=key("p")), "provider"),
    (lambda: replace(a_context("naming"), provider_key=key("p")), "provider"),
    (lambda: a_filter(filter_key=key("naming"), provider_key=key("p")), "provider"),
    (lambda: a_filter(filter_key=key("naming"), sub_layer_key=key("s")), "sub_layer"),
    (lambda: a_callout_filter(filter_key=key("naming")), "callout"),
    (
        lambda: a_filter(filter_key=key("naming"), flags=HAS_CONTEXT, provider_context_key=key("x")),
        "provider_context",
    ),
]
NAMED_KEYS = {"provider": "p", "sub_layer": "s", "callout": "c", "provider_context": "x"}


def add_record(session: fwpm.Session, record: Any) -> NtStatus:
    """Whatever its type."""
    calls: dict[type[Any], Callable[[Any], Any]] = {
        fwpm.Provider: session.provider_add,
        fwpm.SubLayer: session.sub_layer_add,
        fwpm.Callout: session.callout_add,
        fwpm.ProviderContext: session.provider_context_add,
        fwpm.Filter: session.filter_add,
    }
    answer = calls[type(record)](record)
    return NtStatus(answer[0] if isinstance(answer, tuple) else answer)


def delete_naming(session: fwpm.Session, record: Any) -> NtStatus:
    calls: dict[type[Any], Callable[[UUID], NtStatus]] = {
        fwpm.SubLayer: session.sub_layer_delete_by_key,
        fwpm.Callout: session.callout_delete_by_key,
        fwpm.ProviderContext: session.provider_context_delete_by_key,
        fwpm.Filter: session.filter_delete_by_key,
    }
    return calls[type(record)](key("naming"))


@pytest.mark.parametrize(("naming", "named_type"), NAMING)
def test_obj_4_and_5_every_way_to_name_an_object(naming: Callable[[], Any], named_type: str) -> None:
    """OBJ-4, OBJ-5: missing, of a shorter life, in use, and free again, for each pair of types."""
    _, management = start()
    static, dynamic = open_session(management), open_session(management, DYNAMIC)
    record = naming()
    missing = NtStatus[f"STATUS_FWP_{named_type.upper().replace('SUB_LAYER', 'SUBLAYER')}_NOT_FOUND"]
    assert add_record(static, record) is missing
    named_records = {
        "provider": a_provider(),
        "sub_layer": a_sub_layer(),
        "callout": a_callout(),
        "provider_context": a_context(),
    }
    assert add_record(dynamic, named_records[named_type]) is SUCCESS
    assert add_record(static, record) is NtStatus.STATUS_FWP_LIFETIME_MISMATCH
    delete = getattr(static, f"{named_type}_delete_by_key")
    assert delete(key(NAMED_KEYS[named_type])) is SUCCESS
    assert add_record(static, named_records[named_type]) is SUCCESS
    assert add_record(dynamic, record) is SUCCESS
    assert delete(key(NAMED_KEYS[named_type])) is NtStatus.STATUS_FWP_IN_USE
    assert delete_naming(static, record) is SUCCESS
    assert delete(key(NAMED_KEYS[named_type])) is SUCCESS


def test_obj_5_counts_what_the_transaction_sees() -> None:
    _, management = start()
    session = open_session(management)
    assert session.sub_layer_add(a_sub_layer()) is SUCCESS
    filter_id = added(session.filter_add(a_filter(sub_layer_key=key("s"))))
    assert session.transaction_begin() is SUCCESS
    assert session.filter_delete_by_id(filter_id) is SUCCESS
    assert session.sub_layer_delete_by_key(key("s")) is SUCCESS
    assert session.transaction_commit() is SUCCESS


# -- callouts


def test_obj_8_the_callout_id_is_shared_with_registration() -> None:
    """OBJ-8, OBJ-9: the run time assigns the id, whichever comes first."""
    fake, management = start()
    session = open_session(management)
    registered_first = fake.callout_id_for(key("c"))
    assert session.callout_add(a_callout()) == (SUCCESS, registered_first)
    added_first = added(session.callout_add(a_callout("d")))
    assert fake.callout_id_for(key("d")) == added_first


def test_obj_8_an_added_callout_shows_whether_it_is_registered() -> None:
    fake, management = start()
    session = open_session(management)
    callout_id = added(session.callout_add(a_callout(flags=USES_CONTEXT)))
    status, record = session.callout_get_by_key(key("c"))
    assert status is SUCCESS
    assert record == a_callout(flags=USES_CONTEXT, callout_id=callout_id)
    fake.registered.add(key("c"))
    status, record = session.callout_get_by_key(key("c"))
    assert record is not None
    assert record.flags == USES_CONTEXT | fwpm.CalloutFlags.REGISTERED
    assert session.callout_enum() == (SUCCESS, [record])
    assert session.callout_get_by_id(callout_id) == (SUCCESS, record)
    assert session.callout_get_by_id(77) == (NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND, None)


def test_obj_8_added_callouts_are_part_of_the_filter_set() -> None:
    fake, management = start()
    session = open_session(management)
    callout_id = added(session.callout_add(a_callout(applicable_layer=fwpm.LAYER_STREAM_V6)))
    assert fake.installed.added_callouts == {(callout_id, 22)}
    assert session.callout_delete_by_id(callout_id) is SUCCESS
    assert fake.installed.added_callouts == frozenset()


def test_callout_needs_an_existing_layer() -> None:
    _, management = start(profile="vista")
    session = open_session(management)
    missing = (NtStatus.STATUS_FWP_LAYER_NOT_FOUND, 0)
    assert session.callout_add(a_callout(applicable_layer=fwpm.ZERO_KEY)) == missing
    assert session.callout_add(a_callout(applicable_layer=fwpm.LAYER_ALE_CONNECT_REDIRECT_V4)) == missing


@pytest.mark.parametrize("by_id", [False, True])
def test_mgmt_15_a_callout_with_filters_is_in_use(by_id: bool) -> None:
    _, management = start()
    session = open_session(management)
    callout_id = added(session.callout_add(a_callout()))
    filter_id = added(session.filter_add(a_callout_filter()))

    def delete() -> NtStatus:
        if by_id:
            return session.callout_delete_by_id(callout_id)
        return session.callout_delete_by_key(key("c"))

    assert delete() is NtStatus.STATUS_FWP_IN_USE
    assert session.filter_delete_by_id(filter_id) is SUCCESS
    assert delete() is SUCCESS
    assert delete() is NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND


def test_sub_layer_enum_is_in_evaluation_order() -> None:
    _, management = start()
    session = open_session(management)
    assert session.sub_layer_add(a_sub_layer("low", weight=1)) is SUCCESS
    assert session.sub_layer_add(a_sub_layer("high", weight=0xFFFF)) is SUCCESS
    status, records = session.sub_layer_enum()
    assert status is SUCCESS
    assert [(one.sub_layer_key, one.weight) for one in records] == [
        (key("high"), 0xFFFF),
        (fwpm.SUBLAYER_UNIVERSAL, 0x8000),
        (key("low"), 1),
        (fwpm.SUBLAYER_INSPECTION, 0),
    ]


# -- provider contexts


def test_sc_136_the_callout_is_given_the_provider_context() -> None:
    """SC-136, MGMT-17, MGMT-18: notify and classify see it; without one it is NULL; IN_USE until the end."""
    fake, management = start()
    session = open_session(management)
    seen: list[tuple[int, object | None, int]] = []

    def notify(notify_type: int, filter: Filter2) -> int:
        seen.append((notify_type, filter.provider_context, filter.context))
        return SUCCESS

    fake.registered.add(key("c"))
    fake.on_notify = notify
    added(session.callout_add(a_callout(flags=USES_CONTEXT)))
    assert session.provider_context_add(a_context(data=b"n=3")) is SUCCESS
    with_context = added(
        session.filter_add(a_callout_filter("with", flags=HAS_CONTEXT, provider_context_key=key("x")))
    )
    added(session.filter_add(a_callout_filter("without", raw_context=9)))
    expected = a_context(data=b"n=3")
    by_name = {one.name: one for one in fake.installed}
    assert by_name["with"].provider_context == expected
    assert by_name["without"].provider_context is None
    assert session.provider_context_delete_by_key(key("x")) is NtStatus.STATUS_FWP_IN_USE
    assert session.filter_delete_by_id(with_context) is SUCCESS
    assert session.provider_context_delete_by_key(key("x")) is SUCCESS
    assert seen == [(ADD, expected, 0), (ADD, None, 9), (DELETE, expected, 0)]


def test_mgmt_18_provider_object_is_handed_over_as_it_is() -> None:
    """MGMT-18: what configuration decoded becomes filter.provider_context, the same object."""
    fake, management = start()
    session = open_session(management)
    added(session.callout_add(a_callout(flags=USES_CONTEXT)))
    options = {"n": 3}
    added(session.filter_add(a_callout_filter(provider_object=options)))
    assert next(iter(fake.installed)).provider_context is options


def test_mgmt_18_a_callout_that_does_not_use_contexts_gets_none() -> None:
    fake, management = start()
    session = open_session(management)
    added(session.callout_add(a_callout()))
    assert session.provider_context_add(a_context(data=b"n=3")) is SUCCESS
    added(
        session.filter_add(
            a_callout_filter(
                flags=HAS_CONTEXT, provider_context_key=key("x"), provider_object=1, raw_context=5
            )
        )
    )
    (installed,) = fake.installed
    assert (installed.provider_context, installed.context) == (None, 5)


def test_mgmt_17_the_key_counts_with_the_flag_only() -> None:
    _, management = start()
    session = open_session(management)
    added(session.filter_add(a_filter(provider_context_key=key("x"))))
    missing = NtStatus.STATUS_FWP_PROVIDER_CONTEXT_NOT_FOUND
    assert session.filter_add(a_filter(flags=HAS_CONTEXT, provider_context_key=key("x"))) == (missing, 0)
    assert session.filter_add(a_filter(flags=HAS_CONTEXT)) == (missing, 0)


def test_mgmt_17_the_data_is_copied() -> None:
    _, management = start()
    session = open_session(management)
    buffer = bytearray(b"before")
    assert session.provider_context_add(a_context(data=buffer)) is SUCCESS
    buffer[:] = b"after!"
    assert session.provider_context_get_by_key(key("x")) == (SUCCESS, a_context(data=b"before"))


def test_mgmt_17_other_types_are_kept_but_fit_no_layer_here() -> None:
    _, management = start()
    session = open_session(management)
    assert session.provider_context_add(a_context(data=[1, 2], type=7)) is SUCCESS
    assert session.provider_context_get_by_key(key("x")) == (SUCCESS, a_context(data=[1, 2], type=7))
    assert session.filter_add(a_filter(flags=HAS_CONTEXT, provider_context_key=key("x"))) == (
        NtStatus.STATUS_FWP_CONTEXT_INCOMPATIBLE_WITH_LAYER,
        0,
    )


def test_mgmt_17_a_general_context_carries_bytes() -> None:
    _, management = start()
    with pytest.raises(TypeError, match="bytes"):
        open_session(management).provider_context_add(a_context(data="text"))


def test_callout_key_counts_with_a_callout_action_only() -> None:
    fake, management = start()
    session = open_session(management)
    added(session.filter_add(a_filter(action_type=ActionType.BLOCK, callout_key=key("nowhere"))))
    (installed,) = fake.installed
    assert (installed.callout_id, installed.callout_key) == (0, None)
