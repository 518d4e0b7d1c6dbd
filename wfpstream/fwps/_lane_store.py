"""What one direction of a stage holds, and what went through it in numbers.

Owns the state of a lane that needs no stage beside it: its queues, its mode and the counts of LED-1 and LED-2. It
must not know where the lane stands (`_flow` does), nor decide anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from ._run import NO_RUNS, InjectedBuffer, Run, SharedQueue
from ._stream_state import IDLE

_NO_BUFFERS: Final[deque[InjectedBuffer]] = SharedQueue()


class LaneStore:
    """The state of one stage in one direction. Everything counted is in bytes.

    The pairs `*_o`, `*_i` count original and injected bytes apart (LED-1).
    """

    __slots__ = (
        "asked_again",
        "blocked_i",
        "blocked_o",
        "bypassed_i",
        "bypassed_o",
        "bytes",
        "carry",
        "classified",
        "closed",
        "continued",
        "deferred_flags",
        "discarded_i",
        "discarded_o",
        "fin_pended",
        "fin_pended_at",
        "fin_queued",
        "frame",
        "fresh",
        "held_since",
        "in_i",
        "in_o",
        "injected",
        "last_blocked",
        "let_go",
        "limit_shown",
        "missed",
        "mode",
        "newest_injected",
        "oob_ever",
        "outbox",
        "pended_buffers",
        "pended_bytes",
        "permitted_i",
        "permitted_o",
        "queue",
        "remainder",
        "required",
        "uncompensated",
        "under_way",
        "unseen_discarded_i",
        "unseen_discarded_o",
        "urgent_queued",
        "visible",
    )

    def __init__(self) -> None:
        self.queue = NO_RUNS
        self.outbox = NO_RUNS  # left this stage, goes to the stages below item by item (NMD-9, INJ-5)
        self.visible = 0  # bytes in the queue that this stage may see, urgent ones apart
        self.bytes = 0  # everything in the queue, bypassing bytes included
        self.fresh = 0  # runs put in since borrowed bytes were last copied
        self.urgent_queued = 0
        self.fin_queued = False
        self.mode = IDLE
        self.required = 0
        self.remainder = 0  # bytes that the next indication must show exactly (IND-11)
        self.limit_shown = False
        self.continued = False
        self.deferred_flags = 0
        self.asked_again = 0
        self.carry = 0  # original bytes removed here since the last run that left (ARB-11)
        self.missed = 0
        self.closed = False
        self.let_go = False  # the stage is retiring and has nothing left to do here (MGMT-16)
        self.fin_pended = False
        self.fin_pended_at = 0.0
        self.held_since = 0.0
        self.classified = False
        self.frame: Any = None  # the classifier's, of this lane's classifies: they never nest (IND-10)
        self.last_blocked: bool | None = None
        self.oob_ever = False
        self.uncompensated = False  # blocked, nothing kept and nothing injected since (V-20)
        self.newest_injected = 0  # serial of the newest clone that came back (V-53)
        self.pended_buffers = 0
        self.pended_bytes = 0
        self.under_way = _NO_BUFFERS  # injections, oldest first; see `Lane.outstanding`
        self.in_o = self.in_i = 0
        self.permitted_o = self.permitted_i = 0
        self.blocked_o = self.blocked_i = 0
        self.discarded_o = self.discarded_i = 0
        self.unseen_discarded_o = self.unseen_discarded_i = 0
        self.bypassed_o = self.bypassed_i = 0
        self.injected = 0

    def queue_up(self, run: Run) -> None:
        """Put a run at the tail, without any bookkeeping."""
        if self.queue is NO_RUNS:
            self.queue = deque()
        self.queue.append(run)

    def expect(self, buffers: Iterable[InjectedBuffer]) -> None:
        """Injections of this stage are under way; they complete in this order (CMP-6)."""
        if self.under_way is _NO_BUFFERS:
            self.under_way = deque()
        self.under_way.extend(buffers)

    def rest(self) -> None:
        """Nothing is queued or on its way: give the room for it back."""
        if not self.queue and not self.outbox:
            self.queue = self.outbox = NO_RUNS
        if not self.under_way:
            self.under_way = _NO_BUFFERS

    def mark_seen(self, run: Run) -> None:
        """The stage is shown this run for the first time: LED-1 `in`, and what was lost before it (ARB-11)."""
        if run.seen:
            return
        run.seen = True
        self.missed += run.missed
        if run.owner is None:
            self.in_o += run.length
        else:
            self.in_i += run.length

    def show(self, run: Run) -> None:
        """`run` leads an indication: what was lost right before it precedes all that leaves from now on (INL-2)."""
        self.mark_seen(run)
        self.carry += run.missed
        run.missed = 0

    def count_bypass(self, run: Run) -> None:
        """LED-2: these bytes go past this stage."""
        if run.owner is None:
            self.bypassed_o += run.length
        else:
            self.bypassed_i += run.length

    def count_permitted(self, run: Run) -> None:
        if run.owner is None:
            self.permitted_o += run.length
        else:
            self.permitted_i += run.length

    def count_blocked(self, run: Run) -> None:
        if run.owner is None:
            self.blocked_o += run.length
        else:
            self.blocked_i += run.length

    def count_discarded(self, run: Run) -> None:
        """LED-1 `discarded` for bytes this stage was shown, LED-2 `discarded_between` for the others."""
        original = run.owner is None
        if run.seen:
            self.discarded_o += run.length if original else 0
            self.discarded_i += 0 if original else run.length
        else:
            self.unseen_discarded_o += run.length if original else 0
            self.unseen_discarded_i += 0 if original else run.length

    def keep(self) -> None:
        """Copy what lies in the driver's buffer: only runs put in since the last time can (linear in them)."""
        for run in islice(reversed(self.queue), self.fresh):
            run.keep()
        self.fresh = 0
        for run in self.outbox:
            run.keep()

    @property
    def is_empty(self) -> bool:
        """Nothing is held, queued or on its way to the stages below."""
        return not self.queue and not self.outbox and self.mode == IDLE

    @property
    def stored(self) -> int:
        """Bytes in the queue, held ones included, counted run by run for the ledger (IND-25)."""
        return sum(run.length for run in self.queue)
