"""References and the injection state, rule by rule (section 16.1).

Owns what stays valid after a classify, and whose injection a list belongs to.
"""

from __future__ import annotations

from typing import Any

from tests.rules.answers import permit
from tests.rules.keeping import referencing
from tests.rules.minimal import SEND, SUCCESS, World
from tests.scenarios.support import NMD, B, P, Script, inj
from wfpstream.fwp import NtStatus
from wfpstream.fwps import (
    PacketInjectionState,
)

INVALID = NtStatus.STATUS_INVALID_PARAMETER
SELF = PacketInjectionState.INJECTED_BY_SELF
OTHER = PacketInjectionState.INJECTED_BY_OTHER
ORIGINAL = PacketInjectionState.NOT_INJECTED
PREVIOUSLY = PacketInjectionState.PREVIOUSLY_INJECTED_BY_SELF


def test_ref_1_copy_and_clone_after_the_return() -> None:
    """REF-1: as in the classify, until the matching dereference; each reference needs its own."""
    w, kept = referencing()
    w.send(b"abc")
    w.fwps.reference_net_buffer_list(kept.lists[0])
    w.send(b"xyz")  # the driver's buffer is another one now
    w.fwps.dereference_net_buffer_list(kept.lists[0])
    buffer = bytearray(3)
    assert w.fwps.copy_stream_data_to_buffer(kept.data[0], buffer, 3) == 3
    assert bytes(buffer) == b"abc"
    status, chain = w.fwps.clone_stream_data(kept.data[0])
    assert (status, chain.tobytes()) == (SUCCESS, b"abc")
    w.fwps.discard_cloned_stream_data(chain)
    for nbl in kept.lists:
        w.fwps.dereference_net_buffer_list(nbl)
    assert w.close() == []


def test_ref_2_leak_and_too_many_dereferences() -> None:
    """REF-2: alive after the grace V-23, more dereferences than references V-26."""
    w, kept = referencing()
    w.send(b"a")
    w.send(b"b")
    w.fwps.dereference_net_buffer_list(kept.lists[0])
    w.fwps.dereference_net_buffer_list(kept.lists[0])
    assert [rule for rule, _ in w.caught] == ["V-26"]
    w.reset()
    w.driver.advance(5.1)
    assert [rule for rule, _ in w.close()] == ["V-26", "V-23"]


def test_ref_3_reference_outside_the_classify() -> None:
    """REF-3: no effect and V-27, unless another reference of the same callout holds the list."""
    w, kept = referencing()
    w.send(b"abc")
    nbl = kept.lists[0]
    w.fwps.reference_net_buffer_list(nbl, True)
    w.fwps.dereference_net_buffer_list(nbl, False)
    w.fwps.dereference_net_buffer_list(nbl, True)
    assert w.caught == []
    w.fwps.reference_net_buffer_list(nbl)
    assert [rule for rule, _ in w.caught] == ["V-27"]
    assert w.fwps.clone_stream_data(kept.data[0]) == (INVALID, None)


def asking(w: World, found: list[Any]) -> None:
    """A lower callout that asks for the state of each list it is shown, through the upper's handle and its own."""
    lower = Script(name="B")

    def ask(call: Any) -> None:
        nbl = call.packet.stream_data.net_buffer_list_chain
        while nbl is not None:
            handles = (w.callout.injection_handle, lower.injection_handle)
            found.append([w.fwps.query_packet_injection_state(handle, nbl) for handle in handles])
            nbl = nbl.next

    for _ in range(6):
        lower.add_answers(P(0, ask))
    w.driver.add(lower)
    w.flow = w.connect()


def test_qpi_1_by_self_by_other_not_injected() -> None:
    """QPI-1: with the context of the injection for the handle that made it."""
    found: list[Any] = []
    w = World(permit)
    asking(w, found)
    assert w.inject_bytes(SEND, b"x", injection_context=7) == SUCCESS
    w.send(b"o")
    assert found == [[(SELF, 7), (OTHER, None)], [(ORIGINAL, None), (ORIGINAL, None)]]
    assert w.close() == []


def test_qpi_2_previously_injected() -> None:
    """QPI-2: B clones an injected run and injects it again through its own handle; C asks."""
    found: list[Any] = []
    w = World(permit)
    middle, last = Script(name="B"), Script(name="C")

    def inject_again(call: Any) -> None:
        status, chain = middle.fwps.clone_stream_data(call.packet.stream_data)
        assert status == SUCCESS
        assert chain is not None
        state.append(middle.fwps.query_packet_injection_state(w.callout.injection_handle, chain))
        assert (
            middle.inject_chain(SEND, chain, 1, middle.fwps.free_clone_net_buffer_list, flow_id=w.flow.id)
            == SUCCESS
        )

    def ask(call: Any) -> None:
        nbl = call.packet.stream_data.net_buffer_list_chain
        for handle in (w.callout.injection_handle, middle.injection_handle, last.injection_handle):
            found.append(w.fwps.query_packet_injection_state(handle, nbl))

    state: list[Any] = []
    middle.add_answers(B(0, inject_again))
    last.add_answers(P(0, ask))
    w.driver.add(middle)
    w.driver.add(last)
    w.flow = w.connect()
    assert w.inject_bytes(SEND, b"x", injection_context=7) == SUCCESS
    w.settle()
    assert state == [(SELF, 7)]  # a clone has the state of its source until it is injected
    assert found == [(PREVIOUSLY, 7), (SELF, 0), (OTHER, None)]
    assert w.to_remote == b"x"
    assert w.close() == []


def test_qpi_2_merged_items_keep_their_states() -> None:
    """QPI-2: re-indication of merged data keeps one list per item, each with its own state (NMD-5)."""
    found: list[Any] = []
    w = World(permit)
    lower = Script(NMD(2), name="B")

    def ask(call: Any) -> None:
        nbl = call.packet.stream_data.net_buffer_list_chain
        while nbl is not None:
            found.append(
                (nbl.tobytes(), w.fwps.query_packet_injection_state(w.callout.injection_handle, nbl))
            )
            nbl = nbl.next

    lower.add_answers(P(0, ask))
    w.driver.add(lower)
    w.flow = w.connect()
    assert w.inject_bytes(SEND, b"x", injection_context=7) == SUCCESS
    w.send(b"o")
    assert found == [(b"x", (SELF, 7)), (b"o", (ORIGINAL, None))]
    assert w.close() == []


def test_qpi_2_unknown_or_destroyed_handle() -> None:
    """QPI-2: INJECTED_BY_OTHER for injected runs; a clone keeps that state after its completion."""
    w = World(permit)
    lower = Script(name="B")
    kept: list[Any] = []
    lower.add_answers(
        B(0, lambda call: kept.append(w.fwps.clone_stream_data(call.packet.stream_data)[1])), B(0)
    )
    w.driver.add(lower)
    w.flow = w.connect()
    status, handle = w.fwps.injection_handle_create()
    assert status == SUCCESS
    assert w.inject_bytes(SEND, b"x", injection_handle=handle, injection_context=7) == SUCCESS
    w.settle()
    assert w.completed == [(b"x", SUCCESS)]
    query = w.fwps.query_packet_injection_state
    assert query(handle, kept[0]) == (SELF, 7)
    assert query(0xDEAD, kept[0]) == (OTHER, None)
    assert w.fwps.injection_handle_destroy(handle) == SUCCESS
    assert query(handle, kept[0]) == (OTHER, None)
    w.fwps.discard_cloned_stream_data(kept[0])
    assert w.close() == []


def test_qpi_3_advice_only() -> None:
    """QPI-3: another callout of the driver may edit what is reported as INJECTED_BY_SELF."""
    w = World(permit)
    lower = Script(B(0, inj(b"y")), name="B")
    w.driver.add(lower)
    w.flow = w.connect()
    assert w.inject_bytes(SEND, b"x") == SUCCESS
    w.settle()
    assert w.to_remote == b"y"
    assert w.close() == []
