"""The names of events and of their keys: what is emitted is in the schema."""

from __future__ import annotations

from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.observe import event_keys, events_schema
from wfpstream.testing import MemoryWorld, WorldScript
from wfpstream.testing._traces import traces


def test_every_key_that_is_emitted_is_documented() -> None:
    """In all trace scripts: a reader of the page, or of the schema, knows what there is to look for."""
    keys = event_keys()
    seen = set()
    for trace in traces():
        made = trace.make()

        def setup(engine: FilterEngine, made: object = made) -> None:
            for callout in made:  # type: ignore[attr-defined]
                engine.add_callout(callout)

        for event in MemoryWorld().run(WorldScript(setup, trace.steps, EngineOptions())).events:
            seen.add(event["event"])
            assert event.keys() <= keys[event["event"]], event
    assert {"indicate", "classify", "inject", "inject_complete", "defer", "continue", "discard"} <= seen


def test_the_keys_of_an_event_are_its_own_and_those_of_all() -> None:
    keys = event_keys()
    assert keys["events_lost"] == {*events_schema()["properties"], "count"}
    assert "rule" in keys["violation"]
    assert "rule" not in keys["indicate"]
