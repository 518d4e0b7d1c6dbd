"""Finding one byte pattern in a stream that comes in pieces.

Owns the scan of one piece: the non-overlapping matches, leftmost first, and the tail that may begin another.
It must not know what happens at a match.
"""

from __future__ import annotations


class Matcher:
    """Finds `pattern`; the same matches for every way to cut the stream, if held tails are shown again.

    Args:
        pattern: at least one byte.

    Raises:
        ValueError: the pattern is empty.
    """

    __slots__ = ("_fallback", "_first", "pattern")

    def __init__(self, pattern: bytes) -> None:
        if not pattern:
            raise ValueError("expected at least one byte to find")
        self.pattern = pattern
        self._first = pattern[:1]
        self._fallback = _fallbacks(pattern)

    def find(self, data: bytes, start: int = 0) -> int:
        """Where the next match begins, at or after `start`; -1 if there is none."""
        return data.find(self.pattern, start)

    def concerns(self, data: bytes) -> bool:
        """False: `data` has neither a match nor a tail that may begin one. Cheaper than asking for both."""
        pattern = self.pattern
        return pattern in data or data.find(self._first, max(0, len(data) - len(pattern) + 1)) >= 0

    def find_all(self, data: bytes, limit: int | None = None) -> list[int]:
        """Where the matches begin that do not overlap, leftmost first, at most `limit` of them."""
        found: list[int] = []
        pattern, step = self.pattern, len(self.pattern)
        at = data.find(pattern)
        while at >= 0 and (limit is None or len(found) < limit):
            found.append(at)
            at = data.find(pattern, at + step)
        return found

    def tail(self, data: bytes, start: int = 0) -> int:
        """How many bytes at the end of `data[start:]` may begin a match.

        That is its longest suffix that is a proper prefix of the pattern; a match it must not contain.
        """
        start = max(start, len(data) - len(self.pattern) + 1)
        # Most pieces end here: no byte of the last few is the pattern's first one.
        start = data.find(self._first, start)
        if start < 0:
            return 0
        pattern, fallback = self.pattern, self._fallback
        matched = 0
        for byte in data[start:]:
            while matched and pattern[matched] != byte:
                matched = fallback[matched - 1]
            if pattern[matched] == byte:
                matched += 1
        return matched


def _fallbacks(pattern: bytes) -> list[int]:
    """Knuth, Morris and Pratt: for each prefix, the longest shorter prefix that is also its suffix."""
    table = [0] * len(pattern)
    matched = 0
    for index in range(1, len(pattern)):
        while matched and pattern[matched] != pattern[index]:
            matched = table[matched - 1]
        if pattern[matched] == pattern[index]:
            matched += 1
        table[index] = matched
    return table
