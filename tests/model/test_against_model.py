"""The engine and the reference model live through the same flow, step by step.

Owns the random histories: what peers send and how it is cut, FIN, reset, windows that close and open, and
what callouts answer and do, legal or not. After every step the outputs of both peers, the classify calls of
each direction, the statuses of service calls, the completions and the byte ledger must be the model's.
"""

from __future__ import annotations

import os

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from . import script
from .compare import compare
from .harness import Bench
from .reference import Model
from .script import RECEIVE, SEND, Answer, Deed, Settings, StageScript

DEEP = bool(os.environ.get("WFPSTREAM_DEEP"))

directions = st.sampled_from((SEND, RECEIVE))
actions = st.sampled_from(
    [script.PERMIT] * 5 + [script.BLOCK] * 2 + [script.CONTINUE] * 3 + [script.NONE, 0, 8, 9, 0x5003, 77]
)
counts = st.one_of(st.just(0), st.integers(1, 12), st.sampled_from((63, 100, 2**32 - 1, 2**64 - 4)))
required = st.one_of(st.integers(0, 20), st.sampled_from((64, 65, 2**32 - 1)))
payloads = st.sampled_from(
    ((b"0",), (b"12",), (b"3", b"45"), (b"6", b"", b"7"), (b"",), (b"8901234567890",), (b"#" * 70,))
)
fins: st.SearchStrategy[tuple[bytes, ...]] = st.sampled_from(((), (b"",), (b".",), (b"!", b"?")))
injections: st.SearchStrategy[Deed] = st.builds(script.Inject, payloads, st.booleans())
fin_injections: st.SearchStrategy[Deed] = st.builds(script.Inject, fins, st.booleans(), st.just(True))
clones: st.SearchStrategy[Deed] = st.sampled_from(
    (script.Keep(), script.PassThrough(), script.InjectKept(), script.DiscardKept())
)
others: st.SearchStrategy[Deed] = st.sampled_from((script.Continue(), script.Associate(), script.Remove()))
inside_deeds = st.one_of(injections, clones, injections, clones, others, fin_injections)

plain_answers = st.builds(Answer, actions, counts)
waiting = st.builds(Answer, actions, counts, st.just(script.NEED_MORE_DATA), required)
deferring = st.builds(Answer, actions, counts, st.just(script.DEFER))
drastic = st.builds(
    Answer,
    actions,
    counts,
    st.sampled_from((script.DROP_CONNECTION, script.ALLOW_CONNECTION, script.ALLOW_CONNECTION, 5, 99)),
)
out_of_band = st.builds(
    Answer, st.just(script.BLOCK), deeds=st.tuples(st.sampled_from((script.Keep(), script.PassThrough())))
)
busy = st.builds(Answer, actions, counts, deeds=st.lists(inside_deeds, min_size=1, max_size=3).map(tuple))
busy_waiting = st.builds(
    Answer,
    actions,
    counts,
    st.sampled_from((script.NEED_MORE_DATA, script.DEFER)),
    required,
    st.lists(inside_deeds, min_size=1, max_size=2).map(tuple),
)
raising = st.builds(Answer, deeds=st.lists(inside_deeds, max_size=1).map(tuple), raises=st.just(True))


def receive_only(direction: int) -> st.SearchStrategy[Answer]:
    """Answers for one direction; what ends flows is rare, so that histories grow long."""
    usual = [plain_answers, plain_answers, waiting, waiting, out_of_band, busy, busy, busy_waiting]
    usual += [deferring, deferring] if direction == RECEIVE else []
    return st.one_of(*usual, *usual, *usual, drastic, raising, deferring)


scripts = tuple(st.lists(receive_only(direction), max_size=10) for direction in (SEND, RECEIVE))


@st.composite
def pipelines(draw: st.DrawFn) -> list[StageScript]:
    """One to three sublayers with one or two filters each."""
    stages = []
    for sublayer in range(draw(st.integers(1, 3))):
        for _ in range(draw(st.sampled_from((1, 1, 2)))):
            kind = draw(
                st.sampled_from((script.UNKNOWN, script.UNKNOWN, script.TERMINATING, script.INSPECTION))
            )
            conditional = draw(st.sampled_from((False, False, False, True)))
            answers = (draw(scripts[SEND]), draw(scripts[RECEIVE]))
            stages.append(StageScript(sublayer, kind, conditional, answers))
    return stages


policies = st.sampled_from(("drop", "permit", "bypass"))


class StreamLayer(RuleBasedStateMachine):
    """One flow through the engine and through the model."""

    bench: Bench
    model: Model

    @initialize(
        stages=pipelines(),
        local=st.sampled_from(("client", "server")),
        mode=st.sampled_from(("total", "additional")),
        unsent=st.sampled_from((256 * 1024, 24)),
        policy=st.tuples(policies, policies),
        delivery=st.sampled_from(("inline", "queued")),
    )
    def begin(
        self,
        stages: list[StageScript],
        local: str,
        mode: str,
        unsent: int,
        policy: tuple[str, str],
        delivery: str,
    ) -> None:
        options = Settings(mode, 64, unsent, *policy)
        self.stages = stages
        self.bench = Bench(stages, options, local, inject_delivery=delivery)
        self.model = Model(stages, options)
        self.sent = [0, 0]
        self.fin_sent = [False, False]

    def _next_bytes(self, direction: int, size: int) -> bytes:
        """The peer's next bytes: letters in order, so that an output shows what is missing."""
        first = self.sent[direction]
        self.sent[direction] += size
        base = 97 if direction == SEND else 65
        return bytes(base + (first + place) % 26 for place in range(size))

    @rule(direction=directions, size=st.one_of(st.integers(1, 12), st.sampled_from((30, 63, 64, 65, 100))))
    def peer_sends(self, direction: int, size: int) -> None:
        if not self.fin_sent[direction]:
            self._peer(direction, "data", self._next_bytes(direction, size))

    @rule(direction=directions, sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5))
    def peer_sends_pieces(self, direction: int, sizes: list[int]) -> None:
        for size in sizes:
            self.peer_sends(direction, size)

    @rule(direction=directions, now=st.integers(0, 3))
    def peer_ends(self, direction: int, now: int) -> None:
        if now == 3 and not self.fin_sent[direction]:
            self.fin_sent[direction] = True
            self._peer(direction, "fin", b"")

    @rule(direction=directions)
    def peer_sends_urgent(self, direction: int) -> None:
        idle = all(not stage.lanes[direction].queue for stage in self.model.stages)
        if idle and not self.fin_sent[direction] and not self.model.pending_input(direction):
            self._peer(direction, "urgent", self._next_bytes(direction, 1))

    def _peer(self, direction: int, kind: str, data: bytes) -> None:
        self.bench.peer_sends(direction, kind, data)
        self.model.peer_sends(direction, kind, data)

    @rule(direction=directions, size=st.one_of(st.none(), st.integers(0, 12)))
    def receiver_takes(self, direction: int, size: int | None) -> None:
        self.bench.window(direction, size)
        self.model.window(direction, size)

    @rule(
        number=st.integers(0, 5),
        direction=directions,
        deed=st.one_of(injections, injections, clones, fin_injections),
    )
    def stage_acts(self, number: int, direction: int, deed: Deed) -> None:
        self._act(number, direction, deed)

    @rule(number=st.integers(0, 5), deed=st.one_of(others))
    def stage_calls(self, number: int, deed: Deed) -> None:
        self._act(number, SEND, deed)

    @rule()
    def deferred_stages_continue(self) -> None:
        for number in range(len(self.stages)):
            self._act(number, RECEIVE, script.Continue())

    def _act(self, number: int, direction: int, deed: Deed) -> None:
        number %= len(self.stages)
        assert self.bench.act(number, direction, deed) == self.model.act(number, direction, deed)

    @rule(data=st.data(), number=st.integers(0, 5), direction=directions)
    def script_goes_on(self, data: st.DataObject, number: int, direction: int) -> None:
        """More answers for a stage that has used up its script."""
        number %= len(self.stages)
        answers = self.stages[number].answers[direction]
        asked = self.model.stages[number].lanes[direction].calls
        if asked >= len(answers):
            answers += [Answer()] * (asked - len(answers))
            answers += data.draw(scripts[direction])

    @rule(leg=directions, now=st.integers(0, 7))
    def peer_resets(self, leg: int, now: int) -> None:
        if now == 7 and self.model.state == "live":
            self.bench.reset(leg)
            self.model.reset(leg)

    @rule(now=st.integers(0, 15))
    def flow_aborts(self, now: int) -> None:
        if now == 15:
            assert self.bench.abort() == self.model.abort()

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "model"):
            return
        compare(self.bench, self.model)

    def teardown(self) -> None:
        if hasattr(self, "bench"):
            self.bench.close()


TestStreamLayer = StreamLayer.TestCase
TestStreamLayer.settings = settings(
    max_examples=20_000 if DEEP else 300,
    stateful_step_count=60 if DEEP else 30,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
