"""Inline editing (INL-*): where an injection inside a classify lands, and edits across segment borders.

Owns position and independence of inline injections. Completions and refusals are tested with the injection.
"""

from __future__ import annotations

import pytest

from tests.scenarios.support import (
    NMD,
    RECEIVE_FIN,
    SEND,
    SEND_FIN,
    Answer,
    B,
    Bench,
    C,
    Call,
    Hook,
    P,
    Recording,
    Script,
    cuttings,
    inj,
)
from tests.scenarios.support_api import events
from wfpstream.engine import EngineOptions
from wfpstream.fwp import NtStatus
from wfpstream.fwps import StreamFlags

SUCCESS = NtStatus.STATUS_SUCCESS


def test_inl_1_replace_in_the_middle() -> None:
    """INL-1: n+p+m becomes n p' m with three classifies."""
    a = Script(P(3), B(6, inj(b"sunny")), P(3))
    with Bench(a) as bench:
        bench.send(b"AB cloudy CD")
        assert bench.calls == ["A(S12 'AB cloudy CD')", "A(S9 'cloudy CD')", "A(S3 ' CD')"]
        assert bench.completions == ["cmp('sunny', SUCCESS)"]
        assert bench.to_remote == (b"AB sunny CD", False)


@pytest.mark.parametrize(
    ("answer", "rest", "to_remote"),
    [
        (B(0, inj(b"1"), inj(b"2")), [], b"x12"),
        (P(0, inj(b"1"), inj(b"2")), [], b"x12abc"),
        (B(1, inj(b"1"), inj(b"2")), [P(0)], b"x12bc"),
        (P(1, inj(b"1")), [P(0, inj(b"2"))], b"x1a2bc"),
    ],
    ids=["replace", "insert", "replace a prefix", "insert twice"],
)
def test_inl_2_before_the_first_indicated_byte_in_call_order(
    answer: Answer, rest: list[Answer], to_remote: bytes
) -> None:
    """INL-2: after everything released or injected earlier; inject + BLOCK replaces, inject + PERMIT inserts."""
    with Bench(Script(P(0), answer, *rest)) as bench:
        bench.send(b"x", b"abc")
        assert bench.completions == ["cmp('1', SUCCESS)", "cmp('2', SUCCESS)"]
        assert bench.to_remote == (to_remote, False)


@pytest.mark.parametrize("inbound", [False, True])
def test_inl_2_immediately_before_the_fin(inbound: bool) -> None:
    """INL-2: for a FIN: immediately before it."""
    with Bench(Script(P(0), P(0, inj(b"trailer")))) as bench:
        (bench.flow.receive if inbound else bench.flow.send)(b"body ", fin=True)
        bench.settle()
        assert bench.completions == ["cmp('trailer', SUCCESS)"]
        assert (bench.to_local if inbound else bench.to_remote) == (b"body trailer", True)


def test_inl_2_behind_what_an_outside_injection_left() -> None:
    """INL-2: an injection made outside earlier stays in front of the inline one."""
    a = Script(B(0, inj(b"2")))
    with Bench(a) as bench:
        assert a.inject_bytes(SEND, b"1") == SUCCESS
        bench.settle()
        bench.send(b"x")
        assert bench.completions == ["cmp('1', SUCCESS)", "cmp('2', SUCCESS)"]
        assert bench.to_remote == (b"12", False)


def broken(call: Call) -> None:
    """Inject, then fail."""
    inj(b"!")(call)
    call.packet.stream_action = 77


@pytest.mark.parametrize(
    ("answer", "later", "to_remote"),
    [
        (P(0, inj(b"!")), [], b"!abc"),
        (B(0, inj(b"!")), [], b"!"),
        (C(2, inj(b"!")), [], b"!abc"),
        (NMD(5, inj(b"!")), [b"de"], b"!abcde"),
    ],
    ids=["permit", "block", "continue", "need more data"],
)
def test_inl_3_action_and_injection_are_independent(
    answer: Answer, later: list[bytes], to_remote: bytes
) -> None:
    """INL-3: whatever is returned, the injected bytes stay."""
    with Bench(Script(answer)) as bench:
        bench.send(b"abc")
        assert bench.completions == ["cmp('!', SUCCESS)"]
        assert bytes(bench.flow.remote.data)[:1] == b"!"
        bench.send(*later)
        assert bench.to_remote == (to_remote, False)


def test_inl_3_beside_an_illegal_action_that_is_permitted() -> None:
    """INL-3: also when the answer itself meets a policy."""
    options = EngineOptions()
    options.policy.on_callout_error = "permit"
    with Bench(Script(Answer(None, hooks=(broken,))), options=options, violations=["ACT-13"]) as bench:
        bench.send(b"abc")
        assert [event["value"] for event in events(bench.driver, "policy")] == ["permit"]
        assert bench.completions == ["cmp('!', SUCCESS)"]
        assert bench.to_remote == (b"!abc", False)


# --- a pattern across indications -----------------------------------------------------------------

PATTERN, SUBSTITUTE = b"cloudy", b"sunny"


def partial(data: bytes) -> int:
    """How many bytes at the end could begin the pattern."""
    return next((n for n in range(min(len(data), 5), 0, -1) if PATTERN.startswith(data[-n:])), 0)


class Waiting(Recording):
    """INL-4, first way: NEED_MORE_DATA while the pattern may still come."""

    def decide(self, call: Call) -> Answer:
        if call.fin or call.abort:
            return P(0)
        at = call.data.find(PATTERN)
        if at == 0:
            return B(len(PATTERN), inj(SUBSTITUTE))
        if at > 0:
            return P(at)
        held = 0 if call.no_more_data else partial(call.data)
        if held and held == len(call.data):
            return NMD(held + 1)
        return P(len(call.data) - held)


class Buffering(Recording):
    """INL-4, second way: block the partial match, keep a private copy, inject or drop it later."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = b""

    def decide(self, call: Call) -> Answer:
        if call.abort:
            return P(0)
        if call.fin:
            return P(0, *self.flush())
        if self.kept:
            both = self.kept + call.data
            if both.startswith(PATTERN):
                taken = len(PATTERN) - len(self.kept)
                self.kept = b""
                return B(taken, inj(SUBSTITUTE))
            if PATTERN.startswith(both):
                self.kept = both
                return B(0)
            return self.release(both, len(call.data))
        at = call.data.find(PATTERN)
        if at == 0:
            return B(len(PATTERN), inj(SUBSTITUTE))
        if at > 0:
            return P(at)
        held = partial(call.data)
        if held == len(call.data):
            self.kept = call.data
            return B(0)
        return P(len(call.data) - held)

    def flush(self) -> tuple[Hook, ...]:
        kept, self.kept = self.kept, b""
        return (inj(kept),) if kept else ()

    def release(self, both: bytes, shown: int) -> Answer:
        """The copy was no match: it goes out as far as it cannot begin one; the shown bytes are looked at again."""
        out = next(
            n
            for n in range(1, len(both) + 1)
            if PATTERN.startswith(both[n : n + len(PATTERN)]) or n == len(both)
        )
        if out < len(self.kept):
            gone, self.kept = self.kept[:out], self.kept[out:]
            hooks = (inj(gone),)
            again = self.kept + both[len(both) - shown :]
            if again.startswith(PATTERN):
                taken = len(PATTERN) - len(self.kept)
                self.kept = b""
                return B(taken, *hooks, inj(SUBSTITUTE))
            self.kept = again
            return B(0, *hooks)
        gone, self.kept = self.kept, b""
        prefix = out - len(gone)
        if prefix:
            return P(prefix, inj(gone))
        at = both[len(gone) :].find(PATTERN)
        if at == 0:
            return B(len(PATTERN), inj(gone), inj(SUBSTITUTE))
        self.kept = both[len(gone) :]
        return B(0, inj(gone))


TEXT = b"AB cloudy CD clocloudy cl cloudcloudyy clo"
EDITED = b"AB sunny CD closunny cl cloudsunnyy clo"


@pytest.mark.parametrize("pieces", cuttings(TEXT))
@pytest.mark.parametrize("editor", [Waiting, Buffering])
def test_inl_4_both_ways_give_identical_output(editor: type[Recording], pieces: list[bytes]) -> None:
    """INL-4, INL-5: the same output whatever the cutting, and the copy is injected before the FIN."""
    with Bench(editor()) as bench:
        bench.send(*pieces)
        bench.send_fin()
        assert len(bench.completions) >= 3
        assert bench.to_remote == (EDITED, True)


# --- removal, flags -------------------------------------------------------------------------------


def test_inl_5_a_private_copy_not_injected_at_the_fin_is_lost() -> None:
    """INL-5: what was blocked and kept must be injected before the FIN is permitted."""
    with Bench(Script(B(0), P(0))) as bench:
        bench.send(b"clo")
        bench.send_fin()
        assert bench.to_remote == (b"", True)


def test_inl_6_removal_and_insertion() -> None:
    """INL-6: BLOCK without injection removes; inject, then PERMIT, inserts."""
    with Bench(Script(P(2), B(2), P(0), P(0, inj(b"+")))) as bench:
        bench.send(b"abCDef", b"gh")
        assert bench.completions == ["cmp('+', SUCCESS)"]
        assert bench.to_remote == (b"abef+gh", False)


@pytest.mark.parametrize(
    ("inbound", "flags"), [(False, SEND_FIN), (True, RECEIVE_FIN)], ids=["send", "receive"]
)
def test_inl_7_the_fin_flag_is_masked_off_for_data(inbound: bool, flags: int) -> None:
    """INL-7: data with the direction's flags and without DISCONNECT; the permitted FIN follows it."""
    seen: list[int] = []

    def note(call: Call) -> None:
        seen.append(call.flags)

    a, b = Script(P(0, inj(b"end"))), Script(P(0, note), P(0, note), name="B")
    with Bench(a, b) as bench:
        bench.receive_fin() if inbound else bench.send_fin()
        direction = int(StreamFlags.RECEIVE) if inbound else SEND
        assert seen == [direction, flags]
        assert bench.completions == ["cmp('end', SUCCESS)"]
        assert (bench.to_local if inbound else bench.to_remote) == (b"end", True)


def test_inl_7_a_disconnect_bit_left_on_data_is_told() -> None:
    """INL-7: copied DISCONNECT bits on a data injection outside the FIN: V-50 beside V-19."""
    a = Script(P(0, inj(b"end", SEND_FIN)))
    with Bench(a, violations=["V-19", "V-50"]) as bench:
        bench.receive(b"x")
        assert bench.completions == ["cmp('end', SUCCESS)"]
        assert bench.to_remote == (b"end", True)
        assert bench.to_local == (b"x", False)
