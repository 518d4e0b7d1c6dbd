"""The memory driver as a world of the conformance cases.

Owns the translation of steps into what the memory driver's peers do; it has every capability. It must not know
what a case expects.
"""

from __future__ import annotations

from collections.abc import Callable

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


class MemoryWorld:
    """Everything in memory, under virtual time."""

    name = "memory"
    capabilities = CAPABILITIES

    def run(self, script: WorldScript) -> WorldOutcome:
        """Play the script. Raises AssertionError: the byte ledger does not close."""
        play = _Play(MemoryDriver(script.options, script.local))
        script.setup(play.driver.engine)
        if script.connect:
            play.connect()
        for step in script.steps:
            play.perform(step)
        client, server = play.ends()
        play.driver.close()
        return WorldOutcome(client, server, list(play.driver.events))


class _Play:
    def __init__(self, driver: MemoryDriver) -> None:
        self.driver = driver
        self._flow: FlowEnds | None = None
        self._perform: dict[type, Callable[..., object]] = {
            Send: self._send,
            Fin: self._fin,
            Reset: lambda step: self._present().reset(self._leg(step.by)),
            Window: lambda step: setattr(self._peer(step.of), "window", step.size),
            Wait: lambda step: driver.advance(step.seconds),
            Act: lambda step: step.fn(),
            Connect: lambda step: self.connect(),
        }

    def connect(self) -> None:
        """A new connection; None when it was blocked."""
        self._flow = self.driver.connect()

    def perform(self, step: Step) -> None:
        """One step, and all that follows from it."""
        self._perform[type(step)](step)
        self.driver.settle()

    def ends(self) -> tuple[EndState, EndState]:
        """Client and server, as they are now."""
        if self._flow is None:
            return EndState(reset=True), EndState()
        return _end_state(self._peer("client")), _end_state(self._peer("server"))

    def _send(self, step: Send) -> None:
        flow = self._present()
        send = flow.send if self._leg(step.by) == "local" else flow.receive
        send(step.data, urgent=step.urgent, push=step.push)

    def _fin(self, step: Fin) -> None:
        flow = self._present()
        (flow.send_fin if self._leg(step.by) == "local" else flow.receive_fin)()

    def _leg(self, side: Side) -> str:
        return "local" if side == self.driver.local else "remote"

    def _peer(self, side: Side) -> Peer:
        flow = self._present()
        return flow.local if self._leg(side) == "local" else flow.remote

    def _present(self) -> FlowEnds:
        if self._flow is None:
            raise AssertionError("there is no connection: it was blocked")
        return self._flow


def _end_state(peer: Peer) -> EndState:
    return EndState(bytes(peer.data), peer.fin, peer.reset, tuple(peer.urgent))
