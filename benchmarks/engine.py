"""What one item costs inside the engine, in CPU microseconds: by number of inspecting sublayers, size and callout."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from wfpstream.callouts.monitor import Monitor
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.engine import Endpoints, EngineOptions, FilterEngine
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout

ITEMS = 20_000
CONTINUE = int(ActionType.CONTINUE)


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


def one_round(sub_layers: int, size: int) -> float:
    """CPU microseconds per item through `sub_layers` stages."""
    return cost_of_item([Inspector() for _ in range(sub_layers)], size)


def cost_of_item(callouts: Sequence[Callout], size: int, options: EngineOptions | None = None) -> float:
    """CPU microseconds per item of `size` bytes, both directions in turn, through the cycle every driver has."""
    engine = FilterEngine(time.monotonic, options)
    for callout in callouts:
        engine.add_callout(callout)
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    view = memoryview(bytearray(size))
    engine.turn()
    began = time.process_time()
    for number in range(ITEMS):
        direction = number & 1
        flow.received(direction, view)
        output = flow.output(direction)
        if output.length:
            output.batch()
            flow.sent(direction, output.length)
        engine.settle_output(flow)
        flow.may_read(direction)
        if engine.has_pending:
            engine.turn()
    return (time.process_time() - began) / ITEMS * 1e6


def measure(rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds."""
    cases = [(sub_layers, size) for size in (64, 65536) for sub_layers in (0, 1, 2, 4, 8)]
    seen: dict[tuple[int, int], list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for case in cases:
            seen[case].append(one_round(*case))
    print("engine: CPU microseconds per item, median of", rounds)
    print(f"{'sublayers':>10} {'64 B':>10} {'64 KiB':>10}")
    for sub_layers in (0, 1, 2, 4, 8):
        row = [median(seen[sub_layers, size]) for size in (64, 65536)]
        print(f"{sub_layers:>10} {row[0]:>10.2f} {row[1]:>10.2f}")
    built_ins = measure_built_ins(rounds)
    return {f"{s} sublayers, {n} bytes": median(v) for (s, n), v in seen.items()} | built_ins


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
            seen[name].append(cost_of_item(make(), 64))
    for name, costs in seen.items():
        print(f"{name:>25} {median(costs):>10.2f}")
    return {f"{name}, 64 bytes": median(costs) for name, costs in seen.items()}
