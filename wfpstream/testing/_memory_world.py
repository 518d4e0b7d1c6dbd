"""The memory driver as a world of the conformance cases.

Owns the translation of steps into what the memory driver's peers do; it has every capability. It must not know
what a case expects.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from wfpstream.engine import Endpoints

from ._memory_driver import FlowEnds, MemoryDriver, Peer
from ._world import (
    CAPABILITIES,
    Act,
    Connect,
    EndState,
    Fin,
    Reset,
    Send,
    Side,
    Step,
    Wait,
    Window,
    WorldOutcome,
    WorldScript,
)

CLIENT, SERVER = "10.0.0.1", ("10.0.0.2", 80)
FIRST_PORT = 40_000


class MemoryWorld:
    """Everything in memory, under virtual time."""

    name = "memory"
    capabilities = CAPABILITIES

    def run(self, script: WorldScript) -> WorldOutcome:
        """Play the script. Raises AssertionError: the byte ledger does not close."""
        play = _Play(MemoryDriver(script.options, script.local))
        script.setup(play.driver.engine)
        if script.connect:
            play.connect(Connect())
        for step in script.steps:
            play.perform(step)
        client, server = play.ends()
        play.driver.close()
        return WorldOutcome(client, server, list(play.driver.events))


class _Play:
    def __init__(self, driver: MemoryDriver) -> None:
        self.driver = driver
        self._connections: list[_Connection] = []
        self._perform: dict[type, Callable[..., object]] = {
            Send: lambda step: self._now.do(partial(self._now.send, step)),
            Fin: lambda step: self._now.do(partial(self._now.fin, step)),
            Reset: lambda step: self._now.reset(step.by),
            Window: lambda step: self._now.do(partial(self._now.window, step)),
            Wait: lambda step: driver.advance(step.seconds),
            Act: lambda step: step.fn(),
            Connect: self.connect,
        }

    @property
    def _now(self) -> _Connection:
        if not self._connections:
            raise AssertionError("there is no connection yet: the script makes none before this step")
        return self._connections[-1]

    def connect(self, step: Connect) -> None:
        """A new connection, which may be blocked or pended."""
        client = step.client or (CLIENT, FIRST_PORT + len(self._connections))
        if step.comes_back:
            self._now.attempt.connected_from(client)
        local = step.local or self.driver.local
        endpoints = Endpoints(client, step.server or SERVER, listener_address=step.listener, local=local)
        self._connections.append(_Connection(self.driver, endpoints))

    def perform(self, step: Step) -> None:
        """One step, and all that follows from it."""
        self._perform[type(step)](step)
        self.driver.settle()

    def ends(self) -> tuple[EndState, EndState]:
        """Client and server of the last connection, as they are now."""
        return self._now.ends() if self._connections else (EndState(), EndState())


class _Connection:
    """One connection from accept on; what its peers do before it is a flow is kept until then."""

    def __init__(self, driver: MemoryDriver, endpoints: Endpoints) -> None:
        self._driver = driver
        self._endpoints = endpoints
        self._flow: FlowEnds | None = None
        self._waiting: list[Callable[[], object]] = []
        self._gone = False
        self.attempt: Any = driver.engine.connection_requested(endpoints)
        self.attempt.on_verdict = self._decided
        driver.settle()
        if self.attempt.verdict == "permit":
            self._establish()

    def _decided(self) -> None:
        run_soon = self._driver.engine.run_soon  # on_verdict comes from within the engine
        assert run_soon is not None
        if self.attempt.verdict == "permit":
            run_soon(self._establish)

    def _establish(self) -> None:
        if self._flow is None:
            self._flow = self._driver.establish(self.attempt, self._endpoints)
            waiting, self._waiting = self._waiting, []
            for act in waiting if self._flow is not None else ():
                act()

    def do(self, act: Callable[[], object]) -> None:
        """Now, or as soon as there is a flow."""
        if self._flow is not None:
            act()
        elif self.attempt.verdict == "pended":
            self._waiting.append(act)
        # else it was blocked, and as after any reset there is nobody to hear of it

    def send(self, step: Send) -> None:
        """One segment of one side."""
        flow = self._present
        send = flow.send if self._leg(step.by) == "local" else flow.receive
        send(step.data, urgent=step.urgent, push=step.push)

    def fin(self, step: Fin) -> None:
        """A half-close of one side."""
        (self._present.send_fin if self._leg(step.by) == "local" else self._present.receive_fin)()

    def window(self, step: Window) -> None:
        """What one side takes from now on."""
        self._peer(step.of).window = step.size

    def reset(self, by: Side) -> None:
        """A reset by one side; before there is a flow only the client has a connection."""
        if self._flow is not None:
            self._flow.reset(self._leg(by))
        elif by == "client":
            self._gone = True
            self.attempt.gone()

    def ends(self) -> tuple[EndState, EndState]:
        """Client and server."""
        if self._flow is not None:
            return _end_state(self._peer("client")), _end_state(self._peer("server"))
        if self.attempt.verdict == "pended" and not self._gone:
            return EndState(), EndState()
        closed_by_fin = self.attempt.close_as == "fin" and not self._gone
        return EndState(fin=closed_by_fin, reset=not closed_by_fin), EndState()

    def _leg(self, side: Side) -> str:
        return "local" if side == self._endpoints.local else "remote"

    def _peer(self, side: Side) -> Peer:
        return self._present.local if self._leg(side) == "local" else self._present.remote

    @property
    def _present(self) -> FlowEnds:
        assert self._flow is not None
        return self._flow


def _end_state(peer: Peer) -> EndState:
    return EndState(bytes(peer.data), peer.fin, peer.reset, tuple(peer.urgent))
