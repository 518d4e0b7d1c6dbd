"""`wfpstream run -- COMMAND`: its environment, its signals, its exit code."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import command_line, echo_server, python, running, wfpstream
from wfpstream.cli._child import environment


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with echo_server() as number:
        yield number


@pytest.fixture
def mode(port: int) -> str:
    return f"--mode=reverse:127.0.0.1:{port}"


ASK = (
    "import os, socket\n"
    "s = socket.create_connection((os.environ['WFPSTREAM_HOST'], int(os.environ['WFPSTREAM_PORT'])))\n"
    "s.sendall(b'rainy'); print(s.recv(5).decode())\n"
    "raise SystemExit(3)"
)


def test_it_runs_through_the_proxy_and_its_code_is_ours(mode: str) -> None:
    done = wfpstream("run", mode, "--callout", "stream_edit,find=rainy,replace=sunny", "--", *python(ASK))
    assert (done.returncode, done.stdout) == (3, "sunny\n")


def test_environment(port: int) -> None:
    code = "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if 'WFPSTREAM_' in k}))"
    modes = [f"--mode=redis-1=reverse:127.0.0.1:{port}", f"--mode=b=reverse:127.0.0.1:{port}@0.0.0.0:0"]
    done = wfpstream("run", *modes, "--", *python(code))
    found = json.loads(done.stdout)
    first, second = found["WFPSTREAM_PORT_REDIS_1"], found["WFPSTREAM_PORT_B"]
    ours = {name: found[name] for name in found if not name.startswith("WFPSTREAM_SYSTEM")}
    assert ours == {
        "WFPSTREAM_ADDRESS": f"127.0.0.1:{first}",
        "WFPSTREAM_HOST": "127.0.0.1",
        "WFPSTREAM_PORT": first,
        "WFPSTREAM_ADDRESS_REDIS_1": f"127.0.0.1:{first}",
        "WFPSTREAM_HOST_REDIS_1": "127.0.0.1",
        "WFPSTREAM_PORT_REDIS_1": first,
        "WFPSTREAM_ADDRESS_B": f"127.0.0.1:{second}",
        "WFPSTREAM_HOST_B": "127.0.0.1",
        "WFPSTREAM_PORT_B": second,
    }


def test_environment_of_ipv6() -> None:
    found = environment([("", "::", 80)])
    assert found == {
        "WFPSTREAM_ADDRESS": "[::1]:80",
        "WFPSTREAM_HOST": "::1",
        "WFPSTREAM_PORT": "80",
    }


def test_the_ready_file_is_there_before_the_command(mode: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    done = wfpstream("run", mode, "--ready-file", ready, "--", "cat", ready)
    assert done.returncode == 0
    assert json.loads(done.stdout)["listeners"][0]["mode"] == "reverse"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["sh", "-c", "kill -9 $$"], 137, None),
        (["/nowhere/at/all"], 127, "wfpstream: error: cannot run /nowhere/at/all: no such file or directory"),
        (["/"], 126, "wfpstream: error: cannot run /: permission denied"),
    ],
)
def test_exit_codes(mode: str, command: list[str], code: int, said: str | None) -> None:
    done = wfpstream("run", mode, "--", *command)
    assert done.returncode == code
    listening, *rest = done.stderr.splitlines()
    assert listening.startswith("listening on ")
    assert rest == ([said] if said else [])


def test_a_proxy_that_cannot_listen_is_125_and_runs_nothing(port: int, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    done = wfpstream("run", f"--mode=reverse:127.0.0.1:{port}@{port}", "--", "touch", mark)
    assert done.returncode == 125
    assert done.stderr.startswith("wfpstream: error: cannot listen on ")
    assert not mark.exists()


def test_a_usage_error_stays_2() -> None:
    assert wfpstream("run", "--mode=nonsense", "--", "true").returncode == 2


WAITS = (
    "import signal, sys\n"
    "numbers = {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1}\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, numbers)\n"  # none can come between two lines and be missed
    "print('waiting', flush=True)\n"
    "print('caught', int(signal.sigwait(numbers)), flush=True)\n"
    "sys.exit(7)\n"
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_forwarded(mode: str, number: signal.Signals) -> None:
    with running(mode, "--", *python(WAITS), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as run:
        assert run.process.stdout is not None
        assert run.process.stdout.readline() == "waiting\n"
        run.send_signal(number)
        assert run.process.stdout.readline() == f"caught {number.value}\n"
        assert run.wait() == 7


def test_a_signal_that_kills_the_command_is_128_and_its_number(mode: str) -> None:
    code = "import signal; print('waiting', flush=True); signal.pause()"
    with running(mode, "--", *python(code), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as run:
        assert run.process.stdout is not None
        assert run.process.stdout.readline() == "waiting\n"
        assert run.stop() == 128 + signal.SIGTERM


def test_flows_the_command_left_open_do_not_outlive_the_grace(mode: str) -> None:
    # Its child keeps the connection; the command itself is gone.
    code = (
        "import os, socket, subprocess, sys\n"
        "s = socket.create_connection((os.environ['WFPSTREAM_HOST'], int(os.environ['WFPSTREAM_PORT'])))\n"
        "s.sendall(b'x'); s.recv(1); s.set_inheritable(True)\n"
        "subprocess.Popen(['cat'], stdin=s.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
    )
    done = wfpstream("run", mode, "--grace", "50ms", "--", *python(code))
    assert done.returncode == 0


def test_more_descriptors_for_the_proxy_not_for_the_command(mode: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = min(soft, hard - 1, 512)
    code = (
        "import os, resource\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "print(resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE)[0])\n"
    )
    done = wfpstream(
        "run",
        mode,
        "--",
        *python(code),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard)),
    )
    assert done.stdout.split() == [str(lower), str(hard)]


def test_stdin_is_the_commands(mode: str) -> None:
    done = subprocess.run(
        command_line("run", mode, "--", "cat"), input="hello", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "hello")


def test_nothing_of_the_proxy_is_left_in_the_command(mode: str) -> None:
    done = wfpstream("run", mode, "--events", os.devnull, "--", "ls", "/proc/self/fd")
    # 0, 1, 2 and the folder that ls reads.
    assert done.stdout.split() == ["0", "1", "2", "3"]
