"""Calls of foreign threads that overlap (VRF-7): two of them inside the bridge at once for one flow.

Owns the measuring, in the calling thread, from entry to answer. On the engine's own thread calls cannot
overlap, so this is the only place where DEF-9 and OOB-9 can be broken.
"""

from __future__ import annotations

import threading
from typing import Any

from wfpstream.fwps import RECEIVE_FAMILY

INJECT, CONTINUE = "stream_inject_async", "stream_continue"

# Which of two overlapping calls break which rule.
FORBIDDEN = {
    (INJECT, CONTINUE): ("V-16", "FwpsStreamContinue overlaps FwpsStreamInjectAsync on the same flow"),
    (CONTINUE, INJECT): ("V-16", "FwpsStreamContinue overlaps FwpsStreamInjectAsync on the same flow"),
    (INJECT, INJECT): ("V-22", "two injections overlap for one flow and direction"),
}

Call = tuple[str, int, int]
"""(name, flow id, direction) of a call under way."""


class Overlaps:
    """The calls that are inside the bridge now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside: list[Call] = []

    def enter(self, call: Call | None) -> list[tuple[str, str]]:
        """A thread enters; the (rule, text) of every rule that breaks with those already inside."""
        if call is None:
            return []
        with self._lock:
            found = [FORBIDDEN[pair] for other in self._inside if (pair := _pair(call, other)) in FORBIDDEN]
            self._inside.append(call)
        return found

    def leave(self, call: Call | None) -> None:
        """Its answer is there."""
        if call is not None:
            with self._lock:
                self._inside.remove(call)


def _pair(call: Call, other: Call) -> tuple[str, str] | None:
    same_flow = call[1] == other[1]
    both_inject = call[0] == other[0] == INJECT
    if not same_flow or (both_inject and call[2] != other[2]):
        return None
    return call[0], other[0]


def call_of(name: str, args: tuple[Any, ...]) -> Call | None:
    """What a service call is about, if overlapping matters for it."""
    if name == INJECT and len(args) > 6:
        return name, args[3], 1 if int(args[6]) & RECEIVE_FAMILY else 0
    if name == CONTINUE and args:
        return name, args[0], 1
    return None


def party_of(args: tuple[Any, ...]) -> tuple[int, int, int]:
    """(flow id, callout id, direction) of the arguments of a call that `call_of` knows."""
    if len(args) > 6:
        return args[3], args[4], 1 if int(args[6]) & RECEIVE_FAMILY else 0
    return args[0], args[1], 1
