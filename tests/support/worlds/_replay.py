"""The replayer as a world: the script becomes a capture, and what it does beside that the engine's timers.

Owns the capture and the instants of its steps. It must not know what a case expects.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.replay.kit import ACK, FIN, PSH, RST, URG, Capture
from tests.replay.kit import Side as Sender
from wfpstream.engine import FilterEngine
from wfpstream.replay import ReplayOptions, ReplayResult, open_capture, replay_capture
from wfpstream.testing import (
    Act,
    Connect,
    EndState,
    Fin,
    Reset,
    Send,
    Step,
    Wait,
    WorldOutcome,
    WorldScript,
)
from wfpstream.wire import Segment, walk

MICROSECOND = 1_000
FIRST_PORT = 40_000
SEGMENT = 1460


class ReplayWorld:
    """A capture of what both sides say, each step a few microseconds after the one before."""

    name = "replay"
    capabilities = frozenset(("half_close", "reset", "urgent", "virtual_time", "second_flow", "connection"))

    def run(self, script: WorldScript) -> WorldOutcome:
        """Play the script."""
        recording = _Recording(script)
        events: list[dict[str, Any]] = []
        with TemporaryDirectory() as folder:
            output = Path(folder) / "out.pcapng"
            result = replay_capture(
                BytesIO(recording.capture.pcap()),
                engine=recording.engine,
                options=recording.options(),
                events=_Sink(events),
                output=output,
            )
            ends = _last_ends(result, output)
        assert result.problems == []
        return WorldOutcome(*ends, events)


class _Sink:
    wants_data = "full"

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self._events = events

    def __call__(self, event: dict[str, Any]) -> None:
        self._events.append(event)


class _Recording:
    """The capture of a script, and what is to be done when."""

    def __init__(self, script: WorldScript) -> None:
        self.capture = Capture(step=MICROSECOND)
        self.acts: list[tuple[int, Callable[[], object]]] = []
        self._script = script
        self._connections = 0
        self._sides: dict[str, Sender] = {}
        if script.connect:
            self._connect()
        for step in script.steps:
            self._perform(step)
        # The capture goes on to the instant of the last step, and no further: what is delayed longer stays so.
        self.capture.now += MICROSECOND
        self._sides["client"].ack()

    def engine(self, clock: Callable[[], float]) -> FilterEngine:
        engine = FilterEngine(clock, self._script.options)
        self._script.setup(engine)
        # The replayer's clock is 0 at the first frame.
        first_ns = self.capture.records[0][0]
        for time_ns, fn in self.acts:
            engine.call_at((time_ns - first_ns) / 1e9, lambda fn=fn: fn())  # type: ignore[misc]
        return engine

    def options(self) -> ReplayOptions:
        """What a peer sends at once is shown at once, however many segments it takes."""
        long = any(isinstance(step, Send) and len(step.data) > SEGMENT for step in self._script.steps)
        local = self._script.local
        return ReplayOptions(local=local, coalesce=long, push="captured", keep_data=True, linger=0)

    def _connect(self) -> None:
        client, server = self.capture.opened(FIRST_PORT + self._connections)
        self._connections += 1
        self._sides = {"client": client, "server": server}

    def _perform(self, step: Step) -> None:
        if isinstance(step, Send):
            self._send(step)
        elif isinstance(step, Fin):
            self._sides[step.by].fin()
            self._other(step.by).ack()
        elif isinstance(step, Reset):
            self._sides[step.by].rst()
        elif isinstance(step, Wait):
            self.capture.wait(step.seconds)
            self.acts.append((self.capture.now, lambda: None))
        elif isinstance(step, Act):
            self.capture.now += MICROSECOND
            self.acts.append((self.capture.now, step.fn))
        elif isinstance(step, Connect):
            self._connect()
        else:
            raise AssertionError(
                f"no {type(step).__name__} in this world: the case needs a capability it lacks"
            )

    def _send(self, step: Send) -> None:
        side = self._sides[step.by]
        for at in range(0, len(step.data), SEGMENT):
            piece = step.data[at : at + SEGMENT]
            # PSH ends a run of segments that the replayer shows as one; the urgent pointer names the byte behind.
            pushed = PSH * (step.push is not False and at + SEGMENT >= len(step.data))
            side.segment(ACK | pushed | URG * step.urgent, piece, urgent=len(piece) if step.urgent else 0)
        self._other(step.by).ack()

    def _other(self, by: str) -> Sender:
        return self._sides["server" if by == "client" else "client"]


def _last_ends(result: ReplayResult, output: Path) -> tuple[EndState, EndState]:
    """What the output capture says of the last connection."""
    stream = result.streams[-1]
    sent = {stream.client[1]: EndState(), stream.server[1]: EndState()}
    with open_capture(output) as reader:
        for _, link_type, frame in reader:
            segment = walk(link_type, frame)
            assert isinstance(segment, Segment)
            if stream.client[1] in (segment.source_port, segment.destination_port):
                _follow(sent[segment.source_port], segment)
    to_client, to_server = sent[stream.server[1]], sent[stream.client[1]]
    to_client.reset = to_server.reset = (
        to_client.reset or to_server.reset
    )  # one RST ends a connection for both
    assert (to_client.data, to_server.data) == (
        stream.server_to_client.data_out,
        stream.client_to_server.data_out,
    )
    return to_client, to_server


def _follow(sent: EndState, segment: Segment) -> None:
    if segment.flags & URG:
        sent.urgent += ((len(sent.data) + segment.urgent - 1, bytes(segment.payload)),)
    sent.data += bytes(segment.payload)
    sent.fin |= bool(segment.flags & FIN)
    sent.reset |= bool(segment.flags & RST)
