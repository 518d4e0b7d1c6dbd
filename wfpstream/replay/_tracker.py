"""Finds the TCP connections of a capture and hands each its segments.

Owns the table of streams, their numbers, port reuse and eviction, and what is done with frames that are no plain TCP
(fragments, tunnels, damage). It must not know files, nor what streams do with their segments.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from wfpstream import wire
from wfpstream.wire import plain_tcp

from ._fragments import Fragments
from ._half import Half
from ._order import QUIET, STEPS
from ._player import EVICTED, LATEST_NS, NONE, OPEN, Player
from ._stream import ACK, OVER, SYN, Stream
from ._tunnels import TunnelError, inner_packets

if TYPE_CHECKING:
    from ._order import Order
    from ._results import CaptureSummary

MAX_REPORTED = 20
UNKNOWN_LINK = "of an unknown link type"
_SETTLE_EVERY = 1024
# So many streams at a time remember their latest segments, to tell a repetition from a different copy.
_REMEMBERED = 4096
_MAX_NESTED = 4


Place = tuple[Stream, Half]


class Tracker:
    """The streams of one capture.

    Args:
        player: plays them.
        summary: counts packets and what was left out; problems are written there.
        on_stream: hears of every new stream before its first segment, with that one's flags, sequence and
            acknowledgement numbers.
        on_gone: hears of every stream that will not change any more.
        shard, shards: follow only this part of the streams, and number each by its first packet.
    """

    def __init__(
        self,
        player: Player,
        summary: CaptureSummary,
        on_stream: Callable[[Stream, int, int, int], None],
        on_gone: Callable[[Stream], None],
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        self._player = player
        self._order = player.order
        self._options = player.options
        self._summary = summary
        self._on_stream = on_stream
        self._on_gone = on_gone
        self._shard = shard
        self._shards = shards
        self._table: dict[bytes, Place] = {}
        self._others: set[bytes] = set()  # keys of streams that other shards follow
        self._live: dict[Stream, None] = {}  # in order of appearance
        self._settled: dict[Stream, None] = {}  # over and reported; kept to know their late segments
        self._settle_at = _SETTLE_EVERY
        self._number = 0
        self._strange_links: set[int] = set()
        self._fragments = Fragments()
        self._idle_ns = int(self._options.idle * 1e9)
        self._next_sweep_ns = 0
        self._plain_only = not self._options.verify_checksums

    def frame(self, time_ns: int, link_type: int, frame: bytes) -> None:
        """The next record of the capture."""
        order = self._order
        if order.now_ns < time_ns <= LATEST_NS:  # capture time never goes back
            if time_ns >= self._player.due_ns:
                self._player.run_until(time_ns)
            order.now_ns = time_ns
            if self._idle_ns and time_ns >= self._next_sweep_ns:
                self._sweep(time_ns)
        if self._plain_only:
            plain = plain_tcp(link_type, frame)
            if plain is not None:
                key, sequence, acknowledgement, flags, payload = plain
                place = self._table.get(key)
                if place is None or flags & (SYN | ACK) == SYN:
                    place = self._place_of(key, sequence, flags, acknowledgement)
                if place is not None:
                    stream, half = place
                    stream.segment(half, order.now_ns, sequence, acknowledgement, flags, payload)
                return
        self._walked(wire.walk(link_type, frame), link_type, frame, 0)

    @property
    def _packet(self) -> int:
        """The number of the packet under way, from 1."""
        return self._order.step // STEPS

    # -- frames that are not plain -----------------------------------------------------------------------

    def _walked(self, walked: wire.Walked, link_type: int, frame: bytes, depth: int) -> None:
        if isinstance(walked, wire.Segment):
            self._segment(walked)
        elif isinstance(walked, wire.Fragment):
            whole = self._fragments.add(walked, self._player.now_ns)
            if whole is not None:
                self._inner(whole, depth)
        elif walked.kind in (wire.SKIP_TUNNEL, wire.SKIP_UNKNOWN_LINK):
            self._tunnel(link_type, frame, depth, known_link=walked.kind == wire.SKIP_TUNNEL)
        elif walked.kind == wire.SKIP_MALFORMED:
            self._summary.ignore("malformed")

    def _inner(self, packet: bytes, depth: int) -> None:
        """An IP packet that was inside something."""
        if depth >= _MAX_NESTED:
            self._summary.ignore("nested too deep")
            return
        self._walked(wire.walk_ip(packet), wire.LINK_RAW, packet, depth + 1)

    def _tunnel(self, link_type: int, frame: bytes, depth: int, known_link: bool) -> None:
        """Whatever scapy finds inside. That there is a tunnel is often no more than a guess by a port."""
        try:
            packets = inner_packets(link_type, frame)
        except TunnelError as error:
            self._undissected(link_type, str(error), known_link)
            return
        for packet in packets:
            self._inner(packet, depth + 1)

    def _undissected(self, link_type: int, text: str, known_link: bool) -> None:
        """A tunnel that is none, or a link nobody here knows: that is told once, and is every packet's fault."""
        if known_link:
            self._report(self._summary.notes, text)
            self._summary.ignore("undissectable")
            return
        if link_type not in self._strange_links:
            self._strange_links.add(link_type)
            self._report(self._summary.problems, text)
        self._summary.ignore(UNKNOWN_LINK)

    def _report(self, lines: list[str], text: str) -> None:
        if len(lines) < MAX_REPORTED:
            lines.append(f"{self._summary.capture}: packet {self._packet}: {text}")

    def _segment(self, segment: wire.Segment) -> None:
        if self._options.verify_checksums and not segment.checksum_ok():
            self._summary.ignore("bad checksum")
            return
        ports = segment.source_port.to_bytes(2, "big") + segment.destination_port.to_bytes(2, "big")
        key = segment.source + segment.destination + ports
        place = self._place_of(key, segment.sequence, segment.flags, segment.acknowledgement)
        if place is not None:
            stream, half = place
            stream.segment(
                half,
                self._player.now_ns,
                segment.sequence,
                segment.acknowledgement,
                segment.flags,
                bytes(segment.payload),
                segment.urgent,
                segment.missing,
            )

    # -- streams -----------------------------------------------------------------------------------------

    def _place_of(self, key: bytes, sequence: int, flags: int, acknowledgement: int) -> Place | None:
        """The stream and direction a segment belongs to, known or new; None for another shard's."""
        place = self._table.get(key)
        if place is not None:
            stream, half = place
            reused = flags & (SYN | ACK) == SYN and stream.is_reused_by(half, sequence)
            if not reused:
                return place
            self._retire(stream, OPEN)
        if key in self._others:
            return None
        reverse = reversed_key(key)
        if self._shards > 1 and hash_of(key, reverse) % self._shards != self._shard:
            self._leave_to_others(key, reverse)
            return None
        return self._new_stream(key, reverse, flags, sequence, acknowledgement)

    def _leave_to_others(self, key: bytes, reverse: bytes) -> None:
        """Another shard follows it; remember so, as long as there are not too many."""
        if len(self._others) >= self._options.streams:
            self._others.clear()
        self._others.update((key, reverse))

    def _new_stream(
        self, key: bytes, reverse: bytes, flags: int, sequence: int, acknowledgement: int
    ) -> Place:
        if self._number >= self._settle_at:
            self._settle()
        if len(self._live) + len(self._settled) >= self._options.streams:
            self._make_room()
        number = self._number if self._shards == 1 else self._packet
        self._number += 1
        stream = Stream(self._player, number, self._packet, key, reverse)
        stream.began_ns = stream.last_ns = self._player.now_ns
        one, other = stream.halves
        if len(self._live) >= _REMEMBERED:
            one.keep_nothing()
            other.keep_nothing()
        self._table[other.key] = stream, other
        # The last word: a host that talks to itself from and to one port has one key.
        place = self._table[one.key] = stream, one
        self._live[stream] = None
        self._summary.streams += 1
        self._on_stream(stream, flags, sequence, acknowledgement)
        return place

    def closed(self, stream: Stream) -> None:
        """The engine is done with a stream: keep only what tells its late segments from a new one's."""
        if stream.phase == OVER:
            stream.forget()

    def _retire(self, stream: Stream, reason: str) -> None:
        """A stream is not followed any more."""
        if stream in self._live:
            if stream.phase != OVER:
                stream.flush(self._player.now_ns)
            self._player.end(stream, stream.ended or (reason if stream.attempt is not None else NONE))
            self._report_on(stream)
        self._settled.pop(stream, None)
        for half in stream.halves:
            place = self._table.get(half.key)
            if place is not None and place[1] is half:
                del self._table[half.key]

    def _report_on(self, stream: Stream) -> None:
        """Nothing can change it any more: hand its result on, and keep of it what fits in a few words."""
        stream.phase = OVER
        stream.forget()
        del self._live[stream]
        self._on_gone(stream)
        stream.let_go()

    def _settle(self) -> None:
        """Report what has been over for long enough; each time after so many new streams that it costs little."""
        now_ns = self._player.now_ns
        for stream in [s for s in self._live if s.flow is None and s.is_settled(now_ns)]:
            self._report_on(stream)
            self._settled[stream] = None
        self._settle_at = self._number + max(_SETTLE_EVERY, len(self._live) // 2)

    def _make_room(self) -> None:
        """The table is full: those that are over go first, then those quiet for longest."""
        room = max(1, self._options.streams // 8)
        for stream in list(islice(self._settled, room)):
            self._retire(stream, EVICTED)
        if len(self._live) + len(self._settled) >= self._options.streams:
            by_age = sorted(self._live, key=lambda stream: (stream.phase != OVER, stream.last_ns))
            for stream in by_age[:room]:
                self._evict(stream)

    def _evict(self, stream: Stream) -> None:
        if stream.phase != OVER:
            self._summary.ignore("streams evicted")
            which = f"the stream of packet {stream.first_packet}"
            self._report(self._summary.notes, f"{which} ended: too many at a time, or idle")
        self._retire(stream, EVICTED)

    def _sweep(self, time_ns: int) -> None:
        self._next_sweep_ns = time_ns + self._idle_ns // 4
        self._order.hold(QUIET)
        for stream in [s for s in self._live if time_ns - s.last_ns >= self._idle_ns]:
            self._evict(stream)
        self._order.release()

    def finish(self, order: Order) -> None:
        """The capture has ended: what is buffered is handed over, delays run out, every stream is retired."""
        player = self._player
        end_ns = player.now_ns
        order.step += STEPS
        order.hold()
        for stream in list(self._live):
            stream.flush(end_ns)
        order.release()
        order.step += STEPS
        player.run_until(end_ns + int(self._options.linger * 1e9))
        order.step += STEPS
        order.hold()
        for stream in sorted(self._live, key=lambda s: (max(end_ns, s.moved_ns), s.first_packet)):
            player.back_to(max(end_ns, stream.moved_ns))
            self._retire(stream, OPEN)
        order.release()
        incomplete = self._fragments.given_up + self._fragments.waiting
        if incomplete:
            self._summary.ignored["incomplete datagrams"] = incomplete


def reversed_key(key: bytes) -> bytes:
    """The other direction's key."""
    size = (len(key) - 4) // 2
    return key[size : 2 * size] + key[:size] + key[-2:] + key[-4:-2]


def hash_of(key: bytes, reverse: bytes) -> int:
    """The same number for both directions, in every process (`hash` is salted)."""
    return int.from_bytes(min(key, reverse), "big") % 1_000_003
