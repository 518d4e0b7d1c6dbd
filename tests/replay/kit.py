"""Captures made by hand: two ends of a TCP connection say segment by segment what was on the wire.

Positions are offsets into a direction's stream (0 is the byte behind the SYN), so that a test reads as what it shows.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, StreamFlags
from wfpstream.replay import DirectionResult, ReplayOptions, ReplayResult, StreamResult, replay_capture
from wfpstream.wire import LINK_ETHERNET, pcap_header, pcap_record, tcp_frame

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
MASK = 0xFFFFFFFF

Event = dict[str, Any]


class Capture:
    """Frames with their times. A frame comes `step` after the one before it; `wait` adds to that.

    Attributes:
        now: time of the latest frame, ns.
        records: (time in ns, frame, length on the wire).
    """

    def __init__(self, step: int = MILLISECOND) -> None:
        self.now = START
        self.step = step
        self.records: list[tuple[int, bytes, int]] = []

    def connection(
        self, port: int = 40_000, client_isn: int = 1_000, server_isn: int = 500_000, *, v6: bool = False
    ) -> tuple[Side, Side]:
        """Both ends of a connection; nothing is captured of it yet."""
        ends = ("fd00::1", "fd00::2") if v6 else ("10.0.0.1", "10.0.0.2")
        family = socket.AF_INET6 if v6 else socket.AF_INET
        client, server = ((socket.inet_pton(family, ends[i]), (port, 80)[i]) for i in range(2))
        one, other = Side(self, client, server, client_isn), Side(self, server, client, server_isn)
        one.peer, other.peer = other, one
        return one, other

    def opened(self, port: int = 40_000, **more: Any) -> tuple[Side, Side]:
        """As `connection`, with its handshake captured."""
        client, server = self.connection(port, **more)
        client.syn()
        server.syn_ack()
        client.ack()
        return client, server

    def wait(self, seconds: float) -> None:
        """Nothing is captured for so long."""
        self.now += int(seconds * SECOND)

    def add(self, frame: bytes, captured: int | None = None) -> None:
        """The next frame; of a cut one only the first `captured` bytes."""
        self.now += self.step
        self.records.append((self.now, frame[:captured], len(frame)))

    def pcap(self) -> bytes:
        """The capture as a file, nanoseconds and all."""
        records = (pcap_record(time, frame, True, length) for time, frame, length in self.records)
        return pcap_header(LINK_ETHERNET, nanoseconds=True) + b"".join(records)

    def write(self, path: Path) -> Path:
        path.write_bytes(self.pcap())
        return path

    def replay(
        self,
        *callouts: Callout,
        events: Callable[[Event], Any] | None = None,
        output: Path | None = None,
        engine: Any = None,
        answers: Any = None,
        **options: Any,
    ) -> ReplayResult:
        """What becomes of the capture; bytes are kept, and other `options` are those of `ReplayOptions`."""
        return replay_capture(
            io.BytesIO(self.pcap()),
            callouts,
            engine=engine,
            options=ReplayOptions(**{"keep_data": True, **options}),
            events=events,
            output=output,
            answers=answers,
        )

    def only(self, *callouts: Callout, **options: Any) -> StreamResult:
        """`replay` of a capture of one stream: that stream."""
        (stream,) = self.replay(*callouts, **options).streams
        return stream

    def upward(self, *callouts: Callout, **options: Any) -> DirectionResult:
        """`only`, what the client sent."""
        return self.only(*callouts, **options).client_to_server


class Side:
    """One end of a connection: every call captures one segment that it sends.

    Attributes:
        isn: sequence number of its SYN.
        sent: how much it has sent, FIN included: where the next `send` goes on, and what the peer acknowledges.
    """

    peer: Side

    def __init__(self, capture: Capture, own: tuple[bytes, int], other: tuple[bytes, int], isn: int) -> None:
        self.capture = capture
        self.own = own
        self.other = other
        self.isn = isn
        self.sent = 0

    def segment(
        self,
        flags: int,
        payload: bytes = b"",
        *,
        at: int | None = None,
        ack: int | None = None,
        urgent: int = 0,
        captured: int | None = None,
        window: int = 65_535,
    ) -> None:
        """Any segment.

        Args:
            at: where its first byte lies; -1 is the SYN itself.
            ack: how much of the peer's stream it acknowledges; all, if not said.
            captured: how many bytes of its payload the capture holds.
        """
        at = self.sent if at is None else at
        ack = self.peer.sent if ack is None else ack
        frame = tcp_frame(
            self.own[0],
            self.other[0],
            self.own[1],
            self.other[1],
            (self.isn + 1 + at) & MASK,
            (self.peer.isn + 1 + ack) & MASK if flags & ACK else 0,
            flags,
            payload,
            urgent=urgent,
            window=window,
        )
        kept = None if captured is None else len(frame) - len(payload) + captured
        self.capture.add(frame, kept)
        if not flags & RST:
            self.sent = max(self.sent, at + len(payload) + bool(flags & FIN) + bool(flags & SYN))

    def syn(self, payload: bytes = b"") -> None:
        self.segment(SYN, payload, at=-1)
        self.sent = max(self.sent, len(payload))

    def syn_ack(self, ack: int | None = None) -> None:
        self.segment(SYN | ACK, at=-1, ack=ack)

    def ack(self, ack: int | None = None) -> None:
        """An empty segment."""
        self.segment(ACK, ack=ack)

    def send(self, payload: bytes, at: int | None = None, *, push: bool = False, **more: Any) -> None:
        """Data."""
        self.segment(ACK | PSH if push else ACK, payload, at=at, **more)

    def lose(self, payload: bytes) -> None:
        """Data that was sent and not captured."""
        self.sent += len(payload)

    def fin(self, payload: bytes = b"", **more: Any) -> None:
        self.segment(ACK | FIN, payload, **more)

    def rst(self, at: int | None = None, **more: Any) -> None:
        self.segment(RST, at=at, **more)


def close(client: Side, server: Side) -> None:
    """FIN, FIN and the last ACK."""
    client.fin()
    server.fin()
    client.ack()


# --- callouts that watch or answer ------------------------------------------------------------------

OUTBOUND, INBOUND = int(StreamFlags.SEND), int(StreamFlags.RECEIVE)
INBOUND_PUSH = int(StreamFlags.RECEIVE | StreamFlags.RECEIVE_PUSH)


class Item(NamedTuple):
    """What one indication showed; `at` is capture time since the first frame, in seconds."""

    flags: int
    data: bytes
    missed: int
    at: float

    @property
    def is_outbound(self) -> bool:
        """It went from the local host."""
        return bool(self.flags & OUTBOUND)


class Tape(Callout):
    """Permits everything and keeps what it was shown."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def classify_stream(self, *call: Any) -> None:
        packet, out = call[2], call[-1]
        stream = packet.stream_data
        self.items.append(
            Item(int(stream.flags), stream.tobytes(), packet.missed_bytes, round(self.fwps.now(), 9))
        )
        out.action_type = ActionType.PERMIT

    def data(self, outbound: bool = True) -> list[bytes]:
        """The items of one direction that had bytes."""
        return [item.data for item in self.items if item.data and item.is_outbound == outbound]


class Answering(Callout):
    """Its classify function is the test's."""

    def __init__(self, classify: Callable[..., object], *layers: str) -> None:
        self.layers = layers or ("stream",)  # type: ignore[misc]
        self._classify = classify

    def classify_fn(self, *call: Any) -> None:
        self._classify(*call)


def engine_with(*callouts: Callout, **policy: str) -> Callable[[Callable[[], float]], FilterEngine]:
    """Makes engines with these policies."""

    def make(clock: Callable[[], float]) -> FilterEngine:
        options = EngineOptions()
        for name, value in policy.items():
            assert hasattr(options.policy, name)
            setattr(options.policy, name, value)
        engine = FilterEngine(clock, options)
        for callout in callouts:
            engine.add_callout(callout)
        return engine

    return make
