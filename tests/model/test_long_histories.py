"""Long random histories against the reference model: a hundred steps and more, deep scripts.

Owns what the state machine does not reach: hypothesis shrinks well and therefore keeps histories short. Here a
seed says everything; a failure names it.
"""

from __future__ import annotations

import os
import random

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, given, settings

from . import script
from .compare import compare
from .harness import Bench
from .reference import Model
from .script import RECEIVE, SEND, Answer, Deed, Settings, StageScript

DEEP = bool(os.environ.get("WFPSTREAM_DEEP"))
PAYLOADS = ((b"0",), (b"12",), (b"3", b"45"), (b"6", b"", b"7"), (b"",), (b"8901234567890",), (b"#" * 70,))
FINS: tuple[tuple[bytes, ...], ...] = ((), (b"",), (b".",), (b"!", b"?"))
COUNTS = (0, 0, 0, 1, 1, 2, 3, 5, 8, 63, 100, 2**32 - 1, 2**64 - 4)
REQUIRED = (0, 1, 2, 3, 5, 8, 13, 20, 40, 64, 65, 2**32 - 1)


class Histories:
    """Random scripts and steps; `temper` says how often flows are ended."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.temper = self.rng.choice((0.0, 0.0, 0.01, 0.05))

    def deed(self, outside: bool) -> Deed:
        rng = self.rng
        kind = rng.random()
        if kind < 0.45:
            return script.Inject(rng.choice(PAYLOADS), rng.random() < 0.3)
        if kind < 0.47 + self.temper:
            return script.Inject(rng.choice(FINS), rng.random() < 0.2, True)
        if kind < 0.8:
            return rng.choice(
                (
                    script.Keep(),
                    script.PassThrough(),
                    script.InjectKept(),
                    script.InjectKept(),
                    script.DiscardKept(),
                )
            )
        others: list[Deed] = [script.Associate(), script.Remove(), script.Continue()]
        return rng.choice(others)

    def answer(self, direction: int) -> Answer:
        rng = self.rng
        stream_action = script.NO_ACTION
        kind = rng.random()
        if kind < 0.2:
            stream_action = script.NEED_MORE_DATA
        elif kind < 0.3 and direction == RECEIVE:
            stream_action = script.DEFER
        elif kind < 0.3 + self.temper:
            stream_action = rng.choice((script.DEFER, script.DROP_CONNECTION, script.ALLOW_CONNECTION, 5, 99))
        deeds = tuple(self.deed(False) for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))))
        action = rng.choice(
            (script.PERMIT,) * 6 + (script.CONTINUE,) * 5 + (script.BLOCK,) * 3 + (script.NONE, 0, 9, 0x5003)
        )
        required = rng.choice(REQUIRED) if stream_action == script.NEED_MORE_DATA else 0
        raises = rng.random() < self.temper / 2
        return Answer(action, rng.choice(COUNTS), stream_action, required, deeds, raises)

    def pipeline(self) -> list[StageScript]:
        rng = self.rng
        stages = []
        for sublayer in range(rng.randint(1, 3)):
            for _ in range(rng.choice((1, 1, 2))):
                kind = rng.choice((script.UNKNOWN, script.UNKNOWN, script.TERMINATING, script.INSPECTION))
                answers = tuple(
                    [self.answer(d) for _ in range(rng.choice((0, 5, 40)))] for d in (SEND, RECEIVE)
                )
                stages.append(StageScript(sublayer, kind, rng.random() < 0.15, (answers[0], answers[1])))
        return stages


class History:
    """One flow, played on the engine and on the model."""

    def __init__(self, seed: int) -> None:
        self.histories = Histories(seed)
        self.rng = rng = self.histories.rng
        self.stages = self.histories.pipeline()
        policies = (rng.choice(("drop", "permit", "bypass")), rng.choice(("drop", "permit", "bypass")))
        mode = rng.choice(("total", "additional"))
        options = Settings(mode, 64, rng.choice((24, 256 * 1024)), *policies)
        local = rng.choice(("client", "server"))
        self.bench = Bench(self.stages, options, local, inject_delivery=rng.choice(("inline", "queued")))
        self.model = Model(self.stages, options)
        self.sent = [0, 0]
        self.ended = [False, False]

    def step(self) -> None:
        """One thing happens, to both."""
        kind = self.rng.random()
        direction = self.rng.choice((SEND, RECEIVE))
        if kind < 0.5:
            self._data(direction)
        elif kind < 0.75:
            self._act(self.rng.randrange(len(self.stages)), direction, self.histories.deed(True))
        elif kind < 0.85:
            for number in range(len(self.stages)):
                self._act(number, RECEIVE, script.Continue())
        elif kind < 0.95:
            size = self.rng.choice((None, None, 0, 1, 3, 10, 30))
            self.bench.window(direction, size)
            self.model.window(direction, size)
        else:
            self._rare(direction)
        compare(self.bench, self.model)

    def _data(self, direction: int) -> None:
        if self.ended[direction]:
            return
        idle = all(not stage.lanes[direction].queue for stage in self.model.stages)
        urgent = self.rng.random() < 0.05 and idle and not self.model.pending_input(direction)
        size = 1 if urgent else self.rng.choice((1, 1, 2, 3, 5, 8, 13, 63, 64, 65, 100))
        first = self.sent[direction]
        self.sent[direction] += size
        data = bytes((97, 65)[direction] + place % 26 for place in range(first, first + size))
        self._both(direction, "urgent" if urgent else "data", data)

    def _both(self, direction: int, kind: str, data: bytes) -> None:
        self.bench.peer_sends(direction, kind, data)
        self.model.peer_sends(direction, kind, data)

    def _act(self, number: int, direction: int, deed: Deed) -> None:
        assert self.bench.act(number, direction, deed) == self.model.act(number, direction, deed)

    def _rare(self, direction: int) -> None:
        kind = self.rng.random()
        if kind < 0.3 and not self.ended[direction]:
            self.ended[direction] = True
            self._both(direction, "fin", b"")
        elif kind < 0.3 + self.histories.temper * 4 and self.model.state == "live":
            self.bench.reset(direction)
            self.model.reset(direction)
        elif kind > 1 - self.histories.temper * 2:
            assert self.bench.abort() == self.model.abort()


def play(seed: int, steps: int) -> History:
    """Play a history to its end; the flow's own end makes it short."""
    history = History(seed)
    for _ in range(steps):
        history.step()
        if history.model.state == "ended":
            break
    history.step()
    history.bench.close()
    return history


@given(seed=st.integers(0, 2**32))
@settings(
    max_examples=20_000 if DEEP else 300,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
def test_long_histories(seed: int) -> None:
    play(seed, 400 if DEEP else 120)


def test_obj_13_a_flow_does_not_end_while_the_other_direction_has_more_to_do() -> None:
    """OBJ-13: both FINs were performed, and releasing one direction gave the other bytes to show; found by seed."""
    play(1_896_565_328, 400)
