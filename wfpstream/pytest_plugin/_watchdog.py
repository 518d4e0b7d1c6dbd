"""The watchdog of a proxy's thread: notices that it does not answer, and says where it is stuck.

Owns when a thread counts as hung, and the report. It must not know what is done about it.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

__all__ = ["Watchdog", "describe_hang"]

# It is the number of unanswered knocks that counts, not the time: a process that was stopped has not hung.
_KNOCKS = 20
# What a knock counts at least, however long the process had to wait for a processor meanwhile.
_LEAST = 0.05
_THREADS = Path("/proc/self/task")
_PACKAGE = Path(__file__).resolve().parent.parent
_CALLERS = tuple(str(_PACKAGE / room) + os.sep for room in ("fwps", "engine", "transport"))


class Watchdog:
    """Knocks at a thread; after `patience` seconds without an answer calls `hangs`, once.

    Args:
        knock: gets a function to run on that thread soon; False: the thread has ended.
        hangs: called on the watchdog's thread.
        patience: seconds; those in which the process had to wait for a processor count little.
        ended: set when there is nothing left to watch.
        waited: seconds for which its threads have waited for a processor so far.
    """

    def __init__(
        self,
        knock: Callable[[Callable[[], object]], bool],
        hangs: Callable[[], object],
        patience: float,
        ended: threading.Event,
        waited: Callable[[], float] | None = None,
    ) -> None:
        self._waited = waited or waited_for_processor
        self._knock = knock
        self._hangs = hangs
        self._tick = patience / _KNOCKS
        self._ended = ended
        self._answered = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="wfp_proxy watchdog", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """There is nothing left to watch; waits for its thread."""
        self._ended.set()
        self._answered.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while self._knock(self._answered.set):
            if not self._is_answered():
                if not self._ended.is_set():
                    self._hangs()
                return
            self._answered.clear()
            if self._ended.wait(self._tick):
                return

    def _is_answered(self) -> bool:
        waited = self._waited()
        knocks = 0.0
        while knocks < _KNOCKS - _LEAST / 2:
            if self._ended.is_set() or self._answered.wait(self._tick):
                return True
            before, waited = waited, self._waited()
            knocks += min(1.0, max(_LEAST, 1.0 - (waited - before) / self._tick))
        return False


def waited_for_processor() -> float:
    """Seconds for which threads of this process were ready to run and others ran; 0 where the system does not say.

    Not one thread's alone: what keeps the proxy's thread may be that whoever has the interpreter's lock has to wait.
    """
    nanoseconds = 0
    for thread in _listed(_THREADS):
        try:
            nanoseconds += int((thread / "schedstat").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            continue  # it has just ended, or this kernel does not count
    return nanoseconds / 1e9


def _listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def describe_hang(thread: int, patience: float) -> str:
    """Where a thread is stuck, for people: the callout and its stack.

    Args:
        thread: its identifier.
        patience: how many seconds it was given.
    """
    frames = list(_frames_of(thread))
    first, who = _culprit(frames)
    shown = [traceback.FrameSummary(f.f_code.co_filename, f.f_lineno or 0, f.f_code.co_name) for f in first]
    stack = "".join(traceback.format_list(shown))
    return (
        f"wfp_proxy: {who} has kept the proxy's thread for {patience:g} s and more; it is here:\n{stack}"
        "No callout may wait (IRQ-1), and nothing can take a thread out of it: this process cannot be rescued from "
        "it. The thread stays until the process ends; the proxy's connections were shut down, so that the test "
        "could go on. (timeout= of wfp_proxy sets the limit; timeout=0 switches it off, for a debugger.)"
    )


def _frames_of(thread: int) -> Iterator[FrameType]:
    """Its stack, outermost call first."""
    frame = sys._current_frames().get(thread)
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return reversed(found)


def _culprit(frames: list[FrameType]) -> tuple[list[FrameType], str]:
    """The stack from the callout's own call on, and the callout."""
    from wfpstream.fwps import Callout, Worker

    for index, frame in enumerate(frames):
        owner: Any = frame.f_locals.get("self")
        callout = owner.callout if isinstance(owner, Worker) else owner
        if isinstance(callout, Callout):
            kind = type(callout).__name__
            named = f"{kind} ({callout.name})" if callout.name and callout.name != kind else kind
            return frames[index:], f"callout {named}, in {type(owner).__name__}.{frame.f_code.co_name},"
    entered = False
    for index, frame in enumerate(frames):
        is_ours = frame.f_code.co_filename.startswith(_CALLERS)
        if entered and not is_ours:
            return frames[index:], f"{frame.f_code.co_name}(), called by the proxy,"
        entered = entered or is_ours
    return frames[-1:], "something"
