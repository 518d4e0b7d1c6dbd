"""A configuration as one transaction: what stays, what is replaced, and that errors change nothing."""

from __future__ import annotations

from pathlib import Path

from tests.config.deployed import (
    LISTENER,
    LONG,
    SUNNY,
    callout_ids,
    connected,
    deployed,
    everything,
    filters,
    ids,
    lines,
    loaded,
    reload,
    rule,
    rules,
    world,
)
from wfpstream.config import load_config

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


def test_what_others_have_deleted_comes_back_with_the_file() -> None:
    text = rules(rule("monitor", "m"), rule("framer", "f"))
    deployment = deployed(text)
    session = deployment.engine.session
    for name in ("m at stream_v4", "f at stream_v6"):
        assert session.filter_delete_by_id(ids(deployment.engine)[name]).ok
    assert lines(deployment, text) == ['+ rule "m" at stream_v4', '+ rule "f" at stream_v6']
    for number in ids(deployment.engine).values():
        assert session.filter_delete_by_id(number).ok
    for sub_layer in session.sub_layer_enum()[1]:
        session.sub_layer_delete_by_key(sub_layer.sub_layer_key)
    assert lines(deployment, rules(rule("framer", "f"))) == [
        '+ rule "f" at stream_v4, stream_v6',
        '- rule "m"',
    ]
    assert [one.display_data.name for one in filters(deployment.engine, "stream_v4")] == ["f"]


def test_a_file_that_an_option_reads_is_read_again(tmp_path: Path) -> None:
    path, word = tmp_path / "f.toml", tmp_path / "word"
    path.write_text("[[rule]]\nname = 'x'\ncallout = 'stream_edit,find=rainy,replace=@word'\n")
    word.write_bytes(b"sunny")
    deployment = deployed(load_config(path))
    assert not deployment.prepare(load_config(path)).difference
    word.write_bytes(b"cloudy")
    (told,) = deployment.prepare(load_config(path)).commit().lines()
    assert told.startswith("~ rule \"x\": replace b'sunny' -> b'cloudy' (live flows")


def test_the_name_of_a_rule_without_one_is_not_too_long() -> None:
    deployment = deployed(rules(rule(f"stream_edit,find={'x' * 300}"), rule(f"stream_edit,find={'x' * 301}")))
    names = [one.display_data.name for one in filters(deployment.engine, "stream_v4")]
    assert names == [f"stream_edit,find={'x' * 100}..."] * 2
    assert lines(deployment, rules(rule(f"stream_edit,find={'x' * 301}"))) == [f'- rule "{names[0]}"']
