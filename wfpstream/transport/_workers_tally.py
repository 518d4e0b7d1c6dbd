"""How many connections each worker has, in memory that its parent shares: known also when the worker was killed.

Owns that memory. Each worker writes its own two numbers and reads no others; the parent only reads.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

__all__ = ["Tally"]

_FIELDS = 2
_WORD = 8


class Tally:
    """The numbers of `workers` processes.

    Args:
        workers: how many.
        fd: of the memory, inherited; None makes it.
    """

    def __init__(self, workers: int, fd: int | None = None) -> None:
        size = workers * _FIELDS * _WORD
        if fd is None:
            fd = os.memfd_create("wfpstream-workers", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
        self._fd = fd
        self._memory = mmap.mmap(fd, size)
        self._words = memoryview(self._memory).cast("Q")

    def fileno(self) -> int:
        """The descriptor that a worker inherits."""
        return self._fd

    def connections(self, number: int) -> int:
        """How many connections worker `number` (from 1 on) has."""
        return self._words[(number - 1) * _FIELDS]

    def accepted(self, number: int) -> int:
        """How many connections worker `number` has accepted, its predecessors included."""
        return self._words[(number - 1) * _FIELDS + 1]

    def clear(self, number: int) -> None:
        """Worker `number` has gone, and its connections with it."""
        self._words[(number - 1) * _FIELDS] = 0

    def counter(self, number: int) -> Callable[[int], None]:
        """What worker `number` tells how many connections it has, whenever that changes by one."""
        words, place = self._words, (number - 1) * _FIELDS

        def count(connections: int) -> None:
            if connections > words[place]:
                words[place + 1] += 1
            words[place] = connections

        return count

    def close(self) -> None:
        """Give the memory back."""
        self._words.release()
        self._memory.close()
        os.close(self._fd)
