"""FwpsStreamInjectAsync0, the validation table of section 14.1 (INJ-20 to INJ-44).

The table is checked row by row: a call spoiled for one row only, then calls spoiled for two neighbouring rows,
where the earlier one decides. Which row decided is in the event of the refused call (VRF-6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.rules.answers import answering, block, permit
from tests.rules.minimal import (
    ALLOW,
    CONTINUE,
    NONE,
    RECEIVE,
    RECEIVE_FIN,
    SEND,
    SEND_FIN,
    SUCCESS,
    World,
)
from tests.scenarios.support import Bench, Script
from tests.scenarios.support_api import Injection, allocate, chained, inject_raw
from wfpstream.engine import EngineOptions
from wfpstream.fwp import CalloutFlags, NtStatus
from wfpstream.fwps import InjectionType, LayerId, StreamFlags

S = NtStatus
NODELAY = int(StreamFlags.SEND_NODELAY)
UNDEFINED = 1 << 31
BARE_SEND_FIN = int(StreamFlags.SEND_DISCONNECT)
BARE_RECEIVE_FIN = int(StreamFlags.RECEIVE_DISCONNECT)


def never(context: object, nbl: object, dispatch_level: bool) -> None:
    raise AssertionError("completion of a refused injection")


class Spoiled(World):
    """A world and the arguments of one call that a row refuses."""

    def __init__(self, **world: Any) -> None:
        super().__init__(world.pop("classify", block), **world)
        self.arguments: dict[str, Any] = {"completion_fn": never}
        self.nbl: Any = self.list_of(b"abc")
        self.flags = SEND
        self.freed = False
        self.spare_handle = 0

    def refused(self) -> tuple[NtStatus, str]:
        """Make the call: its status and the row that decided it; the list stays the caller's (INJ-1)."""
        status = self.inject(self.flags, self.nbl, **self.arguments)
        self.settle()
        event = self.events("inject")[-1]
        assert (event["status"], event["value"]) == (status.name, int(status))
        if self.nbl is not None and not self.freed:
            self.fwps.free_net_buffer_list(self.nbl)
        return status, event["rule"]

    def without_list(self, **arguments: Any) -> None:
        self.fwps.free_net_buffer_list(self.nbl)
        self.nbl = None
        self.arguments |= arguments


def handle_of(w: Spoiled, flags: int = 1) -> int:
    status, handle = w.fwps.injection_handle_create(0, flags)
    assert status == SUCCESS
    w.spare_handle = handle
    return int(handle)


def stale_handle(w: Spoiled) -> None:
    w.arguments["injection_handle"] = handle_of(w)
    assert w.fwps.injection_handle_destroy(w.spare_handle) == SUCCESS


def closing_handle(w: Spoiled) -> None:
    w.flow.local.window = 0
    w.arguments["injection_handle"] = handle_of(w)
    assert w.inject_bytes(RECEIVE, b"stuck", injection_handle=w.spare_handle) == SUCCESS
    assert w.fwps.injection_handle_destroy(w.spare_handle) == S.STATUS_PENDING


def close_direction(w: Spoiled) -> None:
    w.send_fin()
    assert w.inject(SEND_FIN, None) == SUCCESS
    w.settle()


def free_first(w: Spoiled) -> None:
    w.fwps.free_net_buffer_list(w.nbl)
    w.freed = True


def argument(**values: Any) -> Callable[[Spoiled], None]:
    return lambda w: w.arguments.update(values)


def stream_flags(flags: int) -> Callable[[Spoiled], None]:
    def spoil(w: Spoiled) -> None:
        w.flags = flags

    return spoil


def no_list(flags: int, length: int = 0) -> Callable[[Spoiled], None]:
    def spoil(w: Spoiled) -> None:
        w.without_list(length=length)
        w.flags = flags

    return spoil


Spoil = Callable[[Spoiled], object]

ROWS: dict[str, tuple[NtStatus, Spoil]] = {
    "INJ-20": (S.STATUS_FWP_NULL_POINTER, argument(completion_fn=None)),
    "INJ-21": (S.STATUS_FWP_NULL_POINTER, argument(injection_handle=0)),
    "INJ-22": (S.STATUS_INVALID_HANDLE, argument(injection_handle=0xDEAD)),
    "INJ-23": (S.STATUS_FWP_INJECT_HANDLE_STALE, stale_handle),
    "INJ-24": (S.STATUS_FWP_INJECT_HANDLE_CLOSING, closing_handle),
    "INJ-25": (
        S.STATUS_FWP_INVALID_PARAMETER,
        lambda w: w.arguments.update(injection_handle=handle_of(w, int(InjectionType.TRANSPORT))),
    ),
    "INJ-26": (S.STATUS_FWP_INVALID_FLAGS, argument(flags=1)),
    "INJ-27": (S.STATUS_FWP_INCOMPATIBLE_LAYER, argument(layer_id=int(LayerId.STREAM_V6))),
    "INJ-28": (S.STATUS_FWP_CALLOUT_NOT_FOUND, argument(callout_id=99)),
    "INJ-29": (S.STATUS_FWP_TCPIP_NOT_READY, lambda w: w.driver.engine.stop()),
    "INJ-30": (S.STATUS_FWP_NOT_FOUND, argument(flow_id=987654)),
    "INJ-31": (S.STATUS_FWP_INVALID_PARAMETER, stream_flags(SEND | UNDEFINED)),
    "INJ-32": (S.STATUS_FWP_INVALID_PARAMETER, stream_flags(NODELAY)),
    "INJ-33": (S.STATUS_FWP_INVALID_PARAMETER, stream_flags(SEND | BARE_RECEIVE_FIN)),
    "INJ-34": (S.STATUS_FWP_INVALID_PARAMETER, stream_flags(RECEIVE | BARE_SEND_FIN)),
    "INJ-35": (S.STATUS_FWP_INVALID_PARAMETER, stream_flags(SEND | RECEIVE)),
    "INJ-36": (S.STATUS_FWP_NULL_POINTER, no_list(SEND)),
    "INJ-37": (S.STATUS_FWP_INVALID_PARAMETER, no_list(SEND_FIN, 3)),
    "INJ-39": (S.STATUS_FWP_INVALID_PARAMETER, argument(length=4)),
    "INJ-40": (S.STATUS_INVALID_PARAMETER, free_first),
    "INJ-41": (S.STATUS_CONNECTION_DISCONNECTED, close_direction),
}


@pytest.mark.parametrize("row", ROWS)
def test_inj_20_to_41_row_by_row(row: str) -> None:
    """INJ-20, INJ-21, INJ-22, INJ-23, INJ-24, INJ-25, INJ-26, INJ-27, INJ-28, INJ-29, INJ-30, INJ-31, INJ-32,
    INJ-33, INJ-34, INJ-35, INJ-36, INJ-37, INJ-39, INJ-40, INJ-41: the status of each row, and nothing injected.
    """
    status, spoil = ROWS[row]
    w = Spoiled()
    spoil(w)
    before = (w.to_remote, len(w.events("inject_complete")))
    assert w.refused() == (status, row)
    assert (w.to_remote, len(w.events("inject_complete"))) == before
    if row != "INJ-29":  # the stop itself finds the list alive
        assert [rule for rule, _ in w.caught] == (["V-26"] if row == "INJ-40" else [])


NEIGHBOURS = [
    ("INJ-20", "INJ-21"),
    ("INJ-21", "INJ-26"),
    ("INJ-22", "INJ-26"),
    ("INJ-23", "INJ-26"),
    ("INJ-24", "INJ-26"),
    ("INJ-25", "INJ-26"),
    ("INJ-26", "INJ-27"),
    ("INJ-27", "INJ-28"),
    ("INJ-28", "INJ-29"),
    ("INJ-29", "INJ-30"),
    ("INJ-30", "INJ-31"),
    ("INJ-31", "INJ-39"),
    ("INJ-32", "INJ-36"),
    ("INJ-33", "INJ-39"),
    ("INJ-34", "INJ-39"),
    ("INJ-35", "INJ-39"),
    ("INJ-37", "INJ-41"),
    ("INJ-39", "INJ-40"),
    ("INJ-40", "INJ-41"),
]


@pytest.mark.parametrize(("earlier", "later"), NEIGHBOURS)
def test_inj_20_to_41_the_earlier_row_decides(earlier: str, later: str) -> None:
    """Section 14.1: the rows INJ-20 to INJ-41 are checked in their order."""
    w = Spoiled()
    ROWS[later][1](w)
    flags = w.flags
    ROWS[earlier][1](w)
    if later == "INJ-36":
        w.flags = NODELAY
    elif w.flags == SEND:
        w.flags = flags
    assert w.refused() == (ROWS[earlier][0], earlier)


@pytest.mark.parametrize(
    ("flags", "row"),
    [
        (UNDEFINED, "INJ-31"),
        (SEND | int(StreamFlags.SEND_ABORT), "INJ-31"),
        (RECEIVE | int(StreamFlags.RECEIVE_ABORT), "INJ-31"),
        (0, "INJ-32"),
        (int(StreamFlags.RECEIVE_PUSH), "INJ-32"),
        (int(StreamFlags.SEND_EXPEDITED), "INJ-32"),
        (BARE_RECEIVE_FIN, "INJ-32"),
        (BARE_SEND_FIN, "INJ-32"),
        (SEND | BARE_RECEIVE_FIN, "INJ-33"),
        (RECEIVE | BARE_SEND_FIN, "INJ-34"),
        (SEND | RECEIVE, "INJ-35"),
        (SEND | int(StreamFlags.RECEIVE_PUSH), "INJ-35"),
        (RECEIVE | int(StreamFlags.SEND_EXPEDITED), "INJ-35"),
    ],
)
def test_inj_31_to_35_stream_flags(flags: int, row: str) -> None:
    """INJ-31, INJ-32, INJ-33, INJ-34, INJ-35: the first row that fits the flags decides."""
    w = Spoiled()
    w.flags = flags
    assert w.refused() == (S.STATUS_FWP_INVALID_PARAMETER, row)
    assert w.close() == []


def test_inj_20_without_a_list_too() -> None:
    """INJ-20: also when netBufferList is NULL."""
    w = Spoiled()
    w.send_fin()
    w.without_list(completion_fn=None)
    w.flags = SEND_FIN
    assert w.refused() == (S.STATUS_FWP_NULL_POINTER, "INJ-20")
    assert w.close() == []


@pytest.mark.parametrize(("flags", "accepted"), [(0, True), (1, True), (3, True), (2, False)])
def test_inj_25_handle_type(flags: int, accepted: bool) -> None:
    """INJ-25: no flags means every type; nonzero flags must contain STREAM."""
    types = 0
    for bit, kind in ((1, InjectionType.STREAM), (2, InjectionType.TRANSPORT)):
        types |= int(kind) if flags & bit else 0
    w = World(block)
    status, handle = w.fwps.injection_handle_create(0, types)
    assert status == SUCCESS
    answer = w.inject_bytes(SEND, b"x", injection_handle=handle)
    assert answer == (SUCCESS if accepted else S.STATUS_FWP_INVALID_PARAMETER)
    w.settle()
    assert w.fwps.injection_handle_destroy(handle) == SUCCESS
    assert w.close() == []


def test_inj_28_unregistered_callout() -> None:
    """INJ-28: once registered is not enough."""
    w = World(block)
    gone = w.callout_id
    assert w.fwps.callout_unregister_by_id(gone) == SUCCESS
    assert w.inject_bytes(SEND, b"x", callout_id=gone) == S.STATUS_FWP_CALLOUT_NOT_FOUND


def test_inj_29_flow_still_in_flow_established() -> None:
    """INJ-29: the stream of the flow has not begun."""

    class Early(Script):
        layers = ("stream", "ale_flow_established")  # type: ignore[assignment]

        def classify_ale_flow_established(self, *call: Any) -> None:
            call[-1].action_type = CONTINUE
            nbl = allocate(self, b"x")
            early = Injection(SEND, nbl, 1, flow_id=call[1].flow_handle)
            answers.append(inject_raw(self, early))
            self.fwps.free_net_buffer_list(nbl)

    answers: list[NtStatus] = []
    with Bench(Early()):
        assert answers == [S.STATUS_FWP_TCPIP_NOT_READY]


@pytest.mark.parametrize("end", ["graceful", "reset", "abort"])
def test_inj_30_flow_that_ended(end: str) -> None:
    """INJ-30: ended, reset or aborted."""
    w = World(permit)
    if end == "graceful":
        w.send_fin()
        w.receive_fin()
    elif end == "reset":
        w.reset()
    else:
        assert w.fwps.flow_abort(w.flow.id) == SUCCESS
        w.settle()
    assert w.inject_bytes(SEND, b"x") == S.STATUS_FWP_NOT_FOUND
    assert w.events("inject")[-1]["rule"] == "INJ-30"
    assert w.close() == []


def test_inj_30_callout_without_a_stage() -> None:
    """INJ-30: a registered callout none of whose filters applies to the flow."""
    w = World(block)
    stranger = Script(name="X")
    w.driver.add(stranger, listener="elsewhere")
    w.flow = w.connect()
    w.driver.settle()
    callout_id = stranger.callout_id(int(LayerId.STREAM_V4))
    assert w.inject_bytes(SEND, b"x", callout_id=callout_id) == S.STATUS_FWP_NOT_FOUND
    assert w.events("inject")[-1]["rule"] == "INJ-30"


def test_inj_44_inactive_stage() -> None:
    """INJ-44: under CONDITIONAL_ON_FLOW before the first context and after its removal; active between."""
    w = Spoiled(flags=int(CalloutFlags.CONDITIONAL_ON_FLOW))
    assert w.inject_bytes(SEND, b"x") == S.STATUS_FWP_NOT_FOUND
    assert w.events("inject")[-1]["rule"] == "INJ-44"
    assert w.associate(7) == SUCCESS
    assert w.inject_bytes(SEND, b"y") == SUCCESS
    w.settle()
    assert w.remove() == SUCCESS
    assert w.inject_bytes(SEND, b"z") == S.STATUS_FWP_NOT_FOUND
    assert w.to_remote == b"y"
    w.flags = UNDEFINED  # an earlier row than INJ-31
    assert w.refused() == (S.STATUS_FWP_NOT_FOUND, "INJ-44")
    assert w.close() == []


def test_inj_37_and_38_fin_without_a_list() -> None:
    """INJ-37: dataLength must be 0 then; INJ-38: with its direction flag it is accepted, without completion."""
    w = World(block)
    w.send_fin()
    assert w.inject(SEND_FIN, None, 1) == S.STATUS_FWP_INVALID_PARAMETER
    assert w.inject(RECEIVE_FIN, None, 1) == S.STATUS_FWP_INVALID_PARAMETER
    w.settle()
    assert w.fins() == (False, False)
    assert w.inject(SEND_FIN, None, 0) == SUCCESS
    w.settle()
    assert w.fins() == (True, False)
    assert w.completed == []
    assert w.close() == []


def test_inj_40_list_of_a_chain_still_pending() -> None:
    """INJ-40: one list of the chain is in a pending injection; the whole chain is refused, V-26."""
    w = World(block)
    w.flow.remote.window = 0
    lent, fresh = w.list_of(b"x"), w.list_of(b"y")
    assert w.inject(SEND, lent) == SUCCESS
    assert w.inject(SEND, chained(fresh, lent)) == S.STATUS_INVALID_PARAMETER
    fresh.next = None
    w.fwps.free_net_buffer_list(fresh)
    w.flow.remote.window = None
    w.settle()
    assert w.to_remote == b"x"
    assert w.completed == [(b"x", SUCCESS)]
    assert w.close() == [("V-26", w.injected_at)]


def test_inj_42_zero_length_chain() -> None:
    """INJ-42: accepted, no indication, each list completes with STATUS_SUCCESS in order."""
    a, b = Script(name="A"), Script(name="B")
    with Bench(a, b) as bench:
        chain = chained(*(allocate(a, b"") for _ in range(3)))
        assert a.inject_chain(SEND, chain, 0, a.fwps.free_net_buffer_list) == SUCCESS
        bench.settle()
        assert bench.log == ["cmp('', SUCCESS)"] * 3
        assert bench.to_remote == (b"", False)


def test_inj_43_more_than_four_times_the_limit() -> None:
    """INJ-43: accepted and not completed, this call included; the other direction counts for itself."""
    options = EngineOptions()
    options.limits.injected = 10
    w = World(block, options=options)
    w.flow.remote.window = 0
    assert w.inject_bytes(SEND, bytes(30)) == SUCCESS
    assert w.inject_bytes(SEND, bytes(11)) == S.STATUS_INSUFFICIENT_RESOURCES
    assert w.events("inject")[-1]["rule"] == "INJ-43"
    assert w.inject_bytes(SEND, bytes(10)) == SUCCESS
    assert w.inject_bytes(SEND, b"x") == S.STATUS_INSUFFICIENT_RESOURCES
    assert w.inject_bytes(RECEIVE, b"x") == SUCCESS
    w.flow.remote.window = None
    w.settle()
    assert w.inject_bytes(SEND, bytes(40)) == SUCCESS
    w.settle()
    assert len(w.to_remote) == 80
    assert w.close() == []


def test_inj_44_after_allow_connection() -> None:
    """INJ-44: in either direction (ALW-1)."""
    w = World(answering(NONE, stream_action=ALLOW))
    assert w.inject_bytes(SEND, b"x") == SUCCESS
    w.send(b"o")
    for flags in (SEND, RECEIVE):
        assert w.inject_bytes(flags, b"y") == S.STATUS_FWP_NOT_FOUND
        assert w.events("inject")[-1]["rule"] == "INJ-44"
    assert w.to_remote == b"xo"
    assert w.close() == []


def test_inj_41_after_a_permitted_fin() -> None:
    """INJ-41: passed or injected, data or another FIN; the other direction is open."""
    w = World(permit)
    w.send_fin()
    assert w.inject_bytes(SEND, b"x") == S.STATUS_CONNECTION_DISCONNECTED
    assert w.inject(SEND_FIN, None) == S.STATUS_CONNECTION_DISCONNECTED
    assert w.inject_bytes(RECEIVE, b"y") == SUCCESS
    w.settle()
    assert (w.to_remote, w.to_local) == (b"", b"y")
    assert w.close() == []


def test_inj_39_length_of_the_whole_chain() -> None:
    """INJ-39: the sum over all lists, neither the first alone nor more."""
    w = World(permit)
    chain = chained(w.list_of(b"ab"), w.list_of(b"c"))
    for length in (0, 2, 4):
        assert w.inject(SEND, chain, length) == S.STATUS_FWP_INVALID_PARAMETER
    assert w.inject(SEND, chain, 3) == SUCCESS
    w.settle()
    assert w.to_remote == b"abc"
    assert w.close() == []
