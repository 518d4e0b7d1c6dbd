"""SC-30 to SC-40: NEED_MORE_DATA, its limit, and what ends the waiting."""

from __future__ import annotations

import pytest

from tests.scenarios.editors import StyleN
from tests.scenarios.support import NMD, Answer, B, Bench, C, Call, P, Recording, Script, bytewise
from wfpstream.engine import EngineOptions

LIMIT = 8_388_608
READ = 65_536


def test_sc_30_waits_for_the_total() -> None:
    with Bench(Script(NMD(6), P(0))) as bench:
        bench.send(b"ab")
        bench.send(b"cde")
        assert bench.calls == ["A(S2 'ab')"]
        assert bench.to_remote == (b"", False)
        bench.send(b"f")
        assert bench.calls == ["A(S2 'ab')", "A(S6 'abcdef')"]
        assert bench.to_remote == (b"abcdef", False)


def test_sc_30_waits_for_the_total_byte_by_byte() -> None:
    with Bench(Script(NMD(6), P(0))) as bench:
        bench.send(*bytewise(b"abcde"))
        assert bench.calls == ["A(S1 'a')"]
        assert bench.to_remote == (b"", False)
        bench.send(b"f")
        assert bench.calls == ["A(S1 'a')", "A(S6 'abcdef')"]
        assert bench.to_remote == (b"abcdef", False)


def test_sc_31_total_mode() -> None:
    with Bench(Script(NMD(4), P(0))) as bench:
        bench.send(b"ab", b"cd")
        assert bench.calls == ["A(S2 'ab')", "A(S4 'abcd')"]
        assert bench.to_remote == (b"abcd", False)


def test_sc_31_additional_mode() -> None:
    options = EngineOptions()
    options.need_more_mode = "additional"
    with Bench(Script(NMD(4), P(0)), options=options) as bench:
        bench.send(b"ab", b"cd", b"e")
        assert bench.calls == ["A(S2 'ab')"]
        assert bench.to_remote == (b"", False)
        bench.send(b"f")
        assert bench.calls == ["A(S2 'ab')", "A(S6 'abcdef')"]
        assert bench.to_remote == (b"abcdef", False)


def test_sc_32_zero_means_one_more_byte() -> None:
    with Bench(Script(NMD(0), P(0))) as bench:
        bench.send(b"a")
        assert bench.calls == ["A(S1 'a')"]
        bench.send(b"b")
        assert bench.calls == ["A(S1 'a')", "A(S2 'ab')"]
        assert bench.to_remote == (b"ab", False)


def test_sc_33_less_than_held_waits_for_progress() -> None:
    with Bench(Script(NMD(2), P(0))) as bench:
        bench.send(b"abcd")
        assert bench.calls == ["A(S4 'abcd')"]
        assert bench.to_remote == (b"", False)
        bench.send(b"e")
        assert bench.calls == ["A(S4 'abcd')", "A(S5 'abcde')"]
        assert bench.to_remote == (b"abcde", False)


def test_sc_34_the_other_direction_goes_on() -> None:
    with Bench(Script(NMD(5), P(0))) as bench:
        bench.send(b"a")
        bench.receive(b"r")
        assert bench.calls == ["A(S1 'a')", "A(R1 'r')"]
        assert bench.to_local == (b"r", False)
        assert bench.to_remote == (b"", False)


class UntilLimit(Recording):
    """Asks for more until the limit is reached, then permits all."""

    def __init__(self, asked: int) -> None:
        super().__init__("A")
        self.asked = asked
        self.before = b""
        self.continued = True

    def decide(self, call: Call) -> Answer:
        # NMD-2: the bytes shown before are the beginning of what is shown now.
        self.continued = self.continued and call.data.startswith(self.before)
        if call.limit_reached or len(call.data) == 10:
            self.before = b""
            return P(0)
        self.before = call.data
        return NMD(self.asked)


@pytest.mark.parametrize(
    ("asked", "calls", "violations"),
    [
        (0, [f"A(S{READ * i})" for i in range(1, 128)], []),
        (2**32 - 1, [f"A(S{READ})"], ["V-12"]),
    ],
)
def test_sc_35_accumulation_limit(asked: int, calls: list[str], violations: list[str]) -> None:
    reads = [bytes([i]) * READ for i in range(128)]
    a = UntilLimit(asked)
    with Bench(a, violations=violations) as bench:
        bench.send(*reads[:-1])
        assert bench.calls == calls
        assert bench.to_remote == (b"", False)
        bench.send(reads[-1])
        assert bench.calls == [*calls, f"A(S{LIMIT} +L)"]
        assert len(bench.flow.remote.data) == LIMIT
        bench.send(b"0123456789")
        assert bench.calls == [*calls, f"A(S{LIMIT} +L)", "A(S10 '0123456789')"]
        assert a.continued
        assert bench.to_remote == (b"".join(reads) + b"0123456789", False)


def fill_to_the_limit(bench: Bench) -> None:
    bench.send(*[b"x" * READ] * 128)
    assert bench.calls == [f"A(S{READ})", f"A(S{LIMIT} +L)"]


def test_sc_36_need_more_at_the_limit_drops() -> None:
    with Bench(Script(NMD(LIMIT), then=NMD(0)), violations=["V-2"]) as bench:
        fill_to_the_limit(bench)
        assert bench.to_remote == (b"", False)
        assert bench.resets == (True, True)
        assert bench.flow.ended


def test_sc_37_block_at_the_limit() -> None:
    with Bench(Script(NMD(LIMIT), B(0), P(0))) as bench:
        fill_to_the_limit(bench)
        assert bench.to_remote == (b"", False)
        bench.send(b"on")
        bench.receive(b"back")
        assert bench.calls[2:] == ["A(S2 'on')", "A(R4 'back')"]
        assert bench.to_remote == (b"on", False)
        assert bench.to_local == (b"back", False)
        assert bench.resets == (False, False)


def test_sc_38_need_more_after_no_more_data_drops() -> None:
    with Bench(Script(NMD(6), NMD(6)), violations=["V-5"], context=1) as bench:
        bench.send(b"ab")
        bench.send_fin()
        assert bench.log == ["A(S2 'ab')", "A(S2 'ab' +N)", "flowDelete(A)"]
        assert bench.to_remote == (b"", False)
        assert bench.resets == (True, True)


def test_sc_38_need_more_after_no_more_data_under_inspection() -> None:
    a = Script(NMD(6), NMD(6), C(0), action="callout_inspection")
    with Bench(a, violations=["V-5"]) as bench:
        bench.send(b"ab")
        bench.send_fin()
        assert bench.calls == ["A(S2 'ab')", "A(S2 'ab' +N)", "A(S FIN +N)"]
        assert bench.to_remote == (b"ab", True)
        assert bench.resets == (False, False)


def test_sc_39_reset_while_waiting() -> None:
    with Bench(Script(NMD(6)), context=1) as bench:
        bench.receive(b"ab")
        bench.reset("remote")
        assert bench.log == ["A(R2 'ab')", "A(R ABORT +N)", "flowDelete(A)"]
        assert bench.to_local == (b"", False)
        assert bench.flow.local.reset
        assert bench.flow.ended


def test_sc_40_need_more_in_the_lower_stage() -> None:
    b = StyleN(b"cloudy", b"sunny", name="B")
    with Bench(Script(name="A"), b) as bench:
        bench.send(b"cl", b"oudy")
        assert bench.calls == ["A(S2 'cl')", "B(S2 'cl')", "A(S4 'oudy')", "B(S6 'cloudy')"]
        assert bench.to_remote == (b"sunny", False)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]
