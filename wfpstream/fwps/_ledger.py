"""The byte ledger: every byte of every direction is somewhere (LED-1..LED-5).

Owns the equations. Counting happens where bytes move (`_lane`, `_output`); here the counts are held against
what really lies in the queues. It must not change anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._flow import Flow


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
            arriving = stage.out + stage.bypassed
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


def ledger_of(flow: Flow, direction: int) -> DirectionLedger:
    """Take the ledger of one direction, reading what the queues really hold."""
    stages = []
    blocked_original = blocked_injected = injected = held = queued = discarded = 0
    for lane in flow.lanes[direction]:
        lane_held, lane_stored = lane.held, lane.stored
        stage = StageLedger(
            filter_id=lane.stage.filter.filter_id,
            in_=lane.in_o + lane.in_i,
            permitted=lane.permitted_o + lane.permitted_i,
            blocked=lane.blocked_o + lane.blocked_i,
            held=lane_held,
            discarded=lane.discarded_o + lane.discarded_i,
            injected=lane.injected,
            bypassed=lane.bypassed_o + lane.bypassed_i,
            queued=lane_stored - lane_held,
            discarded_between=lane.unseen_discarded_o + lane.unseen_discarded_i,
            blocked_original=lane.blocked_o,
        )
        stages.append(stage)
        blocked_original += lane.blocked_o
        blocked_injected += lane.blocked_i
        injected += lane.injected
        held += lane_held
        queued += lane_stored - lane_held
        discarded += stage.discarded + stage.discarded_between
    out = flow.out[direction]
    return DirectionLedger(
        read=flow.read[direction],
        written=out.written_o + out.written_i,
        unsent=out.length,
        discarded_out=out.discarded_o + out.discarded_i,
        blocked_original=blocked_original,
        blocked_injected=blocked_injected,
        injected=injected,
        held=held,
        queued=queued,
        discarded=discarded + flow.discarded_unread[direction],
        stages=tuple(stages),
        discarded_unread=flow.discarded_unread[direction],
    )
