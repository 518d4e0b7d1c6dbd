"""The commands of the control socket over a real engine in memory: plain data out, and errors that say what to do."""

from __future__ import annotations

import errno
import inspect
import json
import math
import os
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.cli.operated import Changed, Operated
from wfpstream import __version__
from wfpstream.callouts import create_callout
from wfpstream.cli._commands import make_commands
from wfpstream.config import ConfigError, Problem
from wfpstream.control import ControlError
from wfpstream.testing import FlowEnds, MemoryDriver


@pytest.fixture
def operated() -> Iterator[Operated]:
    with MemoryDriver() as driver:
        yield Operated(driver)


def asked(operated: Operated, command_name: str, /, **arguments: Any) -> Any:
    """Carry a command out; what it gives goes through JSON as it is."""
    command = make_commands(operated)[command_name]

    async def carried_out() -> Any:
        result = command(arguments)
        return await result if inspect.isawaitable(result) else result

    result = trio.run(carried_out)
    assert json.loads(json.dumps(result)) == result
    return result


def refusal(operated: Operated, command_name: str, /, **arguments: Any) -> tuple[str, str]:
    with pytest.raises(ControlError) as caught:
        asked(operated, command_name, **arguments)
    return caught.value.text, caught.value.code


def connect(driver: MemoryDriver, listener: str = "") -> FlowEnds:
    ends = driver.connect(listener=listener)
    assert ends is not None
    return ends


def without_trace(operated: Operated) -> list[tuple[Any, ...]]:
    """What an onlooker could see of the engine's flows."""
    return [(flow.paused[:], flow.occupied[:], flow.phase, flow.marked) for flow in operated.engine.flows]


# --- flows ------------------------------------------------------------------------------------------


def test_flows_in_short(operated: Operated) -> None:
    driver = operated.driver
    assert asked(operated, "flows") == []
    driver.add(create_callout("monitor", {}), name="look")
    driver.add(create_callout("framer", {"by": "line"}), name="lines")
    ends = connect(driver, listener="web")
    ends.local.window = 3
    ends.send(b"a line\nhalf")
    ends.receive(b"answer\n")
    driver.advance(2.0)
    before = without_trace(operated)
    (flow,) = asked(operated, "flows")
    assert without_trace(operated) == before
    assert (flow["id"], flow["listener"], flow["state"]) == (1, "web", "live")
    assert (flow["client"], flow["server"]) == (["10.0.0.1", 40000], ["10.0.0.2", 80])
    assert (flow["local"], flow["remote"]) == (["10.0.0.1", 40000], ["10.0.0.2", 80])
    assert (flow["age"], flow["idle"]) == (2.0, 2.0)
    assert flow["callouts"] == ["look", "lines"]
    assert flow["to_upstream"] == {
        "state": "reading", "read": 11, "written": 7, "held": 4, "unsent": 0, "injected": 0, "pended": 0,
        "missing": 0,
    }  # fmt: skip
    assert (flow["to_client"]["written"], flow["to_client"]["unsent"]) == (3, 4)


def test_flows_that_wait(operated: Operated) -> None:
    driver = operated.driver
    driver.add(create_callout("throttle", {"rate": "1KiB/s"}), name="slow")
    ends = connect(driver)
    for _ in range(20):
        ends.send(b"x" * 100_000)
    ends.receive(b"x" * 10_000)
    ends.receive_fin()
    (flow,) = asked(operated, "flows")
    assert flow["to_client"]["state"] == "deferred"
    assert flow["to_upstream"]["state"] == "paused"
    assert flow["to_upstream"]["pended"] > 0
    ends.send_fin()
    driver.advance(3_600.0)
    assert asked(operated, "flows") == []


def test_many_flows_are_described_in_turns_with_other_work(operated: Operated) -> None:
    for _ in range(100):
        operated.driver.connect()
    command = make_commands(operated)["flows"]
    turns = []

    async def other() -> None:
        while True:
            turns.append(1)
            await trio.lowlevel.checkpoint()

    async def main() -> int:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            found = await command({})
            nursery.cancel_scope.cancel()
        return len(found)

    assert trio.run(main) == 100
    assert len(turns) >= 3


def test_one_flow_in_depth(operated: Operated) -> None:
    driver = operated.driver
    added = driver.add(create_callout("stream_edit", {"find": "rainy", "replace": "sunny", "mode": "oob"}))
    driver.add(create_callout("framer", {"by": "length", "size": 4}), name="four")
    ends = connect(driver)
    ends.send(b"is it rainy?")
    ends.send_fin()
    flow = asked(operated, "show", flow=1)
    assert (flow["handle"], flow["layer"], flow["destination"]) == (1, "stream_v4", flow["server"])
    edit, four = flow["stages"]
    assert (edit["index"], edit["callout"], edit["role"], edit["action"]) == (
        0,
        added.name,
        "asked",
        "callout_unknown",
    )
    assert edit["filter"] in added.filter_ids
    assert edit["to_upstream"]["in"] == 12
    assert edit["to_upstream"]["injected"] + edit["to_upstream"]["permitted"] == four["to_upstream"]["in"]
    for side in ("to_upstream", "to_client"):
        ledger = flow["ledger"][side]
        assert ledger["faults"] == []
        assert flow[side]["held"] == ledger["held"] + ledger["queued"]
        for name in ("read", "written", "unsent", "injected"):
            assert flow[side][name] == ledger[name]
    assert flow["ledger"]["to_upstream"]["read"] == 12
    assert flow["to_upstream"]["state"] == "ended"


def test_contexts_and_what_a_stage_needs_are_shown(operated: Operated) -> None:
    driver = operated.driver
    driver.add(create_callout("framer", {"by": "line"}), name="lines")
    ends = connect(driver)
    ends.send(b"half a line")
    (stage,) = asked(operated, "show", flow=1)["stages"]
    assert stage["to_upstream"]["mode"] == "needs_more"
    assert stage["to_upstream"]["required"] > 0
    assert stage["to_client"]["mode"] == "idle"


def test_a_flow_there_is_not(operated: Operated) -> None:
    assert refusal(operated, "show", flow=7) == ("no flow 7 (any more)", "failed")
    assert refusal(operated, "abort", flow=7) == ("no flow 7 (any more)", "failed")
    text, code = refusal(operated, "show", flow="7")
    assert (text, code) == ("flow 7: there are no workers here; a flow is named by its number", "usage")
    assert refusal(operated, "show")[1] == "usage"
    assert "unknown field `flows`" in refusal(operated, "show", flow=1, flows=2)[0]


def test_abort_resets_both_ends(operated: Operated) -> None:
    driver = operated.driver
    ended: list[dict[str, Any]] = []
    driver.engine.add_sink(lambda event: ended.append(event) if event["event"] == "flow_deleted" else None)
    first, second = connect(driver), connect(driver)
    assert asked(operated, "abort", flow=2) == {"flow": 2, "state": "aborted"}
    driver.settle()
    assert (second.local.reset, second.remote.reset) == (True, True)
    assert (first.local.reset, first.remote.reset) == (False, False)
    assert [(event["flow"], event["reason"]) for event in ended] == [(2, "abort")]
    assert refusal(operated, "abort", flow=2)[0] == "no flow 2 (any more)"


# --- the proxy --------------------------------------------------------------------------------------


def test_stats(operated: Operated) -> None:
    now = 100.0
    commands = make_commands(operated, lambda: now)
    operated.driver.connect()
    now = 160.5
    found = commands["stats"]({})
    assert found == {
        "version": __version__,
        "pid": os.getpid(),
        "uptime": 60.5,
        "listeners": [
            {"name": "web", "mode": "reverse", "host": "127.0.0.1", "port": 8888},
            {"name": "", "mode": "redirect", "host": "::1", "port": 9},
        ],
        "connections": 3,
        "accepted": 7,
        "refused": 1,
        "rejected": {"own_listener": 2},
        "flows": 1,
        "stored": 0,
        "counters": {},
        "violations": {},
    }


def test_drain(operated: Operated) -> None:
    assert asked(operated, "drain", grace=1.5) == {"connections": 3, "grace": 1.5}
    assert asked(operated, "drain") == {"connections": 3, "grace": None}
    for grace in (-1, math.inf, math.nan):
        assert refusal(operated, "drain", grace=grace)[1] == "usage"
    assert operated.drained == [1.5, None]


# --- policy -----------------------------------------------------------------------------------------


def test_filters_in_force(operated: Operated) -> None:
    operated.driver.add(create_callout("banner", {"text": "hello"}), name="greet")
    found = asked(operated, "filters")
    layers = {layer["name"]: layer["sublayers"] for layer in found["layers"]}
    (sub_layer,) = layers["stream_v4"]
    (shown,) = sub_layer["filters"]
    assert (sub_layer["name"], shown["callout"], shown["action"]) == ("greet", "greet", "callout_unknown")


def test_reload(operated: Operated) -> None:
    operated.reloads = [Changed('+ rule "x"')]
    assert asked(operated, "reload") == {"changes": [{"name": '+ rule "x"'}], "lines": ['+ rule "x"']}
    operated.reloads = [ConfigError([Problem(("rule", 0), "no", 3), Problem((), "neither")], "f.toml")]
    assert refusal(operated, "reload") == ("f.toml:3: rule[0]: no\nf.toml: neither", "usage")
    operated.reloads = [OSError(errno.EADDRINUSE, "cannot listen on 127.0.0.1:80: address already in use")]
    assert refusal(operated, "reload") == (
        "cannot listen on 127.0.0.1:80: address already in use; nothing was changed",
        "failed",
    )


def test_add_filter(operated: Operated) -> None:
    deployment = operated.deployment
    added = asked(operated, "add-filter", callout="monitor", when={"remote_port": 80}, name="x")
    assert added["lines"] == ['+ rule "x"']
    asked(operated, "add-filter", toml="[[rule]]\n")
    assert deployment.asked == [("rule", "monitor", {"remote_port": 80}, "x"), ("fragment", "[[rule]]\n")]
    deployment.error = ConfigError("callout 'x': there is none")
    assert refusal(operated, "add-filter", callout="x") == ("callout 'x': there is none", "usage")
    for arguments in ({}, {"callout": "a", "toml": "b"}, {"toml": "b", "name": "c"}, {"when": {"a": 1}}):
        assert refusal(operated, "add-filter", **arguments)[1] == "usage"


def test_delete_filter(operated: Operated) -> None:
    driver = operated.driver
    lines = driver.add(create_callout("framer", {"by": "line"}))
    greet = driver.add(create_callout("banner", {"text": "hello"}))
    connect(driver).send(b"half a line")
    busy, idle = lines.filter_ids[0], greet.filter_ids[1]
    text, code = refusal(operated, "delete-filter", filter=busy)
    assert text.startswith(f"filter {busy} is in use")
    assert "--drain" in text
    assert code == "failed"
    assert asked(operated, "delete-filter", filter=idle) == {"filter": idle, "state": "deleted"}
    assert refusal(operated, "delete-filter", filter=idle) == (
        f"no filter {idle}; `wfpstream ctl filters` lists them",
        "failed",
    )
    assert operated.deployment.asked == [
        ("delete", busy, False),
        ("delete", idle, False),
        ("delete", idle, False),
    ]
