"""Waiting for what happens on the proxy's thread: blocking, or awaited under asyncio or trio.

Owns the two forms of waiting, and the refusal of the one that would block an event loop. It must not know proxies.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from ._thread import deliver

__all__ = ["Waiters", "await_future", "refuse_on_loop", "refuse_virtual_time"]

T = TypeVar("T")


class Waiters:
    """Who waits for what on the proxy's thread; only used there.

    A question is asked again whenever something has happened; its answer is anything but None.
    """

    def __init__(self) -> None:
        self._questions: dict[Future[Any], Callable[[], Any]] = {}

    def add(self, question: Callable[[], T | None], future: Future[T]) -> None:
        """Settle `future` with the answer as soon as there is one; cancelling it takes the question back."""
        if not self._settles(future, question):
            self._questions[future] = question

    def ask(self) -> None:
        """Something has happened."""
        for future, question in list(self._questions.items()):
            if self._settles(future, question):
                del self._questions[future]

    def _settles(self, future: Future[T], question: Callable[[], T | None]) -> bool:
        answer = None if future.done() else question()
        if answer is not None:
            deliver(future, answer)
        return future.done()


def running_loop() -> str | None:
    """Whose event loop runs on this thread, "trio" or "asyncio"; None without one. Imports neither."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return "trio"
    events = sys.modules.get("asyncio.events")
    if events is not None and events._get_running_loop() is not None:
        return "asyncio"
    return None


def refuse_on_loop(name: str) -> None:
    """Raise RuntimeError if `name()`, which blocks, would keep an event loop from running."""
    loop = running_loop()
    if loop is not None:
        raise RuntimeError(
            f"{name}() would block this thread's {loop} event loop; here write: await proxy.{name}_async(...)"
        )


def refuse_virtual_time() -> None:
    """Raise RuntimeError on a thread whose trio loop has a clock of its own: real sockets know nothing of it."""
    trio_testing = sys.modules.get("trio.testing")
    if trio_testing is None or running_loop() != "trio":
        return
    if isinstance(sys.modules["trio"].lowlevel.current_clock(), trio_testing.MockClock):
        raise RuntimeError(
            "wfp_proxy has real sockets, and this test's trio loop a MockClock, whose time passes without them: leave "
            "mock_clock or autojump_clock out, or use wfp_pair with wfp_clock, where all time is virtual"
        )


async def await_future(future: Future[T], timeout: float) -> T:
    """The future's result, awaited under asyncio or trio; it is cancelled when nobody waits for it any more.

    Raises:
        TimeoutError: `timeout` seconds have passed.
    """
    loop = running_loop()
    if loop is None:
        raise RuntimeError(
            "the ..._async methods need asyncio or trio; without an event loop use the plain ones"
        )
    refuse_virtual_time()
    try:
        return await (_await_in_trio if loop == "trio" else _await_in_asyncio)(future, timeout)
    except CancelledError:
        raise TimeoutError from None
    finally:
        future.cancel()


async def _await_in_trio(future: Future[T], timeout: float) -> T:
    import trio

    done = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def wake(_: object) -> None:
        try:
            token.run_sync_soon(done.set)
        except trio.RunFinishedError:
            pass  # whoever waited is gone, and its loop with it

    future.add_done_callback(wake)
    with trio.move_on_after(timeout):
        await done.wait()
    if not future.done():
        raise TimeoutError
    return future.result()


async def _await_in_asyncio(future: Future[T], timeout: float) -> T:
    import asyncio

    return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
