"""The golden transcripts SC-111 to SC-124: faithful ports of the stream edit sample, call by call.

The sample has faults, and the wrong output is part of the expectation: it shows that the engine hands a port
exactly what the sample would get. An assertion of the sample is an expected event.
"""

from __future__ import annotations

import pytest

from tests.ports.bench import PortBench, verifying
from tests.ports.inline_edit import InlineEdit
from tests.ports.oob_edit import OobEdit
from tests.ports.stream_edit import Settings
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus

SUCCESS = NtStatus.STATUS_SUCCESS
NOT_IDLE = "assert(state is idle at FIN)"
NO_CASE = "assert(no case for state BUSY)"


class InlineBench(PortBench):
    """InlineEdit, "cloudy" becomes "sunny"; the flow is OUTBOUND."""

    def __init__(self) -> None:
        super().__init__()
        self.port = InlineEdit(self.machine("A"), Settings(b"cloudy", b"sunny"))
        self.load(self.port)
        self.connect()

    def __enter__(self) -> InlineBench:
        return self


class OobBench(PortBench):
    """OobEdit, "rainy" becomes "cloudy"; its worker runs when the test says so."""

    def __init__(
        self,
        *,
        violations: list[str] | None = None,
        options: EngineOptions | None = None,
        inbound: bool = False,
    ) -> None:
        super().__init__(violations=violations, options=options, inbound=inbound)
        self.port = OobEdit(self.machine("A"), Settings(b"rainy", b"cloudy"))
        self.load(self.port)
        self.connect()

    def __enter__(self) -> OobBench:
        return self

    def run_worker(self) -> None:
        """What the worker injects, and what follows from it, to the end."""
        while self.port.work_items:
            self.port.run_work_items()
            self.driver.settle()


# -- InlineEdit ----------------------------------------------------------------------------------------


def test_sc_111_waits_with_fewer_bytes_than_the_pattern() -> None:
    with InlineBench() as bench:
        bench.send(b"AB cl", b"oudy CD")
        # The end of the line stays behind: a request/response peer would hang.
        assert bench.to_remote == (b"AB sunny", False)
        bench.send_fin()
        assert bench.calls == [
            "A(S5 'AB cl') -> NMD 6",
            "A(S12 'AB cloudy CD') -> P 3",
            "A(S9 'cloudy CD') -> inj('sunny'), B 6",
            "A(S3 ' CD') -> NMD 6",
            "A(S3 ' CD' +N) -> P 0",
            "A(S FIN +N) -> P 0",
        ]
        assert bench.to_remote == (b"AB sunny CD", True)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


def test_sc_111_the_end_leaves_with_more_data() -> None:
    with InlineBench() as bench:
        bench.send(b"AB cl", b"oudy CD", b"EFG")
        assert bench.calls[-1] == "A(S6 ' CDEFG') -> P 0"
        assert bench.to_remote == (b"AB sunny CDEFG", False)


def test_sc_112_match_split_over_scratch() -> None:
    with InlineBench() as bench:
        bench.send(b"AB xx cl", b"oudy CD")
        bench.send_fin()
        assert bench.calls == [
            "A(S8 'AB xx cl') -> P 6",
            "A(S2 'cl') -> B 0",
            "A(S7 'oudy CD') -> inj('sunny'), B 4",
            "A(S3 ' CD') -> NMD 6",
            "A(S3 ' CD' +N) -> P 0",
            "A(S FIN +N) -> P 0",
        ]
        assert bench.to_remote == (b"AB xx sunny CD", True)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


def test_sc_113_beginning_of_a_match_at_fin() -> None:
    with InlineBench() as bench:
        bench.send(b"xx clo")
        assert bench.to_remote == (b"xx ", False)
        bench.send_fin()
        assert bench.calls == [
            "A(S6 'xx clo') -> P 3",
            "A(S3 'clo') -> B 0",
            "A(S FIN +N) -> inj('clo'), P 0",
        ]
        assert bench.to_remote == (b"xx clo", True)
        assert bench.completions == ["cmp('clo', SUCCESS)"]


def test_sc_114_short_stream() -> None:
    with InlineBench() as bench:
        bench.send(b"AB")
        assert bench.to_remote == (b"", False)
        bench.send_fin()
        assert bench.calls == ["A(S2 'AB') -> NMD 6", "A(S2 'AB' +N) -> P 0", "A(S FIN +N) -> P 0"]
        assert bench.to_remote == (b"AB", True)
        assert bench.completions == []


def test_sc_115_false_beginning_then_a_match() -> None:
    with InlineBench() as bench:
        bench.send(b"xxxclo", b"cloudy")
        assert bench.to_remote == (b"xxxclocloudy", False)
        bench.send_fin()
        assert bench.calls == [
            "A(S6 'xxxclo') -> P 3",
            "A(S3 'clo') -> B 0",
            "A(S6 'cloudy') -> inj('clo'), P 0",
            f"A(S FIN +N) -> inj('cloclo'), {NOT_IDLE}, P 0",
        ]
        assert bench.to_remote == (b"xxxclocloudycloclo", True)
        assert bench.completions == ["cmp('clo', SUCCESS)", "cmp('cloclo', SUCCESS)"]


def test_sc_116_second_match_is_missed_after_a_wait() -> None:
    with InlineBench() as bench:
        bench.send(b"AB cloudy CD", b"EFcloudyGH")
        bench.send_fin()
        assert bench.calls == [
            "A(S12 'AB cloudy CD') -> P 3",
            "A(S9 'cloudy CD') -> inj('sunny'), B 6",
            "A(S3 ' CD') -> NMD 6",
            "A(S13 ' CDEFcloudyGH') -> P 0",
            "A(S FIN +N) -> P 0",
        ]
        assert bench.to_remote == (b"AB sunny CDEFcloudyGH", True)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


def test_sc_117_bytes_lost_behind_a_beginning() -> None:
    with InlineBench() as bench:
        bench.send(b"AB cloudy Cc", b"loudyX more")
        bench.send_fin()
        assert bench.calls == [
            "A(S12 'AB cloudy Cc') -> P 3",
            "A(S9 'cloudy Cc') -> inj('sunny'), B 6",
            "A(S3 ' Cc') -> NMD 6",
            "A(S14 ' CcloudyX more') -> P 2",
            "A(S12 'cloudyX more') -> B 0",
            "A(S FIN +N) -> inj('c'), P 0",
        ]
        assert bench.to_remote == (b"AB sunny Cc", True)
        assert bench.completions == ["cmp('sunny', SUCCESS)", "cmp('c', SUCCESS)"]


def test_sc_118_fin_of_the_other_direction_with_stream_flags_0() -> None:
    with InlineBench() as bench:
        bench.send(b"AB cloudy CD")
        bench.receive_fin()
        bench.send_fin()
        calls = bench.calls
        assert calls[:3] == [
            "A(S12 'AB cloudy CD') -> P 3",
            "A(S9 'cloudy CD') -> inj('sunny'), B 6",
            "A(S3 ' CD') -> NMD 6",
        ]
        # INJ-32; what the three stale bytes are, nobody sees: the list is freed.
        assert calls[3].startswith("A(R FIN +N) -> inj(0, ")
        assert calls[3].endswith(f") = FWP_INVALID_PARAMETER, {NOT_IDLE}, P 0")
        assert calls[4:] == ["A(S3 ' CD' +N) -> P 0", "A(S FIN +N) -> P 0", "flowDelete(A)"]
        assert bench.to_remote == (b"AB sunny CD", True)
        assert bench.to_local == (b"", True)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


def test_sc_118_fin_of_the_other_direction_inserts_stale_bytes() -> None:
    with InlineBench() as bench:
        bench.send(b"AB xx cl", b"oudy CD")
        bench.receive_fin()
        assert bench.to_remote == (b"AB xx sunnyclo", False)
        bench.send_fin()
        assert bench.calls == [
            "A(S8 'AB xx cl') -> P 6",
            "A(S2 'cl') -> B 0",
            "A(S7 'oudy CD') -> inj('sunny'), B 4",
            "A(S3 ' CD') -> NMD 6",
            f"A(R FIN +N) -> inj(S, 'clo'), {NOT_IDLE}, P 0",
            "A(S3 ' CD' +N) -> P 0",
            "A(S FIN +N) -> P 0",
            "flowDelete(A)",
        ]
        assert bench.to_remote == (b"AB xx sunnyclo CD", True)
        assert bench.to_local == (b"", True)
        assert bench.completions == ["cmp('sunny', SUCCESS)", "cmp('clo', SUCCESS)"]


# -- OobEdit -------------------------------------------------------------------------------------------

FIRST = b"0123456789" * 2_000
SECOND = b"abcdefghij" * 2_000
DEFERRED = ["A(R20000) -> clone, B 0", "A(R20000) -> DEF"]


def defer(bench: OobBench) -> None:
    """Up to the deferral, with the worker held back; then outbound data."""
    bench.receive(FIRST, SECOND)
    assert bench.calls == DEFERRED
    bench.send(b"hello")
    assert bench.calls == [*DEFERRED, f"A(S5 'hello') -> {NO_CASE}, B 0"]


def test_sc_119_outbound_data_while_deferred() -> None:
    with OobBench() as bench:
        defer(bench)
        bench.run_worker()
        assert bench.calls[3:] == [
            "inj(R, 20000)",
            "continue",
            "A(R20000) -> clone, B 0",
            "inj(R, 20000)",
        ]
        assert bench.to_local == (FIRST + SECOND, False)
        assert bench.to_remote == (b"", False)
        assert bench.completions == ["cmp(20000, SUCCESS)", "cmp(20000, SUCCESS)"]
        assert bench.flow.ledger(0).blocked_original == 5


def test_sc_120_outbound_fin_while_deferred() -> None:
    options = verifying()
    options.timeouts.half_closed = 120.0
    with OobBench(violations=["V-52"], options=options) as bench:
        defer(bench)
        bench.send_fin()
        assert bench.calls[3:] == [f"A(S FIN +N) -> {NO_CASE}, B 0"]
        bench.run_worker()
        bench.receive_fin()
        bench.run_worker()
        assert bench.calls[4:] == [
            "inj(R, 20000)",
            "continue",
            "A(R20000) -> clone, B 0",
            "inj(R, 20000)",
            "A(R FIN +N) -> clone, B 0",
            "inj(R, FIN)",
        ]
        assert bench.to_local == (FIRST + SECOND, True)
        assert bench.to_remote == (b"", False)
        # OBJ-14: counted from the first FIN that was relayed.
        bench.driver.advance(119.0)
        assert not bench.has_ended()
        assert bench.resets == (False, False)
        bench.driver.advance(2.0)
        assert bench.has_ended()
        assert bench.resets == (True, True)
        assert bench.calls[-1] == "flowDelete(A)"
        assert bench.to_remote == (b"", False)


def test_sc_120_ends_by_a_reset() -> None:
    with OobBench() as bench:
        defer(bench)
        bench.send_fin()
        bench.driver.advance(1.0)
        bench.reset("local")
        assert bench.calls[3:] == [
            f"A(S FIN +N) -> {NO_CASE}, B 0",
            f"A(S ABORT +N) -> {NO_CASE}, B 0",
            "flowDelete(A)",
        ]
        assert bench.has_ended()
        assert bench.to_remote == (b"", False)
        bench.run_worker()
        assert bench.to_local == (b"", False)


@pytest.mark.parametrize("indicate_abort", [True, False])
def test_sc_121_remote_reset_while_deferred(indicate_abort: bool) -> None:
    options = verifying()
    options.indicate_abort = indicate_abort
    with OobBench(options=options) as bench:
        defer(bench)
        bench.reset("remote")
        abort = [f"A(R ABORT +N) -> {NO_CASE}, B 0"] if indicate_abort else []
        assert bench.calls[3:] == [*abort, "flowDelete(A)"]
        assert bench.resets == (True, True)
        assert bench.has_ended()
        assert bench.flow.ledger(1).discarded == 20_000
        # The worker finds the flow gone, discards, and continues in vain (DEF-12).
        bench.run_worker()
        assert bench.calls[-3:] == [
            "inj(R, 20000) = FWP_NOT_FOUND",
            "discard",
            "continue = FWP_NOT_FOUND",
        ]
        assert bench.to_local == (b"", False)
        assert bench.to_remote == (b"", False)
        assert bench.completions == []


def test_sc_122_reset_before_the_worker_runs() -> None:
    with OobBench() as bench:
        bench.receive(b"x rainy")
        bench.reset("remote")
        assert bench.calls == [
            "A(R7 'x rainy') -> clone, B 0",
            "A(R ABORT +N) -> clone, B 0",
            "flowDelete(A)",
        ]
        assert bench.resets == (True, True)
        bench.run_worker()
        assert bench.calls[3:] == [
            "inj(R, 'x ') = FWP_NOT_FOUND",
            "discard",
            "inj(R, '') = FWP_NOT_FOUND",
            "discard",
        ]
        assert bench.to_local == (b"", False)
        assert bench.completions == []
        bench.driver.advance(60.0)


def test_sc_123_first_fin_terminates_both_directions() -> None:
    options = verifying()
    options.timeouts.half_closed = 120.0
    with OobBench(violations=["V-52"], options=options, inbound=True) as bench:
        bench.receive(b"ask rainy")
        bench.receive_fin()
        assert bench.calls == ["A(R9 'ask rainy') -> clone, B 0", "A(R FIN +N) -> clone, B 0"]
        bench.run_worker()
        assert bench.calls[2:] == ["inj(R, 'ask ')", "inj(R, 'cloudy')", "discard", "inj(R, FIN)"]
        assert bench.to_local == (b"ask cloudy", True)
        assert bench.completions == ["cmp('ask ', SUCCESS)", "cmp('cloudy', SUCCESS)", "cmp(FIN, SUCCESS)"]
        bench.send(b"answer")
        bench.send_fin()
        assert bench.calls[6:] == ["A(S6 'answer') -> B 0", "A(S FIN +N) -> B 0"]
        bench.driver.advance(119.0)
        assert not bench.has_ended()
        assert bench.to_remote == (b"", False)
        bench.driver.advance(2.0)
        assert bench.has_ended()
        assert bench.calls[8:] == ["flowDelete(A)"]
        assert bench.to_remote == (b"", False)


# -- unload ----------------------------------------------------------------------------------------------


def unload_inline(bench: InlineBench, handle_destroy: NtStatus) -> None:
    """Unload, and the statuses it meets."""
    statuses = bench.port.unload()
    assert statuses.remove_context == [SUCCESS]
    assert statuses.handle_destroy == handle_destroy
    assert bench.driver.fwps.injection_handle_closed(bench.port.injection_handle)
    assert statuses.unregister == [SUCCESS] * 4
    assert statuses.sub_layer_delete == NtStatus.STATUS_FWP_IN_USE
    assert statuses.engine_close == SUCCESS
    assert bench.port.contexts_alive == 0
    session = bench.driver.session
    assert session.filter_enum() == (SUCCESS, [])
    assert session.callout_enum() == (SUCCESS, [])
    status, _ = session.sub_layer_get_by_key(bench.port.sub_layer_key)
    assert status == NtStatus.STATUS_FWP_SUBLAYER_NOT_FOUND


def pass_unfiltered(bench: InlineBench, before: bytes) -> None:
    """Later data of the flow, and a later flow, see no callout."""
    calls = bench.calls
    bench.send(b" cloudy")
    bench.receive(b"cloudy")
    assert bench.to_remote == (before + b" cloudy", False)
    assert bench.to_local == (b"cloudy", False)
    later = bench.connect()
    bench.send(b"cloudy")
    assert bytes(later.remote.data) == b"cloudy"
    assert bench.calls == calls


def test_sc_124_unload_with_a_beginning_in_scratch() -> None:
    with InlineBench() as bench:
        bench.send(b"AB xx cl")
        assert bench.to_remote == (b"AB xx ", False)
        # The flush is not completed yet: the destroy is finished after it (IRQ-6).
        unload_inline(bench, NtStatus.STATUS_PENDING)
        assert bench.calls == [
            "A(S8 'AB xx cl') -> P 6",
            "A(S2 'cl') -> B 0",
            "inj(S, 'cl')",
            "flowDelete(A)",
        ]
        assert bench.completions == ["cmp('cl', SUCCESS)"]
        assert bench.to_remote == (b"AB xx cl", False)
        pass_unfiltered(bench, b"AB xx cl")


def test_sc_124_unload_while_bytes_are_held() -> None:
    with InlineBench() as bench:
        bench.send(b"AB cloudy CD")
        assert bench.to_remote == (b"AB sunny", False)
        unload_inline(bench, SUCCESS)
        bench.driver.settle()
        calls = bench.calls
        assert calls[:3] == [
            "A(S12 'AB cloudy CD') -> P 3",
            "A(S9 'cloudy CD') -> inj('sunny'), B 6",
            "A(S3 ' CD') -> NMD 6",
        ]
        assert calls[3].startswith("inj(0, ")
        assert calls[3].endswith(") = FWP_INVALID_PARAMETER")
        assert calls[4:] == ["flowDelete(A)"]
        assert bench.completions == ["cmp('sunny', SUCCESS)"]
        assert bench.to_remote == (b"AB sunny CD", False)
        pass_unfiltered(bench, b"AB sunny CD")
