"""FLOW_ESTABLISHED with a single callout goes a short way: what it is shown, and what comes of it, is the same."""

from __future__ import annotations

from typing import Any

import pytest

from wfpstream.engine import EngineOptions, Policy
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout
from wfpstream.fwps._arbitration import Arbitration
from wfpstream.testing import MemoryDriver

ESTABLISHED = "ale_flow_established"
ANSWERS = (*(int(action) for action in ActionType), 0, 77, "raise", "abort", "clear rights", "unwritten")


class Says(Callout):
    """Answers FLOW_ESTABLISHED as told, and notes what it is shown."""

    layers = (ESTABLISHED,)

    def __init__(self, answer: int | str, filter_action: str, version: int) -> None:
        self.answer = answer
        self.filter_action = filter_action
        self.version = version
        self.name = "says"
        self.shown: list[Any] = []

    def classify_fn(self, *call: Any) -> None:
        values, meta, data, *context, filter, flow_context, out = call
        members = ("flow_handle", "compartment_id", "listener", "upstream_address", "redirect_context")
        self.shown.append((values.layer_id, [value.value for value in values.incoming_value]))
        self.shown.append([getattr(meta, name) for name in ("current_metadata_values", *members)])
        self.shown.append(
            (data, context, filter.filter_id, flow_context, out.action_type, out.rights, out.flags)
        )
        if self.answer == "raise":
            raise ValueError("no")
        if self.answer == "abort":
            self.shown.append(self.fwps.flow_abort(meta.flow_handle))
        elif self.answer == "clear rights":
            out.action_type = ActionType.BLOCK
            out.rights = 0
        elif isinstance(self.answer, int):
            out.action_type = self.answer


def play(callout: Says, policy: str) -> list[Any]:
    """All that can be told from outside about a connection which this callout is asked about."""
    events: list[dict[str, Any]] = []
    with MemoryDriver(EngineOptions(policy=Policy(on_callout_error=policy))) as driver:
        driver.engine.add_sink(events.append)
        driver.add(callout)
        found: list[Any] = []
        for _ in range(2):
            flow = driver.connect()
            found.append(flow is not None)
            if flow is not None and not flow.ended:
                flow.send(b"x")
                found.append(flow.remote.data)
        found += [dict(driver.engine.violations), dict(driver.engine.counters), callout.shown]
    return [*found, [{key: value for key, value in event.items() if key != "t"} for event in events]]


@pytest.mark.parametrize("policy", ["drop", "permit"])
@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("filter_action", ["callout_unknown", "callout_terminating", "callout_inspection"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_lay_6_one_callout_is_asked_as_one_of_many(
    answer: int | str, filter_action: str, version: int, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LAY-5, LAY-6, ACT-14, V-40: by whichever way it is asked."""
    short = play(Says(answer, filter_action, version), policy)
    monkeypatch.setattr(Arbitration, "run_alone", Arbitration.run)
    assert short == play(Says(answer, filter_action, version), policy)
    assert len(short[-2]) >= 6, "it was asked for both connections"
