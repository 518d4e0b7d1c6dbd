"""Rules and fragments added while the engine runs, and filters deleted: they survive reloads, and refuse cleanly."""

from __future__ import annotations

import pytest

from tests.config.deployed import (
    LISTENER,
    LONG,
    SECOND,
    SUNNY,
    Tagged,
    callout_ids,
    connected,
    deployed,
    everything,
    filters,
    ids,
    lines,
    loaded,
    refused,
    reload,
    rule,
    rules,
    world,
)
from wfpstream.config import ConfigError, parse_callout
from wfpstream.fwp import NtStatus


def test_a_rule_added_by_hand_is_asked_first_and_survives_reloads() -> None:
    deployment = deployed(rules(rule("monitor")))
    assert deployment.add_rule(SUNNY, {"remote_port": [80, "8000-8100"]}, "by hand").lines() == [
        '+ rule "by hand"'
    ]
    assert deployment.add_rule("framer", {}).lines() == ['+ rule "framer"']
    before = ids(deployment.engine)
    assert lines(deployment, rules(rule("allow_after,bytes=1"), rule("framer"))) == [
        '+ rule "allow_after,bytes=1"',
        '+ rule "framer"',
        '- rule "monitor"',
    ]
    asked = [one.display_data.name for one in filters(deployment.engine, "stream_v4")]
    assert asked == ["by hand", "framer", "allow_after,bytes=1", "framer"]
    assert ids(deployment.engine)["by hand at stream_v4"] == before["by hand at stream_v4"]


def test_a_fragment_may_name_what_is_there_and_survives_reloads() -> None:
    deployment = deployed(LISTENER + LONG)
    told = deployment.add_fragment(
        """
        [[sublayer]]
        name = "mine"
        weight = 5
        [[filter]]
        name = "more"
        layer = "stream_v4"
        sublayer = "mine"
        action = "callout_unknown"
        callout = "sunny"
        """
    )
    assert told.lines() == ['+ sublayer "mine"', '+ filter "more"']
    before = ids(deployment.engine)["more at stream_v4"]
    reload(deployment, LISTENER + LONG + "[limits]\nflows = 1")
    assert ids(deployment.engine)["more at stream_v4"] == before
    assert refused(deployment, LISTENER) == [
        'f.toml: added by hand: filter "more".callout: no [[callout]] is named "sunny"'
    ]
    assert refused(deployment, LISTENER + LONG + "[[sublayer]]\nname = 'mine'\nweight = 1") == [
        'f.toml: added by hand: sublayer "mine".name: there is a sublayer "mine" already'
    ]


@pytest.mark.parametrize(
    ("fragment", "errors"),
    [
        ("", ["there is nothing in it to add"]),
        ("x", ["not TOML: expected '=' after a key in a key/value pair"]),
        (
            "[limits]\nflows = 1\n[[rule]]\ncallout = 'monitor'",
            ["limits: cannot be added while running; rule, sublayer, callout and filter can"],
        ),
        ("[[sublayer]]\nname = 'edit'\nweight = 1", ['sublayer[0].name: there is a sublayer "edit" already']),
        (
            "[[callout]]\nname = 'sunny'\nuse = 'framer'",
            ['callout[0].name: there is a callout "sunny" already'],
        ),
        (
            "[[filter]]\nname = 'block'\nlayer = 'stream'\naction = 'permit'",
            ['filter[0].name: there is a filter "block" already'],
        ),
        ("[[rule]]\nname = 'taken'\ncallout = 'framer'", ['rule[0].name: there is a rule "taken" already']),
        (
            "[[rule]]\ncallout = 'mon'\n[[filter]]\nname = 'x'\nlayer = 'strem'\naction = 'permit'",
            [
                "rule[0].callout: no callout 'mon'; did you mean monitor? there are allow_after, banner, fault, "
                "framer, latency, monitor, pattern_drop, pattern_set, pend_fin, stream_edit, throttle, "
                "package.module:Class and ./file.py:Class",
                'filter[0].layer: no layer "strem"; did you mean "stream"?',
            ],
        ),
    ],
)
def test_a_fragment_that_cannot_be_added(fragment: str, errors: list[str]) -> None:
    deployment = deployed(rules(rule("monitor", "taken"), extra=LONG))
    before = everything(deployment.engine)
    with pytest.raises(ConfigError) as caught:
        deployment.add_fragment(fragment)
    assert caught.value.lines() == errors
    assert everything(deployment.engine) == before


@pytest.mark.parametrize(
    ("callout", "when", "name", "error"),
    [
        ("nix", {}, None, "rule[0].callout: no callout 'nix'"),
        (
            "monitor",
            {"remote_prt": 1},
            None,
            'rule[0].when.remote_prt: unknown key; did you mean "remote_port"?',
        ),
        (
            "monitor",
            {"remote_port": True},
            None,
            "rule[0].when.remote_port: expected a whole number or text or a list, got true",
        ),
        (
            "monitor",
            {"listener": "nix"},
            None,
            'rule[0].when.listener: no listener is named "nix"; known: web',
        ),
        ("monitor", {}, "taken", 'rule[0].name: there is a rule "taken" already'),
    ],
)
def test_a_rule_that_cannot_be_added(
    callout: str, when: dict[str, object], name: str | None, error: str
) -> None:
    deployment = deployed(rules(rule("monitor", "taken")))
    before = everything(deployment.engine)
    with pytest.raises(ConfigError) as caught:
        deployment.add_rule(callout, when, name)
    (line,) = caught.value.lines()
    assert line.startswith(error)
    assert everything(deployment.engine) == before


def test_two_rules_by_hand_of_one_name_are_refused() -> None:
    deployment = deployed("")
    deployment.add_rule("monitor", {}, "x")
    with pytest.raises(ConfigError, match='there is a rule "x" already'):
        deployment.add_rule("framer", {}, "x")


def test_deleting_the_filters_of_a_rule_takes_its_sublayer_and_callout_along() -> None:
    deployment = deployed(rules(rule(SUNNY, "edit"), rule("framer")))
    engine = deployment.engine
    known = ids(engine)
    assert deployment.delete_filter(known["edit at stream_v4"], drain=False).ok
    assert "edit" in [one.display_data.name for one in engine.session.sub_layer_enum()[1]]
    assert deployment.delete_filter(known["edit at stream_v6"], drain=False).ok
    assert "edit" not in [one.display_data.name for one in engine.session.sub_layer_enum()[1]]
    assert {one.split()[0] for one in callout_ids(engine)} == {"framer"}
    assert len(engine.fwps.callouts.registered()) == 2
    assert (
        deployment.delete_filter(known["edit at stream_v6"], drain=False)
        is NtStatus.STATUS_FWP_FILTER_NOT_FOUND
    )


def test_what_was_deleted_by_hand_comes_back_with_the_file() -> None:
    text = rules(rule("monitor"), rule(SUNNY, "edit"))
    deployment = deployed(text)
    deployment.delete_filter(ids(deployment.engine)["edit at stream_v4"], drain=True)
    assert lines(deployment, text) == ['+ rule "edit" at stream_v4']
    for name in ("edit at stream_v4", "edit at stream_v6"):
        deployment.delete_filter(ids(deployment.engine)[name], drain=True)
    assert lines(deployment, text) == ['+ rule "edit"']
    asked = [one.display_data.name for one in filters(deployment.engine, "stream_v4")]
    assert asked == ["monitor", "edit"]


def test_what_was_added_and_deleted_by_hand_does_not_come_back() -> None:
    deployment = deployed(LISTENER)
    deployment.add_rule("framer", {}, "one")
    deployment.add_rule("framer", {}, "two")
    known = ids(deployment.engine)
    for name in ("one at stream_v4", "two at stream_v4", "two at stream_v6"):
        assert deployment.delete_filter(known[name], drain=True).ok
    assert lines(deployment, LISTENER + "[limits]\nflows = 1") == ["~ limits.flows: 10000 -> 1"]
    assert ids(deployment.engine).keys() == {"one at stream_v6"}
    deployment.add_rule("framer", {}, "two")


def test_a_busy_filter_is_deleted_only_if_it_may_drain() -> None:
    """MGMT-13 for a plain delete, MGMT-16 for one that drains."""
    deployment = deployed(rules(rule("latency,delay=1s", "slow")))
    driver = world(deployment)
    flow = connected(driver)
    flow.send(b"x")
    number = ids(deployment.engine)["slow at stream_v4"]
    before = everything(deployment.engine)
    assert deployment.delete_filter(number, drain=False) is NtStatus.STATUS_FWP_IN_USE
    assert everything(deployment.engine) == before
    assert deployment.delete_filter(number, drain=True).ok
    driver.run_until(lambda: bytes(flow.remote.data) == b"x")
    driver.settle()
    status, _ = deployment.engine.session.filter_get_by_id(number)
    assert status is NtStatus.STATUS_FWP_FILTER_NOT_FOUND


def test_a_filter_of_somebody_else_can_be_deleted_too() -> None:
    deployment = deployed(LISTENER)
    added = deployment.engine.add_callout(Tagged())
    assert deployment.delete_filter(added.filter_ids[0], drain=False).ok
    assert deployment.delete_filter(added.filter_ids[1], drain=True).ok
    assert not filters(deployment.engine)


FRAGMENT = """
[[sublayer]]
name = "mine"
weight = 5
[[callout]]
name = "watch"
use = "framer"
[[filter]]
name = "more"
layer = "stream"
sublayer = "mine"
action = "callout_unknown"
callout = "watch"
"""


def test_what_was_added_for_a_filter_goes_with_it_and_can_be_added_again() -> None:
    deployment = deployed(LISTENER)
    before = [one.display_data.name for one in deployment.engine.session.sub_layer_enum()[1]]
    for _ in range(3):
        deployment.add_fragment(FRAGMENT)
        known = ids(deployment.engine)
        assert deployment.delete_filter(known["more at stream_v4"], drain=False).ok
        assert "watch at stream_v4" in callout_ids(deployment.engine)
        assert deployment.delete_filter(known["more at stream_v6"], drain=True).ok
        assert [one.display_data.name for one in deployment.engine.session.sub_layer_enum()[1]] == before
        assert not callout_ids(deployment.engine)
    assert not deployment.prepare(loaded(LISTENER)).difference


def test_what_another_filter_uses_stays() -> None:
    deployment = deployed(LISTENER)
    deployment.add_fragment(FRAGMENT)
    deployment.add_rule("watch", {}, "rule")
    for name in ("more at stream_v4", "more at stream_v6"):
        assert deployment.delete_filter(ids(deployment.engine)[name], drain=False).ok
    assert ids(deployment.engine).keys() == {"rule at stream_v4", "rule at stream_v6"}
    reload(deployment, LISTENER + "[limits]\nflows = 1")
    assert ids(deployment.engine).keys() == {"rule at stream_v4", "rule at stream_v6"}


def test_a_listener_that_a_rule_or_callout_from_elsewhere_names_cannot_go() -> None:
    texts = [parse_callout("web:framer", ["web"])]
    deployment = deployed(LISTENER, texts)
    deployment.add_rule("monitor", {"listener": "web"})
    with pytest.raises(ConfigError) as caught:
        reload(deployment, SECOND, texts)
    assert caught.value.lines() == [
        'f.toml: --callout web:framer: no listener is named "web"; known: mail',
        'f.toml: added by hand: rule "monitor".when.listener: no listener is named "web"; known: mail',
    ]


def test_while_another_session_has_a_transaction_open_nothing_is_changed_by_hand() -> None:
    deployment = deployed(rules(rule("monitor")))
    _, other = deployment.engine.management.engine_open()
    assert other is not None
    assert other.transaction_begin().ok
    number = ids(deployment.engine)["monitor at stream_v4"]
    assert deployment.delete_filter(number, drain=True) is NtStatus.STATUS_FWP_TIMEOUT
    with pytest.raises(ConfigError, match="another session has a transaction open"):
        deployment.add_rule("framer", {})
    assert other.engine_close().ok
    assert deployment.delete_filter(number, drain=True).ok
    deployment.add_rule("framer", {})


@pytest.mark.parametrize("depth", [50, 200, 480, 100_000])
def test_a_callout_with_an_option_of_many_brackets_is_refused(depth: int) -> None:
    deployment = deployed("")
    with pytest.raises(
        ConfigError, match=r"monitor: (an option is nested too deeply|option log=.* expected)"
    ):
        deployment.add_rule(f"monitor,log={'[' * depth}{']' * depth}", {})
