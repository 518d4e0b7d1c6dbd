"""What the canonical form (IND-26) says about single answers, stages and flows.

Owns one small case per rule that decides a byte's fate, and the comparison of the form with the engine's own ledger.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.model.test_segmentation import ByOffset, Plan, pieces, plan_strategy
from tests.scenarios.support import (
    ALLOW,
    DEF,
    DROP,
    NMD,
    SEND,
    SEND_FIN,
    Answer,
    B,
    Bench,
    C,
    Call,
    P,
    Script,
    inj,
)
from tests.scenarios.support_api import ManagedBench, Plane, in_one_sub_layer
from wfpstream.callouts import Latency
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import Callout, OutOfBandCallout
from wfpstream.testing import CanonicalRun, CanonicalStage, MemoryDriver, canonical, canonical_diff

ENDED = True


def sent(bench: Bench, *items: bytes, fin: bool = ENDED) -> list[CanonicalStage]:
    """What each stage did to these bytes of the local host; the connection ends in order, or is left open."""
    bench.send(*items)
    if fin:
        bench.send_fin()
        bench.receive_fin()
    return stages(bench.driver)


def stages(driver: MemoryDriver, direction: int = 0) -> list[CanonicalStage]:
    """The stages of the one flow, after all has come to an end."""
    driver.advance(1000)
    driver.close()
    (flow,) = canonical(driver.events).flows
    return list(flow.directions[direction].stages)


def runs(stage: CanonicalStage) -> list[str]:
    """Readable, with what was put in behind."""
    return [*map(str, stage.runs), *map(str, stage.injections)]


def options(**members: Any) -> EngineOptions:
    """Engine options with some policies or switches set."""
    made = EngineOptions()
    for name, value in members.items():
        setattr(made.policy if hasattr(made.policy, name) else made, name, value)
    return made


# --- one stage --------------------------------------------------------------------------------------------

ONE_STAGE: dict[str, tuple[list[Answer], list[str], str]] = {
    "permit in parts": ([P(2), P(1), C(0)], ["0+6 permitted"], "permitted"),
    "block in the middle": (
        [P(2), B(2), P(1)],
        ["0+2 permitted", "2+2 blocked", "4+2 permitted"],
        "permitted",
    ),
    "more than there is": ([B(100)], ["0+4 blocked", "4+2 permitted"], "permitted"),
    "more data, then all": ([NMD(), P(0)], ["0+6 permitted"], "permitted"),
    "put in before what is shown": (
        [P(2), B(1, inj(b"xy")), P(0)],
        ["0+2 permitted", "2+1 blocked", "3+3 permitted", "puts in 2+2"],
        "permitted",
    ),
    "asked no more": ([P(1), ALLOW()], ["0+6 permitted"], "permitted"),
    "an end of its own": ([P(0), P(0), B(0, inj(b"", SEND_FIN))], ["0+6 permitted"], "injected"),
}


@pytest.mark.parametrize(("answers", "expected", "fin"), ONE_STAGE.values(), ids=ONE_STAGE)
def test_one_stage(answers: list[Answer], expected: list[str], fin: str) -> None:
    (stage,) = sent(Bench(Script(*answers, then=P(0))), b"abcd", b"ef")
    assert (runs(stage), stage.fin) == (expected, fin)


def test_a_fin_that_is_held_is_blocked() -> None:
    bench = Bench(Script(P(0), B(0)))
    bench.send(b"abcd")
    bench.send_fin()
    (stage,) = stages(bench.driver)
    assert (runs(stage), stage.fin) == (["0+4 permitted"], "blocked")


def test_bytes_still_held_when_the_driver_stops_have_met_no_fate() -> None:
    (stage,) = sent(Bench(Script(P(3), NMD())), b"abcd", fin=False)
    assert (runs(stage), stage.fin) == (["0+3 permitted"], "")


def test_deferred_bytes_are_permitted_once_they_are() -> None:
    script = Script(P(1), DEF(), P(0))
    bench = Bench(script)
    bench.receive(b"abcd")
    script.resume()
    bench.driver.settle()
    (stage,) = stages(bench.driver, direction=1)
    assert runs(stage) == ["0+4 permitted"]


def test_what_a_dropped_connection_had_not_passed_does_not_count() -> None:
    stage, monitor = sent(Bench(Script(P(2), B(1), DROP()), Script(then=P(0), name="B")), b"abcd", fin=False)
    assert [runs(stage), runs(monitor)] == [["0+2 permitted"], ["0+2 permitted"]]


def test_what_stages_above_had_passed_counts_as_far_as_those_below_decided() -> None:
    above, below = sent(Bench(Script(then=P(0)), Script(P(2), NMD(), name="B")), b"abcd", fin=False)
    assert [runs(above), runs(below)] == [["0+2 permitted"], ["0+2 permitted"]]


def test_an_inspection_callout_takes_nothing_out_and_drops_nothing() -> None:
    """ACT-2, DRP-1, and the FIN alike."""
    inspecting = Script(B(0), DROP(), B(0), action="callout_inspection")
    (stage,) = sent(Bench(inspecting), b"abcd", b"ef")
    assert (runs(stage), stage.fin) == (["0+6 permitted"], "permitted")


def test_an_inspection_callout_drops_nothing_where_nothing_follows_either() -> None:
    (stage,) = sent(Bench(Script(DROP(), action="callout_inspection")), b"abcd", fin=False)
    assert runs(stage) == ["0+4 permitted"]


def test_an_answer_that_came_too_late_is_not_obeyed() -> None:
    """ABT-1: the callout itself aborted the flow inside the classify."""

    def abort(call: Call) -> None:
        call.owner.fwps.flow_abort(call.flow_id)

    (stage,) = sent(Bench(Script(P(2), P(0, abort))), b"abcd", fin=False)
    assert runs(stage) == ["0+2 permitted"]


@pytest.mark.parametrize("policy", ["permit", "bypass"])
def test_the_policy_decides_where_the_answer_is_not_allowed(policy: str) -> None:
    """ACT-13: DEFER outbound."""
    bench = Bench(Script(P(1), DEF(), P(0)), options=options(on_callout_error=policy))
    (stage,) = sent(bench, b"abcd", b"ef")
    assert (runs(stage), stage.fin) == (["0+6 permitted"], "permitted")


class Raising(Callout):
    """Blocks two bytes, then raises."""

    def __init__(self) -> None:
        self.calls = 0

    def classify_fn(self, *call: Any) -> None:
        self.calls += 1
        packet, out = call[2], call[-1]
        out.action_type = int(ActionType.BLOCK)
        packet.count_bytes_enforced = 2
        if self.calls == 2:
            raise RuntimeError("no")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("permit", ["0+2 blocked", "2+2 permitted", "4+2 blocked"]),
        ("bypass", ["0+2 blocked", "2+4 permitted"]),
        ("drop", []),
    ],
)
def test_the_policy_decides_where_the_callout_raises(policy: str, expected: list[str]) -> None:
    """ACT-14."""
    (stage,) = sent(
        Bench(Raising(), options=options(on_callout_error=policy)), b"abcd", b"ef", fin=policy == "bypass"
    )
    assert runs(stage) == expected


# --- several stages ---------------------------------------------------------------------------------------


def test_injected_bytes_are_told_apart_further_down() -> None:
    above = Script(P(2), B(1, inj(b"xyz")), P(0))
    below = Script(P(0), NMD(), B(4), P(0), name="B")
    one, two = sent(Bench(above, below), b"abcd")
    assert runs(one) == ["0+2 permitted", "2+1 blocked", "3+1 permitted", "puts in 2+3"]
    assert runs(two) == ["0+2 permitted", "2+3 blocked, injected above", "5+1 blocked"]
    assert [stage.callout for stage in (one, two)] == ["A", "B"]


def test_bytes_that_skip_a_stage_of_the_same_sublayer_were_permitted_there() -> None:
    """ARB-6: PERMIT skips B, CONTINUE does not."""
    a, b, c = Script(P(2), C(0)), Script(B(0), name="B"), Script(then=P(0), name="C")

    def add(plane: Plane) -> None:
        in_one_sub_layer(a, b)(plane)
        plane.register(c)
        plane.callout("C")
        assert plane.callout_filter(c, sub_layer=plane.sub_layer("lower", 0x20))[0] == NtStatus.STATUS_SUCCESS

    found = [runs(stage) for stage in sent(ManagedBench(a, b, c, add=add), b"abcde", fin=False)]
    assert found == [["0+5 permitted"], ["0+2 permitted", "2+3 blocked"], ["0+2 permitted"]]


def test_what_skips_the_last_stage_was_permitted_there() -> None:
    """ARB-6."""
    a, b = Script(P(2), C(0)), Script(B(0), name="B")
    found = sent(ManagedBench(a, b, add=in_one_sub_layer(a, b)), b"abcde", fin=False)
    assert [runs(stage) for stage in found] == [["0+5 permitted"], ["0+2 permitted", "2+3 blocked"]]


@pytest.mark.parametrize("put_in", [b"", b"xyz"])
def test_where_a_stage_below_ended_early_it_is_open_what_became_of_the_fin_above(put_in: bytes) -> None:
    """OOB-7: whether the peer's own FIN comes before the flow has ended is chance."""
    ending = Script(P(2), B(0, inj(put_in, SEND_FIN)), then=B(0), name="B")
    above, below = sent(Bench(Script(then=P(0)), ending), b"abcd", b"ef")
    assert (runs(above), above.fin) == (["0+2 permitted"], "")
    assert below.fin == "injected"
    assert runs(below) == ["0+2 permitted", *(["puts in 2+3"] if put_in else [])]


def test_a_stage_that_came_later_and_lets_nothing_through_is_still_the_first() -> None:
    """MGMT-11."""
    bench = Bench(Script(then=P(0)))
    bench.send(b"abc")
    late = Script(then=B(0), name="B", flags=8)
    late.transcript = bench.transcript
    bench.driver.add(late, weight=0xFFFF)
    first, second = sent(bench, b"de", fin=False)
    assert [(first.callout, runs(first)), (second.callout, runs(second))] == [
        ("B", ["0+3 permitted", "3+2 blocked"]),
        ("A", ["0+3 permitted"]),
    ]


def test_a_stage_that_came_later_let_what_was_before_go_by() -> None:
    """MID-1, MGMT-11: it is asked first from then on."""
    bench = Bench(Script(then=P(0)))
    bench.send(b"abc")
    late = Script(B(0), then=P(0), name="B", flags=8)
    late.transcript = bench.transcript
    bench.driver.add(late, weight=0xFFFF)
    first, second = sent(bench, b"de", b"f")
    assert [first.callout, second.callout] == ["B", "A"]
    assert runs(first) == ["0+3 permitted", "3+2 blocked", "5+1 permitted"]
    assert runs(second) == ["0+4 permitted"]


def test_a_filter_that_blocks_by_itself_is_a_stage_without_a_callout() -> None:
    """ARB-10."""

    def add(plane: Plane) -> None:
        sub_layer = plane.sub_layer("block", 0x10)
        plane.filter("block", sub_layer_key=sub_layer, action_type=ActionType.BLOCK)

    def both(driver: MemoryDriver) -> None:
        driver.add(Script(P(2), B(1), name="first"), weight=0x80)
        add(Plane(driver))

    one, two = sent(Bench(before=both), b"abcd", fin=False)
    assert (one.callout, runs(one)) == ("first", ["0+2 permitted", "2+1 blocked", "3+1 permitted"])
    assert (two.callout, runs(two)) == (None, ["0+3 blocked"])


def test_workers_behind_each_other_are_told_apart() -> None:
    bench = Bench(Latency(delay=1), Latency(delay=2), OutOfBandCallout())
    found = sent(bench, b"abc", b"def")
    assert [stage.fin for stage in found[:2]] == ["injected"] * 2
    assert [runs(stage) for stage in found[:2]] == [
        ["0+6 blocked", "puts in 0+6"],
        ["0+6 blocked, injected above", "puts in 0+6"],
    ]


def test_an_urgent_byte_that_overtakes_has_the_place_of_its_decision() -> None:
    """IND-7."""
    bench = Bench(Script(NMD(3), P(0), B(0), P(0)))
    bench.send(b"a")
    bench.flow.send(b"!", urgent=True)
    bench.send(b"bc")
    (stage,) = stages(bench.driver)
    assert stage.runs == (CanonicalRun(0, 1, "permitted"), CanonicalRun(1, 3, "blocked"))


# --- many, against the engine's own count -------------------------------------------------------------------


@given(
    data=st.binary(min_size=1, max_size=40),
    cuts=st.lists(st.integers(1, 39), max_size=10, unique=True).map(tuple),
    plans=st.lists(plan_strategy, min_size=1, max_size=3),
)
def test_it_agrees_with_the_ledger(data: bytes, cuts: tuple[int, ...], plans: Sequence[Plan]) -> None:
    """LED-1: permitted, blocked and injected, stage by stage; and the last stage lets go what arrived."""
    with MemoryDriver() as driver:
        for number, plan in enumerate(plans):
            driver.add(ByOffset(plan, f"stage {number}"))
        flow = driver.connect()
        assert flow is not None
        for piece in pieces(data, tuple(c for c in cuts if c < len(data))):
            flow.send(piece)
        flow.send_fin()
        flow.receive_fin()
        counted = flow.ledger(0).stages
    found = stages(driver)
    for stage, ledger in zip(found, counted, strict=True):
        totals = {"permitted": 0, "blocked": 0, "put in": sum(each.length for each in stage.injections)}
        for run in stage.runs:
            totals[run.fate] += run.length
        assert totals == {
            "permitted": ledger.permitted + ledger.bypassed,
            "blocked": ledger.blocked,
            "put in": ledger.injected,
        }
    assert sum(run.length for run in found[0].runs) == len(data)


# --- logs -------------------------------------------------------------------------------------------------


def two_flows(first: bytes, second: bytes, ports: Sequence[int]) -> list[dict[str, Any]]:
    """Two connections whose bytes come by turns."""
    driver = MemoryDriver()
    driver.add(Script(then=P(0)))
    flows = [driver.connect(client=("10.0.0.1", port)) for port in ports]
    for flow, data in zip(flows, (first, second), strict=True):
        assert flow is not None
        flow.send(data[:1])
    for flow, data in zip(flows, (first, second), strict=True):
        assert flow is not None
        flow.send(data[1:])
    driver.close()
    return list(driver.events)


def test_flows_are_numbered_in_order_of_establishment_or_named() -> None:
    one, other = two_flows(b"abc", b"de", (1, 2)), two_flows(b"de", b"abc", (2, 1))
    assert [flow.name for flow in canonical(one).flows] == [1, 2]
    assert canonical(one) != canonical(other)

    def port(event: Any) -> int:
        return int(event["client"][1])

    assert canonical(one, key=port) == canonical(other, key=port)
    assert [flow.name for flow in canonical(other, key=port).flows] == [1, 2]
    with pytest.raises(ValueError, match="two flows are named 1"):
        canonical(two_flows(b"", b"", (1, 1)), key=port)


def test_a_log_that_was_written_and_read_again_is_the_same() -> None:
    events = two_flows(b"abc", b"de", (1, 2))
    read = [json.loads(json.dumps({k: v for k, v in event.items() if k != "data"})) for event in events]
    assert canonical(read) == canonical(events)


def test_numbers_of_flows_and_filters_do_not_matter() -> None:
    """In replay the first flow is number 0."""
    events = two_flows(b"abc", b"de", (1, 2))
    renamed = [{**event, "flow": event["flow"] - 1} if event["flow"] else event for event in events]
    renamed = [{**event, "filter": event["filter"] + 70} if "filter" in event else event for event in renamed]
    assert canonical(renamed) == canonical(events)


def test_nothing_is_a_log_as_well() -> None:
    assert canonical([]).flows == ()
    assert str(canonical([])) == ""
    log = canonical(two_flows(b"abc", b"de", (1, 2)))
    assert canonical_diff(log, log) == ""
    assert canonical_diff(canonical([]), log).splitlines()[:2] == ["the logs differ:", "- (the end)"]


def test_it_can_be_read() -> None:
    bench = Bench(Script(P(2), B(1, inj(b"xy", SEND)), P(0), then=P(0)))
    bench.send(b"abcd")
    bench.send_fin()
    bench.receive_fin()
    bench.driver.close()
    assert str(canonical(bench.driver.events)).splitlines() == [
        "flow 1",
        "  to_upstream, fin",
        "    stage 0, A",
        "      0+2 permitted",
        "      2+1 blocked",
        "      3+1 permitted",
        "      puts in 2+2",
        "      FIN permitted",
        "  to_client, fin",
        "    stage 0, A",
        "      FIN permitted",
    ]
