"""Random connections, random capture: what the model sent is what comes out, whatever became of the segments.

And captures that are no longer captures of anything: whatever the bytes, one kind of error, and sums that hold.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.replay.kit import ACK, FIN, PSH, Capture, Side, close
from tests.replay.support_captures import SHARED
from wfpstream.callouts.allow_after import AllowAfter
from wfpstream.callouts.banner import Banner
from wfpstream.callouts.fault import Fault
from wfpstream.callouts.framer import Framer
from wfpstream.callouts.latency import Latency
from wfpstream.callouts.monitor import Monitor
from wfpstream.callouts.pattern_drop import PatternDrop
from wfpstream.callouts.pend_fin import PendFin
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.callouts.throttle import Throttle
from wfpstream.fwps import Callout
from wfpstream.replay import (
    CaptureError,
    DirectionResult,
    ReplayOptions,
    ReplayResult,
    StreamResult,
    replay_capture,
)

MASK = 0xFFFFFFFF
isns = st.one_of(st.integers(0, MASK), st.integers(MASK - 4_000, MASK))


# --- the model ----------------------------------------------------------------------------------------


@dataclass
class Sender:
    """One direction: its bytes, and what the capture got of them."""

    side: Side
    data: bytes
    has_fin: bool
    captured: set[int] = field(default_factory=set)
    fin_captured: bool = False

    def expected(self) -> tuple[bytes, int]:
        """What must come out, and how much is missing: holes with something captured behind them."""
        last = len(self.data) if self.fin_captured else max(self.captured, default=-1) + 1
        return bytes(self.data[at] for at in sorted(self.captured)), last - len(self.captured)


@dataclass
class Deed:
    """A segment of the model: data of one direction, or its FIN."""

    sender: Sender
    start: int
    end: int
    fin: bool = False

    def capture(self, chance: Random, reach: int) -> None:
        """Write it, with some bytes before it again if there may be overlaps."""
        start = max(0, self.start - chance.randrange(reach + 1))
        flags = ACK | (FIN if self.fin else 0) | (PSH if chance.random() < 0.3 else 0)
        data = self.sender.data[start : self.end]
        acknowledged = chance.choice([None, 0, self.sender.side.peer.sent // 2])
        self.sender.side.segment(flags, data, at=start, ack=acknowledged)
        self.sender.captured.update(range(start, self.end))
        self.sender.fin_captured |= self.fin


def deeds_of(sender: Sender, chance: Random) -> list[Deed]:
    """Cut a direction into segments."""
    size = len(sender.data)
    cuts = sorted({0, size, *(chance.randrange(size + 1) for _ in range(chance.randrange(12)))})
    deeds = [Deed(sender, low, high) for low, high in pairwise(cuts)]
    if sender.has_fin:
        if deeds and chance.random() < 0.5:
            deeds[-1].fin = True
        else:
            deeds.append(Deed(sender, size, size, fin=True))
    return deeds


def disordered(deeds: list[Deed], chance: Random, window: int, lossy: bool) -> list[Deed]:
    """The deeds as the capture has them: out of order, again, or not at all."""
    kept = [deed for deed in deeds if not (lossy and chance.random() < 0.15)]
    again = [deed for deed in kept if chance.random() < 0.15]
    places = [(index + chance.uniform(0, window), deed) for index, deed in enumerate(kept)]
    places += [(chance.uniform(0, len(kept) + window), deed) for deed in again]
    return [deed for _, deed in sorted(places, key=lambda place: place[0])]


@st.composite
def captures(draw: st.DrawFn) -> tuple[Capture, list[tuple[Sender, Sender, str]]]:
    """A capture of one to three connections at the same time, and what is in it."""
    chance = draw(st.randoms(use_true_random=False))
    window = draw(st.sampled_from([0, 2, 8]))
    reach = draw(st.sampled_from([0, 0, 5, 400]))
    lossy = draw(st.booleans())
    capture = Capture(step=50_000)
    known: list[tuple[Sender, Sender, str]] = []
    queues: list[list[Deed]] = []
    for index in range(draw(st.integers(1, 3))):
        client, server = capture.opened(40_000 + index, client_isn=draw(isns), server_isn=draw(isns))
        end = draw(st.sampled_from(["fin", "rst", "open"]))
        ends = [
            Sender(side, chance.randbytes(draw(st.integers(0, 3_000))), end == "fin")
            for side in (client, server)
        ]
        known.append((ends[0], ends[1], end))
        queues += [disordered(deeds_of(sender, chance), chance, window, lossy) for sender in ends]
    for queue in queues:
        queue.reverse()
    while any(queues):
        chance.choice([queue for queue in queues if queue]).pop().capture(chance, reach)
    for client_end, server_end, end in known:
        if end == "rst":
            chance.choice([client_end, server_end]).side.rst()
    return capture, known


def assert_sums(stream: StreamResult) -> None:
    """LED-*: every byte is accounted for."""
    for one in (stream.client_to_server, stream.server_to_client):
        assert one.bytes_out == one.bytes_in - one.blocked - one.discarded + one.injected
        assert min(one.bytes_out, one.blocked, one.discarded, one.injected, one.missing, one.late) >= 0
        if one.data_in is not None and one.data_out is not None:
            assert (len(one.data_in), len(one.data_out)) == (one.bytes_in, one.bytes_out)


def assert_as_sent(found: DirectionResult, sender: Sender) -> None:
    data, missing = sender.expected()
    assert found.data_in == data
    assert found.missing == missing
    assert (found.conflicts, found.late, found.out_of_window) == (0, 0, 0)


@given(captures(), st.booleans(), st.sampled_from(["first", "last"]), st.booleans())
def test_what_was_sent_comes_out(
    made: tuple[Capture, list[tuple[Sender, Sender, str]]], coalesce: bool, overlap: str, flipped: bool
) -> None:
    """Cut, shuffled, repeated, overlapping, wrapped: the bytes are the model's; lost ones are missing."""
    capture, known = made
    local = "server" if flipped else "client"
    result = capture.replay(coalesce=coalesce, overlap=overlap, local=local)
    assert len(result.streams) == len(known)
    for stream, (client, server, end) in zip(result.streams, known, strict=True):
        assert_as_sent(stream.client_to_server, client)
        assert_as_sent(stream.server_to_client, server)
        assert stream.client_to_server.data_out == stream.client_to_server.data_in
        assert stream.server_to_client.data_out == stream.server_to_client.data_in
        assert_sums(stream)
        if end == "rst":
            assert stream.ended.startswith("rst_")
        elif client.fin_captured and server.fin_captured:
            assert stream.ended == "fin"


# --- with callouts ------------------------------------------------------------------------------------


def some_callouts(chance: Random) -> list[Callout]:
    """One to three of the built-ins."""
    made: list[Callable[[], Callout]] = [
        lambda: Monitor(summary=False),
        lambda: StreamEdit(find=b"\x07", replace=b"seven", mode="inline"),
        lambda: StreamEdit(find=b"\x07", replace=b"", mode="oob"),
        lambda: Latency(delay=chance.choice([0, 0.003, 2.5]), jitter=chance.choice([0, 0.01])),
        lambda: Throttle(rate=chance.choice([500, 20_000])),
        lambda: Framer(by="line"),
        lambda: Framer(by="length", size=1),
        lambda: PatternDrop(find=b"\x07\x08"),
        lambda: AllowAfter(bytes=700),
        lambda: Banner(text=b"hello", direction="both"),
        lambda: PendFin(delay=0.5, trailer=b"bye"),
        lambda: Fault(
            after=300, do=chance.choice(["fin", "rst", "truncate", "blackhole", "corrupt", "slice"])
        ),
        lambda: Fault(after=100, do="stall", for_="1s"),
    ]
    return [make() for make in chance.sample(made, chance.randrange(1, 4))]


@given(captures(), st.randoms(use_true_random=False), st.booleans())
def test_sums_hold_whatever_the_callouts_do(
    made: tuple[Capture, list[tuple[Sender, Sender, str]]], chance: Random, coalesce: bool
) -> None:
    """And what came in is what was captured, though a callout ended the connection long ago."""
    capture, known = made
    callouts = some_callouts(chance)
    for callout in callouts:
        event(type(callout).__name__)
    result = capture.replay(*callouts, coalesce=coalesce)
    for stream, (client, server, _) in zip(result.streams, known, strict=True):
        assert_sums(stream)
        assert stream.client_to_server.data_in == client.expected()[0]
        assert stream.server_to_client.data_in == server.expected()[0]
    # A FIN of their own making in the way out is what two of the faults are for.
    assert result.violations.keys() <= (
        {"V-19"} if any(isinstance(one, Fault) for one in callouts) else set()
    )


# --- damage -------------------------------------------------------------------------------------------


def small_captures() -> list[Path]:
    return sorted(path for path in SHARED.glob("*/*.pcap*") if path.stat().st_size < 8_000)


def made_captures() -> list[bytes]:
    """A few of our own, for where the shared ones are missing."""
    plain = Capture()
    client, server = plain.opened()
    client.send(b"GET / HTTP/1.1\r\n\r\n", push=True)
    server.send(b"x" * 700)
    close(client, server)
    six = Capture()
    client, server = six.opened(v6=True)
    client.send(b"b" * 50, at=50)
    client.send(b"a" * 50, at=0, urgent=3)
    server.rst()
    return [plain.pcap(), six.pcap()]


FILES: list[bytes] = made_captures() + [path.read_bytes() for path in small_captures()]


def damaged(data: bytes, chance: Random) -> bytes:
    """A few bytes changed, put in, left out, or an end cut off; mostly behind the file's header."""
    found = bytearray(data)
    for _ in range(chance.randrange(1, 12)):
        if len(found) < 2:
            break
        at = min(chance.randrange(len(found)) + chance.choice([0, 24]), len(found) - 1)
        kind = chance.random()
        if kind < 0.8:
            found[at] = chance.choice(
                [0, 1, 0xFF, found[at] ^ (1 << chance.randrange(8)), chance.randrange(256)]
            )
        elif kind < 0.87:
            found[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind < 0.94:
            del found[at : at + chance.randrange(1, 9)]
        else:
            del found[at:]
    return bytes(found)


def replayed(
    data: bytes, callouts: list[Callout], options: ReplayOptions, output: Path
) -> ReplayResult | None:
    try:
        return replay_capture(io.BytesIO(data), callouts, options=options, output=output)
    except CaptureError as error:
        lines = str(error).splitlines()
    assert len(lines) == 1
    return None


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "out.pcapng"


@given(st.sampled_from(FILES), st.randoms(use_true_random=False), st.booleans(), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_damaged_captures(output: Path, data: bytes, chance: Random, checked: bool, edited: bool) -> None:
    """Whatever a file holds: a CaptureError in one line, or streams whose sums hold, and an output that replays."""
    options = ReplayOptions(keep_data=True, verify_checksums=checked, linger=60)
    callouts = some_callouts(chance) if edited else []
    result = replayed(damaged(data, chance), callouts, options, output)
    if result is None:
        event("nothing could be read")
        return
    for stream in result.streams:
        assert_sums(stream)
    assert all("\n" not in problem for problem in result.problems)
    if edited:
        return
    again = replay_capture(output, options=ReplayOptions(keep_data=True))
    assert [
        (stream.client_to_server.data_in, stream.server_to_client.data_in) for stream in again.streams
    ] == [(stream.client_to_server.data_out, stream.server_to_client.data_out) for stream in result.streams]
