"""Lines for people."""

from __future__ import annotations

import pytest

from wfpstream.observe import HumanLines, safe_bytes, safe_text

ESTABLISHED: dict[str, object] = {
    "event": "flow_established", "flow": 1, "seq": 1, "t": 1.0, "listener": "web", "layer": "stream_v4",
    "client": ("10.0.0.1", 40000), "server": ("::1", 80), "local": ("10.0.0.1", 40000), "remote": ("::1", 80),
}  # fmt: skip
INDICATE: dict[str, object] = {
    "event": "indicate", "flow": 1, "seq": 2, "t": 1.0, "len": 5, "offset": 0, "dir": "to_client",
    "missed": 0, "flags": ["RECEIVE", "RECEIVE_PUSH"], "callout": "monitor", "stage": 0,
    "data": b"hi\x1b[2J",
}  # fmt: skip
LEDGER = {"to_upstream": {"read": 5, "written": 5}, "to_client": {"read": 9, "written": 7}}
DELETED: dict[str, object] = {
    "event": "flow_deleted", "flow": 1, "seq": 3, "t": 2.0, "reason": "fin", "ledger": LEDGER,
    "duration": 1.0,
}  # fmt: skip
BLOCKED: dict[str, object] = {
    "event": "flow_blocked", "flow": 2, "seq": 4, "t": 2.0, "listener": "", "client": ("10.0.0.1", 1),
    "layer": "ale_auth_connect_v4", "callout": None, "filter": 7,
}  # fmt: skip
VIOLATION: dict[str, object] = {
    "event": "violation", "flow": 1, "seq": 5, "t": 2.0, "rule": "V-5", "severity": "E", "text": "two words",
    "callout": "x", "filter": 3, "dir": "to_client", "offset": 0, "where": "file.py:3",
}  # fmt: skip
ALL = [ESTABLISHED, INDICATE, DELETED, BLOCKED, VIOLATION]


def lines_at(level: int) -> list[str]:
    lines: list[str] = []
    sink = HumanLines(lines.append, level)
    for event in ALL:
        sink(event)
    return lines


def test_quiet_leaves_what_needs_somebody() -> None:
    assert lines_at(0) == [
        'flow 1 violation callout=x filter=3 dir=to_client offset=0 rule=V-5 severity=E text="two words" '
        "where=file.py:3"
    ]


def test_one_line_per_flow() -> None:
    assert lines_at(1) == [
        "flow 1 10.0.0.1:40000 -> [::1]:80 (web), fin, to_upstream 5 B, to_client 9 -> 7 B, 1.000 s",
        "flow 2 10.0.0.1:1: blocked layer=ale_auth_connect_v4 filter=7",
        *lines_at(0),
    ]


def test_every_event() -> None:
    lines = lines_at(2)
    assert len(lines) == len(ALL)
    assert lines[1].startswith(
        "flow 1 indicate stage=0 callout=monitor dir=to_client flags=RECEIVE|RECEIVE_PUSH offset=0 len=5 "
    )


def test_payload_cannot_steer_a_terminal() -> None:
    line = lines_at(3)[1]
    assert r"data='hi\x1b[2J'" in line
    assert "\x1b" not in line
    assert HumanLines(lambda line: None, 3).wants_data == "preview"
    assert HumanLines(lambda line: None, 2).wants_data == "off"


def test_what_concerns_single_bytes_is_wanted_only_where_it_is_shown() -> None:
    assert [HumanLines(lambda line: None, level).wants_trace for level in range(4)] == [
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("plain ü", "plain ü"), ("a\nb\x7f\x9b", r"a\nb\x7f\x9b"), ("\u202e\ud800", r"\u202e\ud800")],
)
def test_texts_are_made_safe(text: str, shown: str) -> None:
    assert safe_text(text) == shown


def test_bytes_are_cut() -> None:
    assert safe_bytes(b"ab\0", 2) == "'ab'..."
    assert safe_bytes(b"ab\0") == r"'ab\x00'"


def test_a_terminal_that_is_gone_is_told_once() -> None:
    failures: list[str] = []

    def write(line: str) -> None:
        raise BrokenPipeError("gone")

    sink = HumanLines(write, 2, failures.append)
    for event in ALL:
        sink(event)
    assert failures == ["events cannot be shown: gone"]
