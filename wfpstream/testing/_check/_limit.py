"""Does a callout ever come to the limit of what is held for NEED_MORE_DATA?

Owns finding that out, with the limit as it is: only a callout that waits for ever must answer BUFFER_LIMIT_REACHED, and
one whose records are bounded never sees it. It must not know cases, nor how they are judged.
"""

from __future__ import annotations

from typing import Any

from wfpstream.testing._memory_driver import FlowEnds, MemoryDriver
from wfpstream.testing._world import Side

from ._play import install
from ._samples import SIDES, Sample
from ._trials import Question

KIB = 1024
# What follows a sample's bytes: little first, so that a callout that decides byte by byte costs no time.
_STEPS = (16, KIB, 64 * KIB, KIB * KIB)


def comes_to_the_limit(question: Question) -> bool:
    """Is there a sample behind which the callout waits on and on, whatever comes, until the limit is reached?"""
    tried: set[tuple[Side, Side, bytes]] = set()
    for sample in question.samples:
        for local in question.locals:
            for side in SIDES:
                for filler in _fillers(sample.stream(side)):
                    what = (local, side, sample.stream(side) + filler)
                    if what not in tried:
                        tried.add(what)
                        if _waits_for_ever(question, sample, side, local, filler):
                            return True
    return False


def _fillers(data: bytes) -> list[bytes]:
    """Bytes one of which hardly ends what the sample has begun."""
    return [data[-1:], data[:1], b"\0"] if data else [b"\0"]


def _waits_for_ever(question: Question, sample: Sample, side: Side, local: Side, filler: bytes) -> bool:
    driver = MemoryDriver(question.options, local=local)
    watch = _Watch()
    driver.engine.remove_sink(driver.events)
    driver.engine.add_sink(watch)
    for async_fn, value in question.answers.items():
        driver.answer(async_fn, value)
    install(driver.engine, question.make())
    flow = driver.connect()
    if flow is not None:
        send = flow.send if side == local else flow.receive
        send(sample.stream(side))
        _feed(watch, flow, send, filler, question.options.limits.need_more_data)
    driver.engine.remove_sink(watch)
    driver.engine.abort_flows()
    driver.catch_up()
    return watch.reached


def _feed(watch: _Watch, flow: FlowEnds, send: Any, filler: bytes, limit: int) -> None:
    """More and more, as long as all of it is waited on."""
    fed, step = 0, 0
    while watch.waits and watch.shown >= fed <= limit and not watch.reached and not flow.ended:
        size = _STEPS[min(step, len(_STEPS) - 1)]
        send(filler * size)
        fed, step = fed + size, step + 1


class _Watch:
    """A sink that sees how much was shown last, whether the answer was to wait, and the limit."""

    wants_trace = True
    wants_data = "off"

    def __init__(self) -> None:
        self.waits = False
        self.shown = 0
        self.reached = False

    def __call__(self, event: dict[str, Any]) -> None:
        if event["event"] == "indicate":
            self.shown = event["len"]
            self.reached = self.reached or "BUFFER_LIMIT_REACHED" in event["out_flags"]
        elif event["event"] == "classify":
            self.waits = event["stream_action"] == "NEED_MORE_DATA"
