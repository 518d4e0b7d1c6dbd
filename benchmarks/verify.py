"""What `verify` costs inside the engine, in CPU microseconds per item: off, warn and strict, by callout."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from benchmarks.engine import Inspector, cost_of_item
from wfpstream.callouts.latency import Latency
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.engine import EngineOptions
from wfpstream.fwps import Callout

LEVELS = ("off", "warn", "strict")
CASES: dict[str, Callable[[], list[Callout]]] = {
    "no callout": list,
    "inspector": lambda: [Inspector()],
    "stream_edit": lambda: [StreamEdit("rainy", "sunny")],
    "stream_edit, 4 of them": lambda: [StreamEdit("rainy", "sunny") for _ in range(4)],
    "latency 0, out of band": lambda: [Latency(delay=0.0)],
}


def one_round(make: Callable[[], list[Callout]], size: int, level: str) -> float:
    """CPU microseconds per item at that level."""
    options = EngineOptions()
    options.verify.level = level
    return cost_of_item(make(), size, options)


def measure(rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds."""
    cases = [(name, size, level) for name in CASES for size in (64, 65536) for level in LEVELS]
    seen: dict[tuple[str, int, str], list[float]] = {case: [] for case in cases}
    for _ in range(rounds):
        for name, size, level in cases:
            seen[name, size, level].append(one_round(CASES[name], size, level))
    print("verify: CPU microseconds per item, median of", rounds)
    print(f"{'callout':>24} {'bytes':>6}" + "".join(f"{level:>9}" for level in LEVELS))
    for name in CASES:
        for size in (64, 65536):
            row = "".join(f"{median(seen[name, size, level]):>9.2f}" for level in LEVELS)
            print(f"{name:>24} {size:>6}{row}")
    return {f"{name}, {size} bytes, {level}": median(v) for (name, size, level), v in seen.items()}
