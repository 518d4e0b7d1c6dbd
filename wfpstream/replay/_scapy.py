"""Keeping scapy quiet: what it logs about odd bytes would end up on standard error, once per odd packet."""

from __future__ import annotations

import logging
from types import TracebackType

# scapy's own loggers; its handler hangs on their parent, so the parent's `disabled` would not hold them back.
_LOGGERS = tuple(logging.getLogger(name) for name in ("scapy.runtime", "scapy.loading", "scapy.interactive"))


class QuietScapy:
    """`with QuietScapy():` scapy logs nothing. What the program set for scapy's loggers is back afterwards."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = [logger.disabled for logger in _LOGGERS]
        for logger in _LOGGERS:
            logger.disabled = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for logger, before in zip(_LOGGERS, self._before, strict=True):
            logger.disabled = before
