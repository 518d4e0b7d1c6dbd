"""How long a thread has waited for a processor, as the kernel counts it: time that nothing the thread does has cost.

Owns the file that says so. It must not know what the thread does, nor who asks.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress

__all__ = ["ProcessorWait"]


class ProcessorWait:
    """Of the thread that makes it; asked from any. Linux only, and not in every container: else it is always 0.

    A thread that sleeps does not wait for a processor. What a hypervisor takes away is not counted.
    """

    def __init__(self) -> None:
        self._fd = -1
        with suppress(OSError):
            self._fd = os.open(
                f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY | os.O_CLOEXEC
            )

    def seconds(self) -> float:
        """Since the thread began; a look costs 2 us."""
        if self._fd == -1:
            return 0.0
        try:
            # Nanoseconds on a processor, nanoseconds waiting for one, and how often.
            return int(os.pread(self._fd, 100, 0).split()[1]) / 1e9
        except (OSError, IndexError, ValueError):  # no such thread any more, or another format
            return 0.0

    def close(self) -> None:
        """Give the file back."""
        fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)
