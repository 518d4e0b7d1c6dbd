"""The memory driver as a world: every kind of step does to the flow what its name says."""

from __future__ import annotations

from typing import Any

from wfpstream.callouts import StreamEdit
from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, ClassifyOutFlags
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


class Guard(Callout):
    """Answers at AUTH_CONNECT; pends if it is told to."""

    layers = ("ale_auth_connect",)

    def __init__(self, action: ActionType, *, pends: bool = False) -> None:
        super().__init__()
        self.action = action
        self.pends = pends
        self.context = 0

    def classify_fn(
        self, fixed: Any, meta: Any, data: Any, context: Any, rule: Any, flow: int, out: Any
    ) -> None:
        out.action_type = self.action
        if self.pends:
            self.pends = False
            _, self.context = self.fwps.pend_operation(meta.completion_handle)
            out.action_type = ActionType.BLOCK
            out.flags |= ClassifyOutFlags.ABSORB

    def complete(self) -> None:
        self.fwps.complete_operation(self.context, None)


def guarded(guard: Guard, *steps: Step, options: EngineOptions | None = None) -> WorldOutcome:
    script = WorldScript(lambda engine: engine.add_callout(guard), steps, options or EngineOptions())
    return MemoryWorld().run(script)


def test_a_blocked_connection_ends_as_the_policy_says() -> None:
    assert guarded(Guard(ActionType.BLOCK)).client == EndState(reset=True)
    options = EngineOptions()
    options.policy.on_block = "fin"
    assert guarded(Guard(ActionType.BLOCK), options=options).client == EndState(fin=True)


def test_what_the_client_says_while_its_connection_is_pended_waits() -> None:
    guard = Guard(ActionType.PERMIT, pends=True)
    assert guarded(guard, Send("client", b"hi"), Wait(1)).server == EndState()
    guard = Guard(ActionType.PERMIT, pends=True)
    outcome = guarded(guard, Send("client", b"hi"), Fin("client"), Act(guard.complete), Send("server", b"ho"))
    assert (outcome.client, outcome.server) == (EndState(b"ho"), EndState(b"hi", fin=True))


def test_a_client_that_resets_while_pended_is_gone() -> None:
    guard = Guard(ActionType.PERMIT, pends=True)
    outcome = guarded(guard, Reset("client"), Act(guard.complete), Wait(60))
    assert (outcome.client, outcome.server) == (EndState(reset=True), EndState())
    assert [e for e in outcome.events if e["event"] == "flow_established"] == []


def test_a_connection_between_given_addresses() -> None:
    outcome = run(Connect(("192.0.2.7", 7), ("198.51.100.1", 8080), local="server"), Send("client", b"x"))
    (event,) = [e for e in outcome.events if e["event"] == "flow_established"][1:]
    assert (event["client"], event["server"]) == (["192.0.2.7", 7], ["198.51.100.1", 8080])
    assert outcome.server.data == b"x"
