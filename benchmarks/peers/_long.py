"""The long run: thousands of flows, millions of messages, and whether memory or descriptors grow meanwhile."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers._load import Load, LoadError, compiled
from benchmarks.peers._machine import describe_machine
from benchmarks.peers._process import cpu_seconds, descriptors, memory_bytes
from benchmarks.peers._programs import Peer, choose_peers
from benchmarks.peers._rounds import raise_descriptor_limit
from benchmarks.peers._running import StartError, running
from benchmarks.peers._venv import MissingError

FLOWS = 9_000
TRIPS = 5_000_000  # ten million messages go through the relay
# Enough that the relay always has something to do: otherwise the run takes half as long again.
OUTSTANDING = 256
# A relay needs two descriptors for a flow, and some for itself.
_SPARE = 300
_CLOSING = 20.0
MOMENTS = (
    "before", "all open", "after a tenth of the time", "at the end", "all closed", "as many open again",
    "all closed again",
)  # fmt: skip
_SAMPLES_EVERY = 2.0


@dataclass(frozen=True)
class LongRun:
    """What came out.

    Attributes:
        flows, messages, seconds: what was done; `outstanding` messages were on their way at once.
        p50_us, p99_us, max_us: of a round trip.
        cpu_us: the relay's CPU per round trip.
        memory_mib: proportional set size at the moments of MOMENTS: an allocator rarely gives memory back, so what
            tells of a leak is whether as many flows again need more.
        most_memory_mib: the highest sample.
        descriptors: at the same moments.
        most_descriptors: the highest sample.
    """

    flows: int
    messages: int
    outstanding: int
    seconds: float
    p50_us: float
    p99_us: float
    max_us: float
    cpu_us: float
    memory_mib: tuple[float, ...]
    most_memory_mib: float
    descriptors: tuple[int, ...]
    most_descriptors: int


class _Sampler(threading.Thread):
    """Reads memory and descriptors every two seconds."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._over = threading.Event()
        self.samples = [_sample(pid)]

    def run(self) -> None:
        """Until `finish`."""
        while not self._over.wait(_SAMPLES_EVERY):
            self.samples.append(_sample(self._pid))

    def finish(self) -> list[tuple[float, int]]:
        """All samples, one more at the end."""
        self._over.set()
        self.join()
        return [*self.samples, _sample(self._pid)]


def _sample(pid: int) -> tuple[float, int]:
    return memory_bytes(pid) / 2**20, descriptors(pid)


def long_run(peer: Peer, flows: int, messages: int, outstanding: int) -> LongRun:
    """Perform it.

    Raises:
        LoadError, StartError, MissingError: it could not be done.
    """
    flows = min(flows, (raise_descriptor_limit() - _SPARE) // 2)
    load = Load(compiled())
    options = {"connections": flows, "messages": messages, "outstanding": outstanding}
    try:
        with running(peer, load.port) as relay:
            before = _sample(relay.pid)
            with load.client("ping-pong", relay.port, options) as client:
                sampler = _Sampler(relay.pid)
                began = cpu_seconds(relay.pid)
                sampler.start()
                answer = client.run()
                used = cpu_seconds(relay.pid) - began
                samples = sampler.finish()
            closed = _closed(relay.pid, before[1])
            moments = [before, samples[0], samples[len(samples) // 10], samples[-1], closed]
            with load.client("ping-pong", relay.port, {"connections": flows}) as client:
                client.run()
                moments.append(_sample(relay.pid))
            moments.append(_closed(relay.pid, before[1]))
    finally:
        load.close()
    return _long_run_of(answer, outstanding, used, moments, samples)


def _long_run_of(
    answer: dict[str, Any],
    outstanding: int,
    used: float,
    moments: Sequence[tuple[float, int]],
    samples: Sequence[tuple[float, int]],
) -> LongRun:
    return LongRun(
        flows=answer["connections"],
        messages=answer["messages"],
        outstanding=outstanding,
        seconds=answer["seconds"],
        p50_us=answer["p50_us"],
        p99_us=answer["p99_us"],
        max_us=answer["max_us"],
        cpu_us=used / answer["messages"] * 1e6,
        memory_mib=tuple(round(memory, 2) for memory, _ in moments),
        most_memory_mib=round(max(memory for memory, _ in samples), 2),
        descriptors=tuple(number for _, number in moments),
        most_descriptors=max(number for _, number in samples),
    )


def _closed(pid: int, expected: int) -> tuple[float, int]:
    """The state when the relay has let go of all flows, or has had its time."""
    until = time.monotonic() + _CLOSING
    while time.monotonic() < until and descriptors(pid) > expected:
        time.sleep(0.2)
    return _sample(pid)


def long_main(arguments: Sequence[str]) -> int:
    """`python -m benchmarks long`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks long", description=__doc__)
    parser.add_argument("--flows", type=int, default=FLOWS)
    parser.add_argument("--messages", type=float, default=TRIPS, help="round trips in all")
    parser.add_argument("--outstanding", type=int, default=OUTSTANDING, help="messages on their way at once")
    parser.add_argument("--share", type=float, default=1.0, help="of the messages")
    parser.add_argument("--peers", default="wfpstream")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {"machine": describe_machine(), "runs": {}}
    try:
        for peer in choose_peers(options.peers, {}):
            result = long_run(peer, options.flows, int(options.messages * options.share), options.outstanding)
            found["runs"][peer.name] = asdict(result)
            print(text_of(peer.name, result))
    except (ValueError, LoadError, StartError, MissingError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


def text_of(name: str, run: LongRun) -> str:
    """For the terminal."""
    lines = [
        f"long, {name}: {run.flows:,} flows, {run.messages:,} round trips, {run.outstanding} at once, "
        f"{run.seconds:.0f} s",
        f"  round trip: p50 {run.p50_us:,.0f} us, p99 {run.p99_us:,.0f} us, longest {run.max_us:,.0f} us;"
        f" CPU {run.cpu_us:.1f} us",
    ]
    lines += [
        f"  {moment:>26}: {memory:8.1f} MiB, {number:,} descriptors"
        for moment, memory, number in zip(MOMENTS, run.memory_mib, run.descriptors, strict=True)
    ]
    lines.append(f"  {'most':>26}: {run.most_memory_mib:8.1f} MiB, {run.most_descriptors:,} descriptors")
    return "\n".join(lines)
