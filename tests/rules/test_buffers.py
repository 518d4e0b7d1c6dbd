"""Clones, copies, references and allocated lists, rule by rule (section 16).

Owns what the buffer calls return and who must end what. What the verifier says about misuse is in
`test_violations_use`.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.rules.answers import block, permit
from tests.rules.keeping import referencing
from tests.rules.minimal import BLOCK, PERMIT, RECEIVE, SEND, SUCCESS, HandClock, World
from tests.scenarios.support import P, Script
from wfpstream.engine import YES, EngineOptions
from wfpstream.fwp import CalloutFlags, NtStatus
from wfpstream.fwps import (
    Mdl,
    NetBufferList,
    StreamData,
    StreamDataOffset,
    ndis_advance_net_buffer_data_start,
    ndis_get_data_buffer,
    ndis_retreat_net_buffer_data_start,
)

INVALID = NtStatus.STATUS_INVALID_PARAMETER


def chain_of(first: NetBufferList | None) -> list[NetBufferList]:
    lists = []
    while first is not None:
        lists.append(first)
        first = first.next
    return lists


def cloning_world(**world: Any) -> World:
    """A world whose callout clones and blocks everything."""

    def classify(*call: Any) -> None:
        w.keep_clone(call[2])
        call[-1].action_type = BLOCK

    w = World(classify, **world)
    return w


def test_cln_1_the_indicated_range_and_nothing_else() -> None:
    """CLN-1: byte count equals dataLength, ready for injection; also of a remainder."""
    lengths: list[int] = []

    def classify(*call: Any) -> None:
        packet, out = call[2], call[-1]
        out.action_type = PERMIT
        if len(packet.stream_data) == 6:
            packet.count_bytes_enforced = 2
            return
        out.action_type = BLOCK
        status, chain = w.fwps.clone_stream_data(packet.stream_data, None, None, 0)
        assert status == SUCCESS
        lengths.append(sum(nbl.data_length for nbl in chain_of(chain)))
        w.kept.append(chain)

    w = World(classify)
    w.send(b"abcdef")
    assert lengths == [4]
    assert b"".join(nbl.tobytes() for nbl in chain_of(w.kept[0])) == b"cdef"
    assert w.inject_kept(SEND) == SUCCESS
    w.settle()
    assert w.to_remote == b"abcdef"
    assert w.close() == []


def test_cln_2_inside_the_classify_or_on_referenced_lists() -> None:
    """CLN-2: later only on a private FWPS_STREAM_DATA0 whose lists are referenced, else V-27."""
    w, kept = referencing()
    w.send(b"abc")
    status, chain = w.fwps.clone_stream_data(kept.data[0])
    assert (status, chain.tobytes()) == (SUCCESS, b"abc")
    w.fwps.discard_cloned_stream_data(chain)
    w.fwps.dereference_net_buffer_list(kept.lists[0])
    assert w.caught == []
    assert w.fwps.clone_stream_data(kept.data[0]) == (INVALID, None)
    assert [rule for rule, _ in w.close()] == ["V-27"]


def test_cln_3_flags_must_be_zero() -> None:
    """CLN-3: STATUS_INVALID_PARAMETER."""
    answers: list[Any] = []

    def classify(*call: Any) -> None:
        answers.append(w.fwps.clone_stream_data(call[2].stream_data, None, None, 1))
        call[-1].action_type = PERMIT

    w = World(classify)
    w.send(b"x")
    assert answers == [(INVALID, None)]
    assert w.close() == []


def test_cln_4_clone_of_a_fin_and_of_an_abort() -> None:
    """CLN-4: one list of length 0, not NULL."""
    w = cloning_world()
    w.send_fin()
    w.reset()
    assert [[nbl.data_length for nbl in chain_of(chain)] for chain in w.kept] == [[0], [0]]
    w.discard()
    w.discard()
    assert w.close() == []


def test_cln_5_chain_or_list_by_list() -> None:
    """CLN-5: the chain at once, what is left of it, or every list by itself."""

    def classify(*call: Any) -> None:
        packet, out = call[2], call[-1]
        out.action_type = BLOCK
        if len(packet.stream_data) < 3:
            packet.stream_action = 1  # NEED_MORE_DATA: merged items make a chain (NMD-5)
            packet.count_bytes_required = 3
            out.action_type = 0
            return
        w.keep_clone(packet)

    w = World(classify)
    for _ in range(3):
        for byte in (b"a", b"b", b"c"):
            w.send(byte)
    chains = [chain_of(chain) for chain in w.kept]
    assert [[nbl.tobytes() for nbl in chain] for chain in chains] == [[b"a", b"b", b"c"]] * 3
    w.fwps.discard_cloned_stream_data(w.kept[0])
    w.fwps.free_clone_net_buffer_list(chains[1][0])
    w.fwps.discard_cloned_stream_data(chains[1][1])
    for nbl in chains[2]:
        w.fwps.free_clone_net_buffer_list(nbl, 0)
    assert w.close() == []


@pytest.mark.parametrize("free", ["discard", "free clone", "free list"])
def test_cln_6_discard_for_a_chain_free_clone_for_one(free: str) -> None:
    """CLN-6: FwpsFreeNetBufferList on a clone is V-25; whatever the function, the clone is gone."""
    w = cloning_world()
    w.send(b"x")
    functions = {
        "discard": w.fwps.discard_cloned_stream_data,
        "free clone": w.fwps.free_clone_net_buffer_list,
        "free list": w.fwps.free_net_buffer_list,
    }
    functions[free](w.kept.pop())
    assert [rule for rule, _ in w.close()] == (["V-25"] if free == "free list" else [])


def test_cln_7_cloned_bytes_are_immutable() -> None:
    """CLN-7: what a clone shows does not change when the driver reuses its buffer, and cannot be written."""
    w = cloning_world()
    w.send(b"abc")
    w.send(b"xyz")
    (piece,) = w.kept[0].pieces()
    assert bytes(piece) == b"abc"
    assert piece.readonly
    w.discard()
    w.discard()
    assert w.close() == []


def test_cln_8_age_limit() -> None:
    """CLN-8: 30 s by default, configurable, lint; an allocated list may be kept for as long as one likes."""
    for limit, caught in ((30.0, 0), (10.0, 1)):
        clock = HandClock()
        options = EngineOptions()
        assert options.verify.clone_age == 30.0
        options.verify.clone_age = limit
        w = cloning_world(clock=clock, options=options)
        w.send(b"x")
        own = w.list_of(b"copy")
        clock.now += 20.0
        w.discard()
        clock.now += 1000.0
        w.fwps.free_net_buffer_list(own)
        w.close()
        assert w.severities == [("V-24", "L")] * caught


def test_cln_9_leaks_after_the_grace() -> None:
    """CLN-9 (a): `verify.grace` after the flow's end, in virtual time."""
    assert EngineOptions().verify.grace == 5.0
    w = cloning_world()
    w.send(b"x")
    assert w.fwps.flow_abort(w.flow.id) == SUCCESS
    w.settle()
    w.driver.advance(4.9)
    assert w.caught == []
    w.driver.advance(0.2)
    assert [rule for rule, _ in w.caught] == ["V-23"]


def test_cln_9_discarded_within_the_grace() -> None:
    """CLN-9 (a): the ordinary race of a flow's end is no leak (VRF-2)."""
    w = cloning_world()
    w.send(b"x")
    assert w.fwps.flow_abort(w.flow.id) == SUCCESS
    w.settle()
    w.driver.advance(4.9)
    w.discard()
    w.driver.advance(10.0)
    assert w.close() == []


@pytest.mark.parametrize("checkpoint", ["unregister", "stop"])
def test_cln_9_leaks_at_the_other_checkpoints(checkpoint: str) -> None:
    """CLN-9 (b): at callout unregister and engine stop; an allocated list too."""
    lists: list[NetBufferList] = []

    def classify(*call: Any) -> None:
        w.keep_clone(call[2])
        lists.append(w.list_of(b"own"))
        call[-1].action_type = BLOCK

    w = World(classify)
    w.send(b"x")
    if checkpoint == "unregister":
        assert w.fwps.callout_unregister_by_id(w.callout_id) == SUCCESS
    else:
        w.driver.engine.stop()
    assert [rule for rule, _ in w.caught] == ["V-23", "V-23"]


def test_cln_9_only_what_belongs_to_the_callout_counts() -> None:
    """CLN-9 (b): at the unregistration of one callout the clones of another are no leak."""
    w = cloning_world()
    other = Script(P(0), name="B")
    w.driver.add(other)
    w.flow = w.connect()
    w.send(b"x")
    stream = other.callout_id(other.layer_id)
    assert w.fwps.callout_unregister_by_id(stream) == SUCCESS
    assert w.caught == []
    w.discard()


def test_cln_9_handle_destroy() -> None:
    """CLN-9 (b): what was made for that handle and is still alive when the handle is destroyed."""
    kept: list[Any] = []

    def keep(context: object, nbl: Any, dispatch_level: bool) -> None:
        kept.append(nbl)

    w = World(block)
    status, handle = w.fwps.injection_handle_create()
    assert status == SUCCESS
    unrelated = w.list_of(b"u")
    injected = w.list_of(b"x")
    assert w.inject(SEND, injected, injection_handle=handle, completion_fn=keep) == SUCCESS
    w.settle()
    assert w.fwps.injection_handle_destroy(handle) == SUCCESS
    assert [rule for rule, _ in w.caught] == ["V-35"]
    w.fwps.free_net_buffer_list(unrelated)


def test_cln_10_one_list_whole() -> None:
    """CLN-10: shares the bytes, knows its parent, knows nothing of the range of FWPS_STREAM_DATA0."""
    seen: list[tuple[bytes, bool]] = []

    def classify(*call: Any) -> None:
        packet, out = call[2], call[-1]
        nbl = packet.stream_data.net_buffer_list_chain
        status, clone = w.fwps.allocate_clone_net_buffer_list(nbl, None, None, 0)
        assert status == SUCCESS
        seen.append((clone.tobytes(), clone.parent is nbl))
        w.fwps.free_clone_net_buffer_list(clone)
        assert w.fwps.allocate_clone_net_buffer_list(nbl, None, None, 1) == (INVALID, None)
        out.action_type = PERMIT

    w = World(classify)
    w.send(b"abc")
    assert seen == [(b"abc", True)]
    assert w.close() == []


def test_cln_10_injection_needs_its_own_length() -> None:
    """CLN-10: the clone of one list of a merged indication is injected with that list's length (INJ-39)."""
    w, kept = referencing()
    w.send(b"abc")
    status, clone = w.fwps.allocate_clone_net_buffer_list(kept.lists[0])
    assert status == SUCCESS
    w.fwps.dereference_net_buffer_list(kept.lists[0])
    assert w.inject(SEND, clone, 2) == NtStatus.STATUS_FWP_INVALID_PARAMETER
    assert w.inject(SEND, clone, 3, completion_fn=w.free_clone_in_completion) == SUCCESS
    w.settle()
    assert w.to_remote == b"abc"
    assert w.close() == []


def test_cln_10_valid_sources() -> None:
    """CLN-10: an owned list too; one that was indicated and is not referenced any more is V-27."""
    w, kept = referencing()
    w.send(b"abc")
    own = w.list_of(b"own")
    status, clone = w.fwps.allocate_clone_net_buffer_list(own)
    assert (status, clone.tobytes(), clone.parent is own) == (SUCCESS, b"own", True)
    w.fwps.free_clone_net_buffer_list(clone)
    w.fwps.free_net_buffer_list(own)
    w.fwps.dereference_net_buffer_list(kept.lists[0])
    assert w.caught == []
    assert w.fwps.allocate_clone_net_buffer_list(kept.lists[0]) == (INVALID, None)
    assert [rule for rule, _ in w.close()] == ["V-27"]


@pytest.mark.parametrize("flag", [0, int(CalloutFlags.ALLOW_L2_BATCH_CLASSIFY)])
def test_cln_10_layer_2_flag(flag: int) -> None:
    """CLN-10, CFN-8: with that flag this call fails, FwpsCloneStreamData does not."""
    answers: list[NtStatus] = []

    def classify(*call: Any) -> None:
        status, clone = w.fwps.allocate_clone_net_buffer_list(call[2].stream_data.net_buffer_list_chain)
        answers.append(status)
        if clone is not None:
            w.fwps.free_clone_net_buffer_list(clone)
        status, chain = w.fwps.clone_stream_data(call[2].stream_data)
        answers.append(status)
        w.fwps.discard_cloned_stream_data(chain)
        call[-1].action_type = PERMIT

    w = World(classify, flags=flag)
    w.send(b"x")
    assert answers == [INVALID if flag else SUCCESS, SUCCESS]
    assert w.close() == []


def test_cln_11_deep_clone() -> None:
    """CLN-11: copies the bytes; the same free function and the same leak rule, its page counts it as a child."""
    w, kept = referencing()
    w.send(b"abc")
    status, deep = w.fwps.allocate_deep_clone_net_buffer_list(kept.lists[0])
    assert status == SUCCESS
    assert deep.parent is kept.lists[0]
    w.fwps.dereference_net_buffer_list(kept.lists[0])
    assert deep.tobytes() == b"abc"
    status, leaked = w.fwps.allocate_deep_clone_net_buffer_list(deep)
    assert status == SUCCESS
    w.fwps.free_clone_net_buffer_list(deep)
    assert w.caught == []
    assert [rule for rule, _ in w.close()] == ["V-23"]
    assert leaked is not None


def test_cln_11_deep_clone_does_not_pin_the_sender() -> None:
    """CLN-11: pended clones stop the reading at half the limit (IND-24), deep clones do not."""

    def still_read(deep: bool) -> bool:
        def classify(*call: Any) -> None:
            if deep:
                nbl = call[2].stream_data.net_buffer_list_chain
                w.kept.append(w.fwps.allocate_deep_clone_net_buffer_list(nbl)[1])
            else:
                w.keep_clone(call[2])
            call[-1].action_type = BLOCK

        options = EngineOptions()
        options.limits.pended = 100
        w = World(classify, options=options)
        w.send(bytes(60))
        answer = w.flow.may_read(0) == YES
        w.discard()
        assert w.close() == []
        return answer

    assert not still_read(deep=False)
    assert still_read(deep=True)


@pytest.mark.parametrize("mdls", [1, 3])
def test_cln_12_walking(mdls: int) -> None:
    """CLN-12: one NET_BUFFER with one or several MDLs; NdisGetDataBuffer gives a pointer, a copy, or NULL."""
    seen: list[Any] = []

    def classify(*call: Any) -> None:
        nbl = call[2].stream_data.net_buffer_list_chain
        (net_buffer,) = nbl.net_buffers()
        storage = bytearray(6)
        whole = ndis_get_data_buffer(net_buffer, 6, storage)
        seen.append(bytes(whole) if whole is not None else None)
        seen.append(ndis_get_data_buffer(net_buffer, 6, None) is not None)
        seen.append(ndis_get_data_buffer(net_buffer, 7, bytearray(7)))
        head = ndis_get_data_buffer(net_buffer, 2, None)
        seen.append(bytes(head) if head is not None else None)
        call[-1].action_type = PERMIT

    w = World(classify, options=EngineOptions(indicate_mdls=mdls))
    w.send(b"abcdef")
    assert seen == [b"abcdef", mdls == 1, None, b"ab"]
    assert w.close() == []


def test_cln_13_retreat_needs_space_or_leave_to_allocate() -> None:
    """CLN-13: beyond the available space STATUS_INSUFFICIENT_RESOURCES, unless it can allocate."""
    w = World(permit)
    nbl = w.list_of(b"abcdef")
    net_buffer = nbl.first_net_buffer
    assert net_buffer is not None
    ndis_advance_net_buffer_data_start(net_buffer, 4)
    assert nbl.tobytes() == b"ef"
    refused = ndis_retreat_net_buffer_data_start(net_buffer, 5, 0, False)
    assert refused == NtStatus.STATUS_INSUFFICIENT_RESOURCES
    assert nbl.tobytes() == b"ef"
    assert ndis_retreat_net_buffer_data_start(net_buffer, 4, 0, False) == SUCCESS
    assert nbl.tobytes() == b"abcdef"
    assert ndis_retreat_net_buffer_data_start(net_buffer, 2, 0, True) == SUCCESS
    assert nbl.data_length == 8
    assert nbl.tobytes()[2:] == b"abcdef"
    w.fwps.free_net_buffer_list(nbl)
    assert w.close() == []


def test_cln_13_clone_injected_wrongly_long() -> None:
    """CLN-13: a clone whose data start was moved and not put back, injected: V-29."""
    w = cloning_world()
    w.send(b"abc")
    ndis_advance_net_buffer_data_start(w.kept[0].first_net_buffer, 1)
    assert w.inject_kept(SEND) == SUCCESS
    w.settle()
    assert "V-29" in [rule for rule, _ in w.close()]


# --- copying --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mdls", [1, 4])
def test_cpy_1_min_of_bytes_to_copy_and_length(mdls: int) -> None:
    """CPY-1: from dataOffset on, across list and MDL borders; bytesCopied tells."""
    seen: list[tuple[int, bytes]] = []

    def classify(*call: Any) -> None:
        packet, out = call[2], call[-1]
        out.action_type = PERMIT
        if len(packet.stream_data) < 6:
            packet.stream_action = 1
            packet.count_bytes_required = 6
            out.action_type = 0
            return
        for wanted, room in ((4, 4), (6, 6), (9, 9)):
            buffer = bytearray(room)
            seen.append(
                (w.fwps.copy_stream_data_to_buffer(packet.stream_data, buffer, wanted), bytes(buffer))
            )

    w = World(classify, options=EngineOptions(indicate_mdls=mdls))
    w.send(b"abc")
    w.send(b"def")
    assert seen == [(4, b"abcd"), (6, b"abcdef"), (9 - 3, b"abcdef\0\0\0")]
    assert w.close() == []


def test_cpy_2_private_stream_data_over_a_clone_chain() -> None:
    """CPY-2: the offset members count, dataLength may exceed the chain: the copy stops at its end."""
    w = cloning_world()
    w.send(b"abcdef")
    clone = w.kept[0]
    net_buffer = clone.first_net_buffer
    offset = StreamDataOffset(clone, net_buffer, net_buffer.mdl_chain, 2)
    buffer = bytearray(10)
    assert w.fwps.copy_stream_data_to_buffer(StreamData(SEND, offset, 100, clone), buffer, 10) == 4
    assert bytes(buffer) == b"cdef" + bytes(6)
    assert w.fwps.copy_stream_data_to_buffer(StreamData(SEND, offset, 3, clone), buffer, 10) == 3
    w.discard()
    assert w.close() == []


# --- allocated lists ------------------------------------------------------------------------------


def test_alo_1_one_static_mdl_behind_many_lists() -> None:
    """ALO-1: offset and length choose the part; the caller owns each list."""
    w = World(permit)
    static = Mdl(b"0123456789")
    for offset, length in ((0, 3), (3, 4), (9, 1), (0, 10)):
        status, nbl = w.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, static, offset, length)
        assert status == SUCCESS
        assert w.inject(RECEIVE, nbl) == SUCCESS
    w.settle()
    assert w.to_local == b"012345690123456789"
    assert w.close() == []
