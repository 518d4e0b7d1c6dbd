"""SC-50 to SC-61: clone and block, a worker that injects later, pended FINs, and breaches of the contract."""

from __future__ import annotations

import pytest

from tests.scenarios.support import (
    DEF,
    NMD,
    RECEIVE_FIN,
    SEND,
    SEND_FIN,
    Answer,
    B,
    Bench,
    Call,
    P,
    Recording,
    Script,
    bytewise,
    clone,
    cuttings,
)
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus

SUCCESS = NtStatus.STATUS_SUCCESS


def test_sc_50_clone_block_inject() -> None:
    a = Script(B(0, clone))
    with Bench(a) as bench:
        bench.send(b"abc")
        assert bench.calls == ["A(S3 'abc')"]
        assert bench.to_remote == (b"", False)
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.calls == ["A(S3 'abc')"]
        assert bench.to_remote == (b"abc", False)
        assert bench.completions == ["cmp('abc', SUCCESS)"]


@pytest.mark.parametrize("inject_delivery", ["inline", "queued"])
@pytest.mark.parametrize("completion", ["normal", "early"])
def test_sc_50_whatever_the_delivery(inject_delivery: str, completion: str) -> None:
    options = EngineOptions()
    options.inject_delivery = inject_delivery
    options.completion = completion
    a = Script(then=B(0, clone))
    with Bench(a, options=options) as bench:
        bench.send(b"abc", b"def")
        bench.send_fin()
        assert [a.inject_pended() for _ in range(3)] == [SUCCESS] * 3
        bench.settle()
        assert bench.calls == ["A(S3 'abc')", "A(S3 'def')", "A(S FIN +N)"]
        assert bench.to_remote == (b"abcdef", True)
        assert bench.completions == ["cmp('abc', SUCCESS)", "cmp('def', SUCCESS)", "cmp(FIN, SUCCESS)"]


def test_sc_50_one_completion_per_buffer_list() -> None:
    # NMD-5: what was merged keeps one NBL per item.
    a = Script(NMD(6), B(0, clone))
    with Bench(a) as bench:
        bench.send(b"a", b"bc", b"def")
        assert bench.calls == ["A(S1 'a')", "A(S6 'abcdef')"]
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"abcdef", False)
        assert bench.completions == ["cmp('a', SUCCESS)", "cmp('bc', SUCCESS)", "cmp('def', SUCCESS)"]


@pytest.mark.parametrize("pieces", cuttings(b"abc def ghi"), ids=len)
def test_sc_50_at_any_cuts(pieces: list[bytes]) -> None:
    a = Script(then=B(0, clone))
    with Bench(a) as bench:
        bench.send(*pieces)
        assert bench.to_remote == (b"", False)
        for _ in pieces:
            assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"abc def ghi", False)
        assert len(bench.completions) == len(pieces)


def pend_data_and_fin(bench: Bench) -> None:
    bench.send(b"x rainy")
    bench.send_fin()
    # The other direction ends meanwhile: only the pended FIN keeps the flow alive (OBJ-13).
    bench.receive_fin()
    assert bench.calls == ["A(S7 'x rainy')", "A(S FIN +N)", "A(R FIN +N)"]
    assert bench.to_remote == (b"", False)
    assert bench.to_local == (b"", True)
    assert not bench.flow.ended


def replace_rainy(bench: Bench, a: Recording) -> None:
    assert a.inject_bytes(SEND, b"x ") == SUCCESS
    assert a.inject_bytes(SEND, b"cloudy") == SUCCESS
    a.discard_pended()
    bench.settle()
    assert bench.to_remote == (b"x cloudy", False)
    assert not bench.flow.ended


def test_sc_51_edit_with_the_fin_pended() -> None:
    a = Script(B(0, clone), B(0, clone), P(0))
    with Bench(a, context=1) as bench:
        pend_data_and_fin(bench)
        replace_rainy(bench, a)
        assert a.inject_pended(flags=SEND_FIN) == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"x cloudy", True)
        assert bench.completions == ["cmp('x ', SUCCESS)", "cmp('cloudy', SUCCESS)", "cmp(FIN, SUCCESS)"]
        assert bench.flow.ended
        assert bench.log[-2:] == ["cmp(FIN, SUCCESS)", "flowDelete(A)"]


def test_sc_52_fin_injected_without_buffer_list() -> None:
    a = Script(B(0, clone), B(0, clone), P(0))
    with Bench(a, context=1) as bench:
        pend_data_and_fin(bench)
        replace_rainy(bench, a)
        a.discard_pended()
        assert a.inject_null_fin(SEND_FIN) == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"x cloudy", True)
        assert bench.completions == ["cmp('x ', SUCCESS)", "cmp('cloudy', SUCCESS)"]
        assert bench.flow.ended
        assert bench.calls[-1] == "flowDelete(A)"


def pend_fin_then_reset(bench: Bench) -> None:
    bench.send_fin()
    assert bench.to_remote == (b"", False)
    bench.driver.advance(1)
    bench.reset("remote")
    assert bench.log == ["A(S FIN +N)", "A(R ABORT +N)", "flowDelete(A)"]
    assert bench.flow.local.reset
    assert bench.flow.ended


def test_sc_53_pended_fin_and_reset() -> None:
    a = Script(B(0, clone))
    with Bench(a, context=1) as bench:
        pend_fin_then_reset(bench)
        bench.driver.advance(1)
        a.discard_pended()
        bench.driver.advance(60)


def test_sc_53_fin_pended_for_longer_than_the_grace_before_the_reset() -> None:
    a = Script(B(0, clone))
    with Bench(a, context=1, violations=["V-52"]) as bench:
        bench.send_fin()
        bench.driver.advance(6)
        assert bench.driver.violations == []
        bench.reset("remote")
        assert bench.log == ["A(S FIN +N)", "A(R ABORT +N)", "flowDelete(A)"]
        assert bench.resets == (True, True)
        a.discard_pended()


def test_sc_53_clone_kept_beyond_the_grace() -> None:
    a = Script(B(0, clone))
    with Bench(a, context=1, violations=["V-23"]) as bench:
        pend_fin_then_reset(bench)
        bench.driver.advance(4)
        assert bench.driver.violations == []
        bench.driver.advance(2)
        assert bench.driver.violations == ["V-23"]


@pytest.mark.parametrize(("hints", "violations"), [(False, []), (True, ["V-53"])])
def test_sc_54_out_of_order_worker(hints: bool, violations: list[str]) -> None:
    options = EngineOptions()
    options.verify.hints = hints
    a = Script(then=B(0, clone))
    with Bench(a, options=options, violations=violations) as bench:
        bench.send(b"1", b"2")
        assert bench.calls == ["A(S1 '1')", "A(S1 '2')"]
        assert a.inject_pended(1) == SUCCESS
        assert a.inject_pended(0) == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"21", False)
        assert bench.completions == ["cmp('2', SUCCESS)", "cmp('1', SUCCESS)"]


def test_sc_55_switch_to_inline_while_pended() -> None:
    a = Script(B(0, clone), P(0))
    with Bench(a, violations=["V-17", "V-21"]) as bench:
        bench.send(b"1", b"2")
        assert bench.calls == ["A(S1 '1')", "A(S1 '2')"]
        assert bench.driver.violations == ["V-17"]
        assert bench.to_remote == (b"2", False)
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"21", False)
        assert bench.completions == ["cmp('1', SUCCESS)"]


def test_sc_56_fin_permitted_while_data_is_pended() -> None:
    a = Script(B(0, clone), P(0))
    with Bench(a, violations=["V-17"]) as bench:
        bench.send(b"1")
        bench.send_fin()
        assert bench.calls == ["A(S1 '1')", "A(S FIN +N)"]
        assert bench.to_remote == (b"", True)
        assert a.inject_pended() == NtStatus.STATUS_CONNECTION_DISCONNECTED
        bench.settle()
        assert bench.to_remote == (b"", True)
        assert bench.completions == []


def test_sc_57_arbitrary_fin() -> None:
    a = Script()
    with Bench(a, violations=["V-19"]) as bench:
        assert a.inject_null_fin(SEND_FIN) == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"", True)
        assert bench.completions == []
        bench.send(b"late")
        bench.send_fin()
        assert bench.calls == ["A(S4 'late')", "A(S FIN +N)"]
        assert bench.to_remote == (b"", True)
        assert bench.resets == (False, False)


def test_sc_57_arbitrary_fin_inbound() -> None:
    a = Script()
    with Bench(a, violations=["V-19"]) as bench:
        assert a.inject_null_fin(RECEIVE_FIN) == SUCCESS
        bench.settle()
        assert bench.to_local == (b"", True)
        bench.receive(b"late")
        assert bench.calls == ["A(R4 'late')"]
        assert bench.to_local == (b"", True)


def test_sc_58_discard_instead_of_inject() -> None:
    a = Script(B(0, clone))
    with Bench(a) as bench:
        bench.send(b"abc")
        a.discard_pended()
        bench.settle()
        assert bench.calls == ["A(S3 'abc')"]
        assert bench.to_remote == (b"", False)
        assert bench.completions == []


def test_sc_59_injection_at_no_legal_occasion() -> None:
    a = Script()

    def on_timer() -> None:
        assert a.inject_bytes(SEND, b"T") == SUCCESS

    with Bench(a, violations=["V-21"]) as bench:
        bench.send(b"ab")
        a.after(1.0, on_timer)
        bench.driver.advance(1.5)
        assert bench.to_remote == (b"abT", False)
        assert bench.completions == ["cmp('T', SUCCESS)"]
        bench.send(b"cd")
        assert bench.calls == ["A(S2 'ab')", "A(S2 'cd')"]
        assert bench.to_remote == (b"abTcd", False)


class PassThroughInjection(Recording):
    """Clones every indication, injects the clone with the indicated flags, and blocks the original."""

    def __init__(self) -> None:
        super().__init__("A")
        self.statuses: list[NtStatus] = []

    def decide(self, call: Call) -> Answer:
        call.clone()
        self.statuses.append(self.inject_pended(flags=call.flags))
        return B(0)


def test_sc_60_pass_through_injection() -> None:
    a = PassThroughInjection()
    with Bench(a, context=1) as bench:
        bench.send(b"abc")
        bench.receive(b"xyz")
        bench.send_fin()
        bench.receive_fin()
        assert bench.calls == [
            "A(S3 'abc')", "A(R3 'xyz')", "A(S FIN +N)", "A(R FIN +N)", "flowDelete(A)",
        ]  # fmt: skip
        assert bench.completions == [
            "cmp('abc', SUCCESS)", "cmp('xyz', SUCCESS)", "cmp(FIN, SUCCESS)", "cmp(FIN, SUCCESS)",
        ]  # fmt: skip
        assert bench.to_remote == (b"abc", True)
        assert bench.to_local == (b"xyz", True)
        assert a.statuses == [SUCCESS] * 4


@pytest.mark.parametrize("pieces", cuttings(b"pass-through"), ids=len)
def test_sc_60_pass_through_injection_at_any_cuts(pieces: list[bytes]) -> None:
    with Bench(PassThroughInjection()) as bench:
        bench.send(*pieces)
        bench.receive(*pieces)
        bench.send_fin()
        bench.receive_fin()
        assert bench.to_remote == (b"pass-through", True)
        assert bench.to_local == (b"pass-through", True)
        assert len(bench.completions) == 2 * len(pieces) + 2


def test_sc_60_pass_through_injection_of_an_abort() -> None:
    a = PassThroughInjection()
    with Bench(a, context=1, violations=["V-37"]) as bench:
        bench.send(b"abc")
        bench.reset("local")
        assert bench.calls == ["A(S3 'abc')", "A(S ABORT +N)", "flowDelete(A)"]
        assert a.statuses == [SUCCESS, NtStatus.STATUS_FWP_NOT_FOUND]
        assert bench.completions == ["cmp('abc', SUCCESS)"]
        assert bench.to_remote == (b"abc", False)
        assert bench.flow.remote.reset


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


def test_sc_61_busy_threshold() -> None:
    a = BusyThreshold()
    pieces = [bytes([i]) * 4_096 for i in range(256)]
    with Bench(a) as bench:
        bench.receive(*pieces)
        bench.receive_fin()
        assert a.decisions == "BBBBBD"
        while a.pended:
            a.work()
            bench.settle()
        # 20 KiB fill it; 4 KiB left at each continue make room for four more pieces.
        assert a.decisions == "BBBBB" + "DBBBB" * 62 + "DBBB" + "F"
        assert bench.to_local == (b"".join(pieces), True)
        assert len(bench.completions) == 257


def test_sc_61_busy_threshold_in_small_pieces() -> None:
    a = BusyThreshold()
    stream = bytes(range(250)) * 100
    with Bench(a) as bench:
        bench.receive(*bytewise(stream))
        bench.receive_fin()
        assert a.decisions == "B" * 16_385 + "D"
        while a.pended:
            a.work()
            bench.settle()
        assert a.decisions == "B" * 16_385 + "D" + "B" * (25_000 - 16_385) + "F"
        assert bench.to_local == (stream, True)
        assert len(bench.completions) == 25_001
