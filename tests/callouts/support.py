"""Running one callout over a stream in memory, cut in every way that matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import strategies as st

from wfpstream.fwps import Callout, EngineOptions
from wfpstream.testing import MemoryDriver

# Virtual seconds, more than anything here takes.
LATER = 1000.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the receiver of one direction got, and what the verifier said."""

    data: bytes
    fin: bool
    reset: bool
    violations: list[str]
    seconds: float


def watched(**engine: Any) -> EngineOptions:
    """Engine options with the verifier on."""
    options = EngineOptions(**engine)
    options.verify.level = "warn"
    return options


def memory_driver(
    *callouts: Callout, local: str = "client", options: EngineOptions | None = None
) -> MemoryDriver:
    """A driver with these callouts, asked in this order, and the verifier on."""
    driver = MemoryDriver(options=options or watched(), local=local)
    for callout in callouts:
        driver.add(callout)
    return driver


def relay(
    callouts: Callout | Sequence[Callout],
    pieces: Sequence[bytes],
    *,
    inbound: bool = False,
    fin: bool = True,
    local: str = "client",
    options: EngineOptions | None = None,
) -> Outcome:
    """Send `pieces` one by one, then a FIN; what came out at the other end when everything has settled."""
    listed = [callouts] if isinstance(callouts, Callout) else callouts
    driver = memory_driver(*listed, local=local, options=options)
    flow = driver.connect()
    assert flow is not None
    start = driver.now
    for piece in pieces:
        (flow.receive if inbound else flow.send)(piece)
        driver.settle()
    if fin:
        (flow.receive_fin if inbound else flow.send_fin)()
    end = flow.local if inbound else flow.remote
    driver.settle()
    if fin:
        driver.run_until(lambda: end.fin or end.reset, limit=LATER)
    arrived, seconds = (bytes(end.data), end.fin, end.reset), driver.now - start
    driver.close()
    return Outcome(*arrived, list(driver.violations), seconds)


def cut(data: bytes, points: Sequence[int]) -> list[bytes]:
    """`data` cut at these places; no empty pieces."""
    places = sorted({0, len(data), *(point for point in points if 0 < point < len(data))})
    return [data[start:end] for start, end in pairwise(places)]


def all_cuts(data: bytes, *, random: int = 10) -> Iterator[list[bytes]]:
    """Whole, byte by byte, and at some places that are always the same."""
    yield cut(data, [])
    yield cut(data, range(len(data)))
    for seed in range(random):
        dice = Random(seed)
        yield cut(data, [dice.randrange(len(data) + 1) for _ in range(dice.randint(1, 6))])


@st.composite
def streams(draw: st.DrawFn, alphabet: str = "abc", max_size: int = 60) -> list[bytes]:
    """A stream over a small alphabet, cut anywhere."""
    data = draw(st.text(alphabet, max_size=max_size)).encode()
    return cut(data, draw(st.lists(st.integers(0, max_size), max_size=8)))


def check_every_cut(make: Callable[[], Callout], data: bytes, expected: bytes, **how: Any) -> None:
    """The same bytes come out for every cut, the FIN behind them, and the verifier has no complaint."""
    for pieces in all_cuts(data):
        outcome = relay(make(), pieces, **how)
        assert (outcome.data, outcome.fin) == (expected, True), pieces
        assert outcome.violations == [], pieces
