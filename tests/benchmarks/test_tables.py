"""The text table, the Markdown tables, the plot and the record, from made-up figures."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.peers._long import LongRun, text_of
from benchmarks.peers._markdown import (
    case_tables,
    engine_text,
    long_table,
    machine_text,
    misses_text,
    targets_table,
    versions_table,
)
from benchmarks.peers._plot import panels_of, plot
from benchmarks.peers._record import Entry, Record, read_record, write_record
from benchmarks.peers._report import report
from tests.benchmarks.records import entry, record

SVG = "{http://www.w3.org/2000/svg}"


def some_record() -> Record:
    return record(
        {
            "ping-pong-32": {
                "wfpstream": entry(
                    cpu=(20.0, 18.0, 22.0), wall=(40_000.0, 50_000.0, 45_000.0), p50_us=600.0, p99_us=900.0
                ),
                "envoy": entry(cpu=25.0, wall=45_000.0, p50_us=500.0, p99_us=800.0),
                "mitmproxy": entry(cpu=700.0, wall=1_000.0, p50_us=9_000.0, p99_us=20_000.0),
                "direct": entry(cpu=0.0, wall=90_000.0, p50_us=100.0, p99_us=200.0),
                "socat": Entry(failed="socat is not installed"),
                "haproxy": Entry(entry(cpu=15.0, wall=1.0, p50_us=1.0, p99_us=2.0).figures, note="one | two"),
            },
            "idle": {"wfpstream": entry(cpu=11.0, wall=5_000), "envoy": entry(cpu=17.0, wall=5_000)},
        }
    )


def test_the_text_table_has_every_peer_with_spread_and_ratio() -> None:
    lines = report(some_record()).splitlines()
    (ours,) = [line for line in lines if line.startswith("wfpstream ") and "40,000" in line]
    assert "20.0 (18.0..22.0)" in ours
    assert "45,000 (40,000..50,000)" in ours
    (envoy,) = [line for line in lines if line.startswith("envoy ") and "45,000" in line]
    assert envoy.split()[3] == "1.25"
    assert "socat      socat is not installed" in lines
    assert "5 interleaved rounds" in lines[0]


def test_the_markdown_tables_are_tables() -> None:
    text = case_tables(some_record())
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        bars = {line.replace("\\|", "").count("|") for line in table}
        assert len(bars) == 1, table
    assert "none: socat is not installed" in text
    assert "one \\| two" in text
    assert "20.0 (18.0 to 22.0)" in text


def test_the_table_of_targets_says_what_is_missed() -> None:
    rows = [line for line in targets_table(some_record()).splitlines() if "envoy 2" in line]
    assert rows == [
        "| ping-pong 64 B, 32 connections | CPU us/round trip | at most 1.0 x envoy | 20.0 | envoy 25.0 | 0.800 | met |"
    ]
    assert "**not measured**" not in targets_table(some_record())
    missing = record({"connect": {"wfpstream": entry(cpu=1.0, wall=1.0)}})
    assert targets_table(missing).count("**not measured**") == 3


def test_misses_are_listed_and_nothing_else() -> None:
    assert misses_text(some_record()) == "Every target is met in this run."
    slow = record({"idle": {"wfpstream": entry(cpu=18.0, wall=5_000)}})
    assert misses_text(slow).splitlines() == [
        "1 of 1 targets are missed:",
        "",
        "- 5,000 idle flows (KiB/flow): at most 12 KiB/flow; missed by 50%.",
    ]


def test_where_and_with_what_is_told() -> None:
    assert machine_text(some_record()).startswith(
        "Some CPU, 2 CPUs, Linux 6, Python 3.11; 5 rounds, nothing pinned"
    )
    assert "| the envoy | 1.0 |" in versions_table(some_record())


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_record(some_record(), tmp_path / "record.json")
    assert read_record(tmp_path / "record.json") == some_record()


def test_the_plot_has_a_bar_for_every_figure() -> None:
    picture = ElementTree.fromstring(plot(some_record()))
    bars = [shape for shape in picture.iter(f"{SVG}rect") if shape.get("height") == "16"]
    texts = ["".join(text.itertext()) for text in picture.iter(f"{SVG}text")]
    assert len(bars) == 6  # without the failed one, and without the load alone
    assert "25.0  (1.2 x)" in texts
    assert "20.0" in texts
    width = float(picture.get("width", "0"))
    assert all(float(bar.get("x", "0")) + float(bar.get("width", "0")) < width for bar in bars)


def test_a_bar_far_longer_than_the_others_is_cut_and_marked() -> None:
    picture = ElementTree.fromstring(plot(some_record()))
    widths = sorted(
        float(bar.get("width", "0")) for bar in picture.iter(f"{SVG}rect") if bar.get("height") == "16"
    )
    assert widths[0] > 30, "the others can still be told apart"
    assert len(list(picture.iter(f"{SVG}path"))) == 1
    assert any("700" in "".join(text.itertext()) for text in picture.iter(f"{SVG}text"))


def test_bars_are_sorted_best_first() -> None:
    first, second = panels_of(some_record())
    assert [bar.name for bar in first.bars] == ["haproxy", "wfpstream", "envoy", "mitmproxy"]
    assert [bar.ratio for bar in second.bars] == [1.0, pytest.approx(17 / 11)]


def test_nothing_to_plot_is_told() -> None:
    with pytest.raises(ValueError, match="nothing to plot"):
        plot(record({"edit-none": {"wfpstream": entry(cpu=1.0, wall=1.0)}}))


def test_the_long_run_is_told_moment_by_moment() -> None:
    run = LongRun(
        flows=9000, messages=10**7, outstanding=32, seconds=300.0, p50_us=500.0, p99_us=1500.0, max_us=9000.0,
        cpu_us=22.0, memory_mib=(30.0, 120.0, 121.0, 122.0, 90.0, 122.0, 90.0), most_memory_mib=123.0,
        descriptors=(13, 18_013, 18_013, 18_013, 13, 18_013, 13), most_descriptors=18_014,
    )  # fmt: skip
    assert "9,000 flows, 10,000,000 messages" in text_of("wfpstream", run)
    from dataclasses import asdict

    table = long_table({"runs": {"wfpstream": asdict(run)}})
    assert "| all open | 120 | 18,013 |" in table
    assert "| the most in between | 123 | 18,014 |" in table
    assert "p99 1,500 us" in table


def test_the_engine_is_told_per_sublayer_with_the_line_through_it() -> None:
    figures = {"0 sublayers, 64 bytes, two calls": 1.0, "monitor, 64 bytes": 9.0}
    figures |= {f"{number} sublayers, 64 bytes, two calls": 3.0 + 2.5 * number for number in (1, 2, 4, 8)}
    figures |= {f"{number} sublayers, instructions, two calls": 1000.0 * number for number in (1, 8)}
    text = engine_text(figures)
    assert "| 8 | 23.0 | 8,000 |" in text
    assert "| 0 | 1.00 |  |" in text
    assert "- 64 bytes, two calls: 2.50 for every inspecting sublayer more, from the first to the 8th" in text
    assert text.count("no figure is more than 0% off") == 2
    bent = engine_text(figures | {"8 sublayers, 64 bytes, two calls": 46.0})
    assert bent.count("no figure is more than 0% off") == 1
