"""A connection that is over: what still comes of it, for how long that counts, and what is kept of it."""

from __future__ import annotations

import io

from tests.replay.kit import ACK, Capture, Side
from wfpstream.engine import FilterEngine
from wfpstream.replay import CaptureReplay, ReplayOptions, StreamResult, open_capture


def close(client: Side, server: Side) -> None:
    client.fin()
    server.fin()
    client.ack()


def test_late_bytes_count_for_half_a_minute() -> None:
    """Bytes beyond the end are `late` for 30 s; then they are nothing, and still no stream of their own."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"in time")
    close(client, server)
    capture.wait(20)
    client.send(b"late")
    capture.wait(20)
    client.send(b"too late")
    (stream,) = capture.replay().streams
    assert stream.client_to_server.data_in == b"in time"
    assert stream.client_to_server.late == len(b"late")
    assert stream.duration < 1, "it lasted to its end, not to the last frame with its ports"


def test_a_new_connection_on_ports_of_a_settled_one() -> None:
    """A SYN with a new number opens a new stream, however long ago the first was over."""
    capture = Capture()
    close(*capture.opened(40_000))
    for port in range(1_000, 3_100):
        capture.wait(0.1)
        close(*capture.opened(port))
    client, server = capture.opened(40_000, client_isn=7_000_000)
    client.send(b"again")
    close(client, server)
    result = capture.replay()
    assert len(result.streams) == 2_102
    assert result.streams[-1].client_to_server.data_in == b"again"


def test_results_come_while_the_capture_is_read() -> None:
    """What is over for long is handed on and forgotten, not kept until the capture ends."""
    capture = Capture()
    for port in range(1_000, 5_000):
        client, server = capture.opened(port)
        client.send(b"one of many")
        close(client, server)
        capture.wait(1)
    seen: list[tuple[int, int]] = []
    with open_capture(io.BytesIO(capture.pcap())) as reader:

        def take(result: StreamResult) -> None:
            seen.append((result.stream, reader.packets))

        CaptureReplay(reader, FilterEngine, ReplayOptions(), take).run()
        total = reader.packets
    assert sorted(number for number, _ in seen) == list(range(4_000))
    early = [number for number, packets in seen if packets < total * 3 // 4]
    assert len(early) > 1_500
    assert max(number for number, packets in seen if packets < total) < 3_999 - 30


def test_a_repetition_after_the_end_is_the_same_stream() -> None:
    """Late segments of settled connections are recognised: they open no streams."""
    capture = Capture()
    pairs = []
    for port in range(1_000, 3_500):
        client, server = capture.opened(port)
        close(client, server)
        pairs.append((client, server))
        capture.wait(0.1)
    for client, _ in pairs:
        client.segment(flags=ACK)
    assert len(capture.replay().streams) == 2_500
