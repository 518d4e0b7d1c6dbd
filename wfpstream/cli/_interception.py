"""`run --transparent`: the interception that begins after the listener is open, and ends with the run.

Owns which listener it is for, and that it is undone whatever happens (a kill -9 excepted: `transparent undo`).
What the rules look like is the intercept room's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from wfpstream.cli._base import JobError, note
from wfpstream.config import Config, transparent_settings
from wfpstream.intercept import (
    DEFAULT_MARK,
    InterceptError,
    Interception,
    Record,
    apply,
    may_change_network,
    stop_taking,
    undo,
)
from wfpstream.transport import ListenerSpec

TRANSPARENT_MODES = ("redirect", "tproxy")


class CannotIntercept(JobError):
    """What could not be intercepted, a line each."""

    def __init__(self, lines: Iterable[str]) -> None:
        told = list(lines)
        super().__init__("; ".join(told))
        self.lines = told


def mark_for(specs: Iterable[ListenerSpec]) -> int:
    """SO_MARK of upstream sockets: where connections are intercepted, ours must not be.

    A plain reverse proxy sets it only where it may: nobody need hear that it does not.
    """
    needed = any(spec.mode in TRANSPARENT_MODES for spec in specs)
    return DEFAULT_MARK if needed or may_change_network() else 0


@contextmanager
def intercepting(
    config: Config, mode: str, host: str, port: int, failed: Callable[[JobError], object]
) -> Iterator[Callable[[], None]]:
    """Lead connections to the listener of that mode and address, as `[transparent]` says, as long as the block lasts.

    The block gets what ends that for new connections only: those it has need the rest until they have ended.

    `failed` is told if it cannot be undone then: whoever looks at the exit code has to know.

    Raises:
        CannotIntercept: it cannot be; nothing of it is left.
    """
    settings: dict[str, Any] = transparent_settings(config)
    try:
        if settings["exempt_uid"] is None and not may_change_network():
            settings["exempt_uid"] = os.getuid() or None
        plan = Interception(
            port=port,
            mode="tproxy" if mode == "tproxy" else "redirect",
            families=_families(host),
            **settings,
        )
        made = apply(plan, owner=os.getpid(), log=note)
    except (InterceptError, OSError) as error:
        raise CannotIntercept(_lines(error)) from error
    # Without /proc it is nobody's, and has to go all the same.
    owner = os.getpid() if made.owner is not None else None
    try:
        yield partial(_stop_taking, plan.name, owner, failed)
    finally:
        _undo(made, owner, failed)


def _families(host: str) -> tuple[Literal["ipv4", "ipv6"], ...]:
    """Those that the listener can take; the IPv6 wildcard takes both."""
    if host == "::":
        return ("ipv4", "ipv6")
    return ("ipv6",) if ":" in host else ("ipv4",)


def _stop_taking(name: str, owner: int | None, failed: Callable[[JobError], object]) -> None:
    try:
        stop_taking(name, owner=owner)
    except (InterceptError, OSError) as error:
        failed(CannotIntercept(f"connections are still taken: {line}" for line in _lines(error)))


def _undo(made: Record, owner: int | None, failed: Callable[[JobError], object]) -> None:
    try:
        undo(made.name, owner=owner, made=made)
    except (InterceptError, OSError) as error:
        failed(CannotIntercept(f"interception is not undone: {line}" for line in _lines(error)))


def _lines(error: InterceptError | OSError) -> list[str]:
    if isinstance(error, InterceptError):
        return list(error.lines)
    return [f"{error.filename or 'undo record'}: {(error.strerror or str(error)).lower()}"]
