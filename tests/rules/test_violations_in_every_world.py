"""The verifier is the same in all worlds (section 20): live over sockets, over streams in memory, in memory, in replay.

Each bad callout is caught with its id and the line in its own file, and a legal one beside it is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.rules import violation_worlds
from tests.rules.violation_worlds import EVERY_BAD
from tests.support.worlds import ReactorWorld, ReplayWorld, SocketWorld, StreamWorld
from wfpstream.callouts import StreamEdit
from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.testing import Fin, MemoryWorld, Send, Step, Wait, World, WorldScript

WORLDS: list[World] = [MemoryWorld(), ReactorWorld(), SocketWorld(), StreamWorld(), ReplayWorld()]
SOURCE = Path(violation_worlds.__file__)


def line_of(text: str, bad: type[Any]) -> str:
    """file:line of the first line with `text` in the class, or else in a class it comes from or works with."""
    lines = SOURCE.read_text(encoding="utf-8").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"class {bad.__name__}("))
    places = [i for i, line in enumerate(lines) if text in line and not line.strip().startswith("line = ")]
    end = next((i for i in range(at + 1, len(lines)) if lines[i].startswith("class ")), len(lines))
    inside = [place for place in places if at <= place < end]
    return f"{SOURCE}:{(inside or places)[0] + 1}"


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: type(world).__name__)
@pytest.mark.parametrize("bad", EVERY_BAD)
def test_vrf_7_a_bad_callout_is_caught_in_every_world(bad: type[Any], world: World) -> None:
    """VRF-6, VRF-7: the id, the place, the callout, its filter, the flow; a built-in beside it is not accused."""
    options = EngineOptions()
    options.verify.level = "warn"
    options.verify.grace = 0.02
    made: list[Any] = []

    def setup(engine: FilterEngine) -> None:
        engine.add_callout(StreamEdit(find="rainy", replace="dry"))
        made.append(engine.add_callout(bad()))

    wait = [Wait(1.0)] if "virtual_time" in world.capabilities else []
    steps: list[Step] = [Send("client", b"it is rainy"), *wait, Send("server", b"so it is")]
    steps += [Fin("client"), Fin("server")]
    outcome = world.run(WorldScript(setup, steps=steps, options=options))
    told = [event for event in outcome.events if event["event"] == "violation"]
    assert {event["rule"] for event in told} == {bad.rule}
    (added,) = made
    flows = [event["flow"] for event in outcome.events if event["event"] == "flow_established"]
    for event in told:
        assert event["where"] == line_of(bad.line, bad)
        assert event["callout"] == added.name
        assert event["filter"] in added.filter_ids
        assert event["flow"] in (flows if bad.rule != "V-54" else [0])
        assert event["says"]
        assert event["documented"]
