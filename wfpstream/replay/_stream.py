"""One captured TCP connection: what its segments say about its state.

Owns who is the client, when the connection is established, half-closed, over, and when a hole in it is given up. Bytes
go to `Half` to be put in order and from there, in order, to the player. It must not know frames, tables of streams or
the engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ._half import PLAUSIBLE_AHEAD, RECENT_BYTES, SEQUENCE_MASK, Half, Segment

if TYPE_CHECKING:
    from wfpstream.engine import Attempt, Flow

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
# A segment with just ACK of these is the usual one.
_TELLING = FIN | SYN | RST | ACK | URG

# Phases of a stream.
OPENING, LIVE, OVER = 0, 1, 2

# How long after its end what still comes of a connection is counted.
SETTLED_NS = 30_000_000_000
# A receiver that acknowledged bytes has them, so nobody will send them again: if the capture is only out of order, they
# come within a moment. A hole nobody acknowledges lasts as long as a sender may still try (RFC 6298: 60 s and more).
ACKED_HOLE_NS = 1_000_000_000
HOLE_NS = 120_000_000_000


class Writer(Protocol):
    """One stream of the output capture (`wire.StreamWriter`)."""

    def syn(self, time_ns: int) -> None: ...
    def syn_again(self, time_ns: int) -> None: ...
    def refused(self, time_ns: int) -> None: ...
    def established(self, time_ns: int) -> None: ...
    def data(self, time_ns: int, direction: int, pieces: list[memoryview]) -> None: ...
    def urgent(self, time_ns: int, direction: int, byte: bytes) -> None: ...
    def fin(self, time_ns: int, direction: int) -> None: ...
    def reset(self, time_ns: int, direction: int) -> None: ...


class Player(Protocol):
    """What a stream tells the world: the replay driver (`_player`)."""

    last_wins: bool
    ahead_limit: int
    ahead_total: int
    ahead_bytes: int

    def opened(self, stream: Stream) -> None: ...
    def established(self, stream: Stream) -> None: ...
    def refused(self, stream: Stream, by_server: bool) -> None: ...
    def was_reset(self, stream: Stream, half: Half) -> None: ...
    def check_at(self, due_ns: int, stream: Stream, half: Half) -> None: ...


class Stream:
    """A connection.

    Attributes:
        number: its place by first appearance in the capture, or whatever names it in events.
        first_packet: number of its first packet in the capture, from 1.
        halves: the directions; the first is that of the sender of the first segment.
        client: the half of the client, once known.
        midstream: the capture has neither a SYN nor a SYN-ACK of it.
        was_refused: the server reset it instead of answering, and has not answered since.
        ended: how it ended, as the player says; "" as long as it goes on.
        last_ns: capture time of its latest segment, ns; `moved_ns`: when its flow last had something to do.
        over_ns: capture time, ns, at which its end was seen; -1 before.
    """

    __slots__ = (
        "attempt",
        "began_ns",
        "client",
        "ended",
        "first_packet",
        "flow",
        "halves",
        "is_waiting",
        "last_ns",
        "midstream",
        "moved_ns",
        "number",
        "over_ns",
        "phase",
        "player",
        "was_refused",
        "writer",
    )

    def __init__(self, player: Player, number: int, first_packet: int, key: bytes, reverse: bytes) -> None:
        self.player = player
        self.number = number
        self.first_packet = first_packet
        one, other = Half(key), Half(reverse)
        one.peer, other.peer = other, one
        self.halves = (one, other)
        self.client: Half | None = None
        self.phase = OPENING
        self.midstream = True
        self.began_ns = 0
        self.last_ns = self.moved_ns = 0
        self.over_ns = -1
        self.was_refused = False
        self.ended = ""
        # The player's own.
        self.attempt: Attempt | None = None
        self.is_waiting = False
        self.flow: Flow | None = None
        self.writer: Writer | None = None

    def is_reused_by(self, half: Half, sequence: int) -> bool:
        """A SYN (without ACK) of `half` with this number opens a new connection on the same addresses and ports.

        One with the number of the first is that one again, whatever has happened since: the capture has it twice, or
        a refused client insists. (So it is for Wireshark, which makes both agree on what is a stream.)
        """
        return half.first >= 0 and half.first != sequence

    # -- segments --------------------------------------------------------------------------------------

    def segment(
        self,
        half: Half,
        time_ns: int,
        sequence: int,
        acknowledgement: int,
        flags: int,
        payload: bytes,
        urgent: int = 0,
        missing: int = 0,
    ) -> None:
        """One TCP segment sent by `half`, in the order of the capture.

        Args:
            time_ns: capture time, ns.
            sequence, acknowledgement, flags, urgent: as in the header.
            payload: its bytes, as far as captured.
            missing: how many bytes of it the capture cut off.
        """
        self.last_ns = time_ns
        if (
            sequence == half.next & SEQUENCE_MASK
            and flags & _TELLING == ACK
            and self.phase == LIVE
            and half.hole_since < 0
            and half.peer.hole_since < 0
            and not missing
            and half.fin_at < 0
        ):
            half.acked = acknowledgement
            if payload:
                if len(payload) <= RECENT_BYTES:  # as Half.deliver
                    half.recent.append((half.next, payload))
                half.next += len(payload)
                half.feed.take(payload, flags & PSH)
            return
        self._unusual(half, time_ns, sequence, acknowledgement, flags, payload, urgent, missing)

    def _unusual(
        self,
        half: Half,
        time_ns: int,
        sequence: int,
        acknowledgement: int,
        flags: int,
        payload: bytes,
        urgent: int,
        missing: int,
    ) -> None:
        if self.is_settled(time_ns):
            return
        if half.first < 0:
            half.first = sequence if flags & SYN else (sequence - 1) & SEQUENCE_MASK
        if flags & RST:
            self._reset(half, sequence, acknowledgement if flags & ACK else -1)
            return
        if flags & SYN:
            self._syn(half, sequence, acknowledgement, flags)
            sequence = (sequence + 1) & SEQUENCE_MASK
        if flags & ACK:
            half.acked = acknowledgement
        carries = bool(payload or missing or flags & FIN)
        if self.phase == OPENING:
            self._consider(half, flags, carries)
        if carries and self.phase != OVER:
            self._bytes(half, time_ns, sequence, flags, payload, urgent, missing)
        elif carries:
            self._late(half, sequence, flags, payload)
        self._look_for_holes(time_ns)

    def is_settled(self, time_ns: int) -> bool:
        """It has been over for so long that nothing is counted any more."""
        return self.phase == OVER and time_ns - self.over_ns > SETTLED_NS

    def _end(self) -> None:
        self.phase = OVER
        self.over_ns = self.last_ns

    def _syn(self, half: Half, sequence: int, acknowledgement: int, flags: int) -> None:
        """A SYN says where its direction begins; a SYN-ACK also where the other does."""
        if self.was_refused and flags & ACK:
            self._reopen()
        nothing_yet = self.phase == OPENING
        if nothing_yet or half.is_untouched:
            half.begin(sequence + 1)
            half.first = sequence
        half.syn = True
        self.midstream = self.midstream and self.phase != OPENING
        answers = flags & ACK
        if answers and half.peer.next < 0:
            half.peer.begin(acknowledgement)
        if self.client is None:
            self.client = half.peer if answers else half
            self.player.opened(self)
        elif nothing_yet and not answers and not half.peer.syn:
            self.client = half

    def _reopen(self) -> None:
        """After a refusal the same SYN was answered."""
        self.was_refused = False
        self.phase = OPENING
        self.player.opened(self)

    def _consider(self, half: Half, flags: int, carries: bool) -> None:
        """Is the connection there? A SYN-ACK, data, or, after a SYN, whatever is no SYN says so."""
        answered = flags & (SYN | ACK) == SYN | ACK
        after_syn = self.client is not None and not flags & SYN
        if after_syn and not carries and self._is_answer(half) and not half.answers(half.acked):
            return  # left over from an earlier connection; the client will reset it (RFC 9293, section 3.5.1)
        if not (carries or answered or after_syn):
            return
        if self.client is None:
            self.client = self.halves[0]
            self.player.opened(self)
        self.phase = LIVE
        self.player.established(self)

    def _is_answer(self, half: Half) -> bool:
        """So far there is nothing but a SYN of the other side: `half` speaks to that."""
        return self.phase == OPENING and half.peer.syn and not half.syn

    # -- bytes and FIN ---------------------------------------------------------------------------------

    def _bytes(
        self,
        half: Half,
        time_ns: int,
        sequence: int,
        flags: int,
        payload: bytes,
        urgent: int,
        missing: int,
    ) -> None:
        if half.next < 0:
            half.begin(sequence)
        start = half.unwrap(sequence)
        end = start + len(payload)
        if not half.fits(start):
            return
        if missing:
            half.promise(end + missing)
        if flags & FIN and half.fin_at < 0 and end + missing >= half.next:
            before = half.buffered
            half.end_at(end + missing)
            self.player.ahead_bytes += half.buffered - before
        if 0 <= half.fin_at < end:
            half.after_end += end - max(half.fin_at, start)
            payload = payload[: max(0, half.fin_at - start)]
        if flags & URG and urgent:
            self._note_urgent(half, start + urgent - 1)
        if payload:
            self._offer(half, start, payload, flags, time_ns)
        self._finish(half, time_ns)

    def _note_urgent(self, half: Half, at: int) -> None:
        """The pointer names the last urgent byte as everybody's sockets have it (RFC 6093, section 2)."""
        if at >= half.next and at not in half.urgent and at - half.next <= SEQUENCE_MASK >> 16:
            half.urgent.append(at)

    def _offer(self, half: Half, start: int, payload: bytes, flags: int, time_ns: int) -> None:
        player = self.player
        before = half.buffered
        if flags & PSH and len(half.pushed) <= len(half.ahead):  # no more of them than segments
            half.pushed.add(start + len(payload))
        ready = half.offer(start, payload, time_ns, player.last_wins)
        player.ahead_bytes += half.buffered - before
        if ready:
            self._hand_over(half, ready)
        if half.hole_since == time_ns:
            self._look_at(half, time_ns + HOLE_NS)
        while half.ahead and (half.buffered > player.ahead_limit or player.ahead_bytes > player.ahead_total):
            self._skip_hole(half, time_ns, half.hole_end)

    def _hand_over(self, half: Half, ready: list[Segment]) -> None:
        for start, data in ready:
            if half.urgent:
                self._hand_over_urgent(half, start, data)
            else:
                half.feed.take(data, (start + len(data)) in half.pushed)
        if half.pushed:
            half.pushed = {end for end in half.pushed if end > half.next}

    def _hand_over_urgent(self, half: Half, start: int, data: bytes) -> None:
        """Each urgent byte is an item of its own (IND-7); one already overtaken is an ordinary byte."""
        end = start + len(data)
        for at in sorted(at for at in half.urgent if start <= at < end):
            if at > start:
                half.feed.take(data[: at - start], 1)
            half.feed.take_urgent(data[at - start : at - start + 1])
            data = data[at - start + 1 :]
            start = at + 1
        half.urgent = [at for at in half.urgent if at >= end]
        if data:
            half.feed.take(data, end in half.pushed)

    def _finish(self, half: Half, time_ns: int) -> None:
        """The FIN counts when everything before it is there."""
        if half.fin or half.fin_at < 0:
            return
        if half.next < half.fin_at:
            if half.hole_since < 0:
                half.hole_since = time_ns
                self._look_at(half, time_ns + HOLE_NS)
            return
        half.fin = True
        half.hole_since = half.hole_acked = -1
        half.feed.take_fin()
        if half.peer.fin:
            self._end()

    def _late(self, half: Half, sequence: int, flags: int, payload: bytes) -> None:
        """The connection is over: what is new is counted, never indicated."""
        if flags & FIN:
            half.fin = True
        if half.next < 0:
            half.begin(sequence)
        beyond = half.unwrap(sequence) + len(payload) - half.next
        half.after_end += max(0, min(beyond, len(payload)))
        half.repeated += len(payload) - max(0, min(beyond, len(payload)))

    # -- holes -----------------------------------------------------------------------------------------

    def _look_for_holes(self, time_ns: int) -> None:
        for half in self.halves:
            if half.hole_since >= 0 and half.hole_acked < 0 and half.peer.has_acked(half, half.next):
                half.hole_acked = time_ns
                half.hole_acked_to = half.unwrap(half.peer.acked)
                self._look_at(half, time_ns + ACKED_HOLE_NS)

    def _look_at(self, half: Half, due_ns: int) -> None:
        """Look at the hole again then. One look at a time is enough: it finds out when the next is due."""
        if half.look_ns < 0 or due_ns < half.look_ns:
            half.look_ns = due_ns
            self.player.check_at(due_ns, self, half)

    def check_hole(self, half: Half, time_ns: int) -> None:
        """A moment announced by `check_at` has come: is the hole still there, and old enough?"""
        if time_ns >= half.look_ns:
            half.look_ns = -1
        if self.phase == OVER or half.hole_since < 0 or not half.has_hole:
            return
        due_ns, reach = half.hole_since + HOLE_NS, half.hole_end
        if half.hole_acked >= 0 and half.hole_acked + ACKED_HOLE_NS <= min(due_ns, time_ns):
            due_ns, reach = half.hole_acked + ACKED_HOLE_NS, half.hole_acked_to
        if time_ns < due_ns:
            self._look_at(half, due_ns if half.hole_acked < 0 else half.hole_acked + ACKED_HOLE_NS)
            return
        while self.phase == LIVE and half.next < reach and half.has_hole:
            self._skip_hole(half, time_ns, reach)
        self._look_for_holes(time_ns)

    def _skip_hole(self, half: Half, time_ns: int, reach: int) -> None:
        """POL-4: the bytes in the hole, as far as `reach`, are missing for good; the stream goes on behind them."""
        before = half.buffered
        half.feed.take_gap(half.skip_hole(reach))
        ready = half.in_order(time_ns)
        self.player.ahead_bytes += half.buffered - before
        self._hand_over(half, ready)
        if half.has_hole:
            half.hole_since, half.hole_acked = time_ns, -1
            self._look_at(half, time_ns + HOLE_NS)
        self._finish(half, time_ns)

    # -- the end ---------------------------------------------------------------------------------------

    def _reset(self, half: Half, sequence: int, acknowledgement: int) -> None:
        """A reset counts if its receiver would have taken it (RFC 5961, section 3.2, with what we know).

        One in answer to a SYN must acknowledge it (RFC 9293, section 3.10.7.3), if it acknowledges anything.
        """
        stale = self._is_answer(half) and acknowledgement >= 0 and not half.answers(acknowledgement)
        if stale or not self._is_plausible(half, sequence):
            half.out_of_window += 1
            return
        half.rst = True
        if self.phase == OPENING:
            if self.client is not None:  # else it ends nothing that we know of
                self._end()
                self.was_refused = half is not self.client
                self.player.refused(self, by_server=self.was_refused)
        elif self.phase == LIVE:
            self.flush(self.last_ns)
            if self.phase == LIVE:
                self._end()
                self.player.was_reset(self, half)

    @staticmethod
    def _is_plausible(half: Half, sequence: int) -> bool:
        if half.next < 0:
            return True
        at = half.unwrap(sequence)
        receiver_has = half.peer.acked
        lowest = min(half.next, half.unwrap(receiver_has)) if receiver_has >= 0 else half.next
        highest = max(half.next, half.ahead[-1][0] + len(half.ahead[-1][1]) if half.ahead else 0)
        return lowest <= at <= highest + PLAUSIBLE_AHEAD

    def flush(self, time_ns: int) -> None:
        """Nothing more will come: give up every hole and hand over what lies behind."""
        for half in self.halves:
            while half.has_hole and self.phase == LIVE:
                self._skip_hole(half, time_ns, half.hole_end)

    def forget(self) -> None:
        """Keep only what tells late segments from new connections."""
        for half in self.halves:
            self.player.ahead_bytes -= half.buffered
            half.forget()

    def let_go(self) -> None:
        """It has been reported: let go of everything that is not needed to recognise its late segments."""
        self.attempt = self.flow = self.writer = None
        for half in self.halves:
            if hasattr(half, "feed"):
                del half.feed
