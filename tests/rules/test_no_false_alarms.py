"""VRF-1: no built-in callout is ever reported, however streams are cut, options set, windows closed or resets placed.

The built-in callouts come in the many configurations of `tests.testing.worlds`; every shared capture is replayed
through them. Guesses (`verify.hints`) are off, as they are by default. Two kinds of lint are true: who works out of
band lets urgent bytes overtake (V-17x, OOB-2), and faults do what no callout should, by design.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.replay.support_captures import SHARED, shared_capture, shared_captures
from tests.testing.worlds import CASES
from wfpstream.engine import EngineOptions
from wfpstream.replay import ReplayOptions, replay_capture
from wfpstream.testing import FlowEnds, MemoryDriver

assert settings.default is not None
EXAMPLES = max(20, settings.default.max_examples // 5)  # of each of many configurations

WORDS = [
    b"rainy",
    b"rain",
    b"three",
    b"\n",
    b"ra",
    b"iny day\n",
    b"th",
    b"ree",
    b"\x05abcde",
    b"x" * 40,
    b"y",
]

DATA = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(b"".join)
SIDES = st.sampled_from(["client", "server"])
STEPS = st.one_of(
    st.tuples(st.just("data"), SIDES, DATA),
    st.tuples(st.just("data"), SIDES, DATA),
    st.tuples(st.just("urgent"), SIDES, st.just(b"!")),
    st.tuples(st.just("window"), SIDES, st.sampled_from([0, 1, 7, None])),
    st.tuples(st.just("wait"), SIDES, st.sampled_from([0.0001, 0.5, 20.0])),
    st.tuples(st.just("fin"), SIDES, st.none()),
)


def is_alarm(event: dict[str, Any]) -> bool:
    """A violation that is not true lint."""
    if event["event"] != "violation":
        return False
    by_design = event["callout"] == "fault" and event["rule"] in ("V-19", "V-52")
    return not (event["severity"] == "L" and (by_design or event["rule"] == "V-17x"))


@st.composite
def engine_options(draw: st.DrawFn) -> EngineOptions:
    """Everything a lawful callout must not depend on."""
    options = EngineOptions(
        need_more_mode=draw(st.sampled_from(["total", "additional"])),
        indicate_abort=draw(st.booleans()),
        inject_delivery=draw(st.sampled_from(["inline", "queued"])),
        completion=draw(st.sampled_from(["normal", "early"])),
        fin_lookahead=draw(st.booleans()),
        fin_with_data=draw(st.booleans()),
        callbacks_per_turn=draw(st.sampled_from([1, 3, 1000])),
        indicate_mdls=draw(st.sampled_from([1, 3])),
        repeat_fin=draw(st.booleans()),
    )
    options.verify.level = draw(st.sampled_from(["warn", "strict"]))
    return options


def perform(flow: FlowEnds, driver: MemoryDriver, step: tuple[str, str, Any], ended: set[str]) -> None:
    what, who, value = step
    by_client = who == "client"
    if what in ("data", "urgent", "fin") and who in ended:
        return
    if what == "fin":
        ended.add(who)
        (flow.send_fin if by_client else flow.receive_fin)()
    elif what == "window":
        (flow.local if by_client else flow.remote).window = value
    elif what == "wait":
        driver.advance(value)
    else:
        (flow.send if by_client else flow.receive)(value, urgent=what == "urgent")
    driver.settle()


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=EXAMPLES)
@given(
    options=engine_options(),
    steps=st.lists(STEPS, max_size=12),
    reset=st.one_of(st.none(), st.tuples(st.integers(0, 12), st.sampled_from(["local", "remote"]))),
    local=st.sampled_from(["client", "server"]),
)
def test_vrf_1_built_in_callouts_in_memory(
    name: str, options: EngineOptions, steps: list[Any], reset: tuple[int, str] | None, local: str
) -> None:
    """VRF-1: random cuts, both directions, options, windows, ends; a reset anywhere; then a minute passes."""
    driver = MemoryDriver(options=options)
    for callout in CASES[name].make():
        driver.add(callout)
    flow = driver.connect(local=local)
    assert flow is not None
    ended: set[str] = set()
    for place, step in enumerate(steps):
        if reset is not None and place == reset[0]:
            flow.reset(reset[1])
            driver.settle()
            break
        perform(flow, driver, step, ended)
    flow.local.window = flow.remote.window = None
    driver.settle()
    driver.advance(60.0)
    driver.close()
    told = [event for event in driver.events if is_alarm(event)]
    assert [(event["rule"], event["callout"], event["text"], event["where"]) for event in told] == []
    assert driver.engine.counters.get("ledger_faults", 0) == 0


class Told:
    """Keeps the violations of one replay."""

    wants_trace = False

    def __init__(self, name: str, told: list[Any]) -> None:
        self.name = name
        self.told = told

    def __call__(self, event: dict[str, Any]) -> None:
        if is_alarm(event):
            self.told.append((self.name, event))


CAPTURES = shared_captures()
_NONE = pytest.param("", "", marks=pytest.mark.skip(reason=f"{SHARED} is not there"), id="no captures")


def _param(kind: str, file: str) -> Any:
    """The largest ones only where there is time."""
    large = (SHARED / kind / file).stat().st_size > 1_000_000
    return pytest.param(kind, file, id=file, marks=[pytest.mark.long] if large else [])


each_capture = pytest.mark.parametrize(
    ("kind", "file"),
    [_param(kind, one["file"]) for kind, one in CAPTURES] or [_NONE],
)

# All of them at once, in a sublayer each; two orders, so that inline and out of band stand above and below.
CHAIN = (
    "monitor", "framer", "stream_edit oob", "banner both", "pend_fin", "latency", "stream_edit", "allow_after",
)  # fmt: skip


def told_of(kind: str, file: str, names: Sequence[str], *, coalesce: bool) -> list[Any]:
    told: list[Any] = []
    callouts = [callout for name in names for callout in CASES[name].make()]
    options = ReplayOptions(coalesce=coalesce)
    result = replay_capture(
        shared_capture(kind, file), callouts, options=options, events=Told(", ".join(names), told)
    )
    assert result.streams is not None
    return [(name, event["rule"], event["text"], event["where"]) for name, event in told]


@each_capture
@pytest.mark.parametrize("coalesce", [True, False])
def test_vrf_1_built_in_callouts_on_captures(kind: str, file: str, coalesce: bool) -> None:
    """VRF-1: real segmentation, retransmission, holes, resets; eight callouts, each below the other."""
    assert told_of(kind, file, CHAIN if coalesce else CHAIN[::-1], coalesce=coalesce) == []


@pytest.mark.long
@each_capture
@pytest.mark.parametrize("name", CASES)
def test_vrf_1_every_configuration_on_every_capture(kind: str, file: str, name: str) -> None:
    """VRF-1: each by itself, with the segments as they were captured."""
    assert told_of(kind, file, [name], coalesce=False) == []
