"""Several captures, several processes, one order.

Owns the division of captures into work units, and the merge of what they found: results, events and frames come out
the same however many units there were. It must not know the command line, nor what becomes of what it hands on.
"""

from __future__ import annotations

import heapq
import os
import re
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from itertools import chain, count
from operator import itemgetter
from tempfile import TemporaryDirectory
from typing import Literal

from ._options import ReplayOptions
from ._order import Event, FrameTaker, Key
from ._output import CaptureFile
from ._player import EngineFactory
from ._results import CaptureSummary, StreamResult
from ._source import first_line, printable
from ._spool import first_packets, read_events, read_frames, read_position, read_results, remove
from ._task import Play, ReplayTask, TaskResult, fail, run_task
from ._tracker import MAX_REPORTED
from ._waiting import Waiting
from ._workers import WorkerDied, WorkerProcesses

# Below it a shard would read more for the others than it replays for itself.
MIN_SHARDED = 32 * 1024 * 1024
# What only a shard that follows the stream counts; every shard sees all packets.
_PER_STREAM = frozenset({"streams evicted"})
_POLL = 0.2

EventSink = Callable[[Event, int], None]
"""Gets an event, and the instant of capture time that its `t` counts from, ns since 1970."""
OutputOpener = Callable[[int], AbstractContextManager[CaptureFile]]
"""Opens the output capture of the capture with this index; its end puts the file in place, an exception removes it."""


def replay_captures(
    captures: Sequence[str | os.PathLike[str]],
    make_engine: EngineFactory,
    *,
    options: ReplayOptions | None = None,
    jobs: int = 1,
    executor: Executor | None = None,
    divisible: bool = True,
    take_result: Callable[[StreamResult], None],
    take_event: EventSink | None = None,
    events_data: Literal["off", "preview", "full"] = "off",
    events_trace: bool = True,
    open_output: OutputOpener | None = None,
    progress: Callable[[int], None] | None = None,
    spool: str | os.PathLike[str] | None = None,
    min_sharded: int = MIN_SHARDED,
) -> list[CaptureSummary]:
    """Replay captures, each with an engine of its own; what comes out does not depend on `jobs`.

    A fault of one capture is in its summary, and the others go on. Limits that concern all streams of a capture
    (`ahead_total`, `streams`) and the engine's own `[limits] total` hold for each shard of it. What a callout writes
    itself (the log of `monitor`) is as the processes wrote it.

    Args:
        captures: paths, or "-" for standard input (which is read here, by one reader).
        make_engine: makes the engine with its callouts on the clock it is given; with several jobs it is pickled.
        options: how to replay.
        jobs: how many processes; captures go to them whole, big ones in parts, each of which follows some streams.
        executor: runs the work units instead of processes of ours, in whatever machine that sees the captures and
            `spool` under the same names; `jobs` then says how far captures are divided.
        divisible: what callouts do to a stream depends on that stream alone; if not, captures are not divided.
        take_result: gets every stream's result, captures and streams in order, as soon as the order allows.
        take_event: gets every event in order, `seq` counted through; with several captures `capture` names its own.
        events_data, events_trace: payload in events, and whether there are events that concern single bytes.
        open_output: opens the output capture of each capture.
        progress: called now and then with the bytes of the captures read so far.
        spool: where the work units' temporary files are made (in a folder of their own, deleted at the end).
        min_sharded: size from which on a capture is divided, bytes.

    Returns:
        A summary per capture.

    Raises:
        OSError: no room for temporary files.
        Exception: what `take_result` raised; everything under way is ended.
    """
    names = [os.fspath(capture) for capture in captures]
    task = ReplayTask(
        "",
        make_engine,
        options if options is not None else ReplayOptions(),
        wants_events=take_event is not None,
        wants_frames=open_output is not None,
        events_data=events_data,
        events_trace=events_trace,
    )
    merge = _Merge(take_result, take_event, open_output, len(names) > 1)
    shards = _shards_of(names, jobs, min_sharded if divisible else None)
    plans = [
        [replace(task, capture=name, shard=shard, shards=parts) for shard in range(parts)]
        for name, parts in zip(names, shards, strict=True)
    ]
    units = sum(len(plan) for plan, name in zip(plans, names, strict=True) if name != "-")
    if executor is None and (jobs <= 1 or units < 2):
        plans = [[replace(plan[0], shards=1)] for plan in plans]
        return _one_after_the_other(plans, merge, progress)
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="wfpstream-replay-", dir=spool))
        if executor is None:
            executor = workers = WorkerProcesses(min(jobs, units))
            stack.callback(workers.stop)
        run = _Parallel(plans, merge, progress, folder, executor)
        stack.callback(run.cancel)
        return run.run()


def _shards_of(names: Sequence[str], jobs: int, min_sharded: int | None) -> list[int]:
    """Into how many work units each capture is divided: big ones get their share of the jobs."""
    sizes = [_size_of(name) for name in names]
    total = sum(sizes)
    return [
        1
        if min_sharded is None or jobs < 2 or size < min_sharded or not size
        else max(1, min(jobs, round(jobs * size / total)))
        for size in sizes
    ]


def _size_of(name: str) -> int:
    """The size of a plain file, else 0: what can be read only once is not divided."""
    if name == "-":
        return 0
    try:
        status = os.stat(name)
    except (OSError, ValueError):
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _one_after_the_other(
    plans: list[list[ReplayTask]], merge: _Merge, progress: Callable[[int], None] | None
) -> list[CaptureSummary]:
    summaries = []
    before = 0
    for index, plan in enumerate(plans):
        summaries.append(merge.play(index, plan[0], _shifted(progress, before)))
        before += _size_of(plan[0].capture)
    return summaries


def _shifted(progress: Callable[[int], None] | None, before: int) -> Callable[[int], None] | None:
    """Progress within one capture as progress in all."""
    return None if progress is None else lambda position: progress(before + position)


class _Output:
    """The output capture of one capture. The first failure is the last thing tried."""

    def __init__(self, opener: OutputOpener | None, index: int) -> None:
        self._opener = opener
        self._index = index
        self._stack = ExitStack()
        self._file: CaptureFile | None = None
        self.error: OSError | None = None

    @property
    def take_frame(self) -> FrameTaker | None:
        return None if self._opener is None else self._write

    def open(self) -> None:
        """There is something to write."""
        if self._opener is None:
            return
        try:
            self._file = self._stack.enter_context(self._opener(self._index))
        except OSError as error:
            self.error = error

    def _write(self, key: Key, time_ns: int, frame: bytes) -> None:
        if self._file is None:
            return
        try:
            self._file.write(time_ns, frame)
        except OSError as error:
            self.drop(error)

    def drop(self, error: BaseException) -> None:
        """The file does not become whole: take it away."""
        if isinstance(error, OSError):
            self.error = error
        self._file = None
        try:
            self._stack.__exit__(type(error), error, error.__traceback__)
        except BaseException as raised:
            if raised is not error:
                raise

    def close(self, summary: CaptureSummary) -> None:
        """Everything is written."""
        try:
            self._stack.close()
        except OSError as error:
            self.error = error
        if self.error is not None:
            reason = self.error.strerror or str(self.error)
            fail(summary, f"its output cannot be written: {reason.lower()}")


class _Merge:
    """Hands results, events and frames of one capture after the other on."""

    def __init__(
        self,
        take_result: Callable[[StreamResult], None],
        take_event: EventSink | None,
        open_output: OutputOpener | None,
        several: bool,
    ) -> None:
        self._take_result = take_result
        self._take_event = take_event
        self._open_output = open_output
        self._several = several
        self._sequence = count(1)

    def play(
        self, index: int, task: ReplayTask, progress: Callable[[int], None] | None = None
    ) -> CaptureSummary:
        """Replay a whole capture here and now."""
        play = Play(task)
        waiting = Waiting(self._take_result, follows=True)
        output = _Output(self._open_output, index)

        def take_event(key: Key, event: Event) -> None:
            self._event(event, event["flow"], play.summary.capture, play.start_ns)

        wanted = take_event if self._take_event is not None else None
        try:
            summary = play.run(waiting.add, wanted, output.take_frame, progress, output.open)
            waiting.finish()
        except BaseException as error:
            output.drop(error)
            raise
        finally:
            waiting.close()
        output.close(summary)
        return summary

    def merge(self, index: int, tasks: list[ReplayTask], found: list[TaskResult]) -> CaptureSummary:
        """Hand on what work units have left in their spools."""
        summary = _summed([one.summary for one in found])
        stems = [task.stem for task in tasks]
        self._merge_results(stems)
        if self._take_event is not None:
            start_ns = max(one.start_ns for one in found)
            self._merge_events(stems, tasks[0].shards > 1, summary.capture, start_ns)
        if self._open_output is not None and not summary.unreadable:
            self._merge_frames(index, stems, summary)
        return summary

    def _merge_results(self, stems: list[str]) -> None:
        results = heapq.merge(*map(read_results, stems), key=lambda result: result.first_packet)
        for number, result in enumerate(results):
            self._take_result(result if result.stream == number else replace(result, stream=number))

    def _merge_events(self, stems: list[str], divided: bool, capture: str, start_ns: int) -> None:
        numbers = first_packets(stems) if divided else None
        for event in _without_doubles(heapq.merge(*map(read_events, stems), key=itemgetter(0)), divided):
            flow = event["flow"]
            if numbers is not None and flow:
                flow = bisect_left(numbers, flow)
            self._event(event, flow, capture, start_ns)

    def _merge_frames(self, index: int, stems: list[str], summary: CaptureSummary) -> None:
        output = _Output(self._open_output, index)
        output.open()
        write = output.take_frame
        assert write is not None
        try:
            for key, time_ns, frame in heapq.merge(*map(read_frames, stems), key=itemgetter(0)):
                write(key, time_ns, frame)
        except BaseException as error:
            output.drop(error)
            raise
        output.close(summary)

    def _event(self, event: Event, flow: int, capture: str, start_ns: int) -> None:
        assert self._take_event is not None
        event = {**event, "flow": flow, "seq": next(self._sequence)}
        if self._several:
            event["capture"] = capture
        self._take_event(event, start_ns)


def _without_doubles(entries: Iterable[tuple[Key, Event]], divided: bool) -> Iterator[Event]:
    """What concerns no stream every shard tells; it is told once."""
    told: list[Event] = []
    at: Key | None = None
    for key, event in entries:
        if divided and not event["flow"]:
            if key != at:
                at, told = key, []
            bare = {**event, "seq": 0}
            if bare in told:
                continue
            told.append(bare)
        yield event


def _summed(summaries: Sequence[CaptureSummary]) -> CaptureSummary:
    """The summary of a capture from those of its shards, of which each has seen every packet."""
    first = summaries[0]
    for other in summaries[1:]:
        first.streams += other.streams
        first.failed |= other.failed
        first.unreadable |= other.unreadable
        first.problems += [problem for problem in other.problems if problem not in first.problems]
        first.notes += other.notes
        for reason, times in other.ignored.items():
            before = first.ignored.get(reason, 0)
            first.ignored[reason] = before + times if reason in _PER_STREAM else max(before, times)
        for rule, times in other.violations.items():
            first.violations[rule] = first.violations.get(rule, 0) + times
    first.notes = sorted(first.notes, key=_packets_of)[:MAX_REPORTED]
    return first


def _packets_of(line: str) -> list[int]:
    """The numbers of the packets that a line is about."""
    return [int(number) for number in re.findall(r"packet (\d+)", line)]


class _Parallel:
    """Work units on an executor, and the merge of each capture when all of its units are done."""

    def __init__(
        self,
        plans: list[list[ReplayTask]],
        merge: _Merge,
        progress: Callable[[int], None] | None,
        folder: str,
        executor: Executor,
    ) -> None:
        self._merge = merge
        self._progress = progress
        self._done = 0
        numbers = count()
        self._plans = [
            [replace(task, stem=os.path.join(folder, str(next(numbers)))) for task in plan] for plan in plans
        ]
        # Standard input is ours alone.
        self._futures: list[list[Future[TaskResult]]] = [
            [] if plan[0].capture == "-" else [executor.submit(run_task, task) for task in plan]
            for plan in self._plans
        ]

    def cancel(self) -> None:
        """What has not begun does not begin any more."""
        for future in chain.from_iterable(self._futures):
            future.cancel()

    def run(self) -> list[CaptureSummary]:
        """Wait for each capture in its turn, and hand on what was found."""
        summaries = []
        for index, (tasks, futures) in enumerate(zip(self._plans, self._futures, strict=True)):
            if not futures:
                summaries.append(self._merge.play(index, tasks[0]))
                continue
            self._wait(futures)
            summaries.append(self._finished(index, tasks, futures))
            self._done += _size_of(tasks[0].capture)
        return summaries

    def _wait(self, futures: list[Future[TaskResult]]) -> None:
        while wait(futures, timeout=_POLL).not_done:
            if self._progress is not None:
                self._progress(self._done + self._under_way())

    def _under_way(self) -> int:
        """Bytes read of captures that are not merged yet."""
        return sum(
            read_position(task.stem) // task.shards for task in chain.from_iterable(self._plans) if task.stem
        )

    def _finished(
        self, index: int, tasks: list[ReplayTask], futures: list[Future[TaskResult]]
    ) -> CaptureSummary:
        failures: list[str] = []
        whole: list[ReplayTask] = []
        found: list[TaskResult] = []
        for task, future in zip(tasks, futures, strict=True):
            try:
                found.append(future.result())
                whole.append(task)
            except WorkerDied as error:
                failures.append(str(error))
            except Exception as error:  # whatever the executor, or the transport of its calls, makes of it
                failures.append(f"{type(error).__name__}: {first_line(error)}")
        if found:
            summary = self._merge.merge(index, whole, found)
        else:
            summary = CaptureSummary(printable(tasks[0].capture))
        for text in dict.fromkeys(failures):
            fail(summary, text)
        for task in tasks:
            remove(task.stem)
        return summary
