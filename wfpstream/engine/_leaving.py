"""Callouts on their way out: unregistered as soon as no filter names them any more.

Owns the waiting for retiring filters (MGMT-16) and the order of leaving (UNR-8). It must not know why a callout goes.
"""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from wfpstream.fwp import NtStatus
from wfpstream.fwpm import Management, Session
from wfpstream.fwps import Callout, RunTime

# How soon to look again at a callout that pends a connection (LAY-30), or while another session has the write lock:
# nothing tells when that ends.
LOOK_AGAIN = 0.25


_GONE = (NtStatus.STATUS_SUCCESS, NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND)


class Engine(Protocol):
    """What is needed of the engine: management, and a session of its own."""

    @property
    def management(self) -> Management: ...
    @property
    def session(self) -> Session: ...


class Leaving:
    """The comfortable callouts of one engine that are to go."""

    def __init__(self, engine: Engine, run_time: RunTime) -> None:
        self._engine = engine
        self._run_time = run_time
        # And the keys it was unregistered from so far.
        self._waiting: dict[Callout, list[UUID]] = {}
        self._looks_again = False

    def add(self, callout: Callout) -> bool:
        """Let this callout go as soon as possible. True: it is gone."""
        self._waiting.setdefault(callout, [])
        self.look()
        return callout not in self._waiting

    def look(self) -> None:
        """Let go whoever can."""
        for callout in list(self._waiting):
            if self._is_gone(callout):
                self._run_time.forget_callout(callout, self._waiting.pop(callout))

    def _is_gone(self, callout: Callout) -> bool:
        for _, key, callout_id in self._run_time.layers_of(callout):
            if self._engine.management.callout_in_use(key):
                return False  # a retiring filter names it; we hear of its end
            if self._engine.session.callout_delete_by_key(key) not in _GONE:
                self._look_later()  # somebody has a transaction open
                return False
            if not self._unregister(key, callout_id):
                return False
            self._waiting[callout].append(key)
        # Of one that was never registered here it may be another engine's.
        if callout.injection_handle and callout.fwps is self._run_time:
            # It closes with its last completion.
            self._run_time.injection_handle_destroy(callout.injection_handle)
            callout.injection_handle = 0
        return True

    def _unregister(self, key: UUID, callout_id: int) -> bool:
        if self._run_time.pends_connections(key):
            self._look_later()
            return False
        self._run_time.contexts.remove_all_of(callout_id)  # UNR-2
        if self._run_time.callout_unregister_by_key(key).ok:
            return True
        self._look_later()
        return False

    def _look_later(self) -> None:
        if not self._looks_again:
            self._looks_again = True
            self._run_time.after(LOOK_AGAIN, self._look_now)

    def _look_now(self) -> None:
        self._looks_again = False
        self.look()
