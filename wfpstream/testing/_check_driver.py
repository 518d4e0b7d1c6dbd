"""`check_driver`: every conformance vector and every trace script in one world, held against what is expected.

Owns which cases a world can play and the report. It must not know any world but the memory driver's, whose logs are
the measure for the trace scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from wfpstream.engine import EngineOptions, FilterEngine

from ._canonical import canonical, canonical_diff
from ._memory_world import MemoryWorld
from ._traces import Trace, in_order, traces
from ._vectors import can_run, run_case, vectors
from ._world import EndState, World, WorldOutcome, WorldScript

_DIRECTIONS = ("to_upstream", "to_client")
_SHOWN = 12


@dataclass(slots=True)
class DriverReport:
    """What came of `check_driver`.

    Attributes:
        world: its name.
        passed: names of the cases that came out as expected.
        failed: the others, with what was wrong in words.
        skipped: cases that this world cannot play, with the reason.
    """

    world: str
    passed: list[str] = field(default_factory=list)
    failed: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Something was checked, and all of it came out as expected."""
        return bool(self.passed) and not self.failed

    def lines(self) -> list[str]:
        """For people: a summary, then each failure."""
        summary = (
            f"{self.world}: {len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"
        )
        return [
            summary,
            *(f"  {case}: {problem}" for case, found in self.failed.items() for problem in found),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


def check_driver(world: World, only: Callable[[str], bool] | None = None) -> DriverReport:
    """Play the conformance suite in a world: one script, every driver, one transcript (IND-26).

    ::

        report = check_driver(MyWorld())
        assert report.ok, str(report)

    Args:
        world: a driver with two peers at its ends; see `World` for what it has to do.
        only: names of cases to play, such as "SC-15 one segment" or "trace: banner, half-close"; None: all.

    Returns:
        The report; what the world raised is in it, too.

    Raises:
        TypeError: `world` is none.
    """
    if isinstance(world, type) or not callable(getattr(world, "run", None)):
        raise TypeError(f"check_driver takes a world, such as MemoryWorld(), not {world!r}")
    report = DriverReport(world.name)
    for name, skip, play in _cases(world):
        if only is not None and not only(name):
            continue
        if skip:
            report.skipped[name] = skip
        elif problems := _problems(play):
            report.failed[name] = problems
        else:
            report.passed.append(name)
    return report


def _problems(play: Callable[[], list[str]]) -> list[str]:
    """A driver that breaks down in one case is to hear of the others all the same."""
    try:
        return play()
    except Exception as error:
        return [f"raised {type(error).__name__}: {error}"]


def _cases(world: World) -> Iterator[tuple[str, str, Callable[[], list[str]]]]:
    """Each case: its name, why this world cannot play it, and how it is played."""
    for vector in vectors():
        for case in vector.cases:
            skip = "" if can_run(case, world) else _reason(world, case.needs, case.worlds)
            yield case.id, skip, partial(run_case, case, world)
    for trace in traces():
        skip = _reason(world, trace.needs)
        yield f"trace: {trace.name}", skip, partial(compare_trace, trace, world)


def _reason(world: World, needs: frozenset[str], worlds: tuple[str, ...] = ()) -> str:
    if worlds and world.name not in worlds:
        return f"only in {', '.join(worlds)}"
    missing = sorted(needs - world.capabilities)
    return f"needs {', '.join(missing)}" if missing else ""


def compare_trace(trace: Trace, world: World) -> list[str]:
    """Play a trace script in memory and in a world: what is different, in words."""
    expected, found = _play(trace, MemoryWorld()), _play(trace, world)
    problems = _compare_ends(expected, found)
    if difference := canonical_diff(canonical(expected.events), canonical(found.events)):
        problems.append(difference)
    if trace.ordered:
        problems += _compare_order(expected, found)
    return problems


def _play(trace: Trace, world: World) -> WorldOutcome:
    def setup(engine: FilterEngine) -> None:
        for callout in trace.make():
            engine.add_callout(callout)

    options = EngineOptions()
    options.verify.level = "warn"
    return world.run(WorldScript(setup, trace.steps, options))


def _compare_ends(expected: WorldOutcome, found: WorldOutcome) -> list[str]:
    problems = []
    for side in ("client", "server"):
        wanted, got = getattr(expected, side), getattr(found, side)
        if wanted != got:
            problems.append(f"the {side} got {_told(got)}, in memory {_told(wanted)}")
    return problems


def _told(end: EndState) -> str:
    return f"{end.data!r}" + " FIN" * end.fin + " RST" * end.reset


def _compare_order(expected: WorldOutcome, found: WorldOutcome) -> list[str]:
    problems = []
    for direction in _DIRECTIONS:
        wanted, got = in_order(expected.events, direction), in_order(found.events, direction)
        if wanted != got:
            place = next(
                (i for i, pair in enumerate(zip(wanted, got, strict=False)) if pair[0] != pair[1]), None
            )
            place = min(len(wanted), len(got)) if place is None else place
            problems.append(
                f"{direction}, event {place}: {got[place : place + 1]}, in memory {wanted[place : place + 1]}"
            )
    return problems[:_SHOWN]
