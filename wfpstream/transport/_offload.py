"""A flow of the reactor driver while the kernel moves its bytes: both directions through conduits (ALW-7, ALW-8).

Owns when a flow is handed over, what each event means while it is, and taking it back. It deals with bytes only:
whatever else happens - an urgent byte, the end of a direction, a reset, a wish of the engine - takes the flow back
first, and the legs then meet it as they always do. It must not know how a leg reads, nor how a flow ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ._reactor import IN, OUT, READ_HANGUP, TROUBLE, URGENT
from ._splice import (
    MORE,
    NO_PIPE,
    READ_BLOCKED,
    REFUSED,
    RESET_READING,
    RESET_WRITING,
    WRITE_BLOCKED,
    Conduit,
)

if TYPE_CHECKING:
    from wfpstream.engine import Flow

    from ._hub import Hub, Served
    from ._leg import Leg

__all__ = ["TRY_AGAIN", "Offload", "may_begin"]

# What one direction may move in a turn, bytes. One pipe full takes about half a millisecond, which is much where many
# others wait for their turn.
BUDGET = 1 << 20
BUDGET_AMONG_MANY = BUDGET // 2
FEW_SOCKETS = 24
# A flow that has moved less than this so many times in a row costs less when it is copied.
LITTLE = 16 * 1024
TOO_OFTEN = 64
# A flow that found no pipe copies for so long, seconds, before it asks again.
TRY_AGAIN = 1.0
_TO_READ = IN | READ_HANGUP


class Driver(Protocol):
    """What is needed of the driver of a flow."""

    hub: Hub
    flow: Flow
    sides: tuple[Leg, Leg]
    moved_at: float
    over: bool

    def serve(self) -> None: ...
    def has_input(self) -> bool: ...
    def fail(self, error: BaseException) -> None: ...
    def is_taken_back(self, try_again_at: float) -> None: ...


def may_begin(driver: Driver) -> bool:
    """Both legs of a flow that is to be handed over are as they should be, and nothing is owed to either."""
    flow = driver.flow
    return (
        not (flow.out[0].length or flow.out[1].length)
        and all(_is_plain(leg, flow) for leg in driver.sides)
        and not (driver.sides[0].reader_done and driver.sides[1].reader_done)
    )


def _is_plain(leg: Leg, flow: Flow) -> bool:
    """No reset was seen, no urgent byte announced, and nobody listens in (a tap stands before the flow)."""
    return not (leg.lost or leg.is_careful or leg.blocked) and leg.flow is flow


class Offload:
    """The conduits of one flow. As long as it is active it stands in for the flow's driver at the hub.

    Attributes:
        is_active: the flow is handed over and not taken back.
    """

    __slots__ = ("_driver", "_little", "_ways", "flow", "hub", "is_active")

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.flow = driver.flow
        self.hub = driver.hub
        self.is_active = True
        self._little = 0
        first, second = driver.sides
        self._ways = (_Way(self, first, second), _Way(self, second, first))

    def begin(self) -> None:
        """Take the place of the driver and its legs; bytes that are there already move now."""
        hub = self.hub
        self.flow.offloaded()
        hub.drivers[self.flow.id] = self
        with_input = [way for way in self._ways if way.take_over()]
        for way in with_input:
            if self.is_active:
                way.pump()

    # --- the hub's calls ---

    def serve(self) -> None:
        """The engine has changed something about the flow."""
        if not self.flow.offload_wanted:
            self.take_back()
        self._driver.serve()

    def has_input(self) -> bool:
        """Whether something is to be read, or lies in a pipe."""
        return any(way.conduit.held for way in self._ways) or self._driver.has_input()

    def fail(self, error: BaseException) -> None:
        """End the flow with an error."""
        self._driver.fail(error)

    # --- its ways' calls ---

    def other(self, way: _Way) -> _Way:
        """The opposite direction."""
        first, second = self._ways
        return second if way is first else first

    def moved(self, way: _Way) -> None:
        """Bytes went by: after every pump, so whoever asks for counts gets them to the byte."""
        count = way.conduit.take_count()
        if not count:
            return
        self.flow.passed(way.leg.index, count)
        self._driver.moved_at = self.hub.reactor.now
        self._little = self._little + 1 if count < LITTLE else 0

    def serve_driver(self) -> None:
        """What the pipes have left is written; nobody else may come by."""
        self._driver.serve()

    def look_whether_it_pays(self) -> None:
        """It has become a flow of small messages: copied until it is bulky again."""
        if self._little >= TOO_OFTEN:
            self.take_back()
            self.serve_driver()

    def meet(self, way: _Way, outcome: int) -> None:
        """A pump came to something that is not for conduits."""
        again_at = 0.0
        if outcome == NO_PIPE:
            again_at = self.hub.reactor.now + TRY_AGAIN
        elif outcome == REFUSED:
            again_at = float("inf")
        self.take_back(again_at)
        if outcome == RESET_READING:
            way.leg.read_failed()
            return
        if outcome == RESET_WRITING:
            way.receiver.lost = True
        self._driver.serve()

    # --- the end ---

    def take_back(self, try_again_at: float = 0.0) -> None:
        """The driver and its legs go on: what the pipes hold is written first, what was not read is read."""
        for way in self._ways:
            self.moved(way)
            self.flow.left_over(way.leg.index, way.conduit.take_back())
        self._stand_down(try_again_at)
        for way in self._ways:
            leg = way.leg
            if not leg.reader_done:
                leg.input = True  # the edge was ours, and is over
                leg.resume()

    def drop(self) -> None:
        """The flow is over: what the pipes hold goes nowhere."""
        for way in self._ways:
            self.moved(way)
            lost = way.conduit.close()
            if lost:
                self.flow.passed(way.leg.index, lost)
                self.flow.lost(way.leg.index, lost)
        self._stand_down(0.0)

    def _stand_down(self, try_again_at: float) -> None:
        self.is_active = False
        for way in self._ways:
            way.give_way()
        driver: Served = self._driver
        self.hub.drivers[self.flow.id] = driver
        self._driver.is_taken_back(try_again_at)
        self.flow.onloaded()


class _Way:
    """A leg in the reactor's eyes: what it has to read goes to `receiver`."""

    __slots__ = ("_offload", "_pumped_in", "conduit", "leg", "queued", "receiver", "since")

    def __init__(self, offload: Offload, leg: Leg, receiver: Leg) -> None:
        self._offload = offload
        self.leg = leg
        self.receiver = receiver
        self.conduit = Conduit(offload.hub.pipes, leg.sock, receiver.sock)
        self._pumped_in = 0
        self.since = 0
        self.queued = False

    def take_over(self) -> bool:
        """Whether there may be something to read already: the leg was told of it and is not told again."""
        leg = self.leg
        leg.arm()
        leg.reactor.hand_over(leg.fd, self)
        has_input, leg.input = (
            leg.input,
            False,
        )  # it may have asked for another turn, and is not to read in it
        return has_input

    def give_way(self) -> None:
        """The leg is told of all from now on."""
        self.leg.reactor.hand_over(self.leg.fd, self.leg)
        self.leg.review()

    # --- the reactor's calls ---

    def ready(self, events: int) -> None:
        """What an edge says: bytes to move, room to move them to, or anything else."""
        offload = self._offload
        try:
            if events & (TROUBLE | URGENT):
                offload.take_back()
                self.leg.ready(events)
                offload.serve_driver()  # the leg may not be read now, and a pipe have held something
                return
            if events & READ_HANGUP:
                self.leg.is_ending = True
            if events & OUT:
                back = offload.other(self)
                if back.conduit.held:
                    back.pump()
            if events & _TO_READ and offload.is_active:
                self.pump()
        except Exception as error:
            offload.fail(error)

    def go_on(self) -> None:
        """Another turn: one in each batch, and an event may have given it this one's."""
        if self._offload.is_active:
            try:
                if self._pumped_in == self.leg.reactor.number:
                    self.leg.reactor.again(self)
                else:
                    self.pump()
            except Exception as error:
                self._offload.fail(error)

    def pump(self) -> None:
        """Move what can be moved in one turn."""
        if self.leg.reader_done:
            return
        reactor = self.leg.reactor
        self._pumped_in = reactor.number
        outcome = self.conduit.pump(BUDGET if len(reactor) <= FEW_SOCKETS else BUDGET_AMONG_MANY)
        self._offload.moved(self)
        if outcome == MORE:
            reactor.again(self)
        elif outcome == READ_BLOCKED:
            self._offload.look_whether_it_pays()
        elif outcome != WRITE_BLOCKED:
            self._offload.meet(self, outcome)
