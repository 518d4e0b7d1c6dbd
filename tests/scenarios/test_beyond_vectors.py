"""What the vectors of SC-35, SC-61 and SC-68 cannot say: contents of views, a worker with a mind, stage ledgers.

Owns these three; what their rows say besides is in the vectors.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import (
    DEF,
    NMD,
    Answer,
    B,
    Bench,
    Call,
    P,
    Recording,
    Script,
    bytewise,
    clone,
    inj,
)
from wfpstream.fwp import NtStatus

READ = 65_536
SUCCESS = NtStatus.STATUS_SUCCESS


class UntilLimit(Recording):
    """Asks for any more until the limit is reached, then permits all; notes whether a view continues the last."""

    def __init__(self) -> None:
        super().__init__("A")
        self.before = b""
        self.continued = 0

    def decide(self, call: Call) -> Answer:
        self.continued += call.data.startswith(self.before)
        self.before = call.data
        return P(0) if call.limit_reached else NMD(0)


def test_sc_35_every_view_begins_with_the_one_before() -> None:
    """NMD-2, up to the limit of NMD-6."""
    a = UntilLimit()
    with Bench(a) as bench:
        bench.send(*[bytes([i]) * READ for i in range(128)])
        assert len(bench.calls) == a.continued == 128
        assert len(bench.to_remote[0]) == 128 * READ


class BusyThreshold(Recording):
    """Pends inbound clones for a worker and defers while more than 16 KiB are pended."""

    def __init__(self) -> None:
        super().__init__("A")
        self.decisions = ""
        self.deferred = False
        self.pended_bytes = 0

    def decide(self, call: Call) -> Answer:
        if call.fin:
            self.decisions += "F"
            return B(0, clone)
        if self.pended_bytes > 16_384:
            self.decisions += "D"
            self.deferred = True
            return DEF()
        self.decisions += "B"
        self.pended_bytes += len(call.data)
        return B(0, clone)

    def work(self) -> None:
        """One step of the worker: inject the oldest, continue at 4 KiB."""
        self.pended_bytes -= self.pended[0].length
        assert self.inject_pended() == SUCCESS
        if self.deferred and self.pended_bytes <= 4_096:
            self.deferred = False
            assert self.resume() == SUCCESS


@pytest.mark.parametrize(
    ("stream", "size", "decisions"),
    [
        # 20 KiB fill it; 4 KiB left at each continue make room for four more pieces.
        (bytes(range(256)) * 1024, 4096, "BBBBB" + "DBBBB" * 14 + "DBBB" + "F"),
        (bytes(range(250)) * 70, 1, "B" * 16_385 + "D" + "B" * (17_500 - 16_385) + "F"),
    ],
    ids=["4 KiB", "bytes"],
)
def test_sc_61_everything_there_before_the_worker_begins(stream: bytes, size: int, decisions: str) -> None:
    a = BusyThreshold()
    pieces = bytewise(stream) if size == 1 else [stream[i : i + size] for i in range(0, len(stream), size)]
    with Bench(a) as bench:
        bench.receive(*pieces)
        bench.receive_fin()
        assert a.decisions == decisions[: decisions.index("D") + 1]
        while a.pended:
            a.work()
            bench.settle()
        assert a.decisions == decisions
        assert bench.to_local == (stream, True)
        assert len(bench.completions) == len(pieces) + 1


def test_sc_68_ledger_of_each_stage() -> None:
    a, b = Script(P(0, inj(b"ad"))), Script(B(0), P(0), name="B")
    with Bench(a, b) as bench:
        bench.send(b"x")
        assert bench.to_remote == (b"x", False)
        assert bench.completions == ["cmp('ad', SUCCESS)"]
        at_a, at_b = bench.flow.ledger(0).stages
        assert (at_a.in_, at_a.permitted, at_a.blocked, at_a.injected, at_a.out) == (1, 1, 0, 2, 3)
        assert (at_b.in_, at_b.permitted, at_b.blocked, at_b.injected, at_b.out) == (3, 1, 2, 0, 1)
