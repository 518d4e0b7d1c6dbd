"""`ctl` over several workers, in memory: real workers without processes or sockets, and their parent's commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cli.operated import Proxying
from tests.cli.test_any_request import REQUESTS
from wfpstream.cli._crew import Crew
from wfpstream.cli._crew_commands import make_crew_commands
from wfpstream.cli._gathering import Gathering
from wfpstream.cli._plan import RunPlan
from wfpstream.cli._worker import Description, Worker, describe
from wfpstream.config import Deployment, Difference, deploy, load_config, policy_text
from wfpstream.control import ControlError
from wfpstream.transport import Gone, Tally, WorkerChannel, WorkerError, Workers

CONFIG = """
[[proxy.listener]]
name = "web"
upstream = "127.0.0.1:80"
[[rule]]
name = "lines"
callout = "framer,by=line"
"""


class InMemoryWorkers:
    """What `Workers` is to a crew, over workers in this process; what is said goes through JSON, as on the wire."""

    count = 2

    def __init__(self) -> None:
        self.there: dict[int, Worker] = {}
        self.errors: dict[tuple[int, str], WorkerError] = {}
        self.dismissed: list[int] = []

    @property
    def listening(self) -> list[int]:
        return sorted(self.there)

    @property
    def pids(self) -> dict[int, int]:
        return {number: 100 + number for number in self.there}

    async def ask(
        self, number: int, command: str, arguments: Mapping[str, Any] | None = None, timeout: float = 0
    ) -> Any:
        if (number, command) in self.errors:
            raise self.errors[number, command]
        sent = msgspec.json.decode(msgspec.json.encode(arguments or {}))
        answer = await self.there[number]._perform(command, sent)
        return msgspec.json.decode(msgspec.json.encode(answer, enc_hook=str))

    async def ask_all(
        self, command: str, arguments: Mapping[str, Any] | None = None, timeout: float = 0
    ) -> dict[int, Any]:
        answers: dict[int, Any] = {}
        for number in self.listening:
            try:
                answers[number] = await self.ask(number, command, arguments)
            except WorkerError as error:
                answers[number] = error
        return answers

    @asynccontextmanager
    async def settled(self) -> Any:
        yield

    def dismiss(self, number: int, why: str, grace: float) -> None:
        self.dismissed.append(number)


class Parent:
    """A run with two workers."""

    def __init__(self, file: Path) -> None:
        loaded = load_config(file)
        self.full_deployment: Deployment = deploy(loaded)
        self.deployment = self.full_deployment
        self.engine = self.full_deployment.engine
        self.plan = RunPlan(loaded=loaded, workers=2)
        self.tally = Tally(2)
        self.crew = Crew(self.plan, self.full_deployment, Gathering(self.plan, self.engine), print)
        self.proxy = self.crew
        self.workers = InMemoryWorkers()
        self.crew.workers = cast(Workers, self.workers)
        for number in (1, 2):
            self.start(number)
        self.commands = make_crew_commands(self)

    def start(self, number: int) -> None:
        """As a process would: from the description alone."""
        said = describe(
            self.plan, policy_text(self.full_deployment), [("127.0.0.1", 1)], None, False, self.tally.fileno()
        )
        description = Description(number, 2, msgspec.json.decode(msgspec.json.encode(said)))
        worker = Worker(description, cast(WorkerChannel, None))
        worker.proxy = cast(Any, Proxying())
        self.workers.there[number] = worker

    async def reload(self) -> Difference:
        return Difference()

    def drain(self, grace: float | None) -> None:
        """Nothing to drain."""

    def close(self) -> None:
        self.crew.close()
        self.tally.close()

    def do(self, command: str, /, **arguments: Any) -> Any:
        async def main() -> Any:
            result = self.commands[command](arguments)
            return await result if inspect.isawaitable(result) else result

        return trio.run(main)

    def code_of(self, command: str, arguments: dict[str, Any]) -> str:
        """Of the error, if it is one."""
        try:
            msgspec.json.encode(self.do(command, **arguments))
        except ControlError as error:
            return error.code
        return ""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("config") / "f.toml"
    found.write_text(CONFIG)
    return found


@pytest.fixture
def parent(file: Path) -> Iterator[Parent]:
    made = Parent(file)
    yield made
    made.close()


def in_force(deployment: Deployment) -> list[tuple[str, int, int]]:
    """Names, ids and actions of all filters, in the order of asking."""
    _, session = deployment.engine.management.engine_open()
    assert session is not None
    _, found = session.filter_enum()
    session.engine_close()
    return [(one.display_data.name, one.filter_id, int(one.action_type)) for one in found if not one.retiring]


# Three deployments an example: few of them, of some length.
@given(st.lists(REQUESTS, min_size=1, max_size=6), st.integers(0, 6))
@settings(max_examples=10)
def test_whatever_is_asked_for_all_have_the_same_policy(
    file: Path, requests: list[tuple[str, dict[str, Any]]], restart: int
) -> None:
    """Also who starts somewhere in between; and a refusal is one of the codes that people can do something about."""
    parent = Parent(file)
    for place, (name, arguments) in enumerate(requests):
        if place == restart:
            parent.start(1)
        assert parent.code_of(name, arguments) in ("", "usage", "failed")
    for worker in parent.workers.there.values():
        assert in_force(worker._description.deployment) == in_force(parent.full_deployment)
    assert parent.workers.dismissed == []
    parent.close()


def test_counts_are_added_up(parent: Parent) -> None:
    for number in (1, 2):
        count = parent.crew._tally.counter(number)
        for connections in range(1, number + 2):
            count(connections)
    parent.crew.worker_ended(1, {"violations": {}, "stats": parent.workers.there[1]._performs["stats"]({})})
    stats = parent.do("stats")
    # Two that live and one that has ended; each of the stand-ins has refused one.
    assert (stats["refused"], stats["rejected"]) == (3, {"own_listener": 6})
    assert (stats["connections"], stats["accepted"]) == (5, 5)
    assert [(one["worker"], one["pid"], one["connections"]) for one in stats["workers"]] == [
        (1, 101, 2),
        (2, 102, 3),
    ]


def test_counts_of_who_was_killed_stay_as_it_told_them(parent: Parent) -> None:
    """Once: not while it lives, and not again when another one is in its place."""

    def told(number: int) -> dict[str, Any]:
        return cast(
            "dict[str, Any]",
            msgspec.json.decode(msgspec.json.encode(parent.workers.there[number]._counted())),
        )

    for _ in range(2):
        parent.crew.worker_noticed(1, {"counted": told(1)})
    assert parent.do("stats")["refused"] == 2
    parent.crew.worker_gone(Gone(1, 101, "was killed by signal 9 (SIGKILL)", 0, 0.0))
    parent.start(1)
    assert (parent.do("stats")["refused"], parent.do("stats")["rejected"]) == (3, {"own_listener": 6})
    parent.crew.worker_gone(Gone(1, 101, "was killed by signal 9 (SIGKILL)", 0, 0.0))
    parent.start(1)
    assert parent.do("stats")["refused"] == 3
    # Who ends in order says the last word itself.
    parent.crew.worker_noticed(2, {"counted": told(2)})
    parent.crew.worker_ended(2, {"violations": {"V-40": 2}, "stats": told(2)["stats"]})
    assert parent.crew.violations == {"V-40": 2}
    parent.crew.worker_gone(Gone(2, 102, "was replaced", 0, 0.0))
    parent.start(2)
    assert parent.do("stats")["refused"] == 4


def test_a_worker_tells_what_it_has_counted_when_that_has_changed(parent: Parent) -> None:
    class Heard:
        def __init__(self) -> None:
            self.all: list[dict[str, Any]] = []

        async def noticed(self, what: dict[str, Any]) -> None:
            self.all.append(what)

    async def main() -> list[int]:
        heard, worker = Heard(), parent.workers.there[1]
        worker._channel = cast(WorkerChannel, heard)
        found = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker._keep_telling)
            for _ in range(3):
                await trio.sleep(2.5)
                found.append(len(heard.all))
                cast(Any, worker.proxy).refused += 1
            nursery.cancel_scope.cancel()
        assert [one["counted"]["stats"]["refused"] for one in heard.all] == [1, 2, 3]
        return found

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == [1, 2, 3]


def test_a_worker_that_has_gone_is_left_out_and_one_that_is_stuck_is_named(parent: Parent) -> None:
    parent.workers.errors[1, "flows"] = WorkerError("worker 1 ended before it answered", "gone")
    assert parent.do("flows") == []
    parent.workers.errors[2, "flows"] = WorkerError("worker 2 did not answer within 10 s", "timeout")
    with pytest.raises(ControlError, match=r"^worker 2 did not answer within 10 s$"):
        parent.do("flows")


def test_who_cannot_follow_is_said_and_replaced(parent: Parent, capsys: pytest.CaptureFixture[str]) -> None:
    parent.workers.errors[2, "add-filter"] = WorkerError("out of luck\nand of memory", "defect")
    result = parent.do("add-filter", callout="monitor", when={}, name="x")
    assert result["workers"] == [1]
    assert parent.workers.dismissed == [2]
    assert capsys.readouterr().err == (
        "wfpstream: error: worker 2 did not switch: out of luck; and of memory; it is replaced\n"
    )
    parent.start(2)
    assert in_force(parent.workers.there[2]._description.deployment) == in_force(parent.full_deployment)


def test_a_refusal_of_one_refuses_a_deletion(parent: Parent) -> None:
    before = in_force(parent.full_deployment)
    parent.workers.there[2]._performs["may-delete"] = lambda arguments: False
    with pytest.raises(ControlError, match="is in use"):
        parent.do("delete-filter", filter=before[0][1])
    assert in_force(parent.full_deployment) == before
    # It is not asked where it may drain.
    assert parent.do("delete-filter", filter=before[0][1], drain=True)["workers"] == [1, 2]


@pytest.mark.parametrize(
    "name", [1, "1", "1.", ".1", "a.b", "1.2.3", "", None, "1." + "9" * 5000, "9" * 5000 + ".1"]
)
def test_a_flow_that_is_named_in_another_way(parent: Parent, name: object) -> None:
    with pytest.raises(ControlError) as info:
        parent.do("show", flow=name)
    assert info.value.code == "usage"
    assert len(info.value.text) < 300
