"""The verifier itself, rule by rule (section 20, VRF-*): what it promises, and how it tells.

The single violations are in the `test_violations*` modules.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.rules.answers import answering, block, once, permit
from tests.rules.minimal import (
    BLOCK,
    CONTINUE,
    NEED_MORE_DATA,
    NONE,
    PERMIT,
    RECEIVE_PUSH,
    SEND,
    STREAM,
    SUCCESS,
    HandClock,
    Plain,
    World,
    hints,
)
from tests.scenarios.support_api import key, named
from wfpstream import fwpm
from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.fwp import NtStatus
from wfpstream.fwps import Callout1, OutOfBandCallout, Worker
from wfpstream.testing import MemoryDriver


class Forward(Worker):
    """Passes everything on."""

    async def run(self) -> None:
        while True:
            item = await self.next()
            if item.kind == "data":
                await self.inject(item)
            elif item.kind == "end":
                await self.inject_fin()
                return
            else:
                return


class Forwarding(OutOfBandCallout):
    name = "forwarding"
    worker_class = Forward


def inline_upper(*call: Any) -> None:
    """A lawful inline callout: passes whole pairs of bytes, waits for the second byte unless the end is near."""
    packet, out = call[2], call[-1]
    length = len(packet.stream_data)
    out.action_type = PERMIT
    if length == 1 and not out.flags and packet.stream_data.flags in (SEND, RECEIVE_PUSH):
        out.action_type = NONE
        packet.stream_action = NEED_MORE_DATA
        packet.count_bytes_required = 2
    elif length > 2:
        packet.count_bytes_enforced = length - length % 2


@pytest.mark.parametrize("delivery", ["inline", "queued"])
@pytest.mark.parametrize("completion", ["normal", "early"])
@pytest.mark.parametrize("seed", range(6))
def test_vrf_1_lawful_callouts_are_not_reported(seed: int, completion: str, delivery: str) -> None:
    """VRF-1: no E and no W, whatever the cuts, the scheduling options and the moment of a reset."""
    dice = random.Random(seed)
    options = EngineOptions(completion=completion, inject_delivery=delivery)
    w = World(inline_upper, options=options)
    w.driver.add(Forwarding())
    w.flow = w.connect()
    sent = {"send": b"", "receive": b""}
    for _ in range(dice.randint(5, 20)):
        side = dice.choice(("send", "receive"))
        piece = bytes(dice.randrange(256) for _ in range(dice.randint(1, 9)))
        sent[side] += piece
        (w.send if side == "send" else w.receive)(piece)
    if seed % 2:
        w.reset(dice.choice(("local", "remote")))
    else:
        w.send_fin()
        w.receive_fin()
        assert (w.to_remote, w.to_local) == (sent["send"], sent["receive"])
    w.driver.advance(60.0)
    assert w.close() == []


@pytest.mark.parametrize("seconds", [0.0, 4.9])
def test_vrf_2_races_of_a_flows_end_within_the_grace(seconds: float) -> None:
    """VRF-2: a clone still to be discarded, an injection on its way, a FIN just pended."""

    def pend(*call: Any) -> None:
        w.keep_clone(call[2])
        call[-1].action_type = BLOCK

    w = World(pend, options=EngineOptions(indicate_abort=False))
    w.send(b"x")
    w.send_fin()
    w.reset()
    w.driver.advance(seconds)
    assert w.inject_kept(SEND) == NtStatus.STATUS_FWP_NOT_FOUND
    w.discard()
    w.driver.advance(10.0)
    assert w.close() == []


def test_vrf_2_grace_can_be_set() -> None:
    """VRF-2: `verify.grace`, 5 s by default."""
    options = EngineOptions()
    assert options.verify.grace == 5.0
    options.verify.grace = 1.0

    def pend(*call: Any) -> None:
        w.keep_clone(call[2])
        call[-1].action_type = BLOCK

    w = World(pend, options=options)
    w.send(b"x")
    assert w.fwps.flow_abort(w.flow.id) == SUCCESS
    w.settle()
    w.driver.advance(1.1)
    assert [rule for rule, _ in w.caught] == ["V-23"]


@pytest.mark.parametrize(("virtual", "told"), [(False, ["V-42"]), (True, [])])
def test_vrf_3_clock_based_rules_never_fail_strict(virtual: bool, told: list[str]) -> None:
    """VRF-3: lint only, the flow lives on under `strict`; off under virtual time."""
    clock = HandClock()
    options = EngineOptions()
    options.verify.level = "strict"
    driver = MemoryDriver(engine=FilterEngine(clock, options))
    if virtual:
        driver = MemoryDriver(options=options)

    def slow(*call: Any) -> None:
        clock.now += 1.0
        call[-1].action_type = PERMIT

    driver.add(Plain(slow))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"x")
    driver.settle()
    assert bytes(flow.remote.data) == b"x"
    assert not flow.ended
    assert driver.violations == told
    driver.close()


@pytest.mark.parametrize(
    ("classify", "rule"), [(answering(99), "V-6"), (answering(PERMIT, enforced=99), "V-8")]
)
def test_strict_lets_an_error_meet_on_callout_error(classify: Callable[..., None], rule: str) -> None:
    """VRF-3's other side: under `strict` an E meets `on_callout_error` (default drop), an L or W does not."""
    for body, dropped, told in ((classify, True, rule), (answering(PERMIT, required=1), False, "V-10")):
        options = EngineOptions()
        options.verify.level = "strict"
        driver = MemoryDriver(options=options)
        driver.add(Plain(body))
        flow = driver.connect()
        assert flow is not None
        flow.send(b"x")
        driver.settle()
        assert flow.remote.reset is dropped
        assert driver.violations == [told]
        driver.close()


@pytest.mark.parametrize(("by_design", "severity"), [((), "E"), (("V-8",), "L"), (("V-6",), "E")])
def test_what_a_callout_breaks_by_design_is_lint(by_design: tuple[str, ...], severity: str) -> None:
    """VRF-1: a fault that is injected on purpose says so, for that very rule; then `strict` lets it be."""
    options = EngineOptions()
    options.verify.level = "strict"
    driver = MemoryDriver(options=options)
    callout = Plain(answering(PERMIT, enforced=99))
    callout.breaks_by_design = by_design
    driver.add(callout)
    flow = driver.connect()
    assert flow is not None
    flow.send(b"x")
    driver.settle()
    (event,) = [event for event in driver.events if event["event"] == "violation"]
    assert (event["rule"], event["severity"]) == ("V-8", severity)
    assert flow.remote.reset is (severity == "E")
    driver.close()


def test_vrf_4_hints_are_off_by_default() -> None:
    """VRF-4: guesses that also fit legal callouts need `verify.hints`."""
    assert EngineOptions().verify.hints is False

    def inject_and_permit(*call: Any) -> None:
        worlds[-1].inject_bytes(SEND, b"x")
        call[-1].action_type = PERMIT

    worlds: list[World] = []
    for options, told in ((EngineOptions(), []), (hints(), ["V-9"])):
        worlds.append(w := World(inject_and_permit, options=options))
        w.send(b"a")
        assert [rule for rule, _ in w.close()] == told


def continue_not_deferred(w: World) -> Any:
    return w.fwps.stream_continue(w.flow.id, w.callout_id, STREAM, RECEIVE_PUSH)


REFUSED: dict[str, tuple[Callable[[World], Any], str, str]] = {
    "register twice": (
        lambda w: [w.fwps.callout_register1(None, structure(w))[0] for _ in range(2)][1],
        "STATUS_FWP_ALREADY_EXISTS",
        "REG-2",
    ),
    "register without classifyFn": (
        lambda w: w.fwps.callout_register1(None, Callout1(key("none"), 0, None, lambda *c: SUCCESS))[0],
        "STATUS_FWP_NULL_POINTER",
        "REG-4",
    ),
    "unregister unknown": (
        lambda w: w.fwps.callout_unregister_by_id(4711),
        "STATUS_FWP_CALLOUT_NOT_FOUND",
        "UNR-1",
    ),
    "associate zero": (lambda w: w.associate(0), "STATUS_INVALID_PARAMETER", "CTX-2"),
    "associate twice": (
        lambda w: [w.associate(1), w.associate(2)][1],
        "STATUS_OBJECT_NAME_EXISTS",
        "CTX-6",
    ),
    "remove nothing": (lambda w: w.remove(), "STATUS_UNSUCCESSFUL", "CTX-9"),
    "abort unknown": (lambda w: w.fwps.flow_abort(987654), "STATUS_FWP_NOT_FOUND", "ABT-2"),
    "continue": (continue_not_deferred, "STATUS_INVALID_DEVICE_STATE", "DEF-8"),
    "handle with unknown flags": (
        lambda w: w.fwps.injection_handle_create(0, 1 << 20)[0],
        "STATUS_INVALID_PARAMETER",
        "IHC-1",
    ),
    "destroy unknown handle": (
        lambda w: w.fwps.injection_handle_destroy(0xDEAD),
        "STATUS_INVALID_HANDLE",
        "CMP-12",
    ),
    "clone with flags": (
        lambda w: w.fwps.allocate_clone_net_buffer_list(w.list_of(b"x"), None, None, 1)[0],
        "STATUS_INVALID_PARAMETER",
        "CLN-10",
    ),
    "filter at an unknown layer": (
        lambda w: w.driver.session.filter_add(
            fwpm.Filter(filter_key=key("f"), display_data=named("f"), layer_key=key("no layer"))
        )[0],
        "STATUS_FWP_LAYER_NOT_FOUND",
        "MGMT-4",
    ),
    "commit without a transaction": (
        lambda w: w.driver.session.transaction_commit(),
        "STATUS_FWP_NO_TXN_IN_PROGRESS",
        "MGMT-1",
    ),
}


def structure(w: World) -> Callout1:
    return Callout1(key("twice"), 0, permit, w.callout.notify_fn, None)


@pytest.mark.parametrize("name", REFUSED)
def test_vrf_6_every_refused_call_is_an_event(name: str) -> None:
    """VRF-6: with the NTSTATUS name, its value, and the id of the rule that decided."""
    call, status, rule = REFUSED[name]
    w = World(permit)
    before = len(w.events("refused"))
    answer = call(w)
    assert answer.name == status
    (event,) = w.events("refused")[before:]
    assert (event["status"], event["value"], event["rule"]) == (status, int(answer), rule)
    assert event["call"]


def test_vrf_6_clone_of_stream_data_with_flags() -> None:
    """VRF-6, CLN-3: inside a classify too."""

    def classify(*call: Any) -> None:
        w.fwps.clone_stream_data(call[2].stream_data, None, None, 1)
        call[-1].action_type = PERMIT

    w = World(classify)
    w.send(b"x")
    assert [(status, rule) for _, status, rule in w.refusals()] == [("STATUS_INVALID_PARAMETER", "CLN-3")]


def test_vrf_6_refused_injection() -> None:
    """VRF-6: the event of the injection itself carries status, value and row."""
    w = World(block)
    assert w.inject_bytes(0, b"x") == NtStatus.STATUS_FWP_INVALID_PARAMETER
    event = w.events("inject")[-1]
    assert event["status"] == "STATUS_FWP_INVALID_PARAMETER"
    assert event["value"] == 0xC0220035
    assert event["rule"] == "INJ-32"


def test_vrf_6_violation_carries_id_severity_and_place() -> None:
    """VRF-6: and the callout, its filter, the direction and the offset."""
    w = World(once(permit, answering(PERMIT, enforced=99)))
    w.send(b"abc")
    w.send(b"de")
    (event,) = w.events("violation")
    assert (event["rule"], event["severity"], event["callout"]) == ("V-8", "E", "minimal")
    assert event["filter"] == w.added.filter_ids[0]
    assert (event["dir"], event["offset"]) == ("to_upstream", 3)
    assert event["where"].endswith(".py:" + event["where"].rpartition(":")[2])
    assert event["text"]


def test_levels() -> None:
    """Section 20: with `verify.level` off only what decides the fate of bytes is told."""

    def strange(*call: Any) -> None:
        call[-1].rights = 0
        call[-1].action_type = CONTINUE
        call[2].count_bytes_required = 3

    def broken(*call: Any) -> None:
        raise ValueError("broken")

    for body, told in ((strange, []), (broken, ["V-40"])):
        driver = MemoryDriver(options=EngineOptions())
        driver.add(Plain(body))
        flow = driver.connect()
        assert flow is not None
        flow.send(b"x")
        driver.settle()
        assert driver.violations == told
        driver.close()
