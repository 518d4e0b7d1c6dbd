"""Overlapping calls of foreign threads (VRF-7): which pairs break a rule, and that the engine tells."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.scenarios.support import B, Bench, Script
from tests.scenarios.support_api import allocate
from wfpstream.engine._overlap import Overlaps, call_of
from wfpstream.fwp import NtStatus
from wfpstream.fwps import LayerId, NetBufferList, StreamFlags

SEND, RECEIVE = int(StreamFlags.SEND), int(StreamFlags.RECEIVE)
STREAM = int(LayerId.STREAM_V4)


def inject(flow: int, flags: int) -> tuple[str, tuple[object, ...]]:
    return "stream_inject_async", (1, 0, 0, flow, 2, STREAM, flags, None, 0, None, None)


def resume(flow: int) -> tuple[str, tuple[object, ...]]:
    return "stream_continue", (flow, 2, STREAM, RECEIVE)


@pytest.mark.parametrize(
    ("first", "second", "rules"),
    [
        (inject(7, SEND), inject(7, SEND), ["V-22"]),
        (inject(7, SEND), inject(7, RECEIVE), []),
        (inject(7, SEND), inject(8, SEND), []),
        (inject(7, RECEIVE), resume(7), ["V-16"]),
        (resume(7), inject(7, SEND), ["V-16"]),
        (inject(7, RECEIVE), resume(8), []),
        (resume(7), resume(7), []),
        (("flow_abort", (7,)), inject(7, SEND), []),
    ],
)
def test_vrf_7_what_two_threads_may_do_at_once(
    first: tuple[str, tuple[object, ...]], second: tuple[str, tuple[object, ...]], rules: list[str]
) -> None:
    """VRF-7, V-16, V-22: from entry to answer, measured in the calling threads."""
    overlaps = Overlaps()
    calls = [call_of(*first), call_of(*second)]
    assert overlaps.enter(calls[0]) == []
    assert [rule for rule, _ in overlaps.enter(calls[1])] == rules
    for call in calls:
        overlaps.leave(call)
    assert overlaps.enter(calls[1]) == []


def test_v_22_two_injections_at_once_are_told_and_applied_in_order() -> None:
    """V-22, OOB-9: the engine applies them in call order all the same."""
    a = Script(B(0))
    with Bench(a, violations=["V-22"]) as bench:
        engine = bench.driver.engine
        arrived = threading.Semaphore(0)
        inner = engine.run_soon
        assert inner is not None

        def run_soon(fn: Callable[[], None]) -> None:
            inner(fn)
            arrived.release()

        engine.run_soon = run_soon
        bench.send(b"x")

        completed: list[bytes] = []

        def freed(context: object, nbl: NetBufferList, dispatch_level: bool) -> None:
            completed.append(nbl.tobytes())
            a.fwps.free_net_buffer_list(nbl)

        me = a.callout_id(STREAM)
        statuses: list[NtStatus] = []

        def call(content: bytes) -> None:
            arguments = (
                a.injection_handle,
                0,
                0,
                bench.flow.id,
                me,
                STREAM,
                SEND,
                allocate(a, content),
                1,
                freed,
                0,
            )
            statuses.append(engine.from_thread(a.fwps.stream_inject_async, *arguments))

        threads = [threading.Thread(target=call, args=(content,)) for content in (b"1", b"2")]
        for thread in threads:
            thread.start()
            assert arrived.acquire(timeout=30)
        assert arrived.acquire(timeout=30)  # the report of the overlap
        bench.settle()
        for thread in threads:
            thread.join(30)
        assert statuses == [NtStatus.STATUS_SUCCESS] * 2
        assert bench.to_remote == (b"12", False)
        assert completed == [b"1", b"2"]
