"""Calls at the wrong place, lists that are lost, and what is left behind (V-32..V-39, V-48..V-58).

As in `test_violations`: for each a minimal callout that is caught with id and place, and the closest legal
one that is not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid5

import pytest

from tests.rules.answers import answering, block, permit
from tests.rules.minimal import (
    BLOCK,
    NEED_MORE_DATA,
    NONE,
    RECEIVE,
    SEND,
    SEND_FIN,
    STREAM,
    SUCCESS,
    World,
    here,
    hints,
    parts,
    place,
)
from tests.scenarios.support_api import key, named
from wfpstream import fwpm
from wfpstream.fwp import DataType, FwpValue, MatchType, NtStatus
from wfpstream.fwps import (
    Callout1,
)
from wfpstream.testing import MemoryDriver

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


PASSIVE_ONLY: dict[str, Callable[[World], Any]] = {
    "register": lambda w: w.fwps.callout_register1(None, spare(w))[0],
    "unregister by id": lambda w: w.fwps.callout_unregister_by_id(w.callout_id),
    "unregister by key": lambda w: w.fwps.callout_unregister_by_key(key("spare")),
    "handle create": lambda w: w.fwps.injection_handle_create()[0],
    "engine open": lambda w: w.driver.engine.management.engine_open()[0],
    "transaction begin": lambda w: w.driver.session.transaction_begin(),
    "sublayer add": lambda w: w.driver.session.sub_layer_add(
        fwpm.SubLayer(sub_layer_key=key("s"), display_data=named("s"), weight=1)
    ),
    "filter delete": lambda w: w.driver.session.filter_delete_by_id(w.added.filter_ids[0]),
}


def spare(w: World) -> Callout1:
    return Callout1(key("spare"), 0, permit, w.callout.notify_fn, None)


@pytest.mark.parametrize("name", PASSIVE_ONLY)
@pytest.mark.parametrize("callback", ["classify", "completion", "flow delete"])
def test_v_32_passive_only_call(callback: str, name: str) -> None:
    """V-32: forbidden inside classify, completion and flowDelete, STATUS_INVALID_DEVICE_STATE (IRQ-3)."""
    answers: list[Any] = []

    def classify(*call: Any) -> None:
        if callback == "classify":
            answers.append(PASSIVE_ONLY[name](w))
        call[-1].action_type = BLOCK

    def complete(context: object, nbl: Any, dispatch_level: bool) -> None:
        w.fwps.free_net_buffer_list(nbl)
        answers.append(PASSIVE_ONLY[name](w))

    w = World(classify)
    if callback == "classify":
        w.send(b"a")
    elif callback == "completion":
        assert w.inject(SEND, w.list_of(b"x"), completion_fn=complete) == SUCCESS
        w.settle()
    else:
        w.callout.on_delete = lambda: answers.append(PASSIVE_ONLY[name](w))
        assert w.associate(1) == SUCCESS
        assert w.remove() == SUCCESS
    assert answers == [INVALID_STATE]
    ((rule, where),) = w.close()
    assert rule == "V-32"
    assert where is not None
    assert where.startswith(f"{__file__}:")
    assert w.severities == [("V-32", "E")]


@pytest.mark.parametrize("name", ["handle create", "sublayer add", "filter delete"])
def test_v_32_same_calls_outside(name: str) -> None:
    """V-32 does not apply outside a callback."""
    w = World(permit)
    assert PASSIVE_ONLY[name](w) == SUCCESS
    assert w.caught == []


@pytest.mark.parametrize("call", ["sublayer add", "handle create"])
def test_v_33_management_from_notify(call: str) -> None:
    """V-33: Fwpm* from notifyFn; the Fwps* calls of PASSIVE level are legal there (IRQ-3)."""
    answers: list[Any] = []
    w = World(permit)
    w.callout.on_notify = lambda: answers.append(PASSIVE_ONLY[call](w))
    assert w.driver.session.filter_delete_by_id(w.added.filter_ids[0]) == SUCCESS
    w.settle()
    if call == "sublayer add":
        assert answers == [INVALID_STATE]
        assert [rule for rule, _ in w.caught] == ["V-33"]
    else:
        assert answers == [SUCCESS]
        assert w.caught == []


@pytest.mark.parametrize("freed", [True, False])
def test_v_34_list_leaked_after_a_refused_injection(freed: bool) -> None:
    """V-34: the caller still owns it (INJ-1)."""
    w = World(permit)
    where = here(1)
    status, nbl = w.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, b"x", 0, 1)
    assert status == SUCCESS
    assert w.inject(SEND, nbl, length=2) == NtStatus.STATUS_FWP_INVALID_PARAMETER
    if freed:
        w.fwps.free_net_buffer_list(nbl)
    assert [rule for rule, _ in w.close()] == ([] if freed else ["V-34"])
    assert freed or where in w.events("violation")[0]["text"]


def test_v_35_completion_does_not_free() -> None:
    """V-35: CMP-8, found at the checkpoints of CLN-9; a completion that keeps it for later is legal until then."""
    kept: list[Any] = []

    def keep(context: object, nbl: Any, dispatch_level: bool) -> None:
        kept.append(nbl)

    for freed_later in (False, True):
        w = World(permit)
        where = here(1)
        status, nbl = w.fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, b"x", 0, 1)
        assert status == SUCCESS
        assert w.inject(SEND, nbl, completion_fn=keep) == SUCCESS
        w.settle()
        assert kept[-1] is nbl
        assert w.caught == []
        if freed_later:
            w.fwps.free_net_buffer_list(nbl)
        assert [rule for rule, _ in w.close()] == ([] if freed_later else ["V-35"])
        assert freed_later or where in w.events("violation")[0]["text"]


@pytest.mark.parametrize(("moment", "caught"), [("own classify", 1), ("within", 0), ("later", 1)])
def test_v_37_injection_after_an_abort(moment: str, caught: int) -> None:
    """V-37: in the ABORT's own classify, or later than the grace; in between it is the ordinary race (VRF-2)."""
    answers: list[Any] = []

    def classify(*call: Any) -> None:
        packet, out = parts(call)
        if moment == "own classify" and not packet.stream_data.data_length:
            answers.append(w.inject_bytes(SEND, b"x"))
        out.action_type = BLOCK

    w = World(classify)
    w.send(b"a")
    w.reset()
    if moment != "own classify":
        w.driver.advance(5.5 if moment == "later" else 4.5)
        answers.append(w.inject_bytes(SEND, b"x"))
    assert answers == [NtStatus.STATUS_FWP_NOT_FOUND]
    assert w.close() == [("V-37", w.injected_at)] * caught


@pytest.mark.parametrize("waiting", [True, False])
def test_v_38_filter_deleted_while_its_callout_works(waiting: bool) -> None:
    """V-38: STATUS_FWP_IN_USE while it waits (MGMT-13)."""
    classify = answering(NONE, stream_action=NEED_MORE_DATA) if waiting else permit
    w = World(classify)
    w.send(b"a")
    v4 = w.added.filter_ids[0]
    where = here()
    status = w.driver.session.filter_delete_by_id(v4)
    assert status == (NtStatus.STATUS_FWP_IN_USE if waiting else SUCCESS)
    assert w.caught == ([("V-38", where)] if waiting else [])


@pytest.mark.parametrize("tidy", [True, False])
def test_v_39_stopped_with_things_left_behind(tidy: bool) -> None:
    """V-39: registered callouts and undestroyed handles at engine stop (UNR-8)."""
    driver = MemoryDriver()
    code = Callout1(key("left"), 0, permit, lambda *call: SUCCESS, None)
    status, callout_id = driver.fwps.callout_register1(None, code)
    assert status == SUCCESS
    status, handle = driver.fwps.injection_handle_create()
    assert status == SUCCESS
    if tidy:
        assert driver.fwps.injection_handle_destroy(handle) == SUCCESS
        assert driver.fwps.callout_unregister_by_id(callout_id) == SUCCESS
    driver.close()
    assert driver.violations == ([] if tidy else ["V-39", "V-39"])


def test_v_48_associate_with_nothing() -> None:
    """V-48: context 0, or a callout without flowDeleteFn (CTX-2, CTX-3)."""
    w = World(permit)
    where = here()
    assert w.fwps.flow_associate_context(w.flow.id, STREAM, w.callout_id, 0) != SUCCESS
    assert w.close() == [("V-48", where)]
    assert w.severities == [("V-48", "W")]
    w = World(permit)
    assert w.fwps.flow_associate_context(w.flow.id, STREAM, w.callout_id, 1) == SUCCESS
    assert w.close() == []


def test_v_50_data_with_a_disconnect_bit() -> None:
    """V-50: the DISCONNECT bit copied from a FIN's flags where no FIN is pended or current (INL-7)."""
    w = World(block)
    assert w.inject_bytes(SEND_FIN, b"x") == SUCCESS
    w.settle()
    assert sorted(w.close()) == [("V-19", w.injected_at), ("V-50", w.injected_at)]
    w = World(block)
    w.send_fin()
    assert w.inject_bytes(SEND_FIN, b"x") == SUCCESS
    w.settle()
    assert (w.to_remote, w.flow.remote.fin) == (b"x", True)
    assert w.close() == []


@pytest.mark.parametrize(("seconds", "caught"), [(5.5, 1), (4.5, 0)])
def test_v_52_pended_fin_never_injected(seconds: float, caught: int) -> None:
    """V-52: the callout had it for at least `verify.grace` before the flow ended (VRF-2)."""
    w = World(block)
    w.send_fin()
    w.driver.advance(seconds)
    w.reset()
    assert w.close() == [("V-52", place(block))] * caught
    assert w.severities == [("V-52", "W")] * caught


@pytest.mark.parametrize("in_order", [True, False])
def test_v_53_order_of_clones(in_order: bool) -> None:
    """V-53, a hint: pended bytes come back in another order than they were taken out."""
    w = out_of_band(options=hints())
    w.send(b"a")
    w.send(b"b")
    if not in_order:
        w.kept.reverse()
    assert [w.inject_kept(SEND), w.inject_kept(SEND)] == [SUCCESS, SUCCESS]
    w.settle()
    assert w.close() == ([] if in_order else [("V-53", w.injected_at)])


@pytest.mark.parametrize(
    ("pieces", "caught"),
    [
        ([b"first", b"second"], False),
        ([b"second", b"first"], True),
        ([b"second"], False),  # the first is kept back: that is its right
        ([b"SECOND", b"FIRST"], False),  # changed: nothing can be said
        ([b"b", b"a"], False),  # too short not to be alike by chance
    ],
)
def test_v_53_order_of_copies(pieces: list[bytes], caught: bool) -> None:
    """V-53, a hint, by content: a callout that copies and blocks (OOB-13) has no clones to compare."""
    w = World(block, options=hints())
    for piece in (b"first", b"second", b"a", b"b"):
        w.send(piece)
    for piece in pieces:
        assert w.inject_bytes(SEND, piece) == SUCCESS
    w.settle()
    assert w.to_remote == b"".join(pieces)
    assert w.close() == ([("V-53", w.injected_at)] if caught else [])


def test_v_53_indications_that_are_alike() -> None:
    """V-53: of equal pieces nobody can say which came first."""
    w = World(block, options=hints())
    for piece in (b"same", b"other", b"same"):
        w.send(piece)
    for piece in (b"other", b"same", b"same"):
        assert w.inject_bytes(SEND, piece) == SUCCESS
    w.settle()
    assert w.close() == []


@pytest.mark.parametrize(("port", "caught"), [(False, ["V-55"]), (True, [])])
def test_v_55_condition_the_stream_layer_lacks(port: bool, caught: list[str]) -> None:
    """V-55: IP_PROTOCOL at STREAM is STATUS_FWP_CONDITION_NOT_FOUND (MGMT-9)."""
    field = fwpm.CONDITION_IP_REMOTE_PORT if port else fwpm.CONDITION_IP_PROTOCOL
    value = FwpValue(DataType.UINT16, 80) if port else FwpValue(DataType.UINT8, 6)
    driver = MemoryDriver()
    status, _ = driver.session.filter_add(
        fwpm.Filter(
            filter_key=uuid5(key("v55"), str(port)),
            display_data=named("f"),
            layer_key=fwpm.LAYER_STREAM_V4,
            conditions=(fwpm.FilterCondition(field, MatchType.EQUAL, value),),
        )
    )
    assert status == (SUCCESS if port else NtStatus.STATUS_FWP_CONDITION_NOT_FOUND)
    driver.close()
    assert driver.violations == caught


@pytest.mark.parametrize(("flags", "caught"), [(RECEIVE, 1), (SEND, 0)])
def test_v_58_inbound_list_with_two_net_buffers(flags: int, caught: int) -> None:
    """V-58: a bug check on Windows; outbound it is legal."""
    w = World(block)
    nbl, other = w.list_of(b"a"), w.list_of(b"b")
    assert nbl.first_net_buffer is not None
    nbl.first_net_buffer.next = other.first_net_buffer
    assert w.inject(flags, nbl) == SUCCESS
    w.settle()
    assert (w.to_local, w.to_remote) == ((b"ab", b"") if flags == RECEIVE else (b"", b"ab"))
    w.fwps.free_net_buffer_list(other)
    assert w.close() == [("V-58", w.injected_at)] * caught
