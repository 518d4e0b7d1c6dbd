"""What it costs to read a large configuration again, in CPU milliseconds, with a hundred flows that live."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import TypeVar

from wfpstream.config import deploy, parse_config
from wfpstream.engine import Endpoints

T = TypeVar("T")

FILTERS = 5_000
FLOWS = 100


def short(skipped: int, filters: int = FILTERS) -> str:
    """Rules of two filters each (IPv4 and IPv6), every one with a sublayer of its own and all with one callout."""
    parts = ["[[callout]]\nname = 'x'\nuse = 'framer'"]
    for number in range(filters // 2):
        if number != skipped:
            parts.append(
                f"[[rule]]\nname = 'r{number}'\ncallout = 'x'\nwhen = {{ remote_port = {number + 1} }}"
            )
    return "\n".join(parts)


def long(skipped: int, filters: int = FILTERS) -> str:
    """Plain filters of one weight in one sublayer, every other one blocks."""
    parts = []
    for number in range(filters):
        if number != skipped:
            action = ("permit", "block")[number % 2]
            parts.append(
                f"[[filter]]\nname = 'f{number}'\nlayer = 'ale_auth_connect_v4'\naction = '{action}'\n"
                f"[[filter.condition]]\nfield = 'ip_remote_port'\nvalue = {number + 1}"
            )
    return "\n".join(parts)


def one_round(text: Callable[[int], str], skipped: tuple[int, int]) -> list[float]:
    """CPU milliseconds to decode, to prepare and to commit a file that has left out another entry than the last one."""
    deployment = deploy(parse_config(text(skipped[0])))
    engine = deployment.engine
    for port in range(FLOWS):
        endpoints = Endpoints(client=("10.0.0.1", 40000), destination=("10.0.0.2", 60000 + port))
        assert engine.flow_established(engine.connection_requested(endpoints)) is not None
    engine.turn()
    after = text(skipped[1])
    loaded, decoding = _timed(lambda: parse_config(after))
    pending, preparing = _timed(lambda: deployment.prepare(loaded))

    def commit() -> None:
        pending.commit()
        engine.turn()

    _, committing = _timed(commit)
    return [decoding, preparing, committing]


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    result = work()
    return result, (time.process_time() - began) * 1e3


def measure(rounds: int) -> dict[str, float]:
    """Medians over interleaved rounds."""
    cases = {
        f"{kind}, {what}": (text, skipped)
        for kind, text in (("short form", short), ("long form", long))
        for what, skipped in (("nothing changed", (7, 7)), ("one added, one removed", (7, 1000)))
    }
    seen: dict[str, list[list[float]]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            seen[name].append(one_round(*case))
    print(f"reload: CPU milliseconds for {FILTERS} filters with {FLOWS} flows, median of", rounds)
    print(f"{'':>36} {'decode':>8} {'prepare':>8} {'commit':>8} {'sum':>8}")
    figures = {}
    for name, found in seen.items():
        row = [median(column) for column in zip(*found, strict=True)]
        print(f"{name:>36} " + " ".join(f"{value:>8.0f}" for value in [*row, sum(row)]))
        figures[name] = sum(row)
    return figures
