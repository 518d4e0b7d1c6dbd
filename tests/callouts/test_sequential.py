"""SequentialCallout: written as if the stream could be read, the same for every cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.callouts.support import all_cuts, check_every_cut, cut, memory_driver, relay, watched
from wfpstream.callouts import SequentialCallout, Steps, block, need, permit, replace


class Shout(SequentialCallout):
    """The example of the docstring."""

    def parse(self, direction: str) -> Steps:
        while head := (yield need(1)):
            body = (yield need(1 + head[0]))[1:]
            yield permit(1)
            yield replace(len(body), body.upper())


def parsed_by(steps: Callable[[str], Steps]) -> SequentialCallout:
    class Parsed(SequentialCallout):
        def parse(self, direction: str) -> Steps:
            return steps(direction)

    return Parsed()


@given(
    bodies=st.lists(st.text("abz", max_size=6), max_size=6), points=st.lists(st.integers(0, 40), max_size=6)
)
def test_a_protocol_is_edited_the_same_for_every_cut(bodies: list[str], points: list[int]) -> None:
    def encoded(texts: list[str]) -> bytes:
        return b"".join(bytes([len(text)]) + text.encode() for text in texts)

    outcome = relay(Shout(), cut(encoded(bodies), points))
    assert outcome.data == encoded([body.upper() for body in bodies])
    assert outcome.fin
    assert outcome.violations == []


def test_what_is_incomplete_at_the_end_is_shown_as_it_is() -> None:
    check_every_cut(Shout, b"\x02ab\x09cut", b"\x02AB\x09CUT")


def test_permit_and_block_reach_beyond_the_bytes_that_are_there() -> None:
    def steps(direction: str) -> Steps:
        yield permit(3)
        yield block(4)
        yield replace(2, b"<>")

    check_every_cut(lambda: parsed_by(steps), b"abcdefghijk", b"abc<>jk")


def test_the_rest_passes_when_parse_returns() -> None:
    def steps(direction: str) -> Steps:
        yield block(1)

    check_every_cut(lambda: parsed_by(steps), b"abc", b"bc")


def test_an_insertion_goes_in_front_of_the_next_byte_or_the_end() -> None:
    def steps(direction: str) -> Steps:
        yield replace(0, b"<")
        yield permit(3)
        yield replace(0, b">")

    check_every_cut(lambda: parsed_by(steps), b"abc", b"<abc>")
    check_every_cut(lambda: parsed_by(steps), b"abcd", b"<abc>d")
    check_every_cut(lambda: parsed_by(steps), b"", b"<")


def test_need_can_grow_over_bytes_that_were_shown_before() -> None:
    seen: list[bytes] = []

    def steps(direction: str) -> Steps:
        seen.append((yield need(1)))
        seen.append((yield need(3)))
        seen.append((yield need(2)))
        yield permit(3)

    for pieces in all_cuts(b"abcd"):
        seen.clear()
        assert relay(parsed_by(steps), pieces).data == b"abcd"
        assert seen == [b"a", b"abc", b"ab"]


def test_each_direction_has_its_own_parse() -> None:
    class Tag(SequentialCallout):
        def parse(self, direction: str) -> Steps:
            yield replace(0, f"[{direction}]".encode())

    driver = memory_driver(Tag())
    flow = driver.connect()
    assert flow is not None
    flow.send(b"a")
    flow.receive(b"b")
    driver.settle()
    assert [bytes(flow.remote.data), bytes(flow.local.data)] == [b"[to_upstream]a", b"[to_client]b"]
    driver.close()


def test_parsing_ends_at_the_engines_limit_and_everything_passes() -> None:
    def steps(direction: str) -> Steps:
        yield need(100)
        yield block(100)

    options = watched()
    options.limits.need_more_data = 8
    data = bytes(range(40))
    outcome = relay(parsed_by(steps), cut(data, range(40)), options=options)
    assert outcome.data == data
    assert set(outcome.violations) <= {"V-12"}  # the lowered limit has no room for what it needs


def test_a_parse_that_goes_round_in_circles_is_an_error() -> None:
    def steps(direction: str) -> Steps:
        while True:
            yield need(0)

    driver = memory_driver(parsed_by(steps))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"a")
    driver.settle()
    assert flow.ended
    assert "V-40" in driver.violations
    driver.close()


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        permit(-1)


def test_the_generator_is_closed_with_its_flow() -> None:
    closed: list[Any] = []

    def steps(direction: str) -> Steps:
        try:
            while True:
                yield need(10)
        finally:
            closed.append(direction)

    driver = memory_driver(parsed_by(steps))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"abc")
    driver.settle()
    flow.reset("local")
    driver.settle()
    assert closed == ["to_upstream"]
    driver.close()
