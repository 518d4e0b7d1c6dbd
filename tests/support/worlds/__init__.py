"""The drivers as worlds for the conformance cases: the reactor, the stream driver over sockets and over streams, the
replayer."""

from __future__ import annotations

from ._live import ReactorWorld, SocketWorld, StreamWorld
from ._replay import ReplayWorld

__all__ = ["ReactorWorld", "ReplayWorld", "SocketWorld", "StreamWorld"]
