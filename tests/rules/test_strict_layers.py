"""`--verify strict` before there is a stream: an E violation meets `on_callout_error` at the connection layers too."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.fwps.support_connection import (
    REDIRECT,
    SUCCESS,
    Asked,
    Door,
    Pender,
    permit,
    request,
)
from tests.rules.minimal import World
from tests.rules.violation_cases_management import Established
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, ClassifyOutFlags
from wfpstream.testing import MemoryDriver

AUTH = ("ale_auth_connect",)


def options(level: str, policy: str = "drop") -> EngineOptions:
    made = EngineOptions()
    made.verify.level = level
    made.policy.on_callout_error = policy
    return made


def handle_of(asked: Asked) -> int:
    status, handle = asked.door.fwps.acquire_classify_handle(asked.context)
    assert status == SUCCESS
    return handle


def passive_call(asked: Asked) -> None:
    """V-32."""
    asked.door.fwps.injection_handle_create()
    permit(asked)


def keeps_its_handle(asked: Asked) -> None:
    """V-60, found when the layer is decided."""
    handle_of(asked)
    permit(asked)


def releases_twice(asked: Asked) -> None:
    """V-60, found in a call."""
    handle = handle_of(asked)
    asked.door.fwps.release_classify_handle(handle)
    asked.door.fwps.release_classify_handle(handle)
    permit(asked)


def applies_nothing(asked: Asked) -> None:
    """V-60, found when classifyFn has returned."""
    handle = handle_of(asked)
    filter_id = asked.filter.filter_id
    status, _ = asked.door.fwps.acquire_writable_layer_data_pointer(handle, filter_id, 0, asked.out)
    assert status == SUCCESS
    asked.door.fwps.release_classify_handle(handle)
    permit(asked)


def completes_inside(asked: Asked) -> None:
    """V-61."""
    status, context = asked.door.fwps.pend_operation(asked.meta.completion_handle)
    assert status == SUCCESS
    asked.door.fwps.complete_operation(context)
    asked.out.action_type = ActionType.BLOCK
    asked.out.flags |= ClassifyOutFlags.ABSORB


def answers_nonsense(asked: Asked) -> None:
    """V-6."""
    asked.out.action_type = 99


def reads_a_member_that_is_not_there(asked: Asked) -> None:
    """V-30, a warning."""
    assert asked.meta.process_id
    permit(asked)


ERRORS: dict[str, tuple[tuple[str, ...], Callable[[Asked], None], str]] = {
    "passive call": (AUTH, passive_call, "V-32"),
    "kept handle": (REDIRECT, keeps_its_handle, "V-60"),
    "released twice": (REDIRECT, releases_twice, "V-60"),
    "nothing applied": (REDIRECT, applies_nothing, "V-60"),
    "completed inside": (AUTH, completes_inside, "V-61"),
    "nonsense": (AUTH, answers_nonsense, "V-6"),
}


@pytest.mark.parametrize(
    ("level", "policy", "verdict"),
    [
        ("strict", "drop", "block"),
        ("strict", "permit", "permit"),
        ("strict", "bypass", "permit"),
        ("warn", "drop", "permit"),
    ],
)
@pytest.mark.parametrize("name", ERRORS)
def test_strict_meets_on_callout_error(name: str, level: str, policy: str, verdict: str) -> None:
    """VRF-3, ACT-14: V-6, V-32, V-60, V-61; `warn` only tells."""
    layers, answer, rule = ERRORS[name]
    driver = MemoryDriver(options=options(level, policy))
    driver.add(Door(layers, answer, name="K"))
    attempt = request(driver)
    pended = name == "completed inside" and level == "warn"  # the completion had no effect: it waits
    assert attempt.verdict == ("pended" if pended else verdict)
    attempt.gone()
    assert driver.violations == [rule]
    driver.close()
    assert driver.violations == [rule]


def test_strict_lets_warnings_and_lint_pass() -> None:
    """V-30 and V-64 fail nothing."""
    driver = MemoryDriver(options=options("strict"))
    pender = Pender()

    def pend_and_permit(asked: Asked) -> None:
        pender(asked)
        asked.out.action_type = ActionType.PERMIT

    driver.add(Door(AUTH, reads_a_member_that_is_not_there, name="K"))
    driver.add(Door(AUTH, pend_and_permit, name="L"))
    attempt = request(driver)
    driver.fwps.complete_operation(pender.contexts[0])
    driver.settle()
    assert attempt.verdict == "permit"
    assert driver.violations == ["V-30", "V-64"]
    driver.close()


def test_strict_says_which_connection() -> None:
    """VRF-6: the number its flow would have had, the filter, and the layer's callout."""
    driver = MemoryDriver(options=options("strict"))
    added = driver.add(Door(AUTH, answers_nonsense, name="K"))
    attempt = request(driver)
    (event,) = [event for event in driver.events if event["event"] == "violation"]
    assert (event["flow"], event["callout"]) == (attempt.number, "K")
    assert event["filter"] in added.filter_ids
    driver.close()


@pytest.mark.parametrize(("level", "refused"), [("strict", True), ("warn", False)])
def test_strict_at_flow_established(level: str, refused: bool) -> None:
    """V-32 there: the flow is refused (LAY-6)."""

    class Creating(Established):
        def classify_ale_flow_established(self, *call: object) -> None:
            self.fwps.injection_handle_create()
            super().classify_ale_flow_established(*call)

    callout: Callout = Creating(int(ActionType.CONTINUE))
    driver = MemoryDriver(options=options(level))
    driver.add(callout)
    assert (driver.connect() is None) is refused
    assert driver.violations == ["V-32"]
    driver.close()


@pytest.mark.parametrize("level", ["strict", "warn"])
def test_strict_reaches_a_flow_from_outside_its_callbacks(level: str) -> None:
    """V-26 by a worker, or a thread: the flow that the buffer came from is dropped at the next turn."""

    def pend(*call: object) -> None:
        w.keep_clone(call[2])
        call[-1].action_type = int(ActionType.BLOCK)  # type: ignore[attr-defined]

    w = World(pend, options=options(level))
    w.driver.engine.options.verify.level = level
    w.send(b"x")
    clone = w.kept[0]
    w.discard()
    w.fwps.discard_cloned_stream_data(clone)
    w.settle()
    assert [rule for rule, _ in w.caught] == ["V-26"]
    assert w.flow.remote.reset is (level == "strict")
