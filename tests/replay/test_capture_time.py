"""Callouts on capture time: items and runs, timers, workers, pended connections, and flows that end by a callout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fwps.support_connection import Asked, Door, Pender, block
from tests.replay.kit import (
    ACK,
    INBOUND,
    INBOUND_PUSH,
    OUTBOUND,
    PSH,
    Answering,
    Capture,
    Event,
    Tape,
    close,
    engine_with,
)
from wfpstream.callouts.banner import Banner
from wfpstream.callouts.fault import Fault
from wfpstream.callouts.latency import Latency
from wfpstream.callouts.monitor import Monitor
from wfpstream.callouts.pend_fin import PendFin
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.callouts.throttle import Throttle
from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.fwp import ActionType
from wfpstream.fwps import StreamActionType
from wfpstream.replay import ReplayOptions, ReplayResult, open_capture

FULL = 1_460


def shown(capture: Capture, outbound: bool = True, **options: Any) -> list[int]:
    """The lengths of the items of one direction."""
    tape = Tape()
    capture.replay(tape, **options)
    return [len(data) for data in tape.data(outbound)]


# --- runs ---------------------------------------------------------------------------------------------


def full_segments(count: int, step: int = 1_000) -> Capture:
    capture = Capture(step)
    client, _ = capture.opened()
    for _ in range(count):
        client.send(b"x" * FULL)
    return capture


def test_full_segments_make_one_item_of_64_kib_at_most() -> None:
    """65,536 bytes hold 44 segments of 1,460."""
    assert shown(full_segments(100)) == [44 * FULL, 44 * FULL, 12 * FULL]


def test_without_coalescing_each_segment_is_an_item() -> None:
    assert shown(full_segments(5), coalesce=False) == [FULL] * 5


@pytest.mark.parametrize("end", ["push", "shorter", "fin", "urgent"])
def test_what_ends_a_run(end: str) -> None:
    capture = Capture(step=1_000)
    client, _ = capture.opened()
    client.send(b"x" * FULL)
    last = b"x" * (FULL - 1 if end == "shorter" else FULL)
    client.send(last, push=end == "push")
    if end == "fin":
        client.fin()
        assert shown(capture) == [FULL + len(last)]
        return
    if end == "urgent":
        client.segment(ACK | 32, b"!", urgent=1)
    client.send(b"x" * FULL)
    assert shown(capture) == [FULL + len(last), *([1] if end == "urgent" else []), FULL]


def test_data_in_the_other_direction_ends_a_run() -> None:
    """So the order between the directions stays as captured; a bare acknowledgement ends nothing."""
    capture = Capture(step=1_000)
    client, server = capture.opened()
    client.send(b"a" * FULL)
    server.ack()
    client.send(b"b" * FULL)
    server.send(b"c" * FULL)
    client.send(b"d" * FULL)
    tape = Tape()
    capture.replay(tape)
    assert [(item.data[:1], len(item.data)) for item in tape.items] == [
        (b"a", 2 * FULL), (b"c", FULL), (b"d", FULL),
    ]  # fmt: skip


def test_a_run_waits_ten_milliseconds_at_most() -> None:
    """Counted from its first segment, and shown then, not when the next packet comes."""
    capture = Capture(step=4_000_000)
    client, _ = capture.opened()
    for _ in range(4):
        client.send(b"x" * FULL)
    capture.wait(5)
    client.send(b"x" * FULL)
    tape = Tape()
    capture.replay(tape)
    assert [(len(item.data), item.at) for item in tape.items] == [
        (3 * FULL, 0.022), (FULL, 0.034), (FULL, 5.038),
    ]  # fmt: skip


def test_local_is_the_server() -> None:
    """What the client sends arrives at the local host then; the capture's view of client and server stays."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"question", push=True)
    server.send(b"answer", push=True)
    for local, flags in (("client", [OUTBOUND, INBOUND_PUSH]), ("server", [INBOUND_PUSH, OUTBOUND])):
        tape = Tape()
        stream = capture.only(tape, local=local)
        assert [item.flags for item in tape.items] == flags
        assert stream.client == ("10.0.0.1", 40_000)
        assert stream.client_to_server.data_out == b"question"
        assert stream.server_to_client.data_out == b"answer"
    assert flags[0] & INBOUND


def test_checksums() -> None:
    """Wrong ones are usual where hardware fills them in; on request such segments are left out."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"BAD")
    time, frame, length = capture.records[-1]
    capture.records[-1] = (time, frame[:-1] + b"?", length)
    client.send(b"BAD", at=0)
    server.ack()
    assert capture.upward().data_in == b"BA?"
    checked = capture.replay(verify_checksums=True)
    assert checked.streams[0].client_to_server.data_in == b"BAD"
    assert checked.summary.ignored == {"bad checksum": 1}


# --- timers and workers -------------------------------------------------------------------------------


def written(result_of: Callable[[Path], ReplayResult], path: Path) -> list[tuple[float, bytes]]:
    """Seconds since the first frame and payload of each segment with data of an output."""
    result_of(path)
    found = []
    first = None
    for time_ns, _, frame in open_capture(path):
        first = time_ns if first is None else first
        payload = frame[14 + 20 + (frame[46] >> 4) * 4 :]
        if payload:
            found.append(((time_ns - first) / 1e9, payload))
    return found


def two_questions(pause: float) -> Capture:
    capture = Capture()
    client, server = capture.opened()
    client.send(b"one", push=True)
    capture.wait(pause)
    client.send(b"two", push=True)
    close(client, server)
    return capture


def test_latency(tmp_path: Path) -> None:
    """Each item leaves so much later in capture time, also behind the capture's end."""
    capture = two_questions(0.1)
    segments = written(
        lambda path: capture.replay(Latency(delay=2.0), output=path, coalesce=False), tmp_path / "out.pcapng"
    )
    assert [(round(at, 6), payload) for at, payload in segments] == [(2.003, b"one"), (2.104, b"two")]
    stream = capture.only(Latency(delay=2.0))
    assert (stream.ended, stream.client_to_server.data_out) == ("fin", b"onetwo")


def test_linger() -> None:
    """Behind the last packet time goes on only so long; what has not left by then is discarded."""
    stream = two_questions(0).only(Latency(delay=20.0), linger=10)
    up = stream.client_to_server
    assert (stream.ended, up.data_out, up.bytes_in) == ("open", b"", 6)
    assert up.bytes_out == up.bytes_in - up.blocked - up.discarded + up.injected


@pytest.mark.parametrize("inbound", [False, True])
def test_throttle(tmp_path: Path, inbound: bool) -> None:
    """DEFER and continue inbound, injection outbound: in both the rate holds in capture time."""
    capture = Capture()
    client, server = capture.opened()
    sender = server if inbound else client
    for _ in range(10):
        sender.send(b"x" * 1_000, push=True)
    close(client, server)
    result: list[ReplayResult] = []

    def replay(path: Path) -> ReplayResult:
        result.append(capture.replay(Throttle(rate=1_000, burst=1_000), output=path))
        return result[-1]

    segments = written(replay, tmp_path / "out.pcapng")
    assert sum(len(payload) for _, payload in segments) == 10_000
    assert 8.5 < segments[-1][0] < 10.5
    assert result[0].streams[0].ended == "fin"


def test_pend_fin() -> None:
    capture = two_questions(0)
    events: list[Event] = []
    (stream,) = capture.replay(PendFin(delay=3.0, trailer=b"!"), events=events.append).streams
    assert (stream.client_to_server.data_out, stream.server_to_client.data_out) == (b"onetwo!", b"!")
    assert stream.ended == "fin"
    assert next(one["t"] for one in events if one["event"] == "flow_deleted") >= 3.0


def test_banner() -> None:
    down = two_questions(0).only(Banner(text="220 ready\r\n")).server_to_client
    assert (down.data_in, down.data_out, down.injected) == (b"", b"220 ready\r\n", 11)


@pytest.mark.parametrize(
    ("do", "out", "ended"),
    [
        ("fin", b"on", "fin"),
        ("rst", b"on", "abort"),
        ("truncate", b"on", "fin"),
        ("blackhole", b"on", "open"),
        ("stall", b"on", "open"),
        ("slice", b"onetwo", "fin"),
    ],
)
def test_fault(do: Any, out: bytes, ended: str) -> None:
    """The capture goes on regardless: what still comes is counted."""
    stream = two_questions(1).only(Fault(do=do, after=2, direction="to_upstream"))
    up = stream.client_to_server
    assert (up.data_in, up.data_out) == (b"onetwo", out)
    assert up.bytes_out == up.bytes_in - up.blocked - up.discarded + up.injected
    assert stream.ended == ended


def test_two_flows_take_turns_by_time(tmp_path: Path) -> None:
    """Timers of several flows fire in the order of their moments, not of the flows."""
    capture = Capture()
    first, _ = capture.opened(40_000)
    second, _ = capture.opened(40_001)
    second.send(b"second")
    first.send(b"first")
    capture.wait(10)
    first.ack()
    segments = written(lambda path: capture.replay(Latency(delay=1.0), output=path), tmp_path / "out.pcapng")
    assert [payload for _, payload in segments] == [b"second", b"first"]


def test_a_day_takes_no_time() -> None:
    """Twenty four hours of silence between two packets."""
    assert two_questions(86_400).only(Monitor(summary=False)).client_to_server.data_out == b"onetwo"


# --- the connection layers ----------------------------------------------------------------------------

CONNECT = ("ale_auth_connect",)


def test_blocked_at_connect(tmp_path: Path) -> None:
    """The stream is counted to its end, nothing of it leaves, and the output has a refused connection."""
    capture = two_questions(0)
    events: list[Event] = []
    path = tmp_path / "out.pcap"
    (stream,) = capture.replay(Door(CONNECT, block), events=events.append, output=path).streams
    up = stream.client_to_server
    assert (stream.ended, up.data_in, up.bytes_out, up.discarded) == ("blocked", b"onetwo", 0, 6)
    assert [event["event"] for event in events if "flow" in event["event"]] == ["flow_blocked"]
    frames = [frame[47] for _, _, frame in open_capture(path)]
    assert frames == [0x02, 0x14]


def test_blocked_by_a_fin(tmp_path: Path) -> None:
    """LAY-21, `on_block = "fin"`: the client is accepted, and gets the end instead of a byte."""

    def engine(clock: Callable[[], float]) -> FilterEngine:
        options = EngineOptions()
        options.policy.on_block = "fin"
        made = FilterEngine(clock, options)
        made.add_callout(Door(CONNECT, block))
        return made

    path = tmp_path / "out.pcap"
    (stream,) = two_questions(0).replay(engine=engine, output=path).streams
    up, down = stream.client_to_server, stream.server_to_client
    assert (stream.ended, up.bytes_out, up.discarded, down.bytes_out) == ("blocked", 0, 6, 0)
    frames = [(int.from_bytes(frame[34:36], "big"), frame[47]) for _, _, frame in open_capture(path)]
    client, server = stream.client[1], stream.server[1]
    assert frames == [(client, 0x02), (server, 0x12), (client, 0x10), (server, 0x11), (client, 0x10)]


@pytest.mark.parametrize("answered_after", [0.5, 5.0])
def test_a_connection_that_is_pended(answered_after: float) -> None:
    """Its completion comes in capture time; until then everything waits, as it would in the sockets."""
    pender = Pender()

    def pend(asked: Asked) -> None:
        pender(asked)
        asked.door.fwps.after(answered_after, lambda: door.fwps.complete_operation(pender.contexts[0], None))

    door = Door(CONNECT, pend)
    tape = Tape()
    stream = two_questions(2).only(door, tape)
    assert (stream.ended, stream.client_to_server.data_out) == ("fin", b"onetwo")
    first = next(item for item in tape.items if item.data)
    assert first.at == pytest.approx(answered_after, abs=0.02)


def pending(asked: Asked) -> None:
    Pender()(asked)


def test_a_pended_connection_that_nobody_completes() -> None:
    """`pend_connect` (30 s) runs in capture time."""
    events: list[Event] = []
    (stream,) = two_questions(40).replay(Door(CONNECT, pending), events=events.append).streams
    up = stream.client_to_server
    assert (stream.ended, up.data_in, up.data_out) == ("blocked", b"onetwo", b"")
    assert [one["t"] for one in events if one["event"] == "flow_blocked"] == [30.0]


def test_a_pended_connection_of_which_much_comes() -> None:
    """Nothing can stop a capture's sender: beyond a bound nobody waits for the verdict."""
    capture = Capture(step=1_000)
    client, _ = capture.opened()
    for _ in range(400):
        client.send(b"x" * 60_000)
    stream = capture.only(Door(CONNECT, pending), keep_data=False)
    assert (stream.ended, stream.client_to_server.bytes_in) == ("limit", 24_000_000)
    assert stream.client_to_server.bytes_out == 0


def deferring(*call: Any) -> None:
    packet, out = call[2], call[-1]
    if packet.stream_data.flags & INBOUND:
        packet.stream_action = int(StreamActionType.DEFER)
        out.action_type = ActionType.NONE
    else:
        out.action_type = ActionType.PERMIT


@pytest.mark.parametrize("bound", ["each", "all"])
def test_a_deferred_direction_of_which_much_comes(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound, of one direction or of all together, the engine gets it, and `per_flow` decides."""
    monkeypatch.setattr(
        f"wfpstream.replay._feed.BACKLOG_{'LIMIT' if bound == 'each' else 'TOTAL'}", 1_000_000
    )

    def make(clock: Callable[[], float]) -> FilterEngine:
        options = EngineOptions()
        options.limits.per_flow = 500_000
        engine = FilterEngine(clock, options)
        engine.add_callout(Answering(deferring))
        return engine

    capture = Capture(step=1_000)
    _, server = capture.opened()
    for _ in range(30):
        server.send(b"x" * 60_000)
    events: list[Event] = []
    (stream,) = capture.replay(engine=make, events=events.append).streams
    down = stream.server_to_client
    assert (stream.ended, down.bytes_in, down.bytes_out, down.discarded) == ("drop", 1_800_000, 0, 1_800_000)
    assert "on_limit" in [one["name"] for one in events if one["event"] == "policy"]


# --- the end of flows by a callout --------------------------------------------------------------------


def dropping(*call: Any) -> None:
    packet, out = call[2], call[-1]
    if b"two" in packet.stream_data.tobytes():
        packet.stream_action = int(StreamActionType.DROP_CONNECTION)
        out.action_type = ActionType.NONE
    else:
        out.action_type = ActionType.PERMIT


def test_a_callout_drops_the_connection() -> None:
    """POL-1: the rest is counted, not shown, and does not leave."""
    capture = two_questions(1)
    events: list[Event] = []
    (stream,) = capture.replay(Answering(dropping), events=events.append).streams
    up = stream.client_to_server
    assert (stream.ended, up.data_in, up.data_out, up.discarded) == ("drop", b"onetwo", b"one", 3)
    assert up.fin
    assert [event["reason"] for event in events if event["event"] == "flow_deleted"] == ["drop"]


@pytest.mark.parametrize(("policy", "out"), [("permit", b"onetwo"), ("bypass", b"onetwo"), ("drop", b"")])
def test_a_callout_that_raises(policy: str, out: bytes) -> None:
    """on_callout_error decides; the replay goes on and the stream is counted."""

    def broken(*call: Any) -> None:
        raise RuntimeError("broken")

    result = two_questions(1).replay(engine=engine_with(Answering(broken), on_callout_error=policy))
    up = result.streams[0].client_to_server
    assert (up.data_in, up.data_out) == (b"onetwo", out)
    assert up.discarded == 6 - len(out)


def test_a_worker_asks_for_an_answer_that_was_not_given() -> None:
    """There is no event loop: `call` fails in one line, that of the callout's own making."""
    stream = two_questions(0).only(StreamEdit(find="one", replace="1", mode="oob"), answers={})
    assert stream.client_to_server.data_out == b"1two"


def test_a_deferred_flow_is_reset() -> None:
    """IND-27: what a deferred leg has not read is not shown any more, and counted."""

    def defer(*call: Any) -> None:
        packet, out = call[2], call[-1]
        if packet.stream_data.flags & INBOUND and packet.stream_data.data_length:
            packet.stream_action = int(StreamActionType.DEFER)
            out.action_type = ActionType.NONE
        else:
            out.action_type = ActionType.PERMIT

    capture = Capture()
    _, server = capture.opened()
    server.send(b"seen", push=True)
    server.send(b"unseen", push=True)
    server.rst()
    tape = Tape()
    stream = capture.only(Answering(defer), tape)
    down = stream.server_to_client
    assert (stream.ended, down.data_in, down.data_out) == ("rst_upstream", b"seenunseen", b"")
    assert down.discarded == 10
    assert b"unseen" not in tape.data(outbound=False)


def test_a_deferred_flow_of_which_much_comes() -> None:
    """What waits is bounded: beyond that the engine gets it, and its own limit ends the flow."""

    def defer(*call: Any) -> None:
        packet, out = call[2], call[-1]
        packet.stream_action = int(StreamActionType.DEFER)
        out.action_type = ActionType.NONE

    capture = Capture(step=10_000)
    _, server = capture.opened()
    for _ in range(20):
        for _ in range(20):
            server.send(b"x" * 60_000)
    stream = capture.only(Answering(defer), keep_data=False)
    down = stream.server_to_client
    assert down.bytes_in == 20 * 20 * 60_000
    assert (down.bytes_out, down.discarded) == (0, down.bytes_in)


def test_flows_open_at_the_end() -> None:
    """They are taken down in order of appearance, each by its reason."""
    capture = Capture()
    for port in (40_002, 40_000, 40_001):
        client, _ = capture.opened(port)
        client.send(b"x")
    events: list[Event] = []
    result = capture.replay(events=events.append)
    assert [stream.ended for stream in result.streams] == ["open"] * 3
    assert [stream.client[1] for stream in result.streams] == [40_002, 40_000, 40_001]
    deleted = [event for event in events if event["event"] == "flow_deleted"]
    assert [(event["flow"], event["reason"]) for event in deleted] == [(0, "stop"), (1, "stop"), (2, "stop")]


# --- packets inside packets ---------------------------------------------------------------------------


def fragmented(frame: bytes, size: int, identification: int) -> list[bytes]:
    """An IPv4 frame in fragments of `size` bytes (a multiple of 8); their checksums are nobody's business."""
    head, body = frame[14:34], frame[34:]
    found = []
    for at in range(0, len(body), size):
        part = body[at : at + size]
        more = 0x2000 if at + size < len(body) else 0
        field = (more | at // 8).to_bytes(2, "big")
        length = (20 + len(part)).to_bytes(2, "big")
        found.append(
            frame[:14] + head[:2] + length + identification.to_bytes(2, "big") + field + head[8:] + part
        )
    return found


@pytest.mark.parametrize("backwards", [False, True])
def test_fragments(backwards: bool) -> None:
    """A segment in fragments is there when the last of them is."""
    capture = Capture()
    client, server = capture.opened()
    client.segment(ACK | PSH, bytes(range(256)) * 2)
    _, frame, _ = capture.records.pop()
    pieces = fragmented(frame, 64, 7)
    for piece in reversed(pieces) if backwards else pieces:
        capture.add(piece)
    server.send(b"ok")
    stream = capture.only()
    assert stream.client_to_server.data_in == bytes(range(256)) * 2
    assert stream.server_to_client.data_in == b"ok"


def test_a_fragment_that_is_lost() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.send(b"a" * 512)
    _, frame, _ = capture.records.pop()
    for piece in fragmented(frame, 64, 7)[1:]:
        capture.add(piece)
    client.send(b"b" * 10)
    server.ack()
    result = capture.replay()
    up = result.streams[0].client_to_server
    assert (up.data_in, up.missing) == (b"b" * 10, 512)


def in_vxlan(frame: bytes) -> bytes:
    """The frame inside Ethernet, IPv4, UDP and VXLAN."""
    inner = b"\x08\x00\x00\x00\x00\x00\x07\x00" + frame
    udp = (
        (4_000).to_bytes(2, "big")
        + (4_789).to_bytes(2, "big")
        + (8 + len(inner)).to_bytes(2, "big")
        + b"\0\0"
    )
    total = (20 + len(udp) + len(inner)).to_bytes(2, "big")
    ip = b"\x45\x00" + total + b"\0\1\0\0\x40\x11\0\0" + bytes((192, 168, 0, 1, 192, 168, 0, 2))
    return bytes(12) + b"\x08\x00" + ip + udp + inner


@pytest.mark.parametrize("depth", [1, 2])
def test_tunnels(depth: int) -> None:
    """The connection inside is what counts."""
    capture = two_questions(0)
    for _ in range(depth):
        capture.records = [(time, in_vxlan(frame), 0) for time, frame, _ in capture.records]
    capture.records = [(time, frame, len(frame)) for time, frame, _ in capture.records]
    stream = capture.only(Tape())
    assert (stream.client, stream.client_to_server.data_out) == (("10.0.0.1", 40_000), b"onetwo")


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="expected one of first, last"):
        ReplayOptions(overlap="newest")  # type: ignore[arg-type]
