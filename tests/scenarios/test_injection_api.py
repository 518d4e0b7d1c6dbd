"""What a vector cannot say of FwpsInjectionHandleDestroy0: it is called from another thread (SC-91, second half).

Owns nothing else of the injection API: its scenarios are vectors, SC-81 to SC-93.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.scenarios.support import SEND, Bench, Script
from tests.scenarios.support_api import Injection, allocate, inject_raw, no_completion
from wfpstream.fwp import NtStatus
from wfpstream.fwps import NetBufferList

SUCCESS = NtStatus.STATUS_SUCCESS
PATIENCE = 30.0
"""Seconds after which a foreign thread that never answers fails the test instead of hanging it."""


def stuck_injection(bench: Bench, a: Script) -> int:
    """One byte on its way through a handle of its own to a peer that does not read; the handle."""
    status, handle = a.fwps.injection_handle_create()
    assert status == SUCCESS
    bench.flow.remote.window = 0
    nbl = allocate(a, b"s")
    assert (
        inject_raw(a, Injection(SEND, nbl, 1, handle=handle, completion_fn=completed_into(bench, a)))
        == SUCCESS
    )
    bench.settle()
    assert bench.log == []
    return int(handle)


def completed_into(bench: Bench, a: Script) -> Callable[[object, NetBufferList, bool], None]:
    """A completion function that writes into the transcript and frees."""

    def complete(context: object, nbl: NetBufferList, dispatch_level: bool) -> None:
        bench.log.append("completed")
        a.fwps.free_net_buffer_list(nbl)

    return complete


def inject_through(a: Script, handle: int) -> NtStatus:
    """Status of one more injection through `handle`; its list is freed at once if refused."""
    nbl = allocate(a, b"n")
    status = inject_raw(a, Injection(SEND, nbl, 1, handle=handle, completion_fn=no_completion))
    a.fwps.free_net_buffer_list(nbl)
    return status


def test_sc_91_handle_destroyed_from_a_foreign_thread() -> None:
    a = Script()
    with Bench(a) as bench:
        handle = stuck_injection(bench, a)
        engine = bench.driver.engine
        knocked = hear_knocks(bench)
        answers: list[NtStatus] = []

        def destroy() -> None:
            answers.append(engine.from_thread(a.fwps.injection_handle_destroy, handle))
            bench.log.append("destroyed")

        thread = threading.Thread(target=destroy, daemon=True)
        thread.start()
        assert knocked.wait(PATIENCE)
        bench.settle()
        assert inject_through(a, handle) == NtStatus.STATUS_FWP_INJECT_HANDLE_CLOSING
        assert answers == []
        bench.flow.remote.window = None
        bench.settle()
        thread.join(PATIENCE)
        assert answers == [SUCCESS]
        assert bench.log == ["completed", "destroyed"]
        assert bench.to_remote == (b"s", False)
        assert inject_through(a, handle) == NtStatus.STATUS_FWP_INJECT_HANDLE_STALE


def hear_knocks(bench: Bench) -> threading.Event:
    """Set when a foreign thread's call has been queued for the engine's thread."""
    knocked = threading.Event()
    engine = bench.driver.engine
    run_soon = engine.run_soon
    assert run_soon is not None

    def run_soon_and_tell(fn: Callable[[], None]) -> None:
        run_soon(fn)
        knocked.set()

    engine.run_soon = run_soon_and_tell
    return knocked
