"""The memory driver as a world: every kind of step does to the flow what its name says."""

from __future__ import annotations

from wfpstream.callouts import StreamEdit
from wfpstream.engine import FilterEngine
from wfpstream.testing import (
    Act,
    Connect,
    EndState,
    Fin,
    MemoryWorld,
    Reset,
    Send,
    Step,
    Wait,
    Window,
    WorldOutcome,
    WorldScript,
)


def run(*steps: Step, **options: object) -> WorldOutcome:
    return MemoryWorld().run(WorldScript(lambda engine: None, steps, **options))  # type: ignore[arg-type]


def test_bytes_and_fins_of_both_sides() -> None:
    for local in ("client", "server"):
        outcome = run(
            Send("client", b"ask"), Fin("client"), Send("server", b"answer"), Fin("server"), local=local
        )
        assert outcome.server == EndState(b"ask", fin=True)
        assert outcome.client == EndState(b"answer", fin=True)


def test_a_callout_of_the_setup_edits() -> None:
    def setup(engine: FilterEngine) -> None:
        engine.add_callout(StreamEdit(find="rainy", replace="dry"))

    outcome = MemoryWorld().run(WorldScript(setup, (Send("client", b"a rainy day"), Fin("client"))))
    assert outcome.server == EndState(b"a dry day", fin=True)
    assert {"indicate", "inject"} <= {event["event"] for event in outcome.events}


def test_a_window_holds_the_rest_back_until_it_opens() -> None:
    steps = (Window("server", 2), Send("client", b"abcdef"))
    assert run(*steps).server.data == b"ab"
    assert run(*steps, Window("server", None)).server.data == b"abcdef"


def test_a_reset_reaches_the_other_side_and_urgent_bytes_are_marked() -> None:
    assert run(Send("client", b"ab"), Reset("server")).client.reset
    assert run(Send("client", b"ab"), Send("client", b"!", urgent=True)).server.urgent == ((2, b"!"),)


def test_acts_waits_and_second_connections() -> None:
    done: list[int] = []
    outcome = run(
        Send("client", b"one"), Act(lambda: done.append(1)), Wait(5), Connect(), Send("client", b"two")
    )
    assert done == [1]
    assert outcome.server.data == b"two"
