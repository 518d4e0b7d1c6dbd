"""The parent of workers, over workers in memory and a virtual clock: starts, ends, restarts, questions, changes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    MockClock,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from wfpstream.transport._workers import Gone, WorkerError, Workers, WorkersFailed, WorkersPatience
from wfpstream.transport._workers_protocol import (
    Answered,
    Ask,
    Ended,
    Failed,
    Listening,
    Noticed,
    Start,
    Stop,
    encode,
    to_worker,
)

Pipe = trio.StapledStream[MemorySendStream, MemoryReceiveStream]
Test = Callable[[], Awaitable[None]]


def virtually(test: Test) -> Callable[[], None]:
    """Run it in a time of its own, that jumps when everybody waits."""

    @wraps(test)
    def run() -> None:
        trio.run(test, clock=MockClock(autojump_threshold=0))

    # pytest would take it for a coroutine function.
    del run.__wrapped__
    return run


def shut(stream: Pipe) -> None:
    """Close both ways."""
    stream.send_stream.close()
    stream.receive_stream.close()


class FakeProcess:
    """A worker without a process: the test says what it says, and when it ends."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ours, self._theirs = memory_stream_pair()
        self._code: int | None = None
        self._ended = trio.Event()
        self._lines = to_worker()
        self._heard: list[Any] = []

    # As the parent sees it.

    async def send(self, data: bytes) -> None:
        await self._ours.send_all(data)

    async def receive(self) -> bytes:
        return bytes(await self._ours.receive_some())

    async def wait(self) -> int:
        await self._ended.wait()
        assert self._code is not None
        return self._code

    def kill(self) -> None:
        self.die(-9)

    def close(self) -> None:
        shut(self._ours)

    # As the test does.

    @property
    def is_alive(self) -> bool:
        return self._code is None

    def die(self, code: int) -> None:
        """It ends, and what it had open is closed."""
        if self._code is None:
            self._code = code
            shut(self._theirs)
            self._ended.set()

    async def say(self, *messages: Any) -> None:
        await self._theirs.send_all(b"".join(map(encode, messages)))

    async def say_bytes(self, data: bytes) -> None:
        await self._theirs.send_all(data)

    async def hear(self) -> Any:
        """The next message."""
        while not self._heard:
            self._heard += self._lines.feed(bytes(await self._theirs.receive_some()))
        return self._heard.pop(0)

    async def listen(self) -> Start:
        """Start as a good worker does."""
        start = await self.hear()
        assert isinstance(start, Start)
        await self.say(Listening())
        await wait_all_tasks_blocked()
        return start

    async def end(self, **summary: Any) -> None:
        """Obey a stop."""
        assert isinstance(await self.hear(), Stop)
        await self.say(Ended(summary))
        self.die(0)


@dataclass
class Bench:
    """A parent, its fake workers in the order of their starts, and all it has told."""

    processes: list[FakeProcess] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    refusals: list[OSError] = field(default_factory=list)
    told: list[tuple[Any, ...]] = field(default_factory=list)
    gone: list[Gone] = field(default_factory=list)
    connections: dict[int, int] = field(default_factory=dict)
    policy: str = "first"
    workers: Workers = field(init=False)
    failure: WorkersFailed | None = None
    is_ready: bool = False
    is_over: bool = False

    def launch(self, number: int) -> FakeProcess:
        self.starts.append(trio.current_time())
        if self.refusals:
            raise self.refusals.pop()
        process = FakeProcess(100 + len(self.processes))
        self.processes.append(process)
        self.numbers.append(number)
        return process

    def worker_listens(self, number: int, pid: int, is_again: bool) -> None:
        self.told.append(("listens", number, pid, is_again))

    def worker_gone(self, gone: Gone) -> None:
        self.told.append(("gone", gone.number))
        self.gone.append(gone)

    def worker_noticed(self, number: int, what: dict[str, Any]) -> None:
        self.told.append(("noticed", number, what))

    def worker_ended(self, number: int, summary: dict[str, Any]) -> None:
        self.told.append(("ended", number, summary))

    def process_of(self, number: int) -> FakeProcess:
        """The latest."""
        return next(p for p, n in zip(self.processes[::-1], self.numbers[::-1], strict=True) if n == number)

    async def run(self) -> None:
        def ready() -> None:
            self.is_ready = True

        try:
            await self.workers.run(ready)
        except WorkersFailed as error:
            self.failure = error
        self.is_over = True

    async def started(self, count: int) -> FakeProcess:
        """The process number `count` (from 1), when it is there."""
        while len(self.processes) < count:
            await trio.sleep(0.01)
        return self.processes[count - 1]


@asynccontextmanager
async def bench(count: int = 2, *, listen: bool = True, **patience: Any) -> AsyncIterator[Bench]:
    """Workers that run; all of them listen if they are to."""
    made = Bench()
    made.workers = Workers(
        count,
        made.launch,
        lambda number: {"policy": made.policy, "for": number},
        made,
        lambda number: made.connections.get(number, 0),
        WorkersPatience(**patience),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.run)
        await wait_all_tasks_blocked()
        if listen:
            for process in list(made.processes):
                await process.listen()
            assert made.is_ready
        yield made
        nursery.cancel_scope.cancel()
    assert not any(process.is_alive for process in made.processes)


# --- the start ------------------------------------------------------------------------------------


@virtually
async def test_ready_is_when_all_listen() -> None:
    async with bench(3, listen=False) as at:
        for process in at.processes[:2]:
            await process.listen()
        await trio.sleep(1)
        assert (at.is_ready, at.workers.listening) == (False, sorted(at.numbers[:2]))
        assert await at.processes[2].listen() == Start(
            at.numbers[2], 3, {"policy": "first", "for": at.numbers[2]}
        )
        assert at.is_ready
        assert at.workers.listening == [1, 2, 3]
        assert sorted(at.numbers) == [1, 2, 3]
        assert {told[3] for told in at.told} == {False}


@virtually
async def test_one_that_cannot_start_at_the_beginning_ends_it_all() -> None:
    async with bench(listen=False) as at:
        await at.processes[0].listen()
        await at.processes[1].hear()
        await at.processes[1].say(Failed("no such callout"))
        at.processes[1].die(1)
        await wait_all_tasks_blocked()
        assert str(at.failure) == f"worker {at.numbers[1]} cannot start: no such callout"
        assert not at.is_ready
        assert not at.processes[0].is_alive


@virtually
async def test_one_that_dies_at_the_beginning_ends_it_all() -> None:
    async with bench(listen=False) as at:
        at.processes[0].die(-11)
        await wait_all_tasks_blocked()
        assert str(at.failure) == f"worker {at.numbers[0]} was killed by signal 11 (SIGSEGV)"


@virtually
async def test_one_that_never_listens_ends_it_all() -> None:
    async with bench(listen=False, start=60.0) as at:
        await at.processes[0].listen()
        await trio.sleep(60.1)
        assert str(at.failure) == f"worker {at.numbers[1]} did not listen within 60 s"


@virtually
async def test_no_process_to_be_had() -> None:
    made = Bench(refusals=[OSError(11, "Resource temporarily unavailable")] * 2)
    made.workers = Workers(2, made.launch, lambda number: {}, made)
    await made.run()
    assert (
        str(made.failure) == "worker 2 cannot be started: resource temporarily unavailable"
        or str(made.failure) == "worker 1 cannot be started: resource temporarily unavailable"
    )


# --- the end of one -------------------------------------------------------------------------------


@virtually
async def test_who_has_listened_for_a_while_is_replaced_at_once() -> None:
    async with bench(stable=10.0) as at:
        await trio.sleep(11)
        at.connections[2] = 17
        before = at.process_of(2)
        before.die(-9)
        after = await at.started(3)
        assert trio.current_time() < 11.1
        assert at.gone == [Gone(2, before.pid, "was killed by signal 9 (SIGKILL)", 17, 0.0)]
        await after.listen()
        assert at.told[-1] == ("listens", 2, after.pid, True)
        assert at.workers.listening == [1, 2]
        assert at.workers.restarts == 1
        assert at.workers.pids == {1: at.process_of(1).pid, 2: after.pid}


@virtually
async def test_who_dies_at_once_again_and_again_waits_longer_and_longer() -> None:
    async with bench(first_delay=0.1, last_delay=10.0) as at:
        for died in range(9):
            at.process_of(1).die(3)
            await (await at.started(3 + died)).listen()
        assert [gone.delay for gone in at.gone] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
        starts = [start for start, number in zip(at.starts, at.numbers, strict=True) if number == 1]
        waited = [later - earlier for earlier, later in pairwise(starts)]
        assert waited == pytest.approx([gone.delay for gone in at.gone], abs=0.05)
        # And once it has lived for long, it is as if nothing had been.
        await trio.sleep(11)
        at.process_of(1).die(3)
        await trio.sleep(0.01)
        assert at.gone[-1].delay == 0.0
        await (await at.started(12)).listen()
        at.process_of(1).die(3)
        await trio.sleep(0.01)
        assert at.gone[-1].delay == 0.1


@virtually
async def test_when_none_can_be_started_any_more_it_is_over() -> None:
    async with bench(starts=3) as at:
        at.policy = "broken meanwhile"
        for process in list(at.processes):
            process.die(1)
        while not at.is_over:
            for process in at.processes:
                process.die(1)
            await trio.sleep(0.05)
        assert str(at.failure).startswith("no worker can be started: worker ")
        assert len(at.starts) <= 2 + 2 * 4


@virtually
async def test_as_long_as_one_works_the_others_are_tried() -> None:
    async with bench(starts=3, last_delay=1.0) as at:
        at.process_of(1).die(1)
        with trio.move_on_after(60):
            while True:
                if at.process_of(1).is_alive:
                    at.process_of(1).die(1)
                await trio.sleep(0.05)
        assert not at.is_over
        assert len(at.starts) > 30
        assert at.workers.listening == [2]
        await (await at.started(len(at.processes) + 1)).listen()
        assert at.workers.listening == [1, 2]


@virtually
async def test_who_says_what_is_no_message_is_not_trusted_any_longer() -> None:
    async with bench(stuck=5.0) as at:
        before = at.process_of(1)
        await before.say_bytes(b"hello\n")
        await (await at.started(3)).listen()
        assert not before.is_alive
        assert at.gone[0].how.startswith("said what is no message: ")


@virtually
async def test_who_closes_the_channel_and_lives_on_is_killed() -> None:
    async with bench(stuck=5.0) as at:
        before = at.process_of(1)
        shut(before._theirs)
        await at.started(3)
        assert not before.is_alive
        assert at.gone[0].how == "did not end in time, and was killed"


# --- asking ---------------------------------------------------------------------------------------


@virtually
async def test_a_question_and_its_answer() -> None:
    async with bench() as at, trio.open_nursery() as nursery:
        found: dict[str, Any] = {}

        async def ask(name: str) -> None:
            found[name] = await at.workers.ask(2, name, {"x": 1})

        nursery.start_soon(ask, "first")
        await wait_all_tasks_blocked()
        nursery.start_soon(ask, "second")
        process = at.process_of(2)
        first, second = await process.hear(), await process.hear()
        assert (first, second) == (Ask(1, "first", {"x": 1}), Ask(2, "second", {"x": 1}))
        # In whatever order they come; nobody asked for the last one.
        await process.say(Answered(2, True, "two"), Answered(9, True))
        await wait_all_tasks_blocked()
        assert found == {"second": "two"}
        await process.say(Answered(1, True, ["one"]))
        await wait_all_tasks_blocked()
        assert found == {"second": "two", "first": ["one"]}


@virtually
async def test_an_answer_that_is_none() -> None:
    async with bench() as at, trio.open_nursery() as nursery:
        errors: dict[str, WorkerError] = {}

        async def ask(name: str) -> None:
            with pytest.raises(WorkerError) as info:
                await at.workers.ask(1, name, timeout=7.0)
            errors[name] = info.value

        nursery.start_soon(ask, "refused")
        message = await at.process_of(1).hear()
        await at.process_of(1).say(Answered(message.id, False, None, "no flow 7", "failed"))
        await wait_all_tasks_blocked()
        assert (errors["refused"].text, errors["refused"].code) == ("no flow 7", "failed")
        began = trio.current_time()
        await ask("silent")
        assert errors["silent"].code == "timeout"
        assert trio.current_time() - began == pytest.approx(7.0)
        nursery.start_soon(ask, "killed")
        await wait_all_tasks_blocked()
        at.process_of(1).die(-9)
        await trio.sleep(0.01)
        assert errors["killed"].code == "gone"
        await ask("not there")
        assert errors["not there"].code == "gone"


@virtually
async def test_all_are_asked_at_once() -> None:
    async with bench(3) as at, trio.open_nursery() as nursery:
        found: dict[int, Any] = {}

        async def ask() -> None:
            found.update(await at.workers.ask_all("stats", timeout=5.0))

        nursery.start_soon(ask)
        for number in (3, 1):
            question = await at.process_of(number).hear()
            await at.process_of(number).say(Answered(question.id, True, number * 10))
        await trio.sleep(5.1)
        assert (found[1], found[3]) == (10, 30)
        assert isinstance(found[2], WorkerError)
        assert found[2].code == "timeout"


@virtually
async def test_what_is_noticed_is_passed_on() -> None:
    async with bench() as at:
        await at.process_of(2).say(Noticed({"violation": "V-5"}))
        await wait_all_tasks_blocked()
        assert at.told[-1] == ("noticed", 2, {"violation": "V-5"})


# --- changes --------------------------------------------------------------------------------------


@virtually
async def test_a_change_waits_for_who_is_starting_and_nobody_starts_meanwhile() -> None:
    async with bench(stable=1.0) as at, trio.open_nursery() as nursery:
        await trio.sleep(2)
        at.process_of(1).die(-9)
        starting = await at.started(3)
        entered, leave = trio.Event(), trio.Event()

        async def change() -> None:
            async with at.workers.settled():
                entered.set()
                at.policy = "second"
                await leave.wait()

        nursery.start_soon(change)
        await trio.sleep(1)
        assert not entered.is_set()
        assert (await starting.listen()).description["policy"] == "first"
        await trio.sleep(1.1)
        assert entered.is_set()
        at.process_of(2).die(-9)
        await trio.sleep(5)
        assert len(at.processes) == 3
        leave.set()
        assert (await (await at.started(4)).listen()).description["policy"] == "second"


@virtually
async def test_a_change_does_not_wait_for_who_is_dead() -> None:
    async with bench(first_delay=1000.0, last_delay=1000.0) as at:
        at.process_of(1).die(-9)
        await trio.sleep(0.1)
        with trio.fail_after(1):
            async with at.workers.settled():
                assert at.workers.listening == [2]


@virtually
async def test_who_is_dismissed_ends_and_is_replaced_at_once() -> None:
    async with bench() as at:
        before = at.process_of(1)
        at.workers.dismiss(1, "was replaced", 30.0)
        at.workers.dismiss(1, "once is enough", 1.0)
        assert await before.hear() == Stop(30.0)
        await before.say(Ended({"x": 1}))
        before.die(0)
        after = await at.started(3)
        await after.listen()
        assert at.gone == [Gone(1, before.pid, "was replaced", 0, 0.0)]
        assert ("ended", 1, {"x": 1}) in at.told


@virtually
async def test_who_is_dismissed_and_does_not_hear_is_killed() -> None:
    async with bench(stuck=5.0) as at:
        before = at.process_of(1)
        began = trio.current_time()
        at.workers.dismiss(1, "was replaced", 30.0)
        await at.started(3)
        assert trio.current_time() - began == pytest.approx(35.0, abs=0.1)
        assert at.gone[0].how == "was replaced, and had to be killed"
        assert not before.is_alive


# --- the end of all -------------------------------------------------------------------------------


@virtually
async def test_a_stop_ends_all() -> None:
    async with bench() as at:
        at.workers.request_stop(3.0)
        for process in at.processes:
            await process.end(n=process.pid)
        await wait_all_tasks_blocked()
        assert at.is_over
        assert at.failure is None
        assert at.gone == []
        assert [told for told in at.told if told[0] == "ended"] == [
            ("ended", number, {"n": process.pid})
            for number, process in zip(at.numbers, at.processes, strict=True)
        ]


@virtually
async def test_a_stop_without_end_to_the_patience() -> None:
    async with bench(1) as at:
        at.workers.request_stop(math.inf)
        assert await at.processes[0].hear() == Stop(None)
        await trio.sleep(1e6)
        assert not at.is_over
        # Asked again, the earlier end counts.
        at.workers.request_stop(2.0)
        assert await at.processes[0].hear() == Stop(2.0)
        await at.processes[0].say(Ended({}))
        at.processes[0].die(0)
        await wait_all_tasks_blocked()
        assert at.is_over


@virtually
async def test_who_is_stuck_at_a_stop_is_killed_and_said() -> None:
    async with bench(stuck=5.0) as at:
        began = trio.current_time()
        at.connections = {at.numbers[1]: 4}
        at.workers.request_stop(3.0)
        await at.processes[0].end()
        while not at.is_over:
            await trio.sleep(0.01)
        assert trio.current_time() - began == pytest.approx(8.0, abs=0.1)
        assert at.failure is None
        assert at.gone == [
            Gone(at.numbers[1], at.processes[1].pid, "did not end in time, and was killed", 4, None)
        ]


@virtually
async def test_who_dies_at_a_stop_is_said_and_not_replaced() -> None:
    async with bench() as at:
        at.workers.request_stop(3.0)
        at.processes[0].die(-11)
        await at.processes[1].end()
        await wait_all_tasks_blocked()
        assert at.is_over
        assert [(gone.how, gone.delay) for gone in at.gone] == [("was killed by signal 11 (SIGSEGV)", None)]
        assert len(at.processes) == 2


@virtually
async def test_a_stop_while_one_is_about_to_be_started_again() -> None:
    async with bench(first_delay=1000.0, last_delay=1000.0) as at:
        at.process_of(1).die(1)
        await trio.sleep(1)
        at.workers.request_stop(3.0)
        await at.process_of(2).end()
        await wait_all_tasks_blocked()
        assert at.is_over
        assert len(at.processes) == 2


@virtually
async def test_a_stop_while_one_is_starting_reaches_it() -> None:
    async with bench(stable=1.0) as at:
        await trio.sleep(2)
        at.process_of(1).die(-9)
        starting = await at.started(3)
        at.workers.request_stop(3.0)
        await at.process_of(2).end()
        await starting.listen()
        await starting.end()
        await wait_all_tasks_blocked()
        assert at.is_over
        assert at.failure is None
