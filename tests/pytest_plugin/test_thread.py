"""A thread with a trio loop: the way in, the way out, and what becomes of those who wait when it ends."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import trio

from wfpstream.pytest_plugin import _watchdog
from wfpstream.pytest_plugin._thread import ProxyClosed, ProxyHung, ProxyThread
from wfpstream.pytest_plugin._watchdog import Watchdog, waited_for_processor


class Running:
    """A thread whose loop runs until it is told how to end."""

    def __init__(self, patience: float = 10.0) -> None:
        self.hangs = threading.Event()
        self.thread = ProxyThread("under test", patience, self.hangs.set)
        self._error: Exception | None = None
        self._stop: trio.Event = self.thread.start(self.main)

    async def main(self, ready: Callable[[trio.Event], None]) -> None:
        stop = trio.Event()
        ready(stop)
        await stop.wait()
        if self._error is not None:
            raise self._error

    def end(self, error: Exception | None = None) -> bool:
        self._error = error
        try:
            self.thread.call(self._stop.set)
        except (ProxyClosed, ProxyHung):
            pass
        return self.thread.join()


@pytest.fixture
def running() -> Iterator[Running]:
    run = Running()
    yield run
    assert run.end()


async def never() -> None:
    await trio.sleep_forever()


def test_calls_run_there_and_come_back(running: Running) -> None:
    thread = running.thread
    assert thread.call(threading.get_ident) != threading.get_ident()
    assert thread.call(divmod, 7, 2) == (3, 1)
    assert thread.is_alive
    assert not thread.is_current
    assert thread.call(lambda: thread.is_current)


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), KeyError("x"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_call_raises_is_the_callers(running: Running, error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        running.thread.call(fail)
    assert running.thread.call(int) == 0


def test_async_functions_too(running: Running) -> None:
    async def double(number: int) -> int:
        await trio.sleep(0)
        if number < 0:
            raise ValueError("negative")
        return 2 * number

    assert running.thread.run(double, 4) == 8
    with pytest.raises(ValueError, match="negative"):
        running.thread.run(double, -1)


def test_cancelling_the_future_cancels_the_task(running: Running) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def task() -> None:
        try:
            begun.set()
            await never()
        finally:
            cancelled.set()

    future = running.thread.begin(task)
    assert begun.wait(30)
    future.cancel()
    assert cancelled.wait(30)


def test_whoever_waits_when_it_ends_is_told(running: Running) -> None:
    waiting: Future[Any] = running.thread.begin(never)
    asked: Future[Any] = Future()
    running.thread.send(asked, lambda: None)
    assert running.end()
    for future in (waiting, asked):
        with pytest.raises(ProxyClosed):
            future.result(30)
    with pytest.raises(ProxyClosed):
        running.thread.call(int)
    assert not running.thread.is_alive


def test_an_error_ends_it_and_is_kept(running: Running) -> None:
    waiting = running.thread.begin(never)
    assert running.end(ZeroDivisionError("a defect"))
    assert isinstance(running.thread.crash, ZeroDivisionError)
    with pytest.raises(ProxyClosed):
        waiting.result(30)
    with pytest.raises(ProxyClosed, match="ZeroDivisionError: a defect") as caught:
        running.thread.call(int)
    assert caught.value.__cause__ is running.thread.crash


@pytest.mark.parametrize("error", [OSError("cannot listen"), ValueError("no such layer")])
def test_an_error_before_it_is_ready_is_the_starters(error: Exception) -> None:
    async def main(ready: Callable[[None], None]) -> None:
        raise error

    before = threading.active_count()
    thread = ProxyThread("under test", 10, lambda: None)
    with pytest.raises(type(error), match=str(error)):
        thread.start(main)
    assert thread.join()
    assert threading.active_count() <= before


def test_ending_twice_is_ending_once(running: Running) -> None:
    assert running.end()
    assert running.thread.join()


def stuck(release: threading.Event) -> None:
    release.wait(60)


def test_a_hang_is_noticed_and_told_to_all() -> None:
    run = Running(patience=0.2)
    release = threading.Event()
    waiting = run.thread.begin(never)
    stuck_call: Future[Any] = Future()
    run.thread.send(stuck_call, lambda: stuck(release))
    assert run.hangs.wait(100)
    for future in (waiting, stuck_call):
        with pytest.raises(ProxyHung, match=r"has kept the proxy's thread for 0.2 s"):
            future.result(30)
    with pytest.raises(ProxyHung):
        run.thread.call(int)
    assert not run.thread.is_alive
    assert not run.thread.join()
    release.set()


def test_time_in_which_the_process_has_to_wait_counts_little() -> None:
    """On a machine that has other things to do a thread that is slow has not hung, and one that has is still found."""
    looks: list[float] = []

    def waited(share: float) -> float:
        looks.append(share * 0.01)
        return sum(looks)

    def knocks(share: float) -> int:
        """So many it takes until a thread that never answers has hung; a knock is 0.01 s."""
        looks.clear()
        hung = threading.Event()
        watchdog = Watchdog(lambda answer: True, hung.set, 0.2, threading.Event(), lambda: waited(share))
        watchdog.start()
        assert hung.wait(100)
        watchdog.end()
        return len(looks) - 1

    assert knocks(0.0) == 20
    assert knocks(0.5) == 40
    assert knocks(3.0) == 400


def test_how_long_a_process_has_waited_is_the_sum_of_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second number of Linux' schedstat, nanoseconds; elsewhere nothing is known of it."""
    monkeypatch.setattr(_watchdog, "_THREADS", tmp_path)
    assert waited_for_processor() == 0
    for name, text in (("1", "7 1500000000 3\n"), ("2", "9 250000000 1\n"), ("3", ""), ("4", None)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "schedstat").write_text(text)
    assert waited_for_processor() == 1.75
    monkeypatch.setattr(_watchdog, "_THREADS", tmp_path / "none")
    assert waited_for_processor() == 0


def test_without_patience_nobody_watches() -> None:
    run = Running(patience=0)
    release = threading.Event()
    threading.Timer(0.5, release.set).start()
    run.thread.call(stuck, release)
    assert run.thread.hung is None
    assert run.end()


def test_from_many_threads(running: Running) -> None:
    counted: list[int] = []

    def call(fn: Callable[..., Any] = running.thread.call) -> None:
        for _ in range(100):
            fn(counted.append, 1)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counted) == 800


def test_from_its_own_thread_it_is_refused(running: Running) -> None:
    async def nested() -> Awaitable[int]:
        raise AssertionError("not reached")

    for call in (running.thread.call, running.thread.run, running.thread.begin):
        with pytest.raises(RuntimeError, match="the proxy's own thread"):
            running.thread.call(call, nested)
