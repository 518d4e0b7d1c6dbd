"""wfpstream beside other relays, each on one thread: CPU, wall clock, latency, memory. `python -m benchmarks peers`."""

from benchmarks.peers._interpreter import settle
from benchmarks.peers._long import long_main
from benchmarks.peers._machine import describe_machine
from benchmarks.peers._main import peers_main

__all__ = ["describe_machine", "long_main", "peers_main", "settle"]
