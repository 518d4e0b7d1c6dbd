"""`wfpstream transparent`: its options, errors and exit codes. What is made is tests/intercept's and tests/system's."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.support import ROOT
from wfpstream.cli import _interception, main
from wfpstream.cli._interception import intercepting
from wfpstream.config import Config
from wfpstream.intercept import InterceptError, Interception, Owner, Record, script


@pytest.fixture(autouse=True)
def _records_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here looks at the machine's records, or could change anything."""
    monkeypatch.setenv("WFPSTREAM_STATE", str(tmp_path / "records"))


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["transparent", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'print|apply|undo|doctor'"),
        (["aply", "--port", "1"], "'aply' is not one of 'print', 'apply', 'undo', 'doctor'"),
        (["print"], "print needs --port, that of the proxy's listener"),
        (["apply"], "apply needs --port"),
        (["doctor"], "doctor needs --port"),
        (["print", "--port", "0"], "Invalid value for '--port'"),
        (["print", "--port", "70000"], "Invalid value for '--port'"),
        (["print", "--port", "1", "--redirect-port", "http"], "expected a port or a range"),
        (["print", "--port", "1", "--redirect-port", "0"], "a redirected port is a number from 1 to 65535"),
        (["print", "--port", "1", "--mode", "nat"], "'nat' is not one of 'redirect', 'tproxy'"),
        (["print", "--port", "1", "--mode", "tproxy", "--scope", "local"], "forwarded connections only"),
        (["print", "--port", "1", "--exempt-uid", "no such user"], "there is no user 'no such user'"),
        (["print", "--port", "1", "--only-uid", "99999999999"], "only_uid is a number"),
        (["print", "--port", "1", "--interface", "a b"], "is not the name of an interface"),
        (["print", "--port", "1", "--name", "../x"], "the name '../x' is not usable"),
        (["undo", "--name", "../x"], "the name '../x' is not usable"),
        (["print", "--port", "1", "--json"], "--json is for doctor"),
        (["undo", "extra"], "Got unexpected extra argument"),
    ],
)
def test_usage_errors_are_one_line_with_a_working_example(arguments: list[str], message: str) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("wfpstream: error: ")
    assert message in line
    program, command, *example = shlex.split(line.partition("; example: ")[2])
    assert (program, command) == ("wfpstream", "transparent")
    assert invoke(*example)[0] == 0


def test_what_comes_from_outside_is_escaped() -> None:
    code, _, err = invoke("print", "--port", "1", "--name", "\x1b[2Jx")
    assert code == 2
    assert err.rstrip("\n").isprintable()


def test_print_shows_what_the_plan_says() -> None:
    code, out, _ = invoke(
        "print", "--port", "15001", "--redirect-port", "80,443", "--redirect-port", "1000-2000",
        "--scope", "local", "--exempt-uid", "33", "--name", "web",
    )  # fmt: skip
    assert code == 0
    ports = (80, 443, (1000, 2000))
    plans = [
        Interception(15001, redirect_ports=ports, scope="local", exempt_uid=33, name="web", families=families)
        for families in (("ipv4", "ipv6"), ("ipv4",))
    ]
    assert out in [script(plan).as_shell() for plan in plans], "IPv6 may be off here"


def test_a_user_by_name() -> None:
    assert "meta skuid 0 accept" in invoke("print", "--port", "1", "--exempt-uid", "root")[1]


def test_a_caller_who_is_not_root_is_exempt() -> None:
    """Without the right to set marks its proxy would meet its own connections."""
    out = invoke("print", "--port", "1")[1]
    assert ("meta skuid" in out) == (os.getuid() != 0)


def test_undo_without_records_has_nothing_to_do() -> None:
    assert invoke("undo") == (0, "nothing to undo\n", "")
    assert invoke("undo", "--name", "web", "--port", "1") == (0, "web: nothing to undo\n", "")


def test_a_folder_that_is_not_ours_alone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "records").mkdir()
    (tmp_path / "records").chmod(0o777)
    code, out, err = invoke("undo")
    assert (code, out) == (1, "")
    assert (
        err
        == f"wfpstream: error: {tmp_path}/records is writable by others: undo records are not kept or read there\n"
    )


def test_doctor_as_json_and_for_people() -> None:
    """Nothing is applied here, so there is something to mend whatever the machine is like."""
    code, out, err = invoke("doctor", "--port", "1", "--scope", "local", "--json")
    assert (code, err) == (1, "")
    # How many connections there are changes between the two.
    findings = [json.loads(re.sub(r"holds \d+", "holds some", line)) for line in out.splitlines()]
    assert all(set(finding) == {"ok", "what", "mend"} for finding in findings)
    assert any(not finding["ok"] and finding["mend"] for finding in findings)
    code, text, _ = invoke("doctor", "--port", "1", "--scope", "local")
    assert code == 1
    text = re.sub(r"holds \d+", "holds some", text)
    for finding in findings:
        assert f"{'ok    ' if finding['ok'] else 'not ok'}  {finding['what']}\n" in text
        assert finding["mend"] in text


def test_who_looks_at_the_exit_code_hears_that_undoing_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise connections are led, for ever and unseen, to where nobody listens any more."""

    def applied(plan: Interception, owner: int, log: object) -> Record:
        """Instead of changing this machine."""
        return Record(1, plan.name, 0, "", 0, plan, (), (), Owner(owner, 0))

    def stuck(name: str, owner: int, made: Record) -> None:
        raise InterceptError("cannot remove the table", f"{name} is stuck")

    def read_only(name: str, owner: int, made: Record) -> None:
        raise OSError(errno.EROFS, "Read-only file system", name)

    told: list[list[str]] = []
    monkeypatch.setattr(_interception, "apply", applied)
    for undo in (stuck, read_only):
        monkeypatch.setattr(_interception, "undo", undo)
        with intercepting(Config(), "redirect", "::", 15001, lambda error: told.append(error.lines)):
            assert not told or undo is read_only
    assert told == [
        [
            "interception is not undone: cannot remove the table",
            "interception is not undone: wfpstream is stuck",
        ],
        ["interception is not undone: wfpstream: read-only file system"],
    ]


def test_help_loads_neither_trio_nor_the_room() -> None:
    code = (
        "import sys\nfrom wfpstream.cli import main\nmain(['transparent', '--help'], standalone_mode=False)\n"
        "print({'trio', 'scapy', 'wfpstream.intercept', 'wfpstream.engine'} & set(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr == "set()\n"
