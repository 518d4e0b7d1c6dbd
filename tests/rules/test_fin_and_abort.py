"""The ends of a direction as indications (IND-13 to IND-20): FIN, ABORT, and what may still come.

Owns what a callout is shown of an end and what its answer does to it. Discarding at a reset is the ledger's.
"""

from __future__ import annotations

import pytest

from tests.rules.lists import Lists
from tests.scenarios.support import (
    ALLOW,
    DEF,
    DROP,
    NMD,
    RECEIVE_FIN,
    RECEIVE_PUSH,
    SEND,
    SEND_FIN,
    Answer,
    B,
    Bench,
    C,
    Call,
    P,
    Script,
    inj,
)
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus

SUCCESS = NtStatus.STATUS_SUCCESS
NOT_FOUND = NtStatus.STATUS_FWP_NOT_FOUND


@pytest.mark.parametrize("inbound", [False, True])
def test_ind_13_fin_is_an_indication_of_its_own(inbound: bool) -> None:
    """IND-13: data of the same read comes before it without DISCONNECT; the FIN is empty with NO_MORE_DATA."""
    a = Lists()
    side, data_flags, fin_flags = ("R", RECEIVE_PUSH, RECEIVE_FIN) if inbound else ("S", SEND, SEND_FIN)
    with Bench(a) as bench:
        (bench.flow.receive if inbound else bench.flow.send)(b"ab", fin=True)
        bench.settle()
        assert bench.log == [f"A({side}2 'ab')", f"A({side} FIN +N)"]
        assert a.flags_seen == [data_flags, fin_flags]
        assert (bench.to_local if inbound else bench.to_remote) == (b"ab", True)


def test_ind_13_fin_with_data() -> None:
    """IND-13: `fin_with_data` puts DISCONNECT on the last data indication instead."""
    a = Lists()
    with Bench(a, options=EngineOptions(fin_with_data=True)) as bench:
        bench.flow.send(b"ab", fin=True)
        bench.settle()
        assert bench.log == ["A(S2 FIN 'ab' +N)"]
        assert a.flags_seen == [SEND_FIN]
        assert bench.to_remote == (b"ab", True)


@pytest.mark.parametrize(("answer", "passed"), [(P(0), True), (C(0), True), (B(0), False)])
@pytest.mark.parametrize("inbound", [False, True])
def test_ind_14_permit_passes_the_fin_and_block_pends_it(answer: Answer, passed: bool, inbound: bool) -> None:
    """IND-14: withheld until the callout injects a DISCONNECT in that direction."""
    a = Script(answer)
    with Bench(a) as bench:
        bench.receive_fin() if inbound else bench.send_fin()
        arrived = bench.flow.local if inbound else bench.flow.remote
        assert arrived.fin == passed
        if not passed:
            bench.driver.advance(3600.0)
            assert arrived.fin is False
            assert a.inject_null_fin(RECEIVE_FIN if inbound else SEND_FIN) == SUCCESS
            bench.settle()
        assert (bench.to_local if inbound else bench.to_remote) == (b"", True)
        assert bench.log == [f"A({'R' if inbound else 'S'} FIN +N)"]


def test_ind_15_held_data_is_shown_before_the_fin() -> None:
    """IND-15: first the held data with NO_MORE_DATA and without DISCONNECT, then the FIN."""
    a = Lists(NMD(9))
    with Bench(a) as bench:
        bench.send(b"abc")
        bench.send_fin()
        assert bench.log == ["A(S3 'abc')", "A(S3 'abc' +N)", "A(S FIN +N)"]
        assert a.flags_seen == [SEND, SEND, SEND_FIN]
        assert bench.to_remote == (b"abc", True)


def test_ind_15_a_deferred_stage_keeps_the_fin_waiting() -> None:
    """IND-15: the FIN waits for FwpsStreamContinue."""
    a = Script(DEF())
    with Bench(a) as bench:
        bench.flow.receive(b"abc", fin=True)
        bench.settle()
        assert bench.log == ["A(R3 'abc')"]
        assert bench.to_local == (b"", False)
        assert a.resume() == SUCCESS
        bench.settle()
        assert bench.log == ["A(R3 'abc')", "A(R3 'abc' +N)", "A(R FIN +N)"]
        assert bench.to_local == (b"abc", True)


@pytest.mark.parametrize(
    ("classified", "context", "told"),
    [(True, 0, True), (False, 9, True), (False, 0, False), (True, 9, True)],
)
@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("who", ["local", "remote"])
def test_ind_16_who_is_told_of_a_reset(
    classified: bool, context: int, told: bool, enabled: bool, who: str
) -> None:
    """IND-16: a stage that was ever classified or has a context, once, in the direction of origin."""
    a = Lists()
    with Bench(a, context=context, options=EngineOptions(indicate_abort=enabled)) as bench:
        if classified:
            bench.send(b"x")
        bench.reset(who)
        expected = ["A(S1 'x')"] if classified else []
        expected += [f"A({'S' if who == 'local' else 'R'} ABORT +N)"] if told and enabled else []
        expected += ["flowDelete(A)"] if context else []
        assert bench.log == expected
        if told and enabled:
            assert a.lists[-1] == [b""]  # one empty NBL
        assert bench.to_remote == (b"x" if classified else b"", False)
        assert bench.resets == (True, True)


@pytest.mark.parametrize("answer", [P(0), B(0), C(0), DROP(), ALLOW()])
def test_ind_17_an_abort_indication_is_informational(answer: Answer) -> None:
    """IND-17: every returned action is ignored, the reset propagates."""
    a = Script(P(0), answer)
    with Bench(a, context=3) as bench:
        bench.send(b"x")
        bench.reset("remote")
        assert bench.log == ["A(S1 'x')", "A(R ABORT +N)", "flowDelete(A)"]
        assert bench.resets == (True, True)
        assert bench.flow.ended
        assert bench.to_remote == (b"x", False)


def test_ind_17_no_injection_from_the_abort_on() -> None:
    """IND-17: none is accepted for the flow; from inside the ABORT's own classify it is V-37 as well."""
    statuses: list[NtStatus] = []

    def try_it(call: Call) -> None:
        statuses.append(call.owner.inject_bytes(SEND, b"late"))
        statuses.append(call.owner.inject_bytes(RECEIVE_PUSH, b"late"))

    a = Script(P(0), P(0, try_it))
    with Bench(a, violations=["V-37", "V-37"]) as bench:
        bench.send(b"x")
        bench.reset("remote")
        assert statuses == [NOT_FOUND, NOT_FOUND]
        assert a.inject_bytes(SEND, b"later") == NOT_FOUND
        assert bench.to_remote == (b"x", False)
        assert bench.to_local == (b"", False)


@pytest.mark.parametrize("first", ["local", "remote"])
def test_ind_19_data_flows_on_after_a_half_close(first: str) -> None:
    """IND-19: data of one direction may still flow after FIN in the other."""
    a = Script()
    with Bench(a) as bench:
        if first == "local":
            bench.send_fin()
            bench.receive(b"late", b"later")
            bench.receive_fin()
            assert bench.log == ["A(S FIN +N)", "A(R4 'late')", "A(R5 'later')", "A(R FIN +N)"]
            assert bench.to_local == (b"latelater", True)
            assert bench.to_remote == (b"", True)
        else:
            bench.receive_fin()
            bench.send(b"late", b"later")
            bench.send_fin()
            assert bench.log == ["A(R FIN +N)", "A(S4 'late')", "A(S5 'later')", "A(S FIN +N)"]
            assert bench.to_remote == (b"latelater", True)
            assert bench.to_local == (b"", True)


def test_ind_20_nothing_follows_the_fin_of_its_direction() -> None:
    """IND-20: except what a higher stage injects before the FIN marker."""
    a, b = Script(P(0, inj(b"trailer"))), Script(name="B")
    with Bench(a, b) as bench:
        bench.send_fin()
        assert bench.calls == ["A(S FIN +N)", "B(S7 'trailer')", "B(S FIN +N)"]
        assert a.inject_bytes(SEND, b"late") == NtStatus.STATUS_CONNECTION_DISCONNECTED
        assert bench.completions == ["cmp('trailer', SUCCESS)"]
        assert bench.to_remote == (b"trailer", True)
