"""Live traffic: sockets, the two drivers over the engine, original destinations, the worker parent."""

from __future__ import annotations

from ._listeners import Listener, ListenerSpec
from ._proxy import Proxy, serve_proxy
from ._rearrangement import Rearrangement
from ._sides import Capabilities
from ._stream_driver import capabilities, relay

__all__ = [
    "Capabilities",
    "Listener",
    "ListenerSpec",
    "Proxy",
    "Rearrangement",
    "capabilities",
    "relay",
    "serve_proxy",
]
