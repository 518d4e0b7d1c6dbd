"""Oddities of captured TCP, one small capture each: what becomes of the bytes and of the counters beside them."""

from __future__ import annotations

import pytest

from tests.replay.kit import ACK, FIN, MASK, PSH, RST, SYN, URG, Capture, Tape, close
from wfpstream.fwps import StreamFlags
from wfpstream.wire import tcp_frame

TOP = MASK - 9  # ten bytes of sequence space before it wraps


# --- order and repetition -----------------------------------------------------------------------------


def test_plain() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.send(b"hello")
    server.send(b"hi")
    close(client, server)
    stream = capture.only()
    assert (stream.client, stream.server) == (("10.0.0.1", 40_000), ("10.0.0.2", 80))
    assert (stream.ended, stream.midstream, stream.changed) == ("fin", False, False)
    up, down = stream.client_to_server, stream.server_to_client
    assert (up.data_in, up.data_out, up.fin, up.rst) == (b"hello", b"hello", True, False)
    assert (down.data_in, down.data_out, down.fin, down.rst) == (b"hi", b"hi", True, False)


def test_ipv6() -> None:
    capture = Capture()
    client, _ = capture.opened(v6=True)
    client.send(b"hello")
    stream = capture.only()
    assert stream.client == ("fd00::1", 40_000)
    assert stream.client_to_server.data_in == b"hello"


def test_retransmission() -> None:
    """What was delivered is not delivered again."""
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"abc")
    client.send(b"abc", at=0)
    client.send(b"def")
    up = capture.upward()
    assert (up.data_in, up.retransmitted, up.conflicts) == (b"abcdef", 3, 0)


def test_retransmission_with_more() -> None:
    """A repetition that goes on beyond the first copy brings what is new."""
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"abc")
    client.send(b"bcdef", at=1)
    up = capture.upward()
    assert (up.data_in, up.retransmitted, up.conflicts) == (b"abcdef", 2, 0)


@pytest.mark.parametrize("overlap", ["first", "last"])
def test_delivered_bytes_stay(overlap: str) -> None:
    """The first copy was shown to the callouts; no policy can take that back, but the conflict is counted."""
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"GOOD")
    client.send(b"EVIL", at=0)
    up = capture.upward(overlap=overlap)
    assert (up.data_in, up.retransmitted, up.conflicts) == (b"GOOD", 4, 1)


def test_out_of_order() -> None:
    capture = Capture()
    client, _ = capture.opened()
    for at in (8, 4, 12, 0):
        client.send(b"%04d" % at, at=at)
    up = capture.upward()
    assert (up.data_in, up.retransmitted, up.missing) == (b"0000000400080012", 0, 0)


def test_a_hole_that_is_filled_bit_by_bit() -> None:
    """While something waits behind the hole, in-order bytes meet it and do not run past it."""
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"0123456789")
    client.send(b"klmnopqrst", at=20)
    client.send(b"abcde", at=10)
    client.send(b"fghijKLMNO", at=15)
    client.send(b"uvw", at=30)
    up = capture.upward()
    assert up.data_in == b"0123456789abcdefghijklmnopqrstuvw"
    assert (up.missing, up.retransmitted, up.conflicts) == (0, 5, 1)


def test_a_fin_behind_a_hole_that_is_filled_bit_by_bit() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.send(b"ef", at=4)
    client.send(b"ab", at=0)
    client.send(b"cd", at=2)
    client.fin(at=6)
    server.ack()
    up = capture.upward()
    assert (up.data_in, up.missing, up.fin) == (b"abcdef", 0, True)


@pytest.mark.parametrize(("overlap", "bytes_in"), [("first", b"ABCDefGHIj"), ("last", b"ABCDEFGHIj")])
def test_overlap_among_waiting_segments(overlap: str, bytes_in: bytes) -> None:
    """Of bytes that wait, the first copy counts or the last, as asked; both say that there was a conflict."""
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"ef", at=4)
    client.send(b"j", at=9)
    client.send(b"DEFGHI", at=3)
    client.send(b"ABC", at=0)
    up = capture.upward(overlap=overlap)
    assert (up.data_in, up.retransmitted, up.conflicts) == (bytes_in, 2, 1)


@pytest.mark.parametrize(("overlap", "bytes_in"), [("first", b"..cdefgh"), ("last", b"..cDEFgh")])
def test_overlap_inside_a_waiting_segment(overlap: str, bytes_in: bytes) -> None:
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"cdefgh", at=2)
    client.send(b"DEF", at=3)
    client.send(b"..", at=0)
    assert capture.upward(overlap=overlap).data_in == bytes_in


@pytest.mark.parametrize("overlap", ["first", "last"])
def test_one_segment_that_covers_many(overlap: str) -> None:
    """Again and again, each time with other bytes: the first copy stays, or the last."""
    capture = Capture()
    client, _ = capture.opened()
    for at in range(2, 40, 2):
        client.send(b"%d" % (at % 10), at=at)
    for filler in (b"x", b"y", b"z"):
        client.send(filler * 40, at=1)
    client.send(b"-", at=0)
    up = capture.upward(overlap=overlap)
    first = b"-x" + b"".join(b"%dx" % (at % 10) for at in range(2, 40, 2)) + b"x"
    assert up.data_in == (first if overlap == "first" else b"-" + b"z" * 40)
    assert (up.conflicts, up.retransmitted, up.missing) == (3, 19 + 80, 0)


def test_overlap_of_equal_bytes_is_no_conflict() -> None:
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"cdef", at=2)
    client.send(b"bcdefg", at=1)
    client.send(b"ab", at=0)
    up = capture.upward()
    assert (up.data_in, up.conflicts) == (b"abcdefg", 0)


def test_wrap() -> None:
    """Sequence numbers go on behind 2**32 - 1."""
    capture = Capture()
    client, server = capture.opened(client_isn=TOP, server_isn=MASK)
    for part in (b"01234567", b"89abcd", b"efgh"):
        client.send(part)
        server.send(part)
    client.fin()
    stream = capture.only()
    assert stream.client_to_server.data_in == b"0123456789abcdefgh"
    assert stream.server_to_client.data_in == b"0123456789abcdefgh"
    assert stream.client_to_server.fin


def test_wrap_out_of_order() -> None:
    capture = Capture()
    client, _ = capture.opened(client_isn=TOP)
    for at in (12, 6, 0, 6, 18):
        client.send(b"%06d" % at, at=at)
    up = capture.upward()
    assert (up.data_in, up.retransmitted) == (b"000000000006000012000018", 6)


def test_below_the_beginning() -> None:
    """Bytes before the first one do not belong to the stream."""
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"??abc", at=-2)
    assert capture.upward().data_in == b"abc"


def test_far_outside() -> None:
    """What lies further ahead than any window reaches is of another connection, FIN and all."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    client.segment(ACK | FIN | PSH, b"zzz", at=2_000_000_000)
    client.sent = 3
    server.ack()
    capture.wait(200)
    client.send(b"def")
    up = capture.upward()
    assert (up.data_in, up.missing, up.fin, up.out_of_window) == (b"abcdef", 0, False, 1)


# --- keep-alives, windows, flags ----------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"", b"\0"])
def test_keep_alives(garbage: bytes) -> None:
    """A probe repeats the byte before the next one, or claims to."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    server.ack()
    for _ in range(3):
        capture.wait(60)
        client.send(garbage, at=2)
        server.ack()
    client.send(b"def")
    assert capture.upward().data_in == b"abcdef"


def test_zero_window_probe() -> None:
    """The probe's byte is the stream's next one; it comes again with the rest."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    server.segment(ACK, window=0)
    client.send(b"d", at=3)
    server.segment(ACK, ack=3, window=0)
    client.send(b"def", at=3)
    up = capture.upward()
    assert (up.data_in, up.retransmitted) == (b"abcdef", 1)


def test_no_flags_at_all() -> None:
    """Data without ACK is data, and its acknowledgement number, which is none, is not believed."""
    capture = Capture()
    client, server = capture.opened()
    server.send(b"xyz")
    client.segment(0, b"abc")
    client.send(b"def")
    server.segment(0, b"uvw")
    stream = capture.only()
    assert stream.client_to_server.data_in == b"abcdef"
    assert stream.server_to_client.data_in == b"xyzuvw"


def test_urgent_byte_stays_in_line() -> None:
    """Each urgent byte is an item of its own, flagged as expedited; the stream does not change."""
    capture = Capture()
    client, server = capture.opened()
    client.segment(ACK | PSH | URG, b"ab!cd", urgent=3)
    server.segment(ACK | PSH | URG, b"?", urgent=1)
    tape = Tape()
    stream = capture.only(tape)
    assert stream.client_to_server.data_out == b"ab!cd"
    flags = [(item.data, item.flags & 0x0002_0002) for item in tape.items]
    out, into = int(StreamFlags.SEND_EXPEDITED), int(StreamFlags.RECEIVE_EXPEDITED)
    assert flags == [(b"ab", 0), (b"!", out), (b"cd", 0), (b"?", into)]


def test_urgent_byte_in_a_later_segment() -> None:
    """The pointer may name a byte that has yet to come, and comes out of order."""
    capture = Capture()
    client, _ = capture.opened()
    client.segment(ACK | URG, b"ab", urgent=5)
    client.send(b"fg", at=5)
    client.send(b"cd!", at=2)
    tape = Tape()
    capture.only(tape, coalesce=False)
    assert tape.data() == [b"ab", b"cd", b"!", b"fg"]
    assert tape.items[2].flags & int(StreamFlags.SEND_EXPEDITED)


def test_urgent_pointer_beyond_the_data_of_a_lost_segment() -> None:
    """A pointer to a byte that never comes changes nothing."""
    capture = Capture()
    client, server = capture.opened()
    client.segment(ACK | URG, b"ab", urgent=3)
    client.lose(b"!")
    client.send(b"cd")
    server.ack()
    capture.wait(2)
    server.ack()
    up = capture.upward()
    assert (up.data_in, up.missing) == (b"abcd", 1)


@pytest.mark.parametrize("push", ["captured", "always"])
def test_push(push: str) -> None:
    """PUSH is where PSH was captured, or on every inbound item as it is live (IND-5)."""
    capture = Capture()
    client, server = capture.opened()
    server.send(b"a" * 8, push=True)
    server.send(b"b" * 8)
    client.send(b"c")
    tape = Tape()
    capture.only(tape, push=push)
    pushed = {item.data[:1]: bool(item.flags & int(StreamFlags.RECEIVE_PUSH)) for item in tape.items}
    assert pushed == {b"a": True, b"b": push == "always", b"c": False}


# --- SYN, FIN, RST with data --------------------------------------------------------------------------


def test_syn_with_data() -> None:
    """TCP Fast Open: the SYN's bytes are the stream's first; sent again, they are not doubled."""
    capture = Capture()
    client, server = capture.connection()
    client.syn(b"early")
    server.syn_ack(ack=5)
    client.send(b"late")
    assert capture.upward().data_in == b"earlylate"


def test_syn_with_data_that_is_not_taken() -> None:
    capture = Capture()
    client, server = capture.connection()
    client.syn(b"early")
    server.syn_ack(ack=0)
    client.send(b"early", at=0)
    client.send(b"late")
    up = capture.upward()
    assert (up.data_in, up.retransmitted) == (b"earlylate", 5)


def test_syn_with_data_behind_its_answer() -> None:
    """The capture has the SYN-ACK first, so the direction seems to begin behind the SYN's bytes."""
    capture = Capture()
    client, server = capture.connection()
    client.sent = 5
    server.syn_ack(ack=5)
    client.syn(b"early")
    client.send(b"late")
    stream = capture.only()
    assert stream.client == ("10.0.0.1", 40_000)
    assert stream.client_to_server.data_in == b"earlylate"


def test_fin_with_data() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.fin(b"last")
    server.fin(b"words")
    client.ack()
    stream = capture.only()
    assert (stream.client_to_server.data_in, stream.client_to_server.fin) == (b"last", True)
    assert (stream.server_to_client.data_in, stream.ended) == (b"words", "fin")


def test_fin_again() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.fin(b"last")
    client.fin(b"last", at=0)
    client.fin(at=4)
    server.send(b"answer")
    tape = Tape()
    stream = capture.only(tape)
    assert stream.client_to_server.data_in == b"last"
    assert stream.server_to_client.data_in == b"answer"
    assert sum(not item.data for item in tape.items) == 1


def test_data_beyond_the_fin() -> None:
    """Whenever it comes, before the FIN out of its turn too, it is counted and nobody sees it."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"defXYZ", at=3)
    client.fin(at=6)
    client.send(b"abc", at=0)
    server.ack()
    client.send(b"PQ", at=6)
    up = capture.upward()
    assert (up.data_in, up.fin, up.missing, up.late) == (b"abcdef", True, 0, 5)


def test_a_waiting_segment_wholly_beyond_the_fin() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.send(b"XYZ", at=8)
    client.fin(at=2)
    client.send(b"ab", at=0)
    server.send(b"ok")
    capture.wait(200)
    server.fin()
    stream = capture.only()
    up = stream.client_to_server
    assert (up.data_in, up.fin, up.missing, up.late) == (b"ab", True, 0, 3)
    assert stream.ended == "fin"


def test_data_after_both_fins() -> None:
    capture = Capture()
    client, server = capture.opened()
    close(client, server)
    client.send(b"late")
    client.send(b"late", at=1)
    up = capture.upward()
    assert (up.data_in, up.late) == (b"", 8)


def test_simultaneous_open() -> None:
    capture = Capture()
    client, server = capture.connection()
    client.syn()
    server.syn()
    client.syn_ack()
    server.syn_ack()
    client.send(b"abc")
    server.send(b"def")
    stream = capture.only()
    assert stream.client == ("10.0.0.1", 40_000)
    assert stream.client_to_server.data_in == b"abc"
    assert stream.server_to_client.data_in == b"def"


def test_simultaneous_close() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.fin(ack=0)
    server.fin(ack=0)
    client.ack()
    server.ack()
    assert capture.only().ended == "fin"


def test_half_close() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.fin(b"ask")
    for _ in range(3):
        server.send(b"answer")
    server.fin()
    stream = capture.only()
    assert stream.server_to_client.data_in == b"answer" * 3
    assert stream.ended == "fin"


# --- resets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [0, 1])
def test_reset(side: int) -> None:
    capture = Capture()
    ends = capture.opened()
    ends[0].send(b"abc")
    ends[1].send(b"def")
    ends[side].rst()
    stream = capture.only()
    assert stream.ended == ("rst_client", "rst_upstream")[side]
    assert stream.client_to_server.rst == (side == 0)
    assert stream.server_to_client.rst == (side == 1)
    assert stream.client_to_server.data_out == b"abc"
    assert stream.server_to_client.data_out == b"def"


def test_reset_with_payload() -> None:
    """RFC 9293, 3.5.2: text in a reset tells why; it is not of the stream."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    server.segment(RST | ACK, b"go away")
    stream = capture.only()
    assert (stream.server_to_client.data_in, stream.ended) == (b"", "rst_upstream")


@pytest.mark.parametrize("at", [1 << 30, -(1 << 30), -200])
def test_blind_reset(at: int) -> None:
    """One that its receiver would not take ends nothing (RFC 5961)."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    server.ack()
    client.rst(at=at)
    client.send(b"def")
    close(client, server)
    stream = capture.only()
    up = stream.client_to_server
    assert (up.data_in, up.rst, up.out_of_window, stream.ended) == (b"abcdef", False, 1, "fin")


def test_reset_beyond_a_hole() -> None:
    """What came before the reset is handed over, the hole before it counted."""
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"abc")
    client.lose(b"??")
    client.send(b"def")
    client.rst()
    stream = capture.only()
    up = stream.client_to_server
    assert (up.data_in, up.missing, up.rst, stream.ended) == (b"abcdef", 2, True, "rst_client")


def test_reset_beyond_lost_bytes() -> None:
    """The capture lost what came before the reset: it counts."""
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"abc")
    client.lose(bytes(5_000))
    client.rst()
    assert capture.only().ended == "rst_client"


def test_nothing_counts_after_a_reset() -> None:
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    client.rst()
    client.send(b"def")
    server.send(b"xyz")
    server.fin()
    stream = capture.only()
    assert (stream.client_to_server.data_in, stream.client_to_server.late) == (b"abc", 3)
    assert (stream.server_to_client.data_in, stream.server_to_client.late) == (b"", 3)


def test_refused() -> None:
    capture = Capture()
    client, server = capture.connection()
    client.syn()
    server.segment(RST | ACK, at=-1 - server.isn)
    events: list[dict[str, object]] = []
    (stream,) = capture.replay(events=events.append).streams
    assert stream.ended == "refused"
    assert [event["event"] for event in events] == ["connect_failed"]


def test_refused_and_tried_again() -> None:
    """The same SYN again is the same connection, and if it is answered after all, it has bytes."""
    capture = Capture()
    client, server = capture.connection()
    for _ in range(2):
        client.syn()
        server.segment(RST | ACK, at=-1 - server.isn)
    client.syn()
    server.syn_ack()
    client.send(b"abc")
    stream = capture.only()
    assert (stream.client_to_server.data_out, stream.ended) == (b"abc", "open")


def test_a_reset_that_answers_another_syn() -> None:
    """RFC 9293, 3.10.7.3: it does not acknowledge this SYN."""
    capture = Capture()
    client, server = capture.connection()
    client.syn()
    server.segment(RST | ACK, at=-1 - server.isn, ack=-5)
    server.syn_ack()
    client.send(b"abc")
    stream = capture.only()
    assert (stream.client_to_server.data_in, stream.server_to_client.out_of_window) == (b"abc", 1)


def test_half_open_server() -> None:
    """RFC 9293, 3.5.1: the server believes in an old connection, the client resets that and tries again."""
    capture = Capture()
    client, server = capture.connection()
    client.syn()
    server.segment(ACK, at=1_999_999, ack=1_999_999_999)
    client.rst(at=1_999_999_999)
    client.syn()
    server.sent = 0
    server.syn_ack()
    client.send(b"abc")
    server.send(b"def")
    stream = capture.only()
    assert (stream.client_to_server.data_in, stream.server_to_client.data_in) == (b"abc", b"def")
    assert stream.ended == "open"


def test_the_client_gives_up() -> None:
    capture = Capture()
    client, server = capture.connection()
    client.syn()
    client.rst(at=0)
    server.syn_ack()
    assert capture.only().ended == "refused"


@pytest.mark.parametrize("with_syn", [True, False])
def test_a_reset_before_anything_else(with_syn: bool) -> None:
    """It ends a connection that the capture does not have, and not the one that follows."""
    capture = Capture()
    client, server = capture.connection()
    server.rst(at=5)
    if with_syn:
        client.syn()
        server.syn_ack()
    client.send(b"abc", at=0)
    stream = capture.only()
    directions = {stream.client: stream.client_to_server, stream.server: stream.server_to_client}
    assert directions["10.0.0.1", 40_000].data_in == b"abc"
    assert (stream.midstream, stream.ended) == (not with_syn, "open")


def test_only_a_reset() -> None:
    capture = Capture()
    capture.connection()[0].rst()
    stream = capture.only()
    assert (stream.ended, stream.client_to_server.rst, stream.client_to_server.bytes_in) == ("none", True, 0)


# --- which stream -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["fin", "rst", "open"])
def test_ports_used_again(end: str) -> None:
    """A SYN with another number is another connection, whatever became of the first."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"first")
    if end == "fin":
        close(client, server)
    elif end == "rst":
        server.rst()
    client, server = capture.opened(client_isn=70_000, server_isn=90_000)
    client.send(b"second")
    first, second = capture.replay().streams
    assert (first.client_to_server.data_out, second.client_to_server.data_out) == (b"first", b"second")
    assert first.ended == {"fin": "fin", "rst": "rst_upstream", "open": "open"}[end]
    assert (first.stream, second.stream) == (0, 1)


@pytest.mark.parametrize("end", ["nothing", "fin", "rst"])
def test_the_same_syn_again(end: str) -> None:
    """A SYN with the same number is that SYN again: a capture may hold everything twice."""
    capture = Capture()
    for _ in range(2):
        client, server = capture.opened()
        client.send(b"abc")
        if end == "fin":
            close(client, server)
        elif end == "rst":
            client.rst()
    assert capture.upward().data_in == b"abc"


def test_another_syn_before_any_answer() -> None:
    capture = Capture()
    client, _ = capture.connection(client_isn=1)
    client.syn()
    client, server = capture.opened(client_isn=5_000)
    client.send(b"abc")
    close(client, server)
    first, second = capture.replay().streams
    assert first.client_to_server.bytes_in == 0
    assert second.client_to_server.data_in == b"abc"


def test_syn_ack_with_another_number() -> None:
    """Until a byte has come, the last SYN-ACK says where the server begins."""
    capture = Capture()
    client, server = capture.connection(server_isn=500)
    client.syn()
    server.syn_ack()
    server.isn = 9_000
    server.syn_ack()
    client.ack()
    server.send(b"abc")
    assert capture.only().server_to_client.data_in == b"abc"


def test_syn_ack_first() -> None:
    capture = Capture()
    client, server = capture.connection()
    client.sent = 0
    server.syn_ack()
    client.send(b"abc")
    stream = capture.only()
    assert (stream.client, stream.midstream) == (("10.0.0.1", 40_000), False)
    assert stream.client_to_server.data_in == b"abc"


def test_handshake_backwards() -> None:
    capture = Capture()
    client, server = capture.connection()
    client.sent = server.sent = 0
    client.ack()
    server.syn_ack()
    client.syn()
    client.send(b"abc")
    stream = capture.only()
    assert (stream.client, stream.client_to_server.data_in) == (("10.0.0.1", 40_000), b"abc")


def test_data_in_answer_to_a_syn() -> None:
    """The SYN-ACK is not captured, or there was none; data says that the connection is there, whatever it acks."""
    capture = Capture()
    client, server = capture.connection()
    client.syn()
    server.send(b"abc", at=0, ack=1_999_999_999)
    client.send(b"def")
    stream = capture.only()
    assert (stream.client_to_server.data_out, stream.server_to_client.data_out) == (b"def", b"abc")


def test_early_data() -> None:
    """The client does not wait for the SYN-ACK."""
    capture = Capture()
    client, server = capture.connection()
    client.syn()
    client.send(b"early")
    server.syn_ack()
    server.segment(SYN | ACK, b"hi", at=-1)
    stream = capture.only()
    assert (stream.client_to_server.data_out, stream.server_to_client.data_out) == (b"early", b"hi")


@pytest.mark.parametrize("port", [80, 0])
def test_a_host_that_talks_to_itself(port: int) -> None:
    """From one port to the same: both directions are one, and nothing is lost."""
    host = bytes((127, 0, 0, 1))
    capture = Capture()
    for sequence, acknowledgement, flags, payload in (
        (1, 0, SYN, b""), (1, 2, SYN | ACK, b""), (2, 2, ACK, b"hello"), (7, 7, ACK | FIN, b"again"),
    ):  # fmt: skip
        capture.add(tcp_frame(host, host, port, port, sequence, acknowledgement, flags, payload))
    stream = capture.only()
    assert stream.client == stream.server == ("127.0.0.1", port)
    assert stream.client_to_server.data_out == b"helloagain"
    assert stream.server_to_client.bytes_in == 0


def test_vlan_is_no_part_of_a_connection() -> None:
    """The same packets seen on two networks are repetitions."""
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"abc")
    for time, frame, _ in list(capture.records):
        tagged = frame[:12] + b"\x81\x00\x00\x07" + frame[12:]
        capture.records.append((time, tagged, len(tagged)))
    up = capture.upward()
    assert (up.data_in, up.retransmitted) == (b"abc", 3)


def test_christmas_tree() -> None:
    """Every flag at once is a reset."""
    capture = Capture()
    client, server = capture.opened()
    client.send(b"abc")
    client.segment(FIN | SYN | RST | PSH | ACK | URG, b"x", urgent=1)
    server.send(b"def")
    assert capture.only().ended == "rst_client"
