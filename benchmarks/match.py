"""What searching and editing cost inside the engine, CPU seconds per GB (nanoseconds per byte), no sockets.

Items of 128 KiB, as a live driver reads them: `stream_edit` beside a monitor, with and without matches; `pattern_set`
beside one regular expression of alternatives and a search for one pattern after the other.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from functools import partial
from statistics import median

from wfpstream.callouts.monitor import Monitor
from wfpstream.callouts.pattern_set import PatternSet
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.engine import Endpoints, FilterEngine
from wfpstream.fwps import Callout

SIZE = 131_072
EVERY = 4_096
TOTAL = 32 << 20
PATTERN = b"rainy"


def text(matches: bool) -> bytearray:
    """Words at random, all different from the pattern but made of the same letters; with a match per 4 KiB or none."""
    dice = random.Random(7)
    words = bytearray()
    while len(words) < SIZE:
        words += bytes(dice.choices(b"abcdefghilmnoprstuy", k=dice.randint(2, 9))) + b" "
    data = bytearray(bytes(words[:SIZE]).replace(PATTERN, b"sunny"))
    for place in range(100, SIZE if matches else 0, EVERY):
        data[place : place + len(PATTERN)] = PATTERN
    return data


def engine_cost(make: Callable[[], list[Callout]], data: bytearray, total: int = TOTAL) -> float:
    """CPU seconds per GB of inbound items through the cycle every driver has."""
    engine = FilterEngine(time.monotonic, None)
    for callout in make():
        engine.add_callout(callout)
    endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 80))
    flow = engine.flow_established(engine.connection_requested(endpoints))
    assert flow is not None
    view = memoryview(data)
    engine.turn()
    items = max(1, total // len(data))
    began = time.process_time()
    for _ in range(items):
        flow.received(1, view)
        output = flow.output(1)
        while output.length:
            pieces, _ = output.batch()
            flow.sent(1, sum(map(len, pieces)))
        engine.settle_output(flow)
        flow.may_read(1)
        if engine.has_pending:
            engine.turn()
    return (time.process_time() - began) / (items * len(data)) * 1e9


def search_cost(search: Callable[[memoryview], object], data: bytearray, total: int) -> float:
    """CPU seconds per GB of a bare search of items: nothing is kept from one to the next."""
    view = memoryview(data)
    items = max(1, total // len(data))
    began = time.process_time()
    for _ in range(items):
        search(view)
    return (time.process_time() - began) / (items * len(data)) * 1e9


def words(count: int) -> list[bytes]:
    """So many different literals, none of which occurs in `text`: it has no capitals."""
    dice = random.Random(11)
    found: set[bytes] = set()
    while len(found) < count:
        found.add(bytes(dice.choices(b"abcdeilnorst", k=dice.randint(5, 15))) + b"Q")
    return sorted(found)


def editing_cases() -> dict[str, Callable[[], float]]:
    """By name, what gives one figure."""
    plain, full = text(False), text(True)
    pattern = re.compile(re.escape(PATTERN))
    return {
        "no callout": lambda: engine_cost(list, plain),
        "monitor,digest=false": lambda: engine_cost(lambda: [Monitor(summary=False, digest=False)], plain),
        "monitor": lambda: engine_cost(lambda: [Monitor(summary=False)], plain),
        "stream_edit, no match": lambda: engine_cost(lambda: [StreamEdit(PATTERN, b"sunny")], plain),
        "stream_edit, a match per 4 KiB": lambda: engine_cost(lambda: [StreamEdit(PATTERN, b"sunny")], full),
        "stream_edit,mode=whole, a match per 4 KiB": lambda: engine_cost(
            lambda: [StreamEdit(PATTERN, b"sunny", mode="whole")], full
        ),
        "bare bytes.find of a copy, no match": lambda: search_cost(
            lambda view: bytes(view).find(PATTERN), plain, TOTAL
        ),
        "bare re.search of the view, no match": lambda: search_cost(pattern.search, plain, TOTAL),
    }


def one_by_one(literals: list[bytes]) -> Callable[[memoryview], object]:
    """A search for one literal after the other."""

    def search(view: memoryview) -> object:
        data = bytes(view)
        return [literal for literal in literals if literal in data]

    return search


def set_cost(kept: PatternSet, literals: list[bytes], data: bytearray) -> float:
    """A new callout with the database of `kept`."""
    return engine_cost(lambda: [PatternSet(list(literals), limit=0)], data)


def pattern_cases() -> dict[str, Callable[[], float]]:
    """The same for sets of literals; the slow ones get less to do."""
    plain = text(False)
    cases: dict[str, Callable[[], float]] = {}
    for count in (1, 1_000, 10_000):
        literals = words(count)
        some = plain[: max(SIZE // count, 256)]
        if not PatternSet.unavailable():
            # One that stays: the database is compiled once for all rounds.
            kept = PatternSet(list(literals), limit=0)
            cases[f"pattern_set, {count:,} literals"] = partial(set_cost, kept, literals, plain)
        alternation = re.compile(b"|".join(map(re.escape, literals))).search
        for name, search in (("re alternation", alternation), ("one find each", one_by_one(literals))):
            cases[f"{name}, {count:,} literals"] = partial(search_cost, search, some, len(some))
    return cases


def measure(rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds."""
    cases = editing_cases() | pattern_cases()
    seen: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, cost in cases.items():
            seen[name].append(cost())
    figures = {name: median(costs) for name, costs in seen.items()}
    print("match: CPU seconds per GB inside the engine, median of", rounds)
    for name, figure in figures.items():
        print(f"{name:>45} {figure:>12.3f}")
    without = figures["no callout"]
    each = (figures["stream_edit, a match per 4 KiB"] - figures["stream_edit, no match"]) * EVERY / 1000
    print(f"a match inline: {each:.1f} us; without any callout a GB takes {without:.3f} s of the engine")
    if PatternSet.unavailable():
        print(PatternSet.unavailable())
    return figures | {"a match inline, us": each}
