"""Flow contexts, registration and management as the stream layer feels them (SC-94..110, SC-136).

Owns which callout is asked, with which context, after which call on which session.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import NMD, B, Bench, Call, P, Script
from tests.scenarios.support_api import ManagedBench, Notification, Plane, Witness, key, registered
from tests.scenarios.support_connections import Gate, LayerCall, go_on
from wfpstream import fwpm
from wfpstream.fwp import CalloutFlags, Direction, MatchType, NtStatus, uint8, uint16, uint32
from wfpstream.fwps import LayerId, NotifyType

SUCCESS = NtStatus.STATUS_SUCCESS
EXISTS = NtStatus.STATUS_OBJECT_NAME_EXISTS
UNSUCCESSFUL = NtStatus.STATUS_UNSUCCESSFUL
CONDITIONAL = int(CalloutFlags.CONDITIONAL_ON_FLOW)
STREAM = int(LayerId.STREAM_V4)
ADD, DELETE, POST_COMMIT = NotifyType.ADD_FILTER, NotifyType.DELETE_FILTER, NotifyType.ADD_FILTER_POST_COMMIT


def remove(callout: Script, bench: Bench) -> NtStatus:
    """FwpsFlowRemoveContext for the callout's stream layer."""
    return callout.fwps.flow_remove_context(bench.flow.id, STREAM, callout.callout_id(STREAM))


# --- contexts -------------------------------------------------------------------------------------


def test_sc_94_conditional_on_flow_without_a_context() -> None:
    a = Script(then=B(0), action="callout_terminating", flags=CONDITIONAL)
    with Bench(a) as bench:
        bench.send(b"abc")
        bench.receive(b"xyz")
        assert bench.log == []
        assert bench.to_remote == (b"abc", False)
        assert bench.to_local == (b"xyz", False)


@pytest.mark.parametrize("flags", [0, CONDITIONAL])
def test_sc_95_context_associated_at_flow_established(flags: int) -> None:
    a = Witness(flags=flags)
    statuses: list[NtStatus] = []

    def associate(call: LayerCall) -> None:
        statuses.append(a.associate(77, call.meta.flow_handle))
        go_on(call)

    gate = Gate("ale_flow_established", associate)
    with Bench(a, before=lambda driver: driver.add(gate)) as bench:
        assert statuses == [SUCCESS]
        assert gate.calls[0].meta.flow_handle == bench.flow.id
        bench.send(b"abc")
        bench.receive(b"xyz")
        bench.send_fin()
        bench.receive_fin()
        assert bench.log == ["A(S3 'abc')", "A(R3 'xyz')", "A(S FIN +N)", "A(R FIN +N)", "flowDelete(A)"]
        assert a.contexts == [77, 77, 77, 77]
        assert a.deleted == [(STREAM, a.callout_id(STREAM), 77)]
        assert bench.to_remote == (b"abc", True)
        assert bench.to_local == (b"xyz", True)


def test_sc_96_associate_twice() -> None:
    a = Witness()
    with Bench(a) as bench:
        assert a.associate(1) == SUCCESS
        second = a.associate(2)
        assert second == EXISTS
        assert second.ok
        bench.send(b"abc")
        assert a.contexts == [1]
        bench.send_fin()
        bench.receive_fin()
        assert a.deleted == [(STREAM, a.callout_id(STREAM), 1)]
        assert bench.log == ["A(S3 'abc')", "A(S FIN +N)", "A(R FIN +N)", "flowDelete(A)"]
        assert bench.to_remote == (b"abc", True)
        assert bench.to_local == (b"", True)


def test_sc_97_context_zero() -> None:
    a = Witness()
    with Bench(a, violations=["V-48"]) as bench:
        assert a.associate(0) == NtStatus.STATUS_INVALID_PARAMETER
        bench.send(b"abc")
        assert a.contexts == [0]
        assert bench.log == ["A(S3 'abc')"]
        assert bench.to_remote == (b"abc", False)


def test_sc_97_callout_without_flow_delete_function() -> None:
    a = Witness()

    def add(plane: Plane) -> None:
        plane.register(a, flow_delete=False)
        assert plane.own_sub_layer(a)[0] == SUCCESS

    with ManagedBench(a, add=add, violations=["V-48"]) as bench:
        fwps, me = bench.driver.fwps, bench.plane.ids["A"]
        status = fwps.flow_associate_context(bench.flow.id, STREAM, me, 5)
        assert status == NtStatus.STATUS_INVALID_PARAMETER
        bench.send(b"abc")
        assert a.contexts == [0]
        bench.send_fin()
        bench.receive_fin()
        assert bench.log == ["A(S3 'abc')", "A(S FIN +N)", "A(R FIN +N)"]
        assert bench.to_remote == (b"abc", True)
        assert bench.to_local == (b"", True)


def test_sc_98_remove_outside_classify() -> None:
    a = Witness(flags=CONDITIONAL)
    with Bench(a, context=9) as bench:
        bench.send(b"a")
        assert bench.log == ["A(S1 'a')"]
        assert remove(a, bench) == SUCCESS
        assert bench.log == ["A(S1 'a')", "flowDelete(A)"]
        assert a.deleted == [(STREAM, a.callout_id(STREAM), 9)]
        bench.send(b"b")
        bench.receive(b"c")
        assert remove(a, bench) == UNSUCCESSFUL
        bench.send_fin()
        bench.receive_fin()
        assert bench.log == ["A(S1 'a')", "flowDelete(A)"]
        assert bench.to_remote == (b"ab", True)
        assert bench.to_local == (b"c", True)


def test_sc_99_remove_inside_its_own_classify() -> None:
    statuses: list[NtStatus] = []
    log_then: list[list[str]] = []

    def remove_now(call: Call) -> None:
        fwps, me = call.owner.fwps, call.owner.callout_id(STREAM)
        statuses.append(fwps.flow_remove_context(call.flow_id, STREAM, me))
        log_then.append(list(call.owner.transcript.log))
        # CTX-13: while the removal is pending.
        statuses.append(fwps.flow_remove_context(call.flow_id, STREAM, me))
        statuses.append(fwps.flow_associate_context(call.flow_id, STREAM, me, 10))

    a = Witness(P(0), B(0, remove_now), flags=CONDITIONAL)
    with Bench(a, context=9) as bench:
        bench.send(b"a")
        bench.send(b"gone")
        assert statuses == [NtStatus.STATUS_PENDING, UNSUCCESSFUL, EXISTS]
        assert log_then == [["A(S1 'a')", "A(S4 'gone')"]]
        assert bench.log == ["A(S1 'a')", "A(S4 'gone')", "flowDelete(A)"]
        assert a.deleted == [(STREAM, a.callout_id(STREAM), 9)]
        assert bench.to_remote == (b"a", False)
        bench.send(b"b")
        assert bench.log == ["A(S1 'a')", "A(S4 'gone')", "flowDelete(A)"]
        assert bench.to_remote == (b"ab", False)
        assert bench.to_local == (b"", False)


def test_sc_100_remove_while_data_is_held() -> None:
    a = Witness(NMD(9), flags=CONDITIONAL)
    with Bench(a, context=9) as bench:
        bench.send(b"held")
        assert bench.to_remote == (b"", False)
        assert remove(a, bench) == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"held", False)
        bench.send(b"+more")
        assert bench.log == ["A(S4 'held')", "flowDelete(A)"]
        assert bench.to_remote == (b"held+more", False)
        assert bench.to_local == (b"", False)


# --- registration ---------------------------------------------------------------------------------


def test_sc_101_unregister_with_a_live_context() -> None:
    a = Witness()
    with ManagedBench(a, add=registered(a)) as bench:
        fwps, me = bench.driver.fwps, bench.plane.ids["A"]
        assert fwps.flow_associate_context(bench.flow.id, STREAM, me, 5) == SUCCESS
        assert fwps.callout_unregister_by_id(me) == NtStatus.STATUS_DEVICE_BUSY
        assert fwps.callout_unregister_by_key(key("A")) == NtStatus.STATUS_DEVICE_BUSY
        bench.send(b"abc")
        assert bench.log == ["A(S3 'abc')"]
        assert a.contexts == [5]
        assert fwps.flow_remove_context(bench.flow.id, STREAM, me) == SUCCESS
        assert bench.log == ["A(S3 'abc')", "flowDelete(A)"]
        assert fwps.callout_unregister_by_id(me) == SUCCESS
        assert fwps.callout_unregister_by_id(me) == NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND
        # UNR-4: the filter of type UNKNOWN still names it and blocks from now on.
        bench.send(b"d")
        assert bench.log == ["A(S3 'abc')", "flowDelete(A)"]
        assert bench.to_remote == (b"abc", False)
        assert bench.to_local == (b"", False)


@pytest.mark.parametrize("action", ["callout_terminating", "callout_unknown"])
@pytest.mark.parametrize("permit", [False, True])
def test_sc_102_callout_not_registered(action: str, permit: bool) -> None:
    a = Script(action=action)
    flag = fwpm.FilterFlags.PERMIT_IF_CALLOUT_UNREGISTERED if permit else 0

    def add(plane: Plane) -> None:
        assert plane.own_sub_layer(a, flags=int(flag))[0] == SUCCESS

    with ManagedBench(a, add=add) as bench:
        bench.send(b"abc")
        bench.send_fin()
        assert bench.to_remote == ((b"abc", True) if permit else (b"", False))
        assert bench.to_local == (b"", False)
        assert bench.resets == (False, False)
        assert not bench.flow.ended
        assert bench.log == []


def test_sc_102_inspection_callout_not_registered() -> None:
    a = Script(action="callout_inspection")

    def add(plane: Plane) -> None:
        assert plane.own_sub_layer(a)[0] == SUCCESS

    with ManagedBench(a, add=add) as bench:
        bench.send(b"abc")
        bench.send_fin()
        assert bench.to_remote == (b"abc", True)
        assert bench.to_local == (b"", False)
        assert bench.log == []


@pytest.mark.parametrize("mid_stream", [False, True])
def test_sc_103_callout_added_after_the_flow_began(mid_stream: bool) -> None:
    a = Witness(flags=int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION) if mid_stream else 0)
    with Bench() as bench:
        a.transcript = bench.transcript
        bench.send(b"before")
        bench.driver.add(a)
        bench.settle()
        assert bench.log == []
        bench.send(b"after")
        bench.receive(b"too")
        assert bench.log == (["A(S5 'after')", "A(R3 'too')"] if mid_stream else [])
        assert a.mid_stream == ([True, True] if mid_stream else [])
        assert bench.to_remote == (b"beforeafter", False)
        assert bench.to_local == (b"too", False)
        newer = bench.driver.connect()
        assert newer is not None
        bench.transcript.log.clear()
        newer.send(b"new")
        bench.settle()
        assert bench.log == ["A(S3 'new')"]
        assert not a.mid_stream[-1]
        assert newer.remote.data == b"new"
        bench.check_ledger(newer)


@pytest.mark.parametrize("mid_stream", [False, True])
def test_sc_103_callout_registered_after_its_filter_and_the_flow(mid_stream: bool) -> None:
    """The filter blocks (REG-5) until the callout is registered; then MID-1 decides."""
    a = Witness(flags=int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION) if mid_stream else 0)

    def add(plane: Plane) -> None:
        assert plane.own_sub_layer(a)[0] == SUCCESS

    with ManagedBench(a, add=add) as bench:
        bench.send(b"lost")
        assert bench.to_remote == (b"", False)
        bench.plane.register(a)
        bench.send(b"seen")
        assert bench.log == (["A(S4 'seen')"] if mid_stream else [])
        assert bench.to_remote == (b"seen", False)
        assert bench.to_local == (b"", False)
        assert a.notified == []  # NTF-4


# --- management -----------------------------------------------------------------------------------


def test_sc_104_notify_function_refuses_the_filter() -> None:
    a = Witness()
    a.answer_to_notify = UNSUCCESSFUL
    statuses: list[NtStatus] = []

    def add(plane: Plane) -> None:
        plane.register(a)
        statuses.append(plane.own_sub_layer(a)[0])

    with ManagedBench(a, add=add) as bench:
        assert statuses == [NtStatus.STATUS_FWP_CALLOUT_NOTIFICATION_FAILED]
        assert [(one.notify_type, one.filter_key) for one in a.notified] == [(ADD, key("filter A"))]
        absent = bench.driver.session.filter_delete_by_key(key("filter A"))
        assert absent == NtStatus.STATUS_FWP_FILTER_NOT_FOUND
        bench.send(b"abc")
        assert bench.log == []
        assert bench.to_remote == (b"abc", False)


def test_sc_105_filter_deleted_while_its_callout_waits() -> None:
    a = Witness(NMD(4), P(0))
    ids: list[int] = []

    def add(plane: Plane) -> None:
        plane.register(a)
        status, filter_id = plane.own_sub_layer(a)
        assert status == SUCCESS
        ids.append(filter_id)

    with ManagedBench(a, add=add, violations=["V-38"]) as bench:
        session = bench.driver.session
        bench.send(b"ab")
        assert session.filter_delete_by_id(ids[0]) == NtStatus.STATUS_FWP_IN_USE
        assert [one.notify_type for one in a.notified] == [ADD]
        bench.send(b"cd")
        assert bench.log == ["A(S2 'ab')", "A(S4 'abcd')"]
        assert session.filter_delete_by_id(ids[0]) == SUCCESS
        assert a.notified == [
            Notification(ADD, key("filter A"), ids[0], None),
            Notification(DELETE, None, ids[0], None),
        ]
        bench.send(b"ef")
        assert bench.log == ["A(S2 'ab')", "A(S4 'abcd')"]
        assert bench.to_remote == (b"abcdef", False)
        assert bench.to_local == (b"", False)


@pytest.mark.parametrize("post_commit", [False, True])
def test_sc_106_filter_in_a_transaction(post_commit: bool) -> None:
    a = Witness(flags=int(CalloutFlags.ENABLE_COMMIT_ADD_NOTIFY) if post_commit else 0)
    with ManagedBench(a) as bench:
        bench.plane.register(a)
        session = bench.plane.session
        assert session.transaction_begin() == SUCCESS
        assert bench.plane.own_sub_layer(a)[0] == SUCCESS
        assert [one.notify_type for one in a.notified] == [ADD]
        during = bench.connect()
        during.send(b"during")
        bench.settle()
        assert bench.log == []
        assert during.remote.data == b"during"
        assert session.transaction_commit() == SUCCESS
        bench.settle()
        assert [one.notify_type for one in a.notified] == ([ADD, POST_COMMIT] if post_commit else [ADD])
        after = bench.connect()
        after.send(b"after")
        bench.settle()
        assert bench.log == ["A(S5 'after')"]
        assert after.remote.data == b"after"
        bench.check_ledger(during)
        bench.check_ledger(after)


def test_sc_106_aborted_transaction() -> None:
    """NTF-7: whoever was told of the filter is told that it went."""
    a = Witness()
    with ManagedBench(a) as bench:
        bench.plane.register(a)
        session = bench.plane.session
        assert session.transaction_begin() == SUCCESS
        assert bench.plane.own_sub_layer(a)[0] == SUCCESS
        assert session.transaction_abort() == SUCCESS
        bench.settle()
        assert [(one.notify_type, one.filter_key) for one in a.notified] == [
            (ADD, key("filter A")),
            (DELETE, None),
        ]
        flow = bench.connect()
        flow.send(b"abc")
        bench.settle()
        assert bench.log == []
        assert flow.remote.data == b"abc"
        bench.check_ledger(flow)


def test_sc_107_dynamic_session_closed_mid_flow() -> None:
    a = Witness()

    def add(plane: Plane) -> None:
        status, session = plane.driver.engine.management.engine_open(int(fwpm.SessionFlags.DYNAMIC))
        assert status == SUCCESS
        assert session is not None
        plane.session = session
        plane.register(a)
        assert plane.own_sub_layer(a)[0] == SUCCESS

    with ManagedBench(a, add=add) as bench:
        bench.send(b"abc")
        assert bench.log == ["A(S3 'abc')"]
        assert bench.plane.session.engine_close() == SUCCESS
        bench.settle()
        assert [(one.notify_type, one.filter_key) for one in a.notified] == [
            (ADD, key("filter A")),
            (DELETE, None),
        ]
        bench.send(b"def")
        bench.receive(b"xyz")
        assert bench.log == ["A(S3 'abc')"]
        assert bench.to_remote == (b"abcdef", False)
        assert bench.to_local == (b"xyz", False)
        assert not bench.flow.ended
        assert (
            bench.driver.session.filter_delete_by_key(key("filter A")) == NtStatus.STATUS_FWP_FILTER_NOT_FOUND
        )


def test_sc_108_direction_is_that_of_the_connection() -> None:
    a = Script()
    inbound = fwpm.FilterCondition(fwpm.CONDITION_DIRECTION, MatchType.EQUAL, uint32(Direction.INBOUND))
    with ManagedBench(a, add=registered(a, conditions=(inbound,))) as bench:
        bench.receive(b"xyz")
        bench.send(b"abc")
        assert bench.log == []
        assert bench.to_local == (b"xyz", False)
        assert bench.to_remote == (b"abc", False)
        accepted = bench.driver.connect(local="server")
        assert accepted is not None
        accepted.send(b"s")
        accepted.receive(b"r")
        bench.settle()
        assert bench.log == ["A(S1 's')", "A(R1 'r')"]
        bench.check_ledger(accepted)


def test_sc_109_condition_the_stream_layer_does_not_offer() -> None:
    a = Script()
    statuses: list[NtStatus] = []
    protocol = fwpm.FilterCondition(fwpm.CONDITION_IP_PROTOCOL, MatchType.EQUAL, uint8(6))

    def add(plane: Plane) -> None:
        plane.register(a)
        statuses.append(plane.own_sub_layer(a, conditions=(protocol,))[0])

    with ManagedBench(a, add=add, violations=["V-55"]) as bench:
        assert statuses == [NtStatus.STATUS_FWP_CONDITION_NOT_FOUND]
        bench.send(b"abc")
        assert bench.log == []
        assert bench.to_remote == (b"abc", False)


def test_sc_110_conditions_on_one_field_are_alternatives() -> None:
    a = Script()
    conditions = tuple(
        fwpm.FilterCondition(fwpm.CONDITION_IP_REMOTE_PORT, MatchType.EQUAL, uint16(port))
        for port in (80, 8080)
    )
    with ManagedBench(a, add=registered(a, conditions=conditions)) as bench:
        for port, log in ((80, ["A(S2 'hi')"]), (8080, ["A(S2 'hi')"]), (81, [])):
            bench.transcript.log.clear()
            flow = bench.driver.connect(server=("10.0.0.2", port))
            assert flow is not None
            flow.send(b"hi")
            bench.settle()
            assert bench.log == log
            assert flow.remote.data == b"hi"
            bench.check_ledger(flow)


CONTEXT_FLAG = int(fwpm.CalloutFlags.USES_PROVIDER_CONTEXT)


def test_sc_136_provider_context() -> None:
    """What configuration calls `options` of a filter: the callout finds it in `filter.provider_context`."""
    a, b = Witness(), Witness(name="B")
    context = fwpm.ProviderContext(
        provider_context_key=key("n is three"), display_data=fwpm.DisplayData("n is three"), data=b"n=3"
    )
    named_by_a = {
        "flags": int(fwpm.FilterFlags.HAS_PROVIDER_CONTEXT),
        "provider_context_key": context.provider_context_key,
    }

    def add(plane: Plane) -> None:
        assert plane.session.provider_context_add(context) == SUCCESS
        for code, members in ((a, named_by_a), (b, {})):
            plane.register(code)
            assert plane.own_sub_layer(code, callout_flags=CONTEXT_FLAG, **members)[0] == SUCCESS

    with ManagedBench(a, b, add=add) as bench:
        session = bench.plane.session
        bench.send(b"abc")
        bench.receive(b"xyz")
        assert bench.log == ["A(S3 'abc')", "B(S3 'abc')", "A(R3 'xyz')", "B(R3 'xyz')"]
        assert data_of(a.provider_contexts) == [b"n=3", b"n=3"]
        assert b.provider_contexts == [None, None]
        in_use = session.provider_context_delete_by_key(context.provider_context_key)
        assert in_use == NtStatus.STATUS_FWP_IN_USE
        assert session.filter_delete_by_key(key("filter A")) == SUCCESS
        assert session.filter_delete_by_key(key("filter B")) == SUCCESS
        assert [one.notify_type for one in a.notified] == [ADD, DELETE]
        assert data_of([one.provider_context for one in a.notified]) == [b"n=3", b"n=3"]
        assert [one.provider_context for one in b.notified] == [None, None]
        assert session.provider_context_delete_by_key(context.provider_context_key) == SUCCESS
        assert bench.to_remote == (b"abc", False)
        assert bench.to_local == (b"xyz", False)


def data_of(seen: list[object]) -> list[object]:
    """The data of the provider context records."""
    return [one.data for one in seen if isinstance(one, fwpm.ProviderContext)]


def test_sc_136_options_of_a_filter() -> None:
    """MGMT-18: options are decoded once and reach the callout as one object."""
    options = {"n": 3}
    a, b = Witness(), Witness(name="B")

    def add(plane: Plane) -> None:
        for code, members in ((a, {"provider_object": options}), (b, {})):
            plane.register(code)
            assert plane.own_sub_layer(code, callout_flags=CONTEXT_FLAG, **members)[0] == SUCCESS

    with ManagedBench(a, b, add=add) as bench:
        bench.send(b"abc")
        assert a.provider_contexts == [{"n": 3}]
        assert a.provider_contexts[0] is options
        assert [one.provider_context for one in a.notified] == [{"n": 3}]
        assert b.provider_contexts == [None]
        assert [one.provider_context for one in b.notified] == [None]
        assert bench.log == ["A(S3 'abc')", "B(S3 'abc')"]
        assert bench.to_remote == (b"abc", False)
