"""`monitor`: counts, digests and logs what passes, and changes nothing.

Owns the statistics of each flow and the lines about them. An inspection callout cannot alter the stream.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal

from wfpstream.fwp import CalloutFlags
from wfpstream.fwps import (
    LAYERS_BY_NAME,
    Callout,
    ClassifyOut,
    FieldsAleFlowEstablished,
    FieldsStream,
    Filter,
    IncomingMetadataValues,
    IncomingValues,
    StreamData,
)

from ._answers import ABORT, CONTINUE, DISCONNECT, RECEIVE, inspect
from ._lanes import Direction, Lane, Lanes, NoLane
from ._log import LogTarget, escaped, hex_rows
from ._options import Size, parse_size

ENDS = ABORT | DISCONNECT
# Ended flows whose statistics are kept: enough for any test, and no leak in a proxy that runs for months.
_KEPT = 1000

Log = Literal["none", "lines", "hex", "text"]


@dataclass(frozen=True, slots=True)
class DirectionStats:
    """What passed in one direction of a flow.

    Attributes:
        bytes: payload seen.
        missed: bytes of the stream that callouts above kept from us.
        indications: how often we were asked.
        sha256: digest of the payload, hex; empty where none is kept.
        end: `fin`, `reset`, or empty while it is open.
    """

    bytes: int
    missed: int
    indications: int
    sha256: str
    end: str


@dataclass(frozen=True, slots=True)
class FlowStats:
    """One flow: its handle, what it was called in the log, and its directions; None for one not watched."""

    flow: int
    name: str
    to_client: DirectionStats | None
    to_upstream: DirectionStats | None
    ended: bool


class Parties:
    """Who talks to whom on a flow; put into words when somebody wants to read it."""

    __slots__ = ("_fixed", "_flow_id", "_local_is_client", "_text")

    def __init__(self, flow_id: int, fixed: IncomingValues, local_is_client: bool) -> None:
        self._flow_id = flow_id
        self._fixed = fixed
        self._local_is_client = local_is_client
        self._text = ""

    def __str__(self) -> str:
        if not self._text:
            self._text = self._make_text()
        return self._text

    def _make_text(self) -> str:
        at_stream = self._fixed.layer_id in LAYERS_BY_NAME["stream"]
        fields = _STREAM_FIELDS if at_stream else _ESTABLISHED_FIELDS
        values = [self._fixed.incoming_value[field].value for field in fields]
        local, remote = _endpoint(values[0], values[1]), _endpoint(values[2], values[3])
        client, server = (local, remote) if self._local_is_client else (remote, local)
        return f"flow {self._flow_id} {client} > {server}"


class MonitorLane(Lane):
    """The counters of one direction."""

    __slots__ = ("bytes", "digest", "end", "indications", "missed", "parties", "shown")

    def __init__(self, flow_id: int, layer_id: int, inbound: bool, direction: str) -> None:
        super().__init__(flow_id, layer_id, inbound, direction)
        self.parties: Parties | None = None
        self.bytes = 0
        self.missed = 0
        self.indications = 0
        self.digest: hashlib._Hash | None = None
        self.end = ""
        self.shown = 0

    @property
    def name(self) -> str:
        """What the log calls the flow."""
        return "" if self.parties is None else str(self.parties)

    def stats(self) -> DirectionStats:
        """The counters now."""
        digest = "" if self.digest is None else self.digest.hexdigest()
        return DirectionStats(self.bytes, self.missed, self.indications, digest, self.end)


class Monitor(Callout):
    """Watches: bytes, digests and ends of each flow, and a log of them. Inspection only.

    Log lines are written while the stream waits: to a file or a fast terminal, please.

    Args:
        log: one line per indication, with a hex dump, or with escaped text; `none` logs ends only.
        to: `-` for stderr, or a file to append to.
        limit: most payload shown per flow and direction.
        summary: one line per direction when a flow ends.
        direction: the directions to watch.
        digest: keep a SHA-256 of the payload; costs 0.4 to 0.7 CPU seconds per GB, as much as all the rest.

    Raises:
        ValueError: an option is out of its range.
    """

    layers = ("stream", "ale_flow_established")
    flags = int(CalloutFlags.ALLOW_MID_STREAM_INSPECTION)
    filter_action = "callout_inspection"
    name = "monitor"
    example = "monitor,log=text"

    def __init__(
        self,
        log: Log = "none",
        to: str = "-",
        limit: Size = "64KiB",
        summary: bool = True,
        direction: Direction = "both",
        digest: bool = True,
    ) -> None:
        if log not in ("none", "lines", "hex", "text"):
            raise ValueError(f"log={log!r}: expected one of none, lines, hex, text")
        self.lanes = Lanes(self, MonitorLane, direction, per_stage=False, opened=self._opened)
        self._pairs = self.lanes.pairs
        self._log = log
        self._logs = log != "none"
        self._target = LogTarget(to)
        self._limit = parse_size(limit)
        self._summary = summary
        self._digest = digest
        self._ended: deque[list[MonitorLane]] = deque(maxlen=_KEPT)

    @property
    def stats(self) -> list[FlowStats]:
        """Statistics of the flows: the last thousand that ended, then those that live, oldest first."""
        lanes: dict[int, list[MonitorLane]] = {}
        for lane in self.lanes:
            lanes.setdefault(lane.flow_id, []).append(lane)
        return [
            *(_flow_stats(pair, ended=True) for pair in self._ended),
            *(_flow_stats(pair, ended=False) for pair in lanes.values()),
        ]

    def classify_ale_flow_established(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        layer_data: Any,
        classify_context: Any,
        filter: Filter,
        flow_context: int,
        classify_out: ClassifyOut,
    ) -> None:
        """Take note of a flow that may never say a byte."""
        inspect(classify_out)
        try:
            self.lanes.establish(in_fixed_values, in_meta_values)
        except NoLane:  # then with the first byte
            return

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
        """Count, digest, log."""
        classify_out.action_type = CONTINUE
        stream: StreamData = layer_data.stream_data
        flags = stream.flags
        pair = self._pairs.get(in_meta_values.flow_handle)
        # Nearly always it is one more piece of a flow that this stage knows already.
        lane = pair[flags & RECEIVE] if pair is not None else None
        if lane is None or lane.filter_id != filter.filter_id:
            lane = self._find(in_fixed_values, in_meta_values, filter, flow_context, stream)
            if lane is None:
                return
        missed = layer_data.missed_bytes
        if self._logs:
            self._log_indication(lane, stream, missed)
        lane.indications += 1
        lane.bytes += stream.data_length
        if missed:
            lane.missed += missed
        if lane.digest is not None:
            lane.digest.update(stream.view())
        if flags & ENDS:
            lane.end = "reset" if flags & ABORT else "fin"

    def _find(
        self,
        in_fixed_values: IncomingValues,
        in_meta_values: IncomingMetadataValues,
        filter: Filter,
        flow_context: int,
        stream: StreamData,
    ) -> MonitorLane | None:
        """The lane of an indication; None: there is none, or another stage watches it."""
        try:
            return self.lanes.find(in_fixed_values, in_meta_values, filter, flow_context, stream.flags)
        except NoLane as error:
            # It may not stop what it cannot count.
            self._target.write(
                f"flow {in_meta_values.flow_handle}: {stream.data_length} bytes not counted: {error}"
            )
            return None

    def flow_delete_fn(self, layer_id: int, callout_id: int, flow_context: int) -> None:
        """The flow has ended: keep its numbers, and sum it up."""
        lanes = self.lanes.free(flow_context)
        if not lanes:
            return
        self._ended.append(lanes)
        if self._summary:
            for lane in lanes:
                stats = lane.stats()
                missed = f" missed={stats.missed}" if stats.missed else ""
                digest = f" sha256={stats.sha256}" if stats.sha256 else ""
                self._target.write(
                    f"{lane.name} {lane.direction} end={stats.end or 'none'} bytes={stats.bytes}{missed}"
                    f" indications={stats.indications}{digest}"
                )
        if self.lanes.is_empty:
            self._target.close()  # nobody tells us of the last flow; the next one opens it again

    def _log_indication(self, lane: MonitorLane, stream: StreamData, missed: int) -> None:
        what = f"{lane.name} {lane.direction} at={lane.bytes} bytes={stream.data_length}"
        if missed:
            what += f" missed={missed}"
        if stream.flags & ENDS:
            what += " reset" if stream.flags & ABORT else " fin"
        self._target.write(what)
        if self._log != "lines" and stream.data_length and lane.shown <= self._limit:
            self._show(lane, stream)

    def _show(self, lane: MonitorLane, stream: StreamData) -> None:
        room = self._limit - lane.shown
        lane.shown += stream.data_length
        data = stream.tobytes()[:room]
        if self._log == "hex":
            rows = hex_rows(data, lane.bytes)
        else:
            rows = [escaped(line) for line in data.splitlines(keepends=True)]
        for row in rows:
            self._target.write(f"    {row}")
        if lane.shown > self._limit:
            self._target.write(
                f"    (more than the limit of {self._limit} bytes: no more payload of this direction)"
            )

    def _opened(self, lanes: list[MonitorLane], fixed: IncomingValues, meta: IncomingMetadataValues) -> None:
        local_is_client = (lanes[0].direction == "to_client") == lanes[0].inbound
        parties = Parties(meta.flow_handle, fixed, local_is_client)
        for lane in lanes:
            lane.digest = hashlib.sha256() if self._digest else None
            lane.parties = parties


_STREAM_FIELDS = (
    int(FieldsStream.IP_LOCAL_ADDRESS),
    int(FieldsStream.IP_LOCAL_PORT),
    int(FieldsStream.IP_REMOTE_ADDRESS),
    int(FieldsStream.IP_REMOTE_PORT),
)
_ESTABLISHED_FIELDS = (
    int(FieldsAleFlowEstablished.IP_LOCAL_ADDRESS),
    int(FieldsAleFlowEstablished.IP_LOCAL_PORT),
    int(FieldsAleFlowEstablished.IP_REMOTE_ADDRESS),
    int(FieldsAleFlowEstablished.IP_REMOTE_PORT),
)


def _endpoint(address: int | bytes, port: int) -> str:
    text = str(ip_address(address))
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def _flow_stats(lanes: list[MonitorLane], *, ended: bool) -> FlowStats:
    by_direction = {lane.direction: lane.stats() for lane in lanes}
    first = lanes[0]
    return FlowStats(
        first.flow_id, first.name, by_direction.get("to_client"), by_direction.get("to_upstream"), ended
    )
