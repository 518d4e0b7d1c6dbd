"""Every built-in keeps its promise whatever an engine is allowed to do: orders, completions, ends, limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.callouts.support import all_cuts, memory_driver, relay, watched
from wfpstream.callouts import (
    AllowAfter,
    Banner,
    Fault,
    Framer,
    Latency,
    Monitor,
    PatternDrop,
    PendFin,
    SequentialCallout,
    Steps,
    StreamEdit,
    Throttle,
    need,
    permit,
    replace,
)
from wfpstream.engine import EngineOptions
from wfpstream.fwps import Callout
from wfpstream.testing import FlowEnds, Peer

Make = Callable[[], Callout]


class Doubled(SequentialCallout):
    """Says every other byte twice."""

    def parse(self, direction: str) -> Steps:
        while pair := (yield need(2)):
            yield permit(len(pair) - 1)
            yield replace(1, pair[-1:] * 2)


TEXT = b"one two\nthree four\nfive"

# What each makes of TEXT.
BUILT_INS: dict[str, tuple[Make, bytes]] = {
    "stream_edit": (lambda: StreamEdit(find="e f", replace="-"), TEXT.replace(b"e f", b"-")),
    "stream_edit oob": (lambda: StreamEdit(find="e f", replace="-", mode="oob"), TEXT.replace(b"e f", b"-")),
    "monitor": (lambda: Monitor(summary=False), TEXT),
    "throttle": (lambda: Throttle(rate=10, burst=3), TEXT),
    "latency": (lambda: Latency(delay=0.5, jitter=0.3), TEXT),
    "framer": (Framer, TEXT),
    "pattern_drop": (lambda: PatternDrop(find="six"), TEXT),
    "stream_edit whole": (
        lambda: StreamEdit(find="e f", replace="-", mode="whole"),
        TEXT.replace(b"e f", b"-"),
    ),
    "allow_after": (lambda: AllowAfter(bytes=6), TEXT),
    "banner": (lambda: Banner(text="zero ", direction="both"), b"zero " + TEXT),
    "pend_fin": (lambda: PendFin(delay=0.5, trailer=" six"), TEXT + b" six"),
    "fault stall": (lambda: Fault(do="stall", after=5, for_=1), TEXT),
    "fault truncate": (lambda: Fault(do="truncate", after=5), TEXT[:5]),
    "fault slice": (lambda: Fault(do="slice", size=2), TEXT),
    "sequential": (Doubled, b"".join(TEXT[i : i + 2] + TEXT[i : i + 2][-1:] for i in range(0, len(TEXT), 2))),
}

MODES: dict[str, dict[str, Any]] = {
    "inject queued": {"inject_delivery": "queued"},
    "completion early": {"completion": "early"},
    "both": {"inject_delivery": "queued", "completion": "early"},
    "no abort": {"indicate_abort": False},
    "fin lookahead": {"fin_lookahead": True},
    "fin with data": {"fin_with_data": True},
    "many mdls": {"indicate_mdls": 3},
    "need more additional": {"need_more_mode": "additional"},
    "one callback a turn": {"callbacks_per_turn": 1},
}

each_callout = pytest.mark.parametrize("name", BUILT_INS)
both_ways = pytest.mark.parametrize("inbound", [False, True])


@each_callout
@both_ways
@pytest.mark.parametrize("mode", MODES)
def test_the_same_bytes_come_out_in_every_mode_for_every_cut(name: str, mode: str, inbound: bool) -> None:
    make, expected = BUILT_INS[name]
    for pieces in all_cuts(TEXT, random=3):
        outcome = relay(make(), pieces, inbound=inbound, options=watched(**MODES[mode]))
        assert (outcome.data, outcome.fin) == (expected, True), pieces
        assert outcome.violations == [], pieces


@each_callout
@both_ways
def test_the_same_bytes_come_out_when_nobody_watches(name: str, inbound: bool) -> None:
    """Without the verifier and without a sink the engine goes its shortest ways."""
    make, _ = BUILT_INS[name]
    for pieces in all_cuts(TEXT * 3, random=5):
        driver = memory_driver(make(), options=EngineOptions())
        driver.engine.remove_sink(driver.events)
        flow = driver.connect()
        assert flow is not None
        for number, piece in enumerate(pieces):
            (flow.receive if inbound else flow.send)(piece)
            if number % 2:
                (flow.send if inbound else flow.receive)(piece)
        (flow.receive_fin if inbound else flow.send_fin)()
        end = end_of(flow, inbound)
        driver.run_until(lambda end=end: end.fin)  # type: ignore[misc]
        assert bytes(end.data) == relay(make(), [TEXT * 3], inbound=inbound).data, pieces
        assert driver.engine.counters.get("ledger_faults", 0) == 0
        driver.close()


# One lets bytes by unasked, the other decides about indications as they come.
@pytest.mark.parametrize("name", [n for n in BUILT_INS if n not in ("allow_after", "stream_edit whole")])
@both_ways
def test_what_becomes_of_each_byte_does_not_depend_on_the_cut(name: str, inbound: bool) -> None:
    make, _ = BUILT_INS[name]
    fates = set()
    for pieces in all_cuts(TEXT, random=3):
        driver = memory_driver(make())
        flow = driver.connect()
        assert flow is not None
        for piece in pieces:
            (flow.receive if inbound else flow.send)(piece)
        (flow.receive_fin if inbound else flow.send_fin)()
        driver.run_until(lambda flow=flow: end_of(flow, inbound).fin)  # type: ignore[misc]
        (stage,) = flow.ledger(int(inbound)).stages
        fates.add((stage.in_, stage.permitted, stage.blocked, stage.injected, stage.discarded))
        driver.close()
    assert len(fates) == 1


@each_callout
@both_ways
def test_a_receiver_that_reads_slowly_gets_the_same_bytes(name: str, inbound: bool) -> None:
    make, expected = BUILT_INS[name]
    driver = memory_driver(make())
    flow = driver.connect()
    assert flow is not None
    end = flow.local if inbound else flow.remote
    if name == "banner":
        end.read()
    end.window = 0
    for piece in (TEXT[:9], TEXT[9:]):
        (flow.receive if inbound else flow.send)(piece)
    (flow.receive_fin if inbound else flow.send_fin)()
    for _ in range(200):
        driver.advance(0.1)
        end.window = 1
    assert [end.data, end.fin] == [expected, True]
    driver.close()
    assert driver.violations == []


@each_callout
@both_ways
@pytest.mark.parametrize("who", ["local", "remote"])
@pytest.mark.parametrize("moment", range(5))
def test_a_reset_at_any_moment_leaves_nothing_behind(name: str, inbound: bool, who: str, moment: int) -> None:
    make, _ = BUILT_INS[name]
    driver = memory_driver(make())
    flow = driver.connect()
    assert flow is not None
    put = flow.receive if inbound else flow.send
    for step in range(5):
        if step == moment:
            flow.reset(who)
            break
        if step < 3:
            put(TEXT[step * 8 : step * 8 + 8])
        else:
            (flow.receive_fin if inbound else flow.send_fin)()
            driver.advance(0.2)
    driver.advance(100)
    assert flow.ended
    driver.close()
    assert driver.violations == []


@each_callout
@both_ways
@pytest.mark.parametrize("moment", range(4))
def test_draining_at_any_moment_loses_nothing_and_ends_the_waiting(
    name: str, inbound: bool, moment: int
) -> None:
    make, expected = BUILT_INS[name]
    callout = make()
    driver = memory_driver(callout)
    flow = driver.connect()
    assert flow is not None
    put = flow.receive if inbound else flow.send
    for step in range(4):
        if step == moment:
            callout.drain()
            driver.settle()
        if step < 3:
            put(TEXT[step * 8 : step * 8 + 8])
        else:
            (flow.receive_fin if inbound else flow.send_fin)()
    end = flow.local if inbound else flow.remote
    if name == "pend_fin" and moment == 3:
        assert end.data == TEXT  # the FIN came after the drain: no trailer
    assert end.fin
    if expected == TEXT:
        assert end.data == TEXT
    driver.close()
    assert driver.violations == []


@each_callout
def test_two_filters_of_one_callout_on_a_flow_come_to_rest(name: str) -> None:
    make, _ = BUILT_INS[name]
    callout = make()
    driver = memory_driver(callout)
    driver.add(callout)
    flow = driver.connect()
    assert flow is not None
    flow.send(TEXT)
    flow.send_fin()
    driver.run_until(lambda: flow.remote.fin)
    assert flow.remote.data.startswith(b"zero " if name == "banner" else TEXT[:1])
    driver.close()


@each_callout
@both_ways
def test_a_callout_leaves_a_running_connection_without_losing_a_byte(name: str, inbound: bool) -> None:
    make, expected = BUILT_INS[name]
    driver = memory_driver()
    flow = driver.connect()
    assert flow is not None
    put = flow.receive if inbound else flow.send
    put(b"before ")
    callout = make()
    added = driver.add(callout)
    put(TEXT[:9])
    callout.drain()
    driver.settle()
    if name not in ("framer", "stream_edit", "sequential", "pattern_drop"):  # these wait for bytes to decide
        assert end_of(flow, inbound).data == b"before " + (TEXT[:5] if "truncate" in name else TEXT[:9])
        added.remove()
    put(TEXT[9:])
    (flow.receive_fin if inbound else flow.send_fin)()
    assert end_of(flow, inbound).fin
    if expected == TEXT:
        assert end_of(flow, inbound).data == b"before " + TEXT
    assert driver.violations == []
    driver.close()


def end_of(flow: FlowEnds, inbound: bool) -> Peer:
    return flow.local if inbound else flow.remote
