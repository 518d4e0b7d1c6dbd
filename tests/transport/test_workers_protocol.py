"""What the parent of workers and a worker say to each other: every message survives, however it is cut."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wfpstream.transport._workers_protocol import (
    Answered,
    Ask,
    Ended,
    Failed,
    FromWorker,
    Lines,
    Listening,
    Noticed,
    ProtocolError,
    Start,
    Stop,
    ToWorker,
    encode,
    from_worker,
    to_worker,
)

texts = st.text(max_size=20)
plain: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
tables = st.dictionaries(texts, plain, max_size=3)
numbers = st.integers(0, 2**40)
to_workers = st.one_of(
    st.builds(Start, numbers, numbers, tables),
    st.builds(Ask, numbers, texts, tables),
    st.builds(Stop, st.none() | st.floats(0, 1e6)),
)
from_workers = st.one_of(
    st.just(Listening()),
    st.builds(Failed, texts),
    st.builds(Answered, numbers, st.booleans(), plain, texts, texts),
    st.builds(Noticed, tables),
    st.builds(Ended, tables),
)


def fed(lines: Lines[Any], data: bytes, cuts: list[int]) -> list[Any]:
    """What comes out of `data` cut at `cuts`."""
    messages = []
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        messages += lines.feed(data[start:end])
    return messages


@given(st.lists(to_workers, max_size=5), st.lists(st.integers(0, 10_000), max_size=8))
def test_to_a_worker(sent: list[ToWorker], cuts: list[int]) -> None:
    lines = to_worker()
    assert fed(lines, b"".join(encode(one) for one in sent), cuts) == sent
    assert lines.is_whole


@given(st.lists(from_workers, max_size=5), st.lists(st.integers(0, 10_000), max_size=8))
def test_from_a_worker(sent: list[FromWorker], cuts: list[int]) -> None:
    lines = from_worker()
    assert fed(lines, b"".join(encode(one) for one in sent), cuts) == sent
    assert lines.is_whole


def test_byte_by_byte() -> None:
    sent = [Listening(), Answered(7, True, {"a": ["ü", 1.5]}), Ended({"n": 1})]
    lines = from_worker()
    data = b"".join(encode(one) for one in sent)
    assert [message for byte in data for message in lines.feed(bytes([byte]))] == sent


def test_a_message_is_one_line() -> None:
    assert encode(Ask(1, "show", {"text": "a\nb"})).count(b"\n") == 1


def test_half_a_message_is_kept_for_later() -> None:
    lines = from_worker()
    assert lines.feed(b'{"is":"liste') == []
    assert not lines.is_whole
    assert lines.feed(b'ning"}\n') == [Listening()]
    assert lines.is_whole


def test_what_json_cannot_say_becomes_text() -> None:
    (answer,) = from_worker().feed(encode(Answered(1, True, {"error": ValueError("x")})))
    assert answer == Answered(1, True, {"error": "x"})


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"hello\n",
        b"{}\n",
        b'{"is":"start"}\n',
        b'{"is":"answer","id":"x","ok":true}\n',
        b"\xff\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_no_message_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^not a message: "):
        from_worker().feed(line)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_without_end_is_not_collected_for_ever(end: bytes) -> None:
    lines = Lines(msgspec.json.Decoder(Listening), limit=50)
    with pytest.raises(ProtocolError, match="more than 50 bytes"):
        lines.feed(b" " * 51 + end)
