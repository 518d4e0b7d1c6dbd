"""Owns the two ideal inline editors of the catalogue: style N waits for more data, style K keeps a copy.

They hold to the contract and replace every occurrence; what faithful ports of WFP's sample do is not theirs.
"""

from __future__ import annotations

from tests.scenarios.support import NMD, Answer, B, Call, P, Recording, inj


def tail_of_match(data: bytes, pattern: bytes) -> int:
    """Length of the longest end of `data` that a match could begin with."""
    longest = min(len(data), len(pattern) - 1)
    return next((n for n in range(longest, 0, -1) if pattern.startswith(data[-n:])), 0)


class Editor(Recording):
    """What both styles share."""

    def __init__(self, pattern: bytes, replacement: bytes, *, name: str = "A") -> None:
        super().__init__(name)
        self.pattern = pattern
        self.replacement = replacement

    def replace(self, call: Call, blocked: int) -> Answer:
        """Replace a match of which `blocked` bytes are at the head of this indication (INL-1, INL-6)."""
        if self.replacement:
            inj(self.replacement)(call)
        return B(blocked)

    def before_match(self, call: Call) -> Answer | None:
        """The decision when no match is under way: None if everything shown may be the start of one."""
        at = call.data.find(self.pattern)
        if at == 0:
            return self.replace(call, len(self.pattern))
        if at > 0:
            return P(at)
        tail = tail_of_match(call.data, self.pattern)
        if tail == len(call.data):
            return None
        return P(len(call.data) - tail) if tail else P(0)


class StyleN(Editor):
    """Asks for more data while everything shown could be the start of a match.

    `asks`: what it asks for then; by default the whole pattern, as WFP's sample does.
    """

    def __init__(
        self, pattern: bytes, replacement: bytes, *, name: str = "A", asks: int | None = None
    ) -> None:
        super().__init__(pattern, replacement, name=name)
        self.asks = len(pattern) if asks is None else asks

    def decide(self, call: Call) -> Answer:
        if call.fin or call.abort:
            return P(0)
        answer = self.before_match(call)
        if answer is not None:
            return answer
        return P(0) if call.no_more_data else NMD(self.asks)


class StyleK(Editor):
    """Copies and blocks what could be the start of a match; injects the copy if it turns out not to be."""

    def __init__(self, pattern: bytes, replacement: bytes, *, name: str = "A") -> None:
        super().__init__(pattern, replacement, name=name)
        self._kept = {False: b"", True: b""}

    def decide(self, call: Call) -> Answer:
        kept = self._kept[call.inbound]
        if call.abort:
            return P(0)
        if call.fin:
            return self._release(call, len(kept))
        while kept:
            seen = kept + call.data
            if seen.startswith(self.pattern):
                self._kept[call.inbound] = b""
                return self.replace(call, len(self.pattern) - len(kept))
            if self.pattern.startswith(seen):
                self._kept[call.inbound] = seen
                return B(0)
            # Not this match; another one may begin inside what is kept.
            self._release(call, len(kept) - tail_of_match(kept[1:], self.pattern))
            kept = self._kept[call.inbound]
        answer = self.before_match(call)
        if answer is None:
            self._kept[call.inbound] = call.data
            return B(0)
        return answer

    def _release(self, call: Call, count: int) -> Answer:
        kept = self._kept[call.inbound]
        if count:
            inj(kept[:count])(call)
        self._kept[call.inbound] = kept[count:]
        return P(0)
