"""A thread with a trio loop of its own, and the way into it from any other thread, with or without an event loop.

Owns hand-over, the end of the thread, and what a thread that hangs does to those who wait for it. It must not know
proxies or engines.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, TypeVar

import trio

from ._watchdog import Watchdog, describe_hang

__all__ = ["ProxyClosed", "ProxyHung", "ProxyThread"]

T = TypeVar("T")

# How soon whoever waits for the end learns that it has hung instead.
_LOOK_AGAIN = 0.1


class ProxyClosed(RuntimeError):
    """The proxy does not run any more."""


class ProxyHung(RuntimeError):
    """The proxy's thread does not answer; the text says where it is stuck."""


class ProxyThread:
    """One daemon thread: a callout that hangs keeps neither the test session nor the interpreter from ending.

    Args:
        name: what the thread is called.
        patience: seconds after which a thread that does not answer counts as hung; 0: never.
        on_hang: called then, on the watchdog's thread.

    Attributes:
        hung: the report, once it has hung.
        crash: what ended the loop, if that was an error.
    """

    def __init__(self, name: str, patience: float, on_hang: Callable[[], object]) -> None:
        self.hung: str | None = None
        self.crash: BaseException | None = None
        self._on_hang = on_hang
        self._patience = patience
        self._pid = os.getpid()
        self._watchdog: Watchdog | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._lock = threading.Lock()
        self._waiting: set[Future[Any]] = set()
        self._ended = threading.Event()
        if patience:
            self._watchdog = Watchdog(self._knock, self._hangs, patience, self._ended)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._main: Callable[[Callable[[Any], None]], Awaitable[None]]
        self._ready: Future[Any] = Future()

    def start(self, main: Callable[[Callable[[T], None]], Awaitable[None]]) -> T:
        """Run `main(ready)` on the thread until it returns. Returns what `ready` was given.

        Raises:
            BaseException: what `main` raised before it was ready.
            ProxyHung: it hung before it was ready.
        """
        self._main = main
        self._waiting.add(self._ready)
        self._ready.add_done_callback(self._settled)
        self._thread.start()
        try:
            value: T = self._ready.result()
        except Exception:
            self.join()  # it ends by itself, or has hung
            raise
        return value

    @property
    def is_alive(self) -> bool:
        """It runs, and it has not hung."""
        return self._thread.is_alive() and not self._ended.is_set() and self.hung is None

    @property
    def is_current(self) -> bool:
        """We are on it."""
        return threading.get_ident() == self._thread.ident

    def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run `fn(*args)` there, and return its result.

        Raises:
            ProxyClosed: it has ended.
            ProxyHung: it does not answer.
            RuntimeError: this is that thread.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                value = fn(*args)
            except BaseException as error:  # the caller's, who waits for it
                self._fail(future, error)
            else:
                deliver(future, value)

        self.send(future, run)
        return self.result(future)

    def run(self, async_fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run `async_fn(*args)` there, and return its result. Raises as `call`."""
        return self.result(self.begin(async_fn, *args))

    def begin(self, async_fn: Callable[..., Awaitable[T]], *args: Any) -> Future[T]:
        """Start `async_fn(*args)` there; cancelling the future cancels it. Raises as `call`."""
        future: Future[T] = Future()

        async def task() -> None:
            with trio.CancelScope() as scope:
                future.add_done_callback(lambda _: self._soon(scope.cancel))
                try:
                    value = await async_fn(*args)
                except Exception as error:
                    self._fail(future, error)
                except BaseException:
                    self._fail(future, ProxyClosed("the proxy was closed meanwhile"))
                    raise
                else:
                    deliver(future, value)

        self.send(future, lambda: trio.lowlevel.spawn_system_task(task))
        return future

    def send(self, future: Future[Any], fn: Callable[[], object]) -> None:
        """Run `fn` there soon; it, or the end of the thread, settles `future`. Raises as `call`."""
        if self.is_current:
            raise RuntimeError(
                "this is the proxy's own thread: a callout acts through self.fwps, and must not wait (IRQ-1)"
            )
        if os.getpid() != self._pid:
            raise RuntimeError(
                "the proxy runs in the process that started it, not in this fork of it; ask it there"
            )
        with self._lock:
            self._check()
            self._waiting.add(future)
        future.add_done_callback(self._settled)
        if not self._soon(fn):
            self._fail(future, ProxyClosed("the proxy has been closed"))

    def result(self, future: Future[T], timeout: float | None = None) -> T:
        """Wait for it, at most `timeout` seconds. Raises TimeoutError."""
        return future.result(timeout)

    def join(self) -> bool:
        """Wait until the loop has ended, however long that takes, or has hung; whether it has ended."""
        while self.hung is None and not self._ended.wait(_LOOK_AGAIN):
            pass
        if self.hung is not None:
            return False
        self._thread.join()
        if self._watchdog is not None:
            self._watchdog.end()
        return True

    # -- inside

    def _check(self) -> None:
        if self.hung is not None:
            raise ProxyHung(self.hung)
        if self._ended.is_set():
            why = f": {type(self.crash).__name__}: {self.crash}" if self.crash is not None else ""
            raise ProxyClosed(f"the proxy has been closed{why}") from self.crash

    def _soon(self, fn: Callable[[], object]) -> bool:
        try:
            assert self._token is not None
            self._token.run_sync_soon(fn)
        except trio.RunFinishedError:
            return False
        return True

    def _settled(self, future: Future[Any]) -> None:
        with self._lock:
            self._waiting.discard(future)

    def _fail(self, future: Future[Any], error: BaseException) -> None:
        with suppress(InvalidStateError):
            future.set_exception(error)

    def _run(self) -> None:
        try:
            trio.run(self._loop)
        except BaseException as error:  # nobody else would hear of it but the thread's except hook
            self.crash = error
            self._fail(self._ready, error)
        finally:
            self._give_up(ProxyClosed("the proxy has been closed"), self._ended)

    async def _loop(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        if self._watchdog is not None:
            self._watchdog.start()  # from here on: a callout may hang while it is being added
        await self._main(self._is_ready)

    def _is_ready(self, value: object) -> None:
        deliver(self._ready, value)

    def _give_up(self, error: Exception, flag: threading.Event | None = None) -> None:
        """Nobody waits any more."""
        with self._lock:
            if flag is not None:
                flag.set()
            waiting = list(self._waiting)
        for future in waiting:
            self._fail(future, error)

    # -- the watchdog's

    def _knock(self, answer: Callable[[], object]) -> bool:
        return self._soon(answer)

    def _hangs(self) -> None:
        report = describe_hang(self._thread.ident or 0, self._patience)
        with self._lock:
            self.hung = report
        try:
            self._on_hang()
        finally:
            self._give_up(ProxyHung(report))


def deliver(future: Future[T], value: T) -> None:
    """Give `future` its result, unless nobody waits for it any more."""
    with suppress(InvalidStateError):
        future.set_result(value)
