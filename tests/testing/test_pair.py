"""Pairs: two ends in memory with real windows, FINs and resets, and an engine between them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wfpstream.callouts.banner import Banner
from wfpstream.callouts.fault import Fault
from wfpstream.callouts.framer import Framer
from wfpstream.callouts.latency import Latency
from wfpstream.callouts.pattern_drop import PatternDrop
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.callouts.throttle import Throttle
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, ClassifyOut
from wfpstream.testing import ConnectionBlocked, Pair, WouldBlock, make_pair


class Refuse(Callout):
    """Blocks every connection."""

    layers = ("ale_auth_connect",)
    filter_action = "callout_terminating"

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """BLOCK."""
        classify_out.action_type = int(ActionType.BLOCK)


@contextmanager
def pair_of(*callouts: Callout, **options: Any) -> Iterator[Pair]:
    pair = make_pair(callouts, **options)
    yield pair
    assert pair.violations == []
    pair.close()


# -- bytes and ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local", ["client", "server"])
def test_what_one_end_sends_the_other_receives_whichever_is_the_local_host(local: Any) -> None:
    with pair_of(StreamEdit(find=b"rainy", replace=b"sunny!"), local=local) as pair:
        pair.client.send(b"a rainy day")
        assert pair.server.receive() == b"a sunny! day"
        pair.server.send(b"so it is")
        assert pair.client.receive() == b"so it is"


def test_receiving_takes_as_much_as_is_asked_for_and_leaves_the_rest() -> None:
    with pair_of() as pair:
        pair.client.send(b"abcdef")
        assert (pair.server.receive(2), pair.server.receive(2)) == (b"ab", b"cd")
        assert pair.server.waiting == 2
        assert pair.server.receive() == b"ef"
        assert pair.server.arrived == b"abcdef"


def test_a_half_closed_end_goes_on_receiving() -> None:
    with pair_of() as pair:
        pair.client.send(b"question")
        pair.client.close_write()
        assert pair.server.receive_all() == b"question"
        assert pair.server.at_end
        assert pair.server.receive() == b""
        pair.server.send(b"answer")
        assert pair.client.receive() == b"answer"
        pair.server.close_write()
        assert pair.client.receive() == b""
        assert pair.ended == "fin"


def test_an_end_that_has_closed_its_half_cannot_send() -> None:
    with pair_of() as pair:
        pair.client.close_write()
        with pytest.raises(BrokenPipeError, match="the client cannot send: it has closed its half already"):
            pair.client.send(b"more")
        with pytest.raises(BrokenPipeError):
            pair.client.close_write()


def test_after_a_reset_what_had_arrived_can_be_received_and_then_the_reset_shows() -> None:
    with pair_of() as pair:
        pair.server.send(b"last words")
        pair.server.reset()
        assert pair.client.was_reset
        assert pair.client.receive() == b"last words"
        with pytest.raises(ConnectionResetError):
            pair.client.receive()
        with pytest.raises(ConnectionResetError):
            pair.client.send(b"hello?")
        assert pair.ended == "rst_upstream"
        pair.client.reset()  # it is over: nothing happens


def test_a_callout_that_drops_the_connection_resets_both_ends() -> None:
    with pair_of(PatternDrop(find=b"bad")) as pair:
        pair.client.send(b"very bad")
        assert pair.client.was_reset
        assert pair.server.was_reset
        assert pair.ended == "drop"


def test_urgent_bytes_keep_their_place() -> None:
    with pair_of() as pair:
        pair.client.send(b"ab")
        pair.client.send(b"!", urgent=True)
        pair.client.send(b"c")
        assert pair.server.receive() == b"ab!c"
        assert pair.server.urgent == [(2, b"!")]


def test_sending_nothing_does_nothing() -> None:
    with pair_of() as pair:
        pair.client.send(b"")
        assert pair.server.waiting == 0
        assert not [event for event in pair.events if event["event"] == "indicate"]


def test_a_blocked_connection_is_refused_and_says_by_whom() -> None:
    with pytest.raises(ConnectionBlocked, match="blocked at ale_auth_connect_v4 by Refuse"):
        make_pair([Refuse()])


def test_several_connections_share_an_engine_and_its_time() -> None:
    with pair_of(Banner(text=b"hello ")) as first:
        second = first.connect()
        second.server.send(b"two")
        assert second.client.receive() == b"hello two"
        assert first.client.receive() == b"hello "
        assert first.client.waiting == 0


# -- windows -----------------------------------------------------------------------------------------------------


def test_an_end_keeps_no_more_than_its_window_and_the_rest_waits_at_the_sender() -> None:
    limits = make_options(unsent=4)
    with pair_of(window=4, options=limits) as pair:
        for _ in range(4):
            pair.client.send(b"abc")
        assert pair.server.waiting == 4
        assert pair.client.unsent > 0
        assert pair.server.receive_exactly(12) == b"abc" * 4
        assert pair.client.unsent == 0


def make_options(**limits: int) -> Any:
    from wfpstream.engine import EngineOptions, Limits, Verify

    return EngineOptions(limits=Limits(**limits), verify=Verify(level="warn"))


def test_a_window_of_nothing_holds_everything_back_until_it_opens() -> None:
    with pair_of(window=0) as pair:
        pair.client.send(b"abc")
        with pytest.raises(WouldBlock, match="3 bytes wait for the window"):
            pair.server.receive()
        pair.server.window = 2
        assert pair.server.receive() == b"ab"
        assert pair.server.receive() == b"c"


def test_a_window_smaller_than_what_waits_takes_nothing_more() -> None:
    with pair_of() as pair:
        pair.client.send(b"abcdef")
        pair.server.window = 2
        pair.client.send(b"g")
        assert pair.server.waiting == 6
        assert pair.server.receive(5) == b"abcde"
        assert pair.server.waiting == 2
        pair.server.window = None
        assert pair.server.receive() == b"fg"


def test_text_is_no_bytes() -> None:
    with pair_of() as pair, pytest.raises(TypeError, match="a stream carries bytes, not 'text'"):
        pair.client.send("text")  # type: ignore[arg-type]


def test_a_window_cannot_be_negative() -> None:
    with pair_of() as pair, pytest.raises(ValueError, match="0 bytes or more"):
        pair.server.window = -1


def test_a_window_is_a_number() -> None:
    with (
        pair_of() as pair,
        pytest.raises(TypeError, match="a number of bytes, or None for any number, not '64KiB'"),
    ):
        pair.server.window = "64KiB"  # type: ignore[assignment]


# -- time --------------------------------------------------------------------------------------------------------


def test_time_stands_still_until_somebody_moves_it() -> None:
    with pair_of(Latency(delay=0.3)) as pair:
        pair.client.send(b"late")
        with pytest.raises(WouldBlock, match=r"something is due in 0\.3 s of virtual time"):
            pair.server.receive()
        pair.advance(0.29)
        assert pair.server.waiting == 0
        pair.advance(0.02)
        assert pair.server.receive() == b"late"


def test_receiving_may_let_time_pass_until_something_arrives_and_no_longer() -> None:
    with pair_of(Latency(delay=0.3)) as pair:
        pair.client.send(b"late")
        with pytest.raises(WouldBlock):
            pair.server.receive(wait=0.1)
        assert pair.now == pytest.approx(0.1)
        assert pair.server.receive(wait=10) == b"late"
        assert pair.now == pytest.approx(0.3)


def test_receiving_all_waits_for_the_end() -> None:
    with pair_of(Throttle(rate=10, burst=2)) as pair:
        pair.server.send(b"0123456789")
        pair.server.close_write()
        with pytest.raises(WouldBlock, match="no end has arrived at the client, only b'0123'"):
            pair.client.receive_all(wait=0.3)
        assert pair.client.receive_all(wait=60) == b"0123456789"
        assert pair.now == pytest.approx(0.8)


def test_the_clock_goes_from_one_due_instant_to_the_next_until_a_condition_holds() -> None:
    with pair_of(Latency(delay=2)) as pair:
        pair.client.send(b"x")
        assert pair.advance_until(lambda: pair.server.waiting > 0)
        assert pair.now == pytest.approx(2)
        assert not pair.advance_until(lambda: pair.server.waiting > 1)
        assert not pair.advance_until(lambda: False, limit=5)
        assert pair.now == pytest.approx(7)


# -- what it says ------------------------------------------------------------------------------------------------


def test_what_a_callout_keeps_is_said_with_its_name() -> None:
    with pair_of(Framer(by="line")) as pair:
        pair.client.send(b"half a li")
        with pytest.raises(WouldBlock, match="the server has nothing to receive: framer holds 9 bytes"):
            pair.server.receive()


def test_the_end_of_a_stall_that_has_none_is_nothing_to_wait_for() -> None:
    with pair_of(Fault(do="stall")) as pair:
        pair.client.send(b"x")
        with pytest.raises(WouldBlock) as waits:
            pair.server.receive(wait=1000)
        assert str(waits.value) == "the server has nothing to receive: fault holds 1 bytes"


def test_too_few_bytes_are_named_and_not_taken() -> None:
    with pair_of() as pair:
        pair.client.send(b"abc")
        with pytest.raises(WouldBlock, match="5 bytes were expected by the server, 3 arrived: b'abc'"):
            pair.server.receive_exactly(5)
        pair.client.close_write()
        with pytest.raises(EOFError, match="3 arrived: b'abc', then the end"):
            pair.server.receive_exactly(5)
        assert pair.server.receive() == b"abc"


def test_too_few_bytes_before_a_reset_say_so() -> None:
    with pair_of() as pair:
        pair.client.send(b"abc")
        pair.client.reset()
        with pytest.raises(ConnectionResetError, match="then a reset"):
            pair.server.receive_exactly(5)
        with pytest.raises(ConnectionResetError, match="after 3 bytes"):
            pair.server.receive_all()


def test_text_is_no_callout_where_nobody_can_read_it() -> None:
    with pytest.raises(TypeError, match="a callout object is expected"):
        make_pair(["monitor"])


# -- callouts that come and go -----------------------------------------------------------------------------------


def test_a_fault_is_in_force_inside_its_block_and_what_it_holds_comes_afterwards() -> None:
    with pair_of() as pair:
        with pair.fault(Latency(delay=1)):
            pair.client.send(b"one")
            assert pair.server.waiting == 0
        pair.client.send(b" two")
        assert pair.server.receive_exactly(7, wait=5) == b"one two"


def test_a_callout_is_asked_from_when_it_is_added_until_it_is_removed() -> None:
    with pair_of() as pair:
        pair.client.send(b"x")
        added = pair.add_callout(StreamEdit(find=b"x", replace=b"y"))
        pair.client.send(b"x")
        added.remove()
        added.remove()
        pair.client.send(b"x")
        assert pair.server.receive() == b"xyx"


def test_closing_twice_is_fine() -> None:
    pair = make_pair()
    pair.close()
    pair.close()


# -- a model -----------------------------------------------------------------------------------------------------


class Ends(RuleBasedStateMachine):
    """A pair without callouts is two queues of bytes with windows."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = make_pair(window=5, options=make_options(unsent=6))
        self.sent = {"client": b"", "server": b""}
        self.taken = {"client": b"", "server": b""}
        self.closed: set[str] = set()

    @rule(name=st.sampled_from(["client", "server"]), data=st.binary(min_size=1, max_size=8))
    def send(self, name: str, data: bytes) -> None:
        if name not in self.closed:
            getattr(self.pair, name).send(data)
            self.sent[name] += data

    @rule(name=st.sampled_from(["client", "server"]), limit=st.one_of(st.none(), st.integers(1, 9)))
    def receive(self, name: str, limit: int | None) -> None:
        other = "server" if name == "client" else "client"
        left = self.sent[other][len(self.taken[name]) :]
        end = getattr(self.pair, name)
        try:
            data = end.receive(limit)
        except WouldBlock:
            assert not left or end.window == 0
            return
        assert left.startswith(data)
        assert data or (other in self.closed and not left)
        self.taken[name] += data

    @rule(name=st.sampled_from(["client", "server"]), size=st.integers(0, 9))
    def resize(self, name: str, size: int) -> None:
        getattr(self.pair, name).window = size

    @rule(name=st.sampled_from(["client", "server"]))
    @precondition(lambda self: len(self.closed) < 2)
    def close_write(self, name: str) -> None:
        if name not in self.closed:
            getattr(self.pair, name).close_write()
            self.closed.add(name)

    @invariant()
    def no_byte_is_lost_or_made_up(self) -> None:
        for name, other in (("client", "server"), ("server", "client")):
            end = getattr(self.pair, name)
            assert self.sent[other].startswith(end.arrived)
            assert end.arrived[: len(self.taken[name])] == self.taken[name]

    def teardown(self) -> None:
        for name, other in (("client", "server"), ("server", "client")):
            end = getattr(self.pair, name)
            end.window = None
            while end.waiting:
                self.taken[name] += end.receive()
            assert self.taken[name] == self.sent[other]
            assert end.at_end == (other in self.closed)
        self.pair.close()


TestEnds = Ends.TestCase


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=10), st.integers(1, 7))
def test_exactly_what_was_sent_is_received_through_any_window(pieces: list[bytes], window: int) -> None:
    with pair_of(window=window) as pair:
        for piece in pieces:
            pair.client.send(piece)
        pair.client.close_write()
        assert pair.server.receive_all() == b"".join(pieces)
