"""What a record says of the targets: met, missed and by how much, or not measured."""

from __future__ import annotations

import pytest

from benchmarks.peers._record import Entry
from benchmarks.peers._targets import Outcome, outcomes
from tests.benchmarks.records import entry, record


def outcome(cases: dict[str, dict[str, Entry]], figure: str, rival: str | None = None) -> Outcome:
    """The one outcome for a figure (and a rival among its rivals)."""
    (found,) = [
        one
        for one in outcomes(record(cases))
        if one.target.figure == figure and (rival is None or rival in one.target.rivals)
    ]
    return found


def bulk(ours: Entry) -> dict[str, dict[str, Entry]]:
    rivals = {
        "haproxy": entry(cpu=1.0, wall=5.0),
        "envoy": entry(cpu=0.8, wall=8.0),
        "nginx": entry(cpu=0.9, wall=10.0),
    }
    return {"bulk-1-to-client": {"wfpstream": ours, **rivals}}


def test_the_best_rival_counts_for_each_figure_by_itself() -> None:
    cases = bulk(entry(cpu=0.72, wall=9.0))
    cpu, wall = outcome(cases, "cpu", "envoy"), outcome(cases, "wall")
    assert (cpu.rival, cpu.theirs, wall.rival, wall.theirs) == ("envoy", 0.8, "nginx", 10.0)
    assert [cpu.ratio, wall.ratio] == pytest.approx([0.9, 0.9])
    assert wall.is_met
    assert wall.verdict() == "met"


@pytest.mark.parametrize(
    ("cpu", "wall", "verdicts"),
    [
        (0.5, 20.0, ("met", "met")),
        (0.864, 8.1, ("missed by 20%", "short by 10%")),
        (1.8, 4.5, ("missed: 2.5 times what is allowed", "short by 50%")),
    ],
)
def test_a_miss_says_by_how_much(cpu: float, wall: float, verdicts: tuple[str, str]) -> None:
    cases = bulk(entry(cpu=cpu, wall=wall))
    assert (outcome(cases, "cpu", "envoy").verdict(), outcome(cases, "wall").verdict()) == verdicts


def test_without_ours_or_any_rival_nothing_is_claimed() -> None:
    alone = outcome({"bulk-1-to-client": {"wfpstream": entry(cpu=1.0, wall=1.0)}}, "wall")
    assert (alone.is_met, alone.verdict()) == (None, "not measured")
    failed = outcome(bulk(Entry(failed="did not start")), "wall")
    assert (failed.is_met, failed.verdict()) == (None, "not measured")


def test_rivals_that_failed_do_not_count() -> None:
    cases = bulk(entry(cpu=0.9, wall=9.0))
    cases["bulk-1-to-client"]["nginx"] = Entry(failed="nginx is not installed")
    assert outcome(cases, "wall").rival == "envoy"


def test_a_target_without_rivals_is_a_bound() -> None:
    at_bound = outcome({"idle": {"wfpstream": entry(cpu=12.0, wall=5000)}}, "cpu")
    over = outcome({"idle": {"wfpstream": entry(cpu=18.0, wall=5000)}}, "cpu")
    assert (at_bound.verdict(), over.verdict()) == ("met", "missed by 50%")
    assert at_bound.target.text() == "at most 12 KiB/flow"


def test_a_target_reads_like_the_demand() -> None:
    cases = bulk(entry(cpu=0.72, wall=9.0))
    assert outcome(cases, "cpu", "envoy").target.text() == "at most 0.9 x the best of haproxy, envoy, nginx"
    assert outcome(cases, "cpu", "mitmproxy").target.text() == "at most 1/15 x mitmproxy"
