"""Stores and the limits over them (IND-24, IND-25): what stops the reading, and what lets it go on.

Owns `per_flow` and `total`, the limits that sum several stores. Limits of one store are with the indications.
"""

from __future__ import annotations

from tests.rules.test_policies import Gathering
from tests.scenarios.support import NMD, B, Bench, P, Script, clone
from wfpstream.engine import EngineOptions
from wfpstream.testing import MemoryDriver


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
