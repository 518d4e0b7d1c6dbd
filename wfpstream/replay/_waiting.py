"""Results that come in the order in which streams end, handed on in the order in which they began.

Owns what has to wait for that: a bounded number in memory, the rest in a file without a name. It must not know what a
result says, nor who wants it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from tempfile import TemporaryFile
from typing import BinaryIO

from ._results import StreamResult

_IN_MEMORY = 4096


class Waiting:
    """Puts results in order. Every result is handed on once: by `add` when it is its turn, the rest by `finish`.

    Args:
        take: gets the results in order.
        follows: the numbers are 0, 1, 2, ...: whose turn has come is then known before the end.
        in_memory: so many wait in memory, at most.
    """

    def __init__(
        self, take: Callable[[StreamResult], None], *, follows: bool, in_memory: int = _IN_MEMORY
    ) -> None:
        self._take = take
        self._next = 0 if follows else -1
        self._in_memory = in_memory
        self._held: dict[int, StreamResult] = {}
        self._spilled: dict[int, int] = {}
        self._file: BinaryIO | None = None

    def add(self, result: StreamResult) -> None:
        """A stream has its result.

        Raises:
            OSError: there is no room for what waits.
        """
        number = result.stream
        if number != self._next:
            self._keep(number, result)
            return
        self._take(result)
        self._next += 1
        while self._next in self._held or self._next in self._spilled:
            self._take(self._fetch(self._next))
            self._next += 1

    def finish(self) -> None:
        """No more comes: hand on what is left."""
        try:
            for number in sorted([*self._held, *self._spilled]):
                self._take(self._fetch(number))
        finally:
            self.close()

    def close(self) -> None:
        """Forget what is left."""
        self._held.clear()
        self._spilled.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep(self, number: int, result: StreamResult) -> None:
        if len(self._held) < self._in_memory:
            self._held[number] = result
            return
        if self._file is None:
            # Not closed by a `with`: it lives as long as we do, and has no name that could stay behind.
            self._file = TemporaryFile()  # noqa: SIM115
        self._spilled[number] = self._file.seek(0, 2)
        pickle.dump(result, self._file, pickle.HIGHEST_PROTOCOL)

    def _fetch(self, number: int) -> StreamResult:
        if number in self._held:
            return self._held.pop(number)
        assert self._file is not None
        self._file.seek(self._spilled.pop(number))
        result: StreamResult = pickle.load(self._file)
        return result
