"""Further forms of violations that have several (V-19, V-26, V-27, V-32, V-36, V-38, V-39, V-45, V-47, V-48).

As in `test_violations`: what is caught, and the closest legal case that is not.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.rules.answers import answering, block, permit
from tests.rules.minimal import (
    BLOCK,
    NEED_MORE_DATA,
    NONE,
    PERMIT,
    SEND,
    SEND_FIN,
    STREAM,
    SUCCESS,
    World,
)
from tests.scenarios.support import Script
from tests.scenarios.support_api import ManagedBench, Plane, key, named
from wfpstream import fwpm
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, CalloutFlags, NtStatus
from wfpstream.fwps import Callout1, ClassifyOutFlags
from wfpstream.testing import MemoryDriver

ABSORB = int(ClassifyOutFlags.ABSORB)


def test_v_19_data_and_fin_where_none_is_pended() -> None:
    """V-19, V-50: both are said, the bytes leave before the FIN."""
    w = World(permit)
    assert w.inject_bytes(SEND_FIN, b"x") == SUCCESS
    w.settle()
    assert (w.to_remote, w.fins()) == (b"x", (True, False))
    assert sorted(rule for rule, _ in w.close()) == ["V-19", "V-50"]


def test_v_26_discarded_while_injected() -> None:
    """V-26: Discard and FreeClone of a clone that an injection has."""

    def pend(*call: Any) -> None:
        w.keep_clone(call[2])
        call[-1].action_type = BLOCK

    w = World(pend)
    w.flow.remote.window = 0
    w.send(b"x")
    clone = w.kept[0]
    assert w.inject_kept(SEND) == SUCCESS
    w.fwps.discard_cloned_stream_data(clone)
    w.fwps.free_clone_net_buffer_list(clone)
    assert [rule for rule, _ in w.caught] == ["V-26", "V-26"]
    w.flow.remote.window = None
    w.settle()
    assert w.completed == [(b"x", SUCCESS)]
    assert w.to_remote == b"x"


def test_v_26_discarded_twice() -> None:
    """V-26: a chain that was discarded already."""

    def pend(*call: Any) -> None:
        w.keep_clone(call[2])
        call[-1].action_type = BLOCK

    w = World(pend)
    w.send(b"x")
    clone = w.kept[0]
    w.discard()
    w.fwps.discard_cloned_stream_data(clone)
    assert [rule for rule, _ in w.close()] == ["V-26"]


@pytest.mark.parametrize("use", ["clone", "copy", "reference"])
def test_v_27_the_indicated_structure_itself(use: str) -> None:
    """V-27: used after the classify: reported, and the bytes are not to be had."""
    kept: list[Any] = []

    def keeping(*call: Any) -> None:
        kept.append((call[2].stream_data, call[2].stream_data.net_buffer_list_chain))
        call[-1].action_type = PERMIT

    w = World(keeping)
    w.send(b"abc")
    data, nbl = kept[0]
    buffer = bytearray(3)
    if use == "clone":
        assert w.fwps.clone_stream_data(data) == (NtStatus.STATUS_INVALID_PARAMETER, None)
    elif use == "copy":
        w.fwps.copy_stream_data_to_buffer(data, buffer, 3)
    else:
        w.fwps.reference_net_buffer_list(nbl)
    assert bytes(buffer) != b"abc"
    assert [rule for rule, _ in w.close()] == ["V-27"]


@pytest.mark.parametrize("looked_at", [False, True])
@pytest.mark.parametrize(
    "read",
    [
        lambda data: data.tobytes(),
        lambda data: bytes(data.view()),
        lambda data: b"".join(data.pieces()),
        lambda data: data.copy_to(bytearray(3), 3),
    ],
    ids=["tobytes", "view", "pieces", "copy_to"],
)
def test_v_27_the_structure_is_kept_and_read_later(read: Any, looked_at: bool) -> None:
    """V-27, IND-22: without a word its bytes would be missing; in time, or with a reference, they may be read."""
    kept: list[Any] = []

    def keeping(*call: Any) -> None:
        data = call[2].stream_data
        kept.append(data)
        read(data)
        if looked_at:
            assert data.net_buffer_list_chain is not None
        call[-1].action_type = PERMIT

    w = World(keeping)
    w.send(b"abc")
    assert w.caught == []
    assert read(kept[0]) != b"abc"
    assert [rule for rule, _ in w.close()] == ["V-27"]


def test_v_27_what_is_referenced_may_be_read_later() -> None:
    """REF-1: the reference covers the structure too."""
    kept: list[Any] = []

    def keeping(*call: Any) -> None:
        if call[2].stream_data.data_length:
            kept.append(call[2].stream_data)
            w.fwps.reference_net_buffer_list(kept[0].net_buffer_list_chain)
        call[-1].action_type = PERMIT

    w = World(keeping)
    w.send(b"abc")
    assert kept[0].tobytes() == b"abc"
    w.fwps.dereference_net_buffer_list(kept[0].net_buffer_list_chain)
    assert w.close() == []


def test_v_27_a_kept_view_is_poisoned() -> None:
    """V-27, IND-22: under the verifier a kept view shows neither the old nor later bytes."""
    views: list[memoryview] = []

    def keeping(*call: Any) -> None:
        views.append(call[2].stream_data.view())
        call[-1].action_type = PERMIT

    w = World(keeping)
    w.send(b"abc")
    w.send(b"xyz")
    assert bytes(views[0]) not in (b"abc", b"xyz")
    assert w.to_remote == b"abcxyz"
    w.close()


@pytest.mark.parametrize(
    "name", ["callout_add", "sub_layer_delete", "filter_add", "provider_context_delete", "engine_close"]
)
def test_v_32_every_management_call(name: str) -> None:
    """V-32, IRQ-3: all Fwpm* calls and engine close."""
    answers: list[Any] = []

    def classify(*call: Any) -> None:
        session = w.driver.session
        calls: dict[str, Any] = {
            "callout_add": lambda: session.callout_add(
                fwpm.Callout(
                    callout_key=key("c"), display_data=named("c"), applicable_layer=fwpm.LAYER_STREAM_V4
                )
            )[0],
            "sub_layer_delete": lambda: session.sub_layer_delete_by_key(w.added.sub_layer_key),
            "filter_add": lambda: session.filter_add(
                fwpm.Filter(filter_key=key("f"), display_data=named("f"), layer_key=fwpm.LAYER_STREAM_V4)
            )[0],
            "provider_context_delete": lambda: session.provider_context_delete_by_key(key("p")),
            "engine_close": session.engine_close,
        }
        answers.append(calls[name]())
        call[-1].action_type = BLOCK

    w = World(classify)
    w.send(b"x")
    assert answers == [NtStatus.STATUS_INVALID_DEVICE_STATE]
    assert [rule for rule, _ in w.close()] == ["V-32"]


@pytest.mark.parametrize("absorb", [True, False])
def test_v_36_absorb_at_the_discard_layer(absorb: bool) -> None:
    """V-36: not valid at discard layers either (DSC-3)."""

    class Discards(Script):
        layers = ("stream_v4_discard",)

        def classify_fn(self, *call: Any) -> None:
            seen.append(1)
            if absorb:
                call[-1].flags |= ABSORB

    seen: list[int] = []
    options = EngineOptions(discard_layer=True)
    options.verify.level = "warn"
    driver = MemoryDriver(options=options)
    code = Discards()
    plain = Callout1(key("discards"), 0, code.classify_fn, code.notify_fn, None)
    assert driver.fwps.callout_register1(None, plain)[0] == SUCCESS
    layer = fwpm.LAYER_STREAM_V4_DISCARD
    status, _ = driver.session.callout_add(
        fwpm.Callout(callout_key=key("discards"), display_data=named("d"), applicable_layer=layer)
    )
    assert status == SUCCESS
    status, _ = driver.session.filter_add(
        fwpm.Filter(
            filter_key=key("watch"),
            display_data=named("watch"),
            layer_key=layer,
            action_type=ActionType.CALLOUT_INSPECTION,
            callout_key=key("discards"),
        )
    )
    assert status == SUCCESS
    status, _ = driver.session.filter_add(
        fwpm.Filter(
            filter_key=key("blocker"),
            display_data=named("blocker"),
            layer_key=fwpm.LAYER_STREAM_V4,
            action_type=ActionType.BLOCK,
        )
    )
    assert status == SUCCESS
    flow = driver.connect()
    assert flow is not None
    flow.send(b"gone")
    driver.settle()
    assert bytes(flow.remote.data) == b""
    assert len(seen) == 1
    assert driver.violations == (["V-36"] if absorb else [])


@pytest.mark.parametrize("state", ["waiting", "out of band", "injection pending", "fin pended", "idle"])
def test_v_38_every_kind_of_work(state: str) -> None:
    """V-38, MGMT-13, MGMT-14: waiting, a live clone of blocked bytes, an injection not completed, a pended FIN."""

    def pend(*call: Any) -> None:
        w.keep_clone(call[2])
        call[-1].action_type = BLOCK

    waiting = answering(NONE, stream_action=NEED_MORE_DATA)
    w = World({"waiting": waiting, "out of band": pend, "idle": permit}.get(state, block))
    if state == "fin pended":
        w.send_fin()
    elif state == "injection pending":
        w.flow.remote.window = 0
        assert w.inject_bytes(SEND, b"x") == SUCCESS
    else:
        w.send(b"x")
    status = w.driver.session.filter_delete_by_id(w.added.filter_ids[0])
    assert status == (SUCCESS if state == "idle" else NtStatus.STATUS_FWP_IN_USE)
    assert [rule for rule, _ in w.caught] == ([] if state == "idle" else ["V-38"])


def test_v_38_forced_removal_by_the_end_of_a_dynamic_session() -> None:
    """V-38: forced removal reports it too and releases what was held as permitted (MGMT-13)."""
    waiting = Script(name="W", then=None)
    driver = MemoryDriver()
    status, session = driver.engine.management.engine_open(int(fwpm.SessionFlags.DYNAMIC))
    assert status == SUCCESS
    assert session is not None
    classify = answering(NONE, stream_action=NEED_MORE_DATA)
    plain = Callout1(key("waits"), 0, classify, waiting.notify_fn, None)
    status, callout_id = driver.fwps.callout_register1(None, plain)
    assert status == SUCCESS
    record = fwpm.Callout(
        callout_key=key("waits"), display_data=named("w"), applicable_layer=fwpm.LAYER_STREAM_V4
    )
    assert session.callout_add(record)[0] == SUCCESS
    status, _ = session.filter_add(
        fwpm.Filter(
            filter_key=key("waiting"),
            display_data=named("w"),
            layer_key=fwpm.LAYER_STREAM_V4,
            action_type=ActionType.CALLOUT_UNKNOWN,
            callout_key=key("waits"),
        )
    )
    assert status == SUCCESS
    flow = driver.connect()
    assert flow is not None
    flow.send(b"held")
    driver.settle()
    assert bytes(flow.remote.data) == b""
    session.engine_close()
    driver.settle()
    assert bytes(flow.remote.data) == b"held"
    assert driver.violations == ["V-38"]
    assert driver.fwps.callout_unregister_by_id(callout_id) == SUCCESS
    driver.close()
    assert driver.violations == ["V-38"]


def test_v_39_live_contexts_at_the_stop() -> None:
    """V-39: engine stop with live contexts of a driver that did not unload."""
    a = Script(name="A")

    def add(plane: Plane) -> None:
        planes.append(plane)
        plane.register(a)
        assert plane.own_sub_layer(a)[0] == SUCCESS

    planes: list[Plane] = []
    bench = ManagedBench(a, add=add)
    callout_id = planes[0].ids["A"]
    assert bench.driver.fwps.flow_associate_context(a.flow_id, STREAM, callout_id, 1) == SUCCESS
    bench.driver.close()
    assert "V-39" in bench.driver.violations
    assert bench.transcript.log == ["flowDelete(A)"]


@pytest.mark.parametrize(
    ("flag", "profile", "caught"),
    [
        (CalloutFlags.RESERVED1, "win10", True),
        (CalloutFlags.RESERVED2, "win10", True),
        (CalloutFlags.ALLOW_USO, "win8", True),
        (CalloutFlags.ALLOW_USO, "win10", False),
        (CalloutFlags.CONDITIONAL_ON_FLOW, "win8", False),
    ],
)
def test_v_45_reserved_flags_and_flags_newer_than_the_profile(
    flag: CalloutFlags, profile: str, caught: bool
) -> None:
    """V-45: OBJ-15, CFN-6."""
    w = World(permit, flags=int(flag), options=EngineOptions(profile=profile))
    assert {rule for rule, _ in w.close()} == ({"V-45"} if caught else set())


@pytest.mark.parametrize(("second", "caught"), [("callout", ["V-47"]), ("plain", [])])
def test_v_47_equal_weights_and_a_plain_filter(second: str, caught: list[str]) -> None:
    """V-47: worse with equal weights; a plain filter below a callout's is none of it."""
    a, b = Script(name="A"), Script(name="B")

    def add(plane: Plane) -> None:
        sub_layer = plane.sub_layer("shared", 0x40)
        for code in (a, b):
            plane.register(code)
            plane.callout(code.name)
        assert plane.callout_filter(a, sub_layer=sub_layer, weight=7)[0] == SUCCESS
        if second == "callout":
            assert plane.callout_filter(b, sub_layer=sub_layer, weight=7)[0] == SUCCESS
        else:
            plain = plane.filter("plain", sub_layer_key=sub_layer, action_type=ActionType.PERMIT)
            assert plain[0] == SUCCESS

    with ManagedBench(a, b, add=add, violations=caught) as bench:
        bench.send(b"x")
        assert bench.calls == ["A(S1 'x')"]
        assert bench.to_remote == (b"x", False)


def test_v_48_callout_without_flow_delete_function() -> None:
    """V-48: contexts are used, flowDeleteFn is missing (CTX-3)."""
    a = Script(name="A")
    ids: list[int] = []

    def add(plane: Plane) -> None:
        ids.append(plane.register(a, flow_delete=False))
        assert plane.own_sub_layer(a)[0] == SUCCESS

    with ManagedBench(a, add=add, violations=["V-48"]) as bench:
        status = bench.driver.fwps.flow_associate_context(a.flow_id, STREAM, ids[0], 1)
        assert status == NtStatus.STATUS_INVALID_PARAMETER
