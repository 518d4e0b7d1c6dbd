"""The base filtering engine: opens sessions, removes by force, and ends everything at the engine's stop.

Owns the list of open sessions. Must not know the run time beyond its protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

from wfpstream.fwp import NtStatus
from wfpstream.fwpm._keys import ZERO_KEY
from wfpstream.fwpm._objects import Tables
from wfpstream.fwpm._runtime import RunTime
from wfpstream.fwpm._session import Session
from wfpstream.fwpm._store import Store
from wfpstream.fwpm._templates import SessionRecord
from wfpstream.fwpm._types import DisplayData, SessionFlags

# FMA: 15 s, also where the caller gives 0.
DEFAULT_TXN_WAIT: Final = 15.0
_NO_DISPLAY: Final = DisplayData()


class Management:
    """The base filtering engine of one run time. Belongs to the engine's thread."""

    def __init__(self, run_time: RunTime) -> None:
        self._store = Store(run_time)
        self._sessions: list[Session] = []

    def engine_open(
        self,
        session_flags: int = 0,
        txn_wait_timeout: float = DEFAULT_TXN_WAIT,
        *,
        session_key: UUID = ZERO_KEY,
        display_data: DisplayData = _NO_DISPLAY,
    ) -> tuple[NtStatus, Session | None]:
        """FwpmEngineOpen0: (status, session); no session when refused.

        Args:
            session_flags: SessionFlags; DYNAMIC objects die with the session (OBJ-2).
            txn_wait_timeout: seconds a transaction waits for the write lock; 0 means the default, infinity no
                limit (MGMT-3).
            session_key: names the session in lists; zero: one is generated. STATUS_FWP_ALREADY_EXISTS when an
                open session has it.
            display_data: for people who list sessions; may be empty.
        """
        refused = self._store.run_time.passive_call_refused("FwpmEngineOpen0")
        if refused is not None:
            return self._refused(NtStatus(refused), "IRQ-3")
        if session_flags not in (0, SessionFlags.DYNAMIC):
            return self._refused(NtStatus.STATUS_FWP_INVALID_FLAGS, "OBJ-2")
        key = self._store.key_or_generated(session_key, self._store.next_order())
        if key in self._store.sessions:
            return self._refused(NtStatus.STATUS_FWP_ALREADY_EXISTS, "OBJ-7")
        record = SessionRecord(
            session_key=key,
            display_data=display_data,
            flags=session_flags,
            txn_wait_timeout=txn_wait_timeout or DEFAULT_TXN_WAIT,
        )
        self._store.sessions[key] = record
        session = Session(self._store, record)
        self._sessions = [one for one in self._sessions if one.is_open]
        self._sessions.append(session)
        return NtStatus.STATUS_SUCCESS, session

    def _refused(self, status: NtStatus, rule: str) -> tuple[NtStatus, None]:
        self.refused("FwpmEngineOpen0", status, rule)
        return status, None

    def refused(self, call: str, status: NtStatus, rule: str) -> None:
        """Tell of a call that was not STATUS_SUCCESS, and of the rule that decided it (VRF-6)."""
        self._store.run_time.refused(call, status, rule)

    def when_filters_go(self, fn: Callable[[], None]) -> None:
        """Call `fn` after every commit that deleted filters, and when a retiring one is gone. There is one `fn`."""
        self._store.filters_gone = fn

    def callout_in_use(self, key: UUID) -> bool:
        """Whether some filter, in force or retiring, names this callout object (OBJ-5). Asking is no refusal."""
        entry = self._store.committed.callouts.get(key)
        return entry is not None and self._store.committed.in_use(entry)

    def wish_filter_ids(self, ids: Mapping[UUID, int]) -> None:
        """Let filters that will be added get these ids, by key: those they have in another engine with the same policy.

        It takes the place of earlier wishes. An id that was given already is not given again: that filter gets another.
        """
        self._store.wished_filter_ids = dict(ids)

    def force_delete(self, filter_id: int) -> NtStatus:
        """Deletes a filter even while busy (MGMT-13): held data is released as permitted, V-38 reported."""
        entry = self._store.committed.filter_by_id(filter_id)
        if entry is None:
            return NtStatus.STATUS_FWP_FILTER_NOT_FOUND
        self._store.remove_by_force([entry], lambda tables: tables.discard_filter(entry))
        return NtStatus.STATUS_SUCCESS

    def stop(self) -> None:
        """Engine stop: every session ends, and with them all that is not built in (OBJ-3).

        Calls on the old sessions return STATUS_FWP_SESSION_ABORTED; new ones may be opened.
        """
        sessions, self._sessions = self._sessions, []
        for session in sessions:
            if session.is_open:
                session.end(NtStatus.STATUS_FWP_SESSION_ABORTED)
        self._store.remove_by_force(self._store.committed.all_filters(), Tables.discard_all)
