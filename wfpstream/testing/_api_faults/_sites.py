"""Where in a callout's code a call is made: read from the stack while it is made.

Owns what belongs to a callout and what to the engine. It must not know why it is asked.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import PurePath
from types import FrameType

PACKAGE = __name__.partition(".")[0]

# More places than this do not tell two call sites apart any more: a recursion has an end.
DEPTH = 8

# Written by us and working for a callout, so a call from there is the callout's.
_HELPERS = frozenset(f"{PACKAGE}.fwps.{name}" for name in ("_comfort", "_out_of_band", "_worker"))
# Between a call and its judge, or between a callback and the engine: they are nobody's.
_TRANSPARENT = frozenset(
    f"{PACKAGE}.{name}"
    for name in (
        "fwps._call_failures",
        "fwpm._call_failures",
        "fwps._services",
        "testing._api_faults._sites",
        "testing._api_faults._plans",
    )
)
_BRIDGE = f"{PACKAGE}.engine._bridge"
ANOTHER_THREAD = "another thread"


@dataclass(frozen=True, slots=True, order=True)
class CallSite:
    """One way in which a callout comes to make a call.

    Attributes:
        call: the call, as the run time or a session names it: `stream_inject_async`.
        stack: places "file:line" in the callout's code, innermost first.
    """

    call: str
    stack: tuple[str, ...]

    @property
    def place(self) -> str:
        """The innermost place: the line that makes the call, or asks a helper of ours to make it."""
        return self.stack[0]

    def __str__(self) -> str:
        return f"{self.call} at " + " < ".join(_short(place) for place in self.stack)


def call_site(call: str) -> CallSite | None:
    """The site of the call that is being judged; None when the engine itself makes it."""
    stack: list[str] = []
    helpers: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(stack) < DEPTH:
        module = frame.f_globals.get("__name__", "")
        if not _is_engine(module):
            stack.append(_place(frame))
        elif module in _HELPERS:
            helpers.append(_place(frame))
        elif module not in _TRANSPARENT:
            if module == _BRIDGE:
                stack.append(ANOTHER_THREAD)
            break
        frame = frame.f_back
    found = stack or helpers
    return CallSite(call, tuple(found)) if found else None


def _is_engine(module: str) -> bool:
    """Ours, but not a built-in callout: those are judged like anybody's."""
    if module.partition(".")[0] != PACKAGE:
        return False
    return not module.startswith(f"{PACKAGE}.callouts.")


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _short(place: str) -> str:
    return PurePath(place).name
