"""The text table, the Markdown tables, the plot and the record, from made-up figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.peers._demands import demands
from benchmarks.peers._engine_tables import engine_text, from_engine_record
from benchmarks.peers._long import LongRun, text_of
from benchmarks.peers._markdown import (
    case_tables,
    long_table,
    machine_text,
    misses_text,
    targets_table,
    versions_table,
    workers_table,
)
from benchmarks.peers._plot import panels_of, plot
from benchmarks.peers._record import Entry, Record, read_record, write_record
from benchmarks.peers._report import report
from tests.benchmarks.records import MACHINE, entry, record

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
    lines = targets_table(demands(some_record(), {}, {})).splitlines()
    rows = [line for line in lines if "envoy 2" in line]
    assert rows == [
        "| ping-pong 64 B, 32 connections | CPU us/round trip | at most 1.0 x envoy | 20.0 | envoy 25.0 | 0.800 | met |"
    ]
    assert not any("**not measured**" in line for line in lines)
    missing = record({"connect": {"wfpstream": entry(cpu=1.0, wall=1.0)}})
    assert targets_table(demands(missing, {}, {})).count("**not measured**") == 4


def test_what_is_only_to_be_stated_is() -> None:
    (row,) = [
        line for line in targets_table(demands(some_record(), {}, {})).splitlines() if "state that" in line
    ]
    assert (
        row
        == "| 5,000 idle flows | KiB/flow | state that of envoy and haproxy | 11.0 | envoy 17.0 | 0.647 | stated |"
    )


def test_misses_are_listed_and_nothing_else() -> None:
    assert misses_text(demands(some_record(), {}, {})) == "4 of 4 targets are met."
    slow = record({"idle": {"wfpstream": entry(cpu=18.0, wall=5_000), "haproxy": entry(cpu=3.0, wall=5_000)}})
    assert misses_text(demands(slow, {}, {})).splitlines() == [
        "0 of 1 targets are met.",
        "",
        "Missed:",
        "",
        "- 5,000 idle flows (KiB/flow): at most 12 KiB/flow; missed by 50%.",
    ]
    untold = misses_text(demands(record({"connect": {"wfpstream": entry(cpu=1.0, wall=1.0)}}), {}, {}))
    assert "Missed:" not in untold
    assert len([line for line in untold.splitlines() if line.endswith("; not measured.")]) == 4


def long_record(
    messages: int = 10**7, end: float = 122.0, again: float = 122.0, after: int = 13
) -> dict[str, Any]:
    run = LongRun(
        flows=9000, messages=messages, outstanding=32, seconds=300.0, p50_us=500.0, p99_us=1500.0, max_us=9000.0,
        cpu_us=22.0, memory_mib=(30.0, 120.0, 121.0, end, 90.0, again, 90.0), most_memory_mib=123.0,
        descriptors=(13, 18_013, 18_013, 18_013, after, 18_013, after), most_descriptors=18_014,
    )  # fmt: skip
    return {"machine": MACHINE, "runs": {"wfpstream": asdict(run)}}


@pytest.mark.parametrize(
    ("long", "verdict"),
    [
        (long_record(), "met"),
        (long_record(messages=400_000), "not with so many messages"),
        (long_record(end=130.0), "grows"),
        (long_record(again=130.0), "grows"),
        (long_record(after=14), "grows"),
    ],
)
def test_the_long_run_is_held_against_no_growth(long: dict[str, Any], verdict: str) -> None:
    *_, growth, p99 = demands(record({}), long, {})
    assert (growth.verdict, growth.is_met) == (verdict, verdict == "met")
    assert (p99.figure, p99.ours, p99.verdict) == ("us, p99", "1,500", "stated")


@pytest.mark.parametrize(("last", "verdict"), [(23.0, "met"), (46.0, "not linear")])
def test_the_engine_is_held_against_a_line(last: float, verdict: str) -> None:
    figures = {f"{number} sublayers, 64 bytes, one call": 3.0 + 2.5 * number for number in (0, 1, 2, 4)}
    (line,) = demands(record({}), {}, figures | {"8 sublayers, 64 bytes, one call": last})
    assert line.verdict == verdict
    counted = {f"{number} sublayers, instructions, one call": 1000.0 * number for number in (1, 2, 4, 8)}
    (line,) = demands(record({}), {}, figures | counted | {"8 sublayers, 64 bytes, one call": last})
    assert (line.verdict, "1,000 instructions; at most 0% off" in line.ours) == ("met", True)


def test_two_workers_are_shown_beside_one() -> None:
    cases = {
        "connect": {"wfpstream": entry(cpu=2.0, wall=100), "wfpstream-workers": entry(cpu=2.2, wall=150)}
    }
    alone = {"idle": {"wfpstream": entry(cpu=11.0, wall=5_000)}}
    (row,) = workers_table(record(cases | alone)).splitlines()[2:]
    assert row.endswith("connections/s | 2.00 | 2.20 | 1.10 | 100 | 150 | 1.50 |")


def test_where_and_with_what_is_told() -> None:
    assert machine_text(some_record()).startswith("Some CPU, 2 CPUs, Linux 6; 5 rounds, nothing pinned")
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
    whole = long_record()
    run = LongRun(**whole["runs"]["wfpstream"])
    assert "9,000 flows, 10,000,000 round trips" in text_of("wfpstream", run)
    table = long_table(whole)
    assert "| all open | 120 | 18,013 |" in table
    assert "| the most in between | 123 | 18,014 |" in table
    assert "p99 1,500 us" in table


def test_the_engine_is_told_per_sublayer_with_the_line_through_it() -> None:
    figures = {"0 sublayers, 64 bytes, one call": 1.0, "monitor, 64 bytes": 9.0}
    figures |= {f"{number} sublayers, 64 bytes, one call": 3.0 + 2.5 * number for number in (1, 2, 4, 8)}
    figures |= {f"{number} sublayers, instructions, one call": 1000.0 * number for number in (1, 8)}
    text = engine_text(figures)
    assert "| 8 | 23.0 | 8,000 |" in text
    assert "| 0 | 1.00 |  |" in text
    assert "- 64 bytes, one call: 2.50 for every inspecting sublayer more, from the first to the 8th" in text
    assert text.count("no figure is more than 0% off") == 2
    bent = engine_text(figures | {"8 sublayers, 64 bytes, one call": 46.0})
    assert bent.count("no figure is more than 0% off") == 1


def test_what_was_not_measured_says_so_and_the_rest_is_told() -> None:
    held = {"1 MiB in single bytes, seconds": 2.0, "2 MiB in single bytes, seconds": 4.0}
    line = {f"{number} sublayers, 64 bytes, one call": 1.0 * number for number in (1, 2)}
    slow = {
        "inline": {
            "trips_per_s": 10.0,
            "p50_ms": 50.0,
            "p99_ms": 150.0,
            "flows_hit": 32.0,
            "p99_of_others_ms": 0.0,
        }
    }
    parts = from_engine_record(
        {"engine": held | line, "slow": slow, "match": {"no match": 0.2, "each, us": 9.0}}
    )
    assert "| 2 | 4.00 | 1.91 |" in parts["held"]
    assert "| inline | 10.0 | 50.0 | 150 | 32.0 |  |" in parts["slow"]
    assert parts["match"].splitlines()[2:] == ["| no match | 0.200 |"]
    assert parts["birth"] == "Not measured for this page."
