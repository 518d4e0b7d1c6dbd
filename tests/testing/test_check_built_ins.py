"""Every built-in callout, alone and with others, through `check_callout`: no contract broken, the same output always.

The table of callouts is `worlds.CASES`; VRF-1 and IND-26 are what is checked.
"""

from __future__ import annotations

from typing import Literal

import pytest

from tests.testing.worlds import CASES, Case
from wfpstream.callouts import Fault, StreamEdit
from wfpstream.testing import accounted, check_callout, examine_callout

WORDS = (b"rainy", b"three")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_built_in_does_the_same_however_its_streams_come(case: Case) -> None:
    report = check_callout(case.make, words=WORDS, effort=40)
    assert report.same_log


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_built_in_does_the_same_in_a_long_search(case: Case) -> None:
    check_callout(case.make, words=WORDS, effort=2000, repeat_fin=True)


@pytest.mark.parametrize(
    "name", ["stream_edit", "stream_edit oob", "framer", "pend_fin", "throttle", "sequential"]
)
def test_a_built_in_tolerates_a_second_fin(name: str) -> None:
    """IND-20."""
    check_callout(CASES[name].make, words=WORDS, effort=40, repeat_fin=True)


def test_a_fault_at_a_time_depends_on_time() -> None:
    """And says so: what has passed by then does."""
    assert check_callout(lambda: Fault(do="truncate", at="1s"), effort=40).notes == [
        "its output may depend on: time"
    ]


def test_an_early_fin_is_broken_on_purpose() -> None:
    """V-19 is not told of the callout whose job it is."""
    assert check_callout(lambda: Fault(do="fin", after=3), effort=40).notes == ["it breaks on purpose: V-19"]


def test_a_stall_without_an_end_keeps_the_fin_on_purpose() -> None:
    """V-52; one that recovers does not."""
    assert check_callout(lambda: Fault(do="stall", after=3), effort=60).notes == [
        "it breaks on purpose: V-52"
    ]
    assert check_callout(lambda: Fault(do="stall", after=3, for_="1s"), effort=60).notes == []


@pytest.mark.parametrize("mode", ["inline", "oob"])
def test_an_edit_gives_what_replacing_gives(mode: Literal["inline", "oob"]) -> None:
    check_callout(
        lambda: StreamEdit(find=b"rainy", replace=b"sun", mode=mode),
        words=[b"rainy"],
        expected=lambda direction, data: data.replace(b"rainy", b"sun"),
        effort=60,
    )


def test_a_helper_of_the_verifier_may_be_used() -> None:
    """V-56: a count of calls where it should be one of bytes."""

    def make() -> StreamEdit:
        counts: dict[tuple[int, bool], int] = {}

        def count(flow: int, inbound: bool) -> int:
            counts[flow, inbound] = counts.get((flow, inbound), 0) + 1
            return counts[flow, inbound]

        return accounted(StreamEdit(find=b"rainy", replace=b"sun"), count)

    report = examine_callout(make, words=[b"rainy"], effort=10, most=2)
    assert report.failures[0].problem.rule == "V-56"
