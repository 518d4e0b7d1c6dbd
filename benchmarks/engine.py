"""What one item costs inside the engine: by number of inspecting sublayers, size, callout and the driver's calls.

In CPU microseconds and, where valgrind is there to count them, in instructions, which other load does not change.
`python -m benchmarks.engine SUBLAYERS CYCLE ITEMS` is what valgrind runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Literal

from wfpstream.callouts.monitor import Monitor
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.engine import Endpoints, EngineOptions, FilterEngine
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout, Flow, StreamActionType

ITEMS = 20_000
CONTINUE = int(ActionType.CONTINUE)
SUB_LAYERS: tuple[int, ...] = (0, 1, 2, 4, 8)
NEED_MORE = int(StreamActionType.NEED_MORE_DATA)
HELD_MIB: tuple[int, ...] = (1, 2, 4, 8)  # the last is the limit of NEED_MORE_DATA
COUNTED = (2_000, 7_000)  # items; the difference leaves out what comes before them

Cycle = Literal["five calls", "one call"]
CYCLES: tuple[Cycle, Cycle] = ("five calls", "one call")


class Inspector(Callout):
    """Looks at every byte's length and goes on."""

    filter_action = "callout_inspection"

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: Any,
    ) -> None:
        classify_out.action_type = CONTINUE


class Waiting(Callout):
    """Wants so many bytes at once, and waits until they are there."""

    filter_action = "callout_unknown"

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted

    def classify_fn(
        self,
        in_fixed_values: Any,
        in_meta_values: Any,
        layer_data: Any,
        classify_context: Any,
        filter: Any,
        flow_context: int,
        classify_out: Any,
    ) -> None:
        classify_out.action_type = CONTINUE
        if not classify_out.flags and not layer_data.stream_data.data_length >= self.wanted:
            layer_data.stream_action = NEED_MORE
            layer_data.count_bytes_required = self.wanted


def begin(callouts: Sequence[Callout], options: EngineOptions | None = None) -> tuple[FilterEngine, Flow]:
    """An engine with these callouts and one established flow."""
    engine = FilterEngine(time.monotonic, options)
    for callout in callouts:
        engine.add_callout(callout)
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    engine.turn()
    return engine, flow


def cost_of_item(
    callouts: Sequence[Callout],
    size: int,
    options: EngineOptions | None = None,
    cycle: Cycle = "five calls",
    items: int = ITEMS,
) -> float:
    """CPU microseconds per item of `size` bytes, both directions in turn.

    `five calls` is the cycle every driver may use, `one call` the short one that does the same for a plain item.
    """
    engine, flow = begin(callouts, options)
    view = memoryview(bytearray(size))
    run = _five_calls if cycle == "five calls" else _one_call
    began = time.process_time()
    run(engine, flow, view, items)
    return (time.process_time() - began) / items * 1e6


def _five_calls(engine: FilterEngine, flow: Flow, view: memoryview, items: int) -> None:
    for number in range(items):
        direction = number & 1
        flow.received(direction, view)
        _write(engine, flow, direction)
        flow.may_read(direction)
        if engine.has_pending:
            engine.turn()


def _one_call(engine: FilterEngine, flow: Flow, view: memoryview, items: int) -> None:
    pass_on = engine.pass_on
    for number in range(items):
        if not pass_on(flow, number & 1, view):
            _write(engine, flow, number & 1)


def _write(engine: FilterEngine, flow: Flow, direction: int) -> None:
    output = flow.output(direction)
    if output.length:
        output.batch()
        flow.sent(direction, output.length)
    engine.settle_output(flow)


def measure(rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds."""
    figures = measure_sub_layers(rounds) | measure_built_ins(rounds) | measure_held_bytes()
    return figures | count_instructions()


def measure_sub_layers(rounds: int) -> dict[str, float]:
    """Callouts that look at nothing: what the engine itself costs, and what one more sublayer does."""
    cases = [(cycle, size, number) for cycle in CYCLES for size in (64, 65536) for number in SUB_LAYERS]
    seen: dict[tuple[Cycle, int, int], list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for cycle, size, number in cases:
            callouts = [Inspector() for _ in range(number)]
            seen[cycle, size, number].append(cost_of_item(callouts, size, cycle=cycle))
    print("engine: CPU microseconds per item, median of", rounds, "(64 B and 64 KiB)")
    print(f"{'sublayers':>10} {'five calls':>21} {'one call':>21}")
    for number in SUB_LAYERS:
        row = [median(seen[cycle, size, number]) for cycle in CYCLES for size in (64, 65536)]
        print(f"{number:>10} " + " ".join(f"{value:>10.2f}" for value in row))
    figures = {f"{n} sublayers, {size} bytes, {c}": median(v) for (c, size, n), v in seen.items()}
    for cycle in CYCLES:
        first, last = (figures[f"{n} sublayers, 64 bytes, {cycle}"] for n in (1, 8))
        figures[f"one more sublayer, {cycle}"] = added = (last - first) / 7
        print(f"one more sublayer, {cycle}: {added * 1000:.0f} ns")
    return figures


def measure_built_ins(rounds: int) -> dict[str, float]:
    """Small items through callouts that do real work; the edit finds nothing."""
    cases: dict[str, Callable[[], list[Callout]]] = {
        "no callout": list,
        "monitor": lambda: [Monitor(summary=False)],
        "stream_edit": lambda: [StreamEdit("rainy", "sunny")],
        "monitor and stream_edit": lambda: [Monitor(summary=False), StreamEdit("rainy", "sunny")],
    }
    seen: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, make in cases.items():
            seen[name].append(cost_of_item(make(), 64, cycle="one call"))
    for name, costs in seen.items():
        print(f"{name:>25} {median(costs):>10.2f}")
    return {f"{name}, 64 bytes": median(costs) for name, costs in seen.items()}


def measure_held_bytes() -> dict[str, float]:
    """1 to 8 MiB that come in single bytes while a callout waits for all of them: CPU seconds, which should double.

    One round is enough: a run lasts many seconds.
    """
    figures = {f"{mib} MiB in single bytes, seconds": cost_of_held(mib << 20) for mib in HELD_MIB}
    print("held under NEED_MORE_DATA, in single bytes: CPU seconds, microseconds per byte")
    for mib, spent in zip(HELD_MIB, figures.values(), strict=True):
        print(f"{mib:>6} MiB {spent:>8.1f} {spent / (mib << 20) * 1e6:>8.2f}")
    return figures


def cost_of_held(total: int) -> float:
    """CPU seconds until so many single bytes have come, were shown in one piece, and went on."""
    engine, flow = begin([Waiting(total)])
    view = memoryview(bytearray(1))
    began = time.process_time()
    for _ in range(total):
        if not engine.pass_on(flow, 0, view):
            engine.settle_output(flow)
    flow.sent(0, flow.output(0).length)
    spent = time.process_time() - began
    assert flow.ledger(0).written == total
    return spent


def count_instructions() -> dict[str, float]:
    """Instructions per item, from two runs that differ by 5,000 items."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("instructions per item: not available (no valgrind)")
        return {}
    print("instructions per item of 64 B")
    print(f"{'sublayers':>10} {'five calls':>10} {'one call':>10}")
    runs = [
        (valgrind, number, cycle, items) for number in SUB_LAYERS for cycle in CYCLES for items in COUNTED
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # a count does not mind what else runs
        counts = iter(list(pool.map(lambda run: _instructions(*run), runs)))
    figures = {}
    for number in SUB_LAYERS:
        for cycle in CYCLES:
            few, many = next(counts), next(counts)
            figures[f"{number} sublayers, instructions, {cycle}"] = (many - few) / (COUNTED[1] - COUNTED[0])
        row = [figures[f"{number} sublayers, instructions, {cycle}"] for cycle in CYCLES]
        print(f"{number:>10} " + " ".join(f"{value:>10.0f}" for value in row))
    return figures


def _instructions(valgrind: str, sub_layers: int, cycle: Cycle, items: int) -> int:
    tool = [valgrind, "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    program = [sys.executable, "-m", "benchmarks.engine", str(sub_layers), cycle, str(items)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    done = subprocess.run([*tool, *program], capture_output=True, text=True, check=True, env=environment)
    line = next(line for line in done.stderr.splitlines() if "I   refs" in line or "I refs" in line)
    return int(line.rpartition(":")[2].replace(",", ""))


if __name__ == "__main__":
    chosen: Cycle = "one call" if sys.argv[2] == "one call" else "five calls"
    cost_of_item([Inspector() for _ in range(int(sys.argv[1]))], 64, None, chosen, int(sys.argv[3]))
