"""FwpsStreamInjectAsync0 and injection handles: statuses, completions, ownership (SC-81..93).

Owns what a call returns and who must free its lists. Callout A blocks clones of SEND data where it is asked
at all, so that every injection here is legal in its moment (OOB-5) unless the scenario is about its refusal.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.scenarios.support import RECEIVE_FIN, SEND, SEND_FIN, B, Bench, Completion, P, Script, clone
from tests.scenarios.support_api import Injection, allocate, chained, inject_raw, no_completion
from wfpstream.fwp import NtStatus
from wfpstream.fwps import LayerId, NetBufferList, StreamFlags

SUCCESS = NtStatus.STATUS_SUCCESS
RECEIVE = int(StreamFlags.RECEIVE)
PATIENCE = 30.0
"""Seconds after which a foreign thread that never answers fails the test instead of hanging it."""


def test_sc_81_completion_function_missing() -> None:
    a = Script()
    with Bench(a) as bench:
        nbl = allocate(a, b"x")
        status = inject_raw(a, Injection(SEND, nbl, 1, completion_fn=None))
        assert status == NtStatus.STATUS_FWP_NULL_POINTER
        a.fwps.free_net_buffer_list(nbl)
        status = inject_raw(a, Injection(SEND_FIN, None, 0, completion_fn=None))
        assert status == NtStatus.STATUS_FWP_NULL_POINTER
        bench.settle()
        assert bench.log == []
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("flags", [StreamFlags.SEND_DISCONNECT, StreamFlags.RECEIVE_DISCONNECT])
def test_sc_82_disconnect_without_its_direction(flags: StreamFlags, with_data: bool) -> None:
    a = Script()
    with Bench(a) as bench:
        if with_data:
            status = a.inject_bytes(int(flags), b"x")
        else:
            status = a.inject_null_fin(int(flags))
        assert status == NtStatus.STATUS_FWP_INVALID_PARAMETER
        bench.settle()
        assert bench.log == []
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(0, id="none"),
        pytest.param(SEND | RECEIVE, id="both directions"),
        pytest.param(SEND | StreamFlags.RECEIVE_PUSH, id="flag of the other family"),
        pytest.param(SEND | StreamFlags.SEND_ABORT, id="abort"),
        pytest.param(1 << 31, id="undefined bit"),
    ],
)
def test_sc_83_illegal_stream_flags(flags: int) -> None:
    a = Script()
    with Bench(a) as bench:
        assert a.inject_bytes(int(flags), b"x") == NtStatus.STATUS_FWP_INVALID_PARAMETER
        bench.settle()
        assert bench.log == []
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)


def test_sc_84_chain_of_three_lists() -> None:
    a = Script()
    with Bench(a) as bench:
        chain = chained(*(allocate(a, letter) for letter in (b"a", b"b", b"c")))
        assert a.inject_chain(SEND, chain, 3, a.fwps.free_net_buffer_list) == SUCCESS
        bench.settle()
        assert bench.completions == ["cmp('a', SUCCESS)", "cmp('b', SUCCESS)", "cmp('c', SUCCESS)"]
        context = a.completed_nbls[0].context
        assert a.completed_nbls == [
            Completion(b"a", SUCCESS, context, alone=True, dispatch_level=False),
            Completion(b"b", SUCCESS, context, alone=True, dispatch_level=False),
            Completion(b"c", SUCCESS, context, alone=True, dispatch_level=False),
        ]
        assert bench.calls == []
        assert bench.to_remote == (b"abc", False)
        assert bench.to_local == (b"", False)


def test_sc_84_chain_completes_list_by_list() -> None:
    """CMP-4: a list completes when its last byte was accepted, not when the chain is through."""
    a = Script()
    with Bench(a) as bench:
        bench.flow.remote.window = 2
        chain = chained(*(allocate(a, letters) for letters in (b"a", b"bb", b"c")))
        assert a.inject_chain(SEND, chain, 4, a.fwps.free_net_buffer_list) == SUCCESS
        bench.settle()
        assert bench.completions == ["cmp('a', SUCCESS)"]
        assert bench.to_remote == (b"ab", False)
        bench.flow.remote.window = None
        bench.settle()
        assert bench.completions == ["cmp('a', SUCCESS)", "cmp('bb', SUCCESS)", "cmp('c', SUCCESS)"]
        assert bench.to_remote == (b"abbc", False)


def test_sc_85_fin_without_a_list() -> None:
    a = Script(B(0, clone))
    with Bench(a) as bench:
        bench.send_fin()
        assert bench.log == ["A(S FIN +N)"]
        assert bench.to_remote == (b"", False)
        assert a.inject_null_fin(SEND_FIN) == SUCCESS
        a.discard_pended()
        bench.settle()
        assert bench.log == ["A(S FIN +N)"]
        assert bench.to_remote == (b"", True)
        assert bench.to_local == (b"", False)


def test_sc_86_data_and_fin_in_one_injection() -> None:
    a = Script(B(0, clone))
    with Bench(a) as bench:
        bench.send_fin()
        a.discard_pended()
        assert a.inject_bytes(SEND_FIN, b"end") == SUCCESS
        bench.settle()
        assert bench.log == ["A(S FIN +N)", "cmp('end', SUCCESS)"]
        assert bench.to_remote == (b"end", True)
        assert bench.to_local == (b"", False)


def test_sc_87_injection_after_the_fin_was_permitted() -> None:
    a = Script(P(0))
    with Bench(a) as bench:
        bench.send_fin()
        assert bench.to_remote == (b"", True)
        assert a.inject_bytes(SEND, b"late") == NtStatus.STATUS_CONNECTION_DISCONNECTED
        assert a.inject_null_fin(SEND_FIN) == NtStatus.STATUS_CONNECTION_DISCONNECTED
        bench.settle()
        assert bench.log == ["A(S FIN +N)"]
        assert bench.to_remote == (b"", True)
        assert bench.to_local == (b"", False)


def test_sc_88_injection_while_the_fin_is_pended() -> None:
    a = Script(B(0, clone))
    with Bench(a) as bench:
        bench.send_fin()
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"x", False)
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.log == ["A(S FIN +N)", "cmp('x', SUCCESS)", "cmp(FIN, SUCCESS)"]
        assert bench.to_remote == (b"x", True)
        assert bench.to_local == (b"", False)


@pytest.mark.parametrize("length", [5, 3, 0])
def test_sc_89_length_differs_from_the_chain(length: int) -> None:
    a = Script()
    with Bench(a) as bench:
        nbl = allocate(a, b"abcd")
        status = a.inject_chain(SEND, nbl, length, a.fwps.free_net_buffer_list)
        assert status == NtStatus.STATUS_FWP_INVALID_PARAMETER
        a.fwps.free_net_buffer_list(nbl)
        bench.settle()
        assert bench.log == []
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)


@pytest.mark.parametrize(
    "layer", [LayerId.STREAM_V6, LayerId.STREAM_V4_DISCARD, LayerId.ALE_FLOW_ESTABLISHED_V4]
)
def test_sc_90_layer_that_is_not_the_flows(layer: LayerId) -> None:
    a = Script()
    with Bench(a) as bench:
        nbl = allocate(a, b"x")
        status = inject_raw(a, Injection(SEND, nbl, 1, layer_id=int(layer)))
        assert status == NtStatus.STATUS_FWP_INCOMPATIBLE_LAYER
        a.fwps.free_net_buffer_list(nbl)
        bench.settle()
        assert bench.log == []
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)


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


def test_sc_91_handle_destroyed_while_an_injection_is_stuck() -> None:
    a = Script()
    with Bench(a) as bench:
        handle = stuck_injection(bench, a)
        assert a.fwps.injection_handle_destroy(handle) == NtStatus.STATUS_PENDING
        assert inject_through(a, handle) == NtStatus.STATUS_FWP_INJECT_HANDLE_CLOSING
        bench.settle()
        assert bench.log == []
        bench.flow.remote.window = None
        bench.settle()
        assert bench.log == ["completed"]
        assert bench.to_remote == (b"s", False)
        assert inject_through(a, handle) == NtStatus.STATUS_FWP_INJECT_HANDLE_STALE
        assert bench.to_local == (b"", False)


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


def test_sc_92_engine_stopped() -> None:
    a = Script()
    bench = Bench(a)
    bench.driver.engine.stop()
    nbl = allocate(a, b"x")
    assert inject_raw(a, Injection(SEND, nbl, 1)) == NtStatus.STATUS_FWP_TCPIP_NOT_READY
    a.fwps.free_net_buffer_list(nbl)
    bench.settle()
    assert bench.log == []
    assert bench.to_remote == (b"", False)
    assert bench.to_local == (b"", False)
    bench.check_ledger()
    bench.driver.close()
    assert bench.driver.violations == []


def test_sc_93_list_injected_twice() -> None:
    a = Script()
    with Bench(a, violations=["V-26"]) as bench:
        bench.flow.remote.window = 0
        nbl = allocate(a, b"x")
        assert a.inject_chain(SEND, nbl, 1, a.fwps.free_net_buffer_list) == SUCCESS
        again = a.inject_chain(SEND, nbl, 1, a.fwps.free_net_buffer_list)
        assert again == NtStatus.STATUS_INVALID_PARAMETER
        bench.settle()
        assert bench.log == []
        bench.flow.remote.window = None
        bench.settle()
        assert bench.log == ["cmp('x', SUCCESS)"]
        assert bench.to_remote == (b"x", False)
        assert bench.to_local == (b"", False)


def test_sc_93_freed_list_injected() -> None:
    a = Script()
    with Bench(a, violations=["V-26"]) as bench:
        nbl = allocate(a, b"x")
        a.fwps.free_net_buffer_list(nbl)
        status = a.inject_chain(SEND, nbl, 1, a.fwps.free_net_buffer_list)
        assert status == NtStatus.STATUS_INVALID_PARAMETER
        bench.settle()
        assert bench.log == []
        assert bench.to_remote == (b"", False)


def test_sc_85_receive_fin_without_a_list() -> None:
    """The same towards the local host."""
    a = Script(B(0, clone))
    with Bench(a) as bench:
        bench.receive_fin()
        assert a.inject_null_fin(RECEIVE_FIN) == SUCCESS
        a.discard_pended()
        bench.settle()
        assert bench.log == ["A(R FIN +N)"]
        assert bench.to_local == (b"", True)
        assert bench.to_remote == (b"", False)
