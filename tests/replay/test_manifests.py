"""Captures with figures made by tshark: the streams, their bytes and their ends must be the same.

Where the figures are ambiguous (the capture lies, or has holes), `OURS` says what we find, and why.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, NamedTuple

import pytest

from tests.replay.support_captures import SHARED, shared_capture, shared_captures
from wfpstream.callouts.monitor import Monitor
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout
from wfpstream.replay import DirectionResult, ReplayOptions, ReplayResult, StreamResult, replay_capture

CAPTURES = shared_captures()
_NONE = pytest.param("", {}, marks=pytest.mark.skip(reason=f"{SHARED} is not there"), id="no captures")
each_capture = pytest.mark.parametrize(
    ("kind", "capture"),
    [pytest.param(kind, capture, id=capture["file"]) for kind, capture in CAPTURES] or [_NONE],
)


class Ours(NamedTuple):
    """What we make of a direction of which tshark makes something else."""

    why: str
    data: bytes | int
    """The bytes, or how many."""
    missing: int = 0
    conflicts: int = 0
    late: int = 0


FIRST = "the copy that came first counts (tshark: among those that wait, the one with the lower number)"
HOLE = "what is not captured is missing and never invented; what lies behind it follows (tshark: a marker)"
UNSURE = "so it is with a hole that nobody acknowledges (tshark: leaves out what lies behind)"
AFTER_FIN = "bytes beyond the FIN are late (tshark: appends them)"
AFTER_RST = "bytes after a reset that counts are late (tshark: appends them)"
RST_TEXT = "text in a reset is not of the stream (tshark: appends it)"
LATE_FILL = "a segment captured after its acknowledgement fills its hole (tshark: drops it, a marker)"

# Every other ambiguous direction is as tshark has it: the first copy of a byte counts, checksums are not looked at,
# resets that nobody would take end nothing, bytes before the beginning are old, bytes behind a cut are joined.
OURS: dict[tuple[str, str], Ours] = {
    ("http-v6-1000req-one-lost.pcap", "node1"): Ours(HOLE, 852_757, missing=238),
    ("http-reassembly-halfclose.pcap", "node0"): Ours(HOLE, 28_832, missing=4_376, conflicts=5),
    ("dcerpc-gap.pcap", "node0"): Ours(HOLE, 3_316, missing=215),
    ("rst-unacked-tls.pcap", "node1"): Ours(HOLE, 28_800, missing=12_880),
    ("data-after-fin.pcap", "node0"): Ours(AFTER_FIN, b"hello", late=13),
    ("data-after-its-ack-swapped.pcap", "node0"): Ours(LATE_FILL, b"AAAABBBBCCCCDD"),
    ("data-after-rst.pcap", "node0"): Ours(AFTER_RST, b"hello", late=4),
    ("gap-acked.pcap", "node0"): Ours(HOLE, b"AAAACCCCDD", missing=6),
    ("gap-never-acked.pcap", "node0"): Ours(UNSURE, b"AAAACCCC", missing=6),
    ("overlap-conflict-ooo.pcap", "node0"): Ours(FIRST, b"ABCXEFGH", conflicts=1),
    ("rst-with-payload.pcap", "node1"): Ours(RST_TEXT, b""),
}
# The SYN-ACK is captured before the SYN; the manifest takes its sender for the initiator, which no client is.
ANSWERED_FIRST = "http-handshake-reorder.pcap"
# What is captured as a reset and is none of the connection's.
BLIND_RESETS = {("blind-rst.pcap", "node1")}


@cache
def replayed(kind: str, name: str, coalesce: bool = True) -> ReplayResult:
    """The capture without callouts; kept, because several tests ask for it."""
    return replay_capture(
        shared_capture(kind, name), options=ReplayOptions(keep_data=True, coalesce=coalesce)
    )


def address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def direction(ours: StreamResult, theirs: dict[str, Any], node: str) -> DirectionResult:
    """Our figures of what that node sent."""
    ends = address(theirs["node0_addr"]), address(theirs["node1_addr"])
    assert {ours.client, ours.server} == set(ends)
    return ours.client_to_server if ours.client == ends[int(node[-1])] else ours.server_to_client


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class WithHoles(Callout):
    """Permits everything and keeps what it is shown, holes as zero bytes."""

    def __init__(self) -> None:
        self.shown: dict[tuple[int, bool], bytearray] = {}

    def classify_stream(self, *call: Any) -> None:
        packet = call[2]
        outbound = bool(packet.stream_data.flags & 0x10000)
        kept = self.shown.setdefault((call[1].flow_handle, outbound), bytearray())
        kept += bytes(packet.missed_bytes) + packet.stream_data.tobytes()
        call[-1].action_type = ActionType.PERMIT


# --- against tshark -----------------------------------------------------------------------------------


@each_capture
def test_streams(kind: str, capture: dict[str, Any]) -> None:
    """As many streams as tshark finds, in its order, between the same addresses, and nothing left unread."""
    result = replayed(kind, capture["file"])
    assert len(result.streams) == capture["streams_total"]
    for number, (ours, theirs) in enumerate(zip(result.streams, capture["tcp_streams"], strict=True)):
        assert ours.stream == theirs["stream"] == number
        direction(ours, theirs, "node0")
        initiator = theirs["initiator"]
        if initiator is not None and capture["file"] != ANSWERED_FIRST:
            assert ours.client == address(theirs[f"{initiator}_addr"])
    assert (result.violations, result.problems) == ({}, [])


@each_capture
@pytest.mark.parametrize("coalesce", [True, False], ids=["coalesced", "segments"])
def test_bytes(kind: str, capture: dict[str, Any], coalesce: bool) -> None:
    """Number and digest of each direction's bytes; the exceptions are listed above."""
    result = replayed(kind, capture["file"], coalesce)
    for ours, stream in zip(result.streams, capture["tcp_streams"], strict=True):
        for node in ("node0", "node1"):
            found, theirs = direction(ours, stream, node), stream[node]
            exception = OURS.get((capture["file"], node))
            if exception is None:
                assert (found.bytes_in, found.sha256_in) == (theirs["bytes"], theirs["sha256"]), node
                continue
            assert stream["ambiguous"], "an exception must have a reason that tshark's own figures admit"
            if isinstance(exception.data, bytes):
                assert found.data_in == exception.data
            counted = found.bytes_in, found.missing, found.conflicts, found.late
            size = exception.data if isinstance(exception.data, int) else len(exception.data)
            assert counted == (size, exception.missing, exception.conflicts, exception.late), exception.why


@each_capture
def test_up_to_the_first_hole(kind: str, capture: dict[str, Any]) -> None:
    """The bytes before the first hole are certain whatever one does with holes."""
    for ours, stream in zip(replayed(kind, capture["file"]).streams, capture["tcp_streams"], strict=True):
        for node in ("node0", "node1"):
            theirs, data = stream[node], direction(ours, stream, node).data_in
            if "xcheck_contiguous_sha256" in theirs and not stream.get("data_after_fin"):
                assert data is not None
                assert digest(data[: theirs["contiguous_bytes"]]) == theirs["xcheck_contiguous_sha256"]


@each_capture
def test_holes(kind: str, capture: dict[str, Any]) -> None:
    """As many bytes are missing as a plain reassembly by sequence number finds, and in the same places."""
    callout = WithHoles()
    result = replay_capture(shared_capture(kind, capture["file"]), [callout])
    for ours, stream in zip(result.streams, capture["tcp_streams"], strict=True):
        for node in ("node0", "node1"):
            theirs, found = stream[node], direction(ours, stream, node)
            if stream.get("data_after_fin"):
                continue
            assert found.missing == theirs["xcheck_gap_bytes"]
            if found.missing and len(result.streams) == 1 and "xcheck_first_wins_sha256" in theirs:
                (shown,) = [
                    bytes(data)
                    for (_, outbound), data in callout.shown.items()
                    if outbound == (found is ours.client_to_server)
                ]
                assert digest(shown) == theirs["xcheck_first_wins_sha256"]


@each_capture
def test_ends(kind: str, capture: dict[str, Any]) -> None:
    """FIN and RST as captured; a blind reset is none."""
    for ours, stream in zip(replayed(kind, capture["file"]).streams, capture["tcp_streams"], strict=True):
        for node in ("node0", "node1"):
            found, theirs = direction(ours, stream, node), stream[node]
            is_blind = (capture["file"], node) in BLIND_RESETS
            assert (found.fin, found.rst) == (theirs["fin"], theirs["rst"] and not is_blind), node


# --- against ourselves --------------------------------------------------------------------------------


def callouts_that_change_nothing() -> list[list[Callout]]:
    return [
        [],
        [Monitor(summary=False)],
        [StreamEdit(find=b"\x13not there", replace=b"x")],
        [StreamEdit(find=b"\x13not there", replace=b"x", mode="oob")],
    ]


@each_capture
@pytest.mark.parametrize("which", range(4), ids=["none", "monitor", "inline", "out-of-band"])
def test_what_nobody_edits_leaves_as_it_came(kind: str, capture: dict[str, Any], which: int) -> None:
    """Also if a callout takes every byte out and injects it again, one item after another."""
    result = replay_capture(shared_capture(kind, capture["file"]), callouts_that_change_nothing()[which])
    for ours, before in zip(result.streams, replayed(kind, capture["file"]).streams, strict=True):
        for found, known in (
            (ours.client_to_server, before.client_to_server),
            (ours.server_to_client, before.server_to_client),
        ):
            assert (found.bytes_in, found.sha256_in) == (known.bytes_in, known.sha256_in)
            assert (found.bytes_out, found.sha256_out) == (found.bytes_in, found.sha256_in)
            assert found.discarded == 0
            assert found.blocked == found.injected
    assert result.violations == {}


@each_capture
def test_twice_the_same(kind: str, capture: dict[str, Any]) -> None:
    """The same capture and callouts give the same events, times and all."""
    path = shared_capture(kind, capture["file"])

    def events() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        callouts: list[Callout] = [Monitor(summary=False)]
        if capture["size"] < 1_000_000:  # workers take their time
            callouts.append(StreamEdit(find=b"HTTP", replace=b"http", mode="oob"))
        replay_capture(path, callouts, events=found.append)
        return found

    first = events()
    assert first == events()
    assert [event["seq"] for event in first] == list(range(1, len(first) + 1))
