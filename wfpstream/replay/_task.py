"""One work unit: a capture, or one shard of it, replayed in any process.

Owns what a unit is told and what it answers, both plain and picklable, and that a fault of the replay is a line about
its capture and no exception. It must not know how many units there are, nor who runs them.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ._options import ReplayOptions
from ._order import EventTaker, FrameTaker
from ._player import EngineFactory
from ._reader import CaptureError, CaptureReader, open_capture
from ._replay import CaptureReplay
from ._results import CaptureSummary, StreamResult
from ._source import first_line, printable
from ._spool import Position, Spool
from ._waiting import Waiting


@dataclass(frozen=True, slots=True)
class ReplayTask:
    """A capture to replay, or a shard of it. It is pickled whenever another process runs it.

    Attributes:
        capture: its path, or "-".
        make_engine: makes the engine with its callouts; to be pickled, so a function of a module or an object of a
            class of one.
        options: how to replay.
        wants_events, wants_frames: whether the spool gets events, and frames of an output capture.
        events_data, events_trace: payload in events, and events that concern single bytes.
        shard, shards: only the streams of this shard of so many.
        stem: path that the spool's files begin with.
    """

    capture: str
    make_engine: EngineFactory
    options: ReplayOptions
    wants_events: bool = False
    wants_frames: bool = False
    events_data: Literal["off", "preview", "full"] = "off"
    events_trace: bool = True
    shard: int = 0
    shards: int = 1
    stem: str = ""


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What became of it; the rest is in the spool.

    Attributes:
        summary: of what this unit saw: of packets all, of streams its own.
        start_ns: capture time that `t` in events counts from, ns since 1970.
    """

    summary: CaptureSummary
    start_ns: int = 0


class Play:
    """Replays the capture of a task into whatever takes results, events and frames.

    Attributes:
        summary: of the capture.
    """

    def __init__(self, task: ReplayTask) -> None:
        self.task = task
        self.summary = CaptureSummary(printable(task.capture))
        self._replay: CaptureReplay | None = None
        self._foreign: BaseException | None = None

    @property
    def start_ns(self) -> int:
        """Capture time of the first packet, ns since 1970."""
        return self._replay.start_ns if self._replay is not None else 0

    def run(
        self,
        take_result: Callable[[StreamResult], None],
        take_event: EventTaker | None,
        take_frame: FrameTaker | None,
        progress: Callable[[int], None] | None = None,
        on_open: Callable[[], None] = lambda: None,
    ) -> CaptureSummary:
        """Replay it. What goes wrong with the capture or the callouts is in the summary.

        Args:
            on_open: called when the capture can be read.

        Raises:
            Exception: what `take_result` or `on_open` raised.
        """
        try:
            reader = open_capture(self.task.capture)
        except CaptureError as error:
            self.summary.unreadable = True
            self.summary.problems.append(str(error))
            return self.summary
        with reader:
            on_open()
            self._run(reader, take_result, take_event, take_frame, progress)
        return self.summary

    def _run(
        self,
        reader: CaptureReader,
        take_result: Callable[[StreamResult], None],
        take_event: EventTaker | None,
        take_frame: FrameTaker | None,
        progress: Callable[[int], None] | None,
    ) -> None:
        task = self.task
        replay = self._replay = CaptureReplay(
            reader,
            task.make_engine,
            task.options,
            self._guarded(take_result),
            take_event,
            take_frame,
            wants_data=task.events_data,
            wants_trace=task.events_trace,
            shard=task.shard,
            shards=task.shards,
            progress=progress,
        )
        self.summary = replay.summary
        try:
            replay.run()
        except Exception as error:
            if error is self._foreign:
                raise
            self._failed(reader, error)

    def _guarded(self, take: Callable[[StreamResult], None]) -> Callable[[StreamResult], None]:
        """Whoever takes the results may fail too; that is no fault of the capture."""

        def take_guarded(result: StreamResult) -> None:
            try:
                take(result)
            except Exception as error:
                self._foreign = error
                raise

        return take_guarded

    def _failed(self, reader: CaptureReader, error: Exception) -> None:
        if os.environ.get("WFPSTREAM_DEBUG"):
            traceback.print_exc()
        summary = self.summary
        summary.packets = reader.packets
        fail(summary, f"packet {reader.packets}: {type(error).__name__}: {first_line(error)}")


def fail(summary: CaptureSummary, text: str) -> None:
    """A capture could not be replayed to its end."""
    summary.failed = True
    summary.problems.append(f"{summary.capture}: {text}")


def run_task(task: ReplayTask) -> TaskResult:
    """Replay a work unit into its spool.

    Raises:
        OSError: the spool cannot be written.
    """
    spool = Spool(task.stem, task.wants_events, task.wants_frames)
    position = Position(task.stem)
    play = Play(task)
    waiting = Waiting(spool.result, follows=task.shards == 1)
    take_frame: Any = spool.frame if task.wants_frames else None
    take_event: Any = spool.event if task.wants_events else None
    try:
        summary = play.run(waiting.add, take_event, take_frame, position)
        waiting.finish()
    finally:
        waiting.close()
        position.close()
        spool.close()
    return TaskResult(summary, play.start_ns)
