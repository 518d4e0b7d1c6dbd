"""`check_driver`: the drivers we have pass, and a driver that does something of its own does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.worlds import ReactorWorld, ReplayWorld, SocketWorld, StreamWorld
from wfpstream.testing import (
    Fin,
    MemoryDriver,
    MemoryWorld,
    Send,
    Step,
    World,
    WorldOutcome,
    WorldScript,
    check_driver,
)

WORLDS: list[World] = [MemoryWorld(), ReactorWorld(), SocketWorld(), StreamWorld(), ReplayWorld()]
EVERY_WORLD = pytest.mark.parametrize("world", WORLDS, ids=lambda world: type(world).__name__)


@EVERY_WORLD
def test_every_driver_passes_the_trace_scripts(world: World) -> None:
    """IND-26: the same decisions, in the same order, and the same bytes at both ends."""
    report = check_driver(world, lambda name: name.startswith("trace: "))
    assert report.ok, str(report)
    assert all(reason.startswith("needs ") for reason in report.skipped.values())


# Some 270 scripts one after the other, each with connections of its own.
@pytest.mark.timeout(900)
@EVERY_WORLD
def test_every_driver_passes_the_vectors(world: World) -> None:
    report = check_driver(world, lambda name: not name.startswith("trace: "))
    assert report.ok, str(report)


class _Altered(MemoryWorld):
    """A driver with a fault."""

    def run(self, script: WorldScript) -> WorldOutcome:
        return super().run(replace(script, steps=[self.alter(step) for step in script.steps]))

    def alter(self, step: Step) -> Step:
        return step


class _Coalescing(_Altered):
    """Shows everything but the first byte."""

    def alter(self, step: Step) -> Step:
        return replace(step, data=step.data[1:] or b"x") if isinstance(step, Send) else step


class _OtherSide(_Altered):
    """Half-closes the wrong side."""

    def alter(self, step: Step) -> Step:
        return Fin("server" if step.by == "client" else "client") if isinstance(step, Fin) else step


@pytest.mark.parametrize("faulty", [_Coalescing(), _OtherSide()], ids=lambda world: type(world).__name__)
def test_a_driver_with_a_fault_is_told_where(faulty: World) -> None:
    report = check_driver(faulty, lambda name: name == "trace: monitor, half-close")
    assert not report.ok
    first = report.lines()[1]
    assert first.startswith("  trace: monitor, half-close: the ")
    assert ", in memory b'" in first


@pytest.mark.parametrize("what", [MemoryWorld, None, MemoryDriver])
def test_what_is_no_world_is_refused(what: Any) -> None:
    with pytest.raises(TypeError, match="check_driver takes a world, such as MemoryWorld"):
        check_driver(what)


def test_a_report_of_nothing_is_not_ok() -> None:
    assert not check_driver(MemoryWorld(), lambda name: False).ok


def test_what_a_world_cannot_play_is_told() -> None:
    report = check_driver(StreamWorld(), lambda name: name == "trace: fault rst, reset")
    assert report.skipped == {"trace: fault rst, reset": "needs reset"}
