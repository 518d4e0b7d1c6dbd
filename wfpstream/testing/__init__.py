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

__all__ = [
    "CanonicalDirection",
    "CanonicalFlow",
    "CanonicalInjection",
    "CanonicalLog",
    "CanonicalRun",
    "CanonicalStage",
    "EventList",
    "FlowEnds",
    "MemoryDriver",
    "Peer",
    "canonical",
    "canonical_diff",
]
