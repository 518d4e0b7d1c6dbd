"""Live traffic: sockets, the two drivers over the engine, original destinations, the worker parent."""

from __future__ import annotations

from ._listeners import Listener, ListenerSpec
from ._proxy import Proxy, serve_proxy
from ._rearrangement import Rearrangement
from ._sides import Capabilities
from ._stream_driver import capabilities, relay
from ._workers import Gone, WorkerError, Workers, WorkersFailed
from ._workers_addresses import KeptAddress, SharedAddresses
from ._workers_channel import WorkerChannel, become_worker
from ._workers_process import WorkerProcess, start_worker
from ._workers_tally import Tally

__all__ = [
    "Capabilities",
    "Gone",
    "KeptAddress",
    "Listener",
    "ListenerSpec",
    "Proxy",
    "Rearrangement",
    "SharedAddresses",
    "Tally",
    "WorkerChannel",
    "WorkerError",
    "WorkerProcess",
    "Workers",
    "WorkersFailed",
    "become_worker",
    "capabilities",
    "relay",
    "serve_proxy",
    "start_worker",
]
