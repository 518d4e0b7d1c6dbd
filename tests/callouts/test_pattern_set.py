"""pattern_set: the same hits for every way to cut the stream, and what becomes of them."""

from __future__ import annotations

import gc
import random
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.callouts.support import all_cuts, memory_driver, relay, watched
from tests.replay.kit import Capture, close
from wfpstream.callouts import OptionError, StreamEdit, create_callout, list_callouts
from wfpstream.callouts._pattern_database import INSTALL, Syntax, database_for, read_patterns
from wfpstream.callouts.pattern_set import Hit, PatternSet
from wfpstream.config import parse_callout
from wfpstream.fwps import EngineOptions
from wfpstream.replay import replay_capture
from wfpstream.testing import FlowEnds, MemoryDriver, check_callout

pytest.importorskip("hyperscan", reason="hyperscan, of extra `match`, is not installed")

Found = list[tuple[int, int | None, int]]


class Quiet(PatternSet):
    """Keeps its hits to itself."""

    def found(self, hit: Hit) -> None:
        pass


def hits_of(callout: PatternSet) -> Found:
    return [(hit.pattern, hit.start, hit.end) for hit in callout.hits]


def search(pieces: list[bytes], *, fin: bool = True, **options: Any) -> Found:
    callout = Quiet(**options)
    outcome = relay(callout, pieces, fin=fin)
    assert outcome.data == b"".join(pieces)
    assert outcome.violations == []
    return hits_of(callout)


def naive(patterns: list[bytes], data: bytes) -> Found:
    """Every occurrence of every literal, overlapping ones too, by where it ends."""
    return sorted(
        (
            (number, place, place + len(pattern))
            for number, pattern in enumerate(patterns, 1)
            for place in range(len(data))
            if data.startswith(pattern, place)
        ),
        key=lambda hit: (hit[2], hit[0]),
    )


def test_hits_have_their_offsets_wherever_the_borders_fall() -> None:
    data = b"xx rainy and cloudy and rainy"
    for pieces in all_cuts(data):
        assert search(pieces, patterns=["rainy", "cloudy", "y a"]) == [
            (1, 3, 8),
            (3, 7, 10),
            (2, 13, 19),
            (3, 18, 21),
            (1, 24, 29),
        ]


@settings(max_examples=60)
@given(
    patterns=st.lists(st.binary(min_size=1, max_size=4).map(lambda b: bytes(x % 3 for x in b)), min_size=1),
    data=st.binary(max_size=60).map(lambda b: bytes(x % 3 for x in b)),
    seed=st.integers(0, 1000),
)
def test_literals_are_found_as_a_plain_search_finds_them(
    patterns: list[bytes], data: bytes, seed: int
) -> None:
    dice = random.Random(seed)
    pieces, rest = [], data
    while rest:
        length = dice.randint(1, len(rest))
        pieces.append(rest[:length])
        rest = rest[length:]
    assert search(pieces, patterns=patterns) == naive(patterns, data)


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_ten_thousand_patterns(size: int) -> None:
    dice = random.Random(5)
    words = list({bytes(dice.choices(b"abcdefgh", k=dice.randint(6, 12))) for _ in range(10_000)})
    hidden = dice.sample(words, 40)
    data = b"".join(b"%d " % dice.randrange(1000) + word for word in hidden)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    found = search(pieces, patterns=words)
    places = {match.span() for word in words for match in re.finditer(re.escape(word), data)}
    assert {(start, end) for _, start, end in found} == places
    assert len(found) >= len(hidden)


@pytest.mark.parametrize("fin", [True, False])
def test_a_regular_expression_may_need_the_end_of_the_stream(fin: bool) -> None:
    for pieces in all_cuts(b"the end"):
        found = search(pieces, patterns=["e..$", "^the"], regex=True, fin=fin)
        assert found == ([(2, None, 3), (1, None, 7)] if fin else [(2, None, 3)])


def test_the_end_that_is_shown_with_the_last_bytes_counts_as_well() -> None:
    callout = Quiet(patterns=["d$"], regex=True)
    relay(callout, [b"end"], options=watched(fin_with_data=True, repeat_fin=True))
    assert hits_of(callout) == [(1, None, 3)]


def test_after_a_reset_nothing_ends() -> None:
    callout = Quiet(patterns=["d$"], regex=True)
    driver = memory_driver(callout)
    flow = connected(driver)
    flow.send(b"the end")
    driver.settle()
    flow.reset("local")
    driver.settle()
    assert hits_of(callout) == []
    driver.close()


@pytest.mark.parametrize(
    ("options", "data", "ends"),
    [
        ({"patterns": ["ABC"], "caseless": True}, b"abc AbC", [3, 7]),
        ({"patterns": ["A.c"], "caseless": True}, b"abc a.C", [7]),
        ({"patterns": ["a.c"], "regex": True}, b"a\nc abc", [7]),
        ({"patterns": ["a.c"], "regex": True, "dotall": True}, b"a\nc abc", [3, 7]),
        ({"patterns": ["^b"], "regex": True}, b"a\nb", []),
        ({"patterns": ["^b"], "regex": True, "multiline": True}, b"a\nb", [3]),
        ({"patterns": ["a+"], "regex": True}, b"aaa", [1, 2, 3]),
        ({"patterns": ["a+"], "regex": True, "once": True}, b"aaa", [1]),
        ({"patterns": [b"a\0b"], "regex": True}, b"xa\0b", [4]),
        ({"patterns": [b"a\0b"]}, b"xa\0b", [4]),
        ({"patterns": [b"\xff\xfe"]}, b"\xff\xfe\xff\xfe", [2, 4]),
        ({"patterns": [b"a\nb"]}, b"a\nb", [3]),
        ({"patterns": b"a\nb"}, b"a\nb", [1, 3]),
    ],
)
def test_what_a_pattern_means(options: dict[str, Any], data: bytes, ends: list[int]) -> None:
    for pieces in all_cuts(data):
        assert [end for _, _, end in search(pieces, **options)] == ends


def test_a_text_has_one_pattern_a_line_and_its_number_is_the_line() -> None:
    assert search([b"one two"], patterns=b"one\r\n\ntwo\n") == [(1, 0, 3), (3, 4, 7)]


def test_a_file_of_patterns(tmp_path: Path) -> None:
    file = tmp_path / "patterns"
    file.write_bytes(b"first\n\nsecond\n")
    said = parse_callout(f"pattern_set,patterns=@{file},limit=0")
    callout = create_callout(said.name, said.options)
    assert isinstance(callout, PatternSet)
    relay(callout, [b"a second one"])
    assert hits_of(callout) == [(3, 2, 8)]


def connected(driver: MemoryDriver) -> FlowEnds:
    flow = driver.connect()
    assert flow is not None
    return flow


def test_directions_and_flows_are_searched_apart() -> None:
    callout = Quiet(patterns=["abc"])
    driver = memory_driver(callout)
    one, two = connected(driver), connected(driver)
    one.send(b"ab")
    one.receive(b"c ab")
    two.send(b"c abc")
    one.receive(b"c")
    driver.settle()
    assert [(hit.flow, hit.direction, hit.end) for hit in callout.hits] == [
        (two.id, "to_upstream", 5),
        (one.id, "to_client", 5),
    ]
    driver.close()


def test_a_direction_that_is_not_chosen_is_not_searched() -> None:
    assert search([b"abc"], patterns=["abc"], direction="to_client") == []
    assert len(search([b"abc"], patterns=["abc"], direction="to_upstream")) == 1


def test_an_urgent_byte_is_no_part_of_what_is_searched() -> None:
    callout = Quiet(patterns=["abcd", "!"])
    driver = memory_driver(callout)
    flow = connected(driver)
    flow.send(b"ab")
    flow.send(b"!", urgent=True)
    flow.send(b"cd")
    driver.settle()
    assert hits_of(callout) == [(1, 0, 4)]
    driver.close()
    assert driver.violations == []


@pytest.mark.parametrize(("missed", "found"), [("join", [(1, 0, 4)]), ("restart", [(2, 2, 4)])])
def test_a_hole_in_a_capture_is_joined_or_not(missed: str, found: Found) -> None:
    callout = Quiet(patterns=["abcd", "^cd"] if missed == "join" else ["abcd", "cd"], missed=missed)  # type: ignore[arg-type]
    driver = memory_driver(callout)
    flow = connected(driver)
    flow.send(b"ab")
    flow.gap(0, 10)
    flow.send(b"cd")
    driver.settle()
    assert hits_of(callout) == found
    driver.close()


def test_what_a_heavier_callout_made_of_the_stream_is_searched() -> None:
    callout = Quiet(patterns=["it is sunny today", "rainy"])
    for pieces in all_cuts(b"it is rainy today"):
        callout.hits.clear()
        relay([StreamEdit(find="rainy", replace="sunny"), callout], pieces)
        assert hits_of(callout) == [(1, 0, 17)]


def test_a_line_for_each_hit_up_to_the_limit(capsys: pytest.CaptureFixture[str]) -> None:
    relay(PatternSet(patterns=["a", "b\n\x1b"], limit=2), [b"ab\n\x1baaa"])
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "flow 1 to_upstream at=0 end=1 pattern 1 'a'",
        "flow 1 to_upstream at=1 end=4 pattern 2 'b\\n\\x1b'",
        "flow 1 to_upstream: more than 2 hits, no more lines",
    ]


def test_lines_may_go_to_a_file(tmp_path: Path) -> None:
    file = tmp_path / "hits"
    relay(PatternSet(patterns=["a.$"], regex=True, to=str(file)), [b"abac"])
    assert file.read_text() == "flow 1 to_upstream end=4 pattern 1 'a.$'\n"


def test_drop_resets_the_connection_before_the_last_byte_of_the_hit_is_through() -> None:
    for pieces in all_cuts(b"abc evil def"):
        outcome = relay(Quiet(patterns=["evil"], action="drop"), pieces, fin=False)
        assert outcome.reset
        assert b"abc evi".startswith(outcome.data)
        assert outcome.violations == []
    assert relay(Quiet(patterns=["good"], action="drop"), [b"abc evil"]).data == b"abc evil"


def test_drained_it_looks_for_nothing_more() -> None:
    callout = Quiet(patterns=["ab"], action="drop")
    driver = memory_driver(callout)
    flow = connected(driver)
    flow.send(b"a")
    driver.settle()
    callout.drain()
    flow.send(b"bab")
    flow.send_fin()
    driver.settle()
    assert bytes(flow.remote.data) == b"abab"
    assert flow.remote.fin
    assert hits_of(callout) == []
    driver.close()


def test_it_joins_a_flow_that_is_there_and_leaves_it() -> None:
    driver = MemoryDriver(watched())
    flow = connected(driver)
    flow.send(b"ab")
    driver.settle()
    callout = Quiet(patterns=["bc", "c"])
    added = driver.add(callout)
    flow.send(b"c")
    driver.settle()
    added.retire()
    driver.settle()
    flow.send(b"c")
    driver.settle()
    assert hits_of(callout) == [(2, 0, 1)]
    assert flow.remote.data == b"abcc"
    driver.close()
    assert driver.violations == []


def test_no_stream_outlives_its_flow() -> None:
    callout = Quiet(patterns=["ab"])
    driver = memory_driver(callout)
    flow = connected(driver)
    flow.send(b"a")
    driver.settle()
    (lane,) = [lane for lane in callout.lanes if lane.stream is not None]
    flow.reset("remote")
    driver.settle()
    assert lane.stream is None
    driver.close()


def test_callouts_with_the_same_patterns_share_one_database() -> None:
    patterns = read_patterns(["some", "patterns"])
    shared = database_for(patterns, Syntax())
    assert database_for(read_patterns([b"some", b"patterns"]), Syntax()) is shared
    assert database_for(patterns, Syntax(caseless=True)) is not shared
    seen = weakref.ref(shared)
    del shared
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"patterns": []}, "at least one pattern"),
        ({"patterns": b"\n\n"}, "at least one pattern"),
        ({"patterns": ["a", ""]}, "pattern 2 is empty"),
        ({"patterns": b"fine\nfine too\n\na(b\nfine\n", "regex": True}, r"pattern 4 'a\(b': Missing close"),
        ({"patterns": ["a", r"(?<=a)b"], "regex": True}, "pattern 2 .*: Zero-width assertions"),
        ({"patterns": ["b*"], "regex": True}, r"pattern 1 'b\*': .*empty"),
        ({"patterns": ["a"], "dotall": True}, "regex=true"),
        ({"patterns": ["a"], "limit": -1}, "limit"),
        ({"patterns": ["a"], "action": "shout"}, "one of report, drop"),
        ({"patterns": ["a"], "missed": "fill"}, "one of join, restart"),
        ({"patterns": 3}, "patterns=3"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(options: dict[str, object], says: str) -> None:
    with pytest.raises(OptionError, match=says) as raised:
        create_callout("pattern_set", options)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith("pattern_set: ")


def test_without_hyperscan_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hyperscan", None)
    with pytest.raises(OptionError) as raised:
        create_callout("pattern_set", {"patterns": "a"})
    assert str(raised.value) == f"pattern_set: {INSTALL}"
    (info,) = [info for info in list_callouts() if info.name == "pattern_set"]
    assert info.error == INSTALL
    assert info.options  # it is described all the same


def test_without_hyperscan_the_command_lists_it_with_the_reason() -> None:
    program = "import sys; sys.modules['hyperscan'] = None; from wfpstream.cli import main; sys.argv[1:] = {!r}; main()"
    listed = subprocess.run(
        [sys.executable, "-c", program.format(["callouts"])], capture_output=True, text=True, check=True
    )
    assert INSTALL in listed.stdout
    refused = subprocess.run(
        [sys.executable, "-c", program.format(["verify", "pattern_set,patterns=a"])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stderr.strip() == f"wfpstream: error: pattern_set: {INSTALL}"


@pytest.mark.parametrize("options", [{}, {"action": "drop"}, {"regex": True, "missed": "restart"}])
def test_it_keeps_the_contract(options: dict[str, Any]) -> None:
    report = check_callout(lambda: Quiet(patterns=["abc", "GET", "x"], **options))
    assert report.passed, report


def test_a_capture_has_the_hits_of_a_live_stream(tmp_path: Path) -> None:
    capture = Capture()
    client, server = capture.opened()
    client.send(b"GET /today")
    for piece in (b"It is rai", b"ny today"):
        server.send(piece, push=True)
    client.ack()
    close(client, server)
    file = tmp_path / "weather.pcap"
    file.write_bytes(capture.pcap())
    options: dict[str, Any] = {"patterns": ["rainy", "GET", "day$"], "regex": True}
    replayed, live = Quiet(**options), Quiet(**options)
    replay_capture(file, [replayed])
    driver = memory_driver(live)
    flow = connected(driver)
    flow.send(b"GET /today")
    for piece in (b"It is rai", b"ny today"):
        flow.receive(piece)
    flow.send_fin()
    flow.receive_fin()
    driver.settle()
    driver.close()
    assert sorted(hits_of(replayed)) == sorted(hits_of(live))
    assert len(live.hits) == 4


def test_it_asks_for_no_more_than_it_is_given() -> None:
    callout = Quiet(patterns=["a"])
    outcome = relay(callout, [b"bab"], options=EngineOptions())
    assert (outcome.data, outcome.fin) == (b"bab", True)
    assert hits_of(callout) == [(1, 1, 2)]
