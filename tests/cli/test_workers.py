"""`wfpstream run --workers N`: real processes that share a port and a policy, and what becomes of them."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cli.support import (
    TIMEOUT,
    Running,
    echo_server,
    json_lines,
    python,
    read_exactly,
    running,
    wfpstream,
)
from wfpstream.control import ControlError, ask
from wfpstream.observe import events_schema

# So many connections are spread over two workers, but for one in 10^9.
MANY = 30


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a server that says what it hears."""
    with echo_server() as number:
        yield number


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of the control socket."""
    return tmp_path / "run" / "control.sock"


@pytest.fixture
def file(tmp_path: Path, path: Path, port: int) -> Path:
    """A configuration with a control socket of its own."""
    found = tmp_path / "f.toml"
    write(found, port)
    return found


def write(file: Path, port: int, *parts: str) -> None:
    """As deployment tools do it: complete beside it, then renamed; who watches it never sees half of it."""
    listener = f'[[proxy.listener]]\nname = "web"\nlisten = "127.0.0.1:0"\nupstream = "127.0.0.1:{port}"\n'
    beside = file.with_suffix(".new")
    beside.write_text("".join([listener, '[control]\nsocket = "run/control.sock"\n', *parts]))
    os.replace(beside, file)


def rule(find: str, replace: str) -> str:
    return f'[[rule]]\nname = "edit"\ncallout = "stream_edit,find={find},replace={replace}"\n'


def echoed(client: socket.socket, data: bytes) -> bytes:
    client.sendall(data)
    return read_exactly(client, len(data))


def answers(run: Running, data: bytes) -> set[bytes]:
    """What many connections answer: each worker has some of them."""
    return {run.ask(data) for _ in range(MANY)}


def workers_of(path: Path) -> dict[int, dict[str, Any]]:
    return {one["worker"]: one for one in ask(path, "stats")["workers"]}


def one_of_each(run: Running, path: Path, stack: ExitStack) -> dict[int, socket.socket]:
    """A connection to each of two workers."""
    found: dict[int, socket.socket] = {}
    while len(found) < 2:
        client = stack.enter_context(run.connect())
        assert echoed(client, b"hello") == b"hello"
        (flow,) = [flow for flow in ask(path, "flows") if flow["client"] == list(client.getsockname())]
        found.setdefault(flow["worker"], client)
    return found


def assert_ends(pid: int) -> None:
    """The process ends: waited for, not polled."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(TIMEOUT * 1000), f"{pid} lives on"
    finally:
        os.close(descriptor)


# --- serving --------------------------------------------------------------------------------------


def test_both_serve_and_say_who_they_are(file: Path, path: Path, tmp_path: Path) -> None:
    events, ready = tmp_path / "events", tmp_path / "ready"
    options: list[str | Path] = ["--workers", "2", "--events", events, "--ready-file", ready]
    options += ["--callout", "monitor"]
    with running("-c", file, *options) as run:
        assert answers(run, b"x" * 1000) == {b"x" * 1000}
        # The file comes before the lines.
        said = json.loads(ready.read_text())
        assert (said["pid"], said["listeners"][0]["port"]) == (run.process.pid, run.addresses[0][1])
        stats = ask(path, "stats")
        accepted = {one["worker"]: one["accepted"] for one in stats["workers"]}
        assert stats["accepted"] == sum(accepted.values()) == MANY
        assert min(accepted.values()) > 0
        assert stats["pid"] == run.process.pid
        assert run.stop() == 0
    assert not ready.exists()
    lines = json_lines(events.read_text())
    validator = jsonschema.Draft202012Validator(events_schema())
    for line in lines:
        validator.validate(line)
    begun = [(line["worker"], line["flow"]) for line in lines if line["event"] == "flow_established"]
    assert Counter(worker for worker, _ in begun) == accepted
    assert len(set(begun)) == MANY
    ended = [(line["worker"], line["flow"]) for line in lines if line["event"] == "flow_deleted"]
    assert sorted(ended) == sorted(begun)


def test_lines_for_people_name_the_worker(port: int) -> None:
    with running(f"--mode=reverse:127.0.0.1:{port}", "--workers", "2", "-v") as run:
        assert run.ask(b"12345") == b"12345"
        line = run.wait_line("flow ")
        assert run.stop() == 0
    assert line.startswith(("flow 1.1 127.0.0.1:", "flow 2.1 127.0.0.1:"))


def test_events_of_all_go_to_one_pipe(port: int) -> None:
    options = ["--workers", "2", "--events", "-", "--events-data", "full", "--callout", "monitor"]
    with running(f"--mode=reverse:127.0.0.1:{port}", *options, stdout=-1) as run:
        body = bytes(range(256)) * 100
        assert run.process.stdout is not None
        for _ in range(4):
            assert run.ask(body) == body
            while json.loads(run.process.stdout.readline())["event"] != "flow_deleted":
                continue
        assert run.stop() == 0


def test_the_command_beside_them(port: int) -> None:
    code = (
        "import os, socket\n"
        "s = socket.create_connection((os.environ['WFPSTREAM_HOST'], int(os.environ['WFPSTREAM_PORT'])))\n"
        "s.sendall(b'x'); raise SystemExit(7 if s.recv(1) == b'x' else 1)"
    )
    done = wfpstream("run", f"--mode=reverse:127.0.0.1:{port}", "--workers", "2", "--", *python(code))
    assert done.returncode == 7


def test_one_worker_is_the_plain_process(port: int, tmp_path: Path) -> None:
    events = tmp_path / "events"
    with running(f"--mode=reverse:127.0.0.1:{port}", "--workers", "1", "--events", events) as run:
        assert run.ask(b"x") == b"x"
        assert run.stop() == 0
    assert all("worker" not in line for line in json_lines(events.read_text()))


@pytest.mark.parametrize("number", ["0", "-1", "1025", "two"])
def test_a_number_that_is_none(port: int, number: str) -> None:
    done = wfpstream("run", f"--mode=reverse:127.0.0.1:{port}", "--workers", number)
    assert done.returncode == 2
    assert done.stderr.startswith("wfpstream: error: ")
    assert "--workers" in done.stderr
    assert done.stderr.count("\n") == 1


# --- changing the policy --------------------------------------------------------------------------


def test_a_reload_switches_all_and_a_bad_one_none(file: Path, path: Path, port: int, tmp_path: Path) -> None:
    events = tmp_path / "events"
    with running("-c", file, "--workers", "2", "--events", events) as run, ExitStack() as stack:
        clients = one_of_each(run, path, stack)
        write(file, port, rule("rain", "snow"))
        run.send_signal(signal.SIGHUP)
        assert run.wait_line("reloaded") == "wfpstream: reloaded by workers 1, 2\n"
        for client in clients.values():
            assert echoed(client, b"rain") == b"snow"
        before = ask(path, "filters")
        for broken in (rule("rain", "hail") + rule("rain", "fog"), "nonsense = 1\n", "[["):
            write(file, port, broken.replace('"edit"', '"other"', 1) if "fog" in broken else broken)
            with file.open("a") as more:
                more.write("\n[limits]\nunsent = -1\n")
            with pytest.raises(ControlError):
                ask(path, "reload")
        assert ask(path, "filters") == before
        assert answers(run, b"rain") == {b"snow"}
        write(file, port)
        assert ask(path, "reload")["workers"] == [1, 2]
        assert answers(run, b"rain") == {b"rain"}
        # Nobody has lost a connection by any of it.
        for client in clients.values():
            assert echoed(client, b"rain") == b"rain"
        assert run.stop() == 0
    told = [line for line in json_lines(events.read_text()) if line["event"] == "reload"]
    assert Counter(line["worker"] for line in told) == {1: 2, 2: 2}
    assert told[0]["changes"] == told[1]["changes"]


def test_a_listener_comes_and_goes_in_all_workers(file: Path, path: Path, port: int) -> None:
    with running("-c", file, "--workers", "2") as run:
        more = f'[[proxy.listener]]\nname = "more"\nlisten = "127.0.0.1:0"\nupstream = "127.0.0.1:{port}"\n'
        write(file, port, more)
        ask(path, "reload")
        line = run.wait_line("listening on")
        other = int(line.split()[2].rpartition(":")[2])
        run.addresses.append(("127.0.0.1", other))
        assert {run.ask(b"x", listener=1) for _ in range(MANY)} == {b"x"}
        write(file, port)
        ask(path, "reload")
        with pytest.raises(ConnectionRefusedError):
            run.connect(listener=1)
        assert answers(run, b"x") == {b"x"}
        assert run.stop() == 0


def test_no_connection_is_lost_while_policies_and_listeners_change(file: Path, path: Path, port: int) -> None:
    """Somebody connects all the time; what is answered is one policy's answer or the other's."""
    more = f'[[proxy.listener]]\nname = "more"\nlisten = "127.0.0.1:0"\nupstream = "127.0.0.1:{port}"\n'
    with running("-c", file, "--workers", "2") as run:
        heard: Counter[bytes] = Counter()
        failures: list[Exception] = []
        is_over, has_asked = threading.Event(), threading.Event()

        def connect_all_the_time() -> None:
            while not is_over.is_set():
                try:
                    heard[run.ask(b"rain")] += 1
                except OSError as error:
                    failures.append(error)
                has_asked.set()

        thread = threading.Thread(target=connect_all_the_time)
        thread.start()
        try:
            for _ in range(4):
                write(file, port, more, rule("rain", "snow"))
                ask(path, "reload")
                write(file, port)
                ask(path, "reload")
                # The next changes come when somebody has been answered since.
                has_asked.clear()
                assert has_asked.wait(TIMEOUT)
        finally:
            is_over.set()
            thread.join()
        assert run.stop() == 0
    assert failures == []
    assert heard.keys() <= {b"rain", b"snow"}
    assert heard.total() > 0


def test_a_file_that_is_watched(file: Path, path: Path, port: int) -> None:
    with running("-c", file, "--workers", "2", "--watch") as run:
        write(file, port, rule("rain", "snow"))
        assert run.wait_line("reloaded") == "wfpstream: reloaded by workers 1, 2\n"
        assert answers(run, b"rain") == {b"snow"}
        write(file, port, rule("rain", "snow"), "nonsense = 1\n")
        run.wait_line("not reloaded: what was in force stays in force")
        assert answers(run, b"rain") == {b"snow"}
        assert run.stop() == 0


ONLY_ONE = """
import os
from pathlib import Path
from wfpstream.fwps import Callout

class OnlyOne(Callout):
    "Cannot be had by two workers: as something that keeps a port or a lock for itself."

    def __init__(self):
        import sys
        if "wfpstream.cli._workers" not in sys.modules:
            os.open(Path(__file__).with_name("lock"), os.O_CREAT | os.O_EXCL)

    def classify_fn(self, fixed, meta, packet, context, filter, flow_context, out):
        pass
"""


def test_what_one_worker_cannot_have_none_gets(file: Path, path: Path, port: int, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(ONLY_ONE)
    with running("-c", file, "--workers", "2") as run:
        write(file, port, rule("rain", "snow"), '[[rule]]\ncallout = "./one.py:OnlyOne"\n')
        with pytest.raises(ControlError, match=r"worker \d: .*File exists"):
            ask(path, "reload")
        assert answers(run, b"rain") == {b"rain"}
        assert sorted(workers_of(path)) == [1, 2]
        assert ask(path, "stats")["workers_gone"] == 0
        assert run.stop() == 0


def test_rules_by_hand_are_in_force_in_all_also_in_one_that_starts_later(file: Path, path: Path) -> None:
    with running("-c", file, "--workers", "2") as run, ExitStack() as stack:
        added = ask(path, "add-filter", {"callout": "stream_edit,find=rain,replace=snow", "name": "by hand"})
        assert added == {
            "changes": added["changes"],
            "lines": ['+ rule "by hand"'],
            "workers": [1, 2],
        }
        assert answers(run, b"rain") == {b"snow"}
        before = ask(path, "filters")
        os.kill(workers_of(path)[1]["pid"], signal.SIGKILL)
        run.wait_line("worker 1 (pid")
        run.wait_line("listens")
        assert answers(run, b"rain") == {b"snow"}
        assert ask(path, "filters") == before
        # The new worker has given its filters the numbers that the others have.
        clients = one_of_each(run, path, stack)
        layers = {layer["name"]: layer["sublayers"] for layer in before["layers"]}
        for name in ("stream_v4", "stream_v6"):
            (one,) = layers[name][0]["filters"]
            assert ask(path, "delete-filter", {"filter": one["id"]}) == {
                "filter": one["id"],
                "state": "deleted",
                "workers": [1, 2],
            }
        for client in clients.values():
            assert echoed(client, b"rain") == b"rain"
        assert run.stop() == 0


def test_a_filter_that_is_busy_in_one_worker_stays_in_all(file: Path, path: Path) -> None:
    with running("-c", file, "--workers", "2") as run, ExitStack() as stack:
        ask(path, "add-filter", {"callout": "framer,by=line", "name": "by hand"})
        client = stack.enter_context(run.connect())
        # The end of a line comes back when its worker has it all; the next line only begins.
        client.sendall(b"a line\nhalf a line")
        assert read_exactly(client, 7) == b"a line\n"
        (flow,) = ask(path, "flows")
        before = ask(path, "filters")
        (one,) = next(
            layer["sublayers"][0]["filters"] for layer in before["layers"] if layer["name"] == "stream_v4"
        )
        while not ask(path, "show", {"flow": f"{flow['worker']}.{flow['id']}"})["to_upstream"]["held"]:
            continue
        with pytest.raises(ControlError, match="is in use"):
            ask(path, "delete-filter", {"filter": one["id"]})
        assert ask(path, "filters") == before
        client.sendall(b"\n")
        assert read_exactly(client, 12) == b"half a line\n"
        assert run.stop() == 0


# --- the control socket ---------------------------------------------------------------------------


def test_flows_of_all_are_seen_and_one_is_aborted(file: Path, path: Path) -> None:
    with running("-c", file, "--workers", "2") as run, ExitStack() as stack:
        clients = one_of_each(run, path, stack)
        flows = {
            flow["worker"]: f"{flow['worker']}.{flow['id']}"
            for flow in ask(path, "flows")
            if any(flow["client"] == list(client.getsockname()) for client in clients.values())
        }
        listed = wfpstream("ctl", "flows", "--socket", path).stdout
        shown = wfpstream("ctl", "show", flows[2], "--socket", path).stdout
        assert all(f"{name} " in listed for name in flows.values())
        assert shown.startswith(f"flow {flows[2]} of listener web\n")
        with pytest.raises(ControlError, match="of which worker"):
            ask(path, "abort", {"flow": 1})
        with pytest.raises(ControlError, match="no worker 3"):
            ask(path, "show", {"flow": "3.1"})
        with pytest.raises(ControlError, match="worker 1: no flow 999"):
            ask(path, "show", {"flow": "1.999"})
        done = wfpstream("ctl", "abort", flows[1], "--socket", path)
        assert done.stdout == f"flow {flows[1]}: aborted\n"
        with pytest.raises(ConnectionResetError):
            clients[1].recv(1)
        assert echoed(clients[2], b"still here") == b"still here"
        assert "worker 2: pid" in wfpstream("ctl", "stats", "--socket", path).stdout
        drained = ask(path, "drain", {"grace": None})
        assert drained["connections"] == len(ask(path, "flows"))
        stack.close()
        assert run.wait() == 0


# --- the end of a worker, and of all --------------------------------------------------------------


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(
    file: Path, path: Path, tmp_path: Path
) -> None:
    events = tmp_path / "events"
    with running("-c", file, "--workers", "2", "--events", events) as run, ExitStack() as stack:
        clients = one_of_each(run, path, stack)
        lost = sum(flow["worker"] == 1 for flow in ask(path, "flows"))
        accepted = workers_of(path)[1]["accepted"]
        pid = workers_of(path)[1]["pid"]
        os.kill(pid, signal.SIGKILL)
        line = run.wait_line("worker 1")
        assert line.startswith(
            f"wfpstream: error: worker 1 (pid {pid}) was killed by signal 9 (SIGKILL): {lost} connection"
        )
        with pytest.raises(ConnectionResetError):
            clients[1].recv(1)
        assert echoed(clients[2], b"undisturbed") == b"undisturbed"
        run.wait_line("listens")
        assert answers(run, b"x") == {b"x"}
        stats = ask(path, "stats")
        assert (stats["workers_gone"], stats["connections_reset"]) == (1, lost)
        assert stats["workers"][0]["accepted"] > accepted
        assert run.stop() == 0
    lines = json_lines(events.read_text())
    (gone,) = [line for line in lines if line["event"] == "worker_gone"]
    assert (gone["worker"], gone["pid"], gone["connections"]) == (1, pid, lost)
    (started,) = [line for line in lines if line["event"] == "worker_started"]
    assert started["worker"] == 1
    begun = [(line["worker"], line["flow"]) for line in lines if line["event"] == "flow_established"]
    assert len(set(begun)) == len(begun)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_the_flows_of_all_end(file: Path, path: Path, number: signal.Signals) -> None:
    with running("-c", file, "--workers", "2", "--grace", "30s") as run:
        with ExitStack() as stack:
            clients = one_of_each(run, path, stack)
            # A terminal, and systemd, tell all of the group.
            for worker in workers_of(path).values():
                os.kill(worker["pid"], number)
            run.send_signal(number)
            run.wait_turned_away()
            for client in clients.values():
                assert echoed(client, b"last words") == b"last words"
        assert run.wait() == 0
    assert [line for line in run.lines if "error" in line] == []


def test_workers_do_not_outlive_their_parent(file: Path, path: Path) -> None:
    with running("-c", file, "--workers", "2") as run:
        pids = [worker["pid"] for worker in workers_of(path).values()]
        run.process.kill()
        for pid in pids:
            assert_ends(pid)


STUCK = """
import time
from wfpstream.fwps import Callout

class Stuck(Callout):
    def classify_fn(self, fixed, meta, packet, context, filter, flow_context, out):
        while True:
            time.sleep(60)
"""


def test_a_stuck_worker_does_not_outlive_its_parent_either(file: Path, path: Path, tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(STUCK)
    with running("-c", file, "--workers", "2", "--callout", f"{tmp_path}/stuck.py:Stuck") as run:
        pids = [worker["pid"] for worker in workers_of(path).values()]
        with run.connect() as client:
            client.sendall(b"x")
            run.process.kill()
            for pid in pids:
                assert_ends(pid)


DIES = """
import os
from wfpstream.fwps import Callout

class Dies(Callout):
    def classify_fn(self, fixed, meta, packet, context, filter, flow_context, out):
        if packet.stream_data.data_length == 4:
            os._exit(3)
"""


def test_who_dies_again_and_again_is_started_again_and_again(file: Path, path: Path, tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text(DIES)
    with running("-c", file, "--workers", "2", "--callout", f"{tmp_path}/dies.py:Dies") as run:
        for _ in range(3):
            with run.connect() as client:
                client.sendall(b"die!")
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            run.wait_line("ended with exit code 3: 1 connection was reset; another one is started")
            run.wait_line("listens")
        assert run.stop() == 0


COUNTS = """
import os, signal
from wfpstream.fwps import Callout

class Counts(Callout):
    "Breaks its contract, which is counted; told to die it does, after some turns of the loop and some time."

    def classify_fn(self, fixed, meta, packet, context, filter, flow_context, out):
        if packet.stream_data.tobytes() == b"bad!":
            raise ZeroDivisionError
        if packet.stream_data.tobytes() == b"die!":
            self.left = 20
            self.tick()

    def tick(self):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)
        self.after(0.15, self.tick)
"""


def test_what_a_worker_has_counted_outlives_it(file: Path, path: Path, tmp_path: Path) -> None:
    """It is killed three seconds later; its parent knows what it had told, and what the others have."""
    (tmp_path / "counts.py").write_text(COUNTS)
    with running("-c", file, "--workers", "2", "--callout", f"{tmp_path}/counts.py:Counts") as run:
        for _ in range(10):
            with run.connect() as client:
                client.sendall(b"bad!")
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
        assert ask(path, "stats")["violations"]["V-40"] == 10
        with run.connect() as client:
            client.sendall(b"die!")
            run.wait_line("was killed by signal 9")
        run.wait_line("listens")
        assert ask(path, "stats")["violations"]["V-40"] == 10
        assert run.stop() == 0


ONLY_PARENT = """
import sys
from wfpstream.fwps import Callout

class OnlyParent(Callout):
    def __init__(self):
        if "wfpstream.cli._workers" not in sys.modules:
            raise ValueError("not in a worker")

    def classify_fn(self, fixed, meta, packet, context, filter, flow_context, out):
        pass
"""


def test_workers_that_cannot_start_end_the_run(port: int, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(ONLY_PARENT)
    mode = f"--mode=reverse:127.0.0.1:{port}"
    done = wfpstream("run", mode, "--workers", "2", "--callout", f"{tmp_path}/one.py:OnlyParent")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("wfpstream: error: worker ")
    assert line.endswith("not in a worker")
    assert "cannot start: " in line


FAILS_LATER = """
import sys
from pathlib import Path
from wfpstream.fwps import Callout

class FailsLater(Callout):
    def __init__(self):
        if Path(__file__).with_name("broken").exists():
            raise ValueError("broken meanwhile")

    def classify_fn(self, fixed, meta, packet, context, filter, flow_context, out):
        pass
"""


def test_when_no_worker_can_be_started_any_more_the_run_ends(file: Path, path: Path, tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text(FAILS_LATER)
    options = ["--workers", "2", "--callout", f"{tmp_path}/later.py:FailsLater"]
    with running("-c", file, *options) as run:
        (tmp_path / "broken").touch()
        for worker in workers_of(path).values():
            os.kill(worker["pid"], signal.SIGKILL)
        line = run.wait_line("no worker can be started")
        assert run.wait() == 1
    assert line.startswith("wfpstream: error: no worker can be started: worker ")
    assert line.endswith("broken meanwhile\n")


def test_a_port_in_use_also_by_another_parent(port: int) -> None:
    mode = f"--mode=reverse:127.0.0.1:{port}"
    with running(mode, "--workers", "2") as run:
        taken = run.addresses[0][1]
        for workers in ("2", "1"):
            done = wfpstream("run", f"{mode}@{taken}", "--workers", workers)
            assert done.returncode == 1
            assert done.stderr == (
                f"wfpstream: error: cannot listen on 127.0.0.1:{taken}: address already in use\n"
            )
        assert run.stop() == 0


BROKEN = """
from wfpstream.fwps import Callout

class Broken(Callout):
    filter_action = "callout_terminating"

    def classify_fn(self, fixed, meta, packet, context, filter, flow_context, out):
        pass
"""


@pytest.mark.parametrize("is_killed", [False, True])
def test_strict_verification_in_any_worker_fails_the_run(
    file: Path, path: Path, tmp_path: Path, is_killed: bool
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    options = ["--verify", "strict", "--callout", f"{tmp_path}/broken.py:Broken", "--grace", "10ms"]
    with running("-c", file, "--workers", "2", *options) as run:
        with run.connect() as client:
            client.sendall(b"x")
            line = run.wait_line("violation callout=broken.py:Broken")
            number = int(line.split()[1].partition(".")[0])
            if is_killed:
                os.kill(workers_of(path)[number]["pid"], signal.SIGKILL)
                run.wait_line("was killed")
        assert run.stop() == 1
    assert sum("callouts broke their contract" in line for line in run.lines) == 1
