"""The marking rules of `tests.transport.churn` for a proxy in a process of its own: they say when they are effective.

Each writes one line into a FIFO once bytes of both directions (or of the one that has not ended) have its mark: its
generation, and the directions.
"""

from __future__ import annotations

import os
from typing import Any

from tests.transport import churn
from tests.transport.churn import BY_HAND


class _Told(churn.Mark):
    def __init__(self, generation: int, shift: int = BY_HAND, fifo: str = "") -> None:
        super().__init__(generation, shift)
        self._fifo = fifo
        self._told = False

    def _look(self) -> None:
        super()._look()
        if self._effective.is_set() and not self._told:
            self._told = True
            directions = " ".join("inbound" if inbound else "outbound" for inbound in self.met)
            # The test has it open, and a line is far below PIPE_BUF: this neither waits nor mixes.
            fd = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(fd, f"{self.generation} {directions}\n".encode())
            finally:
                os.close(fd)


class Mark(_Told):
    """As its namesake."""


class InPieces(_Told, churn.InPieces):
    """As its namesake."""


class Hungry(_Told, churn.Hungry):
    """As its namesake."""


class Deferring(_Told, churn.Deferring):
    """As its namesake."""

    def __init__(self, generation: int, shift: int = BY_HAND, fifo: str = "") -> None:
        super().__init__(generation, shift, fifo)
        self._deferred = False


class OutOfBand(_Told, churn.OutOfBand):
    """As its namesake."""


class Slow(_Told, churn.Slow):
    """As its namesake."""


def callout_text(dice: Any, generation: int, shift: int, fifo: str) -> str:
    """A CALLOUT string for one of them."""
    kind = dice.choice((Mark, InPieces, Hungry, Deferring, OutOfBand, Slow))
    return f"{__name__}:{kind.__name__},generation={generation},shift={shift},fifo={fifo}"
