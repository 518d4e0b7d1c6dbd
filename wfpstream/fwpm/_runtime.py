"""What management needs of the run time: a protocol, so that neither side imports the other's machinery.

Owns the border only. The run time implements it; tests bring a small one of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from wfpstream.fwp import NtStatus
from wfpstream.fwps._filter import Filter2
from wfpstream.fwps._filter_set import FilterSet


class Timer(Protocol):
    """A pending call of `RunTime.at`."""

    def cancel(self) -> object:
        """The call is not made any more; without effect when it was."""


class RunTime(Protocol):
    """The run time as management sees it."""

    @property
    def profile(self) -> str:
        """OS profile, one of `fwp.PROFILES` (OBJ-15)."""

    def callout_id_for(self, key: UUID) -> int:
        """The run-time id registration and addition share; assigned on first use (OBJ-8, OBJ-9)."""

    def callout_registered(self, key: UUID) -> bool:
        """Whether code is registered under this key (REG-5)."""

    def callout_key_of(self, callout_id: int) -> UUID | None:
        """The key a run-time id was assigned to."""

    def notify(self, key: UUID, notify_type: int, filter_key: UUID | None, filter: Filter2) -> int:
        """Calls notifyFn if registered; its NTSTATUS, SUCCESS without one (NTF-1). Never raises."""

    def commit_add_notify(self, key: UUID) -> bool:
        """The callout is registered with ENABLE_COMMIT_ADD_NOTIFY (NTF-6)."""

    def filter_busy(self, filter_id: int) -> bool:
        """A flow's stage of this filter works out of band, waits for data or defers (MGMT-13, MGMT-14)."""

    def install(self, filter_set: FilterSet) -> None:
        """Puts the set in force at each flow's next byte boundary (MGMT-11)."""

    def retire(self, filter: Filter2, gone: Callable[[], None]) -> bool:
        """A filter that `install` took out of force drains (MGMT-16). True: no flow had a stage of it.

        Otherwise `gone` is called, outside of callbacks, when the last stage has finished.
        """

    def end_retiring(self, filter_id: int) -> object:
        """Ends what is left of a retiring filter by force; its `gone` is not called (MGMT-13)."""

    def passive_call_refused(self, call: str) -> int | None:
        """The NTSTATUS a PASSIVE-only call must return where it is made now; None: go on (IRQ-3)."""

    def report(self, rule: str, text: str, filter_id: int = 0) -> None:
        """Reports a verifier rule ("V-38") with one line for people, and the filter whose callout is meant."""

    def refused(self, call: str, status: NtStatus, rule: str) -> object:
        """Tells of a call that was not STATUS_SUCCESS, and of the rule that decided it (VRF-6)."""

    def now(self) -> float:
        """Engine seconds."""

    def at(self, when: float, fn: Callable[[], None]) -> Timer:
        """Calls `fn` at that engine time."""
