"""DROP_CONNECTION, FwpsFlowAbort, resets, BLOCK at FLOW_ESTABLISHED (SC-73..80).

Owns the ends of a flow that are not graceful: who is told, in which order, and what never arrives.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import DROP, NMD, B, Bench, Call, P, Script, inj
from tests.scenarios.support_api import Version0Script, events
from tests.scenarios.support_connections import Gate, LayerCall, block, permit
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus
from wfpstream.testing import MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS
NOT_FOUND = NtStatus.STATUS_FWP_NOT_FOUND


def end_reason(bench: Bench) -> str:
    """The reason of the only `flow_deleted` event."""
    (event,) = events(bench.driver, "flow_deleted")
    return str(event["reason"])


def test_sc_73_drop_resets_both_legs() -> None:
    a = Script(DROP())
    with Bench(a, context=7) as bench:
        bench.send(b"bad")
        assert bench.log == ["A(S3 'bad')", "flowDelete(A)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)
        assert bench.flow.ended
        assert end_reason(bench) == "drop"


def test_sc_73_drop_discards_what_either_direction_holds() -> None:
    """DRP-2: held data of both directions goes, no further classify follows."""
    a, b = Script(P(0), P(0), DROP()), Script(name="B", then=NMD(9))
    with Bench(a, b, context=7) as bench:
        bench.receive(b"r")
        bench.send(b"s")
        bench.receive(b"bad")
        assert bench.calls_of("A") == ["A(R1 'r')", "A(S1 's')", "A(R3 'bad')"]
        assert bench.calls_of("B") == ["B(R1 'r')", "B(S1 's')"]
        assert bench.log[-3:] == ["A(R3 'bad')", "flowDelete(A)", "flowDelete(B)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)


def test_sc_74_drop_under_inspection_drops_nothing() -> None:
    a = Script(DROP(), action="callout_inspection")
    with Bench(a, context=7, violations=["V-4"]) as bench:
        bench.send(b"bad")
        assert bench.log == ["A(S3 'bad')"]
        assert bench.resets == (False, False)
        assert bench.to_remote == (b"bad", False)
        assert bench.to_local == (b"", False)
        assert not bench.flow.ended


def test_sc_75_drop_under_terminating_drops() -> None:
    a = Script(DROP(), action="callout_terminating")
    with Bench(a, context=7, violations=["V-4b"]) as bench:
        bench.send(b"bad")
        assert bench.log == ["A(S3 'bad')", "flowDelete(A)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)
        assert bench.flow.ended


def test_sc_76_drop_with_a_pending_injection() -> None:
    a = Script(B(0, inj(b"pend")), DROP())
    with Bench(a, context=7) as bench:
        bench.flow.remote.window = 0
        bench.send(b"x")
        assert bench.log == ["A(S1 'x')"]
        bench.send(b"bad")
        assert bench.log == ["A(S1 'x')", "A(S3 'bad')", "cmp('pend', CONNECTION_ABORTED)", "flowDelete(A)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)
        summary = bench.flow.ledger(0)
        assert (summary.read, summary.injected, summary.written) == (4, 4, 0)
        assert (summary.blocked_original, summary.discarded, summary.discarded_out) == (1, 3, 4)


def test_sc_77_flow_abort_from_a_worker() -> None:
    a = Script()
    with Bench(a, context=7) as bench:
        bench.send(b"ok")
        assert a.fwps.flow_abort(bench.flow.id) == SUCCESS
        bench.settle()
        assert bench.log == ["A(S2 'ok')", "flowDelete(A)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"ok", False)
        assert bench.to_local == (b"", False)
        assert a.fwps.flow_abort(bench.flow.id) == NOT_FOUND
        bench.settle()
        assert bench.log == ["A(S2 'ok')", "flowDelete(A)"]
        assert end_reason(bench) == "abort"


def test_sc_77_flow_abort_of_an_unknown_flow() -> None:
    a = Script()
    with Bench(a) as bench:
        assert a.fwps.flow_abort(bench.flow.id + 1000) == NOT_FOUND
        assert a.fwps.flow_abort(0) == NOT_FOUND
        bench.send(b"ok")
        assert bench.resets == (False, False)
        assert bench.to_remote == (b"ok", False)


def test_sc_78_flow_abort_inside_classify() -> None:
    statuses: list[NtStatus] = []
    log_then: list[list[str]] = []

    def abort(call: Call) -> None:
        statuses.append(call.owner.fwps.flow_abort(call.flow_id))
        log_then.append(list(call.owner.transcript.log))

    a, b = Script(P(0, abort)), Script(name="B")
    with Bench(a, b, context=7) as bench:
        bench.send(b"abc")
        assert statuses == [SUCCESS]
        assert log_then == [["A(S3 'abc')"]]
        assert bench.log == ["A(S3 'abc')", "flowDelete(A)", "flowDelete(B)"]
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)
        assert bench.flow.ended
        assert end_reason(bench) == "abort"


def test_sc_79_reset_without_abort_indication() -> None:
    options = EngineOptions(indicate_abort=False)
    with Bench(Script(), context=7, options=options) as bench:
        bench.send(b"a")
        bench.reset("local")
        assert bench.log == ["A(S1 'a')", "flowDelete(A)"]
        assert bench.flow.remote.reset
        assert bench.to_remote == (b"a", False)
        assert bench.to_local == (b"", False)
        assert bench.flow.ended
        assert end_reason(bench) == "rst_client"


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("asked_before", [False, True])
def test_sc_79_reset_with_abort_indication(version: int, asked_before: bool) -> None:
    a = Version0Script() if version == 0 else Script()
    a.version = version
    with Bench(a, context=7) as bench:
        if asked_before:
            bench.send(b"a")
            bench.transcript.log.clear()
        bench.reset("local")
        assert bench.log == ["A(S ABORT +N)", "flowDelete(A)"]
        assert bench.flow.remote.reset
        assert bench.to_remote == (b"a" if asked_before else b"", False)
        assert bench.to_local == (b"", False)
        assert bench.flow.ended


def test_sc_79_no_abort_indication_to_a_callout_that_knows_nothing_of_the_flow() -> None:
    """IND-16: never classified on the flow and without a context."""
    with Bench(Script()) as bench:
        bench.reset("local")
        assert bench.log == []
        assert bench.flow.remote.reset
        assert bench.flow.ended


def test_sc_80_block_at_flow_established() -> None:
    a = Script()
    associated: list[NtStatus] = []

    def associate_and_block(call: LayerCall) -> None:
        associated.append(a.associate(7, call.meta.flow_handle))
        block(call)

    driver = MemoryDriver()
    gate = Gate("ale_flow_established", associate_and_block)
    driver.add(a)
    driver.add(gate)
    flow = driver.connect()
    driver.settle()
    assert associated == [SUCCESS]
    assert gate.log == ["K(FLOW_ESTABLISHED)"]
    assert a.transcript.log == ["flowDelete(A)"]
    assert flow is None
    (blocked,) = events(driver, "flow_blocked")
    assert blocked["layer"].lower().startswith("ale_flow_established")
    assert events(driver, "flow_established") == []
    assert events(driver, "indicate") == []
    driver.close()
    assert driver.violations == ["V-44"]


def test_sc_80_permit_at_flow_established_is_no_violation() -> None:
    """LAY-6: noted by V-44 only with `verify.hints`."""
    a = Script()
    with Bench(a, before=lambda driver: driver.add(Gate("ale_flow_established", permit))) as bench:
        bench.send(b"abc")
        assert bench.log == ["A(S3 'abc')"]
        assert bench.to_remote == (b"abc", False)
