"""`pattern_set`: looks for thousands of patterns at once, across every segment border.

Owns what becomes of a hit; compiling and searching is `_pattern_database`'s (hyperscan, extra `match`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

from wfpstream.fwps import (
    ClassifyOut,
    Filter,
    IncomingMetadataValues,
    IncomingValues,
    StreamCalloutIoPacket,
    StreamData,
)

from ._answers import ABORT, DISCONNECT, EXPEDITED, drop, permit
from ._lane_callout import JOINS, LaneCallout
from ._lanes import Direction, Lane, NoLane
from ._log import LogTarget
from ._options import Text
from ._pattern_database import (
    PatternDatabase,
    PatternStream,
    Syntax,
    database_for,
    read_patterns,
    why_unavailable,
)

# Hits that a Python program may look at later.
_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Hit:
    """A pattern was found.

    Attributes:
        flow: the flow handle.
        direction: `to_client` or `to_upstream`.
        pattern: its number: the line of the file, or the place in the list, from 1.
        start: where it begins in the bytes the callout was shown in this direction; None for a regular expression.
        end: where it ends there: the offset of the first byte behind it.
    """

    flow: int
    direction: str
    pattern: int
    start: int | None
    end: int


class SetLane(Lane):
    """The search of one direction.

    Attributes:
        stream: what has been searched so far; None before the first byte and after the end.
        begins: offset of its first byte.
        seen: bytes shown so far.
        hits: hits so far.
        over: the direction has ended.
    """

    __slots__ = ("begins", "hits", "over", "seen", "stream")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.stream: PatternStream | None = None
        self.begins = 0
        self.seen = 0
        self.hits = 0
        self.over = False


class PatternSet(LaneCallout[SetLane]):
    """Finds any of thousands of patterns, in streaming mode; needs the extra `match` (hyperscan).

    Every direction of every flow is one stream: the hits are the same for every way to cut it. What is searched is
    what the callout is shown: bytes that a heavier callout took out or put in are missing or there, and urgent bytes
    are no part of it (they pass on their own). A hit at `$` needs the FIN; after a reset nothing is found any more.
    A regular expression is reported at every place where a match ends (`a+` in `aaa`: three times), and `^` is the
    first byte this callout is shown, which for a flow it joined later is not the connection's.

    `report` is inspection: a line for each hit, and nothing else. With `drop` the connection is reset at the first
    hit; what is shown with the hit's last byte does not get through, what came before has passed already.

    Args:
        patterns: a list, or a text with one pattern a line: `patterns=@FILE`. Blank lines are left out.
        regex: they are regular expressions, of the PCRE kind without back references; else plain bytes.
        action: `report` or `drop`.
        caseless: capitals and small letters are the same (ASCII).
        multiline: `^` and `$` also mean the borders of lines.
        dotall: `.` also means a line feed.
        once: each pattern is found at most once in each direction of a connection.
        missed: where bytes are missing (`missed_bytes`), search on as if nothing was there (`join`: what the receiver
            sees) or begin anew (`restart`: no hit spans the place; for holes in a capture).
        to: `-` for stderr, or a file to append to.
        limit: most lines for each direction of a connection.
        direction: where to look.

    Raises:
        ValueError: there is no pattern, one is refused (it is named), hyperscan is not installed.
    """

    flags = JOINS
    name = "pattern_set"
    example = 'pattern_set,patterns=["DROP TABLE", "/etc/passwd"],caseless=true'
    filter_action = "callout_inspection"

    def __init__(
        self,
        patterns: Text | list[Text],
        regex: bool = False,
        action: Literal["report", "drop"] = "report",
        caseless: bool = False,
        multiline: bool = False,
        dotall: bool = False,
        once: bool = False,
        missed: Literal["join", "restart"] = "join",
        to: str = "-",
        limit: int = 1000,
        direction: Direction = "both",
    ) -> None:
        super().__init__(SetLane, direction, per_stage=False)
        if action not in ("report", "drop"):
            raise ValueError(f"action={action!r}: expected report or drop")
        if missed not in ("join", "restart"):
            raise ValueError(f"missed={missed!r}: expected join or restart")
        if limit < 0:
            raise ValueError(f"limit={limit}: expected 0 or more")
        if (multiline or dotall) and not regex:
            raise ValueError("multiline and dotall are about regular expressions: set regex=true")
        syntax = Syntax(regex, caseless, multiline, dotall, once)
        self._database: PatternDatabase = database_for(read_patterns(patterns), syntax)
        self._scratch = self._database.scratch()
        self._drops = action == "drop"
        if self._drops:
            # An inspection callout may not drop (DRP-1), and what is dropped depends on what came with the hit.
            self.filter_action = "callout_unknown"
            self.output_depends_on = ("cuts",)
        self._restarts = missed == "restart"
        self._target = LogTarget(to)
        self._limit = limit
        self.hits: deque[Hit] = deque(maxlen=_KEPT)

    @classmethod
    def unavailable(cls) -> str:
        """Why it cannot be used here; empty when it can."""
        return why_unavailable()

    def classify_fn(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Filter,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Search, and permit; with `action=drop` unless something was found."""
        permit(layer_data, classify_out)
        stream: StreamData = layer_data.stream_data
        if self.draining or stream.flags & (ABORT | EXPEDITED):
            return
        try:
            lane = self.lanes.find(in_fixed_values, in_meta_values, filter, flow_context, stream.flags)
        except NoLane as error:
            if self._drops:
                drop(layer_data, classify_out)
            else:  # it may not stop what it cannot search
                self._target.write(
                    f"flow {in_meta_values.flow_handle}: {stream.data_length} bytes not searched: {error}"
                )
            return
        if lane is not None:
            self.decide(lane, stream, layer_data, classify_out)

    def decide(
        self, lane: SetLane, stream: StreamData, packet: StreamCalloutIoPacket, answer: ClassifyOut
    ) -> None:
        """Search what is shown, and the end if it is that."""
        if lane.over:
            return
        before = lane.hits
        if packet.missed_bytes and self._restarts:
            self.closed(lane)
        if stream.data_length:
            self._search(lane, stream)
        if stream.flags & DISCONNECT:
            lane.over = True
            if lane.stream is not None:
                ended, lane.stream = lane.stream, None
                self._report(lane, ended.end())
        if self._drops and lane.hits > before:
            drop(packet, answer)

    def _search(self, lane: SetLane, stream: StreamData) -> None:
        if lane.stream is None:
            lane.stream = self._database.open(self._scratch)
            lane.begins = lane.seen
        for piece in stream.pieces():
            lane.seen += len(piece)
            found = lane.stream.scan(piece)
            if found:
                self._report(lane, found)

    def _report(self, lane: SetLane, found: list[tuple[int, int]]) -> None:
        for at, number in found:
            end = lane.begins + at
            text = self._database.patterns[number].text
            start = None if self._database.syntax.regex else end - len(text)
            lane.hits += 1
            hit = Hit(lane.flow_id, lane.direction, number, start, end)
            self.hits.append(hit)
            if lane.hits <= self._limit:
                self.found(hit)
            elif lane.hits == self._limit + 1:
                self._target.write(
                    f"flow {lane.flow_id} {lane.direction}: more than {self._limit} hits, no more lines"
                )

    def found(self, hit: Hit) -> None:
        """A hit, up to `limit` of them: write its line. Override it to do something else."""
        place = f"at={hit.start} end={hit.end}" if hit.start is not None else f"end={hit.end}"
        self._target.write(f"flow {hit.flow} {hit.direction} {place} {self._database.patterns[hit.pattern]}")

    def closed(self, lane: SetLane) -> None:
        """The lane is gone, or begins anew: what would have been found at the end is not."""
        if lane.stream is not None:
            lane.stream.close()
            lane.stream = None

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        """The flow has ended: forget its lanes, and close the file with the last of them."""
        super().flow_delete_fn(layer_id, callout_id, flow_context)
        if not any(True for _ in self.lanes):
            self._target.close()  # the next hit opens it again
