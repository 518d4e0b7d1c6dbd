"""What keeps a filter, a callout object and a registration in use (MGMT-13, MGMT-14, MGMT-15, UNR-2, UNR-4, UNR-8).

Owns the refusals on the way out of an engine, in the order a driver meets them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scenarios.support import (
    DEF,
    NMD,
    RECEIVE_FIN,
    RECEIVE_PUSH,
    B,
    Bench,
    Call,
    P,
    Pended,
    Script,
    clone,
)
from tests.scenarios.support_api import ManagedBench, key, registered
from wfpstream import fwpm
from wfpstream.fwp import NtStatus
from wfpstream.fwps import LayerId, NetBufferList
from wfpstream.testing import FlowEnds

SUCCESS, IN_USE = NtStatus.STATUS_SUCCESS, NtStatus.STATUS_FWP_IN_USE
STREAM = int(LayerId.STREAM_V4)


def reference(call: Call) -> None:
    chain = call.packet.stream_data.net_buffer_list_chain
    assert isinstance(chain, NetBufferList)
    call.owner.fwps.reference_net_buffer_list(chain)
    call.owner.pended.append(Pended(chain, len(call.data), call.flags))


def release_reference(a: Script) -> None:
    a.fwps.dereference_net_buffer_list(a.pended.pop().chain)


def inject_all(a: Script) -> None:
    assert a.inject_pended() == SUCCESS


def inject_fin(a: Script) -> None:
    assert a.inject_null_fin(RECEIVE_FIN) == SUCCESS


def go_on(a: Script) -> None:
    assert a.resume(RECEIVE_PUSH) == SUCCESS


def discard(a: Script) -> None:
    a.discard_pended()


@pytest.mark.parametrize(
    ("script", "fin", "release", "arrived", "log"),
    [
        pytest.param(
            lambda: Script(B(0, clone)),
            False,
            inject_all,
            b"x",
            ["A(R1 'x')", "cmp('x', SUCCESS)"],
            id="clone, injected",
        ),
        pytest.param(lambda: Script(B(0, clone)), False, discard, b"", ["A(R1 'x')"], id="clone, discarded"),
        pytest.param(
            lambda: Script(B(0, reference)), False, release_reference, b"", ["A(R1 'x')"], id="reference"
        ),
        pytest.param(lambda: Script(B(0)), True, inject_fin, b"", ["A(R FIN +N)"], id="pended FIN"),
        pytest.param(
            lambda: Script(DEF(), P(0)), False, go_on, b"x", ["A(R1 'x')", "A(R1 'x')"], id="deferred"
        ),
    ],
)
@pytest.mark.parametrize("flow_number", [0, 1])
def test_mgmt_14_what_counts_as_busy_on_any_flow(
    script: Callable[[], Script],
    fin: bool,
    release: Callable[[Script], None],
    arrived: bytes,
    log: list[str],
    flow_number: int,
) -> None:
    """MGMT-13, MGMT-14: STATUS_FWP_IN_USE, V-38, nothing changed; afterwards the deletion works."""
    a = script()
    with Bench(a, violations=["V-38"]) as bench:
        flows: list[FlowEnds] = [bench.flow, bench.connect()]
        flow = flows[flow_number]
        a.flow_id = flow.id
        flow.receive_fin() if fin else flow.receive(b"x")
        session, filter_id = bench.driver.session, bench.added[0].filter_ids[0]
        assert session.filter_delete_by_id(filter_id) == IN_USE
        release(a)
        bench.settle()
        assert session.filter_delete_by_id(filter_id) == SUCCESS
        bench.added[0].filter_ids.pop(0)
        assert bench.log == log
        assert (bytes(flow.local.data), flow.local.fin) == (arrived, fin)
        assert bench.to_local == ((arrived, fin) if flow is bench.flow else (b"", False))


def test_mgmt_14_an_injection_that_has_not_completed() -> None:
    """MGMT-14: busy until the completion, although the callout holds nothing any more."""
    a = Script(B(0, clone))
    with Bench(a, violations=["V-38"]) as bench:
        session, filter_id = bench.driver.session, bench.added[0].filter_ids[0]
        bench.flow.local.window = 0
        bench.receive(b"x")
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert session.filter_delete_by_id(filter_id) == IN_USE
        bench.flow.local.window = None
        bench.settle()
        assert bench.completions == ["cmp('x', SUCCESS)"]
        assert session.filter_delete_by_id(filter_id) == SUCCESS
        bench.added[0].filter_ids.pop(0)
        assert bench.to_local == (b"x", False)


def test_mgmt_14_a_clone_of_permitted_bytes_is_not_busy() -> None:
    """MGMT-14: only a clone whose bytes the callout blocked."""
    a = Script(P(0, clone))
    with Bench(a) as bench:
        bench.receive(b"x")
        assert bench.driver.session.filter_delete_by_id(bench.added[0].filter_ids[0]) == SUCCESS
        bench.added[0].filter_ids.pop(0)
        a.discard_pended()
        assert bench.to_local == (b"x", False)


def test_mgmt_13_forced_removal_releases_what_is_held() -> None:
    """MGMT-13: end of a dynamic session: held data released as permitted, V-38."""
    a = Script(NMD(9))
    with ManagedBench(a, add=lambda plane: plane.register(a), violations=["V-38"]) as bench:
        status, session = bench.driver.engine.management.engine_open(int(fwpm.SessionFlags.DYNAMIC))
        assert status == SUCCESS
        assert session is not None
        plane, mine = bench.plane, bench.plane.session
        plane.session = session
        assert plane.own_sub_layer(a)[0] == SUCCESS
        plane.session = mine
        flow = bench.driver.connect()
        assert flow is not None
        flow.send(b"held")
        assert flow.remote.data == b""
        assert session.engine_close() == SUCCESS
        bench.settle()
        flow.send(b"+more")
        assert flow.remote.data == b"held+more"
        assert bench.log == ["A(S4 'held')"]


def test_mgmt_15_a_callout_object_with_filters() -> None:
    """MGMT-15: STATUS_FWP_IN_USE; unknown: CALLOUT_NOT_FOUND; the code stays registered."""
    a = Script()
    with ManagedBench(a, add=registered(a)) as bench:
        session = bench.plane.session
        assert session.callout_delete_by_key(key("A")) == IN_USE
        assert session.callout_delete_by_key(key("nobody")) == NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND
        assert session.filter_delete_by_key(key("filter A")) == SUCCESS
        assert session.callout_delete_by_key(key("A")) == SUCCESS
        assert bench.driver.fwps.callout_unregister_by_key(key("A")) == SUCCESS


@pytest.mark.parametrize("handle_first", [True, False])
def test_unr_8_both_orders_of_shutting_down(handle_first: bool) -> None:
    """UNR-2, UNR-4, UNR-8: contexts, then handle and unregister in either order, then the objects."""
    a = Script(action="callout_inspection")
    with ManagedBench(a, add=registered(a)) as bench:
        fwps, me, session = bench.driver.fwps, bench.plane.ids["A"], bench.plane.session
        status, handle = fwps.injection_handle_create(0, 1)
        assert status == SUCCESS
        assert fwps.flow_associate_context(bench.flow.id, STREAM, me, 5) == SUCCESS
        assert fwps.callout_unregister_by_id(me) == NtStatus.STATUS_DEVICE_BUSY
        assert fwps.flow_remove_context(bench.flow.id, STREAM, me) == SUCCESS
        steps: list[Callable[[], NtStatus]] = [
            lambda: fwps.injection_handle_destroy(handle),
            lambda: fwps.callout_unregister_by_id(me),
        ]
        for step in steps if handle_first else reversed(steps):
            assert step() == SUCCESS
        assert bench.log == ["flowDelete(A)"]
        bench.send(b"x")
        assert bench.to_remote == (b"x", False)
        assert session.filter_delete_by_key(key("filter A")) == SUCCESS
        assert session.callout_delete_by_key(key("A")) == SUCCESS
