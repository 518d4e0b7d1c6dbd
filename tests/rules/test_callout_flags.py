"""Callout flags and function versions (CFN-*).

Owns what each flag changes, and which arguments each version of a function gets.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.support import B, Bench, C, Call, P, Recording, Script, clone
from tests.scenarios.support_api import (
    ManagedBench,
    Plane,
    Witness,
    key,
)
from wfpstream.fwp import ActionType, CalloutFlags, NtStatus
from wfpstream.fwps import (
    Callout,
    Callout0,
    Callout1,
    Callout2,
    ClassifyOut,
    Filter,
    Filter0,
    Filter1,
    Filter2,
    LayerId,
    NotifyType,
    StreamCalloutIoPacket,
)
from wfpstream.testing import MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS
STREAM = int(LayerId.STREAM_V4)


def nothing(*arguments: object) -> None:
    """A classifyFn that leaves everything as it came."""


def agree(notify_type: int, filter_key: object, filter: object) -> int:
    return int(SUCCESS)


# --- callout flags --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flag",
    [
        pytest.param(CalloutFlags.ALLOW_OFFLOAD, id="cfn_2_offload"),
        pytest.param(CalloutFlags.ALLOW_RECLASSIFY, id="cfn_5_reclassify"),
        pytest.param(CalloutFlags.ALLOW_RSC, id="cfn_7_rsc"),
        pytest.param(CalloutFlags.ALLOW_USO, id="cfn_9_uso"),
        pytest.param(CalloutFlags.ALLOW_URO, id="cfn_9_uro"),
    ],
)
def test_cfn_flags_without_an_effect_at_the_stream_layer(flag: CalloutFlags) -> None:
    """CFN-2, CFN-5, CFN-7, CFN-9: accepted, no-op: the same calls as without; nothing is coalesced."""
    a = Recorder2(flags=int(flag))
    with Bench(a) as bench:
        bench.send(b"ab", b"c")
        bench.receive(b"d")
        assert bench.log == ["A(S2 'ab')", "A(S1 'c')", "A(R1 'd')"]
        assert bench.to_remote == (b"abc", False)
        assert bench.to_local == (b"d", False)


class Recorder2(Script):
    """A script registered through version 2, which knows every flag."""

    version = 2


@pytest.mark.parametrize("action", ["callout_terminating", "callout_unknown", "callout_inspection"])
def test_cfn_1_without_a_context_it_is_as_if_the_filter_did_not_match(action: str) -> None:
    """CFN-1: skipped, in both directions and at the FIN, without blocking, even under TERMINATING; a context of
    another flow or of another callout does not count."""
    conditional = int(CalloutFlags.CONDITIONAL_ON_FLOW)
    a = Witness(then=C(0) if action == "callout_inspection" else P(0), action=action, flags=conditional)
    b = Witness(then=C(0), name="B")
    with Bench(a, b) as bench:
        other = bench.connect()
        assert a.associate(1, other.id) == SUCCESS
        assert b.associate(2, bench.flow.id) == SUCCESS
        bench.send(b"x")
        bench.receive(b"y")
        bench.send_fin()
        assert bench.log == ["B(S1 'x')", "B(R1 'y')", "B(S FIN +N)"]
        assert (bench.to_remote, bench.to_local) == ((b"x", True), (b"y", False))
        other.send(b"z")
        bench.settle()
        # A terminating filter's permit or an inspection's continue: either way the next sublayer is asked.
        assert bench.log[3:] == ["A(S1 'z')", "B(S1 'z')"]
        assert a.contexts == [1]


def test_cfn_1_a_context_is_for_one_layer() -> None:
    """CFN-1: for (flow, layer, callout): one at FLOW_ESTABLISHED does not make the stream layer ask."""
    conditional = int(CalloutFlags.CONDITIONAL_ON_FLOW)
    a = Witness(flags=conditional)
    with Bench(a) as bench:
        established = int(LayerId.ALE_FLOW_ESTABLISHED_V4)
        me = a.callout_id(STREAM)
        a.fwps.flow_associate_context(bench.flow.id, established, me, 1)
        bench.send(b"x")
        assert bench.log == []
        assert bench.to_remote == (b"x", False)
        assert a.associate(2) == SUCCESS
        bench.send(b"y")
        assert bench.log == ["A(S1 'y')"]
        assert a.contexts == [2]


@pytest.mark.parametrize(
    ("flags", "types"),
    [(0, [NotifyType.ADD_FILTER]), (4, [NotifyType.ADD_FILTER, NotifyType.ADD_FILTER_POST_COMMIT])],
)
def test_cfn_3_post_commit_notification_only_with_the_flag(flags: int, types: list[int]) -> None:
    """CFN-3: ENABLE_COMMIT_ADD_NOTIFY adds ADD_FILTER_POST_COMMIT after an explicit transaction (NTF-6)."""
    a = Witness(flags=flags)

    def add(plane: Plane) -> None:
        plane.register(a)
        assert plane.session.transaction_begin() == SUCCESS
        assert plane.own_sub_layer(a)[0] == SUCCESS
        assert plane.session.transaction_commit() == SUCCESS

    with ManagedBench(a, add=add):
        assert [one.notify_type for one in a.notified] == types


@pytest.mark.parametrize(("flags", "log"), [(0, []), (8, ["A(S1 'b')"])])
def test_cfn_4_mid_stream_inspection_only_with_the_flag(flags: int, log: list[str]) -> None:
    """CFN-4: ALLOW_MID_STREAM_INSPECTION decides about flows that exist already (MID-1)."""
    a = Script(flags=flags)
    with Bench() as bench:
        a.transcript = bench.transcript
        bench.send(b"a")
        bench.driver.add(a)
        bench.send(b"b")
        assert bench.log == log
        assert bench.to_remote == (b"ab", False)


@pytest.mark.parametrize("flag", [CalloutFlags.RESERVED1, CalloutFlags.RESERVED2])
def test_cfn_6_reserved_flags(flag: CalloutFlags) -> None:
    """CFN-6: accepted, ignored, lint V-45 (once for each registration: IPv4 and IPv6)."""
    a = Recorder2(flags=int(flag))
    with Bench(a, violations=["V-45", "V-45"]) as bench:
        bench.send(b"ab")
        assert bench.log == ["A(S2 'ab')"]
        assert bench.to_remote == (b"ab", False)


def test_cfn_8_layer_2_flag_forbids_cloning_single_lists() -> None:
    """CFN-8: FwpsAllocateCloneNetBufferList0 → STATUS_INVALID_PARAMETER; FwpsCloneStreamData is unaffected."""
    statuses: list[NtStatus] = []

    def clone_list(call: Call) -> None:
        chain = call.packet.stream_data.net_buffer_list_chain
        assert chain is not None
        status, made = call.owner.fwps.allocate_clone_net_buffer_list(chain)
        statuses.append(status)
        assert made is None

    a = Recorder2(B(0, clone_list, clone), flags=int(CalloutFlags.ALLOW_L2_BATCH_CLASSIFY))
    with Bench(a) as bench:
        bench.send(b"ab")
        assert statuses == [NtStatus.STATUS_INVALID_PARAMETER]
        assert a.pended[0].chain.tobytes() == b"ab"
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.log == ["A(S2 'ab')", "cmp('ab', SUCCESS)"]
        assert bench.to_remote == (b"ab", False)


@pytest.mark.parametrize("flags", [0x800, 0x8000_0000, 0x801])
def test_cfn_10_bits_outside_the_documented_set(flags: int) -> None:
    """CFN-10: STATUS_FWP_INVALID_FLAGS."""
    with MemoryDriver() as driver:
        status, callout_id = driver.fwps.callout_register2(None, Callout2(key("f"), flags, nothing, agree))
        assert status == NtStatus.STATUS_FWP_INVALID_FLAGS
        assert callout_id == 0


# --- function versions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "count", "filter_type"), [(0, 6, Filter0), (1, 7, Filter1), (2, 7, Filter2)]
)
def test_cfn_12_what_each_version_is_called_with(
    version: int, count: int, filter_type: type[Filter0]
) -> None:
    """CFN-11, CFN-12: version 0 has no classifyContext; 1 and 2 have it after layerData."""
    seen: list[tuple[Any, ...]] = []

    def classify(*arguments: Any) -> None:
        seen.append(arguments)
        arguments[-1].action_type = ActionType.PERMIT

    with MemoryDriver() as driver:
        plane, fwps = Plane(driver), driver.fwps
        a = Script()
        structure = (Callout0, Callout1, Callout2)[version]
        register = (fwps.callout_register0, fwps.callout_register1, fwps.callout_register2)[version]
        status, callout_id = register(None, structure(key("A"), 0, classify, agree))
        assert status == SUCCESS
        assert plane.own_sub_layer(a)[0] == SUCCESS
        flow = driver.connect()
        assert flow is not None
        flow.send(b"x")
        (arguments,) = seen
        assert len(arguments) == count
        fixed, meta, layer_data, *context, filter, flow_context, out = arguments
        assert fixed.layer_id == STREAM
        assert meta.flow_handle == flow.id
        assert isinstance(layer_data, StreamCalloutIoPacket)
        assert len(context) == (0 if version == 0 else 1)
        assert isinstance(filter, filter_type)
        assert filter.callout_id == callout_id
        assert flow_context == 0
        assert isinstance(out, ClassifyOut)
        plane.unload()
        assert fwps.callout_unregister_by_id(callout_id) == SUCCESS


@pytest.mark.parametrize("version", [0, 1, 2])
def test_cfn_13_layer_data_is_always_the_io_packet(version: int) -> None:
    """CFN-13: never NULL, never a list: data, FIN and ABORT, in all versions."""
    seen: list[tuple[type, int]] = []

    def classify(fixed: Any, meta: Any, layer_data: Any, *more: Any) -> None:
        seen.append((type(layer_data), len(layer_data.stream_data)))
        more[-1].action_type = ActionType.PERMIT

    with MemoryDriver() as driver:
        plane, fwps = Plane(driver), driver.fwps
        structure = (Callout0, Callout1, Callout2)[version]
        register = (fwps.callout_register0, fwps.callout_register1, fwps.callout_register2)[version]
        status, callout_id = register(None, structure(key("A"), 0, classify, agree))
        assert status == SUCCESS
        assert plane.own_sub_layer(Script())[0] == SUCCESS
        flow = driver.connect()
        assert flow is not None
        flow.send(b"xy")
        flow.send_fin()
        flow.reset("remote")
        assert seen == [(StreamCalloutIoPacket, 2), (StreamCalloutIoPacket, 0), (StreamCalloutIoPacket, 0)]
        plane.unload()
        assert fwps.callout_unregister_by_id(callout_id) == SUCCESS


@pytest.mark.parametrize("version", [0, 1, 2])
def test_cfn_14_notify_and_flow_delete_are_the_same_in_all_versions(version: int) -> None:
    """CFN-14: notifyFn(notifyType, filterKey, filter); flowDeleteFn(layerId, calloutId, context)."""
    notified: list[tuple[Any, ...]] = []
    deleted: list[tuple[Any, ...]] = []

    def notify(*arguments: Any) -> int:
        notified.append(arguments)
        return int(SUCCESS)

    def flow_delete(*arguments: Any) -> None:
        deleted.append(arguments)

    def classify(*arguments: Any) -> None:
        arguments[-1].action_type = ActionType.PERMIT

    with MemoryDriver() as driver:
        plane, fwps = Plane(driver), driver.fwps
        structure = (Callout0, Callout1, Callout2)[version]
        register = (fwps.callout_register0, fwps.callout_register1, fwps.callout_register2)[version]
        status, callout_id = register(None, structure(key("A"), 0, classify, notify, flow_delete))
        assert status == SUCCESS
        status, filter_id = plane.own_sub_layer(Script())
        assert status == SUCCESS
        flow = driver.connect()
        assert flow is not None
        assert fwps.flow_associate_context(flow.id, STREAM, callout_id, 12) == SUCCESS
        flow.send_fin()
        flow.receive_fin()
        assert deleted == [(STREAM, callout_id, 12)]
        assert [(kind, filter_key, one.filter_id) for kind, filter_key, one in notified] == [
            (NotifyType.ADD_FILTER, key("filter A"), filter_id)
        ]
        plane.unload()
        assert len(notified) == 2
        assert fwps.callout_unregister_by_id(callout_id) == SUCCESS


def test_cfn_15_the_third_family_is_version_2() -> None:
    """CFN-15: Register3 is an alias of version 2."""
    seen: list[int] = []

    def classify(*arguments: Any) -> None:
        seen.append(len(arguments))
        arguments[-1].action_type = ActionType.PERMIT

    with MemoryDriver() as driver:
        plane = Plane(driver)
        status, callout_id = driver.fwps.callout_register3(None, Callout2(key("A"), 0, classify, agree))
        assert status == SUCCESS
        assert plane.own_sub_layer(Script())[0] == SUCCESS
        flow = driver.connect()
        assert flow is not None
        flow.send(b"x")
        assert seen == [7]
        plane.unload()
        assert driver.fwps.callout_unregister_by_id(callout_id) == SUCCESS


class Returns(Recording):
    """Answers BLOCK and returns something that looks like the opposite."""

    def decide(self, call: Call) -> Any:
        return B(0)

    def classify_fn(self, *arguments: Any) -> Any:
        super().classify_fn(*arguments)
        return ActionType.PERMIT


def test_cfn_16_the_answer_is_only_what_is_written() -> None:
    """CFN-16: classifyFn returns nothing; a return value means nothing."""
    a = Returns()
    with Bench(a) as bench:
        bench.send(b"ab")
        assert bench.log == ["A(S2 'ab')"]
        assert bench.to_remote == (b"", False)


def test_cfn_17_names_without_a_digit_mean_the_newest() -> None:
    """CFN-17: `Filter` is `Filter2`; the comfortable `Callout` is version 2; a script of version 1 works."""
    assert Filter is Filter2
    assert Callout.version == 2
    a, b = Script(C(0)), Recorder2(C(0), name="B")
    with Bench(a, b) as bench:
        bench.send(b"x")
        assert bench.log == ["A(S1 'x')", "B(S1 'x')"]
        assert bench.to_remote == (b"x", False)
