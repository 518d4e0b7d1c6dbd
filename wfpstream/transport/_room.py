"""Whether another connection may come in: `limits.flows`, and descriptors for both of its legs.

Owns counting with what the process may still open, so that who is accepted can be connected too. It must not know
accepting, nor what a connection is.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._hub import Hub

__all__ = ["Room"]

# For everything that is open now and then: name resolution, a control client, a file that is read again.
_SPARE = 8


class Room:
    """Room for the connections of one proxy. Made when its listeners are open.

    Args:
        connections: how many there are now.
    """

    def __init__(self, hub: Hub, connections: Callable[[], int]) -> None:
        self._hub = hub
        self._connections = connections
        self._descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if self._descriptors == resource.RLIM_INFINITY:
            self._descriptors = sys.maxsize
        # Without /proc, as in some sandboxes, they are had when they are needed, or accepting rests (EMFILE).
        self._others = len(os.listdir("/proc/self/fd")) + _SPARE if os.path.isdir("/proc/self/fd") else 0

    @property
    def is_there(self) -> bool:
        """Another connection may come in; one always may, else nobody ever would."""
        connections = self._connections()
        # As `_flows` and `_pairs`; asked for every connection.
        flows = self._hub.engine.options.limits.flows
        files = 2 * (connections + 1 + self._hub.pipes.open) + self._others
        return not connections or ((not flows or connections < flows) and files <= self._descriptors)

    def is_made(self) -> bool:
        """There was none; now there is, as pipes that are not needed at present have been closed."""
        self._hub.pipes.close_idle()
        return self.is_there

    def is_for_a_pipe(self) -> bool:
        """Another pipe takes no descriptors from the connections that there are, also if one has no upstream yet."""
        return 2 * (self._connections() + self._hub.pipes.open + 1) + self._others <= self._descriptors

    @property
    def why_not(self) -> str:
        """What there is no room for, in words."""
        if self._flows <= self._pairs:
            return f"as many connections as limits.flows allows ({self._flows})"
        return f"as many connections as the limit of open files allows ({self._descriptors} files)"

    @property
    def _flows(self) -> int:
        return self._hub.engine.options.limits.flows or sys.maxsize

    @property
    def _pairs(self) -> int:
        """For how many connections there are descriptors, with those that pipes have now."""
        return (self._descriptors - self._others - 2 * self._hub.pipes.open) // 2
