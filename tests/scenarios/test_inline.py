"""SC-15 to SC-29: inline editing inside the classify, by waiting (style N) and by copying (style K)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.scenarios.editors import Editor, StyleK, StyleN
from tests.scenarios.support import B, Bench, P, Script, bytewise, cut_at, cuttings, inj
from wfpstream.engine import EngineOptions

TEXT = b"AB cloudy CD"

BOTH_STYLES = pytest.mark.parametrize("style", [StyleN, StyleK])
Style = Callable[[bytes, bytes], Editor]

# The calls of SC-16 for a cut before offset k; SC-17 differs where the cut is inside the match.
CALLS_N = {
    1: ["A(S1 'A')", "A(S11 'B cloudy CD')", "A(S9 'cloudy CD')", "A(S3 ' CD')"],
    2: ["A(S2 'AB')", "A(S10 ' cloudy CD')", "A(S9 'cloudy CD')", "A(S3 ' CD')"],
    3: ["A(S3 'AB ')", "A(S9 'cloudy CD')", "A(S3 ' CD')"],
    4: ["A(S4 'AB c')", "A(S1 'c')", "A(S9 'cloudy CD')", "A(S3 ' CD')"],
    5: ["A(S5 'AB cl')", "A(S2 'cl')", "A(S9 'cloudy CD')", "A(S3 ' CD')"],
    6: ["A(S6 'AB clo')", "A(S3 'clo')", "A(S9 'cloudy CD')", "A(S3 ' CD')"],
    7: ["A(S7 'AB clou')", "A(S4 'clou')", "A(S9 'cloudy CD')", "A(S3 ' CD')"],
    8: ["A(S8 'AB cloud')", "A(S5 'cloud')", "A(S9 'cloudy CD')", "A(S3 ' CD')"],
    9: ["A(S9 'AB cloudy')", "A(S6 'cloudy')", "A(S3 ' CD')"],
    10: ["A(S10 'AB cloudy ')", "A(S7 'cloudy ')", "A(S1 ' ')", "A(S2 'CD')"],
    11: ["A(S11 'AB cloudy C')", "A(S8 'cloudy C')", "A(S2 ' C')", "A(S1 'D')"],
}
CALLS_K = CALLS_N | {
    4: ["A(S4 'AB c')", "A(S1 'c')", "A(S8 'loudy CD')", "A(S3 ' CD')"],
    5: ["A(S5 'AB cl')", "A(S2 'cl')", "A(S7 'oudy CD')", "A(S3 ' CD')"],
    6: ["A(S6 'AB clo')", "A(S3 'clo')", "A(S6 'udy CD')", "A(S3 ' CD')"],
    7: ["A(S7 'AB clou')", "A(S4 'clou')", "A(S5 'dy CD')", "A(S3 ' CD')"],
    8: ["A(S8 'AB cloud')", "A(S5 'cloud')", "A(S4 'y CD')", "A(S3 ' CD')"],
}


@BOTH_STYLES
def test_sc_15_one_segment(style: Style) -> None:
    with Bench(style(b"cloudy", b"sunny")) as bench:
        bench.send(TEXT)
        assert bench.calls == ["A(S12 'AB cloudy CD')", "A(S9 'cloudy CD')", "A(S3 ' CD')"]
        assert bench.to_remote == (b"AB sunny CD", False)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


@pytest.mark.parametrize("k", range(1, 12))
def test_sc_16_split_style_n(k: int) -> None:
    with Bench(StyleN(b"cloudy", b"sunny")) as bench:
        bench.send(*cut_at(TEXT, k))
        assert bench.calls == CALLS_N[k]
        assert bench.to_remote == (b"AB sunny CD", False)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


@pytest.mark.parametrize("k", range(1, 12))
def test_sc_17_split_style_k(k: int) -> None:
    with Bench(StyleK(b"cloudy", b"sunny")) as bench:
        bench.send(*cut_at(TEXT, k))
        assert bench.calls == CALLS_K[k]
        assert bench.to_remote == (b"AB sunny CD", False)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


def test_sc_18_false_partial_style_k() -> None:
    with Bench(StyleK(b"cloudy", b"sunny")) as bench:
        bench.send(b"AB cl", b"ear")
        assert bench.calls == ["A(S5 'AB cl')", "A(S2 'cl')", "A(S3 'ear')"]
        assert bench.to_remote == (b"AB clear", False)
        assert bench.completions == ["cmp('cl', SUCCESS)"]


def test_sc_19_one_byte_per_segment() -> None:
    with Bench(StyleN(b"cloudy", b"sunny")) as bench:
        bench.send(*bytewise(TEXT))
        # NMD-3: it asks for 6 at the "c", and is not called before they are there.
        assert bench.calls == [
            "A(S1 'A')", "A(S1 'B')", "A(S1 ' ')", "A(S1 'c')", "A(S6 'cloudy')",
            "A(S1 ' ')", "A(S1 'C')", "A(S1 'D')",
        ]  # fmt: skip
        assert bench.to_remote == (b"AB sunny CD", False)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


def test_sc_19_one_byte_per_segment_asking_for_any_more() -> None:
    with Bench(StyleN(b"cloudy", b"sunny", asks=0)) as bench:
        bench.send(*bytewise(TEXT))
        assert bench.calls == [
            "A(S1 'A')", "A(S1 'B')", "A(S1 ' ')", "A(S1 'c')", "A(S2 'cl')", "A(S3 'clo')", "A(S4 'clou')",
            "A(S5 'cloud')", "A(S6 'cloudy')", "A(S1 ' ')", "A(S1 'C')", "A(S1 'D')",
        ]  # fmt: skip
        assert bench.to_remote == (b"AB sunny CD", False)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


@BOTH_STYLES
def test_sc_20_two_adjacent_matches(style: Style) -> None:
    with Bench(style(b"cloudy", b"sunny")) as bench:
        bench.send(b"cloudycloudy")
        assert bench.calls == ["A(S12 'cloudycloudy')", "A(S6 'cloudy')"]
        assert bench.to_remote == (b"sunnysunny", False)
        assert bench.completions == ["cmp('sunny', SUCCESS)", "cmp('sunny', SUCCESS)"]


@BOTH_STYLES
def test_sc_21_match_at_the_end(style: Style) -> None:
    with Bench(style(b"cloudy", b"sunny")) as bench:
        bench.send(b"x cloudy")
        assert bench.calls == ["A(S8 'x cloudy')", "A(S6 'cloudy')"]
        assert bench.to_remote == (b"x sunny", False)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


@BOTH_STYLES
def test_sc_22_removal(style: Style) -> None:
    with Bench(style(b"--", b"")) as bench:
        bench.send(b"a--b")
        assert bench.calls == ["A(S4 'a--b')", "A(S3 '--b')", "A(S1 'b')"]
        assert bench.to_remote == (b"ab", False)
        assert bench.completions == []


@BOTH_STYLES
@pytest.mark.parametrize("pieces", cuttings(b"a--b"), ids=len)
def test_sc_22_removal_at_any_cuts(style: Style, pieces: list[bytes]) -> None:
    with Bench(style(b"--", b"")) as bench:
        bench.send(*pieces)
        assert bench.to_remote == (b"ab", False)
        assert bench.completions == []


def test_sc_23_insertion_before() -> None:
    with Bench(Script(P(0, inj(b"hdr:")))) as bench:
        bench.send(b"body")
        assert bench.calls == ["A(S4 'body')"]
        assert bench.to_remote == (b"hdr:body", False)
        assert bench.completions == ["cmp('hdr:', SUCCESS)"]


def test_sc_24_two_injections_in_one_call() -> None:
    with Bench(Script(B(0, inj(b"1"), inj(b"2")))) as bench:
        bench.send(b"x")
        assert bench.calls == ["A(S1 'x')"]
        assert bench.to_remote == (b"12", False)
        assert bench.completions == ["cmp('1', SUCCESS)", "cmp('2', SUCCESS)"]


@BOTH_STYLES
def test_sc_25_longer_replacement_in_both_directions(style: Style) -> None:
    with Bench(style(b"cloudy", b"thunderstorm")) as bench:
        bench.flow.send(b"AB cloudy CD")
        bench.flow.receive(b"12 cloudy 34")
        bench.settle()
        assert bench.calls == [
            "A(S12 'AB cloudy CD')", "A(S9 'cloudy CD')", "A(S3 ' CD')",
            "A(R12 '12 cloudy 34')", "A(R9 'cloudy 34')", "A(R3 ' 34')",
        ]  # fmt: skip
        assert bench.to_remote == (b"AB thunderstorm CD", False)
        assert bench.to_local == (b"12 thunderstorm 34", False)
        assert bench.completions == ["cmp('thunderstorm', SUCCESS)"] * 2


@BOTH_STYLES
def test_sc_25_no_cross_talk_when_both_are_split_inside_the_match(style: Style) -> None:
    with Bench(style(b"cloudy", b"thunderstorm")) as bench:
        bench.send(b"AB cl")
        bench.receive(b"12 clou")
        bench.send(b"oudy CD")
        bench.receive(b"dy 34")
        assert bench.to_remote == (b"AB thunderstorm CD", False)
        assert bench.to_local == (b"12 thunderstorm 34", False)
        assert bench.completions == ["cmp('thunderstorm', SUCCESS)"] * 2


def test_sc_26_partial_at_fin_style_n() -> None:
    with Bench(StyleN(b"cloudy", b"sunny")) as bench:
        bench.send(b"xx clo")
        assert bench.to_remote == (b"xx ", False)
        bench.send_fin()
        assert bench.calls == ["A(S6 'xx clo')", "A(S3 'clo')", "A(S3 'clo' +N)", "A(S FIN +N)"]
        assert bench.to_remote == (b"xx clo", True)
        assert bench.completions == []


def test_sc_27_partial_at_fin_style_k() -> None:
    with Bench(StyleK(b"cloudy", b"sunny")) as bench:
        bench.send(b"xx clo")
        assert bench.to_remote == (b"xx ", False)
        bench.send_fin()
        assert bench.calls == ["A(S6 'xx clo')", "A(S3 'clo')", "A(S FIN +N)"]
        assert bench.to_remote == (b"xx clo", True)
        assert bench.completions == ["cmp('clo', SUCCESS)"]


def test_sc_28_append_at_fin() -> None:
    with Bench(Script(P(0), P(0, inj(b"!")))) as bench:
        bench.send(b"abc")
        bench.send_fin()
        assert bench.calls == ["A(S3 'abc')", "A(S FIN +N)"]
        assert bench.to_remote == (b"abc!", True)
        assert bench.completions == ["cmp('!', SUCCESS)"]


def test_sc_29_permitting_nothing_permits_everything() -> None:
    with Bench(Script(P(0))) as bench:
        bench.send(b"cloudyZZ")
        assert bench.calls == ["A(S8 'cloudyZZ')"]
        assert bench.to_remote == (b"cloudyZZ", False)


@pytest.mark.parametrize(("hints", "violations"), [(False, []), (True, ["V-9"])])
def test_sc_29_permitting_nothing_beside_an_injection(hints: bool, violations: list[str]) -> None:
    options = EngineOptions()
    options.verify.hints = hints
    with Bench(Script(P(0, inj(b"sunny"))), options=options, violations=violations) as bench:
        bench.send(b"cloudyZZ")
        assert bench.calls == ["A(S8 'cloudyZZ')"]
        assert bench.to_remote == (b"sunnycloudyZZ", False)
        assert bench.completions == ["cmp('sunny', SUCCESS)"]


MIXED = b"cloucloudy ccloudyclouds cloudycloudycl"


@BOTH_STYLES
@pytest.mark.parametrize("pieces", cuttings(MIXED, runs=40), ids=len)
def test_sc_16_and_17_agree_at_any_cuts(style: Style, pieces: list[bytes]) -> None:
    with Bench(style(b"cloudy", b"sunny")) as bench:
        bench.send(*pieces)
        bench.send_fin()
        assert bench.to_remote == (b"clousunny csunnyclouds sunnysunnycl", True)
        assert bench.completions.count("cmp('sunny', SUCCESS)") == 4


OVERLAPPING = b"aabaabaaab-aab"


@BOTH_STYLES
@pytest.mark.parametrize("pieces", cuttings(OVERLAPPING, runs=40), ids=len)
def test_sc_18_false_partials_that_overlap_the_next_match(style: Style, pieces: list[bytes]) -> None:
    with Bench(style(b"aabaaa", b"X")) as bench:
        bench.receive(*pieces)
        bench.receive_fin()
        assert bench.to_local == (b"aabXb-aab", True)
        assert bench.completions.count("cmp('X', SUCCESS)") == 1
