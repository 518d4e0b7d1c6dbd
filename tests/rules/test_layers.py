"""Objects, layers and the discard layer (OBJ-*, LAY-1..10, DSC-*).

Owns which layer is asked when, and with what. Connection layers have tests of their own under scenarios.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.support import (
    RECEIVE_PUSH,
    SEND,
    SEND_FIN,
    B,
    C,
    Call,
    P,
    Script,
)
from tests.scenarios.support_api import (
    Injection,
    Plane,
    Witness,
    allocate,
    inject_raw,
    key,
)
from tests.scenarios.support_connections import Gate, LayerCall, block, go_on, permit
from wfpstream import fwpm
from wfpstream.engine import EngineOptions
from wfpstream.fwp import ActionType, NtStatus
from wfpstream.fwps import (
    Callout,
    LayerId,
    MetadataField,
    NetBufferList,
)
from wfpstream.testing import FlowEnds, MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS
STREAM = int(LayerId.STREAM_V4)
ESTABLISHED = "ale_flow_established"


def connect(driver: MemoryDriver, **options: Any) -> FlowEnds:
    flow = driver.connect(**options)
    assert flow is not None
    return flow


class Noting(Script):
    """A script that notes the flow handle of every indication."""

    def __init__(self) -> None:
        super().__init__()
        self.handles: list[int] = []

    def decide(self, call: Call) -> Any:
        self.handles.append(call.meta.flow_handle)
        return super().decide(call)


def free_in_completion(code: Script) -> Any:
    """A completionFn that gives the buffer back."""

    def complete(context: object, nbl: NetBufferList, dispatch_level: bool) -> None:
        code.fwps.free_net_buffer_list(nbl)

    return complete


def over(flow: FlowEnds) -> bool:
    return flow.ended


# --- objects --------------------------------------------------------------------------------------


def test_obj_10_an_injection_handle_is_independent_of_callouts_sessions_and_flows() -> None:
    """OBJ-10: made before any of them, used for several, alive after they are gone, destroyed once."""
    with MemoryDriver() as driver:
        status, handle = driver.fwps.injection_handle_create(0, 1)
        assert status == SUCCESS
        a, b = Script(), Script(name="B")
        added = [driver.add(a), driver.add(b)]
        first, second = connect(driver), connect(driver)
        for code, flow in ((a, first), (b, second)):
            code.flow_id = flow.id
            call = Injection(
                SEND,
                allocate(code, code.name.encode()),
                1,
                handle=handle,
                completion_fn=free_in_completion(code),
            )
            assert inject_raw(code, call) == SUCCESS
        driver.settle()
        assert [bytes(flow.remote.data) for flow in (first, second)] == [b"A", b"B"]
        for flow in (first, second):
            flow.send_fin()
            flow.receive_fin()
        for one in added:
            assert one.remove() == SUCCESS
        status, session = driver.engine.management.engine_open()
        assert status == SUCCESS
        assert session is not None
        assert session.engine_close() == SUCCESS
        assert not driver.fwps.injection_handle_closed(handle)
        assert driver.fwps.injection_handle_destroy(handle) == SUCCESS
        assert driver.fwps.injection_handle_destroy(handle) != SUCCESS


def test_obj_11_one_handle_from_flow_established_to_the_end_and_never_again() -> None:
    """OBJ-11: a nonzero UINT64, the same at FLOW_ESTABLISHED and at every stream indication, shared with nobody."""
    seen: list[int] = []

    def note(call: LayerCall) -> None:
        seen.append(call.meta.flow_handle)
        go_on(call)

    gate, a = Gate(ESTABLISHED, *[note] * 5), Noting()
    with MemoryDriver() as driver:
        driver.add(gate)
        driver.add(a)
        flows: list[FlowEnds] = []
        for _ in range(4):
            flow = connect(driver)
            flow.send(b"x")
            flow.receive(b"y")
            flow.send_fin()
            flow.receive_fin()
            driver.settle()
            assert over(flow)
            flows.append(flow)
        still_open = connect(driver)
        handles = [flow.id for flow in (*flows, still_open)]
        assert seen == handles
        assert len(set(handles)) == 5
        assert all(0 < one < 2**64 for one in handles)
        assert a.handles == [flow.id for flow in flows for _ in range(4)]


@pytest.mark.parametrize("how", ["reset", "both fins"])
def test_obj_12_a_flow_lives_as_long_as_its_connection(how: str) -> None:
    """OBJ-12: from the establishment to RST, or until both directions are closed; not longer, not shorter."""
    a = Witness()
    with MemoryDriver() as driver:
        driver.add(a)
        flow = connect(driver)
        assert a.associate(1, flow.id) == SUCCESS
        flow.send_fin()
        assert not over(flow)
        flow.reset("local") if how == "reset" else flow.receive_fin()
        driver.settle()
        assert over(flow)
        assert a.deleted == [(STREAM, a.callout_id(STREAM), 1)]
        assert a.associate(2, flow.id) == NtStatus.STATUS_FWP_NOT_FOUND


@pytest.mark.parametrize("missing", ["a FIN", "an injection", "an owed byte"])
def test_obj_13_a_graceful_end_needs_all_three(missing: str) -> None:
    """OBJ-13: both FINs out of the last stage, no injection pending, every owed byte accepted."""
    a = Script(B(0) if missing == "a FIN" else P(0))
    with MemoryDriver() as driver:
        driver.add(a)
        flow = connect(driver)
        a.flow_id = flow.id
        assert a.associate(1) == SUCCESS
        if missing == "an owed byte":
            flow.local.window = 0
            flow.receive(b"owed")
        elif missing == "an injection":
            flow.local.window = 0
            assert a.inject_bytes(RECEIVE_PUSH, b"!") == SUCCESS
        flow.send_fin()
        flow.receive_fin()
        driver.settle()
        assert not over(flow)
        assert "flowDelete(A)" not in a.transcript.log
        if missing == "a FIN":
            assert a.inject_null_fin(SEND_FIN) == SUCCESS
        else:
            flow.local.window = None
        driver.settle()
        assert over(flow)
        assert a.transcript.log[-1] == "flowDelete(A)"
        assert flow.remote.fin
        assert flow.local.fin
        assert not flow.remote.reset


# --- layers ---------------------------------------------------------------------------------------


def test_lay_1_the_required_layers_take_filters() -> None:
    """LAY-1: all of them exist; the discard layers too, although nothing is indicated there by default."""
    names = (
        "STREAM",
        "STREAM_{}_DISCARD",
        "ALE_FLOW_ESTABLISHED",
        "ALE_AUTH_CONNECT",
        "ALE_AUTH_RECV_ACCEPT",
        "ALE_CONNECT_REDIRECT",
    )
    with MemoryDriver() as driver:
        plane = Plane(driver)
        for name in names:
            for family in ("V4", "V6"):
                layer = "LAYER_" + (name.format(family) if "{}" in name else f"{name}_{family}")
                status, _ = plane.filter(layer, layer_key=getattr(fwpm, layer), action_type=ActionType.PERMIT)
                assert status == SUCCESS
        plane.unload()


@pytest.mark.parametrize(
    ("client", "server", "layer"),
    [
        ("10.0.0.1", "10.0.0.2", LayerId.STREAM_V4),
        ("fd00::1", "fd00::2", LayerId.STREAM_V6),
        ("::ffff:10.0.0.1", "10.0.0.2", LayerId.STREAM_V4),
        ("10.0.0.1", "fd00::2", LayerId.STREAM_V4),
        ("fd00::1", "10.0.0.2", LayerId.STREAM_V6),
    ],
    ids=["v4", "v6", "mapped is v4", "v4 client v6 server", "v6 client v4 server"],
)
def test_lay_2_the_family_of_the_client_decides(client: str, server: str, layer: LayerId) -> None:
    """LAY-2, LAY-10: a v4-mapped peer is IPv4; the upstream's family does not matter."""
    seen: list[int] = []
    gate = Gate(ESTABLISHED, go_on)
    with MemoryDriver() as driver:
        driver.add(gate)
        driver.add(Script(P(0, lambda call: seen.append(call.fixed.layer_id))))
        flow = connect(driver, client=(client, 4000), server=(server, 80))
        flow.send(b"x")
        assert seen == [layer]
        v6 = layer == LayerId.STREAM_V6
        assert gate.calls[0].fixed.layer_id == (
            LayerId.ALE_FLOW_ESTABLISHED_V6 if v6 else LayerId.ALE_FLOW_ESTABLISHED_V4
        )


@pytest.mark.parametrize(
    ("local", "order"),
    [
        ("client", ["REDIRECT", "CONNECT", "ESTABLISHED", "STREAM"]),
        ("server", ["ACCEPT", "ESTABLISHED", "STREAM"]),
    ],
)
def test_lay_3_order_of_the_layers(local: str, order: list[str]) -> None:
    """LAY-3: outbound: redirect, authorise, establish, stream; inbound: accept, establish, stream."""
    log: list[str] = []

    def note(word: str) -> Any:
        def answer(call: LayerCall) -> None:
            log.append(word)
            call.out.action_type = ActionType.CONTINUE

        return answer

    layers = {
        "ale_connect_redirect": "REDIRECT",
        "ale_auth_connect": "CONNECT",
        "ale_auth_recv_accept": "ACCEPT",
        ESTABLISHED: "ESTABLISHED",
    }
    with MemoryDriver(local=local) as driver:
        for layer, word in layers.items():
            driver.add(Gate(layer, note(word), name=word))
        driver.add(Script(P(0, lambda call: log.append("STREAM"))))
        connect(driver).send(b"x")
        assert log == order


def test_lay_4_no_stream_indication_before_flow_established_returned() -> None:
    """LAY-4: classified once both legs are connected, before any byte is read for the stream layer."""
    seen: list[Any] = []
    a = Script()

    def look(call: LayerCall) -> None:
        seen.append((call.meta.upstream_address, list(a.transcript.log)))
        seen.append(a.inject_bytes(SEND, b"too early", flow_id=call.meta.flow_handle))
        go_on(call)

    with MemoryDriver() as driver:
        driver.add(Gate(ESTABLISHED, look))
        driver.add(a)
        flow = connect(driver)
        assert seen == [(("10.0.0.2", 80), []), NtStatus.STATUS_FWP_TCPIP_NOT_READY]
        flow.send(b"x")
        assert a.transcript.log == ["A(S1 'x')"]
        assert flow.remote.data == b"x"


@pytest.mark.parametrize("local", ["client", "server"])
def test_lay_5_layer_data_and_flow_context_at_flow_established(local: str) -> None:
    """LAY-5: layerData NULL; flowContext is the context for the FLOW_ESTABLISHED layer, here 0."""
    seen: list[tuple[object, int]] = []

    class Look(Callout):
        layers = (ESTABLISHED,)

        def classify_fn(self, *arguments: Any) -> None:
            seen.append((arguments[2], arguments[5]))
            arguments[6].action_type = ActionType.CONTINUE

    with MemoryDriver(local=local) as driver:
        driver.add(Look())
        connect(driver)
        assert seen == [(None, 0)]


def test_lay_6_block_closes_the_connection_and_deletes_contexts() -> None:
    """LAY-6: both legs reset, no stream indication, contexts already associated are deleted; V-44."""
    a = Witness()

    def refuse(call: LayerCall) -> None:
        assert a.associate(5, call.meta.flow_handle) == SUCCESS
        block(call)

    gate = Gate(ESTABLISHED, refuse)
    driver = MemoryDriver()
    driver.add(gate)
    driver.add(a)
    assert driver.connect() is None
    assert gate.faults == []
    assert a.deleted == [(STREAM, a.callout_id(STREAM), 5)]
    assert a.transcript.log == ["flowDelete(A)"]
    driver.close()
    assert driver.violations == ["V-44"]


@pytest.mark.parametrize(("hints", "violations"), [(False, []), (True, ["V-44"])])
def test_lay_6_permit_is_noted_only_with_hints(hints: bool, violations: list[str]) -> None:
    """LAY-6: msnmntr returns PERMIT there; CONTINUE is silent in any case."""
    options = EngineOptions()
    options.verify.level = "warn"
    options.verify.hints = hints
    driver = MemoryDriver(options)
    driver.add(Gate(ESTABLISHED, permit, name="K"))
    driver.add(Gate(ESTABLISHED, go_on, name="L"))
    connect(driver)
    driver.close()
    assert driver.violations == violations


def test_lay_7_nothing_can_be_pended_at_flow_established() -> None:
    """LAY-7: FwpsPendOperation and FwpsPendClassify → STATUS_FWP_CANNOT_PEND."""
    statuses: list[NtStatus] = []

    def try_it(call: LayerCall) -> None:
        fwps = call.owner.fwps
        statuses.append(fwps.pend_operation(call.meta.completion_handle or 1)[0])
        status, handle = fwps.acquire_classify_handle(call.classify_context, 0)
        if status == SUCCESS:
            statuses.append(fwps.pend_classify(handle, call.filter.filter_id, 0, call.out))
            fwps.release_classify_handle(handle)
        go_on(call)

    gate = Gate(ESTABLISHED, try_it)
    with MemoryDriver() as driver:
        driver.add(gate)
        flow = connect(driver)
        assert gate.faults == []
        assert set(statuses) == {NtStatus.STATUS_FWP_CANNOT_PEND}
        flow.send(b"x")
        assert flow.remote.data == b"x"


@pytest.mark.parametrize(
    ("heavy", "light", "blocked"), [(permit, block, True), (block, permit, True), (go_on, go_on, False)]
)
def test_lay_8_normal_arbitration_at_flow_established(heavy: Any, light: Any, blocked: bool) -> None:
    """LAY-8: ARB-14: Block overrides Permit; CONTINUE decides nothing."""
    with MemoryDriver() as driver:
        driver.add(Gate(ESTABLISHED, heavy, name="K"))
        driver.add(Gate(ESTABLISHED, light, name="L"))
        assert (driver.connect() is None) == blocked


def test_lay_8_a_plain_block_filter_is_hard() -> None:
    """LAY-8: a plain BLOCK clears the write right; a callout's PERMIT below is ignored."""
    rights: list[int] = []

    def look(call: LayerCall) -> None:
        rights.append(call.out.rights)
        permit(call)

    driver = MemoryDriver()
    plane = Plane(driver)
    sub_layer = plane.sub_layer("heavy", 0xFFF0)
    status, _ = plane.filter(
        "block",
        layer_key=fwpm.LAYER_ALE_FLOW_ESTABLISHED_V4,
        sub_layer_key=sub_layer,
        action_type=ActionType.BLOCK,
    )
    assert status == SUCCESS
    driver.add(Gate(ESTABLISHED, look))
    assert driver.connect() is None
    assert rights in ([0], [])
    plane.unload()
    driver.close()


@pytest.mark.parametrize("how", ["both fins", "reset"])
def test_lay_9_the_end_of_a_connection(how: str) -> None:
    """LAY-9: the stream layer shows it, and flowDeleteFn follows; ENDPOINT_CLOSURE is optional and not there."""
    a = Script()
    with MemoryDriver() as driver:
        driver.add(a)
        flow = connect(driver)
        assert a.associate(1, flow.id) == SUCCESS
        flow.send_fin()
        flow.receive_fin() if how == "both fins" else flow.reset("remote")
        last = "A(R FIN +N)" if how == "both fins" else "A(R ABORT +N)"
        assert a.transcript.log == ["A(S FIN +N)", last, "flowDelete(A)"]


# --- the discard layer ----------------------------------------------------------------------------


class Discards(Callout):
    """Looks at the discard layer and answers what it likes."""

    name = "discards"
    layers = ("stream_discard",)

    def __init__(self, out_flags: int = 0) -> None:
        self.out_flags = out_flags
        self.seen: list[tuple[int, bytes, int, int, int, int]] = []

    def classify_fn(self, *arguments: Any) -> None:
        fixed, meta, packet, *_, out = arguments
        reason = meta.discard_metadata
        self.seen.append(
            (
                fixed.layer_id,
                packet.stream_data.tobytes(),
                meta.current_metadata_values & int(MetadataField.DISCARD_REASON),
                reason.discard_module,
                reason.discard_reason,
                reason.filter_id,
            )
        )
        out.action_type = ActionType.PERMIT  # the result is ignored
        out.flags |= self.out_flags


def plain_block(driver: MemoryDriver, family: str = "V4") -> int:
    plane = Plane(driver)
    status, filter_id = plane.filter(
        "block", layer_key=getattr(fwpm, f"LAYER_STREAM_{family}"), action_type=ActionType.BLOCK
    )
    assert status == SUCCESS
    return filter_id


def test_dsc_1_filters_may_be_added_and_nothing_is_indicated() -> None:
    """DSC-1: by default the discard layer is silent."""
    discards = Discards()
    with MemoryDriver() as driver:
        driver.add(discards)
        plain_block(driver)
        connect(driver).send(b"gone")
        assert discards.seen == []


@pytest.mark.parametrize("family", ["V4", "V6"])
def test_dsc_2_the_switch_indicates_what_a_plain_block_removed(family: str) -> None:
    """DSC-2: once, inspection only, {GENERAL, FIREWALL_POLICY, filterId}; the result is ignored."""
    discards = Discards()
    host = "10.0.0.1" if family == "V4" else "fd00::1"
    with MemoryDriver(EngineOptions(discard_layer=True)) as driver:
        driver.add(discards)
        filter_id = plain_block(driver, family)
        flow = connect(driver, client=(host, 4000))
        flow.send(b"gone")
        flow.send_fin()
        assert discards.seen == [(LayerId[f"STREAM_{family}_DISCARD"], b"gone", 1, 2, 0, filter_id)]
        assert flow.remote.data == b""


def test_dsc_2_the_switch_indicates_what_an_unregistered_callout_removed() -> None:
    """DSC-2: REG-5 counts like a plain BLOCK; a callout's own BLOCK does not."""
    discards = Discards()
    with MemoryDriver(EngineOptions(discard_layer=True)) as driver:
        driver.add(discards)
        driver.add(Script(B(2), C(0)))
        plane = Plane(driver)
        plane.callout("nobody")
        status, filter_id = plane.filter(
            "f",
            sub_layer_key=plane.sub_layer("light", 1),
            action_type=ActionType.CALLOUT_TERMINATING,
            callout_key=key("nobody"),
        )
        assert status == SUCCESS
        connect(driver).send(b"abcd")
        assert [(one[1], one[5]) for one in discards.seen] == [(b"cd", filter_id)]
        plane.unload()


def test_dsc_3_absorb_is_ignored_and_told() -> None:
    """DSC-3: no effect at the stream layer, not valid at the discard layer: V-36 for each."""

    def absorb(call: Call) -> None:
        call.out.flags |= 1

    options = EngineOptions(discard_layer=True)
    options.verify.level = "warn"
    driver = MemoryDriver(options)
    driver.add(Discards(out_flags=1))
    driver.add(Script(P(0, absorb)))
    flow = connect(driver)
    flow.send(b"x")
    assert flow.remote.data == b"x"
    assert driver.violations == ["V-36"]
    plain_block(driver)
    flow.send(b"y")
    assert flow.remote.data == b"x"
    assert driver.violations == ["V-36", "V-36"]
    driver.close()
