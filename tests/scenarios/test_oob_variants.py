"""Out-of-band variants, references, injection state, buffers, addresses (SC-125..135, SC-137..139).

Owns the less usual legal ways of keeping bytes, and what the run time tells about them.
"""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from tests.scenarios.support import (
    ALLOW,
    RECEIVE_PUSH,
    SEND,
    SEND_FIN,
    B,
    Bench,
    Call,
    P,
    Pended,
    Script,
    clone,
    inj,
)
from tests.scenarios.support_api import Injection, allocate, inject_raw
from wfpstream.engine import EngineOptions
from wfpstream.fwp import CalloutFlags, NtStatus
from wfpstream.fwps import (
    FieldsStream,
    LayerId,
    Mdl,
    NetBuffer,
    NetBufferList,
    PacketInjectionState,
    StreamData,
    StreamFlags,
    ndis_get_data_buffer,
)
from wfpstream.testing import MemoryDriver

SUCCESS = NtStatus.STATUS_SUCCESS
NOT_FOUND = NtStatus.STATUS_FWP_NOT_FOUND
RECEIVE = int(StreamFlags.RECEIVE)
CONDITIONAL = int(CalloutFlags.CONDITIONAL_ON_FLOW)
BY_SELF = PacketInjectionState.INJECTED_BY_SELF
BY_OTHER = PacketInjectionState.INJECTED_BY_OTHER
ORIGINAL = PacketInjectionState.NOT_INJECTED


def test_sc_125_worker_output_injected_inside_the_next_classify() -> None:
    def inject_the_first(call: Call) -> None:
        assert call.owner.inject_pended(0) == SUCCESS

    a = Script(B(0, clone), B(0, inject_the_first, clone))
    with Bench(a) as bench:
        bench.send(b"1")
        assert bench.to_remote == (b"", False)
        bench.send(b"2")
        assert bench.to_remote == (b"1", False)
        assert a.inject_pended(0) == SUCCESS
        bench.settle()
        assert bench.log == ["A(S1 '1')", "A(S1 '2')", "cmp('1', SUCCESS)", "cmp('2', SUCCESS)"]
        assert bench.to_remote == (b"12", False)
        assert bench.to_local == (b"", False)


class Keeper:
    """Hook that keeps the indication as a private FWPS_STREAM_DATA0, its lists referenced or not."""

    def __init__(self, *, reference: bool) -> None:
        self.reference = reference
        self.kept: StreamData | None = None
        self.lists: list[NetBufferList] = []

    def __call__(self, call: Call) -> None:
        shown = call.packet.stream_data
        nbl = shown.net_buffer_list_chain
        while nbl is not None:
            if self.reference:
                call.owner.fwps.reference_net_buffer_list(nbl)
            self.lists.append(nbl)
            nbl = nbl.next
        self.kept = StreamData(shown.flags, shown.data_offset, shown.data_length, shown.net_buffer_list_chain)


def test_sc_126_references_keep_the_indication_valid() -> None:
    keeper = Keeper(reference=True)
    a = Script(B(0, keeper))
    with Bench(a) as bench:
        bench.send(b"abc")
        assert bench.to_remote == (b"", False)
        assert keeper.kept is not None
        status, chain = a.fwps.clone_stream_data(keeper.kept)
        assert status == SUCCESS
        assert chain is not None
        for nbl in keeper.lists:
            a.fwps.dereference_net_buffer_list(nbl)
        assert len(keeper.lists) == 1
        a.pended.append(Pended(chain, 3, SEND))
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.log == ["A(S3 'abc')", "cmp('abc', SUCCESS)"]
        assert bench.to_remote == (b"abc", False)
        assert bench.to_local == (b"", False)


def test_sc_126_without_the_reference_the_bytes_are_gone() -> None:
    keeper = Keeper(reference=False)
    a = Script(B(0, keeper))
    with Bench(a, violations=["V-27"]) as bench:
        bench.send(b"abc")
        assert keeper.kept is not None
        status, chain = a.fwps.clone_stream_data(keeper.kept)
        assert status == NtStatus.STATUS_INVALID_PARAMETER
        assert chain is None
        bench.settle()
        assert bench.log == ["A(S3 'abc')"]
        assert bench.to_remote == (b"", False)


def test_sc_127_answer_instead_of_forwarding() -> None:
    a = Script(B(0, clone))
    with Bench(a, context=7) as bench:
        bench.send(b"GET")
        assert a.inject_bytes(RECEIVE, b"no") == SUCCESS
        a.discard_pended()
        bench.settle()
        assert bench.log == ["A(S3 'GET')", "cmp('no', SUCCESS)"]
        assert bench.to_local == (b"no", False)
        assert a.fwps.flow_abort(bench.flow.id) == SUCCESS
        bench.settle()
        assert bench.log == ["A(S3 'GET')", "cmp('no', SUCCESS)", "flowDelete(A)"]
        assert bench.to_local == (b"no", False)
        assert bench.to_remote == (b"", False)
        assert bench.resets == (True, True)


def test_sc_128_copies_instead_of_clones() -> None:
    copies: list[bytes] = []

    def copy(call: Call) -> None:
        buffer = bytearray(call.packet.stream_data.data_length)
        copied = call.owner.fwps.copy_stream_data_to_buffer(call.packet.stream_data, buffer, len(buffer))
        assert copied == len(buffer)
        copies.append(bytes(buffer))

    a = Script(B(0, copy), B(0, copy))
    with Bench(a) as bench:
        bench.send(b"abc")
        assert copies == [b"abc"]
        assert a.inject_bytes(SEND, b"ABC") == SUCCESS
        bench.send(b"d")
        assert copies == [b"abc", b"d"]
        assert a.inject_bytes(SEND, b"D") == SUCCESS
        bench.settle()
        assert bench.log == ["A(S3 'abc')", "cmp('ABC', SUCCESS)", "A(S1 'd')", "cmp('D', SUCCESS)"]
        assert bench.to_remote == (b"ABCD", False)
        assert bench.to_local == (b"", False)


def owed_at_a_reset() -> Bench:
    """200,000 bytes permitted towards a local host that does not read; then the remote resets."""
    bench = Bench(Script(), context=7)
    bench.flow.local.window = 0
    bench.receive(b"x" * 100_000, b"y" * 100_000)
    bench.reset("remote")
    assert bench.log == ["A(R100000)", "A(R100000)", "A(R ABORT +N)", "flowDelete(A)"]
    return bench


def test_sc_129_owed_bytes_come_before_the_reset() -> None:
    with owed_at_a_reset() as bench:
        bench.driver.advance(0.5)
        assert bench.resets == (False, True)
        bench.flow.local.window = None
        bench.settle()
        bench.driver.advance(0.5)
        assert bench.to_local == (b"x" * 100_000 + b"y" * 100_000, False)
        assert bench.resets == (True, True)
        assert bench.to_remote == (b"", False)
        summary = bench.flow.ledger(1)
        assert (summary.read, summary.written, summary.discarded_out) == (200_000, 200_000, 0)


def test_sc_129_owed_bytes_are_given_up_after_the_flush_time() -> None:
    with owed_at_a_reset() as bench:
        bench.driver.advance(1.9)
        assert bench.resets == (False, True)
        bench.driver.advance(0.2)
        assert bench.resets == (True, True)
        assert bench.to_local == (b"", False)
        summary = bench.flow.ledger(1)
        assert (summary.read, summary.written, summary.unsent, summary.discarded_out) == (
            200_000,
            0,
            0,
            200_000,
        )


def test_sc_131_injection_after_allow() -> None:
    a = Script(ALLOW())
    with Bench(a) as bench:
        bench.send(b"a")
        assert a.inject_bytes(SEND, b"x") == NOT_FOUND
        assert a.inject_null_fin(SEND_FIN) == NOT_FOUND
        bench.settle()
        assert bench.log == ["A(S1 'a')"]
        assert bench.to_remote == (b"a", False)
        assert bench.to_local == (b"", False)


def test_sc_131_injection_without_the_context_that_makes_the_stage_active() -> None:
    a = Script(B(0), flags=CONDITIONAL)
    with Bench(a) as bench:
        assert a.inject_bytes(SEND, b"before") == NOT_FOUND
        assert a.associate(7) == SUCCESS
        bench.send(b"a")
        assert a.inject_bytes(SEND, b"between") == SUCCESS
        bench.settle()
        stream = int(LayerId.STREAM_V4)
        assert a.fwps.flow_remove_context(bench.flow.id, stream, a.callout_id(stream)) == SUCCESS
        assert a.inject_bytes(SEND, b"after") == NOT_FOUND
        bench.settle()
        assert bench.log == ["A(S1 'a')", "cmp('between', SUCCESS)", "flowDelete(A)"]
        assert bench.to_remote == (b"between", False)
        assert bench.to_local == (b"", False)


@pytest.mark.parametrize("delivery", ["inline", "queued"])
def test_sc_132_when_lower_callouts_are_called(delivery: str) -> None:
    a = Script(B(0, clone), B(0, clone))
    b = Script(P(1), B(1, inj(b"X")), P(0), name="B")
    with Bench(a, b, options=EngineOptions(inject_delivery=delivery)) as bench:
        bench.send(b"abc", b"de")
        assert bench.log == ["A(S3 'abc')", "A(S2 'de')"]
        called = ["B(S3 'abc' m5)", "B(S2 'bc')", "B(S1 'c')"]
        assert a.inject_pended() == SUCCESS
        assert bench.calls_of("B") == (called if delivery == "inline" else [])
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.calls_of("B") == [*called, "B(S2 'de')"]
        assert [one.data for one in a.completed_nbls] == [b"abc", b"de"]
        assert [one.data for one in b.completed_nbls] == [b"X"]
        assert bench.to_remote == (b"aXcde", False)
        assert bench.to_local == (b"", False)


def test_sc_133_early_completion() -> None:
    """SC-66 with completions that may come before the inject call returns."""
    a = Script(B(0, clone))
    b = Script(P(0), B(6, inj(b"sunny")), P(0), name="B")
    with Bench(a, b, local="server", options=EngineOptions(completion="early")) as bench:
        bench.receive(b"it is rainy today")
        for words in (b"it is ", b"cloudy", b" today"):
            assert a.inject_bytes(RECEIVE_PUSH, words) == SUCCESS
        a.discard_pended()
        bench.settle()
        assert bench.calls == [
            "A(R17 'it is rainy today')",
            "B(R6 'it is ' m17)",
            "B(R6 'cloudy')",
            "B(R6 ' today')",
        ]
        assert [(one.data, one.status) for one in a.completed_nbls] == [
            (b"it is ", SUCCESS),
            (b"cloudy", SUCCESS),
            (b" today", SUCCESS),
        ]
        assert [(one.data, one.status) for one in b.completed_nbls] == [(b"sunny", SUCCESS)]
        assert len(bench.completions) == 4
        assert bench.to_local == (b"it is sunny today", False)
        assert bench.to_remote == (b"", False)


def test_sc_133_early_completion_does_not_wait_for_the_receiver() -> None:
    """CMP-14: as soon as the lower stages have returned."""
    a = Script(B(0, clone))
    with Bench(a, options=EngineOptions(completion="early")) as bench:
        bench.flow.remote.window = 0
        bench.send(b"abc")
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.log == ["A(S3 'abc')", "cmp('abc', SUCCESS)"]
        assert bench.to_remote == (b"", False)
        bench.flow.remote.window = None
        bench.settle()
        assert bench.log == ["A(S3 'abc')", "cmp('abc', SUCCESS)"]
        assert bench.to_remote == (b"abc", False)


def test_sc_134_urgent_byte_overtakes_pended_data() -> None:
    a = Script(B(0, clone), P(0), B(0, clone))
    with Bench(a, violations=["V-17x"]) as bench:
        bench.send(b"ab")
        bench.flow.send(b"!", urgent=True)
        bench.settle()
        bench.send(b"cd")
        assert bench.calls == ["A(S2 'ab')", "A(S1 EXPEDITED '!')", "A(S2 'cd')"]
        assert bench.flow.remote.urgent == [(0, b"!")]
        assert a.inject_pended() == SUCCESS
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.completions == ["cmp('ab', SUCCESS)", "cmp('cd', SUCCESS)"]
        assert bench.to_remote == (b"!abcd", False)
        assert bench.flow.remote.urgent == [(0, b"!")]
        assert bench.to_local == (b"", False)


def test_sc_135_injection_state() -> None:
    handles: dict[str, int] = {}
    seen: list[tuple[str, bytes, int, object]] = []

    def inject_with_context_7(call: Call) -> None:
        def free(context: object, nbl: NetBufferList, dispatch_level: bool) -> None:
            call.owner.fwps.free_net_buffer_list(nbl)

        nbl = allocate(call.owner, b"x")
        status = inject_raw(call.owner, Injection(SEND, nbl, 1, context=7, completion_fn=free))
        assert status == SUCCESS

    def ask(call: Call) -> None:
        name = call.owner.name
        nbl = call.packet.stream_data.net_buffer_list_chain
        assert nbl is not None
        state, context = call.owner.fwps.query_packet_injection_state(handles[name], nbl)
        seen.append((name, call.data, state, context))

    a = Script(P(0, ask, inject_with_context_7))
    b, c = Script(name="B", then=P(0, ask)), Script(name="C", then=P(0, ask))
    with Bench(a, b, c) as bench:
        # B belongs to A's driver and knows its handle, C asks with its own.
        handles.update(A=a.injection_handle, B=a.injection_handle, C=c.injection_handle)
        bench.send(b"q")
        assert bench.calls == ["A(S1 'q')", "B(S1 'x')", "C(S1 'x')", "B(S1 'q')", "C(S1 'q')"]
        assert [(name, data, state) for name, data, state, _ in seen] == [
            ("A", b"q", ORIGINAL),
            ("B", b"x", BY_SELF),
            ("C", b"x", BY_OTHER),
            ("B", b"q", ORIGINAL),
            ("C", b"q", ORIGINAL),
        ]
        assert seen[1][3] == 7
        assert bench.to_remote == (b"xq", False)
        assert bench.to_local == (b"", False)


def test_sc_137_walking_a_net_buffer() -> None:
    walked: list[bytes | None] = []
    storages: list[bytes] = []

    def walk(call: Call) -> None:
        nbl = call.packet.stream_data.net_buffer_list_chain
        assert nbl is not None
        assert nbl.next is None
        net_buffer = nbl.first_net_buffer
        assert net_buffer is not None
        assert net_buffer.next is None
        assert mdl_lengths(net_buffer) == [2, 2, 2]
        storage = bytearray(6)
        for count, space in ((2, None), (6, storage), (6, None), (7, bytearray(7))):
            found = ndis_get_data_buffer(net_buffer, count, space)
            walked.append(None if found is None else bytes(found))
            storages.append(bytes(storage))

    a = Script(P(0, walk))
    with Bench(a, options=EngineOptions(indicate_mdls=3)) as bench:
        bench.send(b"abcdef")
        assert walked == [b"ab", b"abcdef", None, None]
        assert storages == [bytes(6), b"abcdef", b"abcdef", b"abcdef"]
        assert bench.log == ["A(S6 'abcdef')"]
        assert bench.to_remote == (b"abcdef", False)
        assert bench.to_local == (b"", False)


def mdl_lengths(net_buffer: NetBuffer) -> list[int]:
    """Byte counts along the MDL chain."""
    lengths = []
    mdl = net_buffer.mdl_chain
    while mdl is not None:
        lengths.append(mdl.byte_count)
        mdl = mdl.next
    return lengths


CLIENT = ("fd00::1", 40000)
UPSTREAM = ("10.0.0.2", 80)
LISTENER = ("fd00::99", 8888)


@pytest.mark.parametrize(
    ("local", "local_end", "remote_end"),
    [("client", CLIENT, ("::ffff:10.0.0.2", 80)), ("server", LISTENER, CLIENT)],
)
def test_sc_138_addresses_of_a_mixed_family_flow(
    local: str, local_end: tuple[str, int], remote_end: tuple[str, int]
) -> None:
    shown: list[tuple[int, str, int, str, int]] = []
    upstreams: list[tuple[str, int] | None] = []

    def note(call: Call) -> None:
        values = call.fixed.incoming_value
        shown.append(
            (
                call.fixed.layer_id,
                str(IPv6Address(values[FieldsStream.IP_LOCAL_ADDRESS].value)),
                values[FieldsStream.IP_LOCAL_PORT].value,
                str(IPv6Address(values[FieldsStream.IP_REMOTE_ADDRESS].value)),
                values[FieldsStream.IP_REMOTE_PORT].value,
            )
        )
        upstreams.append(call.meta.upstream_address)

    a = Script(then=P(0, note))
    driver = MemoryDriver()
    driver.add(a)
    flow = driver.connect(client=CLIENT, server=UPSTREAM, listener_address=LISTENER, local=local)
    assert flow is not None
    flow.send(b"s")
    flow.receive(b"r")
    driver.settle()
    expected = (
        22,
        str(IPv6Address(local_end[0])),
        local_end[1],
        str(IPv6Address(remote_end[0])),
        remote_end[1],
    )
    assert shown == [expected, expected]
    assert upstreams == [UPSTREAM, UPSTREAM]
    assert flow.remote.data == b"s"
    assert flow.local.data == b"r"
    driver.close()
    assert driver.violations == []
    assert a.transcript.faults == []


def test_sc_139_inbound_injection_with_two_net_buffers() -> None:
    a = Script()
    with Bench(a, violations=["V-58"]) as bench:
        nbl = allocate(a, b"ab")
        assert nbl.first_net_buffer is not None
        nbl.first_net_buffer.next = NetBuffer(Mdl(b"cd"), 0, 2)
        assert a.inject_chain(RECEIVE, nbl, 4, a.fwps.free_net_buffer_list) == SUCCESS
        bench.settle()
        assert bench.log == ["cmp('abcd', SUCCESS)"]
        assert bench.to_local == (b"abcd", False)
        assert bench.to_remote == (b"", False)


def test_sc_139_outbound_injection_with_two_net_buffers_is_legal() -> None:
    a = Script()
    with Bench(a) as bench:
        nbl = allocate(a, b"ab")
        assert nbl.first_net_buffer is not None
        nbl.first_net_buffer.next = NetBuffer(Mdl(b"cd"), 0, 2)
        assert a.inject_chain(SEND, nbl, 4, a.fwps.free_net_buffer_list) == SUCCESS
        bench.settle()
        assert bench.log == ["cmp('abcd', SUCCESS)"]
        assert bench.to_remote == (b"abcd", False)
        assert bench.to_local == (b"", False)
