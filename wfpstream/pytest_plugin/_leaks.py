"""The leak check at the end of a test: flows, contexts, buffers, handles and sockets that were not given back.

Owns what is looked at and the words. Tasks need no look: a proxy's thread ends when its last task has, and a pair has
none. It must not know when a test ends.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from wfpstream.engine import LEAK_RULES, left_behind

if TYPE_CHECKING:
    from wfpstream.engine import FilterEngine
    from wfpstream.testing import Recorder

__all__ = ["connections_of", "leaked_by", "open_sockets"]

Address = tuple[str, int]
Connection = tuple[Address, Address]


def leaked_by(engine: FilterEngine, recorder: Recorder, since: int = 0) -> list[str]:
    """What a stopped engine, and callouts of it, did not give back, a line each.

    Buffers and contexts are seen by the contract verifier: not with `verify="off"`.
    """
    lines = left_behind(engine)
    for event in recorder.entries[since:]:
        if isinstance(event, dict) and event["event"] == "violation" and event["rule"] in LEAK_RULES:
            who = event.get("callout") or "a callout"
            where = f", {event['where']}" if event.get("where") else ""
            lines.append(f"{who}: {event['text']} ({event['rule']}{where})")
    return lines


def connections_of(recorder: Recorder) -> set[Connection]:
    """Both ends, ours first, of every leg that a flow had."""
    from wfpstream.testing import Moment

    moments = (entry for entry in recorder.entries if isinstance(entry, Moment))
    return {(moment.own, moment.peer) for moment in moments if moment.own and moment.peer}


def open_sockets(connections: Collection[Connection], listeners: Collection[Address] = ()) -> list[str]:
    """Which of these connections and listeners of ours are open in this process, a line each.

    A test's own ends are never among them: they have our address as their peer's.
    """
    lines = []
    for sock in _sockets_of_this_process():
        with sock:
            own, peer = _ends(sock)
        if own is not None and peer is not None and (own, peer) in connections:
            lines.append(f"the socket from {_text(own)} to {_text(peer)} is still open")
        elif own is not None and peer is None and own in listeners:
            lines.append(f"the socket that listened at {_text(own)} is still open")
    return lines


def _ends(sock: socket.socket) -> tuple[Address | None, Address | None]:
    own: Address | None = None
    try:
        own = sock.getsockname()[:2]
        return own, sock.getpeername()[:2]
    except OSError:
        return own, None


def _text(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _sockets_of_this_process() -> Iterator[socket.socket]:
    """A duplicate of each TCP socket that is open."""
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return  # no such file system here
    for descriptor in descriptors:
        try:
            if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                continue
            duplicate = os.dup(descriptor)
        except OSError:
            continue  # the list itself, or closed meanwhile
        sock = socket.socket(fileno=duplicate)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            yield sock
        else:
            sock.close()
