"""From a new connection to its flow: ask the engine, reach the upstream, hand over to the flow driver.

Owns the time before a flow is established, and every way it can end there (LAY-12, LAY-14, LAY-21). It must
not know how bytes are relayed, nor who listens.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Protocol

import trio

from ._destinations import Rejected
from ._dial import Dial, begin_dial
from ._flow_driver import FlowDriver
from ._socket_flow import SocketFlow
from ._sockets import drain_then_close, reset_now
from ._task_sides import SocketSide
from ._upstream import Address, ConnectError, connect, connect_failure, numeric, resolve

if TYPE_CHECKING:
    from wfpstream.engine import Attempt, Flow

    from ._hub import Hub
    from ._socket_flow import Spawn

__all__ = ["Connection", "Driver", "Party", "decided", "while_alive"]

Driver = Literal["reactor", "stream"]

# A client that was told "no" by a FIN may take this long to close its own side (LAY-21).
COURTESY = 2.0


class Party(Protocol):
    """For whom a connection is made, and what it may do.

    Attributes:
        requested: where the client asked to go, resolved; empty if the name of the upstream cannot be.
        reason: why `requested` is empty.
        greets: something comes before the stream.
    """

    requested: Sequence[Address]
    reason: str

    @property
    def greets(self) -> bool: ...

    def wants_own(self, address: Address) -> bool:
        """Whether `on_own` is of use for a connection to that address."""
        ...

    def allowed(self, addresses: Sequence[Address], redirected: bool) -> Sequence[Address]:
        """Those of some addresses that may be connected to, told whether a callout chose them.

        Raises Rejected when none may.
        """
        ...

    def before(self, sock: socket.socket, address: Address) -> None:
        """Gets the upstream's socket before it connects."""

    def on_own(self, own: tuple[str, int], address: Address) -> None:
        """Is told of every connection that is tried."""

    async def greet(self, sock: socket.socket, seconds: float) -> None:
        """Sends what comes before the stream, when it is connected."""

    def tell(self, line: str) -> None:
        """One line for people."""

    def reject(self, rejected: Rejected) -> None:
        """Why it may not go where it is going."""

    def over(self, error: BaseException | None) -> None:
        """All is closed; called once, if the connection was handed over."""


class Connection:
    """One accepted connection on its way to a flow, and what becomes of that.

    `begin` goes as far as possible without waiting. If it says False, `run` has to be awaited for the rest. The socket
    is closed in the end.

    Attributes:
        is_relayed: its flow is established; what ends it now is the engine's.
        is_handed_over: neither `begin` nor `run` sees the end: `when_over` is called then.

    Args:
        client: its socket, accepted.
        spawn: starts a task.
    """

    __slots__ = (
        "_attempt",
        "_client",
        "_dial",
        "_driver",
        "_flow",
        "_hub",
        "_party",
        "_spawn",
        "_upstream",
        "is_handed_over",
        "is_relayed",
    )

    def __init__(
        self,
        hub: Hub,
        client: socket.socket,
        attempt: Attempt,
        party: Party,
        spawn: Spawn,
        driver: Driver,
    ) -> None:
        self._hub = hub
        self._client = client
        self._attempt = attempt
        self._party = party
        self._spawn = spawn
        self._driver: Driver = driver
        self._upstream: socket.socket | None = None
        self._dial: Dial | None = None
        self._flow: SocketFlow | None = None
        self.is_relayed = False
        self.is_handed_over = False

    @property
    def legs(self) -> list[socket.socket]:
        """Its open sockets."""
        return [self._client] if self._upstream is None else [self._client, self._upstream]

    def abandon(self) -> None:
        """Take down what was handed over, at once."""
        if self._dial is not None:
            self._dial.abandon()
            self._dial = None
            self._attempt.gone()
            self._over(None)
        elif self._flow is not None:
            self._flow.abandon()

    # --- without waiting ---

    def begin(self) -> bool:
        """The usual way: one numeric address, and nobody who has to be asked for longer. False: `run` goes on.

        Raises only what is a defect.
        """
        attempt, party = self._attempt, self._party
        if self._driver != "reactor" or attempt.verdict != "permit" or party.greets:
            return False
        addresses = party.requested
        if attempt.redirected:
            known = numeric(*attempt.upstream)
            addresses = [] if known is None else [known]
        if len(addresses) != 1:
            return False
        try:
            (address,) = party.allowed(addresses, attempt.redirected)
            timeout = self._hub.engine.options.timeouts.connect
            on_own = self._on_own if attempt.carries_records or party.wants_own(address) else None
            sock, dial = begin_dial(self._hub, self._client, address, timeout, on_own, party.before)
        except Rejected as error:
            self._reject(error)
        except ConnectError as error:
            self._fail(error)
        else:
            if dial is None:
                self._reached(sock)
            else:
                self._wait(dial)
        return True

    def _wait(self, dial: Dial) -> None:
        try:
            dial.then(self._dialled, self._client_gone)
        except OSError as error:
            self._fail(connect_failure(error))
        else:
            self.is_handed_over = True
            self._dial = dial

    def _dialled(self, outcome: socket.socket | ConnectError) -> None:
        """The connect that was waited for has ended."""
        self._dial = None
        self.is_handed_over = False
        error: BaseException | None = None
        try:
            if isinstance(outcome, ConnectError):
                self._fail(outcome)
            else:
                self._reached(outcome)
        except Exception as defect:
            error = defect
        if not self.is_handed_over:
            self._over(error)

    def _client_gone(self) -> None:
        """The client has reset its connection."""
        self._dial = None
        self._attempt.gone()
        self._over(None)

    def _reached(self, upstream: socket.socket) -> None:
        self._upstream = upstream
        try:
            flow = self._hub.engine.flow_established(self._attempt)
            if flow is None:
                self._refuse_soon()
            else:
                self._drive(flow, upstream)
        finally:
            if not self.is_handed_over:
                reset_now(upstream)

    def _drive(self, flow: Flow, upstream: socket.socket) -> None:
        try:
            self._flow = SocketFlow(self._hub, flow, self._client, upstream, self._spawn, self._over)
        except BaseException:  # a tap's, perhaps: whoever called us closes the sockets, and tells
            flow.gone("abort")
            raise
        self.is_relayed = self.is_handed_over = True
        self._flow.start()

    def _over(self, error: BaseException | None) -> None:
        if self._flow is None:  # else it has closed them
            for sock in self.legs:
                reset_now(sock)
        self._party.over(error)

    def _fail(self, error: ConnectError) -> None:
        self._party.tell(f"cannot connect to {_name(self._attempt.upstream)}: {error}")
        self._attempt.failed(str(error))
        self._refuse_soon()

    def _reject(self, error: Rejected) -> None:
        self._party.reject(error)
        self._attempt.failed(error.reason)
        reset_now(self._client)

    def _refuse_soon(self) -> None:
        """As `_refuse`, in a task where it takes time."""
        if self._attempt.close_as == "fin":
            self.is_handed_over = True
            self._spawn(self._refuse_slowly)
        else:
            reset_now(self._client)

    async def _refuse_slowly(self) -> None:
        try:
            await self._refuse()
        finally:
            self._over(None)

    # --- with waiting ---

    async def run(self) -> None:
        """Connect and relay until everything is over, or handed over. Raises only what is a defect."""
        try:
            upstream = await self._reach()
            if upstream is not None:
                await self._relay(upstream)
        finally:
            if not self.is_handed_over:
                for sock in self.legs:
                    reset_now(sock)

    async def _relay(self, upstream: socket.socket) -> None:
        flow = self._hub.engine.flow_established(self._attempt)
        if flow is None:
            await self._refuse()
        elif self._driver == "reactor":
            self._drive(flow, upstream)
        else:
            self.is_relayed = True
            await FlowDriver(self._hub, flow, SocketSide(self._client), SocketSide(upstream)).run()

    async def _reach(self) -> socket.socket | None:
        """The upstream's socket; None if there will be no flow, and everybody was told."""
        attempt = self._attempt
        open_ = True
        try:
            with while_alive(self._hub, self._client):
                await decided(attempt)
                if attempt.verdict != "block":
                    self._upstream = await self._connect()
                    # Whoever ends it now, when it has just been reached, is not to hear of a flow.
                    await trio.lowlevel.checkpoint_if_cancelled()
                    open_ = False
                    return self._upstream
                open_ = False
        except ConnectError as error:
            open_ = False
            self._party.tell(f"cannot connect to {_name(attempt.upstream)}: {error}")
            attempt.failed(str(error))
        except Rejected as error:
            open_ = False
            self._reject(error)
            return None
        finally:
            if open_:
                attempt.gone()
        if not open_:
            await self._refuse()
        return None

    async def _connect(self) -> socket.socket:
        attempt, party, timeout = self._attempt, self._party, self._hub.engine.options.timeouts.connect
        addresses = party.requested
        if attempt.redirected:
            addresses = await resolve(*attempt.upstream)  # a callout sent it elsewhere (LAY-26)
        elif not addresses:
            raise ConnectError(party.reason)
        addresses = party.allowed(addresses, attempt.redirected)
        sock = await connect(addresses, timeout, self._on_own, party.before)
        if party.greets:
            await _greeted(sock, party.greet, timeout)
        return sock

    def _on_own(self, own: tuple[str, int], address: Address) -> None:
        self._attempt.connected_from(own)
        self._party.on_own(own, address)

    async def _refuse(self) -> None:
        """How a refusal looks to the client (LAY-21)."""
        if self._attempt.close_as == "fin":
            await drain_then_close(self._client, COURTESY)
        else:
            reset_now(self._client)


async def _greeted(
    sock: socket.socket, greet: Callable[[socket.socket, float], Awaitable[None]], timeout: float
) -> None:
    try:
        await greet(sock, timeout)
    except BaseException:
        reset_now(sock)
        raise


@contextmanager
def while_alive(hub: Hub, client: socket.socket) -> Iterator[None]:
    """A client that resets ends the wait, whatever it is for. Its FIN does not: it may want an answer."""
    with trio.CancelScope() as scope:
        watched = hub.watch.add(client, scope.cancel)
        try:
            yield
        finally:
            watched.remove()


async def decided(attempt: Attempt) -> None:
    """Wait while a callout pends the connection; the engine bounds that (LAY-14)."""
    while attempt.verdict == "pended":
        event = trio.Event()
        attempt.on_verdict = event.set
        await event.wait()


def _name(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
