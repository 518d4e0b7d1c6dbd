"""How much of the work outside callbacks a turn does: what a driver may hold back to try other schedules.

Owns the choices and what each of them runs. It must not know who chooses, nor why.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wfpstream.fwps import RunTime


class Work(Enum):
    """Due timers and workers that may go on, in one turn (IRQ-5).

    On Windows they run on any processor, at any moment after the classify that queued them. A driver that always says
    ALL runs them as soon as the callbacks of an input are over; the other values are other moments, all of them legal.
    """

    ALL = "all"
    """Every due timer, then every worker that may go on."""
    NONE = "none"
    """None of them; they wait for a later turn."""
    FIRST = "first"
    """One timer if one is due, else the first worker."""
    LAST = "last"
    """The last worker if there is one, else one due timer."""


def do_work(fwps: RunTime, work: Work) -> None:
    """Run what `work` says of what waits now."""
    core, workers = fwps.core, fwps.workers
    if work is Work.ALL:
        core.run_timers()
        workers.run_ready()
    elif work is Work.FIRST and not core.run_one_timer():
        workers.run_one(last=False)
    elif work is Work.LAST and not workers.run_one(last=True):
        core.run_one_timer()


def work_waits(fwps: RunTime) -> bool:
    """Whether a due timer or a worker waits for a turn that does some work."""
    core = fwps.core
    deadline = core.next_deadline
    return fwps.workers.has_ready or (deadline is not None and deadline <= core.clock())
