"""The contract violations V-* (section 20): severity, and where in a callout's code it happened.

Owns the table; detecting is done where the rule is. It must not know flows or lanes.
"""

from __future__ import annotations

import sys
from types import CodeType, FrameType

# What comes out of a callout's code and is its fault (ACT-14). It may not end the process it is a guest in, so
# `sys.exit` is one of these; an interrupt from the keyboard is not.
CALLOUT_FAULTS = (Exception, SystemExit)

# E = contract broken, W = warning, L = lint.
SEVERITY: dict[str, str] = {
    **dict.fromkeys(
        (
            "V-2",
            "V-3",
            "V-4",
            "V-5",
            "V-6",
            "V-8",
            "V-14",
            "V-16",
            "V-17",
            "V-18",
            "V-19",
            "V-21",
            "V-22",
            "V-23",
            "V-25",
            "V-26",
            "V-27",
            "V-28",
            "V-29",
            "V-31",
            "V-32",
            "V-33",
            "V-34",
            "V-35",
            "V-37",
            "V-38",
            "V-39",
            "V-40",
            "V-41",
            "V-46",
            "V-56",
            "V-59",
            "V-60",
            "V-61",
            "ACT-13",
        ),
        "E",
    ),
    **dict.fromkeys(
        (
            "V-13",
            "V-17w",
            "V-20",
            "V-30",
            "V-47",
            "V-48",
            "V-50",
            "V-51",
            "V-52",
            "V-53",
            "V-54",
            "V-57",
            "V-58",
            "V-62",
            "V-63",
        ),
        "W",
    ),
    **dict.fromkeys(
        (
            "V-1",
            "V-4b",
            "V-7",
            "V-9",
            "V-10",
            "V-11",
            "V-12",
            "V-15",
            "V-17x",
            "V-24",
            "V-36",
            "V-42",
            "V-43",
            "V-44",
            "V-45",
            "V-49",
            "V-55",
            "V-64",
        ),
        "L",
    ),
}

# These decide what happens to the bytes (ACT-13, ACT-14), so they are told even when nobody verifies.
ALWAYS_REPORTED = frozenset(("V-2", "V-3", "V-5", "V-40", "ACT-13"))

_PACKAGE = __name__.rpartition(".")[0].rpartition(".")[0]


def where_in_callout(code: CodeType | None) -> str | None:
    """file:line of `code`, else of the innermost frame outside this package."""
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_PACKAGE + ".callouts.") or not module.startswith(_PACKAGE + "."):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else None


def where_raised(error: BaseException) -> str | None:
    """file:line of the innermost frame outside this package that an exception came through."""
    found = None
    traceback = error.__traceback__
    while traceback is not None:
        module = traceback.tb_frame.f_globals.get("__name__", "")
        if module.startswith(_PACKAGE + ".callouts.") or not module.startswith(_PACKAGE + "."):
            found = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found
