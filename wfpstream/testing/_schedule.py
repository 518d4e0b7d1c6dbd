"""When timers and workers run: the choices that a driver's turns leave open, made by plan.

Owns the schedules. It must not know an engine's parts: a choice is a word (`Work`), and the memory driver asks for one
wherever something waits that may run now or later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from wfpstream.engine import Work


class Schedule(Protocol):
    """Asked before each turn in which a timer or a worker could run."""

    def choose(self) -> Work:
        """What may run in this turn. NONE, and nothing else to do: it waits for whatever comes next."""
        ...


class LateSchedule:
    """Workers run only when nothing else can happen any more, and then one step at a time."""

    def choose(self) -> Work:
        """Not yet."""
        return Work.NONE


class PlannedSchedule:
    """One choice after the other; when they are used up, everything at once.

    Args:
        choices: in the order in which they are used.
    """

    def __init__(self, choices: Sequence[Work]) -> None:
        self._choices = list(reversed(choices))

    def choose(self) -> Work:
        """The next one."""
        return self._choices.pop() if self._choices else Work.ALL
