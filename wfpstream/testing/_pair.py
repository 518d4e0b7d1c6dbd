"""A connection through an engine as its two ends see it: in memory, with real windows, FINs and resets.

Owns what an end may do and what it is told, like a non-blocking socket's. How bytes move, and time, is the memory
driver's. It must not know pytest, nor where callouts written as text come from: whoever makes pairs says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from wfpstream.engine import DEFERRED, ENDED, FULL, AddedCallout, EngineOptions, describe_flow_in_depth
from wfpstream.fwps import Callout

from ._memory_driver import FlowEnds, MemoryDriver, Peer

if TYPE_CHECKING:
    from ._recorder import Recorder

Side = Literal["client", "server"]
MakeCallout = Callable[[Any], Callout]

KIB = 1024
WINDOW = 64 * KIB
# Longer than any timer of a test that means to end.
_FOREVER = 1e9


class WouldBlock(BlockingIOError):
    """Nothing has arrived, and nothing will without another step of the test; the text says what it waits for."""


class ConnectionBlocked(ConnectionRefusedError):
    """A callout or filter blocked the connection before it was established."""


class PairEnd:
    """One end of a pair: what the client's program, or the server's, would hold.

    Attributes:
        name: "client" or "server".
    """

    def __init__(self, pair: Pair, name: Side, peer: Peer, leg: int, window: int | None) -> None:
        self.name = name
        self._pair = pair
        self._peer = peer
        self._leg = leg
        self._size = window
        self._half_closed = False
        self.window = window

    def __repr__(self) -> str:
        return f"<the {self.name} of {self._pair!r}>"

    # -- sending ---------------------------------------------------------------------------------------------

    def send(self, data: bytes, *, urgent: bool = False) -> None:
        """Send bytes; never waits. What the other side's window has no room for waits in `unsent`.

        Args:
            data: bytes; nothing at all is allowed and does nothing.
            urgent: as TCP urgent data.

        Raises:
            BrokenPipeError: this end has closed its half, or the connection has ended.
            ConnectionResetError: the connection was reset.
            TypeError: that are no bytes.
        """
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"a stream carries bytes, not {data!r}")
        self._refuse_after_end("send")
        if not data:
            return
        ends = self._pair.ends
        (ends.send if self._leg == 0 else ends.receive)(bytes(data), urgent=urgent)

    def close_write(self) -> None:
        """Half-close: a FIN behind everything sent so far. The other direction stays as open as it was.

        Raises:
            BrokenPipeError, ConnectionResetError: as `send`.
        """
        self._refuse_after_end("half-close")
        self._half_closed = True
        (self._pair.ends.send_fin if self._leg == 0 else self._pair.ends.receive_fin)()

    def reset(self) -> None:
        """Reset the connection (RST): what was sent and has not gone through yet is the engine's to decide."""
        if not self._peer.reset:
            self._pair.ends.reset("local" if self._leg == 0 else "remote")

    @property
    def unsent(self) -> int:
        """Bytes sent that the engine has not taken yet: the direction is paused, by a window or by a callout."""
        return self._pair.ends.pending_input(self._leg)

    # -- receiving -------------------------------------------------------------------------------------------

    def receive(self, limit: int | None = None, *, wait: float = 0.0) -> bytes:
        """Take what has arrived, at most `limit` bytes; opens the window by as much. b"" is the end (FIN).

        Args:
            limit: bytes; None for all there is.
            wait: how much virtual time may pass until something arrives, seconds.

        Raises:
            WouldBlock: nothing is there, also after `wait`.
            ConnectionResetError: the connection was reset, and everything that had arrived before is taken.
        """
        if limit is not None and limit < 1:
            raise ValueError("receive at least 1 byte")
        self._let_pass(wait, lambda: self._has_news)
        if self.waiting:
            return self._peer.read(limit)
        if self._peer.fin:
            return b""
        if self._peer.reset:
            raise ConnectionResetError(f"the {self.name}'s connection was reset")
        raise WouldBlock(f"the {self.name} has nothing to receive{self._pair.explain(self._other_leg)}")

    def receive_exactly(self, count: int, *, wait: float = 0.0) -> bytes:
        """Take `count` bytes, reading on while the window has to open for more.

        Raises:
            WouldBlock: not so many have arrived, also after `wait`; what has arrived is not taken.
            EOFError: the end (FIN) came before.
            ConnectionResetError: a reset came before.
        """
        taken = bytearray()
        self._let_pass(wait, lambda: self.waiting >= count or self._peer.fin or self._peer.reset)
        while len(taken) < count and self.waiting:
            taken += self._peer.read(count - len(taken))
            self._pair.settle()
        if len(taken) == count:
            return bytes(taken)
        missing = (
            f"{count} bytes were expected by the {self.name}, {len(taken)} arrived: {bytes(taken[:64])!r}"
        )
        self._give_back(bytes(taken))
        if self._peer.fin:
            raise EOFError(f"{missing}, then the end")
        if self._peer.reset:
            raise ConnectionResetError(f"{missing}, then a reset")
        raise WouldBlock(missing + self._pair.explain(self._other_leg))

    def receive_all(self, *, wait: float = 0.0) -> bytes:
        """Take everything up to the end (FIN).

        Raises:
            WouldBlock: the end has not arrived, also after `wait`; what has arrived is not taken.
            ConnectionResetError: a reset came instead.
        """
        taken = bytearray()
        deadline = self._pair.now + wait
        while True:
            while self.waiting:
                taken += self._peer.read()
                self._pair.settle()
            if self._peer.fin:
                return bytes(taken)
            if self._peer.reset:
                self._give_back(bytes(taken))
                raise ConnectionResetError(f"the {self.name}'s connection was reset after {len(taken)} bytes")
            if not self._let_pass(deadline - self._pair.now, lambda: self._has_news):
                self._give_back(bytes(taken))
                raise WouldBlock(
                    f"no end has arrived at the {self.name}, only {bytes(taken[:64])!r} ({len(taken)} bytes)"
                    + self._pair.explain(self._other_leg)
                )

    @property
    def waiting(self) -> int:
        """Bytes that have arrived and are not taken."""
        return len(self._peer.data) - self._peer._read

    @property
    def arrived(self) -> bytes:
        """Every byte that has arrived since the beginning, taken or not."""
        return bytes(self._peer.data)

    @property
    def at_end(self) -> bool:
        """A FIN has arrived, and everything before it is taken."""
        return self._peer.fin and not self.waiting

    @property
    def was_reset(self) -> bool:
        """The connection was reset, by whoever."""
        return self._peer.reset

    @property
    def urgent(self) -> list[tuple[int, bytes]]:
        """(place in the stream, byte) of every urgent byte that has arrived."""
        return list(self._peer.urgent)

    # -- the window ------------------------------------------------------------------------------------------

    @property
    def window(self) -> int | None:
        """How many bytes this end keeps that were not taken; None for any number. The rest waits at the sender."""
        return self._size

    @window.setter
    def window(self, size: int | None) -> None:
        if size is not None and not isinstance(size, int):
            raise TypeError(f"a window is a number of bytes, or None for any number, not {size!r}")
        if size is not None and size < 0:
            raise ValueError("a window has 0 bytes or more")
        self._size = size
        self._peer.window = None if size is None else max(0, size - self.waiting)
        self._pair.settle()

    # -- inside ----------------------------------------------------------------------------------------------

    @property
    def _other_leg(self) -> int:
        return 1 - self._leg

    @property
    def _has_news(self) -> bool:
        return bool(self.waiting) or self._peer.fin or self._peer.reset

    def _let_pass(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Let up to `seconds` pass, no longer than until something is so. Whether it is."""
        if seconds < 0:
            seconds = 0.0
        return self._pair.advance_until(until, seconds)

    def _give_back(self, taken: bytes) -> None:
        self._peer._read -= len(taken)
        self.window = self._size

    def _refuse_after_end(self, what: str) -> None:
        if self._peer.reset:
            raise ConnectionResetError(f"the {self.name} cannot {what}: its connection was reset")
        if self._half_closed:
            raise BrokenPipeError(f"the {self.name} cannot {what}: it has closed its half already")


class Pair:
    """Two connected ends with an engine between them. Time is virtual and stands still unless told otherwise.

    Attributes:
        client: the end that connected.
        server: the end that it connected to.
        driver: the memory driver below, for what this does not offer.
    """

    def __init__(
        self,
        driver: MemoryDriver,
        *,
        window: int | None = WINDOW,
        make_callout: MakeCallout | None = None,
        recorder: Recorder | None = None,
        **endpoints: Any,
    ) -> None:
        """
        Args:
            driver: with its callouts added.
            window: of both ends, bytes; None for an unbounded one.
            make_callout: makes callouts of what is no `Callout`, such as text.
            recorder: the driver's tap, if that is what it is.
            endpoints: client, server, listener, local: as `MemoryDriver.connect` has them.

        Raises:
            ConnectionBlocked: a filter or callout blocked the connection.
        """
        self.driver = driver
        self.recorder = recorder
        self._make_callout = make_callout or _only_objects
        self._window = window
        ends = driver.connect(**endpoints)
        if ends is None:
            raise ConnectionBlocked(f"the connection was blocked{_blocked_by(driver)}")
        self.ends: FlowEnds = ends
        client_leg = ends.flow.direction_from("client")
        peers = (ends.local, ends.remote)
        self.client = PairEnd(self, "client", peers[client_leg], client_leg, window)
        self.server = PairEnd(self, "server", peers[1 - client_leg], 1 - client_leg, window)

    def __repr__(self) -> str:
        return f"pair {self.ends.flow.number}"

    def connect(self, **endpoints: Any) -> Pair:
        """One more connection through the same engine, at the same virtual time.

        Raises:
            ConnectionBlocked: as at the beginning.
        """
        endpoints.setdefault("local", self.driver.local)
        return Pair(
            self.driver,
            window=self._window,
            make_callout=self._make_callout,
            recorder=self.recorder,
            **endpoints,
        )

    # -- callouts --------------------------------------------------------------------------------------------

    def add_callout(self, callout: Any, **options: Any) -> PairedCallout:
        """Add a callout, for this connection and new ones, asked after those there are.

        Args:
            callout: a `Callout`, or a CALLOUT string where strings are understood.
            options: of `FilterEngine.add_callout`.
        """
        made = self._make_callout(callout)
        return PairedCallout(self.driver, self.driver.add(made, **options))

    fault = add_callout

    # -- time ------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Virtual time, seconds since the pair was made."""
        return self.driver.now

    def advance(self, seconds: float) -> None:
        """Let virtual time pass; everything due happens in its order."""
        self.driver.advance(seconds)

    def advance_until(self, condition: Callable[[], bool], limit: float = _FOREVER) -> bool:
        """Let virtual time pass from one due instant to the next until `condition()`; whether it came to that.

        Args:
            limit: the most that may pass, seconds.
        """
        driver = self.driver
        end = driver.now + limit
        driver.settle()
        while not condition():
            instant = driver.next_instant()
            if instant is None or instant > end:
                if limit != _FOREVER:
                    driver.advance(max(0.0, end - driver.now))
                return condition()
            driver.advance(max(0.0, instant - driver.now))
        return True

    def settle(self) -> None:
        """Let everything happen that is due now; every step of an end does so by itself."""
        self.driver.settle()

    # -- what happened ---------------------------------------------------------------------------------------

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every event so far, of all connections of this engine."""
        return list(self.driver.events)

    @property
    def violations(self) -> list[str]:
        """The rules that were violated so far, in order."""
        return self.driver.violations

    @property
    def ended(self) -> str:
        """Why the connection ended: "fin", "rst_client", "rst_upstream", "drop", ...; "" while it lives."""
        for event in self.driver.events:
            if event["event"] == "flow_deleted" and event["flow"] == self.ends.flow.number:
                return str(event["reason"])
        return ""

    def explain(self, direction: int) -> str:
        """Why nothing more comes in that direction (0: from the local host, 1: from the remote one)."""
        flow = self.ends.flow
        waiting = self.ends.pending_input(direction)
        name = flow.direction_name(direction)
        reasons = []
        for stage in describe_flow_in_depth(flow, self.now)["stages"]:
            held = stage[name]["held"] + stage[name]["pended"]
            if held:
                reasons.append(f"{stage['callout'] or 'a filter'} holds {held} bytes")
        if waiting:
            why = {
                DEFERRED: "deferred by a callout",
                FULL: "paused until what is held goes on",
                ENDED: "over",
            }
            state = why.get(self.ends.may_read(direction), "about to be read")
            reasons.append(f"{waiting} bytes are not read: the direction is {state}")
        if flow.output(direction).length:
            reasons.append(f"{flow.output(direction).length} bytes wait for the window")
        instant = self.driver.next_instant()
        # The timer of a stall without an end is nothing to wait for.
        if instant is not None and instant < _FOREVER:
            ahead = instant - self.now
            reasons.append(
                f"something is due in {ahead:.6g} s of virtual time: advance the clock, or wait={ahead:.6g}"
            )
        return ": " + "; ".join(reasons) if reasons else ": nothing was sent that is still on its way"

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the engine: what lives is aborted. Closing twice is fine; all connections of the engine go.

        Raises:
            AssertionError: the byte ledger does not close.
        """
        if not self.driver.closed:
            self.driver.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class PairedCallout:
    """A callout that was added to a pair.

    Attributes:
        callout: the object.
    """

    def __init__(self, driver: MemoryDriver, added: AddedCallout) -> None:
        self.callout = added.callout
        self._driver = driver
        self._added: AddedCallout | None = added

    def remove(self) -> None:
        """Take it out of force; what it holds for the connections there are is finished first, nothing is lost."""
        added, self._added = self._added, None
        if added is not None:
            added.retire()
            self._driver.settle()

    def __enter__(self) -> PairedCallout:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def make_pair(
    callouts: Sequence[Any] = (),
    *,
    options: EngineOptions | None = None,
    local: Side = "client",
    window: int | None = WINDOW,
    make_callout: MakeCallout | None = None,
    recorder: Recorder | None = None,
    now: float = 0.0,
    **endpoints: Any,
) -> Pair:
    """A pair with an engine of its own.

    Args:
        callouts: asked in this order, each in a sublayer of its own.
        options: of the engine; the default verifies (`warn`).
        local: which end is WFP's local host.
        recorder: listens to everything, and cuts what the ends send.
        now: virtual time at the beginning, seconds.
        window, make_callout, endpoints: as `Pair` has them.

    Raises:
        ConnectionBlocked: a filter or callout blocked the connection.
    """
    driver = MemoryDriver(options, local, tap=recorder)
    driver.now = now
    if recorder is not None:
        recorder.attach(driver.engine)
    make = make_callout or _only_objects
    try:
        for callout in callouts:
            driver.add(make(callout))
        return Pair(driver, window=window, make_callout=make, recorder=recorder, **endpoints)
    except BaseException:
        driver.engine.stop()  # nobody else can: its callouts are free to be used elsewhere
        raise


def _only_objects(callout: Any) -> Callout:
    if not isinstance(callout, Callout):
        raise TypeError(f"a callout object is expected, not {callout!r}")
    return callout


def _blocked_by(driver: MemoryDriver) -> str:
    blocked = [event for event in driver.events if event["event"] in ("flow_blocked", "connect_failed")]
    if not blocked:
        return ""
    last = blocked[-1]
    if last["event"] == "connect_failed":
        return f": {last.get('reason')}"
    return f" at {last.get('layer')} by {last.get('callout') or 'filter ' + str(last.get('filter'))}"
