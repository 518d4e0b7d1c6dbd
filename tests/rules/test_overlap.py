"""Calls of two threads that overlap at the bridge (DEF-9): measured in the calling threads, from entry to answer.

Owns nothing but the overlap; what each call does is tested elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.scenarios.support import DEF, RECEIVE_PUSH, Bench, Script
from tests.scenarios.support_api import allocate
from wfpstream.fwp import NtStatus
from wfpstream.fwps import LayerId, NetBufferList

STREAM = int(LayerId.STREAM_V4)
SUCCESS = NtStatus.STATUS_SUCCESS


class Door:
    """Counts who came through the bridge, so that the engine's thread can wait for both."""

    def __init__(self, bench: Bench) -> None:
        self.arrived = threading.Semaphore(0)
        engine = bench.driver.engine
        inner = engine.run_soon
        assert inner is not None

        def run_soon(fn: Callable[[], None]) -> None:
            inner(fn)
            self.arrived.release()

        engine.run_soon = run_soon


@pytest.mark.parametrize("together", [True, False])
def test_def_9_continue_must_not_overlap_an_injection(together: bool) -> None:
    """DEF-9: two threads inside both calls at once: V-16; injection followed by continue is the normal order."""
    a = Script(DEF())
    with Bench(a, violations=["V-16"] if together else []) as bench:
        engine, door = bench.driver.engine, Door(bench)
        bench.receive(b"held")
        statuses: dict[str, NtStatus] = {}
        me, buffer = a.callout_id(STREAM), allocate(a, b"first ")

        def freed(context: object, nbl: NetBufferList, dispatch_level: bool) -> None:
            a.fwps.free_net_buffer_list(nbl)

        def inject() -> None:
            # The bare call, as a driver's thread makes it: FwpsStreamInjectAsync0.
            statuses["inject"] = engine.from_thread(
                a.fwps.stream_inject_async, a.injection_handle, 0, 0, bench.flow.id, me, STREAM, RECEIVE_PUSH,
                buffer, 6, freed, 0,
            )  # fmt: skip

        def resume() -> None:
            statuses["continue"] = engine.from_thread(
                a.fwps.stream_continue, bench.flow.id, me, STREAM, RECEIVE_PUSH
            )

        threads = [threading.Thread(target=inject), threading.Thread(target=resume)]
        for thread in threads:
            thread.start()
            assert door.arrived.acquire(timeout=30)
            if not together:
                bench.settle()
                thread.join(30)
        bench.settle()
        for thread in threads:
            thread.join(30)
        assert statuses == {"inject": SUCCESS, "continue": SUCCESS}
        assert bench.log == ["A(R4 'held')", "A(R4 'held')"]
        assert bench.to_local == (b"first held", False)
