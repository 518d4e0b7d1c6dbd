"""The trace scripts: what two peers say, which built-in callouts stand in between, and what IND-26 promises of the log.

Owns the table of callouts, the scripts, and which events of a direction come in the same order in every world for
equal borders. It must not know worlds, nor how logs of other borders are compared (`_canonical`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from wfpstream.callouts import (
    AllowAfter,
    Banner,
    Fault,
    Framer,
    Latency,
    Monitor,
    PatternDrop,
    PendFin,
    StreamEdit,
    Throttle,
)
from wfpstream.fwps import Callout

from ._world import Fin, Reset, Send, Step, Wait

Event = dict[str, Any]
Make = Callable[[], list[Callout]]

TRACED = ("indicate", "classify", "inject", "defer", "continue", "discard")
# What IND-5 has comparisons ignore, and what names something of one run only.
_UNPROMISED_FLAGS = frozenset(("RECEIVE_PUSH", "SEND_NODELAY"))
_UNPROMISED_KEYS = frozenset(("flow", "seq", "t", "ts", "filter", "data"))
# Seconds between two steps: more than any callout of the table takes over one.
REST = 10.0


def in_order(events: Sequence[Event], direction: str) -> list[Event]:
    """The events whose order in one direction IND-26 promises for equal borders, with what is promised of them.

    Not among them: what the receiver's socket had not taken at the end.
    """
    found = []
    for event in events:
        if event["event"] in TRACED and event.get("dir") == direction and event.get("reason") != "unsent":
            kept = {name: value for name, value in event.items() if name not in _UNPROMISED_KEYS}
            if "flags" in kept:
                kept["flags"] = [flag for flag in kept["flags"] if flag not in _UNPROMISED_FLAGS]
            found.append(kept)
    return found


def _says(by: Any, *pieces: str) -> list[Step]:
    return [Send(by, piece.encode()) for piece in pieces]


SCRIPTS: dict[str, tuple[Step, ...]] = {
    "conversation": (
        *_says("client", "is it ", "rainy?\n", "it is rai"),
        *_says("server", "rai", "ny three\nhere it is ", "a rainy rainy da"),
        *_says("client", "ny here\n", "\nthree times ", "rainy"),
        *_says("server", "y, rain or ", "shine\nbye"),
        Fin("client"),
        Fin("server"),
    ),
    "half-close": (
        *_says("client", "tell me about th", "ree rainy days\n"),
        Fin("client"),
        *_says("server", "one two rai", "ny\nthree four\nthe rest of ", "it is rainy"),
        Fin("server"),
    ),
    "byte by byte": (
        *_says("server", *"a rainy,\nrainy day"),
        Fin("server"),
        Fin("client"),
    ),
    "reset": (
        *_says("client", "about the rainy ", "days: three, or\nfour"),
        *_says("server", "it is ", "rainy\nand then"),
        Reset("server"),
    ),
}

# Each of them does the same to a stream wherever it is cut; the second table needs time to pass.
CALLOUTS: dict[str, Make] = {
    "stream_edit": lambda: [StreamEdit(find="rainy", replace="dry")],
    "stream_edit out of band": lambda: [StreamEdit(find="rainy", replace="sunny!", mode="oob")],
    "monitor": lambda: [Monitor(summary=False)],
    "pattern_drop": lambda: [PatternDrop(find="three")],
    "framer": lambda: [Framer()],
    "framer by length": lambda: [Framer(by="length", size=1, limit=200)],
    "banner": lambda: [Banner(text="hello\n", direction="both")],
    "pend_fin": lambda: [PendFin(direction="to_client", trailer="bye\n")],
    "allow_after": lambda: [AllowAfter(bytes=7)],
    "fault truncate": lambda: [Fault(do="truncate", after=5)],
    "fault corrupt": lambda: [Fault(do="corrupt", after=5, size=8)],
    "fault slice": lambda: [Fault(do="slice", after=5, size=2)],
    "fault fin": lambda: [Fault(do="fin", after=5, direction="to_client")],
    "fault rst": lambda: [Fault(do="rst", after=5)],
    "fault blackhole": lambda: [Fault(do="blackhole", after=5)],
    "framer, edit, monitor": lambda: [
        Framer(),
        StreamEdit(find="rainy", replace="dry"),
        Monitor(summary=False),
    ],
    "edit out of band, monitor": lambda: [
        StreamEdit(find="rainy", replace="dry", mode="oob"),
        Monitor(summary=False),
    ],
}
TIMED_CALLOUTS: dict[str, Make] = {
    "latency": lambda: [Latency(delay=0.003, jitter=0.002)],
    "throttle": lambda: [Throttle(rate=4000, burst=7)],
    "pend_fin later": lambda: [PendFin(delay=0.01, trailer="bye\n")],
    "fault stall": lambda: [Fault(do="stall", after=5, for_=0.01)],
}


@dataclass(frozen=True, slots=True)
class Trace:
    """Callouts and a script.

    Attributes:
        name: both names.
        make: makes the callouts anew for each run, in the order in which they are asked.
        steps: what the peers do.
        needs: capabilities of a world.
        ordered: what happens does not depend on how time passes: the order of events is compared, too.
    """

    name: str
    make: Make
    steps: tuple[Step, ...]
    needs: frozenset[str]
    ordered: bool


def traces() -> Iterator[Trace]:
    """Every callout of the tables with every script."""
    for script, steps in SCRIPTS.items():
        needs = {"half_close"} | ({"reset"} if any(isinstance(step, Reset) for step in steps) else set())
        for name, make in CALLOUTS.items():
            ends = {"reset"} if name in ("pattern_drop", "fault rst") else set()
            yield Trace(f"{name}, {script}", make, steps, frozenset(needs | ends), True)
        slowly = tuple(part for step in steps for part in (step, Wait(REST)))
        for name, make in TIMED_CALLOUTS.items():
            yield Trace(f"{name}, {script}", make, slowly, frozenset(needs | {"virtual_time"}), False)
