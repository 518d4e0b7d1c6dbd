"""Integers that stand for Python objects, and what becomes of those that are flow contexts (VRF-5).

Owns the objects behind tracked integers and two rules that only tracked contexts can be held to: V-31 and V-41. It
must not know when a context is deleted, nor what is in it: `_contexts` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from ._core import PastFlow
from ._violations import where_in_callout

if TYPE_CHECKING:
    from ._callout import CalloutEntry
    from ._core import Core
    from ._flow import Flow

REMEMBERED = 10_000  # contexts of flows that are over; who uses one so much later is not caught


class Refused(NamedTuple):
    """Whose context it should have become, and where."""

    flow: Flow
    entry: CalloutEntry
    where: str | None


class Past(NamedTuple):
    """Whose context it was. The flow itself is not kept for the sake of a report."""

    number: int
    filter_id: int
    entry: CalloutEntry


class Tracking:
    """The tracked objects of one engine."""

    def __init__(self, core: Core, next_handle: Callable[[], int]) -> None:
        self._core = core
        self._next_handle = next_handle
        self._objects: dict[int, Any] = {}
        self.verifying = core.options.verify.level != "off"
        self._stored: dict[int, int] = {}  # how many associations name it
        self._over: dict[int, Past] = {}  # its flowDeleteFn has returned
        self._refused: dict[int, Refused] = {}  # Associate answered STATUS_OBJECT_NAME_EXISTS
        self._deleting: int | None = None

    def track(self, obj: object) -> int:
        """A new integer for `obj`."""
        handle = self._next_handle()
        self._objects[handle] = obj
        return handle

    def find(self, handle: int) -> Any:
        """The object; KeyError when it was released or never was."""
        if self._over:
            self._check_over(handle, "used")
        return self._objects[handle]

    def release(self, handle: int) -> Any:
        """Forget the integer and return the object; KeyError as for `find`."""
        if self.verifying and handle != self._deleting:
            self._check_over(handle, "released")
            if handle in self._stored:
                self._core.violation("V-31", "a context released while its flow has it")
        self._refused.pop(handle, None)
        return self._objects.pop(handle)

    def _check_over(self, handle: int, what: str) -> None:
        owner = self._over.get(handle)
        if owner is not None:
            text = f"a context {what} after its flowDeleteFn had returned"
            past = PastFlow(owner.number, 0.0, {})
            self._core.violation("V-31", text, entry=owner.entry, filter_id=owner.filter_id, past=past)

    # -- what becomes of contexts ----------------------------------------------------------------------

    def stored(self, handle: int) -> None:
        """It is the context of a flow now."""
        if self.verifying and handle in self._objects:
            self._stored[handle] = self._stored.get(handle, 0) + 1
            self._refused.pop(handle, None)

    def refused(self, handle: int, flow: Flow, entry: CalloutEntry) -> None:
        """CTX-6: the flow had one already, so this one is still its caller's."""
        if self.verifying and handle in self._objects and handle not in self._stored:
            self._refused[handle] = Refused(flow, entry, where_in_callout())

    def deleting(self, handle: int | None) -> int | None:
        """flowDeleteFn runs for it (None: no more), and may release it. Returns for which it ran before."""
        before, self._deleting = self._deleting, handle
        return before

    def deleted(self, handle: int, flow: Flow, entry: CalloutEntry) -> None:
        """flowDeleteFn has returned."""
        left = self._stored.pop(handle, 0) - 1
        if left > 0:
            self._stored[handle] = left
        elif left == 0:
            if len(self._over) >= REMEMBERED:
                self._over.pop(next(iter(self._over)))
            self._over[handle] = Past(flow.number, flow.filter_of(entry.callout_id), entry)

    def flow_over(self, flow: Flow) -> None:
        """A while after the flow's end nobody can be about to free what it did not take (V-41, VRF-2)."""
        if self._refused and any(owner.flow is flow for owner in self._refused.values()):
            core = self._core
            core.at(core.clock() + core.options.verify.grace, lambda: self.report_refused(flow))

    def report_refused(self, flow: Flow | None = None) -> None:
        """V-41 for what a flow refused, or for all of it."""
        for handle, owner in list(self._refused.items()):
            if flow is None or owner.flow is flow:
                del self._refused[handle]
                text = "a context that was not stored, STATUS_OBJECT_NAME_EXISTS, was never freed"
                self._core.violation("V-41", text, flow=owner.flow, entry=owner.entry, where=owner.where)
