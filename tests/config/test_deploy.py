"""A configuration as one transaction: what stays, what is replaced, and that errors change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.deployed import (
    LISTENER,
    SECOND,
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
    world,
)
from wfpstream.config import ConfigError, load_config, parse_callout
from wfpstream.fwp import NtStatus
from wfpstream.fwpm import DisplayData, SubLayer

SUNNY = "stream_edit,find=rainy,replace=sunny"
LONG = """
[[sublayer]]
name = "edit"
weight = 0x9000
[[callout]]
name = "sunny"
use = "stream_edit"
options = { find = "rainy", replace = "sunny" }
[[filter]]
name = "edit"
layer = "stream"
sublayer = "edit"
action = "callout_unknown"
callout = "sunny"
[[filter]]
name = "block"
layer = "ale_auth_connect"
action = "block"
[[filter.condition]]
field = "ip_remote_port"
value = 25
"""


def rules(*texts: str, extra: str = "") -> str:
    return LISTENER + "\n".join(f"[[rule]]\n{text}" for text in texts) + "\n" + extra


def rule(callout: str, name: str = "", when: str = "") -> str:
    said = [f"callout = '{callout}'"]
    said += [f"name = '{name}'"] if name else []
    said += [f"when = {when}"] if when else []
    return "\n".join(said)


# --- what stays


def test_the_same_again_changes_nothing() -> None:
    text = rules(rule("monitor"), rule(SUNNY, "edit", "{ remote_port = 80 }")) + LONG
    deployment = deployed(text)
    before = everything(deployment.engine)
    pending = deployment.prepare(loaded(text))
    assert not pending.difference
    assert not pending.commit()
    assert everything(deployment.engine) == before


def test_a_rule_in_the_middle_leaves_the_others_alone() -> None:
    deployment = deployed(rules(rule("monitor"), rule("framer")))
    before = ids(deployment.engine), callout_ids(deployment.engine)
    assert lines(deployment, rules(rule("monitor"), rule(SUNNY), rule("framer"))) == [f'+ rule "{SUNNY}"']
    assert ids(deployment.engine).items() > before[0].items()
    assert callout_ids(deployment.engine).items() > before[1].items()
    asked = [one.display_data.name for one in filters(deployment.engine, "stream_v4")]
    assert asked == ["monitor", SUNNY, "framer"]


def test_a_rule_that_says_the_same_twice_is_two_rules() -> None:
    deployment = deployed(rules(rule("monitor"), rule("monitor")))
    assert len(filters(deployment.engine, "stream_v4")) == 2
    assert lines(deployment, rules(rule("monitor"))) == ['- rule "monitor"']
    assert lines(deployment, rules(rule("monitor"), rule("framer"), rule("monitor"))) == [
        '+ rule "framer"',
        '+ rule "monitor"',
    ]


def test_an_unchanged_stage_keeps_its_ids_object_and_state() -> None:
    deployment = deployed(rules(rule(SUNNY, "edit"), rule("allow_after,bytes=10")))
    driver = world(deployment)
    flow = connected(driver)
    flow.send(b"it is rai")  # "rai" is held: NEED_MORE_DATA
    owners = {entry.owner for entry in deployment.engine.fwps.callouts.registered()}
    assert lines(deployment, rules(rule("monitor"), rule(SUNNY, "edit"))) == [
        '+ rule "monitor"',
        '- rule "allow_after,bytes=10"',
    ]
    driver.settle()
    flow.send(b"ny today")
    flow.send_fin()
    assert bytes(flow.remote.data) == b"it is sunny today"
    assert flow.remote.fin
    assert owners & {entry.owner for entry in deployment.engine.fwps.callouts.registered()}
    assert not driver.violations


# --- what is replaced


def test_a_changed_option_is_a_new_object_and_live_flows_get_it() -> None:
    deployment = deployed(LISTENER + LONG)
    driver = world(deployment)
    old = connected(driver)
    old.send(b"rainy ")
    before = ids(deployment.engine)
    (told,) = lines(deployment, LISTENER + LONG.replace('"sunny" }', '"cloudy" }'))
    assert told == (
        '~ callout "sunny": replace "sunny" -> "cloudy" '
        "(live flows keep the old one until it is idle, and then get the new one)"
    )
    driver.settle()
    after = ids(deployment.engine)
    assert after["block at ale_auth_connect_v4"] == before["block at ale_auth_connect_v4"]
    assert after["edit at stream_v4"] > before["edit at stream_v4"]
    new = connected(driver)
    for flow in (old, new):
        flow.send(b"rainy")
        flow.send_fin()
    assert bytes(old.remote.data) == b"sunny cloudy"
    assert bytes(new.remote.data) == b"cloudy"


def test_a_busy_object_finishes_first() -> None:
    deployment = deployed(LISTENER + LONG)
    driver = world(deployment)
    flow = connected(driver)
    flow.send(b"it is rai")
    reload(deployment, LISTENER + LONG.replace('"sunny" }', '"cloudy" }'))
    flow.send(b"ny, rainy, ")
    driver.settle()
    flow.send(b"rainy")
    flow.send_fin()
    assert bytes(flow.remote.data) == b"it is sunny, sunny, cloudy"


def test_without_mid_stream_inspection_live_flows_go_on_without(tmp_path: Path) -> None:
    write_shouter(tmp_path, "A")
    path = tmp_path / "f.toml"
    path.write_text("[[rule]]\nname = 'own'\ncallout = './own.py:Own,mark=A'\n")
    deployment = deployed(load_config(path))
    driver = world(deployment)
    old = connected(driver)
    old.send(b"1")
    path.write_text("[[rule]]\nname = 'own'\ncallout = './own.py:Own,mark=B'\n")
    pending = deployment.prepare(load_config(path))
    assert pending.difference.lines() == [
        '~ rule "own": mark "A" -> "B" '
        "(live flows keep the old one until it is idle, and then go on without; new flows get the new one)"
    ]
    pending.commit()
    driver.settle()
    old.send(b"2")
    new = connected(driver)
    new.send(b"3")
    assert bytes(old.remote.data) == b"A2"
    assert bytes(new.remote.data) == b"B"


def write_shouter(folder: Path, version: str) -> None:
    """A callout without mid-stream inspection that puts its mark in the place of each first byte."""
    (folder / "own.py").write_text(
        "from wfpstream.callouts import SequentialCallout, need, replace\n"
        "class Own(SequentialCallout):\n"
        "    flags = 0\n"
        f"    VERSION = {version!r}\n"
        "    def __init__(self, mark: str = '', direction: str = 'to_upstream') -> None:\n"
        "        super().__init__(direction)\n"
        "        self.mark = (mark or self.VERSION).encode()\n"
        "    def parse(self, direction):\n"
        "        while (yield need(1)):\n"
        "            yield replace(1, self.mark)\n"
    )


def test_the_code_of_a_callout_file_that_was_changed_is_loaded_anew(tmp_path: Path) -> None:
    write_shouter(tmp_path, "A")
    path = tmp_path / "f.toml"
    path.write_text("[[callout]]\nname = 'own'\nuse = './own.py:Own'\n[[rule]]\ncallout = 'own'\n")
    deployment = deployed(load_config(path))
    driver = world(deployment)
    assert not deployment.prepare(load_config(path)).difference
    write_shouter(tmp_path, "B")
    pending = deployment.prepare(load_config(path))
    (told,) = pending.difference.lines()
    assert told.startswith('~ callout "own": ./own.py has changed (live flows keep the old one')
    pending.commit()
    flow = connected(driver)
    flow.send(b"1")
    assert bytes(flow.remote.data) == b"B"


def test_the_code_of_a_callout_file_is_left_alone_by_changes_by_hand(tmp_path: Path) -> None:
    write_shouter(tmp_path, "A")
    path = tmp_path / "f.toml"
    path.write_text("[[rule]]\ncallout = './own.py:Own'\n")
    deployment = deployed(load_config(path))
    write_shouter(tmp_path, "B")
    assert deployment.add_rule("monitor", {}).lines() == ['+ rule "monitor"']


def test_reloads_one_after_the_other_while_earlier_ones_drain() -> None:
    """Several generations of one callout at work at once; each finishes what it has begun."""
    text = "[[callout]]\nname = 'slow'\nuse = 'latency'\noptions = { delay = '9s' }\n[[rule]]\ncallout = 'slow'\n"
    deployment = deployed(text)
    driver = world(deployment)
    flow = connected(driver)
    sent = b""
    for seconds in range(5):
        flow.send(b"%d" % seconds)
        sent += b"%d" % seconds
        reload(deployment, text.replace("9s", f"{9 + seconds}s"))
        assert len(filters(deployment.engine, "stream_v4")) == 1
    driver.run_until(lambda: len(flow.remote.data) == len(sent))
    assert bytes(flow.remote.data) == sent
    driver.settle()
    assert len(deployment.engine.fwps.callouts.registered()) == 4
    assert not driver.violations


def test_a_filter_that_is_replaced_leaves_its_callout_at_work_on_live_flows() -> None:
    """The object is unchanged and stays; the new stage takes the place of the old one."""
    deployment = deployed(rules(rule("latency,delay=1s", "slow")))
    driver = world(deployment)
    flow = connected(driver, server=("10.0.0.2", 80))
    flow.send(b"1")
    owners = {entry.owner for entry in deployment.engine.fwps.callouts.registered()}
    (told,) = lines(deployment, rules(rule("latency,delay=1s", "slow", "{ remote_port = 80 }")))
    assert told.startswith('~ rule "slow": when {} -> {remote_port = 80} (live flows keep the old one')
    assert {entry.owner for entry in deployment.engine.fwps.callouts.registered()} == owners
    flow.send(b"2")
    assert not flow.remote.data
    driver.run_until(lambda: b"2" in flow.remote.data)
    now = driver.now
    flow.send(b"3")
    assert bytes(flow.remote.data) == b"12"
    driver.run_until(lambda: b"3" in flow.remote.data)
    assert driver.now == now + 1.0
    flow.send_fin()
    driver.run_until(lambda: flow.remote.fin)
    assert bytes(flow.remote.data) == b"123"
    assert not driver.violations


def test_two_rules_with_one_callout_and_one_of_them_goes() -> None:
    """The object stays at work for the other: it does not drain (MGMT-16)."""
    text = "[[callout]]\nname = 'x'\nuse = 'stream_edit'\noptions = { find = 'a', replace = 'b' }\n"
    two = (
        text + "[[rule]]\ncallout = 'x'\nwhen = { remote_port = 80 }\n[[rule]]\ncallout = 'x'\nname = 'all'\n"
    )
    deployment = deployed(two)
    driver = world(deployment)
    old = connected(driver, server=("10.0.0.2", 80))
    old.send(b"a")
    assert lines(deployment, text + "[[rule]]\ncallout = 'x'\nname = 'all'\n") == [
        '- rule "x when remote_port = 80"'
    ]
    driver.settle()
    new = connected(driver)
    for flow in (old, new):
        flow.send(b"a")
    assert (bytes(old.remote.data), bytes(new.remote.data)) == (b"bb", b"b")


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
        "monitor, pattern_drop, pend_fin, stream_edit, throttle, package.module:Class and ./file.py:Class",
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


# --- by hand


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
        'f.toml: added by hand[1].callout: no [[callout]] is named "sunny"'
    ]
    assert refused(deployment, LISTENER + LONG + "[[sublayer]]\nname = 'mine'\nweight = 1") == [
        'f.toml: added by hand[0].name: there is a sublayer "mine" already'
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
                "framer, latency, monitor, pattern_drop, pend_fin, stream_edit, throttle, package.module:Class "
                "and ./file.py:Class",
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
