"""What a recorder keeps of one engine: its events, and what each side of each flow sent and got, in order.

Owns the order, the bounds, and the capture made of it. It must not know a test, a file, nor which driver it listens to:
it is a sink and a tap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from wfpstream.engine import FilterEngine, Leg, Place
from wfpstream.wire import BothSides

from ._chop import Chop, Cutter

if TYPE_CHECKING:
    from collections.abc import Iterable

Deed = Literal["joined", "read", "wrote", "fin_read", "fin_wrote", "reset_read"]

MIB = 1024 * 1024
_SECOND_NS = 1_000_000_000
# An event without its bytes, or a moment without any.
_ENTRY_COST = 400
# Few, and what is looked for in the end.
_ALWAYS_KEPT = frozenset(("violation", "policy", "ledger_fault", "flow_established", "flow_deleted"))


@dataclass(frozen=True, slots=True)
class Moment:
    """What one side of a flow did, or what was done to it.

    Attributes:
        at: engine clock, seconds.
        flow: as events name it.
        leg: "client" or "upstream".
        deed: "joined"; "read", "fin_read", "reset_read": by this side; "wrote", "fin_wrote": to it.
        data: the bytes.
        own: our address on this side, of "joined".
        peer: the side's own.
    """

    at: float
    flow: int
    leg: Leg
    deed: Deed
    data: bytes = b""
    urgent: bool = False
    own: Place | None = None
    peer: Place | None = None


Event = dict[str, Any]


class Recorder:
    """A sink (`FilterEngine.add_sink`) and a tap (`wfpstream.engine.Tap`), which also cuts what is read.

    It is told on the engine's thread; its entries may be read from any other.

    Args:
        chop: how to cut what the sides send.
        seed: where it is cut, if that is left to chance.
        limit: about how much memory the entries may take, bytes. What does not fit is counted in `lost`; beginnings
            and ends of flows, policies and violations are always kept.
        clock: the engine's clock, for who adds it as a sink by other means than `attach`.

    Attributes:
        entries: events and moments, in order.
        lost: entries that were not kept.
    """

    wants_data = "full"

    def __init__(
        self,
        chop: Chop | None = None,
        seed: int = 0,
        limit: int = 64 * MIB,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.chop = chop or Chop()
        self.seed = seed
        self.entries: list[Event | Moment] = []
        self.lost = 0
        self._limit = limit
        self._room = limit
        self._clock = clock or _stopped
        self._cutters: dict[tuple[int, Leg], Cutter] = {}

    def attach(self, engine: FilterEngine) -> None:
        """Listen to this engine from now on. Being its driver's tap is the driver's part."""
        self._clock = engine.now
        engine.add_sink(self)

    def __call__(self, event: Event) -> None:
        """Keep an event."""
        if event["event"] in _ALWAYS_KEPT:
            self.entries.append(event)
        else:
            self._keep(event, len(event.get("data") or b""))
        if event["event"] == "flow_deleted":
            for leg in ("client", "upstream"):
                self._cutters.pop((event["flow"], leg), None)

    # -- the tap ---------------------------------------------------------------------------------------------

    def joined(self, flow: int, leg: Leg, own: Place | None, peer: Place | None) -> None:
        self._moment(flow, leg, "joined", own=own, peer=peer)

    def cut(self, flow: int, leg: Leg, data: memoryview) -> Iterable[int]:
        if not self.chop:
            return ()
        cutter = self._cutters.get((flow, leg))
        if cutter is None:
            cutter = self._cutters[flow, leg] = self.chop.cutter(self.seed, flow, leg)
        return cutter.cut(len(data))

    def read(self, flow: int, leg: Leg, data: bytes, urgent: bool) -> None:
        self._moment(flow, leg, "read", data, urgent)

    def wrote(self, flow: int, leg: Leg, data: bytes, urgent: bool) -> None:
        self._moment(flow, leg, "wrote", data, urgent)

    def fin_read(self, flow: int, leg: Leg) -> None:
        self._moment(flow, leg, "fin_read")

    def fin_wrote(self, flow: int, leg: Leg) -> None:
        self._moment(flow, leg, "fin_wrote")

    def reset_read(self, flow: int, leg: Leg) -> None:
        self._moment(flow, leg, "reset_read")

    # -- what is kept ----------------------------------------------------------------------------------------

    @property
    def events(self) -> list[Event]:
        """The events among the entries."""
        return [entry for entry in list(self.entries) if not isinstance(entry, Moment)]

    @property
    def violations(self) -> list[Event]:
        """The `violation` events among them."""
        return [event for event in self.events if event["event"] == "violation"]

    def pcapng(self, zero: float = 0.0, since: int = 0) -> bytes:
        """Both sides of every flow as one capture.

        Args:
            zero: wall time of the engine clock's 0, seconds since 1970.
            since: how many entries to leave out at the beginning.
        """
        capture = BothSides()
        for entry in self.entries[since:]:
            if isinstance(entry, Moment):
                _draw(capture, entry, int((zero + entry.at) * _SECOND_NS))
            elif entry["event"] == "flow_deleted":
                for leg, from_peer in resets_of(entry["reason"]):
                    capture.reset(int((zero + entry["t"]) * _SECOND_NS), entry["flow"], leg, from_peer)
        return capture.pcapng()

    def forget_ended(self) -> None:
        """Let go of flows that are over, for who records longer than one test."""
        entries = list(self.entries)
        over = {e["flow"] for e in entries if not isinstance(e, Moment) and e["event"] == "flow_deleted"}
        kept = [entry for entry in entries if _flow_of(entry) not in over]
        self.entries[: len(entries)] = kept
        self._room = self._limit - sum(_size_of(entry) for entry in kept)

    def _moment(
        self,
        flow: int,
        leg: Leg,
        deed: Deed,
        data: bytes = b"",
        urgent: bool = False,
        own: Place | None = None,
        peer: Place | None = None,
    ) -> None:
        self._keep(Moment(self._clock(), flow, leg, deed, data, urgent, own, peer), len(data))

    def _keep(self, entry: Event | Moment, size: int) -> None:
        size += _ENTRY_COST
        if size > self._room:
            self.lost += 1
            return
        self._room -= size
        self.entries.append(entry)


def resets_of(reason: str) -> Iterator[tuple[Leg, bool]]:
    """Which sides saw a reset when a flow ended for this reason: (side, whether it sent it itself)."""
    if reason == "fin":
        return
    legs: tuple[Leg, Leg] = ("client", "upstream")
    for leg in legs:
        yield leg, reason == f"rst_{leg}"


def _draw(capture: BothSides, moment: Moment, time_ns: int) -> None:
    flow, leg, from_peer = moment.flow, moment.leg, moment.deed.endswith("read")
    if moment.deed == "joined":
        capture.joined(time_ns, flow, leg, moment.own, moment.peer)
    elif moment.deed == "reset_read":
        capture.reset(time_ns, flow, leg, from_peer)
    elif moment.deed.startswith("fin"):
        capture.fin(time_ns, flow, leg, from_peer)
    else:
        capture.data(time_ns, flow, leg, from_peer, moment.data, moment.urgent)


def _flow_of(entry: Event | Moment) -> int | None:
    return entry.flow if isinstance(entry, Moment) else entry.get("flow")


def _size_of(entry: Event | Moment) -> int:
    data = entry.data if isinstance(entry, Moment) else entry.get("data")
    return _ENTRY_COST + len(data or b"")


def _stopped() -> float:
    return 0.0
