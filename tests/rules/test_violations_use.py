"""What a callout does with buffers and injections against the contract (V-19..V-29).

As in `test_violations`: for each a minimal callout that is caught with id and place, and the closest legal
one that is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.rules.answers import block, permit
from tests.rules.minimal import (
    BLOCK,
    PERMIT,
    RECEIVE,
    RECEIVE_FIN,
    SEND,
    SEND_FIN,
    SUCCESS,
    HandClock,
    World,
    here,
    parts,
    place,
)
from wfpstream.fwp import NtStatus
from wfpstream.fwps import (
    NetBuffer,
    StreamData,
    ndis_advance_net_buffer_data_start,
    ndis_retreat_net_buffer_data_start,
)

INVALID_STATE = NtStatus.STATUS_INVALID_DEVICE_STATE


def pending(*call: Any) -> None:
    """Clones and blocks everything; the world is `current[-1]`."""
    current[-1].keep_clone(call[2])
    call[-1].action_type = BLOCK


current: list[World] = []


def out_of_band(**world: Any) -> World:
    """A world whose callout clones and blocks everything."""
    current.append(World(pending, **world))
    return current[-1]


@pytest.mark.parametrize(("flags", "severity"), [(SEND_FIN, "E"), (RECEIVE_FIN, "L")])
def test_v_19_fin_injected_where_none_is_pended(flags: int, severity: str) -> None:
    """V-19: an error outbound, lint inbound (ABT-3); the direction closes all the same (OOB-7)."""
    w = World(permit)
    assert w.inject(flags, None) == SUCCESS
    w.settle()
    assert (w.flow.remote.fin, w.flow.local.fin) == (flags == SEND_FIN, flags == RECEIVE_FIN)
    assert w.close() == [("V-19", w.injected_at)]
    assert w.severities == [("V-19", severity)]


def test_v_19_fin_injected_where_one_is_pended() -> None:
    """V-19 does not apply to a pended FIN, nor to the FIN's own classify followed by BLOCK."""
    w = World(block)
    w.send_fin()
    assert w.inject(SEND_FIN, None) == SUCCESS
    w.settle()
    assert w.flow.remote.fin
    assert w.close() == []

    def in_its_own_classify(*call: Any) -> None:
        assert w.inject(SEND_FIN, None) == SUCCESS
        call[-1].action_type = BLOCK

    w = World(in_its_own_classify)
    w.send_fin()
    assert w.flow.remote.fin
    assert w.close() == []


def test_v_21_injection_after_a_permit() -> None:
    """V-21: outside a classify where the last decision was a permit; after a BLOCK it is legal (OOB-5)."""
    w = World(permit)
    w.send(b"a")
    assert w.inject_bytes(SEND, b"x") == SUCCESS
    w.settle()
    assert w.to_remote == b"ax"
    assert w.close() == [("V-21", w.injected_at)]
    w = World(block)
    w.send(b"a")
    assert w.inject_bytes(SEND, b"x") == SUCCESS
    w.settle()
    assert w.close() == []


def test_v_21_injection_into_the_other_direction() -> None:
    """V-21: from inside a classify of the other direction the same holds."""

    def answering_back(*call: Any) -> None:
        packet, out = parts(call)
        out.action_type = PERMIT
        if not packet.stream_data.flags & RECEIVE:
            w.inject_bytes(RECEIVE, b"x")

    w = World(answering_back)
    w.receive(b"a")
    w.send(b"b")
    assert w.close() == [("V-21", w.injected_at)]
    w = World(answering_back)
    w.send(b"b")
    assert w.to_local == b"x"
    assert w.close() == []


@pytest.mark.parametrize("discarded", [True, False])
def test_v_23_clone_leaked(discarded: bool) -> None:
    """V-23: alive `verify.grace` after the flow's end; it names where it was made (CLN-9)."""
    where: list[str] = []

    def cloning(*call: Any) -> None:
        where.append(here())
        w.kept.append(w.fwps.clone_stream_data(call[2].stream_data)[1])
        call[-1].action_type = BLOCK

    w = World(cloning)
    w.send(b"a")
    if discarded:
        w.discard()
    w.reset("local")
    w.driver.advance(5.1)
    # The ABORT is cloned too (it shows as one empty list), so both are discarded in the legal case.
    assert [rule for rule, _ in w.caught] == ["V-23"] * (1 if discarded else 2)
    assert where[-1] in w.events("violation")[-1]["text"]


@pytest.mark.parametrize("dereferenced", [True, False])
def test_v_23_reference_leaked(dereferenced: bool) -> None:
    """V-23: the same for references (REF-2)."""
    where: list[str] = []

    def referencing(*call: Any) -> None:
        if call[2].stream_data.data_length:
            where.append(here(3))
            nbl = call[2].stream_data.net_buffer_list_chain
            w.kept.append(nbl)
            w.fwps.reference_net_buffer_list(nbl)
        call[-1].action_type = BLOCK

    w = World(referencing)
    w.send(b"a")
    if dereferenced:
        w.fwps.dereference_net_buffer_list(w.kept[0])
    w.reset("local")
    w.driver.advance(4.9)
    assert w.caught == []
    w.driver.advance(0.2)
    assert [rule for rule, _ in w.caught] == ([] if dereferenced else ["V-23"])
    if not dereferenced:
        assert where[0] in w.events("violation")[0]["text"]
    assert w.severities == ([] if dereferenced else [("V-23", "E")])


@pytest.mark.parametrize(("seconds", "caught"), [(30.5, 1), (29.5, 0)])
@pytest.mark.parametrize("kind", ["clone", "reference"])
def test_v_24_held_too_long(kind: str, seconds: float, caught: int) -> None:
    """V-24: lint of the real clock, 30 s by default (CLN-8)."""
    clock = HandClock()

    def keeping(*call: Any) -> None:
        if kind == "clone":
            w.keep_clone(call[2])
        else:
            w.kept.append(call[2].stream_data.net_buffer_list_chain)
            w.fwps.reference_net_buffer_list(w.kept[0])
        call[-1].action_type = BLOCK

    w = World(keeping, clock=clock)
    w.send(b"a")
    clock.now += seconds
    where = here(2 if kind == "clone" else 4)
    if kind == "clone":
        w.fwps.discard_cloned_stream_data(w.kept.pop())
    else:
        w.fwps.dereference_net_buffer_list(w.kept.pop())
    assert w.severities == [("V-24", "L")] * caught
    assert w.close() == [("V-24", where)] * caught


def test_v_24_off_under_virtual_time() -> None:
    """V-24: not where time is virtual (VRF-3)."""
    w = out_of_band()
    w.send(b"a")
    w.driver.advance(1000.0)
    w.discard()
    assert w.close() == []


def test_v_25_wrong_free_function() -> None:
    """V-25: FreeNetBufferList on a clone, FreeClone and Discard on an allocated list (CLN-6)."""
    w = out_of_band()
    w.send(b"abc")
    clone = w.kept.pop()
    clone_freed = here()
    w.fwps.free_net_buffer_list(clone)
    one, other = w.list_of(b"x"), w.list_of(b"y")
    one_freed = here()
    w.fwps.free_clone_net_buffer_list(one)
    other_freed = here()
    w.fwps.discard_cloned_stream_data(other)
    assert w.close() == [("V-25", clone_freed), ("V-25", one_freed), ("V-25", other_freed)]


def test_v_25_right_free_functions() -> None:
    """V-25 does not apply: each kind by its own function."""
    w = out_of_band()
    w.send(b"abc")
    w.send(b"def")
    w.fwps.free_clone_net_buffer_list(w.kept.pop())
    w.fwps.discard_cloned_stream_data(w.kept.pop())
    w.fwps.free_net_buffer_list(w.list_of(b"x"))
    assert w.close() == []


def test_v_26_freed_twice_and_while_injected() -> None:
    """V-26: double free, free of what an injection has, more dereferences than references."""
    w = World(block)
    nbl = w.list_of(b"x")
    w.fwps.free_net_buffer_list(nbl)
    twice = here()
    w.fwps.free_net_buffer_list(nbl)
    w.flow.remote.window = 0
    lent = w.list_of(b"y")
    assert w.inject(SEND, lent) == SUCCESS
    while_lent = here()
    w.fwps.free_net_buffer_list(lent)
    assert w.caught == [("V-26", twice), ("V-26", while_lent)]
    w.flow.remote.window = None
    w.settle()
    assert w.completed == [(b"y", SUCCESS)]
    assert w.close() == [("V-26", twice), ("V-26", while_lent)]


def test_v_26_more_dereferences_than_references() -> None:
    """V-26: REF-2."""

    def referencing(*call: Any) -> None:
        nbl = call[2].stream_data.net_buffer_list_chain
        w.kept.append(nbl)
        w.fwps.reference_net_buffer_list(nbl)
        w.fwps.reference_net_buffer_list(nbl)
        call[-1].action_type = BLOCK

    w = World(referencing)
    w.send(b"a")
    w.fwps.dereference_net_buffer_list(w.kept[0])
    w.fwps.dereference_net_buffer_list(w.kept[0])
    assert w.caught == []
    where = here()
    w.fwps.dereference_net_buffer_list(w.kept[0])
    assert w.close() == [("V-26", where)]


@pytest.mark.parametrize("use", ["clone", "copy"])
@pytest.mark.parametrize("referenced", [False, True])
def test_v_27_used_after_the_classify(use: str, referenced: bool) -> None:
    """V-27: stream data used after the classify without a reference that covers it (IND-22)."""
    kept: list[StreamData] = []

    def keeping(*call: Any) -> None:
        shown = call[2].stream_data
        mine = StreamData(shown.flags, shown.data_offset, len(shown), shown.net_buffer_list_chain)
        if referenced:
            w.fwps.reference_net_buffer_list(shown.net_buffer_list_chain)
        kept.append(mine)
        call[-1].action_type = BLOCK

    w = World(keeping)
    w.send(b"abc")
    storage = bytearray(3)
    where = here(2 if use == "clone" else 4)
    if use == "clone":
        status, chain = w.fwps.clone_stream_data(kept[0])
    else:
        w.fwps.copy_stream_data_to_buffer(kept[0], storage, 3)
    if referenced:
        assert bytes(storage) == (b"abc" if use == "copy" else b"\0\0\0")
        if use == "clone":
            assert (status, chain.tobytes()) == (SUCCESS, b"abc")
            w.fwps.discard_cloned_stream_data(chain)
        w.fwps.dereference_net_buffer_list(kept[0].net_buffer_list_chain)
    elif use == "clone":
        assert (status, chain) == (NtStatus.STATUS_INVALID_PARAMETER, None)
    assert w.close() == ([] if referenced else [("V-27", where)])


@pytest.mark.parametrize("callback", ["classify", "completion", "flow delete", "outside"])
def test_v_28_handle_destroyed_in_a_callback(callback: str) -> None:
    """V-28: it would dead-lock on Windows, CMP-12."""
    answers: list[Any] = []
    where: list[str] = []

    def destroy(at: str) -> None:
        if at == callback:
            where.append(here())
            answers.append(w.fwps.injection_handle_destroy(handle))

    def classify(*call: Any) -> None:
        destroy("classify")
        call[-1].action_type = BLOCK

    def complete(context: object, nbl: Any, dispatch_level: bool) -> None:
        w.fwps.free_net_buffer_list(nbl)
        destroy("completion")

    w = World(classify)
    w.callout.on_delete = lambda: destroy("flow delete")
    status, handle = w.fwps.injection_handle_create()
    assert status == SUCCESS
    assert w.associate(1) == SUCCESS
    w.send(b"a")
    assert w.inject(SEND, w.list_of(b"x"), completion_fn=complete) == SUCCESS
    w.settle()
    assert w.remove() == SUCCESS
    destroy("outside")
    legal = callback == "outside"
    assert answers == [SUCCESS if legal else INVALID_STATE]
    if not legal:
        assert w.fwps.injection_handle_destroy(handle) == SUCCESS
    assert w.close() == ([] if legal else [("V-28", where[0])])


@pytest.mark.parametrize("undone", [True, False])
@pytest.mark.parametrize("how", ["advance", "retreat"])
def test_v_29_clone_freed_with_modifications(how: str, undone: bool) -> None:
    """V-29: modifications of a clone's structure must be undone before it is freed (CLN-7)."""
    w = out_of_band()
    w.send(b"abc")
    change, undo = movers(how)
    clone = w.kept.pop()
    change(clone.first_net_buffer)
    if undone:
        undo(clone.first_net_buffer)
    where = here()
    w.fwps.discard_cloned_stream_data(clone)
    assert [rule for rule, _ in w.caught] == ([] if undone else ["V-29"])
    assert w.close() == ([] if undone else [("V-29", where)])


@pytest.mark.parametrize("undone", [True, False])
@pytest.mark.parametrize("how", ["advance", "retreat"])
def test_v_29_indicated_list_given_back_with_modifications(how: str, undone: bool) -> None:
    """V-29: on an indicated list it must be undone before the classify returns (CLN-13)."""
    change, undo = movers(how)

    def classify(*call: Any) -> None:
        net_buffer = call[2].stream_data.net_buffer_list_chain.first_net_buffer
        change(net_buffer)
        if undone:
            undo(net_buffer)
        call[-1].action_type = PERMIT

    w = World(classify)
    w.send(b"abc")
    assert w.to_remote == b"abc"
    assert w.close() == ([] if undone else [("V-29", place(classify))])


@pytest.mark.parametrize("undone", [True, False])
@pytest.mark.parametrize("how", ["advance", "retreat"])
def test_v_29_reference_dropped_with_modifications(how: str, undone: bool) -> None:
    """V-29: on a referenced list before the reference is dropped (CLN-13)."""
    change, undo = movers(how)

    def classify(*call: Any) -> None:
        nbl = call[2].stream_data.net_buffer_list_chain
        w.fwps.reference_net_buffer_list(nbl)
        w.kept.append(nbl)
        call[-1].action_type = BLOCK

    w = World(classify)
    w.send(b"abc")
    change(w.kept[0].first_net_buffer)
    if undone:
        undo(w.kept[0].first_net_buffer)
    where = here()
    w.fwps.dereference_net_buffer_list(w.kept[0])
    assert w.close() == ([] if undone else [("V-29", where)])


Mover = Callable[[NetBuffer], object]


def movers(how: str) -> tuple[Mover, Mover]:
    """(change, undo) of the data start by two bytes."""

    def advance(net_buffer: NetBuffer) -> None:
        ndis_advance_net_buffer_data_start(net_buffer, 2)

    def retreat(net_buffer: NetBuffer) -> None:
        assert ndis_retreat_net_buffer_data_start(net_buffer, 2) == SUCCESS

    return (advance, retreat) if how == "advance" else (retreat, advance)
