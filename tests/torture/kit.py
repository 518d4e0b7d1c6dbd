"""What the tests of the suite share: how much they ask, and a port for the suite to listen on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from wfpstream.torture import QUICK

SMALL = replace(
    QUICK,
    bulk=1 << 20,
    owed=1 << 19,
    flood=32 << 20,
    connections=40,
    at_once=8,
    single_writes=100,
    rounds=3,
    round_trips=20,
    pause=0.1,
    # On a busy machine; and more than any kernel's buffers take in.
    patience=60.0,
    limit=100.0,
)
HOLDS_UP = replace(SMALL, flood=1 << 30)


@contextmanager
def held_port() -> Iterator[tuple[str, int]]:
    """A port that nobody else takes for as long as the block runs, and that the suite can listen on."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()
