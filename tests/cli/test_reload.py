"""`wfpstream run` reading its configuration again: SIGHUP, `--watch`, and what is said of it.

What stays, what changes and what is refused in detail is `tests/config`'s; here it is the process that counts.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from tests.cli.support import Running, echo_server, json_lines, read_exactly, running
from wfpstream.observe import events_schema

EDIT = '[[rule]]\nname = "edit"\ncallout = "stream_edit,find=rain,replace={},direction=to_upstream"\n'


@pytest.fixture
def upstream() -> Iterator[int]:
    with echo_server() as port:
        yield port


class Policy:
    """A configuration file that is written again and again."""

    def __init__(self, folder: Path, upstream: int) -> None:
        self.path = folder / "wfpstream.toml"
        self._upstream = upstream

    def write(self, *parts: str, listen: str = "127.0.0.1:0", more: str = "") -> Path:
        """As deployment tools do it: complete beside it, then renamed."""
        listener = (
            f'[[proxy.listener]]\nname = "a"\nlisten = "{listen}"\nupstream = "127.0.0.1:{self._upstream}"\n'
        )
        beside = self.path.with_suffix(".new")
        beside.write_text("\n".join([listener, more, *parts]))
        os.replace(beside, self.path)
        return self.path


@pytest.fixture
def policy(tmp_path: Path, upstream: int) -> Policy:
    return Policy(tmp_path, upstream)


def hang_up(run: Running) -> list[str]:
    """SIGHUP; the lines up to the one that says how it went."""
    before = len(run.lines)
    run.send_signal(signal.SIGHUP)
    run.wait_line("reloaded")
    return run.lines[before:]


def test_sighup_changes_new_and_live_flows(policy: Policy) -> None:
    with running("-c", policy.write(EDIT.format("sun"))) as run, run.connect() as live:
        live.sendall(b"rain,")
        assert read_exactly(live, 4) == b"sun,"
        policy.write(EDIT.format("snow"))
        lines = hang_up(run)
        assert lines[-1] == "wfpstream: reloaded"
        assert any("snow" in line for line in lines[:-1]), lines
        live.sendall(b"rain,")
        assert read_exactly(live, 5) == b"snow,"
        assert run.ask(b"rain") == b"snow"
        policy.write()
        hang_up(run)
        live.sendall(b"rain,")
        assert read_exactly(live, 5) == b"rain,"
        assert run.stop() == 0


def test_nothing_has_changed(policy: Policy) -> None:
    with running("-c", policy.write(EDIT.format("sun"))) as run:
        assert hang_up(run) == ["wfpstream: reloaded: nothing has changed"]
        assert run.stop() == 0


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        pytest.param("nonsense", "wfpstream.toml:", id="no TOML"),
        pytest.param('[[rule]]\ncallout = "nobody"\n', "nobody", id="unknown callout"),
        pytest.param('[engine]\nprofile = "win7"\n', "cannot change while running", id="fixed"),
        pytest.param('[control]\nsocket = "elsewhere"\n', "cannot change while running", id="control socket"),
    ],
)
def test_a_file_that_cannot_be_used_changes_nothing(policy: Policy, broken: str, said: str) -> None:
    with running("-c", policy.write(EDIT.format("sun"))) as run:
        policy.write(broken)
        lines = hang_up(run)
        assert said in lines[0]
        assert lines[0].startswith("wfpstream: error: ")
        assert lines[-1] == "wfpstream: not reloaded: what was in force stays in force"
        assert run.ask(b"rain") == b"sun"
        policy.path.unlink()
        assert hang_up(run)[-1] == "wfpstream: not reloaded: what was in force stays in force"
        assert run.stop() == 0


EXITS = """
import sys
from wfpstream.fwps import Callout

if "{when}" == "import":
    sys.exit(3)

class Leaves(Callout):
    layers = ("stream",)

    def __init__(self):
        if "{when}" == "making":
            sys.exit(3)

    def on_registered(self):
        sys.exit(3)
"""


@pytest.mark.parametrize("when", ["import", "making", "registering"])
def test_a_callout_cannot_end_the_run(policy: Policy, when: str) -> None:
    with running("-c", policy.write(EDIT.format("sun"))) as run:
        (policy.path.parent / "leaves.py").write_text(EXITS.format(when=when))
        policy.write('[[rule]]\ncallout = "./leaves.py:Leaves"\n')
        lines = hang_up(run)
        assert "SystemExit: 3" in lines[0]
        assert lines[-1] == "wfpstream: not reloaded: what was in force stays in force"
        assert run.ask(b"rain") == b"sun"
        assert run.stop() == 0


def test_a_pipe_in_the_place_of_the_file_keeps_nobody_waiting(policy: Policy) -> None:
    with running("-c", policy.write(EDIT.format("sun")), "--watch") as run:
        # In one step: a file that is missing for a moment would be told as that.
        os.mkfifo(policy.path.with_suffix(".pipe"))
        os.replace(policy.path.with_suffix(".pipe"), policy.path)
        run.wait_line("not reloaded")
        assert "no regular file" in run.lines[-2]
        assert run.ask(b"rain") == b"sun"
        policy.write(EDIT.format("snow"))
        run.wait_line("reloaded")
        assert run.ask(b"rain") == b"snow"
        assert run.stop() == 0


def test_a_listener_moves_and_the_ready_file_follows(policy: Policy, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with running("-c", policy.write(EDIT.format("sun")), "--ready-file", ready) as run:
        old = run.addresses[0]
        with run.connect() as live:
            live.sendall(b"rain")
            assert read_exactly(live, 3) == b"sun"
            policy.write(EDIT.format("sun"), listen="127.0.0.2:0")
            run.send_signal(signal.SIGHUP)
            run.wait_line("reloaded")
            run.wait_line("listening on 127.0.0.2:")
            listeners = json.loads(ready.read_text())["listeners"]
            assert [one["host"] for one in listeners] == ["127.0.0.2"]
            run.addresses[0] = ("127.0.0.2", listeners[0]["port"])
            assert run.ask(b"rain") == b"sun"
            live.sendall(b"rain")
            assert read_exactly(live, 3) == b"sun"
        with pytest.raises(ConnectionRefusedError):
            run.addresses[0] = old
            run.connect()
        assert run.stop() == 0
        assert not ready.exists()


def test_a_ready_file_that_cannot_be_written_again_ends_nothing(policy: Policy, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with running("-c", policy.write(), "--ready-file", folder / "ready.json") as run, run.connect() as live:
        live.sendall(b"rain")
        assert read_exactly(live, 4) == b"rain"
        (folder / "ready.json").unlink()
        folder.rmdir()
        policy.write(EDIT.format("sun"))
        hang_up(run)
        assert "cannot write" in run.wait_line("error")
        live.sendall(b"rain")
        assert read_exactly(live, 3) == b"sun"
        live.close()
        assert run.stop() == 0


# Stands for a name server that does not answer: the pipe of that name has no other end.
SLOW = """
import os, socket, sys
real = socket.getaddrinfo

def getaddrinfo(host, *rest, **more):
    if host in ("slow.example", b"slow.example") and not rest[-1] & socket.AI_NUMERICHOST:
        print("resolving", file=sys.stderr, flush=True)
        open(os.environ["NEVER"]).read()
    return real(host, *rest, **more)

socket.getaddrinfo = getaddrinfo
"""


def test_who_ends_it_need_not_wait_for_a_reload(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    os.mkfifo(tmp_path / "never")
    slow = {**os.environ, "PYTHONPATH": str(tmp_path), "NEVER": str(tmp_path / "never")}
    with running("-c", policy.write(), env=slow) as run:
        policy.write(listen="slow.example:0")
        run.send_signal(signal.SIGHUP)
        run.wait_line("resolving")
        assert run.stop() == 0


# Stands for a file of many thousand rules: while there is a pipe of that name it is read when that is.
LONG = """
import os, sys, tomllib
real, when = tomllib.loads, os.environ["WHEN"]

def loads(*arguments, **named):
    if os.path.exists(when):
        print("reading", file=sys.stderr, flush=True)
        open(when).read()
        os.unlink(when)
    return real(*arguments, **named)

tomllib.loads = loads
"""


def test_flows_are_served_while_the_file_is_read(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LONG)
    paths = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    slow = {**os.environ, "PYTHONPATH": paths, "WHEN": str(tmp_path / "when")}
    with running("-c", policy.write(EDIT.format("sun")), env=slow) as run, run.connect() as live:
        policy.write(EDIT.format("snow"))
        os.mkfifo(tmp_path / "when")
        run.send_signal(signal.SIGHUP)
        run.wait_line("reading")
        live.sendall(b"rain")
        assert read_exactly(live, 3) == b"sun"
        assert run.ask(b"rain") == b"sun"
        (tmp_path / "when").write_text("now")
        run.wait_line("reloaded")
        live.sendall(b"rain")
        assert read_exactly(live, 4) == b"snow"
        live.close()
        assert run.stop() == 0


def test_an_address_in_use_changes_nothing(policy: Policy, upstream: int) -> None:
    with running("-c", policy.write(EDIT.format("sun"))) as run:
        policy.write(EDIT.format("snow"), listen=f"127.0.0.1:{upstream}")
        lines = hang_up(run)
        assert "cannot listen on" in lines[0]
        assert run.ask(b"rain") == b"sun"
        assert run.stop() == 0


def test_the_last_listener_cannot_go(policy: Policy) -> None:
    with running("-c", policy.write()) as run:
        policy.path.write_text(EDIT.format("sun"))
        lines = hang_up(run)
        assert "no [[proxy.listener]]" in lines[0]
        assert run.ask(b"rain") == b"rain"
        assert run.stop() == 0


def test_what_the_command_line_adds_stays(policy: Policy) -> None:
    extra = ("--callout", "stream_edit,find=wind,replace=calm")
    with running("-c", policy.write(EDIT.format("sun")), *extra) as run:
        policy.write(EDIT.format("snow"))
        hang_up(run)
        assert run.ask(b"rain wind") == b"snow calm"
        assert run.stop() == 0


def test_a_reload_is_an_event(policy: Policy, tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    with running("-c", policy.write(EDIT.format("sun")), "--events", events) as run:
        policy.write()
        hang_up(run)
        assert run.stop() == 0
    (event,) = [one for one in json_lines(events.read_text()) if one["event"] == "reload"]
    assert any(change["what"] == "removed" for change in event["changes"])
    jsonschema.validate(event, events_schema())


def test_watch_reads_the_file_when_it_has_changed(policy: Policy) -> None:
    with running("-c", policy.write(EDIT.format("sun")), "--watch") as run:
        policy.write(EDIT.format("snow"))
        assert run.wait_line("reloaded") == "wfpstream: reloaded\n"
        assert run.ask(b"rain") == b"snow"
        policy.write("broken")
        run.wait_line("not reloaded")
        policy.write(EDIT.format("hail"))
        run.wait_line("reloaded")
        assert run.ask(b"rain") == b"hail"
        assert run.stop() == 0


def test_quiet_says_errors_only(policy: Policy) -> None:
    with running("-c", policy.write(EDIT.format("sun")), "-q") as run:
        policy.write("broken")
        run.send_signal(signal.SIGHUP)
        assert run.wait_line("error").startswith("wfpstream: error: ")
        assert run.stop() == 0


def test_limits_change_while_it_runs(policy: Policy) -> None:
    with running("-c", policy.write()) as run:
        policy.write(more="[limits]\nflows_per_client = 1\n")
        assert any("flows_per_client" in line for line in hang_up(run))
        with run.connect() as first:
            first.sendall(b"x")
            assert read_exactly(first, 1) == b"x"
            run.assert_turns_away()
        assert run.stop() == 0
