"""The server: requests and answers, one client beside the other, its end."""

from __future__ import annotations

import json
import os
import stat
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.control.kit import COMMANDS, TIMEOUT, Client, serving
from wfpstream.control import ControlError, ControlLimits, ask, serve_control


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ctl" / "1.sock"


def test_an_answer_has_the_id_of_its_request(path: Path) -> None:
    with serving(path), Client(path) as client:
        client.send(b'{"id": 7, "command": "echo", "arguments": {"a": [1, "\\u00e4"]}}\n')
        assert client.line() == {"id": 7, "ok": True, "result": {"a": [1, "ä"]}}
        client.send(b'{"command": "later", "from": "the future"}\n')
        assert client.line() == {"id": None, "ok": True, "result": "later"}


def test_requests_of_one_client_are_answered_in_their_order(path: Path) -> None:
    with serving(path), Client(path) as client:
        lines = [{"id": n, "command": "later" if n % 2 else "echo"} for n in range(500)]
        client.send(b"\n \r\n".join(json.dumps(line).encode() for line in lines) + b"\n")
        for number in range(500):
            answer = client.line()
            assert answer is not None
            assert answer["id"] == number


def test_a_failing_command_is_an_error_line_and_the_server_lives(path: Path) -> None:
    with serving(path) as served, Client(path) as client:
        assert client.ask("fails") == {"id": "fails", "ok": False, "error": "no flow 7", "code": "failed"}
        broken = client.ask("breaks")
        assert broken["code"] == "defect"
        assert broken["error"] == r"this is a defect of wfpstream: KeyError: 'surprise\nin two lines'"
        assert served.log == [r"control command breaks: KeyError: 'surprise\nin two lines'"]
        unknown = client.ask("nonsense")
        assert unknown["code"] == "unknown_command"
        assert "known: echo, fails" in unknown["error"]
        assert client.ask("echo", x=1)["result"] == {"x": 1}


def test_what_json_has_no_form_for_is_text_or_an_error(path: Path) -> None:
    with serving(path), Client(path) as client:
        assert client.ask("plain")["result"] == {"path": "/x", "number": 1.5}
        assert client.ask("odd")["code"] == "defect"
        assert client.ask("echo")["ok"]


def test_one_clients_slow_command_does_not_stop_the_others(path: Path) -> None:
    done = trio.Event()

    async def slow(arguments: dict[str, Any]) -> str:
        await done.wait()
        return "at last"

    with serving(path, {**COMMANDS, "slow": slow}) as served, Client(path) as first, Client(path) as second:
        first.say("slow")
        assert second.ask("echo", n=1)["result"] == {"n": 1}
        served.in_loop(done.set)
        assert first.line() == {"id": "slow", "ok": True, "result": "at last"}


def test_a_command_whose_client_has_gone_goes_on(path: Path) -> None:
    begun, go_on = threading.Event(), trio.Event()
    ended: list[str] = []

    async def slow(arguments: dict[str, Any]) -> None:
        begun.set()
        await go_on.wait()
        ended.append("yes")

    with serving(path, {**COMMANDS, "slow": slow}) as served:
        with Client(path) as client:
            client.say("slow")
            assert begun.wait(TIMEOUT)
        served.in_loop(go_on.set)
        with Client(path) as client:
            assert client.ask("echo")["ok"]
        assert ended == ["yes"]


def test_an_answer_goes_out_even_if_it_is_the_last_thing_that_happens(path: Path) -> None:
    scope = trio.CancelScope()

    def end(arguments: dict[str, Any]) -> str:
        scope.cancel()
        return "ending"

    heard = Started(threading.Event())

    async def served() -> None:
        with scope:
            await serve_control(path, {"end": end}, task_status=heard)

    thread = threading.Thread(target=trio.run, args=(served,))
    thread.start()
    assert heard.event.wait(TIMEOUT)
    assert ask(path, "end") == "ending"
    thread.join(TIMEOUT)
    assert not path.exists()


class Started:
    """A task status that another thread can wait for."""

    def __init__(self, event: threading.Event) -> None:
        self.event = event

    def started(self, value: object = None) -> None:
        self.event.set()


def test_it_is_private(path: Path) -> None:
    old = os.umask(0)
    try:
        with serving(path):
            found = path.stat()
            assert stat.S_ISSOCK(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(old)


def test_it_is_removed_at_the_end(path: Path) -> None:
    with serving(path):
        assert path.is_socket()
    assert not path.exists()
    assert path.parent.is_dir()


def test_a_socket_that_is_another_ones_by_now_is_left_alone(path: Path) -> None:
    with serving(path):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


def test_a_socket_somebody_removed_is_no_trouble(path: Path) -> None:
    with serving(path):
        path.unlink()
    assert not path.exists()


def test_more_clients_than_allowed_are_told_so(path: Path) -> None:
    with serving(path, limits=ControlLimits(clients=2)), Client(path) as one, Client(path) as two:
        assert one.ask("echo")["ok"]
        assert two.ask("echo")["ok"]
        with Client(path) as three:
            (refused,) = three.lines()
            assert refused["code"] == "busy"
        with pytest.raises(ControlError, match="busy: 2 others are connected"):
            ask(path, "echo")
        assert one.ask("echo")["ok"]
        two.sock.close()
        # Its place is free as soon as the server has noticed; until then the answer stays "busy".
        while True:
            with Client(path) as again:
                if served_at_all(again):
                    break


def served_at_all(client: Client) -> bool:
    """Whether it was answered, not refused; who is refused may be hung up on before it has asked."""
    try:
        client.say("echo")
    except BrokenPipeError:
        return False
    answer = client.line()
    return answer is not None and bool(answer["ok"])


def test_a_thousand_connections_leave_the_server_as_it_was(path: Path) -> None:
    with serving(path), Client(path) as first:
        assert first.ask("echo")["ok"]
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(1000):
            Client(path).sock.close()
        with ExitStack() as held:
            places = 1
            while served_at_all(held.enter_context(Client(path))):
                places += 1
            assert places <= ControlLimits().clients
            assert first.ask("echo")["ok"]
        while len(os.listdir("/proc/self/fd")) > before:
            first.ask("echo")
