"""FwpsStreamInjectAsync0, rule by rule (INJ-2 to INJ-12): who sees the bytes, where they land, and when.

The validation table of section 14.1 is in `test_injection_table`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.rules.answers import permit
from tests.rules.minimal import (
    RECEIVE,
    RECEIVE_PUSH,
    SEND,
    SEND_FIN,
    STREAM,
    SUCCESS,
    World,
)
from tests.scenarios.support import NMD, B, Bench, Call, P, Script, inj
from tests.scenarios.support_api import (
    Injection,
    ManagedBench,
    Plane,
    allocate,
    in_one_sub_layer,
    inject_raw,
    registered,
)
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus
from wfpstream.fwps import PacketInjectionState, StreamFlags

S = NtStatus
NODELAY = int(StreamFlags.SEND_NODELAY)
UNDEFINED = 1 << 31
BARE_SEND_FIN = int(StreamFlags.SEND_DISCONNECT)
BARE_RECEIVE_FIN = int(StreamFlags.RECEIVE_DISCONNECT)


def test_inj_2_seen_by_lighter_sub_layers_only() -> None:
    """INJ-2: neither the injecting callout nor a heavier sublayer sees it; every lighter one does."""
    a, b, c, d = (Script(name=name) for name in "ABCD")
    with Bench(a, b, c, d) as bench:
        assert b.inject_bytes(SEND, b"x") == SUCCESS
        bench.settle()
        assert bench.log == ["C(S1 'x')", "D(S1 'x')", "cmp('x', SUCCESS)"]
        assert bench.to_remote == (b"x", False)


def test_inj_4_inside_a_classify_right_before_the_shown_bytes() -> None:
    """INJ-4 (INL-2): after what was released, before the first byte shown; call order is kept."""
    a = Script(P(2), P(1, inj(b"x"), inj(b"y")), P(0))
    with Bench(a) as bench:
        bench.send(b"abcd")
        assert bench.calls == ["A(S4 'abcd')", "A(S2 'cd')", "A(S1 'd')"]
        assert bench.completions == ["cmp('x', SUCCESS)", "cmp('y', SUCCESS)"]
        assert bench.to_remote == (b"abxycd", False)


def test_inj_4_outside_a_classify_before_held_bytes() -> None:
    """INJ-4 (OOB-4): the tail of the stage's output lies before what the stage still holds."""
    a = Script(B(0), NMD(5), P(0))
    with Bench(a) as bench:
        bench.send(b"a", b"bc")
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"x", False)
        bench.send(b"def")
        assert bench.to_remote == (b"xbcdef", False)
        assert bench.completions == ["cmp('x', SUCCESS)"]


def test_inj_6_direction_is_that_of_the_stream_flags() -> None:
    """INJ-6: not the direction of the indication in whose classify the call is made."""
    a = Script(P(0, inj(b"back", RECEIVE)))
    with Bench(a) as bench:
        bench.send(b"go")
        assert bench.to_remote == (b"go", False)
        assert bench.to_local == (b"back", False)
        assert bench.log == ["A(S2 'go')", "cmp('back', SUCCESS)"]


def noting(seen: list[int]) -> Callable[[Call], object]:
    """Hook: the flags of the indication."""
    return lambda call: seen.append(call.flags)


@pytest.mark.parametrize(
    ("plain", "urging", "d"), [(SEND, SEND | NODELAY, 0), (RECEIVE, RECEIVE_PUSH, 1)], ids=["send", "receive"]
)
def test_inj_7_nodelay_and_push_have_no_other_effect(plain: int, urging: int, d: int) -> None:
    """INJ-7: the same bytes arrive, and the lower stage is shown the flag."""
    for flags in (plain, urging):
        w = World(permit)
        lower = Script(name="B")
        w.driver.add(lower)
        w.flow = w.connect()
        seen: list[int] = []
        lower.add_answers(P(0, noting(seen)))
        assert w.inject_bytes(flags, b"x") == SUCCESS
        w.settle()
        assert (w.to_remote, w.to_local) == ((b"x", b"") if d == 0 else (b"", b"x"))
        assert seen == [flags]
        assert w.close() == []


def test_inj_8_disconnect_with_data_closes_the_direction() -> None:
    """INJ-8: data first, then the FIN; then the direction is closed for this stage, the other is not."""
    a = Script(B(0))
    with Bench(a) as bench:
        bench.send_fin()
        assert a.inject_bytes(SEND_FIN, b"end") == SUCCESS
        assert a.inject_bytes(SEND, b"late") == S.STATUS_CONNECTION_DISCONNECTED
        assert a.inject_bytes(RECEIVE, b"other") == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"end", True)
        assert bench.to_local == (b"other", False)
        assert sorted(bench.completions) == ["cmp('end', SUCCESS)", "cmp('other', SUCCESS)"]


def test_inj_9_injection_context_is_opaque() -> None:
    """INJ-9: no effect on the injection; FwpsQueryPacketInjectionState0 returns it."""
    a, b = Script(name="A"), Script(name="B")
    mark = object()
    found: list[Any] = []

    def ask(call: Call) -> None:
        nbl = call.packet.stream_data.net_buffer_list_chain
        assert nbl is not None
        found.append(a.fwps.query_packet_injection_state(a.injection_handle, nbl))

    b.add_answers(P(0, ask))
    with Bench(a, b) as bench:
        nbl = allocate(a, b"x")
        call = Injection(SEND, nbl, 1, context=mark, completion_fn=freeing(a))  # type: ignore[arg-type]
        assert inject_raw(a, call) == SUCCESS
        bench.settle()
        assert found == [(PacketInjectionState.INJECTED_BY_SELF, mark)]
        assert bench.calls == ["B(S1 'x')"]
        assert bench.to_remote == (b"x", False)


def freeing(a: Script) -> Callable[..., None]:
    """A completion function that only frees."""

    def complete(context: object, nbl: Any, dispatch_level: bool) -> None:
        a.fwps.free_net_buffer_list(nbl)

    return complete


def two_stages(a: Script, b: Script) -> Callable[[Bench], object]:
    """For Bench(setup=...): A gets a second filter, behind B's."""
    return lambda bench: bench.driver.add(a)


def test_inj_10_outside_a_classify_the_heaviest_stage_injects() -> None:
    """INJ-10: of a callout with two stages on the flow; its lower stage never sees its own bytes (INJ-2)."""
    a, b = Script(name="A"), Script(name="B")
    with Bench(a, b, setup=two_stages(a, b)) as bench:
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        bench.settle()
        assert bench.calls == ["B(S1 'x')"]
        assert bench.completions == ["cmp('x', SUCCESS)"]
        assert bench.to_remote == (b"x", False)


def test_inj_10_inside_a_classify_the_classifying_stage_injects() -> None:
    """INJ-10: the second call of A is its lower stage, so B, which is above that, does not see the bytes."""
    a, b = Script(P(0), P(0, inj(b"x")), name="A"), Script(name="B")
    with Bench(a, b, setup=two_stages(a, b)) as bench:
        bench.send(b"o")
        assert bench.calls == ["A(S1 'o')", "B(S1 'o')", "A(S1 'o')"]
        assert bench.completions == ["cmp('x', SUCCESS)"]
        assert bench.to_remote == (b"xo", False)


@pytest.mark.parametrize("local", ["client", "server"])
def test_inj_11_inbound_goes_to_the_local_leg(local: str) -> None:
    """INJ-11: whichever side is the local host; outbound goes to the remote leg."""
    a = Script()
    with Bench(a, local=local) as bench:
        assert a.inject_bytes(RECEIVE, b"in") == SUCCESS
        assert a.inject_bytes(SEND, b"out") == SUCCESS
        bench.settle()
        assert bench.to_local == (b"in", False)
        assert bench.to_remote == (b"out", False)
        assert sorted(bench.completions) == ["cmp('in', SUCCESS)", "cmp('out', SUCCESS)"]


@pytest.mark.parametrize(("delivery", "at_once"), [("inline", True), ("queued", False)])
def test_inj_12_delivery_from_outside(delivery: str, at_once: bool) -> None:
    """INJ-12: inline, the lower stages ran and the driver has the bytes before the call returns; queued, after."""
    options = EngineOptions(inject_delivery=delivery)
    a, b = Script(name="A"), Script(name="B")
    with Bench(a, b, options=options) as bench:
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        assert bench.calls == (["B(S1 'x')"] if at_once else [])
        assert bench.flow.flow.output(0).length == (1 if at_once else 0)
        bench.settle()
        assert bench.calls == ["B(S1 'x')"]
        assert bench.completions == ["cmp('x', SUCCESS)"]
        assert bench.to_remote == (b"x", False)


@pytest.mark.parametrize("delivery", ["inline", "queued"])
def test_inj_12_inside_a_callback_it_only_queues(delivery: str) -> None:
    """INJ-12: with a callback on the stack the running loop delivers, after the callback returned."""
    seen: list[list[str]] = []

    def inject_and_look(call: Call) -> None:
        assert a.inject_bytes(SEND, b"x") == SUCCESS
        assert a.inject_bytes(SEND, b"y") == SUCCESS
        seen.append(list(bench.calls))

    a, b = Script(B(0, inject_and_look), name="A"), Script(name="B")
    with Bench(a, b, options=EngineOptions(inject_delivery=delivery)) as bench:
        bench.send(b"o")
        assert seen == [["A(S1 'o')"]]
        assert bench.calls == ["A(S1 'o')", "B(S1 'x')", "B(S1 'y')"]
        assert bench.to_remote == (b"xy", False)
        assert bench.completions == ["cmp('x', SUCCESS)", "cmp('y', SUCCESS)"]


def test_inj_1_a_refused_list_stays_the_callers() -> None:
    """INJ-1: nothing was injected, completionFn is not called, the same list can be injected afterwards."""
    w = World(permit)
    nbl = w.list_of(b"x")
    assert w.inject(SEND, nbl, 2) == S.STATUS_FWP_INVALID_PARAMETER
    w.settle()
    assert (w.to_remote, w.completed) == (b"", [])
    assert w.inject(SEND, nbl) == SUCCESS
    w.settle()
    assert (w.to_remote, w.completed) == (b"x", [(b"x", SUCCESS)])
    assert w.close() == []


def test_inj_3_remaining_filters_of_the_sub_layer_are_skipped() -> None:
    """INJ-3: as if they had permitted; the next sublayer is asked."""
    a, b, c = Script(name="A", action="callout_inspection"), Script(name="B"), Script(name="C")
    b.add_answers(B(0))
    ids: dict[str, int] = {}

    def add(plane: Plane) -> None:
        in_one_sub_layer(a, b)(plane)
        registered(c)(plane)
        ids.update(plane.ids)

    with ManagedBench(a, b, c, add=add, violations=["V-46"]) as bench:
        handle = bench.driver.fwps.injection_handle_create()[1]
        nbl = allocate_from(bench, b"x")
        status = bench.driver.fwps.stream_inject_async(
            handle, 0, 0, bench.flow.id, ids["A"], STREAM, SEND, nbl, 1, freed_by(bench), 0
        )
        assert status == SUCCESS
        bench.settle()
        assert bench.calls == ["C(S1 'x')"]
        assert bench.to_remote == (b"x", False)
        assert bench.driver.fwps.injection_handle_destroy(handle) == SUCCESS


def allocate_from(bench: Bench, data: bytes) -> Any:
    fwps = bench.driver.fwps
    return fwps.allocate_net_buffer_and_net_buffer_list(None, 0, 0, data, 0, len(data))[1]


def freed_by(bench: Bench) -> Callable[..., None]:
    def complete(context: object, nbl: Any, dispatch_level: bool) -> None:
        bench.driver.fwps.free_net_buffer_list(nbl)

    return complete


def test_inj_5_delivered_after_the_classify_before_its_own_bytes() -> None:
    """INJ-5: no lower classify runs inside the inject call; what is released goes behind."""
    seen: list[list[str]] = []

    def inject_and_look(call: Call) -> None:
        assert call.inject(b"x") == SUCCESS
        seen.append(list(bench.calls))

    a, b = Script(P(2, inject_and_look), P(0), name="A"), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"abc")
        assert seen == [["A(S3 'abc')"]]
        assert bench.calls == ["A(S3 'abc')", "B(S1 'x')", "B(S2 'ab')", "A(S1 'c')", "B(S1 'c')"]
        assert bench.to_remote == (b"xabc", False)
        assert bench.completions == ["cmp('x', SUCCESS)"]
