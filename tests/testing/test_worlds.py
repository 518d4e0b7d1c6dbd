"""One script, every driver, one outcome: memory, sockets, streams and a capture end the same way at both ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.worlds import ReactorWorld, ReplayWorld, SocketWorld, StreamWorld
from wfpstream.callouts import Banner, Framer, Latency, PatternDrop, PendFin, StreamEdit
from wfpstream.engine import FilterEngine
from wfpstream.fwps import Callout
from wfpstream.testing import (
    Act,
    Connect,
    EndState,
    Fin,
    MemoryWorld,
    Reset,
    Send,
    Side,
    Step,
    Wait,
    Window,
    World,
    WorldOutcome,
    WorldScript,
)

WORLDS: list[World] = [MemoryWorld(), ReactorWorld(), SocketWorld(), StreamWorld(), ReplayWorld()]
EVERY_WORLD = pytest.mark.parametrize("world", WORLDS, ids=lambda world: type(world).__name__)


def play(
    world: World, steps: Sequence[Step], *callouts: Callout, local: Side = "client", needs: Sequence[str] = ()
) -> WorldOutcome:
    if not set(needs) <= world.capabilities:
        pytest.skip(f"needs {', '.join(needs)}, which {type(world).__name__} lacks (architecture, section 5)")

    def setup(engine: FilterEngine) -> None:
        for callout in callouts:
            engine.add_callout(callout)

    return world.run(WorldScript(setup, steps, local=local))


@pytest.mark.parametrize("step", [Send, Fin, Reset, Window])
def test_a_side_that_is_none_is_named(step: Any) -> None:
    given = {Send: (b"",), Window: (1,)}.get(step, ())
    with pytest.raises(ValueError, match="a side is client or server, not 'clent'"):
        step("clent", *given)


@EVERY_WORLD
@pytest.mark.parametrize("local", ["client", "server"])
def test_bytes_and_half_closes(world: World, local: Side) -> None:
    steps: list[Step] = [
        Send("client", b"ask"),
        Fin("client"),
        Send("server", b"ans"),
        Send("server", b"wer"),
        Fin("server"),
    ]
    outcome = play(world, steps, local=local)
    assert outcome.server == EndState(b"ask", fin=True)
    assert outcome.client == EndState(b"answer", fin=True)


@EVERY_WORLD
def test_segments_are_shown_as_they_were_sent(world: World) -> None:
    outcome = play(
        world,
        [Send("client", b"ab"), Send("client", b"cde"), Fin("client")],
        StreamEdit(find="zz", replace="y"),
    )
    shown = [e["len"] for e in outcome.events if e["event"] == "indicate" and e["dir"] == "to_upstream"]
    assert shown == [2, 3, 0]


@EVERY_WORLD
def test_edits_and_frames(world: World) -> None:
    steps: list[Step] = [Send("client", b"a rai"), Send("client", b"ny day\nand"), Fin("client")]
    outcome = play(
        world, steps, StreamEdit(find="rainy", replace="dry", mode="oob"), Framer(), Banner(text="hi\n")
    )
    assert outcome.server == EndState(b"a dry day\nand", fin=True)
    assert outcome.client.data == b"hi\n"


@EVERY_WORLD
def test_time_passes_only_when_it_is_told_to(world: World) -> None:
    late = Latency(delay=5, direction="to_upstream")
    steps: list[Step] = [Send("client", b"slow"), Wait(4.9)]
    assert play(world, steps, late, needs=["virtual_time"]).server.data == b""
    late = Latency(delay=5, direction="to_upstream")
    assert play(world, [*steps, Wait(0.2)], late, needs=["virtual_time"]).server.data == b"slow"


@EVERY_WORLD
def test_resets_reach_the_other_side(world: World) -> None:
    steps: list[Step] = [Send("client", b"ask"), Send("server", b"answer"), Reset("server")]
    outcome = play(world, steps, needs=["reset"])
    assert outcome.server == EndState(b"ask", reset=True)
    assert outcome.client == EndState(b"answer", reset=True)


@EVERY_WORLD
def test_a_callout_that_drops_resets_both(world: World) -> None:
    outcome = play(
        world, [Send("client", b"one"), Send("client", b"bad")], PatternDrop(find="bad"), needs=["reset"]
    )
    assert (outcome.client.reset, outcome.server.reset) == (True, True)


@EVERY_WORLD
def test_acts_come_between_the_steps(world: World) -> None:
    order: list[str] = []

    class Noting(PendFin):
        def classify_fn(self, *call: Any) -> None:
            order.append("classify")
            super().classify_fn(*call)

    steps: list[Step] = [
        Send("client", b"1"),
        Act(lambda: order.append("act")),
        Send("client", b"2"),
        Act(lambda: order.append("act")),
    ]
    play(world, steps, Noting())
    assert order == ["classify", "act", "classify", "act"]


@EVERY_WORLD
def test_later_steps_are_of_the_later_connection(world: World) -> None:
    steps: list[Step] = [Send("client", b"first"), Fin("client"), Connect(), Send("client", b"second")]
    assert play(world, steps, needs=["second_flow"]).server == EndState(b"second")


@EVERY_WORLD
def test_an_urgent_byte(world: World) -> None:
    steps: list[Step] = [Send("client", b"ab"), Send("client", b"!", urgent=True), Send("client", b"cd")]
    outcome = play(world, steps, needs=["urgent"])
    assert outcome.server.data == b"ab!cd"
    assert outcome.server.urgent == ((2, b"!"),)
