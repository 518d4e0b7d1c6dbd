"""The ports with refused calls: what Microsoft's samples do when there is no memory.

Their error paths are kept as they are in the samples, so some lose bytes: that is said here, not mended (INJ-43).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.ports.bench import LOCAL_PORT
from tests.ports.inline_edit import InlineEdit
from tests.ports.oob_edit import OobEdit
from tests.ports.sample_driver import Machine, SampleDriver
from tests.ports.stream_edit import Settings
from tests.ports.stream_injection import BasicStreamInjection, FastStreamInjection
from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.testing import (
    Act,
    ApiFaultReport,
    Connect,
    Fin,
    Send,
    Step,
    Wait,
    WorldScript,
    check_api_faults,
)

Make = Callable[[Machine], SampleDriver]

TEXT = b"AB cloudy CD rainy x"
# Of the running driver; how it starts is another matter.
CALLS = (
    "clone_stream_data",
    "allocate_net_buffer_and_net_buffer_list",
    "stream_inject_async",
    "flow_associate_context",
)


def failing(make: Make) -> ApiFaultReport:
    """The driver is loaded, edits one flow, and is unloaded."""

    def make_script() -> WorldScript:
        loaded: list[SampleDriver] = []
        said: list[str] = []

        def setup(engine: FilterEngine) -> None:
            driver = make(Machine(engine.fwps, engine.management, lambda holds: None, said.append))
            driver.driver_entry()
            loaded.append(driver)

        def unload() -> None:
            loaded[0].unload()

        steps: list[Step] = [Connect(("10.0.0.1", LOCAL_PORT), ("10.0.0.2", 80))]
        for start in range(0, len(TEXT), 6):
            steps += [Send("client", TEXT[start : start + 6]), Wait(1)]
        steps += [
            Wait(1),
            Fin("client"),
            Wait(1),
            Fin("server"),
            Wait(10),
            Act(unload),
            Wait(1),
        ]
        options = EngineOptions()
        options.verify.level = "warn"
        return WorldScript(setup, steps, options, connect=False)

    report = check_api_faults(make_script, calls=CALLS)
    assert report.complete
    return report


def fates(report: ApiFaultReport, call: str) -> set[str | None]:
    """What came of failures of this call."""
    return {result.fate for result in report.results if result.failed[0].site.call == call}


def test_the_inline_editor_drops_the_connection() -> None:
    report = failing(lambda machine: InlineEdit(machine, Settings(b"cloudy", b"sunny")))
    assert report.survived, report.text()
    assert fates(report, "stream_inject_async") == {"reset"}
    assert fates(report, "allocate_net_buffer_and_net_buffer_list") == {"reset"}
    assert fates(report, "flow_associate_context") == {"unchanged"}


def test_the_out_of_band_editor_drops_what_it_cannot_clone_and_loses_what_it_cannot_inject() -> None:
    report = failing(lambda machine: OobEdit(machine, Settings(b"rainy", b"cloudy")))
    assert fates(report, "clone_stream_data") == {"reset"}
    assert "lost" in fates(report, "stream_inject_async")
    assert not report.survived


@pytest.mark.parametrize(
    "make", [FastStreamInjection, lambda machine: BasicStreamInjection(machine, False)], ids=["fast", "basic"]
)
def test_the_injection_samples_lose_what_they_cannot_inject(make: Make) -> None:
    """They block the indication whatever came of the injection; nothing is leaked."""
    report = failing(make)
    assert fates(report, "stream_inject_async") == {"lost"}
    assert {result.fate for result in report.failures} == {"lost"}
    assert not any("V-23" in result.violations or "V-34" in result.violations for result in report.results)
