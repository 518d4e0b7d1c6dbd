"""Bytes that the capture does not hold, a beginning it does not hold, and how much may wait: replay's side of it."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable

import pytest

from tests.replay.kit import MILLISECOND, SECOND, START, Capture, Event, Tape, close, engine_with
from tests.replay.support_captures import PcapNg
from wfpstream.callouts.latency import Latency
from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.replay import ReplayOptions, StreamResult, replay_capture

# --- holes --------------------------------------------------------------------------------------------


def lossy(*, acked: bool, later: float) -> Capture:
    """A capture without six bytes in the middle, and with something of the server `later` seconds on."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    server.ack()
    client.lose(b"MISSED")
    client.send(b"def")
    server.ack(None if acked else 3)
    capture.wait(later)
    server.send(b"later", ack=None if acked else 3)
    return capture


@pytest.mark.parametrize(
    ("acked", "patience"), [pytest.param(True, 1.0, id="acknowledged"), pytest.param(False, 120.0, id="not")]
)
def test_when_a_hole_is_given_up(acked: bool, patience: float) -> None:
    """What the receiver has will not come again, so 1 s is patience enough for a capture out of order; else 120 s."""
    tape = Tape()
    up = lossy(acked=acked, later=patience + 10).upward(tape, coalesce=False)
    assert (up.data_in, up.missing) == (b"abcdef", 6)
    abc, late, server = [item for item in tape.items if item.data]
    assert (late.data, late.missed, abc.missed) == (b"def", 6, 0)
    assert patience <= late.at - abc.at < patience + 0.01
    assert server.at > late.at


@pytest.mark.parametrize("acked", [True, False])
def test_a_hole_at_the_end_of_the_capture(acked: bool) -> None:
    """Nobody waits longer than the capture goes."""
    tape = Tape()
    up = lossy(acked=acked, later=0).upward(tape, coalesce=False)
    assert (up.data_in, up.missing) == (b"abcdef", 6)
    assert [item.missed for item in tape.items if item.data == b"def"] == [6]
    assert tape.items[-1].at < 0.1


def test_a_segment_that_comes_after_its_acknowledgement() -> None:
    """The capture is out of order: nothing is missing."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    client.sent = 6
    client.send(b"ghi")
    server.ack()
    capture.wait(0.9)
    client.send(b"def", at=3)
    server.ack()
    up = capture.upward()
    assert (up.data_in, up.missing) == (b"abcdefghi", 0)


def test_a_segment_that_comes_too_late() -> None:
    """The hole was given up: its bytes are missing, and those that come are counted as repeated."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    client.send(b"ghi", at=6)
    server.ack()
    capture.wait(1.5)
    client.send(b"def", at=3)
    up = capture.upward()
    assert (up.data_in, up.missing, up.retransmitted) == (b"abcghi", 3, 3)


def test_only_what_was_acknowledged_is_given_up_early() -> None:
    """The rest of the hole may still be sent again, and is."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    client.send(b"jkl", at=9)
    server.ack(ack=6)
    capture.wait(3)
    client.send(b"ghi", at=6)
    server.ack()
    up = capture.upward()
    assert (up.data_in, up.missing) == (b"abcghijkl", 3)


def test_several_holes() -> None:
    """Holes acknowledged together are given up together."""
    capture = Capture()
    client, server = capture.opened()
    for at in range(0, 40, 4):
        client.send(b"%02d" % at, at=at)
    server.ack()
    capture.wait(5)
    server.send(b"later")
    tape = Tape()
    up = capture.upward(tape, coalesce=False)
    assert (up.bytes_in, up.missing) == (20, 18)
    shown = [item for item in tape.items if item.is_outbound and item.data]
    assert [item.missed for item in shown] == [0] + [2] * 9
    assert shown[-1].at - shown[1].at < 0.01


def test_a_hole_before_the_fin() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    client.lose(b"def")
    client.fin()
    server.fin()
    client.ack()
    capture.wait(2)
    server.ack()
    stream = capture.only()
    up = stream.client_to_server
    assert (up.data_in, up.missing, up.fin, stream.ended) == (b"abc", 3, True, "fin")


def test_a_fin_that_only_its_acknowledgement_tells_of() -> None:
    """An acknowledgement of one byte more than was captured may be that of a FIN: nothing is called missing."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    server.ack(ack=4)
    up = capture.upward()
    assert (up.data_in, up.missing, up.fin) == (b"abc", 0, False)


@pytest.mark.parametrize(
    ("policy", "shown", "out", "ended"),
    [
        ("permit", [0, 6], b"abcdef", "open"),
        ("bypass", [0], b"abcdef", "open"),
        ("drop", [0], b"abc", "drop"),
    ],
)
def test_on_gap(policy: str, shown: list[int], out: bytes, ended: str) -> None:
    """POL-4. Whatever the callouts get to see, the stream as captured is counted to its end."""
    tape = Tape()
    tape.filter_action = "callout_unknown"
    stream = lossy(acked=True, later=2).only(engine=engine_with(tape, on_gap=policy), coalesce=False)
    assert [item.missed for item in tape.items if item.data and item.is_outbound] == shown
    up, down = stream.client_to_server, stream.server_to_client
    assert (up.data_in, up.missing, up.data_out) == (b"abcdef", 6, out)
    assert (down.data_in, down.data_out) == (b"later", b"" if policy == "drop" else b"later")
    assert up.discarded == up.bytes_in - len(out)
    assert stream.ended.startswith(ended)


@pytest.mark.parametrize("later", [b"", b"klmno"])
def test_cut_by_the_snap_length(later: bytes) -> None:
    """The bytes that were cut off are missing; the segment behind them follows."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abcdefghij", captured=4)
    server.ack()
    if later:
        client.send(later)
        server.ack()
    up = capture.upward()
    assert (up.data_in, up.missing) == (b"abcd" + later, 6)


def test_cut_and_sent_again_whole() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abcdefghij", captured=4)
    client.send(b"abcdefghij", at=0)
    server.ack()
    up = capture.upward()
    assert (up.data_in, up.missing, up.retransmitted) == (b"abcdefghij", 0, 4)


def test_cut_before_the_fin() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.fin(b"abcdefghij", captured=4)
    server.fin()
    stream = capture.only()
    up = stream.client_to_server
    assert (up.data_in, up.missing, up.fin, stream.ended) == (b"abcd", 6, True, "fin")


# --- a beginning that is missing ----------------------------------------------------------------------


def midstream() -> Capture:
    capture = Capture()
    client, server = capture.connection()
    client.send(b"half a requ", at=5_000)
    client.send(b"est")
    server.send(b"answer", at=9_000)
    return capture


@pytest.mark.parametrize(
    ("policy", "shown", "out"),
    [("permit", 3, b"half a request"), ("bypass", 0, b"half a request"), ("drop", 0, b"")],
)
def test_on_midstream(policy: str, shown: int, out: bytes) -> None:
    """POL-5: the first captured byte is the first; who spoke first is taken for the client."""
    tape = Tape()
    stream = midstream().only(engine=engine_with(tape, on_midstream=policy), coalesce=False)
    assert stream.midstream
    assert stream.client == ("10.0.0.1", 40_000)
    assert len([item for item in tape.items if item.data]) == shown
    up = stream.client_to_server
    assert (up.data_in, up.data_out, up.missing) == (b"half a request", out, 0)


def test_midstream_out_of_order() -> None:
    """What lies before the first segment seen is taken for old: the direction has begun."""
    capture = Capture()
    client, _ = capture.connection()
    client.send(b"EFGH", at=4)
    client.send(b"ABCD", at=0)
    client.send(b"IJKL", at=8)
    up = capture.upward()
    assert (up.data_in, up.retransmitted) == (b"EFGHIJKL", 4)


def test_midstream_that_begins_with_a_keep_alive() -> None:
    """An empty probe one byte back does not make a hole."""
    capture = Capture()
    client, server = capture.connection()
    client.segment(16, at=99)
    server.ack(ack=100)
    capture.wait(2)
    client.send(b"abc", at=100)
    server.ack()
    up = capture.upward()
    assert (up.data_in, up.missing) == (b"abc", 0)


def test_only_acknowledgements() -> None:
    """A connection nobody said anything on is a stream, and the engine never hears of it."""
    capture = Capture()
    client, server = capture.connection()
    client.ack()
    server.ack()
    events: list[object] = []
    (stream,) = capture.replay(events=events.append).streams
    assert (stream.ended, stream.midstream, events) == ("none", True, [])
    assert (stream.client_to_server.data_in, stream.server_to_client.data_out) == (b"", b"")


# --- bounds -------------------------------------------------------------------------------------------


def in_tiny_segments(count: int, lost: bytes, size: int = 1) -> Capture:
    """`count` segments of `size` bytes, all of them behind a hole of `lost` bytes, none acknowledged."""
    capture = Capture(step=1000)
    client, server = capture.opened()
    client.lose(lost)
    payload = b"x" * size
    for _ in range(count):
        client.send(payload, push=True)
    server.ack(ack=0)
    return capture


@pytest.mark.parametrize("option", ["ahead", "ahead_total"])
def test_too_much_waits_for_a_hole(option: str) -> None:
    """The hole is given up as soon as the bound is passed, not at the end."""
    tape = Tape()
    up = in_tiny_segments(40, b"?", size=1000).upward(tape, coalesce=False, **{option: 20_000})
    assert (up.bytes_in, up.missing) == (40_000, 1)
    first = next(item for item in tape.items if item.data)
    assert (len(first.data), first.missed) == (1000, 1)
    ats = [item.at for item in tape.items if item.data]
    assert ats[17] == ats[0] < ats[-1]


def peak_memory(capture: Capture, options: ReplayOptions) -> int:
    """Of a replay, in bytes, the file itself left out; everything is loaded before."""
    file = io.BytesIO(capture.pcap())
    replay_capture(file, options=options)
    file.seek(0)
    tracemalloc.start()
    try:
        replay_capture(file, options=options)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_tiny_segments_are_not_free() -> None:
    """One byte costs what it costs to keep it, so memory stays bounded."""
    options = ReplayOptions(ahead=64 * 1024, coalesce=False)
    whole, holed = (peak_memory(in_tiny_segments(4_000, lost), options) for lost in (b"", b"?"))
    assert holed - whole < 96 * 1024


def test_one_streams_holes_do_not_cost_the_others() -> None:
    """`ahead_total` counts what waits now, and is given back."""
    capture = Capture()
    for port in range(40_000, 40_010):
        client, server = capture.opened(port)
        client.send(b"b" * 1000, at=1000)
        client.send(b"a" * 1000, at=0)
        client.send(b"d" * 1000, at=3000)
        close(client, server)
        capture.wait(2)
        server.ack()
    for stream in capture.replay(ahead_total=2500).streams:
        assert (stream.client_to_server.bytes_in, stream.client_to_server.missing) == (3000, 1000)


def test_idle_streams_end() -> None:
    """A stream of which nothing comes for so long is ended and reported; what still comes of it is a new one."""
    capture = Capture()
    quiet, _ = capture.opened(40_000)
    quiet.send(b"before")
    busy, _ = capture.opened(40_001)
    for _ in range(30):
        capture.wait(1)
        busy.send(b"x")
    quiet.send(b"after")
    result = capture.replay(idle=10)
    ended = [(stream.ended, stream.client_to_server.data_in) for stream in result.streams]
    assert ended == [("evicted", b"before"), ("open", b"x" * 30), ("open", b"after")]
    assert [stream.midstream for stream in result.streams] == [False, False, True]
    assert len(result.summary.notes) == 1
    assert result.summary.ignored["streams evicted"] == 1


def test_too_many_streams() -> None:
    """Those that are over go first and silently, then those quiet for longest, with a report."""
    capture = Capture()
    over, server = capture.opened(40_000)
    over.send(b"over")
    close(over, server)
    for port in range(40_001, 40_007):
        client, _ = capture.opened(port)
        client.send(b"open")
    result = capture.replay(streams=4)
    assert [stream.ended for stream in result.streams] == ["fin"] + ["evicted"] * 2 + ["open"] * 4
    assert [stream.client_to_server.data_out for stream in result.streams] == [b"over"] + [b"open"] * 6
    assert len(result.summary.notes) == 2


def test_more_streams_than_a_proxy_would_accept() -> None:
    """`flows` bounds what is accepted; a capture's connections are there already."""

    def make(clock: Callable[[], float]) -> FilterEngine:
        options = EngineOptions()
        options.limits.flows = 5
        return FilterEngine(clock, options)

    capture = Capture()
    for port in range(1_000, 1_020):
        client, _ = capture.opened(port)
        client.send(b"x")
    assert {stream.client_to_server.bytes_out for stream in capture.replay(engine=make).streams} == {1}


# --- time ---------------------------------------------------------------------------------------------


def test_time_that_goes_backwards() -> None:
    """The engine's clock stays where it was; nothing is lost, and nothing happens before its cause."""
    capture = Capture()
    client, _ = capture.opened()
    for _ in range(5):
        client.send(b"abc")
    shuffled = [START + second * SECOND for second in (5, 3, 9, 1, 1, 2, 0, 20)]
    capture.records = [(t, r[1], r[2]) for t, r in zip(shuffled, capture.records, strict=True)]
    tape = Tape()
    up = capture.upward(tape, coalesce=False)
    assert up.data_out == b"abc" * 5
    assert [item.at for item in tape.items] == [4, 4, 4, 4, 15]


@pytest.mark.parametrize("which", [0, 2, 6, 7])
@pytest.mark.parametrize("time", [(1 << 64) - 1, 1 << 63])
def test_a_time_that_is_none(which: int, time: int) -> None:
    """Damaged: it does not move the clock, nor stop it, whichever packet has it; timers go on."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc", push=True)
    close(client, server)
    capture.wait(30)
    server.ack()
    assert len(capture.records) == 8
    file = PcapNg().section().interface(1, 9)
    for index, (at, frame, _) in enumerate(capture.records):
        file.enhanced(time if index == which else at, frame)
    events: list[Event] = []
    result = replay_capture(
        io.BytesIO(file.data),
        [Latency(delay=5.0)],
        options=ReplayOptions(keep_data=True, linger=1e12),
        events=events.append,
    )
    (stream,) = result.streams
    assert (stream.client_to_server.data_out, stream.ended) == (b"abc", "fin")
    assert 5 <= next(event["t"] for event in events if event["event"] == "flow_deleted") < 36


def test_time_that_stands_still() -> None:
    """Holes and runs cost no memory where time does not pass (each asks for a look at a later moment)."""

    def back_and_forth(step: int) -> Capture:
        capture = Capture(step)
        client, server = capture.opened()
        for at in range(0, 4_000, 2):
            client.send(b"b", at=at + 1)
            client.send(b"a", at=at)
            server.send(b"c")
        return capture

    passing, still = (peak_memory(back_and_forth(step), ReplayOptions()) for step in (MILLISECOND, 0))
    assert still - passing < 32 * 1024


def counters(stream: StreamResult) -> tuple[int, int]:
    return stream.client_to_server.bytes_in, stream.client_to_server.missing


def test_no_bytes_twice_and_none_invented() -> None:
    """A hole given up moves the stream on once."""
    capture = Capture()
    client, server = capture.opened()
    for at in (10, 20, 30, 10, 20, 30):
        client.send(b"0123456789", at=at)
        server.ack()
        capture.wait(2)
    assert counters(capture.only()) == (30, 10)
