"""Floor 4: driving an engine from tests, without sockets or an event loop."""

from __future__ import annotations

from ._memory_driver import EventList, FlowEnds, MemoryDriver, Peer

__all__ = ["EventList", "FlowEnds", "MemoryDriver", "Peer"]
