"""framer: callouts below see whole records, and the bytes stay what they were."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.callouts.support import check_every_cut, cut, memory_driver, relay, watched
from wfpstream.callouts import Framer
from wfpstream.fwp import ActionType
from wfpstream.fwps import Callout


class Recorder(Callout):
    """Remembers every indication of data."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def classify_fn(self, *args: Any) -> None:
        layer_data, classify_out = args[2], args[-1]
        if layer_data.stream_data.data_length:
            self.seen.append(layer_data.stream_data.tobytes())
        classify_out.action_type = int(ActionType.PERMIT)


def seen_below(framer: Framer, pieces: list[bytes], **engine: Any) -> list[bytes]:
    recorder = Recorder()
    outcome = relay([framer, recorder], pieces, options=watched(**engine))
    assert outcome.data == b"".join(pieces)
    assert outcome.fin
    assert b"".join(recorder.seen) == b"".join(pieces)
    return recorder.seen


lines = st.lists(st.text("ab", max_size=5), max_size=8).map(
    lambda texts: b"".join(f"{t}\n".encode() for t in texts)
)
cuts = st.lists(st.integers(0, 60), max_size=8)


@given(data=lines, points=cuts)
def test_every_line_is_whole_for_the_callout_below(data: bytes, points: list[int]) -> None:
    for seen in seen_below(Framer(), cut(data, points)):
        assert seen.endswith(b"\n")


@given(data=lines, points=cuts)
def test_each_gives_one_line_at_a_time(data: bytes, points: list[int]) -> None:
    assert seen_below(Framer(each=True), cut(data, points)) == data.splitlines(keepends=True)


@given(bodies=st.lists(st.binary(max_size=6), max_size=8), points=cuts, size=st.integers(1, 4))
def test_each_gives_one_record_with_a_length_at_a_time(
    bodies: list[bytes], points: list[int], size: int
) -> None:
    records = [len(body).to_bytes(size, "big") + body for body in bodies]
    assert seen_below(Framer(by="length", size=size, each=True), cut(b"".join(records), points)) == records


@given(bodies=st.lists(st.binary(max_size=6), max_size=8), points=cuts)
def test_records_with_a_length_are_whole_for_the_callout_below(
    bodies: list[bytes], points: list[int]
) -> None:
    records = [bytes([len(body)]) + body for body in bodies]
    borders = {sum(map(len, records[:n])) for n in range(len(records) + 1)}
    at = 0
    for seen in seen_below(Framer(by="length", size=1), cut(b"".join(records), points)):
        at += len(seen)
        assert at in borders


def test_what_is_incomplete_at_the_end_passes() -> None:
    check_every_cut(Framer, b"one\ntwo", b"one\ntwo")
    check_every_cut(lambda: Framer(by="length"), b"\0\0\0\2ab\0\0\0\7abc", b"\0\0\0\2ab\0\0\0\7abc")
    check_every_cut(lambda: Framer(by="length"), b"\0\0", b"\0\0")


def test_a_line_waits_for_its_end() -> None:
    driver = memory_driver(Framer())
    flow = driver.connect()
    assert flow is not None
    flow.send(b"one\ntw")
    driver.settle()
    assert flow.remote.data == b"one\n"
    flow.send(b"o\n")
    driver.settle()
    assert flow.remote.data == b"one\ntwo\n"
    driver.close()


def test_a_line_above_the_limit_passes_as_it_comes() -> None:
    driver = memory_driver(Framer(limit=4))
    flow = driver.connect()
    assert flow is not None
    flow.send(b"abcd")
    driver.settle()
    assert flow.remote.data == b""
    flow.send(b"e")
    driver.settle()
    assert flow.remote.data == b"abcde"
    driver.close()


def test_framing_goes_on_behind_a_record_above_the_limit() -> None:
    long, short = b"\x0a" + b"x" * 10, b"\x02ab"
    for points in ([], [1], [5, 12], list(range(20))):
        seen = seen_below(Framer(by="length", size=1, limit=5, each=True), cut(long + short + short, points))
        assert seen[-2:] == [short, short]


def test_framing_goes_on_behind_the_engines_own_limit() -> None:
    options = watched()
    options.limits.need_more_data = 8
    record, short = b"\x14" + b"x" * 20, b"\x02ab"
    recorder = Recorder()
    data = record + short + short
    outcome = relay(
        [Framer(by="length", size=1, each=True), recorder], cut(data, range(len(data))), options=options
    )
    assert outcome.data == data
    assert recorder.seen[-2:] == [short, short]
    assert set(outcome.violations) <= {"V-12"}  # it asks for a record that the lowered limit has no room for


@pytest.mark.parametrize(("options", "says"), [({"by": "word"}, "line or length"), ({"size": 0}, "1 to 8")])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Framer(**options)


def test_draining_stops_holding_back() -> None:
    framer = Framer()
    driver = memory_driver(framer)
    flow = driver.connect()
    assert flow is not None
    framer.drain()
    flow.send(b"half a li")
    driver.settle()
    assert flow.remote.data == b"half a li"
    driver.close()
