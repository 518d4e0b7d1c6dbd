"""What `run` needs of whatever serves its listeners: one proxy in this process, or the workers.

Owns these protocols only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from wfpstream.config import Difference, LoadedConfig
from wfpstream.transport import ListenerSpec


class Opened(Protocol):
    """A listener."""

    @property
    def name(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...


class Proxying(Protocol):
    """The proxy's own counts."""

    @property
    def listeners(self) -> Sequence[Opened]: ...
    @property
    def connections(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def rejected(self) -> Mapping[str, int]: ...


class Open(Opened, Protocol):
    """Where connections are taken, and where they go."""

    @property
    def upstream(self) -> tuple[str, int]: ...


class Arranged(Protocol):
    """Other listeners, open and not in force yet."""

    @property
    def listeners(self) -> Sequence[Open]: ...
    @property
    def opened(self) -> Sequence[Open]: ...
    def commit(self) -> None: ...
    def abandon(self) -> None: ...


class Served(Proxying, Protocol):
    """What takes the connections."""

    @property
    def listeners(self) -> Sequence[Open]: ...
    def request_stop(self, grace: float | None = None) -> None: ...
    async def prepare(self, specs: Sequence[ListenerSpec]) -> Arranged: ...


Switch = Callable[[Difference], Awaitable[str]]
"""Puts a change in force elsewhere; says who has it now, to be read behind "reloaded"."""

Following = Callable[[LoadedConfig, Sequence[Open]], AbstractAsyncContextManager[Switch]]
"""For as long as it lasts others are ready to follow a change; it raises ConfigError if one of them cannot."""


@asynccontextmanager
async def nobody_follows(loaded: LoadedConfig, listeners: Sequence[Open]) -> AsyncIterator[Switch]:
    """There are no others."""
    yield _switch_nobody


async def _switch_nobody(difference: Difference) -> str:
    return ""
