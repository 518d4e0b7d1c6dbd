"""`check_callout`: right callouts pass, broken ones are found, and what is reported is small and can be played again.

The seeded faults are in `broken_editors`. Rules whose variations are used here: IND-20, NMD-3, INJ-12, CMP-14, CLN-12,
IRQ-5, VRF-1.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.testing import broken_editors as editors
from tests.testing.broken_editors import WORD, Editor, Indication, right
from wfpstream.callouts import StreamEdit
from wfpstream.fwps import Callout, ClassifyOutFlags, OutOfBandCallout, Worker
from wfpstream.testing import (
    CheckFailed,
    CheckFailure,
    CheckReport,
    HypothesisMissing,
    Said,
    Sample,
    check_callout,
    examine_callout,
)

# Enough for all that is seeded here; the default is more.
EFFORT = 120

SAMPLE = Sample((Said("client", b"it is rainy"), Said("server", b"rai")), "weather")


def examine(make: Any, **how: Any) -> CheckReport:
    return examine_callout(make, **{"words": [WORD], "effort": EFFORT, "most": 1, **how})


def only(report: CheckReport) -> CheckFailure:
    (failure,) = report.failures
    return failure


# --- callouts that keep the contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", editors.RIGHT)
def test_a_right_editor_passes(make: type[Editor]) -> None:
    report = check_callout(make, words=[WORD], expected=right, effort=EFFORT)
    assert report.passed
    assert report.runs > EFFORT
    assert report.api_sites


def test_a_callout_object_is_copied_for_each_run() -> None:
    editor = editors.Copying()
    assert check_callout(editor, [SAMPLE], expected=right, effort=30).passed
    assert not editor.copies


def test_several_callouts_are_asked_in_order() -> None:
    def expected(direction: str, data: bytes) -> bytes:
        return right(direction, right(direction, data))

    report = check_callout(
        lambda: [editors.Waiting(), editors.Copying()], [SAMPLE], expected=expected, effort=60
    )
    assert report.name == "Waiting, Copying"


def test_a_factory_may_set_up_the_engine_itself() -> None:
    def make() -> Any:
        return lambda engine: engine.add_callout(editors.Waiting(), action="callout_terminating")

    assert check_callout(make, [(b"a rainy day", b"")], expected=right, effort=60).passed


async def ask_elsewhere(data: bytes) -> bytes:
    raise AssertionError("nobody runs this")


class Asking(Worker):
    async def run(self) -> None:
        while (item := await self.next()).kind == "data":
            await self.inject(await self.call(ask_elsewhere, item.data))


class AskingCallout(OutOfBandCallout):
    worker_class = Asking


def test_what_workers_ask_elsewhere_is_answered() -> None:
    answers = {ask_elsewhere: lambda data: data.upper()}
    check_callout(AskingCallout, [SAMPLE], expected=lambda _, data: data.upper(), answers=answers, effort=60)
    assert only(examine(AskingCallout, effort=5)).problem.rule == "V-40"


# --- broken ones -----------------------------------------------------------------------------------------------------

OUTPUT = ("output", "")

# What may be found first, and how many bytes the smallest case has at most.
BROKEN: dict[type[Editor], tuple[set[tuple[str, str]], int]] = {
    editors.OffByOne: ({OUTPUT}, 6),
    editors.BorderIgnored: ({OUTPUT}, 5),
    editors.PermitZero: ({OUTPUT}, 5),
    editors.AsksAtTheEnd: ({("contract", "V-5")}, 1),
    editors.WrongDirection: ({OUTPUT, ("contract", "V-21")}, 6),
    editors.FinNotAnswered: ({("contract", "V-6")}, 0),
    editors.BlocksTooMuch: ({("contract", "V-8")}, 4),
    editors.RefusalUnseen: ({OUTPUT}, 5),
    editors.OncePerIndication: ({OUTPUT}, 10),
    editors.LimitUnseen: ({("contract", "V-2")}, 1),
    editors.HalfAtTheLimit: ({("contract", "V-13")}, 3),
    editors.CopyForgotten: ({OUTPUT}, 1),
    editors.CopyShared: ({OUTPUT}, 2),
    editors.CopyOfAll: ({OUTPUT}, 2),
    editors.CopyTwice: ({OUTPUT}, 2),
    editors.CloneLeaks: ({("contract", "V-34"), ("contract", "V-23")}, 1),
    editors.QueueLeaks: ({("contract", "V-23")}, 1),
    editors.FinOvertakes: ({("contract", "V-17"), ("contract", "V-17w")}, 2),
    editors.NewestFirst: ({OUTPUT}, 3),
    editors.InlineAgain: ({("contract", "V-17w"), ("contract", "V-17")}, 3),
    editors.GoneMeanwhile: ({("contract", "V-40")}, 1),
    editors.FreedTooEarly: ({("contract", "V-26")}, 1),
    editors.MarkedTooLate: ({OUTPUT, ("contract", "V-23")}, 2),
    editors.AsksOutOfBand: ({("contract", "V-17"), ("contract", "V-17w"), OUTPUT}, 3),
}


@pytest.mark.parametrize("make", BROKEN, ids=lambda make: make.__name__)
def test_a_seeded_fault_is_found_and_shrunk(make: type[Editor]) -> None:
    problems, bytes_at_most = BROKEN[make]
    failure = only(examine(make, expected=right))
    assert failure.problem.key[:2] in problems
    if failure.problem.kind == "contract":
        assert Path(failure.problem.where.rpartition(":")[0]) == Path(editors.__file__)
    sent = [line for line in failure.steps if " sends " in line]
    assert sum(_bytes_of(line) for line in sent) <= bytes_at_most
    assert len(failure.steps) <= len(sent) + 2
    assert sum("cut at" in line for line in sent) <= 1


def _bytes_of(line: str) -> int:
    literal = line.split(" sends ")[1].split("  <- ", maxsplit=1)[0]
    data: bytes = eval(literal)
    return len(data)


class NeverAtTheLimit(editors.Waiting):
    """Waits for a few bytes at most, and so need not know what it would have to do at 8 MiB."""

    def without_word(self, call: Indication, data: bytes, tail: int) -> None:
        if tail == len(data) and tail and not int(call.out.flags) & int(ClassifyOutFlags.NO_MORE_DATA):
            call.need_more(tail + 1)
        else:
            call.permit(len(data) - tail if tail < len(data) else 0)


def test_who_never_comes_to_the_limit_is_not_asked_about_it() -> None:
    assert check_callout(NeverAtTheLimit, words=[WORD], expected=right, effort=EFFORT).passed


def test_a_limit_that_a_case_makes_small_may_be_exceeded_by_what_is_asked_for() -> None:
    """V-12 is told of what is asked for: here that is a byte, and the limit is the case's own."""
    report = examine(editors.LimitUnseen, lint=True, most=6)
    assert {failure.problem.rule for failure in report.failures} == {"V-2"}
    (failure,) = report.failures
    assert "1 byte at most held for it (limits.need_more_data)" in failure.conditions


def test_at_least_twelve_faults_are_seeded() -> None:
    seeded = {
        each
        for each in vars(editors).values()
        if isinstance(each, type) and issubclass(each, Editor) and each not in (Editor, *editors.RIGHT)
    }
    assert seeded == set(BROKEN)
    assert len(seeded) >= 12


def test_what_is_reported_can_be_played_again() -> None:
    failure = only(examine(editors.OffByOne))
    again = examine(editors.OffByOne, case=failure.case)
    assert only(again).problem == failure.problem
    assert only(again).steps == failure.steps
    assert again.runs < 10
    assert examine(editors.Waiting, case=failure.case).passed


def test_the_report_reads_like_a_story() -> None:
    report = examine_callout(editors.OffByOne, [(b"a rainy day", b"")], effort=EFFORT, most=1)
    text = str(report)
    assert text.startswith("OffByOne: 1 problem found (")
    for line in (
        "   this way: b'a rainy', 7 bytes, FIN",
        "  client sends b'a rain'",
        "  client sends b'y'  <- cut at byte 6",
        "  client ends  <- after byte 7",
        "  to_upstream 0+6 -> PERMIT",
        """case='{"stop":[7,0],"cuts":[[6],[]],"sample":0}'""",
    ):
        assert line in text


def test_the_same_seed_gives_the_same_report() -> None:
    first, second = (str(examine(editors.CopyShared, most=3, seed=5)) for _ in range(2))
    assert first == second


def test_a_failed_check_raises_with_its_report() -> None:
    with pytest.raises(CheckFailed, match=r"OffByOne: 1 problem found") as caught:
        check_callout(editors.OffByOne, words=[WORD], effort=EFFORT, most=1)
    assert not caught.value.report.passed


def test_what_is_wrong_in_every_way_needs_an_expectation() -> None:
    """Without one only differences between ways are seen."""
    assert examine(editors.CopyForgotten, api_failures=False).passed
    assert only(examine(editors.CopyForgotten, api_failures=False, expected=right)).problem.kind == "output"


def test_rules_may_be_ignored_and_lint_may_count() -> None:
    class Hinting(editors.Waiting):
        """Says how many bytes it wants where nobody asked (V-10, lint)."""

        def decide(self, call: Indication) -> None:
            super().decide(call)
            if not call.packet.stream_action:
                call.packet.count_bytes_required = 1

    assert examine(Hinting, effort=30).passed
    assert only(examine(Hinting, effort=30, lint=True)).problem.rule == "V-10"
    assert examine(Hinting, effort=30, lint=True, ignore={"V-10"}).passed


# --- outputs that depend on more than the bytes ----------------------------------------------------------------------


class Marking(Editor):
    """Puts a bar in front of each indication."""

    def decide(self, call: Indication) -> None:
        call.permit()
        if call.stream.data_length:
            self.put_in(call, b"|")


class SaysMarking(Marking):
    """The same, and says so."""

    output_depends_on = ("cuts",)


def test_a_callout_may_say_that_its_output_depends_on_cuts() -> None:
    assert only(examine(Marking)).problem.kind == "output"
    assert examine(Marking, depends_on=["cuts"]).passed
    report = examine(SaysMarking)
    assert report.passed
    assert report.notes == ["its output may depend on: cuts"]
    assert not examine(SaysMarking, depends_on=()).passed


def test_a_callout_that_never_rests_is_given_up() -> None:
    class Restless(Editor):
        def decide(self, call: Indication) -> None:
            call.permit()
            self.again()

        def again(self) -> None:
            self.after(0.0, self.again)

    failure = only(examine(Restless, effort=10))
    assert failure.problem.kind == "failure"
    assert "did not come to rest" in failure.problem.text


class Reinjecting(Editor):
    """Passes on what has an odd length, takes out and puts back what has an even one."""

    def decide(self, call: Indication) -> None:
        data = call.stream.tobytes()
        if len(data) % 2 or not data:
            call.permit()
        else:
            call.block()
            self.put_in(call, data)


def test_decisions_that_depend_on_cuts_are_worth_a_note() -> None:
    """IND-26 is promised for those that do not."""
    report = examine(Reinjecting, effort=40)
    assert report.passed
    assert report.same_log is False
    assert report.notes == [
        "what it decides depends on where the stream is cut, although its output does not"
    ]
    assert examine(editors.Waiting, effort=10).same_log is True


class LastWord(Editor):
    """Says at the end of a direction how many bytes the other one had so far."""

    output_depends_on = ("order", "cuts")

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], int] = {}

    def decide(self, call: Indication) -> None:
        call.permit()
        if int(call.stream.flags) & editors.FIN:
            other = (editors.SEND | editors.RECEIVE) ^ call.direction
            self.put_in(call, b"%d" % self.seen.get((call.flow, other), 0))
        else:
            key = call.flow, call.direction
            self.seen[key] = self.seen.get(key, 0) + call.stream.data_length


def test_a_callout_may_say_that_its_output_depends_on_the_order_of_directions() -> None:
    samples = [Sample((Said("client", b"one"), Said("server", b"two"), Said("client", end=True)), "counted")]
    assert not examine_callout(LastWord, samples, depends_on=(), effort=60, most=1).passed
    assert examine_callout(LastWord, samples, depends_on=["order"], effort=60).passed


class Stamping(Editor):
    """Writes the time behind all that is said."""

    output_depends_on = ("time",)

    def decide(self, call: Indication) -> None:
        call.permit()
        if int(call.stream.flags) & editors.FIN:
            self.put_in(call, b"%d" % self.now())


def test_a_callout_may_say_that_its_output_depends_on_time() -> None:
    assert only(examine(Stamping, depends_on=())).problem.kind == "output"
    assert examine(Stamping).passed


def test_an_unsteady_callout_is_told_from_a_wrong_one() -> None:
    dice = Random(1)

    class Unsteady(Editor):
        def decide(self, call: Indication) -> None:
            call.permit()
            if call.stream.data_length:
                self.put_in(call, dice.randbytes(2))

    assert "the same case twice" in only(examine(Unsteady)).problem.text


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "what", ["stream_edit,find=a,replace=b", None, [], [3], lambda: None, lambda: "monitor"]
)
def test_what_is_no_callout_is_named(what: Any) -> None:
    with pytest.raises(TypeError, match="expected a callout, a list of callouts, or a function"):
        check_callout(what, [b"a"])


class HoldsALock(Callout):
    def __init__(self) -> None:
        self.lock = threading.Lock()


def test_a_callout_that_cannot_be_copied_is_named() -> None:
    with pytest.raises(TypeError, match=r"HoldsALock.* cannot be copied .* give a function that makes it"):
        check_callout(HoldsALock(), [b"a"])


# Written so that nobody who looks for the names of rules takes it for one.
NO_RULE = "V-" + "999"


@pytest.mark.parametrize(
    ("ignore", "error", "says"),
    [
        ({NO_RULE}, ValueError, rf"^ignore: there is no rule '{NO_RULE}'; did you mean 'V-9'\? \(docs/"),
        (["V-19", "v-19"], ValueError, r"there is no rule 'v-19'; did you mean 'V-19'\?"),
        ({"rain"}, ValueError, r"there is no rule 'rain' \(docs/reference/violations.md has them all\)$"),
        ("V-19", TypeError, r"^ignore is a collection of rules; write \['V-19'\]$"),
    ],
)
def test_a_rule_that_is_none(ignore: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        check_callout(StreamEdit(find="a", replace="b"), [b"a"], ignore=ignore)


def test_a_callout_that_names_a_rule_that_is_none() -> None:
    class Misspelt(editors.Waiting):
        breaks_by_design = ("V-19", "W-8")

    with pytest.raises(ValueError, match=r"^Misspelt.breaks_by_design: there is no rule 'W-8'; did you mean"):
        check_callout(Misspelt, [b"a"])


def test_a_side_that_is_none() -> None:
    with pytest.raises(ValueError, match="local: 'cleint' is none of client, server"):
        check_callout(StreamEdit(find="a", replace="b"), [b"a"], local="cleint")  # type: ignore[arg-type]


@pytest.mark.parametrize("sample", ["text", (b"one",), (b"one", "two"), 3])
def test_a_sample_that_is_none(sample: Any) -> None:
    with pytest.raises(TypeError, match="sample 1: expected a Sample, bytes, or"):
        examine_callout(editors.Waiting, [sample])


def test_a_dependence_that_is_none() -> None:
    with pytest.raises(ValueError, match="'weather' is none of cuts, order, time"):
        examine(editors.Waiting, depends_on=["weather"])


@pytest.mark.parametrize("case", ["", "{", "[]", '{"nothing":1}', '{"sample":9}', '{"said":[["client"]]}'])
def test_a_case_that_is_none(case: str) -> None:
    with pytest.raises(ValueError, match="is no case of this check"):
        examine(editors.Waiting, case=case)


def test_an_exception_in_the_factory_gets_out() -> None:
    def make() -> Any:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        examine(make)


def test_without_hypothesis_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    with pytest.raises(HypothesisMissing, match=r"needs hypothesis: pip install 'wfpstream\[test\]'"):
        examine(editors.Waiting)
