"""What a proxy has seen, as a test asks for it: the events, and one record per flow.

Owns the sink that keeps them and how a flow's bytes are counted for people. It must not know threads: everything
here but the plain attributes of a record belongs to the proxy's thread.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from wfpstream.engine import Flow

__all__ = ["EventLog", "FlowRecord", "matches", "refuse_unknown"]

State = Literal["established", "closed"]
DataMode = Literal["off", "preview", "full"]

# A session's proxy lives long; what is older is forgotten, and the log says how much that was.
MOST_EVENTS = 200_000
PREVIEW = 64


class FlowRecord:
    """One connection through the proxy, seen from its client.

    Attributes:
        id: its number, as in the events.
        listener: the listener's name.
        client: the client's (host, port).
        server: the upstream's (host, port).
        state: "established", or "closed" when both legs are done with.
        ended: how it ended: "fin", "rst_client", "rst_upstream", "drop", "abort", "stop" or "timeout"; None until then.
        duration: seconds from beginning to end; None until then.
        ledger: where every byte of each direction went ("to_client", "to_upstream"); empty until then.
    """

    def __init__(self, event: Mapping[str, Any], count: Callable[[FlowRecord], tuple[int, int]]) -> None:
        self.id: int = event["flow"]
        self.listener: str = event["listener"]
        self.client: tuple[str, int] = tuple(event["client"])
        self.server: tuple[str, int] = tuple(event["server"])
        self.state: State = "established"
        self.ended: str | None = None
        self.duration: float | None = None
        self.ledger: dict[str, dict[str, int]] = {}
        self._counted = (0, 0)
        self._count = count

    @property
    def sent(self) -> int:
        """Bytes that came from the client, so far."""
        return self._counts()[0]

    @property
    def received(self) -> int:
        """Bytes that were written to the client, so far."""
        return self._counts()[1]

    def close(self, event: Mapping[str, Any]) -> None:
        """It has ended as `event` says."""
        self.ledger = {name: dict(counts) for name, counts in event["ledger"].items()}
        self._counted = (self.ledger["to_upstream"]["read"], self.ledger["to_client"]["written"])
        self.duration = event["duration"]
        self.ended = event["reason"]
        self.state = "closed"

    def look(self, described: Mapping[str, Any]) -> tuple[int, int]:
        """Its counts at present, as `describe_flow` has them."""
        self._counted = (described["to_upstream"]["read"], described["to_client"]["written"])
        return self._counted

    def _counts(self) -> tuple[int, int]:
        # Closed meanwhile, it has the final counts itself.
        counted = self._count(self) if self.ended is None else self._counted
        return counted if self.ended is None else self._counted

    @property
    def last_counts(self) -> tuple[int, int]:
        """The counts as they were looked at last."""
        return self._counted

    def __repr__(self) -> str:
        sent, received = self._counted
        how = f"ended by {self.ended}" if self.ended else self.state
        client, server = (f"{host}:{port}" for host, port in (self.client, self.server))
        return f"<flow {self.id} of {client} to {server}: {how}, sent {sent}, received {received}>"


class EventLog:
    """A sink that keeps everything, and tells whoever waits.

    Args:
        data: how much payload the events carry.
        changed: called after each event.
        count: looks up the counts of a flow that lives, from any thread.

    Attributes:
        events: in order; the oldest are dropped when there are too many.
        total: how many there were.
        established, closed: the flows' records, in the order in which they became so.
        failed: why connections did not become flows.
    """

    def __init__(
        self, data: DataMode, changed: Callable[[], None], count: Callable[[FlowRecord], tuple[int, int]]
    ) -> None:
        self.wants_data = data
        self._changed = changed
        self._count = count
        self.forget()

    def forget(self) -> None:
        """Begin anew; flows that live still are not known any more."""
        self.events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self.total = 0
        self.established: list[FlowRecord] = []
        self.closed: list[FlowRecord] = []
        self.failed: list[str] = []
        self._open: dict[int, FlowRecord] = {}

    def since(self, total: int) -> list[dict[str, Any]]:
        """The events that came when there had been `total`, as far as they are kept."""
        newer = min(max(0, self.total - total), len(self.events))
        return list(islice(self.events, len(self.events) - newer, None)) if newer else []

    @property
    def open(self) -> list[FlowRecord]:
        """Those that live."""
        return list(self._open.values())

    def __call__(self, event: dict[str, Any]) -> None:
        """Keep it."""
        self.events.append(self._cut(event))
        self.total += 1
        kind = event["event"]
        if kind == "flow_established":
            record = self._open[event["flow"]] = FlowRecord(event, self._count)
            self.established.append(record)
        elif kind == "flow_deleted":
            gone = self._open.pop(event["flow"], None)
            if gone is not None:
                gone.close(event)
                self.closed.append(gone)
        elif kind in ("connect_failed", "flow_blocked"):
            self.failed.append(f"{kind} ({event.get('reason') or event.get('callout') or 'a filter'})")
        self._changed()

    def _cut(self, event: dict[str, Any]) -> dict[str, Any]:
        """Without what nobody asked for here: another sink may want all of it."""
        data = event.get("data")
        if data is None or self.wants_data == "full":
            return event
        rest = {key: value for key, value in event.items() if key != "data"}
        return rest | {"data": bytes(data[:PREVIEW])} if self.wants_data == "preview" else rest


def matches(event: Mapping[str, Any], name: str, wanted: Mapping[str, Any]) -> bool:
    """Whether it is the event asked for: `wanted` has values, or functions of one value."""
    if event["event"] != name:
        return False
    for key, want in wanted.items():
        if key not in event:
            return False
        value = event[key]
        if not (want(value) if callable(want) else value == want):
            return False
    return True


def refuse_unknown(name: str, wanted: Iterable[str]) -> None:
    """Nobody waits for a typo. Raises ValueError: there is no event of this name, or it has no such key."""
    from wfpstream.observe import event_keys

    events = event_keys()
    if name not in events:
        raise ValueError(f"there is no event {name!r}{_nearest(name, events)}")
    for key in wanted:
        if key not in events[name]:
            raise ValueError(f"an event {name!r} has no {key!r}{_nearest(key, events[name])}")


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}"


def counts_of(record: FlowRecord, flows: list[Flow], now: float) -> tuple[int, int]:
    """What a flow that lives has sent and received so far."""
    from wfpstream.engine import describe_flow

    for flow in flows:
        if flow.number == record.id:
            return record.look(describe_flow(flow, now))
    return record.last_counts
