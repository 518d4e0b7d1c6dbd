"""`wfpstream ctl` and `wfpstream show` against a control socket: what people and programs see, and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.cli.operated import Changed, Operated
from tests.control.kit import Served, serving
from wfpstream import __version__
from wfpstream.callouts import create_callout
from wfpstream.cli import main
from wfpstream.cli._commands import make_commands
from wfpstream.cli._tables import Size, table_lines, time_text
from wfpstream.config import ConfigError, Problem
from wfpstream.control import ControlError
from wfpstream.testing import FlowEnds, MemoryDriver


@pytest.fixture
def operated() -> Iterator[Operated]:
    with MemoryDriver() as driver:
        yield Operated(driver)


@pytest.fixture
def served(operated: Operated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A proxy that can be asked, and that is the only one there is."""
    path = tmp_path / "wfpstream" / "1.sock"
    monkeypatch.setattr("wfpstream.control._paths._folders", lambda: iter([path.parent]))
    with serving(path, make_commands(operated)) as found:
        yield found


def invoke(*arguments: str | Path, stdin: str | bytes | None = None) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def told(*arguments: str | Path, stdin: str | bytes | None = None) -> list[str]:
    """The lines on stdout of what went well."""
    code, out, err = invoke("ctl", *arguments, stdin=stdin)
    assert (code, err) == (0, "")
    return out.splitlines()


def data(*arguments: str | Path) -> Any:
    (line,) = told(*arguments, "--json")
    return json.loads(line)


def error_of(*arguments: str | Path, stdin: str | bytes | None = None) -> tuple[int, str]:
    """The exit code and the one line that an error is."""
    code, out, err = invoke(*arguments, stdin=stdin)
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("wfpstream: error: ")
    return code, line.removeprefix("wfpstream: error: ")


def connect(operated: Operated, listener: str = "web") -> FlowEnds:
    ends = operated.driver.connect(listener=listener)
    assert ends is not None
    return ends


STEERING = "\x1b[31mred\x9b2J\x07"


@pytest.mark.parametrize("code", ["failed", "usage"])
def test_who_answers_cannot_steer_the_terminal(tmp_path: Path, code: str) -> None:
    """Root may ask a proxy of another user, and whatever that user has put in its place."""

    def refuse(arguments: dict[str, Any]) -> Any:
        raise ControlError(f"no: {STEERING}", code)

    commands = {"flows": refuse, "drain": lambda _: {"connections": STEERING}}
    path = tmp_path / "1.sock"
    with serving(path, commands):
        assert error_of("ctl", "flows", "--socket", path)[1].isprintable()
        (line,) = told("drain", "--socket", path)
        assert line == r"draining, \x1b[31mred\x9b2J\x07 connections"
    missing = tmp_path / STEERING
    assert error_of("ctl", "flows", "--socket", missing)[1].isprintable()


# --- looking ----------------------------------------------------------------------------------------


def test_flows_as_a_table_and_as_lines(operated: Operated, served: Served) -> None:
    assert told("flows") == ["no flows"]
    assert told("flows", "--json") == []
    operated.driver.add(create_callout("framer", {"by": "line"}), name="lines")
    connect(operated).send(b"x" * 12_345 + b"\nhalf")
    connect(operated, "\x1b[2J").receive_fin()
    head, _, first, second, foot = told("flows")
    assert head.split() == (
        [
            "flow",
            "listener",
            "client",
            "server",
            "age",
            "sent",
            "answered",
            "held",
            "unsent",
            "waits",
            "callouts",
        ]
    )
    assert first.split() == (
        ["1", "web", "10.0.0.1:40000", "10.0.0.2:80", "0.0", "s", "12KiB", "0", "4", "0", "lines"]
    )
    assert r"\x1b[2J" in second
    assert "to_client ended" in second
    assert foot == "2 flows"
    lines = [json.loads(line) for line in told("flows", "--json")]
    assert [(line["id"], line["listener"]) for line in lines] == [(1, "web"), (2, "\x1b[2J")]


def test_a_flow_in_depth(operated: Operated, served: Served) -> None:
    operated.driver.add(create_callout("framer", {"by": "line"}), name="lines")
    connect(operated).send(b"half")
    lines = told("show", "1")
    assert lines[:4] == [
        "flow 1 of listener web",
        "  10.0.0.1:40000 to 10.0.0.2:80",
        "  local 10.0.0.1:40000, remote 10.0.0.2:80, stream_v4",
        "  0.0 s old, quiet for 0.0 s",
    ]
    assert lines[4:6] == ["  to_upstream: read 4, held 4, written 0", "  to_client: read 0, written 0"]
    assert lines[-1] == "  context 0x1 of lines at stream_v4"
    (up,) = (line for line in lines if "lines" in line and "to_upstream" in line)
    assert up.split()[:4] == ["0", "1", "lines", "to_upstream"]
    assert "needs 5 bytes" in up
    assert data("show", "1")["stages"][0]["to_upstream"]["mode"] == "needs_more"


def test_a_plain_relay_in_depth(operated: Operated, served: Served) -> None:
    connect(operated, "")
    lines = told("show", "1")
    assert lines[0] == "flow 1"
    assert lines[-1] == "  no filter matches it: a plain relay"


def test_stats(operated: Operated, served: Served) -> None:
    connect(operated)
    head, *rest = told("stats")
    assert head.startswith(f"wfpstream {__version__}, pid ")
    assert rest == [
        "  listening: web: 127.0.0.1:8888 (reverse)",
        "  listening: [::1]:9 (redirect)",
        "  flows 1, connections 3, accepted 7, refused 1, stored 0",
        "  rejected: own_listener 2",
    ]
    assert data("stats")["accepted"] == 7


def test_show_without_a_file_is_what_is_in_force(operated: Operated, served: Served) -> None:
    operated.driver.add(create_callout("banner", {"text": "hello"}), name="greet")
    lines = told("filters")
    assert lines[:2] == ["layer stream_v4", "  sublayer greet (weight 0x8000)"]
    assert invoke("show") == (0, "\n".join(lines) + "\n", "")
    assert invoke("show", "--socket", served.path) == (0, "\n".join(lines) + "\n", "")
    shown = json.loads(invoke("show", "--json")[1])
    assert shown == data("filters")
    assert {"layers", "sublayers", "callouts"} <= set(shown)


def test_a_filter_on_its_way_out_is_told_apart(operated: Operated, served: Served) -> None:
    """MGMT-16: it is out of force, and still to be seen."""
    added = operated.driver.add(create_callout("framer", {"by": "line"}), name="lines")
    connect(operated).send(b"half a line")
    (busy, _) = added.filter_ids
    assert operated.engine.session.filter_retire_by_id(busy).ok
    operated.driver.settle()
    (line,) = (line for line in told("filters") if f"#{busy} " in line)
    assert line.endswith(" [out of force, draining]")
    (layer,) = (one for one in data("filters")["layers"] if one["name"] == "stream_v4")
    assert [one["retiring"] for one in layer["sublayers"][0]["filters"]] == [True]
    (stage,) = data("show", "1")["stages"]
    assert (stage["draining"], stage["retired"]) == (True, False)


# --- changing ---------------------------------------------------------------------------------------


def test_reload_prints_the_difference(operated: Operated, served: Served) -> None:
    operated.reloads = [Changed('+ rule "x"', "- filter \x1b[2J"), Changed(), Changed("~ x")]
    assert told("reload") == ['+ rule "x"', r"- filter \x1b[2J"]
    assert told("reload") == ["nothing changed"]
    assert data("reload")["lines"] == ["~ x"]


def test_a_reload_that_is_refused_says_every_reason(operated: Operated, served: Served) -> None:
    operated.reloads = [ConfigError([Problem(("rule", 0), "no", 3), Problem((), "neither")], "f.toml")]
    assert invoke("ctl", "reload") == (
        2,
        "",
        "wfpstream: error: f.toml:3: rule[0]: no\nwfpstream: error: f.toml: neither\n",
    )
    operated.reloads = [OSError(1, "cannot listen on 127.0.0.1:80: permission denied")]
    assert error_of("ctl", "reload") == (
        1,
        "cannot listen on 127.0.0.1:80: permission denied; nothing was changed",
    )


def test_add_filter(operated: Operated, served: Served, tmp_path: Path) -> None:
    asked = operated.deployment.asked
    text = "stream_edit,find=a\\,b"
    conditions = ["listener=web", "remote_port=80", "remote_port=[81, 82]", "remote_address=10.0.0.0/8"]
    options = [part for condition in conditions for part in ("--when", condition)]
    assert told("add-filter", text, *options, "--name", "x") == ['+ rule "x"']
    when = {"listener": "web", "remote_port": [80, 81, 82], "remote_address": "10.0.0.0/8"}
    assert asked.pop() == ("rule", text, when, "x")
    assert told("add-filter", "monitor", "--when", "remote_port=1000-2000") == ['+ rule "None"']
    assert asked.pop() == ("rule", "monitor", {"remote_port": "1000-2000"}, None)
    file = tmp_path / "f.toml"
    file.write_text('[[rule]]\ncallout = "ä"\n')
    assert told("add-filter", "--file", file) == ["+ callout", r"+ filter \x1b[2J"]
    assert told("add-filter", "--file", "-", stdin=file.read_text()) == ["+ callout", r"+ filter \x1b[2J"]
    assert asked == [("fragment", file.read_text())] * 2
    operated.deployment.error = ConfigError("callout 'x': there is none")
    assert error_of("ctl", "add-filter", "x") == (2, "callout 'x': there is none")


def test_files_of_a_callout_are_those_of_who_asks(
    operated: Operated, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told("add-filter", "./mine.py:Mine,text=@words")
    assert operated.deployment.asked == [
        ("rule", f"{tmp_path}/mine.py:Mine,text=@{tmp_path}/words", {}, None)
    ]


def test_delete_filter(operated: Operated, served: Served) -> None:
    added = operated.driver.add(create_callout("banner", {"text": "hello"}))
    first, second, *_ = added.filter_ids
    assert told("delete-filter", str(first)) == [f"filter {first}: deleted"]
    assert data("delete-filter", str(second), "--drain") == {"filter": second, "state": "deleted"}
    assert operated.deployment.asked == [("delete", first, False), ("delete", second, True)]
    assert error_of("ctl", "delete-filter", "99") == (1, "no filter 99; `wfpstream ctl filters` lists them")


def test_abort_and_drain(operated: Operated, served: Served) -> None:
    connect(operated)
    assert told("abort", "1") == ["flow 1: aborted"]
    assert error_of("ctl", "abort", "2") == (1, "no flow 2 (any more)")
    assert told("drain", "--grace", "250ms") == ["draining, 3 connections"]
    assert data("drain") == {"connections": 3, "grace": None}
    assert operated.drained == [0.25, None]


# --- which one, and what goes wrong -----------------------------------------------------------------


def test_the_socket_can_be_named_before_and_behind_the_command(served: Served, tmp_path: Path) -> None:
    assert told("flows", "--socket", served.path) == ["no flows"]
    assert told("--socket", served.path, "flows") == ["no flows"]
    assert told("--socket", tmp_path / "nowhere", "flows", "--socket", served.path) == ["no flows"]
    for arguments in (("--socket", tmp_path / "no", "flows"), ("flows", "--socket", tmp_path / "no")):
        assert error_of("ctl", *arguments) == (1, f"no such control socket: {tmp_path / 'no'}")


def test_none_and_several(served: Served, operated: Operated) -> None:
    with serving(served.path.with_name("2.sock"), make_commands(operated)) as second:
        code, text = error_of("ctl", "flows")
        assert code == 2
        assert str(served.path) in text
        assert str(second.path) in text
        assert "--socket" in text
        assert told("flows", "--socket", second.path) == ["no flows"]
    assert told("flows") == ["no flows"]
    served.path.unlink()
    assert error_of("ctl", "flows") == (1, "no wfpstream with a control socket is running here")
    assert error_of("show") == (1, "no wfpstream with a control socket is running here")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ctl"], "Missing command"),
        (["ctl", "nonsense"], "No such command 'nonsense'"),
        (["ctl", "show"], "Missing argument 'FLOW'"),
        (["ctl", "abort", "x"], "expected a flow such as 7, or 2.7 with workers, got 'x'"),
        (["ctl", "add-filter"], "give a CALLOUT or --file FILE"),
        (["ctl", "add-filter", "x", "--file", "y"], "give a CALLOUT or --file FILE"),
        (["ctl", "add-filter", "--file", "y", "--name", "x"], "--when and --name go with a CALLOUT"),
        (["ctl", "add-filter", "x", "--when", "port"], "expected KEY=VALUE"),
        (["ctl", "add-filter", "x", "--when", r"listener=\xff"], "expected text or a number"),
        (["ctl", "drain", "--grace", "soon"], "expected seconds"),
        (["show", "x.toml", "--socket", "y"], "give one of them"),
    ],
)
def test_usage(arguments: list[str], said: str) -> None:
    code, text = error_of(*arguments)
    assert code == 2
    assert said in text
    assert "example: wfpstream " in text


@pytest.mark.parametrize("condition", ["=x", "1=2", "a b=c", "a,b=c"])
def test_conditions_of_no_form(condition: str) -> None:
    code, _ = error_of("ctl", "add-filter", "x", "--when", condition)
    assert code == 2


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert error_of("ctl", "add-filter", "--file", tmp_path / "f") == (
        2,
        f"cannot read {tmp_path / 'f'}: no such file or directory",
    )
    assert error_of("ctl", "add-filter", "--file", "-", stdin=b"\xff") == (2, "-: expected UTF-8 text")


def test_help_of_every_command() -> None:
    code, out, _ = invoke("ctl", "--help")
    assert code == 0
    names = ["flows", "show", "stats", "filters", "reload", "add-filter", "delete-filter", "abort", "drain"]
    assert [line.split()[0] for line in out.partition("Commands:\n")[2].splitlines()] == names
    for name in names:
        assert "--socket PATH" in invoke("ctl", name, "--help")[1]


def test_asking_loads_neither_trio_nor_the_engine(served: Served) -> None:
    code = (
        "import sys\nfrom wfpstream.cli import main\n"
        f"main(['ctl', 'stats', '--socket', {str(served.path)!r}], standalone_mode=False)\n"
        "print({'trio', 'scapy', 'rich', 'wfpstream.engine'} & set(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("wfpstream ")
    assert run.stderr == "set()\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0KiB"),
        (10_190, "10KiB"),
        (10_000, "9.8KiB"),
        (1_048_000, "1023KiB"),
        (1_048_575, "1.0MiB"),
        (98_765_432_100, "92GiB"),
        (1 << 60, "1073741824GiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert str(Size(size)) == text


@pytest.mark.parametrize("columns", ["80", "120"])
def test_on_a_terminal_numbers_and_addresses_stay_whole(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even of long flows between long addresses."""

    class Terminal(StringIO):
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", columns)
    row = [
        "web" * 5,
        "[2001:db8::1]:443",
        "192.168.1.1:40000",
        Size(12_345_678),
        12,
        "wait " * 5,
        "stream_edit, a, b",
    ]
    lines = table_lines(
        ["listener", "client", "server", "sent", "held", "waits", "callouts"], [row], Terminal()
    )
    assert max(map(len, lines)) <= max(100, int(columns))
    for cell in ("[2001:db8::1]:443", "192.168.1.1:40000", "12MiB"):
        assert any(cell in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (59.94, "59.9 s"),
        (62.9, "1:02"),
        (3600, "1:00:00"),
        (11045, "3:04:05"),
        (183845, "2 d 3:04:05"),
    ],
)
def test_times(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
