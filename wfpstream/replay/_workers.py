"""Worker processes behind the standard executor interface, each of which may die alone.

Owns processes and pipes. `ProcessPoolExecutor` is not used because the death of one of its workers fails everything
that waits or runs, and does not tell whose fault it was. It must not know what the work is.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class WorkerDied(Exception):
    """The process that did the work ended before the work did."""


class WorkerProcesses(Executor):
    """Runs calls in processes of their own memory; functions, arguments and answers are pickled.

    A process is started (by `spawn`: nothing of ours is inherited) when there is work for it, serves one call after
    the other, and is replaced after its death, which is that call's `WorkerDied` and nobody else's. Workers ignore
    SIGINT: who is interrupted is the one that waits for them, and he calls `stop`.

    Args:
        count: how many there are at most.
    """

    def __init__(self, count: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="wfpstream-worker")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._stopped = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As `Executor.submit`."""
        return self._threads.submit(self._call, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `Executor.shutdown`; the processes end when there is nothing more to do."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            with self._lock:
                workers, self._workers = self._workers, []
            for worker in workers:
                worker.end()

    def stop(self) -> None:
        """End everything now, whatever is under way."""
        with self._lock:
            self._stopped = True
            for worker in self._workers:
                worker.kill()
        self.shutdown(cancel_futures=True)

    def _call(self, fn: Callable[..., T], args: Any, kwargs: Any) -> T:
        worker: _Worker | None = getattr(self._own, "worker", None)
        if worker is None:
            worker = self._own.worker = self._start()
        try:
            answer: T = worker.call(fn, args, kwargs)
        except WorkerDied:
            self._own.worker = None
            with self._lock:
                if worker in self._workers:
                    self._workers.remove(worker)
            raise
        return answer

    def _start(self) -> _Worker:
        with self._lock:
            if self._stopped:
                raise WorkerDied("stopped")
            worker = _Worker(self._context)
            self._workers.append(worker)
        return worker


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, context: multiprocessing.context.SpawnContext) -> None:
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            self._pipe.send((fn, args, kwargs))
            done, answer = self._pipe.recv()
        except (EOFError, OSError):
            self.end()
            raise WorkerDied(self._last_words()) from None
        if not done:
            raise answer
        return answer

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """No more calls; wait for the process."""
        self._pipe.close()
        self._process.join()

    def _last_words(self) -> str:
        code = self._process.exitcode or 0
        if code >= 0:
            return f"its worker process ended with exit code {code}"
        try:
            return f"its worker process was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"its worker process was killed by signal {-code}"


def _serve(pipe: Connection) -> None:
    """What a worker process does: one call after the other, until nobody calls any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What a callout prints must not come between the lines of whoever reads our standard output.
    sys.stdout = sys.stderr
    while True:
        try:
            fn, args, kwargs = pipe.recv()
            answer: tuple[bool, Any] = True, fn(*args, **kwargs)
        except EOFError:
            return
        except Exception as error:
            answer = False, error
        _answer(pipe, answer)


def _answer(pipe: Connection, answer: tuple[bool, Any]) -> None:
    try:
        pipe.send(answer)
    except BrokenPipeError:
        return
    except Exception as error:  # it cannot be pickled
        pipe.send((False, RuntimeError(f"{type(error).__name__}: {error}")))
