"""Calls from other threads: queued, run on the engine's thread, only the foreign thread waits (IRQ-6, DEF-7).

Owns the hand-over. It must not know an event loop: the driver supplies `run_soon`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

Follow = Callable[[T, Callable[[T], None]], None]
RunSoon = Callable[[Callable[[], None]], None]


class Bridge:
    """One engine's door for foreign threads."""

    def __init__(self) -> None:
        self.run_soon: RunSoon | None = None
        self._thread = threading.get_ident()

    def adopt(self) -> None:
        """The calling thread is the engine's from now on."""
        self._thread = threading.get_ident()

    def soon(self, fn: Callable[[], None]) -> None:
        """Run `fn` on the engine's thread, without waiting for it."""
        if self.run_soon is not None:
            self.run_soon(fn)

    def call(self, fn: Callable[..., T], args: tuple[Any, ...], follow: Follow[T] | None = None) -> T:
        """Run `fn(*args)` on the engine's thread and return its result.

        `follow` is the waiting form of a call that answers PENDING: it is given the first answer and a function
        to call with the final one. Raises RuntimeError when the driver offers no way in, or when it is called on
        the engine's own thread.
        """
        if self.run_soon is None:
            raise RuntimeError("this engine's driver takes no calls from other threads")
        if threading.get_ident() == self._thread:
            raise RuntimeError("from_thread is for other threads; call the function directly")
        answered = threading.Event()
        result: list[T] = []
        errors: list[BaseException] = []

        def deliver(value: T) -> None:
            result.append(value)
            answered.set()

        def run() -> None:
            try:
                value = fn(*args)
                (follow or _at_once)(value, deliver)
            except BaseException as error:  # handed to the caller, who waits for it
                errors.append(error)
                answered.set()

        self.run_soon(run)
        answered.wait()
        if errors:
            raise errors[0]
        return result[0]


def _at_once(value: T, deliver: Callable[[T], None]) -> None:
    deliver(value)
