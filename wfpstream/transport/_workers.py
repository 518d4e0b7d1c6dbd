"""The parent of workers: starts them, hears of their end, starts them again, stops them, asks them.

Owns how many live and what is done when one dies. It must not know what a worker is told to run, nor what commands
mean; where they listen is `_workers_addresses`'.
"""

from __future__ import annotations

import math
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import trio

from ._workers_protocol import (
    Answered,
    Ask,
    Ended,
    Failed,
    FromWorker,
    Noticed,
    ProtocolError,
    Start,
    Stop,
    ToWorker,
    encode,
    from_worker,
)

__all__ = ["Gone", "Process", "Told", "WorkerError", "Workers", "WorkersFailed", "WorkersPatience"]


class Process(Protocol):
    """What a worker is to its parent; `WorkerProcess` is one."""

    pid: int

    async def send(self, data: bytes) -> None: ...
    async def receive(self) -> bytes: ...
    async def wait(self) -> int: ...
    def kill(self) -> None: ...
    def close(self) -> None: ...


class WorkersFailed(Exception):
    """There are no workers to go on with; one line."""


class WorkerError(Exception):
    """A worker did not do what it was asked.

    Args:
        text: why, a line or several.
        code: the worker's own, or "gone" or "timeout".
    """

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


@dataclass(frozen=True)
class WorkersPatience:
    """Times in seconds.

    Attributes:
        start: from its start until a worker listens.
        stable: who has listened for so long did not die at once.
        first_delay, last_delay: before the next start of one that dies again and again at once.
        starts: so many starts in vain, of every worker, and the run is over.
        stuck: how much longer than it was given a worker may take to end.
    """

    start: float = 60.0
    stable: float = 10.0
    first_delay: float = 0.1
    last_delay: float = 10.0
    starts: int = 4
    stuck: float = 5.0


@dataclass(frozen=True)
class Gone:
    """The end of a worker that was not asked for.

    Attributes:
        number, pid: which one.
        how: what happened, to be read behind "worker 2 (pid 7)".
        connections: how many it had: the kernel has reset them.
        delay: seconds until another one is started in its place; None when none will be.
    """

    number: int
    pid: int
    how: str
    connections: int
    delay: float | None


class Told(Protocol):
    """Who is told what happens."""

    def worker_listens(self, number: int, pid: int, is_again: bool) -> None: ...
    def worker_gone(self, gone: Gone) -> None: ...
    def worker_noticed(self, number: int, what: dict[str, Any]) -> None: ...
    def worker_ended(self, number: int, summary: dict[str, Any]) -> None: ...


@dataclass
class _Question:
    answer: Answered | None = None
    done: trio.Event = field(default_factory=trio.Event)


class _Slot:
    """The place of one worker, whichever process is in it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: Process | None = None
        self.is_listening = False
        self.has_ended = False
        # From then on its end is no sudden one.
        self.stable_at = math.inf
        self.error = ""
        # Why it was told to end while the others go on; empty: it was not.
        self.dismissed = ""
        self.starts = 0
        self.failed_starts = 0
        self.quick_deaths = 0
        self._questions: dict[int, _Question] = {}
        self._ids = 0
        self._outbox = bytearray()
        self._has_outbox = trio.Event()

    def begin(self, process: Process) -> None:
        """Another process is in it."""
        self.process = process
        self.is_listening = self.has_ended = False
        self.stable_at = math.inf
        self.error = self.dismissed = ""
        self.starts += 1
        self._outbox.clear()

    def end(self) -> None:
        """It is empty; nobody will answer any more."""
        self.process = None
        self.is_listening = False
        questions, self._questions = self._questions, {}
        for question in questions.values():
            question.done.set()

    def send(self, message: ToWorker) -> None:
        """It goes out when the worker reads."""
        self._outbox += encode(message)
        self._has_outbox.set()

    async def write(self, process: Process) -> None:
        """A task."""
        while True:
            await self._has_outbox.wait()
            self._has_outbox = trio.Event()
            data, self._outbox = bytes(self._outbox), bytearray()
            try:
                await process.send(data)
            except trio.BrokenResourceError:
                return  # reading tells

    def ask(self, command: str, arguments: Mapping[str, Any]) -> tuple[int, _Question]:
        """Send a question."""
        self._ids += 1
        question = self._questions[self._ids] = _Question()
        self.send(Ask(self._ids, command, dict(arguments)))
        return self._ids, question

    def forget(self, number: int) -> None:
        """Nobody waits for that answer any more."""
        self._questions.pop(number, None)

    def answered(self, answer: Answered) -> None:
        """An answer has come."""
        question = self._questions.pop(answer.id, None)
        if question is not None:
            question.answer = answer
            question.done.set()


class Workers:
    """`count` processes, each a worker.

    Args:
        count: how many.
        launch: starts the process of worker `number`; OSError: it cannot be started.
        describe: what worker `number` is to run, asked for at each start.
        told: who is told what happens.
        connections: how many connections worker `number` has, asked for when it has gone.
        patience: times.
    """

    def __init__(
        self,
        count: int,
        launch: Callable[[int], Process],
        describe: Callable[[int], dict[str, Any]],
        told: Told,
        connections: Callable[[int], int] = lambda number: 0,
        patience: WorkersPatience | None = None,
    ) -> None:
        self.count = count
        self._launch = launch
        self._describe = describe
        self._told = told
        self._connections = connections
        self._patience = patience or WorkersPatience()
        self._slots = [_Slot(number) for number in range(1, count + 1)]
        self._changed = trio.lowlevel.ParkingLot()
        self._starting = 0
        self._is_changing = False
        self._is_ready = False
        self._failure: str | None = None
        self._stop_asked = trio.Event()
        self._grace = math.inf
        self._deadline = math.inf
        self._patient = trio.CancelScope()
        self._nursery: trio.Nursery
        self._scope = trio.CancelScope()

    # --- who there is ---

    @property
    def listening(self) -> list[int]:
        """The numbers of the workers that can be asked."""
        return [slot.number for slot in self._slots if slot.is_listening]

    @property
    def pids(self) -> dict[int, int]:
        """By number, those that have a process."""
        return {slot.number: slot.process.pid for slot in self._slots if slot.process is not None}

    @property
    def restarts(self) -> int:
        """How many processes were started beyond the first of each."""
        return sum(max(slot.starts - 1, 0) for slot in self._slots)

    # --- asking ---

    async def ask(
        self,
        number: int,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        timeout: float = 30.0,
    ) -> Any:
        """What worker `number` answers.

        Raises:
            WorkerError: an error; or it is not there, or ended, or said nothing for `timeout` seconds.
        """
        slot = self._slots[number - 1]
        if not slot.is_listening:
            raise WorkerError(f"worker {number} is not there at present", "gone")
        question_id, question = slot.ask(command, arguments or {})
        with trio.move_on_after(timeout) as scope:
            await question.done.wait()
        if scope.cancelled_caught and question.answer is None:
            slot.forget(question_id)
            raise WorkerError(f"worker {number} did not answer within {timeout:g} s", "timeout")
        answer = question.answer
        if answer is None:
            raise WorkerError(f"worker {number} ended before it answered", "gone")
        if not answer.ok:
            raise WorkerError(answer.error, answer.code)
        return answer.result

    async def ask_all(
        self, command: str, arguments: Mapping[str, Any] | None = None, timeout: float = 30.0
    ) -> dict[int, Any]:
        """What every worker that is there answers, by number; a `WorkerError` for one that does not."""
        answers: dict[int, Any] = dict.fromkeys(self.listening)

        async def ask_one(number: int) -> None:
            try:
                answers[number] = await self.ask(number, command, arguments, timeout)
            except WorkerError as error:
                answers[number] = error

        async with trio.open_nursery() as nursery:
            for number in answers:
                nursery.start_soon(ask_one, number)
        return answers

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[None]:
        """While what workers are to run is changed: none of them is just starting, and none is started."""
        while self._is_changing or self._starting:
            await self._changed.park()
        self._is_changing = True
        try:
            yield
        finally:
            self._is_changing = False
            self._changed.unpark_all()

    def dismiss(self, number: int, why: str, grace: float) -> None:
        """Let worker `number` end, its flows within `grace` seconds, and start another one in its place."""
        slot = self._slots[number - 1]
        if slot.process is not None and not slot.dismissed:
            slot.dismissed = why
            slot.send(Stop(grace if grace < math.inf else None))
            self._nursery.start_soon(self._kill_late, slot, slot.process, grace + self._patience.stuck)

    async def _kill_late(self, slot: _Slot, process: Process, seconds: float) -> None:
        """It may be stuck, and not even read that it is to end."""
        with trio.move_on_after(seconds):
            await self._stop_asked.wait()
            return
        if slot.process is process:
            slot.error = f"{slot.dismissed}, and had to be killed"
            process.kill()

    # --- the end ---

    def request_stop(self, grace: float = math.inf) -> None:
        """Let all workers end, their flows within `grace` seconds; asked again, the earlier end counts."""
        self._grace = min(self._grace, grace)
        end = trio.current_time() + grace + self._patience.stuck
        self._deadline = self._patient.deadline = min(self._deadline, end)
        for slot in self._slots:
            if slot.process is not None:
                slot.send(Stop(grace if grace < math.inf else None))
        self._stop_asked.set()
        self._changed.unpark_all()

    # --- running ---

    async def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Keep them running until they were stopped.

        Args:
            ready: called when all listen.

        Raises:
            WorkersFailed: one could not start at the beginning, or later none could.
        """
        with self._scope, trio.CancelScope(deadline=self._deadline) as self._patient:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for slot in self._slots:
                    nursery.start_soon(self._keep, slot)
                while len(self.listening) < self.count and not self._is_over():
                    await self._changed.park()
                if not self._is_over():
                    self._is_ready = True
                    ready()
        if self._failure is not None:
            raise WorkersFailed(self._failure)

    def _is_over(self) -> bool:
        return self._failure is not None or self._stop_asked.is_set()

    def _fail(self, why: str) -> None:
        if self._failure is None:
            self._failure = why
        self._scope.cancel()

    async def _keep(self, slot: _Slot) -> None:
        """A worker, and the next one, until they are stopped."""
        while not self._is_over():
            await self._wait_for_start()
            if self._is_over():
                return
            pid, how = await self._live(slot)
            self._changed.unpark_all()
            if self._stop_asked.is_set() or self._failure is not None:
                return
            delay = self._delay(slot)
            if not self._is_ready:
                self._fail(f"worker {slot.number} {how}")
                return
            if not self.listening and all(one.failed_starts >= self._patience.starts for one in self._slots):
                self._fail(f"no worker can be started: worker {slot.number} {how}")
                return
            self._tell_gone(slot, pid, how, delay)
            with trio.move_on_after(delay):
                await self._stop_asked.wait()

    def _tell_gone(self, slot: _Slot, pid: int, how: str, delay: float | None) -> None:
        self._told.worker_gone(Gone(slot.number, pid, how, self._connections(slot.number), delay))

    async def _wait_for_start(self) -> None:
        while self._is_changing and not self._is_over():
            await self._changed.park()

    def _delay(self, slot: _Slot) -> float:
        """Who has worked for a while, or was told to end, is replaced at once."""
        if slot.dismissed or trio.current_time() >= slot.stable_at:
            slot.quick_deaths = 0
            return 0.0
        slot.quick_deaths += 1
        longer = self._patience.first_delay * 2.0 ** (slot.quick_deaths - 1)
        return min(longer, self._patience.last_delay)

    async def _live(self, slot: _Slot) -> tuple[int, str]:
        """One process from its start to its end; its pid, and how it ended."""
        self._starting += 1
        try:
            process = self._launch(slot.number)
        except OSError as error:
            self._started()
            slot.failed_starts += 1
            return 0, f"cannot be started: {(error.strerror or str(error)).lower()}"
        slot.begin(process)
        code: int | None = None
        try:
            slot.send(Start(slot.number, self.count, self._describe(slot.number)))
            await self._converse(slot, process)
            with trio.move_on_after(self._patience.stuck):
                code = await process.wait()
        finally:
            ended_with = await self._bury(slot, process, code)
        return process.pid, _how(slot, ended_with)

    def _started(self) -> None:
        """It listens, or never will."""
        self._starting -= 1
        self._changed.unpark_all()

    async def _bury(self, slot: _Slot, process: Process, code: int | None) -> int:
        if not slot.is_listening:
            self._started()
            slot.failed_starts += 1
        slot.end()
        process.close()
        if code is None:
            slot.error = slot.error or "did not end in time, and was killed"
            process.kill()
            code = await _wait_shielded(process)
        if self._stop_asked.is_set() and not slot.has_ended:
            self._tell_gone(slot, process.pid, _how(slot, code), None)
        return code

    async def _converse(self, slot: _Slot, process: Process) -> None:
        """Hear what it says, to the end."""
        lines = from_worker()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(slot.write, process)
            nursery.start_soon(self._limit_start, slot, process)
            try:
                while data := await process.receive():
                    for message in lines.feed(data):
                        self._hear(slot, process, message)
            except trio.BrokenResourceError:
                pass  # it was killed with something unread
            except ProtocolError as error:
                slot.error = f"said what is no message: {error}"
            nursery.cancel_scope.cancel()

    async def _limit_start(self, slot: _Slot, process: Process) -> None:
        await trio.sleep(self._patience.start)
        if not slot.is_listening:
            slot.error = f"did not listen within {self._patience.start:g} s"
            process.kill()

    def _hear(self, slot: _Slot, process: Process, message: FromWorker) -> None:
        if isinstance(message, Answered):
            slot.answered(message)
        elif isinstance(message, Noticed):
            self._told.worker_noticed(slot.number, message.what)
        elif isinstance(message, Ended):
            slot.has_ended = True
            self._told.worker_ended(slot.number, message.summary)
        elif isinstance(message, Failed):
            slot.error = f"cannot start: {message.error}"
        elif not slot.is_listening:
            slot.is_listening = True
            slot.stable_at = trio.current_time() + self._patience.stable
            slot.failed_starts = 0
            self._started()
            self._told.worker_listens(slot.number, process.pid, slot.starts > 1)


async def _wait_shielded(process: Process) -> int:
    codes = []
    with trio.CancelScope(shield=True):
        codes.append(await process.wait())
    return codes[0]


def _how(slot: _Slot, code: int) -> str:
    if slot.error:
        return slot.error
    if slot.dismissed and slot.has_ended:
        return slot.dismissed
    if code < 0:
        return f"was killed by signal {-code} ({_signal_name(-code)})"
    return f"ended with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
