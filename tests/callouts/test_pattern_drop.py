"""pattern_drop: no byte of the pattern gets through, whatever comes before it does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.callouts.support import all_cuts, check_every_cut, memory_driver, relay, streams
from wfpstream.callouts import PatternDrop


def dropped(find: str, pieces: list[bytes]) -> tuple[bytes, int, bool]:
    """(what arrived, bytes permitted, whether the connection was reset) after these pieces."""
    driver = memory_driver(PatternDrop(find=find))
    flow = driver.connect()
    assert flow is not None
    for piece in pieces:
        if not flow.ended:
            flow.send(piece)
    if not flow.ended:
        flow.send_fin()
    arrived, permitted = bytes(flow.remote.data), flow.ledger(0).stages[0].permitted
    reset = flow.remote.reset and flow.local.reset
    driver.close()
    assert driver.violations == []
    return arrived, permitted, reset


def test_the_connection_is_reset_at_the_pattern_for_every_cut() -> None:
    for pieces in all_cuts(b"SELECT 1; DROP TABLE users; SELECT 2"):
        arrived, permitted, reset = dropped("DROP TABLE", pieces)
        assert reset
        assert permitted == len(b"SELECT 1; ")
        # A reset does not wait for what was permitted in the same moment (DRP-4).
        assert b"SELECT 1; ".startswith(arrived)


def test_byte_by_byte_everything_before_the_pattern_has_arrived() -> None:
    assert dropped("bad", [b"n", b"o", b"b", b"a", b"d"])[0] == b"no"


def test_a_stream_without_the_pattern_passes() -> None:
    check_every_cut(lambda: PatternDrop(find="DROP"), b"DRO DR D DRIP DRO", b"DRO DR D DRIP DRO")


@given(find=st.text("ab", min_size=1, max_size=4), pieces=streams("abc"))
def test_exactly_what_comes_before_the_pattern_is_permitted(find: str, pieces: list[bytes]) -> None:
    arrived, permitted, reset = dropped(find, pieces)
    before, match, _ = b"".join(pieces).partition(find.encode())
    assert permitted == len(before)
    assert reset == bool(match)
    assert before.startswith(arrived)
    assert match or arrived == before


def test_the_other_direction_may_say_it() -> None:
    driver = memory_driver(PatternDrop(find="bad", direction="to_upstream"))
    flow = driver.connect()
    assert flow is not None
    flow.receive(b"bad")
    driver.settle()
    assert flow.local.data == b"bad"
    flow.send(b"bad")
    driver.settle()
    assert flow.ended
    driver.close()


def test_an_empty_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        PatternDrop(find="")


def test_draining_stops_looking() -> None:
    drop = PatternDrop(find="bad")
    drop.drain()
    assert relay(drop, [b"bad"]).data == b"bad"
