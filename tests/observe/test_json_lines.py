"""The JSON-lines sink: its lines, its payloads, and readers that are slow or gone."""

from __future__ import annotations

import base64
import json
import os
import threading
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from wfpstream.observe import DataMode, JsonLines, events_schema
from wfpstream.observe._json_lines import PREVIEW

EVENT: dict[str, object] = {"event": "defer", "flow": 1, "seq": 2, "t": 3.5, "dir": "to_client", "held": 4}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sink_to(path: Path, **options: Any) -> JsonLines:
    return JsonLines(os.open(path, os.O_WRONLY | os.O_CREAT), **options)


def drain(fd: int) -> bytes:
    """Everything a pipe holds, its writer being closed."""
    with os.fdopen(fd, "rb") as file:
        return file.read()


def test_a_line_is_the_event_and_its_wall_time(tmp_path: Path) -> None:
    sink = sink_to(tmp_path / "e", timestamp=lambda t: t + 1_000_000_000)
    before = dict(EVENT)
    sink(EVENT)
    assert before == EVENT  # other sinks get the same dict
    assert lines_of(tmp_path / "e") == [{**EVENT, "ts": "2001-09-09T01:46:43.500000Z"}]
    sink.close()


def test_lines_follow_the_schema(tmp_path: Path) -> None:
    sink = sink_to(tmp_path / "e")
    sink(EVENT)
    sink({"event": "from_the_future", "flow": 1, "seq": 3, "t": 4.0, "new": {"key": [b"\xff"]}})
    validator = jsonschema.Draft202012Validator(events_schema())
    validator.check_schema(events_schema())
    for line in lines_of(tmp_path / "e"):
        validator.validate(line)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**lines_of(tmp_path / "e")[0], "dir": "sideways"})
    sink.close()


@pytest.mark.parametrize(("mode", "kept"), [("off", None), ("preview", PREVIEW), ("full", 5000)])
def test_payload(tmp_path: Path, mode: DataMode, kept: int | None) -> None:
    payload = bytes(range(250)) * 20
    sink = sink_to(tmp_path / "e", data=mode)
    assert sink.wants_data == mode
    sink({**EVENT, "data": payload})
    sink({**EVENT, "data": memoryview(payload)})
    for line in lines_of(tmp_path / "e"):
        got = base64.b64decode(line["data"]) if "data" in line else None
        assert got == (None if kept is None else payload[:kept])
    sink.close()


def test_an_event_that_cannot_be_encoded_costs_only_itself(tmp_path: Path) -> None:
    failures: list[str] = []
    sink = sink_to(tmp_path / "e", on_failure=failures.append)
    sink({**EVENT, "text": "\ud800"})
    sink(EVENT)
    assert len(lines_of(tmp_path / "e")) == 1
    assert len(failures) == 1
    assert "event defer cannot be written" in failures[0]
    sink.close()


def test_a_reader_that_went_away_is_told_once() -> None:
    failures: list[str] = []
    reader, writer = os.pipe()
    sink = JsonLines(writer, on_failure=failures.append)
    sink(EVENT)
    os.close(reader)
    sink(EVENT)
    sink(EVENT)
    sink.close()
    assert failures == ["events cannot be written: Broken pipe"]


def test_a_full_disk_is_told_once() -> None:
    failures: list[str] = []
    sink = JsonLines(os.open("/dev/full", os.O_WRONLY), on_failure=failures.append)
    sink(EVENT)
    sink(EVENT)
    assert failures == ["events cannot be written: No space left on device"]


def test_a_slow_reader_is_not_waited_for_and_loses_nothing_within_the_bound() -> None:
    woken: list[int] = []
    reader, writer = os.pipe()
    sink = JsonLines(writer, data="full", on_backlog=lambda: woken.append(1))
    event = {**EVENT, "data": b"x" * 3000}
    for _ in range(100):
        sink(event)
    assert sink.backlog > 0
    assert woken == [1]
    received = b""
    while sink.backlog:
        received += os.read(reader, 1 << 16)
        sink.flush()
    sink.close()
    received += drain(reader)
    assert len(received.splitlines()) == 100
    assert sink.lost == 0
    assert {len(json.loads(line)["data"]) for line in received.splitlines()} == {4000}


def test_beyond_the_bound_losses_are_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wfpstream.observe._json_lines._BACKLOG_LIMIT", 100_000)
    reader, writer = os.pipe()
    sink = JsonLines(writer, data="full")
    event = {**EVENT, "data": b"x" * 3000}
    for _ in range(100):
        sink(event)
    assert sink.lost > 0
    received = b""
    while sink.backlog:
        received += os.read(reader, 1 << 16)
        sink.flush()
    sink(EVENT)
    sink.close()
    received += drain(reader)
    *_, loss, last = [json.loads(line) for line in received.splitlines()]
    assert (loss["event"], loss["count"]) == ("events_lost", sink.lost)
    assert last["event"] == "defer"
    assert len(received.splitlines()) == 100 - sink.lost + 2
    jsonschema.validate(loss, events_schema())


def test_closing_gives_up_on_a_reader_that_never_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wfpstream.observe._json_lines._CLOSE_WAIT_MS", 1)
    failures: list[str] = []
    reader, writer = os.pipe()
    sink = JsonLines(writer, data="full", on_failure=failures.append)
    for _ in range(100):
        sink({**EVENT, "data": b"x" * 3000})
    left = sink.backlog
    sink.close()
    sink.close()
    assert failures == [f"{left} bytes of events were not read"]
    os.close(reader)


def test_a_descriptor_that_is_not_ours_stays_open() -> None:
    reader, writer = os.pipe()
    sink = JsonLines(writer, owned=False)
    sink(EVENT)
    sink.close()
    sink(EVENT)
    os.write(writer, b"open")
    os.close(writer)
    assert drain(reader).endswith(b"}\nopen")


@pytest.mark.parametrize("blocking", [True, False])
def test_a_patient_sink_waits_for_a_slow_reader_and_loses_nothing(blocking: bool) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, blocking)
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(drain(reader)))
    sink = JsonLines(writer, data="full", waits=True)
    thread.start()
    for _ in range(300):
        sink({**EVENT, "data": b"x" * 30_000})
    sink.close()
    thread.join()
    assert len(received[0].splitlines()) == 300
    assert sink.lost == 0
