"""A recorder: what both sides said, in order; a capture of it; and segmentation on purpose."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.callouts.allow_after import AllowAfter
from wfpstream.callouts.pattern_drop import PatternDrop
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, ClassifyOut
from wfpstream.replay import replay_capture
from wfpstream.testing import Chop, FlowEnds, MemoryDriver, Moment, Recorder

CHOPS = st.one_of(
    st.sampled_from(["off", "random"]),
    st.integers(1, 9).map(str),
    st.tuples(st.integers(1, 9), st.integers(0, 9)).map(lambda pair: f"{pair[0]}-{pair[0] + pair[1]}"),
)


def start(recorder: Recorder, *callouts: Callout, local: str = "client") -> tuple[MemoryDriver, FlowEnds]:
    driver = MemoryDriver(tap=recorder, local=local)
    recorder.attach(driver.engine)
    for callout in callouts:
        driver.add(callout)
    ends = driver.connect()
    assert ends is not None
    return driver, ends


def joined(recorder: Recorder, leg: str, deed: str) -> bytes:
    return b"".join(
        e.data for e in recorder.entries if isinstance(e, Moment) and (e.leg, e.deed) == (leg, deed)
    )


@pytest.mark.parametrize("local", ["client", "server"])
def test_both_sides_are_told_as_their_peers_saw_them_whichever_side_is_local(local: str) -> None:
    recorder = Recorder()
    driver, ends = start(recorder, StreamEdit(find=b"rainy", replace=b"sunny!"), local=local)
    with driver:
        (ends.send if local == "client" else ends.receive)(b"a rainy day")
        (ends.receive if local == "client" else ends.send)(b"to you")
    assert joined(recorder, "client", "read") == b"a rainy day"
    assert joined(recorder, "upstream", "wrote") == b"a sunny! day"
    assert joined(recorder, "upstream", "read") == b"to you"
    assert joined(recorder, "client", "wrote") == b"to you"


def test_entries_are_in_order_what_came_in_what_was_decided_what_went_out() -> None:
    recorder = Recorder()
    driver, ends = start(recorder, StreamEdit(find=b"x", replace=b"y"))
    with driver:
        ends.send(b"x")
        names = [e.deed if isinstance(e, Moment) else e["event"] for e in recorder.entries]
        begin = names.index("read")
        assert names[begin : begin + 3] == ["read", "indicate", "inject"]
        assert names.index("wrote") > names.index("classify")


def replayed(recorder: Recorder) -> dict[tuple[tuple[str, int], tuple[str, int]], Any]:
    capture = io.BytesIO(recorder.pcapng())
    result = replay_capture(capture)
    return {(one.client, one.server): one for one in result.streams}


def test_the_capture_has_a_connection_for_each_side_with_what_was_said_and_how_it_ended() -> None:
    recorder = Recorder()
    driver, ends = start(recorder, StreamEdit(find=b"rainy", replace=b"sunny!"))
    with driver:
        ends.send(b"a rainy day")
        ends.send_fin()
        ends.receive(b"o", urgent=True)
        ends.receive(b"k")
        ends.receive_fin()
    client, upstream = replayed(recorder).values()
    assert client.client == ("10.0.0.1", 40000)
    assert upstream.server == ("10.0.0.2", 80)
    assert (client.client_to_server.bytes_in, upstream.client_to_server.bytes_in) == (11, 12)
    assert client.server_to_client.bytes_in == upstream.server_to_client.bytes_in == 2
    assert client.ended == upstream.ended == "fin"


def test_in_the_capture_the_side_that_was_reset_sent_the_reset_and_the_other_one_got_it() -> None:
    recorder = Recorder()
    driver, ends = start(recorder)
    with driver:
        ends.send(b"x")
        ends.reset("remote")
    client, upstream = replayed(recorder).values()
    assert upstream.server_to_client.rst
    assert client.server_to_client.rst  # the proxy is the client's server
    assert client.ended == "rst_upstream"


def test_a_connection_that_a_callout_drops_is_reset_on_both_sides() -> None:
    recorder = Recorder()
    driver, ends = start(recorder, PatternDrop(find=b"bad"))
    with driver:
        ends.send(b"very bad")
    client, upstream = replayed(recorder).values()
    assert client.server_to_client.rst
    assert upstream.client_to_server.rst


def test_names_and_ipv6_addresses_are_no_obstacle_to_a_capture() -> None:
    recorder = Recorder()
    driver = MemoryDriver(tap=recorder)
    recorder.attach(driver.engine)
    with driver:
        for client, server in (("2001:db8::7", "2001:db8::9"), ("10.1.1.1", "example.test")):
            ends = driver.connect((client, 4000), (server, 80))
            assert ends is not None
            ends.send(b"hello")
    assert [stream.client_to_server.bytes_in for stream in replayed(recorder).values()] == [5] * 4


def test_what_does_not_fit_is_counted_and_the_beginning_kept() -> None:
    recorder = Recorder(limit=5_000)
    driver, ends = start(recorder)
    with driver:
        ends.send(b"first")
        for _ in range(5):
            ends.send(bytes(1_000))
    assert joined(recorder, "client", "read").startswith(b"first")
    assert recorder.lost > 0
    recorder.pcapng()


def test_violations_and_ends_are_kept_however_much_came_before() -> None:
    recorder = Recorder(limit=1)
    driver, ends = start(recorder, Overdoing())
    with driver:
        ends.send(b"abc")
        ends.reset("local")
    assert [event["rule"] for event in recorder.violations] == ["V-8"]
    assert [event["event"] for event in recorder.events] == [
        "flow_established",
        "violation",
        "flow_deleted",
    ]
    assert recorder.lost > 0


class Overdoing(Callout):
    """Answers for more bytes than it was shown."""

    def classify_fn(
        self,
        in_fixed_values: object,
        in_meta_values: object,
        layer_data: Any,
        classify_context: object,
        filter: object,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """PERMIT one byte too many."""
        layer_data.count_bytes_enforced = layer_data.stream_data.data_length + 1
        classify_out.action_type = int(ActionType.PERMIT)


def test_flows_that_are_over_can_be_forgotten_and_make_room() -> None:
    recorder = Recorder(limit=12_000)
    driver, ends = start(recorder)
    with driver:
        ends.send(bytes(3_500))
        ends.reset("local")
        other = driver.connect()
        assert other is not None
        other.send(b"still here")
        recorder.forget_ended()
        assert {e.flow if isinstance(e, Moment) else e["flow"] for e in recorder.entries} == {2}
        other.send(bytes(3_000))
        assert recorder.lost == 0


# -- chop --------------------------------------------------------------------------------------------------------


@given(CHOPS, st.integers(0, 3), st.lists(st.integers(1, 40), max_size=12))
def test_borders_depend_on_the_place_in_the_stream_and_not_on_how_the_bytes_came(
    text: str, seed: int, reads: list[int]
) -> None:
    chop = Chop(text)
    total = sum(reads)
    whole = chop.cutter(seed, 1, "client").cut(total)
    assert sum(whole) == total
    shortest, longest = chop.lengths
    assert not chop or all(shortest <= length <= longest for length in whole[:-1])
    cutter = chop.cutter(seed, 1, "client")
    pieces = [cutter.cut(read) for read in reads]
    assert [sum(one) for one in pieces] == reads
    at_once, one_by_one = _borders(whole), _borders([length for one in pieces for length in one])
    assert not chop or one_by_one == at_once | _borders(reads)


def _borders(lengths: list[int]) -> set[int]:
    return {sum(lengths[: place + 1]) for place in range(len(lengths))}


def test_another_seed_connection_or_side_has_other_borders() -> None:
    chop = Chop("1-100")
    cuts = {
        tuple(chop.cutter(*key).cut(10_000))
        for key in ((0, 1, "client"), (1, 1, "client"), (0, 2, "client"), (0, 1, "upstream"))
    }
    assert len(cuts) == 4


@pytest.mark.parametrize("text", ["", "0", "0-3", "5-2", "-1", "1-", "a", "1 - 2", "99999999999"])
def test_a_chop_that_says_nothing_is_refused_with_what_it_may_be(text: str) -> None:
    with pytest.raises(ValueError, match="a chop is off, random, a length"):
        Chop(text)


@given(CHOPS, st.binary(min_size=1, max_size=60), st.sampled_from(["client", "server"]))
def test_a_chopped_stream_is_indicated_in_these_segments_and_arrives_whole(
    text: str, data: bytes, local: str
) -> None:
    recorder = Recorder(Chop(text), seed=7)
    driver, ends = start(recorder, AllowAfter(bytes=10_000), local=local)
    with driver:
        ends.send(data)
        assert bytes(ends.remote.data) == data
        leg = "client" if local == "client" else "upstream"
        expected = Chop(text).cutter(7, 1, leg).cut(len(data))
        shown = [e["len"] for e in recorder.events if e["event"] == "indicate" and e["offset"] == 0]
        assert shown[0] == expected[0]
        assert driver.violations == []


def test_a_read_in_which_a_pause_is_asked_for_is_not_cut_further() -> None:
    """DEF-4: what came with the same read is the engine's already."""
    from tests.transport.kit import Deferring

    recorder = Recorder(Chop("2"))
    deferring = Deferring()
    driver, ends = start(recorder, deferring)
    with driver:
        ends.receive(b"abcdef")
        assert ends.ledger(1).read == 6
        deferring.go()
        driver.settle()
        driver.advance(1)
        assert bytes(ends.local.data) == b"abcdef"
