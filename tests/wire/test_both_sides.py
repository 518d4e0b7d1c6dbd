"""A capture of both sides of a proxy, frame by frame."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from wfpstream.wire import LINK_ETHERNET, BothSides, Segment, walk

FIN, SYN, RST, ACK, URG = 1, 2, 4, 16, 32
SIDES = st.sampled_from(["client", "upstream"])
# A side, whether its peer did it, and what: bytes, an urgent byte, a FIN or a reset.
DEEDS = st.lists(
    st.tuples(
        SIDES, st.booleans(), st.one_of(st.binary(max_size=3000), st.sampled_from(["!", "fin", "rst"]))
    ),
    max_size=20,
)


def frames(capture: bytes) -> list[tuple[int, bytes]]:
    """Interface and frame of every packet block."""
    found, at = [], 0
    while at < len(capture):
        kind, length = struct.unpack_from("<II", capture, at)
        if kind == 6:
            interface, _, _, size = struct.unpack_from("<IIII", capture, at + 8)
            found.append((interface, capture[at + 28 : at + 28 + size]))
        at += length
    return found


def segments(capture: BothSides, interface: int) -> list[Segment]:
    walked = [walk(LINK_ETHERNET, frame) for number, frame in frames(capture.pcapng()) if number == interface]
    assert all(isinstance(one, Segment) and one.checksum_ok() for one in walked)
    return [one for one in walked if isinstance(one, Segment)]


def test_the_client_connects_to_us_and_we_connect_to_the_upstream() -> None:
    capture = BothSides()
    capture.joined(0, 1, "client", ("127.0.0.1", 9000), ("127.0.0.1", 40000))
    capture.joined(0, 1, "upstream", ("127.0.0.1", 41000), ("127.0.0.1", 6379))
    syn_of_client, syn_of_ours = segments(capture, 0)[0], segments(capture, 1)[0]
    assert (syn_of_client.source_port, syn_of_client.destination_port) == (40000, 9000)
    assert (syn_of_ours.source_port, syn_of_ours.destination_port) == (41000, 6379)
    assert syn_of_client.flags == syn_of_ours.flags == SYN


def test_bytes_come_from_who_sent_them() -> None:
    capture = BothSides()
    capture.joined(0, 1, "client", ("127.0.0.1", 9000), ("127.0.0.1", 40000))
    capture.data(1, 1, "client", True, b"question")
    capture.data(2, 1, "client", False, b"answer")
    sent = {one.source_port: bytes(one.payload) for one in segments(capture, 0) if one.payload}
    assert sent == {40000: b"question", 9000: b"answer"}


def test_addresses_that_nobody_knows_are_made_up_and_no_two_connections_share_them() -> None:
    capture = BothSides()
    for flow in (1, 2):
        for side in ("client", "upstream"):
            capture.joined(0, flow, side, None, ("10.0.0.1", 40000 + flow) if side == "client" else None)
    ends = {(i, s.source, s.source_port) for i in (0, 1) for s in segments(capture, i) if s.flags == SYN}
    assert len(ends) == 4


def test_addresses_of_two_kinds_become_one_kind() -> None:
    capture = BothSides()
    capture.joined(0, 1, "client", ("::1", 9000), ("127.0.0.1", 40000))
    assert {one.version for one in segments(capture, 0)} == {6}


@given(DEEDS)
def test_whatever_the_sides_do_both_connections_are_sound_and_have_their_bytes(
    deeds: list[tuple[str, bool, bytes | str]],
) -> None:
    """Sequence numbers go on by what was sent; nothing follows a FIN in its direction, or a reset."""
    capture = BothSides()
    sent: dict[tuple[str, bool], bytes] = {}
    finished: set[tuple[str, bool]] = set()
    for time, (side, from_peer, deed) in enumerate(deeds):
        key = (side, from_peer)
        if deed == "rst":
            capture.reset(time, 1, side, from_peer)
            finished |= {(side, True), (side, False)}
        elif deed == "fin":
            capture.fin(time, 1, side, from_peer)
            finished.add(key)
        else:
            data = deed.encode() if isinstance(deed, str) else deed
            capture.data(time, 1, side, from_peer, data, urgent=deed == "!")
            sent[key] = sent.get(key, b"") + (b"" if key in finished else data)
    for interface, side in enumerate(("client", "upstream")):
        seen = segments(capture, interface)
        client = seen[0].source if seen else b""
        for from_peer in (True, False):
            of_client = from_peer == (side == "client")
            ours = [one for one in seen if (one.source == client) == of_client]
            assert _stream(ours) == sent.get((side, from_peer), b"")


def _stream(sent: list[Segment]) -> bytes:
    """The bytes of one direction; every number is the one that follows."""
    data = b""
    expected = sent[0].sequence if sent else 0
    for one in sent:
        assert one.sequence in (expected, 0)
        data += bytes(one.payload)
        expected += len(one.payload) + bool(one.flags & (SYN | FIN))
    return data
