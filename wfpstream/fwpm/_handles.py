"""Handles of enumerations and subscriptions: plain integers, one row for all sessions, never given twice.

Owns whose handle a number is. Must not know what a handle stands for.
"""

from __future__ import annotations

from itertools import count
from typing import TypeVar

from wfpstream.fwp import FwpError, NtStatus

T = TypeVar("T")


class Handles:
    """What sessions hold open, by handle."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._held: dict[int, tuple[object, object]] = {}

    def open(self, session: object, thing: object) -> int:
        """A new handle of `session` for `thing`."""
        handle = next(self._numbers)
        self._held[handle] = (session, thing)
        return handle

    def find(self, session: object, handle: int, kind: type[T]) -> T:
        """What the handle stands for.

        Raises FwpError: STATUS_FWP_WRONG_SESSION for the handle of another session, STATUS_INVALID_HANDLE for
        one that is closed, was never given, or stands for something other than a `kind`.
        """
        owner, thing = self._held.get(handle, (None, None))
        if not isinstance(thing, kind):
            raise FwpError(NtStatus.STATUS_INVALID_HANDLE, f"handle {handle}")
        if owner is not session:
            raise FwpError(NtStatus.STATUS_FWP_WRONG_SESSION, f"handle {handle}")
        return thing

    def close(self, handle: int) -> None:
        del self._held[handle]

    def of(self, session: object, kind: type[T]) -> list[T]:
        """What the session holds of that kind, in the order of opening."""
        return [thing for owner, thing in self._held.values() if owner is session and isinstance(thing, kind)]

    def all_of(self, kind: type[T]) -> list[T]:
        """What all sessions hold of that kind, in the order of opening."""
        return [thing for _, thing in self._held.values() if isinstance(thing, kind)]

    def close_all(self, session: object) -> None:
        """The session has ended."""
        for handle in [one for one, (owner, _) in self._held.items() if owner is session]:
            del self._held[handle]
