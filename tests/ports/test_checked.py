"""The sample's inline editor through `check_callout`: its known faults are found, each in a small case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.ports import inline_edit
from tests.ports.inline_edit import InlineEdit
from tests.ports.sample_driver import Machine
from tests.ports.stream_edit import Settings
from wfpstream.engine import FilterEngine
from wfpstream.testing import examine_callout

# Of the server as the local host; the sample edits the flows of one local port.
PORT = 80
EDIT = Settings(b"rainy", b"dry", PORT)


def loaded() -> Callable[[FilterEngine], Callable[[], object]]:
    def load(engine: FilterEngine) -> Callable[[], object]:
        driver = InlineEdit(Machine(engine.fwps, engine.management, lambda _: None, lambda _: None), EDIT)
        driver.driver_entry()
        return driver.unload

    return load


def test_the_faults_of_the_sample_are_found() -> None:
    """A length below zero (V-8; SC-115, SC-118), and words not replaced, or too often (SC-116, SC-117)."""
    report = examine_callout(
        loaded,
        words=[EDIT.find],
        expected=lambda direction, data: data.replace(EDIT.find, EDIT.replace),
        local="server",
        api_failures=False,
        effort=100,
    )
    found = {failure.problem.kind: failure for failure in report.failures}
    assert set(found) == {"contract", "output"}
    assert found["contract"].problem.rule == "V-8"
    assert Path(found["contract"].problem.where.rpartition(":")[0]) == Path(inline_edit.__file__)
    assert len(found["output"].steps) <= 6
