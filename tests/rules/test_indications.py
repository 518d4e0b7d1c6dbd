"""Indications (IND-*): what a callout is shown, when, and in which form.

Owns the shape of FWPS_STREAM_DATA0 and of a classify call. What an answer does is tested elsewhere.
"""

from __future__ import annotations

import pytest

from tests.rules.lists import Lists
from tests.scenarios.support import (
    NMD,
    RECEIVE_FIN,
    RECEIVE_PUSH,
    SEND,
    SEND_FIN,
    Answer,
    B,
    Bench,
    C,
    Call,
    P,
    Script,
    cuttings,
    inj,
)
from tests.scenarios.support_api import allocate, chained
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus
from wfpstream.fwps import NetBufferList, StreamFlags
from wfpstream.testing import MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS
SENDS, RECEIVES = int(StreamFlags.SEND), int(StreamFlags.RECEIVE)


# --- form -----------------------------------------------------------------------------------------


def test_ind_1_payload_only() -> None:
    """IND-1: no IP or TCP header: the first indicated byte is the first payload byte, and retreat finds none."""
    a = Lists()
    with Bench(a) as bench:
        bench.send(b"payload")
        assert a.lists == [[b"payload"]]
        assert bench.log == ["A(S7 'payload')"]
        assert bench.to_remote == (b"payload", False)


def test_ind_2_stream_data_locates_the_first_byte() -> None:
    """IND-2: flags, dataOffset, dataLength, chain; netBufferOffset reserved, streamDataOffset 0."""
    seen: list[bool] = []

    def look(call: Call) -> None:
        data = call.packet.stream_data
        offset, chain = data.data_offset, data.net_buffer_list_chain
        assert isinstance(chain, NetBufferList)
        assert chain.first_net_buffer is not None
        seen.extend(
            (
                data.flags == SENDS,
                data.data_length == 5,
                offset.net_buffer_list is chain,
                offset.net_buffer is chain.first_net_buffer,
                offset.mdl is not None,
                offset.net_buffer_offset == 0,
                offset.stream_data_offset == 0,
            )
        )
        assert offset.mdl is not None
        seen.append(bytes(offset.mdl.data[offset.mdl_offset : offset.mdl_offset + 5]) == b"hello")

    with Bench(Script(P(0, look))) as bench:
        bench.send(b"hello")
        assert seen == [True] * 8
        assert bench.to_remote == (b"hello", False)


def test_ind_2_a_chain_of_several_lists() -> None:
    """IND-2: merged data comes as a chain, one list per item, in order; dataLength is their sum."""
    a = Lists(NMD(6))
    with Bench(a) as bench:
        bench.send(b"ab", b"cd", b"ef")
        assert a.lists == [[b"ab"], [b"ab", b"cd", b"ef"]]
        assert bench.log == ["A(S2 'ab')", "A(S6 'abcdef')"]
        assert bench.to_remote == (b"abcdef", False)


def test_ind_3_each_read_is_one_indication_with_one_list() -> None:
    """IND-3: one read, one item, one indication at stage 1 with one NBL."""
    a = Lists()
    with Bench(a) as bench:
        bench.receive(b"one", b"two", b"three")
        assert a.lists == [[b"one"], [b"two"], [b"three"]]
        assert bench.log == ["A(R3 'one')", "A(R3 'two')", "A(R5 'three')"]
        assert bench.to_local == (b"onetwothree", False)


def test_ind_4_exactly_one_direction_flag() -> None:
    """IND-4: exactly one of SEND, RECEIVE: data, FIN, ABORT, urgent and injected indications."""
    a, b = Script(P(0, inj(b"!"))), Lists(name="B")
    with Bench(a, b) as bench:
        bench.send(b"x")
        bench.receive(b"y")
        bench.flow.receive(b"u", urgent=True)
        bench.send_fin()
        bench.reset("remote")
        assert len(b.flags_seen) >= 6
        assert [bool(f & SENDS) + bool(f & RECEIVES) for f in b.flags_seen] == [1] * len(b.flags_seen)
        assert bench.completions == ["cmp('!', SUCCESS)"]
        assert bench.to_remote == (b"!x", True)
        assert bytes(bench.flow.local.data) == b"yu"
        assert bench.to_local[1] is False


def test_ind_5_push_on_every_receive_data_indication_and_on_no_fin() -> None:
    """IND-5: RECEIVE_PUSH on RECEIVE data, never on FIN or ABORT, never SEND_* on the other side."""
    a = Lists()
    with Bench(a) as bench:
        bench.receive(b"x")
        bench.send(b"y")
        bench.receive_fin()
        bench.reset("local")
        assert a.flags_seen[:3] == [RECEIVE_PUSH, SEND, RECEIVE_FIN]
        assert all(not f & int(StreamFlags.RECEIVE_PUSH) for f in a.flags_seen[1:])
        assert bench.to_local == (b"x", True)
        assert bench.to_remote == (b"y", False)


@pytest.mark.parametrize(("nodelay", "flags"), [(False, 0x10000), (True, 0x50000)])
def test_ind_6_nodelay_iff_the_local_leg_is_configured_so(nodelay: bool, flags: int) -> None:
    """IND-6: SEND_NODELAY set iff the local leg is configured `nodelay`; RECEIVE is not concerned."""
    a = Lists()
    with MemoryDriver() as driver:
        driver.add(a)
        flow = driver.connect(nodelay=nodelay)
        assert flow is not None
        flow.send(b"x")
        flow.receive(b"y")
        assert a.flags_seen == [flags, RECEIVE_PUSH]


def test_ind_8_entry_state() -> None:
    """IND-8: action 0 for the first callout, then what the previous one left; all counts 0, streamAction NONE."""
    entries: list[tuple[int, int, int, int, int, int]] = []

    def look(call: Call) -> None:
        packet = call.packet
        entries.append(
            (
                call.out.action_type,
                call.out.rights,
                call.out.flags,
                packet.count_bytes_required,
                packet.count_bytes_enforced,
                packet.stream_action,
            )
        )

    permit, go_on = 0x1002, 0x2006
    a = Script(P(0, look), C(0, look), C(0, look))
    b = Script(*(P(0, look) for _ in range(3)), name="B")
    with Bench(a, b) as bench:
        bench.send(b"x")
        bench.receive(b"y")
        bench.send_fin()
        none = (1, 0, 0, 0, 0)
        assert entries == [
            (0, *none),
            (permit, *none),
            (0, *none),
            (go_on, *none),
            (0, 1, 4, 0, 0, 0),
            (go_on, 1, 4, 0, 0, 0),
        ]
        assert bench.to_remote == (b"x", True)
        assert bench.to_local == (b"y", False)


def test_ind_8_entry_state_of_a_remainder() -> None:
    """IND-8: the remainder call begins afresh; nothing of the callout's own last answer is left."""
    entries: list[tuple[int, int, int]] = []

    def look(call: Call) -> None:
        entries.append((call.out.action_type, call.packet.count_bytes_enforced, call.packet.stream_action))

    with Bench(Script(P(1, look), B(1, look), NMD(9, look), P(0, look))) as bench:
        bench.send(b"abcd", b"efghijk")
        assert entries == [(0, 0, 0)] * 4
        assert bench.to_remote == (b"acdefghijk", False)


@pytest.mark.parametrize("delivery", ["inline", "queued"])
def test_ind_10_classifies_never_nest(delivery: str) -> None:
    """IND-10: one classify at a time per flow, over both directions and all callouts, injections included."""
    depth: list[int] = [0]
    deepest: list[int] = []

    class Busy(Script):
        def classify_fn(self, *arguments: object) -> None:
            depth[0] += 1
            deepest.append(depth[0])
            super().classify_fn(*arguments)  # type: ignore[arg-type]
            depth[0] -= 1

    a = Busy(P(0, inj(b"1"), inj(b"2", RECEIVE_PUSH)))
    with Bench(a, Busy(name="B"), options=EngineOptions(inject_delivery=delivery)) as bench:
        bench.send(b"x")
        assert bench.calls[0] == "A(S1 'x')"
        assert sorted(bench.calls[1:]) == ["B(R1 '2')", "B(S1 '1')", "B(S1 'x')"]
        assert deepest == [1, 1, 1, 1]
        assert len(bench.completions) == 2
        assert bench.to_remote == (b"1x", False)
        assert bench.to_local == (b"2", False)


@pytest.mark.parametrize("pieces", cuttings(b"the quick brown fox jumps"))
def test_ind_9_the_views_in_order_make_the_stream(pieces: list[bytes]) -> None:
    """IND-9: stream order, no duplication; gaps only as missedBytes says, whatever the segments."""
    text = b"the quick brown fox jumps"

    class Remover(Script):
        """Removes every 'o', partial decisions for the rest."""

        def decide(self, call: Call) -> Answer:
            at = call.data.find(b"o")
            return P(0) if at < 0 else B(1) if at == 0 else C(at)

    seen: list[tuple[int, bytes]] = []

    class Viewer(Script):
        def decide(self, call: Call) -> Answer:
            seen.append((call.missed, call.data))
            return C(0)

    with Bench(Remover(), Viewer(name="B")) as bench:
        bench.send(*pieces)
        place = 0
        for missed, data in seen:
            assert text[place : place + missed] == b"o" * missed
            place += missed
            assert text[place : place + len(data)] == data
            place += len(data)
        assert place == len(text)
        assert bench.to_remote == (b"the quick brwn fx jumps", False)


@pytest.mark.parametrize("inbound", [False, True])
def test_ind_11_the_remainder_comes_at_once_and_alone(inbound: bool) -> None:
    """IND-11: exactly the remaining bytes; later data is neither merged in nor shown in between."""
    a = Script(P(2), B(1), C(1), P(0), P(0))
    side = "R" if inbound else "S"
    with Bench(a) as bench:
        give = bench.flow.receive if inbound else bench.flow.send
        give(b"abcdef")
        give(b"ghi", fin=True)
        bench.settle()
        assert bench.log == [
            f"A({side}6 'abcdef')",
            f"A({side}4 'cdef')",
            f"A({side}3 'def')",
            f"A({side}2 'ef')",
            f"A({side}3 'ghi')",
            f"A({side} FIN +N)",
        ]
        assert (bench.to_local if inbound else bench.to_remote) == (b"abdefghi", True)


def test_ind_11_not_even_what_the_classify_itself_provoked() -> None:
    """IND-11: an answer of the other direction that comes meanwhile waits until the remainder is decided."""
    above, a = Script(P(0)), Script(name="B")
    a.add_answers(P(1, lambda call: above.inject_bytes(SEND, b"new", flow_id=call.flow_id)), P(0))
    with Bench(above, a, violations=["V-21"]) as bench:
        bench.send(b"xyz")
        assert bench.calls == ["A(S3 'xyz')", "B(S3 'xyz')", "B(S2 'yz')", "B(S3 'new')"]
        assert bench.completions == ["cmp('new', SUCCESS)"]
        assert bench.to_remote == (b"xyznew", False)


def test_ind_12_no_empty_indication_without_fin_or_abort() -> None:
    """IND-12: neither a zero-length injection (INJ-42) nor the removal of everything shows an empty item."""
    a, b = Script(B(0), P(0)), Script(name="B")
    with Bench(a, b) as bench:
        bench.send(b"gone")
        assert a.inject_bytes(SEND, b"") == SUCCESS
        bench.settle()
        assert bench.calls_of("B") == []
        bench.send(b"x")
        assert bench.calls_of("B") == ["B(S1 'x' m4)"]
        assert bench.completions == ["cmp('', SUCCESS)"]
        assert bench.to_remote == (b"x", False)


# --- injected and lent ----------------------------------------------------------------------------


def test_ind_21_one_indication_per_injection_with_its_chain() -> None:
    """IND-21: flags are the injection's without DISCONNECT, the chain is the injected one, FIN follows apart."""
    a, b = Script(B(0)), Lists(name="B")
    with Bench(a, b) as bench:
        bench.send_fin()  # pended, so that a DISCONNECT may be injected
        chain = chained(allocate(a, b"ab"), allocate(a, b"cde"))
        flags = SEND_FIN | int(StreamFlags.SEND_NODELAY)
        assert a.inject_chain(flags, chain, 5, a.fwps.free_net_buffer_list) == SUCCESS
        bench.settle()
        assert bench.calls_of("B") == ["B(S5 'abcde')", "B(S FIN +N)"]
        assert b.lists == [[b"ab", b"cde"], [b""]]
        assert b.flags_seen == [SEND | int(StreamFlags.SEND_NODELAY), SEND_FIN]
        assert bench.completions == ["cmp('ab', SUCCESS)", "cmp('cde', SUCCESS)"]
        assert bench.to_remote == (b"abcde", True)


def test_ind_22_the_data_is_lent_for_the_call_only() -> None:
    """IND-22: what was shown is not valid after the return; tobytes() made inside is."""
    kept: list[bytes] = []
    views: list[memoryview] = []

    def keep(call: Call) -> None:
        kept.append(call.packet.stream_data.tobytes())
        views.append(call.packet.stream_data.view())

    with Bench(Script(P(0, keep))) as bench:
        bench.send(b"secret")
        assert kept == [b"secret"]
        assert bytes(views[0]) != b"secret"
        assert bench.to_remote == (b"secret", False)
