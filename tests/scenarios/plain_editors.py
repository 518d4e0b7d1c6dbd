"""The two ideal editors in the words of docs/reference/vectors.md, for the plain harness.

Owns a second implementation of what that page describes; it must not know the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PlainEditor:
    """One callout's editor: `decide` gives what to inject, and the answer as vectors write it."""

    style: str
    find: bytes
    replace: bytes
    asks: int
    copies: dict[bool, bytes] = field(default_factory=lambda: {False: b"", True: b""})

    def decide(
        self, inbound: bool, data: bytes, *, fin: bool, abort: bool, last: bool
    ) -> tuple[list[bytes], str]:
        copy = self.copies[inbound]
        if abort or (fin and not copy):
            return [], "P 0"
        if fin:
            self.copies[inbound] = b""
            return [copy], "P 0"
        injected: list[bytes] = []
        while copy:
            both = copy + data
            if both[: len(self.find)] == self.find:
                self.copies[inbound] = b""
                return injected + self._new(), f"B {len(self.find) - len(copy)}"
            if self._may_begin(both):
                self.copies[inbound] = both
                return injected, "B 0"
            # The shortest head without which the rest of the copy may still begin an occurrence.
            head = next(n for n in range(1, len(copy) + 1) if self._may_begin(copy[n:]))
            injected.append(copy[:head])
            copy = self.copies[inbound] = copy[head:]
        more, answer = self._without_copy(inbound, data, last)
        return injected + more, answer

    def _without_copy(self, inbound: bool, data: bytes, last: bool) -> tuple[list[bytes], str]:
        if data.startswith(self.find):
            return self._new(), f"B {len(self.find)}"
        place = data.find(self.find)
        if place > 0:
            return [], f"P {place}"
        tail = next(n for n in range(len(data), -1, -1) if self._may_begin(data[len(data) - n :]))
        if tail < len(data):
            return [], f"P {len(data) - tail}" if tail else "P 0"
        if self.style == "K":
            self.copies[inbound] = data
            return [], "B 0"
        return [], "P 0" if last else f"NMD {self.asks}"

    def _may_begin(self, data: bytes) -> bool:
        return len(data) < len(self.find) and self.find.startswith(data)

    def _new(self) -> list[bytes]:
        return [self.replace] if self.replace else []
