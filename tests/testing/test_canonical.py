"""The canonical form of a log (IND-26): equal in every world, for every cut, different where something else was done.

Owns the promise, over the table of `worlds`; what the form says about single answers is `test_canonical_fates`'.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.testing.worlds import (
    CASES,
    SCRIPTS,
    Case,
    Event,
    Script,
    bytewise,
    cut,
    run_memory,
    run_proxy,
    run_proxy_piece_by_piece,
    run_replay,
    run_replay_piece_by_piece,
    some_cuts,
    thirds,
)
from wfpstream.callouts import Latency, StreamEdit
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout
from wfpstream.testing import canonical, canonical_diff, in_order

DIRECTIONS = ("to_upstream", "to_client")
WORLDS = {"proxy": run_proxy, "replay": run_replay}
PIECE_BY_PIECE = {"proxy": run_proxy_piece_by_piece, "replay": run_replay_piece_by_piece}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_script = pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)


def difference(one: list[Event], other: list[Event]) -> str:
    """In the words a person would get."""
    return canonical_diff(canonical(one), canonical(other))


# --- any cut ----------------------------------------------------------------------------------------------


@each_case
@each_script
def test_ind_26_where_the_stream_is_cut_does_not_show(case: Case, script: Script) -> None:
    whole = run_memory(case.make, script)
    for pieces in some_cuts(script):
        assert difference(whole, run_memory(case.make, pieces)) == ""


@given(
    case=st.sampled_from(sorted(CASES)),
    script=st.sampled_from(sorted(SCRIPTS)),
    points=st.lists(st.integers(1, 140), max_size=30),
)
def test_ind_26_random_cuts_do_not_show(case: str, script: str, points: list[int]) -> None:
    make = CASES[case].make
    pieces = cut(SCRIPTS[script], lambda length: points)
    assert difference(run_memory(make, SCRIPTS[script]), run_memory(make, pieces)) == ""


# --- any world --------------------------------------------------------------------------------------------


@each_case
@each_script
@pytest.mark.parametrize("world", WORLDS)
def test_ind_26_it_is_the_same_in_every_world(world: str, case: Case, script: Script) -> None:
    """Also where the pieces arrive in other ways than they were sent."""
    assert difference(run_memory(case.make, script), WORLDS[world](case.make, thirds(script))) == ""


def _is_asked(events: list[Event]) -> bool:
    return any(event["event"] == "classify" for event in events)


ORDERED = {name: case for name, case in CASES.items() if case.ordered}


@pytest.mark.parametrize("case", ORDERED.values(), ids=ORDERED)
@each_script
@pytest.mark.parametrize("world", PIECE_BY_PIECE)
def test_ind_26_with_equal_borders_a_direction_s_events_come_in_the_same_order(
    world: str, case: Case, script: Script
) -> None:
    """Each `indicate, classify, inject, defer, continue, discard`, with all they say but names of one run (IND-5)."""
    pieces = thirds(script)
    expected, events = run_memory(case.make, pieces), PIECE_BY_PIECE[world](case.make, pieces)
    for direction in DIRECTIONS:
        assert in_order(events, direction) == in_order(expected, direction)
    assert difference(expected, events) == ""
    assert _is_asked(events) or case is CASES["nothing"]


# --- what differs shows -----------------------------------------------------------------------------------


class Plain(Callout):
    """Permits; a test overrides `answer`."""

    name = "plain"

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
        classify_out.action_type = int(ActionType.PERMIT)
        stream = layer_data.stream_data
        if stream.data_length:
            self.answer(in_meta_values.flow_handle, in_fixed_values.layer_id, layer_data, classify_out)

    def answer(self, flow_id: int, layer_id: int, packet: Any, out: Any) -> None:
        """What to do with data."""


class Decapitating(Plain):
    """Takes the first byte out of each indication."""

    def answer(self, flow_id: int, layer_id: int, packet: Any, out: Any) -> None:
        if packet.stream_data.data_length > 1:
            out.action_type = int(ActionType.BLOCK)
            packet.count_bytes_enforced = 1


class Greeting(Plain):
    """Puts something before each indication."""

    def answer(self, flow_id: int, layer_id: int, packet: Any, out: Any) -> None:
        self.inject(flow_id, layer_id, packet.stream_data.flags & 0x3, b">")


class Longwinded(Plain):
    """Takes out whatever comes in pieces of more than 20 bytes."""

    def answer(self, flow_id: int, layer_id: int, packet: Any, out: Any) -> None:
        if packet.stream_data.data_length > 20:
            out.action_type = int(ActionType.BLOCK)


VARYING = [Decapitating, Greeting, Longwinded]


@pytest.mark.parametrize("callout", VARYING)
def test_ind_26_a_callout_that_minds_the_borders_is_found_out(callout: type[Plain]) -> None:
    script = SCRIPTS["conversation"]
    whole = run_memory(lambda: [callout()], script)
    for pieces in some_cuts(script):
        assert difference(whole, run_memory(lambda: [callout()], pieces)) != ""


def test_the_difference_says_where_it_is() -> None:
    script = SCRIPTS["half-close"]
    make = lambda: [StreamEdit(find="rainy", replace="dry"), Longwinded()]  # noqa: E731
    one = canonical(run_memory(make, script))
    other = canonical(run_memory(make, bytewise(script)))
    assert canonical_diff(one, other).splitlines() == [
        "the logs differ:",
        "  flow 1",
        "    to_client, fin",
        "      stage 1, plain",
        "        0+8 permitted",
        "        8+3 permitted, injected above",
        "-       11+30 blocked",
        "-       41+3 permitted, injected above",
        "-       FIN permitted",
        "+       11+30 permitted",
        "+       41+3 permitted, injected above",
        "+       FIN permitted",
    ]


OTHERWISE = {
    "the length of what is put in": (
        lambda: [StreamEdit(find="rainy", replace="dry")],
        lambda: [StreamEdit(find="rainy", replace="moist")],
    ),
    "how often": (
        lambda: [StreamEdit(find="rainy", replace="dry")],
        lambda: [StreamEdit(find="rainy", replace="dry", count=1)],
    ),
    "the way it is done": (
        lambda: [StreamEdit(find="rainy", replace="dry")],
        lambda: [StreamEdit(find="rainy", replace="dry", mode="oob")],
    ),
    "one stage less": (lambda: [StreamEdit(find="x"), Plain()], lambda: [Plain()]),
    "the order of stages": (
        lambda: [StreamEdit(find="rainy"), Plain()],
        lambda: [Plain(), StreamEdit(find="rainy")],
    ),
    "who": (lambda: [Plain()], lambda: [StreamEdit(find="not there")]),
}


@pytest.mark.parametrize(("one", "other"), OTHERWISE.values(), ids=OTHERWISE)
def test_logs_of_different_doings_differ(one: Any, other: Any) -> None:
    script = SCRIPTS["conversation"]
    found = difference(run_memory(one, script), run_memory(other, script))
    assert found.startswith("the logs differ:\n  flow 1\n")


def test_other_bytes_and_other_ends_differ() -> None:
    make = CASES["monitor"].make
    script = SCRIPTS["half-close"]
    whole = run_memory(make, script)
    assert difference(whole, run_memory(make, script[1:])) != ""
    assert "open" in difference(whole, run_memory(make, script[:-1]))


def test_how_long_it_took_does_not_show() -> None:
    script = SCRIPTS["conversation"]
    slow = run_memory(lambda: [Latency(delay=1.0)], script)
    assert difference(run_memory(lambda: [Latency()], script), slow) == ""
