"""One end of a flow, whatever it is made of: what it can do, what has happened to it, when it may be read again.

A side reads its leg into the engine (direction `index`) and writes what the engine has for it (direction `out`). Owns
the state that the cycle of a flow looks at, the mark of a reset among it (IND-27). When a flow is over, and why, is
`_flow_cycle`'s business; a side must not know the other one, how bytes move, listeners or configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from wfpstream.engine import ENDED, YES, tapped

if TYPE_CHECKING:
    from wfpstream.engine import Flow, Leg, Place

    from ._hub import Hub

__all__ = ["Capabilities", "DriverOfSides", "Side"]


class Capabilities(NamedTuple):
    """What a leg, or a driver over two legs, keeps of TCP; conformance scripts name what they need.

    Attributes:
        half_close: a FIN can be sent while the other direction goes on.
        reset: a reset is seen as one, and can be sent.
        watch_paused: a reset is noticed while the leg is not read.
        urgent: urgent bytes keep their place and their mark.
    """

    half_close: bool
    reset: bool
    watch_paused: bool
    urgent: bool


class DriverOfSides(Protocol):
    """What a side needs of the driver above it."""

    hub: Hub
    flow: Flow

    def serve(self) -> None: ...
    def serve_safely(self) -> None: ...
    def touch(self) -> None: ...
    def fin_was_read(self, side: Side) -> None: ...


class Side:
    """One leg of one flow.

    Attributes:
        lost: a reset was seen (IND-27), or the leg cannot be used any more. Nothing is written any more.
        reader_done: nothing more will be read. Both together: the reset is due to be told to the engine.
        read_ended: the peer's FIN was read and told.
        fin_sent: our FIN was sent.
        parked: there may be something to read, and the engine did not want it.
    """

    __slots__ = (
        "driver",
        "fin_sent",
        "flow",
        "index",
        "lost",
        "out",
        "parked",
        "read_ended",
        "reader_done",
        "reset_reason",
    )

    capabilities: Capabilities
    driver: DriverOfSides

    def __init__(self) -> None:
        self.lost = False
        self.reader_done = False
        self.read_ended = False
        self.fin_sent = False
        self.parked = False

    def attach(self, driver: DriverOfSides, index: int, reset_reason: str) -> None:
        """Take part in `driver`'s flow as its leg `index`."""
        self.driver = driver
        self.flow: Flow = driver.flow
        self.index = index
        self.out = 1 - index
        self.reset_reason = reset_reason
        tap = driver.hub.tap
        if tap is not None:
            leg: Leg = "client" if reset_reason == "rst_client" else "upstream"
            tap.joined(driver.flow.number, leg, *self.places())
            self.flow = tapped(driver.flow, tap)

    def places(self) -> tuple[Place | None, Place | None]:
        """Our own address on this leg and the peer's, where there are such things."""
        return None, None

    def start(self) -> None:
        """Begin to read."""
        raise NotImplementedError

    def wake(self) -> None:
        """Let a paused reader go on if it may now: `may_read` is a level."""
        if self.parked and (self.lost or self.flow.may_read(self.index) in (YES, ENDED)):
            self.parked = False
            self.resume()

    def resume(self) -> None:
        """Read on, soon: `parked` is over."""
        raise NotImplementedError

    def has_input(self) -> bool:
        """Whether bytes, or an end, are there to be read at this moment; a stream that is no socket cannot tell."""
        return False

    def lose(self) -> None:
        """A reset was seen outside of the reader, which first takes what the leg still holds (IND-27)."""
        self.lost = True
        if self.reader_done:
            self.driver.serve_safely()
        else:
            self.wake()

    def push(self) -> bool:
        """Write what the leg takes without waiting; whether bytes or a FIN were written."""
        raise NotImplementedError

    def full_close_seen(self) -> None:
        """The other leg ended and has no half-close: its peer is gone, holding a FIN back serves nobody."""

    async def close_gracefully(self, timeout: float) -> None:
        """Both FINs were sent: close without a reset."""
        raise NotImplementedError

    async def reset_flushed(self, timeout: float) -> None:
        """Reset the leg once what was written has arrived (IND-18)."""
        raise NotImplementedError

    @property
    def is_behind(self) -> bool:
        """A call for this flow has overrun its time: the others are served first, and it has one item per turn."""
        flows = self.driver.hub.behind
        return bool(flows) and self.driver.flow.id in flows

    def end_behind(self) -> None:
        """This is its turn; the next call that overruns puts it behind the others again."""
        self.driver.hub.behind.discard(self.driver.flow.id)

    def end_of_stream(self) -> None:
        """EOF was read: on a marked leg that is the reset, else the FIN (IND-27)."""
        self.reader_done = True
        if not self.lost:
            self.tell_fin_read()
        self.driver.serve()

    def tell_fin_read(self) -> None:
        """The peer's FIN is the engine's business now."""
        self.read_ended = True
        self.flow.received_fin(self.index)
        self.driver.fin_was_read(self)

    def read_failed(self) -> None:
        """The leg cannot be read any more."""
        self.lost = True
        self.reader_done = True
        self.driver.serve()
