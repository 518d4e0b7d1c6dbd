"""What the kernel may say instead of a connection: one that died is skipped, anything else is told, and tried again."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest

from tests.transport.kit import Probe, bounded, live
from tests.transport.test_door import dial, talk, wait_told
from wfpstream.transport import _listeners


class Refused:
    """`accept` says the same error each time until it is let go."""

    MANY = 1000  # and after so many times, that nothing hangs

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.number = number
        self.calls = 0
        self.most = self.MANY
        self._accept = _listeners._accept
        monkeypatch.setattr(_listeners, "_accept", self)

    def __call__(self, listening: socket.socket) -> tuple[socket.socket, tuple[Any, ...]]:
        self.calls += 1
        if self.calls <= self.most:
            raise OSError(self.number, os.strerror(self.number))
        return self._accept(listening)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
@bounded
async def test_what_lasts_is_told_once_and_tried_again_and_nobody_is_held_up(number: int) -> None:
    """Also a rule of the system that forbids it, which no end of trying changes."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with live(Probe(), quiet=False) as run:
            client, server = await run.pair()
            refused = Refused(monkeypatch, number)
            (late,) = dial(run, 1)
            await wait_told(run, os.strerror(number).lower())
            await talk(client, server)
            assert refused.calls < Refused.MANY
            refused.most = 0
            await talk(late, await run.accept())
            assert len(run.lines) == 1


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTUNREACH])
@bounded
async def test_one_that_died_in_the_backlog_is_not_spoken_of(number: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with live(Probe()) as run:
            refused = Refused(monkeypatch, number)
            refused.most = 3
            (client,) = dial(run, 1)
            await talk(client, await run.accept())
            assert refused.calls > 3
