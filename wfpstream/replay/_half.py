"""One direction of a captured TCP connection: its sequence space, put back in order.

Owns where the stream is (`next`), what arrived ahead of it, which copy of a byte counts, and when a hole will not be
filled any more. It must not know packets, engines or who is the client. Sequence numbers are unwrapped: `next` starts
below 2**32 and grows past it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import Protocol

Segment = tuple[int, bytes]
"""(unwrapped sequence number of the first byte, bytes)."""

SEQUENCE_MASK = 0xFFFFFFFF
_HALF_SPACE = 1 << 31
# The largest window TCP can offer (RFC 7323: 65,535 << 14): a segment further ahead belongs to nothing we know.
MAX_AHEAD = 1 << 30
# How far beyond what we saw an honest reset or acknowledgement may lie: the capture may have lost bytes before it.
PLAUSIBLE_AHEAD = 1 << 24
# What a buffered segment costs beside its bytes; one-byte segments must not be free.
SEGMENT_COST = 128
# Segments that one other covers are put together if they are many, or the next to cover them walks them all again.
_MANY_PIECES = 8
_LARGEST_PIECE = 64 * 1024
# Delivered segments kept to tell a retransmission from a different copy (references, not copies).
_RECENT_SEGMENTS = 4
RECENT_BYTES = 8192


class Taker(Protocol):
    """Where a direction's bytes go, in order (`_feed.Feed`)."""

    def take(self, payload: bytes, push: int) -> None: ...
    def take_urgent(self, byte: bytes) -> None: ...
    def take_gap(self, length: int) -> None: ...
    def take_fin(self) -> None: ...
    def flush(self, push: int = 0) -> None: ...


class Half:
    """One direction, from the side of its sender.

    Attributes:
        next: unwrapped sequence number of the next byte to deliver; -1 until the direction's base is known.
        first: sequence number of its SYN, real or deduced from the first segment; -1 before.
        acked: the last acknowledgement number this side sent about the other direction; -1 before.
        ahead: segments that arrived before their turn: (unwrapped start, bytes), sorted, not overlapping.
        buffered: what `ahead` costs, bytes, each segment's overhead included.
        fin_at: unwrapped sequence number of the FIN, -1 before.
        fin: the FIN was delivered, or came when the connection was over already.
        rst: this side sent a reset that counted.
        hole_since: capture time, ns, since which the hole before `ahead` has been there.
        hole_acked: capture time, ns, at which the other side acknowledged bytes in the hole; -1 before.
        hole_acked_to: how far it had acknowledged then, unwrapped.
        look_ns: capture time, ns, of the next look at the hole; -1 if none is due.
        base: `next` as it was before anything was delivered.
        recent: segments delivered last, to tell a repetition from a different copy (references, not copies).
        promised: unwrapped end of a segment of which the capture holds only the front (snaplen); -1 without.
        urgent: unwrapped sequence numbers of urgent bytes not yet delivered.
        pushed: unwrapped ends of segments that came with PSH and before their turn.
    """

    __slots__ = (
        "acked",
        "after_end",
        "ahead",
        "base",
        "buffered",
        "conflicts",
        "feed",
        "fin",
        "fin_at",
        "first",
        "hole_acked",
        "hole_acked_to",
        "hole_since",
        "key",
        "look_ns",
        "next",
        "out_of_window",
        "peer",
        "promised",
        "pushed",
        "recent",
        "repeated",
        "rst",
        "syn",
        "urgent",
    )

    peer: Half
    feed: Taker

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.next = -1
        self.base = -1
        self.first = -1
        self.acked = -1
        self.ahead: list[Segment] = []
        self.buffered = 0
        self.fin_at = -1
        self.fin = False
        self.syn = False
        self.rst = False
        self.hole_since = -1
        self.hole_acked = self.hole_acked_to = -1
        self.look_ns = -1
        self.promised = -1
        self.urgent: list[int] = []
        self.pushed: set[int] = set()
        self.conflicts = 0
        self.repeated = 0
        self.out_of_window = 0
        self.after_end = 0
        self.recent: deque[Segment] = deque(maxlen=_RECENT_SEGMENTS)

    # -- where a segment lies --------------------------------------------------------------------------

    def begin(self, sequence: int) -> None:
        """The first byte of this direction has this sequence number."""
        self.next = self.base = sequence & SEQUENCE_MASK

    @property
    def is_untouched(self) -> bool:
        """No byte has been delivered or waits, so the beginning may still move."""
        return self.next == self.base and not self.ahead

    def unwrap(self, sequence: int) -> int:
        """`sequence` (32 bits) as an unwrapped number, the one nearest to `next`."""
        ahead = (sequence - self.next) & SEQUENCE_MASK
        return self.next + (ahead - (1 << 32) if ahead >= _HALF_SPACE else ahead)

    def has_acked(self, other: Half, sequence: int) -> bool:
        """This side has acknowledged the other direction beyond `sequence` (unwrapped)."""
        return self.acked >= 0 and other.unwrap(self.acked) > sequence

    def answers(self, acknowledgement: int) -> bool:
        """That number of this side's says it has the other direction's SYN, and not much beyond what we saw of it."""
        other = self.peer
        at = other.unwrap(acknowledgement)
        return acknowledgement >= 0 and other.base <= at <= other.next + PLAUSIBLE_AHEAD

    # -- bytes -----------------------------------------------------------------------------------------

    def deliver(self, payload: bytes) -> None:
        """Book the next bytes in order as delivered; the hot path does the same inline."""
        if len(payload) <= RECENT_BYTES:
            self.recent.append((self.next, payload))
        self.next += len(payload)

    def offer(self, start: int, payload: bytes, time_ns: int, last_wins: bool) -> list[Segment]:
        """Take a segment wherever it lies; returns what is in order now.

        Args:
            start: its unwrapped sequence number.
            time_ns: capture time.
            last_wins: among bytes not delivered yet the newest copy counts, instead of the first.
        """
        if start < self.next:
            payload = self._without_delivered(start, payload)
            start = self.next
        if not payload:
            return []
        self._put(start, payload, time_ns, last_wins)
        return self.in_order(time_ns)

    def fits(self, start: int) -> bool:
        """A segment may begin at `start`; one that may not is counted."""
        if start - self.next <= MAX_AHEAD:
            return True
        self.out_of_window += 1
        return False

    def _without_delivered(self, start: int, payload: bytes) -> bytes:
        """Cut off what was delivered before; a copy that differs from what we still have is a conflict."""
        known = min(self.next - start, len(payload))
        self.repeated += known
        for at, data in self.recent:
            low, high = max(at, start), min(at + len(data), start + known)
            if low < high and data[low - at : high - at] != payload[low - start : high - start]:
                self.conflicts += 1
                break
        return payload[known:]

    def _put(self, start: int, payload: bytes, time_ns: int, last_wins: bool) -> None:
        """Insert among the segments ahead, each byte once."""
        end = start + len(payload)
        index = max(0, bisect_right(self.ahead, start, key=_start_of) - 1)
        if index < len(self.ahead) and _end_of(self.ahead[index]) <= start:
            index += 1
        stop = index
        while stop < len(self.ahead) and self.ahead[stop][0] < end:
            stop += 1
        rivals = self.ahead[index:stop]
        pieces = [(start, payload)]
        if rivals:
            self._note_rivals(start, payload, rivals)
            pieces = _merged(start, payload, rivals, last_wins)
        if not self.ahead and start > self.next:
            self.hole_since = time_ns
        self.ahead[index:stop] = pieces
        self.buffered += sum(map(_cost, pieces)) - sum(map(_cost, rivals))

    def _note_rivals(self, start: int, payload: bytes, rivals: list[Segment]) -> None:
        differs = False
        for at, data in rivals:
            low, high = max(at, start), min(at + len(data), start + len(payload))
            self.repeated += high - low
            differs |= data[low - at : high - at] != payload[low - start : high - start]
        self.conflicts += differs

    def in_order(self, time_ns: int) -> list[Segment]:
        """Take out of `ahead` whatever continues the stream now; what stays waits for a new hole."""
        ready: list[Segment] = []
        while len(ready) < len(self.ahead) and self.ahead[len(ready)][0] == self.next:
            segment = self.ahead[len(ready)]
            self.buffered -= _cost(segment)
            self.deliver(segment[1])
            ready.append(segment)
        if ready:
            del self.ahead[: len(ready)]
            self.hole_since = time_ns if self.ahead else -1
            self.hole_acked = -1
        return ready

    # -- holes and the end -----------------------------------------------------------------------------

    @property
    def has_hole(self) -> bool:
        """Something lies beyond bytes that did not arrive: data, or the FIN."""
        return bool(self.ahead) or (not self.fin and max(self.fin_at, self.promised) > self.next)

    @property
    def hole_end(self) -> int:
        """Where the hole ends, if there is one."""
        return self.ahead[0][0] if self.ahead else max(self.fin_at, self.promised)

    def skip_hole(self, reach: int) -> int:
        """Give the hole up, as far as `reach`: the stream goes on behind it. Returns its length, bytes."""
        target = min(self.hole_end, reach)
        length = target - self.next
        self.next = target
        self.hole_since = self.hole_acked = -1
        self.urgent = [at for at in self.urgent if at >= target]
        return length

    def promise(self, end: int) -> None:
        """A segment reaches so far, and the capture holds only its front."""
        self.promised = max(self.promised, end if self.fin_at < 0 else min(end, self.fin_at))

    def end_at(self, end: int) -> None:
        """The FIN lies there: what came before its turn from beyond does not belong to the stream."""
        self.fin_at = end
        self.promised = min(self.promised, end)
        while self.ahead and _end_of(self.ahead[-1]) > end:
            start, data = self.ahead.pop()
            self.buffered -= _cost((start, data))
            kept = data[: max(0, end - start)]
            self.after_end += len(data) - len(kept)
            if kept:
                self.ahead.append((start, kept))
                self.buffered += _cost((start, kept))

    def keep_nothing(self) -> None:
        """Too many streams at a time to remember what each of them delivered."""
        self.recent = _NO_SEGMENTS

    def forget(self) -> None:
        """The stream has ended: keep only what tells a late repetition from something new."""
        self.ahead = []
        self.buffered = 0
        self.urgent = []
        self.recent, self.pushed = _NO_SEGMENTS, _NO_ENDS


# Shared by all that have ended; nothing is put in any more.
_NO_SEGMENTS: deque[Segment] = deque(maxlen=0)
_NO_ENDS: set[int] = set()


def _start_of(segment: Segment) -> int:
    return segment[0]


def _end_of(segment: Segment) -> int:
    return segment[0] + len(segment[1])


def _cost(segment: Segment) -> int:
    return len(segment[1]) + SEGMENT_COST


def _merged(start: int, payload: bytes, rivals: list[Segment], last_wins: bool) -> list[Segment]:
    """`payload` and the segments it overlaps, without overlap: the first copy of a byte wins, or the last."""
    end = start + len(payload)
    if last_wins:
        first, last = rivals[0], rivals[-1]
        before = (first[0], first[1][: max(0, start - first[0])])
        after = (end, last[1][max(0, end - last[0]) :])
        return [piece for piece in (before, (start, payload), after) if piece[1]]
    pieces: list[Segment] = []
    at = start
    for rival in rivals:
        if at < rival[0]:
            pieces.append((at, payload[at - start : rival[0] - start]))
        pieces.append(rival)
        at = max(at, _end_of(rival))
    if at < end:
        pieces.append((at, payload[at - start :]))
    if len(pieces) > _MANY_PIECES and _end_of(pieces[-1]) - pieces[0][0] <= _LARGEST_PIECE:
        return [(pieces[0][0], b"".join(data for _, data in pieces))]  # they have no gaps now
    return pieces
