"""Traces as lines, and playbooks: bytes in, expected decisions and output, and where it went another way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wfpstream.callouts.latency import Latency
from wfpstream.callouts.pattern_drop import PatternDrop
from wfpstream.callouts.pend_fin import PendFin
from wfpstream.callouts.stream_edit import StreamEdit
from wfpstream.callouts.throttle import Throttle
from wfpstream.fwps import Callout
from wfpstream.testing import (
    Chop,
    Pair,
    Playbook,
    PlaybookError,
    Recorder,
    first_difference,
    make_pair,
    normal_line,
    trace_lines,
)

EDIT = """
# The word comes in two segments.
>> client b'a rai'
<< stream_edit to_upstream b'a rai' permit 2
<< stream_edit to_upstream b'rai' need_more
<< server b'a '

>> client b'ny day'
<< stream_edit to_upstream inject 5
<< stream_edit to_upstream b'rainy day' block 5
<< stream_edit to_upstream b' day' permit
<< server b'sunny day'
"""


def pair_of(*callouts: Callout, chop: str = "off", **options: Any) -> Pair:
    return make_pair(callouts, recorder=Recorder(Chop(chop)), **options)


def edit() -> StreamEdit:
    return StreamEdit(find=b"rainy", replace=b"sunny")


def lines_of(pair: Pair) -> list[str]:
    assert pair.recorder is not None
    return trace_lines(pair.recorder.entries)


# -- playing -----------------------------------------------------------------------------------------------------


def test_a_playbook_passes_when_everything_comes_as_it_says() -> None:
    book = Playbook(pair_of(edit()), EDIT)
    assert book.play()[0] == ">> client b'a rai'"
    assert book.played


def test_it_can_be_written_with_arrows() -> None:
    pair = pair_of(edit())
    book = (
        Playbook(pair)
        >> "client b'rainy'"
        << "stream_edit to_upstream inject 5"
        << "stream_edit to_upstream b'rainy' block"
        << "server b'sunny'"
    )
    book.play()


def test_a_difference_is_shown_with_arrows_and_what_went_before() -> None:
    book = Playbook(pair_of(edit()), EDIT.replace("block 5", "block 4"))
    with pytest.raises(AssertionError) as caught:
        book.play()
    assert str(caught.value).splitlines() == [
        "the playbook went another way:",
        "            << stream_edit to_upstream b'rai' need_more",
        "            << server b'a '",
        "            >> client b'ny day'",
        "            << stream_edit to_upstream inject 5",
        "expected -> << stream_edit to_upstream b'rainy day' block 4",
        "happened => << stream_edit to_upstream b'rainy day' block 5",
        "                                                          ^",
        "    then    << stream_edit to_upstream b' day' permit",
        "    then    << server b'sunny day'",
    ]


def test_what_does_not_come_and_what_comes_unexpectedly_are_differences_too() -> None:
    with pytest.raises(AssertionError, match=r"expected -> << client b'!'\nhappened => \(nothing more\)"):
        Playbook(pair_of(), ">> client b'x'\n<< server b'x'\n<< client b'!'").play()
    with pytest.raises(AssertionError, match=r"expected -> \(nothing more\)\nhappened => << server b'x'"):
        Playbook(pair_of(), ">> client b'x'").play()


def test_what_comes_too_late_is_a_difference() -> None:
    """The same lines, but of another input."""
    with pytest.raises(AssertionError, match="expected -> << server b'x'\nhappened => >> client b'y'"):
        Playbook(
            pair_of(StreamEdit(find=b"xy", replace=b"")),
            ">> client b'x'\n<< stream_edit to_upstream b'x' need_more\n<< server b'x'\n>> client b'y'\n<< ...",
        ).play()


def test_dots_stand_for_any_lines() -> None:
    Playbook(pair_of(edit()), ">> client b'a rainy day'\n<< ...\n<< server b'a sunny day'").play()
    Playbook(pair_of(edit()), ">> client b'a rainy day'\n<< ...").play()
    with pytest.raises(AssertionError, match="<< server b'a rainy day'"):
        Playbook(pair_of(edit()), ">> client b'a rainy day'\n<< ...\n<< server b'a rainy day'").play()


def test_time_passes_where_it_says_so() -> None:
    Playbook(
        pair_of(Latency(delay=0.3)), ">> client b'x'\n<< ...\n-- 0.2 s\n-- 0.3 s\n<< ...\n<< server b'x'\n"
    ).play()


def test_ends_resets_urgent_bytes_and_windows_are_said_in_words() -> None:
    Playbook(
        pair_of(window=2),
        """
        >> client urgent b'!'
        << server urgent b'!'
        >> client b'abc'
        << server b'a'
        >> server receive 1
        << server b'b'
        >> server window none
        << server b'c'
        >> server fin
        << client fin
        >> client reset
        << ended rst_client
        << server reset
        """,
    ).play()


def test_a_chop_has_no_power_over_a_playbook_and_has_again_afterwards() -> None:
    pair = pair_of(edit(), chop="1")
    Playbook(pair, EDIT).play()
    pair.client.send(b"ab")
    assert lines_of(pair)[-3:-1] == [
        "<< stream_edit to_upstream b'a' permit",
        "<< stream_edit to_upstream b'b' permit",
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("client b'x'", "a line begins with >>, << or --"),
        (">> nobody b'x'", "expected client or server, not 'nobody'"),
        (">> client waves", "after client expected one of b'bytes', urgent"),
        (">> client b'x", "expected bytes such as b'abc'"),
        (">> client urgent x", "expected bytes such as b'abc'"),
        (">> client window much", "expected a number of bytes, 0 or more, not 'much'"),
        (">> client window -1", "expected a number of bytes, 0 or more, not '-1'"),
        (">> client receive some", "expected a number of bytes, 1 or more, not 'some'"),
        (">> client receive 0", "expected a number of bytes, 1 or more, not '0'"),
        ("-- later", "expected a time such as -- 0.3 s"),
        ("-- nan s", "expected a time such as -- 0.3 s"),
        ("<< server b'\\xzz'", "is no byte string"),
    ],
)
def test_a_line_that_is_not_understood_is_refused_with_its_number(line: str, complaint: str) -> None:
    with pytest.raises(PlaybookError, match="playbook, line 2: ") as caught:
        Playbook(pair_of(), f">> client b'fine'\n{line}")
    assert complaint in str(caught.value)


def test_time_counts_from_the_beginning_and_does_not_go_back() -> None:
    Playbook(pair_of(), "-- 1 s\n-- 1 s").play()
    with pytest.raises(PlaybookError, match=r"line 2: time does not go back: it is 1 s already.*: -- 0.5 s"):
        Playbook(pair_of(), "-- 1 s\n-- 0.5 s")


def test_a_line_that_cannot_be_done_says_why() -> None:
    with pytest.raises(PlaybookError, match="line 1: >> server receive: the server has nothing to receive"):
        Playbook(pair_of(), ">> server receive").play()
    with pytest.raises(PlaybookError, match="line 2: >> client b'x': the client cannot send"):
        Playbook(pair_of(), ">> client fin\n>> client b'x'").play()


def test_a_pair_without_a_recorder_has_nothing_to_compare_with() -> None:
    with pytest.raises(PlaybookError, match="needs a pair that is recorded"):
        Playbook(make_pair())


# -- traces ------------------------------------------------------------------------------------------------------


def test_a_trace_of_what_a_throttle_and_a_pending_fin_do() -> None:
    pair = pair_of(Throttle(rate=10, burst=2), PendFin(delay=1, trailer=b"bye"))
    pair.server.send(b"abcd")
    pair.advance(1)
    pair.server.close_write()
    pair.advance(2)
    assert lines_of(pair) == [
        ">> server b'abcd'",
        "<< throttle to_client b'abcd' permit 2",
        "<< pend_fin to_client b'ab' permit",
        "<< throttle to_client b'cd' defer",
        "<< client b'ab'",
        "-- 0.2 s",
        "<< throttle to_client continue",
        "<< throttle to_client b'cd' permit",
        "<< pend_fin to_client b'cd' permit",
        "<< client b'cd'",
        "-- 1 s",
        ">> server fin",
        "<< throttle to_client fin permit",
        "<< pend_fin to_client fin block",
        "-- 2 s",
        "<< pend_fin to_client inject 3",
        "<< pend_fin to_client inject fin",
        "<< client b'bye'",
        "<< client fin",
    ]


def test_a_trace_says_how_a_connection_ended_and_who_was_reset() -> None:
    pair = pair_of(PatternDrop(find=b"bad"))
    pair.client.send(b"bad")
    assert lines_of(pair)[1:] == [
        "<< pattern_drop to_upstream b'bad' drop_connection",
        "<< to_upstream discard 3 (drop)",
        "<< ended drop",
        "<< client reset",
        "<< server reset",
    ]


def test_lines_of_further_flows_have_their_number() -> None:
    pair = pair_of()
    pair.client.send(b"x")
    other = pair.connect()
    other.client.send(b"y")
    assert lines_of(pair) == [">> client b'x'", "<< server b'x'", ">> [2] client b'y'", "<< [2] server b'y'"]


def test_many_bytes_are_shown_by_their_beginning_length_and_digest() -> None:
    pair = pair_of()
    Playbook(pair, ">> client b'ab' * 500\n<< server b'ab' * 500").play()
    line = lines_of(pair)[0]
    assert len(line) < 150
    assert "[1000 bytes, sha256 " in line
    assert normal_line(">> client b'ab' * 500") == line
    assert normal_line(">> client b'ab' * 499 ") != line


def test_how_bytes_and_spaces_are_written_makes_no_difference() -> None:
    assert normal_line("""<<  server   b"a\\x62  c" """) == "<< server b'ab  c'"
    assert not first_difference(['<< server b"it\'s"'], ["<<  server b'it\\'s'"])


# What a callout does with segments, resets and pauses, as a trace: played again it must come out the same.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.sampled_from(["client", "server"]), st.binary(min_size=1, max_size=9)),
        st.tuples(st.just("advance"), st.just(""), st.integers(1, 100).map(lambda n: n / 100)),
        st.tuples(st.just("fin"), st.sampled_from(["client", "server"]), st.just(b"")),
    ),
    max_size=8,
)


@given(STEPS, st.sampled_from(["edit", "latency", "throttle", "pend_fin"]))
@example([("advance", "", 0.29), ("send", "server", bytes(9)), ("send", "server", b"\0")], "throttle")
def test_a_trace_can_be_played(steps: list[tuple[str, str, Any]], name: str) -> None:
    make: dict[str, Any] = {
        "edit": lambda: StreamEdit(find=b"\x00\x00", replace=b"-"),
        "latency": lambda: Latency(delay=0.2),
        "throttle": lambda: Throttle(rate=10, burst=3),
        "pend_fin": lambda: PendFin(delay=0.5, trailer=b"bye"),
    }
    pair = pair_of(make[name]())
    closed: set[str] = set()
    for verb, side, value in steps:
        if verb == "advance":
            pair.advance(value)
        elif side not in closed:
            end = getattr(pair, side)
            if verb == "send":
                end.send(value)
            else:
                end.close_write()
                closed.add(side)
    pair.advance(20)
    again = pair_of(make[name]())
    Playbook(again, "\n".join(lines_of(pair))).play()
    assert lines_of(again) == lines_of(pair)


WELL_FORMED = st.builds(
    ">> {} {}".format,
    st.sampled_from(["client", "server"]),
    st.one_of(
        st.binary(max_size=9).map(repr),
        st.sampled_from(["fin", "reset", "receive", "receive 0", "receive 2", "window 1", "window -1"]),
        st.sampled_from(["window none", "urgent b''", "urgent b'ab'", "b'a' * 3"]),
    ),
)
LINE = st.one_of(
    WELL_FORMED,
    WELL_FORMED,
    st.just("<< ..."),
    st.sampled_from(
        ["-- 1 s", "-- 0 s", "-- nan s", "-- inf s", "-- -1 s", "-- ", ">> client", "<<", "<< b'"]
    ),
    st.text(max_size=30),
)


@given(st.lists(WELL_FORMED, max_size=8), LINE)
def test_whatever_is_written_a_playbook_plays_differs_or_says_what_is_wrong(
    lines: list[str], last: str
) -> None:
    pair = pair_of()
    text = "\n".join([f"{line}\n<< ..." for line in lines] + [last])
    complaint = ""
    try:
        Playbook(pair, text).play()
    except (PlaybookError, AssertionError) as error:
        complaint = str(error)
    assert complaint.startswith(("playbook, line", "the playbook went another way:")) or not complaint
    pair.close()
