"""Replays one capture, or one shard of it: reader, tracker, player and results in one place.

Owns the run from the first packet to the last report. It must not know the command line, processes or output files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, cast

from wfpstream.engine import EngineOptions, FilterEngine
from wfpstream.fwps import Callout
from wfpstream.wire import StreamWriter

from ._feed import Feed
from ._half import Half
from ._options import ReplayOptions
from ._order import STEPS, Event, EventTaker, FrameTaker, Key, Order
from ._output import CaptureFile, format_of
from ._player import LATEST_NS, NONE, EngineFactory, Player, addresses_of
from ._reader import CaptureReader, open_capture
from ._results import CaptureSummary, DirectionResult, StreamResult
from ._stream import ACK, SYN, Stream
from ._tracker import UNKNOWN_LINK, Tracker

CaptureSource = str | os.PathLike[str] | BinaryIO

# Packets between two reports of progress.
_PROGRESS = 4096
_OUTPUT_BUFFER = 256 * 1024


class CaptureReplay:
    """One pass over one capture.

    Args:
        reader: its packets.
        make_engine: makes the engine with its callouts.
        options: how to replay.
        take_result: gets each stream's result when nothing can change it any more, in no particular order.
        take_event, take_frame: get events and frames of the output capture, with their place in the order.
        wants_data, wants_trace: payload in events (off, preview, full), and events that concern single bytes.
        shard, shards: follow only the streams of this shard; `number` in results and events is then the stream's
            first packet, which a merger turns into its place.
        answers: for `Worker.call`, see `Player`.
        progress: called now and then with the bytes of the file read so far.
    """

    def __init__(
        self,
        reader: CaptureReader,
        make_engine: EngineFactory,
        options: ReplayOptions,
        take_result: Callable[[StreamResult], None],
        take_event: EventTaker | None = None,
        take_frame: FrameTaker | None = None,
        *,
        wants_data: str = "off",
        wants_trace: bool = True,
        shard: int = 0,
        shards: int = 1,
        answers: Mapping[Any, Any] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.summary = CaptureSummary(reader.name)
        self._reader = reader
        self._make_engine = make_engine
        self._options = options
        self._take_result = take_result
        self._order = Order(take_event, take_frame)
        self._writes = take_frame is not None
        traced = take_event is not None and wants_trace
        self._sink = _Sink(self._order, self.summary, traced, wants_data)
        self._shard = shard
        self._shards = shards
        self._answers = answers
        self._progress = progress
        self.start_ns = 0
        self._tracker: Tracker
        self._player: Player

    def run(self) -> CaptureSummary:
        """Replay the capture to its end."""
        packets = 0
        for time_ns, link_type, frame in self._reader:
            if not packets:
                self._start(time_ns)
                take_frame, order = self._tracker.frame, self._order
            packets += 1
            order.step += STEPS
            take_frame(time_ns, link_type, frame)
            if self._progress is not None and not packets % _PROGRESS:
                self._progress(self._reader.position)
        self.summary.packets = packets
        if packets:
            self._finish()
            self.summary.unreadable = self.summary.ignored.get(UNKNOWN_LINK) == packets
        if self._reader.problem:
            self.summary.problems.append(self._reader.problem)
        return self.summary

    def _start(self, start_ns: int) -> None:
        start_ns = min(max(start_ns, 0), LATEST_NS)
        self._player = Player(
            self._make_engine, self._options, start_ns, self._closed, self._order, self._answers
        )
        self.start_ns = start_ns
        self._player.engine.add_sink(self._sink)
        self._tracker = Tracker(
            self._player, self.summary, self._opened, self._gone, self._shard, self._shards
        )

    def _finish(self) -> None:
        self._tracker.finish(self._order)
        self._order.step += STEPS
        self._player.engine.stop()

    # -- streams -----------------------------------------------------------------------------------------

    def _opened(self, stream: Stream, flags: int, sequence: int, acknowledgement: int) -> None:
        """A new stream: its place in the output capture is where its first segment was."""
        if not self._writes:
            return
        sender = stream.halves[0]
        answers = flags & (SYN | ACK) == SYN | ACK
        client = sender.peer if answers else sender
        own = sequence if flags & SYN else sequence - 1
        others = acknowledgement - 1 if flags & ACK else own ^ 0x5A5A5A5A
        client_isn, server_isn = (others, own) if answers else (own, others)
        source, destination = _packed(client.key)
        stream.writer = StreamWriter(
            lambda time_ns, frame: self._order.frame(stream.number, time_ns, frame),
            source,
            destination,
            client_isn & 0xFFFFFFFF,
            server_isn & 0xFFFFFFFF,
        )
        stream.writer.syn(self._player.now_ns)

    def _closed(self, stream: Stream) -> None:
        self._tracker.closed(stream)

    def _gone(self, stream: Stream) -> None:
        client = stream.client or stream.halves[0]
        source, destination = addresses_of(client.key)
        self._take_result(
            StreamResult(
                capture=self.summary.capture,
                stream=stream.number,
                client=source,
                server=destination,
                midstream=stream.midstream,
                ended=stream.ended or NONE,
                client_to_server=_direction(stream, client, self._options.keep_data),
                server_to_client=_direction(stream, client.peer, self._options.keep_data),
                first_packet=stream.first_packet,
                began=stream.began_ns / 1e9,
                duration=((stream.last_ns if stream.over_ns < 0 else stream.over_ns) - stream.began_ns) / 1e9,
            )
        )


class _Sink:
    """The engine's sink: events in order, and a count of broken contracts, lint left out (VRF-3)."""

    def __init__(self, order: Order, summary: CaptureSummary, wanted: bool, wants_data: str) -> None:
        self.wants_trace = wanted
        self.wants_data = wants_data if wanted else "off"
        self._order = order
        self._violations = summary.violations

    def __call__(self, event: Event) -> None:
        if event["event"] == "violation" and event.get("severity") != "L":
            rule = event["rule"]
            self._violations[rule] = self._violations.get(rule, 0) + 1
        self._order.event(event)


def _packed(key: bytes) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    """Source and destination of a direction's key, addresses packed."""
    size = (len(key) - 4) // 2
    ports = (int.from_bytes(key[-4:-2], "big"), int.from_bytes(key[-2:], "big"))
    return (key[:size], ports[0]), (key[size : 2 * size], ports[1])


def _direction(stream: Stream, half: Half, keep_data: bool) -> DirectionResult:
    if stream.attempt is not None:
        counted = cast(Feed, half.feed).totals()
    else:
        counted = _NOTHING | {"data_in": b"", "data_out": b""} if keep_data else _NOTHING
    return DirectionResult(
        fin=half.fin,
        rst=half.rst,
        retransmitted=half.repeated,
        conflicts=half.conflicts,
        late=half.after_end,
        out_of_window=half.out_of_window,
        **counted,
    )


_NO_BYTES = hashlib.sha256().hexdigest()
_NOTHING: dict[str, Any] = {"sha256_in": _NO_BYTES, "sha256_out": _NO_BYTES}


# -- for tests and notebooks -----------------------------------------------------------------------------


@dataclass
class ReplayResult:
    """What became of one capture.

    Attributes:
        streams: one result per TCP connection, in order of first appearance.
        summary: the capture as a whole, its problems and the callouts' violations.
    """

    streams: list[StreamResult] = field(default_factory=list)
    summary: CaptureSummary = field(default_factory=lambda: CaptureSummary(""))

    @property
    def problems(self) -> list[str]:
        """One line for each thing that could not be read."""
        return self.summary.problems

    @property
    def violations(self) -> dict[str, int]:
        """How often each rule of the callout contract was broken; lint left out."""
        return self.summary.violations


def replay_capture(
    capture: CaptureSource,
    callouts: Iterable[Callout] = (),
    *,
    engine: EngineFactory | None = None,
    options: ReplayOptions | None = None,
    verify: str = "warn",
    events: Callable[[Event], Any] | None = None,
    output: str | os.PathLike[str] | None = None,
    answers: Mapping[Any, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> ReplayResult:
    """Replay a capture through callouts and tell what they did to each of its streams.

    ::

        result = replay_capture("http.pcap", [StreamEdit(find=b"rainy", replace=b"sunny")])
        assert result.streams[0].server_to_client.injected

    Args:
        capture: a path, "-" for standard input, or an open binary file; pcap or pcapng, gzip or not.
        callouts: asked in this order, each in a sublayer of its own.
        engine: makes the engine instead, with its callouts, on the clock it is given; `callouts` come after them.
        options: how to replay.
        verify: "off", "warn" or "strict", for an engine made here.
        events: gets every net event, in an order that does not depend on anything but capture and callouts; its
            attribute `wants_data` (off, preview, full) asks for payload.
        output: where to write the capture of what left the engine: pcap or pcapng by its suffix.
        answers: what `Worker.call(fn, ...)` gets, by `fn`: there is no event loop here.
        progress: called now and then with the bytes of the file read so far.

    Raises:
        CaptureError: nothing of the capture can be read. What is cut or damaged further on is in `problems`.
        OSError: the output cannot be written.
        ValueError: the output's suffix is unknown.
    """
    make_engine = _engine_with(engine or _plain_engine(verify), tuple(callouts))
    options = options if options is not None else ReplayOptions()
    results: list[StreamResult] = []
    with open_capture(capture) as reader, _output_file(output) as file:
        replay = CaptureReplay(
            reader,
            make_engine,
            options,
            results.append,
            None if events is None else _numbered(events),
            None if file is None else lambda key, time_ns, frame: file.write(time_ns, frame),
            wants_data=getattr(events, "wants_data", "off"),
            answers=answers,
            progress=progress,
        )
        summary = replay.run()
    results.sort(key=lambda result: result.stream)
    return ReplayResult(results, summary)


def _plain_engine(verify: str) -> EngineFactory:
    def make(clock: Callable[[], float]) -> FilterEngine:
        options = EngineOptions()
        options.verify.level = verify
        return FilterEngine(clock, options)

    return make


def _engine_with(make: EngineFactory, callouts: Sequence[Callout]) -> EngineFactory:
    def make_all(clock: Callable[[], float]) -> FilterEngine:
        engine = make(clock)
        for callout in callouts:
            engine.add_callout(callout)
        return engine

    return make_all


def _numbered(take: Callable[[Event], Any]) -> EventTaker:
    """Events in their final order, numbered so."""
    numbers = count(1)

    def take_numbered(key: Key, event: Event) -> None:
        take({**event, "seq": next(numbers)})

    return take_numbered


@contextmanager
def _output_file(path: str | os.PathLike[str] | None) -> Iterator[CaptureFile | None]:
    """A capture that takes its place when it is whole, private as temporary files are; a FIFO has no such place."""
    if path is None:
        yield None
        return
    kind = format_of(path)
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as stream:
            yield CaptureFile(stream, kind)
        return
    folder = os.path.dirname(os.fspath(path)) or "."
    with NamedTemporaryFile(dir=folder, prefix=".replay.", delete=False, buffering=_OUTPUT_BUFFER) as beside:
        try:
            file = CaptureFile(cast(BinaryIO, beside), kind)
            yield file
            file.close()
            os.replace(beside.name, path)
        except BaseException:
            os.unlink(beside.name)
            raise
