"""Registration and unregistration (REG-*, UNR-*).

Owns what a callout is told at its own border: statuses and ids. It must not know how the table of callouts is kept.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.support import NMD, B, Bench, P, Script
from tests.scenarios.support_api import (
    ManagedBench,
    Plane,
    Witness,
    events,
    key,
    registered,
)
from tests.scenarios.support_connections import Gate, go_on
from wfpstream import fwpm
from wfpstream.fwp import ActionType, CalloutFlags, NtStatus
from wfpstream.fwps import (
    Callout,
    Callout0,
    Callout1,
    Callout2,
    ClassifyOut,
    LayerId,
)
from wfpstream.testing import MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS
STREAM = int(LayerId.STREAM_V4)
MID_STREAM = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)


def nothing(*arguments: object) -> None:
    """A classifyFn that leaves everything as it came."""


def agree(notify_type: int, filter_key: object, filter: object) -> int:
    return int(SUCCESS)


def unregistered_bench(action: str, flags: int, a: Script) -> ManagedBench:
    """A filter of type `action` naming a callout object whose code nobody registered yet."""
    a.filter_action = action

    def add(plane: Plane) -> None:
        assert plane.own_sub_layer(a, flags=flags)[0] == SUCCESS

    return ManagedBench(a, add=add)


# --- registration ---------------------------------------------------------------------------------


def test_reg_1_device_object_is_opaque_and_the_id_is_handed_out() -> None:
    """REG-1: any device object will do; the calloutId comes back."""
    with MemoryDriver() as driver:
        for number, device in enumerate((None, object(), "\\Device\\x")):
            plain = Callout2(key(f"r{number}"), 0, nothing, agree)
            status, callout_id = driver.fwps.callout_register2(device, plain)
            assert status == SUCCESS
            assert callout_id > 0
            assert driver.fwps.callout_unregister_by_id(callout_id) == SUCCESS


@pytest.mark.parametrize("version", [0, 1, 2])
def test_reg_2_a_key_that_is_registered_already(version: int) -> None:
    """REG-2: STATUS_FWP_ALREADY_EXISTS, whatever the version; the first registration stays."""
    with MemoryDriver() as driver:
        fwps = driver.fwps
        status, first = fwps.callout_register1(None, Callout1(key("twice"), 0, nothing, agree))
        assert status == SUCCESS
        plain = (Callout0, Callout1, Callout2)[version](key("twice"), 0, nothing, agree)
        register = (fwps.callout_register0, fwps.callout_register1, fwps.callout_register2)[version]
        status, second = register(None, plain)
        assert status == NtStatus.STATUS_FWP_ALREADY_EXISTS
        assert second == 0
        assert fwps.callout_unregister_by_id(first) == SUCCESS


def test_reg_3_registration_while_the_engine_is_stopped() -> None:
    """REG-3: possible at any time, also while the engine is stopped."""
    driver = MemoryDriver()
    driver.engine.stop()
    status, callout_id = driver.fwps.callout_register2(None, Callout2(key("late"), 0, nothing, agree))
    assert status == SUCCESS
    driver.engine.start()
    assert driver.fwps.callout_unregister_by_id(callout_id) == SUCCESS
    driver.close()
    assert driver.violations == []


@pytest.mark.parametrize("first", ["code", "object"])
def test_reg_3_code_and_object_in_either_order(first: str) -> None:
    """REG-3: before or after the callout and its filters are added."""
    a = Script(P(0))

    def add(plane: Plane) -> None:
        if first == "code":
            plane.register(a)
        assert plane.own_sub_layer(a)[0] == SUCCESS
        if first == "object":
            plane.register(a)

    with ManagedBench(a, add=add) as bench:
        bench.send(b"x")
        assert bench.log == ["A(S1 'x')"]
        assert bench.to_remote == (b"x", False)


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("missing", ["classify", "notify"])
def test_reg_4_classify_and_notify_functions_must_be_there(missing: str, version: int) -> None:
    """REG-4: NULL classifyFn or notifyFn is STATUS_FWP_NULL_POINTER; the key stays free."""
    classify = None if missing == "classify" else nothing
    notify = None if missing == "notify" else agree
    with MemoryDriver() as driver:
        fwps = driver.fwps
        structure = (Callout0, Callout1, Callout2)[version]
        register = (fwps.callout_register0, fwps.callout_register1, fwps.callout_register2)[version]
        status, _ = register(None, structure(key("r"), 0, classify, notify))
        assert status == NtStatus.STATUS_FWP_NULL_POINTER
        status, callout_id = register(None, structure(key("r"), 0, nothing, agree))
        assert status == SUCCESS
        assert fwps.callout_unregister_by_id(callout_id) == SUCCESS


def test_reg_4_flow_delete_function_may_be_missing() -> None:
    """REG-4: flowDeleteFn MAY be NULL."""
    with MemoryDriver() as driver:
        status, callout_id = driver.fwps.callout_register0(None, Callout0(key("r"), 0, nothing, agree, None))
        assert status == SUCCESS
        assert driver.fwps.callout_unregister_by_id(callout_id) == SUCCESS


@pytest.mark.parametrize("action", ["callout_terminating", "callout_unknown"])
def test_reg_7_an_unregistered_callout_removes_bytes_and_fin(action: str) -> None:
    """REG-7: at the stream layer every byte and the FIN reaching that filter is removed; both directions."""
    with unregistered_bench(action, 0, Script()) as bench:
        bench.send(b"abc")
        bench.receive(b"xyz")
        bench.send_fin()
        bench.receive_fin()
        assert bench.log == []
        assert bench.to_remote == (b"", False)
        assert bench.to_local == (b"", False)
        assert bench.resets == (False, False)


def test_reg_7_at_flow_established_it_closes_the_connection() -> None:
    """REG-7: at FLOW_ESTABLISHED "acts as BLOCK" means that the connection is closed (LAY-6)."""
    driver = MemoryDriver()
    plane = Plane(driver)
    plane.callout("E", layer=fwpm.LAYER_ALE_FLOW_ESTABLISHED_V4)
    status, _ = plane.filter(
        "E",
        layer_key=fwpm.LAYER_ALE_FLOW_ESTABLISHED_V4,
        action_type=ActionType.CALLOUT_TERMINATING,
        callout_key=key("E"),
    )
    assert status == SUCCESS
    assert driver.connect() is None
    assert [event["layer"] for event in events(driver, "flow_blocked")] == ["ale_flow_established_v4"]
    plane.unload()
    driver.close()
    assert driver.violations == []


def test_reg_8_registering_later_does_not_bring_back_what_was_blocked() -> None:
    """REG-8: blocked data is not recovered; the callout sees what comes afterwards (with MID-1's flag)."""
    a = Witness(flags=MID_STREAM)
    with unregistered_bench("callout_terminating", 0, a) as bench:
        bench.send(b"lost")
        assert bench.to_remote == (b"", False)
        bench.plane.register(a)
        bench.send(b"seen")
        assert bench.log == ["A(S4 'seen')"]
        assert bench.to_remote == (b"seen", False)


def test_reg_8_without_the_flag_the_flow_is_passed_by() -> None:
    """REG-8: REG-5 stops for data that comes afterwards; whether the callout sees it is MID-1."""
    a = Script(then=B(0))
    with unregistered_bench("callout_terminating", 0, a) as bench:
        bench.send(b"lost")
        bench.plane.register(a)
        bench.send(b"passes")
        assert bench.log == []
        assert bench.to_remote == (b"passes", False)


class TwoLayers(Callout):
    """One object at two layers, with a function of its own for one of them."""

    layers = ("stream", "ale_flow_established")

    def __init__(self) -> None:
        self.seen: list[int] = []

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        self.seen.append(in_fixed_values.layer_id)
        classify_out.action_type = ActionType.CONTINUE


@pytest.mark.parametrize("family", ["V4", "V6"])
def test_reg_9_one_object_is_added_once_per_layer_and_family(family: str) -> None:
    """REG-9: each layer and family has its own calloutId; inFixedValues.layerId tells which is called."""
    callout = TwoLayers()
    with MemoryDriver() as driver:
        added = driver.add(callout)
        layers = [
            LayerId.STREAM_V4,
            LayerId.STREAM_V6,
            LayerId.ALE_FLOW_ESTABLISHED_V4,
            LayerId.ALE_FLOW_ESTABLISHED_V6,
        ]
        ids = [callout.callout_id(layer) for layer in layers]
        assert 0 not in ids
        assert len(set(ids)) == 4
        assert len(set(added.callout_keys)) == 4
        assert [one.version for one in added.callout_keys] == [5, 5, 5, 5]
        assert len(added.filter_ids) == 4
        client, server = (
            (("10.0.0.1", 4000), ("10.0.0.2", 80)) if family == "V4" else (("fd00::1", 4000), ("fd00::2", 80))
        )
        flow = driver.connect(client=client, server=server)
        assert flow is not None
        flow.send(b"x")
        assert callout.seen == [LayerId[f"ALE_FLOW_ESTABLISHED_{family}"], LayerId[f"STREAM_{family}"]]
        assert flow.remote.data == b"x"


def test_reg_9_a_layer_with_a_family_suffix() -> None:
    """REG-9: filters are made on every layer named, and on no other."""
    gate = Gate("ale_flow_established_v6", go_on)
    with MemoryDriver() as driver:
        added = driver.add(gate)
        assert len(added.filter_ids) == 1
        assert gate.callout_id(LayerId.ALE_FLOW_ESTABLISHED_V6) != 0
        assert gate.callout_id(LayerId.ALE_FLOW_ESTABLISHED_V4) == 0


def test_reg_10_a_refused_call_returns_its_status_and_a_wrong_type_raises() -> None:
    """REG-10: NtStatus or (NtStatus, value); TypeError for an argument of the wrong Python type."""
    a = Script()
    with Bench(a) as bench:
        fwps = bench.driver.fwps
        assert fwps.flow_abort(999_999) == NtStatus.STATUS_FWP_NOT_FOUND
        assert fwps.callout_register1(None, Callout1(key("r"), 0, None, agree)) == (
            NtStatus.STATUS_FWP_NULL_POINTER,
            0,
        )
        with pytest.raises(TypeError):
            fwps.flow_associate_context(
                bench.flow.id,
                STREAM,
                a.callout_id(STREAM),
                "ctx",  # type: ignore[arg-type]
            )
        thing = object()
        assert fwps.tracked(fwps.track(thing)) is thing


# --- unregistration -------------------------------------------------------------------------------


def test_unr_1_unknown_callouts() -> None:
    """UNR-1: STATUS_FWP_CALLOUT_NOT_FOUND by id and by key, for keys never seen, added only, or gone again."""
    with MemoryDriver() as driver:
        fwps, plane = driver.fwps, Plane(driver)
        missing = NtStatus.STATUS_FWP_CALLOUT_NOT_FOUND
        assert fwps.callout_unregister_by_id(0) == missing
        assert fwps.callout_unregister_by_id(777) == missing
        assert fwps.callout_unregister_by_key(key("nobody")) == missing
        plane.callout("added only")
        assert fwps.callout_unregister_by_key(key("added only")) == missing
        _, callout_id = fwps.callout_register2(None, Callout2(key("once"), 0, nothing, agree))
        assert fwps.callout_unregister_by_key(key("once")) == SUCCESS
        assert fwps.callout_unregister_by_id(callout_id) == missing
        plane.unload()


def test_unr_2_every_context_of_every_flow_has_to_go() -> None:
    """UNR-2: STATUS_DEVICE_BUSY while any flow holds a context of it; another callout's do not count."""
    a, b = Witness(), Witness(name="B")

    def add(plane: Plane) -> None:
        for code in (a, b):
            plane.register(code)
            assert plane.own_sub_layer(code)[0] == SUCCESS

    with ManagedBench(a, b, add=add) as bench:
        fwps, me, other_id = bench.driver.fwps, bench.plane.ids["A"], bench.plane.ids["B"]
        flows = [bench.flow, bench.connect()]
        for flow in flows:
            assert fwps.flow_associate_context(flow.id, STREAM, me, 5) == SUCCESS
            assert fwps.flow_associate_context(flow.id, STREAM, other_id, 6) == SUCCESS
        for flow in flows:
            assert fwps.callout_unregister_by_key(key("A")) == NtStatus.STATUS_DEVICE_BUSY
            assert fwps.flow_remove_context(flow.id, STREAM, me) == SUCCESS
        assert fwps.callout_unregister_by_key(key("A")) == SUCCESS
        assert fwps.callout_unregister_by_key(key("B")) == NtStatus.STATUS_DEVICE_BUSY
        for flow in flows:
            assert fwps.flow_remove_context(flow.id, STREAM, other_id) == SUCCESS


@pytest.mark.parametrize(
    ("action", "flags", "passes"),
    [
        ("callout_terminating", 0, False),
        ("callout_unknown", 0, False),
        ("callout_unknown", int(fwpm.FilterFlags.PERMIT_IF_CALLOUT_UNREGISTERED), True),
        ("callout_inspection", 0, True),
    ],
)
def test_unr_4_filters_that_stay_behind(action: str, flags: int, passes: bool) -> None:
    """UNR-4: unregister succeeds while filters name it; REG-5, REG-6 apply from then on, and until it is back."""
    a = Script(action=action)

    def add(plane: Plane) -> None:
        plane.register(a)
        assert plane.own_sub_layer(a, flags=flags)[0] == SUCCESS

    with ManagedBench(a, add=add) as bench:
        assert bench.driver.fwps.callout_unregister_by_id(bench.plane.ids["A"]) == SUCCESS
        bench.send(b"x")
        assert bench.log == []
        assert bench.to_remote == (b"x" if passes else b"", False)
        status, found = bench.plane.session.filter_get_by_key(key("filter A"))
        assert (status, found is not None) == (SUCCESS, True)
        bench.plane.register(a)
        fresh = bench.connect()
        fresh.send(b"y")
        bench.settle()
        assert bench.log == ["A(S1 'y')"]


def test_unr_3_device_busy_changes_nothing() -> None:
    """UNR-3: the callout keeps being classified and may gain new contexts."""
    a = Witness()
    with ManagedBench(a, add=registered(a)) as bench:
        fwps, me = bench.driver.fwps, bench.plane.ids["A"]
        other = bench.connect()
        assert fwps.flow_associate_context(bench.flow.id, STREAM, me, 5) == SUCCESS
        assert fwps.callout_unregister_by_id(me) == NtStatus.STATUS_DEVICE_BUSY
        assert fwps.flow_associate_context(other.id, STREAM, me, 6) == SUCCESS
        bench.send(b"a")
        other.send(b"b")
        assert bench.log == ["A(S1 'a')", "A(S1 'b')"]
        assert a.contexts == [5, 6]
        assert bench.to_remote == (b"a", False)
        for flow in (bench.flow, other):
            assert fwps.flow_remove_context(flow.id, STREAM, me) == SUCCESS
        assert bench.log == ["A(S1 'a')", "A(S1 'b')", "flowDelete(A)", "flowDelete(A)"]


@pytest.mark.parametrize("action", ["callout_terminating", "callout_unknown"])
def test_unr_6_held_bytes_of_a_filter_that_blocks_from_now_on(action: str) -> None:
    """UNR-6: held bytes are released according to the new meaning of the filter; BLOCK: discarded."""
    a = Script(NMD(9), action=action)
    with ManagedBench(a, add=registered(a)) as bench:
        bench.send(b"held")
        assert bench.driver.fwps.callout_unregister_by_id(bench.plane.ids["A"]) == SUCCESS
        bench.settle()
        assert bench.log == ["A(S4 'held')"]
        assert bench.to_remote == (b"", False)
        ledger = bench.flow.ledger(0)
        assert (ledger.read, ledger.held, ledger.blocked_original + ledger.discarded) == (4, 0, 4)


@pytest.mark.parametrize(
    ("action", "flags"),
    [
        ("callout_inspection", 0),
        ("callout_terminating", int(fwpm.FilterFlags.PERMIT_IF_CALLOUT_UNREGISTERED)),
        ("callout_unknown", int(fwpm.FilterFlags.PERMIT_IF_CALLOUT_UNREGISTERED)),
    ],
)
def test_unr_6_held_bytes_of_a_filter_that_passes_from_now_on(action: str, flags: int) -> None:
    """UNR-6: INSPECTION or permit-if-unregistered: passed on."""
    a = Script(NMD(9), action=action)
    with ManagedBench(a, add=registered(a, flags=flags)) as bench:
        bench.send(b"held")
        assert bench.driver.fwps.callout_unregister_by_id(bench.plane.ids["A"]) == SUCCESS
        bench.settle()
        bench.send(b"+more")
        assert bench.log == ["A(S4 'held')"]
        assert bench.to_remote == (b"held+more", False)


class HandleOfItsOwn(Script):
    """A plain structure registered by hand has no injection handle unless it makes one."""

    def make_handle(self, driver: MemoryDriver) -> None:
        self.fwps = driver.fwps
        status, self.injection_handle = driver.fwps.injection_handle_create(0, 1)
        assert status == SUCCESS

    def callout_id(self, layer_id: int) -> int:
        return self.my_id

    my_id = 0


def test_unr_6_pending_injections_still_complete() -> None:
    """UNR-6: the completionFn of an injection on its way is called after a successful unregister."""
    a = HandleOfItsOwn(P(0), action="callout_inspection")
    flags = int(fwpm.FilterFlags.PERMIT_IF_CALLOUT_UNREGISTERED)
    a.filter_action = "callout_unknown"
    with ManagedBench(a, add=registered(a, flags=flags)) as bench:
        a.make_handle(bench.driver)
        a.my_id = bench.plane.ids["A"]
        bench.flow.remote.window = 0
        assert a.inject_bytes(0x10000, b"late") == SUCCESS
        assert bench.driver.fwps.callout_unregister_by_id(a.my_id) == SUCCESS
        assert bench.log == []
        bench.flow.remote.window = None
        bench.settle()
        assert bench.log == ["cmp('late', SUCCESS)"]
        assert bench.to_remote == (b"late", False)
        assert bench.driver.fwps.injection_handle_destroy(a.injection_handle) == SUCCESS


def test_unr_7_none_of_the_functions_is_called_again() -> None:
    """UNR-7: classifyFn, notifyFn and flowDeleteFn are silent after a successful unregister."""
    a = Witness(action="callout_inspection")
    with ManagedBench(a, add=registered(a)) as bench:
        fwps, me = bench.driver.fwps, bench.plane.ids["A"]
        assert fwps.flow_associate_context(bench.flow.id, STREAM, me, 5) == SUCCESS
        bench.send(b"a")
        assert fwps.flow_remove_context(bench.flow.id, STREAM, me) == SUCCESS
        assert fwps.callout_unregister_by_id(me) == SUCCESS
        before = (list(bench.log), list(a.notified), list(a.deleted))
        bench.send(b"b")
        status, filter_id = bench.plane.filter(
            "more",
            sub_layer_key=key("sublayer A"),
            action_type=ActionType.CALLOUT_INSPECTION,
            callout_key=key("A"),
        )
        assert status == SUCCESS
        assert bench.plane.session.filter_delete_by_id(filter_id) == SUCCESS
        bench.send_fin()
        bench.receive_fin()
        assert bench.flow.ended
        assert (bench.log, a.notified, a.deleted) == before
        assert bench.to_remote == (b"ab", True)
        assert bench.to_local == (b"", True)
