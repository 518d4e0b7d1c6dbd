"""Floor 4: driving an engine from tests, without sockets or an event loop, and comparing what happened."""

from __future__ import annotations

from ._canonical import (
    CanonicalDirection,
    CanonicalFlow,
    CanonicalInjection,
    CanonicalLog,
    CanonicalRun,
    CanonicalStage,
    canonical,
    canonical_diff,
)
from ._memory_driver import EventList, FlowEnds, MemoryDriver, Peer
from ._memory_world import MemoryWorld
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
    World,
    WorldOutcome,
    WorldScript,
)

__all__ = [
    "CAPABILITIES",
    "Act",
    "CanonicalDirection",
    "CanonicalFlow",
    "CanonicalInjection",
    "CanonicalLog",
    "CanonicalRun",
    "CanonicalStage",
    "Connect",
    "EndState",
    "EventList",
    "Fin",
    "FlowEnds",
    "MemoryDriver",
    "MemoryWorld",
    "Peer",
    "Reset",
    "Send",
    "Side",
    "Step",
    "Wait",
    "Window",
    "World",
    "WorldOutcome",
    "WorldScript",
    "canonical",
    "canonical_diff",
]
