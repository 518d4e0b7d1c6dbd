"""Where in a callout's code a contract violation happened (section 20), and which are always told.

Owns finding the place on the stack, in a traceback, or of a callback that has returned. It must not know flows.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from inspect import getattr_static
from types import CodeType, FrameType

from ._violation_rules import VIOLATION_RULES

# What comes out of a callout's code and is its fault (ACT-14). It may not end the process it is a guest in, so
# `sys.exit` is one of these; an interrupt from the keyboard is not.
CALLOUT_FAULTS = (Exception, SystemExit)

# These decide what happens to the bytes (ACT-13, ACT-14), so they are told even when nobody verifies.
ALWAYS_REPORTED = frozenset(("V-2", "V-3", "V-5", "V-40", "ACT-13"))

SEVERITY: dict[str, str] = {rule: one.severity for rule, one in VIOLATION_RULES.items()}

_PACKAGE = __name__.rpartition(".")[0].rpartition(".")[0]

# A call on its way from a callout to the place that judges it goes through these rooms, and through nothing else of
# this package: whatever lies behind another of its modules is a driver's caller, not a callout.
_CALLOUTS = f"{_PACKAGE}.callouts."
_BASES = f"{_PACKAGE}.callouts._"  # base classes and tools of callouts: they act on behalf of those
_IN_BETWEEN = (*(f"{_PACKAGE}.{room}." for room in ("fwp", "fwps", "fwpm", "engine")), _BASES)
# The name that a module of a higher floor sets to say that it only passes callouts' calls on.
_PASSES_CALLS_ON = "_PASSES_CALLS_ON"
# Where Python's own modules are (those of others have a folder named site-packages, or dist-packages on Debian); what
# is no file, as <string> and <frozen codecs>.
_LIBRARIES = (os.path.dirname(os.__file__) + os.sep, "<")
_DOOR = f"{_PACKAGE}.engine._bridge"  # behind it is the event loop; the caller waits in a thread of its own


def where_in_callout() -> str | None:
    """file:line of the innermost frame that is a callout's code, None if none is on the stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if _is_callouts(module):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        if module == _DOOR or not (module.startswith(_IN_BETWEEN) or _PASSES_CALLS_ON in frame.f_globals):
            return None
        frame = frame.f_back
    return None


def where_on_stack(frame: FrameType | None) -> str | None:
    """file:line a callout has come to, seen from outside of its thread; None if it is in no callout.

    The line is the callout's own, not one of a library it calls: the innermost one outside of the installed ones, else
    (an installed callout) the innermost one in the file in which its code begins.

    Args:
        frame: the innermost one of the thread (`sys._current_frames`). No frame is kept.
    """
    stack: list[
        tuple[str, int, str]
    ] = []  # from the inside to the outside, up to the engine's outermost call
    depth = 0
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        stack.append((frame.f_code.co_filename, frame.f_lineno or 0, module))
        if module.startswith(_IN_BETWEEN):
            depth = len(stack)
        frame = frame.f_back
    callouts = [(file, line) for file, line, module in stack[:depth] if _is_callouts(module)]
    if not callouts:
        return None
    own = [place for place in callouts if not _is_installed(place[0])]
    begins = callouts[-1][0]
    file, line = own[0] if own else next(place for place in callouts if place[0] == begins)
    return f"{file}:{line}"


def _is_installed(file: str) -> bool:
    return file.startswith(_LIBRARIES) or "-packages" in file


def where_raised(error: BaseException) -> str | None:
    """file:line of the innermost callout frame that an exception came through."""
    found = None
    traceback = error.__traceback__
    while traceback is not None:
        if _is_callouts(traceback.tb_frame.f_globals.get("__name__", "")):
            found = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found


def where_defined(function: object, owner: object = None) -> str | None:
    """file:line of a callback's `def`.

    Where the function is a base class's of this package, the first one that the class of its `owner` defines.
    """
    inner = _innermost(function)
    code = _code_of(inner)
    if owner is None or _is_callouts(str(getattr(inner, "__module__", ""))):
        return _line_of(code)
    for each in type(owner).__mro__:
        if not _is_callouts(each.__module__):
            break
        found = [_code_of(_innermost(member)) for member in vars(each).values()]
        own = [one for one in found if one is not None]
        if own:
            return _line_of(min(own, key=lambda one: one.co_firstlineno))
    return _line_of(code)


def _is_callouts(module: str) -> bool:
    """Callouts are what is outside of this package, and the built-in ones."""
    if module.startswith(_CALLOUTS):
        return not module.startswith(_BASES)
    return not f"{module}.".startswith(_PACKAGE + ".")


def _line_of(code: CodeType | None) -> str | None:
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else None


def _innermost(function: object) -> object:
    """The function behind a method, a partial, a decorator or a callable object."""
    for _ in range(100):  # a chain of wrappers may be a ring
        inner = getattr(function, "__wrapped__", None) or getattr(function, "__func__", None)
        inner = inner or (function.func if isinstance(function, partial) else None)
        if inner is None:
            break
        function = inner
    if not hasattr(function, "__code__") and not isinstance(function, type):
        function = getattr_static(type(function), "__call__", None)
    return function


def _code_of(function: object) -> CodeType | None:
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None
