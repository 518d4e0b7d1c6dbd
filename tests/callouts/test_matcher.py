"""The matcher: which matches a stream has, and which tail may begin one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wfpstream.callouts._matcher import Matcher

patterns = st.text("ab", min_size=1, max_size=6).map(str.encode)
texts = st.text("abc", max_size=40).map(str.encode)


def longest_tail(pattern: bytes, data: bytes) -> int:
    """The definition, spelled out."""
    lengths = range(min(len(pattern) - 1, len(data)), 0, -1)
    return next((n for n in lengths if data.endswith(pattern[:n])), 0)


def test_an_empty_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        Matcher(b"")


def test_matches_do_not_overlap_and_the_leftmost_wins() -> None:
    assert Matcher(b"aa").find_all(b"aaaaa") == [0, 2]
    assert Matcher(b"aba").find_all(b"ababa-aba") == [0, 6]


@given(st.binary(min_size=1, max_size=3), st.lists(st.binary(max_size=4), max_size=60))
@example(b"ab", [b"b"] * 30 + [b"ab"])
@example(b"Qa", [b"Q"] * 30 + [b"Qa"])
@example(b"aQ", [b"Q"] * 9)
def test_the_matches_are_those_of_replace_however_common_the_rarest_byte(
    pattern: bytes, pieces: list[bytes]
) -> None:
    data = pattern.join(pieces)
    found = Matcher(pattern).find_all(data)
    assert Matcher(pattern).find(data) == data.find(pattern)
    assert all(data.startswith(pattern, at) for at in found)
    assert len(found) == data.count(pattern)


def test_no_more_matches_are_found_than_asked_for() -> None:
    assert Matcher(b"a").find_all(b"aaaa", 2) == [0, 1]
    assert Matcher(b"a").find_all(b"aaaa", 0) == []


@given(patterns, texts)
@example(b"aabaaa", b"aabaa")
@example(b"b", b"ab")
def test_tail_is_the_longest_suffix_that_begins_the_pattern(pattern: bytes, text: bytes) -> None:
    data = text[text.rfind(pattern) + 1 :] if pattern in text else text
    assert Matcher(pattern).tail(data) == longest_tail(pattern, data)


@given(patterns, texts)
def test_tail_begins_no_earlier_than_told(pattern: bytes, text: bytes) -> None:
    matcher = Matcher(pattern)
    matches = matcher.find_all(text)
    start = matches[-1] + len(pattern) if matches else 0
    assert matcher.tail(text, start) == longest_tail(pattern, text[start:])


@given(patterns, st.lists(texts, max_size=6))
def test_holding_the_tail_finds_the_same_matches_as_the_whole_stream(
    pattern: bytes, pieces: list[bytes]
) -> None:
    matcher = Matcher(pattern)
    found: list[int] = []
    done, held = 0, b""
    for piece in pieces:
        data = held + piece
        matches = matcher.find_all(data)
        found += [done + at for at in matches]
        tail = matcher.tail(data, matches[-1] + len(pattern) if matches else 0)
        done += len(data) - tail
        held = data[len(data) - tail :]
    assert found == matcher.find_all(b"".join(pieces))


def test_a_long_self_similar_pattern_takes_linear_time() -> None:
    pattern = b"a" * 50_000 + b"b"
    assert Matcher(pattern).tail(b"a" * 50_000) == 50_000
    assert Matcher(pattern).tail(b"a" * 49_999 + b"c" + b"a" * 10) == 10
