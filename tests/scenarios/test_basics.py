"""SC-1 to SC-14: pass-through, entry values, filter types and answers, partial decisions, plain filters."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import pytest

from tests.scenarios.support import (
    UNSET,
    Answer,
    B,
    Bench,
    C,
    Call,
    P,
    Recording,
    Script,
    bytewise,
    cuttings,
)
from wfpstream.fwp import ActionType, DataType, Direction, FwpValue, NtStatus
from wfpstream.fwpm import LAYER_STREAM_V4, SUBLAYER_UNIVERSAL, DisplayData, Filter
from wfpstream.fwps import RIGHT_ACTION_WRITE, FieldsStream, StreamActionType, StreamFlags


@dataclass(frozen=True)
class Entry:
    """What a callout finds when it is called."""

    flags: int
    rights: int
    action_type: int
    stream_action: int
    required: int
    enforced: int
    missed: int
    stream_data_offset: int
    direction: int


class Noting(Recording):
    """Permits everything and notes the entry values of each call."""

    def __init__(self) -> None:
        super().__init__("A")
        self.entries: list[Entry] = []

    def decide(self, call: Call) -> Answer:
        self.entries.append(
            Entry(
                flags=call.flags,
                rights=call.out.rights,
                action_type=call.out.action_type,
                stream_action=call.packet.stream_action,
                required=call.packet.count_bytes_required,
                enforced=call.packet.count_bytes_enforced,
                missed=call.packet.missed_bytes,
                stream_data_offset=call.packet.stream_data.data_offset.stream_data_offset,
                direction=call.fixed.incoming_value[FieldsStream.DIRECTION].value,
            )
        )
        return P(0)


PASS_THROUGH = ["A(S8 'HELLO001')", "A(R8 'REPLY001')", "A(S FIN +N)", "A(R FIN +N)"]


@pytest.mark.parametrize("context", [0, 7])
def test_sc_1_pass_through(context: int) -> None:
    a = Noting()
    with Bench(a, context=context) as bench:
        bench.send(b"HELLO001")
        bench.receive(b"REPLY001")
        assert bench.to_remote == (b"HELLO001", False)
        assert bench.to_local == (b"REPLY001", False)
        bench.send_fin()
        bench.receive_fin()
        assert bench.log == PASS_THROUGH + ["flowDelete(A)"] * bool(context)
        assert [entry.flags for entry in a.entries] == [
            StreamFlags.SEND,
            StreamFlags.RECEIVE | StreamFlags.RECEIVE_PUSH,
            StreamFlags.SEND | StreamFlags.SEND_DISCONNECT,
            StreamFlags.RECEIVE | StreamFlags.RECEIVE_DISCONNECT,
        ]
        assert bench.to_remote == (b"HELLO001", True)
        assert bench.to_local == (b"REPLY001", True)
        assert bench.resets == (False, False)
        assert bench.flow.ended


@pytest.mark.parametrize("pieces", cuttings(b"HELLO001"), ids=len)
def test_sc_1_pass_through_at_any_cuts(pieces: list[bytes]) -> None:
    with Bench(Script()) as bench:
        bench.send(*pieces)
        bench.receive(*pieces)
        bench.send_fin()
        bench.receive_fin()
        assert len(bench.calls) == 2 * len(pieces) + 2
        assert bench.to_remote == (b"HELLO001", True)
        assert bench.to_local == (b"HELLO001", True)


def test_sc_2_entry_values() -> None:
    a = Noting()
    with Bench(a) as bench:
        bench.send(b"HELLO001")
        bench.receive(b"REPLY001")
        bench.send_fin()
        bench.receive_fin()
        assert bench.calls == PASS_THROUGH
        for entry in a.entries:
            assert entry.rights == RIGHT_ACTION_WRITE
            assert entry.stream_action == StreamActionType.NONE
            assert entry.required == 0
            assert entry.enforced == 0
            assert entry.missed == 0
            assert entry.action_type == 0
            assert entry.stream_data_offset == 0
        assert bench.to_remote == (b"HELLO001", True)
        assert bench.to_local == (b"REPLY001", True)


def test_sc_3_block_under_inspection_continues() -> None:
    with Bench(Script(B(0), action="callout_inspection"), violations=["V-6"]) as bench:
        bench.send(b"abc")
        assert bench.calls == ["A(S3 'abc')"]
        assert bench.to_remote == (b"abc", False)
        assert bench.resets == (False, False)


def test_sc_4_continue_under_terminating_blocks() -> None:
    with Bench(Script(C(0), action="callout_terminating"), violations=["V-6"]) as bench:
        bench.send(b"abc")
        assert bench.calls == ["A(S3 'abc')"]
        assert bench.to_remote == (b"", False)
        assert bench.resets == (False, False)


def test_sc_5_unwritten_action_under_terminating_blocks() -> None:
    with Bench(Script(UNSET(), action="callout_terminating"), violations=["V-6"]) as bench:
        bench.send(b"abc")
        assert bench.calls == ["A(S3 'abc')"]
        assert bench.to_remote == (b"", False)
        assert bench.resets == (False, False)


def test_sc_6_partial_permit_chain() -> None:
    with Bench(Script(P(3), P(3), P(0))) as bench:
        bench.send(b"abcdefgh")
        assert bench.calls == ["A(S8 'abcdefgh')", "A(S5 'defgh')", "A(S2 'gh')"]
        assert bench.to_remote == (b"abcdefgh", False)


def test_sc_7_remainder_is_not_merged() -> None:
    with Bench(Script(P(2))) as bench:
        bench.flow.send(b"abcdef")
        bench.flow.send(b"XY")
        bench.settle()
        assert bench.calls == ["A(S6 'abcdef')", "A(S4 'cdef')", "A(S2 'XY')"]
        assert bench.to_remote == (b"abcdefXY", False)


def test_sc_7_remainder_is_not_merged_with_bytes_read_before_the_first_call() -> None:
    splitter = Script(P(6), P(0), name="X")
    with Bench(splitter, Script(P(2), name="A")) as bench:
        bench.send(b"abcdefXY")
        assert bench.calls == [
            "X(S8 'abcdefXY')", "A(S6 'abcdef')", "A(S4 'cdef')", "X(S2 'XY')", "A(S2 'XY')",
        ]  # fmt: skip
        assert bench.to_remote == (b"abcdefXY", False)


def test_sc_8_enforced_too_large() -> None:
    with Bench(Script(P(100)), violations=["V-8"]) as bench:
        bench.send(b"abcd")
        assert bench.calls == ["A(S4 'abcd')"]
        assert bench.to_remote == (b"abcd", False)


def test_sc_9_enforced_is_a_negative_64_bit_difference() -> None:
    with Bench(Script(B(2**64 - 4)), violations=["V-8"]) as bench:
        bench.send(b"abcd")
        assert bench.calls == ["A(S4 'abcd')"]
        assert bench.to_remote == (b"", False)


def test_sc_9b_enforced_is_a_negative_32_bit_difference() -> None:
    with Bench(Script(P(2**32 - 1)), violations=["V-8"]) as bench:
        bench.send(b"abcd")
        assert bench.calls == ["A(S4 'abcd')"]
        assert bench.to_remote == (b"abcd", False)


def test_sc_10_half_close() -> None:
    with Bench(Script(), context=1) as bench:
        bench.send_fin()
        assert bench.to_remote == (b"", True)
        bench.receive(b"late")
        assert bench.to_local == (b"late", False)
        assert not bench.flow.ended
        bench.receive_fin()
        assert bench.log == ["A(S FIN +N)", "A(R4 'late')", "A(R FIN +N)", "flowDelete(A)"]
        assert bench.to_local == (b"late", True)
        assert bench.flow.ended


def test_sc_11_direction_field_of_an_inbound_flow() -> None:
    a = Noting()
    with Bench(a, local="server") as bench:
        bench.send(b"answer")
        bench.receive(b"question")
        assert bench.calls == ["A(S6 'answer')", "A(R8 'question')"]
        assert [entry.direction for entry in a.entries] == [1, 1]
        assert int(Direction.INBOUND) == 1
        assert bench.to_remote == (b"answer", False)
        assert bench.to_local == (b"question", False)


def test_sc_12_serialisation() -> None:
    # The busy marker is the transcript's: an overlap is a fault, which the bench raises.
    a, b = Script(P(1), name="A"), Script(name="B")
    sent, answered = bytewise(b"s" * 40), bytewise(b"r" * 40)
    with Bench(a, b) as bench:
        for out, back in zip(sent, answered, strict=True):
            bench.flow.send(out)
            bench.flow.receive(back)
        bench.settle()
        assert sorted(bench.calls) == sorted(["A(S1 's')", "B(S1 's')", "A(R1 'r')", "B(R1 'r')"] * 40)
        assert bench.to_remote == (b"s" * 40, False)
        assert bench.to_local == (b"r" * 40, False)


def add_plain_filter(bench: Bench, action: ActionType, sub_layer_key: UUID) -> None:
    """The heaviest filter of that sublayer."""
    status, _ = bench.driver.session.filter_add(
        Filter(
            display_data=DisplayData("plain"),
            layer_key=LAYER_STREAM_V4,
            sub_layer_key=sub_layer_key,
            weight=FwpValue(DataType.UINT64, 2**64 - 1),
            action_type=action,
        )
    )
    assert status == NtStatus.STATUS_SUCCESS


def test_sc_13_plain_block_filter() -> None:
    with Bench(setup=lambda bench: add_plain_filter(bench, ActionType.BLOCK, SUBLAYER_UNIVERSAL)) as bench:
        bench.send(b"abc")
        bench.send_fin()
        assert bench.calls == []
        assert bench.to_remote == (b"", False)
        assert bench.resets == (False, False)
        assert not bench.flow.ended


def test_sc_14_plain_permit_filter_above_the_callout() -> None:
    a, later = Script(then=B(0)), Script(name="B")
    with Bench(
        a,
        later,
        setup=lambda bench: add_plain_filter(bench, ActionType.PERMIT, bench.added[0].sub_layer_key),
    ) as bench:
        bench.send(b"abc")
        assert bench.calls == ["B(S3 'abc')"]
        assert bench.to_remote == (b"abc", False)
