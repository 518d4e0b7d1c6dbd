"""V-53 by content, a hint: what was copied and blocked comes back in another order than it was taken out.

Owns what was blocked lately in each direction of each stage. Clones are compared by their birth, in `_ownership`;
copies have none, so their bytes are. It must not know why something was blocked, nor who injects.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._core import Core
    from ._flow import Lane

KEPT = 256  # indications a direction is remembered by
SHORTEST = 4  # bytes; less comes back by chance too easily

_Piece = tuple[int, int, int]
"""(number, length, hash) of the bytes one decision blocked."""


class OrderHints:
    """The blocked indications of one engine; empty unless `verify.hints`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._blocked: dict[Lane, deque[_Piece]] = {}
        self._newest: dict[Lane, int] = {}
        self._count = 0

    def blocked(self, lane: Lane, pieces: Iterable[memoryview]) -> None:
        """One decision took these bytes out of the stream."""
        content = b"".join(pieces)
        if len(content) >= SHORTEST:
            self._count += 1
            kept = self._blocked.setdefault(lane, deque(maxlen=KEPT))
            kept.append((self._count, len(content), hash(content)))

    def injected(self, lane: Lane, content: bytes) -> None:
        """A copy goes into the stream. Where two indications were alike, nothing can be said."""
        known = self._blocked.get(lane)
        if not known:
            return
        alike = [piece for piece in known if piece[1:] == (len(content), hash(content))]
        if len(alike) != 1:
            return
        known.remove(alike[0])
        if alike[0][0] < self._newest.get(lane, 0):
            self._core.violation("V-53", "pended bytes are injected out of their order", lane)
        self._newest[lane] = max(alike[0][0], self._newest.get(lane, 0))

    def forget(self, lanes: Iterable[Lane]) -> None:
        """Their flow is over."""
        for lane in lanes:
            self._blocked.pop(lane, None)
            self._newest.pop(lane, None)
