"""REG-10: an argument of the wrong Python type raises TypeError, in whatever member of a record it stands, and the
call has done nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fwpm.support import SUCCESS, a_filter, added, key, named, open_session, remote_port, start
from wfpstream import fwpm
from wfpstream.fwp import MatchType, uint16

NO_PORT: Any = 80
NO_CONDITION: Any = (fwpm.CONDITION_IP_REMOTE_PORT, MatchType.EQUAL, uint16(80))
NO_KEY: Any = "not a UUID"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"weight": 5}, r"Filter\.weight must be FwpValue, not int"),
        ({"filter_key": "text"}, r"Filter\.filter_key must be UUID, not str"),
        ({"provider_key": b"x"}, r"Filter\.provider_key must be .*UUID \| None, not bytes"),
        ({"display_data": "name"}, r"Filter\.display_data must be DisplayData, not str"),
        ({"flags": None}, r"Filter\.flags must be int, not NoneType"),
        ({"conditions": remote_port(80)}, r"Filter\.conditions must be Sequence, not FilterCondition"),
        ({"conditions": [NO_CONDITION]}, r"conditions must be FilterCondition, not tuple"),
        (
            {"conditions": [fwpm.FilterCondition(fwpm.CONDITION_IP_REMOTE_PORT, MatchType.EQUAL, NO_PORT)]},
            r"FilterCondition\.condition_value must be FwpValue",
        ),
        (
            {"conditions": [fwpm.FilterCondition(NO_KEY, MatchType.EQUAL, uint16(80))]},
            r"FilterCondition\.field_key must be UUID",
        ),
    ],
)
def test_reg_10_a_filters_member_of_a_wrong_type(fields: dict[str, Any], said: str) -> None:
    _, management = start()
    session = open_session(management)
    assert session.transaction_begin() is SUCCESS
    kept = added(session.filter_add(a_filter("kept")))
    record = fwpm.Filter(**{"display_data": named("wrong"), "layer_key": fwpm.LAYER_STREAM_V4, **fields})
    with pytest.raises(TypeError, match=said):
        session.filter_add(record)
    assert session.transaction_commit() is SUCCESS
    assert [one.filter_id for one in session.filter_enum()[1]] == [kept]


def test_reg_10_members_of_other_records() -> None:
    _, management = start()
    session = open_session(management)
    wrong: Any = 5
    with pytest.raises(TypeError, match=r"Provider\.service_name"):
        session.provider_add(fwpm.Provider(display_data=named("p"), service_name=wrong))
    with pytest.raises(TypeError, match=r"SubLayer\.provider_data"):
        session.sub_layer_add(fwpm.SubLayer(display_data=named("s"), provider_data=wrong))
    with pytest.raises(TypeError, match=r"Callout\.applicable_layer"):
        session.callout_add(fwpm.Callout(display_data=named("c"), applicable_layer=wrong))
    with pytest.raises(TypeError, match=r"FilterEnumTemplate\.callout_key"):
        session.filter_enum(fwpm.FilterEnumTemplate(callout_key=wrong))
    template = fwpm.FilterEnumTemplate(layer_key=fwpm.LAYER_STREAM_V4, conditions=[NO_CONDITION])
    with pytest.raises(TypeError, match="FilterCondition"):
        session.filter_create_enum_handle(template)
    with pytest.raises(TypeError, match=r"FilterSubscription\.enum_template"):
        session.filter_subscribe_changes(fwpm.FilterSubscription(enum_template=wrong), print)
    with pytest.raises(TypeError, match=r"CalloutEnumTemplate\.layer_key"):
        inner = fwpm.CalloutEnumTemplate(layer_key=wrong)
        session.callout_subscribe_changes(fwpm.CalloutSubscription(enum_template=inner), print)


def test_mutable_sequences_are_taken_as_they_are() -> None:
    """Lists and tuples of conditions are equally good, and the engine's are its own."""
    _, management = start()
    session = open_session(management)
    conditions = [remote_port(80)]
    filter_id = added(session.filter_add(a_filter(conditions=conditions, filter_key=key("f"))))
    conditions.append(remote_port(81))
    record = session.filter_get_by_id(filter_id)[1]
    assert record is not None
    assert record.conditions == (remote_port(80),)
