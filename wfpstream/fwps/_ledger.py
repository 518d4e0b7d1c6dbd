"""The byte ledger: every byte of every direction is somewhere (LED-1..LED-5).

Owns the equations. Counting happens where bytes move (`_flow`'s lanes, `_output`); `_bookkeeping` takes the counts
together with what really lies in the queues. It must not change anything.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageLedger:
    """LED-1 and the stage's side of LED-2, in bytes; original and injected bytes together."""

    filter_id: int
    in_: int
    permitted: int
    blocked: int
    held: int
    discarded: int
    injected: int
    bypassed: int
    queued: int
    discarded_between: int
    blocked_original: int
    in_transit: int = 0

    @property
    def out(self) -> int:
        """Bytes that left the stage (LED-1)."""
        return self.permitted + self.injected


@dataclass(frozen=True)
class DirectionLedger:
    """LED-3 and LED-4 for one direction, in bytes."""

    read: int
    written: int
    unsent: int
    discarded_out: int
    blocked_original: int
    blocked_injected: int
    injected: int
    held: int
    queued: int
    discarded: int
    stages: tuple[StageLedger, ...]
    discarded_unread: int = 0

    @property
    def balance(self) -> int:
        """0 when LED-4 closes."""
        entered = self.read - self.blocked_original + self.injected - self.blocked_injected
        return (
            entered
            - self.held
            - self.queued
            - self.discarded
            - self.written
            - self.unsent
            - self.discarded_out
        )

    def faults(self) -> list[str]:
        """Every equation that does not close, as one line each; empty for a sound ledger (LED-5)."""
        lines = []
        arriving = self.read - self.discarded_unread
        for number, stage in enumerate(self.stages):
            if stage.in_ != stage.permitted + stage.blocked + stage.held + stage.discarded:
                lines.append(f"LED-1 stage {number}: {stage}")
            if arriving != stage.in_ + stage.bypassed + stage.queued + stage.discarded_between:
                lines.append(f"LED-2 before stage {number}: {arriving} arrived, {stage}")
            arriving = stage.out + stage.bypassed - stage.in_transit
        if arriving != self.written + self.unsent + self.discarded_out:
            lines.append(
                f"LED-3: {arriving} left the stages, {self.written}+{self.unsent}+{self.discarded_out}"
            )
        if self.balance:
            lines.append(f"LED-4: off by {self.balance}")
        return lines

    def summary(self) -> dict[str, int]:
        """LED-4 as an event carries it."""
        return {
            "read": self.read,
            "blocked_original": self.blocked_original,
            "injected": self.injected,
            "blocked_injected": self.blocked_injected,
            "held": self.held,
            "queued": self.queued,
            "discarded": self.discarded,
            "written": self.written,
            "unsent": self.unsent,
            "discarded_out": self.discarded_out,
        }
