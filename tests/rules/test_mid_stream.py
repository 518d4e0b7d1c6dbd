"""Stages and filters that come and go under a running flow (MID-*, MGMT-11).

Owns when such a stage begins and what it is told. It must not know how a pipeline is rebuilt.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.support import (
    DEF,
    NMD,
    RECEIVE_PUSH,
    B,
    Bench,
    C,
    Call,
    Script,
    clone,
)
from tests.scenarios.support_api import (
    ManagedBench,
    Plane,
    Witness,
    events,
    key,
)
from wfpstream.fwp import CalloutFlags, NtStatus

SUCCESS = NtStatus.STATUS_SUCCESS
MID_STREAM = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)


# --- mid-stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, MID_STREAM])
def test_mid_1_only_with_the_flag_and_otherwise_skipped_for_good(flags: int) -> None:
    """MID-1: filter committed after the flow was established; new flows see it in any case."""
    a = Script(flags=flags)
    with Bench() as bench:
        a.transcript = bench.transcript
        bench.driver.add(a)
        bench.send(b"x")
        bench.receive(b"y")
        assert bench.log == (["A(S1 'x')", "A(R1 'y')"] if flags else [])
        assert bench.to_remote == (b"x", False)
        assert bench.to_local == (b"y", False)
        other = bench.connect()
        other.send(b"z")
        assert bench.log[-1] == "A(S1 'z')"
        assert bytes(other.remote.data) == b"z"


def test_mid_2_begins_at_the_next_item_without_missed_bytes() -> None:
    """MID-2: the remainder and what is held above does not concern it; missedBytes 0, MET-4's flag set."""
    a, late = Script(B(3), C(1), C(0)), Witness(name="L", flags=MID_STREAM)
    with Bench(a) as bench:
        late.transcript = bench.transcript
        bench.send(b"abcdef")
        assert bench.calls == ["A(S6 'abcdef')", "A(S3 'def')", "A(S2 'ef')"]
        bench.driver.add(late)
        bench.send(b"g", b"h")
        assert bench.calls_of("L") == ["L(S1 'g')", "L(S1 'h')"]
        assert late.mid_stream == [True, True]
        assert bench.to_remote == (b"defgh", False)


def test_mid_3_a_context_associated_later_is_not_mid_stream() -> None:
    """MID-3: the filter existed at establishment: no flag needed, MET-4's bit clear."""
    a = Witness(flags=int(CalloutFlags.CONDITIONAL_ON_FLOW))
    with Bench(a) as bench:
        bench.send(b"before")
        assert bench.log == []
        assert a.associate(3) == SUCCESS
        bench.send(b"after")
        assert bench.log == ["A(S5 'after')"]
        assert a.mid_stream == [False]
        assert bench.to_remote == (b"beforeafter", False)


@pytest.mark.parametrize("busy", ["need more data", "deferred", "out of band"])
def test_mid_4_a_filter_is_not_deleted_while_its_callout_is_busy(busy: str) -> None:
    """MID-4, MGMT-13: STATUS_FWP_IN_USE and V-38; idle again it can be deleted."""
    answer = {"need more data": NMD(4), "deferred": DEF(), "out of band": B(0, clone)}[busy]
    a = Script(answer)
    with Bench(a, violations=["V-38"]) as bench:
        session, filter_id = bench.driver.session, bench.added[0].filter_ids[0]
        bench.receive(b"ab")
        assert session.filter_delete_by_id(filter_id) == NtStatus.STATUS_FWP_IN_USE
        if busy == "need more data":
            bench.receive(b"cd")
        elif busy == "deferred":
            assert a.resume(RECEIVE_PUSH) == SUCCESS
        else:
            assert a.inject_pended() == SUCCESS
        bench.settle()
        assert session.filter_delete_by_id(filter_id) == SUCCESS
        calls = len(bench.log)
        bench.receive(b"!")
        assert len(bench.log) == calls
        assert bench.to_local == (b"abcd!" if busy == "need more data" else b"ab!", False)
        bench.added[0].filter_ids.pop(0)


# --- changes to running flows ---------------------------------------------------------------------


def test_mgmt_11_a_filter_takes_effect_at_a_byte_boundary() -> None:
    """MGMT-11: added inside a classify's remainder sequence it waits for the end of the sequence."""
    bench_of: list[Bench] = []
    added: list[NtStatus] = []
    late = Witness(name="L", flags=MID_STREAM)

    def add_late() -> None:
        bench_of[0].driver.engine.add_callout(late)

    class Adds(Script):
        """Asks for a filter change while it decides byte by byte (from a timer, as a worker would)."""

        def decide(self, call: Call) -> Any:
            if not added:
                added.append(SUCCESS)
                self.after(0.0, add_late)
            return C(1)

    with Bench(Adds()) as bench:
        bench_of.append(bench)
        late.transcript = bench.transcript
        bench.send(b"abc")
        assert bench.calls == ["A(S3 'abc')", "A(S2 'bc')", "A(S1 'c')"]
        bench.send(b"d")
        assert bench.calls[3:] == ["A(S1 'd')", "L(S1 'd')"]
        assert bench.to_remote == (b"abcd", False)


def test_mgmt_11_only_after_the_commit() -> None:
    """MGMT-11: an open transaction does not concern a running flow."""
    a = Script(then=B(0), flags=MID_STREAM)

    def add(plane: Plane) -> None:
        plane.register(a)

    with ManagedBench(a, add=add) as bench:
        session = bench.plane.session
        assert session.transaction_begin() == SUCCESS
        assert bench.plane.own_sub_layer(a)[0] == SUCCESS
        bench.send(b"a")
        assert session.transaction_commit() == SUCCESS
        bench.send(b"b")
        assert session.filter_delete_by_key(key("filter A")) == SUCCESS
        bench.send(b"c")
        assert bench.log == ["A(S1 'b')"]
        assert bench.to_remote == (b"ac", False)
        assert events(bench.driver, "ledger_fault") == []
