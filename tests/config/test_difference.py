"""What is said to change: order, settings, listeners, options; and that errors change nothing."""

from __future__ import annotations

import pytest

from tests.config.deployed import (
    AWKWARD,
    LISTENER,
    LONG,
    SECOND,
    SLOW,
    SUNNY,
    Slow,
    connected,
    deployed,
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
from wfpstream.config import ConfigError, deploy, parse_callout
from wfpstream.engine import Endpoints
from wfpstream.fwpm import DisplayData, SubLayer

# --- weights and order


def test_a_rule_without_a_gap_is_told_to_have_moved() -> None:
    """Rules between two neighbours until there is no room: only what has to move is replaced, and it is said."""
    names = ["first", "last"]
    deployment = deployed(rules(*(rule("monitor", name) for name in names)))
    moved = []
    for number in range(20):
        names.insert(1, f"r{number}")
        told = lines(deployment, rules(*(rule("monitor", name) for name in names)))
        assert told[-1] == f'+ rule "r{number}"' or f'+ rule "r{number}"' in told
        moved += [line for line in told if line.startswith("~")]
        assert [one.display_data.name for one in filters(deployment.engine, "stream_v4")] == names
    assert moved
    assert all(": weight 0x" in line for line in moved)


def test_equal_weights_are_asked_in_the_order_of_the_file() -> None:
    """MGMT-8: what is added later is asked later, so an unchanged filter behind a changed one is added anew."""
    text = """
    [[filter]]
    name = "some"
    layer = "ale_auth_connect_v4"
    action = "permit"
    [[filter.condition]]
    field = "ip_remote_port"
    value = {port}
    [[filter]]
    name = "none"
    layer = "ale_auth_connect_v4"
    action = "block"
    [[filter.condition]]
    field = "ip_local_address"
    value = "10.0.0.1"
    weight = 3
    """
    text = text.replace("    weight = 3\n", "").replace("name", "weight = 3\n    name")
    deployment = deployed(text.replace("{port}", "80"))
    asked = [one.display_data.name for one in filters(deployment.engine, "ale_auth_connect_v4")]
    lines(deployment, text.replace("{port}", "81"))
    assert [one.display_data.name for one in filters(deployment.engine, "ale_auth_connect_v4")] == asked


def test_a_filter_no_flow_of_which_meets_the_changed_one_is_left_alone() -> None:
    text = LISTENER + "".join(
        f"[[filter]]\nname = 'f{port}'\nlayer = 'ale_auth_connect_v4'\naction = '{action}'\n"
        f"[[filter.condition]]\nfield = 'ip_remote_port'\nvalue = {port}\n"
        for port, action in [(80, "block"), (81, "permit"), (82, "block")]
    )
    deployment = deployed(text)
    before = ids(deployment.engine)
    assert lines(deployment, text.replace("f80", "f90").replace("= 80", "= 90")) == [
        '+ filter "f90"',
        '- filter "f80"',
    ]
    assert ids(deployment.engine).items() >= {k: v for k, v in before.items() if "f80" not in k}.items()


# --- settings


def test_limits_timeouts_and_policy_change_at_once() -> None:
    deployment = deployed(LISTENER)
    assert lines(
        deployment,
        LISTENER + "[limits]\nunsent = '64KiB'\n[timeouts]\nidle = 5\n[policy]\non_block = 'fin'",
    ) == [
        "~ limits.unsent: 256KiB -> 64KiB",
        "~ timeouts.idle: 0 -> 5",
        "~ policy.on_block: rst -> fin",
    ]
    options = deployment.engine.options
    assert (options.limits.unsent, options.timeouts.idle, options.policy.on_block) == (65536, 5.0, "fin")
    assert lines(deployment, LISTENER + "[limits]\nunsent = 65536\n[timeouts]\nidle = '5s'") == [
        "~ policy.on_block: fin -> rst"
    ]


def test_the_watchdog_of_callbacks_can_be_switched_on_and_off() -> None:
    """`timeouts.turn`: a callback that takes longer is named, from the reload on."""
    Slow.clock[0] = 0.0
    deployment = deploy(loaded(rules(rule(SLOW), extra="[timeouts]\nturn = 0")), clock=lambda: Slow.clock[0])
    engine = deployment.engine
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    for turn, named in (("0s", 0), ("100ms", 1), ("0s", 1)):
        reload(deployment, rules(rule(SLOW), extra=f"[timeouts]\nturn = '{turn}'"))
        flow.received(0, memoryview(b"x"))
        assert engine.counters.get("slow_callbacks", 0) == named


def test_what_a_driver_has_set_in_the_options_is_left_alone() -> None:
    deployment = deployed(LISTENER)
    deployment.engine.options.timeouts.both_read = 120.0
    lines(deployment, LISTENER + "[timeouts]\nidle = 5")
    assert deployment.engine.options.timeouts.both_read == 120.0


def test_listeners_are_part_of_the_difference() -> None:
    deployment = deployed(LISTENER)
    assert lines(deployment, LISTENER + SECOND) == ['+ listener "mail"']
    assert lines(deployment, SECOND.replace(":80", ":81").replace('"127.0.0.1:7001"', '"7001"')) == [
        '~ listener "mail": upstream "127.0.0.1:80" -> "127.0.0.1:81"',
        '- listener "web"',
    ]
    assert lines(deployment, "[proxy]\nlocal = 'server'\n" + SECOND.replace(":80", ":81")) == [
        '~ listener "mail": local "client" -> "server"'
    ]


# --- errors change nothing


BAD = "[proxy]\n[engine]\nprofile = 'win7'\n[limits]\nunsent = 1\n[[rule]]\ncallout = 'nix'"


def test_every_error_is_named_and_nothing_changes() -> None:
    deployment = deployed(rules(rule("monitor"), extra=LONG))
    assert refused(deployment, BAD) == [
        "f.toml:3: engine.profile: cannot change while running; restart",
        "f.toml:7: rule[0].callout: no callout 'nix'; there are allow_after, banner, fault, framer, latency, "
        "monitor, pattern_drop, pattern_set, pend_fin, stream_edit, throttle, package.module:Class and ./file.py:Class",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[engine]\ncompletion = 'early'", "f.toml:2: engine.completion"),
        ("[verify]\nlevel = 'strict'", "f.toml:2: verify.level"),
        ("[verify]\ngrace = '6s'", "f.toml:2: verify.grace"),
        ("[control]\nsocket = 'off'", "f.toml:2: control.socket"),
        ("[transparent]\nports = 80", "f.toml:2: transparent.ports"),
    ],
)
def test_what_cannot_change_while_running(text: str, error: str) -> None:
    assert refused(deployed(""), text) == [f"{error}: cannot change while running; restart"]


def test_the_same_said_otherwise_is_no_change() -> None:
    text = "[verify]\ngrace = '{}'\n[transparent]\nports = {}"
    deployment = deployed(text.format("5s", "[80, '90-91']"))
    assert not lines(deployment, text.format("5000ms", "['80', '90 - 91']"))


@pytest.mark.parametrize(
    "bad",
    [
        "x = [",
        "[[rule]]\ncallout = 'monitor,log=loud'",
        "[[rule]]\ncallout = './gone.py:X'",
        "[[filter]]\nname = 'x'\nlayer = 'stream'\naction = 'callout_unknown'\ncallout = 'y'\nsublayer = 'z'",
        LONG + "permit_if_callout_unregistered = true",
        "[[proxy.listener]]\nmode = 'redirect'\nupstream = 'h:1'",
    ],
)
def test_no_error_changes_anything(bad: str) -> None:
    deployment = deployed(rules(rule("monitor"), extra=LONG))
    driver = world(deployment)
    flow = connected(driver)
    flow.send(b"it is rai")
    assert refused(deployment, bad)
    flow.send(b"ny")
    assert bytes(flow.remote.data) == b"it is sunny"
    assert len(deployment.engine.fwps.callouts.registered()) == 6


def test_a_transaction_of_another_session_is_not_waited_for() -> None:
    deployment = deployed(LISTENER)
    _, other = deployment.engine.management.engine_open()
    assert other is not None
    assert other.transaction_begin().ok
    pending = deployment.prepare(loaded(rules(rule("monitor"))))
    with pytest.raises(
        ConfigError, match="another session has a transaction open; nothing was done, try again"
    ):
        pending.commit()
    assert other.transaction_abort().ok
    assert pending.commit().lines() == ['+ rule "monitor"']


def test_what_was_refused_is_not_committed_again() -> None:
    """Its callouts were registered and released: they are not used a second time."""
    deployment = deployed(LISTENER)
    pending = deployment.prepare(loaded(rules(rule(f"{AWKWARD},at=notify"))))
    for error in ("FWP_CALLOUT_NOTIFICATION_FAILED", "nothing was done, try again"):
        with pytest.raises(ConfigError, match=error):
            pending.commit()
    assert not filters(deployment.engine)


def test_a_configuration_prepared_before_another_change_is_refused() -> None:
    deployment = deployed(LISTENER)
    pending = deployment.prepare(loaded(rules(rule("monitor"))))
    deployment.add_rule("framer", {})
    with pytest.raises(ConfigError, match="changed meanwhile; nothing was done, try again"):
        pending.commit()
    assert [one.display_data.name for one in filters(deployment.engine, "stream_v4")] == ["framer"]


def test_what_others_have_added_is_left_alone() -> None:
    deployment = deployed(rules(rule("monitor")))
    session = deployment.engine.session
    mine = SubLayer(display_data=DisplayData("mine"), weight=7)
    assert session.sub_layer_add(mine).ok
    reload(deployment, "")
    assert "mine" in [one.display_data.name for one in session.sub_layer_enum()[1]]


def test_callouts_of_the_command_line_stay_in_front() -> None:
    texts = [parse_callout("framer"), parse_callout("monitor,log=none"), parse_callout("monitor,log=none")]
    deployment = deployed(rules(rule("monitor")), texts)
    before = ids(deployment.engine)
    assert reload(deployment, rules(rule("framer"), rule("monitor")), texts).lines() == ['+ rule "framer"']
    assert ids(deployment.engine).items() >= before.items()
    assert [one.display_data.name for one in filters(deployment.engine, "stream_v4")] == [
        "--callout framer",
        "--callout monitor",
        "--callout monitor#2",
        "framer",
        "monitor",
    ]


@pytest.mark.parametrize(
    ("at", "error"),
    [
        ("init", "f.toml:8: rule[1].callout: tests.config.deployed:Awkward: OSError: no way"),
        ("registered", "f.toml:8: rule[1].callout: tests.config.deployed:Awkward: RuntimeError: not now"),
        (
            "notify",
            "f.toml:7: rule[1]: filter_add was refused: STATUS_FWP_CALLOUT_NOTIFICATION_FAILED: "
            "notifyFn of tests.config.deployed:Awkward answered STATUS_UNSUCCESSFUL",
        ),
    ],
)
def test_a_callout_that_fails_or_refuses_changes_nothing(at: str, error: str) -> None:
    """NTF-2, NTF-7: what was accepted before the refusal is undone."""
    deployment = deployed(rules(rule("monitor"), extra=LONG))
    bad = rules(rule("monitor"), rule(f"{AWKWARD},at={at}"), extra=LONG.replace('"sunny" }', '"cloudy" }'))
    assert refused(deployment, bad) == [error]
    assert lines(deployment, rules(rule("monitor"), rule(AWKWARD), extra=LONG)) == [
        f'+ rule "{AWKWARD}" (new flows only)'
    ]


def test_the_line_of_a_callout_says_what_becomes_of_live_flows() -> None:
    """Without ALLOW_MID_STREAM_INSPECTION they go on without the new one (MID-1)."""
    deployment = deployed(rules(rule(AWKWARD, "x"), rule("monitor", "y")))
    assert lines(
        deployment, rules(rule(f"{AWKWARD},at=here", "x"), rule("monitor,log=text", "y"), rule(AWKWARD))
    ) == [
        '~ rule "x": at none -> "here" '
        "(live flows keep the old one until it is idle, and then go on without; new flows get the new one)",
        '~ rule "y": log none -> "text" '
        "(live flows keep the old one until it is idle, and then get the new one)",
        f'+ rule "{AWKWARD}" (new flows only)',
    ]


def test_a_rule_without_a_name_whose_options_change_is_told_as_one_change() -> None:
    deployment = deployed(rules(rule("monitor"), rule(SUNNY)))
    (told,) = lines(deployment, rules(rule("monitor"), rule(SUNNY.replace("sunny", "cloudy"))))
    assert told.startswith(f'~ rule "{SUNNY}": replace "sunny" -> "cloudy" (live flows')


def test_changes_of_long_tables_are_told_key_by_key() -> None:
    deployment = deployed(LISTENER + LONG)
    changed = (
        LONG.replace("0x9000", "0x9001")
        .replace('"stream_edit"', '"pattern_drop"')
        .replace(', replace = "sunny"', "")
        .replace('action = "block"', 'action = "permit"\nweight = 3')
        .replace("25", "26")
    )
    assert lines(deployment, LISTENER + changed) == [
        '~ sublayer "edit": weight 0x9000 -> 0x9001',
        '~ callout "sunny": use "stream_edit" -> "pattern_drop", replace "sunny" -> none '
        "(live flows keep the old one until it is idle, and then get the new one)",
        '~ filter "block": action "block" -> "permit", weight none -> 3, '
        'condition ["ip_remote_port equal 25"] -> ["ip_remote_port equal 26"]',
    ]


def test_the_difference_as_data() -> None:
    deployment = deployed(LISTENER)
    difference = deployment.prepare(loaded(rules(rule("monitor"), extra="[limits]\nflows = 7"))).difference
    assert difference.as_data() == [
        {"kind": "rule", "name": "monitor", "what": "added", "detail": ""},
        {"kind": "setting", "name": "limits.flows", "what": "changed", "detail": "10000 -> 7"},
    ]
    assert [(one.kind, one.name) for one in difference.changes] == [
        ("rule", "monitor"),
        ("setting", "limits.flows"),
    ]


def test_names_and_values_stay_on_one_line() -> None:
    deployment = deployed(LISTENER)
    name = 'a\\nb\\u001b[31m"'.replace('"', '\\"')
    (line,) = lines(deployment, LISTENER + f'[[rule]]\ncallout = "monitor"\nname = "{name}"')
    assert line == '+ rule "a\\nb\\u001b[31m\\""'
