"""One direction on its way from the captured order into the engine.

Owns runs (consecutive segments shown as one item), what waits because the engine does not read, and what is counted on
both sides of it. It must not know sequence numbers; `Half` has put the bytes in order.
"""

from __future__ import annotations

import hashlib
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from wfpstream.engine import YES, Flow, Output

if TYPE_CHECKING:
    from ._options import ReplayOptions
    from ._stream import Stream

# One item is at most what a live driver reads at once.
RUN_LIMIT = 64 * 1024
# A run is shown at the latest this long after its first segment, so that time-based callouts see time pass.
RUN_NS = 10_000_000
# Input that the engine does not want to read waits here, as it would in the sender; beyond this it is given to
# the engine all the same, and the engine's own limits decide (`per_flow`, `on_limit`).
BACKLOG_LIMIT = 16 * 1024 * 1024
# The same for all directions together.
BACKLOG_TOTAL = 256 * 1024 * 1024

DATA, URGENT, GAP, FIN = range(4)


class Owner(Protocol):
    """Whoever plays the streams (`_player.Player`).

    Attributes:
        backlog_bytes: what waits in front of the engine in all directions together.
    """

    options: ReplayOptions
    backlog_bytes: int

    @property
    def now_ns(self) -> int: ...
    def flush_at(self, due_ns: int, feed: Feed) -> None: ...
    def written(self, stream: Stream, flow: Flow, feed: Feed, data: bytes) -> None: ...
    def settled(self, stream: Stream, flow: Flow) -> None: ...
    def serve(self, stream: Stream) -> None: ...
    def overflow(self, stream: Stream) -> None: ...


class Feed:
    """A direction of a stream in front of the engine, and behind it.

    Attributes:
        direction: the engine's data direction, 0 SEND or 1 RECEIVE.
        stream_direction: 0 from client to server, 1 back, whichever of them is the local host.
        other: the feed of the other direction.
        output: what the flow owes this direction's receiver, once there is a flow.
        run: segments of the item under way; `run_since`: capture time of its first, ns.
        backlog: (kind, bytes or length, push) that the engine does not read now.
        synced: so far every byte out was the byte in, so one digest serves both.
    """

    __slots__ = (
        "_first_length",
        "backlog",
        "backlog_bytes",
        "blocked",
        "bytes_in",
        "bytes_out",
        "captured_push",
        "coalesce",
        "data_in",
        "data_out",
        "direction",
        "discarded",
        "injected",
        "is_watched",
        "missing",
        "other",
        "output",
        "player",
        "run",
        "run_bytes",
        "run_since",
        "sha_in",
        "sha_out",
        "stream",
        "stream_direction",
    )

    other: Feed
    output: Output

    def __init__(self, player: Owner, stream: Stream, direction: int) -> None:
        self.player = player
        self.stream = stream
        self.direction = direction
        self.stream_direction = 0 if (direction == 0) == (player.options.local == "client") else 1
        options = player.options
        self.coalesce = options.coalesce
        self.captured_push = options.push == "captured"
        self.run: list[bytes] = []
        self.run_bytes = 0
        self.run_since = -1
        self.is_watched = False  # one look ahead at a time: where time stands still, looks must not pile up
        self._first_length = 0
        self.backlog: deque[tuple[int, Any, int]] = deque()
        self.backlog_bytes = 0
        self.bytes_in = self.bytes_out = 0
        self.sha_in = hashlib.sha256()
        self.sha_out: Any = None  # None as long as what left is what came
        self.missing = 0
        self.blocked = self.injected = self.discarded = 0
        self.data_in: list[bytes] | None = [] if options.keep_data else None
        self.data_out: list[bytes] | None = [] if options.keep_data else None

    # -- in order from the capture ---------------------------------------------------------------------

    def take(self, payload: bytes, push: int) -> None:
        """The next bytes of the stream: one segment, or the part of it that is new.

        Full segments that follow each other make one item; PSH, a shorter segment, a FIN and data in the other
        direction end it.
        """
        if self.other.run:
            self.other.flush()
        run = self.run
        if not run:
            if push or not self.coalesce or len(payload) >= RUN_LIMIT:
                self._give(payload, push)
                return
            self._first_length = self.run_bytes = len(payload)
            run.append(payload)
            self.run_since = self.player.now_ns
            if not self.is_watched:
                self.is_watched = True
                self.player.flush_at(self.run_since + RUN_NS, self)
            return
        if self.run_bytes + len(payload) > RUN_LIMIT:
            self.flush()
            self.take(payload, push)
            return
        run.append(payload)
        self.run_bytes += len(payload)
        if push or len(payload) < self._first_length:
            self.flush(push)

    def flush_if_due(self) -> None:
        """A moment announced by `flush_at` has come: has the present run waited for long enough?"""
        self.is_watched = False
        if not self.run:
            return
        due_ns = self.run_since + RUN_NS
        if self.player.now_ns >= due_ns:
            self.flush()
        else:
            self.is_watched = True
            self.player.flush_at(due_ns, self)

    def flush(self, push: int = 0) -> None:
        """Show the run under way."""
        run = self.run
        if run:
            self.run = []
            self.run_since = -1
            self._give(run[0] if len(run) == 1 else b"".join(run), push)

    def take_urgent(self, byte: bytes) -> None:
        """The byte at the urgent mark: an item of its own (IND-7)."""
        self._flush_both()
        self._count(byte)
        self._put(URGENT, byte, 1)

    def take_gap(self, length: int) -> None:
        """Bytes that the capture does not hold."""
        self._flush_both()
        self.missing += length
        self._put(GAP, length, 0)

    def take_fin(self) -> None:
        """The end of this direction."""
        self._flush_both()
        self._put(FIN, b"", 0)

    def _flush_both(self) -> None:
        self.other.flush()
        self.flush()

    # -- into the engine -------------------------------------------------------------------------------

    def _give(self, data: bytes, push: int) -> None:
        """The hot path: one item straight into the engine."""
        flow: Flow | None = self.stream.flow
        if flow is None or self.backlog or self.data_in is not None or flow.may_read(self.direction) != YES:
            self._count(data)
            self._put(DATA, data, push)
            return
        player = self.player
        flow.received(self.direction, data, False, False, bool(push) if self.captured_push else None)
        player.written(self.stream, flow, self, data)
        self.bytes_in += len(data)
        self.sha_in.update(data)
        player.settled(self.stream, flow)

    def _count(self, data: bytes) -> None:
        if self.sha_out is None:
            self.sha_out = self.sha_in.copy()  # bytes in and out part here
        self.bytes_in += len(data)
        self.sha_in.update(data)
        if self.data_in is not None:
            self.data_in.append(data)

    def _put(self, kind: int, what: Any, push: int) -> None:
        if self.stream.flow is None and not self.stream.is_waiting:
            return  # stopped: the rest is only counted (POL-1)
        self.backlog.append((kind, what, push))
        if kind in (DATA, URGENT):
            self._waits(len(what))
        if self.stream.flow is not None:
            self.player.serve(self.stream)
        elif self._is_overfull:
            self.player.overflow(self.stream)

    def _waits(self, change: int) -> None:
        self.backlog_bytes += change
        self.player.backlog_bytes += change

    @property
    def _is_overfull(self) -> bool:
        return self.backlog_bytes > BACKLOG_LIMIT or self.player.backlog_bytes > BACKLOG_TOTAL

    def feed_one(self, flow: Flow, force: bool = False) -> bool:
        """Give the engine what has waited longest, if it reads; `force`: if it does not, too."""
        if not self.backlog:
            return False
        if flow.may_read(self.direction) != YES and not force and not self._is_overfull:
            return False
        kind, what, push = self.backlog.popleft()
        if kind == GAP:
            flow.gap(self.direction, what)
        elif kind == FIN:
            flow.received_fin(self.direction)
        else:
            self._waits(-len(what))
            captured = bool(push) if self.captured_push else None
            flow.received(self.direction, what, kind == URGENT, False, captured)
        return True

    def drop_backlog(self) -> int:
        """The flow is over: what waited is not shown any more. Returns its bytes."""
        dropped = self.backlog_bytes
        self.backlog.clear()
        self._waits(-dropped)
        return dropped

    # -- behind the engine -----------------------------------------------------------------------------

    def left(self, pieces: list[memoryview]) -> None:
        """Bytes left the engine in this direction."""
        if self.sha_out is None:
            self.sha_out = self.sha_in.copy()
        for piece in pieces:
            self.sha_out.update(piece)
            self.bytes_out += len(piece)
            if self.data_out is not None:
                self.data_out.append(bytes(piece))

    def settle_accounts(self, flow: Flow) -> None:
        """The flow is over: what became of the bytes it was given."""
        output = flow.output(self.direction)
        ledger = flow.ledger(self.direction)
        self.blocked = ledger.blocked_original
        self.injected = output.written_i

    def totals(self) -> dict[str, Any]:
        """Both sides of the engine, for the stream's result."""
        sha_out = self.sha_in if self.sha_out is None else self.sha_out
        return {
            "bytes_in": self.bytes_in,
            "sha256_in": self.sha_in.hexdigest(),
            "bytes_out": self.bytes_out,
            "sha256_out": sha_out.hexdigest(),
            "missing": self.missing,
            "blocked": self.blocked,
            "discarded": self.bytes_in - self.blocked - (self.bytes_out - self.injected),
            "injected": self.injected,
            "data_in": None if self.data_in is None else b"".join(self.data_in),
            "data_out": None if self.data_out is None else b"".join(self.data_out),
        }
