"""The events of all workers and of their parent, gathered into the one place that `--events` names.

Owns the pipes; whole lines are the observe room's (`LineMerger`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import trio

from wfpstream.cli._base import note
from wfpstream.cli._plan import RunPlan
from wfpstream.cli._sinks import open_events
from wfpstream.engine import FilterEngine
from wfpstream.observe import JsonLines, LineMerger, open_event_pipe

# As a single process' sink: so long a reader may take for what is left at the end.
_LAST_WAIT = 2.0
_OF_PARENT = ("worker_started", "worker_gone")


class _OfParent:
    """The parent's engine has no flows: only what is told of workers is news."""

    wants_data = "off"
    wants_trace = False

    def __init__(self, lines: JsonLines) -> None:
        self._lines = lines

    def __call__(self, event: dict[str, object]) -> None:
        if event.get("event") in _OF_PARENT:
            self._lines(event)


class Gathering:
    """Where event lines come together.

    Args:
        plan: the run; without `--events` there is nothing to do.
        engine: the parent's, whose news of workers belong there, too.
    """

    def __init__(self, plan: RunPlan, engine: FilterEngine) -> None:
        self._plan = plan
        self._engine = engine
        self._merger: LineMerger | None = None
        self._merging = 0
        self._changed = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery

    def open(self, stack: ExitStack) -> None:
        """Begin; `stack` ends it.

        Raises:
            JobError: the events cannot be written where they should.
        """
        if self._plan.events is not None:
            fd, owned = open_events(self._plan.events)
            self._merger = LineMerger(fd, owned=owned, on_failure=_complain)
            stack.callback(self._merger.close)

    @property
    def waits(self) -> bool:
        """What is written is always taken: nobody need lose events because the others have many."""
        return self._merger is not None and self._merger.waits

    def pipe(self) -> int | None:
        """Where one more process writes its lines, to be closed when it has it; None: nobody wants events.

        Raises:
            OSError: there are no descriptors.
        """
        if self._merger is None:
            return None
        reading, writing = open_event_pipe()
        self._merging += 1
        self._nursery.start_soon(self._merge, self._merger, reading)
        return writing

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Gather, until all who write have ended."""
        async with trio.open_nursery() as self._nursery:
            own = self._own_lines()
            try:
                yield
            finally:
                if own is not None:
                    own.close()
                with trio.move_on_after(_LAST_WAIT) as scope:
                    while self._merging:
                        await self._changed.park()
                if scope.cancelled_caught:
                    note("error: the last events were not read")
                self._nursery.cancel_scope.cancel()

    def _own_lines(self) -> JsonLines | None:
        writing = self.pipe()
        if writing is None:
            return None
        lines = JsonLines(writing, on_failure=_complain)
        self._engine.add_sink(_OfParent(lines))
        return lines

    async def _merge(self, merger: LineMerger, reading: int) -> None:
        try:
            await merger.merge(reading)
        finally:
            self._merging -= 1
            self._changed.unpark_all()


def _complain(text: str) -> None:
    note(f"error: {text}")
