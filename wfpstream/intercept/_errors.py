"""What goes wrong with an interception, as lines for people. Knows nothing of rules or programs."""

from __future__ import annotations

from collections.abc import Sequence


class InterceptError(Exception):
    """An interception cannot be applied, undone or examined.

    Attributes:
        lines: what is wrong, one line each, safe for a terminal.
        done: what was done all the same, one line each.
    """

    def __init__(self, *lines: str, done: Sequence[str] = ()) -> None:
        self.lines = tuple(safe_line(line) for line in lines)
        self.done = tuple(done)
        super().__init__("; ".join(self.lines))


class PlanError(InterceptError, ValueError):
    """What is asked for makes no sense, whatever the machine is like."""


def safe_line(text: str) -> str:
    """`text` on one line, with everything that could steer a terminal as escapes."""
    joined = " ".join(text.split())
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in joined
    )
