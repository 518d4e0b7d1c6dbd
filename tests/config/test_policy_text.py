"""A policy as one text: another process that reads it has the same filters, with the same ids; and shares of limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.callouts import parse_size
from wfpstream.cli._describe import describe_engine
from wfpstream.config import (
    Config,
    Deployment,
    LoadedConfig,
    deploy,
    divided,
    filter_ids_text,
    parse_config,
    policy_text,
    read_filter_ids,
    read_policy_text,
)

TEXT = """
[[sublayer]]
name = "mine"
weight = 0x4000
[[callout]]
name = "see"
use = "monitor"
[[rule]]
name = "first"
callout = "stream_edit,find=a,replace=b"
[[rule]]
callout = "see"
[[filter]]
name = "all"
layer = "stream"
sublayer = "mine"
action = "callout_inspection"
callout = "see"
"""
MORE = '[[callout]]\nname = "more"\nuse = "monitor"\n[[rule]]\nname = "toml"\ncallout = "more"\n'


def as_it_is(loaded: LoadedConfig) -> LoadedConfig:
    return loaded


def again(deployment: Deployment) -> Deployment:
    """What another process makes of it."""
    return read_policy_text(policy_text(deployment)).deploy(as_it_is, (), lambda: 0.0)


def filters(deployment: Deployment) -> Any:
    """What is in force, in the order of asking, without the weights and ids that are only numbers."""
    described = describe_engine(deployment.engine)
    return [
        (
            layer["name"],
            [
                [(one["name"], one["id"], one["action"]) for one in sub["filters"]]
                for sub in layer["sublayers"]
            ],
        )
        for layer in described["layers"]
    ]


def ids_by_name(deployment: Deployment) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for layer in describe_engine(deployment.engine)["layers"]:
        for sub in layer["sublayers"]:
            for one in sub["filters"]:
                found.setdefault(one["name"], []).append(one["id"])
    return found


def test_as_it_came_from_the_file() -> None:
    deployment = deploy(parse_config(TEXT))
    assert filters(again(deployment)) == filters(deployment)


def test_after_changes_by_hand() -> None:
    deployment = deploy(parse_config(TEXT))
    deployment.add_rule("stream_edit,find=x,replace=y", {"remote_port": [80, 8080]}, "by hand")
    deployment.add_rule("monitor", {})
    deployment.add_rule("monitor", {})
    deployment.add_fragment(MORE)
    ids = ids_by_name(deployment)
    # One of two filters of a rule by hand, one of the file's, and the first of two that say the same.
    for number in (ids["by hand"][0], ids["all"][0], *ids["monitor"][:2]):
        assert deployment.delete_filter(number, drain=False).ok
    copy = again(deployment)
    assert filters(copy) == filters(deployment)
    assert copy.by_hand == deployment.by_hand
    # And they go on alike: what comes next gets the same keys, and so the same names.
    for one in (deployment, copy):
        one.add_rule("monitor", {})
    copy.engine.management.wish_filter_ids({})
    assert set(copy.filter_ids) == set(deployment.filter_ids)


def test_what_was_deleted_is_back_when_the_file_is_read_again() -> None:
    deployment = deploy(parse_config(TEXT))
    number = ids_by_name(deployment)["all"][0]
    deployment.delete_filter(number, drain=False)
    assert deployment.by_hand[1]
    assert len(ids_by_name(again(deployment))["all"]) == 1
    deployment.prepare(parse_config(TEXT)).commit()
    assert not deployment.by_hand[1]
    assert len(ids_by_name(again(deployment))["all"]) == 2


def test_ids_are_those_of_the_first_whatever_its_past() -> None:
    deployment = deploy(parse_config(TEXT))
    for find in "cde":
        deployment.prepare(parse_config(TEXT.replace("find=a", f"find={find}"))).commit()
    copy = again(deployment)
    assert ids_by_name(copy) == ids_by_name(deployment)
    assert max(copy.filter_ids.values()) > len(copy.filter_ids)
    # What somebody adds there on their own gets an id that is nobody else's.
    copy.add_rule("monitor", {}, "own")
    assert len(set(copy.filter_ids.values())) == len(copy.filter_ids)


def test_an_id_that_was_given_is_not_given_again() -> None:
    deployment = deploy(parse_config(TEXT))
    copy = again(deployment)
    taken = max(copy.filter_ids.values())
    deployment.add_rule("monitor", {}, "own")
    wished = dict.fromkeys(deployment.filter_ids.keys() - copy.filter_ids.keys(), taken)
    copy.engine.management.wish_filter_ids(wished)
    copy.add_rule("monitor", {}, "own")
    assert len(set(copy.filter_ids.values())) == len(copy.filter_ids)


def test_relative_names_start_from_where_they_did(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from wfpstream.fwps import Callout\nclass Mine(Callout):\n    def classify_fn(self, *args): pass\n"
    )
    file = tmp_path / "f.toml"
    file.write_text('[[rule]]\nname = "mine"\ncallout = "./mine.py:Mine"\n')
    deployment = deploy(parse_config(file.read_text(), str(file)))
    deployment.add_rule("./mine.py:Mine", {}, "by hand")
    assert filters(again(deployment)) == filters(deployment)


@pytest.mark.parametrize("value", ["inf", "1e400", "12345678901234567890123", "1979-05-27"])
def test_values_that_json_does_not_know(value: str) -> None:
    deployment = deploy(parse_config(TEXT))
    deployment.add_fragment(
        f'[[filter]]\nname = "odd"\nlayer = "stream"\naction = "permit"\noptions = {{ x = {value} }}\n'
    )
    text = policy_text(deployment)
    (table,) = json.loads(text)["added"]
    assert table["table"]["options"]["x"] is not None
    assert filters(again(deployment)) == filters(deployment)


def test_filter_ids_as_text() -> None:
    deployment = deploy(parse_config(TEXT))
    assert read_filter_ids(json.loads(json.dumps(filter_ids_text(deployment)))) == deployment.filter_ids


# --- shares of limits -----------------------------------------------------------------------------


def limits(**values: Any) -> Config:
    return parse_config("[limits]\n" + "\n".join(f"{key} = {value}" for key, value in values.items())).config


@given(st.integers(0, 10**6), st.integers(0, 10**12), st.integers(0, 1000), st.integers(2, 64))
def test_shares_add_up(flows: int, total: int, per_client: int, of: int) -> None:
    whole = limits(flows=flows, total=total, flows_per_client=per_client)
    shares = [divided(whole, number, of).limits for number in range(1, of + 1)]
    for name, amount in (("flows", flows), ("total", total)):
        parts = [parse_size(getattr(share, name)) for share in shares]
        if amount == 0:
            assert set(parts) == {0}
        else:
            assert min(parts) >= 1
            assert sum(parts) == max(amount, of)
            assert max(parts) - min(parts) <= 1
    for share in shares:
        assert bool(share.flows_per_client) == bool(per_client)
        assert per_client <= share.flows_per_client * of < per_client + of


def test_what_is_per_flow_is_not_divided() -> None:
    whole = limits(unsent='"64KiB"', per_flow='"8MiB"')
    assert divided(whole, 1, 4).limits.unsent == "64KiB"
    assert divided(whole, 1, 4).limits.per_flow == "8MiB"
    assert divided(whole, 1, 4).timeouts == whole.timeouts
