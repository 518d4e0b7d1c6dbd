"""monitor: counts and digests that do not depend on the cut, and a log that is safe to look at."""

from __future__ import annotations

import stat
from hashlib import sha256
from pathlib import Path

import pytest

from tests.callouts.support import all_cuts, check_every_cut, memory_driver, relay, watched
from wfpstream.callouts import AllowAfter, Monitor, PatternDrop, StreamEdit


def log_of(tmp_path: Path, monitor_options: dict[str, object], pieces: list[bytes]) -> list[str]:
    path = tmp_path / "log"
    relay(Monitor(to=str(path), **monitor_options), pieces)  # type: ignore[arg-type]
    return path.read_text().splitlines() if path.exists() else []


def test_bytes_and_digests_are_the_same_for_every_cut() -> None:
    data = b"some bytes \x00\xff"
    for pieces in all_cuts(data):
        monitor = Monitor(summary=False)
        assert relay(monitor, pieces).data == data
        (stats,) = monitor.stats
        assert stats.ended
        assert stats.to_upstream is not None
        assert (stats.to_upstream.bytes, stats.to_upstream.end) == (len(data), "fin")
        assert stats.to_upstream.sha256 == sha256(data).hexdigest()


def test_without_a_digest_it_counts_all_the_same(tmp_path: Path) -> None:
    data = b"some bytes"
    for pieces in all_cuts(data):
        monitor = Monitor(to=str(tmp_path / "log"), digest=False)
        assert relay(monitor, pieces).data == data
        (stats,) = monitor.stats
        assert stats.to_upstream is not None
        assert (stats.to_upstream.bytes, stats.to_upstream.sha256) == (len(data), "")
    assert "bytes=10 " in (tmp_path / "log").read_text()
    assert "sha256" not in (tmp_path / "log").read_text()


def test_it_changes_nothing() -> None:
    check_every_cut(lambda: Monitor(summary=False), b"as it is", b"as it is")


def test_live_flows_are_counted_while_they_live_also_silent_ones() -> None:
    monitor = Monitor(summary=False)
    driver = memory_driver(monitor)
    flow = driver.connect(client=("10.0.0.1", 40000), server=("10.0.0.2", 80))
    assert flow is not None
    (stats,) = monitor.stats
    assert not stats.ended
    assert stats.name == f"flow {flow.id} 10.0.0.1:40000 > 10.0.0.2:80"
    flow.receive(b"abc")
    driver.settle()
    (stats,) = monitor.stats
    assert stats.to_client is not None
    assert (stats.to_client.bytes, stats.to_client.indications, stats.to_client.end) == (3, 1, "")
    driver.close()


def test_bytes_that_a_callout_above_took_away_are_missed() -> None:
    monitor = Monitor(summary=False)
    relay([StreamEdit(find="xxx", replace=""), monitor], [b"axxxb"])
    (stats,) = monitor.stats
    assert stats.to_upstream is not None
    assert (stats.to_upstream.bytes, stats.to_upstream.missed) == (2, 3)


def test_a_reset_is_seen() -> None:
    monitor = Monitor(summary=False)
    driver = memory_driver(monitor)
    flow = driver.connect()
    assert flow is not None
    flow.send(b"a")
    driver.settle()
    flow.reset("local")
    driver.settle()
    (stats,) = monitor.stats
    assert stats.to_upstream is not None
    assert stats.to_upstream.end == "reset"
    driver.close()


def test_only_the_chosen_direction_is_watched() -> None:
    monitor = Monitor(summary=False, direction="to_client")
    relay(monitor, [b"abc"])
    (stats,) = monitor.stats
    assert stats.to_upstream is None
    assert stats.to_client is not None
    assert stats.to_client.bytes == 0


def test_an_ipv6_flow_has_its_addresses_in_brackets() -> None:
    monitor = Monitor(summary=False)
    driver = memory_driver(monitor)
    driver.connect(client=("2001:db8::1", 1), server=("2001:db8::2", 2))
    assert monitor.stats[0].name.endswith("[2001:db8::1]:1 > [2001:db8::2]:2")
    driver.close()


def test_the_summary_tells_ends_bytes_and_digest(tmp_path: Path) -> None:
    lines = log_of(tmp_path, {}, [b"ab", b"c"])
    assert len(lines) == 2
    (line,) = (line for line in lines if "to_upstream" in line)
    assert line.endswith(f"to_upstream end=fin bytes=3 indications=3 sha256={sha256(b'abc').hexdigest()}")


def test_log_lines_has_one_line_per_indication(tmp_path: Path) -> None:
    lines = log_of(tmp_path, {"log": "lines", "summary": False}, [b"ab", b"c"])
    assert [line.partition("to_upstream ")[2] for line in lines] == [
        "at=0 bytes=2",
        "at=2 bytes=1",
        "at=3 bytes=0 fin",
    ]


def test_log_text_is_escaped_for_terminals(tmp_path: Path) -> None:
    lines = log_of(tmp_path, {"log": "text", "summary": False}, ["\x1b[2Jü\\\r\nnext\t\x7f".encode()])
    assert lines[1:3] == ["    \\x1b[2J\\xc3\\xbc\\\\\\r\\n", "    next\\t\\x7f"]


def test_log_hex_shows_offsets_hex_and_text(tmp_path: Path) -> None:
    lines = log_of(tmp_path, {"log": "hex", "summary": False}, [b"0123456789abcdef\n\x1b", b"Z"])
    assert lines[1] == "    00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  0123456789abcdef"
    assert lines[2] == f"    00000010  0a 1b{' ' * 42}  .."
    assert lines[4] == f"    00000012  5a{' ' * 45}  Z"


def test_the_limit_ends_the_payload_and_says_so_once(tmp_path: Path) -> None:
    lines = log_of(tmp_path, {"log": "text", "summary": False, "limit": 3}, [b"ab", b"cd", b"ef"])
    assert [line for line in lines if line.startswith("    ")] == [
        "    ab",
        "    c",
        "    (more than the limit of 3 bytes: no more payload of this direction)",
    ]


def test_the_log_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    log_of(tmp_path, {}, [b"x"])
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_the_log_goes_to_stderr_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    relay(Monitor(log="text"), [b"hello"])
    assert "    hello\n" in capsys.readouterr().err


def test_it_is_asked_to_the_end_where_others_are_let_go_or_drop() -> None:
    monitor = Monitor(summary=False)
    relay([AllowAfter(bytes=1), monitor, PatternDrop(find="c")], [b"ab", b"c"])
    (stats,) = monitor.stats
    assert stats.to_upstream is not None
    assert stats.to_upstream.bytes == 3


def test_two_filters_of_one_monitor_do_not_count_twice() -> None:
    monitor = Monitor(summary=False)
    driver = memory_driver(monitor, options=watched())
    driver.add(monitor)
    flow = driver.connect()
    assert flow is not None
    flow.send(b"abc")
    driver.settle()
    (stats,) = monitor.stats
    assert stats.to_upstream is not None
    assert stats.to_upstream.bytes == 3
    driver.close()


def test_an_unknown_form_of_log_is_refused() -> None:
    with pytest.raises(ValueError, match="none, lines, hex, text"):
        Monitor(log="loud")  # type: ignore[arg-type]
