"""`wfpstream replay`, running: engines, sinks, output files, and the exit code.

Owns who is told what. What captures are, and how several processes replay them in one order, is the replay room's.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import msgspec

from wfpstream.cli._base import (
    DONE,
    FAILED,
    USAGE,
    JobError,
    give_up_stdout,
    note,
    say,
    stdout_failed,
)
from wfpstream.cli._plan import ReplayPlan
from wfpstream.cli._replay_show import FirstLines, ProgressBar, StreamTable, summary_lines, violation_text
from wfpstream.config import CalloutText, LoadedConfig, build_engine, parse_callout
from wfpstream.engine import FilterEngine
from wfpstream.observe import HumanLines, JsonLines, open_private_file, replace_private_file, safe_text
from wfpstream.replay import (
    CaptureFile,
    CaptureSummary,
    ReplayOptions,
    StreamResult,
    format_of,
    replay_captures,
)

_STDOUT = 1
_SHOWN_EVENTS = 20


@dataclass(frozen=True, slots=True)
class EngineRecipe:
    """Makes the engine that the plan asks for, in whatever process."""

    loaded: LoadedConfig
    callouts: tuple[CalloutText, ...]

    def __call__(self, clock: Callable[[], float]) -> FilterEngine:
        """A new one, on this clock."""
        return build_engine(self.loaded, self.callouts, clock)


class _ReaderGone(Exception):
    """Whoever read our standard output has read enough."""


def run_replay(plan: ReplayPlan) -> int:
    """Replay everything that the plan names.

    Returns:
        The exit code.

    Raises:
        ConfigError: the configuration cannot be used.
        JobError: nothing can be written where it is wanted.
    """
    recipe = EngineRecipe(plan.loaded, plan.callouts)
    # Everything that is wrong with configuration and callouts shows here, and not once per capture.
    engine = recipe(lambda: 0.0)
    if plan.verbosity >= 0:
        for line in listener_notes(plan.loaded):
            note(line)
    run = _Run(plan)
    with _terminated_is_interrupted():
        try:
            summaries = run.replay(recipe, engine.flows_are_independent)
        except _ReaderGone:
            return DONE
    return run.conclude(summaries)


def listener_notes(loaded: LoadedConfig) -> Iterator[str]:
    """What of a configuration cannot meet a captured flow: it came through no listener."""
    without = "captures have no listeners, so it meets no flow"
    config = loaded.config
    names = [listener.name for listener in config.proxy.listener if listener.name]
    callouts = {callout.name for callout in config.callout}
    for index, rule in enumerate(config.rule):
        prefix = rule.callout not in callouts and parse_callout(rule.callout, names, loaded.folder).listener
        if rule.when.listener is not None or prefix:
            yield f"rule[{index}] is for a listener; {without}"
    for index, one in enumerate(config.filter):
        if any(condition.field == "listener" for condition in one.condition):
            yield f"filter[{index}] has a condition on the listener; {without}"


class _Run:
    def __init__(self, plan: ReplayPlan) -> None:
        self._plan = plan
        self._table = StreamTable(several=len(plan.captures) > 1)
        self._json = msgspec.json.Encoder()
        self._out: TextIO = sys.stdout
        self._failed = False
        self._reader_gone = False
        self._start_ns = 0
        self._sinks: list[Any] = []

    def replay(self, recipe: EngineRecipe, divisible: bool) -> list[CaptureSummary]:
        """Replay all captures, and tell as one goes."""
        plan = self._plan
        if not plan.captures:
            return []
        with ExitStack() as stack:
            self._add_sinks(stack)
            self._make_folder()
            if plan.as_json or plan.events == "-":
                # What a callout prints is no JSON line.
                stack.enter_context(redirect_stdout(sys.stderr))
            progress = stack.enter_context(ProgressBar(plan.captures, self._shows_progress()))
            return replay_captures(
                plan.captures,
                recipe,
                options=ReplayOptions(**plan.settings),
                jobs=plan.jobs,
                divisible=divisible,
                take_result=self._take_result,
                take_event=self._take_event if self._sinks else None,
                events_data=_most_data(self._sinks),
                events_trace=any(getattr(sink, "wants_trace", True) for sink in self._sinks),
                open_output=self._open_output if plan.outputs is not None else None,
                progress=progress,
            )

    def conclude(self, summaries: Sequence[CaptureSummary]) -> int:
        """The table, what could not be read, and the exit code."""
        plan = self._plan
        if plan.verbosity >= 0 and any(summary.packets for summary in summaries):
            self._print_table(summaries)
        problems = [problem for summary in summaries for problem in summary.problems]
        for line in [*plan.problems, *problems]:
            note(f"error: {safe_text(' '.join(line.split()))}")
        if all(map(_is_unread, summaries)):
            return USAGE
        strict = self._tell_violations(summaries)
        return FAILED if plan.problems or problems or strict or self._failed else DONE

    # --- what is told ---

    def _take_result(self, result: StreamResult) -> None:
        if self._reader_gone:
            raise _ReaderGone
        self._table.add(result)
        if self._plan.as_json:
            self._write(self._json.encode(result.record()).decode())

    def _write(self, line: str) -> None:
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except OSError as error:
            # `sys.stdout` may be standard error now.
            with redirect_stdout(self._out):
                stdout_failed(error)
            raise _ReaderGone from None

    def _print_table(self, summaries: Sequence[CaptureSummary]) -> None:
        elsewhere = self._plan.as_json or self._plan.events == "-"
        lines = [*self._table.lines(sys.stderr if elsewhere else self._out), *summary_lines(summaries)]
        for line in lines:
            if elsewhere:
                say(line)
            else:
                try:
                    self._write(line)
                except _ReaderGone:
                    return

    def _tell_violations(self, summaries: Sequence[CaptureSummary]) -> bool:
        """Whether there were violations that fail the run."""
        level = self._plan.loaded.config.verify.level
        text = violation_text(summaries) if level != "off" else ""
        strict = level == "strict"
        if text and (strict or self._plan.verbosity >= 0):
            note(f"{'error: ' if strict else ''}callouts broke their contract: {text}")
        return bool(text) and strict

    def _shows_progress(self) -> bool:
        """On a terminal, unless lines come there as well."""
        lines = (self._plan.as_json or self._plan.events == "-") and self._out.isatty()
        return self._plan.verbosity == 0 and sys.stderr.isatty() and not lines

    # --- sinks ---

    def _add_sinks(self, stack: ExitStack) -> None:
        plan = self._plan
        if plan.events is not None:
            events = self._open_events(plan.events)
            stack.callback(events.close)
            self._sinks.append(events)
        if plan.verbosity >= 0:
            lines = say if plan.verbosity else FirstLines(say, note, _SHOWN_EVENTS)
            self._sinks.append(HumanLines(lines, plan.verbosity, note))

    def _open_events(self, target: str) -> JsonLines:
        try:
            fd = _STDOUT if target == "-" else open_private_file(target)
        except OSError as error:
            raise _cannot_write(target, error) from error
        return JsonLines(
            fd,
            data=self._plan.events_data,
            owned=target != "-",
            timestamp=lambda t: self._start_ns / 1e9 + t,
            waits=True,
            on_failure=self._events_failed,
        )

    def _events_failed(self, text: str) -> None:
        if self._plan.events == "-" and "roken pipe" in text:
            # Said where it can stop the replay: a sink may not raise.
            self._reader_gone = True
            with redirect_stdout(self._out):
                give_up_stdout()
            return
        self._failed = True
        note(f"error: {text}")

    def _take_event(self, event: dict[str, Any], start_ns: int) -> None:
        self._start_ns = start_ns
        for sink in self._sinks:
            sink(event)

    # --- output captures ---

    def _make_folder(self) -> None:
        folder = self._plan.folder
        if folder is None or self._plan.outputs is None:
            return
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise _cannot_write(folder, error) from error

    @contextmanager
    def _open_output(self, index: int) -> Iterator[CaptureFile]:
        assert self._plan.outputs is not None
        path = self._plan.outputs[index]
        with replace_private_file(path) as stream:
            file = CaptureFile(stream, format_of(path))
            yield file
            file.close()


def _is_unread(summary: CaptureSummary) -> bool:
    """Not one packet could be read, and not because the capture has none."""
    return summary.unreadable or bool(summary.problems and not summary.packets and not summary.failed)


def _most_data(sinks: Sequence[Any]) -> Any:
    order = ("off", "preview", "full")
    return max((sink.wants_data for sink in sinks), key=order.index, default="off")


def _cannot_write(path: str, error: OSError) -> JobError:
    return JobError(f"cannot write {Path(path)}: {(error.strerror or str(error)).lower()}")


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """SIGTERM takes the way of an exception, so that temporary files go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
