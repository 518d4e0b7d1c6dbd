"""Stores and the limits over them (IND-23, IND-24, IND-25): what stops the reading, and what lets it go on.

Owns back-pressure and memory as tests see them: what was read, and what the sender could not get rid of.
"""

from __future__ import annotations

import pytest

from tests.rules.test_policies import Gathering
from tests.scenarios.support import DEF, NMD, Answer, B, Bench, C, P, Script, clone
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus
from wfpstream.testing import MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS


def test_ind_25_a_clone_of_permitted_bytes_counts_twice() -> None:
    """IND-25: bytes cloned and permitted exist twice: written here, and still the callout's own."""
    options = EngineOptions()
    options.limits.per_flow = 40
    a = Script(then=P(0, clone))
    with Bench(a, options=options) as bench:
        bench.send(b"0" * 10, b"1" * 10, b"2" * 10)
        assert bench.flow.ledger(0).held == 0
        assert bench.flow.pending_input(0) == 10  # 20 cloned bytes are half of per_flow
        a.discard_pended()
        a.discard_pended()
        bench.settle()
        assert bench.flow.pending_input(0) == 0
        a.discard_pended()
        assert bench.to_remote == (b"0" * 10 + b"1" * 10 + b"2" * 10, False)


def test_ind_24_room_made_by_another_flow() -> None:
    """IND-24: a flow that `total` stopped reads on when another flow gives its memory back."""
    options = EngineOptions()
    options.limits.total = 40
    a = Script(B(0, clone), NMD(10), P(0))
    with Bench(a, options=options) as bench:
        first, second = bench.flow, bench.connect()
        first.send(b"0" * 19)
        second.send(b"12345")
        second.send(b"67890")
        assert second.pending_input(0) == 5
        a.discard_pended()
        bench.settle()
        assert second.pending_input(0) == 0
        assert bench.calls == [f"A(S19 '{'0' * 19}')", "A(S5 '12345')", "A(S10 '1234567890')"]
        assert second.remote.data == b"1234567890"


def test_ind_24_the_policy_for_taken_bytes_waits_for_nothing() -> None:
    """IND-24: `taken` reached: `on_limit` applies then, not only when more input happens to come."""
    options = EngineOptions()
    options.limits.taken = 10
    options.policy.on_limit = "permit"
    with MemoryDriver(options) as driver:
        driver.add(Gathering())
        flow = driver.connect()
        assert flow is not None
        for _ in range(3):
            flow.send(b"0123")
        driver.advance(1.0)
        assert flow.remote.data == b"012301230123"
        assert driver.engine.counters == {"policy.on_limit.permit": 1}


def test_ind_23_a_slow_receiver_stops_the_reading_and_callouts_are_not_told() -> None:
    """IND-23: the engine stops reading the incoming leg; the other direction goes on."""
    options = EngineOptions()
    options.limits.unsent = 100
    a = Script()
    with Bench(a, options=options) as bench:
        bench.flow.remote.window = 0
        for _ in range(10):
            bench.send(b"0123456789")
        assert bench.flow.pending_input(0) == 50  # half the limit is reached with 50 bytes
        assert len(bench.log) == 5
        bench.receive(b"x")
        assert bench.to_local == (b"x", False)
        bench.flow.remote.window = None
        bench.settle()
        assert bench.flow.pending_input(0) == 0
        assert bench.log == ["A(S10 '0123456789')"] * 5 + ["A(R1 'x')"] + ["A(S10 '0123456789')"] * 5
        assert bench.to_remote == (b"0123456789" * 10, False)


def test_ind_24_stop_at_half_the_limit_resume_at_a_quarter() -> None:
    """IND-24: hysteresis, with the waiting pended bytes as an example; never a loss."""
    options = EngineOptions()
    options.limits.pended = 40
    a = Script(then=B(0, clone))
    with Bench(a, options=options) as bench:
        bench.send(*(b"0123456789" for _ in range(4)))
        assert (bench.flow.ledger(0).read, bench.flow.pending_input(0)) == (20, 20)
        assert a.inject_pended() == SUCCESS
        bench.settle()
        # 10 of 40 bytes are a quarter: two more were read.
        assert bench.flow.ledger(0).read > 20
        while a.pended:
            assert a.inject_pended() == SUCCESS
            bench.settle()
        assert bench.flow.pending_input(0) == 0
        assert len(bench.completions) == 4
        assert bench.to_remote == (b"0123456789" * 4, False)
        assert bench.driver.engine.counters["paused"] >= 1


def test_ind_25_an_accepted_injection_moves_bytes_out_of_the_callouts_store() -> None:
    """IND-25: from `pended` to `unsent`: reading goes on although nothing was completed."""
    options = EngineOptions()
    options.limits.pended = 40
    a = Script(then=B(0, clone))
    with Bench(a, options=options) as bench:
        bench.flow.remote.window = 0
        bench.send(b"0" * 30, b"1" * 30)
        assert bench.flow.pending_input(0) == 30
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.flow.pending_input(0) == 0
        assert bench.flow.ledger(0).unsent == 30
        assert bench.completions == []
        assert a.inject_pended() == SUCCESS
        bench.flow.remote.window = None
        bench.settle()
        assert bench.completions == [f"cmp('{'0' * 30}', SUCCESS)", f"cmp('{'1' * 30}', SUCCESS)"]
        assert bench.to_remote == (b"0" * 30 + b"1" * 30, False)


@pytest.mark.parametrize("answer", [NMD(99), DEF()], ids=["need more data", "deferred"])
def test_ind_25_every_stored_byte_is_in_one_store(answer: Answer) -> None:
    """IND-25: all five bytes lie before the stage; what it was shown is held there, the rest queued."""
    a = Script(answer)
    with Bench(C1(), a) as bench:
        bench.receive(b"abcde")
        ledger = bench.flow.ledger(1)
        assert (ledger.read, ledger.written, ledger.unsent) == (5, 0, 0)
        assert (ledger.stages[1].held, ledger.stages[1].queued) == (3, 2)


class C1(Script):
    """Passes three bytes, then the rest, so that the stage below gets two items of one read."""

    def __init__(self) -> None:
        super().__init__(C(3), C(0), name="T")
