"""Urgent bytes in memory (IND-7, NMD-5): an indication of its own, and an urgent byte again at the other end.

Owns the engine's side; marks and MSG_OOB on real sockets are tested with the transport.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import NMD, SEND, Answer, B, Bench, C, P, Script, inj
from wfpstream.fwp import NtStatus
from wfpstream.fwps import StreamFlags

SUCCESS = NtStatus.STATUS_SUCCESS
SEND_URGENT = SEND | int(StreamFlags.SEND_EXPEDITED)


@pytest.mark.parametrize("inbound", [False, True])
@pytest.mark.parametrize(
    ("answer", "data", "urgent"),
    [(P(0), b"ab!cd", [(2, b"!")]), (C(0), b"ab!cd", [(2, b"!")]), (B(0), b"abcd", [])],
)
def test_ind_7_permit_keeps_it_urgent_and_block_removes_it(
    inbound: bool, answer: Answer, data: bytes, urgent: list[tuple[int, bytes]]
) -> None:
    """IND-7: its own one-byte indication at its place in the stream."""
    a = Script(P(0), answer, P(0))
    side = "R" if inbound else "S"
    with Bench(a) as bench:
        give = bench.flow.receive if inbound else bench.flow.send
        give(b"ab")
        give(b"!", urgent=True)
        give(b"cd")
        bench.settle()
        assert bench.log == [f"A({side}2 'ab')", f"A({side}1 EXPEDITED '!')", f"A({side}2 'cd')"]
        arrived = bench.flow.local if inbound else bench.flow.remote
        assert arrived.urgent == urgent
        assert (bench.to_local if inbound else bench.to_remote) == (data, False)


def test_ind_7_without_a_callout() -> None:
    """IND-7: nothing in between keeps it as it was."""
    with Bench() as bench:
        bench.send(b"ab")
        bench.flow.send(b"!", urgent=True)
        bench.send(b"cd")
        assert bench.flow.remote.urgent == [(2, b"!")]
        assert bench.to_remote == (b"ab!cd", False)


def test_ind_7_never_merged_and_never_counted_for_a_wait() -> None:
    """IND-7, NMD-5: A waits for 3 bytes and has 2: the urgent byte is no third."""
    a = Script(NMD(3), P(0), P(0))
    with Bench(a) as bench:
        bench.send(b"ab")
        bench.flow.send(b"!", urgent=True)
        bench.settle()
        assert bench.log == ["A(S2 'ab')", "A(S1 EXPEDITED '!')"]
        bench.send(b"c")
        assert bench.log[2:] == ["A(S3 'abc')"]
        # It is decided at once, so it overtakes what is held.
        assert bench.flow.remote.urgent == [(0, b"!")]
        assert bench.to_remote == (b"!abc", False)


def test_ind_7_an_injection_with_expedited_sends_its_last_byte_urgent() -> None:
    """IND-7: the bytes before it as normal data."""
    a = Script(P(0, inj(b"xyz", SEND_URGENT)))
    with Bench(a) as bench:
        bench.send(b"ab")
        assert bench.completions == ["cmp('xyz', SUCCESS)"]
        assert bench.flow.remote.urgent == [(2, b"z")]
        assert bench.to_remote == (b"xyzab", False)


def test_ind_7_a_slow_receiver_does_not_change_its_place() -> None:
    """IND-7: order and urgency survive the output's queue."""
    with Bench(Script()) as bench:
        bench.flow.remote.window = 1
        bench.send(b"ab")
        bench.flow.send(b"!", urgent=True)
        bench.send(b"cd")
        for _ in range(4):
            assert len(bench.flow.remote.read(1)) == 1
            bench.settle()
        assert bench.flow.remote.urgent == [(2, b"!")]
        assert len(bench.log) == 3
        assert bench.to_remote == (b"ab!cd", False)
