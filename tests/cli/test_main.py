"""The tree of commands: help, errors in one line, exit codes, and what is imported."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.support import ROOT, command_line, wfpstream
from wfpstream import __version__
from wfpstream.cli import main
from wfpstream.config import parse_callout


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout, result.stderr


def error_of(*arguments: str) -> tuple[int, str]:
    """The exit code and the one line that an error is."""
    code, out, err = invoke(*arguments)
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("wfpstream: error: ")
    return code, line.removeprefix("wfpstream: error: ")


def test_help_names_every_command() -> None:
    code, out, err = invoke("--help")
    assert (code, err) == (0, "")
    for name in ("demo", "run", "replay", "check", "show", "callouts"):
        assert f"\n  {name} " in out
        assert invoke(name, "--help")[0] == 0


def test_version() -> None:
    assert invoke("--version") == (0, f"wfpstream {__version__}\n", "")


def test_help_loads_neither_trio_nor_scapy_nor_the_engine() -> None:
    code = (
        "import sys\nfrom wfpstream.cli import main\nmain(['run', '--help'], standalone_mode=False)\n"
        "print({'trio', 'scapy', 'rich', 'wfpstream.engine'} & set(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr == "set()\n"


def test_check_loads_neither_trio_nor_scapy(tmp_path: Path) -> None:
    (tmp_path / "f.toml").write_text("[[rule]]\ncallout = 'stream_edit,find=a,mode=oob'\n")
    code = (
        f"import sys\nfrom wfpstream.cli import main\nmain(['check', '{tmp_path}/f.toml'], standalone_mode=False)\n"
        "print({'trio', 'scapy', 'rich'} & set(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr == "set()\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command"),
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?"),
        (["run"], "nothing to listen on: give --mode, or -c with a [[proxy.listener]]"),
        (["run", "--mod", "x"], "No such option '--mod'. Did you mean '--mode'?"),
        (["run", "--mode", "reverse:nowhere"], "mode 'reverse:nowhere': expected HOST:PORT, got 'nowhere'"),
        (["run", "--mode", "redirect"], "mode 'redirect': expected redirect@HOST:PORT"),
        (
            ["run", "--mode", "reverse:h:1", "--transparent"],
            "--transparent needs exactly one redirect or tproxy listener",
        ),
        (["run", "--mode", "reverse:h:1", "--watch"], "--watch needs a configuration file"),
        (["run", "--mode", "reverse:h:1", "-q", "-v"], "-q and -v exclude each other"),
        (["run", "--mode", "reverse:h:1", "--grace", "soon"], "expected seconds"),
        (["run", "--mode", "reverse:h:1", "--local", "here"], "'here' is not one of 'client', 'server'"),
        (
            ["run", "--mode", "reverse:h:1", "--callout", "moniter"],
            "no callout 'moniter'; did you mean monitor?",
        ),
        (["run", "--mode", "reverse:h:1", "--callout", "stream_edit"], "stream_edit: option find is missing"),
        (
            ["run", "--mode", "reverse:h:1", "--callout", "throttle,rate=fast"],
            "option rate='fast': expected a rate",
        ),
        (["run", "--mode", "reverse:h:1", "--callout", "web:monitor"], "no such listener"),
        (
            ["run", "--mode", "reverse:h:1", "--events", "-", "--", "true"],
            "--events - and -- COMMAND both write",
        ),
        (["run", "--mode", "a=reverse:h:1", "--mode", "a=reverse:h:2"], 'there is a listener "a" already'),
        (["run", "-c", "/nowhere.toml"], "/nowhere.toml: cannot read it: No such file or directory"),
        (["check"], "Missing argument 'CONFIG'"),
        (["check", "/nowhere.toml"], "/nowhere.toml: cannot read it"),
        (["show", "a", "b"], "Got unexpected extra argument (b)"),
        (["callouts", "--jsno"], "No such option '--jsno'"),
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], message: str) -> None:
    code, line = error_of(*arguments)
    assert code == 2
    assert message in line


@pytest.mark.parametrize("command", ["", "run", "replay", "demo", "check", "show", "callouts"])
def test_usage_errors_print_a_working_example(command: str) -> None:
    _, line = error_of(*filter(None, [command, "--no-such-option"]))
    _, _, example = line.partition("; example: ")
    program, *arguments = shlex.split(example)
    assert program == "wfpstream"
    assert invoke(*arguments, "--help")[0] == 0


def test_check(tmp_path: Path) -> None:
    path = tmp_path / "f.toml"
    path.write_text("[limits]\nunsent = '64KiB'\n")
    assert invoke("check", str(path)) == (0, f"{path}: valid\n", "")
    path.write_text("[limits]\nunsnt = 1\n[[rule]]\ncallout = 3\n")
    code, out, err = invoke("check", str(path))
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f'wfpstream: error: {path}:2: limits.unsnt: unknown key; did you mean "unsent"?',
        f"wfpstream: error: {path}:4: rule[0].callout: expected a name, got 3",
    ]


def test_callouts() -> None:
    code, out, _ = invoke("callouts")
    assert code == 0
    assert "stream_edit  Replaces one byte pattern" in out
    assert "    example  --callout stream_edit,find=rainy,replace=sunny\n" in out
    assert "    find=<text> (required)\n" in out


def test_callouts_as_json_have_examples_that_work() -> None:
    code, out, _ = invoke("callouts", "--json")
    assert code == 0
    found = {info["name"]: info for info in map(json.loads, out.splitlines())}
    assert {"stream_edit", "monitor", "throttle", "latency", "framer", "fault"} <= found.keys()
    for name, info in found.items():
        assert info["error"] == ""
        assert parse_callout(info["example"]).name == name
        assert {"name", "type", "required", "default", "doc"} <= info["options"][0].keys()


def test_a_reader_that_has_read_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        command_line("callouts"), stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["callouts"], ["demo"], ["--help"]])
def test_a_full_disk_is_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command_line(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("wfpstream: error: ")
    assert line.endswith("no space left on device")


def test_a_defect_of_ours_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr("wfpstream.callouts.list_callouts", broken)
    code, line = error_of("callouts")
    assert code == 1
    assert line.startswith("this is a defect of wfpstream: RuntimeError: two lines")


def test_what_the_system_refuses_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("wfpstream.callouts.list_callouts", refused)
    assert error_of("callouts") == (1, "too many open files")


def test_the_module_runs() -> None:
    done = wfpstream("check", "/nowhere.toml")
    assert done.returncode == 2
    assert done.stderr.startswith("wfpstream: error: /nowhere.toml: cannot read it")
