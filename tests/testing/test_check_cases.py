"""A case of `check_callout`: what is sent in it, and its form in one line."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from wfpstream.engine import EngineOptions
from wfpstream.fwps import OutOfBandCallout, Worker
from wfpstream.testing import Said, Sample
from wfpstream.testing._check._play import play
from wfpstream.testing._check._samples import SIDES, samples_of_words
from wfpstream.testing._check._variation import Broken, Variation, case_text, pieces_of, read_case

SAMPLE = Sample(
    (Said("client", b"one"), Said("server", b"two"), Said("client", b"three"), Said("server", end=True)),
    "talk",
)

_places = st.lists(st.integers(-3, 20), max_size=6).map(tuple)
_stop = st.none() | st.integers(0, 9)
variations = st.builds(
    Variation,
    sample=st.just(SAMPLE),
    local=st.sampled_from(SIDES),
    stop=st.tuples(_stop, _stop),
    connections=st.integers(1, 3),
    cuts=st.tuples(_places, _places),
    merged=st.booleans(),
    order=st.lists(st.booleans(), max_size=8).map(tuple),
    broken=st.none() | st.builds(Broken, st.integers(0, 5), st.sampled_from((*SIDES, None))),
    windows=st.tuples(st.none() | st.integers(1, 9), st.none() | st.integers(1, 9)),
    pause=st.sampled_from((0.0, 0.5)),
    workers=st.sampled_from(("normal", "early", "late")),
    holds=_places,
    fails=_places,
)


@given(variations)
def test_each_side_sends_its_stream_in_order_and_its_fin_last(variation: Variation) -> None:
    pieces = pieces_of(variation)
    for side in SIDES:
        own = [piece for piece in pieces if piece.by == side]
        assert b"".join(piece.data for piece in own) == variation.input(side)
        assert [piece.end for piece in own] == [False] * (len(own) - 1) + [True]
        assert all(piece.data for piece in own[:-1])
        assert all(a.offset + len(a.data) == b.offset for a, b in pairwise(own))


@given(variations)
def test_it_is_cut_where_it_says(variation: Variation) -> None:
    borders = {(piece.by, piece.offset) for piece in pieces_of(variation) if not piece.end}
    for side, cuts in zip(SIDES, variation.cuts, strict=True):
        length = len(variation.input(side))
        assert {(side, at) for at in cuts if 0 < at < length} <= borders


def test_turns_come_as_in_the_sample() -> None:
    said = [(piece.by, piece.data) for piece in pieces_of(Variation(SAMPLE))]
    assert said == [
        ("client", b"one"),
        ("server", b"two"),
        ("client", b"three"),
        ("server", b""),
        ("client", b""),
    ]
    merged = [piece.data for piece in pieces_of(Variation(SAMPLE, merged=True))]
    assert merged == [b"onethree", b"two", b"", b""]
    turned = [piece.by for piece in pieces_of(Variation(SAMPLE, order=(True, True)))]
    assert turned == ["server", "server", "client", "client", "client"]


@given(variations)
def test_a_case_can_be_read_back(variation: Variation) -> None:
    assert read_case(case_text(variation, [SAMPLE]), [SAMPLE]) == variation
    made_up = read_case(case_text(variation, []), [])
    assert pieces_of(made_up) == pieces_of(variation)


@given(variations, st.sets(st.sampled_from(("cuts", "order", "time"))))
def test_the_plain_way_has_the_same_input(variation: Variation, depends: set[str]) -> None:
    plain = variation.plain(depends)
    assert [plain.input(side) for side in SIDES] == [variation.input(side) for side in SIDES]
    assert plain.plain(depends) == plain
    assert set(plain.different) <= set(variation.different)


@given(variations)
def test_without_callouts_everything_arrives(variation: Variation) -> None:
    played = play(list, variation, EngineOptions())
    assert played.failure == ""
    assert len(played.ends) == variation.connections
    for client, server in played.ends:
        for end, sender in ((client, "server"), (server, "client")):
            sent = variation.input(sender)  # type: ignore[arg-type]
            assert (end.data == sent and end.fin) if variation.broken is None else sent.startswith(end.data)


@pytest.mark.parametrize("word", [b"x", b"rainy", bytes(range(30))])
def test_samples_have_their_words_whole_and_unfinished(word: bytes) -> None:
    (first, *_) = samples_of_words([word])
    for side in SIDES:
        assert first.stream(side).count(word) >= 3
        assert first.stream(side).endswith(word[: len(word) // 2 + 1])


class Twice(Worker):
    """Injects what it gets, and says how many pieces have come meanwhile."""

    async def run(self) -> None:
        while True:
            item = await self.next()
            if item.kind != "data":
                await self.inject_fin()
                return
            await self.inject(item)
            await self.inject(b"%d" % len(self._inbox))


class TwiceCallout(OutOfBandCallout):
    worker_class = Twice

    def wants(self, flow_handle: int, inbound: bool) -> bool:
        return not inbound


@pytest.mark.parametrize(("preempt", "arrives"), [((), b"a0b0"), ((0,), b"a1b0"), ((1, 2), b"a0b1")])
def test_the_next_piece_may_come_right_before_a_workers_call(
    preempt: tuple[int, ...], arrives: bytes
) -> None:
    """IRQ-5 (c): a classify between two calls of the worker."""
    sample = Sample((Said("client", b"a"), Said("client", b"b")))
    calls: list[Any] = []

    def make() -> TwiceCallout:
        calls.append(1)
        return TwiceCallout()

    played = play(make, Variation(sample, preempt=preempt), EngineOptions())
    assert played.failure == ""
    assert played.ends[0][1].data == arrives
    assert calls == [1]
