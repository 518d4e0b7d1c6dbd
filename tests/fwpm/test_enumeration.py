"""Enumerations: handles that page through a snapshot, whole lists, and what each member of a template chooses
(FWPM_*_ENUM_TEMPLATE0; the calling convention is REG-10's)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from tests.fwpm.support import (
    SUCCESS,
    a_callout,
    a_callout_filter,
    a_filter,
    added,
    condition,
    key,
    named,
    open_session,
    remote_port,
    start,
)
from wfpstream import fwpm
from wfpstream.fwp import (
    ACTION_FLAG_CALLOUT,
    ACTION_FLAG_TERMINATING,
    ActionType,
    DataType,
    FwpValue,
    MatchType,
    NtStatus,
    Range,
    V4AddrMask,
    ipv4_value,
    uint16,
    uint32,
    uint64,
)

BLOCKING = ActionType.BLOCK ^ ACTION_FLAG_TERMINATING
PERMITTING = ActionType.PERMIT ^ ACTION_FLAG_TERMINATING
SORTED = fwpm.FilterEnumFlags.SORTED


def names(answer: tuple[NtStatus, list[fwpm.Filter]]) -> list[str]:
    status, records = answer
    assert status is SUCCESS
    return [one.display_data.name for one in records]


def a_session(*filters: fwpm.Filter) -> fwpm.Session:
    """A session that has added these filters, in this order."""
    _, management = start()
    session = open_session(management)
    for one in filters:
        added(session.filter_add(one))
    return session


# -- handles


Maker = Callable[[fwpm.Session, int], object]


def add_filter(session: fwpm.Session, number: int) -> object:
    return added(session.filter_add(a_filter(f"{number}", filter_key=key(f"{number}"))))


def add_callout(session: fwpm.Session, number: int) -> object:
    return added(session.callout_add(a_callout(f"{number}")))


def add_sub_layer(session: fwpm.Session, number: int) -> object:
    record = fwpm.SubLayer(
        sub_layer_key=key(f"{number}"), display_data=named(f"{number}"), weight=99 - number
    )
    return session.sub_layer_add(record)


def add_provider(session: fwpm.Session, number: int) -> object:
    return session.provider_add(fwpm.Provider(provider_key=key(f"{number}"), display_data=named(f"{number}")))


def add_context(session: fwpm.Session, number: int) -> object:
    record = fwpm.ProviderContext(provider_context_key=key(f"{number}"), display_data=named(f"{number}"))
    return session.provider_context_add(record)


TYPES = {
    "filter": add_filter,
    "callout": add_callout,
    "sub_layer": add_sub_layer,
    "provider": add_provider,
    "provider_context": add_context,
}


def calls(session: fwpm.Session, what: str) -> tuple[Any, Any, Any]:
    return (
        getattr(session, f"{what}_create_enum_handle"),
        getattr(session, f"{what}_enum"),
        getattr(session, f"{what}_destroy_enum_handle"),
    )


def shown(records: list[Any]) -> list[str]:
    """Names of ours among the records: the built-in sublayers are not the point."""
    return [one.display_data.name for one in records if one.display_data.name.isdigit()]


@pytest.mark.parametrize("what", TYPES)
def test_a_handle_pages_through_what_was_there_when_it_was_made(what: str) -> None:
    _, management = start()
    session = open_session(management)
    create, enumerate_, destroy = calls(session, what)
    for number in range(5):
        TYPES[what](session, number)
    status, handle = create(None)
    assert status is SUCCESS
    TYPES[what](session, 5)
    assert getattr(session, f"{what}_delete_by_key")(key("0")) is SUCCESS
    pages = [enumerate_(handle, 2) for _ in range(5)]
    assert [status for status, _ in pages] == [SUCCESS] * 5
    everything = [one for _, page in pages for one in page]
    assert shown(everything) == ["0", "1", "2", "3", "4"]
    assert shown(enumerate_()[1]) == ["1", "2", "3", "4", "5"]
    # Fewer than asked for: it is exhausted, and stays so.
    assert enumerate_(handle, 2) == (SUCCESS, [])
    assert destroy(handle) is SUCCESS
    assert enumerate_(handle, 2) == (NtStatus.STATUS_INVALID_HANDLE, [])
    assert destroy(handle) is NtStatus.STATUS_INVALID_HANDLE


def test_a_page_of_nothing_moves_nothing() -> None:
    session = a_session(a_filter("one"))
    handle = added(session.filter_create_enum_handle())
    assert session.filter_enum(handle, 0) == (SUCCESS, [])
    assert names(session.filter_enum(handle, 10)) == ["one"]


@pytest.mark.parametrize("what", TYPES)
def test_a_handle_belongs_to_its_session_and_its_type(what: str) -> None:
    _, management = start()
    session, other = open_session(management), open_session(management)
    create, enumerate_, destroy = calls(session, what)
    handle = added(create(None))
    _, others_enum, others_destroy = calls(other, what)
    assert others_enum(handle, 1) == (NtStatus.STATUS_FWP_WRONG_SESSION, [])
    assert others_destroy(handle) is NtStatus.STATUS_FWP_WRONG_SESSION
    for stranger in TYPES.keys() - {what}:
        _, strange_enum, strange_destroy = calls(session, stranger)
        assert strange_enum(handle, 1) == (NtStatus.STATUS_INVALID_HANDLE, [])
        assert strange_destroy(handle) is NtStatus.STATUS_INVALID_HANDLE
    assert enumerate_(10**6, 1) == (NtStatus.STATUS_INVALID_HANDLE, [])
    assert destroy(handle) is SUCCESS


def test_a_session_takes_its_handles_with_it() -> None:
    fake, management = start()
    session, other = open_session(management), open_session(management)
    handle = added(session.filter_create_enum_handle())
    assert session.engine_close() is SUCCESS
    assert session.filter_enum(handle, 1) == (NtStatus.STATUS_INVALID_HANDLE, [])
    assert other.filter_enum(handle, 1) == (NtStatus.STATUS_INVALID_HANDLE, [])
    # VRF-6: a refused call is told with the rule that decided it.
    assert fake.refusals[-1] == ("FwpmFilterEnum0", NtStatus.STATUS_INVALID_HANDLE, "REG-10")


def test_mgmt_2_a_handle_made_in_a_transaction_shows_what_the_transaction_sees() -> None:
    _, management = start()
    session, other = open_session(management), open_session(management)
    assert session.transaction_begin() is SUCCESS
    added(session.filter_add(a_filter("new")))
    mine, theirs = added(session.filter_create_enum_handle()), added(other.filter_create_enum_handle())
    assert session.transaction_abort() is SUCCESS
    assert names(session.filter_enum(mine, 9)) == ["new"]
    assert other.filter_enum(theirs, 9) == (SUCCESS, [])


def test_reg_10_arguments_of_a_wrong_type_raise() -> None:
    session = a_session()
    wrong: Any = fwpm.CalloutEnumTemplate()
    for call in (session.filter_create_enum_handle, session.filter_enum, session.provider_enum):
        with pytest.raises(TypeError, match="EnumTemplate"):
            call(wrong)
    handle = added(session.filter_create_enum_handle())
    for count in (None, -1, "2"):
        bad: Any = count
        with pytest.raises(TypeError, match="how many"):
            session.filter_enum(handle, bad)


# -- what a template of filters chooses


def test_layers_and_the_short_form_of_a_layer_key() -> None:
    session = a_session(
        a_filter("light", weight=uint64(1)),
        a_filter("six", layer_key=fwpm.LAYER_STREAM_V6),
        a_filter("heavy", weight=uint64(2)),
    )
    assert names(session.filter_enum()) == ["heavy", "light", "six"]
    assert names(session.filter_enum(fwpm.LAYER_STREAM_V4)) == ["heavy", "light"]
    template = fwpm.FilterEnumTemplate(layer_key=fwpm.LAYER_STREAM_V4)
    assert names(session.filter_enum(template)) == ["light", "heavy"]
    sorted_ = fwpm.FilterEnumTemplate(layer_key=fwpm.LAYER_STREAM_V4, flags=SORTED)
    assert names(session.filter_enum(sorted_)) == ["heavy", "light"]
    unknown = fwpm.FilterEnumTemplate(layer_key=key("no layer"))
    assert session.filter_enum(unknown) == (NtStatus.STATUS_FWP_LAYER_NOT_FOUND, [])
    assert session.filter_create_enum_handle(unknown) == (NtStatus.STATUS_FWP_LAYER_NOT_FOUND, 0)


def test_arb_1_sorted_goes_by_sublayer_first() -> None:
    session = a_session()
    assert (
        session.sub_layer_add(fwpm.SubLayer(sub_layer_key=key("low"), display_data=named("low"), weight=1))
        is SUCCESS
    )
    added(session.filter_add(a_filter("below", sub_layer_key=key("low"), weight=uint64(9))))
    added(session.filter_add(a_filter("above", weight=uint64(1))))
    assert names(session.filter_enum(fwpm.FilterEnumTemplate(flags=SORTED))) == ["above", "below"]
    assert names(session.filter_enum(fwpm.FilterEnumTemplate())) == ["below", "above"]


def test_the_best_terminating_match_is_one() -> None:
    session = a_session()
    added(session.callout_add(a_callout()))
    added(session.filter_add(a_filter("light", weight=uint64(1))))
    added(session.filter_add(a_filter("heavy", weight=uint64(2), action_type=ActionType.BLOCK)))
    unknown = a_callout_filter("unknown", weight=uint64(3), action_type=ActionType.CALLOUT_UNKNOWN)
    added(session.filter_add(unknown))
    best = fwpm.FilterEnumTemplate(flags=fwpm.FilterEnumFlags.BEST_TERMINATING_MATCH)
    assert names(session.filter_enum(best)) == ["heavy"]
    nothing = fwpm.FilterEnumTemplate(
        flags=fwpm.FilterEnumFlags.BEST_TERMINATING_MATCH, layer_key=fwpm.LAYER_STREAM_V6
    )
    assert session.filter_enum(nothing) == (SUCCESS, [])


def test_action_masks_and_callouts() -> None:
    session = a_session(a_filter("permit"), a_filter("block", action_type=ActionType.BLOCK))
    for name in ("c", "d"):
        added(session.callout_add(a_callout(name)))
        # Inspection: the numbers of the other callout actions share bits with BLOCK and PERMIT.
        inspection = ActionType.CALLOUT_INSPECTION
        added(session.filter_add(a_callout_filter(f"call {name}", callout=name, action_type=inspection)))

    def chosen(**fields: Any) -> list[str]:
        return names(session.filter_enum(fwpm.FilterEnumTemplate(**fields)))

    assert chosen(action_mask=BLOCKING) == ["block"]
    assert chosen(action_mask=PERMITTING) == ["permit"]
    assert chosen(action_mask=ACTION_FLAG_CALLOUT) == ["call c", "call d"]
    assert chosen(action_mask=0) == []
    assert len(chosen(action_mask=fwpm.ACTION_MASK_ALL)) == 4
    assert chosen(callout_key=key("d")) == ["call d"]
    assert chosen(callout_key=key("d"), action_mask=BLOCKING) == []


def test_providers_and_provider_contexts() -> None:
    session = a_session(a_filter("plain"))
    for name in ("p", "q"):
        assert (
            session.provider_add(fwpm.Provider(provider_key=key(name), display_data=named(name))) is SUCCESS
        )
        record = fwpm.ProviderContext(
            provider_context_key=key(f"of {name}"), display_data=named("x"), provider_key=key(name)
        )
        assert session.provider_context_add(record) is SUCCESS
        flags = fwpm.FilterFlags.HAS_PROVIDER_CONTEXT
        context = key(f"of {name}")
        added(session.filter_add(a_filter(f"with {name}", flags=flags, provider_context_key=context)))
    added(session.filter_add(a_filter("owned", provider_key=key("p"))))

    def chosen(**fields: Any) -> list[str]:
        return names(session.filter_enum(fwpm.FilterEnumTemplate(**fields)))

    inner = fwpm.ProviderContextEnumTemplate
    assert chosen(provider_key=key("p")) == ["owned"]
    assert chosen(provider_context_template=inner()) == ["with p", "with q"]
    assert chosen(provider_context_template=inner(provider_key=key("q"))) == ["with q"]
    general = fwpm.ProviderContextType.GENERAL_CONTEXT
    assert len(chosen(provider_context_template=inner(provider_context_type=general))) == 2
    assert chosen(provider_context_template=inner(provider_context_type=0)) == []


def test_boot_time_filters_are_shown_where_asked_for() -> None:
    session = a_session(a_filter("now"), a_filter("boot", flags=fwpm.FilterFlags.BOOTTIME))
    flags = fwpm.FilterEnumFlags

    def chosen(bits: int) -> list[str]:
        return names(session.filter_enum(fwpm.FilterEnumTemplate(flags=bits)))

    assert chosen(0) == ["now"]
    assert chosen(flags.INCLUDE_BOOTTIME) == ["now", "boot"]
    assert chosen(flags.BOOTTIME_ONLY) == ["boot"]
    assert chosen(flags.BOOTTIME_ONLY | flags.INCLUDE_DISABLED) == ["boot"]
    assert chosen(flags.INCLUDE_DISABLED) == ["now"]
    # Without a template there is nothing that leaves one out.
    assert names(session.filter_enum()) == ["now", "boot"]
    assert names(session.filter_enum(fwpm.LAYER_STREAM_V4)) == ["now", "boot"]


CONTAINED, OVERLAPPING = fwpm.FilterEnumType.FULLY_CONTAINED, fwpm.FilterEnumType.OVERLAPPING


def to_network(mask: int) -> fwpm.FilterCondition:
    value = FwpValue(DataType.V4_ADDR_MASK, V4AddrMask(0x0A00_0000, mask))
    return condition(fwpm.CONDITION_IP_REMOTE_ADDRESS, value)


def ports(low: int, high: int) -> fwpm.FilterCondition:
    span = FwpValue(DataType.RANGE_TYPE, Range(uint16(low), uint16(high)))
    return condition(fwpm.CONDITION_IP_REMOTE_PORT, span, MatchType.RANGE)


@pytest.mark.parametrize(
    ("wanted", "contained", "overlapping"),
    [
        ([], ["all"], ["all", "80", "80 8080", "low", "ten", "ten 80"]),
        (
            [remote_port(80)],
            ["all", "80", "80 8080", "low"],
            ["all", "80", "80 8080", "low", "ten", "ten 80"],
        ),
        ([remote_port(8080)], ["all", "80 8080"], ["all", "80 8080", "ten"]),
        ([ports(1, 100)], ["all", "low"], ["all", "80", "80 8080", "low", "ten", "ten 80"]),
        ([ports(100, 2000)], ["all"], ["all", "low", "ten"]),
        (
            [remote_port(80), condition(fwpm.CONDITION_IP_REMOTE_ADDRESS, ipv4_value("10.1.2.3"))],
            ["all", "80", "80 8080", "low", "ten", "ten 80"],
            ["all", "80", "80 8080", "low", "ten", "ten 80"],
        ),
        (
            [condition(fwpm.CONDITION_IP_REMOTE_ADDRESS, ipv4_value("192.168.0.1"))],
            ["all"],
            ["all", "80", "80 8080", "low"],
        ),
        ([to_network(0xFFFF_0000)], ["all", "ten"], ["all", "80", "80 8080", "low", "ten", "ten 80"]),
    ],
)
def test_conditions_choose_by_containment_or_overlap(
    wanted: list[fwpm.FilterCondition], contained: list[str], overlapping: list[str]
) -> None:
    session = a_session(
        a_filter("all"),
        a_filter("80", conditions=[remote_port(80)]),
        a_filter("80 8080", conditions=[remote_port(80), remote_port(8080)]),
        a_filter("low", conditions=[ports(0, 1023)]),
        a_filter("ten", conditions=[to_network(0xFF00_0000)]),
        a_filter("ten 80", conditions=[to_network(0xFF00_0000), remote_port(80)]),
        a_filter("other layer", layer_key=fwpm.LAYER_STREAM_V6),
    )

    def chosen(enum_type: int) -> list[str]:
        template = fwpm.FilterEnumTemplate(
            layer_key=fwpm.LAYER_STREAM_V4, enum_type=enum_type, conditions=wanted
        )
        return names(session.filter_enum(template))

    # A template without conditions chooses every filter, whatever it matches.
    assert chosen(CONTAINED) == (contained if wanted else overlapping)
    assert chosen(OVERLAPPING) == overlapping


STREAM = fwpm.LAYER_STREAM_V4
PROTOCOL = condition(fwpm.CONDITION_IP_PROTOCOL, uint32(6))


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"flags": 0x20}, NtStatus.STATUS_FWP_INVALID_FLAGS),
        ({"enum_type": 2}, NtStatus.STATUS_FWP_INVALID_ENUMERATOR),
        ({"conditions": [remote_port(80)]}, NtStatus.STATUS_FWP_LAYER_NOT_FOUND),
        ({"layer_key": STREAM, "conditions": [PROTOCOL]}, NtStatus.STATUS_FWP_CONDITION_NOT_FOUND),
        (
            {"layer_key": STREAM, "conditions": [condition(fwpm.CONDITION_IP_REMOTE_PORT, uint32(80))]},
            NtStatus.STATUS_FWP_TYPE_MISMATCH,
        ),
        (
            {
                "layer_key": STREAM,
                "conditions": [condition(fwpm.CONDITION_IP_REMOTE_PORT, uint16(80), MatchType.RANGE)],
            },
            NtStatus.STATUS_FWP_MATCH_TYPE_MISMATCH,
        ),
        (
            {"layer_key": STREAM, "conditions": [remote_port(80), remote_port(81)]},
            NtStatus.STATUS_FWP_DUPLICATE_CONDITION,
        ),
    ],
)
def test_mgmt_9_templates_that_are_refused(fields: dict[str, Any], status: NtStatus) -> None:
    """A template's conditions are as legal as a filter's, but for alternatives: one field, one condition."""
    session = a_session(a_filter())
    template = fwpm.FilterEnumTemplate(**fields)
    assert session.filter_enum(template) == (status, [])
    assert session.filter_create_enum_handle(template) == (status, 0)


# -- other templates


def chosen_keys(answer: tuple[NtStatus, list[Any]], member: str) -> list[UUID]:
    status, records = answer
    assert status is SUCCESS
    return [getattr(one, member) for one in records]


def test_templates_of_the_other_types() -> None:
    session = a_session()
    assert session.provider_add(fwpm.Provider(provider_key=key("p"), display_data=named("p"))) is SUCCESS
    added(session.callout_add(a_callout("four", provider_key=key("p"))))
    added(session.callout_add(a_callout("six", applicable_layer=fwpm.LAYER_STREAM_V6)))
    sub_layer = fwpm.SubLayer(sub_layer_key=key("s"), display_data=named("s"), provider_key=key("p"))
    assert session.sub_layer_add(sub_layer) is SUCCESS
    for name, provider, kind in (("a", None, 8), ("b", key("p"), 8), ("c", None, 0)):
        context = fwpm.ProviderContext(
            provider_context_key=key(name), display_data=named(name), provider_key=provider, type=kind
        )
        assert session.provider_context_add(context) is SUCCESS

    callouts, contexts = fwpm.CalloutEnumTemplate, fwpm.ProviderContextEnumTemplate

    def callout_keys(template: fwpm.CalloutEnumTemplate) -> list[UUID]:
        return chosen_keys(session.callout_enum(template), "callout_key")

    def context_keys(template: fwpm.ProviderContextEnumTemplate) -> list[UUID]:
        return chosen_keys(session.provider_context_enum(template), "provider_context_key")

    assert callout_keys(callouts()) == [key("four"), key("six")]
    assert callout_keys(callouts(layer_key=fwpm.LAYER_STREAM_V6)) == [key("six")]
    assert callout_keys(callouts(provider_key=key("p"))) == [key("four")]
    assert callout_keys(callouts(provider_key=key("p"), layer_key=fwpm.LAYER_STREAM_V6)) == []
    missing = callouts(layer_key=key("no layer"))
    assert session.callout_enum(missing) == (NtStatus.STATUS_FWP_LAYER_NOT_FOUND, [])
    assert context_keys(contexts()) == [key("a"), key("b"), key("c")]
    assert context_keys(contexts(provider_key=key("p"))) == [key("b")]
    assert context_keys(contexts(provider_context_type=8)) == [key("a"), key("b")]
    ours = session.sub_layer_enum(fwpm.SubLayerEnumTemplate(provider_key=key("p")))
    assert chosen_keys(ours, "sub_layer_key") == [key("s")]
    assert len(session.sub_layer_enum(fwpm.SubLayerEnumTemplate())[1]) == 3
    everyone = session.provider_enum(fwpm.ProviderEnumTemplate())
    assert chosen_keys(everyone, "provider_key") == [key("p")]


@pytest.mark.parametrize(("profile", "count"), [("vista", 10), ("win10", 12)])
def test_obj_15_layers_are_those_of_the_profile(profile: str, count: int) -> None:
    fake, management = start(profile=profile)
    session = open_session(management)
    status, layers = session.layer_enum(fwpm.LayerEnumTemplate())
    assert status is SUCCESS
    assert len(layers) == count
    handle = added(session.layer_create_enum_handle())
    pages = [session.layer_enum(handle, 7)[1] for _ in range(2)]
    assert [one for page in pages for one in page] == layers
    assert session.layer_destroy_enum_handle(handle) is SUCCESS
    for layer in layers:
        assert session.layer_get_by_key(layer.key) == (SUCCESS, layer)
        assert session.layer_get_by_id(layer.layer_id) == (SUCCESS, layer)
    missing = (NtStatus.STATUS_FWP_LAYER_NOT_FOUND, None)
    assert session.layer_get_by_id(1) == missing
    assert session.layer_get_by_key(key("nowhere")) == missing
    redirect = session.layer_get_by_key(fwpm.LAYER_ALE_CONNECT_REDIRECT_V4)[0]
    assert redirect is (SUCCESS if profile == "win10" else NtStatus.STATUS_FWP_LAYER_NOT_FOUND)
    assert fake.refusals[0] == ("FwpmLayerGetById0", NtStatus.STATUS_FWP_LAYER_NOT_FOUND, "LAY-1")


def test_obj_1_open_sessions_are_listed() -> None:
    _, management = start()
    dynamic = fwpm.SessionFlags.DYNAMIC
    first = open_session(management, session_key=key("mine"), display_data=named("first"))
    second = open_session(management, dynamic, txn_wait_timeout=3.0)
    status, records = first.session_enum()
    assert status is SUCCESS
    assert records == [
        fwpm.SessionRecord(
            session_key=key("mine"),
            display_data=named("first"),
            flags=0,
            txn_wait_timeout=fwpm.DEFAULT_TXN_WAIT,
        ),
        fwpm.SessionRecord(
            session_key=second.session_key,
            display_data=fwpm.DisplayData(),
            flags=dynamic,
            txn_wait_timeout=3.0,
        ),
    ]
    assert second.session_key != fwpm.ZERO_KEY
    taken = management.engine_open(session_key=key("mine"))
    assert taken == (NtStatus.STATUS_FWP_ALREADY_EXISTS, None)
    handle = added(first.session_create_enum_handle(fwpm.SessionEnumTemplate()))
    assert second.engine_close() is SUCCESS
    assert first.session_enum(handle, 9) == (SUCCESS, records)
    assert first.session_enum() == (SUCCESS, records[:1])
    assert first.session_destroy_enum_handle(handle) is SUCCESS
    management.stop()
    again = open_session(management, session_key=key("mine"))
    assert [one.session_key for one in again.session_enum()[1]] == [key("mine")]
