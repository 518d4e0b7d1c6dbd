"""`wfpstream replay`: what is read and written, what goes where, one line per fault, exit codes."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from tests.cli.support import ROOT, TIMEOUT, command_line, json_lines, mode_of, wfpstream
from tests.replay.kit import Capture, close
from tests.replay.support_jobs import crowd
from tests.support.rights import as_nobody
from wfpstream.cli import main
from wfpstream.cli._replay_show import StreamTable
from wfpstream.observe import events_schema
from wfpstream.replay import replay_capture

RAIN = "It is rainy today.\n"
EDIT = "stream_edit,find=rainy,replace=sunny"
BROKEN = '''
from wfpstream.fwps import Callout

class Broken(Callout):
    """Injects into a flow that is not there."""

    def classify_fn(self, fixed, meta, layer, context, filter, flow_context, out):
        raise ValueError("no")
'''


def invoke(*arguments: str | Path, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    result = CliRunner().invoke(main, ["replay", *map(str, arguments)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def errors_of(code: int, *arguments: str | Path) -> list[str]:
    """The errors of a replay that ends with this exit code."""
    done, _, err = invoke(*arguments)
    assert done == code, err
    lines = err.splitlines()
    assert all(line.startswith("wfpstream: ") for line in lines)
    return [
        line.removeprefix("wfpstream: error: ") for line in lines if line.startswith("wfpstream: error: ")
    ]


def weather(port: int = 40_000, text: str = RAIN) -> Capture:
    """A client asks, the server tells the weather in two segments."""
    capture = Capture()
    client, server = capture.opened(port)
    client.send(b"How is the weather?\n", push=True)
    server.send(text.encode()[:9])
    server.send(text.encode()[9:], push=True)
    client.ack()
    close(client, server)
    return capture


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return weather().write(tmp_path / "weather.pcap")


# --- what comes out -------------------------------------------------------------------------------


def test_json_lines(capture: Path) -> None:
    code, out, err = invoke(capture, "--json", "--callout", EDIT)
    assert code == 0
    (line,) = json_lines(out)
    (stream,) = replay_capture(capture).streams
    assert line["capture"] == str(capture)
    assert line["stream"] == 0
    assert (line["client"], line["server"]) == (["10.0.0.1", 40_000], ["10.0.0.2", 80])
    assert line["client_to_server"]["sha256_out"] == stream.client_to_server.sha256_in
    assert line["server_to_client"]["sha256_in"] == stream.server_to_client.sha256_in
    assert line["server_to_client"]["injected"] == len("sunny")
    assert "10.0.0.1:40000" in err, "the table goes to stderr"


def test_the_table(capture: Path) -> None:
    code, out, err = invoke(capture, "--callout", "stream_edit,find=rainy,replace=cold")
    assert (code, err) == (0, "")
    (row,) = [line.split() for line in out.splitlines() if "10.0.0.1:40000" in line]
    assert row == ["0", "10.0.0.1:40000", "10.0.0.2:80", "20", "20", "19", "18", "0", "yes", "fin"]
    assert out.splitlines()[-1] == "10 packets"


def test_the_table_stops_at_200_rows_and_counts_on(tmp_path: Path) -> None:
    capture = Capture()
    for port in range(40_000, 40_203):
        client, server = capture.opened(port)
        client.send(b"x")
        close(client, server)
    code, out, _ = invoke(capture.write(tmp_path / "x.pcap"))
    assert code == 0
    assert sum("10.0.0.2:80" in line for line in out.splitlines()) == 200
    assert "and 3 more" in out.splitlines()
    assert any(line.split()[:2] == ["203", "203"] for line in out.splitlines())


class Terminal(io.StringIO):
    encoding = "ascii"

    def isatty(self) -> bool:
        return True


def test_a_narrow_terminal_keeps_numbers_whole(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    table = StreamTable(several=True)
    (stream,) = replay_capture(capture).streams
    for number in range(10):
        up = replace(stream.client_to_server, bytes_in=12_345_678, bytes_out=12_345_678)
        table.add(replace(stream, stream=number, client_to_server=up, capture=f"{'deep/' * 20}x.pcap"))
    lines = list(table.lines(Terminal()))
    assert all(len(line) <= 100 and line.isascii() for line in lines)
    assert sum(line.count("12,345,678") for line in lines) == 20
    assert sum(line.count("123,456,780") for line in lines) == 2


def test_quiet_is_quiet(capture: Path) -> None:
    assert invoke(capture, "-q") == (0, "", "")


def test_verbose_tells_of_flows(capture: Path) -> None:
    _, _, err = invoke(capture, "-v")
    (line,) = err.splitlines()
    assert line.startswith("flow 0 10.0.0.1:40000 -> 10.0.0.2:80, fin, to_upstream 20 B, to_client 19 B")
    _, _, err = invoke(capture, "-vvv", "--callout", "monitor,summary=false")
    assert any("It is rainy today." in line for line in err.splitlines() if " indicate " in line)


def test_events(capture: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    code, out, _ = invoke(capture, "--events", file, "--events-data", "full", "--callout", EDIT, "--json")
    assert code == 0
    assert len(out.splitlines()) == 1
    events = json_lines(file.read_text())
    validator = jsonschema.Draft202012Validator(events_schema())
    for event in events:
        validator.validate(event)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["flow"] for event in events} == {0}
    assert events[0]["event"] == "flow_established"
    # The second packet, 1 ms after the first, which is 0 on the engine's clock.
    assert (events[0]["t"], events[0]["ts"]) == (0.001, "2023-11-14T22:13:20.002000Z")
    assert {event["event"] for event in events} >= {"indicate", "classify", "inject", "flow_deleted"}
    assert "capture" not in events[0]
    assert mode_of(file) == 0o600


def test_events_on_stdout(capture: Path) -> None:
    done = wfpstream("replay", capture, "--events", "-")
    assert done.returncode == 0
    assert {"flow_established", "flow_deleted"} <= {event["event"] for event in json_lines(done.stdout)}
    assert "10.0.0.1:40000" in done.stderr


def test_events_of_several_captures_name_theirs(tmp_path: Path, capture: Path) -> None:
    other = weather(40_001).write(tmp_path / "other.pcap")
    file = tmp_path / "events.jsonl"
    assert invoke(capture, other, "--events", file)[0] == 0
    events = json_lines(file.read_text())
    assert list(dict.fromkeys(event["capture"] for event in events)) == [str(capture), str(other)]
    assert {event["flow"] for event in events} == {0}


@pytest.mark.parametrize("suffix", [".pcap", ".pcapng"])
def test_the_output_is_a_capture_of_the_edited_stream(capture: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    assert invoke(capture, "--callout", EDIT, "-o", out, "-q") == (0, "", "")
    (edited,) = replay_capture(
        weather(text=RAIN.replace("rainy", "sunny")).write(tmp_path / "x.pcap")
    ).streams
    (stream,) = replay_capture(out).streams
    assert stream.server_to_client.sha256_in == edited.server_to_client.sha256_in
    assert mode_of(out) == 0o600


def test_several_outputs_are_a_folder(tmp_path: Path) -> None:
    names = ["a/x.pcap", "b/x.pcap", "a/y.pcapng.gz", "a/z.dump"]
    for index, name in enumerate(names):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        weather(40_000 + index).write(path)
    packed = tmp_path / names[2]
    packed.write_bytes(gzip.compress(packed.read_bytes()))
    out = tmp_path / "out" / "deeper"
    assert invoke(*(tmp_path / name for name in names), "-o", out, "-q") == (0, "", "")
    made = sorted(path.name for path in out.iterdir())
    assert made == ["x-2.pcap", "x.pcap", "y.pcapng", "z.dump.pcap"]
    ports = {path.name: replay_capture(path).streams[0].client[1] for path in out.iterdir()}
    assert ports == {"x.pcap": 40_000, "x-2.pcap": 40_001, "y.pcapng": 40_002, "z.dump.pcap": 40_003}


def test_jobs_change_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(3):
        crowd(seed, turns=40).write(folder / f"{seed}.pcap")
    runs = []
    for jobs in (1, 3):
        events, out = tmp_path / f"{jobs}.jsonl", tmp_path / f"out{jobs}"
        options: list[str | Path] = [
            "--json",
            "--events",
            events,
            "--events-data",
            "full",
            "-o",
            out,
            "--jobs",
            str(jobs),
        ]
        done = wfpstream("replay", folder, "--callout", "latency,delay=1500us", "--callout", EDIT, *options)
        assert done.returncode == 0
        runs.append(
            (done.stdout, done.stderr, events.read_bytes(), [p.read_bytes() for p in sorted(out.iterdir())])
        )
    assert runs[0] == runs[1]
    assert len(runs[0][3]) == 3


# --- what is read ---------------------------------------------------------------------------------


def test_standard_input(capture: Path) -> None:
    code, out, _ = invoke("-", "--json", stdin=gzip.compress(capture.read_bytes()))
    assert code == 0
    assert json_lines(out)[0]["capture"] == "standard input"
    assert errors_of(2, "-", "-")[0].startswith("standard input (-) can be read only once")


def test_folders_and_globs(tmp_path: Path) -> None:
    names = ["b.pcap", "a.pcapng", "deep/c.cap.gz", "deep/d.ntar", "e.txt"]
    (tmp_path / "deep").mkdir()
    for name in names:
        weather().write(tmp_path / name)

    def found(*arguments: str | Path) -> list[str]:
        code, out, _ = invoke(*arguments, "--json")
        assert code == 0
        return [str(Path(line["capture"]).relative_to(tmp_path)) for line in json_lines(out)]

    assert found(tmp_path) == ["a.pcapng", "b.pcap", "deep/c.cap.gz", "deep/d.ntar"]
    assert found(tmp_path / "*.*") == ["a.pcapng", "b.pcap", "e.txt"]
    assert found(tmp_path / "[b]*", tmp_path / "a.pcapng") == ["b.pcap", "a.pcapng"]


def test_a_configuration(capture: Path, tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    config.write_text(
        f"[[rule]]\ncallout = '{EDIT}'\n"
        "[[rule]]\ncallout = 'monitor,summary=false'\nwhen = { listener = 'web' }\n"
        "[proxy]\nlocal = 'server'\n[replay]\npush = 'captured'\n"
    )
    events = tmp_path / "e.jsonl"
    code, out, err = invoke(capture, "-c", config, "--json", "--events", events)
    assert code == 0
    assert json_lines(out)[0]["server_to_client"]["injected"] == 5
    assert "rule[1] is for a listener; captures have no listeners, so it meets no flow" in err
    shown = [event["flags"] for event in json_lines(events.read_text()) if event["event"] == "indicate"]
    assert ["RECEIVE", "RECEIVE_PUSH"] in [
        sorted(set(flags) & {"RECEIVE", "RECEIVE_PUSH"}) for flags in shown
    ]
    sides = [
        event["local"] for event in json_lines(events.read_text()) if event["event"] == "flow_established"
    ]
    assert sides == [["10.0.0.2", 80]]
    assert invoke(capture, "-c", config, "--local", "client", "--events", events, "-q")[0] == 0
    sides = [
        event["local"] for event in json_lines(events.read_text()) if event["event"] == "flow_established"
    ]
    assert sides == [["10.0.0.1", 40_000]]


def test_segments_in_a_row_are_one_item_unless_told_otherwise(capture: Path, tmp_path: Path) -> None:
    def lengths(*options: str) -> list[int]:
        events = tmp_path / "e.jsonl"
        assert (
            invoke(capture, "--callout", "monitor,summary=false", "--events", events, "-q", *options)[0] == 0
        )
        return [
            event["len"]
            for event in json_lines(events.read_text())
            if event["event"] == "indicate" and event["dir"] == "to_client" and event["len"]
        ]

    assert sum(lengths()) == len(RAIN)
    assert lengths("--no-coalesce") == [9, 10]


def test_the_command_line_beats_the_file(tmp_path: Path) -> None:
    capture = Capture()
    client, server = capture.opened()
    client.send(b"later", at=5)
    client.send(b"LATER", at=5)
    client.send(b"first", at=0)
    close(client, server)
    path = capture.write(tmp_path / "x.pcap")
    config = tmp_path / "f.toml"
    config.write_text("[replay]\noverlap = 'last'\n")

    def digest(*options: str | Path) -> str:
        code, out, _ = invoke(path, "--json", *options)
        assert code == 0
        return str(json_lines(out)[0]["client_to_server"]["sha256_in"])

    assert digest() == digest("-c", config, "--overlap", "first")
    assert digest("-c", config) == digest("--overlap", "last") != digest()


# --- usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'CAPTURE...'"),
        (["x.pcap", "-q", "-v"], "-q and -v exclude each other"),
        (["x.pcap", "--json", "--events", "-"], "--events - and --json both write to stdout"),
        (["x.pcap", "--callout", "web:monitor"], "captures have no listeners; leave 'web:' out"),
        (["x.pcap", "--callout", "moniter"], "no callout 'moniter'; did you mean monitor?"),
        (["x.pcap", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["x.pcap", "--push", "never"], "'never' is not one of 'always', 'captured'"),
        (["x.pcap", "-o", "out.txt"], "does not say its format"),
        (["x.pcap", "-c", "/nowhere.toml"], "/nowhere.toml: cannot read it"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], message: str) -> None:
    (line,) = errors_of(2, *arguments)
    assert message in line


def test_a_configuration_out_of_range_is_one_line(capture: Path, tmp_path: Path) -> None:
    config = tmp_path / "f.toml"
    config.write_text("[replay]\nahead = 0\n")
    assert errors_of(2, capture, "-c", config) == [f"{config}:2: replay.ahead: ahead=0: expected at least 1"]


def test_nothing_read_is_written(capture: Path, tmp_path: Path) -> None:
    before = capture.read_bytes()
    (tmp_path / "link.pcap").symlink_to(capture)
    os.link(capture, tmp_path / "hard.pcap")
    for out in (capture, tmp_path / "link.pcap", tmp_path / "hard.pcap"):
        (line,) = errors_of(2, capture, "-o", out)
        assert f"{out}: this is the capture {capture} itself" in line
    other = weather().write(tmp_path / "other.pcap")
    (line,) = errors_of(2, capture, other, "-o", tmp_path)
    assert "this is the capture" in line
    (line,) = errors_of(2, capture, "--events", capture)
    assert line.startswith(f"--events {capture}: this is the capture")
    (line,) = errors_of(2, capture, other, "-o", tmp_path / "hard.pcap")
    assert "it is a folder, and here is a file" in line
    assert capture.read_bytes() == before


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "is empty"),
        (b"\xd4\xc3\xb2", "ends inside the file header"),
        (b"this is not a capture, or is it?", "is no pcap or pcapng capture"),
        (gzip.compress(b"nor is this one, whatever one does", mtime=0), "is no pcap or pcapng capture"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_exit_code_2(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "x.pcap"
    if content is not None:
        path.write_bytes(content)
    (line,) = errors_of(2, path)
    assert line.startswith(f"{path}: ")
    assert reason in line
    good = weather().write(tmp_path / "good.pcap")
    assert errors_of(1, path, good) == [line]


def test_a_folder_without_captures(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none here")
    (line,) = errors_of(2, tmp_path)
    assert line.startswith(f"{tmp_path}: no capture in this folder (*.pcap, ")
    (line,) = errors_of(2, tmp_path / "*.pcap")
    assert line == f"{tmp_path}/*.pcap: no capture has such a name"


def test_an_unreadable_file(capture: Path) -> None:
    assert errors_of(0, capture) == []
    capture.chmod(0)
    with as_nobody():
        assert errors_of(2, capture) == [f"{capture}: Permission denied"]


def test_a_link_nobody_knows(capture: Path, tmp_path: Path) -> None:
    """One line for all of its packets; nothing of it can be read, the others can."""
    strange = tmp_path / "strange.pcap"
    whole = capture.read_bytes()
    strange.write_bytes(whole[:20] + (147).to_bytes(4, "little") + whole[24:])  # LINKTYPE_USER0
    line = f"{strange}: packet 1: link type 147 is not known"
    assert errors_of(2, strange) == [line]
    assert errors_of(1, strange, capture) == [line]
    assert errors_of(2, strange, strange, "--jobs", "2") == [line, line]
    code, out, _ = invoke(strange, capture, "--json")
    assert code == 1
    assert [record["capture"] for record in json_lines(out)] == [str(capture)]


def test_a_capture_cut_anywhere(tmp_path: Path) -> None:
    capture = Capture()
    client, _ = capture.opened()
    client.send(b"hello")
    whole = capture.pcap()
    path = tmp_path / "cut.pcap"
    ends = [24]
    for _, frame, _ in capture.records:
        ends.append(ends[-1] + 16 + len(frame))
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        if length in ends:
            assert errors_of(0, path, "-q") == []
            continue
        packets = sum(length >= end for end in ends) - 1
        (line,) = errors_of(1 if packets > 0 else 2, path, "-q")
        assert line.startswith(f"{path}: " if packets < 0 else f"{path}: packet {packets + 1}: ")


def test_an_empty_capture_is_no_error(tmp_path: Path) -> None:
    assert invoke(Capture().write(tmp_path / "x.pcap"), "--json") == (0, "", "")


def test_an_output_that_cannot_be_written(capture: Path, tmp_path: Path) -> None:
    (line,) = errors_of(1, capture, "-o", tmp_path / "nowhere" / "out.pcap")
    assert line == f"{capture}: its output cannot be written: no such file or directory"
    (line,) = errors_of(1, capture, "--events", tmp_path / "nowhere" / "e.jsonl")
    assert line == f"cannot write {tmp_path}/nowhere/e.jsonl: no such file or directory"


def test_a_full_disk(capture: Path) -> None:
    for options in (["--json"], []):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command_line("replay", capture, *options),
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert done.returncode == 1
        assert (
            done.stderr.splitlines()[-1]
            == "wfpstream: error: cannot write to stdout: no space left on device"
        )


def test_strict_verification_fails_the_replay(capture: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(BROKEN)
    callout = f"{file}:Broken"
    code, _, err = invoke(capture, "--callout", callout)
    assert code == 0
    assert "wfpstream: callouts broke their contract: V-40" in err
    code, _, err = invoke(capture, "--callout", callout, "--verify", "strict")
    assert code == 1
    assert "wfpstream: error: callouts broke their contract: V-40" in err
    assert "contract" not in invoke(capture, "--callout", callout, "--verify", "off")[2]


def test_a_lossy_capture_does_not_fill_the_screen(tmp_path: Path) -> None:
    capture = Capture()
    client, server = capture.opened()
    for _ in range(50):
        client.lose(b"lost")
        client.send(b"kept")
        server.ack()
    path = capture.write(tmp_path / "x.pcap")
    _, _, err = invoke(path, "--json")
    gaps = [line for line in err.splitlines() if "on_gap" in line]
    assert len(gaps) == 20
    assert "wfpstream: more of these are not shown (-v shows all)" in err.splitlines()


# --- processes ------------------------------------------------------------------------------------


def test_a_reader_that_has_read_enough_ends_it(capture: Path) -> None:
    for options in (["--json"], ["--events", "-"], []):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            command_line("replay", "-q" if options else capture, capture, *options),
            stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, "")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom wfpstream.cli import main\nmain(['replay', '--help'], standalone_mode=False)\n"
        "print({'trio', 'scapy', 'rich', 'wfpstream.engine'} & set(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr == "set()\n"


def test_replaying_loads_no_event_loop(capture: Path) -> None:
    code = (
        f"import sys\nfrom wfpstream.cli import main\nmain(['replay', '-q', '{capture}'], standalone_mode=False)\n"
        "print({'trio', 'asyncio'} & set(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr == "set()\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """Two workers read from pipes that nobody writes to; the interruption ends them and their files."""
    spool = tmp_path / "spool"
    spool.mkdir()
    for name in ("a.pcap", "b.pcap"):
        os.mkfifo(tmp_path / name)
    # Who runs the tests in the background may have us ignore SIGINT, and so would what we start.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command_line(
                "replay", tmp_path / "a.pcap", tmp_path / "b.pcap", "--jobs", "2", "-o", tmp_path / "out"
            ),
            env={**os.environ, "TMPDIR": str(spool)},
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, ours)
    # Opening a pipe for writing waits for a reader: the workers are at work then.
    writers = [os.open(tmp_path / name, os.O_WRONLY) for name in ("a.pcap", "b.pcap")]
    assert list(spool.iterdir())
    process.send_signal(number)
    _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err.strip()) == (code, "")
    assert list(spool.iterdir()) == []
    assert list((tmp_path / "out").iterdir()) == []
    for writer in writers:
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"x" * 100)
        os.close(writer)


def test_lines_come_as_the_capture_is_read(tmp_path: Path) -> None:
    """Standard input stays open; the first stream is told when its port is used again."""
    capture = weather()
    capture.now += 10**9
    client, _ = capture.opened(client_isn=900_000_000)
    for _ in range(40_000):
        client.send(b"x" * 100)
    with subprocess.Popen(
        command_line("replay", "-", "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(capture.pcap())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["stream"] == 0
        assert process.poll() is None
        process.stdin.close()
        assert json.loads(process.stdout.readline())["stream"] == 1


def test_a_day_takes_no_day(tmp_path: Path) -> None:
    capture = weather()
    capture.wait(86_400)
    client, server = capture.opened(40_001)
    client.send(b"later")
    close(client, server)
    begun = time.monotonic()
    code, out, _ = invoke(capture.write(tmp_path / "x.pcap"), "--json", "--callout", "latency,delay=20s")
    assert code == 0
    assert len(out.splitlines()) == 2
    assert time.monotonic() - begun < 60
