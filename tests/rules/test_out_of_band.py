"""Out-of-band editing, rule by rule (section 13).

Owns when a callout is out of band, what it must do then, and where its injections land.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.rules.answers import answering, block, once, permit
from tests.rules.minimal import (
    ALLOW,
    BLOCK,
    CONTINUE,
    DEFER,
    NEED_MORE_DATA,
    NONE,
    PERMIT,
    RECEIVE,
    RECEIVE_FIN,
    RECEIVE_PUSH,
    SEND,
    SEND_FIN,
    STREAM,
    SUCCESS,
    Classify,
    World,
    place,
)
from tests.scenarios.support import DEF, B, Bench, P, Script, clone
from wfpstream.fwp import NtStatus

IN_USE = NtStatus.STATUS_FWP_IN_USE


def keeping(how: str, worlds: list[World]) -> Classify:
    """The first indication is kept by clone, reference or copy and blocked; the others are permitted."""

    def classify(*call: Any) -> None:
        packet, out = call[2], call[-1]
        w = worlds[-1]
        out.action_type = PERMIT
        if w.kept or not len(packet.stream_data):
            return
        out.action_type = BLOCK
        if how == "clone":
            w.keep_clone(packet)
        elif how == "reference":
            nbl = packet.stream_data.net_buffer_list_chain
            w.fwps.reference_net_buffer_list(nbl)
            w.kept.append(nbl)
        else:
            w.kept.append(packet.stream_data.tobytes())

    return classify


@pytest.mark.parametrize("how", ["clone", "reference", "copy"])
def test_oob_1_clone_reference_or_copy(how: str) -> None:
    """OOB-1, OOB-13: BLOCK with a live clone or reference is out of band; of a copy the engine cannot know."""
    worlds: list[World] = []
    worlds.append(w := World(keeping(how, worlds)))
    w.send(b"a")
    delete = w.driver.session.filter_delete_by_id(w.added.filter_ids[0])
    assert delete == (SUCCESS if how == "copy" else IN_USE)  # MGMT-14 asks the same question
    kept = w.kept[0]
    if how == "clone":
        w.fwps.discard_cloned_stream_data(kept)
    elif how == "reference":
        w.fwps.dereference_net_buffer_list(kept)
    assert [rule for rule, _ in w.caught] == ([] if how == "copy" else ["V-38"])


def test_oob_1_not_when_injected_in_the_same_classify() -> None:
    """OOB-1: a clone that was injected during that same classify makes no out-of-band callout (OOB-10)."""

    def pass_through(*call: Any) -> None:
        w.keep_clone(call[2])
        assert w.inject_kept(call[2].stream_data.flags) == SUCCESS
        call[-1].action_type = BLOCK

    w = World(once(pass_through, permit))
    w.send(b"a")
    w.send(b"b")
    assert w.to_remote == b"ab"
    assert w.close() == []  # no V-17w: it never was out of band


@pytest.mark.parametrize("how", ["clone", "reference"])
@pytest.mark.parametrize("what", ["data", "fin"])
def test_oob_2_everything_is_blocked_while_something_is_pended(what: str, how: str) -> None:
    """OOB-2: PERMIT of data or of the FIN then is V-17; the action is applied all the same (OOB-3)."""
    worlds: list[World] = []
    classify = keeping(how, worlds)
    worlds.append(w := World(classify))
    w.send(b"a")
    if what == "data":
        w.send(b"b")
        assert w.to_remote == b"b"
    else:
        w.send_fin()
        assert w.fins() == (True, False)
    assert w.caught == [("V-17", place(classify))]
    if how == "clone":
        w.discard()
    else:
        w.fwps.dereference_net_buffer_list(w.kept[0])
    w.close()


def test_oob_2_the_other_direction_is_free() -> None:
    """OOB-2: it holds per direction."""
    worlds: list[World] = []
    worlds.append(w := World(keeping("clone", worlds)))
    w.send(b"a")
    w.receive(b"b")
    w.receive_fin()
    assert w.to_local == b"b"
    w.discard()
    assert w.close() == []


def test_oob_2_expedited_and_abort_are_exempt() -> None:
    """OOB-2: an urgent byte is lint V-17x, an ABORT nothing at all."""
    worlds: list[World] = []
    worlds.append(w := World(keeping("clone", worlds)))
    w.send(b"a")
    w.send(b"!", urgent=True)
    w.reset()
    w.discard()
    w.close()
    assert w.severities == [("V-17x", "L")]


@pytest.mark.parametrize("answer", [PERMIT, CONTINUE])
@pytest.mark.parametrize(("pended", "caught"), [(True, ["V-17", "V-21"]), (False, ["V-17w"])])
def test_oob_3_switch_to_inline(answer: int, pended: bool, caught: list[str]) -> None:
    """OOB-3: V-17 while bytes are pended, V-17w after all came back; the emulator applies the answer."""

    def first(*call: Any) -> None:
        w.keep_clone(call[2])
        call[-1].action_type = BLOCK

    w = World(once(first, answering(answer)))
    w.send(b"a")
    if not pended:
        assert w.inject_kept(SEND) == SUCCESS
    w.send(b"b")
    if pended:
        assert w.inject_kept(SEND) == SUCCESS
        w.settle()
    assert w.to_remote == (b"ba" if pended else b"ab")
    assert [rule for rule, _ in w.close()] == caught


def test_oob_3_fin_pended_counts_too() -> None:
    """OOB-3: ALLOW with a pended FIN outstanding is V-18, of the other direction too."""
    w = World(once(block, answering(NONE, stream_action=ALLOW)))
    w.receive_fin()
    w.send(b"x")
    assert w.to_remote == b"x"
    assert [rule for rule, _ in w.caught] == ["V-18"]


def test_oob_4_tail_of_the_output_before_held_data() -> None:
    """OOB-4: after what was released or injected before, before anything decided later, before held data."""
    a = Script(B(0, clone), B(0, clone), DEF(), P(0))
    with Bench(a, violations=["V-17w"]) as bench:
        bench.receive(b"1", b"2", b"held")
        assert a.inject_pended() == SUCCESS
        assert a.inject_pended() == SUCCESS
        assert a.inject_bytes(RECEIVE, b"3") == SUCCESS
        bench.settle()
        assert bench.to_local == (b"123", False)
        assert a.resume() == SUCCESS
        bench.settle()
        assert bench.to_local == (b"123held", False)
        assert len(bench.completions) == 3


def test_oob_4_output_order_is_call_order() -> None:
    """OOB-4: whatever the order in which the bytes were pended."""
    a = Script(then=B(0, clone))
    with Bench(a) as bench:
        bench.send(*(bytes([letter]) for letter in b"abcd"))
        for index in (2, 0, 1, 0):
            assert a.inject_pended(index) == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"cadb", False)
        assert len(bench.completions) == 4


@pytest.mark.parametrize("occasion", ["deferred", "fin pended", "blocked", "nothing yet", "permitted"])
def test_oob_5_legal_occasions(occasion: str) -> None:
    """OOB-5: (a), (b), (c) twice, and what is none of them: V-21; the injection is performed."""
    first: dict[str, Classify] = {
        "deferred": once(permit, answering(NONE, stream_action=DEFER)),
        "fin pended": once(permit, block),
        "blocked": once(permit, block),
    }
    w = World(first.get(occasion, permit))
    if occasion != "nothing yet":
        w.receive(b"1")
    if occasion in ("deferred", "blocked"):
        w.receive(b"2")
    elif occasion == "fin pended":
        w.receive_fin()
    assert w.inject_bytes(RECEIVE, b"x") == SUCCESS
    w.settle()
    assert w.to_local == (b"x" if occasion == "nothing yet" else b"1x")
    assert [rule for rule, _ in w.caught] == (["V-21"] if occasion == "permitted" else [])


@pytest.mark.parametrize("with_list", [True, False])
def test_oob_6_fin_injected_after_the_data(with_list: bool) -> None:
    """OOB-6: with the cloned empty list one completion, with NULL none."""
    a = Script(then=B(0, clone))
    with Bench(a) as bench:
        bench.send(b"x")
        bench.send_fin()
        assert a.inject_pended() == SUCCESS
        if with_list:
            assert a.inject_pended() == SUCCESS
        else:
            a.discard_pended()
            assert a.inject_null_fin(SEND_FIN) == SUCCESS
        bench.settle()
        assert bench.to_remote == (b"x", True)
        assert bench.completions == ["cmp('x', SUCCESS)"] + ["cmp(FIN, SUCCESS)"] * with_list


@pytest.mark.parametrize(("flags", "send"), [(SEND_FIN, True), (RECEIVE_FIN, False)])
def test_oob_7_fin_where_none_was_pended(flags: int, send: bool) -> None:
    """OOB-7: performed; later original bytes are indicated as usual, but what is permitted is discarded."""
    w = World(permit)
    assert w.inject(flags, None) == SUCCESS
    w.settle()
    (w.send if send else w.receive)(b"late")
    assert w.fins() == (send, not send)
    assert (w.to_remote, w.to_local) == (b"", b"")
    assert [event["len"] for event in w.events("indicate")] == [4]
    ledger = w.flow.ledger(0 if send else 1)
    assert (ledger.read, ledger.written, ledger.discarded) == (4, 0, 4)
    w.close()
    assert w.severities == [("V-19", "E" if send else "L")]


def test_oob_8_permitted_fin_overtakes() -> None:
    """OOB-8: later injections fail with STATUS_CONNECTION_DISCONNECTED; V-17."""
    worlds: list[World] = []
    worlds.append(w := World(keeping("clone", worlds)))
    w.send(b"a")
    w.send_fin()
    assert (w.to_remote, w.fins()) == (b"", (True, False))
    assert w.inject(SEND, w.kept[0]) == NtStatus.STATUS_CONNECTION_DISCONNECTED
    w.discard()
    assert [rule for rule, _ in w.close()] == ["V-17"]


def test_oob_9_injections_are_applied_in_call_order() -> None:
    """OOB-9: those of one direction, and independently those of the other."""
    w = World(block)
    dice = random.Random(9)
    expected: dict[int, bytes] = {SEND: b"", RECEIVE: b""}
    for letter in b"abcdefghij":
        flags = dice.choice((SEND, RECEIVE))
        expected[flags] += bytes([letter])
        assert w.inject_bytes(flags, bytes([letter])) == SUCCESS
    w.settle()
    assert (w.to_remote, w.to_local) == (expected[SEND], expected[RECEIVE])
    assert w.close() == []


def test_oob_10_pass_through_is_inline_and_works_for_a_fin() -> None:
    """OOB-10: clone, inject, BLOCK inside one classify; the indicated DISCONNECT flag is reused."""

    def pass_through(*call: Any) -> None:
        w.keep_clone(call[2])
        assert w.inject_kept(call[2].stream_data.flags) == SUCCESS
        call[-1].action_type = BLOCK

    w = World(pass_through)
    w.send(b"abc")
    w.send_fin()
    assert (w.to_remote, w.fins()) == (b"abc", (True, False))
    assert w.close() == []


def test_oob_11_need_more_data_and_defer_pend_nothing() -> None:
    """OOB-11: an out-of-band callout may use them; PERMIT of what they held is no switch by itself."""
    for action in (NEED_MORE_DATA, DEFER):
        w = World(once(answering(NONE, stream_action=action)))
        w.receive(b"a")
        if action == NEED_MORE_DATA:
            w.receive(b"b")
        else:
            assert w.fwps.stream_continue(w.flow.id, w.callout_id, STREAM, RECEIVE_PUSH) == SUCCESS
            w.settle()
        assert w.to_local == (b"ab" if action == NEED_MORE_DATA else b"a")
        assert w.close() == []


def test_oob_11_between_pended_indications() -> None:
    """OOB-11: while bytes are pended the callout may wait for more, then goes on blocking."""
    a = Script(B(0, clone), DEF(), B(0, clone))
    with Bench(a) as bench:
        bench.receive(b"1", b"2")
        assert a.inject_pended() == SUCCESS
        assert a.resume() == SUCCESS
        bench.settle()
        assert a.inject_pended() == SUCCESS
        bench.settle()
        assert bench.to_local == (b"12", False)
        assert len(bench.completions) == 2


def test_oob_12_lower_stages_see_the_injections() -> None:
    """OOB-12: when they happen; missedBytes counts the pended original bytes, which lie before them (ARB-11)."""
    a, b = Script(B(0, clone), B(0, clone), P(0), name="A"), Script(name="B")
    with Bench(a, b, violations=["V-17w"]) as bench:
        bench.send(b"abc", b"de")
        assert bench.calls_of("B") == []
        assert a.inject_pended() == SUCCESS
        assert a.inject_pended() == SUCCESS
        bench.send(b"f")
        assert bench.calls_of("B") == ["B(S3 'abc' m5)", "B(S2 'de')", "B(S1 'f')"]
        assert bench.to_remote == (b"abcdef", False)
        assert len(bench.completions) == 2


def test_oob_13_copies_count_as_nothing() -> None:
    """OOB-13: OOB-2, OOB-3 and MGMT-14 do not apply to a copy; a blocked FIN counts all the same."""
    worlds: list[World] = []
    worlds.append(w := World(keeping("copy", worlds)))
    w.send(b"a")
    w.send(b"b")
    assert w.to_remote == b"b"
    assert w.close() == []
    w = World(block)
    w.send_fin()
    assert w.driver.session.filter_delete_by_id(w.added.filter_ids[0]) == IN_USE
