"""allow_after: looked at for a while, then let go."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.callouts.support import check_every_cut, memory_driver, relay, streams
from wfpstream.callouts import AllowAfter


class Counted(AllowAfter):
    """Counts how often it was asked."""

    asked = 0

    def classify_fn(self, *args: Any) -> None:
        self.asked += 1
        super().classify_fn(*args)


@given(pieces=streams(), count=st.integers(0, 80))
def test_every_byte_passes(pieces: list[bytes], count: int) -> None:
    outcome = relay(AllowAfter(bytes=count), pieces)
    assert outcome.data == b"".join(pieces)
    assert outcome.fin
    assert outcome.violations == []


def test_it_is_asked_no_more_after_so_many_bytes() -> None:
    callout = Counted(bytes=4)
    assert relay(callout, [b"ab", b"cd", b"ef", b"gh"]).data == b"abcdefgh"
    assert callout.asked == 2


def test_it_is_asked_on_where_fewer_bytes_come() -> None:
    callout = Counted(bytes="1KiB")
    assert relay(callout, [b"ab", b"cd"]).fin
    assert callout.asked == 3  # the FIN as well


def test_only_the_chosen_direction_counts() -> None:
    callout = Counted(bytes=1, direction="to_client")
    driver = memory_driver(callout)
    flow = driver.connect()
    assert flow is not None
    for piece in (b"a", b"b"):
        flow.send(piece)
        driver.settle()
    flow.receive(b"c")
    flow.send(b"d")
    driver.settle()
    assert callout.asked == 3
    assert flow.remote.data == b"abd"
    driver.close()


def test_every_cut_gives_the_same_bytes() -> None:
    check_every_cut(lambda: AllowAfter(bytes=5), b"hello world", b"hello world")
