"""What a connection costs inside the engine from its request to its end, and what an idle flow keeps.

CPU microseconds for a whole life with one small item each way; bytes per flow by tracemalloc and by resident memory.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.engine import Inspector
from wfpstream.callouts.monitor import Monitor
from wfpstream.engine import Endpoints, FilterEngine, Flow
from wfpstream.fwps import Callout

LIVES = 2_000
IDLE = 5_000
ITEM = memoryview(bytearray(64))
CALLOUTS: dict[str, Callable[[], Sequence[Callout]]] = {
    "none": list,
    "1 inspector": lambda: [Inspector()],
    "4 inspectors": lambda: [Inspector() for _ in range(4)],
    "monitor": lambda: [Monitor(summary=False, digest=False)],
}


def make_engine(callouts: Sequence[Callout]) -> FilterEngine:
    """An engine of the real clock with these callouts, each in a sublayer of its own."""
    engine = FilterEngine(time.monotonic)
    for callout in callouts:
        engine.add_callout(callout)
    engine.turn()
    return engine


def begin(engine: FilterEngine, number: int) -> Flow:
    """Accepted, authorised, connected."""
    client = (f"10.0.{number >> 8 & 255}.{number & 255}", 40000 + number % 20000)
    attempt = engine.connection_requested(Endpoints(client=client, destination=("10.1.0.2", 80)))
    attempt.connected_from(("10.1.0.1", 50000))
    flow = engine.flow_established(attempt)
    assert flow is not None
    settle(engine, flow)
    return flow


def settle(engine: FilterEngine, flow: Flow) -> None:
    """What a driver does after an input: both sockets take what is owed, and it asks whether it may read."""
    for direction in (0, 1):
        output = flow.output(direction)
        if output.length:
            output.batch()
            flow.sent(direction, output.length)
        if output.fin:
            flow.fin_sent(direction)
    engine.settle_output(flow)
    flow.may_read(0)
    flow.may_read(1)
    if engine.has_pending:
        engine.turn()


def echo(engine: FilterEngine, flow: Flow) -> None:
    """One small item each way."""
    for direction in (0, 1):
        flow.received(direction, ITEM)
        settle(engine, flow)


def end(engine: FilterEngine, flow: Flow) -> None:
    """Both sides have said all they had to say."""
    for direction in (0, 1):
        flow.received_fin(direction)
        settle(engine, flow)
    assert flow.ended
    flow.gone("fin")


def cost_of_life(callouts: Sequence[Callout]) -> float:
    """CPU microseconds from `connection_requested` to `flow.gone`."""
    engine = make_engine(callouts)
    began = 0.0
    for number in range(LIVES + LIVES // 10):
        if number == LIVES // 10:  # warmed up
            began = time.process_time()
        flow = begin(engine, number)
        echo(engine, flow)
        end(engine, flow)
    return (time.process_time() - began) / LIVES * 1e6


def memory_of_idle(callouts: Sequence[Callout], used: bool, traced: bool) -> float:
    """Bytes that one of `IDLE` flows keeps which were just established, or have passed one item each way (`used`)."""
    engine = make_engine(callouts)
    end(engine, begin(engine, 1))  # what comes with the first flow belongs to none
    gc.collect()
    if traced:
        tracemalloc.start()
    before = _in_use(traced)
    flows = []
    for number in range(IDLE):
        flows.append(begin(engine, number))
        if used:
            echo(engine, flows[-1])
    gc.collect()
    kept = _in_use(traced) - before
    if traced:
        tracemalloc.stop()
    return kept / IDLE


def _in_use(traced: bool) -> int:
    """Bytes in use, as Python counts them or as the kernel does."""
    if traced:
        return tracemalloc.get_traced_memory()[0]
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def resident_of_idle(name: str, used: bool) -> float:
    """As `memory_of_idle`, of a process of its own: memory that was given back would hide what is asked for."""
    program = f"from benchmarks import birth; print(birth.memory_of_idle(birth.CALLOUTS[{name!r}](), {used}, False))"
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)


def measure(rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds; the memory once, for it hardly varies."""
    seen: dict[str, list[float]] = {name: [] for name in CALLOUTS}
    for _ in range(rounds):
        for name, make in CALLOUTS.items():
            seen[name].append(cost_of_life(make()))
    figures: dict[str, float] = {}
    print("birth: CPU microseconds per connection with one item each way, median of", rounds)
    print(f"and bytes per flow of {IDLE} that live, just established and after one item each way")
    print(f"{'callouts':>14} {'life':>8} {'traced':>8} {'used':>8} {'resident':>8} {'used':>8}")
    for name, make in CALLOUTS.items():
        row = [median(seen[name])]
        row += [memory_of_idle(make(), used, True) for used in (False, True)]
        row += [resident_of_idle(name, used) for used in (False, True)]
        print(f"{name:>14} {row[0]:>8.1f} " + " ".join(f"{value:>8.0f}" for value in row[1:]))
        columns = ("life us", "traced", "traced used", "resident", "resident used")
        figures |= {f"{name}, {column}": value for column, value in zip(columns, row, strict=True)}
    return figures
