"""What one item costs inside the engine, by number of inspecting sublayers and by size: CPU microseconds."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from wfpstream.engine import Endpoints, FilterEngine
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
    engine = FilterEngine(time.monotonic)
    for _ in range(sub_layers):
        engine.add_callout(Inspector())
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    view = memoryview(bytearray(size))
    output = flow.output(0)
    began = time.process_time()
    for _ in range(ITEMS):
        flow.received(0, view)
        output.batch()
        flow.sent(0, output.length)
        engine.settle_output(flow)
        flow.may_read(0)
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
    return {f"{s} sublayers, {n} bytes": median(v) for (s, n), v in seen.items()}
