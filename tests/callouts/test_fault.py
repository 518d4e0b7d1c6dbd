"""fault: what goes wrong, where, to which connection; and that it is the same each time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.callouts.support import all_cuts, cut, memory_driver, relay, watched
from wfpstream.callouts import Fault, Framer, Latency
from wfpstream.fwps import Callout
from wfpstream.testing import FlowEnds, MemoryDriver

both_ways = pytest.mark.parametrize("inbound", [False, True])
DATA = b"0123456789abcdef"


class Way:
    """One direction of a new flow under some callouts."""

    def __init__(self, *callouts: Callout, inbound: bool = False, **connect: Any) -> None:
        self.driver: MemoryDriver = memory_driver(*callouts)
        flow = self.driver.connect(**connect)
        assert flow is not None
        self.flow: FlowEnds = flow
        self.put = flow.receive if inbound else flow.send
        self.put_fin = flow.receive_fin if inbound else flow.send_fin
        self.end = flow.local if inbound else flow.remote

    @property
    def state(self) -> tuple[bytes, bool, bool]:
        """What the receiver has: data, FIN, reset."""
        return bytes(self.end.data), self.end.fin, self.end.reset

    def put_all(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if not self.flow.ended:
                self.put(piece)

    def close(self) -> list[str]:
        self.driver.close()
        return self.driver.violations


@both_ways
def test_rst_comes_behind_so_many_bytes_for_every_cut(inbound: bool) -> None:
    for pieces in all_cuts(DATA):
        way = Way(Fault(do="rst", after=4), inbound=inbound)
        way.put_all(pieces)
        assert way.state == (DATA[:4], False, True)
        assert way.flow.local.reset
        assert way.flow.remote.reset
        assert way.close() == []


def test_rst_does_not_wait_for_one_byte_more() -> None:
    way = Way(Fault(do="rst", after=4))
    way.put(b"abcd")
    assert way.state == (b"abcd", False, True)
    way.close()


@both_ways
def test_rst_waits_for_a_receiver_that_reads_slowly(inbound: bool) -> None:
    way = Way(Fault(do="rst", after=4), inbound=inbound)
    way.end.window = 3
    way.put(DATA)
    way.put_fin()
    assert way.state == (DATA[:3], False, False)
    way.end.window = 10
    way.driver.settle()
    assert way.state == (DATA[:4], False, True)
    assert way.close() == []


def test_rst_after_nothing_waits_for_the_first_byte_of_its_direction() -> None:
    way = Way(Fault(do="rst", direction="to_client"), inbound=True)
    way.flow.send(b"a request")
    assert way.flow.remote.data == b"a request"
    assert way.state == (b"", False, False)
    way.put(b"an answer")
    assert way.state == (b"", False, True)
    way.close()


def test_a_stream_that_ends_before_is_left_alone() -> None:
    assert relay(Fault(do="rst", after=100), [b"short"]).data == b"short"


@both_ways
def test_fin_ends_the_direction_early_and_leaves_the_other_open(inbound: bool) -> None:
    for pieces in all_cuts(DATA):
        way = Way(Fault(do="fin", after=4, direction="inbound" if inbound else "outbound"), inbound=inbound)
        way.put_all(pieces)
        assert way.state == (DATA[:4], True, False)
        other = way.flow.remote if inbound else way.flow.local
        (way.flow.send if inbound else way.flow.receive)(b"still here")
        assert other.data == b"still here"
        way.put_fin()
        (way.flow.send_fin if inbound else way.flow.receive_fin)()
        assert other.fin
        assert way.flow.ended
        assert way.close() == ["V-19"]  # no callout may do this outbound, and inbound it is lint


@both_ways
def test_truncate_drops_what_follows_but_not_the_end(inbound: bool) -> None:
    for pieces in all_cuts(DATA):
        outcome = relay(Fault(do="truncate", after=4), pieces, inbound=inbound)
        assert (outcome.data, outcome.fin) == (DATA[:4], True)
        assert outcome.violations == []


def test_truncate_keeps_an_end_that_is_shown_with_the_last_bytes() -> None:
    outcome = relay(Fault(do="truncate", after=4), [b"abc", b"def"], options=watched(fin_with_data=True))
    assert (outcome.data, outcome.fin) == (b"abcd", True)


@both_ways
def test_blackhole_drops_the_end_too_and_the_connection_stays(inbound: bool) -> None:
    for pieces in all_cuts(DATA):
        way = Way(Fault(do="blackhole", after=4), inbound=inbound)
        way.put_all(pieces)
        way.put_fin()
        way.driver.advance(1000)
        assert way.state == (DATA[:4], False, False)
        way.close()


def test_after_a_drain_the_end_that_a_blackhole_took_comes_out_again() -> None:
    fault = Fault(do="blackhole", after=4)
    way = Way(fault)
    way.put(DATA)
    way.put_fin()
    fault.drain()
    way.driver.settle()
    assert way.state == (DATA[:4], True, False)
    assert way.close() == []


@both_ways
def test_corrupt_changes_the_same_bytes_for_every_cut(inbound: bool) -> None:
    seen = set()
    for pieces in all_cuts(DATA):
        outcome = relay(Fault(do="corrupt", after=4, size=3, seed=7), pieces, inbound=inbound)
        assert outcome.fin
        assert outcome.violations == []
        seen.add(outcome.data)
    (data,) = seen
    assert data[:4] + data[7:] == DATA[:4] + DATA[7:]
    assert all(before != after for before, after in zip(DATA[4:7], data[4:7], strict=True))


def test_corruption_of_the_last_byte_keeps_an_end_that_is_shown_with_it() -> None:
    outcome = relay(Fault(do="corrupt", after=1), [b"ab"], options=watched(fin_with_data=True))
    assert (len(outcome.data), outcome.fin) == (2, True)


@given(after=st.integers(0, 20), size=st.integers(1, 20), points=st.lists(st.integers(0, 16), max_size=5))
def test_corruption_keeps_the_length_and_does_not_depend_on_the_cut(
    after: int, size: int, points: list[int]
) -> None:
    whole = relay(Fault(do="corrupt", after=after, size=size), [DATA]).data
    assert len(whole) == len(DATA)
    assert relay(Fault(do="corrupt", after=after, size=size), cut(DATA, points)).data == whole


@both_ways
def test_a_stall_with_an_end_loses_nothing(inbound: bool) -> None:
    for pieces in all_cuts(DATA):
        outcome = relay(Fault(do="stall", after=4, for_="5s"), pieces, inbound=inbound)
        assert (outcome.data, outcome.fin) == (DATA, True)
        assert outcome.seconds == pytest.approx(5.0)
        assert outcome.violations == []


@both_ways
def test_what_comes_before_a_stall_has_arrived(inbound: bool) -> None:
    way = Way(Fault(do="stall", after=4, for_=5), inbound=inbound)
    way.put(DATA)
    way.driver.advance(4.9)
    assert way.state == (DATA[:4], False, False)
    way.driver.advance(0.1)
    assert way.state == (DATA, False, False)
    assert way.close() == []


@both_ways
def test_a_stall_holds_the_end_as_well(inbound: bool) -> None:
    way = Way(Fault(do="stall", after=4, for_=5), inbound=inbound)
    way.put(b"abcd")
    way.put_fin()
    way.driver.advance(4.9)
    assert way.state == (b"abcd", False, False)
    way.driver.advance(0.2)
    assert way.state == (b"abcd", True, False)
    assert way.close() == []


@both_ways
def test_a_stall_stops_the_sender(inbound: bool) -> None:
    way = Way(Fault(do="stall"), inbound=inbound)
    for _ in range(40):
        way.put(b"x" * 65_536)
    assert way.flow.pending_input(int(inbound)) >= 65_536 * 20
    way.close()


@both_ways
@pytest.mark.parametrize("lasts", [None, 1000.0])
def test_a_stall_always_recovers_when_it_is_drained(inbound: bool, lasts: float | None) -> None:
    fault = Fault(do="stall", after=2, for_=lasts)
    way = Way(fault, inbound=inbound)
    way.put(b"one ")
    way.put(b"two ")
    way.driver.advance(10)
    fault.drain()
    way.driver.settle()
    assert way.state == (b"one two ", False, False)
    way.put(b"three")
    way.put_fin()
    assert way.state == (b"one two three", True, False)
    assert way.close() == []


@both_ways
def test_a_stall_of_only_the_end_recovers_when_it_is_drained(inbound: bool) -> None:
    fault = Fault(do="stall", after=3)
    way = Way(fault, inbound=inbound)
    way.put(b"one")
    way.put_fin()
    assert way.state == (b"one", False, False)
    fault.drain()
    way.driver.settle()
    assert way.state == (b"one", True, False)
    assert way.close() == []


def test_a_stall_of_one_direction_leaves_the_other_alone() -> None:
    way = Way(Fault(do="stall", direction="to_client"), inbound=True)
    way.put(b"answer")
    way.flow.send(b"request")
    assert way.state == (b"", False, False)
    assert way.flow.remote.data == b"request"
    way.close()


@both_ways
def test_slices_arrive_one_by_one_at_the_rate(inbound: bool) -> None:
    way = Way(Fault(do="slice", after=4, size=3, rate=3), inbound=inbound)
    way.put(DATA)
    sizes = [len(way.end.data)]
    for _ in range(5):
        way.driver.advance(1.0)
        sizes.append(len(way.end.data))
    assert sizes == [7, 10, 13, 16, 16, 16]
    assert way.close() == []


@both_ways
def test_slicing_keeps_every_byte_for_every_cut(inbound: bool) -> None:
    for pieces in all_cuts(DATA):
        outcome = relay(Fault(do="slice", size=3), pieces, inbound=inbound)
        assert (outcome.data, outcome.fin) == (DATA, True)
        assert outcome.violations == []


@both_ways
def test_slices_reach_a_callout_below_that_needs_more_of_them(inbound: bool) -> None:
    """It keeps the first ones, so that they are not written: whoever waits for that waits for itself."""
    way = Way(Fault(do="slice", size=3), Framer(by="line"), inbound=inbound)
    way.put(b"a line that is long\n")
    way.driver.advance(10)
    assert way.state == (b"a line that is long\n", False, False)


@both_ways
def test_slices_go_on_when_they_drain_above_a_callout_that_needs_more(inbound: bool) -> None:
    way = Way(inbound=inbound)
    added = [way.driver.add(callout) for callout in (Fault(do="slice", size=3), Framer(by="line"))]
    way.put(b"a line that is long\n")
    for one in added:
        one.retire()
    way.driver.advance(0)
    assert way.state == (b"a line that is long\n", False, False)


@both_ways
def test_what_is_left_of_slices_goes_at_once_when_they_drain(inbound: bool) -> None:
    """In one piece: a megabyte in slices of seven is seconds of work, and whoever takes the fault back waits for it."""
    way = Way(inbound=inbound)
    added = way.driver.add(Fault(do="slice", size=3, rate=3))
    way.put(b"0123456789" * 1_000)
    way.driver.advance(1.0)
    assert len(way.end.data) == 6
    before = len(way.driver.events)
    added.retire()
    way.driver.advance(0)
    assert way.state == (b"0123456789" * 1_000, False, False)
    injected = [event["len"] for event in way.driver.events[before:] if event["event"] == "inject"]
    assert injected == [9_994]


def test_slices_are_separate_for_the_callout_below() -> None:
    class Lengths(Callout):
        seen: list[int]

        def classify_fn(self, *args: Any) -> None:
            self.seen.append(args[2].stream_data.data_length)
            args[-1].action_type = 0x1002

    lengths = Lengths()
    lengths.seen = []
    relay([Fault(do="slice", size=3), lengths], [b"12345678"])
    assert lengths.seen == [3, 3, 2, 0]


def test_at_counts_from_when_the_connection_was_established() -> None:
    way = Way(Fault(do="rst", at="2s"))
    way.put(b"before ")
    way.driver.advance(1.9)
    assert way.state == (b"before ", False, False)
    way.driver.advance(0.1)
    assert way.end.reset
    assert way.close() == []


def test_at_reaches_a_connection_that_never_says_a_byte() -> None:
    way = Way(Fault(do="rst", at=0))
    assert way.end.reset
    way.close()


@both_ways
def test_at_stalls_what_comes_after_it(inbound: bool) -> None:
    way = Way(Fault(do="stall", at=1, for_=3), inbound=inbound)
    way.put(b"early ")
    way.driver.advance(1.5)
    way.put(b"late")
    assert way.state == (b"early ", False, False)
    way.driver.advance(3.0)
    assert way.state == (b"early late", False, False)
    assert way.close() == []


def test_at_corrupts_the_first_bytes_after_it() -> None:
    way = Way(Fault(do="corrupt", at=1))
    way.put(b"early ")
    way.driver.advance(1.5)
    way.put(b"late")
    data = bytes(way.end.data)
    assert data.startswith(b"early ")
    assert data.endswith(b"ate")
    assert data[6:7] != b"l"
    way.close()


def states(fault: Fault, order: list[int], listeners: list[str]) -> list[bool]:
    """Which of these connections were reset, whatever the order in which they spoke."""
    driver = memory_driver(fault)
    flows = [driver.connect(listener=listener) for listener in listeners]
    for index in order:
        flow = flows[index]
        assert flow is not None
        flow.send(b"x")
    reset = [flow.remote.reset for flow in flows if flow is not None]
    driver.close()
    return reset


def test_nth_and_every_count_connections_of_a_listener_as_they_came() -> None:
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        assert states(Fault(do="rst", nth=2), order, ["a", "a", "b", "b"]) == [False, True, False, True]
        assert states(Fault(do="rst", every=3), order, ["a"] * 4) == [False, False, True, False]


def test_probability_chooses_the_same_connections_in_every_run() -> None:
    listeners = ["a"] * 20
    first = states(Fault(do="rst", probability=0.5, seed=3), list(range(20)), listeners)
    assert 3 < sum(first) < 17
    assert states(Fault(do="rst", probability=0.5, seed=3), list(range(19, -1, -1)), listeners) == first


def test_a_connection_that_was_already_running_gets_it_from_now_on() -> None:
    driver = memory_driver()
    flow = driver.connect()
    assert flow is not None
    flow.send(b"one ")
    fault = Fault(do="stall")
    added = driver.add(fault)
    flow.send(b"two")
    assert flow.remote.data == b"one "
    fault.drain()
    driver.settle()
    added.remove()
    driver.settle()
    assert flow.remote.data == b"one two"
    driver.close()


@both_ways
def test_a_reset_during_a_stall_leaves_nothing_behind(inbound: bool) -> None:
    way = Way(Fault(do="stall", for_=5), inbound=inbound)
    way.put(b"abc")
    way.flow.reset("local")
    way.driver.advance(10)
    assert way.flow.ended
    assert way.close() == []


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        Fault(do="rst", after=1, at=1)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_mgmt_16_a_slice_that_began_after_it_was_retired_is_finished(order: tuple[int, int]) -> None:
    """Its bytes lay above when the filter went: nobody told its worker, which has the rest of them in hand."""
    with MemoryDriver() as driver:
        added = [driver.add(Latency(delay=1.0)), driver.add(Fault(do="slice", size=2))]
        driver.add(Latency(delay=1.0))
        flow = driver.connect()
        assert flow is not None
        flow.send(b"0123456789")
        for index in order:
            added[index].retire()
        driver.advance(5.0)
        assert flow.remote.data == b"0123456789"
        assert not flow.ended
        assert driver.violations == []
