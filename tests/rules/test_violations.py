"""What a classify answers against the contract (V-1..V-18).

For each violation a minimal callout that is caught, with its id and the place of its classify function, and
the closest legal one that is not. The rest of the rules is in
`test_violations_more`, `test_violations_use` and `test_violations_calls`.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.rules.answers import answering, once, permit
from tests.rules.minimal import (
    ALLOW,
    BLOCK,
    CONTINUE,
    DEFER,
    DROP,
    NEED_MORE_DATA,
    NONE,
    PERMIT,
    RECEIVE,
    RECEIVE_PUSH,
    SEND,
    STREAM,
    SUCCESS,
    Caught,
    Classify,
    World,
    after_sending,
    here,
    hints,
    parts,
    place,
    small_limit,
)
from wfpstream.engine import EngineOptions
from wfpstream.fwps import ClassifyOutFlags

LIMIT = int(ClassifyOutFlags.BUFFER_LIMIT_REACHED)
NO_MORE = int(ClassifyOutFlags.NO_MORE_DATA)


def test_v_1_rights_written() -> None:
    """V-1: classifyOut.rights has no meaning at the stream layer and is not the callout's to write."""

    def bad(*call: Any) -> None:
        call[-1].rights = 0
        call[-1].action_type = PERMIT

    def good(*call: Any) -> None:
        call[-1].action_type = PERMIT if call[-1].rights == 1 else BLOCK

    assert after_sending(bad, b"a") == [("V-1", place(bad))]
    assert after_sending(good, b"a") == []


def test_v_2_need_more_data_at_the_buffer_limit() -> None:
    """V-2: with BUFFER_LIMIT_REACHED the callout must not ask for more."""
    bad = answering(NONE, stream_action=NEED_MORE_DATA)

    def good(*call: Any) -> None:
        packet, out = parts(call)
        out.action_type = NONE
        if out.flags & LIMIT:
            out.action_type = PERMIT
        else:
            packet.stream_action = NEED_MORE_DATA

    assert after_sending(bad, b"abcd", b"efgh", options=small_limit()) == [("V-2", place(bad))]
    assert after_sending(good, b"abcd", b"efgh", options=small_limit()) == []


def test_v_3_defer_of_outbound_data() -> None:
    """V-3: DEFER is for RECEIVE only."""
    bad = answering(NONE, stream_action=DEFER)
    assert after_sending(bad, b"a") == [("V-3", place(bad))]
    w = World(bad)
    w.receive(b"a")
    assert w.close() == []


def test_v_4_drop_under_inspection() -> None:
    """V-4: an INSPECTION filter's callout cannot drop; under UNKNOWN it can."""
    drop = answering(NONE, stream_action=DROP)
    assert after_sending(drop, b"a", action="callout_inspection") == [("V-4", place(drop))]
    assert after_sending(drop, b"a", action="callout_unknown") == []


def test_v_4b_drop_under_terminating() -> None:
    """V-4b: lint, the connection is dropped all the same."""
    drop = answering(NONE, stream_action=DROP)
    w = World(drop, action="callout_terminating")
    w.send(b"a")
    assert w.flow.remote.reset
    assert w.close() == [("V-4b", place(drop))]
    assert w.severities == [("V-4b", "L")]


def test_v_5_need_more_data_before_the_end() -> None:
    """V-5: NEED_MORE_DATA although NO_MORE_DATA was set."""
    bad = answering(NONE, stream_action=NEED_MORE_DATA)

    def good(*call: Any) -> None:
        packet, out = parts(call)
        out.action_type = NONE
        if out.flags & NO_MORE:
            out.action_type = PERMIT
        else:
            packet.stream_action = NEED_MORE_DATA

    for classify, caught in ((bad, [("V-5", place(bad))]), (good, [])):
        w = World(classify)
        w.send(b"ab")
        w.send_fin()
        assert w.close() == caught


@pytest.mark.parametrize("action", ["callout_terminating", "callout_unknown"])
def test_v_6_action_never_written(action: str) -> None:
    """V-6: every non-inspection callout must assign an action type."""

    def silent(*call: Any) -> None:
        pass

    assert after_sending(silent, b"a", action=action) == [("V-6", place(silent))]
    assert after_sending(silent, b"a", action="callout_inspection") == []
    assert after_sending(permit, b"a", action=action) == []


def test_v_6_action_not_allowed_for_the_filter_type() -> None:
    """V-6: CONTINUE under TERMINATING, BLOCK under INSPECTION, 99 anywhere."""
    go_on, stop, nonsense = answering(CONTINUE), answering(BLOCK), answering(99)
    assert after_sending(go_on, b"a", action="callout_terminating") == [("V-6", place(go_on))]
    assert after_sending(go_on, b"a", action="callout_unknown") == []
    assert after_sending(stop, b"a", action="callout_inspection") == [("V-6", place(stop))]
    assert after_sending(stop, b"a", action="callout_terminating") == []
    for action in ("callout_terminating", "callout_unknown", "callout_inspection"):
        assert after_sending(nonsense, b"a", action=action) == [("V-6", place(nonsense))]


@pytest.mark.parametrize("beside", [PERMIT, BLOCK])
def test_v_7_action_type_beside_a_stream_action(beside: int) -> None:
    """V-7: PERMIT or BLOCK beside a stream action is ignored; NONE and CONTINUE are silent (ACT-6)."""
    bad = answering(beside, stream_action=NEED_MORE_DATA)
    assert after_sending(bad, b"a") == [("V-7", place(bad))]
    assert after_sending(answering(NONE, stream_action=NEED_MORE_DATA), b"a") == []
    assert after_sending(answering(CONTINUE, stream_action=NEED_MORE_DATA), b"a") == []


def test_v_8_more_enforced_than_shown() -> None:
    """V-8: countBytesEnforced > dataLength."""
    bad = answering(PERMIT, enforced=6)
    assert after_sending(bad, b"hello") == [("V-8", place(bad))]
    assert after_sending(answering(PERMIT, enforced=5), b"hello") == []


def test_v_9_permit_nothing_after_an_injection() -> None:
    """V-9, a hint (VRF-4): PERMIT 0 in a classify that also injected."""
    worlds: list[World] = []

    def bad(*call: Any) -> None:
        worlds[-1].inject_bytes(SEND, b"x")
        call[-1].action_type = PERMIT

    def good(*call: Any) -> None:
        worlds[-1].inject_bytes(SEND, b"x")
        call[-1].action_type = PERMIT
        call[2].count_bytes_enforced = 1

    def caught(classify: Classify, options: EngineOptions) -> Caught:
        worlds.append(World(classify, options=options))
        worlds[-1].send(b"a")
        return worlds[-1].close()

    assert caught(bad, hints()) == [("V-9", place(bad))]
    assert caught(good, hints()) == []
    assert caught(bad, EngineOptions()) == []


def test_v_10_required_without_need_more_data() -> None:
    """V-10: countBytesRequired must be 0 unless the stream action is NEED_MORE_DATA."""
    bad = answering(PERMIT, required=4)
    deferring = answering(NONE, stream_action=DEFER, required=4)
    assert after_sending(bad, b"a") == [("V-10", place(bad))]
    assert after_sending(answering(NONE, stream_action=NEED_MORE_DATA, required=4), b"a") == []
    w = World(deferring)
    w.receive(b"a")
    assert w.close() == [("V-10", place(deferring))]


def test_v_11_enforced_with_need_more_data_or_defer() -> None:
    """V-11: the count is ignored there (NMD-1, DEF-2)."""
    waiting = answering(NONE, enforced=1, stream_action=NEED_MORE_DATA)
    deferring = answering(NONE, enforced=1, stream_action=DEFER)
    for bad in (waiting, deferring):
        w = World(bad)
        w.receive(b"ab")
        assert w.to_local == b""
        assert w.close() == [("V-11", place(bad))]
    assert after_sending(answering(NONE, stream_action=NEED_MORE_DATA), b"ab") == []


def test_v_12_required_above_the_limit() -> None:
    """V-12: more asked for than is ever accumulated."""
    bad = answering(NONE, stream_action=NEED_MORE_DATA, required=9)
    good = answering(NONE, stream_action=NEED_MORE_DATA, required=8)
    assert after_sending(bad, b"a", options=small_limit()) == [("V-12", place(bad))]
    assert after_sending(good, b"a", options=small_limit()) == []


def test_v_13_partial_decision_at_the_limit() -> None:
    """V-13: at the limit all or nothing is decided; a part is honoured and reported (NMD-7)."""

    def at_limit(count: int) -> Classify:
        def classify(*call: Any) -> None:
            packet, out = parts(call)
            out.action_type = NONE
            if out.flags & LIMIT:
                out.action_type = PERMIT
                packet.count_bytes_enforced = count if len(packet.stream_data) == 8 else 0
            else:
                packet.stream_action = NEED_MORE_DATA

        return classify

    bad, good = at_limit(3), at_limit(8)
    w = World(bad, options=small_limit())
    w.send(b"abcdefgh")
    assert w.to_remote == b"abcdefgh"
    assert w.close() == [("V-13", place(bad))]
    assert w.severities == [("V-13", "W")]
    assert after_sending(good, b"abcdefgh", options=small_limit()) == []


def test_v_14_continue_inside_a_classify() -> None:
    """V-14: the place is the call itself."""
    where: list[str] = []

    def bad(*call: Any) -> None:
        packet, out = parts(call)
        out.action_type = NONE
        packet.stream_action = DEFER
        where.append(here())
        w.fwps.stream_continue(w.flow.id, w.callout_id, STREAM, RECEIVE_PUSH)

    w = World(bad)
    w.receive(b"a")
    assert w.close() == [("V-14", where[0])]
    w = World(once(answering(NONE, stream_action=DEFER)))
    w.receive(b"a")
    assert w.fwps.stream_continue(w.flow.id, w.callout_id, STREAM, RECEIVE_PUSH) == SUCCESS
    w.settle()
    assert w.to_local == b"a"
    assert w.close() == []


def test_v_15_continue_with_other_flags() -> None:
    """V-15: continue should name the flags of the deferred indication."""
    for flags, caught in ((RECEIVE, True), (RECEIVE_PUSH, False)):
        classify = once(answering(NONE, stream_action=DEFER))
        w = World(classify)
        w.receive(b"a")
        where = here()
        assert w.fwps.stream_continue(w.flow.id, w.callout_id, STREAM, flags) == SUCCESS
        w.settle()
        assert w.close() == ([("V-15", where)] if caught else [])


def out_of_band_then(answer: Classify) -> tuple[Classify, list[World]]:
    """The first indication is cloned and blocked, `answer` has the others."""
    worlds: list[World] = []

    def classify(*call: Any) -> None:
        if worlds[-1].kept or worlds[-1].events("classify"):
            answer(*call)
            return
        worlds[-1].keep_clone(call[2])
        call[-1].action_type = BLOCK

    return classify, worlds


def test_v_17_permit_while_bytes_are_pended() -> None:
    """V-17: PERMIT of bytes that follow pended ones; CONTINUE likewise."""
    for answer in (permit, answering(CONTINUE)):
        classify, worlds = out_of_band_then(answer)
        worlds.append(w := World(classify))
        w.send(b"a")
        w.send(b"b")
        w.discard()
        assert w.close() == [("V-17", place(classify))]


def test_v_17_block_while_bytes_are_pended() -> None:
    """V-17 does not apply: everything that follows is blocked too."""

    def good(*call: Any) -> None:
        w.keep_clone(call[2])
        call[-1].action_type = BLOCK

    w = World(good)
    w.send(b"a")
    w.send(b"b")
    assert [w.inject_kept(SEND) for _ in range(2)] == [SUCCESS, SUCCESS]
    w.settle()
    assert w.to_remote == b"ab"
    assert w.close() == []


def test_v_17w_return_to_inline() -> None:
    """V-17w: clone-based work has ended and the callout permits again."""
    classify, worlds = out_of_band_then(permit)
    worlds.append(w := World(classify))
    w.send(b"a")
    assert w.inject_kept(SEND) == SUCCESS
    w.send(b"b")
    assert w.to_remote == b"ab"
    assert w.close() == [("V-17w", place(classify))]
    assert w.severities == [("V-17w", "W")]


def test_v_17w_copies_are_not_seen() -> None:
    """V-17w is for clones and references only: who copied and blocked is no out-of-band callout to it (OOB-13)."""
    w = World(once(answering(BLOCK)))
    w.send(b"a")
    assert w.inject_bytes(SEND, b"a") == SUCCESS
    w.send(b"b")
    assert w.to_remote == b"ab"
    assert w.close() == []


def test_v_17x_urgent_byte_overtakes() -> None:
    """V-17x: lint, and only while something is pended."""
    classify, worlds = out_of_band_then(permit)
    worlds.append(w := World(classify))
    w.send(b"a")
    w.send(b"!", urgent=True)
    assert w.severities == [("V-17x", "L")]
    w.discard()
    assert w.close() == [("V-17x", place(classify))]
    w = World(permit)
    w.send(b"a")
    w.send(b"!", urgent=True)
    assert w.close() == []


def test_v_18_allow_connection_with_something_pended() -> None:
    """V-18: a mode switch (ALW-6); legal once nothing is pended."""
    allow = answering(NONE, stream_action=ALLOW)
    for discard_first in (False, True):
        classify, worlds = out_of_band_then(allow)
        worlds.append(w := World(classify))
        w.send(b"a")
        if discard_first:
            w.discard()
        w.send(b"b")
        if not discard_first:
            w.discard()
        assert w.to_remote == b"b"
        assert w.close() == ([] if discard_first else [("V-18", place(classify))])
