"""A tap: who sees what each leg of a flow reads and writes, and may cut what is read into smaller segments.

Owns the seam between a driver's legs and the flow they serve. It must not know a driver, what a tap keeps, nor why:
without one nothing of this exists, so it costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from wfpstream.fwps import ABORT_NONE, YES, Flow

if TYPE_CHECKING:
    from wfpstream.fwps import Output

Leg = Literal["client", "upstream"]
Place = tuple[str, int]


class Tap(Protocol):
    """What hears of every byte that enters or leaves the engine. Called on the engine's thread; must not raise.

    Flows are named as in events. `leg` is "client" or "upstream"; bytes are the tap's own, not borrowed.
    """

    def joined(self, flow: int, leg: Leg, own: Place | None, peer: Place | None) -> None:
        """A leg begins: our own address on it and the peer's, None where a driver has no addresses."""
        ...

    def cut(self, flow: int, leg: Leg, data: memoryview) -> Iterable[int]:
        """Lengths of the segments in which what was read is to be indicated; empty to leave it in one."""
        ...

    def read(self, flow: int, leg: Leg, data: bytes, urgent: bool) -> None:
        """The leg's peer sent this; told before the engine gets it."""
        ...

    def wrote(self, flow: int, leg: Leg, data: bytes, urgent: bool) -> None:
        """The leg's peer was sent this."""
        ...

    def fin_read(self, flow: int, leg: Leg) -> None:
        """The leg's peer half-closed."""
        ...

    def fin_wrote(self, flow: int, leg: Leg) -> None:
        """The leg's peer was sent a FIN."""
        ...

    def reset_read(self, flow: int, leg: Leg) -> None:
        """The leg's peer reset its connection."""
        ...


def tapped(flow: Flow, tap: Tap) -> Flow:
    """The flow as the legs of a driver shall use it, so that `tap` hears of what they do."""
    return cast("Flow", _Tapped(flow, tap))


class _Tapped:
    """Stands between legs and flow; everything that moves no bytes is the flow's own."""

    __slots__ = ("_flow", "_label", "_legs", "_tap")

    def __init__(self, flow: Flow, tap: Tap) -> None:
        self._flow = flow
        self._tap = tap
        self._label = flow.number
        client: Sequence[Leg] = ("client", "upstream")
        # The direction that a leg's input goes: what it reads is direction i, what it writes the other one.
        self._legs = client if flow.direction_from("client") == 0 else client[::-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._flow, name)

    def received(
        self,
        direction: int,
        view: memoryview,
        urgent: bool = False,
        fin: bool = False,
        push: bool | None = None,
    ) -> None:
        leg = self._legs[direction]
        view = memoryview(view)
        self._tap.read(self._label, leg, bytes(view), urgent)
        if fin:
            self._tap.fin_read(self._label, leg)
        at = 0
        if not urgent:
            for length in self._tap.cut(self._label, leg, view):
                # A callout that asks for a pause in the middle of a read keeps the rest as one, as without a tap.
                if at + length >= len(view) or not self._goes_on(direction):
                    break
                self._flow.received(direction, view[at : at + length], False, False, push)
                at += length
        self._flow.received(direction, view[at:], urgent, fin, push)

    def _goes_on(self, direction: int) -> bool:
        return self._flow.may_read(direction) == YES and self._flow.abort == ABORT_NONE

    def received_fin(self, direction: int) -> None:
        self._tap.fin_read(self._label, self._legs[direction])
        self._flow.received_fin(direction)

    def reset(self, leg: int, reason: str) -> None:
        self._tap.reset_read(self._label, self._legs[leg])
        self._flow.reset(leg, reason)

    def sent(self, direction: int, count: int) -> None:
        leg = self._legs[1 - direction]
        data, urgent = _front(self._flow.output(direction), count)
        if data:
            self._tap.wrote(self._label, leg, data, urgent)
        self._flow.sent(direction, count)

    def fin_sent(self, direction: int) -> None:
        self._tap.fin_wrote(self._label, self._legs[1 - direction])
        self._flow.fin_sent(direction)


def _front(output: Output, count: int) -> tuple[bytes, bool]:
    """The next `count` bytes that are owed, as the driver saw them in `batch`."""
    views, urgent = output.batch()
    pieces = []
    for view in views:
        if count <= 0:
            break
        pieces.append(bytes(view[:count]))
        count -= len(pieces[-1])
    return b"".join(pieces), urgent
