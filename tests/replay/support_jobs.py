"""Captures of connections that overlap in time, what a replay of them hands on, engines that can be pickled."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.replay.kit import Capture, Side, close
from wfpstream.callouts import create_callout
from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.fwps import Callout
from wfpstream.replay import (
    CaptureFile,
    CaptureSummary,
    ReplayOptions,
    StreamResult,
    format_of,
    replay_captures,
)


@dataclass(frozen=True)
class Recipe:
    """Makes engines, in whatever process."""

    callouts: tuple[tuple[str, dict[str, Any]], ...] = ()

    def __call__(self, clock: Callable[[], float]) -> FilterEngine:
        options = EngineOptions()
        options.verify.level = "warn"
        engine = FilterEngine(clock, options)
        for name, settings in self.callouts:
            engine.add_callout(create_callout(name, settings))
        return engine


LATENCY = Recipe((("latency", {"delay": "1500us"}), ("stream_edit", {"find": "rain", "replace": "sunshine"})))
THROTTLE = Recipe((("throttle", {"rate": "20kB/s", "burst": 100}),))


class Deadly(Callout):
    """Kills its process at the word "die", raises nothing, tells nobody."""

    def classify_fn(self, fixed: Any, meta: Any, layer: Any, context: Any, *rest: Any) -> None:
        if b"die" in layer.stream_data.tobytes():
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class DeadlyRecipe:
    """Makes engines with `Deadly`."""

    def __call__(self, clock: Callable[[], float]) -> FilterEngine:
        engine = FilterEngine(clock)
        engine.add_callout(Deadly())
        return engine


@dataclass(frozen=True)
class FaultyRecipe:
    """Makes no engine."""

    def __call__(self, clock: Callable[[], float]) -> FilterEngine:
        raise RuntimeError("no engine\ntoday")


def crowd(seed: int, connections: int = 12, turns: int = 100) -> Capture:
    """Connections that talk at the same time: ordered and not, some lost, some reset, some open at the end."""
    rng = random.Random(seed)
    capture = Capture(step=0)
    open_ones: list[tuple[Side, Side]] = []
    ports = iter(range(40_000, 40_000 + connections))
    for turn in range(turns):
        capture.now += rng.choice((0, 0, 500_000, 1_000_000, 1_500_000))
        if not open_ones or (turn % 7 == 0 and len(open_ones) < 6):
            port = next(ports, None)
            if port is not None:
                open_ones.append(capture.opened(port))
        if not open_ones:
            break
        ends = rng.choice(open_ones)
        _say_something(rng, ends)
        if rng.random() < 0.06:
            rng.choice((close, lambda client, server: client.rst()))(*ends)
            open_ones.remove(ends)
    return capture


def _say_something(rng: random.Random, ends: tuple[Side, Side]) -> None:
    side = rng.choice(ends)
    words = b" ".join(rng.choice((b"rain", b"wind", b"ra", b"in")) for _ in range(rng.randrange(1, 40)))
    at = side.sent
    match rng.randrange(8):
        case 0:
            side.lose(words)
        case 1:
            side.send(words[5:], at=at + min(5, len(words)))
            side.send(words[:5], at=at)
        case 2:
            side.send(words)
            side.send(words, at=at)
        case _:
            side.send(words)
    if rng.random() < 0.5:
        side.peer.ack()


@dataclass
class Heard:
    """Everything a replay hands on.

    Attributes:
        events: with the instant that each was given beside it.
        files: the output captures, by capture.
    """

    results: list[StreamResult] = field(default_factory=list)
    events: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    files: dict[int, bytes] = field(default_factory=dict)
    summaries: list[CaptureSummary] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        return [problem for summary in self.summaries for problem in summary.problems]


def replay(
    captures: Sequence[Path],
    recipe: Callable[[Callable[[], float]], FilterEngine] = Recipe(),
    *,
    folder: Path,
    executor: Executor | None = None,
    jobs: int = 1,
    **options: Any,
) -> Heard:
    """Replay captures, however small, in so many jobs."""
    heard = Heard()

    @contextmanager
    def open_output(index: int) -> Iterator[CaptureFile]:
        path = folder / f"out{index}.pcapng"
        with open(path, "wb") as stream:
            file = CaptureFile(stream, format_of(path))
            yield file
            file.close()
        heard.files[index] = path.read_bytes()

    heard.summaries = replay_captures(
        captures,
        recipe,
        options=ReplayOptions(**options),
        jobs=jobs,
        executor=executor,
        take_result=heard.results.append,
        take_event=lambda event, start_ns: heard.events.append((event, start_ns)),
        events_data="full",
        open_output=open_output,
        spool=folder,
        min_sharded=1,
    )
    return heard
